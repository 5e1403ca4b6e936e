package keys

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
)

// parseSigner reads the private key of a JWT algorithm: EC on P-256, Ed25519, or RSA of at least 2048 bits (RFC 7518,
// section 3.3). A public one is refused: what others sign is verified with theirs, where they are configured.
func parseSigner(block *pem.Block) (*material, error) {
	switch {
	case len(block.Headers) != 0:
		return nil, errHeaders
	case block.Type == typeSPKI, block.Type == typePKCS1Pub:
		return nil, errPublicHere
	case block.Type != typePKCS8:
		return nil, errType
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errSigner
	}
	switch key := any.(type) {
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P256() {
			return &material{signer: key}, nil
		}
	case ed25519.PrivateKey:
		return &material{signer: key}, nil
	case *rsa.PrivateKey:
		if err := checkPrivate(key); err != nil {
			return nil, err
		}
		if key.N.BitLen() < minSessionBits {
			return nil, errSessionBits
		}
		return &material{signer: key}, nil
	}
	return nil, errSigner
}
