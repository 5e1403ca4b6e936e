package chaos

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/internal/drill"
	"github.com/cardstile/cardstile/policy/store"
)

// What mutants are found out for.
const (
	twice   = drill.Twice
	lost    = drill.Lost
	illegal = drill.Illegal
)

type crime = drill.Crime

// longLife is the life of most tokens.
const longLife = drill.LongLife

// id is an attempt as the store takes it.
func id(n uint64) store.Attempt { return drill.Attempt(n) }

// finish ends the workers, asks for everything again by these routes, and fails the test for what could not be decided.
func (w *World) finish(routes ...*drill.Route) []drill.Violation {
	w.t.Helper()
	w.load.Stop()
	w.load.Sweep(context.Background(), 2*workers, routes...)
	for _, n := range w.nodes {
		n.watch.stop()
		n.watch.sight()
	}
	found, undecided := drill.Judge(w.load.History, drill.Circumstances{Skewed: w.skewed.Load(), Quorum: w.quorum})
	// What the history holds, so that a run that tried nothing is seen.
	calls, counts := w.load.History.Counts()
	w.say("%d tokens, %d calls: %v", len(w.load.History.All()), calls, counts)
	if undecided > 0 {
		w.t.Errorf("seed %d: %d tokens could not be decided", w.seed, undecided)
	}
	return found
}

// report fails the test for violations, with the stories of the first few.
func report(t testing.TB, seed uint64, found []drill.Violation) {
	t.Helper()
	if len(found) == 0 {
		return
	}
	var b strings.Builder
	for _, v := range found[:min(len(found), 5)] {
		fmt.Fprintf(&b, "%v\n", v)
	}
	t.Errorf("seed %d: %d violations\n%s", seed, len(found), b.String())
}
