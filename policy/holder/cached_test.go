package holder_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/holder"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend is a directory that counts and can be told what to answer.
type backend struct {
	calls  atomic.Int64
	answer atomic.Pointer[error]                      // nil: the card or user is there
	wait   func(ctx context.Context, id string) error // nil: at once
}

func (b *backend) respond(ctx context.Context, id string) error {
	b.calls.Add(1)
	if b.wait != nil {
		if err := b.wait(ctx, id); err != nil {
			return err
		}
	}
	if err := b.answer.Load(); err != nil {
		return *err
	}
	return nil
}

func (b *backend) Card(ctx context.Context, id string) (*policy.Holding, error) {
	if err := b.respond(ctx, id); err != nil {
		return nil, err
	}
	return &policy.Holding{Card: id}, nil
}

func (b *backend) User(ctx context.Context, id string) (*policy.User, error) {
	if err := b.respond(ctx, id); err != nil {
		return nil, err
	}
	return &policy.User{ID: id}, nil
}

// clock stands still until it is moved.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func cached(t testing.TB, config holder.CachedConfig) *holder.Cached {
	t.Helper()
	c, err := holder.NewCached(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask asks for a card and checks the answer and how often the backend was asked
// so far.
func ask(t *testing.T, c *holder.Cached, b *backend, id string, want error, calls int64) {
	t.Helper()
	card, err := c.Card(t.Context(), id)
	if !errors.Is(err, want) || (err == nil) != (card != nil) || card != nil && card.Card != id {
		t.Fatalf("Card(%q) = %v, %v; want %v", id, card, err, want)
	}
	if got := b.calls.Load(); got != calls {
		t.Fatalf("the backend was asked %d times, want %d", got, calls)
	}
}

func TestAnswersAreKeptForTheirTime(t *testing.T) {
	b, at := &backend{}, &clock{}
	c := cached(t, holder.CachedConfig{Directory: b, TTL: 10 * time.Second, NegativeTTL: 2 * time.Second, Now: at.now})
	ask(t, c, b, "a", nil, 1)
	at.advance(10*time.Second - 1)
	ask(t, c, b, "a", nil, 1)
	at.advance(1)
	b.answer.Store(&[]error{holder.ErrNoCard}[0])
	ask(t, c, b, "a", holder.ErrNoCard, 2)
	at.advance(2*time.Second - 1)
	ask(t, c, b, "a", holder.ErrNoCard, 2)
	at.advance(1)
	b.answer.Store(nil)
	ask(t, c, b, "a", nil, 3)
	ask(t, c, b, "b", nil, 4)
	if user, err := c.User(t.Context(), "a"); err != nil || user.ID != "a" || b.calls.Load() != 5 {
		t.Errorf("cards and users share a table: %v, %v", user, err)
	}
}

func TestAnswersAgeFromTheQuestion(t *testing.T) {
	at := &clock{}
	b := &backend{wait: func(context.Context, string) error { at.advance(6 * time.Second); return nil }}
	c := cached(t, holder.CachedConfig{Directory: b, TTL: 10 * time.Second, Now: at.now})
	ask(t, c, b, "a", nil, 1)
	at.advance(4*time.Second - 1)
	ask(t, c, b, "a", nil, 1)
	at.advance(1)
	ask(t, c, b, "a", nil, 2)
}

func TestFailuresAreNotKept(t *testing.T) {
	b := &backend{}
	c := cached(t, holder.CachedConfig{Directory: b})
	down := errors.New("backend is down")
	b.answer.Store(&down)
	ask(t, c, b, "a", down, 1)
	ask(t, c, b, "a", down, 2)
	b.answer.Store(nil)
	ask(t, c, b, "a", nil, 3)
}

// wrapped is a not-found with more words, as an adapter may return.
func TestNotFoundIsRecognisedWhenWrapped(t *testing.T) {
	b := &backend{}
	c := cached(t, holder.CachedConfig{Directory: b})
	wrapped := fmt.Errorf("callback: %w", holder.ErrNoCard)
	b.answer.Store(&wrapped)
	ask(t, c, b, "a", holder.ErrNoCard, 1)
	ask(t, c, b, "a", holder.ErrNoCard, 1)
}

// broken breaks the contract: neither a value nor an error.
type broken struct{ holder.Directory }

func (broken) Card(context.Context, string) (*policy.Holding, error) { return nil, nil }

func TestNothingIsNotAnAnswer(t *testing.T) {
	c := cached(t, holder.CachedConfig{Directory: broken{}})
	if card, err := c.Card(t.Context(), "a"); err == nil || card != nil || errors.Is(err, holder.ErrNoCard) {
		t.Errorf("Card = %v, %v", card, err)
	}
}

func TestOneLookUpInFlight(t *testing.T) {
	release := make(chan struct{})
	b := &backend{wait: func(context.Context, string) error { <-release; return nil }}
	c := cached(t, holder.CachedConfig{Directory: b})
	const callers = 50
	var all sync.WaitGroup
	var answered atomic.Int64
	first := make(chan struct{}, callers)
	for range callers {
		all.Go(func() {
			first <- struct{}{}
			if card, err := c.Card(t.Context(), "a"); err == nil && card.Card == "a" {
				answered.Add(1)
			}
		})
	}
	for range callers {
		<-first
	}
	close(release)
	all.Wait()
	if answered.Load() != callers || b.calls.Load() != 1 {
		t.Errorf("%d of %d were answered, with %d look-ups", answered.Load(), callers, b.calls.Load())
	}
}

func TestWhoGivesUpDoesNotSpoilIt(t *testing.T) {
	release, started := make(chan struct{}), make(chan struct{})
	b := &backend{wait: func(ctx context.Context, _ string) error {
		close(started)
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	c := cached(t, holder.CachedConfig{Directory: b, Timeout: time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := c.Card(ctx, "a")
		gone <- err
	}()
	<-started
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatalf("who gave up got %v", err)
	}
	second := make(chan error)
	go func() {
		_, err := c.Card(t.Context(), "a")
		second <- err
	}()
	close(release)
	if err := <-second; err != nil || b.calls.Load() != 1 {
		t.Errorf("the second caller got %v after %d look-ups", err, b.calls.Load())
	}
	if _, err := c.Card(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who is gone already got %v", err)
	}
}

func TestLookUpsTimeOut(t *testing.T) {
	b := &backend{wait: func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }}
	c := cached(t, holder.CachedConfig{Directory: b, Timeout: time.Millisecond})
	ask(t, c, b, "a", context.DeadlineExceeded, 1)
	ask(t, c, b, "a", context.DeadlineExceeded, 2)
}

func TestBounded(t *testing.T) {
	b := &backend{}
	c := cached(t, holder.CachedConfig{Directory: b, MaxEntries: 2})
	ask(t, c, b, "a", nil, 1)
	ask(t, c, b, "b", nil, 2)
	ask(t, c, b, "a", nil, 2) // used again: b goes first
	ask(t, c, b, "c", nil, 3)
	ask(t, c, b, "a", nil, 3)
	ask(t, c, b, "b", nil, 4)

	b.answer.Store(&[]error{holder.ErrNoCard}[0])
	for i := range 10 { // ids that are not there push out none that are
		ask(t, c, b, fmt.Sprint("guess", i), holder.ErrNoCard, int64(5+i))
	}
	ask(t, c, b, "a", nil, 14)
	ask(t, c, b, "b", nil, 14)
	ask(t, c, b, "guess9", holder.ErrNoCard, 14)
	ask(t, c, b, "guess0", holder.ErrNoCard, 15)
}

func TestCachedConfig(t *testing.T) {
	for name, config := range map[string]holder.CachedConfig{
		"no directory":     {},
		"negative":         {Directory: &backend{}, TTL: -1},
		"too long":         {Directory: &backend{}, TTL: time.Minute + 1},
		"too long, absent": {Directory: &backend{}, NegativeTTL: time.Hour},
		"time-out":         {Directory: &backend{}, Timeout: time.Hour},
		"size":             {Directory: &backend{}, MaxEntries: -1},
	} {
		if c, err := holder.NewCached(config); err == nil || c != nil {
			t.Errorf("%s: NewCached = %v, %v", name, c, err)
		}
	}
}

// BenchmarkCached is a hit: once per exchange that touches a card, where the
// directory is remote.
func BenchmarkCached(b *testing.B) {
	c := cached(b, holder.CachedConfig{Directory: &backend{}, TTL: time.Minute})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Card(b.Context(), "a"); err != nil {
			b.Fatal(err)
		}
	}
}
