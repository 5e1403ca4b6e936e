package revocation

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// This file is what a revocation list is.

// Extensions of lists and of their entries (RFC 5280 sections 5.2 and 5.3).
var (
	oidCRLNumber          = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidDeltaIndicator     = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingDistributor = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidAuthorityKey       = asn1.ObjectIdentifier{2, 5, 29, 35}
)

var (
	errUnsigned = errors.New("it is not signed by the CA that it names")
	errNoList   = errors.New("it does not parse as a revocation list")
)

// list is one that has been parsed. Who signed it is verified against the CA whose certificate is judged.
type list struct {
	parsed  *x509.RevocationList
	serials map[string]struct{} // big-endian bytes
	scope   []string            // of which distribution points' certificates it is complete, by URI; nil: of all
	signed  sync.Map            // whether a CA signed the list, by SHA-256 of its certificate
	others  atomic.Int64        // of those, how many did not
}

// inForce is the last list that came from a place, and the last ones of other CAs that came from there before. It is never changed.
type inForce struct {
	*list
	beside []*list
}

// parseList reads a list, DER or PEM. One without nextUpdate, a partial one (delta, or for some kinds of certificates or reasons), an
// indirect one, and one with a critical extension that is unknown here are refused.
func parseList(content []byte) (*list, error) {
	content, err := listDER(content)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseRevocationList(content)
	if err != nil {
		return nil, errNoList
	}
	if weak(parsed.SignatureAlgorithm) {
		return nil, fmt.Errorf("it is signed with %v", parsed.SignatureAlgorithm)
	}
	if parsed.NextUpdate.IsZero() {
		return nil, errors.New("it has no nextUpdate: nobody can tell whether it is current")
	}
	var scope []string
	for _, e := range parsed.Extensions {
		switch {
		case e.Id.Equal(oidDeltaIndicator):
			return nil, errors.New("it has a delta CRL indicator: it is a partial list, want a complete one of one CA")
		case e.Id.Equal(oidIssuingDistributor):
			if scope, err = parseScope(e.Value); err != nil {
				return nil, err
			}
		case e.Critical && !e.Id.Equal(oidCRLNumber) && !e.Id.Equal(oidAuthorityKey):
			return nil, fmt.Errorf("it has the critical extension %v, which is unknown here", e.Id)
		}
	}
	l := &list{serials: make(map[string]struct{}, len(parsed.RevokedCertificateEntries)), scope: scope}
	l.parsed = &x509.RevocationList{ // without the entries, which are most of a large one
		Raw: parsed.Raw, RawTBSRevocationList: parsed.RawTBSRevocationList, RawIssuer: parsed.RawIssuer,
		Signature: parsed.Signature, SignatureAlgorithm: parsed.SignatureAlgorithm,
		Number: parsed.Number, AuthorityKeyId: parsed.AuthorityKeyId, ThisUpdate: parsed.ThisUpdate, NextUpdate: parsed.NextUpdate,
	}
	for _, entry := range parsed.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical {
				return nil, fmt.Errorf("an entry has the critical extension %v, which is unknown here", e.Id)
			}
		}
		l.serials[string(entry.SerialNumber.Bytes())] = struct{}{}
	}
	return l, nil
}

// maxOthers is how many CAs with a list's name and another key are remembered. There are some where a CA has a new key, and any number
// where a caller has a CA.
const maxOthers = 64

// listDER is a list's content without its PEM, if it has any.
func listDER(content []byte) ([]byte, error) {
	block, rest := pem.Decode(content)
	switch {
	case block == nil:
		return content, nil
	case block.Type != "X509 CRL" || len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("want one X509 CRL in the file, and nothing else")
	}
	return block.Bytes, nil
}

// weak reports whether signatures of an algorithm can be forged. The CheckSignature methods of x509 would take them.
func weak(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

// ofCAs returns an error where the list is in the name of one of the CAs, and signed by none.
func (l *list) ofCAs(cas []*x509.Certificate) error {
	named := false
	for _, ca := range cas {
		if l.signedBy(ca) {
			return nil
		}
		named = named || bytes.Equal(ca.RawSubject, l.parsed.RawIssuer)
	}
	if named {
		return errUnsigned
	}
	return nil
}

// signedBy reports whether a CA has signed the list, and may (key usage cRLSign).
func (l *list) signedBy(ca *x509.Certificate) bool {
	if !bytes.Equal(ca.RawSubject, l.parsed.RawIssuer) {
		return false
	}
	key := sha256.Sum256(ca.Raw)
	if known, ok := l.signed.Load(key); ok {
		return known.(bool)
	}
	signed := l.parsed.CheckSignatureFrom(ca) == nil
	if signed || l.others.Add(1) <= maxOthers {
		l.signed.Store(key, signed)
	}
	return signed
}

func (l *list) has(c *x509.Certificate) bool {
	_, listed := l.serials[string(c.SerialNumber.Bytes())]
	return listed
}

func (l *list) current(now time.Time) bool {
	return !now.Before(l.begins()) && l.parsed.NextUpdate.After(now)
}

// begins is when the list becomes current by our clock.
func (l *list) begins() time.Time { return l.parsed.ThisUpdate.Add(-clockSkew) }

// all are the list and those beside it; none where it is nil.
func (f *inForce) all() iter.Seq[*list] {
	return func(yield func(*list) bool) {
		if f == nil || !yield(f.list) {
			return
		}
		for _, other := range f.beside {
			if !yield(other) {
				return
			}
		}
	}
}

// before reports whether the list was made before another one of the same CA: by its number, and where that says nothing, as of lists for
// different certificates (RFC 5280 section 5.2.3), by its time.
func (l *list) before(other *list) bool {
	if a, b := l.parsed.Number, other.parsed.Number; a != nil && b != nil && a.Cmp(b) != 0 && slices.Equal(l.scope, other.scope) {
		return a.Cmp(b) < 0
	}
	return l.parsed.ThisUpdate.Before(other.parsed.ThisUpdate)
}

func (l *list) equal(other *list) bool { return bytes.Equal(l.parsed.Raw, other.parsed.Raw) }

// ListStatus is what is known of one list.
type ListStatus struct {
	Known                  bool // whether there is one: what a URL stands for may not have been fetched yet
	Current                bool
	ThisUpdate, NextUpdate time.Time
	Entries                int
	Points                 []string // URIs of distribution points: the list is for certificates alone that name one of these; nil: for all
}

// Lists tells of each list, in the order of the configuration.
func (c *Checker) Lists(now time.Time) []ListStatus {
	if c == nil {
		return nil
	}
	all := make([]ListStatus, len(c.lists))
	for i, s := range c.lists {
		if l := s.shown(now); l != nil {
			all[i] = ListStatus{true, l.current(now), l.parsed.ThisUpdate, l.parsed.NextUpdate, len(l.serials), l.scope}
		}
	}
	return all
}
