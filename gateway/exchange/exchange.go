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
	Address  netip.Addr // of the caller, behind listed proxies the one that they name
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

	// Credentials are those presented on the wire. A client certificate is not among them: the connection has it.
	Credentials []policy.Credential

	// Preamble is what the client sent to set up its side of the session; absent where it sent none.
	Preamble vault.Preamble

	// SessionHash is SHA-256 of the preamble's text as sent, zero where there is none [6].
	SessionHash [32]byte

	// PIN is the sealed PIN block of a pin.set.
	PIN vault.Sealed

	// Bind is what a token.mint shall be bound to; the zero value binds to nothing but partner and certificate.
	Bind Bind
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

// Bind narrows a single-use token to one operation, one card and one session key. Empty fields do not narrow.
type Bind struct {
	Operation   policy.Operation
	Card        string
	SessionHash [32]byte
}

// Result is what came of a call, in canonical form. Only what was asked for and permitted is filled in.
type Result struct {
	Card Card

	// PAN, CVC and PIN are sealed for the client. PINSet tells "no PIN set" (false) from one that is in PIN.
	PAN, CVC, PIN vault.Sealed
	PINSet        bool

	// Token and Expires are of a mint.
	Token   string
	Expires time.Time
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
	Body        []byte
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
