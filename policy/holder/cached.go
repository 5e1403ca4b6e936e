package holder

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cardstile/cardstile/policy"
)

// CachedConfig configures a Cached. Durations of zero mean the default.
type CachedConfig struct {
	// Directory answers what is not cached. Required.
	Directory Directory

	// TTL is how long a holding or user is believed, 10 s by default and a
	// minute at most: so long does a card that was taken away still open.
	TTL time.Duration
	// NegativeTTL is how long "no such card" or "no such user" is believed,
	// 2 s by default and a minute at most.
	NegativeTTL time.Duration
	// Timeout bounds a look-up, 2 s by default. Callers may give up before.
	Timeout time.Duration
	// MaxEntries bounds each of four tables: cards and users that are there,
	// cards and users that are not, so that somebody who asks for ids that do
	// not exist cannot push out those that do. 10,000 by default; beyond it
	// the least recently used goes.
	MaxEntries int

	// Now is the clock, time.Now by default.
	Now func() time.Time
}

// Cached stands before a directory that answers over a network, such as a
// callback to a partner's backend. It keeps answers for seconds, lets one
// look-up per id be in flight, whoever asks, and never keeps a failure.
//
// A look-up runs to its own timeout even if whoever asked first goes away: the
// others who wait for it get its answer.
type Cached struct {
	cards table[*policy.Holding]
	users table[*policy.User]
}

var _ Directory = (*Cached)(nil)

// NewCached returns a cache before config.Directory.
func NewCached(config CachedConfig) (*Cached, error) {
	if config.Directory == nil {
		return nil, errors.New("holder cache: no directory")
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{
		{"ttl", &config.TTL, 10 * time.Second},
		{"negative ttl", &config.NegativeTTL, 2 * time.Second},
		{"timeout", &config.Timeout, 2 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.zero
		}
		if *d.value < 0 || *d.value > time.Minute {
			return nil, fmt.Errorf("holder cache: %s: must be between 0 and 1m", d.name)
		}
	}
	if config.MaxEntries == 0 {
		config.MaxEntries = 10_000
	}
	if config.MaxEntries < 0 {
		return nil, errors.New("holder cache: max entries: must not be negative")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Cached{
		cards: newTable(config, ErrNoCard, config.Directory.Card),
		users: newTable(config, ErrNoUser, config.Directory.User),
	}, nil
}

// Card returns what the directory says or said a moment ago.
func (c *Cached) Card(ctx context.Context, id string) (*policy.Holding, error) {
	return c.cards.get(ctx, id)
}

// User returns what the directory says or said a moment ago.
func (c *Cached) User(ctx context.Context, id string) (*policy.User, error) {
	return c.users.get(ctx, id)
}

// table caches one kind of answer.
type table[V comparable] struct {
	lookUp  func(ctx context.Context, id string) (V, error)
	absent  error // the answer that means "not there"
	timeout time.Duration
	now     func() time.Time
	state   *tableState[V]
}

type tableState[V comparable] struct {
	mu      sync.Mutex
	there   *recent[V]            // guarded by mu
	missing *recent[V]            // guarded by mu
	flights map[string]*flight[V] // guarded by mu
}

// flight is a look-up that is under way. value and err may be read when done is
// closed.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

func newTable[V comparable](config CachedConfig, absent error, lookUp func(context.Context, string) (V, error)) table[V] {
	return table[V]{
		lookUp: lookUp, absent: absent, timeout: config.Timeout, now: config.Now,
		state: &tableState[V]{
			there:   newRecent[V](config.MaxEntries, config.TTL),
			missing: newRecent[V](config.MaxEntries, config.NegativeTTL),
			flights: make(map[string]*flight[V]),
		},
	}
}

// get answers from the cache, or waits for the one look-up of that id.
func (t *table[V]) get(ctx context.Context, id string) (V, error) {
	var zero V
	if err := ctx.Err(); err != nil {
		return zero, fmt.Errorf("holder directory: %w", err)
	}
	s := t.state
	s.mu.Lock()
	now := t.now()
	if value, ok := s.there.get(id, now); ok {
		s.mu.Unlock()
		return value, nil
	}
	if _, ok := s.missing.get(id, now); ok {
		s.mu.Unlock()
		return zero, t.absent
	}
	f := s.flights[id]
	if f == nil {
		f = &flight[V]{done: make(chan struct{})}
		s.flights[id] = f
		// Not the caller's context: others will wait for this look-up too.
		go t.fly(context.WithoutCancel(ctx), id, f, now)
	}
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		return zero, fmt.Errorf("holder directory: %w", ctx.Err())
	}
}

// fly looks up, keeps the answer and lands. The answer's age counts from when
// it was asked for, since that is how old it may be.
func (t *table[V]) fly(ctx context.Context, id string, f *flight[V], asked time.Time) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	var zero V
	value, err := t.lookUp(ctx, id)
	switch {
	case errors.Is(err, t.absent):
		value, err = zero, t.absent
	case err != nil:
		value, err = zero, fmt.Errorf("holder directory: %w", err)
	case value == zero:
		err = errors.New("holder directory: internal error: neither an answer nor an error")
	}
	f.value, f.err = value, err
	s := t.state
	s.mu.Lock()
	defer s.mu.Unlock()
	switch err {
	case nil:
		s.there.put(id, value, asked)
	case t.absent:
		s.missing.put(id, zero, asked)
	}
	delete(s.flights, id)
	close(f.done)
}

// recent keeps the values used last, for a time. It is not safe for concurrent
// use.
type recent[V any] struct {
	max     int
	ttl     time.Duration
	entries map[string]*list.Element // of *entry[V]
	order   *list.List               // used last first
}

type entry[V any] struct {
	id    string
	value V
	until time.Time
}

func newRecent[V any](max int, ttl time.Duration) *recent[V] {
	return &recent[V]{max: max, ttl: ttl, entries: make(map[string]*list.Element), order: list.New()}
}

func (r *recent[V]) get(id string, now time.Time) (value V, ok bool) {
	element := r.entries[id]
	if element == nil {
		return value, false
	}
	e := element.Value.(*entry[V])
	if !now.Before(e.until) {
		r.drop(element)
		return value, false
	}
	r.order.MoveToFront(element)
	return e.value, true
}

func (r *recent[V]) put(id string, value V, asked time.Time) {
	if old := r.entries[id]; old != nil {
		r.drop(old)
	}
	for r.order.Len() >= r.max {
		r.drop(r.order.Back())
	}
	r.entries[id] = r.order.PushFront(&entry[V]{id, value, asked.Add(r.ttl)})
}

func (r *recent[V]) drop(element *list.Element) {
	delete(r.entries, r.order.Remove(element).(*entry[V]).id)
}
