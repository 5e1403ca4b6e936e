package ca

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxRunes are the upper bounds of attributes (RFC 5280, appendix A.1), and what people call them.
var maxRunes = map[string]struct {
	name  string
	bound int
}{
	"2.5.4.3": {"CN", 64}, "2.5.4.5": {"SERIALNUMBER", 64}, "2.5.4.7": {"L", 128}, "2.5.4.8": {"ST", 128}, "2.5.4.9": {"STREET", 128},
	"2.5.4.10": {"O", 64}, "2.5.4.11": {"OU", 64},
}

const oidCountry = "2.5.4.6"

// checkName refuses a name that parsers may stumble over: values longer than RFC 5280 allows, or with white space around
// them, and countries that are not two capital letters in a PrintableString (ISO 3166-1, X.520 section 6.3.1). Whose name
// it is, is for others to say.
func checkName(der []byte) error {
	var rdns []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &rdns); err != nil || len(rest) > 0 {
		return errors.New("its subject is not a DER name")
	}
	for _, rdn := range rdns {
		for rest := rdn.Bytes; len(rest) > 0; {
			var a struct {
				Type  asn1.ObjectIdentifier
				Value asn1.RawValue
			}
			var err error
			if rest, err = asn1.Unmarshal(rest, &a); err != nil {
				return errors.New("its subject is not a DER name")
			}
			if err := checkAttribute(a.Type.String(), a.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkAttribute(oid string, v asn1.RawValue) error {
	value := string(v.Bytes)
	of := maxRunes[oid]
	switch {
	case oid == oidCountry && (v.Tag != asn1.TagPrintableString || len(value) != 2 || strings.Trim(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != ""):
		return errors.New("its subject has a C that is not two capital letters in a PrintableString")
	case of.bound > 0 && utf8.RuneCountInString(value) > of.bound:
		return fmt.Errorf("%s of its subject is longer than %d characters", of.name, of.bound)
	case strings.TrimSpace(value) != value:
		return errors.New("its subject has a value with white space around it")
	}
	return nil
}
