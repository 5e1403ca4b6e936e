package sandbox

import (
	"cmp"
	"crypto/sha256"
	"mime"
	"net/http"
	"strings"
)

// The calls of Rain.
const (
	CallCard      Call = "card"      // GET /issuing/cards/{id}
	CallUpdate    Call = "update"    // PATCH /issuing/cards/{id}
	CallSecrets   Call = "secrets"   // GET /issuing/cards/{id}/secrets
	CallPIN       Call = "pin"       // GET /issuing/cards/{id}/pin
	CallSetPIN    Call = "set pin"   // PUT /issuing/cards/{id}/pin
	CallProcessor Call = "processor" // GET /issuing/cards/{id}/processorDetails
	CallUser      Call = "user"      // GET /issuing/users/{id}
)

var rainCalls = []endpoint[*Rain]{
	{"GET", "/issuing/cards/{}", CallCard, (*Rain).getCard},
	{"PATCH", "/issuing/cards/{}", CallUpdate, (*Rain).patchCard},
	{"GET", "/issuing/cards/{}/secrets", CallSecrets, (*Rain).getSecrets},
	{"GET", "/issuing/cards/{}/pin", CallPIN, (*Rain).getPIN},
	{"PUT", "/issuing/cards/{}/pin", CallSetPIN, (*Rain).putPIN},
	{"GET", "/issuing/cards/{}/processorDetails", CallProcessor, (*Rain).getProcessor},
	{"GET", "/issuing/users/{}", CallUser, (*Rain).getUser},
}

// rainErrors are the kinds of errors by status, each with its usual message.
var rainErrors = map[int]struct{ kind, message string }{
	400: {"BadRequestError", "Bad request"},
	401: {"UnauthorizedError", "Unauthorized"},
	404: {"NotFoundError", "Not Found"},
	405: {"MethodNotAllowedError", "Method not allowed"},
	406: {"NotAcceptableError", "Not acceptable"},
	413: {"PayloadTooLargeError", "Payload too large"},
	415: {"UnsupportedMediaTypeError", "Unsupported media type"},
	500: {"InternalServerError", "Something went wrong"},
}

func (r *Rain) failure(status int, message string) *answer {
	e := rainErrors[status]
	return &answer{status: status, body: map[string]any{"error": e.kind, "message": cmp.Or(message, e.message)}}
}

// route authenticates, finds what the call is for, and carries it out.
func (r *Rain) route(req *http.Request) (Call, respond) {
	e, ids, known := find(rainCalls, req)
	return e.call, func(body []byte) (*answer, Fault) {
		switch {
		case !isKey(req.Header, "Api-Key", r.apiKey):
			return r.failure(401, ""), Fault{}
		case !known:
			return r.failure(404, ""), Fault{}
		case e.call == CallOther:
			return r.failure(405, ""), Fault{}
		case !accepts(req):
			return r.failure(406, ""), Fault{}
		case !isJSON(req, len(body) > 0):
			return r.failure(415, ""), Fault{}
		}
		id := ids[0]
		_, isUser := r.users[id]
		card, isCard := r.card(id)
		if e.call == CallUser && !isUser || e.call != CallUser && !isCard {
			return r.failure(404, ""), Fault{}
		}
		return r.perform(e.call, card, func() *answer {
			return e.do(r, request{Request: req, id: id, card: card, body: body})
		}, id)
	}
}

// accepts reports whether the caller takes JSON; no Accept at all takes everything (RFC 9110, section 12.5.1).
func accepts(req *http.Request) bool {
	if len(req.Header.Values("Accept")) == 0 {
		return true
	}
	for _, v := range strings.Split(strings.Join(req.Header.Values("Accept"), ","), ",") {
		t, _, err := mime.ParseMediaType(v)
		if err == nil && (t == "application/json" || t == "application/*" || t == "*/*") {
			return true
		}
	}
	return false
}

// session opens the session of a request, nil where there is none.
func (r *Rain) session(req request) *Session {
	return sessionOf(r.key, req.Header)
}

func (r *Rain) badSession() *answer { return r.failure(400, "Invalid session id") }

func (r *Rain) getCard(req request) *answer { return success(cardBody(req.card)) }

func (r *Rain) patchCard(req request) *answer {
	var change struct {
		ID     *string `json:"id"`
		Status *string `json:"status"`
		Limit  *Limit  `json:"limit"`
	}
	if err := decode(req.body, &change); err != nil || change.ID != nil && *change.ID != req.id {
		return r.failure(400, "")
	}
	next := req.card
	if change.Status != nil {
		next.Status = *change.Status
	}
	if change.Limit != nil {
		next.Limit = *change.Limit
	}
	// check takes an empty status or limit for its default, so these are asked here.
	if next.Status == "" || next.Limit == (Limit{}) {
		return r.failure(400, "")
	}
	if _, err := next.check(); err != nil {
		return r.failure(400, "")
	}
	if req.card.Status == "canceled" {
		return r.failure(400, "Card is canceled")
	}
	return success(cardBody(r.update(req.id, func(c *Card) {
		if change.Status != nil {
			c.Status = next.Status
		}
		if change.Limit != nil {
			c.Limit = next.Limit
		}
	})))
}

func cardBody(c Card) map[string]any {
	body := map[string]any{
		"id": c.ID, "userId": c.UserID, "type": "virtual", "status": c.Status,
		"limit": map[string]any{"amount": c.Limit.Amount, "frequency": c.Limit.Frequency},
		"last4": c.last4(), "expirationMonth": c.ExpiryMonth, "expirationYear": c.ExpiryYear,
	}
	if c.ProductID != "" {
		body["productId"] = c.ProductID
	}
	return body
}

func (r *Rain) getSecrets(req request) *answer {
	s := r.session(req)
	if s == nil {
		return r.badSession()
	}
	return success(map[string]any{"encryptedPan": s.Seal(req.card.PAN), "encryptedCvc": s.Seal(req.card.CVC)})
}

func (r *Rain) getPIN(req request) *answer {
	s := r.session(req)
	if s == nil {
		return r.badSession()
	}
	if req.card.PIN == "" {
		if r.fault(CallPIN, req.id).kind == faultNullPIN {
			return success(map[string]any{"encryptedPin": nil})
		}
		return r.failure(400, "Failed to get PIN, card does not have PIN set")
	}
	return success(map[string]any{"encryptedPin": s.Seal(pinBlock(req.card.PIN))})
}

func (r *Rain) putPIN(req request) *answer {
	s := r.session(req)
	if s == nil {
		return r.badSession()
	}
	var in struct {
		PIN *Sealed `json:"encryptedPin"`
	}
	if err := decode(req.body, &in); err != nil || in.PIN == nil {
		return r.failure(400, "")
	}
	pin, err := s.OpenPIN(*in.PIN)
	if err != nil {
		return r.failure(400, "Invalid encrypted PIN")
	}
	if weak(pin) {
		return r.failure(400, "Weak PIN")
	}
	r.update(req.id, func(c *Card) { c.PIN = pin })
	return success(map[string]any{})
}

func (r *Rain) getProcessor(req request) *answer {
	// Derived from the card's id, so that it stays the same as long as the card does; the secret is new each time.
	sum := sha256.Sum256([]byte("processor card " + req.id))
	return success(map[string]any{"processorCardId": fmtUUID(sum), "timeBasedSecret": randomHex(16)})
}

func (r *Rain) getUser(req request) *answer {
	u := r.users[req.id]
	return success(map[string]any{
		"id": u.ID, "firstName": u.FirstName, "lastName": u.LastName, "email": u.Email, "isActive": true,
		"phoneCountryCode": "1", "phoneNumber": "5555550100", "applicationStatus": "approved", "applicationReason": "",
	})
}
