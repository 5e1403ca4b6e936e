// Package chaos breaks the servers under policy/store while gateways use it, and checks what they were told. It answers
// one question: is a token ever given to two?
//
// A scenario starts real servers on loopback, with a proxy on every wire between them, and gateways' workers that mint and
// redeem, each call recorded with when it began and ended. Then it does harm: kills, pauses, partitions, failovers, lost
// replies, clocks that jump, disks that are full. At the end every token is asked for once more, everywhere, and what was
// answered is judged: each token's history has to be one that a single, sequential token could have (model.go), and what was
// minted under a tenure that lasted has to be there (judge.go).
//
// The judge is judged as well: stores without the fence, without attempt ids, or with a plain GETDEL have to be found out.
//
// What a scenario does follows from its seed, and when it does it from what the workers got done; which call meets which
// fault follows from the machine, so a seed makes a failure likely again, not certain. Tests only, and Linux only: processes are
// told apart by their addresses in 127.0.0.0/8.
package chaos

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// World is one run of one scenario.
type World struct {
	t       testing.TB
	subject Subject
	start   time.Time
	rand    *rand.Rand // of the scenario's own goroutine
	seed    uint64

	net      *network
	nodes    []*node
	gateways []*gateway
	history  *history

	// again lets workers mint what was minted already: only where no tenure ends, since what is lost may be minted anew, and
	// only what does not expire meanwhile.
	again bool
	// short is the share of tokens, in percent, with a life of less than a second.
	short int
	// pad is how many bytes a value has beyond the few that tell it from others.
	pad int
	// long lets scenarios take their time.
	long bool
	// skewed is when a server's clock was first turned, in ns since start; never, until then.
	skewed atomic.Int64

	working sync.WaitGroup
	end     context.CancelFunc
}

// never is a time after all others.
const never = int64(1) << 62

// newWorld returns a world with two gateways, and no servers yet. It ends with the test.
func newWorld(t testing.TB, s Subject, seed uint64) *World {
	w := &World{t: t, subject: s, start: time.Now(), seed: seed, rand: rand.New(rand.NewPCG(seed, 0)), short: 10}
	w.skewed.Store(never)
	w.net = newNetwork(seed)
	w.history = &history{}
	for i, name := range []string{"a", "b"} {
		w.gateways = append(w.gateways, &gateway{name: name, number: i})
	}
	t.Cleanup(func() {
		w.stop()
		w.net.close()
		for _, n := range w.nodes {
			n.watch.stop()
		}
	})
	return w
}

// now is in ns since the start.
func (w *World) now() int64 { return int64(time.Since(w.start)) }

// say tells what is done, so that a failure comes with its story.
func (w *World) say(format string, args ...any) {
	w.t.Helper()
	w.t.Logf("%6.3f s: "+format, append([]any{time.Since(w.start).Seconds()}, args...)...)
}

// gateway is one instance of what uses the store.
type gateway struct {
	name   string
	number int
	route  atomic.Pointer[route]
	// answered counts the calls that were answered with a yes.
	answered atomic.Int64
}

// route is the way by which a gateway comes to servers at the moment, and the nodes that may be at its end.
type route struct {
	tokens store.Tokens
	reach  func(*token) []*node
}

// node is a server with what stands around it.
type node struct {
	*testredis.Server
	name  string
	front *front // where it is announced
	watch *watch
}

// address is the host and port at which others come to the node.
func (n *node) address() string { return n.front.address }

// config is a gateway's for servers at these addresses.
func config(addresses ...string) store.RedisConfig {
	return store.RedisConfig{Addresses: addresses, Timeout: timeout, DialTimeout: timeout, PoolSize: 16}
}

// add starts a server with options, on its own address and behind a front that others know it by.
func (w *World) add(name string, o testredis.Options) *node {
	w.t.Helper()
	n := &node{name: name, front: w.net.listen(w.t, "", name)}
	source := w.net.source(name)
	host, port, _ := net.SplitHostPort(n.address())
	o.Args = append(slices.Clone(o.Args), "--bind-source-addr", source)
	switch {
	case o.Sentinel:
		o.Args = append(o.Args, "--sentinel", "announce-ip", host, "--sentinel", "announce-port", port)
	case o.Cluster:
		bus := w.net.listen(w.t, "", name)
		_, busPort, _ := net.SplitHostPort(bus.address)
		o.Args = append(o.Args, "--cluster-announce-ip", host, "--cluster-announce-port", port, "--cluster-announce-bus-port", busPort)
		n.Server = testredis.StartWith(w.t, o)
		bus.backend.Store(&n.Server.Bus)
	default:
		o.Args = append(o.Args, "--replica-announce-ip", host, "--replica-announce-port", port)
	}
	if n.Server == nil {
		n.Server = testredis.StartWith(w.t, o)
	}
	n.front.backend.Store(&n.Server.Addr)
	n.watch = w.look(n, o.Sentinel)
	w.nodes = append(w.nodes, n)
	return n
}

// direct returns a gateway's route to one node, over a wire of its own that has the gateway's name.
func (w *World) direct(g *gateway, n *node) *route {
	w.t.Helper()
	f := w.net.listen(w.t, g.name, n.name)
	f.backend.Store(&n.Server.Addr)
	only := []*node{n}
	return &route{w.subject.New(w.t, config(f.address)), func(*token) []*node { return only }}
}

// progress returns when each of these gateways was given n more good answers.
func (w *World) progress(n int64, gateways ...*gateway) {
	w.t.Helper()
	for _, g := range gateways {
		want := g.answered.Load() + n
		w.eventually("gateway "+g.name+" gets on", func() bool { return g.answered.Load() >= want })
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
