package gateway_test

import (
	"crypto/tls"
	"net"
	"slices"
	"testing"

	"github.com/cardstile/cardstile/gateway"
)

// TestPostQuantumByDefault: whoever offers X25519MLKEM768 gets it, on every listener, and every other group is there for those who
// do not; the metric tells them apart.
func TestPostQuantumByDefault(t *testing.T) {
	h := newHouse(t, options{})
	for _, listener := range []string{"partners", "public"} {
		count := func(group tls.CurveID) float64 {
			return h.metric("cardstile_handshakes_total", "listener", listener, "version", "TLS 1.3", "group", group.String())
		}
		before := count(tls.X25519MLKEM768)
		if state, err := h.shake(listener, with(shared().partner)); err != nil || state.CurveID != tls.X25519MLKEM768 {
			t.Errorf("%s: a client of today gets %s: %v", listener, state.CurveID, err)
		}
		if got := count(tls.X25519MLKEM768) - before; got != 1 {
			t.Errorf("%s: %v handshakes counted as post-quantum", listener, got)
		}
		for _, group := range groups() {
			c := with(shared().partner)
			c.CurvePreferences = []tls.CurveID{group}
			before := count(group)
			if state, err := h.shake(listener, c); err != nil || state.CurveID != group {
				t.Errorf("%s: a client that has only %s gets %s: %v", listener, group, state.CurveID, err)
			}
			if got := count(group) - before; got != 1 {
				t.Errorf("%s: %v handshakes counted as %s", listener, got, group)
			}
		}
	}
	c := &tls.Config{MaxVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for _, resumed := range []bool{false, true} { // a session remembers its group
		if state, err := h.shake("public", c); err != nil || state.DidResume != resumed {
			t.Fatalf("resumed %t, want %t: %v", state.DidResume, resumed, err)
		}
	}
	if got := h.metric("cardstile_handshakes_total", "listener", "public", "version", "TLS 1.2", "group", classic().String()); got != 2 {
		t.Errorf("%v handshakes of TLS 1.2 counted, want 2", got)
	}
}

// TestPostQuantumToIssuers: we offer it, and every other group, to what we connect to; so does the listener of operators to them.
func TestPostQuantumToIssuers(t *testing.T) {
	k := shared()
	ours := gateway.ServerTLS(k.servers.server(), nil)
	theirs := gateway.ClientTLS(k.servers.pool())
	theirs.ServerName = "localhost"
	var offered []tls.CurveID
	issuer := &tls.Config{
		Certificates: []tls.Certificate{k.servers.server()},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			offered = hello.SupportedCurves
			return nil, nil
		},
	}
	for name, server := range map[string]*tls.Config{"issuer": issuer, "operators": ours} {
		if got := negotiated(t, server, theirs); got != tls.X25519MLKEM768 {
			t.Errorf("%s: %s", name, got)
		}
	}
	slices.Sort(offered)
	if want := slices.Sorted(slices.Values(groups())); !slices.Equal(offered, want) {
		t.Errorf("issuers are offered %s, want %s", offered, want)
	}
}

// negotiated is the group of a handshake between two configurations.
func negotiated(t *testing.T, server, client *tls.Config) tls.CurveID {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() { done <- tls.Server(a, server).HandshakeContext(t.Context()) }()
	conn := tls.Client(b, client)
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = conn.Read(make([]byte, 1)) }() // tickets
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return conn.ConnectionState().CurveID
}
