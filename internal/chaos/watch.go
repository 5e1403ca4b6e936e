package chaos

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// watch is what was seen of a server's tenures: the replication id while it says that it is a primary. It sees through
// the server's own socket, which no fault touches.
type watch struct {
	now  func() int64
	node *node

	mu   sync.Mutex
	seen []sighting // in the order of answered

	quit, done chan struct{}
	once       sync.Once
}

// sighting says that at some moment between asked and answered the server had this tenure; "" while it was a replica.
type sighting struct {
	asked, answered int64
	tenure          string
}

// look begins to watch a node. A Sentinel has no tenure.
func (w *World) look(n *node, sentinel bool) *watch {
	h := &watch{now: w.now, node: n, quit: make(chan struct{}), done: make(chan struct{})}
	if sentinel {
		close(h.done)
		return h
	}
	h.sight()
	go func() {
		defer close(h.done)
		for {
			select {
			case <-h.quit:
				return
			case <-time.After(15 * time.Millisecond):
				h.sight()
			}
		}
	}()
	return h
}

// sight looks once. A server that does not answer is not seen.
func (h *watch) sight() {
	asked := h.now()
	reply, err := h.node.Try("INFO", "replication")
	text, _ := reply.(string)
	if err != nil || text == "" {
		return
	}
	tenure := ""
	if strings.Contains(text, "role:master") {
		_, rest, _ := strings.Cut(text, "master_replid:")
		tenure, _, _ = strings.Cut(rest, "\r\n")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, sighting{asked, h.now(), tenure})
}

func (h *watch) stop() {
	h.once.Do(func() { close(h.quit) })
	<-h.done
}

// possible returns the tenures that the server may have had at some moment from one time to another: those of the last sighting that
// was over before, of the first that began after, and of all between. A tenure is of one server and never comes back to
// it, so that the same one at both ends was there throughout.
func (h *watch) possible(from, to int64) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	first, _ := slices.BinarySearchFunc(h.seen, from, func(s sighting, t int64) int {
		if s.answered <= t {
			return -1
		}
		return 1
	})
	var all []string
	for i := max(0, first-1); i < len(h.seen); i++ {
		if s := h.seen[i]; s.tenure != "" && !slices.Contains(all, s.tenure) {
			all = append(all, s.tenure)
		}
		if h.seen[i].asked >= to {
			break
		}
	}
	return all
}
