package face

import (
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
)

// /auth/authentication is the login: GET gives out something to sign, POST takes it signed and sets the user's cookie.

// exaSession is what says which challenge was signed: a cookie, or a header in its place.
const (
	exaSession       = "session_id"
	exaSessionHeader = "X-Session-Id"
)

func (e *exa) logins(pattern string) []Endpoint {
	if !e.config.serves(policy.ChallengeMint) || !e.config.serves(policy.SessionMint) {
		return nil
	}
	return []Endpoint{{
		Method: http.MethodGet, Pattern: pattern, Operations: []policy.Operation{policy.ChallengeMint}, CORS: exaCORS(),
		Parse: e.parseChallenge, Render: e.renderChallenge, Fail: exaChallengeAnswers.failAt,
	}, {
		Method: http.MethodPost, Pattern: pattern, MaxBody: exaMaxBody, Operations: []policy.Operation{policy.SessionMint},
		CORS: exaCORS(exaSessionHeader), Parse: e.parseLogin, Render: e.renderLogin, Fail: exaLoginAnswers.failAt,
	}}
}

// parseChallenge reads the query `credentialId`. Where there is none, any passkey may sign.
func (e *exa) parseChallenge(r *exchange.Request) (*exchange.Call, error) {
	c := &exchange.Call{Operations: []policy.Operation{policy.ChallengeMint}}
	c.Challenge.Method = policy.MethodWebAuthn
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil || len(query["credentialId"]) > 1 {
		return nil, exchange.Fail(exchange.BadRequest, "query")
	}
	if query.Has("credentialId") {
		c.Challenge.User = query.Get("credentialId")
		if c.Challenge.Method = exaMethod(c.Challenge.User); c.Challenge.Method == "" {
			return nil, exchange.Fail(exchange.BadRequest, "credential_id")
		}
	}
	return c, nil
}

// renderChallenge writes {method,address,message}, or the browser's request options with a method beside them.
func (e *exa) renderChallenge(c *exchange.Call, res *exchange.Result, out *exchange.Response) {
	b := exchange.AppendMember(append(out.Body[:0], '{'), "method", c.Challenge.Method)
	if c.Challenge.Method == policy.MethodSIWE {
		b = exchange.AppendMember(append(b, ','), "address", res.Challenge.Account)
		b = append(exchange.AppendMember(append(b, ','), "message", res.Challenge.Message), '}')
	} else {
		b = append(append(b, ','), res.Challenge.Options[1:]...) // an object, and never an empty one: there is a challenge in it
	}
	out.Body = b
	out.ContentType = jsonType
	setCookie(out, exaSession, res.Challenge.ID, res.Challenge.Expires)
	out.Header = append(out.Header, exchange.HeaderField{Name: exaSessionHeader, Value: res.Challenge.ID})
}

// parseLogin reads which challenge it is, and what was signed for it.
func (e *exa) parseLogin(r *exchange.Request) (*exchange.Call, error) {
	id, err := exaChallenge(r)
	if err != nil {
		return nil, err
	}
	c := &exchange.Call{
		Operations:  []policy.Operation{policy.SessionMint},
		Credentials: []policy.Credential{policy.NewCredential(policy.KindChallenge, id)},
	}
	body, err := readMembers(r)
	if err != nil {
		return nil, err
	}
	c.Signed.Method = policy.MethodWebAuthn
	if _, ok := body["method"]; ok {
		if c.Signed.Method, err = body.text("method"); err != nil {
			return nil, err
		}
	}
	if c.Signed.User, err = body.text("id"); err != nil {
		return nil, err
	}
	if c.Signed.Method != exaMethod(c.Signed.User) {
		return nil, exchange.Fail(exchange.BadRequest, "id")
	}
	if c.Signed.Method == policy.MethodSIWE {
		if !body.are("method", "id", "signature") {
			return nil, exchange.Fail(exchange.BadRequest, "body")
		}
		c.Signed.Signature, err = body.signature()
	} else {
		c.Signed.Assertion, err = assertion(body)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// exaChallenge finds the id of the challenge in cookie or header. Where both have one, it is the same.
func exaChallenge(r *exchange.Request) (string, error) {
	cookie, n := cookies(r, exaSession)
	header, ok := r.One(exaSessionHeader)
	switch {
	case n > 1 || !ok || cookie != "" && header != "" && cookie != header:
		return "", exchange.Fail(exchange.ChallengeMissing, "sessions_differ")
	case cookie == "" && header == "":
		return "", exchange.Fail(exchange.ChallengeMissing, "no_session")
	case cookie == "":
		return header, nil
	}
	return cookie, nil
}

// assertion is a login's body without `method`, which is no member of a PublicKeyCredential.
func assertion(body members) ([]byte, error) {
	delete(body, "method")
	known := []string{"id", "rawId", "response", "clientExtensionResults", "type"}
	if _, ok := body["authenticatorAttachment"]; ok {
		known = append(known, "authenticatorAttachment")
	}
	if !body.are(known...) {
		return nil, exchange.Fail(exchange.BadRequest, "body")
	}
	var b []byte
	for _, name := range known {
		b = append(append(exchange.AppendString(append(b, ','), name), ':'), body[name]...)
	}
	if b[0] = '{'; len(b) >= exaMaxAssertion {
		return nil, exchange.Fail(exchange.BadRequest, "assertion")
	}
	return append(b, '}'), nil
}

// renderLogin sets the user's cookie, and says until when it is good, in milliseconds. What else the app's own server tells
// of a user is not ours to know.
func (e *exa) renderLogin(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	b := exchange.AppendMember(append(out.Body[:0], '{'), "credentialId", res.Account)
	b = strconv.AppendInt(append(b, `,"auth":`...), res.Expires.UnixMilli(), 10)
	out.Body = append(b, '}')
	out.ContentType = jsonType
	setCookie(out, exaCookie, res.Token, res.Expires)
}

// setCookie sets a cookie that no script reads and that comes back from pages of other sites, each of which has its own [21].
// It ends with what it stands for, which also ends by itself. The value needs no quotes.
func setCookie(out *exchange.Response, name, value string, expires time.Time) {
	out.Header = append(out.Header, exchange.HeaderField{Name: "Set-Cookie", Value: name + "=" + value +
		"; Max-Age=" + strconv.FormatInt(secondsUntil(expires), 10) + "; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"})
}

// The login's own words.
var (
	exaChallengeAnswers = exaAnswers.but(answers{exchange.BadRequest: exaAnswer(http.StatusBadRequest, "bad credential")})
	exaLoginAnswers     = exaAnswers.but(answers{
		exchange.BadRequest:        exaAnswer(http.StatusBadRequest, "bad authentication"),
		exchange.BadSignature:      exaAnswer(http.StatusBadRequest, "bad authentication"),
		exchange.ChallengeMissing:  exaAnswer(http.StatusBadRequest, "bad session"),
		exchange.ChallengeUnknown:  exaAnswer(http.StatusBadRequest, "no authentication"),
		exchange.CredentialUnknown: exaAnswer(http.StatusBadRequest, "no credential"),
	})
)

// but is the table with some answers replaced.
func (a answers) but(others answers) answers {
	all := maps.Clone(a)
	maps.Copy(all, others)
	return all
}

// failAt is an Endpoint's Fail.
func (a answers) failAt(kind exchange.Kind, _ exchange.Place, out *exchange.Response) {
	a.fail(kind, out)
}
