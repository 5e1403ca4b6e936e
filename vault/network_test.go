package vault_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault"
)

var panShape = must(vault.NewShape(vault.ShapeConfig{
	Public: []string{"/type"}, Clear: map[string]vault.Field{"/pan": vault.FieldPAN, "/cvc": vault.FieldCVC, "/account": vault.FieldAccount}, Sealed: map[string]vault.Field{"/sealed": vault.FieldPAN},
}))

func network(t testing.TB, text string) (vault.Network, error) {
	t.Helper()
	return newBody(t, panShape, `{"pan":`+text+`}`).Network("/pan")
}

// TestNetwork are the networks' own test numbers.
func TestNetwork(t *testing.T) {
	for number, want := range map[string]vault.Network{
		"4111111111111111": {"visa", true}, "4222222222222": {"visa", true}, "4000000000000000006": {"visa", true},
		"5555555555554444": {"mastercard", true}, "2223003122003222": {"mastercard", true}, "2720999999999996": {"mastercard", true},
		"378282246310005": {"amex", true}, "341111111111111": {"amex", true},
		"6011111111111117": {"discover", true}, "6510000000000000009": {"discover", true}, "6440000000000005": {"discover", true},
		"30569309025904": {"diners", true}, "36227206271667": {"diners", true}, "3056930009020004": {"diners", true},
		"3530111333300000": {"jcb", true}, "6200000000000005": {"unionpay", true}, "6205500000000000004": {"unionpay", true}, "8171999927660000": {"unionpay", true},
		"6759649826438453": {"maestro", true}, "676100000006": {"maestro", true}, "5018000000000009": {"maestro", true},
		"2201382000000013": {"mir", true}, "9792030000000000": {"troy", true}, "6521500000000009": {"rupay", true}, "8172000000000002": {"rupay", true},
		"8600000000000007": {"uzcard", false}, "9860000000000001": {"humo", false},
		// Nobody's: 2205 is of a network that is not named here, 1 and 7 of none.
		"2205000000000009": {"", true}, "1000000000000008": {"", true}, "7000000000000003": {"", true}, "100000000008": {"", true},
	} {
		number = fixed(number)
		if got, err := network(t, `"`+number+`"`); got != want || err != nil {
			t.Errorf("%s: %+v, %v, want %+v", number, got, err, want)
		}
		escaped := fmt.Sprintf(`"\u00%x%s"`, number[0], number[1:])
		if got, err := network(t, escaped); got != want || err != nil {
			t.Errorf("%s: %+v, %v, want %+v", escaped, got, err, want)
		}
		for digit := '0'; digit <= '9'; digit++ {
			wrong := number[:len(number)-1] + string(digit)
			if got, err := network(t, `"`+wrong+`"`); wrong != number && (got != (vault.Network{}) || err != vault.ErrOpen) {
				t.Errorf("%s: %+v, %v", wrong, got, err)
			}
		}
	}
}

// fixed gives a number its check digit, which most above have.
func fixed(number string) string {
	return number[:len(number)-1] + string(luhn(number[:len(number)-1]))
}

func TestNetworkRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty": `""`, "11 digits": `"` + fixed("41111111111") + `"`, "20 digits": `"` + fixed("41111111111111111111") + `"`, "grouped": `"4111 1111 1111 1111"`,
		"a letter": `"411111111111111l"`, "LF": `"4111111111111111\n"`, "no digit": `"411111111111111;"`, "nobody's of 11": `"` + fixed("10000000000") + `"`, "nobody's of 20": `"` + fixed("10000000000000000000") + `"`, "another script": `"٤١١١١١١١"`, "not yet whole": `"411111"`,
		"a Visa of 15": `"` + fixed("411111111111111") + `"`, "an Amex of 16": `"` + fixed("3782822463100050") + `"`, "a Mastercard of 19": `"` + fixed("5555555555554444000") + `"`,
	} {
		if got, err := network(t, text); got != (vault.Network{}) || err != vault.ErrOpen {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	body := newBody(t, panShape, `{"pan":4111111111111111,"cvc":"4111111111111111","account":"4111111111111111","type":"x","sealed":{"data":"x","iv":"y"}}`)
	for name, pointer := range map[string]string{"a number": "/pan", "a CVC": "/cvc", "an account": "/account", "public": "/type", "sealed": "/sealed", "undeclared": "/x", "absent": "/pan/x"} {
		if got, err := body.Network(pointer); got != (vault.Network{}) || err != vault.ErrMember {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, text := range []string{`{}`, `{"pan":null}`, `{"pan":["4111111111111111"]}`} {
		if _, err := newBody(t, panShape, text).Network("/pan"); err != vault.ErrMember {
			t.Errorf("%s: %v", text, err)
		}
	}
	closed := newBody(t, panShape, `{"pan":"4111111111111111"}`)
	closed.Close()
	if got, err := closed.Network("/pan"); got != (vault.Network{}) || err != vault.ErrMember {
		t.Errorf("closed: %+v, %v", got, err)
	}
}

// TestBrandsAreGuarded: what has a name here is looked for where nothing is meant to leave, in every length that a guard
// knows; and no number has two names.
func TestBrandsAreGuarded(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	end := 0
	for _, b := range vault.Brands() {
		if b.Low <= end || b.High < b.Low || b.High > 999999 || b.Name == "" || len(b.Digits) == 0 {
			t.Errorf("%+v: out of order, or empty", b)
		}
		end = b.High
		for _, n := range b.Digits {
			for _, bin := range []int{b.Low, b.High, b.Low + r.IntN(b.High-b.Low+1)} {
				number := fixed(fmt.Sprintf("%06d%s", bin, numerals(r, n-6)))
				if n >= 13 && !vault.HoldsPANString(number) {
					t.Errorf("%s: the guard does not look for %s", b.Name, number)
				}
				if got, err := network(t, `"`+number+`"`); err != nil || got != (vault.Network{Name: b.Name, SecurityCode: !b.NoCode}) {
					t.Errorf("%s: %+v, %v", number, got, err)
				}
			}
		}
	}
}

// FuzzNetwork: what has a network is a number that a field would hold, with a valid check digit; and the answer does not
// depend on digits after the first six, but for that one and their number.
func FuzzNetwork(f *testing.F) {
	f.Add("4111111111111111", "99999999")
	f.Add("378282246310005", "1")
	f.Add("8600000000000007", "")
	f.Add("٤١١١١١١١", "x")
	f.Fuzz(func(t *testing.T, text, other string) {
		if strings.ContainsAny(text, `"\`) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == '�' }) {
			return
		}
		got, err := network(t, `"`+text+`"`)
		whole := len(text) >= 12 && len(text) <= 19 && strings.Trim(text, "0123456789") == "" && valid(text)
		if err != nil {
			if err != vault.ErrOpen || got != (vault.Network{}) || whole && text[0] != '2' && text[0] < '3' {
				t.Fatalf("%q: %+v, %v", text, got, err)
			}
			return
		}
		if !whole {
			t.Fatalf("%q: %+v", text, got)
		}
		if strings.Trim(other, "0123456789") != "" || len(other) > len(text)-7 {
			return
		}
		same := fixed(text[:6] + other + text[6+len(other):])
		if again, err := network(t, `"`+same+`"`); err != nil || again != got {
			t.Fatalf("%s is %+v, %s is %+v", text, got, same, again)
		}
	})
}

// BenchmarkNetwork is once per card number that a page submits.
func BenchmarkNetwork(b *testing.B) {
	body := newBody(b, panShape, `{"pan":"4111111111111111"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := body.Network("/pan"); err != nil {
			b.Fatal(err)
		}
	}
}
