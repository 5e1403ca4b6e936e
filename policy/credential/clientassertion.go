package credential

import (
	"context"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

const (
	clientAssertionTTL = 5 * time.Minute // from now to exp, and from iat to now
	clientMaxSkew      = time.Minute     // how far the client's clock may be off
	clientMaxJTI       = 256             // bytes of jti

	storeClientAssertion store.Kind = "assertion"

	clientAssertionLabel = "cardstile assertion v1"
)

// clientAlgorithms are those that an account's keys, which are RSA, can be
// used with.
var clientAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256}

// clientClaims are those that count (RFC 7523 section 3). Others are passed
// over.
type clientClaims struct {
	Issuer    string         `json:"iss"`
	Subject   string         `json:"sub"`
	Audience  jsontext.Value `json:"aud"`
	Expires   *float64       `json:"exp"` // Unix seconds, a fraction allowed (RFC 7519 section 2)
	NotBefore *float64       `json:"nbf"`
	IssuedAt  *float64       `json:"iat"`
	ID        string         `json:"jti"`
}

// ClientAssertionsConfig configures ClientAssertions. All but Now is required.
type ClientAssertionsConfig struct {
	Accounts *Accounts

	// Audiences are the names that an assertion may be addressed to, exactly:
	// the issuer, the URL of the token endpoint.
	Audiences []string

	Store   store.Once   // where ids that were seen live
	Digests []policy.MAC // keyed digests, label "assertion"

	Now func() time.Time // time.Now by default
}

// ClientAssertions proves accounts by client assertions ("private_key_jwt", RFC 7523
// section 3), each of which is good once.
type ClientAssertions struct{ config ClientAssertionsConfig }

// NewClientAssertions returns the prover.
func NewClientAssertions(config ClientAssertionsConfig) (*ClientAssertions, error) {
	switch {
	case config.Accounts == nil:
		return nil, errors.New("client assertion credentials: no accounts")
	case len(config.Audiences) == 0 || slices.Contains(config.Audiences, ""):
		return nil, errors.New("client assertion credentials: no audience, or an empty one")
	case config.Store == nil || len(config.Digests) == 0:
		return nil, errors.New("client assertion credentials: ids that were seen need a store and a digest key")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &ClientAssertions{config}, nil
}

// clientAssertionID is the Proof.ID of an account's assertions, by which Suffices
// tells them from signatures over a request.
func clientAssertionID(account string) string { return LoginPrivateKeyJWT + ":" + account }

// Prove proves the account of an assertion, which is used up by that. An
// assertion that is refused is not.
//
// It is signed by RS256 or PS256 with a key of the account. Issuer and subject
// are the account. There is one audience, and it is ours: an assertion that
// somebody else may use as well is somebody else's to replay. It ends within
// five minutes and was made within the last five, where it says when; clocks
// may be a minute apart.
//
// Refused as "malformed", as "signature" (also where there is no such account),
// "bound", "expired" or "spent". Failures of the store pass through; then
// the assertion may be used up.
func (a *ClientAssertions) Prove(ctx context.Context, c policy.Credential) (policy.Proof, error) {
	claims, signed, ok := parseClientAssertion(c)
	if !ok {
		return policy.Proof{}, refuse(policy.KindSignature, policy.RefusedMalformed, "")
	}
	account, known := a.config.Accounts.orDecoy(claims.Issuer)
	spki, good := account.signed(func(key *rsa.PublicKey) error {
		_, err := signed.Verify(key)
		return err
	})
	if !known || !good {
		return policy.Proof{}, refuse(policy.KindSignature, policy.RefusedSignature, "")
	}
	if !slices.Contains(a.config.Audiences, claims.audience()) {
		return policy.Proof{}, refuse(policy.KindSignature, policy.RefusedBound, "its one audience is not ours")
	}
	now := a.config.Now()
	if !claims.current(now) {
		return policy.Proof{}, refuse(policy.KindSignature, policy.RefusedExpired, "")
	}
	if err := a.once(ctx, &claims, now); err != nil {
		return policy.Proof{}, err
	}
	proof := account.proof(policy.KindSignature, clientAssertionID(account.ID))
	proof.Key = spki
	return proof, nil
}

// parseClientAssertion reads an assertion, without looking whether the signature is
// good.
func parseClientAssertion(c policy.Credential) (claims clientClaims, signed *jose.JSONWebSignature, ok bool) {
	header, ok := parseJWS(c.Value())
	if !ok || c.Kind != policy.KindSignature || !clientType(header.Type) {
		return clientClaims{}, nil, false
	}
	signed, err := jose.ParseSignedCompact(c.Value(), clientAlgorithms)
	if err != nil || json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &claims) != nil {
		return clientClaims{}, nil, false
	}
	whole := claims.Issuer != "" && claims.Issuer == claims.Subject &&
		claims.ID != "" && len(claims.ID) <= clientMaxJTI && claims.Expires != nil
	return claims, signed, whole
}

// clientType reports whether a header's typ is that of an assertion, not of
// some other token that was signed with the same key.
func clientType(name string) bool {
	return name == "" || strings.EqualFold(name, jwtType) || name == "client-authentication+jwt"
}

// audience is the one audience, or "".
func (c *clientClaims) audience() string {
	if list := audiences(c.Audience); len(list) == 1 {
		return list[0]
	}
	return ""
}

// audiences reads a claim "aud": a text, or a list (RFC 7519 section 4.1.3).
// What is neither is none.
func audiences(claim jsontext.Value) (list []string) {
	var one string
	if json.Unmarshal(claim, &one) == nil {
		return []string{one}
	}
	if json.Unmarshal(claim, &list) != nil {
		return nil
	}
	return list
}

// current reports whether the assertion is good at a moment.
func (c *clientClaims) current(at time.Time) bool {
	now, skew, ttl := float64(at.UnixMilli())/1000, clientMaxSkew.Seconds(), clientAssertionTTL.Seconds()
	switch {
	case *c.Expires <= now-skew, *c.Expires > now+ttl+skew:
		return false
	case c.NotBefore != nil && *c.NotBefore > now+skew:
		return false
	case c.IssuedAt != nil && (*c.IssuedAt > now+skew || *c.IssuedAt <= now-ttl):
		return false
	}
	return true
}

// once lets the account's assertion of that id through one time, until it is
// over: under each key, so that instances need only one of them in common.
func (a *ClientAssertions) once(ctx context.Context, c *clientClaims, now time.Time) error {
	left := *c.Expires + clientMaxSkew.Seconds() - float64(now.UnixMilli())/1000
	ttl := time.Duration(left*float64(time.Second)) + time.Millisecond // the store's least, and rounded up
	message := make([]byte, 0, len(clientAssertionLabel)+2+len(c.Issuer)+len(c.ID))
	message = append(message, clientAssertionLabel...)
	message = binary.BigEndian.AppendUint16(message, uint16(len(c.Issuer)))
	message = append(append(message, c.Issuer...), c.ID...)
	for _, mac := range a.config.Digests {
		err := a.config.Store.Once(ctx, storeClientAssertion, store.Digest(mac.MAC(nil, message)), ttl)
		switch {
		case errors.Is(err, store.ErrSpent):
			return refuse(policy.KindSignature, policy.RefusedSpent, "")
		case err != nil:
			return fmt.Errorf("client assertion: %w", err)
		}
	}
	return nil
}
