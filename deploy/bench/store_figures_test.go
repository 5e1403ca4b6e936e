package main

import (
	"testing"
	"time"
)

// TestMintsAreNotRedemptions: the times of all workers are summed up, each under its own name.
func TestMintsAreNotRedemptions(t *testing.T) {
	p := newPairing(newLedger().store("ledger"), storeWorkers)
	for i := range p.workers {
		p.workers[i].mints = append(p.workers[i].mints, time.Millisecond)
		p.workers[i].redeems = append(p.workers[i].redeems, 2*time.Millisecond)
	}
	p.workers[storeWorkers-1].mints[0] = 3 * time.Millisecond
	var r storeRow
	r.sumUp(p, nil)
	if r.Pairs != storeWorkers || r.Mint != (latency{1000, 3000, 3000}) || r.Redeem != (latency{2000, 2000, 2000}) {
		t.Errorf("%d pairs, mint %+v, redeem %+v", r.Pairs, r.Mint, r.Redeem)
	}
}

// TestFiguresAreOfAPair: the slices together have neither used more of the processor nor lasted longer than all there was.
func TestFiguresAreOfAPair(t *testing.T) {
	const each = 1000
	before, err := selfCPU()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	rows, err := takeTurns(t.Context(), each*storeSlices, []*tokenStore{newLedger().store("ledger")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wall := time.Since(begin)
	after, err := selfCPU()
	if err != nil {
		t.Fatal(err)
	}
	used := 0.0
	for _, perPair := range rows[0].client {
		used += perPair * each
	}
	if total := micros(after - before); used <= 0 || used > total {
		t.Errorf("the slices used %.0f µs of %.0f", used, total)
	}
	if least := each * storeSlices / rows[0].Throughput.Max; least > wall.Seconds() {
		t.Errorf("%v pairs a second: the slices lasted %.3f s of %.3f at least", rows[0].Throughput, least, wall.Seconds())
	}
}

// TestSpentTokensKeepNoValue: what stays in memory is measured when the replay window is over.
func TestSpentTokensKeepNoValue(t *testing.T) {
	value := make([]byte, 2000)
	m, err := memoryOfMemory(t.Context(), value, 5000)
	if err != nil {
		t.Fatal(err)
	}
	if m.Live < float64(len(value)) || m.Spent >= float64(len(value))/2 {
		t.Errorf("values of %d bytes: %.0f live, %.0f spent", len(value), m.Live, m.Spent)
	}
}
