package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
)

// bridgeProof is what a cardholder's page draws for one reveal.
type bridgeProof struct{ secret, timestamp string }

func (h *house) proof() bridgeProof {
	secret, timestamp := sandbox.NewBridgeProof()
	return bridgeProof{h.secret(secret), timestamp}
}

func (p bridgeProof) nonce() string { return sandbox.BridgeNonce(p.secret, p.timestamp) }

// reveal is the page's call.
func (p bridgeProof) reveal(key string) call {
	query := url.Values{"secret": {p.secret}, "timestamp": {p.timestamp}}
	return call{listener: "public", method: "GET", path: "/v0/card_details/?" + query.Encode(), header: []string{"Authorization", "Bearer " + key}, clear: true}
}

// bridgeCall is a call of a partner's backend about a card account.
func (h *house) bridgeCall(keyName, method, user, card, tail, body string, header ...string) call {
	x := call{listener: "public", method: method, path: "/v0/customers/" + user + "/card_accounts/" + card + tail, body: body}
	if keyName != "" {
		x.header = []string{"Api-Key", h.apiKeys[keyName]}
	}
	if body != "" {
		x.header = append(x.header, "Content-Type", "application/json")
	}
	return x.with(header...)
}

// bridgeMintCall mints for a proof under the partner's first key.
func (h *house) bridgeMintCall(p bridgeProof, header ...string) call {
	return h.bridgeCall("first", "POST", "cus-rain", "ca-rain", "/ephemeral_keys", fmt.Sprintf(`{"client_nonce":%q}`, p.nonce()), header...)
}

// ephemeralKey reads a mint's answer.
func (h *house) ephemeralKey(r reply) string {
	h.t.Helper()
	var v struct {
		Key string `json:"ephemeral_key"`
	}
	if err := json.Unmarshal([]byte(r.body), &v); r.status != http.StatusOK || err != nil || v.Key == "" {
		h.t.Fatalf("mint: %d %s", r.status, r.body)
	}
	return h.secret(v.Key)
}

func (h *house) bridgeMint(b back, p bridgeProof) string {
	h.t.Helper()
	x := h.bridgeCall("first", "POST", b.user, b.card, "/ephemeral_keys", fmt.Sprintf(`{"client_nonce":%q}`, p.nonce()))
	return h.ephemeralKey(h.anybody().do(x))
}

// Bridge's answers, word for word.
const (
	bridgeBadProof  = `{"code":"invalid","message":"Invalid ephemeral key, secret or timestamp"}`
	bridgeBadKey    = `{"code":"invalid","location":"header","name":"Api-Key","message":"Invalid Api-Key header"}`
	bridgeNoKey     = `{"code":"required","location":"header","name":"Api-Key","message":"Missing Api-Key header"}`
	bridgeUnknown   = `{"code":"Invalid","message":"Unknown customer id"}`
	bridgeForbidden = `{"code":"forbidden","message":"Not permitted"}`
)

// shown is what comes of a reveal.
func shown() want {
	return want{status: 200, results: []string{"done"}, rule: "reveal", outcome: "done", upstream: 2, redeemed: 1}
}

func notShown(reason string) want {
	return want{status: 401, body: bridgeBadProof, results: []string{"refused token_" + reason}, outcome: "unauthorized", refused: reason}
}

func minted() want { return want{status: 200, results: []string{"done"}, rule: "key", outcome: "done"} }

// TestBridge: a key is minted for a nonce and shows the card once, to whoever knows what the nonce was made of.
func TestBridge(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		h := newHouse(t, options{routes: wide})
		c, p := h.callerWith(nil, http2, nil), h.proof()
		key := h.ephemeralKey(h.expect("mint", c, h.bridgeMintCall(p), minted()))
		r := h.expect("reveal", c, p.reveal(key), shown())
		owned := h.cards["ic-1"]
		if want := fmt.Sprintf(`{"card_number":%q,"card_security_code":%q,"expiry_date":"12/30"}`, owned.PAN, owned.CVC); r.body != want {
			t.Errorf("revealed %d bytes that are not the card's", len(r.body))
		}
		h.expect("again", c, p.reveal(key), notShown("spent"))
		// In headers, and without a slash at the end.
		p = h.proof()
		x := p.reveal(h.ephemeralKey(c.do(h.bridgeMintCall(p))))
		x.path = "/v0/card_details"
		h.expect("in headers", c, x.with("Cardstile-Client-Secret", p.secret, "Cardstile-Client-Timestamp", p.timestamp), shown())
		h.expect("profile", c, h.bridgeCall("second", "GET", "cus-rain", "ca-rain", "", ""), want{status: 200, results: []string{"done"}, rule: "key", outcome: "done", upstream: -1})
		// A nonce that was seen before may be minted for again, and gives another key.
		other := h.ephemeralKey(c.do(h.bridgeMintCall(p)))
		h.expect("the second key of a nonce", c, p.reveal(other), shown())
		for _, rec := range h.records() {
			if rec.Partner != "" && rec.Partner != partnerID || rec.Face != "bridge" || rec.Issuer != "rain" {
				t.Errorf("recorded %+v", rec)
			}
		}
		if h.payments.Total() != 0 || h.bridge.Total() != 0 {
			t.Error("another issuer was asked")
		}
	}
}

// TestBridgeWrongProofs: whatever is wrong with a proof is one answer. A wrong one burns the key, or leaves it as it was where
// the route says keep; one that cannot be read spends nothing either way.
func TestBridgeWrongProofs(t *testing.T) {
	for _, keeps := range []bool{false, true} {
		h := newHouse(t, options{routes: func(h *house) []gateway.Route {
			return []gateway.Route{h.bridgeRouteThat(h.issuerOf("rain", nil), keeps)}
		}})
		c := h.anybody()
		unauthorized := func(reason string) want {
			return want{status: 401, body: bridgeBadProof, results: []string{"refused " + reason}, outcome: "unauthorized"}
		}
		for name, test := range map[string]struct {
			change func(p, other bridgeProof, x *call)
			want   func(reason string) want
			reason string
			spends bool
		}{
			"another secret": {func(p, other bridgeProof, x *call) { x.path = strings.Replace(x.path, p.secret, other.secret, 1) }, nil, "bound", true},
			"another time":   {func(p, _ bridgeProof, x *call) { x.path = strings.Replace(x.path, p.timestamp, "1", 1) }, nil, "bound", true},
			"upper case": {func(p, _ bridgeProof, x *call) {
				x.path = strings.Replace(x.path, p.secret, strings.ToUpper(p.secret), 1)
			}, nil, "bound", true},
			"no secret": {func(p, _ bridgeProof, x *call) { x.path = "/v0/card_details/?timestamp=" + p.timestamp }, unauthorized, "no_proof", false},
			"no time":   {func(p, _ bridgeProof, x *call) { x.path = "/v0/card_details/?secret=" + p.secret }, unauthorized, "no_proof", false},
		} {
			p := h.proof()
			key := h.bridgeMint(backs["rain"], p)
			x := p.reveal(key)
			test.change(p, h.proof(), &x)
			reason := test.reason
			if reason == "bound" && keeps {
				reason = "unknown" // in one step: a key with another nonce is no key at all
			}
			w := notShown(reason)
			if test.want != nil {
				w = test.want(reason)
			}
			h.expect(name, c, x, w)
			if test.spends && !keeps {
				h.expect(name+", then the right one", c, p.reveal(key), notShown("spent"))
			} else {
				h.expect(name+", then the right one", c, p.reveal(key), shown())
			}
		}
		// One that is there twice is a mistake, and is told so: 400.
		p := h.proof()
		x := p.reveal(h.bridgeMint(backs["rain"], p))
		h.expect("twice", c, x.with("Cardstile-Client-Secret", p.secret), want{status: 400, results: []string{"refused duplicate_proof"}, outcome: "bad_request"})
		h.expect("twice, then once", c, x, shown())
		h.expect("garbage", c, p.reveal("garbage"), notShown("malformed"))
		h.expect("no key", c, x.without("Authorization"), unauthorized("no_credential"))
	}
}

// TestBridgeOneWinner: of fifty pages with the same key and proof one sees the card.
func TestBridgeOneWinner(t *testing.T) {
	for _, keeps := range []bool{false, true} {
		h := newHouse(t, options{routes: func(h *house) []gateway.Route {
			return []gateway.Route{h.bridgeRouteThat(h.issuerOf("rain", nil), keeps)}
		}})
		p := h.proof()
		x := p.reveal(h.bridgeMint(backs["rain"], p))
		if got := h.race(50, func(int) call { return x }); got[200] != 1 || got[401] != 49 || h.rain.Total() != 2 {
			t.Errorf("keeps %t: answers %v, %d requests upstream", keeps, got, h.rain.Total())
		}
	}
}

// race makes n calls at once and counts the answers by status.
func (h *house) race(n int, next func(int) call) map[int]int {
	h.t.Helper()
	c := h.anybody()
	start, statuses := make(chan struct{}), make(chan int, n)
	var all sync.WaitGroup
	for i := range n {
		x := next(i)
		all.Go(func() {
			<-start
			r, err := c.try(x)
			if err != nil {
				h.t.Error(err)
			}
			statuses <- r.status
		})
	}
	close(start)
	all.Wait()
	close(statuses)
	count := map[int]int{}
	for s := range statuses {
		count[s]++
	}
	return count
}

// TestBridgeKeysStayAtTheirFace: a token of one face is refused at another, and spent by the attempt.
func TestBridgeKeysStayAtTheirFace(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c, p, s := h.anybody(), h.proof(), h.session()
	key := h.bridgeMint(backs["rain"], p)
	elsewhere := want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_bound"}, outcome: "unauthorized", refused: "bound"}
	h.expect("a key of bridge at gnosispay", c, detailsCall("ca-rain", key, s.ID()), elsewhere)
	h.expect("afterwards at home", c, p.reveal(key), notShown("spent"))
	token := h.mintBody(h.partner(), bound(policy.CardReveal, card))
	h.expect("a token of gnosispay at bridge", c, p.reveal(token), notShown("bound"))
	h.expect("afterwards at home", c, detailsCall(card, token, s.ID()),
		want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_spent"}, outcome: "unauthorized", refused: "spent"})
	if h.rain.Total() != 0 {
		t.Error("the issuer was asked")
	}
}

// TestBridgeTokenWithoutNonceElsewhere: where tokens need no proof, one of another face is refused by its face alone.
func TestBridgeTokenWithoutNonceElsewhere(t *testing.T) {
	h := newHouse(t, options{routes: func(h *house) []gateway.Route {
		is := h.issuerOf("rain", nil)
		routes := h.routes(is)[:2]
		other := routes[1]
		other.Listener = "partners"
		f := sealedFace()
		f.PIN = face.PINSoftware
		speak(&other, "gnosispay", f)
		other.Name = "another"
		other.Operations = []policy.Operation{policy.CardReveal}
		return append(routes, other)
	}})
	x := detailsCall(card, h.mintBody(h.partner(), bound(policy.CardReveal, card)), h.session().ID())
	x.listener = "partners"
	h.expect("at a route of another face", h.partner(), x,
		want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused denied_bound"}, outcome: "unauthorized", redeemed: 1, refused: "bound"})
}

// TestBridgeMintsAreForOneCard: customer, card account and partner must agree, and whatever does not is one 404 [23]; what is
// minted opens that card alone, which the page does not name.
func TestBridgeMintsAreForOneCard(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c := h.anybody()
	body := fmt.Sprintf(`{"client_nonce":%q}`, h.proof().nonce())
	for name, test := range map[string]struct{ key, user, card, reason string }{
		"nobody's card":                {"first", "cus-rain", noCard, "denied_unknown_card"},
		"another partner's card":       {"first", "cus-rain", "ca-other", "denied_not_holder"},
		"another partner's customer":   {"first", "cus-other", "ca-other", "denied_unknown_card"},
		"another customer's card":      {"first", "cus-rain", card, "denied_not_holder"},
		"nobody":                       {"first", "nobody", "ca-rain", "denied_unknown_card"},
		"a card of another issuer":     {"first", "cus-bridge", "ca-bridge", "denied_unknown_card"},
		"a customer of another issuer": {"first", "cus-bridge", "ca-rain", "denied_unknown_card"},
		"the other partner's key":      {"other", "cus-rain", "ca-rain", "denied_unknown_card"},
		"an escaped slash":             {"first", "cus-rain", "x%2Fca-rain", "denied_unknown_card"},
	} {
		for what, x := range map[string]call{
			"mint":    h.bridgeCall(test.key, "POST", test.user, test.card, "/ephemeral_keys", body),
			"profile": h.bridgeCall(test.key, "GET", test.user, test.card, "", ""),
		} {
			h.expect(name+", "+what, c, x, want{status: 404, body: bridgeUnknown, results: []string{"refused " + test.reason}, outcome: "not_found"})
		}
	}
}

// TestBridgeBadRequests: what does not follow the contract mints nothing, and says where.
func TestBridgeBadRequests(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c, p := h.anybody(), h.proof()
	good := h.bridgeMintCall(p)
	for name, test := range map[string]struct {
		body, source, reason string
	}{
		"empty":           {"", "client_nonce", "client_nonce"},
		"no nonce":        {"{}", "client_nonce", "client_nonce"},
		"short":           {`{"client_nonce":"AAAA"}`, "client_nonce", "client_nonce"},
		"URL alphabet":    {`{"client_nonce":"` + strings.Repeat("_", 43) + `="}`, "client_nonce", "client_nonce"},
		"zero":            {`{"client_nonce":"` + strings.Repeat("A", 43) + `="}`, "client_nonce", "client_nonce"},
		"number":          {`{"client_nonce":1}`, "client_nonce", "body"},
		"null":            {`{"client_nonce":null}`, "client_nonce", "body"},
		"twice":           {fmt.Sprintf(`{"client_nonce":%[1]q,"client_nonce":%[1]q}`, p.nonce()), "client_nonce", "body"},
		"another member":  {fmt.Sprintf(`{"client_nonce":%q,"card":"ca-other"}`, p.nonce()), "client_nonce", "body"},
		"another case":    {fmt.Sprintf(`{"Client_Nonce":%q}`, p.nonce()), "client_nonce", "body"},
		"deep":            {strings.Repeat(`{"client_nonce":`, 200), "client_nonce", "body"},
		"not JSON":        {`client_nonce=` + p.nonce(), "client_nonce", "body"},
		"something after": {fmt.Sprintf(`{"client_nonce":%q} {}`, p.nonce()), "client_nonce", "body"},
	} {
		x := good
		x.body = test.body
		r := h.expect(name, c, x, want{status: 400, results: []string{"refused " + test.reason}, outcome: "bad_request"})
		if !strings.Contains(r.body, `"location":"body","key":{"`+test.source) || strings.Contains(r.body, p.nonce()) {
			t.Errorf("%s: %s", name, r.body)
		}
	}
	x := good.without("Content-Type").with("Content-Type", "text/plain")
	h.expect("text", c, x, want{status: 415, results: []string{"refused content_type"}, outcome: "unsupported_media"})
	x = good
	x.body = strings.Repeat(" ", 5000)
	h.expect("large", c, x, want{status: 413, results: []string{"refused body_too_large"}, outcome: "too_large"})
	for _, key := range []string{"", " ", "with space", strings.Repeat("k", 256), "é"} {
		h.expect("idempotency key", c, good.with("Idempotency-Key", key), want{status: 400, results: []string{"refused idempotency_key"}, outcome: "bad_request"})
	}
	h.expect("two idempotency keys", c, good.with("Idempotency-Key", "a", "Idempotency-Key", "b"),
		want{status: 400, results: []string{"refused idempotency_key"}, outcome: "bad_request"})
}

// TestBridgeFreeze: with an issuer that can, a partner's backend freezes a card and ends that; what is so already is refused, and
// nothing is sent for it.
func TestBridgeFreeze(t *testing.T) {
	for name, b := range backs {
		if !canDo(name, []policy.Operation{policy.CardStatus}) {
			continue
		}
		h := newHouse(t, options{routes: func(h *house) []gateway.Route { return []gateway.Route{h.bridgeRoute(h.issuerKind(name, nil))} }})
		c := h.anybody()
		done := want{status: 200, results: []string{"intent", "done"}, rule: "key", outcome: "done", upstream: -1}
		same := want{status: 400, results: []string{"intent", "refused issuer_already_set"}, rule: "key", outcome: "already_set", upstream: -1}
		for _, step := range []struct {
			tail, status string
			want         want
		}{{"/unfreeze", "", same}, {"/freeze", "freeze_created", done}, {"/freeze", "", same}, {"/unfreeze", "freeze_removed", done}} {
			r := h.expect(name+step.tail, c, h.bridgeCall("first", "POST", b.user, b.card, step.tail, `{"initiator":"customer"}`), step.want)
			if step.status != "" && !strings.Contains(r.body, `"status":"`+step.status+`"`) {
				t.Errorf("%s%s: %s", name, step.tail, r.body)
			}
		}
		if name == "bridge" && h.bridge.Count(sandbox.CallFreeze)+h.bridge.Count(sandbox.CallUnfreeze) != 2 {
			t.Error("a change that was none was sent")
		}
		h.expect(name+": another's", c, h.bridgeCall("other", "POST", b.user, b.card, "/freeze", ""),
			want{status: 404, body: bridgeUnknown, results: []string{"refused denied_unknown_card"}, outcome: "not_found"})
	}
}

// TestBridgeIssuerFaults: behind gnosispay's face, whatever Bridge does, nothing is half released, and nothing in clear gets out.
func TestBridgeIssuerFaults(t *testing.T) {
	h := newHouse(t, options{routes: func(h *house) []gateway.Route { return gnosisRoutes(h, h.issuerKind("bridge", h.o.issuer)) }, issuer: brief})
	c, s := h.anybody(), h.session()
	for name, test := range map[string]struct {
		fault  sandbox.Fault
		status int
		reason string
	}{
		"500":                {sandbox.Fault500.On(sandbox.CallReveal), 502, "issuer_failed"},
		"number in an error": {sandbox.FaultPANInError.On(sandbox.CallReveal), 502, "issuer_failed"},
		"malformed":          {sandbox.FaultMalformedJSON.On(sandbox.CallReveal), 502, "issuer_answer"},
		"field is missing":   {sandbox.FaultMissingField.On(sandbox.CallReveal), 502, "issuer_answer"},
		"no key":             {sandbox.FaultMissingField.On(sandbox.CallMint), 502, "issuer_answer"},
		"huge":               {sandbox.FaultHugeBody.On(sandbox.CallReveal), 502, "issuer_too_large"},
		"truncated":          {sandbox.FaultTruncatedBody.On(sandbox.CallReveal), 502, "issuer_lost"},
		"disconnected":       {sandbox.FaultDisconnect.On(sandbox.CallReveal), 502, "issuer_lost"},
		"hangs":              {sandbox.FaultHang.On(sandbox.CallReveal), 504, "issuer_timeout"},
	} {
		h.waiting(test.status == 504)
		h.bridge.SetFault("ba-1", test.fault)
		w := want{status: 502, body: gnosis("Bad gateway"), results: []string{"failed " + test.reason}, rule: "reveal", outcome: "issuer_failed", redeemed: 1, upstream: -1}
		if test.status == 504 {
			w.status, w.body, w.outcome = 504, gnosis("Gateway timeout"), "issuer_timeout"
		}
		h.expect(name, c, detailsCall("ca-bridge", h.mint(), s.ID()), w)
		h.bridge.SetFault("ba-1", sandbox.Fault{})
	}
	h.waiting(false)
	for _, seen := range h.bridge.Requests() {
		if strings.Contains(seen.Path, "card_details") && (seen.Header.Get("Api-Key") != "" || !strings.HasPrefix(seen.Header.Get("Authorization"), "Bearer ek_")) {
			t.Error("a reveal has our own key, or none of its own")
		}
	}
	if r := c.do(detailsCall("ca-bridge", h.mint(), s.ID())); r.status != 200 {
		t.Errorf("afterwards: %d %s", r.status, r.body)
	}
}
