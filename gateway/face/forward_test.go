package face_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

func shape(c vault.ShapeConfig) *vault.Shape {
	s, err := vault.NewShape(c)
	check(err)
	return s
}

// carry is a call that a route forwards, made as main makes them.
func carry(method, pattern string, without exchange.WithoutSession, fields, submit map[string]vault.Field) exchange.ForwardCall {
	call := exchange.ForwardCall{
		Name: method + " " + pattern, Method: method, Pattern: pattern, Changes: method != http.MethodGet, Without: without,
		Response: shape(vault.ShapeConfig{Clear: fields}), Fields: fields, Submit: submit,
	}
	if method == http.MethodPost {
		call.Request = shape(vault.ShapeConfig{Sealed: submit})
	}
	return call
}

var (
	account  = map[string]vault.Field{"/account_number": vault.FieldAccount}
	cardData = map[string]vault.Field{"/card/pan": vault.FieldPAN, "/card/cvc": vault.FieldCVC}
)

// forwards are calls of each sort.
func forwards() []exchange.ForwardCall {
	return []exchange.ForwardCall{
		carry("GET", "/wallet", exchange.WithoutMask, nil, nil),
		carry("GET", "/deals/{id}/credentials", exchange.WithoutMask, account, nil),
		carry("GET", "/strict/{id}", exchange.WithoutRefuse, account, nil),
		carry("GET", "/open/{id}", exchange.WithoutClear, account, nil),
		carry("POST", "/deals/payin", exchange.WithoutMask, nil, nil),
		carry("POST", "/cards", exchange.WithoutMask, account, cardData),
		carry("POST", "/opencards", exchange.WithoutClear, nil, cardData),
		carry("DELETE", "/a-b/{first}/c.d/{second}", exchange.WithoutMask, nil, nil),
	}
}

func get(target, headers string) string {
	return "GET " + target + " HTTP/1.1\nHost: api.example\n" + headers + "\n"
}

func remove(target string) string { return strings.Replace(get(target, bearer), "GET", "DELETE", 1) }

const (
	sealedPAN = `"pan":{"data":"AA==","iv":"BB=="}`
	sealedCVC = `"cvc":{"iv":"BB==","data":"AA=="}`
)

func postCard(headers, members string) string {
	return post("/cards", bearer+headers, `{"card":{`+members+`},"amount":10}`)
}

var forwardRequests = []named{
	{"plain", get("/wallet", bearer)},
	{"plain: trailing question mark", get("/wallet?", bearer)},
	{"plain: a published client", get("/wallet?", "Origin: https://api.example\nAccept-Encoding: deflate\n"+bearer)},
	{"plain: query", get("/wallet?currencyId=EUR&a=%20b+c&a=[1]", bearer)},
	{"plain: a session is nothing to it", get("/wallet", bearer+"sessionid: nonsense\n")},
	{"plain: no token", get("/wallet", "")},
	{"plain: two tokens", get("/wallet", bearer+bearer)},
	{"plain: a key that is none, beside a token", get("/wallet", bearer+"x-api-key: a\n")},
	{"plain: a body", strings.Replace(get("/wallet", bearer+"Content-Length: 2\n"), "\n\n", "\n\n{}", 1)},
	{"plain: a signature over nothing", get("/wallet", bearer+"api-signature: c2lnbmVk\n")},
	{"plain: HEAD", strings.Replace(get("/wallet", bearer), "GET", "HEAD", 1)},
	{"plain: a path that nobody listed", get("/wallets", bearer)},
	{"plain: a path below", get("/wallet/deposit", bearer)},

	{"query: an escape that is none", get("/wallet?a=%zz", bearer)},
	{"query: semicolon", get("/wallet?a=1;b=2", bearer)},
	{"query: number sign", get("/wallet?a=1#b", bearer)},
	{"query: not ASCII", get("/wallet?a=é", bearer)},
	{"query: as long as can be", get("/wallet?"+strings.Repeat("a", 4096), bearer)},
	{"query: longer", get("/wallet?"+strings.Repeat("a", 4097), bearer)},

	{"fields", get("/deals/7/credentials", bearer+sealing)},
	{"fields: no session", get("/deals/7/credentials", bearer)},
	{"fields: empty session is none", get("/deals/7/credentials", bearer+"sessionid: \n")},
	{"fields: a session that is none", get("/deals/7/credentials", bearer+"sessionid: %%\n")},
	{"fields: two sessions", get("/deals/7/credentials", bearer+sealing+sealing)},
	{"fields: neither token nor session", get("/deals/7/credentials", "sessionid: nonsense\n")},
	{"fields or refused", get("/strict/7", bearer+sealing)},
	{"fields or refused: no session", get("/strict/7", bearer)},
	{"fields or clear", get("/open/7", bearer+sealing)},
	{"fields or clear: no session", get("/open/7", bearer)},

	{"path: two wildcards", remove("/a-b/1/c.d/2")},
	{"path: escaped as it must be", remove("/a-b/%C3%A9%20x/c.d/a%3Fb%23c")},
	{"path: escaped without need", remove("/a-b/%61/c%2Ed/%7e")},
	{"path: what needs no escape", remove("/a-b/x:y@z/c.d/a+b=c&d$,!'()*")},
	{"path: dots in a segment", remove("/a-b/..a/c.d/a..")},
	{"path: an escaped slash", remove("/a-b/1%2F2/c.d/2")},
	{"path: an escaped backslash", remove("/a-b/1/c.d/1%5C2")},
	{"path: escaped dots", remove("/a-b/%2e%2e/c.d/2")},
	{"path: an escaped dot", remove("/a-b/1/c.d/%2E")},
	{"path: escaped twice", remove("/a-b/%252e%252e/c.d/2")},
	{"path: parameters", remove("/a-b/..;/c.d/2")},
	{"path: a line feed", remove("/a-b/1%0a/c.d/2")},
	{"path: a zero", remove("/a-b/1%00/c.d/2")},
	{"path: a delete", remove("/a-b/1%7f/c.d/2")},
	{"path: not UTF-8", remove("/a-b/%c0%ae%c0%ae/c.d/2")},

	{"body", post("/deals/payin", bearer, `{"amount":10,"a":[null]}`)},
	{"body: chunked", "POST /deals/payin? HTTP/1.1\nHost: api.example\nContent-Type: application/json\nTransfer-Encoding: chunked\n" + bearer + "\n2\n{}\n0\n\n"},
	{"body: signed", post("/deals/payin", bearer+"api-signature: c2lnbmVk\n", `{}`)},
	{"body: signed twice", post("/deals/payin", bearer+"api-signature: a\napi-signature: b\n", `{}`)},
	{"body: none", "POST /deals/payin HTTP/1.1\nHost: api.example\n" + bearer + "\n"},
	{"body: empty and chunked", "POST /deals/payin HTTP/1.1\nHost: api.example\nTransfer-Encoding: chunked\n" + bearer + "\n0\n\n"},
	{"body: none, and a signature over it", "POST /deals/payin HTTP/1.1\nHost: api.example\napi-signature: a\n" + bearer + "\n"},
	{"body: a list", post("/deals/payin", bearer, `[1]`)},
	{"body: another type", strings.Replace(post("/deals/payin", bearer, `{}`), "application/json", "text/plain", 1)},
	{"body: no type", strings.Replace(post("/deals/payin", bearer, `{}`), "Content-Type: application/json\n", "", 1)},
	{"body: no JSON", post("/deals/payin", bearer, `{`)},
	{"body: a member twice", post("/deals/payin", bearer, `{"a":1,"a":2}`)},
	{"body: no token, and nothing right besides", post("/deals/payin?;", "Idempotency-Key: \n", ``)},

	{"key", post("/deals/payin", bearer+"Idempotency-Key: 6f9619ff-8b86\n", `{}`)},
	{"key: 255 characters", post("/deals/payin", bearer+"Idempotency-Key: "+strings.Repeat("~", 255)+"\n", `{}`)},
	{"key: 256 characters", post("/deals/payin", bearer+"Idempotency-Key: "+strings.Repeat("~", 256)+"\n", `{}`)},
	{"key: empty", post("/deals/payin", bearer+"Idempotency-Key: \n", `{}`)},
	{"key: two", post("/deals/payin", bearer+"Idempotency-Key: a\nIdempotency-Key: a\n", `{}`)},
	{"key: a space", post("/deals/payin", bearer+"Idempotency-Key: a b\n", `{}`)},
	{"key: not ASCII", post("/deals/payin", bearer+"Idempotency-Key: é\n", `{}`)},

	{"submit", postCard(sealing, sealedPAN+","+sealedCVC)},
	{"submit: one of two", postCard(sealing, sealedPAN)},
	{"submit: none", postCard(sealing, "")},
	{"submit: null is none", postCard("", `"pan":null`)},
	{"submit: none, and no session", postCard("", "")},
	{"submit: no session", postCard("", sealedPAN)},
	{"submit: in clear", postCard(sealing, `"pan":"4111111111111111"`)},
	{"submit: in clear, and no session", postCard("", `"pan":"4111111111111111"`)},
	{"submit: half a field", postCard(sealing, `"pan":{"data":"AA=="}`)},
	{"submit: more than a field", postCard(sealing, `"pan":{"data":"AA==","iv":"BB==","k":1}`)},
	{"submit: the second one is bad", postCard(sealing, sealedPAN+`,"cvc":"123"`)},
	{"submit: answers in clear do not mean requests in clear", post("/opencards", bearer, `{"card":{"pan":"4111111111111111"}}`)},
	{"submit: answers in clear, no session", post("/opencards", bearer, `{"card":{`+sealedPAN+`}}`)},
}

func TestForwardRequests(t *testing.T) {
	golden(t, "forward.requests.golden", describeForwards(t, newFace(t, "paymentsgate", everything()), forwardRequests))
}

// TestForwardEndpoints: each says all that a call of it can hold, and no call holds more.
func TestForwardEndpoints(t *testing.T) {
	f := newFace(t, "paymentsgate", everything())
	var got []string
	for _, e := range f.Endpoints() {
		if e.Operations[0] != policy.Forward {
			if len(got) > 0 {
				t.Errorf("%s %s stands behind forwarded calls", e.Method, e.Pattern)
			}
			continue
		}
		got = append(got, fmt.Sprintf("%s %s %v room %d", e.Method, e.Pattern, e.Operations, e.MaxBody))
	}
	want := []string{
		"GET /wallet [forward] room 0",
		"GET /deals/{id}/credentials [forward forward.reveal] room 0",
		"GET /strict/{id} [forward forward.reveal] room 0",
		"GET /open/{id} [forward forward.reveal] room 0",
		"POST /deals/payin [forward] room 65536",
		"POST /cards [forward forward.reveal forward.submit] room 65536",
		"POST /opencards [forward forward.submit] room 65536",
		"DELETE /a-b/{first}/c.d/{second} [forward] room 0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	s := newServer(f)
	for _, r := range forwardRequests {
		e, c, _ := s.parse(t, r.raw)
		if c == nil {
			continue
		}
		for _, op := range c.Operations {
			if !slices.Contains(e.Operations, op) {
				t.Errorf("%s: %s is none of %v", r.name, op, e.Operations)
			}
		}
	}
}

// TestForwardRefusesAtLoad: what could not be carried, or would be carried otherwise than it was declared.
func TestForwardRefusesAtLoad(t *testing.T) {
	kind, err := face.Lookup("paymentsgate")
	check(err)
	for name, test := range map[string]struct {
		call exchange.ForwardCall
		keys bool
		want string
	}{
		"fine":                       {carry("GET", "/x/{id}", exchange.WithoutMask, account, nil), true, ""},
		"masked for all":             {carry("GET", "/x", exchange.WithoutMask, account, nil), false, ""},
		"another method of our path": {carry("DELETE", "/auth/token", exchange.WithoutMask, nil, nil), true, ""},
		"our own call":               {carry("POST", "/auth/token", exchange.WithoutMask, nil, nil), true, "has this call itself"},
		"our own static one":         {carry("GET", "/.well-known/jwks.json", exchange.WithoutMask, nil, nil), true, "has this call itself"},
		"nothing said":               {carry("GET", "/x", "", account, nil), true, "not said"},
		"another word":               {carry("GET", "/x", "show", account, nil), true, "not said"},
		"refused for all":            {carry("GET", "/x", exchange.WithoutRefuse, account, nil), false, "session_key"},
		"submitted by nobody":        {carry("POST", "/x", exchange.WithoutMask, nil, cardData), false, "session_key"},
		"submitted without a body":   {carry("GET", "/x", exchange.WithoutMask, nil, cardData), true, "shape"},
		"a PIN":                      {carry("GET", "/x", exchange.WithoutMask, map[string]vault.Field{"/pin": vault.FieldPIN}, nil), true, "PIN"},
		"a PIN submitted":            {carry("POST", "/x", exchange.WithoutMask, nil, map[string]vault.Field{"/pin": vault.FieldPIN}), true, "PIN"},
		"no shape":                   {exchange.ForwardCall{Name: "GET /x", Method: "GET", Pattern: "/x", Without: exchange.WithoutMask}, true, "shape"},
		"no path":                    {carry("GET", "x", exchange.WithoutMask, nil, nil), true, "path"},
		"all paths":                  {carry("GET", "/", exchange.WithoutMask, nil, nil), true, "path"},
		"all paths below":            {carry("GET", "/x/", exchange.WithoutMask, nil, nil), true, "path"},
		"all paths below, by a name": {carry("GET", "/x/{rest...}", exchange.WithoutMask, nil, nil), true, "path"},
		"an end":                     {carry("GET", "/x/{$}", exchange.WithoutMask, nil, nil), true, "path"},
		"part of a segment":          {carry("GET", "/x{id}", exchange.WithoutMask, nil, nil), true, "path"},
		"a wildcard without a name":  {carry("GET", "/{}", exchange.WithoutMask, nil, nil), true, "path"},
		"a wildcard twice":           {carry("GET", "/{id}/{id}", exchange.WithoutMask, nil, nil), true, "path"},
		"a digit begins a wildcard":  {carry("GET", "/{1st}", exchange.WithoutMask, nil, nil), true, "path"},
		"a wildcard of other script": {carry("GET", "/{café}", exchange.WithoutMask, nil, nil), true, "path"},
		"a wildcard with a dash":     {carry("GET", "/{a-b}", exchange.WithoutMask, nil, nil), true, "path"},
		"a query":                    {carry("GET", "/x?y", exchange.WithoutMask, nil, nil), true, "path"},
		"a fragment":                 {carry("GET", "/x#y", exchange.WithoutMask, nil, nil), true, "path"},
		"a space":                    {carry("GET", "/x y", exchange.WithoutMask, nil, nil), true, "path"},
		"parameters":                 {carry("GET", "/x;y", exchange.WithoutMask, nil, nil), true, "path"},
		"a dot segment":              {carry("GET", "/x/../y", exchange.WithoutMask, nil, nil), true, "path"},
		"an escape":                  {carry("GET", "/x%2fy", exchange.WithoutMask, nil, nil), true, "path"},
		"a host":                     {carry("GET", "issuer.example/x", exchange.WithoutMask, nil, nil), true, "path"},
	} {
		c := face.Config{PublicKey: readPublicKey, JWKS: []byte(jwks), Forward: []exchange.ForwardCall{test.call}}
		if test.keys {
			c.SessionKeys = clientKeys()
		}
		f, err := kind.New(c)
		if (err == nil) != (test.want == "") || (f == nil) != (err != nil) || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestForwardPathNamesItsWildcards(t *testing.T) {
	path, err := face.ParseForwardPath("/deals/{deal_1}/x-y.z/{_B}")
	if got := path.Wildcards(); err != nil || !slices.Equal(got, []string{"deal_1", "_B"}) {
		t.Errorf("%q, %v", got, err)
	}
	if path, err := face.ParseForwardPath("/wallet"); err != nil || len(path.Wildcards()) != 0 {
		t.Errorf("%q, %v", path.Wildcards(), err)
	}
}

// TestForwardAnswer: status, type and message are the issuer's, and nothing else is left of the answer before.
func TestForwardAnswer(t *testing.T) {
	e := endpoint(t, newFace(t, "paymentsgate", everything()), http.MethodGet, "/wallet")
	var none *vault.Session
	body, err := vault.NewBody([]byte(`{"a":1}`), shape(vault.ShapeConfig{}))
	check(err)
	message, err := none.Rewrite(body, nil)
	check(err)
	for _, want := range []exchange.Forwarded{
		{Status: http.StatusNotFound, ContentType: "application/problem+json", Message: message}, {Status: http.StatusNoContent},
	} {
		out := exchange.Response{Status: 200, ContentType: "text/html", Body: []byte("left over")}
		e.Render(&exchange.Call{}, &exchange.Result{Forward: &want}, &out)
		if out.Status != want.Status || out.ContentType != want.ContentType || out.Clear != want.Message || len(out.Body) != 0 || len(out.Header) != 0 {
			t.Errorf("%+v", out)
		}
	}
}

// FuzzForwardPath: a path that is passed on is the one that was listed, with the caller's values in its wildcards, to every
// reader: decoded once it is what the caller said, decoded twice it is the same, and no segment of it leads elsewhere.
func FuzzForwardPath(f *testing.F) {
	for _, s := range []string{"1", "a b", "..", ".", "a/b", `a\b`, "%2e%2e", "..;", "é", "\xc0\xae", "a\nb", "", "~+&=:@$,!'()*"} {
		f.Add(s, "a=b")
	}
	f.Add("1", "%zz")
	f.Add("1", "a=1;b")
	f.Add("1", "a b\r\nHost: x")
	e := endpoint(f, newFace(f, "paymentsgate", everything()), http.MethodGet, "/deals/{id}/credentials")
	f.Fuzz(func(t *testing.T, id, query string) {
		c, err := e.Parse(&exchange.Request{
			Header: http.Header{"Authorization": {"Bearer " + token}}, RawQuery: query, Param: func(string) string { return id },
		})
		if err != nil {
			failed(t, err, id, query)
			return
		}
		read, err := url.ParseRequestURI("https://issuer.example/base" + c.Forward.Path + "?" + c.Forward.Query)
		if err != nil || read.Path != "/base/deals/"+id+"/credentials" || read.RawQuery != query || read.Host != "issuer.example" {
			t.Fatalf("%q and %q become %q ? %q: %v", id, query, c.Forward.Path, c.Forward.Query, err)
		}
		again, err := url.PathUnescape(read.Path)
		if err != nil || again != read.Path {
			t.Fatalf("%q is read as %q, and as %q by who decodes twice", id, read.Path, again)
		}
		if cleaned := read.JoinPath(); cleaned.Path != read.Path || strings.Count(read.Path, "/") != 4 || strings.ContainsAny(c.Forward.Path, `\;`) ||
			strings.ContainsAny(c.Forward.Path+c.Forward.Query, " \r\n#") {
			t.Fatalf("%q leads to %q", id, cleaned.Path)
		}
	})
}
