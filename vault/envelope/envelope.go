// Package envelope answers: how does one side of a session seal its fields?
//
// A payload format is one file and one line in the kinds table. It has one suite of algorithms and no options: another
// suite is another format.
package envelope

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// The two ways to fail on what came from outside. They are returned as they are, with nothing inside and nothing
// around them, so that every cause looks the same.
var (
	// ErrOpen says that a wrapped key or a sealed field cannot be opened: whatever the reason.
	ErrOpen = errors.New("cannot be opened")
	// ErrPreamble says that a preamble is absent, too long or not base64. Nothing expensive was done [26].
	ErrPreamble = errors.New("malformed preamble")
)

// OAEPSHA1 is the name of the legacy primitive RSA-OAEP with SHA-1 and MGF1-SHA-1 [15].
const OAEPSHA1 = "oaep-sha1"

// Format is how one protocol wraps a session key for a public key, and seals fields under the session key.
// A Format is a stateless value, safe for concurrent use.
type Format interface {
	// Name is the name in the kinds table.
	Name() string

	// Legacy names the legacy primitives that the format needs, for the inventory [15]. Nil where there are none.
	Legacy() []string

	// ParsePreamble decodes what a client sent to set its key up. It is cheap and bounded, and fails with ErrPreamble
	// where text is empty, is not strict base64, or is longer than maxModulusBytes. A shorter one fails in Unwrap [26].
	ParsePreamble(text string, maxModulusBytes int) ([]byte, error)

	// Unwrap opens a parsed preamble with d, whose modulus is modulusBytes long: the exact length first, then one RSA
	// operation, then the key. It fails with ErrOpen whatever is wrong. The caller destroys the key.
	Unwrap(d crypto.Decrypter, modulusBytes int, preamble []byte) (*secret.Buffer, error)

	// Wrap makes a fresh session key and wraps it for pub, whose length the caller has checked. The caller destroys the key.
	Wrap(pub *rsa.PublicKey) (key *secret.Buffer, preamble string, err error)

	// NewCipher prepares a session key. It keeps no reference to key. It fails with ErrOpen where the length is wrong.
	NewCipher(key *secret.Buffer) (Cipher, error)

	// CheckSealed is the shape of a sealed field, without its key: strict base64, the lengths of IV and tag. ErrOpen otherwise.
	CheckSealed(data, iv string) error
}

// Cipher seals and opens single fields under one session key. It is safe for concurrent use.
//
// A Cipher expands its key into memory that Go cannot zero: it is gone when the collector has reused it.
type Cipher interface {
	// Seal gives the base64 texts of ciphertext with tag, and of a fresh IV of ivBytes, 12 or 16; where the format knows
	// one length only, of that.
	Seal(plaintext *secret.Buffer, ivBytes int) (data, iv string, err error)

	// Open reverses Seal. IVs of exactly 12 and 16 bytes are taken, or of the format's one length. It fails with ErrOpen whatever is wrong.
	// The caller destroys the plaintext.
	Open(data, iv string) (*secret.Buffer, error)
}

// kinds are the formats, by the name that configurations give.
var kinds = map[string]Format{
	"rain":   Rain{},
	"gnosis": Gnosis{},
}

// Names lists the formats.
func Names() []string { return slices.Sorted(maps.Keys(kinds)) }

// ByName returns the format of that name, or an error that lists the known ones.
func ByName(name string) (Format, error) {
	if f, ok := kinds[name]; ok {
		return f, nil
	}
	return nil, fmt.Errorf("unknown envelope format %q: known are %s", name, strings.Join(Names(), ", "))
}
