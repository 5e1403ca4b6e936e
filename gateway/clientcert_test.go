package gateway_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
)

// claimFamilies are fields by which gateways tell the servers behind them of a client's certificate.
var claimFamilies = []string{
	"Client-Cert", "Client-Cert-Chain", "Client-Certificate", "X-Client-Cert", "X-Client-Certificate", "X-Client-Cert-Present", "X-Client-Cert-Chain-Verified", "X-ClientCert-Subject",
	"X-SSL-Client-Cert", "X-SSL-Client-Verify", "X-SSL-Client-S-DN", "X-SSL-CERT", "X-SSL-Issuer", "X-SSL-Client-CN", "X-SSL-Client-DER", "X-SSL-Client-NotAfter", "X-SSL-Client-Serial",
	"SSL-Client-Cert", "SSL-Client-Verify", "SSL-Client-S-DN", "Ssl-Client-Subject-Dn", "TLS-Client-Cert", "X-TLS-Client-Cert", "X-Client-Verify", "X-Client-DN",
	"X-Forwarded-Client-Cert", "X-Forwarded-Client-Cert-Chain", "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", "X-Forwarded-Ssl-Client-Cert-Infos",
	"X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Leaf", "X-Amzn-Mtls-Clientcert-Subject", "X-ARR-ClientCert", "CF-Client-Cert-Der-Base64", "X-MTLS-Verified",
	"WL-Proxy-Client-Cert", "SSLClientCertb64", "SSLClientCertStatus",
}

// spelled are ways to write a field's name that servers behind gateways take for one.
func spelled(name string) []string {
	half := strings.Replace(name, "-", "_", 1)
	return []string{
		name, strings.ToLower(name), strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), strings.ToUpper(strings.ReplaceAll(name, "-", "_")), half,
		strings.ReplaceAll(name, "-", "."), strings.ReplaceAll(name, "-", "~"),
	}
}

// TestClaimsAreDropped: no field that claims a client certificate reaches a face, however its name is written, over either protocol;
// and nothing else is dropped.
func TestClaimsAreDropped(t *testing.T) {
	s := newStreet(t)
	for _, http1 := range []bool{false, true} {
		v := visit{sni: publicHost, host: publicHost, http1: http1}
		c := s.client(v)
		for _, name := range claimFamilies {
			for _, text := range spelled(name) {
				if !http1 {
					text = strings.ToLower(text)
				}
				before := s.metric("cardstile_claims_dropped_total", "listener", "public")
				r, err := s.send(c, v, call{method: "GET", path: "/who", header: []string{text, "SUCCESS", "X-Kept", "1"}})
				if err != nil || r.status != 200 {
					t.Fatalf("%s: %d %v", text, r.status, err)
				}
				s.mu.Lock()
				for field := range s.seen {
					if strings.EqualFold(field, text) {
						t.Errorf("%s reached a face as %s", text, field)
					}
				}
				if s.seen.Get("X-Kept") != "1" {
					t.Errorf("%s: another field was dropped", text)
				}
				s.mu.Unlock()
				if got := s.metric("cardstile_claims_dropped_total", "listener", "public") - before; got != 1 {
					t.Errorf("%s: counted %v times", text, got)
				}
			}
		}
		kept := []string{"Client-Id", "X-Client-Id", "X-Client-Version", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Client", "X-Sslabs", "Sslx", "Client", "X-Amzn-Trace-Id", "X-Ssl"}
		var header []string
		for _, name := range kept {
			header = append(header, name, "1")
		}
		before := s.metric("cardstile_claims_dropped_total")
		if r, err := s.send(c, v, call{method: "GET", path: "/who", header: header}); err != nil || r.status != 200 {
			t.Fatalf("%d %v", r.status, err)
		}
		s.mu.Lock()
		for _, name := range kept {
			if s.seen.Get(name) != "1" {
				t.Errorf("%s was dropped", name)
			}
		}
		s.mu.Unlock()
		if s.metric("cardstile_claims_dropped_total") != before {
			t.Error("counted where nothing was dropped")
		}
	}
}

// told is what an issuer was told of a certificate.
func told(r sandbox.Seen) (leaf string, chain []string) {
	bytes := func(item string) string {
		inner, begins := strings.CutPrefix(strings.TrimSpace(item), ":")
		inner, ends := strings.CutSuffix(inner, ":")
		der, err := base64.StdEncoding.Strict().DecodeString(inner)
		if !begins || !ends || err != nil {
			return "no byte sequence: " + item
		}
		return string(der)
	}
	if v := r.Header["Client-Cert"]; len(v) > 0 {
		leaf = bytes(strings.Join(v, " and "))
	}
	for _, v := range r.Header["Client-Cert-Chain"] {
		for item := range strings.SplitSeq(v, ",") {
			chain = append(chain, bytes(item))
		}
	}
	return leaf, chain
}

// TestClientCertIsTold: an issuer is told the certificate that was verified (RFC 9440), where its route says so and there is one;
// what the caller claims, it is not told.
func TestClientCertIsTold(t *testing.T) {
	k := shared()
	near := k.partners.intermediate("near")
	below := near.intermediate("below").client(subject)
	direct := k.partner
	for mode, test := range map[gateway.ClientCert]struct{ leaf, chain bool }{
		gateway.ClientCertNone: {false, false}, gateway.ClientCertLeaf: {true, false}, gateway.ClientCertChain: {true, true},
	} {
		h := newHouse(t, options{config: func(_ *house, c *gateway.Config) {
			for i := range c.Routes[:2] {
				c.Routes[i].ClientCert = mode
			}
			reveals := c.Routes[1]
			reveals.Listener, reveals.Operations = "partners", []policy.Operation{policy.CardReveal, policy.CardProfile}
			c.Routes = append(c.Routes, reveals)
		}})
		claim := []string{"Client-Cert", ":AAAA:", "Client-Cert-Chain", ":AAAA:", "Client_Cert", ":AAAA:", "X-Forwarded-Client-Cert", "Hash=0"}
		for name, certificate := range map[string]*tls.Certificate{"direct": &direct, "through two": &below, "none": nil} {
			for _, http2 := range []bool{false, true} {
				x := detailsCall(card, h.mint(), h.session().ID())
				if certificate != nil {
					x.listener = "partners"
				}
				x = x.with(claim...)
				seen := len(h.rain.Requests())
				if r := h.callerWith(certificate, http2, nil).do(x); r.status != 200 {
					t.Fatalf("%s: %d %s", name, r.status, r.body)
				}
				for _, r := range h.rain.Requests()[seen:] {
					leaf, chain := told(r)
					wantLeaf, wantChain := "", []string(nil)
					if certificate != nil && test.leaf {
						wantLeaf = string(certificate.Certificate[0])
					}
					if name == "through two" && test.chain {
						wantChain = []string{string(certificate.Certificate[1]), string(certificate.Certificate[2])}
					}
					if leaf != wantLeaf || fmt.Sprint(chain) != fmt.Sprint(wantChain) {
						t.Errorf("mode %d, %s: told a certificate of %d bytes and a chain of %d, want %d and %d", mode, name, len(leaf), len(chain), len(wantLeaf), len(wantChain))
					}
					for field := range r.Header {
						if strings.HasPrefix(http.CanonicalHeaderKey(strings.ReplaceAll(field, "_", "-")), "X-Forwarded") || strings.Contains(field, "_") {
							t.Errorf("the issuer got %s", field)
						}
					}
				}
				if len(h.rain.Requests()) == seen {
					t.Errorf("%s: the issuer was not asked", name)
				}
			}
		}
	}
}

// TestClientCertOfAForward: a forwarded call tells the certificate too.
func TestClientCertOfAForward(t *testing.T) {
	h := newHouse(t, options{routes: func(h *house) []gateway.Route {
		r := h.paymentsRoute(h.issuerKind("forward", nil))
		r.Listener, r.ClientCert = "partners", gateway.ClientCertLeaf
		return []gateway.Route{r}
	}})
	login := h.signed(loginCall(account))
	login.listener = "partners"
	l := h.readLogin(h.partner().do(login))
	x := l.call("GET", "/wallet", "")
	x.listener = "partners"
	if r := h.partner().do(x.with("Client-Cert", ":AAAA:")); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	leaf, _ := told(h.lastSeen())
	if c, err := x509.ParseCertificate([]byte(leaf)); err != nil || !c.Equal(shared().partner.Leaf) {
		t.Errorf("told %d bytes: %v", len(leaf), err)
	}
}
