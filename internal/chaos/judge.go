package chaos

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/cardstile/cardstile/policy/store"
)

// crime is a way to be wrong.
type crime string

const (
	twice   crime = "given to two"
	strange crime = "a value that was not minted under the digest"
	crossed crime = "redeemed under another tenure than the one that minted it"
	lost    crime = "minted under a tenure that lasted, and gone"
	illegal crime = "not a history that one token can have"
)

// violation is what the judge found of one token.
type violation struct {
	crime crime
	token *token
}

func (v violation) String() string { return fmt.Sprintf("%s: %v", v.crime, v.token) }

// slack is how far the store's whole milliseconds, and the rates of two clocks, may lie from the gateway's nanoseconds.
const slack = int64(20 * time.Millisecond)

// judge returns everything that is wrong with the history, and how many tokens could not be decided in time.
func (w *World) judge() (found []violation, undecided int) {
	sequential := model()
	for _, k := range w.history.all() {
		w.establish(k)
		for _, crime := range k.plain() {
			found = append(found, violation{crime, k})
		}
		// Far longer than a token's few calls take.
		switch porcupine.CheckOperationsTimeout(sequential, k.operations(), 10*time.Second) {
		case porcupine.Illegal:
			found = append(found, violation{illegal, k})
		case porcupine.Unknown:
			undecided++
		}
	}
	return found, undecided
}

// plain are the crimes that can be seen without a model.
func (k *token) plain() (found []crime) {
	var winners []uint64
	given := 0
	for _, c := range k.past() {
		if c.verb == mint {
			continue
		}
		switch c.answer {
		case yes:
			given++
			if !slices.Contains(winners, c.attempt) {
				winners = append(winners, c.attempt)
			}
			if c.value != k.value {
				found = append(found, strange)
			}
			if !c.shared {
				found = append(found, crossed)
			}
		case fenced, unknown:
			acknowledged := slices.ContainsFunc(k.past(), func(m *call) bool { return m.verb == mint && m.answer == yes && m.ended < c.began })
			if acknowledged && !c.otherTenure && !c.longExpired {
				found = append(found, lost)
			}
		}
	}
	if len(winners) > 1 || k.kind == store.KindCard && given > 1 {
		found = append(found, twice)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// operations are the calls as porcupine takes them. Of the calls of one attempt that had no answer only the first matters: it may
// take effect at any time since, which covers the others, and no more than one of them has an effect.
func (k *token) operations() []porcupine.Operation {
	open := map[uint64]bool{}
	var all []porcupine.Operation
	past := slices.Clone(k.past())
	slices.SortFunc(past, func(a, b *call) int { return int(a.began - b.began) })
	for i, c := range past {
		end := c.ended
		if c.answer == nothing {
			if open[c.attempt] { // mints are attempt 0
				continue
			}
			open[c.attempt] = true
			end = never
		}
		all = append(all, porcupine.Operation{ClientId: i, Input: &step{c, k.kind}, Call: c.began, Return: end})
	}
	return all
}

// establish finds the facts of each call.
func (w *World) establish(k *token) {
	past := k.past()
	skewed := w.skewed.Load()
	ttl := int64(k.ttl)
	expiredFor := store.ExpiredFor
	if k.kind == store.KindCard { // gone with its time
		expiredFor = 0
	}

	minted := map[string]bool{} // the tenures that may have minted it
	firstMint, lastMint := never, int64(0)
	for _, c := range past {
		if c.verb != mint || c.answer == exists || c.answer == full {
			continue
		}
		firstMint, lastMint = min(firstMint, c.began), max(lastMint, c.ended)
		until := c.ended
		if c.answer == nothing {
			lastMint, until = never, never
		}
		for _, t := range c.tenures(until) {
			minted[t] = true
		}
	}
	firstAsked, firstGiven := map[uint64]int64{}, map[uint64]int64{}
	for _, c := range past {
		if c.verb == mint {
			continue
		}
		if t, ok := firstAsked[c.attempt]; !ok || c.began < t {
			firstAsked[c.attempt] = c.began
		}
		if t, ok := firstGiven[c.attempt]; c.answer == yes && (!ok || c.ended < t) {
			firstGiven[c.attempt] = c.ended
		}
	}
	for _, c := range past {
		over := func(since int64, after time.Duration) bool {
			return c.ended >= since+int64(after)-slack || c.ended >= skewed
		}
		c.lateEnough = over(firstMint, k.ttl)
		c.longExpired = over(firstMint, k.ttl+expiredFor)
		c.longSpent = over(firstMint, k.ttl+store.SpentFor)
		c.tooLate = lastMint != never && c.began > lastMint+ttl+slack && c.ended < skewed
		c.windowIsOver = over(firstAsked[c.attempt], store.ReplayWindow)
		given, ok := firstGiven[c.attempt]
		c.windowWasOver = ok && c.began > given+int64(store.ReplayWindow)+slack && c.ended < skewed
		if c.verb == mint || c.answer == nothing {
			continue
		}
		met := c.tenures(c.ended)
		c.shared = slices.ContainsFunc(met, func(t string) bool { return minted[t] })
		for t := range minted {
			c.otherTenure = c.otherTenure || len(met) != 1 || t != met[0]
		}
	}
}

// tenures are those that the call may have met until then.
func (c *call) tenures(until int64) []string {
	var all []string
	for _, n := range c.reach {
		for _, t := range n.watch.possible(c.began, until) {
			if !slices.Contains(all, t) {
				all = append(all, t)
			}
		}
	}
	return all
}

// Finish ends the workers, asks for everything again by these routes, and fails the test for what is wrong.
func (w *World) finish(routes ...*route) []violation {
	w.t.Helper()
	w.stop()
	w.sweep(routes...)
	for _, n := range w.nodes {
		n.watch.stop()
		n.watch.sight()
	}
	found, undecided := w.judge()
	w.account(undecided)
	return found
}

// account says what the history holds, so that a run that tried nothing is seen.
func (w *World) account(undecided int) {
	w.t.Helper()
	counts := map[string]int{}
	calls := 0
	for _, k := range w.history.all() {
		for _, c := range k.past() {
			calls++
			counts[c.verb.String()+" "+c.answer.String()]++
		}
	}
	w.say("%d tokens, %d calls: %v", len(w.history.all()), calls, counts)
	if undecided > 0 {
		w.say("%d tokens were too hard to decide", undecided)
		w.t.Errorf("seed %d: %d tokens could not be decided", w.seed, undecided)
	}
}

// report fails the test for violations, with the stories of the first few.
func report(t testing.TB, seed uint64, found []violation) {
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
