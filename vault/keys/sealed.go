package keys

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// A sealed key file has one PEM block of typeSealed, with the header "Iterations". What is in it is
//
//	salt (16 bytes) | nonce (12) | ciphertext | tag (16)
//
// AES-256-GCM with a random nonce (NIST SP 800-38D) under PBKDF2-HMAC-SHA-256(passphrase, salt, iterations) (SP 800-132), with
// sealedLabel, the iterations in decimal and the salt as associated data. Nothing in it is beyond FIPS 140-3, as kind "age" is.
const (
	typeSealed       = "CARDSTILE SEALED KEY"
	headerIterations = "Iterations"
	sealedLabel      = "cardstile sealed key 1 "
	sealedSaltBytes  = 16
)

// The iterations of PBKDF2: of the files that we make (OWASP's Password Storage Cheat Sheet of 2023 has 600,000), and what others may have.
const (
	sealedIterations    = 1_000_000
	minSealedIterations = 1000 // SP 800-132, section 5.2
	maxSealedIterations = 20_000_000
)

// The names of the providers whose files have a passphrase.
const (
	KindAge    = "age"
	KindSealed = "sealed"
)

var errNotSealed = errors.New("not a sealed key file as `cardstile keys generate --kind sealed` makes it")

// loadSealed is the provider "sealed": what kind "pem" reads, sealed with a passphrase by what FIPS 140-3 approves.
func loadSealed(c Config, before *Key) (*Key, error) {
	return loadWithPassphrase(c, before, KindSealed, openSealed)
}

// SealFIPS encrypts the content of a key file with a passphrase, for kind "sealed". pbkdf2 keeps a copy of the passphrase as a Go
// string, which cannot be zeroed. A passphrase is only as good as it is long: PBKDF2 takes no memory to speak of, unlike scrypt.
func SealFIPS(content, passphrase []byte) ([]byte, error) {
	return sealFIPS(content, passphrase, sealedIterations)
}

func sealFIPS(content, passphrase []byte, iterations int) ([]byte, error) {
	if err := checkSealing(content, passphrase); err != nil {
		return nil, err
	}
	salt := make([]byte, sealedSaltBytes)
	_, _ = rand.Read(salt) // never fails
	aead, err := sealedCipher(passphrase, salt, iterations)
	if err != nil {
		return nil, fmt.Errorf("seal key file: %v", err)
	}
	return pem.EncodeToMemory(&pem.Block{
		Type: typeSealed, Headers: map[string]string{headerIterations: strconv.Itoa(iterations)},
		Bytes: aead.Seal(salt, nil, content, sealedData(salt, iterations)),
	}), nil
}

func sealedCipher(passphrase, salt []byte, iterations int) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, iterations, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func sealedData(salt []byte, iterations int) []byte {
	return append(strconv.AppendInt([]byte(sealedLabel), int64(iterations), 10), salt...)
}

// openSealed opens a sealed key file.
func openSealed(sealed, passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		return nil, errNoPass
	}
	block, rest := pem.Decode(bytes.TrimSpace(withoutBOM(sealed)))
	if block == nil || block.Type != typeSealed || len(bytes.TrimSpace(rest)) != 0 || len(block.Headers) != 1 || !isSealed(sealed) {
		return nil, errNotSealed
	}
	iterations, err := strconv.Atoi(block.Headers[headerIterations])
	if err != nil || iterations < minSealedIterations || iterations > maxSealedIterations || len(block.Bytes) < sealedSaltBytes+SealOverhead {
		return nil, errNotSealed
	}
	salt := block.Bytes[:sealedSaltBytes:sealedSaltBytes]
	aead, err := sealedCipher(passphrase, salt, iterations)
	if err != nil {
		return nil, err
	}
	content, err := aead.Open(nil, nil, block.Bytes[sealedSaltBytes:], sealedData(salt, iterations))
	if err != nil {
		return nil, errPassphrase
	}
	return content, nil
}

func isSealed(content []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(withoutBOM(content)), []byte("-----BEGIN "+typeSealed+"-----"))
}

// openEither opens a file that is sealed in either way.
func openEither(sealed, passphrase []byte) ([]byte, error) {
	if isSealed(sealed) {
		return openSealed(sealed, passphrase)
	}
	return unseal(sealed, passphrase)
}

// SealedKind is the kind of a file that has a passphrase: "sealed" where it is one of those, else "age".
func SealedKind(file string) string {
	if content, err := os.ReadFile(file); err == nil && isSealed(content) {
		return KindSealed
	}
	return KindAge
}
