package drill_test

import (
	"context"
	"errors"
	"flag"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cardstile/cardstile/internal/drill"
	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

func TestMain(m *testing.M) {
	// Drills wait most of the time, so that a few more than there are processors run at once.
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// TestRunRestart: a server that restarts under it has another tenure, which the report names; what it had is fenced or
// unknown, and nothing is called lost for it.
func TestRunRestart(t *testing.T) {
	t.Parallel()
	s := testredis.Start(t, "--save", "3600 1") // a snapshot at the end
	var mu sync.Mutex
	var said []string
	r, err := drill.Run(t.Context(), drill.Config{
		Redis: store.RedisConfig{Addresses: []string{s.Addr}}, For: 3 * time.Second, Workers: 8, Seed: 11,
		Fault: func(context.Context) (string, error) {
			s.Restart()
			return "it started again", nil
		},
		Say: func(_ time.Duration, what string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, what)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != drill.Held || r.Faults.Commands == 0 || r.Tenures.Changes != int(r.Faults.Commands) || r.Tokens.Fenced == 0 || r.Keys.Left != 0 {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(strings.Join(said, "\n"), "it started again") {
		t.Errorf("it said %q", said)
	}
	if left := s.Dump(); len(left) > 0 {
		t.Errorf("%d keys are left", len(left))
	}
}

// TestRunEndsEarly: with its context, also while a fault is under way; a fault that failed is counted.
func TestRunEndsEarly(t *testing.T) {
	t.Parallel()
	s := testredis.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := drill.Run(ctx, drill.Config{
		Redis: store.RedisConfig{Addresses: []string{s.Addr}}, For: 4 * time.Second, Workers: 8, Seed: 12,
		Fault: func(ctx context.Context) (string, error) {
			cancel()
			<-ctx.Done()
			return "cut short", ctx.Err()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Interrupted || r.Verdict != drill.Held || r.Faults.CommandsFailed != 1 || r.Keys.Left != 0 {
		t.Errorf("%+v", r)
	}
	if left := s.Dump(); len(left) > 0 {
		t.Errorf("%d keys are left", len(left))
	}
}

// mute is a store that never answers.
type mute struct{}

// Mint is store.Tokens.Mint.
func (mute) Mint(context.Context, store.Kind, store.Digest, []byte, time.Duration) error {
	return store.ErrUnavailable
}

// Redeem is store.Tokens.Redeem.
func (mute) Redeem(context.Context, store.Kind, store.Digest, store.Attempt) ([]byte, error) {
	return nil, store.ErrUnavailable
}

func (mute) Close() error { return nil }

// TestRunShowsNothing: a run in which nothing was redeemed does not hold. One that cannot begin says why, and leaves nothing.
func TestRunShowsNothing(t *testing.T) {
	t.Parallel()
	s := testredis.Start(t)
	c := drill.Config{Redis: store.RedisConfig{Addresses: []string{s.Addr}}, For: time.Second, Workers: 2}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // the sweep asks again and again
	defer cancel()
	c.Open = func(store.RedisConfig) (drill.Subject, error) { return mute{}, nil }
	if r, err := drill.Run(ctx, c); err != nil || r.Verdict != drill.Undecided || r.Why == "" || r.Calls.Unavailable == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	broken := errors.New("no such store")
	c.Open = func(store.RedisConfig) (drill.Subject, error) { return nil, broken }
	if r, err := drill.Run(t.Context(), c); r != nil || !errors.Is(err, broken) {
		t.Errorf("%+v, %v", r, err)
	}
}
