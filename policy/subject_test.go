package policy_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/policy"
)

const commonName = "gp_f1a9b6c741c94510bb3b27f2e8379e29"

var (
	oidCN = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidC  = asn1.ObjectIdentifier{2, 5, 4, 6}
	oidO  = asn1.ObjectIdentifier{2, 5, 4, 10}
)

// value is an attribute value of one ASN.1 string type.
func value(tag int, text string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassUniversal, Tag: tag, Bytes: []byte(text)}
}

type attr struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type rdn []attr

// name is the DER of a Name. The set of an RDN is written by hand, so that
// what a library would not make can be made.
func name(t testing.TB, rdns ...rdn) []byte {
	t.Helper()
	var sets []asn1.RawValue
	for _, r := range rdns {
		set := asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSet, IsCompound: true}
		for _, a := range r {
			der, err := asn1.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			set.Bytes = append(set.Bytes, der...)
		}
		sets = append(sets, set)
	}
	der, err := asn1.Marshal(sets)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func one(oid asn1.ObjectIdentifier, tag int, text string) rdn { return rdn{{oid, value(tag, text)}} }

func subject(t testing.TB, text string) policy.Subject {
	t.Helper()
	s, err := policy.ParseSubject(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSubjectOfCertificate(t *testing.T) {
	const utf8, printable, ia5, bmp, t61 = asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagBMPString, asn1.TagT61String
	cn, c := one(oidCN, utf8, commonName), one(oidC, printable, "US")
	want := subject(t, "CN="+commonName+",C=US")
	many := []rdn{cn}
	for i := range 16 {
		many = append(many, one(asn1.ObjectIdentifier{1, 2, i}, utf8, "x"))
	}
	for title, test := range map[string]struct {
		der  []byte
		same bool
		err  string // in the error; "" for none
	}{
		"as configured":          {name(t, cn, c), true, ""},
		"other order":            {name(t, c, cn), true, ""},
		"other string type":      {name(t, cn, one(oidC, utf8, "US")), true, ""},
		"IA5String":              {name(t, cn, one(oidC, ia5, "US")), true, ""},
		"other case of CN":       {name(t, one(oidCN, utf8, strings.ToUpper(commonName)), c), false, ""},
		"other case of C":        {name(t, cn, one(oidC, printable, "us")), false, ""},
		"without C":              {name(t, cn), false, ""},
		"with O":                 {name(t, cn, c, one(oidO, utf8, "x")), false, ""},
		"space after":            {name(t, one(oidCN, utf8, commonName+" "), c), false, ""},
		"look-alike CN":          {name(t, one(oidCN, utf8, strings.Replace(commonName, "a", "а", 1)), c), false, ""},
		"NFD look-alike":         {name(t, one(oidCN, utf8, commonName+"\u0301"), c), false, ""},
		"values exchanged":       {name(t, one(oidCN, utf8, "US"), one(oidC, utf8, commonName)), false, ""},
		"C inside the CN":        {name(t, one(oidCN, utf8, commonName+",C=US")), false, ""},
		"NUL in CN":              {name(t, one(oidCN, utf8, commonName+"\x00.evil"), c), false, "control character"},
		"newline in CN":          {name(t, one(oidCN, utf8, commonName+"\n"), c), false, "control character"},
		"two CN":                 {name(t, cn, cn, c), false, "two values for CN"},
		"two CN, another first":  {name(t, one(oidCN, utf8, "other"), c, cn), false, "two values for CN"},
		"two C":                  {name(t, cn, c, c), false, "two values for C"},
		"no CN":                  {name(t, c), false, "no common name"},
		"multi-valued RDN":       {name(t, rdn{cn[0], c[0]}), false, "multi-valued"},
		"two CN in one RDN":      {name(t, rdn{cn[0], cn[0]}, c), false, "multi-valued"},
		"empty RDN":              {name(t, rdn{}, cn, c), false, "not a DER name"},
		"empty name":             {name(t), false, "no common name"},
		"empty CN":               {name(t, one(oidCN, utf8, ""), c), false, "empty value"},
		"BMPString":              {name(t, one(oidCN, bmp, "\x00g\x00p"), c), false, "ASN.1 tag 30"},
		"TeletexString":          {name(t, one(oidCN, t61, commonName), c), false, "ASN.1 tag 20"},
		"invalid UTF-8":          {name(t, one(oidCN, utf8, "gp_\xff"), c), false, "not UTF-8"},
		"PrintableString, 8 bit": {name(t, one(oidCN, printable, "gp_\xe9"), c), false, "outside its type"},
		"too many":               {name(t, many...), false, "more than 16"},
		"too long":               {name(t, one(oidCN, utf8, strings.Repeat("x", 1025))), false, "longer than"},
		"trailing bytes":         {append(name(t, cn, c), 0), false, "not a DER name"},
		"truncated":              {name(t, cn, c)[:20], false, "not a DER name"},
		"nothing":                {nil, false, "not a DER name"},
	} {
		t.Run(title, func(t *testing.T) {
			got, err := policy.SubjectOf(test.der)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), commonName) {
					t.Fatalf("SubjectOf = %v, want an error with %q and no value", err, test.err)
				}
				if got != (policy.Subject{}) {
					t.Fatal("a subject beside an error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (got == want) != test.same {
				t.Errorf("%s == %s is %t", got, want, got == want)
			}
		})
	}
}

func TestParseSubject(t *testing.T) {
	for text, want := range map[string]string{ // "" for: does not parse
		"CN=a":      "CN=a",
		"C=US,CN=a": "CN=a,C=US",
		"cn=a,c=US": "CN=a,C=US",
		"2.5.4.3=a": "CN=a",
		"CN=a,1.2.840.113549.1.9.1=x@example.com": "1.2.840.113549.1.9.1=x@example.com,CN=a",
		`CN=a\,b`:               `CN=a\,b`,
		`CN=a\2Cb`:              `CN=a\,b`,
		`CN=a\2cb`:              `CN=a\,b`,
		`CN=\ a\ `:              `CN=\ a\ `,
		`CN=\#a#`:               `CN=\#a#`,
		`CN=a b`:                "CN=a b",
		`CN=a=b`:                `CN=a\=b`,
		`CN=L\C4\8Di\C4\87`:     "CN=Lčić",
		"CN=Lučić":              "CN=Lučić",
		"CN=a,DC=example":       "DC=example,CN=a",
		"CN=a,O=Sue\\, Grabbit": `CN=a,O=Sue\, Grabbit`,
		"CN=a,UID=1,SERIALNUMBER=2,L=3,ST=4,STREET=5,OU=6": "UID=1,CN=a,SERIALNUMBER=2,L=3,ST=4,STREET=5,OU=6",

		"": "", "CN": "", "a": "", "CN=": "", "=a": "", "CN=a,": "", ",CN=a": "", "CN=a,,C=US": "",
		"C=US": "", "CN=a,CN=b": "", "CN=a,2.5.4.3=a": "", "CN=a,C=US,C=US": "",
		"CN=a+C=US": "", "CN=a;C=US": "", `CN="a"`: "", "CN=<a>": "", "CN=#0403616263": "",
		"CN=a, C=US": "", "CN =a": "", "CN= a": "", "CN=a ": "", " CN=a": "", "CN=a ,C=US": "",
		"XX=a,CN=a": "", "OID.2.5.4.3=a": "", "2=a,CN=a": "", "2.05=a,CN=a": "", "3.1=a,CN=a": "", "2.5.=a,CN=a": "", "2.99999999999=a,CN=a": "",
		`CN=a\`: "", `CN=a\z`: "", `CN=a\4`: "", `CN=a\00`: "", "CN=a\x00": "", "CN=a\n": "", `CN=\ff`: "", "CN=\xff": "",
		"CN=" + strings.Repeat("a", 1025): "",
	} {
		got, err := policy.ParseSubject(text)
		if err != nil {
			if want != "" {
				t.Errorf("ParseSubject(%q): %v", text, err)
			}
			if got != (policy.Subject{}) {
				t.Errorf("ParseSubject(%q): a subject beside an error", text)
			}
			continue
		}
		if got.String() != want {
			t.Errorf("ParseSubject(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestSubjectShowsWhatItIs: what cannot be seen, or turns the direction of text,
// is in hex where a subject is printed, and reads back as the same subject,
// however long that makes it.
func TestSubjectShowsWhatItIs(t *testing.T) {
	for value, want := range map[string]string{
		"p-\u202ebidi": `CN=p-\E2\80\AEbidi`, "p-\u200bzw": `CN=p-\E2\80\8Bzw`, "a\u2028b": `CN=a\E2\80\A8b`, "\u00ad": `CN=\C2\AD`, "\ue000": `CN=\EE\80\80`,
		"\u3164": `CN=\E3\85\A4`, "\ufe0f": `CN=\EF\B8\8F`, "a\u00a0": `CN=a\C2\A0`, "é,": `CN=é\,`, " é ": `CN=\ é\ `, "#é#": `CN=\#é#`, "株式 会社": "CN=株式 会社",
		strings.Repeat("\u202e", 300): "CN=" + strings.Repeat(`\E2\80\AE`, 300),
	} {
		got, err := policy.SubjectOf(name(t, one(oidCN, asn1.TagUTF8String, value)))
		if err != nil || got.String() != want {
			t.Errorf("%q is printed as %q, want %q: %v", value, got, want, err)
			continue
		}
		if read, err := policy.ParseSubject(want); err != nil || read != got {
			t.Errorf("%q reads back as %q: %v", want, read, err)
		}
	}
}

// TestSubjectIsASet: whatever the order in certificate and configuration, the
// subject is the same; whatever is changed in a value, it is another.
func TestSubjectIsASet(t *testing.T) {
	types := []asn1.ObjectIdentifier{oidC, oidO, {2, 5, 4, 11}, {1, 2, 3}, {0, 9, 2342, 19200300, 100, 1, 25}}
	text := rapid.StringMatching(`[a-zA-Zé ,+"\\<>;=#_.-]{1,8}`)
	rapid.Check(t, func(t *rapid.T) {
		rdns := []rdn{one(oidCN, asn1.TagUTF8String, text.Draw(t, "cn"))}
		for _, oid := range rapid.Permutation(types).Draw(t, "types")[:rapid.IntRange(0, len(types)).Draw(t, "n")] {
			rdns = append(rdns, one(oid, asn1.TagUTF8String, text.Draw(t, "value")))
		}
		der := func(list []rdn) []byte {
			var sequence pkix.RDNSequence
			for _, r := range list {
				sequence = append(sequence, pkix.RelativeDistinguishedNameSET{{Type: r[0].Type, Value: string(r[0].Value.Bytes)}})
			}
			b, err := asn1.Marshal(sequence)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		first, err := policy.SubjectOf(der(rdns))
		if err != nil {
			t.Fatal(err)
		}
		shuffled, err := policy.SubjectOf(der(rapid.Permutation(rdns).Draw(t, "order")))
		if err != nil || shuffled != first {
			t.Fatalf("another order is %q, not %q: %v", shuffled, first, err)
		}
		read, err := policy.ParseSubject(first.String())
		if err != nil || read != first {
			t.Fatalf("%q reads back as %q: %v", first, read, err)
		}
		at := rapid.IntRange(0, len(rdns)-1).Draw(t, "which")
		rdns[at] = one(rdns[at][0].Type, asn1.TagUTF8String, string(rdns[at][0].Value.Bytes)+"x")
		changed, err := policy.SubjectOf(der(rdns))
		if err != nil || changed == first {
			t.Fatalf("a changed value is the same subject %q: %v", changed, err)
		}
	})
}

// FuzzParseSubject: what parses, prints as text that parses to the same and is
// stable.
func FuzzParseSubject(f *testing.F) {
	for _, seed := range []string{"CN=" + commonName + ",C=US", `CN=a\,b,O=\ x\ `, `CN=\#a,1.2.3=\00`, "CN=a+C=b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, err := policy.ParseSubject(text)
		if err != nil {
			if first != (policy.Subject{}) {
				t.Fatal("a subject beside an error")
			}
			return
		}
		if first == (policy.Subject{}) {
			t.Fatalf("%q is the zero subject", text)
		}
		again, err := policy.ParseSubject(first.String())
		if err != nil || again != first || again.String() != first.String() {
			t.Fatalf("%q prints as %q, which is %q: %v", text, first, again, err)
		}
	})
}

// FuzzSubjectOf: what is read from a certificate agrees with the standard
// library about common name and number of attributes, and can be written in
// the configuration.
func FuzzSubjectOf(f *testing.F) {
	f.Add(name(f, one(oidCN, asn1.TagUTF8String, commonName), one(oidC, asn1.TagPrintableString, "US")))
	f.Add(name(f, rdn{{oidCN, value(asn1.TagUTF8String, "a")}, {oidC, value(asn1.TagUTF8String, "b")}}))
	f.Fuzz(func(t *testing.T, der []byte) {
		got, err := policy.SubjectOf(der)
		if err != nil {
			return
		}
		var sequence pkix.RDNSequence
		if rest, err := asn1.Unmarshal(der, &sequence); err != nil || len(rest) != 0 {
			return // the standard library is stricter about some identifiers and strings
		}
		var standard pkix.Name
		standard.FillFromRDNSequence(&sequence)
		if len(standard.Names) != len(sequence) {
			t.Fatalf("%d RDNs of %d attributes passed", len(sequence), len(standard.Names))
		}
		if !strings.Contains(got.String(), "CN=") || standard.CommonName == "" {
			t.Fatalf("%q has no common name", got)
		}
		if read, err := policy.ParseSubject(got.String()); err == nil && read != got {
			t.Fatalf("%q reads back as %q", got, read)
		}
	})
}
