package envelope

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"fmt"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// Preambles that are the base64 of RSA-OAEP (RFC 8017, section 7.1) with SHA-1 and MGF1-SHA-1 and an empty label, over
// the base64 *text* of a key. Formats differ in the key's length.

// parseWrapped is [Format.ParsePreamble].
func parseWrapped(text string, maxModulusBytes int) ([]byte, error) {
	if len(text) > standard.EncodedLen(maxModulusBytes) {
		return nil, ErrPreamble
	}
	p, ok := appendDecoded(nil, text)
	if !ok || len(p) == 0 || len(p) > maxModulusBytes {
		return nil, ErrPreamble
	}
	return p, nil
}

// unwrapText is [Format.Unwrap] for a key of keyBytes.
func unwrapText(d crypto.Decrypter, modulusBytes int, preamble []byte, keyBytes int) (*secret.Buffer, error) {
	text, err := openOAEP(d, modulusBytes, preamble)
	if err != nil {
		return nil, err
	}
	defer text.Destroy()
	if text.Len() != keyTextBytes(keyBytes) {
		return nil, ErrOpen
	}
	key := secret.New(keyBytes)
	if !decodeKey(key.Bytes(), text.Bytes()) {
		key.Destroy()
		return nil, ErrOpen
	}
	return key, nil
}

// openOAEP is the RSA half of unwrapText. crypto/rsa tells one padding error from another by neither text nor time
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

// wrapText is [Format.Wrap] for a key of keyBytes.
func wrapText(pub *rsa.PublicKey, keyBytes int) (*secret.Buffer, string, error) {
	key := secret.New(keyBytes)
	_, _ = rand.Read(key.Bytes()) // never fails: crypto/rand.Read crashes the process instead
	text := secret.New(keyTextBytes(keyBytes))
	defer text.Destroy()
	encodeKey(text.Bytes(), key.Bytes())
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, text.Bytes(), nil)
	if err != nil {
		key.Destroy()
		return nil, "", fmt.Errorf("wrap session key: %w", err)
	}
	return key, standard.EncodeToString(wrapped), nil
}
