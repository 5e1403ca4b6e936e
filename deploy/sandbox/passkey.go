package sandbox

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"sync/atomic"
)

// Passkey is a software authenticator with one credential and the browser in front of it, as WebAuthn Level 3 has them: ES256, user present
// and verified each time. It is bound to its relying party's id and to nothing else: it asserts for any origin that it is told, which a
// browser would not. Safe for concurrent use.
type Passkey struct {
	rpID    string
	id      []byte
	key     *ecdsa.PrivateKey
	counter atomic.Uint32 // of assertions
}

// NewPasskey makes a passkey with a fresh key for a relying party's id, which is a domain.
func NewPasskey(rpID string) *Passkey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic("sandbox: internal error: " + err.Error())
	}
	id := make([]byte, 32)
	rand.Read(id)
	return &Passkey{rpID: rpID, id: id, key: key}
}

// CredentialID returns the credential's id in base64url without padding, as it stands in assertions.
func (p *Passkey) CredentialID() string { return base64.RawURLEncoding.EncodeToString(p.id) }

// COSEKey returns the public key as a relying party keeps it: the CBOR of a COSE_Key (RFC 9052, section 7; RFC 9053, section 7.1.1) in the
// one order that CTAP2 allows, 77 bytes.
func (p *Passkey) COSEKey() []byte {
	point, err := p.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		panic("sandbox: internal error: " + err.Error())
	}
	x, y := point[1:33], point[33:]
	return bytes.Join([][]byte{
		{0xa5},       // a map of five
		{0x01, 0x02}, // kty: EC2
		{0x03, 0x26}, // alg: -7, ES256
		{0x20, 0x01}, // crv: P-256
		{0x21, 0x58, 32}, x,
		{0x22, 0x58, 32}, y,
	}, nil)
}

// Flags of the authenticator data (WebAuthn Level 3, section 6.1).
const (
	userPresent  = 0x01
	userVerified = 0x04
)

// Assert returns the JSON of what navigator.credentials.get gives for a challenge on a page of this origin (PublicKeyCredential.toJSON), without
// a userHandle. The signature counter is one more with each call, 1 in the first.
func (p *Passkey) Assert(challenge []byte, origin string) json.RawMessage {
	rp := sha256.Sum256([]byte(p.rpID))
	data := append(rp[:], userPresent|userVerified)
	data = binary.BigEndian.AppendUint32(data, p.counter.Add(1))
	client := clientData(challenge, origin)
	encode := base64.RawURLEncoding.EncodeToString
	return marshal(map[string]any{
		"id": p.CredentialID(), "rawId": p.CredentialID(), "type": "public-key", "clientExtensionResults": map[string]any{},
		"response": map[string]any{"clientDataJSON": encode(client), "authenticatorData": encode(data), "signature": encode(p.sign(data, client))},
	})
}

// clientData serializes in the order that section 5.8.1.1 prescribes, for relying parties that compare bytes.
func clientData(challenge []byte, origin string) []byte {
	return marshal(struct {
		Type        string `json:"type"`
		Challenge   string `json:"challenge"`
		Origin      string `json:"origin"`
		CrossOrigin bool   `json:"crossOrigin"`
	}{"webauthn.get", base64.RawURLEncoding.EncodeToString(challenge), origin, false})
}

// sign signs the authenticator data and the client data's digest (section 6.3.3), in ASN.1 DER.
func (p *Passkey) sign(authenticatorData, clientDataJSON []byte) []byte {
	client := sha256.Sum256(clientDataJSON)
	signed := sha256.Sum256(append(bytes.Clone(authenticatorData), client[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, p.key, signed[:])
	if err != nil {
		panic("sandbox: internal error: " + err.Error())
	}
	return signature
}
