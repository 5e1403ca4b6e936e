package gateway_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
)

// TestUnprovenCertificates: a certificate that is refused is no credential that was accepted. Its exchanges are turned away beyond the
// rate and leave no record then, on a connection that is open and on new ones; whoever has a good one beside it, at the same address, is not
// turned away, and the refused one is let in again when it is good again.
func TestUnprovenCertificates(t *testing.T) {
	k := shared()
	few := policy.Rate{Count: 3, Per: time.Hour}
	nobody := k.partners.client("CN=nobody")
	other := k.partners.client(otherName)
	turnedAway := want{status: 429, body: gnosis("Too many requests"), retryAfter: true, outcome: "limited"}
	away := func(reason string) want {
		return want{status: 403, body: gnosis("Forbidden"), results: []string{"refused " + reason}, outcome: "forbidden"}
	}
	for _, test := range []struct {
		name, reason string
		certificate  *tls.Certificate
		off, on      func(*house)
	}{
		{"of nobody", "certificate", &nobody, func(*house) {}, nil},
		{"revoked", "certificate_revoked", &k.partner,
			func(h *house) { h.limited(few, k.partners.revokes([]*x509.Certificate{k.partner.Leaf}), false) },
			func(h *house) { h.limited(few, k.partners.revokes(nil), false) }},
		{"unknown", "revocation_unknown", &k.partner,
			func(h *house) { h.limited(few, k.partners.revokes(nil, ended), false) },
			func(h *house) { h.limited(few, k.partners.revokes(nil), false) }},
		{"of a partner that is switched off", "denied_disabled", &k.partner,
			func(h *house) { h.limited(few, nil, true) },
			func(h *house) { h.limited(few, nil, false) }},
	} {
		for _, http2 := range []bool{false, true} {
			h := newHouse(t, options{})
			h.limited(few, nil, false)
			c, good := h.callerWith(test.certificate, http2, nil), h.callerWith(&other, http2, nil)
			if test.on != nil {
				h.expect(test.name+", before", c, mintCall(""), mintDone)
			}
			test.off(h)
			for range few.Count {
				h.expect(test.name, c, mintCall(""), away(test.reason))
			}
			before := h.metric("cardstile_limited_total", "limit", "unproven")
			h.expect(test.name+", beyond the rate", c, mintCall(""), turnedAway) // which ends the connection
			if test.reason == "certificate_revoked" || test.reason == "revocation_unknown" {
				if _, err := h.shake("partners", with(*test.certificate)); err == nil {
					t.Errorf("%s: a handshake is good", test.name)
				}
			} else {
				h.expect(test.name+", on a new connection", c, mintCall(""), turnedAway)
				for range 3 {
					h.expect(test.name+", somebody else at this address", good, mintCall(""), mintDone)
				}
				before++
			}
			if got := h.metric("cardstile_limited_total", "limit", "unproven"); got != before+1 {
				t.Errorf("%s: %v are counted as turned away, want %v", test.name, got, before+1)
			}
			if test.on != nil {
				test.on(h)
				h.expect(test.name+", good again", c, mintCall(""), mintDone)
			}
		}
	}
}

// limited reloads with a rate of exchanges that prove nothing, a list or none, and the partner switched off or on.
func (h *house) limited(rate policy.Rate, list []byte, off bool) {
	h.o.partners = demoPartners(func(p *policy.Partner) { p.Disabled = off && p.ID == partnerID })
	h.o.config = func(_ *house, c *gateway.Config) {
		c.Limits.Unproven = rate
		if list != nil {
			c.Listeners[0].Revocations = heldAgainst([]*authority{shared().partners}, false, list)
		}
	}
	must(h.gateway.Reload(h.newConfig()))
}
