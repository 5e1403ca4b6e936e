package chaos

import (
	"slices"
	"strings"
	"time"

	"github.com/cardstile/cardstile/internal/drill"
	"github.com/cardstile/cardstile/internal/testredis"
)

// masterName is what Sentinels call the primary.
const masterName = "chaos"

// sentinels has three servers under three Sentinels. First the primary is cut off, together with a gateway and a Sentinel: both
// sides go on, each with a primary of its own, until the others' wins. Then the primary is killed.
var sentinels = Scenario{"sentinels", func(w *World) []drill.Violation {
	a, b := w.gateways[0], w.gateways[1]
	data := []*node{w.add("one", with()), w.add("two", with()), w.add("three", with())}
	for _, n := range data[1:] {
		n.Follow(data[0].address())
		n.Synced()
	}
	var guards []*node
	for _, name := range []string{"first", "second", "third"} {
		g := w.add(name, testredis.Options{Sentinel: true})
		g.Monitor(masterName, data[0].address(), 500*time.Millisecond)
		guards = append(guards, g)
	}
	for _, g := range guards {
		g.Eventually("the Sentinel knows all others", func() bool {
			const all = "slaves=2,sentinels=3"
			status := g.Field("sentinel", "master0")
			return len(status) > len(all) && status[len(status)-len(all):] == all
		})
	}
	primary := func() *node {
		reply, _ := guards[1].Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName).([]any)
		i := slices.IndexFunc(data, func(n *node) bool { return len(reply) == 2 && n.address() == reply[0].(string)+":"+reply[1].(string) })
		if i < 0 {
			w.t.Fatalf("the Sentinel's primary is %v", reply)
		}
		return data[i]
	}
	through := func() *drill.Route { // the Sentinels' primary, whichever that is
		c := config(guards[1].address(), guards[2].address())
		c.MasterName = masterName
		return &drill.Route{Tokens: w.subject.New(w.t, c), Reach: func(*drill.Token) []*drill.Watch { return watches(data...) }}
	}
	follows := func(n *node) {
		n.Eventually("the old primary follows the new one", func() bool { return n.Field("replication", "role") == "slave" })
		n.Synced()
	}
	a.Route.Store(w.direct(a, data[0]))
	b.Route.Store(through())
	w.load.Start()
	w.progress(60, a, b)

	w.say("the primary, a Sentinel and gateway a are cut off")
	here, there := []string{"one", "first", a.Name}, []string{"two", "three", "second", "third", drill.Outside}
	partition := func(r drill.Rule) {
		for _, x := range here {
			for _, y := range there {
				w.net.Set(x, y, r)
			}
		}
	}
	kept := w.load.Keep(a, w.rand)
	time.Sleep(timeout) // most likely the replicas have it by then; the judge does not rely on it
	partition(drill.Rule{Cut: true})
	w.load.Spend(a, kept)
	guards[1].Eventually("the Sentinels fail over", func() bool { return primary() != data[0] })
	w.progress(60, a, b)
	w.say("%s is the primary there; the partition ends", primary().name)
	partition(drill.Rule{})
	if w.long { // Sentinels take eight seconds to be sure
		follows(data[0])
	}
	a.Route.Store(through())
	w.progress(60, a, b)

	old := primary()
	w.say("%s, the primary, is killed", old.name)
	old.Kill()
	// A Sentinel whose machine stood still does nothing for half a minute (TILT), and takes no replica then, because each
	// has been without its primary for too long. An operator starts the primary again.
	stuck := time.Now().Add(time.Minute)
	guards[1].Eventually("the Sentinels fail over", func() bool {
		return primary() != old || time.Now().After(stuck) && slices.ContainsFunc(guards, func(g *node) bool { return strings.Contains(g.Log(), "+tilt") })
	})
	if primary() == old {
		w.say("the Sentinels were in TILT, and do not fail over: %s starts again", old.name)
		old.Restart()
		w.progress(60, a, b)
		return w.finish(a.Route.Load(), w.direct(b, old))
	}
	w.progress(60, a, b)
	old.Restart() // as a primary that nobody asked for, until the Sentinels notice
	w.progress(60, a, b)
	if w.long {
		follows(old)
		w.progress(60, a, b)
	}
	return w.finish(a.Route.Load(), w.direct(b, primary()))
}}
