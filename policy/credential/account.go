package credential

import (
	"cmp"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/policy"
)

// Values of Account.Login: what an account has to show to log in. What is
// stronger suffices as well.
const (
	LoginPublicKey     = "public_key"      // its public key, which anybody may have: a compatibility mode [23]
	LoginSignature     = "signature"       // a signature over the request; who captured one can repeat it
	LoginPrivateKeyJWT = "private_key_jwt" // a signed assertion that is good once (RFC 7523 section 3)
	LoginCertificate   = "certificate"     // its public key, over a connection with a client certificate of its partner
)

// Values of Account.Requests: whether its calls are signed.
const (
	RequestsOff      = "off"      // signatures are not looked at
	RequestsOptional = "optional" // where there is one, it must be good
	RequestsRequired = "required" // there must be one, and it must be good
)

// Keys of accounts, in bits. One that is longer takes more time to verify with
// than a stranger should be able to ask for.
const (
	accountKeyMinBits = 2048 // [23]
	accountKeyMaxBits = 8192
)

// Account is a service account of a partner. It is immutable once it is part of
// an Accounts; a reload replaces the whole registry.
type Account struct {
	ID          string // letters, digits, ".", "_", "-"; at most 64
	Partner     string
	Environment string       // "test" or "production" [5]
	Keys        []AccountKey // at least one; several while they rotate, all as good
	Login       string       // LoginPublicKey and so on; there is no default
	Requests    string       // RequestsOff and so on; there is no default
}

// AccountKey is a public key of an account.
type AccountKey struct {
	SPKI   policy.Fingerprint // SHA-256 of the SubjectPublicKeyInfo's DER
	Public *rsa.PublicKey     // 2048 to 8192 bits
}

// AccountSource finds accounts. It does not block and is safe for concurrent
// use.
type AccountSource interface {
	// Account returns the account with exactly that id; false where there is
	// none, or none any more. The account is shared, and not to be changed.
	Account(id string) (*Account, bool)
}

// Accounts is the registry of service accounts. It is immutable and safe for
// concurrent use.
type Accounts struct {
	byID map[string]*Account

	// decoy stands in for an account that is not there, so that it takes as
	// long to refuse as a wrong key; nil where there are no accounts.
	decoy *Account
}

var _ AccountSource = (*Accounts)(nil)

// NewAccounts checks the accounts and indexes them. Every problem is reported.
// Whether their partners are configured is Validate's to check.
func NewAccounts(list []Account) (*Accounts, error) {
	a := &Accounts{byID: make(map[string]*Account, len(list))}
	var problems []error
	for i := range list {
		account := list[i]
		account.Keys = slices.Clone(account.Keys)
		for _, problem := range account.problems() {
			problems = append(problems, fmt.Errorf("account %.64q: %s", account.ID, problem))
		}
		if a.byID[account.ID] != nil {
			problems = append(problems, fmt.Errorf("account %.64q: two accounts have this id", account.ID))
		}
		a.byID[account.ID] = &account
		if i == 0 {
			a.decoy = &account
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return a, nil
}

// problems says what is wrong with an account by itself.
func (a *Account) problems() (problems []string) {
	if !entryName(a.ID) {
		problems = append(problems, "the id is missing, or has other characters than letters, digits, dots, underscores and hyphens")
	}
	if a.Partner == "" {
		problems = append(problems, "the partner is missing")
	}
	if !validEnvironment(a.Environment) {
		problems = append(problems, `the environment must be "test" or "production"`)
	}
	logins := []string{LoginPublicKey, LoginSignature, LoginPrivateKeyJWT, LoginCertificate}
	if !slices.Contains(logins, a.Login) {
		problems = append(problems, fmt.Sprintf("login must be one of %q", logins))
	}
	requests := []string{RequestsOff, RequestsOptional, RequestsRequired}
	if !slices.Contains(requests, a.Requests) {
		problems = append(problems, fmt.Sprintf("requests must be one of %q", requests))
	}
	if len(a.Keys) == 0 {
		problems = append(problems, "there is no public key")
	}
	for i, key := range a.Keys {
		if problem := key.problem(); problem != "" {
			problems = append(problems, fmt.Sprintf("public key %d: %s", i+1, problem))
		}
	}
	return problems
}

// problem says what is wrong with a key, or "".
func (k *AccountKey) problem() string {
	if k.Public == nil || k.Public.N == nil {
		return "it is missing"
	}
	if bits := k.Public.N.BitLen(); bits < accountKeyMinBits || bits > accountKeyMaxBits {
		return fmt.Sprintf("it has %d bits; %d to %d are accepted", bits, accountKeyMinBits, accountKeyMaxBits)
	}
	if e := k.Public.E; e < 3 || e&1 == 0 {
		return "its exponent is even, or less than 3"
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public)
	if err != nil || sha256.Sum256(der) != k.SPKI {
		return "its fingerprint is not its own"
	}
	return ""
}

// Validate checks that the accounts belong to configured partners, in the
// partner's environment. Every problem is reported.
func (a *Accounts) Validate(partners *policy.Partners) error {
	var problems []error
	for _, account := range a.All() {
		partner := partners.ByID(account.Partner)
		switch {
		case partner == nil:
			problems = append(problems, fmt.Errorf("account %q: partner %q is not configured", account.ID, account.Partner))
		case partner.Environment != account.Environment:
			problems = append(problems, fmt.Errorf("account %q is of environment %q, its partner %q of %q",
				account.ID, account.Environment, account.Partner, partner.Environment))
		}
	}
	return errors.Join(problems...)
}

// Account returns the account with exactly that id. It is shared, and not to be
// changed.
func (a *Accounts) Account(id string) (*Account, bool) {
	if a == nil {
		return nil, false
	}
	account, ok := a.byID[id]
	return account, ok
}

// All returns the accounts in the order of their ids.
func (a *Accounts) All() []*Account {
	if a == nil {
		return nil
	}
	all := slices.Collect(maps.Values(a.byID))
	slices.SortFunc(all, func(x, y *Account) int { return strings.Compare(x.ID, y.ID) })
	return all
}

// orDecoy returns the account, or what takes as long to refuse; nil where there
// are no accounts at all, about which there is nothing to learn.
func (a *Accounts) orDecoy(id string) (account *Account, known bool) {
	if account, known = a.Account(id); known || a == nil {
		return account, known
	}
	return a.decoy, false
}

// ProvePublicKey proves an account by the fingerprint of one of its public
// keys: the SHA-256 of its SubjectPublicKeyInfo's DER. Anybody may have it, and
// so the proof is weak [23].
//
// Refused as "unknown", whether there is no such account or it has another key.
// Neither can be told from the other by the time that it takes, but for the
// number of an account's keys.
func (a *Accounts) ProvePublicKey(id string, spki policy.Fingerprint) (policy.Proof, error) {
	account, known := a.orDecoy(id)
	matches := 0
	if account != nil {
		for _, key := range account.Keys {
			matches |= subtle.ConstantTimeCompare(key.SPKI[:], spki[:])
		}
	}
	if !known || matches != 1 {
		return policy.Proof{}, refuse(policy.KindPublicKey, policy.RefusedUnknown, "")
	}
	proof := account.proof(policy.KindPublicKey, idOf(policy.KindPublicKey, id))
	proof.Weak, proof.Key = true, spki
	return proof, nil
}

// has reports whether one of the account's keys, as it is now, is such a one.
func (a *Account) has(key func(policy.Fingerprint) bool) bool {
	return slices.ContainsFunc(a.Keys, func(k AccountKey) bool { return key(k.SPKI) })
}

// proof is the account's proof of a kind.
func (a *Account) proof(kind policy.Kind, id string) policy.Proof {
	return policy.Proof{Kind: kind, Partner: a.Partner, Account: a.ID, Environment: a.Environment, ID: id}
}

// Suffices reports whether proofs log an account in, as its Login asks. What
// proves another account does not count. certificate is the partner that the
// connection's client certificate proves, or "".
//
// weak says that it logs in by its public key alone: what is minted for it then
// is weak as well.
func (a *Accounts) Suffices(id string, proofs []policy.Proof, certificate string) (weak, ok bool) {
	account, known := a.Account(id)
	if !known {
		return false, false
	}
	var public, signed, asserted bool
	for i := range proofs {
		switch p := &proofs[i]; {
		case p.Account != id || p.Partner != account.Partner:
		case p.Kind == policy.KindPublicKey:
			public = true
		case p.Kind == policy.KindSignature && p.ID == clientAssertionID(id):
			asserted = true
		case p.Kind == policy.KindSignature:
			signed = true
		}
	}
	certified := (public || signed || asserted) && certificate == account.Partner
	switch account.Login {
	case LoginPublicKey:
		ok = public || signed || asserted
	case LoginSignature:
		ok = signed || asserted
	case LoginPrivateKeyJWT:
		ok = asserted
	case LoginCertificate:
		ok = certified
	}
	return ok && !signed && !asserted && !certified, ok
}

// LoginKey is the key that proofs log an account in with, for Families.Begin:
// the one that an assertion was signed with, else a request, else the one that
// was shown. It is zero, which begins nothing, if no proof is of that account.
func LoginKey(id string, proofs []policy.Proof) [32]byte {
	var public, signed, asserted [32]byte
	for i := range proofs {
		switch p := &proofs[i]; {
		case p.Account != id:
		case p.Kind == policy.KindPublicKey:
			public = p.Key
		case p.Kind == policy.KindSignature && p.ID == clientAssertionID(id):
			asserted = p.Key
		case p.Kind == policy.KindSignature:
			signed = p.Key
		}
	}
	return cmp.Or(asserted, signed, public)
}
