package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sys/unix"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// admin asks the operators' listener.
func (h *house) admin(method, path string, header ...string) reply {
	h.t.Helper()
	r, err := http.NewRequest(method, "http://"+h.gateway.Addr("admin").String()+path, nil)
	must(err)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := c.Do(r)
	must(err)
	defer answer.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(answer.Body)
	must(err)
	return reply{answer.StatusCode, answer.Header, b.String(), answer.Proto}
}

// readyz is what /readyz says; the problems as one text.
func (h *house) readyz() (status int, problems string) {
	h.t.Helper()
	r := h.admin("GET", "/readyz")
	var v struct {
		Status   string
		Problems []string
	}
	if err := json.Unmarshal([]byte(r.body), &v); err != nil || (v.Status == "ready") != (r.status == 200) || (len(v.Problems) == 0) != (r.status == 200) {
		h.t.Errorf("readyz: %d %s", r.status, r.body)
	}
	return r.status, strings.Join(v.Problems, "\n")
}

// unavailable is what every call of the house answers while a service is down.
func (h *house) unavailable(name, reason string, token string) {
	h.t.Helper()
	s, c := h.session(), h.anybody()
	pin := h.rain.PIN("ic-1")
	for what, x := range map[string]call{
		"mint": mintCall(""), "details": detailsCall(card, token, s.ID()), "pin": pinCall(card, token, s.ID()),
		"set pin": h.setPINCall(card, token, s, "9153"), "exa": h.exaCall(ada, s.ID()),
	} {
		w := want{status: 503, body: gnosis("Service unavailable"), retryAfter: true, results: []string{"failed " + reason}, outcome: "unavailable"}
		if what == "exa" {
			w.body = exa("unexpected error")
		}
		if what == "mint" {
			w.rule = "mint"
		}
		caller := c
		if x.listener == "partners" {
			caller = h.partner()
		}
		h.expect(name+": "+what, caller, x, w)
	}
	if h.rain.PIN("ic-1") != pin {
		h.t.Error("a PIN was set")
	}
}

// TestStoreDown: while the store cannot answer nothing is released, nobody is told why but the operator, and afterwards it
// goes on.
func TestStoreDown(t *testing.T) {
	var down *broken
	h := newHouse(t, options{store: func(s store.Store) store.Store { down = &broken{Store: s}; return down }})
	h.login(ada)
	token := h.mint()
	if status, _ := h.readyz(); status != 200 {
		t.Error("not ready from the start")
	}
	down.set(true)
	h.unavailable("down", "store", token)
	if status, problems := h.readyz(); status != 503 || !strings.Contains(problems, "store: ") || h.metric("cardstile_ready") != 0 {
		t.Errorf("readyz: %d %s", status, problems)
	}
	down.set(false)
	h.expect("afterwards, the same token", h.anybody(), detailsCall(card, token, h.session().ID()), revealed())
	if status, _ := h.readyz(); status != 200 || h.metric("cardstile_ready") != 1 {
		t.Error("not ready afterwards")
	}
	// Between redemption and limit: the token is spent, and nothing is released.
	token = h.mint()
	h.o.config = func(_ *house, c *gateway.Config) { c.Limits.Card = policy.Rate{Count: 100, Per: 3600e9} }
	must(h.gateway.Reload(h.newConfig()))
	down.takeFails.Store(true)
	h.expect("limits cannot be counted", h.anybody(), detailsCall(card, token, h.session().ID()), want{
		status: 503, body: gnosis("Service unavailable"), retryAfter: true, results: []string{"failed store"}, outcome: "unavailable", redeemed: 1, rule: "reveal",
	})
}

// TestRedisDown: the same with a real Redis that is stopped under the gateway, and started again.
func TestRedisDown(t *testing.T) {
	server := testredis.Start(t)
	h := newHouse(t, options{store: func(s store.Store) store.Store {
		must(s.Close())
		r, err := store.NewRedis(store.RedisConfig{Addresses: []string{server.Addr}})
		must(err)
		return r
	}})
	h.login(ada)
	c, s := h.anybody(), h.session()
	token := h.mint()
	h.expect("up", c, detailsCall(card, token, s.ID()), revealed())
	h.expect("up, spent", c, detailsCall(card, token, s.ID()),
		want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_spent"}, outcome: "unauthorized", refused: "spent"})
	before := h.mint()
	server.Kill()
	h.unavailable("killed", "store", before)
	if status, problems := h.readyz(); status != 503 || !strings.Contains(problems, "store: ") {
		t.Errorf("readyz: %d %s", status, problems)
	}
	server.Restart()
	eventually(t, "it is ready", func() bool { status, _ := h.readyz(); return status == 200 })
	if r := c.do(detailsCall(card, before, s.ID())); r.status != 401 {
		t.Errorf("a token of before the restart answers %d", r.status)
	}
	h.login(ada)
	h.expect("up again", c, detailsCall(card, h.mint(), s.ID()), revealed())
}

// aloneVariable is set in processes that run one test.
const aloneVariable = "CARDSTILE_GATEWAY_TEST"

// alone reports whether the test is to go on, in a process of its own; in the one that asks it runs that process instead, and says
// what came of it. It is for tests of a full disk, which is one for the whole process: the testing package's own log among the rest.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(aloneVariable) == t.Name() {
		return true
	}
	c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), aloneVariable+"="+t.Name())
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// full makes the kernel refuse that any file grows, as a full disk does; what it returns ends that.
func full(t *testing.T, file string) (end func()) {
	t.Helper()
	var before unix.Rlimit
	must(unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	info, err := os.Stat(file)
	must(err)
	must(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(info.Size()) + 10, Max: before.Max}))
	end = func() { must(unix.Setrlimit(unix.RLIMIT_FSIZE, &before)) }
	t.Cleanup(end) // a test that fails takes no other one with it
	return end
}

// TestAuditFull: what cannot be recorded is not released: not a card, not a token, and no change is begun.
func TestAuditFull(t *testing.T) {
	if !alone(t) {
		return
	}
	h := newHouse(t, options{})
	h.login(ada)
	c, s := h.anybody(), h.session()
	tokens := []string{h.mint(), h.mint(), h.mint()}
	h.expect("before", c, detailsCall(card, h.mint(), s.ID()), revealed())
	pin := h.rain.PIN("ic-1")
	end := full(t, h.file)
	down := want{status: 503, body: gnosis("Service unavailable"), retryAfter: true, outcome: "unavailable"}
	h.expect("mint", h.partner(), mintCall(""), down)
	read := down
	read.redeemed, read.upstream = 1, 2
	h.expect("details", c, detailsCall(card, tokens[0], s.ID()), read)
	change := down
	change.redeemed = 1
	h.expect("set pin", c, h.setPINCall(card, tokens[1], s, "9153"), change)
	exaDown := down
	exaDown.body, exaDown.upstream = exa("unexpected error"), 2
	h.expect("exa", c, h.exaCall(ada, ""), exaDown)
	refusal := down
	refusal.refused = "malformed"
	h.expect("even a refusal", c, detailsCall(card, "garbage", s.ID()), refusal)
	if status, problems := h.readyz(); status != 503 || !strings.Contains(problems, "audit: ") {
		t.Errorf("readyz: %d %s", status, problems)
	}
	if h.rain.PIN("ic-1") != pin || h.rain.Count("set pin") != 0 {
		t.Error("a change was begun that is not on record")
	}
	end()
	eventually(t, "it is ready", func() bool { status, _ := h.readyz(); return status == 200 })
	h.expect("afterwards", c, detailsCall(card, tokens[2], s.ID()), revealed())
	if h.metric("cardstile_audit_failures_total") < 5 || !strings.Contains(h.log.String(), "the answer is withheld") {
		t.Error("the failures are not counted, or not logged")
	}
}

// TestOutcomeNotRecorded: where the disk fills up while a PIN is being set, the caller is not told to try again.
func TestOutcomeNotRecorded(t *testing.T) {
	if !alone(t) {
		return
	}
	h := newHouse(t, options{})
	c, s := h.anybody(), h.session()
	h.rain.SetFault("ic-1", slowly)
	x := h.setPINCall(card, h.mint(), s, "9153")
	before := len(h.records())
	answer := make(chan reply)
	go func() { answer <- c.do(x) }()
	eventually(t, "the issuer is asked", func() bool { return h.rain.Total() == 1 })
	end := full(t, h.file)
	r := <-answer
	end()
	if r.status != 504 || r.body != gnosis("Outcome unknown") || r.header.Get("Retry-After") != "" || h.rain.PIN("ic-1") != "9153" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if records := h.records()[before:]; len(records) != 1 || records[0].Phase != "intent" {
		t.Errorf("recorded %+v", records)
	}
	eventually(t, "it is ready", func() bool { return h.gateway.Ready(t.Context()) == nil })
}

// TestAdmin: it only reads, and says why it is not ready.
func TestAdmin(t *testing.T) {
	h := newHouse(t, options{})
	for path, want := range map[string]struct {
		status int
		body   string
	}{"/healthz": {200, `{"status":"ok"}` + "\n"}, "/readyz": {200, `{"status":"ready"}` + "\n"}, "/": {404, ""}, "/debug/pprof/": {404, ""}, "/api/v1/ephemeral-token": {404, ""}} {
		r := h.admin("GET", path)
		if r.status != want.status || want.body != "" && r.body != want.body {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
		if want.status == 200 && (r.header.Get("Cache-Control") != "no-store" || r.header.Get("Content-Type") != "application/json") {
			t.Errorf("%s: %v", path, r.header)
		}
	}
	if r := h.admin("GET", "/metrics"); r.status != 200 || !strings.Contains(r.body, "cardstile_exchanges_total") {
		t.Errorf("metrics: %d", r.status)
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			if r := h.admin(method, path); r.status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, r.status)
			}
		}
	}
}

// TestAdminBearer: where one is configured it is required of every path.
func TestAdminBearer(t *testing.T) {
	const bearer = "operators-bearer-of-the-tests"
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Admin.Bearer = bearer }})
	h.secret(bearer)
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/"} {
		for name, header := range map[string][]string{
			"none": nil, "wrong": {"Authorization", "Bearer x"}, "basic": {"Authorization", "Basic " + bearer}, "bare": {"Authorization", bearer},
			"longer": {"Authorization", "Bearer " + bearer + "x"}, "empty": {"Authorization", "Bearer "},
		} {
			if r := h.admin("GET", path, header...); r.status != 401 || r.header.Get("WWW-Authenticate") != "Bearer" || strings.Contains(r.body, "cardstile") {
				t.Errorf("%s, %s: %d %s", path, name, r.status, r.body)
			}
		}
		want := 200
		if path == "/" {
			want = 404
		}
		if r := h.admin("GET", path, "Authorization", "bearer "+bearer); r.status != want {
			t.Errorf("%s: %d", path, r.status)
		}
	}
}

// TestAdminBearerIsReloaded: the old one ends with the reload.
func TestAdminBearerIsReloaded(t *testing.T) {
	const old, fresh = "operators-bearer-of-last-year", "operators-bearer-of-this-year"
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Admin.Bearer = old }})
	h.secret(old)
	h.secret(fresh)
	next := h.config
	next.Admin.Bearer = fresh
	if err := h.gateway.Reload(next); err != nil {
		t.Fatal(err)
	}
	for bearer, want := range map[string]int{old: 401, fresh: 200} {
		if r := h.admin("GET", "/healthz", "Authorization", "Bearer "+bearer); r.status != want {
			t.Errorf("status %d, want %d", r.status, want)
		}
	}
}

// TestAdminTLS: off loopback it stands behind TLS.
func TestAdminTLS(t *testing.T) {
	k := shared()
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) {
		c.Admin.TLS, c.Admin.ClientCAsEnd = gateway.ServerTLS(k.server, k.partners.pool()), time.Unix(2e9, 0)
	}})
	for kind, want := range map[string]float64{"server": float64(k.server.Leaf.NotAfter.Unix()), "client_ca": 2e9} {
		if got := h.metric("cardstile_certificate_expiry_timestamp_seconds", "listener", "admin", "kind", kind); got != want {
			t.Errorf("%s ends at %v, want %v", kind, got, want)
		}
	}
	get := func(c *tls.Config) error {
		c.RootCAs, c.ServerName = k.servers.pool(), "localhost"
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}}
		answer, err := client.Get("https://" + h.gateway.Addr("admin").String() + "/healthz")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != 200 {
			return fmt.Errorf("status %d", answer.StatusCode)
		}
		return nil
	}
	if err := get(with(k.partner)); err != nil {
		t.Error(err)
	}
	if err := get(&tls.Config{}); err == nil {
		t.Error("without a certificate")
	}
}

// TestMetrics: they follow the conventions, and are the ones that dashboard and alerts are written for.
func TestMetrics(t *testing.T) {
	if !alone(t) {
		return
	}
	dir, _ := storedCertificate(t, respondedBy("http://192.0.2.1/"))
	h := newHouse(t, options{routes: wide,
		services: func(s *gateway.Services) {
			s.Managed, s.Addresses["hosted"] = &gateway.Managed{Directory: dir}, "127.0.0.1:0"
		},
		config: func(_ *house, c *gateway.Config) {
			c.Limits.Card = policy.Rate{Count: 2, Per: 3600e9}
			c.Listeners[0].Revocations = everything()
			c.Listeners, c.Certificates = append(c.Listeners, gateway.Listener{Name: "hosted", Environment: "test", Hosts: []string{host}}), seals("certificate")
		},
	})
	c, s := h.anybody(), h.session()
	h.shake("partners", &tls.Config{})
	again := h.bridgeMintCall(h.proof(), "Idempotency-Key", "one")
	c.do(again)
	c.do(again)
	c.do(preflightCall("/api/card", origin, "GET"))
	h.payments.SetFault(payOwner, sandbox.FaultPANInMember)
	c.do(h.accountLogin(account).wallet())
	for range 3 {
		c.do(detailsCall(card, h.mint(), s.ID()))
	}
	c.do(detailsCall(card, "garbage", s.ID()))
	c.do(detailsCall(bareCard, h.mint(), preamble(256)))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.services.Store.Take(gone, store.Digest{}, policy.Rate{Count: 1, Per: 1e9}); err == nil {
		t.Error("the store answered somebody who is gone")
	}
	end := full(t, h.file)
	c.do(detailsCall(bareCard, h.mintless(), s.ID()))
	end()
	eventually(t, "the log works again", func() bool { return h.gateway.Ready(t.Context()) == nil })
	eventually(t, "it is looked what is to be stapled", func() bool { return h.gateway.SeenTo(host) })

	if problems, err := testutil.GatherAndLint(h.registry); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	families, err := h.registry.Gather()
	must(err)
	var got []string
	for _, f := range families {
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		names := make([]string, 0, len(labels))
		for l := range labels {
			names = append(names, l)
		}
		slices.Sort(names)
		if len(names) == 0 {
			names = []string{"-"}
		}
		got = append(got, fmt.Sprintf("%s %s %s", f.GetName(), strings.ToLower(dto.MetricType_name[int32(f.GetType())]), strings.Join(names, ",")))
	}
	text, err := os.ReadFile("../deploy/metrics.txt")
	must(err)
	var want []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "cardstile_") && !strings.HasPrefix(line, "cardstile_build_info ") { // that one is main's
			want = append(want, strings.TrimSpace(line))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("listed, and not registered: %s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("registered, and not listed: %s", line)
		}
	}
}

// mintless is a token's text that was never minted.
func (h *house) mintless() string { return strings.Repeat("A", 52) }

// bugged is a face with a bug in one of its functions.
type bugged struct {
	face.Face
	in, value string
}

func (b bugged) Endpoints() []face.Endpoint {
	all := b.Face.Endpoints()
	for i := range all {
		switch b.in {
		case "parse":
			all[i].Parse = func(*exchange.Request) (*exchange.Call, error) { panic(b.value) }
		case "render":
			all[i].Render = func(*exchange.Call, *exchange.Result, *exchange.Response) { panic(b.value) }
		}
	}
	return all
}

// TestPanic: a bug is a 500 in the face's shape with a record; its value, which may quote anything, is nowhere; and what
// the exchange held is given back.
func TestPanic(t *testing.T) {
	const value = "quoted: 4111111111111111"
	for _, in := range []string{"parse", "render"} {
		h := newHouse(t, options{routes: func(h *house) []gatewayRoute {
			routes := h.routes(h.issuerOf("rain", nil))
			routes[1].Face = bugged{routes[1].Face, in, value}
			return routes
		}})
		h.secret(value)
		c, s := h.anybody(), h.session()
		for range 2 { // the connection goes on
			before := h.snapshot(want{outcome: "internal"})
			r := c.do(detailsCall(card, h.mint(), s.ID()))
			if r.status != 500 || r.body != gnosis("Internal server error") || len(r.header.Get("X-Request-Id")) != 32 {
				t.Errorf("%s: %d %s", in, r.status, r.body)
			}
			var got []string
			for _, rec := range h.records()[before.records+1:] {
				got = append(got, strings.TrimSpace(rec.Result+" "+rec.Reason))
			}
			if !slices.Equal(got, []string{"failed panic"}) || h.metric("cardstile_exchanges_total", "outcome", "internal") != before.outcome+1 {
				t.Errorf("%s: recorded %q", in, got)
			}
		}
		if !strings.Contains(h.log.String(), `"panic"`) || !strings.Contains(h.log.String(), `"type":"string"`) {
			t.Errorf("%s: not logged", in)
		}
		if h.metric("cardstile_in_flight") != 0 || h.metric("cardstile_vault_rsa_queue") != 0 {
			t.Errorf("%s: something is still held", in)
		}
	}
}

// TestPanicAfterIntent: a bug while something is being changed leaves open whether it was.
func TestPanicAfterIntent(t *testing.T) {
	h := newHouse(t, options{routes: func(h *house) []gatewayRoute {
		kind := issuer.Kind{New: func(issuer.Config) (issuer.Issuer, error) { return exploding{"quoted: 4111111111111111"}, nil }}
		return h.routes(h.issuerOf("rain", func(c *gateway.IssuerConfig) { c.Kind = kind }))
	}})
	h.secret("quoted: 4111111111111111")
	c, s := h.anybody(), h.session()
	h.expect("change", c, h.setPINCall(card, h.mint(), s, "9153"), want{
		status: 504, body: gnosis("Outcome unknown"), results: []string{"intent", "unknown panic"}, rule: "pin", outcome: "outcome_unknown", redeemed: 1,
	})
	h.expect("read", c, detailsCall(card, h.mint(), s.ID()), want{
		status: 500, body: gnosis("Internal server error"), results: []string{"failed panic"}, rule: "reveal", outcome: "internal", redeemed: 1,
	})
	// Thirty bugs are no failures of the issuer's: its circuit is closed.
	for range 30 {
		c.do(detailsCall(card, h.mint(), s.ID()))
	}
	if h.metric("cardstile_issuer_open_circuit") != 0 || h.metric("cardstile_in_flight") != 0 {
		t.Error("a bug of ours opened the circuit, or kept a place")
	}
}
