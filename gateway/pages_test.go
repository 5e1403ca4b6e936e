package gateway_test

import (
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/elements"
	"github.com/cardstile/cardstile/gateway/exchange"
)

// assets are the files of our pages, as main has them served.
func assets() []gateway.File {
	var files []gateway.File
	for _, a := range elements.Assets() {
		files = append(files, gateway.File{Path: a.Path, Headers: headers(a.Headers), Body: a.Body, Immutable: true})
	}
	return files
}

func headers(of []elements.Header) []exchange.HeaderField {
	all := make([]exchange.HeaderField, len(of))
	for i, h := range of {
		all[i] = exchange.HeaderField{Name: h.Name, Value: h.Value}
	}
	return all
}

func writePage(page *elements.Page, out *exchange.Response) {
	out.Header, out.Body = headers(page.Headers), append(out.Body[:0], page.HTML...)
}

func get(path string, header ...string) call {
	return call{listener: "public", method: "GET", path: path, header: header}
}

// nothing is what an answer that is no exchange leaves behind.
func nothing(status int) want { return want{status: status} }

// once fails where a header field stands in an answer in another way than once, with this value.
func (h *house) once(r reply, values map[string]string) {
	h.t.Helper()
	for name, value := range values {
		if got := r.header.Values(name); len(got) != 1 || got[0] != value {
			h.t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
}

// pagesToo are the routes of both faces that have pages, on one listener.
func pagesToo(h *house) []gateway.Route {
	return append(userRoutes(h), h.payrocRoute(h.issuerKind("payroc", nil)))
}

// TestElements: the files that pages load are public, whole, and kept for ever where their name has their digest; what is not among
// them is not there, and neither is any of them where no page is.
func TestElements(t *testing.T) {
	h := newHouse(t, options{routes: pagesToo})
	c := h.anybody()
	if len(elements.Assets()) < 6 {
		t.Fatalf("%d assets", len(elements.Assets()))
	}
	before := h.snapshot(want{})
	for _, a := range elements.Assets() {
		r := c.do(get(a.Path, "Authorization", "Bearer x", "Cookie", "a=b"))
		sum := sha512.Sum384([]byte(r.body))
		if r.status != 200 || a.Integrity != "sha384-"+base64.StdEncoding.EncodeToString(sum[:]) || len(r.header.Values("Set-Cookie")) != 0 {
			t.Errorf("%s: %d, %d bytes", a.Path, r.status, len(r.body))
		}
		h.once(r, map[string]string{
			"Content-Type": a.ContentType, "Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff",
			"Content-Length": fmt.Sprint(len(a.Body)),
		})
		library := a.Path == elements.Lookup(elements.HostedFieldsLibrary).Path
		if got := r.header.Get("Access-Control-Allow-Origin"); (got == "*") != library || !library && got != "" {
			t.Errorf("%s: allows %q", a.Path, got)
		}
		for _, other := range []call{{listener: "public", method: "POST", path: a.Path}, {listener: "public", method: "GET", path: a.Path + "/"}, {listener: "public", method: "GET", path: a.Path[:len(a.Path)-1]}} {
			if r := c.do(other); r.status != 404 || r.body != problem(404) {
				t.Errorf("%s %s: %d", other.method, other.path, r.status)
			}
		}
		if r := h.partner().do(call{listener: "partners", method: "GET", path: a.Path}); r.status != 404 {
			t.Errorf("%s where no page is: %d", a.Path, r.status)
		}
	}
	if after := h.snapshot(want{}); after != before {
		t.Errorf("of files, something is counted or recorded: %+v, before %+v", after, before)
	}
	h.expect("a theme, which may change", c, get("/elements/themes/"+app+".css"), want{status: 200, body: "main{}"})
	for _, path := range []string{
		"/elements", "/elements/", "/elements/manifest.json", "/elements/themes/", "/elements/themes/" + otherApp + ".css", "/elements/../etc/passwd", "/elements/%2e%2e/x",
		"/elements/card.js", "/elements/csp-report",
	} {
		h.expect(path, c, get(path), want{status: 404, body: problem(404)})
	}
}

// TestCardPages: the page of an app may be embedded by the origins of that app and nobody else, and that of an app that is nobody's
// by nobody [22]. It is the same for everybody: nothing is proven, and nothing is recorded.
func TestCardPages(t *testing.T) {
	h := newHouse(t, options{routes: userRoutes})
	c := h.anybody()
	ancestors := func(r reply) string {
		_, after, _ := strings.Cut(r.header.Get("Content-Security-Policy"), "frame-ancestors ")
		list, _, _ := strings.Cut(after, ";")
		return list
	}
	for id, want := range map[string]string{app: origin + " https://app.example:8443", otherApp: otherShop} {
		r := h.expect(id, c, get("/?appId="+id), nothing(200))
		if ancestors(r) != want || !strings.Contains(r.body, `content="`+id+`"`) || r.header.Get("X-Frame-Options") != "" {
			t.Errorf("%s: ancestors %s, %v", id, ancestors(r), r.header)
		}
		h.once(r, map[string]string{"Content-Type": "text/html; charset=utf-8", "Referrer-Policy": "no-referrer", "Reporting-Endpoints": `csp="/elements/csp-report"`})
		for _, a := range []string{"card.css", "card.js"} {
			if !strings.Contains(r.body, elements.Lookup(a).Path) {
				t.Errorf("%s: the page does not load %s", id, a)
			}
		}
	}
	for _, query := range []string{"", "?appId=", "?appId=app-none", "?appid=" + app, "?appId=%3Cscript%3E", "?appId=app-none&appId=" + app, "?%zz&appId=x"} {
		r := h.expect("unknown: "+query, c, get("/"+query), nothing(404))
		if ancestors(r) != "'none'" || r.header.Get("X-Frame-Options") != "DENY" || strings.Contains(r.body, "cardstile-origins") || strings.Contains(r.body, "<script>") {
			t.Errorf("%q: ancestors %s\n%s", query, ancestors(r), r.body)
		}
	}
	r := c.do(call{listener: "public", method: "POST", path: "/?appId=" + app})
	if r.status != 405 || r.body != gnosis("Method not allowed") || r.header.Get("Allow") != "GET" {
		t.Errorf("POST: %d %s", r.status, r.body)
	}
	if r := c.do(get("/anything?appId=" + app)); r.status != 404 {
		t.Errorf("another path: %d", r.status)
	}
	if len(h.records()) != 0 {
		t.Errorf("recorded %+v", h.records())
	}
}

// TestFieldPages: the page of a field is for one origin of the route's, which the query names; what the query has wrong is told by
// its name and quoted nowhere.
func TestFieldPages(t *testing.T) {
	h := newHouse(t, options{routes: only(nil)})
	c := h.anybody()
	query := func(change ...string) string {
		q := url.Values{"field": {"cardNumber"}, "hostedFieldsSessionId": {"session"}, "targetOrigin": {origin}, "isCvvMandatory": {"true"}}
		for i := 0; i+1 < len(change); i += 2 {
			q.Set(change[i], change[i+1])
		}
		return "/merchant/hosted-fields?" + q.Encode()
	}
	for _, field := range []string{"cardholderName", "cardNumber", "expiryDate", "cvv", "submit"} {
		r := h.expect(field, c, get(query("field", field)), nothing(200))
		if policy := r.header.Get("Content-Security-Policy"); !strings.Contains(policy, "frame-ancestors "+origin+";") {
			t.Errorf("%s: %s", field, policy)
		}
	}
	const number = "4111111111111111"
	for at, path := range map[string]string{
		"field": query("field", number), "hostedFieldsSessionId": query("hostedFieldsSessionId", "<"+number+">"), "targetOrigin": query("targetOrigin", evil),
		"isCvvMandatory": query("isCvvMandatory", number), "locale": query("locale", number), "query": "/merchant/hosted-fields?%zz" + number,
	} {
		r := h.expect(at, c, get(path), nothing(400))
		if strings.Contains(r.body, number) || strings.Contains(r.body, evil) || len(r.header.Values("Content-Security-Policy")) != 0 || r.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %v %s", at, r.header, r.body)
		}
	}
	if len(h.records()) != 0 {
		t.Errorf("recorded %+v", h.records())
	}
}

func reportCall(kind, body string) call {
	return call{listener: "public", method: "POST", path: "/elements/csp-report", body: body, header: []string{"Content-Type", kind}}
}

// TestViolationReports: browsers tell in either form what their policy stopped. It is counted by the directive, of which there are so
// many and no more; what else a report says is in no log and no metric, and nothing is recorded.
func TestViolationReports(t *testing.T) {
	h := newHouse(t, options{routes: userRoutes})
	c := h.anybody()
	const secret = "quoted-by-a-report-4111111111111111"
	h.secret(secret)
	counted := func(directive string) float64 {
		return h.metric("cardstile_page_violations_total", "directive", directive)
	}
	list := func(n int, directive string) string {
		one := fmt.Sprintf(`{"type":"csp-violation","age":1,"url":%q,"body":{"effectiveDirective":%q,"sample":%q}}`, secret, directive, secret)
		return "[" + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]"
	}
	for name, test := range map[string]struct {
		body      string
		directive string
		count     float64
	}{
		"old":                       {fmt.Sprintf(`{"csp-report":{"document-uri":%q,"violated-directive":"connect-src 'self'"}}`, secret), "connect-src", 1},
		"old, with the effective":   {`{"csp-report":{"effective-directive":"script-src-elem","violated-directive":"script-src"}}`, "script-src-elem", 1},
		"old, of nothing we have":   {fmt.Sprintf(`{"csp-report":{"violated-directive":%q}}`, secret), "other", 1},
		"old, empty":                {`{"csp-report":{}}`, "other", 1},
		"new":                       {list(1, "frame-ancestors"), "frame-ancestors", 1},
		"new, several":              {list(32, "style-src"), "style-src", 1},
		"new, of nothing we have":   {list(2, secret), "other", 1},
		"new, with another type":    {`[{"type":"deprecation","body":{"effectiveDirective":"img-src"}}]`, "img-src", 0},
		"new, none":                 {`[]`, "other", 0},
		"upper case is another one": {list(1, "IMG-SRC"), "other", 1},
	} {
		before, all := counted(test.directive), h.metric("cardstile_page_violations_total")
		h.expect(name, c, reportCall("application/csp-report", test.body), nothing(204))
		if got := counted(test.directive) - before; got != test.count || h.metric("cardstile_page_violations_total")-all != test.count {
			t.Errorf("%s: %v counted under %s, want %v", name, got, test.directive, test.count)
		}
	}
	all := h.metric("cardstile_page_violations_total")
	for name, test := range map[string]struct {
		body   string
		status int
	}{
		"too many": {list(33, "style-src"), 400}, "empty": {"", 400}, "no JSON": {"x", 400}, "a number": {"1", 400}, "cut off": {`[{"type":"csp-violation"`, 400},
		"another object": {`{"report":{}}`, 400}, "null": {`{"csp-report":null}`, 400}, "two": {`[] []`, 400}, "a number for a directive": {`{"csp-report":{"effective-directive":1}}`, 400},
		"too large": {`{"csp-report":{"document-uri":"` + strings.Repeat("x", 16<<10) + `","violated-directive":"img-src"}}`, 413},
	} {
		h.expect(name, c, reportCall("application/reports+json", test.body), want{status: test.status, body: problem(test.status)})
	}
	if got := h.metric("cardstile_page_violations_total"); got != all {
		t.Errorf("%v counted of what is no report", got-all)
	}
	for _, kind := range []string{"", "text/plain", "application/json", "application/x-www-form-urlencoded"} {
		h.expect("as "+kind, c, reportCall(kind, list(1, "img-src")), want{status: 415, body: problem(415)})
	}
	h.expect("as browsers may write it", c, reportCall("Application/CSP-Report; charset=utf-8", `[]`), nothing(204))
	allowed := []string{"other", "connect-src", "script-src-elem", "frame-ancestors", "style-src"} // as reported above
	families, err := h.registry.Gather()
	must(err)
	for _, f := range families {
		if f.GetName() != "cardstile_page_violations_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if value := m.GetLabel()[0].GetValue(); !slices.Contains(allowed, value) {
				t.Errorf("a label is %q", value)
			}
		}
	}
	x := reportCall("application/csp-report", "[]")
	x.listener = "partners"
	h.expect("where no page is", h.partner(), x, want{status: 404, body: problem(404)})
	if len(h.records()) != 0 {
		t.Errorf("recorded %+v", h.records())
	}
}

// TestViolationReportsAreFew: who sends many is turned away, and what they send is not counted.
func TestViolationReportsAreFew(t *testing.T) {
	h := newHouse(t, options{routes: userRoutes, config: func(_ *house, c *gateway.Config) { c.Limits.Unproven = perHour(3) }})
	c := h.anybody()
	x := reportCall("application/csp-report", `{"csp-report":{"effective-directive":"img-src"}}`)
	if got := h.race(10, func(int) call { return x }); got[204] == 0 || got[429] == 0 || float64(got[204]) != h.metric("cardstile_page_violations_total", "directive", "img-src") {
		t.Errorf("answers %v, %v counted", got, h.metric("cardstile_page_violations_total", "directive", "img-src"))
	}
	h.expect("beyond", c, x, want{status: 429, body: problem(429), retryAfter: true})
}

// TestBeside: what a service puts beside routes stands below /demo/ of its listener, and nowhere else.
func TestBeside(t *testing.T) {
	beside := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Method, r.URL.Path) })
	h := newHouse(t, options{routes: pagesToo, services: func(s *gateway.Services) { s.Beside = map[string]http.Handler{"public": beside} }})
	bare := newHouse(t, options{routes: pagesToo})
	for _, path := range []string{"/demo/", "/demo/page.js", "/demo/a/b/"} {
		for _, method := range []string{"GET", "POST"} {
			x := call{listener: "public", method: method, path: path}
			if r := h.anybody().do(x); r.status != 200 || r.body != method+" "+path {
				t.Errorf("%s: %d %s", path, r.status, r.body)
			}
			bare.expect("none is given: "+path, bare.anybody(), x, want{status: 404, body: problem(404)})
		}
		h.expect("on another listener: "+path, h.partner(), call{listener: "partners", method: "GET", path: path}, want{status: 404, body: problem(404)})
	}
	for _, path := range []string{"/demo2/", "/x/demo/", "//demo/", "/demo/../demo/", "/demo/./x"} {
		h.expect("beside it: "+path, h.anybody(), get(path), want{status: 404, body: problem(404)})
	}
	h.reload()
	if r := h.anybody().do(get("/demo/")); r.status != 200 {
		t.Errorf("after a reload: %d", r.status)
	}
	h.expect("the routes are as they were", h.anybody(), get("/?appId="+app), nothing(200))
	if len(h.records()) != 0 {
		t.Errorf("recorded %+v", h.records())
	}
}
