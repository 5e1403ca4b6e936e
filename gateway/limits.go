package gateway

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cardstile/cardstile/policy"
)

// Limits bound what callers can take. Zero means the default that WithDefaults fills in.
type Limits struct {
	// Partner and Card are rates of exchanges that were permitted; zero is no limit.
	Partner policy.Rate
	Card    policy.Rate
	// Credential is the rate of each credential that can be shown again, counted when it has been proven and before anything
	// is spent; zero is no limit.
	Credential policy.Rate
	// PINReveal and PINSet are rates of what is done to the PIN of one card [14].
	PINReveal, PINSet policy.Rate
	// FailedOpens is the rate of session preambles that do not open, per partner, user and card [18].
	FailedOpens policy.Rate
	// Unproven is the rate of exchanges without an accepted credential, per address and process. Beyond it the address is
	// turned away, and its exchanges are counted rather than recorded. A certificate that is refused is none; who has a good one
	// is not turned away.
	Unproven policy.Rate

	// Anonymous is the rate of exchanges that show no credential and that a policy permits, per address, on all instances.
	Anonymous policy.Rate
	// Page is the rate of calls in one session of hosted fields, User that of challenges for a user's wallet and of cards that the
	// user brings.
	Page, User policy.Rate
	// Login is the rate at which each service account or user logs in: what is kept of a login stays for weeks.
	Login policy.Rate

	HeaderBytes int // of one request, request line included
	BodyBytes   int // of one request
	AnswerBytes int // of one issuer's answer

	Handshake time.Duration // from accepted to verified
	Read      time.Duration // a whole request, from its first byte
	Write     time.Duration // from the end of the request's header to the end of the answer
	Idle      time.Duration // between requests
	Exchange  time.Duration // all stages of one exchange

	Connections          int // per listener; beyond, new ones wait in the kernel's queue
	Concurrent           int // exchanges in this process
	ConcurrentPerIssuer  int
	ConcurrentPerPartner int
}

// WithDefaults returns l with zeroes replaced.
func (l Limits) WithDefaults() Limits {
	number := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	duration := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	rate := func(v *policy.Rate, count int, per time.Duration) {
		if v.IsZero() {
			*v = policy.Rate{Count: count, Per: per}
		}
	}
	rate(&l.FailedOpens, 60, time.Minute)
	rate(&l.PINReveal, 120, time.Hour)
	rate(&l.PINSet, 60, time.Hour)
	rate(&l.Unproven, 6000, time.Minute)
	rate(&l.Anonymous, 120, time.Minute)
	rate(&l.Login, 300, time.Minute)
	rate(&l.Page, 60, time.Minute)
	rate(&l.User, 30, time.Minute)
	number(&l.HeaderBytes, 16<<10)
	number(&l.BodyBytes, 64<<10)
	number(&l.AnswerBytes, 256<<10)
	duration(&l.Handshake, 5*time.Second)
	duration(&l.Read, 10*time.Second)
	duration(&l.Write, 30*time.Second)
	duration(&l.Idle, 90*time.Second)
	duration(&l.Exchange, 15*time.Second)
	number(&l.Connections, 10_000)
	number(&l.Concurrent, 1024)
	number(&l.ConcurrentPerIssuer, 512)
	number(&l.ConcurrentPerPartner, 256)
	return l
}

// slots bounds how many exchanges hold something at once. It never waits: who finds it full is shed.
type slots struct {
	max   atomic.Int64
	used  atomic.Int64
	gauge prometheus.Gauge
}

func (s *slots) take() bool {
	if s.used.Add(1) > s.max.Load() {
		s.used.Add(-1)
		return false
	}
	s.gauge.Inc()
	return true
}

func (s *slots) give() {
	s.used.Add(-1)
	s.gauge.Dec()
}

// slotSet keeps the counts of what is in flight across reloads: a new configuration changes the bounds, not the load.
type slotSet struct {
	metrics *metrics
	global  *slots

	mu       sync.Mutex
	issuers  map[string]*slots
	partners map[string]*slots
}

func newSlotSet(m *metrics) *slotSet {
	return &slotSet{
		metrics: m, global: &slots{gauge: m.inFlight.WithLabelValues("global")},
		issuers: map[string]*slots{}, partners: map[string]*slots{},
	}
}

func (s *slotSet) issuer(name string) *slots {
	return s.named(s.issuers, name, s.metrics.inFlight.WithLabelValues("issuer"))
}

func (s *slotSet) partner(name string) *slots {
	return s.named(s.partners, name, s.metrics.inFlight.WithLabelValues("partner"))
}

func (s *slotSet) named(in map[string]*slots, name string, gauge prometheus.Gauge) *slots {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot, ok := in[name]
	if !ok {
		slot = &slots{gauge: gauge}
		in[name] = slot
	}
	return slot
}

// keep forgets issuers and partners that a configuration does not name, and of which nothing is in flight.
func (s *slotSet) keep(named map[*slots]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range []map[string]*slots{s.issuers, s.partners} {
		maps.DeleteFunc(in, func(_ string, slot *slots) bool {
			_, ok := named[slot]
			return !ok && slot.used.Load() == 0
		})
	}
}

// held are the slots that one exchange holds, the process' own first.
type held struct {
	taken [3]*slots
	n     int
}

func (h *held) take(s *slots) bool {
	if !s.take() {
		return false
	}
	h.taken[h.n] = s
	h.n++
	return true
}

// keep gives all but the first n back.
func (h *held) keep(n int) {
	for h.n > n {
		h.n--
		h.taken[h.n].give()
	}
}
