package ca_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
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
		Organization: long(64), OrganizationalUnit: long(64), Locality: long(128), Province: long(128), StreetAddress: long(128), PostalCode: long(16),
		ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: oidSurname, Value: long(64)[0]}, {Type: oidGivenName, Value: long(64)[0]}, {Type: oidTitle, Value: long(64)[0]},
			typed(oidDC, asn1.TagIA5String, "example"), typed(oidMail, asn1.TagIA5String, strings.Repeat("a", 255-len("@example.com"))+"@example.com"),
		},
	}
}

var (
	oidCN        = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidSurname   = asn1.ObjectIdentifier{2, 5, 4, 4}
	oidSerial    = asn1.ObjectIdentifier{2, 5, 4, 5}
	oidC         = asn1.ObjectIdentifier{2, 5, 4, 6}
	oidTitle     = asn1.ObjectIdentifier{2, 5, 4, 12}
	oidGivenName = asn1.ObjectIdentifier{2, 5, 4, 42}
	oidDC        = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
	oidMail      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

// typed is an attribute of a string type.
func typed(oid asn1.ObjectIdentifier, tag int, value string) pkix.AttributeTypeAndValue {
	return pkix.AttributeTypeAndValue{Type: oid, Value: asn1.RawValue{Tag: tag, Bytes: []byte(value)}}
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
			n.ExtraNames = []pkix.AttributeTypeAndValue{typed(oidC, asn1.TagUTF8String, "GB")}
		}, "in a PrintableString"},
		"the postal code": {func(n *pkix.Name) { n.PostalCode[0] += "a" }, "the postal code of its subject is longer than 16"},
		"the surname":     {func(n *pkix.Name) { n.ExtraNames[0].Value = strings.Repeat("a", 300) }, "the surname of its subject is longer than 64"},
		"the given name":  {func(n *pkix.Name) { n.ExtraNames[1].Value = strings.Repeat("a", 65) }, "the given name of its subject is longer than 64"},
		"the title":       {func(n *pkix.Name) { n.ExtraNames[2].Value = strings.Repeat("a", 65) }, "the title of its subject is longer than 64"},
		"a DC in UTF-8":   {func(n *pkix.Name) { n.ExtraNames[3] = typed(oidDC, asn1.TagUTF8String, "example") }, "DC of its subject is not an IA5String"},
		"the e-mail address": {func(n *pkix.Name) {
			n.ExtraNames[4] = typed(oidMail, asn1.TagIA5String, strings.Repeat("a", 256))
		}, "the e-mail address of its subject is longer than 255"},
		"a serial number in UTF-8": {func(n *pkix.Name) {
			n.SerialNumber, n.ExtraNames[0] = "", typed(oidSerial, asn1.TagUTF8String, "1")
		}, "SERIALNUMBER of its subject is not a PrintableString"},
		"an asterisk in a PrintableString": {func(n *pkix.Name) {
			n.CommonName, n.ExtraNames[0] = "", typed(oidCN, asn1.TagPrintableString, "a*b")
		}, "a PrintableString with a character that has no place in one"},
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
}

// TestAuthorityNames: a CA has no name that a linter finds something in, and then there is none.
func TestAuthorityNames(t *testing.T) {
	good := func() pkix.Name {
		return pkix.Name{CommonName: "CA", Country: []string{"GB"}, Organization: []string{"x"}}
	}
	for what, c := range map[string]struct {
		change func(*pkix.Name)
		want   string
	}{
		"a small country":        {func(n *pkix.Name) { n.Country[0] = "gb" }, "two capital letters"},
		"a country that is not":  {func(n *pkix.Name) { n.Country[0] = "ZZ" }, `the C "ZZ", which ISO 3166-1 does not have`},
		"half of two countries":  {func(n *pkix.Name) { n.Country[0] = "D " }, "two capital letters"},
		"an address":             {func(n *pkix.Name) { n.CommonName = "10.0.0.1" }, "an address as CN"},
		"an address of IPv6":     {func(n *pkix.Name) { n.CommonName = "fe80::1" }, "an address as CN"},
		"the name of an address": {func(n *pkix.Name) { n.CommonName = "1.0.0.10.in-addr.ARPA" }, "an address as CN"},
		"nothing but signs":      {func(n *pkix.Name) { n.Organization[0] = "-" }, "without a letter or a digit"},
		"what cannot be seen":    {func(n *pkix.Name) { n.Organization[0] = "a\u202eb" }, "the character U+202E, which cannot be seen"},
		"a serial number in UTF-8": {func(n *pkix.Name) {
			n.ExtraNames = []pkix.AttributeTypeAndValue{typed(oidSerial, asn1.TagUTF8String, "a_b")}
		}, "not a PrintableString"},
	} {
		n := good()
		c.change(&n)
		subject, err := asn1.Marshal(n.ToRDNSequence())
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "ca")
		err = ca.Init(ca.Config{Dir: dir, Subject: subject, Days: 1, CRLDays: 1, KeyFile: []byte("x"), Now: now, Key: ecKey(t, elliptic.P256())})
		if _, open := ca.Open(dir, nil); err == nil || !strings.Contains(err.Error(), c.want) || open == nil {
			t.Errorf("%s: %v, %v", what, err, open)
		}
	}
}

// TestInvisible: a request whose subject has a character that shows nothing, or turns what stands beside it, is none,
// also for a CA elsewhere. What shows is as good as it was, in any script.
func TestInvisible(t *testing.T) {
	parse := func(cn string) error {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, ecKey(t, elliptic.P256()))
		if err != nil {
			t.Fatal(err)
		}
		_, err = ca.ParseRequest(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
		return err
	}
	for what, r := range map[string]rune{
		"right-to-left override": 0x202e, "isolate": 0x2067, "right-to-left mark": 0x200f, "Arabic letter mark": 0x61c, "zero width space": 0x200b, "joiner": 0x200d,
		"byte order mark": 0xfeff, "soft hyphen": 0xad, "line separator": 0x2028, "paragraph separator": 0x2029, "private use": 0xe000, "unassigned": 0x378,
		"no character": 0xffff, "tag": 0xe0041, "escape": 0x1b, "next line": 0x85, "no-break space": 0xa0, "Hangul filler": 0x3164,
		"half a filler": 0xffa0, "grapheme joiner": 0x34f, "variation selector": 0xfe0f, "empty Braille cell": 0x2800,
	} {
		if err := parse("p-" + string(r) + "x"); !errors.Is(err, ca.ErrRequest) || !strings.Contains(err.Error(), fmt.Sprintf("the character %U, which cannot be seen", r)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, cn := range []string{"gp_f1 a9", "Zoë e\u0301", "株式会社", "شركة", "חברה", "हिन्दी", "🚀", "\ufffd"} {
		if err := parse(cn); err != nil {
			t.Errorf("%q: %v", cn, err)
		}
	}
}
