package revocation_test

import (
	"crypto/fips140"
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/revocation"
)

// byLists is a configuration of CAs and lists.
func byLists(soft bool, cas []*authority, lists ...[]byte) revocation.Config {
	c := revocation.Config{Soft: soft}
	for _, ca := range cas {
		c.CAs = append(c.CAs, ca.certificate)
	}
	for _, l := range lists {
		c.Lists = append(c.Lists, revocation.Source{Content: l})
	}
	return c
}

// sha1Signed has a certificate signed as nobody does any more.
func sha1Signed(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }

// TestIntermediatesThatAreTrusted: where root and intermediate are both trusted, a chain may end in the intermediate, and what the root says
// of it counts; where the root is not, the intermediate is an anchor like any other.
func TestIntermediatesThatAreTrusted(t *testing.T) {
	root, stranger := newAuthority("root", ecKey(), nil), newAuthority("root", ecKey(), nil)
	above := newAuthority("above", ecKey(), root)
	between := newAuthority("between", ecKey(), above)
	direct := newAuthority("direct", ecKey(), root)
	var old *authority
	fips140.WithoutEnforcement(func() { old = newAuthority("old", ecKey(), root, sha1Signed) })
	renewed := newAuthority("root", ecKey(), root) // the root's next key, signed with its last one
	of := func(all ...*authority) []*authority { return all }
	revokes := func(ca *authority, all ...*authority) []byte {
		var revoked []*x509.Certificate
		for _, a := range all {
			revoked = append(revoked, a.certificate)
		}
		return ca.list(1, revoked)
	}
	ended := from(-2*time.Hour, -time.Hour)
	for _, test := range []struct {
		name       string
		ca         *authority // whose client it is: the anchor
		cas        []*authority
		lists      [][]byte
		hard, soft error
	}{
		{"revoked", direct, of(root, direct), [][]byte{revokes(root, direct), revokes(direct)}, revocation.ErrRevoked, revocation.ErrRevoked},
		{"revoked, in another order", direct, of(direct, stranger, root), [][]byte{revokes(direct), revokes(root, direct)}, revocation.ErrRevoked, revocation.ErrRevoked},
		{"not revoked", direct, of(root, direct), [][]byte{revokes(root, above), revokes(direct)}, nil, nil},
		{"no list of the root's", direct, of(root, direct), [][]byte{revokes(direct)}, revocation.ErrUnknown, nil},
		{"one that has ended", direct, of(root, direct), [][]byte{root.list(1, nil, ended), revokes(direct)}, revocation.ErrUnknown, nil},
		{"the root is not trusted", direct, of(direct), [][]byte{revokes(root, direct), revokes(direct)}, nil, nil},
		{"a CA of the root's name is", direct, of(stranger, direct), [][]byte{revokes(stranger, direct), revokes(direct)}, nil, nil},
		{"above the one above", between, of(root, above, between), [][]byte{revokes(root, above), revokes(above), revokes(between)}, revocation.ErrRevoked, revocation.ErrRevoked},
		{"the one above is not trusted", between, of(root, between), [][]byte{revokes(root, above), revokes(above, between), revokes(between)}, nil, nil},
		{"a signature that is none any more", old, of(root, old), [][]byte{revokes(root, old), revokes(old)}, revocation.ErrRevoked, revocation.ErrRevoked},
		{"that of another CA of the name", old, of(stranger, old), [][]byte{revokes(stranger, old), revokes(old)}, nil, nil},
		{"a root's next key", renewed, of(root, renewed), [][]byte{revokes(root, renewed), revokes(renewed)}, revocation.ErrRevoked, revocation.ErrRevoked},
	} {
		for _, soft := range []bool{false, true} {
			want := test.hard
			if soft {
				want = test.soft
			}
			b := newBench(t, byLists(soft, test.cas, test.lists...))
			for range 2 {
				if err := b.judge(test.ca.client()[:2]); !errors.Is(err, want) {
					t.Errorf("%s, soft %v: %v, want %v", test.name, soft, err, want)
				}
			}
		}
	}
	c := byLists(false, of(between), revokes(above, between), revokes(between))
	c.Intermediates = []*x509.Certificate{above.certificate}
	if err := newBench(t, c).judge(between.client()[:2]); !errors.Is(err, revocation.ErrRevoked) {
		t.Errorf("revoked by one of the intermediates of the configuration: %v", err)
	}
	if err := newBench(t, byLists(false, of(root, direct), revokes(root, direct))).judge([]*x509.Certificate{direct.certificate}); !errors.Is(err, revocation.ErrRevoked) {
		t.Errorf("a chain of one: %v", err)
	}
}

// TestCAsThatSignedEachOther: there is an end to a chain.
func TestCAsThatSignedEachOther(t *testing.T) {
	one, two := newAuthority("one", ecKey(), nil), newAuthority("two", ecKey(), nil)
	cross := func(of, by *authority) *authority {
		c := template(of.certificate.Subject.CommonName)
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		return &authority{certificate: by.signs(c, of.key.Public()), key: of.key}
	}
	oneByTwo, twoByOne := cross(one, two), cross(two, one)
	judge := func(cas []*authority, lists ...[]byte) error {
		return newBench(t, byLists(false, cas, lists...)).judge(oneByTwo.client()[:2])
	}
	if err := judge([]*authority{oneByTwo, twoByOne}, one.list(1, nil), two.list(1, nil)); err != nil {
		t.Error(err)
	}
	if err := judge([]*authority{oneByTwo, twoByOne}, one.list(1, nil), two.list(1, []*x509.Certificate{oneByTwo.certificate})); !errors.Is(err, revocation.ErrRevoked) {
		t.Error(err)
	}
	// The CA's word for itself goes before that of one that has signed it too.
	third := newAuthority("third", ecKey(), nil)
	twoByThird := cross(two, third)
	for _, cas := range [][]*authority{{oneByTwo, third, twoByThird, two}, {oneByTwo, third, two, twoByThird}} {
		if err := judge(cas, one.list(1, nil), two.list(1, nil), third.list(1, []*x509.Certificate{twoByThird.certificate})); err != nil {
			t.Error(err)
		}
	}
}

// TestRevokedInOneChain: a certificate that is revoked in one of a client's chains is so in the others, where nobody could be asked.
func TestRevokedInOneChain(t *testing.T) {
	root := newAuthority("root", ecKey(), nil)
	above := newAuthority("above", ecKey(), root)
	s := newResponder(t, above)
	between := newAuthority("between", ecKey(), above, names(s.URL))
	other := template("between") // of the same key, by the root
	other.IsCA, other.BasicConstraintsValid, other.KeyUsage = true, true, x509.KeyUsageCertSign
	cross := root.signs(other, between.key.Public())
	long := between.client()
	short, crossed := long[:2], []*x509.Certificate{long[0], cross, root.certificate}
	trusted := []*authority{root, between}
	any := func(b *bench, chains ...[]*x509.Certificate) error { return b.checker.Any(chains, b.now()) }

	listed := newBench(t, byLists(true, trusted, above.list(1, []*x509.Certificate{between.certificate})))
	s.answers(revoked)
	c := byLists(true, trusted)
	c.OCSP = &revocation.OCSP{Soft: true}
	told := newBench(t, c)
	if err := told.judge(long); !errors.Is(err, revocation.ErrRevoked) {
		t.Fatal(err)
	}
	for name, b := range map[string]*bench{"list": listed, "OCSP": told} {
		if err := any(b, short); err != nil {
			t.Errorf("%s: the explicit anchor alone: %v", name, err)
		}
		for _, chains := range [][][]*x509.Certificate{{short, long}, {long, short}} {
			if err := any(b, chains...); !errors.Is(err, revocation.ErrRevoked) {
				t.Errorf("%s: %v", name, err)
			}
		}
		otherForm := []*x509.Certificate{long[0], otherSignature(between.certificate)}
		if err := any(b, otherForm, long); !errors.Is(err, revocation.ErrRevoked) {
			t.Errorf("%s: with another signature: %v", name, err)
		}
		if err := any(b, short, long, crossed); err != nil {
			t.Errorf("%s: by the other certificate of that CA: %v", name, err)
		}
		var passed [][]*x509.Certificate
		for chain, found := range b.checker.Each([][]*x509.Certificate{short, crossed, long}, b.now()) {
			if found.Err == nil {
				passed = append(passed, chain)
			}
		}
		if len(passed) != 1 || !slices.Equal(passed[0], crossed) {
			t.Errorf("%s: %d pass", name, len(passed))
		}
	}
}

// TestRespondersAndTrustedIntermediates: the responder of the root is asked about an intermediate that is trusted besides.
func TestRespondersAndTrustedIntermediates(t *testing.T) {
	root := newAuthority("root", ecKey(), nil)
	s := newResponder(t, root)
	s.answers(revoked)
	between := newAuthority("between", ecKey(), root, names(s.URL))
	c := byLists(false, []*authority{between, root})
	c.OCSP = &revocation.OCSP{Soft: true}
	if err := newBench(t, c).judge(between.client()[:2]); !errors.Is(err, revocation.ErrRevoked) || s.asked.Load() != 1 {
		t.Errorf("%v, %d questions", err, s.asked.Load())
	}
}
