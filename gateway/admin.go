package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/cardstile/cardstile/gateway/exchange"
)

// newAdminServer answers operators: /metrics, /healthz (the process runs) and /readyz (answers can be released, or what
// stands in the way). It only reads.
func (g *Gateway) newAdminServer() *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", g.services.Metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, []byte(`{"status":"ok"}`)) })
	mux.HandleFunc("GET /readyz", g.readyz)
	return &http.Server{
		Handler:           g.authorized(mux),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          serverLog(g.services.Log, AdminListener),
	}
}

// authorized requires the bearer where one is configured [19], and on loopback a name of loopback: a page whose name an attacker
// made stand for it is not answered (DNS rebinding).
func (g *Gateway) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && addrPort(local.String()).IsLoopback() && !loopbackName(r.Host) {
			writeJSON(w, http.StatusMisdirectedRequest, []byte(`{"status":"misdirected"}`))
			return
		}
		if bearer := g.state.Load().config.Admin.Bearer; bearer != "" && !carries(r, bearer) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeJSON(w, http.StatusUnauthorized, []byte(`{"status":"unauthorized"}`))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// loopbackName reports whether a Host header names this machine alone.
func loopbackName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && a.IsLoopback()
}

// carries compares digests, so that the time tells nothing about the bearer, its length included.
func carries(r *http.Request, bearer string) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(bearer))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

func (g *Gateway) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	err := g.Ready(ctx)
	switch waiting := g.waiting(); {
	case err != nil:
		writeJSON(w, http.StatusServiceUnavailable, statusJSON("unready", "problems", append(strings.Split(err.Error(), "\n"), waiting...)))
	case len(waiting) > 0:
		writeJSON(w, http.StatusOK, statusJSON("ready", "waiting", waiting))
	default:
		writeJSON(w, http.StatusOK, []byte(`{"status":"ready"}`))
	}
}

// statusJSON is a status with lines beside it.
func statusJSON(status, name string, lines []string) []byte {
	b := fmt.Appendf(nil, `{"status":%q,%q:[`, status, name)
	for i, line := range lines {
		if i > 0 {
			b = append(b, ',')
		}
		b = exchange.AppendString(b, line)
	}
	return append(b, `]}`...)
}

const readyTimeout = 2 * time.Second

// readiness is the gauge.
func (g *Gateway) readiness() float64 {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	if g.Ready(ctx) != nil {
		return 0
	}
	return 1
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header()["Cache-Control"] = noStore
	w.Header()["Content-Type"] = jsonOnly
	w.WriteHeader(status)
	w.Write(append(body, '\n')) // a prober that went away
}

// serverLog takes what net/http has to say about connections, at debug level: it can quote what a client sent.
func serverLog(l *zap.Logger, listener string) *log.Logger {
	std, err := zap.NewStdLogAt(l.With(zap.String("listener", listener)), zapcore.DebugLevel)
	if err != nil {
		panic("gateway: internal error: " + err.Error()) // the level is a constant
	}
	return std
}

// WithholdStandardLog says of the process's standard log how long its lines are, and nothing else: net/http writes there what an
// issuer sent unasked, card numbers included.
func WithholdStandardLog(l *zap.Logger) {
	log.SetFlags(0)
	log.SetOutput(withheld{l})
}

// withheld takes the standard log's lines.
type withheld struct{ log *zap.Logger }

func (w withheld) Write(line []byte) (int, error) {
	w.log.Warn("a library's line is withheld: it can quote what a peer sent", zap.Int("bytes", len(line)))
	return len(line), nil
}
