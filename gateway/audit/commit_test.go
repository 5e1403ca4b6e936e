package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/prometheus/client_golang/prometheus"
)

// The tests of this file run in synctest bubbles: Wait returns when every goroutine of the log and of the test waits for another, and time
// passes only then. Nothing depends on how fast the machine is.

// start records n events at once and returns where their errors arrive.
func start(l *audit.Log, n int) chan error {
	answers := make(chan error, n)
	for i := range n {
		go func() { answers <- l.Record(context.Background(), event(fmt.Sprintf("x-%d", i))) }()
	}
	return answers
}

func TestRecordReturnsOnlyAfterSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		c := testConfig(path)
		d := &disk{}
		d.put(&c)
		l := open(t, c)
		release := make(chan struct{})
		d.fault(hooks{onSync: func(f audit.File) error { <-release; return f.Sync() }})

		before := l.Position()
		answers := start(l, 1)
		synctest.Wait()
		if len(answers) > 0 {
			t.Error("returned before the sync")
		}
		if l.Position() != before {
			t.Error("the position moved before the sync")
		}
		if exchanges(t, path)["x-0"] != 1 {
			t.Error("not written before the sync")
		}
		close(release)
		if err := <-answers; err != nil {
			t.Error(err)
		}
		closeLog(t, l)
	})
}

func TestConcurrentRecordsShareOneSync(t *testing.T) {
	for _, tt := range []struct {
		max, waiting int
		syncs        int64
	}{
		{256, 50, 1}, {256, 256, 1}, {10, 50, 5}, {1, 7, 7},
	} {
		synctest.Test(t, func(t *testing.T) {
			path := newPath(t)
			c := testConfig(path)
			c.MaxBatch = tt.max
			d := &disk{}
			d.put(&c)
			l := open(t, c)
			release := make(chan struct{})
			d.fault(hooks{onSync: func(f audit.File) error { <-release; return f.Sync() }})
			first := start(l, 1)
			synctest.Wait() // the first is in its sync
			answers := start(l, tt.waiting)
			synctest.Wait() // and the others in the queue, or waiting for it

			syncs, writes := d.syncs.Load(), d.writes.Load()
			close(release)
			for range tt.waiting {
				if err := <-answers; err != nil {
					t.Error(err)
				}
			}
			<-first
			syncs, writes = d.syncs.Load()-syncs, d.writes.Load()-writes
			if syncs != tt.syncs || writes != tt.syncs {
				t.Errorf("%d records, at most %d at once: %d syncs, %d writes, want %d", tt.waiting, tt.max, syncs, writes, tt.syncs)
			}
			closeLog(t, l)
			if r := verify(t, path); r.Records != uint64(tt.waiting)+1 {
				t.Errorf("%d records", r.Records)
			}
		})
	}
}

// A batch also ends after a mebibyte.
func TestBatchIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(newPath(t))
		d := &disk{}
		d.put(&c)
		l := open(t, c)
		release := make(chan struct{})
		largest := 0
		d.fault(hooks{
			onSync:  func(f audit.File) error { <-release; return f.Sync() },
			onWrite: func(f audit.File, b []byte) (int, error) { largest = max(largest, len(b)); return f.Write(b) },
		})
		e := event("x")
		e.Operations = slices.Repeat([]string{strings.Repeat("\x00", 256)}, 16)
		answers := make(chan error, 200)
		for range cap(answers) {
			go func() { answers <- l.Record(context.Background(), e) }()
		}
		synctest.Wait()
		close(release)
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if largest < 1<<20 || largest > 1<<20+audit.MaxLine {
			t.Errorf("the largest write had %d bytes", largest)
		}
		closeLog(t, l)
	})
}

func TestContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		c := testConfig(path)
		c.MaxBatch = 1
		d := &disk{}
		d.put(&c)
		l := open(t, c)
		release := make(chan struct{})
		d.fault(hooks{onSync: func(f audit.File) error { <-release; return f.Sync() }})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		answers := make(chan error, 3)
		for _, id := range []string{"syncing", "queued", "outside"} {
			go func() { answers <- l.Record(ctx, event(id)) }()
			synctest.Wait()
		}
		for range 3 {
			if err := <-answers; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
		if err := l.Record(ctx, event("late")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		close(release)
		closeLog(t, l)
		verify(t, path)
		// The first two were the writer's already, and are written although nobody waits; the third never was.
		if got := exchanges(t, path); got["syncing"] != 1 || got["queued"] != 1 || len(got) != 2 {
			t.Errorf("recorded %v", got)
		}
	})
}

// The answer for a caller who left goes to nobody else.
func TestAnswerForOneWhoLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		c := testConfig(path)
		d := &disk{}
		d.put(&c)
		l := open(t, c)
		step := make(chan struct{})
		d.fault(hooks{onSync: func(f audit.File) error { <-step; return f.Sync() }})
		answer := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := l.Record(ctx, event("left")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			answer <- l.Record(context.Background(), event("stayed"))
		}()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		step <- struct{}{} // the sync of the one who left
		synctest.Wait()
		if len(answer) > 0 {
			t.Error("the next caller got the answer")
		}
		close(step)
		if err := <-answer; err != nil {
			t.Error(err)
		}
		closeLog(t, l)
		if got := exchanges(t, path); got["left"] != 1 || got["stayed"] != 1 {
			t.Errorf("recorded %v", got)
		}
	})
}

// counter returns the value of one reason of cardstile_audit_failures_total.
func counter(t *testing.T, l *audit.Log, reason string) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(l.Collectors()...)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "cardstile_audit_failures_total" && m.GetLabel()[0].GetValue() == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no reason %q", reason)
	return 0
}

func TestFailures(t *testing.T) {
	half := func(err error) func(f audit.File, b []byte) (int, error) {
		return func(f audit.File, b []byte) (int, error) {
			n, _ := f.Write(b[:len(b)/2])
			return n, err
		}
	}
	whole := func(err error) func(f audit.File, b []byte) (int, error) {
		return func(f audit.File, b []byte) (int, error) {
			n, _ := f.Write(b)
			return n, err
		}
	}
	for _, tt := range []struct {
		name   string
		fault  hooks
		reason string
		want   error
	}{
		{"no space", hooks{onWrite: half(syscall.ENOSPC)}, "full", syscall.ENOSPC},
		{"quota", hooks{onWrite: half(syscall.EDQUOT)}, "full", syscall.EDQUOT},
		{"file size limit", hooks{onWrite: half(syscall.EFBIG)}, "full", syscall.EFBIG},
		{"nothing written", hooks{onWrite: func(audit.File, []byte) (int, error) { return 0, syscall.ENOSPC }}, "full", syscall.ENOSPC},
		{"all written, and an error", hooks{onWrite: whole(syscall.EIO)}, "write", syscall.EIO},
		{"i/o error", hooks{onWrite: half(&os.PathError{Op: "write", Path: "p", Err: syscall.EIO})}, "write", syscall.EIO},
		{"short, without an error", hooks{onWrite: half(nil)}, "write", nil},
		{"sync", hooks{onSync: func(audit.File) error { return syscall.EIO }}, "sync", syscall.EIO},
		{"no space at sync", hooks{onSync: func(audit.File) error { return syscall.ENOSPC }}, "full", syscall.ENOSPC},
		{"sync, after it reached the disk", hooks{onSync: func(f audit.File) error { f.Sync(); return syscall.EIO }}, "sync", syscall.EIO},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testFailure(t, tt.fault, tt.reason, tt.want) })
		})
	}
}

func testFailure(t *testing.T, fault hooks, reason string, want error) {
	path := newPath(t)
	c := testConfig(path)
	d := &disk{}
	d.put(&c)
	l := open(t, c)
	record(t, l, "before")
	good := read(t, path)
	at := l.Position()

	// Ten callers: one is in a sync when the fault comes, the others share the batch after it.
	release := make(chan struct{})
	d.fault(hooks{onSync: func(audit.File) error { <-release; return syscall.EIO }})
	first := start(l, 1)
	synctest.Wait()
	answers := start(l, 9)
	synctest.Wait()
	d.fault(fault)
	close(release)
	if err := <-first; !errors.Is(err, syscall.EIO) {
		t.Errorf("the first caller got %v", err)
	}
	for range 9 {
		err := <-answers
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("a caller got %v, want %v", err, want)
		} else if s := err.Error(); strings.Count(s, path) != 1 {
			t.Errorf("%s: does not name the file, once", s)
		}
	}
	if got := read(t, path); !bytes.Equal(got, good) {
		t.Errorf("%d bytes stay behind", len(got)-len(good))
	}
	if l.Position() != at {
		t.Error("the position moved")
	}
	if err := l.Ready(); err == nil || want != nil && !errors.Is(err, want) {
		t.Errorf("ready: %v", err)
	}
	if n := counter(t, l, reason); n < 9 {
		t.Errorf("%v failures for %s", n, reason)
	}

	// The fault goes away. Nobody records anything, and the log is ready again.
	d.fault(hooks{})
	for l.Ready() != nil {
		time.Sleep(time.Second)
	}
	record(t, l, "after")
	closeLog(t, l)
	r := verify(t, path)
	if r.Records != 2 || kinds(r) != "start resumed stop " {
		t.Errorf("%d records, notes %s", r.Records, kinds(r))
	}
	if n := r.Notes[1]; n.Lost != 10 || !n.Since.Equal(testTime) {
		t.Errorf("resumed: %d lost since %v", n.Lost, n.Since)
	}
	if got := exchanges(t, path); got["before"] != 1 || got["after"] != 1 || len(got) != 2 {
		t.Errorf("recorded %v", got)
	}
}

// What a failed write left and a failed truncation could not take away is taken away before anything else is written, and nobody opens
// a new file before that.
func TestFailedTruncation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		c := testConfig(path)
		d := &disk{}
		d.put(&c)
		l := open(t, c)
		record(t, l, "before")
		readOnly := func(audit.File, int64) error { return syscall.EROFS }
		d.fault(hooks{onSync: func(audit.File) error { return syscall.EIO }, onTruncate: readOnly})
		if err := <-start(l, 1); !errors.Is(err, syscall.EIO) {
			t.Errorf("got %v", err)
		}
		d.fault(hooks{onTruncate: readOnly})
		writes := d.writes.Load()
		if err := <-start(l, 1); !errors.Is(err, syscall.EROFS) {
			t.Errorf("got %v", err)
		}
		if d.writes.Load() != writes {
			t.Error("wrote behind what could not be taken away")
		}
		if n := counter(t, l, "truncate"); n < 1 {
			t.Error("not counted")
		}
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(); !errors.Is(err, syscall.EROFS) {
			t.Errorf("reopen: %v", err)
		}
		d.fault(hooks{})
		record(t, l, "after")
		closeLog(t, l)
		if got := exchanges(t, path+".1"); got["before"] != 1 || got["after"] != 1 || len(got) != 2 {
			t.Errorf("recorded %v", got)
		}
		verify(t, path+".1")
	})
}

// A file that somebody else made shorter is not made longer again.
func TestUndoNeverExtends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		c := testConfig(path)
		d := &disk{}
		d.put(&c)
		l := open(t, c)
		record(t, l, "x")
		d.fault(hooks{onWrite: func(f audit.File, b []byte) (int, error) {
			f.Truncate(0)
			return 0, syscall.EIO
		}})
		if err := <-start(l, 1); err == nil {
			t.Error("recorded")
		}
		if b := read(t, path); len(b) > 0 {
			t.Errorf("the file has %d bytes", len(b))
		}
		d.fault(hooks{})
		closeLog(t, l)
	})
}

// Records in a file without a name would be lost with the process.
func TestRemovedFile(t *testing.T) {
	path := newPath(t)
	l := open(t, testConfig(path))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Record(context.Background(), event("x")); err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("got %v", err)
	}
	if l.Ready() == nil || counter(t, l, "removed") < 1 {
		t.Error("still ready, or not counted")
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
	record(t, l, "y")
	if r, err := audit.VerifyFiles([]string{path}, testKey, audit.Anywhere()); err != nil || r.First != 2 || r.Records != 1 {
		t.Errorf("%+v %v", r, err)
	}
}

// While the disk fails and nobody records anything, probes come after 0.1, 0.2, 0.4, … and at most 5 seconds; records are tried at once.
func TestProbesBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(newPath(t))
		d := &disk{}
		d.put(&c)
		l := open(t, c)
		var at []time.Duration
		began := time.Now()
		d.fault(hooks{onWrite: func(audit.File, []byte) (int, error) {
			at = append(at, time.Since(began))
			return 0, syscall.ENOSPC
		}})
		if err := <-start(l, 1); err == nil {
			t.Error("recorded")
		}
		time.Sleep(50 * time.Millisecond)
		if err := <-start(l, 1); err == nil { // tried at once, and no reason to probe later
			t.Error("recorded")
		}
		time.Sleep(22*time.Second - 50*time.Millisecond)
		synctest.Wait()
		ms := time.Millisecond
		want := []time.Duration{0, 50 * ms, 100 * ms, 300 * ms, 700 * ms, 1500 * ms, 3100 * ms, 6300 * ms, 11300 * ms, 16300 * ms, 21300 * ms}
		if !slices.Equal(at, want) {
			t.Errorf("tried after %v, want %v", at, want)
		}
		d.fault(hooks{})
		record(t, l, "x") // does not wait for the probe
		if err := l.Ready(); err != nil || time.Since(began) != 22*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		writes := d.writes.Load()
		time.Sleep(time.Minute)
		synctest.Wait()
		if d.writes.Load() != writes {
			t.Error("probes go on after recovery")
		}
		closeLog(t, l)
	})
}

// A disk that is full at the start stops releases, not the process.
func TestOpenOnFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		torn := written(t, 2)
		write(t, path, torn[:len(torn)-5])
		c := testConfig(path)
		d := &disk{}
		d.fault(hooks{onWrite: func(audit.File, []byte) (int, error) { return 0, syscall.ENOSPC }})
		d.put(&c)
		l := open(t, c)
		if err := l.Ready(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("ready: %v", err)
		}
		// Its torn record has no note yet, which belongs into the same file.
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(); err == nil {
			t.Error("reopened")
		}
		synctest.Wait()
		d.fault(hooks{})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if err := l.Ready(); err != nil {
			t.Error(err)
		}
		closeLog(t, l)
		if r := verify(t, path+".1"); kinds(r) != "start torn start resumed stop " || r.Records != 2 {
			t.Errorf("%d records, notes %s", r.Records, kinds(r))
		}
	})
}

func TestCloseReportsFailure(t *testing.T) {
	c := testConfig(newPath(t))
	d := &disk{}
	d.put(&c)
	l := open(t, c)
	d.fault(hooks{onSync: func(audit.File) error { return syscall.EIO }})
	if err := l.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
}
