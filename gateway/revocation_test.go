package gateway_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
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

// against holds the partners' listener against lists from the next configuration on.
func (h *house) against(soft bool, lists ...[]byte) {
	r, err := gateway.NewRevocations([]*x509.Certificate{shared().partners.certificate}, lists, soft)
	must(err)
	h.o.config = func(_ *house, c *gateway.Config) { c.Listeners[0].Revocations = r }
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

// TestRevocationLists: what is not a complete, signed list of one CA is none to go by.
func TestRevocationLists(t *testing.T) {
	k := shared()
	other := &authority{key: ecKey()}
	template := caTemplate(k.partners.certificate.Subject.CommonName) // the CA's name with another key
	other.certificate = sign(template, template, other.key.Public(), other.key)
	with := func(id asn1.ObjectIdentifier, critical bool) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: []byte{5, 0}})
		}
	}
	entry := func(l *x509.RevocationList) {
		l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{48, 0}}}
	}
	list := k.partners.revokes(nil)
	flipped := append([]byte(nil), list...)
	flipped[len(flipped)-1] ^= 1
	text := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list})
	for _, test := range []struct {
		name, problem string
		list          []byte
	}{
		{"DER", "", list},
		{"PEM", "", text},
		{"an extension that says no more", "", k.partners.revokes(nil, with(asn1.ObjectIdentifier{1, 2, 3}, false))},
		{"two in one", "one X509 CRL", append(append([]byte(nil), text...), text...)},
		{"a certificate", "one X509 CRL", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: list})},
		{"nothing", "does not parse", nil},
		{"cut off", "does not parse", list[:len(list)-1]},
		{"another key", "not signed by the CA", other.revokes(nil)},
		{"a flipped bit", "not signed by the CA", flipped},
		{"a delta", "partial or indirect", k.partners.revokes(nil, with(asn1.ObjectIdentifier{2, 5, 29, 27}, true))},
		{"a distribution point", "partial or indirect", k.partners.revokes(nil, with(asn1.ObjectIdentifier{2, 5, 29, 28}, false))},
		{"an unknown extension", "critical extension 1.2.3", k.partners.revokes(nil, with(asn1.ObjectIdentifier{1, 2, 3}, true))},
		{"an entry of another CA", "an entry has the critical extension 2.5.29.29", k.partners.revokes([]*x509.Certificate{k.partner.Leaf}, entry)},
	} {
		_, err := gateway.NewRevocations([]*x509.Certificate{k.partners.certificate}, [][]byte{test.list}, true)
		if (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: %v, want %q", test.name, err, test.problem)
		}
	}
}
