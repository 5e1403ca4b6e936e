package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
)

// hold has an issuer hang on reveals of ada's card, begins n of them, and returns when all wait there. What it returns
// lets them go and waits until they have ended.
func (h *house) hold(n int, next func() call) (release func()) {
	h.t.Helper()
	h.rain.SetFault("ic-1", sandbox.FaultHang.On(sandbox.CallSecrets))
	before := h.rain.Total()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range n {
		x, c := next(), h.anybody()
		all.Go(func() {
			r, err := http.NewRequestWithContext(ctx, x.method, "https://"+h.gateway.Addr(x.listener).String()+x.path, nil)
			must(err)
			r.Host = "localhost"
			for i := 0; i+1 < len(x.header); i += 2 {
				r.Header.Add(x.header[i], x.header[i+1])
			}
			if answer, err := c.c.Do(r); err == nil {
				answer.Body.Close()
				h.t.Errorf("answered %d", answer.StatusCode)
			}
		})
	}
	eventually(h.t, "the issuer is asked", func() bool { return h.rain.Total() == before+2*n })
	ended := h.metric("cardstile_exchanges_total", "outcome", "unavailable") // later shed ones are counted by whoever sheds them
	shed := h.metric("cardstile_shed_total")
	return func() {
		cancel()
		all.Wait()
		h.rain.SetFault("ic-1", sandbox.Fault{})
		eventually(h.t, "the places are given back", func() bool { return h.metric("cardstile_in_flight") == 0 })
		eventually(h.t, "their ends are recorded", func() bool {
			return h.metric("cardstile_exchanges_total", "outcome", "unavailable")-ended == float64(n)+h.metric("cardstile_shed_total")-shed
		})
	}
}

func shedWant(limit string) want {
	return want{status: 503, body: gnosis("Service unavailable"), retryAfter: true, results: []string{"failed shed_" + limit}, outcome: "unavailable", shed: limit}
}

func revealed() want {
	return want{status: 200, results: []string{"done"}, rule: "reveal", outcome: "done", upstream: 2, redeemed: 1}
}

// TestConcurrencyLimits: beyond each limit an exchange is shed with 503, and its token is good afterwards [18].
func TestConcurrencyLimits(t *testing.T) {
	for limit, change := range map[string]func(*gateway.Limits){
		"global":  func(l *gateway.Limits) { l.Concurrent = 2 },
		"issuer":  func(l *gateway.Limits) { l.ConcurrentPerIssuer = 2 },
		"partner": func(l *gateway.Limits) { l.ConcurrentPerPartner = 2 },
	} {
		h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { change(&c.Limits) }})
		c, s := h.anybody(), h.session()
		token, second := h.mint(), h.mint()
		release := h.hold(2, func() call { return detailsCall(card, h.mint(), s.ID()) })
		if got := h.metric("cardstile_in_flight", "limit", limit); got != 2 {
			t.Errorf("%s: %v in flight", limit, got)
		}
		h.expect(limit, c, detailsCall(card, token, s.ID()), shedWant(limit))
		h.expect(limit+", PIN", c, h.setPINCall(card, second, s, "9153"), shedWant(limit))
		switch limit {
		case "issuer": // the others go on
			h.expect("mint", h.partner(), mintCall(""), want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"})
		case "partner":
			x := mintCall("")
			h.expect("mint", h.partner(), x, shedWant(limit))
			other := shared().partners.client(otherName)
			h.expect("another partner's", c, detailsCall(otherCard, h.mintBody(h.callerWith(&other, true, nil), ""), s.ID()), revealed())
		default:
			h.expect("mint", h.partner(), mintCall(""), shedWant(limit))
		}
		release()
		h.expect(limit+", afterwards", c, detailsCall(card, token, s.ID()), revealed())
		if r := c.do(h.setPINCall(card, second, s, "9153")); r.status != 200 {
			t.Errorf("%s: the PIN afterwards: %d", limit, r.status)
		}
	}
}

// TestHungIssuerStopsNobodyElse: one that holds all its places leaves those of another issuer alone [18].
func TestHungIssuerStopsNobodyElse(t *testing.T) {
	h := newHouse(t, options{routes: func(h *house) []gatewayRoute {
		routes := h.routes(h.issuerOf("slow", func(c *gateway.IssuerConfig) { c.Concurrent = 3 }))
		exa := h.routes(h.issuerOf("rain", nil))[2]
		routes[2] = exa
		return routes
	}})
	h.login(ada)
	s := h.session()
	release := h.hold(3, func() call { return detailsCall("slow-card", h.mint(), s.ID()) })
	h.expect("the hung one", h.anybody(), detailsCall("slow-card", h.mint(), s.ID()), shedWant("issuer"))
	h.expect("the other", h.anybody(), h.exaCall(ada, ""), want{status: 200, results: []string{"done"}, rule: "own-card", outcome: "done", upstream: 2})
	release()
}

// TestRSAQueue: where the queue for the one expensive operation is full, an exchange is shed before its token is spent.
func TestRSAQueue(t *testing.T) {
	h := newHouse(t, options{vault: vault.Config{MaxRSA: 1, QueuePerSlot: 2}})
	h.login(ada)
	c, s := h.anybody(), h.session()
	token := h.mint()
	var taken []*vault.Slot
	for range 2 {
		slot, err := h.services.Vault.Reserve()
		must(err)
		taken = append(taken, slot)
	}
	h.expect("full", c, detailsCall(card, token, s.ID()), shedWant("rsa"))
	h.expect("full, exa", c, h.exaCall(ada, s.ID()), want{
		status: 503, body: exa("unexpected error"), retryAfter: true, results: []string{"failed shed_rsa"}, outcome: "unavailable", shed: "rsa",
	})
	h.expect("no session, no operation", c, h.exaCall(ada, ""), want{status: 200, results: []string{"done"}, rule: "own-card", outcome: "done", upstream: 2})
	taken[0].Release()
	// A place is enough, and given back by whoever is refused with it.
	h.expect("refused with a place", c, detailsCall(card, "garbage", s.ID()),
		want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_malformed"}, outcome: "unauthorized", refused: "malformed"})
	h.expect("one place", c, detailsCall(card, token, s.ID()), revealed())
	taken[1].Release()
	if got := h.metric("cardstile_vault_rsa_queue"); got != 0 {
		t.Errorf("%v places are taken", got)
	}
}

// TestRateLimits: per partner and per card, counted for what was permitted.
func TestRateLimits(t *testing.T) {
	limited := func(name, rule string, redeemed int) want {
		return want{status: 429, body: gnosis("Too many requests"), retryAfter: true, results: []string{"refused limit_" + name}, outcome: "limited", redeemed: redeemed, rule: rule}
	}
	hour := policy.Rate{Count: 2, Per: time.Hour}
	minted := want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"}

	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Limits.Partner = hour }})
	partner := h.partner()
	h.expect("one", partner, mintCall(""), minted)
	h.expect("refused ones are not counted", partner, mintCall("{"), want{status: 400, results: []string{"refused body"}, outcome: "bad_request"})
	h.expect("two", partner, mintCall(""), minted)
	r := h.expect("three", partner, mintCall(""), limited("partner", "mint", 0))
	if after := r.header.Get("Retry-After"); after != "1800" {
		t.Errorf("to come again after %s s", after)
	}
	other := shared().partners.client(otherName)
	h.expect("another partner", h.callerWith(&other, true, nil), mintCall(""), minted)
	if h.metric("cardstile_limited_total", "limit", "partner") != 1 {
		t.Error("not counted")
	}

	h = newHouse(t, options{partners: demoPartners(func(p *policy.Partner) { p.Rate = policy.Rate{Count: 1, Per: time.Hour} })})
	h.expect("its own rate", h.partner(), mintCall(""), minted)
	h.expect("its own rate", h.partner(), mintCall(""), limited("partner", "mint", 0))

	h = newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Limits.Card = hour }})
	c, s := h.anybody(), h.session()
	h.expect("bound mints are no use of the card", h.partner(), mintCall(bound(policy.CardReveal, card)), minted)
	h.expect("one", c, detailsCall(card, h.mint(), s.ID()), revealed())
	h.expect("not permitted", c, detailsCall(otherCard, h.mint(), s.ID()),
		want{status: 404, results: []string{"refused denied_not_holder"}, outcome: "not_found", redeemed: 1})
	if r := c.do(pinCall(card, h.mint(), s.ID())); r.status != 200 {
		t.Errorf("two: %d", r.status)
	}
	h.expect("three", c, detailsCall(card, h.mint(), s.ID()), limited("card", "reveal", 1))
	h.expect("another card", c, detailsCall(bareCard, h.mint(), s.ID()), revealed())
}

// TestFailedOpens: who keeps sending sessions that do not open is stopped, before they cost an RSA operation [18].
func TestFailedOpens(t *testing.T) {
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Limits.FailedOpens = policy.Rate{Count: 2, Per: time.Hour} }})
	h.login(ada)
	c, s := h.anybody(), h.session()
	bad := want{status: 400, body: gnosis("Invalid session id"), results: []string{"refused open"}, outcome: "bad_session", redeemed: 1, rule: "reveal"}
	limited := want{status: 429, body: gnosis("Too many requests"), retryAfter: true, results: []string{"refused limit_failed_opens"}, outcome: "limited", redeemed: 1, rule: "reveal"}
	h.expect("one", c, detailsCall(card, h.mint(), preamble(256)), bad)
	h.expect("two", c, detailsCall(card, h.mint(), preamble(256)), bad)
	h.expect("three", c, detailsCall(card, h.mint(), preamble(256)), limited)
	opens := h.metric("cardstile_vault_rsa_duration_seconds")
	h.expect("four", c, detailsCall(card, h.mint(), preamble(256)), limited)
	h.expect("even a good one", c, detailsCall(card, h.mint(), s.ID()), limited)
	if h.metric("cardstile_vault_rsa_duration_seconds") != opens || h.metric("cardstile_limited_total", "limit", "failed_opens") != 3 {
		t.Error("an RSA operation was spent on it")
	}
	// Others are not stopped by it: not the partner's other cardholders, nor its user in another face, nor another partner.
	h.expect("another card", c, detailsCall(bareCard, h.mint(), s.ID()), revealed())
	if r := c.do(h.exaCall(ada, s.ID())); r.status != 200 {
		t.Errorf("a user: %d", r.status)
	}
	other := shared().partners.client(otherName)
	h.expect("another partner", c, detailsCall(otherCard, h.mintBody(h.callerWith(&other, true, nil), ""), s.ID()), revealed())
}

// TestUnproven: an address that proves nothing is turned away, and costs no record: the disk of the audit log is not the
// strangers' to fill. What has proven something counts nothing.
func TestUnproven(t *testing.T) {
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Limits.Unproven = policy.Rate{Count: 3, Per: time.Hour} }})
	c, s := h.anybody(), h.session()
	for range 5 {
		h.expect("proven", c, detailsCall(card, h.mint(), s.ID()), revealed())
	}
	spent := h.mint()
	h.expect("spends", c, detailsCall(card, spent, s.ID()), revealed())
	again := want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_spent"}, outcome: "unauthorized", refused: "spent"}
	for range 3 {
		h.expect("unproven", c, detailsCall(card, spent, s.ID()), again)
	}
	for _, token := range []string{spent, h.mint()} {
		h.expect("turned away", c, detailsCall(card, token, s.ID()),
			want{status: 429, body: gnosis("Too many requests"), retryAfter: true, outcome: "limited"})
	}
	large := h.setPINCall(card, spent, s, "9153")
	large.body = strings.Repeat("x", 1<<20)
	h.expect("turned away, with a body that nobody reads", c, large,
		want{status: 429, body: gnosis("Too many requests"), retryAfter: true, outcome: "limited"})
	if h.metric("cardstile_limited_total", "limit", "unproven") != 3 {
		t.Error("not counted")
	}
}

// TestAnonymous: whoever shows no credential where a policy wants none is counted by address, on all instances, and is nobody's: what
// they do is no use of the partner's rate, whose customers they may not be.
func TestAnonymous(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		limits := func(_ *house, c *gateway.Config) { c.Limits.Anonymous, c.Limits.Partner = perHour(2), perHour(3) }
		h := newHouse(t, options{routes: wide, store: use, config: limits})
		c := h.anybody()
		begin := call{listener: "public", method: "GET", path: "/api/auth/authentication"}
		h.expect("one", c, begin, exaDone("begin", 0))
		h.expect("two", c, begin, exaDone("begin", 0))
		r := h.expect("three", c, begin, limitedWant(exa("too many requests"), "anonymous"))
		if r.header.Get("X-RateLimit-Limit") != "" {
			t.Error("a stranger is told of a limit that all of its network share")
		}
		sibling := h.sibling(options{routes: wide, config: limits}).adopt(h)
		sibling.expect("at another gateway", sibling.anybody(), begin, limitedWant(exa("too many requests"), "anonymous"))
		if h.metric("cardstile_limited_total", "limit", "anonymous") != 1 {
			t.Error("not counted")
		}
		for range 3 {
			if r := h.partner().do(mintCall("")); r.status != 200 {
				t.Errorf("the partner: %d", r.status)
			}
		}
	})
	h := newHouse(t, options{routes: wide, partners: demoPartners(func(p *policy.Partner) { p.Disabled = true })})
	h.expect("of a partner that is switched off", h.anybody(), call{listener: "public", method: "GET", path: "/api/auth/authentication"},
		want{status: 403, results: []string{"refused denied_disabled"}, outcome: "forbidden"})
}

// TestLoginRate: each account and user logs in so often, since what is kept of it stays for weeks.
func TestLoginRate(t *testing.T) {
	h := newHouse(t, options{routes: wide, config: func(_ *house, c *gateway.Config) { c.Limits.Login = perHour(1) }})
	c := h.anybody()
	h.accountLogin(account)
	w := limitedWant(payError(429, "TOO_MANY_REQUESTS", "Too many requests"), "login")
	w.rule = "account"
	minted := h.metric("cardstile_credentials_minted_total")
	h.expect("again", c, h.signed(loginCall(account)), w)
	if h.metric("cardstile_credentials_minted_total") != minted {
		t.Error("something was minted")
	}
	h.accountLogin(weak)
	h.login(shared().wallet.address)
}

// TestPINLimits: viewing and setting a PIN have limits of their own [14].
func TestPINLimits(t *testing.T) {
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) {
		c.Limits.PINReveal, c.Limits.PINSet = policy.Rate{Count: 1, Per: time.Hour}, policy.Rate{Count: 1, Per: time.Hour}
	}})
	c, s := h.anybody(), h.session()
	if r := c.do(pinCall(card, h.mint(), s.ID())); r.status != 200 {
		t.Errorf("view: %d", r.status)
	}
	limited := func(name string) want {
		return want{status: 429, body: gnosis("Too many requests"), retryAfter: true, results: []string{"refused limit_" + name}, rule: "pin", outcome: "limited", redeemed: 1}
	}
	h.expect("viewed again", c, pinCall(card, h.mint(), s.ID()), limited("pin_reveal"))
	if r := c.do(h.setPINCall(card, h.mint(), s, "9153")); r.status != 200 {
		t.Errorf("set: %d", r.status)
	}
	h.expect("set again", c, h.setPINCall(card, h.mint(), s, "7359"), limited("pin_set"))
	h.expect("the card itself", c, detailsCall(card, h.mint(), s.ID()), revealed())
}

// TestBlindPIN: a PIN that the client sealed for the issuer passes unread [14].
func TestBlindPIN(t *testing.T) {
	h := newHouse(t, options{vault: vault.Config{MaxRSA: 1, QueuePerSlot: 1}, routes: func(h *house) []gatewayRoute {
		is := h.issuerOf("rain", nil)
		routes := h.routes(is)
		for i := range routes[:2] {
			routes[i].PIN = face.PINBlind
			routes[i].Face = newFace("gnosispay", face.Config{SessionKeys: shared().clients, PINKeys: is.SessionKey, PIN: face.PINBlind})
		}
		return routes
	}})
	c := h.anybody()
	toIssuer, err := sandbox.NewSession(&shared().issuer.PublicKey)
	must(err)
	opens := h.metric("cardstile_vault_rsa_duration_seconds")
	// What is not opened needs no place in the queue for that, which an issuer that hangs would keep.
	slot, err := h.services.Vault.Reserve()
	must(err)
	h.expect("set", c, h.setPINCall(card, h.mint(), toIssuer, "9153"),
		want{status: 200, results: []string{"intent", "done"}, rule: "pin", outcome: "done", redeemed: 1, upstream: 1})
	h.expect("weak, as the issuer finds", c, h.setPINCall(card, h.mint(), toIssuer, "1234"),
		want{status: 422, body: gnosis("PIN is too weak"), results: []string{"intent", "refused weak_pin_issuer"}, rule: "pin", outcome: "weak_pin", redeemed: 1, upstream: 1})
	r := h.expect("reveal", c, pinCall(card, h.mint(), toIssuer.ID()), want{status: 200, results: []string{"done"}, rule: "pin", outcome: "done", redeemed: 1, upstream: 1})
	if !strings.Contains(r.body, `"encryptedPin":{"data":"`) || h.rain.PIN("ic-1") != "9153" {
		t.Errorf("%s", r.body)
	}
	slot.Release()
	for _, rec := range h.records() {
		if rec.Software {
			t.Error("recorded as handled in software")
		}
	}
	if h.metric("cardstile_vault_rsa_duration_seconds") != opens {
		t.Error("the vault opened it")
	}
	for _, seen := range h.rain.Requests() {
		if seen.Header.Get("Sessionid") != toIssuer.ID() {
			t.Error("the session was not passed as it is")
		}
	}
	h.expect("details are sealed for us as ever", c, detailsCall(card, h.mint(), h.session().ID()), revealed())
}

// TestReload: what cannot be used changes nothing; what can is in force at once, and no request is lost meanwhile.
func TestReload(t *testing.T) {
	h := newHouse(t, options{})
	partner := h.partner()
	h.mintBody(partner, "")
	expiry := h.metric("cardstile_certificate_expiry_timestamp_seconds")
	if h.metric("cardstile_certificate_expiry_timestamp_seconds", "kind", "client_ca") != 0 {
		t.Error("authorities end that nobody told the end of")
	}
	for name, spoil := range map[string]func(*gateway.Config){
		"unknown listener": func(c *gateway.Config) { c.Routes[2].Listener = "nowhere" },
		"new listener":     func(c *gateway.Config) { c.Listeners = append(c.Listeners, gateway.Listener{Name: "third"}) },
		"no issuer":        func(c *gateway.Config) { c.Routes[1].Issuer = nil },
		"unknown partner":  func(c *gateway.Config) { c.Routes[2].Partner = "gone" },
		"path twice":       func(c *gateway.Config) { c.Routes = append(c.Routes, c.Routes[2]) },
		"nothing served":   func(c *gateway.Config) { c.Routes[1].Operations = []policy.Operation{policy.TokenMint} },
	} {
		c := h.newConfig()
		// Were it in force, nobody would get in any more.
		c.Limits.Concurrent, c.Limits.ConcurrentPerIssuer, c.Limits.ConcurrentPerPartner = -1, -1, -1
		c.Listeners[0].Certificate = shared().servers.server()
		spoil(&c)
		failed, at := h.metric("cardstile_config_reloads_total", "result", "failed"), h.metric("cardstile_config_last_reload_success_timestamp_seconds")
		if err := h.gateway.Reload(c); err == nil {
			t.Errorf("%s: taken", name)
		}
		if err := gateway.Check(c); (err == nil) != (name == "new listener") {
			t.Errorf("%s: check says %v", name, err)
		}
		if h.metric("cardstile_config_reloads_total", "result", "failed") != failed+1 || h.metric("cardstile_config_last_reload_success_timestamp_seconds") != at {
			t.Errorf("%s: not counted", name)
		}
		h.expect(name, partner, mintCall(""), want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"})
	}
	if h.metric("cardstile_certificate_expiry_timestamp_seconds") != expiry {
		t.Error("the expiry of certificates that are not in force is shown")
	}
	h.o.policies = `@id("renamed") permit (principal, action == Action::"token.mint", resource);`
	renamed := h.newConfig()
	renamed.Listeners[0].ClientCAsEnd = time.Unix(2e9, 0)
	must(h.gateway.Reload(renamed))
	if h.metric("cardstile_certificate_expiry_timestamp_seconds", "listener", "partners", "kind", "client_ca") != 2e9 {
		t.Error("the end of authorities is not shown")
	}
	h.expect("the new one", partner, mintCall(""), want{status: 200, results: []string{"done"}, rule: "renamed", outcome: "done"})
	if h.metric("cardstile_config_reloads_total", "result", "ok") != 1 {
		t.Error("not counted")
	}
}

// TestReloadUnderLoad: fifty reloads, and no request is lost; then everything ends and nothing is left running.
func TestReloadUnderLoad(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("load", func(t *testing.T) {
		h := newHouse(t, options{})
		h.login(ada)
		s := h.session()
		stop := make(chan struct{})
		var all sync.WaitGroup
		var done [6]atomic.Int64
		for i := range done {
			partner, c := h.callerWith(&shared().partner, i%2 == 0, nil), h.callerWith(nil, i%2 == 0, nil)
			all.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					x := h.exaCall(ada, s.ID())
					if i%3 == 0 {
						x = detailsCall(card, h.mintBody(partner, ""), s.ID())
					}
					if r, err := c.try(x); err != nil || r.status != 200 {
						t.Errorf("%s: %v, %v", x.path, r.status, err)
					}
					done[i].Add(1)
				}
			})
		}
		for range 50 {
			must(h.gateway.Reload(h.newConfig()))
		}
		for i := range done {
			eventually(t, "everybody has been served", func() bool { return done[i].Load() > 0 })
		}
		close(stop)
		all.Wait()
		if got := h.metric("cardstile_in_flight"); got != 0 {
			t.Errorf("%v in flight", got)
		}
	})
	goleak.VerifyNone(t, before)
}

// TestShutdownDrains: what has begun is finished and answered; nothing new begins; readiness says so first.
func TestShutdownDrains(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("drain", func(t *testing.T) {
		h := newHouse(t, options{})
		h.rain.SetFault("ic-1", sandbox.FaultSlow(400*time.Millisecond).On(sandbox.CallSetPIN))
		s := h.session()
		answer := make(chan reply, 2)
		for _, http2 := range []bool{false, true} {
			x, c := h.setPINCall(card, h.mint(), s, "9153"), h.callerWith(nil, http2, nil)
			go func() {
				r, err := c.try(x)
				if err != nil {
					t.Error(err)
				}
				answer <- r
			}()
		}
		eventually(t, "the issuer is asked", func() bool { return h.rain.Count(sandbox.CallSetPIN) == 2 })
		if err := h.gateway.Ready(t.Context()); err != nil {
			t.Errorf("before: %v", err)
		}
		h.shutdown()
		for range 2 {
			if r := <-answer; r.status != 200 {
				t.Errorf("in flight: %d %s", r.status, r.body)
			}
		}
		if _, err := h.partner().try(mintCall("")); err == nil {
			t.Error("a new connection is taken")
		}
		if err := h.gateway.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "draining") || h.metric("cardstile_ready") != 0 {
			t.Errorf("afterwards: %v", err)
		}
	})
	goleak.VerifyNone(t, before)
}

// TestShutdownCutsOff: when the time is over, what is left is cut off.
func TestShutdownCutsOff(t *testing.T) {
	h := newHouse(t, options{})
	s := h.session()
	h.rain.SetFault("ic-1", sandbox.FaultHang)
	ended := make(chan error, 1)
	x, c := detailsCall(card, h.mint(), s.ID()), h.anybody()
	go func() {
		_, err := c.try(x)
		ended <- err
	}()
	eventually(t, "the issuer is asked", func() bool { return h.rain.Total() > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	h.down.Do(func() {
		if err := h.gateway.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shutdown: %v", err)
		}
		<-h.served
	})
	if err := <-ended; err == nil {
		t.Error("it was answered")
	}
	eventually(t, "it is recorded", func() bool {
		records := h.records()
		return records[len(records)-1].Result == "failed"
	})
}

// TestServeEndsWithAListener: one that breaks ends Serve, so that whoever runs the process can do something about it.
func TestServeEndsWithAListener(t *testing.T) {
	h := newHouse(t, options{})
	must(h.gateway.CloseRaw("public"))
	select {
	case err := <-h.served:
		if err == nil {
			t.Error("without an error")
		}
		h.served <- err
	case <-time.After(20 * time.Second):
		t.Error("it goes on without")
	}
}

// TestListenIsAllOrNothing: where one address is taken, none is listened on.
func TestListenIsAllOrNothing(t *testing.T) {
	first := newHouse(t, options{})
	taken := first.gateway.Addr("public").String()
	for name, change := range map[string]func(*gateway.Services){
		"listener": func(s *gateway.Services) { s.Addresses["public"] = taken },
		"admin":    func(s *gateway.Services) { s.AdminAddress = taken },
	} {
		h := buildHouse(t, options{services: change})
		if err := h.gateway.Listen(); err == nil || !strings.Contains(err.Error(), map[string]string{"listener": "public", "admin": "admin"}[name]) {
			t.Errorf("%s: %v", name, err)
		}
		if h.gateway.Addr("partners") != nil && name == "listener" {
			t.Errorf("%s: listening all the same", name)
		}
	}
}

// TestConnectionLimit: beyond it, new connections wait; they are served when one closes.
func TestConnectionLimit(t *testing.T) {
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Limits.Connections = 1 }})
	first := h.partner()
	h.mintBody(first, "")
	second := make(chan error, 1)
	go func() {
		_, err := h.partner().try(mintCall(""))
		second <- err
	}()
	for range 20 {
		h.mintBody(first, "")
	}
	if h.metric("cardstile_connections", "listener", "partners") != 1 || h.metric("cardstile_handshakes_total", "listener", "partners") != 1 {
		t.Error("a second connection is served beside the first")
	}
	first.c.CloseIdleConnections()
	if err := <-second; err != nil {
		t.Error(err)
	}
}
