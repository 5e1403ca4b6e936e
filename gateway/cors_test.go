package gateway_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/gateway"
)

// corsOf are the headers of CORS in an answer, and Vary.
func corsOf(r reply) string {
	var all []string
	for name, values := range r.header {
		if strings.HasPrefix(name, "Access-Control-") || name == "Vary" {
			all = append(all, fmt.Sprintf("%s: %s", name, strings.Join(values, " | ")))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// readable is what an answer of exa has for a page that may read it.
func readable(from string) string {
	return "Access-Control-Allow-Credentials: true\nAccess-Control-Allow-Origin: " + from + "\nAccess-Control-Expose-Headers: X-Session-Id\nVary: Origin"
}

// strangeOrigins are on no list, however close they come to it.
var strangeOrigins = []string{
	evil, "null", "", "*", "https://web.example:443", "https://web.example/", "https://web.example.", "HTTPS://WEB.EXAMPLE", "http://web.example",
	"https://sub.web.example", "https://web.example.evil.example", "https://web.exampl", "https://app.example", "https://app.example:8444",
	"https://web.example https://evil.example", "https://web.example, https://evil.example", "chrome-extension://web.example",
}

// TestOriginsAreExact: a page of a listed origin may read answers, refusals among them; one of any other origin may not, and
// every answer says that it depends on the origin.
func TestOriginsAreExact(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	h.login(ada)
	c := h.anybody()
	done := want{status: 200, results: []string{"done"}, rule: "own-card", outcome: "done", upstream: 2}
	for _, from := range []string{origin, "https://app.example:8443"} {
		if got := corsOf(h.expect(from, c, h.exaCall(ada, "").with("Origin", from), done)); got != readable(from) {
			t.Errorf("%s:\n%s", from, got)
		}
		r := h.expect("refused", c, h.exaCall(ada, "").without("Cookie").with("Origin", from),
			want{status: 401, body: exa("unauthorized"), results: []string{"refused no_credential"}, outcome: "unauthorized"})
		if got := corsOf(r); got != readable(from) {
			t.Errorf("%s, refused:\n%s", from, got)
		}
	}
	if got := corsOf(h.expect("no origin", c, h.exaCall(ada, ""), done)); got != "Vary: Origin" {
		t.Errorf("no origin:\n%s", got)
	}
	for _, from := range strangeOrigins {
		if got := corsOf(h.expect(from, c, h.exaCall(ada, "").with("Origin", from), done)); got != "Vary: Origin" {
			t.Errorf("%q:\n%s", from, got)
		}
	}
	if got := corsOf(h.expect("two origins", c, h.exaCall(ada, "").with("Origin", origin, "Origin", evil), done)); got != "Vary: Origin" {
		t.Errorf("two origins:\n%s", got)
	}
}

// TestAnyOriginWithoutCredentials: whoever has key and proof may be a page of any origin, which no browser adds anything for.
func TestAnyOriginWithoutCredentials(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c, p := h.anybody(), h.proof()
	r := h.expect("reveal", c, p.reveal(h.bridgeMint(backs["rain"], p)).with("Origin", evil), shown())
	if got := corsOf(r); got != "Access-Control-Allow-Origin: *" {
		t.Error(got)
	}
	if got := corsOf(h.expect("refused", c, p.reveal("garbage").with("Origin", evil), notShown("malformed"))); got != "Access-Control-Allow-Origin: *" {
		t.Errorf("refused: %s", got)
	}
	for name, x := range map[string]call{
		"a partner's backend":  h.bridgeMintCall(p).with("Origin", origin),
		"a forward":            h.accountLogin(account).call("GET", "/wallet", "", "Origin", origin),
		"the keys":             {listener: "public", method: "GET", path: "/.well-known/jwks.json", header: []string{"Origin", origin}},
		"a login":              h.signed(loginCall(account)).with("Origin", origin),
		"a path that is none":  {listener: "public", method: "GET", path: "/nothing", header: []string{"Origin", origin}},
		"another face's token": detailsCall(card, h.mint(), h.session().ID()).with("Origin", origin),
	} {
		if got := corsOf(c.do(x)); got != "" {
			t.Errorf("%s is for browsers:\n%s", name, got)
		}
	}
}

func preflightCall(path, from, method string, header ...string) call {
	return call{listener: "public", method: "OPTIONS", path: path, header: append([]string{"Origin", from, "Access-Control-Request-Method", method}, header...)}
}

// TestPreflight: what a browser asks before it calls is no exchange, and never a redirect, which it would not follow.
func TestPreflight(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c := h.anybody()
	const exaHeaders = "Access-Control-Allow-Headers: Content-Type, sessionid, Client-Fid\n"
	for _, slash := range []string{"", "/"} {
		for path, test := range map[string]struct{ method, from, want string }{
			"/api/card":                   {"PATCH", origin, exaHeaders + "Access-Control-Allow-Methods: GET, PATCH\n"},
			"/card":                       {"GET", origin, exaHeaders + "Access-Control-Allow-Methods: GET, PATCH\n"},
			"/api/auth/authentication":    {"POST", origin, exaHeaders[:len(exaHeaders)-1] + ", X-Session-Id\nAccess-Control-Allow-Methods: GET, POST\n"},
			"/v0/card_details":            {"GET", evil, "Access-Control-Allow-Headers: Authorization, Content-Type, Cardstile-Client-Secret, Cardstile-Client-Timestamp\nAccess-Control-Allow-Methods: GET\nAccess-Control-Allow-Origin: *\nAccess-Control-Max-Age: 600"},
			"/api/card/does/not/exist":    {"GET", origin, ""},
			"/v0/customers/a/card_acc/b/": {"GET", origin, ""},
		} {
			before := h.snapshot(want{})
			r := c.do(preflightCall(path+slash, test.from, test.method, "Access-Control-Request-Headers", "content-type"))
			if test.want == "" {
				if r.status != 404 || corsOf(r) != "" {
					t.Errorf("%s: %d\n%s", path+slash, r.status, corsOf(r))
				}
				continue
			}
			wanted := test.want
			if test.from == origin {
				wanted = "Access-Control-Allow-Credentials: true\n" + wanted + "Access-Control-Allow-Origin: " + origin +
					"\nAccess-Control-Expose-Headers: X-Session-Id\nAccess-Control-Max-Age: 600\nVary: Origin"
			}
			if r.status != http.StatusNoContent || r.body != "" || r.header.Get("Location") != "" || corsOf(r) != wanted {
				t.Errorf("%s: %d %q\n%s\nwant\n%s", path+slash, r.status, r.body, corsOf(r), wanted)
			}
			h.compare(path+slash, before, r, want{status: http.StatusNoContent})
		}
	}
	if allowed, refused := h.metric("cardstile_preflights_total", "result", "allowed"), h.metric("cardstile_preflights_total", "result", "refused"); allowed != 8 || refused != 0 {
		t.Errorf("%v allowed, %v refused", allowed, refused)
	}
	// What is refused is the face's 403, without a word of CORS.
	forbidden := want{status: 403, body: exa("forbidden")}
	for _, from := range strangeOrigins {
		if from == "" {
			continue // then it is none
		}
		if r := h.expect(from, c, preflightCall("/api/card", from, "PATCH"), forbidden); corsOf(r) != "Vary: Origin" {
			t.Errorf("%q:\n%s", from, corsOf(r))
		}
	}
	h.expect("a method that the path does not have", c, preflightCall("/api/card", origin, "DELETE"), forbidden)
	h.expect("two origins", c, preflightCall("/api/card", origin, "PATCH", "Origin", evil), want{status: 405, body: exa("method not allowed"), outcome: "method_not_allowed"})
	for name, x := range map[string]call{
		"without an origin":     preflightCall("/api/card", origin, "PATCH").without("Origin"),
		"without a method":      preflightCall("/api/card", origin, "PATCH").without("Access-Control-Request-Method"),
		"where nobody is asked": preflightCall("/wallet", origin, "GET"),
	} {
		w := want{status: 405, outcome: "method_not_allowed"}
		if r := h.expect(name, c, x, w); strings.Contains(corsOf(r), "Allow-Origin") || r.header.Get("Allow") == "" {
			t.Errorf("%s:\n%s", name, corsOf(r))
		}
	}
	if refused := h.metric("cardstile_preflights_total", "result", "refused"); refused != float64(len(strangeOrigins)) {
		t.Errorf("%v refused", refused)
	}
}

// TestPagesOfOtherOrigins: a page whose origin is not on the list changes nothing with the user's cookie and mints nothing with
// it: nothing is spent, sent or noted, and the answer is the face's own [21].
func TestPagesOfOtherOrigins(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	h.login(ada)
	w := shared().wallet
	h.login(w.address)
	c, s := h.anybody(), h.session()
	begun := h.exaChallenge(w.address)
	pin := h.rain.PIN("ic-1")
	set := h.exaPINCall(ada, s, nextPIN)
	link := h.exaConsent(w.address, "siwe")
	signedLink := h.exaPatch(w.address, fmt.Sprintf(`{"method":"siwe","message":%q,"signature":%q}`, link, h.secret(w.sign(link))))
	login := begun.login(w.address, h.secret(w.sign(begun.Message)))
	scoped := h.exaCall(w.address, "")
	scoped.path += "?scope=webauthn"
	for _, from := range append(slices.Clone(strangeOrigins), origin+"\x00two") {
		header := []string{"Origin", from}
		if first, two := strings.CutSuffix(from, "\x00two"); two {
			header = []string{"Origin", first, "Origin", evil}
		}
		for name, x := range map[string]call{
			"mode": h.exaPatch(ada, `{"mode":3}`), "PIN": set, "link": signedLink, "login": login, "begin": begun.call, "consent": scoped,
		} {
			r := h.expect(name+" from "+from, c, x.with(header...), want{status: 403, body: exa("forbidden"), results: []string{"refused origin"}, outcome: "forbidden"})
			if corsOf(r) != "Vary: Origin" || len(r.header.Values("Set-Cookie")) != 0 {
				t.Errorf("%s from %q:\n%s", name, from, corsOf(r))
			}
		}
	}
	if h.rain.PIN("ic-1") != pin || h.rain.Count("set pin") != 0 {
		t.Error("the PIN was set")
	}
	// All of it was left as it was: it works from where it may come.
	for name, test := range map[string]struct {
		x     call
		rule  string
		sent  int
		after []string
	}{
		"mode": {h.exaPatch(ada, `{"mode":3}`), "own-change", 0, []string{"intent", "done"}}, "PIN": {set, "own-change", 1, []string{"intent", "done"}},
		"link": {signedLink, "link", 0, []string{"intent", "done"}}, "login": {login, "login", 0, []string{"done"}},
	} {
		h.expect(name+" from the app", c, test.x.with("Origin", origin), want{status: 200, results: test.after, rule: test.rule, outcome: "done", upstream: test.sent})
	}
	h.expect("without an origin, from no page", c, h.exaPatch(ada, `{"mode":4}`), want{status: 200, results: []string{"intent", "done"}, rule: "own-change", outcome: "done"})
}

// TestRouteWithoutOrigins: where no origin is listed, none may call.
func TestRouteWithoutOrigins(t *testing.T) {
	h := newHouse(t, options{routes: func(h *house) []gateway.Route {
		r := h.exaRoute(h.issuerOf("rain", nil))
		r.Origins = nil
		return []gateway.Route{r}
	}})
	h.login(ada)
	h.expect("mode", h.anybody(), h.exaPatch(ada, `{"mode":3}`).with("Origin", origin),
		want{status: 403, body: exa("forbidden"), results: []string{"refused origin"}, outcome: "forbidden"})
}
