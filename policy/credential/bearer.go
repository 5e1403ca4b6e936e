package credential

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cardstile/cardstile/policy"
)

// BearersConfig configures Bearers. All but TTL and Now is required.
type BearersConfig struct {
	Issuer      string
	Audience    string
	Environment string   // of the API keys [5]
	Keys        []JWTKey // the primary, which signs, first; all of them verify
	APIKeys     *APIKeys // asked each time: a key that is revoked or gone has no tokens

	TTL time.Duration    // JWTTTL by default; at most MaxJWTTTL
	Now func() time.Time // time.Now by default
}

// Bearers proves partners by access tokens of ours that an API key was traded
// for (Payroc's POST /authorize). Nothing is kept of them: they are good while
// their key is, and for what it is good for, by the credentials file as each
// instance has read it last.
type Bearers struct {
	config BearersConfig
	issuer *jwtIssuer
}

var _ Prover = (*Bearers)(nil)

// NewBearers returns the prover.
func NewBearers(config BearersConfig) (*Bearers, error) {
	config.TTL = cmp.Or(config.TTL, JWTTTL)
	switch {
	case config.APIKeys == nil:
		return nil, errors.New("bearer credentials: no API keys")
	case !validEnvironment(config.Environment):
		return nil, errors.New(`bearer credentials: the environment must be "test" or "production"`)
	case config.TTL < time.Second || config.TTL > MaxJWTTTL:
		return nil, fmt.Errorf("bearer credentials: the time to live must be from a second to %s", MaxJWTTTL)
	}
	issuer, err := newJWTIssuer(config.Issuer, config.Audience, config.Keys, config.Now)
	if err != nil {
		return nil, fmt.Errorf("bearer credentials: %w", err)
	}
	return &Bearers{config, issuer}, nil
}

// TTL is how long a token is good from the second in which it is made.
func (b *Bearers) TTL() time.Duration { return b.config.TTL }

// Mint returns an access token for what an API key proved, with the key's scope
// and of the partner's generation, and when it ends. It is an error if the proof is of something else, of another
// environment, or of a key that is revoked or gone by now.
func (b *Bearers) Mint(proof policy.Proof, generation uint64) (text string, expires time.Time, err error) {
	if proof.Kind != policy.KindAPIKey || proof.Environment != b.config.Environment {
		return "", time.Time{}, errors.New("mint access token: no API key, or one of another environment")
	}
	if _, err := b.key(proof.ID, proof.Partner); err != nil {
		return "", time.Time{}, fmt.Errorf("mint access token: %w", err)
	}
	claims := jwtClaims{Subject: proof.Partner, Family: proof.ID, Permission: proof.Scope, Generation: generation}
	if text, expires, err = b.issuer.sign(claims, b.config.TTL); err != nil {
		return "", time.Time{}, fmt.Errorf("mint access token: %w", err)
	}
	return text, expires, nil
}

// Prove names the partner of an access token. Its scope is what the API key was
// good for when the token was made and is good for now.
//
// Refused as "malformed", "unknown" (the signing key), "signature", "bound",
// "expired", "environment", or "login" where the API key is revoked, gone or
// another partner's, or where nothing is left of the scope.
func (b *Bearers) Prove(_ context.Context, c policy.Credential) (policy.Proof, error) {
	claims, err := b.issuer.verify(c)
	if err != nil {
		return policy.Proof{}, err
	}
	id, ok := strings.CutPrefix(claims.Family, idOf(policy.KindAPIKey, ""))
	if !ok || claims.Assurance != "" {
		return policy.Proof{}, refuse(policy.KindJWT, policy.RefusedBound, jwtElsewhere)
	}
	key, err := b.key(claims.Family, claims.Subject)
	if err != nil {
		return policy.Proof{}, err
	}
	scope, ok := narrowed(claims.Permission, key.scope)
	if !ok {
		return policy.Proof{}, refuse(policy.KindJWT, policy.RefusedLogin, "nothing is left of the scope")
	}
	return policy.Proof{
		Kind: policy.KindJWT, Partner: key.partner, Environment: key.environment, Scope: scope,
		Expires: time.Unix(claims.Expires, 0), ID: idOf(policy.KindJWT, id),
		Minted: true, Generation: claims.Generation,
	}, nil
}

// KeyOf is what Live asks about: the API key of whose Bearer one of the proofs
// is. "" where there is none.
func (b *Bearers) KeyOf(proofs []policy.Proof) string {
	for i := range proofs {
		id, ok := strings.CutPrefix(proofs[i].ID, idOf(policy.KindJWT, ""))
		if key := idOf(policy.KindAPIKey, id); ok && b.config.APIKeys.ids[key] != nil {
			return key
		}
	}
	return ""
}

// Live refuses, as Prove does, what began with an API key that is not the
// partner's any more.
func (b *Bearers) Live(key, partner string) error {
	_, err := b.key(key, partner)
	return err
}

// key returns the API key of a Proof.ID, if it is good and that partner's.
func (b *Bearers) key(id, partner string) (*apiKey, error) {
	key := b.config.APIKeys.ids[id]
	switch {
	case key == nil || key.revoked:
		return nil, refuse(policy.KindJWT, policy.RefusedLogin, "the API key is revoked or gone")
	case key.partner != partner:
		return nil, refuse(policy.KindJWT, policy.RefusedLogin, "the API key is another partner's now")
	case key.environment != b.config.Environment:
		return nil, refuse(policy.KindJWT, policy.RefusedEnvironment, "the API key's")
	}
	return key, nil
}

// narrowed is what two scopes have in common, in the order of the first. One
// that is empty has no limits; false is two that have limits and nothing in
// common, which is not the same.
func narrowed(scope, by string) (string, bool) {
	if scope == "" || by == "" {
		return cmp.Or(scope, by), true
	}
	words := strings.Fields(by)
	left := slices.DeleteFunc(strings.Fields(scope), func(word string) bool { return !slices.Contains(words, word) })
	return strings.Join(left, " "), len(left) > 0
}
