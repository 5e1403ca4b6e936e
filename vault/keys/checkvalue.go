package keys

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// CheckValue is PaymentsGate's api_signature of a message with this digest: RSA-OAEP (RFC 8017, section 7.1) with SHA-256
// for both hashes and an empty label, of the digest's 64 characters of lower-case hex, in standard base64 without line
// breaks. It differs each time. pub is the receiver's, of at least 2048 bits.
//
// It is no signature, whatever it is called: whoever has the public key and the message can make one.
func CheckValue(pub *rsa.PublicKey, digest [sha256.Size]byte) (string, error) {
	if pub.N.BitLen() < minSessionBits {
		return "", fmt.Errorf("check value: %w", errSessionBits)
	}
	text := hex.AppendEncode(nil, digest[:])
	defer clear(text)
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, text, nil)
	if err != nil {
		return "", fmt.Errorf("check value: %w", err)
	}
	return base64.StdEncoding.EncodeToString(sealed), nil
}
