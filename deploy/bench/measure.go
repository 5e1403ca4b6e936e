package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sample is one measurement: a server doing one operation for one round.
type sample struct {
	exchanges int
	wall, cpu time.Duration
	latencies []time.Duration

	// Counted by the server; negative where it cannot tell.
	objects, bytes, syncs float64
}

// row is a cell with its measurements summed up. Times are per exchange.
type row struct {
	Operation   string `json:"operation"`
	Server      string `json:"server"`
	Connections int    `json:"connections"`
	Calls       int    `json:"issuer_calls"`
	Includes    string `json:"includes"`
	Exchanges   int    `json:"exchanges"` // of all rounds

	CPU        spread `json:"cpu_us"`
	Throughput spread `json:"exchanges_per_second"`
	Busy       spread `json:"processor_share"` // of the measured processor, 1 is all of it

	P50  float64 `json:"p50_us,omitempty"` // of all rounds together
	P99  float64 `json:"p99_us,omitempty"`
	P999 float64 `json:"p999_us,omitempty"`

	Objects *spread `json:"allocations,omitempty"`
	Bytes   *spread `json:"allocated_bytes,omitempty"`
	Syncs   *spread `json:"audit_syncs,omitempty"`

	cpu []float64 // of each round, for ratios within a round
}

// measure runs all cells once to warm up, and then round after round.
func (w *world) measure(ctx context.Context) ([]row, error) {
	cells, err := w.cells()
	if err != nil {
		return nil, err
	}
	rates := make([]float64, len(cells)) // exchanges a second, as far as known: so many tokens are needed
	samples := make([][]sample, len(cells))
	for round := range w.rounds + 1 {
		length := w.round
		if round == 0 {
			length = max(w.round/5, 50*time.Millisecond)
		}
		for i, c := range cells {
			s, err := w.sample(ctx, c, length, rates[i])
			if err != nil {
				return nil, fmt.Errorf("%s by %s, %d connections: %w", c.operation, c.server.name, c.connections, err)
			}
			rates[i] = float64(s.exchanges) / s.wall.Seconds()
			if round > 0 {
				samples[i] = append(samples[i], s)
			}
		}
		fmt.Fprintf(w.progress, "round %d of %d done\n", round, w.rounds)
	}
	rows := make([]row, len(cells))
	for i, c := range cells {
		rows[i] = sumUp(c, samples[i])
	}
	return rows, nil
}

// sample measures one cell for a while. What the servers count is read outside the time that is measured.
func (w *world) sample(ctx context.Context, c cell, length time.Duration, rate float64) (sample, error) {
	if c.operation == opRSA {
		return c.openAlone(length)
	}
	var t *tokens
	if c.once {
		want := c.connections + 1 // each connection does one exchange before the clock starts
		if c.operation == opRefused {
			want = 1
		} else {
			want += int(max(rate, 500) * 1.3 * length.Seconds())
		}
		var err error
		if t, err = w.mint(ctx, want); err != nil {
			return sample{}, fmt.Errorf("mint before: %w", err)
		}
	}
	workers, err := c.load(ctx, t)
	if err != nil {
		return sample{}, err
	}
	defer closeAll(workers)
	if _, err := drive(ctx, workers, 0); err != nil {
		return sample{}, err
	}
	before, err := c.server.count(ctx)
	if err != nil {
		return sample{}, err
	}
	// A second reading tells what a reading costs by itself.
	again, err := c.server.count(ctx)
	if err != nil {
		return sample{}, err
	}
	cpuBefore, err := cpuTime(c.server.pids)
	if err != nil {
		return sample{}, err
	}
	begin := time.Now()
	var latencies []time.Duration
	cpuAfter := cpuBefore
	for more := true; more && cpuAfter <= cpuBefore; { // on a busy machine a short round may be none to the processor's clock
		some, err := drive(ctx, workers, length)
		if err != nil {
			return sample{}, err
		}
		latencies, more = append(latencies, some...), len(some) > 0
		if cpuAfter, err = cpuTime(c.server.pids); err != nil {
			return sample{}, err
		}
	}
	wall := time.Since(begin)
	after, err := c.server.count(ctx)
	if err != nil {
		return sample{}, err
	}
	s := sample{exchanges: len(latencies), wall: wall, cpu: cpuAfter - cpuBefore, latencies: latencies, objects: -1, bytes: -1, syncs: -1}
	if s.exchanges == 0 {
		return s, errors.New("not one exchange in a round")
	}
	n := float64(s.exchanges)
	if after.heap {
		s.objects = (after.objects - again.objects - (again.objects - before.objects)) / n
		s.bytes = (after.bytes - again.bytes - (again.bytes - before.bytes)) / n
	}
	if after.audit {
		s.syncs = (after.syncs - again.syncs) / n
	}
	return s, nil
}

// openAlone measures the RSA operation by itself.
func (c cell) openAlone(length time.Duration) (sample, error) {
	before, err := cpuTime(c.server.pids)
	if err != nil {
		return sample{}, err
	}
	begin := time.Now()
	text, err := c.server.ask(length.String())
	if err != nil {
		return sample{}, err
	}
	wall := time.Since(begin)
	after, err := cpuTime(c.server.pids)
	if err != nil {
		return sample{}, err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n == 0 {
		return sample{}, fmt.Errorf("opened %q", text)
	}
	return sample{exchanges: n, wall: wall, cpu: after - before, objects: -1, bytes: -1, syncs: -1}, nil
}

// drive has every worker do exchanges, one after the other, for a time, or once where that is zero. It returns how long
// each took, in any order.
func drive(ctx context.Context, workers []worker, length time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	taken := make([][]time.Duration, len(workers))
	var wg sync.WaitGroup
	end := time.Now().Add(length)
	for i, w := range workers {
		wg.Go(func() {
			for {
				begin := time.Now()
				if err := w.exchange(); errors.Is(err, errExhausted) {
					return
				} else if err != nil {
					cancel(err)
					return
				}
				now := time.Now()
				taken[i] = append(taken[i], now.Sub(begin))
				if now.After(end) || ctx.Err() != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return slices.Concat(taken...), nil
}

// mintConnections mint tokens that are measured only when they are spent.
const mintConnections = 16

// mint makes n tokens. They live a minute, which is longer than a round.
func (w *world) mint(ctx context.Context, n int) (*tokens, error) {
	t := &tokens{all: make([]string, n)}
	jobs := &tokens{all: t.all} // hands out places to fill
	var wg sync.WaitGroup
	failed := make([]error, min(n, mintConnections))
	for i := range failed {
		wg.Go(func() { failed[i] = w.mintSome(ctx, t.all, jobs) })
	}
	wg.Wait()
	return t, errors.Join(failed...)
}

func (w *world) mintSome(ctx context.Context, into []string, jobs *tokens) error {
	c, err := dial(ctx, w.cardstile.address, w.partner)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	for {
		place := int(jobs.next.Add(1)) - 1
		if place >= len(into) || ctx.Err() != nil {
			return ctx.Err()
		}
		status, body, err := c.do(mintRequest)
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("status %d: %w", status, errOr(err))
		}
		var answer struct {
			Data struct {
				EphemeralToken string `json:"ephemeralToken"`
			} `json:"data"`
		}
		if err := json.Unmarshal(body, &answer); err != nil || answer.Data.EphemeralToken == "" {
			return errors.New("an answer without a token")
		}
		into[place] = answer.Data.EphemeralToken
	}
}

// counts are what a server counts about itself.
type counts struct {
	heap, audit           bool // whether the following are known
	objects, bytes, syncs float64
}

// count asks a server: Cardstile by its metrics, a process of ours by its standard input, nginx not at all.
func (s *server) count(ctx context.Context) (counts, error) {
	switch {
	case s.admin != "":
		return s.scrape(ctx)
	case s.in != nil:
		text, err := s.ask("heap")
		if err != nil {
			return counts{}, err
		}
		c := counts{heap: true}
		_, err = fmt.Sscan(text, &c.objects, &c.bytes)
		return c, err
	default:
		return counts{}, nil
	}
}

func (s *server) scrape(ctx context.Context) (counts, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, s.admin+"/metrics", nil)
	if err != nil {
		return counts{}, err
	}
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		return counts{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return counts{}, err
	}
	c := counts{heap: true, audit: true}
	for name, into := range map[string]*float64{
		"go_memstats_mallocs_total": &c.objects, "go_memstats_alloc_bytes_total": &c.bytes, "cardstile_audit_sync_duration_seconds_count": &c.syncs,
	} {
		if *into, err = metric(text, name); err != nil {
			return c, err
		}
	}
	return c, nil
}

// metric reads one value of Prometheus' text format; several with one name and different labels are added up.
func metric(text []byte, name string) (float64, error) {
	found, sum := false, 0.0
	for in := bufio.NewScanner(bytes.NewReader(text)); in.Scan(); {
		rest, ok := strings.CutPrefix(in.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		found, sum = true, sum+value
	}
	if !found {
		return 0, fmt.Errorf("no metric %s", name)
	}
	return sum, nil
}

// sumUp makes a row of a cell's rounds.
func sumUp(c cell, samples []sample) row {
	r := row{Operation: c.operation, Server: c.server.name, Connections: c.connections, Calls: c.calls, Includes: c.includes}
	var throughput, busy, objects, bytes, syncs []float64
	var latencies []time.Duration
	for _, s := range samples {
		n := float64(s.exchanges)
		r.Exchanges += s.exchanges
		r.cpu = append(r.cpu, micros(s.cpu)/n)
		throughput = append(throughput, n/s.wall.Seconds())
		busy = append(busy, s.cpu.Seconds()/s.wall.Seconds())
		latencies = append(latencies, s.latencies...)
		if s.objects >= 0 {
			objects, bytes = append(objects, s.objects), append(bytes, s.bytes)
		}
		if s.syncs >= 0 {
			syncs = append(syncs, s.syncs)
		}
	}
	r.CPU, r.Throughput, r.Busy = spreadOf(r.cpu), spreadOf(throughput), spreadOf(busy)
	slices.Sort(latencies)
	r.P50, r.P99, r.P999 = micros(percentile(latencies, .5)), micros(percentile(latencies, .99)), micros(percentile(latencies, .999))
	r.Objects, r.Bytes, r.Syncs = known(objects), known(bytes), known(syncs)
	return r
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// known is nil for no values: what a server cannot tell is left out of the report.
func known(values []float64) *spread {
	if len(values) == 0 {
		return nil
	}
	s := spreadOf(values)
	return &s
}
