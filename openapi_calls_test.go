package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/vault/keys"
)

// unreached are the documented statuses that no exchange below has, by the end of "operation status", and why.
var unreached = map[string]string{
	" 500":           "a mistake of ours",
	" default":       "what another issuer may answer",
	"getWallet 404":  "the sandbox issuer has what it is asked for",
	"getDeposit 404": "the same", "getDeals 404": "the same", "getDeal 404": "the same", "getCredentials 404": "the same",
	"calculate 404": "the same", "findBanks 404": "the same", "payin 404": "the same", "payout 404": "the same", "tlv 404": "the same",
	"bringCard 404":    "the same",
	"mintKey 409":      "a mint is over before a second one can come",
	"getChallenge 555": "a mistake of ours", "logIn 555": "a mistake of ours",
}

// TestOpenAPIExchanges has every exchange of the demo's flows, and a success and the refusals of each operation, be as
// documented.
func TestOpenAPIExchanges(t *testing.T) {
	t.Parallel()
	var all []*apiExchange
	c := newAPICaller(t, &all)
	docs := loadAPI(t)

	c.on("as it is", nil, func() {
		var said bytes.Buffer
		if err := tryFlows(t.Context(), &said, c.tester); err != nil {
			t.Fatalf("%v\n%s", err, said.String())
		}
		c.succeed()
		c.refuse()
		c.otherMethods(docs)
	})
	c.on("with rules that permit mints alone", func(edit func(old, next string)) {
		edit("policies: [policies/*.cedar]", "policies: [mints.cedar]")
		edit("audit.jsonl", "audit-mints.jsonl")
	}, c.forbidden)
	c.on("with rules that permit nothing", func(edit func(old, next string)) {
		edit("policies: [policies/*.cedar]", "policies: [nothing.cedar]")
		edit("audit.jsonl", "audit-nothing.jsonl")
	}, c.forbiddenMints)
	c.on("with rules that permit sessions of hosted fields alone", func(edit func(old, next string)) {
		edit("policies: [policies/*.cedar]", "policies: [sessions.cedar]")
		edit("audit.jsonl", "audit-sessions.jsonl")
	}, func() {
		page := c.openPage()
		c.pageAll(page, 403)
		c.try(403, "POST", "/v1/payments", c.order(), page.headers(randomUUID())...)
		c.usersAll(403)
	})
	c.on("with limits that are soon reached", func(edit func(old, next string)) {
		edit("partner: 100000/m", fmt.Sprintf("partner: %d/h", preparedCalls+openCalls))
		edit("anonymous: 100000/m", "anonymous: 1/h")
		edit("page: 100000/m", "page: 1/h")
		edit("audit.jsonl", "audit-limited.jsonl")
	}, c.limited)
	c.on("with strangers who may try twice", func(edit func(old, next string)) {
		edit("unproven: 100000/m", "unproven: 2/h")
		edit("audit.jsonl", "audit-strange.jsonl")
	}, c.strange)
	c.on("with issuers that fail", func(edit func(old, next string)) {
		edit("audit.jsonl", "audit-failing.jsonl")
	}, c.failing)
	c.on("with issuers that hang", func(edit func(old, next string)) {
		for _, file := range []string{"rain-api-key", "payments-api-key", "payroc-issuer-key", "cards-api-key"} {
			edit("    api_key_file: "+file+"\n", "    api_key_file: "+file+"\n    timeout: 1s\n") // a connection is made in less, on a busy machine too
		}
		edit("audit.jsonl", "audit-hanging.jsonl")
	}, c.hanging)
	c.on("with issuers that are not there", func(edit func(old, next string)) {
		for _, name := range []string{"rain", "payments", "payroc", "cards"} {
			edit("url: "+c.h.url(name)+"\n", "url: https://127.0.0.1:1\n")
		}
		edit("audit.jsonl", "audit-alone.jsonl")
	}, c.alone)
	c.on("with one place", func(edit func(old, next string)) {
		edit("limits: {", "limits: {concurrent: 1, ")
		edit("audit.jsonl", "audit-busy.jsonl")
	}, c.busy)

	seen := map[string]bool{}
	for _, x := range all {
		if err := check(docs, x); err != nil {
			t.Error(err)
		}
		if p, _ := find(docs, x); p != nil && p.item.GetOperation(x.method) != nil {
			seen[fmt.Sprintf("%s %d", p.item.GetOperation(x.method).OperationID, x.status)] = true
			seen[fmt.Sprintf("%s %s", p.path, x.method)] = true
		}
	}
	t.Logf("%d exchanges", len(all))
	for _, doc := range docs {
		for _, p := range doc.paths {
			for method, op := range p.item.Operations() {
				if !seen[p.path+" "+method] {
					t.Errorf("%s: %s %s: never tried", doc.face, method, p.path)
				}
				for status := range op.Responses.Map() {
					if what := op.OperationID + " " + status; !seen[what] && !excused(what) {
						t.Errorf("%s: %s: never seen", doc.face, what)
					}
				}
			}
		}
	}
	if !t.Failed() {
		t.Run("mistakes are found", func(t *testing.T) { mistakesAreFound(t, docs, all) })
	}
}

func excused(what string) bool {
	for end := range unreached {
		if strings.HasSuffix(what, end) {
			return true
		}
	}
	return false
}

// mistakesAreFound makes mistakes in the documents, of which each is to be noticed in the exchanges.
func mistakesAreFound(t *testing.T, docs map[string]*apiDocument, all []*apiExchange) {
	byFace := map[string][]*apiExchange{} // where a mistake is noticed soonest
	for _, x := range all {
		if p, _ := find(docs, x); p != nil {
			byFace[p.doc.face] = append(byFace[p.doc.face], x)
		}
	}
	for _, m := range []mutation{
		{"gnosispay", `        "415": {$ref: "#/components/responses/UnsupportedMedia"}` + "\n", ""},                           // a status
		{"gnosispay", "lastFour: {type: string, ", "lastFive: {type: string, "},                                                // a member
		{"gnosispay", "required: [expirationMonth, ", "required: [expirationDay, expirationMonth, "},                           // one more
		{"gnosispay", "        cardId: {type: string, minLength: 1, description: The one card.}\n", ""},                        // in a request
		{"gnosispay", "const: {error: Unauthorized, message: Unauthorized}", "const: {error: Unauthorized, message: Spent}"},   // a refusal
		{"gnosispay", "schema: {const: no-store}", "schema: {const: no-cache}"},                                                // a header's value
		{"gnosispay", "x-later: &later\n  X-Request-Id: {$ref: \"#/components/headers/X-Request-Id\"}\n", "x-later: &later\n"}, // a header
		{"exa", "mode: {type: integer, minimum: 0, description", "mode: {type: string, description"},                           // a type
		{"exa", "{type: array, items: {enum: [provisioning, siwe]}}", "{type: array, items: {enum: [siwe]}}"},                  // a parameter
		{"exa", "        - type: object\n          title: mode\n          additionalProperties: false\n          required: [mode]\n", "        - type: object\n          title: mode\n          additionalProperties: false\n          required: [mode, status]\n"},
		{"exa", "schema: {const: Origin}", `schema: {const: "*"}`},
		{"exa", `        "555": {$ref: "#/components/responses/Unexpected"}` + "\n", ""},
		{"bridge", "      security: [{apiKey: []}]\n", "      security: [{ephemeralKey: []}]\n"}, // a credential
		{"bridge", "name: clientSecret, in: query", "name: client_secret, in: query"},
		{"bridge", "  /v0/card_details/:\n", "  /v0/card_details/x:\n"}, // a path
		{"bridge", "    options:\n      operationId: preflightCardDetails", "    head:\n      operationId: preflightCardDetails"},
		{"paymentsgate", `content: {"text/plain; charset=utf-8": `, `content: {"application/json": `}, // a type
		{"paymentsgate", "    get:\n      operationId: getWallet", "    put:\n      operationId: getWallet"},
		{"paymentsgate", "oneOf: [{$ref: \"#/components/schemas/Sealed\"}, {type: string", "oneOf: [{type: string"},
		{"paymentsgate", "required: [access_token, refresh_token, expires_in]", "required: [access_token, refresh_token, expires_in, scope]"},
		{"payroc", "required: [processingTerminalId, token, expiresAt]", "required: [processingTerminalId, token, expires]"},
		{"payroc", "        cardType: {", "        cardKind: {"},
		{"payroc", "    get:\n      operationId: getConfiguration", "    put:\n      operationId: getConfiguration"},
		{"gnosispay", "chainId: {type: integer, minimum: 1}", "chainId: {type: string}"},
		{"gnosispay", "schema: {enum: [view-details, view-pin, change-pin]}", "schema: {enum: [view-pin, change-pin]}"},
		{"gnosispay", "        cardId: {type: string, pattern: \"^[!-~]{1,128}$\"", "        cardID: {type: string, pattern: \"^[!-~]{1,128}$\""},
		{"gnosispay", "        \"404\":\n          description: There is no such app.", "        \"410\":\n          description: There is no such app."},
	} {
		mutated := m.apply(t, docs)
		if !slices.ContainsFunc(slices.Concat(byFace[m.face], all), func(x *apiExchange) bool { return check(mutated, x) != nil }) {
			t.Errorf("%s: %q in place of %q: not noticed", m.face, m.next, m.old)
		}
	}
}

// apiCaller goes through gateways on one house, each configured in its own way, with its exchanges recorded.
type apiCaller struct {
	*tester
	t       *testing.T
	h       *house
	all     *[]*apiExchange
	what    string // of the gateway that runs
	other   string // a card that the directory has and the issuer does not
	passkey *sandbox.Passkey
	cards   map[string]string // cookies: "none" has no card, "nobody" no account, "passkey" one like the demo's user
	forward []string          // the forwarded GETs
}

func newAPICaller(t *testing.T, all *[]*apiExchange) *apiCaller {
	t.Helper()
	c := &apiCaller{t: t, h: newHouse(t, t.TempDir(), newCanary()), all: all, other: randomUUID(), cards: map[string]string{}}
	c.passkey = sandbox.NewPasskey(demoDomain)
	c.people()
	for name, content := range map[string]string{"mints.cedar": mintsPolicies, "nothing.cedar": nothingPolicies, "sessions.cedar": sessionsPolicies} {
		if err := c.h.write(name, []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := issueCertificate(c.h.dir, certificateOrder{
		name: "nobody", ca: "partners-ca", subject: "CN=gp_00000000000000000000000000000000,C=US", usage: "client", notBefore: -demoTokenTTL, notAfter: demoTokenTTL,
	}); err != nil {
		t.Fatal(err)
	}
	deal := sandbox.DealWithCard(demoAccount)
	c.forward = []string{
		"/wallet", "/wallet/deposit?currencyId=EUR", "/deals/list", "/fx/calculation?amount=3", "/banks/find", "/deals/" + deal, "/deals/" + deal + "/credentials",
	}
	return c
}

// people puts more users into the house's directory: one without a card, one without an account, one with a passkey.
func (c *apiCaller) people() {
	h, user := c.h, c.h.exaUser()
	none, nobody := walletAddress(newWallet()), walletAddress(newWallet())
	cose := c.passkey.COSEKey()
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, cose[10:42], cose[45:77]))
	if err != nil {
		c.t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		c.t.Fatal(err)
	}
	h.edit("holders.yaml", fmt.Sprintf("users: [%q]", user), fmt.Sprintf("users: [%q, %q]", user, c.passkey.CredentialID()))
	h.edit("holders.yaml", "users:\n", fmt.Sprintf("  - {id: %[1]q, issuer: rain, issuer_card: gone, partners: [gp-demo], users: [%[2]q], environment: test}\n"+
		"users:\n  - {id: %[3]q, partner: gp-demo, issuer: rain}\n"+
		"  - {id: %[4]q, partner: gp-demo, issuer: rain, issuer_user: %[5]q, account: %[6]q, passkeys: [{id: %[4]q, public_key: %[7]q}]}\n",
		c.other, h.state.Customer, none, c.passkey.CredentialID(), h.state.Users[0].ID, user, base64.StdEncoding.EncodeToString(spki)))
	if err := h.write("logins", []byte(strings.Join([]string{user, none, nobody, c.passkey.CredentialID(), ""}, "\n"))); err != nil {
		c.t.Fatal(err)
	}
	key, err := keys.Load(keys.Config{ID: "cookie-demo", Use: keys.UseCookie, File: h.path("cookie-key.pem")})
	if err != nil {
		c.t.Fatal(err)
	}
	cookies, err := newCookies(nil, "exa", []*keys.Key{key}, nil, true)
	if err != nil {
		c.t.Fatal(err)
	}
	for name, value := range map[string]string{"none": none, "nobody": nobody, "passkey": c.passkey.CredentialID()} {
		c.cards[name] = "credential_id=" + cookies.Sign(value)
	}
	if key, err = keys.Load(keys.Config{ID: "jwt-demo", Use: keys.UseJWT, File: h.path("jwt-key.pem")}); err != nil {
		c.t.Fatal(err)
	}
	signers, err := jwtKeys([]*keys.Key{key})
	if err != nil {
		c.t.Fatal(err)
	}
	scoped, err := newScoped("test", &RouteConfig{}, signers)
	if err != nil {
		c.t.Fatal(err)
	}
	for name, value := range map[string]string{"none JWT": none, "nobody JWT": nobody} {
		if c.cards[name], _, err = scoped.Mint(value, demoTokenTTL); err != nil {
			c.t.Fatal(err)
		}
	}
}

const mintsPolicies = `permit (principal is Partner, action == Action::"token.mint", resource);
permit (principal, action in [Action::"challenge.mint", Action::"session.mint"], resource);
`

const sessionsPolicies = `permit (principal is Partner, action in [Action::"session.mint", Action::"fields.mint"], resource);
`

const nothingPolicies = `permit (principal, action == Action::"token.mint", resource) when { 1 == 2 };
`

// on starts a gateway, with the house's configuration or another that differs from it, and calls it. It ends with the test.
func (c *apiCaller) on(what string, change func(edit func(old, next string)), do func()) {
	config := "config.yaml"
	if change != nil {
		text := string(c.h.read(config))
		change(func(old, next string) {
			if strings.Count(text, old) != 1 {
				c.t.Fatalf("%s: the configuration has %q %d times", what, old, strings.Count(text, old))
			}
			text = strings.Replace(text, old, next, 1)
		})
		config = "changed.yaml"
		if err := c.h.write(config, []byte(text)); err != nil {
			c.t.Fatal(err)
		}
	}
	g := serveProcess(c.t, binary(c.t), c.h.path(config))
	c.what, c.tester = what, c.h.caller(g)
	c.record(c.all)
	do()
	c.client.CloseIdleConnections()
	c.partner.CloseIdleConnections()
}

// try does a call that must end with a status.
func (c *apiCaller) try(status int, method, path, body string, header ...string) *reply {
	c.t.Helper()
	return c.tryAs(c.client, status, method, c.doc.PublicURL+path, body, header...)
}

func (c *apiCaller) mintWith(client *http.Client, status int, method, body string, header ...string) {
	c.t.Helper()
	c.tryAs(client, status, method, c.doc.PartnersURL+"/api/v1/ephemeral-token", body, header...)
}

func (c *apiCaller) tryAs(client *http.Client, status int, method, address, body string, header ...string) *reply {
	c.t.Helper()
	r := request{method: method, url: address, body: body, header: map[string]string{}}
	for i := 0; i < len(header); i += 2 {
		r.header[header[i]] = header[i+1]
	}
	got, err := c.do(c.t.Context(), client, r)
	if err != nil {
		c.t.Fatalf("%s: %s %s: %v", c.what, method, address, err)
	}
	if got.status != status {
		c.t.Errorf("%s: %s %s: status %d, want %d", c.what, method, strings.TrimPrefix(address, c.doc.PublicURL), got.status, status)
	}
	return got
}

// must is what a step of the flows gives.
func must[V any](t *testing.T) func(V, error) V {
	return func(v V, err error) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (c *apiCaller) token() string {
	c.t.Helper()
	return "Bearer " + must[string](c.t)(c.mint(c.t.Context(), ""))
}

func (c *apiCaller) newSession() *sandbox.Session {
	c.t.Helper()
	return must[*sandbox.Session](c.t)(c.session())
}

// newPIN is a PIN set for a session of its own.
func (c *apiCaller) newPIN() (s *sandbox.Session, data, iv string) {
	c.t.Helper()
	s = c.newSession()
	sealed := must[sandbox.Sealed](c.t)(s.SealPIN(c.doc.Card.PIN))
	return s, sealed.Data, sealed.IV
}

func (c *apiCaller) account(customer, card, part string) string {
	return "/v0/customers/" + customer + "/card_accounts/" + card + part
}

func (c *apiCaller) bridgePath(part string) string {
	return c.account(c.doc.Bridge.CustomerID, c.doc.Bridge.CardAccountID, part)
}

// key mints a key of face bridge, for a proof of its own.
func (c *apiCaller) key() (authorization, secret, timestamp string) {
	c.t.Helper()
	secret, timestamp = sandbox.NewBridgeProof()
	return "Bearer " + must[string](c.t)(c.ephemeralKey(c.t.Context(), sandbox.BridgeNonce(secret, timestamp), randomUUID())), secret, timestamp
}

// consent is a challenge to link a card, for a cookie.
func (c *apiCaller) consent(scope, cookie string) string {
	c.t.Helper()
	var card struct{ Challenge string }
	if err := json.Unmarshal(c.try(200, "GET", "/api/card?scope="+scope, "", "Cookie", cookie).body, &card); err != nil {
		c.t.Fatal(err)
	}
	return card.Challenge
}

const (
	text   = "text/plain"
	evil   = "https://evil.example"
	hugeOf = 70 << 10 // more than any endpoint takes
)

func huge() string { return `{"x":"` + strings.Repeat("x", hugeOf) + `"}` }

// exaPatches are where cards are changed.
var exaPatches = []string{"/api/card", "/card", "/"}

// succeed does what the flows leave out.
func (c *apiCaller) succeed() {
	cookie := c.doc.Exa.Cookie
	for _, path := range exaPatches {
		for _, body := range []string{`{"status":"FROZEN"}`, `{"status":"ACTIVE"}`, `{"mode":9}`, `{"mode":0}`} {
			c.try(200, "PATCH", path, body, "Cookie", cookie)
		}
		s, data, iv := c.newPIN()
		c.try(200, "PATCH", path, fmt.Sprintf(`{"data":%q,"iv":%q,"sessionId":%q}`, data, iv, s.ID()), "Cookie", cookie)
	}
	for _, base := range []string{"/api", ""} {
		c.try(200, "GET", base+"/card", "", "Cookie", cookie, "sessionid", c.newSession().ID())
		c.try(200, "GET", base+"/card?scope=webauthn&scope=provisioning&scope=provisioning", "", "Cookie", cookie)
		c.try(200, "GET", base+"/card?scope=provisioning&scope=siwe", "", "Cookie", cookie)
		c.try(200, "GET", base+"/card/provisioning", "", "Authorization", "Bearer "+c.doc.Exa.ProvisioningToken)
		c.try(200, "GET", base+"/auth/authentication", "", "Origin", demoOrigin)
		c.passkeyLogsIn(base)
		for _, path := range []string{"/card", "/card/provisioning", "/auth/authentication"} {
			c.preflight(204, base+path, demoOrigin, "GET")
			c.preflight(403, base+path, evil, "GET")
			c.preflight(403, base+path, demoOrigin, "DELETE")
		}
	}
	c.preflight(204, "/", demoOrigin, "PATCH")
	c.preflight(403, "/", evil, "PATCH")
	c.preflight(204, "/v0/card_details", evil, "GET")
	c.preflight(403, "/v0/card_details/", evil, "DELETE")

	for i, path := range []string{"/v0/card_details", "/v0/card_details/", "/v0/card_details?clientSecret=%s&clientTimestamp=%s"} {
		key, secret, timestamp := c.key()
		if i < 2 {
			c.try(200, "GET", path, "", "Authorization", key, "Cardstile-Client-Secret", secret, "Cardstile-Client-Timestamp", timestamp, "Origin", evil)
		} else {
			c.try(200, "GET", fmt.Sprintf(path, secret, timestamp), "", "Authorization", key)
		}
	}
	c.try(200, "POST", c.bridgePath("/freeze/"), `{"initiator":"customer","reason":"lost_or_stolen","reason_detail":"on a train"}`, "Api-Key", c.doc.Bridge.APIKey)
	c.try(200, "POST", c.bridgePath("/unfreeze"), ``, "Api-Key", c.doc.Bridge.APIKey)

	p := must[pair](c.t)(c.logIn(c.t.Context()))
	bearer := "Bearer " + p.Access
	for _, path := range c.forward {
		c.try(200, "GET", path, "", "Authorization", bearer)
	}
	c.try(200, "GET", c.forward[len(c.forward)-1], "", "Authorization", bearer, "sessionid", c.newSession().ID())
	c.try(200, "GET", "/deals/"+sandbox.DealWithBank(demoAccount)+"/credentials", "", "Authorization", bearer)
	c.succeedPayroc()
	c.preflightUsers()
	for _, kind := range []string{"payin", "payout", "tlv"} {
		again := randomUUID()
		c.try(200, "POST", "/deals/"+kind, `{"amount":10,"currency":"EUR"}`, "Authorization", bearer, "Idempotency-Key", again)
		c.try(409, "POST", "/deals/"+kind, `{"amount":11,"currency":"EUR"}`, "Authorization", bearer, "Idempotency-Key", again)
	}
}

func (c *apiCaller) preflight(status int, path, origin, method string) {
	c.t.Helper()
	c.try(status, "OPTIONS", path, "", "Origin", origin, "Access-Control-Request-Method", method, "Access-Control-Request-Headers", "sessionid")
}

func (c *apiCaller) passkeyLogsIn(base string) {
	r := c.try(200, "GET", base+"/auth/authentication?credentialId="+c.passkey.CredentialID(), "")
	var asked struct{ Challenge string }
	if err := json.Unmarshal(r.body, &asked); err != nil {
		c.t.Fatal(err)
	}
	challenge, err := base64.RawURLEncoding.DecodeString(asked.Challenge)
	if err != nil {
		c.t.Fatal(err)
	}
	c.try(200, "POST", base+"/auth/authentication", string(c.passkey.Assert(challenge, demoOrigin)), "X-Session-Id", r.header.Get("X-Session-Id"))
}

// passkeyLinks links the card, which nobody has linked at this gateway.
func (c *apiCaller) passkeyLinks() {
	cookie := c.cards["passkey"]
	assertion := c.passkey.Assert([]byte(c.consent("webauthn", cookie)), demoOrigin)
	c.try(200, "PATCH", "/api/card", fmt.Sprintf(`{"method":"webauthn","assertion":%s}`, assertion), "Cookie", cookie)
}

// refuse has each operation refuse what it can.
func (c *apiCaller) refuse() {
	c.refuseGnosisPay()
	c.refuseExa()
	c.refuseBridge()
	c.refusePayments()
	c.refuseUsers()
	c.refusePayroc()
}

func (c *apiCaller) refuseGnosisPay() {
	nobody := must[*http.Client](c.t)(c.caller(demoCaller{Certificate: "nobody.pem", Key: "nobody-key.pem"}))
	var refused []*apiExchange
	nobody.Transport = &recorder{nobody.Transport, c.client.Transport.(*recorder).listeners, &refused}
	c.mintWith(nobody, 403, "POST", "")
	*c.all = append(*c.all, refused...)
	nobody.CloseIdleConnections()
	c.mintWith(c.partner, 400, "POST", `{"operation":"card.freeze"}`)
	c.mintWith(c.partner, 413, "POST", huge())
	c.mintWith(c.partner, 415, "POST", `{}`, "Content-Type", text)

	id := c.newSession().ID()
	for _, path := range []string{"details", "pin"} {
		at, gone := "/api/v1/cards/"+demoCard+"/"+path, "/api/v1/cards/"+randomUUID()+"/"+path
		c.try(400, "GET", at, "", "Authorization", c.token())
		c.try(400, "GET", at, "{}", "Authorization", c.token(), "sessionid", id)
		c.try(401, "GET", at, "", "sessionid", id)
		c.try(404, "GET", gone, "", "Authorization", c.token(), "sessionid", id)
	}
	at := "/api/v1/cards/" + demoCard + "/pin"
	_, data, iv := c.newPIN()
	body := fmt.Sprintf(`{"data":%q,"iv":%q}`, data, iv)
	c.try(400, "PUT", at, `{"data":"x"}`, "Authorization", c.token(), "sessionid", id)
	c.try(401, "PUT", at, body, "Authorization", "Bearer x", "sessionid", id)
	c.try(404, "PUT", "/api/v1/cards/"+randomUUID()+"/pin", body, "Authorization", c.token(), "sessionid", id)
	c.try(413, "PUT", at, huge(), "Authorization", c.token(), "sessionid", id)
	c.try(415, "PUT", at, body, "Authorization", c.token(), "sessionid", id, "Content-Type", text)
}

func (c *apiCaller) refuseExa() {
	none, nobody := c.cards["none"], c.cards["nobody"]
	for _, path := range exaPatches {
		c.try(400, "PATCH", path, `{"mode":-1}`, "Cookie", c.doc.Exa.Cookie)
		c.try(400, "PATCH", path, `{"mode":1,"mode":2}`, "Cookie", c.doc.Exa.Cookie)
		c.try(401, "PATCH", path, `{"mode":1}`)
		c.try(403, "PATCH", path, `{"mode":1}`, "Cookie", nobody)
		c.try(403, "PATCH", path, `{"mode":1}`, "Cookie", c.doc.Exa.Cookie, "Origin", evil)
		c.try(404, "PATCH", path, `{"mode":1}`, "Cookie", none)
		c.try(413, "PATCH", path, huge(), "Cookie", c.doc.Exa.Cookie)
		c.try(415, "PATCH", path, `{"mode":1}`, "Cookie", c.doc.Exa.Cookie, "Content-Type", text)
	}
	for _, base := range []string{"/api", ""} {
		c.try(400, "GET", base+"/card?scope=all", "", "Cookie", c.doc.Exa.Cookie)
		c.try(401, "GET", base+"/card", "", "Cookie", c.doc.Exa.Cookie+"; "+c.doc.Exa.Cookie)
		c.try(403, "GET", base+"/card", "", "Cookie", nobody)
		c.try(404, "GET", base+"/card", "", "Cookie", none)
		c.try(400, "GET", base+"/card/provisioning", "{}", "Authorization", "Bearer "+c.doc.Exa.ProvisioningToken)
		c.try(401, "GET", base+"/card/provisioning", "", "Authorization", "Bearer "+unsigned(c.doc.Exa.ProvisioningToken))
		c.try(403, "GET", base+"/card/provisioning", "", "Authorization", "Bearer "+c.cards["nobody JWT"])
		c.try(404, "GET", base+"/card/provisioning", "", "Authorization", "Bearer "+c.cards["none JWT"])
		login := base + "/auth/authentication"
		c.try(400, "GET", login+"?credentialId=a.b", "")
		c.try(403, "GET", login, "", "Origin", evil)
		c.try(400, "POST", login, `{}`)
		c.try(400, "POST", login, `{}`, "X-Session-Id", "x")
		signature := walletSign(newWallet(), "x")
		known := fmt.Sprintf(`{"method":"siwe","id":%q,"signature":%q}`, c.doc.Exa.CredentialID, signature)
		c.try(400, "POST", login, known, "X-Session-Id", "x")
		c.try(400, "POST", login, fmt.Sprintf(`{"method":"siwe","id":%q,"signature":%q}`, walletAddress(newWallet()), signature), "X-Session-Id", "x")
		c.try(403, "POST", login, known, "X-Session-Id", "x", "Origin", evil)
		c.try(413, "POST", login, huge(), "X-Session-Id", "x")
		c.try(415, "POST", login, known, "X-Session-Id", "x", "Content-Type", text)
	}
}

func (c *apiCaller) refuseBridge() {
	key := c.doc.Bridge.APIKey
	nonce := fmt.Sprintf(`{"client_nonce":%q}`, sandbox.BridgeNonce(sandbox.NewBridgeProof()))
	c.try(413, "POST", c.bridgePath("/ephemeral_keys"), huge(), "Api-Key", key)
	c.try(415, "POST", c.bridgePath("/ephemeral_keys"), nonce, "Api-Key", key, "Content-Type", text)
	c.try(400, "POST", c.bridgePath("/ephemeral_keys"), nonce, "Api-Key", key, "Idempotency-Key", "a b")

	// A key for a card that its issuer does not have.
	secret, timestamp := sandbox.NewBridgeProof()
	r := c.try(200, "POST", c.account(c.doc.Bridge.CustomerID, c.other, "/ephemeral_keys"), fmt.Sprintf(`{"client_nonce":%q}`, sandbox.BridgeNonce(secret, timestamp)), "Api-Key", key)
	var minted struct {
		Key string `json:"ephemeral_key"`
	}
	if err := json.Unmarshal(r.body, &minted); err != nil {
		c.t.Fatal(err)
	}
	c.try(404, "GET", fmt.Sprintf("/v0/card_details/?secret=%s&timestamp=%s", secret, timestamp), "", "Authorization", "Bearer "+minted.Key)
	c.try(400, "GET", "/v0/card_details/?secret=a&secret=b&timestamp=c", "", "Authorization", "Bearer x")
	c.try(400, "GET", "/v0/card_details/?secret=a&timestamp=c", "{}", "Authorization", "Bearer x")
	c.try(401, "GET", "/v0/card_details/?secret=a&timestamp=c", "", "Origin", evil)
	c.try(401, "GET", "/v0/card_details/?timestamp=c", "", "Authorization", "Bearer x")

	c.try(400, "GET", c.bridgePath(""), "{}", "Api-Key", key)
	c.try(401, "GET", c.bridgePath(""), "", "Api-Key", key+"x")
	c.try(404, "GET", c.account(c.doc.Bridge.CustomerID, c.other, ""), "", "Api-Key", key)
	for _, part := range []string{"/freeze", "/unfreeze"} {
		again := randomUUID()
		c.try(400, "POST", c.bridgePath(part), `{"ending_at":"2030-01-01T00:00:00Z"}`, "Api-Key", key)
		c.try(401, "POST", c.bridgePath(part), "")
		c.try(404, "POST", c.account(randomUUID(), c.doc.Bridge.CardAccountID, part), "", "Api-Key", key)
		c.try(413, "POST", c.bridgePath(part), huge(), "Api-Key", key)
		c.try(415, "POST", c.bridgePath(part), `{}`, "Api-Key", key, "Content-Type", text)
		c.try(200, "POST", c.bridgePath(part), "", "Api-Key", key, "Idempotency-Key", again)
		c.try(422, "POST", c.bridgePath(part), "{}", "Api-Key", key, "Idempotency-Key", again)
		c.try(400, "POST", c.bridgePath(part), "", "Api-Key", key)
	}
}

func (c *apiCaller) refusePayments() {
	for _, path := range []string{"/auth/token", "/auth/token/refresh", "/auth/token/revoke"} {
		c.try(400, "POST", path, `{}`)
		c.try(400, "POST", path, `{"account_id":1,"refresh_token":null}`)
		c.try(401, "POST", path, fmt.Sprintf(`{"account_id":"x","public_key":%q,"refresh_token":"x"}`, c.doc.PaymentsGate.PublicKey))
		c.try(413, "POST", path, huge())
		c.try(415, "POST", path, `{}`, "Content-Type", text)
	}
	bearer := "Bearer " + must[pair](c.t)(c.logIn(c.t.Context())).Access
	for _, path := range append([]string{"/auth/token/validate"}, c.forward...) {
		c.try(400, "GET", path, "{}", "Authorization", bearer)
		c.try(401, "GET", path, "")
	}
	for _, kind := range []string{"payin", "payout", "tlv"} {
		at := "/deals/" + kind
		c.try(400, "POST", at, `{"amount":10`, "Authorization", bearer)
		c.try(400, "POST", at, `{"amount":[10]}`, "Authorization", bearer, "api-signature", "AA==")
		c.try(400, "POST", at, `{"amount":-1}`, "Authorization", bearer) // the issuer's own words
		c.try(401, "POST", at, `{"amount":10}`)
		c.try(401, "POST", at, `{"amount":10}`, "Authorization", bearer, "api-signature", "AA==")
		c.try(413, "POST", at, huge(), "Authorization", bearer)
		c.try(415, "POST", at, `{"amount":10}`, "Authorization", bearer, "Content-Type", text)
	}
}

// otherMethods asks each path for methods that it does not have: what it is told has to be what is documented.
func (c *apiCaller) otherMethods(docs map[string]*apiDocument) {
	for _, doc := range docs {
		for _, p := range doc.paths {
			client, base := c.client, c.doc.PublicURL
			if p.listener == "partners" {
				client, base = c.partner, c.doc.PartnersURL
			}
			at := base + strings.NewReplacer("{", "", "}", "").Replace(p.path)
			for _, method := range []string{"PURGE", "HEAD", "OPTIONS"} {
				c.tryAs(client, 405, method, at, "")
			}
			if p.path != "/" {
				c.tryAs(client, 405, "PURGE", at+"/", "")
			}
		}
	}
	c.try(404, "GET", "/nothing", "")
}

// prepared are credentials that are used once, one for each call below.
type prepared struct {
	tokens                  []string // three
	key, secret, timestamp  string
	access, refresh, revoke string
	login, cookie           string // of Exa
}

// preparedCalls is how many calls of the partner's it takes to make them.
const preparedCalls = 6

func (c *apiCaller) prepare() (p prepared) {
	for range 3 {
		p.tokens = append(p.tokens, c.token())
	}
	p.key, p.secret, p.timestamp = c.key()
	first, second := must[pair](c.t)(c.logIn(c.t.Context())), must[pair](c.t)(c.logIn(c.t.Context()))
	p.access, p.refresh, p.revoke = "Bearer "+first.Access, first.Refresh, second.Refresh
	asked := must[challenge](c.t)(c.challenge(c.t.Context()))
	p.cookie = asked.cookie
	p.login = fmt.Sprintf(`{"method":"siwe","id":%q,"signature":%q}`, c.doc.Exa.CredentialID, walletSign(must[string](c.t)(c.wallet()), asked.Message))
	return p
}

// showCards calls what shows or changes a card, at one status for each face.
func (c *apiCaller) showCards(p prepared, gnosispay, exa, exaPIN, bridge int) {
	id := c.newSession().ID()
	c.try(gnosispay, "GET", "/api/v1/cards/"+demoCard+"/details", "", "Authorization", p.tokens[0], "sessionid", id)
	c.try(gnosispay, "GET", "/api/v1/cards/"+demoCard+"/pin", "", "Authorization", p.tokens[1], "sessionid", id)
	s, data, iv := c.newPIN()
	c.try(gnosispay, "PUT", "/api/v1/cards/"+demoCard+"/pin", fmt.Sprintf(`{"data":%q,"iv":%q}`, data, iv), "Authorization", p.tokens[2], "sessionid", s.ID())
	c.try(exa, "GET", "/api/card", "", "Cookie", c.doc.Exa.Cookie)
	c.try(exa, "GET", "/card/provisioning", "", "Authorization", "Bearer "+c.doc.Exa.ProvisioningToken)
	for _, path := range exaPatches {
		c.try(exa, "PATCH", path, `{"status":"FROZEN"}`, "Cookie", c.doc.Exa.Cookie)
		s, data, iv := c.newPIN()
		c.try(exaPIN, "PATCH", path, fmt.Sprintf(`{"data":%q,"iv":%q,"sessionId":%q}`, data, iv, s.ID()), "Cookie", c.doc.Exa.Cookie)
	}
	key := c.doc.Bridge.APIKey
	c.try(bridge, "GET", "/v0/card_details/", "", "Authorization", p.key, "Cardstile-Client-Secret", p.secret, "Cardstile-Client-Timestamp", p.timestamp)
	c.try(bridge, "GET", c.bridgePath(""), "", "Api-Key", key)
	c.try(bridge, "POST", c.bridgePath("/freeze"), "", "Api-Key", key)
	c.try(bridge, "POST", c.bridgePath("/unfreeze"), "", "Api-Key", key)
}

// forwardAll makes each forwarded call.
func (c *apiCaller) forwardAll(access string, status int) {
	for _, path := range c.forward {
		c.try(status, "GET", path, "", "Authorization", access)
	}
	for _, kind := range []string{"payin", "payout", "tlv"} {
		c.try(status, "POST", "/deals/"+kind, `{"amount":10,"currency":"EUR"}`, "Authorization", access)
	}
}

func (c *apiCaller) refreshBody(token string) string {
	return fmt.Sprintf(`{"refresh_token":%q}`, token)
}

func (c *apiCaller) forbidden() {
	p := c.prepare()
	c.showCards(p, 403, 403, 403, 403)
	c.forwardAll(p.access, 403)
	c.try(403, "GET", "/auth/token/validate", "", "Authorization", p.access)
	c.try(401, "POST", "/auth/token/refresh", c.refreshBody(p.refresh))
	c.try(403, "POST", "/auth/token/revoke", c.refreshBody(p.revoke))
}

func (c *apiCaller) forbiddenMints() {
	c.mintWith(c.partner, 403, "POST", "")
	c.try(403, "POST", "/authorize", "", "X-Api-Key", c.doc.Payroc.APIKey)
	c.try(403, "POST", c.bridgePath("/ephemeral_keys"), fmt.Sprintf(`{"client_nonce":%q}`, sandbox.BridgeNonce(sandbox.NewBridgeProof())), "Api-Key", c.doc.Bridge.APIKey)
	c.try(403, "POST", "/auth/token", c.credentials())
	c.try(403, "GET", "/api/auth/authentication", "")
}

// mintAll calls all mints, and what is about tokens.
func (c *apiCaller) mintAll(p prepared, status int) {
	c.mintWith(c.partner, status, "POST", "")
	c.try(status, "POST", c.bridgePath("/ephemeral_keys"), fmt.Sprintf(`{"client_nonce":%q}`, sandbox.BridgeNonce(sandbox.NewBridgeProof())), "Api-Key", c.doc.Bridge.APIKey)
	c.try(status, "POST", "/auth/token", c.credentials())
	c.try(status, "GET", "/auth/token/validate", "", "Authorization", p.access)
	c.try(status, "GET", "/api/auth/authentication", "")
	c.try(status, "POST", "/api/auth/authentication", p.login, "Cookie", p.cookie)
}

// mintAndRefreshAll also calls what takes a refresh token.
func (c *apiCaller) mintAndRefreshAll(p prepared, status int) {
	c.mintAll(p, status)
	c.try(status, "POST", "/auth/token/refresh", c.refreshBody(p.refresh))
	c.try(status, "POST", "/auth/token/revoke", c.refreshBody(p.revoke))
}

func (c *apiCaller) limited() {
	p, page := c.prepare(), c.openPage()
	c.try(200, "GET", page.path("/configuration"), "", "Idempotency-Key", randomUUID())
	c.payrocAll(page, 429)
	c.usersAll(429)
	c.showCards(p, 429, 429, 429, 429)
	c.forwardAll(p.access, 429)
	c.mintAll(p, 429)
	// What takes a refresh token is not limited with the rest: a token that was used up must not be lost.
	c.try(200, "POST", "/auth/token/refresh", c.refreshBody(p.refresh))
	c.try(200, "POST", "/auth/token/revoke", c.refreshBody(p.revoke))
}

func (c *apiCaller) strange() {
	nobodys := strings.Repeat("A", 68)
	for range 2 {
		c.try(401, "POST", "/auth/token/refresh", c.refreshBody(nobodys))
	}
	c.try(429, "POST", "/auth/token/refresh", c.refreshBody(nobodys))
	c.try(429, "POST", "/auth/token/revoke", c.refreshBody(nobodys))
}

// fail has both issuers fail, or stop it.
func (c *apiCaller) fail(rain, payments sandbox.Fault) {
	c.h.rain.SetFault(demoCard, rain)
	c.h.rain.SetFault(c.h.state.Users[0].ID, rain)
	c.h.payments.SetFault(demoAccount, payments)
}

func (c *apiCaller) failing() {
	p := c.prepare()
	c.passkeyLinks()
	c.fail(sandbox.Fault500, sandbox.FaultWrongContentType)
	// Where the issuer fails at a change, it is not known whether it was made.
	id := c.newSession().ID()
	c.try(502, "GET", "/api/v1/cards/"+demoCard+"/details", "", "Authorization", p.tokens[0], "sessionid", id)
	s, data, iv := c.newPIN()
	c.try(504, "PUT", "/api/v1/cards/"+demoCard+"/pin", fmt.Sprintf(`{"data":%q,"iv":%q}`, data, iv), "Authorization", p.tokens[2], "sessionid", s.ID())
	c.try(555, "GET", "/api/card", "", "Cookie", c.doc.Exa.Cookie, "Origin", demoOrigin)
	s, data, iv = c.newPIN()
	c.try(504, "PATCH", "/api/card", fmt.Sprintf(`{"data":%q,"iv":%q,"sessionId":%q}`, data, iv, s.ID()), "Cookie", c.doc.Exa.Cookie)
	for _, path := range c.forward {
		c.try(502, "GET", path, "", "Authorization", p.access)
	}
	for _, kind := range []string{"payin", "payout", "tlv"} {
		c.try(504, "POST", "/deals/"+kind, `{"amount":10}`, "Authorization", p.access)
	}
	c.fail(sandbox.Fault{}, sandbox.Fault500)
	c.forwardAll(p.access, 500)
	c.inProgress("/freeze")
	c.inProgress("/unfreeze")
	c.fail(sandbox.Fault{}, sandbox.Fault{})
}

// inProgress repeats a call while it is still being made.
func (c *apiCaller) inProgress(part string) {
	door := c.h.gate(nil)
	door.close()
	c.fail(sandbox.Fault{}, sandbox.Fault{})
	again, ended := randomUUID(), make(chan error, 1)
	go func() {
		ended <- c.unrecorded(c.t.Context(), "POST", c.bridgePath(part), map[string]string{"Api-Key": c.doc.Bridge.APIKey, "Idempotency-Key": again})
	}()
	eventually(c.t, "the first call at the issuer", func() bool { return door.held() == 1 })
	c.try(409, "POST", c.bridgePath(part), "", "Api-Key", c.doc.Bridge.APIKey, "Idempotency-Key", again)
	door.open()
	if err := <-ended; err != nil {
		c.t.Error(err)
	}
}

// unrecorded does a call, for whatever answer.
func (c *apiCaller) unrecorded(ctx context.Context, method, path string, header map[string]string) error {
	q, err := http.NewRequestWithContext(ctx, method, c.doc.PublicURL+path, nil)
	if err != nil {
		return err
	}
	for name, value := range header {
		q.Header.Set(name, value)
	}
	client := &http.Client{Transport: c.client.Transport.(*recorder).next, Timeout: patience}
	res, err := client.Do(q)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func (c *apiCaller) alone() {
	p := c.prepare()
	c.showCards(p, 502, 555, 555, 502)
	c.forwardAll(p.access, 502)
	c.try(502, "POST", "/v1/payments", c.order(), c.openPage().headers(randomUUID())...)
	c.bring(502)
}

func (c *apiCaller) hanging() {
	p := c.prepare()
	c.fail(sandbox.FaultHang, sandbox.FaultHang)
	c.showCards(p, 504, 555, 504, 504)
	c.forwardAll(p.access, 504)
	c.fail(sandbox.Fault{}, sandbox.Fault{})
	c.h.payroc.SetFault(demoTerminal, sandbox.FaultHang)
	c.h.cards.SetFault(demoPartner, sandbox.FaultHang)
	c.try(504, "POST", "/v1/payments", c.order(), c.openPage().headers(randomUUID())...)
	c.bring(504)
	c.h.payroc.SetFault(demoTerminal, sandbox.Fault{})
	c.h.cards.SetFault(demoPartner, sandbox.Fault{})
}

func (c *apiCaller) busy() {
	p, page := c.prepare(), c.openPage()
	c.fail(sandbox.Fault{}, sandbox.FaultHang)
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	before, ended := c.h.payments.Total(), make(chan error, 1)
	go func() { ended <- c.unrecorded(ctx, "GET", "/wallet", map[string]string{"Authorization": p.access}) }()
	eventually(c.t, "the one call at the issuer", func() bool { return c.h.payments.Total() > before })
	c.showCards(p, 503, 503, 503, 503)
	c.forwardAll(p.access, 503)
	c.mintAndRefreshAll(p, 503)
	c.payrocAll(page, 503)
	c.usersAll(503)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		c.t.Error(err)
	}
	c.fail(sandbox.Fault{}, sandbox.Fault{})
}
