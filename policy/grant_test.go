package policy_test

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/policy"
)

func fullGrant() policy.Grant {
	return policy.Grant{
		Partner: partnerID, Certificate: [32]byte{1}, User: userID, Operation: policy.CardReveal, Card: cardID,
		Origin: "https://app.example", SessionHash: [32]byte{31: 1}, Environment: "test", MintedAt: 1763899200000,
		Face: "gnosispay", Audience: "a", Generation: 1764115200000,
	}
}

func TestGrantRoundTrip(t *testing.T) {
	text := rapid.StringN(0, 40, 1024)
	rapid.Check(t, func(t *rapid.T) {
		g := policy.Grant{
			Partner: "p" + text.Draw(t, "partner"), User: text.Draw(t, "user"), Operation: policy.Operation(text.Draw(t, "operation")),
			Card: text.Draw(t, "card"), Origin: text.Draw(t, "origin"), Environment: text.Draw(t, "environment"),
			Face: text.Draw(t, "face"), Audience: text.Draw(t, "audience"), MintedAt: rapid.Int64Min(1).Draw(t, "time"),
		}
		g.Generation = rapid.Uint64().Draw(t, "generation")
		copy(g.Certificate[:], rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, "certificate"))
		g.Held = string(rapid.SliceOfN(rapid.Byte(), 0, 2048).Draw(t, "held"))
		copy(g.SessionHash[:], rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, "session"))
		data, err := g.MarshalBinary()
		if err != nil {
			return // not encodable: a string of invalid UTF-8
		}
		var back policy.Grant
		if err := back.UnmarshalBinary(data); err != nil || back != g {
			t.Fatalf("%+v came back as %+v: %v", g, back, err)
		}
		if extended := append(bytes.Clone(data), 0); back.UnmarshalBinary(extended) == nil || back != (policy.Grant{}) {
			t.Fatal("a byte more is a grant too")
		}
		if cut := data[:rapid.IntRange(0, len(data)-1).Draw(t, "cut")]; back.UnmarshalBinary(cut) == nil || back != (policy.Grant{}) {
			t.Fatal("a part is a grant too")
		}
	})
}

func TestGrantsThatHaveNoEncoding(t *testing.T) {
	for name, change := range map[string]func(*policy.Grant){
		"no partner":   func(g *policy.Grant) { g.Partner = "" },
		"no time":      func(g *policy.Grant) { g.MintedAt = 0 },
		"before 1970":  func(g *policy.Grant) { g.MintedAt = -1 },
		"long card":    func(g *policy.Grant) { g.Card = strings.Repeat("x", 1025) },
		"long held":    func(g *policy.Grant) { g.Held = strings.Repeat("x", 2049) },
		"not UTF-8":    func(g *policy.Grant) { g.User = "\xff" },
		"the zero one": func(g *policy.Grant) { *g = policy.Grant{} },
	} {
		t.Run(name, func(t *testing.T) {
			g := fullGrant()
			change(&g)
			if data, err := g.MarshalBinary(); err == nil || data != nil {
				t.Errorf("encoded as %x, %v", data, err)
			}
		})
	}
}

// TestHeldHasOneEncoding: nothing is held in one way, which is without the flag.
func TestHeldHasOneEncoding(t *testing.T) {
	g := fullGrant()
	without, err := g.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	g.Held = "\xff"
	with, err := g.MarshalBinary()
	if err != nil || with[1] != without[1]|8 || !bytes.Equal(with[2:], append(bytes.Clone(without[2:]), 0, 1, 0xff)) {
		t.Fatalf("%x, %v", with, err)
	}
	flagged := append(bytes.Clone(without), 0, 0)
	flagged[1] |= 8
	for name, data := range map[string][]byte{
		"nothing, flagged":     flagged,
		"flagged, no length":   flagged[:len(without)],
		"half a length":        flagged[:len(without)+1],
		"unflagged":            append(bytes.Clone(without), 0, 1, 0xff),
		"shorter than it says": append(bytes.Clone(flagged[:len(without)]), 0, 2, 0xff),
		"longer than it says":  append(bytes.Clone(with), 0xff),
		"too long":             append(append(bytes.Clone(flagged[:len(without)]), 8, 1), bytes.Repeat([]byte{1}, 2049)...),
		"an unknown flag":      append([]byte{with[0], with[1] | 32}, with[2:]...),
	} {
		var back policy.Grant
		if err := back.UnmarshalBinary(data); err == nil || back != (policy.Grant{}) {
			t.Errorf("%s: %+v, %v", name, back, err)
		}
	}
}

func TestGrantBound(t *testing.T) {
	for _, test := range []struct {
		operation policy.Operation
		card      string
		want      bool
	}{{"", "", false}, {policy.CardReveal, "", false}, {"", cardID, false}, {policy.CardReveal, cardID, true}} {
		if g := (policy.Grant{Operation: test.operation, Card: test.card}); g.Bound() != test.want {
			t.Errorf("%q with card %q is bound: %t", test.operation, test.card, g.Bound())
		}
	}
}

// FuzzGrant: what decodes, encodes to the same bytes: there is one encoding of
// a grant, so nothing that differs in the store can mean the same.
func FuzzGrant(f *testing.F) {
	full := fullGrant()
	held := full
	held.Held = "\xff\x00held"
	for _, g := range []policy.Grant{full, held, {Partner: "p", MintedAt: 1}} {
		data, err := g.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var g policy.Grant
		if err := g.UnmarshalBinary(data); err != nil {
			if g != (policy.Grant{}) {
				t.Fatal("a grant beside an error")
			}
			return
		}
		again, err := g.MarshalBinary()
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x decodes to %+v, which encodes to %x: %v", data, g, again, err)
		}
	})
}

// TestGenerationHasOneEncoding: that of a grant without one is as it was before there were generations, which are read as 0.
func TestGenerationHasOneEncoding(t *testing.T) {
	g := fullGrant()
	g.Generation = 0
	old, err := g.MarshalBinary()
	if err != nil || old[1]&16 != 0 {
		t.Fatalf("%x, %v", old, err)
	}
	g.Generation = 0x0102030405060708
	with, err := g.MarshalBinary()
	if err != nil || with[1] != old[1]|16 || !bytes.Equal(with[10:18], []byte{1, 2, 3, 4, 5, 6, 7, 8}) || !bytes.Equal(with[18:], old[10:]) {
		t.Fatalf("%x, %v", with, err)
	}
	var back policy.Grant
	if err := back.UnmarshalBinary(old); err != nil || back.Generation != 0 {
		t.Errorf("%+v, %v", back, err)
	}
	zero := bytes.Clone(with)
	clear(zero[10:18])
	for name, data := range map[string][]byte{"zero, flagged": zero, "half of one": with[:14]} {
		if err := back.UnmarshalBinary(data); err == nil || back != (policy.Grant{}) {
			t.Errorf("%s: %+v, %v", name, back, err)
		}
	}
}
