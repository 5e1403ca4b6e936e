package vault

import (
	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/internal/secret"
)

// FormatClear is the name, in configurations and in the inventory, of a leg that nothing but TLS encrypts. It is no
// payload format of package envelope: nobody gets it by choosing a format, only by the constructors below.
const FormatClear = "clear"

// InsecureClearClient is the client's leg of a protocol that has card data in clear inside TLS. Whoever can read the
// caller's connection, or the memory of whatever ends it, reads the card. A route says so by name, and the inventory
// lists it [12].
//
// A session over it takes no preamble: Parse refuses every one.
func InsecureClearClient() *ClientKeys { return &ClientKeys{clear: true} }

// InsecureClearIssuer is the issuer's leg of an API that has card data in clear inside TLS: like [InsecureClearClient].
func InsecureClearIssuer() *IssuerKey { return &IssuerKey{clear: true} }

// InClear reports whether the leg is in clear, for the inventory.
func (c *ClientKeys) InClear() bool { return c.clear }

// InClear reports whether the leg is in clear, for the inventory.
func (k *IssuerKey) InClear() bool { return k.clear }

// leg is one side of a session: sealed under a cipher, in clear, a card that was held, or not there.
type leg struct {
	cipher envelope.Cipher
	clear  bool
	card   *heldCard
}

// takes reports whether fields can leave by this leg: a card that was held is there to be read.
func (g *leg) takes() bool { return g.clear || g.cipher != nil }

// checked gives the plaintext of a field that came over this leg, which the caller destroys, if it is what the field must
// be. It fails as [Session.Reseal] does.
func (g *leg) checked(f Field, d Direction, in Sealed) (*secret.Buffer, error) {
	plaintext, err := g.open(f, in)
	if err != nil {
		return nil, ErrOpen
	}
	if err := check(f, d, plaintext); err != nil {
		plaintext.Destroy()
		return nil, err
	}
	return plaintext, nil
}

// open is checked without the check. A handle is good for nothing on a sealed leg, nor a ciphertext on one in clear, nor
// either of them where a card was held, which has handles of its own.
func (g *leg) open(f Field, in Sealed) (*secret.Buffer, error) {
	switch {
	case g.card != nil:
		return g.card.read(f, in.plain)
	case !g.takes():
		return nil, ErrOpen
	case g.clear != in.InClear():
		return nil, ErrOpen
	case g.clear:
		return in.plain.read(f)
	}
	return g.cipher.Open(in.Data, in.IV)
}

// plain is where a field in clear stands: in a member of a body that came in, in a card that was held, or, on its way
// out, in a text that belongs to a session. It is never two of them. Callers hold a pointer to it, inside a Sealed.
type plain struct {
	field Field

	body   *Body
	member int

	card *heldCard

	owner *legs
	text  *secret.Buffer
}

// read copies a field out of the body that it came in.
func (p *plain) read(f Field) (*secret.Buffer, error) {
	if p.body == nil || p.field != f {
		return nil, ErrOpen
	}
	return p.body.secret(p.member)
}

// leaves returns the text of a field that leaves by the session of l; nil where it does not, or no longer.
func (p *plain) leaves(l *legs) []byte {
	if p == nil || p.owner != l {
		return nil
	}
	return p.text.Bytes()
}

// keep holds a checked plaintext until the session is closed. The caller still destroys its own.
func (l *legs) keep(f Field, plaintext *secret.Buffer) Sealed {
	p := &plain{field: f, owner: l, text: secret.New(plaintext.Len())}
	copy(p.text.Bytes(), plaintext.Bytes())
	l.leaving = append(l.leaving, p)
	return Sealed{plain: p}
}
