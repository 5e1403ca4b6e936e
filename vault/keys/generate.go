package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// DefaultRSABits is the modulus that Generate makes when it is given 0. One decryption takes about a millisecond of
// CPU; 3072 bits take three times as long.
const DefaultRSABits = 2048

// Generate makes the content of a key file, as kind "pem" loads it: PKCS #8 for the RSA uses, 32 random bytes otherwise,
// which for the use jwt is a key of HS256: see [GenerateJWT] for the others. bits is for the RSA uses: a multiple of 256 from 2048 to 8192, 0 for [DefaultRSABits]; symmetric keys take 0 or 256.
// The caller zeroes what it gets, and writes it with mode 0600.
func Generate(use Use, bits int) ([]byte, error) {
	if _, err := ParseUse(string(use)); err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	generate := generateSymmetric
	if use.rsa() {
		generate = generateRSA
	}
	block, err := generate(use, bits)
	if err != nil {
		return nil, fmt.Errorf("generate key for %s: %w", use, err)
	}
	defer clear(block.Bytes)
	return pem.EncodeToMemory(block), nil
}

// GenerateJWT makes the content of a key file for the use jwt and one of its algorithms: [Generate]'s for HS256, PKCS #8
// for the others, RSA of 2048 bits for RS256. The caller zeroes what it gets, and writes it with mode 0600.
func GenerateJWT(algorithm string) ([]byte, error) {
	if algorithm == HS256 {
		return Generate(UseJWT, 0)
	}
	block, err := generateSigner(algorithm)
	if err != nil {
		return nil, fmt.Errorf("generate key for %s: %w", UseJWT, err)
	}
	defer clear(block.Bytes)
	return pem.EncodeToMemory(block), nil
}

func generateSigner(algorithm string) (*pem.Block, error) {
	var key crypto.Signer
	var err error
	switch algorithm {
	case ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EdDSA:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case RS256:
		return generateRSA(UseJWT, 0)
	default:
		return nil, fmt.Errorf("unknown algorithm %q: known are %s", algorithm, joined(Algorithms()))
	}
	if err != nil {
		return nil, err
	}
	return pkcs8(key)
}

func generateRSA(_ Use, bits int) (*pem.Block, error) {
	if bits == 0 {
		bits = DefaultRSABits
	}
	if bits < minSessionBits || bits > maxRSABits || bits%256 != 0 {
		return nil, fmt.Errorf("%d bits: want a multiple of 256 from 2048 to 8192", bits)
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	return pkcs8(key)
}

func pkcs8(key crypto.Signer) (*pem.Block, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &pem.Block{Type: typePKCS8, Bytes: der}, nil
}

func generateSymmetric(use Use, bits int) (*pem.Block, error) {
	if bits != 0 && bits != 8*symmetricBytes {
		return nil, fmt.Errorf("%d bits: symmetric keys have 256", bits)
	}
	key := make([]byte, symmetricBytes)
	_, _ = rand.Read(key) // never fails: crypto/rand.Read crashes the process instead
	return &pem.Block{Type: typeSymmetric, Headers: map[string]string{headerUse: string(use)}, Bytes: key}, nil
}
