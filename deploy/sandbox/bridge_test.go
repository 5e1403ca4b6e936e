package sandbox_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

const (
	bridgeKey      = "bridge-test-key"
	customerID     = "cust-1"
	accountID      = "00000000-0000-4000-8000-000000000001"
	otherAccountID = "00000000-0000-4000-8000-000000000002"
	accountPath    = "/v0/customers/" + customerID + "/card_accounts/" + accountID
	mintPath       = accountPath + "/ephemeral_keys"
	revealPath     = "/v0/card_details/"
)

// bridge is a running sandbox of Bridge and a caller of it.
type bridge struct {
	*sandbox.Bridge
	*caller
	card sandbox.Card
}

func bridgeConfig() sandbox.BridgeConfig {
	card, other := sandbox.RandomCard(accountID, ""), sandbox.RandomCard(otherAccountID, "")
	card.UserID, other.UserID = customerID, "cust-2"
	other.PIN, other.ExpiryMonth, other.Status = "", "1", "canceled"
	return sandbox.BridgeConfig{APIKey: bridgeKey, Cards: []sandbox.Card{card, other}}
}

func startBridge(t *testing.T) *bridge {
	t.Helper()
	c := bridgeConfig()
	b := newBridge(t, c)
	return &bridge{Bridge: b, caller: listen(t, b, nil, "Api-Key", bridgeKey, "Content-Type", "application/json"), card: c.Cards[0]}
}

func newBridge(t *testing.T, c sandbox.BridgeConfig) *sandbox.Bridge {
	t.Helper()
	b, err := sandbox.NewBridge(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mint returns an ephemeral key for a fresh proof, and that proof.
func (b *bridge) mint() (key, secret, timestamp string) {
	b.t.Helper()
	secret, timestamp = sandbox.NewBridgeProof()
	status, out := b.call("POST", mintPath, nonceBody(secret, timestamp), "Idempotency-Key", secret)
	key, _ = out["ephemeral_key"].(string)
	if status != 200 || len(out) != 1 || key == "" {
		b.t.Fatalf("mint: %d %v", status, out)
	}
	return key, secret, timestamp
}

func nonceBody(secret, timestamp string) string {
	return `{"client_nonce":"` + sandbox.BridgeNonce(secret, timestamp) + `"}`
}

// reveal presents a key as a browser does: without an API key.
func (b *bridge) reveal(key, secret, timestamp string) (int, map[string]any) {
	b.t.Helper()
	return b.call("GET", revealPath+"?secret="+secret+"&timestamp="+timestamp, "", "Api-Key", "", "Authorization", "Bearer "+key)
}

// answers asserts a whole answer.
func (c *caller) answers(what string, status int, body, method, path, sent string, header ...string) {
	c.t.Helper()
	got, out := c.call(method, path, sent, header...)
	var want map[string]any
	if err := json.Unmarshal([]byte(body), &want); err != nil {
		c.t.Fatal(err)
	}
	if got != status || !reflect.DeepEqual(out, want) {
		c.t.Errorf("%s: %d %v, want %d %s", what, got, out, status, body)
	}
}

const badKey = `{"code":"invalid","message":"Invalid ephemeral key, secret or timestamp"}`

// TestBridgeNonce uses the contract's vector, made from what the published clients do.
func TestBridgeNonce(t *testing.T) {
	const secret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	if got, want := sandbox.BridgeNonce(secret, "1700000000"), "sj3/w7/DRdx2JX8KuF+ZAi3UduRhbQKO0Vl29RlimvY="; got != want {
		t.Errorf("nonce %s, want %s", got, want)
	}
}

func TestBridgeProof(t *testing.T) {
	secret, timestamp := sandbox.NewBridgeProof()
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(secret) {
		t.Errorf("secret %q", secret)
	}
	if s, err := strconv.ParseInt(timestamp, 10, 64); err != nil || time.Since(time.Unix(s, 0)).Abs() > time.Minute {
		t.Errorf("timestamp %q", timestamp)
	}
	if again, _ := sandbox.NewBridgeProof(); again == secret {
		t.Error("a secret came twice")
	}
}

func TestBridgeReveal(t *testing.T) {
	b := startBridge(t)
	key, secret, timestamp := b.mint()
	want := map[string]any{"card_number": b.card.PAN, "card_security_code": b.card.CVC, "expiry_date": "12/30"}
	if status, out := b.reveal(key, secret, timestamp); status != 200 || !reflect.DeepEqual(out, want) {
		t.Errorf("%d, want the card: %v", status, reflect.DeepEqual(out, want))
	}
	if status, out := b.reveal(key, secret, timestamp); status != 401 {
		t.Errorf("again: %d %v", status, out)
	}
	key, secret, timestamp = b.mint()
	path := "/v0/card_details?" + url.Values{"clientSecret": {secret}, "clientTimestamp": {timestamp}}.Encode()
	if status, out := b.call("GET", path, "", "Api-Key", "", "Authorization", "bearer "+key); status != 200 || out["card_number"] != b.card.PAN {
		t.Errorf("without the slash, in the other words: %d", status)
	}
	if b.Count(sandbox.CallMint) != 2 || b.Count(sandbox.CallReveal) != 3 || b.Total() != 5 {
		t.Errorf("%d mints, %d reveals", b.Count(sandbox.CallMint), b.Count(sandbox.CallReveal))
	}
}

// TestBridgeWrongProofBurnsTheKey: each of these is the same 401, and the right proof after it is as well.
func TestBridgeWrongProofBurnsTheKey(t *testing.T) {
	b := startBridge(t)
	for name, wrong := range map[string]func(secret, timestamp string) (string, string){
		"secret":           func(_, timestamp string) (string, string) { return strings.Repeat("0", 64), timestamp },
		"secret as upper":  func(secret, timestamp string) (string, string) { return strings.ToUpper(secret), timestamp },
		"timestamp":        func(secret, timestamp string) (string, string) { return secret, timestamp + "0" },
		"both, exchanged":  func(secret, timestamp string) (string, string) { return timestamp, secret },
		"split elsewhere":  func(secret, timestamp string) (string, string) { return secret + timestamp[:1], timestamp[1:] },
		"of another proof": func(string, string) (string, string) { return sandbox.NewBridgeProof() },
	} {
		key, secret, timestamp := b.mint()
		badSecret, badTimestamp := wrong(secret, timestamp)
		path := revealPath + "?" + url.Values{"secret": {badSecret}, "timestamp": {badTimestamp}}.Encode()
		b.answers(name, 401, badKey, "GET", path, "", "Api-Key", "", "Authorization", "Bearer "+key)
		path = revealPath + "?secret=" + secret + "&timestamp=" + timestamp
		b.answers(name+", then right", 401, badKey, "GET", path, "", "Api-Key", "", "Authorization", "Bearer "+key)
	}
	b.answers("unknown key", 401, badKey, "GET", revealPath+"?secret=a&timestamp=1", "", "Authorization", "Bearer ek_unknown")
}

func TestBridgeMalformedRevealPresentsNothing(t *testing.T) {
	b := startBridge(t)
	key, secret, timestamp := b.mint()
	noKey := `{"code":"required","location":"header","name":"Authorization","message":"Missing Authorization header"}`
	for _, value := range []string{"", "Bearer", "Bearer ", "Basic " + key, key} {
		b.answers("authorization "+value, 401, noKey, "GET", revealPath+"?secret="+secret+"&timestamp="+timestamp, "", "Authorization", value)
	}
	for query, name := range map[string]string{
		"":                               "secret",
		"timestamp=1":                    "secret",
		"secret=" + secret:               "timestamp",
		"secret=&timestamp=" + timestamp: "secret",
		"secret=" + secret + "&secret=" + secret + "&timestamp=1":        "secret",
		"secret=" + secret + "&clientSecret=x&timestamp=" + timestamp:    "secret",
		"secret=" + secret + "&timestamp=1&clientTimestamp=" + timestamp: "timestamp",
	} {
		body := `{"code":"invalid_parameters","message":"Please resubmit the following parameters that are either missing or invalid.",
			"source":{"location":"query","key":{"` + name + `":"must be there once"}}}`
		b.answers("query "+query, 400, body, "GET", revealPath+"?"+query, "", "Authorization", "Bearer "+key)
	}
	if status, _ := b.reveal(key, secret, timestamp); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
}

// TestBridgeTimes asks the handler itself: in a bubble, where time is the test's own, there is no network.
func TestBridgeTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := bridgeConfig()
		b := newBridge(t, c)
		call := func(method, path, body string, header ...string) (int, map[string]any) {
			req := (&caller{t: t, header: []string{"Api-Key", bridgeKey, "Content-Type", "application/json"}}).request(method, path, body, header...)
			w := httptest.NewRecorder()
			b.Handler().ServeHTTP(w, req)
			var out map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
				t.Fatal(err)
			}
			return w.Code, out
		}
		secret, timestamp := sandbox.NewBridgeProof()
		mint := func(idempotency string) (int, string) {
			status, out := call("POST", mintPath, nonceBody(secret, timestamp), "Idempotency-Key", idempotency)
			key, _ := out["ephemeral_key"].(string)
			return status, key
		}
		reveal := func(key string) int {
			status, _ := call("GET", revealPath+"?secret="+secret+"&timestamp="+timestamp, "", "Authorization", "Bearer "+key)
			return status
		}
		_, first := mint("a")
		_, second := mint("b")
		time.Sleep(5*time.Minute - time.Nanosecond)
		if status := reveal(first); status != 200 {
			t.Errorf("just before five minutes: %d", status)
		}
		time.Sleep(time.Nanosecond)
		if status := reveal(second); status != 401 {
			t.Errorf("after five minutes: %d", status)
		}
		time.Sleep(24*time.Hour - 5*time.Minute - time.Nanosecond)
		if status, key := mint("a"); status != 200 || key != first || reveal(key) != 401 {
			t.Errorf("just before a day: %d, the same key %v", status, key == first)
		}
		time.Sleep(time.Nanosecond)
		if status, _ := mint("a"); status != 422 {
			t.Errorf("after a day: %d", status)
		}
		if status, key := mint("c"); status != 200 || reveal(key) != 200 {
			t.Errorf("the nonce under another idempotency key: %d", status)
		}
	})
}

func TestBridgeIdempotency(t *testing.T) {
	b := startBridge(t)
	missing := `{"code":"required","location":"header","name":"Idempotency-Key","message":"Missing Idempotency-Key header"}`
	used := `{"code":"invalid","location":"header","name":"Idempotency-Key","message":"Idempotency-Key was used for another request, or more than 24 hours ago"}`
	body := nonceBody(sandbox.NewBridgeProof())
	for _, path := range []string{mintPath, accountPath + "/freeze", accountPath + "/unfreeze"} {
		b.answers("none for "+path, 400, missing, "POST", path, body)
	}
	_, first := b.call("POST", mintPath, body, "Idempotency-Key", "k")
	_, again := b.call("POST", mintPath, body, "Idempotency-Key", "k")
	_, other := b.call("POST", mintPath, body, "Idempotency-Key", "l")
	if !reflect.DeepEqual(first, again) || reflect.DeepEqual(first, other) {
		t.Errorf("keys %v, %v, %v", first, again, other)
	}
	b.answers("another body", 422, used, "POST", mintPath, nonceBody(sandbox.NewBridgeProof()), "Idempotency-Key", "k")
	b.answers("another call", 422, used, "POST", accountPath+"/freeze", body, "Idempotency-Key", "k")
	if got := b.Status(accountID); got != "active" {
		t.Errorf("a refused freeze made the card %s", got)
	}
	b.call("POST", accountPath+"/freeze", "", "Idempotency-Key", "f")
	b.call("POST", accountPath+"/unfreeze", "", "Idempotency-Key", "u")
	if _, out := b.call("POST", accountPath+"/freeze", "", "Idempotency-Key", "f"); out["status"] != "frozen" || b.Status(accountID) != "active" {
		t.Errorf("a freeze that came before answered %v and left the card %s", out["status"], b.Status(accountID))
	}
	if status, _ := b.call("POST", mintPath, "{}", "Idempotency-Key", "m"); status != 400 {
		t.Errorf("bad body: %d", status)
	}
	if status, _ := b.call("POST", mintPath, body, "Idempotency-Key", "m"); status != 200 {
		t.Errorf("a good body under the key of a refused one: %d", status)
	}
}

func TestBridgeKeyIsPresentedOnceUnderRace(t *testing.T) {
	b := startBridge(t)
	key, secret, timestamp := b.mint()
	var revealed atomic.Int32
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			res, err := b.client.Do(b.request("GET", revealPath+"?secret="+secret+"&timestamp="+timestamp, "", "Authorization", "Bearer "+key))
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			if res.StatusCode == 200 {
				revealed.Add(1)
			}
		})
	}
	all.Wait()
	if got := revealed.Load(); got != 1 {
		t.Errorf("revealed %d times", got)
	}
}

func TestBridgeAccountAndFreeze(t *testing.T) {
	b := startBridge(t)
	account := func(status string) string {
		return `{"id":"` + accountID + `","customer_id":"` + customerID + `","status":"` + status + `",
			"card_details":{"last_4":"` + b.card.PAN[12:] + `","expiry":"12/30","bin":"411111","pin_status":"set"}}`
	}
	b.answers("account", 200, account("active"), "GET", accountPath, "")
	for n, step := range []struct{ call, status string }{{"freeze", "frozen"}, {"freeze", "frozen"}, {"unfreeze", "active"}, {"unfreeze", "active"}} {
		b.answers(step.call, 200, account(step.status), "POST", accountPath+"/"+step.call, "", "Idempotency-Key", strconv.Itoa(n), "Content-Type", "")
		if got := b.Status(accountID); got != step.status {
			t.Errorf("after %s: %s", step.call, got)
		}
	}
	b.answers("freeze with a body", 200, account("frozen"), "POST", accountPath+"/freeze", `{"initiator":"customer"}`, "Idempotency-Key", "body")
	if key, secret, timestamp := b.mint(); key == "" {
		t.Error("no key for a frozen card")
	} else if status, _ := b.reveal(key, secret, timestamp); status != 200 {
		t.Errorf("reveal of a frozen card: %d", status)
	}
	if status, _ := b.call("POST", accountPath+"/unfreeze", "{", "Idempotency-Key", "bad"); status != 400 || b.Status(accountID) != "frozen" {
		t.Errorf("bad body: %d, card %s", status, b.Status(accountID))
	}
	other := "/v0/customers/cust-2/card_accounts/" + otherAccountID
	b.answers("canceled", 400, `{"code":"invalid","message":"Card account is canceled"}`, "POST", other+"/unfreeze", "", "Idempotency-Key", "c")
	_, out := b.call("GET", other, "")
	details, _ := out["card_details"].(map[string]any)
	if out["status"] != "canceled" || details["pin_status"] != "not_set" || details["expiry"] != "01/30" || b.Status("unknown") != "" {
		t.Errorf("other card: %v", out)
	}
}

func TestBridgeRefusals(t *testing.T) {
	b := startBridge(t)
	body := nonceBody(sandbox.NewBridgeProof())
	b.answers("no API key", 401, `{"code":"required","location":"header","name":"Api-Key","message":"Missing Api-Key header"}`,
		"POST", mintPath, body, "Api-Key", "", "Idempotency-Key", "k")
	b.answers("wrong API key", 401, `{"code":"invalid","location":"header","name":"Api-Key","message":"Invalid Api-Key header"}`,
		"POST", mintPath, body, "Api-Key", bridgeKey+"x", "Idempotency-Key", "k")
	unknown := `{"code":"Invalid","message":"Unknown customer id"}`
	for _, path := range []string{
		"/v0/customers/cust-2/card_accounts/" + accountID, "/v0/customers/" + customerID + "/card_accounts/" + otherAccountID,
		"/v0/customers/nobody/card_accounts/" + accountID, "/v0/customers/" + customerID + "/card_accounts/nothing", "/v0/customers//card_accounts/",
	} {
		b.answers(path, 404, unknown, "GET", path, "")
		b.answers(path+" mint", 404, unknown, "POST", path+"/ephemeral_keys", body, "Idempotency-Key", "k")
	}
	for _, path := range []string{"/", accountPath + "/", accountPath + "/pins", mintPath + "/", "/v0/customers/" + customerID} {
		b.answers(path, 404, `{"code":"not_found","message":"Not found"}`, "GET", path, "")
	}
	b.answers("method", 405, `{"code":"method_not_allowed","message":"Method not allowed"}`, "PUT", mintPath, body)
	b.answers("long body", 413, `{"code":"payload_too_large","message":"Request body is too large"}`, "POST", mintPath, strings.Repeat(" ", 65<<10))
	badNonce := `{"code":"invalid_parameters","message":"Please resubmit the following parameters that are either missing or invalid.",
		"source":{"location":"body","key":{"client_nonce":"must be a nonce: 44 characters of base64, in a body of JSON"}}}`
	for _, bad := range []string{
		``, `{`, `{}`, `[]`, `{"client_nonce":7}`, `{"client_nonce":""}`, `{"client_nonce":"AAAA"}`, body + "{}", `{"nonce":"x"}`,
		`{"client_nonce":"` + base64.RawStdEncoding.EncodeToString(make([]byte, 32)) + `"}`,
	} {
		b.answers("body "+bad, 400, badNonce, "POST", mintPath, bad, "Idempotency-Key", "k")
	}
	b.answers("content type", 400, badNonce, "POST", mintPath, body, "Idempotency-Key", "k", "Content-Type", "text/plain")
	b.SetFault(accountID, sandbox.Fault500)
	b.answers("500", 500, `{"errors":[{"code":"unexpected","message":"An expected error occurred, you may try again later"}]}`, "GET", accountPath, "")
}

func TestBridgeFaults(t *testing.T) {
	b := startBridge(t)
	faulty(t, b, b.caller, b.card, accountID, sandbox.CallAccount, accountPath)
	b.SetFault(customerID, sandbox.Fault500)
	if res, _, err := b.get(accountPath); err != nil || res.StatusCode != 500 {
		t.Errorf("the customer's fault does not count: %v, %v", res, err)
	}
	b.SetFault(accountID, sandbox.FaultWrongContentType)
	if res, _, err := b.get(accountPath); err != nil || res.StatusCode != 200 {
		t.Errorf("the card account's fault does not count before the customer's: %v, %v", res, err)
	}
}

func TestBridgeFaultsOfAReveal(t *testing.T) {
	b := startBridge(t)
	key, secret, timestamp := b.mint()
	for _, f := range []sandbox.Fault{sandbox.Fault500, sandbox.FaultPANInError} {
		b.SetFault(accountID, f)
		if status, _ := b.reveal(key, secret, timestamp); status != 500 {
			t.Errorf("status %d", status)
		}
	}
	b.SetFault(accountID, sandbox.FaultMissingField)
	if status, out := b.reveal(key, secret, timestamp); status != 200 || len(out) != 2 || out["card_number"] != b.card.PAN {
		t.Errorf("missing field: %d, %d fields", status, len(out))
	}
	if _, out := b.call("GET", accountPath, ""); out["card_details"] != nil || out["id"] != accountID {
		t.Errorf("missing field of the account: %v", out)
	}
	body := nonceBody(secret, timestamp)
	if status, out := b.call("POST", mintPath, body, "Idempotency-Key", "again"); status != 200 || len(out) != 0 {
		t.Errorf("missing key: %d, %d fields", status, len(out))
	}
	b.SetFault(accountID, sandbox.Fault{})
	_, out := b.call("POST", mintPath, body, "Idempotency-Key", "again")
	fresh, _ := out["ephemeral_key"].(string)
	b.SetFault(accountID, sandbox.FaultTruncatedBody)
	if _, _, err := b.get(revealPath+"?secret="+secret+"&timestamp="+timestamp, "Authorization", "Bearer "+fresh); fresh == "" || err == nil {
		t.Errorf("the first answer was spoilt for good: %v, %v", out, err)
	}
	if status, _ := b.reveal(fresh, secret, timestamp); status != 401 {
		t.Errorf("a reveal that was cut off did not spend its key: %d", status)
	}
}

func TestBridgeConfigurationIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(*sandbox.BridgeConfig){
		"no API key":             func(c *sandbox.BridgeConfig) { c.APIKey = "" },
		"no certificate":         func(c *sandbox.BridgeConfig) { c.TLS = &tls.Config{} },
		"card twice":             func(c *sandbox.BridgeConfig) { c.Cards = append(c.Cards, c.Cards[0]) },
		"no customer":            func(c *sandbox.BridgeConfig) { c.Cards[0].UserID = "" },
		"customer with a slash":  func(c *sandbox.BridgeConfig) { c.Cards[0].UserID = "a/b" },
		"number of no such card": func(c *sandbox.BridgeConfig) { c.Cards[0].PAN = "4111111111111112" },
	} {
		c := bridgeConfig()
		spoil(&c)
		if _, err := sandbox.NewBridge(c); err == nil || !strings.HasPrefix(err.Error(), "sandbox: bridge: ") || strings.Contains(err.Error(), c.Cards[0].PAN) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBridgeOverTLS is what Cardstile's client sees: HTTP/2, no redirect between the two forms of the reveal's path.
func TestBridgeOverTLS(t *testing.T) {
	c := bridgeConfig()
	c.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	b := newBridge(t, c)
	caller := listen(t, b, c.TLS)
	for _, path := range []string{"/v0/card_details", "/v0/card_details/"} {
		if res, _, err := caller.get(path); err != nil || res.StatusCode != http.StatusUnauthorized || res.ProtoMajor != 2 {
			t.Errorf("%s: %v, %v", path, res, err)
		}
	}
}
