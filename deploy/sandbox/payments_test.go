package sandbox_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

const (
	paymentsKey      = "payments-test-key"
	otherPaymentsKey = "payments-other-key"
	payerID          = "00000000-0000-4000-0000-000000000000"
	otherPayerID     = "00000000-0000-4000-0000-000000000001"
)

// payments is a running sandbox of Payments and a caller of it.
type payments struct {
	*sandbox.Payments
	*caller
	card sandbox.Card
}

func paymentsConfig() sandbox.PaymentsConfig {
	return sandbox.PaymentsConfig{
		APIKeys: map[string]string{paymentsKey: payerID, otherPaymentsKey: otherPayerID},
		Cards:   []sandbox.Card{sandbox.RandomCard("payee", "")},
	}
}

func startPayments(t *testing.T) *payments {
	t.Helper()
	c := paymentsConfig()
	p, err := sandbox.NewPayments(c)
	if err != nil {
		t.Fatal(err)
	}
	header := []string{"Authorization", "Bearer " + paymentsKey, "Content-Type", "application/json"}
	return &payments{Payments: p, caller: listen(t, p, nil, header...), card: c.Cards[0]}
}

// failed is an error answer.
func failed(status int, code, message string) string {
	return fmt.Sprintf(`{"error":%q,"message":%q,"statusCode":%d}`, code, message, status)
}

func TestPaymentsCredentials(t *testing.T) {
	p := startPayments(t)
	p.answers("card", 200, `{"type":"card","account_number":"`+p.card.PAN+`","holder":"Ada Lovelace","bank":"Sandbox Bank"}`,
		"GET", "/deals/"+sandbox.DealWithCard(payerID)+"/credentials", "")
	p.answers("bank", 200, `{"type":"bank","account_number":"NL91ABNA0417164300","holder":"Ada Lovelace","bank":"Sandbox Bank"}`,
		"GET", "/deals/"+sandbox.DealWithBank(payerID)+"/credentials", "")
}

func TestPaymentsDeals(t *testing.T) {
	p := startPayments(t)
	var ids []string
	for kind, credentials := range map[string]string{"payin": "card", "payout": "bank", "tlv": "bank"} {
		status, made := p.call("POST", "/deals/"+kind, `{"amount":10.50,"currency":"AZN","recipient":{"type":"card"}}`)
		id, _ := made["id"].(string)
		want := `{"id":"` + id + `","type":"` + kind + `","status":"new","amount":10.50,"currency":"AZN"}`
		if status != 200 || len(id) != 26 {
			t.Errorf("%s: %d %v", kind, status, made)
		}
		p.answers(kind, 200, want, "GET", "/deals/"+id, "")
		if _, out := p.call("GET", "/deals/"+id+"/credentials?", ""); out["type"] != credentials {
			t.Errorf("credentials of a %s: %v", kind, out["type"])
		}
		ids = append(ids, id)
	}
	_, list := p.call("GET", "/deals/list", "")
	items, _ := list["items"].([]any)
	if len(items) != 5 || list["total"] != 5.0 || p.Deals(payerID) != 3 || p.Deals(otherPayerID) != 0 || p.Deals("nobody") != 0 {
		t.Fatalf("list %v, made %d", list, p.Deals(payerID))
	}
	for n, want := range []string{ids[2], ids[1], ids[0], sandbox.DealWithBank(payerID), sandbox.DealWithCard(payerID)} {
		if got := items[n].(map[string]any)["id"]; got != want {
			t.Errorf("deal %d of the list is %v, want %s", n, got, want)
		}
	}
	if p.Count(sandbox.CallPayin) != 1 || p.Count(sandbox.CallDeal) != 3 || p.Count(sandbox.CallCredentials) != 3 || p.Count(sandbox.CallDeals) != 1 {
		t.Error("calls are not told apart")
	}
}

func TestPaymentsListShowsTheLastHundred(t *testing.T) {
	p := startPayments(t)
	for n := range 100 {
		p.call("POST", "/deals/payin", `{"amount":`+strconv.Itoa(n+1)+`}`)
	}
	_, list := p.call("GET", "/deals/list", "")
	items, _ := list["items"].([]any)
	if len(items) != 100 || list["total"] != 102.0 || items[0].(map[string]any)["amount"] != 100.0 || items[99].(map[string]any)["amount"] != 1.0 {
		t.Errorf("%d deals of %v", len(items), list["total"])
	}
}

func TestPaymentsAmountStaysAsItIsWritten(t *testing.T) {
	p := startPayments(t)
	res, err := p.client.Do(p.request("POST", "/deals/payout", `{"amount":10.50}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out map[string]json.RawMessage
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil || string(out["amount"]) != "10.50" || out["currency"] != nil {
		t.Errorf("amount %s, currency %s, %v", out["amount"], out["currency"], err)
	}
}

func TestPaymentsDealOfAnotherAccountIsNotFound(t *testing.T) {
	p := startPayments(t)
	notFound := failed(404, "NOT_FOUND", "Not found")
	for _, id := range []string{sandbox.DealWithCard(otherPayerID), sandbox.DealWithBank(otherPayerID)} {
		p.answers(id, 404, notFound, "GET", "/deals/"+id, "")
		p.answers(id+" credentials", 404, notFound, "GET", "/deals/"+id+"/credentials", "")
	}
	if status, deal := p.call("GET", "/deals/nobodys/credentials", ""); status != 200 || deal["type"] != "card" {
		t.Errorf("a deal that nobody made: %d %v", status, deal)
	}
	_, made := p.call("POST", "/deals/payin", `{"amount":1}`)
	id, _ := made["id"].(string)
	p.answers("made by another", 404, notFound, "GET", "/deals/"+id+"/credentials", "", "Authorization", "Bearer "+otherPaymentsKey)
	if status, _ := p.call("GET", "/deals/"+sandbox.DealWithCard(otherPayerID)+"/credentials", "", "Authorization", "Bearer "+otherPaymentsKey); status != 200 {
		t.Errorf("its own: %d", status)
	}
}

func TestPaymentsIdempotency(t *testing.T) {
	p := startPayments(t)
	body := `{"amount":10}`
	_, first := p.call("POST", "/deals/payin", body, "Idempotency-Key", "k")
	_, again := p.call("POST", "/deals/payin", body, "Idempotency-Key", "k")
	if first["id"] == nil || first["id"] != again["id"] || p.Deals(payerID) != 1 {
		t.Errorf("deals %v and %v, made %d", first["id"], again["id"], p.Deals(payerID))
	}
	inUse := failed(409, "IDEMPOTENCY_KEY_IN_USE", "Idempotency-Key was used for another request, or more than 24 hours ago")
	p.answers("another body", 409, inUse, "POST", "/deals/payin", `{"amount":11}`, "Idempotency-Key", "k")
	p.answers("another call", 409, inUse, "POST", "/deals/payout", body, "Idempotency-Key", "k")
	if p.Deals(payerID) != 1 {
		t.Errorf("a refused request made a deal: %d", p.Deals(payerID))
	}
	_, other := p.call("POST", "/deals/payin", body, "Idempotency-Key", "k", "Authorization", "Bearer "+otherPaymentsKey)
	if other["id"] == nil || other["id"] == first["id"] || p.Deals(otherPayerID) != 1 {
		t.Errorf("the key of another account: %v", other)
	}
	for range 2 {
		p.call("POST", "/deals/tlv", body)
	}
	if p.Deals(payerID) != 3 {
		t.Errorf("without a key: %d", p.Deals(payerID))
	}
	req := p.request("POST", "/deals/tlv", body, "Idempotency-Key", "x")
	req.Header.Add("Idempotency-Key", "y")
	res, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 400 || p.Deals(payerID) != 3 {
		t.Errorf("two keys: %d", res.StatusCode)
	}
}

func TestPaymentsIdempotencyUnderRace(t *testing.T) {
	p := startPayments(t)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			res, err := p.client.Do(p.request("POST", "/deals/payin", `{"amount":10}`, "Idempotency-Key", "k"))
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
		})
	}
	all.Wait()
	if got := p.Deals(payerID); got != 1 {
		t.Errorf("made %d deals", got)
	}
}

func TestPaymentsOtherCalls(t *testing.T) {
	p := startPayments(t)
	p.answers("wallet", 200, `{"balances":[{"currency":"EUR","amount":"1000.00"}]}`, "GET", "/wallet?", "", "Content-Type", "")
	p.answers("calculation", 200, `{"amount":12.5,"rate":2,"result":25}`, "GET", "/fx/calculation?amount=12.5&from=EUR", "")
	p.answers("banks", 200, `{"items":[{"id":"sandbox-bank","name":"Sandbox Bank","country":"NL"}]}`, "GET", "/banks/find?currency=EUR", "")
	_, one := p.call("GET", "/wallet/deposit?currencyId=USDT", "")
	_, same := p.call("GET", "/wallet/deposit?currencyId=USDT", "")
	_, other := p.call("GET", "/wallet/deposit?currencyId=BTC", "")
	if one["currencyId"] != "USDT" || one["address"] == nil || one["address"] != same["address"] || one["address"] == other["address"] {
		t.Errorf("addresses %v, %v, %v", one, same, other)
	}
}

func TestPaymentsRefusals(t *testing.T) {
	p := startPayments(t)
	for _, value := range []string{"", "Bearer", "Bearer ", "Bearer " + paymentsKey + "x", "Basic " + paymentsKey, paymentsKey} {
		p.answers("authorization "+value, 401, failed(401, "UNAUTHORIZED", "Unauthorized"), "GET", "/wallet", "", "Authorization", value)
	}
	for _, path := range []string{"/", "/wallets", "/wallet/", "/deals", "/deals/", "/deals/x/y", "/deals//credentials"} {
		p.answers("path "+path, 404, failed(404, "NOT_FOUND", "Not found"), "GET", path, "")
	}
	p.answers("method", 405, failed(405, "METHOD_NOT_ALLOWED", "Method not allowed"), "DELETE", "/wallet", "")
	p.answers("content type", 415, failed(415, "UNSUPPORTED_MEDIA_TYPE", "Unsupported media type"), "POST", "/deals/payin", `{"amount":1}`, "Content-Type", "text/plain")
	p.answers("long body", 413, failed(413, "PAYLOAD_TOO_LARGE", "Payload too large"), "POST", "/deals/payin", strings.Repeat(" ", 65<<10))
	p.answers("currency", 400, failed(400, "BAD_REQUEST", "currencyId is missing"), "GET", "/wallet/deposit", "")
	noAmount := failed(400, "BAD_REQUEST", "amount is missing or not positive")
	for _, amount := range []string{"", "0", "-1", "x", "NaN", "Inf", "1e12"} {
		p.answers("calculation of "+amount, 400, noAmount, "GET", "/fx/calculation?amount="+amount, "")
	}
	for _, body := range []string{`{}`, `{"amount":0}`, `{"amount":-1}`, `{"amount":null}`, `{"amount":1e12}`, `{"Currency":"AZN"}`} {
		p.answers("body "+body, 400, noAmount, "POST", "/deals/payin", body)
	}
	for _, body := range []string{``, `{`, `[]`, `"x"`, `{"amount":"x"}`, `{"amount":1} {}`, `{"amount":1,"currency":7}`} {
		p.answers("body "+body, 400, failed(400, "BAD_REQUEST", "Bad request"), "POST", "/deals/payin", body)
	}
	if got := p.Deals(payerID); got != 0 {
		t.Errorf("refused requests made %d deals", got)
	}
}

func TestPaymentsFaults(t *testing.T) {
	p := startPayments(t)
	id := sandbox.DealWithBank(payerID)
	faulty(t, p, p.caller, p.card, id, sandbox.CallCredentials, "/deals/"+id+"/credentials")
	p.SetFault(payerID, sandbox.FaultMissingField)
	for path, field := range map[string]string{"/deals/" + id + "/credentials": "account_number", "/deals/" + id: "amount", "/wallet": "balances"} {
		status, out := p.call("GET", path, "")
		if _, there := out[field]; status != 200 || there {
			t.Errorf("%s: %d %v", path, status, out)
		}
	}
	p.SetFault(payerID, sandbox.Fault500)
	if res, _, err := p.get("/wallet", "Authorization", "Bearer "+otherPaymentsKey); err != nil || res.StatusCode != 200 {
		t.Errorf("another account has this one's fault: %v, %v", res, err)
	}
	p.answers("500", 500, failed(500, "INTERNAL_SERVER_ERROR", "Internal server error"), "POST", "/deals/payin", `{"amount":1}`)
	if p.Deals(payerID) != 0 {
		t.Error("a deal was made in spite of the refusal")
	}
}

// TestPaymentsFaultSpoilsTheAnswerNotTheEffect: who repeats the request under its key learns of the deal that was made.
func TestPaymentsFaultSpoilsTheAnswerNotTheEffect(t *testing.T) {
	p := startPayments(t)
	p.SetFault(payerID, sandbox.FaultMalformedJSON)
	res, err := p.client.Do(p.request("POST", "/deals/payin", `{"amount":1}`, "Idempotency-Key", "k"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	p.SetFault(payerID, sandbox.Fault{})
	if _, out := p.call("POST", "/deals/payin", `{"amount":1}`, "Idempotency-Key", "k"); out["amount"] != 1.0 || p.Deals(payerID) != 1 {
		t.Errorf("again: %v, made %d", out, p.Deals(payerID))
	}
}

func TestPaymentsConfigurationIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(*sandbox.PaymentsConfig){
		"no API keys":     func(c *sandbox.PaymentsConfig) { c.APIKeys = nil },
		"empty API key":   func(c *sandbox.PaymentsConfig) { c.APIKeys[""] = payerID },
		"empty account":   func(c *sandbox.PaymentsConfig) { c.APIKeys["x"] = "" },
		"no card":         func(c *sandbox.PaymentsConfig) { c.Cards = nil },
		"no certificate":  func(c *sandbox.PaymentsConfig) { c.TLS = &tls.Config{} },
		"not a number":    func(c *sandbox.PaymentsConfig) { c.Cards[0].PAN = "4111111111111112" },
		"card with no id": func(c *sandbox.PaymentsConfig) { c.Cards[0].ID = "" },
	} {
		c := paymentsConfig()
		spoil(&c)
		if _, err := sandbox.NewPayments(c); err == nil || !strings.HasPrefix(err.Error(), "sandbox: payments: ") || strings.Contains(err.Error(), paymentsKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDealsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, account := range []string{payerID, otherPayerID} {
		for _, id := range []string{sandbox.DealWithCard(account), sandbox.DealWithBank(account)} {
			if len(id) != 26 || seen[id] {
				t.Errorf("id %s", id)
			}
			seen[id] = true
		}
	}
}
