package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// This file obtains the certificates of hosts, and keeps them valid.

// Managed says where certificates of hosts come from, and where they are kept. It is fixed for the life of a process.
type Managed struct {
	// ACME is the authority that issues them; nil is one of our own, for development.
	ACME *ACME
	// KeyType is that of their keys: p256 where it is empty. See KeyTypes.
	KeyType string
	// Directory is where they are kept: files that are ours alone. Empty: Files.
	Directory string
	Files     store.Files
	// Destinations are where OCSP responders may be that certificates name. What it names itself counts for nothing.
	Destinations Destinations
	// CheckEvery is how often it is looked which are to be renewed; 0: 10 min.
	CheckEvery time.Duration
}

// ACME is a certificate authority that speaks RFC 8555.
type ACME struct {
	URL       string         // of its directory
	Roots     *x509.CertPool // that its own certificate must come from; nil: the system's
	Email     string
	Challenge Challenge

	// HTTPAddress is where ChallengeHTTP is answered, DNS who answers ChallengeDNS.
	HTTPAddress string
	DNS         *DNSHook

	// BindingID and BindingKey (base64url) bind the account to one that the authority knows (RFC 8555 section 7.3.4).
	BindingID, BindingKey string
}

// Challenge is how an authority is shown that a host is ours.
type Challenge string

// The challenges: RFC 8555 sections 8.3 and 8.4, and RFC 8737.
const (
	ChallengeHTTP Challenge = "http-01"
	ChallengeDNS  Challenge = "dns-01"
	ChallengeALPN Challenge = "tls-alpn-01"
)

// KeyTypes are the types of keys that certificates can have.
var KeyTypes = map[string]certmagic.KeyType{
	"p256": certmagic.P256, "p384": certmagic.P384, "rsa2048": certmagic.RSA2048, "rsa4096": certmagic.RSA4096,
}

// CertificateSeals seal what is kept of certificates: keys of use storage, label "certificate".
type CertificateSeals = credential.StandingSeals

// managed keeps the certificates of hosts.
type managed struct {
	c       Managed
	log     *zap.Logger
	storage *sealedStorage
	orders  *prometheus.CounterVec
	running atomic.Pointer[keeping] // nil before start

	mu      sync.Mutex
	hosts   map[string]context.CancelFunc // what is done for each ends with its call
	wg      sync.WaitGroup
	ctx     context.Context
	stopAll context.CancelFunc
}

// keeping is certmagic's part of it, once it runs.
type keeping struct {
	cache  *certmagic.Cache
	config *certmagic.Config
	acme   *certmagic.ACMEIssuer // nil: the development CA

	staples *stapling
}

func newManaged(c Managed, seals CertificateSeals, log *zap.Logger, orders *prometheus.CounterVec) (*managed, error) {
	if _, ok := KeyTypes[cmp.Or(c.KeyType, "p256")]; !ok {
		return nil, fmt.Errorf("certificates: unknown type of keys %q", c.KeyType)
	}
	if seals == nil {
		return nil, errors.New("certificates: no key seals what is kept of them")
	}
	if c.Directory == "" && c.Files == nil {
		return nil, errors.New("certificates: they are kept nowhere")
	}
	m := &managed{c: c, log: log, storage: c.storage(seals, log), orders: orders, hosts: map[string]context.CancelFunc{}}
	m.ctx, m.stopAll = context.WithCancel(context.Background())
	return m, nil
}

func (c *Managed) storage(seals CertificateSeals, log *zap.Logger) *sealedStorage {
	if c.Directory != "" {
		return newSealedStorage(&certmagic.FileStorage{Path: c.Directory}, seals)
	}
	return newSealedStorage(newSharedStorage(c.Files, log), seals)
}

// LocalCA returns the certificate of the development CA, in PEM. Where there is none yet, it makes one.
func LocalCA(ctx context.Context, c Managed, seals CertificateSeals, log *zap.Logger) ([]byte, error) {
	ca := &localCA{storage: c.storage(seals, log)}
	if _, _, err := ca.load(ctx); err != nil {
		return nil, err
	}
	return ca.storage.Load(ctx, localCertificate)
}

// start begins to keep certificates. alpn is where a listener of hosts stands.
func (m *managed) start(alpn, http net.Addr) {
	k := &keeping{staples: newStapling(m.c.Destinations)}
	k.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return k.config, nil },
		RenewCheckInterval: m.c.CheckEvery,
		Logger:             quietly(m.log),
	})
	k.config = certmagic.New(k.cache, certmagic.Config{
		Storage:   m.storage,
		KeySource: certmagic.StandardKeyGenerator{KeyType: KeyTypes[cmp.Or(m.c.KeyType, "p256")]},
		OCSP:      certmagic.OCSPConfig{DisableStapling: true}, // see stapling
		OnEvent:   m.event,
		Logger:    quietly(m.log),
	})
	if m.c.ACME == nil {
		k.config.Issuers = []certmagic.Issuer{&localCA{storage: m.storage}}
	} else {
		k.acme = certmagic.NewACMEIssuer(k.config, m.c.ACME.issuer(alpn, http, quietly(m.log)))
		k.config.Issuers = []certmagic.Issuer{k.acme}
	}
	m.running.Store(k)
}

// quietly leaves of certmagic's lines those that an operator is to read. What went well is told by event.
func quietly(log *zap.Logger) *zap.Logger {
	return log.Named("certificates").WithOptions(zap.IncreaseLevel(zap.WarnLevel))
}

// issuer is an authority as certmagic knows it. Where certmagic would listen itself, for a challenge, we do already: it is told
// where, finds the place taken, and leaves the answering to us.
func (a *ACME) issuer(alpn, web net.Addr, log *zap.Logger) certmagic.ACMEIssuer {
	is := certmagic.ACMEIssuer{
		CA: a.URL, Email: a.Email, Agreed: true, TrustedRoots: a.Roots, Logger: log,
		DisableHTTPChallenge: a.Challenge != ChallengeHTTP, DisableTLSALPNChallenge: a.Challenge != ChallengeALPN,
		HTTPProxy: func(*http.Request) (*url.URL, error) { return nil, nil }, // the environment does not decide where we connect to
	}
	if a.BindingID != "" {
		is.ExternalAccount = &acme.EAB{KeyID: a.BindingID, MACKey: a.BindingKey}
	}
	switch at := web; a.Challenge {
	case ChallengeDNS:
		is.DNS01Solver = &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
			DNSProvider: a.DNS, TTL: time.Minute, PropagationTimeout: a.DNS.Propagation, Resolvers: a.DNS.Resolvers, Logger: log,
		}}
	case ChallengeALPN:
		at = alpn
		fallthrough
	default:
		if tcp, ok := at.(*net.TCPAddr); ok {
			is.AltHTTPPort, is.AltTLSALPNPort = tcp.Port, tcp.Port
			if !tcp.IP.IsUnspecified() {
				is.ListenHost = tcp.IP.String()
			}
		}
	}
	return is
}

// event takes what certmagic tells.
func (m *managed) event(_ context.Context, event string, data map[string]any) error {
	host, _ := data["identifier"].(string)
	operation := "obtain"
	if renewal, _ := data["renewal"].(bool); renewal {
		operation = "renew"
	}
	switch event {
	case "cert_obtained":
		m.orders.WithLabelValues(host, operation, "ok").Inc()
		m.log.Info("certificate issued", zap.String("host", host), zap.String("operation", operation))
	case "cert_failed":
		err, _ := data["error"].(error)
		m.orders.WithLabelValues(host, operation, "failed").Inc()
		m.log.Error("no certificate was issued", zap.String("host", host), zap.String("operation", operation), zap.Error(err))
	}
	return nil
}

// reseal takes the keys of a new configuration, where it has any.
func (m *managed) reseal(seals CertificateSeals) {
	if seals != nil {
		m.storage.seals.Store(&seals)
	}
}

// loadTime is how long a start waits for certificates that are in the storage already.
const loadTime = 3 * time.Second

// keep sees to the certificates of these hosts, and to no others any more. What it returns is closed when the storage has been
// asked for each.
func (m *managed) keep(hosts []string) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.running.Load()
	loaded := make(chan struct{})
	if k == nil || m.ctx.Err() != nil { // not yet, or no longer
		close(loaded)
		return loaded
	}
	for host, stop := range m.hosts {
		if !slices.Contains(hosts, host) {
			stop()
			delete(m.hosts, host)
			k.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: host}})
			m.orders.DeletePartialMatch(prometheus.Labels{"host": host})
		}
	}
	var asked sync.WaitGroup
	for _, host := range hosts {
		if m.hosts[host] != nil {
			continue
		}
		for _, operation := range []string{"obtain", "renew"} {
			m.orders.WithLabelValues(host, operation, "ok") // from zero, so that the first one shows as an increase
			m.orders.WithLabelValues(host, operation, "failed")
		}
		ctx, stop := context.WithCancel(m.ctx)
		m.hosts[host] = stop
		asked.Add(1)
		m.wg.Go(func() {
			m.see(ctx, k, host, sync.OnceFunc(asked.Done))
			m.staple(ctx, k, host)
		})
	}
	go func() {
		asked.Wait()
		close(loaded)
	}()
	return loaded
}

// see loads a host's certificate, or has one issued, until there is one. From then on certmagic renews it.
func (m *managed) see(ctx context.Context, k *keeping, host string, asked func()) {
	defer asked()
	for wait := time.Second; ctx.Err() == nil; wait = min(2*wait, time.Minute) {
		cert, err := k.config.CacheManagedCertificate(ctx, host)
		asked()
		switch {
		case err == nil:
			if m.abandoned(ctx, k, host) {
				return
			}
			if cert.NeedsRenewal(k.config) {
				err = k.cache.RenewManagedCertificates(ctx) // it only queues
			}
		case errors.Is(err, fs.ErrNotExist):
			if err = k.config.ObtainCertAsync(ctx, host); err == nil {
				continue // and load it
			}
		}
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			return
		}
		m.log.Warn("no certificate yet", zap.String("host", host), zap.Error(err))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// abandoned takes a certificate out again that was loaded while its host was taken out.
func (m *managed) abandoned(ctx context.Context, k *keeping, host string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() == nil {
		return false
	}
	if m.hosts[host] == nil { // and did not come back
		k.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: host}})
	}
	return true
}

// stop ends all that runs, and gives locks back. It waits no longer than ctx.
func (m *managed) stop(ctx context.Context) {
	m.mu.Lock()
	m.stopAll()
	k := m.running.Load()
	m.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.wg.Wait()
		if k != nil {
			k.cache.Stop()
			k.staples.asker.Close()
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// certificate returns the certificate for a host, nil where there is none.
func (k *keeping) certificate(hello *tls.ClientHelloInfo, host string) *tls.Certificate {
	best, err := certmagic.DefaultCertificateSelector(hello, k.cache.AllMatchingCertificates(host))
	if err != nil {
		return nil
	}
	best.Certificate.OCSPStaple = k.staples.to(host, &best) // best is ours: a copy
	return &best.Certificate
}

// ends returns when a host's certificate ends.
func (m *managed) ends(host string) (time.Time, bool) {
	k := m.running.Load()
	if k == nil {
		return time.Time{}, false
	}
	var end time.Time
	for _, c := range k.cache.AllMatchingCertificates(host) {
		if c.Leaf != nil && c.Leaf.NotAfter.After(end) {
			end = c.Leaf.NotAfter
		}
	}
	return end, !end.IsZero()
}

// config is the TLS configuration of a listener with hosts. A connection that names none gets the first one's certificate; one
// that names another, or one without a certificate yet, is refused (unrecognized_name).
func (m *managed) config(l Listener) *tls.Config {
	c := ServerTLS(tls.Certificate{}, l.ClientCAs)
	c.Certificates = nil
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		k, host := m.running.Load(), hostOf(l.Hosts, hello.ServerName)
		if k == nil || host == "" {
			return nil, nil
		}
		return k.certificate(hello, host), nil
	}
	if m.c.ACME != nil && m.c.ACME.Challenge == ChallengeALPN {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return m.challenged(l, hello), nil }
	}
	return c
}

// hostOf returns which of a listener's hosts a server name stands for, or nothing.
func hostOf(hosts []string, name string) string {
	name = strings.ToLower(name)
	if name == "" && len(hosts) > 0 {
		return hosts[0]
	}
	if slices.Contains(hosts, name) {
		return name
	}
	if _, above, ok := strings.Cut(name, "."); ok && slices.Contains(hosts, "*."+above) {
		return "*." + above
	}
	return ""
}

// acmeTLS is the protocol of ChallengeALPN.
const acmeTLS = "acme-tls/1"

// challenged returns the configuration for an authority's validation (RFC 8737 section 3), which brings no client certificate:
// where the client offers that one protocol and no other, and a challenge for the name is under way. It speaks that protocol
// alone, has the challenge's certificate alone, and gives no ticket; handshake closes the connection after it. For everybody
// else it returns nil: the listener's own configuration.
func (m *managed) challenged(l Listener, hello *tls.ClientHelloInfo) *tls.Config {
	k := m.running.Load()
	if k == nil || len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != acmeTLS || !slices.Contains(l.Hosts, hello.ServerName) {
		return nil
	}
	if !m.underWay(hello, k) {
		return nil
	}
	cert, err := k.config.GetCertificateWithContext(hello.Context(), hello)
	if err != nil || cert == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, CipherSuites: aeadSuites, Certificates: []tls.Certificate{*cert},
		NextProtos: []string{acmeTLS}, SessionTicketsDisabled: true,
	}
}

// underWay reports whether a challenge for a name is, of this instance or, as the storage says, of another one.
func (m *managed) underWay(hello *tls.ClientHelloInfo, k *keeping) bool {
	if _, ok := certmagic.GetACMEChallenge(hello.ServerName); ok {
		return true
	}
	key := "acme/" + certmagic.StorageKeys.Safe(k.acme.IssuerKey()) + "/challenge_tokens/" + certmagic.StorageKeys.Safe(hello.ServerName) + ".json"
	_, err := m.storage.Load(hello.Context(), key)
	return err == nil
}

// hosts returns those of all listeners, each once.
func hosts(listeners []Listener) []string {
	all := map[string]bool{}
	for _, l := range listeners {
		for _, host := range l.Hosts {
			all[host] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// missing names the hosts that have no certificate.
func (m *managed) missing(listeners []Listener) []string {
	if m == nil {
		return nil
	}
	var none []string
	for _, host := range hosts(listeners) {
		if _, ok := m.ends(host); !ok {
			none = append(none, host)
		}
	}
	return none
}

// reached reports whether the authority must reach this gateway before it issues.
func (m *managed) reached() bool {
	return m != nil && m.c.ACME != nil && m.c.ACME.Challenge != ChallengeDNS
}
