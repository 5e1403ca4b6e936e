package main

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestLogIsSampled: a flood of lines is bounded, and hides none about a certificate, of another reason or of another message.
func TestLogIsSampled(t *testing.T) {
	core, said := observer.New(zap.InfoLevel)
	log := zap.New(newSampled(core))
	scan := func(n int, fields ...zap.Field) {
		for range n {
			log.Warn("handshake failed", append([]zap.Field{zap.String("listener", "partners")}, fields...)...)
		}
	}
	const flood = 10 * linesPerSecond
	scan(flood, zap.String("reason", "not_tls"))
	scan(flood, zap.String("reason", "other"))
	scan(1, zap.String("reason", "other"), zap.String("certificate", "a"))
	scan(1, zap.String("reason", "unknown_ca"), zap.String("certificate", "b"))
	scan(flood, zap.String("reason", "expired"), zap.String("certificate", "c"))
	scan(1, zap.String("reason", "revoked"), zap.String("certificate", "d"))
	log.With(zap.String("listener", "partners")).Warn("handshake failed", zap.String("reason", "not_tls"))
	log.Info("handshake failed", zap.String("reason", "not_tls"))
	log.Warn("reloaded")
	log.Debug("not of this level")
	lines := map[string]int{}
	for _, e := range said.All() {
		reason, _ := e.ContextMap()["reason"].(string)
		certificate, _ := e.ContextMap()["certificate"].(string)
		lines[e.Level.String()+" "+e.Message+" "+reason+" "+certificate]++
	}
	for line, want := range map[string]int{
		"warn handshake failed other a": 1, "warn handshake failed unknown_ca b": 1, "warn handshake failed revoked d": 1,
		"info handshake failed not_tls ": 1, "warn reloaded  ": 1,
	} {
		if lines[line] != want {
			t.Errorf("%q: %d lines, want %d", line, lines[line], want)
		}
	}
	most := linesPerSecond + flood/lineOfMany
	for _, line := range []string{"warn handshake failed not_tls ", "warn handshake failed other ", "warn handshake failed expired c"} {
		if got := lines[line]; got < linesPerSecond || got > 2*most { // a second may have begun anew
			t.Errorf("%q: %d lines, want %d", line, got, most)
		}
	}
	if len(lines) != 8 {
		t.Errorf("%d kinds of lines: %v", len(lines), lines)
	}
}
