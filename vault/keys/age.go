package keys

import (
	"bytes"
	"crypto/fips140"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

var (
	errPassphrase = errors.New("wrong passphrase, or the file was changed")
	errNoPass     = errors.New("empty passphrase")
	errNotAge     = errors.New("not an age file")
	errAgeFIPS    = errors.New("an age file takes scrypt and ChaCha20-Poly1305, which are outside FIPS 140-3: not with GODEBUG=fips140=only")
)

// loadAge is the provider "age": what kind "pem" reads, sealed with a passphrase (age v1, scrypt; armored or binary).
// The passphrase's file commonly is a systemd credential, which is kept in memory that is not swapped.
func loadAge(c Config, before *Key) (*Key, error) {
	return loadWithPassphrase(c, before, KindAge, unseal)
}

// loadWithPassphrase is a provider whose files open with a passphrase.
func loadWithPassphrase(c Config, before *Key, kind string, open func(sealed, passphrase []byte) ([]byte, error)) (*Key, error) {
	if c.PassphraseFile == "" {
		return nil, fmt.Errorf("kind %q needs a passphrase file", kind)
	}
	passphrase, err := readFile(c.PassphraseFile)
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	sealed, err := readFile(c.File)
	if err != nil {
		return nil, err
	}
	phrase := trimNewline(passphrase)
	if before.openedFrom(c, kind, sealed, phrase) {
		return before, nil
	}
	content, err := open(sealed, phrase)
	if err != nil {
		return nil, fmt.Errorf("file %q: %w", c.File, err)
	}
	defer clear(content)
	m, err := parse(c.Use, content)
	if err != nil {
		return nil, fmt.Errorf("file %q, inside: %w", c.File, err)
	}
	from, err := newOrigin(kind, sealed, phrase)
	if err != nil {
		return nil, fmt.Errorf("file %q: %w", c.File, err)
	}
	k := newKey(c, m, false)
	k.origin = secret.Hide(from)
	return k, nil
}

// Seal encrypts the content of a key file with a passphrase, for kind "age": an armored age file that `age -d` opens too.
// scrypt at age's work factor takes about a second and 256 MiB, here and when it is opened. age keeps a copy of the
// passphrase as a Go string, which cannot be zeroed.
func Seal(pem, passphrase []byte) ([]byte, error) {
	return seal(pem, passphrase, 0)
}

// seal is Seal with scrypt's work factor, 2^logN; 0 is age's own.
func seal(content, passphrase []byte, logN int) ([]byte, error) {
	if err := checkSealing(content, passphrase); err != nil {
		return nil, err
	}
	recipient, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, fmt.Errorf("seal key file: %v", err)
	}
	if logN != 0 {
		recipient.SetWorkFactor(logN)
	}
	var out bytes.Buffer
	if err := encrypt(&out, content, recipient); err != nil {
		return nil, fmt.Errorf("seal key file: %v", err)
	}
	return out.Bytes(), nil
}

func checkSealing(content, passphrase []byte) error {
	switch {
	case len(content) == 0:
		return errors.New("seal key file: empty content")
	case len(content) > maxFileBytes:
		return fmt.Errorf("seal key file: %w", errTooLong)
	case len(passphrase) == 0:
		return fmt.Errorf("seal key file: %w", errNoPass)
	}
	return nil
}

func encrypt(out io.Writer, content []byte, to age.Recipient) error {
	a := armor.NewWriter(out)
	w, err := age.Encrypt(a, to)
	if err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return a.Close()
}

// unseal opens an age file. What age says about it is dropped: it is one of two things, and may quote the file.
func unseal(sealed, passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		return nil, errNoPass
	}
	identity, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, errPassphrase
	}
	var in io.Reader = bytes.NewReader(sealed)
	if bytes.HasPrefix(bytes.TrimSpace(withoutBOM(sealed)), []byte(armor.Header)) {
		in = armor.NewReader(bytes.NewReader(withoutBOM(sealed)))
	} else if !bytes.HasPrefix(sealed, []byte("age-encryption.org/")) {
		return nil, errNotAge
	}
	if fips140.Enforced() {
		return nil, errAgeFIPS
	}
	r, err := age.Decrypt(in, identity)
	if err != nil {
		return nil, errPassphrase
	}
	content, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	switch {
	case err != nil:
		clear(content)
		return nil, errPassphrase
	case len(content) > maxFileBytes:
		clear(content)
		return nil, errTooLong
	}
	return content, nil
}
