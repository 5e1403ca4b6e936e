package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// What callers of a Body treat differently. None is wrapped around anything that quotes a body.
var (
	// ErrBody says that a body is not what its shape wants: too long, not strict JSON, nested too deep.
	ErrBody = errors.New("malformed body")
	// ErrBodyTooLarge says that a body is longer than its shape allows. It is an [ErrBody] too: who answers the two
	// differently asks for this one first.
	ErrBodyTooLarge = fmt.Errorf("%w: too large", ErrBody)
	// ErrMember says that a member of a body is not there, is not what it was declared to be, or was not declared.
	ErrMember = errors.New("no such member, or not what it must be")
)

// Body is a JSON message that may hold card data in clear [12]. Who has one can read the members that its shape declares
// public, and get handles to the sensitive ones; nobody outside this package reads its bytes.
//
// It does not defend against a reader of the process's memory: net/http's buffers held the same bytes before.
// It belongs to one exchange: it is not safe for concurrent use.
type Body struct {
	shape *Shape
	raw   *secret.Buffer // nil content once closed
	found []span         // by index into shape.members
	few   [8]span        // what found is in, if it fits
}

// span is where a declared member stands. Its kind is zero where it is absent.
type span struct {
	start, end int
	kind       jsontext.Kind
	children   int
}

// NewBody takes ownership of raw and reads it once: the caller touches it no more, and it is zeroed, up to its capacity,
// by Close, or here where NewBody fails. The error is [ErrBody], with where it went wrong and nothing of what stood there.
func NewBody(raw []byte, shape *Shape) (*Body, error) {
	b := unread(raw, shape)
	if len(raw) > shape.maxBytes {
		b.Close()
		return nil, fmt.Errorf("%w: more than %d bytes", ErrBodyTooLarge, shape.maxBytes)
	}
	if err := walk(raw, shape.root, shape.maxDepth, b); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// unread is a Body in which no member was found.
func unread(raw []byte, shape *Shape) *Body {
	b := &Body{shape: shape, raw: secret.From(raw)}
	if b.found = b.few[:]; len(shape.members) > len(b.few) {
		b.found = make([]span, len(shape.members))
	}
	return b
}

// visit implements visitor.
func (b *Body) visit(v *visited) error {
	if v.node != nil && v.node.member >= 0 {
		b.found[v.node.member] = span{v.start, v.end, v.kind, v.children}
	}
	return nil
}

// Empty reports whether it is a body of zero bytes, as [ReadBody] makes of a message that has none. It has no members.
func (b *Body) Empty() bool {
	raw := b.raw.Bytes()
	return raw != nil && len(raw) == 0
}

// Close zeroes the body. Handles to its fields are good for nothing afterwards. It may be called twice and on nil.
func (b *Body) Close() {
	if b != nil {
		b.raw.Destroy()
	}
}

// Has reports whether a declared member is there, with another value than null.
func (b *Body) Has(pointer string) bool {
	kind := b.kind(pointer)
	return kind != 0 && kind != jsontext.KindNull
}

// Null reports whether a declared member is there and null.
func (b *Body) Null(pointer string) bool { return b.kind(pointer) == jsontext.KindNull }

func (b *Body) kind(pointer string) jsontext.Kind {
	for _, of := range []use{usePublic, useClear, useSealed, useToken} {
		if i := b.shape.index(pointer, of); i >= 0 && b.raw.Len() > 0 {
			return b.found[i].kind
		}
	}
	return 0
}

// HoldsPAN reports whether there is a card number outside the strings that are declared to hold one: see [HoldsPAN].
func (b *Body) HoldsPAN() bool {
	raw, from := b.raw.Bytes(), 0
	if raw == nil {
		return false
	}
	var g Guard
	defer g.Reset()
	for index := b.next(from); index >= 0; index = b.next(from) {
		at := b.found[index]
		if b.shape.members[index].use == useClear && at.kind == jsontext.KindString {
			_, _ = g.Write(raw[from : at.start+1]) // as far as the quote
			from = at.end - 1
			continue
		}
		_, _ = g.Write(raw[from:at.end])
		from = at.end
	}
	if len(raw) > from {
		_, _ = g.Write(raw[from:])
	}
	return g.end()
}

// Text returns a member that is declared public. It fails with [ErrMember] where it is no string, and where it holds a
// card number: that was no public member then.
func (b *Body) Text(pointer string) (string, error) { return b.text(b.shape.index(pointer, usePublic)) }

func (b *Body) text(index int) (string, error) {
	raw, err := b.of(index, jsontext.KindString)
	if err != nil {
		return "", err
	}
	said := raw[1 : len(raw)-1]
	if bytes.IndexByte(raw, '\\') >= 0 {
		said, err = jsontext.AppendUnquote(make([]byte, 0, len(raw)), raw)
		defer clear(said)
	}
	if err != nil || HoldsPAN(said) {
		return "", ErrMember
	}
	return string(said), nil
}

// Field returns a handle to a member that is declared to hold a field in clear, for [Session.Reseal]. It fails with
// [ErrMember] where it is no string, so a number too. What is in the string is judged when it is resealed.
func (b *Body) Field(pointer string) (Sealed, error) {
	i := b.shape.index(pointer, useClear)
	if _, err := b.of(i, jsontext.KindString); err != nil {
		return Sealed{}, err
	}
	return Sealed{plain: &plain{field: b.shape.members[i].field, body: b, member: i}}, nil
}

// Sealed returns a member that is declared to hold a sealed field: an object of the strings "data" and "iv" and nothing
// else. It fails with [ErrMember] where it is not that.
func (b *Body) Sealed(pointer string) (Sealed, error) {
	data, iv, err := b.pair(pointer, useSealed)
	return Sealed{Data: data, IV: iv}, err
}

// Token returns a member that is declared to hold a token: an object of the strings "type" and "token" and nothing else.
// It fails with [ErrMember] where it is not that, and where either holds a card number.
func (b *Body) Token(pointer string) (kind, token string, err error) {
	return b.pair(pointer, useToken)
}

// pair returns the two parts of an object.
func (b *Body) pair(pointer string, of use) (first, second string, err error) {
	i := b.shape.index(pointer, of)
	if _, err := b.of(i, jsontext.KindBeginObject); err != nil || b.found[i].children != len(parts[of]) {
		return "", "", ErrMember
	}
	if first, err = b.text(i + 1); err != nil {
		return "", "", err
	}
	if second, err = b.text(i + 2); err != nil {
		return "", "", err
	}
	return first, second, nil
}

// of returns the raw text of a declared member of a kind, inside the body.
func (b *Body) of(index int, kind jsontext.Kind) ([]byte, error) {
	raw := b.raw.Bytes()
	if index < 0 || raw == nil || b.found[index].kind != kind {
		return nil, ErrMember
	}
	return raw[b.found[index].start:b.found[index].end], nil
}

// secret copies a string in clear out of the body: what it says, without quotes and escapes. The caller destroys it.
func (b *Body) secret(index int) (*secret.Buffer, error) {
	raw, err := b.of(index, jsontext.KindString)
	if err != nil {
		return nil, ErrOpen
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		out := secret.New(len(raw) - len(`""`))
		copy(out.Bytes(), raw[1:])
		return out, nil
	}
	// No growth, which would leave a copy behind: what a text says is never longer than the text.
	scratch := secret.New(len(raw))
	defer scratch.Destroy()
	said, err := jsontext.AppendUnquote(scratch.Bytes()[:0], raw)
	if err != nil {
		return nil, ErrOpen
	}
	out := secret.New(len(said))
	copy(out.Bytes(), said)
	return out, nil
}

// Format implements [fmt.Formatter]: nothing of the body is printed.
func (b Body) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }

// MarshalJSON gives a fixed word.
func (b Body) MarshalJSON() ([]byte, error) { return []byte(`"` + secret.Redacted + `"`), nil }
