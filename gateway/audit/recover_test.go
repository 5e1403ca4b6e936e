package audit_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/gateway/audit"
)

// reopened opens a log whose file holds content, records once, closes, and returns the report and the file.
func reopened(t *testing.T, content []byte) (audit.Report, []byte) {
	t.Helper()
	path := newPath(t)
	write(t, path, content)
	l := open(t, testConfig(path))
	record(t, l, "later")
	closeLog(t, l)
	after := read(t, path)
	if !bytes.HasPrefix(after, content) {
		t.Fatal("what the file held has changed")
	}
	return verify(t, path), after
}

func TestReopenedLogContinues(t *testing.T) {
	r, _ := reopened(t, written(t, 3))
	if kinds(r) != "start stop start stop " || r.Records != 4 || r.End.Seq != 8 {
		t.Errorf("%d records, notes %s, end %v", r.Records, kinds(r), r.End)
	}
}

// A crash leaves any part of the last record.
func TestTornTailAtEveryByte(t *testing.T) {
	whole := written(t, 2)
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for cut := last + 1; cut < len(whole)-1; cut++ {
		r, _ := reopened(t, whole[:cut])
		if kinds(r) != "start torn start stop " || r.Records != 3 {
			t.Fatalf("cut at %d: %d records, notes %s", cut-last, r.Records, kinds(r))
		}
		if n := r.Notes[1]; n.Bytes != cut-last || n.Line != 5 || n.Seq != 4 {
			t.Fatalf("cut at %d: note %+v", cut-last, n)
		}
	}
}

// A record that lacks nothing but its newline is whole: it gets one.
func TestTornNewline(t *testing.T) {
	whole := written(t, 2)
	r, after := reopened(t, whole[:len(whole)-1])
	if kinds(r) != "start stop start stop " || r.Records != 3 || !bytes.HasPrefix(after, whole) {
		t.Errorf("%d records, notes %s", r.Records, kinds(r))
	}
}

// The very first record may be torn.
func TestTornFirstRecord(t *testing.T) {
	whole := written(t, 0)
	first := bytes.IndexByte(whole, '\n')
	for _, cut := range []int{1, 7, first / 2, first - 1} {
		if r, _ := reopened(t, whole[:cut]); kinds(r) != "torn start stop " || r.First != 1 {
			t.Errorf("cut at %d: notes %s", cut, kinds(r))
		}
	}
}

// A second crash, while the first one's note is written, leaves any part of that.
func TestTornTwiceAtEveryByte(t *testing.T) {
	whole := written(t, 2)
	torn := whole[:len(whole)-20]
	_, after := reopened(t, torn)
	note := bytes.IndexByte(after[len(torn)+1:], '\n') + 1 // its length
	for cut := 1; cut <= note; cut++ {
		r, _ := reopened(t, after[:len(torn)+cut])
		want := "start unverified start stop "
		if cut == note { // nothing but its newline is missing
			want = "start torn start stop "
		}
		if k := kinds(r); k != want || r.Records != 3 {
			t.Fatalf("cut at %d: %d records, notes %s", cut, r.Records, k)
		}
	}
}

// Blocks that were allocated but not written are zeros after a crash.
func TestTornTailOfZeros(t *testing.T) {
	whole := written(t, 2)
	for _, zeros := range []int{1, 4096, 65536} {
		if r, _ := reopened(t, append(bytes.Clone(whole), make([]byte, zeros)...)); kinds(r) != "start stop torn start stop " {
			t.Errorf("%d zeros: notes %s", zeros, kinds(r))
		}
	}
}

// Edits of the last record while the log is closed are not taken into the chain: they stay visible for ever.
func TestEditedTail(t *testing.T) {
	edited := bytes.Replace(written(t, 2), []byte(`"x-1"`), []byte(`"x-9"`), 1)
	stop := bytes.LastIndexByte(edited[:len(edited)-1], '\n') + 1
	r, _ := reopened(t, edited[:stop])
	if kinds(r) != "start unverified start stop " || r.Records != 2 {
		t.Errorf("%d records, notes %s", r.Records, kinds(r))
	}
}

func TestOpenRefusesForeignFiles(t *testing.T) {
	mine := written(t, 2)
	for name, content := range map[string][]byte{
		"text":           []byte("hello\n"),
		"empty lines":    []byte("\n\n\n"),
		"a long tail":    append(bytes.Clone(mine), bytes.Repeat([]byte("\n"), audit.TailWindow)...),
		"one long line":  bytes.Repeat([]byte("x"), audit.TailWindow+1),
		"another's line": bytes.ReplaceAll(mine, []byte("gw-1"), []byte("gw-2")),
	} {
		path := newPath(t)
		write(t, path, content)
		if _, err := audit.Open(testConfig(path)); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", name, err)
		}
		if !bytes.Equal(read(t, path), content) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestOpenRefusesAnotherKey(t *testing.T) {
	path := newPath(t)
	write(t, path, written(t, 2))
	c := testConfig(path)
	c.MAC = testMAC("another key")
	if _, err := audit.Open(c); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("got %v", err)
	}
}

func TestOneWriterPerFile(t *testing.T) {
	path := newPath(t)
	l := open(t, testConfig(path))
	if _, err := audit.Open(testConfig(path)); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("in this process: %v", err)
	}
	if out := runChild(t, "lock", path); !strings.Contains(out, path) || !strings.Contains(out, "in use") {
		t.Errorf("in another process: %s", out)
	}
	closeLog(t, l)
	if out := runChild(t, "lock", path); out != "opened\n" {
		t.Errorf("after close: %s", out)
	}
	if r := verify(t, path); kinds(r) != "start stop start stop " {
		t.Errorf("notes %s", kinds(r))
	}
}

// A log that could not be opened leaves no file that is open or locked.
func TestOpenFailureReleasesFile(t *testing.T) {
	path := newPath(t)
	write(t, path, []byte("hello\n"))
	for range 3 {
		if _, err := audit.Open(testConfig(path)); err == nil || strings.Contains(err.Error(), "in use") {
			t.Fatalf("got %v", err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	open(t, testConfig(path))
}

func FuzzOpen(f *testing.F) {
	mine := written(f, 2)
	f.Add([]byte{}, 0)
	f.Add([]byte("{\"seq\":"), 3)
	f.Add([]byte("\n"), 0)
	f.Add([]byte("\x00\n\x00"), 700)
	f.Add(mine[:100], len(mine))
	path := newPath(f)
	f.Fuzz(func(t *testing.T, tail []byte, cut int) {
		if cut < 0 || cut > len(mine) {
			return
		}
		content := append(bytes.Clone(mine[:len(mine)-cut]), tail...)
		write(t, path, content)
		l, err := audit.Open(testConfig(path))
		if err != nil {
			if !bytes.Equal(read(t, path), content) {
				t.Fatal("refused, and changed")
			}
			return
		}
		record(t, l, "later")
		closeLog(t, l)
		if !bytes.HasPrefix(read(t, path), content) {
			t.Fatal("what the file held has changed")
		}
		// Whatever whole records stood there, and whatever else: every byte is in the chain or accounted for.
		verify(t, path)
	})
}
