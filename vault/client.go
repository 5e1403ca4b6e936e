package vault

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/internal/secret"
	"github.com/cardstile/cardstile/vault/keys"
)

// Preamble is what a client sent to set its session key up: decoded, within bounds, not yet opened. The zero Preamble
// is absent. It prints as a fixed word, because the text does not belong in logs.
type Preamble struct{ p secret.Hidden[preamble] }

type preamble struct {
	text   string
	raw    []byte
	format envelope.Format
}

// Present reports whether there is one.
func (p Preamble) Present() bool { return p.p.Get() != nil }

// Format implements [fmt.Formatter]: nothing of the preamble is printed.
func (p Preamble) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }

func parse(f envelope.Format, text string, maxModulusBytes int) (Preamble, error) {
	raw, err := f.ParsePreamble(text, maxModulusBytes)
	if err != nil {
		return Preamble{}, err
	}
	return Preamble{secret.Hide(&preamble{text: text, raw: raw, format: f})}, nil
}

// ClientKeys are the private keys that the clients of a route encrypt to, in that route's format.
type ClientKeys struct {
	format   envelope.Format
	bySize   map[int][]crypto.Decrypter // by length of the modulus, in bytes; in the configured order
	maxBytes int
	spki     []byte
	clear    bool // no keys: see InsecureClearClient
}

// NewClientKeys takes keys of use session and of one environment [5], primary first. Keys that have the primary's
// length are tried after it, in order: each costs an RSA operation, so there are few, while one replaces another.
func NewClientKeys(f envelope.Format, ks ...*keys.Key) (*ClientKeys, error) {
	if f == nil || len(ks) == 0 {
		return nil, errors.New("client keys: no format or no keys")
	}
	c := &ClientKeys{format: f, bySize: map[int][]crypto.Decrypter{}}
	seen := map[string]bool{}
	for _, k := range ks {
		if k == nil {
			return nil, errors.New("client keys: a key is missing")
		}
		if k.Use() != keys.UseSession {
			return nil, fmt.Errorf("client keys: %v is not of use %q", k, keys.UseSession)
		}
		if k.Environment() != ks[0].Environment() {
			return nil, fmt.Errorf("client keys: %v and %v are of different environments", ks[0], k)
		}
		if seen[k.ID()] {
			return nil, fmt.Errorf("client keys: %v is named twice", k)
		}
		seen[k.ID()] = true
		d, err := k.Decrypter()
		if err != nil {
			return nil, fmt.Errorf("client keys: %w", err)
		}
		size := k.Public().Size()
		c.bySize[size] = append(c.bySize[size], d)
		c.maxBytes = max(c.maxBytes, size)
	}
	spki, err := x509.MarshalPKIXPublicKey(ks[0].Public())
	if err != nil {
		return nil, fmt.Errorf("client keys: %w", err)
	}
	c.spki = spki
	return c, nil
}

// Parse reads a client's preamble. It is cheap and bounded by the longest key; [ErrPreamble] is the one error.
func (c *ClientKeys) Parse(text string) (Preamble, error) {
	if c.clear {
		return Preamble{}, ErrPreamble
	}
	return parse(c.format, text, c.maxBytes)
}

// PublicSPKI is the public half of the primary, as DER (RFC 5280, section 4.1.2.7): a copy. Nil on a leg in clear.
func (c *ClientKeys) PublicSPKI() []byte { return bytes.Clone(c.spki) }

// IssuerKey is the public key that sessions with an issuer are wrapped for, in that issuer's format.
type IssuerKey struct {
	format envelope.Format
	public *rsa.PublicKey
	clear  bool // no key: see InsecureClearIssuer
}

// NewIssuerKey takes a key of at least 1024 bits; the caller has applied [keys.MinBits], which knows whether the
// legacy of less than 2048 bits was named [15].
func NewIssuerKey(f envelope.Format, pub *rsa.PublicKey) (*IssuerKey, error) {
	if f == nil || pub == nil {
		return nil, errors.New("issuer key: no format or no key")
	}
	if err := keys.MinBits(pub, true); err != nil {
		return nil, fmt.Errorf("issuer key: %w", err)
	}
	return &IssuerKey{format: f, public: pub}, nil
}

// Parse reads the preamble of a client that encrypted to the issuer's key, for [Vault.Blind]. It is cheap and bounded
// by that key, whose exact length it must have; [ErrPreamble] is the one error.
func (k *IssuerKey) Parse(text string) (Preamble, error) {
	if k.clear {
		return Preamble{}, ErrPreamble
	}
	p, err := parse(k.format, text, k.public.Size())
	if err != nil {
		return Preamble{}, err
	}
	// A shorter text of the same number would be another envelope to us and the same to a lenient issuer [10].
	if len(p.p.Get().raw) != k.public.Size() {
		return Preamble{}, ErrPreamble
	}
	return p, nil
}
