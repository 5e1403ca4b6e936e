package revocation_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/revocation"
)

// field is one of a context, with others in it; leaf has none.
func field(tag int, parts ...[]byte) []byte { return tagged(tag, true, bytes.Join(parts, nil)) }
func leaf(tag int, content ...byte) []byte  { return tagged(tag, false, content) }

func tagged(tag int, compound bool, content []byte) []byte {
	der, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: compound, Bytes: content})
	must(err)
	return der
}

func uri(text string) []byte { return leaf(6, []byte(text)...) }

// pointURI is a distributionPoint with a URI.
func pointURI(text string) []byte { return field(0, field(0, uri(text))) }

func sequence(parts ...[]byte) []byte {
	der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Join(parts, nil)})
	must(err)
	return der
}

// pointing gives a list an issuing distribution point of these fields.
func pointing(fields ...[]byte) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: sequence(fields...)})
	}
}

// at gives a certificate distribution points.
func at(points ...[]byte) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Value: sequence(points...)})
	}
}

const (
	shelfOne = "http://crl.example/1.crl"
	shelfTwo = "http://crl.example/2.crl"
)

// TestListsOfDistributionPoints: a list that names a distribution point says nothing of certificates that do not name it, but revokes all
// that it names.
func TestListsOfDistributionPoints(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	listed := ca.client()
	list := ca.list(1, []*x509.Certificate{listed[0]}, pointing(field(0, field(0, uri(shelfOne), uri("ldap://crl.example/1")))))
	plain := func(c *x509.Certificate) { c.CRLDistributionPoints = []string{shelfTwo, shelfOne} }
	for _, soft := range []bool{false, true} {
		b := newBench(t, byLists(soft, []*authority{ca}, list))
		for _, test := range []struct {
			what  string
			chain []*x509.Certificate
			known bool
		}{
			{"its own", ca.client(plain), true},
			{"by one name of several", ca.client(at(sequence(field(0, field(0, uri(shelfTwo), uri("ldap://crl.example/1")))))), true},
			{"none", ca.client(), false},
			{"another", ca.client(at(sequence(pointURI(shelfTwo)))), false},
			{"for some reasons", ca.client(at(sequence(pointURI(shelfOne), leaf(1, 6, 0x40)))), false},
			{"of another issuer of lists", ca.client(at(sequence(pointURI(shelfOne), field(2, field(4, sequence()))))), false},
		} {
			if err := b.judge(test.chain); (err == nil) != (test.known || soft) || err != nil && !errors.Is(err, revocation.ErrUnknown) {
				t.Errorf("%s, soft %v: %v", test.what, soft, err)
			}
		}
		if n := b.about("no revocation list of a CA is for a certificate that does not name its distribution point", ca.certificate); n != 1 || b.said(noneCurrent) != 0 {
			t.Errorf("soft %v: %d lines, %d of another kind", soft, n, b.said(noneCurrent))
		}
		if soft && b.count(passed) != 4 {
			t.Errorf("%v passed", b.count(passed))
		}
		for _, c := range []revocation.Config{byLists(soft, []*authority{ca}, list), byLists(soft, []*authority{ca}, list, ca.list(2, nil))} {
			if b.said(currentAgain) > 0 {
				t.Errorf("soft %v: there is a list for all", soft)
			}
			b.configure(c)
			b.run()
			b.ends() // after it looked once
			b.ends = nil
		}
		if n := b.about(currentAgain, ca.certificate); n != 1 {
			t.Errorf("soft %v: %d lines that there is a list for all", soft, n)
		}
		if err := b.judge(listed); !errors.Is(err, revocation.ErrRevoked) {
			t.Errorf("revoked, soft %v: %v", soft, err)
		}
	}
	both := newBench(t, byLists(false, []*authority{ca}, list, ca.list(7, nil, pointing(pointURI(shelfTwo)))))
	for _, point := range []string{shelfOne, shelfTwo} {
		if err := both.judge(ca.client(at(sequence(pointURI(point))))); err != nil {
			t.Errorf("%s, of two lists: %v", point, err)
		}
	}
	all := newBench(t, byLists(false, []*authority{ca}, ca.list(1, nil)))
	if err := all.judge(ca.client(plain)); err != nil {
		t.Errorf("by a list for all: %v", err)
	}
	if points := both.checker.Lists(time.Now())[0].Points; len(points) != 2 || points[0] != shelfOne {
		t.Errorf("%q", points)
	}
}

// TestAListForOthers: whoever answers in a server's place takes a list out of force by none that is for other certificates, nor does a file
// by its number.
func TestAListForOthers(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	bad := ca.client(at(sequence(pointURI(shelfOne))))
	one, two := pointing(pointURI(shelfOne)), pointing(pointURI(shelfTwo))
	s := newShelf(t, ca.list(5, []*x509.Certificate{bad[0]}, one))
	b := newBench(t, byURL(ca, s))
	b.run()
	eventually(t, "the list", func() bool { return b.count(fetches, "ok") == 1 })
	s.put(ca.list(9, nil, two), nil)
	eventually(t, "a refusal", func() bool { return b.count(fetches, "partial") > 0 })
	if err := b.judge(bad); !errors.Is(err, revocation.ErrRevoked) {
		t.Error(err)
	}
	s.put(ca.list(3, nil, func(l *x509.RevocationList) { l.ThisUpdate = time.Now().Add(-time.Minute) }), nil)
	eventually(t, "a newer one for all", func() bool { return b.judge(bad) == nil })
	refused := b.count(fetches, "partial")
	s.put(ca.list(10, nil, one), nil)
	eventually(t, "a refusal of one that is for some", func() bool { return b.count(fetches, "partial") > refused })

	files := newBench(t, byLists(false, []*authority{ca}, ca.list(9, []*x509.Certificate{bad[0]}, two), ca.list(1, nil, one)))
	files.configure(byLists(false, []*authority{ca}, ca.list(2, nil, one, from(-90*time.Minute, time.Hour))))
	if files.said(noGain) != 0 {
		t.Error("numbers of different lists are held against each other")
	}
}
