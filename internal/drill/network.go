package drill

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Network is all wires between the processes of a world: listeners that pass on what they get, as the rules of that wire say.
// A wire is named by its two ends, first the one that dials. Who dials is known by the listener where it has one
// dialler only, else by the address: each server binds its outgoing connections to one of its own.
type Network struct {
	mu      sync.Mutex
	rand    *rand.Rand
	rules   map[ends]Rule
	changed chan struct{} // closed and made anew when a rule changes
	wires   map[*wire]struct{}
	fronts  []*Front
	names   map[string]string // of addresses
	broken  int
	ended   bool

	running sync.WaitGroup
}

type ends struct{ from, to string }

// Rule is what becomes of what goes over a wire. The zero Rule passes everything on.
type Rule struct {
	// Cut holds everything, as a network does that drops packets: nobody is told.
	Cut bool
	// Delay holds each piece for so long, either way; Lag only what comes back.
	Delay, Lag time.Duration
	// Breaks resets the connection in the middle of every nth reply, at random.
	Breaks int
}

// Front is where a process is reached: what it listens for goes to Backend, host:port or the path of a unix socket, and
// nowhere while that is nil.
type Front struct {
	Address string
	Backend atomic.Pointer[string]

	from, to string
	listener net.Listener
}

type wire struct {
	ends
	client, server stream
}

// stream is a connection over TCP or a unix socket.
type stream interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
}

// NewNetwork returns one without wires. Which replies break follows from the seed.
func NewNetwork(seed uint64) *Network {
	return &Network{
		rand: rand.New(rand.NewPCG(seed, 1)), rules: make(map[ends]Rule), changed: make(chan struct{}),
		wires: make(map[*wire]struct{}), names: make(map[string]string),
	}
}

// Source gives a process an address of its own to dial from.
func (n *Network) Source(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	address := fmt.Sprintf("127.0.77.%d", len(n.names)+1)
	n.names[address] = name
	return address
}

// Outside is the name of whoever has no address of its own.
const Outside = "outside"

// Listen opens a way to a process, on loopback. With from it is that dialler's only.
func (n *Network) Listen(from, to string) (*Front, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &Front{from: from, to: to, Address: l.Addr().String(), listener: l}
	n.mu.Lock()
	n.fronts = append(n.fronts, f)
	n.mu.Unlock()
	n.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.running.Go(func() { n.serve(f, c.(stream)) })
		}
	})
	return f, nil
}

// Set gives the wires between two ends, whoever dials, a rule.
func (n *Network) Set(a, b string, r Rule) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rules[ends{a, b}], n.rules[ends{b, a}] = r, r
	close(n.changed)
	n.changed = make(chan struct{})
}

// Reset breaks all connections between two ends, with what is on its way.
func (n *Network) Reset(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for w := range n.wires {
		if w.ends == (ends{a, b}) || w.ends == (ends{b, a}) {
			w.reset()
		}
	}
}

// Broken is how many connections broke in the middle of a reply.
func (n *Network) Broken() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.broken
}

// Close ends everything.
func (n *Network) Close() {
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
	for _, c := range []stream{w.client, w.server} {
		if c != nil {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			c.Close()
		}
	}
}

func (n *Network) serve(f *Front, client stream) {
	w := &wire{ends{f.from, f.to}, client, nil}
	n.mu.Lock()
	if f.from == "" {
		host, _, _ := net.SplitHostPort(client.RemoteAddr().String())
		if w.from = n.names[host]; w.from == "" {
			w.from = Outside
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
	backend := f.Backend.Load()
	if ended || backend == nil || !n.pass(w.ends, time.Time{}) {
		return
	}
	network := "tcp"
	if strings.HasPrefix(*backend, "/") {
		network = "unix"
	}
	server, err := net.DialTimeout(network, *backend, 10*time.Second)
	if err != nil {
		return
	}
	n.mu.Lock()
	w.server = server.(stream)
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
func (n *Network) pump(w *wire, from, to stream, reply bool) {
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
				due := time.Now().Add(r.Delay)
				if reply {
					due = due.Add(r.Lag)
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
		if at, yes := n.breaksAt(w.ends, len(p.data), reply); yes {
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

func (n *Network) rule(e ends) Rule {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rules[e]
}

// pass returns when a piece may go on: true, or false when the network has ended.
func (n *Network) pass(e ends, due time.Time) bool {
	for {
		n.mu.Lock()
		r, changed, ended := n.rules[e], n.changed, n.ended
		n.mu.Unlock()
		wait := time.Until(due)
		switch {
		case ended:
			return false
		case r.Cut:
			<-changed
		case wait > 0:
			time.Sleep(min(wait, 50*time.Millisecond))
		default:
			return true
		}
	}
}

// breaksAt is whether this piece breaks, which only replies do, and where.
func (n *Network) breaksAt(e ends, length int, reply bool) (at int, yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.rules[e].Breaks
	if !reply || b == 0 || n.rand.IntN(b) != 0 {
		return 0, false
	}
	n.broken++
	return n.rand.IntN(length), true
}
