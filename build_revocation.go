package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/revocation"
)

// This file resolves what client certificates are held against.

const (
	minRevocationRefresh = time.Minute
	maxRevocationRefresh = 7 * 24 * time.Hour
	minOCSPTimeout       = 100 * time.Millisecond
	revocationDial       = 10 * time.Second // to a server of lists; responders have their own time-out
)

// revocations resolves what a listener's client certificates are held against; nil where it does not ask, or after a problem.
func (b *builder) revocations(name, environment string, r *RevocationConfig) *revocation.Checker {
	at, asked := "listeners."+name+".tls", b.asksCertificates(name)
	switch {
	case r == nil:
		if asked && production(environment) {
			b.notice("%s: no revocation: a certificate is good until it ends, or its partner is disabled", at)
		}
		return nil
	case !asked:
		b.problem(at+".revocation", "needs client_ca or host_client_ca: nobody else's certificates are asked for")
		return nil
	case len(r.CRL) == 0 && r.OCSP == nil:
		b.problem(at+".revocation", "required: crl, ocsp or both")
		return nil
	}
	at += ".revocation"
	before := len(b.problems)
	config := revocation.Config{
		Listener: name, CAs: slices.Concat(b.clientCAs[name], b.hostAuthorities[name]), Refresh: r.Refresh,
		Soft: b.softly(at+".stale", r.Stale, environment, "a certificate passes while its CA has no current list"),
	}
	if r.Refresh != 0 && (r.Refresh < minRevocationRefresh || r.Refresh > maxRevocationRefresh) {
		b.problem(at+".refresh", "want 1m to 168h")
	}
	config.Lists = b.revocationLists(at, r)
	if r.Cache != "" {
		config.Cache = b.ownDirectory(at+".cache", r.Cache)
		if !slices.ContainsFunc(r.CRL, isURL) {
			b.problem(at+".cache", "crl has no URL: files are read at each start")
		}
	}
	config.OCSP = b.ocsp(at+".ocsp", r.OCSP, environment)
	b.revocationServers(at, r, &config, environment)
	if len(b.problems) > before {
		return nil
	}
	found, err := revocation.New(config)
	var bad *revocation.ListError
	switch {
	case errors.As(err, &bad):
		b.problem(fmt.Sprintf("%s.crl[%d]", at, bad.Index), "%v", bad.Err)
		return nil
	case err != nil:
		b.problem(at, "%v", err)
		return nil
	}
	for i, list := range found.Lists(time.Now()) {
		if list.Known && !list.Current {
			b.notice("%s.crl[%d]: the list is not current", at, i)
		}
		if len(list.Points) > 0 {
			b.notice("%s.crl[%d]: the list is for certificates alone that name its distribution point, %q", at, i, list.Points[0])
		}
	}
	meets := "its certificates are refused"
	if config.Soft {
		meets = "its certificates pass"
	}
	for _, ca := range found.Unlisted() {
		b.notice("%s.crl: no list is of %s: %s", at, nameText(ca.RawSubject), meets)
	}
	return found
}

// softly reads whether what is not known passes.
func (b *builder) softly(key, text, environment, what string) bool {
	if text != "" && text != "hard" && text != "soft" {
		b.problem(key, "want hard or soft")
	}
	if text == "soft" && production(environment) {
		b.notice("%s: soft: %s", key, what)
	}
	return text == "soft"
}

// isURL tells URLs of lists from files.
func isURL(text string) bool { return strings.Contains(text, "://") }

func (b *builder) revocationLists(at string, r *RevocationConfig) (lists []revocation.Source) {
	for i, text := range r.CRL {
		key := fmt.Sprintf("%s.crl[%d]", at, i)
		if isURL(text) {
			lists = append(lists, revocation.Source{URL: b.revocationURL(key, text)})
			continue
		}
		content, _ := b.read(key, text)
		lists = append(lists, revocation.Source{Content: content, Name: text})
	}
	return lists
}

// revocationURL reads where a server of a CA is. Plain HTTP will do: what it says is signed.
func (b *builder) revocationURL(key, text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		b.problem(key, "want a URL of scheme https or http with a host, without user or fragment")
		return nil
	}
	if !b.checkPort(key, u) {
		return nil
	}
	return u
}

func (b *builder) ocsp(at string, c *OCSPConfig, environment string) *revocation.OCSP {
	if c == nil {
		return nil
	}
	limit := gatewayLimits(b.config.Limits).WithDefaults().Handshake
	o := &revocation.OCSP{Soft: b.softly(at+".mode", c.Mode, environment, "a certificate passes of which no responder says anything"), Timeout: c.Timeout}
	if c.Responder != "" {
		o.Responder = b.revocationURL(at+".responder", c.Responder)
	}
	switch timeout := o.Timeout; {
	case timeout == 0 && revocation.DefaultTimeout >= limit, timeout >= limit:
		b.problem(at+".timeout", "want less than limits.handshake, %s", limit)
	case timeout != 0 && timeout < minOCSPTimeout:
		b.problem(at+".timeout", "want at least %s", minOCSPTimeout)
	}
	return o
}

// revocationServers says how servers of CAs are reached, and whose lists may come from there.
func (b *builder) revocationServers(at string, r *RevocationConfig, config *revocation.Config, environment string) {
	config.TLS = gateway.ClientTLS(nil)
	if r.CA != "" {
		config.TLS.RootCAs = pool(b.authorities(at+".ca", r.CA))
	}
	if r.Intermediates != "" {
		config.Intermediates = b.authorities(at+".intermediates", r.Intermediates)
	}
	for i, network := range r.Destinations {
		if err := gateway.CheckDestination(network); err != nil {
			b.problem(fmt.Sprintf("%s.destinations[%d]", at, i), "%v", err)
		}
	}
	to := func(named netip.Addr) gateway.Destinations {
		return gateway.Destinations{Listed: r.Destinations, Named: named, Loopback: environment == "test"}
	}
	check := func(key string, u *url.URL) {
		if u == nil {
			return
		}
		if named, err := netip.ParseAddr(u.Hostname()); err == nil && !to(named).Allow(named) {
			b.problem(key, "%v is none of the destinations", named)
		}
	}
	for i, source := range config.Lists {
		check(fmt.Sprintf("%s.crl[%d]", at, i), source.URL)
	}
	if config.OCSP != nil {
		check(at+".ocsp.responder", config.OCSP.Responder)
	}
	config.Dialer = func(named netip.Addr) *net.Dialer { return to(named).Dialer(revocationDial) }
}
