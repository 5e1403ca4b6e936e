package gateway_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/gateway/exchange"
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

// The people and cards of every test.
const (
	subject   = "CN=gp_f1a9b6c741c94510bb3b27f2e8379e29,C=US" // of partner gp-demo
	otherName = "CN=gp_00000000000000000000000000000002,C=US" // of partner gp-other
	ada       = "0x1234567890AbcdEF1234567890aBcdef12345678"

	card      = "123e4567-e89b-12d3-a456-426655440000" // ada's, of gp-demo; the issuer calls it ic-1
	otherCard = "223e4567-e89b-12d3-a456-426655440000" // of gp-other; ic-2
	noCard    = "323e4567-e89b-12d3-a456-426655440000" // nobody's
	bareCard  = "423e4567-e89b-12d3-a456-426655440000" // of gp-demo, without PIN; ic-3
	issuerKey = "issuer-api-key-of-the-gateway-tests"
	partnerID = "gp-demo"
)

const policies = `
@id("mint") permit (principal, action == Action::"token.mint", resource) when { context.proofs.certificate };
@id("reveal") permit (principal, action in Action::"card.reveal", resource) when { context.proofs.token };
@id("pin") permit (principal, action in [Action::"pin.reveal", Action::"pin.set"], resource) when { context.proofs.token };
@id("own-card") permit (principal, action in [Action::"card.profile", Action::"card.reveal", Action::"pin.reveal"], resource)
when { context.proofs.cookie && context has user };
@id("own-change") permit (principal, action in [Action::"card.status", Action::"card.mode", Action::"card.provision", Action::"pin.set", Action::"challenge.mint"], resource)
when { context.proofs.cookie && context has user };
@id("link") permit (principal, action == Action::"card.link", resource) when { context.proofs.cookie && (context.proofs.wallet || context.proofs.passkey) };
@id("extension") permit (principal, action == Action::"card.provision", resource) when { context.proofs.jwt && context has user };
@id("begin") permit (principal, action == Action::"challenge.mint", resource is Issuer) when { context.face == "exa" };
@id("login") permit (principal, action == Action::"session.mint", resource) when { context.proofs.wallet || context.proofs.passkey };
@id("key") permit (principal is Partner, action in [Action::"token.mint", Action::"card.profile", Action::"card.status"], resource is Card) when { context.proofs.api_key };
@id("account") permit (principal is Partner, action == Action::"session.mint", resource) when { context.proofs.public_key || context.proofs.signature };
@id("stay") permit (principal is Partner, action in [Action::"session.refresh", Action::"session.revoke"], resource) when { context.proofs.refresh };
@id("call") permit (principal is Partner, action in [Action::"forward", Action::"session.check"], resource) when { context.proofs.jwt };
@id("authorize") permit (principal is Partner, action == Action::"session.mint", resource is Issuer) when { context.proofs.api_key };
@id("page") permit (principal is Partner, action == Action::"fields.mint", resource is Issuer) when { context.proofs.jwt && !(context has user) };
@id("submit") permit (principal is Partner, action in [Action::"fields.read", Action::"field.submit", Action::"token.mint"], resource is Issuer)
when { context.proofs.fields };
@id("sign") permit (principal is Partner, action == Action::"challenge.mint", resource is Card) when { context.proofs.jwt && context has user };
@id("bring") permit (principal is Partner, action == Action::"card.verify", resource is Issuer) when { context.proofs.jwt && context has user };
@id("fields") permit (principal is Partner, action in [Action::"forward.reveal", Action::"forward.submit"], resource)
when { context.proofs.jwt && context.assurance == "high" };
`

// holders is the directory; kit's wallet and passkey are among its users.
const holders = `
cards:
  - {id: ` + card + `, issuer: rain, issuer_card: ic-1, partners: [gp-demo], users: ["` + ada + `"], environment: test}
  - {id: ` + otherCard + `, issuer: rain, issuer_card: ic-2, partners: [gp-other], environment: test}
  - {id: ` + bareCard + `, issuer: rain, issuer_card: ic-3, partners: [gp-demo], environment: test}
  - {id: slow-card, issuer: slow, issuer_card: ic-1, partners: [gp-demo], environment: test}
  - {id: ca-rain, issuer: rain, issuer_card: ic-1, partners: [gp-demo], users: [cus-rain], environment: test}
  - {id: ca-second, issuer: rain, issuer_card: ic-3, partners: [gp-demo], users: [cus-rain], environment: test}
  - {id: ca-other, issuer: rain, issuer_card: ic-2, partners: [gp-other], users: [cus-other], environment: test}
  - {id: ca-bridge, issuer: bridge, issuer_card: ba-1, partners: [gp-demo], users: [cus-bridge], environment: test}
  - {id: wallet-card, issuer: rain, issuer_card: ic-4, partners: [gp-demo], users: ["%[1]s"], environment: test}
  - {id: wallet-second, issuer: rain, issuer_card: ic-2, partners: [gp-demo], users: ["%[1]s"], environment: test}
  - {id: device-card, issuer: rain, issuer_card: ic-4, partners: [gp-demo], users: [device], environment: test}
  - {id: passkey-card, issuer: rain, issuer_card: ic-5, partners: [gp-demo], users: ["%[2]s"], environment: test}
users:
  - {id: "` + ada + `", partner: gp-demo, issuer: rain, issuer_user: u-1}
  - {id: lonely, partner: gp-demo, issuer: rain, issuer_user: u-1}
  - {id: cus-rain, partner: gp-demo, issuer: rain, issuer_user: u-1}
  - {id: cus-other, partner: gp-other, issuer: rain, issuer_user: u-1}
  - {id: cus-bridge, partner: gp-demo, issuer: bridge, issuer_user: bc-1}
  - {id: "%[1]s", partner: gp-demo, issuer: rain, issuer_user: u-1}
  - {id: grace, partner: gp-demo, issuer: gnosis, issuer_user: g-1}
  - {id: device, partner: gp-demo, issuer: rain, issuer_user: u-1, wallets: ["%[4]s"]}
  - {id: "%[2]s", partner: gp-demo, issuer: rain, issuer_user: u-1, account: "%[1]s", passkeys: [{id: "%[2]s", public_key: "%[3]s"}]}
`

// kit is what takes long to make and every house shares: keys and authorities, one set for the run.
type kit struct {
	issuer   *rsa.PrivateKey
	clients  *vault.ClientKeys
	uploads  *vault.ClientKeys // the same key, for cards that users bring
	session  *rsa.PublicKey
	partners *authority // of the partners' certificates
	servers  *authority // of everybody's server certificate
	stranger *authority // of nobody
	server   tls.Certificate
	partner  tls.Certificate
	cookie   *keys.MAC
	symmetry map[keys.Use]*keys.Key
	jwt      []*keys.Key // of ES256, EdDSA and HS256
	keyFile  []byte      // of the partners' API keys, and those
	apiKeys  map[string]string
	wallet   *wallet
	device   *wallet // of a user whose id is no address
	passkey  *sandbox.Passkey
	service  *rsa.PrivateKey // of the service accounts
}

var shared = sync.OnceValue(func() *kit {
	k := &kit{partners: newAuthority("partners"), servers: newAuthority("servers"), stranger: newAuthority("partners"), symmetry: map[keys.Use]*keys.Key{}}
	dir, err := os.MkdirTemp("", "gateway")
	must(err)
	defer os.RemoveAll(dir)
	pem, err := keys.Generate(keys.UseSession, 2048)
	must(err)
	file := filepath.Join(dir, "session.pem")
	must(os.WriteFile(file, pem, 0o600))
	session, err := keys.Load(keys.Config{ID: "session", Use: keys.UseSession, File: file})
	must(err)
	k.session = session.Public()
	k.clients, err = vault.NewClientKeys(envelope.Rain{}, session)
	must(err)
	k.uploads, err = vault.NewClientKeys(envelope.Gnosis{}, session)
	must(err)
	k.issuer = rsaKey()
	for _, use := range []keys.Use{keys.UseDigest, keys.UseStorage, keys.UseAudit, keys.UseCookie} {
		k.symmetry[use], err = keys.Ephemeral("test-"+string(use), use)
		must(err)
	}
	k.cookie, err = k.symmetry[keys.UseCookie].RawMAC()
	must(err)
	k.server = k.servers.server()
	k.partner = k.partners.client(subject)
	k.keyFile, k.apiKeys = newAPIKeys(filepath.Join(dir, "credentials.json"))
	for _, algorithm := range []string{keys.ES256, keys.EdDSA, keys.HS256} {
		k.jwt = append(k.jwt, jwtKey(dir, algorithm))
	}
	k.wallet, k.device, k.passkey, k.service = newWallet(), newWallet(), sandbox.NewPasskey(domain), newRSAKey()
	return k
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func mac(use keys.Use, label string) *keys.MAC {
	m, err := shared().symmetry[use].MAC(label)
	must(err)
	return m
}

// options change a house before it is built. The zero value is the usual one.
type options struct {
	store    func(store.Store) store.Store
	vault    vault.Config
	services func(*gateway.Services)
	config   func(*house, *gateway.Config)
	partners []policy.Partner
	issuer   func(*gateway.IssuerConfig)
	routes   func(*house) []gateway.Route
	policies string
	accounts []credential.Account // the two of package's tests where it is nil
	http1    bool                 // the issuer speaks HTTP/1.1 alone
	quiet    bool                 // the secrets' search is left to the test
}

// house is a gateway with everything around it: a real vault, store, policy engine and audit log, and a real issuer that
// it reaches over HTTPS. It is closed, and everything it wrote searched for secrets, when the test ends.
type house struct {
	t        testing.TB
	o        options
	gateway  *gateway.Gateway
	services gateway.Services
	config   gateway.Config
	registry *prometheus.Registry
	rain     *sandbox.Rain
	url      *url.URL // of the issuer
	bridge   *sandbox.Bridge
	payments *sandbox.Payments
	payroc   *sandbox.Payroc
	gnosis   *sandbox.GnosisCards
	others   map[string]*url.URL // of the other issuers
	cards    map[string]sandbox.Card
	tokens   *credential.Tokens
	cookies  *credential.Cookies
	keyFile  string            // of the partners' API keys
	apiKeys  map[string]string // by name
	file     string            // of the audit log
	log      *logBuffer
	skew     atomic.Int64 // nanoseconds by which pages' sessions and users' tokens find it later
	served   chan error
	down     sync.Once

	mu      sync.Mutex
	secrets []string // that nothing written may hold; guarded by mu
}

// logBuffer is where the log goes.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *logBuffer) Sync() error    { return nil }
func (l *logBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func newHouse(t testing.TB, o options) *house {
	t.Helper()
	h := buildHouse(t, o)
	h.open()
	return h
}

// buildHouse makes everything, and does not listen.
func buildHouse(t testing.TB, o options) *house {
	t.Helper()
	h := &house{t: t, o: o, cards: map[string]sandbox.Card{}, log: &logBuffer{}, served: make(chan error, 1), registry: prometheus.NewRegistry()}
	h.startIssuer()
	h.startOthers()
	h.newServices()
	h.config = h.newConfig()
	var err error
	if h.gateway, err = gateway.New(h.services, h.config); err != nil {
		t.Fatal(err)
	}
	for _, cs := range [][]prometheus.Collector{h.gateway.Collectors(), h.services.Vault.Collectors(), h.services.Store.Collectors(), h.services.Audit.Collectors()} {
		h.registry.MustRegister(cs...)
	}
	t.Cleanup(h.close)
	return h
}

func (h *house) open() {
	h.t.Helper()
	if err := h.gateway.Listen(); err != nil {
		h.t.Fatal(err)
	}
	go func() { h.served <- h.gateway.Serve() }()
}

// shutdown ends the gateway once, in good order.
func (h *house) shutdown() {
	h.down.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if h.gateway.Addr("admin") == nil {
			return // it never listened
		}
		if err := h.gateway.Shutdown(ctx); err != nil {
			h.t.Errorf("shutdown: %v", err)
		}
		<-h.served
	})
}

func (h *house) close() {
	h.shutdown()
	if err := h.services.Audit.Close(); err != nil {
		h.t.Errorf("audit: %v", err)
	}
	if err := h.services.Store.Close(); err != nil {
		h.t.Errorf("store: %v", err)
	}
	// A connection that was made and never used would be waited for: it is cut off instead.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	for _, shutdown := range []func(context.Context) error{h.rain.Shutdown, h.bridge.Shutdown, h.payments.Shutdown, h.payroc.Shutdown, h.gnosis.Shutdown} {
		if err := shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			h.t.Errorf("issuer: %v", err)
		}
	}
	if _, err := audit.VerifyFiles([]string{h.file}, mac(keys.UseAudit, audit.Label)); err != nil {
		h.t.Errorf("the audit log does not verify: %v", err)
	}
	if !h.o.quiet {
		h.searchSecrets()
	}
}

// searchSecrets looks for everything that was secret in everything that was written.
func (h *house) searchSecrets() {
	h.t.Helper()
	written := map[string]string{"log": h.log.String(), "audit log": h.auditText(), "metrics": h.metricsText()}
	for _, s := range h.secrets {
		for name, text := range written {
			if strings.Contains(text, s) {
				h.t.Errorf("the %s holds a secret of %d characters: %.6s…", name, len(s), s)
			}
		}
	}
}

// metricsText is all series, with their labels.
func (h *house) metricsText() string {
	families, err := h.registry.Gather()
	must(err)
	var b strings.Builder
	for _, f := range families {
		b.WriteString(f.String())
	}
	return b.String()
}

// secret notes what may stand nowhere, and returns it.
func (h *house) secret(s string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(s) >= 8 {
		h.secrets = append(h.secrets, s)
	}
	return s
}

func (h *house) startIssuer() {
	h.t.Helper()
	for _, id := range []string{"ic-1", "ic-2", "ic-3", "ic-4", "ic-5"} {
		c := sandbox.RandomCard(id, "")
		c.UserID = "u-1"
		if id == "ic-3" {
			c.PIN = ""
		}
		h.cards[id] = c
		h.secret(c.PAN)
	}
	var cards []sandbox.Card
	for _, c := range h.cards {
		cards = append(cards, c)
	}
	var err error
	h.rain, err = sandbox.NewRain(sandbox.RainConfig{
		APIKey: h.secret(issuerKey), Key: shared().issuer, Cards: cards, KeepRequests: 4096,
		Users: []sandbox.User{{ID: "u-1", FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com"}},
		TLS:   &tls.Config{Certificates: []tls.Certificate{shared().server}, MinVersion: tls.VersionTLS12},
	})
	must(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	if h.o.http1 {
		h.serveHTTP1(l)
	} else {
		go func() { must(h.rain.Serve(l)) }()
	}
	h.url, err = url.Parse("https://" + l.Addr().String())
	must(err)
}

func (h *house) serveHTTP1(l net.Listener) {
	server := &http.Server{
		Handler: h.rain.Handler(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{shared().server}},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, ErrorLog: log.New(io.Discard, "", 0),
	}
	go server.ServeTLS(l, "", "") //nolint:errcheck // closed at the end
	h.t.Cleanup(func() { server.Close() })
}

func (h *house) newServices() {
	h.t.Helper()
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	logger := zap.New(zapcore.NewCore(encoder, h.log, zapcore.DebugLevel))
	v, err := vault.New(h.o.vault)
	must(err)
	memory, err := store.NewMemory(store.MemoryConfig{})
	must(err)
	s := gateway.Services{
		Store: memory, Vault: v, Log: logger, Metrics: promhttp.HandlerFor(h.registry, promhttp.HandlerOpts{}),
		AdminAddress: "127.0.0.1:0",
		Addresses:    map[string]string{"partners": "127.0.0.1:0", "public": "127.0.0.1:0"},
	}
	if h.o.store != nil {
		s.Store = h.o.store(s.Store)
	}
	h.file = filepath.Join(h.t.TempDir(), "audit.jsonl")
	s.Audit, err = audit.Open(audit.Config{File: h.file, Instance: "gateway-test", MAC: mac(keys.UseAudit, audit.Label), Logger: logger})
	must(err)
	if h.o.services != nil {
		h.o.services(&s)
	}
	h.services = s
}

// issuerOf makes an issuer of a name at a place.
func (h *house) issuerOf(name string, change func(*gateway.IssuerConfig)) *gateway.Issuer {
	kind, err := issuer.Lookup("rain")
	must(err)
	key, err := vault.NewIssuerKey(envelope.Rain{}, &shared().issuer.PublicKey)
	must(err)
	c := gateway.IssuerConfig{
		Name: name, Kind: kind, URL: h.url, SessionKey: key, Credential: issuerKey, Timeout: 30 * time.Second,
		TLS: &tls.Config{RootCAs: shared().servers.pool(), MinVersion: tls.VersionTLS12},
	}
	if change != nil {
		change(&c)
	}
	is, err := gateway.NewIssuer(c)
	must(err)
	return is
}

// demoPartners are gp-demo and gp-other.
func demoPartners(change ...func(*policy.Partner)) []policy.Partner {
	list := []policy.Partner{{ID: partnerID, Environment: "test"}, {ID: "gp-other", Environment: "test"}}
	for i, name := range []string{subject, otherName} {
		s, err := policy.ParseSubject(name)
		must(err)
		list[i].Subjects = []policy.Subject{s}
	}
	for _, c := range change {
		c(&list[0])
	}
	return list
}

func newPartners(list []policy.Partner) *policy.Partners {
	p, err := policy.NewPartners(list, policy.FingerprintOf(shared().partners.certificate))
	must(err)
	return p
}

func newFace(name string, c face.Config) face.Face {
	kind, err := face.Lookup(name)
	must(err)
	f, err := kind.New(c)
	must(err)
	return f
}

// newConfig is the usual configuration, as changed by the options. Called again, it gives a new one for a reload.
func (h *house) newConfig() gateway.Config {
	k := shared()
	if h.o.partners == nil {
		h.o.partners = demoPartners()
	}
	if h.o.policies == "" {
		h.o.policies = policies
	}
	c := gateway.Config{
		Listeners: []gateway.Listener{
			{Name: "partners", Certificate: k.server, Environment: "test", ClientCAs: k.partners.pool()},
			{Name: "public", Certificate: k.server, Environment: "test"},
		},
		Partners:   newPartners(h.o.partners),
		CardDigest: mac(keys.UseDigest, "card"), EnvelopeDigests: []policy.MAC{mac(keys.UseDigest, "envelope")},
		Answers: seals("answer"), Kept: seals("card"), Standings: seals("standing"), APIKeys: h.loadKeys(),
	}
	var err error
	c.Engine, err = policy.NewEngine(policy.EngineConfig{
		Policies: []policy.PolicyFile{{Name: "test.cedar", Source: []byte(h.o.policies)}}, Partners: c.Partners,
		Issuers: []policy.Issuer{
			{ID: "rain", Environment: "test"}, {ID: "slow", Environment: "test"}, {ID: "bridge", Environment: "test"}, {ID: "payments", Environment: "test"},
			{ID: "payroc", Environment: "test"}, {ID: "gnosis", Environment: "test"},
		},
	})
	must(err)
	file := filepath.Join(h.t.TempDir(), "holders.yaml")
	must(os.WriteFile(file, fmt.Appendf(nil, holders, k.wallet.address, k.passkey.CredentialID(), passkeySPKI(k.passkey), k.device.address), 0o600))
	c.Holders, err = holder.LoadFile(file)
	must(err)
	if h.tokens == nil {
		h.newCredentials(c.Partners)
	}
	c.Tokens = h.tokens
	if h.o.routes != nil {
		c.Routes = h.o.routes(h)
	} else {
		c.Routes = h.routes(h.issuerOf("rain", h.o.issuer))
	}
	if h.o.config != nil {
		h.o.config(h, &c)
	}
	return c
}

func (h *house) newCredentials(partners *policy.Partners) {
	tokens := credential.TokensConfig{Store: h.services.Store, Digests: ring("token"), Seeds: ring("token seed"), Grants: seals("grant")}
	for _, p := range partners.All() {
		tokens.Partners = append(tokens.Partners, p.ID)
	}
	var err error
	h.tokens, err = credential.NewTokens(tokens)
	must(err)
	h.cookies, err = credential.NewCookies(credential.CookiesConfig{
		Face: "exa", Signers: []policy.MAC{shared().cookie}, Logins: []policy.MAC{mac(keys.UseDigest, "login")}, Records: h.services.Store,
	})
	must(err)
}

// routes are the usual ones: the mint behind certificates, card operations and Exa in public.
func (h *house) routes(is *gateway.Issuer) []gateway.Route {
	k := shared()
	f := face.Config{SessionKeys: k.clients, PINKeys: k.clients, PIN: face.PINSoftware, PINWithPAN: true}
	common := gateway.Route{Environment: "test", Issuer: is, ClientKeys: k.clients, UnboundTokens: policy.UnboundAllow, PIN: face.PINSoftware, Legacy: []string{"oaep-sha1"}}
	mint, cards, exa := common, common, common
	mint.Listener, mint.Operations = "partners", []policy.Operation{policy.TokenMint}
	cards.Listener = "public"
	exa.Listener, exa.Partner, exa.Cookies = "public", partnerID, h.cookies
	speak(&mint, "gnosispay", f)
	speak(&cards, "gnosispay", f)
	speak(&exa, "exa", f)
	return []gateway.Route{mint, cards, exa}
}

// speak gives a route its face, which offers what the route lists, has the keys for, and its issuer can do.
func speak(r *gateway.Route, name string, c face.Config) {
	c.Serves = func(op policy.Operation) bool {
		switch {
		case len(r.Operations) > 0 && !slices.Contains(r.Operations, op):
			return false
		case op == policy.ChallengeMint, op == policy.SessionMint && r.Cookies != nil, op == policy.CardLink:
			return r.Challenges != nil
		case op == policy.CardProvision && r.Challenges == nil && r.Scoped == nil:
			return false
		case op.Mints() || op == policy.CardMode:
			return true
		}
		return r.Issuer != nil && r.Issuer.Adapter.Serves(op)
	}
	r.Name, r.Face = name, newFace(name, c)
}

// caller is somebody's HTTP client.
type caller struct {
	h *house
	c *http.Client
}

// callerWith makes a client. A certificate is optional; change may change its TLS settings.
func (h *house) callerWith(certificate *tls.Certificate, http2 bool, change func(*tls.Config)) *caller {
	c := &tls.Config{RootCAs: shared().servers.pool(), ServerName: "localhost"}
	if certificate != nil {
		c.Certificates = []tls.Certificate{*certificate}
	}
	if change != nil {
		change(c)
	}
	transport := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: http2, MaxIdleConnsPerHost: 128, DisableCompression: true}
	if !http2 {
		transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	h.t.Cleanup(transport.CloseIdleConnections)
	return &caller{h, &http.Client{Transport: transport, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// partner is gp-demo's client, anybody one without a certificate.
func (h *house) partner() *caller { return h.callerWith(&shared().partner, true, nil) }
func (h *house) anybody() *caller { return h.callerWith(nil, true, nil) }

// port is that of a listener.
func (h *house) port(listener string) int { return h.gateway.Addr(listener).(*net.TCPAddr).Port }

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   string
	proto  string
}

// call is a request to come.
type call struct {
	listener, method, path, body string
	header                       []string // name, value, …
	clear                        bool     // its answer may hold a card number
}

// with returns the call with header fields added.
func (x call) with(header ...string) call {
	x.header = append(slices.Clone(x.header), header...)
	return x
}

// without returns the call without a header field.
func (x call) without(name string) call {
	var kept []string
	for i := 0; i+1 < len(x.header); i += 2 {
		if !strings.EqualFold(x.header[i], name) {
			kept = append(kept, x.header[i], x.header[i+1])
		}
	}
	x.header = kept
	return x
}

func (c *caller) try(x call) (reply, error) {
	var body io.Reader
	if x.body != "" {
		body = strings.NewReader(x.body)
	}
	r, err := http.NewRequest(x.method, "https://"+c.h.gateway.Addr(x.listener).String()+x.path, body)
	if err != nil {
		return reply{}, err
	}
	r.Host = fmt.Sprintf("localhost:%d", c.h.port(x.listener)) // as in the handshake
	for i := 0; i+1 < len(x.header); i += 2 {
		r.Header.Add(x.header[i], x.header[i+1])
	}
	answer, err := c.c.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return reply{}, err
	}
	return reply{answer.StatusCode, answer.Header, string(text), answer.Proto}, nil
}

func (c *caller) do(x call) reply {
	c.h.t.Helper()
	r, err := c.try(x)
	if err != nil {
		c.h.t.Fatalf("%s %s: %v", x.method, x.path, err)
	}
	for _, s := range c.h.pans() {
		if !x.clear && strings.Contains(r.body, s) {
			c.h.t.Errorf("%s %s answers with a card number in clear", x.method, x.path)
		}
	}
	return r
}

func (h *house) pans() []string {
	var all []string
	for _, c := range h.cards {
		all = append(all, c.PAN)
	}
	return all
}

// mintBody mints with a body, and returns the token.
func (h *house) mintBody(c *caller, body string) string {
	h.t.Helper()
	r := c.do(mintCall(body))
	if r.status != http.StatusOK {
		h.t.Fatalf("mint: %d %s", r.status, r.body)
	}
	var v struct {
		Data struct{ EphemeralToken string }
	}
	must(json.Unmarshal([]byte(r.body), &v))
	return h.secret(v.Data.EphemeralToken)
}

func (h *house) mint() string { h.t.Helper(); return h.mintBody(h.partner(), "") }

func mintCall(body string) call {
	return call{listener: "partners", method: "POST", path: "/api/v1/ephemeral-token", body: body, header: []string{"Content-Type", "application/json"}}
}

func bound(operation policy.Operation, id string) string {
	return fmt.Sprintf(`{"operation":%q,"cardId":%q}`, operation, id)
}

// session makes a client's session.
func (h *house) session() *sandbox.Session {
	h.t.Helper()
	s, err := sandbox.NewSession(shared().session)
	must(err)
	h.secret(s.ID())
	h.secret(s.Secret())
	return s
}

func detailsCall(id, token, sessionID string) call {
	return call{listener: "public", method: "GET", path: "/api/v1/cards/" + url.PathEscape(id) + "/details", header: []string{"Authorization", "Bearer " + token, "sessionid", sessionID}}
}

func pinCall(id, token, sessionID string) call {
	c := detailsCall(id, token, sessionID)
	c.path = strings.Replace(c.path, "/details", "/pin", 1)
	return c
}

func (h *house) setPINCall(id, token string, s *sandbox.Session, pin string) call {
	sealed, err := s.SealPIN(pin)
	must(err)
	c := pinCall(id, token, s.ID())
	c.method, c.body = "PUT", fmt.Sprintf(`{"data":%q,"iv":%q}`, sealed.Data, sealed.IV)
	c.header = append(c.header, "Content-Type", "application/json")
	return c
}

// exaCall is GET /api/card of a user's cookie.
func (h *house) exaCall(user, sessionID string) call {
	c := call{listener: "public", method: "GET", path: "/api/card", header: []string{"Cookie", "credential_id=" + h.secret(h.cookies.Sign(user))}}
	if sessionID != "" {
		c.header = append(c.header, "sessionid", sessionID)
	}
	return c
}

func (h *house) login(user string) {
	h.t.Helper()
	must(h.cookies.Login(context.Background(), user, time.Hour, h.generation()))
}

// opened reads a sealed field.
func opened(s *sandbox.Session, raw json.RawMessage) string {
	var v sandbox.Sealed
	if err := json.Unmarshal(raw, &v); err != nil {
		return "not sealed: " + err.Error()
	}
	text, err := s.Open(v)
	if err != nil {
		return err.Error()
	}
	return text
}

// record is a line of the audit log.
type record struct {
	Time, Phase, Exchange, Trace, Listener, Face, Partner, User, Certificate, Card, Issuer, Result, Reason, Rule, Address, Account, Call string
	Operations, Legacy                                                                                                                   []string
	Status                                                                                                                               int
	Software                                                                                                                             bool
	Note, Attempt                                                                                                                        string
	FirstAttempt                                                                                                                         string `json:"first_attempt"`
	FirstTime                                                                                                                            string `json:"first_time"`
	FirstPartner                                                                                                                         string `json:"first_partner"`
}

func (h *house) auditText() string {
	text, err := os.ReadFile(h.file)
	must(err)
	return string(text)
}

// records are those of exchanges.
func (h *house) records() []record {
	h.t.Helper()
	var all []record
	for line := range strings.Lines(h.auditText()) {
		if !strings.HasSuffix(line, "\n") {
			break // a log that is full tries again by itself, and takes back what it could not write whole
		}
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			h.t.Fatalf("audit line %q: %v", line, err)
		}
		if r.Note == "" {
			all = append(all, r)
		}
	}
	return all
}

// metric sums the series of a name whose labels are those given, as name, value, …; of a histogram, the observations.
func (h *house) metric(name string, labels ...string) float64 {
	h.t.Helper()
	return h.gather().sum(name, labels...)
}

// gathered are all series at a time.
type gathered []*dto.MetricFamily

func (h *house) gather() gathered {
	h.t.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	return families
}

func (g gathered) sum(name string, labels ...string) float64 {
	sum := 0.0
	for _, f := range g {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if matches(m, labels) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func matches(m *dto.Metric, labels []string) bool {
	for i := 0; i+1 < len(labels); i += 2 {
		if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == labels[i] && l.GetValue() == labels[i+1] }) {
			return false
		}
	}
	return true
}

// want is what shall have come of one request.
type want struct {
	status     int
	body       string // exactly, where not empty
	retryAfter bool

	results  []string // of the audit records, in order: "result reason", an intent "intent"
	rule     string   // of the last record
	outcome  string   // label; "" counts none
	upstream int      // requests that reached the issuer; -1 is any number
	redeemed int      // tokens used up
	refused  string   // reason of a token refused; "" none
	shed     string   // limit; "" none
}

// snapshot is what can change by a request.
type snapshot struct {
	records                                  int
	upstream                                 int
	redeemed, refused, shed, outcome, minted float64
	all                                      float64
}

// upstream is how many requests reached any issuer.
func (h *house) upstream() int {
	return h.rain.Total() + h.bridge.Total() + h.payments.Total() + h.payroc.Total() + h.gnosis.Total()
}

func (h *house) snapshot(w want) snapshot {
	g := h.gather()
	return snapshot{
		records: len(h.records()), upstream: h.upstream(), minted: g.sum("cardstile_tokens_minted_total") + g.sum("cardstile_credentials_minted_total"), redeemed: g.sum("cardstile_tokens_redeemed_total"),
		refused: g.sum("cardstile_tokens_refused_total"), shed: g.sum("cardstile_shed_total"),
		outcome: g.sum("cardstile_exchanges_total", "outcome", w.outcome), all: g.sum("cardstile_exchanges_total"),
	}
}

// expect makes one request and compares all that it left behind.
func (h *house) expect(name string, c *caller, x call, w want) reply {
	h.t.Helper()
	before := h.snapshot(w)
	r := c.do(x)
	h.compare(name, before, r, w)
	return r
}

func (h *house) compare(name string, before snapshot, r reply, w want) {
	h.t.Helper()
	fail := func(format string, args ...any) {
		h.t.Helper()
		h.t.Errorf("%s: %s", name, fmt.Sprintf(format, args...))
	}
	if r.status != w.status || w.body != "" && r.body != w.body {
		fail("answered %d %s\nwant %d %s", r.status, r.body, w.status, w.body)
	}
	if (r.header.Get("Retry-After") != "") != w.retryAfter {
		fail("Retry-After %q", r.header.Get("Retry-After"))
	}
	for header, value := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := r.header.Values(header); len(got) != 1 || got[0] != value {
			fail("%s is %q", header, got)
		}
	}
	id := r.header.Get("X-Request-Id")
	if len(id) != 32 || strings.Contains(r.body, id) {
		fail("request id %q, in the body: %t", id, strings.Contains(r.body, id))
	}
	after := h.snapshot(w)
	var results []string
	records := h.records()[before.records:]
	for _, rec := range records {
		if rec.Exchange != id {
			fail("a record of exchange %q", rec.Exchange)
		}
		if rec.Phase == "intent" {
			results = append(results, "intent")
			continue
		}
		if rec.Status != w.status {
			fail("a record of status %d", rec.Status)
		}
		results = append(results, strings.TrimSpace(rec.Result+" "+rec.Reason))
	}
	if !slices.Equal(results, w.results) {
		fail("recorded %q, want %q", results, w.results)
	}
	if len(records) > 0 && records[len(records)-1].Rule != w.rule {
		fail("by rule %q, want %q", records[len(records)-1].Rule, w.rule)
	}
	if got := after.upstream - before.upstream; got != w.upstream && w.upstream >= 0 {
		fail("%d requests reached the issuer, want %d", got, w.upstream)
	}
	if got := after.redeemed - before.redeemed; int(got) != w.redeemed {
		fail("%v tokens redeemed, want %d", got, w.redeemed)
	}
	if w.status >= 400 && w.status < 500 && after.minted != before.minted {
		fail("%v tokens minted by a refused call", after.minted-before.minted)
	}
	one := func(s string) float64 {
		if s == "" {
			return 0
		}
		return 1
	}
	if after.refused-before.refused != one(w.refused) || w.refused != "" && h.metric("cardstile_tokens_refused_total", "reason", w.refused) == 0 {
		fail("%v tokens refused, want %q", after.refused-before.refused, w.refused)
	}
	if after.shed-before.shed != one(w.shed) || w.shed != "" && h.metric("cardstile_shed_total", "limit", w.shed) == 0 {
		fail("%v shed, want %q", after.shed-before.shed, w.shed)
	}
	if after.all-before.all != one(w.outcome) || w.outcome != "" && after.outcome-before.outcome != 1 {
		fail("%v exchanges counted, %v of outcome %s", after.all-before.all, after.outcome-before.outcome, w.outcome)
	}
}

// The faces' answers, word for word.
func gnosis(text string) string { return fmt.Sprintf(`{"error":%q,"message":%q}`, text, text) }
func exa(code string) string    { return fmt.Sprintf(`{"code":%q,"legacy":%q}`, code, code) }

func problem(status int) string {
	return fmt.Sprintf(`{"type":"about:blank","title":%q,"status":%d}`, http.StatusText(status), status)
}

// eventually waits for something that another goroutine does.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	within(t, time.Minute, what, ok)
}

func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// broken is a store that can be taken down.
type broken struct {
	store.Store
	mu        sync.Mutex
	down      bool
	takeFails atomic.Bool
}

func (b *broken) set(down bool) { b.mu.Lock(); defer b.mu.Unlock(); b.down = down }

func (b *broken) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return fmt.Errorf("test: %w", store.ErrUnavailable)
	}
	return nil
}

func (b *broken) Mint(ctx context.Context, k store.Kind, d store.Digest, v []byte, ttl time.Duration) error {
	return errors.Join(b.err(), b.unless(func() error { return b.Store.Mint(ctx, k, d, v, ttl) }))
}

func (b *broken) unless(do func() error) error {
	if b.err() != nil {
		return nil
	}
	return do()
}

func (b *broken) Redeem(ctx context.Context, k store.Kind, d store.Digest, a store.Attempt) ([]byte, error) {
	if err := b.err(); err != nil {
		return nil, err
	}
	return b.Store.Redeem(ctx, k, d, a)
}

func (b *broken) Once(ctx context.Context, k store.Kind, d store.Digest, ttl time.Duration) error {
	return errors.Join(b.err(), b.unless(func() error { return b.Store.Once(ctx, k, d, ttl) }))
}

func (b *broken) Get(ctx context.Context, k store.Kind, d store.Digest) ([]byte, error) {
	if err := b.err(); err != nil {
		return nil, err
	}
	return b.Store.Get(ctx, k, d)
}

func (b *broken) Take(ctx context.Context, d store.Digest, r policy.Rate) (store.Taken, error) {
	if err := b.err(); err != nil || b.takeFails.Load() {
		return store.Taken{}, fmt.Errorf("test: %w", store.ErrUnavailable)
	}
	return b.Store.Take(ctx, d, r)
}

func (b *broken) Ready(ctx context.Context) error {
	return errors.Join(b.err(), b.Store.Ready(ctx))
}

// preamble is a well-formed sessionid of n bytes, that opens nothing.
func preamble(n int) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0x5a}, n))
}

type gatewayRoute = gateway.Route

func sessionHash(text string) string {
	hash := exchange.SessionHash(text)
	return base64.RawURLEncoding.EncodeToString(hash[:])
}
