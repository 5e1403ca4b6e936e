package gateway_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy/credential"
)

// TestBridgeScopes: a key that has a scope does what a partner's backend does here where the scope names card-accounts, word for
// word, and one without does all of it. What it does not do mints nothing, is not sent, and takes no idempotency key.
func TestBridgeScopes(t *testing.T) {
	b := backs["bridge"]
	h := newHouse(t, options{routes: func(h *house) []gateway.Route { return []gateway.Route{h.bridgeRoute(h.issuerKind("bridge", nil))} }})
	add := func(name string, scope ...string) {
		t.Helper()
		_, secret, err := credential.Add(h.keyFile, credential.NewAPIKey{Partner: partnerID, Environment: "test", Scope: scope, Now: time.Now()})
		must(err)
		h.apiKeys[name] = h.secret(secret)
	}
	add("accounts", "card-accounts")
	add("both", "hosted-fields", "card-accounts")
	add("longer", "card-accounts-read")
	add("shorter", "card")
	add("in another case", "Card-Accounts")
	h.reload()
	c, p := h.anybody(), h.proof()
	mint := func(key, idempotency string) call {
		return h.bridgeCall(key, "POST", b.user, b.card, "/ephemeral_keys", `{"client_nonce":"`+p.nonce()+`"}`, "Idempotency-Key", idempotency)
	}
	profile := func(key string) call { return h.bridgeCall(key, "GET", b.user, b.card, "", "") }
	change := func(key, tail string) call {
		return h.bridgeCall(key, "POST", b.user, b.card, tail, `{"initiator":"customer"}`)
	}
	forbidden := want{status: 403, body: bridgeForbidden, results: []string{"refused scope"}, outcome: "forbidden"}
	for _, key := range []string{"pages", "payments", "longer", "shorter", "in another case"} {
		h.expect(key+": mint", c, mint(key, "one"), forbidden)
		h.expect(key+": profile", c, profile(key), forbidden)
		h.expect(key+": freeze", c, change(key, "/freeze"), forbidden)
		h.expect(key+": unfreeze", c, change(key, "/unfreeze"), forbidden)
	}
	if h.bridge.Total() != 0 {
		t.Errorf("the issuer was asked %d times", h.bridge.Total())
	}
	h.ephemeralKey(h.expect("under the same idempotency key, by who may", c, mint("accounts", "one"), minted()))
	done := want{status: 200, results: []string{"intent", "done"}, rule: "key", outcome: "done", upstream: -1}
	for _, key := range []string{"accounts", "both", "first"} {
		h.ephemeralKey(h.expect(key+": mint", c, mint(key, "of-"+key), minted()))
		h.expect(key+": profile", c, profile(key), want{status: 200, results: []string{"done"}, rule: "key", outcome: "done", upstream: -1})
		h.expect(key+": freeze", c, change(key, "/freeze"), done)
		h.expect(key+": unfreeze", c, change(key, "/unfreeze"), done)
	}
	if h.bridge.Count(sandbox.CallFreeze) != 3 || h.bridge.Count(sandbox.CallUnfreeze) != 3 {
		t.Error("a change was not sent")
	}
}

// TestAdminNames: on loopback, operators are answered who name this machine, and a page is not whose name was made to stand for it
// (DNS rebinding), whatever it asks for and whatever it has.
func TestAdminNames(t *testing.T) {
	const bearer = "bearer-of-the-operators-of-these-tests"
	for name, h := range map[string]*house{
		"open":          newHouse(t, options{}),
		"with a bearer": newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Admin.Bearer = bearer }}),
	} {
		ask := func(host, path string, header ...string) reply {
			t.Helper()
			r, err := http.NewRequest("GET", "http://"+h.gateway.Addr("admin").String()+path, nil)
			must(err)
			r.Host = host
			r.Header.Set("Authorization", "Bearer "+bearer)
			answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
			must(err)
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			must(err)
			return reply{status: answer.StatusCode, header: answer.Header, body: string(body)}
		}
		for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
			for _, host := range []string{"localhost", "LocalHost", "127.0.0.1", "127.0.0.2", "[::1]"} {
				for _, port := range []string{"", ":9090", ":1"} {
					if r := ask(host+port, path); r.status != 200 {
						t.Errorf("%s: %s of %s%s: %d", name, path, host, port, r.status)
					}
				}
			}
			for _, host := range []string{
				"evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example.localhost", "local", "localhost2", "0.0.0.0", "[::]", "[2001:db8::1]",
				"192.0.2.1", "10.0.0.1", "2130706433", "0x7f000001",
			} {
				for _, port := range []string{"", ":9090"} {
					r := ask(host+port, path)
					if r.status != 421 || r.body != "{\"status\":\"misdirected\"}\n" || r.header.Get("WWW-Authenticate") != "" {
						t.Errorf("%s: %s of %s%s: %d %s", name, path, host, port, r.status, r.body)
					}
				}
			}
		}
	}
}
