package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/cardstile/cardstile/policy/store"
)

// takeTurns has each subject do all pairs, in slices, one subject after the other and the other way round in the next
// slice. server tells the processor time of the server so far; nil: there is none.
func takeTurns(ctx context.Context, pairs int, subjects []*tokenStore, server func(context.Context) (time.Duration, error)) ([]storeRow, error) {
	all := make([]*pairing, len(subjects))
	rows := make([]storeRow, len(subjects))
	rates := make([][]float64, len(subjects))
	for i, s := range subjects {
		// Connections are made, scripts known and pools grown before the clock starts.
		if err := newPairing(s, 0).pairs(ctx, max(storeWorkers, pairs/storeSlices/5)); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		all[i] = newPairing(s, pairs)
		rows[i] = storeRow{Store: s.name}
	}
	for slice := range storeSlices {
		n := shareOf(pairs, slice, storeSlices)
		for turn := range subjects {
			i := turn
			if slice%2 == 1 {
				i = len(subjects) - 1 - turn
			}
			c, err := costOf(ctx, all[i], n, server)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", subjects[i].name, err)
			}
			rates[i] = append(rates[i], float64(n)/c.wall.Seconds())
			rows[i].client = append(rows[i].client, micros(c.client)/float64(n))
			if server != nil {
				rows[i].server = append(rows[i].server, micros(c.server)/float64(n))
			}
		}
	}
	for i := range rows {
		rows[i].sumUp(all[i], rates[i])
	}
	return rows, nil
}

// sumUp makes figures of what was measured.
func (r *storeRow) sumUp(p *pairing, rates []float64) {
	var mints, redeems []time.Duration
	for i := range p.workers {
		mints, redeems = append(mints, p.workers[i].mints...), append(redeems, p.workers[i].redeems...)
	}
	r.Pairs = min(len(mints), len(redeems))
	r.Mint, r.Redeem = latencyOf(mints), latencyOf(redeems)
	r.Throughput, r.Client, r.Server = spreadOf(rates), spreadOf(r.client), known(r.server)
}

// cost is of some pairs.
type cost struct{ wall, client, server time.Duration }

// costOf does n pairs. The server is asked outside the time that is measured.
func costOf(ctx context.Context, p *pairing, n int, server func(context.Context) (time.Duration, error)) (c cost, err error) {
	runtime.GC() // what the other subject left is not this one's to collect
	var serverBefore, serverAfter time.Duration
	if server != nil {
		if serverBefore, err = server(ctx); err != nil {
			return c, err
		}
	}
	before, err := selfCPU()
	if err != nil {
		return c, err
	}
	begin := time.Now()
	if err := p.pairs(ctx, n); err != nil {
		return c, err
	}
	c.wall = time.Since(begin)
	after, err := selfCPU()
	if err != nil {
		return c, err
	}
	if server != nil {
		if serverAfter, err = server(ctx); err != nil {
			return c, err
		}
	}
	c.client, c.server = after-before, serverAfter-serverBefore
	return c, nil
}

// shareOf is how many of n fall to the i-th of so many.
func shareOf(n, i, of int) int { return n*(i+1)/of - n*i/of }

// pairing is a subject with the workers that mint and redeem.
type pairing struct {
	subject *tokenStore
	workers [storeWorkers]pairWorker
}

// pairWorker has digests of its own, one for each number.
type pairWorker struct {
	digest         store.Digest // its last eight bytes are the number
	next           uint64       // the first number that was not minted
	redeemed       uint64       // the first number that was not redeemed
	timed          bool
	mints, redeems []time.Duration
}

// newPairing has room for the times of so many pairs, so that nothing grows while they are taken. 0: they are not taken.
func newPairing(s *tokenStore, pairs int) *pairing {
	p := &pairing{subject: s}
	for i := range p.workers {
		w := &p.workers[i]
		_, _ = rand.Read(w.digest[:]) // never fails: crypto/rand
		if w.timed = pairs > 0; !w.timed {
			continue
		}
		n := pairs/storeWorkers + storeSlices + 1
		w.mints, w.redeems = make([]time.Duration, 0, n), make([]time.Duration, 0, n)
	}
	return p
}

func (w *pairWorker) digestOf(number uint64) store.Digest {
	binary.BigEndian.PutUint64(w.digest[len(w.digest)-8:], number)
	return w.digest
}

func (w *pairWorker) mint(ctx context.Context, s *tokenStore) error {
	d := w.digestOf(w.next)
	begin := time.Now()
	if err := s.mint(ctx, d); err != nil {
		return fmt.Errorf("mint: %w", err)
	}
	if w.timed {
		w.mints = append(w.mints, time.Since(begin))
	}
	w.next++
	return nil
}

func (w *pairWorker) redeem(ctx context.Context, s *tokenStore) error {
	d := w.digestOf(w.redeemed)
	begin := time.Now()
	if err := s.redeem(ctx, d); err != nil {
		return fmt.Errorf("redeem: %w", err)
	}
	if w.timed {
		w.redeems = append(w.redeems, time.Since(begin))
	}
	w.redeemed++
	return nil
}

// pairs mints and redeems n tokens, storeLive of each worker being live once it has begun. None is in the end.
func (p *pairing) pairs(ctx context.Context, n int) error {
	return p.each(ctx, n, func(ctx context.Context, w *pairWorker, n int) error {
		for i := range n + storeLive - 1 {
			if i < n {
				if err := w.mint(ctx, p.subject); err != nil {
					return err
				}
			}
			if i >= storeLive-1 {
				if err := w.redeem(ctx, p.subject); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// mint mints n tokens and leaves them.
func (p *pairing) mint(ctx context.Context, n int) error {
	return p.each(ctx, n, func(ctx context.Context, w *pairWorker, n int) error {
		for range n {
			if err := w.mint(ctx, p.subject); err != nil {
				return err
			}
		}
		return nil
	})
}

// redeem redeems the n tokens that mint left.
func (p *pairing) redeem(ctx context.Context, n int) error {
	return p.each(ctx, n, func(ctx context.Context, w *pairWorker, n int) error {
		for range n {
			if err := w.redeem(ctx, p.subject); err != nil {
				return err
			}
		}
		return nil
	})
}

// each has all workers do their share of n at once. The first error ends it.
func (p *pairing) each(ctx context.Context, n int, do func(context.Context, *pairWorker, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range p.workers {
		wg.Go(func() {
			if err := do(ctx, &p.workers[i], shareOf(n, i, storeWorkers)); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
