package gateway

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cardstile/cardstile/policy"
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

// TestPartnerCertificateEnds: the metric has the certificate that a partner was last seen with, and no longer once the
// partner, or its certificate, is none of the configuration's, or has ended a while ago.
func TestPartnerCertificateEnds(t *testing.T) {
	end := time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)
	now := end.Add(-day)
	certificate := func(cn string) *x509.Certificate {
		der, err := asn1.Marshal(pkix.Name{CommonName: cn}.ToRDNSequence())
		if err != nil {
			t.Fatal(err)
		}
		return &x509.Certificate{NotAfter: end, RawSubject: der, RawSubjectPublicKeyInfo: []byte(cn)}
	}
	subject := func(cn string) policy.Subject {
		s, err := policy.ParseSubject("CN=" + cn)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	p := newPartnerCertificates(nil)
	a := certificate("a")
	p.saw("a", [32]byte{1}, a, now)
	for _, c := range []struct {
		what string
		now  time.Time
		list []policy.Partner
		want bool
	}{
		{"as it was seen", now, []policy.Partner{{ID: "a", Subjects: []policy.Subject{subject("a")}}}, true},
		{"its pin", now, []policy.Partner{{ID: "a", Subjects: []policy.Subject{subject("a")}, Pins: []policy.Fingerprint{policy.PinOf(a)}}}, true},
		{"another pin", now, []policy.Partner{{ID: "a", Subjects: []policy.Subject{subject("a")}, Pins: []policy.Fingerprint{{1}}}}, false},
		{"another subject", now, []policy.Partner{{ID: "a", Subjects: []policy.Subject{subject("b")}}}, false},
		{"no certificate", now, []policy.Partner{{ID: "a"}}, false},
		{"switched off", now, []policy.Partner{{ID: "a", Disabled: true, Subjects: []policy.Subject{subject("a")}}}, false},
		{"just ended", end.Add(7 * day), []policy.Partner{{ID: "a", Subjects: []policy.Subject{subject("a")}}}, true},
		{"ended long ago", end.Add(7*day + time.Second), []policy.Partner{{ID: "a", Subjects: []policy.Subject{subject("a")}}}, false},
		{"gone", now, []policy.Partner{{ID: "b", Subjects: []policy.Subject{subject("b")}}}, false},
		{"there again, and not seen since", now, []policy.Partner{{ID: "a", Subjects: []policy.Subject{subject("a")}}}, false},
	} {
		partners, err := policy.NewPartners(c.list, policy.Fingerprint{9})
		if err != nil {
			t.Fatal(err)
		}
		ends := p.ends(partners, c.now)
		if got, there := ends["a"]; there != c.want || there && !got.Equal(end) || len(ends) > 1 {
			t.Errorf("%s: %v, want %v", c.what, ends, c.want)
		}
	}
}

// TestPartnerCertificateRestart: a process that starts shortly before the end says so once, for the nearest of the times,
// and not for those that have passed before it.
func TestPartnerCertificateRestart(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	end := time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		before time.Duration
		want   int64
	}{{20 * day, 30}, {10 * day, 14}, {5 * day, 7}, {time.Hour, 1}} {
		p := newPartnerCertificates(zap.New(core)) // knows nothing of the one before it
		for range 5 {
			p.saw("a", [32]byte{1}, &x509.Certificate{NotAfter: end}, end.Add(-c.before))
			p.saw("a", [32]byte{2}, &x509.Certificate{NotAfter: end.AddDate(0, 0, 90)}, end.Add(-c.before)) // the one that follows it
		}
		if lines := logs.TakeAll(); len(lines) != 1 || lines[0].ContextMap()["within_days"] != c.want {
			t.Errorf("%v before the end: %v", c.before, lines)
		}
	}
}

// TestThousandPartnerCertificates: each has its metric and its warning, and calls of all at one time race for nothing.
func TestThousandPartnerCertificates(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	p := newPartnerCertificates(zap.New(core))
	end := time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)
	subject, err := policy.ParseSubject("CN=x")
	if err != nil {
		t.Fatal(err)
	}
	der := subject.DER()
	const n = 1000
	var list []policy.Partner
	var wg sync.WaitGroup
	for i := range n {
		id := strconv.Itoa(i)
		// All have one name here, each under a CA of its own.
		list = append(list, policy.Partner{ID: id, Subjects: []policy.Subject{subject}, CA: []policy.Fingerprint{{byte(i), byte(i >> 8)}}})
		wg.Go(func() {
			for range 3 {
				p.saw(id, [32]byte{byte(i), byte(i >> 8)}, &x509.Certificate{NotAfter: end.Add(time.Duration(i) * time.Second), RawSubject: der}, end.Add(-day))
			}
		})
	}
	wg.Wait()
	partners, err := policy.NewPartners(list)
	if err != nil {
		t.Fatal(err)
	}
	ends := p.ends(partners, end)
	for i := range n {
		if got := ends[strconv.Itoa(i)]; !got.Equal(end.Add(time.Duration(i) * time.Second)) {
			t.Fatalf("partner %d: %v", i, got)
		}
	}
	if lines := logs.TakeAll(); len(lines) != n {
		t.Errorf("%d lines", len(lines))
	}
}

// TestManyCertificatesOfAPartner: a partner that has a CA of its own can come with a new certificate each time.
func TestManyCertificatesOfAPartner(t *testing.T) {
	p := newPartnerCertificates(nil)
	now := time.Now()
	leaf := &x509.Certificate{NotAfter: now.Add(90 * day)}
	for i := range maxSeenCertificates + 10 {
		p.saw("a", [32]byte{byte(i), byte(i >> 8), 1}, leaf, now)
	}
	if len(p.all) != maxSeenCertificates {
		t.Errorf("%d are kept", len(p.all))
	}
}
