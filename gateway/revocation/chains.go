package revocation

import (
	"bytes"
	"crypto/fips140"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"iter"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// This file is what the chains of one certificate have to do with each other, and how far a chain goes.

// Finding is what comes of a chain, as from Judge.
type Finding struct {
	Until time.Time
	Err   error
}

// Each judges the chains of one certificate, for as long as the caller wants more. What is known to be revoked in one of them refuses all
// that have it. Questions to responders about all of them are begun together: a caller can make up any number of chains of which each
// has one more.
func (c *Checker) Each(chains [][]*x509.Certificate, now time.Time) iter.Seq2[[]*x509.Certificate, Finding] {
	return func(yield func([]*x509.Certificate, Finding) bool) {
		var whole [][]*x509.Certificate
		var revoked []*x509.Certificate
		if c != nil {
			whole = c.whole(chains)
			if len(whole) > 1 {
				c.ask(whole, now)
				revoked = c.revoked(whole)
			}
		}
		for i, chain := range chains {
			var f Finding
			switch {
			case c == nil:
			case slices.ContainsFunc(whole[i], func(of *x509.Certificate) bool { return among(of, revoked) }):
				f.Err = ErrRevoked
			default:
				f.Until, f.Err = c.judge(whole[i], now)
			}
			if !yield(chain, f) {
				return
			}
		}
	}
}

// Any returns nil where one of the chains is good.
func (c *Checker) Any(chains [][]*x509.Certificate, now time.Time) (err error) {
	for _, f := range c.Each(chains, now) {
		if err = f.Err; err == nil {
			return nil
		}
	}
	return err
}

// whole are chains of which each goes on with the authorities that issued its trust anchor, as far as the configuration has them. Where
// it trusts an intermediate besides the root, verification ends there, and the root's word about it counts all the same.
func (c *Checker) whole(chains [][]*x509.Certificate) [][]*x509.Certificate {
	whole := make([][]*x509.Certificate, len(chains))
	for i, chain := range chains {
		whole[i] = chain
		for above := c.issuerOf(chain[len(chain)-1]); above != nil; above = c.issuerOf(above) {
			if slices.ContainsFunc(whole[i], func(of *x509.Certificate) bool { return issuerID(of) == issuerID(above) }) {
				break // they have signed each other
			}
			whole[i] = append(slices.Clip(whole[i]), above)
		}
	}
	return whole
}

// issuerOf is the authority of the configuration that issued another one; nil where it has none, or the CA issued itself.
func (c *Checker) issuerOf(ca *x509.Certificate) *x509.Certificate {
	named := func(a *x509.Certificate) bool { return bytes.Equal(a.RawSubject, ca.RawIssuer) && !a.Equal(ca) }
	if !slices.ContainsFunc(c.config.CAs, named) && !slices.ContainsFunc(c.config.Intermediates, named) {
		return nil
	}
	key := sha256.Sum256(ca.Raw)
	if known, ok := c.above.Load(key); ok {
		return known.(*x509.Certificate)
	}
	var found *x509.Certificate
	for _, a := range c.authorities() {
		if !named(a) || issuerID(a) == issuerID(ca) || !issued(a, ca) {
			continue
		}
		if found == nil || bytes.Equal(a.RawSubject, a.RawIssuer) { // of a CA that another one has signed too, its own word
			found = a
		}
	}
	c.above.Store(key, found)
	return found
}

// issued reports whether a CA of one name signed another's certificate. That is trusted by itself, so that its signature may be one that
// is good for nothing else: then their keys' identifiers must not differ.
func issued(issuer, ca *x509.Certificate) bool {
	var err error
	fips140.WithoutEnforcement(func() { err = ca.CheckSignatureFrom(issuer) })
	var insecure x509.InsecureAlgorithmError
	if errors.As(err, &insecure) || errors.Is(err, x509.ErrUnsupportedAlgorithm) {
		return len(ca.AuthorityKeyId) == 0 || len(issuer.SubjectKeyId) == 0 || bytes.Equal(ca.AuthorityKeyId, issuer.SubjectKeyId)
	}
	return err == nil
}

// revoked are the certificates of chains that are known to be revoked. Nobody is waited for.
func (c *Checker) revoked(chains [][]*x509.Certificate) (all []*x509.Certificate) {
	for _, chain := range chains {
		for i := range len(chain) - 1 {
			if c.listed(chain[i], chain[i+1]) || c.ocsp != nil && c.ocsp.revoked(chain[i], chain[i+1]) {
				all = append(all, chain[i])
			}
		}
	}
	return all
}

// among reports whether a certificate is one of others, with whichever signature.
func among(certificate *x509.Certificate, others []*x509.Certificate) bool {
	return slices.ContainsFunc(others, func(other *x509.Certificate) bool {
		return bytes.Equal(other.RawTBSCertificate, certificate.RawTBSCertificate)
	})
}

// revoked reports whether a responder has said that a certificate is.
func (r *responders) revoked(certificate, ca *x509.Certificate) bool {
	r.mu.Lock()
	q := r.questions[questionKey{issuerID(ca), string(certificate.SerialNumber.Bytes())}]
	r.mu.Unlock()
	if q == nil {
		return false
	}
	v := q.last.Load()
	return v != nil && v.status == ocsp.Revoked
}
