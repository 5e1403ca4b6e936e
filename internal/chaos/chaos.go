// Package chaos breaks the servers under policy/store while gateways use it, and checks what they were told. It answers
// one question: is a token ever given to two?
//
// A scenario starts real servers on loopback, with a proxy on every wire between them, and gateways' workers that mint and
// redeem, each call recorded with when it began and ended. Then it does harm: kills, pauses, partitions, failovers, lost
// replies, clocks that jump, disks that are full. At the end every token is asked for once more, everywhere, and what was
// answered is judged: each token's history has to be one that a single, sequential token could have, and what was
// minted under a tenure that lasted has to be there (internal/drill, which has the workers, the wires and the judge).
//
// The judge is judged as well: stores without the fence, without attempt ids, or with a plain GETDEL have to be found out.
//
// What a scenario does follows from its seed, and when it does it from what the workers got done; which call meets which
// fault follows from the machine, so a seed makes a failure likely again, not certain. Tests only, and Linux only: processes are
// told apart by their addresses in 127.0.0.0/8.
package chaos

import (
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/internal/drill"
	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

// Subject is what is tried: a way to tokens.
type Subject struct {
	Name string
	// New returns tokens on servers. It has them closed when the test ends.
	New func(t testing.TB, c store.RedisConfig) store.Tokens
}

// Real is the store itself.
var Real = Subject{"the store", func(t testing.TB, c store.RedisConfig) store.Tokens {
	r, err := store.NewRedis(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}}

// timeout is how long a gateway waits here: short, so that many calls end with nothing known.
const timeout = 250 * time.Millisecond

// workers is how many each gateway has.
const workers = 4

// World is one run of one scenario.
type World struct {
	t       testing.TB
	subject Subject
	start   time.Time
	rand    *rand.Rand // of the scenario's own goroutine
	seed    uint64

	net      *drill.Network
	nodes    []*node
	gateways []*drill.Gateway
	load     *drill.Load

	// long lets scenarios take their time.
	long bool
	// quorum: replicas acknowledge, in place of the fence.
	quorum bool
	// skewed is when a server's clock was first turned, in ns of the history's clock; 0 until then.
	skewed atomic.Int64
}

// newWorld returns a world with two gateways, and no servers yet. It ends with the test.
func newWorld(t testing.TB, s Subject, seed uint64) *World {
	w := &World{t: t, subject: s, start: time.Now(), seed: seed, rand: rand.New(rand.NewPCG(seed, 0))}
	w.net = drill.NewNetwork(seed)
	w.gateways = []*drill.Gateway{{Name: "a"}, {Name: "b"}}
	w.load = &drill.Load{
		History: drill.NewHistory(), Gateways: w.gateways, Seed: seed, Workers: workers,
		Pause: 3 * time.Millisecond, PauseMore: 20 * time.Microsecond, Timeout: 4 * timeout, Short: 10,
	}
	t.Cleanup(func() {
		w.load.Stop()
		w.net.Close()
		for _, n := range w.nodes {
			n.watch.stop()
		}
	})
	return w
}

// say tells what is done, so that a failure comes with its story.
func (w *World) say(format string, args ...any) {
	w.t.Helper()
	w.t.Logf("%6.3f s: "+format, append([]any{time.Since(w.start).Seconds()}, args...)...)
}

// node is a server with what stands around it.
type node struct {
	*testredis.Server
	name  string
	front *drill.Front // where it is announced
	watch *watch
}

// address is the host and port at which others come to the node.
func (n *node) address() string { return n.front.Address }

// watches are what was seen of nodes.
func watches(nodes ...*node) (all []*drill.Watch) {
	for _, n := range nodes {
		all = append(all, &n.watch.Watch)
	}
	return all
}

// config is a gateway's for servers at these addresses.
func config(addresses ...string) store.RedisConfig {
	return store.RedisConfig{Addresses: addresses, Timeout: timeout, DialTimeout: timeout, PoolSize: 16}
}

// add starts a server with options, on its own address and behind a front that others know it by.
func (w *World) add(name string, o testredis.Options) *node {
	w.t.Helper()
	n := &node{name: name, front: w.listen("", name)}
	source := w.net.Source(name)
	host, port, _ := net.SplitHostPort(n.address())
	o.Args = append(slices.Clone(o.Args), "--bind-source-addr", source)
	switch {
	case o.Sentinel:
		o.Args = append(o.Args, "--sentinel", "announce-ip", host, "--sentinel", "announce-port", port)
	case o.Cluster:
		bus := w.listen("", name)
		_, busPort, _ := net.SplitHostPort(bus.Address)
		o.Args = append(o.Args, "--cluster-announce-ip", host, "--cluster-announce-port", port, "--cluster-announce-bus-port", busPort)
		n.Server = testredis.StartWith(w.t, o)
		bus.Backend.Store(&n.Server.Bus)
	default:
		o.Args = append(o.Args, "--replica-announce-ip", host, "--replica-announce-port", port)
	}
	if n.Server == nil {
		n.Server = testredis.StartWith(w.t, o)
	}
	n.front.Backend.Store(&n.Server.Addr)
	n.watch = w.look(n, o.Sentinel)
	w.nodes = append(w.nodes, n)
	return n
}

// listen opens a way to a process.
func (w *World) listen(from, to string) *drill.Front {
	w.t.Helper()
	f, err := w.net.Listen(from, to)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// direct returns a gateway's route to one node, over a wire of its own that has the gateway's name.
func (w *World) direct(g *drill.Gateway, n *node) *drill.Route {
	w.t.Helper()
	f := w.listen(g.Name, n.name)
	f.Backend.Store(&n.Server.Addr)
	only := watches(n)
	return &drill.Route{Tokens: w.subject.New(w.t, config(f.Address)), Reach: func(*drill.Token) []*drill.Watch { return only }}
}

// progress returns when each of these gateways was given n more good answers.
func (w *World) progress(n int64, gateways ...*drill.Gateway) {
	w.t.Helper()
	for _, g := range gateways {
		want := g.Answered.Load() + n
		w.eventually("gateway "+g.Name+" gets on", func() bool { return g.Answered.Load() >= want })
	}
}

func (w *World) eventually(what string, happened func() bool) {
	w.t.Helper()
	for end := time.Now().Add(testredis.Patience); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("seed %d: it never happened: %s", w.seed, what)
		}
	}
}

// wait lets some time pass, drawn from the seed.
func (w *World) wait(least, most time.Duration) {
	time.Sleep(least + time.Duration(w.rand.Int64N(int64(most-least+1))))
}
