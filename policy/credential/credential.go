// Package credential answers one question: does the credential that a caller
// presents prove what it claims? There is one file per kind. Whether what is
// proven suffices is decided in package policy.
//
// Every prover follows one contract. A proof is complete: it has all that its
// kind's row in the table promises. A credential that proves nothing gives a
// *policy.Refused with a reason of the closed set, which no caller is told. Any
// other error means that the question could not be answered (it matches
// store.ErrUnavailable where the store was the cause), and nothing may be
// released. No error quotes a credential. Provers are immutable and safe for
// concurrent use; one that asks a store may block until the context's deadline.
package credential

import (
	"context"
	"encoding/base64"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// Prover proves a credential that can be presented any number of times.
type Prover interface {
	Prove(ctx context.Context, c policy.Credential) (policy.Proof, error)
}

// Redemption is one try to use a credential up.
type Redemption struct {
	Attempt store.Attempt // drawn by the gateway, once per exchange [9]
	Nonce   [32]byte      // what the proof beside the credential gives; zero: there is none

	// Keep leaves the credential as it is where the nonce is wrong, and says
	// that it is unknown; it must have been minted so. Otherwise a wrong nonce
	// uses it up.
	Keep bool
}

// Traits say how a kind is handled and what its proof names.
type Traits struct {
	SingleUse bool // redeemed after everything reusable was proven
	Partner   bool // the proof names the partner
	User      bool // the proof names the user; a token's only where its mint did
}

// kinds is the closed set of kinds.
var kinds = map[policy.Kind]Traits{
	policy.KindCertificate: {Partner: true},                  // certificate.go
	policy.KindToken:       {SingleUse: true, Partner: true}, // token.go
	policy.KindCookie:      {User: true},                     // cookie.go
	policy.KindAPIKey:      {Partner: true},                  // apikey.go
	policy.KindRefresh:     {SingleUse: true, Partner: true}, // refresh.go
	policy.KindPublicKey:   {Partner: true},                  // account.go
	policy.KindSignature:   {Partner: true},                  // signature.go, clientassertion.go
	policy.KindJWT:         {Partner: true},                  // jwt.go, bearer.go; ScopedJWTs and usertoken.go name the user instead
	policy.KindChallenge:   {SingleUse: true},                // challenge.go; it proves nobody, what is signed over it does
	policy.KindWallet:      {User: true},                     // wallet.go
	policy.KindPasskey:     {User: true},                     // passkey.go
	policy.KindFields:      {Partner: true},                  // fields.go
	policy.KindCardToken:   {SingleUse: true, Partner: true}, // token.go
}

// Of returns the traits of a kind, and whether there is such a kind.
func Of(kind policy.Kind) (Traits, bool) {
	traits, ok := kinds[kind]
	return traits, ok
}

// textEncoding is how what we mint is written, and what JWS and WebAuthn have:
// base64url without padding (RFC 4648, section 5). Each value has one text.
var textEncoding = base64.RawURLEncoding.Strict()

// idOf is the Proof.ID of a credential: its kind, and its id among that kind.
func idOf(kind policy.Kind, id string) string { return string(kind) + ":" + id }

// refuse is a refusal of one kind.
func refuse(kind policy.Kind, reason, detail string) error {
	return &policy.Refused{Kind: kind, Reason: reason, Detail: detail}
}
