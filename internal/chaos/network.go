package chaos

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// network is all wires between the processes of a world: listeners that pass on what they get, as the rules of that wire say.
// A wire is named by its two ends, first the one that dials. Who dials is known by the listener where it has one
// dialler only, else by the address: each server binds its outgoing connections to one of its own.
type network struct {
	mu      sync.Mutex
	rand    *rand.Rand
	rules   map[ends]rule
	changed chan struct{} // closed and made anew when a rule changes
	wires   map[*wire]struct{}
	fronts  []*front
	names   map[string]string // of addresses
	ended   bool

	running sync.WaitGroup
}

type ends struct{ from, to string }

// rule is what becomes of what goes over a wire. The zero rule passes everything on.
type rule struct {
	// cut holds everything, as a network does that drops packets: nobody is told.
	cut bool
	// delay holds each piece for so long, either way; lag only what comes back.
	delay, lag time.Duration
	// breaks resets the connection in the middle of every nth reply, at random.
	breaks int
}

type front struct {
	from, to string
	address  string
	backend  atomic.Pointer[string]
	listener net.Listener
}

type wire struct {
	ends
	client, server *net.TCPConn
}

func newNetwork(seed uint64) *network {
	return &network{
		rand: rand.New(rand.NewPCG(seed, 1)), rules: make(map[ends]rule), changed: make(chan struct{}),
		wires: make(map[*wire]struct{}), names: make(map[string]string),
	}
}

// source gives a process an address of its own to dial from.
func (n *network) source(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	address := fmt.Sprintf("127.0.77.%d", len(n.names)+1)
	n.names[address] = name
	return address
}

// outside is the name of whoever has no address of its own.
const outside = "outside"

// listen opens a way to a process. With from it is that dialler's only.
func (n *network) listen(t testing.TB, from, to string) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{from: from, to: to, address: l.Addr().String(), listener: l}
	n.mu.Lock()
	n.fronts = append(n.fronts, f)
	n.mu.Unlock()
	n.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.running.Go(func() { n.serve(f, c.(*net.TCPConn)) })
		}
	})
	return f
}

// set gives the wires between two ends, whoever dials, a rule.
func (n *network) set(a, b string, r rule) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rules[ends{a, b}], n.rules[ends{b, a}] = r, r
	close(n.changed)
	n.changed = make(chan struct{})
}

// reset breaks all connections between two ends, with what is on its way.
func (n *network) reset(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for w := range n.wires {
		if w.ends == (ends{a, b}) || w.ends == (ends{b, a}) {
			w.reset()
		}
	}
}

// close ends everything.
func (n *network) close() {
	n.mu.Lock()
	if !n.ended {
		n.ended = true
		close(n.changed)
	}
	for _, f := range n.fronts {
		f.listener.Close()
	}
	for w := range n.wires {
		w.reset()
	}
	n.mu.Unlock()
	n.running.Wait()
}

func (w *wire) reset() {
	for _, c := range []*net.TCPConn{w.client, w.server} {
		if c != nil {
			_ = c.SetLinger(0)
			c.Close()
		}
	}
}

func (n *network) serve(f *front, client *net.TCPConn) {
	w := &wire{ends{f.from, f.to}, client, nil}
	n.mu.Lock()
	if f.from == "" {
		host, _, _ := net.SplitHostPort(client.RemoteAddr().String())
		if w.from = n.names[host]; w.from == "" {
			w.from = outside
		}
	}
	n.wires[w] = struct{}{}
	ended := n.ended
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		w.reset()
		delete(n.wires, w)
	}()
	backend := f.backend.Load()
	if ended || backend == nil || !n.pass(w.ends, time.Time{}) {
		return
	}
	server, err := net.DialTimeout("tcp", *backend, 10*time.Second)
	if err != nil {
		return
	}
	n.mu.Lock()
	w.server = server.(*net.TCPConn)
	if n.ended {
		w.reset()
	}
	n.mu.Unlock()

	var pumps sync.WaitGroup
	pumps.Go(func() { n.pump(w, w.client, w.server, false) })
	pumps.Go(func() { n.pump(w, w.server, w.client, true) })
	pumps.Wait()
}

// piece is what was read at once, and when it may go on.
type piece struct {
	data []byte
	due  time.Time
}

// pump carries what comes from one side to the other. What a side sent before it closed still arrives, when the rules let it:
// a command that nobody waits for any more is carried out all the same.
func (n *network) pump(w *wire, from, to *net.TCPConn, reply bool) {
	const most = 256 // pieces on their way
	pieces := make(chan piece, most)
	gone := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(pieces)
		buffer := make([]byte, 16<<10)
		for {
			k, err := from.Read(buffer)
			if k > 0 {
				r := n.rule(w.ends)
				due := time.Now().Add(r.delay)
				if reply {
					due = due.Add(r.lag)
				}
				select {
				case pieces <- piece{append([]byte(nil), buffer[:k]...), due}:
				case <-gone:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	defer reader.Wait()
	defer close(gone)
	for p := range pieces {
		if !n.pass(w.ends, p.due) {
			w.reset()
			return
		}
		if at, yes := n.breaksAt(w.ends, len(p.data)); reply && yes {
			_, _ = to.Write(p.data[:at])
			w.reset()
			return
		}
		if _, err := to.Write(p.data); err != nil {
			_ = from.CloseRead()
			return
		}
	}
	_ = to.CloseWrite()
}

func (n *network) rule(e ends) rule {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rules[e]
}

// pass returns when a piece may go on: true, or false when the network has ended.
func (n *network) pass(e ends, due time.Time) bool {
	for {
		n.mu.Lock()
		r, changed, ended := n.rules[e], n.changed, n.ended
		n.mu.Unlock()
		wait := time.Until(due)
		switch {
		case ended:
			return false
		case r.cut:
			<-changed
		case wait > 0:
			time.Sleep(min(wait, 50*time.Millisecond))
		default:
			return true
		}
	}
}

// breaksAt is whether this reply breaks, and where.
func (n *network) breaksAt(e ends, length int) (at int, yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.rules[e].breaks
	if b == 0 || n.rand.IntN(b) != 0 {
		return 0, false
	}
	return n.rand.IntN(length), true
}
