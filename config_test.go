package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"go.yaml.in/yaml/v3"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/vault/keys"
)

// mistake is a good configuration with one thing wrong.
type mistake struct {
	name     string
	old, new string            // in the demo's configuration
	files    map[string]string // written beside it
}

// What stands where the public listener has its certificate: files, and hosts.
const (
	files = "    tls: {certificate: server.pem, key: server-key.pem}\n"
	hosts = "    tls: {hosts: [cards.example.com]}\n\n"
)

// mistakes are answered in testdata/check.golden, by the problems that `check` prints.
var mistakes = []mistake{
	{"unknown key at the top", "holders: holders.yaml", "holders: holders.yaml\nholder: x", nil},
	{"unknown key below", "certificate: {subject:", "certificate: {subjekt: x, subject:", nil},
	{"duplicate key", "environment: test", "environment: test\nenvironment: production", nil},
	{"duplicate key below", "kind: rain\n", "kind: rain\n    kind: rain\n", nil},
	{"text for a list", "policies: [policies/*.cedar]", "policies: policies/*.cedar", nil},
	{"list for a text", "holders: holders.yaml", "holders: [holders.yaml]", nil},
	{"list for keys", "admin: {address: \"127.0.0.1:0\"}", "admin: [address]", nil},
	{"keys for a list", "policies: [policies/*.cedar]", "policies: {demo: policies/*.cedar}", nil},
	{"number for a switch", "pin_with_pan: true", "pin_with_pan: 1", nil},
	{"word for a number", "limits: {partner: 100000/m", "limits: {concurrent: many, partner: 100000/m", nil},
	{"negative number", "limits: {partner: 100000/m", "limits: {body_bytes: -1, partner: 100000/m", nil},
	{"fraction for a number", "limits: {partner: 100000/m", "limits: {body_bytes: 1.5, partner: 100000/m", nil},
	{"duration without unit", "limits: {partner: 100000/m", "limits: {read: 10, partner: 100000/m", nil},
	{"negative duration", "limits: {partner: 100000/m", "limits: {read: -10s, partner: 100000/m", nil},
	{"rate without period", "partner: 100000/m", "partner: 100000", nil},
	{"rate of nothing", "partner: 100000/m", "partner: 0/m", nil},
	{"no network", "    tls: {certificate: server.pem, key: server-key.pem}\n", "    tls: {certificate: server.pem, key: server-key.pem}\n    proxy_protocol: {from: [10.0.0.0]}\n", nil},
	{"environment missing", "environment: test", "", nil},
	{"environment unknown", "environment: test", "environment: staging", nil},
	{"listener without port", "address: \"127.0.0.1:0\"\n    tls: {certificate: server.pem, key: server-key.pem, client", "address: localhost\n    tls: {certificate: server.pem, key: server-key.pem, client", nil},
	{"listener with a port by name", "address: \"127.0.0.1:0\"\n    tls: {certificate: server.pem, key: server-key.pem, client", "address: \":https\"\n    tls: {certificate: server.pem, key: server-key.pem, client", nil},
	{"listener with too high a port", "address: \"127.0.0.1:0\"\n    tls: {certificate: server.pem, key: server-key.pem, client", "address: \":65536\"\n    tls: {certificate: server.pem, key: server-key.pem, client", nil},
	{"two listeners and admin in one place", "address: \"127.0.0.1:0\"\n    tls: {certificate: server.pem, key: server-key.pem, client_ca: partners-ca.pem}\n  public:\n    address: \"127.0.0.1:0\"\n    tls: {certificate: server.pem, key: server-key.pem}\n\nadmin: {address: \"127.0.0.1:0\"}", "address: \":8445\"\n    tls: {certificate: server.pem, key: server-key.pem, client_ca: partners-ca.pem}\n  public:\n    address: \"127.0.0.1:8445\"\n    tls: {certificate: server.pem, key: server-key.pem}\n\nadmin: {address: \"localhost:8445\"}", nil},
	{"listener without certificate", "tls: {certificate: server.pem, key: server-key.pem}", "tls: {}", nil},
	{"certificate file missing", "tls: {certificate: server.pem, key: server-key.pem}", "tls: {certificate: missing.pem, key: server-key.pem}", nil},
	{"key of another certificate", "tls: {certificate: server.pem, key: server-key.pem}", "tls: {certificate: server.pem, key: partner-key.pem}", nil},
	{"client CA is a leaf", "client_ca: partners-ca.pem", "client_ca: partner.pem", nil},
	{"client CA is a key", "client_ca: partners-ca.pem", "client_ca: partners-ca-key.pem", nil},
	{"hosts without certificates", files, hosts, nil},
	{"hosts that are none", files, "    tls: {hosts: [API.example.com, https://a.example, a..b, \"*.*.a\", 192.0.2.1, \"\", a.example:443, -a, a, a]}\n\ncertificates: {ca: local, directory: c}\n", nil},
	{"revocation without client_ca", files, "    tls: {certificate: server.pem, key: server-key.pem, revocation: {crl: [a.crl]}}\n", nil},
	{"revocation without lists", "client_ca: partners-ca.pem}", "client_ca: partners-ca.pem, revocation: {stale: soft}}", nil},
	{"revocation stale unknown", "client_ca: partners-ca.pem}", "client_ca: partners-ca.pem, revocation: {crl: [a.crl], stale: never}}", nil},
	{"revocation list missing", "client_ca: partners-ca.pem}", "client_ca: partners-ca.pem, revocation: {crl: [missing.crl]}}", nil},
	{"revocation list that is none", "client_ca: partners-ca.pem}", "client_ca: partners-ca.pem, revocation: {crl: [partners-ca.pem]}}", nil},
	{"revocation by URLs that are none", "client_ca: partners-ca.pem}", "client_ca: partners-ca.pem, revocation: {crl: [\"ftp://a.example/a.crl\", \"https://\", \"http://user:password@a.example/a.crl\", \"https://a.example/a.crl#part\"]}}", nil},
	{"revocation refresh and time-out out of bounds", "client_ca: partners-ca.pem}", "client_ca: partners-ca.pem, revocation: {refresh: 1s, ocsp: {timeout: 5s}}}", nil},
	{"revocation by ports that are none", "client_ca: partners-ca.pem}", "client_ca: partners-ca.pem, revocation: {crl: [\"http://a.example:99999/a.crl\"], ocsp: {responder: \"http://a.example:0/\"}}}", nil},
	{"revocation ocsp of nobody, by halves", "client_ca: partners-ca.pem}", "client_ca: partners-ca.pem, revocation: {refresh: 200h, ocsp: {responder: ocsp.example, mode: off, timeout: 1ms}}}", nil},
	{"revocation cache of no URL, in a file", "client_ca: partners-ca.pem}", "client_ca: partners-ca.pem, revocation: {ocsp: {}, cache: server.pem}}", nil},
	{"revocation servers that are none", "client_ca: partners-ca.pem}", "client_ca: partners-ca.pem, revocation: {ocsp: {responder: \"http://169.254.169.254/\"}, destinations: [10.0.0.1/8], ca: nowhere.pem, intermediates: partner.pem}}", nil},
	{"hosts beside a certificate", files, "    tls: {hosts: [a.example], certificate: server.pem}\n\ncertificates: {ca: local, directory: c}\n", nil},
	{"hosts of the admin listener", "admin: {address", "admin: {tls: {hosts: [a.example]}, address", nil},
	{"a wildcard by tls-alpn-01", files, "    tls: {hosts: [\"*.example.com\"]}\n\ncertificates: {directory: c, acme: {agree: true}}\n", nil},
	{"certificates of nobody", files, hosts + "certificates: {directory: c}\n", nil},
	{"certificates of another CA", files, hosts + "certificates: {ca: us, key_type: p512, directory: c}\n", nil},
	{"certificates of two CAs", files, hosts + "certificates: {ca: local, acme: {agree: true}, directory: c}\n", nil},
	{"certificates kept nowhere", files, hosts + "certificates: {ca: local}\n", nil},
	{"certificates kept in a file", files, hosts + "certificates: {ca: local, directory: server.pem}\n", nil},
	{"certificates kept for everybody", files, hosts + "certificates: {ca: local, directory: /}\n", nil},
	{"a development CA in production", files, "    environment: production\n" + hosts + "certificates: {ca: local, directory: c}\n", nil},
	{"certificates without storage key", files + "\nadmin: {address: \"127.0.0.1:0\"}\n\nstore: {memory: {logins_file: logins}}\n\nkeys:\n  - {id: session-demo, use: session, file: session-key.pem}\n  - {id: storage-demo, use: storage, file: storage-key.pem}", hosts + "certificates: {ca: local, directory: c}\nadmin: {address: \"127.0.0.1:0\"}\n\nstore: {memory: {logins_file: logins}}\n\nkeys:\n  - {id: session-demo, use: session, file: session-key.pem}", nil},
	{"acme, not agreed, over http, to somebody", files, hosts + "certificates: {directory: c, acme: {url: \"http://127.0.0.1:1/dir\", email: us, ca: nowhere.pem, challenge: http-02}}\n", nil},
	{"acme with credentials in its URL", files, hosts + "certificates: {directory: c, acme: {agree: true, url: \"https://user:password@ca.example/dir\"}}\n", nil},
	{"acme and hook with ports that are none", files, hosts + "certificates: {directory: c, destinations: [10.0.0.1/8], acme: {agree: true, url: \"https://ca.example:65536/dir\", challenge: dns-01, dns: {webhook: \"https://a.example:0/\", resolvers: [\"192.0.2.53:99999\", \"192.0.2.53:0\"]}}}\n", nil},
	{"http-01 nowhere", files, hosts + "certificates: {directory: c, acme: {agree: true, challenge: http-01}}\n", nil},
	{"http-01 where the admin listener is", files + "\nadmin: {address: \"127.0.0.1:0\"}", hosts + "certificates: {directory: c, acme: {agree: true, challenge: http-01, http_address: \":8445\"}}\nadmin: {address: \"127.0.0.1:8445\"}", nil},
	{"tls-alpn-01 with what it does not need", files, hosts + "certificates: {directory: c, acme: {agree: true, http_address: \":80\", dns: {program: [sh]}}}\n", nil},
	{"dns-01 by nobody", files, hosts + "certificates: {directory: c, acme: {agree: true, challenge: dns-01}}\n", nil},
	{"dns-01 by two", files, hosts + "certificates: {directory: c, acme: {agree: true, challenge: dns-01, dns: {program: [sh], webhook: \"https://a.example/\"}}}\n", nil},
	{"dns-01 by what is no program", files, hosts + "certificates: {directory: c, acme: {agree: true, challenge: dns-01, dns: {program: [./server.pem], bearer_file: logins, timeout: -1s, propagation: -1s, resolvers: [\"192.0.2.53\"]}}}\n", nil},
	{"dns-01 by a hook in clear", files, hosts + "certificates: {directory: c, acme: {agree: true, challenge: dns-01, dns: {webhook: \"http://a.example/\", bearer_file: nowhere, ca: nowhere.pem}}}\n", nil},
	{"acme binding that is none", files, hosts + "certificates: {directory: c, acme: {agree: true, binding: {key_file: key}}}\n", map[string]string{"key": "no base64!\n"}},
	{"host CA missing", "tls: {certificate: server.pem, key: server-key.pem}", "tls: {certificate: server.pem, key: server-key.pem}\n    host_client_ca: {api.example.com: nowhere.pem}", nil},
	{"host CA is a leaf", "tls: {certificate: server.pem, key: server-key.pem}", "tls: {certificate: server.pem, key: server-key.pem}\n    host_client_ca: {api.example.com: partner.pem}", nil},
	{"host CA is a key", "tls: {certificate: server.pem, key: server-key.pem}", "tls: {certificate: server.pem, key: server-key.pem}\n    host_client_ca: {api.example.com: partners-ca-key.pem}", nil},
	{"host CA without a file", "tls: {certificate: server.pem, key: server-key.pem}", "tls: {certificate: server.pem, key: server-key.pem}\n    host_client_ca: {api.example.com: \"\"}", nil},
	{"host CA of an address", "tls: {certificate: server.pem, key: server-key.pem}", "tls: {certificate: server.pem, key: server-key.pem}\n    host_client_ca: {\"192.0.2.1\": partners-ca.pem}", nil},
	{"host CA of a wildcard too wide", "tls: {certificate: server.pem, key: server-key.pem}", "tls: {certificate: server.pem, key: server-key.pem}\n    host_client_ca: {\"*.com\": partners-ca.pem}", nil},
	{"host CA twice", "tls: {certificate: server.pem, key: server-key.pem}", "tls: {certificate: server.pem, key: server-key.pem}\n    host_client_ca: {api.example.com: partners-ca.pem, API.example.com.: partners-ca.pem}", nil},
	{"route host with a port", "- {listener: partners, face", "- {hosts: [\"api.example.com:8443\"], listener: partners, face", nil},
	{"route host by address", "- {listener: partners, face", "- {hosts: [\"192.0.2.1\"], listener: partners, face", nil},
	{"route host not in A-labels", "- {listener: partners, face", "- {hosts: [\"bücher.example\"], listener: partners, face", nil},
	{"route host that is a URL", "- {listener: partners, face", "- {hosts: [\"https://api.example.com\"], listener: partners, face", nil},
	{"route host twice", "- {listener: partners, face", "- {hosts: [api.example.com, API.example.com], listener: partners, face", nil},
	{"routes of one host with one path", "- {listener: partners, face", "- {hosts: [localhost], listener: partners, face: gnosispay, issuer: rain, operations: [token.mint]}\n  - {hosts: [localhost], listener: partners, face", nil},
	{"route client certificate unknown", "- {listener: partners, face", "- {client_cert: pem, listener: partners, face", nil},
	{"route client certificate where none is verified", "partner: gp-demo\n    session_key", "partner: gp-demo\n    client_cert: leaf\n    session_key", nil},
	{"no listeners", "listeners:\n", "listeners: {}\nlisteners2:\n", nil},
	{"admin off loopback", "admin: {address: \"127.0.0.1:0\"}", "admin: {address: \"0.0.0.0:8445\"}", nil},
	{"admin off loopback with a bearer in clear", "admin: {address: \"127.0.0.1:0\"}", "admin: {address: \":8445\", bearer_file: rain-api-key}", nil},
	{"admin with a negative port", "admin: {address: \"127.0.0.1:0\"}", "admin: {address: \"127.0.0.1:-1\"}", nil},
	{"admin bearer missing", "admin: {address: \"127.0.0.1:0\"}", "admin: {address: \"127.0.0.1:0\", bearer_file: nowhere}", nil},
	{"admin certificate missing", "admin: {address: \"127.0.0.1:0\"}", "admin: {address: \"127.0.0.1:0\", tls: {certificate: nowhere.pem, key: server-key.pem}}", nil},
	{"two stores", "store: {memory: {logins_file: logins}}", "store: {memory: {}, redis: {addresses: [\"127.0.0.1:6379\"]}}", nil},
	{"redis without address", "store: {memory: {logins_file: logins}}", "store: {redis: {}}", nil},
	{"redis with half an address", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [redis]}}", nil},
	{"redis with a port that is none", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [\"redis:99999\", \"redis:0\", \"redis:x\"]}}", nil},
	{"redis password missing", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [\"r:1\"], password_file: nowhere}}", nil},
	{"redis user without password", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [\"r:1\"], username: u}}", nil},
	{"redis prefix", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [\"r:1\"], prefix: \"a b\"}}", nil},
	{"redis fence of another name", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [\"r:1\"], fence: wait}}", nil},
	{"redis quorum without its fence", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [\"r:1\"], quorum: {replicas: 1}}}", nil},
	{"redis quorum of nobody", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [\"r:1\"], fence: quorum}}", nil},
	{"redis quorum slower than a reply", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [\"r:1\"], fence: quorum, quorum: {replicas: 1, timeout: 1s}}}", nil},
	{"redis Sentinel without a name", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [\"r:1\"], sentinel: {username: u}}}", nil},
	{"redis Sentinel password missing", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [\"r:1\"], sentinel: {master: m, password_file: nowhere}}}", nil},
	{"redis database of a Cluster", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [\"r:1\", \"r:2\"], db: 1}}", nil},
	{"redis CA missing", "store: {memory: {logins_file: logins}}", "store: {redis: {addresses: [\"r:1\"], tls: {ca: nowhere.pem}}}", nil},
	{"redis without storage key", "store: {memory: {logins_file: logins}}\n\nkeys:\n  - {id: session-demo, use: session, file: session-key.pem}\n  - {id: storage-demo, use: storage, file: storage-key.pem}", "store: {redis: {addresses: [\"r:1\"]}}\n\nkeys:\n  - {id: session-demo, use: session, file: session-key.pem}", nil},
	{"logins file missing", "logins_file: logins", "logins_file: nowhere", nil},
	{"listener name taken", "\n  public:\n", "\n  admin:\n", nil},
	{"key use unknown", "use: storage", "use: storrage", nil},
	{"key use missing", "use: storage, ", "", nil},
	{"key kind unknown", "use: storage, ", "use: storage, kind: hsm, ", nil},
	{"key file missing", "file: storage-key.pem", "file: nowhere.pem", nil},
	{"key file not named", ", file: storage-key.pem", "", nil},
	{"key file of another use", "file: storage-key.pem", "file: digest-key.pem", nil},
	{"key file is a public key", "file: session-key.pem", "file: session-public.pem", nil},
	{"key id twice", "id: storage-demo", "id: session-demo", nil},
	{"key id not a name", "id: storage-demo", "id: \"storage demo\"", nil},
	{"key passphrase missing", "use: storage, ", "use: storage, kind: age, ", nil},
	{"key passphrase for pem", "use: storage, ", "use: storage, passphrase_file: logins, ", nil},
	{"partner certificate subject", "CN=gp_f1a9b6c741c94510bb3b27f2e8379e29,C=US", "gp_f1a9b6c741c94510bb3b27f2e8379e29", nil},
	{"partner certificate subject of two names", "CN=gp_f1a9b6c741c94510bb3b27f2e8379e29,C=US", "CN=one,CN=two", nil},
	{"partner certificate subject of several values", "CN=gp_f1a9b6c741c94510bb3b27f2e8379e29,C=US", "CN=one+OU=two", nil},
	{"partner twice", "issuers:\n  rain:", "  - {id: gp-demo, certificate: {subject: \"CN=another\"}}\n\nissuers:\n  rain:", nil},
	{"two partners of one subject", "issuers:\n  rain:", "  - {id: other, certificate: {subject: \"C=US,CN=gp_f1a9b6c741c94510bb3b27f2e8379e29\"}, issuers: {rain: {api_key_file: rain-api-key}}}\n\nissuers:\n  rain:", nil},
	{"partner pin", "C=US\"}", "C=US\", pins: [sha256]}", nil},
	{"partner CA missing", "C=US\"}", "C=US\", ca: nowhere.pem}", nil},
	{"partner id missing", "- id: gp-demo\n    certificate", "- certificate", nil},
	{"partners that share an API key", "issuers:\n  rain:", "  - {id: other, certificate: {subject: \"CN=other\"}}\n\nissuers:\n  rain:", nil},
	{"partner's API key of an unknown issuer", "certificate: {subject", "issuers: {raim: {api_key_file: rain-api-key}}\n    certificate: {subject", nil},
	{"partner's API key missing", "certificate: {subject", "issuers: {rain: {api_key_file: nowhere}}\n    certificate: {subject", nil},
	{"issuer kind unknown", "kind: rain\n", "kind: snow\n", nil},
	{"issuer over http", "url: https://127.0.0.1:1", "url: http://example.com/", nil},
	{"issuer URL with a user", "url: https://127.0.0.1:1", "url: https://user:password@127.0.0.1:1", nil},
	{"issuer URL with a port that is none", "url: https://127.0.0.1:1", "url: https://example.com:99999", nil},
	{"issuer URL with a port for listeners", "url: https://127.0.0.1:1", "url: https://example.com:0", nil},
	{"issuer URL is none", "url: https://127.0.0.1:1", "url: //127.0.0.1:1", nil},
	{"issuer CA missing", "ca: ca.pem\n    api_key_file: rain", "ca: nowhere.pem\n    api_key_file: rain", nil},
	{"issuer API key missing", "api_key_file: rain-api-key", "api_key_file: nowhere", nil},
	{"issuer API key of two lines", "api_key_file: rain-api-key", "api_key_file: two-lines", map[string]string{"two-lines": "one\ntwo\n"}},
	{"issuer public key is private", "public_key: rain-public.pem", "public_key: rain-key.pem", nil},
	{"issuer public key is a certificate", "public_key: rain-public.pem", "public_key: ca.pem", nil},
	{"issuer public key missing", "    public_key: rain-public.pem\n", "", nil},
	{"issuer public key short", "public_key: rain-public.pem", "public_key: short.pem", map[string]string{"short.pem": shortPublicKey}},
	{"issuer legacy unknown", "public_key: rain-public.pem", "public_key: rain-public.pem\n    legacy: [rsa-512]", nil},
	{"issuer at none of its destinations", "kind: rain\n", "kind: rain\n    destinations: [203.0.113.0/24, 0.0.0.0/0]\n", nil},
	{"issuer's destination is no network", "kind: rain\n", "kind: rain\n    destinations: [127.0.0.0/8, 10.0.0.1/8, \"ff02::/16\", \"2002:a00::/24\"]\n", nil},
	{"issuer's destination is a word", "kind: rain\n", "kind: rain\n    destinations: [public]\n", nil},
	{"issuer's pin is none", "kind: rain\n", "kind: rain\n    pins: [9f86]\n", nil},
	{"issuer's pin over http", "url: https://127.0.0.1:1", "url: http://127.0.0.1:1\n    pins: [9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08]", nil},
	{"issuer of another environment", "kind: rain\n", "kind: rain\n    environment: production\n", nil},
	{"route without listener", "{listener: partners, face: gnosispay, issuer: rain, operations: [token.mint]}", "{face: gnosispay, issuer: rain, operations: [token.mint]}", nil},
	{"route listener unknown", "{listener: partners, face", "{listener: partner, face", nil},
	{"route face unknown", "face: exa", "face: exxa", nil},
	{"route issuer unknown", "issuer: rain, operations", "issuer: rian, operations", nil},
	{"route issuer missing", "issuer: rain, operations", "operations", nil},
	{"route operation unknown", "[token.mint]", "[token.mnt]", nil},
	{"route operation of another face", "[token.mint]", "[card.profile]", nil},
	{"route session key unknown", "session_key: session-demo\n    operations", "session_key: session-2026\n    operations", nil},
	{"route session key of another use", "session_key: session-demo\n    operations", "session_key: storage-demo\n    operations", nil},
	{"route session key of another environment", "use: session, file", "use: session, environment: production, file", nil},
	{"route without session key", "session_key: session-demo\n    cookie", "cookie", nil},
	{"route without cookie key", "    cookie_key: cookie-demo\n", "", nil},
	{"route cookie key of another use", "cookie_key: cookie-demo", "cookie_key: session-demo", nil},
	{"route partner missing", "    partner: gp-demo\n", "", nil},
	{"route partner unknown", "    partner: gp-demo", "    partner: gp", nil},
	{"route legacy not named", "    unbound_tokens: allow\n    pin: software\n    legacy: [oaep-sha1]\n", "    unbound_tokens: allow\n    pin: software\n", nil},
	{"route legacy unknown", "pin_with_pan: true\n    legacy: [oaep-sha1]", "pin_with_pan: true\n    legacy: [oaep-sha1, md5]", nil},
	{"route pin unknown", "unbound_tokens: allow\n    pin: software", "unbound_tokens: allow\n    pin: hsm", nil},
	{"route pin beside PAN, blind", "pin: software\n    pin_with_pan", "pin: blind\n    pin_with_pan", nil},
	{"route unbound tokens unknown", "unbound_tokens: allow", "unbound_tokens: always", nil},
	{"route unbound tokens without tokens", "pin_with_pan: true", "pin_with_pan: true\n    unbound_tokens: refuse", nil},
	{"route of another environment", "- {listener: partners, face", "- {environment: production, listener: partners, face", nil},
	{"routes in one another's way", "policies: [", "  - {listener: partners, face: gnosispay, issuer: rain, operations: [token.mint]}\n\npolicies: [", nil},
	{"route that serves nothing", "{listener: partners, face: gnosispay", "{listener: public, face: gnosispay", nil},
	{"account without id", "id: 00000000-0000-4000-0000-000000000000, ", "", nil},
	{"account id in upper case", "id: 00000000-0000-4000-0000-000000000000", "id: 0000000A-0000-4000-0000-000000000000", nil},
	{"account without key", "public_keys: [service-account-public.pem], ", "", nil},
	{"account key missing", "public_keys: [service-account-public.pem]", "public_keys: [nowhere.pem]", nil},
	{"account key is private", "public_keys: [service-account-public.pem]", "public_keys: [service-account-key.pem]", nil},
	{"account key short", "public_keys: [service-account-public.pem]", "public_keys: [short.pem]", nil},
	{"account login unknown", "login: public_key", "login: password", nil},
	{"account requests unknown", "requests: optional", "requests: sometimes", nil},
	{"account of another environment", "requests: optional", "requests: optional, environment: production", nil},
	{"account's API key of an unknown issuer", "requests: optional", "requests: optional, issuers: {paiments: {api_key_file: rain-api-key}}", nil},
	{"account's API key missing", "requests: optional", "requests: optional, issuers: {payments: {api_key_file: nowhere}}", nil},
	{"account twice", "requests: optional}", "requests: optional}\n      - {id: 00000000-0000-4000-0000-000000000000, public_keys: [service-account-public.pem]}", nil},
	{"issuer in clear without saying so", "    leg: clear\n", "", nil},
	{"issuer with sessions in clear", "kind: rain\n", "kind: rain\n    leg: clear\n", nil},
	{"issuer in clear with a key", "    leg: clear\n", "    leg: clear\n    public_key: rain-public.pem\n", nil},
	{"route's clients in clear at another face", "    face: exa\n", "    face: exa\n    client_leg: clear\n", nil},
	{"route's clients in another way", "rain, client_leg: clear", "rain, client_leg: plain", nil},
	{"route session key without sessions", "rain, client_leg: clear", "rain, client_leg: clear, session_key: session-demo", nil},
	{"route origin with a path", "localhost\n    origins: [https://app.example, ", "localhost\n    origins: [https://app.example/, ", nil},
	{"route origin over http", "localhost\n    origins: [https://app.example, ", "localhost\n    origins: [http://app.example, ", nil},
	{"route domain is a URL", "domain: localhost", "domain: https://localhost", nil},
	{"route chain without domain", "domain: localhost", "chain_id: 10", nil},
	{"route wrong proof unknown", "rain, client_leg: clear", "rain, client_leg: clear, wrong_proof: ignore", nil},
	{"partner terminal with a slash", `terminals: ["1234001"]`, `terminals: ["1234/1"]`, nil},
	{"partner terminals of two", `terminals: ["1234001"]`, `terminals: ["1234001", "1234001"]`, nil},
	{"user tokens without keys", `typed_data: {name: Cardstile demo}`, `typed_data: {name: Cardstile demo, chain_id: -1}`, nil},
	{"user tokens of a set that is none", `user_tokens: {jwks: users-jwks.json, issuer: "https://users.example", audience: cardstile-demo}
    typed`, `user_tokens: {jwks: holders.yaml, issuer: "https://users.example", audience: cardstile-demo}
    typed`, nil},
	{"user tokens without issuer", `user_tokens: {jwks: users-jwks.json, issuer: "https://users.example", audience: cardstile-demo}
    typed`, `user_tokens: {jwks: users-jwks.json, audience: cardstile-demo}
    typed`, nil},
	{"typed data without users", `    user_tokens: {jwks: users-jwks.json, issuer: "https://users.example", audience: cardstile-demo}
    typed`, `    typed`, nil},
	{"user tokens at another face", "    face: exa\n", "    face: exa\n    user_tokens: {jwks: users-jwks.json, issuer: i, audience: a}\n", nil},
	{"app of nobody", "{id: demo, partner: gp-demo, ", "{id: demo, partner: gp, ", nil},
	{"app twice", "    apps:\n", "    apps:\n      - {id: demo, partner: gp-demo, origins: [https://app.example]}\n", nil},
	{"app with an id that is a path", "{id: demo, ", "{id: ../demo, ", nil},
	{"app without origins", "partner: gp-demo, origins: [https://app.example, https://localhost], ", "partner: gp-demo, ", nil},
	{"app of an origin with a path", `partner: gp-demo, origins: [https://app.example, `, "partner: gp-demo, origins: [https://app.example/, ", nil},
	{"app with a theme that loads", "https://localhost], page: {same_origin: true}}", "https://localhost], page: {theme: {accent: 'url(https://x.example)'}}}", nil},
	{"app with style that hides", "https://localhost], page: {same_origin: true}}", "https://localhost], page: {css: {.pse-card-value: {position: fixed}}}}", nil},
	{"app in a language of nobody here", "https://localhost], page: {same_origin: true}}", "https://localhost], page: {locale: tlh}}", nil},
	{"app that shows for an hour", "{id: demo, ", "{id: demo, show: 1h, ", nil},
	{"apps and blind PINs", "    unbound_tokens: allow\n    pin: software\n", "    unbound_tokens: allow\n    pin: blind\n", nil},
	{"apps at another face", "    face: exa\n", "    face: exa\n    apps: [{id: other, partner: gp-demo, origins: [https://app.example]}]\n", nil},
	{"hosted fields at another face", "    face: exa\n", "    face: exa\n    hosted_fields: {libraries: [1.0]}\n", nil},
	{"hosted fields without leg", "    client_leg: clear\n    origins", "    origins", nil},
	{"hosted fields without pages", "    client_leg: clear\n    origins: [https://app.example, https://localhost]\n", "    client_leg: clear\n", nil},
	{"hosted fields without versions", "hosted_fields: {libraries: [1.7.0.261457], ", "hosted_fields: {", nil},
	{"hosted fields of a script beside apps", "libraries: [1.7.0.261457], ", "libraries: [1.7.0.261457], script: https://cdn.example/x.js, integrity: sha384-oqVuAfXRKap7fdgcCY5uykM6+R9GqQ8K/uxy9rx7HNQlGYl1kPzQho1wx4JwY8wC, ", nil},
	{"typed data of nobody", "typed_data: {name: Cardstile demo}", "typed_data: {version: two}", nil},
	{"unbound tokens with a signature at a face without", "    unbound_tokens: allow\n", "    unbound_tokens: with_user_signatures\n", nil},
	{"card token for an issuer in clear", "    face: payroc\n    issuer: payroc\n", "    face: payroc\n    issuer: payments\n", nil},
	{"card token without terminal", ", terminal: /processingTerminalId}", "}", nil},
	{"hosted fields of a version that is none", "libraries: [1.7.0.261457], ", `libraries: ["1 7"], `, nil},
	{"hosted fields with a code now and then", "libraries: [1.7.0.261457], ", "libraries: [1.7.0.261457], cvv: perhaps, ", nil},
	{"hosted fields of a script without digest", "libraries: [1.7.0.261457], ", "libraries: [1.7.0.261457], script: https://cdn.example/x.js, ", nil},
	{"hosted fields without JWT key", "    jwt_key: jwt-demo\n    client_leg", "    client_leg", nil},
	{"card token that is no pointer", "card_token: /paymentMethod, ", "card_token: paymentMethod, ", nil},
	{"card token at another face", "{method: POST, path: /deals/payin}", "{method: POST, path: /deals/payin, card_token: /card}", nil},
	{"terminal without a body", "{method: POST, path: /v1/payments, card_token: /paymentMethod, ", "{method: GET, path: /v1/payments, ", nil},
	{"fields of an issuer that shows none", "terminal: /processingTerminalId}", "terminal: /processingTerminalId, fields: {/card/number: pan}}", nil},
	{"route without JWT key", "    jwt_key: jwt-demo\n    legacy", "    legacy", nil},
	{"route JWT key of another use", "    jwt_key: jwt-demo\n    legacy", "    jwt_key: cookie-demo\n    legacy", nil},
	{"route that cannot forward", "    pin_with_pan: true\n", "    pin_with_pan: true\n    forward: [{method: GET, path: /wallet}]\n", nil},
	{"forward method unknown", "{method: GET, path: /wallet}", "{method: get, path: /wallet}", nil},
	{"forward path relative", "{method: GET, path: /wallet}", "{method: GET, path: wallet}", nil},
	{"forward path of a whole tree", "{method: GET, path: /wallet}", "{method: GET, path: /wallet/}", nil},
	{"forward path with half a wildcard", "{method: GET, path: /wallet}", "{method: GET, path: \"/wallet{id}\"}", nil},
	{"forward path twice", "{method: GET, path: /wallet}", "{method: GET, path: /fx/calculation}", nil},
	{"forward paths that cannot be told apart", "{method: GET, path: /wallet}", "{method: GET, path: \"/{all}/list\"}", nil},
	{"forward path of the face's own", "{method: GET, path: /wallet}", "{method: POST, path: /auth/token}", nil},
	{"forward bound to nothing", "{method: GET, path: /wallet}", "{method: GET, path: /wallet, bind: {id: account}}", nil},
	{"forward bound to another", "{method: GET, path: /wallet}", "{method: GET, path: \"/wallet/{id}/x\", bind: {id: user}}", nil},
	{"forward field unknown", "fields: {/account_number: account}", "fields: {/account_number: iban}", nil},
	{"forward pointer is none", "fields: {/account_number: account}", "fields: {account_number: account}", nil},
	{"forward pointer inside another", "fields: {/account_number: account}", "fields: {/account: account, /account/number: account}", nil},
	{"forward without session unknown", "fields: {/account_number: account}", "fields: {/account_number: account}, without_session: hide", nil},
	{"forward submits without a body", "{method: GET, path: /wallet}", "{method: GET, path: /wallet, submit: {/a: pan}}", nil},
	{"accounts that share an API key", "requests: optional}", "requests: optional}\n      - {id: 00000000-0000-4000-0000-000000000001, public_keys: [service-account-public.pem], login: signature}", nil},
	{"partners that share an API key with a service account", "issuers:\n  rain:", "  - {id: other, accounts: [{id: 00000000-0000-4000-0000-000000000001, public_keys: [service-account-public.pem]}]}\n\nissuers:\n  rain:", nil},
	{"accounts that name one API key", "requests: optional}", "requests: optional}\n      - {id: 00000000-0000-4000-0000-000000000001, public_keys: [service-account-public.pem], login: signature, issuers: {payments: {api_key_file: payments-api-key}}}", nil},
	{"partners that name one API key", "issuers:\n  rain:", "  - {id: other, certificate: {subject: \"CN=other\"}, issuers: {rain: {api_key_file: rain-api-key}}}\n\nissuers:\n  rain:", nil},
	{"login by assertion, which no route takes", "login: public_key", "login: private_key_jwt", nil},
	{"login by certificate, which no listener asks for", "login: public_key", "login: certificate", nil},
	{"token_url and origins with ports that are none", "face: paymentsgate", "face: paymentsgate\n    token_url: [\"https://a.example:65536/auth/token\"]\n    origins: [\"https://a.example:70000\", \"https://b.example:\"]", nil},
	{"token_url that is none", "face: paymentsgate", "face: paymentsgate\n    token_url: [nonsense]", nil},
	{"stateless cookies and logins", "    domain:", "    stateless_cookies: true\n    domain:", nil},
	{"face whose issuer can do nothing for it", "face: bridge, issuer: rain", "face: bridge, issuer: payments", nil},
	{"no policy", "policies: [policies/*.cedar]", "policies: []", nil},
	{"policy missing", "policies/*.cedar", "policies/*.ceder", nil},
	{"policy with a typo", "policies/*.cedar", "typo.cedar", map[string]string{"typo.cedar": "permit (principal, action, resource)\nwhen { context.proofs.certificat };\n"}},
	{"policy of an unknown action", "policies/*.cedar", "typo.cedar", map[string]string{"typo.cedar": "// one\n// two\npermit (principal, action == Action::\"card.revael\", resource);\n"}},
	{"policy that does not parse", "policies/*.cedar", "typo.cedar", map[string]string{"typo.cedar": "permit (principal, action, resource)\nwhen { };\n"}},
	{"holders not named", "holders: holders.yaml", "", nil},
	{"holders missing", "holders: holders.yaml", "holders: nowhere.yaml", nil},
	{"holder of an unknown partner", "holders: holders.yaml", "holders: people.yaml", map[string]string{"people.yaml": "cards:\n  - {id: c, issuer: rain, partners: [gp], environment: test}\n"}},
	{"holder of an unknown issuer", "holders: holders.yaml", "holders: people.yaml", map[string]string{"people.yaml": "cards:\n  - {id: c, issuer: rian, partners: [gp-demo], environment: test}\n"}},
	{"holder with a typo", "holders: holders.yaml", "holders: people.yaml", map[string]string{"people.yaml": "cards:\n  - {id: c, issuer: rain, partner: gp-demo, environment: test}\n"}},
	{"credentials missing", "credentials: credentials.json", "credentials: nowhere.json", nil},
	{"credentials of an unknown partner", "credentials: credentials.json", "credentials: unknown.json", map[string]string{"unknown.json": `{"version":1,"credentials":[{"id":"a","partner":"gp","kind":"api_key","digest":"` + strings.Repeat("0a", 32) + `","environment":"test","created":"2026-11-23T12:00:00Z"}]}`}},
	{"credentials with a typo", "credentials: credentials.json", "credentials: typo.json", map[string]string{"typo.json": "{\"version\":1,\n\"credential\":[]}"}},
	{"audit not named", "audit: {file: audit.jsonl}", "", nil},
	{"audit directory missing", "audit: {file: audit.jsonl}", "audit: {file: nowhere/audit.jsonl}", nil},
	{"log level", "audit: {file: audit.jsonl}", "audit: {file: audit.jsonl}\nlog: {level: loud}", nil},
	{"log format", "audit: {file: audit.jsonl}", "audit: {file: audit.jsonl}\nlog: {format: xml}", nil},
	{"production with plain key files", "environment: test", "environment: production", nil},
	{"not YAML", "holders: holders.yaml", "holders: [holders.yaml", nil},
	{"a text that YAML takes for an alias", "holders: holders.yaml", "holders: *secret-password", nil},
	{"a tab", "  partners:\n    address", "\tpartners:\n    address", nil},
	{"two documents", "audit: {file: audit.jsonl}", "audit: {file: audit.jsonl}\n---\nenvironment: production", nil},
	{"merge", "environment: test", "environment: test\n<<: {holders: x}", nil},
	{"nothing", "", "", nil},
}

// shortPublicKey is an RSA key of 1024 bits, which nobody has the private half of any more.
const shortPublicKey = `-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDk2nk9Avgt2PD/qrZB/SqD8zru
PdgvnhCYX2lAi+YvbOjOMrwuwj1ypBkStn0FmVyVlWcS29T++p4njr+P4b/UvlEG
/3wIETKOlc4lyGQEamBKqEJgn68kfsNd8ph5V2bXxRKoXqEToD2b3eBlXZ3V2ZMF
aYsgi66BtE8wsp2UawIDAQAB
-----END PUBLIC KEY-----
`

// credentialID is the random name of the demo's API key.
var credentialID = regexp.MustCompile(`credential "[0-9a-f]{10}"`)

// TestCheck holds what `check` says about each mistake to testdata/check.golden, and that it says it at a line.
func TestCheck(t *testing.T) {
	t.Parallel()
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	base := string(h.read("config.yaml"))
	base = strings.Replace(base, h.url("rain"), "https://127.0.0.1:1", 1)
	var golden strings.Builder
	names := map[string]bool{}
	for _, m := range mistakes {
		if names[m.name] {
			t.Errorf("%s: twice in the table", m.name)
		}
		names[m.name] = true
		text := m.apply(t, base)
		for name, content := range m.files {
			if err := os.WriteFile(h.path(name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(h.path("mistake.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := load(h.path("mistake.yaml"))
		var found problems
		if !errors.As(err, &found) {
			t.Errorf("%s: no problems, but %v", m.name, err)
			continue
		}
		for _, p := range found {
			if lines := strings.Count(text, "\n") + 1; text != "" && (p.line < 1 || p.line > lines) {
				t.Errorf("%s: %s: line %d of %d", m.name, p.text, p.line, lines)
			}
		}
		text = fingerprint.ReplaceAllString(strings.ReplaceAll(err.Error(), h.dir+"/", ""), "…")
		text = credentialID.ReplaceAllString(text, `credential "…"`)
		fmt.Fprintf(&golden, "# %s\n%s\n\n", m.name, text)
	}
	compareGolden(t, "testdata/check.golden", golden.String())
}

// TestLimitsReachTheGateway: a limit that the configuration names is none if it is forgotten on the way.
func TestLimitsReachTheGateway(t *testing.T) {
	var l LimitsConfig
	from := reflect.ValueOf(&l).Elem()
	for i := range from.NumField() {
		switch v := from.Field(i); v.Interface().(type) {
		case policy.Rate:
			v.Set(reflect.ValueOf(policy.Rate{Count: i + 1, Per: time.Hour}))
		case int, time.Duration:
			v.SetInt(int64(i + 1))
		}
	}
	to := reflect.ValueOf(gatewayLimits(l))
	for i := range to.NumField() {
		name := to.Type().Field(i).Name
		if set := from.FieldByName(name); !set.IsValid() || !to.Field(i).Equal(set) {
			t.Errorf("%s is %v", name, to.Field(i))
		}
	}
}

// TestOverlap compares what hosts are said to be in one another's way with what the kernel says.
func TestOverlap(t *testing.T) {
	hosts := slices.DeleteFunc([]string{"", "::", "0.0.0.0", "127.0.0.1", "127.0.0.2", "localhost", "::1", "::ffff:127.0.0.1"}, func(host string) bool {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err == nil {
			l.Close()
		}
		return err != nil // not on this machine
	})
	if len(hosts) < 4 {
		t.Fatalf("this machine has but %q", hosts)
	}
	for _, one := range hosts {
		for _, other := range hosts {
			var err error
			for range 10 { // somebody else may have a port at the other one's address
				if err = secondListener(t, one, other); err == nil {
					break
				}
			}
			if want := err != nil; overlap(one, other) != want {
				t.Errorf("%q and %q: overlap is %t, and the second listener got %v", one, other, !want, err)
			}
		}
	}
}

// secondListener returns what a listener gets at a port that another one has.
func secondListener(t *testing.T, one, other string) error {
	first, err := net.Listen("tcp", net.JoinHostPort(one, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, port, err := net.SplitHostPort(first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	second, err := net.Listen("tcp", net.JoinHostPort(other, port))
	if err == nil {
		second.Close()
	}
	return err
}

var fingerprint = regexp.MustCompile(`[0-9a-f]{8}…`) // of a CA

// apply makes the mistake. An empty one makes the file empty.
func (m *mistake) apply(t *testing.T, base string) string {
	t.Helper()
	if m.old == "" {
		return ""
	}
	if n := strings.Count(base, m.old); n != 1 {
		t.Fatalf("%s: the configuration has %q %d times", m.name, m.old, n)
	}
	return strings.Replace(base, m.old, m.new, 1)
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	is, was := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(is), len(was)) {
		if i >= len(is) || i >= len(was) || is[i] != was[i] {
			t.Fatalf("%s is stale from line %d on; -update writes it. Now there is\n%s", name, i+1, strings.Join(is[min(i, len(is)):min(i+6, len(is))], "\n"))
		}
	}
}

// TestExampleConfig holds config.example.yaml to every key, and `check` to the example, where the files that it names are.
func TestExampleConfig(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Of what excludes one another, the second stands in comments.
	alternative := regexp.MustCompile(`(?m)^((?:  )+)# ((?:  )*[a-z_]+:.*)$`).ReplaceAll(content, []byte("$1$2"))
	if bytes.Equal(alternative, content) {
		t.Error("nothing in comments")
	}
	stated := map[string]int{}
	var whole Config
	d, err := parseDocument("config.example.yaml", alternative, &whole)
	if err != nil || len(d.problems) > 0 {
		t.Fatal(err, d.problems)
	}
	countKeys(d.root, reflect.TypeFor[Config](), "", stated)
	for _, key := range keyPaths(reflect.TypeFor[Config](), "") {
		if stated[key] == 0 {
			t.Errorf("%s does not stand in the example", key)
		}
	}

	dir := t.TempDir()
	makeExampleFiles(t, dir)
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(binary(t), "check", "--config", file).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), ": ok\n") {
		t.Errorf("check: %v\n%s", err, out)
	}
}

// keyPaths are all keys of a type, as in issuers.*.url and keys[].id.
func keyPaths(typ reflect.Type, path string) []string {
	switch {
	case typ.Kind() == reflect.Pointer:
		return keyPaths(typ.Elem(), path)
	case typ.Kind() == reflect.Map:
		return keyPaths(typ.Elem(), path+".*")
	case typ.Kind() == reflect.Slice:
		return keyPaths(typ.Elem(), path+"[]")
	case typ.Kind() != reflect.Struct || reflect.PointerTo(typ).Implements(textUnmarshaler):
		return []string{path}
	}
	var all []string
	for i := range typ.NumField() {
		all = append(all, keyPaths(typ.Field(i).Type, join(path, typ.Field(i).Tag.Get("yaml")))...)
	}
	return all
}

// countKeys counts the keys of a document by the same paths.
func countKeys(n *yaml.Node, typ reflect.Type, path string, count map[string]int) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch {
	case n.Kind == yaml.ScalarNode:
		count[path]++
	case n.Kind == yaml.SequenceNode:
		for _, item := range n.Content {
			countKeys(item, typ.Elem(), path+"[]", count)
		}
	case typ.Kind() == reflect.Map:
		for i := 1; i < len(n.Content); i += 2 {
			countKeys(n.Content[i], typ.Elem(), path+".*", count)
		}
	default:
		for i := 0; i < len(n.Content); i += 2 {
			for j := range typ.NumField() {
				if key := typ.Field(j).Tag.Get("yaml"); key == n.Content[i].Value {
					countKeys(n.Content[i+1], typ.Field(j).Type, join(path, key), count)
				}
			}
		}
	}
}

// makeExampleFiles makes everything that the example names.
func makeExampleFiles(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, o := range []certificateOrder{
		{name: "ca", usage: "server"}, {name: "partners-ca", usage: "client"}, {name: "operators-ca", usage: "client"},
		{name: "redis-ca", usage: "server"}, {name: "issuer-ca", usage: "server"}, {name: "acme-ca", usage: "server"},
		{name: "server", ca: "ca", usage: "server", dns: "cards.example.com"},
		{name: "redis-client", ca: "redis-ca", usage: "client"}, {name: "issuer-client", ca: "issuer-ca", usage: "client"},
	} {
		o.subject, o.notAfter = "CN="+o.name, time.Hour
		if err := issueCertificate(dir, o); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"admin-token": "token\n", "redis-password": "password\n", "sentinel-password": "password\n", "passphrase": "a long passphrase\n", "rain-key": "key\n", "example-pay-rain-key": "key\n",
		"payments-key": "key\n", "example-pay-payments-key": "key\n", "cards-key": "key\n", "payroc-key": "key\n", "acme-binding-key": "a2V5\n",
		"rain-public.pem": shortPublicKey, "credentials.json": `{"version":1,"credentials":[]}`,
		"holders.yaml": "cards:\n  - {id: c, issuer: rain, partners: [example-pay], users: [ada], environment: test}\nusers:\n  - {id: ada, partner: example-pay, issuer: rain}\n",
	} {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(at("dns-hook"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("policies"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("policies/demo.cedar"), []byte(demoPolicies), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, shared := range map[string]string{
		"session-2025.pem": "session-key.pem", "example-pay-account.pem": "service-account-public.pem",
		"cards-public.pem": "service-account-public.pem", "payroc-public.pem": "service-account-public.pem",
	} {
		if err := os.WriteFile(at(name), sharedKeys(t)[shared], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for use, name := range map[string]string{"storage": "storage-2026.pem", "digest": "digest-2026.pem", "cookie": "cookie-2026.pem", "jwt": "jwt-2026.pem", "audit": "audit-2026.pem"} {
		if err := generateKey(use, 0, at(name), "", ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(generateKey("cookie", 0, at("cookie-2025.pem"), "", ""), generateKey("jwt", 0, at("jwt-2025.pem"), "", "")); err != nil {
		t.Fatal(err)
	}
	sealedKey(t, "session", at("session-2026.age"), at("passphrase"))
	users, err := keys.Load(keys.Config{ID: "users", Use: keys.UseJWT, File: at("jwt-2025.pem")})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := users.JWT()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("users-jwks.json"), credential.JWKS(signer), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestNoValueIsQuoted plants a secret as every value of the example in turn, as somebody does who takes a key for its
// file: nothing that is said about it quotes it. What is no place for a secret is excepted: names by which parts of the
// configuration call one another, words of closed sets, and paths of files in which there is no secret.
func TestNoValueIsQuoted(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-hunter2"
	content, err := os.ReadFile("config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Without the sealed key, which takes long on purpose to open, and to remember.
	text := strings.NewReplacer("kind: age\n    file: session-2026.age\n    passphrase_file: passphrase\n", "kind: pem\n    file: session-2025.pem\n").Replace(string(content))
	dir := t.TempDir()
	makeExampleFiles(t, dir)
	file := filepath.Join(dir, "config.yaml")
	names := regexp.MustCompile(`(^|\.)(id|use|kind|subject|face|environment|holders|credentials|logins_file|policies\[\d+\]|certificate|ca|client_ca|jwks|public_keys?(\[\d+\])?)$`)
	planted := 0
	for _, path := range scalarPaths(t, text) {
		if names.MatchString(path) {
			continue
		}
		var root yaml.Node
		if err := yaml.Unmarshal([]byte(text), &root); err != nil {
			t.Fatal(err)
		}
		d := &document{root: root.Content[0]}
		n := d.find(path)
		n.SetString(secret)
		changed, err := yaml.Marshal(&root)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := load(file); err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", path, err)
		}
		planted++
	}
	if planted < 60 {
		t.Errorf("only %d values", planted)
	}
}

// sealedKey writes a new key as an age file. Ours take a second to try a passphrase, and many under the race detector; this takes
// none.
func sealedKey(t *testing.T, use, file, passphraseFile string) {
	t.Helper()
	plain := filepath.Join(t.TempDir(), "key.pem")
	if err := generateKey(use, 0, plain, "", ""); err != nil {
		t.Fatal(err)
	}
	passphrase, err := os.ReadFile(passphraseFile)
	if err != nil {
		t.Fatal(err)
	}
	to, err := age.NewScryptRecipient(strings.TrimSpace(string(passphrase)))
	if err != nil {
		t.Fatal(err)
	}
	to.SetWorkFactor(4)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, to)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), os.WriteFile(file, sealed.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// scalarPaths are the paths of all values of a document.
func scalarPaths(t *testing.T, text string) []string {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		t.Fatal(err)
	}
	var all []string
	var visit func(*yaml.Node, string)
	visit = func(n *yaml.Node, path string) {
		switch n.Kind {
		case yaml.ScalarNode:
			all = append(all, path)
		case yaml.SequenceNode:
			for i, item := range n.Content {
				visit(item, fmt.Sprintf("%s[%d]", path, i))
			}
		case yaml.MappingNode:
			for i := 0; i < len(n.Content); i += 2 {
				visit(n.Content[i+1], join(path, n.Content[i].Value))
			}
		}
	}
	visit(root.Content[0], "")
	return all
}
