package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
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

// only are the routes of one payroc face, whose issuer is as changed.
func only(change func(*gateway.IssuerConfig)) func(*house) []gateway.Route {
	return func(h *house) []gateway.Route { return []gateway.Route{h.payrocRoute(h.issuerKind("payroc", change))} }
}

// TestHostedFields: an API key becomes a Bearer, a Bearer a session, a page submits a card and gets a token, and a payment with the
// token takes the card to the issuer, once; each repetition is answered as its first call was, and what is spent stays so.
func TestHostedFields(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: wide, store: use})
		c := h.anybody()
		r := h.expect("authorize", c, authorizeCall(h.apiKeys["pages"]), pagesDo("authorize"))
		if !strings.HasSuffix(r.body, `","expires_in":3600,"scope":"hosted-fields","token_type":"Bearer"}`) {
			t.Error("the Bearer is not as Payroc's clients read it")
		}
		bearer := h.bearer("first")
		begin := sessionCall(bearer, terminal)
		created := pagesDo("page")
		created.status = 201
		p := fieldsPage{h, h.tokenOf(h.expect("session", c, begin, created))}
		if h.tokenOf(h.expect("session, again", c, begin, again(created))) != p.token {
			t.Error("a repetition began another session")
		}
		other := begin
		other.body = strings.Replace(begin.body, "{", "{ ", 1)
		h.expect("session, another body", c, other, want{status: 409, body: payrocOtherBody, results: []string{"refused idempotency_other_body"}, outcome: "other_body"})

		r = h.expect("configuration", c, p.configuration(), pagesDo("submit"))
		if want := `{"configuration":{"cardHolderNameMandatory":true,"allowExpiredCards":false,"tokenization":{"enabled":false,"cvvVerification":"mandatory"},"fraudDetection":{"cvvVerification":"mandatory"}}}`; r.body != want {
			t.Errorf("configuration %s", r.body)
		}
		for i, x := range p.fields() {
			cardType := ""
			if i == 1 {
				cardType = "visa"
			}
			submitted := pagesDo("submit")
			submitted.body = fmt.Sprintf(`{"info":{"showCvv":true,"cardType":%q}}`, cardType)
			h.expect("submit", c, x, submitted)
			h.expect("submit, again", c, x, again(submitted))
		}
		mint := p.mint()
		token := h.tokenOf(h.expect("mint", c, mint, pagesDo("submit")))
		minted := h.metric("cardstile_tokens_minted_total")
		if h.tokenOf(h.expect("mint, again", c, mint, again(pagesDo("submit")))) != token || h.metric("cardstile_tokens_minted_total") != minted {
			t.Error("a repetition minted another token")
		}

		pay := payCall(bearer, token)
		r = h.expect("pay", c, pay, paid())
		if err := h.took(1); err != nil {
			t.Error(err)
		}
		if seen := h.payroc.Requests(); len(seen) != 1 || seen[0].Header.Get("Idempotency-Key") != headerOf(pay, "Idempotency-Key") || len(seen[0].Header.Get("Sessionid")) < 256 {
			t.Error("the issuer got another idempotency key, or no session of ours")
		}
		same := h.expect("pay, again", c, pay, repaid(paid()))
		if same.body != r.body || same.header.Get("Content-Type") != r.header.Get("Content-Type") {
			t.Errorf("a repetition is answered %s, the first was %s", same.body, r.body)
		}
		if there := h.sibling(options{routes: only(nil)}).adopt(h).anybody().do(pay); there.status != 201 || there.body != r.body {
			t.Errorf("at another gateway: %d %s", there.status, there.body)
		}
		other = pay
		other.body = strings.Replace(pay.body, "4999.00", "4999", 1)
		h.expect("pay, another body", c, other, want{status: 409, body: payrocOtherBody, results: []string{"refused idempotency_other_body"}, outcome: "other_body"})
		h.expect("pay, under another key", c, payCall(bearer, token), notPaid("spent"))
		if h.tokenOf(h.expect("mint, once it is spent", c, mint, again(pagesDo("submit")))) != token {
			t.Error("a spent token was replaced")
		}
		h.expect("it stays spent", c, payCall(bearer, token), notPaid("spent"))
		if err := h.took(1); err != nil {
			t.Error(err)
		}
		for _, rec := range h.records() {
			if rec.Face == "payroc" && (rec.Issuer != "payroc" || rec.Partner != partnerID || rec.Card != "" || rec.User != "") {
				t.Errorf("recorded %+v", rec)
			}
		}
	})
}

// headerOf is the value of a call's header field.
func headerOf(x call, name string) string {
	for i := 0; i+1 < len(x.header); i += 2 {
		if strings.EqualFold(x.header[i], name) {
			return x.header[i+1]
		}
	}
	return ""
}

// TestSubmissionBecomesOneToken: what a page submitted is taken once, however many ask at once, and is gone then: for another token
// it is submitted anew, and a repetition of what was submitted before does not bring it back.
func TestSubmissionBecomesOneToken(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: only(nil), store: use})
		c, p := h.anybody(), h.page()
		missing := func(part, name string) want {
			return want{status: 400, body: payrocMissing(name), results: []string{"refused " + part}, rule: "submit", outcome: "bad_request"}
		}
		fields := p.fields()
		// The order in which what is missing is told.
		for _, test := range []struct {
			x    call
			name string
		}{{fields[1], "cardNumber"}, {fields[3], "expiryDate"}, {fields[0], "cardholderName"}, {fields[2], "cvv"}} {
			h.expect("without "+test.name, c, p.mint(), missing("card_incomplete", test.name))
			if r := c.do(test.x); r.status != 200 {
				t.Fatalf("submit: %d %s", r.status, r.body)
			}
		}
		if got := h.race(20, func(int) call { return p.mint() }); got[200] != 1 || got[400] != 19 {
			t.Errorf("of twenty mints: %v", got)
		}
		if h.metric("cardstile_tokens_minted_total") != 1 {
			t.Errorf("%v tokens were minted", h.metric("cardstile_tokens_minted_total"))
		}
		for _, x := range fields {
			h.expect("a submission, again", c, x, again(pagesDo("submit")))
		}
		h.expect("without resubmission", c, p.mint(), missing("card_incomplete", "cardNumber"))
		p.fill()
		first := h.tokenOf(h.expect("submitted anew", c, p.mint(), pagesDo("submit")))
		p.fill()
		if h.tokenOf(c.do(p.mint())) == first {
			t.Error("two submissions became one token")
		}
		h.expect("the first is as good", c, payCall(h.bearer("first"), first), paid())
	})
}

// stalling is a store in which what a page submitted is deleted once that is let.
type stalling struct {
	store.Store
	stalls atomic.Bool
}

func (s *stalling) Delete(ctx context.Context, k store.Kind, d store.Digest) error {
	if s.stalls.Load() {
		return store.ErrUnavailable
	}
	return s.Store.Delete(ctx, k, d)
}

// TestSubmissionThatCannotBeDeleted: the token is good, the operator is told, and what stayed becomes no second one.
func TestSubmissionThatCannotBeDeleted(t *testing.T) {
	s := &stalling{}
	h := newHouse(t, options{routes: only(nil), store: func(own store.Store) store.Store { s.Store = own; return s }})
	c, p := h.anybody(), h.page().fill()
	s.stalls.Store(true)
	token := h.tokenOf(h.expect("mint", c, p.mint(), pagesDo("submit")))
	h.expect("mint, under another key", c, p.mint(),
		want{status: 400, body: payrocMissing("cardNumber"), results: []string{"refused card_taken"}, rule: "submit", outcome: "bad_request"})
	h.expect("pay", c, payCall(h.bearer("first"), token), paid())
	if !strings.Contains(h.log.String(), "could not be deleted, and ends with its session") {
		t.Error("the operator was not told")
	}
}

// TestPaymentsOneWinner: of many payments with one token at once, each under a key of its own, one is made; under one key all that
// are answered are answered alike.
func TestPaymentsOneWinner(t *testing.T) {
	h := newHouse(t, options{routes: only(nil)})
	bearer, token := h.bearer("first"), h.held()
	if got := h.race(20, func(int) call { return payCall(bearer, token) }); got[201] != 1 || got[400] != 19 {
		t.Errorf("answers %v", got)
	}
	x := payCall(bearer, h.held())
	if got := h.race(20, func(int) call { return x }); got[201] == 0 || got[201]+got[503] != 20 {
		t.Errorf("under one key: %v", got)
	}
	if err := h.took(2); err != nil {
		t.Error(err)
	}
}

// elsewhere adds a face of the same kind under another name, behind certificates.
func elsewhere(h *house) []gateway.Route {
	is := h.issuerKind("payroc", nil)
	other := h.payrocRouteAs(is, "another")
	other.Listener = "partners"
	return []gateway.Route{h.payrocRoute(is), other}
}

// TestCardTokensOfOthers: a token pays for its partner alone, at the face that minted it, and a page's session is good there alone.
// Nothing is sent, and what was tried is on record.
func TestCardTokensOfOthers(t *testing.T) {
	h := newHouse(t, options{routes: elsewhere})
	c, own := h.anybody(), h.bearer("first")
	token := h.held()
	stolen := payCall(h.bearer("other"), token)
	stolen.body = strings.Replace(stolen.body, terminal, otherTerminal, 1)
	w := notPaid("partner")
	w.refused = "" // it was not asked for
	r := h.expect("another partner's Bearer", c, stolen, w)
	if last := h.records()[len(h.records())-1]; last.Partner != "gp-other" || last.Call != "POST /v1/payments" || last.Exchange != r.header.Get("X-Request-Id") {
		t.Errorf("recorded %+v", last)
	}
	h.expect("afterwards, its own", c, payCall(own, token), paid())
	if err := h.took(1); err != nil {
		t.Error(err)
	}

	token = h.held()
	x := payCall(own, token)
	x.listener = "partners"
	h.expect("at another face", h.partner(), x,
		want{status: 401, body: payrocUnauthorized, results: []string{"refused denied_bound"}, outcome: "unauthorized", redeemed: 1, refused: "bound"})
	h.expect("afterwards, at home", c, payCall(own, token), notPaid("spent"))

	p := h.page().fill()
	for name, x := range map[string]call{"configuration": p.configuration(), "submit": p.fields()[1], "mint": p.mint()} {
		x.listener = "partners"
		h.expect("a page at another face: "+name, h.partner(), x, badPage("bound"))
	}
	h.expect("at home", c, p.mint(), pagesDo("submit"))
	for name, bad := range map[string]struct{ token, reason string }{
		"garbage": {"garbage", "malformed"}, "nobody's": {strings.Repeat("A", 52), "unknown"}, "a page's session": {p.token, "malformed"}, "longer": {token + "A", "malformed"},
	} {
		h.expect(name, c, payCall(own, bad.token), notPaid(bad.reason))
	}
	if h.payroc.Total() != 1 {
		t.Error("the issuer was asked")
	}
}

// TestHostedScopes: a Bearer is good for what its key is good for [23]. What it is not good for spends nothing.
func TestHostedScopes(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c, token := h.anybody(), h.held()
	pages, payments := h.bearer("pages"), h.bearer("payments")
	forbidden := func(resource string) want {
		return want{status: 403, body: payrocForbidden(resource), results: []string{"refused scope"}, outcome: "forbidden"}
	}
	h.expect("a payment by who has pages", c, payCall(pages, token), forbidden("payments"))
	h.expect("a page by who has payments", c, sessionCall(payments, terminal), forbidden("processing-terminals"))
	h.expect("a payment by who may", c, payCall(payments, token), paid())
	created := pagesDo("page")
	created.status = 201
	h.expect("a page by who may", c, sessionCall(pages, terminal), created)
	for name, x := range map[string]call{
		"an API key for a Bearer": sessionCall(h.apiKeys["first"], terminal), "a page's session for a Bearer": sessionCall(h.page().token, terminal),
		"a card's token for a Bearer": sessionCall(h.held(), terminal),
	} {
		h.expect(name, c, x, want{status: 401, body: payrocUnauthorized, results: []string{"refused jwt_malformed"}, outcome: "unauthorized"})
	}
	h.expect("an API key of production", c, authorizeCall(h.apiKeys["production"]),
		want{status: 403, body: payrocForbidden("authorize"), results: []string{"refused denied_environment"}, outcome: "forbidden"})
	for name, key := range map[string]string{"revoked": h.apiKeys["revoked"], "garbage": "garbage"} {
		if r := c.do(authorizeCall(key)); r.status != 401 || r.body != payrocUnauthorized {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	h.expect("no API key", c, authorizeCall("").without("X-Api-Key"), want{status: 401, body: payrocUnauthorized, results: []string{"refused no_credential"}, outcome: "unauthorized"})
	h.expect("a key with a scope at a face that has another", c, h.bridgeCall("pages", "GET", "cus-rain", "ca-rain", "", ""),
		want{status: 403, body: bridgeForbidden, results: []string{"refused scope"}, outcome: "forbidden"})
	h.expect("no Bearer", c, sessionCall(pages, terminal).without("Authorization"),
		want{status: 401, body: payrocUnauthorized, results: []string{"refused no_credential"}, outcome: "unauthorized"})
}

// TestTerminals: another partner's terminal is like one that is not there, and a payment that names one spends nothing.
func TestTerminals(t *testing.T) {
	h := newHouse(t, options{routes: only(nil)})
	c, bearer, token := h.anybody(), h.bearer("first"), h.held()
	for name, id := range map[string]string{"another's": otherTerminal, "nobody's": "5555555"} {
		h.expect("a session at "+name, c, sessionCall(bearer, id),
			want{status: 403, body: payrocForbidden("processing-terminals"), results: []string{"refused terminal"}, outcome: "not_found", rule: "page"})
	}
	notFound := want{status: 404, body: payrocProblem(404, "not-found", "Not found", "The resource does not exist", `,"resource":"payments"`), results: []string{"refused terminal"}, outcome: "not_found"}
	for name, member := range map[string]string{
		"another's": `"9999001"`, "nobody's": `"5555555"`, "none": `""`, "null": "null", "a number": "1234001", "a list": `["1234001"]`,
	} {
		x := payCall(bearer, token)
		x.body = strings.Replace(x.body, `"`+terminal+`"`, member, 1)
		h.expect("a payment at "+name, c, x, notFound)
	}
	x := payCall(bearer, token)
	x.body = strings.Replace(x.body, terminal, "1234002", 1)
	w := notPaid("bound")
	w.redeemed = 1
	h.expect("a payment at the partner's other one", c, x, w)
	h.expect("afterwards, at its own", c, payCall(bearer, token), notPaid("spent"))
	p := h.pageOf("first", "1234002").fill()
	x.body = strings.Replace(x.body, token, h.tokenOf(c.do(p.mint())), 1)
	h.expect("a card for the partner's other one, there", c, x.without("Idempotency-Key").with("Idempotency-Key", uuid()), paid())

	// One that names none is for the issuer to judge, which has more than one here.
	x = payCall(bearer, h.held())
	x.body = strings.Replace(x.body, `"processingTerminalId":"1234001",`, "", 1)
	before := h.payroc.Total()
	if r := c.do(x); r.status != 400 || h.payroc.Total() != before+1 {
		t.Errorf("%d %s, asked %d times", r.status, r.body, h.payroc.Total()-before)
	}
}

// TestPagesClaimTheirSession: the page that asks first, by its idempotency key, has the session; one that asks with another key is
// told what is told of a session that is none, on every instance [23].
func TestPagesClaimTheirSession(t *testing.T) {
	h := newHouse(t, options{routes: only(nil)})
	c, p := h.anybody(), h.page()
	first := p.configuration()
	h.expect("first", c, first, pagesDo("submit"))
	late := badPage("bound")
	late.rule = "submit"
	h.expect("second", c, p.configuration(), late)
	h.expect("first, again", c, first, pagesDo("submit"))
	there := h.sibling(options{routes: only(nil)})
	there.expect("second, at another gateway", there.anybody(), p.configuration(), late)
	h.expect("without a key", c, first.without("Idempotency-Key"), want{status: 400, results: []string{"refused no_idempotency_key"}, outcome: "bad_request"})
}

// TestPagesThatAreOver: a session lasts ten minutes, a token thirty; what is over is like what never was.
func TestPagesThatAreOver(t *testing.T) {
	fast := &hasty{}
	h := newHouse(t, options{routes: only(nil), store: func(own store.Store) store.Store { fast.Store = own; return fast }})
	c, p := h.anybody(), h.page().fill()
	begin := sessionCall(h.bearer("first"), terminal)
	token := h.tokenOf(c.do(begin))
	h.skew.Store(int64(10*time.Minute - 10*time.Second))
	h.expect("in time", c, p.fields()[2], pagesDo("submit"))
	h.skew.Store(int64(10*time.Minute + time.Second))
	for name, x := range map[string]call{"configuration": p.configuration(), "submit": p.fields()[1], "mint": p.mint()} {
		h.expect(name, c, x, badPage("expired"))
	}
	if h.tokenOf(c.do(begin)) != token {
		t.Error("a repetition began another session in place of one that is over")
	}
	h.expect("it is over all the same", c, fieldsPage{h, token}.configuration(), badPage("expired"))
	for name, bad := range map[string]struct{ token, reason string }{
		"garbage": {"garbage", "malformed"}, "nobody's": {strings.Repeat("A", 47), "unknown"}, "escaped": {p.token[:40] + "%0A" + p.token[41:], "malformed"},
	} {
		h.expect(name, c, fieldsPage{h, bad.token}.configuration(), badPage(bad.reason))
	}
	// What was typed in waits for half an hour in all, from the session's beginning on.
	h.skew.Store(-int64(9 * time.Minute))
	p = h.page().fill()
	h.skew.Store(0)
	var minted struct {
		Expires time.Time `json:"expiresAt"`
	}
	must(json.Unmarshal([]byte(c.do(p.mint()).body), &minted))
	if left := time.Until(minted.Expires); left > 21*time.Minute || left < 20*time.Minute {
		t.Errorf("a token nine minutes after the session's beginning lasts for %v", left)
	}
	fast.life.Store(int64(time.Millisecond))
	brief := h.held()
	time.Sleep(5 * time.Millisecond)
	h.expect("a token that is over", c, payCall(h.bearer("first"), brief), notPaid("unknown"))
	if h.payroc.Total() != 0 {
		t.Error("the issuer was asked")
	}
}

// hasty is a store whose tokens of cards are over sooner.
type hasty struct {
	store.Store
	life atomic.Int64 // nanoseconds; 0 is as long as was asked for
}

func (s *hasty) Mint(ctx context.Context, k store.Kind, d store.Digest, v []byte, ttl time.Duration) error {
	if life := s.life.Load(); k == store.KindCard && life > 0 {
		ttl = time.Duration(life)
	}
	return s.Store.Mint(ctx, k, d, v, ttl)
}

// TestBearersEndWithTheirKey: a key that is revoked has no Bearers and no pages from the next reload on; a card's token is the
// partner's, and ends with the partner's switch.
func TestBearersEndWithTheirKey(t *testing.T) {
	h := newHouse(t, options{routes: only(nil)})
	c, first, second := h.anybody(), h.bearer("first"), h.bearer("second")
	p, token := h.page().fill(), h.held()
	all, err := credential.List(h.keyFile)
	must(err)
	must(credential.Revoke(h.keyFile, all[0].ID, time.Now()))
	h.reload()
	over := want{status: 401, body: payrocUnauthorized, results: []string{"refused jwt_login"}, outcome: "unauthorized"}
	h.expect("a page, revoked", c, sessionCall(first, terminal), over)
	h.expect("a payment, revoked", c, payCall(first, token), over)
	h.expect("a Bearer, revoked", c, authorizeCall(h.apiKeys["first"]),
		want{status: 401, body: payrocUnauthorized, results: []string{"refused api_key_unknown"}, outcome: "unauthorized"})
	gone := badPage("login")
	gone.results = []string{"refused jwt_login"}
	for name, x := range map[string]call{"configuration": p.configuration(), "submit": p.fields()[1], "mint": p.mint()} {
		h.expect("a page that began with it: "+name, c, x, gone)
	}
	h.expect("a payment with the other key's", c, payCall(second, token), paid())
	h.skew.Store(int64(time.Hour + time.Second))
	h.expect("after an hour", c, sessionCall(second, terminal), want{status: 401, body: payrocUnauthorized, results: []string{"refused jwt_expired"}, outcome: "unauthorized"})
	h.skew.Store(0)

	q, token := h.pageOf("second", terminal).fill(), h.tokenOf(c.do(h.pageOf("second", terminal).fill().mint()))
	h.o.partners = demoPartners(func(p *policy.Partner) { p.Disabled = true })
	h.reload()
	off := func(resource string) want {
		return want{status: 403, body: payrocForbidden(resource), results: []string{"refused denied_disabled"}, outcome: "forbidden"}
	}
	h.expect("a submission, switched off", c, q.fields()[1], off("hosted-fields-sessions"))
	h.expect("a mint, switched off", c, q.mint(), off("hosted-fields-sessions"))
	h.expect("a session, switched off", c, sessionCall(second, terminal), off("processing-terminals"))
	h.expect("a payment, switched off", c, payCall(second, token), off("payments"))
}

// TestHostedDecisions: number and security code are each a decision, where they are submitted and where they are paid with.
func TestHostedDecisions(t *testing.T) {
	for _, field := range []string{"pan", "cvc"} {
		forbid := fmt.Sprintf("\n@id(\"no\") forbid (principal, action == Action::\"field.submit.%s\", resource);", field)
		h := newHouse(t, options{routes: only(nil), policies: policies + forbid})
		c, p := h.anybody(), h.page()
		for i, x := range p.fields() {
			w := pagesDo("submit")
			if i == map[string]int{"pan": 1, "cvc": 2}[field] {
				w = want{status: 403, body: payrocForbidden("hosted-fields-sessions"), results: []string{"refused denied_forbidden"}, rule: "no", outcome: "forbidden"}
			}
			h.expect(fmt.Sprintf("%s, submission %d", field, i), c, x, w)
		}
		h.expect("without it", c, p.mint(), want{
			status: 400, body: payrocMissing(map[string]string{"pan": "cardNumber", "cvc": "cvv"}[field]), results: []string{"refused card_incomplete"}, rule: "submit", outcome: "bad_request",
		})
		h.o.policies = policies + strings.Replace(forbid, "field.submit", "forward.submit", 1)
		h.reload()
		h.expect("pay", c, payCall(h.bearer("first"), h.held()),
			want{status: 403, body: payrocForbidden("payments"), results: []string{"refused denied_field"}, rule: "call,fields", outcome: "forbidden", redeemed: 1})
	}
	// A page's session does what pages do, and a token pays where a rule says so.
	h := newHouse(t, options{routes: only(nil), policies: strings.Replace(policies, "Action::\"field.submit\", ", "", 1)})
	h.expect("submissions that no rule permits", h.anybody(), h.page().fields()[0],
		want{status: 403, body: payrocForbidden("hosted-fields-sessions"), results: []string{"refused denied_no_policy"}, outcome: "forbidden"})
}

// TestBadSubmissions: a field that is not what it must be is told so by its name, nothing of it is quoted, and nothing is kept.
func TestBadSubmissions(t *testing.T) {
	k := &keeping{}
	h := newHouse(t, options{routes: only(nil), store: func(own store.Store) store.Store { k.Store = own; return k }})
	c, p := h.anybody(), h.page()
	pan := h.cards["held"].PAN
	wrong := pan[:15] + string('0'+(pan[15]-'0'+1)%10)
	h.secret(wrong)
	for name, test := range map[string]struct {
		x               call
		at, reason, end string
	}{
		"another check digit":      {p.submit("cardNumber", wrong), "cardNumber", "field", ""},
		"letters":                  {p.submit("cardNumber", "4111x11111111111"), "cardNumber", "field", ""},
		"a code of two":            {p.submit("cvv", "12"), "cvv", "card_field", "submit"},
		"a code of letters":        {p.submit("cvv", "abc"), "cvv", "card_field", "submit"},
		"a month that is over":     {p.submit("expiryDate", "0120"), "expiryDate", "field", ""},
		"no month":                 {p.submit("expiryDate", "1330"), "expiryDate", "field", ""},
		"a number for a name":      {p.submit("cardholderName", pan), "cardholderName", "", ""},
		"another type":             {p.submit("pin", "1234"), "type", "field_type", ""},
		"a second field beside it": {p.call("POST", "/fields", fmt.Sprintf(`{"type":"cvv","cvv":"123","cardNumber":%q}`, pan)), "cardNumber", "field_of_another_type", ""},
	} {
		r := c.do(test.x)
		if r.status != 400 || !strings.Contains(r.body, fmt.Sprintf(`"parameter":%q`, test.at)) || strings.Contains(r.body, pan[:6]) {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
		if last := h.records()[len(h.records())-1]; test.reason != "" && (last.Result != "refused" || last.Reason != test.reason || last.Rule != test.end) {
			t.Errorf("%s: recorded %+v", name, last)
		}
	}
	if n := len(k.values["fields_submit"]); n != 0 {
		t.Errorf("%d submissions are kept", n)
	}
}

// TestPaymentsThatFail: whether or not the payment was sent, the token is used up, and what was answered is what each repetition is
// answered: it cannot be made again, and nobody makes it twice [17, 28].
func TestPaymentsThatFail(t *testing.T) {
	nowhere, err := url.Parse("https://127.0.0.1:1")
	must(err)
	for name, test := range map[string]struct {
		change func(*gateway.IssuerConfig)
		fault  sandbox.Fault
		want   want
		taken  int // payments that the issuer took all the same
	}{
		"not sent": {func(c *gateway.IssuerConfig) { c.URL = nowhere }, sandbox.Fault{},
			want{status: 502, body: payrocFailure(502, payrocApology), results: []string{"intent", "refused issuer_unreachable"}, outcome: "issuer_failed"}, 0},
		"no answer": {quick, sandbox.FaultHang,
			want{status: 504, body: payrocFailure(504, payrocOpen), results: []string{"intent", "unknown outcome_unknown"}, outcome: "outcome_unknown", upstream: 1}, 1},
		"cut off": {brief, sandbox.FaultDisconnect,
			want{status: 504, body: payrocFailure(504, payrocOpen), results: []string{"intent", "unknown outcome_unknown"}, outcome: "outcome_unknown", upstream: 1}, 1},
		"a card number in the answer": {brief, sandbox.FaultPANInMember,
			want{status: 504, body: payrocFailure(504, payrocOpen), results: []string{"intent", "unknown egress_guard"}, outcome: "outcome_unknown", upstream: 1}, 1},
		"failed": {brief, sandbox.Fault500,
			want{status: 500, results: []string{"intent", "unknown"}, outcome: "done", upstream: 1}, 0},
	} {
		h := newHouse(t, options{routes: only(test.change)})
		c := h.anybody()
		h.payroc.SetFault(terminal, test.fault)
		token := h.held()
		x := payCall(h.bearer("first"), token)
		test.want.rule, test.want.redeemed = "call,fields", 1
		first := h.expect(name, c, x, test.want)
		h.payroc.SetFault(terminal, sandbox.Fault{})
		kept := repaid(test.want)
		kept.outcome = "done"
		if same := h.expect(name+", again", c, x, kept); same.body != first.body {
			t.Errorf("%s: %s, the first was %s", name, same.body, first.body)
		}
		h.expect(name+", under another key", c, payCall(headerBearer(x), token), notPaid("spent"))
		if n := len(h.payroc.Payments()); n != test.taken {
			t.Errorf("%s: %d payments", name, n)
		}
	}
	// The issuer's own refusal is its words, and is kept as well.
	h := newHouse(t, options{routes: only(nil)})
	c := h.anybody()
	h.payroc.SetFault(terminal, sandbox.Fault{})
	x := payCall(h.bearer("first"), h.tokenOf(c.do(h.expired().mint())))
	refused := want{status: 400, results: []string{"intent", "refused"}, rule: "call,fields", outcome: "done", upstream: 1, redeemed: 1}
	if r := h.expect("a card that is over", c, x, refused); !strings.Contains(r.body, "paymentMethod.cardDetails.expiryDate") {
		t.Errorf("answered %s", r.body)
	}
	h.expect("a card that is over, again", c, x, repaid(refused))
}

// TestPaymentWhoseAnswerIsLost: where an instance dies before it has kept what a payment was answered, the next one finds the token
// used up, and makes no second payment.
func TestPaymentWhoseAnswerIsLost(t *testing.T) {
	s := &short{lease: 300 * time.Millisecond}
	h := newHouse(t, options{routes: only(nil), store: func(own store.Store) store.Store { s.Store = own; return s }})
	c, x := h.anybody(), payCall(h.bearer("first"), h.held())
	s.dies.Store(true)
	h.expect("pay", c, x, paid())
	s.dies.Store(false)
	var r reply
	eventually(t, "somebody takes over", func() bool { r = c.do(x); return r.status != 503 })
	if last := h.records()[len(h.records())-1]; r.status != 400 || r.body != payrocBadToken || last.Reason != "card_token_spent" {
		t.Errorf("%d %s, recorded %+v", r.status, r.body, last)
	}
	if err := h.took(1); err != nil {
		t.Error(err)
	}
}

// TestKeptPaymentsNeedTheirToken: what a payment was answered is kept for its repetitions so that nobody but who has the token reads
// it, not even with all of our keys.
func TestKeptPaymentsNeedTheirToken(t *testing.T) {
	k := &keeping{}
	h := newHouse(t, options{routes: only(nil), store: func(own store.Store) store.Store { k.Store = own; return k }})
	h.expect("pay", h.anybody(), payCall(h.bearer("first"), h.held()), paid())
	all := k.values["idempotent"]
	begun, kept := all[len(all)-2], all[len(all)-1]
	plain, err := h.config.Answers.Open(nil, append([]byte("cardstile idempotent answer v1"), begun...), kept[32:])
	if err != nil || !bytes.Contains(plain, []byte("application/json")) {
		t.Fatalf("what is kept does not open: %v", err)
	}
	for _, text := range []string{"paymentId", "transactionResult", terminal, h.cards["held"].PAN[:6]} {
		if bytes.Contains(plain, []byte(text)) {
			t.Errorf("%s can be read", text)
		}
	}
}

// headerBearer is a call's Bearer.
func headerBearer(x call) string { return strings.TrimPrefix(headerOf(x, "Authorization"), "Bearer ") }

// expired is a page that submitted a card whose month is over for the issuer and, at UTC−12, not yet for us: or, where it is no such
// hour, one that the clock of the face has not seen end.
func (h *house) expired() fieldsPage {
	h.t.Helper()
	p := h.page().fill()
	token, holder := p.token, h.hosted().Holder
	sealed, err := holder.HoldDetail(token, 1, "0120")
	must(err)
	must(h.hosted().Sessions.PutPart(context.Background(), policy.NewCredential(policy.KindFields, token), credential.PartExpiry, sealed))
	return p
}

// TestPaymentsThatAreNotMade: before a token is used up, everything that can be asked is asked: what is shed or limited there leaves
// it as it was.
func TestPaymentsThatAreNotMade(t *testing.T) {
	h := newHouse(t, options{routes: only(brief)})
	c, bearer, token := h.anybody(), h.bearer("first"), h.held()
	h.payroc.SetFault(terminal, sandbox.FaultDisconnect)
	for range 20 { // the circuit opens
		c.do(payCall(bearer, h.held()))
	}
	h.payroc.SetFault(terminal, sandbox.Fault{})
	x := payCall(bearer, token)
	h.expect("an open circuit", c, x, want{status: 503, body: payrocFailure(503, payrocApology), retryAfter: true, results: []string{"failed shed_circuit"}, outcome: "unavailable", shed: "circuit"})
	for name, bad := range map[string]call{
		"no key": x.without("Idempotency-Key"), "no UUID": x.without("Idempotency-Key").with("Idempotency-Key", "one"),
		"text": x.without("Content-Type").with("Content-Type", "text/plain"),
	} {
		if r := c.do(bad); r.status/100 != 4 {
			t.Errorf("%s: %d", name, r.status)
		}
	}
	clear := x
	clear.body = strings.Replace(x.body, "singleUseToken", "card", 1)
	h.expect("a card in place of a token", c, clear, want{status: 400, results: []string{"refused card_token_type"}, outcome: "bad_request"})
	h.reload() // a new circuit
	h.expect("afterwards", c, x, paid())
}

// TestPaymentsThatCannotBeRead: who calls is asked before what is wrong with the body is told, and the key before the body.
func TestPaymentsThatCannotBeRead(t *testing.T) {
	h := newHouse(t, options{routes: only(nil)})
	c, token := h.anybody(), h.held()
	x := payCall(h.bearer("first"), token)
	for name, body := range map[string]string{
		"cut off": x.body[:len(x.body)-1], "a member twice": strings.Replace(x.body, "{", `{"processingTerminalId":"1234001",`, 1), "no object": "[1", "no UTF-8": "{\"a\":\"\xff\"}",
	} {
		bad := x
		bad.body = body
		h.expect(name, c, bad, want{status: 400, results: []string{"refused body"}, outcome: "bad_request"})
		h.expect(name+", by nobody", c, bad.without("Authorization"), want{status: 401, body: payrocUnauthorized, results: []string{"refused no_credential"}, outcome: "unauthorized"})
		h.expect(name+", by a stranger", c, bad.without("Authorization").with("Authorization", "Bearer a.b.c"),
			want{status: 401, body: payrocUnauthorized, results: []string{"refused jwt_malformed"}, outcome: "unauthorized"})
		h.expect(name+", without a key", c, bad.without("Idempotency-Key"), want{status: 400, results: []string{"refused no_idempotency_key"}, outcome: "bad_request"})
	}
	h.expect("afterwards", c, x, paid())
}

// TestCardsWithoutACode: a network whose cards have no security code needs none; of all others it is missed, and one that was
// submitted reaches the issuer.
func TestCardsWithoutACode(t *testing.T) {
	h := newHouse(t, options{routes: only(nil)})
	c, p := h.anybody(), h.page()
	const number = "8600001234567894"
	h.secret(number)
	c.do(p.submit("cardholderName", holderName))
	c.do(p.submit("expiryDate", "1230"))
	submitted := pagesDo("submit")
	submitted.body = `{"info":{"showCvv":false,"cardType":"uzcard"}}`
	h.expect("number", c, p.submit("cardNumber", number), submitted)
	token := h.tokenOf(h.expect("mint", c, p.mint(), pagesDo("submit")))
	h.expect("pay", c, payCall(h.bearer("first"), token), paid())
	if taken := h.payroc.Payments(); len(taken) != 1 || taken[0].NumberSHA256 != sha256.Sum256([]byte(number)) || taken[0].CodeSHA256 != [32]byte{} {
		t.Error("the issuer has another card")
	}
}

// TestPaymentsThatSayTooMuch: what a receiver may read in another way than we do is refused where it stands, and the token is as it was:
// a query beside the body, and a card number beside the token.
func TestPaymentsThatSayTooMuch(t *testing.T) {
	h := newHouse(t, options{routes: only(nil)})
	c, x := h.anybody(), payCall(h.bearer("first"), h.held())
	asked := x
	asked.path += "?processingTerminalId=" + otherTerminal
	h.expect("a query", c, asked, want{status: 400, results: []string{"refused query"}, outcome: "bad_request"})
	for _, member := range []string{"note", "cardNumber", "4111111111111111"} {
		named := x.over(fmt.Sprintf(`{%q:%q,`, member, h.cards["held"].PAN))
		h.expect("a card number in "+member, c, named, want{status: 400, results: []string{"refused card_number_in_clear"}, outcome: "bad_request"})
	}
	h.expect("afterwards", c, x, paid())
}

// TestPageLimits: a page's session has a limit of its own, and what pages do leaves their partner's backend its own; a payment
// beyond the partner's limit does not use its token up.
func TestPageLimits(t *testing.T) {
	limited := func(limit string) want {
		return limitedWant("", limit)
	}
	h := newHouse(t, options{routes: only(nil), config: func(_ *house, c *gateway.Config) { c.Limits.Page = perHour(3) }})
	c, p, q := h.anybody(), h.page(), h.page()
	for range 3 {
		h.expect("within", c, p.fields()[0], pagesDo("submit"))
	}
	h.expect("beyond", c, p.fields()[0], limited("page"))
	h.expect("another page", c, q.fields()[0], pagesDo("submit"))

	h = newHouse(t, options{routes: only(nil)})
	c = h.anybody()
	own, x := h.bearer("first"), payCall(h.bearer("first"), h.held())
	p = h.page()
	h.o.partners = demoPartners(func(p *policy.Partner) { p.Rate = perHour(1) })
	h.o.config = func(_ *house, c *gateway.Config) { c.CardDigest = mac(keys.UseDigest, "counted anew") }
	h.reload()
	h.expect("a page's first", c, p.fields()[0], pagesDo("submit"))
	over := limited("partner")
	over.rule = "submit"
	h.expect("a page's second", c, p.fields()[1], over)
	created := pagesDo("page")
	created.status = 201
	h.expect("the backend's first", c, sessionCall(own, terminal), created)
	h.expect("the backend's second: a payment", c, x, limited("partner"))
	h.o.config, h.o.partners = nil, demoPartners()
	h.reload()
	h.expect("afterwards", c, x, paid())
}

// TestSubmittedDigestNeedsTheSession: what is kept of a submission tells a repetition, and nobody who has the store and all keys can
// try card numbers or codes against it: it is made of the page's session and the text of its key too, which nothing keeps [11].
func TestSubmittedDigestNeedsTheSession(t *testing.T) {
	k := &keeping{}
	h := newHouse(t, options{routes: only(nil), store: func(own store.Store) store.Store { k.Store = own; return k }})
	p := h.page()
	before := len(k.values["idempotent"])
	x := p.fields()[2]
	h.anybody().do(x)
	kept := k.values["idempotent"][before] // of Begin: where, and the body's digest
	sized := func(text string) []byte {
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...)
	}
	digest := func(secret []byte) []byte {
		sum := sha256.Sum256([]byte(x.body))
		return mac(keys.UseDigest, "card").MAC(nil, append(append([]byte("idempotency body\x00"), sum[:]...), secret...))
	}
	key := headerOf(x, "Idempotency-Key")
	if !bytes.Equal(kept[32:], digest(slices.Concat(sized(key), sized(p.token)))) {
		t.Fatal("the digest is made in another way: the test looks at nothing")
	}
	guesses := map[string][]byte{
		"nothing": nil, "empty texts": slices.Concat(sized(""), sized("")), "the key alone": sized(key), "the key": slices.Concat(sized(key), sized("")),
		"the session": slices.Concat(sized(""), sized(p.token)),
	}
	for what, secret := range guesses {
		guess := digest(secret)
		for kind, all := range k.values {
			for _, value := range all {
				if bytes.Contains(value, guess) {
					t.Errorf("whoever has %s finds the code by what is kept of kind %s", what, kind)
				}
			}
		}
	}
}

// TestSeedsNeedTheSession: of a token, and of a page's session, a salt is kept: who has that and all keys does not make them again.
func TestSeedsNeedTheSession(t *testing.T) {
	k := &keeping{}
	h := newHouse(t, options{routes: only(nil), store: func(own store.Store) store.Store { k.Store = own; return k }})
	c := h.anybody()
	made := h.hosted()
	begin := sessionCall(h.bearer("first"), terminal)
	p := fieldsPage{h, h.tokenOf(c.do(begin))}
	sessions := slices.Clone(k.values["idempotent"])
	p.fill()
	mint := p.mint()
	token := h.tokenOf(c.do(mint))
	cards := k.values["idempotent"]
	sized := func(text string) []byte {
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...)
	}
	for name, test := range map[string]struct {
		begun, kept []byte // of Begin and Finish
		secret      []byte
		again       func(string, credential.Seed) (string, error)
		token       string
	}{
		"session": {sessions[0], sessions[1], slices.Concat(sized(headerOf(begin, "Idempotency-Key")), sized("")), made.Sessions.Again, p.token},
		"token":   {cards[len(cards)-2], cards[len(cards)-1], slices.Concat(sized(headerOf(mint, "Idempotency-Key")), sized(p.token)), made.Cards.Again, token},
	} {
		plain, err := h.config.Answers.Open(nil, append([]byte("cardstile idempotent answer v1"), test.begun...), test.kept[32:])
		must(err)
		seed := plain[13 : 13+binary.BigEndian.Uint16(plain[11:])] // after version, status and time
		raw, err := base64.RawURLEncoding.DecodeString(test.token)
		must(err)
		if bytes.Contains(plain, []byte(test.token)) || bytes.Contains(plain, raw[7:]) {
			t.Errorf("%s: it is kept", name)
		}
		grow := func(secret []byte) string {
			parsed, err := credential.ParseSeed(seed, slices.Concat(test.begun, secret))
			must(err)
			text, err := test.again(partnerID, parsed)
			must(err)
			return text
		}
		if grow(test.secret) != test.token {
			t.Errorf("%s: it is made in another way: the test looks at nothing", name)
		}
		for _, secret := range [][]byte{nil, slices.Concat(sized(""), sized("")), test.secret[:2]} {
			if grow(secret) == test.token {
				t.Errorf("%s: it is made of what is kept", name)
			}
		}
	}
}

// TestPagesOfShops: pages of the route's origins may call and read; those of others may not.
func TestPagesOfShops(t *testing.T) {
	h := newHouse(t, options{routes: only(nil)})
	c, p := h.anybody(), h.page()
	for _, x := range []call{p.configuration(), p.fields()[1], p.mint()} {
		asked := preflightCall(x.path, origin, x.method, "Access-Control-Request-Headers", "idempotency-key,content-type")
		if got := corsOf(c.do(asked)); got != "Access-Control-Allow-Headers: Idempotency-Key, Content-Type\nAccess-Control-Allow-Methods: "+x.method+
			"\nAccess-Control-Allow-Origin: "+origin+"\nAccess-Control-Max-Age: 600\nVary: Origin" {
			t.Errorf("%s:\n%s", x.path, got)
		}
		asked = preflightCall(x.path, evil, x.method)
		if r := c.do(asked); r.status != 403 || corsOf(r) != "Vary: Origin" {
			t.Errorf("%s: %d\n%s", x.path, r.status, corsOf(r))
		}
	}
	if got := corsOf(c.do(p.configuration().with("Origin", origin))); got != "Access-Control-Allow-Origin: "+origin+"\nVary: Origin" {
		t.Error(got)
	}
	if got := corsOf(c.do(fieldsPage{h, "garbage"}.configuration().with("Origin", evil))); got != "Vary: Origin" {
		t.Error(got)
	}
}

// TestCardTokensCannotBeForged: what of one token is sealed in the store opens under no other.
func TestCardTokensCannotBeForged(t *testing.T) {
	s := &swappingCards{}
	h := newHouse(t, options{routes: only(nil), store: func(own store.Store) store.Store { s.Store = own; return s }})
	c, bearer := h.anybody(), h.bearer("first")
	h.held()
	second := h.held()
	s.swap.Store(true)
	w := notPaid("unknown")
	h.expect("another's card", c, payCall(bearer, second), w)
	if h.payroc.Total() != 0 {
		t.Error("the issuer was asked")
	}
}

// swappingCards is a store in which somebody puts the first card in the place of others.
type swappingCards struct {
	store.Store
	first []byte
	swap  atomic.Bool
}

func (s *swappingCards) Mint(ctx context.Context, k store.Kind, d store.Digest, v []byte, ttl time.Duration) error {
	if k == store.KindCard && s.first == nil {
		s.first = v
	}
	return s.Store.Mint(ctx, k, d, v, ttl)
}

func (s *swappingCards) Redeem(ctx context.Context, k store.Kind, d store.Digest, a store.Attempt) ([]byte, error) {
	v, err := s.Store.Redeem(ctx, k, d, a)
	if err == nil && s.swap.Load() {
		v = s.first
	}
	return v, err
}

// TestTerminalBehindASharedCredential: where several callers are one to the issuer, a payment that names no terminal tells it
// nothing of whose it is: it is refused, and spends nothing.
func TestTerminalBehindASharedCredential(t *testing.T) {
	h := newHouse(t, options{routes: only(func(c *gateway.IssuerConfig) { c.Shared = true })})
	c, bearer := h.anybody(), h.bearer("first")
	paying := payCall(bearer, h.held())
	x := paying
	x.body = strings.Replace(x.body, `"processingTerminalId":"1234001",`, "", 1)
	before := h.payroc.Total()
	if r := c.do(x.without("Idempotency-Key").with("Idempotency-Key", uuid())); r.status != 404 || h.payroc.Total() != before {
		t.Errorf("%d %s, asked %d times", r.status, r.body, h.payroc.Total()-before)
	}
	if r := c.do(paying); r.status != 201 {
		t.Errorf("afterwards, at its terminal: %d %s", r.status, r.body)
	}
}
