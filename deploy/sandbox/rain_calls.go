package sandbox

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// Call names a call of the issuer's API.
type Call string

// The calls of Rain.
const (
	CallCard      Call = "card"      // GET /issuing/cards/{id}
	CallUpdate    Call = "update"    // PATCH /issuing/cards/{id}
	CallSecrets   Call = "secrets"   // GET /issuing/cards/{id}/secrets
	CallPIN       Call = "pin"       // GET /issuing/cards/{id}/pin
	CallSetPIN    Call = "set pin"   // PUT /issuing/cards/{id}/pin
	CallProcessor Call = "processor" // GET /issuing/cards/{id}/processorDetails
	CallUser      Call = "user"      // GET /issuing/users/{id}
	CallOther     Call = "other"     // everything that the API does not have
)

// rainCalls is the API: under each path the calls by method. The id is the third segment of each path.
var rainCalls = map[string]map[string]struct {
	call Call
	do   func(*Rain, request) *answer
}{
	"cards": {
		"GET":   {CallCard, (*Rain).getCard},
		"PATCH": {CallUpdate, (*Rain).patchCard},
	},
	"cards/secrets": {"GET": {CallSecrets, (*Rain).getSecrets}},
	"cards/pin": {
		"GET": {CallPIN, (*Rain).getPIN},
		"PUT": {CallSetPIN, (*Rain).putPIN},
	},
	"cards/processorDetails": {"GET": {CallProcessor, (*Rain).getProcessor}},
	"users":                  {"GET": {CallUser, (*Rain).getUser}},
}

// request is an authenticated request for something that exists.
type request struct {
	*http.Request
	id   string
	card Card // zero for a user's
	body []byte
}

// serve answers one request: count and note it, then authenticate, find the call, carry it out, and deliver the answer as well as the fault
// lets it.
func (r *Rain) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, maxBodyBytes+1))
	segments := strings.Split(strings.TrimPrefix(req.URL.Path, "/"), "/")
	kind, id := "", ""
	if len(segments) >= 3 && segments[0] == "issuing" {
		kind, id = strings.Join(slices.Delete(slices.Clone(segments[1:]), 1, 2), "/"), segments[2]
	}
	methods := rainCalls[kind]
	found, ok := methods[req.Method]
	if !ok {
		found.call = CallOther
	}
	r.observer.request(req, body[:min(len(body), maxBodyBytes)])
	r.observer.call(found.call)

	refuse := func(a *answer) { a.deliver(w, req, Fault{}, r.closed) }
	_, isUser := r.users[id]
	card, isCard := r.card(id)
	switch {
	case err != nil:
		refuse(failure(400, "BadRequestError", "Bad request"))
	case len(body) > maxBodyBytes:
		refuse(failure(413, "PayloadTooLargeError", "Payload too large"))
	case !r.authentic(req):
		refuse(failure(401, "UnauthorizedError", "Unauthorized"))
	case methods == nil:
		refuse(failure(404, "NotFoundError", "Not Found"))
	case !ok:
		refuse(failure(405, "MethodNotAllowedError", "Method not allowed"))
	case !accepts(req):
		refuse(failure(406, "NotAcceptableError", "Not acceptable"))
	case !isJSON(req, len(body) > 0):
		refuse(failure(415, "UnsupportedMediaTypeError", "Unsupported media type"))
	case found.call == CallUser && !isUser, found.call != CallUser && !isCard:
		refuse(failure(404, "NotFoundError", "Not Found"))
	default:
		fault := r.fault(id, found.call)
		a := fault.refusal(card)
		if a == nil {
			a = found.do(r, request{Request: req, id: id, card: card, body: body})
		}
		a.deliver(w, req, fault, r.closed)
	}
}

// authentic compares the API key in constant time. Fails closed: exactly one header field.
func (r *Rain) authentic(req *http.Request) bool {
	keys := req.Header.Values("Api-Key")
	if len(keys) != 1 {
		return false
	}
	got := sha256.Sum256([]byte(keys[0]))
	return subtle.ConstantTimeCompare(got[:], r.apiKey[:]) == 1
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

// isJSON reports whether the Content-Type is JSON. Rain's clients state one with every request; without a body it may be absent.
func isJSON(req *http.Request, required bool) bool {
	stated := req.Header.Values("Content-Type")
	if len(stated) == 0 {
		return !required
	}
	t, _, err := mime.ParseMediaType(stated[0])
	return len(stated) == 1 && err == nil && t == "application/json"
}

// session opens the session of a request; nil where the header SessionId is absent, there twice, or cannot be opened.
func (r *Rain) session(req request) *Session {
	ids := req.Header.Values("SessionId")
	if len(ids) != 1 {
		return nil
	}
	s, err := unwrap(r.key, ids[0])
	if err != nil {
		return nil
	}
	return s
}

func badSession() *answer { return failure(400, "BadRequestError", "Invalid session id") }

func (r *Rain) getCard(req request) *answer { return success(cardBody(req.card)) }

func (r *Rain) patchCard(req request) *answer {
	var change struct {
		ID     *string `json:"id"`
		Status *string `json:"status"`
		Limit  *Limit  `json:"limit"`
	}
	if err := decode(req.body, &change); err != nil || change.ID != nil && *change.ID != req.id {
		return failure(400, "BadRequestError", "Bad request")
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
		return failure(400, "BadRequestError", "Bad request")
	}
	if _, err := next.check(); err != nil {
		return failure(400, "BadRequestError", "Bad request")
	}
	if req.card.Status == "canceled" {
		return failure(400, "BadRequestError", "Card is canceled")
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
		return badSession()
	}
	return success(map[string]any{"encryptedPan": s.Seal(req.card.PAN), "encryptedCvc": s.Seal(req.card.CVC)})
}

func (r *Rain) getPIN(req request) *answer {
	s := r.session(req)
	if s == nil {
		return badSession()
	}
	if req.card.PIN == "" {
		if r.fault(req.id, CallPIN).kind == faultNullPIN {
			return success(map[string]any{"encryptedPin": nil})
		}
		return failure(400, "BadRequestError", "Failed to get PIN, card does not have PIN set")
	}
	return success(map[string]any{"encryptedPin": s.Seal(pinBlock(req.card.PIN))})
}

func (r *Rain) putPIN(req request) *answer {
	s := r.session(req)
	if s == nil {
		return badSession()
	}
	var in struct {
		PIN *Sealed `json:"encryptedPin"`
	}
	if err := decode(req.body, &in); err != nil || in.PIN == nil {
		return failure(400, "BadRequestError", "Bad request")
	}
	pin, err := s.OpenPIN(*in.PIN)
	if err != nil {
		return failure(400, "BadRequestError", "Invalid encrypted PIN")
	}
	if weak(pin) {
		return failure(400, "BadRequestError", "Weak PIN")
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

// decode reads one JSON object with no unknown keys and nothing behind it.
func decode(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}
