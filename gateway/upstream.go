package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// This file is the only one that knows net/http's client. Another client would be another issuer.Upstream.

// Issuer is one configured issuer: its API, its address, our credential, and what we send it to set up a session.
type Issuer struct {
	Name    string
	Adapter issuer.Issuer

	// SessionKey is the issuer's public key with the format of its sessions; nil where the API has none.
	SessionKey *vault.IssuerKey

	base       *url.URL
	header     string
	prefix     string
	credential string
	partners   map[string]string // credentials of partners that have their own [3]
	accounts   map[string]string // and of service accounts
	shared     bool              // several act under one credential
	timeout    time.Duration
	maxBytes   int
	max        int
	transport  *http.Transport
	breaker    *gobreaker.TwoStepCircuitBreaker[struct{}]
	metrics    atomic.Pointer[metrics]
	retired    atomic.Bool // whether another configuration is in force
}

// IssuerConfig is what an Issuer is made of.
type IssuerConfig struct {
	Name       string
	Kind       issuer.Kind
	URL        *url.URL
	SessionKey *vault.IssuerKey

	// Credential is our API key, PartnerCredentials those that partners bring instead, by partner id [3].
	Credential         string
	PartnerCredentials map[string]string

	// AccountCredentials are those of single service accounts, by account id.
	AccountCredentials map[string]string

	// Shared says that several partners, or service accounts, may act under one credential: to the API they are one.
	Shared bool

	// TLS verifies the issuer; nil only for plain HTTP. Pins, if there are any, are the public keys of which its certificate's must
	// be one, besides.
	TLS  *tls.Config
	Pins []policy.Fingerprint

	// Destinations are where connections may go. Their Named is the URL's.
	Destinations Destinations

	Timeout    time.Duration // of one exchange's requests, which run side by side; default 10 s
	Concurrent int           // exchanges; default Limits.ConcurrentPerIssuer
	MaxBytes   int           // of one answer; default 256 KiB
}

// NewIssuer returns an issuer. Nothing is dialled.
func NewIssuer(c IssuerConfig) (*Issuer, error) {
	adapter, err := c.Kind.New(issuer.Config{})
	if err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 256 << 10
	}
	// HTTP/1.1 alone: a tenth or more off the CPU of a forwarded exchange over HTTP/2 (deploy/bench), and no frame of a peer's can make the
	// transport send a change a second time.
	c.Destinations.Named = namedAddr(c.URL)
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	is := &Issuer{
		Name: c.Name, Adapter: adapter, SessionKey: c.SessionKey, base: c.URL, header: c.Kind.CredentialHeader,
		prefix: c.Kind.CredentialPrefix, credential: c.Credential, partners: c.PartnerCredentials, accounts: c.AccountCredentials, shared: c.Shared,
		timeout: c.Timeout, maxBytes: c.MaxBytes, max: c.Concurrent,
		transport: &http.Transport{
			DialContext:            c.Destinations.Dialer(min(c.Timeout, 3*time.Second)).DialContext,
			TLSClientConfig:        pinned(c.TLS, c.Pins),
			TLSHandshakeTimeout:    min(c.Timeout, 5*time.Second),
			Protocols:              http1,
			DisableCompression:     true,
			MaxIdleConns:           256,
			MaxIdleConnsPerHost:    256,
			IdleConnTimeout:        60 * time.Second,
			MaxResponseHeaderBytes: 32 << 10,
			// No Proxy: the environment does not decide where card data goes.
		},
	}
	is.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: c.Name, Timeout: 5 * time.Second, MaxRequests: 3, Interval: 10 * time.Second,
		ReadyToTrip: func(n gobreaker.Counts) bool {
			called := n.TotalSuccesses + n.TotalFailures
			return called >= 20 && n.TotalFailures*2 >= called
		},
		IsSuccessful: func(err error) bool { return err == nil },
		IsExcluded:   func(err error) bool { return errors.Is(err, errNotCalled) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if m := is.metrics.Load(); m != nil && !is.retired.Load() {
				m.circuit(c.Name, to == gobreaker.StateOpen)
			}
		},
	})
	return is, nil
}

// open reports whether the circuit lets nothing through.
func (is *Issuer) open() bool { return is.breaker.State() == gobreaker.StateOpen }

func (is *Issuer) concurrent(l Limits) int {
	if is.max > 0 {
		return is.max
	}
	return l.ConcurrentPerIssuer
}

// errNotCalled: an exchange ended before the issuer was called, which says nothing about the issuer.
var errNotCalled = errors.New("issuer not called")

// allow asks the circuit breaker for a place, before anything is spent. The verdict is to be told what became of it, once.
func (is *Issuer) allow(m *metrics) (verdict func(error), ok bool) {
	is.metrics.CompareAndSwap(nil, m)
	verdict, err := is.breaker.Allow()
	return verdict, err == nil
}

// retire closes connections that nobody uses, now and when the exchanges end that still run.
func (is *Issuer) retire() {
	is.retired.Store(true)
	is.transport.CloseIdleConnections()
}

// errOutcomeUnknown: a change was sent, and what became of it is not known [17].
var errOutcomeUnknown = errors.New("the issuer's answer to a change was lost")

// do performs a call under the partner's credential and tells what is known of a change that got no answer.
func (is *Issuer) do(ctx context.Context, x *running, p proven, c *issuer.Call) (*exchange.Result, error) {
	up := upstream{issuer: is, credential: is.prefix + is.credentialOf(p), trace: x.trace.parent(), exchange: x.request.ID, metrics: x.g.metrics, certified: x.certified()}
	ctx, cancel := context.WithTimeout(ctx, is.timeout)
	defer cancel()
	result, err := is.Adapter.Do(ctx, &up, c)
	if up.changed.Load() && leavesOpen(err) {
		err = fmt.Errorf("%w: %w", errOutcomeUnknown, err)
	}
	if errors.Is(err, issuer.ErrGuard) {
		x.g.metrics.egressBlocked.WithLabelValues(is.Name).Inc()
	}
	if err == nil && result.Forward != nil && result.Forward.Status >= 500 {
		x.verdict(issuer.ErrFailed) // the caller gets to read it; the circuit counts it
	} else {
		x.verdict(sick(err))
	}
	x.verdict = nil
	return result, err
}

// credentialOf is our credential for whom an exchange is made: the account's, the partner's, or our own [3].
func (is *Issuer) credentialOf(p proven) string {
	if own, ok := is.accounts[p.account]; ok {
		return own
	}
	if p.partner != nil {
		if own, ok := is.partners[p.partner.ID]; ok {
			return own
		}
	}
	return is.credential
}

// leavesOpen reports whether an error tells nothing about a change that was sent. A 5xx is one of those: it says that
// something went wrong, not before or after what (RFC 9110 section 15.6).
func leavesOpen(err error) bool {
	for _, e := range []error{issuer.ErrTimeout, issuer.ErrLost, issuer.ErrTooLarge, issuer.ErrFailed, issuer.ErrAnswer, issuer.ErrGuard} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// sick returns the errors that speak of the issuer's health: not those about one card, one PIN or one caller.
func sick(err error) error {
	for _, e := range []error{issuer.ErrUnreachable, issuer.ErrTimeout, issuer.ErrLost, issuer.ErrFailed} {
		if errors.Is(err, e) {
			return err
		}
	}
	return nil
}

// upstream is an issuer.Upstream for one exchange.
type upstream struct {
	issuer     *Issuer
	credential string
	trace      string
	exchange   string
	certified  []issuer.Header // what the issuer is told of the caller's certificate
	metrics    *metrics

	changed atomic.Bool // whether a request that changes something may have been sent; a call's requests run side by side
}

var _ issuer.Upstream = (*upstream)(nil)

// RoundTrip implements issuer.Upstream.
func (u *upstream) RoundTrip(ctx context.Context, req *issuer.Request, res *issuer.Response) error {
	begin := time.Now()
	err := u.roundTrip(ctx, req, res)
	u.metrics.issuerDuration.WithLabelValues(u.issuer.Name, req.Call, resultName(err, res.Status)).Observe(time.Since(begin).Seconds())
	if u.issuer.retired.Load() {
		u.issuer.transport.CloseIdleConnections() // which takes them back whenever another request begins
	}
	return err
}

func (u *upstream) roundTrip(ctx context.Context, req *issuer.Request, res *issuer.Response) error {
	// The transport writes in a goroutine of its own.
	var sent atomic.Bool
	r, err := u.request(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}), req)
	if err != nil {
		return err
	}
	answer, err := u.issuer.transport.RoundTrip(r)
	if req.Changes && sent.Load() {
		u.changed.Store(true)
	}
	if err != nil {
		return classify(ctx, err, sent.Load())
	}
	defer answer.Body.Close()
	res.Status = answer.StatusCode
	res.ContentType = answer.Header.Get("Content-Type")
	res.RetryAfter = retryAfter(answer.Header.Get("Retry-After"))
	if req.Shape != nil && (req.AnyStatus || answer.StatusCode/100 == 2) {
		return u.readClear(ctx, answer, req.Shape, res)
	}
	body := bytes.NewBuffer(make([]byte, 0, bodyHint(answer.ContentLength)))
	if n, err := body.ReadFrom(io.LimitReader(answer.Body, int64(u.issuer.maxBytes)+1)); err != nil {
		return classify(ctx, err, true)
	} else if n > int64(u.issuer.maxBytes) {
		return issuer.ErrTooLarge
	}
	res.Body = body.Bytes()
	return nil
}

// retryAfter is a number of seconds, at most a day (RFC 9110 section 10.2.3). A date is none: clocks differ.
func retryAfter(text string) int {
	seconds, err := strconv.ParseUint(text, 10, 17)
	if err != nil || seconds > 86400 {
		return 0
	}
	return int(seconds)
}

// readClear has the vault read an answer that may hold card data in clear: nothing here sees its bytes [12].
func (u *upstream) readClear(ctx context.Context, answer *http.Response, shape *vault.Shape, res *issuer.Response) (err error) {
	body := &watched{r: answer.Body}
	res.Clear, err = vault.ReadBody(body, answer.ContentLength, shape)
	switch {
	case body.err != nil:
		return classify(ctx, body.err, true)
	case errors.Is(err, vault.ErrBodyTooLarge):
		return issuer.ErrTooLarge
	case err != nil:
		return fmt.Errorf("%w: %w", issuer.ErrAnswer, err)
	}
	return nil
}

// watched keeps the error that ended a reader too early.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// bodyHint is how much room an answer's body gets at first: what it announces, within reason.
func bodyHint(announced int64) int {
	if announced < 0 || announced > 16<<10 {
		return 1 << 10
	}
	return int(announced) + bytes.MinRead
}

// request builds the issuer's request: nothing of the caller's is copied into it.
func (u *upstream) request(ctx context.Context, req *issuer.Request) (*http.Request, error) {
	target := *u.issuer.base
	target.Path, target.RawPath = joinPath(u.issuer.base, req.Path)
	target.RawQuery = req.Query
	r := (&http.Request{
		Method: req.Method, URL: &target, Host: target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, 8),
	}).WithContext(ctx)
	r.Header["Accept"] = jsonOnly
	r.Header["User-Agent"] = userAgent
	r.Header["Traceparent"] = []string{u.trace}
	r.Header["X-Request-Id"] = []string{u.exchange}
	if u.issuer.header != "" && !req.Anonymous {
		r.Header[u.issuer.header] = []string{u.credential}
	}
	for _, h := range req.Header {
		r.Header[h.Name] = []string{h.Value}
	}
	for _, h := range u.certified {
		r.Header[h.Name] = []string{h.Value}
	}
	if req.Body != nil {
		r.Header["Content-Type"] = jsonOnly
		r.ContentLength = int64(len(req.Body))
		// No GetBody: the transport cannot send it a second time.
		r.Body = io.NopCloser(bytes.NewReader(req.Body))
	}
	if req.Message != nil {
		r.Header["Content-Type"] = jsonOnly
		r.ContentLength = int64(req.Message.Len())
		r.Body = req.Message.Reader() // which destroys the message; an empty one sends nothing
	}
	if r.Body == nil && (req.Changes || req.Once) {
		// The transport repeats a request without a body when a connection that it used before closes; one with a body that it
		// cannot get again it does not. Nothing is sent of an empty one.
		r.Body = io.NopCloser(bytes.NewReader(nil))
	}
	return r, nil
}

var (
	jsonOnly  = []string{"application/json"}
	userAgent = []string{"cardstile"}
)

// joinPath joins an escaped path to the issuer's base.
func joinPath(base *url.URL, escaped string) (path, raw string) {
	raw = strings.TrimSuffix(base.EscapedPath(), "/") + escaped
	path, err := url.PathUnescape(raw)
	if err != nil {
		panic("gateway: internal error: an issuer's path is not escaped")
	}
	return path, raw
}

// classify tells what a failed round trip leaves open.
func classify(ctx context.Context, err error, sent bool) error {
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, errDestination):
		return fmt.Errorf("%w: %w", issuer.ErrUnreachable, errDestination)
	case errors.Is(err, errPin):
		return fmt.Errorf("%w: %w", issuer.ErrUnreachable, errPin)
	case errors.As(err, &op) && op.Op == "dial" && ctx.Err() == nil:
		return fmt.Errorf("%w: %s", issuer.ErrUnreachable, class(err))
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err() // the caller went away, or another fetch of the same call failed
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		if !sent {
			return fmt.Errorf("%w: no connection in time", issuer.ErrUnreachable)
		}
		return issuer.ErrTimeout
	case sent:
		return fmt.Errorf("%w: %s", issuer.ErrLost, class(err))
	default:
		return fmt.Errorf("%w: %s", issuer.ErrUnreachable, class(err))
	}
}

// class is what may be said of a transport's error. net/http's own words quote what the issuer sent, card numbers too.
func class(err error) string {
	var (
		op          *net.OpError
		dns         *net.DNSError
		certificate *tls.CertificateVerificationError
		alert       tls.AlertError
	)
	switch {
	case errors.As(err, &certificate):
		return "its certificate: " + certificate.Err.Error()
	case errors.As(err, &alert):
		return "it refused our handshake: " + alert.Error()
	case errors.As(err, &dns):
		return "no such host, or no answer from the name server"
	case errors.As(err, &op):
		var number syscall.Errno
		if errors.As(op.Err, &number) {
			return op.Op + ": " + number.Error()
		}
		return op.Op + " failed"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "the connection ended"
	}
	return "what it sent is no HTTP"
}

// resultName is a round trip's result in metrics: a closed set.
func resultName(err error, status int) string {
	switch {
	case errors.Is(err, issuer.ErrTimeout):
		return "timeout"
	case errors.Is(err, errDestination):
		return "destination"
	case errors.Is(err, errPin):
		return "pin"
	case errors.Is(err, issuer.ErrUnreachable):
		return "unreachable"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, issuer.ErrLost):
		return "lost"
	case err != nil:
		return "error"
	case status/100 == 2:
		return "ok"
	case status/100 == 3:
		return "redirect"
	case status/100 == 4:
		return "refused"
	default:
		return "failed"
	}
}
