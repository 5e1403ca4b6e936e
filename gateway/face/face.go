// Package face is how callers speak: one file per API that we present. A face turns requests into canonical calls and
// canonical results into its own JSON, and has an answer in its own shape for every kind of failure. It decides nothing.
package face

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// Face is one API that we present. Faces are made at load and used by many exchanges at once; they keep no state.
type Face interface {
	// Endpoints lists what the face serves, as configured. A path stands there once per method.
	Endpoints() []Endpoint

	// Fail renders a failure. What it writes depends on the kind alone, and of a BadRequest on its place, so that refusals
	// cannot be told apart.
	Fail(kind exchange.Kind, at exchange.Place, out *exchange.Response)
}

// Endpoint is one method and path of a face.
type Endpoint struct {
	Method  string
	Pattern string // as in net/http.ServeMux, without method and host

	// Operations are all that a call of this endpoint can hold. The first one names the exchange in metrics.
	Operations []policy.Operation

	// Certificate says that the caller's credential is its client certificate, so that the endpoint stands only on
	// listeners that require one.
	Certificate bool

	// MaxBody is the longest body, in bytes, that a call of this endpoint has; zero takes none.
	MaxBody int

	// Shape, where it is not nil, has the body read by the vault: it may hold card data in clear, or has to be digested. Parse
	// then finds it in Request.Clear. The shape's own bound counts beside MaxBody.
	Shape *vault.Shape

	// LateBody says that a body which cannot be read is told to whoever is proven, as what is wrong with the request is: Parse gets
	// an empty one then. It is for endpoints with a Shape.
	LateBody bool

	// CORS says that browsers call this from pages of other origins, and how.
	CORS *CORS

	// Idempotency says that a call with an idempotency key is made once, and its repetitions get its answer.
	Idempotency *Idempotency

	// Parse makes a call, or fails with an *exchange.Failure. It is cheap: no network, no asymmetric cryptography.
	Parse func(*exchange.Request) (*exchange.Call, error)

	// Status is that of an answer that is released; zero is 200.
	Status int

	// Render writes type and body of the answer to a call that is about to be released.
	Render func(*exchange.Call, *exchange.Result, *exchange.Response)

	// Static answers for an endpoint that takes no credential and is no exchange: nothing is proven, decided or recorded. The
	// answer's status is Status unless it sets another. Parse and Render are nil then, and the operations only say where it
	// stands.
	Static func(*exchange.Request, *exchange.Response)

	// Fail stands in place of the face's, where an endpoint's failures have a shape of their own.
	Fail func(kind exchange.Kind, at exchange.Place, out *exchange.Response)
}

// CORS is how browsers call an endpoint from pages of other origins (Fetch Standard, section 3.2).
type CORS struct {
	// AnyOrigin answers every origin with "*": for endpoints whose credential is not the browser's to add. Otherwise it is
	// the route's list, exactly.
	AnyOrigin bool

	// Credentials says that the credential is a cookie. Where an origin is sent that is not on the list, what changes or
	// mints something is then refused [21].
	Credentials bool

	Headers []string // that a page may send, beside the safelisted ones
	Expose  []string // that a page may read
}

// Idempotency is an API's rule for repeated calls.
type Idempotency struct {
	Keep      time.Duration // how long an answer is kept
	Tombstone time.Duration // how long after that a repetition is told so; zero lets it run again
}

// Config is what a face is made of. A face refuses a configuration that lacks what it needs.
type Config struct {
	// SessionKeys read the session preambles that clients send; nil where the route has none.
	SessionKeys Preambles

	// PINKeys read those of calls about a PIN alone: the same, or with PINBlind the issuer's.
	PINKeys Preambles

	// PIN is how PIN operations are carried on this route; empty is off [14].
	PIN PINMode

	// PINWithPAN allows a PIN beside a card number in one answer [14].
	PINWithPAN bool

	// Clear says that the client's leg is in clear, by the route's own word [12].
	Clear bool

	// Serves says what the route offers and its issuer can do; nil is everything.
	Serves func(policy.Operation) bool

	// Forward are the calls that the route forwards, for faces that have forward routes.
	Forward []exchange.ForwardCall

	// SessionSPKI is the public key that session preambles are encrypted to, as DER: nil where the route has none.
	SessionSPKI []byte

	// UploadKeys read the preambles of card uploads; nil where the route has none.
	UploadKeys Preambles

	// UserProofs says that the route can prove users by JWTs of others, and Typed that it can ask their wallets too.
	UserProofs, Typed bool

	// CardPage answers with the page of an app's elements, whatever is asked for; nil offers no elements. Apps are the ids of the
	// apps, with the partner of each [22].
	CardPage func(query url.Values, out *exchange.Response)
	Apps     map[string]string

	// HostedFields is how hosted fields are; nil offers none.
	HostedFields *HostedFields

	// JWKS is the set of public keys that access tokens are signed with (RFC 7517), where there are any.
	JWKS []byte

	// PublicKey reads a public key as clients of the face send it. It fails with ErrPublicKey, or with ErrPrivateKey where it
	// is a private one.
	PublicKey func(text string) (spki [32]byte, err error)
}

// HostedFields is how the hosted fields of a route are.
type HostedFields struct {
	Libraries []string // the versions of the page's library that are accepted
	CVV       string   // "mandatory", "enabled" or "disabled"
	Name      bool     // whether the cardholder's name is mandatory
	Expired   bool     // whether expired cards are taken
	Tokenize  bool     // whether a session may be of scenario "tokenization"

	// Page answers with the page of one field, or fails where the query asks for none.
	Page func(query url.Values, out *exchange.Response) error
}

// What Config.PublicKey says. Neither quotes.
var (
	ErrPublicKey  = errors.New("not a public key")
	ErrPrivateKey = errors.New("a private key in place of a public one")
)

// serves is Config.Serves, of which nil is everything.
func (c *Config) serves(op policy.Operation) bool { return c.Serves == nil || c.Serves(op) }

// Preambles reads session preambles without opening them. It is cheap, and fails with vault.ErrPreamble.
type Preambles interface {
	Parse(text string) (vault.Preamble, error)
}

// PINMode is how a route carries PINs.
type PINMode string

// The modes of PIN operations [14].
const (
	PINOff      PINMode = ""
	PINBlind    PINMode = "blind"    // the client encrypts to the issuer's key; we pass it unread
	PINSoftware PINMode = "software" // the vault opens the PIN block in memory
)

// Kind describes a face to the configuration.
type Kind struct {
	New func(Config) (Face, error)

	// Credentials are what callers of this face prove themselves with, beside a certificate: what the route must have.
	Credentials []policy.Kind

	// ClientLeg is vault.FormatClear for a face that has card data in clear inside TLS, which the route must say too [12].
	ClientLeg string

	// Forwards says that the face has forward routes.
	Forwards bool

	// SessionFormat is the envelope of its session preambles, UploadFormat that of cards that users bring; "" where they bring none.
	SessionFormat, UploadFormat string
}

// kinds is the closed set of faces.
var kinds = map[string]Kind{
	"bridge":    {New: newBridge, Credentials: []policy.Kind{policy.KindAPIKey, policy.KindToken}, ClientLeg: vault.FormatClear, SessionFormat: vault.FormatClear},
	"exa":       {New: newExa, Credentials: []policy.Kind{policy.KindCookie}, SessionFormat: "rain"},
	"gnosispay": {New: newGnosisPay, Credentials: []policy.Kind{policy.KindToken, policy.KindJWT}, SessionFormat: "rain", UploadFormat: "gnosis"},
	"paymentsgate": {
		New: newPaymentsGate, Credentials: []policy.Kind{policy.KindJWT, policy.KindPublicKey, policy.KindRefresh, policy.KindSignature}, Forwards: true,
		SessionFormat: "rain",
	},
	"payroc": {
		New: newPayroc, Credentials: []policy.Kind{policy.KindAPIKey, policy.KindJWT, policy.KindFields, policy.KindCardToken}, ClientLeg: vault.FormatClear,
		Forwards: true, SessionFormat: vault.FormatClear,
	},
}

// Takes reports whether callers of the face bring credentials of a kind.
func (k Kind) Takes(kind policy.Kind) bool { return slices.Contains(k.Credentials, kind) }

// Lookup finds a face by its name in the configuration. The error lists the known names.
func Lookup(name string) (Kind, error) {
	k, ok := kinds[name]
	if !ok {
		return Kind{}, fmt.Errorf("unknown face %q (known: %s)", name, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
	return k, nil
}

// bearer returns the credential of `Authorization: Bearer <token>` (RFC 6750 section 2.1; the scheme's case is free,
// RFC 9110 section 11.1). Anything else, a second header included, is no credential.
func bearer(r *exchange.Request, kind policy.Kind) (policy.Credential, error) {
	value, ok := r.One("Authorization")
	scheme, token, found := strings.Cut(value, " ")
	if !ok || !found || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return policy.Credential{}, exchange.Fail(exchange.Unauthorized, "no_credential")
	}
	return policy.NewCredential(kind, token), nil
}

// preamble reads the header `sessionid`. Where it is absent the call has no client session.
func preamble(r *exchange.Request, c *exchange.Call, keys Preambles) error {
	text, ok := r.One("Sessionid")
	if !ok {
		return exchange.Fail(exchange.BadSession, "duplicate_header")
	}
	if text == "" {
		return nil
	}
	return preambleText(text, c, keys)
}

// preambleText reads a session preamble, wherever it stood.
func preambleText(text string, c *exchange.Call, keys Preambles) error {
	if keys == nil {
		return exchange.Fail(exchange.BadSession, "no_session_key")
	}
	p, err := keys.Parse(text)
	if err != nil {
		return exchange.Fail(exchange.BadSession, "preamble")
	}
	c.Preamble = p
	c.SessionHash = exchange.SessionHash(text)
	return nil
}

// jsonBody checks the content type of a request that has a body (parameters are free, RFC 8259 section 11), and that nothing
// was done to it (RFC 9110 section 8.4): we read it as it came.
func jsonBody(r *exchange.Request) error {
	for _, coding := range r.Header.Values("Content-Encoding") {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			return exchange.Fail(exchange.UnsupportedMedia, "content_encoding")
		}
	}
	value, ok := r.One("Content-Type")
	media, _, _ := strings.Cut(value, ";")
	if !ok || !strings.EqualFold(strings.TrimSpace(media), "application/json") {
		return exchange.Fail(exchange.UnsupportedMedia, "content_type")
	}
	return nil
}

// errNoSessionKey is what a face with sealed answers says when a route gives it no key to open sessions with.
var errNoSessionKey = errors.New("session_key: needed by this face's card operations")

// appendSealed appends `{"data":…,"iv":…}`. Both are base64 text that needs no escape.
func appendSealed(dst []byte, s vault.Sealed) []byte {
	dst = append(dst, `{"data":"`...)
	dst = append(dst, s.Data...)
	dst = append(dst, `","iv":"`...)
	dst = append(dst, s.IV...)
	return append(dst, `"}`...)
}

// secondsUntil is how long it is until then, to the nearest second, as a client is told that reads it some time later: of the
// 300 seconds that something has, the few milliseconds that the exchange took are not taken off. What is over has none.
func secondsUntil(then time.Time) int64 {
	return int64(max(time.Until(then).Round(time.Second), 0) / time.Second)
}

// maxBody is room for what these faces' bodies hold: a sealed PIN block, or what a token is bound to.
const maxBody = 4 << 10

const jsonType = "application/json"

// staticJSON answers every request with the same document.
func staticJSON(document []byte) func(*exchange.Request, *exchange.Response) {
	return func(_ *exchange.Request, out *exchange.Response) {
		out.ContentType, out.Body = jsonType, append(out.Body[:0], document...)
	}
}

// answers is a face's table of failures, rendered once.
type answers map[exchange.Kind]answer

type answer struct {
	status int
	body   string
}

// stands are what a face answers in place of a kind that its contract has no word for.
var stands = map[exchange.Kind]exchange.Kind{
	exchange.InFlight: exchange.Unavailable, exchange.OtherBody: exchange.BadRequest, exchange.KeyExpired: exchange.BadRequest,
	exchange.AlreadySet: exchange.BadRequest, exchange.ChallengeMissing: exchange.BadRequest, exchange.ChallengeUnknown: exchange.Unauthorized,
	exchange.CredentialUnknown: exchange.Unauthorized, exchange.BadSignature: exchange.Unauthorized, exchange.WeakPIN: exchange.BadRequest,
	exchange.NoAccount: exchange.NotFound, exchange.BadSession: exchange.BadRequest, exchange.BadCard: exchange.BadRequest,
}

// find is the answer to a kind, to what stands in for it, or to Internal.
func (a answers) find(kind exchange.Kind) answer {
	said, ok := a[kind]
	if !ok {
		said, ok = a[stands[kind]]
	}
	if !ok {
		said = a[exchange.Internal]
	}
	return said
}

// fail writes the answer to a kind.
func (a answers) fail(kind exchange.Kind, out *exchange.Response) {
	said := a.find(kind)
	out.Status = said.status
	out.ContentType = jsonType
	out.Body = append(out.Body[:0], said.body...)
}
