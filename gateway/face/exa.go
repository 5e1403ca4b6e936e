package face

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// exa is the card API of the Exa app: a signed cookie names the user, and GET /card answers with the profile of the
// user's card and, for a session, its details and PIN. Source: docs.exactly.app, `GET /card`. The deployed base is
// /api/card; the documented form /card is served as well.
type exa struct {
	config           Config
	profile, details []policy.Operation // what a call asks for without a session, and with one
}

var _ Face = (*exa)(nil)

// exaCookie is the name of the cookie that names the user.
const exaCookie = "credential_id"

func newExa(c Config) (Face, error) {
	if c.SessionKeys == nil {
		return nil, errNoSessionKey
	}
	e := &exa{config: c, profile: []policy.Operation{policy.CardProfile}}
	e.details = append(e.details, policy.CardProfile, policy.CardReveal)
	if e.pinBesidePAN() {
		e.details = append(e.details, policy.PINReveal)
	}
	return e, nil
}

// Endpoints implements Face.
func (e *exa) Endpoints() []Endpoint {
	var all []Endpoint
	for _, pattern := range []string{"/api/card", "/card"} {
		all = append(all, Endpoint{
			Method: http.MethodGet, Pattern: pattern, Operations: e.details, Parse: e.parseCard, Render: e.renderCard,
		})
	}
	return all
}

// pinBesidePAN reports whether details come with the PIN. Without `pin_with_pan` they come without it: Exa has no call
// that shows a PIN alone. A blind PIN cannot stand beside a card number, whose session is the gateway's.
func (e *exa) pinBesidePAN() bool { return e.config.PIN == PINSoftware && e.config.PINWithPAN }

// parseCard reads, in the order of the contract, the header `sessionid`, the query `scope`, and the user.
func (e *exa) parseCard(r *exchange.Request) (*exchange.Call, error) {
	c := &exchange.Call{Operations: e.profile}
	if err := preamble(r, c, e.config.SessionKeys); err != nil {
		return nil, err
	}
	// The scopes (challenges, provisioning) are not offered here: asking for one is refused rather than ignored.
	if r.RawQuery != "" {
		query, err := url.ParseQuery(r.RawQuery)
		if err != nil || query.Has("scope") {
			return nil, exchange.Fail(exchange.BadRequest, "scope")
		}
	}
	cookie, err := e.cookie(r)
	if err != nil {
		return nil, err
	}
	c.Credentials = []policy.Credential{cookie}
	if c.Preamble.Present() {
		c.Operations = e.details
	}
	return c, nil
}

// cookie finds the one cookie that names the user. Two of the name are none: parsers disagree on which one counts. What
// else stands in the header is other people's, and need not even be well formed.
func (e *exa) cookie(r *exchange.Request) (policy.Credential, error) {
	found, n := "", 0
	for _, line := range r.Header.Values("Cookie") {
		for part := range strings.SplitSeq(line, ";") {
			name, value, ok := strings.Cut(strings.Trim(part, " \t"), "=")
			if !ok || name != exaCookie {
				continue
			}
			found, n = value, n+1
		}
	}
	if n != 1 {
		return policy.Credential{}, exchange.Fail(exchange.Unauthorized, "no_credential")
	}
	return policy.NewCredential(policy.KindCookie, found), nil
}

// exaStatus is Exa's word for a card's state: a card that cannot be used now is FROZEN to its clients.
func exaStatus(s exchange.CardStatus) string {
	if s == exchange.Active {
		return "ACTIVE"
	}
	return "FROZEN"
}

func (e *exa) renderCard(c *exchange.Call, res *exchange.Result, out *exchange.Response) {
	b := append(out.Body[:0], '{')
	b = exchange.AppendMember(b, "cardId", res.Card.ID)
	b = exchange.AppendMember(append(b, ','), "displayName", res.Card.Holder)
	if res.PAN != (vault.Sealed{}) {
		b = appendSealed(append(b, `,"encryptedPan":`...), res.PAN)
	}
	if res.CVC != (vault.Sealed{}) {
		b = appendSealed(append(b, `,"encryptedCvc":`...), res.CVC)
	}
	if c.Has(policy.PINReveal) {
		b = appendPIN(append(b, `,"pin":`...), res)
	}
	b = exchange.AppendMember(append(b, ','), "expirationMonth", res.Card.ExpiryMonth)
	b = exchange.AppendMember(append(b, ','), "expirationYear", res.Card.ExpiryYear)
	b = exchange.AppendMember(append(b, ','), "lastFour", res.Card.LastFour)
	// The mode is Exa's own (how purchases are settled); a card that nobody has changed it for is in mode 0.
	b = append(b, `,"mode":0,"provider":"panda"`...)
	b = exchange.AppendMember(append(b, ','), "status", exaStatus(res.Card.Status))
	b = append(b, `,"limit":{"amount":`...)
	b = strconv.AppendInt(b, res.Card.Limit.Amount, 10)
	b = exchange.AppendMember(append(b, ','), "frequency", res.Card.Limit.Frequency)
	b = exchange.AppendMember(append(b, `},`...), "productId", res.Card.Product)
	out.Body = append(b, '}')
	out.ContentType = jsonType
}

// Fail implements Face.
func (e *exa) Fail(kind exchange.Kind, _ exchange.Place, out *exchange.Response) {
	exaAnswers.fail(kind, out)
}

// exaUnexpected is the status of whatever Exa does not name: outside HTTP's range of meanings, on purpose of its authors.
const exaUnexpected = 555

var exaAnswers = answers{
	exchange.Internal:         exaAnswer(exaUnexpected, "unexpected error"),
	exchange.BadRequest:       {http.StatusBadRequest, `{"code":"bad request"}`},
	exchange.BadSession:       exaAnswer(http.StatusBadRequest, "bad session id"),
	exchange.Unauthorized:     exaAnswer(http.StatusUnauthorized, "unauthorized"),
	exchange.Forbidden:        exaAnswer(http.StatusForbidden, "forbidden"),
	exchange.NoAccount:        exaAnswer(http.StatusForbidden, "no panda"),
	exchange.NotFound:         exaAnswer(http.StatusNotFound, "no card"),
	exchange.NoRoute:          exaAnswer(http.StatusNotFound, "not found"),
	exchange.MethodNotAllowed: exaAnswer(http.StatusMethodNotAllowed, "method not allowed"),
	exchange.TooLarge:         exaAnswer(http.StatusRequestEntityTooLarge, "bad request"),
	exchange.UnsupportedMedia: exaAnswer(http.StatusUnsupportedMediaType, "bad request"),
	exchange.WeakPIN:          exaAnswer(http.StatusBadRequest, "weak pin"),
	exchange.LimitReached:     exaAnswer(http.StatusTooManyRequests, "too many requests"),
	exchange.Unavailable:      exaAnswer(http.StatusServiceUnavailable, "unexpected error"),
	exchange.IssuerFailed:     exaAnswer(exaUnexpected, "unexpected error"),
	exchange.IssuerTimeout:    exaAnswer(exaUnexpected, "unexpected error"),
	exchange.OutcomeUnknown:   exaAnswer(http.StatusGatewayTimeout, "unexpected error"),
}

func exaAnswer(status int, code string) answer {
	b := exchange.AppendMember([]byte{'{'}, "code", code)
	b = exchange.AppendMember(append(b, ','), "legacy", code)
	return answer{status, string(append(b, '}'))}
}
