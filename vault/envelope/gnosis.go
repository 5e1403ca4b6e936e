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

// gnosisKeyBytes is the length of a session key: AES-256.
const gnosisKeyBytes = 32

// gnosisIVText is the length of an IV's text, which has no padding: 16 characters are 12 bytes.
const gnosisIVText = 16

// Gnosis is the encryption of Gnosis Pay's card upload, as its published clients do it:
//
//   - The preamble ("encryptedKey") is the base64 of RSA-OAEP (RFC 8017, section 7.1) with SHA-1 and MGF1-SHA-1 and an
//     empty label, over the 44 characters of the base64 *text* of a 32-byte key.
//   - A field ("encryptedPan") is AES-256-GCM (NIST SP 800-38D) with no associated data: ciphertext, then the 16-byte tag.
//   - Clients draw an IV ("iv") as 16 letters and digits, which are base64 of the 12 bytes that are used. We take any 12
//     bytes, and draw ours as they do: the other end may look at the text. There are 2^95 of them.
//
// What [Rain] says of permits, fields and fips140 holds here too.
type Gnosis struct{}

var (
	_ Format = Gnosis{}
	_ Cipher = (*gnosisCipher)(nil)
)

// Name implements [Format].
func (Gnosis) Name() string { return "gnosis" }

// Legacy implements [Format].
func (Gnosis) Legacy() []string { return []string{OAEPSHA1} }

// ParsePreamble implements [Format].
func (Gnosis) ParsePreamble(text string, maxModulusBytes int) ([]byte, error) {
	return parseWrapped(text, maxModulusBytes)
}

// Unwrap implements [Format].
func (Gnosis) Unwrap(d crypto.Decrypter, modulusBytes int, preamble []byte) (*secret.Buffer, error) {
	return unwrapText(d, modulusBytes, preamble, gnosisKeyBytes)
}

// Wrap implements [Format].
func (Gnosis) Wrap(pub *rsa.PublicKey) (*secret.Buffer, string, error) {
	return wrapText(pub, gnosisKeyBytes)
}

// NewCipher implements [Format].
func (Gnosis) NewCipher(key *secret.Buffer) (Cipher, error) {
	if key.Len() != gnosisKeyBytes {
		return nil, ErrOpen
	}
	block, err := aes.NewCipher(key.Bytes())
	if err != nil {
		return nil, fmt.Errorf("session cipher: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("session cipher: %w", err)
	}
	return &gnosisCipher{secret.Hide(&gcm)}, nil
}

// CheckSealed implements [Format].
func (Gnosis) CheckSealed(data, iv string) error {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	if !s.decode(data, iv) || s.ivBytes != shortIVBytes {
		return ErrOpen
	}
	return nil
}

type gnosisCipher struct{ aead secret.Hidden[cipher.AEAD] }

// Seal implements [Cipher]. The IV has 12 bytes, whichever of the two lengths was asked for.
func (c *gnosisCipher) Seal(plaintext *secret.Buffer, ivBytes int) (data, iv string, err error) {
	if err := checkSeal(plaintext, ivBytes); err != nil {
		return "", "", err
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	iv = gnosisIV()
	nonce, ok := appendDecoded(s.iv[:0], iv)
	if !ok {
		panic("envelope: internal error: an IV that is not base64")
	}
	return c.sealWith(s, nonce, plaintext), iv, nil
}

// sealWith is Seal under a given IV; tests check it against published vectors.
func (c *gnosisCipher) sealWith(s *scratch, iv []byte, plaintext *secret.Buffer) (data string) {
	s.sealed = (*c.aead.Get()).Seal(s.sealed[:0], iv, plaintext.Bytes(), nil)
	return s.encode(s.sealed)
}

// Open implements [Cipher].
func (c *gnosisCipher) Open(data, iv string) (*secret.Buffer, error) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	if !s.decode(data, iv) || s.ivBytes != shortIVBytes {
		return nil, ErrOpen
	}
	plaintext := secret.New(len(s.sealed) - tagBytes)
	if _, err := (*c.aead.Get()).Open(plaintext.Bytes()[:0], s.iv[:s.ivBytes], s.sealed, nil); err != nil {
		plaintext.Destroy()
		return nil, ErrOpen
	}
	return plaintext, nil
}

// Format implements [fmt.Formatter]: nothing of the key is printed.
func (c gnosisCipher) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }

// gnosisIV draws the text of a fresh IV: each character is one of 62, all equally likely.
func gnosisIV() string {
	const characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	var text, drawn [gnosisIVText]byte
	for n := 0; n < len(text); {
		_, _ = rand.Read(drawn[:]) // never fails
		for _, d := range drawn {
			if d &= 63; int(d) < len(characters) && n < len(text) {
				text[n] = characters[d]
				n++
			}
		}
	}
	return string(text[:])
}
