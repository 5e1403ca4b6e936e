package store_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy/store"
)

// kindCall is the kind of the calls in these tests.
const kindCall store.Kind = "call"

// call is an idempotent call and its caller's times.
type call struct {
	store.Store
	scope, body           store.Digest
	lease, ttl, tombstone time.Duration
}

// newCall returns one that was never begun and whose times end in no test.
func newCall(s store.Store) call {
	return call{s, digest(), digest(), time.Hour, 24 * time.Hour, 7 * 24 * time.Hour}
}

func (c call) begin(ctx context.Context, a store.Attempt) (store.Begun, error) {
	return c.Begin(ctx, kindCall, c.scope, c.body, a, c.lease, c.ttl, c.tombstone)
}

func (c call) finish(ctx context.Context, a store.Attempt, value string) error {
	return c.Finish(ctx, kindCall, c.scope, a, []byte(value))
}

func (c call) abandon(ctx context.Context, a store.Attempt) error {
	return c.Abandon(ctx, kindCall, c.scope, a)
}

// other is the same call with another body.
func (c call) other() call {
	c.body = digest()
	return c
}

func (c call) wantOwner(t *testing.T, what string, a store.Attempt) {
	t.Helper()
	c.want(t, what, a, store.Begun{Owner: true})
}

func (c call) wantTakeOver(t *testing.T, what string, a store.Attempt) {
	t.Helper()
	c.want(t, what, a, store.Begun{Owner: true, TakenOver: true})
}

func (c call) wantKept(t *testing.T, what string, a store.Attempt, value string) {
	t.Helper()
	c.want(t, what, a, store.Begun{Value: []byte(value)})
}

func (c call) want(t *testing.T, what string, a store.Attempt, want store.Begun) {
	t.Helper()
	got, err := c.begin(t.Context(), a)
	if err != nil || got.Owner != want.Owner || got.TakenOver != want.TakenOver || !bytes.Equal(got.Value, want.Value) ||
		(got.Value == nil) != (want.Value == nil) {
		t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
	}
}

func (c call) wantRefused(t *testing.T, what string, a store.Attempt, want error) {
	t.Helper()
	got, err := c.begin(t.Context(), a)
	wantError(t, what, err, want)
	if got.Owner || got.TakenOver || got.Value != nil {
		t.Errorf("%s: something came with it: %+v", what, got)
	}
}

func TestFinishedCallIsReplayed(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		for name, value := range map[string][]byte{
			"nothing": {},
			"bytes":   {0, 1, 0xff, '\r', '\n', '}', '{', 0x80},
			"longest": bytes.Repeat([]byte{0xa5}, store.MaxValueBytes),
		} {
			c := newCall(s)
			c.wantOwner(t, name, attempt(1))
			c.wantRefused(t, name+", while it is in flight", attempt(2), store.ErrInFlight)
			given := bytes.Clone(value)
			must(t, c.Finish(t.Context(), kindCall, c.scope, attempt(1), given))
			clear(given) // the store has kept nothing of it
			for n := byte(1); n <= 3; n++ {
				got, err := c.begin(t.Context(), attempt(n))
				if err != nil || got.Owner || !bytes.Equal(got.Value, value) || got.Value == nil {
					t.Errorf("%s: attempt %d: %v, %d bytes, %v", name, n, got.Owner, len(got.Value), err)
				}
				clear(got.Value) // and gives its own away to nobody
			}
		}
	})
}

// The key is bound to the body of its first call, whatever has become of that one.
func TestOtherBodyIsRefused(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		c := newCall(s)
		c.lease = s.short
		c.wantOwner(t, "first", attempt(1))
		c.other().wantRefused(t, "in flight", attempt(2), store.ErrOtherBody)
		c.other().wantRefused(t, "of the owner", attempt(1), store.ErrOtherBody)
		s.pass(s.short)
		c.other().wantRefused(t, "with the lease over", attempt(2), store.ErrOtherBody)
		c.wantTakeOver(t, "the same body", attempt(2))
		must(t, c.finish(t.Context(), attempt(2), "v"))
		c.other().wantRefused(t, "finished", attempt(3), store.ErrOtherBody)
		c.wantKept(t, "the same body", attempt(3), "v")
	})
}

func TestCallEndsInATombstone(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		for name, finish := range map[string]bool{"finished": true, "never finished": false} {
			c := newCall(s)
			c.lease, c.ttl = s.short, s.short
			c.wantOwner(t, name, attempt(1))
			if finish {
				must(t, c.finish(t.Context(), attempt(1), "v"))
			}
			s.pass(s.short)
			c.wantRefused(t, name, attempt(2), store.ErrTombstone)
			c.wantRefused(t, name+": who was the owner", attempt(1), store.ErrTombstone)
			c.other().wantRefused(t, name+": another body", attempt(2), store.ErrTombstone)
			wantError(t, name+": finish", c.finish(t.Context(), attempt(1), "w"), store.ErrLost)
			wantError(t, name+": abandon", c.abandon(t.Context(), attempt(1)), store.ErrLost)
			c.wantRefused(t, name+", still", attempt(2), store.ErrTombstone)

			c = newCall(s)
			c.lease, c.ttl, c.tombstone = s.short, s.short, s.short
			c.wantOwner(t, name, attempt(1))
			if finish {
				must(t, c.finish(t.Context(), attempt(1), "v"))
			}
			s.pass(2 * s.short)
			wantError(t, name+": finish what is gone", c.finish(t.Context(), attempt(1), "w"), store.ErrLost)
			c.other().wantOwner(t, name+": after the tombstone", attempt(3))
		}
		c := newCall(s)
		c.lease, c.ttl, c.tombstone = s.short, s.short, 0
		c.wantOwner(t, "no tombstone", attempt(1))
		must(t, c.finish(t.Context(), attempt(1), "v"))
		s.pass(s.short)
		c.other().wantOwner(t, "no tombstone", attempt(2))
	})
}

// The time that an answer is kept counts from the owner's Begin, not from its Finish.
func TestFinishDoesNotProlong(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		c := newCall(s)
		c.lease, c.ttl = s.short, 2*s.short
		c.wantOwner(t, "first", attempt(1))
		s.pass(s.short)
		must(t, c.finish(t.Context(), attempt(1), "v"))
		s.pass(s.short)
		c.wantRefused(t, "after ttl", attempt(2), store.ErrTombstone)
	})
}

func TestLeaseOfADeadOwnerEnds(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		c := newCall(s)
		dying := c
		dying.lease = s.short
		dying.wantOwner(t, "who dies", attempt(1))
		c.wantRefused(t, "before the lease is over", attempt(2), store.ErrInFlight)
		s.pass(s.short)
		c.wantTakeOver(t, "after it", attempt(2))
		c.wantRefused(t, "a third", attempt(3), store.ErrInFlight)
		c.wantTakeOver(t, "the second, whose reply was lost", attempt(2))
		// The first was slow, not dead.
		dying.wantRefused(t, "the first again", attempt(1), store.ErrInFlight)
		wantError(t, "the first's finish", c.finish(t.Context(), attempt(1), "first"), store.ErrLost)
		wantError(t, "the first's abandon", c.abandon(t.Context(), attempt(1)), store.ErrLost)
		must(t, c.finish(t.Context(), attempt(2), "second"))
		wantError(t, "the first's finish", c.finish(t.Context(), attempt(1), "first"), store.ErrLost)
		for n := byte(1); n <= 3; n++ {
			c.wantKept(t, "finished", attempt(n), "second")
		}
	})
}

// An answer that comes late is better kept than the call run again.
func TestLateFinishCountsUnlessTakenOver(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		c := newCall(s)
		c.lease = s.short
		c.wantOwner(t, "first", attempt(1))
		s.pass(s.short)
		must(t, c.finish(t.Context(), attempt(1), "late"))
		c.wantKept(t, "second", attempt(2), "late")
	})
}

func TestFinishNeverOverwrites(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		c := newCall(s)
		wantError(t, "never begun", c.finish(t.Context(), attempt(1), "v"), store.ErrLost)
		c.wantOwner(t, "that left nothing behind", attempt(1))
		wantError(t, "not the owner", c.finish(t.Context(), attempt(2), "other"), store.ErrLost)
		must(t, c.finish(t.Context(), attempt(1), "first"))
		must(t, c.finish(t.Context(), attempt(1), "again, its reply having been lost"))
		wantError(t, "not the owner", c.finish(t.Context(), attempt(2), "other"), store.ErrLost)
		c.wantKept(t, "after all of them", attempt(3), "first")
	})
}

func TestAbandonedCallNeverWas(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		c := newCall(s)
		must(t, c.abandon(t.Context(), attempt(1))) // there is none
		c.wantOwner(t, "first", attempt(1))
		wantError(t, "not the owner", c.abandon(t.Context(), attempt(2)), store.ErrLost)
		c.wantRefused(t, "after that", attempt(2), store.ErrInFlight)
		must(t, c.abandon(t.Context(), attempt(1)))
		must(t, c.abandon(t.Context(), attempt(1)))
		wantError(t, "finish", c.finish(t.Context(), attempt(1), "v"), store.ErrLost)
		another := c.other()
		another.wantOwner(t, "another body", attempt(2))
		wantError(t, "the first, again", c.abandon(t.Context(), attempt(1)), store.ErrLost)
		must(t, another.finish(t.Context(), attempt(2), "v"))
		wantError(t, "finished", c.abandon(t.Context(), attempt(2)), store.ErrLost)
		another.wantKept(t, "after that", attempt(3), "v")
	})
}

// Who took over knows of its own effect alone: what the owner before it did, nobody may forget.
func TestAbandonAfterATakeOver(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		c := newCall(s)
		dying := c
		dying.lease = s.short
		dying.wantOwner(t, "who dies", attempt(1))
		s.pass(s.short)
		c.wantTakeOver(t, "second", attempt(2))
		must(t, c.abandon(t.Context(), attempt(2)))
		must(t, c.abandon(t.Context(), attempt(2)))
		c.other().wantRefused(t, "another body", attempt(3), store.ErrOtherBody)
		c.wantTakeOver(t, "third, at once", attempt(3))
		wantError(t, "the second's finish", c.finish(t.Context(), attempt(2), "second"), store.ErrLost)
		wantError(t, "the second's abandon", c.abandon(t.Context(), attempt(2)), store.ErrLost)
		must(t, c.finish(t.Context(), attempt(3), "third"))
		c.wantKept(t, "fourth", attempt(4), "third")

		// It ends when it would have: abandoning it has not made it live for ever.
		for _, tombstone := range []time.Duration{time.Hour, s.short} {
			c = newCall(s)
			c.lease, c.ttl, c.tombstone = s.short, 2*s.short, tombstone
			c.wantOwner(t, "who dies", attempt(1))
			s.pass(s.short)
			c.wantTakeOver(t, "second", attempt(2))
			must(t, c.abandon(t.Context(), attempt(2)))
			s.pass(3 * s.short)
			if tombstone > s.short {
				c.wantRefused(t, "after ttl", attempt(3), store.ErrTombstone)
			} else {
				c.wantOwner(t, "after the tombstone", attempt(3))
			}
		}
	})
}

// The owner whose reply was lost asks again, and its times start anew, be they longer or shorter.
func TestOwnerBeginsAgain(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		c := newCall(s)
		brief := c
		brief.lease = s.short
		brief.wantOwner(t, "first", attempt(1))
		c.wantOwner(t, "again, for longer", attempt(1))
		s.pass(s.short)
		c.wantRefused(t, "another", attempt(2), store.ErrInFlight)
		brief.wantOwner(t, "again, for less", attempt(1))
		s.pass(s.short)
		brief.wantOwner(t, "again, its lease being over", attempt(1))
		s.pass(s.short)
		c.wantTakeOver(t, "another", attempt(2))
		must(t, c.finish(t.Context(), attempt(2), "v"))
		c.wantKept(t, "who has finished", attempt(2), "v")

		brief = newCall(s)
		brief.lease, brief.ttl, brief.tombstone = s.short, s.short, s.short
		brief.wantOwner(t, "first", attempt(1))
		long := brief
		long.ttl = time.Hour
		long.wantOwner(t, "again, for longer", attempt(1))
		s.pass(2 * s.short)
		long.wantTakeOver(t, "long after", attempt(2))
	})
}

func TestAThousandRacersHaveOneOwner(t *testing.T) {
	const racers = 1000
	onEach(t, func(t *testing.T, s subject) {
		c := newCall(s)
		var owner atomic.Int64
		own := func(c call, first int, takenOver bool) {
			t.Helper()
			if won := race(t, racers, store.ErrInFlight, func(i int) error {
				begun, err := c.begin(t.Context(), numbered(first+i))
				if err == nil && begun.Owner && begun.TakenOver == takenOver {
					owner.Store(int64(first + i))
				} else if err == nil {
					return errors.New("neither owner nor refused")
				}
				return err
			}); won != 1 {
				t.Errorf("%d owners", won)
			}
		}
		own(c, 0, false)
		brief := c
		brief.lease = s.short
		brief.wantOwner(t, "the owner, for less", numbered(int(owner.Load())))
		s.pass(s.short)
		own(c, racers, true) // the owner itself would have its own answer
		if won := race(t, racers, store.ErrLost, func(i int) error {
			a := numbered(racers + i)
			if a == numbered(int(owner.Load())) {
				return c.finish(t.Context(), a, "v")
			}
			return c.abandon(t.Context(), a)
		}); won != 1 {
			t.Errorf("%d have ended it", won)
		}
		if won := race(t, racers, nil, func(i int) error {
			begun, err := c.begin(t.Context(), numbered(i))
			if err == nil && (begun.Owner || string(begun.Value) != "v") {
				return errors.New("another answer")
			}
			return err
		}); won != racers {
			t.Errorf("%d of %d were answered", won, racers)
		}
		if won := race(t, racers, store.ErrOtherBody, func(i int) error {
			_, err := c.other().begin(t.Context(), numbered(i))
			return err
		}); won != 0 {
			t.Errorf("%d other bodies were taken", won)
		}
	})
}

// An owner that is late and one that takes over: one of them has the call, and the other learns it.
func TestFinishRacesTakeOver(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		for range 100 {
			c := newCall(s)
			c.lease = time.Millisecond
			c.wantOwner(t, "first", attempt(1))
			s.pass(2 * time.Millisecond)
			var wg sync.WaitGroup
			var late error
			wg.Go(func() { late = c.finish(t.Context(), attempt(1), "first") })
			begun, err := c.begin(t.Context(), attempt(2))
			wg.Wait()
			must(t, err)
			switch {
			case late == nil && !begun.Owner && string(begun.Value) == "first":
			case errors.Is(late, store.ErrLost) && begun.Owner && begun.TakenOver:
			default:
				t.Errorf("the first: %v; the second: %+v", late, begun)
			}
		}
	})
}

func TestRacersOfOneAttemptAllOwn(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		c := newCall(s)
		if won := race(t, 100, nil, func(int) error {
			begun, err := c.begin(t.Context(), attempt(1))
			if err == nil && !begun.Owner {
				return errors.New("not the owner")
			}
			return err
		}); won != 100 {
			t.Errorf("%d of 100", won)
		}
	})
}

func TestCallsAreApart(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		ctx, c := t.Context(), newCall(s)
		must(t, s.Mint(ctx, kindCall, c.scope, []byte("t"), time.Hour))
		must(t, s.Once(ctx, kindCall, c.scope, time.Hour))
		must(t, s.Put(ctx, kindCall, c.scope, []byte("p"), time.Hour))
		c.wantOwner(t, "beside the other contracts", attempt(1))
		must(t, c.finish(ctx, attempt(1), "v"))
		begun, err := s.Begin(ctx, "another", c.scope, c.body, attempt(1), c.lease, c.ttl, c.tombstone)
		if err != nil || !begun.Owner || begun.TakenOver {
			t.Errorf("another kind: %+v, %v", begun, err)
		}
		another := c
		another.scope = digest()
		another.wantOwner(t, "another scope", attempt(1))
		c.wantKept(t, "the first", attempt(2), "v")
		if v, err := s.Redeem(ctx, kindCall, c.scope, attempt(1)); err != nil || string(v) != "t" {
			t.Errorf("redeem: %q, %v", v, err)
		}
		if v, err := s.Get(ctx, kindCall, c.scope); err != nil || string(v) != "p" {
			t.Errorf("get: %q, %v", v, err)
		}
	})
}

func TestBeginOfACallerWhoIsGone(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		c := newCall(s)
		_, err := c.begin(gone, attempt(1))
		wantError(t, "begin", err, context.Canceled)
		c.wantOwner(t, "another, after it", attempt(2))
		wantError(t, "finish", c.finish(gone, attempt(2), "v"), context.Canceled)
		wantError(t, "abandon", c.abandon(gone, attempt(2)), context.Canceled)
		c.wantRefused(t, "a third", attempt(3), store.ErrInFlight)
	})
}

func TestMistakesWithCalls(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		good := newCall(s)
		for name, change := range map[string]func(*call){
			"no lease":             func(c *call) { c.lease = 0 },
			"a negative lease":     func(c *call) { c.lease = -1 },
			"a lease beyond ttl":   func(c *call) { c.lease = c.ttl + time.Millisecond },
			"a very short lease":   func(c *call) { c.lease = time.Millisecond - 1 },
			"no ttl":               func(c *call) { c.lease, c.ttl = 0, 0 },
			"a long ttl":           func(c *call) { c.ttl = store.MaxTTL + 1 },
			"a negative tombstone": func(c *call) { c.tombstone = -1 },
			"a long tombstone":     func(c *call) { c.tombstone = store.MaxTTL + 1 },
		} {
			bad := good
			change(&bad)
			bad.wantRefused(t, name, attempt(1), store.ErrInvalid)
		}
		good.wantRefused(t, "the zero attempt", store.Attempt{}, store.ErrInvalid)
		ctx, d := t.Context(), good.scope
		for _, kind := range []store.Kind{"", "Call", "a:b", store.Kind(strings.Repeat("k", 33))} {
			_, err := s.Begin(ctx, kind, d, d, attempt(1), time.Hour, time.Hour, 0)
			wantError(t, "begin "+string(kind), err, store.ErrInvalid)
			wantError(t, "finish "+string(kind), s.Finish(ctx, kind, d, attempt(1), nil), store.ErrInvalid)
			wantError(t, "abandon "+string(kind), s.Abandon(ctx, kind, d, attempt(1)), store.ErrInvalid)
		}
		good.wantOwner(t, "none of these has left anything", attempt(1))
		wantError(t, "a long answer", s.Finish(ctx, kindCall, d, attempt(1), make([]byte, store.MaxValueBytes+1)), store.ErrInvalid)
		wantError(t, "the zero attempt", good.finish(ctx, store.Attempt{}, ""), store.ErrInvalid)
		wantError(t, "the zero attempt", good.abandon(ctx, store.Attempt{}), store.ErrInvalid)
		good.wantOwner(t, "nor any of these", attempt(1))

		least := newCall(s)
		least.lease, least.ttl, least.tombstone = time.Millisecond, time.Millisecond, 0
		least.wantOwner(t, "the least of everything", attempt(1))
		most := newCall(s)
		most.lease, most.ttl, most.tombstone = store.MaxTTL, store.MaxTTL, store.MaxTTL
		most.wantOwner(t, "the most of everything", attempt(1))
		must(t, most.finish(ctx, attempt(1), "v"))
		most.wantKept(t, "the most of everything", attempt(2), "v")
	})
}
