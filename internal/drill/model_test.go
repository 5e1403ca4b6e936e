package drill

import (
	"fmt"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/cardstile/cardstile/policy/store"
)

// TestModel judges histories whose verdict is known.
func TestModel(t *testing.T) {
	m := func(began, ended int64, a answer) *call {
		return &call{verb: mint, answer: a, began: began, ended: ended}
	}
	r := func(began, ended int64, attempt uint64, a answer, f ...facts) *call {
		c := &call{verb: redeem, attempt: attempt, answer: a, began: began, ended: ended}
		for _, f := range f {
			c.facts = f
		}
		return c
	}
	minted := m(1, 2, yes)
	other := facts{otherTenure: true}
	for _, c := range []struct {
		name  string
		kind  store.Kind
		calls []*call
		legal bool
	}{
		{"redeemed, and spent for others", "", []*call{minted, r(3, 4, 1, yes), r(5, 6, 2, spent), r(7, 8, 1, yes)}, true},
		{"redeemed by two", "", []*call{minted, r(3, 4, 1, yes), r(5, 6, 2, yes)}, false},
		{"redeemed by two at once", "", []*call{minted, r(3, 9, 1, yes), r(4, 8, 2, yes)}, false},
		{"redeemed by two, a failover between", "", []*call{minted, r(3, 4, 1, yes), r(5, 6, 2, yes, other)}, false},
		{"redeemed by two, the first without an answer", "", []*call{minted, r(3, 4, 1, nothing), r(5, 6, 2, yes), r(7, 8, 3, spent)}, true},
		{"redeemed by two who both had no answer", "", []*call{minted, r(3, 4, 1, nothing), r(3, 4, 2, nothing), r(5, 6, 1, yes), r(7, 8, 2, yes)}, false},
		{"spent for its own attempt", "", []*call{minted, r(3, 4, 1, nothing), r(5, 6, 1, spent)}, false},
		{"spent for its own attempt, after its window", "", []*call{minted, r(3, 4, 1, yes), r(5, 6, 1, spent, facts{windowIsOver: true})}, true},
		{"again after its window", "", []*call{minted, r(3, 4, 1, yes), r(5, 6, 1, yes, facts{windowWasOver: true})}, false},
		{"spent, and nobody had it", "", []*call{minted, r(3, 4, 1, spent)}, false},
		{"spent, and somebody may have it yet", "", []*call{minted, r(3, 9, 1, nothing), r(4, 5, 2, spent)}, true},
		{"spent before it is asked for", "", []*call{minted, r(3, 4, 2, spent), r(5, 6, 1, yes)}, false},
		{"a card for its attempt again", store.KindCard, []*call{minted, r(3, 4, 1, yes), r(5, 6, 1, yes)}, false},
		{"a card that is spent for its attempt", store.KindCard, []*call{minted, r(3, 4, 1, nothing), r(5, 6, 1, spent)}, true},
		{"lost", "", []*call{minted, r(3, 4, 1, unknown)}, false},
		{"lost with its tenure", "", []*call{minted, r(3, 4, 1, unknown, other)}, true},
		{"fenced", "", []*call{minted, r(3, 4, 1, fenced, other)}, true},
		{"fenced on the second try, had on the first", "", []*call{minted, r(3, 9, 1, fenced, other), r(4, 5, 2, spent)}, true},
		{"gone on the second try, had on the first", "", []*call{minted, r(3, 9, 1, unknown, other), r(4, 5, 2, spent)}, true},
		{"gone on the second try, had on the first, and had by another", "", []*call{minted, r(3, 9, 1, unknown, other), r(4, 5, 2, spent), r(6, 7, 3, yes)}, false},
		{"a card that is gone on the second try", store.KindCard, []*call{minted, r(3, 9, 1, unknown, other), r(4, 5, 2, spent)}, false},
		{"had on the first try, and no tenure ended", "", []*call{minted, r(3, 9, 1, unknown), r(4, 5, 2, spent)}, false},
		{"fenced for nothing", "", []*call{minted, r(3, 4, 1, fenced)}, false},
		{"unknown, never minted", "", []*call{r(3, 4, 1, unknown)}, true},
		{"fenced, never minted", "", []*call{r(3, 4, 1, fenced, other)}, false},
		{"redeemed, never minted", "", []*call{r(3, 4, 1, yes)}, false},
		{"redeemed, perhaps minted", "", []*call{m(1, 2, nothing), r(3, 4, 1, unknown), r(5, 6, 2, yes)}, true},
		{"gone again, perhaps minted", "", []*call{m(1, 2, nothing), r(3, 4, 1, yes), r(5, 6, 2, unknown)}, false},
		{"redeemed after a mint that was refused", "", []*call{m(1, 2, full), r(3, 4, 1, yes)}, false},
		{"minted twice", "", []*call{minted, m(3, 4, yes)}, false},
		{"there already", "", []*call{minted, m(3, 4, exists)}, true},
		{"there already, and never minted", "", []*call{m(3, 4, exists)}, false},
		{"expired in time", "", []*call{minted, r(3, 4, 1, expired, facts{lateEnough: true})}, true},
		{"expired too early", "", []*call{minted, r(3, 4, 1, expired)}, false},
		{"redeemed when it had expired", "", []*call{minted, r(3, 4, 1, yes, facts{tooLate: true})}, false},
		{"expired, and spent for another", "", []*call{minted, r(3, 4, 1, expired, facts{lateEnough: true}), r(5, 6, 2, spent)}, false},
		{"revoked, and redeemed", "", []*call{minted, {verb: revoke, attempt: 1, answer: yes, began: 3, ended: 4}, r(5, 6, 2, yes)}, false},
	} {
		kind := c.kind
		if kind == "" {
			kind = store.KindToken
		}
		k := &Token{Kind: kind, calls: c.calls}
		if got := porcupine.CheckOperations(model(), k.operations()); got != c.legal {
			t.Errorf("%s: legal is %v, want %v", c.name, got, c.legal)
		}
	}
}

// TestPossibleTenures: what a call may have met lies between what was seen before it and after it.
func TestPossibleTenures(t *testing.T) {
	h := &Watch{seen: []sighting{{1, 2, "x"}, {5, 6, "x"}, {9, 10, ""}, {13, 14, "y"}, {17, 18, "y"}}}
	for _, c := range []struct {
		from, to int64
		want     string
	}{
		{2, 5, "[x]"}, {3, 4, "[x]"}, {3, 7, "[x]"}, {11, 12, "[y]"}, {3, 12, "[x y]"}, {15, 16, "[y]"}, {20, 30, "[y]"}, {7, 8, "[x]"},
		{10, 13, "[y]"}, {9, 13, "[x y]"},
	} {
		if got := h.possible(c.from, c.to); fmt.Sprint(got) != c.want {
			t.Errorf("from %d to %d: %v, want %v", c.from, c.to, got, c.want)
		}
	}
}
