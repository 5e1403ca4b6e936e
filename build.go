package main

import (
	"crypto/x509"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/holder"
	"github.com/cardstile/cardstile/policy/store"
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

	admin           gateway.Admin
	managed         *gateway.Managed   // nil: no certificates are obtained
	managedFiles    []string           // what is in files that it names
	redis           *store.RedisConfig // nil: in memory
	redisFiles      [][]byte           // certificates that are in its TLS configuration
	logins          []string           // users who are logged in from the start
	keys            map[string]*keys.Key
	inForce         map[string]*keys.Key                 // of the configuration that a reload replaces; nil at a start
	clientCAs       map[string][]*x509.Certificate       // by listener
	hostCAs         map[string]map[string]*x509.CertPool // by listener and host
	hostAuthorities map[string][]*x509.Certificate       // of all hosts, by listener
	trusted         []policy.Fingerprint                 // of all of them
	distrusted      bool                                 // whether some could not be read
	partners        *policy.Partners
	credentials     *credential.APIKeys
	accounts        []credential.Account
	engine          *policy.Engine
	holders         *holder.File
	issuers         map[string]*gateway.Issuer
	apiKeys         map[string]apiKeys // by issuer
	apps            map[string]bool    // the ids of all apps that embed elements
	jwksFiles       map[string][]byte  // what user_tokens.jwks name, by name
	listeners       []gateway.Listener
	routes          []gateway.Route
	routeKeys       []signers           // of each route
	routeOf         []int               // the route's place in the configuration
	beyondFIPS      map[string][]string // keys of the configuration, by what they need that FIPS 140-3 has not
}

// load reads a configuration and everything that it names. The error is `problems` where it can be said what is wrong
// where. The builder is there in any case: it knows which files a better attempt depends on.
func load(file string) (*builder, error) { return loadAfter(file, nil) }

// loadAfter is load beside a configuration that is in force, whose keys it goes on with where they are what they were.
func loadAfter(file string, inForce map[string]*keys.Key) (*builder, error) {
	return loadSteps(file, func(b *builder) { b.inForce = inForce }, (*builder).loadEnvironment, (*builder).loadAdmin, (*builder).loadStore, (*builder).loadKeys,
		(*builder).loadClientCAs, (*builder).loadListeners, (*builder).loadCertificates, (*builder).checkAddresses, (*builder).loadPartners, (*builder).loadAccounts, (*builder).loadCredentials, (*builder).loadIssuers, (*builder).loadRoutes, (*builder).loadHolders,
		(*builder).loadPolicies, (*builder).loadLimits, (*builder).loadAudit, (*builder).loadLog, (*builder).tellFIPS, (*builder).checkRedis, (*builder).checkGateway)
}

// loadPartial reads as much as says who the partners are.
func loadPartial(file string) (*builder, error) {
	return loadSteps(file, (*builder).loadEnvironment, (*builder).loadClientCAs, (*builder).loadPartners)
}

func loadSteps(file string, steps ...func(*builder)) (*builder, error) {
	b := &builder{seen: map[string]string{}, keys: map[string]*keys.Key{}, clientCAs: map[string][]*x509.Certificate{}, hostCAs: map[string]map[string]*x509.CertPool{}, hostAuthorities: map[string][]*x509.Certificate{}, issuers: map[string]*gateway.Issuer{}, apiKeys: map[string]apiKeys{}, apps: map[string]bool{}, jwksFiles: map[string][]byte{}, beyondFIPS: map[string][]string{}}
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

func (b *builder) notice(format string, args ...any) {
	b.notices = append(b.notices, fmt.Sprintf(format, args...))
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

// known lists the names of a table.
func known[V any](m map[string]V) string { return strings.Join(slices.Sorted(maps.Keys(m)), ", ") }

func listed[S ~string](names []S) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = string(n)
	}
	return strings.Join(out, ", ")
}
