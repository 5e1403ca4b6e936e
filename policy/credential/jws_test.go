package credential_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
	"testing"
)

// jwtKey is a key as the vault has them: secret is its bytes, or what has a
// public half.
type jwtKey struct {
	id, algorithm string
	secret        any
}

func (k jwtKey) ID() string        { return k.id }
func (k jwtKey) Algorithm() string { return k.algorithm }

func (k jwtKey) Public() crypto.PublicKey {
	if signer, ok := k.secret.(crypto.Signer); ok {
		return signer.Public()
	}
	return nil
}

func (k jwtKey) Sign(message []byte) ([]byte, error) {
	hashed := sha256.Sum256(message)
	switch secret := k.secret.(type) {
	case []byte:
		h := hmac.New(sha256.New, secret)
		h.Write(message)
		return h.Sum(nil), nil
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, secret, hashed[:])
		if err != nil {
			return nil, err
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), nil
	case *rsa.PrivateKey:
		if k.algorithm == "PS256" {
			return rsa.SignPSS(rand.Reader, secret, crypto.SHA256, hashed[:], &rsa.PSSOptions{SaltLength: 32})
		}
		return rsa.SignPKCS1v15(rand.Reader, secret, crypto.SHA256, hashed[:])
	case ed25519.PrivateKey:
		return ed25519.Sign(secret, message), nil
	}
	return nil, errors.New("test: no key")
}

func (k jwtKey) Verify(message, signature []byte) bool {
	hashed := sha256.Sum256(message)
	switch secret := k.secret.(type) {
	case []byte:
		h := hmac.New(sha256.New, secret)
		h.Write(message)
		return hmac.Equal(h.Sum(nil), signature)
	case *ecdsa.PrivateKey:
		return len(signature) == 64 && ecdsa.Verify(&secret.PublicKey, hashed[:],
			new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	case *rsa.PrivateKey:
		if k.algorithm == "PS256" {
			return rsa.VerifyPSS(&secret.PublicKey, crypto.SHA256, hashed[:], signature, nil) == nil
		}
		return rsa.VerifyPKCS1v15(&secret.PublicKey, crypto.SHA256, hashed[:], signature) == nil
	case ed25519.PrivateKey:
		return ed25519.Verify(secret.Public().(ed25519.PublicKey), message, signature)
	}
	return false
}

func hs256(id string) jwtKey { return jwtKey{id, "HS256", []byte("secret of " + id)} }

func es256(t testing.TB, id string) jwtKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return jwtKey{id, "ES256", key}
}

// forge signs whatever it is given.
func forge(t testing.TB, key jwtKey, header, payload string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	signature, err := key.Sign([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// part is one of a token's three, decoded.
func part(t testing.TB, text string, i int) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[i])
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
