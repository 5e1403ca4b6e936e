package gateway_test

import (
	"crypto/fips140"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
)

// turned is a clock that a test can turn.
type turned struct{ by atomic.Int64 }

func (c *turned) now() time.Time        { return time.Now().Add(time.Duration(c.by.Load())) }
func (c *turned) turn(by time.Duration) { c.by.Store(int64(by)) }

// refused tries a handshake that must fail for a reason, and returns what the client is told.
func (h *house) refused(name, reason string, c *tls.Config) string {
	h.t.Helper()
	before := h.metric("cardstile_handshake_failures_total", "listener", "partners", "reason", reason)
	_, err := h.shake("partners", c)
	if err == nil {
		h.t.Errorf("%s: it is let in", name)
		return ""
	}
	eventually(h.t, name+" is counted", func() bool {
		return h.metric("cardstile_handshake_failures_total", "listener", "partners", "reason", reason) == before+1
	})
	return err.Error()
}

func (h *house) welcome(name string, c *tls.Config) {
	h.t.Helper()
	if _, err := h.shake("partners", c); err != nil {
		h.t.Errorf("%s: %v", name, err)
	}
}

// greet has so many good handshakes that the next one is verified by what is known.
func (h *house) greet(configs ...*tls.Config) {
	h.t.Helper()
	for i := range 16 {
		h.welcome("before", configs[i%len(configs)])
	}
}

// TestGreetedCallers: who comes often, and well, is verified by what is known, and nobody comes in by that who would not otherwise.
// The refusal names nothing but a bad certificate; the next one does. In FIPS 140-3 mode nobody is greeted, and each refusal names it.
func TestGreetedCallers(t *testing.T) {
	k := shared()
	named := k.partners.certificate.Subject.CommonName // clients send what the CAs that we name have issued, and nothing else
	below, byAnother := k.partners.intermediate(named).client(subject), k.partners.intermediate(named).client(subject)
	past := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-time.Hour)
	}
	servers := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	short, long := tooLong()
	revoked := k.partners.client(subject)
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) {
		c.Listeners[0].ClientCAs.AddCert(short.certificate)
		c.Listeners[0].Revocations = heldAgainst([]*authority{k.partners}, true, k.partners.revokes([]*x509.Certificate{revoked.Leaf}))
	}})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		of := func(c tls.Certificate) *tls.Config {
			config := with(c)
			config.MinVersion, config.MaxVersion = version, version
			return config
		}
		for _, test := range []struct {
			name, reason, told string
			client             tls.Certificate
		}{
			{"the same name of another CA", "unknown_ca", "unknown certificate authority", k.stranger.client(subject)},
			{"known, without its chain", "unknown_ca", "unknown certificate authority", noChain(below)},
			{"the CA's name with another key", "unknown_ca", "unknown certificate authority", noChain(byAnother)},
			{"expired", "expired", "expired certificate", k.partners.client(subject, past)},
			{"revoked", "revoked", "bad certificate", revoked},
			{"a server's", "wrong_usage", "bad certificate", k.partners.client(subject, servers)},
			{"of a chain too long", "bad_certificate", "bad certificate", long},
		} {
			told, want := "", "bad certificate"
			if fips140.Enabled() {
				want = test.told
			}
			for try := 0; try < 5 && !strings.HasSuffix(told, want); try++ { // a busy machine may make a pause
				h.greet(of(k.partner), of(below))
				told = h.refused(test.name, test.reason, of(test.client))
			}
			if !strings.HasSuffix(told, want) {
				t.Errorf("%s: %s, want %s", test.name, told, want)
			}
			if told := h.refused(test.name+", again", test.reason, of(test.client)); !strings.HasSuffix(told, test.told) {
				t.Errorf("%s, again: %s, want %s", test.name, told, test.told)
			}
		}
		h.greet(of(k.partner))
		none := of(k.partner)
		none.Certificates = nil
		h.refused("nobody", "no_certificate", none)
	}
}

// TestKnownChainsEnd: a chain is known while all of its certificates are valid, and no longer.
func TestKnownChainsEnd(t *testing.T) {
	k := shared()
	short := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-30*time.Minute), time.Now().Add(30*time.Minute)
	}
	between := &authority{key: ecKey()}
	template := caTemplate("ends soon")
	short(template)
	between.certificate = sign(template, k.partners.certificate, between.key.Public(), k.partners.key)
	between.chain = [][]byte{between.certificate.Raw}
	for name, client := range map[string]tls.Certificate{"the certificate": k.partners.client(subject, short), "its intermediate": between.client(subject)} {
		clock := &turned{}
		h := newHouse(t, options{services: func(s *gateway.Services) { s.Now = clock.now }})
		c := with(client)
		h.greet(c)
		clock.turn(31 * time.Minute)
		h.greet(with(k.partner))
		h.refused(name+" has ended", "expired", c)
		clock.turn(0)
		h.greet(c)
		clock.turn(-31 * time.Minute)
		h.greet(with(k.partner))
		h.refused(name+" has not begun", "expired", c)
	}
}

// TestKnownChainsAreOfOneConfiguration: other CAs know nobody that was known before.
func TestKnownChainsAreOfOneConfiguration(t *testing.T) {
	k := shared()
	h := newHouse(t, options{})
	stranger := with(k.stranger.client(subject))
	h.greet(with(k.partner))
	h.o.config = func(_ *house, c *gateway.Config) { c.Listeners[0].ClientCAs = k.stranger.pool() }
	must(h.gateway.Reload(h.newConfig()))
	h.greet(stranger)
	h.refused("the old CA's", "unknown_ca", with(k.partner))
}

// TestFewAreGreeted: who comes now and then is told what is wrong, however good the last handshake was.
func TestFewAreGreeted(t *testing.T) {
	k := shared()
	h := newHouse(t, options{})
	for range 15 {
		h.welcome("before", with(k.partner))
	}
	for range 3 {
		if told := h.refused("a stranger", "unknown_ca", with(k.stranger.client(subject))); !strings.HasSuffix(told, "unknown certificate authority") {
			t.Error(told)
		}
		h.welcome("after", with(k.partner))
	}
}

// TestRoomIsMade: what is remembered of callers has a bound.
func TestRoomIsMade(t *testing.T) {
	m := map[int]int{}
	for i := range 100 {
		gateway.MakeRoom(m, 10)
		m[i] = i
		if len(m) > 10 || len(m) < min(i+1, 10) {
			t.Fatalf("%d entries after %d", len(m), i+1)
		}
	}
}
