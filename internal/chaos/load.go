package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/cardstile/cardstile/policy/store"
)

const (
	workers   = 4  // at each gateway
	mostAsked = 10 // of one token while the workers are at work: a long history is slow to judge
	longLife  = time.Hour
)

// answers are the store's errors by what they mean.
var answers = []struct {
	err    error
	answer answer
}{
	{store.ErrFull, full}, // before ErrUnavailable, which it matches too
	{store.ErrUnavailable, nothing}, {store.ErrUnknown, unknown}, {store.ErrSpent, spent}, {store.ErrExpired, expired},
	{store.ErrFenced, fenced}, {store.ErrExists, exists},
}

// work starts the workers.
func (w *World) work() {
	ctx, cancel := context.WithCancel(context.Background())
	w.end = cancel
	for _, g := range w.gateways {
		for i := range workers {
			r := rand.New(rand.NewPCG(w.seed, uint64(2+g.number*workers+i)))
			w.working.Go(func() { w.worker(ctx, g, r) })
		}
	}
}

// stop ends the workers and returns when they are at rest.
func (w *World) stop() {
	if w.end != nil {
		w.end()
	}
	w.working.Wait()
}

// worker mints tokens and asks for them, often those that others ask for at this moment. Where it has no answer it asks again as the same
// attempt.
func (w *World) worker(ctx context.Context, g *gateway, r *rand.Rand) {
	var open *token
	var attempt uint64
	for ctx.Err() == nil {
		all := w.history.all()
		time.Sleep(time.Duration(r.IntN(3_000+20*len(all))) * time.Microsecond) // a long history is judged in the end
		switch {
		case open != nil && r.IntN(10) < 7:
			if w.redeem(g, open, attempt, redeem) != nothing || r.IntN(8) == 0 {
				open = nil
			}
		case len(all) == 0 || r.IntN(4) == 0:
			w.mint(g, w.newToken(r))
		default:
			k := all[r.IntN(len(all))]
			if r.IntN(10) < 7 {
				k = all[len(all)-1-r.IntN(min(len(all), 24))]
			}
			if !k.take() {
				continue
			}
			if w.again && k.ttl == longLife && r.IntN(16) == 0 {
				w.mint(g, k)
				continue
			}
			v := redeem
			if r.IntN(16) == 0 {
				v = revoke
			}
			if a := w.history.attempt(); w.redeem(g, k, a, v) == nothing {
				open, attempt = k, a
			}
		}
	}
}

// take is whether the token may be asked for once more.
func (k *token) take() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	return k.asked <= mostAsked
}

// newToken is a token that is in the history already, and nowhere else.
func (w *World) newToken(r *rand.Rand) *token {
	k := &token{kind: store.KindToken, ttl: longLife}
	if r.IntN(5) == 0 {
		k.kind = store.KindCard
	}
	if r.IntN(100) < w.short {
		k.ttl = time.Duration(100+r.IntN(800)) * time.Millisecond
	}
	// A digest that is not from the seed: worlds must not meet each other's tokens in a server that was kept.
	k.digest = sha256.Sum256(binary.BigEndian.AppendUint64(fmt.Appendf(nil, "%p %d", k, w.now()), r.Uint64()))
	k.value = fmt.Sprintf("value %x", r.Uint64()) + strings.Repeat(".", w.pad)
	w.history.add(k)
	return k
}

// keep mints tokens that the workers leave alone, for spend to redeem when the replica no longer hears of it.
func (w *World) keep(g *gateway) (kept []*token) {
	const n = 20
	for range n {
		k := w.newToken(w.rand)
		k.mu.Lock()
		k.ttl, k.asked = longLife, mostAsked
		k.mu.Unlock()
		w.mint(g, k)
		kept = append(kept, k)
	}
	return kept
}

// spend redeems what was kept.
func (w *World) spend(g *gateway, kept []*token) {
	for _, k := range kept {
		w.redeem(g, k, w.history.attempt(), redeem)
	}
}

// mint asks for a token to be stored. A token is in the history before anyone could have it.
func (w *World) mint(g *gateway, k *token) {
	w.call(g, k, &call{verb: mint}, func(ctx context.Context, s store.Tokens) ([]byte, error) {
		return []byte(k.value), s.Mint(ctx, k.kind, k.digest, []byte(k.value), k.ttl)
	})
}

func (w *World) redeem(g *gateway, k *token, attempt uint64, v verb) answer {
	return w.call(g, k, &call{verb: v, attempt: attempt}, func(ctx context.Context, s store.Tokens) ([]byte, error) {
		return s.Redeem(ctx, k.kind, k.digest, id(attempt))
	})
}

func (w *World) call(g *gateway, k *token, c *call, f func(context.Context, store.Tokens) ([]byte, error)) answer {
	way := g.route.Load()
	c.gateway, c.reach = g.name, way.reach(k)
	ctx, cancel := context.WithTimeout(context.Background(), 4*timeout)
	defer cancel()
	c.began = w.now()
	value, err := f(ctx, way.tokens)
	c.ended = w.now()
	c.answer, c.value = yes, string(value)
	if err != nil {
		c.answer, c.text = nothing, err.Error()
		for _, a := range answers {
			if errors.Is(err, a.err) {
				c.answer = a.answer
				break
			}
		}
	}
	k.record(c)
	if c.answer == yes {
		g.answered.Add(1)
	}
	return c.answer
}

// sweep asks for every token once more by every one of these routes: as the attempt that had it or may have, and as a thief.
// Each call is repeated until it is answered.
func (w *World) sweep(routes ...*route) {
	w.t.Helper()
	thief := &gateway{name: "thief"}
	all := w.history.all()
	var asking sync.WaitGroup
	next := make(chan *token)
	for range 2 * workers {
		asking.Go(func() {
			for k := range next {
				var owner uint64
				for _, c := range k.past() {
					if c.verb != mint && (c.answer == yes || c.answer == nothing && owner == 0) {
						owner = c.attempt
					}
				}
				for _, r := range routes {
					at := &gateway{name: thief.name}
					at.route.Store(r)
					if owner != 0 {
						w.insist(at, k, owner)
					}
					w.insist(at, k, w.history.attempt())
				}
			}
		})
	}
	for _, k := range all {
		next <- k
	}
	close(next)
	asking.Wait()
}

// insist asks until there is an answer, within bounds: what is never answered stays open in the history, which permits
// everything.
func (w *World) insist(g *gateway, k *token, attempt uint64) {
	for range 40 {
		if w.redeem(g, k, attempt, redeem) != nothing {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
}
