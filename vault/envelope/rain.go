package envelope

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"sync"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

const (
	tagBytes       = 16
	shortIVBytes   = 12
	longIVBytes    = 16
	maxSealedBytes = 4096 // of ciphertext and tag; a field has 35 at most
)

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
	if len(text) > standard.EncodedLen(maxModulusBytes) {
		return nil, ErrPreamble
	}
	p, ok := appendDecoded(nil, text)
	if !ok || len(p) == 0 || len(p) > maxModulusBytes {
		return nil, ErrPreamble
	}
	return p, nil
}

// Unwrap implements [Format].
func (Rain) Unwrap(d crypto.Decrypter, modulusBytes int, preamble []byte) (*secret.Buffer, error) {
	text, err := openOAEP(d, modulusBytes, preamble)
	if err != nil {
		return nil, err
	}
	defer text.Destroy()
	if text.Len() != keyTextBytes {
		return nil, ErrOpen
	}
	key := secret.New(keyBytes)
	if !decodeKey(key.Bytes(), text.Bytes()) {
		key.Destroy()
		return nil, ErrOpen
	}
	return key, nil
}

// openOAEP is the RSA half of Unwrap. crypto/rsa tells one padding error from another by neither text nor time
// (RFC 8017, section 7.1.2, note).
func openOAEP(d crypto.Decrypter, modulusBytes int, preamble []byte) (*secret.Buffer, error) {
	if len(preamble) != modulusBytes {
		return nil, ErrOpen
	}
	text, err := d.Decrypt(rand.Reader, preamble, &rsa.OAEPOptions{Hash: crypto.SHA1, MGFHash: crypto.SHA1})
	if err != nil {
		return nil, ErrOpen
	}
	return secret.From(text), nil
}

// Wrap implements [Format].
func (Rain) Wrap(pub *rsa.PublicKey) (*secret.Buffer, string, error) {
	key := secret.New(keyBytes)
	_, _ = rand.Read(key.Bytes()) // never fails: crypto/rand.Read crashes the process instead
	text := secret.New(keyTextBytes)
	defer text.Destroy()
	encodeKey(text.Bytes(), key.Bytes())
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, text.Bytes(), nil)
	if err != nil {
		key.Destroy()
		return nil, "", fmt.Errorf("wrap session key: %w", err)
	}
	return key, standard.EncodeToString(wrapped), nil
}

// NewCipher implements [Format].
func (Rain) NewCipher(key *secret.Buffer) (Cipher, error) {
	if key.Len() != keyBytes {
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
	if c.aead(ivBytes) == nil {
		return "", "", fmt.Errorf("seal: an IV of %d bytes, want 12 or 16", ivBytes)
	}
	if plaintext.Len() > maxSealedBytes-tagBytes {
		return "", "", fmt.Errorf("seal: more than %d bytes", maxSealedBytes-tagBytes)
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

// scratch is memory for what is public anyway: ciphertext, IVs and their texts.
type scratch struct {
	iv      [longIVBytes + 2]byte // decoding 24 characters may touch 18 bytes
	ivBytes int
	sealed  []byte
	text    []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// decode fills sealed and iv, or reports false: not strict base64, an IV of neither 12 nor 16 bytes, no room for a tag.
func (s *scratch) decode(data, iv string) bool {
	if len(data) > base64.StdEncoding.EncodedLen(maxSealedBytes) || len(iv) > base64.StdEncoding.EncodedLen(longIVBytes) {
		return false
	}
	var ok bool
	nonce, ok := appendDecoded(s.iv[:0], iv)
	if !ok || len(nonce) != shortIVBytes && len(nonce) != longIVBytes {
		return false
	}
	s.ivBytes = len(nonce)
	sealed, ok := appendDecoded(s.sealed[:0], data)
	if !ok || len(sealed) < tagBytes || len(sealed) > maxSealedBytes {
		return false
	}
	s.sealed = sealed
	return true
}

// encode gives the base64 text of p as a string of its own.
func (s *scratch) encode(p []byte) string {
	s.text = standard.AppendEncode(s.text[:0], p)
	return string(s.text)
}
