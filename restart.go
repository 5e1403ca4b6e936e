package main

import (
	"crypto/x509"
	"reflect"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/vault/keys"
)

// fixture is something that a process takes from its configuration when it starts, and not again.
type fixture struct {
	name  string // the key, as a log line names it
	value any    // compared with reflect.DeepEqual
}

// fixtures returns all that a reload leaves as it is. config.go says of each of these keys that a change needs a restart;
// TestRestart holds the two together. Names and order are the same for every configuration.
func (b *builder) fixtures() ([]fixture, error) {
	c := b.config
	limits := gateway.Limits{ // a default that is written out is no change
		HeaderBytes: c.Limits.HeaderBytes, Read: c.Limits.Read, Write: c.Limits.Write, Idle: c.Limits.Idle, Connections: c.Limits.Connections,
	}.WithDefaults()
	marks, err := auditMark(b.keysFor(keys.UseAudit))
	if err != nil {
		return nil, err
	}
	return []fixture{
		{"listeners' addresses", addresses(c)},
		{"admin.address", c.Admin.Address},
		{"admin.tls", c.Admin.TLS != AdminTLSConfig{}}, // what is in it follows a reload
		{"certificates", []any{c.Certificates, b.managedFiles}},
		{"store", c.Store},
		{"store.memory.logins_file", b.logins},
		{"store.redis.tls", b.redisFiles},
		{"the key of use audit", marks},
		{"limits.header_bytes", limits.HeaderBytes},
		{"limits.read", limits.Read},
		{"limits.write", limits.Write},
		{"limits.idle", limits.Idle},
		{"limits.connections", limits.Connections},
		{"limits.rsa", c.Limits.RSA},
		{"audit", c.Audit},
		{"log", c.Log},
	}, nil
}

// changed names the fixtures that are not what they were.
func changed(old, now []fixture) []string {
	var names []string
	for i, f := range now {
		if !reflect.DeepEqual(old[i].value, f.value) {
			names = append(names, f.name)
		}
	}
	return names
}

// auditMark tells audit keys apart by what they make of a constant: ids and files stay the same when a key is replaced.
// It is nil where none is configured.
func auditMark(configured []*keys.Key) ([]byte, error) {
	if len(configured) == 0 {
		return nil, nil
	}
	mac, err := configured[0].MAC(audit.Label)
	if err != nil {
		return nil, err
	}
	return mac.MAC(nil, []byte("cardstile: is this the same key?")), nil
}

func addresses(c Config) map[string]string {
	found := map[string]string{}
	for name, l := range c.Listeners {
		found[name] = l.Address
	}
	return found
}

// encoded returns certificates as they are in files, so that they can be compared.
func encoded(certificates []*x509.Certificate) [][]byte {
	var found [][]byte
	for _, c := range certificates {
		found = append(found, c.Raw)
	}
	return found
}
