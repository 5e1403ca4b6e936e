package policy

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// DER returns the subject as a Name (RFC 5280 section 4.1.2.4), its attributes in canonical order: countries and serial
// numbers as PrintableString, domain components as IA5String, all else as UTF8String. It is nil for the zero Subject.
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
					pair.AddASN1(stringTag(oid), func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
				})
			})
		}
	})
	return b.BytesOrPanic() // nothing in it can be too long: the subject is at most 1024 bytes
}

func stringTag(oid string) cryptobyteasn1.Tag {
	switch attributeName([]byte(oid)) {
	case "C", "SERIALNUMBER":
		return cryptobyteasn1.PrintableString
	case "DC":
		return cryptobyteasn1.IA5String
	}
	return cryptobyteasn1.UTF8String
}
