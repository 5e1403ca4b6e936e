package face_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// paysAt is a call that may name a held card and names a terminal, made as main makes it.
func paysAt(submit map[string]vault.Field) exchange.ForwardCall {
	call := pays("POST", "/v1/payments", "/paymentMethod")
	call.Terminal, call.Submit = "/processingTerminalId", submit
	call.Request = shape(vault.ShapeConfig{Exact: true, Sealed: submit, Tokens: []string{call.Token}, Public: []string{call.Terminal}})
	return call
}

func paysServer(t *testing.T, calls ...exchange.ForwardCall) *server {
	t.Helper()
	c := everythingOf("payroc")
	c.Forward = calls
	return newServer(newFace(t, "payroc", c))
}

const paidAt = `{"processingTerminalId":"` + terminal + `","paymentMethod":{"type":"singleUseToken","token":"` + token + `"}}`

// refusedLate is the reason for which a call is refused once its caller is proven, "" where it is not. It shows what proves the
// caller, and nothing that would be used up for nothing.
func refusedLate(t *testing.T, s *server, raw string) string {
	t.Helper()
	_, c, err := s.parse(t, raw)
	if err != nil {
		failure, _ := errors.AsType[*exchange.Failure](err)
		if failure == nil || c != nil {
			t.Fatalf("%v, %v", c, err)
		}
		return failure.Reason
	}
	if c.Late == nil {
		return ""
	}
	if c.Late.Kind != exchange.BadRequest || kindsOf(c) != string(policy.KindJWT) || c.Forward.Paid {
		t.Errorf("refused as %s, showing %s", c.Late.Kind, kindsOf(c))
	}
	if strings.Contains(c.Late.Error(), "4111") {
		t.Errorf("the refusal quotes: %v", c.Late)
	}
	return c.Late.Reason
}

// TestPaymentsHaveNoQuery: where a call's terminal is read in its body, nothing stands beside it that a receiver might mix with it.
func TestPaymentsHaveNoQuery(t *testing.T) {
	lax := pays("POST", "/v1/lax", "/paymentMethod")
	s := paysServer(t, paysAt(nil), lax)
	to := func(target string) string { return post(target, bearer+withKeyHeader, paidAt) }
	for _, query := range []string{
		"processingTerminalId=9999001", "processingTerminalId=" + terminal, "a=b", "a", "=", "%70rocessingTerminalId=9", "&", strings.Repeat("a", 4096),
	} {
		if got := refusedLate(t, s, to("/v1/payments?"+query)); got != "query" {
			t.Errorf("%.40s: %q", query, got)
		}
		if got := refusedLate(t, s, to("/v1/lax?"+query)); got != "" {
			t.Errorf("%.40s, where no terminal is read: %q", query, got)
		}
	}
	for _, target := range []string{"/v1/payments", "/v1/payments?"} {
		if got := refusedLate(t, s, to(target)); got != "" {
			t.Errorf("%s: %q", target, got)
		}
	}
	if got := refusedLate(t, s, to("/v1/lax?a=%zz")); got != "query" {
		t.Errorf("a query that is none: %q", got)
	}
}

// TestPaymentsHoldNoNumber: a call that may name a held card names no card in another way, token or not: what the token is there for
// would be undone by who puts the number beside it.
func TestPaymentsHoldNoNumber(t *testing.T) {
	plain := carry("POST", "/v1/notes", exchange.WithoutMask, nil, nil)
	s := paysServer(t, paysAt(nil), plain)
	for name, member := range map[string]string{
		"a text": `"note":"` + testPAN + `"`, "in groups": `"note":"4111 1111 1111 1111"`, "with hyphens": `"note":"4111-1111-1111-1111"`, "escaped": `"note":"\u0034111111111111111"`,
		"a number": `"note":` + testPAN, "a name": `"` + testPAN + `":1`, "deep": `"customFields":[{"name":"a","value":"` + testPAN + `"}]`,
		"another member of the kind": `"card":{"cardNumber":"` + testPAN + `"}`, "for a terminal": `"processingTerminal":"` + testPAN + `"`,
	} {
		for body, want := range map[string]string{
			`{` + member + `,` + paidAt[1:]:               "card_number_in_clear",
			paidAt[:len(paidAt)-1] + `,` + member + `}`:   "card_number_in_clear",
			`{"processingTerminalId":"1",` + member + `}`: "card_number_in_clear", // without a token
		} {
			if got := refusedLate(t, s, pay(body)); got != want {
				t.Errorf("%s: %s: %q", name, body, got)
			}
			// What becomes of it at a call that can have no token is its own matter: the guard's, and the issuer's.
			if got := refusedLate(t, s, post("/v1/notes", bearer+withKeyHeader, body)); got != "" {
				t.Errorf("%s: at another call: %q", name, got)
			}
		}
	}
	for name, body := range map[string]string{
		"a token": paidAt, "no token": `{"processingTerminalId":"1"}`, "no valid check digit": `{"note":"4111111111111112",` + paidAt[1:], "an order": `{"order":{"amount":499900,"id":"2026-11-25-001"},` + paidAt[1:],
	} {
		if got := refusedLate(t, s, pay(body)); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	_, c, err := s.parse(t, pay(paidAt))
	if err != nil || !c.Forward.Paid || kindsOf(c) != "jwt, card_token" {
		t.Errorf("the good one: %v, %v", kindsOf(c), err)
	}
}

// TestPagesSubmitUnderOneName: what a page submits has one spelling, at whatever place, escaped or not: what another reader took for
// the declared one stands nowhere beside it.
func TestPagesSubmitUnderOneName(t *testing.T) {
	s := newServer(payrocFace(t))
	refused := func(body string) bool {
		e, c, err := s.parse(t, submit(body))
		if err != nil && (c != nil || e == nil || !strings.Contains(err.Error(), "read in the vault") || strings.Contains(err.Error(), "4111")) {
			t.Errorf("%s: %v", body, err)
		}
		return err != nil
	}
	for _, name := range []string{"CardNumber", "cardnumber", "CVV", "Cvv", "ExpiryDate", "cardHolderName", "Type", `\u0043ardNumber`, `cardn\u0075mber`, `TYPE`, `cardholder\u006eame`} {
		for _, value := range []string{`"` + testPAN + `"`, "1", "null", "{}"} {
			for _, body := range []string{
				fmt.Sprintf(`{"type":"cardNumber","cardNumber":%q,"%s":%s}`, testPAN, name, value), fmt.Sprintf(`{"%s":%s,"type":"cardNumber","cardNumber":%q}`, name, value, testPAN),
				fmt.Sprintf(`{"%s":%s}`, name, value),
			} {
				if !refused(body) {
					t.Errorf("%s is taken", body)
				}
			}
		}
	}
	// Members that are none of ours are passed over, as ever.
	for _, body := range []string{
		bodyNumber, `{"cardNumber":"` + testPAN + `","type":"cardNumber","card_number":"x","CardNumbers":1,"pin":"1"}`, `{"x":{"CardNumber":1,"TYPE":2},` + bodyNumber[1:],
		`{"card\u004eumber":"` + testPAN + `","t\u0079pe":"cardNumber"}`,
	} {
		if refused(body) {
			t.Errorf("%s is refused", body)
		}
	}
}

// TestKeyScopes: every call that a partner's key of whatever face is good for says which scope the key needs, if it has any.
func TestKeyScopes(t *testing.T) {
	for name, test := range map[string]struct {
		face, raw, scope string
	}{
		"bridge: profile":  {"bridge", get(bridgePath, "Api-Key: "+partnerKey+"\n"), "card-accounts"},
		"bridge: mint":     {"bridge", mintKey("", nonceOf(clientNonce)), "card-accounts"},
		"bridge: freeze":   {"bridge", freeze(`{"initiator":"customer"}`), "card-accounts"},
		"bridge: unfreeze": {"bridge", strings.Replace(freeze(`{"initiator":"customer"}`), "/freeze", "/unfreeze", 1), "card-accounts"},
		"payroc: session":  {"payroc", begin(withKeyHeader, bodySession), "hosted-fields"},
		"payroc: payment":  {"payroc", pay(paidWith), "payments"},
		"payroc: look-up":  {"payroc", get("/v1/payments/1", bearer), "payments"},
	} {
		_, c, err := newServer(newFace(t, test.face, everythingOf(test.face))).parse(t, test.raw)
		if err != nil || c == nil || c.Late != nil {
			t.Errorf("%s: %+v, %v", name, c, err)
			continue
		}
		if c.Scope != test.scope {
			t.Errorf("%s: scope %q, want %q", name, c.Scope, test.scope)
		}
	}
}
