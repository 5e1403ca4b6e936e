package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// The flows of face bridge: a partner's backend with an API key, and a cardholder's page with a secret of its own.

func (t *tester) bridge(part string) string {
	return t.doc.PublicURL + "/v0/customers/" + t.doc.Bridge.CustomerID + "/card_accounts/" + t.doc.Bridge.CardAccountID + part
}

// backend is what a partner's backend sends.
func (t *tester) backend(idempotencyKey string) map[string]string {
	return map[string]string{"Api-Key": t.doc.Bridge.APIKey, "Idempotency-Key": idempotencyKey}
}

// ephemeralKey mints a key for a nonce.
func (t *tester) ephemeralKey(ctx context.Context, nonce, idempotencyKey string) (string, error) {
	r, err := t.want(ctx, t.client, 200, request{
		method: "POST", url: t.bridge("/ephemeral_keys"), header: t.backend(idempotencyKey), body: fmt.Sprintf(`{"client_nonce":%q}`, nonce),
	})
	if err != nil {
		return "", err
	}
	var answer struct {
		Key string `json:"ephemeral_key"`
	}
	if err := json.Unmarshal(r.body, &answer); err != nil || answer.Key == "" {
		return "", errors.New("the answer lacks the ephemeral key")
	}
	return answer.Key, nil
}

// details are the call that shows a card to whoever has key and secret.
func (t *tester) bridgeDetails(key, secret, timestamp string) request {
	query := url.Values{"secret": {secret}, "timestamp": {timestamp}}
	return request{method: "GET", url: t.doc.PublicURL + "/v0/card_details/?" + query.Encode(), header: map[string]string{"Authorization": "Bearer " + key}}
}

func (t *tester) mintsBridge(ctx context.Context) error {
	secret, timestamp := sandbox.NewBridgeProof()
	nonce, again := sandbox.BridgeNonce(secret, timestamp), randomUUID()
	first, err := t.ephemeralKey(ctx, nonce, again)
	if err != nil {
		return err
	}
	replayed, err := t.ephemeralKey(ctx, nonce, again)
	if err != nil {
		return err
	}
	other, err := t.ephemeralKey(ctx, nonce, randomUUID())
	if err != nil {
		return err
	}
	if first != replayed || first == other {
		return errors.New("a repeated mint gave another key, or a new one the same")
	}
	otherSecret, otherTime := sandbox.NewBridgeProof()
	for _, refused := range []struct {
		status int
		url    string
		header map[string]string
		body   string
	}{
		{422, t.bridge("/ephemeral_keys"), t.backend(again), fmt.Sprintf(`{"client_nonce":%q}`, sandbox.BridgeNonce(otherSecret, otherTime))},
		{400, t.bridge("/ephemeral_keys"), t.backend(randomUUID()), `{"client_nonce":"short"}`},
		{400, t.bridge("/ephemeral_keys"), t.backend(randomUUID()), `{}`},
		{401, t.bridge("/ephemeral_keys"), nil, fmt.Sprintf(`{"client_nonce":%q}`, nonce)},
		{401, t.bridge("/ephemeral_keys"), map[string]string{"Api-Key": t.doc.Bridge.APIKey + "x"}, fmt.Sprintf(`{"client_nonce":%q}`, nonce)},
		{404, t.doc.PublicURL + "/v0/customers/" + randomUUID() + "/card_accounts/" + t.doc.Bridge.CardAccountID + "/ephemeral_keys", t.backend(randomUUID()), fmt.Sprintf(`{"client_nonce":%q}`, nonce)},
		{404, t.doc.PublicURL + "/v0/customers/" + t.doc.Bridge.CustomerID + "/card_accounts/" + randomUUID() + "/ephemeral_keys", t.backend(randomUUID()), fmt.Sprintf(`{"client_nonce":%q}`, nonce)},
	} {
		if _, err := t.want(ctx, t.client, refused.status, request{method: "POST", url: refused.url, header: refused.header, body: refused.body}); err != nil {
			return err
		}
	}
	return nil
}

func (t *tester) revealsBridge(ctx context.Context) error {
	secret, timestamp := sandbox.NewBridgeProof()
	nonce, again := sandbox.BridgeNonce(secret, timestamp), randomUUID()
	key, err := t.ephemeralKey(ctx, nonce, again)
	if err != nil {
		return err
	}
	r, err := t.shows(ctx, t.bridgeDetails(key, secret, timestamp))
	if err != nil {
		return err
	}
	var card struct {
		Number string `json:"card_number"`
		Code   string `json:"card_security_code"`
		Expiry string `json:"expiry_date"`
	}
	if err := json.Unmarshal(r.body, &card); err != nil {
		return errors.New("the answer is no card")
	}
	want := t.doc.Card
	if card.Number != want.PAN || card.Code != want.CVC || card.Expiry != want.ExpiryMonth+"/"+want.ExpiryYear[2:] {
		return errors.New("the card is another one")
	}
	t.say("in clear: %s, expires %s", mask(card.Number), card.Expiry)
	if _, err := t.want(ctx, t.client, 401, t.bridgeDetails(key, secret, timestamp)); err != nil {
		return err
	}
	// The mint again, with its idempotency key, gives the same key, which stays spent.
	if replayed, err := t.ephemeralKey(ctx, nonce, again); err != nil || replayed != key {
		return errors.Join(errors.New("the repeated mint gave another key"), err)
	}
	_, err = t.want(ctx, t.client, 401, t.bridgeDetails(key, secret, timestamp))
	return err
}

// shows does a call whose answer is card data in clear: it is not kept among the answers that are searched for it.
func (t *tester) shows(ctx context.Context, r request) (*reply, error) {
	got, err := t.do(ctx, t.client, r)
	if err != nil {
		return nil, err
	}
	t.bodies = t.bodies[:len(t.bodies)-1]
	t.say("%s (a card in clear)  %d", r.method, got.status)
	if got.status != 200 {
		return nil, fmt.Errorf("status %d, want 200", got.status)
	}
	return got, nil
}

func (t *tester) refusesBridgeAlike(ctx context.Context) error {
	secret, timestamp := sandbox.NewBridgeProof()
	key, err := t.ephemeralKey(ctx, sandbox.BridgeNonce(secret, timestamp), randomUUID())
	if err != nil {
		return err
	}
	other, _ := sandbox.NewBridgeProof()
	var first []byte
	// The first wrong proof burns the key, so that the right one comes too late.
	for _, r := range []request{
		t.bridgeDetails(key, other, timestamp), t.bridgeDetails(key, secret, timestamp), t.bridgeDetails("x", secret, timestamp),
		t.bridgeDetails(key+"=", secret, timestamp),
	} {
		r.url = t.doc.PublicURL + "/v0/card_details" + r.url[len(t.doc.PublicURL+"/v0/card_details/"):] // the form without a slash
		got, err := t.want(ctx, t.client, 401, r)
		if err != nil {
			return err
		}
		if first == nil {
			first = got.body
		}
		if !bytes.Equal(first, got.body) {
			return errors.New("two refusals can be told apart")
		}
	}
	return nil
}

func (t *tester) freezesBridge(ctx context.Context) error {
	for _, step := range []struct{ part, status string }{{"/freeze", "frozen"}, {"/unfreeze", "active"}} {
		if _, err := t.want(ctx, t.client, 200, request{method: "POST", url: t.bridge(step.part), header: t.backend(randomUUID())}); err != nil {
			return err
		}
		r, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.bridge(""), header: t.backend("")})
		if err != nil {
			return err
		}
		var account struct{ Status string }
		if err := json.Unmarshal(r.body, &account); err != nil || account.Status != step.status {
			return fmt.Errorf("the card account is %q, want %q", account.Status, step.status)
		}
	}
	return nil
}
