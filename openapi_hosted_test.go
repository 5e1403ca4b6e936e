package main

import (
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// The calls of face payroc, and of users and pages of face gnosispay, that the flows leave out.

// openPage is a Bearer, and a session of hosted fields that it began.
type openPage struct {
	bearer traded
	page   fieldsPage
}

// openCalls is how many calls of the partner's it takes to make one.
const openCalls = 2

func (c *apiCaller) openPage() openPage {
	c.t.Helper()
	b, p, err := c.openFields(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return openPage{b, p}
}

// headers are those of the backend's calls.
func (o openPage) headers(key string) []string {
	return []string{"Authorization", "Bearer " + o.bearer.Access, "Idempotency-Key", key}
}

// path is that of a page's call.
func (o openPage) path(part string) string {
	return "/merchant/api/v2/hosted-fields-sessions/" + url.PathEscape(o.page.Token) + part
}

// sessionPaths are where sessions begin.
var sessionPaths = []string{
	"/v1/processing-terminals/" + demoTerminal + "/hosted-fields-sessions", "/processing-terminals/" + demoTerminal + "/hosted-fields-sessions",
}

// order is a payment without a card of hosted fields.
func (c *apiCaller) order() string {
	return fmt.Sprintf(`{"channel":"web","processingTerminalId":%q,"order":{"orderId":"1","amount":4999,"currency":"USD"}}`, demoTerminal)
}

const submittedName = `{"type":"cardholderName","cardholderName":"Ada Example"}`

// pageAll makes the calls of a page.
func (c *apiCaller) pageAll(o openPage, status int) {
	c.t.Helper()
	c.try(status, "GET", o.path("/configuration"), "", "Idempotency-Key", randomUUID())
	c.try(status, "POST", o.path("/fields"), submittedName, "Idempotency-Key", randomUUID())
	c.try(status, "POST", o.path("/single-use-tokens"), "", "Idempotency-Key", randomUUID())
}

// payrocAll makes all calls of face payroc.
func (c *apiCaller) payrocAll(o openPage, status int) {
	c.t.Helper()
	c.try(status, "POST", "/authorize", "", "X-Api-Key", c.doc.Payroc.APIKey)
	for _, at := range sessionPaths {
		c.try(status, "POST", at, c.newFields(), o.headers(randomUUID())...)
	}
	c.pageAll(o, status)
	c.try(status, "POST", "/v1/payments", c.order(), o.headers(randomUUID())...)
}

func (c *apiCaller) succeedPayroc() {
	o := c.openPage()
	c.try(201, "POST", sessionPaths[1], c.newFields(), o.headers(randomUUID())...)
	for part, method := range map[string]string{"/configuration": "GET", "/fields": "POST", "/single-use-tokens": "POST"} {
		c.preflight(204, o.path(part), demoOrigin, method)
		c.preflight(403, o.path(part), evil, method)
		c.preflight(403, o.path(part), demoOrigin, "DELETE")
	}
	// What a key was used for once, it is not used for with another body.
	field, mint := randomUUID(), randomUUID()
	c.try(200, "POST", o.path("/fields"), submittedName, "Idempotency-Key", field)
	c.try(409, "POST", o.path("/fields"), " "+submittedName, "Idempotency-Key", field)
	if err := c.submitCard(c.t.Context(), o.page); err != nil {
		c.t.Fatal(err)
	}
	c.try(200, "POST", o.path("/single-use-tokens"), "", "Idempotency-Key", mint)
	c.try(409, "POST", o.path("/single-use-tokens"), "{}", "Idempotency-Key", mint)
}

func (c *apiCaller) refusePayroc() {
	o, html := c.openPage(), "text/html"
	c.try(413, "POST", "/authorize", huge(), "X-Api-Key", c.doc.Payroc.APIKey)
	for _, at := range sessionPaths {
		used := randomUUID()
		c.try(201, "POST", at, c.newFields(), o.headers(used)...)
		c.try(400, "POST", at, "{}", o.headers(randomUUID())...)
		c.try(401, "POST", at, c.newFields())
		c.try(406, "POST", at, c.newFields(), append(o.headers(randomUUID()), "Accept", html)...)
		c.try(409, "POST", at, " "+c.newFields(), o.headers(used)...)
		c.try(413, "POST", at, huge(), o.headers(randomUUID())...)
		c.try(415, "POST", at, c.newFields(), append(o.headers(randomUUID()), "Content-Type", text)...)
	}
	c.try(403, "POST", "/processing-terminals/another/hosted-fields-sessions", c.newFields(), o.headers(randomUUID())...)
	c.try(406, "GET", o.path("/configuration"), "", "Idempotency-Key", randomUUID(), "Accept", html)
	for part, body := range map[string]string{"/fields": submittedName, "/single-use-tokens": "{}"} {
		c.try(406, "POST", o.path(part), body, "Idempotency-Key", randomUUID(), "Accept", html)
		c.try(413, "POST", o.path(part), huge(), "Idempotency-Key", randomUUID())
		c.try(415, "POST", o.path(part), body, "Idempotency-Key", randomUUID(), "Content-Type", text)
	}
	pay, used := "/v1/payments", randomUUID()
	c.try(401, "POST", pay, c.order())
	c.try(404, "POST", pay, `{"processingTerminalId":"another"}`, o.headers(randomUUID())...)
	c.try(406, "POST", pay, c.order(), append(o.headers(randomUUID()), "Accept", html)...)
	c.try(400, "POST", pay, c.order(), o.headers(randomUUID())...) // the issuer wants to be told how it is paid
	if err := c.submitCard(c.t.Context(), o.page); err != nil {
		c.t.Fatal(err)
	}
	paid := c.payment(o.bearer, must[string](c.t)(c.mintCardToken(c.t.Context(), o.page, randomUUID())), used).body
	c.try(201, "POST", pay, paid, o.headers(used)...)
	c.try(409, "POST", pay, " "+paid, o.headers(used)...)
	c.try(413, "POST", pay, huge(), o.headers(randomUUID())...)
	c.try(415, "POST", pay, c.order(), append(o.headers(randomUUID()), "Content-Type", text)...)
}

// upload is a card that a user brings: a new one each time.
func (c *apiCaller) upload() string {
	c.t.Helper()
	made := must[sandbox.GnosisUpload](c.t)(sandbox.NewGnosisUpload(c.public, sandbox.RandomCard("", "").PAN))
	return string(must[[]byte](c.t)(json.Marshal(made)))
}

func (c *apiCaller) bring(status int, header ...string) {
	c.t.Helper()
	c.try(status, "POST", "/api/v1/cards/verify", c.upload(), append([]string{"Authorization", "Bearer " + c.doc.GnosisPay.UserToken}, header...)...)
}

const toSignPath = "/pci/cards/" + demoCard + "/challenge"

// usersAll makes the calls of users of face gnosispay.
func (c *apiCaller) usersAll(status int) {
	c.t.Helper()
	c.bring(status)
	c.try(status, "GET", toSignPath+"?action=view-pin", "", "Authorization", "Bearer "+c.doc.GnosisPay.UserToken)
}

func (c *apiCaller) preflightUsers() {
	for path, method := range map[string]string{"/api/v1/cards/verify": "POST", "/api/v1/user/card-public-key": "GET", toSignPath: "GET"} {
		c.preflight(204, path, demoOrigin, method)
		c.preflight(403, path, evil, method)
		c.preflight(403, path, demoOrigin, "DELETE")
	}
}

func (c *apiCaller) refuseUsers() {
	c.try(413, "POST", "/api/v1/cards/verify", huge(), "Authorization", "Bearer "+c.doc.GnosisPay.UserToken)
	c.bring(415, "Content-Type", text)
	for _, path := range []string{"/api/v1/session-key", "/api/v1/user/card-public-key", "/?appId=" + demoApp} {
		c.try(400, "GET", path, "{}")
	}
}
