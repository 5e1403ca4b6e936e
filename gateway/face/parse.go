package face

import (
	"net/url"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/vault"
)

// sealedBody reads {"data","iv"}, both required.
func sealedBody(body []byte) (vault.Sealed, error) {
	var in struct {
		Data *string `json:"data"`
		IV   *string `json:"iv"`
	}
	if err := exchange.DecodeStrict(body, &in); err != nil {
		return vault.Sealed{}, &exchange.Failure{Kind: exchange.BadRequest, Reason: "body", Err: err}
	}
	if in.Data == nil || in.IV == nil || *in.Data == "" || *in.IV == "" {
		return vault.Sealed{}, exchange.Fail(exchange.BadRequest, "body")
	}
	return vault.Sealed{Data: *in.Data, IV: *in.IV}, nil
}

// appendPIN appends a sealed PIN block, or null where the card has no PIN.
func appendPIN(dst []byte, res *exchange.Result) []byte {
	if !res.PINSet {
		return append(dst, "null"...)
	}
	return appendSealed(dst, res.PIN)
}

// members are a JSON object whose members tell what it is: each name once, each value as it stood there, without white
// space around it.
type members map[string]jsontext.Value

// readMembers reads a body that is one JSON object.
func readMembers(r *exchange.Request) (members, error) {
	if err := jsonBody(r); err != nil {
		return nil, err
	}
	var body members
	if err := exchange.DecodeStrict(r.Body, &body); err != nil {
		return nil, &exchange.Failure{Kind: exchange.BadRequest, Reason: "body", Err: err}
	}
	return body, nil
}

// are reports whether these are the members: all of them, and no other one.
func (m members) are(names ...string) bool {
	for _, name := range names {
		if _, ok := m[name]; !ok {
			return false
		}
	}
	return len(m) == len(names)
}

// text is a member that is a string, and not an empty one.
func (m members) text(name string) (string, error) {
	var text exchange.Text
	if err := exchange.DecodeStrict(m[name], &text); err != nil || text.Value == "" {
		return "", &exchange.Failure{Kind: exchange.BadRequest, Reason: "body", Err: err}
	}
	return text.Value, nil
}

// cookies finds the value of the cookie of a name, and how many there are of it. Two are none: parsers disagree on which one
// counts. What else stands in the header is other people's, and need not even be well formed.
func cookies(r *exchange.Request, wanted string) (value string, n int) {
	for _, line := range r.Header.Values("Cookie") {
		for part := range strings.SplitSeq(line, ";") {
			name, found, ok := strings.Cut(strings.Trim(part, " \t"), "=")
			if !ok || name != wanted {
				continue
			}
			value, n = found, n+1
		}
	}
	return value, n
}

// query reads the request's query; of one that does not parse, what does.
func query(r *exchange.Request) url.Values {
	values, _ := url.ParseQuery(r.RawQuery)
	return values
}

// maxIdempotency is the longest Idempotency-Key, in bytes.
const maxIdempotency = 255

// idempotencyKey reads the header of that name; "" is none. A key is visible ASCII. One that is there and says nothing is
// refused: whoever sent it relies on it.
func idempotencyKey(r *exchange.Request) (string, error) {
	switch values := r.Header.Values("Idempotency-Key"); {
	case len(values) == 0:
		return "", nil
	case len(values) == 1 && values[0] != "" && len(values[0]) <= maxIdempotency && visible(values[0]):
		return values[0], nil
	}
	return "", exchange.Wrong("header", "Idempotency-Key", "idempotency_key")
}

// visible reports whether a text is of visible ASCII alone.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}
