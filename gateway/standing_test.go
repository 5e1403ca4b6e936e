package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// generationBeyond waits until the partner's generation is another one, and returns it.
func (h *house) generationBeyond(was uint64) uint64 {
	h.t.Helper()
	for {
		g, err := h.gateway.Generation(h.t.Context(), partnerID)
		if err != nil {
			h.t.Fatal(err)
		}
		if g > was {
			return g
		}
		time.Sleep(time.Millisecond)
	}
}

// disabledIs waits until the gateway knows whether the partner is switched off in the store.
func (h *house) disabledIs(want float64) {
	h.t.Helper()
	for h.metric("cardstile_partner_disabled", "partner", partnerID) != want {
		if h.t.Context().Err() != nil {
			h.t.Fatal("the test is over")
		}
		time.Sleep(time.Millisecond)
	}
}

// command is what an operator's command does, in another process on the same store.
func (h *house) command() *credential.Standings {
	c, err := credential.NewStandings(credential.StandingsConfig{Store: h.services.Store})
	must(err)
	c.Configure(seals("standing"), newPartners(demoPartners()).All())
	return c
}

// order runs a command in the background, which waits until what it did stands, and returns when it has begun to. done waits too.
func order(t *testing.T, do func(context.Context, string) (from, to credential.Standing, err error)) (done func()) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if _, _, err := do(t.Context(), partnerID); err != nil && t.Context().Err() == nil {
			t.Errorf("the command: %v", err)
		}
	}()
	done = func() { <-ended }
	t.Cleanup(done)
	return done
}

// revokedToken is how a token of gp-demo is refused that is dead: after it was used up, or, where the partner is off, before.
func revokedToken(redeemed int) want {
	return want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_revoked"}, outcome: "unauthorized", redeemed: redeemed, refused: "revoked"}
}

// TestAPartnerIsOffOnEveryInstance: at the one that minted and at the other, whichever store they share, and nothing reaches the
// issuer; on again, what was minted before is dead, and what is minted then is good. Another partner goes on.
func TestAPartnerIsOffOnEveryInstance(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		one := newHouse(t, options{store: use})
		two := one.sibling(options{})
		houses := []*house{one, two}
		var tokens []string
		for range 6 {
			tokens = append(tokens, one.mint())
		}
		s := one.session()
		off := order(t, one.command().Disable)
		for i, h := range houses {
			h.disabledIs(1)
			h.expect("a token, off", h.anybody(), detailsCall(card, tokens[i], s.ID()), revokedToken(0))
			h.expect("the same again", h.anybody(), detailsCall(card, tokens[i], s.ID()), revokedToken(0))
			h.expect("a mint, off", h.partner(), mintCall(""),
				want{status: 403, body: gnosis("Forbidden"), results: []string{"refused denied_disabled"}, outcome: "forbidden"})
			other := shared().partners.client(otherName)
			h.expect("another partner's", h.callerWith(&other, true, nil), mintCall(""), want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"})
			if log := h.log.String(); !strings.Contains(log, `"partner":"gp-demo","disabled":true`) {
				t.Error("the log does not say so")
			}
		}
		off() // to switch it on before that would be undone
		order(t, one.command().Enable)
		for _, h := range houses {
			h.disabledIs(0)
		}
		for i, h := range houses {
			h.expect("a token of before", h.anybody(), detailsCall(card, tokens[2+i], s.ID()), revokedToken(1))
			fresh := h.mint()
			houses[1-i].expect("one of after", houses[1-i].anybody(), detailsCall(card, fresh, s.ID()),
				want{status: 200, results: []string{"done"}, rule: "reveal", outcome: "done", upstream: 2, redeemed: 1})
		}
	})
}

// TestRevokedTokens: all that was minted for a partner dies, of every kind, and none of it is good at the other instance either;
// what is minted then is good, and the partner was never off.
func TestRevokedTokens(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		one := newHouse(t, options{routes: wide, store: use})
		two := one.sibling(options{routes: wide})
		mint := func(h *house) map[string]call {
			s, w, proof, l, bearer := h.session(), shared().wallet, h.proof(), h.accountLogin(account), h.bearer("first")
			begun := h.exaChallenge(w.address)
			h.login(ada)
			return map[string]call{
				"token": detailsCall(card, h.mint(), s.ID()), "key": proof.reveal(h.bridgeMint(backs["rain"], proof)),
				"login": l.wallet(), "refresh": refreshCall(l.Refresh),
				"cookie": h.exaCall(ada, ""), "challenge": begun.login(w.address, h.secret(w.sign(begun.Message))),
				"bearer": sessionCall(bearer, terminal), "page": h.page().configuration(), "card": payCall(bearer, h.held()),
			}
		}
		old := mint(one)
		generation := one.generation()
		order(t, one.command().RevokeTokens)
		one.generationBeyond(generation)
		two.generationBeyond(generation)
		old["card"] = old["card"].without("Authorization").with("Authorization", "Bearer "+two.bearer("first")) // one that is good
		for _, refused := range [][2]string{
			{"token", "token_revoked"}, {"key", "token_revoked"}, {"login", "jwt_revoked"}, {"refresh", "refresh_revoked"}, {"cookie", "cookie_revoked"},
			{"challenge", "challenge_revoked"}, {"bearer", "jwt_revoked"}, {"page", "fields_revoked"}, {"card", "card_token_revoked"},
		} {
			name, reason := refused[0], refused[1]
			reached := one.upstream() + two.upstream()
			for n, h := range []*house{two, one} {
				records := len(h.records())
				r := h.anybody().do(old[name])
				recs := h.records()[records:]
				used := n == 1 && slices.Contains([]string{"token", "key", "refresh", "challenge", "card"}, name) // by the first one
				if r.status/100 != 4 || len(recs) != 1 || recs[0].Reason != reason && !used {
					t.Errorf("%s: %d, recorded %+v", name, r.status, recs)
				}
			}
			if one.upstream()+two.upstream() != reached {
				t.Errorf("%s: the issuer was asked", name)
			}
		}
		fresh := mint(two)
		for _, name := range []string{"token", "key", "login", "cookie", "challenge", "bearer", "page", "refresh"} {
			if r := one.anybody().do(fresh[name]); r.status/100 != 2 {
				t.Errorf("a %s of after: %d %s", name, r.status, r.body)
			}
		}
		if r := two.anybody().do(fresh["card"]); r.status/100 != 2 {
			t.Errorf("a card of after: %d %s", r.status, r.body)
		}
	})
}

// TestRevokedConsent: what a wallet was asked to sign before is signed for nothing, beside a token that is good.
func TestRevokedConsent(t *testing.T) {
	h := newHouse(t, options{routes: userRoutes})
	c, s, w := h.anybody(), h.session(), shared().wallet
	jwt := h.userJWT(w.address)
	ask := func() typed { return h.typedOf(c.do(challengeCall("wallet-card", "view-details", jwt))) }
	signed := func(asked typed) call { return detailsCall("wallet-card", h.mint(), s.ID()).signedBy(h, w, jwt, asked) }
	old := ask()
	generation := h.generation()
	order(t, h.command().RevokeTokens)
	h.generationBeyond(generation)
	refused := userRefused("challenge_revoked")
	refused.outcome, refused.redeemed = "challenge_unknown", 1
	h.expect("of before", c, signed(old), refused)
	h.expect("of after", c, signed(ask()), revealed())
}

// TestLoginsAndLinksAfterARevocation: who logs in afterwards is logged in; what they were asked to sign before links nothing, and
// what they are asked then does.
func TestLoginsAndLinksAfterARevocation(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c, w := h.anybody(), shared().wallet
	login := func() call {
		begun := h.exaChallenge(w.address)
		r := h.expect("a login", c, begun.login(w.address, h.secret(w.sign(begun.Message))), exaDone("login", 0))
		return call{listener: "public", method: "GET", path: "/api/card", header: []string{"Cookie", "credential_id=" + h.cookieOf(r, "credential_id", 86400)}}
	}
	before := login()
	h.expect("its card", c, before, exaDone("own-card", 2))
	message := h.exaConsent(w.address, "siwe")
	generation := h.generation()
	order(t, h.command().RevokeTokens)
	h.generationBeyond(generation)
	if r := c.do(before); r.status != 401 {
		t.Errorf("a login of before: %d", r.status)
	}
	h.expect("its card, after", c, login(), exaDone("own-card", 2))
	h.expect("asked before", c, h.linkCall(w.address, message, w.sign(message)), exaRefused("bad signature", "challenge_unknown", "challenge_revoked"))
	message = h.exaConsent(w.address, "siwe")
	h.expect("asked after", c, h.linkCall(w.address, message, w.sign(message)), exaSet("link", 0))
}

// generation is the one that is known, whichever.
func (h *house) generation() uint64 {
	h.t.Helper()
	g, err := h.gateway.Generation(h.t.Context(), partnerID)
	must(err)
	return g
}

// deaf is a store whose shared values cannot be read while it is down.
type deaf struct {
	store.Store
	down atomic.Bool
}

func (d *deaf) Shared(ctx context.Context, k store.Kind) (map[string]store.Versioned, error) {
	if d.down.Load() {
		return nil, &store.Unavailable{Store: "deaf", Operation: "shared", Reason: store.ReasonDial}
	}
	return d.Store.Shared(ctx, k)
}

// TestNobodyIsLetThroughBlindly: where it is not known how partners stand, nothing is used up or minted after a second, and what
// does not touch the store is refused after five; and what was refused is as good as before.
func TestNobodyIsLetThroughBlindly(t *testing.T) {
	var d *deaf
	var skew atomic.Int64
	h := newHouse(t, options{
		routes: wide,
		store:  func(own store.Store) store.Store { d = &deaf{Store: own}; return d },
		services: func(s *gateway.Services) {
			began := time.Now() // the clock stands still, however busy the machine is
			s.Now = func() time.Time { return began.Add(time.Duration(skew.Load())) }
		},
	})
	c, s := h.anybody(), h.session()
	token, proof, bearer, l := h.mint(), h.proof(), h.bearer("first"), h.accountLogin(account)
	key := h.bridgeMint(backs["rain"], proof)
	h.login(ada)
	profile := h.profileCall("first")
	unavailable := func(x call, who *caller, name string) {
		t.Helper()
		before := h.metric("cardstile_tokens_redeemed_total")
		r := who.do(x)
		recs := h.records()
		if last := recs[len(recs)-1]; r.status != 503 || last.Reason != "store" || h.metric("cardstile_tokens_redeemed_total") != before {
			t.Errorf("%s: %d, recorded %+v", name, r.status, last)
		}
	}
	reached := h.upstream()
	d.down.Store(true)
	skew.Add(int64(1500 * time.Millisecond))
	unavailable(detailsCall(card, token, s.ID()), c, "a token")
	unavailable(proof.reveal(key), c, "a key")
	unavailable(mintCall(""), h.partner(), "a mint")
	unavailable(refreshCall(l.Refresh), c, "a refresh token")
	if h.upstream() != reached {
		t.Error("the issuer was asked")
	}
	for name, x := range map[string]call{"a cookie": h.exaCall(ada, ""), "a login": l.wallet(), "an API key": profile} {
		if r := c.do(x); r.status != 200 {
			t.Errorf("%s, after a second and a half: %d %s", name, r.status, r.body)
		}
	}
	reached = h.upstream()
	skew.Add(int64(5 * time.Second))
	for name, x := range map[string]call{
		"a cookie": h.exaCall(ada, ""), "a login": l.wallet(), "an API key": profile, "a Bearer": sessionCall(bearer, terminal), "a token": detailsCall(card, token, s.ID()),
	} {
		unavailable(x, c, name+", after five")
	}
	if h.upstream() != reached {
		t.Error("the issuer was asked")
	}
	if age := h.metric("cardstile_partner_standing_age_seconds"); age < 6 {
		t.Errorf("it is known for %v s", age)
	}
	d.down.Store(false)
	h.expect("the token", c, detailsCall(card, token, s.ID()), want{status: 200, results: []string{"done"}, rule: "reveal", outcome: "done", upstream: 2, redeemed: 1})
	if r := c.do(refreshCall(l.Refresh)); r.status != 200 {
		t.Errorf("the refresh token: %d", r.status)
	}
}

// TestAForgedStanding: what somebody wrote into Redis stops its partner alone, and nothing of it is used up; what is taken out of
// Redis, or lost by a failover, instances put back.
func TestAForgedStanding(t *testing.T) {
	server := testredis.Start(t)
	h := newHouse(t, options{store: func(own store.Store) store.Store {
		must(own.Close())
		r, err := store.NewRedis(store.RedisConfig{Addresses: []string{server.Addr}, Timeout: 10 * time.Second})
		must(err)
		return r
	}})
	const hash = "cardstile:shared:{standing}"
	field := credential.StandingName(partnerID)
	c, s, token := h.anybody(), h.session(), h.mint()
	for server.Do("HEXISTS", hash, field) != int64(1) { // the configuration has been declared
		time.Sleep(time.Millisecond)
	}
	own := fmt.Sprint(server.Do("HGET", hash, field))
	for name, value := range map[string]string{
		"text": "enabled", "a later version": "9007199254740990" + own[16:], "another's": fmt.Sprint(server.Do("HGET", hash, credential.StandingName("gp-other"))),
	} {
		server.Do("HSET", hash, field, value)
		for h.metric("cardstile_partner_standing_invalid") != 1 {
			time.Sleep(time.Millisecond)
		}
		h.expect(name, c, detailsCall(card, token, s.ID()), want{status: 503, results: []string{"failed standing"}, outcome: "unavailable", retryAfter: true})
		h.expect(name+", a mint", h.partner(), mintCall(""), want{status: 503, results: []string{"failed standing"}, outcome: "unavailable", retryAfter: true})
		other := shared().partners.client(otherName)
		h.expect(name+", another partner", h.callerWith(&other, true, nil), mintCall(""), want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"})
		server.Do("HDEL", hash, field)
		for h.metric("cardstile_partner_standing_invalid") != 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if n := strings.Count(h.log.String(), "not one of ours: nothing is done"); n != 3 {
		t.Errorf("the log says so %d times", n)
	}
	order(t, h.command().Disable)
	h.disabledIs(1)
	off := fmt.Sprint(server.Do("HGET", hash, field))
	for name, lose := range map[string]func(){
		"all":     func() { server.Do("DEL", hash) },
		"earlier": func() { server.Do("HSET", hash, field, own) },
	} {
		lose()
		for {
			if now, _ := server.Try("HGET", hash, field); strings.HasPrefix(fmt.Sprint(now), off[:16]) {
				break
			}
			time.Sleep(time.Millisecond)
		}
		h.expect(name+" is lost", c, detailsCall(card, token, s.ID()), revokedToken(0))
	}
	h.expect("nothing was used up", c, detailsCall(card, token, s.ID()), revokedToken(0))
}

// TestAReloadKillsTheOthersTokens: a configuration that disables a partner, or takes a pin from it, ends what any instance minted.
func TestAReloadKillsTheOthersTokens(t *testing.T) {
	for name, change := range map[string]func(*policy.Partner){
		"disabled": func(p *policy.Partner) { p.Disabled = true },
		"a pin":    func(p *policy.Partner) { p.Pins = []policy.Fingerprint{{1}} },
	} {
		one := newHouse(t, options{})
		two := one.sibling(options{})
		s, token := one.session(), two.mint()
		one.o.partners = demoPartners(change)
		one.reload()
		two.generationBeyond(0)
		two.expect(name, two.anybody(), detailsCall(card, token, s.ID()), revokedToken(1))
		two.expect(name+", a new one", two.anybody(), detailsCall(card, two.mint(), s.ID()),
			want{status: 200, results: []string{"done"}, rule: "reveal", outcome: "done", upstream: 2, redeemed: 1})
	}
}

// TestWithoutSealsNothingStarts: a configuration that cannot seal how partners stand.
func TestWithoutSealsNothingStarts(t *testing.T) {
	h := newHouse(t, options{})
	c := h.newConfig()
	c.Standings = nil
	if g, err := gateway.New(h.services, c); err == nil || g != nil {
		t.Error("it was made")
	}
}
