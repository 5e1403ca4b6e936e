package keys

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// PublicPEM returns the public half of a key as SPKI, PEM type "PUBLIC KEY" (RFC 7468, section 13). It is an error for a
// symmetric key.
func PublicPEM(k *Key) ([]byte, error) {
	if k == nil || k.half() == nil {
		return nil, fmt.Errorf("%v: it has no public half", k)
	}
	der, err := x509.MarshalPKIXPublicKey(k.half())
	if err != nil {
		return nil, fmt.Errorf("key %q: encode public half: %w", k.id, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: typeSPKI, Bytes: der}), nil
}

// half is the public half of a key of any use, nil where there is none.
func (k *Key) half() crypto.PublicKey {
	switch m := k.material.Get(); {
	case m.signer != nil:
		return m.signer.Public()
	case m.public != nil:
		return m.public
	}
	return nil
}

// ParsePublicPEM reads an RSA public key, SPKI or PKCS #1, of 1024 to 8192 bits; the caller applies [MinBits].
// A private key is refused with [ErrPrivateKey]. Errors never quote the content.
func ParsePublicPEM(content []byte) (*rsa.PublicKey, error) {
	block, err := onlyBlock(content)
	if err != nil {
		if err == errEncrypted {
			err = ErrPrivateKey
		}
		return nil, fmt.Errorf("public key: %w", err)
	}
	defer clear(block.Bytes)
	switch block.Type {
	case typePKCS8, typePKCS1, typeSymmetric, "EC PRIVATE KEY", "OPENSSH PRIVATE KEY":
		return nil, fmt.Errorf("public key: %w", ErrPrivateKey)
	}
	if len(block.Headers) != 0 {
		return nil, fmt.Errorf("public key: %w", errHeaders)
	}
	pub, err := parsePublic(block)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return pub, nil
}

// MinBits refuses an RSA key that is too short to encrypt to: less than 2048 bits, or less than 1024 where the
// legacy primitive rsa-1024 was named [15]. It never allows what is shorter.
func MinBits(pub *rsa.PublicKey, allow1024 bool) error {
	switch bits := pub.N.BitLen(); {
	case bits < minRSABits:
		return errFewBits
	case bits < minSessionBits && !allow1024:
		return fmt.Errorf("RSA key of %d bits: less than 2048, and rsa-1024 is not switched on", bits)
	}
	return nil
}

func parsePublic(block *pem.Block) (*rsa.PublicKey, error) {
	var pub *rsa.PublicKey
	switch block.Type {
	case typeSPKI:
		if any, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			pub, _ = any.(*rsa.PublicKey)
		}
	case typePKCS1Pub:
		pub, _ = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return nil, errType
	}
	if pub == nil {
		return nil, errPublicRSA
	}
	if err := checkRSA(pub); err != nil {
		return nil, err
	}
	return pub, nil
}

func checkRSA(pub *rsa.PublicKey) error {
	switch bits := pub.N.BitLen(); {
	case bits < minRSABits:
		return errFewBits
	case bits > maxRSABits:
		return errManyBits
	case pub.N.Bit(0) == 0 || pub.E < 3 || pub.E%2 == 0:
		return errExponent
	}
	return nil
}
