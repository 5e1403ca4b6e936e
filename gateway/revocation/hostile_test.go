package revocation_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"golang.org/x/crypto/ocsp"

	"github.com/cardstile/cardstile/gateway/revocation"
)

// These are tests against somebody who is between us and a CA's servers, and against a CA that is trusted for its own clients alone.

// TestAnotherCAsList: whoever answers in a server's place takes a list out of force by none of another CA that we know, however new.
func TestAnotherCAsList(t *testing.T) {
	ca, other, third := newAuthority("partners", ecKey(), nil), newAuthority("others", ecKey(), nil), newAuthority("third", ecKey(), nil)
	bad, foreign := ca.client(), other.client()
	for _, soft := range []bool{false, true} {
		s := newShelf(t, ca.list(1, []*x509.Certificate{bad[0]}))
		c := byURL(ca, s)
		c.CAs, c.Soft = append(c.CAs, other.certificate, third.certificate), soft
		b := newBench(t, c)
		b.run()
		eventually(t, "the CA's list", func() bool { return errors.Is(b.judge(bad), revocation.ErrRevoked) })
		s.put(other.list(9, []*x509.Certificate{foreign[0]}, from(-time.Minute, 2*time.Hour)), nil)
		eventually(t, "the other one's", func() bool { return errors.Is(b.judge(foreign), revocation.ErrRevoked) })
		if err := b.judge(bad); !errors.Is(err, revocation.ErrRevoked) {
			t.Errorf("soft %v: revoked, with the other CA's list there: %v", soft, err)
		}
		if err := b.judge(ca.client()); err != nil {
			t.Errorf("soft %v: good, with the other CA's list there: %v", soft, err)
		}
		if n := b.said("another CA's"); n != 1 {
			t.Errorf("soft %v: %d lines", soft, n)
		}
		// Each goes by what is known of its own CA.
		old := b.count(fetches, "rollback")
		s.put(ca.list(0, nil), nil)
		eventually(t, "a refusal of the CA's older one", func() bool { return b.count(fetches, "rollback") > old })
		ended := b.count(fetches, "ended")
		s.put(third.list(10, nil, from(-2*time.Hour, -time.Hour)), nil)
		eventually(t, "a refusal of a third CA's that has ended", func() bool { return b.count(fetches, "ended") > ended })
		b.configure(c)
		b.run()
		s.put(ca.list(2, nil), nil)
		eventually(t, "the CA's next list", func() bool { return b.judge(bad) == nil })
		if err := b.judge(foreign); !errors.Is(err, revocation.ErrRevoked) {
			t.Errorf("soft %v: the other CA's, after a reload: %v", soft, err)
		}
		b.ends()
		b.ends = nil
	}
}

// TestAListOfNobody: what is signed by none of the CAs takes no more memory than it is long, a few times over.
func TestAListOfNobody(t *testing.T) {
	ca, stranger := newAuthority("partners", ecKey(), nil), newAuthority("partners", ecKey(), nil)
	many := make([]*x509.Certificate, 100_000)
	for i := range many {
		many[i] = &x509.Certificate{SerialNumber: big.NewInt(1)}
	}
	list := stranger.list(1, many)
	c := byURL(ca, newShelf(t, list))
	c.Refresh = time.Hour
	b := newBench(t, c)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.run()
	eventually(t, "a refusal", func() bool { return b.count(fetches, "unsigned") == 1 })
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 15*uint64(len(list)) {
		t.Errorf("%d times its length", grown/uint64(len(list)))
	}
}

// TestNothingNewForEver: whoever was in a server's place once, and gave a list a date that makes the server say "nothing new" ever after,
// holds up the next list for a few fetches, and for none where the list has ended.
func TestNothingNewForEver(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	for name, test := range map[string]struct {
		end time.Duration
		at  int // how often it is held up
	}{"current": {time.Hour, 4}, "ended": {-time.Minute, 0}} {
		s := newShelf(t, nil)
		lists := [][]byte{ca.list(1, nil, from(-time.Hour, test.end)), ca.list(2, nil)}
		s.put(nil, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-Modified-Since") != "" {
				if len(lists) > 0 {
					s.conditional++
				}
				w.WriteHeader(http.StatusNotModified)
				return
			}
			w.Header().Set("Last-Modified", "Fri, 31 Dec 2100 23:59:59 GMT")
			if len(lists) > 0 {
				w.Write(lists[0])
				lists = lists[1:]
				return
			}
			w.Write(ca.list(2, nil))
		})
		b := newBench(t, byURL(ca, s))
		b.run()
		eventually(t, name+": the next list", func() bool { return b.count(fetches, "ok") == 2 })
		if _, n := s.asked(); n != test.at {
			t.Errorf("%s: it was held up %d times", name, n)
		}
	}
}

// otherSignature is the same certificate with another signature, which anybody can make of an ECDSA one: (r, s) becomes (r, n−s).
func otherSignature(c *x509.Certificate) *x509.Certificate {
	var outer struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	var signature struct{ R, S *big.Int }
	_, err := asn1.Unmarshal(c.Raw, &outer)
	must(err)
	_, err = asn1.Unmarshal(outer.Signature.Bytes, &signature)
	must(err)
	signature.S.Sub(elliptic.P256().Params().N, signature.S)
	der, err := asn1.Marshal(signature)
	must(err)
	outer.Signature = asn1.BitString{Bytes: der, BitLength: 8 * len(der)}
	der, err = asn1.Marshal(outer)
	must(err)
	other, err := x509.ParseCertificate(der)
	must(err)
	return other
}

// TestOtherSignatures: what is known of a certificate is known of it in every form that its holder can give it, so that one that is
// revoked does not pass as a new one where responders are silent.
func TestOtherSignatures(t *testing.T) {
	root := newAuthority("partners", ecKey(), nil)
	between := newAuthority("between", ecKey(), root)
	s := newResponder(t, between)
	s.answers(revoked)
	b := newBench(t, s.asks(true))
	chain := between.client()
	if err := b.judge(chain); !errors.Is(err, revocation.ErrRevoked) {
		t.Fatal(err)
	}
	s.says(func(w http.ResponseWriter, _ *ocsp.Request) { w.Write(ocsp.TryLaterErrorResponse) })
	leaf, above := otherSignature(chain[0]), otherSignature(chain[1])
	must(leaf.CheckSignatureFrom(chain[1]))
	must(above.CheckSignatureFrom(chain[2]))
	for _, other := range [][]*x509.Certificate{{leaf, chain[1], chain[2]}, {chain[0], above, chain[2]}, {leaf, above, chain[2]}, chain} {
		if err := b.judge(other); !errors.Is(err, revocation.ErrRevoked) {
			t.Error(err)
		}
	}
	if s.asked.Load() != 1 || b.checker.Remembered() != 1 {
		t.Errorf("%d questions, %d certificates", s.asked.Load(), b.checker.Remembered())
	}
}

// TestManyChains: a certificate with many chains, each with an intermediate that a responder is slow about, does not wait for one after
// the other.
func TestManyChains(t *testing.T) {
	root := newAuthority("partners", ecKey(), nil)
	s := newResponder(t, root)
	gate, say := make(chan struct{}), s.say
	release := sync.OnceFunc(func() { close(gate) })
	defer release()
	s.says(func(w http.ResponseWriter, r *ocsp.Request) {
		<-gate
		say(w, r)
	})
	key := ecKey()
	leaf := newAuthority("between", key, root).client(names(s.URL))[0]
	pool := x509.NewCertPool()
	for i := range 12 {
		pool.AddCert(newAuthority("between", key, root, names(fmt.Sprintf("%s/%d", s.URL, i))).certificate)
	}
	anchors := x509.NewCertPool()
	anchors.AddCert(root.certificate)
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: anchors, Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	must(err)
	if len(chains) != 12 {
		t.Fatalf("%d chains", len(chains))
	}
	b := newBench(t, revocation.Config{OCSP: &revocation.OCSP{Timeout: 20 * time.Second}})
	done := make(chan error, 1)
	go func() { done <- b.checker.Any(chains, b.now()) }()
	eventually(t, "all questions at once", func() bool { return s.asked.Load() == 13 })
	release()
	if err := <-done; !errors.Is(err, revocation.ErrUnknown) { // that of the leaf is answered by its CA's CA
		t.Error(err)
	}
}

// TestRevokedResponder: an answer by a responder whose own certificate is on its CA's list is none.
func TestRevokedResponder(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	key := ecKey()
	delegate := template("responder")
	delegate.ExtKeyUsage, delegate.KeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, x509.KeyUsageDigitalSignature
	certificate := ca.signs(delegate, key.Public())
	s := newResponder(t, ca)
	s.answers(func(a *saying) { a.signer, a.Certificate, a.key = certificate, certificate, key })
	c := s.asks(false)
	c.CAs = []*x509.Certificate{ca.certificate}
	for _, test := range []struct {
		listed []*x509.Certificate
		want   error
		result string
	}{{nil, nil, "good"}, {[]*x509.Certificate{certificate}, revocation.ErrUnknown, "unsigned"}} {
		c.Lists = []revocation.Source{{Content: ca.list(1, test.listed)}}
		b := newBench(t, c)
		if err := b.judge(ca.client()); !errors.Is(err, test.want) || b.count(questions, test.result) != 1 {
			t.Errorf("%s: %v", test.result, err)
		}
	}
}

// TestCAsOfOneName: a list of a name that several CAs have, as after a change of key, is verified once for each, up to a bound.
func TestCAsOfOneName(t *testing.T) {
	ca, root := newAuthority("partners", ecKey(), nil), newAuthority("root", ecKey(), nil)
	b := newBench(t, revocation.Config{CAs: []*x509.Certificate{ca.certificate}, Lists: []revocation.Source{{Content: ca.list(1, nil)}}})
	key := ecKey()
	for i := range 80 {
		chain := newAuthority("partners", key, root).client()
		for range 2 {
			if err := b.judge(chain); !errors.Is(err, revocation.ErrUnknown) {
				t.Error(err)
			}
		}
		if n, want := b.checker.Verified(), 1+min(i+1, 64); n != want {
			t.Fatalf("it is known of %d, want %d", n, want)
		}
	}
	if err := b.judge(ca.client()); err != nil {
		t.Error(err)
	}
}

// TestLongCertificates: nobody is asked about a certificate that would take too much to remember, wherever in the chain.
func TestLongCertificates(t *testing.T) {
	long := func(c *x509.Certificate) { c.DNSNames = []string{strings.Repeat("a", 9<<10)} }
	root := newAuthority("partners", ecKey(), nil)
	s := newResponder(t, root)
	above := newAuthority("above", ecKey(), root, long, names(s.URL))
	for name, chain := range map[string][]*x509.Certificate{
		"leaf": root.client(long), "intermediate": above.client(), "the one above": newAuthority("between", ecKey(), above).client(),
	} {
		hard, soft := newBench(t, s.asks(false)), newBench(t, s.asks(true))
		if err := hard.judge(chain); !errors.Is(err, revocation.ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
		if err := soft.judge(chain); err != nil || soft.count(passed) != 1 {
			t.Errorf("%s, soft: %v", name, err)
		}
		for _, b := range []*bench{hard, soft} {
			if b.checker.Ask([][]*x509.Certificate{chain, chain}, b.now()); b.checker.Remembered() != 0 || b.count(questions, "no_responder") != 1 {
				t.Errorf("%s: %d are remembered", name, b.checker.Remembered())
			}
		}
	}
	if s.asked.Load() != 0 {
		t.Errorf("%d questions", s.asked.Load())
	}
}

// inOneMessage judges a chain of three of which a message has the first two, and returns the message if it is still in memory.
func inOneMessage(b *bench, chain []*x509.Certificate) weak.Pointer[[1 << 20]byte] {
	weakly := func() weak.Pointer[[1 << 20]byte] {
		message := new([1 << 20]byte)
		var presented []*x509.Certificate
		for rest := message[:]; len(presented) < 2; {
			n := copy(rest, chain[len(presented)].Raw)
			c, err := x509.ParseCertificate(rest[:n])
			must(err)
			presented, rest = append(presented, c), rest[n:]
		}
		b.judge(append(presented, chain[2]))
		return weak.Make(message)
	}()
	runtime.GC()
	return weakly
}

// TestNothingButTheCertificateIsKept: crypto/tls makes certificates of parts of a message, which may be 256 KiB long.
func TestNothingButTheCertificateIsKept(t *testing.T) {
	root := newAuthority("partners", ecKey(), nil)
	s := newResponder(t, root)
	chain := newAuthority("between", ecKey(), root, names(s.URL)).client()
	b := newBench(t, s.asks(true))
	message := inOneMessage(b, chain)
	if b.checker.Remembered() != 2 || message.Value() != nil {
		t.Errorf("%d certificates are remembered, the message %v", b.checker.Remembered(), message.Value() != nil)
	}
	runtime.KeepAlive(b)
}

// TestCAsDoNotStarveEachOther: certificates of a CA whose responder hangs leave room for questions about another one's.
func TestCAsDoNotStarveEachOther(t *testing.T) {
	slow, good := newAuthority("slow", ecKey(), nil), newAuthority("good", ecKey(), nil)
	hanging, answering := newResponder(t, slow), newResponder(t, good)
	gate := make(chan struct{})
	release := sync.OnceFunc(func() { close(gate) })
	defer release()
	hanging.says(func(http.ResponseWriter, *ocsp.Request) { <-gate })
	b := newBench(t, revocation.Config{OCSP: &revocation.OCSP{Timeout: 20 * time.Second}})
	var wg sync.WaitGroup
	for range 32 {
		chain := slow.client(names(hanging.URL))
		wg.Go(func() { b.judge(chain) })
	}
	eventually(t, "many questions", func() bool { return b.checker.Remembered() == 32 && hanging.asked.Load() == 16 })
	done := make(chan error, 1)
	chain := good.client(names(answering.URL))
	go func() { done <- b.judge(chain) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits behind the other CA's")
	}
	release()
	wg.Wait()
}
