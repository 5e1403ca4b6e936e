package sandbox

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"
)

// The calls of Bridge.
const (
	CallMint     Call = "mint"     // POST /v0/customers/{customer}/card_accounts/{id}/ephemeral_keys
	CallReveal   Call = "reveal"   // GET /v0/card_details/
	CallFreeze   Call = "freeze"   // POST /v0/customers/{customer}/card_accounts/{id}/freeze
	CallUnfreeze Call = "unfreeze" // POST /v0/customers/{customer}/card_accounts/{id}/unfreeze
	CallAccount  Call = "account"  // GET /v0/customers/{customer}/card_accounts/{id}
)

var bridgeCalls = []endpoint[*Bridge]{
	{"POST", "/v0/customers/{}/card_accounts/{}/ephemeral_keys", CallMint, (*Bridge).mint},
	{"GET", "/v0/card_details/", CallReveal, (*Bridge).reveal},
	{"GET", "/v0/card_details", CallReveal, (*Bridge).reveal},
	{"POST", "/v0/customers/{}/card_accounts/{}/freeze", CallFreeze, (*Bridge).freeze},
	{"POST", "/v0/customers/{}/card_accounts/{}/unfreeze", CallUnfreeze, (*Bridge).unfreeze},
	{"GET", "/v0/customers/{}/card_accounts/{}", CallAccount, (*Bridge).getAccount},
}

func bridgeError(status int, code, message string) *answer {
	return &answer{status: status, body: map[string]any{"code": code, "message": message}}
}

// headerError tells of a header field that is missing ("required") or wrong ("invalid").
func headerError(status int, code, name, message string) *answer {
	a := bridgeError(status, code, message)
	a.body["location"], a.body["name"] = "header", name
	return a
}

const resubmit = "Please resubmit the following parameters that are either missing or invalid."

// parameterError tells of a parameter in the body or the query.
func parameterError(location, name, why string) *answer {
	a := bridgeError(400, "invalid_parameters", resubmit)
	a.body["source"] = map[string]any{"location": location, "key": map[string]any{name: why}}
	return a
}

func (b *Bridge) failure(status int, message string) *answer {
	switch status {
	case 413:
		return bridgeError(413, "payload_too_large", "Request body is too large")
	case 500:
		if message == "" {
			message = "An expected error occurred, you may try again later" // the issuer's own words
		}
		return &answer{status: 500, body: map[string]any{"errors": []any{map[string]any{"code": "unexpected", "message": message}}}}
	default:
		return bridgeError(400, "invalid_parameters", resubmit)
	}
}

// route authenticates, finds the card account, and carries out the call. A reveal has its credential and its card in the ephemeral key.
func (b *Bridge) route(req *http.Request) (Call, respond) {
	e, ids, known := find(bridgeCalls, req)
	return e.call, func(body []byte) (*answer, Fault) {
		if e.call == CallReveal {
			key, _ := bearer(req.Header)
			card := b.peek(key)
			return b.perform(e.call, card, func() *answer { return e.do(b, request{Request: req}) }, card.ID, card.UserID)
		}
		switch {
		case len(req.Header.Values("Api-Key")) == 0:
			return headerError(401, "required", "Api-Key", "Missing Api-Key header"), Fault{}
		case !isKey(req.Header, "Api-Key", b.apiKey):
			return headerError(401, "invalid", "Api-Key", "Invalid Api-Key header"), Fault{}
		case !known:
			return bridgeError(404, "not_found", "Not found"), Fault{}
		case e.call == CallOther:
			return bridgeError(405, "method_not_allowed", "Method not allowed"), Fault{}
		}
		customer, id := ids[0], ids[1]
		card, ok := b.card(id)
		if !ok || card.UserID != customer {
			return bridgeError(404, "Invalid", "Unknown customer id"), Fault{}
		}
		r := request{Request: req, id: id, card: card, body: body}
		return b.perform(e.call, card, func() *answer { return b.once(e, r) }, id, customer)
	}
}

// once carries out a call; one that changes something needs an Idempotency-Key, and is carried out once under it.
func (b *Bridge) once(e endpoint[*Bridge], r request) *answer {
	if e.method != "POST" {
		return e.do(b, r)
	}
	key, ok := one(r.Header, "Idempotency-Key")
	if !ok {
		return headerError(400, "required", "Idempotency-Key", "Missing Idempotency-Key header")
	}
	a, ok := b.replays.once(key, r, func() *answer { return e.do(b, r) })
	if !ok {
		return headerError(422, "invalid", "Idempotency-Key", "Idempotency-Key was used for another request, or more than 24 hours ago")
	}
	return a
}

func (b *Bridge) mint(req request) *answer {
	var in struct {
		Nonce string `json:"client_nonce"`
	}
	err := decode(req.body, &in)
	if mac, errMAC := base64.StdEncoding.Strict().DecodeString(in.Nonce); err != nil || errMAC != nil || len(mac) != 32 || !isJSON(req.Request, true) {
		return parameterError("body", "client_nonce", "must be a nonce: 44 characters of base64, in a body of JSON")
	}
	key := "ek_" + rand.Text()
	b.keep(key, ephemeral{card: req.id, nonce: in.Nonce, minted: time.Now()})
	return success(map[string]any{"ephemeral_key": key})
}

// reveal consumes the key first and compares then, so that a wrong proof burns it. Whatever is wrong with a key or a proof, the answer is one.
func (b *Bridge) reveal(req request) *answer {
	key, ok := bearer(req.Header)
	if !ok {
		return headerError(401, "required", "Authorization", "Missing Authorization header")
	}
	query := req.URL.Query()
	secret, ok := oneOf(query, "secret", "clientSecret")
	if !ok {
		return parameterError("query", "secret", "must be there once")
	}
	timestamp, ok := oneOf(query, "timestamp", "clientTimestamp")
	if !ok {
		return parameterError("query", "timestamp", "must be there once")
	}
	e, ok := b.take(key)
	if !ok || subtle.ConstantTimeCompare([]byte(BridgeNonce(secret, timestamp)), []byte(e.nonce)) != 1 {
		return bridgeError(401, "invalid", "Invalid ephemeral key, secret or timestamp")
	}
	c, _ := b.card(e.card)
	return success(map[string]any{"card_number": c.PAN, "card_security_code": c.CVC, "expiry_date": c.monthYear()})
}

func (b *Bridge) freeze(req request) *answer { return b.turn(req, "active", "locked") }

func (b *Bridge) unfreeze(req request) *answer { return b.turn(req, "locked", "active") }

// turn changes a card's status. A card that is there already stays; one that is neither here nor there is refused. The contract gives no body:
// one of JSON is taken and not looked into.
func (b *Bridge) turn(req request, from, to string) *answer {
	if len(req.body) > 0 && (!isJSON(req.Request, true) || !json.Valid(req.body)) {
		return b.failure(400, "")
	}
	c := b.update(req.id, func(c *Card) {
		if c.Status == from {
			c.Status = to
		}
	})
	if c.Status != to {
		return bridgeError(400, "invalid", "Card account is "+bridgeStatus[c.Status])
	}
	return success(accountBody(c))
}

func (b *Bridge) getAccount(req request) *answer { return success(accountBody(req.card)) }

func accountBody(c Card) map[string]any {
	pin := "set"
	if c.PIN == "" {
		pin = "not_set"
	}
	return map[string]any{
		"id": c.ID, "customer_id": c.UserID, "status": bridgeStatus[c.Status],
		"card_details": map[string]any{"last_4": c.last4(), "expiry": c.monthYear(), "bin": c.PAN[:6], "pin_status": pin},
	}
}
