// Package pinblock answers: is this a PIN, and is it one that anybody would guess?
//
// A block is the 16 characters of ASCII text that Exa and Rain exchange, shaped like ISO 9564-1 format 2 (section 9.3.3)
// but written out in hexadecimal instead of packed:
//
//	'2' | length of the PIN, one hexadecimal digit | the PIN's digits | 'F' up to 16 characters
//
// "1234" is "241234FFFFFFFFFF". Format 2 carries no card number: it does not bind a PIN to its card.
package pinblock

import (
	"errors"
	"fmt"
	"io"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// Size of a block, in characters, and of the PIN inside it, in digits (ISO 9564-1, section 8.1).
const (
	Size      = 16
	MinDigits = 4
	MaxDigits = 12
)

const (
	control = '2'
	filler  = 'F'
	header  = 2 // the control character and the length
)

// ErrMalformed says that the text is no PIN block. It does not say where, since the text is secret.
var ErrMalformed = errors.New("pin block: malformed")

// Block is a PIN that was read from a well-formed block. Its owner defers Destroy.
type Block struct{ text *secret.Buffer } // canonical: lower-case length, upper-case filler

// Parse reads a block and keeps a copy of its own: the caller still owns text. The length digit is taken in either
// case, as issuers differ; everything else has one spelling. All failures are [ErrMalformed].
func Parse(text *secret.Buffer) (*Block, error) {
	p := text.Bytes()
	if len(p) != Size || p[0] != control {
		return nil, ErrMalformed
	}
	digits := length(p[1])
	if digits < MinDigits || digits > MaxDigits {
		return nil, ErrMalformed
	}
	var bad byte
	for _, c := range p[header : header+digits] {
		bad |= notDigit(c)
	}
	for _, c := range p[header+digits:] {
		bad |= c ^ filler
	}
	if bad != 0 {
		return nil, ErrMalformed
	}
	b := &Block{text: secret.New(Size)}
	copy(b.text.Bytes(), p)
	b.text.Bytes()[1] |= 0x20 // "A" to "a"; leaves digits, whose bit is set, as they are
	return b, nil
}

// Weak reports whether the PIN is one digit repeated, or a run up or down by one in which 0 follows 9
// (0000, 1234, 4321, 8901). A destroyed Block is weak.
func (b *Block) Weak() bool {
	pin := b.pin()
	var repeat, up, down int
	for i := 1; i < len(pin); i++ {
		switch (10 + int(pin[i]) - int(pin[i-1])) % 10 {
		case 0:
			repeat++
		case 1:
			up++
		case 9:
			down++
		}
	}
	steps := len(pin) - 1
	return steps < 1 || repeat == steps || up == steps || down == steps
}

// Text returns the block's 16 characters, with a lower-case length, in a new Buffer that the caller destroys.
// It is empty after Destroy.
func (b *Block) Text() *secret.Buffer {
	p := b.text.Bytes()
	out := secret.New(len(p))
	copy(out.Bytes(), p)
	return out
}

// Destroy zeroes the block. It may be called twice and on nil.
func (b *Block) Destroy() {
	if b != nil {
		b.text.Destroy()
	}
}

// Format implements [fmt.Formatter]: nothing of the PIN is printed, with any verb.
func (b Block) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }

func (b *Block) pin() []byte {
	p := b.text.Bytes()
	if len(p) != Size {
		return nil
	}
	return p[header : header+length(p[1])]
}

// length reads one hexadecimal digit; -1 where it is none.
func length(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// notDigit is non-zero where c is no ASCII digit, without a branch on it.
func notDigit(c byte) byte {
	below := uint16(c) - '0'
	above := '9' - uint16(c)
	return byte((below | above) >> 8)
}
