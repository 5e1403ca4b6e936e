package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
)

// TestForwardedFailuresOpenTheCircuit: callers read an issuer's 5xx themselves, and when it says nothing else it is left alone.
func TestForwardedFailuresOpenTheCircuit(t *testing.T) {
	h := newHouse(t, options{routes: wide, issuer: brief})
	c := h.anybody()
	l := h.accountLogin(account)
	h.payments.SetFault(payOwner, sandbox.Fault500)
	h.repeat(20, c, l.wallet())
	if h.metric("cardstile_issuer_open_circuit", "issuer", "payments") != 1 {
		t.Error("the circuit is closed")
	}
	if r := c.do(l.wallet()); r.status != http.StatusServiceUnavailable {
		t.Errorf("an open circuit answers %d", r.status)
	}
}

// TestForwardRetryAfter: how long the issuer asks to wait goes along, as a number of seconds and no other text; what it thinks
// of our own credential does not.
func TestForwardRetryAfter(t *testing.T) {
	said := http.Header{}
	status := http.StatusTooManyRequests
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for name := range said {
			w.Header().Set(name, said.Get(name))
		}
		w.WriteHeader(status)
		w.Write([]byte(`{"error":"THEIRS"}`))
	}))
	defer upstream.Close()
	place, err := url.Parse(upstream.URL)
	must(err)
	h := newHouse(t, options{routes: wide, issuer: func(c *gateway.IssuerConfig) {
		if c.Name == "payments" {
			c.URL, c.TLS = place, nil
		}
	}})
	c := h.anybody()
	l := h.accountLogin(account)
	for text, want := range map[string]string{"": "", "7": "7", "86400": "86400", "86401": "", "-1": "", "4111111111111111": "", "Wed, 25 Nov 2026 18:00:00 GMT": ""} {
		said.Set("Retry-After", text)
		if r := c.do(l.wallet()); r.status != http.StatusTooManyRequests || r.header.Get("Retry-After") != want || r.body != `{"error":"THEIRS"}` {
			t.Errorf("%q: %d, Retry-After %q: %s", text, r.status, r.header.Get("Retry-After"), r.body)
		}
	}
	status = http.StatusUnauthorized
	if r := c.do(l.wallet()); r.status != http.StatusBadGateway {
		t.Errorf("an issuer that does not know our credential: %d %s", r.status, r.body)
	}
}
