package gateway_test

import (
	"crypto/fips140"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/crypto/ocsp"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/internal/testacme"
)

// stapler is the OCSP responder of the house's servers.
type stapler struct {
	*httptest.Server
	mu    sync.Mutex
	says  func(*ocsp.Response) // changes what it says; it says "good" of everything
	asked int
}

func newStapler(t testing.TB) *stapler {
	s := &stapler{}
	servers := shared().servers
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		must(err)
		question, err := ocsp.ParseRequest(body)
		if err != nil {
			t.Error(err)
			return
		}
		word := ocsp.Response{
			Status: ocsp.Good, SerialNumber: question.SerialNumber, IssuerHash: question.HashAlgorithm,
			ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(24 * time.Hour),
		}
		s.mu.Lock()
		s.asked++
		if s.says != nil {
			s.says(&word)
		}
		s.mu.Unlock()
		der, err := ocsp.CreateResponse(servers.certificate, servers.certificate, word, servers.key)
		must(err)
		w.Write(der)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *stapler) say(f func(*ocsp.Response)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.says = f
}

func (s *stapler) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// storedCertificate puts a certificate of the house's servers into a new directory, as the development CA's for host.
func storedCertificate(t testing.TB, change func(*x509.Certificate)) (dir string, leaf *x509.Certificate) {
	t.Helper()
	dir = t.TempDir()
	must(os.Chmod(dir, 0o700))
	servers := shared().servers
	c := &x509.Certificate{
		DNSNames: []string{host}, NotAfter: time.Now().Add(90 * 24 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(c)
	own := servers.issue(ecKey(), c)
	key, err := certmagic.PEMEncodePrivateKey(own.PrivateKey)
	must(err)
	chain := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Leaf.Raw}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: servers.certificate.Raw})...)
	storage := gateway.NewSealedStorage(&certmagic.FileStorage{Path: dir}, seals("certificate"))
	must(errors.Join(
		storage.Store(t.Context(), certmagic.StorageKeys.SiteCert("local", host), chain),
		storage.Store(t.Context(), certmagic.StorageKeys.SitePrivateKey("local", host), key),
		storage.Store(t.Context(), certmagic.StorageKeys.SiteMeta("local", host), []byte(`{"sans":["`+host+`"]}`)),
	))
	return dir, own.Leaf
}

// respondedBy has a certificate name a responder.
func respondedBy(url string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.OCSPServer = []string{url} }
}

// oneHost is a gateway whose partners' listener has host alone.
func oneHost(m *gateway.Managed) options {
	return managed(m, func(c *gateway.Config) {
		c.Listeners[0].Hosts, c.Listeners[1].Hosts, c.Listeners[1].Certificate = []string{host}, nil, shared().server
	})
}

// presented is the certificate that a gateway shows, with what is stapled to it.
func (h *house) presented() (*x509.Certificate, []byte) {
	h.t.Helper()
	conn, err := tls.Dial("tcp", h.gateway.Addr("partners").String(), &tls.Config{InsecureSkipVerify: true, ServerName: host, Certificates: []tls.Certificate{shared().partner}})
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], conn.OCSPResponse()
}

func (h *house) stapled() float64 {
	h.t.Helper()
	return h.metric("cardstile_certificate_staple_current", "host", host)
}

// staples is how many hosts are shown with or without a staple.
func (h *house) staples() (n int) {
	h.t.Helper()
	for _, f := range h.gather() {
		if f.GetName() == "cardstile_certificate_staple_current" {
			n += len(f.GetMetric())
		}
	}
	return n
}

// TestStaple: where a certificate names a responder, its word is served beside it, and after a restart what is kept of it, whether the
// responder is there or not.
func TestStaple(t *testing.T) {
	s := newStapler(t)
	dir, leaf := storedCertificate(t, respondedBy(s.URL))
	m := gateway.Managed{Directory: dir, Destinations: gateway.Destinations{Loopback: true}}
	h := newHouse(t, oneHost(&m))
	eventually(t, "it is stapled", func() bool { _, word := h.presented(); return word != nil })
	_, first := h.presented()
	fips140.WithoutEnforcement(func() {
		if word, err := ocsp.ParseResponseForCert(first, leaf, shared().servers.certificate); err != nil || word.Status != ocsp.Good {
			t.Errorf("%+v, %v", word, err)
		}
	})
	if h.stapled() != 1 || h.metric("cardstile_certificate_present", "host", host) != 1 {
		t.Error("it is not shown")
	}
	h.shutdown()
	s.Close()
	h = newHouse(t, oneHost(&m))
	eventually(t, "what was kept is stapled", func() bool { _, word := h.presented(); return word != nil })
	if _, word := h.presented(); string(word) != string(first) || s.count() != 1 {
		t.Errorf("another word than the one that was kept, or %d questions", s.count())
	}
}

// TestStapleUnderFIPSOnly: there questions have SHA-256, and the one with SHA-1 would end the process.
func TestStapleUnderFIPSOnly(t *testing.T) {
	if fips140.Enforced() {
		return // TestStaple is it
	}
	binary, err := os.Executable()
	must(err)
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestStaple$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestStaple") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestNothingIsStapled of a word that is none, of one that is not good, of a responder where none may be, and to a certificate of a few
// days. It is served all the same.
func TestNothingIsStapled(t *testing.T) {
	for _, test := range []struct {
		name, log string
		anywhere  bool // loopback is no destination
		short     bool
		says      func(*ocsp.Response)
	}{
		{name: "unknown", log: `"result":"unknown"`, says: func(r *ocsp.Response) { r.Status = ocsp.Unknown }},
		{name: "ended", log: `"result":"stale"`, says: func(r *ocsp.Response) { r.NextUpdate = time.Now().Add(-time.Minute) }},
		{name: "another certificate's", log: `"result":"mismatch"`, says: func(r *ocsp.Response) { r.SerialNumber = big.NewInt(7) }},
		{name: "no destination", log: `"result":"unreachable"`, anywhere: true},
		{name: "a few days", short: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStapler(t)
			s.say(test.says)
			dir, leaf := storedCertificate(t, func(c *x509.Certificate) {
				c.OCSPServer = []string{s.URL}
				if test.short {
					c.NotAfter = time.Now().Add(6 * 24 * time.Hour)
				}
			})
			h := newHouse(t, oneHost(&gateway.Managed{Directory: dir, Destinations: gateway.Destinations{Loopback: !test.anywhere}}))
			if test.short {
				eventually(t, "it is looked at", func() bool { return h.gateway.SeenTo(host) })
			} else {
				eventually(t, "the log says why", func() bool {
					return strings.Contains(h.log.String(), "no OCSP response to staple") && strings.Contains(h.log.String(), test.log)
				})
			}
			if c, word := h.presented(); !c.Equal(leaf) || word != nil {
				t.Errorf("%v is shown with %d bytes", c.DNSNames, len(word))
			}
			if n := h.staples(); h.stapled() != 0 || n != map[bool]int{false: 1, true: 0}[test.short] {
				t.Errorf("it is shown as stapled, or %d series", n)
			}
			if asked := s.count() > 0; asked != (!test.anywhere && !test.short) {
				t.Errorf("%d questions", s.count())
			}
		})
	}
}

// TestRevokedServerCertificate: where the authority itself says that a certificate is revoked, another one takes its place, and one order
// is all.
func TestRevokedServerCertificate(t *testing.T) {
	s := newStapler(t)
	s.say(func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, time.Now().Add(-time.Minute) })
	dir, leaf := storedCertificate(t, respondedBy(s.URL))
	h := newHouse(t, oneHost(&gateway.Managed{Directory: dir, Destinations: gateway.Destinations{Loopback: true}}))
	eventually(t, "another certificate is served", func() bool { c, _ := h.presented(); return !c.Equal(leaf) })
	eventually(t, "the old one is gone", func() bool { return h.gateway.Kept(host) == 1 })
	if _, word := h.presented(); word != nil {
		t.Error("the word about another certificate is stapled")
	}
	if n := h.metric("cardstile_certificate_orders_total", "operation", "renew", "result", "ok"); n != 1 || h.metric("cardstile_certificate_orders_total") != 1 {
		t.Errorf("%v orders", n)
	}
	if !strings.Contains(h.log.String(), "the authority has revoked a certificate") {
		t.Error("the log does not say it")
	}
}

// TestResponderHangs: certificates are in service while it does, after an order, a renewal and a restart, renewals go on, and an end
// of the gateway ends the question.
func TestResponderHangs(t *testing.T) {
	t.Parallel()
	const slow, second = "slow.example.test", "second.example.test"
	asked, gone := make(chan struct{}, 16), make(chan struct{}, 16)
	responder := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) //nolint:errcheck // net/http notices that a client has gone only once its request has been read
		asked <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	}))
	t.Cleanup(responder.Close)
	ca := testacme.Start(t, testacme.Options{Responder: responder.URL, Suggestions: 1})
	m := gateway.Managed{
		ACME: by(ca, gateway.ChallengeALPN), Directory: filepath.Join(t.TempDir(), "c"), CheckEvery: 50 * time.Millisecond, Destinations: gateway.Destinations{Loopback: true},
	}
	o := managed(&m, func(c *gateway.Config) {
		c.Listeners[0].Hosts, c.Listeners[1].Hosts, c.Listeners[1].Certificate = []string{slow, second}, nil, shared().server
	})
	h := newHouse(t, o)
	ca.TLS.Lead(h.gateway.Addr("partners").String())
	h.awaited("partners", slow, ca.Roots)
	h.awaited("partners", second, ca.Roots)
	within(t, 90*time.Second, "one is renewed", func() bool {
		return h.metric("cardstile_certificate_orders_total", "operation", "renew", "result", "ok") == 1
	})
	<-asked
	eventually(t, "both are shown as what lacks a staple", func() bool { return h.staples() == 2 && h.metric("cardstile_certificate_staple_current") == 0 })
	h.shutdown()
	<-gone
	h = newHouse(t, o)
	h.awaited("partners", slow, ca.Roots)
	if n := h.metric("cardstile_certificate_orders_total"); n != 0 {
		t.Errorf("%v orders after a restart", n)
	}
}
