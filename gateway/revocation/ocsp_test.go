package revocation_test

import (
	"crypto"
	"crypto/fips140"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/ocsp"

	"github.com/cardstile/cardstile/gateway/revocation"
)

// responder is one of a CA. What it says can be changed.
type responder struct {
	*httptest.Server
	ca    *authority
	mu    sync.Mutex
	say   func(w http.ResponseWriter, r *ocsp.Request)
	asked atomic.Int64
}

// newResponder says "good" of everything.
func newResponder(t testing.TB, ca *authority) *responder {
	s := &responder{ca: ca}
	s.answers(nil)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		must(err)
		question, err := ocsp.ParseRequest(body)
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/ocsp-request" {
			t.Errorf("%s %s: %v", r.Method, r.Header.Get("Content-Type"), err)
		}
		s.mu.Lock()
		say := s.say
		s.mu.Unlock()
		s.asked.Add(1)
		say(w, question)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *responder) says(say func(w http.ResponseWriter, r *ocsp.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.say = say
}

// answers has it answer truthfully about whatever is asked, as changed.
func (s *responder) answers(change func(*saying)) {
	s.says(func(w http.ResponseWriter, r *ocsp.Request) {
		a := saying{issuer: s.ca.certificate, signer: s.ca.certificate, key: s.ca.key, Response: ocsp.Response{
			Status: ocsp.Good, IssuerHash: r.HashAlgorithm, SerialNumber: r.SerialNumber, ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
		}}
		if change != nil {
			change(&a)
		}
		var der []byte
		var err error
		fips140.WithoutEnforcement(func() { der, err = ocsp.CreateResponse(a.issuer, a.signer, a.Response, a.key) }) // with SHA-1, too: it is theirs, not ours
		must(err)
		w.Write(append(der, a.trailer...))
	})
}

// saying is an answer to be signed.
type saying struct {
	ocsp.Response
	issuer, signer *x509.Certificate
	key            crypto.Signer
	trailer        []byte
}

func revoked(a *saying) { a.Status, a.RevokedAt = ocsp.Revoked, time.Now().Add(-time.Minute) }

// asks is a configuration that asks one responder.
func (s *responder) asks(soft bool) revocation.Config {
	return revocation.Config{OCSP: &revocation.OCSP{Responder: parseURL(s.URL), Soft: soft}}
}

func names(url string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.OCSPServer = []string{url} }
}

// TestAnswers: each is taken for what it is, and what is none is what hard and soft make of it.
func TestAnswers(t *testing.T) {
	ca, stranger := newAuthority("partners", ecKey(), nil), newAuthority("partners", ecKey(), nil)
	neighbour := newAuthority("neighbours", ca.key, nil) // another name of the same key
	between := newAuthority("between", ecKey(), ca)
	old := newAuthority("old", rsaKey(), nil)
	by := func(other *authority, change func(*saying)) func(*saying) {
		return func(a *saying) {
			a.issuer, a.signer, a.key = other.certificate, other.certificate, other.key
			change(a)
		}
	}
	delegate := func(by *authority, change ...func(*x509.Certificate)) func(*saying) {
		key := ecKey()
		t := template("responder")
		t.ExtKeyUsage, t.KeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, x509.KeyUsageDigitalSignature
		certificate := by.signs(t, key.Public(), change...)
		return func(a *saying) { a.signer, a.Certificate, a.key = certificate, certificate, key }
	}
	elsewhere := newResponder(t, ca)
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, test := range []struct {
		name, result string
		hard, soft   error
		change       func(*saying)
		say          func(http.ResponseWriter, *ocsp.Request)
		by           *authority // whose client it is, where it is not the CA's
	}{
		{name: "good", result: "good"},
		{name: "revoked", result: "revoked", hard: revocation.ErrRevoked, soft: revocation.ErrRevoked, change: revoked},
		{name: "unknown", result: "unknown", hard: revocation.ErrUnknown, soft: revocation.ErrUnknown, change: func(a *saying) { a.Status = ocsp.Unknown }},
		{name: "by SHA-256", result: "good", change: func(a *saying) { a.IssuerHash = crypto.SHA256 }},
		{name: "no end, of now", result: "good", change: func(a *saying) { a.NextUpdate = time.Time{} }},
		{name: "no end, of long ago", result: "stale", hard: revocation.ErrUnknown, change: func(a *saying) { a.ThisUpdate, a.NextUpdate = time.Now().Add(-2*time.Hour), time.Time{} }},
		{name: "ended", result: "stale", hard: revocation.ErrUnknown, change: func(a *saying) { a.ThisUpdate, a.NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour) }},
		{name: "revoked, ended", result: "stale", hard: revocation.ErrUnknown, change: func(a *saying) {
			revoked(a)
			a.ThisUpdate, a.NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}},
		{name: "of the future", result: "stale", hard: revocation.ErrUnknown, change: func(a *saying) { a.ThisUpdate = time.Now().Add(10 * time.Minute) }},
		{name: "of a clock that is ahead", result: "good", change: func(a *saying) { a.ThisUpdate = time.Now().Add(2 * time.Minute) }},
		{name: "another serial number", result: "mismatch", hard: revocation.ErrUnknown, change: func(a *saying) { a.SerialNumber = template("").SerialNumber }},
		{name: "another CA's certificate of the number", result: "mismatch", hard: revocation.ErrUnknown, change: func(a *saying) { a.issuer = neighbour.certificate }},
		{name: "the CA's name with another key", result: "mismatch", hard: revocation.ErrUnknown, change: func(a *saying) { a.issuer = stranger.certificate }},
		{name: "another signer", result: "unsigned", hard: revocation.ErrUnknown, change: func(a *saying) { a.key = stranger.key }},
		{name: "revoked, another signer", result: "unsigned", hard: revocation.ErrUnknown, change: func(a *saying) { revoked(a); a.key = stranger.key }},
		{name: "a CA's certificate beside it", result: "good", change: func(a *saying) { a.Certificate = a.signer }},
		{name: "an intermediate's certificate beside it", result: "good", by: between, change: by(between, func(a *saying) { a.Certificate = a.signer })},
		{name: "signed with SHA-256 and RSA", result: "good", by: old, change: by(old, func(*saying) {})},
		{name: "signed with SHA-1", result: "unsigned", hard: revocation.ErrUnknown, by: old, change: by(old, func(a *saying) { a.SignatureAlgorithm = x509.SHA1WithRSA })},
		{name: "a responder's", result: "good", change: delegate(ca)},
		{name: "a responder's, revoked", result: "revoked", hard: revocation.ErrRevoked, soft: revocation.ErrRevoked, change: func(a *saying) { revoked(a); delegate(ca)(a) }},
		{name: "a certificate that is no responder's", result: "unsigned", hard: revocation.ErrUnknown, change: delegate(ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })},
		{name: "a certificate without purpose", result: "unsigned", hard: revocation.ErrUnknown, change: delegate(ca, func(c *x509.Certificate) { c.ExtKeyUsage = nil })},
		{name: "a certificate of every purpose", result: "unsigned", hard: revocation.ErrUnknown, change: delegate(ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })},
		{name: "a responder's that signs nothing", result: "unsigned", hard: revocation.ErrUnknown, change: delegate(ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })},
		{name: "a responder's that has ended", result: "unsigned", hard: revocation.ErrUnknown, change: delegate(ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })},
		{name: "a responder's of the future", result: "unsigned", hard: revocation.ErrUnknown, change: delegate(ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })},
		{name: "a responder's of another CA", result: "unsigned", hard: revocation.ErrUnknown, change: delegate(stranger)},
		{name: "a responder's of an intermediate", result: "unsigned", hard: revocation.ErrUnknown, change: delegate(between)},
		{name: "the client's own", result: "unsigned", hard: revocation.ErrUnknown, change: delegate(ca, func(c *x509.Certificate) { c.ExtKeyUsage, c.KeyUsage = nil, 0 })},
		{name: "a trailer", result: "malformed", hard: revocation.ErrUnknown, change: func(a *saying) { a.trailer = []byte{0} }},
		{name: "try later", result: "refused", hard: revocation.ErrUnknown, say: func(w http.ResponseWriter, _ *ocsp.Request) { w.Write(ocsp.TryLaterErrorResponse) }},
		{name: "unauthorized", result: "refused", hard: revocation.ErrUnknown, say: func(w http.ResponseWriter, _ *ocsp.Request) { w.Write(ocsp.UnauthorizedErrorResponse) }},
		{name: "text", result: "malformed", hard: revocation.ErrUnknown, say: func(w http.ResponseWriter, _ *ocsp.Request) { io.WriteString(w, "good") }},
		{name: "too much", result: "oversized", hard: revocation.ErrUnknown, say: func(w http.ResponseWriter, _ *ocsp.Request) { w.Write(make([]byte, 65<<10)) }},
		{name: "an error", result: "status", hard: revocation.ErrUnknown, say: func(w http.ResponseWriter, _ *ocsp.Request) { w.WriteHeader(http.StatusServiceUnavailable) }},
		{name: "a redirect", result: "status", hard: revocation.ErrUnknown, say: func(w http.ResponseWriter, _ *ocsp.Request) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}},
		{name: "a broken connection", result: "unreachable", hard: revocation.ErrUnknown, say: func(http.ResponseWriter, *ocsp.Request) { panic(http.ErrAbortHandler) }},
	} {
		for _, soft := range []bool{false, true} {
			s := newResponder(t, ca)
			if test.say != nil {
				s.says(test.say)
			} else {
				s.answers(test.change)
			}
			whose, want := ca, test.hard
			if test.by != nil {
				whose = test.by
			}
			if soft {
				want = test.soft
			}
			b := newBench(t, s.asks(soft))
			if err := b.judge(whose.client()); !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%s, soft %v: %v, want %v", test.name, soft, err, want)
			}
			if n := b.count(questions, "partners", test.result); n != 1 || b.count(questions) != 1 {
				t.Errorf("%s, soft %v: %v questions, %v of them %s", test.name, soft, b.count(questions), n, test.result)
			}
			if n := b.count(passed, "ocsp"); n > 0 != (soft && test.hard != nil && test.soft == nil) {
				t.Errorf("%s, soft %v: %v passed", test.name, soft, n)
			}
		}
	}
	if elsewhere.asked.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

// TestHangingResponder: it costs a handshake the time-out, and those after it nothing for a while.
func TestHangingResponder(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s := newResponder(t, ca)
	release := make(chan struct{})
	defer close(release)
	s.says(func(http.ResponseWriter, *ocsp.Request) { <-release })
	for _, soft := range []bool{false, true} {
		s.asked.Store(0)
		c := s.asks(soft)
		c.OCSP.Timeout = 50 * time.Millisecond
		b := newBench(t, c)
		chain := ca.client()
		for range 3 {
			until, err := b.checker.Judge(chain, b.now())
			if (err == nil) != soft || err != nil && !errors.Is(err, revocation.ErrUnknown) {
				t.Errorf("soft %v: %v", soft, err)
			}
			if left := time.Until(until); left < time.Second/2 || left > 10*time.Second {
				t.Errorf("soft %v: it is thought over in %v", soft, left)
			}
		}
		if n := b.count(questions, "timeout"); n != 1 || s.asked.Load() != 1 || b.said("did not answer") != 1 {
			t.Errorf("soft %v: %v questions, %d lines", soft, n, b.said("did not answer"))
		}
		b.turned.Store(int64(11 * time.Second))
		if b.judge(chain); b.count(questions, "timeout") != 2 || b.said("did not answer") != 1 {
			t.Errorf("soft %v: it is not asked again, or told again", soft)
		}
		b.turned.Store(int64(72 * time.Second))
		if b.judge(chain); b.said("did not answer") != 2 {
			t.Errorf("soft %v: a minute later it is not told again", soft)
		}
	}
}

// TestResponderThatIsGone is as one that hangs.
func TestResponderThatIsGone(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s := newResponder(t, ca)
	s.Close()
	for _, soft := range []bool{false, true} {
		b := newBench(t, s.asks(soft))
		if err := b.judge(ca.client()); (err == nil) != soft || b.count(questions, "unreachable") != 1 {
			t.Errorf("soft %v: %v", soft, err)
		}
	}
}

// TestWhoIsAsked: the operator's responder, or the one that a certificate names, if it may be.
func TestWhoIsAsked(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	own, configured := newResponder(t, ca), newResponder(t, ca)
	b := newBench(t, configured.asks(false))
	if err := b.judge(ca.client(names(own.URL))); err != nil || own.asked.Load() != 0 || configured.asked.Load() != 1 {
		t.Errorf("the operator's: %v", err)
	}
	b = newBench(t, revocation.Config{OCSP: &revocation.OCSP{}})
	if err := b.judge(ca.client(names(own.URL))); err != nil || own.asked.Load() != 1 {
		t.Errorf("the certificate's own: %v", err)
	}
	for _, none := range []string{"", "ldap://127.0.0.1/", "file:///etc/passwd", "http://", "://", "http://user:password@127.0.0.1/"} {
		chain := ca.client(names(none))
		if err := b.judge(chain); !errors.Is(err, revocation.ErrUnknown) {
			t.Errorf("%q: %v", none, err)
		}
		soft := newBench(t, revocation.Config{OCSP: &revocation.OCSP{Soft: true}})
		if err := soft.judge(chain); err != nil || soft.count(passed, "ocsp") != 1 || soft.count(questions, "no_responder") != 1 {
			t.Errorf("%q, soft: %v", none, err)
		}
	}
	guarded := newBench(t, revocation.Config{OCSP: &revocation.OCSP{}, Dialer: public})
	if err := guarded.judge(ca.client(names(own.URL))); !errors.Is(err, revocation.ErrUnknown) || own.asked.Load() != 1 || guarded.count(questions, "unreachable") != 1 {
		t.Errorf("an address that is no destination: %v", err)
	}
}

// TestIntermediatesAreAskedAbout where they name a responder.
func TestIntermediatesAreAskedAbout(t *testing.T) {
	root := newAuthority("partners", ecKey(), nil)
	above := newResponder(t, root)
	between := newAuthority("between", ecKey(), root, names(above.URL))
	silent := newAuthority("silent", ecKey(), root)
	below, beside := newResponder(t, between), newResponder(t, silent)
	b := newBench(t, revocation.Config{OCSP: &revocation.OCSP{}})
	if err := b.judge(between.client(names(below.URL))); err != nil || above.asked.Load() != 1 || below.asked.Load() != 1 {
		t.Errorf("both good: %v", err)
	}
	if err := b.judge(silent.client(names(beside.URL))); err != nil {
		t.Errorf("an intermediate that names none: %v", err)
	}
	above.answers(revoked)
	b = newBench(t, revocation.Config{OCSP: &revocation.OCSP{Soft: true}})
	if err := b.judge(between.client(names(below.URL))); !errors.Is(err, revocation.ErrRevoked) {
		t.Errorf("a revoked intermediate: %v", err)
	}
}

// TestOneQuestion for all who want to know at the same time, and none while the answer holds.
func TestOneQuestion(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s := newResponder(t, ca)
	release := make(chan struct{})
	s.says(func(w http.ResponseWriter, r *ocsp.Request) {
		<-release
		s.answers(nil)
		s.say(w, r)
	})
	b := newBench(t, s.asks(false))
	chain := ca.client()
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if err := b.judge(chain); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "a question", func() bool { return s.asked.Load() == 1 })
	close(release)
	wg.Wait()
	until, err := b.checker.Judge(chain, b.now())
	if left := until.Sub(b.now()); err != nil || left < 59*time.Minute || left > time.Hour {
		t.Errorf("%v for %v", err, left)
	}
	if n := s.asked.Load(); n != 1 {
		t.Errorf("%d questions", n)
	}
	b.turned.Store(int64(61 * time.Minute))
	s.answers(func(a *saying) { a.NextUpdate = time.Now().Add(2 * time.Hour) })
	if err := b.judge(chain); err != nil || s.asked.Load() != 2 {
		t.Errorf("after its end: %v, %d questions", err, s.asked.Load())
	}
}

// TestFewQuestionsAtATime: a responder is not asked about everybody at once.
func TestFewQuestionsAtATime(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s := newResponder(t, ca)
	release := make(chan struct{})
	var now, peak atomic.Int64
	say := s.say
	s.says(func(w http.ResponseWriter, r *ocsp.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
		}
		<-release
		say(w, r)
	})
	c := s.asks(false)
	c.OCSP.Timeout = 20 * time.Second
	b := newBench(t, c)
	var wg sync.WaitGroup
	for range 48 {
		chain := ca.client()
		wg.Go(func() {
			if err := b.judge(chain); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "as many questions as there may be", func() bool { return b.checker.Remembered() == 48 && now.Load() >= 16 })
	close(release)
	wg.Wait()
	if peak.Load() != 16 || s.asked.Load() != 48 {
		t.Errorf("%d at a time, %d questions", peak.Load(), s.asked.Load())
	}
}

// TestAnswersAreKeptFresh: while a certificate is in use somebody asks before its answer ends, so that nobody waits, and whoever is
// revoked meanwhile is refused in the next epoch.
func TestAnswersAreKeptFresh(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s := newResponder(t, ca)
	c := s.asks(false)
	c.Refresh = 400 * time.Millisecond
	b := newBench(t, c)
	b.run()
	chain := ca.client()
	if err := b.judge(chain); err != nil {
		t.Fatal(err)
	}
	epoch := b.checker.Epoch()
	eventually(t, "another question", func() bool { return s.asked.Load() >= 3 })
	if err := b.judge(chain); err != nil || b.checker.Epoch() != epoch {
		t.Errorf("%v, epoch %d, was %d", err, b.checker.Epoch(), epoch)
	}
	s.answers(func(a *saying) { revoked(a); a.ThisUpdate = time.Now() })
	eventually(t, "the next epoch", func() bool { return b.checker.Epoch() != epoch })
	asked := s.asked.Load()
	if err := b.judge(chain); !errors.Is(err, revocation.ErrRevoked) || s.asked.Load() > asked+1 {
		t.Errorf("%v, %d questions more", err, s.asked.Load()-asked)
	}

	// A server that is behind the others says the same: that is an answer.
	s.answers(func(a *saying) { revoked(a); a.ThisUpdate = time.Now().Add(-2 * time.Minute) })
	told := b.count(questions, "revoked")
	eventually(t, "the same of a server that is behind", func() bool { return b.count(questions, "revoked") > told })
	if n := b.count(questions, "stale"); n != 0 {
		t.Errorf("%v answers are too old", n)
	}

	// An answer of before shows nothing, though it is signed and has not ended.
	s.answers(nil)
	eventually(t, "a refusal of the old answer", func() bool { return b.count(questions, "stale") > 0 })
	if err := b.judge(chain); !errors.Is(err, revocation.ErrRevoked) {
		t.Errorf("after an old answer: %v", err)
	}
	// And a revocation does not end with what told of it.
	b.turned.Store(int64(2 * time.Hour))
	s.says(func(w http.ResponseWriter, _ *ocsp.Request) { w.Write(ocsp.TryLaterErrorResponse) })
	if err := b.judge(chain); !errors.Is(err, revocation.ErrRevoked) {
		t.Errorf("after its answer's end: %v", err)
	}
}

// TestRecoveryBeginsAnEpoch: who was refused because a responder did not answer is not for longer than it does not.
func TestRecoveryBeginsAnEpoch(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s := newResponder(t, ca)
	s.says(func(w http.ResponseWriter, _ *ocsp.Request) { w.Write(ocsp.TryLaterErrorResponse) })
	c := s.asks(false)
	c.Refresh = 400 * time.Millisecond
	b := newBench(t, c)
	b.run()
	chain := ca.client()
	if err := b.judge(chain); !errors.Is(err, revocation.ErrUnknown) {
		t.Fatal(err)
	}
	epoch := b.checker.Epoch()
	s.answers(func(a *saying) { a.ThisUpdate, a.NextUpdate = time.Now(), time.Time{} })
	b.turned.Store(int64(11 * time.Second))
	s.answers(func(a *saying) { a.ThisUpdate, a.NextUpdate = b.now(), time.Time{} })
	eventually(t, "the next epoch", func() bool { return b.checker.Epoch() != epoch })
	if err := b.judge(chain); err != nil {
		t.Error(err)
	}
}

// TestReloadKeepsAnswers of the same responder.
func TestReloadKeepsAnswers(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s, another := newResponder(t, ca), newResponder(t, ca)
	b := newBench(t, s.asks(false))
	chain := ca.client()
	if err := b.judge(chain); err != nil {
		t.Fatal(err)
	}
	s.answers(revoked)
	b.configure(s.asks(false))
	if err := b.judge(chain); err != nil || s.asked.Load() != 1 {
		t.Errorf("%v, %d questions", err, s.asked.Load())
	}
	b.configure(another.asks(false))
	if err := b.judge(chain); err != nil || another.asked.Load() != 1 {
		t.Errorf("another responder: %v, %d questions", err, another.asked.Load())
	}
}

// TestListsAndResponders: both must be content, and one that revokes suffices.
func TestListsAndResponders(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s := newResponder(t, ca)
	good, listed := ca.client(), ca.client()
	c := s.asks(false)
	c.CAs, c.Lists = []*x509.Certificate{ca.certificate}, []revocation.Source{{Content: ca.list(1, []*x509.Certificate{listed[0]})}}
	b := newBench(t, c)
	if err := b.judge(good); err != nil {
		t.Error(err)
	}
	if err := b.judge(listed); !errors.Is(err, revocation.ErrRevoked) || s.asked.Load() != 1 {
		t.Errorf("%v, %d questions", err, s.asked.Load())
	}
	s.answers(revoked)
	if err := b.judge(ca.client()); !errors.Is(err, revocation.ErrRevoked) {
		t.Error(err)
	}
	c.Lists = []revocation.Source{{Content: ca.list(1, nil, from(-2*time.Hour, -time.Hour))}}
	s.answers(nil)
	b.configure(s.asks(false)) // the list of before is gone
	b.configure(c)
	if err := b.judge(good); !errors.Is(err, revocation.ErrUnknown) {
		t.Errorf("a list that has ended: %v", err)
	}
}

// TestMemoryIsBounded: what is revoked is forgotten last.
func TestMemoryIsBounded(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s := newResponder(t, ca)
	s.answers(revoked)
	b := newBench(t, s.asks(false))
	b.checker.Remember(8)
	bad := ca.client()
	if err := b.judge(bad); !errors.Is(err, revocation.ErrRevoked) {
		t.Fatal(err)
	}
	s.answers(nil)
	for range 40 {
		if err := b.judge(ca.client()); err != nil {
			t.Error(err)
		}
	}
	if n := b.checker.Remembered(); n != 8 {
		t.Errorf("%d certificates are remembered", n)
	}
	if err := b.judge(bad); !errors.Is(err, revocation.ErrRevoked) || s.asked.Load() != 41 {
		t.Errorf("%v, %d questions", err, s.asked.Load())
	}
}

// TestNobodyToAsk: the log says why a certificate is refused that names no responder, once a minute at most, and with its CA.
func TestNobodyToAsk(t *testing.T) {
	const line = "no OCSP responder can be asked"
	root := newAuthority("partners", ecKey(), nil)
	ca := newAuthority("between", ecKey(), root)
	for _, soft := range []bool{false, true} {
		b := newBench(t, revocation.Config{OCSP: &revocation.OCSP{Soft: soft}})
		for range 3 {
			b.judge(ca.client())
		}
		if n := b.logs.FilterMessageSnippet(line).FilterField(zap.String("ca", "CN=between")).FilterField(zap.Bool("refused", !soft)).
			FilterField(zap.String("cause", "it names no responder, and none is configured")).Len(); n != 1 || b.said(line) != 1 {
			t.Errorf("soft %v: %d lines, %d of them right", soft, b.said(line), n)
		}
		b.turned.Store(int64(time.Minute + time.Second))
		b.judge(ca.client(func(c *x509.Certificate) { c.DNSNames = []string{strings.Repeat("a", 9<<10)} }))
		if n := b.logs.FilterField(zap.String("cause", "a certificate of the chain is too long")).Len(); n != 1 || b.said(line) != 2 {
			t.Errorf("soft %v, a minute later: %d lines, %d of them right", soft, b.said(line), n)
		}
	}
}
