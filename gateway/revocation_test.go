package gateway_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/revocation"
)

// revokes signs a list of certificates, an hour old and good for another, unless changed.
func (a *authority) revokes(certificates []*x509.Certificate, change ...func(*x509.RevocationList)) []byte {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range certificates {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)})
	}
	for _, c := range change {
		c(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.certificate, a.key)
	must(err)
	return der
}

func ended(l *x509.RevocationList) {
	l.ThisUpdate, l.NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
}

func early(l *x509.RevocationList) {
	l.ThisUpdate, l.NextUpdate = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
}

// heldAgainst holds clients against lists of CAs.
func heldAgainst(cas []*authority, soft bool, lists ...[]byte) *revocation.Checker {
	c := revocation.Config{Listener: "partners", Soft: soft}
	for _, ca := range cas {
		c.CAs = append(c.CAs, ca.certificate)
	}
	for _, list := range lists {
		c.Lists = append(c.Lists, revocation.Source{Content: list})
	}
	checker, err := revocation.New(c)
	must(err)
	return checker
}

// everything asks whoever can be asked, and lets pass of whom nobody says anything.
func everything() *revocation.Checker {
	nowhere, err := url.Parse("http://127.0.0.1:1/")
	must(err)
	checker, err := revocation.New(revocation.Config{
		Listener: "partners", Soft: true, OCSP: &revocation.OCSP{Soft: true}, Refresh: time.Hour,
		Lists:  []revocation.Source{{Content: shared().partners.revokes(nil)}, {URL: nowhere}},
		Dialer: func(netip.Addr) *net.Dialer { return gateway.Destinations{Loopback: true}.Dialer(time.Second) },
	})
	must(err)
	return checker
}

// against holds the partners' listener against lists from the next configuration on.
func (h *house) against(soft bool, lists ...[]byte) {
	checker := heldAgainst([]*authority{shared().partners}, soft, lists...)
	h.o.config = func(_ *house, c *gateway.Config) { c.Listeners[0].Revocations = checker }
	must(h.gateway.Reload(h.newConfig()))
}

// TestRevokedHandshakes: who is revoked, or cannot be known not to be, is refused in the handshake.
func TestRevokedHandshakes(t *testing.T) {
	k := shared()
	h := newHouse(t, options{})
	between := k.partners.intermediate("between")
	below := between.client(subject)
	for _, test := range []struct {
		name, reason string
		client       tls.Certificate
		soft         bool
		lists        [][]byte
	}{
		{"good", "", k.partner, false, [][]byte{k.partners.revokes([]*x509.Certificate{below.Leaf})}},
		{"revoked", "revoked", k.partner, false, [][]byte{k.partners.revokes([]*x509.Certificate{k.partner.Leaf})}},
		{"revoked, soft", "revoked", k.partner, true, [][]byte{k.partners.revokes([]*x509.Certificate{k.partner.Leaf})}},
		{"revoked in the second list", "revoked", k.partner, false, [][]byte{k.partners.revokes(nil), k.partners.revokes([]*x509.Certificate{k.partner.Leaf})}},
		{"revoked in a list that has ended", "revoked", k.partner, true, [][]byte{k.partners.revokes([]*x509.Certificate{k.partner.Leaf}, ended)}},
		{"a list that has ended", "revocation_unknown", k.partner, false, [][]byte{k.partners.revokes(nil, ended)}},
		{"a list that has ended, soft", "", k.partner, true, [][]byte{k.partners.revokes(nil, ended)}},
		{"a list of the future", "revocation_unknown", k.partner, false, [][]byte{k.partners.revokes(nil, early)}},
		{"an old list and a current one", "", k.partner, false, [][]byte{k.partners.revokes(nil, ended), k.partners.revokes(nil)}},
		{"lists of every CA", "", below, false, [][]byte{k.partners.revokes(nil), between.revokes(nil)}},
		{"no list of the intermediate's", "revocation_unknown", below, false, [][]byte{k.partners.revokes(nil)}},
		{"no list of the intermediate's, soft", "", below, true, [][]byte{k.partners.revokes(nil)}},
		{"revoked intermediate", "revoked", below, true, [][]byte{k.partners.revokes([]*x509.Certificate{between.certificate})}},
		{"revoked by the intermediate", "revoked", below, true, [][]byte{between.revokes([]*x509.Certificate{below.Leaf})}},
		{"somebody of the intermediate's name", "revocation_unknown", below, false, [][]byte{k.partners.revokes(nil), k.stranger.intermediate("between").revokes(nil)}},
		{"revoked by somebody of the intermediate's name", "", below, true, [][]byte{k.stranger.intermediate("between").revokes([]*x509.Certificate{below.Leaf})}},
	} {
		h.against(test.soft, test.lists...)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := with(test.client)
			c.MinVersion, c.MaxVersion = version, version
			before := h.metric("cardstile_handshake_failures_total", "listener", "partners", "reason", test.reason)
			_, err := h.shake("partners", c)
			if test.reason == "" {
				if err != nil {
					t.Errorf("%s: %v", test.name, err)
				}
				continue
			}
			if err == nil || !strings.HasSuffix(err.Error(), "bad certificate") {
				t.Errorf("%s: %v, want bad certificate", test.name, err)
			}
			eventually(t, test.name+" is counted", func() bool {
				return h.metric("cardstile_handshake_failures_total", "listener", "partners", "reason", test.reason) == before+1
			})
		}
	}
}

// TestRevocationReachesOpenConnections: a new list, and the end of one, hold for connections that are open.
func TestRevocationReachesOpenConnections(t *testing.T) {
	k := shared()
	h := newHouse(t, options{})
	forbidden := want{status: 403, body: gnosis("Forbidden"), results: []string{"refused certificate"}, outcome: "forbidden"}
	done := want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"}
	h.against(false, k.partners.revokes(nil))
	one, two := h.callerWith(&k.partner, false, nil), h.callerWith(&k.partner, true, nil)
	h.expect("HTTP/1.1", one, mintCall(""), done)
	h.expect("HTTP/2", two, mintCall(""), done)
	connections := h.metric("cardstile_handshakes_total")

	h.against(false, k.partners.revokes([]*x509.Certificate{k.partner.Leaf}))
	h.expect("HTTP/1.1, revoked", one, mintCall(""), forbidden)
	h.expect("HTTP/2, revoked", two, mintCall(""), forbidden)

	var end time.Time
	h.against(false, k.partners.revokes(nil, func(l *x509.RevocationList) {
		end = time.Now().Add(3 * time.Second).Truncate(time.Second)
		l.NextUpdate = end
	}))
	h.expect("taken off the list", one, mintCall(""), done)
	h.expect("taken off the list", two, mintCall(""), done)
	time.Sleep(time.Until(end.Add(10 * time.Millisecond))) // the list's end is the event
	h.expect("HTTP/1.1, the list has ended", one, mintCall(""), forbidden)
	h.expect("HTTP/2, the list has ended", two, mintCall(""), forbidden)
	if got := h.metric("cardstile_handshakes_total"); got != connections {
		t.Errorf("%v connections were made anew", got-connections)
	}
}
