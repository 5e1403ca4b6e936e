package drill

import (
	"fmt"

	"github.com/anishathalye/porcupine"

	"github.com/cardstile/cardstile/policy/store"
)

// state is one token, were there one server and no faults.
type state struct {
	phase phase
	by    uint64 // the attempt that had it, where it is spent
}

type phase uint8

const (
	absent phase = iota
	live
	used
)

func (s state) String() string {
	if s.phase == used {
		return fmt.Sprintf("spent by %d", s.by)
	}
	return [...]string{"absent", "live"}[s.phase]
}

// facts are what may explain an answer beside the state. The judge sets them; in their absence nothing is forgiven.
type facts struct {
	otherTenure   bool // the call may have met another tenure than the one that minted
	lateEnough    bool // the token's time may have been over
	tooLate       bool // the token's time was over for certain
	longExpired   bool // an expired token may have been forgotten
	longSpent     bool // a spent token may have been forgotten
	windowIsOver  bool // the attempt's replay window may have been over
	windowWasOver bool // the attempt's replay window was over for certain
	shared        bool // the call may have met a tenure that may have minted the token
	unseen        bool // which tenure it met, or which one minted, could not be seen
}

// model is the sequential token. What a call without an answer did is open: it happened, or it did not, at any time after it
// began.
func model() porcupine.Model {
	nondeterministic := porcupine.NondeterministicModel{
		Init: func() []any { return []any{state{}} },
		Step: func(s, input, _ any) []any {
			k := input.(*step)
			var all []any
			for _, next := range k.next(s.(state)) {
				all = append(all, next)
			}
			return all
		},
	}
	return nondeterministic.ToModel()
}

// step is a call to a token of this kind.
type step struct {
	*call
	kind store.Kind
}

// next returns the states in which a token may be after a call with this answer: none where the answer was wrong.
func (c *step) next(s state) []state {
	if c.verb == mint {
		return c.afterMint(s)
	}
	had := state{used, c.attempt}
	same := []state{s}
	allow := func(ok bool) []state {
		if ok {
			return same
		}
		return nil
	}
	own := s == had
	switch c.answer {
	case yes:
		if s.phase == live && !c.tooLate {
			return []state{had}
		}
		// The same attempt again, but for a card: that is given away once.
		return allow(own && c.kind != store.KindCard && !c.windowWasOver)
	case nothing:
		if s.phase == live {
			return []state{s, had}
		}
		return same
	case spent:
		return allow(s.phase == used && (!own || c.kind == store.KindCard || c.windowIsOver))
	case expired:
		return allow(s.phase == live && c.lateEnough)
	case fenced, unknown:
		// The store asks once more by itself where an answer was lost, but for a card: its first try may have had the token,
		// under a tenure that ended before the second.
		if s.phase == live && c.otherTenure && c.kind != store.KindCard {
			return []state{s, had}
		}
		if c.answer == fenced {
			return allow(s.phase != absent && c.otherTenure)
		}
		return allow(s.phase == absent || c.otherTenure || s.phase == live && c.longExpired || s.phase == used && c.longSpent)
	}
	return nil
}

func (c *step) afterMint(s state) []state {
	switch c.answer {
	case yes:
		if s.phase == absent {
			return []state{{phase: live}}
		}
	case exists:
		if s.phase != absent {
			return []state{s}
		}
	case full:
		return []state{s}
	case nothing:
		if s.phase == absent {
			return []state{s, {phase: live}}
		}
		return []state{s}
	}
	return nil
}
