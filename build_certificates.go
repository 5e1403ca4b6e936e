package main

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault/keys"
)

// This file judges where the certificates of hosts come from.

// certificateLabel is what the keys that seal certificates are derived with.
const certificateLabel = "certificate"

// letsEncrypt is the authority that is asked where none is named.
const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// serverCertificate resolves which certificate a listener has: files, or those of hosts.
func (b *builder) serverCertificate(at string, c ListenerTLSConfig, l *gateway.Listener) {
	if len(c.Hosts) == 0 {
		l.Certificate, _ = b.certificate(at, c.Certificate, c.Key)
		return
	}
	if c.Certificate != "" || c.Key != "" {
		b.problem(at, "want one of hosts, and certificate with key")
	}
	if b.config.Certificates == nil {
		b.problem(at+".hosts", "certificates is required: where their certificates come from")
	}
	for i, host := range c.Hosts {
		key := fmt.Sprintf("%s.hosts[%d]", at, i)
		switch name := strings.TrimPrefix(host, "*."); {
		case !hostName.MatchString(name) || len(name) > 253 || isAddress(name):
			b.problem(key, "want the name of a host in lower case, as in api.example.com (an international one as xn--…)")
		case name != host && !b.wildcards():
			b.problem(key, "a wildcard needs certificates.acme.challenge: dns-01")
		case slices.Contains(l.Hosts, host):
			b.problem(key, "it stands there twice")
		}
		l.Hosts = append(l.Hosts, host)
	}
	if c := b.config.Certificates; c != nil && c.CA == "local" && production(l.Environment) {
		b.problem("certificates.ca", "local is for development: %s is of environment production", strings.TrimSuffix(at, ".tls"))
	}
}

// hostName is one or more labels of letters, digits and inner hyphens (RFC 1123 section 2.1).
var hostName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// wildcards reports whether the authority issues them.
func (b *builder) wildcards() bool {
	c := b.config.Certificates
	return c == nil || c.CA == "local" || c.ACME != nil && c.ACME.Challenge == string(gateway.ChallengeDNS)
}

func (b *builder) loadCertificates() {
	c := b.config.Certificates
	if c == nil {
		return
	}
	m := &gateway.Managed{KeyType: c.KeyType, Destinations: gateway.Destinations{Listed: c.Destinations, Loopback: b.config.Environment == "test"}}
	b.managed = m
	for i, network := range c.Destinations {
		if err := gateway.CheckDestination(network); err != nil {
			b.problem(fmt.Sprintf("certificates.destinations[%d]", i), "%v", err)
		}
	}
	if _, ok := gateway.KeyTypes[c.KeyType]; !ok && c.KeyType != "" {
		b.problem("certificates.key_type", "unknown type (known: %s)", known(gateway.KeyTypes))
	}
	switch c.CA {
	case "", "acme":
		b.loadACME(c.ACME, m)
	case "local":
		if c.ACME != nil {
			b.problem("certificates.acme", "is for ca: acme")
		}
		if production(b.config.Environment) {
			b.problem("certificates.ca", "local is for development, not for production")
		}
		b.notice("certificates: of a development CA: only who was told to trust it does")
	default:
		b.problem("certificates.ca", "want acme or local")
	}
	if !slices.ContainsFunc(b.config.Keys, func(k KeyConfig) bool { return k.Use == string(keys.UseStorage) }) {
		b.problem("certificates", "a key of use storage is required: what is kept is sealed with it, and opened after a restart")
	}
	b.certificateStorage(c, m)
	if !slices.ContainsFunc(slices.Collect(maps.Values(b.config.Listeners)), func(l ListenerConfig) bool { return len(l.TLS.Hosts) > 0 }) {
		b.notice("certificates: no listener has tls.hosts, so that none is obtained")
	}
}

// certificateStorage resolves where certificates are kept.
func (b *builder) certificateStorage(c *CertificatesConfig, m *gateway.Managed) {
	if c.Directory == "" {
		if b.config.Store.Redis == nil {
			b.problem("certificates.directory", "required where the store is in memory: where certificates are kept")
		}
		return
	}
	m.Directory = b.ownDirectory("certificates.directory", c.Directory)
	if b.config.Store.Redis != nil {
		b.notice("certificates: in %s: instances on other machines obtain their own, each against the authority's limits", c.Directory)
	}
}

func (b *builder) loadACME(c *ACMEConfig, m *gateway.Managed) {
	const at = "certificates.acme"
	if c == nil {
		b.problem(at, "required with ca: acme")
		return
	}
	a := &gateway.ACME{URL: c.URL, Email: c.Email, Challenge: gateway.Challenge(c.Challenge), HTTPAddress: c.HTTPAddress}
	m.ACME = a
	if a.URL == "" {
		a.URL = letsEncrypt
	}
	if u, err := url.Parse(a.URL); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		b.problem(at+".url", "want an https URL without credentials")
	} else {
		b.checkPort(at+".url", u)
	}
	a.Roots = b.managedRoots(at+".ca", c.CA)
	if !c.Agree {
		b.problem(at+".agree", "required: true, once you have read the authority's terms of service")
	}
	if strings.ContainsFunc(a.Email, unicode.IsSpace) || a.Email != "" && !strings.Contains(a.Email, "@") {
		b.problem(at+".email", "want an address, as in ops@example.com")
	}
	b.loadChallenge(at, c, a)
	if c.Binding == nil {
		return
	}
	a.BindingID = c.Binding.ID
	if a.BindingID == "" {
		b.problem(at+".binding.id", "required: the key's id, as the authority gave it")
	}
	key, ok := b.secret(at+".binding.key_file", c.Binding.KeyFile)
	if _, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(key, "=")); ok && err != nil {
		b.problem(at+".binding.key_file", "the key is not base64url")
	}
	a.BindingKey = strings.TrimRight(key, "=")
	b.checkBinding(at+".binding.key_file", a)
	b.managedFiles = append(b.managedFiles, a.BindingKey)
}

// loadChallenge resolves how hosts are proven.
func (b *builder) loadChallenge(at string, c *ACMEConfig, a *gateway.ACME) {
	if a.Challenge == "" {
		a.Challenge = gateway.ChallengeALPN
	}
	switch a.Challenge {
	case gateway.ChallengeALPN:
		b.reached(a)
	case gateway.ChallengeHTTP:
		host, _, ok := b.hostPort(at+".http_address", c.HTTPAddress, "host:port, as in :80, where challenges of http-01 are answered")
		if ok && !loopback(host) {
			b.notice("%s.http_address: %s listens without TLS: it answers challenges, and 404 to everything else", at, c.HTTPAddress)
		}
	case gateway.ChallengeDNS:
		if c.DNS == nil {
			b.problem(at+".dns", "required with challenge: dns-01")
		}
	default:
		b.problem(at+".challenge", "want tls-alpn-01, http-01 or dns-01")
	}
	if c.HTTPAddress != "" && a.Challenge != gateway.ChallengeHTTP {
		b.problem(at+".http_address", "is for challenge: http-01")
	}
	if c.DNS == nil {
		return
	}
	if a.Challenge != gateway.ChallengeDNS {
		b.problem(at+".dns", "is for challenge: dns-01")
	}
	a.DNS = b.dnsHook(at+".dns", c.DNS)
}

// reached tells where listeners stand that the authority must reach.
func (b *builder) reached(a *gateway.ACME) {
	for _, name := range slices.Sorted(maps.Keys(b.config.Listeners)) {
		l := b.config.Listeners[name]
		if _, port, err := net.SplitHostPort(l.Address); len(l.TLS.Hosts) > 0 && err == nil && port != "443" {
			b.notice("listeners.%s: the authority connects to port 443 of its hosts, which must lead to %s", name, l.Address)
		}
	}
}

func (b *builder) dnsHook(at string, c *DNSConfig) *gateway.DNSHook {
	h := &gateway.DNSHook{Program: slices.Clone(c.Program), URL: c.Webhook, Timeout: c.Timeout, Propagation: c.Propagation, Resolvers: c.Resolvers}
	switch {
	case (len(c.Program) > 0) == (c.Webhook != ""):
		b.problem(at, "want one of program and webhook")
	case c.Webhook != "":
		if u, err := url.Parse(c.Webhook); err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
			b.problem(at+".webhook", "want an https URL without credentials, or http to loopback")
		} else {
			b.checkPort(at+".webhook", u)
		}
	case c.Program[0] == "":
		b.problem(at+".program[0]", "required: a program")
	case strings.Contains(c.Program[0], "/"):
		h.Program[0] = b.resolve(c.Program[0])
		if info, err := os.Stat(h.Program[0]); err != nil {
			b.problem(at+".program[0]", "%v", tried(err))
		} else if info.IsDir() || info.Mode().Perm()&0o111 == 0 {
			b.problem(at+".program[0]", "it is not a program")
		}
	}
	if c.Webhook == "" && (c.CA != "" || c.BearerFile != "") {
		b.problem(at, "ca and bearer_file are for webhook")
	}
	h.Roots = b.managedRoots(at+".ca", c.CA)
	if c.BearerFile != "" {
		h.Bearer, _ = b.secret(at+".bearer_file", c.BearerFile)
		b.managedFiles = append(b.managedFiles, h.Bearer)
	}
	for i, r := range c.Resolvers {
		key := fmt.Sprintf("%s.resolvers[%d]", at, i)
		if _, port, ok := b.hostPort(key, r, "host:port, as in 192.0.2.53:53"); ok && port == 0 {
			b.problem(key, "want a port from 1 to 65535")
		}
	}
	return h
}

// managedRoots reads authorities that a server's certificate must come from; nil are the system's.
func (b *builder) managedRoots(key, path string) *x509.CertPool {
	if path == "" {
		return nil
	}
	cas := b.authorities(key, path)
	for _, der := range encoded(cas) {
		b.managedFiles = append(b.managedFiles, string(der))
	}
	return pool(cas)
}

// managedIn is where certificates come from, with the store that they are kept in.
func (b *builder) managedIn(s store.Store) gateway.Managed {
	m := *b.managed
	if redis, ok := s.(*store.Redis); ok {
		m.Files = redis
	}
	return m
}
