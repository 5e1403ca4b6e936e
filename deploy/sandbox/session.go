package sandbox

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // OAEP's hash in the published protocol; nothing rests on its collision resistance
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Session is one side of the session encryption that Rain and Exa publish. An issuer opens one with its private key; a cardholder's device
// makes one with NewSession: the demo and the tests are such devices.
//
// A 16-byte secret is wrapped with RSA-OAEP (SHA-1, MGF1 with SHA-1; RFC 8017, section 7.1) as the 24 characters of its standard base64 text.
// Each value is sealed with AES-128-GCM under it (NIST SP 800-38D), with an IV of 16 or 12 bytes, as ciphertext and then 16-byte tag.
type Session struct {
	id     string
	secret string              // hex
	aead   map[int]cipher.AEAD // by IV length in bytes
}

// Sealed is an encrypted value as it stands on the wire: standard base64 of ciphertext and tag, and of the IV.
type Sealed struct {
	IV   string `json:"iv"`
	Data string `json:"data"`
}

const (
	secretBytes = 16
	ivBytes     = 16 // of the IVs that we make
	tagBytes    = 16
)

var (
	errSession = errors.New("sandbox: session id cannot be opened")
	errSealed  = errors.New("sandbox: value cannot be opened")
	errBlock   = errors.New("sandbox: not a PIN block")
)

// NewSession makes a session with a fresh secret for the holder of the private key of pub.
func NewSession(pub *rsa.PublicKey) (*Session, error) {
	secret := make([]byte, secretBytes)
	rand.Read(secret)
	return wrap(pub, secret)
}

// ID returns the session's id, which goes into the header sessionid (Cardstile, Exa) or SessionId (Rain).
func (s *Session) ID() string { return s.id }

// Secret returns the session's secret as the device keeps it: 32 hex digits.
func (s *Session) Secret() string { return s.secret }

// SessionOf returns the device's side of a session whose secret it kept. Its id is not known any more.
func SessionOf(secret string) (*Session, error) {
	raw, err := hex.DecodeString(secret)
	if err != nil || len(raw) != secretBytes {
		return nil, errSession
	}
	return newSession("", raw)
}

// Seal encrypts text with a fresh IV of 16 bytes.
func (s *Session) Seal(text string) Sealed {
	iv := make([]byte, ivBytes)
	rand.Read(iv)
	return s.seal(text, iv)
}

// SealPIN encrypts the PIN block of a PIN of 4 to 12 digits.
func (s *Session) SealPIN(pin string) (Sealed, error) {
	if !digits(pin, 4, 12) {
		return Sealed{}, errBlock
	}
	return s.Seal(pinBlock(pin)), nil
}

// Open decrypts a value.
func (s *Session) Open(v Sealed) (string, error) {
	iv, errIV := base64.StdEncoding.Strict().DecodeString(v.IV)
	data, errData := base64.StdEncoding.Strict().DecodeString(v.Data)
	aead := s.aead[len(iv)]
	if errIV != nil || errData != nil || aead == nil {
		return "", errSealed
	}
	text, err := aead.Open(nil, iv, data, nil)
	if err != nil {
		return "", errSealed
	}
	return string(text), nil
}

// OpenPIN decrypts a PIN block and returns its PIN.
func (s *Session) OpenPIN(v Sealed) (string, error) {
	block, err := s.Open(v)
	if err != nil {
		return "", err
	}
	return parseBlock(block)
}

func wrap(pub *rsa.PublicKey, secret []byte) (*Session, error) {
	text := base64.StdEncoding.EncodeToString(secret)
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, []byte(text), nil)
	if err != nil {
		return nil, fmt.Errorf("sandbox: wrap session secret: %w", err)
	}
	return newSession(base64.StdEncoding.EncodeToString(wrapped), secret)
}

// unwrap opens the session that somebody else made with our public key.
func unwrap(key *rsa.PrivateKey, id string) (*Session, error) {
	wrapped, err := base64.StdEncoding.Strict().DecodeString(id)
	if err != nil || len(wrapped) != key.Size() {
		return nil, errSession
	}
	text, err := rsa.DecryptOAEP(sha1.New(), nil, key, wrapped, nil)
	if err != nil {
		return nil, errSession
	}
	secret, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(secret) != secretBytes {
		return nil, errSession
	}
	return newSession(id, secret)
}

// sessionOf opens the session that a request names; nil where the header SessionId is absent, there twice, or cannot be opened.
func sessionOf(key *rsa.PrivateKey, h http.Header) *Session {
	id, ok := one(h, "SessionId")
	if !ok {
		return nil
	}
	s, err := unwrap(key, id)
	if err != nil {
		return nil
	}
	return s
}

func newSession(id string, secret []byte) (*Session, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	s := &Session{id: id, secret: hex.EncodeToString(secret), aead: make(map[int]cipher.AEAD, 2)}
	for _, n := range []int{12, 16} {
		if s.aead[n], err = cipher.NewGCMWithNonceSize(block, n); err != nil {
			return nil, fmt.Errorf("sandbox: %w", err)
		}
	}
	return s, nil
}

func (s *Session) seal(text string, iv []byte) Sealed {
	data := s.aead[len(iv)].Seal(nil, iv, []byte(text), nil)
	return Sealed{IV: base64.StdEncoding.EncodeToString(iv), Data: base64.StdEncoding.EncodeToString(data)}
}

// pinBlock writes the ASCII PIN block of the contract: '2', the length as one lower-case hex digit, the PIN, and 'F' up to 16 characters.
func pinBlock(pin string) string {
	return fmt.Sprintf("2%x%s%s", len(pin), pin, strings.Repeat("F", 14-len(pin)))
}

// parseBlock reads a PIN block and returns its PIN. It accepts the one form that pinBlock writes.
func parseBlock(block string) (string, error) {
	if len(block) != 16 {
		return "", errBlock
	}
	pin := strings.TrimRight(block[2:], "F")
	if !digits(pin, 4, 12) || pinBlock(pin) != block {
		return "", errBlock
	}
	return pin, nil
}
