package drill

import (
	"slices"
	"sync"
)

// Watch is what was seen of a server's tenures: the replication id while it says that it is a primary. Safe for concurrent use.
type Watch struct {
	// Name is the server's, for people.
	Name string

	mu   sync.Mutex
	seen []sighting // in the order of answered
}

// sighting says that at some moment between asked and answered the server had this tenure; "" while it was a replica.
type sighting struct {
	asked, answered int64
	tenure          string
}

// Unseen stands for whatever tenure a server had that did not answer.
const Unseen = "?"

// Saw notes what a server answered, or Unseen. The times are in ns of the history's clock.
func (h *Watch) Saw(asked, answered int64, tenure string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, sighting{asked, answered, tenure})
}

// possible returns the tenures that the server may have had at some moment from one time to another: those of the last sighting that
// was over before, of the first that began after, and of all between. A tenure is of one server and never comes back to
// it, so that the same one at both ends was there throughout.
func (h *Watch) possible(from, to int64) []string {
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

// tenures returns the tenures that were seen, in order, and when each was first. What was not seen is none.
func (h *Watch) tenures() (all []Tenure) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.seen {
		known := func(t Tenure) bool { return t.ID == s.tenure }
		if s.tenure != "" && s.tenure != Unseen && !slices.ContainsFunc(all, known) {
			all = append(all, Tenure{s.tenure, h.Name, s.answered})
		}
	}
	return all
}

// Tenure is a primary's time in office.
type Tenure struct {
	ID string
	// Server had it; Since is when that was first seen, in ns of the history's clock.
	Server string
	Since  int64
}
