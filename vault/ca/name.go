package ca

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// attributes are those with a bound (RFC 5280, appendix A.1: upper bounds, or for names of persons what X.520 recommends) or with one
// string type alone, and what people call them.
var attributes = map[string]struct {
	name  string
	bound int // in characters; 0 for none
	tag   int // 0 for any
}{
	"2.5.4.3": {"CN", 64, 0}, "2.5.4.4": {"the surname", 64, 0}, "2.5.4.5": {"SERIALNUMBER", 64, asn1.TagPrintableString}, "2.5.4.7": {"L", 128, 0},
	"2.5.4.8": {"ST", 128, 0}, "2.5.4.9": {"STREET", 128, 0}, "2.5.4.10": {"O", 64, 0}, "2.5.4.11": {"OU", 64, 0}, "2.5.4.12": {"the title", 64, 0},
	"2.5.4.17": {"the postal code", 16, 0}, "2.5.4.42": {"the given name", 64, 0},
	"0.9.2342.19200300.100.1.25": {"DC", 0, asn1.TagIA5String}, "1.2.840.113549.1.9.1": {"the e-mail address", 255, asn1.TagIA5String},
	"1.3.6.1.4.1.311.60.2.1.3": {"the country of jurisdiction", 2, asn1.TagPrintableString},
}

const (
	oidCommonName = "2.5.4.3"
	oidCountry    = "2.5.4.6"
)

var tagNames = map[int]string{asn1.TagPrintableString: "a PrintableString", asn1.TagIA5String: "an IA5String"}

var errName = errors.New("its subject is not a DER name")

// eachAttribute has a function look at each attribute of a DER name.
func eachAttribute(der []byte, check func(oid string, v asn1.RawValue) error) error {
	var rdns []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &rdns); err != nil || len(rest) > 0 {
		return errName
	}
	for _, rdn := range rdns {
		for rest := rdn.Bytes; len(rest) > 0; {
			var a struct {
				Type  asn1.ObjectIdentifier
				Value asn1.RawValue
			}
			var err error
			if rest, err = asn1.Unmarshal(rest, &a); err != nil {
				return errName
			}
			if err := check(a.Type.String(), a.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkName refuses a name that parsers may stumble over: values longer than RFC 5280 allows, in another string type than
// their attribute has, or with white space around them, and countries that are not two capital letters in a
// PrintableString (ISO 3166-1, X.520 section 6.3.1). Whose name it is, is for others to say.
func checkName(der []byte) error { return eachAttribute(der, checkAttribute) }

func checkAttribute(oid string, v asn1.RawValue) error {
	value := string(v.Bytes)
	of := attributes[oid]
	switch {
	case oid == oidCountry && (v.Tag != asn1.TagPrintableString || !capitals(value)):
		return errors.New("its subject has a C that is not two capital letters in a PrintableString")
	case of.tag > 0 && v.Tag != of.tag:
		return fmt.Errorf("%s of its subject is not %s", of.name, tagNames[of.tag])
	case v.Tag == asn1.TagPrintableString && strings.ContainsFunc(value, func(r rune) bool { return !printable(r) }):
		return errors.New("its subject has a PrintableString with a character that has no place in one")
	case of.bound > 0 && utf8.RuneCountInString(value) > of.bound:
		return fmt.Errorf("%s of its subject is longer than %d characters", of.name, of.bound)
	case strings.TrimSpace(value) != value:
		return errors.New("its subject has a value with white space around it")
	}
	return nil
}

func capitals(country string) bool {
	return len(country) == 2 && strings.Trim(country, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// printable reports whether a character may stand in a PrintableString (X.680, section 41.4).
func printable(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(" '()+,-./:=?", r)
}

// checkVisible refuses a name that does not look like what it is: with characters that print nothing, or turn the
// direction of what stands beside them. Terminals and logs show such a name as another one.
func checkVisible(der []byte) error {
	return eachAttribute(der, func(_ string, v asn1.RawValue) error {
		for _, r := range string(v.Bytes) {
			if !visible(r) {
				return fmt.Errorf("its subject has the character %U, which cannot be seen", r)
			}
		}
		return nil
	})
}

// visible reports whether a character shows: no control or format character, none that no one or a private use defines, no white space
// but a plain one, and no letter, mark or symbol that prints nothing (Unicode's Default_Ignorable_Code_Point, and an empty Braille cell).
func visible(r rune) bool {
	return unicode.IsPrint(r) && r != '\u2800' && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// checkAuthorityName refuses what cannot be seen in the name of a CA, and what linters find in it. Its certificate has no extended key usage, so
// that they hold it to the rules for authorities of servers (CA/Browser Forum, Baseline Requirements, section 7.1.2).
func checkAuthorityName(der []byte) error {
	if err := checkVisible(der); err != nil {
		return err
	}
	if err := checkName(der); err != nil {
		return err
	}
	return eachAttribute(der, func(oid string, v asn1.RawValue) error {
		value := string(v.Bytes)
		_, address := netip.ParseAddr(value)
		switch {
		case oid == oidCountry && !strings.Contains(countries, " "+value+" "):
			return fmt.Errorf("its subject has the C %q, which ISO 3166-1 does not have", value)
		case oid == oidCommonName && (address == nil || strings.HasSuffix(strings.ToLower(value), ".arpa")):
			return errors.New("its subject has an address as CN")
		case !strings.ContainsFunc(value, func(r rune) bool { return r > unicode.MaxASCII || unicode.IsLetter(r) || unicode.IsDigit(r) }):
			return errors.New("its subject has a value without a letter or a digit")
		}
		return nil
	})
}

// countries are the codes of ISO 3166-1, and XX, which the Baseline Requirements have for none of them.
const countries = "" +
	" AD AE AF AG AI AL AM AN AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD " +
	" CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG " +
	" GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR " +
	" KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF " +
	" NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM " +
	" SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XX " +
	" YE YT ZA ZM ZW "
