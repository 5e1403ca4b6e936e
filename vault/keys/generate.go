package keys

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// DefaultRSABits is the modulus that Generate makes when it is given 0. One decryption takes about a millisecond of
// CPU; 3072 bits take three times as long.
const DefaultRSABits = 2048

// Generate makes the content of a key file, as kind "pem" loads it: PKCS #8 for the RSA uses, 32 random bytes otherwise.
// bits is for the RSA uses: a multiple of 256 from 2048 to 8192, 0 for [DefaultRSABits]; symmetric keys take 0 or 256.
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
