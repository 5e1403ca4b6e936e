package store_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/policy/store"
)

// begunCall is what the model knows of an idempotent call that may still be there.
type begunCall struct {
	body                  int
	owner                 store.Attempt
	taken                 bool
	released              bool // taken over, and then abandoned
	kept                  bool
	value                 string
	lease, ttl, tombstone int64
	at                    span
}

// said is what may be said to a Begin.
type said struct {
	owner, takenOver bool
	err              error
}

// begin is what the contract says to a Begin at now of a call that was begun at b (ms).
func (k *begunCall) begin(body int, a store.Attempt, now, b int64) said {
	switch {
	case k == nil || now >= b+k.ttl+k.tombstone:
		return said{owner: true}
	case now >= b+k.ttl:
		return said{err: store.ErrTombstone}
	case body != k.body:
		return said{err: store.ErrOtherBody}
	case k.kept:
		return said{}
	case a == k.owner:
		return said{owner: true, takenOver: k.taken}
	case now < b+k.lease && !k.released:
		return said{err: store.ErrInFlight}
	}
	return said{owner: true, takenOver: true}
}

// end is what it says to a Finish or an Abandon.
func (k *begunCall) end(finish bool, a store.Attempt, now, b int64) error {
	switch {
	case k == nil || now >= b+k.ttl+k.tombstone:
		if finish {
			return store.ErrLost
		}
		return nil
	case now >= b+k.ttl || a != k.owner || k.kept && !finish:
		return store.ErrLost
	}
	return nil
}

// each calls f with every two times at which a call in now may have found the record that was begun in k.at.
func (k *begunCall) each(s subject, now span, f func(now, b int64)) {
	var at span
	if k != nil {
		at = k.at
	}
	for t := now.from - s.rounding; t <= now.to+s.rounding; t++ {
		f(t, at.from)
		f(t, at.to)
	}
}

func (m *machine) attempt(t *rapid.T) store.Attempt {
	return attempt(byte(rapid.IntRange(1, 3).Draw(t, "attempt")))
}

func (m *machine) Begin(t *rapid.T) {
	id, a, ttl := m.id(t), m.attempt(t), m.ttl(t)
	lease := min(ttl, m.ttl(t))
	tombstone := rapid.SampledFrom(append(m.ttls, 0)).Draw(t, "tombstone")
	body := rapid.IntRange(1, 2).Draw(t, "body")
	var begun store.Begun
	var err error
	at := m.during(func() {
		begun, err = m.Store.Begin(t.Context(), kindCall, m.digest(id), m.digest(body), a, lease, ttl, tombstone)
	})
	k := m.calls[id]
	got := said{begun.Owner, begun.TakenOver, err}
	var may []said
	k.each(m.subject, at, func(now, b int64) { may = append(may, k.begin(body, a, now, b)) })
	switch {
	case !slices.Contains(may, got):
		t.Fatalf("begin at %v: %+v, want one of %+v: %+v", at, got, may, k)
	case (begun.Value != nil) != (got == said{}):
		t.Fatalf("begin at %v: %+v, with the value %q", at, got, begun.Value)
	case got == said{} && string(begun.Value) != k.value:
		t.Fatalf("another value: %q, want %q", begun.Value, k.value)
	case begun.Owner:
		m.calls[id] = &begunCall{body: body, owner: a, taken: begun.TakenOver,
			lease: lease.Milliseconds(), ttl: ttl.Milliseconds(), tombstone: tombstone.Milliseconds(), at: at}
	}
}

func (m *machine) Finish(t *rapid.T) {
	value := rapid.StringN(0, 40, 300).Draw(t, "value")
	id, k, err := m.end(t, true, func(id int, a store.Attempt) error {
		return m.Store.Finish(t.Context(), kindCall, m.digest(id), a, []byte(value))
	})
	if err == nil && !k.kept {
		m.calls[id].kept, m.calls[id].value = true, value
	}
}

func (m *machine) Abandon(t *rapid.T) {
	id, k, err := m.end(t, false, func(id int, a store.Attempt) error {
		return m.Store.Abandon(t.Context(), kindCall, m.digest(id), a)
	})
	switch {
	case err != nil || k == nil:
	case k.taken:
		k.released = true
	default:
		delete(m.calls, id)
	}
}

func (m *machine) end(t *rapid.T, finish bool, f func(int, store.Attempt) error) (int, *begunCall, error) {
	id, a := m.id(t), m.attempt(t)
	var err error
	at := m.during(func() { err = f(id, a) })
	k := m.calls[id]
	var may []error
	k.each(m.subject, at, func(now, b int64) { may = append(may, k.end(finish, a, now, b)) })
	if !slices.Contains(may, err) {
		t.Fatalf("end (finish: %v) at %v: %v, want one of %v: %+v", finish, at, err, may, k)
	}
	return id, k, err
}

// The model is worth something only if it can tell: each answer occurs in it.
func TestModelOfCallsCanTell(t *testing.T) {
	call := func(change func(*begunCall)) *begunCall {
		k := &begunCall{body: 1, owner: attempt(1), lease: 10, ttl: 100, tombstone: 1000}
		change(k)
		return k
	}
	inFlight := call(func(*begunCall) {})
	taken := call(func(k *begunCall) { k.taken = true })
	released := call(func(k *begunCall) { k.taken, k.released = true, true })
	kept := call(func(k *begunCall) { k.kept = true })
	for i, c := range []struct {
		k    *begunCall
		body int
		a    store.Attempt
		now  int64
		want said
	}{
		{nil, 1, attempt(1), 0, said{owner: true}},
		{inFlight, 1, attempt(1), 99, said{owner: true}},
		{inFlight, 1, attempt(2), 9, said{err: store.ErrInFlight}},
		{inFlight, 1, attempt(2), 10, said{owner: true, takenOver: true}},
		{inFlight, 2, attempt(1), 99, said{err: store.ErrOtherBody}},
		{inFlight, 1, attempt(1), 100, said{err: store.ErrTombstone}},
		{inFlight, 1, attempt(1), 1100, said{owner: true}},
		{taken, 1, attempt(1), 9, said{owner: true, takenOver: true}},
		{taken, 1, attempt(2), 9, said{err: store.ErrInFlight}},
		{released, 1, attempt(2), 9, said{owner: true, takenOver: true}},
		{kept, 1, attempt(1), 9, said{}},
		{kept, 1, attempt(2), 99, said{}},
		{kept, 2, attempt(1), 99, said{err: store.ErrOtherBody}},
		{kept, 2, attempt(1), 1099, said{err: store.ErrTombstone}},
	} {
		if got := c.k.begin(c.body, c.a, c.now, 0); got != c.want {
			t.Errorf("begin %d: %+v, want %+v", i, got, c.want)
		}
	}
	for i, c := range []struct {
		k               *begunCall
		a               store.Attempt
		now             int64
		finish, abandon error
	}{
		{nil, attempt(1), 0, store.ErrLost, nil},
		{inFlight, attempt(1), 99, nil, nil},
		{inFlight, attempt(2), 99, store.ErrLost, store.ErrLost},
		{inFlight, attempt(1), 100, store.ErrLost, store.ErrLost},
		{inFlight, attempt(1), 1100, store.ErrLost, nil},
		{kept, attempt(1), 99, nil, store.ErrLost},
	} {
		if got := c.k.end(true, c.a, c.now, 0); got != c.finish {
			t.Errorf("finish %d: %v, want %v", i, got, c.finish)
		}
		if got := c.k.end(false, c.a, c.now, 0); got != c.abandon {
			t.Errorf("abandon %d: %v, want %v", i, got, c.abandon)
		}
	}
	var times [][2]int64
	inFlight.at = span{3, 4}
	inFlight.each(subject{rounding: 1}, span{7, 7}, func(now, b int64) { times = append(times, [2]int64{now, b}) })
	if want := [][2]int64{{6, 3}, {6, 4}, {7, 3}, {7, 4}, {8, 3}, {8, 4}}; !slices.Equal(times, want) {
		t.Errorf("%v, want %v", times, want)
	}
}
