package drill

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cardstile/cardstile/policy/store"
)

// TestJudgeTenures: what an answer means depends on what was seen of the tenures, and what could not be seen is held against nobody.
func TestJudgeTenures(t *testing.T) {
	const ms = int64(1e6)
	one := []sighting{{0, 1, "x"}, {1000 * ms, 1001 * ms, "x"}}
	two := []sighting{{0, 1, "x"}, {50 * ms, 51 * ms, "x"}, {60 * ms, 61 * ms, "y"}, {1000 * ms, 1001 * ms, "y"}}
	blind := []sighting{{0, 1, "x"}, {50 * ms, 51 * ms, "x"}, {60 * ms, 61 * ms, Unseen}, {1000 * ms, 1001 * ms, Unseen}}
	gap := []sighting{{0, 1, "x"}, {50 * ms, 51 * ms, "x"}, {200 * ms, 201 * ms, "x"}, {300 * ms, 301 * ms, Unseen}, {350 * ms, 351 * ms, "x"}, {1000 * ms, 1001 * ms, "x"}}
	for _, c := range []struct {
		name string
		seen []sighting
		is   Circumstances
		told answer
		want []Crime
	}{
		{"gone, its tenure lasts", one, Circumstances{}, unknown, []Crime{Lost, Illegal}},
		{"gone with its tenure", two, Circumstances{}, unknown, nil},
		{"gone, nobody knows under which tenure", blind, Circumstances{}, unknown, nil},
		{"gone, the tenure is known by then", gap, Circumstances{}, unknown, []Crime{Lost, Illegal}},
		{"gone, the tenure was not seen a moment before", gap, Circumstances{Unsharp: 100 * ms}, unknown, nil},
		{"fenced, its tenure lasts", one, Circumstances{}, fenced, []Crime{Lost, Illegal}},
		{"fenced, another tenure", two, Circumstances{}, fenced, nil},
		{"redeemed, its tenure lasts", one, Circumstances{}, yes, nil},
		{"redeemed under another tenure", two, Circumstances{}, yes, []Crime{Crossed}},
		{"redeemed, nobody knows under which tenure", blind, Circumstances{}, yes, nil},
		{"redeemed under another tenure, which replicas stand in for", two, Circumstances{Quorum: true}, yes, nil},
	} {
		h := NewHistory()
		k := &Token{Kind: store.KindToken, ttl: LongLife, value: "v"}
		w := &Watch{Name: "one", seen: c.seen}
		reach := []*Watch{w}
		k.calls = []*call{
			{verb: mint, answer: yes, began: 10 * ms, ended: 11 * ms, reach: reach},
			{verb: redeem, attempt: 1, answer: c.told, value: "v", began: 400 * ms, ended: 401 * ms, reach: reach},
		}
		h.tokens = []*Token{k}
		found, undecided := Judge(h, c.is)
		var crimes []Crime
		for _, v := range found {
			crimes = append(crimes, v.Crime)
		}
		if !slices.Equal(crimes, c.want) || undecided != 0 {
			t.Errorf("%s: %q, want %q", c.name, crimes, c.want)
		}
	}
}

// TestTenures: each is told once, where it was first seen; a replica has none.
func TestTenures(t *testing.T) {
	w := &Watch{Name: "one", seen: []sighting{{0, 1, "x"}, {2, 3, Unseen}, {4, 5, "x"}, {6, 7, ""}, {8, 9, "y"}, {10, 11, "y"}}}
	if got, want := fmt.Sprint(w.tenures()), "[{x one 1} {y one 9}]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestSlot: as CLUSTER KEYSLOT of Redis 7.0 says of the digests as keys have them.
func TestSlot(t *testing.T) {
	for d, want := range map[store.Digest]int{{}: 8435, {1, 2, 3}: 16317} {
		if got := Slot(d); got != want {
			t.Errorf("%x: %d, want %d", d[:4], got, want)
		}
	}
}
