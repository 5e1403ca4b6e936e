package credential_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

func redisAt(t testing.TB, servers ...*testredis.Server) *store.Redis {
	t.Helper()
	c := store.RedisConfig{Timeout: 10 * time.Second}
	for _, s := range servers {
		c.Addresses = append(c.Addresses, s.Addr)
	}
	r, err := store.NewRedis(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// sees waits until an instance knows a partner to be on or off.
func (i *instance) sees(t testing.TB, id string, disabled bool) {
	t.Helper()
	for {
		st, err := i.At(t.Context(), id, credential.StandingFresh)
		if err == nil && st.Disabled == disabled {
			return
		}
		if t.Context().Err() != nil {
			t.Fatalf("%+v, %v", st, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestStandingInACluster: in Redis Cluster all standings are in one slot, wherever it is, while it moves and afterwards.
func TestStandingInACluster(t *testing.T) {
	var nodes []*testredis.Server
	for range 3 {
		nodes = append(nodes, testredis.StartWith(t, testredis.Options{Cluster: true}))
	}
	testredis.Join(3, nodes...)
	seals := newSeals(t, "k", nil)
	one := newStandings(t, redisAt(t, nodes...), seals).run(t)
	two := newStandings(t, redisAt(t, nodes[2], nodes[0]), seals).run(t)
	command := newStandings(t, redisAt(t, nodes...), seals)
	changed(t)(command.Disable(t.Context(), "a"))
	one.sees(t, "a", true)
	two.sees(t, "a", true)

	slot := int(nodes[0].Do("CLUSTER", "KEYSLOT", "cardstile:shared:{standing}").(int64))
	from := slot * 3 / 16384
	to := (from + 1) % 3
	testredis.Move(slot, nodes[from], nodes[to], []*testredis.Server{nodes[3-from-to]}, func() {
		changed(t)(command.Enable(t.Context(), "a"))
		one.sees(t, "a", false)
	})
	changed(t)(command.Disable(t.Context(), "b"))
	for _, i := range []*instance{one, two} {
		i.sees(t, "a", false)
		i.sees(t, "b", true)
	}
	if n := nodes[to].Do("HLEN", "cardstile:shared:{standing}"); n != int64(3) {
		t.Errorf("%v standings where the slot is", n)
	}
}

// movable is a store that moves to another server, as Sentinels have it.
type movable struct{ atomic.Pointer[store.Redis] }

// TestAFailoverThatLostAChange: a replica that had not heard of a change is promoted. The instance that had seen the change raises
// it again, and one that had not, learns it.
func TestAFailoverThatLostAChange(t *testing.T) {
	primary, replica := testredis.Start(t), testredis.Start(t)
	replica.Follow(primary.Addr)
	replica.Synced()
	before, after := redisAt(t, primary), redisAt(t, replica)
	seals := newSeals(t, "k", nil)
	var follows movable
	follows.Store(before)
	seen := newStandings(t, moving{&follows}, seals).run(t)
	command := newStandings(t, before, seals)
	changed(t)(command.RevokeTokens(t.Context(), "a"))
	replica.Synced()

	replica.Promote() // it hears nothing more
	off := changed(t)(command.Disable(t.Context(), "a"))
	seen.sees(t, "a", true)
	primary.Kill()
	unseen := newStandings(t, after, seals)
	if st := unseen.at(t, "a"); st.Disabled {
		t.Fatal("the failover has lost nothing")
	}
	unseen.run(t)
	follows.Store(after)
	unseen.sees(t, "a", true)
	if st := unseen.at(t, "a"); st != off {
		t.Errorf("%+v, want %+v", st, off)
	}
	seen.sees(t, "a", true)
}

// moving is movable as a store.
type moving struct{ to *movable }

func (m moving) Shared(ctx context.Context, k store.Kind) (map[string]store.Versioned, error) {
	return m.to.Load().Shared(ctx, k)
}

func (m moving) Raise(ctx context.Context, k store.Kind, name string, v store.Versioned) error {
	return m.to.Load().Raise(ctx, k, name, v)
}
