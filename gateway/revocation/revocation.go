// Package revocation answers the question "has a CA taken this client certificate back?", by the revocation lists of CAs (RFC 5280
// section 5), from files and URLs, and by OCSP (RFC 6960). Who calls has verified the certificate's chain. The package knows
// nothing of connections, partners or tokens.
package revocation

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Why a chain is refused. Match them with errors.Is.
var (
	// ErrRevoked: a certificate of the chain is revoked.
	ErrRevoked = errors.New("the certificate is revoked")
	// ErrUnknown: nobody says now whether one is.
	ErrUnknown = errors.New("nobody says whether the certificate is revoked")
)

// Defaults of a Config.
const (
	DefaultRefresh = time.Hour
	DefaultTimeout = 2 * time.Second // of a question to a responder
)

// clockSkew is how far ahead of ours the clock of a CA or responder may be, and how much older than its last answer one may be that says
// no until when it holds.
const clockSkew = 5 * time.Minute

// Config says what the client certificates of a listener are held against.
type Config struct {
	// Listener names it, in metrics and the log.
	Listener string

	// CAs are its clients'. A list in the name of one of them must be signed by it.
	CAs []*x509.Certificate

	// Intermediates are CAs below them whose lists may come from URLs, as those of CAs may. A list in a file needs none: it is held
	// against the intermediate of each chain.
	Intermediates []*x509.Certificate

	// Lists are where lists come from, one from each.
	Lists []Source

	// Soft lets a certificate pass whose CA has no current list. It is refused otherwise.
	Soft bool

	// Refresh is how long a list from a URL, and an answer of a responder, is gone by before there is to be a new one. Default: an hour.
	Refresh time.Duration

	// Cache is a directory in which lists from URLs are kept for the next start. It is made where it is not there. Empty: nowhere.
	Cache string

	// OCSP asks responders too; nil does not.
	OCSP *OCSP

	// Dialer returns what connects to servers, and refuses all addresses that are no destination. The address is the one that the
	// operator's URL has in place of a host's name; invalid where it has none, or the URL is a certificate's.
	Dialer func(named netip.Addr) *net.Dialer

	// TLS is for servers of scheme https.
	TLS *tls.Config
}

// Source is a list's place: the content of a file, PEM or DER, with its name for the log, or the URL that it is fetched from.
type Source struct {
	Content []byte
	Name    string
	URL     *url.URL
}

// OCSP says how responders are asked about certificates.
type OCSP struct {
	// Responder is asked about clients' certificates in place of those that they name themselves; nil asks these. Intermediates are
	// asked about where they name one.
	Responder *url.URL

	// Soft lets a certificate pass of which no responder has said anything. One of which a responder says that it does not know it
	// is refused all the same.
	Soft bool

	// Timeout bounds a question, and with it what it adds to a handshake. Default: 2 s.
	Timeout time.Duration
}

// Services are what a Checker works with.
type Services struct {
	Log     *zap.Logger
	Now     func() time.Time
	Metrics *Metrics
}

// Checker holds certificates against lists and responders. A nil *Checker refuses nobody. Safe for concurrent use.
//
// Nothing is fetched before Run, and no responder asked before the first Judge. By Adopt it takes over what the one of the
// configuration before knows, and knows what is kept in its cache.
type Checker struct {
	config   Config
	services Services
	lists    []*slot
	ocsp     *responders
	epoch    *atomic.Uint64 // shared with those who adopt
	moved    chan struct{}  // has an element when a list is new
	unsaved  chan struct{}  // has one when lists may be to be written
	caching  *caching       // shared with those who adopt and have the same cache
	unlisted *unlisted      // shared with those who adopt
	above    sync.Map       // the authority that issued another one, by SHA-256 of its certificate; nil where none did
}

// New returns a Checker that knows the lists of files. The error is a *ListError where a list is not one to go by.
func New(config Config) (*Checker, error) {
	if config.Refresh == 0 {
		config.Refresh = DefaultRefresh
	}
	c := &Checker{
		config: config, epoch: &atomic.Uint64{}, moved: make(chan struct{}, 1), unsaved: make(chan struct{}, 1),
		caching: &caching{ignored: map[string]bool{}}, unlisted: &unlisted{cas: map[unlistedCA]*x509.Certificate{}},
	}
	c.services = Services{Log: zap.NewNop(), Now: time.Now, Metrics: NewMetrics()}
	for i, source := range config.Lists {
		s := &slot{index: i, url: source.URL}
		c.lists = append(c.lists, s)
		if source.URL != nil {
			continue
		}
		l, err := parseList(source.Content)
		if err == nil {
			err = l.ofCAs(config.CAs)
		}
		if err != nil {
			return nil, &ListError{i, err}
		}
		s.file = l
		s.list.Store(&inForce{list: l})
	}
	if config.OCSP != nil {
		c.ocsp = newResponders(c, *config.OCSP)
	}
	for _, s := range c.lists {
		if s.url != nil && config.Dialer == nil {
			return nil, errors.New("revocation: no dialer")
		}
	}
	return c, nil
}

// ListError says which of the lists is not one to go by.
type ListError struct {
	Index int
	Err   error
}

// Error implements error.
func (e *ListError) Error() string { return fmt.Sprintf("revocation list %d: %v", e.Index, e.Err) }

// Unwrap returns what is wrong.
func (e *ListError) Unwrap() error { return e.Err }

// Adopt takes over what the Checker of the configuration before knows of the same URLs and responders, so that nobody is unknown
// after a reload who was known before, and its lists from files that are newer than those that come in their place; and it reads what the
// cache has of other URLs. old may be nil, and must not be running. It is called
// once, before anything else is.
func (c *Checker) Adopt(old *Checker, s Services) {
	c.services = s
	if c.services.Log == nil {
		c.services.Log = zap.NewNop()
	}
	c.services.Metrics.begin(c)
	if old != nil {
		c.succeed(old)
	} else {
		c.succeedFiles(&Checker{})
	}
	c.recall()
}

// succeed is Adopt without the cache.
func (c *Checker) succeed(old *Checker) {
	c.epoch, c.unlisted = old.epoch, old.unlisted
	if c.config.Cache == old.config.Cache {
		c.caching = old.caching
	}
	for i, s := range c.lists {
		s.tried.Store(true)
		for _, before := range old.lists {
			if s.url != nil && before.url != nil && s.url.String() == before.url.String() {
				c.lists[i] = c.inherited(s, before)
				break
			}
		}
	}
	c.succeedFiles(old)
	if c.ocsp != nil && old.ocsp != nil && c.ocsp.asks(old.ocsp) {
		c.ocsp.adopt(old.ocsp)
	}
}

// inherited is the slot before of the same URL, or, where the last list is of a CA that is ours no more, a new one with what is left.
func (c *Checker) inherited(s, before *slot) *slot {
	held := before.list.Load()
	if held == nil || c.acceptable(held.list) {
		return before.moveTo(s.index)
	}
	if i := slices.IndexFunc(held.beside, c.acceptable); i >= 0 {
		s.list.Store(&inForce{held.beside[i], held.beside[i+1:]})
	}
	return s
}

// authorities are the CAs whose lists come from URLs.
func (c *Checker) authorities() []*x509.Certificate {
	return slices.Concat(c.config.CAs, c.config.Intermediates)
}

// acceptable reports whether a list from a URL is signed by one of the CAs.
func (c *Checker) acceptable(l *list) bool { return slices.ContainsFunc(c.authorities(), l.signedBy) }

// issuerID tells CAs apart by what their lists and answers name and prove: whatever certificates there are of it.
func issuerID(ca *x509.Certificate) [32]byte {
	return sha256.Sum256(slices.Concat(ca.RawSubject, ca.RawSubjectPublicKeyInfo))
}

// Run fetches lists, writes them to the cache, keeps answers fresh, and has the log say when a list ends, until ctx ends.
func (c *Checker) Run(ctx context.Context) {
	var wg sync.WaitGroup
	if c.config.Cache != "" {
		fetched, saved := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(saved)
			c.save(fetched)
		}()
		defer func() {
			close(fetched)
			select {
			case <-saved:
			case <-time.After(cacheGrace): // a disk that hangs holds up neither a reload nor the end of the process
			}
		}()
	}
	for _, s := range c.lists {
		if s.url != nil {
			wg.Go(func() { c.keep(ctx, s) })
		}
	}
	if c.ocsp != nil {
		wg.Go(func() { c.ocsp.keep(ctx) })
	}
	wg.Go(func() { c.watch(ctx) })
	wg.Wait()
}

// Waiting reports whether, since the start, a list has not been fetched that nobody passes without, nor a current one been in the cache.
func (c *Checker) Waiting() bool {
	return c != nil && !c.config.Soft && slices.ContainsFunc(c.lists, func(s *slot) bool { return s.url != nil && !s.tried.Load() })
}

// Epoch is another one when something is known that was not, so that what was judged before is to be judged again.
func (c *Checker) Epoch() uint64 {
	if c == nil {
		return 0
	}
	return c.epoch.Load()
}

// Judge refuses a verified chain (leaf first, trust anchor last) in which a certificate is revoked, and, unless soft, one of which that is
// not known. Nobody is asked about a trust anchor that issued itself, or whose issuer is none of the configured CAs. What Judge finds holds
// in this epoch until the time that it returns, zero being as long as the certificates; so does a refusal, where zero is any time. It may
// block for as long as a question to a responder may take, where one is asked about a certificate for the first time. Fails closed.
func (c *Checker) Judge(chain []*x509.Certificate, now time.Time) (until time.Time, err error) {
	for _, f := range c.Each([][]*x509.Certificate{chain}, now) {
		return f.Until, f.Err
	}
	return time.Time{}, nil
}

// judge is Judge of a chain that goes as far as it can.
func (c *Checker) judge(chain []*x509.Certificate, now time.Time) (until time.Time, err error) {
	if len(c.lists) > 0 {
		if until, err = c.byLists(chain, now); err != nil {
			return until, err
		}
	}
	if c.ocsp == nil {
		return until, nil
	}
	answered, err := c.ocsp.judge(chain, now)
	if err != nil {
		return answered, err
	}
	return earlier(until, answered), nil
}

// ask begins all questions to responders that judging chains would wait for one after the other.
func (c *Checker) ask(chains [][]*x509.Certificate, now time.Time) {
	if c.ocsp != nil {
		c.ocsp.begin(chains, now)
	}
}

// byLists is judge by lists alone.
func (c *Checker) byLists(chain []*x509.Certificate, now time.Time) (until time.Time, err error) {
	unknown := false
	var begins time.Time // when one of the lists does that are not current yet
	for i := range len(chain) - 1 {
		var current time.Time // how long a list of this CA still is
		others := false       // whether one is that is for other certificates
		for l := range c.listsOf(chain[i+1]) {
			if l.has(chain[i]) { // by an old list too: what is revoked stays so
				return time.Time{}, ErrRevoked
			}
			covers := l.covers(chain[i])
			if l.current(now) && covers && l.parsed.NextUpdate.After(current) {
				current = l.parsed.NextUpdate
			}
			others = others || l.current(now) && !covers
			if at := l.begins(); at.After(now) {
				begins = earlier(begins, at)
			}
		}
		if current.IsZero() {
			unknown = true
			c.unlist(chain[i+1], others)
		}
		until = earlier(until, current)
	}
	if unknown && !c.config.Soft {
		return begins, ErrUnknown
	}
	if unknown {
		c.services.Metrics.passed.WithLabelValues(c.config.Listener, byList).Inc()
	}
	return until, nil
}

// listsOf are the lists in force that a CA has signed.
func (c *Checker) listsOf(ca *x509.Certificate) iter.Seq[*list] {
	return func(yield func(*list) bool) {
		for _, s := range c.lists {
			for l := range s.list.Load().all() {
				if l.signedBy(ca) && !yield(l) {
					return
				}
			}
		}
	}
}

// listed reports whether a list revokes a certificate of a CA.
func (c *Checker) listed(certificate, ca *x509.Certificate) bool {
	for l := range c.listsOf(ca) {
		if l.has(certificate) {
			return true
		}
	}
	return false
}

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// move begins the next epoch.
func (c *Checker) move() {
	c.epoch.Add(1)
	select {
	case c.moved <- struct{}{}:
	default:
	}
}
