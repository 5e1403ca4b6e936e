package sandbox_test

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

const (
	payrocKey     = "payroc-test-key"
	terminal      = "1234001"
	otherTerminal = "1234002"
)

// payroc is a running sandbox of Payroc and a caller of it.
type payroc struct {
	*sandbox.Payroc
	*caller
	keys int
}

func payrocConfig() sandbox.PayrocConfig {
	return sandbox.PayrocConfig{APIKey: payrocKey, Key: testKey(), Terminals: []string{terminal, otherTerminal}}
}

func startPayroc(t *testing.T) *payroc {
	t.Helper()
	p, err := sandbox.NewPayroc(payrocConfig())
	if err != nil {
		t.Fatal(err)
	}
	c := listen(t, p, nil, "Authorization", "Bearer "+payrocKey, "Content-Type", "application/json")
	c.errors = "application/problem+json"
	return &payroc{Payroc: p, caller: c}
}

// key returns another idempotency key each time.
func (p *payroc) key() string {
	p.keys++
	return fmt.Sprintf("6f9619ff-8b86-4011-b42d-%012d", p.keys)
}

// payment is a body with a card that is sealed under a session.
func (p *payroc) payment(s *sandbox.Session, number, code, expiry, name string) string {
	p.t.Helper()
	details := map[string]any{"encryptedPan": s.Seal(number), "expiryDate": expiry}
	if code != "" {
		details["encryptedCvc"] = s.Seal(code)
	}
	if name != "" {
		details["cardholderName"] = name
	}
	body, err := json.Marshal(map[string]any{
		"processingTerminalId": terminal, "order": map[string]any{"amount": 4999, "currency": "USD"},
		"paymentMethod": map[string]any{"type": "card", "cardDetails": details},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return string(body)
}

// problem asserts an error answer. parameter is of its one error, and empty where it has none.
func (p *payroc) problem(what string, status int, fragment, parameter, method, path, body string, header ...string) {
	p.t.Helper()
	got, out := p.call(method, path, body, header...)
	var said string
	if list, _ := out["errors"].([]any); len(list) == 1 {
		said, _ = list[0].(map[string]any)["parameter"].(string)
	}
	if got != status || out["type"] != "https://docs.payroc.com/api/errors#"+fragment || out["status"] != float64(status) || out["title"] == "" || out["detail"] == "" || said != parameter {
		p.t.Errorf("%s: %d %v", what, got, out)
	}
}

// TestPayrocTakesPayments: of each card that it takes, it can prove which one it was.
func TestPayrocTakesPayments(t *testing.T) {
	p := startPayroc(t)
	for _, test := range []struct{ number, code, expiry, name, masked, kind string }{
		{"4111111111111111", "737", "1230", "Zoë O'Hara", "411111******1111", "Visa"},
		{"5555555555554444", "", "0199", "", "555555******4444", "MasterCard"},
		{"378282246310005", "7373", "1230", "", "378282*****0005", "Amex"},
		{"6011111111111117", "123", "1230", "", "601111******1117", "Discover"},
		{"676100000006", "", "1230", "", "676100**0006", "Other"},
	} {
		s := session(t)
		status, out := p.call("POST", "/v1/payments", p.payment(s, test.number, test.code, test.expiry, test.name), "SessionId", s.ID(), "Idempotency-Key", p.key())
		id, _ := out["paymentId"].(string)
		want := map[string]any{
			"paymentId": id, "processingTerminalId": terminal, "transactionResult": map[string]any{"status": "ready", "responseCode": "A"},
			"card": map[string]any{"type": test.kind, "cardNumber": test.masked},
		}
		if status != 201 || len(id) != 10 || fmt.Sprint(out) != fmt.Sprint(want) {
			t.Fatalf("%s: %d %v", test.number, status, out)
		}
		payments := p.Payments()
		taken := sandbox.Payment{
			ID: id, Terminal: terminal, CardNumber: test.masked, NumberSHA256: sha256.Sum256([]byte(test.number)), ExpiryDate: test.expiry, CardholderName: test.name,
		}
		if test.code != "" {
			taken.CodeSHA256 = sha256.Sum256([]byte(test.code))
		}
		if got := payments[len(payments)-1]; got != taken {
			t.Errorf("%s: %+v", test.number, got)
		}
		if text := fmt.Sprintf("%+v %#v", payments, payments); strings.Contains(text, test.number) {
			t.Errorf("%s is printed", test.number)
		}
	}
	if got := len(p.Payments()); got != 5 || p.Count(sandbox.CallPayment) != 5 {
		t.Errorf("%d payments, %d calls", got, p.Count(sandbox.CallPayment))
	}
}

func TestPayrocRefusals(t *testing.T) {
	p := startPayroc(t)
	s := session(t)
	good := p.payment(s, "4111111111111111", "737", "1230", "")
	with := func(header ...string) []string {
		return append([]string{"SessionId", s.ID(), "Idempotency-Key", p.key()}, header...)
	}
	for _, value := range []string{"", "Bearer", "Bearer x", "Basic " + payrocKey} {
		p.problem("authorization "+value, 401, "not-authorized", "", "POST", "/v1/payments", good, with("Authorization", value)...)
	}
	p.problem("path", 404, "not-found", "", "POST", "/v1/payment", good, with()...)
	p.problem("method", 405, "method-not-allowed", "", "GET", "/v1/payments", "", with()...)
	p.problem("content type", 415, "unsupported-media-type", "", "POST", "/v1/payments", good, with("Content-Type", "text/plain")...)
	p.problem("no content type", 415, "unsupported-media-type", "", "POST", "/v1/payments", "", with("Content-Type", "")...)
	p.problem("accept", 406, "not-acceptable", "", "POST", "/v1/payments", good, with("Accept", "text/html")...)
	p.problem("long body", 413, "payload-too-large", "", "POST", "/v1/payments", strings.Repeat(" ", 65<<10), with()...)
	p.problem("no key", 400, "idempotency-key-missing", "", "POST", "/v1/payments", good, with("Idempotency-Key", "")...)
	for _, key := range []string{"x", "6f9619ff-8b86-1011-b42d-00c04fc964ff", "6f9619ff-8b86-4011-c42d-00c04fc964ff", "6f9619ff8b864011b42d00c04fc964ff", "6f9619ff-8b86-4011-b42d-00c04fc964fg"} {
		p.problem("key "+key, 400, "bad-request", "Idempotency-Key", "POST", "/v1/payments", good, with("Idempotency-Key", key)...)
	}
	for _, body := range []string{``, `{`, `[]`, `null`, `"x"`} {
		p.problem("body "+body, 400, "bad-request", "", "POST", "/v1/payments", body, with()...)
	}
	swap := strings.NewReplacer(terminal, "1234009").Replace
	p.problem("terminal", 400, "bad-request", "processingTerminalId", "POST", "/v1/payments", swap(good), with()...)
	p.problem("terminal of no text", 400, "bad-request", "processingTerminalId", "POST", "/v1/payments", `{"processingTerminalId":1}`, with()...)
	p.problem("no terminal of several", 400, "bad-request", "processingTerminalId", "POST", "/v1/payments", `{}`, with()...)

	method := func(text string) string {
		return `{"processingTerminalId":"` + terminal + `","paymentMethod":` + text + `}`
	}
	for _, text := range []string{
		`null`, `{}`, `{"type":"singleUseToken","token":"x"}`, `{"type":"card"}`, `{"type":"card","cardDetails":{"expiryDate":"1230"}}`,
		`{"type":"card","cardDetails":{"cardNumber":"4111111111111111","expiryDate":"1230"}}`,
	} {
		p.problem(text, 400, "bad-request", "paymentMethod", "POST", "/v1/payments", method(text), with()...)
	}
	p.problem("no session", 400, "bad-request", "SessionId", "POST", "/v1/payments", good, with("SessionId", "")...)
	p.problem("no session of ours", 400, "bad-request", "SessionId", "POST", "/v1/payments", good, with("SessionId", "AAAA")...)
	const at = "paymentMethod.cardDetails."
	p.problem("another session", 400, "bad-request", at+"encryptedPan", "POST", "/v1/payments", good, with("SessionId", session(t).ID())...)
	for _, test := range []struct{ number, code, expiry, parameter string }{
		{"4111111111111112", "737", "1230", "encryptedPan"}, {"41111111111", "737", "1230", "encryptedPan"}, {"4111 1111 1111 1111", "737", "1230", "encryptedPan"}, {"", "737", "1230", "encryptedPan"},
		{"4111111111111111", "73", "1230", "encryptedCvc"}, {"4111111111111111", "7373", "1230", "encryptedCvc"}, {"378282246310005", "737", "1230", "encryptedCvc"}, {"4111111111111111", "abc", "1230", "encryptedCvc"},
		{"4111111111111111", "737", "", "expiryDate"}, {"4111111111111111", "737", "1330", "expiryDate"}, {"4111111111111111", "737", "0030", "expiryDate"}, {"4111111111111111", "737", "12/30", "expiryDate"},
		{"4111111111111111", "737", "0120", "expiryDate"}, {"4111111111111111", "737", "203012", "expiryDate"},
	} {
		p.problem(fmt.Sprint(test), 400, "bad-request", at+test.parameter, "POST", "/v1/payments", p.payment(s, test.number, test.code, test.expiry, ""), with()...)
	}
	if got := p.Payments(); len(got) != 0 {
		t.Errorf("refused requests made %v", got)
	}
}

// TestPayrocIdempotency: the same payment is the same although its card is sealed anew under another session; another is another.
func TestPayrocIdempotency(t *testing.T) {
	p := startPayroc(t)
	key := p.key()
	pay := func(number, code, expiry, name string) (int, map[string]any) {
		s := session(t)
		return p.call("POST", "/v1/payments", p.payment(s, number, code, expiry, name), "SessionId", s.ID(), "Idempotency-Key", key)
	}
	if status, _ := pay("4111111111111112", "737", "1230", "A"); status != 400 {
		t.Errorf("bad card: %d", status)
	}
	_, first := pay("4111111111111111", "737", "1230", "A")
	status, again := pay("4111111111111111", "737", "1230", "A")
	if status != 201 || first["paymentId"] == nil || first["paymentId"] != again["paymentId"] || len(p.Payments()) != 1 {
		t.Errorf("%v and %d %v, %d payments", first, status, again, len(p.Payments()))
	}
	for name, card := range map[string][4]string{
		"another number": {"5555555555554444", "737", "1230", "A"}, "another code": {"4111111111111111", "738", "1230", "A"}, "no code": {"4111111111111111", "", "1230", "A"},
		"another expiry": {"4111111111111111", "737", "1231", "A"}, "another name": {"4111111111111111", "737", "1230", "B"},
	} {
		s := session(t)
		p.problem(name, 409, "idempotency-key-in-use", "", "POST", "/v1/payments", p.payment(s, card[0], card[1], card[2], card[3]), "SessionId", s.ID(), "Idempotency-Key", key)
	}
	s := session(t)
	body := strings.Replace(p.payment(s, "4111111111111111", "737", "1230", "A"), "4999", "5000", 1)
	p.problem("another amount", 409, "idempotency-key-in-use", "", "POST", "/v1/payments", body, "SessionId", s.ID(), "Idempotency-Key", key)
	if got := len(p.Payments()); got != 1 {
		t.Errorf("%d payments", got)
	}
}

func TestPayrocIdempotencyUnderRace(t *testing.T) {
	p := startPayroc(t)
	s := session(t)
	body, key := p.payment(s, "4111111111111111", "737", "1230", ""), p.key()
	var all sync.WaitGroup
	for range 16 {
		req := p.request("POST", "/v1/payments", body, "SessionId", s.ID(), "Idempotency-Key", key)
		all.Go(func() {
			if res, _, err := p.do(req); err != nil || res.StatusCode != 201 {
				t.Errorf("%v, %v", res, err)
			}
		})
	}
	all.Wait()
	if got := len(p.Payments()); got != 1 {
		t.Errorf("%d payments", got)
	}
}

func TestPayrocFaults(t *testing.T) {
	p := startPayroc(t)
	s := session(t)
	card := sandbox.RandomCard("x", "")
	body := p.payment(s, card.PAN, card.CVC, "1230", "")
	pay := func() (*http.Response, []byte, error) {
		return p.do(p.request("POST", "/v1/payments", body, "SessionId", s.ID(), "Idempotency-Key", p.key()))
	}
	faultyCall(t, p, card, terminal, sandbox.CallPayment, 201, pay)
	p.SetFault(otherTerminal, sandbox.Fault500)
	if res, _, err := pay(); err != nil || res.StatusCode != 201 {
		t.Errorf("another terminal's fault: %v, %v", res, err)
	}
	before := len(p.Payments())
	p.SetFault(terminal, sandbox.Fault500)
	p.problem("500", 500, "api-error", "", "POST", "/v1/payments", body, "SessionId", s.ID(), "Idempotency-Key", p.key())
	if got := len(p.Payments()); got != before {
		t.Errorf("%d payments, %d before", got, before)
	}
	p.SetFault(terminal, sandbox.FaultMissingField)
	if _, out := p.call("POST", "/v1/payments", body, "SessionId", s.ID(), "Idempotency-Key", p.key()); out["paymentId"] != nil || out["card"] == nil || len(p.Payments()) != before+1 {
		t.Errorf("missing field: %v", out)
	}
	p.SetFault(terminal, sandbox.FaultPANInHeader("X-Card"))
	res, out, err := p.do(p.request("POST", "/v1/payments", body, "SessionId", s.ID()))
	if err != nil || res.StatusCode != 400 || res.Header.Get("X-Card") != card.PAN || res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("a problem with a header: %v %s %v", res, out, err)
	}
}

func TestPayrocConfigurationIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(*sandbox.PayrocConfig){
		"no API key": func(c *sandbox.PayrocConfig) { c.APIKey = "" },
		"no key":     func(c *sandbox.PayrocConfig) { c.Key = nil },
		"short key": func(c *sandbox.PayrocConfig) {
			c.Key = &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: shortModulus, E: 65537}}
		},
		"no terminal":    func(c *sandbox.PayrocConfig) { c.Terminals = nil },
		"empty terminal": func(c *sandbox.PayrocConfig) { c.Terminals[1] = "" },
		"no certificate": func(c *sandbox.PayrocConfig) { c.TLS = &tls.Config{} },
	} {
		c := payrocConfig()
		spoil(&c)
		if _, err := sandbox.NewPayroc(c); err == nil || !strings.HasPrefix(err.Error(), "sandbox: payroc: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	p, err := sandbox.NewPayroc(payrocConfig())
	if err != nil || !p.PublicKey().Equal(&testKey().PublicKey) {
		t.Errorf("%v", err)
	}
}
