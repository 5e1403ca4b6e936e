package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cardstile/cardstile/gateway/audit"
)

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestReopenUnderLoad(t *testing.T) {
	path := newPath(t)
	l := open(t, testConfig(path))
	var stop atomic.Bool
	var wg sync.WaitGroup
	var counts [8]int
	for i := range counts {
		wg.Go(func() {
			for ; !stop.Load(); counts[i]++ {
				if err := l.Record(context.Background(), event(fmt.Sprintf("x-%d-%d", i, counts[i]))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var files []string
	for n := range 20 {
		for before := l.Position().Seq; l.Position().Seq < before+10; {
			record(t, l, fmt.Sprintf("own-%d-%d", n, l.Position().Seq))
		}
		old := fmt.Sprintf("%s.%d", path, n)
		rename(t, path, old) // records go on into the old file until
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
		files = append(files, old)
	}
	stop.Store(true)
	wg.Wait()
	closeLog(t, l)
	files = append(files, path)
	r := verify(t, files...)
	if r.First != 1 || r.End != l.Position() {
		t.Errorf("from %d to %v", r.First, r.End)
	}
	found := exchanges(t, files...)
	for i, n := range counts {
		for j := range n {
			if id := fmt.Sprintf("x-%d-%d", i, j); found[id] != 1 {
				t.Errorf("%s was recorded %d times", id, found[id])
			}
		}
	}
	// Each file can be verified by itself, from where the one before ended.
	var end audit.Position
	for i, f := range files {
		options := []audit.VerifyOption{audit.After(end)}
		if i == 0 {
			options = nil
		}
		one, err := audit.VerifyFiles([]string{f}, testKey, options...)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && one.Notes[0].Kind != audit.NoteContinue {
			t.Errorf("%s begins with %s", f, one.Notes[0].Kind)
		}
		end = one.End
	}
}

func TestReopenWithoutRotation(t *testing.T) {
	path := newPath(t)
	l := open(t, testConfig(path))
	before := l.Position()
	for range 3 {
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	if l.Position() != before {
		t.Error("something was written")
	}
	record(t, l, "x")
	verify(t, path)
}

// A file that was put in the place of the log is taken only if it is the same log.
func TestReopenOnForeignFile(t *testing.T) {
	other := written(t, 3)
	path := newPath(t)
	l := open(t, testConfig(path))
	record(t, l, "x")
	cases := []struct {
		name string
		make func(copied []byte) []byte
	}{
		{"text", func([]byte) []byte { return []byte("hello\n") }},
		{"another log", func([]byte) []byte { return other }},
		{"older", func(b []byte) []byte { return b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] }},
		{"torn", func(b []byte) []byte { return append(b, '{') }},
		{"a newline short", func(b []byte) []byte { return b[:len(b)-1] }},
		{"a line more", func(b []byte) []byte { return append(b, "x\n"...) }},
	}
	for _, tt := range cases {
		content := tt.make(read(t, path))
		rename(t, path, path+".kept")
		write(t, path, content)
		if err := l.Reopen(); err == nil {
			t.Errorf("%s: taken", tt.name)
		}
		if !bytes.Equal(read(t, path), content) {
			t.Errorf("%s: changed", tt.name)
		}
		rename(t, path+".kept", path)
		record(t, l, tt.name) // into the file that stayed in force
	}
	// A copy that is complete goes on.
	copied := read(t, path)
	rename(t, path, path+".kept")
	write(t, path, copied)
	if err := l.Reopen(); err != nil {
		t.Error(err)
	}
	record(t, l, "copy")
	closeLog(t, l)
	if r := verify(t, path); r.Records != uint64(len(cases))+2 {
		t.Errorf("%d records", r.Records)
	}
}

func TestReopenFailureKeepsTheOldFile(t *testing.T) {
	path := newPath(t)
	kept := filepath.Join(t.TempDir(), "kept")
	c := testConfig(path)
	var disks []*disk
	c.Intercept(func(f audit.File) audit.File {
		d := &disk{File: f}
		if len(disks) == 1 {
			d.fault(hooks{ // what is left there concerns nobody
				onSync:     func(audit.File) error { return syscall.ENOSPC },
				onTruncate: func(audit.File, int64) error { return syscall.EIO },
			})
		}
		disks = append(disks, d)
		return d
	})
	l := open(t, c)
	record(t, l, "one")
	rename(t, path, kept)
	if err := l.Reopen(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if err := l.Ready(); err != nil {
		t.Errorf("the old file works: %v", err)
	}
	record(t, l, "two")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil { // the new disk has room now
		t.Fatal(err)
	}
	record(t, l, "three")
	closeLog(t, l)
	if r := verify(t, kept, path); r.Records != 3 || kinds(r) != "start continue stop " {
		t.Errorf("%d records, notes %s", r.Records, kinds(r))
	}
	if len(disks) != 3 {
		t.Errorf("%d files were opened", len(disks))
	}
}

// To go on in a new file is a way out of a failure, too.
func TestReopenHeals(t *testing.T) {
	path := newPath(t)
	c := testConfig(path)
	var disks []*disk
	c.Intercept(func(f audit.File) audit.File {
		disks = append(disks, &disk{File: f})
		return disks[len(disks)-1]
	})
	l := open(t, c)
	disks[0].fault(hooks{onWrite: func(audit.File, []byte) (int, error) { return 0, syscall.ENOSPC }})
	if err := l.Record(context.Background(), event("x")); err == nil {
		t.Fatal("recorded")
	}
	rename(t, path, path+".1")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
	closeLog(t, l)
	if r := verify(t, path+".1", path); kinds(r) != "start continue resumed stop " || r.Notes[2].Lost != 1 {
		t.Errorf("notes %s", kinds(r))
	}
}
