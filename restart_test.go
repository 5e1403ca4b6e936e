package main

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestRestart loads configurations that differ in one thing, and holds what a reload says was left out to it.
func TestRestart(t *testing.T) {
	t.Parallel()
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	if err := generateKey("audit", 0, h.path("audit2.pem"), "", ""); err != nil {
		t.Fatal(err)
	}
	const (
		admin  = `admin: {address: "127.0.0.1:0"}`
		limits = "limits: {"
		store  = "store: {memory: {logins_file: logins}}"
		redis  = `store: {redis: {addresses: ["127.0.0.1:1"], tls: {ca: redis-ca.pem, certificate: redis.pem, key: redis-key.pem}}}`
	)
	const (
		local = "certificates: {ca: local, directory: certificates}\n"
		acme  = `certificates: {directory: certificates, acme: {ca: acme-ca.pem, agree: true, binding: {id: kid, key_file: acme-key}}}` + "\n"
	)
	tls := strings.Replace(admin, "}", ", tls: {certificate: server.pem, key: server-key.pem}}", 1)
	for _, c := range []struct {
		name                  string
		old, first, then      string            // a text of the configuration, and what stands there before and after
		firstFiles, thenFiles map[string]string // to which file it is copied
		want                  []string
	}{
		{name: "nothing"},
		{name: "a policy", old: "partner: 100000/m", first: "partner: 100000/m", then: "partner: 5/m"},
		{name: "defaults that are written out", old: limits, first: limits, then: limits + "header_bytes: 16384, read: 10s, write: 30s, idle: 90s, connections: 10000, "},
		{name: "header", old: limits, first: limits, then: limits + "header_bytes: 4096, ", want: []string{"limits.header_bytes"}},
		{name: "read", old: limits, first: limits, then: limits + "read: 3s, ", want: []string{"limits.read"}},
		{name: "write", old: limits, first: limits, then: limits + "write: 3s, ", want: []string{"limits.write"}},
		{name: "idle", old: limits, first: limits, then: limits + "idle: 3s, ", want: []string{"limits.idle"}},
		{name: "connections", old: limits, first: limits, then: limits + "connections: 3, ", want: []string{"limits.connections"}},
		{name: "rsa", old: limits, first: limits, then: limits + "rsa: 3, ", want: []string{"limits.rsa"}},
		{name: "handshake", old: limits, first: limits, then: limits + "handshake: 3s, "},
		{name: "admin address", old: admin, first: admin, then: `admin: {address: "127.0.0.1:1"}`, want: []string{"admin.address"}},
		{name: "admin TLS comes", old: admin, first: admin, then: tls, want: []string{"admin.tls"}},
		{name: "admin TLS has another certificate", old: admin, first: tls, then: strings.ReplaceAll(tls, "server", "issuer-server")},
		{name: "admin bearer", old: admin, first: admin, then: `admin: {address: "127.0.0.1:0", bearer_file: rain-api-key}`},
		{name: "listener", old: "  public:\n    address: \"127.0.0.1:0\"", first: "  public:\n    address: \"127.0.0.1:0\"", then: "  public:\n    address: \"127.0.0.1:1\"", want: []string{"listeners' addresses"}},
		{name: "hosts", old: admin, first: local + admin, then: local + admin},
		{name: "certificates come", old: admin, first: admin, then: local + admin, want: []string{"certificates"}},
		{name: "certificates elsewhere", old: admin, first: local + admin, then: strings.Replace(local, "certificates}", "others}", 1) + admin, want: []string{"certificates"}},
		{name: "their authority's authority", old: admin, first: acme + admin, then: acme + admin, firstFiles: map[string]string{"ca.pem": "acme-ca.pem", "rain-api-key": "acme-key"}, thenFiles: map[string]string{"stranger-ca.pem": "acme-ca.pem"}, want: []string{"certificates"}},
		{name: "our account with it", old: admin, first: acme + admin, then: acme + admin, firstFiles: map[string]string{"ca.pem": "acme-ca.pem"}, thenFiles: map[string]string{"payments-api-key": "acme-key"}, want: []string{"certificates"}},
		{name: "store", old: store, first: store, then: "store: {memory: {max_entries: 5, logins_file: logins}}", want: []string{"store"}},
		{name: "logins", thenFiles: map[string]string{"rain-api-key": "logins"}, want: []string{"store.memory.logins_file"}},
		{name: "Redis' authority", old: store, first: redis, then: redis, firstFiles: map[string]string{"ca.pem": "redis-ca.pem", "partner.pem": "redis.pem", "partner-key.pem": "redis-key.pem"}, thenFiles: map[string]string{"stranger-ca.pem": "redis-ca.pem"}, want: []string{"store.redis.tls"}},
		{name: "our certificate at Redis", old: store, first: redis, then: redis, thenFiles: map[string]string{"server.pem": "redis.pem", "server-key.pem": "redis-key.pem"}, want: []string{"store.redis.tls"}},
		{name: "audit", old: "audit: {", first: "audit: {", then: "audit: {instance: other, ", want: []string{"audit"}},
		{name: "audit key under its old name", thenFiles: map[string]string{"audit2.pem": "audit-key.pem"}, want: []string{"the key of use audit"}},
		{name: "log", old: "audit: {", first: "audit: {", then: "log: {level: debug}\naudit: {", want: []string{"log"}},
	} {
		base := string(h.read("config.yaml"))
		if strings.Count(base, c.old) != 1 && c.old != "" {
			t.Fatalf("%s: the configuration has %q not once", c.name, c.old)
		}
		take := func(text string, files map[string]string) []fixture {
			t.Helper()
			for from, to := range files {
				if err := h.write(to, h.read(from)); err != nil {
					t.Fatal(err)
				}
			}
			if err := h.write("one.yaml", []byte(strings.Replace(base, c.old, text, 1))); err != nil {
				t.Fatal(err)
			}
			b, err := load(h.path("one.yaml"))
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			found, err := b.fixtures()
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		if got := changed(take(c.first, c.firstFiles), take(c.then, c.thenFiles)); !slices.Equal(got, c.want) {
			t.Errorf("%s: left out are %q, want %q", c.name, got, c.want)
		}
	}
}

// TestRestartIsSaid holds the comments of config.go to what a reload leaves out.
func TestRestartIsSaid(t *testing.T) {
	structs := parseConfig(t)
	said := map[string]bool{}
	for _, f := range []struct{ in, key string }{
		{"ListenerConfig", "address"}, {"AdminConfig", "address"}, {"AdminConfig", "tls"}, {"Config", "store"}, {"RedisConfig", "tls"}, {"MemoryConfig", "logins_file"}, {"Config", "certificates"},
		{"Config", "keys"}, {"LimitsConfig", "header_bytes"}, {"LimitsConfig", "read"}, {"LimitsConfig", "write"}, {"LimitsConfig", "idle"},
		{"LimitsConfig", "connections"}, {"LimitsConfig", "rsa"}, {"Config", "audit"}, {"Config", "log"},
	} {
		said[f.in+"."+f.key] = true
	}
	b := &builder{document: &document{}, config: Config{}}
	if all, err := b.fixtures(); err != nil || len(all) != len(said) {
		t.Errorf("%d fixtures, and %d keys are listed here: %v", len(all), len(said), err)
	}
	found := map[string]bool{}
	for name, s := range structs {
		for _, f := range s.fields {
			if strings.Contains(f.doc, "a restart") && !strings.Contains(f.doc, "A restart forgets") {
				found[name+"."+f.key] = true
			}
		}
	}
	if !reflect.DeepEqual(found, said) {
		t.Errorf("a restart is spoken of at %v, want %v", found, said)
	}
}
