package main

import (
	"runtime/debug"
	"runtime/metrics"
)

// This file is how much garbage the heap may gather before it is collected.

// headroomBytes is what the heap may grow by between two collections at least. Go lets it double: a gateway whose live heap is some
// 10 MiB would collect for every 200 handshakes, at a twentieth of the processor. Where more than this is live, it doubles.
const headroomBytes = 64 << 20

// headroom keeps Go's target (GOGC) where headroomBytes are left. GOMEMLIMIT, where it is set, comes first as always.
type headroom struct{ percent int }

// newHeadroom sets the target, or leaves it to whoever has set GOGC to another than Go's own: then it is nil.
func newHeadroom() *headroom {
	if percent := figure("/gc/gogc:percent"); percent != 100 {
		return nil
	}
	h := &headroom{}
	h.look()
	return h
}

// look sets the target anew, by what the last collection left alive.
func (h *headroom) look() {
	if h != nil {
		h.adjust(figure("/gc/heap/live:bytes")) // what the last collection left alive
	}
}

func (h *headroom) adjust(live uint64) {
	percent := gcPercent(live)
	if h.percent != 0 && percent*10 > h.percent*9 && percent*10 < h.percent*11 {
		return // to set it stops the world for a moment
	}
	debug.SetGCPercent(percent)
	h.percent = percent
}

// gcPercent is the target that leaves headroomBytes over what is live, and at least what Go leaves by itself. Before the first
// collection, and over a heap that is next to nothing, it is that of 4 MiB.
func gcPercent(live uint64) int {
	return max(100, int(100*headroomBytes/max(live, 4<<20)))
}

// figure is one of the runtime's own. One that the runtime does not have is 0.
func figure(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}
