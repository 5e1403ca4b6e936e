package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/cardstile/cardstile/gateway"
)

// revocations reads what CAs have revoked; nil where a listener does not ask, or after a problem.
func (b *builder) revocations(at string, c ListenerTLSConfig, cas []*x509.Certificate, asked bool) *gateway.Revocations {
	r := c.Revocation
	switch {
	case r == nil:
		if asked && production(b.config.Environment) {
			b.notice("%s: no revocation: a certificate is good until it ends, or its partner is disabled", at)
		}
		return nil
	case !asked:
		b.problem(at+".revocation", "needs client_ca or host_client_ca: nobody else's certificates are asked for")
		return nil
	case len(r.CRL) == 0:
		b.problem(at+".revocation.crl", "required: at least one file")
		return nil
	case r.Stale != "" && r.Stale != "hard" && r.Stale != "soft":
		b.problem(at+".revocation.stale", "want hard or soft")
		return nil
	}
	soft := r.Stale == "soft"
	if soft && production(b.config.Environment) {
		b.notice("%s: revocation: stale: soft: a certificate passes while its CA has no current list", at)
	}
	var lists [][]byte
	for i, path := range r.CRL {
		content, ok := b.read(fmt.Sprintf("%s.revocation.crl[%d]", at, i), path)
		if !ok {
			return nil
		}
		lists = append(lists, content)
	}
	found, err := gateway.NewRevocations(cas, lists, soft)
	var bad *gateway.RevocationError
	if errors.As(err, &bad) {
		b.problem(fmt.Sprintf("%s.revocation.crl[%d]", at, bad.Index), "%v", bad.Err)
		return nil
	}
	for _, i := range found.Stale(time.Now()) {
		b.notice("%s.revocation.crl[%d]: the list is not current", at, i)
	}
	return found
}
