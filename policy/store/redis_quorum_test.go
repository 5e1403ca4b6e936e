package store_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

// replicated is a primary with replicas that follow it.
func replicated(t *testing.T, o testredis.Options, replicas int) (primary *testredis.Server, followers []*testredis.Server) {
	t.Helper()
	primary = testredis.StartWith(t, o)
	for range replicas {
		followers = append(followers, addReplica(t, primary))
	}
	return primary, followers
}

// addReplica has another one follow, and returns when what is written reaches it: that its link is up comes up to a second
// before.
func addReplica(t *testing.T, primary *testredis.Server) *testredis.Server {
	t.Helper()
	r := testredis.Start(t)
	r.Follow(primary.Addr)
	r.Synced()
	primary.Do("SET", "reaches", "it")
	r.Eventually("what is written reaches the replica", func() bool { return r.Do("EXISTS", "reaches") == int64(1) })
	primary.Do("DEL", "reaches")
	return r
}

func quorumOf(t *testing.T, s *testredis.Server, replicas int) *store.Redis {
	t.Helper()
	return newRedis(t, store.RedisConfig{
		Addresses: []string{s.Addr}, Quorum: &store.Quorum{Replicas: replicas, Timeout: 200 * time.Millisecond},
	})
}

func TestQuorumIsChecked(t *testing.T) {
	for name, q := range map[string]store.Quorum{
		"no replica":        {},
		"too many":          {Replicas: 101},
		"a negative time":   {Replicas: 1, Timeout: -1},
		"no time":           {Replicas: 1, Timeout: time.Microsecond},
		"more than a reply": {Replicas: 1, Timeout: time.Second},
	} {
		if r, err := store.NewRedis(store.RedisConfig{Addresses: []string{"127.0.0.1:6379"}, Quorum: &q}); err == nil {
			r.Close()
			t.Errorf("%s was taken", name)
		}
	}
}

// With replicas that acknowledge, a store keeps the contract as it does without.
func TestQuorumKeepsTheContract(t *testing.T) {
	primary, _ := replicated(t, testredis.Options{}, 2)
	r := quorumOf(t, primary, 2)
	must(t, r.Ready(t.Context()))
	primary.Do("SCRIPT", "FLUSH")
	for name, call := range calls(r) {
		if err := call(t.Context()); !isAnswer(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for kind, again := range map[store.Kind]error{store.KindToken: nil, store.KindCard: store.ErrSpent} {
		d := digest()
		must(t, r.Mint(t.Context(), kind, d, []byte("v"), time.Hour))
		wantError(t, "mint over it", r.Mint(t.Context(), kind, d, []byte("w"), time.Hour), store.ErrExists)
		v, err := r.Redeem(t.Context(), kind, d, attempt(1))
		if err != nil || string(v) != "v" {
			t.Errorf("%s: %q, %v", kind, v, err)
		}
		_, err = r.Redeem(t.Context(), kind, d, attempt(1))
		wantError(t, "the same attempt", err, again)
		_, err = r.Redeem(t.Context(), kind, d, attempt(2))
		wantError(t, "another attempt", err, store.ErrSpent)
	}
}

// What too few replicas have is not released: not by the call that wrote it, and not by one that asks again on a connection
// that has written nothing, of which WAIT by itself would say that all is well.
func TestQuorumFailsClosed(t *testing.T) {
	primary, replicas := replicated(t, testredis.Options{}, 2)
	r := quorumOf(t, primary, 2)
	live := digest()
	must(t, r.Mint(t.Context(), store.KindToken, live, []byte("v"), time.Hour))

	replicas[1].Pause()
	_, err := r.Redeem(t.Context(), store.KindToken, live, attempt(1))
	wantReason(t, "redeem", err, store.ReasonReplicas)
	v, err := quorumOf(t, primary, 2).Redeem(t.Context(), store.KindToken, live, attempt(1))
	wantReason(t, "the same attempt, on another connection", err, store.ReasonReplicas)
	if v != nil {
		t.Errorf("a value came with it: %q", v)
	}
	_, err = r.Redeem(t.Context(), store.KindToken, live, attempt(2))
	wantReason(t, "another attempt, which a failover could yet give it to", err, store.ReasonReplicas)
	wantReason(t, "mint", r.Mint(t.Context(), store.KindToken, digest(), nil, time.Hour), store.ReasonReplicas)
	wantReason(t, "once", r.Once(t.Context(), store.KindEnvelope, digest(), time.Hour), store.ReasonReplicas)
	begun, err := r.Begin(t.Context(), kindCall, digest(), digest(), attempt(1), time.Hour, time.Hour, 0)
	wantReason(t, "begin", err, store.ReasonReplicas)
	if begun.Owner {
		t.Error("begun, with an error")
	}
	err = r.Ready(t.Context())
	wantReason(t, "ready", err, store.ReasonReplicas)
	wantText(t, err, "quorum of 2", "200ms")

	replicas[1].Resume()
	caughtUp(replicas[1], primary)
	if v, err := r.Redeem(t.Context(), store.KindToken, live, attempt(1)); err != nil || string(v) != "v" {
		t.Errorf("the same attempt, with its quorum: %q, %v", v, err)
	}
	must(t, r.Ready(t.Context()))
}

// A failover takes along what was acknowledged: what is spent stays spent, and what is not can still be redeemed.
func TestQuorumFailover(t *testing.T) {
	primary, replicas := replicated(t, testredis.Options{}, 1)
	r := quorumOf(t, primary, 1)
	live, spent := digest(), digest()
	for _, d := range []store.Digest{live, spent} {
		must(t, r.Mint(t.Context(), store.KindToken, d, []byte("v"), time.Hour))
	}
	_, err := r.Redeem(t.Context(), store.KindToken, spent, attempt(1))
	must(t, err)
	primary.Kill()
	replicas[0].Promote()

	alone := quorumOf(t, replicas[0], 1)
	_, err = alone.Redeem(t.Context(), store.KindToken, live, attempt(3))
	wantReason(t, "redeem without a replica", err, store.ReasonReplicas)

	addReplica(t, replicas[0])
	if _, err = alone.Redeem(t.Context(), store.KindToken, live, attempt(3)); err != nil {
		t.Errorf("redeem, with one: %v", err)
	}
	_, err = alone.Redeem(t.Context(), store.KindToken, spent, attempt(2))
	wantError(t, "redeem what was spent", err, store.ErrSpent)
}

// Neither way takes the other's tokens: of one minted by tenure nobody knows who has it.
func TestQuorumAndTenureAreApart(t *testing.T) {
	primary, _ := replicated(t, testredis.Options{}, 1)
	quorum, tenure := quorumOf(t, primary, 1), newRedis(t, store.RedisConfig{Addresses: []string{primary.Addr}})
	for name, way := range map[string][2]*store.Redis{"by quorum": {quorum, tenure}, "by tenure": {tenure, quorum}} {
		d := digest()
		must(t, way[0].Mint(t.Context(), store.KindToken, d, nil, time.Hour))
		_, err := way[1].Redeem(t.Context(), store.KindToken, d, attempt(1))
		wantError(t, "minted "+name, err, store.ErrFenced)
	}
}

// It is for servers whose scripts cannot read INFO.
func TestQuorumWithoutInfo(t *testing.T) {
	rules := store.AccessRules("")
	primary, _ := replicated(t, testredis.Options{Users: []string{"noinfo on >pw " + rules + " -info +config|get"}}, 1)
	as := func(q *store.Quorum) *store.Redis {
		return newRedis(t, store.RedisConfig{Addresses: []string{primary.Addr}, Username: "noinfo", PasswordFile: passwordFile(t, "pw"), Quorum: q})
	}
	err := as(nil).Ready(t.Context())
	wantReason(t, "by tenure", err, store.ReasonPermission)
	wantText(t, err, "fence: quorum")

	r := as(&store.Quorum{Replicas: 1})
	must(t, r.Ready(t.Context()))
	d := digest()
	must(t, r.Mint(t.Context(), store.KindToken, d, nil, time.Hour))
	_, err = r.Redeem(t.Context(), store.KindToken, d, attempt(1))
	must(t, err)
}

// The attempt that lost its reply asks again underneath, and gets its value; of a kind that is given away once it does not.
func TestRedeemSurvivesALostReply(t *testing.T) {
	s := testredis.Start(t)
	relay := newRelay(t, s.Addr)
	r := newRedis(t, store.RedisConfig{Addresses: []string{relay.addr}})
	for kind, want := range map[store.Kind]error{store.KindToken: nil, store.KindCard: store.ErrUnavailable} {
		d := digest()
		must(t, r.Mint(t.Context(), kind, d, []byte("v"), time.Hour))
		// The script is known to the server, so that the reply that is lost is the redemption's.
		warm := digest()
		must(t, r.Mint(t.Context(), kind, warm, nil, time.Hour))
		_, err := r.Redeem(t.Context(), kind, warm, attempt(1))
		must(t, err)

		relay.lose.Store(true)
		v, err := r.Redeem(t.Context(), kind, d, attempt(1))
		wantError(t, string(kind), err, want)
		if (err == nil) != (string(v) == "v") {
			t.Errorf("%s: %q", kind, v)
		}
		if relay.lose.Load() {
			t.Fatalf("%s: no reply was lost", kind)
		}
		_, err = r.Redeem(t.Context(), kind, d, attempt(2))
		wantError(t, "another attempt at a "+string(kind), err, store.ErrSpent)
	}
}

// relay passes connections on, and loses a reply when it is told to: it closes the connection in its place.
type relay struct {
	addr string
	lose atomic.Bool
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r := &relay{addr: l.Addr().String()}
	var running sync.WaitGroup
	var conns sync.Map
	running.Go(func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				down.Close()
				continue
			}
			conns.Store(down, nil)
			conns.Store(up, nil)
			running.Go(func() { _, _ = io.Copy(up, down); up.Close() })
			running.Go(func() {
				defer down.Close()
				defer up.Close()
				for b := make([]byte, 64<<10); ; {
					n, err := up.Read(b)
					if err != nil || r.lose.CompareAndSwap(true, false) {
						return
					}
					if _, err := down.Write(b[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		running.Wait()
	})
	return r
}
