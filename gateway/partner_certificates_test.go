package gateway

import (
	"crypto/x509"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestPartnerCertificateWarnings: one line for each certificate and threshold, however often it is seen, and by whichever
// of two that overlap.
func TestPartnerCertificateWarnings(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	p := newPartnerCertificates(zap.New(core))
	end := time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)
	old, fresh := &x509.Certificate{NotAfter: end}, &x509.Certificate{NotAfter: end.AddDate(0, 0, 90)}
	at := func(before time.Duration) {
		t.Helper()
		for range 3 {
			p.saw("a", [32]byte{1}, old, end.Add(-before))
			p.saw("a", [32]byte{2}, fresh, end.Add(-before))
		}
	}
	for _, c := range []struct {
		before time.Duration
		want   []int64 // days of the lines
	}{
		{30*day + time.Second, nil},
		{30 * day, []int64{30}},
		{15 * day, nil},
		{14 * day, []int64{14}},
		{7 * day, []int64{7}},
		{2 * day, nil},
		{day, []int64{1}},
		{time.Hour, nil},
	} {
		at(c.before)
		lines := logs.TakeAll()
		if len(lines) != len(c.want) {
			t.Fatalf("%v before the end: %d lines, want %v", c.before, len(lines), c.want)
		}
		for i, line := range lines {
			if got := line.ContextMap()["within_days"]; got != c.want[i] || line.ContextMap()["partner"] != "a" {
				t.Errorf("%v before the end: %v, want %d", c.before, line.ContextMap(), c.want[i])
			}
		}
	}
	last, _ := p.last.Load("a")
	if got := last.(*seenCertificate).end; !got.Equal(fresh.NotAfter) {
		t.Errorf("last seen: the one that ends %v, want %v", got, fresh.NotAfter)
	}
}

// TestPartnerCertificateSeenLate: a certificate that is first seen shortly before its end is told of once.
func TestPartnerCertificateSeenLate(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	p := newPartnerCertificates(zap.New(core))
	end := time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)
	p.saw("a", [32]byte{1}, &x509.Certificate{NotAfter: end}, end.Add(-3*day))
	if lines := logs.TakeAll(); len(lines) != 1 || lines[0].ContextMap()["within_days"] != int64(7) {
		t.Fatalf("%v", lines)
	}
	p.saw("b", [32]byte{2}, &x509.Certificate{NotAfter: end.AddDate(1, 0, 0)}, end.Add(day)) // forgets what ended
	if _, there := p.all[[32]byte{1}]; there || len(p.all) != 1 {
		t.Errorf("%d certificates are kept", len(p.all))
	}
}
