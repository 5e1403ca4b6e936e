package gateway

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/vault"
)

// This file is the only one that knows net/http's server: it turns its requests into exchange.Request and writes
// exchange.Response back. Another server would be another file like it.

func (g *Gateway) newServer(l *listener) *http.Server {
	limits := g.state.Load().limits
	return &http.Server{
		Handler:                      g.handler(l.name),
		ReadHeaderTimeout:            limits.Read,
		ReadTimeout:                  limits.Read,
		WriteTimeout:                 limits.Write,
		IdleTimeout:                  limits.Idle,
		MaxHeaderBytes:               limits.HeaderBytes,
		DisableGeneralOptionsHandler: true, // OPTIONS * is no path of ours
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReadFrameSize: 16 << 10, MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 1 << 18},
		ErrorLog:                     serverLog(g.services.Log, l.name),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			cs := c.(*tls.Conn).ConnectionState()
			return context.WithValue(ctx, connectionKey{}, newConnection(&cs))
		},
	}
}

func (g *Gateway) handler(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0) {
			// net/http takes chunks over a Content-Length beside them, and over none in HTTP/1.0. Whoever stands before us may have counted
			// otherwise: what follows on the connection is nobody's request (RFC 9112 section 6.1).
			w.Header().Set("Connection", "close")
		}
		if malformed(r) {
			g.answer(w, exchange.BadRequest)
			return
		}
		l := g.state.Load().listeners[name]
		if l == nil {
			g.noRoute(w, r)
			return
		}
		h, refused := g.find(l, r, connectionOf(r))
		if refused != "" {
			g.misdirected(w, r, name, refused)
			return
		}
		if dropClaims(r.Header) {
			g.metrics.claims.WithLabelValues(name).Inc()
		}
		if !cleanPath(r.URL.Path) {
			g.noRoute(w, r)
			return
		}
		h.mux.ServeHTTP(w, r)
	})
}

// cleanPath reports whether ServeMux would take a path as it is; it answers others with a redirect to a cleaned one,
// which would carry a credential to a place that its sender did not name.
func cleanPath(p string) bool {
	return strings.HasPrefix(p, "/") && !strings.Contains(p, "//") && !strings.Contains(p, "/./") && !strings.Contains(p, "/../") &&
		!strings.HasSuffix(p, "/.") && !strings.HasSuffix(p, "/..")
}

// malformed reports what net/http takes in HTTP/2 and refuses in HTTP/1.1: several lengths, a path that is a URL (RFC 9113 section
// 8.3.1), and a host that is more than host and port.
func malformed(r *http.Request) bool {
	return len(r.Header["Content-Length"]) > 1 || strings.ContainsAny(r.Host, "/\\?#@ ") ||
		r.ProtoMajor == 2 && r.RequestURI != "*" && r.Method != http.MethodConnect && !strings.HasPrefix(r.RequestURI, "/")
}

// noRoute answers for a path that no face serves.
func (g *Gateway) noRoute(w http.ResponseWriter, _ *http.Request) { g.answer(w, exchange.NoRoute) }

// answer answers for no face.
func (g *Gateway) answer(w http.ResponseWriter, kind exchange.Kind) {
	var out exchange.Response
	face.FailProblem(kind, &out)
	writeResponse(w, newID(), &out)
}

// buffers hold request bodies and answers. They never hold card data in clear: faces of that kind are read by the vault.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// maxPooled is the capacity, in bytes, beyond which a buffer is left to the garbage collector.
const maxPooled = 64 << 10

func release(b *[]byte) {
	if cap(*b) <= maxPooled {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// ServeHTTP implements http.Handler: one exchange.
func (p *path) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, answer := buffers.Get().(*[]byte), buffers.Get().(*[]byte)
	defer release(body)
	defer release(answer)
	out := exchange.Response{Body: (*answer)[:0]}
	defer func() { out.Clear.Destroy() }() // after a panic too
	id := newID()

	ep := p.methods[r.Method]
	if ep == nil && p.preflight(w, r, id) {
		return
	}
	if ep == nil { // HEAD is none of ours: it would spend a token for nothing
		any := p.any()
		any.Fail(exchange.MethodNotAllowed, exchange.Place{}, &out)
		any.usual().outcomes[exchange.MethodNotAllowed].Inc()
		out.Allow = p.allow
		writeResponse(w, id, &out)
		return
	}
	if ep.Static != nil {
		p.static(w, r, id, ep, &out)
		return
	}
	x := &running{
		g: p.g, st: p.st, l: p.l, host: p.host, ep: ep, counted: ep.usual(), trace: traceOf(r.Header.Get("Traceparent")), request: requestOf(r, id),
	}
	x.mark = x.request.Received
	ep.cors(w.Header(), x.request.Origin)
	x.peer = connectionOf(r).peer
	defer p.recovered(w, x)
	if left := x.strange(r.Context()); left > 0 { // counted, not recorded: a record is what is being protected
		w.Header().Set("Connection", "close")
		x.fail(x.limited("unproven", left), &out)
		writeResponse(w, id, &out)
		return
	}
	err := x.read(r, body)
	if ep.LateBody && errors.Is(err, vault.ErrBody) {
		x.late, x.request.Unread = bodyFailure(err, ep), true
		x.request.Clear, err = vault.ReadBody(http.NoBody, 0, ep.Shape)
	}
	if err != nil {
		w.Header().Set("Connection", "close") // what is left of the body is not read
		x.refuse(r.Context(), bodyFailure(err, ep), &out)
	} else {
		x.exchange(r.Context(), &out)
	}
	x.burn(errors.Join(writeResponse(w, id, &out), r.Context().Err()))
	if len(out.Body) <= maxBuffered {
		*answer = out.Body
	} else {
		*answer = nil
	}
}

// requestOf is a request without its body.
func requestOf(r *http.Request, id string) exchange.Request {
	return exchange.Request{
		ID: id, Method: r.Method, Path: r.URL.Path, RawQuery: r.URL.RawQuery, Header: r.Header, Origin: one(r.Header, "Origin"),
		Address: addrPort(r.RemoteAddr), Received: time.Now(), Param: r.PathValue,
	}
}

// static answers for an endpoint that is no exchange.
func (p *path) static(w http.ResponseWriter, r *http.Request, id string, ep *endpoint, out *exchange.Response) {
	ep.cors(w.Header(), one(r.Header, "Origin"))
	request := requestOf(r, id)
	var err error
	if request.Body, err = readBody(r, nil, min(ep.MaxBody, p.st.limits.BodyBytes)); err != nil {
		w.Header().Set("Connection", "close") // what is left of the body is not read
		ep.Fail(bodyFailure(err, ep).Kind, exchange.Place{}, out)
	} else {
		out.Status = ep.Status
		ep.Static(&request, out)
	}
	writeResponse(w, id, out)
}

// maxBuffered is the length, in bytes, of the longest answer that net/http copies into a buffer of its own before Write
// returns. A longer one may still be read by HTTP/2's writer when the stream has been reset: its buffer is not used again.
const maxBuffered = 4 << 10

// any is one of the path's endpoints, to answer for all of them.
func (p *path) any() *endpoint {
	for _, ep := range p.methods {
		return ep
	}
	panic("gateway: internal error: a path without methods")
}

// recovered answers for a bug. Its value may quote anything, so that only its type and place are logged.
func (p *path) recovered(w http.ResponseWriter, x *running) {
	value := recover()
	if value == nil {
		return
	}
	p.g.services.Log.Error("panic", zap.String("exchange", x.request.ID), zap.String("type", fmt.Sprintf("%T", value)), zap.String("stack", string(debug.Stack())))
	out := exchange.Response{}
	defer x.done()
	kind := exchange.Internal
	if x.phase == audit.PhaseOutcome { // a change may have been sent [17]
		kind = exchange.OutcomeUnknown
	}
	x.refuse(context.Background(), exchange.Fail(kind, "panic"), &out)
	x.burn(writeResponse(w, x.request.ID, &out))
}

// read reads the request's body: into buf, or where the endpoint has a shape for it, inside the vault.
func (x *running) read(r *http.Request, buf *[]byte) (err error) {
	max := min(x.ep.MaxBody, x.st.limits.BodyBytes)
	if x.ep.Shape == nil {
		*buf, err = readBody(r, (*buf)[:0], max)
		x.request.Body = *buf
		return err
	}
	if r.ContentLength > int64(max) {
		return errBodyTooLarge
	}
	x.request.Clear, err = vault.ReadBody(http.MaxBytesReader(nil, r.Body, int64(max)), r.ContentLength, x.ep.Shape)
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) || errors.Is(err, vault.ErrBodyTooLarge) {
		return errBodyTooLarge
	}
	return err
}

var errBodyTooLarge = errors.New("request body too large")

// readBody reads a whole body of at most max bytes into buf.
func readBody(r *http.Request, buf []byte, max int) ([]byte, error) {
	if r.ContentLength > int64(max) {
		return buf, errBodyTooLarge
	}
	if r.ContentLength == 0 || r.Body == http.NoBody {
		return buf, nil
	}
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > max:
			return buf, errBodyTooLarge
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return buf, err
		}
	}
}

func bodyFailure(err error, ep *endpoint) *exchange.Failure {
	if errors.Is(err, errBodyTooLarge) {
		if ep.MaxBody == 0 {
			return exchange.Fail(exchange.BadRequest, "body")
		}
		return exchange.Fail(exchange.TooLarge, "body_too_large")
	}
	if errors.Is(err, vault.ErrBody) {
		return &exchange.Failure{Kind: exchange.BadRequest, At: exchange.Place{In: "body"}, Reason: "body", Err: err}
	}
	return exchange.Fail(exchange.BadRequest, "body_incomplete")
}

// Values of headers that every answer carries, shared: net/http does not change them.
var (
	noStore = []string{"no-store"}
	forEver = []string{"public, max-age=31536000, immutable"} // RFC 8246
	noSniff = []string{"nosniff"}
	types   = map[string][]string{"application/json": {"application/json"}, "application/problem+json": {"application/problem+json"}}
)

// writeResponse writes an answer as it stands. Nothing is compressed: an answer may hold a secret beside what a caller
// chose (BREACH). An error is a caller who did not take it: there is nobody left to tell.
func writeResponse(w http.ResponseWriter, id string, out *exchange.Response) error {
	h := w.Header()
	h["X-Request-Id"] = []string{id}
	h["Cache-Control"] = noStore
	if out.Immutable {
		h["Cache-Control"] = forEver
	}
	h["X-Content-Type-Options"] = noSniff
	if known := types[out.ContentType]; known != nil {
		h["Content-Type"] = known
	} else if out.ContentType != "" {
		h["Content-Type"] = []string{out.ContentType}
	}
	length := len(out.Body)
	if out.Clear != nil {
		length = out.Clear.Len()
	}
	if out.Status != http.StatusNoContent {
		h["Content-Length"] = []string{strconv.Itoa(length)}
	}
	for _, field := range out.Header {
		if field.Name == "Cache-Control" || field.Name == "X-Content-Type-Options" || field.Name == "Content-Type" { // in place of ours
			delete(h, field.Name)
		}
		h[field.Name] = append(h[field.Name], field.Value)
	}
	if out.RetryAfter > 0 {
		h["Retry-After"] = []string{strconv.Itoa(out.RetryAfter)}
	}
	if out.Allow != "" {
		h["Allow"] = []string{out.Allow}
	}
	w.WriteHeader(out.Status)
	if out.Clear != nil {
		_, err := out.Clear.WriteTo(w)
		out.Clear.Destroy()
		return err
	}
	_, err := w.Write(out.Body)
	return err
}

// newID returns 128 random bits in hex: a request id.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func addrPort(s string) netip.Addr {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// addrOf prints an address without its port.
func addrOf(a net.Addr) fmt.Stringer {
	if a == nil {
		return netip.Addr{}
	}
	return addrPort(a.String())
}
