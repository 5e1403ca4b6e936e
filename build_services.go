package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// This file judges what a gateway stands on: admin listener, store, audit log, log.

func (b *builder) loadAdmin() {
	c := &b.config.Admin
	if c.Address == "" {
		c.Address = "127.0.0.1:8445"
	}
	host, _, ok := b.hostPort("admin.address", c.Address, "host:port, as in 127.0.0.1:8445")
	if !ok {
		return
	}
	if c.BearerFile != "" {
		b.admin.Bearer, _ = b.secret("admin.bearer_file", c.BearerFile)
	}
	if c.TLS != (AdminTLSConfig{}) {
		pair, _ := b.certificate("admin.tls", c.TLS.Certificate, c.TLS.Key)
		var cas []*x509.Certificate
		if c.TLS.ClientCA != "" {
			cas = b.authorities("admin.tls.client_ca", c.TLS.ClientCA)
		}
		b.admin.ClientCAsEnd = firstEnd(cas)
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
		b.notice("store.memory.logins_file: its users are logged in from the start, without having logged in")
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
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || !isPort(port) {
			b.problem(fmt.Sprintf("store.redis.addresses[%d]", i), "want host:port, as in redis.internal:6379")
		}
	}
	if c.Username != "" && c.PasswordFile == "" {
		b.problem("store.redis.password_file", "required where there is a username")
	}
	b.redis = &store.RedisConfig{
		Addresses: c.Addresses, Username: c.Username, DB: c.DB, Prefix: c.Prefix, PoolSize: c.PoolSize, Timeout: c.Timeout, DialTimeout: c.DialTimeout,
	}
	b.loadSentinel(c.Sentinel)
	b.loadFence(c)
	if c.PasswordFile != "" {
		b.redis.PasswordFile = b.relative(c.PasswordFile)
		b.secret("store.redis.password_file", c.PasswordFile) // read again at each dial; here, whether it holds one
	}
	if c.TLS == nil {
		return
	}
	b.redis.TLS = gateway.ClientTLS(nil)
	b.redis.TLS.ServerName = c.TLS.ServerName
	if c.TLS.CA != "" {
		cas := b.authorities("store.redis.tls.ca", c.TLS.CA)
		b.redis.TLS.RootCAs = pool(cas)
		b.redisFiles = append(encoded(cas), nil) // nil ends them
	}
	if c.TLS.Certificate != "" || c.TLS.Key != "" {
		if pair, ok := b.certificate("store.redis.tls", c.TLS.Certificate, c.TLS.Key); ok {
			b.redis.TLS.Certificates = []tls.Certificate{pair}
			b.redisFiles = append(b.redisFiles, pair.Certificate...)
		}
	}
}

func (b *builder) loadSentinel(c *SentinelConfig) {
	if c == nil {
		return
	}
	if c.Master == "" {
		b.problem("store.redis.sentinel.master", "required: the name under which the Sentinels know the primary")
	}
	if c.Username != "" && c.PasswordFile == "" {
		b.problem("store.redis.sentinel.password_file", "required where there is a username")
	}
	b.redis.MasterName, b.redis.SentinelUsername = c.Master, c.Username
	if c.PasswordFile != "" {
		b.redis.SentinelPasswordFile = b.relative(c.PasswordFile)
		b.secret("store.redis.sentinel.password_file", c.PasswordFile)
	}
}

func (b *builder) loadFence(c *RedisConfig) {
	switch c.Fence {
	case "", "tenure":
		if c.Quorum != (QuorumConfig{}) {
			b.problem("store.redis.quorum", "is for fence: quorum")
		}
	case "quorum":
		if c.Quorum.Replicas == 0 {
			b.problem("store.redis.quorum.replicas", "required: how many replicas must acknowledge")
			return
		}
		b.redis.Quorum = &store.Quorum{Replicas: c.Quorum.Replicas, Timeout: c.Quorum.Timeout}
		b.notice("store.redis.fence: quorum: single use rests on acknowledgement by %d of the replicas, not on the server's tenure: "+
			"it does not hold where another replica is promoted, or a server comes back with older data", c.Quorum.Replicas)
	default:
		b.problem("store.redis.fence", "want tenure or quorum")
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

// loadLimits tells of the rates that have no default.
func (b *builder) loadLimits() {
	for _, l := range []struct {
		key, of string
		rate    policy.Rate
	}{{"partner", "partner", b.config.Limits.Partner}, {"card", "card", b.config.Limits.Card}, {"credential", "credential", b.config.Limits.Credential}} {
		if l.rate.IsZero() {
			b.notice("limits.%s: none: the exchanges of a %s are not limited", l.key, l.of)
		}
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
