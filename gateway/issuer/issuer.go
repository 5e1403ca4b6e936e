// Package issuer is how backends speak: one file per issuer API that we call. An issuer turns a canonical call into that
// API's requests and its answers into a canonical result, resealing every sensitive field from one leg of the session to
// the other. It decides nothing, and it never sees card data.
package issuer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// Issuer is one issuer API. Issuers are made at load and used by many exchanges at once; they keep no state.
type Issuer interface {
	// Serves reports whether the API can do an operation. A route whose face needs another one stops the start.
	Serves(policy.Operation) bool

	// Do performs a call's operations. It returns the errors of this package, those of the session, and the context's.
	Do(ctx context.Context, up Upstream, c *Call) (*exchange.Result, error)
}

// Call is a call that was permitted, in the issuer's terms.
type Call struct {
	Operations []policy.Operation
	PAN, CVC   bool           // which of the two a card.reveal may show
	Reference  string         // the caller's card reference, for the result
	Card, User string         // the issuer's own ids; User may be empty
	Session    *vault.Session // nil where nothing sealed crosses
	PIN        vault.Sealed   // of a pin.set, sealed by the client

	Status exchange.CardStatus // of a card.status
	Upload vault.Sealed        // of a card.verify, sealed by the client

	Forward *exchange.Forward // of a forward
	Reveal  []policy.Field    // which declared fields of its answer may be shown

	// IdempotencyKey is the caller's, or made of it, for APIs that take one: after a lost record the issuer judges a repetition [28].
	IdempotencyKey string
}

// Has reports whether the call holds an operation.
func (c *Call) Has(op policy.Operation) bool { return slices.Contains(c.Operations, op) }

// Upstream carries a request to one issuer, under that issuer's address, TLS settings, credential, time-out and limits.
// It follows no redirect, sends nothing but what the request names, and never repeats a request that changes something.
// It is safe for concurrent use.
type Upstream interface {
	// RoundTrip fills res, or returns ErrUnreachable, ErrTimeout, ErrLost, ErrTooLarge (all wrapped) or the context's error.
	RoundTrip(ctx context.Context, req *Request, res *Response) error
}

// Request is built, never copied from a caller's.
type Request struct {
	Call    string // the call's name in metrics: a closed set per issuer
	Method  string
	Path    string   // escaped, joined to the issuer's base URL
	Query   string   // raw; it is logged nowhere
	Header  []Header // beside the credential, tracing, and what HTTP itself needs
	Body    []byte   // JSON, or nil
	Changes bool     // whether the issuer's state changes: such a request is never sent twice
	Once    bool     // what the request presents is good once: it is never sent twice either

	// Message stands in place of Body where it may hold card data in clear. RoundTrip destroys it.
	Message *vault.Outgoing

	// Anonymous leaves our credential out, for calls that have one of their own in Header.
	Anonymous bool

	// Shape, where it is not nil, has the vault read the body of an answer that is JSON: Response.Clear. AnyStatus reads those of
	// failures in this way too.
	Shape     *vault.Shape
	AnyStatus bool
}

// Header is one header field.
type Header struct{ Name, Value string }

// Response is an issuer's whole answer. Body is valid until the exchange ends.
type Response struct {
	Status      int
	ContentType string
	RetryAfter  int // seconds; zero where the issuer says none, or a date
	Body        []byte

	// Clear is in place of Body where the request has a shape for it. Whoever made the request closes it.
	Clear *vault.Body
}

// What can go wrong on the way to an issuer. ErrLost and ErrTimeout leave open whether a change was made.
var (
	ErrUnreachable = errors.New("issuer cannot be reached")       // no connection: nothing was sent
	ErrTimeout     = errors.New("issuer did not answer in time")  //
	ErrLost        = errors.New("connection to the issuer broke") // after the request may have been sent
	ErrTooLarge    = errors.New("issuer's answer is too large")

	ErrNoCard  = errors.New("issuer does not know the card")
	ErrRefused = errors.New("issuer refused our request") // its 4xx: our credential, our session, our request
	ErrFailed  = errors.New("issuer failed")              // its 5xx
	ErrAnswer  = errors.New("issuer's answer does not follow its contract")
	ErrWeakPIN = errors.New("issuer refused the PIN as weak")
	ErrBadCard = errors.New("issuer refused the card") // that the cardholder brought
	ErrSet     = errors.New("the card is in that state already")
	ErrGuard   = errors.New("a card number where none was declared") // nothing of the answer is released [16]
)

// Config is what an issuer is made of.
type Config struct{}

// Kind describes an issuer to the configuration.
type Kind struct {
	New func(Config) (Issuer, error)

	// SessionFormat is the envelope of the sessions that the gateway makes with the issuer's public key.
	SessionFormat string

	// CredentialHeader carries the issuer's API key, behind CredentialPrefix.
	CredentialHeader, CredentialPrefix string
}

// InClear reports whether the API has card data in clear inside TLS, which the configuration must say too [12].
func (k Kind) InClear() bool { return k.SessionFormat == vault.FormatClear }

// kinds is the closed set of issuers.
var kinds = map[string]Kind{
	"bridge":    {New: newBridge, SessionFormat: vault.FormatClear, CredentialHeader: "Api-Key"},
	"forward":   {New: newForward, SessionFormat: vault.FormatClear, CredentialHeader: "Authorization", CredentialPrefix: "Bearer "},
	"gnosispay": {New: newGnosisPay, SessionFormat: "gnosis", CredentialHeader: "Authorization", CredentialPrefix: "Bearer "},
	"payroc":    {New: newPayroc, SessionFormat: "rain", CredentialHeader: "Authorization", CredentialPrefix: "Bearer "},
	"rain":      {New: newRain, SessionFormat: "rain", CredentialHeader: "Api-Key"},
}

// Lookup finds an issuer by its name in the configuration. The error lists the known names.
func Lookup(name string) (Kind, error) {
	k, ok := kinds[name]
	if !ok {
		return Kind{}, fmt.Errorf("unknown issuer kind %q (known: %s)", name, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
	return k, nil
}
