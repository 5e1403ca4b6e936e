package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/holder"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/keys"
)

// builder turns a configuration into the values that the gateway is made of: names become what they name, and files
// become what is in them. It goes on after a problem, so that all of them are found at once.
type builder struct {
	*document
	config  Config
	dir     string            // of the configuration file
	seen    map[string]string // everything that was read, as it was before: the reload watches it
	notices []string          // what `check` tells beside problems: the inventory

	admin       gateway.Admin
	redis       *store.RedisConfig // nil: in memory
	logins      []string           // users who are logged in from the start
	keys        map[string]*keys.Key
	clientCAs   map[string][]*x509.Certificate // by listener
	trusted     []policy.Fingerprint           // of all of them
	partners    *policy.Partners
	credentials *credential.APIKeys
	engine      *policy.Engine
	holders     *holder.File
	issuers     map[string]*gateway.Issuer
	listeners   []gateway.Listener
	routes      []gateway.Route
	cookieKeys  [][]*keys.Key // of each route; the prover is made of them when there is a store
}

// load reads a configuration and everything that it names. The error is `problems` where it can be said what is wrong
// where. The builder is there in any case: it knows which files a better attempt depends on.
func load(file string) (*builder, error) {
	return loadSteps(file, (*builder).loadEnvironment, (*builder).loadAdmin, (*builder).loadStore, (*builder).loadKeys,
		(*builder).loadClientCAs, (*builder).loadListeners, (*builder).loadPartners, (*builder).loadIssuers, (*builder).loadRoutes, (*builder).loadHolders,
		(*builder).loadPolicies, (*builder).loadCredentials, (*builder).loadAudit, (*builder).loadLog, (*builder).checkRedis, (*builder).checkGateway)
}

// loadPartial reads as much as says who the partners are.
func loadPartial(file string) (*builder, error) {
	return loadSteps(file, (*builder).loadEnvironment, (*builder).loadClientCAs, (*builder).loadPartners)
}

func loadSteps(file string, steps ...func(*builder)) (*builder, error) {
	b := &builder{seen: map[string]string{}, keys: map[string]*keys.Key{}, clientCAs: map[string][]*x509.Certificate{}, issuers: map[string]*gateway.Issuer{}}
	var err error
	if b.dir, err = filepath.Abs(filepath.Dir(file)); err != nil {
		return b, err
	}
	b.watch(file)
	if b.document, err = readDocument(file, &b.config); err != nil {
		return b, err
	}
	unread := slices.Clone(b.problems)
	for _, step := range steps {
		step(b)
	}
	b.problems = append(unread, beside(unread, b.problems[len(unread):])...)
	if len(b.problems) > 0 {
		slices.SortStableFunc(b.problems, func(x, y problem) int { return x.line - y.line })
		return b, problems(b.problems)
	}
	return b, nil
}

// beside leaves out the problems that come of a value that could not be read: at its key, above it and below it.
func beside(unread, found []problem) []problem {
	return slices.DeleteFunc(found, func(p problem) bool {
		return slices.ContainsFunc(unread, func(u problem) bool { return within(p.path, u.path) || within(u.path, p.path) })
	})
}

// within reports whether a key path is another one or lies below it.
func within(path, above string) bool {
	rest, ok := strings.CutPrefix(path, above)
	return ok && (above == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// watch notes a file that was read, or a pattern of files, as it is now.
func (b *builder) watch(name string) {
	if _, ok := b.seen[name]; !ok {
		b.seen[name] = stamp(name)
	}
}

// resolve makes a path of the configuration relative to its file, and notes that it was read.
func (b *builder) resolve(path string) string {
	path = b.relative(path)
	b.watch(path)
	return path
}

func (b *builder) relative(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(b.dir, path)
}

// display is a path as problems and rules name it: relative to the configuration where it can be.
func (b *builder) display(path string) string {
	if short, err := filepath.Rel(b.dir, path); err == nil {
		return short
	}
	return path
}

func (b *builder) notice(format string, args ...any) {
	b.notices = append(b.notices, fmt.Sprintf(format, args...))
}

// read returns a file's content, or reports why there is none.
func (b *builder) read(key, path string) ([]byte, bool) {
	if path == "" {
		b.problem(key, "required: the path of a file")
		return nil, false
	}
	content, err := os.ReadFile(b.resolve(path))
	if err != nil {
		b.problem(key, "%v", unquoted(err))
		return nil, false
	}
	return content, true
}

// exists checks that a file is there and can be read, for those that another package reads.
func (b *builder) exists(key, path string) bool {
	f, err := os.Open(b.resolve(path))
	if err != nil {
		b.problem(key, "%v", unquoted(err))
		return false
	}
	f.Close()
	return true
}

// unquoted drops the path from a file error: it stands in the configuration, at the place that is named.
func unquoted(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// secret returns the one line of a file that holds a secret.
func (b *builder) secret(key, path string) (string, bool) {
	content, ok := b.read(key, path)
	if !ok {
		return "", false
	}
	text := strings.TrimRight(string(content), "\r\n")
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		b.problem(key, "the file must hold one line of text")
		return "", false
	}
	return text, true
}

// production reports whether an environment is the one that admits no shortcuts.
func production(environment string) bool { return environment == "production" }

func (b *builder) loadEnvironment() {
	b.config.Environment = b.checkEnvironment("environment", b.config.Environment)
	if b.config.Environment == "" {
		b.problem("environment", "required: test or production")
		b.config.Environment = "test"
	}
}

// checkEnvironment returns an environment, or that of tests where it is none: what else is wrong is then said in its terms.
func (b *builder) checkEnvironment(key, value string) string {
	if value != "" && value != "test" && value != "production" {
		b.problem(key, "want test or production")
		return "test"
	}
	return value
}

// environment is the configuration's unless a part says otherwise.
func (b *builder) environment(key, own string) string {
	if own == "" {
		return b.config.Environment
	}
	return b.checkEnvironment(key, own)
}

func (b *builder) loadAdmin() {
	c := &b.config.Admin
	if c.Address == "" {
		c.Address = "127.0.0.1:8445"
	}
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		b.problem("admin.address", "want host:port, as in 127.0.0.1:8445")
		return
	}
	b.admin.Address = c.Address
	if c.BearerFile != "" {
		b.admin.Bearer, _ = b.secret("admin.bearer_file", c.BearerFile)
	}
	if c.TLS != (ListenerTLSConfig{}) {
		pair, _ := b.certificate("admin.tls", c.TLS)
		var cas []*x509.Certificate
		if c.TLS.ClientCA != "" {
			cas = b.authorities("admin.tls.client_ca", c.TLS.ClientCA)
		}
		b.admin.TLS = gateway.ServerTLS(pair, pool(cas))
	}
	if !loopback(host) && (c.TLS.Certificate == "" || c.TLS.ClientCA == "" && c.BearerFile == "") {
		b.problem("admin.address", "off loopback the admin listener needs tls, and tls.client_ca or bearer_file")
	}
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

func (b *builder) loadStore() {
	c := b.config.Store
	if c.Redis != nil && c.Memory != nil {
		b.problem("store", "want one of redis and memory")
	}
	if c.Redis != nil {
		b.loadRedis(c.Redis)
	}
	if c.Memory != nil && c.Memory.LoginsFile != "" {
		if production(b.config.Environment) {
			b.problem("store.memory.logins_file", "not in production")
		}
		content, _ := b.read("store.memory.logins_file", c.Memory.LoginsFile)
		b.logins = strings.Fields(string(content))
	}
	if c.Redis == nil && production(b.config.Environment) {
		b.notice("store: in memory: one instance only, and a restart forgets all tokens")
	}
}

func (b *builder) loadRedis(c *RedisConfig) {
	if len(c.Addresses) == 0 {
		b.problem("store.redis.addresses", "required: host:port of the server")
	}
	for i, address := range c.Addresses {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			b.problem(fmt.Sprintf("store.redis.addresses[%d]", i), "want host:port, as in redis.internal:6379")
		}
	}
	if c.Username != "" && c.PasswordFile == "" {
		b.problem("store.redis.password_file", "required where there is a username")
	}
	b.redis = &store.RedisConfig{
		Addresses: c.Addresses, Username: c.Username, Prefix: c.Prefix, PoolSize: c.PoolSize, Timeout: c.Timeout, DialTimeout: c.DialTimeout,
	}
	if c.PasswordFile != "" {
		b.redis.PasswordFile = b.relative(c.PasswordFile)
		b.secret("store.redis.password_file", c.PasswordFile) // read again at each dial; here, whether it holds one
	}
	if c.TLS == nil {
		return
	}
	b.redis.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLS.ServerName}
	if c.TLS.CA != "" {
		b.redis.TLS.RootCAs = pool(b.authorities("store.redis.tls.ca", c.TLS.CA))
	}
	if c.TLS.Certificate != "" || c.TLS.Key != "" {
		if pair, ok := b.certificate("store.redis.tls", ListenerTLSConfig{Certificate: c.TLS.Certificate, Key: c.TLS.Key}); ok {
			b.redis.TLS.Certificates = []tls.Certificate{pair}
		}
	}
}

// checkRedis has the store judge what is left, once the files are read. It does not dial.
func (b *builder) checkRedis() {
	if b.redis == nil || len(b.problems) > 0 {
		return
	}
	s, err := store.NewRedis(*b.redis)
	if err != nil {
		b.problem("store.redis", "%v", err)
		return
	}
	s.Close() //nolint:errcheck // it was never open
}

func (b *builder) loadKeys() {
	for i, c := range b.config.Keys {
		at := fmt.Sprintf("keys[%d]", i)
		environment := b.environment(at+".environment", c.Environment)
		use, err := keys.ParseUse(c.Use)
		if err != nil {
			b.problem(at+".use", "%v", err)
			continue
		}
		if c.Kind != "" && !slices.Contains(keys.Kinds(), c.Kind) {
			b.problem(at+".kind", "unknown kind (known: %s)", strings.Join(keys.Kinds(), ", "))
			continue
		}
		if c.File == "" {
			b.problem(at+".file", "required: the path of a key file")
			continue
		}
		if b.keys[c.ID] != nil {
			b.problem(at+".id", "another key has this id")
			continue
		}
		config := keys.Config{ID: c.ID, Use: use, Kind: c.Kind, File: b.resolve(c.File), Environment: environment}
		there := b.exists(at+".file", c.File)
		if c.PassphraseFile != "" {
			config.PassphraseFile = b.resolve(c.PassphraseFile)
			there = b.exists(at+".passphrase_file", c.PassphraseFile) && there
		}
		if !there {
			continue
		}
		key, err := keys.Load(config)
		if err != nil {
			b.problem(at, "%v", err)
			continue
		}
		if key.Plain() && production(environment) {
			b.problem(at+".kind", "a plain key file is not for production: seal it with `cardstile keys generate --passphrase-file`, and use kind age")
		}
		b.keys[c.ID] = key
	}
	shared := b.config.Store.Redis != nil
	for _, use := range []keys.Use{keys.UseStorage, keys.UseDigest, keys.UseAudit} {
		if len(b.keysFor(use)) > 0 {
			continue
		}
		switch {
		case shared && use != keys.UseAudit:
			b.problem("keys", "a key of use %s is required where instances share a store", use)
		case production(b.config.Environment):
			b.problem("keys", "a key of use %s is required in production", use)
		case use != keys.UseAudit:
			b.notice("keys: no key of use %s: one is generated at each start", use)
		}
	}
}

// keysFor returns the keys of a use, primary first, as the configuration orders them.
func (b *builder) keysFor(use keys.Use) []*keys.Key {
	var found []*keys.Key
	for _, c := range b.config.Keys {
		if k := b.keys[c.ID]; k != nil && k.Use() == use {
			found = append(found, k)
		}
	}
	return found
}

// keyChain returns the key of an id, followed by the previous one where there is one.
func (b *builder) keyChain(at string, use keys.Use, environment string, ids ...string) []*keys.Key {
	var found []*keys.Key
	names := []string{"", "previous_"}
	for i, id := range ids {
		if id == "" {
			continue
		}
		key := at + "." + names[i] + string(use) + "_key"
		switch k := b.keys[id]; {
		case k == nil:
			if !slices.ContainsFunc(b.config.Keys, func(c KeyConfig) bool { return c.ID == id }) { // else its problem was told
				b.problem(key, "no key has this id")
			}
		case k.Use() != use:
			b.problem(key, "the key is of use %s, not %s", k.Use(), use)
		case k.Environment() != environment:
			b.problem(key, "the key is of environment %s, the route of %s", k.Environment(), environment)
		default:
			found = append(found, k)
		}
	}
	return found
}

func (b *builder) certificate(at string, c ListenerTLSConfig) (tls.Certificate, bool) {
	chain, ok := b.read(at+".certificate", c.Certificate)
	key, also := b.read(at+".key", c.Key)
	if !ok || !also {
		return tls.Certificate{}, false
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		b.problem(at+".certificate", "certificate and key do not load: %v", err)
		return tls.Certificate{}, false
	}
	return pair, true
}

// authorities reads a PEM file of CA certificates. Anything else in it is a problem, not something to pass over.
func (b *builder) authorities(key, path string) []*x509.Certificate {
	content, ok := b.read(key, path)
	if !ok {
		return nil
	}
	var found []*x509.Certificate
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			b.problem(key, "the file holds something that is not a certificate")
			return nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			b.problem(key, "certificate %d does not parse", len(found)+1)
			return nil
		case !c.IsCA:
			b.problem(key, "certificate %d is not a CA's", len(found)+1)
			return nil
		}
		found = append(found, c)
	}
	if len(found) == 0 {
		b.problem(key, "the file holds no PEM certificate")
	}
	return found
}

func pool(cs []*x509.Certificate) *x509.CertPool {
	if cs == nil {
		return nil
	}
	p := x509.NewCertPool()
	for _, c := range cs {
		p.AddCert(c)
	}
	return p
}

// loadClientCAs reads whose certificates partners bring.
func (b *builder) loadClientCAs() {
	for _, name := range slices.Sorted(maps.Keys(b.config.Listeners)) {
		path := b.config.Listeners[name].TLS.ClientCA
		if path == "" {
			continue
		}
		b.clientCAs[name] = b.authorities("listeners."+name+".tls.client_ca", path)
		if len(b.clientCAs[name]) == 0 {
			b.trusted = append(b.trusted, policy.Fingerprint{}) // its problem was told: partners are judged as if there were one
		}
		for _, ca := range b.clientCAs[name] {
			if f := policy.FingerprintOf(ca); !slices.Contains(b.trusted, f) {
				b.trusted = append(b.trusted, f)
			}
		}
	}
}

func (b *builder) loadListeners() {
	if len(b.config.Listeners) == 0 {
		b.problem("listeners", "required: at least one")
	}
	for _, name := range slices.Sorted(maps.Keys(b.config.Listeners)) {
		c, at := b.config.Listeners[name], "listeners."+name
		if _, _, err := net.SplitHostPort(c.Address); err != nil {
			b.problem(at+".address", "want host:port, as in :8443")
		}
		l := gateway.Listener{Name: name, Environment: b.environment(at+".environment", c.Environment), ProxyProtocol: c.ProxyProtocol.From}
		l.Certificate, _ = b.certificate(at+".tls", c.TLS)
		l.ClientCAs = pool(b.clientCAs[name])
		b.listeners = append(b.listeners, l)
	}
}

func (b *builder) listener(name string) *gateway.Listener {
	for i := range b.listeners {
		if b.listeners[i].Name == name {
			return &b.listeners[i]
		}
	}
	return nil
}

func (b *builder) loadPartners() {
	var list []policy.Partner
	for i, c := range b.config.Partners {
		at := fmt.Sprintf("partners[%d]", i)
		p := policy.Partner{
			ID: c.ID, Disabled: c.Disabled, Environment: b.environment(at+".environment", c.Environment),
			Rate: c.Rate, MaxConcurrent: c.Concurrent,
		}
		if c.Certificate != nil {
			b.partnerCertificate(at+".certificate", c.Certificate, &p)
		}
		// Each is added by itself, so that what is wrong with it is said at its line.
		if _, err := policy.NewPartners(append(list, p), b.trusted...); err != nil {
			b.problem(at, "%v", err)
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
			if _, ok := b.config.Issuers[name]; !ok {
				b.problem(at+".issuers."+name, "no issuer has this name (known: %s)", known(b.config.Issuers))
			}
		}
		if c.Disabled {
			b.notice("partners: %s is disabled", c.ID)
		}
		list = append(list, p)
	}
	var err error
	if b.partners, err = policy.NewPartners(list, b.trusted...); err != nil {
		b.problem("partners", "%v", err) // not reached: each was added to those before it
		b.partners = nil
	}
}

func (b *builder) partnerCertificate(at string, c *PartnerCertificateConfig, p *policy.Partner) {
	subject, err := policy.ParseSubject(c.Subject)
	if err != nil {
		b.problem(at+".subject", "%v", err)
	} else {
		p.Subjects = []policy.Subject{subject}
	}
	if c.CA != "" {
		for _, ca := range b.authorities(at+".ca", c.CA) {
			p.CA = append(p.CA, policy.FingerprintOf(ca))
		}
	}
	for i, text := range c.Pins {
		pin, err := policy.ParseFingerprint(text)
		if err != nil {
			b.problem(fmt.Sprintf("%s.pins[%d]", at, i), "%v", err)
			continue
		}
		p.Pins = append(p.Pins, pin)
	}
}

func (b *builder) loadIssuers() {
	for _, name := range slices.Sorted(maps.Keys(b.config.Issuers)) {
		c, at := b.config.Issuers[name], "issuers."+name
		before := len(b.problems)
		environment := b.environment(at+".environment", c.Environment)
		kind, err := issuer.Lookup(c.Kind)
		if err != nil {
			b.problem(at+".kind", "%v", err)
			continue
		}
		config := gateway.IssuerConfig{
			Name: name, Kind: kind, Timeout: c.Timeout, Concurrent: c.Concurrent, MaxBytes: b.config.Limits.AnswerBytes,
			PartnerCredentials: b.partnerCredentials(name),
		}
		config.URL, config.TLS = b.issuerURL(at, c, environment)
		config.Credential, _ = b.secret(at+".api_key_file", c.APIKeyFile)
		config.SessionKey = b.issuerKey(at, c, kind)
		if len(b.problems) > before {
			continue
		}
		if b.issuers[name], err = gateway.NewIssuer(config); err != nil {
			b.problem(at, "%v", err)
		}
	}
}

func (b *builder) issuerURL(at string, c IssuerConfig, environment string) (*url.URL, *tls.Config) {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		b.problem(at+".url", "want a URL of scheme, host and perhaps a path, without user, query or fragment")
		return nil, nil
	case u.Scheme == "http" && environment == "test" && loopback(u.Hostname()):
		return u, nil
	case u.Scheme != "https":
		b.problem(at+".url", "want https")
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		config.RootCAs = pool(b.authorities(at+".ca", c.CA))
	}
	if c.Certificate != "" || c.Key != "" {
		if pair, ok := b.certificate(at, ListenerTLSConfig{Certificate: c.Certificate, Key: c.Key}); ok {
			config.Certificates = []tls.Certificate{pair}
		}
	}
	return u, config
}

func (b *builder) partnerCredentials(name string) map[string]string {
	found := map[string]string{}
	for i, p := range b.config.Partners {
		c, ok := p.Issuers[name]
		if !ok {
			continue
		}
		if key, ok := b.secret(fmt.Sprintf("partners[%d].issuers.%s.api_key_file", i, name), c.APIKeyFile); ok {
			found[p.ID] = key
		}
	}
	return found
}

func (b *builder) issuerKey(at string, c IssuerConfig, kind issuer.Kind) *vault.IssuerKey {
	format, err := envelope.ByName(kind.SessionFormat)
	if err != nil {
		panic("internal error: " + err.Error()) // a table of ours
	}
	content, ok := b.read(at+".public_key", c.PublicKey)
	if !ok {
		return nil
	}
	public, err := keys.ParsePublicPEM(content)
	if err != nil {
		b.problem(at+".public_key", "%v", err)
		return nil
	}
	small := slices.Contains(c.Legacy, "rsa-1024")
	for i, name := range c.Legacy {
		if name != "rsa-1024" {
			b.problem(fmt.Sprintf("%s.legacy[%d]", at, i), "unknown primitive (known: rsa-1024)")
		}
	}
	if err := keys.MinBits(public, small); err != nil {
		b.problem(at+".public_key", "%v; where the issuer has no other, name it: legacy: [rsa-1024]", err)
		return nil
	}
	if small {
		b.notice("%s: legacy: rsa-1024, a key of %d bits", at, public.Size()*8)
	}
	for _, name := range format.Legacy() {
		b.notice("%s: its sessions (format %s) use %s", at, format.Name(), name)
	}
	key, err := vault.NewIssuerKey(format, public)
	if err != nil {
		b.problem(at+".public_key", "%v", err)
	}
	return key
}

func (b *builder) loadRoutes() {
	if len(b.config.Routes) == 0 {
		b.problem("routes", "required: at least one")
	}
	for i := range b.config.Routes {
		at := fmt.Sprintf("routes[%d]", i)
		c := &b.config.Routes[i]
		if r, ok := b.route(at, c); ok {
			b.routes = append(b.routes, r)
			b.cookieKeys = append(b.cookieKeys, b.routeCookies(at, c, r.Environment))
		}
	}
	b.checkSharing()
}

// route resolves one route.
func (b *builder) route(at string, c *RouteConfig) (gateway.Route, bool) {
	before := len(b.problems)
	r := gateway.Route{
		Listener: c.Listener, Name: c.Face, Environment: b.environment(at+".environment", c.Environment),
		UnboundTokens: c.UnboundTokens, PIN: face.PINMode(c.PIN), Legacy: c.Legacy,
	}
	if l := b.listener(c.Listener); l == nil && len(b.config.Listeners) > 0 {
		b.problem(at+".listener", "no listener has this name (known: %s)", known(b.config.Listeners))
	} else if l != nil && l.Environment != r.Environment {
		b.problem(at+".listener", "the listener is of environment %s, the route of %s", l.Environment, r.Environment)
	}
	kind, err := face.Lookup(c.Face)
	if err != nil {
		b.problem(at+".face", "%v", err)
		return r, false
	}
	b.routeIssuer(at, c, &r)
	b.routePartner(at, c, kind, &r)
	b.routeKeys(at, c, kind, &r)
	b.routeModes(at, c, kind)
	for i, op := range c.Operations {
		if !slices.Contains(policy.Operations(), policy.Operation(op)) {
			b.problem(fmt.Sprintf("%s.operations[%d]", at, i), "unknown operation (known: %s)", listed(policy.Operations()))
		}
		r.Operations = append(r.Operations, policy.Operation(op))
	}
	if len(b.problems) > before || c.SessionKey != "" && r.ClientKeys == nil {
		return r, false
	}
	fc := face.Config{PIN: r.PIN, PINWithPAN: c.PINWithPAN}
	if r.ClientKeys != nil {
		fc.SessionKeys, fc.PINKeys = r.ClientKeys, r.ClientKeys
	}
	if r.PIN == face.PINBlind && r.Issuer != nil {
		fc.PINKeys = r.Issuer.SessionKey
	}
	r.Face, err = kind.New(fc)
	if err != nil {
		b.problem(at, "%v", err)
		return r, false
	}
	return r, true
}

func (b *builder) routeIssuer(at string, c *RouteConfig, r *gateway.Route) {
	if c.Issuer == "" {
		b.problem(at+".issuer", "required (known: %s)", known(b.config.Issuers))
		return
	}
	config, ok := b.config.Issuers[c.Issuer]
	if !ok {
		b.problem(at+".issuer", "no issuer has this name (known: %s)", known(b.config.Issuers))
		return
	}
	if e := b.environment("issuers."+c.Issuer+".environment", config.Environment); e != r.Environment {
		b.problem(at+".issuer", "the issuer is of environment %s, the route of %s", e, r.Environment)
	}
	r.Issuer = b.issuers[c.Issuer] // nil where it has problems of its own, told there
}

func (b *builder) routePartner(at string, c *RouteConfig, kind face.Kind, r *gateway.Route) {
	if c.Partner == "" {
		if kind.Credential == policy.KindCookie {
			b.problem(at+".partner", "required: the callers of this face do not show their partner")
		}
		return
	}
	r.Partner = c.Partner
	if b.partners == nil {
		return
	}
	switch p := b.partners.ByID(c.Partner); {
	case p == nil:
		if !slices.Contains(b.partnerIDs(), c.Partner) { // else its problem was told
			b.problem(at+".partner", "no partner has this id")
		}
	case p.Environment != r.Environment:
		b.problem(at+".partner", "the partner is of environment %s, the route of %s", p.Environment, r.Environment)
	}
}

// routeKeys resolves what opens the callers' sessions and proves their cookies.
func (b *builder) routeKeys(at string, c *RouteConfig, kind face.Kind, r *gateway.Route) {
	format, err := envelope.ByName(kind.SessionFormat)
	if err != nil {
		panic("internal error: " + err.Error()) // a table of ours
	}
	if chain := b.keyChain(at, keys.UseSession, r.Environment, c.SessionKey, c.PreviousSessionKey); len(chain) > 0 {
		for _, name := range format.Legacy() {
			if !slices.Contains(c.Legacy, name) {
				b.problem(at+".legacy", "the clients of face %s need %s: name it, legacy: [%s]", c.Face, name, name)
			}
			b.notice("%s: legacy: session ids of face %s use %s", at, c.Face, name)
		}
		if r.ClientKeys, err = vault.NewClientKeys(format, chain...); err != nil {
			b.problem(at+".session_key", "%v", err)
		}
	}
	for i, name := range c.Legacy {
		if !slices.Contains(format.Legacy(), name) {
			b.problem(fmt.Sprintf("%s.legacy[%d]", at, i), "unknown primitive (known: %s)", strings.Join(format.Legacy(), ", "))
		}
	}
	if kind.Credential == policy.KindCookie && c.CookieKey == "" {
		b.problem(at+".cookie_key", "required by face %s", c.Face)
	}
}

// routeCookies returns the keys that sign the route's cookies.
func (b *builder) routeCookies(at string, c *RouteConfig, environment string) []*keys.Key {
	return b.keyChain(at, keys.UseCookie, environment, c.CookieKey, c.PreviousCookieKey)
}

// routeModes checks the switches of a route, and puts those that weaken it into the inventory.
func (b *builder) routeModes(at string, c *RouteConfig, kind face.Kind) {
	switch face.PINMode(c.PIN) {
	case face.PINOff, face.PINBlind:
	case face.PINSoftware:
		b.notice("%s: pin: software: PIN blocks are opened in memory", at)
	default:
		b.problem(at+".pin", "want blind or software, or nothing")
	}
	if c.PINWithPAN {
		if c.PIN != string(face.PINSoftware) {
			b.problem(at+".pin_with_pan", "needs pin: software")
		}
		b.notice("%s: pin_with_pan: a PIN may stand beside a card number in one answer", at)
	}
	switch c.UnboundTokens {
	case "", policy.UnboundWithUserProof, policy.UnboundRefuse:
	case policy.UnboundAllow:
		b.notice("%s: unbound_tokens: allow: whoever holds a partner's token opens any card of that partner", at)
	default:
		b.problem(at+".unbound_tokens", "want with_user_proof, refuse or allow")
	}
	if c.UnboundTokens != "" && kind.Credential != policy.KindToken {
		b.problem(at+".unbound_tokens", "face %s has no tokens", c.Face)
	}
	if c.StatelessCookies {
		b.notice("%s: stateless_cookies: signed cookies without a login record, which cannot be revoked and never expire", at)
	}
}

// checkSharing refuses several partners behind one account with an issuer, unless that is said [3].
func (b *builder) checkSharing() {
	for _, name := range slices.Sorted(maps.Keys(b.config.Issuers)) {
		if b.config.Issuers[name].SharedCredential {
			b.notice("issuers.%s: shared_credential: several partners act under one API key", name)
			continue
		}
		var sharing []string
		for _, p := range b.config.Partners {
			if slices.Contains(sharing, p.ID) {
				continue // told with the partners
			}
			if _, own := p.Issuers[name]; !own && b.reaches(p, name) {
				sharing = append(sharing, p.ID)
			}
		}
		if len(sharing) > 1 {
			b.problem("issuers."+name, "partners %s would share one API key: give each its own (partners[].issuers.%s.api_key_file), or say shared_credential: true",
				strings.Join(sharing, ", "), name)
		}
	}
}

// reaches reports whether a partner can come to an issuer by some route.
func (b *builder) reaches(p PartnerConfig, issuerName string) bool {
	return slices.ContainsFunc(b.config.Routes, func(r RouteConfig) bool {
		return r.Issuer == issuerName && (r.Partner == p.ID || r.Partner == "" && p.Certificate != nil)
	})
}

func (b *builder) loadHolders() {
	if b.config.Holders == "" {
		b.problem("holders", "required: the holder directory, which says whose card is whose")
		return
	}
	if !b.exists("holders", b.config.Holders) {
		return
	}
	var err error
	if b.holders, err = holder.LoadFile(b.resolve(b.config.Holders)); err != nil {
		b.foreign("holders", err)
		return
	}
	if b.partners == nil {
		return
	}
	names := slices.Collect(maps.Keys(b.config.Issuers))
	if err := b.holders.Validate(b.partnerIDs(), names); err != nil {
		b.foreign("holders", err)
	}
}

// partnerIDs are the configured ids, those of partners with problems too.
func (b *builder) partnerIDs() []string {
	ids := make([]string, len(b.config.Partners))
	for i, p := range b.config.Partners {
		ids[i] = p.ID
	}
	return ids
}

// foreign reports the problems of another file, which name their own lines.
func (b *builder) foreign(key string, err error) {
	for line := range strings.Lines(err.Error()) {
		b.problem(key, "%s", strings.TrimSuffix(line, "\n"))
	}
}

func (b *builder) loadPolicies() {
	var files []policy.PolicyFile
	for i, glob := range b.config.Policies {
		at := fmt.Sprintf("policies[%d]", i)
		b.watch(globbed + b.relative(glob))
		names, err := filepath.Glob(b.relative(glob))
		if err != nil || len(names) == 0 {
			b.problem(at, "no file matches")
			continue
		}
		for _, name := range names {
			if content, ok := b.read(at, name); ok {
				files = append(files, policy.PolicyFile{Name: b.display(name), Source: content})
			}
		}
	}
	if len(b.config.Policies) == 0 {
		b.problem("policies", "required: without a policy that permits, nothing is done")
	}
	if len(files) == 0 || b.partners == nil {
		return
	}
	var issuers []policy.Issuer
	for name, c := range b.config.Issuers {
		issuers = append(issuers, policy.Issuer{ID: name, Environment: b.environment("issuers."+name, c.Environment)})
	}
	var err error
	if b.engine, err = policy.NewEngine(policy.EngineConfig{Policies: files, Partners: b.partners, Issuers: issuers}); err != nil {
		b.foreign("policies", err)
	}
}

func (b *builder) loadCredentials() {
	if b.config.Credentials == "" {
		return
	}
	path := b.resolve(b.config.Credentials)
	info, err := os.Stat(path)
	if err != nil {
		b.problem("credentials", "%v", unquoted(err))
		return
	}
	if info.Mode().Perm()&0o022 != 0 {
		b.problem("credentials", "others than its owner can write the file: whoever can, can make credentials")
	}
	if b.credentials, err = credential.LoadAPIKeys(path); err != nil {
		b.foreign("credentials", err)
		return
	}
	if b.partners == nil {
		return
	}
	if err := b.credentials.Validate(b.partners); err != nil {
		b.foreign("credentials", err)
	}
}

func (b *builder) loadAudit() {
	if b.config.Audit.File == "" {
		b.problem("audit.file", "required: the audit log")
		return
	}
	if info, err := os.Stat(filepath.Dir(b.relative(b.config.Audit.File))); err != nil || !info.IsDir() {
		b.problem("audit.file", "its directory is not there")
	}
}

func (b *builder) loadLog() {
	if _, err := logLevel(b.config.Log); err != nil {
		b.problem("log.level", "%v", err)
	}
	if !slices.Contains([]string{"", "auto", "json", "console"}, b.config.Log.Format) {
		b.problem("log.format", "want json, console or auto")
	}
}

// checkGateway has the gateway judge what it will be given: routes that are in one another's way, or serve nothing.
func (b *builder) checkGateway() {
	if len(b.problems) > 0 {
		return // it would be given less than is configured
	}
	err := gateway.Check(gateway.Config{Listeners: b.listeners, Routes: b.routes, Partners: b.partners, Engine: b.engine, Holders: b.holders})
	if route, ok := errors.AsType[*gateway.RouteError](err); ok {
		b.problem(fmt.Sprintf("routes[%d]", route.Index), "%v", route.Err)
	} else if err != nil {
		b.problem("routes", "%v", err)
	}
}

// known lists the names of a table.
func known[V any](m map[string]V) string { return strings.Join(slices.Sorted(maps.Keys(m)), ", ") }

func listed[S ~string](names []S) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = string(n)
	}
	return strings.Join(out, ", ")
}
