package revocation

import (
	"context"
	"crypto"
	"crypto/fips140"
	_ "crypto/sha1" // of CertIDs
	"crypto/sha256"
	_ "crypto/sha512" // of CertIDs
	"crypto/x509"
	"math/big"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/ocsp"
)

// This file asks responders.

const (
	maxQuestions       = 8192             // certificates that are remembered
	maxAsking          = 16               // questions at a time, of those about one trust anchor's certificates
	maxAnswerBytes     = 64 << 10         // of a responder
	maxRememberedBytes = 8 << 10          // of a certificate: nobody is asked about a longer one, which would have to be remembered
	retryAfter         = 10 * time.Second // after a question without an answer
	busyFor            = time.Second      // after one for which there was no room
	unknownFor         = time.Minute      // how long a responder's "unknown" is gone by
	keepAsking         = 24 * time.Hour   // how long after a certificate was last judged its answer is kept fresh
)

// responders are all that are asked.
type responders struct {
	c          *Checker
	config     OCSP
	configured *client      // for the operator's responder
	named      *client      // for those that certificates name
	most       int          // questions that are remembered
	complained atomic.Int64 // when the log last had a line about a failure, in Unix nanoseconds
	unasked    atomic.Int64 // the same of certificates about which nobody can be asked

	mu        sync.Mutex
	questions map[questionKey]*question           // guarded by mu
	rooms     map[[sha256.Size]byte]chan struct{} // by SHA-256 of a trust anchor; guarded by mu
}

// questionKey is a certificate as OCSP names it: the name and key of its CA, as a digest, and its serial number in big-endian bytes.
// Certificates themselves will not do: whoever has one can give it another signature (ECDSA's come in pairs).
type questionKey struct {
	ca     [sha256.Size]byte
	serial string
}

// question is what is known of one certificate.
type question struct {
	serial    *big.Int
	end       time.Time         // of the certificate
	issuer    *x509.Certificate // a copy: that of a handshake holds on to all that came with it
	responder *url.URL
	room      chan struct{}           // shared by all whose certificates have the same trust anchor, so that none waits behind another's
	last      atomic.Pointer[verdict] // nil: nobody has said anything yet
	used      atomic.Int64            // when it was last judged, in Unix nanoseconds
	retry     atomic.Int64            // until when nobody is asked again after a failure, in Unix nanoseconds; 0: the last question was answered
	mu        sync.Mutex
	asking    chan struct{} // closed when the question that is under way has ended; guarded by mu
}

// verdict is what a responder said.
type verdict struct {
	status int       // of ocsp
	made   time.Time // its thisUpdate
	until  time.Time // how long it is gone by
	due    time.Time // when the next one is asked for
}

func newResponders(c *Checker, config OCSP) *responders {
	if config.Timeout == 0 {
		config.Timeout = DefaultTimeout
	}
	r := &responders{c: c, config: config, most: maxQuestions, questions: map[questionKey]*question{}, rooms: map[[sha256.Size]byte]chan struct{}{}}
	r.named = newClient(c.config, c.config.Dialer(netip.Addr{}), config.Timeout)
	if config.Responder != nil {
		r.configured = newClient(c.config, c.config.Dialer(namedAddr(config.Responder)), config.Timeout)
	}
	return r
}

// asks reports whether two ask the same responders.
func (r *responders) asks(other *responders) bool {
	a, b := r.config.Responder, other.config.Responder
	return a == nil && b == nil || a != nil && b != nil && a.String() == b.String()
}

// judge is Checker.judge by responders alone. All certificates of the chain are asked about at the same time.
func (r *responders) judge(chain []*x509.Certificate, now time.Time) (until time.Time, err error) {
	if tooLong(chain) {
		return time.Time{}, r.nobody(chain, "a certificate of the chain is too long")
	}
	var all []*question
	for i := range len(chain) - 1 {
		responder := r.responder(chain[i], i == 0)
		if responder != nil {
			all = append(all, r.question(chain, i, responder, now))
		} else if i == 0 { // an intermediate that names none is its list's business
			if err := r.nobody(chain, "it names no responder, and none is configured"); err != nil {
				return time.Time{}, err
			}
		}
	}
	var waiting []<-chan struct{}
	for _, q := range all {
		if q.stale(now) {
			waiting = append(waiting, r.ask(q))
		}
	}
	for _, done := range waiting {
		<-done // after the time-out at the latest
	}
	for _, q := range all {
		v := q.last.Load()
		switch {
		case v != nil && v.status == ocsp.Revoked: // an old answer's, too: what is revoked stays so until a responder says otherwise
			return time.Time{}, ErrRevoked
		case v != nil && v.status == ocsp.Unknown && now.Before(v.until):
			return time.Time{}, ErrUnknown
		case v != nil && v.status == ocsp.Good && now.Before(v.until):
			until = earlier(until, v.until)
		case !r.config.Soft:
			return q.again(now), ErrUnknown
		default:
			r.passed()
			until = earlier(until, q.again(now))
		}
	}
	return until, nil
}

// begin has all asked that is to be asked about chains, and waits for nothing.
func (r *responders) begin(chains [][]*x509.Certificate, now time.Time) {
	for _, chain := range chains {
		for i := range len(chain) - 1 {
			if tooLong(chain) {
				break
			}
			if responder := r.responder(chain[i], i == 0); responder != nil {
				if q := r.question(chain, i, responder, now); q.stale(now) {
					r.ask(q)
				}
			}
		}
	}
}

// tooLong reports whether a certificate that came in a handshake is longer than what is remembered.
func tooLong(chain []*x509.Certificate) bool {
	return slices.ContainsFunc(chain[:len(chain)-1], func(c *x509.Certificate) bool { return len(c.Raw) > maxRememberedBytes })
}

// nobody is what comes of a certificate about which nobody can be asked. The log says so once a minute at most, with its CA.
func (r *responders) nobody(chain []*x509.Certificate, cause string) error {
	r.count(ocspNobody)
	if r.mayComplain(&r.unasked) {
		r.c.services.Log.Warn("no OCSP responder can be asked about a client certificate",
			append(r.c.aboutCA(chain[min(1, len(chain)-1)]), zap.String("cause", cause), zap.Bool("refused", !r.config.Soft))...)
	}
	if !r.config.Soft {
		return ErrUnknown
	}
	r.passed()
	return nil
}

func (r *responders) passed() {
	r.c.services.Metrics.passed.WithLabelValues(r.c.config.Listener, byOCSP).Inc()
}

func (r *responders) count(result string) {
	r.c.services.Metrics.ocsp.WithLabelValues(r.c.config.Listener, result).Inc()
}

// responder is who is asked about a certificate; nil where nobody can be.
func (r *responders) responder(c *x509.Certificate, leaf bool) *url.URL {
	if leaf && r.config.Responder != nil {
		return r.config.Responder
	}
	for _, text := range c.OCSPServer {
		if u, err := url.Parse(text); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil {
			return u
		}
	}
	return nil
}

// ask has the question asked, once for all who want to know, and returns what is closed when that has ended.
func (r *responders) ask(q *question) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.asking != nil {
		return q.asking
	}
	done := make(chan struct{})
	q.asking = done
	go func() { // its own time-out: whoever asked first may go before the others
		ctx, cancel := context.WithTimeout(context.Background(), r.config.Timeout)
		defer cancel()
		r.learn(ctx, q)
		q.mu.Lock()
		q.asking = nil
		q.mu.Unlock()
		close(done)
	}()
	return done
}

// learn asks, and takes in what was said.
func (r *responders) learn(ctx context.Context, q *question) {
	v, result := r.fetch(ctx, q)
	defer r.count(result)
	before, failing := q.last.Load(), q.retry.Load() != 0
	if result == ocspBusy {
		q.retry.Store(r.c.services.Now().Add(busyFor).UnixNano())
		return
	}
	if v == nil {
		q.retry.Store(r.c.services.Now().Add(retryAfter).UnixNano())
		r.complain(result)
		return
	}
	q.last.Store(v)
	q.retry.Store(0)
	if failing || before != nil && before.status != v.status || before == nil && v.status == ocsp.Revoked {
		r.c.move()
	}
}

// complain has the log say that a question had no answer, once a minute at most: the metric has each.
func (r *responders) complain(result string) {
	if r.mayComplain(&r.complained) {
		r.c.services.Log.Warn("an OCSP responder did not answer", zap.String("listener", r.c.config.Listener), zap.String("result", result))
	}
}

// mayComplain reports whether the last line of a kind is a minute old, and notes that there is one now.
func (r *responders) mayComplain(last *atomic.Int64) bool {
	now, before := r.c.services.Now().UnixNano(), last.Load()
	return now-before >= int64(time.Minute) && last.CompareAndSwap(before, now)
}

// fetch puts the question to the responder. Without a verdict, the result says why: a label, of a closed set.
func (r *responders) fetch(ctx context.Context, q *question) (v *verdict, result string) {
	select {
	case q.room <- struct{}{}:
		defer func() { <-q.room }()
	case <-ctx.Done():
		return nil, ocspBusy
	}
	request, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: q.serial}, q.issuer, &ocsp.RequestOptions{Hash: nameHash()})
	if err != nil {
		return nil, ocspMalformed
	}
	to := r.named
	if r.config.Responder != nil && *q.responder == *r.config.Responder {
		to = r.configured
	}
	a, failed := to.post(ctx, q.responder, request, maxAnswerBytes)
	if failed != "" {
		return nil, failed
	}
	return read(a.body, q, r.c)
}

// nameHash is what a question names the CA with: SHA-1 is what every responder knows (RFC 5019 section 2.1.1); it names, and nothing
// depends on its strength.
func nameHash() crypto.Hash {
	if fips140.Enforced() {
		return crypto.SHA256
	}
	return crypto.SHA1
}
