package chaos

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cardstile/cardstile/policy/store"
)

// The mutants are stores with one thing wrong. Where they run scripts these are the store's own, read from its source, with
// one line changed, so that nothing but that line can be what the judge finds.

// change is what a mutant does to a script: every old text, which must be there, becomes the new one.
type change struct{ old, new string }

var (
	// withoutFence compares no tenures.
	withoutFence = change{"not string.find(info, 'master_replid:' .. tenure, 1, true)", "false"}
	// withoutAttempt knows no attempt again.
	withoutAttempt = change{"if attempt ~= ARGV[1] or", "if true or"}
	// byRunID takes the process for the tenure.
	byRunID = []change{
		{"redis.call('INFO', 'replication')", "redis.call('INFO', 'server') .. redis.call('INFO', 'replication')"},
		{"'master_replid:'", "'run_id:'"},
	}
	// mintByRunID is the same for the script that takes it down.
	mintByRunID = append(slices.Clone(byRunID), change{"at + 14, at + 53", "at + 7, at + 46"})
	// byOffer compares tenures only with those of before, as a fence that believes the secondary id does: PSYNC's rule, and wrong here.
	byOffer = change{"not string.find(info, 'master_replid:' .. tenure, 1, true)", "not string.find(info, 'master_replid2?:' .. tenure)"}
	// valueAgain gives a spent token's value to whoever asks within the window.
	valueAgain = change{"if attempt ~= ARGV[1] or", "if"}
)

// Mutant is a store with something wrong, and where that shows.
type Mutant struct {
	Subject
	// In is a scenario in which it shows, by Crime.
	In    Scenario
	Crime crime
}

// Mutants are all. Lag before a failover, and replies that break, are in every scenario that they name.
func Mutants() []Mutant {
	flip := failovers(2, alive, alive)
	return []Mutant{
		{scripted("without the fence", -1, nil, []change{withoutFence}), failovers(1, partition), twice},
		{scripted("without the fence", -1, nil, []change{withoutFence}), failovers(1, crash), twice},
		{scripted("without the fence", -1, nil, []change{withoutFence}), sentinels, twice},
		{scripted("with a fence on run_id", -1, mintByRunID, byRunID), flip, twice},
		{scripted("with a fence that takes the id before, too", -1, nil, []change{byOffer}), failovers(1, alive), twice},
		{scripted("without attempt ids", -1, nil, []change{withoutAttempt}), wires(1), illegal},
		{scripted("without attempt ids, its library trying again", 2, nil, []change{withoutAttempt}), wires(1), illegal},
		{scripted("that gives the value to every attempt", -1, nil, []change{valueAgain}), pauses, twice},
		{unacknowledged, quorums(1), twice},
		{plain, failovers(1, partition), twice},
		{plain, wires(1), illegal},
		{plain, cluster, twice},
		{forgetful, pauses, lost},
	}
}

// scripted is the store's scripts with changes, behind a client with so many retries.
func scripted(name string, retries int, inMint, inRedeem []change) Subject {
	return Subject{name, func(t testing.TB, c store.RedisConfig) store.Tokens {
		return &scriptTokens{
			client: client(t, c, retries),
			mint:   source(t, "redis_mint.lua", inMint), redeem: source(t, "redis_redeem.lua", inRedeem),
		}
	}}
}

func source(t testing.TB, name string, changes []change) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "policy", "store", name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, c := range changes {
		if !strings.Contains(text, c.old) {
			t.Fatalf("%s has no %q: the mutant changes nothing", name, c.old)
		}
		text = strings.ReplaceAll(text, c.old, c.new)
	}
	return text
}

func client(t testing.TB, c store.RedisConfig, retries int) redis.UniversalClient {
	o := &redis.UniversalOptions{
		Addrs: c.Addresses, MasterName: c.MasterName, Protocol: 2, DisableIdentity: true, MaxRetries: retries, DialerRetries: 1, ContextTimeoutEnabled: true,
		DialTimeout: c.DialTimeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, PoolTimeout: c.Timeout, PoolSize: c.PoolSize,
		Dialer: c.Dial,
	}
	u := redis.NewUniversalClient(o)
	if len(c.Addresses) > 1 && c.MasterName == "" {
		u.Close()
		cluster := o.Cluster()
		cluster.ClusterStateReloadInterval = time.Second
		u = redis.NewClusterClient(cluster)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

type scriptTokens struct {
	client       redis.UniversalClient
	mint, redeem string
	tenure       []any // given, rather than read
}

func key(kind store.Kind, d store.Digest) string {
	return "mutant:" + string(kind) + ":{" + string(d[:]) + "}"
}

// stays is how long past its time a token's key stays.
func stays(kind store.Kind) time.Duration {
	if kind == store.KindCard {
		return 0
	}
	return store.SpentFor
}

// noAnswer is what the store says when it knows nothing.
func noAnswer(err error) error { return errors.Join(store.ErrUnavailable, err) }

// Mint is store.Tokens.Mint.
func (s *scriptTokens) Mint(ctx context.Context, kind store.Kind, d store.Digest, value []byte, ttl time.Duration) error {
	n, err := s.client.Eval(ctx, s.mint, []string{key(kind, d)}, append([]any{(ttl + stays(kind)).Milliseconds(), value}, s.tenure...)...).Int()
	switch {
	case err != nil:
		return noAnswer(err)
	case n == 0:
		return store.ErrExists
	}
	return nil
}

// Redeem is store.Tokens.Redeem.
func (s *scriptTokens) Redeem(ctx context.Context, kind store.Kind, d store.Digest, a store.Attempt) ([]byte, error) {
	window := store.ReplayWindow
	if kind == store.KindCard {
		window = 0
	}
	reply, err := s.client.Eval(ctx, s.redeem, []string{key(kind, d)}, append([]any{a[:],
		window.Milliseconds(), stays(kind).Milliseconds(), store.SpentFor.Milliseconds()}, s.tenure...)...).Result()
	if err != nil {
		return nil, noAnswer(err)
	}
	switch v := reply.(type) {
	case string:
		return []byte(v), nil
	case int64:
		return nil, []error{store.ErrUnknown, store.ErrFenced, store.ErrExpired}[v]
	case []any:
		return nil, store.ErrSpent
	}
	return nil, noAnswer(nil)
}

// unacknowledged is the store in its quorum mode, but for the acknowledgement: nobody waits for replicas.
var unacknowledged = Subject{"with a quorum that nobody waits for", func(t testing.TB, c store.RedisConfig) store.Tokens {
	return &scriptTokens{
		client: client(t, c, -1), tenure: []any{strings.Repeat("0", 40)},
		mint: source(t, "redis_mint.lua", nil), redeem: source(t, "redis_redeem.lua", nil),
	}
}}

// plain is SET NX and GETDEL, as everybody writes it first.
var plain = Subject{"with a plain GETDEL", func(t testing.TB, c store.RedisConfig) store.Tokens {
	return plainTokens{client(t, c, -1)}
}}

type plainTokens struct{ client redis.UniversalClient }

// Mint is store.Tokens.Mint.
func (s plainTokens) Mint(ctx context.Context, kind store.Kind, d store.Digest, value []byte, ttl time.Duration) error {
	err := s.client.SetArgs(ctx, key(kind, d), value, redis.SetArgs{Mode: "NX", TTL: ttl}).Err()
	switch {
	case errors.Is(err, redis.Nil):
		return store.ErrExists
	case err != nil:
		return noAnswer(err)
	}
	return nil
}

// Redeem is store.Tokens.Redeem.
func (s plainTokens) Redeem(ctx context.Context, kind store.Kind, d store.Digest, _ store.Attempt) ([]byte, error) {
	v, err := s.client.GetDel(ctx, key(kind, d)).Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, store.ErrUnknown
	case err != nil:
		return nil, noAnswer(err)
	}
	return v, nil
}

// forgetful says that it minted and now and then did not.
var forgetful = Subject{"that forgets what it minted", func(t testing.TB, c store.RedisConfig) store.Tokens {
	return forgetfulTokens{Real.New(t, c)}
}}

type forgetfulTokens struct{ store.Tokens }

// Mint is store.Tokens.Mint.
func (s forgetfulTokens) Mint(ctx context.Context, kind store.Kind, d store.Digest, value []byte, ttl time.Duration) error {
	if d[0] < 16 {
		return nil
	}
	return s.Tokens.Mint(ctx, kind, d, value, ttl)
}
