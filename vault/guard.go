package vault

import (
	"fmt"
	"io"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// Guard looks for card numbers in what is about to leave where none is meant to [16]: a body, a header, an error's text.
// It is written to in pieces of any size, reads every byte once, and allocates nothing. The zero Guard is ready.
//
// What is found is a number of 13 to 19 digits with a valid check digit (ISO/IEC 7812-1, annex B), of a payment network
// (see networks), written
//
//   - without a break, or in groups with one space or dash between them: fours with a shorter last group, 4-6-5, 4-6-4, 6-13;
//   - between bytes that are no letters and digits; without a break also beside letters of which one is not a to f,
//     as in "card4111…";
//   - as it stands, in percent-encoding (RFC 3986, section 2.1; "+" is a space too), in JSON's escapes (RFC 8259, section 7),
//     or in base64 of either alphabet (RFC 4648, sections 4 and 5) without line breaks: one layer of these.
//
// What cannot be a card number by its surroundings is left alone: hexadecimal words, decimal fractions, IBANs ("GB29…",
// also in groups), and numbers of up to 15 digits behind a "+" that begins them (ITU-T E.164).
//
// It is a net and no proof. Not found are numbers in two layers, compressed, encrypted, in hexadecimal, in another
// script's digits, in exponents, spread over members, or against one of the exceptions. Found but no card are one in ten
// of those decimal ids that have the length and the beginning of one. A Guard prints as a fixed word, but a struct that
// holds one and is printed shows the digits that it saw last.
type Guard struct {
	plain   reading
	decoded reading // what plain sees, with escapes read; begins with the first of them
	escape  escape
	escaped bool
	word    base64Word
	found   bool
}

// HoldsPAN reports whether p holds a card number in a form that a [Guard] finds.
func HoldsPAN(p []byte) bool {
	var g Guard
	defer g.Reset()
	g.write(p)
	return g.end()
}

// HoldsPANString is HoldsPAN for a header or an error's text.
func HoldsPANString(s string) bool {
	var g Guard
	var piece [256]byte
	defer g.Reset()
	defer clear(piece[:])
	for len(s) > 0 {
		n := copy(piece[:], s)
		g.write(piece[:n])
		s = s[n:]
	}
	return g.end()
}

// Write implements [io.Writer] and never fails.
func (g *Guard) Write(p []byte) (int, error) {
	g.write(p)
	return len(p), nil
}

// Found reports whether what was written so far holds a card number, if nothing comes after it.
func (g *Guard) Found() bool {
	rest := *g // more may come
	defer rest.Reset()
	return rest.end()
}

func (g *Guard) end() bool {
	g.word.end()
	return g.plain.end() || g.decoded.end() || g.word.found()
}

// Reset makes the Guard as new, and zeroes the digits that it remembers.
func (g *Guard) Reset() { *g = Guard{} }

// Format implements [fmt.Formatter]: nothing of what was seen is printed.
func (g Guard) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }

func (g *Guard) write(p []byte) {
	if g.found {
		return
	}
	i := 0
	if !g.escaped {
		for ; i < len(p); i++ {
			if c := p[i]; c == '%' || c == '\\' || c == '+' {
				g.decoded, g.escaped = g.plain, true
				break
			}
			g.plain.next(p[i])
		}
	}
	for _, c := range p[i:] {
		g.plain.next(c)
		g.escape.next(c, &g.decoded)
	}
	for _, c := range p {
		g.word.next(c)
	}
	g.found = g.plain.found || g.decoded.found || g.word.found()
}

// escape reads percent-encoding and JSON's escapes. What looks like one and is not passes as it is.
type escape struct {
	state escapeState
	value uint16
	raw   [6]byte // what was read of one
	n     int
}

type escapeState uint8

const (
	escapeNone escapeState = iota
	escapePercent
	escapeBackslash
	escapeUnicode
)

func (e *escape) next(c byte, to *reading) {
	switch e.state {
	case escapeBackslash:
		e.state = escapeNone
		if c == 'u' {
			e.begin(escapeUnicode, '\\', c)
			return
		}
		to.next(0) // a quote, a slash, a control character: no digit and no separator
		return
	case escapePercent, escapeUnicode:
		if v := hexValue(c); v >= 0 {
			e.value = e.value<<4 | uint16(v)
			e.raw[e.n] = c
			if e.n++; e.n == 3 && e.state == escapePercent || e.n == 6 {
				e.state = escapeNone
				to.next(byteOf(e.value))
			}
			return
		}
		e.state = escapeNone
		for _, c := range e.raw[:e.n] {
			to.next(c)
		}
	}
	switch c {
	case '%':
		e.begin(escapePercent, c)
	case '\\':
		e.state = escapeBackslash
	case '+':
		to.plus()
	default:
		to.next(c)
	}
}

func (e *escape) begin(s escapeState, raw ...byte) {
	e.state, e.value, e.n = s, 0, copy(e.raw[:], raw)
}

// byteOf is a character as a reading takes it: what is not ASCII is all alike.
func byteOf(r uint16) byte { return byte(min(r, 0x80)) }

func hexValue(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
