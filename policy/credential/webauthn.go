package credential

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/cardstile/cardstile/policy"
)

// Bounds of an assertion. WebAuthn Level 3 bounds credential ids to 1023 bytes
// and user handles to 64; a signature is at most that of a 4096-bit RSA key.
const (
	assertionMaxBytes         = 24 << 10
	assertionMaxID            = 1023
	assertionMaxClientData    = 12 << 10
	assertionMaxAuthenticator = 1 << 10
	assertionMaxSignature     = 512
	assertionMaxUserHandle    = 64
)

// Assertion is what an authenticator answers to a challenge: the members of an
// AuthenticationResponseJSON (WebAuthn Level 3, section 5.1.9) that count, base64
// taken off.
type Assertion struct {
	ID                string // the credential id, in base64url without padding
	ClientDataJSON    []byte
	AuthenticatorData []byte
	Signature         []byte
}

// assertionForm is an AuthenticationResponseJSON.
type assertionForm struct {
	ID                      *string        `json:"id"`
	RawID                   *string        `json:"rawId"`
	Type                    *string        `json:"type"`
	AuthenticatorAttachment *string        `json:"authenticatorAttachment"` // "platform", "cross-platform", or others
	ClientExtensionResults  jsontext.Value `json:"clientExtensionResults"`
	Response                *struct {
		ClientDataJSON    *string `json:"clientDataJSON"`
		AuthenticatorData *string `json:"authenticatorData"`
		Signature         *string `json:"signature"`
		UserHandle        *string `json:"userHandle"`
	} `json:"response"`
}

// ParseAssertion reads an AuthenticationResponseJSON and nothing beside it: no
// unknown, duplicate or differently-cased names. Optional members may be null,
// as older browsers write them. What extensions answered is not read, since
// none are asked for; a user handle is checked for its form alone, since no
// directory has them.
//
// Refused as "malformed".
func ParseAssertion(text []byte) (*Assertion, error) {
	malformed := func(detail string) (*Assertion, error) {
		return nil, refuse(policy.KindPasskey, policy.RefusedMalformed, detail)
	}
	if len(text) > assertionMaxBytes {
		return malformed("longer than an assertion")
	}
	var form assertionForm
	if err := json.Unmarshal(text, &form, json.RejectUnknownMembers(true)); err != nil {
		return malformed("not an assertion's JSON")
	}
	r := form.Response
	if form.ID == nil || form.RawID == nil || form.Type == nil || form.ClientExtensionResults.Kind() != '{' ||
		r == nil || r.ClientDataJSON == nil || r.AuthenticatorData == nil || r.Signature == nil {
		return malformed("a member is missing")
	}
	if *form.Type != "public-key" || *form.RawID != *form.ID {
		return malformed("another type, or two ids")
	}
	a := Assertion{ID: *form.ID}
	id, handle := []byte(nil), ""
	if r.UserHandle != nil {
		handle = *r.UserHandle
	}
	for _, part := range [...]struct {
		to   *[]byte
		text string
		max  int
	}{
		{&id, a.ID, assertionMaxID},
		{&a.ClientDataJSON, *r.ClientDataJSON, assertionMaxClientData},
		{&a.AuthenticatorData, *r.AuthenticatorData, assertionMaxAuthenticator},
		{&a.Signature, *r.Signature, assertionMaxSignature},
		{new([]byte), handle, assertionMaxUserHandle},
	} {
		var ok bool
		if *part.to, ok = base64url(part.text, part.max); !ok {
			return malformed("a member is not base64url, or is too long")
		}
	}
	if len(id) == 0 {
		return malformed("an empty id")
	}
	return &a, nil
}

// base64url decodes at most max bytes, of which each has one text.
func base64url(text string, max int) (raw []byte, ok bool) {
	if strings.ContainsAny(text, "\r\n") { // which the decoder skips
		return nil, false
	}
	raw, err := textEncoding.DecodeString(text)
	return raw, err == nil && len(raw) <= max
}

// relyingParty is what assertions are made for.
type relyingParty struct {
	idHash          [32]byte // SHA-256 of the RP id
	origins         []string
	topOrigins      []string
	unverifiedUsers bool
}

// clientData is a CollectedClientData (WebAuthn Level 3, section 5.8.1). It has
// more members, and will have others: readers must pass them over.
type clientData struct {
	Type        *string `json:"type"`
	Challenge   *string `json:"challenge"`
	Origin      *string `json:"origin"`
	CrossOrigin bool    `json:"crossOrigin"`
	TopOrigin   *string `json:"topOrigin"`
}

// Flags of authenticator data (WebAuthn Level 3, section 6.1). Bits 1 and 5 are
// reserved for future use, and may be set.
const (
	flagUserPresent    = 1 << 0
	flagUserVerified   = 1 << 2
	flagBackupEligible = 1 << 3
	flagBackedUp       = 1 << 4
	flagAttested       = 1 << 6
	flagExtensions     = 1 << 7
)

// authenticatorBytes are the RP id's hash, the flags and the sign count.
const authenticatorBytes = 32 + 1 + 4

// verify checks an assertion over a challenge with the key of its credential, by
// WebAuthn Level 3, section 7.2.
//
// Two of its steps are not taken, since nothing is kept of a passkey but its
// key: comparing the backup eligibility that it was registered with, and the
// sign count, which passkeys that are synced keep at zero. A clone of an
// authenticator is not noticed.
func (p *relyingParty) verify(a *Assertion, challenge string, key crypto.PublicKey) error {
	if err := p.checkClient(a.ClientDataJSON, challenge); err != nil {
		return err
	}
	if err := p.checkAuthenticator(a.AuthenticatorData); err != nil {
		return err
	}
	hash := sha256.Sum256(a.ClientDataJSON)
	signed := append(append(make([]byte, 0, len(a.AuthenticatorData)+len(hash)), a.AuthenticatorData...), hash[:]...)
	if !verifySignature(key, signed, a.Signature) {
		return refuse(policy.KindPasskey, policy.RefusedSignature, "")
	}
	return nil
}

// checkClient checks what the browser says that was signed.
func (p *relyingParty) checkClient(text []byte, challenge string) error {
	var data clientData
	if err := json.Unmarshal(text, &data); err != nil {
		return refuse(policy.KindPasskey, policy.RefusedMalformed, "the client data's JSON")
	}
	if data.Type == nil || data.Challenge == nil || data.Origin == nil {
		return refuse(policy.KindPasskey, policy.RefusedMalformed, "a member of the client data is missing")
	}
	want := base64.RawURLEncoding.EncodeToString([]byte(challenge))
	switch {
	case *data.Type != "webauthn.get":
		return refuse(policy.KindPasskey, policy.RefusedBound, "not an assertion")
	case subtle.ConstantTimeCompare([]byte(*data.Challenge), []byte(want)) != 1:
		return refuse(policy.KindPasskey, policy.RefusedBound, "another challenge")
	case !slices.Contains(p.origins, *data.Origin):
		return refuse(policy.KindPasskey, policy.RefusedBound, "another origin")
	case (data.CrossOrigin || data.TopOrigin != nil) && (data.TopOrigin == nil || !slices.Contains(p.topOrigins, *data.TopOrigin)):
		return refuse(policy.KindPasskey, policy.RefusedBound, "in a page of another origin")
	}
	return nil
}

// checkAuthenticator checks what the authenticator says. What extensions put
// after it is signed, and not read.
func (p *relyingParty) checkAuthenticator(data []byte) error {
	if len(data) < authenticatorBytes {
		return refuse(policy.KindPasskey, policy.RefusedMalformed, "the authenticator data is too short")
	}
	flags := data[32]
	if extends := flags&flagExtensions != 0; flags&flagAttested != 0 || extends != (len(data) > authenticatorBytes) {
		return refuse(policy.KindPasskey, policy.RefusedMalformed, "the authenticator data has another length, or attests")
	}
	switch {
	case subtle.ConstantTimeCompare(data[:32], p.idHash[:]) != 1:
		return refuse(policy.KindPasskey, policy.RefusedBound, "another relying party")
	case flags&flagUserPresent == 0:
		return refuse(policy.KindPasskey, policy.RefusedSignature, "the user was not present")
	case flags&flagUserVerified == 0 && !p.unverifiedUsers:
		return refuse(policy.KindPasskey, policy.RefusedSignature, "the user was not verified")
	case flags&flagBackedUp != 0 && flags&flagBackupEligible == 0:
		return refuse(policy.KindPasskey, policy.RefusedMalformed, "backed up, and not eligible for it")
	}
	return nil
}

// verifySignature verifies by the one algorithm of the key.
func verifySignature(key crypto.PublicKey, signed, signature []byte) bool {
	hash := sha256.Sum256(signed)
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, hash[:], signature)
	case ed25519.PublicKey:
		return ed25519.Verify(k, signed, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, hash[:], signature) == nil
	}
	return false
}
