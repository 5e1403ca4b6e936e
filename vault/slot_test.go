package vault_test

import (
	"context"
	"crypto"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/internal/secret"
)

// gate is rain with an RSA operation that lasts until it is let go, and counts how many run.
type gate struct {
	envelope.Rain
	let           chan struct{}
	running, most atomic.Int64
	calls         atomic.Int64
	panics        bool
}

func (g *gate) Unwrap(crypto.Decrypter, int, []byte) (*secret.Buffer, error) {
	g.calls.Add(1)
	n := g.running.Add(1)
	defer g.running.Add(-1)
	for most := g.most.Load(); n > most && !g.most.CompareAndSwap(most, n); most = g.most.Load() {
	}
	if g.panics {
		panic("test")
	}
	<-g.let
	return secret.New(16), nil
}

// gated is a vault whose RSA operations stand still.
type gated struct {
	gate   *gate
	vault  *vault.Vault
	client *vault.ClientKeys
	pre    vault.Preamble
}

func newGated(t *testing.T, c vault.Config) *gated {
	t.Helper()
	g := &gate{let: make(chan struct{})}
	k := sessionKey(t, "k", "", sessionPEM())
	client := must(vault.NewClientKeys(g, k))
	_, text := newPeer(t, k.Public())
	return &gated{gate: g, vault: must(vault.New(c)), client: client, pre: must(client.Parse(text))}
}

func (g *gated) open(ctx context.Context, slot *vault.Slot) error {
	s, err := g.vault.Open(ctx, vault.Opening{Binding: binding, Client: g.client, Preamble: g.pre, Slot: slot})
	s.Close()
	return err
}

func (g *gated) places(t *testing.T) int {
	return int(metric(t, g.vault, "cardstile_vault_rsa_queue", nil))
}

// TestAtMostMaxRSA: with every place taken, no more than MaxRSA run, the rest waits, one more is ErrBusy, and all come through.
func TestAtMostMaxRSA(t *testing.T) {
	for _, c := range []vault.Config{{MaxRSA: 1, QueuePerSlot: 1}, {MaxRSA: 1, QueuePerSlot: 8}, {MaxRSA: 3, QueuePerSlot: 5}} {
		synctest.Test(t, func(t *testing.T) {
			g := newGated(t, c)
			all := c.MaxRSA * c.QueuePerSlot
			var slots []*vault.Slot
			for range all {
				slots = append(slots, must(g.vault.Reserve()))
			}
			if _, err := g.vault.Reserve(); err != vault.ErrBusy {
				t.Errorf("place %d of %d: %v", all+1, all, err)
			}
			var wg sync.WaitGroup
			for _, s := range slots {
				wg.Go(func() {
					if err := g.open(context.Background(), s); err != nil {
						t.Error(err)
					}
				})
			}
			for left := all; left > 0; left-- {
				synctest.Wait()
				if got, want := int(g.gate.running.Load()), min(left, c.MaxRSA); got != want {
					t.Fatalf("%d run with %d left, want %d", got, left, want)
				}
				if got := g.places(t); got != left {
					t.Fatalf("%d places taken with %d left", got, left)
				}
				if left < all {
					must(g.vault.Reserve()).Release()
				}
				g.gate.let <- struct{}{}
			}
			wg.Wait()
			if got := int(g.gate.most.Load()); got != c.MaxRSA {
				t.Errorf("%d ran at once, want %d", got, c.MaxRSA)
			}
			if g.places(t) != 0 || opens(t, g.vault, "ok") != all {
				t.Errorf("%d places left over, %d opened", g.places(t), opens(t, g.vault, "ok"))
			}
		})
	}
}

// TestWaiterLeaves: a waiter that is cancelled or out of time frees its place and takes no permit.
func TestWaiterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated(t, vault.Config{MaxRSA: 1, QueuePerSlot: 3})
		first := make(chan error, 1)
		go func() { first <- g.open(context.Background(), must(g.vault.Reserve())) }()
		synctest.Wait()

		canceled, cancel := context.WithCancel(context.Background())
		timed, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		left, late := make(chan error, 1), make(chan error, 1)
		go func() { left <- g.open(canceled, must(g.vault.Reserve())) }()
		go func() { late <- g.open(timed, must(g.vault.Reserve())) }()
		synctest.Wait()
		if _, err := g.vault.Reserve(); err != vault.ErrBusy {
			t.Errorf("a full queue: %v", err)
		}

		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) || errors.Is(err, vault.ErrBusy) {
			t.Errorf("cancelled: %v", err)
		}
		must(g.vault.Reserve()).Release()
		if err := <-late; !errors.Is(err, vault.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("out of time: %v", err)
		}
		if got := g.places(t); got != 1 {
			t.Errorf("%d places taken, want the running one", got)
		}
		g.gate.let <- struct{}{}
		if err := <-first; err != nil {
			t.Error(err)
		}
		if g.places(t) != 0 || g.gate.calls.Load() != 1 {
			t.Errorf("%d places left over, %d operations", g.places(t), g.gate.calls.Load())
		}
		for result, want := range map[string]int{"ok": 1, "failed": 0, "busy": 1, "canceled": 1} {
			if got := opens(t, g.vault, result); got != want {
				t.Errorf("%s: %d, want %d", result, got, want)
			}
		}
	})
}

// TestNoTimeLeft: a context that is over before a free permit is taken costs no RSA operation.
func TestNoTimeLeft(t *testing.T) {
	g := newGated(t, vault.Config{MaxRSA: 1})
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for range 50 { // a select of two that are ready would choose at random
		if err := g.open(canceled, must(g.vault.Reserve())); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if g.gate.calls.Load() != 0 || g.places(t) != 0 {
		t.Errorf("%d operations, %d places left over", g.gate.calls.Load(), g.places(t))
	}
}

// TestRefusedBeforeTheQueue: what has no key's length neither waits nor needs a place, even when all are taken.
func TestRefusedBeforeTheQueue(t *testing.T) {
	g := newGated(t, vault.Config{MaxRSA: 1, QueuePerSlot: 1})
	held := must(g.vault.Reserve())
	short, err := g.client.Parse("AAAA")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: g.client, Preamble: short}); err != vault.ErrOpen {
		t.Errorf("%v", err)
	}
	if err := g.open(context.Background(), nil); err != vault.ErrBusy {
		t.Errorf("no slot and no place: %v", err)
	}
	if opens(t, g.vault, "busy") != 1 {
		t.Error("not counted as busy")
	}
	held.Release()
	if g.gate.calls.Load() != 0 || g.places(t) != 0 {
		t.Errorf("%d operations, %d places left over", g.gate.calls.Load(), g.places(t))
	}
}

// TestReleaseOnce: a slot returns its place once, whoever releases it and how often, and a used slot opens nothing more for free.
func TestReleaseOnce(t *testing.T) {
	g := newGated(t, vault.Config{MaxRSA: 1, QueuePerSlot: 4})
	var none *vault.Slot
	none.Release()
	s, kept := must(g.vault.Reserve()), must(g.vault.Reserve())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(s.Release)
	}
	wg.Wait()
	if got := g.places(t); got != 1 {
		t.Errorf("%d places, want 1", got)
	}
	kept.Release()

	close(g.gate.let)
	used := must(g.vault.Reserve())
	if err := g.open(context.Background(), used); err != nil {
		t.Fatal(err)
	}
	used.Release()
	if got := g.places(t); got != 0 {
		t.Errorf("%d places after a used slot was released", got)
	}
	var full []*vault.Slot
	for range 4 {
		full = append(full, must(g.vault.Reserve()))
	}
	if err := g.open(context.Background(), used); err != vault.ErrBusy {
		t.Errorf("a used slot opened again: %v", err)
	}
	for _, s := range full {
		s.Release()
	}
	if err := g.open(context.Background(), used); err != nil { // it takes a new place
		t.Error(err)
	}
	if got := g.places(t); got != 0 {
		t.Errorf("%d places left over", got)
	}
}

// TestReleaseWhileOpening: the place stays taken until the operation is over.
func TestReleaseWhileOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated(t, vault.Config{MaxRSA: 1, QueuePerSlot: 1})
		slot, result := must(g.vault.Reserve()), make(chan error, 1)
		go func() { result <- g.open(context.Background(), slot) }()
		synctest.Wait()
		slot.Release()
		if _, err := g.vault.Reserve(); err != vault.ErrBusy {
			t.Errorf("the running operation lost its place: %v", err)
		}
		g.gate.let <- struct{}{}
		if err := <-result; err != nil {
			t.Error(err)
		}
		must(g.vault.Reserve()).Release()
	})
}

// TestPanicReturnsAll: neither place nor permit is lost when an operation panics.
func TestPanicReturnsAll(t *testing.T) {
	g := newGated(t, vault.Config{MaxRSA: 1, QueuePerSlot: 1})
	g.gate.panics = true
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = g.open(context.Background(), must(g.vault.Reserve()))
	}()
	g.gate.panics = false
	close(g.gate.let)
	if err := g.open(context.Background(), must(g.vault.Reserve())); err != nil {
		t.Error(err)
	}
}

// TestStorm: many clients at once, some of which give up, with the real RSA operation: all places and permits come back.
func TestStorm(t *testing.T) {
	h := newHouse(t)
	v := must(vault.New(vault.Config{MaxRSA: 2, QueuePerSlot: 3}))
	_, text := newPeer(t, h.key.Public())
	p := h.preamble(t, text)
	var opened, busy, canceled atomic.Int64
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			for range 8 {
				slot, err := v.Reserve()
				if err != nil {
					busy.Add(1)
					continue
				}
				ctx, cancel := context.WithCancel(context.Background())
				if i%3 == 0 {
					go cancel()
				}
				s, err := v.Open(ctx, vault.Opening{Binding: binding, Client: h.client, Preamble: p, Slot: slot})
				switch {
				case err == nil:
					opened.Add(1)
				case errors.Is(err, context.Canceled):
					canceled.Add(1)
				default:
					t.Error(err)
				}
				s.Close()
				slot.Release()
				cancel()
			}
		})
	}
	wg.Wait()
	if n := opened.Load() + busy.Load() + canceled.Load(); n != 24*8 || opened.Load() == 0 {
		t.Errorf("%d accounted for, %d opened", n, opened.Load())
	}
	if n := metric(t, v, "cardstile_vault_rsa_queue", nil); n != 0 {
		t.Errorf("%v places left over", n)
	}
	if int64(opens(t, v, "ok")) != opened.Load() || int64(opens(t, v, "canceled")) != canceled.Load() {
		t.Error("the counters differ")
	}
	var again []*vault.Slot
	for range 6 {
		again = append(again, must(v.Reserve()))
	}
	if _, err := v.Reserve(); err != vault.ErrBusy {
		t.Errorf("a seventh place: %v", err)
	}
	for _, s := range again {
		s.Release()
	}
}
