package policy

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// DER returns the subject as a Name (RFC 5280 section 4.1.2.4), its attributes in canonical order: countries and serial
// numbers as PrintableString, domain components and e-mail addresses as IA5String where all of their characters can stand
// there, and all else as UTF8String. It is nil for the zero Subject.
func (s Subject) DER() []byte {
	if s.key == "" {
		return nil
	}
	var b cryptobyte.Builder
	b.AddASN1(cryptobyteasn1.SEQUENCE, func(names *cryptobyte.Builder) {
		for key := s.key; key != ""; {
			oid := key[1 : 1+key[0]]
			key = key[1+len(oid):]
			n := int(binary.BigEndian.Uint16([]byte(key[:2])))
			value := key[2 : 2+n]
			key = key[2+n:]
			names.AddASN1(cryptobyteasn1.SET, func(rdn *cryptobyte.Builder) {
				rdn.AddASN1(cryptobyteasn1.SEQUENCE, func(pair *cryptobyte.Builder) {
					pair.AddASN1(cryptobyteasn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(oid)) })
					pair.AddASN1(stringTag(oid, value), func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
				})
			})
		}
	})
	return b.BytesOrPanic() // nothing in it can be too long: the subject is about 1024 bytes at most
}

// stringTag is the string type of an attribute's value.
func stringTag(oid, value string) cryptobyteasn1.Tag {
	switch attributeName([]byte(oid)) {
	case "C", "SERIALNUMBER":
		if strings.ContainsFunc(value, func(r rune) bool { return !printable(r) }) {
			break
		}
		return cryptobyteasn1.PrintableString
	case "DC", "1.2.840.113549.1.9.1": // the latter is emailAddress
		if strings.ContainsFunc(value, func(r rune) bool { return r >= utf8.RuneSelf }) {
			break
		}
		return cryptobyteasn1.IA5String
	}
	return cryptobyteasn1.UTF8String
}

// printable reports whether a character may stand in a PrintableString (X.680, section 41.4).
func printable(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(" '()+,-./:=?", r)
}
