package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
)

// brief is an issuer that is not read for long. quick is not waited for long either: it is for an issuer that hangs, since on a busy
// machine any other may take that long.
func brief(c *gateway.IssuerConfig) { c.MaxBytes = 32 << 10 }

func quick(c *gateway.IssuerConfig) {
	brief(c)
	c.Timeout = 2 * time.Second
}

// waiting takes up an issuer that is waited for as a fault needs it, and with it a new circuit.
func (h *house) waiting(hangs bool) {
	h.t.Helper()
	if h.o.issuer = brief; hangs {
		h.o.issuer = quick
	}
	h.reload()
}

// closedPort is an address that nobody listens on.
func closedPort() *url.URL {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	must(l.Close())
	u, err := url.Parse("https://" + l.Addr().String())
	must(err)
	return u
}

// TestIssuerFaults: whatever the issuer does, both faces answer in their own shape, nothing is half released, and record
// and metrics say what it was.
func TestIssuerFaults(t *testing.T) {
	t.Parallel() // it waits, mostly
	for _, http1 := range []bool{false, true} {
		// The exchange itself may take as long as it likes: it is the issuer's own time-out that ends it.
		h := newHouse(t, options{http1: http1, issuer: brief, config: func(_ *house, c *gateway.Config) { c.Limits.Exchange = time.Hour }})
		h.login(ada)
		c, s := h.anybody(), h.session()
		for _, test := range []struct {
			name, reason string
			kind         exchange.Kind
			fault        sandbox.Fault
			result       string // of the round trip, in the metric
		}{
			{"500", "issuer_failed", exchange.IssuerFailed, sandbox.Fault500.On(sandbox.CallSecrets), "failed"},
			{"card number in the error", "issuer_failed", exchange.IssuerFailed, sandbox.FaultPANInError.On(sandbox.CallSecrets), "failed"},
			{"malformed JSON", "issuer_answer", exchange.IssuerFailed, sandbox.FaultMalformedJSON.On(sandbox.CallSecrets), "ok"},
			{"malformed card", "issuer_answer", exchange.IssuerFailed, sandbox.FaultMalformedJSON.On(sandbox.CallCard), "ok"},
			{"empty", "issuer_answer", exchange.IssuerFailed, sandbox.FaultEmptyBody.On(sandbox.CallSecrets), "ok"},
			{"wrong ciphertext", "issuer_answer", exchange.IssuerFailed, sandbox.FaultWrongCiphertext.On(sandbox.CallSecrets), "ok"},
			{"wrong IV", "issuer_answer", exchange.IssuerFailed, sandbox.FaultWrongIV.On(sandbox.CallSecrets), "ok"},
			{"missing field", "issuer_answer", exchange.IssuerFailed, sandbox.FaultMissingField.On(sandbox.CallSecrets), "ok"},
			{"redirect", "issuer_answer", exchange.IssuerFailed, sandbox.FaultRedirect.On(sandbox.CallSecrets), "redirect"},
			{"huge", "issuer_too_large", exchange.IssuerFailed, sandbox.FaultHugeBody.On(sandbox.CallSecrets), "error"},
			{"truncated", "issuer_lost", exchange.IssuerFailed, sandbox.FaultTruncatedBody.On(sandbox.CallSecrets), "lost"},
			{"disconnect", "issuer_lost", exchange.IssuerFailed, sandbox.FaultDisconnect.On(sandbox.CallSecrets), "lost"},
			{"hang", "issuer_timeout", exchange.IssuerTimeout, sandbox.FaultHang.On(sandbox.CallSecrets), "timeout"},
			{"slow", "issuer_timeout", exchange.IssuerTimeout, sandbox.FaultSlow(time.Hour).On(sandbox.CallCard), "timeout"},
		} {
			name := fmt.Sprintf("%s, HTTP/1.1 %t", test.name, http1)
			h.waiting(test.kind == exchange.IssuerTimeout)
			h.rain.SetFault("ic-1", test.fault)
			answers := map[exchange.Kind][2]want{
				exchange.IssuerFailed:  {{status: 502, body: gnosis("Bad gateway")}, {status: 555, body: exa("unexpected error")}},
				exchange.IssuerTimeout: {{status: 504, body: gnosis("Gateway timeout")}, {status: 555, body: exa("unexpected error")}},
			}[test.kind]
			before := h.metric("cardstile_issuer_duration_seconds", "issuer", "rain", "result", test.result)
			w := answers[0]
			w.results, w.outcome, w.redeemed, w.rule, w.upstream = []string{"failed " + test.reason}, test.kind.String(), 1, "reveal", -1
			r := h.expect(name, c, detailsCall(card, h.mint(), s.ID()), w)
			if h.metric("cardstile_issuer_duration_seconds", "issuer", "rain", "result", test.result) <= before {
				t.Errorf("%s: no round trip counted as %s", name, test.result)
			}
			w = answers[1]
			w.results, w.outcome, w.rule, w.upstream = []string{"failed " + test.reason}, test.kind.String(), "own-card", -1
			h.expect("exa, "+name, c, h.exaCall(ada, s.ID()), w)
			if strings.Contains(r.body, "processor") || strings.Contains(h.log.String(), "processor refused") {
				t.Errorf("%s: the issuer's words are passed on", name)
			}
			h.rain.SetFault("ic-1", sandbox.Fault{})
		}
		h.waiting(false)
		for _, seen := range h.rain.Requests() {
			if strings.Contains(seen.Path, "redirected") {
				t.Error("a redirect was followed")
			}
		}
		h.rain.SetFault("ic-1", sandbox.FaultSlow(10*time.Millisecond))
		if r := c.do(detailsCall(card, h.mint(), s.ID())); r.status != 200 {
			t.Errorf("a little slow: %d %s", r.status, r.body)
		}
	}
}

// rawIssuer serves an answer as it stands, over TLS, to each request.
func rawIssuer(t *testing.T, answer string) *url.URL {
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{shared().server}})
	must(err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					request, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					io.Copy(io.Discard, request.Body) //nolint:errcheck // the next read tells
					if _, err := io.WriteString(c, answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	u, err := url.Parse("https://" + l.Addr().String())
	must(err)
	return u
}

// TestIssuerThatSpeaksNoHTTP: what an issuer sends is quoted nowhere, whatever is wrong with it: net/http's own errors quote it.
func TestIssuerThatSpeaksNoHTTP(t *testing.T) {
	const pan = "4111111111111111"
	for name, answer := range map[string]string{
		"no status line":        `{"card_number":"` + pan + `"}` + "\r\n\r\n",
		"header without colon":  "HTTP/1.1 200 OK\r\ncard " + pan + "\r\n\r\n",
		"content length":        "HTTP/1.1 200 OK\r\nContent-Length: " + pan + "x\r\n\r\n",
		"two content lengths":   "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: " + pan + "\r\n\r\n",
		"transfer encoding":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + pan + "\r\n\r\n",
		"chunk":                 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + pan + "zz\r\n",
		"status":                "HTTP/1.1 " + pan + " OK\r\n\r\n",
		"somebody else's":       "HTTP/" + pan + " 200 OK\r\n\r\n",
		"redirect to no URL":    "HTTP/1.1 302 Found\r\nLocation: https://x:" + pan + "/%zz\r\nContent-Length: 0\r\n\r\n",
		"content type of words": "HTTP/1.1 200 OK\r\nContent-Type: " + pan + "\r\nContent-Length: 2\r\n\r\n{}",
	} {
		u := rawIssuer(t, answer)
		h := newHouse(t, options{quiet: true, routes: wide, issuer: func(c *gateway.IssuerConfig) {
			if c.Name == "payments" {
				c.URL = u
			}
		}})
		r := h.anybody().do(h.accountLogin(account).wallet())
		if r.status != http.StatusBadGateway || strings.Contains(r.body+fmt.Sprint(r.header), pan) {
			t.Errorf("%s: %d %s %v", name, r.status, r.body, r.header)
		}
		for where, text := range map[string]string{"log": h.log.String(), "metrics": h.metricsText(), "audit log": fmt.Sprintf("%+v", h.records())} {
			if strings.Contains(text, pan) {
				t.Errorf("%s: the %s quotes it", name, where)
			}
		}
		if !strings.Contains(h.log.String(), "what it sent is no HTTP") && name != "redirect to no URL" && name != "content type of words" && name != "chunk" && name != "status" {
			t.Errorf("%s: the log says\n%s", name, h.log.String())
		}
	}
}

// TestStandardLogIsWithheld: net/http writes to the process's standard log what an issuer sends unasked. Of that nothing is said but
// how long it is.
func TestStandardLogIsWithheld(t *testing.T) {
	const pan = "4111111111111111"
	flags, writer := log.Flags(), log.Writer()
	t.Cleanup(func() { log.SetFlags(flags); log.SetOutput(writer) })
	core, said := observer.New(zapcore.DebugLevel)
	gateway.WithholdStandardLog(zap.New(core))
	u := rawIssuer(t, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"+`{"card_number":"`+pan+`"}`)
	h := newHouse(t, options{quiet: true, routes: wide, issuer: func(c *gateway.IssuerConfig) {
		if c.Name == "payments" {
			c.URL = u
		}
	}})
	c, l := h.anybody(), h.accountLogin(account)
	eventually(t, "net/http says something", func() bool {
		c.do(l.wallet())
		return said.Len() > 0
	})
	for _, line := range said.All() {
		if text := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(text, pan[:8]) || line.ContextMap()["bytes"].(int64) < 20 {
			t.Errorf("it says %s", text)
		}
	}
}

// TestIssuerOutOfReach: nothing was sent, and that is what record and answer say: of a change too.
func TestIssuerOutOfReach(t *testing.T) {
	for name, change := range map[string]func(*gateway.IssuerConfig){
		"down":           func(c *gateway.IssuerConfig) { c.URL = closedPort() },
		"another's name": func(c *gateway.IssuerConfig) { c.TLS = &tls.Config{RootCAs: shared().stranger.pool()} },
	} {
		h := newHouse(t, options{issuer: change})
		c, s := h.anybody(), h.session()
		failed := want{status: 502, body: gnosis("Bad gateway"), results: []string{"failed issuer_unreachable"}, outcome: "issuer_failed", redeemed: 1, rule: "reveal"}
		h.expect(name, c, detailsCall(card, h.mint(), s.ID()), failed)
		failed.results, failed.rule = []string{"intent", "refused issuer_unreachable"}, "pin"
		h.expect(name+", PIN", c, h.setPINCall(card, h.mint(), s, "9153"), failed)
		if h.metric("cardstile_issuer_duration_seconds", "result", "unreachable") < 2 {
			t.Errorf("%s: not counted as unreachable", name)
		}
	}
	h := newHouse(t, options{issuer: func(c *gateway.IssuerConfig) { c.Credential = "another" }})
	h.expect("our key is refused", h.anybody(), detailsCall(card, h.mint(), h.session().ID()), want{status: 502, body: gnosis("Bad gateway"),
		results: []string{"failed issuer_refused"}, outcome: "issuer_failed", redeemed: 1, rule: "reveal", upstream: -1})
}

// TestOutcomeUnknown: a PIN that was sent, and whose answer did not come, may have been set: that is what is answered and
// recorded, and it is not sent again [17].
func TestOutcomeUnknown(t *testing.T) {
	t.Parallel() // it waits, mostly
	for _, http1 := range []bool{false, true} {
		h := newHouse(t, options{http1: http1, issuer: brief})
		c, s := h.anybody(), h.session()
		sets := 0
		for name, fault := range map[string]sandbox.Fault{
			"hang": sandbox.FaultHang, "disconnect": sandbox.FaultDisconnect, "truncated": sandbox.FaultTruncatedBody, "huge": sandbox.FaultHugeBody,
			"500": sandbox.Fault500, "card number in the error": sandbox.FaultPANInError,
		} {
			// Once on a fresh connection to the issuer, and once on one that was used before.
			for range 2 {
				h.waiting(name == "hang")
				h.rain.SetFault("ic-1", fault)
				h.expect(fmt.Sprintf("%s, HTTP/1.1 %t", name, http1), c, h.setPINCall(card, h.mint(), s, "9153"), want{
					status: 504, body: gnosis("Outcome unknown"), results: []string{"intent", "unknown outcome_unknown"}, rule: "pin",
					outcome: "outcome_unknown", redeemed: 1, upstream: 1,
				})
				sets++
				h.rain.SetFault("ic-1", sandbox.Fault{})
				h.waiting(false)
				if r := c.do(pinCall(card, h.mint(), s.ID())); r.status != 200 {
					t.Fatalf("the PIN afterwards: %d", r.status)
				}
			}
		}
		if got := h.rain.Count(sandbox.CallSetPIN); got != sets {
			t.Errorf("%d PINs were sent for %d", got, sets)
		}
		if h.rain.PIN("ic-1") != "9153" {
			t.Error("the hanging issuer had set the PIN all the same")
		}
		h.rain.SetFault("ic-1", sandbox.FaultRedirect)
		h.expect("redirect", c, h.setPINCall(card, h.mint(), s, "7359"), want{
			status: 504, body: gnosis("Outcome unknown"), results: []string{"intent", "unknown outcome_unknown"}, rule: "pin", outcome: "outcome_unknown", redeemed: 1, upstream: 1,
		})
	}
}

// TestCallerWhoLeaves: a change whose caller hangs up is finished and recorded; a read is given up, and neither says
// anything about the issuer's health.
func TestCallerWhoLeaves(t *testing.T) {
	h := newHouse(t, options{})
	s := h.session()
	h.rain.SetFault("ic-1", sandbox.FaultSlow(300*time.Millisecond))
	for _, test := range []struct {
		call    call
		records []string
	}{
		{h.setPINCall(card, h.mint(), s, "9153"), []string{"intent", "done"}},
		{detailsCall(card, h.mint(), s.ID()), []string{"failed canceled"}},
	} {
		before, upstream := len(h.records()), h.rain.Total()
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, test.call.method, "https://"+h.gateway.Addr("public").String()+test.call.path, strings.NewReader(test.call.body))
		must(err)
		r.Host = "localhost"
		for i := 0; i+1 < len(test.call.header); i += 2 {
			r.Header.Add(test.call.header[i], test.call.header[i+1])
		}
		left := make(chan error)
		go func() {
			_, err := h.anybody().c.Do(r)
			left <- err
		}()
		eventually(t, "the issuer is asked", func() bool { return h.rain.Total() > upstream })
		cancel()
		if err := <-left; err == nil {
			t.Error("the caller got an answer")
		}
		var got []string
		eventually(t, "it is recorded", func() bool {
			got = nil
			for _, rec := range h.records()[before:] {
				got = append(got, map[bool]string{true: "intent", false: strings.TrimSpace(rec.Result + " " + rec.Reason)}[rec.Phase == "intent"])
			}
			return len(got) == len(test.records)
		})
		if !slices.Equal(got, test.records) {
			t.Errorf("%s: recorded %q", test.call.method, got)
		}
	}
	if h.rain.PIN("ic-1") != "9153" {
		t.Error("the PIN was not set")
	}
	if h.metric("cardstile_issuer_duration_seconds", "result", "lost")+h.metric("cardstile_issuer_duration_seconds", "result", "timeout") != 0 {
		t.Error("the issuer is blamed")
	}
}

// leave begins n reveals and abandons each when the issuer was asked.
func (h *house) leave(n int) {
	s := h.session()
	var all sync.WaitGroup
	for range n {
		token := h.mint()
		all.Go(func() {
			c := h.anybody()
			c.c.Timeout = 100 * time.Millisecond
			if r, err := c.try(detailsCall(card, token, s.ID())); err == nil {
				h.t.Errorf("answered %d", r.status)
			}
		})
	}
	all.Wait()
}

// TestCircuit: an issuer that keeps failing is not called for a while, and whoever comes meanwhile spends nothing. Then it
// is tried by a few, and called again.
func TestCircuit(t *testing.T) {
	t.Parallel() // it waits, mostly
	h := newHouse(t, options{issuer: func(c *gateway.IssuerConfig) { c.Timeout = 3 * time.Second }})
	h.login(ada)
	c, s := h.anybody(), h.session()
	if h.metric("cardstile_issuer_open_circuit", "issuer", "rain") != 0 {
		t.Error("open from the start")
	}
	for name, disturb := range map[string]func(){
		"callers who leave":           func() { h.rain.SetFault("ic-1", sandbox.FaultHang); h.leave(25) },
		"refused exchanges":           func() { h.repeat(25, c, detailsCall(card, "garbage", s.ID())) },
		"answers that cannot be used": func() { h.rain.SetFault("ic-1", sandbox.FaultMalformedJSON); h.repeat(25, c, h.exaCall(ada, "")) },
	} {
		disturb()
		h.rain.SetFault("ic-1", sandbox.Fault{})
		if got := h.exaStatus(c); got != 200 || h.metric("cardstile_issuer_open_circuit", "issuer", "rain") != 0 {
			t.Errorf("%s open the circuit: %d", name, got)
		}
		must(h.gateway.Reload(h.newConfig()))
	}

	h.rain.SetFault("ic-1", sandbox.Fault500)
	token := h.mint()
	for range 20 {
		c.do(h.exaCall(ada, ""))
	}
	if h.metric("cardstile_issuer_open_circuit", "issuer", "rain") != 1 {
		t.Fatal("the circuit is closed")
	}
	shed := want{status: 503, body: gnosis("Service unavailable"), retryAfter: true, results: []string{"failed shed_circuit"}, outcome: "unavailable", shed: "circuit"}
	h.expect("open", c, detailsCall(card, token, s.ID()), shed)
	h.rain.SetFault("ic-1", sandbox.Fault{})
	h.expect("open still", c, detailsCall(card, token, s.ID()), shed)
	h.expect("mints go on", h.partner(), mintCall(""), want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"})

	// Half open, after five seconds: exchanges that never call the issuer are no trial of it, and do not use one up.
	eventually(t, "the circuit lets some through", func() bool { return h.exaStatus(c) != 503 })
	for range 5 {
		c.do(detailsCall(card, "garbage", s.ID()))
	}
	eventually(t, "the circuit closes", func() bool {
		h.exaStatus(c)
		return h.metric("cardstile_issuer_open_circuit", "issuer", "rain") == 0
	})
	h.expect("closed, with the token of before", c, detailsCall(card, token, s.ID()),
		want{status: 200, results: []string{"done"}, rule: "reveal", outcome: "done", upstream: 2, redeemed: 1})
}

func (h *house) repeat(n int, c *caller, x call) {
	for range n {
		c.do(x)
	}
}

func (h *house) exaStatus(c *caller) int { return c.do(h.exaCall(ada, "")).status }

// TestCircuitGaugeAfterReload: a reload makes a new circuit, which is closed.
func TestCircuitGaugeAfterReload(t *testing.T) {
	h := newHouse(t, options{})
	h.login(ada)
	c := h.anybody()
	h.rain.SetFault("ic-1", sandbox.Fault500)
	for range 20 {
		c.do(h.exaCall(ada, ""))
	}
	if h.metric("cardstile_issuer_open_circuit") != 1 {
		t.Fatal("the circuit is closed")
	}
	h.rain.SetFault("ic-1", sandbox.Fault{})
	must(h.gateway.Reload(h.newConfig()))
	if h.metric("cardstile_issuer_open_circuit") != 0 || h.exaStatus(c) != 200 {
		t.Error("the circuit is open after the reload")
	}
}

// TestHeaderHygiene: the issuer gets the headers that we name and no others, whatever the caller sends; the caller gets
// ours and none of the issuer's.
func TestHeaderHygiene(t *testing.T) {
	for _, http1 := range []bool{false, true} {
		h := newHouse(t, options{http1: http1})
		h.login(ada)
		s := h.session()
		hostile := []string{
			"Cookie", "a=b", "Forwarded", "for=203.0.113.9", "X-Forwarded-For", "203.0.113.9", "X-Forwarded-Host", "evil", "X-Forwarded-Proto", "http",
			"X-Real-Ip", "203.0.113.9", "Client-Cert", ":AAAA:", "Client-Cert-Chain", ":AAAA:", "X-Ssl-Client-Cert", "x", "X-Ssl-Client-Verify", "SUCCESS",
			"X-Ssl-Client-S-Dn", subject, "X-Forwarded-Client-Cert", "Hash=0", "X-Forwarded-Tls-Client-Cert", "x", "X-Client-Cert", "x", "Ssl-Client-Cert", "x",
			"X-Amzn-Mtls-Clientcert", "x", "X-Arr-Clientcert", "x", "Api-Key", "mine", "X-Api-Key", "mine", "Sessionid-2", "x",
			"X-Request-Id", "caller", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate", "a=b", "Baggage", "a=b",
			"Te", "trailers", "Via", "1.1 x", "Max-Forwards", "3", "Range", "bytes=0-1", "If-None-Match", "*", "Accept-Encoding", "gzip, br",
			"Accept-Language", "de", "Referer", "https://evil.example", "Origin", "https://evil.example", "User-Agent", "evil/1.0", "Priority", "u=1",
		}
		if http1 {
			hostile = append(hostile, "Connection", "keep-alive, X-Secret", "X-Secret", "x", "Keep-Alive", "timeout=5", "Proxy-Authorization", "Basic x", "Proxy-Connection", "keep-alive")
		}
		c := h.callerWith(nil, !http1, nil)
		var ids []string
		for _, x := range []call{detailsCall(card, h.mint(), s.ID()), pinCall(card, h.mint(), s.ID()), h.setPINCall(card, h.mint(), s, "9153"), h.exaCall(ada, s.ID())} {
			x.header = append(x.header, hostile...)
			r := c.do(x)
			if r.status != 200 {
				t.Fatalf("%s %s: %d %s", x.method, x.path, r.status, r.body)
			}
			ids = append(ids, r.header.Get("X-Request-Id"))
			names := make([]string, 0, len(r.header))
			for n := range r.header {
				names = append(names, n)
			}
			slices.Sort(names)
			want := []string{"Cache-Control", "Content-Length", "Content-Type", "Date", "X-Content-Type-Options", "X-Request-Id"}
			if x.path == "/api/card" {
				want = slices.Insert(want, 4, "Vary") // for browsers, of which the origin is one that no list has
			}
			if !slices.Equal(names, want) {
				t.Errorf("%s %s answers with %v", x.method, x.path, names)
			}
		}
		seen := h.rain.Requests()
		if len(seen) != 8 {
			t.Fatalf("%d requests reached the issuer", len(seen))
		}
		spans := map[string]bool{}
		for _, r := range seen {
			want := map[string]string{"Accept": "application/json", "User-Agent": "cardstile", "Api-Key": issuerKey}
			if r.Method == "PUT" {
				want["Content-Type"] = "application/json"
				want["Content-Length"] = fmt.Sprint(r.BodyBytes)
			}
			for name, values := range r.Header {
				switch name {
				case "Traceparent":
					if !strings.HasPrefix(values[0], "00-0af7651916cd43dd8448eb211c80319c-") || strings.Contains(values[0], "b7ad6b7169203331") || !strings.HasSuffix(values[0], "-01") {
						t.Errorf("traceparent %q", values)
					}
					spans[values[0]] = true
				case "X-Request-Id":
					if !slices.Contains(ids, values[0]) {
						t.Errorf("request id %q", values)
					}
				case "Sessionid":
					if values[0] == s.ID() || len(values[0]) != 344 || strings.HasSuffix(r.Path, "/ic-1") || strings.Contains(r.Path, "users") {
						t.Errorf("%s: sessionid %q", r.Path, values)
					}
				default:
					if want[name] == "" || len(values) != 1 || values[0] != want[name] {
						t.Errorf("%s %s: the issuer got %s: %q", r.Method, r.Path, name, values)
					}
				}
				if len(values) != 1 {
					t.Errorf("%s: %q", name, values)
				}
			}
			for name := range want {
				if r.Header.Get(name) == "" && name != "Content-Length" {
					t.Errorf("%s %s: the issuer got no %s", r.Method, r.Path, name)
				}
			}
			if r.Host != h.url.Host || strings.Contains(r.Path, "?") {
				t.Errorf("host %q, path %q", r.Host, r.Path)
			}
		}
		if len(spans) != 4 {
			t.Errorf("%d spans for 4 exchanges", len(spans))
		}
		for _, rec := range h.records()[3:] {
			if rec.Face != "gnosispay" || rec.Operations[0] != "token.mint" {
				if rec.Trace != "0af7651916cd43dd8448eb211c80319c" {
					t.Errorf("recorded trace %q", rec.Trace)
				}
			}
		}
	}
}

// TestTraceparent: a trace is continued where the header is well-formed, and begun anew where it is not.
func TestTraceparent(t *testing.T) {
	h := newHouse(t, options{})
	c := h.partner()
	for header, continued := range map[string]bool{
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": true,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff": true,
		"": false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01":    false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01":    false,
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01":    false,
		"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":    false,
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":    false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331":       false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-xx": false,
		"00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01":    false,
		"00-0af7651916cd43dd8448eb211c8031-9c-b7ad6b7169203331-0":    false,
		"00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01":    false,
		"00-0af7651916cd43dd-448eb211c80319c-b7ad6b7169203331-01":    false,
	} {
		x := mintCall("")
		x.header = append(x.header, "Traceparent", header)
		if r := c.do(x); r.status != 200 {
			t.Fatalf("%q: %d", header, r.status)
		}
		got := h.records()[len(h.records())-1].Trace
		if (got == "0af7651916cd43dd8448eb211c80319c") != continued || len(got) != 32 || strings.Trim(got, "0") == "" {
			t.Errorf("%q: trace %s", header, got)
		}
	}
	first := h.records()[0].Trace
	for _, r := range h.records()[1:] {
		if r.Trace == first && first != "0af7651916cd43dd8448eb211c80319c" {
			t.Error("two exchanges share a trace that neither named")
		}
	}
}

// TestPartnersOwnCredential: a partner that brings its own key to the issuer is called under it [3].
func TestPartnersOwnCredential(t *testing.T) {
	h := newHouse(t, options{issuer: func(c *gateway.IssuerConfig) {
		c.Credential, c.PartnerCredentials = "nobody's", map[string]string{partnerID: issuerKey, "gp-other": "another"}
	}})
	if r := h.anybody().do(detailsCall(card, h.mint(), h.session().ID())); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	other := shared().partners.client(otherName)
	token := h.mintBody(h.callerWith(&other, true, nil), "")
	if r := h.anybody().do(detailsCall(otherCard, token, h.session().ID())); r.status != 502 {
		t.Errorf("another partner's key: %d", r.status)
	}
}

// TestBasePath: what stands in front of the issuer's paths stays there, and an id does not leave it.
func TestBasePath(t *testing.T) {
	h := newHouse(t, options{issuer: func(c *gateway.IssuerConfig) {
		u := *c.URL
		u.Path = "/base dir/"
		c.URL = &u
	}})
	if r := h.anybody().do(detailsCall(card, h.mint(), h.session().ID())); r.status != 404 {
		t.Errorf("%d", r.status)
	}
	for _, r := range h.rain.Requests() {
		if !strings.HasPrefix(r.Path, "/base%20dir/issuing/cards/ic-1") {
			t.Errorf("asked for %s", r.Path)
		}
	}
}

// exploding is an issuer with a bug.
type exploding struct{ value string }

func (exploding) Serves(policy.Operation) bool { return true }

func (e exploding) Do(context.Context, issuer.Upstream, *issuer.Call) (*exchange.Result, error) {
	panic(e.value)
}

// slowly answers rightly, after a moment.
var slowly = sandbox.FaultSlow(300 * time.Millisecond)
