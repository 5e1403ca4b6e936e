package gateway

import (
	"crypto/x509"
	"encoding/hex"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cardstile/cardstile/policy"
)

// expiryWarnings are the times before a partner's certificate ends at which the log says so, the longest first.
var expiryWarnings = [...]time.Duration{30 * day, 14 * day, 7 * day, day}

const (
	day          = 24 * time.Hour
	endedShownIn = 7 * day // how long the metric shows a certificate that ended

	maxSeenCertificates = 8192 // beyond it one makes room, and is warned of again when it comes back
)

// partnerCertificates knows with which certificate each partner was last seen, and warns of their ends: once for each
// certificate and time in expiryWarnings. It is safe for concurrent use.
type partnerCertificates struct {
	log  *zap.Logger
	last sync.Map // of *seenCertificate by partner

	mu  sync.Mutex
	all map[[32]byte]*seenCertificate // guarded by mu; without those that ended, maxSeenCertificates at most
}

type seenCertificate struct {
	fingerprint [32]byte
	end         time.Time
	subject     policy.Subject
	pin         policy.Fingerprint
	next        atomic.Int64 // when there is something to warn of, in Unix nanoseconds
	warned      int          // how many of expiryWarnings have passed; guarded by partnerCertificates.mu
}

func newPartnerCertificates(log *zap.Logger) *partnerCertificates {
	if log == nil {
		log = zap.NewNop()
	}
	return &partnerCertificates{log: log, all: map[[32]byte]*seenCertificate{}}
}

// saw notes that a partner proved itself with a certificate. It is called for each exchange, and locks only where the
// certificate is another than the last one, or there is something to warn of.
func (p *partnerCertificates) saw(partner string, fingerprint [32]byte, leaf *x509.Certificate, now time.Time) {
	if last, ok := p.last.Load(partner); ok {
		if c := last.(*seenCertificate); c.fingerprint == fingerprint && now.UnixNano() < c.next.Load() {
			return
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.all[fingerprint]
	if c == nil {
		c = &seenCertificate{fingerprint: fingerprint, end: leaf.NotAfter, pin: policy.PinOf(leaf)}
		c.subject, _ = policy.SubjectOf(leaf.RawSubject) // it was found by it
		for f, old := range p.all {
			if now.After(old.end) {
				delete(p.all, f)
			}
		}
		makeRoom(p.all, maxSeenCertificates)
		p.all[fingerprint] = c
	}
	p.last.Store(partner, c)
	p.warn(partner, c, now)
}

// warn logs where the certificate's end has come nearer than one of expiryWarnings since it last did.
func (p *partnerCertificates) warn(partner string, c *seenCertificate, now time.Time) {
	passed := 0
	for passed < len(expiryWarnings) && c.end.Sub(now) <= expiryWarnings[passed] {
		passed++
	}
	next := c.end
	if passed < len(expiryWarnings) {
		next = c.end.Add(-expiryWarnings[passed])
	}
	c.next.Store(next.UnixNano())
	if passed <= c.warned {
		return
	}
	c.warned = passed
	p.log.Warn("a partner's certificate ends soon", zap.String("partner", partner), zap.Time("end", c.end),
		zap.Int("within_days", int(expiryWarnings[passed-1]/day)), zap.String("certificate", hex.EncodeToString(c.fingerprint[:])))
}

// partnerExpiryCollector tells when the certificates end with which partners were last seen.
type partnerExpiryCollector struct{ g *Gateway }

var partnerExpiryDesc = prometheus.NewDesc("cardstile_partner_certificate_expiry_timestamp_seconds",
	"When the certificate ends with which a partner was last seen by this process, in Unix seconds.", []string{"partner"}, nil)

// Describe implements prometheus.Collector.
func (partnerExpiryCollector) Describe(to chan<- *prometheus.Desc) { to <- partnerExpiryDesc }

// Collect implements prometheus.Collector.
func (c partnerExpiryCollector) Collect(to chan<- prometheus.Metric) {
	for partner, end := range c.g.seen.ends(c.g.state.Load().config.Partners, c.g.services.Now()) {
		to <- prometheus.MustNewConstMetric(partnerExpiryDesc, prometheus.GaugeValue, float64(end.Unix()), partner)
	}
}

// ends are when the certificates end with which partners were last seen, without those that say nothing any more: of
// partners that are gone or switched off in the configuration, or whose subject or pins there are other ones, and those
// that ended long ago. What is of no partner is forgotten.
func (p *partnerCertificates) ends(partners *policy.Partners, now time.Time) map[string]time.Time {
	ends := map[string]time.Time{}
	for id, last := range p.last.Range {
		id, c := id.(string), last.(*seenCertificate)
		switch partner := partners.ByID(id); {
		case partner == nil:
			p.last.CompareAndDelete(id, last)
		case partner.Disabled, !slices.Contains(partner.Subjects, c.subject), len(partner.Pins) > 0 && !slices.Contains(partner.Pins, c.pin):
		case now.Sub(c.end) <= endedShownIn:
			ends[id] = c.end
		}
	}
	return ends
}
