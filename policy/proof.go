package policy

import "time"

// Proof is what a credential turned out to say. A face or the gateway never
// makes one: only package credential does, after it has verified something.
type Proof struct {
	Kind    Kind
	Partner string // the partner that the credential belongs to; "" where it names none
	User    string // the user that it names; "" where it names none

	// Environment is "test" or "production", or "" for a credential that is
	// of no environment. It never meets the other one [5].
	Environment string

	// Certificate is the SHA-256 of the leaf's DER, for KindCertificate.
	Certificate [32]byte

	// Key is the SHA-256 of the SubjectPublicKeyInfo's DER of the account's key
	// that was shown, for KindPublicKey, or signed with, for KindSignature; zero
	// for other kinds.
	Key [32]byte

	// Grant is what a redeemed token stands for, for KindToken and, with what it
	// holds, for KindCardToken.
	Grant *Grant

	// Card is the card that the credential is for, beside its user; "" where it
	// names none. It only narrows: nothing about another card, or about none, is
	// done with it.
	Card string

	// Scope is what the credential may be used for, as words with spaces between
	// them (RFC 6749 section 3.3); "" where it has no limits of that sort.
	Scope string

	// Account is the service account of the partner that the credential
	// belongs to; "" where it names none.
	Account string

	// Weak says that nothing but a public key was shown: for a KindPublicKey, and
	// for a KindJWT or KindRefresh of a login that had no more.
	Weak bool

	// Expires is when a KindJWT ends; zero for other kinds.
	Expires time.Time

	// Minted says that the credential is one that we minted for the partner, of
	// its generation at that time, and is dead where that is not the partner's
	// any more [20].
	Minted     bool
	Generation uint64

	// ID tells the credential from others of its kind, for limits: the id of
	// a key, never a part of a secret. "" is a credential that is used once.
	ID string
}

// Assurance is how much the proofs of an exchange are worth together: as much
// as the best of them.
type Assurance string

// The levels. Policies compare them with ==.
const (
	AssuranceNone Assurance = "none" // anonymous
	AssuranceLow  Assurance = "low"  // a public key, which anybody may have [23]
	AssuranceHigh Assurance = "high" // a secret or a private key was used
)

func assuranceOf(proofs []Proof) Assurance {
	found := AssuranceNone
	for i := range proofs {
		switch p := &proofs[i]; {
		case p.Kind == KindJWT && p.Weak, p.Kind == KindRefresh && p.Weak:
			// A signature over a request does not lift a session: whoever captured one can send it again.
			return AssuranceLow
		case p.Kind == KindPublicKey && found == AssuranceNone:
			found = AssuranceLow
		case p.Kind != KindPublicKey:
			found = AssuranceHigh
		}
	}
	return found
}

// provesUser reports whether the proof speaks for the cardholder by itself. A
// token does not: the partner put the user's name into it at mint [1].
func (p *Proof) provesUser() bool {
	return p.User != "" && p.Kind != KindToken && p.Kind != KindCardToken
}
