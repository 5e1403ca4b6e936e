package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/elements"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// This file holds what a review of the whole found open to staying shut.

// scopedKeys adds API keys of partner gp-demo with these scopes, by name, and puts them in force.
func (h *house) scopedKeys(scopes map[string][]string) {
	h.t.Helper()
	for name, scope := range scopes {
		_, secret, err := credential.Add(h.keyFile, credential.NewAPIKey{Partner: partnerID, Environment: "test", Scope: scope, Now: time.Now()})
		must(err)
		h.apiKeys[name] = h.secret(secret)
	}
	h.reload()
}

// TestScopesAreClosed: a key that has a scope is good for what is in it, at every face: it is refused at a call that names another
// one, and there nothing is minted, sent or used up. A key without one is good for all, and a Bearer has what its key has [23].
func TestScopesAreClosed(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c := h.anybody()
	h.scopedKeys(map[string][]string{
		"cards": {"card-accounts"}, "both": {"payments", "hosted-fields"}, "all": {"card-accounts", "hosted-fields", "payments"},
		"longer": {"card-accounts-read", "payments2", "hosted-fieldsx"}, "none of ours": {"card:provisioning", "forward"},
	})
	keys := map[string]string{"first": "card-accounts hosted-fields payments", "longer": "", "none of ours": ""}
	for _, name := range []string{"cards", "both", "all", "pages", "payments"} {
		keys[name] = map[string]string{
			"cards": "card-accounts", "both": "payments hosted-fields", "all": "card-accounts hosted-fields payments", "pages": "hosted-fields", "payments": "payments",
		}[name]
	}
	may := func(name, scope string) bool { return slices.Contains(strings.Fields(keys[name]), scope) }

	forbidden := want{status: 403, body: bridgeForbidden, results: []string{"refused scope"}, outcome: "forbidden"}
	for name := range keys {
		for what, x := range map[string]call{
			"profile":  h.bridgeCall(name, "GET", "cus-rain", "ca-rain", "", ""),
			"mint":     h.bridgeCall(name, "POST", "cus-rain", "ca-rain", "/ephemeral_keys", fmt.Sprintf(`{"client_nonce":%q}`, h.proof().nonce())),
			"freeze":   h.bridgeCall(name, "POST", "cus-rain", "ca-rain", "/freeze", `{"initiator":"customer"}`),
			"unfreeze": h.bridgeCall(name, "POST", "cus-rain", "ca-rain", "/unfreeze", `{"initiator":"customer"}`),
		} {
			if !may(name, "card-accounts") {
				h.expect(name+": "+what, c, x, forbidden)
				continue
			}
			r := c.do(x)
			if r.status != 200 && !strings.HasSuffix(what, "freeze") || r.status == 401 || r.status == 403 || r.status == 404 {
				t.Errorf("%s: %s: %d %s", name, what, r.status, r.body)
			}
		}
	}

	held := h.held()
	forbiddenAt := func(resource string) want {
		w := forbidden
		w.body = payrocForbidden(resource)
		return w
	}
	for name := range keys {
		// What the key becomes has its scope, and says so.
		r := h.expect(name+": authorize", c, authorizeCall(h.apiKeys[name]), pagesDo("authorize"))
		said := map[string]string{"first": "", "longer": "card-accounts-read payments2 hosted-fieldsx", "none of ours": "card:provisioning forward"}
		scope, ok := said[name]
		if !ok {
			scope = keys[name]
		}
		if !strings.Contains(r.body, fmt.Sprintf(`"scope":%q`, scope)) {
			t.Errorf("%s: authorized as %s", name, r.body[strings.Index(r.body, `"expires_in"`):])
		}
		bearer := h.bearer(name)
		session, lookup := sessionCall(bearer, terminal), call{listener: "public", method: "GET", path: "/v1/payments/none", header: []string{"Authorization", "Bearer " + bearer}}
		if may(name, "hosted-fields") {
			created := pagesDo("page")
			created.status = 201
			h.expect(name+": session", c, session, created)
		} else {
			h.expect(name+": session", c, session, forbiddenAt("processing-terminals"))
		}
		if may(name, "payments") {
			if r := c.do(lookup); r.status != 404 {
				t.Errorf("%s: look-up: %d %s", name, r.status, r.body)
			}
		} else {
			h.expect(name+": look-up", c, lookup, forbiddenAt("payments"))
			h.expect(name+": payment", c, payCall(bearer, held), forbiddenAt("payments"))
		}
	}
	h.expect("afterwards, by who may", c, payCall(h.bearer("both"), held), paid())
	if err := h.took(1); err != nil {
		t.Error(err)
	}
}

// unscoped is a face whose calls name no scope.
type unscoped struct{ face.Face }

// Endpoints implements face.Face.
func (u unscoped) Endpoints() []face.Endpoint {
	all := slices.Clone(u.Face.Endpoints())
	for i := range all {
		if parse := all[i].Parse; parse != nil {
			all[i].Parse = func(r *exchange.Request) (*exchange.Call, error) {
				c, err := parse(r)
				if c != nil {
					c.Scope = ""
				}
				return c, err
			}
		}
	}
	return all
}

// TestScopesAreClosedWhereNoneIsNamed: a call that names no scope is in none: it fails closed for every key and Bearer that has one.
func TestScopesAreClosedWhereNoneIsNamed(t *testing.T) {
	h := newHouse(t, options{routes: func(h *house) []gateway.Route {
		routes := []gateway.Route{h.bridgeRoute(h.issuerOf("rain", nil)), h.payrocRoute(h.issuerKind("payroc", nil))}
		for i := range routes {
			routes[i].Face = unscoped{routes[i].Face}
		}
		return routes
	}})
	c := h.anybody()
	h.scopedKeys(map[string][]string{"all": {"card-accounts", "hosted-fields", "payments"}})
	forbidden := want{status: 403, results: []string{"refused scope"}, outcome: "forbidden"}
	h.expect("profile", c, h.profileCall("all"), forbidden)
	h.expect("session", c, sessionCall(h.bearer("all"), terminal), forbidden)
	token := h.held()
	h.expect("payment", c, payCall(h.bearer("all"), token), forbidden)
	h.expect("profile, by a key without", c, h.profileCall("first"), want{status: 200, results: []string{"done"}, rule: "key", outcome: "done", upstream: -1})
	h.expect("payment, by a key without", c, payCall(h.bearer("first"), token), paid())
}

// timing is a store that notes for how long it is to keep what.
type timing struct {
	store.Store
	mu    sync.Mutex
	begun [][2]time.Duration // keep and tombstone of calls with an idempotency key; guarded by mu
	cards []time.Duration    // of tokens that stand for a card; guarded by mu
}

func (s *timing) Begin(ctx context.Context, k store.Kind, scope, body store.Digest, a store.Attempt, lease, keep, tombstone time.Duration) (store.Begun, error) {
	if k == "idempotent" {
		s.mu.Lock()
		s.begun = append(s.begun, [2]time.Duration{keep, tombstone})
		s.mu.Unlock()
	}
	return s.Store.Begin(ctx, k, scope, body, a, lease, keep, tombstone)
}

func (s *timing) Mint(ctx context.Context, k store.Kind, d store.Digest, v []byte, ttl time.Duration) error {
	if k == store.KindCard {
		s.mu.Lock()
		s.cards = append(s.cards, ttl)
		s.mu.Unlock()
	}
	return s.Store.Mint(ctx, k, d, v, ttl)
}

// TestPagesKeepNothingLonger: what is kept for a page's keys is kept as long as its session at the most, without a tombstone; what
// is kept for a backend's, a day and a week. A card's token ends half an hour after the session began.
func TestPagesKeepNothingLonger(t *testing.T) {
	s := &timing{}
	h := newHouse(t, options{routes: only(nil), store: func(own store.Store) store.Store { s.Store = own; return s }})
	backend, page := [2]time.Duration{24 * time.Hour, 7 * 24 * time.Hour}, [2]time.Duration{10 * time.Minute, 0}
	h.skew.Store(-int64(8 * time.Minute))
	p := h.page()
	h.skew.Store(0)
	token := h.tokenOf(h.anybody().do(p.fill().mint()))
	h.anybody().do(payCall(h.bearer("first"), token))
	if want := [][2]time.Duration{backend, page, page, page, page, page, backend}; !slices.Equal(s.begun, want) {
		t.Errorf("kept for %v, want %v", s.begun, want)
	}
	if len(s.cards) != 1 || s.cards[0] > 22*time.Minute || s.cards[0] < 21*time.Minute {
		t.Errorf("a token eight minutes after the session's beginning is kept for %v", s.cards)
	}
	p = h.page().fill() // at once
	h.anybody().do(p.mint())
	if len(s.cards) != 2 || s.cards[1] > 30*time.Minute || s.cards[1] < 29*time.Minute {
		t.Errorf("tokens are kept for %v", s.cards)
	}
	h.skew.Store(int64(5 * time.Minute)) // a clock that runs ahead where sessions begin prolongs nothing
	p = h.page().fill()
	h.anybody().do(p.mint())
	if len(s.cards) != 3 || s.cards[2] > 30*time.Minute {
		t.Errorf("tokens are kept for %v", s.cards)
	}
}

// TestExpiredCardsLeaveNothing: a token of a card that nobody paid with is gone from Redis with its time, ciphertext and all; so is
// one that was paid with, but for the mark that it was.
func TestExpiredCardsLeaveNothing(t *testing.T) {
	server, fast := testredis.Start(t), &hasty{}
	h := newHouse(t, options{routes: only(nil), store: func(own store.Store) store.Store {
		must(own.Close())
		r, err := store.NewRedis(store.RedisConfig{Addresses: []string{server.Addr}, Timeout: 10 * time.Second})
		must(err)
		fast.Store = r
		return fast
	}})
	before := len(server.Dump())
	kept := func() (cards, bytes int) {
		for key, value := range server.Dump() {
			if strings.Contains(key, ":card:") {
				cards, bytes = cards+1, bytes+len(value)
			}
		}
		return cards, bytes
	}
	fast.life.Store(int64(200 * time.Millisecond))
	token := h.held()
	if len(server.Dump()) <= before {
		t.Fatal("nothing was kept: the test looks at nothing")
	}
	eventually(t, "it is gone", func() bool { cards, _ := kept(); return cards == 0 })
	h.expect("afterwards", h.anybody(), payCall(h.bearer("first"), token), notPaid("unknown"))
	fast.life.Store(0)
	token = h.held()
	cards, whole := kept()
	h.expect("another", h.anybody(), payCall(h.bearer("first"), token), paid())
	left, bytes := kept()
	if cards != 1 || left != 1 || bytes >= whole {
		t.Errorf("%d entries of %d bytes, then %d of %d", cards, whole, left, bytes)
	}
}

// TestLimitsKeepNothing: what is beyond the limit of a page or a user leaves nothing in the store.
func TestLimitsKeepNothing(t *testing.T) {
	k := &keeping{}
	kept := func() (n int) {
		k.mu.Lock()
		defer k.mu.Unlock()
		for kind, all := range k.values {
			if kind != "limit" {
				n += len(all)
			}
		}
		return n
	}
	use := func(own store.Store) store.Store { k.Store = own; return k }
	h := newHouse(t, options{routes: only(nil), store: use, config: func(_ *house, c *gateway.Config) { c.Limits.Page = perHour(4) }})
	c, p, q := h.anybody(), h.page(), h.page()
	p.fill()
	before := kept()
	for what, x := range map[string]call{
		"configuration": p.configuration(), "a name": p.fields()[0], "a number": p.fields()[1], "a code": p.fields()[2], "an expiry": p.fields()[3], "a mint": p.mint(),
	} {
		h.expect(what, c, x, limitedWant("", "page"))
		if got := kept(); got != before {
			t.Errorf("%s: %d entries were made", what, got-before)
		}
	}
	q.fill()
	if got := kept(); got == before {
		t.Error("another page's submissions are not kept: the test looks at nothing")
	}

	k = &keeping{}
	h = newHouse(t, options{routes: userRoutes, store: use, config: func(_ *house, c *gateway.Config) { c.Limits.User = perHour(1) }})
	c = h.anybody()
	jwt, up := h.userJWT(shared().wallet.address), h.upload(h.cards["brought"].PAN)
	h.typedOf(c.do(challengeCall("wallet-card", "view-details", jwt)))
	if kept() == 0 {
		t.Error("a challenge is not kept: the test looks at nothing")
	}
	before = kept()
	for rule, x := range map[string]call{"sign": challengeCall("wallet-card", "view-details", jwt), "bring": verifyCall(jwt, up)} {
		over := limitedWant(gnosis("Too many requests"), "user")
		over.rule = rule
		h.expect(rule, c, x, over)
		if got := kept(); got != before {
			t.Errorf("%s: %d entries were made", rule, got-before)
		}
	}
	h.expect("the same card, by another user", c, verifyCall(h.userJWT(ada), up), broughtWant())
	h.expect("their challenge", c, challengeCall(card, "view-details", h.userJWT(ada)), func() want {
		over := limitedWant(gnosis("Too many requests"), "user")
		over.rule = "sign"
		return over
	}())
}

// adminAs asks the operators' listener at an address by a name, to the byte, and is answered in HTTP/1.1.
func (h *house) adminAs(address, host string, header ...string) reply {
	h.t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	must(err)
	defer conn.Close()
	must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n", host, strings.Join(header, ""))
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(err)
	return reply{answer.StatusCode, answer.Header, string(body), answer.Proto}
}

const misdirected = `{"status":"misdirected"}` + "\n"

// TestAdminAnswersLocalNames: on loopback the operators' listener answers names of this machine alone: a page whose name was made to
// stand for it, after it was loaded from elsewhere, reads nothing (DNS rebinding), not even whether there is a bearer.
func TestAdminAnswersLocalNames(t *testing.T) {
	const bearer = "bearer-of-the-operators-listener"
	h := newHouse(t, options{})
	at := h.gateway.Addr("admin").String()
	_, port, err := net.SplitHostPort(at)
	must(err)
	local := []string{"localhost", "LocalHost", "127.0.0.1", "127.1.2.3", "[::1]", "[0:0:0:0:0:0:0:1]"}
	foreign := []string{
		"", "evil.example", "localhost.evil.example", "evil.localhost", "127.0.0.1.evil.example", "0.0.0.0", "10.0.0.1", "192.0.2.7", "[::]", "[2001:db8::1]", "2130706433", "127.1", "localhost.", "1ocalhost",
	}
	for _, step := range []string{"without a bearer", "with a bearer"} {
		for _, name := range local {
			for _, host := range []string{name, name + ":" + port, name + ":1"} {
				want := map[string]int{"without a bearer": 200, "with a bearer": 401}[step]
				if r := h.adminAs(at, host); r.status != want {
					t.Errorf("%s: %s: %d %s", step, host, r.status, r.body)
				}
				if r := h.adminAs(at, host, "Authorization: Bearer "+bearer+"\r\n"); r.status != 200 {
					t.Errorf("%s: %s, shown: %d %s", step, host, r.status, r.body)
				}
			}
		}
		for _, name := range foreign {
			for _, host := range []string{name, name + ":" + port} {
				for _, header := range []string{"", "Authorization: Bearer " + bearer + "\r\n", "X-Forwarded-Host: localhost\r\n", "Origin: http://localhost\r\n"} {
					r := h.adminAs(at, host, header)
					if r.status != 421 || r.body != misdirected || r.header.Get("WWW-Authenticate") != "" || r.header.Get("Access-Control-Allow-Origin") != "" {
						t.Errorf("%s: %q with %q: %d %s", step, host, header, r.status, r.body)
					}
				}
			}
		}
		h.o.config = func(_ *house, c *gateway.Config) { c.Admin.Bearer = h.secret(bearer) }
		h.reload()
	}
}

// TestPagesOfOurOwnOrigin: each page says whether one of its own origin may embed it, once, and none may that was not told so.
func TestPagesOfOurOwnOrigin(t *testing.T) {
	for _, same := range []bool{false, true} {
		cards, err := elements.CardPage(&elements.App{ID: app, Origins: []string{origin}, SameOrigin: same})
		must(err)
		fields, err := elements.NewFields(elements.Fields{Origins: []string{origin}, SameOrigin: same})
		must(err)
		pages := map[string]elements.Page{"card": cards}
		for _, field := range []string{"cardholderName", "cardNumber", "expiryDate", "cvv", "submit"} {
			pages[field], err = fields.Page(map[string][]string{"field": {field}, "hostedFieldsSessionId": {"s"}, "targetOrigin": {origin}, "isCvvMandatory": {"true"}})
			must(err)
		}
		for name, p := range pages {
			meta := fmt.Sprintf(`<meta name="cardstile-same-origin" content="%t">`, same)
			if text := string(p.HTML); strings.Count(text, meta) != 1 || strings.Count(text, "cardstile-same-origin") != 1 {
				t.Errorf("%s, %t:\n%s", name, same, text)
			}
		}
	}
	h := newHouse(t, options{routes: pagesToo})
	for _, path := range []string{"/?appId=" + app, "/merchant/hosted-fields?field=cvv&hostedFieldsSessionId=s&isCvvMandatory=true&targetOrigin=" + origin} {
		if r := h.anybody().do(get(path)); r.status != 200 || !strings.Contains(r.body, `<meta name="cardstile-same-origin" content="false">`) {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
}
