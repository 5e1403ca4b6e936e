package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
)

var errCAKey = errors.New("not an EC private key on P-256 or P-384 in PKCS #8")

// GenerateCA makes the private key of a certificate authority: an EC key in PKCS #8, PEM, on P-256 or P-384.
func GenerateCA(curve string) ([]byte, error) {
	var c elliptic.Curve
	switch curve {
	case "P-256":
		c = elliptic.P256()
	case "P-384":
		c = elliptic.P384()
	default:
		return nil, fmt.Errorf("curve %q: known are P-256 and P-384", curve)
	}
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: typePKCS8, Bytes: der}), nil
}

// CAKey signs with a certificate authority's key, and hands the key to nobody [24].
type CAKey struct {
	public crypto.PublicKey
	sign   func(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) // a func, which printers that walk structs do not enter
}

// Public implements crypto.Signer.
func (k *CAKey) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer.
func (k *CAKey) Sign(random io.Reader, digest []byte, options crypto.SignerOpts) ([]byte, error) {
	return k.sign(random, digest, options)
}

// LoadCA opens the key file of a certificate authority: sealed as Seal does it where there is the file of a passphrase,
// and plain otherwise. Errors name the file at fault, and quote nothing of it.
func LoadCA(file, passphraseFile string) (*CAKey, error) {
	content, err := readFile(file)
	if err != nil {
		return nil, err
	}
	defer clear(content)
	if passphraseFile != "" {
		passphrase, err := readFile(passphraseFile)
		if err != nil {
			return nil, err
		}
		defer clear(passphrase)
		opened, err := openEither(content, trimNewline(passphrase))
		if err != nil {
			return nil, fmt.Errorf("file %q, with the passphrase of %q: %w", file, passphraseFile, err)
		}
		defer clear(opened)
		content = opened
	}
	key, err := ParseCA(content)
	if err != nil {
		return nil, fmt.Errorf("file %q: %w", file, err)
	}
	return key, nil
}

// ParseCA reads what GenerateCA made. It keeps nothing of content.
func ParseCA(content []byte) (*CAKey, error) {
	block, err := onlyBlock(content)
	if err != nil {
		return nil, err
	}
	defer clear(block.Bytes)
	if block.Type != typePKCS8 || len(block.Headers) != 0 {
		return nil, errCAKey
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errCAKey
	}
	key, ok := any.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
		return nil, errCAKey
	}
	return &CAKey{public: &key.PublicKey, sign: key.Sign}, nil
}
