package vault

import (
	"strings"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// maskFrom is the length from which a masked PAN shows its first six digits: with fewer, the digits left out could be
// counted off. PCI DSS v4.0.1, requirement 3.4.1, allows the BIN and the last four.
const maskFrom = 16

// Mask returns what may be shown of a field of the issuer's leg to a client that brought no session [13]: of a PAN the
// first six digits (from 16 digits on) and the last four, of CVC and PIN nothing, not even the length. The session has
// an issuer's leg and needs no other. It checks the field and fails with [ErrOpen], as Reseal does.
func (s *Session) Mask(f Field, in Sealed) (string, error) {
	l := s.legs.Get()
	if l == nil || !l.issuer.there() || f == 0 || f >= fields {
		return "", ErrOpen
	}
	plaintext, err := l.issuer.open(f, in)
	if err != nil {
		return "", ErrOpen
	}
	defer plaintext.Destroy()
	if err := check(f, ToClient, plaintext); err != nil {
		return "", err
	}
	if f == FieldPAN {
		return maskPAN(plaintext), nil
	}
	return "***", nil
}

// maskPAN makes a string of the digits that may be shown, and of no others.
func maskPAN(pan *secret.Buffer) string {
	digits := pan.Bytes()
	first, last := 0, len(digits)-4
	if len(digits) >= maskFrom {
		first = 6
	}
	var b strings.Builder
	b.Grow(len(digits))
	b.Write(digits[:first])
	for range last - first {
		b.WriteByte('*')
	}
	b.Write(digits[last:])
	return b.String()
}
