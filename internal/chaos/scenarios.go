package chaos

import (
	"net"
	"strconv"
	"time"

	"github.com/cardstile/cardstile/internal/drill"
	"github.com/cardstile/cardstile/internal/testredis"
)

// Scenario is a way of doing harm.
type Scenario struct {
	Name string
	// Run does it, and returns what the judge found.
	Run func(w *World) []drill.Violation
}

// prompt are directives of every server here: a replica is not kept waiting.
var prompt = []string{"--repl-ping-replica-period", "1", "--hz", "100"}

func with(args ...string) testredis.Options {
	return testredis.Options{Args: append(append([]string(nil), prompt...), args...)}
}

// weather draws a rule for the wires of a gateway under which it still gets on: mostly fair.
func (w *World) weather() drill.Rule {
	switch w.rand.IntN(5) {
	case 0:
		return drill.Rule{Delay: time.Duration(w.rand.IntN(20)) * time.Millisecond}
	case 1:
		return drill.Rule{Breaks: 8 + w.rand.IntN(40)}
	case 2:
		return drill.Rule{Lag: time.Duration(w.rand.IntN(100)) * time.Millisecond}
	}
	return drill.Rule{}
}

// pair is a primary with a replica, and each gateway's way to each of them.
type pair struct {
	w               *World
	primary, second *node
	ways            map[*drill.Gateway]map[*node]*drill.Route
}

func newPair(w *World, args ...string) *pair {
	w.t.Helper()
	p := &pair{w: w, primary: w.add("one", with(args...)), second: w.add("two", with(args...)), ways: map[*drill.Gateway]map[*node]*drill.Route{}}
	p.second.Follow(p.primary.address())
	p.second.Synced()
	for _, g := range w.gateways {
		p.ways[g] = map[*node]*drill.Route{}
		for _, n := range w.nodes {
			p.ways[g][n] = w.direct(g, n)
		}
		p.move(g, p.primary)
	}
	return p
}

// move sends a gateway to a node.
func (p *pair) move(g *drill.Gateway, n *node) { g.Route.Store(p.ways[g][n]) }

// caughtUp is whether the replica has what the primary had when it was called.
func (p *pair) caughtUp() func() bool {
	offset := func(n *node, field string) int {
		i, _ := strconv.Atoi(n.Field("replication", field))
		return i
	}
	want := offset(p.primary, "master_repl_offset")
	return func() bool { return offset(p.second, "slave_repl_offset") >= want }
}

// routes are all ways to a node.
func (p *pair) routes(n *node) (all []*drill.Route) {
	for _, g := range p.w.gateways {
		all = append(all, p.ways[g][n])
	}
	return all
}

// end is what becomes of a primary whose replica takes over.
type end string

const (
	crash      end = "the primary is killed"
	partition  end = "the primary is cut off from one gateway and its replica, and serves the other one"
	alive      end = "the primary lives on, and both gateways leave it"
	coordinate end = "the primary hands over (FAILOVER)"
)

var ends4 = []end{crash, partition, alive, coordinate}

// failovers lets the replica take over and the primary come back as its replica, again and again, so that servers flip.
// Just before, replication lags: what is redeemed then the replica never hears of.
func failovers(rounds int, fixed ...end) Scenario {
	return Scenario{"failovers", func(w *World) []drill.Violation {
		p := newPair(w)
		w.load.Start()
		a, b := w.gateways[0], w.gateways[1]
		for round := range rounds {
			how := ends4[w.rand.IntN(len(ends4))]
			if len(fixed) > 0 {
				how = fixed[round%len(fixed)]
			}
			w.progress(60, a, b)
			kept := w.load.Keep(a, w.rand)
			p.second.Eventually("the replica has what is kept", p.caughtUp())
			for _, g := range w.gateways {
				w.net.Set(g.Name, p.primary.name, w.weather())
			}
			if how != coordinate {
				w.net.Set(p.primary.name, p.second.name, drill.Rule{Cut: true})
			}
			w.load.Spend(a, kept)
			w.progress(30, a, b)
			w.say("round %d: %s; its replica takes over", round, how)
			p.failover(how, a, b)
			p.primary, p.second = p.second, p.primary
			for _, g := range w.gateways {
				w.net.Set(g.Name, p.second.name, drill.Rule{})
			}
		}
		w.progress(60, a, b)
		w.load.Stop()
		return w.finish(p.routes(p.primary)...)
	}}
}

func (p *pair) failover(how end, a, b *drill.Gateway) {
	w, old, next := p.w, p.primary, p.second
	both := func(n *node) { p.move(a, n); p.move(b, n) }
	if how == coordinate {
		host, port, _ := net.SplitHostPort(next.address())
		for _, g := range w.gateways { // it pauses writers; weather is not to
			w.net.Set(g.Name, old.name, drill.Rule{})
		}
		old.Eventually("it agrees to hand over", func() bool {
			_, err := old.Try("FAILOVER", "TO", host, port, "TIMEOUT", testredis.Patience.Milliseconds())
			return err == nil
		})
		next.Eventually("it takes over", func() bool { return next.Field("replication", "role") == "master" })
		both(next)
		old.Synced()
		w.progress(60, a, b)
		return
	}
	if how == crash {
		old.Kill()
	}
	if how == partition {
		w.net.Set(b.Name, old.name, drill.Rule{Cut: true})
	}
	next.Promote()
	next.watch.sight()
	p.move(b, next)
	if how != partition {
		p.move(a, next)
	}
	w.progress(80, a, b) // in a partition: on both sides
	if how == crash {
		old.Restart()
	}
	first := w.rand.IntN(2) == 0 // what was held up arrives, while it is a primary still or when it is one no more
	if first {
		w.net.Set(b.Name, old.name, drill.Rule{})
	}
	w.net.Set(old.name, next.name, drill.Rule{})
	old.Follow(next.address())
	old.watch.sight()
	both(next)
	w.net.Set(b.Name, old.name, drill.Rule{})
	old.Synced()
}

// single is one server, both gateways at it.
func single(w *World, o testredis.Options) *node {
	w.t.Helper()
	n := w.add("one", o)
	for _, g := range w.gateways {
		g.Route.Store(w.direct(g, n))
	}
	return n
}

// everywhere are the ways that gateways have now.
func (w *World) everywhere() (all []*drill.Route) {
	for _, g := range w.gateways {
		all = append(all, g.Route.Load())
	}
	return all
}

// keeping are the ways in which a server keeps what it has over a restart.
var keeping = map[string][]string{
	"nothing kept":                 {},
	"snapshots":                    {"--save", "1 1"},
	"an append-only file":          {"--appendonly", "yes", "--appendfsync", "everysec"},
	"an append-only file, at once": {"--appendonly", "yes", "--appendfsync", "always"},
}

// restarts kills the server, or ends it in good order, and starts it again on what it kept.
func restarts(kept string) Scenario {
	return Scenario{"restarts with " + kept, func(w *World) []drill.Violation {
		n := single(w, with(keeping[kept]...))
		w.load.Start()
		for range 2 {
			w.progress(60, w.gateways...)
			if kept == "snapshots" {
				n.Eventually("a snapshot is taken", func() bool { _, err := n.Try("SAVE"); return err == nil }) // one may be under way
				w.progress(30, w.gateways...)
			}
			if w.rand.IntN(3) == 0 {
				w.say("the server is told to end, and starts again")
				n.Stop()
			} else {
				w.say("the server is killed, and starts again")
				n.Kill()
			}
			n.Restart()
			n.watch.sight()
		}
		w.progress(60, w.gateways...)
		return w.finish(w.everywhere()...)
	}}
}

// pauses stops the server where it stands for longer than gateways wait. What they sent meanwhile it carries out later.
var pauses = Scenario{"pauses", func(w *World) []drill.Violation {
	w.load.Again = true
	n := single(w, with())
	w.load.Start()
	for range 3 {
		w.progress(60, w.gateways...)
		w.say("the server is stopped")
		n.Pause()
		w.wait(timeout, 3*timeout)
		n.Resume()
	}
	w.progress(60, w.gateways...)
	return w.finish(w.everywhere()...)
}}

// wires has slow wires, connections that break in the middle of a reply, and partitions after which what was sent arrives
// late, or not at all. The tenure lasts: nothing may be lost.
func wires(rounds int) Scenario {
	return Scenario{"wires", func(w *World) []drill.Violation {
		w.load.Again = true
		n := single(w, with())
		w.load.Start()
		for range rounds {
			w.progress(40, w.gateways...)
			for _, g := range w.gateways {
				w.net.Set(g.Name, n.name, drill.Rule{Delay: time.Duration(w.rand.IntN(8)) * time.Millisecond, Breaks: 4 + w.rand.IntN(8)})
			}
			w.say("replies break")
			w.progress(60, w.gateways...)
			g := w.gateways[w.rand.IntN(2)]
			w.say("gateway %s is cut off", g.Name)
			w.net.Set(g.Name, n.name, drill.Rule{Cut: true})
			w.wait(timeout, 2*timeout)
			if w.rand.IntN(2) == 0 {
				w.net.Reset(g.Name, n.name)
			}
			w.net.Set(g.Name, n.name, drill.Rule{})
			w.say("replies come too late")
			w.net.Set(w.gateways[0].Name, n.name, drill.Rule{Lag: timeout + time.Duration(w.rand.IntN(100))*time.Millisecond})
			w.wait(2*timeout, 3*timeout)
			w.net.Set(w.gateways[0].Name, n.name, drill.Rule{})
		}
		for _, g := range w.gateways {
			w.net.Set(g.Name, n.name, drill.Rule{})
		}
		w.progress(60, w.gateways...)
		return w.finish(w.everywhere()...)
	}}
}

// clocks turns the server's clock, past the life of tokens and of spent records, and back.
var clocks = Scenario{"clocks", func(w *World) []drill.Violation {
	clock := testredis.NewClock(w.t)
	o := with()
	o.Clock = clock
	w.load.Short = 40
	single(w, o)
	w.load.Start()
	for range 5 {
		w.progress(50, w.gateways...)
		ahead := []time.Duration{time.Second, 20 * time.Second, 59 * time.Minute, longLife + 5*time.Minute, 3 * time.Hour}[w.rand.IntN(5)]
		if w.rand.IntN(2) == 0 {
			ahead = -ahead
		}
		w.say("the server's clock is set %v ahead", ahead)
		w.skewed.CompareAndSwap(0, w.load.History.Now())
		clock.Set(ahead)
	}
	w.progress(50, w.gateways...)
	clock.Set(0)
	return w.finish(w.everywhere()...)
}}

// disks has a server whose disk is full for a while, and then dies of it.
var disks = Scenario{"disks", func(w *World) []drill.Violation {
	o := with("--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")
	o.SmallDisk = true
	w.load.Pad = 512
	n := single(w, o)
	w.load.Start()
	refuses := func() bool { return n.Field("persistence", "aof_last_write_status") == "err" }
	for range 2 {
		w.progress(60, w.gateways...)
		w.say("the server's disk is full")
		if !n.FillDisk() {
			w.say("mounting is not permitted here: no file may be longer than the disk would be")
		}
		n.Eventually("the server cannot write", refuses)
		w.wait(timeout, 2*timeout)
		n.FreeDisk()
		w.say("there is room again")
		w.progress(60, w.gateways...)
	}
	n.FillDisk()
	n.Eventually("the server cannot write", refuses)
	w.say("the server is killed with a full disk")
	n.Kill()
	n.Restart()
	n.FreeDisk()
	n.watch.sight()
	w.progress(60, w.gateways...)
	return w.finish(w.everywhere()...)
}}
