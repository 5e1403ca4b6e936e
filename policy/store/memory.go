package store

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cardstile/cardstile/policy"
)

// Defaults and bounds of MemoryConfig.
const (
	DefaultMaxEntries = 1 << 20
	DefaultMaxLimits  = 1 << 18
	DefaultMaxCalls   = 1 << 20
	maxMaxEntries     = 1 << 30
)

// MemoryConfig configures Memory. Its zero value is usable.
type MemoryConfig struct {
	// MaxEntries bounds tokens (spent ones too, until SpentFor past their expiry), marks and records together. Beyond it
	// what would add one returns ErrFull. 0: DefaultMaxEntries. An entry takes about 80 bytes and its value.
	MaxEntries int
	// MaxLimits bounds the limits that are not full, apart from MaxEntries, so that callers from many addresses cannot
	// crowd out tokens. 0: DefaultMaxLimits.
	MaxLimits int
	// MaxCalls bounds idempotent calls, tombstones among them, apart from MaxEntries too: they stay for days, and must not
	// crowd out tokens of a minute. 0: DefaultMaxCalls. One takes about 130 bytes and its answer; a tombstone 80.
	MaxCalls int
	// Now is the clock. Nil: time.Now, whose monotonic reading counts, so that a step of the wall clock neither ends nor
	// revives anything.
	Now func() time.Time
}

// Memory is the store of a single instance: in this process's memory, bounded, gone with it. A restart forgets every
// token, so that each of them is refused.
//
// It keeps no goroutine. What expires is worked off in small portions by the operations that follow, on all shards, and
// altogether when its metrics are collected or Ready is asked.
type Memory struct {
	now     func() time.Time
	start   time.Time
	shards  [memoryShards]shard
	closed  atomic.Bool
	turn    atomic.Uint32 // whose shard is tidied next, besides the operation's own
	stored  budget
	limits  budget
	calls   budget
	entries [maxClasses]entries
	shared  sharedValues
	meter   *meter

	classMu sync.Mutex // guards the making of a new map
	classes atomic.Pointer[map[class]uint8]

	full, isClosed [operations]*Unavailable // made once: a full store is asked often
}

const (
	memoryShards = 32 // a power of two
	maxClasses   = 64
	tidyOwn      = 32 // records worked off in the operation's own shard, at most
	tidyOther    = 64 // and in the next one's turn
)

// class is what a record's class byte stands for.
type class struct {
	family family
	kind   Kind
}

// family is a contract: the same kind and digest in two families are two entries. The names are the keys' of Redis.
type family string

const (
	familyToken      family = "token"
	familyOnce       family = "once"
	familyIdempotent family = "idempotent"
	familyRecord     family = "record"
	familyLimit      family = "limit"
)

// limitKind is the one kind of limits.
const limitKind Kind = "limit"

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory(c MemoryConfig) (*Memory, error) {
	if c.MaxEntries < 0 || c.MaxEntries > maxMaxEntries {
		return nil, fmt.Errorf("memory store: max entries %d: want 1 to %d, or 0 for %d", c.MaxEntries, maxMaxEntries, DefaultMaxEntries)
	}
	if c.MaxLimits < 0 || c.MaxLimits > maxMaxEntries {
		return nil, fmt.Errorf("memory store: max limits %d: want 1 to %d, or 0 for %d", c.MaxLimits, maxMaxEntries, DefaultMaxLimits)
	}
	if c.MaxCalls < 0 || c.MaxCalls > maxMaxEntries {
		return nil, fmt.Errorf("memory store: max calls %d: want 1 to %d, or 0 for %d", c.MaxCalls, maxMaxEntries, DefaultMaxCalls)
	}
	if c.MaxEntries == 0 {
		c.MaxEntries = DefaultMaxEntries
	}
	if c.MaxLimits == 0 {
		c.MaxLimits = DefaultMaxLimits
	}
	if c.MaxCalls == 0 {
		c.MaxCalls = DefaultMaxCalls
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	m := &Memory{now: c.Now, start: c.Now(), meter: newMeter("memory")}
	m.stored.max, m.limits.max, m.calls.max = int64(c.MaxEntries), int64(c.MaxLimits), int64(c.MaxCalls)
	seed := maphash.MakeSeed()
	for i := range m.shards {
		m.shards[i].slab = newSlab()
		m.shards[i].seed = seed
		m.shards[i].entries = &m.entries
	}
	for op := range operations {
		m.full[op] = &Unavailable{Store: "memory", Operation: op.String(), Reason: ReasonFull}
		m.isClosed[op] = &Unavailable{Store: "memory", Operation: op.String(), Reason: ReasonClosed}
	}
	m.classes.Store(&map[class]uint8{})
	return m, nil
}

// Mint is Tokens.Mint.
func (m *Memory) Mint(ctx context.Context, kind Kind, d Digest, value []byte, ttl time.Duration) error {
	start := time.Now()
	err := checkEntry(opMint, kind, value, ttl)
	if err == nil {
		err = m.add(ctx, opMint, class{familyToken, kind}, d, stateLive, value, ttl, kind.expiredFor(ExpiredFor), ErrExists)
	}
	m.meter.done(opMint, err, start)
	return err
}

// Redeem is Tokens.Redeem. ErrFenced does not occur: a tenure of this store is its process.
func (m *Memory) Redeem(ctx context.Context, kind Kind, d Digest, a Attempt) ([]byte, error) {
	start := time.Now()
	value, err := m.redeem(ctx, kind, d, a)
	m.meter.done(opRedeem, err, start)
	return value, err
}

func (m *Memory) redeem(ctx context.Context, kind Kind, d Digest, a Attempt) ([]byte, error) {
	if err := checkRedeem(kind, a); err != nil {
		return nil, err
	}
	v, err := m.visit(ctx, opRedeem, class{familyToken, kind}, d)
	if err != nil {
		return nil, err
	}
	defer v.leave()
	h, i := v.live()
	if h == 0 {
		return nil, ErrUnknown
	}
	r := v.shard.slab.record(h)
	window := kind.replayWindow()
	switch {
	case r.state() == stateLive && r.expires() <= v.ms:
		return nil, ErrExpired
	case r.state() == stateLive && window == 0:
		value := append([]byte{}, r.value()...)
		copy(r.attempt(), a[:])
		v.shard.wheel.remove(&v.shard.slab, h)
		v.shard.spend(h, i, v.ms, r.expires()+SpentFor.Milliseconds())
		return value, nil
	case r.state() == stateLive:
		copy(r.attempt(), a[:])
		r.setState(stateReplay)
		v.shard.wheel.remove(&v.shard.slab, h)
		r.setDue(v.ms + window.Milliseconds())
		v.shard.wheel.add(&v.shard.slab, h)
	case r.state() == stateReplay && v.ms < r.due() && string(r.attempt()) == string(a[:]):
	default:
		return nil, &Spent{Attempt: Attempt(r.attempt()), At: m.start.Add(time.Duration(r.spentAt()) * time.Millisecond)}
	}
	return append([]byte{}, r.value()...), nil
}

// Once is Once.Once.
func (m *Memory) Once(ctx context.Context, kind Kind, d Digest, ttl time.Duration) error {
	start := time.Now()
	err := checkEntry(opOnce, kind, nil, ttl)
	if err == nil {
		err = m.add(ctx, opOnce, class{familyOnce, kind}, d, stateMark, nil, ttl, 0, ErrSpent)
	}
	m.meter.done(opOnce, err, start)
	return err
}

// Put is Records.Put.
func (m *Memory) Put(ctx context.Context, kind Kind, d Digest, value []byte, ttl time.Duration) error {
	start := time.Now()
	err := checkEntry(opPut, kind, value, ttl)
	if err == nil {
		err = m.add(ctx, opPut, class{familyRecord, kind}, d, stateRecord, value, ttl, 0, nil)
	}
	m.meter.done(opPut, err, start)
	return err
}

// Get is Records.Get.
func (m *Memory) Get(ctx context.Context, kind Kind, d Digest) ([]byte, error) {
	start := time.Now()
	value, err := m.get(ctx, kind, d)
	m.meter.done(opGet, err, start)
	return value, err
}

func (m *Memory) get(ctx context.Context, kind Kind, d Digest) ([]byte, error) {
	if err := checkKind(opGet, kind); err != nil {
		return nil, err
	}
	v, err := m.visit(ctx, opGet, class{familyRecord, kind}, d)
	if err != nil {
		return nil, err
	}
	defer v.leave()
	h, _ := v.live()
	if h == 0 {
		return nil, ErrUnknown
	}
	return append([]byte{}, v.shard.slab.record(h).value()...), nil
}

// Delete is Records.Delete.
func (m *Memory) Delete(ctx context.Context, kind Kind, d Digest) error {
	start := time.Now()
	err := m.delete(ctx, kind, d)
	m.meter.done(opDelete, err, start)
	return err
}

func (m *Memory) delete(ctx context.Context, kind Kind, d Digest) error {
	if err := checkKind(opDelete, kind); err != nil {
		return err
	}
	v, err := m.visit(ctx, opDelete, class{familyRecord, kind}, d)
	if err != nil {
		return err
	}
	defer v.leave()
	if h, i := v.live(); h != 0 {
		v.drop(h, i)
	}
	return nil
}

// Take is Limiter.Take.
func (m *Memory) Take(ctx context.Context, d Digest, r policy.Rate) (Taken, error) {
	start := time.Now()
	taken, err := m.take(ctx, d, r)
	res := resultOf(err)
	if err == nil && !taken.OK {
		res = resultLimited
	}
	m.meter.observe(opTake, res, err, start)
	return taken, err
}

func (m *Memory) take(ctx context.Context, d Digest, rate policy.Rate) (Taken, error) {
	if err := rate.Validate(); err != nil {
		return Taken{}, invalid(opTake, err.Error())
	}
	for swept := false; ; swept = true {
		v, err := m.visit(ctx, opTake, class{familyLimit, limitKind}, d)
		if err != nil {
			return Taken{}, err
		}
		h, _ := v.live()
		arrival := int64(0)
		if h != 0 {
			arrival = v.shard.slab.record(h).arrival()
		}
		next, ok, retry, remaining := rate.GCRA(v.µs, arrival)
		if !ok {
			v.leave()
			return Taken{RetryAfter: retry}, nil
		}
		if h == 0 && !m.limits.take() {
			v.leave()
			if swept {
				return Taken{}, m.full[opTake]
			}
			m.sweep(v.ms)
			continue
		}
		due := (next + 999) / 1000 // full again: as good as none
		if h == 0 {
			v.insert(stateLimit, nil, due, due).setArrival(next)
		} else {
			r := v.shard.slab.record(h)
			r.setArrival(next)
			// Later than it was, so the wheel comes by early and puts it back. A rate that was lowered may be due earlier
			// than the wheel comes by; lookup judges by due.
			r.setDue(due)
		}
		v.leave()
		return Taken{OK: true, Remaining: remaining}, nil
	}
}

// Ready returns nil where the store has room for another entry.
func (m *Memory) Ready(ctx context.Context) error {
	start := time.Now()
	err := m.ready(ctx)
	m.meter.done(opReady, err, start)
	return err
}

func (m *Memory) ready(ctx context.Context) error {
	if err := ended(ctx, "memory", opReady); err != nil {
		return err
	}
	if m.closed.Load() {
		return m.isClosed[opReady]
	}
	m.sweep(m.micros() / 1000)
	if used := m.stored.used.Load(); used >= m.stored.max {
		return fmt.Errorf("%w: %d entries of %d: raise the store's limit of entries, or use Redis", m.full[opReady], used, m.stored.max)
	}
	if used := m.limits.used.Load(); used >= m.limits.max {
		return fmt.Errorf("%w: %d limits of %d: raise the store's limit of limits, or use Redis", m.full[opReady], used, m.limits.max)
	}
	if used := m.calls.used.Load(); used >= m.calls.max {
		return fmt.Errorf("%w: %d idempotent calls of %d: raise the store's limit of calls, or use Redis", m.full[opReady], used, m.calls.max)
	}
	return nil
}

// Close forgets everything. Operations that follow return ErrUnavailable.
func (m *Memory) Close() error {
	m.closed.Store(true)
	m.shared.close()
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.slab, s.wheel, s.index, s.count = newSlab(), wheel{tick: s.wheel.tick}, nil, 0
		s.mu.Unlock()
	}
	for i := range m.entries {
		m.entries[i].count.Store(0)
	}
	m.stored.used.Store(0)
	m.limits.used.Store(0)
	m.calls.used.Store(0)
	return nil
}

// Collectors returns the store's metrics.
func (m *Memory) Collectors() []prometheus.Collector {
	return append(m.meter.collectors(), memoryCollector{m})
}

// micros is the store's time: microseconds since it was made.
func (m *Memory) micros() int64 { return max(0, m.now().Sub(m.start).Microseconds()) }

// visit is an operation on one digest: its shard, locked, at one point in time.
type visit struct {
	m      *Memory
	shard  *shard
	class  uint8
	digest Digest
	hash   uint64
	µs, ms int64 // the store's time
}

// visit locks the digest's shard. The caller leaves it.
func (m *Memory) visit(ctx context.Context, op operation, c class, d Digest) (visit, error) {
	if err := ended(ctx, "memory", op); err != nil {
		return visit{}, err
	}
	number, ok := m.class(c)
	if !ok {
		return visit{}, invalid(op, "too many kinds")
	}
	hash := m.shards[0].hash(number, d[:])
	v := visit{m: m, shard: &m.shards[hash>>32%memoryShards], class: number, digest: d, hash: hash, µs: m.micros()}
	v.ms = v.µs / 1000
	m.tidyNext(v.ms)
	v.shard.mu.Lock()
	if m.closed.Load() { // under the lock, so that nothing is stored behind Close's back
		v.shard.mu.Unlock()
		return visit{}, m.isClosed[op]
	}
	v.shard.tidy(v.ms, tidyOwn)
	return v, nil
}

func (v *visit) leave() { v.shard.mu.Unlock() }

// live returns the record of the visited digest, or 0.
func (v *visit) live() (handle, int) { return v.shard.live(v.class, v.digest[:], v.hash, v.ms) }

func (v *visit) drop(h handle, i int) {
	v.shard.wheel.remove(&v.shard.slab, h)
	v.shard.remove(h, i)
}

func (v *visit) insert(st state, value []byte, expires, due int64) record {
	return v.shard.insert(v.class, v.digest[:], v.hash, st, value, expires, due)
}

// add stores a value that lives for ttl and stays for keep after that. What is there already is an error, taken, or is
// replaced where that is nil.
func (m *Memory) add(
	ctx context.Context, op operation, c class, d Digest, st state, value []byte, ttl, keep time.Duration, taken error,
) error {
	for swept := false; ; swept = true {
		v, err := m.visit(ctx, op, c, d)
		if err != nil {
			return err
		}
		h, i := v.live()
		if h != 0 && taken != nil {
			v.leave()
			return taken
		}
		switch {
		case h != 0: // its place is taken over, and nobody may come between
			m.stored.used.Add(1)
			v.drop(h, i)
		case !m.stored.take():
			v.leave()
			if swept {
				return m.full[op]
			}
			m.sweep(v.ms)
			continue
		}
		expires := v.ms + milliseconds(ttl)
		v.insert(st, value, expires, expires+keep.Milliseconds())
		v.leave()
		return nil
	}
}

// tidyNext works off a little in the shard whose turn it is, unless somebody is busy in it.
func (m *Memory) tidyNext(ms int64) {
	s := &m.shards[m.turn.Add(1)%memoryShards]
	if s.mu.TryLock() {
		s.tidy(ms, tidyOther)
		s.mu.Unlock()
	}
}

// sweep works off everything that is due, in all shards.
func (m *Memory) sweep(ms int64) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.tidy(ms, 0)
		s.mu.Unlock()
	}
}

// class returns the byte for c. The few that there are stand in a map that is never changed, only replaced.
func (m *Memory) class(c class) (uint8, bool) {
	if number, ok := (*m.classes.Load())[c]; ok {
		return number, true
	}
	m.classMu.Lock()
	defer m.classMu.Unlock()
	old := *m.classes.Load()
	if number, ok := old[c]; ok {
		return number, true
	}
	if len(old) == maxClasses {
		return 0, false
	}
	number := uint8(len(old))
	m.entries[number].room = &m.stored
	switch c.family {
	case familyLimit:
		m.entries[number].room = &m.limits
	case familyIdempotent:
		m.entries[number].room = &m.calls
	}
	grown := make(map[class]uint8, len(old)+1)
	for k, n := range old {
		grown[k] = n
	}
	grown[c] = number
	m.classes.Store(&grown)
	return number, true
}

// memoryCollector is the gauge of entries.
type memoryCollector struct{ m *Memory }

var entriesDesc = prometheus.NewDesc("cardstile_store_entries",
	"Entries in memory, by kind: tokens with those spent, marks, records, limits, idempotent calls.", []string{"kind"}, prometheus.Labels{"store": "memory"})

// Describe is prometheus.Collector.
func (c memoryCollector) Describe(ch chan<- *prometheus.Desc) { ch <- entriesDesc }

// Collect is prometheus.Collector. It frees what has expired, so that an idle store does not keep it.
func (c memoryCollector) Collect(ch chan<- prometheus.Metric) {
	c.m.sweep(c.m.micros() / 1000)
	counts := make(map[Kind]int64) // a kind may stand in two families
	for k, number := range *c.m.classes.Load() {
		counts[k.kind] += c.m.entries[number].count.Load()
	}
	for kind, n := range counts {
		ch <- prometheus.MustNewConstMetric(entriesDesc, prometheus.GaugeValue, float64(n), string(kind))
	}
}
