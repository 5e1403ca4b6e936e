package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cardstile/cardstile/gateway/audit"
)

func check(log []byte, options ...audit.VerifyOption) (audit.Report, error) {
	return audit.Verify(bytes.NewReader(log), testKey, options...)
}

// fault demands a fault of one kind at one line.
func fault(t *testing.T, what string, err error, kind audit.FaultKind, line int) *audit.Fault {
	t.Helper()
	f, ok := errors.AsType[*audit.Fault](err)
	if !ok {
		t.Fatalf("%s: got %v", what, err)
	}
	if f.Kind != kind || f.Line != line {
		t.Fatalf("%s: got %v, want %s at line %d", what, f, kind, line)
	}
	return f
}

// lines returns the lines of log with their newlines.
func lines(log []byte) [][]byte { return slices.Collect(bytes.Lines(log)) }

func join(lines ...[]byte) []byte { return bytes.Join(lines, nil) }

func TestVerifyReport(t *testing.T) {
	log := written(t, 4)
	r, err := check(log)
	if err != nil {
		t.Fatal(err)
	}
	if r.Records != 4 || r.First != 1 || r.End.Seq != 6 || kinds(r) != "start stop " || r.Notes[1].Line != 6 || !r.Notes[1].Time.Equal(testTime) {
		t.Errorf("%+v", r)
	}
	if r, err := check(nil); err != nil || r.First != 0 || r.Records != 0 {
		t.Errorf("empty: %+v %v", r, err)
	}
}

func TestVerifyDeletedLines(t *testing.T) {
	all := lines(written(t, 5))
	whole, err := check(join(all...))
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		less := join(slices.Delete(slices.Clone(all), i, i+1)...)
		_, err := check(less, audit.Reach(whole.End))
		kind := audit.FaultGap
		switch i {
		case 0:
			kind = audit.FaultHead
		case len(all) - 1:
			kind = audit.FaultTail
		}
		f := fault(t, fmt.Sprintf("line %d deleted", i+1), err, kind, i+1)
		if f.Seq != uint64(i+1) || !strings.Contains(f.Error(), fmt.Sprintf("records %d to %d", i+1, i+1)) {
			t.Errorf("line %d deleted: %v", i+1, f)
		}
	}
	_, err = check(join(all[:2]...), audit.Reach(whole.End))
	if f := fault(t, "tail", err, audit.FaultTail, 3); !strings.Contains(f.Error(), "records 3 to 7") {
		t.Error(f)
	}
	_, err = check(nil, audit.Reach(whole.End))
	fault(t, "everything", err, audit.FaultTail, 1)
}

func TestVerifyMovedLines(t *testing.T) {
	all := lines(written(t, 4))
	for i := range all {
		for j := range i {
			moved := slices.Clone(all)
			moved[i], moved[j] = moved[j], moved[i]
			_, err := check(join(moved...))
			fault(t, fmt.Sprintf("lines %d and %d swapped", j+1, i+1), err, audit.FaultReordered, j+1)

			twice := slices.Insert(slices.Clone(all), i, all[j])
			_, err = check(join(twice...))
			fault(t, fmt.Sprintf("line %d again before line %d", j+1, i+1), err, audit.FaultReordered, i+1)
		}
	}
}

func TestVerifyEveryByte(t *testing.T) {
	log := written(t, 3)
	ends := len(log) - 1 // the last newline
	line := 1
	for i, b := range log {
		for _, to := range []byte{b ^ 1, b ^ 0x20, b ^ 0x80, '\n', '"', 0} {
			if to == b {
				continue
			}
			edited := bytes.Clone(log)
			edited[i] = to
			_, err := check(edited)
			kind := audit.FaultEdited
			if i == ends {
				kind = audit.FaultTorn
			}
			fault(t, fmt.Sprintf("byte %d from %q to %q", i, b, to), err, kind, line)
		}
		if b == '\n' {
			line++
		}
	}
}

func TestVerifyTornAtEveryByte(t *testing.T) {
	log := written(t, 1)
	begin, line := 0, 1
	for i := range log {
		if i > begin {
			_, err := check(log[:i])
			f := fault(t, fmt.Sprintf("torn at %d", i), err, audit.FaultTorn, line)
			if f.Offset != int64(begin) || f.Seq != uint64(line) {
				t.Fatalf("torn at %d: %+v", i, f)
			}
		}
		if log[i] == '\n' {
			begin, line = i+1, line+1
		}
	}
}

// Records of two genuine histories of one log do not mix.
func TestVerifySplicedHistory(t *testing.T) {
	path := newPath(t)
	c := testConfig(path)
	l := open(t, c)
	record(t, l, "one")
	common := len(read(t, path))
	record(t, l, "two")
	record(t, l, "three")
	first := read(t, path)
	fork := l.Position()
	closeLog(t, l)
	write(t, path, first[:common]) // a cut, and the log goes on from there
	l = open(t, c)
	record(t, l, "zwei")
	closeLog(t, l)
	second := read(t, path)

	if _, err := check(second); err != nil {
		t.Fatal(err) // in itself it is whole
	}
	_, err := check(second, audit.Reach(fork))
	fault(t, "against an anchor", err, audit.FaultSpliced, 4)
	a, b := lines(first), lines(second)
	_, err = check(join(a[0], a[1], a[2], b[3]))
	fault(t, "spliced", err, audit.FaultSpliced, 4)
}

func TestVerifyStart(t *testing.T) {
	all := lines(written(t, 3))
	_, err := check(join(all[2:]...))
	if f := fault(t, "head", err, audit.FaultHead, 1); !strings.Contains(f.Error(), "records 1 to 2") {
		t.Error(f)
	}
	head, err := check(join(all[:2]...))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := check(join(all[2:]...), audit.After(head.End)); err != nil || r.First != 3 || r.End.Seq != 5 {
		t.Errorf("after: %+v %v", r, err)
	}
	wrong := head.End
	wrong.Hash[0]++
	_, err = check(join(all[2:]...), audit.After(wrong))
	fault(t, "after another", err, audit.FaultSpliced, 1)
	if r, err := check(join(all[2:]...), audit.Anywhere()); err != nil || r.First != 3 {
		t.Errorf("anywhere: %+v %v", r, err)
	}
	_, err = check(join(all[2], all[4]), audit.Anywhere())
	fault(t, "anywhere, with a gap", err, audit.FaultGap, 2)
	third := audit.Position{Seq: 3}
	_, err = check(join(all[2:]...), audit.Anywhere(), audit.Reach(third))
	fault(t, "anywhere, against an anchor", err, audit.FaultSpliced, 1)
}

func TestVerifyAnotherKey(t *testing.T) {
	_, err := audit.Verify(bytes.NewReader(written(t, 1)), testMAC("another"))
	fault(t, "another key", err, audit.FaultEdited, 1)
}

// Torn bytes are in order only where their note says so, to the byte.
func TestVerifyTornBytes(t *testing.T) {
	whole := written(t, 1)
	torn := whole[:len(whole)-9]
	_, log := reopened(t, torn)
	all := lines(log)
	if _, err := check(log); err != nil {
		t.Fatal(err)
	}
	for i := range all[2] {
		edited := bytes.Clone(log)
		edited[len(all[0])+len(all[1])+i] ^= 1
		_, err := check(edited)
		fault(t, fmt.Sprintf("torn byte %d", i), err, audit.FaultEdited, 3)
	}
	_, err := check(join(all[0], all[1], all[3], all[4]))
	if f := fault(t, "torn bytes removed", err, audit.FaultEdited, 3); !strings.Contains(f.Error(), "torn bytes that are not there") {
		t.Error(f)
	}
	_, err = check(join(all[0], all[1], all[2], all[4]))
	fault(t, "their note removed", err, audit.FaultEdited, 3)
	_, err = check(join(all[0], all[1], all[2], []byte("\n"), all[3]))
	fault(t, "an empty line more", err, audit.FaultEdited, 3)
	_, err = check(join(all[0], []byte("\n"), all[1]))
	fault(t, "an empty line", err, audit.FaultEdited, 2)
	_, err = check(append(bytes.Clone(log), "\n"...))
	fault(t, "an empty line at the end", err, audit.FaultEdited, len(all)+1)
}

func TestVerifyBounds(t *testing.T) {
	log := written(t, 1)
	first := lines(log)[0]
	_, err := check(append(bytes.Clone(first), bytes.Repeat([]byte("x"), 2*audit.MaxLine)...))
	fault(t, "an endless line", err, audit.FaultEdited, 2)
	_, err = check(append(bytes.Clone(first), bytes.Repeat([]byte("x\n"), audit.TailWindow)...))
	fault(t, "endless lines", err, audit.FaultEdited, 2)
	// Nothing is read beyond what a note can account for.
	endless := io.MultiReader(bytes.NewReader(first), bytes.NewReader(bytes.Repeat([]byte("x\n"), audit.TailWindow)), iotest.ErrReader(io.ErrClosedPipe))
	_, err = audit.Verify(endless, testKey)
	fault(t, "a reader that never ends", err, audit.FaultEdited, 2)
	broken := io.MultiReader(bytes.NewReader(log), iotest.ErrReader(io.ErrClosedPipe))
	if _, err := audit.Verify(broken, testKey); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a reader that fails: %v", err)
	}
	if _, err := audit.Verify(iotest.OneByteReader(bytes.NewReader(log)), testKey); err != nil {
		t.Errorf("a slow reader: %v", err)
	}
}

func TestVerifyFilesNamesTheFile(t *testing.T) {
	all := lines(written(t, 4))
	one, two := newPath(t), newPath(t)
	write(t, one, join(all[:3]...))
	write(t, two, join(all[3:]...))
	if r := verify(t, one, two); r.End.Seq != 6 || r.Notes[1].File != two || r.Notes[1].Line != 3 {
		t.Errorf("%+v", r)
	}
	write(t, two, join(all[3], all[5]))
	_, err := audit.VerifyFiles([]string{one, two}, testKey)
	if f := fault(t, "gap", err, audit.FaultGap, 2); f.File != two || !strings.Contains(f.Error(), two) || f.Offset != int64(len(all[3])) {
		t.Error(f)
	}
	write(t, one, join(all[:3]...)[1:])
	_, err = audit.VerifyFiles([]string{one, two}, testKey)
	if f := fault(t, "edited", err, audit.FaultEdited, 1); f.File != one {
		t.Error(f)
	}
	if _, err := audit.VerifyFiles([]string{one + "x"}, testKey); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestPosition(t *testing.T) {
	r, err := check(written(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	text := r.End.String()
	if p, err := audit.ParsePosition(text); err != nil || p != r.End {
		t.Errorf("%s: %v %v", text, p, err)
	}
	for _, s := range []string{"", ":", "3", text + "=", text + "AAAA", text[:len(text)-1], "0" + text, "+" + text, strings.Replace(text, ":", "", 1), text[:len(text)-1] + "\n"} {
		if _, err := audit.ParsePosition(s); err == nil {
			t.Errorf("%q: taken", s)
		}
	}
}

// FuzzVerify edits a log at one place: it verifies only if nothing but whole lines was cut off its end.
func FuzzVerify(f *testing.F) {
	_, log := reopenedFuzz(f)
	f.Add(0, 0, []byte{})
	f.Add(10, 1, []byte("x"))
	f.Add(len(log)-1, 1, []byte{})
	f.Add(0, len(lines(log)[0]), []byte{})
	f.Add(len(log), 0, lines(log)[0])
	f.Fuzz(func(t *testing.T, at, drop int, insert []byte) {
		if at < 0 || drop < 0 || at > len(log) || drop > len(log)-at {
			return
		}
		edited := join(log[:at], insert, log[at+drop:])
		r, err := check(edited)
		prefix := bytes.HasPrefix(log, edited) && (len(edited) == 0 || edited[len(edited)-1] == '\n')
		switch {
		case err == nil && !prefix:
			t.Fatalf("verified: %d bytes at %d replaced by %q", drop, at, insert)
		case err != nil && bytes.Equal(edited, log):
			t.Fatal(err)
		case err == nil && len(edited) < len(log):
			if _, err := check(edited, audit.Reach(audit.Position{Seq: r.End.Seq + 1})); err == nil {
				t.Fatal("the cut was not noticed against an anchor")
			}
		}
	})
}

// reopenedFuzz returns a log with a torn record in its middle.
func reopenedFuzz(f *testing.F) (string, []byte) {
	f.Helper()
	path := newPath(f)
	whole := written(f, 2)
	write(f, path, whole[:len(whole)-9])
	l := open(f, testConfig(path))
	record(f, l, "later")
	closeLog(f, l)
	return path, read(f, path)
}

// constantMAC accepts everything, so that a fuzzer gets past it.
type constantMAC struct{}

func (constantMAC) MAC(dst, _ []byte) []byte { return append(dst, make([]byte, 32)...) }

// FuzzParse: what is taken for a record says its number and link in the one form that we write.
func FuzzParse(f *testing.F) {
	zero := strings.Repeat("A", 43)
	f.Add([]byte(`{"seq":1,"prev":"` + zero + `","instance":"i","mac":"` + zero + `"}`))
	f.Add([]byte(`{"seq":18446744073709551615,"prev":"` + zero + `","instance":,"mac":"` + zero + `"}`))
	f.Add([]byte(`{"seq":018,"prev":"` + zero + `","instance":,"mac":"` + zero + `"}`))
	f.Add([]byte(`{"seq":1,"prev":"` + zero + `A","instance":"i","mac":"` + zero + `"}`))
	f.Add([]byte(`{"seq":1,"prev":"` + zero + `,"mac":"` + zero + `"}`))
	for line := range bytes.Lines(written(f, 1)) {
		f.Add(bytes.TrimSpace(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		seq, prev, ok := audit.ParseLine(line, constantMAC{})
		if !ok {
			return
		}
		head := fmt.Sprintf(`{"seq":%d,"prev":"%s","instance":`, seq, prev)
		tail := `,"mac":"` + zero + `"}`
		if seq == 0 || len(prev) != 43 || !strings.HasPrefix(string(line), head) || !strings.HasSuffix(string(line), tail) || len(line) < len(head)+len(tail) {
			t.Fatalf("%q was read as %d %q", line, seq, prev)
		}
	})
}
