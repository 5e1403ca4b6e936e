package main

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/holder"
)

// This file resolves who may call, and what they may do: listeners, partners, credentials, holders, policies.

// loadClientCAs reads whose certificates partners bring.
func (b *builder) loadClientCAs() {
	for _, name := range slices.Sorted(maps.Keys(b.config.Listeners)) {
		c := b.config.Listeners[name]
		if c.TLS.ClientCA != "" {
			b.clientCAs[name] = b.trust("listeners."+name+".tls.client_ca", c.TLS.ClientCA)
		}
		b.loadHostCAs(name, &c)
	}
	if len(b.trusted) == 0 && b.distrusted {
		b.trusted = append(b.trusted, policy.Fingerprint{}) // its problem was told: partners are judged as if there were one
	}
}

// trust reads authorities of partners' certificates.
func (b *builder) trust(key, path string) []*x509.Certificate {
	cas := b.authorities(key, path)
	b.distrusted = b.distrusted || len(cas) == 0
	for _, ca := range cas {
		if f := policy.FingerprintOf(ca); !slices.Contains(b.trusted, f) {
			b.trusted = append(b.trusted, f)
		}
	}
	return cas
}

func (b *builder) loadListeners() {
	if len(b.config.Listeners) == 0 {
		b.problem("listeners", "required: at least one")
	}
	for _, name := range slices.Sorted(maps.Keys(b.config.Listeners)) {
		c, at := b.config.Listeners[name], "listeners."+name
		if name == gateway.AdminListener || name == gateway.ChallengeListener {
			b.problem(at, "the name is taken, by %s", map[string]string{gateway.AdminListener: "admin", gateway.ChallengeListener: "certificates.acme.http_address"}[name])
		}
		b.hostPort(at+".address", c.Address, "host:port, as in :8443")
		if from := c.ProxyProtocol.From; len(from) > 0 {
			b.notice("%s: proxy_protocol: whose address a caller has is what %s says", at, prefixes(from))
		}
		l := gateway.Listener{Name: name, Environment: b.environment(at+".environment", c.Environment), ProxyProtocol: c.ProxyProtocol.From}
		b.serverCertificate(at+".tls", c.TLS, &l)
		l.ClientCAs, l.HostClientCAs = pool(b.clientCAs[name]), b.hostCAs[name]
		l.ClientCAsEnd = firstEnd(slices.Concat(b.clientCAs[name], b.hostAuthorities[name]))
		l.Revocations = b.revocations(name, l.Environment, c.TLS.Revocation)
		b.listeners = append(b.listeners, l)
	}
}

// firstEnd is when the first of some certificates ends; zero where there are none.
func firstEnd(all []*x509.Certificate) (end time.Time) {
	for _, c := range all {
		if end.IsZero() || c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

func prefixes(networks []netip.Prefix) string {
	var names []string
	for _, n := range networks {
		names = append(names, n.String())
	}
	return listed(names)
}

func (b *builder) listener(name string) *gateway.Listener {
	for i := range b.listeners {
		if b.listeners[i].Name == name {
			return &b.listeners[i]
		}
	}
	return nil
}

func (b *builder) loadPartners() {
	var list []policy.Partner
	terminals := map[string]bool{}
	for i, c := range b.config.Partners {
		at := fmt.Sprintf("partners[%d]", i)
		p := policy.Partner{
			ID: c.ID, Disabled: c.Disabled, Environment: b.environment(at+".environment", c.Environment),
			Rate: c.Rate, MaxConcurrent: c.Concurrent,
		}
		if c.Certificate != nil {
			b.partnerCertificate(at+".certificate", c.Certificate, &p)
		}
		list = append(list, p)
		for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
			if _, ok := b.config.Issuers[name]; !ok {
				b.problem(at+".issuers."+name, "no issuer has this name (known: %s)", known(b.config.Issuers))
			}
		}
		for j, terminal := range c.Terminals {
			if key := fmt.Sprintf("%s.terminals[%d]", at, j); !terminalID.MatchString(terminal) {
				b.problem(key, "want 1 to 50 letters, digits and '-'")
			} else if terminals[terminal] {
				b.problem(key, "another partner has it, or it stands there twice")
			}
			terminals[terminal] = true
		}
		if c.Disabled {
			b.notice("partners: %s is disabled", c.ID)
		}
	}
	b.partners = b.registry(list)
}

// registry says what is wrong with each partner at its line, and returns those with which nothing is.
func (b *builder) registry(list []policy.Partner) *policy.Partners {
	partners, err := policy.NewPartners(list, b.trusted...)
	if err == nil {
		return partners
	}
	bad := map[int]bool{}
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		if of, ok := errors.AsType[*policy.PartnerError](err); ok {
			bad[of.Index] = true
			b.problem(fmt.Sprintf("partners[%d]", of.Index), "%v", err)
		}
	}
	var good []policy.Partner
	for i, p := range list {
		if !bad[i] {
			good = append(good, p)
		}
	}
	partners, err = policy.NewPartners(good, b.trusted...)
	if err != nil {
		panic("main: internal error: a partner is good beside more of them, and not beside fewer") // checks are against those before alone
	}
	return partners
}

// terminalID is the form of a processing terminal's id. Source: Payroc, POST …/hosted-fields-sessions.
var terminalID = regexp.MustCompile(`^[0-9A-Za-z-]{1,50}$`)

// partnerIDs are the configured ids, those of partners with problems too.
func (b *builder) partnerIDs() []string {
	ids := make([]string, len(b.config.Partners))
	for i, p := range b.config.Partners {
		ids[i] = p.ID
	}
	return ids
}

func (b *builder) partnerCertificate(at string, c *PartnerCertificateConfig, p *policy.Partner) {
	subject, err := policy.ParseSubject(c.Subject)
	if err != nil {
		b.problem(at+".subject", "%v", err)
	} else {
		p.Subjects = []policy.Subject{subject}
	}
	if c.CA != "" {
		for _, ca := range b.authorities(at+".ca", c.CA) {
			p.CA = append(p.CA, policy.FingerprintOf(ca))
		}
		if len(p.CA) == 0 {
			p.CA = []policy.Fingerprint{{}} // its problem was told: the partner is judged as if it named one
		}
	}
	p.Pins = b.pins(at, c.Pins)
}

// pins are digests of public keys.
func (b *builder) pins(at string, texts []string) (pins []policy.Fingerprint) {
	for i, text := range texts {
		pin, err := policy.ParseFingerprint(text)
		if err != nil {
			b.problem(fmt.Sprintf("%s.pins[%d]", at, i), "%v", err)
			continue
		}
		pins = append(pins, pin)
	}
	return pins
}

func (b *builder) loadCredentials() {
	if b.config.Credentials == "" {
		return
	}
	path := b.resolve(b.config.Credentials)
	info, err := os.Stat(path)
	if err != nil {
		b.problem("credentials", "%v", tried(err))
		return
	}
	if info.Mode().Perm()&0o022 != 0 {
		b.problem("credentials", "others than its owner can write the file: whoever can, can make credentials")
	}
	if b.credentials, err = credential.LoadAPIKeys(path); err != nil {
		b.foreign("credentials", err)
		return
	}
	if b.partners == nil {
		return
	}
	if err := b.credentials.Validate(b.partners); err != nil {
		b.foreign("credentials", err)
	}
}

func (b *builder) loadHolders() {
	if b.config.Holders == "" {
		b.problem("holders", "required: the holder directory, which says whose card is whose")
		return
	}
	if !b.exists("holders", b.config.Holders) {
		return
	}
	var err error
	if b.holders, err = holder.LoadFile(b.resolve(b.config.Holders)); err != nil {
		b.foreign("holders", err)
		return
	}
	if b.partners == nil {
		return
	}
	names := slices.Collect(maps.Keys(b.config.Issuers))
	if err := b.holders.Validate(b.partnerIDs(), names); err != nil {
		b.foreign("holders", err)
	}
	environments := map[string]string{}
	for name, c := range b.config.Issuers {
		environments[name] = cmp.Or(c.Environment, b.config.Environment)
	}
	if count, first := b.holders.Strays(environments); count > 0 {
		b.notice("holders: cards of another environment than their issuer's: %d, the first at %s: every exchange with one is refused", count, first)
	}
}

func (b *builder) loadPolicies() {
	var files []policy.PolicyFile
	for i, glob := range b.config.Policies {
		at := fmt.Sprintf("policies[%d]", i)
		b.watch(globbed + b.relative(glob))
		names, err := filepath.Glob(b.relative(glob))
		if err != nil || len(names) == 0 {
			b.problem(at, "%s: no file matches", b.relative(glob))
			continue
		}
		for _, name := range names {
			if content, ok := b.read(at, name); ok {
				files = append(files, policy.PolicyFile{Name: b.display(name), Source: content})
			}
		}
	}
	if len(b.config.Policies) == 0 {
		b.problem("policies", "required: without a policy that permits, nothing is done")
	}
	if len(files) == 0 || b.partners == nil {
		return
	}
	var issuers []policy.Issuer
	for name, c := range b.config.Issuers {
		issuers = append(issuers, policy.Issuer{ID: name, Environment: b.environment("issuers."+name, c.Environment)})
	}
	var err error
	if b.engine, err = policy.NewEngine(policy.EngineConfig{Policies: files, Partners: b.partners, Issuers: issuers}); err != nil {
		b.foreign("policies", err)
	}
}
