package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// This file is the partner's backend: what it asks of the gateway, and what of the answers its page needs.

// elementToken is what an element begins with.
type elementToken struct {
	EphemeralToken string `json:"ephemeralToken"`
	CardToken      string `json:"cardToken"`
	AppID          string `json:"appId"`
	UserToken      string `json:"userToken"`
}

// mintToken mints a token that shows the card once, with the partner's certificate.
func (p *Page) mintToken(ctx context.Context, _ asked) (any, error) {
	var minted struct {
		Data struct {
			EphemeralToken string `json:"ephemeralToken"`
		} `json:"data"`
	}
	err := ask(ctx, p.config.Partner, question{url: p.config.PartnersURL, path: "/api/v1/ephemeral-token", want: http.StatusOK}, &minted)
	if err != nil {
		return nil, err
	}
	if minted.Data.EphemeralToken == "" {
		return nil, unusable("/api/v1/ephemeral-token")
	}
	return elementToken{minted.Data.EphemeralToken, p.config.Card, p.config.App, p.config.UserToken}, nil
}

// fieldsSession is what hosted fields begin with.
type fieldsSession struct {
	SessionToken string `json:"sessionToken"`
	Library      string `json:"library"`
	Integrity    string `json:"integrity"`
}

// beginFields begins a session of hosted fields, for one page.
func (p *Page) beginFields(ctx context.Context, _ asked) (any, error) {
	bearer, err := p.authorize(ctx)
	if err != nil {
		return nil, err
	}
	path := "/v1/processing-terminals/" + p.config.Terminal + "/hosted-fields-sessions"
	var session struct {
		Token string `json:"token"`
	}
	err = ask(ctx, p.config.Public, question{
		url: p.config.PublicURL, path: path, header: calling(bearer), want: http.StatusCreated,
		body: map[string]string{"libVersion": p.config.LibVersion, "scenario": "payment"},
	}, &session)
	if err != nil {
		return nil, err
	}
	if session.Token == "" {
		return nil, unusable(path)
	}
	return fieldsSession{session.Token, p.config.Library, p.config.Integrity}, nil
}

// payment is what a page may see of a payment.
type payment struct {
	ID     string `json:"paymentId"`
	Result struct {
		Status       string `json:"status"`
		ResponseCode string `json:"responseCode"`
	} `json:"transactionResult"`
	Card struct {
		Type       string `json:"type"`
		CardNumber string `json:"cardNumber"`
	} `json:"card"`
}

// paid is the issuer's answer.
type paid struct {
	Status  int     `json:"status"`
	Payment payment `json:"payment"`
}

const maxToken = 1024 // bytes

// pay pays with the token that stands for the card. The page cannot say what for: a page is not to be trusted with amounts.
func (p *Page) pay(ctx context.Context, in asked) (any, error) {
	if in.Token == "" || len(in.Token) > maxToken {
		return nil, &failure{http.StatusBadRequest, "the body must name a token"}
	}
	bearer, err := p.authorize(ctx)
	if err != nil {
		return nil, err
	}
	const path = "/v1/payments"
	status, body, err := send(ctx, p.config.Public, question{
		url: p.config.PublicURL, path: path, header: calling(bearer),
		body: map[string]any{
			"channel": "web", "processingTerminalId": p.config.Terminal,
			"order":         map[string]any{"orderId": "demo-" + rand.Text()[:8], "amount": 4200, "currency": "EUR"},
			"paymentMethod": map[string]string{"type": "singleUseToken", "token": in.Token},
		},
	})
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusBadRequest && names(body, "paymentMethod.token"):
		return nil, &failure{http.StatusUnprocessableEntity, "the token was used before, is too old, or never was one: the gateway answered 400, and asked no issuer"}
	case status != http.StatusCreated:
		return nil, refused(path, status)
	}
	out := paid{Status: status}
	if err := json.Unmarshal(body, &out.Payment); err != nil || out.Payment.ID == "" {
		return nil, unusable(path)
	}
	out.Payment.Card.CardNumber = masked(out.Payment.Card.CardNumber)
	return out, nil
}

// authorize makes a Bearer of the API key.
func (p *Page) authorize(ctx context.Context) (string, error) {
	const path = "/authorize"
	var session struct {
		AccessToken string `json:"access_token"`
	}
	err := ask(ctx, p.config.Public, question{url: p.config.PublicURL, path: path, header: map[string]string{"x-api-key": p.config.APIKey}, want: http.StatusOK}, &session)
	if err == nil && session.AccessToken == "" {
		err = unusable(path)
	}
	return session.AccessToken, err
}

// calling are the headers of a call that is made once, whatever becomes of it.
func calling(bearer string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + bearer, "Idempotency-Key": newUUID()}
}

// question is a POST to the gateway.
type question struct {
	url, path string
	header    map[string]string
	body      any // JSON; nil sends none
	want      int // status
}

// ask sends a question that has one good answer, and reads that.
func ask(ctx context.Context, c *http.Client, q question, into any) error {
	status, body, err := send(ctx, c, q)
	switch {
	case err != nil:
		return err
	case status != q.want:
		return refused(q.path, status)
	case json.Unmarshal(body, into) != nil:
		return unusable(q.path)
	}
	return nil
}

// send returns whatever the gateway answers. All failures are *failure: why a connection failed may quote what was sent.
func send(ctx context.Context, c *http.Client, q question) (status int, body []byte, err error) {
	var content io.Reader = http.NoBody
	if q.body != nil {
		text, err := json.Marshal(q.body)
		if err != nil {
			return 0, nil, err
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, q.url+q.path, content)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	for name, value := range q.header {
		r.Header.Set(name, value)
	}
	answer, err := c.Do(r)
	if err != nil {
		return 0, nil, &failure{http.StatusBadGateway, fmt.Sprintf("POST %s: the gateway did not answer", q.path)}
	}
	defer answer.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1)); err != nil || len(body) > maxAnswer {
		return 0, nil, unusable(q.path)
	}
	return answer.StatusCode, body, nil
}

func refused(path string, status int) error {
	return &failure{http.StatusBadGateway, fmt.Sprintf("POST %s: the gateway answered %d", path, status)}
}

func unusable(path string) error {
	return &failure{http.StatusBadGateway, fmt.Sprintf("POST %s: the gateway answered something else than was agreed", path)}
}

// names reports whether a problem (RFC 7807) is about a parameter.
func names(body []byte, parameter string) bool {
	var problem struct {
		Errors []struct {
			Parameter string `json:"parameter"`
		} `json:"errors"`
	}
	return json.Unmarshal(body, &problem) == nil && len(problem.Errors) > 0 && problem.Errors[0].Parameter == parameter
}

// masked is a card number that may be shown. The gateway's answers have such a one; a page does not rely on it.
func masked(number string) string {
	if len(number) <= 10 {
		return strings.Repeat("*", len(number))
	}
	return number[:6] + strings.Repeat("*", len(number)-10) + number[len(number)-4:]
}

// newUUID is a version 4 UUID (RFC 9562, section 5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
