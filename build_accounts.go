package main

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"regexp"

	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/vault/keys"
)

// This file resolves partners' service accounts.

// accountID is how accounts are named: callers' spelling is made this one before it is looked up.
var accountID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func (b *builder) loadAccounts() {
	for i := range b.config.Partners {
		p := &b.config.Partners[i]
		for j := range p.Accounts {
			b.account(fmt.Sprintf("partners[%d].accounts[%d]", i, j), p, &p.Accounts[j])
		}
	}
}

func (b *builder) account(at string, p *PartnerConfig, c *AccountConfig) {
	before := len(b.problems)
	a := credential.Account{
		ID: c.ID, Partner: p.ID, Environment: c.Environment, Login: c.Login, Requests: c.Requests,
	}
	if a.Environment == "" {
		a.Environment = p.Environment
	}
	a.Environment = b.environment(at+".environment", a.Environment)
	if a.Login == "" {
		a.Login = credential.LoginSignature
	}
	if a.Requests == "" {
		a.Requests = credential.RequestsOff
	}
	if !accountID.MatchString(c.ID) {
		b.problem(at+".id", "want a UUID in lower case")
	}
	if len(c.PublicKeys) == 0 {
		b.problem(at+".public_keys", "required: the PEM files of its public keys")
	}
	for k, file := range c.PublicKeys {
		key := fmt.Sprintf("%s.public_keys[%d]", at, k)
		content, ok := b.read(key, file)
		if !ok {
			continue
		}
		public, err := keys.ParsePublicPEM(content)
		if err != nil {
			b.problem(key, "%v", err)
			continue
		}
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			b.problem(key, "%v", err)
			continue
		}
		a.Keys = append(a.Keys, credential.AccountKey{SPKI: sha256.Sum256(der), Public: public})
	}
	for name := range c.Issuers {
		if _, ok := b.config.Issuers[name]; !ok {
			b.problem(at+".issuers."+name, "no issuer has this name (known: %s)", known(b.config.Issuers))
		}
	}
	if a.Login == credential.LoginSignature {
		b.notice("%s: login: signature: whoever captured a signed login can repeat it; private_key_jwt leaves nothing to repeat", at)
	}
	if a.Login == credential.LoginPublicKey {
		b.notice("%s: login: public_key: whoever has seen the account's public key can log in; its sessions are of low assurance", at)
	}
	if len(b.problems) > before || b.partners == nil {
		return
	}
	// Each is added by itself, so that what is wrong with it is said at its line.
	all, err := credential.NewAccounts(append(b.accounts, a))
	if err == nil && b.partners.ByID(p.ID) != nil { // else its partner's problem was told
		err = all.Validate(b.partners)
	}
	if err != nil {
		b.foreign(at, err)
		return
	}
	b.accounts = append(b.accounts, a)
}

// jwks is the set of public keys that a route's access tokens are signed with.
func (b *builder) jwks(at string, of []*keys.Key) []byte {
	if len(of) == 0 {
		return nil
	}
	public, err := jwtKeys(of)
	if err != nil {
		b.problem(at+".jwt_key", "%v", err)
		return nil
	}
	return credential.JWKS(public...)
}

// checkLogins refuses accounts whose way to log in no route offers.
func (b *builder) checkLogins() {
	takes := false
	var assertions, certificates bool
	for _, r := range b.config.Routes {
		kind, err := face.Lookup(r.Face)
		if err != nil || !kind.Takes(policy.KindPublicKey) {
			continue
		}
		takes = true
		assertions = assertions || len(r.TokenURL) > 0
		certificates = certificates || b.asksCertificates(r.Listener)
	}
	if !takes {
		return
	}
	for i, p := range b.config.Partners {
		for j, a := range p.Accounts {
			at := fmt.Sprintf("partners[%d].accounts[%d].login", i, j)
			if a.Login == credential.LoginPrivateKeyJWT && !assertions {
				b.problem(at, "no route has a token_url, which an assertion has to name")
			}
			if a.Login == credential.LoginCertificate && !certificates {
				b.problem(at, "no route of its face is on a listener with client_ca or host_client_ca")
			}
		}
	}
}
