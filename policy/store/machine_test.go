package store_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/policy/store"
)

// span is when something happened: between from and to, in milliseconds. With a clock that stands still they are one.
type span struct{ from, to int64 }

// mintedToken is what the model knows of a token that may still be there.
type mintedToken struct {
	value    string
	ttl      int64
	at       span
	once     bool          // its value is given away once
	attempt  store.Attempt // zero: nobody redeemed it
	redeemed span
}

// answer is what the contract says to a redemption at now of a token minted at m and redeemed at r (ms).
func (k *mintedToken) answer(s subject, a store.Attempt, now, m, r int64) error {
	expires := m + k.ttl
	switch {
	case k.attempt == store.Attempt{} && now < expires:
		return nil
	case k.attempt == store.Attempt{} && now < expires+s.expiredFor.Milliseconds():
		return store.ErrExpired
	case k.attempt == store.Attempt{}:
		return store.ErrUnknown
	case a == k.attempt && !k.once && now < r+s.replay.Milliseconds():
		return nil
	case now < expires+s.spentFor.Milliseconds():
		return store.ErrSpent
	}
	return store.ErrUnknown
}

// answers are all that may be said to a call that took place somewhere in now.
func (k *mintedToken) answers(s subject, a store.Attempt, now span) (all []error) {
	if k.once { // of a held card nothing stays past its time, but for the millisecond through which Redis keeps a key
		s.expiredFor = time.Duration(s.rounding) * time.Millisecond
	}
	for t := now.from - s.rounding; t <= now.to+s.rounding; t++ {
		for _, m := range []int64{k.at.from, k.at.to} {
			for _, r := range []int64{k.redeemed.from, k.redeemed.to} {
				if e := k.answer(s, a, t, m, r); !slices.Contains(all, e) {
					all = append(all, e)
				}
			}
		}
	}
	return all
}

// storedRecord is what the model knows of a record or a mark: there until it expires.
type storedRecord struct {
	value string
	ttl   int64
	at    span
}

func (k *storedRecord) there(s subject, now span) (may, must bool) {
	return now.from-s.rounding < k.at.to+k.ttl, now.to+s.rounding < k.at.from+k.ttl
}

// machine drives a store and a model of its contract side by side.
type machine struct {
	subject
	run    uint64 // so that the runs of one test do not meet
	ids    int
	ttls   []time.Duration
	waits  []time.Duration
	now    func() int64
	zero   int64 // the time, in ms of Unix, at which now is 0
	tokens map[int]*mintedToken
	record map[int]*storedRecord
	marks  map[int]*storedRecord
	calls  map[int]*begunCall
}

func (m *machine) digest(id int) (d store.Digest) {
	binary.BigEndian.PutUint64(d[:], m.run)
	binary.BigEndian.PutUint64(d[24:], uint64(id))
	return d
}

// kind has every other token be one of a held card.
func (m *machine) kind(id int) store.Kind {
	if id%2 == 0 {
		return store.KindCard
	}
	return store.KindToken
}

func (m *machine) during(f func()) span {
	from := m.now()
	f()
	return span{from, m.now()}
}

func (m *machine) id(t *rapid.T) int { return rapid.IntRange(1, m.ids).Draw(t, "id") }
func (m *machine) ttl(t *rapid.T) time.Duration {
	return rapid.SampledFrom(m.ttls).Draw(t, "ttl")
}

func (m *machine) Mint(t *rapid.T) {
	id, ttl := m.id(t), m.ttl(t)
	value := rapid.StringN(0, 40, 300).Draw(t, "value")
	var err error
	at := m.during(func() { err = m.Store.Mint(t.Context(), m.kind(id), m.digest(id), []byte(value), ttl) })
	may := []error{nil}
	if k := m.tokens[id]; k != nil {
		may = k.answers(m.subject, store.Attempt{}, at)
		for i, e := range may { // something is there, unless it is unknown
			may[i] = store.ErrExists
			if e == store.ErrUnknown {
				may[i] = nil
			}
		}
	}
	if !slices.Contains(may, err) {
		t.Fatalf("mint at %v: %v, want one of %v: %+v", at, err, may, m.tokens[id])
	}
	if err == nil {
		m.tokens[id] = &mintedToken{value: value, ttl: ttl.Milliseconds(), at: at, once: m.kind(id) == store.KindCard}
	}
}

func (m *machine) Redeem(t *rapid.T) {
	id := m.id(t)
	a := attempt(byte(rapid.IntRange(1, 3).Draw(t, "attempt")))
	var value []byte
	var err error
	at := m.during(func() { value, err = m.Store.Redeem(t.Context(), m.kind(id), m.digest(id), a) })
	k := m.tokens[id]
	if k == nil {
		if err != store.ErrUnknown {
			t.Fatalf("redeem of nothing: %q, %v", value, err)
		}
		return
	}
	spent, isSpent := err.(*store.Spent)
	if isSpent {
		err = store.ErrSpent
		if when := spent.At.UnixMilli() - m.zero; spent.Attempt != k.attempt || when < k.redeemed.from-m.rounding || when > k.redeemed.to+m.rounding+at.to-at.from {
			t.Fatalf("spent by %v at %d, want %v at %v", spent.Attempt, when, k.attempt, k.redeemed)
		}
	}
	if may := k.answers(m.subject, a, at); !slices.Contains(may, err) || !isSpent && err == store.ErrSpent {
		t.Fatalf("redeem at %v: %v, want one of %v: %+v", at, err, may, k)
	}
	switch {
	case err != nil && value != nil:
		t.Fatalf("a value came with %v", err)
	case err == nil && string(value) != k.value:
		t.Fatalf("another value: %q, want %q", value, k.value)
	case err == nil && k.attempt == store.Attempt{}:
		k.attempt, k.redeemed = a, at
	case err == nil && a != k.attempt:
		t.Fatal("redeemed twice")
	}
}

func (m *machine) Once(t *rapid.T) {
	id, ttl := m.id(t), m.ttl(t)
	var err error
	at := m.during(func() { err = m.Store.Once(t.Context(), store.KindEnvelope, m.digest(id), ttl) })
	may, must := false, false
	if k := m.marks[id]; k != nil {
		may, must = k.there(m.subject, at)
	}
	if err == nil && must || err != nil && (!may || err != store.ErrSpent) {
		t.Fatalf("once at %v: %v; may be there %v, must be %v: %+v", at, err, may, must, m.marks[id])
	}
	if err == nil {
		m.marks[id] = &storedRecord{ttl: ttl.Milliseconds(), at: at}
	}
}

func (m *machine) Put(t *rapid.T) {
	id, ttl := m.id(t), m.ttl(t)
	value := rapid.StringN(0, 40, 300).Draw(t, "value")
	at := m.during(func() {
		if err := m.Store.Put(t.Context(), store.KindLogin, m.digest(id), []byte(value), ttl); err != nil {
			t.Fatalf("put: %v", err)
		}
	})
	m.record[id] = &storedRecord{value: value, ttl: ttl.Milliseconds(), at: at}
}

func (m *machine) Get(t *rapid.T) {
	id := m.id(t)
	var value []byte
	var err error
	at := m.during(func() { value, err = m.Store.Get(t.Context(), store.KindLogin, m.digest(id)) })
	k := m.record[id]
	if k == nil {
		k = &storedRecord{at: span{-1 << 60, -1 << 60}}
	}
	may, must := k.there(m.subject, at)
	switch {
	case err == nil && (!may || string(value) != k.value):
		t.Fatalf("get at %v: %q; may be there %v: %+v", at, value, may, k)
	case err != nil && (must || err != store.ErrUnknown):
		t.Fatalf("get at %v: %v; must be there %v: %+v", at, err, must, k)
	}
}

func (m *machine) Delete(t *rapid.T) {
	id := m.id(t)
	if err := m.Store.Delete(t.Context(), store.KindLogin, m.digest(id)); err != nil {
		t.Fatalf("delete: %v", err)
	}
	delete(m.record, id)
}

func (m *machine) Pass(t *rapid.T) { m.pass(rapid.SampledFrom(m.waits).Draw(t, "wait")) }

// Check is rapid's: it runs after each action.
func (m *machine) Check(*rapid.T) {}

func (m *machine) reset(run uint64) {
	m.run = run
	m.tokens, m.record, m.marks = make(map[int]*mintedToken), make(map[int]*storedRecord), make(map[int]*storedRecord)
	m.calls = make(map[int]*begunCall)
}

// Whatever is done in whatever order, memory answers as the contract says, to the millisecond.
func TestMemoryKeepsTheContract(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := new(clock)
		mem, err := store.NewMemory(store.MemoryConfig{Now: c.now})
		if err != nil {
			rt.Fatal(err)
		}
		defer mem.Close()
		day := 24 * time.Hour
		m := &machine{
			subject: subject{mem, c.pass, 0, time.Second, store.ReplayWindow, store.SpentFor, store.ExpiredFor},
			ids:     rapid.SampledFrom([]int{2, 60}).Draw(rt, "ids"),
			ttls:    []time.Duration{time.Millisecond, time.Second, 9 * time.Second, time.Minute, time.Hour, day, 200 * day},
			waits: []time.Duration{time.Millisecond, time.Second - 1, time.Second, 9 * time.Second, 10 * time.Second, time.Minute,
				10 * time.Minute, time.Hour, day, 199 * day},
			now: func() int64 { return c.now().Sub(epoch).Milliseconds() }, zero: epoch.UnixMilli(),
		}
		m.reset(0)
		rt.Repeat(rapid.StateMachineActions(m))

		// In the end nothing is left but a page or two of each shard.
		c.pass(2*store.MaxTTL + time.Hour)
		if err := mem.Ready(rt.Context()); err != nil {
			rt.Fatal(err)
		}
		if _, records := mem.Held(); records != 0 {
			rt.Fatalf("%d records are left", records)
		}
	})
}

// Redis does too, as far as a clock that cannot be stopped lets one see.
func TestRedisKeepsTheContract(t *testing.T) {
	s := redisSubject(t)
	r := s.Store.(*store.Redis)
	s.replay, s.spentFor, s.expiredFor = 20*time.Millisecond, 30*time.Millisecond, 30*time.Millisecond
	r.ShortenWindows(s.replay, s.spentFor)
	m := &machine{
		subject: s,
		ids:     2,
		ttls:    []time.Duration{10 * time.Millisecond, 25 * time.Millisecond, time.Hour},
		waits:   []time.Duration{time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond},
		now:     func() int64 { return time.Now().UnixMilli() },
	}
	run := uint64(0)
	rapid.Check(t, func(rt *rapid.T) {
		run++
		m.reset(run)
		rt.Repeat(rapid.StateMachineActions(m))
	})
}

// The model is worth something only if it can tell: each answer occurs in it.
func TestModelCanTell(t *testing.T) {
	s := subject{replay: store.ReplayWindow, spentFor: store.SpentFor, expiredFor: store.ExpiredFor}
	live := &mintedToken{ttl: 1000}
	spent := &mintedToken{ttl: 1000, attempt: attempt(1)}
	card := &mintedToken{ttl: 1000, attempt: attempt(1), once: true}
	for i, c := range []struct {
		k    *mintedToken
		a    store.Attempt
		now  int64
		want error
	}{
		{live, attempt(1), 999, nil},
		{live, attempt(1), 1000, store.ErrExpired},
		{live, attempt(1), 1000 + store.ExpiredFor.Milliseconds(), store.ErrUnknown},
		{spent, attempt(1), 9_999, nil},
		{spent, attempt(2), 9_999, store.ErrSpent},
		{spent, attempt(1), 10_000, store.ErrSpent},
		{spent, attempt(1), 1000 + store.SpentFor.Milliseconds(), store.ErrUnknown},
		{card, attempt(1), 1, store.ErrSpent},
		{card, attempt(1), 1000 + store.SpentFor.Milliseconds(), store.ErrUnknown},
	} {
		if got := c.k.answer(s, c.a, c.now, 0, 0); !errors.Is(got, c.want) {
			t.Error(fmt.Errorf("case %d: %w, want %w", i, got, c.want))
		}
	}
}
