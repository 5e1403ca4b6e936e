package keys

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

var errLabel = errors.New("empty label")

// MAC is HMAC-SHA-256 (RFC 2104) under one key. It is safe for concurrent use.
type MAC struct{ states secret.Hidden[sync.Pool] } // of hash.Hash, keyed and reset

// MAC returns HMAC-SHA-256 under HKDF-SHA-256(key, no salt, label) (RFC 5869), for the uses digest and audit.
// One label is one purpose: the MACs of different labels know nothing of each other.
func (k *Key) MAC(label string) (*MAC, error) {
	if k.use != UseDigest && k.use != UseAudit {
		return nil, k.wrongUse("MAC")
	}
	sub, err := k.derive(label)
	if err != nil {
		return nil, err
	}
	defer sub.Destroy()
	return newMAC(sub.Bytes()), nil
}

// RawMAC returns HMAC-SHA-256 under the file's bytes as they are, for the use cookie alone: Exa's cookies are signed
// so (hono's signed cookies take the secret's text as the key).
func (k *Key) RawMAC() (*MAC, error) {
	if k.use != UseCookie {
		return nil, k.wrongUse("raw MAC")
	}
	return newMAC(k.material.Get().symmetric.Bytes()), nil
}

// newMAC keeps key only in states that are keyed with it.
func newMAC(key []byte) *MAC {
	key = append([]byte(nil), key...) // the caller zeroes its own
	return &MAC{states: secret.Hide(&sync.Pool{New: func() any { return hmac.New(sha256.New, key) }})}
}

// MAC appends the 32 bytes of the message's MAC to dst. It allocates only what dst lacks.
func (m *MAC) MAC(dst, message []byte) []byte {
	states := m.states.Get()
	h := states.Get().(hash.Hash)
	_, _ = h.Write(message) // a hash never fails
	dst = h.Sum(dst)
	h.Reset() // now and not before use: what is left of the message goes
	states.Put(h)
	return dst
}

// Format implements [fmt.Formatter]: nothing of the key is printed.
func (m MAC) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }

// derive returns the sub-key of a label, 32 bytes, which the caller destroys.
func (k *Key) derive(label string) (*secret.Buffer, error) { return k.deriveSalted(nil, label) }

func (k *Key) deriveSalted(salt []byte, label string) (*secret.Buffer, error) {
	if label == "" {
		return nil, fmt.Errorf("key %q: derive: %w", k.id, errLabel)
	}
	sub, err := hkdf.Key(sha256.New, k.material.Get().symmetric.Bytes(), salt, label, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("key %q: derive: %w", k.id, err)
	}
	return secret.From(sub), nil
}
