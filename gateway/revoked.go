package gateway

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cardstile/cardstile/gateway/revocation"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// This file is where revocation reaches beyond handshakes: it is looked after while the gateway serves, and what was minted under a
// certificate is as good as that.

// checked is a listener's Checker, and whether it runs.
type checked struct {
	checker *revocation.Checker
	cancel  context.CancelFunc // nil: it does not
	ended   chan struct{}
}

func (c *checked) start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel, c.ended = cancel, make(chan struct{})
	go func() {
		defer close(c.ended)
		c.checker.Run(ctx)
	}()
}

func (c *checked) stop() {
	if c.cancel == nil {
		return
	}
	c.cancel()
	<-c.ended
	c.cancel = nil
}

// check has the Checkers of a configuration take over from those before. The caller holds reloading, or is alone.
func (g *Gateway) check(listeners []Listener) {
	before := g.checked
	g.checked = map[string]*checked{}
	for i := range listeners {
		name, checker := listeners[i].Name, listeners[i].Revocations
		old := before[name]
		switch {
		case checker == nil:
			continue
		case old != nil && old.checker == checker:
			g.checked[name] = old
			delete(before, name)
			continue
		}
		var known *revocation.Checker
		if old != nil {
			old.stop()
			known = old.checker
		}
		checker.Adopt(known, revocation.Services{Log: g.services.Log, Now: g.services.Now, Metrics: g.metrics.revocation})
		g.checked[name] = &checked{checker: checker}
		if g.attending != nil {
			g.checked[name].start()
		}
	}
	for _, old := range before {
		old.stop()
	}
}

// revokes notes who holds certificates against revocations. Virtual hosts with the same CAs say the same.
func (st *state) revokes(t *clientTrust) {
	if t != nil && t.revocations != nil && !slices.ContainsFunc(st.revoking, func(other *clientTrust) bool {
		return other.pool == t.pool && other.revocations == t.revocations
	}) {
		st.revoking = append(st.revoking, t)
	}
}

// storeCertificate is the store's kind of certificates that something was minted under, from leaf to the last intermediate: Records, by
// fingerprint. They are no secret, and sealed all the same, with the fingerprint as associated data: without its intermediates a
// certificate is nobody's, and nobody's is not judged [7].
const storeCertificate store.Kind = "certificate"

// mintedUnderLabel begins the associated data; the fingerprint follows.
const mintedUnderLabel = "cardstile minted under v1"

func mintedUnderData(fingerprint [32]byte) []byte {
	return append([]byte(mintedUnderLabel), fingerprint[:]...)
}

const (
	certificateKept  = 7 * 24 * time.Hour // since it was last noted: longer than anything that is minted lives
	certificateRenew = 10 * time.Second   // how long it is not noted again, which a failover may have lost
	maxMintedUnder   = 4096
)

// mintedUnder are the certificates that something was minted under, from leaf to the last intermediate, as far as this instance has
// seen them. Beyond maxMintedUnder something makes room, and is read from the store again. Safe for concurrent use.
type mintedUnder struct {
	mu  sync.RWMutex
	all map[[32]byte]*notedCertificate
}

type notedCertificate struct {
	presented []*x509.Certificate
	renew     time.Time // when it is to be put into the store again; zero: nobody here put it there
}

func (m *mintedUnder) get(fingerprint [32]byte) *notedCertificate {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.all[fingerprint]
}

func (m *mintedUnder) put(fingerprint [32]byte, c *notedCertificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = map[[32]byte]*notedCertificate{}
	}
	makeRoom(m.all, maxMintedUnder)
	m.all[fingerprint] = c
}

// noteCertificate has all instances know the connection's certificate before something is minted under it, where certificates are held
// against revocations.
func (x *running) noteCertificate(ctx context.Context) error {
	if len(x.st.revoking) == 0 || len(x.chain) < 2 || x.event.Certificate != x.peer.fingerprint {
		return nil
	}
	fingerprint, now := x.peer.fingerprint, x.g.services.Now()
	if known := x.g.minted.get(fingerprint); known != nil && now.Before(known.renew) {
		return nil
	}
	var der []byte
	for _, c := range x.chain[:len(x.chain)-1] {
		der = append(der, c.Raw...)
	}
	presented, err := x509.ParseCertificates(der) // and not what holds on to the handshake's message
	if err != nil {
		return fmt.Errorf("note certificate: %w", err)
	}
	sealed, err := x.st.config.Standings.Seal(nil, mintedUnderData(fingerprint), der)
	if err != nil {
		return fmt.Errorf("note certificate: %w", err)
	}
	if err := x.g.services.Store.Put(ctx, storeCertificate, fingerprint, sealed, certificateKept); err != nil {
		return fmt.Errorf("note certificate: %w", err)
	}
	x.g.minted.put(fingerprint, &notedCertificate{presented, now.Add(certificateRenew)})
	return nil
}

// mintedWith returns what a client presented who minted something.
func (x *running) mintedWith(ctx context.Context, fingerprint [32]byte) ([]*x509.Certificate, error) {
	if known := x.g.minted.get(fingerprint); known != nil {
		return known.presented, nil
	}
	sealed, err := x.g.services.Store.Get(ctx, storeCertificate, fingerprint)
	if err != nil {
		return nil, err
	}
	der, err := x.st.config.Standings.Open(nil, mintedUnderData(fingerprint), sealed)
	if err != nil {
		return nil, store.ErrUnknown // it is not what was put there
	}
	presented, err := x509.ParseCertificates(der)
	if err != nil {
		return nil, store.ErrUnknown
	}
	x.g.minted.put(fingerprint, &notedCertificate{presented: presented})
	return presented, nil
}

// unrevoked refuses what was minted under a certificate that would be refused in a handshake now, because it is revoked, nobody says
// that it is not, or it has ended; and where nobody knows the certificate any more. Where its CA was taken away, that ends what was minted
// by itself. Fails closed.
func (x *running) unrevoked(ctx context.Context, fingerprint [32]byte) error {
	if len(x.st.revoking) == 0 || fingerprint == [32]byte{} {
		return nil
	}
	presented, err := x.mintedWith(ctx, fingerprint)
	if err != nil && !errors.Is(err, store.ErrUnknown) {
		return fmt.Errorf("certificate of a token: %w", err)
	}
	if err != nil {
		return revokedToken("the certificate that it was minted under is not known")
	}
	now := x.g.services.Now()
	if slices.ContainsFunc(presented, func(c *x509.Certificate) bool { return now.After(c.NotAfter) }) {
		return revokedToken("the certificate that it was minted under, or one above it, has ended") // before, it may have been revoked
	}
	for _, t := range x.st.revoking {
		chains, err := t.verify(presented)
		if err != nil {
			continue // another listener's client
		}
		switch err := t.revocations.Any(chains, t.now()); {
		case errors.Is(err, revocation.ErrRevoked):
			return revokedToken("the certificate that it was minted under is revoked")
		case err != nil:
			return revokedToken("nobody says whether the certificate that it was minted under is revoked")
		}
	}
	return nil
}

func revokedToken(detail string) error {
	return &policy.Refused{Kind: policy.KindToken, Reason: policy.RefusedRevoked, Detail: detail}
}

// revocationCollector tells of the lists in force.
type revocationCollector struct{ g *Gateway }

var (
	listLabels      = []string{"listener", "list"}
	listCurrentDesc = prometheus.NewDesc("cardstile_revocation_list_current",
		"1 while a revocation list is current: 0 before the first one was fetched, and when its nextUpdate has passed.", listLabels, nil)
	listUpdatedDesc = prometheus.NewDesc("cardstile_revocation_list_this_update_timestamp_seconds",
		"When a revocation list was made (thisUpdate), in Unix seconds.", listLabels, nil)
	listEndDesc = prometheus.NewDesc("cardstile_revocation_list_next_update_timestamp_seconds",
		"When a revocation list ends (nextUpdate), in Unix seconds.", listLabels, nil)
	listEntriesDesc = prometheus.NewDesc("cardstile_revocation_list_entries", "Certificates that a revocation list names.", listLabels, nil)
)

// Describe implements prometheus.Collector.
func (revocationCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{listCurrentDesc, listUpdatedDesc, listEndDesc, listEntriesDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c revocationCollector) Collect(to chan<- prometheus.Metric) {
	for _, l := range c.g.state.Load().config.Listeners {
		for i, list := range l.Revocations.Lists(c.g.services.Now()) {
			gauge := func(d *prometheus.Desc, v float64) {
				to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, l.Name, strconv.Itoa(i))
			}
			current := 0.0
			if list.Current {
				current = 1
			}
			gauge(listCurrentDesc, current)
			if list.Known {
				gauge(listUpdatedDesc, float64(list.ThisUpdate.Unix()))
				gauge(listEndDesc, float64(list.NextUpdate.Unix()))
				gauge(listEntriesDesc, float64(list.Entries))
			}
		}
	}
}
