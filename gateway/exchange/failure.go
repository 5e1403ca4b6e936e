package exchange

import "fmt"

// Kind is what went wrong, as far as a caller may know it. Each face has an answer for every kind; why exactly it went
// wrong stays inside, in Failure.Reason.
type Kind uint8

// The kinds of failure. The zero value is Internal's alias for callers' eyes: an unknown error is an opaque 500.
const (
	Internal          Kind = iota
	BadRequest             // the request does not follow the face's contract
	BadSession             // the session preamble cannot be read or opened, whatever the reason
	Unauthorized           // no credential, or one that is not accepted, whatever the reason
	Forbidden              // a known partner that may not do this, or a verified certificate of nobody we know
	NoAccount              // a proven user who has no account with the issuer
	NotFound               // a card that does not exist, or somebody else's: the same
	NoRoute                // a path that no face serves
	MethodNotAllowed       // a path that this method does not reach
	TooLarge               // a body beyond the limit
	UnsupportedMedia       // a body of another type than the face takes
	WeakPIN                // a PIN that is too easy to guess
	LimitReached           // a rate limit
	Unavailable            // shed, or something that the answer depends on is down; nothing was released
	IssuerFailed           // the issuer's answer cannot be used
	IssuerTimeout          // the issuer did not answer in time, and nothing was changed
	OutcomeUnknown         // a change was sent and no answer came: it may or may not have happened [17]
	InFlight               // the same idempotent call is still being made
	OtherBody              // the idempotency key came with another body
	KeyExpired             // the idempotency key was used, and what it was answered is not kept any more
	AlreadySet             // what is asked for is so already
	ChallengeMissing       // nothing says which challenge was signed
	ChallengeUnknown       // a challenge that is not there, was taken, or is too old: the same
	CredentialUnknown      // a login of nobody we know
	BadSignature           // a signature that does not verify, whatever the reason
	BadCard                // a card that the issuer does not accept
	KindCount              // how many there are
)

// Kinds returns every kind, for faces' tables and their tests.
func Kinds() []Kind {
	all := make([]Kind, KindCount)
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

var kindNames = [KindCount]string{"internal", "bad_request", "bad_session", "unauthorized", "forbidden", "no_account", "not_found",
	"no_route", "method_not_allowed", "too_large", "unsupported_media", "weak_pin", "limited", "unavailable", "issuer_failed",
	"issuer_timeout", "outcome_unknown", "in_flight", "other_body", "key_expired", "already_set", "challenge_missing", "challenge_unknown",
	"credential_unknown", "bad_signature", "bad_card"}

// String returns the kind's name in metrics: a closed set.
func (k Kind) String() string {
	if k < KindCount {
		return kindNames[k]
	}
	return kindNames[Internal]
}

// Failure ends an exchange. Kind and At are for the caller, Reason (from closed sets) for audit and metrics, Err for nobody
// but the log; none of them quotes a secret.
type Failure struct {
	Kind       Kind
	At         Place // where in the request, for a BadRequest
	Reason     string
	RetryAfter int    // seconds, for LimitReached and Unavailable
	Rule       string // the policy that decided, where one did
	Err        error
}

// Error implements error.
func (f *Failure) Error() string {
	if f.Err != nil {
		return fmt.Sprintf("%s (%s): %v", f.Kind, f.Reason, f.Err)
	}
	return fmt.Sprintf("%s (%s)", f.Kind, f.Reason)
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Place is what a BadRequest is about, for faces whose errors say so. Name is a constant of the code.
type Place struct {
	In   string // "path", "query", "body", "header"
	Name string
}

// Wrong returns a BadRequest that says where.
func Wrong(in, name, reason string) *Failure {
	return &Failure{Kind: BadRequest, At: Place{in, name}, Reason: reason}
}

// Fail returns a failure of a kind with its reason.
func Fail(kind Kind, reason string) *Failure { return &Failure{Kind: kind, Reason: reason} }
