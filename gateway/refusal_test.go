package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // OAEP's hash in the published protocol
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault/keys"
)

// wrapped is a sessionid around any text, for any key.
func wrapped(key *rsa.PublicKey, text []byte) string {
	raw, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, key, text, nil)
	must(err)
	return base64.StdEncoding.EncodeToString(raw)
}

// TestBadSessions: a sessionid that cannot be read is refused before a token is spent, one that cannot be opened after
// [26]; both look alike, whatever the reason.
func TestBadSessions(t *testing.T) {
	h := newHouse(t, options{})
	h.login(ada)
	c, good := h.anybody(), h.session()
	long := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	for _, test := range []struct {
		name, id, reason string
		spent            bool
	}{
		{"absent", "", "no_preamble", false},
		{"not base64", strings.Repeat("!", 344), "preamble", false},
		{"URL alphabet", strings.Repeat("_", 344), "preamble", false},
		{"no padding", strings.TrimRight(good.ID(), "="), "preamble", false},
		{"too much padding", good.ID() + "=", "preamble", false},
		{"stray bits", good.ID()[:342] + "B=", "preamble", false},
		{"white space inside", good.ID()[:100] + " " + good.ID()[100:], "preamble", false},
		{"one byte too long", preamble(257), "preamble", false},
		{"oversized", preamble(2048), "preamble", false},
		{"truncated", good.ID()[:340], "open", true},
		{"one byte", "AA==", "open", true},
		{"for a smaller key", preamble(128), "open", true},
		{"random", preamble(256), "open", true},
		{"for another key", wrapped(&shared().issuer.PublicKey, []byte("ABEiM0RVZneImaq7zN3u/w==")), "open", true},
		{"the key's bytes, not their text", wrapped(shared().session, bytes.Repeat([]byte{7}, 16)), "open", true},
		{"a key of 15 bytes", wrapped(shared().session, []byte(base64.StdEncoding.EncodeToString(make([]byte, 15)))), "open", true},
		{"a key of 17 bytes", wrapped(shared().session, []byte(base64.StdEncoding.EncodeToString(make([]byte, 17)))), "open", true},
		{"a key of 32 bytes", wrapped(shared().session, []byte(long)), "open", true},
		{"a key's text with a line break", wrapped(shared().session, []byte("ABEiM0RVZneImaq7zN3u/w==\n")), "open", true},
		{"no key", wrapped(shared().session, nil), "open", true},
	} {
		token := h.mint()
		x := detailsCall(card, token, test.id)
		if test.id == "" {
			x.header = x.header[:2]
		}
		w := want{status: 400, body: gnosis("Invalid session id"), results: []string{"refused " + test.reason}, outcome: "bad_session"}
		if test.spent {
			w.redeemed, w.rule = 1, "reveal"
		}
		h.expect(test.name, c, x, w)
		r := c.do(detailsCall(card, token, good.ID()))
		if (r.status == 200) == test.spent {
			t.Errorf("%s: afterwards the token answers %d", test.name, r.status)
		}
		if test.id == "" {
			continue
		}
		w = want{status: 400, body: exa("bad session id"), results: []string{"refused " + test.reason}, outcome: "bad_session"}
		if test.spent {
			w.rule = "own-card"
		}
		h.expect("exa, "+test.name, c, h.exaCall(ada, test.id), w)
	}
}

// fleeting is a store whose tokens live for a moment.
type fleeting struct{ store.Store }

func (f fleeting) Mint(ctx context.Context, k store.Kind, d store.Digest, v []byte, _ time.Duration) error {
	return f.Store.Mint(ctx, k, d, v, time.Millisecond)
}

// TestBadTokens: whatever is wrong with a token, the answer is the same 401; the audit and a metric know better.
func TestBadTokens(t *testing.T) {
	h := newHouse(t, options{})
	c, s := h.anybody(), h.session()
	good := h.mint()
	flipped := []byte(good)
	flipped[20] = map[bool]byte{true: 'B', false: 'A'}[flipped[20] == 'A']
	another := newHouse(t, options{store: func(s store.Store) store.Store { return fleeting{s} }})
	expired := another.mint()
	time.Sleep(10 * time.Millisecond)
	for _, test := range []struct {
		name    string
		h       *house
		token   string
		refused string
	}{
		{"garbage", h, "garbage", "malformed"},
		{"padded", h, good + "=", "malformed"},
		{"with a space", h, " " + good, "malformed"},
		{"another's", h, string(flipped), "unknown"},
		{"of another key", h, strings.Repeat("A", len(good)), "unknown"},
		{"of another store", h, expired, "unknown"},
		{"expired", another, expired, "expired"},
	} {
		caller, session := c, s
		if test.h != h {
			caller, session = another.anybody(), another.session()
		}
		test.h.expect(test.name, caller, detailsCall(card, test.token, session.ID()), want{
			status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_" + test.refused}, outcome: "unauthorized", refused: test.refused,
		})
	}
	none := detailsCall(card, "", s.ID())
	none.header = none.header[2:]
	h.expect("none", c, none, want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused no_credential"}, outcome: "unauthorized"})
	if r := c.do(detailsCall(card, good, s.ID())); r.status != 200 {
		t.Errorf("the good one afterwards: %d %s", r.status, r.body)
	}
	// A token that was redeemed in vain elsewhere is of this partner all the same: nothing of it was told.
	if strings.Contains(h.log.String(), good) {
		t.Error("the log holds a token")
	}
}

// TestBadCookies: likewise for Exa's users.
func TestBadCookies(t *testing.T) {
	h := newHouse(t, options{})
	c, s := h.anybody(), h.session()
	unauthorized := func(reason string) want {
		return want{status: 401, body: exa("unauthorized"), results: []string{"refused " + reason}, outcome: "unauthorized"}
	}
	signed := h.exaCall(ada, s.ID())
	h.expect("never logged in", c, signed, unauthorized("cookie_login"))
	h.login(ada)
	if r := c.do(signed); r.status != 200 {
		t.Fatalf("logged in: %d %s", r.status, r.body)
	}
	must(h.cookies.Logout(context.Background(), ada))
	h.expect("logged out", c, signed, unauthorized("cookie_login"))
	h.login(ada)

	tampered := h.exaCall(ada, s.ID())
	tampered.header[1] = strings.Replace(tampered.header[1], "0x1234", "0x1235", 1)
	h.expect("tampered", c, tampered, unauthorized("cookie_signature"))
	unsigned := h.exaCall(ada, s.ID())
	unsigned.header[1] = "credential_id=" + ada
	h.expect("unsigned", c, unsigned, unauthorized("cookie_malformed"))
	twice := h.exaCall(ada, s.ID())
	twice.header[1] += "; " + twice.header[1]
	h.expect("twice", c, twice, unauthorized("no_credential"))
	none := h.exaCall(ada, s.ID())
	none.header = none.header[2:]
	h.expect("none", c, none, unauthorized("no_credential"))
	bearer := call{listener: "public", method: "GET", path: "/api/card", header: []string{"Authorization", "Bearer " + h.mint(), "sessionid", s.ID()}}
	h.expect("a token in its place", c, bearer, unauthorized("no_credential"))

	h.login("stranger")
	h.expect("a user whom nobody knows", c, h.exaCall("stranger", s.ID()),
		want{status: 403, body: exa("no panda"), results: []string{"refused no_account"}, outcome: "no_account"})
	h.login("lonely")
	h.expect("a user without a card", c, h.exaCall("lonely", s.ID()),
		want{status: 404, body: exa("no card"), results: []string{"refused denied_unknown_card"}, outcome: "not_found"})
	scope := h.exaCall(ada, "")
	scope.path += "?scope=siwe&scope=webauthn"
	h.expect("siwe with webauthn", c, scope, want{status: 400, body: `{"code":"bad request"}`, results: []string{"refused scope"}, outcome: "bad_request"})
}

// TestBadPINs: a PIN that is weak or cannot be opened reaches nobody, and a captured envelope does not work twice [10].
func TestBadPINs(t *testing.T) {
	h := newHouse(t, options{})
	c, s := h.anybody(), h.session()
	before := h.rain.PIN("ic-1")
	refused := func(status int, text, outcome, reason string) want {
		return want{status: status, body: gnosis(text), results: []string{"intent", "refused " + reason}, rule: "pin", outcome: outcome, redeemed: 1}
	}
	for _, pin := range []string{"1234", "0000", "890123", "4321"} {
		h.expect("weak", c, h.setPINCall(card, h.mint(), s, pin), refused(422, "PIN is too weak", "weak_pin", "weak_pin"))
	}
	other := h.setPINCall(card, h.mint(), h.session(), "9153")
	other.header[3] = s.ID()
	h.expect("sealed for another session", c, other, refused(400, "Invalid session id", "bad_session", "open"))
	short := h.setPINCall(card, h.mint(), s, "9153")
	short.body = `{"data":"AAAA","iv":"AAECAwQFBgcICQoLDA0ODw=="}`
	h.expect("no ciphertext", c, short, refused(400, "Invalid session id", "bad_session", "open"))
	clear := s.Seal("9153")
	block := h.setPINCall(card, h.mint(), s, "9153")
	block.body = fmt.Sprintf(`{"data":%q,"iv":%q}`, clear.Data, clear.IV)
	h.expect("no PIN block", c, block, refused(400, "Invalid session id", "bad_session", "open"))
	if h.rain.PIN("ic-1") != before {
		t.Error("a PIN was set")
	}

	set := h.setPINCall(card, h.mint(), s, "9153")
	h.expect("set", c, set, want{status: 200, results: []string{"intent", "done"}, rule: "pin", outcome: "done", upstream: 1, redeemed: 1})
	set.header[1] = "Bearer " + h.mint()
	h.expect("captured, with a fresh token", c, set,
		want{status: 400, body: gnosis("Invalid session id"), results: []string{"refused envelope_replayed"}, rule: "pin", outcome: "bad_session", redeemed: 1})
	// A new digest key does not make it new: the older ones, in their overlap, still know it.
	rotated := h.newConfig()
	rotated.EnvelopeDigests = append([]policy.MAC{mac(keys.UseDigest, "another key")}, rotated.EnvelopeDigests...)
	must(h.gateway.Reload(rotated))
	set.header[1] = "Bearer " + h.mint()
	h.expect("captured, after a rotation", c, set,
		want{status: 400, body: gnosis("Invalid session id"), results: []string{"refused envelope_replayed"}, rule: "pin", outcome: "bad_session", redeemed: 1})
	set.header[1] = "Bearer " + h.mint()
	set.path = strings.Replace(set.path, card, bareCard, 1)
	h.expect("captured, for another card", c, set,
		want{status: 400, body: gnosis("Invalid session id"), results: []string{"refused envelope_replayed"}, rule: "pin", outcome: "bad_session", redeemed: 1})
	if h.rain.PIN("ic-3") != "" {
		t.Error("the PIN of another card was set")
	}
}

// TestBadRequests: what does not follow the contract is refused in the face's shape, and spends nothing.
func TestBadRequests(t *testing.T) {
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Limits.BodyBytes = 1000 }})
	partner, c, s := h.partner(), h.anybody(), h.session()
	token := h.mint()
	bad := want{status: 400, body: gnosis("Invalid request"), results: []string{"refused body"}, outcome: "bad_request"}
	h.expect("not JSON", partner, mintCall("{"), bad)
	h.expect("null", partner, mintCall("null"), bad)
	h.expect("unknown member", partner, mintCall(`{"a":1}`), bad)
	h.expect("deep", partner, mintCall(strings.Repeat("[", 999)), bad)
	text := mintCall("{}")
	text.header = []string{"Content-Type", "text/plain"}
	h.expect("text", partner, text, want{status: 415, body: gnosis("Unsupported media type"), results: []string{"refused content_type"}, outcome: "unsupported_media"})
	large := want{status: 413, body: gnosis("Request too large"), results: []string{"refused body_too_large"}, outcome: "too_large"}
	h.expect("large", partner, mintCall(strings.Repeat(" ", 1001)), large)
	body := detailsCall(card, token, s.ID())
	body.body = "{}"
	h.expect("a body to a GET", c, body, bad)

	// A length that is stated is judged before anything of the body comes.
	before := h.snapshot(large)
	answer, said := h.raw("partners", "POST /api/v1/ephemeral-token HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 100000\n\n")
	h.compare("announced", before, reply{answer.StatusCode, answer.Header, said, ""}, large)

	// Chunked, so that its length is not stated; over both protocols.
	for _, http2 := range []bool{false, true} {
		for n, w := range map[int]want{1000: bad, 1001: large} {
			before := h.snapshot(w)
			r, err := http.NewRequest("POST", "https://"+h.gateway.Addr("partners").String()+"/api/v1/ephemeral-token", io.MultiReader(strings.NewReader(strings.Repeat("x", n))))
			must(err)
			r.Host = "localhost"
			r.Header.Set("Content-Type", "application/json")
			answer, err := h.callerWith(&shared().partner, http2, nil).c.Do(r)
			must(err)
			text, err := io.ReadAll(answer.Body)
			must(err)
			h.compare(fmt.Sprintf("%d bytes, chunked, HTTP/2 %t", n, http2), before, reply{answer.StatusCode, answer.Header, string(text), ""}, w)
		}
	}

	// Paths and methods that are none: no exchange, no record, but an id.
	for _, test := range []struct {
		listener, method, path, body, allow string
		status                              int
	}{
		{"public", "GET", "/nothing", problem(404), "", 404},
		{"public", "POST", "/api/v1/ephemeral-token", problem(404), "", 404}, // stands behind certificates alone
		{"partners", "GET", "/api/v1/cards/" + card + "/details", problem(404), "", 404},
		{"public", "GET", "/api/v1/cards//details", problem(404), "", 404},
		{"public", "GET", "/api/v1/cards/../cards/" + card + "/details", problem(404), "", 404},
		{"public", "GET", "/api/v1/cards/%2e%2e/details", problem(404), "", 404},
		{"public", "GET", "/metrics", problem(404), "", 404},
		{"partners", "GET", "/api/v1/ephemeral-token", gnosis("Method not allowed"), "POST", 405},
		{"partners", "HEAD", "/api/v1/ephemeral-token", "", "POST", 405},
		{"partners", "OPTIONS", "/api/v1/ephemeral-token", gnosis("Method not allowed"), "POST", 405},
		{"public", "POST", "/api/v1/cards/" + card + "/details", gnosis("Method not allowed"), "GET", 405},
		{"public", "HEAD", "/api/v1/cards/" + card + "/details", "", "GET", 405},
		{"public", "DELETE", "/api/v1/cards/" + card + "/pin", gnosis("Method not allowed"), "GET, PUT", 405},
		{"public", "HEAD", "/api/card", "", "GET, PATCH", 405},
		{"public", "PUT", "/api/card", exa("method not allowed"), "GET, PATCH", 405},
		{"public", "GET", "/", exa("method not allowed"), "PATCH", 405},
		{"public", "GET", "/api/auth/authentication", problem(404), "", 404}, // the house's route has no challenges
	} {
		x := detailsCall(card, token, s.ID())
		x.listener, x.method, x.path = test.listener, test.method, test.path
		w := want{status: test.status, body: test.body}
		if test.status == 405 {
			w.outcome = "method_not_allowed"
		}
		before := h.snapshot(w)
		r := h.callerWith(&shared().partner, true, nil).do(x)
		if r.header.Get("Allow") != test.allow {
			t.Errorf("%s %s allows %q", test.method, test.path, r.header.Get("Allow"))
		}
		h.compare(test.method+" "+test.path, before, r, w)
	}
	if r := c.do(detailsCall(card, token, s.ID())); r.status != 200 {
		t.Errorf("the token afterwards: %d", r.status)
	}
	for _, path := range []string{"/api/v1/cards/" + card + "/details/", "/api/v1/cards/" + card + "/details?"} {
		x := detailsCall(card, h.mint(), s.ID())
		x.path = path
		if r := c.do(x); r.status != 200 {
			t.Errorf("%s: %d", path, r.status)
		}
	}
	// A stage takes no longer than the test did: its clock begins with the exchange, however that ends.
	families, err := h.registry.Gather()
	must(err)
	for _, f := range families {
		if strings.HasSuffix(f.GetName(), "_duration_seconds") {
			for _, m := range f.GetMetric() {
				if sum := m.GetHistogram().GetSampleSum(); sum < 0 || sum > 600 {
					t.Errorf("%s: %v seconds", f.GetName(), sum)
				}
			}
		}
	}
}

// raw sends bytes over TLS and reads one answer.
func (h *house) raw(listener, text string) (*http.Response, string) {
	h.t.Helper()
	c := with(shared().partner)
	c.RootCAs, c.ServerName = shared().servers.pool(), "localhost"
	conn, err := tls.Dial("tcp", h.gateway.Addr(listener).String(), c)
	must(err)
	defer conn.Close()
	must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	_, err = io.WriteString(conn, strings.ReplaceAll(text, "\n", "\r\n"))
	must(err)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	return answer, string(body)
}

// TestWireLimits: header too large, and bodies that come too slowly or are cut off.
func TestWireLimits(t *testing.T) {
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Limits.HeaderBytes = 4096 }})
	answer, _ := h.raw("partners", "POST /api/v1/ephemeral-token HTTP/1.1\nHost: localhost\nA: "+strings.Repeat("a", 10_000)+"\n\n")
	if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge || len(h.records()) != 0 {
		t.Errorf("header: %d", answer.StatusCode)
	}
	// HTTP/2 counts differently, and has no answer for a header far too large but the end of the stream.
	x := mintCall("")
	x.header = append(x.header, "A", strings.Repeat("a", 10_000))
	if r, err := h.partner().try(x); err == nil && r.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("header, HTTP/2: %d", r.status)
	}
	if len(h.records()) != 0 {
		t.Error("an exchange began")
	}
	w := want{status: 400, body: gnosis("Invalid request"), results: []string{"refused body_incomplete"}, outcome: "bad_request"}
	for name, text := range map[string]string{
		"slow":       "POST /api/v1/ephemeral-token HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 10\n\n{",
		"bad chunks": "POST /api/v1/ephemeral-token HTTP/1.1\nHost: localhost\nContent-Type: application/json\nTransfer-Encoding: chunked\n\nzz\n",
	} {
		if name == "slow" {
			h = newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Limits.Read = 2 * time.Second }})
		}
		before := h.snapshot(w)
		answer, body := h.raw("partners", text)
		h.compare(name, before, reply{answer.StatusCode, answer.Header, body, ""}, w)
		if !answer.Close {
			t.Errorf("%s: the connection stays open", name)
		}
		if h.metric("cardstile_tokens_minted_total") != 0 {
			t.Errorf("%s: a token was minted", name)
		}
	}
}

// TestPolicyRefuses: what no rule permits, and what one forbids, is the face's 403 with the rule in the record.
func TestPolicyRefuses(t *testing.T) {
	h := newHouse(t, options{policies: `
@id("mint") permit (principal == Partner::"gp-demo", action == Action::"token.mint", resource);
@id("reveal") permit (principal, action == Action::"card.reveal.pan", resource);
@id("no-pin") forbid (principal, action == Action::"pin.set", resource);
@id("pin") permit (principal, action == Action::"pin.set", resource);
`})
	c, s := h.anybody(), h.session()
	other := shared().partners.client(otherName)
	h.expect("mint by another partner", h.callerWith(&other, true, nil), mintCall(""),
		want{status: 403, body: gnosis("Forbidden"), results: []string{"refused denied_no_policy"}, outcome: "forbidden"})
	h.expect("no rule", c, pinCall(card, h.mint(), s.ID()),
		want{status: 403, body: gnosis("Forbidden"), results: []string{"refused denied_no_policy"}, outcome: "forbidden", redeemed: 1})
	before := h.rain.PIN("ic-1")
	h.expect("forbidden", c, h.setPINCall(card, h.mint(), s, "9153"),
		want{status: 403, body: gnosis("Forbidden"), results: []string{"refused denied_forbidden"}, rule: "no-pin", outcome: "forbidden", redeemed: 1})
	if h.rain.PIN("ic-1") != before {
		t.Error("the PIN was set")
	}
	// Card number and security code are two decisions: one of them is released alone.
	r := h.expect("number alone", c, detailsCall(card, h.mint(), s.ID()),
		want{status: 200, results: []string{"done"}, rule: "reveal", outcome: "done", upstream: 2, redeemed: 1})
	if !strings.Contains(r.body, "encryptedPan") || strings.Contains(r.body, "encryptedCvc") {
		t.Errorf("released: %s", r.body)
	}
}

// TestAnotherEnvironment: what is of one environment never meets the other [5].
func TestAnotherEnvironment(t *testing.T) {
	h := newHouse(t, options{routes: func(h *house) []gatewayRoute {
		routes := h.routes(h.issuerOf("rain", nil))
		routes[1].Environment = "production"
		return routes
	}})
	h.expect("a token of test", h.anybody(), detailsCall(card, h.mint(), h.session().ID()),
		want{status: 403, body: gnosis("Forbidden"), results: []string{"refused denied_environment"}, outcome: "forbidden", redeemed: 1})
}

// TestTokenOfAnotherPartner: on a listener that requires certificates a token goes with its own partner's alone.
func TestTokenOfAnotherPartner(t *testing.T) {
	h := newHouse(t, options{routes: func(h *house) []gatewayRoute {
		routes := h.routes(h.issuerOf("rain", nil))
		routes[0].Operations = nil
		return routes
	}})
	other := shared().partners.client(otherName)
	x := detailsCall(card, h.mint(), h.session().ID())
	x.listener = "partners"
	h.expect("another's certificate", h.callerWith(&other, true, nil), x,
		want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_partner"}, outcome: "unauthorized", redeemed: 1, refused: "partner"})
	x = detailsCall(card, h.mint(), h.session().ID())
	x.listener = "partners"
	h.expect("its own", h.partner(), x, want{status: 200, results: []string{"done"}, rule: "reveal", outcome: "done", upstream: 2, redeemed: 1})
	x = detailsCall(card, h.mint(), h.session().ID())
	x.listener = "partners"
	renewed := shared().partners.client(subject)
	r := h.callerWith(&renewed, true, nil).do(x)
	if r.status != 200 { // the certificate may be renewed between mint and use
		t.Errorf("its own, renewed: %d %s", r.status, r.body)
	}
	if policy.FingerprintOf(renewed.Leaf) == policy.FingerprintOf(shared().partner.Leaf) {
		t.Error("the certificates are one")
	}
}
