package revocation_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/revocation"
)

// shelf is a server of a list.
type shelf struct {
	*httptest.Server
	mu          sync.Mutex
	list        []byte
	answer      http.HandlerFunc // in place of the list
	requests    int
	conditional int // those that were answered with 304
}

func newShelf(t testing.TB, list []byte) *shelf {
	s := &shelf{list: list}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *shelf) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if s.answer != nil {
		s.answer(w, r)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(s.list)))
	if r.Header.Get("If-None-Match") == w.Header().Get("ETag") {
		s.conditional++
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Write(s.list)
}

func (s *shelf) put(list []byte, answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list, s.answer = list, answer
}

func (s *shelf) asked() (requests, conditional int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests, s.conditional
}

// byURL is the usual configuration: one CA, whose list comes from a server every few milliseconds.
func byURL(ca *authority, s *shelf) revocation.Config {
	return revocation.Config{CAs: []*x509.Certificate{ca.certificate}, Lists: []revocation.Source{{URL: parseURL(s.URL + "/partners.crl?key=secret")}}, Refresh: 20 * time.Millisecond}
}

// TestListFromURL: nothing is asked before Run, and nobody is known; then lists come and are renewed.
func TestListFromURL(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	one, two := ca.client(), ca.client()
	s := newShelf(t, ca.list(1, []*x509.Certificate{one[0]}))
	b := newBench(t, byURL(ca, s))
	if err := b.judge(two); !errors.Is(err, revocation.ErrUnknown) {
		t.Errorf("before there is a list: %v", err)
	}
	soft := byURL(ca, s)
	soft.Soft = true
	b.configure(soft)
	if err := b.judge(one); err != nil {
		t.Errorf("before there is a list, soft: %v", err)
	}
	if requests, _ := s.asked(); requests != 0 {
		t.Fatalf("%d requests before Run", requests)
	}
	b.configure(byURL(ca, s))
	before := b.checker.Epoch()
	b.run()
	eventually(t, "a list", func() bool { return b.checker.Lists(b.now())[0].Known })
	eventually(t, "another epoch", func() bool { return b.checker.Epoch() != before })
	if err := b.judge(one); !errors.Is(err, revocation.ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	if err := b.judge(two); err != nil {
		t.Errorf("not revoked: %v", err)
	}
	eventually(t, "304", func() bool { _, n := s.asked(); return n > 0 && b.count(fetches, "unchanged", "0") > 0 })
	before = b.checker.Epoch()
	s.put(ca.list(2, []*x509.Certificate{one[0], two[0]}), nil)
	eventually(t, "the next list", func() bool { return b.checker.Epoch() != before })
	if err := b.judge(two); !errors.Is(err, revocation.ErrRevoked) {
		t.Errorf("revoked by the next list: %v", err)
	}
	if list := b.checker.Lists(b.now())[0]; list.Entries != 2 || !list.Current || time.Until(list.NextUpdate) < 50*time.Minute {
		t.Errorf("%+v", list)
	}
}

// TestFetchesThatComeToNothing: what is no better list than the one in force leaves that in force, and is counted and told once.
func TestFetchesThatComeToNothing(t *testing.T) {
	ca, stranger := newAuthority("partners", ecKey(), nil), newAuthority("partners", ecKey(), nil)
	unrelated := newAuthority("somebody", ecKey(), nil)
	one, two := ca.client(), ca.client()
	good := ca.list(7, []*x509.Certificate{one[0]})
	elsewhere := newShelf(t, ca.list(8, []*x509.Certificate{two[0]}))
	big := append(ca.list(8, nil), make([]byte, revocation.MaxListBytes)...)
	both := []*x509.Certificate{one[0], two[0]}
	for _, test := range []struct {
		name, result string
		list         []byte
		answer       http.HandlerFunc
	}{
		{"an error", "status", nil, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }},
		{"nothing new, unasked", "status", nil, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") == "" {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		}},
		{"a redirect", "status", nil, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		}},
		{"no answer", "unreachable", nil, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"too much", "oversized", big, nil},
		{"no list", "malformed", []byte("<html>"), nil},
		{"a forged list", "unsigned", stranger.list(8, both), nil},
		{"another CA's list", "unsigned", unrelated.list(8, both), nil},
		{"an older list", "rollback", ca.list(6, both), nil},
		{"an older list of the same number", "rollback", ca.list(7, both, from(-2*time.Hour, time.Hour)), nil},
		{"a newer list that has ended", "ended", ca.list(8, both, from(-2*time.Hour, -time.Hour)), nil},
		{"a list of the future", "ended", ca.list(8, both, from(time.Hour, 2*time.Hour)), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newShelf(t, good)
			b := newBench(t, byURL(ca, s))
			b.run()
			eventually(t, "a good list", func() bool { return b.count(fetches, "ok") == 1 })
			epoch := b.checker.Epoch()
			s.put(test.list, test.answer)
			eventually(t, test.result, func() bool { return b.count(fetches, test.result, "partners", "0") >= 2 })
			if err := b.judge(one); !errors.Is(err, revocation.ErrRevoked) {
				t.Errorf("revoked by the list that was there: %v", err)
			}
			if err := b.judge(two); err != nil {
				t.Errorf("not revoked: %v", err)
			}
			if b.checker.Epoch() != epoch || b.count(fetches, "ok") != 1 {
				t.Errorf("epoch %d, was %d", b.checker.Epoch(), epoch)
			}
			if n := b.said("cannot be fetched"); n != 1 || b.said("the last one stays in force") != 1 {
				t.Errorf("the log has %d lines about it", n)
			}
			s.put(ca.list(9, []*x509.Certificate{one[0], two[0]}), nil)
			eventually(t, "a newer list", func() bool { return errors.Is(b.judge(two), revocation.ErrRevoked) })
			eventually(t, "a line that it is fetched again", func() bool { return b.said("fetched again") == 1 })
		})
	}
	if requests, _ := elsewhere.asked(); requests != 0 {
		t.Error("a redirect was followed")
	}
}

// TestFetchStaysAmongDestinations: nothing is sent to an address that is none.
func TestFetchStaysAmongDestinations(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s := newShelf(t, ca.list(1, nil))
	c := byURL(ca, s)
	c.Dialer = public
	b := newBench(t, c)
	b.run()
	eventually(t, "a refusal", func() bool { return b.count(fetches, "unreachable") >= 1 })
	if requests, _ := s.asked(); requests != 0 || !errors.Is(b.judge(ca.client()), revocation.ErrUnknown) {
		t.Error("it was asked")
	}
	eventually(t, "a line that there is none", func() bool { return b.said("none has come before") == 1 })
	if b.said("the last one stays in force") != 0 {
		t.Error("the log has a list stay in force that never came")
	}
}

// TestServersOfSchemeHTTPS are verified.
func TestServersOfSchemeHTTPS(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s := &shelf{list: ca.list(1, nil)}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	for result, trusted := range map[string]*x509.CertPool{"ok": roots, "unreachable": x509.NewCertPool()} {
		c := byURL(ca, s)
		c.TLS = &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}
		b := newBench(t, c)
		b.run()
		eventually(t, result, func() bool { return b.count(fetches, result) > 0 })
	}
	if requests, _ := s.asked(); requests == 0 {
		t.Error("nobody was asked")
	}
}

// TestRollbackToACurrentList: when the list in force has ended, an older number that is current is better.
func TestRollbackToACurrentList(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	one := ca.client()
	s := newShelf(t, ca.list(7, nil, from(-time.Hour, time.Minute)))
	b := newBench(t, byURL(ca, s))
	b.run()
	eventually(t, "a list", func() bool { return b.count(fetches, "ok") == 1 })
	s.put(ca.list(3, []*x509.Certificate{one[0]}, from(-2*time.Hour, 2*time.Hour)), nil)
	eventually(t, "a refusal", func() bool { return b.count(fetches, "rollback") >= 1 })
	b.turned.Store(int64(2 * time.Minute))
	eventually(t, "the other list", func() bool { return errors.Is(b.judge(one), revocation.ErrRevoked) })
}

// TestIntermediatesListFromURL: an intermediate's list comes from a URL only where the configuration has the intermediate.
func TestIntermediatesListFromURL(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	between := newAuthority("between", ecKey(), ca)
	one := between.client()
	s := newShelf(t, between.list(1, []*x509.Certificate{one[0]}))
	c := byURL(ca, s)
	b := newBench(t, c)
	b.run()
	eventually(t, "a refusal", func() bool { return b.count(fetches, "unsigned") >= 1 })
	c.Intermediates = []*x509.Certificate{between.certificate}
	b.configure(c)
	b.run()
	eventually(t, "a list", func() bool { return errors.Is(b.judge(one), revocation.ErrRevoked) })
}

// TestReloadKeepsLists: what was fetched is known to the next configuration at once, where its CAs have signed it.
func TestReloadKeepsLists(t *testing.T) {
	ca, other := newAuthority("partners", ecKey(), nil), newAuthority("partners", ecKey(), nil)
	one := ca.client()
	s := newShelf(t, ca.list(1, []*x509.Certificate{one[0]}))
	b := newBench(t, byURL(ca, s))
	b.run()
	eventually(t, "a list", func() bool { return b.count(fetches, "ok") == 1 })
	epoch := b.checker.Epoch()

	c := byURL(ca, s)
	c.Lists = append([]revocation.Source{{URL: parseURL(s.URL + "/another.crl")}}, c.Lists...) // at another place
	b.configure(c)
	if err := b.judge(one); !errors.Is(err, revocation.ErrRevoked) || b.checker.Epoch() != epoch {
		t.Errorf("%v, epoch %d, was %d", err, b.checker.Epoch(), epoch)
	}
	if lists := b.checker.Lists(b.now()); lists[0].Known || !lists[1].Known {
		t.Errorf("%+v", lists)
	}
	b.configure(byURL(other, s))
	if lists := b.checker.Lists(b.now()); lists[0].Known {
		t.Error("a list that the CAs have not signed is kept")
	}
}

// TestReloadKeepsTheListBeside: where the last list is of a CA that is ours no more, that of the others stays in force.
func TestReloadKeepsTheListBeside(t *testing.T) {
	ca, other := newAuthority("partners", ecKey(), nil), newAuthority("others", ecKey(), nil)
	one := ca.client()
	s := newShelf(t, ca.list(1, []*x509.Certificate{one[0]}))
	c := byURL(ca, s)
	c.CAs = append(c.CAs, other.certificate)
	b := newBench(t, c)
	b.run()
	eventually(t, "a list", func() bool { return b.count(fetches, "ok") == 1 })
	s.put(other.list(1, nil), nil)
	eventually(t, "the other CA's list", func() bool { return b.count(fetches, "ok") == 2 })
	b.configure(byURL(ca, s))
	if err := b.judge(one); !errors.Is(err, revocation.ErrRevoked) {
		t.Errorf("after the reload: %v", err)
	}
	b.run() // the server is not asked whether there is a newer one than the other's
	s.put(ca.list(2, nil), nil)
	eventually(t, "the next list", func() bool { return b.judge(one) == nil })
}

// TestEndOfAListIsTold: once, and once when there is a current one again; a reload does not repeat it.
func TestEndOfAListIsTold(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	file := revocation.Config{CAs: []*x509.Certificate{ca.certificate}, Lists: []revocation.Source{{Content: ca.list(1, nil, from(-2*time.Hour, -time.Hour))}}}
	b := newBench(t, file)
	b.run()
	eventually(t, "a line", func() bool { return b.said("is not current") == 1 })
	b.configure(file)
	b.run()
	s := newShelf(t, ca.list(1, nil, from(-time.Hour, 100*time.Millisecond)))
	file.Lists = append(file.Lists, byURL(ca, s).Lists...)
	file.Refresh = 20 * time.Millisecond
	b.configure(file)
	b.run()
	eventually(t, "a line about the second", func() bool { return b.said("is not current") == 2 })
	s.put(ca.list(2, nil), nil)
	eventually(t, "a line that it is current", func() bool { return b.said("is current again") == 1 })
	if n := b.said("is not current"); n != 2 {
		t.Errorf("%d lines", n)
	}
	for _, entry := range b.logs.All() {
		for _, f := range entry.Context {
			if bytes.Contains([]byte(f.String), []byte("secret")) || bytes.Contains([]byte(f.String), []byte("127.0.0.1")) {
				t.Errorf("the log has the URL: %v", entry)
			}
		}
	}
}

// TestWhenTheNextFetchIs: after refresh, sooner where the list ends sooner, and soon after a failure, later each time.
func TestWhenTheNextFetchIs(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		result   string
		failures int
		left     time.Duration
		want     time.Duration
	}{
		{"ok", 0, 24 * time.Hour, time.Hour},
		{"unchanged", 7, 24 * time.Hour, time.Hour},
		{"ok", 0, time.Hour, 30 * time.Minute},
		{"unchanged", 0, 40 * time.Second, 30 * time.Second},
		{"unchanged", 0, -time.Hour, 30 * time.Second},
		{"timeout", 0, time.Hour, time.Second},
		{"status", 3, time.Hour, 8 * time.Second},
		{"unsigned", 1000, time.Hour, 5 * time.Minute},
	} {
		for range 100 {
			if due := revocation.Due(test.result, test.failures, now.Add(test.left), now, time.Hour); due > test.want || due < test.want*9/10 {
				t.Fatalf("%s, %d failures, %v left: after %v, want about %v", test.result, test.failures, test.left, due, test.want)
			}
		}
	}
	if due := revocation.Due("timeout", 9, now.Add(time.Hour), now, time.Minute); due > time.Minute {
		t.Errorf("after %v, which is more than refresh", due)
	}
	if a, b := revocation.Due("ok", 0, now.Add(24*time.Hour), now, time.Hour), revocation.Due("ok", 0, now.Add(24*time.Hour), now, time.Hour); a == b {
		t.Error("two instances come together")
	}
}

// TestRunEnds with its context, whatever the server does.
func TestRunEnds(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	asked, release := make(chan struct{}, 1), make(chan struct{})
	s := newShelf(t, nil)
	s.put(nil, func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	defer close(release)
	b := newBench(t, byURL(ca, s))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.checker.Run(ctx)
	}()
	<-asked
	cancel()
	<-ended
	if n := b.count(fetches); n != 0 {
		t.Errorf("%v results of a fetch that was given up", n)
	}
}
