package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
)

// This file finds callers who would be one to an issuer. What one of them calls for, the others can too [3]; so that this has to be
// said. Keys are compared by what they are, wherever they stand.

// apiKeys are the credentials for one issuer.
type apiKeys struct {
	own      string
	partners map[string]string // by partner id
	accounts map[string]string // by service account id
}

// sharers are ids by the key that they act under.
type sharers map[string][]string

// add leaves out a key that could not be read, which has a problem of its own.
func (s sharers) add(key, id string) {
	if key != "" && !slices.Contains(s[key], id) {
		s[key] = append(s[key], id)
	}
}

// groups are those of several ids, in order.
func (s sharers) groups() (all []string) {
	for _, ids := range s {
		if len(ids) > 1 {
			all = append(all, strings.Join(ids, ", "))
		}
	}
	slices.Sort(all)
	return all
}

// checkSharing refuses several partners, or service accounts whose calls are forwarded, behind one credential, unless that is said.
func (b *builder) checkSharing() {
	for _, name := range slices.Sorted(maps.Keys(b.config.Issuers)) {
		if b.config.Issuers[name].SharedCredential {
			b.notice("issuers.%s: shared_credential: several partners, or service accounts, may act under one API key", name)
			continue
		}
		keys, partners, accounts := b.apiKeys[name], sharers{}, sharers{}
		for _, p := range b.config.Partners {
			key := keys.own
			if _, own := p.Issuers[name]; own {
				key = keys.partners[p.ID]
			}
			if b.reaches(p, name) {
				partners.add(key, p.ID)
			}
			if !b.forwardsTo(name) {
				continue
			}
			for _, a := range p.Accounts {
				key := key
				if _, own := a.Issuers[name]; own {
					key = keys.accounts[a.ID]
				}
				accounts.add(key, a.ID)
				partners.add(key, p.ID)
			}
		}
		for _, group := range partners.groups() {
			b.problem("issuers."+name, "partners %s would share one API key: give each its own (partners[].issuers.%s.api_key_file), or say shared_credential: true",
				group, name)
		}
		for _, group := range accounts.groups() {
			b.problem("issuers."+name, "accounts %s would share one API key: give each its own (partners[].accounts[].issuers.%s.api_key_file), or say shared_credential: true",
				group, name)
		}
	}
}

// forwardsTo reports whether a route forwards calls to an issuer.
func (b *builder) forwardsTo(issuerName string) bool {
	return slices.ContainsFunc(b.config.Routes, func(r RouteConfig) bool { return r.Issuer == issuerName && len(r.Forward) > 0 })
}

// reaches reports whether a partner can come to an issuer by some route.
func (b *builder) reaches(p PartnerConfig, issuerName string) bool {
	return slices.ContainsFunc(b.config.Routes, func(r RouteConfig) bool {
		return r.Issuer == issuerName && (r.Partner == p.ID || r.Partner == "" && b.calls(p, r.Face))
	})
}

// calls reports whether a partner has what callers of a face prove themselves with.
func (b *builder) calls(p PartnerConfig, name string) bool {
	kind, err := face.Lookup(name)
	switch {
	case err != nil:
		return false
	case kind.Takes(policy.KindPublicKey):
		return len(p.Accounts) > 0
	case kind.Takes(policy.KindAPIKey):
		return b.credentials == nil || slices.Contains(b.credentials.Partners(), p.ID)
	}
	return p.Certificate != nil
}
