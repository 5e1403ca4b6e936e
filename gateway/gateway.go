// Package gateway answers the question "in what order, over which wire?": it owns the listeners, carries each request
// through the stages in stages.go, and is the one place where what a caller may do (policy) meets what can be read
// (vault). It handles ciphertext and opaque handles only.
package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/gateway/revocation"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/holder"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
)

// Services are what a gateway stands on for as long as it runs. A reload does not touch them.
type Services struct {
	Store store.Store
	Vault *vault.Vault
	Audit *audit.Log
	Log   *zap.Logger
	// AdminAddress is where the operators' listener stands. It is fixed for the life of a process.
	AdminAddress string

	// Now tells how old what is known of partners is, and whether clients' certificates are valid; time.Now by default.
	Now func() time.Time

	// Metrics serves the operators' /metrics.
	Metrics http.Handler

	// Addresses are where the listeners stand, by name. They are fixed for the life of a process.
	Addresses map[string]string

	// Managed is where certificates of listeners' hosts come from; nil where there are none.
	Managed *Managed

	// Beside is no part of a configuration.
	Beside Beside
}

// Beside is what stands on listeners, by name, beside their routes: the demo's page, below /demo/, and nothing else.
type Beside map[string]http.Handler

// Admin is who may ask on the operators' listener.
type Admin struct {
	TLS    *tls.Config // nil is plain HTTP, for loopback; from one to the other takes a restart
	Bearer string      // required of every request where it is not empty

	// ClientCAsEnd is when the first of its clients' authorities ends, for the metric; zero where there are none.
	ClientCAsEnd time.Time
}

// Config is all that a reload replaces, as one value. Everything in it is resolved: keys are loaded, files are read,
// names have been looked up.
type Config struct {
	Listeners []Listener
	Routes    []Route
	Partners  *policy.Partners
	Engine    *policy.Engine
	Holders   holder.Directory
	Tokens    *credential.Tokens
	Limits    Limits
	Admin     Admin

	// CardDigest keys the digests under which cards stand in the audit log, EnvelopeDigests (primary first, those of older
	// keys after it) the digests under which write envelopes stand in the store.
	CardDigest      policy.MAC
	EnvelopeDigests []policy.MAC

	// APIKeys prove partners by API keys; nil where none are configured.
	APIKeys credential.Prover

	// Answers seals what is kept of idempotent calls, Kept what we keep of a card: its mode and its link.
	Answers, Kept credential.SealRing

	// Standings seal how partners stand, in the store, and the certificates that something was minted under.
	Standings credential.StandingSeals

	// Certificates seal what is kept of the certificates of hosts. It may be nil where none are kept.
	Certificates CertificateSeals
}

// Listener is where callers come in.
type Listener struct {
	Name        string
	Certificate tls.Certificate
	Environment string

	// Hosts are the names, in lower case, whose certificates are obtained and renewed, in place of Certificate. One may begin
	// with "*.". A connection that names no host gets the first one's.
	Hosts []string

	// ClientCAs are the authorities of partners' certificates. Where it is not nil, a connection without a verified
	// client certificate ends in its handshake.
	ClientCAs *x509.CertPool

	// Revocations hold their certificates against what CAs have revoked; nil refuses nobody. Of one listener alone.
	Revocations *revocation.Checker

	// HostClientCAs are those of single hosts, in place of ClientCAs, by name or wildcard (see HostPattern). A set that is nil is
	// an error.
	HostClientCAs map[string]*x509.CertPool

	// ClientCAsEnd is when the first of all these authorities ends, for the metric; zero where there are none.
	ClientCAsEnd time.Time

	// ProxyProtocol lists the addresses whose PROXY header (v1 or v2) is required and believed. Nobody else's is.
	ProxyProtocol []netip.Prefix
}

// Route puts a face on a listener and an issuer behind it.
type Route struct {
	Listener    string
	Name        string // the face's name, in metrics and audit
	Face        face.Face
	Operations  []policy.Operation // what this route offers of the face; empty is all
	Environment string

	// Hosts are the names that the route answers for (see HostPattern). A route without any answers for every name that no other
	// route has the path for, and is the only kind that connections by address reach.
	Hosts []string

	// ClientCert is what the issuer is told of the caller's certificate.
	ClientCert ClientCert

	// Issuer is whose cards the route is about. A mint is about them too, though nothing is sent for it.
	Issuer *Issuer

	// ClientKeys open the callers' session preambles.
	ClientKeys *vault.ClientKeys

	// Partner is the partner of a face whose callers bring none [27].
	Partner string

	// Cookies prove users of faces that have them, and are what a user's login gives.
	Cookies *credential.Cookies

	// Accounts are the service accounts of faces that have them, Assertions proves what they sign to log in; JWTs and Families
	// are what their login gives.
	Accounts   *credential.Accounts
	Assertions *credential.ClientAssertions
	JWTs       *credential.JWTs
	Families   *credential.Families

	// Scoped proves users of faces that have tokens for one thing, Users those who show a token that others signed.
	Scoped *credential.ScopedJWTs
	Users  *credential.UserTokens

	// UploadKeys open the preambles of cards that users bring.
	UploadKeys *vault.ClientKeys

	// Hosted is what hosted fields need; nil where the face has none.
	Hosted *Hosted

	// Challenges are what users sign.
	Challenges *Challenges

	// Files are what the route's pages load.
	Files []File

	// Origins are the browser origins that may call, exactly as browsers send them.
	Origins []string

	// KeepOnWrongProof leaves a single-use key as it is where the proof beside it is wrong. A mint and a redemption of one key
	// stand on routes that say the same.
	KeepOnWrongProof bool

	UnboundTokens string // of policy.Request [1]
	PIN           face.PINMode
	Legacy        []string // primitives that the route's sessions need, by name [15]
}

// Gateway is a running turnstile.
type Gateway struct {
	services  Services
	state     atomic.Pointer[state]
	metrics   *metrics
	slots     *slotSet
	penalties penalties
	strangers strangers
	standings *credential.Standings
	seen      *partnerCertificates
	managed   *managed            // nil: no certificates are obtained
	checked   map[string]*checked // how certificates are held against revocations, by listener; guarded by reloading
	minted    mintedUnder
	attending context.CancelFunc // ends the reading of standings; nil before Serve, guarded by reloading

	reloading sync.Mutex // one reload at a time
	draining  atomic.Bool
	servers   []*http.Server
	listeners []*listener
	bound     map[string]net.Addr
}

// New returns a gateway that listens nowhere yet.
func New(s Services, c Config) (*Gateway, error) {
	if s.Now == nil {
		s.Now = time.Now
	}
	g := &Gateway{services: s, metrics: newMetrics(), bound: map[string]net.Addr{}}
	g.slots = newSlotSet(g.metrics)
	var err error
	if s.Managed != nil {
		if g.managed, err = newManaged(*s.Managed, c.Certificates, s.Log, g.metrics.orders); err != nil {
			return nil, err
		}
	}
	st, err := g.compile(c)
	if err != nil {
		return nil, err
	}
	if c.Standings == nil {
		return nil, errors.New("no key seals how partners stand")
	}
	g.seen = newPartnerCertificates(g.services.Log)
	if g.standings, err = g.newStandings(); err != nil {
		return nil, err
	}
	g.standings.Configure(c.Standings, c.Partners.All())
	g.enforce(st)
	g.check(c.Listeners)
	g.state.Store(st)
	return g, nil
}

// Check returns what would keep New from taking a configuration, a *RouteError where it is a route. Nothing is started.
// Tokens and digests may be left out: they need a store and its keys.
func Check(c Config) error {
	if c.CardDigest == nil {
		c.CardDigest = noDigest{}
	}
	g := &Gateway{services: Services{Addresses: map[string]string{}, Now: time.Now}, metrics: newMetrics(), managed: &managed{}}
	for _, l := range c.Listeners {
		g.services.Addresses[l.Name] = ""
	}
	g.slots = newSlotSet(g.metrics)
	_, err := g.compile(c)
	return err
}

// noDigest stands in for the digests of a configuration that is only looked at.
type noDigest struct{}

// MAC implements policy.MAC.
func (noDigest) MAC(dst, _ []byte) []byte { return append(dst, make([]byte, 32)...) }

// RouteError says what is wrong with a route, by its place in Config.Routes.
type RouteError struct {
	Index int
	Err   error
}

// Error implements error.
func (e *RouteError) Error() string { return fmt.Sprintf("route %d: %v", e.Index, e.Err) }

// Unwrap returns what is wrong.
func (e *RouteError) Unwrap() error { return e.Err }

// Reload puts a new configuration in force for all exchanges that begin from now on, those of open connections included.
// If it cannot be used, the old one stays.
func (g *Gateway) Reload(c Config) error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	st, err := g.compile(c)
	if err != nil {
		g.ReloadFailed()
		return err
	}
	g.enforce(st)
	g.standings.Configure(c.Standings, c.Partners.All())
	g.check(c.Listeners)
	old := g.state.Swap(st)
	if g.managed != nil {
		g.managed.reseal(c.Certificates)
		g.managed.keep(hosts(c.Listeners))
	}
	old.retire()
	g.forget(old, st)
	g.metrics.reloaded()
	return nil
}

// ReloadFailed counts a reload that came to nothing before there was a Config.
func (g *Gateway) ReloadFailed() { g.metrics.reloads.WithLabelValues("failed").Inc() }

// listen listens without TCP's keep-alive probes: they would find a peer that is gone after 150 s, and by default none of our
// waits is as long.
func listen(address string) (net.Listener, error) {
	c := net.ListenConfig{KeepAlive: -1}
	return c.Listen(context.Background(), "tcp", address)
}

// Addr returns where a listener stands, AdminListener's included. It is known once Listen has returned.
func (g *Gateway) Addr(listener string) net.Addr { return g.bound[listener] }

// Listen opens every listener, or none.
func (g *Gateway) Listen() (err error) {
	opened := map[string]net.Listener{}
	defer func() {
		if err != nil {
			for _, l := range opened {
				l.Close()
			}
		}
	}()
	for name, address := range g.services.Addresses {
		if opened[name], err = listen(address); err != nil {
			delete(opened, name)
			return fmt.Errorf("listener %s: %w", name, err)
		}
	}
	admin, err := net.Listen("tcp", g.services.AdminAddress)
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	web, err := g.listenHTTP()
	if err != nil {
		admin.Close()
		return fmt.Errorf("certificates: %w", err)
	}
	g.keepCertificates(opened, web)
	for name, raw := range opened {
		g.bound[name] = raw.Addr()
		l := g.newListener(name, raw)
		g.listeners = append(g.listeners, l)
		g.servers = append(g.servers, g.newServer(l))
	}
	g.bound[AdminListener] = admin.Addr()
	if g.state.Load().config.Admin.TLS != nil {
		admin = tls.NewListener(admin, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if t := g.state.Load().config.Admin.TLS; t != nil {
				return t, nil
			}
			return nil, errors.New("no admin TLS is configured any more") // clear text takes a restart
		}})
	}
	g.listeners = append(g.listeners, &listener{name: AdminListener, accepted: admin})
	g.servers = append(g.servers, g.newAdminServer())
	return nil
}

// Serve answers until Shutdown, or until a listener fails.
func (g *Gateway) Serve() error {
	g.attend()
	ended := make(chan error, len(g.servers))
	for i, server := range g.servers {
		go func() { ended <- server.Serve(g.listeners[i].accepted) }()
	}
	for range g.servers {
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
	}
	return nil
}

// attend reads how partners stand and what CAs have revoked, until Shutdown.
func (g *Gateway) attend() {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	g.attending = cancel
	go g.standings.Run(ctx)
	for _, c := range g.checked {
		c.start()
	}
}

func (g *Gateway) stopAttending() {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	if g.attending != nil {
		g.attending()
		g.attending = nil
	}
	for _, c := range g.checked {
		c.stop()
	}
}

// Drain makes the gateway unready, so that load balancers send nothing any more. It answers as before.
func (g *Gateway) Drain() { g.draining.Store(true) }

// Shutdown takes no new connections, lets exchanges in flight end, and closes what is left when ctx ends.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.Drain()
	var wg sync.WaitGroup
	failed := make([]error, len(g.servers))
	for i, server := range g.servers {
		wg.Go(func() {
			if failed[i] = server.Shutdown(ctx); failed[i] != nil {
				server.Close()
			}
		})
	}
	wg.Wait()
	g.stopAttending() // now: what was in flight depends on it
	if g.managed != nil {
		g.managed.stop(ctx)
	}
	g.state.Load().retire()
	return errors.Join(failed...)
}

// Ready returns nil where the gateway can release answers, or everything that stands in the way.
func (g *Gateway) Ready(ctx context.Context) error {
	var problems []error
	if g.draining.Load() {
		problems = append(problems, errors.New("draining: shutting down"))
	}
	if err := g.services.Audit.Ready(); err != nil {
		problems = append(problems, fmt.Errorf("audit: %w", err))
	}
	if err := g.services.Store.Ready(ctx); err != nil {
		problems = append(problems, fmt.Errorf("store: %w", err))
	}
	for _, l := range g.state.Load().config.Listeners {
		if l.Revocations.Waiting() {
			problems = append(problems, fmt.Errorf("revocation: listener %s waits for its lists", l.Name))
		}
	}
	if waiting := g.managed.missing(g.state.Load().config.Listeners); !g.managed.reached() {
		for _, host := range waiting {
			problems = append(problems, errNoCertificate(host))
		}
	}
	return errors.Join(problems...)
}

// waiting says what the gateway lacks and is to have traffic for all the same: the authority reaches it by the way that callers
// do, and a load balancer that sends neither before it is ready would wait for ever.
func (g *Gateway) waiting() []string {
	if !g.managed.reached() {
		return nil
	}
	var all []string
	for _, host := range g.managed.missing(g.state.Load().config.Listeners) {
		all = append(all, errNoCertificate(host).Error())
	}
	return all
}

func errNoCertificate(host string) error { return fmt.Errorf("certificates: none for %s", host) }
