package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/policy/credential"
)

// Exchanges of hosted fields, and of the users of gnosispay, for openapi_calls_test.go.

// hosted is a backend with a Bearer, and the session of a page.
type hosted struct {
	bearer traded
	page   fieldsPage
	token  string // for a card, where one was typed
}

// hostedCalls is how many calls of the partner's each takes to make: without a card, and with one.
const hostedCalls, heldCalls = 2, 6

func (c *apiCaller) hosted() (h hosted) {
	c.t.Helper()
	var err error
	if h.bearer, h.page, err = c.openFields(c.t.Context()); err != nil {
		c.t.Fatalf("%s: %v", c.what, err)
	}
	return h
}

// held has a card typed in too: without a name, which is not asked for.
func (c *apiCaller) held() hosted {
	c.t.Helper()
	h := c.hosted()
	for _, body := range typed(c.checkout)[:3] {
		c.pageCall(200, h, "POST", "/fields", body)
	}
	h.token = must[string](c.t)(c.mintCardToken(c.t.Context(), h.page, randomUUID()))
	return h
}

// pageCall is a call of the page, with a key of its own unless header has one.
func (c *apiCaller) pageCall(status int, h hosted, method, part, body string, header ...string) {
	c.t.Helper()
	r := c.page(h.page, method, part, randomUUID(), body)
	for i := 0; i < len(header); i += 2 {
		r.header[header[i]] = header[i+1]
	}
	c.tryRequest(status, r)
}

func (c *apiCaller) tryRequest(status int, r request) {
	c.t.Helper()
	var header []string
	for name, value := range r.header {
		header = append(header, name, value)
	}
	c.tryAs(c.client, status, r.method, r.url, r.body, header...)
}

// sessionPaths are where sessions of pages begin.
func (c *apiCaller) sessionPaths() [2]string {
	at := "/processing-terminals/" + c.doc.Payroc.TerminalID + "/hosted-fields-sessions"
	return [2]string{"/v1" + at, at}
}

// embedding is an API key that is good for pages, and not for payments.
func (c *apiCaller) embeddingKey() string {
	_, key, err := credential.Add(c.h.path("credentials.json"), credential.NewAPIKey{Partner: demoPartner, Environment: "test", Scope: []string{"hosted-fields"}, Now: time.Now()})
	if err != nil {
		c.t.Fatal(err)
	}
	return key
}

// upload is the body that brings a card, once.
func (c *apiCaller) upload() string {
	c.t.Helper()
	u := must[sandbox.GnosisUpload](c.t)(sandbox.NewGnosisUpload(c.public, sandbox.RandomCard("", "").PAN))
	return string(must[[]byte](c.t)(json.Marshal(u)))
}

func (c *apiCaller) userBearer() string { return "Bearer " + c.doc.GnosisPay.UserToken }

func (c *apiCaller) challengePath() string {
	return "/pci/cards/" + demoCard + "/challenge?action=view-details"
}

const verifyPath, publicKeyPath = "/api/v1/cards/verify", "/api/v1/user/card-public-key"

func (c *apiCaller) succeedHosted() {
	h := c.held()
	for _, path := range c.sessionPaths() {
		c.try(201, "POST", path, fmt.Sprintf(`{"libVersion":%q,"scenario":"payment","secureTokenId":"a"}`, demoLibrary),
			"Authorization", "Bearer "+h.bearer.Access, "Idempotency-Key", randomUUID())
	}
	for path, method := range map[string]string{"/configuration": "GET", "/fields": "POST", "/single-use-tokens": "POST"} {
		at := "/merchant/api/v2/hosted-fields-sessions/" + h.page.Token + path
		c.preflight(204, at, demoOrigin, method)
		c.preflight(403, at, evil, method)
	}
	for path, method := range map[string]string{c.challengePath(): "GET", publicKeyPath: "GET", verifyPath: "POST"} {
		c.preflight(204, path, demoOrigin, method)
		c.preflight(403, path, demoOrigin, "DELETE")
	}
	c.tryRequest(201, c.payment(h.bearer, h.token, randomUUID()))
}

func (c *apiCaller) refuseHosted() {
	h := c.held()
	bearer := "Bearer " + h.bearer.Access
	session := func(status int, path, body string, header ...string) {
		c.t.Helper()
		c.try(status, "POST", path, body, append([]string{"Idempotency-Key", randomUUID(), "Authorization", bearer}, header...)...)
	}
	for _, path := range c.sessionPaths() {
		again := randomUUID()
		session(201, path, c.newFields(), "Idempotency-Key", again)
		session(409, path, c.newFields()+" ", "Idempotency-Key", again)
		session(400, path, `{"scenario":"payment"}`)
		session(400, path, c.newFields(), "Idempotency-Key", "x")
		session(401, path, c.newFields(), "Authorization", "Bearer x")
		session(403, strings.Replace(path, demoTerminal, "1234002", 1), c.newFields())
		session(406, path, c.newFields(), "Accept", "text/html")
		session(413, path, huge())
		session(415, path, c.newFields(), "Content-Type", text)
	}
	c.try(413, "POST", "/authorize", huge(), "X-Api-Key", c.doc.Payroc.APIKey)

	cvv, again := typed(c.checkout)[2], randomUUID()
	c.pageCall(406, h, "GET", "/configuration", "", "Accept", "text/html")
	c.pageCall(200, h, "POST", "/fields", cvv, "Idempotency-Key", again)
	c.pageCall(409, h, "POST", "/fields", cvv+" ", "Idempotency-Key", again)
	c.pageCall(406, h, "POST", "/fields", cvv, "Accept", "text/html")
	c.pageCall(413, h, "POST", "/fields", huge())
	c.pageCall(415, h, "POST", "/fields", cvv, "Content-Type", text)
	for _, body := range typed(c.checkout)[:2] {
		c.pageCall(200, h, "POST", "/fields", body)
	}
	again = randomUUID()
	c.pageCall(200, h, "POST", "/single-use-tokens", "", "Idempotency-Key", again)
	c.pageCall(409, h, "POST", "/single-use-tokens", "{}", "Idempotency-Key", again)
	c.pageCall(400, h, "POST", "/single-use-tokens", "")
	c.pageCall(406, h, "POST", "/single-use-tokens", "", "Accept", "text/html")
	c.pageCall(413, h, "POST", "/single-use-tokens", huge())
	c.pageCall(415, h, "POST", "/single-use-tokens", "{}", "Content-Type", text)

	pay := func(status int, change func(*request)) {
		c.t.Helper()
		r := c.payment(h.bearer, h.token, randomUUID())
		change(&r)
		c.tryRequest(status, r)
	}
	embedding := must[traded](c.t)(readTraded(c.try(200, "POST", "/authorize", "", "X-Api-Key", c.embedding)))
	pay(401, func(r *request) { delete(r.header, "Authorization") })
	pay(403, func(r *request) { r.header["Authorization"] = "Bearer " + embedding.Access })
	pay(404, func(r *request) { r.body = strings.Replace(r.body, demoTerminal, "1234002", 1) })
	pay(406, func(r *request) { r.header["Accept"] = "text/html" })
	pay(413, func(r *request) { r.body = huge() })
	pay(415, func(r *request) { r.header["Content-Type"] = text })
	again = randomUUID()
	pay(201, func(r *request) { r.header["Idempotency-Key"] = again })
	pay(409, func(r *request) { r.header["Idempotency-Key"], r.body = again, r.body+" " })

	c.try(400, "GET", "/api/v1/session-key", "{}")
	c.try(400, "GET", publicKeyPath, "{}")
	c.try(400, "GET", "/", "{}")
	c.try(413, "POST", verifyPath, huge(), "Authorization", c.userBearer())
	c.try(415, "POST", verifyPath, c.upload(), "Authorization", c.userBearer(), "Content-Type", text)
}

// pagesCall makes each call that a page has, at one status.
func (c *apiCaller) pagesCall(status int, h hosted) {
	c.t.Helper()
	c.pageCall(status, h, "GET", "/configuration", "")
	c.pageCall(status, h, "POST", "/fields", typed(c.checkout)[0])
	c.pageCall(status, h, "POST", "/single-use-tokens", "")
}

// hostedCall makes each call that is not the page's, at one status, and those of users.
func (c *apiCaller) hostedCall(status int, h hosted) {
	c.t.Helper()
	c.try(status, "POST", "/authorize", "", "X-Api-Key", c.doc.Payroc.APIKey)
	for _, path := range c.sessionPaths() {
		c.try(status, "POST", path, c.newFields(), "Authorization", "Bearer "+h.bearer.Access, "Idempotency-Key", randomUUID())
	}
	c.tryRequest(status, c.payment(h.bearer, h.token, randomUUID()))
	c.try(status, "GET", c.challengePath(), "", "Authorization", c.userBearer())
	c.try(status, "POST", verifyPath, c.upload(), "Authorization", c.userBearer())
}

// failHosted has the issuers of payments and of brought cards fail, or stop it.
func (c *apiCaller) failHosted(f sandbox.Fault) {
	c.h.payroc.SetFault(demoTerminal, f)
	c.h.cards.SetFault(demoPartner, f)
}

// issuersAsked pays and brings a card, at one status.
func (c *apiCaller) issuersAsked(status int, h hosted) {
	c.t.Helper()
	c.tryRequest(status, c.payment(h.bearer, h.token, randomUUID()))
	c.try(status, "POST", verifyPath, c.upload(), "Authorization", c.userBearer())
}
