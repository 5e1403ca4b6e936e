package main

import (
	"context"
	"runtime"
	"time"

	"github.com/cardstile/cardstile/policy/store"
)

// tokenMemory is what one token takes, its value, key and share of all tables included. Bytes.
type tokenMemory struct {
	Store      string  `json:"store"`
	ValueBytes int     `json:"value_bytes"`
	Tokens     int     `json:"tokens"` // held at once
	Live       float64 `json:"live_bytes"`
	Spent      float64 `json:"spent_bytes"`    // what stays of one that was redeemed, when it can no more be asked for again
	Goal       float64 `json:"goal,omitempty"` // of a live one, at most
}

// memoryOfMemory measures a token in this process, by the heap that is in use after a collection.
func memoryOfMemory(ctx context.Context, value []byte, tokens int) (m tokenMemory, err error) {
	before := heapInUse()
	var ahead time.Duration // of the store's clock; nobody reads it while it changes
	s, err := store.NewMemory(store.MemoryConfig{MaxEntries: tokens + 1, Now: func() time.Time { return time.Now().Add(ahead) }})
	if err != nil {
		return m, err
	}
	defer s.Close()
	p := newPairing(ofTokens(storeMemory, s, value), 0)
	if err := p.mint(ctx, tokens); err != nil {
		return m, err
	}
	live := heapInUse() - before
	if err := p.redeem(ctx, tokens); err != nil {
		return m, err
	}
	// Values go when the same attempt can no more ask for them. Ready has the store do everything that is due.
	ahead = store.ReplayWindow + time.Second
	if err := s.Ready(ctx); err != nil {
		return m, err
	}
	spent := heapInUse() - before
	runtime.KeepAlive(s)
	n := float64(tokens)
	return tokenMemory{storeMemory, len(value), tokens, live / n, spent / n, goalTokenBytes}, nil
}

// heapInUse is what the heap holds after a collection, bytes.
func heapInUse() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// memoryOfRedis measures a token on the server, fenced and plain, each with the server to itself.
func memoryOfRedis(ctx context.Context, primary *redisServer, value []byte, tokens int) ([]tokenMemory, error) {
	fenced, err := memoryOnRedis(ctx, primary, value, tokens, func(fenced, _ *tokenStore) *tokenStore { return fenced })
	if err != nil {
		return nil, err
	}
	plain, err := memoryOnRedis(ctx, primary, value, tokens, func(_, plain *tokenStore) *tokenStore { return plain })
	return []tokenMemory{fenced, plain}, err
}

func memoryOnRedis(ctx context.Context, primary *redisServer, value []byte, tokens int, choose func(fenced, plain *tokenStore) *tokenStore) (m tokenMemory, err error) {
	if err := primary.flush(ctx); err != nil {
		return m, err
	}
	before, err := primary.used(ctx)
	if err != nil {
		return m, err
	}
	p := newPairing(nil, 0)
	// after is what the server holds more when something was done and its connections are closed, which would hold buffers.
	after := func(do func(context.Context, int) error) (perToken float64, err error) {
		fenced, plain, done, err := redisSubjects(ctx, primary.address, value)
		if err != nil {
			return 0, err
		}
		p.subject = choose(fenced, plain)
		err = do(ctx, tokens)
		done()
		if err != nil {
			return 0, err
		}
		now, err := primary.used(ctx)
		return float64(now-before) / float64(tokens), err
	}
	live, err := after(p.mint)
	if err != nil {
		return m, err
	}
	spent, err := after(p.redeem)
	return tokenMemory{p.subject.name, len(value), tokens, live, spent, 0}, err
}
