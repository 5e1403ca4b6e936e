package policy

// Reasons of a Refused. The set is closed: it is a label of metrics and a word
// in audit records. A caller is told none of them.
const (
	RefusedMalformed   = "malformed"   // not the credential's form
	RefusedUnknown     = "unknown"     // well-formed, but nobody's; revoked ones too
	RefusedSpent       = "spent"       // used before
	RefusedExpired     = "expired"     // too old, or not yet valid
	RefusedRevoked     = "revoked"     // of an older generation than its partner's, or the partner is disabled [20]
	RefusedFenced      = "fenced"      // minted under another tenure of the store [9]
	RefusedBound       = "bound"       // good for something else
	RefusedPartner     = "partner"     // names a partner that is not configured, or another one
	RefusedEnvironment = "environment" // of another environment [5]
	RefusedCertificate = "certificate" // a subject, chain or pin that is not acceptable [4]
	RefusedUser        = "user"        // names a user that is not known, or another one
	RefusedSignature   = "signature"   // the signature does not verify
	RefusedLogin       = "login"       // signed, but the login is over [21]
)

// Refused says that a credential proves nothing. It is about the credential,
// never about our own health: a store that cannot answer is another error.
type Refused struct {
	Kind   Kind
	Reason string // one of the constants above

	// Detail is for the operator's log: constant text, never a part of the
	// credential. It may be empty.
	Detail string

	// Cause is what the store said, where the reason comes of it. Of "spent" it
	// is a *store.Spent: who was first, and when. Nil otherwise.
	Cause error
}

// Unwrap returns the cause.
func (r *Refused) Unwrap() error { return r.Cause }

// Error names kind, reason and detail.
func (r *Refused) Error() string {
	text := "refused " + string(r.Kind) + ": " + r.Reason
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	return text
}
