package face_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

const (
	libVersion     = "1.7.0.261457"
	terminal       = "1234001"
	idempotencyKey = "8e03978e-40d5-43e8-bc93-6894a57f9324"
	fieldsToken    = "AAAAc2Vzc2lvbi1vZi1hLXBhZ2Utb2YtaG9zdGVkLWZpZWxkcw"
	testPAN        = "4111111111111111"

	withKeyHeader   = "Idempotency-Key: " + idempotencyKey + "\n"
	sessionsPattern = "/v1/processing-terminals/{processingTerminalId}/hosted-fields-sessions"
	pagePattern     = "/merchant/api/v2/hosted-fields-sessions/{token}"
	sessionsPath    = "/v1/processing-terminals/" + terminal + "/hosted-fields-sessions"
	pagePath        = "/merchant/api/v2/hosted-fields-sessions/" + fieldsToken

	bodySession = `{"libVersion":"` + libVersion + `","scenario":"payment"}`
	bodyNumber  = `{"cardNumber":"` + testPAN + `","type":"cardNumber"}`
)

// hostedFields are those of a merchant who asks for everything.
func hostedFields() *face.HostedFields {
	return &face.HostedFields{
		Libraries: []string{"1.6.0.172429", libVersion}, CVV: "mandatory", Name: true, Tokenize: true,
		Page: func(query url.Values, out *exchange.Response) error {
			if query.Get("field") == "" {
				return errors.New("no such field")
			}
			out.ContentType, out.Body = "text/html; charset=utf-8", append(out.Body[:0], query.Encode()...)
			return nil
		},
	}
}

// pays is a call that may name a held card.
func pays(method, pattern, token string) exchange.ForwardCall {
	call := carry(method, pattern, exchange.WithoutMask, nil, nil)
	call.Request, call.Token = shape(vault.ShapeConfig{Tokens: []string{token}}), token
	return call
}

func payrocForwards() []exchange.ForwardCall {
	masked := carry("GET", "/v1/payments/{paymentId}", exchange.WithoutMask, account, nil)
	patch := carry("POST", "/v1/payments/{paymentId}", exchange.WithoutMask, nil, nil)
	patch.Name, patch.Method = "PATCH /v1/payments/{paymentId}", "PATCH"
	return []exchange.ForwardCall{
		pays("POST", "/v1/payments", "/paymentMethod"), masked, patch, pays("POST", "/v1/deep", "/a/b~1c"),
		carry("DELETE", "/v1/payments/{paymentId}", exchange.WithoutMask, nil, nil),
	}
}

func payrocFace(t testing.TB) face.Face { return newFace(t, "payroc", everythingOf("payroc")) }

func begin(headers, body string) string { return post(sessionsPath, bearer+headers, body) }

func submit(body string) string { return post(pagePath+"/fields", withKeyHeader, body) }

func configuration(headers string) string { return get(pagePath+"/configuration", headers) }

func pay(body string) string { return post("/v1/payments", bearer+withKeyHeader, body) }

func without(raw, text string) string { return strings.Replace(raw, text, "", 1) }

const paidWith = `{"channel":"web","paymentMethod":{"type":"singleUseToken","token":"` + token + `"}}`

var payrocRequests = []named{
	{"authorize", "POST /authorize HTTP/1.1\nHost: identity.example\nx-api-key: " + partnerKey + "\n\n"},
	{"authorize: a published client", post("/authorize", "x-api-key: "+partnerKey+"\n", `{"client_id":"","client_secret":""}`)},
	{"authorize: whatever body", strings.Replace(post("/authorize", "x-api-key: "+partnerKey+"\n", `{"a":1,"a":`), "application/json", "text/plain", 1)},
	{"authorize: a bearer is nobody's", post("/authorize", bearer+"x-api-key: "+partnerKey+"\nAccept: text/plain\n", "")},
	{"authorize: no key", post("/authorize", bearer, "")},
	{"authorize: empty key", post("/authorize", "x-api-key: \n", "")},
	{"authorize: two keys", post("/authorize", "x-api-key: a\nx-api-key: a\n", "")},
	{"authorize: GET", get("/authorize", "x-api-key: "+partnerKey+"\n")},

	{"session", begin(withKeyHeader, bodySession)},
	{"session: without a version in its path", strings.Replace(begin(withKeyHeader, bodySession), "/v1", "", 1)},
	{"session: a published client", "POST " + sessionsPath + " HTTP/1.1\nHost: api.example\n" + bearer + "Accept: application/json\nUser-Agent: x/1.0\n" + typeJSON + withKeyHeader +
		"Transfer-Encoding: chunked\n\n" + fmt.Sprintf("%x\n%s\n0\n\n", len(bodySession), bodySession)},
	{"session: tokenization", begin(withKeyHeader, `{"scenario":"tokenization","libVersion":"1.6.0.172429","secureTokenId":"MREF_abc1de23"}`)},
	{"session: key in upper case", begin("Idempotency-Key: "+strings.ToUpper(idempotencyKey)+"\n", bodySession)},
	{"session: a charset", strings.Replace(begin(withKeyHeader, bodySession), "/json", "/json; charset=utf-8", 1)},
	{"session: escaped terminal", strings.Replace(begin(withKeyHeader, bodySession), terminal, "a%2Fb%20c", 1)},
	{"session: no bearer", post(sessionsPath, withKeyHeader, bodySession)},
	{"session: no bearer, and nothing right besides", "POST " + sessionsPath + " HTTP/1.1\nHost: api.example\nAccept: text/html\nContent-Length: 1\n\n{"},
	{"session: an API key in its place", post(sessionsPath, withKeyHeader+"x-api-key: "+partnerKey+"\n", bodySession)},
	{"session: two bearers", begin(bearer+withKeyHeader, bodySession)},
	{"session: an empty bearer", post(sessionsPath, "Authorization: Bearer \n"+withKeyHeader, bodySession)},
	{"session: another type", strings.Replace(begin(withKeyHeader, bodySession), "application/json", "text/plain", 1)},
	{"session: a packed body", begin(withKeyHeader+"Content-Encoding: gzip\n", bodySession)},
	{"session: no type", without(begin(withKeyHeader, bodySession), typeJSON)},
	{"session: not acceptable", begin(withKeyHeader+"Accept: text/html\n", bodySession)},
	{"session: no key", begin("", bodySession)},
	{"session: empty key", begin("Idempotency-Key: \n", bodySession)},
	{"session: two keys", begin(withKeyHeader+withKeyHeader, bodySession)},
	{"session: key of version 1", begin("Idempotency-Key: 8e03978e-40d5-13e8-bc93-6894a57f9324\n", bodySession)},
	{"session: key of another variant", begin("Idempotency-Key: 8e03978e-40d5-43e8-cc93-6894a57f9324\n", bodySession)},
	{"session: key in braces", begin("Idempotency-Key: {"+idempotencyKey+"}\n", bodySession)},
	{"session: key that is none", begin("Idempotency-Key: key-1\n", bodySession)},
	{"session: no body", begin(withKeyHeader, "")},
	{"session: null", begin(withKeyHeader, "null")},
	{"session: {}", begin(withKeyHeader, "{}")},
	{"session: a list", begin(withKeyHeader, "[]")},
	{"session: cut off", begin(withKeyHeader, bodySession[:20])},
	{"session: nested deep", begin(withKeyHeader, deep)},
	{"session: no version", begin(withKeyHeader, `{"scenario":"payment"}`)},
	{"session: another version", begin(withKeyHeader, `{"libVersion":"1.0.0.1","scenario":"payment"}`)},
	{"session: version as a number", begin(withKeyHeader, `{"libVersion":1.7,"scenario":"payment"}`)},
	{"session: no scenario", begin(withKeyHeader, `{"libVersion":"`+libVersion+`"}`)},
	{"session: another scenario", begin(withKeyHeader, `{"libVersion":"`+libVersion+`","scenario":"Payment"}`)},
	{"session: empty secure token", begin(withKeyHeader, strings.Replace(bodySession, "}", `,"secureTokenId":""}`, 1))},
	{"session: null secure token", begin(withKeyHeader, strings.Replace(bodySession, "}", `,"secureTokenId":null}`, 1))},
	{"session: a card number for a secure token", begin(withKeyHeader, strings.Replace(bodySession, "}", `,"secureTokenId":"`+testPAN+`"}`, 1))},
	{"session: a long secure token", begin(withKeyHeader, strings.Replace(bodySession, "}", `,"secureTokenId":"`+strings.Repeat("x", 256)+`"}`, 1))},
	{"session: unknown member", begin(withKeyHeader, strings.Replace(bodySession, "}", `,"cardNumber":"`+testPAN+`"}`, 1))},
	{"session: duplicate member", begin(withKeyHeader, strings.Replace(bodySession, "}", `,"scenario":"payment"}`, 1))},
	{"session: member in another case", begin(withKeyHeader, strings.Replace(bodySession, "scenario", "Scenario", 1))},

	{"configuration", configuration(withKeyHeader + typeJSON)},
	{"configuration: an escaped token", strings.Replace(configuration(withKeyHeader), fieldsToken, "a%2Bb%2F%3D%3D", 1)},
	{"configuration: a bearer is nobody's", configuration(withKeyHeader + bearer)},
	{"configuration: no key", configuration("")},
	{"configuration: key that is none", configuration("Idempotency-Key: x\n")},
	{"configuration: not acceptable", configuration("Accept: text/html\n")},
	{"configuration: a body", strings.Replace(configuration(withKeyHeader+"Content-Length: 2\n"), "\n\n", "\n\n{}", 1)},
	{"configuration: POST", post(pagePath+"/configuration", withKeyHeader, "")},

	{"field: card number", submit(bodyNumber)},
	{"field: security code", submit(`{"type":"cvv","cvv":"123"}`)},
	{"field: expiry", submit(`{"type":"expiryDate","expiryDate":"1130"}`)},
	{"field: expiry this month", submit(`{"type":"expiryDate","expiryDate":"1126"}`)},
	{"field: name", submit(`{"type":"cardholderName","cardholderName":"Ada Lovelace-Straße 李"}`)},
	{"field: members that are none of ours", submit(`{"type":"cvv","cvv":"1234","valid":true,"nested":{"cvv":"x"}}`)},
	{"field: escapes", submit(`{"t\u0079pe":"c\u0076v","cvv":"\u0031\u0032\u0033"}`)},
	{"field: an expired card", submit(`{"type":"expiryDate","expiryDate":"1026"}`)},
	{"field: month 13", submit(`{"type":"expiryDate","expiryDate":"1330"}`)},
	{"field: expiry with a slash", submit(`{"type":"expiryDate","expiryDate":"11/30"}`)},
	{"field: expiry as a number", submit(`{"type":"expiryDate","expiryDate":1130}`)},
	{"field: wrong check digit", submit(`{"cardNumber":"4111111111111112","type":"cardNumber"}`)},
	{"field: not a whole number", submit(`{"cardNumber":"411111111111","type":"cardNumber"}`)},
	{"field: number with spaces", submit(`{"cardNumber":"4111 1111 1111 1111","type":"cardNumber"}`)},
	{"field: number as a number", submit(`{"cardNumber":` + testPAN + `,"type":"cardNumber"}`)},
	{"field: security code as a number", submit(`{"type":"cvv","cvv":123}`)},
	{"field: empty name", submit(`{"type":"cardholderName","cardholderName":" "}`)},
	{"field: a card number for a name", submit(`{"type":"cardholderName","cardholderName":"` + testPAN + `"}`)},
	{"field: a line feed in a name", submit(`{"type":"cardholderName","cardholderName":"Ada\nLovelace"}`)},
	{"field: name of 255", submit(`{"type":"cardholderName","cardholderName":"` + strings.Repeat("x", 255) + `"}`)},
	{"field: name of 256", submit(`{"type":"cardholderName","cardholderName":"` + strings.Repeat("x", 256) + `"}`)},
	{"field: the member of another type", submit(`{"type":"cvv","cardNumber":"` + testPAN + `"}`)},
	{"field: two members", submit(`{"type":"cvv","cvv":"123","cardNumber":"` + testPAN + `"}`)},
	{"field: two members, one null", submit(`{"type":"cvv","cvv":"123","expiryDate":null}`)},
	{"field: null", submit(`{"type":"cvv","cvv":null}`)},
	{"field: no member", submit(`{"type":"cardholderName"}`)},
	{"field: no type", submit(`{"cvv":"123"}`)},
	{"field: another type of field", submit(`{"type":"pin","pin":"1234"}`)},
	{"field: the button", submit(`{"type":"submit"}`)},
	{"field: a card number for a type", submit(`{"type":"` + testPAN + `"}`)},
	{"field: type as a number", submit(`{"type":1}`)},
	{"field: no body", submit("")},
	{"field: a list", submit("[]")},
	{"field: cut off", submit(bodyNumber[:30])},
	{"field: a member twice", submit(`{"type":"cvv","cvv":"123","cvv":"124"}`)},
	{"field: no key", post(pagePath+"/fields", "", bodyNumber)},
	{"field: key of version 7", post(pagePath+"/fields", "Idempotency-Key: 0193978e-40d5-73e8-bc93-6894a57f9324\n", bodyNumber)},
	{"field: another type of body", strings.Replace(submit(bodyNumber), "application/json", "application/x-www-form-urlencoded", 1)},
	{"field: not acceptable", strings.Replace(submit(bodyNumber), "Content-Length", "Accept: application/json;q=0, text/html\nContent-Length", 1)},

	{"token", post(pagePath+"/single-use-tokens", withKeyHeader, "")},
	{"token: no type either", without(post(pagePath+"/single-use-tokens", withKeyHeader, ""), typeJSON)},
	{"token: {}", post(pagePath+"/single-use-tokens", withKeyHeader, "{}")},
	{"token: null", post(pagePath+"/single-use-tokens", withKeyHeader, " null ")},
	{"token: members", post(pagePath+"/single-use-tokens", withKeyHeader, bodyNumber)},
	{"token: a list", post(pagePath+"/single-use-tokens", withKeyHeader, "[]")},
	{"token: a text", post(pagePath+"/single-use-tokens", withKeyHeader, `""`)},
	{"token: {} of another type", strings.Replace(post(pagePath+"/single-use-tokens", withKeyHeader, "{}"), "application/json", "text/plain", 1)},
	{"token: no key", post(pagePath+"/single-use-tokens", "", "")},

	{"payment", pay(paidWith)},
	{"payment: null is no card", pay(`{"paymentMethod":null}`)},
	{"payment: none named", pay(`{"amount":1}`)},
	{"payment: no body", pay("")},
	{"payment: query", strings.Replace(pay(paidWith), "/payments", "/payments?a=b", 1)},
	{"payment: no bearer", post("/v1/payments", withKeyHeader, paidWith)},
	{"payment: no bearer, and nothing right besides", post("/v1/payments?;", "Accept: text/html\n", `{"paymentMethod":1}`)},
	{"payment: another type of body", strings.Replace(pay(paidWith), "application/json", "text/plain", 1)},
	{"payment: not acceptable", post("/v1/payments", bearer+withKeyHeader+"Accept: text/html\n", paidWith)},
	{"payment: no key", post("/v1/payments", bearer, paidWith)},
	{"payment: key that is none", post("/v1/payments", bearer+"Idempotency-Key: 1\n", paidWith)},
	{"payment: not a query", post("/v1/payments?;", bearer+withKeyHeader, paidWith)},
	{"payment: another type", pay(`{"paymentMethod":{"type":"secureToken","token":"` + token + `"}}`)},
	{"payment: a card", pay(`{"paymentMethod":{"type":"card","cardDetails":{"cardNumber":"` + testPAN + `","cvv":"123"}}}`)},
	{"payment: more than a token", pay(`{"paymentMethod":{"type":"singleUseToken","token":"` + token + `","pinDetails":{}}}`)},
	{"payment: no type", pay(`{"paymentMethod":{"token":"` + token + `"}}`)},
	{"payment: a text", pay(`{"paymentMethod":"` + token + `"}`)},
	{"payment: empty token", pay(`{"paymentMethod":{"type":"singleUseToken","token":""}}`)},
	{"payment: a card number for a token", pay(`{"paymentMethod":{"type":"singleUseToken","token":"` + testPAN + `"}}`)},
	{"elsewhere", post("/v1/deep", bearer+withKeyHeader, `{"a":{"b/c":{"type":"singleUseToken","token":"`+token+`"}},"paymentMethod":{"type":"card"}}`)},
	{"elsewhere: another type", post("/v1/deep", bearer+withKeyHeader, `{"a":{"b/c":{"type":"x","token":"`+token+`"}}}`)},
	{"read", get("/v1/payments/7", bearer)},
	{"read: a key", get("/v1/payments/7", bearer+withKeyHeader)},
	{"read: a key that is none", get("/v1/payments/7", bearer+"Idempotency-Key: 1\n")},
	{"read: a session, which it has not", get("/v1/payments/7", bearer+sealing)},
	{"read: an escaped slash", get("/v1/payments/7%2F8", bearer)},
	{"change", strings.Replace(post("/v1/payments/7", bearer+withKeyHeader, "{}"), "POST", "PATCH", 1)},
	{"change: no key", strings.Replace(post("/v1/payments/7", bearer, "{}"), "POST", "PATCH", 1)},
	{"delete", remove("/v1/payments/7")},
}

// payrocSecrets are what no refusal quotes.
var payrocSecrets = []string{testPAN, "4111", token, fieldsToken, partnerKey, "cs_test", "123\"", "1130", "1026", "Lovelace"}

// TestPayrocRequests: what becomes of each request, and what is answered to those that are refused, at once or late.
func TestPayrocRequests(t *testing.T) {
	f := payrocFace(t)
	s := newServer(f)
	var b strings.Builder
	for _, r := range payrocRequests {
		e, c, err := s.parse(t, r.raw)
		fmt.Fprintf(&b, "== %s\n", r.name)
		failure, _ := errors.AsType[*exchange.Failure](err)
		if c != nil && c.Late != nil {
			failure = c.Late
			b.WriteString("late ")
			b.WriteString(describe(e, nil, c.Late))
			fmt.Fprintf(&b, "%v with %s\n", c.Operations, kindsOf(c))
		} else {
			b.WriteString(describe(e, c, err))
		}
		if failure != nil {
			out := refusal(f, e, failure)
			fmt.Fprintf(&b, "%d %s\n", out.Status, out.Body)
			for _, secret := range payrocSecrets {
				if strings.Contains(failure.Error()+string(out.Body), secret) {
					t.Errorf("%s: the refusal quotes: %v, %s", r.name, failure, out.Body)
				}
			}
		} else if c != nil {
			b.WriteString(forwarded(c) + described(c))
		}
		if c != nil && slices.ContainsFunc(c.Operations, func(op policy.Operation) bool { return !slices.Contains(e.Operations, op) }) {
			t.Errorf("%s: %v are none of %v", r.name, c.Operations, e.Operations)
		}
		b.WriteByte('\n')
	}
	golden(t, "payroc.requests.golden", b.String())
}

// described is what a call of this face has beside others'.
func described(c *exchange.Call) string {
	var b strings.Builder
	if c.Scope != "" {
		fmt.Fprintf(&b, "scope %q\n", c.Scope)
	}
	if c.Fields != (exchange.Fields{}) {
		fmt.Fprintf(&b, "fields %+v\n", c.Fields)
	}
	if s := c.Submit; s != (exchange.Submission{}) {
		fmt.Fprintf(&b, "submit field %s %q detail %s %q\n", s.Field, s.Member, s.Detail, s.Text)
	}
	if c.CardToken {
		fmt.Fprintf(&b, "takes the card together, for %s\n", c.Bind.Operation)
	}
	if c.Forward != nil && c.Forward.Paid {
		b.WriteString("paid with a held card\n")
	}
	return b.String()
}

func kindsOf(c *exchange.Call) string {
	var kinds []string
	for _, credential := range c.Credentials {
		kinds = append(kinds, string(credential.Kind))
	}
	return strings.Join(kinds, ", ")
}

// TestPayrocOrder: of everything that is wrong with a request, the first in the contract's order is told, and all but a missing
// Bearer only once the caller is proven.
func TestPayrocOrder(t *testing.T) {
	type part struct{ wrong, right string } // of a header
	body := []part{{"{", bodySession}, {`{"paymentMethod":{"type":"card"}}`, paidWith}, {`{"type":"cvv"}`, `{"type":"cvv","cvv":"123"}`}}
	f := payrocFace(t)
	for i, test := range []struct {
		path, bearer string
		body         part
	}{
		{sessionsPath, bearer, body[0]}, {"/v1/payments", bearer, body[1]}, {pagePath + "/fields", "", body[2]},
	} {
		headers := []part{{"", test.bearer}, {"Content-Type: text/plain\n", typeJSON}, {"Accept: text/html\n", "Accept: */*\n"}, {"", "Idempotency-Key: 1\n"}, {"", withKeyHeader}}
		steps := []struct {
			right  int // how many of the headers
			status int
			want   string
		}{
			{0, 401, "not-authorized"}, {1, 415, "unsupported-media-type"}, {2, 406, "not-acceptable"}, {3, 400, "idempotency-key-missing"},
			{4, 400, `"parameter":"Idempotency-Key"`}, {5, 400, `"errors":[`},
		}
		if test.bearer == "" {
			steps = steps[1:]
		}
		for _, step := range steps {
			raw := "POST " + test.path + " HTTP/1.1\nHost: x\n"
			for j, h := range headers {
				switch {
				case j == 3 && step.right != 4: // the one key that is wrong
				case j < step.right:
					raw += h.right
				default:
					raw += h.wrong
				}
			}
			raw += fmt.Sprintf("Content-Length: %d\n\n%s", len(test.body.wrong), test.body.wrong)
			e, c, err := newServer(f).parse(t, raw)
			failure, atOnce := errors.AsType[*exchange.Failure](err)
			if c != nil {
				failure = c.Late
			}
			if failure == nil || atOnce != (step.status == 401) {
				t.Errorf("%d, %d: %v, %v", i, step.right, err, failure)
				continue
			}
			if out := refusal(f, e, failure); out.Status != step.status || !strings.Contains(string(out.Body), step.want) {
				t.Errorf("%d, %d: %d %s", i, step.right, out.Status, out.Body)
			}
		}
	}
}

// TestPayrocAnswers: word for word what the contract says.
func TestPayrocAnswers(t *testing.T) {
	f := payrocFace(t)
	at := time.Date(2025, 7, 2, 14, 30, 0, 999_999_999, time.FixedZone("", 3600))
	number := &exchange.Call{Submit: exchange.Submission{Field: vault.FieldPAN}}
	for _, test := range []struct {
		name, method, pattern string
		status                int
		call                  *exchange.Call
		result                exchange.Result
		want                  string
	}{
		{"authorize", "POST", "/authorize", 0, &exchange.Call{}, exchange.Result{Token: "a.b.c", Expires: time.Now().Add(time.Hour - 300*time.Millisecond), Scope: "hosted-fields payments"},
			`{"access_token":"a.b.c","expires_in":3600,"scope":"hosted-fields payments","token_type":"Bearer"}`},
		{"authorize, no scope", "POST", "/authorize", 0, &exchange.Call{}, exchange.Result{Token: "a.b.c"}, `{"access_token":"a.b.c","expires_in":0,"scope":"","token_type":"Bearer"}`},
		{"session", "POST", sessionsPattern, 201, &exchange.Call{Fields: exchange.Fields{Terminal: "12\"34"}}, exchange.Result{Token: "t", Expires: at},
			`{"processingTerminalId":"12\"34","token":"t","expiresAt":"2025-07-02T13:30:00Z"}`},
		{"session without a version in its path", "POST", strings.TrimPrefix(sessionsPattern, "/v1"), 201, &exchange.Call{Fields: exchange.Fields{Terminal: terminal}}, exchange.Result{Token: "t", Expires: at},
			`{"processingTerminalId":"1234001","token":"t","expiresAt":"2025-07-02T13:30:00Z"}`},
		{"configuration", "GET", pagePattern + "/configuration", 0, &exchange.Call{}, exchange.Result{Session: exchange.Fields{Scenario: "payment"}},
			`{"configuration":{"cardHolderNameMandatory":true,"allowExpiredCards":false,"tokenization":{"enabled":true,"cvvVerification":"mandatory"},"fraudDetection":{"cvvVerification":"mandatory"}}}`},
		{"number", "POST", pagePattern + "/fields", 0, number, exchange.Result{Network: vault.Network{Name: "visa", SecurityCode: true}}, `{"info":{"showCvv":true,"cardType":"visa"}}`},
		{"number of cards without a code", "POST", pagePattern + "/fields", 0, number, exchange.Result{Network: vault.Network{Name: "humo"}}, `{"info":{"showCvv":false,"cardType":"humo"}}`},
		{"number of nobody's", "POST", pagePattern + "/fields", 0, number, exchange.Result{Network: vault.Network{SecurityCode: true}}, `{"info":{"showCvv":true,"cardType":""}}`},
		{"expiry", "POST", pagePattern + "/fields", 0, &exchange.Call{Submit: exchange.Submission{Detail: vault.DetailExpiry, Text: "1130"}}, exchange.Result{}, `{"info":{"showCvv":true,"cardType":""}}`},
		{"token", "POST", pagePattern + "/single-use-tokens", 0, &exchange.Call{}, exchange.Result{Token: "t\\", Expires: at}, `{"token":"t\\","expiresAt":"2025-07-02T13:30:00Z"}`},
	} {
		e := endpoint(t, f, test.method, test.pattern)
		out := exchange.Response{Body: append(make([]byte, 0, 64), "left over"...)}
		e.Render(test.call, &test.result, &out)
		if string(out.Body) != test.want || out.ContentType != "application/json" || e.Status != test.status || len(out.Header) != 0 {
			t.Errorf("%s: %d %s\ngot  %s\nwant %s", test.name, e.Status, out.ContentType, out.Body, test.want)
		}
	}
	c := everythingOf("payroc")
	c.HostedFields.CVV, c.HostedFields.Name, c.HostedFields.Expired, c.HostedFields.Tokenize = "disabled", false, true, false
	f = newFace(t, "payroc", c)
	if got := answer(t, f, "GET", pagePattern+"/configuration", &exchange.Call{}, &exchange.Result{}); got !=
		`{"configuration":{"cardHolderNameMandatory":false,"allowExpiredCards":true,"tokenization":{"enabled":false,"cvvVerification":"disabled"},"fraudDetection":{"cvvVerification":"disabled"}}}` {
		t.Error(got)
	}
	if got := answer(t, f, "POST", pagePattern+"/fields", number, &exchange.Result{Network: vault.Network{Name: "visa", SecurityCode: true}}); got != `{"info":{"showCvv":false,"cardType":"visa"}}` {
		t.Error(got)
	}
}

// problemOf is what every client reads of a failure.
type problemOf struct {
	Type, Title, Detail, Resource string
	Status                        int
	Errors                        []struct{ Parameter, Detail, Message string }
}

// TestPayrocErrors: word for word what the contract says; what is ours is in testdata.
func TestPayrocErrors(t *testing.T) {
	f := payrocFace(t)
	const base = `{"type":"https://docs.payroc.com/api/errors#`
	bad := func(parameter, detail, message string) string {
		return base + `bad-request","title":"Bad request","status":400,"detail":"One or more validation errors occurred, see error section for more info","errors":[{"parameter":"` +
			parameter + `","detail":"` + detail + `","message":"` + message + `"}]}`
	}
	for _, test := range []struct {
		kind   exchange.Kind
		at     exchange.Place
		status int
		want   string
	}{
		{exchange.Unauthorized, exchange.Place{}, 401, base + `not-authorized","title":"Not authorized","status":401,"detail":"We can` + "\u2019" + `t verify your identity. This can occur if your Bearer token has expired."}`},
		{exchange.Internal, exchange.Place{}, 500, base + `api-error","title":"Api error","status":500,"detail":"We are unable to process your request at this time"}`},
		{exchange.BadRequest, exchange.Place{In: "header", Name: "Idempotency-Key"}, 400, bad("Idempotency-Key", "Invalid format", "'Idempotency-Key' must be a UUID v4")},
		{exchange.BadRequest, exchange.Place{In: "body", Name: "paymentMethod.token"}, 400, bad("paymentMethod.token", "Invalid format", "'paymentMethod.token' supplied is invalid")},
		{exchange.BadRequest, exchange.Place{In: "body", Name: "missing_cvc"}, 400, bad("cvv", "Required field not populated", "The 'cvv' field is required")},
		{exchange.BadRequest, exchange.Place{In: "body", Name: "card"}, 400, bad("cvv", "Invalid format", "'cvv' supplied is invalid")},
		{exchange.BadRequest, exchange.Place{In: "query", Name: "field"}, 400, bad("field", "Invalid format", "'field' supplied is invalid")},
		{exchange.BadRequest, exchange.Place{In: "query"}, 400, bad("query", "Invalid format", "'query' supplied is invalid")},
		{exchange.BadRequest, exchange.Place{}, 400, bad("request", "Invalid format", "The request is invalid")},
	} {
		var out exchange.Response
		f.Fail(test.kind, test.at, &out)
		if string(out.Body) != test.want || out.Status != test.status || out.ContentType != "application/problem+json" {
			t.Errorf("%s at %v: %d %s\ngot  %s\nwant %s", test.kind, test.at, out.Status, out.ContentType, out.Body, test.want)
		}
	}
	fragments := map[exchange.Kind]string{
		exchange.BadRequest: "bad-request", exchange.Unauthorized: "not-authorized", exchange.Forbidden: "forbidden", exchange.NotFound: "not-found",
		exchange.OtherBody: "idempotency-key-in-use", exchange.KeyExpired: "idempotency-key-in-use", exchange.TooLarge: "payload-too-large",
		exchange.UnsupportedMedia: "unsupported-media-type", exchange.Internal: "api-error", exchange.InFlight: "api-error",
	}
	for at, fail := range failings(f) {
		for _, kind := range exchange.Kinds() {
			var out exchange.Response
			fail(kind, exchange.Place{}, &out)
			var said problemOf
			if err := json.Unmarshal(out.Body, &said); err != nil || said.Title == "" || said.Detail == "" || said.Status != out.Status ||
				!strings.HasPrefix(said.Type, "https://docs.payroc.com/api/errors#") || out.ContentType != "application/problem+json" {
				t.Errorf("%s, %s: %d %s", at, kind, out.Status, out.Body)
			}
			own := strings.Contains(at, "/merchant/") && kind == exchange.Unauthorized || strings.HasSuffix(at, "hosted-fields-sessions") && kind == exchange.NotFound
			if want := fragments[kind]; want != "" && !own && !strings.HasSuffix(said.Type, "#"+want) {
				t.Errorf("%s, %s: %s", at, kind, said.Type)
			}
			if (out.Status == 403 || out.Status == 404) != (said.Resource != "") || out.Status == 400 != (len(said.Errors) > 0) {
				t.Errorf("%s, %s: %d %s", at, kind, out.Status, out.Body)
			}
			if (kind == exchange.InFlight) != (out.RetryAfter == 1) { // others are the gateway's to tell
				t.Errorf("%s, %s: again after %d", at, kind, out.RetryAfter)
			}
		}
	}
}

// TestPayrocPlacesOfTheirOwn: two places of a request have another problem than a bad request.
func TestPayrocPlacesOfTheirOwn(t *testing.T) {
	s := newServer(payrocFace(t))
	for raw, want := range map[string]problemOf{
		begin("", bodySession):                                                 {Type: "idempotency-key-missing", Title: "Idempotency key missing", Status: 400},
		begin(withKeyHeader+"Accept: text/html\n", bodySession):                {Type: "not-acceptable", Title: "Not acceptable", Status: 406},
		begin(withKeyHeader, strings.Replace(bodySession, libVersion, "1", 1)): {Type: "bad-request", Title: "Bad request", Status: 400},
	} {
		e, c, err := s.parse(t, raw)
		if err != nil || c.Late == nil {
			t.Fatal(err)
		}
		var out exchange.Response
		e.Fail(c.Late.Kind, c.Late.At, &out)
		var got problemOf
		if err := json.Unmarshal(out.Body, &got); err != nil || strings.TrimPrefix(got.Type, "https://docs.payroc.com/api/errors#") != want.Type || got.Title != want.Title ||
			got.Status != want.Status || out.Status != want.Status {
			t.Errorf("%d %s\nwant %+v", out.Status, out.Body, want)
		}
		if want.Type == "bad-request" && !strings.Contains(got.Errors[0].Message, "Invalid libVersion") { // clients look for these words
			t.Errorf("%s", out.Body)
		}
	}
}

// TestPayrocPagesReadOneRefusal: whatever is wrong with a session, pages read one answer, and never a 401, which would end them.
// Where sessions begin, a terminal that is not there is one that may not be used.
func TestPayrocPagesReadOneRefusal(t *testing.T) {
	f := payrocFace(t)
	pages := 0
	for _, e := range f.Endpoints() {
		if !strings.HasPrefix(e.Pattern, "/merchant/") {
			continue
		}
		pages++
		for _, kind := range exchange.Kinds() {
			var out, other exchange.Response
			e.Fail(kind, exchange.Place{}, &out)
			f.Fail(kind, exchange.Place{}, &other)
			if out.Status == 401 || other.Status != 401 && out.Status != other.Status {
				t.Errorf("%s, %s: %d %s", e.Pattern, kind, out.Status, out.Body)
			}
			var said problemOf
			if err := json.Unmarshal(out.Body, &said); err != nil {
				t.Fatal(err)
			}
			if other.Status == 401 && (out.Status != 400 || said.Title != "Bad request" || said.Errors[0].Message != "'hostedFieldsSessionId' supplied is invalid") {
				t.Errorf("%s, %s: %d %s", e.Pattern, kind, out.Status, out.Body)
			}
		}
	}
	if pages != 4 {
		t.Errorf("%d pages", pages)
	}
	e := endpoint(t, f, "POST", sessionsPattern)
	var none, forbidden exchange.Response
	e.Fail(exchange.NotFound, exchange.Place{In: "path", Name: "terminal"}, &none)
	e.Fail(exchange.Forbidden, exchange.Place{}, &forbidden)
	if none.Status != 403 || !bytes.Equal(none.Body, forbidden.Body) || !bytes.Contains(none.Body, []byte(`"resource":"processing-terminals"`)) {
		t.Errorf("%d %s", none.Status, none.Body)
	}
}

// TestPayrocOffersWhatItCan: hosted fields where the route has them, nothing that it does not serve; what changes something is
// done once under its key, and pages of the route's origins call what is theirs.
func TestPayrocOffersWhatItCan(t *testing.T) {
	only := func(ops ...policy.Operation) func(policy.Operation) bool {
		return func(op policy.Operation) bool { return slices.Contains(ops, op) }
	}
	const (
		authorizes = "POST /authorize, "
		begins     = "POST " + sessionsPattern + " once 201, POST /processing-terminals/{processingTerminalId}/hosted-fields-sessions once 201, "
		reads      = "GET /merchant/hosted-fields static, GET " + pagePattern + "/configuration pages, "
		submits    = "POST " + pagePattern + "/fields pages once, "
		mints      = "POST " + pagePattern + "/single-use-tokens pages once, "
	)
	for _, test := range []struct {
		name   string
		config face.Config
		want   string
	}{
		{"all", face.Config{HostedFields: hostedFields(), Clear: true}, authorizes + begins + reads + submits + mints},
		{"no hosted fields", face.Config{Clear: true}, authorizes},
		{"bearers alone", face.Config{HostedFields: hostedFields(), Clear: true, Serves: only(policy.SessionMint)}, authorizes},
		{"sessions alone", face.Config{HostedFields: hostedFields(), Clear: true, Serves: only(policy.FieldsMint)}, begins},
		{"pages alone", face.Config{HostedFields: hostedFields(), Clear: true, Serves: only(policy.FieldsRead, policy.FieldSubmit)}, reads + submits},
		{"tokens alone", face.Config{HostedFields: hostedFields(), Clear: true, Serves: only(policy.TokenMint)}, mints},
		{"forwards", face.Config{Forward: []exchange.ForwardCall{carry("GET", "/v1/x", exchange.WithoutMask, account, nil)}}, authorizes + "GET /v1/x, "},
		{"payments", everythingOf("payroc"), authorizes + begins + reads + submits + mints +
			"POST /v1/payments once, GET /v1/payments/{paymentId}, PATCH /v1/payments/{paymentId} once, POST /v1/deep once, DELETE /v1/payments/{paymentId}, "},
	} {
		var got strings.Builder
		for _, e := range newFace(t, "payroc", test.config).Endpoints() {
			got.WriteString(e.Method + " " + e.Pattern)
			if e.Static != nil {
				got.WriteString(" static")
			}
			if e.CORS != nil {
				got.WriteString(" pages")
				if e.CORS.AnyOrigin || e.CORS.Credentials || !slices.Equal(e.CORS.Headers, []string{"Idempotency-Key", "Content-Type"}) {
					t.Errorf("%s: %+v", e.Pattern, e.CORS)
				}
			}
			if e.Idempotency != nil {
				got.WriteString(" once")
				want := face.Idempotency{Keep: 24 * time.Hour, Tombstone: 7 * 24 * time.Hour}
				if strings.HasPrefix(e.Pattern, "/merchant/") { // a page's keys end with its session
					want = face.Idempotency{Keep: 10 * time.Minute}
				}
				if *e.Idempotency != want {
					t.Errorf("%s: %+v", e.Pattern, e.Idempotency)
				}
			}
			if e.Status != 0 {
				fmt.Fprintf(&got, " %d", e.Status)
			}
			if own := e.Operations[0] != policy.Forward; own && ((e.MaxBody > 0) != (e.Method == "POST") || (e.Shape != nil) != strings.HasSuffix(e.Pattern, "/fields")) || e.Certificate {
				t.Errorf("%s: a body of %d", e.Pattern, e.MaxBody)
			}
			got.WriteString(", ")
		}
		if got.String() != test.want {
			t.Errorf("%s: %s\nwant %s", test.name, got.String(), test.want)
		}
	}
	kind, err := face.Lookup("payroc")
	check(err)
	if !kind.Forwards || kind.ClientLeg != vault.FormatClear || kind.SessionFormat != vault.FormatClear || kind.Takes(policy.KindToken) {
		t.Errorf("%+v", kind)
	}
	for _, credential := range []policy.Kind{policy.KindAPIKey, policy.KindJWT, policy.KindFields, policy.KindCardToken} {
		if !kind.Takes(credential) {
			t.Errorf("no %s", credential)
		}
	}
}

// TestPayrocRefusesAtLoad: what could not be, or would be otherwise than its operator thinks.
func TestPayrocRefusesAtLoad(t *testing.T) {
	kind, err := face.Lookup("payroc")
	check(err)
	with := func(change func(*face.Config)) face.Config {
		c := everythingOf("payroc")
		change(&c)
		return c
	}
	forward := func(call exchange.ForwardCall) face.Config {
		return with(func(c *face.Config) { c.Forward = []exchange.ForwardCall{call} })
	}
	paid := func(change func(*exchange.ForwardCall)) face.Config {
		call := pays("POST", "/x", "/paymentMethod")
		change(&call)
		return forward(call)
	}
	for name, test := range map[string]struct {
		config face.Config
		want   string
	}{
		"fine":               {everythingOf("payroc"), ""},
		"nothing":            {face.Config{}, ""},
		"not in clear":       {with(func(c *face.Config) { c.Clear = false }), "client_leg: clear"},
		"no library":         {with(func(c *face.Config) { c.HostedFields.Libraries = nil }), "library"},
		"an empty library":   {with(func(c *face.Config) { c.HostedFields.Libraries = []string{libVersion, ""} }), "library"},
		"no word of the CVV": {with(func(c *face.Config) { c.HostedFields.CVV = "" }), "security code"},
		"another word of it": {with(func(c *face.Config) { c.HostedFields.CVV = "optional" }), "security code"},
		"no page":            {with(func(c *face.Config) { c.HostedFields.Page = nil }), "no page"},

		"our own call":               {forward(carry("POST", "/authorize", exchange.WithoutMask, nil, nil)), "has this call itself"},
		"another method of our path": {forward(carry("GET", "/authorize", exchange.WithoutMask, nil, nil)), ""},
		"refused without a session":  {forward(carry("GET", "/x", exchange.WithoutRefuse, account, nil)), "session_key"},
		"submitted":                  {forward(carry("POST", "/x", exchange.WithoutMask, nil, cardData)), "session_key"},
		"paid":                       {paid(func(*exchange.ForwardCall) {}), ""},
		"paid, masked": {paid(func(c *exchange.ForwardCall) {
			c.Fields, c.Response = account, shape(vault.ShapeConfig{Clear: account})
		}), ""},
		"paid, fields in clear":         {paid(func(c *exchange.ForwardCall) { c.Fields, c.Without = account, exchange.WithoutClear }), "leave in clear"},
		"paid, without a body":          {paid(func(c *exchange.ForwardCall) { c.Request = nil }), "shape"},
		"paid, where nothing is held":   {with(func(c *face.Config) { c.HostedFields = nil }), "holds none"},
		"in clear, and paid with other": {forward(carry("GET", "/x", exchange.WithoutClear, account, nil)), ""},
	} {
		f, err := kind.New(test.config)
		if (err == nil) != (test.want == "") || (f == nil) != (err != nil) || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	other, err := face.Lookup("paymentsgate")
	check(err)
	if _, err := other.New(face.Config{PublicKey: readPublicKey, Forward: []exchange.ForwardCall{pays("POST", "/x", "/a")}}); err == nil || !strings.Contains(err.Error(), "holds none") {
		t.Error(err)
	}
}

// TestPayrocPage: the page is asked with the query, and what it will not show is a problem that quotes nothing.
func TestPayrocPage(t *testing.T) {
	c := everythingOf("payroc")
	var place *exchange.Failure
	page := c.HostedFields.Page
	c.HostedFields.Page = func(query url.Values, out *exchange.Response) error {
		if place != nil {
			out.Body, out.Header = append(out.Body, "half a page"...), []exchange.HeaderField{{Name: "Content-Security-Policy", Value: "x"}}
			return place
		}
		return page(query, out)
	}
	e := endpoint(t, newFace(t, "payroc", c), "GET", "/merchant/hosted-fields")
	ask := func(query string) *exchange.Response {
		out := &exchange.Response{Status: 200, Body: append(make([]byte, 0, 64), "left over"...)}
		e.Static(&exchange.Request{RawQuery: query}, out)
		return out
	}
	if out := ask("field=cvv&locale=%C3%A9"); out.Status != 200 || string(out.Body) != "field=cvv&locale=%C3%A9" || !strings.HasPrefix(out.ContentType, "text/html") {
		t.Errorf("%+v", out)
	}
	for query, parameter := range map[string]string{"hostedFieldsSessionId=" + fieldsToken: "field", "hostedFieldsSessionId=" + fieldsToken + "&a=%zz": "query", "field=cvv;b": "query"} {
		out := ask(query)
		var said problemOf
		if err := json.Unmarshal(out.Body, &said); err != nil || out.Status != 400 || said.Errors[0].Parameter != parameter || strings.Contains(string(out.Body), fieldsToken) {
			t.Errorf("%s: %d %s", query, out.Status, out.Body)
		}
	}
	place = exchange.Wrong("query", "targetOrigin", "target_origin")
	if out := ask("field=cvv"); out.Status != 400 || !strings.Contains(string(out.Body), `"parameter":"targetOrigin"`) || len(out.Header) != 0 || out.ContentType != "application/problem+json" {
		t.Errorf("%+v", out)
	}
}

// TestPayrocTakesJSON: RFC 9110, section 12.5.1.
func TestPayrocTakesJSON(t *testing.T) {
	s := newServer(payrocFace(t))
	for accept, ok := range map[string]bool{
		"": true, " ": true, "*/*": true, "application/json": true, "Application/JSON; charset=utf-8": true, "application/*;q=0.1": true,
		"text/html, */*;q=0.1": true, "text/html": false, "json": false, "application/xml": false, "application/problem+json": false,
		"*/*;q=0": false, "application/json;q=0, */*": false, "*/*, application/json; q=0.000": false, "*/*;q=0, application/json": true,
		"application/json;q=0, application/json;v=1": true, "application/json;q=x": true, "*": false, "application/*;q=0, */*": false,
	} {
		_, c, err := s.parse(t, begin(withKeyHeader+"Accept: "+accept+"\n", bodySession))
		if err != nil || (c.Late == nil) != ok {
			t.Errorf("%q: %v, %v", accept, err, c.Late)
		}
	}
	if _, c, err := s.parse(t, begin(withKeyHeader+"Accept: text/html\nAccept: application/json\n", bodySession)); err != nil || c.Late != nil {
		t.Errorf("on two lines: %v, %v", err, c.Late)
	}
}

// TestPayrocExpiry: a card is good to the end of its month, wherever that ends last, and for ever where the route takes expired ones.
func TestPayrocExpiry(t *testing.T) {
	c := everythingOf("payroc")
	strict := endpoint(t, newFace(t, "payroc", c), "POST", pagePattern+"/fields")
	c.HostedFields = hostedFields()
	c.HostedFields.Expired = true
	lenient := endpoint(t, newFace(t, "payroc", c), "POST", pagePattern+"/fields")
	for _, test := range []struct {
		at, text      string
		good, lenient bool
	}{
		{"2026-11-25T12:00:00Z", "1126", true, true},
		{"2026-11-30T23:59:59Z", "1126", true, true},
		{"2026-12-01T11:59:59Z", "1126", true, true},
		{"2026-12-01T12:00:00Z", "1126", false, true},
		{"2026-12-01T13:00:00+02:00", "1126", true, true},
		{"2026-12-31T12:00:00Z", "0127", true, true},
		{"2027-01-02T12:00:00Z", "1226", false, true},
		{"2026-11-25T12:00:00Z", "1225", false, true},
		{"2026-11-25T12:00:00Z", "1299", true, true},
		{"2026-11-25T12:00:00Z", "0027", false, false},
		{"2026-11-25T12:00:00Z", "1327", false, false},
		{"2026-11-25T12:00:00Z", "2711", false, false},
		{"2026-11-25T12:00:00Z", "112", false, false},
	} {
		at, err := time.Parse(time.RFC3339, test.at)
		check(err)
		for e, want := range map[*face.Endpoint]bool{&strict: test.good, &lenient: test.lenient} {
			body, err := vault.NewBody([]byte(`{"type":"expiryDate","expiryDate":"`+test.text+`"}`), e.Shape)
			check(err)
			call, err := e.Parse(&exchange.Request{
				Header: http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {idempotencyKey}}, Clear: body, Received: at, Param: func(string) string { return "t" },
			})
			if err != nil || (call.Late == nil) != want || call.Late != nil && call.Late.At.Name != "expiryDate" {
				t.Errorf("%s at %s: %v, %v", test.text, test.at, err, call.Late)
			}
			body.Close()
		}
	}
}

// FuzzPayrocField: a body that is accepted is one field to another reader too, and what is submitted is what it says there; an
// error quotes nothing of it.
func FuzzPayrocField(f *testing.F) {
	for _, r := range payrocRequests {
		if head, body, ok := strings.Cut(r.raw, "\n\n"); ok && strings.Contains(head, "/fields ") {
			f.Add([]byte(body), idempotencyKey)
		}
	}
	f.Add([]byte(`{"type":"cvv","CVV":"1","cvv":"123"}`), strings.ToUpper(idempotencyKey))
	f.Add([]byte(`{"type":"cardNumber","cardNumber":"5500 0000"}`), "")
	e := endpoint(f, payrocFace(f), http.MethodPost, pagePattern+"/fields")
	known := []string{"cardNumber", "cvv", "expiryDate", "cardholderName"}
	v4 := regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$`)
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte, key string) {
		clear, err := vault.NewBody(bytes.Clone(body), e.Shape)
		if err != nil {
			return // refused before it is parsed
		}
		defer clear.Close()
		header := http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {key}}
		c, err := e.Parse(&exchange.Request{Header: header, Clear: clear, Received: at, Param: func(string) string { return fieldsToken }})
		if err != nil || len(c.Credentials) != 1 || c.Credentials[0].Kind != policy.KindFields || c.Credentials[0].Value() != fieldsToken {
			t.Fatalf("%v, %+v", err, c)
		}
		if c.Late != nil {
			failed(t, c.Late, string(body), key, fieldsToken)
			return
		}
		if !v4.MatchString(key) || c.IdempotencyKey != strings.ToLower(key) {
			t.Fatalf("key %q is taken for %q", key, c.IdempotencyKey)
		}
		var other map[string]json.RawMessage // encoding/json takes any case, a map does not
		if err := json.Unmarshal(body, &other); err != nil {
			t.Fatalf("%q is accepted: %v", body, err)
		}
		text := func(name string) (s string) {
			if other[name] == nil || json.Unmarshal(other[name], &s) != nil {
				t.Fatalf("%q is accepted", body)
			}
			return s
		}
		name := text("type")
		for _, n := range known {
			if (other[n] != nil) != (n == name) {
				t.Fatalf("%q is accepted as %s", body, name)
			}
		}
		want := map[string]exchange.Submission{
			"cardNumber": {Field: vault.FieldPAN, Member: "/cardNumber"}, "cvv": {Field: vault.FieldCVC, Member: "/cvv"},
			"expiryDate": {Detail: vault.DetailExpiry, Text: text(name)}, "cardholderName": {Detail: vault.DetailName, Text: text(name)},
		}
		if c.Submit != want[name] || c.Submit == (exchange.Submission{}) {
			t.Fatalf("%q submits %+v", body, c.Submit)
		}
		if name == "cardNumber" && (!vault.HoldsPANString(text(name)) && len(text(name)) > 12 || strings.Trim(text(name), "0123456789") != "") {
			t.Fatalf("%q is a card number", body)
		}
		if strings.Contains(fmt.Sprintf("%+v", c), testPAN) {
			t.Fatal("a card number stands in the call")
		}
	})
}

// FuzzPayrocSession: a body that is accepted says to another reader what it says to us, and written anew it is the same call.
func FuzzPayrocSession(f *testing.F) {
	for _, r := range payrocRequests {
		if head, body, ok := strings.Cut(r.raw, "\n\n"); ok && strings.Contains(head, "hosted-fields-sessions HTTP") {
			f.Add([]byte(body), terminal)
		}
	}
	f.Add([]byte(`{"libVersion":"1.0","LIBVERSION":"`+libVersion+`","scenario":"payment"}`), "")
	parse := endpoint(f, payrocFace(f), http.MethodPost, sessionsPattern).Parse
	header := http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + token}, "Idempotency-Key": {idempotencyKey}}
	f.Fuzz(func(t *testing.T, body []byte, terminal string) {
		param := func(string) string { return terminal }
		c, err := parse(&exchange.Request{Header: header, Body: body, Param: param})
		if err != nil {
			t.Fatal(err)
		}
		if c.Late != nil {
			failed(t, c.Late, string(body), token)
			return
		}
		var other map[string]string
		if err := json.Unmarshal(body, &other); err != nil {
			t.Fatalf("%q is accepted: %v", body, err)
		}
		secure, has := other["secureTokenId"]
		if want := map[bool]int{true: 3, false: 2}[has]; len(other) != want || other["libVersion"] != c.Fields.Library || other["scenario"] != c.Fields.Scenario ||
			secure != c.Fields.SecureToken || has != (secure != "") || c.Fields.Terminal != terminal || c.Fields.TTL != 10*time.Minute || c.Scope != "hosted-fields" {
			t.Fatalf("%q is for %+v", body, c.Fields)
		}
		again, err := json.Marshal(other)
		check(err)
		second, err := parse(&exchange.Request{Header: header, Body: again, Param: param})
		if err != nil {
			t.Fatal(err)
		}
		same(t, c, second)
	})
}
