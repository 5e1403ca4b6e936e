package drill_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/internal/chaos"
	"github.com/cardstile/cardstile/internal/drill"
	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

// pair is a primary and its replica behind one address, as a managed Redis has it: whoever is the primary is there.
type pair struct {
	net             *drill.Network
	front           *drill.Front
	primary, second *testredis.Server
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{net: drill.NewNetwork(1), primary: testredis.Start(t), second: testredis.Start(t)}
	t.Cleanup(p.net.Close)
	link := p.listen(t, "replica", "primary", p.primary)
	p.front = p.listen(t, "client", "service", p.primary)
	p.second.Follow(link.Address)
	p.second.Synced()
	return p
}

func (p *pair) listen(t *testing.T, from, to string, s *testredis.Server) *drill.Front {
	t.Helper()
	f, err := p.net.Listen(from, to)
	if err != nil {
		t.Fatal(err)
	}
	f.Backend.Store(&s.Addr)
	return f
}

// failOver has the replica hear of nothing until several tokens that it has were redeemed at the primary, and then take over.
func (p *pair) failOver(ctx context.Context) (string, error) {
	const enough = 8
	offset := p.offset(p.primary, "master_repl_offset")
	until := func(happened func() bool) {
		for ctx.Err() == nil && !happened() {
			time.Sleep(20 * time.Millisecond)
		}
	}
	until(func() bool { return p.offset(p.second, "slave_repl_offset") >= offset })
	p.net.Set("replica", "primary", drill.Rule{Cut: true})
	until(func() bool { return p.redeemedSince() >= enough })
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if _, err := p.second.Try("REPLICAOF", "NO", "ONE"); err != nil {
		return "", err
	}
	p.front.Backend.Store(&p.second.Addr)
	p.net.Reset("client", "service")
	return "failover", nil
}

func (*pair) offset(s *testredis.Server, field string) int {
	i, _ := strconv.Atoi(s.Field("replication", field))
	return i
}

// redeemedSince is how many tokens the replica has that are something else at the primary, or gone.
func (p *pair) redeemedSince() (n int) {
	reply, _ := p.second.Try("KEYS", "*")
	keys, _ := reply.([]any)
	for _, key := range keys {
		here, err := p.second.Try("GET", key)
		if err != nil { // it expired
			continue
		}
		if there, _ := p.primary.Try("GET", key); here != there {
			n++
		}
	}
	return n
}

// tokens is a subject of internal/chaos, which closes it when the test ends.
type tokens struct{ store.Tokens }

func (tokens) Close() error { return nil }

// mutant returns one of the wrong stores, by its name.
func mutant(t *testing.T, name string) func(store.RedisConfig) (drill.Subject, error) {
	t.Helper()
	all := chaos.Mutants()
	i := slices.IndexFunc(all, func(m chaos.Mutant) bool { return m.Name == name })
	if i < 0 {
		t.Fatalf("no mutant %s", name)
	}
	return func(c store.RedisConfig) (drill.Subject, error) { return tokens{all[i].New(t, c)}, nil }
}

// TestFailover: one address leads to another server meanwhile, which has not heard of the last redemptions. The store
// refuses what was minted before; without its fence it gives tokens to two, and is found out.
func TestFailover(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		want drill.Verdict
	}{{"the store", drill.Held}, {"without the fence", drill.Violated}, {"with a plain GETDEL", drill.Violated}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			failed := false
			config := drill.Config{
				Redis: store.RedisConfig{Addresses: []string{p.front.Address}}, For: 6 * time.Second, Workers: 8, Seed: 11,
				Fault: func(ctx context.Context) (string, error) {
					if failed {
						return "", errors.New("there is one replica")
					}
					failed = true
					return p.failOver(ctx)
				},
				Say: func(_ time.Duration, what string) { t.Log(what) },
			}
			if c.want == drill.Violated {
				config.Open = mutant(t, c.name)
			}
			r, err := drill.Run(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict != c.want || r.Tenures.Changes != 1 {
				t.Errorf("%+v", r)
			}
			if twice := r.Tokens.RedeemedTwice; (twice > 0) != (c.want == drill.Violated) {
				t.Errorf("%d tokens were redeemed twice", twice)
			}
			if c.want == drill.Violated {
				if v := r.Violations[0]; v.Crime != drill.Twice || !strings.Contains(v.History, " as attempt ") {
					t.Errorf("the first violation is %+v", v)
				}
				return
			}
			if r.Tokens.Fenced == 0 || r.Keys.Left != 0 {
				t.Errorf("%+v %+v", r.Tokens, r.Keys)
			}
		})
	}
}

// TestServerGone: where nobody answers in the end, it is not known whether single use held, nor what is left behind.
func TestServerGone(t *testing.T) {
	t.Parallel()
	s := testredis.Start(t)
	r, err := drill.Run(t.Context(), drill.Config{
		Redis: store.RedisConfig{Addresses: []string{s.Addr}}, For: time.Second, Patience: time.Second, Workers: 4,
		Fault: func(context.Context) (string, error) {
			s.Kill()
			return "killed", nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != drill.Undecided || r.Tokens.Unanswered == 0 || r.Tokens.Unanswered > r.Tokens.All || r.Keys.Left != -1 {
		t.Errorf("%s %+v %+v", r.Verdict, r.Tokens, r.Keys)
	}
}
