package audit

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
)

// NoteKind names what a log says about itself. The zero value is invalid.
type NoteKind string

const (
	NoteStart      NoteKind = "start"
	NoteStop       NoteKind = "stop"
	NoteContinue   NoteKind = "continue"
	NoteResumed    NoteKind = "resumed"
	NoteTorn       NoteKind = "torn"
	NoteUnverified NoteKind = "unverified"
)

// note is a record that is not of an exchange.
type note struct {
	kind  NoteKind
	time  time.Time
	since time.Time // resumed: the first failure
	lost  uint64    // resumed: records refused since
	bytes int       // torn, unverified: how many were left in the file
	hash  [32]byte  // torn, unverified: their keyed hash
}

// appendBody appends what stands between instance and mac in the note's line.
func (n *note) appendBody(b []byte) []byte {
	b = append(b, `,"time":`...)
	b = appendTime(b, n.time)
	b = append(b, noteKey...)
	b = append(b, n.kind...)
	b = append(b, '"')
	switch n.kind {
	case NoteResumed:
		b = append(b, `,"since":`...)
		b = appendTime(b, n.since)
		b = append(b, `,"lost":`...)
		b = strconv.AppendUint(b, n.lost, 10)
	case NoteTorn, NoteUnverified:
		b = append(b, `,"torn_bytes":`...)
		b = strconv.AppendInt(b, int64(n.bytes), 10)
		b = append(b, `,"torn_mac":"`...)
		b = encoding.AppendEncode(b, n.hash[:])
		b = append(b, '"')
	}
	return b
}

// noteKey can stand in a line only as a key: within a text, quotes are escaped.
const noteKey = `,"note":"`

// leftover returns the note about bytes behind the last record.
func leftover(mac MAC, residue []byte) note {
	n := note{kind: NoteTorn, bytes: len(residue)}
	if bytes.IndexByte(residue, '\n') >= 0 {
		n.kind = NoteUnverified
	}
	sum(&n.hash, mac, residue)
	return n
}

// Note is a note as [Verify] found it.
type Note struct {
	File  string    `json:"-"` // as given to VerifyFiles
	Line  int       `json:"-"`
	Seq   uint64    `json:"seq"`
	Time  time.Time `json:"time"`
	Kind  NoteKind  `json:"note"`
	Since time.Time `json:"since"`      // resumed
	Lost  uint64    `json:"lost"`       // resumed
	Bytes int       `json:"torn_bytes"` // torn, unverified
	Hash  string    `json:"torn_mac"`   // torn, unverified: base64url
}

// readNote decodes a line that has proven to be a record, and reports whether it is a note.
func readNote(line []byte) (Note, bool) {
	if !bytes.Contains(line, []byte(noteKey)) {
		return Note{}, false
	}
	var n Note
	err := json.Unmarshal(line, &n) // what comes under our key is as we wrote it
	return n, err == nil
}

// torn reports whether n is about bytes in the place before it.
func (n *Note) torn() bool { return n.Kind == NoteTorn || n.Kind == NoteUnverified }

// accounts reports whether n is the note about the lines of residue, each of which ends in a newline here.
func (n *Note) accounts(mac MAC, residue []byte) bool {
	if !n.torn() {
		return false
	}
	if n.Bytes != len(residue) && n.Bytes != len(residue)-1 { // the newline at the end may be the one that closed it
		return false
	}
	var h [32]byte
	sum(&h, mac, residue[:n.Bytes])
	return isHash([]byte(n.Hash), &h)
}
