package demo_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cardstile/cardstile/deploy/demo"
)

// What must never reach a page, and what must never stand in an error.
const (
	apiKey    = "key-5e1f0c"
	bearer    = "bearer-90ab3d"
	minted    = "ephemeral-77c1"
	userToken = "user-21d4"
	session   = "session-44aa"
	single    = "single-use-6b02"
	library   = "/elements/hosted-fields.0123456789.js"
	integrity = "sha384-abc"
	number    = "4111111111111111"
)

// backend is a gateway that answers as a test says.
type backend struct {
	*httptest.Server
	t testing.TB

	mu       sync.Mutex
	answers  map[string]answer // by path
	received []*received
}

type answer struct {
	status int
	body   string
	delay  time.Duration
}

type received struct {
	path, body string
	header     http.Header
	client     string // which of the page's clients called
}

const (
	atMint      = "/api/v1/ephemeral-token"
	atAuthorize = "/authorize"
	atSessions  = "/v1/processing-terminals/1234001/hosted-fields-sessions"
	atPayments  = "/v1/payments"
)

func newBackend(t testing.TB) *backend {
	t.Helper()
	b := &backend{t: t, answers: map[string]answer{
		atMint:      {status: 200, body: `{"data":{"ephemeralToken":"` + minted + `","expiresAt":"2030-01-01T00:00:00Z"}}`},
		atAuthorize: {status: 200, body: `{"access_token":"` + bearer + `","expires_in":3600,"scope":"a","token_type":"Bearer"}`},
		atSessions:  {status: 201, body: `{"processingTerminalId":"1234001","token":"` + session + `","expiresAt":"2030-01-01T00:00:00Z"}`},
		atPayments: {status: 201, body: `{"paymentId":"P1","processingTerminalId":"1234001","transactionResult":{"status":"ready","responseCode":"A"},` +
			`"card":{"type":"Visa","cardNumber":"411111******1111","token":"` + single + `"}}`},
	}}
	b.Server = httptest.NewTLSServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Error(err)
	}
	b.mu.Lock()
	a, ok := b.answers[r.URL.Path]
	b.received = append(b.received, &received{r.URL.Path, string(body), r.Header.Clone(), r.Header.Get("X-Test-Client")})
	b.mu.Unlock()
	if !ok || r.Method != http.MethodPost {
		b.t.Errorf("%s %s", r.Method, r.URL.Path)
		w.WriteHeader(http.StatusNotFound)
		return
	}
	select {
	case <-time.After(a.delay):
	case <-r.Context().Done():
	}
	w.WriteHeader(a.status)
	io.WriteString(w, a.body) //nolint:errcheck // the test sees what is missing
}

func (b *backend) set(path string, a answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[path] = a
}

// calls takes what came in.
func (b *backend) calls() []*received {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.received
	b.received = nil
	return all
}

// named says in each request which client it is of.
type named struct {
	name string
	next http.RoundTripper
}

func (n named) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Test-Client", n.name)
	return n.next.RoundTrip(r)
}

func (b *backend) config() demo.Config {
	client := func(name string) *http.Client {
		return &http.Client{Transport: named{name, b.Client().Transport}}
	}
	return demo.Config{
		PublicURL: b.URL, Public: client("public"), PartnersURL: b.URL, Partner: client("partner"),
		App: "demo", Card: "card-1", UserToken: userToken, APIKey: apiKey, Terminal: "1234001", LibVersion: "1.7.0.261457",
		Library: library, Integrity: integrity,
	}
}

func newPage(t testing.TB) (*backend, *demo.Page) {
	t.Helper()
	b := newBackend(t)
	p, err := demo.New(b.config())
	if err != nil {
		t.Fatal(err)
	}
	return b, p
}

// asks calls the backend as the page does. Headers without a value are left out.
func (b *backend) asks(p *demo.Page, path, body string, headers map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, b.URL+path, strings.NewReader(body))
	all := map[string]string{"Origin": b.URL, "Content-Type": "application/json"}
	maps.Copy(all, headers)
	for name, value := range all {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

// wants checks an answer, and that its error is one text that holds nothing it must not.
func wants(t testing.TB, w *httptest.ResponseRecorder, status int) map[string]any {
	t.Helper()
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("status %d: no JSON: %v", w.Code, err)
	}
	if w.Code != status || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("status %d, %q: %v; want %d", w.Code, w.Header().Get("Content-Type"), body, status)
	}
	text, isText := body["error"].(string)
	if failed := status >= 400; failed != (isText && text != "" && len(body) == 1) {
		t.Errorf("status %d: %v", status, body)
	}
	holdsNothing(t, w)
	if status >= 400 && (strings.Contains(w.Body.String(), minted) || strings.Contains(w.Body.String(), session)) {
		t.Errorf("an error with a token: %s", w.Body)
	}
	return body
}

// holdsNothing looks for what no answer may hold.
func holdsNothing(t testing.TB, w *httptest.ResponseRecorder) {
	t.Helper()
	for _, secret := range []string{apiKey, bearer, single, number} {
		if strings.Contains(w.Body.String(), secret) {
			t.Errorf("the answer holds %s: %s", secret, w.Body)
		}
	}
}

func TestFiles(t *testing.T) {
	b, p := newPage(t)
	for path, contentType := range map[string]string{
		"/demo/": "text/html; charset=utf-8", "/demo/page.js": "text/javascript; charset=utf-8", "/demo/page.css": "text/css; charset=utf-8",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			w := httptest.NewRecorder()
			p.ServeHTTP(w, httptest.NewRequest(method, b.URL+path, nil))
			if w.Code != 200 || w.Header().Get("Content-Type") != contentType || w.Body.Len() == 0 {
				t.Errorf("%s %s: status %d, %q", method, path, w.Code, w.Header().Get("Content-Type"))
			}
			holdsNothing(t, w)
		}
	}
	if len(b.calls()) > 0 {
		t.Error("files made calls")
	}
}

// TestHeaders: whatever is answered, it is not stored, not guessed at, not framed, and runs nothing of elsewhere.
func TestHeaders(t *testing.T) {
	b, p := newPage(t)
	want := map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; " +
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
	}
	for _, c := range []struct{ method, path string }{
		{"GET", "/demo/"}, {"GET", "/demo/page.js"}, {"POST", "/demo/"}, {"GET", "/demo/token"}, {"POST", "/demo/token"}, {"GET", "/demo/other"},
	} {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(c.method, b.URL+c.path, nil))
		for name, value := range want {
			if w.Header().Get(name) != value {
				t.Errorf("%s %s: %s: %q", c.method, c.path, name, w.Header().Get(name))
			}
		}
	}
}

// TestPagesArePlain: the policy lets nothing run that stands in the page itself, and nothing load that stands elsewhere.
func TestPagesArePlain(t *testing.T) {
	b, p := newPage(t)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, b.URL+"/demo/", nil))
	if found := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script(?: [^>]*)?>[^<]|(?:src|href)="(?:https?:)?//`).FindString(w.Body.String()); found != "" {
		t.Errorf("the page has %q", found)
	}
	for _, used := range []string{`/demo/page.js"`, `/demo/page.css"`} {
		if !strings.Contains(w.Body.String(), used) {
			t.Errorf("the page does not load %s", used)
		}
	}
}

// TestOtherNames: under another name of the same machine the page would be of an origin that no element knows.
func TestOtherNames(t *testing.T) {
	b, p := newPage(t)
	for _, host := range []string{"localhost:1", "[::1]:8444", "demo.example", ""} {
		r := httptest.NewRequest(http.MethodGet, "/demo/?x=y", nil)
		r.Host = host
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != http.StatusTemporaryRedirect || w.Header().Get("Location") != b.URL+"/demo/" {
			t.Errorf("%q: status %d, to %q", host, w.Code, w.Header().Get("Location"))
		}
	}
}

func TestNoSuchThing(t *testing.T) {
	b, p := newPage(t)
	for _, c := range []struct {
		method, path, allow string
		status              int
	}{
		{"POST", "/demo/", "GET, HEAD", 405},
		{"PUT", "/demo/page.js", "GET, HEAD", 405},
		{"GET", "/demo/token", "POST", 405},
		{"HEAD", "/demo/pay", "POST", 405},
		{"OPTIONS", "/demo/fields-session", "POST", 405},
		{"GET", "/demo/page.html", "", 404},
		{"POST", "/demo/token/", "", 404},
		{"GET", "/", "", 404},
		{"GET", "/demo/../demo.json", "", 404},
	} {
		r := httptest.NewRequest(c.method, b.URL+"/demo/", nil)
		r.URL.Path = c.path
		r.Header.Set("Origin", b.URL)
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		wants(t, w, c.status)
		if w.Header().Get("Allow") != c.allow {
			t.Errorf("%s %s: Allow %q", c.method, c.path, w.Header().Get("Allow"))
		}
	}
	if len(b.calls()) > 0 {
		t.Error("a call was made")
	}
}

func TestToken(t *testing.T) {
	b, p := newPage(t)
	got := wants(t, b.asks(p, "/demo/token", "{}", nil), 200)
	want := map[string]any{"ephemeralToken": minted, "cardToken": "card-1", "appId": "demo", "userToken": userToken}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	calls := b.calls()
	if len(calls) != 1 || calls[0].path != atMint || calls[0].client != "partner" || calls[0].body != "" ||
		calls[0].header.Get("Content-Type") != "application/json" || calls[0].header.Get("Content-Length") != "0" {
		t.Errorf("calls %+v", calls)
	}
}

// TestTokenWithoutUser: who has no user token says that there is none.
func TestTokenWithoutUser(t *testing.T) {
	b := newBackend(t)
	c := b.config()
	c.UserToken = ""
	p, err := demo.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := wants(t, b.asks(p, "/demo/token", "{}", nil), 200)["userToken"]; !ok || got != "" {
		t.Errorf("userToken %v", got)
	}
}

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// authorized checks the two calls of a page's call: an API key becomes a Bearer, which is shown with a new idempotency key.
func (b *backend) authorized(path string) *received {
	b.t.Helper()
	calls := b.calls()
	if len(calls) != 2 {
		b.t.Fatalf("%d calls", len(calls))
	}
	first, second := calls[0], calls[1]
	if first.path != atAuthorize || first.header.Get("x-api-key") != apiKey || first.client != "public" {
		b.t.Errorf("first %+v", first)
	}
	if second.path != path || second.client != "public" || second.header.Get("Authorization") != "Bearer "+bearer || second.header.Get("x-api-key") != "" ||
		second.header.Get("Content-Type") != "application/json" || !uuid4.MatchString(second.header.Get("Idempotency-Key")) {
		b.t.Errorf("second %+v", second)
	}
	return second
}

func TestFieldsSession(t *testing.T) {
	b, p := newPage(t)
	got := wants(t, b.asks(p, "/demo/fields-session", "{}", nil), 200)
	if want := map[string]any{"sessionToken": session, "library": library, "integrity": integrity}; !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if call := b.authorized(atSessions); call.body != `{"libVersion":"1.7.0.261457","scenario":"payment"}` {
		t.Errorf("body %s", call.body)
	}
}

func TestPay(t *testing.T) {
	b, p := newPage(t)
	var keys []string
	for range 2 {
		w := b.asks(p, "/demo/pay", `{"token":"`+single+`"}`, nil)
		wants(t, w, 200)
		want := `{"status":201,"payment":{"paymentId":"P1","transactionResult":{"status":"ready","responseCode":"A"},"card":{"type":"Visa","cardNumber":"411111******1111"}}}`
		if w.Body.String() != want {
			t.Errorf("got %s", w.Body)
		}
		call := b.authorized(atPayments)
		var body struct {
			ProcessingTerminalID string
			Order                struct {
				OrderID  string
				Amount   int
				Currency string
			}
			PaymentMethod map[string]string
		}
		if err := json.Unmarshal([]byte(call.body), &body); err != nil {
			t.Fatal(err)
		}
		if body.ProcessingTerminalID != "1234001" || body.Order.Amount != 4200 || body.Order.Currency != "EUR" || body.Order.OrderID == "" ||
			!maps.Equal(body.PaymentMethod, map[string]string{"type": "singleUseToken", "token": single}) {
			t.Errorf("body %s", call.body)
		}
		keys = append(keys, call.header.Get("Idempotency-Key"))
	}
	if keys[0] == keys[1] {
		t.Error("two payments have one idempotency key")
	}
}

// TestPayMasks: whatever an issuer answers, no number comes through.
func TestPayMasks(t *testing.T) {
	b, p := newPage(t)
	for said, want := range map[string]string{number: "411111******1111", "41111111111": "411111*1111", "4111111111": "**********", "": ""} {
		b.set(atPayments, answer{status: 201, body: `{"paymentId":"P1","card":{"cardNumber":"` + said + `"}}`})
		got := wants(t, b.asks(p, "/demo/pay", `{"token":"x"}`, nil), 200)
		if card := got["payment"].(map[string]any)["card"].(map[string]any); card["cardNumber"] != want {
			t.Errorf("%s became %v", said, card["cardNumber"])
		}
	}
}

func TestPayRefused(t *testing.T) {
	b, p := newPage(t)
	for _, c := range []struct {
		body   string
		status int
	}{
		{`{"title":"Bad request","errors":[{"parameter":"paymentMethod.token","message":"` + single + `"}]}`, 422},
		{`{"title":"Bad request","errors":[{"parameter":"paymentMethod","message":"` + bearer + `"}]}`, 502},
		{`{"title":"Bad request","errors":[]}`, 502},
		{`no JSON, but ` + apiKey, 502},
	} {
		b.set(atPayments, answer{status: 400, body: c.body})
		wants(t, b.asks(p, "/demo/pay", `{"token":"`+single+`"}`, nil), c.status)
	}
}

// TestPayNeedsToken: what is no token is not even asked about.
func TestPayNeedsToken(t *testing.T) {
	b, p := newPage(t)
	for _, body := range []string{`{}`, `{"token":""}`, `{"token":null}`, `{"token":["a"]}`, `{"token":"` + strings.Repeat("x", 1025) + `"}`} {
		wants(t, b.asks(p, "/demo/pay", body, nil), 400)
	}
	if calls := b.calls(); len(calls) > 0 {
		t.Errorf("calls %+v", calls)
	}
}

var callPaths = []string{"/demo/token", "/demo/fields-session", "/demo/pay"}

// TestRefusals: nobody but the page asks, and what is not well asked goes nowhere.
func TestRefusals(t *testing.T) {
	b, p := newPage(t)
	good := `{"token":"` + single + `"}`
	for _, path := range callPaths {
		for _, c := range []struct {
			name, body string
			headers    map[string]string
			status     int
		}{
			{"no origin", good, map[string]string{"Origin": ""}, 403},
			{"a foreign origin", good, map[string]string{"Origin": "https://shop.example"}, 403},
			{"no page's origin", good, map[string]string{"Origin": "null"}, 403},
			{"a longer origin", good, map[string]string{"Origin": b.URL + ".example"}, 403},
			{"another scheme", good, map[string]string{"Origin": strings.Replace(b.URL, "https", "http", 1)}, 403},
			{"an origin with a path", good, map[string]string{"Origin": b.URL + "/"}, 403},
			{"no content type", good, map[string]string{"Content-Type": ""}, 415},
			{"what forms send", good, map[string]string{"Content-Type": "text/plain"}, 415},
			{"a form", "token=x", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, 415},
			{"another content type", good, map[string]string{"Content-Type": "application/jsonp"}, 415},
			{"too much", `{"token":"` + strings.Repeat("x", 5000) + `"}`, nil, 413},
			{"nothing", "", nil, 400},
			{"no JSON", "{", nil, 400},
			{"no object", `["` + single + `"]`, nil, 400},
			{"two objects", `{}{}`, nil, 400},
		} {
			if w := b.asks(p, path, c.body, c.headers); w.Code != c.status {
				t.Errorf("%s: %s: status %d, want %d", path, c.name, w.Code, c.status)
			} else {
				wants(t, w, c.status)
			}
		}
	}
	// Two origins are none.
	r := httptest.NewRequest(http.MethodPost, b.URL+"/demo/token", strings.NewReader("{}"))
	r.Header["Origin"] = []string{b.URL, b.URL}
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	wants(t, w, 403)
	if calls := b.calls(); len(calls) > 0 {
		t.Errorf("what was refused made calls: %+v", calls)
	}
}

// TestContentTypeWithParameters: browsers may add a character set.
func TestContentTypeWithParameters(t *testing.T) {
	b, p := newPage(t)
	wants(t, b.asks(p, "/demo/token", "{}", map[string]string{"Content-Type": "Application/JSON; charset=utf-8"}), 200)
}

// TestGatewayFails: the page learns which call failed and how, and nothing of what was said.
func TestGatewayFails(t *testing.T) {
	secrets := strings.Join([]string{apiKey, bearer, single, minted, session, number}, " ")
	made := map[string][]string{"/demo/token": {atMint}, "/demo/fields-session": {atAuthorize, atSessions}, "/demo/pay": {atAuthorize, atPayments}}
	for _, path := range callPaths {
		for _, at := range made[path] {
			for name, a := range map[string]answer{
				"refuses":            {status: 401, body: secrets},
				"fails":              {status: 500, body: `{"error":"` + secrets + `"}`},
				"redirects":          {status: 307, body: secrets},
				"answers no JSON":    {status: 200, body: secrets},
				"answers nothing":    {status: 201},
				"lacks what matters": {status: 201, body: `{"note":"` + secrets + `","access_token":"","token":"","data":{}}`},
				"answers otherwise":  {status: 200, body: `{"access_token":7,"token":7,"data":7,"paymentId":7,"note":"` + secrets + `"}`},
				"never ends":         {status: 201, body: `{"pad":"` + strings.Repeat(" ", 70<<10) + secrets + `"}`},
			} {
				b, p := newPage(t)
				b.set(at, a)
				w := b.asks(p, path, `{"token":"`+single+`"}`, nil)
				if w.Code != 502 || !strings.Contains(w.Body.String(), at) {
					t.Errorf("%s, %s %s: status %d, %s", path, at, name, w.Code, w.Body)
					continue
				}
				wants(t, w, 502)
				if calls := b.calls(); calls[len(calls)-1].path != at {
					t.Errorf("%s, %s %s: it went on to %s", path, at, name, calls[len(calls)-1].path)
				}
			}
		}
	}
}

// TestGatewayGone: why a connection failed is not told: it may quote what was sent.
func TestGatewayGone(t *testing.T) {
	b, p := newPage(t)
	b.Close()
	for _, path := range callPaths {
		got := wants(t, b.asks(p, path, `{"token":"x"}`, nil), 502)
		if !strings.HasSuffix(got["error"].(string), "the gateway did not answer") {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// TestGatewayHangs: a call ends when its caller does not wait any longer.
func TestGatewayHangs(t *testing.T) {
	b, p := newPage(t)
	b.set(atMint, answer{status: 200, delay: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, b.URL+"/demo/token", strings.NewReader("{}"))
	r.Header.Set("Origin", b.URL)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	wants(t, w, 502)
}

// TestStranger: a gateway of another authority gets neither the API key nor a request.
func TestStranger(t *testing.T) {
	b := newBackend(t)
	c := b.config()
	c.Public, c.Partner = &http.Client{Transport: &http.Transport{}}, &http.Client{Transport: &http.Transport{}}
	p, err := demo.New(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range callPaths {
		wants(t, b.asks(p, path, `{"token":"x"}`, nil), 502)
	}
	if calls := b.calls(); len(calls) > 0 {
		t.Errorf("calls %+v", calls)
	}
}

func TestNewIsWhole(t *testing.T) {
	b := newBackend(t)
	for name, spoil := range map[string]func(*demo.Config){
		"public URL":   func(c *demo.Config) { c.PublicURL = "" },
		"path":         func(c *demo.Config) { c.PublicURL += "/" },
		"no URL":       func(c *demo.Config) { c.PublicURL = "localhost:8444" },
		"partners":     func(c *demo.Config) { c.PartnersURL = "" },
		"public":       func(c *demo.Config) { c.Public = nil },
		"partner":      func(c *demo.Config) { c.Partner = nil },
		"app":          func(c *demo.Config) { c.App = "" },
		"card":         func(c *demo.Config) { c.Card = "" },
		"API key":      func(c *demo.Config) { c.APIKey = "" },
		"terminal":     func(c *demo.Config) { c.Terminal = "" },
		"version":      func(c *demo.Config) { c.LibVersion = "" },
		"library":      func(c *demo.Config) { c.Library = "" },
		"no integrity": func(c *demo.Config) { c.Integrity = "" },
	} {
		c := b.config()
		spoil(&c)
		if _, err := demo.New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	c := b.config()
	c.UserToken = ""
	if _, err := demo.New(c); err != nil {
		t.Error(err)
	}
}

// TestProtocol holds the script to the types of the published SDK, both ways.
func TestProtocol(t *testing.T) {
	b, p := newPage(t)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, b.URL+"/demo/page.js", nil))
	for _, word := range []string{
		`type: "init"`, `type: "tokenRefresh"`, `"2.0.1"`, "SetPinSuccess", "CardExpirationCopied", "CardSecurityCodeCopied", "CardNumberCopied", "DoneSettingPin",
		"EphemeralTokenInvalid", "Error", "script.integrity = integrity", `"clipboard-write"`,
	} {
		if !strings.Contains(w.Body.String(), word) {
			t.Errorf("the script has no %s", word)
		}
	}
	if i := slices.IndexFunc([]string{`"*"`, "innerHTML", "console."}, func(word string) bool { return strings.Contains(w.Body.String(), word) }); i >= 0 {
		t.Errorf("the script has what it must not: %d", i)
	}
}
