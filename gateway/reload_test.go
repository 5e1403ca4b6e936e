package gateway_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
)

// TestReloadForgets: of issuers and partners that are not named any more nothing is left; least of all an open circuit, which
// nothing would ever close.
func TestReloadForgets(t *testing.T) {
	h := newHouse(t, options{})
	h.login(ada)
	c := h.anybody()
	h.rain.SetFault("ic-1", sandbox.Fault500)
	for range 20 {
		c.do(h.exaCall(ada, ""))
	}
	if h.metric("cardstile_issuer_open_circuit", "issuer", "rain") != 1 {
		t.Fatal("the circuit is closed")
	}
	before := h.gateway.Slots()
	for i := range 3 {
		next := h.newConfig()
		next.Routes = slices.DeleteFunc(next.Routes, func(r gateway.Route) bool { return r.Issuer != nil && r.Issuer.Name == "rain" })
		more, err := policy.NewPartners(append(values(next.Partners.All()), policy.Partner{ID: fmt.Sprintf("more-%d", i), Environment: "test"}))
		must(err)
		next.Partners = more
		must(h.gateway.Reload(next))
		if h.metric("cardstile_issuer_open_circuit", "issuer", "rain") != 0 {
			t.Error("the circuit of an issuer that is gone stands open")
		}
	}
	h.rain.SetFault("ic-1", sandbox.Fault{})
	must(h.gateway.Reload(h.newConfig()))
	if got := h.gateway.Slots(); got != before {
		t.Errorf("%d issuers and partners are known, %d before", got, before)
	}
}

func values(all []*policy.Partner) (found []policy.Partner) {
	for _, p := range all {
		found = append(found, *p)
	}
	return found
}
