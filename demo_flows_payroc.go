package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// The flows of face payroc: a partner's backend with an API key, and a page of hosted fields into which a card is typed.

func (t *tester) payroc(path string) string { return t.doc.PublicURL + path }

// traded is what an API key is traded for.
type traded struct {
	Access  string `json:"access_token"`
	Type    string `json:"token_type"`
	Scope   string
	Expires int `json:"expires_in"`
}

func readTraded(r *reply) (b traded, err error) {
	if err := json.Unmarshal(r.body, &b); err != nil || strings.Count(b.Access, ".") != 2 || b.Type != "Bearer" || b.Expires < 3590 || b.Expires > 3600 {
		return b, errors.New("the answer is no Bearer of an hour")
	}
	return b, nil
}

// authorize trades the API key for a Bearer.
func (t *tester) authorize(ctx context.Context, body string) (traded, error) {
	r, err := t.want(ctx, t.client, 200, request{method: "POST", url: t.payroc("/authorize"), body: body, header: map[string]string{"x-api-key": t.doc.Payroc.APIKey}})
	if err != nil {
		return traded{}, err
	}
	return readTraded(r)
}

// fieldsPage is a session of hosted fields, as its page knows it.
type fieldsPage struct {
	ProcessingTerminalID, Token string
	ExpiresAt                   time.Time
}

func readPage(r *reply, terminal string) (p fieldsPage, err error) {
	if err := json.Unmarshal(r.body, &p); err != nil || p.ProcessingTerminalID != terminal || !lives(p.ExpiresAt, 10*time.Minute) || len(p.Token) < 43 {
		return p, errors.New("the answer is no session of ten minutes")
	}
	return p, nil
}

// lives reports whether something that was made a moment ago ends when it must. Times are in whole seconds.
func lives(until time.Time, ttl time.Duration) bool {
	left := time.Until(until)
	return left > ttl-10*time.Second && left <= ttl
}

func (t *tester) sessions(terminal string) string {
	return t.payroc("/v1/processing-terminals/" + terminal + "/hosted-fields-sessions")
}

// newFields is the body that begins a session.
func (t *tester) newFields() string {
	return fmt.Sprintf(`{"libVersion":%q,"scenario":"payment"}`, t.doc.Payroc.LibVersion)
}

func (b traded) header(key string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + b.Access, "Idempotency-Key": key}
}

func (t *tester) beginFields(ctx context.Context, b traded, key string) (fieldsPage, error) {
	r, err := t.want(ctx, t.client, 201, request{method: "POST", url: t.sessions(t.doc.Payroc.TerminalID), body: t.newFields(), header: b.header(key)})
	if err != nil {
		return fieldsPage{}, err
	}
	return readPage(r, t.doc.Payroc.TerminalID)
}

// openFields is what a page of hosted fields begins with.
func (t *tester) openFields(ctx context.Context) (b traded, p fieldsPage, err error) {
	if b, err = t.authorize(ctx, ""); err == nil {
		p, err = t.beginFields(ctx, b, randomUUID())
	}
	return b, p, err
}

// page is a call of a page; whatever it is, it has an idempotency key.
func (t *tester) page(p fieldsPage, method, part, key, body string) request {
	return request{
		method: method, url: t.payroc("/merchant/api/v2/hosted-fields-sessions/" + url.PathEscape(p.Token) + part), body: body,
		header: map[string]string{"Idempotency-Key": key, "Content-Type": "application/json", "Origin": t.doc.Origin},
	}
}

// typed are the submissions of a card, field by field.
func typed(c sandbox.Card) []string {
	return []string{
		fmt.Sprintf(`{"type":"cardNumber","cardNumber":%q}`, c.PAN),
		fmt.Sprintf(`{"type":"expiryDate","expiryDate":%q}`, c.ExpiryMonth+c.ExpiryYear[2:]),
		fmt.Sprintf(`{"type":"cvv","cvv":%q}`, c.CVC),
		`{"type":"cardholderName","cardholderName":"Ada Example"}`,
	}
}

// submitCard types the card in.
func (t *tester) submitCard(ctx context.Context, p fieldsPage) error {
	for _, field := range typed(t.checkout) {
		r, err := t.want(ctx, t.client, 200, t.page(p, "POST", "/fields", randomUUID(), field))
		if err != nil {
			return err
		}
		var answer struct {
			Info struct {
				ShowCvv  bool
				CardType *string
			}
		}
		if err := json.Unmarshal(r.body, &answer); err != nil || !answer.Info.ShowCvv || answer.Info.CardType == nil ||
			strings.Contains(field, `"cardNumber"`) != (*answer.Info.CardType != "") {
			return errors.New("the answer is not what a page is told of a field")
		}
	}
	return nil
}

// mintCardToken has what was typed taken together.
func (t *tester) mintCardToken(ctx context.Context, p fieldsPage, key string) (string, error) {
	r, err := t.want(ctx, t.client, 200, t.page(p, "POST", "/single-use-tokens", key, ""))
	if err != nil {
		return "", err
	}
	var answer struct {
		Token     string
		ExpiresAt time.Time
	}
	// Half an hour from when the card may have been typed first: the session's beginning, at most ten minutes ago [11].
	if err := json.Unmarshal(r.body, &answer); err != nil || len(answer.Token) < 43 {
		return "", errors.New("the answer is no single-use token")
	}
	if left := time.Until(answer.ExpiresAt); left < 20*time.Minute || left > 30*time.Minute {
		return "", errors.New("the token is not for the half hour in which a card may be held")
	}
	return answer.Token, nil
}

// payment is the call that pays with a token.
func (t *tester) payment(b traded, token, key string) request {
	return request{method: "POST", url: t.payroc("/v1/payments"), header: b.header(key), body: fmt.Sprintf(
		`{"channel":"web","processingTerminalId":%q,"order":{"orderId":"1","amount":4999,"currency":"USD"},"paymentMethod":{"type":"singleUseToken","token":%q}}`,
		t.doc.Payroc.TerminalID, token)}
}

// problemOf is what a refusal says.
type problemOf struct {
	Type, Title, Detail string
	Status              int
	Errors              []struct{ Parameter, Detail, Message string }
}

// refusedPayroc does a call that must be refused with a problem: its fragment, and which parameter it is about.
func (t *tester) refusedPayroc(ctx context.Context, status int, fragment, parameter string, r request) (*reply, error) {
	got, err := t.want(ctx, t.client, status, r)
	if err != nil {
		return nil, err
	}
	var said problemOf
	if err := json.Unmarshal(got.body, &said); err != nil || said.Status != status || said.Title == "" || said.Detail == "" ||
		got.header.Get("Content-Type") != "application/problem+json" || said.Type != "https://docs.payroc.com/api/errors#"+fragment {
		return nil, fmt.Errorf("the refusal is %q, want the problem %q", said.Type, fragment)
	}
	if parameter != "" && (len(said.Errors) != 1 || said.Errors[0].Parameter != parameter || said.Errors[0].Message == "") {
		return nil, fmt.Errorf("the problem is about %v, want %q", said.Errors, parameter)
	}
	return got, nil
}

func (t *tester) authorizesPayroc(ctx context.Context) error {
	// Of a body, one published client sends what says nothing, another none.
	for _, body := range []string{"", `{"client_id":"","client_secret":""}`} {
		b, err := t.authorize(ctx, body)
		if err != nil {
			return err
		}
		if b.Scope != "hosted-fields payments" {
			return fmt.Errorf("the scope is %q", b.Scope)
		}
	}
	var first []byte
	for _, key := range []string{"", "wrong", t.doc.Payroc.APIKey + "x", strings.ToUpper(t.doc.Payroc.APIKey)} {
		r, err := t.refusedPayroc(ctx, 401, "not-authorized", "", request{method: "POST", url: t.payroc("/authorize"), header: map[string]string{"x-api-key": key}})
		if err != nil {
			return err
		}
		if first == nil {
			first = r.body
		}
		if !bytes.Equal(first, r.body) {
			return errors.New("two refusals can be told apart")
		}
	}
	return nil
}

func (t *tester) beginsFields(ctx context.Context) error {
	b, err := t.authorize(ctx, "")
	if err != nil {
		return err
	}
	again := randomUUID()
	first, err := t.beginFields(ctx, b, again)
	if err != nil {
		return err
	}
	// A repetition is told to the byte what the first call was, whatever Bearer it comes with.
	other, err := t.authorize(ctx, "")
	if err != nil {
		return err
	}
	replayed, err := t.beginFields(ctx, other, again)
	if err != nil {
		return err
	}
	next, err := t.beginFields(ctx, b, randomUUID())
	if err != nil {
		return err
	}
	if first != replayed || first.Token == next.Token {
		return errors.New("a repeated call began another session, or a new one the same")
	}
	// The page that asks first has the session; it may ask again, and no other page may.
	claim := randomUUID()
	for range 2 {
		if _, err := t.want(ctx, t.client, 200, t.page(first, "GET", "/configuration", claim, "")); err != nil {
			return err
		}
	}
	_, err = t.refusedPayroc(ctx, 400, "bad-request", "hostedFieldsSessionId", t.page(first, "GET", "/configuration", randomUUID(), ""))
	return err
}

// refusesFields has a session refused for one thing after the other, in the order of the contract: whatever stands later is wrong as
// well.
func (t *tester) refusesFields(ctx context.Context) error {
	b, err := t.authorize(ctx, "")
	if err != nil {
		return err
	}
	used := randomUUID()
	if _, err := t.beginFields(ctx, b, used); err != nil {
		return err
	}
	at := t.sessions(t.doc.Payroc.TerminalID)
	call := func(address, body string, header ...string) request {
		r := request{method: "POST", url: address, body: body, header: map[string]string{}}
		for i := 0; i < len(header); i += 2 {
			r.header[header[i]] = header[i+1]
		}
		return r
	}
	bearer, text, html := "Bearer "+b.Access, "text/plain", "text/html"
	for _, refused := range []struct {
		status              int
		fragment, parameter string
		r                   request
	}{
		{401, "not-authorized", "", call(at, "{}", "Content-Type", text, "Accept", html)},
		{401, "not-authorized", "", call(at, "{}", "Content-Type", text, "Accept", html, "Authorization", "Bearer "+unsigned(b.Access))},
		{415, "unsupported-media-type", "", call(at, "{}", "Content-Type", text, "Accept", html, "Authorization", bearer)},
		{406, "not-acceptable", "", call(at, "{}", "Accept", html, "Authorization", bearer)},
		{400, "idempotency-key-missing", "Idempotency-Key", call(at, "{}", "Authorization", bearer)},
		{400, "bad-request", "Idempotency-Key", call(at, "{}", "Authorization", bearer, "Idempotency-Key", "6ba7b810-9dad-11d1-80b4-00c04fd430c8")},
		{400, "bad-request", "libVersion", call(at, `{"libVersion":"0.0.0","scenario":"payment"}`, "Authorization", bearer, "Idempotency-Key", used)},
		{400, "bad-request", "scenario", call(at, fmt.Sprintf(`{"libVersion":%q,"scenario":"tokenization"}`, t.doc.Payroc.LibVersion), "Authorization", bearer, "Idempotency-Key", used)},
		{409, "idempotency-key-in-use", "", call(at, " "+t.newFields(), "Authorization", bearer, "Idempotency-Key", used)},
		{403, "forbidden", "", call(t.sessions("1234002"), t.newFields(), "Authorization", bearer, "Idempotency-Key", randomUUID())},
	} {
		if _, err := t.refusedPayroc(ctx, refused.status, refused.fragment, refused.parameter, refused.r); err != nil {
			return err
		}
	}
	return nil
}

func (t *tester) paysPayroc(ctx context.Context) error {
	b, p, err := t.openFields(ctx)
	if err != nil {
		return err
	}
	if err := t.submitCard(ctx, p); err != nil {
		return err
	}
	again := randomUUID()
	token, err := t.mintCardToken(ctx, p, again)
	if err != nil {
		return err
	}
	if replayed, err := t.mintCardToken(ctx, p, again); err != nil || replayed != token {
		return errors.Join(errors.New("the repeated mint gave another token"), err)
	}
	key := randomUUID()
	paid, err := t.want(ctx, t.client, 201, t.payment(b, token, key))
	if err != nil {
		return err
	}
	if err := t.paidWith(paid); err != nil {
		return err
	}
	// Repeated, it is the same payment; with the same token for another one, it is none.
	repeated, err := t.want(ctx, t.client, 201, t.payment(b, token, key))
	if err != nil || !bytes.Equal(repeated.body, paid.body) {
		return errors.Join(errors.New("the repeated payment was answered in another way"), err)
	}
	if _, err := t.refusedPayroc(ctx, 400, "bad-request", "paymentMethod.token", t.payment(b, token, randomUUID())); err != nil {
		return err
	}
	if _, err := t.refusedPayroc(ctx, 400, "bad-request", "paymentMethod.token", t.payment(b, strings.ToUpper(token), randomUUID())); err != nil {
		return err
	}
	// Minted again, it stays spent.
	if replayed, err := t.mintCardToken(ctx, p, again); err != nil || replayed != token {
		return errors.Join(errors.New("the mint that was repeated late gave another token"), err)
	}
	_, err = t.refusedPayroc(ctx, 400, "bad-request", "paymentMethod.token", t.payment(b, token, randomUUID()))
	return err
}

// paidWith checks that the issuer has opened the card that was typed in: it answers with as much of it as may be shown.
func (t *tester) paidWith(r *reply) error {
	var payment struct {
		PaymentID, ProcessingTerminalID string
		TransactionResult               struct{ Status, ResponseCode string }
		Card                            struct{ Type, CardNumber string }
	}
	if err := json.Unmarshal(r.body, &payment); err != nil || payment.PaymentID == "" || payment.ProcessingTerminalID != t.doc.Payroc.TerminalID {
		return errors.New("the answer is no payment")
	}
	pan := t.checkout.PAN
	if want := pan[:6] + strings.Repeat("*", len(pan)-10) + pan[len(pan)-4:]; payment.Card.CardNumber != want {
		return errors.New("it was paid with another card")
	}
	t.say("paid with %s %s: %s", payment.Card.Type, mask(pan), payment.TransactionResult.Status)
	return nil
}

func (t *tester) refusesCards(ctx context.Context) error {
	b, p, err := t.openFields(ctx)
	if err != nil {
		return err
	}
	pan := []byte(t.checkout.PAN)
	pan[len(pan)-1] = '0' + (pan[len(pan)-1]-'0'+1)%10
	for _, wrong := range []struct{ parameter, body string }{
		{"cardNumber", fmt.Sprintf(`{"type":"cardNumber","cardNumber":%q}`, pan)},
		{"expiryDate", `{"type":"expiryDate","expiryDate":"0120"}`},
		{"cvv", `{"type":"cvv","cvv":"12"}`},
		{"type", `{"type":"pin","pin":"x"}`},
	} {
		if _, err := t.refusedPayroc(ctx, 400, "bad-request", wrong.parameter, t.page(p, "POST", "/fields", randomUUID(), wrong.body)); err != nil {
			return err
		}
	}
	// Nothing of these counts.
	if _, err := t.refusedPayroc(ctx, 400, "bad-request", "cardNumber", t.page(p, "POST", "/single-use-tokens", randomUUID(), "")); err != nil {
		return err
	}
	// What stands for no card is not paid with.
	for _, token := range []string{p.Token, "x"} {
		if _, err := t.refusedPayroc(ctx, 400, "bad-request", "paymentMethod.token", t.payment(b, token, randomUUID())); err != nil {
			return err
		}
	}
	p.Token = strings.ToUpper(p.Token)
	_, err = t.refusedPayroc(ctx, 400, "bad-request", "hostedFieldsSessionId", t.page(p, "GET", "/configuration", randomUUID(), ""))
	return err
}

// servesFields asks for the page of a field as published clients do, and for what it calls from which origins.
func (t *tester) servesFields(ctx context.Context) error {
	_, p, err := t.openFields(ctx)
	if err != nil {
		return err
	}
	query := url.Values{
		"field": {"cardNumber"}, "hostedFieldsSessionId": {p.Token}, "targetOrigin": {t.doc.Origin}, "isCvvMandatory": {"true"}, "locale": {"en-US"}, "placeholder": {""},
	}
	page, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.payroc("/merchant/hosted-fields?" + query.Encode())})
	if err != nil {
		return err
	}
	t.bodies = t.bodies[:len(t.bodies)-1] // it holds its own token
	if err := framedBy(page, t.doc.Origin); err != nil || !bytes.Contains(page.body, []byte(`<input class="cs-input" id="cardNumber"`)) {
		return errors.Join(errors.New("the page has no field for a card number"), err)
	}
	query.Set("targetOrigin", elsewhere)
	if _, err := t.refusedPayroc(ctx, 400, "bad-request", "targetOrigin", request{method: "GET", url: t.payroc("/merchant/hosted-fields?" + query.Encode())}); err != nil {
		return err
	}
	for _, from := range []struct {
		origin, allowed string
		status          int
	}{{t.doc.Origin, t.doc.Origin, 204}, {elsewhere, "", 403}} {
		r := t.page(p, "OPTIONS", "/fields", "", "")
		r.header = map[string]string{"Origin": from.origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,idempotency-key"}
		got, err := t.want(ctx, t.client, from.status, r)
		if err != nil {
			return err
		}
		if got.header.Get("Access-Control-Allow-Origin") != from.allowed || (got.header.Get("Access-Control-Allow-Headers") == "Idempotency-Key, Content-Type") != (from.allowed != "") {
			return fmt.Errorf("a page of %s is allowed %v", from.origin, got.header)
		}
	}
	return nil
}

// elsewhere is an origin that is on no list.
const elsewhere = "https://evil.example"
