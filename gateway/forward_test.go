package gateway_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
)

// forwarding are routes of face paymentsgate with these calls alone.
func forwarding(calls ...exchange.ForwardCall) func(*house) []gateway.Route {
	return func(h *house) []gateway.Route {
		return []gateway.Route{h.paymentsRoute(h.issuerKind("forward", h.o.issuer), calls...)}
	}
}

var (
	dealWithCard = "/deals/" + sandbox.DealWithCard(payOwner)
	dealWithBank = "/deals/" + sandbox.DealWithBank(payOwner)
)

const payNotFound = `{"error":"NOT_FOUND","message":"Not found","statusCode":404}`

// posted is what comes of a call that changes something.
func posted() want {
	return want{status: 200, results: []string{"intent", "done"}, rule: "call", outcome: "done", upstream: 1}
}

// lastSeen is what the issuer got last.
func (h *house) lastSeen() sandbox.Seen {
	all := h.payments.Requests()
	return all[len(all)-1]
}

// TestForwardPaths: what is declared is carried, under its own name; what is not is nobody's; and of two that a path could be, the
// exact one is it.
func TestForwardPaths(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c := h.anybody()
	l := h.accountLogin(account)
	for path, test := range map[string]struct{ sent, call string }{
		"/wallet":                  {"/wallet", "GET /wallet"},
		"/wallet/":                 {"/wallet", "GET /wallet"},
		"/wallet?a=b&a=c%20d":      {"/wallet?a=b&a=c%20d", "GET /wallet"},
		"/deals/list":              {"/deals/list", "GET /deals/list"},
		"/deals/%6cist":            {"/deals/list", "GET /deals/list"},
		dealWithBank:               {dealWithBank, "GET /deals/{id}"},
		"/deals/a%20b":             {"/deals/a%20b", "GET /deals/{id}"},
		dealWithCard + "?x=%2F":    {dealWithCard + "?x=%2F", "GET /deals/{id}"},
		"/deals/list/credentials":  {"/deals/list/credentials", "GET /deals/{id}/credentials"},
		dealWithBank + "/payin?x=": {"", ""},
		"/deals/":                  {"", ""},
		"/deals":                   {"", ""},
		"/wallet/deposit":          {"", ""},
		"/wallets":                 {"", ""},
		"/Wallet":                  {"", ""},
		"/deals//list":             {"", ""},
		"/deals/../wallet":         {"", ""},
		"/deals/%2e%2e/wallet":     {"", ""},
		"/fx/calculation":          {"", ""},
		"/":                        {"", ""},
	} {
		if test.sent == "" {
			before := h.payments.Total()
			if r := c.do(l.call("GET", path, "")); r.status != 404 && r.status != 405 || h.payments.Total() != before {
				t.Errorf("%s: %d %s, sent %d", path, r.status, r.body, h.payments.Total()-before)
			}
			continue
		}
		h.expect(path, c, l.call("GET", path, ""), called())
		records := h.records()
		if seen := h.lastSeen(); seen.Path != test.sent || records[len(records)-1].Call != test.call {
			t.Errorf("%s: sent %s, recorded %q", path, seen.Path, records[len(records)-1].Call)
		}
	}
	for _, segment := range []string{"a%2Fb", "a%5Cb", "a%3Bb", "%2e", "a%25b", "a%00b", "a%0Ab", "%FF"} {
		x := l.call("GET", "/deals/"+segment, "")
		r := c.do(x)
		if r.status != 400 && r.status != 404 {
			t.Errorf("%s: %d %s", segment, r.status, r.body)
		}
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"} {
		r := h.expect(method, c, l.call(method, "/wallet", ""), want{status: 405, outcome: "method_not_allowed"})
		if r.header.Get("Allow") != "GET" {
			t.Errorf("%s: allows %q", method, r.header.Get("Allow"))
		}
	}
	h.expect("a query that does not parse", c, l.call("GET", "/wallet?a=%zz", ""), want{status: 400, body: payError(400, "BAD_REQUEST", "Invalid request: query"), results: []string{"refused query"}, outcome: "bad_request"})
	h.expect("a body to a GET", c, l.call("GET", "/wallet", "{}"), want{status: 400, results: []string{"refused body"}, outcome: "bad_request"})
}

// TestForwardsThatCollide: paths that a request could match alike stop the start with an error that names them, as does a face's own
// path, on one route or on two; nothing panics, and a reload keeps what was.
func TestForwardsThatCollide(t *testing.T) {
	get := func(pattern string) exchange.ForwardCall {
		return forwardOf("GET", pattern, exchange.WithoutMask, nil, nil)
	}
	beside := func(call exchange.ForwardCall) func(*house) []gateway.Route {
		return func(h *house) []gateway.Route { return append(wide(h)[:4], forwarding(call)(h)...) }
	}
	h := newHouse(t, options{routes: wide})
	for name, test := range map[string]struct {
		routes func(*house) []gateway.Route
		says   string
	}{
		"equal":                   {forwarding(get("/a"), get("/a")), "GET /a"},
		"equal but for a name":    {forwarding(get("/a/{x}"), get("/a/{y}")), "cannot be told apart"},
		"crossed":                 {forwarding(get("/a/{x}/c"), get("/a/b/{y}")), "cannot be told apart"},
		"the same face twice":     {func(h *house) []gateway.Route { return append(wide(h), forwarding(get("/x"))(h)...) }, "POST /auth/token on listener public is served by route paymentsgate already"},
		"another face's":          {beside(get("/v0/card_details")), "GET /v0/card_details on listener public is served by route bridge already"},
		"another face's, crossed": {beside(get("/v0/{what}/x/card_accounts/{y}")), "cannot be told apart"},
	} {
		c := h.newConfig()
		c.Routes = test.routes(h)
		_, started := gateway.New(h.services, c)
		for _, err := range []error{gateway.Check(c), started, h.gateway.Reload(c)} {
			var at *gateway.RouteError
			if !errors.As(err, &at) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	h.expect("what was goes on", h.anybody(), h.accountLogin(account).wallet(), called())
}

// TestForwardBind: a declared parameter of the path is the caller's own, or the call is like one that is not there [3].
func TestForwardBind(t *testing.T) {
	h := newHouse(t, options{routes: forwarding(
		func() exchange.ForwardCall {
			c := forwardOf("GET", "/accounts/{account}/wallet", exchange.WithoutMask, nil, nil)
			c.Bind = map[string]string{"account": "account"}
			return c
		}(),
		func() exchange.ForwardCall {
			c := forwardOf("POST", "/partners/{partner}/deals/{id}", exchange.WithoutMask, nil, nil)
			c.Bind = map[string]string{"partner": "partner"}
			return c
		}(),
	)})
	c := h.anybody()
	l := h.accountLogin(account)
	// The issuer of the tests has neither: a 404 that was asked for is its own.
	passed := want{status: 404, results: []string{"done"}, rule: "call", outcome: "done", upstream: 1}
	h.expect("own", c, l.call("GET", "/accounts/"+account+"/wallet", ""), passed)
	changed := passed
	changed.results = []string{"intent", "refused"}
	h.expect("own partner", c, l.call("POST", "/partners/gp-demo/deals/1", "{}"), changed)
	another := want{status: 404, body: payNotFound, results: []string{"refused path_of_another"}, outcome: "not_found"}
	for name, x := range map[string]call{
		"another account":      l.call("GET", "/accounts/"+weak+"/wallet", ""),
		"nobody":               l.call("GET", "/accounts/nobody/wallet", ""),
		"in upper case":        l.call("GET", "/accounts/"+strings.ToUpper(account[:35])+"x/wallet", ""),
		"another partner":      l.call("POST", "/partners/gp-other/deals/1", "{}"),
		"an account's for one": l.call("POST", "/partners/"+account+"/deals/1", "{}"),
	} {
		h.expect(name, c, x, another)
	}
}

// TestForwardFields: without a session a declared field is masked, refused or, where that is said by name, in clear; with one it is
// sealed for it, always [13].
func TestForwardFields(t *testing.T) {
	for _, without := range []exchange.WithoutSession{exchange.WithoutMask, exchange.WithoutRefuse, exchange.WithoutClear} {
		h := newHouse(t, options{routes: forwarding(forwardOf("GET", "/deals/{id}/credentials", without, accountNumber, nil))})
		c, s := h.anybody(), h.session()
		l := h.accountLogin(account)
		pan := h.cards["pay-1"].PAN
		number := func(r reply) (v struct {
			Number json.RawMessage `json:"account_number"`
			Holder string
		}) {
			must(json.Unmarshal([]byte(r.body), &v))
			return v
		}
		shown := called()
		shown.rule = "call,fields"
		sealed := number(h.expect("sealed", c, l.call("GET", dealWithCard+"/credentials", "", "sessionid", s.ID()), shown))
		if opened(s, sealed.Number) != pan || sealed.Holder != "Ada Lovelace" {
			t.Errorf("%s: sealed is another number", without)
		}
		bank := number(h.expect("sealed, a bank account", c, l.call("GET", dealWithBank+"/credentials", "", "sessionid", s.ID()), shown))
		if opened(s, bank.Number) != "NL91ABNA0417164300" {
			t.Errorf("%s: sealed is another account", without)
		}
		x := l.call("GET", dealWithCard+"/credentials", "")
		switch without {
		case exchange.WithoutMask:
			if got := number(h.expect("masked", c, x, called())); string(got.Number) != `"`+pan[:6]+"******"+pan[12:]+`"` {
				t.Errorf("masked: %d characters", len(got.Number))
			}
			if got := number(h.expect("masked, a bank account", c, l.call("GET", dealWithBank+"/credentials", ""), called())); string(got.Number) != `"**************4300"` {
				t.Errorf("masked: %s", got.Number)
			}
		case exchange.WithoutRefuse:
			h.expect("refused", c, x, want{status: 400, body: payError(400, "BAD_SESSION", "Invalid sessionid"), results: []string{"refused no_preamble"}, outcome: "bad_session"})
		case exchange.WithoutClear:
			x.clear = true
			if got := number(h.expect("clear", c, x, shown)); string(got.Number) != `"`+pan+`"` {
				t.Errorf("clear: %d characters", len(got.Number))
			}
		}
		for id, reason := range map[string]string{"%%": "preamble", preamble(256): "open"} {
			w := want{status: 400, body: payError(400, "BAD_SESSION", "Invalid sessionid"), results: []string{"refused " + reason}, outcome: "bad_session"}
			if reason == "open" {
				w.rule = "call,fields"
			}
			h.expect("a session that is none", c, l.call("GET", dealWithCard+"/credentials", "", "sessionid", id), w)
		}
		h.payments.SetFault(sandbox.DealWithCard(payOwner), sandbox.FaultMissingField.On(sandbox.CallCredentials))
		h.expect("a field that is not there", c, l.call("GET", dealWithCard+"/credentials", "", "sessionid", s.ID()), shown)
	}
}

// TestForwardSubmit: a declared field of the body comes sealed, and reaches the issuer in clear, and no other way; all else of the
// body is as it came.
func TestForwardSubmit(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c, s := h.anybody(), h.session()
	l := h.accountLogin(account)
	pan := h.secret("5555555555554444")
	body := func(number string) string {
		return `{ "amount":10.5,"recipient":{"type":"card","account_number":` + number + `},"note":"é\u00e9" }`
	}
	sealed := func(s *sandbox.Session, text string) string {
		v := s.Seal(text)
		return fmt.Sprintf(`{"data":%q,"iv":%q}`, v.Data, v.IV)
	}
	payout := func(number string, header ...string) call {
		return l.call("POST", "/deals/payout", body(number), header...)
	}
	made := posted()
	made.rule = "call,fields"
	h.expect("sealed", c, payout(sealed(s, pan), "sessionid", s.ID()), made)
	if seen := h.lastSeen(); seen.BodySHA256 != sha256.Sum256([]byte(body(`"`+pan+`"`))) {
		t.Error("the issuer got another body")
	}
	h.expect("signed over what was sent", c, h.signed(payout(sealed(s, pan), "sessionid", s.ID())), made)
	h.expect("without the field", c, l.call("POST", "/deals/payout", `{"amount":1}`), posted())
	bad := want{status: 400, body: payError(400, "BAD_SESSION", "Invalid sessionid"), outcome: "bad_session"}
	in := func(w want, results ...string) want { w.results = results; return w }
	clear := want{status: 400, body: payError(400, "BAD_REQUEST", "Invalid request: body /recipient/account_number"), results: []string{"refused submitted_field"}, outcome: "bad_request"}
	h.expect("in clear", c, payout(`"`+pan+`"`, "sessionid", s.ID()), clear)
	h.expect("in clear, without a session", c, payout(`"`+pan+`"`), clear)
	h.expect("a number", c, payout(pan, "sessionid", s.ID()), clear)
	h.expect("half of it", c, payout(`{"data":"AAAA"}`, "sessionid", s.ID()), clear)
	h.expect("sealed, without a session", c, payout(sealed(s, pan)), in(bad, "refused no_preamble"))
	opens := in(bad, "intent", "refused open")
	opens.rule = "call,fields"
	h.expect("for another session", c, payout(sealed(h.session(), pan), "sessionid", s.ID()), opens)
	h.expect("what is no account", c, payout(sealed(s, "\x00\x01"), "sessionid", s.ID()), opens)
	weakly := h.readLogin(h.expect("by its key", c, loginCall(weak), loggedIn()))
	h.expect("of low assurance", c, weakly.call("POST", "/deals/payout", body(sealed(s, pan)), "sessionid", s.ID()),
		want{status: 403, body: payError(403, "FORBIDDEN", "Forbidden"), results: []string{"refused denied_no_policy"}, outcome: "forbidden"})
	if h.payments.Deals(payOwner) != 3 {
		t.Errorf("%d deals were made", h.payments.Deals(payOwner))
	}
}

// TestSubmittedOnce: what is sealed for the issuer is taken once, like a PIN; its caller may repeat the call under the idempotency key
// that it came with, and the issuer judges [28]. What was captured is good for nobody who has not that key.
func TestSubmittedOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: wide, store: use})
		c, s := h.anybody(), h.session()
		l := h.accountLogin(account)
		payout := func(header ...string) func() call {
			v := s.Seal(h.secret("5555555555554444"))
			x := l.call("POST", "/deals/payout", fmt.Sprintf(`{"amount":10,"recipient":{"account_number":{"data":%q,"iv":%q}}}`, v.Data, v.IV), append(header, "sessionid", s.ID())...)
			return func() call { return x }
		}
		made := posted()
		made.rule = "call,fields"
		again := want{status: 400, body: payError(400, "BAD_SESSION", "Invalid sessionid"), results: []string{"refused envelope_replayed"}, outcome: "bad_session", rule: "call,fields"}
		plain := payout()
		h.expect("once", c, plain(), made)
		h.expect("twice", c, plain(), again)
		h.expect("under a key, then", c, plain().with("Idempotency-Key", "one"), again)
		keyed := payout("Idempotency-Key", "two")
		h.expect("under a key", c, keyed(), made)
		h.expect("under the same key", c, keyed(), made)
		h.expect("under another key", c, keyed().without("Idempotency-Key").with("Idempotency-Key", "three"), again)
		h.expect("without a key", c, keyed().without("Idempotency-Key"), again)
		others := h.accountLogin(weak)
		h.expect("another account", c, keyed().without("Authorization").with("Authorization", "Bearer "+others.Access), again)
		elsewhere := keyed()
		elsewhere.path = "/deals/payin"
		if r := c.do(elsewhere); r.status == 200 {
			t.Error("another call takes it")
		}
		h.expect("another envelope", c, payout()(), made)
		if h.payments.Deals(payOwner) != 3 {
			t.Errorf("%d deals were made, want 3: the repetition is the issuer's to answer", h.payments.Deals(payOwner))
		}
	})
}

// TestForwardFieldsAreDecidedOneByOne: of two declared fields the one that no rule permits is masked in an answer, and refuses a body,
// whatever else is in it [14].
func TestForwardFieldsAreDecidedOneByOne(t *testing.T) {
	fields := map[string]vault.Field{"/account_number": vault.FieldPAN, "/holder": vault.FieldAccount}
	submit := map[string]vault.Field{"/number": vault.FieldPAN, "/code": vault.FieldCVC}
	h := newHouse(t, options{
		policies: policies + `
@id("not-these") forbid (principal, action in [Action::"forward.reveal.account", Action::"forward.submit.cvc"], resource);`,
		routes: forwarding(forwardOf("POST", "/deals/payin", exchange.WithoutMask, nil, submit), forwardOf("GET", "/deals/{id}/credentials", exchange.WithoutMask, fields, nil)),
	})
	c, s := h.anybody(), h.session()
	l := h.accountLogin(account)
	sealed := func(text string) string { v := s.Seal(text); return fmt.Sprintf(`{"data":%q,"iv":%q}`, v.Data, v.IV) }
	both := fmt.Sprintf(`{"amount":1,"number":%s,"code":%s}`, sealed(h.secret("5555555555554444")), sealed("123"))
	h.expect("submitted", c, l.call("POST", "/deals/payin", both, "sessionid", s.ID()),
		want{status: 403, body: payError(403, "FORBIDDEN", "Forbidden"), results: []string{"refused denied_field"}, rule: "call,fields", outcome: "forbidden"})
	w := called()
	w.rule = "call,fields"
	r := h.expect("shown", c, l.call("GET", dealWithCard+"/credentials", "", "sessionid", s.ID()), w)
	var v struct {
		Number json.RawMessage `json:"account_number"`
		Holder string
	}
	must(json.Unmarshal([]byte(r.body), &v))
	if opened(s, v.Number) != h.cards["pay-1"].PAN || v.Holder != "********lace" {
		t.Errorf("shown: a holder %q", v.Holder)
	}
}

// TestEgressGuard: an answer with a card number where none is declared is withheld, whatever its status and wherever the number
// stands, counted, and recorded as what it was; of a change, what became of it is unknown [16].
func TestEgressGuard(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c, s := h.anybody(), h.session()
	l := h.accountLogin(account)
	blocked := want{status: 502, body: payError(502, "BAD_GATEWAY", "Bad gateway"), results: []string{"failed egress_guard"}, rule: "call", outcome: "issuer_failed", upstream: 1}
	unknown := want{status: 504, body: payError(504, "OUTCOME_UNKNOWN", "It is not known whether the request was carried out"),
		results: []string{"intent", "unknown egress_guard"}, rule: "call", outcome: "outcome_unknown", upstream: 1}
	count := 0.0
	for name, fault := range map[string]sandbox.Fault{
		"member": sandbox.FaultPANInMember, "error text": sandbox.FaultPANInError, "content type": sandbox.FaultPANInHeader("Content-Type"),
	} {
		h.payments.SetFault(payOwner, fault)
		h.expect(name, c, l.call("GET", "/wallet", ""), blocked)
		h.expect(name+", of a change", c, l.call("POST", "/deals/payin", `{"amount":1}`), unknown)
		fields := blocked
		h.expect(name+", beside a masked field", c, l.call("GET", dealWithCard+"/credentials", ""), fields)
		fields.rule = "call,fields"
		h.expect(name+", beside a sealed field", c, l.call("GET", dealWithCard+"/credentials", "", "sessionid", s.ID()), fields)
		count += 4
		if got := h.metric("cardstile_egress_blocked_total", "issuer", "payments"); got != count {
			t.Errorf("%s: %v counted, want %v", name, got, count)
		}
	}
	// A header that nobody passes on does no harm.
	h.payments.SetFault(payOwner, sandbox.FaultPANInHeader("X-Trace"))
	if r := h.expect("header", c, l.wallet(), called()); strings.Contains(fmt.Sprint(r.header), h.cards["pay-1"].PAN) {
		t.Error("the header is passed on")
	}
	h.payments.SetFault(payOwner, sandbox.Fault{})
	h.expect("afterwards", c, l.wallet(), called())
	if h.metric("cardstile_issuer_open_circuit", "issuer", "payments") != 0 {
		t.Error("the circuit is open")
	}
}

// TestEgressGuardOverUndeclaredFields: a route that forgot to declare a field does not give it away.
func TestEgressGuardOverUndeclaredFields(t *testing.T) {
	h := newHouse(t, options{routes: forwarding(forwardOf("GET", "/deals/{id}/credentials", exchange.WithoutClear, nil, nil))})
	c := h.anybody()
	l := h.accountLogin(account)
	h.expect("a card", c, l.call("GET", dealWithCard+"/credentials", ""),
		want{status: 502, body: payError(502, "BAD_GATEWAY", "Bad gateway"), results: []string{"failed egress_guard"}, rule: "call", outcome: "issuer_failed", upstream: 1})
	h.expect("a bank account", c, l.call("GET", dealWithBank+"/credentials", ""), called())
}

// TestForwardAnswers: the issuer's refusals and failures are its words, with their status; what became of a change is recorded as
// they say it. What is no answer of an API is not passed on.
func TestForwardAnswers(t *testing.T) {
	t.Parallel() // it waits, mostly
	for _, http1 := range []bool{false, true} {
		h := newHouse(t, options{routes: wide, issuer: brief})
		c := h.callerWith(nil, !http1, nil)
		l := h.accountLogin(account)
		pass := func(status int, results ...string) want {
			return want{status: status, results: results, rule: "call", outcome: "done", upstream: 1}
		}
		r := h.expect("refused", c, l.call("POST", "/deals/payin", `{"amount":-1}`), pass(400, "intent", "refused"))
		if r.body != `{"error":"BAD_REQUEST","message":"amount is missing or not positive","statusCode":400}` {
			t.Errorf("refused: %s", r.body)
		}
		h.payments.SetFault(payOwner, sandbox.Fault500)
		r = h.expect("failed", c, l.wallet(), pass(500, "done"))
		if !strings.Contains(r.body, `"INTERNAL_SERVER_ERROR"`) {
			t.Errorf("failed: %s", r.body)
		}
		h.expect("a change that failed", c, l.call("POST", "/deals/payin", `{"amount":1}`), pass(500, "intent", "unknown"))
		for name, test := range map[string]struct {
			fault         sandbox.Fault
			reason        string
			read, changed int
		}{
			"a redirect":     {sandbox.FaultRedirect, "issuer_answer", 502, 504},
			"HTML":           {sandbox.FaultWrongContentType, "issuer_answer", 502, 504},
			"malformed":      {sandbox.FaultMalformedJSON, "issuer_answer", 502, 504},
			"too large":      {sandbox.FaultHugeBody, "issuer_too_large", 502, 504},
			"cut off":        {sandbox.FaultTruncatedBody, "issuer_lost", 502, 504},
			"disconnected":   {sandbox.FaultDisconnect, "issuer_lost", 502, 504},
			"out of time":    {sandbox.FaultHang, "issuer_timeout", 504, 504},
			"empty, with OK": {sandbox.FaultEmptyBody, "", 200, 200},
		} {
			h.waiting(test.reason == "issuer_timeout")
			h.payments.SetFault(payOwner, test.fault)
			read := want{status: test.read, body: payError(502, "BAD_GATEWAY", "Bad gateway"), results: []string{"failed " + test.reason}, rule: "call", outcome: "issuer_failed", upstream: -1}
			if test.read == 504 {
				read.body, read.outcome = payError(504, "GATEWAY_TIMEOUT", "Gateway timeout"), "issuer_timeout"
			}
			changed := want{status: test.changed, body: payError(504, "OUTCOME_UNKNOWN", "It is not known whether the request was carried out"),
				results: []string{"intent", "unknown outcome_unknown"}, rule: "call", outcome: "outcome_unknown", upstream: 1}
			if test.read == 200 {
				read, changed = called(), posted()
			}
			h.expect(name, c, l.wallet(), read)
			h.expect(name+", of a change", c, l.call("POST", "/deals/payin", `{"amount":1}`), changed)
		}
	}
}

// TestForwardChangesAreSentOnce: fifty at once are fifty at the issuer, each with its record before and after; a change whose
// connection breaks is not sent again.
func TestForwardChangesAreSentOnce(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	l := h.accountLogin(account)
	if got := h.race(50, func(int) call { return l.call("POST", "/deals/payin", `{"amount":1}`) }); got[200] != 50 || h.payments.Deals(payOwner) != 50 {
		t.Errorf("answers %v, %d deals", got, h.payments.Deals(payOwner))
	}
	phases := map[string]int{}
	for _, rec := range h.records() {
		phases[rec.Phase]++
	}
	if phases["intent"] != 50 || phases["outcome"] != 50 {
		t.Errorf("recorded %v", phases)
	}
}

// TestForwardHeaders: the issuer gets our credential and what we name; of the caller's headers the idempotency key alone. The caller
// gets the content type, and nothing else of the issuer's.
func TestForwardHeaders(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c := h.anybody()
	l := h.accountLogin(account)
	hostile := []string{
		"Cookie", "a=b", "X-Forwarded-For", "203.0.113.9", "Api-Key", "mine", "X-Request-Id", "caller", "Tracestate", "a=b", "Range", "bytes=0-1",
		"Accept-Encoding", "deflate, gzip", "Origin", evil, "Referer", evil, "X-Account", weak, "Sessionid-2", "x", "User-Agent", "evil/1.0", "Te", "trailers",
	}
	for name, x := range map[string]call{
		"read":   l.call("GET", "/wallet", "", hostile...),
		"change": h.signed(l.call("POST", "/deals/payin", `{"amount":1}`, append(hostile, "Idempotency-Key", "key-of-the-caller")...)),
	} {
		r := c.do(x)
		if r.status != 200 || r.header.Get("Content-Encoding") != "" {
			t.Fatalf("%s: %d %s", name, r.status, r.body)
		}
		names := slices.Sorted(func(yield func(string) bool) {
			for n := range r.header {
				if !yield(n) {
					return
				}
			}
		})
		if want := []string{"Cache-Control", "Content-Length", "Content-Type", "Date", "X-Content-Type-Options", "X-Request-Id"}; !slices.Equal(names, want) {
			t.Errorf("%s answers with %v", name, names)
		}
		seen := h.lastSeen()
		want := map[string]string{"Accept": "application/json", "User-Agent": "cardstile", "Authorization": "Bearer " + payKey, "X-Request-Id": r.header.Get("X-Request-Id")}
		if name == "change" {
			want["Content-Type"], want["Content-Length"], want["Idempotency-Key"] = "application/json", fmt.Sprint(len(x.body)), "key-of-the-caller"
		}
		for n, v := range seen.Header {
			if n != "Traceparent" && (len(v) != 1 || v[0] != want[n]) {
				t.Errorf("%s: the issuer got %s: %q", name, n, v)
			}
		}
		for n := range want {
			if seen.Header.Get(n) == "" {
				t.Errorf("%s: the issuer got no %s", name, n)
			}
		}
	}
	// It judges repetitions: they are passed on.
	again := l.call("POST", "/deals/payin", `{"amount":2}`, "Idempotency-Key", "two")
	first, second := h.expect("first", c, again, posted()), h.expect("second", c, again, posted())
	if first.body != second.body || h.payments.Deals(payOwner) != 2 {
		t.Errorf("%d deals", h.payments.Deals(payOwner))
	}
	again.body = `{"amount":3}`
	h.expect("another body", c, again, want{status: 409, results: []string{"intent", "refused"}, rule: "call", outcome: "done", upstream: 1})
	for _, key := range []string{"", " ", "with space", strings.Repeat("k", 256)} {
		h.expect("a key that is none", c, l.call("POST", "/deals/payin", `{"amount":2}`, "Idempotency-Key", key),
			want{status: 400, results: []string{"refused idempotency_key"}, outcome: "bad_request"})
	}
}

// TestForwardCredentials: an account's own credential goes before its partner's, and that before ours [3].
func TestForwardCredentials(t *testing.T) {
	h := newHouse(t, options{routes: wide, issuer: func(c *gateway.IssuerConfig) {
		c.PartnerCredentials = map[string]string{partnerID: "of-the-partner"}
		c.AccountCredentials = map[string]string{weak: "of-the-account"}
	}})
	c := h.anybody()
	for id, want := range map[string]string{account: "Bearer of-the-partner", weak: "Bearer of-the-account"} {
		c.do(h.accountLogin(id).wallet())
		if got := h.lastSeen().Header.Get("Authorization"); got != want {
			t.Errorf("%s calls as %q", id, got)
		}
	}
}

// TestSharedCredentials: where accounts are one to the issuer, the same idempotency key of two of them is two keys to it, each the
// same whenever it comes; where they are not, it gets theirs.
func TestSharedCredentials(t *testing.T) {
	for _, shared := range []bool{false, true} {
		h := newHouse(t, options{routes: wide, issuer: func(c *gateway.IssuerConfig) { c.Shared = shared }})
		c := h.anybody()
		first, second := h.accountLogin(account), h.accountLogin(weak)
		sent := func(l login, path string) string {
			r := c.do(l.call("POST", path, `{"amount":1}`, "Idempotency-Key", "order-1"))
			if collides := !shared && path != "/deals/payin"; r.status != 200 && !collides {
				t.Errorf("%d %s", r.status, r.body)
			}
			return h.lastSeen().Header.Get("Idempotency-Key")
		}
		a, b, again, elsewhere := sent(first, "/deals/payin"), sent(second, "/deals/payin"), sent(first, "/deals/payin"), sent(first, "/deals/payout")
		if !shared && (a != "order-1" || b != a || again != a) {
			t.Errorf("the issuer got %s, %s and %s, want order-1", a, b, again)
		}
		if shared && (a == b || again != a || a == elsewhere || !uuid4.MatchString(a) || !uuid4.MatchString(b)) {
			t.Errorf("shared: the issuer got %s, again %s, of another account %s, for another path %s", a, again, b, elsewhere)
		}
	}
}

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// TestForwardBodies: a body is passed on as it came, whether its length is stated or not; what no JSON reader takes in one way is
// refused, and nothing is sent.
func TestForwardBodies(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	l := h.accountLogin(account)
	const body = "{\n  \"amount\" : 1e1,\"x\":{\"y\":[null,true,\"\\u0041é\"]}}\n"
	for _, http2 := range []bool{false, true} {
		r, err := http.NewRequestWithContext(context.Background(), "POST", "https://"+h.gateway.Addr("public").String()+"/deals/payin", io.MultiReader(strings.NewReader(body)))
		must(err)
		r.Host = "localhost"
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		r.Header.Set("Authorization", "Bearer "+l.Access)
		answer, err := h.callerWith(nil, http2, nil).c.Do(r)
		must(err)
		answer.Body.Close()
		if seen := h.lastSeen(); answer.StatusCode != 200 || seen.BodySHA256 != sha256.Sum256([]byte(body)) {
			t.Errorf("chunked, HTTP/2 %t: %d, of %d bytes the issuer got %d", http2, answer.StatusCode, len(body), seen.BodyBytes)
		}
	}
	c := h.anybody()
	bad := want{status: 400, body: payError(400, "BAD_REQUEST", "Invalid request: body"), results: []string{"refused body"}, outcome: "bad_request"}
	for name, body := range map[string]string{
		"twice": `{"amount":1,"amount":2}`, "twice, inside": `{"amount":1,"x":{"a":1,"a":2}}`, "not JSON": `amount=1`, "cut off": `{"amount":1`, "two": `{} {}`,
		"no UTF-8": "{\"amount\":1,\"x\":\"\xff\"}", "deep": strings.Repeat(`{"a":`, 2000), "deep arrays": strings.Repeat("[", 2000), "half a surrogate": `{"x":"\ud800"}`,
	} {
		h.expect(name, c, l.call("POST", "/deals/payin", body), bad)
	}
	h.expect("text", c, l.call("POST", "/deals/payin", "{}").without("Content-Type").with("Content-Type", "text/plain"),
		want{status: 415, results: []string{"refused content_type"}, outcome: "unsupported_media"})
	h.expect("large", c, l.call("POST", "/deals/payin", `{"x":"`+strings.Repeat("x", 70_000)+`"}`),
		want{status: 413, results: []string{"refused body_too_large"}, outcome: "too_large"})
}
