package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/cardstile/cardstile"

// allowedImports is the map of the house: which of our packages each of our packages may import, test files aside. An
// edge that is not here is red; so is one that is here and that nothing uses. See docs/architecture.md.
var allowedImports = map[string][]string{
	// Main wires everything and is the one place where keys (vault) meet what needs a MAC (policy).
	"": {
		"deploy/demo", "deploy/sandbox", // the demo's page and its issuers
		"gateway", "gateway/audit",
		"gateway/elements", "gateway/exchange", // pages and forwarded calls, as routes declare them
		"gateway/face", "gateway/issuer", "gateway/revocation",
		"internal/drill", // prove
		"policy", "policy/credential", "policy/holder", "policy/store",
		"vault", "vault/ca", "vault/envelope", "vault/keys",
	},

	// The gateway is the one place where may (policy) meets can (vault).
	"gateway": {
		"gateway/audit", "gateway/exchange", "gateway/face", "gateway/issuer", "gateway/revocation",
		"policy", "policy/credential", "policy/holder", "policy/store", "vault",
	},
	// Faces and issuers meet in exchange. Of vault they know handles and sealed values alone.
	"gateway/exchange":   {"policy", "vault"},
	"gateway/face":       {"gateway/exchange", "policy", "vault"},
	"gateway/issuer":     {"gateway/exchange", "policy", "vault"},
	"gateway/audit":      {},
	"gateway/revocation": {"internal/durable"}, // it knows certificates alone
	"gateway/elements":   {},                   // pages are static: they know nothing of what goes through the gateway

	// Policy is pure, and knows nothing of vault. What it needs of keys it declares as an interface.
	"policy":            {},
	"policy/holder":     {"policy"},
	"policy/store":      {"policy"}, // rates
	"policy/credential": {"policy", "policy/store"},

	// Vault knows nothing of policy: a permit is its binding bytes.
	"vault":                 {"vault/envelope", "vault/internal/secret", "vault/keys", "vault/pinblock"},
	"vault/ca":              {"internal/durable"}, // it signs with a crypto.Signer
	"vault/envelope":        {"vault/internal/secret"},
	"vault/keys":            {"vault/internal/secret"},
	"vault/pinblock":        {"vault/internal/secret"},
	"vault/internal/secret": {},

	// What is not in the gateway's data path shares nothing with it.
	"deploy":             {},
	"deploy/sandbox":     {},
	"internal/chaos":     {"internal/drill", "policy/store"}, // it breaks the servers under it
	"internal/drill":     {"policy/store"},                   // it tries whether the store holds
	"internal/durable":   {},                                 // files that are whole
	"internal/testacme":  {},
	"internal/testredis": {},
}

// allowedModules are those that we import directly, with what for. What is for tests alone is not in the binary.
var allowedModules = map[string]struct {
	why   string
	tests bool
}{
	"filippo.io/age":                            {"key files sealed with a passphrase [24]", false},
	"github.com/anishathalye/porcupine":         {"judges histories of the store under faults", false},
	"github.com/caddyserver/certmagic":          {"certificates that are obtained and renewed", false},
	"github.com/cedar-policy/cedar-go":          {"the policy language", false},
	"github.com/decred/dcrd/dcrec/secp256k1/v4": {"secp256k1: what wallets sign", false},
	"github.com/go-jose/go-jose/v4":             {"JWTs and sets of keys: an allow-list of algorithms at parse", false},
	"github.com/go-json-experiment/json":        {"JSON that refuses duplicate and differently-cased names in bodies that name a card", false},
	"github.com/libdns/libdns":                  {"the two methods with which certmagic has DNS records changed", false},
	"github.com/mholt/acmez/v3":                 {"certmagic's ACME client: its type of an external account", false},
	"github.com/pires/go-proxyproto":            {"PROXY protocol, v1 and v2", false},
	"github.com/prometheus/client_golang":       {"metrics", false},
	"github.com/redis/go-redis/v9":              {"the store that instances share", false},
	"github.com/sony/gobreaker/v2":              {"the circuit before each issuer", false},
	"github.com/spf13/cobra":                    {"subcommands", false},
	"go.uber.org/zap":                           {"logs", false},
	"go.yaml.in/yaml/v3":                        {"YAML nodes with their lines", false},
	"golang.org/x/crypto":                       {"ASN.1 of distinguished names, byte by byte; OCSP", false},
	"golang.org/x/sync":                         {"one question to the holder directory at a time", false},
	"golang.org/x/sys":                          {"no core dumps, no ptrace [24]; fdatasync", false},
	"golang.org/x/term":                         {"whether standard error is a terminal", false},

	"github.com/getkin/kin-openapi":      {"holds exchanges to the documents of docs/openapi", true},
	"github.com/letsencrypt/pebble/v2":   {"a certificate authority that speaks ACME", true},
	"github.com/miekg/dns":               {"that authority's DNS", true},
	"github.com/prometheus/client_model": {"reads collected metrics", true},
	"github.com/rogpeppe/go-internal":    {"stories: testscript", true},
	"go.uber.org/goleak":                 {"goroutines that outlive a test", true},
	"pgregory.net/rapid":                 {"machines of random operations", true},
}

// restricted are packages that only some files may import, and why.
var restricted = []struct {
	imports string // a path, or a prefix that ends in a slash
	allow   func(file string) bool
	why     string
}{
	{module + "/vault/internal/secret", under("vault/"), "card data exists in the vault and nowhere else"},
	{module + "/internal/testredis", never, "it is for tests"},
	{module + "/internal/testacme", never, "it is for tests"},
	{"github.com/redis/", named("redis"), "the store's contract stands between us and go-redis"},
	{"github.com/caddyserver/certmagic", gatewayTLS, "certificates are the listener's business"},
	{"github.com/mholt/acmez/", gatewayTLS, "certificates are the listener's business"},
	{"github.com/libdns/libdns", oneOf("gateway/tls_dns.go"), "certificates are the listener's business"},
	{"github.com/prometheus/client_golang/prometheus/promauto", never, "collectors are returned by packages and registered by main"},
	{"math/rand", never, "randomness is crypto/rand"},
	{"math/rand/", under("internal/drill/"), "randomness is crypto/rand; what a drill does follows from a seed"},
	{"net/http/pprof", never, "heap dumps hold card data"},
	{"net/http/httputil", never, "requests to issuers are built, never copied"},
	{"unsafe", never, "nothing here is worth it"},
	{"reflect", oneOf("document.go", "restart.go", "wire.go"), "on the way of a request nothing is found out at run time"},
	{"log", oneOf("gateway/admin.go", "deploy/sandbox/rain.go"), "logs are zap's; net/http wants a log.Logger"},
	{"log/slog", never, "logs are zap's"},
	{"text/template", never, "it keeps every method alive: 8 MB"},
	{"os/exec", oneOf("cmd_prove.go", "gateway/tls_dns.go"), "the gateway starts no programs; prove has an operator's, and so has the challenge dns-01"},
	{"github.com/spf13/cobra", func(f string) bool { return f == "main.go" || path.Dir(f) == "." && named("cmd_")(f) }, "subcommands are cmd_<name>.go"},
	{"net/http", func(f string) bool {
		return path.Dir(f) == "gateway" || path.Dir(f) == "." || under("deploy/")(f) ||
			under("gateway/face/")(f) || under("gateway/issuer/")(f) || // names of methods, statuses and cookies
			f == "gateway/revocation/http.go"
	}, "policy and vault do not speak HTTP"},
	{"crypto/tls", func(f string) bool {
		return path.Dir(f) == "gateway" || path.Dir(f) == "." || under("deploy/")(f) || under("internal/testredis/")(f) || f == "gateway/revocation/revocation.go" ||
			(path.Dir(f) == "policy/store" || path.Dir(f) == "internal/drill") && named("redis")(f)
	}, "listeners, issuers, CAs' servers and Redis"},
}

// restrictedNames are declarations of an otherwise welcome package that only some files may use, and why.
var restrictedNames = []struct {
	pkg, names string // names apart by spaces
	allow      func(file string) bool
	why        string
}{
	{"net/http", "Server ServeMux HandlerFunc Handler Handle HandleFunc ListenAndServe ListenAndServeTLS Serve ServeTLS", func(f string) bool {
		return oneOf("gateway/http.go", "gateway/admin.go", "gateway/gateway.go", "gateway/route.go", "gateway/tls_challenge.go")(f) || under("deploy/")(f)
	}, "an exchange does not know which HTTP server carries it: gateway/http.go does; an authority's challenges are no exchanges"},
	{"net/http", "Transport Client DefaultClient DefaultTransport RoundTripper Get Post PostForm Head", func(f string) bool {
		return oneOf("gateway/upstream.go", "gateway/tls_dns.go", "gateway/revocation/http.go", "demo_flows.go")(f) || under("deploy/")(f)
	}, "nor which client: gateway/upstream.go does; a DNS hook is no issuer, nor is a CA's server"},
	{"go.uber.org/zap", "L S ReplaceGlobals RedirectStdLog RedirectStdLogAt Any Reflect NewProduction NewDevelopment Must NewExample", never, "the logger is a field, its fields are typed"},
	{"fmt", "Print Printf Println", never, "packages return, commands write to their output"},
	{"github.com/prometheus/client_golang/prometheus", "MustRegister Register DefaultRegisterer DefaultGatherer", never, "the registry is main's, and not the global one"},
	{"os", "Exit", oneOf("main.go"), "cleanups run"},
	{"os", "Getenv LookupEnv Environ ExpandEnv", oneOf("cmd_session.go"), "the configuration is one file; the environment does not decide where card data goes"},
	{"crypto/rsa", "DecryptPKCS1v15 EncryptPKCS1v15 DecryptPKCS1v15SessionKey DecryptOAEP", under("deploy/sandbox/"), "RSA is done by a key's operation, in vault/keys"},
	{"context", "TODO", never, "each call has its context"},
}

func never(string) bool { return false }

func gatewayTLS(file string) bool { return path.Dir(file) == "gateway" && named("tls")(file) }

func under(dir string) func(string) bool {
	return func(file string) bool { return strings.HasPrefix(file, dir) }
}

func named(prefix string) func(string) bool {
	return func(file string) bool { return strings.HasPrefix(path.Base(file), prefix) }
}

func oneOf(files ...string) func(string) bool {
	return func(file string) bool { return slices.Contains(files, file) }
}

// sources are what the rules are checked on: every Go file of the module by its path.
type sources map[string]*ast.File

// parseSources parses the module's files. The directory tools is a module of its own.
func parseSources(t testing.TB) (sources, *token.FileSet) {
	t.Helper()
	all, set := sources{}, token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || name == "tools" || name != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(name) != ".go":
			return nil
		}
		f, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		all[filepath.ToSlash(name)] = f
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("only %d files", len(all))
	}
	return all, set
}

func isTest(file string) bool { return strings.HasSuffix(file, "_test.go") }

// isTestOnly reports whether a file is no part of the binary.
func isTestOnly(file string) bool {
	return isTest(file) || strings.HasPrefix(file, "internal/testredis/") || strings.HasPrefix(file, "internal/testacme/") || strings.HasPrefix(file, "internal/chaos/")
}

func packageOf(file string) string {
	if dir := path.Dir(file); dir != "." {
		return dir
	}
	return ""
}

// violations returns what breaks the rules of the house.
func violations(all sources, set *token.FileSet) []string {
	var found []string
	used := map[string]bool{}
	for file, f := range all {
		if isTest(file) || under("deploy/bench/")(file) {
			continue
		}
		say := func(at token.Pos, format string, args ...any) {
			found = append(found, fmt.Sprintf("%s:%d: ", file, set.Position(at).Line)+fmt.Sprintf(format, args...))
		}
		names := map[string]string{} // of imported packages, in this file
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				panic(err) // it was parsed
			}
			names[localName(spec, imported)] = imported
			if own, ok := strings.CutPrefix(imported, module+"/"); ok {
				allowed, known := allowedImports[packageOf(file)]
				switch {
				case !known:
					say(spec.Pos(), "package %s is not in the table", packageOf(file))
				case own != "internal/testredis" && own != "internal/testacme" && !slices.Contains(allowed, own):
					say(spec.Pos(), "%q may not import %q", packageOf(file), own)
				}
				used[packageOf(file)+" "+own] = true
			}
			for _, r := range restricted {
				if (imported == r.imports || strings.HasSuffix(r.imports, "/") && strings.HasPrefix(imported, r.imports)) && !r.allow(file) && !isTestOnly(file) {
					say(spec.Pos(), "imports %s: %s", imported, r.why)
				}
			}
			if spec.Name != nil && spec.Name.Name == "." {
				say(spec.Pos(), "a dot import hides where names come from")
			}
		}
		checkNames(file, f, names, say)
	}
	for pkg, allowed := range allowedImports {
		for _, own := range allowed {
			if !used[pkg+" "+own] && slices.ContainsFunc(slices.Collect(keysOf(all)), func(f string) bool { return packageOf(f) == pkg && !isTest(f) }) {
				found = append(found, fmt.Sprintf("the table allows %q to import %q, and it does not", pkg, own))
			}
		}
	}
	slices.Sort(found)
	return found
}

func keysOf(all sources) func(func(string) bool) {
	return func(yield func(string) bool) {
		for f := range all {
			if !yield(f) {
				return
			}
		}
	}
}

// localName is the name of an import in its file: the last element of its path that is no version.
func localName(spec *ast.ImportSpec, imported string) string {
	if spec.Name != nil {
		return spec.Name.Name
	}
	base := path.Base(imported)
	if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
		base = path.Base(path.Dir(imported))
	}
	return base
}

// checkNames looks for init functions, package-level state, and names that are restricted.
func checkNames(file string, f *ast.File, names map[string]string, say func(token.Pos, string, ...any)) {
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			say(fn.Pos(), "an init function: construction happens in main")
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			for _, r := range restrictedNames {
				if names[x.Name] == r.pkg && slices.Contains(strings.Fields(r.names), n.Sel.Name) && !r.allow(file) && !isTestOnly(file) {
					say(n.Pos(), "%s.%s: %s", x.Name, n.Sel.Name, r.why)
				}
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "print" || id.Name == "println") {
				say(n.Pos(), "%s: packages return, commands write to their output", id.Name)
			}
		}
		return true
	})
}

func TestImports(t *testing.T) {
	t.Parallel()
	all, set := parseSources(t)
	for _, v := range violations(all, set) {
		t.Error(v)
	}
}

// TestImportsFindsWhatIsWrong shows each rule a file that breaks it.
func TestImportsFindsWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ file, source, want string }{
		{"policy/x.go", `package policy; import _ "` + module + `/vault"`, `"policy" may not import "vault"`},
		{"vault/x.go", `package vault; import _ "` + module + `/policy"`, `"vault" may not import "policy"`},
		{"gateway/face/x.go", `package face; import _ "` + module + `/gateway"`, `"gateway/face" may not import "gateway"`},
		{"gateway/x.go", `package gateway; import _ "` + module + `/vault/internal/secret"`, "card data exists in the vault"},
		{"other/x.go", `package other; import _ "` + module + `/policy"`, "not in the table"},
		{"policy/store/cache.go", `package store; import _ "github.com/redis/go-redis/v9"`, "go-redis"},
		{"gateway/http.go", `package gateway; import _ "github.com/caddyserver/certmagic"`, "certificates are the listener's"},
		{"policy/tls.go", `package policy; import _ "github.com/caddyserver/certmagic"`, "certificates are the listener's"},
		{"gateway/x.go", `package gateway; import _ "github.com/prometheus/client_golang/prometheus/promauto"`, "registered by main"},
		{"policy/x.go", `package policy; import "net/http"; var _ = http.MethodGet`, "do not speak HTTP"},
		{"gateway/face/x.go", `package face; import "net/http"; var _ http.Handler`, "which HTTP server"},
		{"gateway/stages.go", `package gateway; import h "net/http"; var _ = h.DefaultClient`, "nor which client"},
		{"gateway/x.go", `package gateway; import "go.uber.org/zap"; var _ = zap.L()`, "the logger is a field"},
		{"vault/x.go", `package vault; import z "go.uber.org/zap"; func f() { z.ReplaceGlobals(nil) }`, "the logger is a field"},
		{"gateway/x.go", `package gateway; import "go.uber.org/zap"; var _ = zap.Any("", nil)`, "its fields are typed"},
		{"vault/x.go", `package vault; func init() {}`, "an init function"},
		{"vault/x.go", `package vault; import "fmt"; func f() { fmt.Println() }`, "packages return"},
		{"vault/x.go", `package vault; func f() { println() }`, "packages return"},
		{"vault/x.go", `package vault; import "math/rand/v2"; var _ = rand.Int`, "crypto/rand"},
		{"gateway/x.go", `package gateway; import _ "net/http/pprof"`, "heap dumps"},
		{"gateway/x.go", `package gateway; import "os"; func f() { os.Exit(1) }`, "cleanups"},
		{"gateway/x.go", `package gateway; import "os"; var _ = os.Getenv("X")`, "the environment"},
		{"gateway/x.go", `package gateway; import . "os"`, "dot import"},
		{"cmd_x.go", `package main; import "github.com/prometheus/client_golang/prometheus"; func f() { prometheus.MustRegister() }`, "not the global one"},
		{"gateway/x.go", `package gateway; import _ "` + module + `/internal/testredis"`, "it is for tests"},
		{"policy/holder/x.go", `package holder`, `allows "policy/holder" to import "policy", and it does not`},
	} {
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, c.file, c.source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		found := violations(sources{c.file: f}, set)
		if !slices.ContainsFunc(found, func(v string) bool { return strings.Contains(v, c.want) }) {
			t.Errorf("%s: %s\nfound %q, want %q", c.file, c.source, found, c.want)
		}
	}
}

// TestModules holds the modules that are imported directly to the list, with the reason for each.
func TestModules(t *testing.T) {
	t.Parallel()
	all, _ := parseSources(t)
	content, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var required []string
	for line := range strings.Lines(string(content)) {
		if words := strings.Fields(line); len(words) >= 2 && strings.HasPrefix(words[1], "v") && words[0] != "module" {
			required = append(required, words[0])
		}
	}
	slices.SortFunc(required, func(a, b string) int { return len(b) - len(a) }) // the longest that fits is the module
	inBinary, inTests := map[string]string{}, map[string]string{}
	for file, f := range all {
		for _, spec := range f.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value) // it was parsed
			if !strings.Contains(strings.Split(imported, "/")[0], ".") || strings.HasPrefix(imported, module) {
				continue
			}
			i := slices.IndexFunc(required, func(m string) bool { return imported == m || strings.HasPrefix(imported, m+"/") })
			if i < 0 {
				t.Errorf("%s: no module for %s", file, imported)
				continue
			}
			if isTestOnly(file) {
				inTests[required[i]] = file
			} else {
				inBinary[required[i]] = file
			}
		}
	}
	for _, uses := range []map[string]string{inBinary, inTests} {
		for m, file := range uses {
			if _, ok := allowedModules[m]; !ok {
				t.Errorf("%s imports the module %s, which is not in the table: add it with its reason", file, m)
			}
		}
	}
	for m, allowed := range allowedModules {
		_, binary := inBinary[m]
		_, tests := inTests[m]
		switch {
		case allowed.tests && binary:
			t.Errorf("%s is for tests, and %s imports it", m, inBinary[m])
		case !allowed.tests && !binary, allowed.tests && !tests:
			t.Errorf("%s is in the table, and nothing imports it", m)
		}
	}
}

// maxBinaryBytes: some modules keep every method alive and cost 8 MB each. This notices.
const maxBinaryBytes = 30 << 20

func TestBinarySize(t *testing.T) {
	info, err := os.Stat(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxBinaryBytes {
		t.Errorf("the binary has %d bytes, more than %d", info.Size(), maxBinaryBytes)
	}
}
