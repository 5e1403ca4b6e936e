package audit_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/audit"
)

// pooledMAC is as a key of use "audit" does it: HMAC-SHA-256 states that are used again.
type pooledMAC struct{ states sync.Pool }

func newPooledMAC() *pooledMAC {
	return &pooledMAC{states: sync.Pool{New: func() any { return hmac.New(sha256.New, []byte(testKey)) }}}
}

func (m *pooledMAC) MAC(dst, message []byte) []byte {
	h := m.states.Get().(hash.Hash)
	h.Reset()
	h.Write(message)
	dst = h.Sum(dst)
	m.states.Put(h)
	return dst
}

// BenchmarkRecord is what every exchange pays before its answer may leave: once for a read, twice for a change. How many exchanges share a
// sync decides about both the rate and the CPU for each.
func BenchmarkRecord(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchmarkRecord(b, callers) })
	}
}

func benchmarkRecord(b *testing.B, callers int) {
	c := audit.Config{File: newPath(b), Instance: "gw-1", MAC: newPooledMAC()}
	var syncs atomic.Int64
	c.Intercept(func(f audit.File) audit.File { return &counted{f, &syncs} })
	l := open(b, c)
	var left atomic.Int64
	left.Store(int64(b.N))
	before := syncs.Load()
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime(b)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			e := fullEvent()
			for left.Add(-1) >= 0 {
				if err := l.Record(context.Background(), e); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	n := float64(b.N)
	b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/1e3/n, "cpu-µs/record")
	b.ReportMetric(n/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(syncs.Load()-before)/n, "syncs/record")
}

// counted counts syncs and nothing else.
type counted struct {
	audit.File
	syncs *atomic.Int64
}

func (c *counted) Sync() error {
	c.syncs.Add(1)
	return c.File.Sync()
}

// cpuTime is the user and system time of this process.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// nowhere is a file that takes no time: what is left is our own work.
type nowhere struct{ audit.File }

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) Sync() error                 { return nil }

// BenchmarkRecordWithoutDisk is the part of BenchmarkRecord that is ours: JSON, two MACs, two goroutine switches.
func BenchmarkRecordWithoutDisk(b *testing.B) {
	c := audit.Config{File: newPath(b), Instance: "gw-1", MAC: newPooledMAC()}
	c.Intercept(func(f audit.File) audit.File { return &nowhere{f} })
	l := open(b, c)
	e := fullEvent()
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Record(context.Background(), e); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify is what an auditor waits for.
func BenchmarkVerify(b *testing.B) {
	path := newPath(b)
	c := testConfig(path)
	c.Intercept(func(f audit.File) audit.File { return &unsynced{f} })
	l := open(b, c)
	for range 1000 {
		if err := l.Record(context.Background(), fullEvent()); err != nil {
			b.Fatal(err)
		}
	}
	closeLog(b, l)
	log, mac := read(b, path), newPooledMAC()
	b.SetBytes(int64(len(log)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := audit.VerifyFiles([]string{path}, mac); err != nil {
			b.Fatal(err)
		}
	}
}

type unsynced struct{ audit.File }

func (unsynced) Sync() error { return nil }
