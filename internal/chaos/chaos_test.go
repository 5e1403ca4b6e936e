package chaos

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cardstile/cardstile/internal/drill"
)

func TestMain(m *testing.M) {
	// Scenarios wait most of the time, so that a few more than there are processors run at once.
	flag.Parse()
	if err := flag.Set("test.parallel", "5"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// scenarios are all.
func scenarios() []Scenario {
	all := []Scenario{sentinels, cluster, failovers(3), wires(2), pauses, clocks, disks}
	for kept := range keeping {
		all = append(all, restarts(kept))
	}
	return all
}

// firstSeed is CHAOS_SEED, with which a failure is tried again, or a new one.
func firstSeed(t *testing.T) uint64 {
	if text := os.Getenv("CHAOS_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return seed
	}
	return uint64(rand.Uint32())
}

// TestChaos runs every scenario once, or again and again for as long as CHAOS says (5m).
func TestChaos(t *testing.T) {
	var length time.Duration
	if text := os.Getenv("CHAOS"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	first := firstSeed(t)
	begun := time.Now()
	for seed := first; seed == first || time.Since(begun) < length; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			try := func(of Subject, s Scenario) {
				t.Run(s.Name, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, of, seed)
					w.long = length > 0
					report(t, seed, s.Run(w))
				})
			}
			for _, s := range scenarios() {
				try(Real, s)
			}
			try(Quorum, quorums(2))
		})
		if t.Failed() {
			break
		}
	}
}

// TestMutants shows the judge stores that are wrong. Each is found out for what it does, in one of a few tries: a scenario
// says what happens, not which calls it happens to.
func TestMutants(t *testing.T) {
	first := firstSeed(t)
	for _, m := range Mutants() {
		t.Run(m.Name+" in "+m.In.Name, func(t *testing.T) {
			t.Parallel()
			const tries = 5
			for try := range uint64(tries) {
				var found []drill.Violation
				t.Run(fmt.Sprint("try ", try), func(t *testing.T) { found = m.In.Run(newWorld(t, m.Subject, first+try)) })
				n := 0
				by := map[*drill.Token]string{}
				for _, v := range found {
					by[v.Token] += string(v.Crime)
					if v.Crime == m.Crime {
						n++
					}
				}
				for k, crimes := range by { // the two ways of judging agree
					if strings.Contains(crimes, string(twice)) && !strings.Contains(crimes, string(illegal)) {
						t.Errorf("it was given to two, and the model finds nothing wrong: %v", k)
					}
				}
				t.Logf("seed %d: %d tokens %s, %d violations in all", first+try, n, m.Crime, len(found))
				if n > 0 {
					return
				}
			}
			t.Errorf("seeds from %d: the judge saw nothing wrong in a store %s", first, m.Name)
		})
	}
}
