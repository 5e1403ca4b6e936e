package face

import (
	"net/http"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// gnosisPay is the API of Gnosis Pay's PSE: partners mint 60-second single-use tokens over mutual TLS, and whoever
// holds one opens a card or its PIN with it, once. Source: POST /api/v1/ephemeral-token of api-pse.gnosispay.com; the
// card operations are ours, the vendor's are not public.
type gnosisPay struct {
	config Config
}

var _ Face = (*gnosisPay)(nil)

func newGnosisPay(c Config) (Face, error) { return &gnosisPay{config: c}, nil }

// Endpoints implements Face.
func (g *gnosisPay) Endpoints() []Endpoint {
	all := []Endpoint{{
		Method: http.MethodPost, Pattern: "/api/v1/ephemeral-token", Certificate: true, MaxBody: maxBody,
		Operations: []policy.Operation{policy.TokenMint}, Parse: g.parseMint, Render: g.renderMint,
	}}
	if g.config.SessionKeys != nil {
		all = append(all, Endpoint{
			Method: http.MethodGet, Pattern: "/api/v1/cards/{cardId}/details",
			Operations: []policy.Operation{policy.CardReveal}, Parse: g.parseRead(policy.CardReveal, g.config.SessionKeys), Render: g.renderDetails,
		})
	}
	all = append(all, g.userEndpoints()...)
	if g.config.PIN == PINOff || g.config.PINKeys == nil {
		return all
	}
	return append(all, Endpoint{
		Method: http.MethodGet, Pattern: "/api/v1/cards/{cardId}/pin",
		Operations: []policy.Operation{policy.PINReveal}, Parse: g.parseRead(policy.PINReveal, g.config.PINKeys), Render: g.renderPIN,
	}, Endpoint{
		Method: http.MethodPut, Pattern: "/api/v1/cards/{cardId}/pin", MaxBody: maxBody,
		Operations: []policy.Operation{policy.PINSet}, Parse: g.parseSetPIN, Render: g.renderSetPIN,
	})
}

// parseMint reads a mint. Its body is empty, absent or {}, or binds the token (an extension of ours):
//
//	{"operation":"card.reveal"?, "cardId":"…"?, "sessionHash": base64url(SHA-256 of the sessionid header's text)?}
func (g *gnosisPay) parseMint(r *exchange.Request) (*exchange.Call, error) {
	c := &exchange.Call{Operations: []policy.Operation{policy.TokenMint}}
	c.Bind.TTL = gnosisPayTTL
	if len(r.Body) == 0 {
		return c, nil
	}
	if err := jsonBody(r); err != nil {
		return nil, err
	}
	var body struct {
		Operation   exchange.Text `json:"operation"`
		CardID      exchange.Text `json:"cardId"`
		SessionHash exchange.Text `json:"sessionHash"`
	}
	if err := exchange.DecodeStrict(r.Body, &body); err != nil {
		return nil, &exchange.Failure{Kind: exchange.BadRequest, Reason: "body", Err: err}
	}
	if body.Operation.Present {
		switch op := policy.Operation(body.Operation.Value); op {
		case policy.CardReveal, policy.PINReveal, policy.PINSet:
			c.Bind.Operation = op
		default:
			return nil, exchange.Fail(exchange.BadRequest, "operation")
		}
	}
	if body.CardID.Present {
		if body.CardID.Value == "" {
			return nil, exchange.Fail(exchange.BadRequest, "card_reference")
		}
		c.Bind.Card, c.Card = body.CardID.Value, body.CardID.Value
	}
	if body.SessionHash.Present {
		hash, err := exchange.ParseSessionHash(body.SessionHash.Value)
		if err != nil {
			return nil, exchange.Fail(exchange.BadRequest, "session_hash")
		}
		c.Bind.SessionHash = hash
	}
	return c, nil
}

// gnosisPayTTL is the life of an ephemeral token. Source: POST /api/v1/ephemeral-token.
const gnosisPayTTL = time.Minute

// renderMint writes {"data":{"ephemeralToken","expiresAt"}}; expiresAt is ISO 8601 in UTC with milliseconds.
func (g *gnosisPay) renderMint(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	b := append(out.Body[:0], `{"data":{`...)
	b = exchange.AppendMember(b, "ephemeralToken", res.Token)
	b = append(b, `,"expiresAt":"`...)
	b = res.Expires.UTC().Truncate(time.Millisecond).AppendFormat(b, "2006-01-02T15:04:05.000Z")
	out.Body = append(b, `"}}`...)
	out.ContentType = jsonType
}

// card reads what every card operation has: the token, the card reference, and the session that answers are sealed for.
func (g *gnosisPay) card(r *exchange.Request, op policy.Operation, keys Preambles) (*exchange.Call, error) {
	token, err := bearer(r, policy.KindToken)
	if err != nil {
		return nil, err
	}
	c := &exchange.Call{
		Operations:  []policy.Operation{op},
		Credentials: []policy.Credential{token},
		Card:        r.Param("cardId"),
	}
	if err := g.userProof(r, c); err != nil {
		return nil, err
	}
	if err := preamble(r, c, keys); err != nil {
		return nil, err
	}
	if !c.Preamble.Present() {
		return nil, exchange.Fail(exchange.BadSession, "no_preamble")
	}
	return c, nil
}

func (g *gnosisPay) parseRead(op policy.Operation, keys Preambles) func(*exchange.Request) (*exchange.Call, error) {
	return func(r *exchange.Request) (*exchange.Call, error) {
		if len(r.Body) != 0 {
			return nil, exchange.Fail(exchange.BadRequest, "body")
		}
		return g.card(r, op, keys)
	}
}

// parseSetPIN reads {"data","iv"}: the PIN block, sealed under the client's session.
func (g *gnosisPay) parseSetPIN(r *exchange.Request) (*exchange.Call, error) {
	c, err := g.card(r, policy.PINSet, g.config.PINKeys)
	if err != nil {
		return nil, err
	}
	if err := jsonBody(r); err != nil {
		return nil, err
	}
	if c.PIN, err = sealedBody(r.Body); err != nil {
		return nil, err
	}
	return c, nil
}

func (g *gnosisPay) renderDetails(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	b := append(out.Body[:0], `{"data":{`...)
	if res.PAN != (vault.Sealed{}) {
		b = append(appendSealed(append(b, `"encryptedPan":`...), res.PAN), ',')
	}
	if res.CVC != (vault.Sealed{}) {
		b = append(appendSealed(append(b, `"encryptedCvc":`...), res.CVC), ',')
	}
	b = exchange.AppendMember(b, "expirationMonth", res.Card.ExpiryMonth)
	b = exchange.AppendMember(append(b, ','), "expirationYear", res.Card.ExpiryYear)
	b = exchange.AppendMember(append(b, ','), "lastFour", res.Card.LastFour)
	out.Body = append(b, `}}`...)
	out.ContentType = jsonType
}

func (g *gnosisPay) renderPIN(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	b := append(out.Body[:0], `{"data":{"encryptedPin":`...)
	out.Body = append(appendPIN(b, res), `}}`...)
	out.ContentType = jsonType
}

func (g *gnosisPay) renderSetPIN(_ *exchange.Call, _ *exchange.Result, out *exchange.Response) {
	out.Body = append(out.Body[:0], `{"data":{"status":"ok"}}`...)
	out.ContentType = jsonType
}

// Fail implements Face.
func (g *gnosisPay) Fail(kind exchange.Kind, _ exchange.Place, out *exchange.Response) {
	gnosisPayAnswers.fail(kind, out)
}

// gnosisPayAnswers: published clients read `error` at 400, 404 and 422 and `message` at 401, so both say the same.
var gnosisPayAnswers = answers{
	exchange.Internal:         gnosisPayAnswer(http.StatusInternalServerError, "Internal server error"),
	exchange.BadRequest:       gnosisPayAnswer(http.StatusBadRequest, "Invalid request"),
	exchange.BadSession:       gnosisPayAnswer(http.StatusBadRequest, "Invalid session id"),
	exchange.Unauthorized:     gnosisPayAnswer(http.StatusUnauthorized, "Unauthorized"),
	exchange.Forbidden:        gnosisPayAnswer(http.StatusForbidden, "Forbidden"),
	exchange.NoAccount:        gnosisPayAnswer(http.StatusNotFound, "Card not found"),
	exchange.NotFound:         gnosisPayAnswer(http.StatusNotFound, "Card not found"),
	exchange.NoRoute:          gnosisPayAnswer(http.StatusNotFound, "Not found"),
	exchange.MethodNotAllowed: gnosisPayAnswer(http.StatusMethodNotAllowed, "Method not allowed"),
	exchange.TooLarge:         gnosisPayAnswer(http.StatusRequestEntityTooLarge, "Request too large"),
	exchange.UnsupportedMedia: gnosisPayAnswer(http.StatusUnsupportedMediaType, "Unsupported media type"),
	exchange.WeakPIN:          gnosisPayAnswer(http.StatusUnprocessableEntity, "PIN is too weak"),
	exchange.BadCard:          gnosisPayAnswer(http.StatusUnprocessableEntity, "Card was not accepted"),
	exchange.LimitReached:     gnosisPayAnswer(http.StatusTooManyRequests, "Too many requests"),
	exchange.Unavailable:      gnosisPayAnswer(http.StatusServiceUnavailable, "Service unavailable"),
	exchange.IssuerFailed:     gnosisPayAnswer(http.StatusBadGateway, "Bad gateway"),
	exchange.IssuerTimeout:    gnosisPayAnswer(http.StatusGatewayTimeout, "Gateway timeout"),
	exchange.OutcomeUnknown:   gnosisPayAnswer(http.StatusGatewayTimeout, "Outcome unknown"),
}

func gnosisPayAnswer(status int, text string) answer {
	b := exchange.AppendMember([]byte{'{'}, "error", text)
	b = exchange.AppendMember(append(b, ','), "message", text)
	return answer{status, string(append(b, '}'))}
}
