package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cardstile/cardstile/internal/testacme"
	"github.com/cardstile/cardstile/internal/testredis"
)

// withHosts has the public listener's certificate come from an authority.
func (h *house) withHosts(hosts, certificates string) {
	h.t.Helper()
	h.edit("config.yaml", "    tls: {certificate: server.pem, key: server-key.pem}\n", "    tls: {hosts: ["+hosts+"]}\n")
	h.edit("config.yaml", "admin: {", "certificates: "+certificates+"\n\nadmin: {")
}

// shown returns the certificate for a host that a gateway shows, as soon as it has a good one.
func (g *gatewayProcess) shown(t testing.TB, host string, roots *x509.CertPool) *x509.Certificate {
	t.Helper()
	var c *x509.Certificate
	eventually(t, "a certificate for "+host, func() bool {
		conn, err := tls.Dial("tcp", g.addr["public"], &tls.Config{ServerName: host, RootCAs: roots})
		if err != nil {
			return false
		}
		defer conn.Close()
		c = conn.ConnectionState().PeerCertificates[0]
		return true
	})
	return c
}

// TestFleet: instances that share a Redis share certificates. Of two that need one, one orders it, whichever of them the
// authority comes to; where that one dies in the middle of it, the other one gets its lock.
func TestFleet(t *testing.T) {
	t.Parallel()
	ca, server := testacme.Start(t, testacme.Options{}), testredis.Start(t)
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	h.useRedis(server.Addr)
	h.withHosts("cards.example.test", fmt.Sprintf("{acme: {url: %q, ca: %q, agree: true}}", ca.URL, ca.File))
	one := string(h.read("config.yaml"))
	if err := h.write("b.yaml", []byte(strings.Replace(one, "audit.jsonl", "b-audit.jsonl", 1))); err != nil {
		t.Fatal(err)
	}

	ca.Hold()
	a := serveProcess(t, binary(t), h.path("config.yaml"))
	ca.TLS.Lead(a.addr["public"])
	ca.Held(t)
	b := serveProcess(t, binary(t), h.path("b.yaml"))
	if n := ca.Orders(); n != 1 {
		t.Errorf("%d orders", n)
	}
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ca.TLS.Lead(b.addr["public"])
	ca.Release()
	first := b.shown(t, "cards.example.test", ca.Roots)
	if n := ca.Orders(); n != 2 {
		t.Errorf("%d orders, want the dead one's and another", n)
	}

	a = serveProcess(t, binary(t), h.path("config.yaml"))
	if !a.shown(t, "cards.example.test", ca.Roots).Equal(first) {
		t.Error("two instances have two certificates")
	}
	// A host that joins is ordered once, though the authority comes to both in turn: when both know the host, since one that does not
	// lets nobody in for it.
	ca.TLS.Lead(a.addr["public"], b.addr["public"])
	ca.HoldNew()
	for _, name := range []string{"config.yaml", "b.yaml"} {
		h.edit(name, "[cards.example.test]", "[cards.example.test, pay.example.test]")
	}
	for _, g := range []*gatewayProcess{a, b} {
		if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range []*gatewayProcess{a, b} {
		eventually(t, "a reload", func() bool { return strings.Contains(g.log(), `"msg":"reloaded"`) })
	}
	ca.Release()
	second := a.shown(t, "pay.example.test", ca.Roots)
	if !b.shown(t, "pay.example.test", ca.Roots).Equal(second) || ca.Orders() != 3 {
		t.Errorf("two instances have two certificates, of %d orders", ca.Orders())
	}
	keys := 0
	for key, value := range server.Dump() {
		if strings.Contains(value, "PRIVATE KEY") || strings.Contains(value, "CERTIFICATE") {
			t.Errorf("%s can be read", key)
		}
		keys += strings.Count(key+value, ".key")
	}
	if keys < 3 { // of two hosts, and of the account
		t.Errorf("%d keys are kept", keys)
	}
	for _, g := range []*gatewayProcess{a, b} {
		g.stop(t, syscall.SIGTERM)
		if strings.Contains(g.log(), "PRIVATE") {
			t.Error("a key stands in the log")
		}
	}
}

// TestCertificatesCommand prints the development CA, before there is a gateway and after.
func TestCertificatesCommand(t *testing.T) {
	t.Parallel()
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	print := func() (string, error) {
		out, err := exec.Command(binary(t), "certificates", "ca", "--config", h.path("config.yaml")).Output()
		return string(out), err
	}
	if out, err := print(); err == nil || out != "" {
		t.Errorf("without one: %q, %v", out, err)
	}
	h.withHosts("localhost", "{ca: local, directory: certificates}")
	first, err := print()
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM([]byte(first)) {
		t.Fatalf("%q, %v", first, err)
	}
	g := serveProcess(t, binary(t), h.path("config.yaml"))
	if c := g.shown(t, "localhost", roots); time.Until(c.NotAfter) > 8*24*time.Hour {
		t.Errorf("good until %v", c.NotAfter)
	}
	g.stop(t, syscall.SIGTERM)
	if again, err := print(); err != nil || again != first {
		t.Errorf("another one: %v", err)
	}
}

// TestCertificateNotices: `check` tells what an auditor, or who opens ports, will ask about.
func TestCertificateNotices(t *testing.T) {
	t.Parallel()
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	base := string(h.read("config.yaml"))
	for certificates, want := range map[string]string{
		"{ca: local, directory: c}":                                                             "certificates: of a development CA: only who was told to trust it does",
		"{acme: {agree: true}, directory: c}":                                                   "listeners.public: the authority connects to port 443 of its hosts, which must lead to 127.0.0.1:0",
		`{acme: {agree: true, challenge: http-01, http_address: ":80"}, directory: c}`:          "certificates.acme.http_address: :80 listens without TLS: it answers challenges, and 404 to everything else",
		`{acme: {agree: true, challenge: http-01, http_address: "127.0.0.1:80"}, directory: c}`: "",
	} {
		if err := h.write("config.yaml", []byte(base)); err != nil {
			t.Fatal(err)
		}
		h.withHosts("a.example", certificates)
		b, err := load(h.path("config.yaml"))
		if err != nil {
			t.Fatalf("%s: %v", certificates, err)
		}
		var told []string
		for _, n := range b.notices {
			if strings.Contains(n, "certificates") || strings.Contains(n, "443") {
				told = append(told, n)
			}
		}
		if got := strings.Join(told, "; "); got != want {
			t.Errorf("%s: %q, want %q", certificates, got, want)
		}
	}
	if err := h.write("config.yaml", []byte(base)); err != nil {
		t.Fatal(err)
	}
	h.edit("config.yaml", "admin: {", "certificates: {ca: local, directory: c}\n\nadmin: {")
	b, err := load(h.path("config.yaml"))
	if err != nil || !strings.Contains(strings.Join(b.notices, "\n"), "no listener has tls.hosts") {
		t.Errorf("%q, %v", b.notices, err)
	}
}
