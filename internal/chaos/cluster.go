package chaos

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cardstile/cardstile/internal/drill"
	"github.com/cardstile/cardstile/internal/testredis"
)

// shards is how many primaries the cluster has, each with a replica.
const shards = 3

// clustered is a Redis Cluster and what is known about where tokens are.
type clustered struct {
	w     *World
	nodes []*node // the primaries at first, then their replicas

	mu    sync.Mutex
	moved map[int]int // slots that were moved, or are being: to which shard
}

// cluster has slots moved, primaries cut off from the rest, killed, and told to hand over, all while gateways are at work.
var cluster = Scenario{"cluster", func(w *World) []drill.Violation {
	c := newCluster(w)
	w.load.Start()
	w.progress(80, w.gateways...)

	c.move(12, 0, 1)
	w.progress(40, w.gateways...)

	w.say("a primary is cut off from the other nodes, and gateways reach it still")
	old, next := c.shard(2)
	kept := w.load.Keep(w.gateways[0], w.rand)
	time.Sleep(timeout) // most likely the replicas have it by then; the judge does not rely on it
	c.part(old, drill.Rule{Cut: true})
	w.load.Spend(w.gateways[0], kept)
	next.Eventually("its replica takes over", isPrimary(next))
	w.progress(60, w.gateways...)
	c.part(old, drill.Rule{})
	old.Eventually("it follows", func() bool { return !isPrimary(old)() })
	old.Synced()

	w.say("a primary is killed")
	old, next = c.shard(1)
	old.Kill()
	next.Eventually("its replica takes over", isPrimary(next))
	w.progress(60, w.gateways...)
	old.Restart()
	old.Eventually("it follows", func() bool { return !isPrimary(old)() })
	old.Synced()

	w.say("a primary hands over")
	old, next = c.shard(0)
	next.Eventually("it is told to", func() bool { _, err := next.Try("CLUSTER", "FAILOVER"); return err == nil })
	next.Eventually("it takes over", isPrimary(next))
	w.progress(60, w.gateways...)
	for _, n := range c.nodes {
		n.Eventually("the cluster is whole", func() bool {
			info, _ := n.Try("CLUSTER", "INFO")
			text, _ := info.(string)
			return len(text) > 16 && text[:16] == "cluster_state:ok"
		})
	}
	w.progress(60, w.gateways...)
	return w.finish(w.everywhere()...)
}}

func newCluster(w *World) *clustered {
	w.t.Helper()
	c := &clustered{w: w, moved: map[int]int{}}
	var servers []*testredis.Server
	var addresses []string
	for i := range 2 * shards {
		o := with("--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no", "--cluster-allow-replica-migration", "no")
		o.Cluster = true
		n := w.add(fmt.Sprintf("node %d", i), o)
		c.nodes = append(c.nodes, n)
		servers = append(servers, n.Server)
		addresses = append(addresses, n.address())
	}
	testredis.Join(shards, servers...)
	for _, g := range w.gateways {
		g.Route.Store(&drill.Route{Tokens: w.subject.New(w.t, config(addresses...)), Reach: c.reach})
	}
	return c
}

func isPrimary(n *node) func() bool {
	return func() bool { return n.Field("replication", "role") == "master" }
}

// shard returns a shard's primary and replica.
func (c *clustered) shard(i int) (primary, replica *node) {
	primary, replica = c.nodes[i], c.nodes[i+shards]
	if !isPrimary(primary)() {
		primary, replica = replica, primary
	}
	return primary, replica
}

// part gives the wires between a node and all other nodes a rule.
func (c *clustered) part(n *node, r drill.Rule) {
	for _, other := range c.nodes {
		if other != n {
			c.w.net.Set(n.name, other.name, r)
		}
	}
}

// reach are the nodes of the token's shard, and of the one that its slot was moved to.
func (c *clustered) reach(k *drill.Token) []*drill.Watch {
	s := drill.Slot(k.Digest)
	i := homeOf(s)
	all := []*node{c.nodes[i], c.nodes[i+shards]}
	c.mu.Lock()
	defer c.mu.Unlock()
	if to, ok := c.moved[s]; ok {
		all = append(all, c.nodes[to], c.nodes[to+shards])
	}
	return watches(all...)
}

// homeOf is the shard that a slot belonged to at first: see testredis.Join.
func homeOf(slot int) int {
	for i := range shards {
		if slot < (i+1)*drill.Slots/shards {
			return i
		}
	}
	panic("chaos: internal error: a slot beyond the last")
}

// move moves slots that have tokens from one shard to another.
func (c *clustered) move(n, from, to int) {
	var chosen []int
	all := c.w.load.History.All()
	for _, k := range slices.Backward(all) { // those that are asked for the most
		if s := drill.Slot(k.Digest); len(chosen) < n && homeOf(s) == from && !slices.Contains(chosen, s) {
			chosen = append(chosen, s)
		}
	}
	c.w.say("slots %v are moved from %s to %s", chosen, c.nodes[from].name, c.nodes[to].name)
	source, _ := c.shard(from)
	target, _ := c.shard(to)
	rest, _ := c.shard(shards - from - to)
	c.mu.Lock()
	for _, s := range chosen {
		c.moved[s] = to
	}
	c.mu.Unlock()
	time.Sleep(5 * timeout) // calls that began before now, and know of one shard only, have ended
	for _, s := range chosen {
		testredis.Move(s, source.Server, target.Server, []*testredis.Server{rest.Server}, func() { c.w.wait(0, 20*time.Millisecond) })
	}
}
