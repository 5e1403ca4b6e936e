package store_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// grant is as large as a sealed grant of an unbound token.
var grant = make([]byte, 100)

// BenchmarkMintRedeem is what each single-use token costs: one mint, one redemption.
func BenchmarkMintRedeem(b *testing.B) {
	pair := func(b *testing.B, s store.Store) {
		ctx := b.Context()
		d := digest()
		if err := s.Mint(ctx, store.KindToken, d, grant, time.Minute); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Redeem(ctx, store.KindToken, d, attempt(1)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("memory", func(b *testing.B) {
		m, err := store.NewMemory(store.MemoryConfig{MaxEntries: 1 << 28})
		if err != nil {
			b.Fatal(err)
		}
		defer m.Close()
		b.ReportAllocs()
		for b.Loop() {
			pair(b, m)
		}
	})
	b.Run("redis", func(b *testing.B) {
		s := redisSubject(b)
		b.ReportAllocs()
		for b.Loop() {
			pair(b, s)
		}
	})
	b.Run("redis-parallel", func(b *testing.B) {
		s := redisSubject(b)
		b.ReportAllocs()
		b.SetParallelism(8)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				pair(b, s)
			}
		})
	})
}

// BenchmarkTake is what each limit of an exchange costs.
func BenchmarkTake(b *testing.B) {
	rate := policy.Rate{Count: 1_000_000, Per: time.Minute}
	for name, s := range map[string]store.Store{"memory": memorySubject(b), "redis": redisSubject(b)} {
		b.Run(name, func(b *testing.B) {
			d := digest()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Take(b.Context(), d, rate); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMillionTokens reports the memory of a live token with a grant of 100 bytes, as the runtime sees it.
func BenchmarkMillionTokens(b *testing.B) {
	const tokens = 1 << 20
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		m, err := store.NewMemory(store.MemoryConfig{})
		if err != nil {
			b.Fatal(err)
		}
		for range tokens {
			if err := m.Mint(b.Context(), store.KindToken, digest(), grant, time.Hour); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/tokens, "B/token")
		m.Close()
	}
}

// BenchmarkBeginFinish is what each call with an idempotency key costs, where it is the first one with it.
func BenchmarkBeginFinish(b *testing.B) {
	pair := func(b *testing.B, s store.Store) {
		ctx, d := b.Context(), digest()
		if _, err := s.Begin(ctx, kindCall, d, d, attempt(1), time.Second, time.Second, time.Second); err != nil {
			b.Fatal(err)
		}
		if err := s.Finish(ctx, kindCall, d, attempt(1), grant); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("memory", func(b *testing.B) {
		m, err := store.NewMemory(store.MemoryConfig{MaxCalls: 1 << 28})
		if err != nil {
			b.Fatal(err)
		}
		defer m.Close()
		b.ReportAllocs()
		for b.Loop() {
			pair(b, m)
		}
	})
	b.Run("redis", func(b *testing.B) {
		s := redisSubject(b)
		b.ReportAllocs()
		for b.Loop() {
			pair(b, s)
		}
	})
}
