package main

import (
	"cmp"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/keys"
)

// This file makes what proves the callers of each route. It needs the store, and so is made anew with each configuration and
// not while one is only checked.

// provers are made of what all routes share.
type provers struct {
	store           store.Store
	vault           *vault.Vault
	digest, storage []*keys.Key
	accounts        *credential.Accounts // nil where there are none
	apiKeys         *credential.APIKeys  // likewise
	jwks            map[string][]byte    // what user_tokens.jwks name, by name
	partners        []string             // the ids of all
}

// make gives a route what its face's callers prove themselves with, and what their logins give.
func (p *provers) make(r *gateway.Route, c *RouteConfig, signing signers) (err error) {
	if len(signing.cookie) > 0 {
		if r.Cookies, err = newCookies(p.store, r.Name, signing.cookie, p.digest, c.StatelessCookies); err != nil {
			return err
		}
	}
	if c.Domain != "" || c.TypedData != nil {
		if r.Challenges, err = p.challenges(r, c); err != nil {
			return err
		}
	}
	if c.UserTokens != nil {
		if r.Users, err = p.users(r, c.UserTokens); err != nil {
			return err
		}
	}
	signers, err := jwtKeys(signing.jwt)
	if err != nil || len(signers) == 0 {
		return err
	}
	if r.Cookies != nil {
		r.Scoped, err = newScoped(r.Environment, c, signers)
		return err
	}
	if r.Hosted != nil {
		return p.hosted(r, c, signers)
	}
	if p.accounts == nil {
		return nil // nobody can log in
	}
	r.Accounts = p.accounts
	if len(c.TokenURL) > 0 {
		if r.Assertions, err = p.assertions(c); err != nil {
			return err
		}
	}
	if r.Families, err = p.families(r.Name); err != nil {
		return err
	}
	r.JWTs, err = credential.NewJWTs(credential.JWTsConfig{
		Issuer: jwtIssuer(c), Audience: cmp.Or(c.JWTAudience, jwtIssuer(c)), Environment: r.Environment, Keys: signers, Families: r.Families,
	})
	return err
}

// jwtIssuer is the `iss` of a route's tokens.
func jwtIssuer(c *RouteConfig) string { return cmp.Or(c.JWTIssuer, "cardstile") }

func jwtKeys(of []*keys.Key) ([]credential.JWTKey, error) {
	var signers []credential.JWTKey
	for _, k := range of {
		signer, err := k.JWT()
		if err != nil {
			return nil, err
		}
		signers = append(signers, signer)
	}
	return signers, nil
}

// The tokens of Exa's wallet extensions. Source: Exa, GET /card/provisioning.
const (
	extensionAudience = "wallet-extension"
	extensionScope    = "card:provisioning"
)

func newScoped(environment string, c *RouteConfig, signers []credential.JWTKey) (*credential.ScopedJWTs, error) {
	return credential.NewScopedJWTs(credential.ScopedConfig{
		Issuer: jwtIssuer(c), Audience: extensionAudience, Scope: extensionScope, Environment: environment, Keys: signers,
	})
}

// challenges are what users of a route sign. Passkeys are good on the route's own domain, and on its origins.
func (p *provers) challenges(r *gateway.Route, c *RouteConfig) (*gateway.Challenges, error) {
	digests, err := ring("challenge", p.digest)
	if err != nil {
		return nil, err
	}
	seals, err := keys.NewSealRing("challenge", p.storage...)
	if err != nil {
		return nil, err
	}
	uses, err := labelled("challenge", p.digest)
	if err != nil {
		return nil, err
	}
	made := &gateway.Challenges{Domain: c.Domain, ChainID: uint64(cmp.Or(c.ChainID, defaultChain)), Wallets: credential.NewWallets(credential.WalletsConfig{})}
	if made.Issued, err = credential.NewChallenges(credential.ChallengesConfig{
		Tokens: p.store, Digests: digests, Seals: seals, Records: p.store, Uses: uses,
	}); err != nil {
		return nil, err
	}
	if t := c.TypedData; t != nil {
		made.Typed = credential.TypedDomain{
			Name: t.Name, Version: cmp.Or(t.Version, "1"), ChainID: uint64(cmp.Or(t.ChainID, defaultTypedChain)),
		}
	}
	if c.Domain == "" {
		return made, nil
	}
	origins := r.Origins
	if len(origins) == 0 {
		origins = []string{"https://" + c.Domain}
	}
	made.Passkeys, err = credential.NewPasskeys(credential.PasskeysConfig{RPID: c.Domain, Origins: origins})
	return made, err
}

// defaultChain is the chain of wallets' messages: OP Mainnet (EIP-155), where Exa's accounts are.
const defaultChain = 10

// defaultTypedChain is the chain of typed data: Gnosis (EIP-155), where Gnosis Pay's accounts are.
const defaultTypedChain = 100

// users proves the users of a route by tokens that others sign.
func (p *provers) users(r *gateway.Route, c *UserTokensConfig) (*credential.UserTokens, error) {
	return credential.NewUserTokens(credential.UserTokensConfig{
		JWKS: p.jwks[c.JWKS], Issuer: c.Issuer, Audience: c.Audience, Environment: r.Environment,
	})
}

// hosted makes what a route of hosted fields keeps, and what its partners call with.
func (p *provers) hosted(r *gateway.Route, c *RouteConfig, signers []credential.JWTKey) (err error) {
	h := r.Hosted
	h.Bearers, err = credential.NewBearers(credential.BearersConfig{
		Issuer: jwtIssuer(c), Audience: cmp.Or(c.JWTAudience, jwtIssuer(c)), Environment: r.Environment, Keys: signers, APIKeys: p.apiKeys,
	})
	if err != nil || c.HostedFields == nil {
		return err
	}
	if h.Sessions, err = p.fieldsSessions(); err != nil {
		return err
	}
	if h.Cards, err = p.cardTokens(); err != nil {
		return err
	}
	h.Holder, err = p.vault.NewHolder(p.storage...)
	return err
}

func (p *provers) fieldsSessions() (*credential.FieldsSessions, error) {
	c := credential.FieldsSessionsConfig{Records: p.store, Calls: p.store}
	var err error
	if c.Digests, err = ring("fields", p.digest); err != nil {
		return nil, err
	}
	if c.Seeds, err = ring("fields seed", p.digest); err != nil {
		return nil, err
	}
	if c.Seals, err = keys.NewSealRing("fields", p.storage...); err != nil {
		return nil, err
	}
	return credential.NewFieldsSessions(c)
}

// cardTokens are those that stand for a card.
func (p *provers) cardTokens() (*credential.Tokens, error) {
	c := credential.TokensConfig{Kind: policy.KindCardToken, Store: p.store, Partners: p.partners}
	var err error
	if c.Digests, err = ring("card token", p.digest); err != nil {
		return nil, err
	}
	if c.Seeds, err = ring("card token seed", p.digest); err != nil {
		return nil, err
	}
	if c.Grants, err = keys.NewSealRing("card grant", p.storage...); err != nil {
		return nil, err
	}
	return credential.NewTokens(c)
}

// labelled are the keyed digests of several keys under one label.
func labelled(label string, digest []*keys.Key) ([]policy.MAC, error) {
	var macs []policy.MAC
	for _, k := range digest {
		mac, err := k.MAC(label)
		if err != nil {
			return nil, err
		}
		macs = append(macs, mac)
	}
	return macs, nil
}

func (p *provers) families(face string) (*credential.Families, error) {
	digests, err := ring("refresh", p.digest)
	if err != nil {
		return nil, err
	}
	sessions, err := keys.NewSealRing("refresh", p.storage...)
	if err != nil {
		return nil, err
	}
	lives, err := labelled("family", p.digest)
	if err != nil {
		return nil, err
	}
	return credential.NewFamilies(credential.FamiliesConfig{
		Face: face, Tokens: p.store, Digests: digests, Sessions: sessions, Records: p.store, Lives: lives, Accounts: p.accounts,
	})
}

func (p *provers) assertions(c *RouteConfig) (*credential.ClientAssertions, error) {
	digests, err := labelled("assertion", p.digest)
	if err != nil {
		return nil, err
	}
	return credential.NewClientAssertions(credential.ClientAssertionsConfig{
		Accounts: p.accounts, Audiences: c.TokenURL, Store: p.store, Digests: digests,
	})
}

func newCookies(s store.Records, face string, signers, digest []*keys.Key, stateless bool) (*credential.Cookies, error) {
	c := credential.CookiesConfig{Face: face, Stateless: stateless}
	for _, k := range signers {
		mac, err := k.RawMAC()
		if err != nil {
			return nil, err
		}
		c.Signers = append(c.Signers, mac)
	}
	if stateless {
		return credential.NewCookies(c)
	}
	var err error
	c.Records = s
	if c.Logins, err = labelled("login", digest); err != nil {
		return nil, err
	}
	return credential.NewCookies(c)
}
