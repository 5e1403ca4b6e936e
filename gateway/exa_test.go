package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// exaPatch is PATCH /api/card of a user's cookie.
func (h *house) exaPatch(user, body string) call {
	x := h.exaCall(user, "")
	x.method, x.body = "PATCH", body
	return x.with("Content-Type", "application/json")
}

func (h *house) exaPINCall(user string, s *sandbox.Session, pin string) call {
	sealed, err := s.SealPIN(pin)
	must(err)
	return h.exaPatch(user, fmt.Sprintf(`{"data":%q,"iv":%q,"sessionId":%q}`, sealed.Data, sealed.IV, s.ID()))
}

// exaBegun is a login that began.
type exaBegun struct {
	Method, Address, Message string
	Challenge                string
	id                       string // of the challenge
	call                     call   // that began it
}

// exaChallenge begins a login with a credential id; "" is any passkey.
func (h *house) exaChallenge(id string) exaBegun {
	h.t.Helper()
	b := exaBegun{call: call{listener: "public", method: "GET", path: "/api/auth/authentication"}}
	if id != "" {
		b.call.path += "?credentialId=" + id
	}
	r := h.anybody().do(b.call)
	if err := json.Unmarshal([]byte(r.body), &b); r.status != http.StatusOK || err != nil {
		h.t.Fatalf("no challenge: %d %s", r.status, r.body)
	}
	b.id = h.secret(r.header.Get("X-Session-Id"))
	return b
}

// loginWith is the call that ends the login, with a body.
func (b exaBegun) loginWith(body string) call {
	return call{listener: "public", method: "POST", path: b.call.path[:len("/api/auth/authentication")], body: body,
		header: []string{"Content-Type", "application/json", "Cookie", "session_id=" + b.id}}
}

// login is a wallet's.
func (b exaBegun) login(id, signature string) call {
	return b.loginWith(fmt.Sprintf(`{"method":"siwe","id":%q,"signature":%q}`, id, signature))
}

// exaConsent is what a user is asked to sign, to link their card.
func (h *house) exaConsent(user, scope string) string {
	h.t.Helper()
	x := h.exaCall(user, "")
	x.path += "?scope=" + scope
	r := h.anybody().do(x)
	var v struct{ Challenge string }
	if err := json.Unmarshal([]byte(r.body), &v); r.status != http.StatusOK || err != nil || v.Challenge == "" {
		h.t.Fatalf("no consent: %d %s", r.status, r.body)
	}
	return v.Challenge
}
