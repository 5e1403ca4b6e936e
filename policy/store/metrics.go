package store

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// operation is a method of Store: a label, so the set is closed.
type operation uint8

const (
	opMint operation = iota + 1
	opRedeem
	opOnce
	opBegin
	opFinish
	opAbandon
	opPut
	opGet
	opDelete
	opTake
	opShared
	opRaise
	opFiles
	opLock
	opReady
	operations
)

var operationNames = [operations]string{
	opMint: "mint", opRedeem: "redeem", opOnce: "once", opBegin: "begin", opFinish: "finish", opAbandon: "abandon",
	opPut: "put", opGet: "get", opDelete: "delete", opTake: "take", opShared: "shared", opRaise: "raise", opFiles: "files", opLock: "lock", opReady: "ready",
}

func (o operation) String() string { return operationNames[o] }

// result is how an operation ended: a label, so the set is closed.
type result uint8

const (
	resultOK result = iota
	resultLimited
	resultUnknown
	resultSpent
	resultExpired
	resultFenced
	resultExists
	resultReplayed
	resultInFlight
	resultOtherBody
	resultTombstone
	resultLost
	resultInvalid
	resultUnavailable
	results
)

var resultNames = [results]string{
	resultOK: "ok", resultLimited: "limited", resultUnknown: "unknown", resultSpent: "spent", resultExpired: "expired",
	resultFenced: "fenced", resultExists: "exists", resultReplayed: "replayed", resultInFlight: "in_flight",
	resultOtherBody: "other_body", resultTombstone: "tombstone", resultLost: "lost", resultInvalid: "invalid", resultUnavailable: "unavailable",
}

func resultOf(err error) result {
	switch err { // the sentinels are returned as they are: no errors.Is on the way of a request
	case nil:
		return resultOK
	case ErrUnknown:
		return resultUnknown
	case ErrSpent:
		return resultSpent
	case ErrExpired:
		return resultExpired
	case ErrFenced:
		return resultFenced
	case ErrExists:
		return resultExists
	case ErrInFlight:
		return resultInFlight
	case ErrOtherBody:
		return resultOtherBody
	case ErrTombstone:
		return resultTombstone
	case ErrLost:
		return resultLost
	}
	if _, ok := err.(*Spent); ok {
		return resultSpent
	}
	if errors.Is(err, ErrInvalid) {
		return resultInvalid
	}
	return resultUnavailable
}

// durationBuckets reach from what memory needs to what a time-out allows, in seconds.
var durationBuckets = []float64{
	1e-6, 5e-6, 25e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5,
}

// meter is the metrics that both stores have. Safe for concurrent use.
type meter struct {
	store    string
	duration *prometheus.HistogramVec // by operation, result
	failures *prometheus.CounterVec   // by reason

	// observers are the histograms by operation and result, looked up when first needed.
	observers [operations][results]atomic.Pointer[prometheus.Observer]
}

func newMeter(store string) *meter {
	labels := prometheus.Labels{"store": store}
	return &meter{
		store: store,
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:        "cardstile_store_duration_seconds",
			Help:        "How long operations of the store took, by operation and result.",
			ConstLabels: labels, Buckets: durationBuckets,
		}, []string{"operation", "result"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name:        "cardstile_store_failures_total",
			Help:        "Operations that the store could not answer, by reason.",
			ConstLabels: labels,
		}, []string{"reason"}),
	}
}

// observe counts an operation that began at start and ended now.
func (m *meter) observe(op operation, res result, err error, start time.Time) {
	slot := &m.observers[op][res]
	o := slot.Load()
	if o == nil {
		observer := m.duration.WithLabelValues(op.String(), resultNames[res])
		o = &observer
		slot.Store(o)
	}
	(*o).Observe(time.Since(start).Seconds())
	if res == resultUnavailable {
		reason := ReasonReply
		if u, ok := errors.AsType[*Unavailable](err); ok {
			reason = u.Reason
		}
		m.failures.WithLabelValues(string(reason)).Inc()
	}
}

// done is observe for an operation whose error is its result.
func (m *meter) done(op operation, err error, start time.Time) {
	m.observe(op, resultOf(err), err, start)
}

func (m *meter) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.duration, m.failures}
}
