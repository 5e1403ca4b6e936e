package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestOpenRefusesBadConfig(t *testing.T) {
	good := testConfig(newPath(t))
	for name, spoil := range map[string]func(*audit.Config){
		"no file":        func(c *audit.Config) { c.File = "" },
		"no instance":    func(c *audit.Config) { c.Instance = "" },
		"long instance":  func(c *audit.Config) { c.Instance = strings.Repeat("i", 257) },
		"no mac":         func(c *audit.Config) { c.MAC = nil },
		"negative batch": func(c *audit.Config) { c.MaxBatch = -1 },
		"huge batch":     func(c *audit.Config) { c.MaxBatch = 4097 },
		"no directory":   func(c *audit.Config) { c.File = filepath.Join(c.File, "x") },
		"a directory":    func(c *audit.Config) { c.File = filepath.Dir(c.File) },
		"a device":       func(c *audit.Config) { c.File = "/dev/null" },
	} {
		c := good
		spoil(&c)
		if l, err := audit.Open(c); err == nil {
			l.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

func TestOpenRefusesPipe(t *testing.T) {
	path := newPath(t)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Open(testConfig(path)); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("got %v", err)
	}
}

func TestFileMode(t *testing.T) {
	path := newPath(t)
	open(t, testConfig(path))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if m := info.Mode(); m != 0o600 {
		t.Errorf("mode %v", m)
	}
}

func TestRecordRefusesWhatMeansNothing(t *testing.T) {
	path := newPath(t)
	l := open(t, testConfig(path))
	for name, spoil := range map[string]func(*audit.Event){
		"no result":             func(e *audit.Event) { e.Result = "" },
		"unknown result":        func(e *audit.Event) { e.Result = "good" },
		"unknown phase":         func(e *audit.Event) { e.Phase = "later" },
		"intent with a result":  func(e *audit.Event) { e.Phase = audit.PhaseIntent },
		"outcome without one":   func(e *audit.Event) { e.Phase, e.Result = audit.PhaseOutcome, "" },
		"reason with space":     func(e *audit.Event) { e.Reason = "not a word" },
		"reason in capitals":    func(e *audit.Event) { e.Reason = "Expired" },
		"reason of 65 bytes":    func(e *audit.Event) { e.Reason = strings.Repeat("r", 65) },
		"a year of five digits": func(e *audit.Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"a year before 0":       func(e *audit.Event) { e.Time = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		e := event("x")
		spoil(e)
		if err := l.Record(context.Background(), e); err == nil {
			t.Errorf("%s: recorded", name)
		}
	}
	if err := l.Ready(); err != nil {
		t.Errorf("a bad event made the log unready: %v", err)
	}
	closeLog(t, l)
	if r := verify(t, path); r.Records != 0 {
		t.Errorf("%d records", r.Records)
	}
}

func TestReasonsOfTheContract(t *testing.T) {
	l := open(t, testConfig(newPath(t)))
	for _, reason := range []string{"", "no_policy", "not_holder", "unbound_token", "issuer-timeout", "a.b", strings.Repeat("r", 64)} {
		e := event("x")
		e.Reason = reason
		if err := l.Record(context.Background(), e); err != nil {
			t.Errorf("%q: %v", reason, err)
		}
	}
}

// Nothing from outside can make a line longer than the reader takes, or leave its line.
func TestWorstEvent(t *testing.T) {
	path := newPath(t)
	c := testConfig(path)
	c.Instance = strings.Repeat("\x00", 256)
	l := open(t, c)
	e := fullEvent()
	worst := strings.Repeat("\n", 1<<16)
	for _, s := range []*string{&e.Exchange, &e.Trace, &e.Listener, &e.Face, &e.Partner, &e.User, &e.Issuer, &e.Rule} {
		*s = worst
	}
	for range 1000 {
		e.Operations, e.Legacy = append(e.Operations, worst), append(e.Legacy, worst)
	}
	e.Address = netip.MustParseAddr("fe80::1%\"\n{}")
	e.Status, e.Latency = -1<<63, 1<<63-1
	if err := l.Record(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	verify(t, path)
	lines := bytes.Split(read(t, path), []byte("\n"))
	if len(lines) != 4 || len(lines[1]) >= audit.MaxLine {
		t.Fatalf("%d lines, the second of %d bytes", len(lines), len(lines[1]))
	}
	var got struct {
		Operations []string
		Address    string
		User       string
	}
	if err := json.Unmarshal(lines[1], &got); err != nil {
		t.Fatal(err)
	}
	if n := len(got.Operations); n != audit.MaxList+1 || got.Operations[n-1] != "…" {
		t.Errorf("%d operations", n)
	}
	if got.Address != "fe80::1" || got.User != strings.Repeat("\n", 253)+"…" {
		t.Errorf("address %q, user %q", got.Address, got.User)
	}
}

func TestNegativeLatency(t *testing.T) {
	path := newPath(t)
	l := open(t, testConfig(path))
	e := event("x")
	e.Latency = -time.Second
	if err := l.Record(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(read(t, path), []byte(`"latency_us":0,`)) {
		t.Error("not 0")
	}
}

func TestCloseDrainsAndRefuses(t *testing.T) {
	path := newPath(t)
	l := open(t, testConfig(path))
	record(t, l, "x")
	closeLog(t, l)
	closeLog(t, l) // twice does no harm
	if err := l.Record(context.Background(), event("y")); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("record: %v", err)
	}
	if err := l.Reopen(); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("reopen: %v", err)
	}
	if err := l.Ready(); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("ready: %v", err)
	}
	if r := verify(t, path); r.Records != 1 || kinds(r) != "start stop " || r.End != l.Position() {
		t.Errorf("%d records, notes %s, end %v", r.Records, kinds(r), r.End)
	}
}

// Two hundred recorders, a closer in between: who was told nil is in the file, once; who was told ErrClosed is not.
func TestRecordersAndCloseRace(t *testing.T) {
	path := newPath(t)
	c := testConfig(path)
	c.MaxBatch = 16
	l := open(t, c)
	const recorders, each = 200, 10
	var told sync.Map
	var wg sync.WaitGroup
	half := make(chan struct{}, recorders*each)
	for i := range recorders {
		wg.Go(func() {
			for j := range each {
				id := fmt.Sprintf("x-%d-%d", i, j)
				told.Store(id, l.Record(context.Background(), event(id)))
				half <- struct{}{}
			}
		})
	}
	for range recorders * each / 2 {
		<-half
	}
	closeLog(t, l)
	wg.Wait()
	verify(t, path)
	found := exchanges(t, path)
	told.Range(func(id, err any) bool {
		switch n := found[id.(string)]; {
		case err == nil && n != 1:
			t.Errorf("%s was recorded %d times", id, n)
		case err != nil && (n != 0 || !errors.Is(err.(error), audit.ErrClosed)):
			t.Errorf("%s: %v, and recorded %d times", id, err, n)
		}
		return true
	})
	if len(found) < recorders*each/2 {
		t.Errorf("only %d records", len(found))
	}
}

func TestMetrics(t *testing.T) {
	l := open(t, testConfig(newPath(t)))
	record(t, l, "x")
	e := event("y")
	e.Result = ""
	if err := l.Record(context.Background(), e); err == nil {
		t.Fatal("recorded")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Record(ctx, event("z")); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	closeLog(t, l)
	if err := l.Record(context.Background(), event("z")); err == nil {
		t.Fatal("recorded")
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(l.Collectors()...)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	want := `# HELP cardstile_audit_failures_total Audit records whose callers could not release their answer, and failed probes, by reason.
# TYPE cardstile_audit_failures_total counter
cardstile_audit_failures_total{reason="canceled"} 1
cardstile_audit_failures_total{reason="closed"} 1
cardstile_audit_failures_total{reason="full"} 0
cardstile_audit_failures_total{reason="invalid"} 1
cardstile_audit_failures_total{reason="removed"} 0
cardstile_audit_failures_total{reason="sync"} 0
cardstile_audit_failures_total{reason="truncate"} 0
cardstile_audit_failures_total{reason="write"} 0
# HELP cardstile_audit_records_total Audit records made durable, the log's own notes included.
# TYPE cardstile_audit_records_total counter
cardstile_audit_records_total 3
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "cardstile_audit_failures_total", "cardstile_audit_records_total"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(reg, "cardstile_audit_sync_duration_seconds", "cardstile_audit_batch_records"); n != 2 {
		t.Errorf("%d histograms", n)
	}
}
