package vault_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault"
)

// bridgeShape is card details in clear, as Bridge answers them.
var bridgeShape = must(vault.NewShape(vault.ShapeConfig{
	Public: []string{"/expiry_date"},
	Clear:  map[string]vault.Field{"/card_number": vault.FieldPAN, "/card_security_code": vault.FieldCVC, "/pin": vault.FieldPIN, "/iban": vault.FieldAccount},
}))

const bridgeAnswer = `{"card_number":"4111111111111111","card_security_code":"123","pin":"245820FFFFFFFFFF","iban":"GB29 NWBK 6016 1331 9268 19","expiry_date":"12/30"}`

// openLegs gives a session of any two legs, and the far ends of those that are sealed.
func (h *house) openLegs(t testing.TB, clearClient, clearIssuer bool) (s *vault.Session, client, issuer *peer) {
	t.Helper()
	o := vault.Opening{Binding: binding, Client: vault.InsecureClearClient(), Issuer: vault.InsecureClearIssuer()}
	if !clearClient {
		var text string
		client, text = newPeer(t, h.key.Public())
		o.Client, o.Preamble = h.client, h.preamble(t, text)
	}
	if !clearIssuer {
		o.Issuer = h.issuer
	}
	s, err := h.vault.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if clearIssuer {
		if s.IssuerPreamble() != "" {
			t.Error("a leg in clear has a preamble")
		}
		return s, client, nil
	}
	return s, client, readPeer(t, issuerRSA(), s.IssuerPreamble())
}

func newBody(t testing.TB, shape *vault.Shape, text string) *vault.Body {
	t.Helper()
	b, err := vault.NewBody([]byte(text), shape)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// rendered is what a field in clear becomes on the wire.
func rendered(t testing.TB, s *vault.Session, field vault.Sealed) string {
	t.Helper()
	o, err := s.Render([]byte("[]"), []vault.Splice{{At: 1, Field: field}})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Destroy()
	var out []string
	if err := json.Unmarshal([]byte(written(t, o)), &out); err != nil || len(out) != 1 {
		t.Fatalf("%v: %d values", err, len(out))
	}
	return out[0]
}

func written(t testing.TB, o *vault.Outgoing) string {
	t.Helper()
	var b bytes.Buffer
	n, err := o.WriteTo(&b)
	if err != nil || int(n) != o.Len() || b.Len() != o.Len() {
		t.Fatalf("%d bytes of %d, %v", n, o.Len(), err)
	}
	return b.String()
}

// TestClearLegs: each field over each pair of legs with one in clear, both ways.
func TestClearLegs(t *testing.T) {
	h := newHouse(t)
	values := map[vault.Field]struct{ pointer, text string }{
		vault.FieldPAN:     {"/card_number", "4111111111111111"},
		vault.FieldCVC:     {"/card_security_code", "123"},
		vault.FieldPIN:     {"/pin", "245820FFFFFFFFFF"},
		vault.FieldAccount: {"/iban", "GB29 NWBK 6016 1331 9268 19"},
	}
	for _, legs := range []struct{ client, issuer bool }{{true, false}, {false, true}, {true, true}} {
		s, client, issuer := h.openLegs(t, legs.client, legs.issuer)
		for _, d := range []vault.Direction{vault.ToClient, vault.ToIssuer} {
			fromClear, toClear, from, to := legs.issuer, legs.client, issuer, client
			if d == vault.ToIssuer {
				fromClear, toClear, from, to = legs.client, legs.issuer, client, issuer
			}
			for f, v := range values {
				var in vault.Sealed
				if fromClear {
					in = must(newBody(t, bridgeShape, bridgeAnswer).Field(v.pointer))
				} else {
					in = from.seal(v.text, 12)
				}
				out, err := s.Reseal(f, d, in)
				if err != nil {
					t.Fatalf("%+v, %s %s: %v", legs, f, d, err)
				}
				if out.InClear() != toClear || toClear != (out.Data == "" && out.IV == "") || out == (vault.Sealed{}) {
					t.Errorf("%+v, %s %s: in clear: %t", legs, f, d, out.InClear())
				}
				got, ivBytes := "", 16
				if toClear {
					got = rendered(t, s, out)
				} else {
					got, ivBytes = to.open(t, out)
				}
				if got != v.text || ivBytes != 16 && (fromClear || d == vault.ToClient) {
					t.Errorf("%+v, %s %s: %q under %d bytes", legs, f, d, got, ivBytes)
				}
			}
		}
	}
	if n := metric(t, h.vault, "cardstile_vault_reseals_total", map[string]string{"field": "pan", "direction": "to_client", "result": "ok"}); n != 3 {
		t.Errorf("%v counted", n)
	}
}

// TestClearLegsCheck: what is in clear is judged as what was sealed is, and nothing comes out of a refusal.
func TestClearLegsCheck(t *testing.T) {
	h := newHouse(t)
	for _, clearClient := range []bool{true, false} {
		s, _, _ := h.openLegs(t, clearClient, true)
		for _, c := range []struct {
			text string
			f    vault.Field
			d    vault.Direction
			want error
		}{
			{`"41111111111"`, vault.FieldPAN, vault.ToClient, vault.ErrOpen},
			{`"41111111111111111111"`, vault.FieldPAN, vault.ToClient, vault.ErrOpen},
			{`"4111 1111 1111 1111"`, vault.FieldPAN, vault.ToClient, vault.ErrOpen},
			{`"411111111111111l"`, vault.FieldPAN, vault.ToClient, vault.ErrOpen},
			{`"4111111111111111\n"`, vault.FieldPAN, vault.ToClient, vault.ErrOpen},
			{`"4111111111111111\u0000"`, vault.FieldPAN, vault.ToClient, vault.ErrOpen},
			{`""`, vault.FieldPAN, vault.ToClient, vault.ErrOpen},
			{`"` + strings.Repeat("4", 4000) + `"`, vault.FieldPAN, vault.ToClient, vault.ErrOpen},
			{`"12"`, vault.FieldCVC, vault.ToClient, vault.ErrOpen},
			{`"12345"`, vault.FieldCVC, vault.ToClient, vault.ErrOpen},
			{`"5820"`, vault.FieldPIN, vault.ToClient, vault.ErrOpen},
			{`"GB29\u00a0NWBK"`, vault.FieldAccount, vault.ToClient, vault.ErrOpen},
			{`"GB29\"NWBK"`, vault.FieldAccount, vault.ToClient, vault.ErrOpen},
			{`"\u0047B29\u002dNWBK"`, vault.FieldAccount, vault.ToClient, nil},
			{`"\u0034111\u00311111111111\u0031"`, vault.FieldPAN, vault.ToClient, nil},
			{`"` + strings.Repeat(`\u0034`, 19) + `"`, vault.FieldPAN, vault.ToClient, nil},
			{`"4111111111111111"`, vault.FieldPAN, vault.ToClient, nil},
		} {
			shape := must(vault.NewShape(vault.ShapeConfig{Clear: map[string]vault.Field{"/x": c.f}}))
			out, err := s.Reseal(c.f, c.d, must(newBody(t, shape, `{"x":`+c.text+`}`).Field("/x")))
			if err != c.want || err != nil && out != (vault.Sealed{}) {
				t.Errorf("%.40s as %s: %v", c.text, c.f, err)
			}
		}
	}
	// A weak PIN is shown, not set.
	s, _, _ := h.openLegs(t, true, true)
	shape := must(vault.NewShape(vault.ShapeConfig{Clear: map[string]vault.Field{"/x": vault.FieldPIN}}))
	weak := must(newBody(t, shape, `{"x":"2C123456789012FF"}`).Field("/x"))
	if _, err := s.Reseal(vault.FieldPIN, vault.ToIssuer, weak); err != vault.ErrWeakPIN {
		t.Errorf("to the issuer: %v", err)
	}
	shown, err := s.Reseal(vault.FieldPIN, vault.ToClient, weak)
	if err != nil {
		t.Fatal(err)
	}
	if got := rendered(t, s, shown); got != "2c123456789012FF" {
		t.Errorf("respelled to %q", got)
	}
}

// TestHandlesAreHeld: a handle is good for the leg, the field, the body and the session that it is of, and for no other.
func TestHandlesAreHeld(t *testing.T) {
	h := newHouse(t)
	both, _, _ := h.openLegs(t, true, true)
	other, _, _ := h.openLegs(t, true, true)
	toRain, _, issuer := h.openLegs(t, true, false)
	sealed, client, _ := h.open(t)
	clientOnly := must(h.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: vault.InsecureClearClient()}))
	issuerOnly := must(h.vault.Open(context.Background(), vault.Opening{Binding: binding, Issuer: vault.InsecureClearIssuer()}))
	body := newBody(t, bridgeShape, bridgeAnswer)
	pan := must(body.Field("/card_number"))
	leaving, err := both.Reseal(vault.FieldPAN, vault.ToClient, pan)
	if err != nil {
		t.Fatal(err)
	}
	closed := newBody(t, bridgeShape, bridgeAnswer)
	gone := must(closed.Field("/card_number"))
	closed.Close()
	_, text := newPeer(t, &issuerRSA().PublicKey)
	blind, err := h.vault.Blind(binding, must(h.issuer.Parse(text)))
	if err != nil {
		t.Fatal(err)
	}
	pinSealed := client.seal("245820FFFFFFFFFF", 16)
	if _, err := blind.Reseal(vault.FieldPIN, vault.ToIssuer, pinSealed); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		s  *vault.Session
		f  vault.Field
		d  vault.Direction
		in vault.Sealed
	}{
		"as another field":              {both, vault.FieldCVC, vault.ToClient, pan},
		"of a closed body":              {both, vault.FieldPAN, vault.ToClient, gone},
		"on its way out, again":         {both, vault.FieldPAN, vault.ToClient, leaving},
		"of another session":            {other, vault.FieldPAN, vault.ToClient, leaving},
		"on a sealed leg":               {toRain, vault.FieldPAN, vault.ToClient, pan},
		"on sealed legs":                {sealed, vault.FieldPAN, vault.ToClient, pan},
		"in a blind session":            {blind, vault.FieldPIN, vault.ToIssuer, must(body.Field("/pin"))},
		"ciphertext on a clear leg":     {both, vault.FieldPAN, vault.ToClient, issuer.seal("4111111111111111", 16)},
		"ciphertext on a clear leg out": {toRain, vault.FieldPAN, vault.ToIssuer, issuer.seal("4111111111111111", 16)},
		"with texts on a sealed leg":    {sealed, vault.FieldPAN, vault.ToIssuer, withTexts(pan, client.seal("4111111111111111", 16))},
		"no leg that it comes from":     {clientOnly, vault.FieldPAN, vault.ToClient, pan},
		"no leg that it goes to":        {issuerOnly, vault.FieldPAN, vault.ToClient, pan},
		"no leg, sealed":                {clientOnly, vault.FieldPAN, vault.ToClient, client.seal("4111111111111111", 16)},
		"no leg, sealed, to the issuer": {issuerOnly, vault.FieldPAN, vault.ToIssuer, client.seal("4111111111111111", 16)},
		"nothing":                       {both, vault.FieldPAN, vault.ToClient, vault.Sealed{}},
	} {
		if out, err := c.s.Reseal(c.f, c.d, c.in); err != vault.ErrOpen || out != (vault.Sealed{}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if out, err := blind.Reseal(vault.FieldPIN, vault.ToIssuer, withTexts(must(body.Field("/pin")), pinSealed)); err != vault.ErrOpen || out != (vault.Sealed{}) {
		t.Errorf("a handle with texts in a blind session: %v", err)
	}
	for name, c := range map[string]struct {
		s  *vault.Session
		in vault.Sealed
	}{"of another session": {other, leaving}, "of a body": {both, pan}, "none": {both, vault.Sealed{}}, "a ciphertext": {both, pinSealed}, "of a nil session": {nil, leaving}} {
		if c.s == nil {
			c.s = new(vault.Session)
		}
		if o, err := c.s.Render([]byte("[]"), []vault.Splice{{At: 1, Field: c.in}}); err != vault.ErrSplice || o != nil {
			t.Errorf("render a handle %s: %v", name, err)
		}
	}
	if got := rendered(t, both, leaving); got != "4111111111111111" {
		t.Errorf("afterwards: %q", got)
	}
	both.Close()
	if o, err := both.Render([]byte("[]"), []vault.Splice{{At: 1, Field: leaving}}); err != vault.ErrSplice || o != nil {
		t.Errorf("a closed session renders: %v", err)
	}
}

// withTexts gives a handle the texts of a ciphertext, as a caller can.
func withTexts(handle, texts vault.Sealed) vault.Sealed {
	handle.Data, handle.IV = texts.Data, texts.IV
	return handle
}

// TestHandlesAreChecked: the checks that nothing can fail which comes this far, on their own.
func TestHandlesAreChecked(t *testing.T) {
	pan := must(newBody(t, bridgeShape, bridgeAnswer).Field("/card_number"))
	if !vault.CanRead(pan, vault.FieldPAN) || vault.CanRead(pan, vault.FieldCVC) || vault.CanRead(pan, 0) {
		t.Error("a handle is read as another field than was declared")
	}
	for text, want := range map[string]bool{"4111": true, "2c12FF": true, `"`: false, `\`: false, "4\n": false, "4\x00": false, "é": false, "\x7f": false} {
		if vault.NeedsNoEscape([]byte(text)) != want {
			t.Errorf("%q needs no escape: %t", text, !want)
		}
	}
}

// TestClearOpening: a leg in clear needs the permit's binding as any other, and takes no preamble.
func TestClearOpening(t *testing.T) {
	h := newHouse(t)
	_, text := newPeer(t, h.key.Public())
	preamble := h.preamble(t, text)
	client, issuer := vault.InsecureClearClient(), vault.InsecureClearIssuer()
	for name, c := range map[string]struct {
		o    vault.Opening
		want error
	}{
		"no binding":            {vault.Opening{Client: client, Issuer: issuer}, vault.ErrBinding},
		"short binding":         {vault.Opening{Binding: binding[:15], Client: client, Issuer: h.issuer}, vault.ErrBinding},
		"preamble":              {vault.Opening{Binding: binding, Client: client, Preamble: preamble, Issuer: issuer}, vault.ErrPreamble},
		"no preamble":           {vault.Opening{Binding: binding, Client: h.client, Issuer: issuer}, vault.ErrPreamble},
		"preamble, issuer only": {vault.Opening{Binding: binding, Preamble: preamble, Issuer: issuer}, nil},
	} {
		s, err := h.vault.Open(context.Background(), c.o)
		if s != nil || err == nil || c.want != nil && err != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := client.Parse(text); err != vault.ErrPreamble {
		t.Errorf("a client in clear: %v", err)
	}
	if _, err := issuer.Parse(text); err != vault.ErrPreamble {
		t.Errorf("an issuer in clear: %v", err)
	}
	if client.PublicSPKI() != nil || !client.InClear() || !issuer.InClear() || h.client.InClear() || h.issuer.InClear() {
		t.Error("the inventory is wrong")
	}
	// No RSA operation, no place in its queue held.
	s, err := h.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: client, Issuer: issuer, Slot: must(h.vault.Reserve())})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if n := metric(t, h.vault, "cardstile_vault_rsa_queue", nil); n != 0 {
		t.Errorf("%v places held", n)
	}
	if n := metric(t, h.vault, "cardstile_vault_rsa_duration_seconds", nil); n != 0 {
		t.Errorf("%v RSA operations", n)
	}
}

func TestMask(t *testing.T) {
	h := newHouse(t)
	s, _, issuer := h.open(t)
	toClear, _, _ := h.openLegs(t, false, true)
	only := must(h.vault.Open(context.Background(), vault.Opening{Binding: binding, Issuer: vault.InsecureClearIssuer()}))
	for text, want := range map[string]string{
		"4111111111111111": "411111******1111", "4111111111111111110": "411111*********1110", "378282246310005": "***********0005",
		"411111111111": "********1111",
	} {
		if got, err := s.Mask(vault.FieldPAN, issuer.seal(text, 16)); got != want || err != nil {
			t.Errorf("sealed: %q, %v", got, err)
		}
		shape := must(vault.NewShape(vault.ShapeConfig{Clear: map[string]vault.Field{"/x": vault.FieldPAN}}))
		handle := must(newBody(t, shape, `{"x":"`+text+`"}`).Field("/x"))
		for _, s := range []*vault.Session{toClear, only} {
			if got, err := s.Mask(vault.FieldPAN, handle); got != want || err != nil {
				t.Errorf("in clear: %q, %v", got, err)
			}
		}
		if got, err := s.Mask(vault.FieldPAN, handle); got != "" || err != vault.ErrOpen {
			t.Errorf("a handle on a sealed leg: %q, %v", got, err)
		}
	}
	for text, want := range map[string]string{
		"4111111111111111": "411111******1111", "411111111111111": "***********1111", "1234567890123456789012345678901234": "123456************************1234",
		"GB29NWBK60161331926819": "******************6819", "4111 1111 1111 1111": "***************1111", "+994501234567": "*********4567", "411111111111111a": "************111a",
		"12345678": "****5678", "1234567": "***", "1234": "***", "AB 12": "***",
	} {
		if got, err := s.Mask(vault.FieldAccount, issuer.seal(text, 16)); got != want || err != nil {
			t.Errorf("account: %q, %v, want %q", got, err, want)
		}
	}
	for f, text := range map[vault.Field]string{vault.FieldCVC: "1234", vault.FieldPIN: "245820FFFFFFFFFF"} {
		if got, err := s.Mask(f, issuer.seal(text, 16)); got != "***" || err != nil {
			t.Errorf("%s: %q, %v", f, got, err)
		}
	}
	for name, c := range map[string]struct {
		f    vault.Field
		text string
	}{"no PAN": {vault.FieldPAN, "41111111111"}, "letters": {vault.FieldPAN, "41111111111x"}, "no field": {0, "123"}, "unknown field": {5, "123"}, "CVC as PAN": {vault.FieldPAN, "123"}, "PAN as PIN": {vault.FieldPIN, "4111111111111111"}, "account of 3": {vault.FieldAccount, "123"}, "account with a dot": {vault.FieldAccount, "4111.1111"}} {
		if got, err := s.Mask(c.f, issuer.seal(c.text, 16)); got != "" || err != vault.ErrOpen {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	clientOnly := must(h.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: vault.InsecureClearClient()}))
	if got, err := clientOnly.Mask(vault.FieldCVC, issuer.seal("123", 16)); got != "" || err != vault.ErrOpen {
		t.Errorf("no issuer's leg: %q, %v", got, err)
	}
	s.Close()
	if got, err := s.Mask(vault.FieldCVC, issuer.seal("123", 16)); got != "" || err != vault.ErrOpen {
		t.Errorf("closed: %q, %v", got, err)
	}
	_, text := newPeer(t, &issuerRSA().PublicKey)
	blind := must(h.vault.Blind(binding, must(h.issuer.Parse(text))))
	if got, err := blind.Mask(vault.FieldPIN, issuer.seal("245820FFFFFFFFFF", 16)); got != "" || err != vault.ErrOpen {
		t.Errorf("blind: %q, %v", got, err)
	}
}

// TestNothingPrintsClear: bodies, handles and messages say nothing to printers and encoders, wherever they stand.
func TestNothingPrintsClear(t *testing.T) {
	h := newHouse(t)
	s, _, _ := h.openLegs(t, true, true)
	body := newBody(t, bridgeShape, bridgeAnswer)
	in := must(body.Field("/card_number"))
	out, err := s.Reseal(vault.FieldPAN, vault.ToClient, in)
	if err != nil {
		t.Fatal(err)
	}
	splice := vault.Splice{At: 1, Field: out}
	message, err := s.Render([]byte(`[]`), []vault.Splice{splice})
	if err != nil {
		t.Fatal(err)
	}
	var g vault.Guard
	_, _ = g.Write([]byte("4111111111111111"))
	const pan = "4111111111111111"
	leaks := []string{pan[:8], fmt.Sprintf("%x", pan[:8]), strings.Trim(fmt.Sprint([]byte(pan[:8])), "[]"), "4, 1, 1, 1", "4 1 1 1", "04010101", "0x4, 0x1, 0x1"}
	values := []any{
		s, *s, body, *body, in, &in, out, &out, splice, &splice, message, *message, g, &g, message.Reader(),
		vault.Replacement{Pointer: "/x", With: out}, &vault.Replacement{With: in}, []vault.Sealed{in, out}, []vault.Splice{splice}, []*vault.Body{body},
		struct{ b *vault.Body }{body}, struct{ b vault.Body }{*body}, struct{ o *vault.Outgoing }{message}, struct{ s vault.Sealed }{out},
		struct{ s *vault.Sealed }{&out}, struct{ o vault.Outgoing }{*message}, map[string]any{"x": in, "y": out, "z": body},
	}
	for _, v := range values {
		texts := []string{}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d", "%t", "%e", "%U", "%c"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
		if encoded, err := json.Marshal(v); err == nil {
			texts = append(texts, string(encoded))
		}
		for _, got := range texts {
			for _, leak := range leaks {
				if strings.Contains(got, leak) {
					t.Errorf("%T shows a secret: %.200s", v, got)
				}
			}
		}
	}
	if got := fmt.Sprint(body, message); strings.Count(got, "[redacted]") != 2 {
		t.Error(got)
	}
}

// BenchmarkRevealClear is a whole reveal of an issuer in clear to a client in clear, the network aside.
func BenchmarkRevealClear(b *testing.B) {
	v := must(vault.New(vault.Config{}))
	client, issuer := vault.InsecureClearClient(), vault.InsecureClearIssuer()
	raw := make([]byte, 0, len(bridgeAnswer))
	template := []byte(`{"card_number":,"card_security_code":,"expiry_date":"12/30"}`)
	b.ReportAllocs()
	for b.Loop() {
		s := must(v.Open(context.Background(), vault.Opening{Binding: binding, Client: client, Issuer: issuer}))
		body := must(vault.NewBody(append(raw[:0], bridgeAnswer...), bridgeShape))
		pan := must(s.Reseal(vault.FieldPAN, vault.ToClient, must(body.Field("/card_number"))))
		cvc := must(s.Reseal(vault.FieldCVC, vault.ToClient, must(body.Field("/card_security_code"))))
		o := must(s.Render(template, []vault.Splice{{At: 15, Field: pan}, {At: 37, Field: cvc}}))
		o.Destroy()
		body.Close()
		s.Close()
	}
}
