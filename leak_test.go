package main

import (
	"context"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/internal/testredis"
)

// everything goes through all flows, and through all ways in which the issuer fails, with a program that logs at debug
// level and keeps its state in Redis. It returns what the canary found.
func everything(t *testing.T, program string) []leak {
	t.Helper()
	c := newCanary()
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), c)
	server := testredis.Start(t)
	h.useRedis(server.Addr)
	h.logIn(server.Addr)
	h.edit("config.yaml", "audit: {file: audit.jsonl}", "audit: {file: audit.jsonl}\nlog: {level: debug}")
	h.edit("config.yaml", "public_key: rain-public.pem", "public_key: rain-public.pem\n    timeout: 1s")
	for _, file := range []string{"payments-api-key", "payroc-issuer-key", "cards-api-key"} {
		h.edit("config.yaml", "api_key_file: "+file, "api_key_file: "+file+"\n    timeout: 1s")
	}
	g := serveProcess(t, program, h.path("config.yaml"))
	caller := h.caller(g)
	for _, client := range []*http.Client{caller.client, caller.partner} {
		client.Transport = &listener{h, client.Transport}
	}
	// A leaky program may well fail some of them; what it leaks is the question.
	if err := tryFlows(context.Background(), io.Discard, caller); err != nil {
		t.Log(err)
	}
	for name, fault := range faults {
		h.fail(fault)
		for _, f := range flows {
			if asksIssuer.MatchString(f.name) {
				if err := f.run(caller, context.Background()); (err == nil) != (name == "none") && !strings.Contains(name, "null-pin") {
					t.Logf("%s: %s: %v", name, f.name, err)
				}
			}
		}
	}
	h.fail(sandbox.Fault{})
	for _, path := range []string{"/metrics", "/readyz"} {
		_, text := g.get(t, path)
		c.saw(path, text)
	}
	c.dump("store", server)
	g.stop(t, syscall.SIGTERM)
	c.saw("the log", g.log())
	c.auditFiles(t, h.dir)
	if len(c.secrets) < 100 || len(c.places) < 100 {
		t.Fatalf("only %d secrets and %d places", len(c.secrets), len(c.places))
	}
	return c.search()
}

// fail has all issuers fail, or stop it.
func (h *house) fail(f sandbox.Fault) {
	for _, name := range []string{"rain", "payments", "payroc", "cards"} {
		issuer, id := h.issuer([]string{name})
		issuer.SetFault(id, f)
	}
}

// asksIssuer matches the names of flows that an issuer can spoil.
var asksIssuer = regexp.MustCompile(`reveal|PIN|Exa|Bridge|card|forward|signature|refresh|pay`)

// listener tells the canary what crosses the wire of a caller: session ids with their secrets, tokens, PINs, answers.
type listener struct {
	h    *house
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (l *listener) RoundTrip(r *http.Request) (*http.Response, error) {
	c := l.h.canary
	l.sent(r)
	if id := r.Header.Get("sessionid"); len(id) > longEnough {
		l.session(id, r)
	}
	res, err := l.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	searched := ownToken(r.URL, body)
	if strings.HasPrefix(r.URL.Path, "/v0/card_details") && res.StatusCode == http.StatusOK {
		searched = shown(body) // in clear, by the word of the route
	}
	c.answered(res.StatusCode, res.Header, searched)
	res.Body = io.NopCloser(strings.NewReader(string(body)))
	return res, err
}

// sent has the canary learn what a request proves something with.
func (l *listener) sent(r *http.Request) {
	var text []byte
	if r.GetBody != nil {
		if body, err := r.GetBody(); err == nil {
			text, _ = io.ReadAll(body) // a strings.Reader
		}
	}
	l.h.canary.sent(r.Header, r.URL, string(text))
	if r.URL.Path == "/api/v1/cards/verify" {
		if number, ok := l.h.uploaded(text); ok {
			l.h.canary.secret("card number", number)
		}
	}
}

// session opens a session id with the gateway's own key, which the test has, and a PIN that was sealed for it.
func (l *listener) session(id string, r *http.Request) {
	wrapped, err := base64.StdEncoding.DecodeString(id)
	if err != nil {
		return
	}
	key, err := l.h.rsaKey("session-key.pem")
	if err != nil {
		panic(err)
	}
	text, err := rsa.DecryptOAEP(sha1.New(), nil, key, wrapped, nil)
	if err != nil {
		return // noise, which a flow sends
	}
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return
	}
	l.h.canary.secret("session secret's text", string(text))
	l.h.canary.secret("session secret's bytes", string(raw))
	session, err := sandbox.SessionOf(hex.EncodeToString(raw))
	if err != nil || r.GetBody == nil {
		return
	}
	body, err := r.GetBody()
	if err != nil {
		return
	}
	var sealed sandbox.Sealed
	if json.NewDecoder(body).Decode(&sealed) == nil {
		if pin, err := session.OpenPIN(sealed); err == nil && pin != "1234" {
			l.h.canary.pin(pin)
		}
	}
}

// TestNothingLeaks is the canary on the program as it is.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	for _, l := range everything(t, binary(t)) {
		t.Error(l)
	}
}

// TestLeaksAreFound is the canary on programs that leak: built from copies of our sources with one line more, which the
// compiler takes in place of the originals. Each leak must be found where it is.
func TestLeaksAreFound(t *testing.T) {
	t.Parallel()
	const checked = "\tdefer plaintext.Destroy()\n"
	for name, leaky := range map[string]struct {
		sources map[string][2]string // by file: a text that stands there once, and what takes its place
		want    []leak               // whatever the form
	}{
		"print, metric and key": {
			map[string][2]string{
				"vault/session.go": {checked, checked + `	if f == FieldPAN {
		println("resealed", string(plaintext.Bytes()))
		l.metrics.reseals.WithLabelValues(string(plaintext.Bytes()), d.String(), "ok").Inc()
		_ = syscall.Setenv("LEAK", fmt.Sprintf("%x", plaintext.Bytes()))
	}
	if f == FieldCVC {
		println("cvc=" + string(plaintext.Bytes()))
	}
	if f == FieldPIN {
		println(fmt.Sprint(plaintext.Bytes()))
	}
`},
				"policy/store/redis.go": {`	return r.prefix + ":" + string(f) + ":" + string(kind) + ":{"`, `	return r.prefix + os.Getenv("LEAK") + ":" + string(f) + ":" + string(kind) + ":{"`},
			},
			[]leak{
				{what: "card number", place: "the log"}, {what: "card number", place: "/metrics"}, {what: "card number", place: "a key of Redis store"},
				{what: "security code", place: "the log"}, {what: "PIN block", place: "the log"},
			},
		},
		"error, record and answer": {
			map[string][2]string{
				"vault/session.go": {checked, checked + `	if f == FieldPAN && d == ToClient {
		return Sealed{}, fmt.Errorf("%w: %s", ErrOpen, base64.URLEncoding.EncodeToString(append([]byte("card "), plaintext.Bytes()...)))
	}
`},
				"gateway/prove.go":           {"\tproof, err := x.st.config.Tokens.Redeem(", "\tx.event.User = c.Value()\n\tproof, err := x.st.config.Tokens.Redeem("},
				"gateway/http.go":            {"\tx.burn(errors.Join(", "\tif out.Status >= 400 {\n\t\tout.Body = append(out.Body, r.Header.Get(\"Sessionid\")...)\n\t}\n\tx.burn(errors.Join("},
				"policy/credential/token.go": {"t.kind.store, digest, sealed, m.TTL)", "t.kind.store, digest, append(sealed, raw[:]...), m.TTL)"},
			},
			[]leak{
				{what: "card number", place: "the log"}, {what: "token", place: "the audit log"}, {what: "session id", place: "an answer"},
				{what: "token's bytes", place: "a value of Redis store"},
			},
		},
		"keys, queries, challenges and forwards": {
			map[string][2]string{
				"gateway/http.go":              {"\tx.mark = x.request.Received\n", "\tx.mark = x.request.Received\n\tprintln(r.URL.RawQuery)\n"},
				"gateway/prove.go":             {"\tchallenge, err := x.take(", "\tx.event.User = c.Value()\n\tchallenge, err := x.take("},
				"gateway/issuer/forward.go":    {"\tif message.HoldsPAN() {", "\tif message.HoldsPAN() && c == nil {"},
				"gateway/face/bridge.go":       {"\tkey, ok := r.One(\"Api-Key\")\n", "\tkey, ok := r.One(\"Api-Key\")\n\tprintln(\"for \" + key)\n"},
				"gateway/face/exa.go":          {"\tdst = exchange.AppendMember(append(dst, '{'), \"id\", res.Provision.ID)\n", "\tdst = exchange.AppendMember(append(dst, '{'), \"id\", res.Provision.ID)\n\tprintln(res.Provision.Secret)\n"},
				"policy/credential/jwt.go":     {"\tif err != nil {\n\t\treturn \"\", time.Time{}, err\n\t}\n\treturn text + ", "\tif err != nil {\n\t\treturn \"\", time.Time{}, err\n\t}\n\tprintln(textEncoding.EncodeToString(signature))\n\treturn text + "},
				"policy/credential/refresh.go": {"Mint(ctx, storeRefresh, digest, sealed, RefreshTTL)", "Mint(ctx, storeRefresh, digest, append(sealed, raw[:]...), RefreshTTL)"},
			},
			[]leak{
				{what: "client secret", place: "the log"}, {what: "partner's API key", place: "the log"}, {what: "provisioning secret", place: "the log"},
				{what: "access token's signature", place: "the log"}, {what: "challenge's id", place: "the audit log"},
				{what: "refresh token's bytes", place: "a value of Redis store"}, {what: "card number", place: "an answer"},
			},
		},
		"hosted fields and users": {
			map[string][2]string{
				"vault/holder.go":                {"\tring, err := h.ring.For(token)\n\tif err != nil {\n\t\treturn nil, fmt.Errorf(\"hold: %w\", err)\n\t}\n", "\tring, err := h.ring.For(token)\n\tif err != nil {\n\t\treturn nil, fmt.Errorf(\"hold: %w\", err)\n\t}\n\tprintln(token)\n\tif part != \"card\" {\n\t\tprintln(part + \": \" + string(plaintext))\n\t}\n"},
				"gateway/face/payroc.go":         {"\tkey, ok := r.One(\"X-Api-Key\")\n", "\tkey, ok := r.One(\"X-Api-Key\")\n\tprintln(\"for \" + key)\n"},
				"gateway/face/gnosispay_user.go": {"\tnonce, singleNonce := r.One(userNonceHeader)\n", "\tnonce, singleNonce := r.One(userNonceHeader)\n\tprintln(token, nonce)\n"},
				"policy/credential/fields.go":    {"\t\treturn f.config.Records.Put(ctx, storeFields, ", "\t\t_ = f.config.Records.Put(ctx, storeFieldsSubmit, page.digest, page.raw[:], ttl)\n\t\treturn f.config.Records.Put(ctx, storeFields, "},
				"policy/credential/token.go":     {"\terr = t.config.Store.Mint(ctx, t.kind.store, digest, sealed, m.TTL)\n", "\tif t.kind.holds {\n\t\t_ = t.config.Store.Mint(ctx, \"leak\", digest, raw[:], m.TTL)\n\t}\n\terr = t.config.Store.Mint(ctx, t.kind.store, digest, sealed, m.TTL)\n"},
			},
			[]leak{
				{what: "partner's API key of payroc", place: "the log"}, {what: "session of hosted fields", place: "the log"}, {what: "single-use token", place: "the log"},
				{what: "card number", place: "the log"}, {what: "security code", place: "the log"},
				{what: "user token", place: "the log"}, {what: "nonce of typed data", place: "the log"},
				{what: "session of hosted fields's bytes", place: "a value of Redis store"}, {what: "single-use token's bytes", place: "a value of Redis store"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := everything(t, buildLeaky(t, leaky.sources))
			for _, want := range leaky.want {
				if !slices.ContainsFunc(found, func(l leak) bool { return l.what == want.what && l.place == want.place }) {
					t.Errorf("not found: the %s in %s", want.what, want.place)
				}
			}
			if t.Failed() {
				t.Log(found)
			}
		})
	}
}

// buildLeaky builds the program with other sources in the place of ours (`go help build`, -overlay).
func buildLeaky(t *testing.T, sources map[string][2]string) string {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for file, change := range sources {
		original, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(original)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(content), change[0]); n != 1 {
			t.Fatalf("%s has %q %d times: the leak wants another place", file, change[0], n)
		}
		text := strings.Replace(string(content), change[0], change[1], 1)
		for pkg, use := range map[string]string{"syscall": "syscall.", "encoding/base64": "base64."} {
			if strings.Contains(change[1], use) {
				text = strings.Replace(text, "import (\n", fmt.Sprintf("import (\n\t%q\n", pkg), 1)
			}
		}
		copied := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(copied, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[original] = copied
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "leaky")
	if err := build(program, "-overlay", file); err != nil {
		t.Fatal(err)
	}
	return program
}

// TestCanarySearch shows the canary's own reading: what it finds, and what it must not take for a secret.
func TestCanarySearch(t *testing.T) {
	for _, c := range []struct {
		what, secret, text string
		found              bool
	}{
		{"plain", "4111110000000009", `{"msg":"card 4111110000000009 resealed"}`, true},
		{"inside a longer text", "4111110000000009", `xx4111110000000009yy`, true},
		{"grouped", "4111110000000009", `4111 1100 0000 0009`, true},
		{"grouped by hyphens", "4111110000000009", `4111-1100-0000-0009`, true},
		{"packed", "4111110000000009", "\x41\x11\x11\x00\x00\x00\x00\x09", true},
		{"hex", "4111110000000009", hex.EncodeToString([]byte("4111110000000009")), true},
		{"base64", "4111110000000009", base64.StdEncoding.EncodeToString([]byte("4111110000000009")), true},
		{"base64 of more, at 1", "4111110000000009", base64.StdEncoding.EncodeToString([]byte("x4111110000000009xyz")), true},
		{"base64 of more, at 2", "4111110000000009", base64.StdEncoding.EncodeToString([]byte("xy4111110000000009x")), true},
		{"byte slice", "4111110000000009", fmt.Sprint([]byte("4111110000000009")), true},
		{"percent", "a+b/c=d-", `?x=a%2Bb%2Fc%3Dd-`, true},
		{"last four", "4111110000000009", `{"lastFour":"0009"}`, false},
		{"another number", "4111110000000009", `4111110000000017`, false},

		{"a code as a text", "8273", `{"msg":"code 8273 refused"}`, true},
		{"a code as a value", "8273", `{"cvc":"8273"}`, true},
		{"a code as a number", "8273", `{"value":8273}`, true},
		{"a code in a list", "8273", `{"values":[1,8273]}`, true},
		{"a code as a key", "8273", `{"8273":1}`, true},
		{"a code as a label", "8273", `cardstile_x_total{field="8273"} 1`, true},
		{"a code announced", "8273", `time=1 cvc=8273`, true},
		{"a code announced, joined", "8273", `pin:8273,`, true},
		{"a code announced after one that is not", "8273", `took 18273us and 8273us "x" cvc=8273`, true},
		{"another number announced", "8273", `"x" cvc=82731`, false},
		{"the beginning of a long one", "4111110000000009", `411111000000000`, false},
		{"a code alone", "8273", `8273`, true},
		{"a duration", "8273", `{"latency_us":8273}`, false},
		{"a sample's value", "8273", `cardstile_x_total{field="pan"} 8273`, false},
		{"a sample without labels", "8273", "cardstile_x_total 8273\n", false},
		{"a port", "8273", `{"address":"127.0.0.1:8273"}`, false},
		{"a part of a time", "8273", `{"time":"2026-11-23T15:41:10.8273Z"}`, false},
		{"a part of an id", "8273", `{"exchange":"0f8273aa"}`, false},
		{"a part of a number", "8273", `{"value":82731}`, false},
	} {
		canary := newCanary()
		canary.secret("it", c.secret)
		canary.saw("there", c.text)
		if found := canary.search(); (len(found) == 1) != c.found {
			t.Errorf("%s: found %v in %s", c.what, found, c.text)
		}
	}
}
