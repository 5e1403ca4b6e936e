package main

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/keys"
)

// This file resolves the issuers behind us.

func (b *builder) loadIssuers() {
	for _, name := range slices.Sorted(maps.Keys(b.config.Issuers)) {
		c, at := b.config.Issuers[name], "issuers."+name
		before := len(b.problems)
		environment := b.environment(at+".environment", c.Environment)
		kind, err := issuer.Lookup(c.Kind)
		if err != nil {
			b.problem(at+".kind", "%v", err)
			continue
		}
		config := gateway.IssuerConfig{
			Name: name, Kind: kind, Timeout: c.Timeout, Concurrent: c.Concurrent, MaxBytes: b.config.Limits.AnswerBytes,
			PartnerCredentials: b.partnerCredentials(name), AccountCredentials: b.accountCredentials(name),
			Shared: c.SharedCredential,
		}
		config.URL, config.TLS = b.issuerURL(at, c, environment)
		config.Pins = b.pins(at, c.Pins)
		config.Destinations = b.destinations(at, c, config.URL, environment)
		config.Credential, _ = b.secret(at+".api_key_file", c.APIKeyFile)
		b.apiKeys[name] = apiKeys{config.Credential, config.PartnerCredentials, config.AccountCredentials}
		config.SessionKey = b.issuerKey(at, c, kind)
		if len(b.problems) > before {
			continue
		}
		if b.issuers[name], err = gateway.NewIssuer(config); err != nil {
			b.problem(at, "%v", err)
		}
	}
}

func (b *builder) issuerURL(at string, c IssuerConfig, environment string) (*url.URL, *tls.Config) {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		b.problem(at+".url", "want a URL of scheme, host and perhaps a path, without user, query or fragment")
		return nil, nil
	case !b.checkPort(at+".url", u):
		return nil, nil
	case u.Scheme == "http" && environment == "test" && loopback(u.Hostname()):
		b.notice("%s.url: plain HTTP", at)
		if len(c.Pins) > 0 {
			b.problem(at+".pins", "plain HTTP has no certificate")
		}
		return u, nil
	case u.Scheme != "https":
		b.problem(at+".url", "want https")
		return nil, nil
	}
	config := gateway.ClientTLS(nil)
	if c.CA != "" {
		config.RootCAs = pool(b.authorities(at+".ca", c.CA))
	}
	if c.Certificate != "" || c.Key != "" {
		if pair, ok := b.certificate(at, c.Certificate, c.Key); ok {
			config.Certificates = []tls.Certificate{pair}
		}
	}
	return u, config
}

// destinations are where connections to an issuer may go.
func (b *builder) destinations(at string, c IssuerConfig, u *url.URL, environment string) gateway.Destinations {
	d := gateway.Destinations{Listed: c.Destinations, Loopback: environment == "test"}
	for i, network := range c.Destinations {
		if err := gateway.CheckDestination(network); err != nil {
			b.problem(fmt.Sprintf("%s.destinations[%d]", at, i), "%v", err)
		}
	}
	if u == nil {
		return d
	}
	if named, err := netip.ParseAddr(u.Hostname()); err == nil {
		if d.Named = named; !d.Allow(named) {
			b.problem(at+".url", "%v is none of the issuer's destinations", named)
		}
	}
	return d
}

func (b *builder) partnerCredentials(name string) map[string]string {
	found := map[string]string{}
	for i, p := range b.config.Partners {
		c, ok := p.Issuers[name]
		if !ok {
			continue
		}
		if key, ok := b.secret(fmt.Sprintf("partners[%d].issuers.%s.api_key_file", i, name), c.APIKeyFile); ok {
			found[p.ID] = key
		}
	}
	return found
}

// accountCredentials are those that service accounts have of their own.
func (b *builder) accountCredentials(name string) map[string]string {
	found := map[string]string{}
	for i, p := range b.config.Partners {
		for j, a := range p.Accounts {
			c, ok := a.Issuers[name]
			if !ok {
				continue
			}
			if key, ok := b.secret(fmt.Sprintf("partners[%d].accounts[%d].issuers.%s.api_key_file", i, j, name), c.APIKeyFile); ok {
				found[a.ID] = key
			}
		}
	}
	return found
}

// issuerInClear is the leg of an API that has card data in clear inside TLS: never a default [12].
func (b *builder) issuerInClear(at string, c IssuerConfig) *vault.IssuerKey {
	if c.Leg != vault.FormatClear {
		b.problem(at+".leg", "an issuer of kind %s has card data in clear inside TLS: say leg: clear", c.Kind)
		return nil
	}
	if c.PublicKey != "" || len(c.Legacy) > 0 {
		b.problem(at+".public_key", "an issuer of kind %s has no sessions", c.Kind)
		return nil
	}
	b.notice("%s: leg: clear: card data comes in clear inside TLS", at)
	return vault.InsecureClearIssuer()
}

func (b *builder) issuerKey(at string, c IssuerConfig, kind issuer.Kind) *vault.IssuerKey {
	if kind.InClear() {
		return b.issuerInClear(at, c)
	}
	if c.Leg != "" {
		b.problem(at+".leg", "an issuer of kind %s has no card data in clear", c.Kind)
	}
	format, err := envelope.ByName(kind.SessionFormat)
	if err != nil {
		panic("internal error: " + err.Error()) // a table of ours
	}
	content, ok := b.read(at+".public_key", c.PublicKey)
	if !ok {
		return nil
	}
	public, err := keys.ParsePublicPEM(content)
	if err != nil {
		b.problem(at+".public_key", "%v", err)
		return nil
	}
	small := slices.Contains(c.Legacy, "rsa-1024")
	for i, name := range c.Legacy {
		if name != "rsa-1024" {
			b.problem(fmt.Sprintf("%s.legacy[%d]", at, i), "unknown primitive (known: rsa-1024)")
		}
	}
	if err := keys.MinBits(public, small); err != nil {
		b.problem(at+".public_key", "%v; where the issuer has no other, name it: legacy: [rsa-1024]", err)
		return nil
	}
	if small {
		b.notice("%s: legacy: rsa-1024, a key of %d bits", at, public.Size()*8)
		b.outside(at+".legacy", outsideRSA1024)
	}
	for _, name := range format.Legacy() {
		b.notice("%s: its sessions (format %s) use %s", at, format.Name(), name)
		b.outside(at+".kind", name)
	}
	key, err := vault.NewIssuerKey(format, public)
	if err != nil {
		b.problem(at+".public_key", "%v", err)
	}
	return key
}
