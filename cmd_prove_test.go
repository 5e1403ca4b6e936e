package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cardstile/cardstile/internal/drill"
	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

// proven is what a run of `prove` came to.
type proven struct {
	text, progress string
	err            error
	code           int
}

// runProve runs the command as its flags say, in this process.
func runProve(t *testing.T, args ...string) proven {
	t.Helper()
	var out, progress bytes.Buffer
	cmd := command()
	cmd.SetArgs(append([]string{"prove"}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(&progress)
	return judged(cmd.ExecuteContext(t.Context()), &out, &progress)
}

func judged(err error, out, progress *bytes.Buffer) proven {
	p := proven{text: out.String(), progress: progress.String(), err: err}
	if err != nil {
		p.code = 1
		if coded, ok := errors.AsType[*exitError](err); ok {
			p.code = coded.code
		}
	}
	return p
}

func (p proven) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	all := fmt.Sprintf("%s%s%v", p.progress, p.text, p.err)
	if p.code != code {
		t.Errorf("exit code %d, want %d\n%s", p.code, code, all)
	}
	for _, text := range texts {
		if !strings.Contains(all, text) {
			t.Errorf("it does not say %q:\n%s", text, all)
		}
	}
}

// report reads the document of --json.
func (p proven) report(t *testing.T) (r drill.Report) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(p.text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || d.More() {
		t.Fatalf("not one JSON document: %v\n%s%s", err, p.progress, p.text)
	}
	return r
}

func isEmpty(t *testing.T, servers ...*testredis.Server) {
	t.Helper()
	for _, s := range servers {
		if text, _ := s.Do("INFO", "keyspace").(string); strings.Contains(text, "keys=") {
			t.Errorf("keys are left: %s", text)
		}
	}
}

// TestProveHolds: a healthy Redis, by flags, over TLS, as a user who may do what the store needs and no more.
func TestProveHolds(t *testing.T) {
	t.Parallel()
	const password = "correct-horse-7716"
	s := testredis.StartWith(t, testredis.Options{TLS: true, Users: []string{"gateway on >" + password + " " + store.AccessRules("")}})
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := runProve(t, "--redis", s.Addr, "--username", "gateway", "--password-file", file, "--ca", filepath.Join(s.Dir, "ca.pem"), "--for", "3s", "--seed", "7")
	p.want(t, 0, "\nheld: ", "is empty and ready", "it is empty again", "        0  redeemed twice", "--seed 7")
	if strings.Contains(p.text+p.progress, password) {
		t.Error("it says the password")
	}
	isEmpty(t, s)
}

// TestProveFailover: Sentinels are told to fail over meanwhile, by the operator's command.
func TestProveFailover(t *testing.T) {
	t.Parallel()
	data := []*testredis.Server{testredis.Start(t), testredis.Start(t)}
	data[1].Follow(data[0].Addr)
	data[1].Synced()
	var guards []*testredis.Server
	var addresses []string
	for range 2 {
		g := testredis.StartWith(t, testredis.Options{Sentinel: true})
		g.Monitor("main", data[0].Addr, time.Second)
		guards = append(guards, g)
		addresses = append(addresses, g.Addr)
	}
	for _, g := range guards {
		g.Eventually("it knows the others", func() bool {
			return strings.HasSuffix(g.Field("sentinel", "master0"), "slaves=1,sentinels=2")
		})
	}
	_, port, _ := net.SplitHostPort(guards[0].Addr)
	_, next, _ := net.SplitHostPort(data[1].Addr)
	sentinel := "redis-cli -e -p " + port + " sentinel "
	p := runProve(t, "--redis", strings.Join(addresses, ","), "--master", "main", "--for", "8s", "--json",
		"--fault", sentinel+"failover main && until "+sentinel+"get-master-addr-by-name main | grep -qx "+next+"; do sleep 0.1; done", // it is waited for, if need be beyond --for
		"--fault", "echo no such thing; exit 3")
	p.want(t, 0, "--fault number 1: OK")
	r := p.report(t)
	if r.Verdict != drill.Held || r.Tokens.RedeemedTwice != 0 || r.Tokens.Lost != 0 {
		t.Errorf("%+v", r)
	}
	if r.Tokens.Fenced == 0 || r.Tenures.Changes == 0 || r.Faults.Commands == 0 {
		t.Errorf("it failed over, and nothing was fenced: %s%s", p.progress, p.text)
	}
	if r.Redis.Mode != "sentinel" || r.Redis.Primaries != 1 || r.Redis.Replicas != 1 || r.Keys.Left != 0 {
		t.Errorf("%+v, %+v", r.Redis, r.Keys)
	}
	if (r.Faults.Commands > 1) != (r.Faults.CommandsFailed > 0) || r.Faults.Commands > 1 && !strings.Contains(p.progress, "--fault number 2: no such thing: exit status 3") {
		t.Errorf("%+v: %s", r.Faults, p.progress)
	}
	isEmpty(t, data...)
}

// TestProveCluster: a replica takes over its shard meanwhile, without asking anybody.
func TestProveCluster(t *testing.T) {
	t.Parallel()
	var nodes []*testredis.Server
	var addresses []string
	for range 4 {
		n := testredis.StartWith(t, testredis.Options{Cluster: true})
		nodes = append(nodes, n)
		addresses = append(addresses, n.Addr)
	}
	testredis.Join(3, nodes...)
	config := filepath.Join(t.TempDir(), "config.yaml")
	text := "environment: test\nstore:\n  redis:\n    addresses: [" + strings.Join(addresses, ", ") + "]\n    prefix: \"here:\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(nodes[3].Addr)
	p := runProve(t, "--config", config, "--for", "6s", "--json", "--fault", "redis-cli -e -p "+port+" cluster failover takeover")
	p.want(t, 0)
	r := p.report(t)
	if r.Verdict != drill.Held || r.Redis.Mode != "cluster" || r.Redis.Primaries != 3 || r.Keys.Left != 0 || r.Tokens.Redeemed == 0 {
		t.Errorf("%+v", r)
	}
	if r.Tokens.Fenced == 0 || r.Tenures.Changes == 0 {
		t.Errorf("a shard failed over, and nothing was fenced: %s%s", p.progress, p.text)
	}
	if r.Calls.Unseen*4 > r.Calls.All {
		t.Errorf("of %d calls %d met a tenure that was not seen", r.Calls.All, r.Calls.Unseen)
	}
	isEmpty(t, nodes...)
}

// getDel is SET NX and GETDEL, as everybody writes it first.
type getDel struct{ redis.UniversalClient }

func (s getDel) key(k store.Kind, d store.Digest) string {
	return "cardstile:token:" + string(k) + ":{" + fmt.Sprintf("%x", d[:]) + "}"
}

// Mint is store.Tokens.Mint.
func (s getDel) Mint(ctx context.Context, kind store.Kind, d store.Digest, value []byte, ttl time.Duration) error {
	err := s.SetArgs(ctx, s.key(kind, d), value, redis.SetArgs{Mode: "NX", TTL: ttl}).Err()
	if errors.Is(err, redis.Nil) {
		return store.ErrExists
	}
	return unavailable(err)
}

// Redeem is store.Tokens.Redeem.
func (s getDel) Redeem(ctx context.Context, kind store.Kind, d store.Digest, _ store.Attempt) ([]byte, error) {
	value, err := s.GetDel(ctx, s.key(kind, d)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, store.ErrUnknown
	}
	return value, unavailable(err)
}

func unavailable(err error) error {
	if err != nil {
		return errors.Join(store.ErrUnavailable, err)
	}
	return nil
}

// generous gives a token that is spent to whoever asks.
type generous struct {
	drill.Subject
	values *sync.Map
}

// Redeem is store.Tokens.Redeem.
func (s generous) Redeem(ctx context.Context, kind store.Kind, d store.Digest, a store.Attempt) ([]byte, error) {
	value, err := s.Subject.Redeem(ctx, kind, d, a)
	if err == nil {
		s.values.Store(d, value)
	}
	if kept, ok := s.values.Load(d); ok && errors.Is(err, store.ErrSpent) {
		return kept.([]byte), nil
	}
	return value, err
}

// TestProveFindsWhatIsWrong: stores that do not hold are found out, and the story of their tokens is told.
func TestProveFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	var values sync.Map
	for name, c := range map[string]struct {
		open func(store.RedisConfig) (drill.Subject, error)
		want string
	}{
		"GETDEL": {func(c store.RedisConfig) (drill.Subject, error) {
			return getDel{redis.NewUniversalClient(&redis.UniversalOptions{
				Addrs: c.Addresses, Dialer: c.Dial, Protocol: 2, DisableIdentity: true, MaxRetries: -1, ReadTimeout: c.Timeout, ContextTimeoutEnabled: true,
			})}, nil
		}, "minted under a tenure that lasted, and gone: token "},
		"given to everybody": {func(c store.RedisConfig) (drill.Subject, error) {
			s, err := store.NewRedis(c)
			return generous{s, &values}, err
		}, "given to two: token "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// What is wrong shows where an answer is lost, which the drill sees to: on a busy machine it may take some more of them.
			var s *testredis.Server
			var p proven
			for long := 2 * time.Second; p.code != 1 && long < time.Minute; long *= 4 {
				s = testredis.Start(t)
				var out, progress bytes.Buffer
				err := prove(t.Context(), drill.Config{
					Redis: store.RedisConfig{Addresses: []string{s.Addr}}, For: long, Workers: 8, Open: c.open,
				}, false, &out, &progress)
				p = judged(err, &out, &progress)
			}
			p.want(t, 1, c.want, "\nviolated: ", " as attempt ")
			if strings.Contains(p.text, "value ") {
				t.Errorf("it says what a token stood for:\n%s", p.text)
			}
			if name != "GETDEL" { // whose keys have other names
				isEmpty(t, s)
			}
		})
	}
}

// without has room for no token.
type without struct{ drill.Subject }

// Mint is store.Tokens.Mint.
func (without) Mint(context.Context, store.Kind, store.Digest, []byte, time.Duration) error {
	return store.ErrFull
}

// TestProveShowsNothing: where nothing was redeemed it does not say that single use held.
func TestProveShowsNothing(t *testing.T) {
	t.Parallel()
	s := testredis.Start(t)
	var out, progress bytes.Buffer
	err := prove(t.Context(), drill.Config{
		Redis: store.RedisConfig{Addresses: []string{s.Addr}}, For: time.Second, Workers: 2,
		Open: func(c store.RedisConfig) (drill.Subject, error) {
			s, err := store.NewRedis(c)
			return without{s}, err
		},
	}, false, &out, &progress)
	judged(err, &out, &progress).want(t, 2, "\nundecided: nothing was redeemed", "  refused: there was no room")
}

// TestProveRefuses what it cannot try. Nothing is written there.
func TestProveRefuses(t *testing.T) {
	t.Parallel()
	const password = "battery-staple-2204"
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	full := testredis.StartWith(t, testredis.Options{Users: []string{
		"blind on >" + password + " " + strings.ReplaceAll(store.AccessRules(""), "+info", "+dbsize"),
	}})
	full.Do("SELECT", 3)
	full.Do("SET", "somebody's", "data")
	before := full.Dump()
	lone := testredis.StartWith(t, testredis.Options{Users: []string{
		"blind on >" + password + " " + strings.ReplaceAll(store.AccessRules(""), "+info", "+dbsize"),
	}})
	evicting := testredis.Start(t, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte("environment: test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--redis", full.Addr}, "it is not empty (keys: 1), and the drill is for one that is: nothing was touched"},
		{[]string{"--redis", lone.Addr, "--username", "blind", "--password-file", file}, "ACL SETUSER blind +info"},
		{[]string{"--redis", evicting.Addr}, "set maxmemory-policy noeviction"},
		{[]string{"--redis", nobody.Addr().String()}, "connection refused"},
		{[]string{"--redis", "nowhere"}, "want host:port"},
		{[]string{"--redis", full.Addr, "--ca", file}, "no certificate"},
		{[]string{"--config", config}, "it has no store.redis"},
		{[]string{"--config", config, "--redis", full.Addr}, "--redis: --config says where Redis is"},
		{nil, "want --redis host:port, or --config"},
		{[]string{"--redis", full.Addr, "--for", "10ms"}, "--for: want 1s or more"},
		{[]string{"--redis", full.Addr, "--workers", "1"}, "--workers: want 2"},
		{[]string{"--redis", full.Addr, "--cert", file}, "want both"},
		{[]string{"--redis", full.Addr, "there"}, "unknown command"},
		{[]string{"--readis", full.Addr}, "unknown flag"},
	} {
		p := runProve(t, c.args...)
		p.want(t, 2, c.want)
		if strings.Contains(fmt.Sprint(p), password) {
			t.Errorf("%v: it says the password", c.args)
		}
	}
	if after := full.Dump(); !maps.Equal(before, after) {
		t.Errorf("it was %v and is %v", before, after)
	}
	isEmpty(t, lone, evicting)
}

// TestProveInterrupted: Ctrl-C ends it early; it removes its keys and says what it saw.
func TestProveInterrupted(t *testing.T) {
	t.Parallel()
	s := testredis.Start(t)
	cmd := exec.Command(binary(t), "prove", "--redis", s.Addr, "--for", "1h", "--json")
	var out, progress bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &progress
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	s.Eventually("tokens are there", func() bool { n, _ := s.Do("DBSIZE").(int64); return n > 100 })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p := judged(cmd.Wait(), &out, &progress)
	p.want(t, 0, "interrupted")
	if r := p.report(t); !r.Interrupted || r.Verdict != drill.Held || r.Tokens.Redeemed == 0 || r.Keys.Left != 0 {
		t.Errorf("%+v", r)
	}
	isEmpty(t, s)
}
