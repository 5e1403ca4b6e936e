package sandbox

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"time"
)

// NewBridgeProof returns what a client of Bridge draws for one reveal: a secret of 64 lower-case hex digits, and the time in Unix seconds.
func NewBridgeProof() (secret, timestamp string) {
	b := make([]byte, 32)
	rand.Read(b)
	return hex.EncodeToString(b), strconv.FormatInt(time.Now().Unix(), 10)
}

// BridgeNonce returns the nonce for which an ephemeral key is minted: base64(HMAC-SHA-256(secret, "nonce:" + timestamp)), 44 characters.
// The HMAC's key is the secret's text as it stands, not what its hex digits encode.
func BridgeNonce(secret, timestamp string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("nonce:" + timestamp))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
