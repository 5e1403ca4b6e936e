package face

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// payroc is Payroc's API: an API key becomes a Bearer, a Bearer begins a session for one page of hosted fields, the page submits
// a card field by field and gets a token that is good once, and a payment, which the route forwards, names the token. Source:
// docs.payroc.com, `Authenticate your session` and `Errors`, and what the published clients and the page's script send and read.
//
// Fields arrive in clear inside TLS, so they are offered where the route says so [12].
type payroc struct {
	config    Config
	endpoints []Endpoint
}

var _ Face = (*payroc)(nil)

func newPayroc(c Config) (Face, error) {
	c.SessionKeys = nil // its callers bring no session: what is sealed for the issuer, the gateway seals
	p := &payroc{config: c}
	if err := p.check(); err != nil {
		return nil, err
	}
	own, err := p.own()
	if err != nil {
		return nil, err
	}
	p.endpoints, err = withForwards(own, &p.config, manner{
		present: p.bearer, key: p.forwardKey, scope: "payments", late: true, cards: c.HostedFields != nil,
	})
	if err != nil {
		return nil, err
	}
	for i := range p.endpoints {
		if e := &p.endpoints[i]; e.Operations[0] == policy.Forward {
			e.Fail = payrocAnswersOf(payrocResource(e.Pattern)).failPayroc
			if e.Method == http.MethodPost || e.Method == http.MethodPatch {
				e.Idempotency = payrocIdempotency
			}
		}
	}
	return p, nil
}

// check refuses hosted fields that could not be.
func (p *payroc) check() error {
	h := p.config.HostedFields
	switch {
	case h == nil:
		return nil
	case !p.config.Clear:
		return errors.New("hosted_fields: card data arrives in clear: the route needs client_leg: clear")
	case len(h.Libraries) == 0 || slices.Contains(h.Libraries, ""):
		return errors.New("hosted_fields: no versions of the page's library")
	case !slices.Contains([]string{payrocMandatory, payrocEnabled, payrocDisabled}, h.CVV):
		return errors.New("hosted_fields: whether there is a security code is not said")
	case h.Page == nil:
		return errors.New("hosted_fields: no page")
	}
	return nil
}

// Endpoints implements Face.
func (p *payroc) Endpoints() []Endpoint { return p.endpoints }

// payrocSessions is where sessions of hosted fields begin. Published clients have its version in their base URL, or not.
const payrocSessions = "/processing-terminals/{processingTerminalId}/hosted-fields-sessions"

// payrocIdempotency: the first answer is given again for 24 hours, and a key that comes later is told so. The times are ours [28].
var payrocIdempotency = &Idempotency{Keep: 24 * time.Hour, Tombstone: 7 * 24 * time.Hour}

// payrocPageIdempotency is that of a page, whose keys are its session's and end with it: what is kept for whoever sees a page is
// kept no longer than it is good for.
var payrocPageIdempotency = &Idempotency{Keep: payrocSessionTTL}

// own are the endpoints that are not forwarded.
func (p *payroc) own() ([]Endpoint, error) {
	all := []Endpoint{{
		Method: http.MethodPost, Pattern: "/authorize", MaxBody: maxBody, Operations: []policy.Operation{policy.SessionMint},
		Parse: p.parseAuthorize, Render: p.renderAuthorize,
	}}
	if p.config.HostedFields != nil {
		for _, version := range []string{"/v1", ""} {
			all = append(all, Endpoint{
				Method: http.MethodPost, Pattern: version + payrocSessions, MaxBody: maxBody, Operations: []policy.Operation{policy.FieldsMint},
				Status: http.StatusCreated, Idempotency: payrocIdempotency,
				Parse: p.parseSession, Render: p.renderSession, Fail: payrocTerminalAnswers.failPayroc,
			})
		}
		pages, err := p.pages()
		if err != nil {
			return nil, err
		}
		all = append(all, pages...)
	}
	return slices.DeleteFunc(all, func(e Endpoint) bool { return !p.config.serves(e.Operations[0]) }), nil
}

// parseAuthorize reads the header x-api-key. Of a body, published clients send what says nothing, or none.
func (p *payroc) parseAuthorize(r *exchange.Request) (*exchange.Call, error) {
	key, ok := r.One("X-Api-Key")
	if !ok || key == "" {
		return nil, exchange.Fail(exchange.Unauthorized, "no_credential")
	}
	return &exchange.Call{
		Operations: []policy.Operation{policy.SessionMint}, Credentials: []policy.Credential{policy.NewCredential(policy.KindAPIKey, key)},
	}, nil
}

// renderAuthorize writes {"access_token","expires_in","scope","token_type"}: whole seconds from now.
func (p *payroc) renderAuthorize(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	b := exchange.AppendMember(append(out.Body[:0], '{'), "access_token", res.Token)
	b = strconv.AppendInt(append(b, `,"expires_in":`...), secondsUntil(res.Expires), 10)
	b = exchange.AppendMember(append(b, ','), "scope", res.Scope)
	out.Body = append(b, `,"token_type":"Bearer"}`...)
	out.ContentType = jsonType
}

// payrocSessionTTL is the life of a page's session. Source: docs.payroc.com, `Authenticate your session`.
const payrocSessionTTL = 10 * time.Minute

// parseSession reads what a session is for. What is wrong with the request is told to whoever has a Bearer that is good.
func (p *payroc) parseSession(r *exchange.Request) (*exchange.Call, error) {
	presented, err := p.bearer(r)
	if err != nil {
		return nil, err
	}
	c := &exchange.Call{Operations: []policy.Operation{policy.FieldsMint}, Credentials: presented, Scope: "hosted-fields"}
	return late(c, p.readSession(r, c))
}

func (p *payroc) readSession(r *exchange.Request, c *exchange.Call) error {
	if err := jsonBody(r); err != nil {
		return err
	}
	var err error
	if c.IdempotencyKey, err = payrocKey(r); err != nil {
		return err
	}
	c.Fields, err = p.fields(r)
	return err
}

// fields reads {"libVersion","scenario","secureTokenId"?}.
func (p *payroc) fields(r *exchange.Request) (exchange.Fields, error) {
	var body struct {
		Library     exchange.Text `json:"libVersion"`
		Scenario    exchange.Text `json:"scenario"`
		SecureToken exchange.Text `json:"secureTokenId"`
	}
	if err := exchange.DecodeStrict(r.Body, &body); err != nil {
		return exchange.Fields{}, &exchange.Failure{Kind: exchange.BadRequest, At: exchange.Place{In: "body"}, Reason: "body", Err: err}
	}
	h, token := p.config.HostedFields, body.SecureToken.Value
	switch {
	case !slices.Contains(h.Libraries, body.Library.Value):
		return exchange.Fields{}, exchange.Wrong("body", "libVersion", "library")
	case body.Scenario.Value != payrocPayment && (body.Scenario.Value != payrocTokenization || !h.Tokenize):
		return exchange.Fields{}, exchange.Wrong("body", "scenario", "scenario")
	case body.SecureToken.Present && (token == "" || len(token) > maxSecureToken || !visible(token) || vault.HoldsPANString(token)):
		return exchange.Fields{}, exchange.Wrong("body", "secureTokenId", "secure_token")
	}
	return exchange.Fields{
		Terminal: r.Param("processingTerminalId"), Scenario: body.Scenario.Value, Library: body.Library.Value, SecureToken: token, TTL: payrocSessionTTL,
	}, nil
}

// The scenarios of a session.
const (
	payrocPayment      = "payment"
	payrocTokenization = "tokenization"
)

// maxSecureToken is the longest secureTokenId, in bytes.
const maxSecureToken = 255

// renderSession writes {"processingTerminalId","token","expiresAt"}.
func (p *payroc) renderSession(c *exchange.Call, res *exchange.Result, out *exchange.Response) {
	b := exchange.AppendMember(append(out.Body[:0], '{'), "processingTerminalId", c.Fields.Terminal)
	out.Body = append(appendPayrocToken(append(b, ','), res), '}')
	out.ContentType = jsonType
}

// appendPayrocToken appends a token and when it ends: ISO 8601 in UTC, in whole seconds, never later than it is.
func appendPayrocToken(dst []byte, res *exchange.Result) []byte {
	dst = exchange.AppendMember(dst, "token", res.Token)
	return exchange.AppendMember(append(dst, ','), "expiresAt", res.Expires.UTC().Format(time.RFC3339))
}

// bearer are the credentials of an API call, a forwarded one too.
func (p *payroc) bearer(r *exchange.Request) ([]policy.Credential, error) {
	token, err := bearer(r, policy.KindJWT)
	if err != nil {
		return nil, err
	}
	return []policy.Credential{token}, nil
}

// forwardKey reads the idempotency key of a forwarded call, which some methods need.
func (p *payroc) forwardKey(r *exchange.Request) (string, error) {
	key, err := payrocKey(r)
	needed := r.Method == http.MethodPost || r.Method == http.MethodPatch
	if failure, ok := errors.AsType[*exchange.Failure](err); ok && failure.At == payrocNoKey && !needed {
		return "", nil
	}
	return key, err
}

// payrocKey reads the idempotency key: a UUID of version 4 (RFC 9562, section 5.4), which has one spelling here. Before it is
// looked at, the caller must take the answer, which is JSON.
func payrocKey(r *exchange.Request) (string, error) {
	if !takesJSON(r) {
		return "", exchange.Wrong(payrocNoJSON.In, payrocNoJSON.Name, "accept")
	}
	values := r.Header.Values("Idempotency-Key")
	if strings.Join(values, "") == "" {
		return "", exchange.Wrong(payrocNoKey.In, payrocNoKey.Name, "no_idempotency_key")
	}
	if key, ok := accountID(values[0]); ok && len(values) == 1 && key[14] == '4' && strings.IndexByte("89ab", key[19]) >= 0 {
		return key, nil
	}
	return "", exchange.Wrong("header", "Idempotency-Key", "idempotency_key")
}

// takesJSON reports whether the header Accept has room for JSON (RFC 9110, section 12.5.1). Of the ranges that match, the most
// specific ones count, and one of no weight refuses.
func takesJSON(r *exchange.Request) bool {
	said := strings.Join(r.Header.Values("Accept"), ",")
	if strings.Trim(said, " \t,") == "" {
		return true
	}
	takes, rank := false, 0
	for part := range strings.SplitSeq(strings.ToLower(said), ",") {
		media, parameters, _ := strings.Cut(part, ";")
		found := 1 + slices.Index([]string{"*/*", "application/*", jsonType}, strings.TrimSpace(media))
		if found == 0 || found < rank {
			continue
		}
		takes = takes && found == rank || !weightless(parameters)
		rank = found
	}
	return takes
}

// weightless reports whether the parameters of a range have q=0.
func weightless(parameters string) bool {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if name == "q" {
			weight, err := strconv.ParseFloat(value, 64)
			return err == nil && weight == 0
		}
	}
	return false
}

// late has it told once the call's reusable credentials are proven what is wrong with the request.
func late(c *exchange.Call, err error) (*exchange.Call, error) {
	if err == nil {
		return c, nil
	}
	var ok bool
	if c.Late, ok = errors.AsType[*exchange.Failure](err); !ok {
		return nil, err
	}
	return c, nil
}

// Fail implements Face.
func (p *payroc) Fail(kind exchange.Kind, at exchange.Place, out *exchange.Response) {
	payrocAnswers.failPayroc(kind, at, out)
}
