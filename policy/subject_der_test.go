package policy_test

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/policy"
)

// TestSubjectDER: each attribute in an RDN of its own, in canonical order, with the string type that RFC 5280 and RFC 4519
// ask for, or UTF8String where the value has no place in that.
func TestSubjectDER(t *testing.T) {
	const utf8, printable, ia5 = asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String
	serial, dc := asn1.ObjectIdentifier{2, 5, 4, 5}, asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
	cn := one(oidCN, utf8, "x")
	for text, want := range map[string][]byte{
		"C=GB,O=Example,CN=Example CA":      name(t, one(oidCN, utf8, "Example CA"), one(oidC, printable, "GB"), one(oidO, utf8, "Example")),
		"CN=x,SERIALNUMBER=A-1 (2)":         name(t, cn, one(serial, printable, "A-1 (2)")),
		"CN=x,SERIALNUMBER=a_b":             name(t, cn, one(serial, utf8, "a_b")),
		"CN=x,SERIALNUMBER=a*b":             name(t, cn, one(serial, utf8, "a*b")),
		"CN=x,C=Ö":                          name(t, cn, one(oidC, utf8, "Ö")),
		"DC=example,CN=x":                   name(t, one(dc, ia5, "example"), cn),
		"DC=bücher,CN=x":                    name(t, one(dc, utf8, "bücher"), cn),
		`CN=\ a\, b\+\"\\\<\>\;\= \#c\ `:    name(t, one(oidCN, utf8, ` a, b+"\<>;= #c `)),
		`CN=\#x`:                            name(t, one(oidCN, utf8, "#x")),
		`CN=\C3\B6`:                         name(t, one(oidCN, utf8, "ö")),
		"1.2.840.113549.1.9.1=a@b.org,CN=x": name(t, one(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, ia5, "a@b.org"), cn),
		"CN=" + strings.Repeat("n", 300):    name(t, one(oidCN, utf8, strings.Repeat("n", 300))), // lengths of more than a byte
	} {
		s := subject(t, text)
		if got := s.DER(); !sameAttributes(t, got, want) {
			t.Errorf("%s: %x, want the attributes of %x", text, got, want)
		}
		readBack(t, text, s)
	}
	if der := (policy.Subject{}).DER(); der != nil {
		t.Errorf("the zero Subject: %x", der)
	}
	if a, b := subject(t, "CN=a,O=b,C=GB").DER(), subject(t, "C=GB,O=b,CN=a").DER(); !bytes.Equal(a, b) {
		t.Errorf("two orders of one name: %x, %x", a, b)
	}
}

// sameAttributes compares names byte for byte, up to the order of their RDNs, and wants got's in the order of their types.
func sameAttributes(t testing.TB, got, want []byte) bool {
	t.Helper()
	split := func(der []byte) (rdns []asn1.RawValue) {
		if rest, err := asn1.Unmarshal(der, &rdns); err != nil || len(rest) > 0 {
			t.Fatalf("%x: %v", der, err)
		}
		return rdns
	}
	type of struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	kind := func(r asn1.RawValue) []byte {
		var a of
		if _, err := asn1.Unmarshal(r.Bytes, &a); err != nil {
			t.Fatal(err)
		}
		der, _ := asn1.Marshal(a.Type)
		return der[2:]
	}
	g, w := split(got), split(want)
	order := func(x, y asn1.RawValue) int { return bytes.Compare(kind(x), kind(y)) }
	slices.SortFunc(w, order)
	return slices.IsSortedFunc(g, order) && slices.EqualFunc(g, w, func(x, y asn1.RawValue) bool { return bytes.Equal(x.FullBytes, y.FullBytes) })
}

// readBack wants a name's DER to be the name again, for our parser and for the standard library's, which checks the bytes
// of each string type.
func readBack(t interface {
	Helper()
	Fatalf(string, ...any)
}, text string, s policy.Subject) {
	t.Helper()
	der := s.DER()
	if len(der) > 1024 {
		return // a longer name is nobody's
	}
	again, err := policy.SubjectOf(der)
	if err != nil || again != s {
		t.Fatalf("%q as DER is %q: %v", text, again, err)
	}
	var standard pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &standard); err != nil || len(rest) > 0 {
		t.Fatalf("%q as DER, %x, is none to the standard library: %v", text, der, err)
	}
}

// TestSubjectDERProperty: any text that is a subject is the same one after its DER was read.
func TestSubjectDERProperty(t *testing.T) {
	types := []string{"CN", "C", "O", "OU", "L", "ST", "STREET", "DC", "UID", "SERIALNUMBER", "1.2.3"}
	value := rapid.StringMatching(`([a-zA-Z0-9é*@&_ '()+,./:=?-]|\\,|\\"|\\#){1,6}`)
	rapid.Check(t, func(t *rapid.T) {
		text := "CN=x"
		for _, kind := range rapid.Permutation(types[1:]).Draw(t, "types")[:rapid.IntRange(0, 4).Draw(t, "n")] {
			text += "," + kind + "=" + value.Draw(t, kind)
		}
		if s, err := policy.ParseSubject(text); err == nil {
			readBack(t, text, s)
		}
	})
}

// FuzzSubjectDER: what parses, is the same after its DER was read.
func FuzzSubjectDER(f *testing.F) {
	for _, seed := range []string{"CN=" + commonName + ",C=US", `CN=a\,b,O=\ x\ `, "CN=x,C=Ö,DC=ü,SERIALNUMBER=_"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := policy.ParseSubject(text); err == nil {
			readBack(t, text, s)
		}
	})
}
