package ca_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault/ca"
)

func requestOf(t testing.TB, subject pkix.Name) *ca.Request {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, ecKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := ca.ParseRequest(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// longName has every attribute that has a bound, as long as that is.
func longName() pkix.Name {
	long := func(n int) []string { return []string{strings.Repeat("ä", n)} }
	return pkix.Name{
		CommonName: long(64)[0], SerialNumber: strings.Repeat("1", 64), Country: []string{"GB"},
		Organization: long(64), OrganizationalUnit: long(64), Locality: long(128), Province: long(128), StreetAddress: long(128),
	}
}

// TestNames: what a linter would find in a subject is refused, and nothing was issued. TestZlint has the one that is as
// long as it may be.
func TestNames(t *testing.T) {
	_, open := authority(t, elliptic.P256(), 100)
	a := open()
	defer a.Close()
	for what, c := range map[string]struct {
		change func(*pkix.Name)
		want   string // in the error; "" for none
	}{
		"as long as may be":  {func(*pkix.Name) {}, ""},
		"CN":                 {func(n *pkix.Name) { n.CommonName += "a" }, "CN of its subject is longer than 64 characters"},
		"SERIALNUMBER":       {func(n *pkix.Name) { n.SerialNumber += "1" }, "SERIALNUMBER of its subject is longer than 64"},
		"O":                  {func(n *pkix.Name) { n.Organization[0] += "a" }, "O of its subject is longer than 64"},
		"OU":                 {func(n *pkix.Name) { n.OrganizationalUnit[0] += "a" }, "OU of its subject is longer than 64"},
		"L":                  {func(n *pkix.Name) { n.Locality[0] += "a" }, "L of its subject is longer than 128"},
		"ST":                 {func(n *pkix.Name) { n.Province[0] += "a" }, "ST of its subject is longer than 128"},
		"STREET":             {func(n *pkix.Name) { n.StreetAddress[0] += "a" }, "STREET of its subject is longer than 128"},
		"a country of three": {func(n *pkix.Name) { n.Country[0] = "GBR" }, "two capital letters"},
		"a small country":    {func(n *pkix.Name) { n.Country[0] = "gb" }, "two capital letters"},
		"a country in UTF-8": {func(n *pkix.Name) {
			n.Country = nil
			n.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("GB")}}}
		}, "in a PrintableString"},
		"a space before": {func(n *pkix.Name) { n.CommonName = " a" }, "white space"},
		"a space after":  {func(n *pkix.Name) { n.Organization[0] = "a " }, "white space"},
	} {
		n := longName()
		c.change(&n)
		before := len(a.Of("p"))
		_, err := a.Issue("p", "", requestOf(t, n), 90, now)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ca.ErrRequest) || !strings.Contains(err.Error(), c.want) || len(a.Of("p")) != before) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	// A CA has no other name either.
	subject, err := asn1.Marshal(pkix.Name{CommonName: "CA", Country: []string{"gb"}, Organization: []string{"x"}}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "ca")
	err = ca.Init(ca.Config{Dir: dir, Subject: subject, Days: 1, CRLDays: 1, KeyFile: []byte("x"), Now: now, Key: ecKey(t, elliptic.P256())})
	if _, open := ca.Open(dir, nil); err == nil || !strings.Contains(err.Error(), "two capital letters") || open == nil {
		t.Errorf("%v, %v", err, open)
	}
}
