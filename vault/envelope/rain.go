package envelope

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// rainKeyBytes is the length of a session key: AES-128.
const rainKeyBytes = 16

// Rain is the session encryption of Rain, and of Exa in front of it, as their published clients do it:
//
//   - The preamble ("sessionid") is the base64 of RSA-OAEP (RFC 8017, section 7.1) with SHA-1 and MGF1-SHA-1 and an
//     empty label, over the 24 characters of the base64 *text* of a 16-byte key.
//   - A field is AES-128-GCM (NIST SP 800-38D) with an IV of 12 or 16 bytes and no associated data: ciphertext, then the
//     16-byte tag.
//
// The format has no room for a permit's binding, and it does not authenticate who wrapped the key. Nothing in it says
// which field a ciphertext is: fields that are exchanged are found out by their contents alone.
// It does not run under GODEBUG=fips140=only, which forbids OAEP with SHA-1 and IVs of our own.
type Rain struct{}

var (
	_ Format = Rain{}
	_ Cipher = (*rainCipher)(nil)
)

// Name implements [Format].
func (Rain) Name() string { return "rain" }

// Legacy implements [Format].
func (Rain) Legacy() []string { return []string{OAEPSHA1} }

// ParsePreamble implements [Format].
func (Rain) ParsePreamble(text string, maxModulusBytes int) ([]byte, error) {
	return parseWrapped(text, maxModulusBytes)
}

// Unwrap implements [Format].
func (Rain) Unwrap(d crypto.Decrypter, modulusBytes int, preamble []byte) (*secret.Buffer, error) {
	return unwrapText(d, modulusBytes, preamble, rainKeyBytes)
}

// Wrap implements [Format].
func (Rain) Wrap(pub *rsa.PublicKey) (*secret.Buffer, string, error) {
	return wrapText(pub, rainKeyBytes)
}

// NewCipher implements [Format].
func (Rain) NewCipher(key *secret.Buffer) (Cipher, error) {
	if key.Len() != rainKeyBytes {
		return nil, ErrOpen
	}
	block, err := aes.NewCipher(key.Bytes())
	if err != nil {
		return nil, fmt.Errorf("session cipher: %w", err)
	}
	long, err := cipher.NewGCMWithNonceSize(block, longIVBytes)
	if err != nil {
		return nil, fmt.Errorf("session cipher: %w", err)
	}
	short, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("session cipher: %w", err)
	}
	return &rainCipher{secret.Hide(&rainSuite{long: long, short: short})}, nil
}

// CheckSealed implements [Format].
func (Rain) CheckSealed(data, iv string) error {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	if !s.decode(data, iv) {
		return ErrOpen
	}
	return nil
}

type rainCipher struct{ suite secret.Hidden[rainSuite] }

type rainSuite struct{ long, short cipher.AEAD }

// aead returns the AEAD for an IV of n bytes, nil where n is neither 12 nor 16.
func (c *rainCipher) aead(n int) cipher.AEAD {
	switch n {
	case longIVBytes:
		return c.suite.Get().long
	case shortIVBytes:
		return c.suite.Get().short
	}
	return nil
}

// Seal implements [Cipher].
func (c *rainCipher) Seal(plaintext *secret.Buffer, ivBytes int) (data, iv string, err error) {
	if err := checkSeal(plaintext, ivBytes); err != nil {
		return "", "", err
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	nonce := s.iv[:ivBytes]
	_, _ = rand.Read(nonce) // never fails
	data, iv = c.sealWith(s, nonce, plaintext)
	return data, iv, nil
}

// sealWith is Seal under a given IV; tests check it against published vectors.
func (c *rainCipher) sealWith(s *scratch, iv []byte, plaintext *secret.Buffer) (data, ivText string) {
	s.sealed = c.aead(len(iv)).Seal(s.sealed[:0], iv, plaintext.Bytes(), nil)
	return s.encode(s.sealed), s.encode(iv)
}

// Open implements [Cipher].
func (c *rainCipher) Open(data, iv string) (*secret.Buffer, error) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	if !s.decode(data, iv) {
		return nil, ErrOpen
	}
	plaintext := secret.New(len(s.sealed) - tagBytes)
	if _, err := c.aead(s.ivBytes).Open(plaintext.Bytes()[:0], s.iv[:s.ivBytes], s.sealed, nil); err != nil {
		plaintext.Destroy()
		return nil, ErrOpen
	}
	return plaintext, nil
}

// Format implements [fmt.Formatter]: nothing of the key is printed.
func (c rainCipher) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }
