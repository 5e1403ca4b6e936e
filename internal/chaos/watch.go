package chaos

import (
	"strings"
	"sync"
	"time"

	"github.com/cardstile/cardstile/internal/drill"
)

// watch is what was seen of a server's tenures: the replication id while it says that it is a primary. It sees through
// the server's own socket, which no fault touches.
type watch struct {
	drill.Watch
	now  func() int64
	node *node

	quit, done chan struct{}
	once       sync.Once
}

// look begins to watch a node. A Sentinel has no tenure.
func (w *World) look(n *node, sentinel bool) *watch {
	h := &watch{Watch: drill.Watch{Name: n.name}, now: w.load.History.Now, node: n, quit: make(chan struct{}), done: make(chan struct{})}
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
	h.Saw(asked, h.now(), tenure)
}

func (h *watch) stop() {
	h.once.Do(func() { close(h.quit) })
	<-h.done
}
