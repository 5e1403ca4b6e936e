package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// The flows of face exa that change something, and how a user gets the cookie.

// exa does a call of the demo's user, and wants a status and, of a refusal, a code.
func (t *tester) exa(ctx context.Context, status int, code string, r request) (*reply, error) {
	if !strings.HasPrefix(r.url, "https:") {
		r.url = t.doc.PublicURL + r.url
	}
	got, err := t.want(ctx, t.client, status, r)
	if err != nil || code == "" {
		return got, err
	}
	var answer struct{ Code string }
	if err := json.Unmarshal(got.body, &answer); err != nil || answer.Code != code {
		return nil, fmt.Errorf("code %q, want %q", answer.Code, code)
	}
	return got, nil
}

func (t *tester) cookie() map[string]string { return map[string]string{"Cookie": t.doc.Exa.Cookie} }

// wallet is the private key of the demo's user.
func (t *tester) wallet() (string, error) {
	content, err := os.ReadFile(t.path(t.doc.Exa.WalletKey))
	return strings.TrimSpace(string(content)), err
}

// challenge is what a login begins with.
type challenge struct {
	Method, Address, Message string
	cookie                   string
}

func (t *tester) challenge(ctx context.Context) (c challenge, err error) {
	r, err := t.exa(ctx, 200, "", request{method: "GET", url: "/api/auth/authentication?credentialId=" + t.doc.Exa.CredentialID})
	if err != nil {
		return c, err
	}
	for _, cookie := range (&http.Response{Header: r.header}).Cookies() {
		if cookie.Name == "session_id" && cookie.HttpOnly && cookie.Secure {
			c.cookie = cookie.Name + "=" + cookie.Value
		}
	}
	if err := json.Unmarshal(r.body, &c); err != nil || c.Method != "siwe" || c.cookie == "" || r.header.Get("X-Session-Id") == "" {
		return c, errors.New("the answer is no challenge for a wallet")
	}
	return c, nil
}

func (t *tester) logsInExa(ctx context.Context) error {
	key, err := t.wallet()
	if err != nil {
		return err
	}
	c, err := t.challenge(ctx)
	if err != nil {
		return err
	}
	signed := func(signature string) string {
		return fmt.Sprintf(`{"method":"siwe","id":%q,"signature":%q}`, t.doc.Exa.CredentialID, signature)
	}
	login := request{method: "POST", url: "/api/auth/authentication", body: signed(walletSign(key, c.Message)), header: map[string]string{"Cookie": c.cookie}}
	r, err := t.exa(ctx, 200, "", login)
	if err != nil {
		return err
	}
	var credential string
	for _, cookie := range (&http.Response{Header: r.header}).Cookies() {
		if cookie.Name == "credential_id" && cookie.HttpOnly && cookie.Secure {
			credential = cookie.Name + "=" + cookie.Value
		}
	}
	if _, err := t.exa(ctx, 200, "", request{method: "GET", url: "/api/card", header: map[string]string{"Cookie": credential}}); err != nil {
		return err
	}
	if _, err := t.exa(ctx, 400, "no authentication", login); err != nil { // taken
		return err
	}
	// A wrong signature takes the challenge too.
	if c, err = t.challenge(ctx); err != nil {
		return err
	}
	login.header = map[string]string{"Cookie": c.cookie}
	login.body = signed(walletSign(newWallet(), c.Message))
	if _, err := t.exa(ctx, 400, "bad authentication", login); err != nil {
		return err
	}
	login.body = signed(walletSign(key, c.Message))
	if _, err := t.exa(ctx, 400, "no authentication", login); err != nil {
		return err
	}
	login.header = nil
	_, err = t.exa(ctx, 400, "bad session", login)
	return err
}

func (t *tester) changesExa(ctx context.Context) error {
	patch := func(status int, code, body string) error {
		_, err := t.exa(ctx, status, code, request{method: "PATCH", url: "/api/card", header: t.cookie(), body: body})
		return err
	}
	s, err := t.session()
	if err != nil {
		return err
	}
	next, err := s.SealPIN(sandbox.RandomCard("next", "").PIN)
	if err != nil {
		return err
	}
	weak, err := t.session()
	if err != nil {
		return err
	}
	guessed, err := weak.SealPIN("1234")
	if err != nil {
		return err
	}
	pin := func(s *sandbox.Session, v sandbox.Sealed) string {
		return fmt.Sprintf(`{"data":%q,"iv":%q,"sessionId":%q}`, v.Data, v.IV, s.ID())
	}
	for _, step := range []struct {
		status     int
		code, body string
	}{
		{200, "", `{"status":"FROZEN"}`},
		{400, "already set", `{"status":"FROZEN"}`},
		{200, "", `{"status":"ACTIVE"}`},
		{200, "", `{"mode":3}`},
		{400, "already set", `{"mode":3}`},
		{200, "", `{"mode":0}`},
		{400, "bad request", `{"mode":1,"status":"ACTIVE"}`},
		{400, "bad request", `{"status":"active"}`},
		{400, "bad request", `{"mode":"1"}`},
		{400, "weak pin", pin(weak, guessed)},
		{200, "", pin(s, next)},
		{400, "bad session id", pin(s, next)}, // the same envelope once more
	} {
		if err := patch(step.status, step.code, step.body); err != nil {
			return err
		}
	}
	// As it was: the other flows know the PIN.
	again, err := t.session()
	if err != nil {
		return err
	}
	old, err := again.SealPIN(t.doc.Card.PIN)
	if err != nil {
		return err
	}
	return patch(200, "", pin(again, old))
}

func (t *tester) linksExa(ctx context.Context) error {
	key, err := t.wallet()
	if err != nil {
		return err
	}
	consent := func() (string, error) {
		r, err := t.exa(ctx, 200, "", request{method: "GET", url: "/api/card?scope=siwe", header: t.cookie()})
		if err != nil {
			return "", err
		}
		var card struct{ Challenge string }
		if err := json.Unmarshal(r.body, &card); err != nil || !strings.Contains(card.Challenge, "to be linked with the card ending in "+t.doc.Card.PAN[12:]) {
			return "", errors.New("the answer lacks the statement to sign")
		}
		return card.Challenge, nil
	}
	link := func(status int, code, message, signature string) error {
		_, err := t.exa(ctx, status, code, request{
			method: "PATCH", url: "/", header: t.cookie(), body: fmt.Sprintf(`{"method":"siwe","message":%q,"signature":%q}`, message, signature),
		})
		return err
	}
	message, err := consent()
	if err != nil {
		return err
	}
	if err := link(400, "bad signature", message, walletSign(newWallet(), message)); err != nil {
		return err
	}
	if err := link(400, "bad signature", message, walletSign(key, message)); err != nil { // taken
		return err
	}
	if message, err = consent(); err != nil {
		return err
	}
	status, code := 200, ""
	if t.linked { // this directory's card is linked since an earlier round of the flows
		status, code = 400, "already set"
	}
	if err := link(status, code, message, walletSign(key, message)); err != nil {
		return err
	}
	t.linked = true
	if message, err = consent(); err != nil {
		return err
	}
	return link(400, "already set", message, walletSign(key, message))
}

func (t *tester) provisionsExa(ctx context.Context) error {
	bearer := map[string]string{"Authorization": "Bearer " + t.doc.Exa.ProvisioningToken}
	r, err := t.exa(ctx, 200, "", request{method: "GET", url: "/api/card/provisioning", header: bearer})
	if err != nil {
		return err
	}
	var answer struct{ ID, Secret string }
	if err := json.Unmarshal(r.body, &answer); err != nil || answer.ID == "" || answer.Secret == "" {
		return errors.New("the answer lacks what is provisioned with")
	}
	if _, err := t.exa(ctx, 200, "", request{method: "GET", url: "/api/card?scope=provisioning", header: t.cookie()}); err != nil {
		return err
	}
	both := map[string]string{"Authorization": "Bearer " + t.doc.Exa.ProvisioningToken, "Cookie": t.doc.Exa.Cookie}
	for _, refused := range []map[string]string{both, nil, t.cookie(), {"Authorization": "Bearer " + unsigned(t.doc.Exa.ProvisioningToken)}} {
		if _, err := t.exa(ctx, 401, "unauthorized", request{method: "GET", url: "/api/card/provisioning", header: refused}); err != nil {
			return err
		}
	}
	_, err = t.exa(ctx, 401, "unauthorized", request{method: "GET", url: "/api/card", header: bearer})
	return err
}

// answersBrowsers tries what pages of listed, and of other, origins may do.
func (t *tester) answersBrowsers(ctx context.Context) error {
	preflight := func(status int, path, origin, allowed string) error {
		r, err := t.do(ctx, t.client, request{method: "OPTIONS", url: t.doc.PublicURL + path, header: map[string]string{
			"Origin": origin, "Access-Control-Request-Method": "GET",
		}})
		if err != nil {
			return err
		}
		t.say("OPTIONS %s from %s  %d", path, origin, r.status)
		if r.status != status || r.header.Get("Access-Control-Allow-Origin") != allowed {
			return fmt.Errorf("preflight of %s: status %d, allowed %q", path, r.status, r.header.Get("Access-Control-Allow-Origin"))
		}
		return nil
	}
	const evil = "https://evil.example"
	if err := errors.Join(
		preflight(204, "/api/card", t.doc.Origin, t.doc.Origin), preflight(403, "/api/card", evil, ""), preflight(204, "/v0/card_details/", evil, "*"),
	); err != nil {
		return err
	}
	header := t.cookie()
	header["Origin"] = evil
	if _, err := t.exa(ctx, 403, "forbidden", request{method: "PATCH", url: "/api/card", header: header, body: `{"mode":7}`}); err != nil {
		return err
	}
	header["Origin"] = t.doc.Origin
	r, err := t.exa(ctx, 200, "", request{method: "GET", url: "/api/card", header: header})
	if err != nil {
		return err
	}
	if r.header.Get("Access-Control-Allow-Origin") != t.doc.Origin || r.header.Get("Access-Control-Allow-Credentials") != "true" || r.header.Get("Vary") != "Origin" {
		return errors.New("a listed page may not read the answer")
	}
	return nil
}
