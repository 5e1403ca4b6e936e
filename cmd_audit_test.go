package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/gateway/audit"
)

// TestRemarks has notes told apart that an auditor will ask about, by their numbers.
func TestRemarks(t *testing.T) {
	for _, c := range []struct {
		notes string // one a record, from number 7 on; "-" is an exchange
		want  []string
	}{
		{"", nil},
		{"start - stop start - stop start", nil},
		{"start - start stop", []string{"record 9: start without"}},
		{"- start stop", []string{"record 8: start without"}},
		{"continue start", []string{"record 8: start without"}},
		{"stop start", nil},
		{"start torn start resumed stop unverified start", []string{"record 8: torn", "record 9: start without", "record 10: resumed", "record 12: unverified"}},
	} {
		report := audit.Report{First: 7}
		for i, kind := range strings.Fields(c.notes) {
			if kind != "-" {
				report.Notes = append(report.Notes, audit.Note{Seq: 7 + uint64(i), Kind: audit.NoteKind(kind)})
			}
		}
		got := remarks(report)
		for i := range got {
			got[i] = strings.Replace(strings.TrimPrefix(got[i], "note at "), ", 0001-01-01T00:00:00Z", "", 1)
			got[i], _, _ = strings.Cut(got[i], " a stop")
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.notes, got, c.want)
		}
	}
}
