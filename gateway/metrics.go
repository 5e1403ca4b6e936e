package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/revocation"
	"github.com/cardstile/cardstile/policy"
)

// outcomeKinds sizes the table of an endpoint's counters.
var outcomeKinds [exchange.KindCount]struct{}

// Stages of an exchange, as labels.
const (
	stageAdmit = iota
	stageParse
	stageProve
	stageDecide
	stageMint
	stageOpen
	stageIssuer
	stageRecord
	stageRender
	stages
)

var stageNames = [stages]string{"admit", "parse", "prove", "decide", "mint", "open", "issuer", "record", "render"}

// fast are buckets for what takes microseconds to milliseconds, slow for what goes over a network; in seconds.
var (
	fast = []float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, 1}
	slow = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
)

const (
	expiryName = "cardstile_certificate_expiry_timestamp_seconds"
	expiryHelp = "When a certificate ends, in Unix seconds; with the host where it is one that is obtained and renewed. Of authorities of client certificates the first to end."
)

var expiryLabels = []string{"listener", "kind", "host"}

// metrics are the gateway's own. Labels come from closed sets: names of the configuration and of the code, never ids.
type metrics struct {
	exchanges         *prometheus.CounterVec
	duration          *prometheus.HistogramVec
	stageDurations    *prometheus.HistogramVec
	stages            [stages]prometheus.Observer
	handshakes        *prometheus.CounterVec
	handshakeFailures *prometheus.CounterVec
	connections       *prometheus.GaugeVec
	minted, redeemed  prometheus.Counter
	refused           *prometheus.CounterVec
	credentials       *prometheus.CounterVec
	taken             *prometheus.CounterVec
	burned            *prometheus.CounterVec
	replays           *prometheus.CounterVec
	replayed          *prometheus.CounterVec
	issuerDuration    *prometheus.HistogramVec
	issuerCircuit     *prometheus.GaugeVec
	shed              *prometheus.CounterVec
	limited           *prometheus.CounterVec
	preflights        *prometheus.CounterVec
	violations        *prometheus.CounterVec
	egressBlocked     *prometheus.CounterVec
	misdirected       *prometheus.CounterVec
	claims            *prometheus.CounterVec
	inFlight          *prometheus.GaugeVec
	expiry            *prometheus.GaugeVec
	orders            *prometheus.CounterVec
	reloads           *prometheus.CounterVec
	lastReload        prometheus.Gauge
	revocation        *revocation.Metrics
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		exchanges:         counter("cardstile_exchanges_total", "Exchanges that ended, by how they ended: done, or the kind of failure.", "face", "operation", "outcome"),
		duration:          histogram("cardstile_exchange_duration_seconds", "From the request's header to the answer.", slow, "face", "operation"),
		stageDurations:    histogram("cardstile_stage_duration_seconds", "Time spent in each stage of an exchange.", fast, "stage"),
		handshakes:        counter("cardstile_handshakes_total", "TLS handshakes that succeeded, by the group of their key exchange: X25519MLKEM768 is post-quantum.", "listener", "version", "group"),
		handshakeFailures: counter("cardstile_handshake_failures_total", "TLS handshakes that failed.", "listener", "reason"),
		connections:       gauge("cardstile_connections", "Connections that are open.", "listener"),
		minted:            prometheus.NewCounter(prometheus.CounterOpts{Name: "cardstile_tokens_minted_total", Help: "Single-use tokens minted."}),
		redeemed:          prometheus.NewCounter(prometheus.CounterOpts{Name: "cardstile_tokens_redeemed_total", Help: "Single-use tokens used up."}),
		refused:           counter("cardstile_tokens_refused_total", "Single-use tokens refused.", "reason"),
		credentials:       counter("cardstile_credentials_minted_total", "Credentials minted beside single-use tokens: sessions (access tokens, logins), sessions of hosted fields, and challenges.", "kind"),
		taken:             counter("cardstile_credentials_taken_total", "Refresh tokens and challenges that were presented, by whether they were used up or why not.", "kind", "result"),
		burned:            counter("cardstile_credentials_burned_total", "Exchanges that used a single-use credential up and gave no answer for it, by why: the kind of failure, or not_taken where the caller was gone.", "cause"),
		replays:           counter("cardstile_replays_total", "Credentials that are good once and were presented again: another exchange had used them up.", "kind"),
		replayed:          counter("cardstile_idempotent_replays_total", "Calls that were answered with what their first one was answered.", "face", "operation"),
		issuerDuration:    histogram("cardstile_issuer_duration_seconds", "Round trips to issuers.", slow, "issuer", "call", "result"),
		issuerCircuit:     gauge("cardstile_issuer_open_circuit", "1 while an issuer is not called because it kept failing.", "issuer"),
		shed:              counter("cardstile_shed_total", "Exchanges turned away because of load; nothing was spent.", "limit"),
		limited:           counter("cardstile_limited_total", "Exchanges beyond a rate limit.", "limit"),
		preflights:        counter("cardstile_preflights_total", "CORS preflights, by whether the page's origin may call.", "face", "result"),
		violations:        counter("cardstile_page_violations_total", "What browsers reported of our pages: attempts that their content security policy stopped.", "directive"),
		egressBlocked:     counter("cardstile_egress_blocked_total", "Answers of issuers that held a card number where none was declared. Nothing of them was released.", "issuer"),
		misdirected:       counter("cardstile_misdirected_total", "Requests refused for the host that they name: 400 where it is malformed, else 421.", "listener", "reason"),
		claims:            counter("cardstile_claims_dropped_total", "Requests that had header fields which claim a client certificate. The fields were dropped.", "listener"),
		inFlight:          gauge("cardstile_in_flight", "Exchanges in flight, as each limit counts them.", "limit"),
		expiry:            gauge(expiryName, expiryHelp, expiryLabels...),
		orders:            counter("cardstile_certificate_orders_total", "Certificates of hosts that were asked for, by whether the authority issued them.", "host", "operation", "result"),
		reloads:           counter("cardstile_config_reloads_total", "Reloads of the configuration.", "result"),
		lastReload:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "cardstile_config_last_reload_success_timestamp_seconds", Help: "When the configuration in force was loaded, in Unix seconds."}),
		revocation:        revocation.NewMetrics(),
	}
	for i, name := range stageNames {
		m.stages[i] = m.stageDurations.WithLabelValues(name)
	}
	for _, limit := range []string{"global", "issuer", "partner", "rsa", "circuit"} {
		m.shed.WithLabelValues(limit)
	}
	for _, reason := range []string{
		policy.RefusedMalformed, policy.RefusedUnknown, policy.RefusedSpent, policy.RefusedExpired, policy.RefusedFenced, policy.RefusedRevoked,
		policy.RefusedPartner, policy.DeniedBound, policy.DeniedUnboundToken,
	} {
		m.refused.WithLabelValues(reason) // from zero, so that the first one shows as an increase
	}
	for _, kind := range []string{mintedSession, mintedFields, mintedChallenge} {
		m.credentials.WithLabelValues(kind)
	}
	for _, kind := range []policy.Kind{policy.KindRefresh, policy.KindChallenge} {
		m.taken.WithLabelValues(string(kind), "taken")
		m.taken.WithLabelValues(string(kind), policy.RefusedSpent)
	}
	for _, kind := range []policy.Kind{policy.KindToken, policy.KindCardToken, policy.KindRefresh, policy.KindChallenge, replayedEnvelope} {
		m.replays.WithLabelValues(string(kind))
	}
	m.violations.WithLabelValues("script-src-elem")
	for _, kind := range []exchange.Kind{exchange.Internal, exchange.Unavailable, exchange.IssuerFailed, exchange.IssuerTimeout, exchange.OutcomeUnknown} {
		m.burned.WithLabelValues(kind.String())
	}
	m.burned.WithLabelValues(burnedLost)
	m.reloads.WithLabelValues("ok")
	m.reloads.WithLabelValues("failed")
	m.lastReload.SetToCurrentTime()
	return m
}

// Collectors are registered by main.
func (g *Gateway) Collectors() []prometheus.Collector {
	m := g.metrics
	return append(m.revocation.Collectors(),
		m.exchanges, m.duration, m.stageDurations, m.handshakes, m.handshakeFailures, m.connections, m.minted, m.redeemed, m.refused, m.credentials, m.taken, m.burned, m.replays, m.replayed,
		m.issuerDuration, m.issuerCircuit, m.shed, m.limited, m.preflights, m.violations, m.egressBlocked, m.misdirected, m.claims, m.inFlight, m.orders, m.reloads, m.lastReload,
		readyCollector{g}, standingCollector{g}, partnerExpiryCollector{g}, expiryCollector{g}, hostCollector{g}, revocationCollector{g},
	)
}

// readyCollector asks whether answers can be released when it is collected, and not, as a GaugeFunc would, when what was collected
// is written: asking observes metrics of the store, which another collector may hold until somebody takes its next one, and who
// writes takes none meanwhile. The scrape would never end.
type readyCollector struct{ g *Gateway }

var readyDesc = prometheus.NewDesc("cardstile_ready", "1 while answers can be released.", nil, nil)

// Describe implements prometheus.Collector.
func (readyCollector) Describe(to chan<- *prometheus.Desc) { to <- readyDesc }

// Collect implements prometheus.Collector.
func (c readyCollector) Collect(to chan<- prometheus.Metric) {
	to <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, c.g.readiness())
}

// stage notes how long the stage that ends now took.
func (x *running) stage(which int) {
	now := time.Now()
	x.g.metrics.stages[which].Observe(now.Sub(x.mark).Seconds())
	x.mark = now
}

// What is minted beside tokens, as labels.
const (
	mintedSession   = "session"
	mintedFields    = "fields"
	mintedChallenge = "challenge"
)

// tookOnce counts a credential that can be used once, other than a token.
func (m *metrics) tookOnce(kind policy.Kind, err error) {
	result := "taken"
	var refused *policy.Refused
	switch {
	case errors.As(err, &refused):
		result = refused.Reason
	case err != nil:
		result = "failed"
	}
	m.taken.WithLabelValues(string(kind), result).Inc()
}

// counted resolves what exchanges of one face and operation are counted in.
func (m *metrics) counted(face, operation string) *counted {
	c := &counted{
		done:     m.exchanges.WithLabelValues(face, operation, "done"),
		duration: m.duration.WithLabelValues(face, operation),
	}
	for kind := range c.outcomes {
		if exchange.Kind(kind) != exchange.NoRoute { // what reaches an endpoint has a route
			c.outcomes[kind] = m.exchanges.WithLabelValues(face, operation, exchange.Kind(kind).String())
		}
	}
	return c
}

func (m *metrics) reloaded() {
	m.reloads.WithLabelValues("ok").Inc()
	m.lastReload.SetToCurrentTime()
}

func (m *metrics) circuit(issuer string, open bool) {
	value := 0.0
	if open {
		value = 1
	}
	m.issuerCircuit.WithLabelValues(issuer).Set(value)
}

// certificates publishes when the listeners' certificates end, and the operators'.
func (m *metrics) certificates(c Config) {
	m.expiry.Reset()
	for _, l := range c.Listeners {
		m.certificatesOf(l.Name, l.Certificate, l.ClientCAsEnd)
	}
	if c.Admin.TLS != nil {
		for _, own := range c.Admin.TLS.Certificates {
			m.certificatesOf(AdminListener, own, c.Admin.ClientCAsEnd)
		}
	}
}

func (m *metrics) certificatesOf(listener string, own tls.Certificate, clientCAsEnd time.Time) {
	for i, der := range own.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			continue // it was parsed when it was loaded
		}
		kind := "server"
		if i > 0 {
			kind = "chain"
		}
		m.expiry.WithLabelValues(listener, kind, "").Set(float64(c.NotAfter.Unix()))
	}
	if !clientCAsEnd.IsZero() {
		m.expiry.WithLabelValues(listener, "client_ca", "").Set(float64(clientCAsEnd.Unix()))
	}
}

// expiryCollector is the gauge of when certificates end: those of files, which it is told, and those of hosts, as they are when
// it is collected.
type expiryCollector struct{ g *Gateway }

var expiryDesc = prometheus.NewDesc(expiryName, expiryHelp, expiryLabels, nil)

// Describe implements prometheus.Collector.
func (c expiryCollector) Describe(to chan<- *prometheus.Desc) { to <- expiryDesc }

// Collect implements prometheus.Collector.
func (c expiryCollector) Collect(to chan<- prometheus.Metric) {
	c.g.metrics.expiry.Collect(to)
	for _, l := range c.g.state.Load().config.Listeners {
		for _, host := range l.Hosts {
			if end, ok := c.g.managed.ends(host); ok {
				to <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(end.Unix()), l.Name, "server", host)
			}
		}
	}
}
