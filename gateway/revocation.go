package gateway

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// This file judges whether a partner's certificate has been revoked by its CA.

var (
	errRevoked           = errors.New("the certificate is revoked")
	errRevocationUnknown = errors.New("no current revocation list of the certificate's CA")
)

// Extensions of lists and of their entries (RFC 5280 sections 5.2 and 5.3).
var (
	oidCRLNumber          = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidDeltaIndicator     = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingDistributor = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidAuthorityKey       = asn1.ObjectIdentifier{2, 5, 29, 35}
)

// Revocations are the revocation lists (RFC 5280 section 5) that a listener's client certificates are held against. They do
// not change: new lists come with a new configuration, which every open connection is judged by anew. A nil *Revocations
// refuses nobody. Safe for concurrent use.
type Revocations struct {
	lists []*revocationList
	soft  bool
}

// revocationList is one list that has been parsed. Who signed it is verified against the CA whose certificate is judged.
type revocationList struct {
	list    *x509.RevocationList
	serials map[string]bool // big-endian bytes
	signed  sync.Map        // by SHA-256 of a CA's certificate: whether that CA signed the list
}

// NewRevocations returns what holds certificates against lists, each DER or PEM. A list in the name of one of the CAs must be
// signed by one of them; one in another name counts where an intermediate of a verified chain has signed it. A list without
// nextUpdate, a partial list (delta, issuing distribution point), an indirect one, and one with a critical extension that is
// unknown here are refused. With soft, a certificate whose CA has no current list passes; without, it is refused.
func NewRevocations(cas []*x509.Certificate, lists [][]byte, soft bool) (*Revocations, error) {
	r := &Revocations{soft: soft}
	for i, content := range lists {
		l, err := parseRevocationList(content)
		if err != nil {
			return nil, &RevocationError{i, err}
		}
		named, signed := false, false
		for _, ca := range cas {
			if bytes.Equal(ca.RawSubject, l.list.RawIssuer) {
				named, signed = true, signed || l.signedBy(ca)
			}
		}
		if named && !signed {
			return nil, &RevocationError{i, errors.New("it is not signed by the CA that it names")}
		}
		r.lists = append(r.lists, l)
	}
	return r, nil
}

// RevocationError says which of the lists is not one to go by.
type RevocationError struct {
	Index int
	Err   error
}

// Error implements error.
func (e *RevocationError) Error() string {
	return fmt.Sprintf("revocation list %d: %v", e.Index, e.Err)
}

// Unwrap returns what is wrong.
func (e *RevocationError) Unwrap() error { return e.Err }

func parseRevocationList(content []byte) (*revocationList, error) {
	if block, rest := pem.Decode(content); block != nil {
		if block.Type != "X509 CRL" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, errors.New("want one X509 CRL in the file, and nothing else")
		}
		content = block.Bytes
	}
	list, err := x509.ParseRevocationList(content)
	if err != nil {
		return nil, errors.New("it does not parse as a revocation list")
	}
	if list.NextUpdate.IsZero() {
		return nil, errors.New("it has no nextUpdate: nobody can tell whether it is current")
	}
	for _, e := range list.Extensions {
		switch {
		case e.Id.Equal(oidDeltaIndicator), e.Id.Equal(oidIssuingDistributor):
			return nil, errors.New("it is a partial or indirect list, want a complete one of one CA")
		case e.Critical && !e.Id.Equal(oidCRLNumber) && !e.Id.Equal(oidAuthorityKey):
			return nil, fmt.Errorf("it has the critical extension %v, which is unknown here", e.Id)
		}
	}
	l := &revocationList{list: list, serials: make(map[string]bool, len(list.RevokedCertificateEntries))}
	for _, entry := range list.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical {
				return nil, fmt.Errorf("an entry has the critical extension %v, which is unknown here", e.Id)
			}
		}
		l.serials[string(entry.SerialNumber.Bytes())] = true
	}
	return l, nil
}

// signedBy reports whether a CA has signed the list, and may (key usage cRLSign).
func (l *revocationList) signedBy(ca *x509.Certificate) bool {
	if !bytes.Equal(ca.RawSubject, l.list.RawIssuer) {
		return false
	}
	key := sha256.Sum256(ca.Raw)
	if known, ok := l.signed.Load(key); ok {
		return known.(bool)
	}
	signed := l.list.CheckSignatureFrom(ca) == nil
	if signed { // of others only those that callers make up would be kept
		l.signed.Store(key, true)
	}
	return signed
}

// judge refuses a verified chain (leaf first, trust anchor last) in which a certificate but the last is revoked, or, unless
// soft, in which one's CA has no current list. What it finds holds until the time that it returns, zero being as long as
// the certificates. Fails closed.
func (r *Revocations) judge(chain []*x509.Certificate, now time.Time) (until time.Time, err error) {
	if r == nil {
		return time.Time{}, nil
	}
	unknown := false
	for i := range len(chain) - 1 {
		var current time.Time // how long a list of this CA still is
		for _, l := range r.lists {
			if !l.signedBy(chain[i+1]) {
				continue
			}
			if l.serials[string(chain[i].SerialNumber.Bytes())] { // by an old list too: what is revoked stays so
				return time.Time{}, errRevoked
			}
			if !now.Before(l.list.ThisUpdate) && l.list.NextUpdate.After(now) && l.list.NextUpdate.After(current) {
				current = l.list.NextUpdate
			}
		}
		if current.IsZero() {
			unknown = true
			continue
		}
		if until.IsZero() || current.Before(until) {
			until = current
		}
	}
	if unknown && !r.soft {
		return time.Time{}, errRevocationUnknown
	}
	return until, nil
}

// any returns nil where one of the chains is good.
func (r *Revocations) any(chains [][]*x509.Certificate, now time.Time) (err error) {
	for _, chain := range chains {
		if _, err = r.judge(chain, now); err == nil {
			return nil
		}
	}
	return err
}

// Stale returns the places of the lists that are not current at a time.
func (r *Revocations) Stale(now time.Time) (stale []int) {
	for i, l := range r.lists {
		if now.Before(l.list.ThisUpdate) || !l.list.NextUpdate.After(now) {
			stale = append(stale, i)
		}
	}
	return slices.Clip(stale)
}
