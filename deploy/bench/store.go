package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// The store's part: what a token that is used once costs, beside a token that is merely deleted.
const (
	storeWorkers = 64 // mint and redeem at once
	storeLive    = 16 // tokens of each worker that wait for their redemption
	storeSlices  = 20 // in which the subjects take turns, so that what disturbs the machine disturbs them alike

	// redisTokens are held at once, at most, where the memory of a token is measured on Redis. In Memory it is all pairs.
	redisTokens = 200_000

	// storeTTL is longer than a token waits for its redemption here, and long enough that no spent record ends while it is measured.
	storeTTL = 5 * time.Minute
)

// The goals of a fenced pair beside a plain one, and of a live token in Memory.
const (
	goalClient     = 1.15
	goalServer     = 1.5
	goalTokenBytes = 200
)

// storeReport is what this part found out.
type storeReport struct {
	Redis      string        `json:"redis"`
	Client     string        `json:"client"` // go-redis
	Pairs      int           `json:"pairs"`  // of each row
	Slices     int           `json:"slices"`
	Workers    int           `json:"workers"`
	Live       int           `json:"live_per_worker"`
	ValueBytes int           `json:"value_bytes"`
	Rows       []storeRow    `json:"rows"`
	Ratios     []ratio       `json:"ratios"`
	Memory     []tokenMemory `json:"memory"`
}

// storeRow is a store with so many replicas. Times are per pair, a mint and its redemption.
type storeRow struct {
	Store      string  `json:"store"`
	Replicas   int     `json:"replicas"`
	Pairs      int     `json:"pairs"`
	Throughput spread  `json:"pairs_per_second"`
	Client     spread  `json:"client_cpu_us"`
	Server     *spread `json:"server_cpu_us,omitempty"` // nil where there is none
	Mint       latency `json:"mint"`
	Redeem     latency `json:"redeem"`

	client, server []float64 // of each slice, for ratios within a slice
}

// latency is of all slices together, µs.
type latency struct {
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
}

func latencyOf(taken []time.Duration) latency {
	slices.Sort(taken)
	us := func(q float64) float64 { return micros(percentile(taken, q)) }
	return latency{us(.5), us(.99), us(.999)}
}

// measureStore measures the store in this process's memory, then Redis alone, then Redis with two replicas.
func (w *world) measureStore(ctx context.Context) (*storeReport, error) {
	binary, err := findRedis(redisName)
	if err != nil {
		return nil, err
	}
	unbound, bound, err := sealedGrants(ctx)
	if err != nil {
		return nil, fmt.Errorf("seal a grant: %w", err)
	}
	r := &storeReport{
		Client: moduleVersion("github.com/redis/go-redis/v9"), Pairs: w.pairs, Slices: storeSlices,
		Workers: storeWorkers, Live: storeLive, ValueBytes: len(bound),
	}
	for _, value := range [][]byte{unbound, bound} {
		m, err := memoryOfMemory(ctx, value, w.pairs)
		if err != nil {
			return nil, fmt.Errorf("memory of a token: %w", err)
		}
		r.Memory = append(r.Memory, m)
	}
	if err := w.pairsInMemory(ctx, r, bound); err != nil {
		return nil, fmt.Errorf("store in memory: %w", err)
	}
	primary, err := w.startRedis(ctx, binary, w.cores.measured, "primary", nil)
	if err != nil {
		return nil, err
	}
	r.Redis = primary.version
	if err := w.pairsOnRedis(ctx, r, primary, bound, 0); err != nil {
		return nil, fmt.Errorf("store on Redis: %w", err)
	}
	for _, value := range [][]byte{unbound, bound} {
		all, err := memoryOfRedis(ctx, primary, value, min(w.pairs, redisTokens))
		if err != nil {
			return nil, fmt.Errorf("memory of a token on Redis: %w", err)
		}
		r.Memory = append(r.Memory, all...)
	}
	const replicas = 2
	for i := range replicas {
		if _, err := w.startRedis(ctx, binary, w.cores.other, fmt.Sprintf("replica-%d", i+1), primary); err != nil {
			return nil, err
		}
	}
	if err := primary.waitForReplicas(ctx, replicas); err != nil {
		return nil, err
	}
	if err := w.pairsOnRedis(ctx, r, primary, bound, replicas); err != nil {
		return nil, fmt.Errorf("store on Redis with replicas: %w", err)
	}
	r.Ratios = storeRatios(r.Rows)
	return r, nil
}

// moduleVersion is of a module that this program is built with.
func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return ""
}

// pairsInMemory measures store.Memory.
func (w *world) pairsInMemory(ctx context.Context, r *storeReport, value []byte) error {
	s, done, err := memorySubject(value, 2*w.pairs+1<<16, nil) // spent records stay, the ones from before the clock started too
	if err != nil {
		return err
	}
	defer done()
	rows, err := takeTurns(ctx, w.pairs, []*tokenStore{s}, nil)
	if err != nil {
		return err
	}
	r.Rows = append(r.Rows, rows...)
	fmt.Fprintf(w.progress, "store: %d pairs in memory done\n", w.pairs)
	return nil
}

// pairsOnRedis measures the fenced store and the plain commands on one server, in databases of their own, so that the spent
// records of the one are not in the tables of the other.
func (w *world) pairsOnRedis(ctx context.Context, r *storeReport, primary *redisServer, value []byte, replicas int) error {
	if err := primary.flush(ctx); err != nil {
		return err
	}
	fenced, plain, done, err := redisSubjects(ctx, primary.address, value)
	if err != nil {
		return err
	}
	defer done()
	before, err := primary.replication(ctx)
	if err != nil {
		return err
	}
	rows, err := takeTurns(ctx, w.pairs, []*tokenStore{fenced, plain}, primary.cpu)
	if err != nil {
		return err
	}
	after, err := primary.replication(ctx)
	if err != nil {
		return err
	}
	if before.online != replicas || after != before {
		return fmt.Errorf("%d replicas and %d full synchronisations before, %d and %d after: want %d all the time",
			before.online, before.full, after.online, after.full, replicas)
	}
	for i := range rows {
		rows[i].Replicas = replicas
	}
	r.Rows = append(r.Rows, rows...)
	fmt.Fprintf(w.progress, "store: %d pairs on Redis with %d replicas done\n", w.pairs, replicas)
	return nil
}

// storeRatios compare the fenced rows with the plain ones of the same slices.
func storeRatios(rows []storeRow) []ratio {
	var all []ratio
	for _, fenced := range rows {
		for _, plain := range rows {
			if fenced.Store != storeFenced || plain.Store != storePlain || fenced.Replicas != plain.Replicas {
				continue
			}
			with := fmt.Sprintf(", %d replicas", fenced.Replicas)
			all = append(all,
				ratio{"client" + with, storePlain, quotients(fenced.client, plain.client), goalClient},
				ratio{"server" + with, storePlain, quotients(fenced.server, plain.server), goalServer})
		}
	}
	return all
}

func quotients(a, b []float64) spread {
	var values []float64
	for i := range min(len(a), len(b)) {
		values = append(values, a[i]/b[i])
	}
	return spreadOf(values)
}
