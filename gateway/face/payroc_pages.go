package face

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// This file is what the pages of hosted fields call. Their credential is the session in the path, which says what it is for and
// whose it is: they have no Bearer.

// payrocPage is the path of a page's session. Source: the page's script.
const payrocPage = "/merchant/api/v2/hosted-fields-sessions/{token}"

// payrocCORS is how they call from the origin of the shop's page, with no credential that the browser adds.
var payrocCORS = &CORS{Headers: []string{"Idempotency-Key", "Content-Type"}}

// What there is to a card's security code.
const (
	payrocMandatory = "mandatory"
	payrocEnabled   = "enabled"
	payrocDisabled  = "disabled"
)

// The fields of a page, by their names in a submission. Members that are none of ours are passed over.
const (
	payrocNumber = "cardNumber"
	payrocCVV    = "cvv"
	payrocExpiry = "expiryDate"
	payrocHolder = "cardholderName"
)

// pages are the pages' endpoints. A repetition of a submission is told by a digest of its body, of which a security code could be
// guessed: the gateway makes it of the key's text too, which nothing keeps [11].
func (p *payroc) pages() ([]Endpoint, error) {
	submission, err := vault.NewShape(vault.ShapeConfig{
		Exact:    true,
		MaxBytes: maxBody, Public: []string{"/type", "/" + payrocExpiry, "/" + payrocHolder},
		Clear: map[string]vault.Field{"/" + payrocNumber: vault.FieldPAN, "/" + payrocCVV: vault.FieldCVC},
	})
	if err != nil {
		return nil, err
	}
	fail := payrocPageAnswers.failPayroc
	return []Endpoint{{
		Method: http.MethodGet, Pattern: "/merchant/hosted-fields", Operations: []policy.Operation{policy.FieldsRead}, Static: p.page, Fail: fail,
	}, {
		Method: http.MethodGet, Pattern: payrocPage + "/configuration", Operations: []policy.Operation{policy.FieldsRead}, CORS: payrocCORS,
		Parse: p.parsePage(policy.FieldsRead, p.readConfiguration), Render: p.renderConfiguration, Fail: fail,
	}, {
		Method: http.MethodPost, Pattern: payrocPage + "/fields", Operations: []policy.Operation{policy.FieldSubmit}, CORS: payrocCORS,
		MaxBody: maxBody, Shape: submission, Idempotency: payrocPageIdempotency,
		Parse: p.parsePage(policy.FieldSubmit, p.readField), Render: p.renderField, Fail: fail,
	}, {
		Method: http.MethodPost, Pattern: payrocPage + "/single-use-tokens", Operations: []policy.Operation{policy.TokenMint}, CORS: payrocCORS,
		MaxBody: maxBody, Idempotency: payrocPageIdempotency,
		Parse: p.parsePage(policy.TokenMint, p.readToken), Render: p.renderToken, Fail: fail,
	}}, nil
}

// page answers with the page of a field: public, and the same for everybody who asks the same.
func (p *payroc) page(r *exchange.Request, out *exchange.Response) {
	asked, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		err = exchange.Wrong("query", "", "query") // the error would quote
	} else {
		err = p.config.HostedFields.Page(asked, out)
	}
	if err == nil {
		return
	}
	at := exchange.Place{In: "query", Name: "field"}
	if failure, ok := errors.AsType[*exchange.Failure](err); ok {
		at = failure.At
	}
	out.Reset()
	payrocPageAnswers.failPayroc(exchange.BadRequest, at, out)
}

// parsePage reads what every call of a page has. What is wrong with the rest is told to whoever has a session.
func (p *payroc) parsePage(op policy.Operation, read func(*exchange.Request, *exchange.Call) error) func(*exchange.Request) (*exchange.Call, error) {
	return func(r *exchange.Request) (*exchange.Call, error) {
		c := &exchange.Call{
			Operations: []policy.Operation{op}, Credentials: []policy.Credential{policy.NewCredential(policy.KindFields, r.Param("token"))},
		}
		return late(c, read(r, c))
	}
}

// readConfiguration reads the key that claims the session: no answer is kept for it.
func (p *payroc) readConfiguration(r *exchange.Request, c *exchange.Call) (err error) {
	if c.IdempotencyKey, err = payrocKey(r); err == nil && len(r.Body) != 0 {
		err = exchange.Wrong("body", "", "body")
	}
	return err
}

// renderConfiguration writes how the page is to be. The script asks of a session for payments what fraudDetection says of the
// security code, of one for tokens what tokenization says: it is the same here.
func (p *payroc) renderConfiguration(_ *exchange.Call, _ *exchange.Result, out *exchange.Response) {
	h := p.config.HostedFields
	b := append(out.Body[:0], `{"configuration":{"cardHolderNameMandatory":`...)
	b = append(appendBool(b, h.Name), `,"allowExpiredCards":`...)
	b = append(appendBool(b, h.Expired), `,"tokenization":{"enabled":`...)
	b = exchange.AppendMember(append(appendBool(b, h.Tokenize), ','), "cvvVerification", h.CVV)
	b = exchange.AppendMember(append(b, `},"fraudDetection":{`...), "cvvVerification", h.CVV)
	out.Body = append(b, `}}}`...)
	out.ContentType = jsonType
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, "true"...)
	}
	return append(dst, "false"...)
}

// readField reads {"type", and the member of that name}: one field, whose owner has left it.
func (p *payroc) readField(r *exchange.Request, c *exchange.Call) error {
	if err := jsonBody(r); err != nil {
		return err
	}
	var err error
	if c.IdempotencyKey, err = payrocKey(r); err != nil {
		return err
	}
	name, err := r.Clear.Text("/type")
	if err != nil {
		return exchange.Wrong("body", "type", "field_type")
	}
	for _, other := range []string{payrocNumber, payrocCVV, payrocExpiry, payrocHolder} {
		if pointer := "/" + other; other != name && (r.Clear.Has(pointer) || r.Clear.Null(pointer)) {
			return exchange.Wrong("body", other, "field_of_another_type")
		}
	}
	c.Submit, err = p.submission(r, name)
	return err
}

// submission judges the field of a name. A security code is judged where it is sealed.
func (p *payroc) submission(r *exchange.Request, name string) (exchange.Submission, error) {
	pointer := "/" + name
	switch name {
	case payrocNumber:
		_, err := r.Clear.Network(pointer)
		return exchange.Submission{Field: vault.FieldPAN, Member: pointer}, wrongField(name, err == nil)
	case payrocCVV:
		_, err := r.Clear.Field(pointer)
		return exchange.Submission{Field: vault.FieldCVC, Member: pointer}, wrongField(name, err == nil)
	case payrocExpiry:
		text, err := r.Clear.Text(pointer)
		return exchange.Submission{Detail: vault.DetailExpiry, Text: text}, wrongField(name, err == nil && p.unexpired(text, r.Received))
	case payrocHolder:
		text, err := r.Clear.Text(pointer)
		return exchange.Submission{Detail: vault.DetailName, Text: text}, wrongField(name, err == nil && holderName(text))
	}
	return exchange.Submission{}, exchange.Wrong("body", "type", "field_type")
}

func wrongField(name string, ok bool) error {
	if ok {
		return nil
	}
	return exchange.Wrong("body", name, "field")
}

// unexpired reports whether a card is good at a time, or the route takes it all the same. A card is good to the end of its month,
// which ends last at UTC−12.
func (p *payroc) unexpired(text string, at time.Time) bool {
	month, year, err := vault.ExpiryMMYY.Parse(text)
	return err == nil && (p.config.HostedFields.Expired || year+month >= at.UTC().Add(-12*time.Hour).Format("200601"))
}

// maxHolderName is the longest name of a cardholder, in bytes: what the vault holds.
const maxHolderName = 255

// holderName reports whether a text can be a cardholder's name.
func holderName(text string) bool {
	return strings.TrimSpace(text) != "" && len(text) <= maxHolderName && utf8.ValidString(text) &&
		!strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// renderField writes {"info":{"showCvv","cardType"}}: of a card number what it begins with says, "" being no network that we
// know; of other fields nothing is known.
func (p *payroc) renderField(c *exchange.Call, res *exchange.Result, out *exchange.Response) {
	network := vault.Network{SecurityCode: true}
	if c.Submit.Field == vault.FieldPAN {
		network = res.Network
	}
	b := append(out.Body[:0], `{"info":{"showCvv":`...)
	b = appendBool(b, network.SecurityCode && p.config.HostedFields.CVV != payrocDisabled)
	out.Body = append(exchange.AppendMember(append(b, ','), "cardType", network.Name), `}}`...)
	out.ContentType = jsonType
}

// payrocTokenTTL is the life of a single-use token. Source: docs.payroc.com, `Hosted Fields`.
const payrocTokenTTL = 30 * time.Minute

// readToken reads a body that says nothing: none, or what clients make of none.
func (p *payroc) readToken(r *exchange.Request, c *exchange.Call) error {
	c.CardToken, c.Bind = true, exchange.Bind{Operation: policy.ForwardSubmit, TTL: payrocTokenTTL}
	body := bytes.TrimSpace(r.Body)
	if len(body) != 0 {
		if err := jsonBody(r); err != nil {
			return err
		}
	}
	var err error
	if c.IdempotencyKey, err = payrocKey(r); err != nil || len(body) == 0 || string(body) == "null" {
		return err
	}
	if err := exchange.DecodeStrict(body, &struct{}{}); err != nil {
		return &exchange.Failure{Kind: exchange.BadRequest, At: exchange.Place{In: "body"}, Reason: "body", Err: err}
	}
	return nil
}

// renderToken writes {"token","expiresAt"}.
func (p *payroc) renderToken(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	out.Body = append(appendPayrocToken(append(out.Body[:0], '{'), res), '}')
	out.ContentType = jsonType
}
