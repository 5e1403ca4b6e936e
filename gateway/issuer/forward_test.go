package issuer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

const (
	testPAN   = "4111111111111111"
	maskedPAN = "411111******1111"
	bankIBAN  = "NL91ABNA0417164300" // of the sandbox's deal with a bank
	accountID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
)

// carrier carries requests to a server, with a Bearer token, and has the vault read the answers of a shape, as the gateway does.
type carrier struct {
	base   *url.URL
	client *http.Client

	mu    sync.Mutex // of those whose requests come side by side
	seen  []issuer.Request
	sent  []string      // bodies
	clear []*vault.Body // of answers
}

func (u *carrier) RoundTrip(ctx context.Context, req *issuer.Request, res *issuer.Response) error {
	defer req.Message.Destroy()
	u.seen = append(u.seen, *req)
	var body bytes.Buffer
	if req.Message != nil {
		if _, err := req.Message.WriteTo(&body); err != nil {
			return err
		}
	}
	body.Write(req.Body)
	u.sent = append(u.sent, body.String())
	target := u.base.String() + req.Path
	if req.Query != "" {
		target += "?" + req.Query
	}
	r, err := http.NewRequestWithContext(ctx, req.Method, target, &body)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+apiKey)
	if req.Message != nil || req.Body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range req.Header {
		r.Header.Set(h.Name, h.Value)
	}
	answer, err := u.client.Transport.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("%w: %w", issuer.ErrLost, err)
	}
	defer answer.Body.Close()
	res.Status, res.ContentType = answer.StatusCode, answer.Header.Get("Content-Type")
	return u.read(answer.Body, req, res)
}

func (u *carrier) read(from io.Reader, req *issuer.Request, res *issuer.Response) (err error) {
	if req.Shape == nil {
		if res.Body, err = io.ReadAll(from); err != nil {
			return fmt.Errorf("%w: %w", issuer.ErrLost, err)
		}
		return nil
	}
	res.Clear, err = vault.ReadBody(from, -1, req.Shape)
	u.clear = append(u.clear, res.Clear)
	switch {
	case errors.Is(err, vault.ErrBodyTooLarge):
		return issuer.ErrTooLarge
	case errors.Is(err, vault.ErrBody):
		return fmt.Errorf("%w: %w", issuer.ErrAnswer, err)
	case err != nil:
		return fmt.Errorf("%w: %w", issuer.ErrLost, err)
	}
	return nil
}

// said is a carrier's answer without a server.
type said struct {
	carrier
	status int
	kind   string
	body   string
}

func (s *said) RoundTrip(_ context.Context, req *issuer.Request, res *issuer.Response) error {
	defer req.Message.Destroy()
	var body bytes.Buffer
	if req.Message != nil {
		if _, err := req.Message.WriteTo(&body); err != nil {
			return err
		}
	}
	s.seen, s.sent = append(s.seen, *req), append(s.sent, body.String())
	res.Status, res.ContentType = s.status, s.kind
	return s.read(strings.NewReader(s.body), req, res)
}

// newPayments starts the sandbox of a forward's issuer over HTTPS, on a free loopback port.
func newPayments(t *testing.T) (*sandbox.Payments, *carrier) {
	t.Helper()
	payments, err := sandbox.NewPayments(sandbox.PaymentsConfig{
		APIKeys: map[string]string{apiKey: accountID}, Cards: []sandbox.Card{sandbox.RandomCard(cardID, testPAN)},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(payments.Handler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(func() {
		must(payments.Shutdown(context.Background()))
		server.Close()
	})
	base, err := url.Parse(server.URL)
	must(err)
	return payments, &carrier{base: base, client: server.Client()}
}

func forward(t testing.TB) issuer.Issuer {
	t.Helper()
	kind, err := issuer.Lookup("forward")
	if err != nil {
		t.Fatal(err)
	}
	i, err := kind.New(issuer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func shaped(c vault.ShapeConfig) *vault.Shape {
	s, err := vault.NewShape(c)
	must(err)
	return s
}

// declared is a call as a route declares it.
func declared(method, pattern string, fields, submit map[string]vault.Field) *exchange.ForwardCall {
	return &exchange.ForwardCall{
		Name: method + " " + pattern, Method: method, Pattern: pattern, Changes: method != http.MethodGet, Without: exchange.WithoutMask,
		Request: shaped(vault.ShapeConfig{Sealed: submit}), Response: shaped(vault.ShapeConfig{Clear: fields}), Fields: fields, Submit: submit,
	}
}

var (
	number   = map[string]vault.Field{"/account_number": vault.FieldAccount}
	cardData = map[string]vault.Field{"/card/pan": vault.FieldPAN, "/card/cvc": vault.FieldCVC}
	all      = []policy.Field{policy.FieldPAN, policy.FieldCVC, policy.FieldAccount}
)

// legs opens a session with an issuer's leg in clear, and a client's that is sealed, in clear or not there.
func legs(t testing.TB, client string) (*vault.Session, *sandbox.Session) {
	t.Helper()
	p := shared()
	o := vault.Opening{Binding: make([]byte, 32), Issuer: vault.InsecureClearIssuer()}
	var end *sandbox.Session
	switch client {
	case "sealed":
		var err error
		end, err = sandbox.NewSession(p.clientPublic)
		must(err)
		o.Client = p.clients
		o.Preamble, err = p.clients.Parse(end.ID())
		must(err)
	case "clear":
		o.Client = vault.InsecureClearClient()
	}
	s, err := p.vault.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, end
}

// carried is a call for the adapter: to the path, which is the declared one where it is empty.
func carried(call *exchange.ForwardCall, path, query, body string) *issuer.Call {
	f := &exchange.Forward{Call: call, Path: path, Query: query}
	if path == "" {
		f.Path = call.Pattern
	}
	if body != "" {
		var err error
		f.Body, err = vault.NewBody([]byte(body), call.Request)
		must(err)
	}
	return &issuer.Call{Operations: []policy.Operation{policy.Forward}, Forward: f}
}

// text is what an answer's message says; it is destroyed by that.
func text(t testing.TB, res *exchange.Result) string {
	t.Helper()
	if res.Forward.Message == nil {
		return ""
	}
	defer res.Forward.Message.Destroy()
	var b bytes.Buffer
	if _, err := res.Forward.Message.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var (
	sealedText = regexp.MustCompile(`\{"data":"([^"]*)","iv":"([^"]*)"\}`)
	dealID     = regexp.MustCompile(`[A-Z2-7]{26}`)
)

// opened replaces sealed fields with what the client reads.
func opened(t testing.TB, end *sandbox.Session, body string) string {
	t.Helper()
	return sealedText.ReplaceAllStringFunc(body, func(field string) string {
		m := sealedText.FindStringSubmatch(field)
		plain, err := end.Open(sandbox.Sealed{Data: m[1], IV: m[2]})
		if err != nil {
			t.Errorf("a field does not open: %v", err)
		}
		return "<sealed for the client: " + plain + ">"
	})
}

// TestForwardExchanges: what is sent for each call, nothing else, and what comes of it. In the golden file, what differs from
// run to run stands in angle brackets.
func TestForwardExchanges(t *testing.T) {
	card, bank := sandbox.DealWithCard(accountID), sandbox.DealWithBank(accountID)
	credentials := declared("GET", "/deals/{id}/credentials", number, nil)
	var b strings.Builder
	for _, test := range []struct {
		name   string
		client string
		call   *issuer.Call
		reveal []policy.Field
		key    string
	}{
		{"wallet", "none", carried(declared("GET", "/wallet", nil, nil), "", "", ""), nil, ""},
		{"query as it came", "none", carried(declared("GET", "/wallet/deposit", nil, nil), "", "currencyId=%45UR&a=b+c", ""), nil, ""},
		{"credentials of a card, for a session", "sealed", carried(credentials, "/deals/"+card+"/credentials", "", ""), all, ""},
		{"credentials of a card, without a session", "masked", carried(credentials, "/deals/"+card+"/credentials", "", ""), nil, ""},
		{"credentials of a card, for a session, not permitted", "sealed", carried(credentials, "/deals/"+card+"/credentials", "", ""), all[:2], ""},
		{"credentials of a card, in clear by the route's word", "clear", carried(credentials, "/deals/"+card+"/credentials", "", ""), all, ""},
		{"credentials of a bank, for a session", "sealed", carried(credentials, "/deals/"+bank+"/credentials", "", ""), all, ""},
		{"credentials of a bank, without a session", "masked", carried(credentials, "/deals/"+bank+"/credentials", "", ""), nil, ""},
		{"payin", "none", carried(declared("POST", "/deals/payin", nil, nil), "", "", `{ "amount":10, "currency":"EUR" }`), nil, "6f9619ff-8b86"},
		{"payin without a body", "none", carried(declared("POST", "/deals/payin", nil, nil), "", "", ""), nil, ""},
	} {
		_, up := newPayments(t)
		var end *sandbox.Session
		if test.client != "none" {
			test.call.Session, end = legs(t, test.client)
		}
		test.call.Reveal, test.call.IdempotencyKey = test.reveal, test.key
		res, err := forward(t).Do(t.Context(), up, test.call)
		fmt.Fprintf(&b, "== %s\n", test.name)
		for i, r := range up.seen {
			fmt.Fprintf(&b, "%s: %s %s ? %q", r.Call, r.Method, r.Path, r.Query)
			for _, h := range r.Header {
				fmt.Fprintf(&b, " | %s: %s", h.Name, h.Value)
			}
			fmt.Fprintf(&b, " | changes %t | body %q\n", r.Changes, up.sent[i])
			if r.Body != nil || r.Anonymous || !r.AnyStatus {
				t.Errorf("%s: %+v", test.name, r)
			}
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		fmt.Fprintf(&b, "%d %s %s\n\n", res.Forward.Status, res.Forward.ContentType, opened(t, end, text(t, res)))
		for _, body := range up.clear {
			if _, err := body.Digest(vault.CanonRaw); err == nil {
				t.Errorf("%s: the issuer's answer is still there", test.name)
			}
		}
	}
	golden(t, "forward.golden", dealID.ReplaceAllString(b.String(), "<deal>"))
}

// TestForwardFaults: each way in which the issuer's answer can be bad. Its refusals and failures are answers; what is none is
// the right error of this package, with no half of an answer and no word of the issuer's.
func TestForwardFaults(t *testing.T) {
	deal := sandbox.DealWithCard(accountID)
	for _, test := range []struct {
		name   string
		fault  sandbox.Fault
		want   error
		status int
		text   string
	}{
		{"500", sandbox.Fault500, nil, 500, `{"error":"INTERNAL_SERVER_ERROR","message":"Internal server error","statusCode":500}`},
		{"field missing", sandbox.FaultMissingField, nil, 200, `{"bank":"Sandbox Bank","holder":"Ada Lovelace","type":"card"}`},
		{"empty", sandbox.FaultEmptyBody, nil, 200, ""},
		{"card number in a header", sandbox.FaultPANInHeader("X-Card"), nil, 200, `{"account_number":"` + maskedPAN + `","bank":"Sandbox Bank","holder":"Ada Lovelace","type":"card"}`},
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
		box, up := newPayments(t)
		box.SetFault(deal, test.fault)
		call := carried(declared("GET", "/deals/{id}/credentials", number, nil), "/deals/"+deal+"/credentials", "", "")
		call.Session, _ = legs(t, "masked")
		res, err := forward(t).Do(t.Context(), up, call)
		switch {
		case test.want != nil:
			if !errors.Is(err, test.want) || res != nil || err != nil && strings.Contains(err.Error(), testPAN) {
				t.Errorf("%s: %v, %v; want %v", test.name, res, err, test.want)
			}
		case err != nil:
			t.Errorf("%s: %v", test.name, err)
		default:
			if got := text(t, res); res.Forward.Status != test.status || got != test.text {
				t.Errorf("%s: %d %s", test.name, res.Forward.Status, got)
			}
		}
		if box.Total() != 1 {
			t.Errorf("%s: %d requests", test.name, box.Total())
		}
		for _, body := range up.clear {
			if body == nil {
				continue
			}
			if _, err := body.Digest(vault.CanonRaw); err == nil {
				t.Errorf("%s: the issuer's answer is still there", test.name)
			}
		}
	}
}

// TestForwardAnswers: what of an answer passes, and as what.
func TestForwardAnswers(t *testing.T) {
	const json = "application/json"
	for _, test := range []struct {
		name, kind, body string
		status           int
		want             error
		text, passes     string // text is body where it is empty; passes is the type
	}{
		{"as it is", json, ` {"a" : [1, null, "é"]} `, 200, nil, "", json},
		{"201", json, `{}`, 201, nil, "", json},
		{"a list", json, `[{"account_number":"` + bankIBAN + `"}]`, 200, nil, "", json},
		{"a text", json, `"x"`, 200, nil, "", json},
		{"null", json, `null`, 200, nil, "", json},
		{"type with parameters", "Application/JSON; charset=utf-8", `{}`, 200, nil, "", json},
		{"type with a suffix", "application/problem+json", `{}`, 400, nil, "", "application/problem+json"},
		{"401, which is about our credential", json, `{"error":"UNAUTHORIZED"}`, 401, issuer.ErrRefused, "", ""},
		{"403", json, `{"error":"FORBIDDEN"}`, 403, nil, "", json},
		{"599", json, `{}`, 599, nil, "", json},
		{"nothing", "", "", 204, nil, "", ""},
		{"nothing of a type", "text/html", "", 502, nil, "", ""},

		{"masked", json, `{"account_number":"` + testPAN + `","b":1}`, 200, nil, `{"account_number":"` + maskedPAN + `","b":1}`, json},
		{"masked in a refusal", json, `{"account_number":"` + testPAN + `"}`, 404, nil, `{"account_number":"` + maskedPAN + `"}`, json},
		{"masked, escaped", json, `{"account_n\u0075mber":"\u0034111111111111111"}`, 200, nil, `{"account_n\u0075mber":"` + maskedPAN + `"}`, json},
		{"masked IBAN", json, `{"account_number":"` + bankIBAN + `"}`, 200, nil, `{"account_number":"**************4300"}`, json},
		{"null field", json, `{"account_number":null}`, 200, nil, "", json},
		{"absent field", json, `{"account":1}`, 200, nil, "", json},

		{"field as a number", json, `{"account_number":` + testPAN + `}`, 200, issuer.ErrAnswer, "", ""},
		{"field as a list", json, `{"account_number":["` + testPAN + `"]}`, 200, issuer.ErrAnswer, "", ""},
		{"field that is none", json, `{"account_number":"` + strings.Repeat("1", 35) + `"}`, 200, issuer.ErrAnswer, "", ""},
		{"empty field", json, `{"account_number":""}`, 200, issuer.ErrAnswer, "", ""},
		{"field twice", json, `{"account_number":null,"account_number":"` + testPAN + `"}`, 200, issuer.ErrAnswer, "", ""},

		{"card number beside the field", json, `{"account_number":"` + testPAN + `","n":"` + testPAN + `"}`, 200, issuer.ErrGuard, "", ""},
		{"card number in another case", json, `{"Account_Number":"` + testPAN + `"}`, 200, issuer.ErrGuard, "", ""},
		{"card number below", json, `{"a":{"account_number":"` + testPAN + `"}}`, 200, issuer.ErrGuard, "", ""},
		{"card number in a list", json, `[{"account_number":"` + testPAN + `"}]`, 200, issuer.ErrGuard, "", ""},
		{"card number as a number", json, `{"a":` + testPAN + `}`, 200, issuer.ErrGuard, "", ""},
		{"card number in a name", json, `{"` + testPAN + `":1}`, 200, issuer.ErrGuard, "", ""},
		{"card number in groups", json, `{"a":"card 4111 1111 1111 1111"}`, 500, issuer.ErrGuard, "", ""},
		{"card number escaped", json, `{"a":"\u0034111111111111111"}`, 500, issuer.ErrGuard, "", ""},
		{"card number in the type", `application/json; x="` + testPAN + `"`, `{}`, 200, issuer.ErrGuard, "", ""},
		{"card number in a suffix", "application/" + testPAN + "+json", `{}`, 200, issuer.ErrGuard, "", ""},

		{"another type", "text/html", `{}`, 200, issuer.ErrAnswer, "", ""},
		{"plain text", "text/plain", `"unavailable"`, 503, issuer.ErrAnswer, "", ""},
		{"no type", "", `{}`, 200, issuer.ErrAnswer, "", ""},
		{"a type that ends alike", "text/x+json", `{}`, 200, issuer.ErrAnswer, "", ""},
		{"two types", "application/json, text/html", `{}`, 200, issuer.ErrAnswer, "", ""},
		{"two values", json, `{}{}`, 200, issuer.ErrAnswer, "", ""},
		{"100", json, `{}`, 100, issuer.ErrAnswer, "", ""},
		{"101", json, ``, 101, issuer.ErrAnswer, "", ""},
		{"304", json, ``, 304, issuer.ErrAnswer, "", ""},
		{"307", json, `{}`, 307, issuer.ErrAnswer, "", ""},
		{"600", json, `{}`, 600, issuer.ErrAnswer, "", ""},
		{"no status", json, `{}`, 0, issuer.ErrAnswer, "", ""},
	} {
		up := &said{status: test.status, kind: test.kind, body: test.body}
		call := carried(declared("GET", "/x", number, nil), "", "", "")
		call.Session, _ = legs(t, "masked")
		res, err := forward(t).Do(t.Context(), up, call)
		if test.want != nil {
			if !errors.Is(err, test.want) || res != nil || err != nil && strings.Contains(err.Error(), "1111") {
				t.Errorf("%s: %v, %v; want %v", test.name, res, err, test.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if test.text == "" {
			test.text = test.body
		}
		if got := text(t, res); got != test.text || res.Forward.Status != test.status || res.Forward.ContentType != test.passes {
			t.Errorf("%s: %d %s %s", test.name, res.Forward.Status, res.Forward.ContentType, got)
		}
	}
}

// TestForwardWithoutSession: a call that declares nothing needs none, and one that does shows nothing without it.
func TestForwardWithoutSession(t *testing.T) {
	up := &said{status: 200, kind: "application/json", body: `{ "a":1 }`}
	res, err := forward(t).Do(t.Context(), up, carried(declared("POST", "/x", nil, nil), "", "", `{"b" : 2}`))
	if err != nil || text(t, res) != up.body {
		t.Errorf("%v, %v", res, err)
	}
	up.body = `{"account_number":"` + testPAN + `"}`
	if res, err := forward(t).Do(t.Context(), up, carried(declared("GET", "/x", number, nil), "", "", "")); err == nil || res != nil {
		t.Errorf("declared, without a session: %v, %v", res, err)
	}
	sent := len(up.seen)
	sealed := `{"card":{"pan":{"data":"AA==","iv":"BB=="}}}`
	if res, err := forward(t).Do(t.Context(), up, carried(declared("POST", "/x", nil, cardData), "", "", sealed)); err == nil || res != nil || len(up.seen) != sent {
		t.Errorf("submitted, without a session: %v, %v", res, err)
	}
	// A field that may be shown, and a client that nobody could show it to.
	call := carried(declared("GET", "/x", number, nil), "", "", "")
	call.Session, _ = legs(t, "masked")
	call.Reveal = all
	if res, err := forward(t).Do(t.Context(), up, call); !errors.Is(err, issuer.ErrAnswer) || res != nil {
		t.Errorf("shown to nobody: %v, %v", res, err)
	}
	call.Session.Close()
	if res, err := forward(t).Do(t.Context(), up, call); !errors.Is(err, issuer.ErrAnswer) || res != nil {
		t.Errorf("a session that is closed: %v, %v", res, err)
	}
}

// TestForwardFieldsAreDecidedAlone: of two fields of one answer, each is shown or masked by itself.
func TestForwardFieldsAreDecidedAlone(t *testing.T) {
	up := &said{status: 200, kind: "application/json", body: `{"card":{"pan":"` + testPAN + `","cvc":"737","exp":"12/30"}}`}
	for _, test := range []struct {
		reveal []policy.Field
		want   string
	}{
		{nil, `{"card":{"pan":"` + maskedPAN + `","cvc":"***","exp":"12/30"}}`},
		{[]policy.Field{policy.FieldPAN}, `{"card":{"pan":<sealed for the client: ` + testPAN + `>,"cvc":"***","exp":"12/30"}}`},
		{[]policy.Field{policy.FieldCVC}, `{"card":{"pan":"` + maskedPAN + `","cvc":<sealed for the client: 737>,"exp":"12/30"}}`},
		{[]policy.Field{policy.FieldAccount}, `{"card":{"pan":"` + maskedPAN + `","cvc":"***","exp":"12/30"}}`},
	} {
		call := carried(declared("GET", "/x", cardData, nil), "", "", "")
		var end *sandbox.Session
		call.Session, end = legs(t, "sealed")
		call.Reveal = test.reveal
		res, err := forward(t).Do(t.Context(), up, call)
		if err != nil {
			t.Fatal(err)
		}
		if got := opened(t, end, text(t, res)); got != test.want {
			t.Errorf("%v: %s\nwant %s", test.reveal, got, test.want)
		}
	}
}

// TestForwardSubmits: fields that the client sealed reach the issuer as its leg has them, and all else as it came.
func TestForwardSubmits(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"ok":true}`)
	}))
	defer server.Close()
	base, err := url.Parse(server.URL)
	must(err)
	s, end := legs(t, "sealed")
	sealed := func(text string) string {
		v := end.Seal(text)
		return `{"data":"` + v.Data + `","iv":"` + v.IV + `"}`
	}
	up := &carrier{base: base, client: server.Client()}
	call := carried(declared("POST", "/cards", nil, cardData), "", "", `{"card":{"pan":`+sealed(testPAN)+`, "cvc": `+sealed("737")+`,"holder":"Ada"},"n":1.50}`)
	call.Session, call.Operations = s, append(call.Operations, policy.ForwardSubmit)
	call.Forward.Call.Changes = false
	res, err := forward(t).Do(t.Context(), up, call)
	if err != nil || text(t, res) != `{"ok":true}` {
		t.Fatalf("%v, %v", res, err)
	}
	if want := `{"card":{"pan":"` + testPAN + `", "cvc": "737","holder":"Ada"},"n":1.50}`; up.sent[0] != want || !up.seen[0].Changes {
		t.Errorf("sent %s, changes %t", up.sent[0], up.seen[0].Changes)
	}

	call = carried(declared("POST", "/cards", nil, cardData), "", "", `{"card":{"pan":null}}`)
	call.Session = s
	if res, err := forward(t).Do(t.Context(), up, call); err != nil || text(t, res) != `{"ok":true}` || up.sent[1] != `{"card":{"pan":null}}` {
		t.Errorf("null: %v, %v, sent %s", res, err, up.sent)
	}

	_, stranger := legs(t, "sealed")
	foreign := stranger.Seal(testPAN)
	for name, body := range map[string]string{
		"another's session": `{"card":{"pan":{"data":"` + foreign.Data + `","iv":"` + foreign.IV + `"}}}`,
		"no number":         `{"card":{"pan":` + sealed("not a number") + `}}`,
		"in clear":          `{"card":{"pan":"` + testPAN + `"}}`,
	} {
		up.seen = nil
		call := carried(declared("POST", "/cards", nil, cardData), "", "", body)
		call.Session = s
		res, err := forward(t).Do(t.Context(), up, call)
		if err == nil || errors.Is(err, issuer.ErrAnswer) || res != nil || len(up.seen) != 0 || strings.Contains(err.Error(), "1111") {
			t.Errorf("%s: %v, %v, %d requests", name, res, err, len(up.seen))
		}
	}
}

// TestForwardPassesOn: what the upstream says of the way is passed on as it is, so that the gateway knows what became of a
// change.
func TestForwardPassesOn(t *testing.T) {
	for _, want := range []error{issuer.ErrUnreachable, issuer.ErrTimeout, issuer.ErrLost, issuer.ErrTooLarge, context.Canceled, context.DeadlineExceeded} {
		call := carried(declared("POST", "/x", nil, nil), "", "", `{}`)
		if res, err := forward(t).Do(t.Context(), failing{fmt.Errorf("there: %w", want)}, call); !errors.Is(err, want) || res != nil {
			t.Errorf("%v: %v, %v", want, res, err)
		}
	}
}

// unread is an upstream that has the vault read nothing.
type unread issuer.Response

func (u unread) RoundTrip(_ context.Context, _ *issuer.Request, res *issuer.Response) error {
	*res = issuer.Response(u)
	return nil
}

// TestForwardReleasesNothingUnread: bytes that the vault did not read do not pass, whatever they are said to be.
func TestForwardReleasesNothingUnread(t *testing.T) {
	for _, kind := range []string{"application/json", "text/plain", ""} {
		up := unread{Status: 200, ContentType: kind, Body: []byte(`{}`)}
		if res, err := forward(t).Do(t.Context(), up, carried(declared("GET", "/x", nil, nil), "", "", "")); !errors.Is(err, issuer.ErrAnswer) || res != nil {
			t.Errorf("%q: %v, %v", kind, res, err)
		}
	}
	res, err := forward(t).Do(t.Context(), unread{Status: 204}, carried(declared("GET", "/x", nil, nil), "", "", ""))
	if err != nil || res.Forward.Status != 204 || res.Forward.Message != nil {
		t.Errorf("%v, %v", res, err)
	}
}

func TestForwardServes(t *testing.T) {
	i := forward(t)
	for _, op := range policy.Operations() {
		if want := strings.HasPrefix(string(op), "forward"); i.Serves(op) != want {
			t.Errorf("%s: %t", op, !want)
		}
	}
	kind, err := issuer.Lookup("forward")
	if err != nil || !kind.InClear() || kind.CredentialHeader != "Authorization" || kind.CredentialPrefix != "Bearer " {
		t.Errorf("%+v, %v", kind, err)
	}
}

// FuzzForwardAnswer: whatever the issuer answers, what is released says the same as it, but for the declared field, of which
// no more is shown than a mask; there is no card number in it; and an error quotes nothing.
func FuzzForwardAnswer(f *testing.F) {
	f.Add(200, "application/json", `{"account_number":"`+testPAN+`","b":[1,{"account_number":"x"}]}`)
	f.Add(404, "application/problem+json; charset=utf-8", ` {"account_n\u0075mber":"`+bankIBAN+`"}`)
	f.Add(500, "application/json", `{"a":"`+testPAN+`"}`)
	f.Add(200, "text/html", `<p>`+testPAN)
	f.Add(204, "", "")
	f.Add(302, "application/json", "{}")
	f.Add(401, "application/json", "{}")
	f.Add(200, "application/"+testPAN+"+json", "{}")
	f.Fuzz(func(t *testing.T, status int, kind, body string) {
		up := &said{status: status, kind: kind, body: body}
		call := carried(declared("GET", "/x", number, nil), "", "", "")
		call.Session, _ = legs(t, "masked")
		res, err := forward(t).Do(t.Context(), up, call)
		if err != nil {
			known := slices.ContainsFunc([]error{issuer.ErrAnswer, issuer.ErrTooLarge, issuer.ErrGuard}, func(e error) bool { return errors.Is(err, e) })
			known = known || status == http.StatusUnauthorized && errors.Is(err, issuer.ErrRefused)
			if res != nil || !known || len(body) > 20 && strings.Contains(err.Error(), body) {
				t.Fatalf("%v, %v", res, err)
			}
			return
		}
		got := text(t, res)
		if status != res.Forward.Status || status/100 != 2 && status/100 != 4 && status/100 != 5 || vault.HoldsPANString(got+" "+res.Forward.ContentType) {
			t.Fatalf("%d %s %q", res.Forward.Status, res.Forward.ContentType, got)
		}
		if body == "" {
			if got != "" || res.Forward.ContentType != "" {
				t.Fatalf("%s %q out of nothing", res.Forward.ContentType, got)
			}
			return
		}
		var before, after map[string]json.RawMessage
		if json.Unmarshal([]byte(body), &before) != nil { // no object, and so no field
			if got != body {
				t.Fatalf("%q became %q", body, got)
			}
			return
		}
		if err := json.Unmarshal([]byte(got), &after); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if raw := string(after["account_number"]); raw != "" && raw != "null" {
			said, shown := strings.Trim(string(before["account_number"]), `"`), strings.Trim(raw, `"`)
			if strings.Count(shown, "*") < 3 || len(strings.Trim(shown, "*")) > 16 || shown == said {
				t.Fatalf("%s is shown of %q", raw, body)
			}
		}
		if (before["account_number"] == nil) != (after["account_number"] == nil) {
			t.Fatalf("%q became %q", body, got)
		}
		delete(before, "account_number")
		delete(after, "account_number")
		if !maps.EqualFunc(before, after, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Fatalf("%q became %q", body, got)
		}
	})
}
