package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// The flows of face paymentsgate: a partner's service account, and calls that are forwarded for it.

// pair is what a login gives.
type pair struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Expires int    `json:"expires_in"`
}

func (p pair) bearing(more ...string) map[string]string {
	h := map[string]string{"Authorization": "Bearer " + p.Access}
	for i := 0; i+1 < len(more); i += 2 {
		h[more[i]] = more[i+1]
	}
	return h
}

func (t *tester) payments(path string) string { return t.doc.PublicURL + path }

func (t *tester) credentials() string {
	return fmt.Sprintf(`{"account_id":%q,"public_key":%q}`, t.doc.PaymentsGate.AccountID, t.doc.PaymentsGate.PublicKey)
}

func readPair(r *reply) (p pair, err error) {
	if err := json.Unmarshal(r.body, &p); err != nil || strings.Count(p.Access, ".") != 2 || p.Refresh == "" || p.Expires < 3590 || p.Expires > 3600 {
		return p, errors.New("the answer is no pair of tokens of an hour")
	}
	return p, nil
}

func (t *tester) logIn(ctx context.Context) (pair, error) {
	r, err := t.want(ctx, t.client, 200, request{method: "POST", url: t.payments("/auth/token"), body: t.credentials()})
	if err != nil {
		return pair{}, err
	}
	return readPair(r)
}

func (t *tester) logsInPayments(ctx context.Context) error {
	p, err := t.logIn(ctx)
	if err != nil {
		return err
	}
	r, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.payments("/auth/token/validate"), header: p.bearing()})
	if err != nil {
		return err
	}
	var valid struct {
		AccountID string `json:"account_id"`
		Exp       int64
	}
	if err := json.Unmarshal(r.body, &valid); err != nil || valid.AccountID != t.doc.PaymentsGate.AccountID || valid.Exp == 0 {
		return errors.New("the token is another account's")
	}
	keys, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.payments("/.well-known/jwks.json")})
	if err != nil {
		return err
	}
	var set struct {
		Keys []struct{ Kid, Alg, D string }
	}
	if err := json.Unmarshal(keys.body, &set); err != nil || len(set.Keys) == 0 || set.Keys[0].D != "" {
		return errors.New("the set of keys is empty, or holds a private one")
	}
	private, err := os.ReadFile(t.path(t.doc.PaymentsGate.PrivateKey))
	if err != nil {
		return err
	}
	session, err := os.ReadFile(t.path(t.doc.SessionPublicKey))
	if err != nil {
		return err
	}
	encode := base64.StdEncoding.EncodeToString
	for _, refused := range []struct {
		status int
		body   string
	}{
		{401, fmt.Sprintf(`{"account_id":%q,"public_key":%q}`, t.doc.PaymentsGate.AccountID, encode(session))},
		{401, fmt.Sprintf(`{"account_id":%q,"public_key":%q}`, randomUUID(), t.doc.PaymentsGate.PublicKey)},
		{400, fmt.Sprintf(`{"account_id":%q,"public_key":%q}`, t.doc.PaymentsGate.AccountID, encode(private))},
		{400, `{"account_id":1}`},
		{400, fmt.Sprintf(`{"account_id":%[1]q,"account_id":%[1]q,"public_key":%[2]q}`, t.doc.PaymentsGate.AccountID, t.doc.PaymentsGate.PublicKey)},
	} {
		if _, err := t.want(ctx, t.client, refused.status, request{method: "POST", url: t.payments("/auth/token"), body: refused.body}); err != nil {
			return err
		}
	}
	return nil
}

func (t *tester) forwardsPayments(ctx context.Context) error {
	p, err := t.logIn(ctx)
	if err != nil {
		return err
	}
	for _, path := range []string{"/wallet", "/wallet/deposit?currencyId=EUR", "/deals/list", "/deals/" + t.doc.PaymentsGate.Deal, "/banks/find?"} {
		if _, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.payments(path), header: p.bearing()}); err != nil {
			return err
		}
	}
	credentials := t.payments("/deals/" + t.doc.PaymentsGate.Deal + "/credentials")
	masked, err := t.want(ctx, t.client, 200, request{method: "GET", url: credentials, header: p.bearing()})
	if err != nil {
		return err
	}
	var clear struct {
		Number string `json:"account_number"`
	}
	if err := json.Unmarshal(masked.body, &clear); err != nil || !strings.HasSuffix(clear.Number, t.doc.Card.PAN[12:]) || !strings.Contains(clear.Number, "****") {
		return errors.New("without a session the account number is not masked")
	}
	s, err := t.session()
	if err != nil {
		return err
	}
	r, err := t.want(ctx, t.client, 200, request{method: "GET", url: credentials, header: p.bearing("sessionid", s.ID())})
	if err != nil {
		return err
	}
	var sealed struct {
		Number *sandbox.Sealed `json:"account_number"`
	}
	if err := json.Unmarshal(r.body, &sealed); err != nil || sealed.Number == nil {
		return errors.New("with a session the account number is not encrypted")
	}
	if err := opens(s, *sealed.Number, t.doc.Card.PAN, "account number"); err != nil {
		return err
	}
	t.say("masked: %s; decrypted for the session", clear.Number)
	for _, refused := range []struct {
		status int
		r      request
	}{
		{401, request{method: "GET", url: t.payments("/wallet")}},
		{401, request{method: "GET", url: t.payments("/wallet"), header: map[string]string{"Authorization": "Bearer " + unsigned(p.Access)}}},
		{404, request{method: "GET", url: t.payments("/wallet/other"), header: p.bearing()}}, // no route declares it
		{405, request{method: "DELETE", url: t.payments("/wallet"), header: p.bearing()}},
		{400, request{method: "GET", url: credentials, header: p.bearing("sessionid", "%%")}},
	} {
		if _, err := t.want(ctx, t.client, refused.status, refused.r); err != nil {
			return err
		}
	}
	return nil
}

// unsigned is a token whose header says that it needs no signature.
func unsigned(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + payload + "."
}

func (t *tester) signsPayments(ctx context.Context) error {
	p, err := t.logIn(ctx)
	if err != nil {
		return err
	}
	key, err := rsaKeyFile(t.path(t.doc.PaymentsGate.PrivateKey))
	if err != nil {
		return err
	}
	body := `{"amount":10,"currency":"EUR","recipient":{"type":"card"}}`
	signature, err := sandbox.SignPaymentsGate(key, []byte(body))
	if err != nil {
		return err
	}
	signature = strings.Join(strings.Fields(signature), "") // a header has no line breaks
	r := request{method: "POST", url: t.payments("/deals/payin"), body: body, header: p.bearing("api-signature", signature)}
	if _, err := t.want(ctx, t.client, 200, r); err != nil {
		return err
	}
	r.body = strings.Replace(body, "10", "11", 1)
	if _, err := t.want(ctx, t.client, 401, r); err != nil {
		return err
	}
	// An array has no canonical form that all published clients agree on.
	r.body = `{"amount":[10]}`
	_, err = t.want(ctx, t.client, 400, r)
	return err
}

func (t *tester) refresh(ctx context.Context, status int, token string) (*reply, error) {
	return t.want(ctx, t.client, status, request{
		method: "POST", url: t.payments("/auth/token/refresh"), body: fmt.Sprintf(`{"refresh_token":%q}`, token),
		header: map[string]string{"Authorization": "Bearer expired"},
	})
}

func (t *tester) refreshesPayments(ctx context.Context) error {
	first, err := t.logIn(ctx)
	if err != nil {
		return err
	}
	r, err := t.refresh(ctx, 200, first.Refresh)
	if err != nil {
		return err
	}
	second, err := readPair(r)
	if err != nil || second.Refresh == first.Refresh || second.Access == first.Access {
		return errors.Join(errors.New("the next pair is not a new one"), err)
	}
	wallet := request{method: "GET", url: t.payments("/wallet"), header: second.bearing()}
	if _, err := t.want(ctx, t.client, 200, wallet); err != nil {
		return err
	}
	// Whoever shows the first one again has stolen it, or was robbed: all of the login ends.
	refused, err := t.refresh(ctx, 401, first.Refresh)
	if err != nil {
		return err
	}
	if got := refused.header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain") {
		return fmt.Errorf("a failed refresh is of type %q: published clients would not heal themselves", got)
	}
	if _, err := t.want(ctx, t.client, 401, wallet); err != nil {
		return err
	}
	if _, err := t.refresh(ctx, 401, second.Refresh); err != nil {
		return err
	}
	third, err := t.logIn(ctx)
	if err != nil {
		return err
	}
	if _, err := t.want(ctx, t.client, 200, request{
		method: "POST", url: t.payments("/auth/token/revoke"), body: fmt.Sprintf(`{"refresh_token":%q}`, third.Refresh),
	}); err != nil {
		return err
	}
	_, err = t.want(ctx, t.client, 401, request{method: "GET", url: t.payments("/wallet"), header: third.bearing()})
	return err
}
