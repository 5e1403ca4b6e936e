package gateway

import (
	"bytes"
	"crypto/fips140"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cardstile/cardstile/gateway/revocation"
)

// This file is how client certificates are verified at the price of a look-up, where the same have been verified before.

// clientTrust says which client certificates a virtual host takes. Chains that were verified once are not verified again while
// all of their certificates are valid; whether one is revoked is asked each time. It lives as long as one configuration, so that
// other CAs begin with nothing. Safe for concurrent use.
type clientTrust struct {
	pool        *x509.CertPool
	revocations *revocation.Checker
	now         func() time.Time

	mu     sync.RWMutex
	chains map[[sha256.Size]byte]*trusted // by digest of what was presented
}

// trusted are the chains of one leaf, from leaf to root, and when all of their certificates are valid.
type trusted struct {
	chains      [][]*x509.Certificate
	from, until time.Time
}

// How much is remembered. Beyond it something makes room, and is verified or greeted anew. A partner can present any number of
// variants of what its CA has signed: those that are longer than usual are not kept.
const (
	maxTrustedChains = 4096
	maxTrustedBytes  = 16 << 10
	maxGreeted       = 16384
)

// Who has had so many good handshakes in a row, with no longer a pause between two, is greeted.
const (
	greetedAfter = 16
	greetedPause = time.Second
)

func newClientTrust(pool *x509.CertPool, revocations *revocation.Checker, now func() time.Time) *clientTrust {
	return &clientTrust{pool: pool, revocations: revocations, now: now, chains: map[[sha256.Size]byte]*trusted{}}
}

// guard makes of a configuration that requires and verifies client certificates two that do, and that judge revocation too, on
// every connection, resumed ones included. With strict, crypto/tls verifies: it alone can tell a client by its alert what is wrong
// (unknown CA, expired). With quick, for callers that are greeted, chains that are known are looked up, and whatever is refused is a
// bad certificate (RFC 8446 section 6.2). In FIPS 140-3 mode both are strict: crypto/tls then has rules of its own for chains.
func (t *clientTrust) guard(c *tls.Config) (strict, quick *tls.Config) {
	c.Time = t.now
	strict, quick = c, c.Clone()
	strict.VerifyConnection = func(cs tls.ConnectionState) error {
		if chains := cs.VerifiedChains; !cs.DidResume && len(chains) > 0 {
			t.remember(cs.PeerCertificates, chains)
			return t.revocations.Any(chains, t.now())
		}
		return t.check(cs.PeerCertificates)
	}
	if fips140.Enabled() {
		return strict, strict
	}
	quick.ClientAuth = tls.RequireAnyClientCert
	quick.VerifyConnection = func(cs tls.ConnectionState) error { return t.check(cs.PeerCertificates) }
	return strict, quick
}

// check refuses what no CA of ours vouches for, and what is revoked. Fails closed.
func (t *clientTrust) check(presented []*x509.Certificate) error {
	chains, err := t.verify(presented)
	if err != nil {
		return err
	}
	return t.revocations.Any(chains, t.now())
}

// verify returns the chains of what a client presented, each from leaf to root. A nil *clientTrust has none. Fails closed.
func (t *clientTrust) verify(presented []*x509.Certificate) ([][]*x509.Certificate, error) {
	if t == nil || len(presented) == 0 {
		return nil, errNoClientCertificate
	}
	now := t.now()
	if known := t.known(presentedDigest(presented), now); known != nil {
		return known.chains, nil
	}
	chains, err := verifyClient(presented, t.pool, now)
	if err != nil {
		return nil, err
	}
	t.remember(presented, chains)
	return chains, nil
}

// known is what is remembered of what was presented, nil where there is nothing or a certificate is not valid.
func (t *clientTrust) known(key [sha256.Size]byte, now time.Time) *trusted {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if known := t.chains[key]; known != nil && !now.Before(known.from) && !now.After(known.until) {
		return known
	}
	return nil
}

// remember keeps chains that have been verified.
func (t *clientTrust) remember(presented []*x509.Certificate, chains [][]*x509.Certificate) {
	size := 0
	for _, c := range presented {
		size += len(c.Raw)
	}
	key := presentedDigest(presented)
	if size > maxTrustedBytes || t.known(key, t.now()) != nil {
		return
	}
	chains, err := withoutMessage(presented, chains)
	if err != nil {
		return
	}
	found := &trusted{chains: chains}
	for _, chain := range chains {
		for _, c := range chain {
			if c.NotBefore.After(found.from) {
				found.from = c.NotBefore
			}
			if found.until.IsZero() || c.NotAfter.Before(found.until) {
				found.until = c.NotAfter
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	makeRoom(t.chains, maxTrustedChains)
	t.chains[key] = found
}

// withoutMessage has chains of copies of what was presented: crypto/tls makes certificates of parts of a handshake message, and each
// would keep the whole of it, with whatever else the client put there (256 KiB).
func withoutMessage(presented []*x509.Certificate, chains [][]*x509.Certificate) ([][]*x509.Certificate, error) {
	copies := make(map[*x509.Certificate]*x509.Certificate, len(presented))
	own := make([][]*x509.Certificate, len(chains))
	for i, chain := range chains {
		own[i] = slices.Clone(chain)
		for j, c := range chain {
			if !slices.Contains(presented, c) { // the anchor
				continue
			}
			if copies[c] == nil {
				parsed, err := x509.ParseCertificate(bytes.Clone(c.Raw))
				if err != nil {
					return nil, err
				}
				copies[c] = parsed
			}
			own[i][j] = copies[c]
		}
	}
	return own, nil
}

// greeted are the callers who come so often, and well, that the next handshake very likely is good too and needs no alert that
// explains itself: whose handshakes cost anything. Safe for concurrent use.
type greeted struct {
	mu  sync.Mutex
	all map[netip.Addr]goodHandshakes
}

// goodHandshakes are those of one caller since the last pause or refusal.
type goodHandshakes struct {
	count int
	last  time.Time
}

func newGreeted() *greeted { return &greeted{all: map[netip.Addr]goodHandshakes{}} }

// note takes in how a caller's handshake went.
func (g *greeted) note(from net.Addr, good bool, now time.Time) {
	address := hostAddr(from)
	if !address.IsValid() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !good {
		delete(g.all, address)
		return
	}
	h, known := g.all[address]
	if !known {
		makeRoom(g.all, maxGreeted)
	}
	if now.Sub(h.last) > greetedPause {
		h.count = 0
	}
	h.count, h.last = h.count+1, now
	g.all[address] = h
}

func (g *greeted) has(from net.Addr, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.all[hostAddr(from)]
	return h.count >= greetedAfter && now.Sub(h.last) <= greetedPause
}

// hostAddr is the address without its port, invalid where there is none.
func hostAddr(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}

func makeRoom[K comparable, V any](m map[K]V, most int) {
	for k := range m {
		if len(m) < most {
			return
		}
		delete(m, k)
	}
}

// presentedDigest tells what clients presented apart: the certificates, in their order.
func presentedDigest(presented []*x509.Certificate) (digest [sha256.Size]byte) {
	h := sha256.New()
	var size [4]byte
	for _, c := range presented {
		binary.BigEndian.PutUint32(size[:], uint32(len(c.Raw)))
		h.Write(size[:])
		h.Write(c.Raw)
	}
	h.Sum(digest[:0])
	return digest
}
