package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// SealOverhead is how much longer a sealed value is than its plaintext: nonce (12) and tag (16).
const SealOverhead = 12 + 16

// maxSealBytes bounds a plaintext; what the store keeps is far smaller.
const maxSealBytes = 1 << 20

// ErrOpen says that a sealed value cannot be opened: another key or label, other associated data, or a changed value.
var ErrOpen = errors.New("sealed value cannot be opened")

// MinTokenBytes is the shortest token that seals: 128 bits, in base64 without padding.
const MinTokenBytes = 22

var (
	errSealLength = errors.New("seal: longer than 1 MiB")
	errToken      = errors.New("a token of less than 22 bytes")
)

// Sealer is AES-256-GCM (NIST SP 800-38D) under one sub-key, with a random nonce of 96 bits that leads the sealed value:
// nonce | ciphertext | tag. Rotate the key before it has sealed 2^32 values (SP 800-38D, section 8.3).
// It does not hide the length. It is safe for concurrent use.
type Sealer struct{ aead secret.Hidden[cipher.AEAD] }

// Sealer returns a Sealer under HKDF-SHA-256(key, no salt, label) (RFC 5869), for the use storage.
func (k *Key) Sealer(label string) (*Sealer, error) { return k.sealer(nil, label) }

// TokenSealer returns a Sealer under HKDF-SHA-256(key, salt token, label) (RFC 5869), for the use storage: what it seals
// opens with both the key and the token, and with one of them it does not [11].
//
// The salt is the token itself, since stores and logs may know digests of it. HMAC, which takes it as its key, takes a few
// long or binary tokens for one (RFC 2104, section 2): where that matters the associated data tells them apart.
// The Sealer goes with its last use: its memory is not zeroed, but reused.
func (k *Key) TokenSealer(label, token string) (*Sealer, error) {
	if len(token) < MinTokenBytes {
		return nil, fmt.Errorf("key %q: seal: %w", k.id, errToken)
	}
	return k.sealer([]byte(token), label)
}

func (k *Key) sealer(salt []byte, label string) (*Sealer, error) {
	if k.use != UseStorage {
		return nil, k.wrongUse("seal")
	}
	sub, err := k.deriveSalted(salt, label)
	if err != nil {
		return nil, err
	}
	defer sub.Destroy()
	block, err := aes.NewCipher(sub.Bytes())
	if err != nil {
		return nil, fmt.Errorf("key %q: seal: %w", k.id, err)
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("key %q: seal: %w", k.id, err)
	}
	return &Sealer{aead: secret.Hide(&gcm)}, nil
}

// Seal appends the sealed plaintext to dst: [SealOverhead] longer. ad is authenticated, not stored, and needed to open.
// dst must not overlap plaintext. The one error is a plaintext of more than 1 MiB.
func (s *Sealer) Seal(dst, ad, plaintext []byte) ([]byte, error) {
	if len(plaintext) > maxSealBytes {
		return nil, errSealLength
	}
	return (*s.aead.Get()).Seal(dst, nil, plaintext, ad), nil
}

// Open appends the plaintext of a sealed value to dst, or fails with [ErrOpen] and nothing.
func (s *Sealer) Open(dst, ad, sealed []byte) ([]byte, error) {
	if len(sealed) < SealOverhead || len(sealed) > maxSealBytes+SealOverhead {
		return nil, ErrOpen
	}
	out, err := (*s.aead.Get()).Open(dst, nil, sealed, ad)
	if err != nil {
		return nil, ErrOpen
	}
	return out, nil
}

// Format implements [fmt.Formatter]: nothing of the key is printed.
func (s Sealer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }
