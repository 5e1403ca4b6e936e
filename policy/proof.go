package policy

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

	// Grant is what a redeemed token stands for, for KindToken.
	Grant *Grant
}

// provesUser reports whether the proof speaks for the cardholder by itself. A
// token does not: the partner put the user's name into it at mint [1].
func (p *Proof) provesUser() bool { return p.User != "" && p.Kind != KindToken }
