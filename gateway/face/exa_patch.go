package face

import (
	"encoding/hex"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
)

// PATCH /card changes one thing of the user's card: its state, its mode, its PIN, or the account that it is linked to. Which
// one is told by the members of the body.

// Bounds in bytes of what an authenticator signed, and of a body that holds it.
const (
	exaMaxAssertion = 16 << 10
	exaMaxBody      = exaMaxAssertion + maxBody
)

// exaStates are Exa's words for what a card shall be.
var exaStates = map[string]exchange.CardStatus{"ACTIVE": exchange.Active, "FROZEN": exchange.Frozen, "DELETED": exchange.Cancelled}

func (e *exa) patches(pattern string) []Endpoint {
	operations := e.served(policy.CardStatus, policy.CardMode, policy.CardLink)
	if e.setsPIN() {
		operations = append(operations, policy.PINSet)
	}
	if len(operations) == 0 {
		return nil
	}
	return []Endpoint{{
		Method: http.MethodPatch, Pattern: pattern, MaxBody: exaMaxBody, Operations: operations, CORS: exaCORS(),
		Parse: e.parsePatch, Render: e.renderPatch,
	}}
}

func (e *exa) setsPIN() bool {
	return e.config.PIN != PINOff && e.config.PINKeys != nil && e.config.serves(policy.PINSet)
}

// parsePatch reads the user, and then the body.
func (e *exa) parsePatch(r *exchange.Request) (*exchange.Call, error) {
	c := &exchange.Call{}
	if err := exaUser(r, c); err != nil {
		return nil, err
	}
	body, err := readMembers(r)
	if err != nil {
		return nil, err
	}
	if _, signed := body["method"]; signed { // forms that may have more than their members, but none of another form
		maps.DeleteFunc(body, func(name string, _ jsontext.Value) bool { return !slices.Contains(exaMembers, name) })
	}
	op := policy.CardLink
	switch {
	case body.are("status"):
		op, err = policy.CardStatus, patchStatus(body, c)
	case body.are("mode"):
		op, err = policy.CardMode, patchMode(body, c)
	case body.are("data", "iv", "sessionId"):
		op, err = policy.PINSet, e.patchPIN(body, c)
	case body.are("method", "message", "signature"):
		err = linkWallet(body, c)
	case body.are("method", "assertion"):
		err = linkPasskey(body, c)
	default:
		err = exchange.Fail(exchange.BadRequest, "body")
	}
	if err != nil {
		return nil, err
	}
	if !e.config.serves(op) {
		return nil, exchange.Fail(exchange.BadRequest, "not_served")
	}
	c.Operations = []policy.Operation{op}
	return c, nil
}

// exaMembers are the members of all forms.
var exaMembers = []string{"status", "mode", "data", "iv", "sessionId", "method", "message", "signature", "assertion"}

func patchStatus(body members, c *exchange.Call) error {
	word, err := body.text("status")
	if c.Status = exaStates[word]; err == nil && c.Status == 0 {
		err = exchange.Fail(exchange.BadRequest, "status")
	}
	return err
}

// patchMode takes digits alone: 1.0 and 1e0 are numbers that not every reader takes for an integer.
func patchMode(body members, c *exchange.Call) error {
	mode, err := strconv.ParseUint(string(body["mode"]), 10, 31)
	if err != nil {
		return exchange.Fail(exchange.BadRequest, "mode")
	}
	c.Mode = int(mode)
	return nil
}

func (e *exa) patchPIN(body members, c *exchange.Call) (err error) {
	if !e.setsPIN() {
		return exchange.Fail(exchange.BadRequest, "pin_off")
	}
	var session string
	for _, m := range []struct {
		name string
		to   *string
	}{{"data", &c.PIN.Data}, {"iv", &c.PIN.IV}, {"sessionId", &session}} {
		if *m.to, err = body.text(m.name); err != nil {
			return err
		}
	}
	return preambleText(session, c, e.config.PINKeys)
}

// linkWallet reads what a wallet signed. The challenge is found again by the message, and so its credential names none.
func linkWallet(body members, c *exchange.Call) (err error) {
	c.Signed.Method = policy.MethodSIWE
	if method, err := body.text("method"); err != nil || method != policy.MethodSIWE {
		return exchange.Fail(exchange.BadRequest, "method")
	}
	if c.Signed.Message, err = body.text("message"); err != nil {
		return err
	}
	if c.Signed.Signature, err = body.signature(); err != nil {
		return err
	}
	c.Credentials = append(c.Credentials, policy.NewCredential(policy.KindChallenge, ""))
	return nil
}

// linkPasskey reads what an authenticator signed: a statement, which has no nonce. The challenge is found again by user and
// card [21], and so its credential names none.
func linkPasskey(body members, c *exchange.Call) error {
	c.Signed.Method = policy.MethodWebAuthn
	if method, err := body.text("method"); err != nil || method != policy.MethodWebAuthn {
		return exchange.Fail(exchange.BadRequest, "method")
	}
	c.Signed.Assertion = body["assertion"]
	if c.Signed.Assertion[0] != '{' || len(c.Signed.Assertion) > exaMaxAssertion {
		return exchange.Fail(exchange.BadRequest, "assertion")
	}
	c.Credentials = append(c.Credentials, policy.NewCredential(policy.KindChallenge, ""))
	return nil
}

// signature reads "0x" and hexadecimal digits; how many there are to be, and what they say, is judged with the challenge.
func (m members) signature() (string, error) {
	text, err := m.text("signature")
	if err != nil {
		return "", err
	}
	digits, ok := strings.CutPrefix(text, "0x")
	if _, err := hex.DecodeString(digits); !ok || err != nil || digits == "" {
		return "", exchange.Fail(exchange.BadRequest, "signature")
	}
	return text, nil
}

// renderPatch answers with what was sent, once it is so.
func (e *exa) renderPatch(c *exchange.Call, _ *exchange.Result, out *exchange.Response) {
	b := out.Body[:0]
	switch c.Operations[0] {
	case policy.CardStatus:
		for word, status := range exaStates {
			if status == c.Status {
				b = append(exchange.AppendMember(append(b, '{'), "status", word), '}')
			}
		}
	case policy.CardMode:
		b = append(strconv.AppendInt(append(b, `{"mode":`...), int64(c.Mode), 10), '}')
	case policy.PINSet:
		b = exchange.AppendMember(append(b, '{'), "data", c.PIN.Data)
		b = append(exchange.AppendMember(append(b, ','), "iv", c.PIN.IV), '}')
	default:
		b = append(b, `{"verification":"OK"}`...)
	}
	out.Body = b
	out.ContentType = jsonType
}
