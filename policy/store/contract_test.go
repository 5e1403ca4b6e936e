package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// subject is a store under the contract's test, with what the test needs to know of it.
type subject struct {
	store.Store
	// pass lets at least d pass on the store's clock.
	pass func(d time.Duration)
	// rounding is by how many milliseconds an answer may be early or late: Redis keeps a key through its last one.
	rounding int64
	// short is a lifetime that the test can wait for, and long enough for a few calls.
	short time.Duration
	// The windows as this store has them: those of Redis are shortened, since its clock cannot be turned.
	replay, spentFor, expiredFor time.Duration
}

// onEach runs the test on each store, empty.
func onEach(t *testing.T, test func(t *testing.T, s subject)) {
	t.Run("memory", func(t *testing.T) { test(t, memorySubject(t)) })
	t.Run("redis", func(t *testing.T) { test(t, redisSubject(t)) })
}

// clock is one that stands still until it is moved. Safe for concurrent use.
type clock struct{ offset atomic.Int64 }

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func (c *clock) now() time.Time       { return epoch.Add(time.Duration(c.offset.Load())) }
func (c *clock) pass(d time.Duration) { c.offset.Add(int64(d)) }

func memorySubject(t testing.TB) subject {
	t.Helper()
	c := new(clock)
	m, err := store.NewMemory(store.MemoryConfig{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	c.pass(1234567 * time.Microsecond) // nothing is due on a full second, where the wheel happens to turn
	return subject{m, c.pass, 0, time.Second, store.ReplayWindow, store.SpentFor, store.ExpiredFor}
}

func redisSubject(t testing.TB, args ...string) subject {
	t.Helper()
	r := newRedis(t, store.RedisConfig{Addresses: []string{testredis.Start(t, args...).Addr}})
	pass := func(d time.Duration) { time.Sleep(d + 2*time.Millisecond) }
	s := subject{r, pass, 1, 250 * time.Millisecond, 500 * time.Millisecond, 700 * time.Millisecond, 700 * time.Millisecond}
	r.ShortenWindows(s.replay, s.spentFor)
	return s
}

// newRedis returns a store with a time-out that only a hung server meets, unless c has one.
func newRedis(t testing.TB, c store.RedisConfig) *store.Redis {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = time.Minute
	}
	r, err := store.NewRedis(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

var drawn atomic.Uint64

// digest returns one that no other call returns.
func digest() (d store.Digest) {
	binary.BigEndian.PutUint64(d[8:], drawn.Add(1))
	return d
}

func attempt(n byte) store.Attempt { return store.Attempt{15: n} }

func wantError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRedeemReturnsWhatWasMinted(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		for name, value := range map[string][]byte{
			"nothing": {},
			"a byte":  {0},
			"bytes":   {0, 1, 2, 0xff, '\r', '\n', '}', '{', 0x80},
			"text":    []byte("a grant, sealed"),
			"longest": bytes.Repeat([]byte{0xa5}, store.MaxValueBytes),
		} {
			d := digest()
			given := bytes.Clone(value)
			must(t, s.Mint(t.Context(), store.KindToken, d, given, time.Hour))
			clear(given) // the store has kept nothing of it
			got, err := s.Redeem(t.Context(), store.KindToken, d, attempt(1))
			if err != nil || !bytes.Equal(got, value) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
			clear(got) // and gives its own away to nobody
			again, err := s.Redeem(t.Context(), store.KindToken, d, attempt(1))
			if err != nil || !bytes.Equal(again, value) {
				t.Errorf("%s, again: %d bytes, %v", name, len(again), err)
			}
		}
	})
}

func TestRedeemOfNothing(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d := digest()
		value, err := s.Redeem(t.Context(), store.KindToken, d, attempt(1))
		wantError(t, "never minted", err, store.ErrUnknown)
		if value != nil {
			t.Errorf("a value came with it: %q", value)
		}
		// Having asked for it leaves nothing behind.
		must(t, s.Mint(t.Context(), store.KindToken, d, nil, time.Hour))
	})
}

func TestRedeemTwiceFails(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d := digest()
		must(t, s.Mint(t.Context(), store.KindToken, d, []byte("v"), time.Hour))
		_, err := s.Redeem(t.Context(), store.KindToken, d, attempt(1))
		must(t, err)
		value, err := s.Redeem(t.Context(), store.KindToken, d, attempt(2))
		wantError(t, "another attempt", err, store.ErrSpent)
		if value != nil {
			t.Errorf("a value came with it: %q", value)
		}
		if _, err = s.Redeem(t.Context(), store.KindToken, d, attempt(1)); err != nil {
			t.Errorf("the attempt that had it, after another one asked: %v", err)
		}
	})
}

func TestReplayWindowEnds(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d := digest()
		must(t, s.Mint(t.Context(), store.KindToken, d, []byte("v"), time.Hour))
		_, err := s.Redeem(t.Context(), store.KindToken, d, attempt(1))
		must(t, err)
		s.pass(s.replay)
		for n := byte(1); n <= 2; n++ {
			_, err = s.Redeem(t.Context(), store.KindToken, d, attempt(n))
			wantError(t, "after the window", err, store.ErrSpent)
		}
	})
}

// What a held card's token is worth is gone with its redemption, for the attempt that had it as well [11]. All else is
// as with every token.
func TestHeldCardIsGivenAwayOnce(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d, other, late := digest(), digest(), digest()
		must(t, s.Mint(t.Context(), store.KindCard, late, []byte("late"), s.short))
		for _, value := range []string{"v", ""} {
			must(t, s.Mint(t.Context(), store.KindCard, d, []byte(value), time.Hour))
			must(t, s.Mint(t.Context(), store.KindToken, d, []byte("another kind's"), time.Hour))
			got, err := s.Redeem(t.Context(), store.KindCard, d, attempt(1))
			if err != nil || string(got) != value {
				t.Fatalf("%q, %v", got, err)
			}
			for n := byte(1); n <= 2; n++ {
				got, err := s.Redeem(t.Context(), store.KindCard, d, attempt(n))
				wantError(t, "redeemed again", err, store.ErrSpent)
				if got != nil {
					t.Errorf("a value came with it: %q", got)
				}
			}
			wantError(t, "mint over it", s.Mint(t.Context(), store.KindCard, d, nil, time.Hour), store.ErrExists)
			for range 2 { // the other kind has its window
				if got, err := s.Redeem(t.Context(), store.KindToken, d, attempt(1)); err != nil || string(got) != "another kind's" {
					t.Errorf("%q, %v", got, err)
				}
			}
			d = digest()
		}
		_, err := s.Redeem(t.Context(), store.KindCard, other, attempt(1))
		wantError(t, "never minted", err, store.ErrUnknown)
		s.pass(s.short)
		_, err = s.Redeem(t.Context(), store.KindCard, late, attempt(1))
		wantError(t, "expired, and gone with its time", err, store.ErrUnknown)
	})
}

// Of many who ask for a held card at once, under one attempt too, one has it.
func TestRacersForAHeldCardHaveOneWinner(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		for name, number := range map[string]func(i int) store.Attempt{
			"one attempt": func(int) store.Attempt { return attempt(1) }, "many": numbered,
		} {
			d := digest()
			must(t, s.Mint(t.Context(), store.KindCard, d, []byte("v"), time.Hour))
			if won := race(t, 200, store.ErrSpent, func(i int) error {
				_, err := s.Redeem(t.Context(), store.KindCard, d, number(i))
				return err
			}); won != 1 {
				t.Errorf("%s: %d winners", name, won)
			}
		}
	})
}

// A spent record of a held card stays as every one does [26].
func TestSpentHeldCardStays(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d := digest()
		must(t, s.Mint(t.Context(), store.KindCard, d, []byte("v"), s.short))
		_, err := s.Redeem(t.Context(), store.KindCard, d, attempt(1))
		must(t, err)
		s.pass(s.short)
		_, err = s.Redeem(t.Context(), store.KindCard, d, attempt(1))
		wantError(t, "when it would have expired", err, store.ErrSpent)
		s.pass(s.spentFor)
		_, err = s.Redeem(t.Context(), store.KindCard, d, attempt(1))
		wantError(t, "long spent", err, store.ErrUnknown)
		must(t, s.Mint(t.Context(), store.KindCard, d, []byte("w"), time.Hour))
	})
}

func TestExpiry(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d := digest()
		must(t, s.Mint(t.Context(), store.KindToken, d, []byte("v"), s.short))
		s.pass(s.short)
		_, err := s.Redeem(t.Context(), store.KindToken, d, attempt(1))
		wantError(t, "expired", err, store.ErrExpired)
		_, err = s.Redeem(t.Context(), store.KindToken, d, attempt(1))
		wantError(t, "expired, asked again", err, store.ErrExpired)
		wantError(t, "mint over it", s.Mint(t.Context(), store.KindToken, d, nil, time.Hour), store.ErrExists)
		s.pass(s.expiredFor)
		_, err = s.Redeem(t.Context(), store.KindToken, d, attempt(1))
		wantError(t, "long expired", err, store.ErrUnknown)
	})
}

// A token is told to be spent, and cannot be minted again, until it would have expired and SpentFor after that [26].
func TestSpentRecordStays(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d := digest()
		must(t, s.Mint(t.Context(), store.KindToken, d, []byte("v"), s.short))
		_, err := s.Redeem(t.Context(), store.KindToken, d, attempt(1))
		must(t, err)
		for _, wait := range []time.Duration{0, s.short, s.spentFor - s.short} { // never later than short+spentFor after the mint
			s.pass(wait)
			if wait == s.spentFor-s.short && s.short != time.Second {
				break // a real clock ran on meanwhile
			}
			_, err = s.Redeem(t.Context(), store.KindToken, d, attempt(2))
			wantError(t, "spent", err, store.ErrSpent)
			wantError(t, "mint over it", s.Mint(t.Context(), store.KindToken, d, []byte("w"), time.Hour), store.ErrExists)
		}
		s.pass(s.short + s.spentFor)
		_, err = s.Redeem(t.Context(), store.KindToken, d, attempt(2))
		wantError(t, "long spent", err, store.ErrUnknown)
		must(t, s.Mint(t.Context(), store.KindToken, d, []byte("w"), time.Hour))
	})
}

func TestMintNeverOverwrites(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d := digest()
		must(t, s.Mint(t.Context(), store.KindToken, d, []byte("first"), time.Hour))
		wantError(t, "second", s.Mint(t.Context(), store.KindToken, d, []byte("second"), time.Hour), store.ErrExists)
		value, err := s.Redeem(t.Context(), store.KindToken, d, attempt(1))
		if err != nil || string(value) != "first" {
			t.Errorf("%q, %v", value, err)
		}
	})
}

func TestKindsAndContractsAreApart(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d := digest()
		must(t, s.Mint(t.Context(), "one", d, []byte("1"), time.Hour))
		must(t, s.Mint(t.Context(), "two", d, []byte("2"), time.Hour))
		must(t, s.Once(t.Context(), "one", d, time.Hour))
		must(t, s.Once(t.Context(), "two", d, time.Hour))
		must(t, s.Put(t.Context(), "one", d, []byte("p1"), time.Hour))
		must(t, s.Put(t.Context(), "two", d, []byte("p2"), time.Hour))
		if taken, err := s.Take(t.Context(), d, policy.Rate{Count: 1, Per: time.Hour}); err != nil || !taken.OK {
			t.Errorf("take: %+v, %v", taken, err)
		}
		for kind, want := range map[store.Kind]string{"one": "1", "two": "2"} {
			if v, err := s.Redeem(t.Context(), kind, d, attempt(1)); err != nil || string(v) != want {
				t.Errorf("redeem %s: %q, %v", kind, v, err)
			}
			if v, err := s.Get(t.Context(), kind, d); err != nil || string(v) != "p"+want {
				t.Errorf("get %s: %q, %v", kind, v, err)
			}
		}
		_, err := s.Redeem(t.Context(), "three", d, attempt(1))
		wantError(t, "another kind", err, store.ErrUnknown)
	})
}

// race runs n at once and returns how many returned nil; every other one must return want.
func race(t *testing.T, n int, want error, f func(i int) error) int {
	t.Helper()
	var won atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			switch err := f(i); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, want):
				t.Errorf("racer %d: %v, want %v", i, err, want)
			}
		})
	}
	close(start)
	wg.Wait()
	return int(won.Load())
}

func numbered(i int) (a store.Attempt) {
	binary.BigEndian.PutUint64(a[:], uint64(i)+1)
	return a
}

func TestAThousandRacersHaveOneWinner(t *testing.T) {
	const racers = 1000
	onEach(t, func(t *testing.T, s subject) {
		for range 5 {
			d := digest()
			must(t, s.Mint(t.Context(), store.KindToken, d, []byte("v"), time.Hour))
			if won := race(t, racers, store.ErrSpent, func(i int) error {
				_, err := s.Redeem(t.Context(), store.KindToken, d, numbered(i))
				return err
			}); won != 1 {
				t.Errorf("redeem: %d winners", won)
			}
			d = digest()
			if won := race(t, racers, store.ErrExists, func(i int) error {
				return s.Mint(t.Context(), store.KindToken, d, nil, time.Hour)
			}); won != 1 {
				t.Errorf("mint: %d winners", won)
			}
			if won := race(t, racers, store.ErrSpent, func(i int) error {
				return s.Once(t.Context(), store.KindEnvelope, d, time.Hour)
			}); won != 1 {
				t.Errorf("once: %d winners", won)
			}
		}
	})
}

// A command that is sent again by the same attempt, however often and at once, is answered as the first one was.
func TestRacersOfOneAttemptAllWin(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d := digest()
		must(t, s.Mint(t.Context(), store.KindToken, d, []byte("v"), time.Hour))
		if won := race(t, 100, nil, func(int) error {
			v, err := s.Redeem(t.Context(), store.KindToken, d, attempt(1))
			if err == nil && string(v) != "v" {
				return errors.New("another value")
			}
			return err
		}); won != 100 {
			t.Errorf("%d of 100", won)
		}
	})
}

func TestOnce(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d := digest()
		must(t, s.Once(t.Context(), store.KindEnvelope, d, s.short))
		wantError(t, "second", s.Once(t.Context(), store.KindEnvelope, d, time.Hour), store.ErrSpent)
		s.pass(s.short)
		must(t, s.Once(t.Context(), store.KindEnvelope, d, s.short)) // the second one had not made it longer
	})
}

func TestRecords(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d := digest()
		get := func() string {
			t.Helper()
			v, err := s.Get(t.Context(), store.KindLogin, d)
			if errors.Is(err, store.ErrUnknown) {
				return "<none>"
			}
			must(t, err)
			text := string(v)
			clear(v)
			return text
		}
		want := func(what, value string) {
			t.Helper()
			if got := get(); got != value {
				t.Errorf("%s: %q, want %q", what, got, value)
			}
		}
		want("before", "<none>")
		must(t, s.Delete(t.Context(), store.KindLogin, d))
		must(t, s.Put(t.Context(), store.KindLogin, d, []byte("first"), time.Hour))
		want("put", "first")
		want("read again", "first")
		must(t, s.Put(t.Context(), store.KindLogin, d, []byte("the second, which is longer"), time.Hour))
		want("replaced", "the second, which is longer")
		must(t, s.Delete(t.Context(), store.KindLogin, d))
		want("deleted", "<none>")
		must(t, s.Put(t.Context(), store.KindLogin, d, []byte{}, s.short))
		want("empty", "")
		s.pass(s.short)
		want("expired", "<none>")
		must(t, s.Put(t.Context(), store.KindLogin, d, []byte("x"), s.short))
		must(t, s.Put(t.Context(), store.KindLogin, d, []byte("y"), time.Hour))
		s.pass(s.short)
		want("its time to live was replaced too", "y")
	})
}

func TestTake(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		day := policy.Rate{Count: 3, Per: 24 * time.Hour}
		d := digest()
		for want := 2; want >= 0; want-- {
			taken, err := s.Take(t.Context(), d, day)
			if err != nil || !taken.OK || taken.Remaining != want || taken.RetryAfter != 0 {
				t.Fatalf("%+v, %v; want %d remaining", taken, err, want)
			}
		}
		taken, err := s.Take(t.Context(), d, day)
		if err != nil || taken.OK || taken.Remaining != 0 || taken.RetryAfter <= 7*time.Hour || taken.RetryAfter > 8*time.Hour {
			t.Errorf("the fourth: %+v, %v", taken, err)
		}
		if taken, err = s.Take(t.Context(), digest(), day); err != nil || !taken.OK {
			t.Errorf("another's limit: %+v, %v", taken, err)
		}

		quick := policy.Rate{Count: 1, Per: s.short}
		d = digest()
		for range 3 {
			if taken, err = s.Take(t.Context(), d, quick); err != nil || !taken.OK {
				t.Fatalf("%+v, %v", taken, err)
			}
			s.pass(s.short)
		}
		// A limit that was raised counts at once.
		d = digest()
		for range 3 {
			if taken, err = s.Take(t.Context(), d, day); err != nil || !taken.OK {
				t.Fatalf("%+v, %v", taken, err)
			}
		}
		s.pass(s.short)
		if taken, err = s.Take(t.Context(), d, quick); err != nil || taken.RetryAfter > s.short {
			t.Errorf("a limit that was raised: %+v, %v", taken, err)
		}
	})
}

func TestTakeGivesNoMoreThanThereIs(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d := digest()
		refused := errors.New("refused")
		if won := race(t, 500, refused, func(int) error {
			taken, err := s.Take(t.Context(), d, policy.Rate{Count: 100, Per: 24 * time.Hour})
			if err == nil && !taken.OK {
				return refused
			}
			return err
		}); won != 100 {
			t.Errorf("%d of 100 were given", won)
		}
	})
}

// isAnswer says whether a store may answer one of calls so.
func isAnswer(err error) bool {
	return err == nil || errors.Is(err, store.ErrUnknown) || errors.Is(err, store.ErrSpent) || errors.Is(err, store.ErrLost)
}

// calls are one call to each method, with arguments that are right.
func calls(s store.Store) map[string]func(ctx context.Context) error {
	d := digest()
	return map[string]func(ctx context.Context) error{
		"mint":   func(ctx context.Context) error { return s.Mint(ctx, store.KindToken, d, []byte("v"), time.Hour) },
		"redeem": func(ctx context.Context) error { _, err := s.Redeem(ctx, store.KindToken, d, attempt(1)); return err },
		"once":   func(ctx context.Context) error { return s.Once(ctx, store.KindEnvelope, d, time.Hour) },
		"begin": func(ctx context.Context) error {
			begun, err := s.Begin(ctx, kindCall, d, d, attempt(1), time.Minute, time.Hour, time.Hour)
			if err != nil && (begun.Owner || begun.Value != nil) {
				return errors.New("begun, with an error")
			}
			return err
		},
		"finish":  func(ctx context.Context) error { return s.Finish(ctx, kindCall, d, attempt(1), []byte("v")) },
		"abandon": func(ctx context.Context) error { return s.Abandon(ctx, kindCall, d, attempt(1)) },
		"put":     func(ctx context.Context) error { return s.Put(ctx, store.KindLogin, d, []byte("v"), time.Hour) },
		"get":     func(ctx context.Context) error { _, err := s.Get(ctx, store.KindLogin, d); return err },
		"delete":  func(ctx context.Context) error { return s.Delete(ctx, store.KindLogin, d) },
		"take": func(ctx context.Context) error {
			taken, err := s.Take(ctx, d, policy.Rate{Count: 1, Per: time.Hour})
			if err != nil && taken.OK {
				return errors.New("taken, with an error")
			}
			return err
		},
		"shared": func(ctx context.Context) error {
			all, err := s.Shared(ctx, kindStanding)
			if err != nil && all != nil {
				return errors.New("values, with an error")
			}
			return err
		},
		"raise": func(ctx context.Context) error {
			return s.Raise(ctx, kindStanding, "p", store.Versioned{Value: []byte("v"), Version: 1})
		},
		"ready": s.Ready,
	}
}

func TestCallerWhoIsGoneGetsNothingDone(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		late, cancelLate := context.WithDeadline(t.Context(), time.Unix(1, 0))
		defer cancelLate()
		all := calls(s)
		for name, call := range all {
			err := call(canceled)
			wantError(t, name+" canceled", err, context.Canceled)
			wantError(t, name+" canceled", err, store.ErrUnavailable)
			err = call(late)
			wantError(t, name+" late", err, context.DeadlineExceeded)
			wantError(t, name+" late", err, store.ErrUnavailable)
		}
		for _, name := range []string{"mint", "once", "take"} {
			if err := all[name](t.Context()); err != nil {
				t.Errorf("%s: a call that was refused has left something: %v", name, err)
			}
		}
	})
}

func TestClosedStoreAnswersNothing(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		all := calls(s)
		for name, call := range all {
			if err := call(t.Context()); !isAnswer(err) {
				t.Errorf("%s before: %v", name, err)
			}
		}
		must(t, s.Close())
		must(t, s.Close())
		for name, call := range all {
			err := call(t.Context())
			wantError(t, name, err, store.ErrUnavailable)
			if u, ok := errors.AsType[*store.Unavailable](err); !ok || u.Reason != store.ReasonClosed {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestMistakesOfTheCaller(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d, ctx := digest(), t.Context()
		long := make([]byte, store.MaxValueBytes+1)
		for _, kind := range []store.Kind{"", "Token", "a:b", "a{b", "ä", "a b", store.Kind(strings.Repeat("k", 33))} {
			wantError(t, "mint "+string(kind), s.Mint(ctx, kind, d, nil, time.Hour), store.ErrInvalid)
			_, err := s.Redeem(ctx, kind, d, attempt(1))
			wantError(t, "redeem "+string(kind), err, store.ErrInvalid)
			wantError(t, "once "+string(kind), s.Once(ctx, kind, d, time.Hour), store.ErrInvalid)
			wantError(t, "put "+string(kind), s.Put(ctx, kind, d, nil, time.Hour), store.ErrInvalid)
			_, err = s.Get(ctx, kind, d)
			wantError(t, "get "+string(kind), err, store.ErrInvalid)
			wantError(t, "delete "+string(kind), s.Delete(ctx, kind, d), store.ErrInvalid)
		}
		for _, ttl := range []time.Duration{-1, 0, time.Millisecond - 1, store.MaxTTL + 1} {
			wantError(t, "mint "+ttl.String(), s.Mint(ctx, "k", d, nil, ttl), store.ErrInvalid)
			wantError(t, "once "+ttl.String(), s.Once(ctx, "k", d, ttl), store.ErrInvalid)
			wantError(t, "put "+ttl.String(), s.Put(ctx, "k", d, nil, ttl), store.ErrInvalid)
		}
		wantError(t, "mint a long value", s.Mint(ctx, "k", d, long, time.Hour), store.ErrInvalid)
		wantError(t, "put a long value", s.Put(ctx, "k", d, long, time.Hour), store.ErrInvalid)
		_, err := s.Redeem(ctx, "k", d, store.Attempt{})
		wantError(t, "the zero attempt", err, store.ErrInvalid)
		_, err = s.Take(ctx, d, policy.Rate{})
		wantError(t, "the zero rate", err, store.ErrInvalid)
		if errors.Is(err, store.ErrUnavailable) {
			t.Error("a mistake is no failure of the store")
		}
		must(t, s.Mint(ctx, "k", d, nil, store.MaxTTL))
	})
}

func TestReady(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) { must(t, s.Ready(t.Context())) })
}

func TestMetrics(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		d, ctx := digest(), t.Context()
		must(t, s.Mint(ctx, store.KindToken, d, []byte("v"), time.Hour))
		_ = s.Mint(ctx, store.KindToken, d, []byte("v"), time.Hour)
		_, _ = s.Redeem(ctx, store.KindToken, d, attempt(1))
		_, _ = s.Redeem(ctx, store.KindToken, d, attempt(2))
		_, _ = s.Redeem(ctx, store.KindToken, digest(), attempt(2))
		_, _ = s.Take(ctx, d, policy.Rate{Count: 1, Per: time.Hour})
		_, _ = s.Take(ctx, d, policy.Rate{Count: 1, Per: time.Hour})
		_, _ = s.Take(ctx, d, policy.Rate{})
		begin := func(n byte, body store.Digest) {
			_, _ = s.Begin(ctx, kindCall, d, body, attempt(n), time.Hour, time.Hour, time.Hour)
		}
		begin(1, d)
		begin(2, d)
		begin(2, digest())
		_ = s.Finish(ctx, kindCall, d, attempt(1), nil)
		_ = s.Abandon(ctx, kindCall, d, attempt(1))
		_ = s.Abandon(ctx, kindCall, digest(), attempt(1))
		begin(2, d)
		over := digest()
		_, _ = s.Begin(ctx, kindCall, over, over, attempt(1), s.short, s.short, time.Hour)
		s.pass(s.short)
		_, _ = s.Begin(ctx, kindCall, over, over, attempt(1), s.short, s.short, time.Hour)
		gone, cancel := context.WithCancel(ctx)
		cancel()
		_, _ = s.Get(gone, store.KindLogin, d)

		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(s.Collectors()...)
		if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
			t.Errorf("lint: %v, %v", problems, err)
		}
		families, err := registry.Gather()
		must(t, err)
		got := make(map[string]bool)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				var name []string
				for _, l := range m.GetLabel() {
					if l.GetName() != "store" {
						name = append(name, l.GetValue())
					}
				}
				got[filepath.Base(f.GetName())+" "+strings.Join(name, " ")] = true
			}
		}
		for _, want := range []string{"mint ok", "mint exists", "redeem ok", "redeem spent", "redeem unknown", "take ok", "take limited",
			"take invalid", "get unavailable", "begin ok", "begin in_flight", "begin other_body", "begin replayed", "begin tombstone",
			"finish ok", "abandon ok", "abandon lost"} {
			if !got["cardstile_store_duration_seconds "+want] {
				t.Errorf("no duration of %q in %v", want, got)
			}
		}
		if !got["cardstile_store_failures_total canceled"] {
			t.Errorf("no failure counted: %v", got)
		}
	})
}
