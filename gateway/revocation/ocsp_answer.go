package revocation

import (
	"bytes"
	"crypto"
	"crypto/fips140"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

// This file is what an answer of a responder must be (RFC 6960 section 3.2).

// Results of a question, as labels: a closed set, with those of a post.
const (
	ocspGood      = "good"
	ocspRevoked   = "revoked"
	ocspUnknown   = "unknown"
	ocspRefused   = "refused"   // an error in the place of an answer: try later, unauthorized, …
	ocspMalformed = "malformed" // no answer, or one with what is unknown here
	ocspMismatch  = "mismatch"  // about another certificate
	ocspUnsigned  = "unsigned"  // by nobody who may
	ocspStale     = "stale"     // not of now, or older than what is known
	ocspBusy      = "busy"      // too many are asked at this time
	ocspNobody    = "no_responder"
)

var ocspResults = []string{
	ocspGood, ocspRevoked, ocspUnknown, ocspRefused, ocspMalformed, ocspMismatch, ocspUnsigned, ocspStale, ocspBusy, ocspNobody,
	failedTimeout, failedUnreachable, failedStatus, failedOversized,
}

// read takes in an answer. Without a verdict, the result says why.
func read(content []byte, q *question, c *Checker) (v *verdict, result string) {
	fips140.WithoutEnforcement(func() { // SHA-1 names CAs in answers; as a signature's it is refused
		v, result = verify(content, q, c)
	})
	return v, result
}

func verify(content []byte, q *question, c *Checker) (v *verdict, result string) {
	now, refresh := c.services.Now(), c.config.Refresh
	response, err := ocsp.ParseResponseForCert(content, &x509.Certificate{SerialNumber: q.serial}, nil)
	if err != nil {
		return nil, unread(err)
	}
	if !aboutIssuer(response, q.issuer) {
		return nil, ocspMismatch
	}
	if !signed(response, q.issuer, now) || response.Certificate != nil && c.listed(response.Certificate, q.issuer) {
		return nil, ocspUnsigned
	}
	v = &verdict{status: response.Status, made: response.ThisUpdate, until: now.Add(refresh)}
	if !response.NextUpdate.IsZero() {
		v.until = earlier(v.until, response.NextUpdate)
	} else if now.Sub(v.made) > refresh+clockSkew { // whoever keeps one could show it for ever
		return nil, ocspStale
	}
	if v.made.After(now.Add(clockSkew)) || !v.until.After(now) {
		return nil, ocspStale
	}
	if before := q.last.Load(); before != nil && v.made.Before(before.made) {
		if v.status != before.status {
			return nil, ocspStale
		}
		v.made = before.made // of several servers one may be behind, and still takes nothing back
	}
	if v.status == ocsp.Unknown {
		v.until = earlier(v.until, now.Add(unknownFor))
	}
	left := v.until.Sub(now)
	v.due = v.until.Add(-left/4 - jitter(left/10))
	return v, [...]string{ocsp.Good: ocspGood, ocsp.Revoked: ocspRevoked, ocsp.Unknown: ocspUnknown}[v.status]
}

// unread names what is wrong with an answer that is none. Package ocsp has no types for these; TestAnswers meets each of them.
func unread(err error) string {
	var refused ocsp.ResponseError
	switch {
	case errors.As(err, &refused):
		return ocspRefused
	case strings.Contains(err.Error(), "no response matching"):
		return ocspMismatch
	case strings.Contains(err.Error(), "bad signature"):
		return ocspUnsigned
	}
	return ocspMalformed
}

// signed reports whether an answer is signed by the issuer, or by a responder to whom the issuer has delegated that (RFC 6960 section
// 4.2.2.2): by a certificate of its own, with an extended key usage that says so. Of the certificate that comes with an answer, package
// ocsp has verified the signature of the answer alone.
func signed(response *ocsp.Response, issuer *x509.Certificate, now time.Time) bool {
	d := response.Certificate
	switch {
	case weak(response.SignatureAlgorithm):
		return false
	case d == nil:
		return response.CheckSignatureFrom(issuer) == nil
	case bytes.Equal(d.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo) && bytes.Equal(d.RawSubject, issuer.RawSubject):
		return true // the issuer itself, by whichever of its certificates
	}
	return d.CheckSignatureFrom(issuer) == nil && bytes.Equal(d.RawIssuer, issuer.RawSubject) &&
		!now.Before(d.NotBefore) && !now.After(d.NotAfter) &&
		slices.Contains(d.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) &&
		(d.KeyUsage == 0 || d.KeyUsage&x509.KeyUsageDigitalSignature != 0) && len(d.UnhandledCriticalExtensions) == 0
}

// responseData is as much of an answer as says which CA it is about. Package ocsp goes by the serial number alone.
type responseData struct {
	Version     int `asn1:"optional,default:0,explicit,tag:0"`
	ResponderID asn1.RawValue
	ProducedAt  time.Time `asn1:"generalized"`
	Responses   []struct{ CertID certID }
}

type certID struct {
	Hash    pkix.AlgorithmIdentifier
	Name    []byte
	KeyHash []byte
	Serial  *big.Int
}

// aboutIssuer reports whether an answer is about the issuer's certificate, and not another CA's of the same number.
func aboutIssuer(response *ocsp.Response, issuer *x509.Certificate) bool {
	var data responseData
	if _, err := asn1.Unmarshal(response.TBSResponseData, &data); err != nil {
		return false
	}
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		Bits      asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &key); err != nil {
		return false
	}
	for _, single := range data.Responses {
		if single.CertID.Serial.Cmp(response.SerialNumber) != 0 {
			continue
		}
		// the first is the one that package ocsp took
		return bytes.Equal(single.CertID.Name, sum(response.IssuerHash, issuer.RawSubject)) &&
			bytes.Equal(single.CertID.KeyHash, sum(response.IssuerHash, key.Bits.RightAlign()))
	}
	return false
}

func sum(h crypto.Hash, data []byte) []byte {
	d := h.New()
	d.Write(data)
	return d.Sum(nil)
}
