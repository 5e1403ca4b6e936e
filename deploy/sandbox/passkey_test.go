package sandbox

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"testing"
)

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vector is the credential of WebAuthn Level 3, section 16.2: ES256 with no attestation.
var vector = struct{ key, id, cose, challenge, origin, rpID, authenticatorData, clientDataJSON, signature string }{
	key: "6e68e7a58484a3264f66b77f5d6dc5bc36a47085b615c9727ab334e8c369c2ee",
	id:  "f91f391db4c9b2fde0ea70189cba3fb63f579ba6122b33ad94ff3ec330084be4",
	cose: "a5010203262001215820afefa16f97ca9b2d23eb86ccb64098d20db90856062eb249c33a9b672f26df61" +
		"225820930a56b87a2fca66334b03458abf879717c12cc68ed73290af2e2664796b9220",
	challenge:         "39c0e7521417ba54d43e8dc95174f423dee9bf3cd804ff6d65c857c9abf4d408",
	origin:            "https://example.org",
	rpID:              "example.org",
	authenticatorData: "bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b51900000000",
	clientDataJSON: "7b2274797065223a22776562617574686e2e676574222c226368616c6c656e6765223a224f63446e55685158756c5455506f334a55585430493937" +
		"70767a7a59425039745a63685879617630314167222c226f726967696e223a2268747470733a2f2f6578616d706c652e6f7267222c2263726f73734f726967696e" +
		"223a66616c73657d",
	signature: "3046022100f50a4e2e4409249c4a853ba361282f09841df4dd4547a13a87780218deffcd38022100" +
		"8480ac0f0b93538174f575bf11a1dd5d78c6e486013f937295ea13653e331e87",
}

func vectorPasskey(t *testing.T) *Passkey {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), unhex(t, vector.key))
	if err != nil {
		t.Fatal(err)
	}
	return &Passkey{rpID: vector.rpID, id: unhex(t, vector.id), key: key}
}

// verifies is the relying party's side (section 7.2): written against the published vector, used on our own assertions.
func verifies(key *ecdsa.PublicKey, authenticatorData, clientDataJSON, signature []byte) bool {
	client := sha256.Sum256(clientDataJSON)
	signed := sha256.Sum256(bytes.Join([][]byte{authenticatorData, client[:]}, nil))
	return ecdsa.VerifyASN1(key, signed[:], signature)
}

func TestPasskeyAgreesWithThePublishedVector(t *testing.T) {
	p := vectorPasskey(t)
	if got := hex.EncodeToString(p.COSEKey()); got != vector.cose {
		t.Errorf("COSE key %s, want %s", got, vector.cose)
	}
	if got := clientData(unhex(t, vector.challenge), vector.origin); !bytes.Equal(got, unhex(t, vector.clientDataJSON)) {
		t.Errorf("client data %s, want %s", got, unhex(t, vector.clientDataJSON))
	}
	data, client := unhex(t, vector.authenticatorData), unhex(t, vector.clientDataJSON)
	if !verifies(&p.key.PublicKey, data, client, unhex(t, vector.signature)) {
		t.Error("the published signature does not verify: the test is wrong")
	}
	if !verifies(&p.key.PublicKey, data, client, p.sign(data, client)) {
		t.Error("ours does not")
	}
}

// asserted is an assertion as a relying party reads it.
type asserted struct {
	ID       string `json:"id"`
	RawID    string `json:"rawId"`
	Type     string `json:"type"`
	Response struct {
		ClientDataJSON    string `json:"clientDataJSON"`
		AuthenticatorData string `json:"authenticatorData"`
		Signature         string `json:"signature"`
	} `json:"response"`
	ClientExtensionResults *struct{} `json:"clientExtensionResults"`
}

func TestPasskeyAsserts(t *testing.T) {
	p := vectorPasskey(t)
	challenge := []byte("I authorize the account <0x1> & no other")
	for counter := byte(1); counter <= 3; counter++ {
		text := p.Assert(challenge, vector.origin)
		var a asserted
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&a); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		parts := make([][]byte, 0, 3)
		for _, part := range []string{a.Response.AuthenticatorData, a.Response.ClientDataJSON, a.Response.Signature} {
			b, err := base64.RawURLEncoding.Strict().DecodeString(part)
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, b)
		}
		if a.ID != p.CredentialID() || a.RawID != a.ID || a.Type != "public-key" || a.ClientExtensionResults == nil {
			t.Errorf("assertion %s", text)
		}
		rp := sha256.Sum256([]byte("example.org"))
		if want := append(rp[:], 0x05, 0, 0, 0, counter); !bytes.Equal(parts[0], want) {
			t.Errorf("authenticator data %x, want %x", parts[0], want)
		}
		var client struct{ Type, Challenge, Origin string }
		if err := json.Unmarshal(parts[1], &client); err != nil || client.Type != "webauthn.get" || client.Origin != vector.origin {
			t.Errorf("client data %s, %v", parts[1], err)
		}
		if got, err := base64.RawURLEncoding.DecodeString(client.Challenge); err != nil || !bytes.Equal(got, challenge) {
			t.Errorf("challenge %q, %v", got, err)
		}
		if !verifies(&p.key.PublicKey, parts[0], parts[1], parts[2]) {
			t.Error("the signature does not verify")
		}
		parts[0][32] ^= userVerified
		if verifies(&p.key.PublicKey, parts[0], parts[1], parts[2]) {
			t.Error("the signature verifies for other flags")
		}
	}
}

func TestPasskeysDiffer(t *testing.T) {
	a, b := NewPasskey("example.org"), NewPasskey("example.org")
	if a.CredentialID() == b.CredentialID() || bytes.Equal(a.COSEKey(), b.COSEKey()) {
		t.Error("two passkeys share an id or a key")
	}
	if id, err := base64.RawURLEncoding.DecodeString(a.CredentialID()); err != nil || len(id) != 32 || len(a.COSEKey()) != 77 {
		t.Errorf("id %s, %d bytes of key", a.CredentialID(), len(a.COSEKey()))
	}
}
