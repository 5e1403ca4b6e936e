package gateway_test

import (
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// burned is what was used up for nothing, by why; with no cause, of all of them.
func (h *house) burned(cause ...string) float64 {
	labels := []string(nil)
	if len(cause) > 0 {
		labels = []string{"cause", cause[0]}
	}
	return h.metric("cardstile_credentials_burned_total", labels...)
}

// TestBurnRate: a token that was used up and shows no card is counted by why, and nothing else is: not an answer, not a refusal
// that used nothing up, not a call that was turned away before anything was spent.
func TestBurnRate(t *testing.T) {
	h := newHouse(t, options{})
	status := func(token string, want int) {
		t.Helper()
		if r := h.anybody().do(detailsCall(card, token, h.session().ID())); r.status != want {
			t.Fatalf("%d %s, want %d", r.status, r.body, want)
		}
	}
	token := h.mint()
	status(token, 200)
	status(token, 401) // used before: it burnt nothing
	if all := h.burned(); all != 0 {
		t.Fatalf("%v burnt", all)
	}
	h.rain.SetFault("ic-1", sandbox.Fault500.On(sandbox.CallSecrets))
	status(h.mint(), 502)
	if got, all := h.burned("issuer_failed"), h.burned(); got != 1 || all != 1 {
		t.Errorf("the issuer failed: %v of %v", got, all)
	}
	h.rain.SetFault("ic-1", sandbox.Fault{})
	if r := h.anybody().do(detailsCall(card, h.mint(), "%%")); r.status != 400 { // refused before anything was spent [26]
		t.Fatal(r.status)
	}
	if all := h.burned(); all != 1 {
		t.Errorf("%v burnt by a session id that was never opened", all)
	}
}

// TestBurnRateNotTaken: an answer that was good, whose caller was gone.
func TestBurnRateNotTaken(t *testing.T) {
	h := newHouse(t, options{})
	release := h.hold(1, func() call { return detailsCall(card, h.mint(), h.session().ID()) })
	release() // the caller leaves while the issuer is asked: the exchange fails, as nobody is there to be answered
	eventually(t, "it is counted", func() bool { return h.burned() == 1 })
}
