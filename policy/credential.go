package policy

import (
	"fmt"
	"io"
)

// Kind names a kind of credential: the key of the kinds table in package
// credential, and an attribute of the schema's proofs.
type Kind string

// The kinds of credential.
const (
	KindCertificate Kind = "certificate" // a verified TLS client certificate
	KindToken       Kind = "token"       // an ephemeral token, redeemed once
	KindCookie      Kind = "cookie"      // a signed cookie with a live login
	KindAPIKey      Kind = "api_key"     // a partner's API key
	KindJWT         Kind = "jwt"         // an access token: of ours, or of an authority that signs for users
	KindRefresh     Kind = "refresh"     // a refresh token, redeemed once
	KindPublicKey   Kind = "public_key"  // a service account's public key, which proves next to nothing [23]
	KindSignature   Kind = "signature"   // a service account's signature over the request, or over an assertion
	KindChallenge   Kind = "challenge"   // a challenge of ours, taken once
	KindWallet      Kind = "wallet"      // a wallet's signature over a challenge (ERC-4361, EIP-712)
	KindFields      Kind = "fields"      // a session of hosted fields, for one page
	KindCardToken   Kind = "card_token"  // a single-use token that stands for a card that is held
	KindPasskey     Kind = "passkey"     // an authenticator's signature over a challenge (WebAuthn)
)

// The methods of signing a challenge.
const (
	MethodSIWE     = "siwe"     // a wallet signs an ERC-4361 message
	MethodWebAuthn = "webauthn" // an authenticator signs
	MethodEIP712   = "eip712"   // a wallet signs EIP-712 typed data
)

// Credential is what a caller presented, before anybody looked whether it is
// good. Its value is a secret: every way to print, format or marshal a
// Credential shows the kind alone.
type Credential struct {
	Kind  Kind
	value *string // a pointer, since %p passes Format by, but shows an address only
}

// NewCredential returns the credential of a kind with the value found on the
// wire.
func NewCredential(kind Kind, value string) Credential {
	return Credential{Kind: kind, value: &value}
}

// Value returns the secret text. Only what proves the credential needs it.
func (c Credential) Value() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

// String shows the kind and hides the value.
func (c Credential) String() string { return "credential(" + string(c.Kind) + ")" }

// GoString hides the value from %#v.
func (c Credential) GoString() string { return c.String() }

// Format hides the value from every verb.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalText hides the value from encoders, encoding/json among them.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
