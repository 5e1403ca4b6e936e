package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/revocation"
	"github.com/cardstile/cardstile/policy"
)

// aeadSuites are the TLS 1.2 suites that we speak: forward secret and authenticated encryption only (RFC 9325 section
// 4.2). TLS 1.3 has no others.
var aeadSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// ServerTLS is the TLS configuration of everything that we listen with. With client CAs, a client certificate is
// required and verified, for client authentication, on every connection; a resumed one would skip that, so no tickets are
// given where one is required, and VerifyConnection judges a resumed connection all the same.
func ServerTLS(certificate tls.Certificate, clientCAs *x509.CertPool) *tls.Config {
	c := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: aeadSuites,
		Certificates: []tls.Certificate{certificate},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if clientCAs != nil {
		c.ClientAuth = tls.RequireAndVerifyClientCert
		c.ClientCAs = clientCAs
		c.SessionTicketsDisabled = true
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			_, err := verifiedChains(&cs, clientCAs)
			return err
		}
	}
	return c
}

// ClientTLS is the TLS configuration of everything that we connect to: the same suites, and the system's authorities where
// none are given.
func ClientTLS(authorities *x509.CertPool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: aeadSuites, RootCAs: authorities}
}

// verifiedChains returns the chains of a client's certificate, from leaf to root. Those of a full handshake have just been
// verified against the pool; those of a resumed one are verified anew. Fails closed.
func verifiedChains(cs *tls.ConnectionState, pool *x509.CertPool) ([][]*x509.Certificate, error) {
	if !cs.DidResume && len(cs.VerifiedChains) > 0 {
		return cs.VerifiedChains, nil
	}
	return verifyClient(cs.PeerCertificates, pool, time.Now())
}

var errNoClientCertificate = errors.New("no client certificate")

// verifyClient verifies a client's certificate for client authentication (RFC 5280 section 4.2.1.12: a certificate that
// states no extended key usage may be used for any). Fails closed.
func verifyClient(presented []*x509.Certificate, pool *x509.CertPool, now time.Time) ([][]*x509.Certificate, error) {
	if pool == nil || len(presented) == 0 { // without a pool, x509 would go by the system's authorities
		return nil, errNoClientCertificate
	}
	intermediates := x509.NewCertPool()
	for _, c := range presented[1:] {
		intermediates.AddCert(c)
	}
	return presented[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// peer is the verified caller of one connection. Which partner it is, and whether its certificate still holds, is asked
// again for each request, so that a reload, a disabled partner or an expiry reaches open connections too.
type peer struct {
	presented   []*x509.Certificate
	fingerprint [32]byte // SHA-256 of the leaf's DER
	last        atomic.Pointer[judgement]
}

// judgement is what one configuration thinks of a peer.
type judgement struct {
	of      *state
	epoch   uint64 // of what was known of revocations
	partner *policy.Partner
	proof   policy.Proof
	chain   []*x509.Certificate // by which it was proven, from leaf to root
	until   time.Time           // when it is to be thought over: the earliest end of a certificate in the chain or of what its CAs said of it, or soon after a refusal
	err     error
}

func newPeer(cs *tls.ConnectionState) *peer {
	if len(cs.PeerCertificates) == 0 {
		return nil
	}
	return &peer{presented: cs.PeerCertificates, fingerprint: sha256.Sum256(cs.PeerCertificates[0].Raw)}
}

// judged returns what the configuration in force thinks of the peer's certificate, and whose it is.
func (p *peer) judged(ctx context.Context, st *state, h *virtualHost, now time.Time) *judgement {
	j := p.last.Load()
	if j == nil || j.of != st || j.epoch != h.Revocations.Epoch() || now.After(j.until) {
		j = p.judge(ctx, st, h, now)
		p.last.Store(j)
	}
	return j
}

func (p *peer) judge(ctx context.Context, st *state, h *virtualHost, now time.Time) *judgement {
	j := &judgement{of: st, epoch: h.Revocations.Epoch(), until: now.Add(time.Minute)}
	chains, err := h.trust.verify(p.presented)
	if err != nil {
		j.err = err
		return j
	}
	for chain, found := range h.Revocations.Each(chains, now) {
		current := found.Until
		if j.err = found.Err; j.err != nil {
			if !current.IsZero() && current.Before(j.until) {
				j.until = current
			}
			continue
		}
		if j.proof, j.err = st.certificates.Prove(ctx, chain); j.err != nil {
			continue
		}
		j.partner, j.chain = st.config.Partners.ByID(j.proof.Partner), chain
		j.until = chain[0].NotAfter
		if !current.IsZero() && current.Before(j.until) {
			j.until = current
		}
		for _, c := range chain {
			if c.NotAfter.Before(j.until) {
				j.until = c.NotAfter
			}
		}
		return j
	}
	return j
}

// listener accepts connections, finishes their handshakes side by side, and hands over only those that are verified.
type listener struct {
	name     string
	accepted net.Listener
}

// handshaker is the net.Listener behind a listener: Accept returns connections whose handshake is done.
type handshaker struct {
	g     *Gateway
	name  string
	inner net.Listener
	ready chan net.Conn
	done  chan struct{}
	stop  context.CancelFunc
	ctx   context.Context
	once  sync.Once
	err   error
	wg    sync.WaitGroup
	room  chan struct{} // one element per connection that is open

	mu      sync.Mutex
	shaking map[*countedConn]struct{} // whose handshakes are under way
}

func (g *Gateway) newListener(name string, raw net.Listener) *listener {
	ctx, stop := context.WithCancel(context.Background())
	h := &handshaker{
		g: g, name: name, ready: make(chan net.Conn), done: make(chan struct{}), ctx: ctx, stop: stop,
		shaking: map[*countedConn]struct{}{}, room: make(chan struct{}, g.state.Load().limits.Connections),
	}
	h.inner = &proxyproto.Listener{
		Listener:          raw,
		ReadHeaderTimeout: g.state.Load().limits.Handshake,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			st := g.state.Load()
			if l := st.listeners[name]; l != nil && l.proxied(o.Upstream) {
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.SKIP, nil
		},
	}
	go h.run()
	return &listener{name: name, accepted: h}
}

func (h *handshaker) run() {
	defer close(h.done)
	for {
		select {
		case h.room <- struct{}{}:
		case <-h.ctx.Done():
			h.err = net.ErrClosed
			return
		}
		conn, err := h.inner.Accept()
		if err != nil {
			<-h.room
			var temporary net.Error
			if h.ctx.Err() == nil && errors.As(err, &temporary) && !errors.Is(err, net.ErrClosed) {
				h.g.services.Log.Warn("accept failed", zap.String("listener", h.name), zap.Error(err))
				select {
				case <-time.After(50 * time.Millisecond): // out of file descriptors: wait for some to be closed
					continue
				case <-h.ctx.Done():
				}
			}
			h.err = err
			return
		}
		h.wg.Go(func() { h.handshake(&countedConn{Conn: conn, leave: h.leave}) })
		h.g.metrics.connections.WithLabelValues(h.name).Inc()
	}
}

// leave gives a closed connection's place back.
func (h *handshaker) leave() {
	h.g.metrics.connections.WithLabelValues(h.name).Dec()
	<-h.room
}

func (h *handshaker) handshake(raw *countedConn) {
	st := h.g.state.Load()
	l := st.listeners[h.name]
	if l == nil { // the listener was taken out of the configuration: nobody is let in
		raw.Close()
		return
	}
	if !h.begin(raw, st.limits.Handshake) {
		raw.Close()
		return
	}
	conn := tls.Server(raw, l.tls) // which has every virtual host's
	err := conn.Handshake()
	h.end(raw)
	if err != nil {
		h.failed(raw, l, refusedLeaf(conn, err), err)
		linger(raw)
		return
	}
	l.hosts.greeted.note(raw.RemoteAddr(), true, time.Now())
	cs := conn.ConnectionState()
	h.g.metrics.handshakes.WithLabelValues(h.name, tls.VersionName(cs.Version), cs.CurveID.String()).Inc()
	if cs.NegotiatedProtocol == acmeTLS { // an authority has seen what it came for; nothing is said on it
		conn.Close()
		return
	}
	select {
	case h.ready <- conn:
	case <-h.ctx.Done():
		conn.Close()
	}
}

// begin gives a handshake its time, and lets Close end it; it is false where that has been. A context would do both, for the
// price of a goroutine and a timer each time.
func (h *handshaker) begin(raw *countedConn, limit time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return false
	}
	h.shaking[raw] = struct{}{}
	return raw.SetDeadline(time.Now().Add(limit)) == nil
}

func (h *handshaker) end(raw *countedConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.shaking, raw)
	if h.ctx.Err() == nil {
		raw.SetDeadline(time.Time{}) //nolint:errcheck // a connection that is broken says so when it is used
	}
}

// interrupt ends the handshakes that are under way.
func (h *handshaker) interrupt() {
	h.stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	for raw := range h.shaking {
		raw.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // broken is as good
	}
}

// lingerTime is how long a refused client has to read why.
const lingerTime = 500 * time.Millisecond

// linger closes a refused connection so that the alert arrives: what the client has sent by then is read, because closing
// over unread bytes makes the kernel reset the connection, and the client loses the alert.
func linger(c *countedConn) {
	defer c.Close()
	tcp, ok := c.Conn.(*net.TCPConn)
	if proxied, is := c.Conn.(*proxyproto.Conn); is {
		tcp, ok = proxied.TCPConn()
	}
	if !ok || tcp.CloseWrite() != nil {
		return
	}
	if c.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		io.CopyN(io.Discard, c, 64<<10) //nolint:errcheck // best effort
	}
}

// refusedLeaf returns the certificate that was presented in a handshake that failed; nil where there was none. Whoever presented it
// need not have its key.
func refusedLeaf(conn *tls.Conn, err error) *x509.Certificate {
	presented := conn.ConnectionState().PeerCertificates
	if unverified, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		presented = unverified.UnverifiedCertificates
	}
	if len(presented) == 0 {
		return nil
	}
	return presented[0]
}

func (h *handshaker) failed(raw net.Conn, l *listenerState, leaf *x509.Certificate, err error) {
	if h.ctx.Err() != nil {
		return // we are closing
	}
	reason := handshakeReason(err)
	h.g.metrics.handshakeFailures.WithLabelValues(h.name, reason).Inc()
	if reason == "disconnected" {
		return // port scans and health checks of load balancers
	}
	l.hosts.greeted.note(raw.RemoteAddr(), false, time.Now())
	fields := []zap.Field{zap.String("listener", h.name), zap.String("reason", reason), zap.Stringer("address", addrOf(raw.RemoteAddr()))}
	if leaf != nil {
		fields = append(fields, zap.String("certificate", fmt.Sprintf("%x", sha256.Sum256(leaf.Raw)))) // as in audit records
	}
	h.g.services.Log.Warn("handshake failed", fields...)
}

// handshakeReason names what ended a handshake: a closed set.
func handshakeReason(err error) string {
	var (
		invalid x509.CertificateInvalidError
		unknown x509.UnknownAuthorityError
		record  tls.RecordHeaderError
		remote  *net.OpError
		netErr  net.Error
	)
	switch {
	case errors.As(err, &netErr) && netErr.Timeout():
		return "timeout"
	case errors.Is(err, revocation.ErrRevoked):
		return "revoked"
	case errors.Is(err, revocation.ErrUnknown):
		return "revocation_unknown"
	case errors.As(err, &unknown):
		return "unknown_ca"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().Before(invalid.Cert.NotBefore):
		return "not_yet_valid"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "expired"
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "wrong_usage"
	case errors.As(err, &invalid):
		return "bad_certificate"
	case errors.As(err, &record):
		return "not_tls"
	case errors.As(err, &remote) && remote.Op == "remote error":
		return "refused_by_client"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &remote):
		return "disconnected"
	// crypto/tls has no types for these; TestHandshakeReasons meets each of them.
	case strings.Contains(err.Error(), "no certificates configured"):
		return "no_such_host"
	case strings.Contains(err.Error(), "didn't provide a certificate"):
		return "no_certificate"
	case strings.Contains(err.Error(), "unsupported versions"), strings.Contains(err.Error(), "no cipher suite"), strings.Contains(err.Error(), "no key exchanges"):
		return "no_common_parameters"
	case strings.Contains(err.Error(), "unsupported application protocols"):
		return "no_common_protocol"
	default:
		return "other"
	}
}

// Accept implements net.Listener.
func (h *handshaker) Accept() (net.Conn, error) {
	select {
	case c := <-h.ready:
		return c, nil
	case <-h.done:
		return nil, h.err
	}
}

// Close implements net.Listener. It waits for the handshakes in flight to give up.
func (h *handshaker) Close() error {
	var err error
	h.once.Do(func() {
		h.interrupt()
		err = h.inner.Close()
		<-h.done
		h.wg.Wait()
	})
	return err
}

// Addr implements net.Listener.
func (h *handshaker) Addr() net.Addr { return h.inner.Addr() }

// countedConn leaves its listener's count once, when it is closed.
type countedConn struct {
	net.Conn
	once  sync.Once
	leave func()
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.leave)
	return err
}
