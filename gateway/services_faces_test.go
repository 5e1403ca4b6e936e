package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy/store"
)

// waiting is one call of each kind with what it needs, all of which are good: whoever makes one later finds out whether it still is.
type waiting struct {
	name, unavailable string // the face's 503
	x                 call
	change            bool // asks the issuer for a change
	ok                want
}

func (h *house) ready() []waiting {
	h.t.Helper()
	w := shared().wallet
	h.login(w.address)
	p, l := h.proof(), h.accountLogin(account)
	key := h.bridgeMint(backs["rain"], p)
	consent, begun := h.exaConsent(w.address, "siwe"), h.exaChallenge(w.address)
	const bridge = `{"errors":[{"code":"unavailable","message":"Service unavailable, you may try again later"}]}`
	pay, exa := payError(503, "SERVICE_UNAVAILABLE", "Service unavailable"), exa("unexpected error")
	frozen := exaChanged(-1)
	frozen.rule = "key"
	apology := payrocFailure(503, payrocApology)
	page, bearer := h.page(), h.bearer("first")
	filled, began := h.page().fill(), pagesDo("page")
	began.status = 201
	return []waiting{
		{"bridge mint", bridge, h.bridgeMintCall(p, "Idempotency-Key", "one"), false, minted()},
		{"bridge reveal", bridge, p.reveal(key), false, shown()},
		{"bridge freeze", bridge, h.bridgeCall("first", "POST", "cus-rain", "ca-rain", "/freeze", "", "Idempotency-Key", "two"), true, frozen},
		{"login", pay, h.signed(loginCall(account)), false, loggedIn()},
		{"validate", pay, l.validate(), false, checked()},
		{"forward", pay, l.wallet(), false, called()},
		{"forwarded change", pay, l.call("POST", "/deals/payin", `{"amount":1}`), true, posted()},
		{"refresh", pay, refreshCall(l.Refresh), false, stayed()},
		{"exa begin", exa, begun.call, false, exaDone("begin", 0)},
		{"exa login", exa, begun.login(w.address, h.secret(w.sign(begun.Message))), false, exaDone("login", 0)},
		{"exa mode", exa, h.exaPatch(w.address, `{"mode":3}`), false, exaChanged(0)},
		{"exa link", exa, h.linkCall(w.address, consent, w.sign(consent)), false, exaSet("link", 0)},
		{"exa PIN", exa, h.exaPINCall(w.address, h.session(), nextPIN), true, exaChanged(1)},
		{"authorize", apology, authorizeCall(h.apiKeys["first"]), false, pagesDo("authorize")},
		{"hosted fields", apology, sessionCall(bearer, terminal), false, began},
		{"configuration", apology, page.configuration(), false, pagesDo("submit")},
		{"submit", apology, page.fields()[1], false, pagesDo("submit")},
		{"card token", apology, filled.mint(), false, pagesDo("submit")},
		{"payment", apology, payCall(bearer, h.held()), true, paid()},
	}
}

// TestStoreDownAtEveryFace: while the store cannot answer nobody is proven, not by an access token or a cookie either; nothing is
// minted, sent or released, and afterwards all that was shown in vain is good.
func TestStoreDownAtEveryFace(t *testing.T) {
	var down *broken
	h := newHouse(t, options{routes: wide, store: func(s store.Store) store.Store { down = &broken{Store: s}; return down }})
	c, all := h.anybody(), h.ready()
	minted := h.metric("cardstile_tokens_minted_total")
	down.set(true)
	for _, x := range all {
		w := want{status: 503, body: x.unavailable, retryAfter: true, results: []string{"failed store"}, outcome: "unavailable"}
		if slices.Contains([]string{"login", "authorize", "bridge mint"}, x.name) {
			w.rule = x.ok.rule // it was decided, and could not be minted
		}
		if x.name == "bridge mint" {
			w.rule = "" // whether it was made before is asked first
		}
		h.expect(x.name, c, x.x, w)
	}
	if h.metric("cardstile_tokens_minted_total") != minted {
		t.Error("a token was minted")
	}
	down.set(false)
	for _, x := range all {
		h.expect(x.name+", afterwards", c, x.x, x.ok)
	}
}

// unsure is a store whose writes of some kinds are made, and their answers lost.
type unsure struct {
	store.Store
	full atomic.Bool // or not made, for want of room
}

func (u *unsure) answer(write func() error) error {
	if u.full.Load() {
		return &store.Unavailable{Reason: store.ReasonFull}
	}
	if err := write(); err != nil {
		return err
	}
	return fmt.Errorf("test: %w", store.ErrUnavailable)
}

func (u *unsure) Put(ctx context.Context, k store.Kind, d store.Digest, value []byte, ttl time.Duration) error {
	if k != "mode" {
		return u.Store.Put(ctx, k, d, value, ttl)
	}
	return u.answer(func() error { return u.Store.Put(ctx, k, d, value, ttl) })
}

func (u *unsure) Once(ctx context.Context, k store.Kind, d store.Digest, ttl time.Duration) error {
	if k != "link" {
		return u.Store.Once(ctx, k, d, ttl)
	}
	return u.answer(func() error { return u.Store.Once(ctx, k, d, ttl) })
}

// TestChangesOfOursThatAreLost: what became of a mode or link whose write was not answered is unknown, and recorded and answered as
// that [17]; a store that is full made none.
func TestChangesOfOursThatAreLost(t *testing.T) {
	u := &unsure{}
	h := newHouse(t, options{routes: wide, store: func(s store.Store) store.Store { u.Store = s; return u }})
	c, w := h.anybody(), shared().wallet
	h.login(w.address)
	consent := func() string { return h.exaConsent(w.address, "siwe") }
	lost := func(rule string) want {
		return want{status: 504, body: exa("unexpected error"), results: []string{"intent", "unknown store"}, rule: rule, outcome: "outcome_unknown"}
	}
	full := func(rule string) want {
		return want{status: 503, body: exa("unexpected error"), retryAfter: true, results: []string{"intent", "refused store"}, rule: rule, outcome: "unavailable"}
	}
	u.full.Store(true)
	h.expect("mode, full", c, h.exaPatch(w.address, `{"mode":3}`), full("own-change"))
	message := consent()
	h.expect("link, full", c, h.linkCall(w.address, message, w.sign(message)), full("link"))
	u.full.Store(false)
	h.expect("mode", c, h.exaPatch(w.address, `{"mode":3}`), lost("own-change"))
	message = consent()
	h.expect("link", c, h.linkCall(w.address, message, w.sign(message)), lost("link"))
	already := func(rule string) want {
		is := exaRefused("already set", "already_set", rule)
		is.results = []string{"intent", "refused " + rule}
		return is
	}
	set := already("mode")
	set.rule = "own-change"
	h.expect("mode, looked at", c, h.exaPatch(w.address, `{"mode":3}`), set)
	message = consent()
	set = already("link")
	set.rule = "link"
	h.expect("link, looked at", c, h.linkCall(w.address, message, w.sign(message)), set)
}

// Begin implements store.Idempotent.
func (b *broken) Begin(ctx context.Context, k store.Kind, scope, body store.Digest, a store.Attempt, lease, keep, tombstone time.Duration) (store.Begun, error) {
	if err := b.err(); err != nil {
		return store.Begun{}, err
	}
	return b.Store.Begin(ctx, k, scope, body, a, lease, keep, tombstone)
}

// Put implements store.Records.
func (b *broken) Put(ctx context.Context, k store.Kind, d store.Digest, value []byte, ttl time.Duration) error {
	if err := b.err(); err != nil {
		return err
	}
	return b.Store.Put(ctx, k, d, value, ttl)
}

// TestAuditFullAtEveryFace: what cannot be recorded is not released: no card, no token, no login, and no change is begun.
func TestAuditFullAtEveryFace(t *testing.T) {
	if !alone(t) {
		return
	}
	h := newHouse(t, options{routes: wide})
	c, all := h.anybody(), h.ready()
	pin, deals := h.rain.PIN("ic-4"), h.payments.Deals(payOwner)
	end := full(t, h.file)
	for _, x := range all {
		before := h.upstream()
		r := c.do(x.x)
		if r.status != 503 || r.body != x.unavailable || len(r.header.Values("Set-Cookie")) != 0 {
			t.Errorf("%s: %d %s", x.name, r.status, r.body)
		}
		if sent := h.upstream() - before; x.change && sent != 0 {
			t.Errorf("%s: %d requests were sent", x.name, sent)
		}
	}
	end()
	if h.rain.PIN("ic-4") != pin || h.payments.Deals(payOwner) != deals || h.rain.Status("ic-1") != "active" {
		t.Error("a change was begun that is not on record")
	}
	eventually(t, "it is ready", func() bool { status, _ := h.readyz(); return status == 200 })
	h.expect("afterwards", c, h.signed(loginCall(account)), loggedIn())
}

// hang has an issuer hold n calls, and returns when all wait there. What it returns lets them go.
func (h *house) hang(n int, total func() int, next func() call) (release func()) {
	h.t.Helper()
	before := total()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range n {
		x := next()
		all.Go(func() {
			r, err := http.NewRequestWithContext(ctx, x.method, "https://"+h.gateway.Addr(x.listener).String()+x.path, nil)
			must(err)
			r.Host = "localhost"
			for i := 0; i+1 < len(x.header); i += 2 {
				r.Header.Add(x.header[i], x.header[i+1])
			}
			if answer, err := h.anybody().c.Do(r); err == nil {
				answer.Body.Close()
				h.t.Errorf("answered %d", answer.StatusCode)
			}
		})
	}
	eventually(h.t, "the issuer is asked", func() bool { return total() == before+n })
	return func() {
		cancel()
		all.Wait()
		eventually(h.t, "the places are given back", func() bool { return h.metric("cardstile_in_flight") == 0 })
	}
}

// hung are the routes of three issuers, of which PaymentsGate's has room for so many exchanges.
func hung(places int) func(*house) []gateway.Route {
	return func(h *house) []gateway.Route {
		return []gateway.Route{
			h.exaRoute(h.issuerKind("rain", nil)),
			h.bridgeRoute(h.issuerKind("bridge", nil)),
			h.paymentsRoute(h.issuerKind("forward", func(c *gateway.IssuerConfig) { c.Concurrent, c.Timeout = places, time.Minute })),
		}
	}
}

// TestHungIssuerBesideTwoOthers: one whose places are all taken, and that never answers, sheds what more there is for it at once;
// exchanges with the others all succeed meanwhile, many at a time, for the same partner [18].
func TestHungIssuerBesideTwoOthers(t *testing.T) {
	t.Parallel() // it waits, mostly
	const places, beside = 32, 100
	h := newHouse(t, options{routes: hung(places), config: func(_ *house, c *gateway.Config) { c.Limits.Exchange = time.Minute }})
	h.login("cus-rain")
	l := h.accountLogin(account)
	var reveals []call
	for range beside {
		p := h.proof()
		reveals = append(reveals, p.reveal(h.bridgeMint(backs["bridge"], p)))
	}
	h.payments.SetFault(payOwner, sandbox.FaultHang)
	release := h.hang(places, h.payments.Total, func() call { return l.wallet() })
	if got := h.metric("cardstile_in_flight", "limit", "issuer"); got != places {
		t.Errorf("%v places are taken", got)
	}
	h.expect("one more", h.anybody(), l.wallet(), want{status: 503, body: payError(503, "SERVICE_UNAVAILABLE", "Service unavailable"), retryAfter: true,
		results: []string{"failed shed_issuer"}, outcome: "unavailable", shed: "issuer"})
	own := h.exaCall("cus-rain", "")
	if got := h.race(beside, func(int) call { return own }); got[200] != beside {
		t.Errorf("beside it, Rain: %v", got)
	}
	if got := h.race(beside, func(i int) call { return reveals[i] }); got[200] != beside {
		t.Errorf("beside it, Bridge: %v", got)
	}
	if got := h.metric("cardstile_in_flight", "limit", "issuer"); got != places {
		t.Errorf("%v places are taken afterwards", got)
	}
	h.expect("its logins need no issuer", h.anybody(), h.signed(loginCall(account)), loggedIn())
	release()
	h.payments.SetFault(payOwner, sandbox.Fault{})
	h.reload() // a new circuit
	h.expect("afterwards", h.anybody(), l.wallet(), called())
}

// BenchmarkBesideAHungIssuer is one exchange after another with an issuer that is well, alone and beside one that hangs with all its
// places taken: how long the slowest hundredth takes must not depend on it. The ratio is of the two p99s.
func BenchmarkBesideAHungIssuer(b *testing.B) {
	const places = 64
	h := newHouse(b, options{routes: hung(places), config: func(_ *house, c *gateway.Config) { c.Limits.Exchange = time.Minute }})
	h.login("cus-rain")
	l := h.accountLogin(account)
	c, own := h.anybody(), h.exaCall("cus-rain", "")
	p99 := func(n int) time.Duration {
		took := make([]time.Duration, n)
		for i := range took {
			begin := time.Now()
			if r := c.do(own); r.status != 200 {
				b.Fatalf("answered %d", r.status)
			}
			took[i] = time.Since(begin)
		}
		slices.Sort(took)
		return took[n*99/100]
	}
	p99(50) // connections are made
	alone := p99(max(b.N, 200))
	h.payments.SetFault(payOwner, sandbox.FaultHang)
	release := h.hang(places, h.payments.Total, func() call { return l.wallet() })
	b.ReportAllocs()
	b.ResetTimer()
	beside := p99(b.N)
	b.StopTimer()
	b.ReportMetric(float64(beside)/float64(alone), "p99-ratio")
	release()
}
