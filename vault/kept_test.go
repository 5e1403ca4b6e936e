package vault_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault"
)

const keptAnswer = `{"paymentId":"p-1","card":{"cardNumber":"411111******1111"},"transactionResult":{"status":"ready"}}`

// answered is a message that leaves as it came.
func answered(t testing.TB, text string) *vault.Outgoing {
	t.Helper()
	var none *vault.Session
	o, err := none.Rewrite(newBody(t, dealShape, text), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Destroy)
	return o
}

// TestKeptAnswer: an answer that was kept is what it was, to the byte, as often as who has the token asks; nothing of it can be read
// where it is kept, and no two are alike.
func TestKeptAnswer(t *testing.T) {
	h := newTill(t)
	for name, text := range map[string]string{
		"usual": keptAnswer, "least": `{}`, "white space": "\n { \"a\" : 1 } \n", "long": `"` + strings.Repeat("x", 100_000) + `"`, "no valid check digit": `"4111111111111112"`,
	} {
		answer := answered(t, text)
		sealed, err := h.holder.Keep(paymentToken, []byte("ad"), answer)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if written(t, answer) != text {
			t.Errorf("%s: the answer was changed", name)
		}
		if len(text) > 8 && bytes.Contains(sealed, []byte(text)[:8]) {
			t.Errorf("%s: it can be read", name)
		}
		if bytes.Equal(sealed, must(h.holder.Keep(paymentToken, []byte("ad"), answer))) {
			t.Errorf("%s: sealed twice alike", name)
		}
		before := bytes.Clone(sealed)
		for range 2 {
			got, err := h.holder.Kept(paymentToken, []byte("ad"), sealed)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if written(t, got) != text || got.HoldsPAN() {
				t.Errorf("%s: became another answer", name)
			}
			got.Destroy()
		}
		if !bytes.Equal(sealed, before) {
			t.Errorf("%s: what is kept was changed", name)
		}
	}
	empty := must(vault.ReadBody(strings.NewReader(""), -1, dealShape))
	nothing := must(new(vault.Session).Rewrite(empty, nil))
	got, err := h.holder.Kept(paymentToken, nil, must(h.holder.Keep(paymentToken, nil, nothing)))
	if err != nil || written(t, got) != "" {
		t.Errorf("an answer without a body: %v", err)
	}
}

// TestKeptRefuses: without the token, the rest that a repetition has in common with its call, and every bit, it opens nowhere.
func TestKeptRefuses(t *testing.T) {
	h := newTill(t)
	ad := []byte("scope and body")
	sealed := must(h.holder.Keep(paymentToken, ad, answered(t, keptAnswer)))
	other := must(h.vault.NewHolder(storageKey(t, "storage-2026", "", 8)))
	card := must(h.holder.Rehold(sessionToken, h.parts(t, clearPAN, "123"), paymentToken))
	type kept struct {
		holder *vault.Holder
		token  string
		ad     []byte
		sealed []byte
	}
	cases := map[string]kept{
		"another token":        {h.holder, sessionToken, ad, sealed},
		"a longer token":       {h.holder, paymentToken + "A", ad, sealed},
		"a token in NULs":      {h.holder, paymentToken + "\x00", ad, sealed}, // HMAC pads keys with zeros
		"a short token":        {h.holder, paymentToken[:21], ad, sealed},
		"no token":             {h.holder, "", ad, sealed},
		"another ad":           {h.holder, paymentToken, []byte("scope and Body"), sealed},
		"a longer ad":          {h.holder, paymentToken, append(bytes.Clone(ad), 0), sealed},
		"a shorter ad":         {h.holder, paymentToken, ad[:len(ad)-1], sealed},
		"no ad":                {h.holder, paymentToken, nil, sealed},
		"another key":          {other, paymentToken, ad, sealed},
		"nothing":              {h.holder, paymentToken, ad, nil},
		"a byte more":          {h.holder, paymentToken, ad, append(bytes.Clone(sealed), 0)},
		"zeros":                {h.holder, paymentToken, ad, make([]byte, len(sealed))},
		"a held card":          {h.holder, paymentToken, nil, card},
		"a held name, as one":  {h.holder, paymentToken, nil, must(h.holder.HoldDetail(paymentToken, vault.DetailName, "Ada"))},
		"another key's answer": {h.holder, paymentToken, ad, must(other.Keep(paymentToken, ad, answered(t, keptAnswer)))},
	}
	for i := range 8 * len(sealed) {
		changed := bytes.Clone(sealed)
		changed[i/8] ^= 1 << (i % 8)
		cases[fmt.Sprintf("bit %d", i)] = kept{h.holder, paymentToken, ad, changed}
	}
	for n := range sealed {
		cases[fmt.Sprintf("cut to %d", n)] = kept{h.holder, paymentToken, ad, sealed[:n]}
	}
	for name, c := range cases {
		if got, err := c.holder.Kept(c.token, c.ad, c.sealed); err != vault.ErrOpen || got != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nor is a kept answer a card.
	if s, err := h.redeem(t, paymentToken, must(h.holder.Keep(paymentToken, nil, answered(t, keptAnswer))), vault.InsecureClearIssuer()); err != vault.ErrOpen {
		t.Errorf("a kept answer for a card: %v, %v", s, err)
	}
	if got, err := h.holder.Kept(paymentToken, ad, sealed); err != nil || written(t, got) != keptAnswer {
		t.Errorf("the good one: %v", err)
	}
}

// TestKeepRefuses: what may hold card data is kept nowhere, however well it is sealed.
func TestKeepRefuses(t *testing.T) {
	h := newTill(t)
	s, pan, cvc := clearFields(t, newHouse(t))
	render := func(template string, f vault.Sealed, at int) *vault.Outgoing {
		o, err := s.Render([]byte(template), []vault.Splice{{At: at, Field: f}})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	destroyed := answered(t, keptAnswer)
	destroyed.Destroy()
	for name, o := range map[string]*vault.Outgoing{
		"a number":            answered(t, `{"note":"`+clearPAN+`"}`),
		"a number in groups":  answered(t, `{"note":"4111 1111-1111 1111"}`),
		"a number as such":    answered(t, clearPAN),
		"a number, escaped":   answered(t, `"\u0034111111111111111"`),
		"a number for a name": answered(t, `{"`+clearPAN+`":1}`),
		"a field in clear":    render(`{"card_number":}`, pan, 15),
		"a code in clear":     render(`{"cvc":}`, cvc, 7),
		"what was destroyed":  destroyed,
	} {
		if sealed, err := h.holder.Keep(paymentToken, nil, o); err == nil || err == vault.ErrOpen || sealed != nil || strings.Contains(err.Error(), "4111") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, token := range []string{"", paymentToken[:21]} {
		if sealed, err := h.holder.Keep(token, nil, answered(t, keptAnswer)); err == nil || sealed != nil {
			t.Errorf("under a token of %d: %v", len(token), err)
		}
	}
}

// TestHeldNetwork: of a number that is held its network is told, under its token, and of nothing else.
func TestHeldNetwork(t *testing.T) {
	h := newTill(t)
	hold := func(number string) []byte {
		return must(h.holder.Hold(h.page, sessionToken, vault.FieldPAN, h.submitted(t, "/cardNumber", number)))
	}
	for number, want := range map[string]vault.Network{
		clearPAN: {"visa", true}, "5555555555554444": {"mastercard", true}, "378282246310005": {"amex", true}, "8600001234567894": {"uzcard", false}, "9999999999999995": {"", true},
	} {
		for range 2 { // it forgets nothing
			if got, err := h.holder.Network(sessionToken, hold(number)); got != want || err != nil {
				t.Errorf("%s: %+v, %v", number, got, err)
			}
		}
		if got := must(newBody(t, panShape, `{"pan":"`+number+`"}`).Network("/pan")); got != want {
			t.Errorf("%s: where it came it is %+v", number, got)
		}
	}
	good := hold(clearPAN)
	type asked struct {
		token string
		held  []byte
	}
	cases := map[string]asked{
		"another token":          {paymentToken, good},
		"a short token":          {sessionToken[:21], good},
		"no token":               {"", good},
		"nothing":                {sessionToken, nil},
		"a byte more":            {sessionToken, append(bytes.Clone(good), 0)},
		"a security code":        {sessionToken, h.parts(t, clearPAN, "123").Fields[vault.FieldCVC]},
		"an expiry":              {sessionToken, h.parts(t, clearPAN, "123").Details[vault.DetailExpiry]},
		"a number for a code":    {sessionToken, must(h.holder.HoldPart(sessionToken, "cvc", clearPAN))},
		"a card":                 {paymentToken, must(h.holder.Rehold(sessionToken, h.parts(t, clearPAN, "123"), paymentToken))},
		"a wrong check digit":    {sessionToken, must(h.holder.HoldPart(sessionToken, "pan", "4111111111111112"))},
		"a length of no Visa":    {sessionToken, must(h.holder.HoldPart(sessionToken, "pan", "41111111111116"))},
		"no digits":              {sessionToken, must(h.holder.HoldPart(sessionToken, "pan", "4111 1111 1111 1111"))},
		"too short for a prefix": {sessionToken, must(h.holder.HoldPart(sessionToken, "pan", "42"))},
		"longer than is held":    {sessionToken, must(h.holder.HoldPart(sessionToken, "pan", strings.Repeat("0", 256)))},
	}
	for i := range 8 * len(good) {
		changed := bytes.Clone(good)
		changed[i/8] ^= 1 << (i % 8)
		cases[fmt.Sprintf("bit %d", i)] = asked{sessionToken, changed}
	}
	for name, c := range cases {
		if got, err := h.holder.Network(c.token, c.held); got != (vault.Network{}) || err != vault.ErrOpen {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestNamesHoldNoNumber: a name with as many digits as a card number has is none, of whatever script they are and whatever stands
// between them, since a reader may take them for one.
func TestNamesHoldNoNumber(t *testing.T) {
	h := newTill(t)
	for script, digits := range map[string][]rune{
		"ASCII": []rune("0123456789"), "Arabic": []rune("٠١٢٣٤٥٦٧٨٩"), "Persian": []rune("۰۱۲۳۴۵۶۷۸۹"), "Devanagari": []rune("०१२३४५६७८९"), "full width": []rune("０１２３４５６７８９"),
		"mathematical": []rune("𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗"), "circled": []rune("⓪①②③④⑤⑥⑦⑧⑨"), "raised": []rune("⁰¹²³⁴⁵⁶⁷⁸⁹"), "Roman": []rune("ⅠⅠⅡⅢⅣⅤⅥⅦⅧⅨ"), "mixed": []rune("0١2३４𝟓⑥⁷8۹"),
	} {
		for _, between := range []string{"", " ", "-", "x", "Ada ", "."} {
			name := func(n int) string {
				parts := make([]string, n)
				for i := range parts {
					parts[i] = string(digits[(7*i+1)%10])
				}
				return "Z" + strings.Join(parts, between) + "Z"
			}
			for n, ok := range map[int]bool{1: true, 11: true, 12: false, 13: false, 16: false, 19: false} {
				out, err := h.holder.HoldDetail(sessionToken, vault.DetailName, name(n))
				if ok != (err == nil) || !ok && (err != vault.ErrOpen || out != nil) {
					t.Errorf("%s: %d digits with %q between: %v", script, n, between, err)
				}
			}
		}
	}
}
