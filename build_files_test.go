package main

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCheckTellsOfCertificatesOutOfTime: a certificate that nobody takes now is said by its key, a server's and an authority's; and the
// listener knows when the first of its authorities ends.
func TestCheckTellsOfCertificatesOutOfTime(t *testing.T) {
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	now := time.Now().UTC().Truncate(time.Second)
	day := 24 * time.Hour
	again := func(name, to string, from, until time.Time) {
		pair, err := tls.LoadX509KeyPair(h.path(name+".pem"), h.path(name+"-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		pair.Leaf.NotBefore, pair.Leaf.NotAfter, pair.Leaf.SerialNumber = from, until, big.NewInt(7)
		der, err := x509.CreateCertificate(rand.Reader, pair.Leaf, pair.Leaf, pair.Leaf.PublicKey, pair.PrivateKey)
		if err == nil {
			err = os.WriteFile(h.path(to), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	again("server", "good.pem", now.Add(-day), now.Add(day))
	again("server", "ended.pem", now.Add(-2*day), now.Add(-day))
	again("server", "later.pem", now.Add(day), now.Add(2*day))
	again("partners-ca", "ended-ca.pem", now.Add(-2*day), now.Add(-day))
	again("partners-ca", "good-ca.pem", now.Add(-day), now.Add(30*day))
	var both []byte
	for _, name := range []string{"good-ca.pem", "ended-ca.pem"} {
		both = append(both, h.read(name)...)
	}
	if err := os.WriteFile(h.path("both-ca.pem"), both, 0o600); err != nil {
		t.Fatal(err)
	}
	base := string(h.read("config.yaml"))
	stamp := func(by time.Duration) string { return now.Add(by).Format(time.RFC3339) }
	const at = "listeners.partners.tls."
	for _, test := range []struct {
		certificate, ca string
		told            []string
		end             time.Duration
	}{
		{"good.pem", "good-ca.pem", nil, 30 * day},
		{"ended.pem", "good-ca.pem", []string{at + "certificate: the certificate ended " + stamp(-day)}, 30 * day},
		{"later.pem", "good-ca.pem", []string{at + "certificate: the certificate is valid from " + stamp(day) + " on"}, 30 * day},
		{"good.pem", "both-ca.pem", []string{at + "client_ca: the certificate ended " + stamp(-day)}, -day},
	} {
		changed := strings.Replace(base, "certificate: server.pem, key: server-key.pem, client_ca: partners-ca.pem", "certificate: "+test.certificate+", key: server-key.pem, client_ca: "+test.ca, 1)
		if err := os.WriteFile(h.path("told.yaml"), []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		b, _ := load(h.path("told.yaml")) // of partners, with two authorities
		told := slices.DeleteFunc(slices.Clone(b.notices), func(n string) bool { return !strings.Contains(n, "the certificate ") })
		if !slices.Equal(told, test.told) {
			t.Errorf("%s, %s: %q, want %q", test.certificate, test.ca, told, test.told)
		}
		if end := b.listener("partners").ClientCAsEnd; !end.Equal(now.Add(test.end)) {
			t.Errorf("%s, %s: the authorities end %s, want %s", test.certificate, test.ca, end, now.Add(test.end))
		}
	}
	if b, err := load(h.path("config.yaml")); err != nil || !b.listener("public").ClientCAsEnd.IsZero() {
		t.Errorf("where no certificate is asked for, authorities end; %v", err)
	}
}

// TestOperatorsAuthoritiesEnd: when those of the operators' clients end is for the metric too.
func TestOperatorsAuthoritiesEnd(t *testing.T) {
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	changed := strings.Replace(string(h.read("config.yaml")), "\nadmin: {", "\nadmin: {tls: {certificate: server.pem, key: server-key.pem, client_ca: partners-ca.pem}, ", 1)
	if err := os.WriteFile(h.path("told.yaml"), []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := load(h.path("told.yaml"))
	if err != nil || b.admin.ClientCAsEnd.IsZero() || !b.admin.ClientCAsEnd.Equal(b.listener("partners").ClientCAsEnd) {
		t.Errorf("%v, %v", b.admin.ClientCAsEnd, err)
	}
}

// TestUnreadableCAIsOneProblem: a partner whose CA does not load is not told besides that it names none.
func TestUnreadableCAIsOneProblem(t *testing.T) {
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	changed := strings.Replace(string(h.read("config.yaml")), "certificate: {subject:", "certificate: {ca: missing.pem, subject:", 1)
	changed = strings.Replace(changed, "client_ca: partners-ca.pem}", "client_ca: partners-ca.pem}\n    host_client_ca: {api.example.com: stranger-ca.pem}", 1)
	if err := os.WriteFile(h.path("told.yaml"), []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := load(h.path("told.yaml"))
	if found, ok := errors.AsType[problems](err); !ok || len(found) != 1 || !strings.Contains(err.Error(), "partners[0].certificate.ca: ") {
		t.Errorf("%v", err)
	}
}
