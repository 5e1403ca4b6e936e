package sandbox

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CallPayment is the call of Payroc: POST /v1/payments.
const CallPayment Call = "payment"

// payrocCalls has nothing that carries the call out: it needs more than a request, see route.
var payrocCalls = []endpoint[*Payroc]{{"POST", "/v1/payments", CallPayment, nil}}

// payrocErrors are the problems by their fragment.
var payrocErrors = map[string]struct {
	status        int
	title, detail string
}{
	"bad-request":             {400, "Bad request", "One or more validation errors occurred, see error section for more info"},
	"idempotency-key-missing": {400, "Idempotency key missing", "The Idempotency-Key header is missing"},
	"not-authorized":          {401, "Not authorized", "We can’t verify your identity. This can occur if your Bearer token has expired."},
	"not-found":               {404, "Not found", "The resource was not found"},
	"method-not-allowed":      {405, "Method not allowed", "The resource does not have this method"},
	"not-acceptable":          {406, "Not acceptable", "The response would be JSON"},
	"idempotency-key-in-use":  {409, "Idempotency key in use", "The Idempotency-Key was used with another body, or more than 24 hours ago"},
	"payload-too-large":       {413, "Payload too large", "The body is too large"},
	"unsupported-media-type":  {415, "Unsupported media type", "The body must be JSON"},
	"api-error":               {500, "Api error", "We are unable to process your request at this time"},
}

// problem is an error in Payroc's shape (RFC 7807). An empty detail is the usual one.
func problem(fragment, detail string) *answer {
	e := payrocErrors[fragment]
	return &answer{
		status: e.status,
		body: map[string]any{
			"type": "https://docs.payroc.com/api/errors#" + fragment, "title": e.title, "status": e.status, "detail": cmp.Or(detail, e.detail),
		},
		header: map[string]string{"Content-Type": "application/problem+json"},
	}
}

// invalid tells of a parameter of the body, or of a header field.
func invalid(parameter string) *answer {
	a := problem("bad-request", "")
	message := "'" + parameter[strings.LastIndexByte(parameter, '.')+1:] + "' supplied is invalid"
	a.body["errors"] = []any{map[string]any{"parameter": parameter, "detail": message, "message": message}}
	return a
}

func (*Payroc) failure(status int, message string) *answer {
	for fragment, e := range payrocErrors {
		if e.status == status && fragment != "idempotency-key-missing" {
			return problem(fragment, message)
		}
	}
	return problem("api-error", message)
}

// route authenticates, reads the payment, and carries it out.
func (p *Payroc) route(req *http.Request) (Call, respond) {
	e, _, known := find(payrocCalls, req)
	return e.call, func(body []byte) (*answer, Fault) {
		switch {
		case !isBearer(req.Header, p.apiKey):
			return problem("not-authorized", ""), Fault{}
		case !known:
			return problem("not-found", ""), Fault{}
		case e.call == CallOther:
			return problem("method-not-allowed", ""), Fault{}
		case !isJSON(req, true):
			return problem("unsupported-media-type", ""), Fault{}
		case !accepts(req):
			return problem("not-acceptable", ""), Fault{}
		}
		in := p.read(req, body)
		return p.perform(e.call, Card{PAN: in.number, CVC: in.code}, func() *answer { return p.once(req, in) }, in.terminal)
	}
}

// payment is a payment as it came, with its card opened.
type payment struct {
	terminal     string
	number, code string
	expiry, name string
	text         []byte  // of the body, the same for the same payment: a card is sealed anew each time
	bad          *answer // what is wrong with it; nil where nothing is
}

// paymentMethod is a card as it stands in a payment.
type paymentMethod struct {
	Type        string `json:"type"`
	CardDetails struct {
		EncryptedPAN   *Sealed `json:"encryptedPan"`
		EncryptedCVC   *Sealed `json:"encryptedCvc"`
		ExpiryDate     string  `json:"expiryDate"`
		CardholderName string  `json:"cardholderName"`
	} `json:"cardDetails"`
}

// read reads as much of a payment as it can. It does not look into the members other than terminal and card.
func (p *Payroc) read(req *http.Request, body []byte) (in payment) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		in.bad = problem("bad-request", "")
		return in
	}
	if named, ok := members["processingTerminalId"]; !ok && len(p.terminals) == 1 {
		in.terminal = p.terminals[0] // there is no other
	} else if err := json.Unmarshal(named, &in.terminal); err != nil || !slices.Contains(p.terminals, in.terminal) {
		in.bad = invalid("processingTerminalId")
		return in
	}
	in.bad = p.open(req, members["paymentMethod"], &in)
	members["paymentMethod"] = marshal([]string{in.number, in.code, in.expiry, in.name})
	in.text = marshal(members)
	return in
}

// open opens the card of a payment and checks it. It returns what is wrong with it.
func (p *Payroc) open(req *http.Request, method json.RawMessage, in *payment) *answer {
	var card paymentMethod
	details := &card.CardDetails
	if err := decode(method, &card); err != nil || card.Type != "card" || details.EncryptedPAN == nil {
		return invalid("paymentMethod")
	}
	s := sessionOf(p.key, req.Header)
	if s == nil {
		return invalid("SessionId")
	}
	const at = "paymentMethod.cardDetails."
	var err error
	if in.number, err = s.Open(*details.EncryptedPAN); err != nil || !digits(in.number, 12, 19) || checkDigit(in.number[:len(in.number)-1]) != in.number[len(in.number)-1:] {
		return invalid(at + "encryptedPan")
	}
	if details.EncryptedCVC != nil {
		length := 3
		if cardType(in.number) == "Amex" {
			length = 4
		}
		if in.code, err = s.Open(*details.EncryptedCVC); err != nil || !digits(in.code, length, length) {
			return invalid(at + "encryptedCvc")
		}
	}
	if in.expiry = details.ExpiryDate; expired(in.expiry) {
		return invalid(at + "expiryDate")
	}
	in.name = details.CardholderName
	return nil
}

// expired reports whether a card with this MMYY may not be paid with: it is over, or is no month at all.
func expired(expiry string) bool {
	if !digits(expiry, 4, 4) || expiry[:2] < "01" || expiry[:2] > "12" {
		return true
	}
	month, _ := strconv.Atoi(expiry[:2])
	year, _ := strconv.Atoi(expiry[2:])
	return !time.Now().Before(time.Date(2000+year, time.Month(month)+1, 1, 0, 0, 0, 0, time.UTC))
}

// cardType has Payroc's words for the networks whose test cards are at hand.
func cardType(number string) string {
	switch beginning := number[:2]; {
	case beginning[0] == '4':
		return "Visa"
	case beginning >= "51" && beginning <= "55", beginning >= "22" && beginning <= "27":
		return "MasterCard"
	case beginning == "34" || beginning == "37":
		return "Amex"
	case beginning == "60" || beginning == "65":
		return "Discover"
	}
	return "Other"
}

// once carries a payment out once under its Idempotency-Key, which is a UUID of version 4. The same payment under another session is the same.
func (p *Payroc) once(req *http.Request, in payment) *answer {
	if len(req.Header.Values("Idempotency-Key")) == 0 {
		return problem("idempotency-key-missing", "")
	}
	key, ok := one(req.Header, "Idempotency-Key")
	if !ok || !isUUID4(key) {
		return invalid("Idempotency-Key")
	}
	if in.bad != nil {
		return in.bad
	}
	a, ok := p.replays.once(key, request{Request: req, body: in.text}, func() *answer { return p.pay(in) })
	if !ok {
		return problem("idempotency-key-in-use", "")
	}
	return a
}

// isUUID4 reports whether a text is a UUID of version 4 (RFC 9562, section 5.4).
func isUUID4(text string) bool {
	const form = "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx"
	if len(text) != len(form) {
		return false
	}
	for i, c := range []byte(strings.ToLower(text)) {
		allowed := "0123456789abcdef"
		switch form[i] {
		case '-', '4':
			allowed = form[i : i+1]
		case 'y':
			allowed = "89ab"
		}
		if strings.IndexByte(allowed, c) < 0 {
			return false
		}
	}
	return true
}

// pay takes a payment.
func (p *Payroc) pay(in payment) *answer {
	taken := Payment{
		Terminal: in.terminal, CardNumber: masked(in.number), NumberSHA256: sha256.Sum256([]byte(in.number)),
		ExpiryDate: in.expiry, CardholderName: in.name,
	}
	if in.code != "" {
		taken.CodeSHA256 = sha256.Sum256([]byte(in.code))
	}
	return &answer{status: http.StatusCreated, body: map[string]any{
		"paymentId": p.take(taken), "processingTerminalId": in.terminal,
		"transactionResult": map[string]any{"status": "ready", "responseCode": "A"},
		"card":              map[string]any{"type": cardType(in.number), "cardNumber": masked(in.number)},
	}}
}
