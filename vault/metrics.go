package vault

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics holds every counter resolved: nothing is looked up per request.
type metrics struct {
	opens   *prometheus.CounterVec
	reseals *prometheus.CounterVec
	holds   *prometheus.CounterVec
	rsa     prometheus.Histogram
	queue   prometheus.GaugeFunc

	openOK, openFailed, openBusy, openCanceled prometheus.Counter
	weak                                       prometheus.Counter
	reseal                                     [fields][directions]resealCounters
}

type resealCounters struct{ ok, failed prometheus.Counter }

func newMetrics(places func() float64) *metrics {
	m := &metrics{
		opens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cardstile_vault_opens_total",
			Help: "Sessions opened, by result: ok, failed, busy (no place in the queue, or the deadline passed in it), canceled.",
		}, []string{"result"}),
		reseals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cardstile_vault_reseals_total",
			Help: "Fields taken from one leg to the other, by result: ok, failed, weak (a PIN).",
		}, []string{"field", "direction", "result"}),
		holds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cardstile_vault_holds_total",
			Help: "Parts of cards sealed for the store (pan, cvc, expiry, name), and whole ones (card), by result: ok, failed.",
		}, []string{"part", "result"}),
		rsa: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "cardstile_vault_rsa_duration_seconds",
			Help:    "Duration of one RSA private-key operation, without the wait for it.",
			Buckets: []float64{.00025, .0005, .001, .0015, .002, .003, .005, .01, .02, .05, .1},
		}),
		queue: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "cardstile_vault_rsa_queue",
			Help: "Places for the RSA operation that are reserved, waiting or running.",
		}, places),
	}
	m.openOK, m.openFailed = m.opens.WithLabelValues("ok"), m.opens.WithLabelValues("failed")
	m.openBusy, m.openCanceled = m.opens.WithLabelValues("busy"), m.opens.WithLabelValues("canceled")
	for f := FieldPAN; f < fields; f++ {
		for d := ToIssuer; d < directions; d++ {
			m.reseal[f][d] = resealCounters{
				ok:     m.reseals.WithLabelValues(f.String(), d.String(), "ok"),
				failed: m.reseals.WithLabelValues(f.String(), d.String(), "failed"),
			}
		}
	}
	m.weak = m.reseals.WithLabelValues(FieldPIN.String(), ToIssuer.String(), "weak")
	return m
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.opens, m.reseals, m.holds, m.rsa, m.queue}
}

func (m *metrics) opened(err error) {
	switch {
	case err == nil:
		m.openOK.Inc()
	case errors.Is(err, ErrBusy):
		m.openBusy.Inc()
	case errors.Is(err, context.Canceled):
		m.openCanceled.Inc()
	default:
		m.openFailed.Inc()
	}
}

func (m *metrics) resealed(f Field, d Direction, err error) {
	switch c := &m.reseal[f][d]; {
	case err == nil:
		c.ok.Inc()
	case errors.Is(err, ErrWeakPIN):
		m.weak.Inc()
	default:
		c.failed.Inc()
	}
}

// holderMetrics are resolved for the first holder: a process that holds nothing exposes none.
type holderMetrics struct {
	fields  [fields]holdCounters
	details [details]holdCounters
	cards   holdCounters
}

type holdCounters struct{ ok, failed prometheus.Counter }

func (m *metrics) holder() *holderMetrics {
	of := func(part string) holdCounters {
		return holdCounters{ok: m.holds.WithLabelValues(part, "ok"), failed: m.holds.WithLabelValues(part, "failed")}
	}
	h := &holderMetrics{cards: of(cardPart)}
	for f := Field(1); f < fields; f++ {
		if holdable(f) {
			h.fields[f] = of(f.String())
		}
	}
	for d := Detail(1); d < details; d++ {
		h.details[d] = of(d.String())
	}
	return h
}

func (c holdCounters) count(err error) {
	if err == nil {
		c.ok.Inc()
	} else {
		c.failed.Inc()
	}
}
