package policy_test

import (
	"slices"
	"testing"

	"github.com/cardstile/cardstile/policy"
)

// TestNarrowed: what takes a way from somebody, and what does not.
func TestNarrowed(t *testing.T) {
	one, two := subject(t, "C=US,CN=one"), subject(t, "C=US,CN=two")
	caA, caB, pinA, pinB := policy.Fingerprint{1}, policy.Fingerprint{2}, policy.Fingerprint{3}, policy.Fingerprint{4}
	of := func(subjects []policy.Subject, cas, pins []policy.Fingerprint) policy.Partner {
		return policy.Partner{ID: "p", Environment: "test", Subjects: subjects, CA: cas, Pins: pins}
	}
	base := of([]policy.Subject{one}, []policy.Fingerprint{caA}, []policy.Fingerprint{pinA, pinB})
	unpinned := of([]policy.Subject{one}, []policy.Fingerprint{caA}, nil)
	off := base
	off.Disabled = true
	keyless := policy.Partner{ID: "p", Environment: "test"}
	for name, test := range map[string]struct {
		before, now policy.Partner
		want        bool
	}{
		"nothing":               {base, base, false},
		"another order of pins": {base, of(base.Subjects, base.CA, []policy.Fingerprint{pinB, pinA}), false},
		"a pin less":            {base, of(base.Subjects, base.CA, []policy.Fingerprint{pinB}), true},
		"a pin more":            {of(base.Subjects, base.CA, []policy.Fingerprint{pinB}), base, false},
		"the first pin":         {unpinned, base, true},
		"the last pin":          {base, unpinned, false},
		"another subject":       {base, of([]policy.Subject{two}, base.CA, base.Pins), true},
		"a subject more":        {base, of([]policy.Subject{one, two}, base.CA, base.Pins), false},
		"another CA":            {base, of(base.Subjects, []policy.Fingerprint{caB}, base.Pins), true},
		"a CA more":             {base, of(base.Subjects, []policy.Fingerprint{caA, caB}, base.Pins), false},
		"no certificate":        {base, keyless, true},
		"a certificate":         {keyless, base, false},
		"disabled":              {base, off, true},
		"disabled, no key":      {keyless, off, true},
		"enabled":               {off, base, false},
		"still disabled":        {off, off, false},
	} {
		if got := policy.Narrowed(test.before.Ways(), test.now.Ways()); got != test.want {
			t.Errorf("%s: narrowed is %t", name, got)
		}
	}
	if !slices.Equal(base.Ways(), base.Ways()) || len(off.Ways()) != 0 {
		t.Error("ways have no one order, or somebody who is disabled has one")
	}
}
