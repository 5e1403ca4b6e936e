package credential

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/cardstile/cardstile/policy"
)

// Bounds of a set of keys that others sign with.
const (
	jwksMaxBytes   = 256 << 10
	jwksMaxKeys    = 64
	jwksMinRSABits = 2048 // [23]
	jwksMaxRSABits = 8192 // a longer one takes more time to verify with than a stranger should be able to ask for
)

// userMaxTime is the last second that a claim may name, the end of the year
// 9999: beyond it times run over.
const userMaxTime = 253402300799

// userClaims are those that count (RFC 7519 section 4.1). Others are passed over.
type userClaims struct {
	Issuer    string         `json:"iss"`
	Subject   string         `json:"sub"`
	Audience  jsontext.Value `json:"aud"`
	Expires   *float64       `json:"exp"` // Unix seconds, a fraction allowed (RFC 7519 section 2)
	NotBefore *float64       `json:"nbf"`
	IssuedAt  *float64       `json:"iat"`
	Card      *string        `json:"card"` // ours: the one card that the token is for
}

// UserTokensConfig configures UserTokens. All but Now is required.
type UserTokensConfig struct {
	// JWKS is the set of public keys that the authority signs with (RFC 7517),
	// at most 256 KiB and 64 keys.
	JWKS []byte

	Issuer      string // the token's "iss", exactly
	Audience    string // among the token's "aud", exactly
	Environment string // of the proof [5]

	Now func() time.Time // time.Now by default
}

// UserTokens proves users by tokens that others sign (RFC 7519): Gnosis Pay's
// gnosisPayApiAuthToken and authModuleToken. The authority answers for who its
// users are; whose cards they hold, the directory says.
//
// A token is signed by ES256, RS256, PS256 or EdDSA. Its header has "alg", "kid",
// which may be missing where there is one key, and "typ", which may be missing
// or "JWT" or "at+jwt", and nothing else. "sub" is the user's id, "exp" is
// required, "card" names the one card that it is for, where there is one, and
// other claims are passed over. Clocks may be a minute apart where "nbf" and
// "iat" are concerned. It has at most 4 KiB.
type UserTokens struct {
	config   UserTokensConfig
	keys     []publicJWK
	verified verifiedJWTs[userClaims]
}

var _ Prover = (*UserTokens)(nil)

// NewUserTokens returns the prover. No error quotes the set of keys.
func NewUserTokens(config UserTokensConfig) (*UserTokens, error) {
	switch {
	case !validJWTName(config.Issuer) || !validJWTName(config.Audience):
		return nil, fmt.Errorf("user token credentials: issuer and audience must be 1 to %d bytes of UTF-8", jwtMaxName)
	case !validEnvironment(config.Environment):
		return nil, errors.New(`user token credentials: the environment must be "test" or "production"`)
	}
	keys, err := parseJWKS(config.JWKS)
	if err != nil {
		return nil, fmt.Errorf("user token credentials: jwks: %w", err)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &UserTokens{config: config, keys: keys}, nil
}

// Prove names the user of a token, and the card that it is for, if any.
//
// Refused as "malformed", "unknown" (the key), "signature", "bound" (another
// issuer or audience) or "expired".
func (u *UserTokens) Prove(_ context.Context, c policy.Credential) (policy.Proof, error) {
	claims, err := u.verify(c)
	if err != nil {
		return policy.Proof{}, err
	}
	if claims.Issuer != u.config.Issuer || !slices.Contains(audiences(claims.Audience), u.config.Audience) {
		return policy.Proof{}, refuse(policy.KindJWT, policy.RefusedBound, jwtElsewhere)
	}
	if !claims.current(u.config.Now()) {
		return policy.Proof{}, refuse(policy.KindJWT, policy.RefusedExpired, "")
	}
	proof := policy.Proof{
		Kind: policy.KindJWT, User: claims.Subject, Environment: u.config.Environment,
		Expires: time.Unix(int64(*claims.Expires), 0), ID: idOf(policy.KindJWT, claims.Subject),
	}
	if claims.Card != nil {
		proof.Card = *claims.Card
	}
	return proof, nil
}

// verify returns what a token says that one of the keys signed.
func (u *UserTokens) verify(c policy.Credential) (userClaims, error) {
	if c.Kind != policy.KindJWT || len(c.Value()) > jwsMaxText {
		return userClaims{}, refuse(policy.KindJWT, policy.RefusedMalformed, "")
	}
	digest := sha256.Sum256([]byte(c.Value()))
	if claims, ok := u.verified.get(digest); ok {
		return claims, nil
	}
	header, ok := parseJWS(c.Value())
	if !ok || !userType(header.Type) {
		return userClaims{}, refuse(policy.KindJWT, policy.RefusedMalformed, "")
	}
	key := u.key(header.KeyID)
	if key == nil {
		return userClaims{}, refuse(policy.KindJWT, policy.RefusedUnknown, "no key has its id")
	}
	payload, err := signedPayload(c.Value(), string(key.algorithm), key.public)
	if err != nil {
		return userClaims{}, err
	}
	var claims userClaims
	if json.Unmarshal(payload, &claims) != nil || !claims.whole() {
		return userClaims{}, refuse(policy.KindJWT, policy.RefusedMalformed, "the claims are not a user's")
	}
	u.verified.put(digest, claims)
	return claims, nil
}

// userType reports whether a header's typ is that of an access token (RFC 9068
// section 2.1), or says nothing.
func userType(name string) bool {
	return name == "" || strings.EqualFold(name, jwtType) || strings.EqualFold(name, "at+jwt") || strings.EqualFold(name, "application/at+jwt")
}

// whole reports whether the claims have all that a proof is made of.
func (c *userClaims) whole() bool {
	return validCookieValue(c.Subject) && (c.Card == nil || validCookieValue(*c.Card)) && c.Expires != nil && *c.Expires <= userMaxTime
}

// current reports whether the claims are good at a moment.
func (c *userClaims) current(at time.Time) bool {
	now := float64(at.UnixMilli()) / 1000
	ahead := now + jwtMaxAhead.Seconds()
	return now < *c.Expires && (c.NotBefore == nil || *c.NotBefore <= ahead) && (c.IssuedAt == nil || *c.IssuedAt <= ahead)
}

// key returns the key of an id, or the only one there is where token or key
// have none; nil where there is none.
func (u *UserTokens) key(id string) *publicJWK {
	if only := &u.keys[0]; len(u.keys) == 1 && (id == "" || only.id == "") {
		return only
	}
	i := slices.IndexFunc(u.keys, func(k publicJWK) bool { return k.id == id })
	if i < 0 {
		return nil
	}
	return &u.keys[i]
}

// publicJWK is a key that verifies with one algorithm [23].
type publicJWK struct {
	id        string
	algorithm jose.SignatureAlgorithm
	public    interface{ Equal(crypto.PublicKey) bool }
}

// jwkForm is what a key says about its use. What it is made of is go-jose's to read.
type jwkForm struct {
	Type       string   `json:"kty"`
	Algorithm  string   `json:"alg"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`
	KeyID      string   `json:"kid"`
}

// privateMembers are those of symmetric and private keys (RFC 7518 section 6).
var privateMembers = []string{"k", "d", "p", "q", "dp", "dq", "qi", "oth", "priv"}

// parseJWKS reads a set of public keys. Every key must be good: one that is
// passed over without a word is one that somebody looks for. Errors say which
// key it is by its place, and quote nothing.
func parseJWKS(source []byte) ([]publicJWK, error) {
	var form struct {
		Keys []jsontext.Value `json:"keys"`
	}
	switch {
	case len(source) > jwksMaxBytes:
		return nil, fmt.Errorf("longer than %d bytes", jwksMaxBytes)
	case json.Unmarshal(source, &form) != nil:
		return nil, errors.New("not a JSON object with a list of keys, or a name stands in it twice")
	case len(form.Keys) == 0 || len(form.Keys) > jwksMaxKeys:
		return nil, fmt.Errorf("want 1 to %d keys", jwksMaxKeys)
	}
	var keys []publicJWK
	var problems []error
	for i, source := range form.Keys {
		key, problem := parseJWK(source)
		switch {
		case problem != "":
		case key.id == "" && len(form.Keys) > 1:
			problem = "one of several keys needs a kid"
		case slices.ContainsFunc(keys, func(k publicJWK) bool { return k.id == key.id }):
			problem = "another key has its kid"
		case slices.ContainsFunc(keys, func(k publicJWK) bool { return k.public.Equal(key.public) }):
			problem = "another entry is the same key: each has one kid and one algorithm"
		}
		if problem != "" {
			problems = append(problems, fmt.Errorf("key %d: %s", i+1, problem))
			continue
		}
		keys = append(keys, key)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return keys, nil
}

// parseJWK reads one key, or says what is wrong with it.
func parseJWK(source jsontext.Value) (key publicJWK, problem string) {
	var members map[string]jsontext.Value
	var form jwkForm
	if json.Unmarshal(source, &members) != nil || json.Unmarshal(source, &form) != nil {
		return publicJWK{}, "it is not an object, or a member of it is not what it must be"
	}
	for _, private := range privateMembers {
		if _, ok := members[private]; ok {
			return publicJWK{}, "it is a private or a symmetric key, which does not belong here: give the public half, and make another key if it has left its owner"
		}
	}
	// Certificates are nothing that we go by, and go-jose takes SHA-1 of them, which GODEBUG=fips140=only ends the process over.
	for _, certificate := range []string{"x5c", "x5t", "x5t#S256", "x5u"} {
		delete(members, certificate)
	}
	source, err := json.Marshal(members)
	if err != nil {
		return publicJWK{}, "it is not an object, or a member of it is not what it must be"
	}
	var parsed jose.JSONWebKey
	switch {
	case form.Type == "oct":
		return publicJWK{}, "it is a symmetric key"
	case form.Use != "" && form.Use != "sig", form.Operations != nil && !slices.Contains(form.Operations, "verify"):
		return publicJWK{}, "it is not for verifying signatures"
	case len(form.KeyID) > jwtMaxName:
		return publicJWK{}, fmt.Sprintf("its kid is longer than %d bytes", jwtMaxName)
	case parsed.UnmarshalJSON(source) != nil:
		return publicJWK{}, "it is no key that we know"
	}
	key = publicJWK{id: form.KeyID, algorithm: jose.SignatureAlgorithm(form.Algorithm)}
	var fits []jose.SignatureAlgorithm
	switch public := parsed.Key.(type) {
	case *ecdsa.PublicKey:
		if key.public = public; public.Curve == elliptic.P256() {
			fits = []jose.SignatureAlgorithm{jose.ES256}
		}
	case ed25519.PublicKey:
		key.public, fits = public, []jose.SignatureAlgorithm{jose.EdDSA}
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < jwksMinRSABits || bits > jwksMaxRSABits || public.E < 3 || public.E&1 == 0 {
			return publicJWK{}, fmt.Sprintf("want an RSA key of %d to %d bits with an odd exponent", jwksMinRSABits, jwksMaxRSABits)
		}
		key.public, fits = public, []jose.SignatureAlgorithm{jose.RS256, jose.PS256}
	}
	if key.algorithm == "" && len(fits) == 1 {
		key.algorithm = fits[0] // the one that it can be used with
	}
	if !slices.Contains(fits, key.algorithm) {
		return publicJWK{}, "want an alg: ES256 for P-256, EdDSA for Ed25519, RS256 or PS256 for RSA"
	}
	return key, ""
}
