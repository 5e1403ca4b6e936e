package revocation

import (
	"crypto/x509"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// This file is who signed a list, which is asked before it is read.

// parseUnlisted reads a list without its entries. As x509 has them, they take fifty times the memory of what anybody between us and a
// server may have made up.
func parseUnlisted(content []byte) (*list, error) {
	content, err := listDER(content)
	if err != nil {
		return nil, err
	}
	input := cryptobyte.String(content)
	var outer, tbs, fields cryptobyte.String
	if !input.ReadASN1(&outer, asn1.SEQUENCE) || !input.Empty() || !outer.ReadASN1Element(&tbs, asn1.SEQUENCE) {
		return nil, errNoList
	}
	signed := tbs
	if !tbs.ReadASN1(&fields, asn1.SEQUENCE) {
		return nil, errNoList
	}
	var short cryptobyte.Builder
	short.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { addUnlisted(b, fields) })
		b.AddBytes(outer) // algorithm and signature
	})
	der, err := short.Bytes()
	if err != nil {
		return nil, errNoList
	}
	parsed, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, errNoList
	}
	parsed.RawTBSRevocationList = signed
	return &list{parsed: parsed}, nil
}

// addUnlisted adds the fields of a TBSCertList (RFC 5280 section 5.1) but the revokedCertificates: the one sequence after a time.
func addUnlisted(b *cryptobyte.Builder, fields cryptobyte.String) {
	for dated := false; !fields.Empty(); {
		var field cryptobyte.String
		var tag asn1.Tag
		if !fields.ReadAnyASN1Element(&field, &tag) {
			b.SetError(errNoList)
			return
		}
		if !dated || tag != asn1.SEQUENCE {
			b.AddBytes(field)
		}
		dated = dated || tag == asn1.UTCTime || tag == asn1.GeneralizedTime
	}
}
