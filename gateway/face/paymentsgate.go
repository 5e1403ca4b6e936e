package face

import (
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// paymentsGate is the API of PaymentsGate: a service account shows its public key, and what it is asked for beside it, and
// gets an access token with a refresh token; with the access token it makes the calls that the route forwards. Source:
// "Issuing a JWT token" of PaymentsGate's documentation. Its error codes, api-signature, revoke and validate are ours.
type paymentsGate struct {
	config    Config
	endpoints []Endpoint
}

var _ Face = (*paymentsGate)(nil)

func newPaymentsGate(c Config) (Face, error) {
	if c.PublicKey == nil {
		return nil, errors.New("accounts: needed by this face")
	}
	p := &paymentsGate{config: c}
	own, err := p.own()
	if err != nil {
		return nil, err
	}
	if p.endpoints, err = withForwards(own, &p.config, manner{present: p.bearer, key: idempotencyKey}); err != nil {
		return nil, err
	}
	return p, nil
}

// Endpoints implements Face.
func (p *paymentsGate) Endpoints() []Endpoint { return p.endpoints }

// maxLogin is room, in bytes, for the largest key in base64 of its PEM: a private one too, so that it is told as such.
const maxLogin = 16 << 10

// assertionType is of a client assertion (RFC 7523, section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// own are the endpoints that every route has. Bodies are read by the vault, which digests them for signatures. Members that
// are none of ours are passed over: published clients add some.
func (p *paymentsGate) own() ([]Endpoint, error) {
	login, err := vault.NewShape(vault.ShapeConfig{
		MaxBytes: maxLogin, Public: []string{"/account_id", "/public_key", "/client_assertion_type", "/client_assertion"},
	})
	if err != nil {
		return nil, err
	}
	refresh, err := vault.NewShape(vault.ShapeConfig{MaxBytes: maxBody, Public: []string{"/refresh_token"}})
	if err != nil {
		return nil, err
	}
	all := []Endpoint{{
		Method: http.MethodPost, Pattern: "/auth/token", MaxBody: maxLogin, Shape: login,
		Operations: []policy.Operation{policy.SessionMint}, Parse: p.parseLogin, Render: p.renderTokens,
	}, {
		Method: http.MethodPost, Pattern: "/auth/token/refresh", MaxBody: maxBody, Shape: refresh,
		Operations: []policy.Operation{policy.SessionRefresh}, Parse: p.parseRefresh(policy.SessionRefresh), Render: p.renderTokens, Fail: p.failRefresh,
	}, {
		Method: http.MethodPost, Pattern: "/auth/token/revoke", MaxBody: maxBody, Shape: refresh,
		Operations: []policy.Operation{policy.SessionRevoke}, Parse: p.parseRefresh(policy.SessionRevoke), Render: p.renderRevoked,
	}, {
		Method: http.MethodGet, Pattern: "/auth/token/validate",
		Operations: []policy.Operation{policy.SessionCheck}, Parse: p.parseCheck, Render: p.renderCheck,
	}}
	if p.config.JWKS != nil {
		all = append(all, Endpoint{
			Method: http.MethodGet, Pattern: "/.well-known/jwks.json", Operations: []policy.Operation{policy.SessionCheck}, Static: staticJSON(p.config.JWKS),
		})
	}
	return all, nil
}

// parseLogin reads {"account_id","public_key"}, a signature over the body in the header api-signature, or in place of it, and
// of the public key, {"client_assertion_type","client_assertion"}.
func (p *paymentsGate) parseLogin(r *exchange.Request) (*exchange.Call, error) {
	if err := jsonBody(r); err != nil {
		return nil, err
	}
	c := &exchange.Call{Operations: []policy.Operation{policy.SessionMint}}
	account, err := required(r, "account_id")
	if err != nil {
		return nil, err
	}
	assertion, err := p.assertion(r)
	if err != nil {
		return nil, err
	}
	signature, err := apiSignature(r)
	if err != nil {
		return nil, err
	}
	if err := p.publicKey(r, c, assertion != ""); err != nil {
		return nil, err
	}
	switch {
	case assertion != "" && signature != "": // a call has one signature, and it is said of it what it is over
		return nil, exchange.Wrong("header", "api-signature", "two_signatures")
	case assertion != "":
		c.Credentials, c.Assertion = append(c.Credentials, policy.NewCredential(policy.KindSignature, assertion)), true
	case signature != "":
		c.Credentials = append(c.Credentials, policy.NewCredential(policy.KindSignature, signature))
	}
	var ok bool
	if c.Account, ok = accountID(account); !ok {
		return nil, exchange.Fail(exchange.Unauthorized, "account") // like one that nobody has
	}
	return c, nil
}

// publicKey reads the member of that name. The credential is the digest of the key, not the text, which comes with line
// wraps, CRLF and BOM [23].
func (p *paymentsGate) publicKey(r *exchange.Request, c *exchange.Call, optional bool) error {
	text, present, err := member(r, "public_key")
	if err != nil || !present && optional {
		return err
	}
	spki, err := p.config.PublicKey(text)
	switch {
	case errors.Is(err, ErrPrivateKey):
		return exchange.Wrong("body", "public_key", "private_key")
	case err != nil:
		return exchange.Wrong("body", "public_key", "public_key")
	}
	c.Credentials = append(c.Credentials, policy.NewCredential(policy.KindPublicKey, hex.EncodeToString(spki[:])))
	return nil
}

// assertion is the client assertion, "" where there is none. Each of its two members needs the other.
func (p *paymentsGate) assertion(r *exchange.Request) (string, error) {
	kind, typed, err := member(r, "client_assertion_type")
	if err != nil {
		return "", err
	}
	assertion, present, err := member(r, "client_assertion")
	switch {
	case err != nil:
		return "", err
	case typed && kind != assertionType || present && !typed:
		return "", exchange.Wrong("body", "client_assertion_type", "assertion_type")
	case typed && assertion == "":
		return "", exchange.Wrong("body", "client_assertion", "assertion")
	}
	return assertion, nil
}

// parseRefresh reads {"refresh_token"}. An Authorization header says nothing here: clients send the access token that they
// are about to replace, or none.
func (p *paymentsGate) parseRefresh(op policy.Operation) func(*exchange.Request) (*exchange.Call, error) {
	return func(r *exchange.Request) (*exchange.Call, error) {
		if err := jsonBody(r); err != nil {
			return nil, err
		}
		token, err := required(r, "refresh_token")
		if err != nil {
			return nil, err
		}
		return &exchange.Call{
			Operations: []policy.Operation{op}, Credentials: []policy.Credential{policy.NewCredential(policy.KindRefresh, token)},
		}, nil
	}
}

func (p *paymentsGate) parseCheck(r *exchange.Request) (*exchange.Call, error) {
	if len(r.Body) != 0 {
		return nil, exchange.Fail(exchange.BadRequest, "body")
	}
	token, err := bearer(r, policy.KindJWT)
	if err != nil {
		return nil, err
	}
	return &exchange.Call{Operations: []policy.Operation{policy.SessionCheck}, Credentials: []policy.Credential{token}}, nil
}

// bearer are the credentials of a forwarded call: the access token, and where there is a body the signature over it.
func (p *paymentsGate) bearer(r *exchange.Request) ([]policy.Credential, error) {
	token, err := bearer(r, policy.KindJWT)
	if err != nil {
		return nil, err
	}
	presented := []policy.Credential{token}
	if !hasBody(r) {
		return presented, nil // a signature over nothing is the same each time, and proves as much
	}
	signature, err := apiSignature(r)
	if err != nil {
		return nil, err
	}
	if signature != "" {
		presented = append(presented, policy.NewCredential(policy.KindSignature, signature))
	}
	return presented, nil
}

// apiSignature is the header of that name, "" where there is none.
func apiSignature(r *exchange.Request) (string, error) {
	signature, ok := r.One("Api-Signature")
	if !ok {
		return "", exchange.Wrong("header", "api-signature", "duplicate_header")
	}
	return signature, nil
}

// required is a member of the body that must be a string, and not empty.
func required(r *exchange.Request, name string) (string, error) {
	value, _, err := member(r, name)
	if err == nil && value == "" {
		err = exchange.Wrong("body", name, "member")
	}
	return value, err
}

// member is a member of the body that must be a string where it is there. Null is not taken for absent.
func member(r *exchange.Request, name string) (value string, present bool, err error) {
	pointer := "/" + name
	if !r.Clear.Has(pointer) && !r.Clear.Null(pointer) {
		return "", false, nil
	}
	if value, err = r.Clear.Text(pointer); err != nil {
		return "", false, exchange.Wrong("body", name, "member")
	}
	return value, true, nil
}

// accountID gives the one spelling of an account id: a UUID (RFC 9562, section 4), whose letters come in either case.
func accountID(text string) (string, bool) {
	const form = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
	if len(text) != len(form) {
		return "", false
	}
	for i := range len(form) {
		hyphen, c := form[i] == '-', text[i]
		if hyphen != (c == '-') || !hyphen && !strings.ContainsRune("0123456789abcdefABCDEF", rune(c)) {
			return "", false
		}
	}
	return strings.ToLower(text), true
}

// renderTokens writes {"access_token","refresh_token","expires_in"}: whole seconds from now.
func (p *paymentsGate) renderTokens(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	b := exchange.AppendMember(append(out.Body[:0], '{'), "access_token", res.Token)
	b = exchange.AppendMember(append(b, ','), "refresh_token", res.Refresh)
	b = strconv.AppendInt(append(b, `,"expires_in":`...), secondsUntil(res.Expires), 10)
	out.Body = append(b, '}')
	out.ContentType = jsonType
}

func (p *paymentsGate) renderRevoked(_ *exchange.Call, _ *exchange.Result, out *exchange.Response) {
	out.Body = append(out.Body[:0], `{}`...)
	out.ContentType = jsonType
}

// renderCheck writes {"account_id","exp"}; exp is in seconds since 1970, as in the token.
func (p *paymentsGate) renderCheck(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	b := exchange.AppendMember(append(out.Body[:0], '{'), "account_id", res.Account)
	b = strconv.AppendInt(append(b, `,"exp":`...), res.Expires.Unix(), 10)
	out.Body = append(b, '}')
	out.ContentType = jsonType
}

// Fail implements Face. A BadRequest says what it is about.
func (p *paymentsGate) Fail(kind exchange.Kind, at exchange.Place, out *exchange.Response) {
	paymentsGateAnswers.fail(kind, out)
	if kind != exchange.BadRequest || at.In == "" {
		return
	}
	text := "Invalid request: " + strings.TrimSuffix(at.In+" "+at.Name, " ")
	switch at {
	case unsignable:
		text = "Invalid request: a signed body has arrays, nulls or numbers without a canonical form"
	case unsaid:
		text = "Invalid request: a signed body has no value that the signature is over"
	}
	out.Body = append(out.Body[:0], paymentsGateAnswer(http.StatusBadRequest, "BAD_REQUEST", text).body...)
}

// unsignable is the place of a body that no signature can be verified over.
var unsignable = exchange.Place{In: "body", Name: "canonical"}

// unsaid is the place of a body whose signature would be over nothing.
var unsaid = exchange.Place{In: "body", Name: "canonical_empty"}

// failRefresh answers whoever may not refresh with a 401 that is no JSON: published clients take a JSON one for final, and
// log in anew at any other.
func (p *paymentsGate) failRefresh(kind exchange.Kind, at exchange.Place, out *exchange.Response) {
	p.Fail(kind, at, out)
	if out.Status == http.StatusUnauthorized || out.Status == http.StatusForbidden {
		out.Status, out.ContentType = http.StatusUnauthorized, "text/plain; charset=utf-8"
		out.Body = append(out.Body[:0], "Unauthorized"...)
	}
}

// paymentsGateAnswers are PaymentsGate's errors in form, {"error","message","statusCode"}; codes and texts are ours, and stay.
// A JSON 400 or 401 is final for published clients.
var paymentsGateAnswers = answers{
	exchange.Internal:         paymentsGateAnswer(http.StatusInternalServerError, "INTERNAL_ERROR", "Internal server error"),
	exchange.BadRequest:       paymentsGateAnswer(http.StatusBadRequest, "BAD_REQUEST", "Invalid request"),
	exchange.BadSession:       paymentsGateAnswer(http.StatusBadRequest, "BAD_SESSION", "Invalid sessionid"),
	exchange.Unauthorized:     paymentsGateAnswer(http.StatusUnauthorized, "UNAUTHORIZED", "Invalid credentials"),
	exchange.Forbidden:        paymentsGateAnswer(http.StatusForbidden, "FORBIDDEN", "Forbidden"),
	exchange.NotFound:         paymentsGateAnswer(http.StatusNotFound, "NOT_FOUND", "Not found"),
	exchange.NoRoute:          paymentsGateAnswer(http.StatusNotFound, "NOT_FOUND", "Not found"),
	exchange.MethodNotAllowed: paymentsGateAnswer(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "Method not allowed"),
	exchange.TooLarge:         paymentsGateAnswer(http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE", "Request too large"),
	exchange.UnsupportedMedia: paymentsGateAnswer(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "Content-Type must be application/json"),
	exchange.LimitReached:     paymentsGateAnswer(http.StatusTooManyRequests, "TOO_MANY_REQUESTS", "Too many requests"),
	exchange.Unavailable:      paymentsGateAnswer(http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE", "Service unavailable"),
	exchange.IssuerFailed:     paymentsGateAnswer(http.StatusBadGateway, "BAD_GATEWAY", "Bad gateway"),
	exchange.IssuerTimeout:    paymentsGateAnswer(http.StatusGatewayTimeout, "GATEWAY_TIMEOUT", "Gateway timeout"),
	exchange.OutcomeUnknown:   paymentsGateAnswer(http.StatusGatewayTimeout, "OUTCOME_UNKNOWN", "It is not known whether the request was carried out"),
}

func paymentsGateAnswer(status int, code, text string) answer {
	b := exchange.AppendMember([]byte{'{'}, "error", code)
	b = exchange.AppendMember(append(b, ','), "message", text)
	b = strconv.AppendInt(append(b, `,"statusCode":`...), int64(status), 10)
	return answer{status, string(append(b, '}'))}
}
