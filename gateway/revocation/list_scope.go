package revocation

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// This file is which certificates a list is complete for.

var oidDistributionPoints = asn1.ObjectIdentifier{2, 5, 29, 31}

// Tags of an issuing distribution point's fields (RFC 5280 section 5.2.5), of names (4.2.1.13) and of general names (4.2.1.6).
var issuingFields = map[int]string{
	1: "onlyContainsUserCerts", 2: "onlyContainsCACerts", 3: "onlySomeReasons", 4: "indirectCRL", 5: "onlyContainsAttributeCerts",
}

const (
	tagPoint    = 0
	tagFullName = 0
	tagURI      = 6
)

var errScope = errors.New("its issuing distribution point does not parse, or has no URI")

// distributionPoint is one of a certificate.
type distributionPoint struct {
	Point   asn1.RawValue  `asn1:"optional,tag:0"`
	Reasons asn1.BitString `asn1:"optional,tag:1"`
	Issuer  asn1.RawValue  `asn1:"optional,tag:2"`
}

// parseScope reads the URIs of an issuing distribution point that has a distributionPoint alone. Any other field makes the list partial
// or indirect.
func parseScope(der []byte) (uris []string, err error) {
	var fields []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &fields); err != nil || len(rest) > 0 {
		return nil, errScope
	}
	for _, f := range fields {
		if name := issuingFields[f.Tag]; f.Class == asn1.ClassContextSpecific && name != "" {
			return nil, fmt.Errorf("its issuing distribution point has %s: it is a partial or indirect list, want a complete one of one CA", name)
		}
		if f.Class != asn1.ClassContextSpecific || f.Tag != tagPoint || uris != nil {
			return nil, errScope
		}
		uris = urisOf(f.Bytes)
	}
	if len(uris) == 0 {
		return nil, errScope
	}
	return uris, nil
}

// urisOf are the URIs of a DistributionPointName; none of one that is relative to a CA's name.
func urisOf(der []byte) (uris []string) {
	var name asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 || name.Class != asn1.ClassContextSpecific || name.Tag != tagFullName {
		return nil
	}
	for rest := name.Bytes; len(rest) > 0; {
		var general asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &general); err != nil {
			return nil
		}
		if general.Class == asn1.ClassContextSpecific && general.Tag == tagURI {
			uris = append(uris, string(general.Bytes))
		}
	}
	return uris
}

// covers reports whether a list of the certificate's CA says of it whether it is revoked (RFC 5280 section 6.3.3 (b)(2)): where the list
// names distribution points, the certificate must name one of these, for all reasons and without another issuer of lists.
func (l *list) covers(c *x509.Certificate) bool {
	if l.scope == nil {
		return true
	}
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidDistributionPoints) {
			continue
		}
		var points []distributionPoint
		if rest, err := asn1.Unmarshal(e.Value, &points); err != nil || len(rest) > 0 {
			return false
		}
		for _, p := range points {
			if p.Reasons.BitLength == 0 && len(p.Issuer.FullBytes) == 0 &&
				slices.ContainsFunc(urisOf(p.Point.Bytes), func(uri string) bool { return slices.Contains(l.scope, uri) }) {
				return true
			}
		}
	}
	return false
}
