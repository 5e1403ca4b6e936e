package vault

import (
	"fmt"
	"io"
	"strings"

	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/internal/secret"
	"github.com/cardstile/cardstile/vault/pinblock"
)

// Session is the keys of one exchange. It belongs to that exchange: it is not safe for concurrent use.
type Session struct{ legs secret.Hidden[legs] } // holds nil once closed

// clientIVBytes is the length of the IVs that clients get: what Exa's do send and take.
const clientIVBytes = 16

// IssuerPreamble is the text that sets the issuer's leg up. It is empty where there is none, and once closed.
func (s *Session) IssuerPreamble() string {
	if l := s.legs.Get(); l != nil {
		return l.preamble
	}
	return ""
}

// Reseal opens a field on the leg that it comes from, checks that it is what the field must be, and seals it on the leg
// that d names, under a fresh IV: 16 bytes to the client, to the issuer as long as the client's was, or what the leg's
// format takes where that is one length only.
// A PIN block leaves with one spelling.
//
// On a leg in clear, opening is reading the member of a [Body] that in is a handle to, and sealing is keeping the
// plaintext until [Session.Render] or [Session.Rewrite] writes it: what comes back is a handle, good for this session.
// A card that was held is a client's leg from which fields come, by the handles of [Session.Held], and to which none go.
//
// A weak PIN to the issuer is [ErrWeakPIN]. All else is a bare [ErrOpen]: a wrong key, tag or shape, a plaintext that is
// not the field, a leg that is not there, a session that is closed.
func (s *Session) Reseal(f Field, d Direction, in Sealed) (Sealed, error) {
	l := s.legs.Get()
	if l == nil || f == 0 || f >= fields || d == 0 || d >= directions {
		return Sealed{}, ErrOpen
	}
	out, err := l.reseal(f, d, in)
	l.metrics.resealed(f, d, err)
	return out, err
}

// Close lets go of both keys, and zeroes what was to leave in clear and what was held. The keys themselves were zeroed when
// the session was opened; the ciphers' expanded keys are freed, and gone when their memory is used again. It may be called
// twice and on nil.
func (s *Session) Close() {
	if s == nil {
		return
	}
	if l := s.legs.Get(); l != nil {
		for _, p := range l.leaving {
			p.text.Destroy()
		}
		l.client.card.destroy()
	}
	s.legs = secret.Hidden[legs]{}
}

// Format implements [fmt.Formatter]: nothing of the session is printed.
func (s Session) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }

func (l *legs) reseal(f Field, d Direction, in Sealed) (Sealed, error) {
	if l.blind != nil {
		return l.pass(f, in)
	}
	from, to, ivBytes := &l.issuer, &l.client, clientIVBytes
	if d == ToIssuer {
		from, to = &l.client, &l.issuer
		if !in.InClear() {
			ivBytes = decodedLen(in.IV)
		}
	}
	if !to.takes() {
		return Sealed{}, ErrOpen
	}
	plaintext, err := from.checked(f, d, in)
	if err != nil {
		return Sealed{}, err
	}
	defer plaintext.Destroy()
	if to.clear {
		return l.keep(f, plaintext), nil
	}
	return seal(to.cipher, plaintext, ivBytes)
}

// pass lets a PIN through unread, if it has a sealed field's shape.
func (l *legs) pass(f Field, in Sealed) (Sealed, error) {
	if f != FieldPIN || in.InClear() || l.blind.CheckSealed(in.Data, in.IV) != nil {
		return Sealed{}, ErrOpen
	}
	return in, nil
}

func seal(c envelope.Cipher, plaintext *secret.Buffer, ivBytes int) (out Sealed, err error) {
	if out.Data, out.IV, err = c.Seal(plaintext, ivBytes); err != nil {
		return Sealed{}, ErrOpen
	}
	return out, nil
}

// check says whether a plaintext is what the field must be. It rewrites a PIN block in place, to its one spelling.
func check(f Field, d Direction, plaintext *secret.Buffer) error {
	switch f {
	case FieldPAN:
		return digits(plaintext, 12, 19)
	case FieldCVC:
		return digits(plaintext, 3, 4)
	case FieldPIN:
		return checkPIN(d, plaintext)
	case FieldAccount:
		return account(plaintext)
	}
	return ErrOpen
}

func checkPIN(d Direction, plaintext *secret.Buffer) error {
	block, err := pinblock.Parse(plaintext)
	if err != nil {
		return ErrOpen
	}
	defer block.Destroy()
	if d == ToIssuer && block.Weak() {
		return ErrWeakPIN
	}
	text := block.Text()
	defer text.Destroy()
	copy(plaintext.Bytes(), text.Bytes())
	return nil
}

// digits wants from least to most ASCII digits.
func digits(text *secret.Buffer, least, most int) error {
	return each(text, least, most, isDigit)
}

// account wants an IBAN (at most 34 characters, ISO 13616-1), or whatever else of its length is written with the same.
func account(text *secret.Buffer) error {
	return each(text, 4, 34, func(c byte) bool {
		return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' || c == ' ' || c == '+' || c == '-'
	})
}

// each wants from least to most bytes that are all ok. It looks at all of them, wherever the first bad one stands.
func each(text *secret.Buffer, least, most int, ok func(byte) bool) error {
	p := text.Bytes()
	if len(p) < least || len(p) > most {
		return ErrOpen
	}
	bad := false
	for _, c := range p {
		bad = !ok(c) || bad
	}
	if bad {
		return ErrOpen
	}
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// decodedLen is the number of bytes that a base64 text stands for.
func decodedLen(text string) int { return len(text)/4*3 - strings.Count(text, "=") }
