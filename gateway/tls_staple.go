package gateway

import (
	"cmp"
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/revocation"
)

// This file has what OCSP responders say of the certificates of hosts served with them. Nothing waits for it: a certificate is in
// service without a staple first, and renewals go their own way. certmagic's own stapling would wait before either, by a client without
// a time-out that the environment's proxies and the servers' redirects lead anywhere.

const (
	stapleTimeout  = 10 * time.Second // for a responder
	stapleRetry    = time.Minute      // after a question without an answer; doubled with each, up to stapleMaxWait
	stapleMaxWait  = time.Hour
	stapleLifetime = 7 * 24 * time.Hour // certificates that live shorter are not asked about: they end sooner than their staples
)

// stapling is what is stapled to certificates of hosts.
type stapling struct {
	asker *revocation.Asker
	words sync.Map // by Hash of a certificate: *stapled
	wakes sync.Map // by host: chan struct{}, which gets an element when a certificate is served of which nothing is known
}

// stapled is what is known of one certificate. A nil word is that there is none.
type stapled struct {
	word  *revocation.Word
	named bool // the certificate names a responder
}

// current returns what is to be served at a time; nil: nothing.
func (s *stapled) current(now time.Time) []byte {
	if s.word == nil || !s.word.Good || !now.Before(s.word.Until) {
		return nil
	}
	return s.word.DER
}

func newStapling(d Destinations) *stapling {
	to := func(netip.Addr) *net.Dialer {
		d := d
		d.Named = netip.Addr{} // certificates name responders, not an operator
		return d.Dialer(stapleTimeout)
	}
	return &stapling{asker: revocation.NewAsker(revocation.Config{TLS: ClientTLS(nil), Dialer: to}, stapleTimeout, time.Now)}
}

// to returns what is to be stapled to a host's certificate. It waits for nothing.
func (s *stapling) to(host string, c *certmagic.Certificate) []byte {
	if known, ok := s.words.Load(c.Hash()); ok {
		return known.(*stapled).current(time.Now())
	}
	if wake, ok := s.wakes.Load(host); ok { // it has just been renewed
		select {
		case wake.(chan struct{}) <- struct{}{}:
		default:
		}
	}
	return nil
}

// own returns a host's certificate, of several the one that ends last.
func (k *keeping) own(host string) (certmagic.Certificate, bool) {
	all := slices.DeleteFunc(k.cache.AllMatchingCertificates(host), func(c certmagic.Certificate) bool {
		return c.Leaf == nil || !slices.Contains(c.Names, host)
	})
	if len(all) == 0 {
		return certmagic.Certificate{}, false
	}
	return slices.MaxFunc(all, func(a, b certmagic.Certificate) int { return a.Leaf.NotAfter.Compare(b.Leaf.NotAfter) }), true
}

// attendance is what is done about the word for one host's certificate.
type attendance struct {
	m    *managed
	k    *keeping
	host string

	of      string    // Hash of the certificate
	due     time.Time // when a word is to be had again; zero: never, for this certificate
	failed  int       // times in a row that there was no good one
	revoked bool      // the last one was that the certificate is revoked
}

// staple keeps a current word with a host's certificate, until ctx ends. Each host has its own, so that none waits for another's
// responder.
func (m *managed) staple(ctx context.Context, k *keeping, host string) {
	wake := make(chan struct{}, 1)
	k.staples.wakes.Store(host, wake)
	defer k.staples.wakes.CompareAndDelete(host, wake)
	a := &attendance{m: m, k: k, host: host}
	defer func() { k.staples.words.Delete(a.of) }()
	for ctx.Err() == nil {
		a.look(ctx)
		wait := cmp.Or(m.c.CheckEvery, certmagic.DefaultRenewCheckInterval) // a renewal that nobody has been served yet
		if !a.due.IsZero() {
			wait = min(wait, time.Until(a.due))
		}
		select {
		case <-time.After(wait):
		case <-wake:
		case <-ctx.Done():
		}
	}
}

// look gets a word where one is due.
func (a *attendance) look(ctx context.Context) {
	c, ok := a.k.own(a.host)
	overdue := !a.due.IsZero() && !time.Now().Before(a.due)
	another := c.Hash() != a.of && !a.revoked // what replaces a revoked one has its turn: else each could be replaced at once
	switch {
	case !ok:
		a.due = time.Time{}
		return
	case !another && !overdue:
		return
	}
	if c.Hash() != a.of {
		a.k.staples.words.Delete(a.of)
		a.of = c.Hash()
		if !a.revoked {
			a.failed = 0
		}
	}
	issuer := a.begin(&c)
	if issuer == nil {
		a.due, a.revoked = time.Time{}, false
		return
	}
	w := a.ask(ctx, &c, issuer)
	if w == nil {
		a.due = time.Now().Add(min(stapleRetry<<min(a.failed, 10), stapleMaxWait))
		a.failed++
		return
	}
	a.due, a.failed = half(w), 0
	if soon := time.Now().Add(stapleRetry); a.due.Before(soon) {
		a.due = soon
	}
}

// begin notes that a certificate is seen to, and returns whose word it takes; nil where there is none.
func (a *attendance) begin(c *certmagic.Certificate) *x509.Certificate {
	known := a.known()
	known.named = c.Lifetime() >= stapleLifetime && len(c.Certificate.Certificate) > 1 && revocation.Names(c.Leaf)
	a.k.staples.words.Store(a.of, &known)
	if !known.named {
		return nil
	}
	issuer, err := x509.ParseCertificate(c.Certificate.Certificate[1])
	if err != nil {
		return nil
	}
	return issuer
}

func (a *attendance) known() stapled {
	if known, ok := a.k.staples.words.Load(a.of); ok {
		return *known.(*stapled)
	}
	return stapled{}
}

// half is when half of the time is over for which a word is gone by: the next one is asked for.
func half(w *revocation.Word) time.Time { return w.Made.Add(w.Until.Sub(w.Made) / 2) }

// take has a word served, unless a newer one is known, and reports whether it is good.
func (a *attendance) take(w *revocation.Word) bool {
	if before := a.known().word; before != nil && (w.Made.Before(before.Made) || before.Revoked && !w.Made.After(before.Made)) {
		return false
	}
	a.k.staples.words.Store(a.of, &stapled{word: w, named: true})
	return w.Good
}

// ask has a good word taken, from the storage or from the responder; nil where there is none.
func (a *attendance) ask(ctx context.Context, c *certmagic.Certificate, issuer *x509.Certificate) *revocation.Word {
	asker, key := a.k.staples.asker, "staples/"+certmagic.StorageKeys.Safe(a.host)
	if der, err := a.m.storage.Load(ctx, key); err == nil { // of another instance, or of before a restart
		if w, _ := asker.Read(der, c.Leaf, issuer); w != nil && a.take(w) && time.Now().Before(half(w)) {
			a.revoked = false
			return w
		}
	}
	w, result := asker.Ask(ctx, c.Leaf, issuer)
	good := w != nil && a.take(w)
	if ctx.Err() != nil {
		return nil
	}
	a.revoked = w != nil && w.Revoked
	switch {
	case a.revoked:
		a.m.replace(ctx, a.k, a.host, *c)
	case !good:
		a.m.log.Warn("no OCSP response to staple", zap.String("host", a.host), zap.String("result", result))
	default:
		if err := a.m.storage.Store(ctx, key, w.DER); err != nil && ctx.Err() == nil {
			a.m.log.Warn("an OCSP response is not kept", zap.String("host", a.host), zap.Error(err))
		}
		return w
	}
	return nil
}

// replace has another certificate issued in the place of one that its authority has revoked, once for all instances.
func (m *managed) replace(ctx context.Context, k *keeping, host string, old certmagic.Certificate) {
	m.log.Error("the authority has revoked a certificate: another one is ordered", zap.String("host", host), zap.String("serial", old.Leaf.SerialNumber.Text(16)))
	lock := "replace_" + certmagic.StorageKeys.Safe(host)
	if err := m.storage.Lock(ctx, lock); err != nil {
		m.log.Error("a revoked certificate is not replaced", zap.String("host", host), zap.Error(err))
		return
	}
	defer m.storage.Unlock(context.WithoutCancel(ctx), lock) //nolint:errcheck // it ends by itself
	current, err := k.config.CacheManagedCertificate(ctx, host)
	if err == nil && current.Hash() == old.Hash() {
		if err = k.config.RenewCertSync(ctx, host, true); err == nil {
			current, err = k.config.CacheManagedCertificate(ctx, host)
		}
	}
	switch {
	case m.abandoned(ctx, k, host):
	case err != nil:
		m.log.Error("a revoked certificate is not replaced", zap.String("host", host), zap.Error(err))
	case current.Hash() != old.Hash():
		k.cache.Remove([]string{old.Hash()})
	}
}

// hostCollector is the gauges of the certificates of hosts, as they are when they are collected.
type hostCollector struct{ g *Gateway }

var (
	presentDesc = prometheus.NewDesc("cardstile_certificate_present", "1 while a host of the configuration has a certificate, 0 while it has none and its callers are refused.", []string{"host"}, nil)
	stapledDesc = prometheus.NewDesc("cardstile_certificate_staple_current", "1 while a current OCSP response is served with a host's certificate, 0 while there is none. Only of certificates that name a responder.", []string{"host"}, nil)
)

// Describe implements prometheus.Collector.
func (c hostCollector) Describe(to chan<- *prometheus.Desc) {
	to <- presentDesc
	to <- stapledDesc
}

// Collect implements prometheus.Collector.
func (c hostCollector) Collect(to chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, host string, is bool) {
		value := 0.0
		if is {
			value = 1
		}
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, host)
	}
	for _, host := range hosts(c.g.state.Load().config.Listeners) {
		_, has := c.g.managed.ends(host)
		gauge(presentDesc, host, has)
		if current, named := c.g.managed.stapled(host); named {
			gauge(stapledDesc, host, current)
		}
	}
}

// stapled reports whether a host's certificate names a responder, and its word is served.
func (m *managed) stapled(host string) (current, named bool) {
	k := m.running.Load()
	if k == nil {
		return false, false
	}
	if c, ok := k.own(host); ok {
		if known, ok := k.staples.words.Load(c.Hash()); ok {
			return known.(*stapled).current(time.Now()) != nil, known.(*stapled).named
		}
	}
	return false, false
}
