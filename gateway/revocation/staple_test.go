package revocation_test

import (
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/cardstile/cardstile/gateway/revocation"
)

func newAsker(t testing.TB, timeout time.Duration) *revocation.Asker {
	a := revocation.NewAsker(revocation.Config{Dialer: loopback}, timeout, time.Now)
	t.Cleanup(a.Close)
	return a
}

// TestWords: what is stapled is what a client's certificate would be judged by, for as long as all that it rests on is good.
func TestWords(t *testing.T) {
	ca, stranger := newAuthority("servers", ecKey(), nil), newAuthority("servers", ecKey(), nil)
	end := time.Now().Add(20 * time.Minute).Truncate(time.Second)
	key := ecKey()
	delegate := ca.signs(template("responder"), key.Public(), func(c *x509.Certificate) {
		c.ExtKeyUsage, c.NotAfter = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, end
	})
	elsewhere := newResponder(t, ca)
	for _, test := range []struct {
		name, result  string
		good, revoked bool
		until         time.Duration // from now, about
		change        func(*saying)
		say           func(http.ResponseWriter, *ocsp.Request)
	}{
		{name: "good", result: "good", good: true, until: time.Hour},
		{name: "revoked", result: "revoked", revoked: true, until: time.Hour, change: revoked},
		{name: "unknown", result: "unknown", until: time.Minute, change: func(a *saying) { a.Status = ocsp.Unknown }},
		{name: "longer than the certificate", result: "good", good: true, until: 24 * time.Hour, change: func(a *saying) { a.NextUpdate = time.Now().Add(72 * time.Hour) }},
		{name: "longer than the one that signed it", result: "good", good: true, until: 20 * time.Minute, change: func(a *saying) {
			a.signer, a.Certificate, a.key = delegate, delegate, key
		}},
		{name: "another signer", result: "unsigned", change: func(a *saying) { a.key = stranger.key }},
		{name: "another serial number", result: "mismatch", change: func(a *saying) { a.SerialNumber = template("").SerialNumber }},
		{name: "ended", result: "stale", change: func(a *saying) { a.ThisUpdate, a.NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour) }},
		{name: "too much", result: "oversized", say: func(w http.ResponseWriter, _ *ocsp.Request) { w.Write(make([]byte, 65<<10)) }},
		{name: "a redirect", result: "status", say: func(w http.ResponseWriter, _ *ocsp.Request) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}},
	} {
		s := newResponder(t, ca)
		if test.say != nil {
			s.says(test.say)
		} else {
			s.answers(test.change)
		}
		certificate := ca.client(names(s.URL))[0]
		a := newAsker(t, time.Minute)
		w, result := a.Ask(t.Context(), certificate, ca.certificate)
		if result != test.result || (w != nil) != (test.until != 0) {
			t.Errorf("%s: %s, %+v", test.name, result, w)
			continue
		}
		if w == nil {
			continue
		}
		if off := time.Until(w.Until) - test.until; w.Good != test.good || w.Revoked != test.revoked || off > time.Minute || off < -time.Minute {
			t.Errorf("%s: good %v, revoked %v, until %v", test.name, w.Good, w.Revoked, w.Until)
		}
		if again, result := a.Read(w.DER, certificate, ca.certificate); result != test.result || again.Good != w.Good {
			t.Errorf("%s, kept: %s", test.name, result)
		}
		if other, _ := a.Read(w.DER, ca.client()[0], ca.certificate); other != nil {
			t.Errorf("%s: it is taken for another certificate's", test.name)
		}
	}
	if elsewhere.asked.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

// TestWordWithoutEnd: what says no until when it holds is gone by for a week, and no longer for being kept.
func TestWordWithoutEnd(t *testing.T) {
	ca := newAuthority("servers", ecKey(), nil)
	s := newResponder(t, ca)
	made := time.Now().Add(-6 * 24 * time.Hour)
	s.answers(func(a *saying) { a.ThisUpdate, a.NextUpdate = made, time.Time{} })
	certificate := ca.client(names(s.URL), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(30 * 24 * time.Hour) })[0]
	w, result := newAsker(t, time.Minute).Ask(t.Context(), certificate, ca.certificate)
	if w == nil || w.Until.Sub(w.Made) != 7*24*time.Hour {
		t.Errorf("%s, %+v", result, w)
	}
}

// TestNobodyElseIsAsked: addresses that are no destinations, and responders that are none.
func TestNobodyElseIsAsked(t *testing.T) {
	ca := newAuthority("servers", ecKey(), nil)
	s := newResponder(t, ca)
	a := revocation.NewAsker(revocation.Config{Dialer: public}, time.Minute, time.Now)
	t.Cleanup(a.Close)
	if w, result := a.Ask(t.Context(), ca.client(names(s.URL))[0], ca.certificate); w != nil || result != "unreachable" || s.asked.Load() != 0 {
		t.Errorf("loopback: %s, %d questions", result, s.asked.Load())
	}
	for _, url := range []string{"ldap://127.0.0.1/", "http://user:secret@127.0.0.1/", "http:///", "::"} {
		certificate := ca.client(names(url))[0]
		if w, result := a.Ask(t.Context(), certificate, ca.certificate); w != nil || result != "no_responder" || revocation.Names(certificate) {
			t.Errorf("%s: %s", url, result)
		}
	}
}

// TestHungAsker: one that does not answer is waited for as long as was said.
func TestHungAsker(t *testing.T) {
	ca := newAuthority("servers", ecKey(), nil)
	s := newResponder(t, ca)
	ends := make(chan struct{})
	s.says(func(http.ResponseWriter, *ocsp.Request) { <-ends })
	defer close(ends)
	if w, result := newAsker(t, 50*time.Millisecond).Ask(t.Context(), ca.client(names(s.URL))[0], ca.certificate); w != nil || result != "timeout" {
		t.Errorf("%s", result)
	}
}

// TestNoProxyIsAsked, though the environment names one: it is read once in the life of a process, so that this one begins another.
func TestNoProxyIsAsked(t *testing.T) {
	const child = "CARDSTILE_TEST_PROXIED"
	if os.Getenv(child) != "" {
		ca := newAuthority("servers", ecKey(), nil)
		a := newAsker(t, time.Minute) // the proxy is a destination, the responder is none
		w, result := a.Ask(t.Context(), ca.client(names("http://192.0.2.1/"))[0], ca.certificate)
		t.Logf("asked: %v %s", w, result)
		return
	}
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		io.Copy(io.Discard, r.Body)
	}))
	t.Cleanup(proxy.Close)
	binary, err := os.Executable()
	must(err)
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestNoProxyIsAsked$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1", "HTTP_PROXY="+proxy.URL, "http_proxy="+proxy.URL, "NO_PROXY=", "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "asked: <nil> unreachable") || asked.Load() != 0 {
		t.Errorf("%d questions went to the proxy; %v\n%s", asked.Load(), err, out)
	}
}
