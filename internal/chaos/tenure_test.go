package chaos

import (
	"testing"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

// TestTenuresThatEndWithoutAFault: Redis gives a primary a new replication id when its first replica comes, and when it
// had none for repl-backlog-ttl (an hour, unless it is set; 0 is never). What was minted before is refused then, though
// nothing was lost: the fence cannot know. Replicas that come and go beside others end nothing.
func TestTenuresThatEndWithoutAFault(t *testing.T) {
	primary := testredis.StartWith(t, with("--repl-backlog-ttl", "1"))
	tokens := Real.New(t, config(primary.Addr))
	next := byte(0)
	mint := func() store.Digest {
		t.Helper()
		next++
		d := store.Digest{next}
		if err := tokens.Mint(t.Context(), store.KindToken, d, []byte("v"), longLife); err != nil {
			t.Fatal(err)
		}
		return d
	}
	redeem := func(what string, d store.Digest, want error) {
		t.Helper()
		if _, err := tokens.Redeem(t.Context(), store.KindToken, d, id(1)); err != want {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	replica := func() *testredis.Server {
		r := testredis.StartWith(t, with())
		r.Follow(primary.Addr)
		r.Synced()
		return r
	}
	alone := mint()
	first := replica()
	redeem("minted before the first replica", alone, store.ErrFenced)

	together := mint()
	second := replica()
	redeem("minted before the second replica", together, nil)
	together = mint()
	second.Kill()
	redeem("minted before a replica went", together, nil)

	last := mint()
	tenure := primary.Field("replication", "master_replid")
	first.Kill()
	primary.Eventually("the primary forgets its replicas", func() bool { return primary.Field("replication", "master_replid") != tenure })
	redeem("minted before the last replica was long gone", last, store.ErrFenced)
}
