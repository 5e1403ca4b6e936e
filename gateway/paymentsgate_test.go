package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// login is what a service account has once it is logged in.
type login struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Expires int    `json:"expires_in"`
}

// call is one with the login's access token.
func (l login) call(method, path, body string, header ...string) call {
	x := call{listener: "public", method: method, path: path, body: body, header: []string{"Authorization", "Bearer " + l.Access}}
	if body != "" {
		x = x.with("Content-Type", "application/json")
	}
	return x.with(header...)
}

// signed adds the account's signature over the body.
func (h *house) signed(x call) call {
	signature, err := sandbox.SignPaymentsGate(shared().service, []byte(x.body))
	must(err)
	return x.with("Api-Signature", h.secret(strings.Join(strings.Fields(signature), "")))
}

// loginCall is that of an account with its public key.
func loginCall(id string) call {
	return call{
		listener: "public", method: "POST", path: "/auth/token", header: []string{"Content-Type", "application/json"},
		body: fmt.Sprintf(`{"account_id":%q,"public_key":%q}`, id, publicText(&shared().service.PublicKey)),
	}
}

// readLogin reads a pair of tokens.
func (h *house) readLogin(r reply) (l login) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(r.body), &l); r.status != http.StatusOK || err != nil || strings.Count(l.Access, ".") != 2 || l.Refresh == "" || l.Expires < 3590 || l.Expires > 3600 {
		h.t.Fatalf("no pair of tokens: %d %s", r.status, r.body)
	}
	h.secret(l.Access)
	h.secret(l.Refresh)
	return l
}

func (h *house) accountLogin(id string) login {
	h.t.Helper()
	return h.readLogin(h.anybody().do(h.signed(loginCall(id))))
}
