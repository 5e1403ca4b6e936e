package vault

import (
	"strings"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// maskFrom is the length from which a masked PAN shows its first six digits: with fewer, the digits left out could be
// counted off. PCI DSS v4.0.1, requirement 3.4.1, allows the BIN and the last four.
const maskFrom = 16

// maskAccountFrom is the length from which a masked account number shows its last four: half of it at most.
const maskAccountFrom = 8

// masked stands for a field of which nothing may be shown.
const masked = "***"

// Mask returns what may be shown of a field of the issuer's leg to a client that brought no session [13]: of a PAN the
// first six digits (from 16 digits on) and the last four; of an account number the same where it is as many digits and
// nothing else, only the last four where it is not, and nothing of one shorter than 8; of CVC and PIN nothing, not even
// the length. The session has an issuer's leg and needs no other. Of a field that was held the same is shown, and the
// session needs no issuer's leg. It checks the field and fails with [ErrOpen], as Reseal does.
func (s *Session) Mask(f Field, in Sealed) (string, error) {
	l := s.legs.Get()
	if l == nil || f == 0 || f >= fields {
		return "", ErrOpen
	}
	from := &l.issuer
	if in.plain != nil && in.plain.card != nil {
		from = &l.client
	}
	plaintext, err := from.checked(f, ToClient, in)
	if err != nil {
		return "", err
	}
	defer plaintext.Destroy()
	if f == FieldPAN || f == FieldAccount && plaintext.Len() >= maskAccountFrom {
		return maskNumber(plaintext), nil
	}
	return masked, nil
}

// maskNumber makes a string of the characters that may be shown, and of no others.
func maskNumber(number *secret.Buffer) string {
	text := number.Bytes()
	first, last := 0, len(text)-4
	if digits(number, maskFrom, len(text)) == nil {
		first = 6
	}
	var b strings.Builder
	b.Grow(len(text))
	b.Write(text[:first])
	for range last - first {
		b.WriteByte('*')
	}
	b.Write(text[last:])
	return b.String()
}
