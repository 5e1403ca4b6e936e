package audit_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/audit"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	goleak.VerifyTestMain(m)
}

// testMAC is HMAC-SHA-256 under its own bytes.
type testMAC string

func (k testMAC) MAC(dst, message []byte) []byte {
	h := hmac.New(sha256.New, []byte(k))
	h.Write(message)
	return h.Sum(dst)
}

const testKey = testMAC("an audit key that is known to all")

// testTime is what every test's clock shows.
var testTime = time.Date(2026, 11, 23, 14, 40, 5, 120_000_000, time.UTC)

func testConfig(path string) audit.Config {
	return audit.Config{File: path, Instance: "gw-1", MAC: testKey, Clock: func() time.Time { return testTime }}
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "audit.jsonl") }

func open(t testing.TB, c audit.Config) *audit.Log {
	t.Helper()
	l, err := audit.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func event(exchange string) *audit.Event {
	return &audit.Event{Exchange: exchange, Operations: []string{"card.reveal"}, Partner: "gp-demo", Result: audit.ResultDone, Status: 200}
}

func record(t testing.TB, l *audit.Log, exchange string) {
	t.Helper()
	if err := l.Record(context.Background(), event(exchange)); err != nil {
		t.Fatal(err)
	}
}

func closeLog(t testing.TB, l *audit.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// written returns the bytes of a log with n records, opened and closed in order.
func written(t testing.TB, n int) []byte {
	t.Helper()
	path := newPath(t)
	l := open(t, testConfig(path))
	for i := range n {
		record(t, l, fmt.Sprintf("x-%d", i))
	}
	closeLog(t, l)
	return read(t, path)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// verify demands that the files are one chain without a fault.
func verify(t testing.TB, paths ...string) audit.Report {
	t.Helper()
	r, err := audit.VerifyFiles(paths, testKey)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// kinds returns the kinds of a report's notes.
func kinds(r audit.Report) string {
	var b bytes.Buffer
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "%s ", n.Kind)
	}
	return b.String()
}

// exchanges returns how often each exchange stands in the files.
func exchanges(t testing.TB, paths ...string) map[string]int {
	t.Helper()
	found := map[string]int{}
	for _, path := range paths {
		for line := range bytes.Lines(read(t, path)) {
			var r struct{ Exchange *string }
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatal(err)
			}
			if r.Exchange != nil {
				found[*r.Exchange]++
			}
		}
	}
	return found
}

// hooks are faults in front of a real file. A nil hook passes the call on.
type hooks struct {
	onWrite    func(f audit.File, b []byte) (int, error)
	onSync     func(f audit.File) error
	onTruncate func(f audit.File, size int64) error
}

// disk is a file with hooks, which a test may change at any time.
type disk struct {
	audit.File
	hooks         atomic.Pointer[hooks]
	syncs, writes atomic.Int64
}

// fault replaces all hooks.
func (d *disk) fault(h hooks) { d.hooks.Store(&h) }

// put makes c's log use d.
func (d *disk) put(c *audit.Config) {
	c.Intercept(func(f audit.File) audit.File {
		d.File = f
		return d
	})
}

func (d *disk) Write(b []byte) (int, error) {
	d.writes.Add(1)
	if h := d.hooks.Load(); h != nil && h.onWrite != nil {
		return h.onWrite(d.File, b)
	}
	return d.File.Write(b)
}

func (d *disk) Sync() error {
	d.syncs.Add(1)
	if h := d.hooks.Load(); h != nil && h.onSync != nil {
		return h.onSync(d.File)
	}
	return d.File.Sync()
}

func (d *disk) Truncate(size int64) error {
	if h := d.hooks.Load(); h != nil && h.onTruncate != nil {
		return h.onTruncate(d.File, size)
	}
	return d.File.Truncate(size)
}
