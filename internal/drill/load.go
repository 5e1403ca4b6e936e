package drill

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cardstile/cardstile/policy/store"
)

// mostAsked is how often one token is asked for while the workers are at work: a long history is slow to judge.
const mostAsked = 10

// LongLife is the life of a token that is not short.
const LongLife = time.Hour

// answers are the store's errors by what they mean.
var answers = []struct {
	err    error
	answer answer
}{
	{store.ErrFull, full}, // before ErrUnavailable, which it matches too
	{store.ErrUnavailable, nothing}, {store.ErrUnknown, unknown}, {store.ErrSpent, spent}, {store.ErrExpired, expired},
	{store.ErrFenced, fenced}, {store.ErrExists, exists},
}

// Gateway is one instance of what uses the store.
type Gateway struct {
	Name string
	// Route is the way by which it comes to servers at the moment.
	Route atomic.Pointer[Route]
	// Answered counts the calls that were answered with a yes.
	Answered atomic.Int64

	// weather is odd while there is a fault on its way, and another number for each.
	weather atomic.Int64
}

// Route is a way to servers.
type Route struct {
	Tokens store.Tokens
	// Reach returns those that may be at its end for a token. nil: it is found out later.
	Reach func(*Token) []*Watch
}

// Load is what gateways ask of a store.
type Load struct {
	History  *History
	Gateways []*Gateway
	Seed     uint64
	// Workers is how many each gateway has.
	Workers int
	// Pause is what a worker waits between two calls, at most; a call more PauseMore for each token that there is, since a long
	// history is judged in the end.
	Pause, PauseMore time.Duration
	// Timeout is how long a call takes at most.
	Timeout time.Duration
	// Again lets workers mint what was minted already: only where no tenure ends, since what is lost may be minted anew, and
	// only what does not expire meanwhile.
	Again bool
	// Short is the share of tokens, in percent, with a life of less than a second.
	Short int
	// Pad is how many bytes a value has beyond the few that tell it from others.
	Pad int

	working sync.WaitGroup
	end     context.CancelFunc
}

// Start starts the workers.
func (l *Load) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	l.end = cancel
	for number, g := range l.Gateways {
		for i := range l.Workers {
			r := rand.New(rand.NewPCG(l.Seed, uint64(2+number*l.Workers+i)))
			l.working.Go(func() { l.worker(ctx, g, r) })
		}
	}
}

// Stop ends the workers and returns when they are at rest.
func (l *Load) Stop() {
	if l.end != nil {
		l.end()
	}
	l.working.Wait()
}

// worker mints tokens and asks for them, often those that others ask for at this moment. Where it has no answer it asks again as the same
// attempt.
func (l *Load) worker(ctx context.Context, g *Gateway, r *rand.Rand) {
	var open *Token
	var attempt uint64
	for ctx.Err() == nil {
		all := l.History.All()
		time.Sleep(time.Duration(r.Int64N(int64(l.Pause) + int64(l.PauseMore)*int64(len(all)))))
		switch {
		case open != nil && r.IntN(10) < 7:
			if l.redeem(g, open, attempt, redeem) != nothing || r.IntN(8) == 0 {
				open = nil
			}
		case len(all) == 0 || r.IntN(4) == 0:
			l.mint(g, l.newToken(r))
		default:
			k := all[r.IntN(len(all))]
			if r.IntN(10) < 7 {
				k = all[len(all)-1-r.IntN(min(len(all), 24))]
			}
			if !k.take() {
				continue
			}
			if l.Again && k.ttl == LongLife && r.IntN(16) == 0 {
				l.mint(g, k)
				continue
			}
			v := redeem
			if r.IntN(16) == 0 {
				v = revoke
			}
			if a := l.History.attempt(); l.redeem(g, k, a, v) == nothing {
				open, attempt = k, a
			}
		}
	}
}

// take is whether the token may be asked for once more.
func (k *Token) take() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	return k.asked <= mostAsked
}

func (l *Load) newToken(r *rand.Rand) *Token {
	kind, ttl := store.KindToken, LongLife
	if r.IntN(5) == 0 {
		kind = store.KindCard
	}
	if r.IntN(100) < l.Short {
		ttl = time.Duration(100+r.IntN(800)) * time.Millisecond
	}
	return l.History.add(r, kind, ttl, l.Pad)
}

// Keep mints tokens that the workers leave alone, all at once, for Spend to redeem when a replica no longer hears of it.
func (l *Load) Keep(g *Gateway, r *rand.Rand) (kept []*Token) {
	const n = 20
	var minting sync.WaitGroup
	for range n {
		k := l.newToken(r)
		k.mu.Lock()
		k.ttl, k.asked = LongLife, mostAsked
		k.mu.Unlock()
		minting.Go(func() { l.mint(g, k) })
		kept = append(kept, k)
	}
	minting.Wait()
	return kept
}

// Spend redeems what was kept.
func (l *Load) Spend(g *Gateway, kept []*Token) {
	for _, k := range kept {
		l.redeem(g, k, l.History.attempt(), redeem)
	}
}

// mint asks for a token to be stored. A token is in the history before anyone could have it.
func (l *Load) mint(g *Gateway, k *Token) {
	l.call(g, k, &call{verb: mint}, func(ctx context.Context, s store.Tokens) ([]byte, error) {
		return []byte(k.value), s.Mint(ctx, k.Kind, k.Digest, []byte(k.value), k.ttl)
	})
}

func (l *Load) redeem(g *Gateway, k *Token, attempt uint64, v verb) answer {
	return l.call(g, k, &call{verb: v, attempt: attempt}, func(ctx context.Context, s store.Tokens) ([]byte, error) {
		return s.Redeem(ctx, k.Kind, k.Digest, Attempt(attempt))
	})
}

func (l *Load) call(g *Gateway, k *Token, c *call, f func(context.Context, store.Tokens) ([]byte, error)) answer {
	way := g.Route.Load()
	c.gateway = g.Name
	if way.Reach != nil {
		c.reach = way.Reach(k)
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.Timeout)
	defer cancel()
	weather := g.weather.Load()
	c.began = l.History.Now()
	value, err := f(ctx, way.Tokens)
	c.ended = l.History.Now()
	c.fair = weather%2 == 0 && weather == g.weather.Load()
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
		g.Answered.Add(1)
	}
	return c.answer
}

// Sweep asks for every token once more by every one of these routes: as the attempt that had it or may have, and as a thief.
// Each call is repeated until it is answered, or ctx ends. So many tokens are asked for at a time. It returns how many
// tokens had a question without an answer.
func (l *Load) Sweep(ctx context.Context, atOnce int, routes ...*Route) (unanswered int) {
	all := l.History.All()
	var asking sync.WaitGroup
	var silent atomic.Int64
	next := make(chan *Token)
	for range atOnce {
		asking.Go(func() {
			for k := range next {
				var owner uint64
				for _, c := range k.past() {
					if c.verb != mint && (c.answer == yes || c.answer == nothing && owner == 0) {
						owner = c.attempt
					}
				}
				answered := true
				for _, r := range routes {
					at := &Gateway{Name: thief}
					at.Route.Store(r)
					if owner != 0 {
						answered = l.insist(ctx, at, k, owner) && answered
					}
					answered = l.insist(ctx, at, k, l.History.attempt()) && answered
				}
				if !answered {
					silent.Add(1)
				}
			}
		})
	}
	for _, k := range all {
		next <- k
	}
	close(next)
	asking.Wait()
	return int(silent.Load())
}

// thief is who asks for tokens in the end.
const thief = "thief"

// insist asks until there is an answer, and returns whether there was, within bounds: what is never answered stays open in
// the history, which permits everything.
func (l *Load) insist(ctx context.Context, g *Gateway, k *Token, attempt uint64) bool {
	for range 40 {
		if ctx.Err() != nil {
			return false
		}
		if l.redeem(g, k, attempt, redeem) != nothing {
			return true
		}
		time.Sleep(25 * time.Millisecond)
	}
	return false
}
