package credential_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// The tests of this file run in synctest bubbles: nothing waits but for what another goroutine does, and no time passes else.

// The names of what the store has of partners a and b.
var a, b = credential.StandingName("a"), credential.StandingName("b")

// shelf is a store of shared values that somebody can write to, or which is down.
type shelf struct {
	mu     sync.Mutex
	values map[string]store.Versioned // guarded by mu
	down   error                      // guarded by mu
	reads  int                        // guarded by mu
	raises int                        // guarded by mu
	lose   int                        // how many raises are acknowledged and lost; guarded by mu
	wait   chan struct{}              // reads wait until it is closed; guarded by mu
}

func newShelf() *shelf { return &shelf{values: map[string]store.Versioned{}} }

func (s *shelf) Shared(ctx context.Context, _ store.Kind) (map[string]store.Versioned, error) {
	s.mu.Lock()
	s.reads++
	wait := s.wait
	s.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, &store.Unavailable{Store: "shelf", Reason: store.ReasonTimeout}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.values), s.down
}

func (s *shelf) Raise(_ context.Context, _ store.Kind, name string, v store.Versioned) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch old, ok := s.values[name]; {
	case s.down != nil:
		return s.down
	case ok && old.Version >= v.Version:
		return store.ErrExists
	}
	s.raises++
	if s.lose > 0 {
		s.lose--
		return nil
	}
	s.values[name] = store.Versioned{Value: bytes.Clone(v.Value), Version: v.Version}
	return nil
}

// with does something to what is there.
func (s *shelf) with(do func(s *shelf)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do(s)
}

// standingSeals are a sealer with a name before its values, as a ring has the tag of its key; other opens what it did.
type standingSeals struct {
	name  string
	own   credential.SealRing
	other *standingSeals
}

func newSeals(t testing.TB, name string, other *standingSeals) *standingSeals {
	return &standingSeals{name, newSealer(t, name), other}
}

func (r *standingSeals) Current(sealed []byte) bool { return bytes.HasPrefix(sealed, []byte(r.name)) }
func (r *standingSeals) Seal(dst, ad, plain []byte) ([]byte, error) {
	return r.own.Seal(append(dst, r.name...), ad, plain)
}
func (r *standingSeals) Open(dst, ad, sealed []byte) ([]byte, error) {
	if rest, ok := bytes.CutPrefix(sealed, []byte(r.name)); ok {
		return r.own.Open(dst, ad, rest)
	}
	if r.other == nil {
		return nil, errors.New("no key")
	}
	return r.other.Open(dst, ad, sealed)
}

func partnersOf(t testing.TB, list ...policy.Partner) []*policy.Partner {
	t.Helper()
	p, err := policy.NewPartners(list)
	if err != nil {
		t.Fatal(err)
	}
	return p.All()
}

var threePartners = []policy.Partner{{ID: "a", Environment: "test"}, {ID: "b", Environment: "test"}, {ID: "c", Environment: "test"}}

// instance is one that reads, and what it was told.
type instance struct {
	*credential.Standings
	stop func()

	mu   sync.Mutex
	told []string // guarded by mu
}

func newStandings(t testing.TB, s store.Shared, seals credential.StandingSeals, list ...policy.Partner) *instance {
	t.Helper()
	i := &instance{}
	say := func(text string) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.told = append(i.told, text)
	}
	var err error
	i.Standings, err = credential.NewStandings(credential.StandingsConfig{
		Store: s,
		Changed: func(id string, from, to credential.Standing) {
			say(fmt.Sprintf("%s %t>%t", id, from.Disabled, to.Disabled))
		},
		Invalid: func(id string) { say(id + " invalid") },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		list = threePartners
	}
	i.Configure(seals, partnersOf(t, list...))
	return i
}

func (i *instance) heard() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return strings.Join(i.told, ", ")
}

// run reads until the test ends, or stop.
func (i *instance) run(t testing.TB) *instance {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { i.Run(ctx); close(ended) }()
	i.stop = func() { cancel(); <-ended }
	t.Cleanup(i.stop)
	return i
}

func (i *instance) at(t testing.TB, id string) credential.Standing {
	t.Helper()
	st, err := i.At(t.Context(), id, credential.StandingFresh)
	if err != nil {
		t.Fatalf("standing of %s: %v", id, err)
	}
	return st
}

// poll is as long as instances take to see what there is, and to settle what that needs.
func poll() { time.Sleep(600 * time.Millisecond); synctest.Wait() }

func changed(t testing.TB) func(from, to credential.Standing, err error) credential.Standing {
	return func(_, to credential.Standing, err error) credential.Standing {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
}

// TestStandingReachesEveryInstance: within a second, in the order in which it was said; what is said of one partner is not said
// of another; and what was begun is never begun again.
func TestStandingReachesEveryInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, seals := newShelf(), newSeals(t, "k", nil)
		one, two, command := newStandings(t, s, seals).run(t), newStandings(t, s, seals).run(t), newStandings(t, s, seals)
		poll()
		if st := one.at(t, "a"); st != (credential.Standing{}) {
			t.Fatalf("of whom nothing was said: %+v", st)
		}
		last := credential.Standing{}
		for n, step := range []struct {
			do       func(context.Context, string) (from, to credential.Standing, err error)
			disabled bool
			same     bool
		}{
			{command.Disable, true, false}, {command.Disable, true, true}, {command.Enable, false, false}, {command.Enable, false, true},
			{command.RevokeTokens, false, false}, {command.RevokeTokens, false, false}, {command.Disable, true, false}, {command.RevokeTokens, true, false},
		} {
			from, to, err := step.do(t.Context(), "a")
			if err != nil || from != last || to.Disabled != step.disabled || (to == from) != step.same || !step.same && to.Generation <= from.Generation {
				t.Fatalf("step %d: from %+v to %+v, %v", n, from, to, err)
			}
			if !step.same && (to.Cause != credential.CauseOperator || time.Since(to.Since) > 2*time.Second) {
				t.Errorf("step %d: %+v", n, to)
			}
			for _, i := range []*instance{one, two} {
				if st := i.at(t, "a"); st != to {
					t.Errorf("step %d: known is %+v, want %+v", n, st, to)
				}
				if st := i.at(t, "b"); st != (credential.Standing{}) {
					t.Errorf("step %d: another partner: %+v", n, st)
				}
			}
			last = to
		}
		if got := one.heard(); got != "a false>true, a true>false, a false>false, a false>false, a false>true, a true>true" {
			t.Errorf("told: %s", got)
		}
		all, err := command.All(t.Context())
		if err != nil || !maps.Equal(all, map[string]credential.Standing{"a": last, "b": {}, "c": {}}) {
			t.Errorf("all: %v, %v", all, err)
		}
		if o := two.Overview(); !o.Disabled["a"] || o.Disabled["b"] || o.Invalid != 0 || o.Age > time.Second {
			t.Errorf("overview %+v", o)
		}
	})
}

// TestStandingIsSeenWithinASecond, whenever the change is made between two readings: without asking, and by asking.
func TestStandingIsSeenWithinASecond(t *testing.T) {
	for offset := time.Duration(0); offset < 300*time.Millisecond; offset += 37 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			s, seals := newShelf(), newSeals(t, "k", nil)
			i, command := newStandings(t, s, seals).run(t), newStandings(t, s, seals)
			time.Sleep(time.Second + offset)
			begun := time.Now()
			go command.Disable(t.Context(), "a") //nolint:errcheck // what it did is looked at
			for {
				if st := i.at(t, "a"); st.Disabled {
					break
				}
				if time.Sleep(time.Millisecond); time.Since(begun) > time.Second {
					t.Fatal("not within a second")
				}
			}
			i.stop()
			time.Sleep(2 * time.Second) // nobody reads any more
			changed(t)(command.Enable(t.Context(), "a"))
			if st := i.at(t, "a"); st.Disabled {
				t.Error("what is known has become too old, and was not read again")
			}
		})
	}
}

// TestStandingFailsClosed: where the store is down, after a second for what is used up, after five for all else; and back.
func TestStandingFailsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		i := newStandings(t, s, newSeals(t, "k", nil)).run(t)
		poll()
		changed(t)(i.Disable(t.Context(), "a"))
		poll()
		down := &store.Unavailable{Store: "shelf", Reason: store.ReasonDial}
		s.with(func(s *shelf) { s.down = down })
		begun := time.Now()
		for time.Since(begun) < 8*time.Second {
			age := i.Overview().Age
			for _, id := range []string{"a", "b", "c"} {
				for _, within := range []time.Duration{credential.StandingFresh, credential.StandingStale} {
					st, err := i.At(t.Context(), id, within)
					switch {
					case time.Since(begun) > within+300*time.Millisecond && err == nil:
						t.Fatalf("%s, %v after the last reading, within %v: %+v", id, time.Since(begun), within, st)
					case age <= within && (err != nil || st.Disabled != (id == "a")):
						t.Fatalf("%s, known %v ago, within %v: %+v, %v", id, age, within, st, err)
					case age > within && (!errors.Is(err, store.ErrUnavailable) || st != (credential.Standing{})):
						t.Fatalf("%s, known %v ago, within %v: %+v, %v", id, age, within, st, err)
					}
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
		s.with(func(s *shelf) { s.down = nil })
		if !i.at(t, "a").Disabled {
			t.Error("forgotten")
		}
		if _, _, err := i.Enable(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	})
}

// TestNothingIsKnownAtFirst: where the store is down from the start, nobody is let through.
func TestNothingIsKnownAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.down = &store.Unavailable{Store: "shelf", Reason: store.ReasonDial}
		i := newStandings(t, s, newSeals(t, "k", nil)).run(t)
		for range 10 {
			if _, err := i.At(t.Context(), "a", credential.StandingStale); !errors.Is(err, store.ErrUnavailable) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if age := i.Overview().Age; age < 9*time.Second {
			t.Errorf("known %v ago", age)
		}
	})
}

// TestOneReadingForAll: however many exchanges find what is known too old, the store is asked once, and each waits no longer
// than it may.
func TestOneReadingForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.wait = make(chan struct{})
		i := newStandings(t, s, newSeals(t, "k", nil))
		hasty, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := i.At(hasty, "a", credential.StandingFresh); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				if _, err := i.At(t.Context(), "a", credential.StandingFresh); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		s.with(func(s *shelf) { close(s.wait) })
		wg.Wait()
		if s.reads != 1 {
			t.Errorf("%d readings", s.reads)
		}
		// A store that hangs: it ends with a time-out of its own.
		s.with(func(s *shelf) { s.wait = make(chan struct{}) })
		time.Sleep(time.Minute)
		begun := time.Now()
		if _, err := i.At(t.Context(), "a", credential.StandingFresh); !errors.Is(err, store.ErrUnavailable) || time.Since(begun) > 2*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}

// TestForgedStandingFailsClosed: of its partner alone; what is written into the store, moved to another partner or version, or
// sealed with a key that is not ours. When it is gone, what was known before is there again.
func TestForgedStandingFailsClosed(t *testing.T) {
	for name, forge := range map[string]func(values map[string]store.Versioned, stranger []byte) store.Versioned{
		"empty": func(map[string]store.Versioned, []byte) store.Versioned { return store.Versioned{Version: 9} },
		"text": func(map[string]store.Versioned, []byte) store.Versioned {
			return store.Versioned{Value: []byte("enabled"), Version: 9}
		},
		"no version": func(v map[string]store.Versioned, _ []byte) store.Versioned {
			return store.Versioned{Value: v[a].Value}
		},
		"of another": func(v map[string]store.Versioned, _ []byte) store.Versioned { return v[b] },
		"later": func(v map[string]store.Versioned, _ []byte) store.Versioned {
			return store.Versioned{Value: v[a].Value, Version: v[a].Version + 1}
		},
		"earlier": func(v map[string]store.Versioned, _ []byte) store.Versioned {
			return store.Versioned{Value: v[a].Value, Version: v[a].Version - 1}
		},
		"a stranger": func(v map[string]store.Versioned, sealed []byte) store.Versioned {
			return store.Versioned{Value: sealed, Version: 9}
		},
		"changed": func(v map[string]store.Versioned, _ []byte) store.Versioned {
			value := bytes.Clone(v[a].Value)
			value[len(value)-1] ^= 1
			return store.Versioned{Value: value, Version: v[a].Version}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				elsewhere := newShelf()
				stranger := newStandings(t, elsewhere, newSeals(t, "k", nil)).run(t)
				changed(t)(stranger.RevokeTokens(t.Context(), "a"))
				s, seals := newShelf(), newSeals(t, "k", nil)
				seals.own = newSealer(t, "another")
				i := newStandings(t, s, seals).run(t)
				poll()
				changed(t)(i.Disable(t.Context(), "a"))
				changed(t)(i.RevokeTokens(t.Context(), "b"))
				poll()
				was := i.at(t, "a")
				s.with(func(s *shelf) { s.values[a] = forge(s.values, elsewhere.values[a].Value) })
				poll()
				if st, err := i.At(t.Context(), "a", credential.StandingFresh); !errors.Is(err, credential.ErrStanding) || st != (credential.Standing{}) {
					t.Fatalf("%+v, %v", st, err)
				}
				if _, err := i.Known("a"); !errors.Is(err, credential.ErrStanding) {
					t.Error(err)
				}
				if st := i.at(t, "b"); st.Generation == 0 || st.Disabled {
					t.Errorf("another partner: %+v", st)
				}
				if _, _, err := i.Enable(t.Context(), "a"); !errors.Is(err, credential.ErrStanding) {
					t.Errorf("enabled: %v", err)
				}
				if all, err := i.All(t.Context()); !errors.Is(err, credential.ErrStanding) || len(all) != 2 {
					t.Errorf("all: %v, %v", all, err)
				}
				poll()
				if o := i.Overview(); o.Invalid != 1 || strings.Count(i.heard(), "a invalid") != 1 {
					t.Errorf("%+v, told %s", o, i.heard())
				}
				s.with(func(s *shelf) { delete(s.values, a) })
				poll()
				if st := i.at(t, "a"); st != was {
					t.Errorf("after it is gone %+v, want %+v", st, was)
				}
			})
		})
	}
}

// TestWhatIsLostIsRaisedAgain: a standing that is deleted, or put back to an earlier one, by a failover or by somebody.
func TestWhatIsLostIsRaisedAgain(t *testing.T) {
	for name, lose := range map[string]func(s *shelf, earlier map[string]store.Versioned){
		"all":     func(s *shelf, _ map[string]store.Versioned) { clear(s.values) },
		"one":     func(s *shelf, _ map[string]store.Versioned) { delete(s.values, a) },
		"earlier": func(s *shelf, earlier map[string]store.Versioned) { s.values = maps.Clone(earlier) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, seals := newShelf(), newSeals(t, "k", nil)
				one, two := newStandings(t, s, seals).run(t), newStandings(t, s, seals).run(t)
				poll()
				changed(t)(one.RevokeTokens(t.Context(), "a"))
				var earlier map[string]store.Versioned
				s.with(func(s *shelf) { earlier = maps.Clone(s.values) })
				want := changed(t)(one.Disable(t.Context(), "a"))
				poll()
				s.with(func(s *shelf) { lose(s, earlier) })
				time.Sleep(300 * time.Millisecond)
				for _, i := range []*instance{one, two} {
					if st := i.at(t, "a"); st != want {
						t.Errorf("known %+v, want %+v", st, want)
					}
				}
				poll()
				fresh := newStandings(t, s, seals)
				if st := fresh.at(t, "a"); st != want {
					t.Errorf("the store has %+v, want %+v", st, want)
				}
				raises := s.raises
				time.Sleep(time.Minute)
				if s.raises != raises {
					t.Errorf("%d raises more, of what is there", s.raises-raises)
				}
			})
		})
	}
}

// TestACommandWaitsUntilItStands: what a failover lost before any instance saw it is raised again by the command; and what was
// made of a store that had lost what instances know stands beside that.
func TestACommandWaitsUntilItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, seals := newShelf(), newSeals(t, "k", nil)
		command := newStandings(t, s, seals)
		s.lose = 2
		if to := changed(t)(command.Disable(t.Context(), "a")); !to.Disabled {
			t.Fatalf("%+v", to)
		}
		if st := newStandings(t, s, seals).at(t, "a"); !st.Disabled {
			t.Fatalf("it does not stand: %+v", st)
		}
		s.lose = 1 << 30
		if _, _, err := command.Enable(t.Context(), "a"); err == nil {
			t.Error("done, and it is lost each time")
		}
		s.with(func(s *shelf) { s.lose = 0 })

		i := newStandings(t, s, seals).run(t)
		poll()
		known := changed(t)(command.RevokeTokens(t.Context(), "a"))
		poll()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.with(func(s *shelf) { clear(s.values) })
		_, _, _ = command.RevokeTokens(ctx, "a") // raises, and waits no longer; the instance has not looked yet
		poll()
		if st := i.at(t, "a"); !st.Disabled || st.Generation < known.Generation {
			t.Errorf("an instance knows %+v, and knew %+v", st, known)
		}
		s.with(func(s *shelf) { clear(s.values) })
		to := changed(t)(command.Enable(t.Context(), "a")) // of an empty store: it is on
		_ = to
		poll()
		to = changed(t)(command.Enable(t.Context(), "a"))
		poll()
		if st := i.at(t, "a"); st.Disabled || st.Generation <= known.Generation || st != to {
			t.Errorf("an instance knows %+v, want %+v", st, to)
		}
	})
}

// TestOffWins: of two who switch a partner off and on within a second, the one who switches it off has it so, and the other hears it.
func TestOffWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, seals := newShelf(), newSeals(t, "k", nil)
		one, two := newStandings(t, s, seals), newStandings(t, s, seals)
		for name, first := range map[string]bool{"on, then off": true, "off, then on": false} {
			changed(t)(one.Disable(t.Context(), "a"))
			if !first {
				changed(t)(one.Enable(t.Context(), "a"))
			}
			on, off := make(chan error, 1), make(chan error, 1)
			enable := func() { _, _, err := one.Enable(t.Context(), "a"); on <- err }
			disable := func() { _, _, err := two.Disable(t.Context(), "a"); off <- err }
			if first {
				go enable()
				time.Sleep(standingConfirm / 2)
				go disable()
			} else {
				go disable()
				time.Sleep(standingConfirm / 2)
				go enable()
			}
			if err := <-off; err != nil {
				t.Errorf("%s: off: %v", name, err)
			}
			if err := <-on; err == nil || !strings.Contains(err.Error(), "switched the partner off meanwhile") {
				t.Errorf("%s: on: %v", name, err)
			}
			if st := newStandings(t, s, seals).at(t, "a"); !st.Disabled {
				t.Errorf("%s: it is on", name)
			}
		}
	})
}

// standingConfirm is when a command looks whether what it did stands.
const standingConfirm = time.Second

// TestAGenerationIsNoneThatWas: where the store has lost everything, and nobody remembers it.
func TestAGenerationIsNoneThatWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seals, last := newSeals(t, "k", nil), uint64(0)
		for range 3 {
			command := newStandings(t, newShelf(), seals)
			for range 2 {
				to := changed(t)(command.RevokeTokens(t.Context(), "a"))
				if to.Generation <= last {
					t.Fatalf("%d after %d", to.Generation, last)
				}
				last = to.Generation
			}
		}
	})
}

// TestTwoOfOneVersionBothCount: of two that were made of one, on either side of a failover, whichever came first; and a generation
// never goes back, even where a later version has an earlier one.
func TestTwoOfOneVersionBothCount(t *testing.T) {
	for name, test := range map[string]struct {
		rightFirst bool
		more       int // how often the right one is changed besides
	}{"left first": {false, 0}, "right first": {true, 0}, "right first, and of a later version": {true, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seals := newSeals(t, "k", nil)
				left, right := newShelf(), newShelf()
				one := newStandings(t, left, seals).run(t)
				poll()
				left.with(func(s *shelf) { right.values = maps.Clone(s.values) })
				var off, on credential.Standing
				revoke := func() {
					for range 1 + test.more {
						on = changed(t)(newStandings(t, right, seals).RevokeTokens(t.Context(), "a"))
						time.Sleep(time.Second)
					}
				}
				if test.rightFirst {
					revoke()
				}
				off = changed(t)(one.Disable(t.Context(), "a"))
				poll()
				if !test.rightFirst {
					revoke()
				}
				if int(right.values[a].Version-left.values[a].Version) != test.more {
					t.Fatal("they are not of these versions")
				}
				left.with(func(s *shelf) { s.values = right.values })
				poll()
				for _, i := range []*instance{one, newStandings(t, left, seals)} {
					if st := i.at(t, "a"); st.Disabled != (test.more == 0) || st.Generation != max(on.Generation, off.Generation) {
						t.Errorf("%+v of %+v and %+v", st, on, off)
					}
				}
			})
		})
	}
}

// TestAConfigurationThatNarrows: a partner that a configuration disables, or takes a way to come in from, begins another
// generation, once, and not only where the configuration was read; by a start as by a reload.
func TestAConfigurationThatNarrows(t *testing.T) {
	name, err := policy.ParseSubject("CN=a,C=US")
	if err != nil {
		t.Fatal(err)
	}
	ca, pin, second := policy.Fingerprint(sha256.Sum256([]byte("ca"))), policy.Fingerprint{1}, policy.Fingerprint{2}
	with := func(disabled bool, pins ...policy.Fingerprint) []policy.Partner {
		list := slices.Clone(threePartners)
		list[0] = policy.Partner{ID: "a", Environment: "test", Disabled: disabled, Subjects: []policy.Subject{name}, CA: []policy.Fingerprint{ca}, Pins: pins}
		return list
	}
	for what, test := range map[string]struct {
		before, now []policy.Partner
		want        bool
	}{
		"the same":     {with(false, pin, second), with(false, second, pin), false},
		"a pin less":   {with(false, pin, second), with(false, pin), true},
		"a pin more":   {with(false, pin), with(false, pin, second), false},
		"disabled":     {with(false, pin), with(true, pin), true},
		"enabled":      {with(true, pin), with(false, pin), false},
		"off for good": {with(true, pin), with(true, second), false},
		"gone":         {with(false, pin), threePartners[1:], true},
	} {
		for how, restart := range map[string]bool{"reload": false, "start": true} {
			if what == "gone" && restart {
				continue // who starts does not know who was there
			}
			t.Run(what+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, seals := newShelf(), newSeals(t, "k", nil)
					one, two := newStandings(t, s, seals, test.before...).run(t), newStandings(t, s, seals, test.before...).run(t)
					poll()
					if st := two.at(t, "a"); st != (credential.Standing{}) {
						t.Fatalf("a first start: %+v", st)
					}
					if restart {
						one.stop()
						newStandings(t, s, seals, test.now...).run(t)
					} else {
						one.Configure(seals, partnersOf(t, test.now...))
					}
					poll()
					st := two.at(t, "a")
					if (st.Generation != 0) != test.want || st.Disabled || test.want && st.Cause != credential.CauseConfiguration {
						t.Fatalf("the other instance knows %+v", st)
					}
					if other := two.at(t, "b"); other != (credential.Standing{}) {
						t.Errorf("of another partner: %+v", other)
					}
					two.Configure(seals, partnersOf(t, test.now...)) // the change reaches it too
					poll()
					if again := two.at(t, "a"); what != "gone" && again != st {
						t.Errorf("it was advanced twice: %+v, %+v", st, again)
					}
				})
			})
		}
	}
}

// TestANarrowingWaitsForTheStore: what a configuration takes away while the store is down is taken away when it is back, even if
// another one has given it back meanwhile.
func TestANarrowingWaitsForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, seals := newShelf(), newSeals(t, "k", nil)
		i := newStandings(t, s, seals).run(t)
		poll()
		s.with(func(s *shelf) { s.down = &store.Unavailable{Reason: store.ReasonDial} })
		off := slices.Clone(threePartners)
		off[0].Disabled = true
		i.Configure(seals, partnersOf(t, off...))
		time.Sleep(time.Minute)
		for range 40 {
			off[1].Disabled = !off[1].Disabled
			i.Configure(seals, partnersOf(t, off...))
		}
		off[0].Disabled = false
		i.Configure(seals, partnersOf(t, off...))
		time.Sleep(time.Minute)
		s.with(func(s *shelf) { s.down = nil })
		poll()
		other := newStandings(t, s, seals)
		for id, want := range map[string]bool{"a": true, "b": true, "c": false} {
			if st := other.at(t, id); (st.Generation != 0) != want || st.Disabled {
				t.Errorf("%s: %+v", id, st)
			}
		}
	})
}

// TestNoNarrowingIsForgotten, however many configurations came after it before the store heard of any.
func TestNoNarrowingIsForgotten(t *testing.T) {
	name, err := policy.ParseSubject("CN=a,C=US")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s, seals := newShelf(), newSeals(t, "k", nil)
		i := newStandings(t, s, seals).run(t)
		poll()
		s.with(func(s *shelf) { s.down = &store.Unavailable{Reason: store.ReasonDial} })
		list := slices.Clone(threePartners)
		list[0].Disabled = true
		i.Configure(seals, partnersOf(t, list...))
		list[0].Disabled, list[0].Subjects, list[0].CA = false, []policy.Subject{name}, []policy.Fingerprint{{1}}
		for n := range 100 { // a pin more each time
			list[0].Pins = append(list[0].Pins, policy.Fingerprint{byte(n), 1})
			i.Configure(seals, partnersOf(t, list...))
		}
		s.with(func(s *shelf) { s.down = nil })
		poll()
		if st := newStandings(t, s, seals).at(t, "a"); st.Generation == 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestStandingsAreSealedAnewAfterARotation, so that the old key can go; and nothing else changes.
func TestStandingsAreSealedAnewAfterARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := newShelf(), newSeals(t, "old", nil)
		i := newStandings(t, s, old).run(t)
		poll()
		was := changed(t)(i.Disable(t.Context(), "a"))
		poll()
		fresh := newSeals(t, "new", old)
		i.Configure(fresh, partnersOf(t, threePartners...))
		poll()
		for id, v := range s.values {
			if !fresh.Current(v.Value) {
				t.Errorf("%s is sealed with the old key", id)
			}
		}
		fresh.other = nil
		if st := newStandings(t, s, fresh).at(t, "a"); st != was {
			t.Errorf("%+v, want %+v", st, was)
		}
		raises := s.raises
		time.Sleep(time.Minute)
		if s.raises != raises {
			t.Errorf("%d raises more", s.raises-raises)
		}
	})
}

// TestAPartnerThatComesBackIsNotOnBlindly: one that a configuration adds, and that the store has as switched off, is off from the
// first exchange on, and nothing is done for it while that cannot be known; others go on.
func TestAPartnerThatComesBackIsNotOnBlindly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, seals := newShelf(), newSeals(t, "k", nil)
		changed(t)(newStandings(t, s, seals).Disable(t.Context(), "a"))
		i := newStandings(t, s, seals, threePartners[1:]...)
		i.at(t, "b")
		s.with(func(s *shelf) { s.down = &store.Unavailable{Reason: store.ReasonDial} })
		i.Configure(seals, partnersOf(t, threePartners...))
		if st, err := i.At(t.Context(), "a", credential.StandingStale); !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("%+v, %v", st, err)
		}
		if st, err := i.At(t.Context(), "b", credential.StandingStale); err != nil || st != (credential.Standing{}) {
			t.Errorf("another one: %+v, %v", st, err)
		}
		s.with(func(s *shelf) { s.down = nil })
		if !i.at(t, "a").Disabled {
			t.Error("it is on")
		}
		if st := i.at(t, "nobody"); st != (credential.Standing{}) {
			t.Errorf("nobody: %+v", st)
		}
	})
}

// TestAStartTellsOfWhoIsOff, and of nobody else's past.
func TestAStartTellsOfWhoIsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, seals := newShelf(), newSeals(t, "k", nil)
		command := newStandings(t, s, seals)
		changed(t)(command.Disable(t.Context(), "a"))
		changed(t)(command.RevokeTokens(t.Context(), "b"))
		i := newStandings(t, s, seals).run(t)
		poll()
		if got := i.heard(); got != "a true>true" {
			t.Errorf("told: %s", got)
		}
	})
}

func TestStandingsNeedAStore(t *testing.T) {
	if s, err := credential.NewStandings(credential.StandingsConfig{}); err == nil || s != nil {
		t.Error("made without")
	}
}

// BenchmarkStanding is what each exchange asks.
func BenchmarkStanding(b *testing.B) {
	i := newStandings(b, newShelf(), newSeals(b, "k", nil))
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go i.Run(ctx)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := i.At(ctx, "a", credential.StandingFresh); err != nil {
			b.Fatal(err)
		}
	}
}
