// Package exchange is the small vocabulary in which callers' APIs (faces) and issuers' APIs meet. A face turns a Request
// into a Call, an issuer turns a Call into a Result, a face turns a Result or a Failure into a Response; N faces and M
// issuers therefore cost N + M. Nothing here depends on which HTTP server or client carries an exchange, and nothing
// here can hold card data in clear: sensitive values are vault.Sealed.
package exchange

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/netip"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// Header reads the fields of a message, names matched without regard to case. http.Header satisfies it.
type Header interface {
	Values(name string) []string
}

// Request is one request as a face sees it: whole, bounded and independent of the HTTP server that read it. It is valid
// until the exchange ends; a face keeps no part of it beyond that.
type Request struct {
	ID       string // our request id: 32 lower-case hex digits, also sent as X-Request-Id
	Method   string
	Path     string
	RawQuery string
	Header   Header
	Body     []byte
	Clear    *vault.Body // in place of Body, where the endpoint declares a shape [12]
	Unread   bool        // there was a body that could not be read, and Clear is an empty one in its place
	Origin   string      // of the browser's page, as it was sent; "" where none was
	Address  netip.Addr  // of the caller, behind listed proxies the one that they name
	Received time.Time

	// Param returns the value of a wildcard of the endpoint's pattern, percent-decoded.
	Param func(name string) string
}

// One returns the only value of a header field. A field that is absent gives "" and true; one that is present more than
// once gives "" and false, because two values are two answers to the question which of them was meant.
func (r *Request) One(name string) (string, bool) {
	switch v := r.Header.Values(name); len(v) {
	case 0:
		return "", true
	case 1:
		return v[0], true
	default:
		return "", false
	}
}

// Call is what a face made of a request: canonical, cheap to have made, and proven by nobody yet.
type Call struct {
	// Operations are decided one by one, performed together, and recorded in one event.
	Operations []policy.Operation

	// Card is the caller's card reference. Empty means the card of the proven user, where an operation touches a card.
	Card string

	// User is whom the partner names beside the card. Nobody proved them, so they only narrow [2].
	User string

	// Account is the service account that the caller says it is; the credentials prove it, or do not.
	Account string

	// Credentials are those presented on the wire. A client certificate is not among them: the connection has it.
	Credentials []policy.Credential

	// Nonce is what a proof beside a single-use token comes to; zero where none came. It is compared when the token is redeemed.
	Nonce [32]byte

	// Signed is what a wallet or an authenticator signed, for a challenge among the credentials or in it.
	Signed Signed

	// Preamble is what the client sent to set up its side of the session; absent where it sent none.
	Preamble vault.Preamble

	// SessionHash is SHA-256 of the preamble's text as sent, zero where there is none [6].
	SessionHash [32]byte

	// PIN is the sealed PIN block of a pin.set.
	PIN vault.Sealed

	// Bind is what a token.mint shall be bound to; the zero value binds to nothing but partner and certificate.
	Bind Bind

	// Challenge is what a challenge.mint shall be for.
	Challenge Challenge

	// Status is what a card.status shall make of the card, Why what the caller says of it, for the answer alone; Mode is what a
	// card.mode shall make of it.
	Status CardStatus
	Why    Why
	Mode   int

	// ShowMode asks for Result.Card.Mode.
	ShowMode bool

	// Assertion says that a signature among the credentials is over an assertion (RFC 7523), not over the body.
	Assertion bool

	// App is the page that embeds our elements, by its id: what it says of its partner must be so [22]. "" is none.
	App string

	// Partner is the partner that the caller must turn out to be; "" is any.
	Partner string

	// Scope is what a credential that has a scope must have in it; "" asks for nothing.
	Scope string

	// Upload is the card number of a card.verify, sealed under the preamble's session.
	Upload vault.Sealed

	// Fields is of a fields.mint, Submit of a field.submit.
	Fields Fields
	Submit Submission

	// CardToken says that a token.mint takes the card together that the page submitted.
	CardToken bool

	// Forward is the call of a forward.
	Forward *Forward

	// IdempotencyKey is the caller's, where the endpoint has a rule for it; empty is none.
	IdempotencyKey string

	// Late is what is wrong with the request, where callers are told so only once their reusable credentials are proven: an API
	// that says 401 first. The call may be incomplete then.
	Late *Failure
}

// Has reports whether the call asks for the operation.
func (c *Call) Has(op policy.Operation) bool {
	for _, o := range c.Operations {
		if o == op {
			return true
		}
	}
	return false
}

// Why is what a caller says of a change of status. It decides nothing.
type Why struct {
	Initiator, Reason, Detail string
	At                        time.Time // when it was asked for
}

// Bind narrows a single-use token to one operation, one card, one session key and one proof. Empty fields do not narrow.
type Bind struct {
	Operation   policy.Operation
	Card        string
	User        string
	SessionHash [32]byte
	Nonce       [32]byte
	TTL         time.Duration // the token's life
}

// Challenge is what a challenge.mint is for.
type Challenge struct {
	Method string           // policy.MethodSIWE, policy.MethodWebAuthn or policy.MethodEIP712
	User   string           // whose login it is; "" is whoever signs, or the proven user's consent
	For    policy.Operation // what the proven user is to sign for: policy.MethodEIP712
}

// Fields is what a session of hosted fields is for.
type Fields struct {
	Terminal    string // where payments are processed: one of the partner's
	Scenario    string // "payment" or "tokenization"
	Library     string // the version of the page's library
	SecureToken string // "" where there is none
	TTL         time.Duration
}

// Submission is one thing of a card that a page submits: a field, or a detail. It is in a body that the vault read.
type Submission struct {
	Field  vault.Field  // zero where it is a detail
	Member string       // where the field stands in Request.Clear, as a JSON pointer
	Detail vault.Detail // zero where it is a field
	Text   string       // the detail
}

// Signed is a signature over a challenge, as it came: judged by package credential.
type Signed struct {
	Method    string
	User      string // the credential that is said to have signed; "" is the proven user's
	Message   string // policy.MethodSIWE, where the caller sent it
	Signature string // policy.MethodSIWE
	Assertion []byte // policy.MethodWebAuthn: a PublicKeyCredential as JSON
}

// Forward is a call that is carried to the issuer's API as it is, but for declared fields.
type Forward struct {
	Call   *ForwardCall
	Path   string      // escaped, as the issuer's base has it
	Query  string      // raw, as it came
	Body   *vault.Body // nil where the call has none
	Sealed bool        // the caller brought a session, and gets declared fields sealed for it
	Paid   bool        // the body names a held card at Call.Token
}

// ForwardCall is what a route declares of a call that it forwards. It is made at load.
type ForwardCall struct {
	Name    string // method and pattern, in policies and audit: "GET /deals/{id}"
	Method  string
	Pattern string            // as in net/http.ServeMux, without method and host
	Bind    map[string]string // wildcards of the pattern that must be the caller's own: "account" or "partner" [3]
	Changes bool              // whether the issuer's state may change: recorded before and after, never sent twice [17]
	Without WithoutSession    // what becomes of declared fields without a session; never empty

	// Request and Response are how the bodies are read, with what is declared in Submit and Fields: by JSON pointer, the
	// sensitive fields of the request and of the answer. Request is nil where the method has no body.
	Request, Response *vault.Shape
	Submit, Fields    map[string]vault.Field

	// Token is where the request names a card that is held, as {"type","token"}, by JSON pointer; "" is nowhere. The card goes to
	// the issuer in its place [11].
	Token string

	// Terminal is where the request names a processing terminal, by JSON pointer, which must be one of the partner's; "" is nowhere.
	Terminal string
}

// WithoutSession is what becomes of declared fields where the caller brought no session [13].
type WithoutSession string

// The modes.
const (
	WithoutMask   WithoutSession = "mask"   // they are masked
	WithoutRefuse WithoutSession = "refuse" // the call is refused before it is sent
	WithoutClear  WithoutSession = "clear"  // they leave as they came: named, and in the inventory
)

// Result is what came of a call, in canonical form. Only what was asked for and permitted is filled in.
type Result struct {
	Card Card

	// PAN, CVC and PIN are sealed for the client. PINSet tells "no PIN set" (false) from one that is in PIN.
	PAN, CVC, PIN vault.Sealed
	PINSet        bool

	// Token and Expires are of a mint. A session.mint and session.refresh give Refresh beside it where there is one.
	Token   string
	Refresh string
	Expires time.Time
	Account string // of a session.mint, session.refresh and session.check: whose session it is
	Scope   string // of a session.mint whose session has one

	// Challenge is of a challenge.mint.
	Challenge ChallengeText

	// Provision is of a card.provision.
	Provision Provision

	// Session is of a fields.read, Network of a field.submit that was a card number.
	Session Fields
	Network vault.Network

	// Forward is of a forward.
	Forward *Forwarded
}

// ChallengeText is a challenge to sign.
type ChallengeText struct {
	ID      string // what presents it; "" where the signed text does
	Method  string
	Account string // of a login, the credential that is to sign, "" is any; of a consent, the account that is to be linked
	Message string // policy.MethodSIWE: the message; policy.MethodWebAuthn: the statement, of a consent
	Options []byte // policy.MethodWebAuthn: PublicKeyCredentialRequestOptionsJSON, of a login; policy.MethodEIP712: the typed data
	Expires time.Time
}

// Provision is what puts a card into a wallet. The secret is a one-time password.
type Provision struct{ ID, Secret string }

// Forwarded is an issuer's answer to a forward.
type Forwarded struct {
	Status      int
	ContentType string
	RetryAfter  int             // seconds; zero is none
	Message     *vault.Outgoing // the face hands it on in Response.Clear
}

// Card is the part of a card that may be shown: what is printed in emails and apps, never enough to pay with.
type Card struct {
	ID          string // the caller's reference
	LastFour    string // four digits
	ExpiryMonth string // "01" to "12"
	ExpiryYear  string // four digits
	Status      CardStatus
	Holder      string // display name of the cardholder
	Limit       Limit
	Product     string
	Mode        int    // how purchases are settled, as the user chose
	BIN         string // first six or eight digits, where the issuer says them
	PINStatus   string // the issuer's word, where it has one
}

// Limit is an issuer's spending limit: an amount in the card's minor unit, per Frequency (the issuer's word for a period).
type Limit struct {
	Amount    int64
	Frequency string
}

// CardStatus is whether a card can be used.
type CardStatus uint8

// The states of a card. The zero value is no state at all.
const (
	_ CardStatus = iota
	Active
	Frozen
	Cancelled
	Inactive // issued, not activated yet
)

// Response is a face's answer. The body is written as it stands, never compressed: it may carry a secret.
type Response struct {
	Status      int
	ContentType string
	RetryAfter  int    // seconds; zero sends no header
	Allow       string // of a 405
	Header      []HeaderField
	Immutable   bool // what is at this path never changes: the answer may be kept for ever
	Body        []byte

	// Splices are fields in clear that belong into Body, which lacks them: the vault puts them in, and the whole is Clear.
	Splices []vault.Splice

	// Clear stands in place of Body. Whoever has the Response destroys it.
	Clear *vault.Outgoing
}

// HeaderField is a header of a Response, beside those that every answer has, or in place of one.
type HeaderField struct{ Name, Value string }

// Reset makes a Response ready for another answer, and keeps the memory of its body.
func (r *Response) Reset() {
	r.Clear.Destroy()
	*r = Response{Body: r.Body[:0]}
}

// SessionHash is SHA-256 of a session preamble's text exactly as sent: what a token can be bound to [6].
func SessionHash(text string) [32]byte { return sha256.Sum256([]byte(text)) }

// ParseSessionHash reads a session hash as a mint's body carries it: 43 characters of base64url without padding.
func ParseSessionHash(s string) ([32]byte, error) {
	var hash [32]byte
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	// The decoder skips line breaks: a hash has one text, so its length is judged too.
	if err != nil || len(s) != base64.RawURLEncoding.EncodedLen(len(hash)) || len(raw) != len(hash) || [32]byte(raw) == hash {
		return hash, errors.New("session hash: want 43 characters of base64url, of a SHA-256")
	}
	return [32]byte(raw), nil
}
