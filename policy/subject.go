package policy

import (
	"bytes"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Subject is the name of a certificate's holder as a set of attributes [4]:
// exactly one common name, each type of attribute at most once, one attribute
// to an RDN, whatever their order. Values are compared byte by byte, case
// counts, and PrintableString, UTF8String and IA5String of the same text are
// the same value. Subjects are compared with ==. The zero Subject is nobody's.
type Subject struct {
	// key holds the attributes sorted by type, each as
	// length(1) type-OID length(2) value, so that it is the same for every
	// spelling of one name and for no other.
	key string
}

const (
	maxSubjectBytes      = 1024
	maxEscaped           = 4 // bytes of text for one of a subject, at most
	maxSubjectAttributes = 16
)

// attributeTypes are the names of RFC 4514 section 3, and two that occur in
// practice, with the DER content of their object identifiers.
var attributeTypes = []struct{ name, oid string }{
	{"CN", "\x55\x04\x03"},
	{"SERIALNUMBER", "\x55\x04\x05"},
	{"C", "\x55\x04\x06"},
	{"L", "\x55\x04\x07"},
	{"ST", "\x55\x04\x08"},
	{"STREET", "\x55\x04\x09"},
	{"O", "\x55\x04\x0a"},
	{"OU", "\x55\x04\x0b"},
	{"DC", "\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19"},
	{"UID", "\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01"},
}

const oidCommonName = "\x55\x04\x03"

type attribute struct{ oid, value []byte }

// attributes is a set in the making, kept sorted by type. It lives on the
// stack: the subject of every mTLS request passes through one.
type attributes struct {
	list [maxSubjectAttributes]attribute
	n    int
}

// add inserts an attribute in its place.
func (a *attributes) add(oid, value []byte) error {
	if a.n == len(a.list) {
		return fmt.Errorf("more than %d attributes", maxSubjectAttributes)
	}
	at := a.n
	for at > 0 {
		order := bytes.Compare(a.list[at-1].oid, oid)
		if order == 0 {
			return fmt.Errorf("two values for %s", attributeName(oid))
		}
		if order < 0 {
			break
		}
		a.list[at] = a.list[at-1]
		at--
	}
	a.list[at] = attribute{oid, value}
	a.n++
	return nil
}

// appendKey appends the canonical key of the set.
func (a *attributes) appendKey(dst []byte) ([]byte, error) {
	named := false
	for _, at := range a.list[:a.n] {
		named = named || string(at.oid) == oidCommonName
		dst = append(dst, byte(len(at.oid)))
		dst = append(dst, at.oid...)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(at.value)))
		dst = append(dst, at.value...)
	}
	if !named {
		return nil, errors.New("no common name (CN)")
	}
	return dst, nil
}

// checkValue refuses what has no place in a name: nothing, control characters
// (NUL above all) and bytes that are not UTF-8.
func checkValue(value []byte) error {
	if len(value) == 0 {
		return errors.New("an empty value")
	}
	for rest := value; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		if r == utf8.RuneError && size <= 1 {
			return errors.New("a value that is not UTF-8")
		}
		if unicode.IsControl(r) {
			return errors.New("a control character in a value")
		}
		rest = rest[size:]
	}
	return nil
}

// SubjectOf reads the subject of a certificate from its DER
// (x509.Certificate.RawSubject).
func SubjectOf(der []byte) (Subject, error) {
	key, err := appendSubjectKey(nil, der)
	if err != nil {
		return Subject{}, err
	}
	return Subject{key: string(key)}, nil
}

// appendSubjectKey appends the canonical key of a DER Name (RFC 5280 section
// 4.1.2.4).
func appendSubjectKey(dst, der []byte) ([]byte, error) {
	if len(der) > maxSubjectBytes {
		return nil, errSubjectLong
	}
	var set attributes
	input := cryptobyte.String(der)
	var names cryptobyte.String
	if !input.ReadASN1(&names, cryptobyteasn1.SEQUENCE) || !input.Empty() {
		return nil, errSubjectDER
	}
	for !names.Empty() {
		if err := readRDN(&names, &set); err != nil {
			return nil, fmt.Errorf("subject: %w", err)
		}
	}
	key, err := set.appendKey(dst)
	if err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	return key, nil
}

var (
	errSubjectDER  = errors.New("subject: not a DER name")
	errSubjectLong = fmt.Errorf("subject: longer than %d bytes", maxSubjectBytes)
)

// readRDN reads one RelativeDistinguishedName: a SET of exactly one
// AttributeTypeAndValue.
func readRDN(names *cryptobyte.String, set *attributes) error {
	var rdn, pair, oid, value cryptobyte.String
	var tag cryptobyteasn1.Tag
	if !names.ReadASN1(&rdn, cryptobyteasn1.SET) || !rdn.ReadASN1(&pair, cryptobyteasn1.SEQUENCE) ||
		!pair.ReadASN1(&oid, cryptobyteasn1.OBJECT_IDENTIFIER) || !pair.ReadAnyASN1(&value, &tag) || !pair.Empty() ||
		len(oid) == 0 || len(oid) > 255 {
		return errors.New("not a DER name")
	}
	if !rdn.Empty() {
		return errors.New("a multi-valued RDN")
	}
	switch tag {
	case cryptobyteasn1.UTF8String:
	case cryptobyteasn1.PrintableString, cryptobyteasn1.IA5String:
		for _, b := range value {
			if b >= utf8.RuneSelf {
				return errors.New("a string with bytes outside its type")
			}
		}
	default:
		return fmt.Errorf("a value of ASN.1 tag %d, which is not PrintableString, UTF8String or IA5String", tag)
	}
	if err := checkValue(value); err != nil {
		return err
	}
	return set.add(oid, value)
}

// ParseSubject reads a subject from configuration, in the string form of RFC
// 4514 without its rarer corners: `CN=gp_f1a9…,C=US`. Attribute types are
// names (CN, C, O, OU, L, ST, STREET, DC, UID, SERIALNUMBER, in any case) or
// dotted numbers; in a value `\` escapes one of ,+"\<>;=# and space, or is
// followed by two hex digits of a byte. White space belongs to a value or is
// an error; it is never skipped.
func ParseSubject(text string) (Subject, error) {
	var set attributes
	if text == "" {
		return Subject{}, errors.New("subject: empty")
	}
	if len(text) > maxEscaped*maxSubjectBytes {
		return Subject{}, errSubjectLong
	}
	for rest, more := text, true; more; {
		var err error
		if rest, more, err = parseRDN(rest, &set); err != nil {
			return Subject{}, fmt.Errorf("subject %q: %w", text, err)
		}
	}
	key, err := set.appendKey(nil)
	if err != nil {
		return Subject{}, fmt.Errorf("subject %q: %w", text, err)
	}
	if len(key) > maxSubjectBytes {
		return Subject{}, errSubjectLong
	}
	return Subject{key: string(key)}, nil
}

// parseRDN reads `type=value` up to the comma that ends it. more says that
// there was one.
func parseRDN(text string, set *attributes) (rest string, more bool, err error) {
	name, text, found := strings.Cut(text, "=")
	if !found {
		return "", false, fmt.Errorf(`%q is not of the form type=value`, name)
	}
	oid, err := attributeOID(name)
	if err != nil {
		return "", false, err
	}
	value, rest, more, err := parseValue(text)
	if err != nil {
		return "", false, fmt.Errorf("value of %s: %w", name, err)
	}
	if err := checkValue(value); err != nil {
		return "", false, fmt.Errorf("%s: %w", name, err)
	}
	return rest, more, set.add(oid, value)
}

// parseValue reads an attribute value of RFC 4514 section 2.4.
func parseValue(text string) (value []byte, rest string, more bool, err error) {
	if strings.HasPrefix(text, "#") {
		return nil, "", false, errors.New("the hexadecimal form #… is not supported")
	}
	if strings.HasPrefix(text, " ") {
		return nil, "", false, errors.New(`begins with a space (remove it, or write "\ ")`)
	}
	bare := false // whether the last byte was a space that nothing escaped
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == ',' {
			rest, more = text[i+1:], true
			break
		}
		bare = c == ' '
		switch c {
		case '\\':
			b, n, err := unescape(text[i+1:])
			if err != nil {
				return nil, "", false, err
			}
			value = append(value, b)
			i += n
		case '+':
			return nil, "", false, errors.New(`an unescaped "+": RDNs of several values are not supported`)
		case '"', ';', '<', '>', 0:
			return nil, "", false, fmt.Errorf("an unescaped %q", c)
		default:
			value = append(value, c)
		}
	}
	if bare {
		return nil, "", false, errors.New(`ends with a space (remove it, or write "\ ")`)
	}
	return value, rest, more, nil
}

// unescape reads what follows a backslash: the byte, and how long it was.
func unescape(text string) (b byte, n int, err error) {
	if text != "" && strings.IndexByte(`,+"\<>;=# `, text[0]) >= 0 {
		return text[0], 1, nil
	}
	if len(text) >= 2 {
		if octet, err := hex.DecodeString(text[:2]); err == nil {
			return octet[0], 2, nil
		}
	}
	return 0, 0, errors.New(`a "\" that escapes nothing`)
}

// attributeOID returns the DER content of an attribute type's identifier.
func attributeOID(name string) ([]byte, error) {
	for _, known := range attributeTypes {
		if strings.EqualFold(name, known.name) {
			return []byte(known.oid), nil
		}
	}
	if name != strings.TrimSpace(name) {
		return nil, fmt.Errorf("white space around the attribute type %q", name)
	}
	der, err := dottedOID(name)
	if err != nil {
		names := make([]string, len(attributeTypes))
		for i, known := range attributeTypes {
			names[i] = known.name
		}
		return nil, fmt.Errorf("attribute type %q is neither a dotted number nor one of %s", name, strings.Join(names, ", "))
	}
	return der, nil
}

// dottedOID encodes `2.5.4.3`: at least two numbers, none with a leading zero.
func dottedOID(text string) ([]byte, error) {
	var id asn1.ObjectIdentifier
	for part := range strings.SplitSeq(text, ".") {
		n := 0
		for _, c := range []byte(part) {
			if c < '0' || c > '9' || n > 1<<24 {
				return nil, errors.New("not a number")
			}
			n = n*10 + int(c-'0')
		}
		if part == "" || len(part) > 1 && part[0] == '0' {
			return nil, errors.New("not a number")
		}
		id = append(id, n)
	}
	der, err := asn1.Marshal(id)
	if err != nil || len(der) < 3 || der[1] > 127 {
		return nil, errors.New("not an object identifier")
	}
	return der[2:], nil
}

// attributeName is the name or dotted number of a type.
func attributeName(oid []byte) string {
	for _, known := range attributeTypes {
		if string(oid) == known.oid {
			return known.name
		}
	}
	var id asn1.ObjectIdentifier
	der := append([]byte{asn1.TagOID, byte(len(oid))}, oid...)
	if len(oid) > 127 {
		return "an attribute"
	}
	if _, err := asn1.Unmarshal(der, &id); err != nil {
		return "an attribute"
	}
	return id.String()
}

// String returns the subject in the form that ParseSubject reads, its
// attributes in canonical order.
func (s Subject) String() string {
	var out strings.Builder
	for key := s.key; key != ""; {
		oid := key[1 : 1+key[0]]
		key = key[1+len(oid):]
		n := int(binary.BigEndian.Uint16([]byte(key[:2])))
		value := key[2 : 2+n]
		key = key[2+n:]
		if out.Len() > 0 {
			out.WriteByte(',')
		}
		out.WriteString(attributeName([]byte(oid)))
		out.WriteByte('=')
		escapeValue(&out, value)
	}
	return out.String()
}

// escapeValue writes a value as parseValue reads it. What cannot be seen, or
// turns the direction of text, is written in hex: terminals and logs show a
// subject as it is.
func escapeValue(out *strings.Builder, value string) {
	for i, r := range value {
		size := utf8.RuneLen(r)
		if !unicode.IsPrint(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
			for _, b := range []byte(value[i : i+size]) {
				fmt.Fprintf(out, "\\%02X", b)
			}
			continue
		}
		edge := i == 0 || i+size == len(value)
		if strings.ContainsRune(`,+"\<>;=`, r) || r == ' ' && edge || r == '#' && i == 0 {
			out.WriteByte('\\')
		}
		out.WriteRune(r)
	}
}
