package store_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy/store"
)

// Calls have room of their own: what stays for days does not crowd out tokens, nor tokens what was begun.
func TestMemoryCallsAreBounded(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{MaxCalls: 10, MaxEntries: 2})
	all := make([]call, 10)
	for i := range all {
		all[i] = newCall(m)
		all[i].lease = time.Minute
		all[i].wantOwner(t, "begin", attempt(1))
	}
	newCall(m).wantRefused(t, "the eleventh", attempt(1), store.ErrFull)
	newCall(m).wantRefused(t, "the eleventh", attempt(1), store.ErrUnavailable)
	err := m.Ready(t.Context())
	wantError(t, "ready", err, store.ErrFull)
	wantText(t, err, "10 idempotent calls of 10")
	must(t, m.Mint(t.Context(), store.KindToken, digest(), nil, 10*24*time.Hour))

	// What has begun goes on: it is told apart, taken over, finished with whatever answer, and replayed.
	all[0].wantRefused(t, "in flight", attempt(2), store.ErrInFlight)
	ticks.pass(time.Minute)
	all[0].wantTakeOver(t, "lease over", attempt(2))
	long := strings.Repeat("v", 1000)
	must(t, all[0].finish(t.Context(), attempt(2), long))
	all[0].wantKept(t, "finished", attempt(3), long)
	// One that is abandoned leaves its place to another.
	must(t, all[1].abandon(t.Context(), attempt(1)))
	newCall(m).wantOwner(t, "in its place", attempt(1))
	newCall(m).wantRefused(t, "and no more", attempt(1), store.ErrFull)
	// Tombstones take room too, until their time is over.
	ticks.pass(8*24*time.Hour - 2*time.Minute)
	newCall(m).wantRefused(t, "beside tombstones", attempt(1), store.ErrFull)
	ticks.pass(2 * time.Minute)
	must(t, m.Ready(t.Context()))
	for range 10 {
		newCall(m).wantOwner(t, "after all of them", attempt(1))
	}
	newCall(m).wantRefused(t, "and no more", attempt(1), store.ErrFull)
	must(t, m.Close())
}

// A store that is full of what is over is not full.
func TestMemoryMakesRoomForACall(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{MaxCalls: 1})
	for range 50 { // each time in another shard
		c := newCall(m)
		c.wantOwner(t, "begin", attempt(1))
		newCall(m).wantRefused(t, "another", attempt(1), store.ErrFull)
		ticks.pass(c.ttl + c.tombstone + time.Second) // the wheel's second
	}
}

// A tombstone has no answer any more, also when nobody asks for it, and the bytes are overwritten.
func TestMemoryDropsTheAnswerOfATombstone(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{})
	const calls = 5000
	canary := "canary-2b6e"
	all := make([]call, calls)
	for i := range all {
		all[i] = newCall(m)
		all[i].wantOwner(t, "begin", attempt(1))
		must(t, all[i].finish(t.Context(), attempt(1), canary+strings.Repeat(".", 4000)))
	}
	full, _ := m.Held()
	if n := m.Count([]byte(canary)); n != calls {
		t.Fatalf("it stands there %d times: this test finds nothing", n)
	}
	ticks.pass(24*time.Hour + time.Second)
	must(t, m.Ready(t.Context()))
	if n := m.Count([]byte(canary)); n != 0 {
		t.Errorf("it still stands there %d times", n)
	}
	left, records := m.Held()
	if records != calls || left > full/10 {
		t.Errorf("%d records in %d bytes, of %d", records, left, full)
	}
	for _, c := range all {
		c.wantRefused(t, "a tombstone", attempt(2), store.ErrTombstone)
		c.other().wantRefused(t, "a tombstone", attempt(2), store.ErrTombstone)
		wantError(t, "finish", c.finish(t.Context(), attempt(1), canary), store.ErrLost)
		wantError(t, "abandon", c.abandon(t.Context(), attempt(1)), store.ErrLost)
	}
	ticks.pass(7 * 24 * time.Hour)
	must(t, m.Ready(t.Context()))
	if _, records := m.Held(); records != 0 {
		t.Errorf("%d records are left", records)
	}
}

// A clock that goes back revives no tombstone, and finds nothing where its answer was.
func TestMemoryClockGoesBackOverATombstone(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{})
	ticks.pass(time.Hour)
	c := newCall(m)
	c.wantOwner(t, "begin", attempt(1))
	must(t, c.finish(t.Context(), attempt(1), "v"))
	ticks.pass(25 * time.Hour)
	must(t, m.Ready(t.Context())) // the answer goes
	ticks.pass(-25 * time.Hour)
	c.wantRefused(t, "begin again", attempt(2), store.ErrTombstone)
	wantError(t, "finish", c.finish(t.Context(), attempt(1), "w"), store.ErrLost)
}

// Many callers of few calls: no call has two owners at once, and the counts come out even.
func TestMemoryCallsConcurrently(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{MaxCalls: 100})
	shared := make([]call, 20)
	owners := make([]atomic.Int64, len(shared))
	for i := range shared {
		shared[i] = newCall(m)
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for n := range 3000 {
				i := n * (worker + 1) % len(shared)
				c, a := shared[i], numbered(worker*3000+n)
				begun, err := c.begin(t.Context(), a)
				switch {
				case err != nil && !errors.Is(err, store.ErrInFlight) && !errors.Is(err, store.ErrFull):
					t.Error(err)
				case err == nil && !begun.Owner && string(begun.Value) != "v":
					t.Errorf("answered %q", begun.Value)
				case begun.Owner:
					if owners[i].Add(1) != 1 {
						t.Error("two owners")
					}
					owners[i].Add(-1)
					if n > 2000 {
						err = c.finish(t.Context(), a, "v")
					} else {
						err = c.abandon(t.Context(), a)
					}
					if err != nil {
						t.Error(err)
					}
				}
				own := newCall(m)
				own.lease, own.ttl, own.tombstone = time.Second, time.Second, time.Second
				if _, err := own.begin(t.Context(), a); err != nil && !errors.Is(err, store.ErrFull) {
					t.Error(err)
				}
				if worker == 0 && n%20 == 0 {
					ticks.pass(3 * time.Second)
				}
			}
		})
	}
	wg.Wait()
	ticks.pass(30 * 24 * time.Hour)
	must(t, m.Ready(t.Context()))
	if _, records := m.Held(); records != 0 {
		t.Errorf("%d records are left", records)
	}
	for range 100 {
		newCall(m).wantOwner(t, "room for all", attempt(1))
	}
	newCall(m).wantRefused(t, "one more", attempt(1), store.ErrFull)
}
