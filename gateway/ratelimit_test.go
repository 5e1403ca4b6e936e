package gateway_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

func perHour(n int) policy.Rate { return policy.Rate{Count: n, Per: time.Hour} }

// rates is "limit remaining" of an answer, "" where it says nothing. A reset is in the hour to come.
func rates(t *testing.T, r reply) string {
	t.Helper()
	limit, left := r.header.Get("X-RateLimit-Limit"), r.header.Get("X-RateLimit-Remaining")
	reset, err := strconv.ParseInt(r.header.Get("X-RateLimit-Reset"), 10, 64)
	now := time.Now().Unix()
	if limit != "" && (err != nil || reset < now || reset > now+3601) {
		t.Errorf("the limit comes back at %q", r.header.Get("X-RateLimit-Reset"))
	}
	if r.status == 429 {
		if after, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || after < 1 || after > 3600 {
			t.Errorf("retry after %q", r.header.Get("Retry-After"))
		}
	}
	return strings.TrimSpace(limit + " " + left)
}

func limitedWant(body, name string) want {
	return want{status: 429, body: body, retryAfter: true, results: []string{"refused limit_" + name}, outcome: "limited"}
}

const bridgeLimited = `{"code":"rate_limit_exceeded","message":"Too many requests"}`

// TestCredentialRates: each credential has a rate of its own, on every instance the same; answers say what is left of it, and
// beyond it nothing is decided, minted or sent.
func TestCredentialRates(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		limits := func(_ *house, c *gateway.Config) { c.Limits.Credential = perHour(3) }
		h := newHouse(t, options{routes: wide, store: use, config: limits})
		c := h.anybody()
		get := func(key string) call { return h.bridgeCall(key, "GET", "cus-rain", "ca-rain", "", "") }
		ok := want{status: 200, results: []string{"done"}, rule: "key", outcome: "done", upstream: -1}
		for _, left := range []string{"3 2", "3 1"} {
			if got := rates(t, h.expect("first", c, get("first"), ok)); got != left {
				t.Errorf("%q, want %q", got, left)
			}
		}
		sibling := h.sibling(options{routes: wide, config: limits}).adopt(h)
		x := get("first")
		if got := rates(t, sibling.expect("at another gateway", sibling.anybody(), x, ok)); got != "3 0" {
			t.Errorf("at another gateway: %q", got)
		}
		for name, at := range map[string]*house{"here": h, "there": sibling} {
			before := at.metric("cardstile_limited_total", "limit", "credential")
			w := limitedWant(bridgeLimited, "credential")
			if got := rates(t, at.expect("beyond, "+name, at.anybody(), x, w)); got != "3 0" {
				t.Errorf("beyond, %s: %q", name, got)
			}
			mint := h.bridgeMintCall(h.proof())
			at.expect("beyond, mint, "+name, at.anybody(), mint, w)
			if at.metric("cardstile_limited_total", "limit", "credential") != before+2 {
				t.Errorf("%s: not counted", name)
			}
		}
		// The partner's other key has its own, and so has another partner's.
		if got := rates(t, h.expect("second", c, get("second"), ok)); got != "3 2" {
			t.Errorf("the second key: %q", got)
		}
		// One that proves nothing has none: it is an attempt of its address.
		h.expect("revoked", c, get("revoked"), want{status: 401, body: bridgeBadKey, results: []string{"refused api_key_unknown"}, outcome: "unauthorized"})
	})
}

// TestCredentialRateBeforeAnythingIsSpent: whoever is beyond the rate of a credential keeps what they could use once: token,
// challenge and idempotency key are good afterwards.
func TestCredentialRateBeforeAnythingIsSpent(t *testing.T) {
	h := newHouse(t, options{routes: func(h *house) []gateway.Route {
		routes := wide(h)
		routes[0].Operations = nil // tokens are redeemed behind certificates too
		return routes
	}})
	w := shared().wallet
	h.login(w.address)
	token, s := h.mint(), h.session()
	behind := detailsCall(card, token, s.ID())
	behind.listener = "partners"
	consent := h.exaConsent(w.address, "siwe")
	link := h.exaPatch(w.address, fmt.Sprintf(`{"method":"siwe","message":%q,"signature":%q}`, consent, h.secret(w.sign(consent))))
	pin := h.exaPINCall(w.address, s, nextPIN)
	mint := h.bridgeMintCall(h.proof(), "Idempotency-Key", "one")

	h.o.config = func(_ *house, c *gateway.Config) { c.Limits.Credential = perHour(1) }
	h.reload()
	h.partner().do(mintCall("")) // the certificate's
	h.anybody().do(h.exaCall(w.address, ""))
	h.anybody().do(h.bridgeCall("first", "GET", "cus-rain", "ca-rain", "", ""))
	h.expect("token", h.partner(), behind, limitedWant(gnosis("Too many requests"), "credential"))
	h.expect("challenge", h.anybody(), link, limitedWant(exa("too many requests"), "credential"))
	h.expect("envelope", h.anybody(), pin, limitedWant(exa("too many requests"), "credential"))
	h.expect("idempotency key", h.anybody(), mint, limitedWant(bridgeLimited, "credential"))

	h.o.config = nil
	h.reload()
	h.expect("token, afterwards", h.partner(), behind, revealed())
	h.expect("challenge, afterwards", h.anybody(), link, exaSet("link", 0))
	h.expect("envelope, afterwards", h.anybody(), pin, want{status: 200, results: []string{"intent", "done"}, rule: "own-change", outcome: "done", upstream: 1})
	h.expect("idempotency key, afterwards", h.anybody(), mint, minted())
}

// TestPartnerRates: all of a partner's exchanges share its rate, whatever they come with; one partner's is not another's. Answers
// tell of the limit that is nearest to its end, and never of a card's.
func TestPartnerRates(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{
			routes: wide, store: use, partners: demoPartners(func(p *policy.Partner) { p.Rate = perHour(4) }),
			config: func(_ *house, c *gateway.Config) {
				c.Limits.Credential, c.Limits.Partner, c.Limits.Card = perHour(3), perHour(1000), perHour(2000)
			},
		})
		h.login(ada)
		c := h.anybody()
		for i, test := range []struct {
			c    *caller
			x    call
			want string
		}{
			{h.partner(), mintCall(""), "3 2"},
			{c, h.exaCall(ada, ""), "3 2"},
			{c, h.bridgeCall("first", "GET", "cus-rain", "ca-rain", "", ""), "4 1"},
			{c, h.signed(loginCall(account)), "4 0"},
		} {
			if r := test.c.do(test.x); r.status != 200 || rates(t, r) != test.want {
				t.Errorf("%d: %d, %q, want %q", i, r.status, rates(t, r), test.want)
			}
		}
		for name, x := range map[string]call{"exa": h.exaCall(ada, ""), "bridge": h.bridgeCall("second", "GET", "cus-rain", "ca-rain", "", "")} {
			body := map[string]string{"exa": exa("too many requests"), "bridge": bridgeLimited}[name]
			w := limitedWant(body, "partner")
			w.rule = map[string]string{"exa": "own-card", "bridge": "key"}[name]
			if got := rates(t, h.expect(name, c, x, w)); got != "4 0" {
				t.Errorf("%s: %q", name, got)
			}
		}
		other := h.bridgeCall("other", "GET", "cus-other", "ca-other", "", "")
		if r := c.do(other); r.status != 200 || rates(t, r) != "3 2" {
			t.Errorf("another partner: %d, %q", r.status, rates(t, r))
		}
		sibling := h.sibling(h.o).adopt(h)
		w := limitedWant(exa("too many requests"), "partner")
		w.rule = "own-card"
		sibling.expect("at another gateway", sibling.anybody(), h.exaCall(ada, ""), w)
	})
}

// TestNoRates: where no limit is set, answers say nothing of one; and a card's limit, which is others' too, is not told.
func TestNoRates(t *testing.T) {
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Limits.Card = perHour(1) }})
	c, s := h.anybody(), h.session()
	if r := h.expect("within", c, detailsCall(card, h.mint(), s.ID()), revealed()); rates(t, r) != "" {
		t.Errorf("a limit is told: %q", rates(t, r))
	}
	w := limitedWant(gnosis("Too many requests"), "card")
	w.redeemed, w.rule = 1, "reveal"
	if r := h.expect("beyond", c, detailsCall(card, h.mint(), s.ID()), w); rates(t, r) != "" {
		t.Errorf("a card's limit is told: %q", rates(t, r))
	}
}
