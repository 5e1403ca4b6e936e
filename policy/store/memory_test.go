package store_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

func newMemory(t testing.TB, c store.MemoryConfig) (*store.Memory, *clock) {
	t.Helper()
	ticks := new(clock)
	c.Now = ticks.now
	m, err := store.NewMemory(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m, ticks
}

func TestMemoryConfigIsChecked(t *testing.T) {
	for _, c := range []store.MemoryConfig{{MaxEntries: -1}, {MaxLimits: -1}, {MaxCalls: -1},
		{MaxEntries: 1<<30 + 1}, {MaxLimits: 1<<30 + 1}, {MaxCalls: 1<<30 + 1}} {
		if _, err := store.NewMemory(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{MaxEntries: 100})
	ctx := t.Context()
	digests := make([]store.Digest, 100)
	for i := range digests {
		digests[i] = digest()
		must(t, m.Mint(ctx, store.KindToken, digests[i], []byte("v"), time.Minute))
	}
	for what, err := range map[string]error{
		"mint":  m.Mint(ctx, store.KindToken, digest(), nil, time.Minute),
		"once":  m.Once(ctx, store.KindEnvelope, digest(), time.Minute),
		"put":   m.Put(ctx, store.KindLogin, digest(), nil, time.Minute),
		"ready": m.Ready(ctx),
	} {
		wantError(t, what, err, store.ErrFull)
		wantError(t, what, err, store.ErrUnavailable)
	}
	// What is stored is still told apart, and redeemed.
	wantError(t, "mint again", m.Mint(ctx, store.KindToken, digests[0], nil, time.Minute), store.ErrExists)
	for _, d := range digests {
		_, err := m.Redeem(ctx, store.KindToken, d, attempt(1))
		must(t, err)
	}
	wantError(t, "spent records take room too", m.Mint(ctx, store.KindToken, digest(), nil, time.Minute), store.ErrFull)
	// Limits have room of their own.
	if taken, err := m.Take(ctx, digest(), policy.Rate{Count: 1, Per: time.Hour}); err != nil || !taken.OK {
		t.Errorf("take: %+v, %v", taken, err)
	}
	ticks.pass(time.Minute + store.SpentFor)
	for range 100 {
		must(t, m.Mint(ctx, store.KindToken, digest(), nil, time.Minute))
	}
	must(t, m.Close())
}

// A record that is replaced keeps its room, also when nothing else is left.
func TestMemoryReplacesWhenFull(t *testing.T) {
	m, _ := newMemory(t, store.MemoryConfig{MaxEntries: 1})
	d := digest()
	must(t, m.Put(t.Context(), store.KindLogin, d, []byte("old"), time.Hour))
	must(t, m.Put(t.Context(), store.KindLogin, d, []byte("new, and longer than the old one was"), time.Hour))
	wantError(t, "another", m.Put(t.Context(), store.KindLogin, digest(), nil, time.Hour), store.ErrFull)
	must(t, m.Delete(t.Context(), store.KindLogin, d))
	must(t, m.Put(t.Context(), store.KindLogin, digest(), nil, time.Hour))
}

func TestMemoryLimitsAreBounded(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{MaxLimits: 10})
	rate := policy.Rate{Count: 2, Per: 2 * time.Second}
	digests := make([]store.Digest, 10)
	for i := range digests {
		digests[i] = digest()
		if taken, err := m.Take(t.Context(), digests[i], rate); err != nil || !taken.OK {
			t.Fatal(taken, err)
		}
	}
	taken, err := m.Take(t.Context(), digest(), rate)
	wantError(t, "the eleventh", err, store.ErrFull)
	if taken.OK {
		t.Error("taken, with an error")
	}
	wantError(t, "ready", m.Ready(t.Context()), store.ErrFull)
	if taken, err = m.Take(t.Context(), digests[0], rate); err != nil || !taken.OK {
		t.Errorf("one of the ten: %+v, %v", taken, err)
	}
	must(t, m.Mint(t.Context(), store.KindToken, digest(), nil, time.Minute))
	ticks.pass(time.Second) // all but the one that was taken from twice are full again
	for range 9 {
		if taken, err = m.Take(t.Context(), digest(), rate); err != nil || !taken.OK {
			t.Fatalf("%+v, %v", taken, err)
		}
	}
	_, err = m.Take(t.Context(), digest(), rate)
	wantError(t, "the one more", err, store.ErrFull)
}

// A limit that is taken from again is kept for longer than it was to be at first.
func TestMemoryKeepsALimitThatIsUsed(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{})
	rate := policy.Rate{Count: 2, Per: 20 * time.Second}
	d := digest()
	take := func(want store.Taken) {
		t.Helper()
		if got, err := m.Take(t.Context(), d, rate); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	take(store.Taken{OK: true, Remaining: 1})
	ticks.pass(8 * time.Second)
	take(store.Taken{OK: true, Remaining: 0})
	ticks.pass(4 * time.Second) // after 10 s the first alone would have been forgotten
	take(store.Taken{OK: true, Remaining: 0})
	take(store.Taken{RetryAfter: 8 * time.Second})
}

// What is taken back is overwritten, not only forgotten.
func TestMemoryOverwritesWhatItFrees(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{})
	canary := []byte("canary-7f3a")
	a, b := digest(), digest()
	must(t, m.Put(t.Context(), store.KindLogin, a, canary, time.Hour))
	must(t, m.Mint(t.Context(), store.KindToken, b, canary, time.Hour))
	_, err := m.Redeem(t.Context(), store.KindToken, b, attempt(1))
	must(t, err)
	if n := m.Count(canary); n != 2 {
		t.Fatalf("it stands there %d times: this test finds nothing", n)
	}
	must(t, m.Delete(t.Context(), store.KindLogin, a))
	ticks.pass(store.ReplayWindow + time.Second)
	must(t, m.Ready(t.Context()))
	if n := m.Count(canary); n != 0 {
		t.Errorf("it still stands there %d times", n)
	}
}

// A held card is overwritten by its redemption.
func TestMemoryOverwritesAHeldCard(t *testing.T) {
	m, _ := newMemory(t, store.MemoryConfig{})
	canary := []byte("canary-7f3a")
	d := digest()
	must(t, m.Mint(t.Context(), store.KindCard, d, canary, time.Hour))
	if n := m.Count(canary); n != 1 {
		t.Fatalf("it stands there %d times: this test finds nothing", n)
	}
	_, err := m.Redeem(t.Context(), store.KindCard, d, attempt(1))
	must(t, err)
	if n := m.Count(canary); n != 0 {
		t.Errorf("it still stands there %d times", n)
	}
}

// What expires is freed by whatever is called next, a little each time; nobody has to ask for it.
func TestMemoryFreesWhatExpired(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{})
	ctx := t.Context()
	const tokens = 50_000
	value := make([]byte, 100)
	for range tokens {
		d := digest()
		must(t, m.Mint(ctx, store.KindToken, d, value, time.Minute))
	}
	full, records := m.Held()
	if records != tokens {
		t.Fatalf("%d records", records)
	}
	ticks.pass(time.Minute + store.ExpiredFor)
	one := digest()
	for range tokens / 10 { // each works off several, in all shards in turn
		_, err := m.Get(ctx, store.KindLogin, one)
		wantError(t, "get", err, store.ErrUnknown)
	}
	left, records := m.Held()
	if records != 0 {
		t.Errorf("%d records are left", records)
	}
	if left > full/20 {
		t.Errorf("%d bytes are held for nothing, of %d", left, full)
	}
}

// A spent token keeps its digest, not its value.
func TestMemoryDropsTheValueOfASpentToken(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{})
	ctx := t.Context()
	const tokens = 5000
	digests := make([]store.Digest, tokens)
	for i := range digests {
		digests[i] = digest()
		must(t, m.Mint(ctx, store.KindToken, digests[i], make([]byte, 4000), time.Minute))
		_, err := m.Redeem(ctx, store.KindToken, digests[i], attempt(1))
		must(t, err)
	}
	full, _ := m.Held()
	ticks.pass(store.ReplayWindow + time.Second)
	must(t, m.Ready(ctx))
	left, records := m.Held()
	if records != tokens || left > full/10 {
		t.Errorf("%d records in %d bytes, of %d", records, left, full)
	}
	for _, d := range digests {
		_, err := m.Redeem(ctx, store.KindToken, d, attempt(1))
		wantError(t, "redeem", err, store.ErrSpent)
	}
}

// The aim is 200 bytes for a live token with a grant of 100 bytes, a million of them at once.
func TestMemoryPerLiveToken(t *testing.T) {
	m, _ := newMemory(t, store.MemoryConfig{})
	const tokens = 200_000
	for range tokens {
		must(t, m.Mint(t.Context(), store.KindToken, digest(), make([]byte, 100), time.Minute))
	}
	held, _ := m.Held()
	if each := float64(held) / tokens; each > 200 {
		t.Errorf("%.1f bytes for each live token", each)
	}
}

func TestMemoryHasSoManyKinds(t *testing.T) {
	m, _ := newMemory(t, store.MemoryConfig{})
	var last error
	kinds := 0
	for n := 0; last == nil; n++ {
		kinds = n
		last = m.Once(t.Context(), store.Kind("k-"+strings.Repeat("x", n/8)+string(rune('a'+n%8))), digest(), time.Hour)
	}
	wantError(t, "one kind too many", last, store.ErrInvalid)
	if kinds != 64 {
		t.Errorf("%d kinds", kinds)
	}
}

func TestMemoryCountsEntries(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{})
	ctx := t.Context()
	d := digest()
	must(t, m.Mint(ctx, store.KindToken, d, nil, time.Minute))
	must(t, m.Mint(ctx, store.KindToken, digest(), nil, time.Hour))
	must(t, m.Once(ctx, store.KindToken, digest(), time.Hour))
	must(t, m.Put(ctx, store.KindLogin, d, nil, time.Hour))
	_, err := m.Take(ctx, d, policy.Rate{Count: 1, Per: time.Hour})
	must(t, err)
	_, err = m.Begin(ctx, kindCall, d, d, attempt(1), time.Minute, time.Hour, time.Hour)
	must(t, err)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m.Collectors()...)
	want := func(tokens string) {
		t.Helper()
		if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP cardstile_store_entries Entries in memory, by kind: tokens with those spent, marks, records, limits, idempotent calls.
# TYPE cardstile_store_entries gauge
cardstile_store_entries{kind="call",store="memory"} 1
cardstile_store_entries{kind="limit",store="memory"} 1
cardstile_store_entries{kind="login",store="memory"} 1
cardstile_store_entries{kind="token",store="memory"} `+tokens+"\n"), "cardstile_store_entries"); err != nil {
			t.Error(err)
		}
	}
	want("3")
	ticks.pass(time.Minute + store.ExpiredFor) // and nobody calls: collecting frees it
	want("2")
}

// A clock that goes back (an injected one, or a suspended machine) neither panics nor revives what is spent.
func TestMemoryClockGoesBack(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{})
	ticks.pass(time.Hour)
	d := digest()
	must(t, m.Mint(t.Context(), store.KindToken, d, nil, time.Minute))
	_, err := m.Redeem(t.Context(), store.KindToken, d, attempt(1))
	must(t, err)
	ticks.pass(-2 * time.Hour)
	_, err = m.Redeem(t.Context(), store.KindToken, d, attempt(2))
	wantError(t, "redeem", err, store.ErrSpent)
	must(t, m.Mint(t.Context(), store.KindToken, digest(), nil, time.Minute))
}

// Everything at once, for the race detector and for the counts to come out even.
func TestMemoryConcurrently(t *testing.T) {
	m, ticks := newMemory(t, store.MemoryConfig{MaxEntries: 2000, MaxLimits: 100})
	ctx := t.Context()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				d := digest()
				before := ticks.now()
				err := m.Mint(ctx, store.KindToken, d, make([]byte, i%300), time.Second)
				if err != nil && !errors.Is(err, store.ErrFull) {
					t.Error(err)
				}
				_, redeemed := m.Redeem(ctx, store.KindToken, d, attempt(1))
				if err == nil && redeemed != nil && ticks.now().Equal(before) {
					t.Error(redeemed)
				}
				_ = m.Put(ctx, store.KindLogin, d, make([]byte, i%50), time.Second)
				_ = m.Delete(ctx, store.KindLogin, d)
				_, _ = m.Take(ctx, d, policy.Rate{Count: 1, Per: time.Second})
				if worker == 0 && i%20 == 0 {
					ticks.pass(7 * time.Second)
				}
			}
		})
	}
	wg.Wait()
	ticks.pass(time.Hour)
	must(t, m.Ready(ctx))
	if _, records := m.Held(); records != 0 {
		t.Errorf("%d records are left", records)
	}
	for range 2000 {
		must(t, m.Mint(ctx, store.KindToken, digest(), nil, time.Minute))
	}
	wantError(t, "one more", m.Mint(ctx, store.KindToken, digest(), nil, time.Minute), store.ErrFull)
}
