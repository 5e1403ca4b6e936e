package gateway

import (
	"crypto/rand"
	"encoding/hex"
)

// trace is a W3C trace context (Trace Context level 1, section 3.2): the trace that an exchange belongs to, and a span of
// our own in it.
type trace struct {
	id    [16]byte
	span  [8]byte
	flags byte
}

// traceOf continues the trace of a traceparent header. One that is absent or malformed begins a new trace.
func traceOf(header string) trace {
	var t trace
	rand.Read(t.span[:])
	if !t.parse(header) {
		rand.Read(t.id[:])
		t.flags = 0
	}
	return t
}

// parse reads `00-<32 hex>-<16 hex>-<2 hex>`, lower case; all-zero ids are invalid.
func (t *trace) parse(h string) bool {
	if len(h) != 55 || h[:3] != "00-" || h[35] != '-' || h[52] != '-' {
		return false
	}
	for i := range len(h) {
		if c := h[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	var id [16]byte
	var parent [8]byte
	var flags [1]byte
	for _, part := range []struct {
		dst  []byte
		text string
	}{{id[:], h[3:35]}, {parent[:], h[36:52]}, {flags[:], h[53:]}} {
		if _, err := hex.Decode(part.dst, []byte(part.text)); err != nil {
			return false
		}
	}
	if id == [16]byte{} || parent == [8]byte{} {
		return false
	}
	t.id, t.flags = id, flags[0]&1 // only "sampled" is defined
	return true
}

// parent is the traceparent that the issuer gets.
func (t *trace) parent() string {
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, t.id[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, t.span[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, []byte{t.flags})
	return string(b)
}

// traceID is the trace's id as it stands in log and audit.
func (t *trace) traceID() string { return hex.EncodeToString(t.id[:]) }
