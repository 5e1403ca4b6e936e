package keys

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
)

// origin recognises what a key was opened from: a kind, the content of its file and a passphrase, of which it holds a mark and no
// more. To open a file takes up to a second, on purpose; a reload that finds all of it unchanged goes on with the key [20].
//
// Whoever reads the memory has the opened key. A mark besides is a faster way than the file to try passphrases, which matters where
// one that can be guessed seals other files too. It takes PBKDF2 for that reason, with a salt for each key, as slow as reloads bear.
type origin struct {
	kind string
	salt [originSaltBytes]byte
	mark []byte
}

const (
	originSaltBytes  = 16
	originIterations = 50_000 // about 10 ms for each key, at each reload
)

func newOrigin(kind string, sealed, passphrase []byte) (*origin, error) {
	o := &origin{kind: kind}
	_, _ = rand.Read(o.salt[:]) // never fails
	var err error
	o.mark, err = o.markOf(sealed, passphrase)
	return o, err
}

// markOf is PBKDF2-HMAC-SHA-256 of the passphrase, with the file's digest in the salt.
func (o *origin) markOf(sealed, passphrase []byte) ([]byte, error) {
	content := sha256.Sum256(sealed)
	return pbkdf2.Key(sha256.New, string(passphrase), slices.Concat(o.salt[:], content[:]), originIterations, sha256.Size)
}

// is reports whether it is that of these. A nil origin, of a key that took no passphrase, is of nothing.
func (o *origin) is(kind string, sealed, passphrase []byte) bool {
	if o == nil || o.kind != kind {
		return false
	}
	mark, err := o.markOf(sealed, passphrase)
	return err == nil && subtle.ConstantTimeCompare(mark, o.mark) == 1
}

// openedFrom reports whether k is the key that c names, opened from what c's files hold now. k may be nil.
func (k *Key) openedFrom(c Config, kind string, sealed, passphrase []byte) bool {
	return k != nil && k.id == c.ID && k.use == c.Use && k.environment == c.Environment && k.origin.Get().is(kind, sealed, passphrase)
}
