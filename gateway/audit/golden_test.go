package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/audit"
)

var update = flag.Bool("update", false, "write the golden file and the examples of the documentation anew")

const (
	goldenFile = "testdata/golden.jsonl"
	docFile    = "../../docs/audit.md"
)

// fullEvent has every field set.
func fullEvent() *audit.Event {
	return &audit.Event{
		Time:        time.Date(2026, 11, 23, 15, 40, 6, 7_008_009, time.FixedZone("", 3600)),
		Exchange:    "0193594c-6a3e-7b52-9d4e-2f1c8a7b6e5d",
		Trace:       "4bf92f3577b34da6a3ce929d0e0e4736",
		Phase:       audit.PhaseOutcome,
		Listener:    "public",
		Face:        "gnosispay",
		Operations:  []string{"pin.set", "card.profile"},
		Partner:     "gp-demo",
		User:        "user \"7\"\n",
		Account:     "3f2a9c51-0000-4000-8000-000000000001",
		Certificate: sha256.Sum256([]byte("certificate")),
		Card:        sha256.Sum256([]byte("card")),
		Issuer:      "rain",
		Call:        "GET /deals/{id}/credentials",
		Result:      audit.ResultUnknown,
		Reason:      "issuer_timeout",
		Rule:        "pins.cedar:12",
		Status:      504,
		Address:     netip.MustParseAddr("::ffff:192.0.2.7"),
		Legacy:      []string{"oaep-sha1"},
		Software:    true,
		Attempt:     [16]byte{1, 2, 15: 0xff},
		First:       audit.First{Attempt: [16]byte{15: 1}, Time: time.Date(2026, 11, 23, 15, 40, 1, 5_000_000, time.FixedZone("", 3600)), Partner: "gp-other"},
		Latency:     2*time.Second + 1999*time.Nanosecond,
	}
}

// goldenLog writes one record of each sort.
func goldenLog(t *testing.T) []byte {
	path := newPath(t)
	l := open(t, testConfig(path))
	reveal := event("0193594c-5b1f-7c43-8a21-6e0d9c8b7a69")
	reveal.Time, reveal.Listener, reveal.Face = testTime.Add(time.Second), "public", "gnosispay"
	reveal.Issuer, reveal.Rule, reveal.Card = "rain", "reveal.cedar:3", sha256.Sum256([]byte("another card"))
	reveal.Address, reveal.Latency = netip.MustParseAddr("2001:db8::1"), 3124*time.Microsecond
	refused := &audit.Event{Exchange: "0193594c-60aa-7d01-b2f4-0a1b2c3d4e5f", Operations: []string{"token.mint"},
		Result: audit.ResultRefused, Reason: "partner", Status: 403}
	intent := fullEvent()
	intent.Phase, intent.Result, intent.Reason, intent.Status, intent.Latency = audit.PhaseIntent, "", "", 0, 800*time.Microsecond
	for _, e := range []*audit.Event{reveal, refused, intent, fullEvent()} {
		if err := l.Record(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
	closeLog(t, l)
	return read(t, path)
}

func TestGolden(t *testing.T) {
	got := goldenLog(t)
	if *update {
		write(t, goldenFile, got)
	}
	if want := read(t, goldenFile); !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestFullEvent has every field of an event in the golden file, and so every member that the encoder can write.
func TestFullEvent(t *testing.T) {
	e := reflect.ValueOf(*fullEvent())
	for i := range e.NumField() {
		if e.Field(i).IsZero() {
			t.Errorf("%s is not set", e.Type().Field(i).Name)
		}
	}
}

// TestTables holds the two lists of fields, in the page for operators and in the package's comment, to the encoder: every
// member that it can write, no other, in its order.
func TestTables(t *testing.T) {
	all := lines(goldenLog(t))
	want := column(`[{,]"([a-z_]+)":`, string(all[len(all)-2])) // of the event that has every field; within a text, quotes are escaped
	_, page, _ := strings.Cut(string(read(t, docFile)), "\n## Fields\n")
	page, _, _ = strings.Cut(page, "\n\nText from outside")
	_, comment, _ := strings.Cut(string(read(t, "doc.go")), "# The fields of a record\n")
	comment, _, _ = strings.Cut(comment, "//\n// base64url is")
	for name, got := range map[string][]string{
		"docs/audit.md": column("(?m)^\\| (`[^|]*) \\|", page),
		"doc.go":        column("(?m)^//\t([a-z_]+) ", comment),
	} {
		if !slices.Equal(got, want) {
			t.Errorf("%s lists\n%q, and the encoder writes\n%q", name, got, want)
		}
	}
}

// column returns what a pattern finds, lists of names taken apart.
func column(pattern, text string) []string {
	var names []string
	for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		names = append(names, strings.Split(strings.ReplaceAll(found[1], "`", ""), ", ")...)
	}
	return names
}

// The page for operators shows the golden file's lines, and names every key that can stand in a line.
func TestDocumentation(t *testing.T) {
	const begin, end = "<!-- golden -->\n```json\n", "```\n<!-- /golden -->"
	doc := string(read(t, docFile))
	head, rest, ok1 := strings.Cut(doc, begin)
	shown, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("no marks for the example")
	}
	golden := string(read(t, goldenFile))
	if *update {
		if err := os.WriteFile(docFile, []byte(head+begin+golden+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if shown != golden {
		t.Error("the example is not the golden file: run the test with -update")
	}
	keys := []string{"since", "lost", "torn_bytes", "torn_mac"}
	for line := range strings.Lines(golden) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		for k := range fields {
			keys = append(keys, k)
		}
	}
	prose := head + tail
	for _, k := range keys {
		if !strings.Contains(prose, "`"+k+"`") {
			t.Errorf("field %s is not explained", k)
		}
	}
	for _, k := range []audit.NoteKind{audit.NoteStart, audit.NoteStop, audit.NoteContinue, audit.NoteResumed, audit.NoteTorn, audit.NoteUnverified} {
		if !strings.Contains(prose, "`"+string(k)+"`") {
			t.Errorf("note %s is not explained", k)
		}
	}
	for _, k := range []audit.FaultKind{audit.FaultEdited, audit.FaultGap, audit.FaultReordered, audit.FaultSpliced, audit.FaultHead, audit.FaultTail, audit.FaultTorn} {
		if !strings.Contains(prose, "`"+string(k)+"`") {
			t.Errorf("fault %s is not explained", k)
		}
	}
}

// The golden lines are also what an independent reader of JSON makes of the event.
func TestFields(t *testing.T) {
	var got map[string]any
	lines := bytes.Split(bytes.TrimSpace(goldenLog(t)), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-2], &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"seq": 5.0, "instance": "gw-1", "time": "2026-11-23T14:40:06.007008009Z", "phase": "outcome", "user": "user \"7\"\n",
		"certificate": "03d66dd08835c1ca3f128cceacd1f31ac94163096b20f445ae84285bc0832d72", "card": "8367cd66fdd136bba8ba23f8805bb050dd6289401c8ec3b0be44a3c233eef90d",
		"result": "unknown", "status": 504.0, "address": "192.0.2.7", "software": true,
		"attempt": "010200000000000000000000000000ff", "first_attempt": "00000000000000000000000000000001",
		"first_time": "2026-11-23T14:40:01.005000000Z", "first_partner": "gp-other", "latency_us": 2000001.0,
	} {
		if got[key] != want {
			t.Errorf("%s: got %v, want %v", key, got[key], want)
		}
	}
	if len(got) != 30 {
		t.Errorf("%d fields, want 30", len(got))
	}
}
