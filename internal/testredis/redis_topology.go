package testredis

import (
	"net"
	"strings"
	"time"
)

// Patience bounds every wait for servers to agree. It is far longer than they need: only what never happens meets it.
const Patience = 2 * time.Minute

// Eventually returns when happened says so, and fails the test with what it waited for when that never comes.
func (s *Server) Eventually(what string, happened func() bool) {
	s.t.Helper()
	for end := time.Now().Add(Patience); !happened(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("redis: it never happened: %s\n%s", what, s.Log())
		}
	}
}

// Field returns one line of INFO, "" where it is not there or the server does not answer.
func (s *Server) Field(section, name string) string {
	reply, err := s.Try("INFO", section)
	text, _ := reply.(string)
	if err != nil {
		return ""
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return value
		}
	}
	return ""
}

// Follow makes the server a replica of the primary at this address. It does not wait: see Synced.
func (s *Server) Follow(address string) {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(address)
	s.Do("REPLICAOF", host, port)
}

// Synced returns when the replica has its primary's data and hears of every change.
func (s *Server) Synced() {
	s.t.Helper()
	s.Eventually("the replica follows", func() bool { return s.Field("replication", "master_link_status") == "up" })
}

// Promote makes the replica a primary.
func (s *Server) Promote() {
	s.t.Helper()
	s.Do("REPLICAOF", "NO", "ONE")
}

// Monitor makes a Sentinel watch the primary at this address: two Sentinels that miss it for down fail it over.
func (s *Server) Monitor(name, address string, down time.Duration) {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(address)
	s.Do("SENTINEL", "MONITOR", name, host, port, 2)
	s.Do("SENTINEL", "SET", name, "down-after-milliseconds", down.Milliseconds(), "failover-timeout", 4*down.Milliseconds())
}

// slots is how many Redis Cluster has.
const slots = 16384

// Join makes one Redis Cluster of these nodes: as many primaries as said, which come first, each with a part of the slots, and the
// others their replicas in turn. Nodes are known to each other by what they announce, or else by where they listen. It
// returns when all of them agree.
func Join(primaries int, nodes ...*Server) {
	first := nodes[0]
	first.t.Helper()
	for i, n := range nodes {
		if i < primaries {
			n.Do("CLUSTER", "ADDSLOTSRANGE", i*slots/primaries, (i+1)*slots/primaries-1)
		}
		n.Do("CLUSTER", "SET-CONFIG-EPOCH", i+1)
	}
	for _, n := range nodes[1:] {
		host, port, bus := n.announced()
		first.Do("CLUSTER", "MEET", host, port, bus)
	}
	for i, n := range nodes {
		n.Eventually("the node knows all others", func() bool {
			known, _ := n.Try("CLUSTER", "NODES")
			text, _ := known.(string)
			return strings.Count(text, "\n") == len(nodes) && !strings.Contains(text, "handshake")
		})
		if i >= primaries {
			n.Do("CLUSTER", "REPLICATE", nodes[i%primaries].ID())
		}
	}
	for i, n := range nodes {
		n.Eventually("the cluster is whole", func() bool {
			state, _ := n.Try("CLUSTER", "INFO")
			text, _ := state.(string)
			return strings.Contains(text, "cluster_state:ok")
		})
		if i >= primaries {
			n.Synced()
		}
	}
}

// ID is the name of a node of Redis Cluster.
func (s *Server) ID() string {
	s.t.Helper()
	id, _ := s.Do("CLUSTER", "MYID").(string)
	return id
}

// announced is how other nodes of the cluster reach it.
func (s *Server) announced() (host, port, bus string) {
	host, port, _ = net.SplitHostPort(s.Addr)
	_, bus, _ = net.SplitHostPort(s.Bus)
	for i, arg := range s.o.Args {
		switch arg {
		case "--cluster-announce-ip":
			host = s.o.Args[i+1]
		case "--cluster-announce-port":
			port = s.o.Args[i+1]
		case "--cluster-announce-bus-port":
			bus = s.o.Args[i+1]
		}
	}
	return host, port, bus
}

// Move moves a slot of Redis Cluster from one primary to another, key by key, as redis-cli does, and tells the others.
// between is called when the slot is half moved.
func Move(slot int, from, to *Server, others []*Server, between func()) {
	from.t.Helper()
	host, port, _ := net.SplitHostPort(to.Addr)
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", from.ID())
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", to.ID())
	for first := true; ; first = false {
		keys, _ := from.Do("CLUSTER", "GETKEYSINSLOT", slot, 1).([]any)
		if len(keys) == 0 {
			break
		}
		from.Do("MIGRATE", host, port, keys[0], 0, Patience.Milliseconds())
		if first {
			between()
		}
	}
	for _, s := range append([]*Server{to, from}, others...) {
		s.Do("CLUSTER", "SETSLOT", slot, "NODE", to.ID())
	}
}
