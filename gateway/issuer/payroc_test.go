package issuer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/keys"
)

const (
	terminalID = "1234001"
	paymentKey = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
	pageToken  = "cGFnZSB0b2tlbiBwYWdlIHRva2VuIHBhZ2UgdG9rZW4"
	cardToken  = "Y2FyZCB0b2tlbiBjYXJkIHRva2VuIGNhcmQgdG9rZW4"
)

func payroc(t testing.TB) issuer.Issuer {
	t.Helper()
	kind, err := issuer.Lookup("payroc")
	must(err)
	i, err := kind.New(issuer.Config{})
	must(err)
	return i
}

// newPayroc starts the sandbox of Payroc over HTTPS, on a free loopback port.
func newPayroc(t *testing.T) (*sandbox.Payroc, *carrier) {
	t.Helper()
	box, err := sandbox.NewPayroc(sandbox.PayrocConfig{APIKey: apiKey, Key: shared().issuerKey, Terminals: []string{terminalID}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(box.Handler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(func() {
		must(box.Shutdown(context.Background()))
		server.Close()
	})
	base, err := url.Parse(server.URL)
	must(err)
	return box, &carrier{base: base, client: server.Client()}
}

// purse is a card that a page submitted: what is empty it did not.
type purse struct{ number, code, expiry, name string }

var whole = purse{testPAN, "737", "1230", "Zoë \"O'Hara\""}

// held opens a session whose client's leg is a card that was held, and its issuer's that of the sandbox.
func held(t testing.TB, p purse) *vault.Session {
	t.Helper()
	v := shared().vault
	page, err := v.Open(t.Context(), vault.Opening{Binding: make([]byte, 32), Client: vault.InsecureClearClient()})
	must(err)
	defer page.Close()
	holder := newHolder(t)
	parts := vault.Parts{Fields: map[vault.Field][]byte{}, Details: map[vault.Detail][]byte{}}
	shape := shaped(vault.ShapeConfig{Clear: map[string]vault.Field{"/pan": vault.FieldPAN, "/cvc": vault.FieldCVC}})
	for pointer, f := range map[string]struct {
		field vault.Field
		text  string
	}{"/pan": {vault.FieldPAN, p.number}, "/cvc": {vault.FieldCVC, p.code}} {
		if f.text == "" {
			continue
		}
		body, err := vault.NewBody([]byte(`{"`+pointer[1:]+`":"`+f.text+`"}`), shape)
		must(err)
		in, err := body.Field(pointer)
		must(err)
		parts.Fields[f.field], err = holder.Hold(page, pageToken, f.field, in)
		must(err)
		body.Close()
	}
	for d, text := range map[vault.Detail]string{vault.DetailExpiry: p.expiry, vault.DetailName: p.name} {
		if text == "" {
			continue
		}
		parts.Details[d], err = holder.HoldDetail(pageToken, d, text)
		must(err)
	}
	sealed, err := holder.Rehold(pageToken, parts, cardToken)
	must(err)
	to, err := vault.NewIssuerKey(envelope.Rain{}, &shared().issuerKey.PublicKey)
	must(err)
	s, err := v.Open(t.Context(), vault.Opening{Binding: make([]byte, 32), Held: holder.Held(cardToken, sealed), Issuer: to})
	must(err)
	t.Cleanup(s.Close)
	return s
}

func newHolder(t testing.TB) *vault.Holder {
	t.Helper()
	content := pem.EncodeToMemory(&pem.Block{
		Type: "CARDSTILE KEY", Headers: map[string]string{"Use": string(keys.UseStorage)}, Bytes: bytes.Repeat([]byte{7}, 32),
	})
	path := filepath.Join(t.TempDir(), "storage")
	must(os.WriteFile(path, content, 0o600))
	key, err := keys.Load(keys.Config{ID: "storage", Use: keys.UseStorage, File: path})
	must(err)
	holder, err := shared().vault.NewHolder(key)
	must(err)
	return holder
}

// payments is the call as a route declares it.
func payments(submit map[string]vault.Field) *exchange.ForwardCall {
	call := declared("POST", "/v1/payments", nil, submit)
	call.Token = "/paymentMethod"
	call.Request = shaped(vault.ShapeConfig{Sealed: submit, Tokens: []string{call.Token}})
	return call
}

const paymentBody = `{"channel":"web", "processingTerminalId":"1234001","order":{"amount":4999.00},"paymentMethod" : {"token":"` + cardToken + `","type":"singleUseToken"},"n":[null]}`

// paid is a payment with a token.
func paid(s *vault.Session, body string) *issuer.Call {
	call := carried(payments(nil), "", "", body)
	call.Session, call.Forward.Paid, call.IdempotencyKey = s, true, paymentKey
	return call
}

// TestPayrocExchanges: what is sent for each call, nothing else, and what comes of it. In the golden file, what differs from
// run to run stands in angle brackets.
func TestPayrocExchanges(t *testing.T) {
	var b strings.Builder
	for _, test := range []struct {
		name string
		call func() *issuer.Call
		card purse
	}{
		{"payment", func() *issuer.Call { return paid(held(t, whole), paymentBody) }, whole},
		{"payment without code and name", func() *issuer.Call { return paid(held(t, purse{testPAN, "", "1230", ""}), paymentBody) }, purse{testPAN, "", "1230", ""}},
		{"card that has expired", func() *issuer.Call { return paid(held(t, purse{testPAN, "737", "0120", ""}), paymentBody) }, purse{}},
		{"card of another check digit", func() *issuer.Call { return paid(held(t, purse{"4111111111111112", "", "1230", ""}), paymentBody) }, purse{}},
		{"terminal that is not there", func() *issuer.Call {
			return paid(held(t, whole), strings.Replace(paymentBody, terminalID, "9999", 1))
		}, purse{}},
		{"without a card", func() *issuer.Call {
			return carried(payments(nil), "", "", `{"processingTerminalId":"1234001","paymentMethod":null}`)
		}, purse{}},
		{"another call", func() *issuer.Call { return carried(declared("GET", "/v1/refunds", nil, nil), "", "a=b", "") }, purse{}},
	} {
		box, up := newPayroc(t)
		call := test.call()
		res, err := payroc(t).Do(t.Context(), up, call)
		fmt.Fprintf(&b, "== %s\n", test.name)
		for i, r := range up.seen {
			fmt.Fprintf(&b, "%s: %s %s ? %q", r.Call, r.Method, r.Path, r.Query)
			for _, h := range r.Header {
				value := h.Value
				if call.Session != nil && value == call.Session.IssuerPreamble() && value != "" {
					value = "<the gateway's own session>"
				}
				fmt.Fprintf(&b, " | %s: %s", h.Name, value)
			}
			fmt.Fprintf(&b, " | changes %t\n%s\n", r.Changes, sealedText.ReplaceAllString(up.sent[i], "<sealed for the issuer>"))
			if strings.Contains(up.sent[i], cardToken) || vault.HoldsPANString(up.sent[i]) || r.Body != nil || !r.AnyStatus {
				t.Errorf("%s: sent %s", test.name, up.sent[i])
			}
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got := text(t, res)
		taken := box.Payments()
		if len(taken) == 1 {
			got = strings.ReplaceAll(got, taken[0].ID, "<payment>")
		}
		fmt.Fprintf(&b, "%d %s %s\n\n", res.Forward.Status, res.Forward.ContentType, got)
		switch {
		case test.card == purse{}:
			if len(taken) != 0 {
				t.Errorf("%s: %+v", test.name, taken)
			}
		case len(taken) != 1 || !arrived(taken[0], test.card):
			t.Errorf("%s: %+v", test.name, taken)
		}
	}
	golden(t, "payroc.golden", b.String())
}

// arrived reports whether the card that was paid with is this one.
func arrived(p sandbox.Payment, card purse) bool {
	var code [sha256.Size]byte
	if card.code != "" {
		code = sha256.Sum256([]byte(card.code))
	}
	return p.NumberSHA256 == sha256.Sum256([]byte(card.number)) && p.CodeSHA256 == code && p.ExpiryDate == card.expiry && p.CardholderName == card.name && p.Terminal == terminalID
}

// TestPayrocFaults: each way in which the issuer's answer to a payment can be bad.
func TestPayrocFaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		fault  sandbox.Fault
		want   error
		status int
		text   string // part of the answer
	}{
		{"500", sandbox.Fault500, nil, 500, `errors#api-error"`},
		{"field missing", sandbox.FaultMissingField, nil, 201, `"cardNumber":"` + maskedPAN + `"`},
		{"empty", sandbox.FaultEmptyBody, nil, 201, ""},
		{"card number in a header", sandbox.FaultPANInHeader("X-Card"), nil, 201, `"cardNumber":"` + maskedPAN + `"`},
		{"card number in the type", sandbox.FaultPANInHeader("Content-Type"), issuer.ErrGuard, 0, ""},
		{"card number in a member", sandbox.FaultPANInMember, issuer.ErrGuard, 0, ""},
		{"card number in an error", sandbox.FaultPANInError, issuer.ErrGuard, 0, ""},
		{"malformed", sandbox.FaultMalformedJSON, issuer.ErrAnswer, 0, ""},
		{"cut off", sandbox.FaultTruncatedBody, issuer.ErrLost, 0, ""},
		{"too large", sandbox.FaultHugeBody, issuer.ErrTooLarge, 0, ""},
		{"another type", sandbox.FaultWrongContentType, issuer.ErrAnswer, 0, ""},
		{"redirect", sandbox.FaultRedirect, issuer.ErrAnswer, 0, ""},
		{"disconnected", sandbox.FaultDisconnect, issuer.ErrLost, 0, ""},
	} {
		box, up := newPayroc(t)
		box.SetFault(terminalID, test.fault)
		res, err := payroc(t).Do(t.Context(), up, paid(held(t, whole), paymentBody))
		switch {
		case test.want != nil:
			if !errors.Is(err, test.want) || res != nil || err != nil && strings.Contains(err.Error(), "1111") {
				t.Errorf("%s: %v, %v; want %v", test.name, res, err, test.want)
			}
		case err != nil:
			t.Errorf("%s: %v", test.name, err)
		default:
			if got := text(t, res); res.Forward.Status != test.status || !strings.Contains(got, test.text) || test.text == "" && got != "" {
				t.Errorf("%s: %d %s", test.name, res.Forward.Status, got)
			}
		}
		if box.Total() != 1 || len(up.seen) != 1 || !up.seen[0].Changes {
			t.Errorf("%s: %d requests", test.name, box.Total())
		}
	}
}

// TestPayrocSendsWholeCards: without number, expiry and a place for them, nothing is sent; nor is a token that is not paid with.
func TestPayrocSendsWholeCards(t *testing.T) {
	closed := held(t, whole)
	closed.Close()
	page, _ := session(t)
	cleared, _ := legs(t, "clear")
	unpaid := paid(held(t, whole), paymentBody)
	unpaid.Forward.Paid = false
	undeclared := paid(held(t, whole), paymentBody)
	undeclared.Forward.Call.Token = ""
	elsewhere := paid(held(t, whole), paymentBody)
	elsewhere.Forward.Call.Token = "/order"
	for name, test := range map[string]struct {
		call *issuer.Call
		want error
	}{
		"no session":               {paid(nil, paymentBody), vault.ErrOpen},
		"a session without it":     {paid(page, paymentBody), vault.ErrOpen},
		"a session in clear":       {paid(cleared, paymentBody), vault.ErrOpen},
		"closed":                   {paid(closed, paymentBody), vault.ErrOpen},
		"no number":                {paid(held(t, purse{"", "737", "1230", "A"}), paymentBody), vault.ErrOpen},
		"no expiry":                {paid(held(t, purse{testPAN, "737", "", "A"}), paymentBody), vault.ErrOpen},
		"no body":                  {paid(held(t, whole), ""), vault.ErrOpen},
		"no place":                 {paid(held(t, whole), `{"processingTerminalId":"1234001"}`), vault.ErrMember},
		"null in its place":        {paid(held(t, whole), `{"paymentMethod":null}`), vault.ErrMember},
		"a place not declared":     {undeclared, vault.ErrMember},
		"another place":            {elsewhere, vault.ErrMember},
		"a token that is not paid": {unpaid, vault.ErrSplice},
	} {
		box, up := newPayroc(t)
		res, err := payroc(t).Do(t.Context(), up, test.call)
		if !errors.Is(err, test.want) || res != nil || len(up.seen) != 0 || box.Total() != 0 {
			t.Errorf("%s: %v, %v, %d requests", name, res, err, box.Total())
		}
	}
	// Over a leg in clear nobody takes a token: the card would leave in clear.
	up := &said{status: 200, kind: "application/json", body: `{}`}
	if res, err := forward(t).Do(t.Context(), up, paid(held(t, whole), paymentBody)); err == nil || res != nil || len(up.seen) != 0 {
		t.Errorf("forward: %v, %v, %d requests", res, err, len(up.seen))
	}
}

// TestPayrocSubmits: fields that the client sealed reach the issuer sealed, under the gateway's own session.
func TestPayrocSubmits(t *testing.T) {
	p := shared()
	client, err := sandbox.NewSession(p.clientPublic)
	must(err)
	preamble, err := p.clients.Parse(client.ID())
	must(err)
	to, err := vault.NewIssuerKey(envelope.Rain{}, p.clientPublic) // so that we can read what goes there
	must(err)
	s, err := p.vault.Open(t.Context(), vault.Opening{Binding: make([]byte, 32), Client: p.clients, Preamble: preamble, Issuer: to})
	must(err)
	defer s.Close()
	sealed := client.Seal(testPAN)
	call := carried(payments(map[string]vault.Field{"/card/pan": vault.FieldPAN}), "", "", `{"card":{"pan":{"data":"`+sealed.Data+`","iv":"`+sealed.IV+`"}},"n":1.50}`)
	call.Session, call.Operations = s, append(call.Operations, policy.ForwardSubmit)
	up := &said{status: 200, kind: "application/json", body: `{"ok":true}`}
	res, err := payroc(t).Do(t.Context(), up, call)
	if err != nil || text(t, res) != `{"ok":true}` {
		t.Fatalf("%v, %v", res, err)
	}
	request := up.seen[0]
	if len(request.Header) != 1 || request.Header[0].Name != "SessionId" || request.Header[0].Value == client.ID() || !request.Changes {
		t.Errorf("%+v", request)
	}
	m := sealedText.FindStringSubmatch(up.sent[0])
	if want := `{"card":{"pan":<>},"n":1.50}`; len(m) != 3 || sealedText.ReplaceAllString(up.sent[0], "<>") != want || m[1] == sealed.Data {
		t.Fatalf("sent %s", up.sent[0])
	}
	theirs, err := p.clients.Parse(request.Header[0].Value)
	must(err)
	back, err := p.vault.Open(t.Context(), vault.Opening{Binding: make([]byte, 32), Client: p.clients, Preamble: theirs, Issuer: vault.InsecureClearIssuer()})
	must(err)
	defer back.Close()
	plain, err := back.Reseal(vault.FieldPAN, vault.ToIssuer, vault.Sealed{Data: m[1], IV: m[2]})
	must(err)
	o, err := back.Render(nil, []vault.Splice{{Field: plain}})
	must(err)
	var got bytes.Buffer
	if _, err := o.WriteTo(&got); err != nil || got.String() != `"`+testPAN+`"` {
		t.Errorf("%v: not what the client sealed", err)
	}
}

// TestPayrocShowsNothing: an answer's fields cannot be declared, and if they were, they would not pass.
func TestPayrocShowsNothing(t *testing.T) {
	i := payroc(t)
	for _, op := range policy.Operations() {
		if want := op == policy.Forward || op == policy.ForwardSubmit; i.Serves(op) != want {
			t.Errorf("%s: %t", op, !want)
		}
	}
	up := &said{status: 200, kind: "application/json", body: `{"account_number":"` + testPAN + `"}`}
	call := carried(declared("GET", "/x", number, nil), "", "", "")
	call.Session, _ = session(t)
	call.Reveal = all
	if res, err := i.Do(t.Context(), up, call); !errors.Is(err, issuer.ErrAnswer) || res != nil {
		t.Errorf("%v, %v", res, err)
	}
}
