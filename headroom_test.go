package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// TestHeadroom: the target leaves 64 MiB over a small heap, lets a large one double, and is the operator's where GOGC is set.
func TestHeadroom(t *testing.T) {
	for live, want := range map[uint64]int{0: 1600, 1 << 20: 1600, 8 << 20: 800, 32 << 20: 200, 64 << 20: 100, 1 << 40: 100} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d bytes live: %d, want %d", live, got, want)
		}
	}
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	target := func() uint64 { return figure("/gc/gogc:percent") }
	debug.SetGCPercent(150)
	if h := newHeadroom(); h != nil || target() != 150 {
		t.Errorf("GOGC is 150, and the target is %d", target())
	}
	debug.SetGCPercent(100)
	h := newHeadroom()
	kept := make([]byte, 128<<20)
	runtime.GC()
	if h.look(); target() != 100 {
		t.Errorf("128 MiB live: %d, want 100", target())
	}
	runtime.KeepAlive(kept)
	kept = nil
	runtime.GC()
	if h.look(); target() <= 100 {
		t.Errorf("little live: %d, want more than 100", target())
	}
	set := h.percent
	h.adjust(uint64(100 * headroomBytes / (set + 1)))
	if h.percent != set {
		t.Errorf("%d became %d", set, h.percent)
	}
	(*headroom)(nil).look()
}
