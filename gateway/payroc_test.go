package gateway_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/elements"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/keys"
)

// This file has who calls face payroc: a partner's backend, and the page of a shop whose fields we serve.

const (
	terminal      = "1234001" // of gp-demo, as is 1234002
	otherTerminal = "9999001" // of gp-other
	holderName    = "Zoë O'Hara"
)

// payrocRoute is face payroc with all that it can have.
func (h *house) payrocRoute(is *gateway.Issuer) gateway.Route { return h.payrocRouteAs(is, "payroc") }

func (h *house) payrocRouteAs(is *gateway.Issuer, name string) gateway.Route {
	r := gateway.Route{
		Listener: "public", Environment: "test", Issuer: is, ClientKeys: vault.InsecureClearClient(), Origins: []string{origin}, Hosted: h.hosted(),
	}
	fields, err := elements.NewFields(elements.Fields{Origins: []string{origin}})
	must(err)
	pay := exchange.ForwardCall{
		Name: "POST /v1/payments", Method: "POST", Pattern: "/v1/payments", Changes: true, Without: exchange.WithoutMask, Token: "/paymentMethod",
		Terminal: "/processingTerminalId",
	}
	pay.Request, err = vault.NewShape(vault.ShapeConfig{Tokens: []string{pay.Token}, Public: []string{pay.Terminal}})
	must(err)
	pay.Response, err = vault.NewShape(vault.ShapeConfig{})
	must(err)
	speak(&r, "payroc", face.Config{
		Clear: true, Forward: []exchange.ForwardCall{pay, forwardOf("GET", "/v1/payments/{id}", exchange.WithoutMask, nil, nil)},
		HostedFields: &face.HostedFields{Libraries: []string{"1.7.0"}, CVV: "mandatory", Name: true, Page: func(q url.Values, out *exchange.Response) error {
			page, err := fields.Page(q)
			if err == nil {
				writePage(&page, out)
			}
			return err
		}},
	})
	r.Name, r.Files = name, assets()
	return r
}

// hosted is what main makes for such a route.
func (h *house) hosted() *gateway.Hosted {
	now := func() time.Time { return time.Now().Add(time.Duration(h.skew.Load())) }
	made := &gateway.Hosted{
		CVV: true, Name: true, Terminals: map[string][]string{partnerID: {terminal, "1234002"}, "gp-other": {otherTerminal}},
	}
	var err error
	made.Bearers, err = credential.NewBearers(credential.BearersConfig{
		Issuer: "cardstile", Audience: "payroc", Environment: "test", Keys: jwts(keys.ES256), APIKeys: h.loadKeys(), Now: now,
	})
	must(err)
	made.Sessions, err = credential.NewFieldsSessions(credential.FieldsSessionsConfig{
		Records: h.services.Store, Calls: h.services.Store, Digests: ring("fields"), Seeds: ring("fields seed"), Seals: seals("fields"), Now: now,
	})
	must(err)
	made.Cards, err = credential.NewTokens(credential.TokensConfig{
		Kind: policy.KindCardToken, Store: h.services.Store, Digests: ring("card token"), Seeds: ring("card token seed"), Grants: seals("card grant"), Partners: []string{partnerID, "gp-other"},
	})
	must(err)
	made.Holder, err = h.services.Vault.NewHolder(shared().symmetry[keys.UseStorage])
	must(err)
	return made
}

// uuid draws an idempotency key as Payroc wants it.
func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func authorizeCall(key string) call {
	return call{listener: "public", method: "POST", path: "/authorize", header: []string{"X-Api-Key", key}}
}

// bearer trades an API key for a Bearer.
func (h *house) bearer(keyName string) string {
	h.t.Helper()
	r := h.anybody().do(authorizeCall(h.apiKeys[keyName]))
	var v struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(r.body), &v); r.status != http.StatusOK || err != nil || strings.Count(v.Token, ".") != 2 {
		h.t.Fatalf("no Bearer: %d %s", r.status, r.body)
	}
	return h.secret(v.Token)
}

// sessionCall begins a session of hosted fields, under a key of its own.
func sessionCall(bearer, terminal string) call {
	return call{
		listener: "public", method: "POST", path: "/v1/processing-terminals/" + terminal + "/hosted-fields-sessions", body: `{"libVersion":"1.7.0","scenario":"payment"}`,
		header: []string{"Authorization", "Bearer " + bearer, "Content-Type", "application/json", "Idempotency-Key", uuid()},
	}
}

// tokenOf is the token in an answer.
func (h *house) tokenOf(r reply) string {
	h.t.Helper()
	var v struct {
		Token   string
		Expires time.Time `json:"expiresAt"`
	}
	if err := json.Unmarshal([]byte(r.body), &v); r.status/100 != 2 || err != nil || v.Token == "" || v.Expires.IsZero() {
		h.t.Fatalf("no token: %d %s", r.status, r.body)
	}
	return h.secret(v.Token)
}

// fieldsPage is a shop's page, by its session.
type fieldsPage struct {
	h     *house
	token string
}

func (h *house) page() fieldsPage { h.t.Helper(); return h.pageOf("first", terminal) }

func (h *house) pageOf(keyName, terminal string) fieldsPage {
	h.t.Helper()
	return fieldsPage{h, h.tokenOf(h.anybody().do(sessionCall(h.bearer(keyName), terminal)))}
}

// call is one of the page's, under a key of its own.
func (p fieldsPage) call(method, tail, body string) call {
	x := call{
		listener: "public", method: method, path: "/merchant/api/v2/hosted-fields-sessions/" + p.token + tail, body: body,
		header: []string{"Idempotency-Key", uuid()},
	}
	if body != "" {
		x = x.with("Content-Type", "application/json")
	}
	return x
}

func (p fieldsPage) configuration() call { return p.call("GET", "/configuration", "") }
func (p fieldsPage) mint() call          { return p.call("POST", "/single-use-tokens", "") }

func (p fieldsPage) submit(name, value string) call {
	return p.call("POST", "/fields", fmt.Sprintf(`{"type":%q,%q:%q}`, name, name, value))
}

// fields are the submissions of the card that is held, in the order of a form.
func (p fieldsPage) fields() []call {
	card := p.h.cards["held"]
	return []call{
		p.submit("cardholderName", holderName), p.submit("cardNumber", card.PAN), p.submit("cvv", card.CVC), p.submit("expiryDate", "1230"),
	}
}

func (p fieldsPage) fill() fieldsPage {
	p.h.t.Helper()
	for _, x := range p.fields() {
		if r := p.h.anybody().do(x); r.status != http.StatusOK {
			p.h.t.Fatalf("submit: %d %s", r.status, r.body)
		}
	}
	return p
}

// held is a token that stands for the card.
func (h *house) held() string {
	h.t.Helper()
	return h.tokenOf(h.anybody().do(h.page().fill().mint()))
}

// payCall pays with a token, under a key of its own.
func payCall(bearer, token string) call {
	return call{
		listener: "public", method: "POST", path: "/v1/payments",
		body:   fmt.Sprintf(`{"processingTerminalId":%q,"order":{"amount":4999.00},"paymentMethod":{"type":"singleUseToken","token":%q}}`, terminal, token),
		header: []string{"Authorization", "Bearer " + bearer, "Content-Type", "application/json", "Idempotency-Key", uuid()},
	}
}

// took reports what is not as it must be with the last payment, of so many.
func (h *house) took(payments int) error {
	taken := h.payroc.Payments()
	if len(taken) != payments {
		return fmt.Errorf("%d payments were taken, want %d", len(taken), payments)
	}
	last, card := taken[payments-1], h.cards["held"]
	last.ID, last.CardNumber = "", ""
	if last != (sandbox.Payment{
		Terminal: terminal, NumberSHA256: sha256.Sum256([]byte(card.PAN)), CodeSHA256: sha256.Sum256([]byte(card.CVC)), ExpiryDate: "1230", CardholderName: holderName,
	}) {
		return errors.New("the issuer has another card than the page submitted")
	}
	return nil
}

// payrocPays is the act of face payroc.
func (h *house) payrocPays(back) error {
	if r := h.anybody().do(payCall(h.bearer("first"), h.held())); r.status != http.StatusCreated {
		return fmt.Errorf("pay: %d %s", r.status, r.body)
	}
	return h.took(1)
}

// Payroc's answers, word for word.
func payrocProblem(status int, fragment, title, detail, more string) string {
	return fmt.Sprintf(`{"type":"https://docs.payroc.com/api/errors#%s","title":%q,"status":%d,"detail":%q%s}`, fragment, title, status, detail, more)
}

func payrocBad(parameter, detail, message string) string {
	return payrocProblem(400, "bad-request", "Bad request", "One or more validation errors occurred, see error section for more info",
		fmt.Sprintf(`,"errors":[{"parameter":%q,"detail":%q,"message":%q}]`, parameter, detail, message))
}

func payrocForbidden(resource string) string {
	return payrocProblem(403, "forbidden", "Forbidden", "You do not have permission to perform this action", fmt.Sprintf(`,"resource":%q`, resource))
}

func payrocFailure(status int, detail string) string {
	return payrocProblem(status, "api-error", "Api error", detail, "")
}

var (
	payrocUnauthorized = payrocProblem(401, "not-authorized", "Not authorized", "We can’t verify your identity. This can occur if your Bearer token has expired.", "")
	payrocBadToken     = payrocBad("paymentMethod.token", "Invalid format", "'paymentMethod.token' supplied is invalid")
	payrocBadPage      = payrocBad("hostedFieldsSessionId", "Invalid format", "'hostedFieldsSessionId' supplied is invalid")
	payrocOtherBody    = payrocProblem(409, "idempotency-key-in-use", "Idempotency key in use", "The idempotency key came with another body", "")
)

const (
	payrocApology = "We are unable to process your request at this time"
	payrocOpen    = "It is not known whether the request was carried out"
)

func payrocMissing(name string) string {
	return payrocBad(name, "Required field not populated", "The '"+name+"' field is required")
}

// wants of Payroc's calls.
func pagesDo(rule string) want {
	return want{status: 200, results: []string{"done"}, rule: rule, outcome: "done"}
}

func paid() want {
	return want{status: 201, results: []string{"intent", "done"}, rule: "call,fields", outcome: "done", upstream: 1, redeemed: 1}
}

// notPaid is what comes of a token that pays for nothing.
func notPaid(reason string) want {
	return want{status: 400, body: payrocBadToken, results: []string{"refused card_token_" + reason}, outcome: "bad_request", refused: reason}
}

// badPage is what comes of a session that is none.
func badPage(reason string) want {
	return want{status: 400, body: payrocBadPage, results: []string{"refused fields_" + reason}, outcome: "unauthorized"}
}

// again is what comes of a repetition.
func again(of want) want {
	of.results, of.upstream, of.redeemed = []string{"done replayed"}, 0, 0
	return of
}

// repaid is what comes of a repetition of a payment, whose card is decided about no second time.
func repaid(of want) want {
	of = again(of)
	of.rule = "call"
	return of
}
