package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"math/big"
)

// The algorithms of JWT keys, by their names in JWS: RFC 7518, section 3.1, and RFC 8037, section 3.1.
const (
	HS256 = "HS256" // who can verify it can make it: for ourselves alone [23]
	ES256 = "ES256"
	EdDSA = "EdDSA" // Ed25519 alone
	RS256 = "RS256" // a millisecond of CPU for each signature, many times what the others cost
)

// Algorithms lists the names of the algorithms.
func Algorithms() []string { return []string{HS256, ES256, EdDSA, RS256} }

// labelJWT is what keys of HS256 are derived with.
const labelJWT = "jwt"

// JWTKey makes and checks the signatures of JWTs, in the one algorithm of its key [23]. It is safe for concurrent use.
type JWTKey struct {
	id        string
	algorithm string
	public    crypto.PublicKey

	// Funcs, which printers that walk structs do not enter.
	sign   func(message []byte) ([]byte, error)
	verify func(message, signature []byte) bool
}

// JWT returns the operations of a key of use jwt. A symmetric key is one of HS256, under HKDF-SHA-256(key, no salt,
// "jwt") (RFC 5869); an EC P-256 key one of ES256, an Ed25519 key one of EdDSA, an RSA key one of RS256.
func (k *Key) JWT() (*JWTKey, error) {
	if k.use != UseJWT {
		return nil, k.wrongUse("sign")
	}
	switch key := k.material.Get().signer.(type) {
	case *ecdsa.PrivateKey:
		return es256(k.id, key), nil
	case ed25519.PrivateKey:
		return edDSA(k.id, key), nil
	case *rsa.PrivateKey:
		return rs256(k.id, key), nil
	}
	sub, err := k.derive(labelJWT)
	if err != nil {
		return nil, err
	}
	defer sub.Destroy()
	return hs256(k.id, newMAC(sub.Bytes())), nil
}

// ID is the configured name of the key: the "kid" of what it signs.
func (k *JWTKey) ID() string { return k.id }

// Algorithm is its name: the "alg" of what it signs, and the only one that may stand there.
func (k *JWTKey) Algorithm() string { return k.algorithm }

// Public is the public half, not to be changed: *ecdsa.PublicKey, ed25519.PublicKey or *rsa.PublicKey. It is nil for
// HS256, whose key never leaves us [23].
func (k *JWTKey) Public() crypto.PublicKey { return k.public }

// Sign returns the octets of a JWS signature, not encoded, over a signing input (RFC 7515, section 5.1).
func (k *JWTKey) Sign(message []byte) ([]byte, error) {
	signature, err := k.sign(message)
	if err != nil {
		return nil, fmt.Errorf("key %q: sign: %w", k.id, err)
	}
	return signature, nil
}

// Verify reports whether it is a signature of the message by this key, for HS256 in constant time. A signature that it
// takes need not be the one that was made: others can make a second one of ES256 from the first.
func (k *JWTKey) Verify(message, signature []byte) bool { return k.verify(message, signature) }

// Format implements [fmt.Formatter]: id and algorithm, whatever the verb.
func (k JWTKey) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "key %q (%s)", k.id, k.algorithm) }

var _ fmt.Formatter = (*JWTKey)(nil)

// hs256 is RFC 7518, section 3.2.
func hs256(id string, mac *MAC) *JWTKey {
	return &JWTKey{
		id: id, algorithm: HS256,
		sign:   func(message []byte) ([]byte, error) { return mac.MAC(nil, message), nil },
		verify: func(message, signature []byte) bool { return hmac.Equal(mac.MAC(nil, message), signature) },
	}
}

// scalarBytes is the length of each half of a signature on P-256.
const scalarBytes = 32

// es256 is RFC 7518, section 3.4: r and s, 32 bytes each.
func es256(id string, key *ecdsa.PrivateKey) *JWTKey {
	return &JWTKey{
		id: id, algorithm: ES256, public: key.Public(),
		sign: func(message []byte) ([]byte, error) {
			digest := sha256.Sum256(message)
			r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
			if err != nil {
				return nil, err
			}
			out := make([]byte, 2*scalarBytes)
			r.FillBytes(out[:scalarBytes])
			s.FillBytes(out[scalarBytes:])
			return out, nil
		},
		verify: func(message, signature []byte) bool {
			if len(signature) != 2*scalarBytes {
				return false
			}
			digest := sha256.Sum256(message)
			r, s := new(big.Int).SetBytes(signature[:scalarBytes]), new(big.Int).SetBytes(signature[scalarBytes:])
			return ecdsa.Verify(&key.PublicKey, digest[:], r, s)
		},
	}
}

// edDSA is RFC 8037, section 3.1, with Ed25519.
func edDSA(id string, key ed25519.PrivateKey) *JWTKey {
	public := key.Public().(ed25519.PublicKey)
	return &JWTKey{
		id: id, algorithm: EdDSA, public: public,
		sign:   func(message []byte) ([]byte, error) { return ed25519.Sign(key, message), nil },
		verify: func(message, signature []byte) bool { return ed25519.Verify(public, message, signature) },
	}
}

// rs256 is RFC 7518, section 3.3: PKCS #1 v1.5.
func rs256(id string, key *rsa.PrivateKey) *JWTKey {
	return &JWTKey{
		id: id, algorithm: RS256, public: key.Public(),
		sign: func(message []byte) ([]byte, error) {
			digest := sha256.Sum256(message)
			return rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
		},
		verify: func(message, signature []byte) bool {
			digest := sha256.Sum256(message)
			return rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature) == nil
		},
	}
}
