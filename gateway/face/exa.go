package face

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// exa is the card API of the Exa app: a signed cookie names the user, who reads their card here, changes it (exa_patch.go)
// and logs in (exa_login.go). GET /card answers with the profile of the user's card and, for a session, its details and
// PIN; by scope, with what puts it into a wallet, and with something to sign. Source: docs.exactly.app, `GET /card`. The
// deployed base is /api; the documented form without it is served as well.
type exa struct {
	config           Config
	profile, details []policy.Operation // what a GET asks for without a session, and with one
}

var _ Face = (*exa)(nil)

// exaCookie is the name of the cookie that names the user.
const exaCookie = "credential_id"

func newExa(c Config) (Face, error) {
	e := &exa{config: c, profile: []policy.Operation{policy.CardProfile}}
	if !c.serves(policy.CardReveal) {
		e.config.SessionKeys, e.details = nil, e.profile
		return e, nil
	}
	if c.SessionKeys == nil {
		return nil, errNoSessionKey
	}
	e.details = []policy.Operation{policy.CardProfile, policy.CardReveal}
	if e.pinBesidePAN() {
		e.details = append(e.details, policy.PINReveal)
	}
	e.details = slices.Clip(e.details) // what a call adds is its own
	return e, nil
}

// Endpoints implements Face.
func (e *exa) Endpoints() []Endpoint {
	all := e.patches("/{$}") // as the documents have it
	for _, base := range []string{"/api", ""} {
		all = append(all, e.reads(base+"/card")...)
		all = append(all, e.patches(base+"/card")...)
		all = append(all, e.logins(base+"/auth/authentication")...)
	}
	return all
}

// reads are what shows a card.
func (e *exa) reads(card string) []Endpoint {
	var all []Endpoint
	if e.config.serves(policy.CardProfile) {
		all = append(all, Endpoint{
			Method: http.MethodGet, Pattern: card, Operations: append(e.details, e.served(policy.CardProvision, policy.ChallengeMint)...),
			CORS: exaCORS(), Parse: e.parseCard, Render: e.renderCard,
		})
	}
	if e.config.serves(policy.CardProvision) {
		all = append(all, Endpoint{
			Method: http.MethodGet, Pattern: card + "/provisioning", Operations: []policy.Operation{policy.CardProvision},
			CORS: exaCORS("Authorization"), Parse: e.parseProvisioning, Render: e.renderProvisioning,
		})
	}
	return all
}

// exaCORS is how the app's pages call: with the cookie, and so from the route's origins alone [21].
func exaCORS(headers ...string) *CORS {
	return &CORS{Credentials: true, Headers: append([]string{"Content-Type", "sessionid", "Client-Fid"}, headers...), Expose: []string{"X-Session-Id"}}
}

// served are those of the operations that the route has.
func (e *exa) served(operations ...policy.Operation) []policy.Operation {
	return slices.DeleteFunc(operations, func(op policy.Operation) bool { return !e.config.serves(op) })
}

// pinBesidePAN reports whether details come with the PIN. Without `pin_with_pan` they come without it: Exa has no call
// that shows a PIN alone. A blind PIN cannot stand beside a card number, whose session is the gateway's.
func (e *exa) pinBesidePAN() bool {
	return e.config.PIN == PINSoftware && e.config.PINWithPAN && e.config.serves(policy.PINReveal)
}

// parseCard reads, in the order of the contract, the header `sessionid`, the query `scope`, and the user.
func (e *exa) parseCard(r *exchange.Request) (*exchange.Call, error) {
	c := &exchange.Call{Operations: e.profile, ShowMode: true}
	if err := preamble(r, c, e.config.SessionKeys); err != nil {
		return nil, err
	}
	if c.Preamble.Present() {
		c.Operations = e.details
	}
	if err := e.scopes(r, c); err != nil {
		return nil, err
	}
	if err := exaUser(r, c); err != nil {
		return nil, err
	}
	return c, nil
}

// exaProvisioning is a scope; the others are the methods of signing.
const exaProvisioning = "provisioning"

// scopes reads the query `scope`, of which there may be several, in any order; one that stands there twice is there once.
// What the route does not have is refused rather than ignored.
func (e *exa) scopes(r *exchange.Request, c *exchange.Call) error {
	if r.RawQuery == "" {
		return nil
	}
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return exchange.Fail(exchange.BadRequest, "query")
	}
	var asked []policy.Operation
	if slices.Contains(query["scope"], exaProvisioning) {
		asked = append(asked, policy.CardProvision)
	}
	for _, scope := range query["scope"] {
		switch {
		case scope == exaProvisioning:
		case scope != policy.MethodSIWE && scope != policy.MethodWebAuthn, c.Challenge.Method != "" && c.Challenge.Method != scope:
			return exchange.Fail(exchange.BadRequest, "scope")
		default:
			c.Challenge.Method = scope
		}
	}
	if c.Challenge.Method != "" {
		asked = append(asked, policy.ChallengeMint)
	}
	if slices.ContainsFunc(asked, func(op policy.Operation) bool { return !e.config.serves(op) }) {
		return exchange.Fail(exchange.BadRequest, "scope_not_served")
	}
	c.Operations = append(c.Operations, asked...)
	return nil
}

// exaUser finds the user's cookie.
func exaUser(r *exchange.Request, c *exchange.Call) error {
	value, n := cookies(r, exaCookie)
	if n != 1 {
		return exchange.Fail(exchange.Unauthorized, "no_credential")
	}
	c.Credentials = append(c.Credentials, policy.NewCredential(policy.KindCookie, value))
	return nil
}

// parseProvisioning reads the call of the wallet extension, which has an access token and nothing of the app's.
func (e *exa) parseProvisioning(r *exchange.Request) (*exchange.Call, error) {
	if len(r.Header.Values("Cookie")) > 0 || len(r.Header.Values("Sessionid")) > 0 {
		return nil, exchange.Fail(exchange.Unauthorized, "cookie_or_session")
	}
	token, err := bearer(r, policy.KindJWT)
	if err != nil {
		return nil, err
	}
	return &exchange.Call{Operations: []policy.Operation{policy.CardProvision}, Credentials: []policy.Credential{token}}, nil
}

// exaMaxID is the length, in characters, of the longest credential id: what the cookie has room for.
const exaMaxID = 512

// exaMethod is how the user of a credential id signs: with the wallet of that address, or with that passkey. "" is no
// credential id. The id stays as it was sent: it is the user's, letter by letter.
func exaMethod(id string) string {
	if _, ok := policy.ParseAddress(id); ok {
		return policy.MethodSIWE
	}
	if id == "" || len(id) > exaMaxID || strings.ContainsAny(id, "\r\n") { // line breaks are skipped by the decoder
		return ""
	}
	if _, err := base64.RawURLEncoding.Strict().DecodeString(id); err != nil {
		return ""
	}
	return policy.MethodWebAuthn
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
	b = strconv.AppendInt(append(b, `,"mode":`...), int64(res.Card.Mode), 10)
	b = exchange.AppendMember(append(b, `,"provider":"panda",`...), "status", exaStatus(res.Card.Status))
	b = append(b, `,"limit":{"amount":`...)
	b = strconv.AppendInt(b, res.Card.Limit.Amount, 10)
	b = exchange.AppendMember(append(b, ','), "frequency", res.Card.Limit.Frequency)
	b = exchange.AppendMember(append(b, `},`...), "productId", res.Card.Product)
	if c.Has(policy.ChallengeMint) {
		b = exchange.AppendMember(append(b, ','), "challenge", res.Challenge.Message)
	}
	if c.Has(policy.CardProvision) {
		b = appendProvision(append(b, `,"provisioning":`...), res)
	}
	out.Body = append(b, '}')
	out.ContentType = jsonType
}

func (e *exa) renderProvisioning(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	out.Body = appendProvision(out.Body[:0], res)
	out.ContentType = jsonType
}

func appendProvision(dst []byte, res *exchange.Result) []byte {
	dst = exchange.AppendMember(append(dst, '{'), "id", res.Provision.ID)
	return append(exchange.AppendMember(append(dst, ','), "secret", res.Provision.Secret), '}')
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
	exchange.AlreadySet:       exaAnswer(http.StatusBadRequest, "already set"),

	// What was signed to link a card is good for nothing, whatever is wrong with it; whoever has a cookie, and is not in the
	// directory, has no account. A login has its own words for these.
	exchange.ChallengeMissing:  exaAnswer(http.StatusBadRequest, "bad signature"),
	exchange.ChallengeUnknown:  exaAnswer(http.StatusBadRequest, "bad signature"),
	exchange.BadSignature:      exaAnswer(http.StatusBadRequest, "bad signature"),
	exchange.CredentialUnknown: exaAnswer(http.StatusForbidden, "no panda"),
}

func exaAnswer(status int, code string) answer {
	b := exchange.AppendMember([]byte{'{'}, "code", code)
	b = exchange.AppendMember(append(b, ','), "legacy", code)
	return answer{status, string(append(b, '}'))}
}
