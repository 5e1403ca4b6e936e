package gateway_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

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
		Listener: "partners", Soft: true, OCSP: &revocation.OCSP{Soft: true}, Refresh: time.Hour, Cache: "nowhere",
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
		h.against(test.soft) // what was there before is gone
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
	clock := &turned{}
	h := newHouse(t, options{services: func(s *gateway.Services) { s.Now = clock.now }})
	h.against(false, k.partners.revokes(nil))
	one, two := h.callerWith(&k.partner, false, nil), h.callerWith(&k.partner, true, nil)
	h.expect("HTTP/1.1", one, mintCall(""), mintDone)
	h.expect("HTTP/2", two, mintCall(""), mintDone)
	connections := h.metric("cardstile_handshakes_total")

	h.against(false, k.partners.revokes([]*x509.Certificate{k.partner.Leaf}))
	h.expect("HTTP/1.1, revoked", one, mintCall(""), forbidden)
	h.expect("HTTP/2, revoked", two, mintCall(""), forbidden)

	h.against(false, k.partners.revokes(nil, func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(10 * time.Minute) }))
	h.expect("taken off the list", one, mintCall(""), mintDone)
	h.expect("taken off the list", two, mintCall(""), mintDone)
	clock.turn(11 * time.Minute)
	h.expect("HTTP/1.1, the list has ended", one, mintCall(""), untold)
	h.expect("HTTP/2, the list has ended", two, mintCall(""), untold)
	h.against(false, k.partners.revokes(nil, func(l *x509.RevocationList) {
		l.ThisUpdate, l.NextUpdate = clock.now().Add(5*time.Minute+30*time.Second), clock.now().Add(time.Hour)
	}))
	h.expect("the list has not begun", one, mintCall(""), untold)
	h.expect("the list has not begun", two, mintCall(""), untold)
	clock.turn(11*time.Minute + 31*time.Second)
	h.expect("HTTP/1.1, it has", one, mintCall(""), mintDone)
	h.expect("HTTP/2, it has", two, mintCall(""), mintDone)
	if got := h.metric("cardstile_handshakes_total"); got != connections {
		t.Errorf("%v connections were made anew", got-connections)
	}
}

// What becomes of a mint, by a certificate that is good, and by one that is refused on a connection that was open before.
var (
	mintDone  = want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"}
	forbidden = want{status: 403, body: gnosis("Forbidden"), results: []string{"refused certificate_revoked"}, outcome: "forbidden"}
	untold    = want{status: 403, body: gnosis("Forbidden"), results: []string{"refused revocation_unknown"}, outcome: "forbidden"}
)

// served is a server of a CA: of its list by GET, and by POST of its answers about certificates.
type served struct {
	*httptest.Server
	ca      *authority
	mu      sync.Mutex
	list    []byte
	revoked []*x509.Certificate
	silent  bool
}

func newServed(t *testing.T, ca *authority) *served {
	s := &served{ca: ca, list: ca.revokes(nil)}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *served) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if r.Method == http.MethodGet {
		w.Write(s.list)
		return
	}
	body, err := io.ReadAll(r.Body)
	must(err)
	question, err := ocsp.ParseRequest(body)
	must(err)
	answer := ocsp.Response{Status: ocsp.Good, SerialNumber: question.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range s.revoked {
		if c.SerialNumber.Cmp(question.SerialNumber) == 0 {
			answer.Status, answer.RevokedAt = ocsp.Revoked, time.Now()
		}
	}
	der, err := ocsp.CreateResponse(s.ca.certificate, s.ca.certificate, answer, s.ca.key)
	must(err)
	w.Write(der)
}

// revokes has the server say that certificates are revoked, by list and answer.
func (s *served) revokes(number int64, all ...*x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked = all
	s.list = s.ca.revokes(all, func(l *x509.RevocationList) { l.Number = big.NewInt(number) })
}

func (s *served) fail(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
}

// byList and byOCSP ask the server every few milliseconds.
func (s *served) byList() revocation.Config {
	at, err := url.Parse(s.URL)
	must(err)
	return s.config(revocation.Config{Lists: []revocation.Source{{URL: at}}})
}

func (s *served) byOCSP() revocation.Config {
	at, err := url.Parse(s.URL)
	must(err)
	return s.config(revocation.Config{OCSP: &revocation.OCSP{Responder: at}})
}

func (s *served) config(c revocation.Config) revocation.Config {
	c.Listener, c.CAs, c.Refresh = "partners", []*x509.Certificate{s.ca.certificate}, 100*time.Millisecond
	c.Dialer = func(netip.Addr) *net.Dialer { return gateway.Destinations{Loopback: true}.Dialer(time.Second) }
	return c
}

// checking is a configuration whose partners' listener has a Checker.
func checking(c revocation.Config) func(*house, *gateway.Config) {
	return func(_ *house, to *gateway.Config) {
		checker, err := revocation.New(c)
		must(err)
		to.Listeners[0].Revocations = checker
	}
}

// TestRevocationByServers: what a CA's server says, by list or answer, is in force without a reload, for handshakes, for sessions of
// before, and for connections that are open; and a reload forgets nothing of it.
func TestRevocationByServers(t *testing.T) {
	k := shared()
	for name, by := range map[string]func(*served) revocation.Config{"list": (*served).byList, "OCSP": (*served).byOCSP} {
		t.Run(name, func(t *testing.T) {
			s := newServed(t, k.partners)
			h := newHouse(t, options{config: checking(by(s))})
			second := k.partners.client(subject)
			session := with(k.partner)
			session.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			eventually(t, "a list is there", func() bool { _, err := h.shake("partners", session); return err == nil })
			one, two := h.callerWith(&k.partner, false, nil), h.callerWith(&k.partner, true, nil)
			h.expect("HTTP/1.1", one, mintCall(""), mintDone)
			h.expect("HTTP/2", two, mintCall(""), mintDone)

			s.revokes(2, k.partner.Leaf)
			eventually(t, "it is revoked", func() bool { return one.do(mintCall("")).status == 403 })
			h.expect("HTTP/1.1, revoked", one, mintCall(""), forbidden)
			h.expect("HTTP/2, revoked", two, mintCall(""), forbidden)
			h.refused("a session of before", "revoked", session)
			h.refused("revoked", "revoked", with(k.partner))
			h.welcome("another certificate of the partner", with(second))

			s.fail(true)
			must(h.gateway.Reload(h.newConfig()))
			h.expect("after a reload", one, mintCall(""), forbidden)
			h.refused("after a reload", "revoked", with(k.partner))
			if name == "list" { // which lasts; a good answer is gone by for 100 ms
				h.welcome("another certificate after a reload", with(second))
			} else {
				h.refused("one of which nobody says anything", "revocation_unknown", with(k.partners.client(subject)))
			}
			s.fail(false)
			s.revokes(3)
			eventually(t, "it is good again", func() bool { return one.do(mintCall("")).status == 200 })
			h.welcome("good again", session)
			h.shutdown()
			if h.gateway.Checks() {
				t.Error("it goes on after the shutdown")
			}
		})
	}
}

// TestReadinessWaitsForLists: for the first attempt at each, where nobody is let in without; a reload is not held up.
func TestReadinessWaitsForLists(t *testing.T) {
	k := shared()
	for _, works := range []bool{true, false} {
		s := newServed(t, k.partners)
		s.mu.Lock() // it answers nobody yet
		h := newHouse(t, options{config: checking(s.byList())})
		if err := h.gateway.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "listener partners waits for its lists") {
			t.Errorf("before there is a list: %v", err)
		}
		h.reconfigure(checking(s.byList()))
		if h.gateway.Ready(t.Context()) == nil {
			t.Error("a reload ends the wait")
		}
		soft := s.byList()
		soft.Soft = true
		if err := newHouse(t, options{config: checking(soft)}).gateway.Ready(t.Context()); err != nil {
			t.Errorf("soft: %v", err)
		}
		s.silent = !works
		s.mu.Unlock()
		eventually(t, "it is ready", func() bool { return h.gateway.Ready(t.Context()) == nil })
		other := newServed(t, k.partners)
		other.mu.Lock()
		h.reconfigure(checking(other.byList()))
		if err := h.gateway.Ready(t.Context()); err != nil {
			t.Errorf("after a reload: %v", err)
		}
		other.mu.Unlock()
	}
}

// TestRevokedIntermediateThatIsTrusted: where a listener trusts root and intermediate, the root's word about the intermediate counts in
// handshakes, also of callers who are greeted, on open connections, and for tokens.
func TestRevokedIntermediateThatIsTrusted(t *testing.T) {
	k := shared()
	between := k.partners.intermediate("between")
	client := between.client(subject)
	trusting := func(revoked ...*x509.Certificate) func(*house, *gateway.Config) {
		return func(_ *house, c *gateway.Config) {
			c.Listeners[0].ClientCAs = k.partners.pool()
			c.Listeners[0].ClientCAs.AddCert(between.certificate)
			c.Listeners[0].Revocations = heldAgainst([]*authority{k.partners, between}, false, k.partners.revokes(revoked), between.revokes(nil))
		}
	}
	h := newHouse(t, options{config: trusting()})
	one, two := h.callerWith(&client, false, nil), h.callerWith(&client, true, nil)
	h.expect("HTTP/1.1", one, mintCall(""), mintDone)
	h.expect("HTTP/2", two, mintCall(""), mintDone)
	s, token := h.session(), h.mintWith(client)
	alone := noChain(client)

	h.reconfigure(trusting(between.certificate))
	for name, c := range map[string]tls.Certificate{"with its chain": client, "alone": alone} {
		h.greet(with(k.partner))
		h.refused(name+", greeted", "revoked", with(c))
		h.refused(name, "revoked", with(c))
	}
	h.expect("HTTP/1.1, revoked", one, mintCall(""), forbidden)
	h.expect("HTTP/2, revoked", two, mintCall(""), forbidden)
	h.expect("a token of before", h.anybody(), detailsCall(card, token, s.ID()), revokedToken(1))
	h.reconfigure(trusting())
	h.welcome("good again", with(client))
}
