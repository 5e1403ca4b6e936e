package pinblock_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault/internal/secret"
	"github.com/cardstile/cardstile/vault/pinblock"
)

func parse(t testing.TB, text string) (*pinblock.Block, error) {
	t.Helper()
	in := secret.From([]byte(text))
	defer in.Destroy()
	return pinblock.Parse(in)
}

func text(b *pinblock.Block) string {
	out := b.Text()
	defer out.Destroy()
	return string(out.Bytes())
}

// block writes a PIN as the published clients do.
func block(pin string) string {
	return "2" + fmt.Sprintf("%x", len(pin)) + pin + strings.Repeat("F", 14-len(pin))
}

func TestVectors(t *testing.T) {
	for pin, want := range map[string]string{
		"1234":         "241234FFFFFFFFFF",
		"123456":       "26123456FFFFFFFF",
		"123456789012": "2c123456789012FF",
	} {
		if block(pin) != want {
			t.Fatalf("the test's own block of %s is %s", pin, block(pin))
		}
		b, err := parse(t, want)
		if err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		if got := text(b); got != want {
			t.Errorf("%s became %s", want, got)
		}
		b.Destroy()
	}
}

func TestEveryLength(t *testing.T) {
	const digits = "58203917465820"
	for n := range 15 {
		_, err := parse(t, block(digits[:n]))
		if ok := n >= 4 && n <= 12; (err == nil) != ok {
			t.Errorf("a PIN of %d digits: %v", n, err)
		}
	}
}

func TestLengthInEitherCase(t *testing.T) {
	b, err := parse(t, "2C582039174658FF")
	if err != nil {
		t.Fatal(err)
	}
	if got := text(b); got != "2c582039174658FF" {
		t.Errorf("got %s", got)
	}
}

// TestEveryByteMatters replaces each character by each other byte. What is still accepted must be another PIN, or the
// same with its length in capitals.
func TestEveryByteMatters(t *testing.T) {
	const good = "2a5820391746FFFF" // ten digits
	for i := range good {
		for c := range 256 {
			changed := []byte(good)
			changed[i] = byte(c)
			b, err := parse(t, string(changed))
			if err != nil {
				if !errors.Is(err, pinblock.ErrMalformed) || err.Error() != "pin block: malformed" {
					t.Fatalf("error is %v", err)
				}
				continue
			}
			digit := i >= 2 && i < 12 && c >= '0' && c <= '9'
			if !digit && string(changed) != good && string(changed) != "2A5820391746FFFF" {
				t.Errorf("%q accepted", changed)
			}
			b.Destroy()
		}
	}
}

func TestRefused(t *testing.T) {
	for _, bad := range []string{
		"", "2", "241234", "241234FFFFFFFFF", "241234FFFFFFFFFFF", "141234FFFFFFFFFF", "041234FFFFFFFFFF",
		"241234ffffffffff", "251234FFFFFFFFFF", "231234FFFFFFFFFF", "24123 FFFFFFFFFF", "24123４FFFFFFFFF",
		"2d1234567890123F", "2e12345678901234", "24-234FFFFFFFFFF", " 241234FFFFFFFFF", "241234FFFFFFFFF\n",
	} {
		if _, err := parse(t, bad); !errors.Is(err, pinblock.ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := pinblock.Parse(nil); !errors.Is(err, pinblock.ErrMalformed) {
		t.Errorf("nil: %v", err)
	}
}

func TestWeak(t *testing.T) {
	weak := []string{"0000", "9999", "55555", "111111111111", "1234", "0123", "4321", "9876", "8901", "7890", "0987", "2109", "123456789012", "987654"}
	strong := []string{"1235", "1243", "1212", "1122", "0001", "1000", "2580", "1357", "12344", "11112", "5820", "123456789013", "135791"}
	for _, pin := range weak {
		if b, err := parse(t, block(pin)); err != nil || !b.Weak() {
			t.Errorf("%s is not weak (%v)", pin, err)
		}
	}
	for _, pin := range strong {
		if b, err := parse(t, block(pin)); err != nil || b.Weak() {
			t.Errorf("%s is weak (%v)", pin, err)
		}
	}
}

func TestDestroyed(t *testing.T) {
	b, err := parse(t, block("5820"))
	if err != nil {
		t.Fatal(err)
	}
	b.Destroy()
	b.Destroy()
	if got := text(b); got != "" {
		t.Errorf("a destroyed block gives %q", got)
	}
	if !b.Weak() {
		t.Error("a destroyed block passes as strong")
	}
	var none *pinblock.Block
	none.Destroy()
}

// TestOwnCopy: the block does not depend on the buffer that it was read from.
func TestOwnCopy(t *testing.T) {
	in := secret.From([]byte(block("5820")))
	b, err := pinblock.Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	in.Destroy()
	if got := text(b); got != block("5820") {
		t.Errorf("got %q", got)
	}
}

func TestNothingPrintsThePIN(t *testing.T) {
	b, err := parse(t, block("5820"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{b, *b, struct{ B *pinblock.Block }{b}, struct{ b pinblock.Block }{*b}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			got := fmt.Sprintf(verb, v)
			for _, leak := range []string{"5820", "35383230", "53 56 50 48", "0x35, 0x38"} {
				if strings.Contains(got, leak) {
					t.Errorf("%s of %T: %s", verb, v, got)
				}
			}
		}
		if got, err := json.Marshal(v); err != nil || strings.Contains(string(got), "5820") {
			t.Errorf("JSON of %T: %s, %v", v, got, err)
		}
	}
}

// FuzzParse: what is accepted is written again as it was read, but for the case of the length, and has a PIN of 4 to 12 digits.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"241234FFFFFFFFFF", "26123456FFFFFFFF", "2c123456789012FF", "2C123456789012FF", "", "2"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := parse(t, string(in))
		if err != nil {
			if !errors.Is(err, pinblock.ErrMalformed) {
				t.Fatalf("error is %v", err)
			}
			return
		}
		defer b.Destroy()
		out := text(b)
		if !bytes.EqualFold([]byte(out), in) || out[2:] != string(in[2:]) {
			t.Fatalf("%q became %q", in, out)
		}
		if pin := strings.TrimRight(out[2:], "F"); block(pin) != out || strings.Trim(pin, "0123456789") != "" {
			t.Fatalf("%q holds the PIN %q", in, pin)
		}
	})
}
