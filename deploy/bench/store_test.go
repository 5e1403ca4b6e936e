package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

// TestStoreAlone measures the store with few pairs, without the other servers, whose programs are not looked for.
func TestStoreAlone(t *testing.T) {
	dir := t.TempDir()
	o, err := parseOptions([]string{
		"-only", "^store$", "-pairs", "2000", "-binary", filepath.Join(dir, "none"), "-json", filepath.Join(dir, "out.json"), "-dir", dir,
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := bench(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(o.json)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	if r.Store == nil || len(r.Rows)+len(r.Ratios)+len(r.Profiles) > 0 {
		t.Fatalf("store %v, %d rows, %d ratios and %d profiles of exchanges", r.Store, len(r.Rows), len(r.Ratios), len(r.Profiles))
	}
	checkStore(t, r.Store, 2000)
	for _, line := range []string{"2000 pairs of mint", "\n| store.Memory | 0 |", "\n| store.Redis | 2 |", "\n| plain SET NX, GETDEL | 2 |", "\n| server, 2 replicas |"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no %q in\n%s", line, out.String())
		}
	}
	if strings.Contains(out.String(), dir) || bytes.Contains(content, []byte(dir)) {
		t.Error("the report names a directory of this machine")
	}
	if left, err := filepath.Glob(filepath.Join(dir, "cardstile-bench-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if children, err := childrenOf(os.Getpid()); err != nil || len(children) > 0 {
		t.Errorf("still running: %v, %v", children, err)
	}
}

// checkStore looks at the shape of what was measured, and never at how fast it was.
func checkStore(t *testing.T, r *storeReport, pairs int) {
	t.Helper()
	var got []string
	for _, row := range r.Rows {
		got = append(got, fmt.Sprintf("%s %d", row.Store, row.Replicas))
		if row.Pairs != pairs {
			t.Errorf("%s, %d replicas: %d pairs, want %d", row.Store, row.Replicas, row.Pairs, pairs)
		}
		if row.Throughput.Min <= 0 || row.Client.Median <= 0 || (row.Server != nil) != (row.Store != storeMemory) || row.Server != nil && row.Server.Median <= 0 {
			t.Errorf("%s, %d replicas: %v a second, client %v, server %v", row.Store, row.Replicas, row.Throughput, row.Client, row.Server)
		}
		for _, l := range []latency{row.Mint, row.Redeem} {
			if l.P50 <= 0 || l.P50 > l.P99 || l.P99 > l.P999 {
				t.Errorf("%s, %d replicas: %+v", row.Store, row.Replicas, l)
			}
		}
	}
	want := []string{storeMemory + " 0", storeFenced + " 0", storePlain + " 0", storeFenced + " 2", storePlain + " 2"}
	if !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
	got = nil
	for _, q := range r.Ratios {
		got = append(got, fmt.Sprintf("%s %.2f", q.Of, q.Goal))
		if q.Is.Min <= 0 {
			t.Errorf("%s: %v", q.Of, q.Is)
		}
	}
	want = []string{"client, 0 replicas 1.15", "server, 0 replicas 1.50", "client, 2 replicas 1.15", "server, 2 replicas 1.50"}
	if !slices.Equal(got, want) {
		t.Errorf("ratios %q, want %q", got, want)
	}
	got = nil
	for _, m := range r.Memory {
		got = append(got, m.Store)
		if m.Tokens != pairs || m.Live <= float64(m.ValueBytes) || m.Store == storePlain && m.Spent >= m.Live || m.Store != storePlain && m.Spent <= 0 || (m.Goal > 0) != (m.Store == storeMemory) {
			t.Errorf("memory: %+v", m)
		}
	}
	if want := []string{storeMemory, storeMemory, storeFenced, storePlain, storeFenced, storePlain}; !slices.Equal(got, want) {
		t.Errorf("memory of %q, want %q", got, want)
	}
	if r.ValueBytes != r.Memory[len(r.Memory)-1].ValueBytes || r.Redis == "" {
		t.Errorf("values of %d bytes, Redis %q", r.ValueBytes, r.Redis)
	}
}

// TestTokenStores: each takes a token once, gives its value once, and notices another value.
func TestTokenStores(t *testing.T) {
	ctx, address := t.Context(), testredis.Start(t).Addr
	value, other := []byte("the value"), []byte("the other")
	m, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	fenced, plain, done, err := redisSubjects(ctx, address, value)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	otherFenced, otherPlain, otherDone, err := redisSubjects(ctx, address, other)
	if err != nil {
		t.Fatal(err)
	}
	defer otherDone()
	for _, pair := range [][2]*tokenStore{{ofTokens(storeMemory, m, value), ofTokens(storeMemory, m, other)}, {fenced, otherFenced}, {plain, otherPlain}} {
		s, stranger := pair[0], pair[1]
		d := store.Digest{8: 1}
		if err := s.mint(ctx, d); err != nil {
			t.Errorf("%s: mint: %v", s.name, err)
		}
		if err := s.mint(ctx, d); err == nil {
			t.Errorf("%s: minted twice", s.name)
		}
		if err := s.redeem(ctx, d); err != nil {
			t.Errorf("%s: redeem: %v", s.name, err)
		}
		if err := s.redeem(ctx, store.Digest{8: 2}); err == nil {
			t.Errorf("%s: redeemed what was never minted", s.name)
		}
		d = store.Digest{8: 3}
		if err := s.mint(ctx, d); err != nil {
			t.Errorf("%s: mint: %v", s.name, err)
		}
		if err := stranger.redeem(ctx, d); !errors.Is(err, errOtherValue) {
			t.Errorf("%s: another value: %v", s.name, err)
		}
	}
	if err := plain.redeem(ctx, store.Digest{8: 1}); !errors.Is(err, redis.Nil) {
		t.Errorf("plain: redeemed twice: %v", err)
	}
}

// TestPlainIsAsTheStoreIs: the fence is the only difference, as far as the server sees the two: databases, keys, times to live.
func TestPlainIsAsTheStoreIs(t *testing.T) {
	ctx, s := t.Context(), testredis.Start(t)
	fenced, plain, done, err := redisSubjects(ctx, s.Addr, make([]byte, 225))
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	d := store.Digest{8: 1}
	length := map[int]int{}
	for db, subject := range map[int]*tokenStore{fencedDB: fenced, plainDB: plain} {
		if err := subject.mint(ctx, d); err != nil {
			t.Fatal(err)
		}
		c := redis.NewClient(plainOptions(s.Addr, db, 1))
		defer c.Close()
		all, err := c.Keys(ctx, "*").Result()
		if err != nil || len(all) != 1 {
			t.Fatalf("%s: %d keys in its database, %v", subject.name, len(all), err)
		}
		if left, err := c.PTTL(ctx, all[0]).Result(); err != nil || left <= 0 {
			t.Errorf("%s: it stays for %v, %v", subject.name, left, err)
		}
		length[db] = len(all[0])
	}
	if length[fencedDB] != length[plainDB] {
		t.Errorf("keys of %d and %d bytes", length[fencedDB], length[plainDB])
	}
}

// ledger is a token store that keeps count.
type ledger struct {
	mu                     sync.Mutex
	live                   map[store.Digest]bool
	each, peak             map[string]int // live tokens of each worker, which the first bytes of its digests name
	minted, redeemed, oops int
	failMint, failRedeem   int // the call that fails; 0: none
	failed                 bool
	said                   func()
}

var errLedger = errors.New("the ledger is closed")

func newLedger() *ledger {
	return &ledger{live: map[store.Digest]bool{}, each: map[string]int{}, peak: map[string]int{}, said: func() {}}
}

func (l *ledger) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// ended waits for the end of a context.
func ended(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (l *ledger) store(name string) *tokenStore {
	worker := func(d store.Digest) string { return string(d[:24]) }
	return &tokenStore{
		name: name,
		mint: func(ctx context.Context, d store.Digest) error {
			if l.isClosed() {
				return ended(ctx)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.said()
			if l.minted++; l.minted == l.failMint {
				l.failed = true
				return errLedger
			}
			if l.live[d] {
				l.oops++
			}
			l.live[d] = true
			l.each[worker(d)]++
			l.peak[worker(d)] = max(l.peak[worker(d)], l.each[worker(d)])
			return nil
		},
		redeem: func(ctx context.Context, d store.Digest) error {
			if l.isClosed() {
				return ended(ctx)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.redeemed++; l.redeemed == l.failRedeem {
				l.failed = true
				return errLedger
			}
			if !l.live[d] {
				l.oops++
			}
			delete(l.live, d)
			l.each[worker(d)]--
			return nil
		},
	}
}

// TestPairs: what is minted is redeemed, once, and so many tokens of a worker are live in between.
func TestPairs(t *testing.T) {
	for _, n := range []int{1, storeWorkers - 1, storeWorkers * storeLive / 2, storeWorkers*storeLive*3 + 7} {
		l := newLedger()
		p := newPairing(l.store("ledger"), 2*n)
		for range 2 {
			if err := p.pairs(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		if l.minted != 2*n || l.redeemed != 2*n || len(l.live) != 0 || l.oops != 0 {
			t.Errorf("%d pairs twice: %d minted, %d redeemed, %d live, %d mistakes", n, l.minted, l.redeemed, len(l.live), l.oops)
		}
		want := min(storeLive, (n+storeWorkers-1)/storeWorkers)
		for _, peak := range l.peak {
			if peak != want && peak != want-1 || n%storeWorkers == 0 && peak != want || peak > storeLive {
				t.Errorf("%d pairs: %d of a worker live, want %d", n, peak, want)
			}
		}
		var row storeRow
		row.sumUp(p, nil)
		if row.Pairs != 2*n || row.Mint.P999 <= 0 || row.Redeem.P999 <= 0 {
			t.Errorf("%d pairs twice: %d timed, %+v, %+v", n, row.Pairs, row.Mint, row.Redeem)
		}
	}
}

func TestMintThenRedeem(t *testing.T) {
	l := newLedger()
	p := newPairing(l.store("ledger"), 0)
	if err := p.mint(t.Context(), 100); err != nil || len(l.live) != 100 {
		t.Errorf("%d live, %v", len(l.live), err)
	}
	if err := p.redeem(t.Context(), 100); err != nil || len(l.live) != 0 || l.oops != 0 {
		t.Errorf("%d live, %d mistakes, %v", len(l.live), l.oops, err)
	}
	if p.workers[0].mints != nil {
		t.Error("times were taken")
	}
}

// TestErrorEndsPairs: the first error is the one that is told, and the other workers, which would wait for ever, end with it.
func TestErrorEndsPairs(t *testing.T) {
	for name, l := range map[string]*ledger{"mint": newLedger(), "redeem": newLedger()} {
		if name == "mint" {
			l.failMint = 70
		} else {
			l.failRedeem = 70
		}
		err := newPairing(l.store("ledger"), 0).pairs(t.Context(), 1<<20)
		if !errors.Is(err, errLedger) || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTakeTurns: the subjects alternate and change their order, and the server's time is that of their own slices.
func TestTakeTurns(t *testing.T) {
	var mu sync.Mutex
	var said strings.Builder
	say := func(what string) func() {
		return func() {
			mu.Lock()
			defer mu.Unlock()
			if text := said.String(); !strings.HasSuffix(text, what) {
				said.WriteString(what)
			}
		}
	}
	a, b := newLedger(), newLedger()
	a.said, b.said = say("A"), say("B")
	var used time.Duration
	server := func(context.Context) (time.Duration, error) {
		said.WriteString("|")
		used += 3 * time.Millisecond
		return used, nil
	}
	rows, err := takeTurns(t.Context(), 10*storeSlices, []*tokenStore{a.store("A"), b.store("B")}, server)
	if err != nil {
		t.Fatal(err)
	}
	if want := "AB" + strings.Repeat("|A||B||B||A|", storeSlices/2); said.String() != want {
		t.Errorf("turns %s, want %s", said.String(), want)
	}
	for i, name := range []string{"A", "B"} {
		if r := rows[i]; r.Store != name || r.Pairs != 10*storeSlices || r.Server == nil || *r.Server != (spread{300, 300, 300}) || len(r.client) != storeSlices {
			t.Errorf("%+v", r)
		}
	}
	if rows, err = takeTurns(t.Context(), storeSlices, []*tokenStore{a.store("A")}, nil); err != nil || rows[0].Server != nil {
		t.Errorf("without a server: %+v, %v", rows, err)
	}
}

func TestShareOf(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 1_000_000} {
		sum := 0
		for i := range storeWorkers {
			share := shareOf(n, i, storeWorkers)
			if share != n/storeWorkers && share != n/storeWorkers+1 {
				t.Errorf("%d: a share of %d", n, share)
			}
			sum += share
		}
		if sum != n {
			t.Errorf("%d: shares of %d together", n, sum)
		}
	}
}

// TestReplicasAreCounted: a row of so many replicas is of so many, all the time.
func TestReplicasAreCounted(t *testing.T) {
	w := &world{options: options{pairs: storeSlices, progress: io.Discard}, dir: t.TempDir()}
	defer w.stop()
	cores, restore, err := pinSelf()
	if err != nil {
		t.Fatal(err)
	}
	defer restore()
	w.cores = cores
	binary, err := findRedis(redisName)
	if err != nil {
		t.Fatal(err)
	}
	primary, err := w.startRedis(t.Context(), binary, w.cores.measured, "primary", nil)
	if err != nil {
		t.Fatal(err)
	}
	var r storeReport
	if err := w.pairsOnRedis(t.Context(), &r, primary, []byte("value"), 1); err == nil || !strings.Contains(err.Error(), "want 1") {
		t.Errorf("no replica, and a row of one: %v", err)
	}
	if _, err := w.startRedis(t.Context(), binary, w.cores.other, "replica", primary); err != nil {
		t.Fatal(err)
	}
	if err := primary.waitForReplicas(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := w.pairsOnRedis(t.Context(), &r, primary, []byte("value"), 1); err != nil || len(r.Rows) != 2 {
		t.Errorf("with one: %d rows, %v", len(r.Rows), err)
	}
}

func TestSealedGrants(t *testing.T) {
	unbound, bound, err := sealedGrants(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(unbound) < 73 || len(bound) < len(unbound)+len(exaUser)+len(cardID)+32 || len(bound) > 300 {
		t.Errorf("%d and %d bytes", len(unbound), len(bound))
	}
	if bytes.Contains(unbound, []byte("gnosispay")) || bytes.Contains(bound, []byte(cardID)) {
		t.Error("they are not sealed")
	}
}

func someStore() *storeReport {
	r := &storeReport{Redis: "7.0.0", Pairs: 1000, Slices: 3, Workers: 64, Live: 16, ValueBytes: 225}
	r.Rows = []storeRow{
		{Store: storeMemory, Pairs: 1000, Client: spread{1, .5, 2}, Mint: latency{.25, 1.5, 20}},
		{Store: storeFenced, Pairs: 1000, Server: &spread{24, 20, 30}, client: []float64{11, 12, 20}, server: []float64{20, 30, 24}},
		{Store: storePlain, Pairs: 1000, Server: &spread{15, 10, 20}, client: []float64{10, 10, 10}, server: []float64{10, 20, 15}},
		{Store: storeFenced, Pairs: 1000, Replicas: 2, client: []float64{30, 30, 30}, server: []float64{30, 30, 30}},
		{Store: storePlain, Pairs: 1000, Replicas: 2, client: []float64{30, 30, 30}, server: []float64{15, 15, 15}},
	}
	r.Ratios = storeRatios(r.Rows)
	r.Memory = []tokenMemory{{storeMemory, 104, 1000, 199.5, 80, 200}, {storeMemory, 225, 1000, 330, 80, 200}, {storePlain, 225, 1000, 500, 10, 0}}
	return r
}

// TestStoreRatios: a ratio is of one slice and of one number of replicas.
func TestStoreRatios(t *testing.T) {
	want := []ratio{
		{"client, 0 replicas", storePlain, spread{1.2, 1.1, 2}, 1.15}, {"server, 0 replicas", storePlain, spread{1.6, 1.5, 2}, 1.5},
		{"client, 2 replicas", storePlain, spread{1, 1, 1}, 1.15}, {"server, 2 replicas", storePlain, spread{2, 2, 2}, 1.5},
	}
	if got := someStore().Ratios; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestStoreMarkdown(t *testing.T) {
	var b strings.Builder
	someStore().markdown(&b)
	for _, line := range []string{
		"1000 pairs of mint and redemption in each row, 64 at a time, 16 tokens of each worker live, values of 225 bytes",
		"| store.Memory | 0 | 0 | **1.0** (0.5–2.0) | – | 0.2 | 1.5 | 20 | 0.0 | 0.0 | 0.0 |",
		"| store.Redis | 0 | 0 | **0.0** (0.0–0.0) | **24.0** (20.0–30.0) |",
		"| client, 0 replicas | plain SET NX, GETDEL | **1.200** (1.100–2.000) | ≤ 1.15, not met |",
		"| client, 2 replicas | plain SET NX, GETDEL | **1.000** (1.000–1.000) | ≤ 1.15, met |",
		"| store.Memory | 104 | 1000 | **200** | ≤ 200, met | 80 |",
		"| store.Memory | 225 | 1000 | **330** | ≤ 200, not met | 80 |",
		"| plain SET NX, GETDEL | 225 | 1000 | **500** |  | 10 |",
	} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("no %q in\n%s", line, b.String())
		}
	}
}

func TestRedisIsMissing(t *testing.T) {
	if _, err := findRedis(filepath.Join(t.TempDir(), redisName)); err == nil || !strings.Contains(err.Error(), "apt-get install") {
		t.Errorf("%v", err)
	}
}
