package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/keys"
)

// process is what one `cardstile serve` consists of, built once, in the order of the data path.
type process struct {
	fixed    []fixture      // what only a restart changes
	draining ShutdownConfig // of the configuration in force; of the goroutine that takes signals
	log      *zap.Logger
	gateway  *gateway.Gateway
	services gateway.Services
	secrets  secrets
	keys     map[string]*keys.Key // of the configuration in force; of whoever reloads
}

// secrets are the keys that tokens and records depend on. Generated ones live as long as the process, across reloads.
type secrets struct {
	storage, digest, audit []*keys.Key
}

// newProcess builds everything, and starts nothing but the audit log's writer.
func newProcess(b *builder, log *zap.Logger, beside gateway.Beside) (*process, error) {
	p := &process{draining: b.config.Shutdown, log: log, keys: b.keys}
	if err := p.loadSecrets(b); err != nil {
		return nil, err
	}
	var err error
	if p.fixed, err = b.fixtures(); err != nil {
		return nil, err
	}
	if p.services, err = p.newServices(b); err != nil {
		return nil, err
	}
	p.services.Beside = beside
	config, err := p.gatewayConfig(b)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	registry := prometheus.NewRegistry()
	p.services.Metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry})
	if p.gateway, err = gateway.New(p.services, config); err != nil {
		return nil, errors.Join(err, p.close())
	}
	registry.MustRegister(p.collectors()...)
	if err := p.logIn(b); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// loadSecrets takes the configured keys, and generates those that a single instance does without.
func (p *process) loadSecrets(b *builder) error {
	for _, s := range []struct {
		use  keys.Use
		into *[]*keys.Key
	}{{keys.UseStorage, &p.secrets.storage}, {keys.UseDigest, &p.secrets.digest}, {keys.UseAudit, &p.secrets.audit}} {
		if *s.into = b.keysFor(s.use); len(*s.into) > 0 {
			continue
		}
		key, err := generated(s.use, b)
		if err != nil {
			return err
		}
		*s.into = []*keys.Key{key}
	}
	return nil
}

// generated returns a key that was not configured. The audit log outlives the process, and so does its key, beside it.
func generated(use keys.Use, b *builder) (*keys.Key, error) {
	if use != keys.UseAudit {
		return keys.Ephemeral("generated-"+string(use), use)
	}
	file := b.relative(b.config.Audit.File) + ".key"
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if err := generateKey(string(use), 0, file, "", ""); err != nil {
			return nil, fmt.Errorf("audit key: %w", err)
		}
	}
	return keys.Load(keys.Config{ID: "generated-audit", Use: use, File: file, Environment: b.config.Environment})
}

// newServices builds what a reload does not touch.
func (p *process) newServices(b *builder) (gateway.Services, error) {
	s := gateway.Services{Log: p.log, AdminAddress: b.config.Admin.Address, Addresses: map[string]string{}}
	for name, l := range b.config.Listeners {
		s.Addresses[name] = l.Address
	}
	var err error
	if s.Vault, err = vault.New(vault.Config{MaxRSA: b.config.Limits.RSA}); err != nil {
		return s, err
	}
	if s.Store, err = newStore(b); err != nil {
		return s, err
	}
	mac, err := p.secrets.audit[0].MAC(audit.Label)
	if err != nil {
		return s, err
	}
	instance := b.config.Audit.Instance
	if instance == "" {
		if instance, err = os.Hostname(); err != nil {
			return s, err
		}
	}
	if b.managed != nil {
		managed := b.managedIn(s.Store)
		s.Managed = &managed
	}
	s.Audit, err = audit.Open(audit.Config{File: b.relative(b.config.Audit.File), Instance: instance, MAC: mac, Logger: p.log})
	if err != nil {
		return s, errors.Join(err, s.Store.Close())
	}
	return s, nil
}

func newStore(b *builder) (store.Store, error) {
	if b.redis != nil {
		return store.NewRedis(*b.redis)
	}
	c := store.MemoryConfig{}
	if m := b.config.Store.Memory; m != nil {
		c.MaxEntries = m.MaxEntries
	}
	return store.NewMemory(c)
}

// gatewayConfig is all that a reload replaces.
func (p *process) gatewayConfig(b *builder) (gateway.Config, error) {
	c := gateway.Config{
		Listeners: b.listeners, Routes: b.routes, Partners: b.partners, Engine: b.engine, Holders: b.holders, Admin: b.admin,
		Limits: gatewayLimits(b.config.Limits),
	}
	digest := p.secrets.digest
	if own := b.keysFor(keys.UseDigest); len(own) > 0 {
		digest = own
	}
	storage := p.secrets.storage
	if own := b.keysFor(keys.UseStorage); len(own) > 0 {
		storage = own
	}
	card, err := digest[0].MAC("card")
	if err != nil {
		return c, err
	}
	c.CardDigest = card
	if c.EnvelopeDigests, err = labelled("envelope", digest); err != nil {
		return c, err
	}
	if b.credentials != nil {
		c.APIKeys = b.credentials
	}
	if c.Answers, err = keys.NewSealRing("answer", storage...); err != nil {
		return c, err
	}
	if c.Kept, err = keys.NewSealRing("card", storage...); err != nil {
		return c, err
	}
	if c.Standings, err = keys.NewSealRing("standing", storage...); err != nil {
		return c, err
	}
	if c.Certificates, err = keys.NewSealRing(certificateLabel, storage...); err != nil {
		return c, err
	}
	if c.Tokens, err = newTokens(p.services.Store, digest, storage, c.Partners); err != nil {
		return c, err
	}
	provers := provers{store: p.services.Store, vault: p.services.Vault, digest: digest, storage: storage, apiKeys: b.credentials, jwks: b.jwksFiles, partners: b.partnerIDs()}
	if len(b.accounts) > 0 {
		if provers.accounts, err = credential.NewAccounts(b.accounts); err != nil {
			return c, err
		}
	}
	for i := range c.Routes {
		if err := provers.make(&c.Routes[i], &b.config.Routes[b.routeOf[i]], b.routeKeys[i]); err != nil {
			return c, fmt.Errorf("routes[%d]: %w", b.routeOf[i], err)
		}
	}
	return c, nil
}

func gatewayLimits(l LimitsConfig) gateway.Limits {
	return gateway.Limits{
		Partner:     l.Partner,
		Card:        l.Card,
		Credential:  l.Credential,
		PINReveal:   l.PINReveal,
		PINSet:      l.PINSet,
		FailedOpens: l.FailedOpens,
		Unproven:    l.Unproven,
		Anonymous:   l.Anonymous,
		Login:       l.Login,
		Page:        l.Page,
		User:        l.User,

		HeaderBytes: l.HeaderBytes,
		BodyBytes:   l.BodyBytes,
		AnswerBytes: l.AnswerBytes,

		Handshake: l.Handshake,
		Read:      l.Read,
		Write:     l.Write,
		Idle:      l.Idle,
		Exchange:  l.Exchange,

		Connections:          l.Connections,
		Concurrent:           l.Concurrent,
		ConcurrentPerIssuer:  l.ConcurrentPerIssuer,
		ConcurrentPerPartner: l.ConcurrentPerPartner,
	}
}

func newTokens(s store.Tokens, digest, storage []*keys.Key, partners *policy.Partners) (*credential.Tokens, error) {
	digests, err := ring("token", digest)
	if err != nil {
		return nil, err
	}
	seeds, err := ring("token seed", digest)
	if err != nil {
		return nil, err
	}
	grants, err := keys.NewSealRing("grant", storage...)
	if err != nil {
		return nil, err
	}
	c := credential.TokensConfig{Store: s, Digests: digests, Seeds: seeds, Grants: grants}
	for _, p := range partners.All() {
		c.Partners = append(c.Partners, p.ID)
	}
	return credential.NewTokens(c)
}

// ring is the keyed digests of several keys under one label.
func ring(label string, digest []*keys.Key) (credential.DigestRing, error) {
	macs, err := keys.NewMACRing(label, digest...)
	if err != nil {
		return nil, err
	}
	return credential.Ring(macs), nil
}

// logIn gives the users of the logins file their login records.
func (p *process) logIn(b *builder) error {
	for _, user := range b.logins {
		for _, r := range b.routes {
			if r.Cookies == nil {
				continue
			}
			generation, err := p.gateway.Generation(context.Background(), r.Partner)
			if err != nil {
				return err
			}
			if err := r.Cookies.Login(context.Background(), user, gateway.LoginTTL, generation); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *process) collectors() []prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "cardstile_build_info", Help: "1, with what was built.",
		ConstLabels: prometheus.Labels{"version": versionText(), "goversion": runtime.Version()},
	})
	info.Set(1)
	all := []prometheus.Collector{info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})}
	all = append(all, p.gateway.Collectors()...)
	all = append(all, p.services.Vault.Collectors()...)
	all = append(all, p.services.Store.Collectors()...)
	return append(all, p.services.Audit.Collectors()...)
}

// reload reads the configuration again and puts it in force, or says why the old one stays. What it read is returned in
// both cases: it is what the next attempt depends on.
func (p *process) reload(file string) (*builder, error) {
	b, err := loadAfter(file, p.keys)
	if err != nil {
		p.gateway.ReloadFailed()
		return b, err
	}
	fixed, err := b.fixtures()
	if err != nil {
		p.gateway.ReloadFailed()
		return b, err
	}
	for _, name := range changed(p.fixed, fixed) {
		p.log.Warn("a change that needs a restart was left out", zap.String("key", name))
	}
	c, err := p.gatewayConfig(b)
	if err != nil {
		p.gateway.ReloadFailed()
		return b, err
	}
	if err := p.gateway.Reload(c); err != nil {
		return b, err
	}
	p.keys = b.keys
	return b, nil
}

// close gives back what was opened, in the opposite order.
func (p *process) close() error {
	return errors.Join(p.services.Audit.Close(), p.services.Store.Close())
}

// watcher tells when one of the files that a configuration names has changed. It compares what stat says every interval:
// renames, symlinks that are switched and network mounts all show, and no notification is lost. Files are as they were
// before they were read, so that a change in between shows too.
type watcher struct {
	seen map[string]string
}

// changed reports whether a file is another than it was.
func (w *watcher) changed() bool {
	found := false
	for f, old := range w.seen {
		if now := stamp(f); now != old {
			w.seen[f] = now
			found = true
		}
	}
	return found
}

// globbed begins the name of a pattern of files, of which their names are watched.
const globbed = "glob:"

func stamp(file string) string {
	if pattern, ok := strings.CutPrefix(file, globbed); ok {
		names, _ := filepath.Glob(pattern) // a malformed pattern is told when the configuration is loaded
		return strings.Join(names, "\n")
	}
	info, err := os.Stat(file)
	if err != nil {
		return "none"
	}
	// The time of the inode (on Linux) shows what keeps size and time of the content: `cp -p`, and a change of mode.
	sys := reflect.ValueOf(info.Sys()).Elem()
	return fmt.Sprint(info.Size(), info.ModTime().UnixNano(), sys.FieldByName("Ino"), sys.FieldByName("Ctim"))
}

// watchInterval is how often files are looked at. What has changed is read when it has not changed for so long, lest half a file
// is read, and after settleLooks of them all the same: a switch and pins are in force within a second [20].
const (
	watchInterval = 200 * time.Millisecond
	settleLooks   = 3
)
