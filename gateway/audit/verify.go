package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// FaultKind is what is wrong with a log. The zero value is invalid.
type FaultKind string

const (
	FaultEdited    FaultKind = "edited"         // not a record made under this key, or torn bytes that no note accounts for
	FaultGap       FaultKind = "gap"            // records are missing
	FaultReordered FaultKind = "reordered"      // a genuine record in another's place, or a second time
	FaultSpliced   FaultKind = "spliced"        // a genuine record that followed another one than here: of a second history
	FaultHead      FaultKind = "truncated head" // the first records are missing
	FaultTail      FaultKind = "truncated tail" // the last records are missing: an anchor is not reached
	FaultTorn      FaultKind = "torn tail"      // the last line has no newline: a crash, or a record that is just being written
)

// Fault is the first place at which a log is not what was written. As text it names the place and numbers, and quotes nothing.
type Fault struct {
	File   string // as given to VerifyFiles
	Line   int    // from 1; of the first line that is wrong, or behind the last one
	Offset int64  // of that line in bytes
	Kind   FaultKind
	Seq    uint64 // the number that a record should have had there
	Found  uint64 // the number of the record that stands there, or would come after a tail that is missing; 0: none
}

func (f *Fault) Error() string {
	where := fmt.Sprintf("line %d (byte %d)", f.Line, f.Offset)
	if f.File != "" {
		where = fmt.Sprintf("%s: %s", f.File, where)
	}
	return fmt.Sprintf("audit: %s: %s: %s", where, f.Kind, f.detail())
}

func (f *Fault) detail() string {
	switch f.Kind {
	case FaultEdited:
		if f.Found != 0 {
			return fmt.Sprintf("record %d accounts for torn bytes that are not there", f.Found)
		}
		return fmt.Sprintf("expected record %d, found something that was not written under this key", f.Seq)
	case FaultGap, FaultHead, FaultTail:
		return fmt.Sprintf("records %d to %d are missing", f.Seq, f.Found-1)
	case FaultReordered:
		return fmt.Sprintf("expected record %d, found %d", f.Seq, f.Found)
	case FaultSpliced:
		return fmt.Sprintf("record %d is genuine, but of another history", f.Found)
	case FaultTorn:
		return fmt.Sprintf("record %d is not whole", f.Seq)
	}
	panic("audit: internal error: fault without a kind")
}

// Report is what [Verify] found to be true, up to the fault if there is one.
type Report struct {
	Records uint64   // of exchanges
	Notes   []Note   // in their order
	First   uint64   // seq of the first record, note or not; 0: none
	End     Position // after the last one: where the next file goes on, or an anchor
}

// VerifyOption says what is known from elsewhere.
type VerifyOption func(*verifier)

// After says that the chain stood at p before the first line: the [Report.End] of the file before.
func After(p Position) VerifyOption {
	return func(v *verifier) { v.report.End = p }
}

// Anywhere takes the first record as it comes, whatever preceded it: for a file whose predecessors are gone.
func Anywhere() VerifyOption {
	return func(v *verifier) { v.anywhere = true }
}

// Reach says that the chain got as far as p once: a log that ends before it was cut, and one with another record there is another history.
// p must not lie before the first record, or nothing can be said about it.
func Reach(p Position) VerifyOption {
	return func(v *verifier) { v.anchor = p }
}

// Verify reads a log and checks each record's own keyed hash, its number and its link to the one before. The log must begin with the chain's first
// record unless an option says otherwise. Bytes that a crash left and a note accounts for are in order; they appear in [Report.Notes].
//
// The error is a [*Fault], or what r returned. Without [Reach], whole lines that were cut off the end are not noticed. The log may be in
// use: a record that is being written then looks like a torn tail.
func Verify(r io.Reader, mac MAC, options ...VerifyOption) (Report, error) {
	v := newVerifier(mac, options)
	if err := v.read(r); err != nil {
		return v.report, err
	}
	return v.report, v.finish()
}

// VerifyFiles is [Verify] for a log in several files, the oldest first. Lines and offsets count within each file, which the fault names.
func VerifyFiles(paths []string, mac MAC, options ...VerifyOption) (Report, error) {
	v := newVerifier(mac, options)
	for _, path := range paths {
		if err := v.readFile(path); err != nil {
			return v.report, err
		}
	}
	return v.report, v.finish()
}

// verifier reads one chain from one or several files.
type verifier struct {
	mac      MAC
	anywhere bool
	anchor   Position
	report   Report

	file    string
	line    int   // of the line that is being read
	offset  int64 // of that line
	record  record
	residue []byte // lines that are no records, until their note comes
	first   Fault  // where residue begins
}

func newVerifier(mac MAC, options []VerifyOption) *verifier {
	v := &verifier{mac: mac, report: Report{End: genesis(mac)}}
	for _, o := range options {
		o(v)
	}
	return v
}

func (v *verifier) readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	defer f.Close()
	v.file = path
	return v.read(f)
}

// read checks the lines of one file.
func (v *verifier) read(r io.Reader) error {
	v.line, v.offset = 0, 0
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		v.line++
		switch {
		case errors.Is(err, io.EOF):
			return v.end(line)
		case errors.Is(err, bufio.ErrBufferFull): // longer than any record
			return v.edited()
		case err != nil:
			return fmt.Errorf("audit: %s: read: %w", v.name(), err)
		}
		if err := v.next(line); err != nil {
			return v.explain(err, lines)
		}
		v.offset += int64(len(line))
	}
}

func (v *verifier) name() string {
	if v.file == "" {
		return "log"
	}
	return v.file
}

// fault describes the present line.
func (v *verifier) fault(kind FaultKind, found uint64) *Fault {
	return &Fault{File: v.file, Line: v.line, Offset: v.offset, Kind: kind, Seq: v.report.End.Seq + 1, Found: found}
}

// edited returns the fault of the first line that is no record: the present one, or where residue began.
func (v *verifier) edited() *Fault {
	if len(v.residue) > 0 {
		return &v.first
	}
	return v.fault(FaultEdited, 0)
}

// next takes a line with its newline.
func (v *verifier) next(line []byte) *Fault {
	whole := line[:len(line)-1]
	if !v.record.parse(whole, v.mac) {
		if len(v.residue) == 0 {
			v.first = *v.fault(FaultEdited, 0)
		}
		if len(v.residue)+len(line) > tailWindow { // more than a note accounts for
			return v.edited()
		}
		v.residue = append(v.residue, line...)
		return nil
	}
	n, isNote := readNote(whole)
	if len(v.residue) > 0 && !(isNote && n.accounts(v.mac, v.residue)) {
		return v.edited()
	}
	if len(v.residue) == 0 && isNote && n.torn() {
		return v.fault(FaultEdited, v.record.seq)
	}
	if f := v.place(); f != nil {
		return f
	}
	v.accept(&n, isNote)
	return nil
}

// place checks that the record is the one that comes after the last.
func (v *verifier) place() *Fault {
	seq, want := v.record.seq, v.report.End.Seq+1
	switch {
	case v.report.First == 0 && v.anywhere:
	case seq < want:
		return v.fault(FaultReordered, seq)
	case seq > want && v.report.First == 0:
		return v.fault(FaultHead, seq)
	case seq > want:
		return v.fault(FaultGap, seq)
	case !isHash(v.record.prev, &v.report.End.Hash):
		return v.fault(FaultSpliced, seq)
	}
	return v.anchored(Position{Seq: seq, Hash: v.record.hash})
}

// anchored checks that the chain goes through the anchor.
func (v *verifier) anchored(p Position) *Fault {
	if p.Seq == v.anchor.Seq && p != v.anchor {
		return v.fault(FaultSpliced, p.Seq)
	}
	return nil
}

func (v *verifier) accept(n *Note, isNote bool) {
	if v.report.First == 0 {
		v.report.First = v.record.seq
	}
	if isNote {
		n.File, n.Line = v.file, v.line
		v.report.Notes = append(v.report.Notes, *n)
	} else {
		v.report.Records++
	}
	v.report.End = Position{Seq: v.record.seq, Hash: v.record.hash}
	v.residue = v.residue[:0]
}

// end judges what stands behind the last newline of a file.
func (v *verifier) end(rest []byte) error {
	switch {
	case len(v.residue) > 0:
		return v.edited()
	case len(rest) > 0:
		return v.fault(FaultTorn, 0)
	}
	return nil
}

// finish judges the end of the whole chain.
func (v *verifier) finish() error {
	if v.report.End.Seq < v.anchor.Seq {
		return v.fault(FaultTail, v.anchor.Seq+1)
	}
	return nil
}

// explain tells a missing record from one that stands further down.
func (v *verifier) explain(f *Fault, rest *bufio.Reader) error {
	if f.Kind != FaultGap && f.Kind != FaultHead {
		return f
	}
	for {
		line, err := rest.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return f
		}
		if v.record.parse(bytes.TrimSuffix(line, []byte("\n")), v.mac) && v.record.seq == f.Seq {
			f.Kind = FaultReordered
			return f
		}
	}
}
