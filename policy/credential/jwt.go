package credential

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"

	"github.com/cardstile/cardstile/policy"
)

// JWTKey signs and verifies with one algorithm [23]. Its methods are safe for
// concurrent use.
type JWTKey interface {
	ID() string        // the token's "kid"
	Algorithm() string // "HS256", "RS256", "PS256", "ES256" or "EdDSA"

	// Sign returns the signature over the message in the form of RFC 7518
	// section 3 (RFC 8037 for EdDSA), and Verify reports whether that is one.
	Sign(message []byte) ([]byte, error)
	Verify(message, signature []byte) bool

	// Public is the key that others verify with; nil for HS256.
	Public() crypto.PublicKey
}

var jwtAlgorithms = []string{"HS256", "RS256", "PS256", "ES256", "EdDSA"}

const (
	// JWTTTL is how long an access token is good by default. Source: the
	// expires_in of PaymentsGate.
	JWTTTL = time.Hour
	// MaxJWTTTL bounds the life of every token that we sign. Source: Exa's
	// provisioning tokens are good for 60 days.
	MaxJWTTTL = 60 * 24 * time.Hour

	jwtIDBytes   = 16
	jwtMaxAhead  = time.Minute // of iat and nbf: how far clocks of ours may be apart
	jwtMaxName   = 512         // bytes of issuer, audience, scope
	jwtLowACR    = "low"       // assurance, of a session that a public key alone began
	jwtSigned    = "the signature does not verify"
	jwtElsewhere = "it is for something else"
)

// jwtClaims is all that a token of ours says (RFC 7519 section 4.1, OpenID
// Connect for sid and acr, RFC 9068 for scope). What sid names, a login or an
// API key, and whether there is a scope, tells whose prover a token is for.
type jwtClaims struct {
	Issuer     string `json:"iss"`
	Audience   string `json:"aud"`
	Subject    string `json:"sub"`
	Expires    int64  `json:"exp"` // Unix seconds
	NotBefore  int64  `json:"nbf,omitzero"`
	IssuedAt   int64  `json:"iat"`
	ID         string `json:"jti"`
	Family     string `json:"sid,omitzero"`
	Assurance  string `json:"acr,omitzero"`
	Permission string `json:"scope,omitzero"`
	Generation uint64 `json:"gen,omitzero"` // of the partner, for an API key's; ours
}

// jwtIssuer signs tokens and verifies them: those of one issuer, for one
// audience.
type jwtIssuer struct {
	issuer, audience string
	primary          JWTKey
	keys             map[string]JWTKey // by id
	now              func() time.Time
	verified         verifiedJWTs[jwtClaims]
}

// verifiedJWTs remembers what tokens say whose signatures were verified: a token
// is shown with each request while it lasts, and verifying is dear. It is of one
// set of keys, since each reload makes another issuer, and decides nothing that
// time, account or login decide.
type verifiedJWTs[C any] struct {
	mu     sync.Mutex
	claims map[[sha256.Size]byte]C // by the digest of the whole token, signature included; guarded by mu
}

// maxVerified bounds it, to a few megabytes. Beyond it all is forgotten, and verified again.
const maxVerified = 4096

func (v *verifiedJWTs[C]) get(digest [sha256.Size]byte) (claims C, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	claims, ok = v.claims[digest]
	return claims, ok
}

func (v *verifiedJWTs[C]) put(digest [sha256.Size]byte, claims C) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.claims == nil || len(v.claims) >= maxVerified {
		v.claims = make(map[[sha256.Size]byte]C)
	}
	v.claims[digest] = claims
}

func newJWTIssuer(issuer, audience string, keys []JWTKey, now func() time.Time) (*jwtIssuer, error) {
	if !validJWTName(issuer) || !validJWTName(audience) {
		return nil, fmt.Errorf("issuer and audience must be 1 to %d bytes of UTF-8", jwtMaxName)
	}
	if len(keys) == 0 {
		return nil, errors.New("no key")
	}
	if now == nil {
		now = time.Now
	}
	i := &jwtIssuer{issuer: issuer, audience: audience, primary: keys[0], keys: make(map[string]JWTKey, len(keys)), now: now}
	for _, key := range keys {
		switch {
		case !validJWTName(key.ID()):
			return nil, fmt.Errorf("key ids must be 1 to %d bytes of UTF-8", jwtMaxName)
		case i.keys[key.ID()] != nil:
			return nil, fmt.Errorf("two keys have the id %q", key.ID())
		case !slices.Contains(jwtAlgorithms, key.Algorithm()):
			return nil, fmt.Errorf("key %q: the algorithm is none of %q", key.ID(), jwtAlgorithms)
		case (key.Public() == nil) != (key.Algorithm() == "HS256"):
			return nil, fmt.Errorf("key %q: a key has a public half, or its algorithm is HS256", key.ID())
		}
		i.keys[key.ID()] = key
	}
	return i, nil
}

func validJWTName(name string) bool {
	return name != "" && len(name) <= jwtMaxName && utf8.ValidString(name)
}

// sign completes the claims and returns the token, signed with the primary key,
// and when it ends.
func (i *jwtIssuer) sign(claims jwtClaims, ttl time.Duration) (text string, expires time.Time, err error) {
	now := i.now().Truncate(time.Second)
	expires = now.Add(ttl).Truncate(time.Second)
	claims.Issuer, claims.Audience = i.issuer, i.audience
	claims.IssuedAt, claims.Expires = now.Unix(), expires.Unix()
	var id [jwtIDBytes]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand
	claims.ID = textEncoding.EncodeToString(id[:])
	header, err := json.Marshal(jwsHeader{Algorithm: i.primary.Algorithm(), Type: jwtType, KeyID: i.primary.ID()})
	if err != nil {
		return "", time.Time{}, err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", time.Time{}, err
	}
	text = textEncoding.EncodeToString(header) + "." + textEncoding.EncodeToString(payload)
	signature, err := i.primary.Sign([]byte(text))
	if err != nil {
		return "", time.Time{}, err
	}
	return text + "." + textEncoding.EncodeToString(signature), expires, nil
}

// verify returns what a token of ours says, if it says so to this audience and
// now. Refused as "malformed", "unknown" (the key), "signature", "bound" or
// "expired".
func (i *jwtIssuer) verify(c policy.Credential) (jwtClaims, error) {
	claims, err := i.verifySigned(c)
	if err != nil {
		return jwtClaims{}, err
	}
	if claims.Issuer != i.issuer || claims.Audience != i.audience {
		return jwtClaims{}, refuse(policy.KindJWT, policy.RefusedBound, jwtElsewhere)
	}
	now := i.now()
	ahead := now.Add(jwtMaxAhead).Unix()
	if now.Unix() >= claims.Expires || claims.IssuedAt > ahead || claims.NotBefore > ahead {
		return jwtClaims{}, refuse(policy.KindJWT, policy.RefusedExpired, "")
	}
	return claims, nil
}

// verifySigned returns what a token says that one of the keys signed.
func (i *jwtIssuer) verifySigned(c policy.Credential) (jwtClaims, error) {
	if c.Kind != policy.KindJWT || len(c.Value()) > jwsMaxText {
		return jwtClaims{}, refuse(policy.KindJWT, policy.RefusedMalformed, "")
	}
	digest := sha256.Sum256([]byte(c.Value()))
	if claims, ok := i.verified.get(digest); ok {
		return claims, nil
	}
	header, ok := parseJWS(c.Value())
	if !ok || header.Type != jwtType {
		return jwtClaims{}, refuse(policy.KindJWT, policy.RefusedMalformed, "")
	}
	key := i.keys[header.KeyID]
	if key == nil {
		return jwtClaims{}, refuse(policy.KindJWT, policy.RefusedUnknown, "no key has its id")
	}
	payload, err := signedPayload(c.Value(), key.Algorithm(), jwtVerifier{key})
	if err != nil {
		return jwtClaims{}, err
	}
	var claims jwtClaims
	if json.Unmarshal(payload, &claims, json.RejectUnknownMembers(true)) != nil {
		return jwtClaims{}, refuse(policy.KindJWT, policy.RefusedMalformed, "the claims are not like ours")
	}
	i.verified.put(digest, claims)
	return claims, nil
}

// signedPayload returns the payload of a token that a key signed with its one
// algorithm [23]: go-jose does not look at a token of another. Refused as
// "signature".
func signedPayload(token, algorithm string, key any) ([]byte, error) {
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(algorithm)})
	if err != nil {
		return nil, refuse(policy.KindJWT, policy.RefusedSignature, "the algorithm is not its key's")
	}
	payload, err := signed.Verify(key)
	if err != nil {
		return nil, refuse(policy.KindJWT, policy.RefusedSignature, jwtSigned)
	}
	return payload, nil
}

// jwtVerifier shows a key to go-jose.
type jwtVerifier struct{ key JWTKey }

var _ jose.OpaqueVerifier = jwtVerifier{}

func (v jwtVerifier) VerifyPayload(payload, signature []byte, _ jose.SignatureAlgorithm) error {
	if !v.key.Verify(payload, signature) {
		return jose.ErrCryptoFailure
	}
	return nil
}

// JWTsConfig configures JWTs. All but TTL and Now is required.
type JWTsConfig struct {
	Issuer      string
	Audience    string
	Environment string    // of the accounts [5]
	Keys        []JWTKey  // the primary, which signs, first; all of them verify
	Families    *Families // of the same face; its accounts are asked each time

	TTL time.Duration    // JWTTTL by default; at most MaxJWTTTL
	Now func() time.Time // time.Now by default
}

// JWTs proves service accounts by access tokens of ours (RFC 7519), which are
// good while the login that they came of is: revoking its family ends them at
// once, on all instances, and so does taking the key that began it from the
// account.
type JWTs struct {
	config JWTsConfig
	issuer *jwtIssuer
}

var _ Prover = (*JWTs)(nil)

// NewJWTs returns the prover.
func NewJWTs(config JWTsConfig) (*JWTs, error) {
	config.TTL = cmp.Or(config.TTL, JWTTTL)
	switch {
	case config.Families == nil:
		return nil, errors.New("jwt credentials: no families")
	case !validEnvironment(config.Environment):
		return nil, errors.New(`jwt credentials: the environment must be "test" or "production"`)
	case config.TTL < time.Second || config.TTL > MaxJWTTTL:
		return nil, fmt.Errorf("jwt credentials: the time to live must be from a second to %s", MaxJWTTTL)
	}
	issuer, err := newJWTIssuer(config.Issuer, config.Audience, config.Keys, config.Now)
	if err != nil {
		return nil, fmt.Errorf("jwt credentials: %w", err)
	}
	return &JWTs{config, issuer}, nil
}

// TTL is how long a token is good from the second in which it is made.
func (j *JWTs) TTL() time.Duration { return j.config.TTL }

// Mint returns an access token of a session, and when it ends.
func (j *JWTs) Mint(s Session) (text string, expires time.Time, err error) {
	if s == (Session{}) || s.environment != j.config.Environment {
		return "", time.Time{}, errors.New("mint access token: no session, or one of another environment")
	}
	claims := jwtClaims{Subject: s.account, Family: textEncoding.EncodeToString(s.family[:])}
	if s.weak {
		claims.Assurance = jwtLowACR
	}
	if text, expires, err = j.issuer.sign(claims, j.config.TTL); err != nil {
		return "", time.Time{}, fmt.Errorf("mint access token: %w", err)
	}
	return text, expires, nil
}

// Prove proves the account of an access token. The token names the account
// alone: the partner is the one that the account has now.
//
// Refused as "malformed", "unknown" (the key, or an account that is gone),
// "signature", "bound", "expired", "environment", or "login" where the login is
// over, or its key is not the account's any more. Failures of the store pass through.
func (j *JWTs) Prove(ctx context.Context, c policy.Credential) (policy.Proof, error) {
	claims, err := j.issuer.verify(c)
	if err != nil {
		return policy.Proof{}, err
	}
	if claims.Permission != "" || claims.Family == "" || claims.Generation != 0 {
		return policy.Proof{}, refuse(policy.KindJWT, policy.RefusedBound, jwtElsewhere)
	}
	family, err := textEncoding.DecodeString(claims.Family)
	if err != nil || len(family) != familyBytes || claims.Assurance != "" && claims.Assurance != jwtLowACR {
		return policy.Proof{}, refuse(policy.KindJWT, policy.RefusedMalformed, "the claims are not like ours")
	}
	proof, err := j.config.Families.prove(ctx, policy.KindJWT, Session{
		account: claims.Subject, environment: j.config.Environment,
		weak: claims.Assurance == jwtLowACR, family: familyID(family),
	})
	if err != nil {
		return policy.Proof{}, err
	}
	proof.ID = idOf(policy.KindJWT, proof.Account)
	proof.Expires = time.Unix(claims.Expires, 0)
	return proof, nil
}

// ScopedConfig configures ScopedJWTs. All but Now is required.
type ScopedConfig struct {
	Issuer      string
	Audience    string
	Scope       string   // the one that the token must have, and no other
	Environment string   // of the proof [5]
	Keys        []JWTKey // the primary, which signs, first; all of them verify

	Now func() time.Time // time.Now by default
}

// ScopedJWTs proves users by tokens of ours that are good for one thing.
// Nothing is kept of them: they end by their time, or with their key.
type ScopedJWTs struct {
	config ScopedConfig
	issuer *jwtIssuer
}

var _ Prover = (*ScopedJWTs)(nil)

// NewScopedJWTs returns the prover.
func NewScopedJWTs(config ScopedConfig) (*ScopedJWTs, error) {
	switch {
	case !validJWTName(config.Scope):
		return nil, fmt.Errorf("scoped jwt credentials: the scope must be 1 to %d bytes of UTF-8", jwtMaxName)
	case !validEnvironment(config.Environment):
		return nil, errors.New(`scoped jwt credentials: the environment must be "test" or "production"`)
	}
	issuer, err := newJWTIssuer(config.Issuer, config.Audience, config.Keys, config.Now)
	if err != nil {
		return nil, fmt.Errorf("scoped jwt credentials: %w", err)
	}
	return &ScopedJWTs{config, issuer}, nil
}

// Mint returns a token for a user, good for ttl from now: a second to MaxJWTTTL.
func (j *ScopedJWTs) Mint(user string, ttl time.Duration) (text string, expires time.Time, err error) {
	if !validCookieValue(user) || ttl < time.Second || ttl > MaxJWTTTL {
		return "", time.Time{}, fmt.Errorf("mint scoped token: the user is not visible ASCII, or the time to live is not from a second to %s", MaxJWTTTL)
	}
	if text, expires, err = j.issuer.sign(jwtClaims{Subject: user, Permission: j.config.Scope}, ttl); err != nil {
		return "", time.Time{}, fmt.Errorf("mint scoped token: %w", err)
	}
	return text, expires, nil
}

// Prove names the user of a token. Refused as "malformed", "unknown" (the key),
// "signature", "bound" or "expired".
func (j *ScopedJWTs) Prove(_ context.Context, c policy.Credential) (policy.Proof, error) {
	claims, err := j.issuer.verify(c)
	if err != nil {
		return policy.Proof{}, err
	}
	if claims.Permission != j.config.Scope || claims.Family != "" || claims.Generation != 0 {
		return policy.Proof{}, refuse(policy.KindJWT, policy.RefusedBound, jwtElsewhere)
	}
	if !validCookieValue(claims.Subject) {
		return policy.Proof{}, refuse(policy.KindJWT, policy.RefusedMalformed, "the claims are not like ours")
	}
	return policy.Proof{
		Kind: policy.KindJWT, User: claims.Subject, Environment: j.config.Environment,
		Expires: time.Unix(claims.Expires, 0), ID: idOf(policy.KindJWT, claims.Subject),
	}, nil
}

// JWKS is the set of the public halves of keys (RFC 7517), in the order of
// their ids. Keys of HS256 are left out: they have none, and never leave us [23].
func JWKS(keys ...JWTKey) []byte {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, key := range keys {
		public := jose.JSONWebKey{Key: key.Public(), KeyID: key.ID(), Algorithm: key.Algorithm(), Use: "sig"}
		// IsPublic is false for what is no asymmetric key, and for a private one.
		if key.Algorithm() != "HS256" && public.IsPublic() {
			set.Keys = append(set.Keys, public)
		}
	}
	slices.SortFunc(set.Keys, func(a, b jose.JSONWebKey) int { return cmp.Compare(a.KeyID, b.KeyID) })
	text, err := json.Marshal(set)
	if err != nil {
		panic("credential: internal error: a public key cannot be written")
	}
	return text
}
