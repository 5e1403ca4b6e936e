package keys

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// maxPublicText bounds what ParsePublicBase64 decodes; the file of an RSA-8192 public key is about 2 KiB in base64.
const maxPublicText = 16 << 10

// privateEnd is how the first and the last line of a private key end, of whatever type (RFC 7468, sections 10 and 11).
const privateEnd = "PRIVATE KEY-----"

var (
	errLongText = errors.New("longer than 16 KiB")
	errBase64   = errors.New("not standard base64")
)

// ParsePublicBase64 reads the base64 of a whole PEM file, as PaymentsGate's clients send their public key: RSA in SPKI or
// PKCS #1, of 2048 to 8192 bits. Padding may be missing; line ends of either sort and width may stand in the base64 and
// in the PEM, which may begin with a byte order mark. spki is the SHA-256 of the key's SPKI in DER, the same for all of
// these spellings: what keys are compared by [23].
//
// A file in which a private key stands is [ErrPrivateKey], whatever stands beside it, and so is one that was not encoded.
// Errors never quote, and what was decoded is zeroed; the text itself is the caller's.
func ParsePublicBase64(text string) (spki [sha256.Size]byte, pub *rsa.PublicKey, err error) {
	if pub, err = parsePublicBase64(text); err != nil {
		return spki, nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return spki, nil, fmt.Errorf("public key: %w", err)
	}
	return sha256.Sum256(der), pub, nil
}

func parsePublicBase64(text string) (*rsa.PublicKey, error) {
	if len(text) > maxPublicText {
		return nil, fmt.Errorf("public key: %w", errLongText)
	}
	if strings.Contains(text, privateEnd) {
		return nil, fmt.Errorf("public key: %w", ErrPrivateKey)
	}
	encoding := base64.RawStdEncoding // both pass over line ends
	if strings.HasSuffix(strings.TrimRight(text, "\r\n"), "=") {
		encoding = base64.StdEncoding
	}
	content, err := encoding.DecodeString(text)
	if err != nil {
		clear(content)
		return nil, fmt.Errorf("public key: %w", errBase64)
	}
	return parseAndZero(content)
}

// parseAndZero reads a PEM file and zeroes it.
func parseAndZero(content []byte) (*rsa.PublicKey, error) {
	defer clear(content)
	if bytes.Contains(content, []byte(privateEnd)) {
		return nil, fmt.Errorf("public key: %w", ErrPrivateKey)
	}
	pub, err := ParsePublicPEM(content)
	if err != nil {
		return nil, err
	}
	if pub.N.BitLen() < minSessionBits {
		return nil, fmt.Errorf("public key: %w", errSessionBits)
	}
	return pub, nil
}
