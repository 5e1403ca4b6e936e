package drill

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/cardstile/cardstile/policy/store"
)

// Crime is a way to be wrong.
type Crime string

// The crimes.
const (
	Twice   Crime = "given to two"
	Strange Crime = "a value that was not minted under the digest"
	Crossed Crime = "redeemed under another tenure than the one that minted it"
	Lost    Crime = "minted under a tenure that lasted, and gone"
	Illegal Crime = "not a history that one token can have"
)

// Violation is what the judge found of one token.
type Violation struct {
	Crime Crime
	Token *Token
}

func (v Violation) String() string { return fmt.Sprintf("%s: %v", v.Crime, v.Token) }

// Circumstances are what the judge has to know beside the history. The zero value is a store that is fenced by tenure, whose tenures
// were seen as they came.
type Circumstances struct {
	// Skewed is when a server's clock was first turned, in ns of the history's clock. 0: never.
	Skewed int64
	// Unsharp is how far, in ns, a call may lie from when its server's tenure was seen.
	Unsharp int64
	// Quorum: replicas acknowledge in place of the fence, and a token outlives its tenure.
	Quorum bool
}

// never is a time after all others.
const never = int64(1) << 62

// slack is how far the store's whole milliseconds, and the rates of two clocks, may lie from the gateway's nanoseconds.
const slack = int64(20 * time.Millisecond)

// Judge returns everything that is wrong with the history, and how many tokens could not be decided in time.
func Judge(h *History, c Circumstances) (found []Violation, undecided int) {
	if c.Skewed == 0 {
		c.Skewed = never
	}
	sequential := model()
	for _, k := range h.All() {
		k.establish(c)
		for _, crime := range k.plain() {
			found = append(found, Violation{crime, k})
		}
		// Far longer than a token's few calls take.
		switch porcupine.CheckOperationsTimeout(sequential, k.operations(), 10*time.Second) {
		case porcupine.Illegal:
			found = append(found, Violation{Illegal, k})
		case porcupine.Unknown:
			undecided++
		}
	}
	return found, undecided
}

// plain are the crimes that can be seen without a model.
func (k *Token) plain() (found []Crime) {
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
				found = append(found, Strange)
			}
			if !c.shared {
				found = append(found, Crossed)
			}
		case fenced, unknown:
			acknowledged := slices.ContainsFunc(k.past(), func(m *call) bool { return m.verb == mint && m.answer == yes && m.ended < c.began })
			if acknowledged && !c.otherTenure && !c.longExpired {
				found = append(found, Lost)
			}
		}
	}
	if len(winners) > 1 || k.Kind == store.KindCard && given > 1 {
		found = append(found, Twice)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// operations are the calls as porcupine takes them. Of the calls of one attempt that had no answer only the first matters: it may
// take effect at any time since, which covers the others, and no more than one of them has an effect.
func (k *Token) operations() []porcupine.Operation {
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
		all = append(all, porcupine.Operation{ClientId: i, Input: &step{c, k.Kind}, Call: c.began, Return: end})
	}
	return all
}

// establish finds the facts of each call.
func (k *Token) establish(is Circumstances) {
	past := k.past()
	skewed := is.Skewed
	ttl := int64(k.ttl)
	expiredFor := store.ExpiredFor
	if k.Kind == store.KindCard { // gone with its time
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
		for _, t := range c.tenures(until, is) {
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
		met := c.tenures(c.ended, is)
		c.unseen = minted[Unseen] || slices.Contains(met, Unseen)
		c.shared = is.Quorum || c.unseen || slices.ContainsFunc(met, func(t string) bool { return minted[t] })
		c.otherTenure = c.unseen
		for t := range minted {
			c.otherTenure = c.otherTenure || len(met) != 1 || t != met[0]
		}
	}
}

// tenures are those that the call may have met until then.
func (c *call) tenures(until int64, is Circumstances) []string {
	var all []string
	for _, w := range c.reach {
		for _, t := range w.possible(c.began-is.Unsharp, min(until, never-is.Unsharp)+is.Unsharp) {
			if !slices.Contains(all, t) {
				all = append(all, t)
			}
		}
	}
	return all
}
