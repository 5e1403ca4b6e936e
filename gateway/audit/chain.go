package audit

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
)

// MAC is a keyed hash: it appends 32 bytes, made of message, to dst. It is safe for concurrent use and does not keep message.
type MAC interface {
	MAC(dst, message []byte) []byte
}

// Label is the name under which the MAC of a log is derived from a key of use "audit".
const Label = "cardstile audit log v1"

// Position is where a chain stands after a record: its number, and the keyed hash of its line, which the next record's prev repeats.
// Kept elsewhere, it proves later that nothing up to it was cut off ([Reach]). It holds nothing secret.
type Position struct {
	Seq  uint64
	Hash [32]byte
}

// String returns p as "seq:hash", the hash in base64url.
func (p Position) String() string {
	return strconv.FormatUint(p.Seq, 10) + ":" + encoding.EncodeToString(p.Hash[:])
}

// ParsePosition reads what [Position.String] wrote, and nothing else.
func ParsePosition(s string) (Position, error) {
	var p Position
	seq, hash, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(seq, 10, 64)
	if !ok || err != nil || len(hash) != hashText {
		return Position{}, errors.New("audit: position: want seq:hash")
	}
	if _, err := encoding.Decode(p.Hash[:], []byte(hash)); err != nil {
		return Position{}, errors.New("audit: position: hash is not base64url")
	}
	if p.Seq = n; p.String() != s {
		return Position{}, errors.New("audit: position: not in canonical form")
	}
	return p, nil
}

// encoding has several texts for one value: nothing that was read is compared but as the text that we write.
var encoding = base64.RawURLEncoding

const (
	hashText  = 43 // characters of 32 bytes in base64url
	seqKey    = `{"seq":`
	prevKey   = `,"prev":"`
	bodyKey   = `","instance":`
	macKey    = `,"mac":"`
	macEnd    = `"}`
	macLength = len(macKey) + hashText + len(macEnd)

	// maxLine is more than the longest line that [appendLine] can make, in bytes with the newline: ten texts and two lists of seventeen,
	// each at most 256 bytes that escaping makes six times longer.
	maxLine = 128 << 10
)

// genesis is the position before the first record.
func genesis(mac MAC) Position {
	var p Position
	sum(&p.Hash, mac, nil)
	return p
}

// chain makes the lines of a log: it numbers and links them.
type chain struct {
	mac      MAC
	instance []byte // as JSON
}

// appendLine appends the record that comes after at, with its newline, and moves at to it. body is what stands between instance and mac.
func (c *chain) appendLine(b []byte, at *Position, body []byte) []byte {
	start := len(b)
	at.Seq++
	b = append(b, seqKey...)
	b = strconv.AppendUint(b, at.Seq, 10)
	b = append(b, prevKey...)
	b = encoding.AppendEncode(b, at.Hash[:])
	b = append(b, bodyKey...)
	b = append(b, c.instance...)
	b = append(b, body...)

	sum(&at.Hash, c.mac, b[start:])
	b = append(b, macKey...)
	b = encoding.AppendEncode(b, at.Hash[:])
	b = append(b, macEnd...)

	sum(&at.Hash, c.mac, b[start:])
	return append(b, '\n')
}

// record is a line that has proven to be one.
type record struct {
	seq  uint64
	prev []byte   // as text, within the line
	hash [32]byte // of the whole line
}

// parse reads a line without its newline into r and reports whether it is a record made under mac's key. It says nothing about the line's
// place. Only lines that have the shape of a record cost a MAC.
func (r *record) parse(line []byte, mac MAC) bool {
	body, text, ok := split(line)
	if !ok {
		return false
	}
	rest, ok := bytes.CutPrefix(body, []byte(seqKey))
	if !ok {
		return false
	}
	digits, rest, ok := bytes.Cut(rest, []byte(prevKey))
	if !ok || len(digits) == 0 || len(digits) > 20 || digits[0] == '0' {
		return false
	}
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || len(rest) < hashText || !bytes.HasPrefix(rest[hashText:], []byte(bodyKey)) {
		return false
	}
	r.seq, r.prev = seq, rest[:hashText]

	sum(&r.hash, mac, body)
	if !isHash(text, &r.hash) {
		return false
	}
	sum(&r.hash, mac, line)
	return true
}

// split takes the text of a line's own MAC off.
func split(line []byte) (body, text []byte, ok bool) {
	if len(line) < macLength {
		return nil, nil, false
	}
	body, tail := line[:len(line)-macLength], line[len(line)-macLength:]
	text, ok = bytes.CutPrefix(tail, []byte(macKey))
	if !ok {
		return nil, nil, false
	}
	text, ok = bytes.CutSuffix(text, []byte(macEnd))
	return body, text, ok
}

// sum sets dst to the keyed hash of message.
func sum(dst *[32]byte, mac MAC, message []byte) {
	copy(dst[:], mac.MAC(dst[:0], message))
}

// isHash reports, in constant time, whether text is the one canonical text of h.
func isHash(text []byte, h *[32]byte) bool {
	var want [hashText]byte
	encoding.Encode(want[:], h[:])
	return subtle.ConstantTimeCompare(want[:], text) == 1
}
