package gateway_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cardstile/cardstile/policy/store"
)

// asked is a store that counts in a new label each time that it is asked whether it is ready.
type asked struct {
	store.Store
	counts *prometheus.CounterVec
	times  *atomic.Int64
}

func (a asked) Ready(context.Context) error {
	a.counts.WithLabelValues("ready", strconv.FormatInt(a.times.Add(1), 10)).Inc()
	return nil
}

// TestScrapeEnds: asking whether the store is ready observes metrics of the store, while others of them are collected.
func TestScrapeEnds(t *testing.T) {
	counts := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "asked_total", Help: "Asked."}, []string{"what", "n"})
	for i := range 5000 { // more than a scrape takes up before it writes
		counts.WithLabelValues("other", strconv.Itoa(i))
	}
	h := newHouse(t, options{store: func(s store.Store) store.Store { return asked{s, counts, new(atomic.Int64)} }})
	registry := prometheus.NewRegistry()
	registry.MustRegister(counts)
	registry.MustRegister(h.gateway.Collectors()...)
	for range 20 {
		done := make(chan error, 1)
		go func() { _, err := registry.Gather(); done <- err }()
		select {
		case err := <-done:
			must(err)
		case <-time.After(time.Minute):
			t.Fatal("a scrape does not end")
		}
	}
}
