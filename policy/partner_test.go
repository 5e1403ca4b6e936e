package policy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
)

// authority is a CA for tests.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	key := newKey(t)
	return &authority{issue(t, template, template, &key.PublicKey, key), key}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func issue(t testing.TB, template, parent *x509.Certificate, public *ecdsa.PublicKey, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// leaf issues a certificate with a subject in DER.
func (a *authority) leaf(t testing.TB, subject []byte) *x509.Certificate {
	t.Helper()
	return issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), RawSubject: subject, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
	}, a.certificate, &newKey(t).PublicKey, a.key)
}

func dn(t testing.TB, cn string) []byte {
	t.Helper()
	return name(t, one(oidCN, 12, cn), one(oidC, 19, "US"))
}

func refused(t *testing.T, err error, reason string) {
	t.Helper()
	r, ok := errors.AsType[*policy.Refused](err)
	if !ok || r.Reason != reason || r.Kind != policy.KindCertificate {
		t.Fatalf("%v, want a certificate refused as %q", err, reason)
	}
}

func TestByChain(t *testing.T) {
	ca, second := newAuthority(t, "partners"), newAuthority(t, "partners")
	leaf := ca.leaf(t, dn(t, commonName))
	pinned := ca.leaf(t, dn(t, "pinned"))
	partners, err := policy.NewPartners([]policy.Partner{
		{ID: "plain", Subjects: []policy.Subject{subject(t, "CN="+commonName+",C=US")}},
		{ID: "other-ca", Subjects: []policy.Subject{subject(t, "CN="+commonName+",C=US"), subject(t, "CN=new,C=US")}, CA: []policy.Fingerprint{policy.FingerprintOf(second.certificate)}},
		{ID: "pinned", Subjects: []policy.Subject{subject(t, "C=US,CN=pinned")}, Pins: []policy.Fingerprint{{1}, policy.PinOf(pinned)}},
		{ID: "off", Disabled: true, Subjects: []policy.Subject{subject(t, "C=US,CN=off")}},
		{ID: "keys-only"},
	}, policy.FingerprintOf(ca.certificate))
	if err != nil {
		t.Fatal(err)
	}
	intermediate := issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "sub"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), KeyUsage: x509.KeyUsageCertSign,
	}, ca.certificate, &second.key.PublicKey, ca.key)
	for title, test := range map[string]struct {
		chain  []*x509.Certificate
		id     string
		reason string
	}{
		"under its CA":            {[]*x509.Certificate{leaf, ca.certificate}, "plain", ""},
		"with an intermediate":    {[]*x509.Certificate{leaf, intermediate, ca.certificate}, "plain", ""},
		"same subject, second CA": {[]*x509.Certificate{second.leaf(t, dn(t, commonName)), second.certificate}, "other-ca", ""},
		"second subject":          {[]*x509.Certificate{second.leaf(t, dn(t, "new")), second.certificate}, "other-ca", ""},
		"subject of another CA":   {[]*x509.Certificate{ca.leaf(t, dn(t, "new")), ca.certificate}, "", policy.RefusedPartner},
		"ends in an intermediate": {[]*x509.Certificate{leaf, intermediate}, "", policy.RefusedPartner},
		"pinned key":              {[]*x509.Certificate{pinned, ca.certificate}, "pinned", ""},
		"not the pinned key":      {[]*x509.Certificate{ca.leaf(t, dn(t, "pinned")), ca.certificate}, "", policy.RefusedCertificate},
		"disabled is found":       {[]*x509.Certificate{ca.leaf(t, dn(t, "off")), ca.certificate}, "off", ""},
		"unknown subject":         {[]*x509.Certificate{ca.leaf(t, dn(t, "stranger")), ca.certificate}, "", policy.RefusedPartner},
		"look-alike":              {[]*x509.Certificate{ca.leaf(t, dn(t, strings.Replace(commonName, "a", "а", 1))), ca.certificate}, "", policy.RefusedPartner},
		"NUL":                     {[]*x509.Certificate{ca.leaf(t, dn(t, commonName+"\x00")), ca.certificate}, "", policy.RefusedCertificate},
		"two CN":                  {[]*x509.Certificate{ca.leaf(t, name(t, one(oidCN, 12, commonName), one(oidCN, 12, "x"), one(oidC, 19, "US"))), ca.certificate}, "", policy.RefusedCertificate},
		"multi-valued RDN":        {[]*x509.Certificate{ca.leaf(t, name(t, rdn{one(oidCN, 12, commonName)[0], one(oidC, 19, "US")[0]})), ca.certificate}, "", policy.RefusedCertificate},
		"subject of the next RDN": {[]*x509.Certificate{ca.leaf(t, name(t, one(oidCN, 12, commonName+",C=US"))), ca.certificate}, "", policy.RefusedPartner},
		"the CA itself":           {[]*x509.Certificate{ca.certificate}, "", policy.RefusedCertificate},
		"nothing":                 {nil, "", policy.RefusedCertificate},
	} {
		t.Run(title, func(t *testing.T) {
			p, err := partners.ByChain(test.chain)
			if test.reason != "" {
				refused(t, err, test.reason)
				if p != nil {
					t.Fatal("a partner beside an error")
				}
				return
			}
			if err != nil || p.ID != test.id {
				t.Fatalf("ByChain = %v, %v; want %s", p, err, test.id)
			}
		})
	}
	var ids []string
	for _, p := range partners.All() {
		ids = append(ids, p.ID)
	}
	if got := strings.Join(ids, " "); got != "keys-only off other-ca pinned plain" {
		t.Errorf("all partners: %s", got)
	}
	var none *policy.Partners
	_, err = none.ByChain([]*x509.Certificate{leaf, ca.certificate})
	refused(t, err, policy.RefusedCertificate)
	if none.ByID("plain") != nil || none.All() != nil || none.Len() != 0 || partners.ByID("plain").ID != "plain" || partners.ByID("PLAIN") != nil || partners.Len() != 5 {
		t.Error("look-up by id is wrong")
	}
}

func TestPartnersAreCheckedAtLoad(t *testing.T) {
	a, b := subject(t, "CN=a,C=US"), subject(t, "CN=b")
	one, two := policy.Fingerprint{1}, policy.Fingerprint{2}
	for title, test := range map[string]struct {
		list     []policy.Partner
		defaults []policy.Fingerprint
		want     []string // parts of the error; none: it loads
	}{
		"one subject, two CAs":       {[]policy.Partner{{ID: "x", Subjects: []policy.Subject{a}, CA: []policy.Fingerprint{one}}, {ID: "y", Subjects: []policy.Subject{a}, CA: []policy.Fingerprint{two}}}, nil, nil},
		"one subject, one CA":        {[]policy.Partner{{ID: "x", Subjects: []policy.Subject{a}}, {ID: "y", Subjects: []policy.Subject{subject(t, "C=US,CN=a")}}}, []policy.Fingerprint{one}, []string{`"y"`, `"x"`, "CN=a,C=US"}},
		"default meets named":        {[]policy.Partner{{ID: "x", Subjects: []policy.Subject{a}}, {ID: "y", Subjects: []policy.Subject{a}, CA: []policy.Fingerprint{two, one}}}, []policy.Fingerprint{one}, []string{`"y"`, `"x"`}},
		"a subject twice":            {[]policy.Partner{{ID: "x", Subjects: []policy.Subject{a, b, a}}}, []policy.Fingerprint{one}, []string{`"x"`}},
		"no CA at all":               {[]policy.Partner{{ID: "x", Subjects: []policy.Subject{a}}}, nil, []string{`"x"`, "no CA"}},
		"two CAs, none named":        {[]policy.Partner{{ID: "x", Subjects: []policy.Subject{a}}}, []policy.Fingerprint{one, two}, []string{`"x"`, "trust 2"}},
		"CA without subject":         {[]policy.Partner{{ID: "x", CA: []policy.Fingerprint{one}}}, nil, []string{`"x"`}},
		"pin without subject":        {[]policy.Partner{{ID: "x", Pins: []policy.Fingerprint{one}}}, nil, []string{`"x"`}},
		"zero subject":               {[]policy.Partner{{ID: "x", Subjects: []policy.Subject{{}}}}, []policy.Fingerprint{one}, []string{"empty certificate subject"}},
		"no id":                      {[]policy.Partner{{}}, nil, []string{"the id must be"}},
		"id with space":              {[]policy.Partner{{ID: "a b"}}, nil, []string{"the id must be"}},
		"id with newline":            {[]policy.Partner{{ID: "a\n"}}, nil, []string{"the id must be"}},
		"long id":                    {[]policy.Partner{{ID: strings.Repeat("a", 65)}}, nil, []string{"the id must be"}},
		"id twice":                   {[]policy.Partner{{ID: "x"}, {ID: "x"}}, nil, []string{"two partners"}},
		"negative concurrency":       {[]policy.Partner{{ID: "x", MaxConcurrent: -1}}, nil, []string{"max_concurrent"}},
		"every problem, not a first": {[]policy.Partner{{ID: "x", MaxConcurrent: -1}, {ID: "y y"}}, nil, []string{`"x"`, `"y y"`}},
	} {
		t.Run(title, func(t *testing.T) {
			p, err := policy.NewPartners(test.list, test.defaults...)
			if (err == nil) != (len(test.want) == 0) || (p == nil) != (err != nil) {
				t.Fatalf("NewPartners = %v, %v", p, err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %s", err, want)
				}
			}
		})
	}
}

// TestPartnersKeepTheirOwn: what a caller does with its slices afterwards does
// not reach the registry.
func TestPartnersKeepTheirOwn(t *testing.T) {
	list := []policy.Partner{{ID: "x", Subjects: []policy.Subject{subject(t, "CN=a")}, CA: []policy.Fingerprint{{1}}, Pins: []policy.Fingerprint{{1}}}}
	partners, err := policy.NewPartners(list)
	if err != nil {
		t.Fatal(err)
	}
	list[0].ID, list[0].CA[0], list[0].Pins[0] = "y", policy.Fingerprint{2}, policy.Fingerprint{2}
	if p := partners.ByID("x"); p.ID != "x" || p.CA[0] != (policy.Fingerprint{1}) || p.Pins[0] != (policy.Fingerprint{1}) {
		t.Error("the registry was changed from outside")
	}
}

func TestParseFingerprint(t *testing.T) {
	plain := strings.Repeat("aB", 32)
	colons := strings.TrimSuffix(strings.Repeat("AB:", 32), ":")
	want := policy.Fingerprint([]byte(strings.Repeat("\xab", 32)))
	for _, text := range []string{plain, colons} {
		if got, err := policy.ParseFingerprint(text); err != nil || got != want {
			t.Errorf("ParseFingerprint(%q) = %x, %v", text, got, err)
		}
	}
	for _, text := range []string{"", plain[2:], plain + "ab", plain[:62] + "zz", colons[3:], colons + ":", ":" + plain[1:], strings.Replace(colons, ":", "-", 1), strings.Replace(colons, "AB", "A:", 1)} {
		if got, err := policy.ParseFingerprint(text); err == nil || got != (policy.Fingerprint{}) {
			t.Errorf("ParseFingerprint(%q) = %x, %v", text, got, err)
		}
	}
}

// BenchmarkByChain runs once per request on the partners' listener.
func BenchmarkByChain(b *testing.B) {
	ca := newAuthority(b, "partners")
	chain := []*x509.Certificate{ca.leaf(b, dn(b, commonName)), ca.certificate}
	var list []policy.Partner
	for i := range 100 {
		list = append(list, policy.Partner{ID: fmt.Sprint("p", i), Subjects: []policy.Subject{subject(b, fmt.Sprintf("CN=%d,C=US", i))}})
	}
	list = append(list, policy.Partner{ID: "it", Subjects: []policy.Subject{subject(b, "CN="+commonName+",C=US")}})
	partners, err := policy.NewPartners(list, policy.FingerprintOf(ca.certificate))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if p, err := partners.ByChain(chain); err != nil || p.ID != "it" {
			b.Fatal(p, err)
		}
	}
}

// TestPartnerErrors: each partner with a problem is named by its place in the list, also where the problem is one before it.
func TestPartnerErrors(t *testing.T) {
	s := []policy.Subject{subject(t, "CN=x")}
	_, err := policy.NewPartners([]policy.Partner{{ID: "a", Subjects: s}, {ID: "b", Subjects: s}, {ID: "c"}, {ID: "a"}, {ID: "not an id"}}, policy.Fingerprint{1})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatal(err)
	}
	var at []int
	for _, err := range joined.Unwrap() {
		if of, ok := errors.AsType[*policy.PartnerError](err); ok {
			at = append(at, of.Index)
		}
	}
	if !slices.Equal(at, []int{1, 3, 4}) {
		t.Errorf("%v: %v", at, err)
	}
}
