package face

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// forward is one call of the issuer's API that a route carries as it is, but for declared fields. It is what faces with
// forward routes share; how their callers prove themselves is their own.
type forward struct {
	call   *exchange.ForwardCall
	path   ForwardPath
	submit []string // the pointers of call.Submit, sorted
	token  string   // the member of call.Token, as errors name it
	keys   Preambles
	manner
}

// manner is how a face's callers make such calls. Its functions fail with an *exchange.Failure.
type manner struct {
	present func(*exchange.Request) ([]policy.Credential, error) // what a request presents
	key     func(*exchange.Request) (string, error)              // its idempotency key, "" where it has none
	scope   string                                               // what a credential that has a scope must have in it
	late    bool                                                 // what is wrong is told to whoever is proven, and to nobody else
	cards   bool                                                 // some have tokens of cards that are held
}

// Of one forwarded call, in bytes.
const (
	maxForwardBody  = 64 << 10
	maxForwardQuery = 4 << 10
)

// withForwards appends an endpoint for each call that a route forwards. A call that is one of the face's own is refused; of
// all others that a request could be, the mux finds the face's own first, whose paths are exact.
func withForwards(own []Endpoint, c *Config, m manner) ([]Endpoint, error) {
	all := own
	for i := range c.Forward {
		f, err := newForward(&c.Forward[i], c.SessionKeys, m)
		if err == nil && slices.ContainsFunc(own, f.is) {
			err = errors.New("the face has this call itself")
		}
		if err != nil {
			return nil, fmt.Errorf("forward %s: %w", c.Forward[i].Name, err)
		}
		all = append(all, f.endpoint())
	}
	return all, nil
}

func newForward(call *exchange.ForwardCall, keys Preambles, m manner) (*forward, error) {
	path, err := ParseForwardPath(call.Pattern)
	if err != nil {
		return nil, err
	}
	f := &forward{call: call, path: path, submit: slices.Sorted(maps.Keys(call.Submit)), token: dotted(call.Token), keys: keys, manner: m}
	switch call.Without {
	case exchange.WithoutMask, exchange.WithoutRefuse, exchange.WithoutClear:
	default:
		return nil, errors.New("what becomes of declared fields without a session is not said")
	}
	switch {
	case call.Response == nil || call.Request == nil && (len(call.Submit) > 0 || call.Token != ""):
		return nil, errors.New("fields of a body without a shape")
	case call.Token != "" && !m.cards:
		return nil, errors.New("a token of a card, on a route that holds none")
	case call.Token != "" && len(call.Submit) > 0:
		return nil, errors.New("a token of a card, beside fields of one")
	case call.Token != "" && len(call.Fields) > 0 && call.Without == exchange.WithoutClear: // the session of a held card takes nothing
		return nil, errors.New("a token of a card, and fields that leave in clear")
	case keys == nil && (len(call.Submit) > 0 || len(call.Fields) > 0 && call.Without == exchange.WithoutRefuse):
		return nil, errNoSessionKey
	case declares(call, vault.FieldPIN): // its limits are those of a card, and a forward names none [14]
		return nil, errors.New("a PIN cannot be a field of a forward")
	}
	return f, nil
}

// is reports whether an endpoint is of the same method and path.
func (f *forward) is(e Endpoint) bool {
	return e.Method == f.call.Method && e.Pattern == f.call.Pattern
}

// declares reports whether a field is among those of the request or of the answer.
func declares(call *exchange.ForwardCall, field vault.Field) bool {
	return slices.Contains(slices.Collect(maps.Values(call.Fields)), field) || slices.Contains(slices.Collect(maps.Values(call.Submit)), field)
}

func (f *forward) endpoint() Endpoint {
	e := Endpoint{
		Method: f.call.Method, Pattern: f.call.Pattern, Operations: forwardOperations(len(f.call.Fields) > 0, len(f.call.Submit) > 0 || f.call.Token != ""),
		Shape: f.call.Request, LateBody: f.late, Parse: f.parse, Render: renderForward,
	}
	if e.Shape != nil {
		e.MaxBody = maxForwardBody
	}
	return e
}

func forwardOperations(reveal, submit bool) []policy.Operation {
	all := append(make([]policy.Operation, 0, 3), policy.Forward)
	if reveal {
		all = append(all, policy.ForwardReveal)
	}
	if submit {
		all = append(all, policy.ForwardSubmit)
	}
	return all
}

// parse reads who is calling, and what is asked for.
func (f *forward) parse(r *exchange.Request) (*exchange.Call, error) {
	presented, err := f.present(r)
	if err != nil {
		return nil, err
	}
	c := &exchange.Call{
		Operations: forwardOperations(false, false), Credentials: presented, Scope: f.scope,
		Forward: &exchange.Forward{Call: f.call, Query: r.RawQuery},
	}
	if err := f.read(r, c); err != nil {
		if f.late {
			return late(c, err)
		}
		return nil, err
	}
	return c, nil
}

// read reads, in this order, the body's type, the idempotency key, path and query, the session, and the fields that are submitted,
// or the token of a card in their place.
func (f *forward) read(r *exchange.Request, c *exchange.Call) error {
	if len(r.Body) != 0 {
		return exchange.Fail(exchange.BadRequest, "body")
	}
	if hasBody(r) || r.Unread {
		if err := jsonBody(r); err != nil {
			return err
		}
		c.Forward.Body = r.Clear
	}
	var err error
	if c.IdempotencyKey, err = f.key(r); err != nil {
		return err
	}
	if c.Forward.Path, err = f.target(r); err != nil {
		return err
	}
	if !forwardQuery(r.RawQuery) || r.RawQuery != "" && f.call.Terminal != "" { // which a receiver may mix with the body
		return exchange.Wrong("query", "", "query")
	}
	if err := f.session(r, c); err != nil {
		return err
	}
	submitted, err := f.submitted(c)
	if err != nil {
		return err
	}
	if err := f.paid(c); err != nil {
		return err
	}
	shown := len(f.call.Fields) > 0 && (c.Forward.Sealed || f.call.Without == exchange.WithoutClear)
	c.Operations = forwardOperations(shown, submitted || c.Forward.Paid)
	return nil
}

// hasBody reports whether a body that the vault read holds anything.
func hasBody(r *exchange.Request) bool { return r.Clear != nil && !r.Clear.Empty() }

// session reads the session that fields are sealed for. Where none are declared there is nothing that it would be for, and
// the header is not read.
func (f *forward) session(r *exchange.Request, c *exchange.Call) error {
	if len(f.call.Fields)+len(f.call.Submit) == 0 {
		return nil
	}
	if err := preamble(r, c, f.keys); err != nil {
		return err
	}
	c.Forward.Sealed = c.Preamble.Present()
	if !c.Forward.Sealed && len(f.call.Fields) > 0 && f.call.Without == exchange.WithoutRefuse {
		return exchange.Fail(exchange.BadSession, "no_preamble")
	}
	return nil
}

// submitted reports whether the body holds declared fields, which are sealed under the caller's session: one that stands
// there in clear is refused.
func (f *forward) submitted(c *exchange.Call) (found bool, err error) {
	if c.Forward.Body == nil {
		return false, nil
	}
	for _, pointer := range f.submit {
		if !c.Forward.Body.Has(pointer) {
			continue
		}
		if _, err := c.Forward.Body.Sealed(pointer); err != nil {
			return false, exchange.Wrong("body", pointer, "submitted_field")
		}
		found = true
	}
	if found && !c.Forward.Sealed {
		return false, exchange.Fail(exchange.BadSession, "no_preamble")
	}
	return found, nil
}

// cardToken is the type of a token that stands for a card that is held, and is good once.
const cardToken = "singleUseToken"

// paid reads the token of a card that is held, where the body names one: it is a credential of its own.
func (f *forward) paid(c *exchange.Call) error {
	body := c.Forward.Body
	if f.call.Token == "" || body == nil {
		return nil
	}
	named := body.Has(f.call.Token)
	kind, token, err := body.Token(f.call.Token)
	switch {
	case named && (err != nil || kind != cardToken): // a card in clear too
		return exchange.Wrong("body", f.token+".type", "card_token_type")
	case named && token == "":
		return exchange.Wrong("body", f.token+".token", "card_token")
	case body.HoldsPAN(): // which the token is there to keep out
		return exchange.Wrong("body", "card_number", "card_number_in_clear")
	case !named:
		return nil
	}
	c.Credentials = append(c.Credentials, policy.NewCredential(policy.KindCardToken, token))
	c.Forward.Paid = true
	return nil
}

// dotted is a JSON pointer as people write it: paymentMethod.token.
func dotted(pointer string) string {
	return strings.NewReplacer("~1", "/", "~0", "~", "/", ".").Replace(strings.TrimPrefix(pointer, "/"))
}

// renderForward hands the issuer's answer on.
func renderForward(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	out.Status, out.ContentType, out.RetryAfter = res.Forward.Status, res.Forward.ContentType, res.Forward.RetryAfter
	out.Body, out.Clear = out.Body[:0], res.Forward.Message
}

// ForwardPath is the path of a call that is forwarded, taken apart.
type ForwardPath []segment

// segment is one of a path: a text, escaped, or a wildcard.
type segment struct{ text, param string }

// ParseForwardPath reads a pattern such as /deals/{id}. Wildcards are whole segments, each of a name of its own, of ASCII
// letters, digits and "_", that begins with no digit: what else net/http.ServeMux has would stand for paths that nobody
// listed. So would a slash at the end. The other segments are as they are when decoded.
func ParseForwardPath(pattern string) (ForwardPath, error) {
	rest, ok := strings.CutPrefix(pattern, "/")
	if !ok {
		return nil, errors.New("not a path")
	}
	var all ForwardPath
	for text := range strings.SplitSeq(rest, "/") {
		name, wild := strings.CutPrefix(text, "{")
		name, closed := strings.CutSuffix(name, "}")
		switch {
		case !wild && !strings.ContainsAny(text, "{}?# ") && plainSegment(text):
			all = append(all, segment{text: url.PathEscape(text)})
		case wild && closed && wildcardName(name) && !slices.Contains(all.Wildcards(), name):
			all = append(all, segment{param: name})
		default:
			return nil, errors.New("not a path of whole segments")
		}
	}
	return all, nil
}

// wildcardName reports whether a name can be a wildcard's.
func wildcardName(name string) bool {
	if name == "" || '0' <= name[0] && name[0] <= '9' {
		return false
	}
	return !strings.ContainsFunc(name, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_')
	})
}

// Wildcards are the names of the path's wildcards, in its order.
func (p ForwardPath) Wildcards() []string {
	var names []string
	for _, s := range p {
		if s.param != "" {
			names = append(names, s.param)
		}
	}
	return names
}

// target is the path at the issuer. It is made of the route's own pattern and of the values of its wildcards, which are
// escaped anew: nothing of a caller's path reaches the issuer but those.
func (f *forward) target(r *exchange.Request) (string, error) {
	var b strings.Builder
	for _, s := range f.path {
		b.WriteByte('/')
		b.WriteString(s.text)
		if s.param == "" {
			continue
		}
		value := r.Param(s.param)
		if !plainSegment(value) {
			return "", exchange.Wrong("path", s.param, "path")
		}
		b.WriteString(url.PathEscape(value))
	}
	return b.String(), nil
}

// plainSegment reports whether a decoded segment of a path is one to everybody. Refused is what servers read in different
// ways, so that a path that is not on the list cannot be reached by one that is: dot segments, slashes of either kind,
// parameters, what would be decoded a second time, control characters, and bytes that are no UTF-8.
func plainSegment(s string) bool {
	if s == "" || s == "." || s == ".." || !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f || strings.ContainsRune(`/\;%`, c) })
}

// forwardQuery reports whether a query can be passed on as it came: of the characters that RFC 3986 allows, or that clients
// leave unescaped all the same, and of a form that parses.
func forwardQuery(raw string) bool {
	if len(raw) > maxForwardQuery || !visible(raw) || strings.Contains(raw, "#") {
		return false
	}
	_, err := url.ParseQuery(raw)
	return err == nil
}
