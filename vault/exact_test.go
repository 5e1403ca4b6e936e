package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/cardstile/cardstile/vault"
)

// exactly declares members at every level, of every sort.
func exactly(exact bool) *vault.Shape {
	return must(vault.NewShape(vault.ShapeConfig{
		Public: []string{"/processingTerminalId", "/order/customer/name", "/lines/0/sku"}, Clear: map[string]vault.Field{"/card/cardNumber": vault.FieldPAN},
		Sealed: map[string]vault.Field{"/recipient/account": vault.FieldAccount}, Tokens: []string{"/paymentMethod"}, Exact: exact,
	}))
}

// misspelt are bodies in which a name is another spelling of one that is declared beside it.
var misspelt = map[string]string{
	"alone":                         `{"ProcessingTerminalId":"1"}`,
	"after the right one":           `{"processingTerminalId":"1","processingTerminalID":"2"}`,
	"before the right one":          `{"PROCESSINGTERMINALID":"2","processingTerminalId":"1"}`,
	"null":                          `{"ProcessingTerminalId":null}`,
	"a token":                       `{"paymentMethod":{"type":"a","token":"b"},"PaymentMethod":{"type":"card"}}`,
	"a token's type":                `{"paymentMethod":{"type":"a","Type":"card","token":"b"}}`,
	"a token's token":               `{"paymentMethod":{"type":"a","token":"b","TOKEN":"c"}}`,
	"a field in clear":              `{"card":{"CardNumber":"4111111111111111"}}`,
	"on the way to a field":         `{"Card":{"cardNumber":"4111111111111111"}}`,
	"on the way, holding nothing":   `{"Card":1}`,
	"a sealed one":                  `{"recipient":{"Account":{"data":"","iv":""}}}`,
	"a sealed one's data":           `{"recipient":{"account":{"data":"","Data":"","iv":""}}}`,
	"a sealed one's IV":             `{"recipient":{"account":{"data":"","iv":"","IV":""}}}`,
	"deep":                          `{"order":{"customer":{"Name":"x"}}}`,
	"on the way, deep":              `{"order":{"Customer":{}}}`,
	"in a list":                     `{"lines":[{"SKU":"x"}]}`,
	"a list":                        `{"Lines":[]}`,
	"by an escape":                  `{"payment\u006dethod":{"type":"a","token":"b"}}`,
	"by escapes of all":             `{"\u0050\u0061\u0079\u006d\u0065\u006e\u0074\u006d\u0065\u0074\u0068\u006f\u0064":1}`,
	"by an escape elsewhere":        `{"\u0070aymentmethod":1}`,
	"by a letter that folds":        "{\"proce\u017fsingTerminalId\":\"1\"}", // ſ folds to s
	"by one that folds, escaped":    `{"proce\u017f\u017fingTerminalId":"1"}`,
	"by another letter, in a token": "{\"paymentMethod\":{\"type\":\"a\",\"to\u212aen\":\"b\"}}", // the sign of Kelvin folds to k
}

// TestExactSpelling: where a shape is exact, no name stands beside a declared one that a reader without regard to case takes for it,
// at whatever level and however it is written. Such a body is refused and zeroed, with an error that does not quote it.
func TestExactSpelling(t *testing.T) {
	exact, lax := exactly(true), exactly(false)
	for name, text := range misspelt {
		raw := []byte(text)
		b, err := vault.NewBody(raw, exact)
		if b != nil || !errors.Is(err, vault.ErrBody) || errors.Is(err, vault.ErrBodyTooLarge) || err.Error() != "malformed body: another spelling of a declared name" {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(raw, make([]byte, len(raw))) {
			t.Errorf("%s: not zeroed", name)
		}
		if got := newBody(t, lax, text); got == nil {
			t.Errorf("%s: refused where spelling is not exact", name)
		}
	}
	// Every letter of a name counts.
	for _, declared := range []string{"processingTerminalId", "paymentMethod", "card", "lines"} {
		for i, r := range declared {
			other := unicode.ToUpper(r)
			if other == r {
				other = unicode.ToLower(r)
			}
			name := declared[:i] + string(other) + declared[i+1:]
			for _, written := range []string{name, fmt.Sprintf(`%s\u%04x%s`, declared[:i], other, declared[i+1:])} {
				if _, err := vault.NewBody([]byte(`{"`+written+`":null}`), exact); !errors.Is(err, vault.ErrBody) {
					t.Errorf("%s: %v", written, err)
				}
			}
		}
	}
}

// TestExactTakesTheRest: what nobody takes for a declared name stands beside it, and anything where nothing is declared.
func TestExactTakesTheRest(t *testing.T) {
	exact := exactly(true)
	for name, text := range map[string]string{
		"as declared":                     `{"processingTerminalId":"1","paymentMethod":{"type":"a","token":"b"},"card":{"cardNumber":"4"},"lines":[{"sku":"1"}],"recipient":{"account":{"data":"","iv":""}}}`,
		"as declared, escaped":            `{"payment\u004dethod":{"\u0074ype":"a","token":"b"},"processingTerminalId":"1"}`,
		"other separators":                `{"payment_method":1,"payment-method":1,"payment Method":1,"paymentMethod ":1}`,
		"longer and shorter":              `{"PaymentMethods":1,"Payment":1,"PROCESSINGTERMINALI":1}`,
		"letters that look alike":         "{\"p\u0430ymentMethod\":1,\"PAYMENTMETHO\u0300D\":1}",
		"another level's, further down":   `{"order":{"PaymentMethod":{"Token":1}},"x":{"Card":{"CardNumber":1}}}`,
		"another level's, further up":     `{"Token":1,"Type":1,"CardNumber":1,"SKU":1}`,
		"below what is declared":          `{"processingTerminalId":{"ProcessingTerminalId":1}}`,
		"an element that is not declared": `{"lines":[{},{"SKU":1}]}`,
		"a list in place of an object":    `{"paymentMethod":[{"TOKEN":1}],"card":[{"CARDNUMBER":1}]}`,
		"in a text":                       `{"x":"PaymentMethod","y":["PAYMENTMETHOD"]}`,
		"no object":                       `["PaymentMethod",{"PaymentMethod":1}]`,
	} {
		b, err := vault.NewBody([]byte(text), exact)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		b.Close()
	}
	b := newBody(t, exact, `{"payment\u004dethod":{"\u0074ype":"a","token":"b"},"processin\u0067TerminalId":"1"}`)
	if kind, token, err := b.Token("/paymentMethod"); kind != "a" || token != "b" || err != nil {
		t.Errorf("%q, %q, %v", kind, token, err)
	}
	if text, err := b.Text("/processingTerminalId"); text != "1" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	// Where spelling is not exact, another one is another member.
	b = newBody(t, exactly(false), `{"processingTerminalId":"1","ProcessingTerminalId":"2","PaymentMethod":{"type":"a","token":"b"}}`)
	if text, err := b.Text("/processingTerminalId"); text != "1" || err != nil || b.Has("/paymentMethod") {
		t.Errorf("%q, %v", text, err)
	}
}

// FuzzExactSpelling: of all names, those are refused that are another spelling of the declared one.
func FuzzExactSpelling(f *testing.F) {
	for _, name := range []string{"sessionKey", "SessionKey", "\u017fessionKey", "session\u212aey", "session\u0130ey", "sessionKey\x00", ""} {
		f.Add(name)
	}
	exact := must(vault.NewShape(vault.ShapeConfig{Public: []string{"/sessionKey"}, Exact: true}))
	f.Fuzz(func(t *testing.T, name string) {
		if strings.ToValidUTF8(name, "") != name {
			return
		}
		text := `{` + quoted(name) + `:1}`
		b, err := vault.NewBody([]byte(text), exact)
		b.Close()
		// As encoding/json's readers, and those of others, compare names: letter by letter, under simple folding.
		if want := name != "sessionKey" && strings.EqualFold(name, "sessionKey"); (err != nil) != want || want && !errors.Is(err, vault.ErrBody) {
			t.Errorf("%q: %v", name, err)
		}
	})
}

// quoted writes a name with every character escaped that is no letter of ASCII.
func quoted(name string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z':
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// TestBodyHoldsPAN: a card number is found wherever it stands but in a member that is declared to hold one, however it is written
// there; and the declared one takes no part in it.
func TestBodyHoldsPAN(t *testing.T) {
	const token = `"paymentMethod":{"type":"singleUseToken","token":"dG9rZW4"}`
	declared := `"card":{"cardNumber":"` + clearPAN + `"}`
	for name, test := range map[string]struct {
		text string
		want bool
	}{
		"nothing":                     {`{}`, false},
		"a token":                     {`{` + token + `}`, false},
		"a declared one":              {`{` + declared + `}`, false},
		"a declared one in groups":    {`{"card":{"cardNumber":"4111 1111 1111 1111"}}`, false},
		"a declared one, empty":       {`{"card":{"cardNumber":""}}`, false},
		"a declared one, null":        {`{"card":{"cardNumber":null}}`, false},
		"a declared one, escaped":     {`{"card":{"card\u004eumber":"\u0034111111111111111"}}`, false},
		"no valid check digit":        {`{"note":"4111111111111112"}`, false},
		"an amount":                   {`{"order":{"amount":4999.00,"id":"o-1"},` + token + `}`, false},
		"undeclared":                  {`{"note":"` + clearPAN + `"}`, true},
		"beside a token":              {`{"note":"` + clearPAN + `",` + token + `}`, true},
		"behind a token":              {`{` + token + `,"note":"` + clearPAN + `"}`, true},
		"before a declared one":       {`{"note":"` + clearPAN + `",` + declared + `}`, true},
		"behind a declared one":       {`{` + declared + `,"note":"` + clearPAN + `"}`, true},
		"beside a declared one":       {`{"card":{"cardNumber":"` + clearPAN + `","other":"` + clearPAN + `"}}`, true},
		"in groups":                   {`{"note":"4111 1111 1111 1111"}`, true},
		"with hyphens":                {`{"note":"4111-1111-1111-1111"}`, true},
		"escaped":                     {`{"note":"\u0034\u0031\u0031\u00311111\u00311111111"}`, true},
		"percent-encoded":             {`{"note":"%34111111111111111"}`, true},
		"a number":                    {`{"note":` + clearPAN + `}`, true},
		"a name":                      {`{"` + clearPAN + `":1}`, true},
		"a name, escaped":             {`{"\u0034111111111111111":1}`, true},
		"deep":                        {`{"a":[{"b":["` + clearPAN + `"]}]}`, true},
		"in a public member":          {`{"processingTerminalId":"` + clearPAN + `"}`, true},
		"in a token's text":           {`{"paymentMethod":{"type":"a","token":"` + clearPAN + `"}}`, true},
		"in a token, besides":         {`{"paymentMethod":{"type":"a","token":"b","more":"` + clearPAN + `"}}`, true},
		"in a sealed one":             {`{"recipient":{"account":{"data":"` + clearPAN + `","iv":""}}}`, true},
		"in a list, for a token":      {`{"paymentMethod":["` + clearPAN + `"]}`, true},
		"a number where a text is to": {`{"card":{"cardNumber":` + clearPAN + `}}`, true},
		"an object where a text is":   {`{"card":{"cardNumber":{"x":"` + clearPAN + `"}}}`, true},
		"a list where a text is":      {`{"card":{"cardNumber":["` + clearPAN + `"]}}`, true},
		"one digit where a text is":   {`{"card":{"cardNumber":4},"note":"x"}`, false},
		"one digit, and a number":     {`{"card":{"cardNumber":4},"note":"` + clearPAN + `"}`, true},
		"digits around a declared":    {`{"a":"41111111","card":{"cardNumber":"1"},"b":"11111111"}`, false},
		"no object":                   {`"` + clearPAN + `"`, true},
		"a list":                      {`[1,"` + clearPAN + `"]`, true},
	} {
		got, done := make(chan bool, 1), time.After(5*time.Second)
		b := newBody(t, exactly(true), test.text)
		go func() { got <- b.HoldsPAN() }()
		select {
		case holds := <-got:
			if holds != test.want {
				t.Errorf("%s: %t", name, holds)
			}
		case <-done:
			t.Fatalf("%s: it does not end", name)
		}
	}
	closed := newBody(t, exactly(true), `{`+declared+`,"note":"x"}`)
	closed.Close()
	if closed.HoldsPAN() {
		t.Error("a closed body holds one")
	}
	empty := must(vault.ReadBody(strings.NewReader(""), -1, exactly(true)))
	if empty.HoldsPAN() {
		t.Error("an empty body holds one")
	}
}
