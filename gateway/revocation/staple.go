package revocation

import (
	"context"
	"crypto/fips140"
	"crypto/x509"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/ocsp"
)

// This file asks responders about certificates of our own, so that their word can be served with them (RFC 6066 section 8).

// stapleAtMost is how long a word is gone by that says no until when it holds, or a later time.
const stapleAtMost = 7 * 24 * time.Hour

// Asker asks the responders that certificates name. Safe for concurrent use.
type Asker struct {
	c      *Checker // without lists
	client *client
}

// Word is what a responder says of a certificate.
type Word struct {
	DER     []byte // the response, as a TLS server serves it
	Good    bool
	Revoked bool      // neither: it does not know the certificate
	Made    time.Time // its thisUpdate
	Until   time.Time // how long it is gone by; the end of the certificate, and of the one that signed it, at the latest
}

// NewAsker goes where the configuration's Dialer does, with its TLS, follows no redirect, knows no proxy, and waits for an answer no longer
// than timeout. Nothing else of the configuration counts.
func NewAsker(c Config, timeout time.Duration, now func() time.Time) *Asker {
	checker := &Checker{config: Config{TLS: c.TLS, Refresh: stapleAtMost}, services: Services{Log: zap.NewNop(), Now: now}}
	return &Asker{c: checker, client: newClient(checker.config, c.Dialer(netip.Addr{}), timeout)}
}

// Close closes connections that are idle.
func (a *Asker) Close() { a.client.close() }

// Names reports whether a certificate names a responder that can be asked.
func Names(certificate *x509.Certificate) bool {
	return (&responders{}).responder(certificate, false) != nil
}

// Ask asks the responder that a certificate names. Without a word, the result says why, as it does in Metrics.
func (a *Asker) Ask(ctx context.Context, certificate, issuer *x509.Certificate) (w *Word, result string) {
	to := (&responders{}).responder(certificate, false)
	if to == nil {
		return nil, ocspNobody
	}
	request, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: certificate.SerialNumber}, issuer, &ocsp.RequestOptions{Hash: nameHash()})
	if err != nil {
		return nil, ocspMalformed
	}
	answer, failed := a.client.post(ctx, to, request, maxAnswerBytes)
	if failed != "" {
		return nil, failed
	}
	return a.Read(answer.body, certificate, issuer)
}

// Read takes in an answer, just come or kept. It must be what Checker goes by: about this certificate of this CA, signed by one who may,
// and of now.
func (a *Asker) Read(der []byte, certificate, issuer *x509.Certificate) (w *Word, result string) {
	v, result := read(der, &question{serial: certificate.SerialNumber, issuer: issuer}, a.c)
	if v == nil {
		return nil, result
	}
	w = &Word{DER: der, Good: v.status == ocsp.Good, Revoked: v.status == ocsp.Revoked, Made: v.made, Until: earlier(v.until, certificate.NotAfter)}
	fips140.WithoutEnforcement(func() { // as in read
		r, err := ocsp.ParseResponseForCert(der, &x509.Certificate{SerialNumber: certificate.SerialNumber}, nil)
		if err == nil && r.NextUpdate.IsZero() {
			w.Until = earlier(w.Until, w.Made.Add(stapleAtMost)) // a kept one does not grow young again
		}
		if err == nil && r.Certificate != nil {
			w.Until = earlier(w.Until, r.Certificate.NotAfter)
		}
	})
	return w, result
}
