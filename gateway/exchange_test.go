package gateway_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
)

// TestSuccess: every call of both faces, over HTTP/1.1 and HTTP/2, comes through with exactly one record.
func TestSuccess(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		h := newHouse(t, options{})
		partner, anybody := h.callerWith(&shared().partner, http2, nil), h.callerWith(nil, http2, nil)
		owned := h.cards["ic-1"]
		r := h.expect("mint", partner, mintCall(""), want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"})
		var minted struct {
			Data struct {
				EphemeralToken string
				ExpiresAt      time.Time
			}
		}
		must(json.Unmarshal([]byte(r.body), &minted))
		token := h.secret(minted.Data.EphemeralToken)
		if left := time.Until(minted.Data.ExpiresAt); left <= 0 || left > time.Minute {
			t.Errorf("the token lives for %v", left)
		}
		if want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2]; r.proto != want {
			t.Errorf("over %s, want %s", r.proto, want)
		}

		s := h.session()
		r = h.expect("details", anybody, detailsCall(card, token, s.ID()),
			want{status: 200, results: []string{"done"}, rule: "reveal", outcome: "done", upstream: 2, redeemed: 1})
		var details struct {
			Data struct {
				EncryptedPAN, EncryptedCVC json.RawMessage
				ExpirationMonth, LastFour  string
			}
		}
		must(json.Unmarshal([]byte(r.body), &details))
		if opened(s, details.Data.EncryptedPAN) != owned.PAN || opened(s, details.Data.EncryptedCVC) != owned.CVC ||
			details.Data.LastFour != owned.PAN[len(owned.PAN)-4:] || details.Data.ExpirationMonth != "12" {
			t.Errorf("details: %s", r.body)
		}
		h.expect("details again", anybody, detailsCall(card, token, s.ID()),
			want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_spent"}, outcome: "unauthorized", refused: "spent"})

		r = h.expect("pin", anybody, pinCall(card, h.mint(), s.ID()),
			want{status: 200, results: []string{"done"}, rule: "pin", outcome: "done", upstream: 1, redeemed: 1})
		var pin struct {
			Data struct{ EncryptedPIN json.RawMessage }
		}
		must(json.Unmarshal([]byte(r.body), &pin))
		if block := opened(s, pin.Data.EncryptedPIN); !strings.HasPrefix(block, "24"+owned.PIN) {
			t.Errorf("pin: %s", r.body)
		}
		h.expect("no pin", anybody, pinCall(bareCard, h.mint(), s.ID()),
			want{status: 200, body: `{"data":{"encryptedPin":null}}`, results: []string{"done"}, rule: "pin", outcome: "done", upstream: 1, redeemed: 1})
		h.expect("set pin", anybody, h.setPINCall(card, h.mint(), s, "9153"),
			want{status: 200, body: `{"data":{"status":"ok"}}`, results: []string{"intent", "done"}, rule: "pin", outcome: "done", upstream: 1, redeemed: 1})
		if h.rain.PIN("ic-1") != "9153" {
			t.Error("the PIN was not set")
		}

		h.login(ada)
		r = h.expect("exa profile", anybody, h.exaCall(ada, ""), want{status: 200, results: []string{"done"}, rule: "own-card", outcome: "done", upstream: 2})
		if strings.Contains(r.body, "encrypted") || strings.Contains(r.body, "pin") || !strings.Contains(r.body, `"displayName":"Ada Lovelace"`) {
			t.Errorf("profile: %s", r.body)
		}
		r = h.expect("exa details", anybody, h.exaCall(ada, s.ID()), want{status: 200, results: []string{"done"}, rule: "own-card", outcome: "done", upstream: 4})
		var exa struct {
			EncryptedPAN, EncryptedCVC, PIN json.RawMessage
			CardID                          string
		}
		must(json.Unmarshal([]byte(r.body), &exa))
		if exa.CardID != card || opened(s, exa.EncryptedPAN) != owned.PAN || opened(s, exa.EncryptedCVC) != owned.CVC || !strings.HasPrefix(opened(s, exa.PIN), "249153") {
			t.Errorf("exa details: %s", r.body)
		}
		h.checkRecords()
	}
}

// checkRecords looks at what the records of TestSuccess say.
func (h *house) checkRecords() {
	h.t.Helper()
	for _, r := range h.records() {
		operation := r.Operations[0]
		if r.Reason == "token_spent" { // whose it was is gone with it
			continue
		}
		if r.Partner != partnerID || r.Issuer != "rain" || r.Address != "127.0.0.1" || len(r.Trace) != 32 || len(r.Exchange) != 32 {
			h.t.Errorf("%+v", r)
		}
		if (r.Card == "") != (operation == "token.mint") || strings.Contains(r.Card, "-") {
			h.t.Errorf("%s: card %q", operation, r.Card)
		}
		if touches := operation != "token.mint" && len(r.Operations) > 0 && !(operation == "card.profile" && len(r.Operations) == 1); touches != (len(r.Legacy) == 1) && r.Result == "done" {
			h.t.Errorf("%s: legacy %v", operation, r.Legacy)
		}
		if pin := strings.Contains(strings.Join(r.Operations, " "), "pin."); pin != r.Software && r.Result == "done" {
			h.t.Errorf("%v: software %t", r.Operations, r.Software)
		}
		if (r.Face == "exa") != (r.User == ada) || (r.Face == "gnosispay") != (len(r.Certificate) == 64) {
			h.t.Errorf("%s of %s: user %q, certificate %q", operation, r.Face, r.User, r.Certificate)
		}
	}
}

// TestTokenIsBound: a token opens what it was bound to and nothing else; trying spends it; and somebody else's card looks
// like one that does not exist.
func TestTokenIsBound(t *testing.T) {
	h := newHouse(t, options{})
	c, s := h.anybody(), h.session()
	hash := sessionHash(s.ID())
	unauthorized := func(reason string) want {
		return want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused denied_" + reason}, outcome: "unauthorized", redeemed: 1, refused: reason}
	}
	spent := want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_spent"}, outcome: "unauthorized", refused: "spent"}
	notFound := func(reason string) want {
		return want{status: 404, body: gnosis("Card not found"), results: []string{"refused denied_" + reason}, outcome: "not_found", redeemed: 1}
	}
	for name, test := range map[string]struct {
		mint string
		call func(token string) call
		want want
	}{
		"another operation":        {bound(policy.PINReveal, card), func(token string) call { return detailsCall(card, token, s.ID()) }, unauthorized("bound")},
		"set with reveal":          {bound(policy.PINReveal, card), func(token string) call { return h.setPINCall(card, token, s, "9153") }, unauthorized("bound")},
		"another card":             {bound(policy.CardReveal, card), func(token string) call { return detailsCall(bareCard, token, s.ID()) }, unauthorized("bound")},
		"another session":          {`{"sessionHash":"` + hash + `"}`, func(token string) call { return detailsCall(card, token, h.session().ID()) }, unauthorized("bound")},
		"somebody else's":          {"", func(token string) call { return detailsCall(otherCard, token, s.ID()) }, notFound("not_holder")},
		"somebody else's, pin set": {"", func(token string) call { return h.setPINCall(otherCard, token, s, "9153") }, notFound("not_holder")},
		"nobody's":                 {"", func(token string) call { return detailsCall(noCard, token, s.ID()) }, notFound("unknown_card")},
		"strange reference":        {"", func(token string) call { return detailsCall("../"+card, token, s.ID()) }, want{status: 404, body: problem(404)}},
	} {
		token := h.mintBody(h.partner(), test.mint)
		if test.want.outcome == "" { // a path that the mux would have cleaned: nobody's, and without an exchange
			if r := c.do(test.call(token)); r.status != 404 || r.body != test.want.body {
				t.Errorf("%s: %d %s", name, r.status, r.body)
			}
			continue
		}
		h.expect(name, c, test.call(token), test.want)
		h.expect(name+", again", c, test.call(token), spent)
	}
	for name, test := range map[string]struct {
		mint string
		call func(token string) call
	}{
		"operation and card": {bound(policy.CardReveal, card), func(token string) call { return detailsCall(card, token, s.ID()) }},
		"session":            {`{"sessionHash":"` + hash + `"}`, func(token string) call { return detailsCall(card, token, s.ID()) }},
		"all":                {`{"sessionHash":"` + hash + `","operation":"pin.reveal","cardId":"` + card + `"}`, func(token string) call { return pinCall(card, token, s.ID()) }},
	} {
		if r := c.do(test.call(h.mintBody(h.partner(), test.mint))); r.status != 200 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	// No token is minted for a card that is not the partner's: the two look alike.
	for name, id := range map[string]string{"not_holder": otherCard, "unknown_card": noCard} {
		h.expect("mint for "+name, h.partner(), mintCall(bound(policy.CardReveal, id)),
			want{status: 404, body: gnosis("Card not found"), results: []string{"refused denied_" + name}, outcome: "not_found"})
	}
	if minted := h.metric("cardstile_tokens_minted_total"); minted != 11 {
		t.Errorf("%v tokens minted", minted)
	}
}

// TestUnboundTokens: what an unbound token opens is the route's decision [1].
func TestUnboundTokens(t *testing.T) {
	for mode, opens := range map[string]bool{"": false, policy.UnboundWithUserProof: false, policy.UnboundRefuse: false, policy.UnboundAllow: true} {
		h := newHouse(t, options{routes: func(h *house) []gatewayRoute {
			routes := h.routes(h.issuerOf("rain", nil))
			for i := range routes {
				routes[i].UnboundTokens = mode
			}
			return routes
		}})
		c, s := h.anybody(), h.session()
		refused := want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused denied_unbound_token"}, outcome: "unauthorized", redeemed: 1, refused: "unbound_token"}
		if opens {
			refused = want{status: 200, results: []string{"done"}, rule: "reveal", outcome: "done", upstream: 2, redeemed: 1}
		}
		h.expect(mode+": unbound", c, detailsCall(card, h.mint(), s.ID()), refused)
		h.expect(mode+": bound to a card alone", c, detailsCall(card, h.mintBody(h.partner(), `{"cardId":"`+card+`"}`), s.ID()), refused)
		h.expect(mode+": bound", c, detailsCall(card, h.mintBody(h.partner(), bound(policy.CardReveal, card)), s.ID()),
			want{status: 200, results: []string{"done"}, rule: "reveal", outcome: "done", upstream: 2, redeemed: 1})
	}
}

// TestOneWinner: a thousand callers with one token over 64 connections; one of them gets the card.
func TestOneWinner(t *testing.T) {
	const racers, connections = 1000, 64
	h := newHouse(t, options{})
	token, s := h.mint(), h.session()
	start := make(chan struct{})
	statuses := make(chan int, racers)
	work := make(chan struct{}, racers)
	for range racers {
		work <- struct{}{}
	}
	close(work)
	done := make(chan struct{})
	for range connections {
		c := h.callerWith(nil, false, nil)
		go func() {
			defer func() { done <- struct{}{} }()
			<-start
			for range work {
				r, err := c.try(detailsCall(card, token, s.ID()))
				if err != nil {
					t.Error(err)
					continue
				}
				statuses <- r.status
			}
		}()
	}
	close(start)
	for range connections {
		<-done
	}
	close(statuses)
	count := map[int]int{}
	for s := range statuses {
		count[s]++
	}
	if count[http.StatusOK] != 1 || count[http.StatusUnauthorized] != racers-1 {
		t.Errorf("answers: %v", count)
	}
	if h.rain.Total() != 2 || len(h.records()) != racers+1 || h.metric("cardstile_tokens_redeemed_total") != 1 ||
		h.metric("cardstile_tokens_refused_total", "reason", "spent") != racers-1 {
		t.Errorf("%d requests upstream, %d records, %v redeemed", h.rain.Total(), len(h.records()), h.metric("cardstile_tokens_redeemed_total"))
	}
}
