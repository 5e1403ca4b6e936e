package vault

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// ErrSplice says that a message cannot be rendered: a mistake of whoever composed it, and nothing is released.
var ErrSplice = errors.New("vault: cannot splice")

// Splice is a field in clear and where in a template it goes: before byte At. The template is JSON that lacks the value
// there, quotes included:
//
//	{"card_number":,"expiry_date":"12/30"}
//	               ^ At
type Splice struct {
	At    int
	Field Sealed // a handle of the session that renders
}

// Render composes a message of the template with the plaintexts of the splices, which are in the order of their places.
// The caller destroys the message.
//
// All of these are [ErrSplice], and nothing is written: a field that is no handle of this session, a session that is
// closed, a place where no value can stand, a message that is no strict JSON.
func (s *Session) Render(template []byte, splices []Splice) (*Outgoing, error) {
	var few [12]piece
	pieces, from := few[:0], 0
	for _, p := range splices {
		if p.At < from || p.At > len(template) {
			return nil, ErrSplice
		}
		pieces = append(pieces, piece{text: template[from:p.At]}, piece{plain: p.Field.plain, clear: true})
		from = p.At
	}
	return s.assemble(append(pieces, piece{text: template[from:]}))
}

// Replacement is what stands in the place of a declared member: one of a field, a text that anybody may read, such as a
// mask, and a fragment.
type Replacement struct {
	Pointer string
	With    Sealed // {"data","iv"} where it is sealed, a string where it is a handle
	Text    string
	JSON    []byte // one value, composed of sealed fields and of texts that anybody may read
}

// Rewrite composes a message of a whole body with declared members replaced, and all else as it stood. A sensitive member
// or a token that is there, other than null, and is not replaced is [ErrSplice]: nothing that was declared leaves as it
// came. So is a fragment that is not one value of strict JSON. Replacements of what is not there are [ErrMember]. A nil Session does where no replacement is a handle: with none at
// all, what comes out is the body as it stood. Of an empty body that is a message of zero bytes.
// The caller destroys the message.
func (s *Session) Rewrite(b *Body, with []Replacement) (*Outgoing, error) {
	raw := b.raw.Bytes()
	if raw == nil {
		return nil, ErrSplice
	}
	chosen := make([]*Replacement, len(b.shape.members))
	for i := range with {
		index, err := b.replaceable(with[i].Pointer)
		if err != nil {
			return nil, err
		}
		if chosen[index] != nil || with[i].ways() != 1 {
			return nil, ErrSplice
		}
		chosen[index] = &with[i]
	}
	if b.Empty() {
		return &Outgoing{text: secret.New(0)}, nil
	}
	var few [12]piece
	pieces, from := few[:0], 0
	for index := b.next(from); index >= 0; index = b.next(from) {
		at := b.found[index]
		if chosen[index] == nil {
			return nil, ErrSplice
		}
		pieces = append(pieces, piece{text: raw[from:at.start]}, chosen[index].piece())
		from = at.end
	}
	return s.assemble(append(pieces, piece{text: raw[from:]}))
}

// replaceable is the index of a sensitive member, or a token, that is there.
func (b *Body) replaceable(pointer string) (int, error) {
	i := max(b.shape.index(pointer, useClear), b.shape.index(pointer, useSealed), b.shape.index(pointer, useToken))
	if i < 0 || b.found[i].kind == 0 || b.found[i].kind == jsontext.KindNull {
		return 0, ErrMember
	}
	return i, nil
}

// next is the first of those that begins at from or later and is not null; -1 where there is none.
func (b *Body) next(from int) int {
	first := -1
	for i := range b.shape.members {
		at := &b.found[i]
		if !b.shape.members[i].use.sensitive() || at.kind == 0 || at.kind == jsontext.KindNull || at.start < from {
			continue
		}
		if first < 0 || at.start < b.found[first].start {
			first = i
		}
	}
	return first
}

// ways is in how many ways it says what stands there: one is right.
func (r *Replacement) ways() (n int) {
	for _, said := range []bool{r.With != Sealed{}, r.Text != "", r.JSON != nil} {
		if said {
			n++
		}
	}
	return n
}

func (r *Replacement) piece() piece {
	switch {
	case r.With.InClear():
		return piece{plain: r.With.plain, clear: true}
	case r.Text != "":
		text, err := jsontext.AppendQuote(nil, r.Text)
		return piece{text: text, bad: err != nil}
	case r.JSON != nil: // alone, or it could end the value that it stands in
		return piece{text: r.JSON, bad: walk(r.JSON, nil, maxBodyDepth, unseen{}) != nil}
	}
	text, err := jsontext.AppendQuote([]byte(`{"data":`), r.With.Data)
	if err == nil {
		text, err = jsontext.AppendQuote(append(text, `,"iv":`...), r.With.IV)
	}
	return piece{text: append(text, '}'), bad: err != nil}
}

// unseen sees nothing: the document is read for its syntax.
type unseen struct{}

// visit implements visitor.
func (unseen) visit(*visited) error { return nil }

// piece is a part of a message: a text, or a field in clear.
type piece struct {
	text  []byte
	plain *plain
	clear bool
	bad   bool
}

// content is the bytes of the piece without the quotes of a field; ok is false where it cannot be written.
func (p *piece) content(l *legs) (content []byte, ok bool) {
	if !p.clear {
		return p.text, !p.bad
	}
	content = p.plain.leaves(l)
	return content, len(content) > 0 && needsNoEscape(content)
}

// needsNoEscape reports whether a field stands in JSON as it is. All fields do, having passed their checks: digits, the
// letters of a PIN block, and what an account number may have beside them.
func needsNoEscape(text []byte) bool {
	var bad bool
	for _, c := range text {
		bad = bad || c < ' ' || c > '~' || c == '"' || c == '\\'
	}
	return !bad
}

// assemble writes the pieces into one buffer of the right size, which therefore leaves no copies behind, and reads the
// whole as a receiver would: strict JSON, in which each field in clear is a value.
func (s *Session) assemble(pieces []piece) (*Outgoing, error) {
	var l *legs
	if s != nil {
		l = s.legs.Get()
	}
	size, fields := 0, 0
	for i := range pieces {
		content, ok := pieces[i].content(l)
		if !ok {
			return nil, ErrSplice
		}
		size += len(content)
		if pieces[i].clear {
			size += len(`""`)
			fields++
		}
	}
	o := &Outgoing{text: secret.New(size), clear: make([]span, 0, fields)}
	text := o.text.Bytes()[:0]
	for i := range pieces {
		content, _ := pieces[i].content(l)
		if !pieces[i].clear {
			text = append(text, content...)
			continue
		}
		start := len(text)
		text = append(append(append(text, '"'), content...), '"')
		o.clear = append(o.clear, span{start: start, end: len(text)})
	}
	check := values{left: o.clear}
	if err := walk(text, nil, maxBodyDepth, &check); err != nil || len(check.left) != 0 {
		o.Destroy()
		return nil, ErrSplice
	}
	return o, nil
}

// values checks off spans that are whole string values: no names, and no parts of longer strings.
type values struct{ left []span }

// visit implements visitor.
func (c *values) visit(v *visited) error {
	if len(c.left) == 0 || v.kind != jsontext.KindString {
		return nil
	}
	if v.start == c.left[0].start { // then it ends where the field does, which has no quotes inside
		c.left = c.left[1:]
	}
	return nil
}

// Outgoing is a message of ours that may hold card data in clear [12]. Whoever has it writes it to the wire it is meant
// for, and destroys it. It does not keep an io.Writer from keeping what it gets.
type Outgoing struct {
	text  *secret.Buffer
	clear []span // the fields that were meant to be in clear
}

// Len is the length of the message in bytes, 0 once destroyed.
func (o *Outgoing) Len() int { return o.text.Len() }

// Digest is SHA-256 of the canonical form of the message, for a check value that goes with it. It says as much of a card
// number in it as [Body.Digest] does, and is not kept. A destroyed message is [ErrSplice]; one that has no such form is
// [ErrBody].
func (o *Outgoing) Digest(c Canon) (digest [32]byte, err error) {
	text := o.text.Bytes()
	if text == nil {
		return digest, ErrSplice
	}
	return c.digest(text, maxBodyDepth)
}

// WriteTo implements [io.WriterTo]: one Write with all of it. A destroyed message is [ErrSplice].
func (o *Outgoing) WriteTo(w io.Writer) (int64, error) {
	text := o.text.Bytes()
	if text == nil {
		return 0, ErrSplice
	}
	n, err := w.Write(text)
	if err == nil && n < len(text) {
		err = io.ErrShortWrite
	}
	return int64(n), err
}

// HoldsPAN reports whether there is a card number outside the fields that were meant to be in clear [16]: see [HoldsPAN].
func (o *Outgoing) HoldsPAN() bool {
	text, from := o.text.Bytes(), 0
	if text == nil {
		return false
	}
	var g Guard
	defer g.Reset()
	for _, field := range o.clear {
		_, _ = g.Write(text[from : field.start+1]) // as far as the quote
		from = field.end - 1
	}
	_, _ = g.Write(text[from:])
	return g.end()
}

// Destroy zeroes the message. It may be called twice and on nil.
func (o *Outgoing) Destroy() {
	if o != nil {
		o.text.Destroy()
	}
}

// Reader returns the message as the body of a request to an issuer. Close destroys the message, also while another
// goroutine reads: http.Transport closes when it needs no more of it, which may be after RoundTrip returned.
func (o *Outgoing) Reader() io.ReadCloser { return &outgoingReader{message: o} }

type outgoingReader struct {
	mu      sync.Mutex
	message *Outgoing // nil once closed
	at      int
}

// Read implements [io.Reader].
func (r *outgoingReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.message == nil || r.message.text.Bytes() == nil {
		return 0, ErrSplice
	}
	text := r.message.text.Bytes()
	if r.at == len(text) {
		return 0, io.EOF
	}
	n := copy(p, text[r.at:])
	r.at += n
	return n, nil
}

// Close implements [io.Closer].
func (r *outgoingReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.message.Destroy()
	r.message = nil
	return nil
}

// Format implements [fmt.Formatter]: nothing of the message is printed.
func (o Outgoing) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }

// MarshalJSON gives a fixed word.
func (o Outgoing) MarshalJSON() ([]byte, error) { return []byte(`"` + secret.Redacted + `"`), nil }

// Format implements [fmt.Formatter]: nothing of the message is printed.
func (r *outgoingReader) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }
