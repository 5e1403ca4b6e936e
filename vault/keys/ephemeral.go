package keys

import (
	"crypto/rand"
	"fmt"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// Ephemeral makes a symmetric key that lives as long as the process: what was sealed or digested with it is lost at a
// restart, which fails closed. It is for one instance with a store in memory. Of use jwt it is a key of HS256.
func Ephemeral(id string, use Use) (*Key, error) {
	if _, err := ParseUse(string(use)); err != nil || use.rsa() {
		return nil, fmt.Errorf("ephemeral key %q: not for use %q", id, use)
	}
	key := make([]byte, symmetricBytes)
	_, _ = rand.Read(key) // never fails: crypto/rand.Read crashes the process instead
	return newKey(Config{ID: id, Use: use}, &material{symmetric: secret.From(key)}, false), nil
}
