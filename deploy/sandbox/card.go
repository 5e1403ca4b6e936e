package sandbox

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// Card is a card of a sandbox issuer. It prints as its id alone: formatting a Card never shows its number, CVC or PIN.
// Its JSON form, which does hold them, is for the demo's own directory of made-up cards.
type Card struct {
	// ID is the issuer's reference of the card, unique within the issuer; it stands in the path of each call.
	ID string `json:"id"`
	// PAN is the card number, 12 to 19 digits with a valid check digit (ISO/IEC 7812-1, annex B).
	PAN string `json:"pan"`
	// CVC is the card verification code, 3 or 4 digits.
	CVC string `json:"cvc"`
	// ExpiryMonth is "1" to "12", with or without a leading zero; it is answered as it stands here.
	ExpiryMonth string `json:"expiry_month"`
	// ExpiryYear has four digits.
	ExpiryYear string `json:"expiry_year"`
	// PIN is 4 to 12 digits; "" means that none is set.
	PIN string `json:"pin,omitempty"`
	// UserID names the cardholder among the issuer's users or customers. May be empty where the issuer does not require it.
	UserID string `json:"user_id,omitempty"`
	// Status is "active" (also where it is empty), "locked", "canceled" or "notActivated", in Rain's words. Bridge answers its own.
	Status string `json:"status,omitempty"`
	// Limit is the spending limit. Zero means 10 000.00 per seven days.
	Limit Limit `json:"limit,omitzero"`
	// ProductID is the card product, answered as productId, which is our assumption: Rain does not publish where it stands. Left out of the
	// answer where it is empty.
	ProductID string `json:"product_id,omitempty"`
}

// Limit is a card's spending limit: an amount in minor units (cents) per period.
type Limit struct {
	Amount    int    `json:"amount"`
	Frequency string `json:"frequency"`
}

// User is a cardholder of a sandbox issuer.
type User struct {
	ID        string `json:"id"`
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	Email     string `json:"email"`
}

// Format implements fmt.Formatter for every verb.
func (c Card) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "sandbox card %q", c.ID) }

// last4 returns the last four digits of the card number.
func (c Card) last4() string { return c.PAN[len(c.PAN)-4:] }

// monthYear returns the expiry as MM/YY.
func (c Card) monthYear() string {
	return ("0" + c.ExpiryMonth)[len(c.ExpiryMonth)-1:] + "/" + c.ExpiryYear[2:]
}

// testBIN begins every random card number: the range of the best-known test card, which no issuer uses for a customer's.
const testBIN = "411111"

// RandomCard returns an active card with a random 16-digit number of a test range (or the given one), a random CVC and a random PIN of four
// digits. CVC and PIN have distinct digits and are no sequence, so that no definition of a weak PIN catches them. It expires in 12/2030.
func RandomCard(id, pan string) Card {
	if pan == "" {
		pan = testBIN + randomDigits(9)
		pan += checkDigit(pan)
	}
	return Card{
		ID: id, PAN: pan, CVC: unguessable(3), PIN: unguessable(4),
		ExpiryMonth: "12", ExpiryYear: "2030", Status: "active", Limit: defaultLimit(), ProductID: "408",
	}
}

func defaultLimit() Limit { return Limit{Amount: 1_000_000, Frequency: "per7DayPeriod"} }

var (
	statuses    = []string{"active", "canceled", "locked", "notActivated"}
	frequencies = []string{"allTime", "per24HourPeriod", "per30DayPeriod", "per7DayPeriod", "perAuthorization", "perYearPeriod"}
)

// check returns the card with its defaults filled in, or an error that names the field and never its value.
func (c Card) check() (Card, error) {
	if c.Status == "" {
		c.Status = "active"
	}
	if c.Limit == (Limit{}) {
		c.Limit = defaultLimit()
	}
	month := strings.TrimPrefix(c.ExpiryMonth, "0")
	switch {
	case c.ID == "" || strings.ContainsAny(c.ID, "/?#%"):
		return c, errors.New("id is empty or does not fit into a path")
	case !digits(c.PAN, 12, 19) || checkDigit(c.PAN[:len(c.PAN)-1]) != c.PAN[len(c.PAN)-1:]:
		return c, errors.New("pan is not 12 to 19 digits with a valid check digit")
	case !digits(c.CVC, 3, 4):
		return c, errors.New("cvc is not 3 or 4 digits")
	case !digits(month, 1, 2) || len(c.ExpiryMonth) > 2 || month == "0" || len(month) == 2 && month > "12":
		return c, errors.New("expiry month is not 1 to 12")
	case !digits(c.ExpiryYear, 4, 4):
		return c, errors.New("expiry year is not four digits")
	case c.PIN != "" && !digits(c.PIN, 4, 12):
		return c, errors.New("pin is not 4 to 12 digits")
	case !slices.Contains(statuses, c.Status):
		return c, fmt.Errorf("status is none of %s", strings.Join(statuses, ", "))
	case c.Limit.Amount < 0 || !slices.Contains(frequencies, c.Limit.Frequency):
		return c, fmt.Errorf("limit is negative, or its frequency none of %s", strings.Join(frequencies, ", "))
	}
	return c, nil
}

// digits reports whether s consists of min to max ASCII digits.
func digits(s string, min, max int) bool {
	return len(s) >= min && len(s) <= max && strings.Trim(s, "0123456789") == ""
}

// checkDigit returns the Luhn check digit of a number that lacks it (ISO/IEC 7812-1, annex B).
func checkDigit(number string) string {
	sum := 0
	for i := range len(number) {
		d := int(number[len(number)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return string(rune('0' + (10-sum%10)%10))
}

// weak reports whether a PIN is one repeated digit or a run up or down, passing from 9 to 0 too.
func weak(pin string) bool {
	step := (pin[1] - pin[0] + 10) % 10
	if step != 0 && step != 1 && step != 9 {
		return false
	}
	for i := 2; i < len(pin); i++ {
		if (pin[i]-pin[i-1]+10)%10 != step {
			return false
		}
	}
	return true
}

// unguessable returns n distinct random digits that are no sequence.
func unguessable(n int) string {
	for {
		s := randomDigits(n)
		distinct := true
		for i := range n {
			distinct = distinct && strings.LastIndexByte(s, s[i]) == i
		}
		if distinct && !weak(s) {
			return s
		}
	}
}

func randomDigits(n int) string {
	out := make([]byte, n)
	for i := range out {
		// crypto/rand's reader does not fail: it ends the process instead (Go 1.24).
		d, _ := rand.Int(rand.Reader, big.NewInt(10))
		out[i] = '0' + byte(d.Int64())
	}
	return string(out)
}
