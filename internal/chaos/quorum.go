package chaos

import (
	"testing"
	"time"

	"github.com/cardstile/cardstile/internal/drill"
	"github.com/cardstile/cardstile/policy/store"
)

// Quorum is the store with a replica that acknowledges, in place of the fence by tenure.
var Quorum = Subject{"the store with a quorum", func(t testing.TB, c store.RedisConfig) store.Tokens {
	c.Quorum = &store.Quorum{Replicas: 1, Timeout: timeout / 2}
	return Real.New(t, c)
}}

// quorums lets the replica take over and the primary come back as its replica, as failovers does, under a store that has the
// replica acknowledge. While the replica is cut off nothing is released, whatever was asked for; who takes over has all that was.
func quorums(rounds int) Scenario {
	return Scenario{"quorums", func(w *World) []drill.Violation {
		w.quorum = true
		p := newPair(w)
		w.load.Start()
		a, b := w.gateways[0], w.gateways[1]
		for round := range rounds {
			how := []end{crash, partition, alive}[w.rand.IntN(3)]
			w.progress(60, a, b)
			kept := w.load.Keep(a, w.rand)
			for _, g := range w.gateways {
				w.net.Set(g.Name, p.primary.name, w.weather())
			}
			w.net.Set(p.primary.name, p.second.name, drill.Rule{Delay: time.Duration(w.rand.IntN(int(timeout / 8)))})
			w.progress(30, a, b)
			w.net.Set(p.primary.name, p.second.name, drill.Rule{Cut: true})
			w.load.Spend(a, kept)
			w.say("round %d: %s; its replica takes over", round, how)
			p.takeOver(how, a, b)
			p.primary, p.second = p.second, p.primary
		}
		w.progress(60, a, b)
		return w.finish(p.routes(p.primary)...)
	}}
}

// takeOver promotes the replica. Until the primary follows it there is none to acknowledge, and gateways get nothing anywhere.
func (p *pair) takeOver(how end, a, b *drill.Gateway) {
	w, old, next := p.w, p.primary, p.second
	if how == crash {
		old.Kill()
	}
	next.Promote()
	next.watch.sight()
	p.move(b, next)
	if how != partition {
		p.move(a, next)
	}
	w.wait(timeout, 2*timeout)
	if how == crash {
		old.Restart()
	}
	for _, g := range w.gateways {
		w.net.Set(g.Name, old.name, drill.Rule{})
	}
	w.net.Set(old.name, next.name, drill.Rule{})
	old.Follow(next.address())
	old.watch.sight()
	p.move(a, next)
	old.Synced()
}
