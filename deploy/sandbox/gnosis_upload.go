package sandbox

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // OAEP's hash in the published protocol; nothing rests on its collision resistance
	"encoding/base64"
	"fmt"
)

// GnosisUpload is a card number as a cardholder's device uploads it to Gnosis Pay, and as Gnosis Pay's clients encrypt it: AES-256-GCM under a
// key whose base64 text is wrapped with RSA-OAEP (SHA-1, MGF1 with SHA-1; RFC 8017, section 7.1). The IV is 16 letters and digits, which are
// base64 of the 12 bytes that are used.
type GnosisUpload struct {
	EncryptedPAN string `json:"encryptedPan"`
	EncryptedKey string `json:"encryptedKey"`
	IV           string `json:"iv"`
}

// NewGnosisUpload seals a text, a card number, for the holder of the private key of pub.
func NewGnosisUpload(pub *rsa.PublicKey, number string) (GnosisUpload, error) {
	secret := make([]byte, 32)
	rand.Read(secret)
	return newGnosisUpload(pub, secret, rand.Text()[:16], number)
}

func newGnosisUpload(pub *rsa.PublicKey, secret []byte, iv, number string) (GnosisUpload, error) {
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, []byte(base64.StdEncoding.EncodeToString(secret)), nil)
	if err != nil {
		return GnosisUpload{}, fmt.Errorf("sandbox: wrap upload key: %w", err)
	}
	aead, nonce, err := gnosisCipher(secret, iv)
	if err != nil {
		return GnosisUpload{}, err
	}
	return GnosisUpload{
		EncryptedPAN: base64.StdEncoding.EncodeToString(aead.Seal(nil, nonce, []byte(number), nil)),
		EncryptedKey: base64.StdEncoding.EncodeToString(wrapped),
		IV:           iv,
	}, nil
}

// open decrypts an upload that was made for a key.
func (u GnosisUpload) open(key *rsa.PrivateKey) (string, error) {
	wrapped, err := base64.StdEncoding.Strict().DecodeString(u.EncryptedKey)
	if err != nil || len(wrapped) != key.Size() {
		return "", errSealed
	}
	text, err := rsa.DecryptOAEP(sha1.New(), nil, key, wrapped, nil)
	if err != nil {
		return "", errSealed
	}
	secret, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(secret) != 32 {
		return "", errSealed
	}
	aead, nonce, err := gnosisCipher(secret, u.IV)
	if err != nil {
		return "", err
	}
	sealed, err := base64.StdEncoding.Strict().DecodeString(u.EncryptedPAN)
	if err != nil {
		return "", errSealed
	}
	number, err := aead.Open(nil, nonce, sealed, nil)
	if err != nil {
		return "", errSealed
	}
	return string(number), nil
}

// gnosisCipher returns the cipher under a secret of 32 bytes and the nonce that an IV's text stands for.
func gnosisCipher(secret []byte, iv string) (cipher.AEAD, []byte, error) {
	nonce, err := base64.StdEncoding.Strict().DecodeString(iv)
	if err != nil || len(iv) != 16 || len(nonce) != 12 {
		return nil, nil, errSealed
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, nil, fmt.Errorf("sandbox: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, nil, fmt.Errorf("sandbox: %w", err)
	}
	return aead, nonce, nil
}
