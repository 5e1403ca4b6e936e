package vault

import (
	"errors"
	"fmt"
	"strings"
)

// ExpiryForm is how a protocol writes when a card expires: "MM" stands for the month, "YY" or "YYYY" for the year, all
// else for itself. An expiry is no secret field: it passes as text, after this check.
type ExpiryForm string

// The forms that contracts have.
const (
	ExpiryMMSlashYY  ExpiryForm = "MM/YY"   // Bridge
	ExpiryMMYY       ExpiryForm = "MMYY"    // Payroc
	ExpiryYYYYDashMM ExpiryForm = "YYYY-MM" // ISO 8601
)

var errExpiry = errors.New("expiry date: not of its form")

// Parse reads a text of this form: the month as "01" to "12", the year as four digits. Two digits are of this century.
func (f ExpiryForm) Parse(text string) (month, year string, err error) {
	if len(text) != len(f) {
		return "", "", errExpiry
	}
	for i := range len(f) {
		switch c := text[i]; {
		case f[i] != 'M' && f[i] != 'Y':
			if c != f[i] {
				return "", "", errExpiry
			}
		case f[i] == 'M':
			month += text[i : i+1]
		default:
			year += text[i : i+1]
		}
	}
	if len(year) == 2 {
		year = "20" + year
	}
	if !expiryParts(month, year) {
		return "", "", errExpiry
	}
	return month, year, nil
}

// Append writes a month, "01" to "12", and a year, four digits, in this form. A year that two digits cannot say is an
// error.
func (f ExpiryForm) Append(dst []byte, month, year string) ([]byte, error) {
	months, years := strings.Count(string(f), "M"), strings.Count(string(f), "Y")
	if !expiryParts(month, year) || months != 2 || years != 2 && years != 4 {
		return dst, errExpiry
	}
	if years == 2 && year[:2] != "20" {
		return dst, fmt.Errorf("%w: another century", errExpiry)
	}
	m, y := 0, len(year)-years
	for i := range len(f) {
		switch f[i] {
		case 'M':
			dst = append(dst, month[m])
			m++
		case 'Y':
			dst = append(dst, year[y])
			y++
		default:
			dst = append(dst, f[i])
		}
	}
	return dst, nil
}

// expiryParts reports whether they are a month and a year as this package gives them.
func expiryParts(month, year string) bool {
	if len(month) != 2 || len(year) != 4 || month < "01" || month > "12" || month[1] < '0' || month[1] > '9' {
		return false
	}
	for i := range len(year) {
		if year[i] < '0' || year[i] > '9' {
			return false
		}
	}
	return true
}
