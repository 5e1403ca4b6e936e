package gateway_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault/keys"
)

// userRefused is a 401 that spends nothing.
func userRefused(reason string) want {
	return want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused " + reason}, outcome: "unauthorized"}
}

// tokenRefused is a 401 of a token of a reason, which is used up where so many are said.
func tokenRefused(reason string, redeemed int) want {
	w := userRefused("token_" + reason)
	w.refused, w.redeemed = reason, redeemed
	return w
}

// TestUserTokens: a token that is bound to nothing opens a card together with a token of the card's own user, and with none other
// [1]. What is wrong with the user's is told before the partner's is used up.
func TestUserTokens(t *testing.T) {
	h := newHouse(t, options{routes: userRoutes})
	c, s := h.anybody(), h.session()
	with := func(jwt string) call { return detailsCall(card, "", s.ID()).with("Cardstile-User-Token", jwt) }
	pay := func(x call, token string) call {
		return x.without("Authorization").with("Authorization", "Bearer "+token)
	}
	h.expect("the card's user", c, pay(with(h.userJWT(ada)), h.mint()), revealed())
	if last := h.records()[len(h.records())-1]; last.User != ada || last.Partner != partnerID || last.Card == "" {
		t.Errorf("recorded %+v", last)
	}
	h.expect("of this card", c, pay(with(h.userJWT(ada, func(c claims) { c["card"] = card })), h.mint()), revealed())
	h.expect("several audiences", c, pay(with(h.userJWT(ada, func(c claims) { c["aud"] = []string{"x", usersOf} })), h.mint()), revealed())
	h.expect("a token that is bound, alone", c, detailsCall(card, h.mintBody(h.partner(), bound(policy.CardReveal, card)), s.ID()), revealed())

	unbound := userRefused("denied_unbound_token")
	unbound.redeemed, unbound.refused = 1, "unbound_token"
	h.expect("nobody", c, detailsCall(card, h.mint(), s.ID()), unbound)
	notHolder := want{status: 404, body: gnosis("Card not found"), results: []string{"refused denied_not_holder"}, outcome: "not_found", redeemed: 1}
	h.expect("another user of the partner's", c, pay(with(h.userJWT("cus-rain")), h.mint()), notHolder)
	h.expect("of another card", c, pay(with(h.userJWT(ada, func(c claims) { c["card"] = bareCard })), h.mint()), notHolder)
	h.expect("another partner's user", c, pay(with(h.userJWT("cus-other")), h.mint()), tokenRefused("partner", 1))
	h.expect("a user at another issuer", c, pay(with(h.userJWT("cus-bridge")), h.mint()),
		want{status: 404, body: gnosis("Card not found"), results: []string{"refused no_account"}, outcome: "no_account", redeemed: 1})

	token := h.mint()
	good := h.userJWT(ada)
	for name, test := range map[string]struct{ jwt, reason string }{
		"nobody's name":    {h.userJWT("nobody"), "jwt_user"},
		"expired":          {h.userJWT(ada, func(c claims) { c["exp"] = time.Now().Add(-time.Second).Unix() }), "jwt_expired"},
		"not yet good":     {h.userJWT(ada, func(c claims) { c["nbf"] = time.Now().Add(time.Hour).Unix() }), "jwt_expired"},
		"for ever":         {h.userJWT(ada, func(c claims) { delete(c, "exp") }), "jwt_malformed"},
		"another audience": {h.userJWT(ada, func(c claims) { c["aud"] = "elsewhere" }), "jwt_bound"},
		"another issuer":   {h.userJWT(ada, func(c claims) { c["iss"] = "https://evil.example" }), "jwt_bound"},
		"no user":          {h.userJWT(""), "jwt_malformed"},
		"changed":          {good[:len(good)-4] + "AAAA", "jwt_signature"},
		"another key":      {signJWT(keys.ES256, claims{"iss": usersBy, "aud": usersOf, "sub": ada, "exp": time.Now().Add(time.Hour).Unix()}), "jwt_malformed"},
		"garbage":          {"garbage", "jwt_malformed"},
		"the token itself": {token, "jwt_malformed"},
	} {
		x := pay(with(test.jwt), token)
		r := c.do(x)
		last := h.records()[len(h.records())-1]
		if r.status != 401 || r.body != gnosis("Unauthorized") || last.Result != "refused" || !strings.HasPrefix(last.Reason, "jwt_") || test.reason != "jwt_malformed" && last.Reason != test.reason {
			t.Errorf("%s: %d %s, recorded %s", name, r.status, r.body, last.Reason)
		}
	}
	for name, x := range map[string]call{
		"two tokens":        pay(with(good), token).with("Cardstile-User-Token", good),
		"a nonce alone":     pay(with(good), token).with("Cardstile-User-Nonce", "1"),
		"a signature alone": pay(with(good), token).with("Cardstile-User-Signature", "0x00"),
		"without a user":    pay(detailsCall(card, "", s.ID()), token).with("Cardstile-User-Nonce", "1", "Cardstile-User-Signature", "0x00"),
	} {
		if r := c.do(x); r.status != 400 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	h.expect("after all that", c, pay(with(good), token), revealed())
	h.skew.Store(int64(time.Hour + time.Second))
	h.expect("an hour later", c, pay(with(good), h.mint()), userRefused("jwt_expired"))
}

// TestUserTokensWhereTheyAreRefused: the route's word counts, whoever the user is.
func TestUserTokensWhereTheyAreRefused(t *testing.T) {
	h := newHouse(t, options{routes: func(h *house) []gateway.Route {
		routes := userRoutes(h)
		routes[1].UnboundTokens = policy.UnboundRefuse
		return routes
	}})
	unbound := userRefused("denied_unbound_token")
	unbound.redeemed, unbound.refused = 1, "unbound_token"
	h.expect("the card's user", h.anybody(), detailsCall(card, h.mint(), h.session().ID()).with("Cardstile-User-Token", h.userJWT(ada)), unbound)
}

// TestUserOfAnotherPartner: where the partner is known before, by its certificate or by the route, a user of another one is refused
// before the token is used up.
func TestUserOfAnotherPartner(t *testing.T) {
	for _, change := range []func(*gateway.Route){
		func(r *gateway.Route) { r.Listener = "partners" }, func(r *gateway.Route) { r.Partner = partnerID },
	} {
		h := newHouse(t, options{routes: func(h *house) []gateway.Route {
			routes := userRoutes(h)
			change(&routes[1])
			return routes
		}})
		x := detailsCall(card, h.mint(), h.session().ID())
		if h.config.Routes[1].Listener == "partners" {
			x.listener = "partners"
		}
		h.expect("another partner's user", h.partner(), x.with("Cardstile-User-Token", h.userJWT("cus-other")), userRefused("jwt_partner"))
		h.expect("its own", h.partner(), x.with("Cardstile-User-Token", h.userJWT(ada)), revealed())
	}
}

// TestUserSignaturesWhereTheyAreRequired: there a token of the user opens nothing without what their wallet signed.
func TestUserSignaturesWhereTheyAreRequired(t *testing.T) {
	h := newHouse(t, options{routes: func(h *house) []gateway.Route {
		routes := userRoutes(h)
		routes[1].UnboundTokens = policy.UnboundWithUserSignature
		return routes
	}})
	c, w, s := h.anybody(), shared().wallet, h.session()
	jwt := h.userJWT(w.address)
	unbound := userRefused("denied_unbound_token")
	unbound.redeemed, unbound.refused = 1, "unbound_token"
	x := detailsCall("wallet-card", h.mint(), s.ID())
	h.expect("a token of the user", c, x.with("Cardstile-User-Token", jwt), unbound)
	asked := h.typedOf(c.do(challengeCall("wallet-card", "view-details", jwt)))
	h.expect("with a signature", c, detailsCall("wallet-card", h.mint(), s.ID()).signedBy(h, w, jwt, asked), revealed())
	h.expect("a token that is bound, alone", c, detailsCall("wallet-card", h.mintBody(h.partner(), bound(policy.CardReveal, "wallet-card")), s.ID()), revealed())
}

// TestUserLimits: what is kept for a user, or tried by them, has a limit, whatever cards and tokens they name.
func TestUserLimits(t *testing.T) {
	h := newHouse(t, options{routes: userRoutes, config: func(_ *house, c *gateway.Config) { c.Limits.User = perHour(2) }})
	c, jwt := h.anybody(), h.userJWT(shared().wallet.address)
	h.typedOf(c.do(challengeCall("wallet-card", "view-details", jwt)))
	h.typedOf(c.do(challengeCall("wallet-second", "view-pin", h.userJWT(shared().wallet.address, func(c claims) { c["jti"] = "another" }))))
	over := limitedWant(gnosis("Too many requests"), "user")
	over.rule = "sign"
	h.expect("a third challenge", c, challengeCall("wallet-card", "view-details", jwt), over)
	over.rule = "bring"
	h.expect("a card", c, verifyCall(jwt, h.upload(h.cards["brought"].PAN)), over)
	h.expect("another user's", c, verifyCall(h.userJWT(ada), h.upload(h.cards["brought"].PAN)), broughtWant())
	h.expect("cards have limits of their own", c, detailsCall("wallet-card", h.mint(), h.session().ID()).with("Cardstile-User-Token", jwt), revealed())
}

// actions are what wallets sign for, with the call of each.
func (h *house) actions(s *sandbox.Session) map[string]func(id, token string) call {
	return map[string]func(id, token string) call{
		"view-details": func(id, token string) call { return detailsCall(id, token, s.ID()) },
		"view-pin":     func(id, token string) call { return pinCall(id, token, s.ID()) },
		"change-pin":   func(id, token string) call { return h.setPINCall(id, token, s, nextPIN) },
	}
}

// TestWalletsAuthorize: a user's wallet signs for one action on one card, once: their id's own, or one that the directory lists.
func TestWalletsAuthorize(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: userRoutes, store: use})
		c, s, k := h.anybody(), h.session(), shared()
		for user, test := range map[string]struct {
			w  *wallet
			id string
		}{k.wallet.address: {k.wallet, "wallet-card"}, "device": {k.device, "device-card"}} {
			jwt := h.userJWT(user)
			for action, of := range h.actions(s) {
				asked := h.typedOf(h.expect(action, c, challengeCall(test.id, action, jwt), want{status: 200, results: []string{"done"}, rule: "sign", outcome: "done"}))
				if asked.Domain != (credential.TypedDomain{Name: "Cardstile", Version: "1", ChainID: 100}) || asked.Primary != "Message" || asked.Message.Authorization == "" {
					t.Errorf("%s: to sign is %+v", action, asked)
				}
				w := map[string]want{
					"view-details": revealed(), "view-pin": {status: 200, results: []string{"done"}, rule: "pin", outcome: "done", upstream: 1, redeemed: 1},
					"change-pin": {status: 200, results: []string{"intent", "done"}, rule: "pin", outcome: "done", upstream: 1, redeemed: 1},
				}[action]
				x := of(test.id, h.mint()).signedBy(h, test.w, jwt, asked)
				h.expect(action+", signed", c, x, w)
				spent := userRefused("challenge_spent")
				spent.outcome, spent.redeemed = "challenge_unknown", 1
				h.expect(action+", signed for once", c, of(test.id, h.mint()).signedBy(h, test.w, jwt, asked), spent)
			}
		}
		if h.metric("cardstile_credentials_taken_total", "kind", "challenge", "result", "taken") != 6 {
			t.Error("six challenges are not counted")
		}
	})
}

// TestWalletsThatDoNotAuthorize: what was signed is good for nothing but what it says, and what its signer may.
func TestWalletsThatDoNotAuthorize(t *testing.T) {
	h := newHouse(t, options{routes: userRoutes})
	c, s, k := h.anybody(), h.session(), shared()
	jwt := h.userJWT(k.wallet.address)
	ask := func(id, action, jwt string) typed { return h.typedOf(c.do(challengeCall(id, action, jwt))) }
	actions := h.actions(s)
	refused := func(outcome, reason string) want {
		w := userRefused(reason)
		w.outcome, w.redeemed = outcome, 1
		return w
	}
	for action := range actions {
		for other, of := range actions {
			if action != other {
				h.expect(action+" for "+other, c, of("wallet-card", h.mint()).signedBy(h, k.wallet, jwt, ask("wallet-card", action, jwt)), refused("challenge_unknown", "challenge_unknown"))
			}
		}
	}
	details := func(id string) call { return detailsCall(id, h.mint(), s.ID()) }
	h.expect("another card", c, details("wallet-second").signedBy(h, k.wallet, jwt, ask("wallet-card", "view-details", jwt)), refused("challenge_unknown", "challenge_bound"))
	h.expect("another user's token", c, details("wallet-card").signedBy(h, k.wallet, h.userJWT("device"), ask("wallet-card", "view-details", jwt)), refused("challenge_unknown", "challenge_bound"))
	h.expect("another wallet", c, details("wallet-card").signedBy(h, k.device, jwt, ask("wallet-card", "view-details", jwt)), refused("bad_signature", "wallet_user"))
	h.expect("a listed wallet's user, by another", c, details("device-card").signedBy(h, k.wallet, h.userJWT("device"), ask("device-card", "view-details", h.userJWT("device"))), refused("bad_signature", "wallet_user"))
	for name, change := range map[string]func(*typed){
		"another text":  func(t *typed) { t.Message.Authorization += "." },
		"another chain": func(t *typed) { t.Domain.ChainID = 1 },
		"another name":  func(t *typed) { t.Domain.Name = "Cardstile2" },
	} {
		asked := ask("wallet-card", "view-details", jwt)
		signed := asked
		change(&signed)
		x := details("wallet-card").with("Cardstile-User-Token", jwt, "Cardstile-User-Nonce", asked.Message.Nonce, "Cardstile-User-Signature", k.wallet.signTyped(signed))
		h.expect("signed is "+name, c, x, refused("bad_signature", "wallet_user"))
	}
	// personal_sign of the same is no signature of it.
	asked := ask("wallet-card", "view-details", jwt)
	x := details("wallet-card").with("Cardstile-User-Token", jwt, "Cardstile-User-Nonce", asked.Message.Nonce, "Cardstile-User-Signature", k.wallet.sign(asked.Message.Authorization))
	h.expect("personal_sign", c, x, refused("bad_signature", "wallet_user"))
	for _, nonce := range []string{"0", "1", "-1", "0x1", "01", strings.Repeat("9", 78), strings.Repeat("9", 79)} {
		x := details("wallet-card").with("Cardstile-User-Token", jwt, "Cardstile-User-Nonce", nonce, "Cardstile-User-Signature", k.wallet.signTyped(asked))
		if r := c.do(x); r.status != 401 || r.body != gnosis("Unauthorized") {
			t.Errorf("nonce %s: %d %s", nonce, r.status, r.body)
		}
	}
	if h.upstream() != 0 {
		t.Error("the issuer was asked")
	}
}

// TestSignatureOutlivesASpentToken: where the partner's token is used up or over, what the user signed is as it was, and is good
// with the next one: nobody is asked to sign twice.
func TestSignatureOutlivesASpentToken(t *testing.T) {
	h := newHouse(t, options{routes: userRoutes})
	c, s, k := h.anybody(), h.session(), shared()
	jwt, token := h.userJWT(k.wallet.address), h.mint()
	h.expect("the token", c, detailsCall("wallet-card", token, s.ID()).with("Cardstile-User-Token", jwt), revealed())
	asked := h.typedOf(c.do(challengeCall("wallet-card", "view-details", jwt)))
	for name, test := range map[string]struct{ token, reason string }{"spent": {token, "spent"}, "garbage": {"garbage", "malformed"}, "nobody's": {strings.Repeat("A", 52), "unknown"}} {
		h.expect(name, c, detailsCall("wallet-card", test.token, s.ID()).signedBy(h, k.wallet, jwt, asked), tokenRefused(test.reason, 0))
	}
	h.expect("with a fresh one", c, detailsCall("wallet-card", h.mint(), s.ID()).signedBy(h, k.wallet, jwt, asked), revealed())
}

// TestChallengesAreForTheUsersOwnCards: whoever asks for what to sign shows who they are, and names a card of theirs.
func TestChallengesAreForTheUsersOwnCards(t *testing.T) {
	h := newHouse(t, options{routes: userRoutes})
	c, jwt := h.anybody(), h.userJWT(shared().wallet.address)
	notFound := func(reason string) want {
		return want{status: 404, body: gnosis("Card not found"), results: []string{"refused " + reason}, outcome: "not_found"}
	}
	for name, test := range map[string]struct {
		x    call
		want want
	}{
		"another user's card":         {challengeCall(card, "view-details", jwt), notFound("denied_not_holder")},
		"another partner's card":      {challengeCall("ca-other", "view-details", jwt), notFound("denied_not_holder")},
		"nobody's card":               {challengeCall(noCard, "view-details", jwt), notFound("denied_unknown_card")},
		"another partner's user":      {challengeCall("wallet-card", "view-details", h.userJWT("cus-other")), notFound("denied_not_holder")},
		"nobody's user":               {challengeCall("wallet-card", "view-details", h.userJWT("nobody")), userRefused("jwt_user")},
		"a token for another card":    {challengeCall("wallet-card", "view-details", h.userJWT(shared().wallet.address, func(c claims) { c["card"] = "wallet-second" })), notFound("denied_not_holder")},
		"no token":                    {challengeCall("wallet-card", "view-details", jwt).without("Authorization"), userRefused("no_credential")},
		"a partner's token for it":    {challengeCall("wallet-card", "view-details", h.mint()), userRefused("jwt_malformed")},
		"an action that is none":      {challengeCall("wallet-card", "card.reveal", jwt), want{status: 400, body: gnosis("Invalid request"), results: []string{"refused action"}, outcome: "bad_request"}},
		"two actions":                 {challengeCall("wallet-card", "view-pin&action=view-details", jwt), want{status: 400, body: gnosis("Invalid request"), results: []string{"refused action"}, outcome: "bad_request"}},
		"no action":                   {challengeCall("wallet-card", "", jwt), want{status: 400, body: gnosis("Invalid request"), results: []string{"refused action"}, outcome: "bad_request"}},
		"a user token in its header":  {challengeCall("wallet-card", "view-details", jwt).without("Authorization").with("Cardstile-User-Token", jwt), userRefused("no_credential")},
		"a user at another issuer":    {challengeCall("ca-bridge", "view-details", h.userJWT("cus-bridge")), want{status: 404, body: gnosis("Card not found"), results: []string{"refused no_account"}, outcome: "no_account"}},
		"a card of another's issuers": {challengeCall("ca-bridge", "view-details", jwt), notFound("denied_unknown_card")},
	} {
		h.expect(name, c, test.x, test.want)
	}
	h.o.policies = strings.Replace(policies, `@id("sign") permit`, `@id("sign") forbid`, 1)
	h.reload()
	h.expect("forbidden", c, challengeCall("wallet-card", "view-details", jwt),
		want{status: 403, body: gnosis("Forbidden"), results: []string{"refused denied_forbidden"}, rule: "sign", outcome: "forbidden"})
}

// TestApps: a page of ours that says which app it is shows cards of that app's partner alone [22]. Where the token says whose it is,
// a wrong one is not used up; where it does not, it is found out all the same.
func TestApps(t *testing.T) {
	h := newHouse(t, options{routes: userRoutes})
	c, s := h.anybody(), h.session()
	with := func(id, app, token string, more ...string) call {
		return detailsCall(id, token, s.ID()).with("Cardstile-App", app).with(more...)
	}
	token := h.mintBody(h.partner(), bound(policy.CardReveal, card))
	h.expect("nobody's app", c, with(card, "app-none", token), userRefused("unknown_app"))
	h.expect("another partner's app", c, with(card, otherApp, token), userRefused("partner_of_another_app"))
	h.expect("another partner's app, with a user", c, with(card, otherApp, token, "Cardstile-User-Token", h.userJWT(ada)), userRefused("partner_of_another_app"))
	h.expect("another partner's app, with its own user", c, with(card, otherApp, token, "Cardstile-User-Token", h.userJWT("cus-other")), tokenRefused("partner", 1))
	token = h.mintBody(h.partner(), bound(policy.CardReveal, card))
	if r := c.do(with(card, app, token, "Cardstile-App", app)); r.status != 400 {
		t.Errorf("two apps: %d", r.status)
	}
	h.expect("its own app", c, with(card, app, token), revealed())
	// Tokens whose hint nobody reads.
	h.o.config = func(h *house, c *gateway.Config) {
		var err error
		c.Tokens, err = credential.NewTokens(credential.TokensConfig{Store: h.services.Store, Digests: ring("token"), Seeds: ring("token seed"), Grants: seals("grant")})
		must(err)
	}
	h.reload()
	token = h.mintBody(h.partner(), bound(policy.CardReveal, card))
	h.expect("another partner's app, without a hint", c, with(card, otherApp, token), tokenRefused("partner", 1))
	h.expect("afterwards", c, with(card, app, token), tokenRefused("spent", 0))
	h.expect("its own app, without a hint", c, with(card, app, h.mintBody(h.partner(), bound(policy.CardReveal, card))), revealed())
}

// broughtWant is what comes of a card that a user brought.
func broughtWant() want {
	return want{status: 200, results: []string{"intent", "done"}, rule: "bring", outcome: "done", upstream: 1}
}

// notTaken is the 400 of an upload, which says more than the face's others.
func notTaken(text string) string {
	return strings.TrimSuffix(gnosis(text), "}") + `,"details":"encryptedPan, encryptedKey and iv are required, each of its form"}`
}

// TestCardsThatUsersBring: a card number goes to the issuer in its format, sealed anew, once; what was captured cannot be sent
// again, and what the issuer does not take is told so.
func TestCardsThatUsersBring(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: userRoutes, store: use})
		c, jwt, number := h.anybody(), h.userJWT(ada), h.cards["brought"].PAN
		up := h.upload(number)
		if err := h.brought(h.expect("brought", c, verifyCall(jwt, up), broughtWant())); err != nil {
			t.Error(err)
		}
		if seen := h.gnosis.Requests(); len(seen) != 1 || seen[0].Path != "/api/v1/cards/verify" || seen[0].Header.Get("Authorization") != "Bearer "+gnosisKey || seen[0].Header.Get("Cardstile-User") != "" {
			t.Errorf("the issuer got %+v", seen)
		}
		last := h.records()[len(h.records())-1]
		if last.User != ada || last.Partner != partnerID || last.Issuer != "gnosis" || last.Card != "" {
			t.Errorf("recorded %+v", last)
		}
		replayed := want{status: 400, body: notTaken("Invalid session id"), results: []string{"refused envelope_replayed"}, rule: "bring", outcome: "bad_session"}
		h.expect("again", c, verifyCall(jwt, up), replayed)
		h.expect("again, by another user", c, verifyCall(h.userJWT("device"), up), replayed)
		there := h.sibling(options{routes: userRoutes})
		there.expect("again, at another gateway", there.anybody(), verifyCall(jwt, up), replayed)
		// To an issuer of their own it is said whose card it is.
		if r := c.do(verifyCall(h.userJWT("grace"), h.upload(h.cards["held"].PAN))); r.status != 200 || lastOf(h.gnosis.Requests()).Header.Get("Cardstile-User") != "g-1" {
			t.Errorf("answered %d, the issuer was told of %q", r.status, lastOf(h.gnosis.Requests()).Header.Get("Cardstile-User"))
		}
		bad := broughtWant()
		bad.status, bad.body, bad.results, bad.outcome = 422, gnosis("Card was not accepted"), []string{"intent", "refused issuer_bad_card"}, "bad_card"
		h.expect("a card that is there", c, verifyCall(jwt, h.upload(number)), bad)
		wrong := number[:15] + string('0'+(number[15]-'0'+1)%10)
		h.expect("another check digit", c, verifyCall(jwt, h.upload(h.secret(wrong))), bad)
		for name, text := range map[string]string{"short": "41111111111", "letters": "4111x11111111111", "empty": ""} {
			r := c.do(verifyCall(jwt, h.upload(text)))
			if r.status != 400 {
				t.Errorf("%s: %d %s", name, r.status, r.body)
			}
		}
		swapped := h.upload(number)
		swapped.IV = h.upload(number).IV
		foreign, err := sandbox.NewGnosisUpload(&shared().issuer.PublicKey, number)
		must(err)
		for name, u := range map[string]sandbox.GnosisUpload{"another IV": swapped, "for another key": foreign} {
			sent := h.upstream()
			if r := c.do(verifyCall(jwt, u)); r.status != 400 || r.body != notTaken("Invalid session id") || h.upstream() != sent {
				t.Errorf("%s: %d %s", name, r.status, r.body)
			}
		}
		if h.gnosis.Total() != 4 || len(h.gnosis.Cards()) != 2 {
			t.Errorf("%d requests, %d cards", h.gnosis.Total(), len(h.gnosis.Cards()))
		}
	})
}

func lastOf(seen []sandbox.Seen) sandbox.Seen { return seen[len(seen)-1] }

// TestWhoBringsCards: the user whom an authority names, for themselves alone.
func TestWhoBringsCards(t *testing.T) {
	h := newHouse(t, options{routes: userRoutes})
	c, number := h.anybody(), h.cards["brought"].PAN
	for name, test := range map[string]struct{ jwt, reason string }{
		"nobody": {h.userJWT("nobody"), "jwt_user"}, "expired": {h.userJWT(ada, func(c claims) { c["exp"] = 1 }), "jwt_expired"},
		"another audience": {h.userJWT(ada, func(c claims) { c["aud"] = "elsewhere" }), "jwt_bound"}, "a partner's token": {h.mint(), "jwt_malformed"},
		"a token for one card": {h.userJWT(ada, func(c claims) { c["card"] = card }), "denied_proof"},
	} {
		h.expect(name, c, verifyCall(test.jwt, h.upload(number)), userRefused(test.reason))
	}
	h.expect("no token", c, verifyCall("x", h.upload(number)).without("Authorization"), userRefused("no_credential"))
	x := verifyCall(h.userJWT(ada), h.upload(number))
	for name, bad := range map[string]call{
		"text": x.without("Content-Type").with("Content-Type", "text/plain"), "a member more": x.over(`{"cardId":"x",`), "a member twice": x.over(`{"iv":"ABCDEFGHIJKLMNOP",`),
	} {
		if r := c.do(bad); r.status/100 != 4 {
			t.Errorf("%s: %d", name, r.status)
		}
	}
	h.o.policies = strings.Replace(policies, `@id("bring") permit`, `@id("bring") forbid`, 1)
	h.reload()
	h.expect("forbidden", c, x, want{status: 403, body: gnosis("Forbidden"), results: []string{"refused denied_forbidden"}, rule: "bring", outcome: "forbidden"})
	if h.gnosis.Total() != 0 {
		t.Error("the issuer was asked")
	}
	h.o.policies = policies
	h.o.partners = demoPartners(func(p *policy.Partner) { p.Disabled = true })
	h.reload()
	h.expect("of a partner that is switched off", c, x, want{status: 403, body: gnosis("Forbidden"), results: []string{"refused denied_disabled"}, outcome: "forbidden"})
	h.o.partners = demoPartners()
	h.reload()
	h.expect("afterwards, the same envelope", c, x, broughtWant())
	// What became of a card whose upload was not answered is unknown.
	h.gnosis.SetFault(gnosisOwner, sandbox.FaultDisconnect)
	unknown := broughtWant()
	unknown.status, unknown.body, unknown.results, unknown.outcome = 504, gnosis("Outcome unknown"), []string{"intent", "unknown outcome_unknown"}, "outcome_unknown"
	h.expect("lost", c, verifyCall(h.userJWT(ada), h.upload(number)), unknown)
	h.gnosis.SetFault(gnosisOwner, sandbox.FaultPANInMember)
	if r := c.do(verifyCall(h.userJWT(ada), h.upload("4000056655665556"))); strings.Contains(r.body, "4000056655665556") {
		t.Error("a card number leaves")
	}
	h.secret("4000056655665556")
}

// over is the call with another beginning of its object.
func (x call) over(begin string) call {
	x.body = begin + strings.TrimPrefix(x.body, "{")
	return x
}

// TestUsersPublicKeys: clients read the key to encrypt to; pages of the route's origins may, and may send a card.
func TestUsersPublicKeys(t *testing.T) {
	h := newHouse(t, options{routes: userRoutes})
	c := h.anybody()
	key := fmt.Sprintf(`{"publicKey":%q}`, base64.StdEncoding.EncodeToString(shared().clients.PublicSPKI()))
	for _, path := range []string{"/api/v1/session-key", "/api/v1/user/card-public-key"} {
		before := h.snapshot(want{})
		r := c.do(call{listener: "public", method: http.MethodGet, path: path})
		h.compare(path, before, r, want{status: 200, body: key})
		if r.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", path, r.header)
		}
	}
	verify := "/api/v1/cards/verify"
	if got := corsOf(c.do(preflightCall(verify, origin, "POST", "Access-Control-Request-Headers", "authorization,content-type"))); got !=
		"Access-Control-Allow-Headers: Authorization, Content-Type\nAccess-Control-Allow-Methods: POST\nAccess-Control-Allow-Origin: "+origin+"\nAccess-Control-Max-Age: 600\nVary: Origin" {
		t.Error(got)
	}
	if r := c.do(preflightCall(verify, evil, "POST")); r.status != 403 || corsOf(r) != "Vary: Origin" {
		t.Errorf("%d\n%s", r.status, corsOf(r))
	}
}
