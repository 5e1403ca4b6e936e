package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	yaml "go.yaml.in/yaml/v3"

	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/vault/keys"
)

// What a file is good for, and so what another good one is.
type sort func(f *filing, key, file string)

// fileKeys are the keys of the configuration that name files, by type and key, with what another good file is.
var fileKeys = map[string]sort{
	"ListenerTLSConfig.certificate": (*filing).anotherPair, "ListenerTLSConfig.key": (*filing).anotherPair, "ListenerTLSConfig.client_ca": (*filing).fewer,
	"ListenerConfig.host_client_ca": (*filing).fewer,
	"RevocationConfig.crl":          (*filing).anotherList, "RevocationConfig.ca": (*filing).fewer, "RevocationConfig.intermediates": (*filing).fewer,
	"ACMEConfig.ca": (*filing).fewer, "DNSConfig.program": (*filing).anotherProgram, "DNSConfig.ca": (*filing).fewer, "DNSConfig.bearer_file": (*filing).anotherSecret,
	"BindingConfig.key_file":     (*filing).anotherSecret,
	"AdminConfig.bearer_file":    (*filing).anotherSecret,
	"AdminTLSConfig.certificate": (*filing).anotherPair, "AdminTLSConfig.key": (*filing).anotherPair, "AdminTLSConfig.client_ca": (*filing).fewer,
	"RedisConfig.password_file": (*filing).anotherSecret, "SentinelConfig.password_file": (*filing).anotherSecret,
	"ClientTLSConfig.ca": (*filing).fewer, "ClientTLSConfig.certificate": (*filing).anotherPair, "ClientTLSConfig.key": (*filing).anotherPair,
	"MemoryConfig.logins_file": (*filing).anotherSecret,
	"KeyConfig.file":           (*filing).anotherKey, "KeyConfig.passphrase_file": (*filing).anotherPassphrase,
	"AccountConfig.public_keys":        (*filing).anotherPublicKey,
	"PartnerCertificateConfig.ca":      (*filing).fewer,
	"PartnerIssuerConfig.api_key_file": (*filing).anotherSecret,
	"IssuerConfig.ca":                  (*filing).fewer, "IssuerConfig.certificate": (*filing).anotherPair, "IssuerConfig.key": (*filing).anotherPair,
	"IssuerConfig.api_key_file": (*filing).anotherSecret, "IssuerConfig.public_key": (*filing).anotherPublicKey,
	"UserTokensConfig.jwks": (*filing).anotherJWKS,
	"Config.policies":       (*filing).anotherPolicy,
	"Config.holders":        (*filing).anotherHolders,
	"Config.credentials":    (*filing).anotherCredential,
}

// notFiles are keys whose comments speak of files, and that name none that is read at a load.
var notFiles = map[string]string{
	"Config.environment":            "a word",
	"Config.certificates":           "keys",
	"RedisConfig.tls":               "keys",
	"Config.keys":                   "keys",
	"ListenerTLSConfig.hosts":       "names",
	"ListenerTLSConfig.revocation":  "keys",
	"CertificatesConfig.ca":         "a word",
	"CertificatesConfig.directory":  "it is written",
	"AuditConfig.file":              "it is written",
	"AuditConfig.instance":          "a name",
	"KeyConfig.kind":                "a word",
	"KeyConfig.use":                 "a word",
	"KeyConfig.id":                  "a name",
	"RouteConfig.jwt_key":           "a key's id",
	"RouteConfig.cookie_key":        "a key's id",
	"RouteConfig.session_key":       "a key's id",
	"HostedFieldsConfig.script":     "a URL",
	"IssuerConfig.legacy":           "words",
	"PartnerConfig.certificate":     "keys",
	"PartnerCertificateConfig.pins": "digests",
}

// TestFileKeys: every key that speaks of a file is known here, and every key that is known is there.
func TestFileKeys(t *testing.T) {
	speaks := regexp.MustCompile(`(?i)\bfiles?\b|\bPEM\b`)
	named := regexp.MustCompile(`(^|_)(file|ca|certificate|crl|jwks)$`)
	found := map[string]bool{}
	for name, s := range parseConfig(t) {
		for _, f := range s.fields {
			key := name + "." + f.key
			found[key] = true
			if fileKeys[key] == nil && notFiles[key] == "" && (speaks.MatchString(f.doc) || named.MatchString(f.key) && strings.Contains(f.typ, "string")) {
				t.Errorf("%s is a file or none: %s", key, f.doc)
			}
		}
	}
	for _, key := range slices.Concat(slices.Collect(maps.Keys(fileKeys)), slices.Collect(maps.Keys(notFiles))) {
		if !found[key] {
			t.Errorf("there is no key %s", key)
		}
	}
}

// namedFile is a file that a configuration names.
type namedFile struct {
	key  string // type and key
	path string // of the key, as problems name it
	node *yaml.Node
}

// namedFiles finds them all.
func namedFiles(n *yaml.Node, typ reflect.Type, key, path string) (all []namedFile) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch {
	case n.Kind == yaml.ScalarNode && fileKeys[key] != nil && !strings.Contains(n.Value, "://"):
		all = append(all, namedFile{key, path, n})
	case n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			if key != "DNSConfig.program" || i == 0 { // the others are its arguments
				all = append(all, namedFiles(item, typ.Elem(), key, fmt.Sprintf("%s[%d]", path, i))...)
			}
		}
	case typ.Kind() == reflect.Map:
		for i := 0; i < len(n.Content); i += 2 {
			all = append(all, namedFiles(n.Content[i+1], typ.Elem(), key, join(path, n.Content[i].Value))...)
		}
	case typ.Kind() == reflect.Struct:
		for i := 0; i < len(n.Content); i += 2 {
			for j := range typ.NumField() {
				if name := typ.Field(j).Tag.Get("yaml"); name == n.Content[i].Value {
					all = append(all, namedFiles(n.Content[i+1], typ.Field(j).Type, typ.Name()+"."+name, join(path, name))...)
				}
			}
		}
	}
	return all
}

// filing is a configuration in which every key that names a file has one of its own.
type filing struct {
	t     *testing.T
	dir   string
	files map[string]namedFile // by key path
	at    map[string]string    // which file a key path names
	extra []byte               // one more authority
}

// newFiling takes keys out of the whole example, and writes what is left with its files.
func newFiling(t *testing.T, without ...string) *filing {
	content, err := os.ReadFile("config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	whole := regexp.MustCompile(`(?m)^((?:  )+)# ((?:  )*[a-z_]+:.*)$`).ReplaceAll(content, []byte("$1$2"))
	var root yaml.Node
	if err := yaml.Unmarshal(whole, &root); err != nil {
		t.Fatal(err)
	}
	for _, path := range without {
		above, name := path[:max(0, strings.LastIndex(path, "."))], path[strings.LastIndex(path, ".")+1:]
		n := (&document{root: root.Content[0]}).find(above)
		i := slices.IndexFunc(n.Content, func(n *yaml.Node) bool { return n.Value == name })
		if i < 0 {
			t.Fatalf("the example has no %s", path)
		}
		n.Content = slices.Delete(n.Content, i, i+2)
	}
	f := &filing{t: t, dir: t.TempDir(), files: map[string]namedFile{}, at: map[string]string{}}
	makeExampleFiles(t, f.dir)
	for _, name := range []string{"extra", "dns-ca", "issuing-ca", "servers-ca"} {
		f.must(issueCertificate(f.dir, certificateOrder{name: name, subject: "CN=" + name, usage: "server", notAfter: time.Hour, notBefore: -time.Hour}))
	}
	f.extra = f.read(f.dir + "/extra.pem")
	f.write(f.dir+"/dns-bearer", []byte("token\n"))
	f.write(f.dir+"/logins", []byte("ada\n"))
	f.anotherList("", f.dir+"/partners.crl")
	for i, n := range namedFiles(root.Content[0], reflect.TypeFor[Config](), "", "") {
		f.files[n.path] = n
		if n.key == "Config.policies" {
			f.at[n.path] = f.dir + "/policies/demo.cedar"
			continue
		}
		own := fmt.Sprintf("./own-%d-%s", i, filepath.Base(n.node.Value))
		content := f.read(filepath.Join(f.dir, n.node.Value))
		if reflect.ValueOf(fileKeys[n.key]).Pointer() == reflect.ValueOf((*filing).fewer).Pointer() {
			content = slices.Concat(content, f.extra)
		}
		f.at[n.path] = filepath.Join(f.dir, own)
		f.write(f.at[n.path], content)
		n.node.Value = own
	}
	text, err := yaml.Marshal(&root)
	f.must(err)
	f.write(f.config(), text)
	return f
}

func (f *filing) config() string { return f.dir + "/config.yaml" }

func (f *filing) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *filing) read(file string) []byte {
	f.t.Helper()
	content, err := os.ReadFile(file)
	f.must(err)
	return content
}

// write puts a file in the place of another. Programs keep what they may.
func (f *filing) write(file string, content []byte) {
	f.t.Helper()
	mode := os.FileMode(0o600)
	if strings.HasPrefix(string(content), "#!") {
		mode = 0o700
	}
	f.must(errors.Join(os.WriteFile(file+".new", content, mode), os.Rename(file+".new", file)))
}

// fewer leaves an authority out.
func (f *filing) fewer(_, file string) {
	f.write(file, []byte(strings.Replace(string(f.read(file)), string(f.extra), "", 1)))
}

// anotherPair writes a certificate and its key, whichever is asked for.
func (f *filing) anotherPair(key, _ string) {
	f.must(issueCertificate(f.dir, certificateOrder{name: "pair", ca: "ca", subject: "CN=pair", usage: "server", dns: "cards.example.com", notAfter: time.Hour, notBefore: -time.Hour}))
	above := key[:strings.LastIndex(key, ".")]
	f.write(f.at[above+".certificate"], f.read(f.dir+"/pair.pem"))
	f.write(f.at[above+".key"], f.read(f.dir+"/pair-key.pem"))
}

func (f *filing) anotherSecret(_, file string) { f.write(file, []byte("b3RoZXI\n")) }

func (f *filing) anotherProgram(_, file string) { f.write(file, []byte("#!/bin/sh\nexit 1\n")) }

func (f *filing) anotherPublicKey(_, file string) {
	f.write(file, sharedKeys(f.t)["session-public.pem"])
}

func (f *filing) anotherHolders(_, file string) {
	f.write(file, []byte(strings.Replace(string(f.read(file)), "id: c,", "id: d,", 1)))
}

func (f *filing) anotherCredential(_, file string) {
	_, _, err := credential.Add(file, credential.NewAPIKey{Partner: "example-pay", Environment: "test", Now: time.Now()})
	f.must(err)
}

func (f *filing) anotherPolicy(_, file string) {
	f.write(file, append(f.read(file), "\n@id(\"more\") forbid (principal, action, resource) when { context.face == \"nobody's\" };\n"...))
}

func (f *filing) anotherJWKS(_, file string) {
	f.must(generateKey("jwt", 0, f.dir+"/users-key.pem", "", ""))
	users, err := keys.Load(keys.Config{ID: "users", Use: keys.UseJWT, File: f.dir + "/users-key.pem"})
	f.must(err)
	signer, err := users.JWT()
	f.must(err)
	f.write(file, credential.JWKS(signer))
	f.must(os.Remove(f.dir + "/users-key.pem"))
}

// anotherKey writes one of the same use.
func (f *filing) anotherKey(key, file string) {
	var c Config
	d, err := readDocument(f.config(), &c)
	f.must(err)
	use := d.find(strings.TrimSuffix(key, "file") + "use").Value
	if passphrase := f.at[strings.TrimSuffix(key, "file")+"passphrase_file"]; passphrase != "" {
		sealedKey(f.t, use, f.dir+"/another.pem", passphrase)
	} else {
		f.must(generateKey(use, 0, f.dir+"/another.pem", "", ""))
	}
	f.write(file, f.read(f.dir+"/another.pem"))
	f.must(os.Remove(f.dir + "/another.pem"))
}

// anotherPassphrase seals a key anew.
func (f *filing) anotherPassphrase(key, file string) {
	f.write(file, []byte("another long passphrase\n"))
	sealedKey(f.t, "session", f.dir+"/another.age", file)
	f.write(f.at[strings.TrimSuffix(key, "passphrase_file")+"file"], f.read(f.dir+"/another.age"))
	f.must(os.Remove(f.dir + "/another.age"))
}

// anotherList writes a list of the partners' CA that is not current: of that the configuration tells.
func (f *filing) anotherList(key, file string) {
	pair, err := tls.LoadX509KeyPair(f.dir+"/partners-ca.pem", f.dir+"/partners-ca-key.pem")
	f.must(err)
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	if key != "" {
		list.NextUpdate = time.Now().Add(-time.Hour)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey))
	f.must(err)
	f.write(file, der)
}

// TestEveryFile has each file that a configuration names broken, and replaced by another good one: it is watched; a broken one is
// said to be, by its key, and leaves all as it was; and a good one is in force, or needs a restart, which the log says.
func TestEveryFile(t *testing.T) {
	t.Parallel()
	const acme, sealed = "certificates.acme.", "keys[0].passphrase_file"
	tried := map[string]bool{}
	for name, c := range map[string]struct {
		without []string
		only    string // the keys that are tried
	}{
		"redis":  {[]string{"keys[0].kind", sealed, acme + "http_address", acme + "dns.webhook", acme + "dns.ca", acme + "dns.bearer_file", "certificates.directory", "store.redis.quorum", "store.memory"}, ""},
		"memory": {[]string{"keys[0].kind", sealed, acme + "http_address", acme + "dns.program", "store.redis"}, "certificates.acme.dns|store.memory"},
		"sealed": {[]string{acme + "http_address", acme + "dns.program", "store.redis"}, "keys[0]"}, // the others are tried above
	} {
		f := newFiling(t, c.without...)
		if name != "sealed" {
			at := f.dir + "/session.pem"
			f.must(generateKey("session", 0, at, "", ""))
			f.write(f.at["keys[0].file"], f.read(at))
		}
		l := f.live()
		if _, err := l.reload(); err != nil { // the first makes what later ones take over
			t.Fatal(err)
		}
		paths := slices.Sorted(maps.Keys(f.files))
		slices.Reverse(paths) // partners before listeners, which must trust their authorities
		for _, path := range paths {
			if !slices.ContainsFunc(strings.Split(c.only, "|"), func(p string) bool { return strings.HasPrefix(path, p) }) {
				continue
			}
			tried[f.files[path].key] = true
			l.try(name, path)
		}
	}
	for key := range fileKeys {
		if !tried[key] {
			t.Errorf("%s was not tried", key)
		}
	}
}

// live is a process that runs on a filing, as far as reloads go.
type live struct {
	*filing
	p    *process
	said *observer.ObservedLogs
	b    *builder // in force
	next *builder // of the last reload

	sealed []byte // by the key of use storage of the beginning
}

func (f *filing) live() *live {
	b, err := load(f.config())
	f.must(err)
	core, said := observer.New(zap.WarnLevel)
	p, err := newProcess(b, zap.New(core), nil)
	f.must(err)
	f.t.Cleanup(func() { p.close() }) //nolint:errcheck // nobody is left to tell
	return &live{filing: f, p: p, said: said, b: b, next: b}
}

// reload reports whether the last reload's files have changed, and what the next says.
func (l *live) reload() (changed bool, err error) {
	w := watcher{l.next.seen}
	changed = w.changed()
	l.said.TakeAll()
	l.next, err = l.p.reload(l.config())
	if err == nil {
		l.b = l.next
	}
	return changed, err
}

// inForce is all that came out of files, told apart, whether it is in force or was left out.
func (l *live) inForce() string {
	d := &digester{seen: map[any]bool{}}
	b := l.b
	for _, v := range []any{b.listeners, b.clientCAs, b.hostAuthorities, b.admin, b.accounts, b.credentials, b.holders, b.issuers, b.jwksFiles, b.engine, b.notices, b.managedFiles, b.redisFiles, b.logins} {
		d.add(reflect.ValueOf(v))
	}
	for _, p := range b.partners.All() {
		fmt.Fprint(&d.text, p.CA, p.Pins)
	}
	for _, id := range slices.Sorted(maps.Keys(b.keys)) {
		fmt.Fprint(&d.text, l.told(b.keys[id]))
	}
	return d.text.String()
}

// told tells keys apart.
func (l *live) told(k *keys.Key) string {
	if public := k.Public(); public != nil {
		return public.N.String()
	}
	if k.Use() == keys.UseJWT {
		signer, err := k.JWT()
		l.must(err)
		return string(credential.JWKS(signer))
	}
	if k.Use() == keys.UseStorage {
		sealer, err := k.Sealer("test")
		l.must(err)
		if l.sealed == nil {
			l.sealed, err = sealer.Seal(nil, nil, []byte("by the first"))
			l.must(err)
		}
		_, err = sealer.Open(nil, nil, l.sealed)
		return fmt.Sprint(err == nil)
	}
	mac, err := k.MAC("test")
	if k.Use() == keys.UseCookie {
		mac, err = k.RawMAC()
	}
	l.must(err)
	return string(mac.MAC(nil, nil))
}

// readWhenUsed are keys whose files are read again when they are used, and not kept.
var readWhenUsed = []string{"RedisConfig.password_file", "SentinelConfig.password_file", "DNSConfig.program"}

// goodInHalf are keys of whose files a part can be good by itself.
var goodInHalf = []string{
	"AdminConfig.bearer_file", "BindingConfig.key_file", "DNSConfig.bearer_file", "DNSConfig.program", "IssuerConfig.api_key_file", "MemoryConfig.logins_file",
	"PartnerIssuerConfig.api_key_file", "RedisConfig.password_file", "SentinelConfig.password_file", "Config.policies",
}

// try breaks a file, and then has another in its place. Half a file is the worse one, where it is broken.
func (l *live) try(name, path string) {
	l.t.Helper()
	file, key := l.at[path], l.files[path].key
	was, before, old := l.read(file), l.inForce(), l.b
	switch {
	case key == "MemoryConfig.logins_file" || key == "DNSConfig.program": // any text is a good one
		l.must(os.Remove(file))
	case slices.Contains(goodInHalf, key):
		l.write(file, []byte("\x00 broken\n"))
	default:
		l.write(file, was[:len(was)*3/4])
	}
	changed, err := l.reload()
	switch {
	case !changed:
		l.t.Errorf("%s: %s is not watched", name, path)
	case err == nil || !slices.ContainsFunc(places(path), func(p string) bool { return strings.Contains(err.Error(), ": "+p+": ") }):
		l.t.Errorf("%s: of a broken %s it is said: %v", name, path, err)
	case l.b != old || l.inForce() != before:
		l.t.Errorf("%s: a broken %s is in force", name, path)
	}

	l.write(file, was)
	fileKeys[key](l.filing, path, file)
	if changed, err := l.reload(); !changed || err != nil {
		l.t.Errorf("%s: of another %s it is said, seen: %t: %v", name, path, changed, err)
	}
	if l.inForce() == before && !slices.Contains(readWhenUsed, key) {
		l.t.Errorf("%s: another %s is not in force", name, path)
	}
	left := l.said.FilterMessage("a change that needs a restart was left out")
	if fixed := l.fixed(path); fixed != "" && left.FilterField(zap.String("key", fixed)).Len() == 0 {
		l.t.Errorf("%s: of another %s the log does not say that it needs a restart", name, path)
	}
}

// fixed is what the log names where what is in a file needs a restart.
func (l *live) fixed(path string) string {
	for _, prefix := range []string{"store.redis.tls", "store.memory.logins_file", "certificates"} {
		if strings.HasPrefix(path, prefix) && !slices.Contains(readWhenUsed, l.files[path].key) {
			return prefix
		}
	}
	if path == fmt.Sprintf("keys[%d].file", slices.IndexFunc(l.b.config.Keys, func(k KeyConfig) bool { return k.Use == string(keys.UseAudit) })) {
		return "the key of use audit"
	}
	return ""
}

// places are where it may be said what is wrong with a file: at its key, at a part that has it, and of a key at its certificate.
func places(path string) []string {
	all := []string{path, strings.TrimSuffix(path, ".key") + ".certificate"}
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '.' || path[i] == '[' {
			all = append(all, path[:i])
		}
	}
	return all[:min(len(all), 3)]
}

// digester writes what is in a value, secrets that are hidden behind functions excepted.
type digester struct {
	text strings.Builder
	seen map[any]bool
}

func (d *digester) add(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() || d.seen[v.Pointer()] || v.Type() == reflect.TypeFor[*zap.Logger]() { // which leads to what it said
			return
		}
		d.seen[v.Pointer()] = true
		d.add(v.Elem())
	case reflect.Interface:
		if !v.IsNil() {
			d.add(v.Elem())
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return // of a circuit, when it was made
		}
		for i := range v.NumField() {
			d.add(v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			d.add(v.Index(i))
		}
	case reflect.Map:
		var entries []string
		for _, k := range v.MapKeys() {
			e := &digester{seen: maps.Clone(d.seen)} // their order is not one
			e.add(k)
			e.add(v.MapIndex(k))
			entries = append(entries, e.text.String())
		}
		slices.Sort(entries)
		fmt.Fprint(&d.text, entries)
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Uintptr:
	default:
		fmt.Fprintf(&d.text, "%v ", v)
	}
}
