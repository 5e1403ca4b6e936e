package audit

import (
	"errors"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a record could not be made durable, or its caller was not told that it is: the closed set of the label "reason".
const (
	failFull     = "full"     // no space, quota or allowed file size left
	failWrite    = "write"    // any other error of writing
	failSync     = "sync"     // of fdatasync
	failTruncate = "truncate" // of taking back what a failure left
	failRemoved  = "removed"  // the file has no name any more
	failCanceled = "canceled" // the caller's context ended; the record may be there all the same
	failClosed   = "closed"
	failInvalid  = "invalid" // an event that means nothing
)

type metrics struct {
	records  prometheus.Counter
	failures *prometheus.CounterVec
	sync     prometheus.Histogram
	batch    prometheus.Histogram
}

func newMetrics() *metrics {
	m := &metrics{
		records: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cardstile_audit_records_total",
			Help: "Audit records made durable, the log's own notes included.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cardstile_audit_failures_total",
			Help: "Audit records whose callers could not release their answer, and failed probes, by reason.",
		}, []string{"reason"}),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "cardstile_audit_sync_duration_seconds",
			Help:    "Time that one sync of the audit log took.",
			Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "cardstile_audit_batch_records",
			Help:    "Audit records that shared one write and one sync.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512},
		}),
	}
	for _, reason := range []string{failFull, failWrite, failSync, failTruncate, failRemoved, failCanceled, failClosed, failInvalid} {
		m.failures.WithLabelValues(reason)
	}
	return m
}

// Collectors returns the log's metrics, for main to register.
func (l *Log) Collectors() []prometheus.Collector {
	m := l.metrics
	return []prometheus.Collector{m.records, m.failures, m.sync, m.batch}
}

// isFull reports whether err says that there is no room: on the disk (ENOSPC), in a quota (EDQUOT) or under RLIMIT_FSIZE (EFBIG).
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
