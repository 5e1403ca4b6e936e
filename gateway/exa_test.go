package gateway_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault/keys"
)

// exaPatch is PATCH /api/card of a user's cookie.
func (h *house) exaPatch(user, body string) call {
	x := h.exaCall(user, "")
	x.method, x.body = "PATCH", body
	return x.with("Content-Type", "application/json")
}

func (h *house) exaPINCall(user string, s *sandbox.Session, pin string) call {
	sealed, err := s.SealPIN(pin)
	must(err)
	return h.exaPatch(user, fmt.Sprintf(`{"data":%q,"iv":%q,"sessionId":%q}`, sealed.Data, sealed.IV, s.ID()))
}

// exaBegun is a login that began.
type exaBegun struct {
	Method, Address, Message string
	Challenge                string
	id                       string // of the challenge
	call                     call   // that began it
}

// exaChallenge begins a login with a credential id; "" is any passkey.
func (h *house) exaChallenge(id string) exaBegun {
	h.t.Helper()
	b := exaBegun{call: call{listener: "public", method: "GET", path: "/api/auth/authentication"}}
	if id != "" {
		b.call.path += "?credentialId=" + id
	}
	r := h.anybody().do(b.call)
	if err := json.Unmarshal([]byte(r.body), &b); r.status != http.StatusOK || err != nil {
		h.t.Fatalf("no challenge: %d %s", r.status, r.body)
	}
	b.id = h.secret(r.header.Get("X-Session-Id"))
	return b
}

// loginWith is the call that ends the login, with a body.
func (b exaBegun) loginWith(body string) call {
	return call{listener: "public", method: "POST", path: b.call.path[:len("/api/auth/authentication")], body: body,
		header: []string{"Content-Type", "application/json", "Cookie", "session_id=" + b.id}}
}

// login is a wallet's.
func (b exaBegun) login(id, signature string) call {
	return b.loginWith(fmt.Sprintf(`{"method":"siwe","id":%q,"signature":%q}`, id, signature))
}

// exaConsent is what a user is asked to sign, to link their card.
func (h *house) exaConsent(user, scope string) string {
	h.t.Helper()
	x := h.exaCall(user, "")
	x.path += "?scope=" + scope
	r := h.anybody().do(x)
	var v struct{ Challenge string }
	if err := json.Unmarshal([]byte(r.body), &v); r.status != http.StatusOK || err != nil || v.Challenge == "" {
		h.t.Fatalf("no consent: %d %s", r.status, r.body)
	}
	return v.Challenge
}

// wants of exa's answers.
func exaDone(rule string, upstream int) want {
	return want{status: 200, results: []string{"done"}, rule: rule, outcome: "done", upstream: upstream}
}

func exaChanged(upstream int) want { return exaSet("own-change", upstream) }

func exaSet(rule string, upstream int) want {
	w := exaDone(rule, upstream)
	w.results = []string{"intent", "done"}
	return w
}

func exaRefused(code, outcome, reason string) want {
	return want{status: 400, body: exa(code), results: []string{"refused " + reason}, outcome: outcome}
}

// cookieOf is what an answer sets a cookie to, with the attributes that all of ours have [21].
func (h *house) cookieOf(r reply, name string, age int) string {
	h.t.Helper()
	for _, c := range (&http.Response{Header: r.header}).Cookies() {
		if c.Name != name {
			continue
		}
		if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteNoneMode || !c.Partitioned || c.Path != "/" || c.MaxAge > age || c.MaxAge < age-1 || c.Domain != "" {
			h.t.Errorf("the cookie is %s", strings.Replace(c.Raw, c.Value, "…", 1))
		}
		return h.secret(c.Value)
	}
	h.t.Fatalf("no cookie %s", name)
	return ""
}

// passkeyLogin signs the challenge of a login.
func (b exaBegun) passkeyLogin(h *house, key *sandbox.Passkey, from string) call {
	challenge, err := base64.RawURLEncoding.DecodeString(b.Challenge)
	must(err)
	return b.loginWith(string(key.Assert(challenge, from)))
}

// TestExaLogin: whoever has a wallet or a passkey signs a challenge once, and is known by a cookie from then on.
func TestExaLogin(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c, w, key := h.anybody(), shared().wallet, shared().passkey
	for name, test := range map[string]struct {
		id    string // begun with
		user  string
		login func(exaBegun) call
		card  string
	}{
		"wallet":      {w.address, w.address, func(b exaBegun) call { return b.login(w.address, h.secret(w.sign(b.Message))) }, "wallet-card"},
		"passkey":     {key.CredentialID(), key.CredentialID(), func(b exaBegun) call { return b.passkeyLogin(h, key, origin) }, "passkey-card"},
		"any passkey": {"", key.CredentialID(), func(b exaBegun) call { return b.passkeyLogin(h, key, origin) }, "passkey-card"},
	} {
		must(h.cookies.Logout(context.Background(), test.user))
		begun := h.exaChallenge(test.id)
		if wallets := name == "wallet"; wallets != (begun.Method == "siwe") || wallets && !strings.Contains(begun.Message, domain+" wants you to sign in") {
			t.Errorf("%s: %+v", name, begun)
		}
		r := h.expect(name, c, test.login(begun), exaDone("login", 0))
		cookie := h.cookieOf(r, "credential_id", 86400)
		x := call{listener: "public", method: "GET", path: "/api/card", header: []string{"Cookie", "credential_id=" + cookie}}
		if r := h.expect(name+", its card", c, x, exaDone("own-card", 2)); !strings.Contains(r.body, `"cardId":"`+test.card+`"`) {
			t.Errorf("%s: another card: %s", name, r.body)
		}
		h.expect(name+", again", c, test.login(begun), exaRefused("no authentication", "challenge_unknown", "challenge_spent"))
		// In the header in place of the cookie.
		begun = h.exaChallenge(test.id)
		h.expect(name+", in a header", c, test.login(begun).without("Cookie").with("X-Session-Id", begun.id), exaDone("login", 0))
		if r := c.do(begun.call); h.cookieOf(r, "session_id", 300) != r.header.Get("X-Session-Id") {
			t.Errorf("%s: cookie and header differ", name)
		}
	}
	last := h.records()[len(h.records())-1]
	if last.User != "" || last.Rule != "begin" || last.Result != "done" {
		t.Errorf("a login that begins is recorded as %+v", last)
	}
}

// TestExaLoginsThatFail: a wrong signature takes the challenge; what cannot be read takes none; and nobody is told who is known.
func TestExaLoginsThatFail(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c, w, key, stranger := h.anybody(), shared().wallet, shared().passkey, newWallet()
	must(h.cookies.Logout(context.Background(), w.address))
	signed := func(b exaBegun) call { return b.login(w.address, h.secret(w.sign(b.Message))) }
	for name, test := range map[string]struct {
		x     func(exaBegun) call
		want  want
		takes bool
	}{
		"another's signature": {func(b exaBegun) call { return b.login(w.address, stranger.sign(b.Message)) }, exaRefused("bad authentication", "bad_signature", "wallet_user"), true},
		"of another text":     {func(b exaBegun) call { return b.login(w.address, w.sign(b.Message+" ")) }, exaRefused("bad authentication", "bad_signature", "wallet_user"), true},
		"another user's":      {func(b exaBegun) call { return b.loginWith(string(key.Assert([]byte("x"), origin))) }, exaRefused("no authentication", "challenge_unknown", "challenge_bound"), true},
		"nobody's":            {func(b exaBegun) call { return b.login(stranger.address, stranger.sign(b.Message)) }, exaRefused("no authentication", "challenge_unknown", "challenge_bound"), true},
		"not hexadecimal":     {func(b exaBegun) call { return b.login(w.address, "0xzz") }, exaRefused("bad authentication", "bad_request", "signature"), false},
		"no id":               {func(b exaBegun) call { return b.loginWith(`{"method":"siwe","signature":"0x00"}`) }, exaRefused("bad authentication", "bad_request", "body"), false},
		"another method":      {func(b exaBegun) call { return b.loginWith(strings.Replace(signed(b).body, "siwe", "webauthn", 1)) }, exaRefused("bad authentication", "bad_request", "id"), false},
		"one member more":     {func(b exaBegun) call { return b.loginWith(strings.Replace(signed(b).body, "{", `{"a":1,`, 1)) }, exaRefused("bad authentication", "bad_request", "body"), false},
		"no session":          {func(b exaBegun) call { return signed(b).without("Cookie") }, exaRefused("bad session", "challenge_missing", "no_session"), false},
		"two sessions":        {func(b exaBegun) call { return signed(b).with("X-Session-Id", strings.Repeat("A", len(b.id))) }, exaRefused("bad session", "challenge_missing", "sessions_differ"), false},
		"nobody's session":    {func(b exaBegun) call { b.id = strings.Repeat("A", len(b.id)); return signed(b) }, exaRefused("no authentication", "challenge_unknown", "challenge_unknown"), false},
		"garbage":             {func(b exaBegun) call { b.id = "garbage"; return signed(b) }, exaRefused("no authentication", "challenge_unknown", "challenge_malformed"), false},
		"padded":              {func(b exaBegun) call { b.id += "="; return signed(b) }, exaRefused("no authentication", "challenge_unknown", "challenge_malformed"), false},
	} {
		begun := h.exaChallenge(w.address)
		r := h.expect(name, c, test.x(begun), test.want)
		if len(r.header.Values("Set-Cookie")) != 0 {
			t.Errorf("%s: a cookie is set", name)
		}
		after := exaDone("login", 0)
		if test.takes {
			after = exaRefused("no authentication", "challenge_unknown", "challenge_spent")
		}
		h.expect(name+", then rightly", c, signed(begun), after)
	}
	// Whoever asks whether somebody is known pays with a challenge for each answer.
	begun := h.exaChallenge(stranger.address)
	h.expect("nobody's own", c, begun.login(stranger.address, stranger.sign(begun.Message)), exaRefused("no credential", "credential_unknown", "no_credential"))
	h.expect("nobody's own, again", c, begun.login(stranger.address, stranger.sign(begun.Message)), exaRefused("no authentication", "challenge_unknown", "challenge_spent"))
	// Of a passkey.
	for name, test := range map[string]struct {
		change func(b exaBegun) call
		reason string
	}{
		"another origin":    {func(b exaBegun) call { return b.passkeyLogin(h, key, evil) }, "passkey_bound"},
		"another challenge": {func(b exaBegun) call { return b.loginWith(string(key.Assert([]byte("another"), origin))) }, "passkey_bound"},
		"another key": {func(b exaBegun) call {
			x := b.passkeyLogin(h, sandbox.NewPasskey(domain), origin)
			x.body = withID(x.body, key.CredentialID())
			return x
		}, "passkey_signature"},
		"another site": {func(b exaBegun) call {
			x := b.passkeyLogin(h, sandbox.NewPasskey("evil.example"), origin)
			x.body = withID(x.body, key.CredentialID())
			return x
		}, "passkey_bound"},
	} {
		begun := h.exaChallenge(key.CredentialID())
		h.expect(name, c, test.change(begun), exaRefused("bad authentication", "bad_signature", test.reason))
		h.expect(name+", then rightly", c, begun.passkeyLogin(h, key, origin), exaRefused("no authentication", "challenge_unknown", "challenge_spent"))
	}
	for _, id := range []string{"%00", "a+b", "a%20b", strings.Repeat("a", 600), ""} {
		x := call{listener: "public", method: "GET", path: "/api/auth/authentication?credentialId=" + id}
		h.expect("begun by "+id, c, x, exaRefused("bad credential", "bad_request", "credential_id"))
	}
	// Whether somebody is known does not show when a login begins.
	known, unknown := h.exaChallenge(w.address), h.exaChallenge(stranger.address)
	if known.Method != unknown.Method || len(known.Message) != len(unknown.Message) || len(known.id) != len(unknown.id) {
		t.Error("the two look different")
	}
}

// withID puts another credential id into an assertion.
func withID(body, id string) string {
	var v map[string]any
	must(json.Unmarshal([]byte(body), &v))
	v["id"], v["rawId"] = id, id
	text, err := json.Marshal(v)
	must(err)
	return string(text)
}

// TestExaOneLogin: of fifty that present one signed challenge at once, one is logged in.
func TestExaOneLogin(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: wide, store: use})
		begun := h.exaChallenge(shared().wallet.address)
		x := begun.login(shared().wallet.address, h.secret(shared().wallet.sign(begun.Message)))
		if got := h.race(50, func(int) call { return x }); got[200] != 1 || got[400] != 49 {
			t.Errorf("answers %v", got)
		}
	})
}

// linkCall links a wallet's card with what was signed.
func (h *house) linkCall(user, message, signature string) call {
	return h.exaPatch(user, fmt.Sprintf(`{"method":"siwe","message":%q,"signature":%q}`, message, h.secret(signature)))
}

func (h *house) passkeyLink(user string, key *sandbox.Passkey, statement string) call {
	return h.exaPatch(user, fmt.Sprintf(`{"method":"webauthn","assertion":%s}`, key.Assert([]byte(statement), origin)))
}

// TestExaLink: a user signs, once, that their card is linked to their account. A wrong signature takes what was to be signed; a card
// is linked once.
func TestExaLink(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: wide, store: use})
		c, w, key, stranger := h.anybody(), shared().wallet, shared().passkey, newWallet()
		bad := func(reason string) want {
			outcome := "bad_signature"
			if strings.HasPrefix(reason, "challenge_") {
				outcome = "challenge_unknown"
			}
			return exaRefused("bad signature", outcome, reason)
		}
		h.login(w.address)
		h.login(key.CredentialID())
		message := h.exaConsent(w.address, "siwe")
		if !strings.Contains(message, "I authorize the account "+w.address+" to be linked with the card ending in "+h.cards["ic-4"].PAN[12:]+" for my user (u-1)") {
			t.Errorf("to sign: %s", message)
		}
		h.expect("another's signature", c, h.linkCall(w.address, message, stranger.sign(message)), bad("wallet_user"))
		h.expect("rightly, after that", c, h.linkCall(w.address, message, w.sign(message)), bad("challenge_spent"))
		message = h.exaConsent(w.address, "siwe")
		changed := strings.Replace(message, "(u-1)", "(u-2)", 1)
		h.expect("another text", c, h.linkCall(w.address, changed, w.sign(changed)), bad("challenge_bound"))
		begun := h.exaChallenge(w.address)
		h.expect("what was to log in", c, h.linkCall(w.address, begun.Message, w.sign(begun.Message)), bad("challenge_unknown"))
		message = h.exaConsent(w.address, "siwe")
		h.expect("by another user", c, h.linkCall(key.CredentialID(), message, w.sign(message)), bad("challenge_bound"))

		message = h.exaConsent(w.address, "siwe")
		link := h.linkCall(w.address, message, w.sign(message))
		if r := h.expect("link", c, link, exaSet("link", 0)); r.body != `{"verification":"OK"}` {
			t.Errorf("linked: %s", r.body)
		}
		h.expect("again", c, link, bad("challenge_spent"))
		message = h.exaConsent(w.address, "siwe")
		set := exaRefused("already set", "already_set", "link")
		set.rule, set.results = "link", []string{"intent", "refused link"}
		h.expect("once more", c, h.linkCall(w.address, message, w.sign(message)), set)

		user := key.CredentialID()
		h.expect("a statement that nobody asked for", c, h.passkeyLink(user, key, "I authorize"), bad("challenge_unknown"))
		statement := h.exaConsent(user, "webauthn")
		h.expect("another statement", c, h.passkeyLink(user, key, statement+"."), bad("passkey_bound"))
		h.expect("rightly, after that", c, h.passkeyLink(user, key, statement), bad("challenge_spent"))
		statement = h.exaConsent(user, "webauthn")
		h.expect("link, by a passkey", c, h.passkeyLink(user, key, statement), exaSet("link", 0))
		h.expect("again, by a passkey", c, h.passkeyLink(user, key, statement), bad("challenge_spent"))
		if h.rain.Count(sandbox.CallUpdate) != 0 {
			t.Error("the issuer was told")
		}
	})
}

// TestExaOneLink: of fifty that present one signed consent at once, by wallet or passkey, one is linked [21].
func TestExaOneLink(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: wide, store: use})
		w, key := shared().wallet, shared().passkey
		h.login(w.address)
		h.login(key.CredentialID())
		message := h.exaConsent(w.address, "siwe")
		link := h.linkCall(w.address, message, w.sign(message))
		if got := h.race(50, func(int) call { return link }); got[200] != 1 || got[400] != 49 {
			t.Errorf("by a wallet: answers %v", got)
		}
		statement := h.exaConsent(key.CredentialID(), "webauthn")
		links := make([]call, 50)
		for i := range links { // each signature is its own, over the same statement
			links[i] = h.passkeyLink(key.CredentialID(), key, statement)
		}
		if got := h.race(50, func(i int) call { return links[i] }); got[200] != 1 || got[400] != 49 {
			t.Errorf("by a passkey: answers %v", got)
		}
	})
}

// TestExaChanges: with each issuer that can, a user freezes their card and ends that; what is so already is refused.
func TestExaChanges(t *testing.T) {
	for name, b := range backs {
		if !canDo(name, []policy.Operation{policy.CardStatus, policy.CardProfile}) {
			continue
		}
		h := newHouse(t, options{routes: func(h *house) []gateway.Route { return []gateway.Route{h.exaRoute(h.issuerKind(name, nil))} }})
		h.login(b.user)
		c := h.anybody()
		already := exaRefused("already set", "already_set", "issuer_already_set")
		already.results, already.rule, already.upstream = []string{"intent", "refused issuer_already_set"}, "own-change", -1
		for _, step := range []struct {
			word string
			want want
		}{{"ACTIVE", already}, {"FROZEN", exaChanged(-1)}, {"FROZEN", already}, {"ACTIVE", exaChanged(-1)}} {
			r := h.expect(name+" "+step.word, c, h.exaPatch(b.user, `{"status":"`+step.word+`"}`), step.want)
			if r.status != 200 {
				continue
			}
			if r.body != `{"status":"`+step.word+`"}` {
				t.Errorf("%s: %s", name, r.body)
			}
			if shown := c.do(h.exaCall(b.user, "")); !strings.Contains(shown.body, `"status":"`+step.word+`"`) {
				t.Errorf("%s: %s then shows %s", name, step.word, shown.body)
			}
		}
		h.expect(name+": another word", c, h.exaPatch(b.user, `{"status":"active"}`), want{status: 400, body: `{"code":"bad request"}`, results: []string{"refused status"}, outcome: "bad_request"})
	}
}

// TestExaPIN: a PIN reaches the issuer resealed; a weak one, one that does not open, and an envelope that was seen do not.
func TestExaPIN(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	h.login(ada)
	c, s := h.anybody(), h.session()
	before := h.rain.PIN("ic-1")
	for _, pin := range []string{"1234", "0000", "9876", "7890"} {
		w := exaRefused("weak pin", "weak_pin", "weak_pin")
		w.results, w.rule = []string{"intent", "refused weak_pin"}, "own-change"
		h.expect("weak", c, h.exaPINCall(ada, s, pin), w)
	}
	other := h.exaPINCall(ada, h.session(), nextPIN)
	other.body = other.body[:strings.Index(other.body, `"sessionId"`)] + fmt.Sprintf(`"sessionId":%q}`, s.ID())
	w := exaRefused("bad session id", "bad_session", "open")
	w.results, w.rule = []string{"intent", "refused open"}, "own-change"
	h.expect("for another session", c, other, w)
	if h.rain.PIN("ic-1") != before || h.rain.Count("set pin") != 0 {
		t.Error("a PIN was set")
	}
	set := h.exaPINCall(ada, s, nextPIN)
	r := h.expect("set", c, set, exaChanged(1))
	if !strings.HasPrefix(set.body, strings.TrimSuffix(r.body, "}")) || h.rain.PIN("ic-1") != nextPIN {
		t.Errorf("set: %s", r.body)
	}
	replayed := exaRefused("bad session id", "bad_session", "envelope_replayed")
	replayed.rule = "own-change"
	h.expect("captured", c, set, replayed)
	h.expect("captured, at another face", c, func() call {
		x := pinCall(card, h.mint(), s.ID()).with("Content-Type", "application/json")
		var v struct{ Data, IV string }
		must(json.Unmarshal([]byte(set.body), &v))
		x.method, x.body = "PUT", fmt.Sprintf(`{"data":%q,"iv":%q}`, v.Data, v.IV)
		return x
	}(), want{status: 400, body: gnosis("Invalid session id"), results: []string{"refused envelope_replayed"}, rule: "pin", outcome: "bad_session", redeemed: 1})
}

// TestExaMode: the mode is kept here, for the card, on every gateway that shares the store; nothing is sent for it.
func TestExaMode(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		var s *forgetful
		h := newHouse(t, options{routes: wide, store: func(own store.Store) store.Store { s = &forgetful{Store: use(own)}; return s }})
		c, w := h.anybody(), shared().wallet
		h.login(ada)
		h.login(w.address)
		mode := func(c *caller, user string) int {
			var v struct{ Mode int }
			must(json.Unmarshal([]byte(c.do(h.exaCall(user, "")).body), &v))
			return v.Mode
		}
		already := exaRefused("already set", "already_set", "mode")
		already.rule, already.results = "own-change", []string{"intent", "refused mode"}
		h.expect("as it is from the start", c, h.exaPatch(ada, `{"mode":0}`), already)
		if r := h.expect("set", c, h.exaPatch(ada, `{"mode":3}`), exaChanged(0)); r.body != `{"mode":3}` {
			t.Errorf("set: %s", r.body)
		}
		h.expect("set again", c, h.exaPatch(ada, `{"mode":3}`), already)
		sibling := h.sibling(options{routes: wide})
		if mode(c, ada) != 3 || mode(sibling.anybody(), ada) != 3 || mode(c, w.address) != 0 {
			t.Errorf("modes %d, %d, %d", mode(c, ada), mode(sibling.anybody(), ada), mode(c, w.address))
		}
		// What somebody writes to the store is none of ours.
		s.forged.Store(true)
		if got := mode(c, ada); got != 0 {
			t.Errorf("forged: %d", got)
		}
		s.forged.Store(false)
		for _, body := range []string{`{"mode":-1}`, `{"mode":1.0}`, `{"mode":1e1}`, `{"mode":"1"}`, `{"mode":99999999999}`, `{"mode":1,"status":"ACTIVE"}`, `{"mode":1,"x":1}`, `{"mode":1,"mode":2}`, `{}`, `[]`, ``} {
			h.expect(body, c, h.exaPatch(ada, body), want{status: 400, body: `{"code":"bad request"}`, results: []string{"refused " + map[bool]string{true: "mode", false: "body"}[strings.Count(body, ":") == 1]}, outcome: "bad_request"})
		}
	})
}

// forgetful is a store in which somebody overwrote the modes.
type forgetful struct {
	store.Store
	forged atomic.Bool
}

func (f *forgetful) Get(ctx context.Context, k store.Kind, d store.Digest) ([]byte, error) {
	if k == "mode" && f.forged.Load() {
		return []byte{0, 0, 0, 0, 0, 0, 0, 9}, nil
	}
	return f.Store.Get(ctx, k, d)
}

// TestExaProvisioning: a wallet extension has its token and nothing of the app's; the app has its cookie. Nothing else provisions.
func TestExaProvisioning(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	h.login(ada)
	c, s := h.anybody(), h.session()
	token, _, err := h.exaScoped().Mint(ada, time.Hour)
	must(err)
	bearer := func(token string, header ...string) call {
		return call{listener: "public", method: "GET", path: "/api/card/provisioning", header: append([]string{"Authorization", "Bearer " + h.secret(token)}, header...)}
	}
	secret := func(r reply) string {
		var v struct{ ID, Secret string }
		must(json.Unmarshal([]byte(r.body), &v))
		if v.ID == "" || v.Secret == "" {
			t.Errorf("provisioned: %s", r.body)
		}
		return h.secret(v.Secret)
	}
	if secret(h.expect("extension", c, bearer(token), exaDone("extension", 1))) == secret(h.expect("extension, again", c, bearer(token), exaDone("extension", 1))) {
		t.Error("the one-time password came twice")
	}
	scope := h.exaCall(ada, "")
	scope.path += "?scope=provisioning"
	w := exaDone("own-card,own-change", 3)
	var v struct{ Provisioning struct{ ID, Secret string } }
	must(json.Unmarshal([]byte(h.expect("app", c, scope, w).body), &v))
	if h.secret(v.Provisioning.Secret) == "" {
		t.Error("the app got no password")
	}
	unauthorized := func(reason string) want {
		return want{status: 401, body: exa("unauthorized"), results: []string{"refused " + reason}, outcome: "unauthorized"}
	}
	cookie := h.exaCall(ada, "").header
	h.expect("with the cookie too", c, bearer(token, cookie...), unauthorized("cookie_or_session"))
	h.expect("with any cookie", c, bearer(token, "Cookie", "a=b"), unauthorized("cookie_or_session"))
	h.expect("with a session", c, bearer(token, "Sessionid", s.ID()), unauthorized("cookie_or_session"))
	x := bearer(token)
	x.header = cookie
	h.expect("with the cookie alone", c, x, unauthorized("cookie_or_session"))
	h.expect("with nothing", c, bearer(token).without("Authorization"), unauthorized("no_credential"))
	h.expect("an access token of PaymentsGate's", c, bearer(h.accountLogin(account).Access), unauthorized("jwt_unknown"))
	app := h.exaCall(ada, "")
	app.header = bearer(token).header
	h.expect("the extension's at the card", c, app, unauthorized("no_credential"))
	other, _, err := h.exaScoped().Mint("stranger", time.Hour)
	must(err)
	h.expect("of a user whom nobody knows", c, bearer(other), want{status: 403, body: exa("no panda"), results: []string{"refused no_account"}, outcome: "no_account"})
	for scope, reason := range map[string]string{"card": "bound", "card:provisioning card:reveal": "bound"} {
		broad, err := credential.NewScopedJWTs(credential.ScopedConfig{Issuer: "exa-server", Audience: "wallet-extension", Scope: scope, Environment: "test", Keys: jwts(keys.HS256)})
		must(err)
		token, _, err := broad.Mint(ada, time.Hour)
		must(err)
		h.expect("of scope "+scope, c, bearer(token), unauthorized("jwt_"+reason))
	}
}
