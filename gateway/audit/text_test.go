package audit_test

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cardstile/cardstile/gateway/audit"
)

// bounded is the rule of Event's doc comment, written down a second time without regard for speed.
func bounded(s string) string {
	runes := []rune(s) // an invalid byte becomes U+FFFD
	if len(string(runes)) <= audit.MaxText {
		return string(runes)
	}
	kept := ""
	for _, r := range runes {
		if len(kept)+len(string(r)) > audit.MaxText-len("…") {
			break
		}
		kept += string(r)
	}
	return kept + "…"
}

func checkText(t *testing.T, s string) {
	t.Helper()
	b := audit.AppendText([]byte("kept"), s)
	if !bytes.HasPrefix(b, []byte("kept")) {
		t.Fatalf("%q: overwrote what was there", s)
	}
	b = b[len("kept"):]
	for _, r := range string(b) {
		if !strconv.IsPrint(r) {
			t.Fatalf("%q: %q is not printable", s, b)
		}
	}
	var got string
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%q: %q: %v", s, b, err)
	}
	if want := bounded(s); got != want {
		t.Fatalf("%q: got %q, want %q", s, got, want)
	}
	if !utf8.Valid(b) || len(got) > audit.MaxText {
		t.Fatalf("%q: %d bytes: %q", s, len(got), b)
	}
}

func TestText(t *testing.T) {
	for r := rune(-1); r <= utf8.MaxRune+1; r++ {
		checkText(t, string(r))
	}
	for i := range 256 {
		checkText(t, "a"+string([]byte{byte(i)})+"b")
	}
	for _, s := range textSeeds() {
		checkText(t, s)
	}
}

func textSeeds() []string {
	seeds := []string{"", "plain", `"\`, "\x00\x1f\x7f\u0085", "\u202etxt.exe\u2066", "\u2028\u2029\ufeff", "😀\U000e0001", "\xff\xfe", "\xed\xa0\x80", "\xf0\x9f"}
	for n := 250; n <= 260; n++ {
		for _, unit := range []string{"a", "é", "€", "😀", "\xff", "\n"} {
			s := strings.Repeat("a", n)
			seeds = append(seeds, s+unit, s[:n-4]+unit+"bcd", strings.Repeat(unit, n), strings.Repeat(unit, n/len(unit)))
		}
	}
	return append(seeds, strings.Repeat("\xff", 85), strings.Repeat("\xff", 86), strings.Repeat("x", 1<<20))
}

func FuzzText(f *testing.F) {
	for _, s := range textSeeds() {
		if len(s) < 4096 {
			f.Add(s)
		}
	}
	f.Fuzz(func(t *testing.T, s string) { checkText(t, s) })
}
