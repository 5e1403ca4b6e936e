package main

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/gateway"
)

// This file resolves what depends on the host that callers name.

// loadHostCAs reads the authorities of single hosts. One that does not load is a problem, which keeps the whole configuration from
// being used: none falls back on the listener's, or on no certificate.
func (b *builder) loadHostCAs(listener string, c *ListenerConfig) {
	for _, host := range slices.Sorted(maps.Keys(c.HostClientCA)) {
		key := "listeners." + listener + ".host_client_ca." + host
		cas := b.trust(key, c.HostClientCA[host])
		name, err := gateway.HostPattern(host)
		switch {
		case err != nil:
			b.problem(key, "%v", err)
		case b.hostCAs[listener][name] != nil:
			b.problem(key, "the same host stands there twice")
		default:
			if b.hostCAs[listener] == nil {
				b.hostCAs[listener] = map[string]*x509.CertPool{}
			}
			b.hostCAs[listener][name] = pool(cas)
			b.hostAuthorities[listener] = append(b.hostAuthorities[listener], cas...)
		}
	}
	if c.TLS.ClientCA == "" && len(c.HostClientCA) > 0 {
		b.notice("listeners.%s: client certificates are required for %s, and of callers of other hosts none", listener, known(c.HostClientCA))
	}
}

// asksCertificates reports whether a listener requires client certificates, for one host at least.
func (b *builder) asksCertificates(listener string) bool {
	c := b.config.Listeners[listener]
	return c.TLS.ClientCA != "" || len(c.HostClientCA) > 0
}

// routeHosts resolves the names that a route answers for, and what it tells its issuer of certificates.
func (b *builder) routeHosts(at string, c *RouteConfig, r *gateway.Route) {
	seen := map[string]bool{}
	for i, text := range c.Hosts {
		key := fmt.Sprintf("%s.hosts[%d]", at, i)
		name, err := gateway.HostPattern(text)
		switch {
		case err != nil:
			b.problem(key, "%v", err)
			continue
		case seen[name]:
			b.problem(key, "the same host stands there twice")
		case !b.presents(c.Listener, name):
			b.notice("%s: the certificate of listener %s is not for %s", key, c.Listener, name)
		}
		seen[name] = true
		r.Hosts = append(r.Hosts, name)
	}
	switch c.ClientCert {
	case "":
	case "leaf":
		r.ClientCert = gateway.ClientCertLeaf
	case "chain":
		r.ClientCert = gateway.ClientCertChain
	default:
		b.problem(at+".client_cert", "want leaf or chain, or nothing")
	}
	if c.ClientCert != "" && !b.asksCertificates(c.Listener) {
		b.problem(at+".client_cert", "needs a listener with tls.client_ca or host_client_ca: nothing verifies a certificate there")
	}
}

// presents reports whether a listener's certificate is for a host, as far as is known.
func (b *builder) presents(listener, host string) bool {
	l := b.listener(listener)
	if l == nil {
		return true
	}
	if _, parent, _ := strings.Cut(host, "."); len(l.Hosts) > 0 {
		return slices.Contains(l.Hosts, host) || slices.Contains(l.Hosts, "*."+parent)
	}
	if l.Certificate.Leaf == nil {
		return true
	}
	if parent, wild := strings.CutPrefix(host, "*"); wild {
		host = "any" + parent
	}
	return l.Certificate.Leaf.VerifyHostname(host) == nil
}
