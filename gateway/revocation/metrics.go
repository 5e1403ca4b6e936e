package revocation

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are those of all Checkers of a process. Labels come from closed sets: a list's is its place in the configuration.
type Metrics struct {
	fetches, files, cache, ocsp, passed *prometheus.CounterVec
}

// NewMetrics returns metrics, to be registered once.
func NewMetrics() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &Metrics{
		fetches: counter("cardstile_revocation_fetches_total", "Fetches of revocation lists from URLs, by list (its place in the configuration) and result.", "listener", "list", "result"),
		files:   counter("cardstile_revocation_files_total", "Revocation lists in files that were new at a start or reload, by list (its place in the configuration) and what came of them.", "listener", "list", "result"),
		cache:   counter("cardstile_revocation_cache_total", "Reads and writes of revocation lists that are kept for the next start, by list (its place in the configuration) and result.", "listener", "list", "result"),
		ocsp:    counter("cardstile_revocation_ocsp_total", "Questions to OCSP responders, by what came of them.", "listener", "result"),
		passed:  counter("cardstile_revocation_passed_total", "Times that a certificate passed of which nobody said whether it is revoked, since soft is configured.", "listener", "by"),
	}
}

// Collectors are registered by main.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.fetches, m.files, m.cache, m.ocsp, m.passed}
}

// begin has what a Checker may count begin at zero, so that the first one shows as an increase.
func (m *Metrics) begin(c *Checker) {
	listener := c.config.Listener
	if len(c.lists) > 0 {
		m.passed.WithLabelValues(listener, byList)
	}
	for _, s := range c.lists {
		if s.url == nil {
			for _, result := range fileResults {
				m.files.WithLabelValues(listener, listLabel(s.index), result)
			}
			continue
		}
		for _, result := range fetchResults {
			m.fetches.WithLabelValues(listener, listLabel(s.index), result)
		}
		for _, result := range cacheResults {
			if c.config.Cache != "" {
				m.cache.WithLabelValues(listener, listLabel(s.index), result)
			}
		}
	}
	if c.ocsp == nil {
		return
	}
	m.passed.WithLabelValues(listener, byOCSP)
	for _, result := range ocspResults {
		m.ocsp.WithLabelValues(listener, result)
	}
}

// By what a certificate passed, as labels.
const (
	byList = "crl"
	byOCSP = "ocsp"
)

func listLabel(index int) string { return strconv.Itoa(index) }
