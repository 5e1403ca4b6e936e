package store

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// sharedValues are Memory's. The zero value is empty.
type sharedValues struct {
	mu     sync.Mutex
	closed bool                          // guarded by mu
	kinds  map[Kind]map[string]Versioned // guarded by mu, as what is below it
	count  int                           // of all kinds; guarded by mu
}

// Shared is Shared.Shared.
func (m *Memory) Shared(ctx context.Context, kind Kind) (map[string]Versioned, error) {
	start := time.Now()
	all, err := m.sharedValues(ctx, kind)
	m.meter.done(opShared, err, start)
	return all, err
}

func (m *Memory) sharedValues(ctx context.Context, kind Kind) (map[string]Versioned, error) {
	if err := checkKind(opShared, kind); err != nil {
		return nil, err
	}
	if err := ended(ctx, "memory", opShared); err != nil {
		return nil, err
	}
	s := &m.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, m.isClosed[opShared]
	}
	all := make(map[string]Versioned, len(s.kinds[kind]))
	for name, v := range s.kinds[kind] {
		all[name] = Versioned{bytes.Clone(v.Value), v.Version}
	}
	return all, nil
}

// Raise is Shared.Raise.
func (m *Memory) Raise(ctx context.Context, kind Kind, name string, v Versioned) error {
	start := time.Now()
	err := checkRaise(kind, name, v)
	if err == nil {
		err = ended(ctx, "memory", opRaise)
	}
	if err == nil {
		err = m.raise(kind, name, v)
	}
	m.meter.done(opRaise, err, start)
	return err
}

func (m *Memory) raise(kind Kind, name string, v Versioned) error {
	s := &m.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	old, exists := s.kinds[kind][name]
	switch {
	case s.closed:
		return m.isClosed[opRaise]
	case exists && old.Version >= v.Version:
		return ErrExists
	case !exists && s.count >= maxShared:
		return m.full[opRaise]
	}
	if s.kinds == nil {
		s.kinds = map[Kind]map[string]Versioned{}
	}
	if s.kinds[kind] == nil {
		s.kinds[kind] = map[string]Versioned{}
	}
	if !exists {
		s.count++
	}
	s.kinds[kind][name] = Versioned{append([]byte{}, v.Value...), v.Version}
	return nil
}

// close forgets everything.
func (s *sharedValues) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.kinds, s.count = true, nil, 0
}
