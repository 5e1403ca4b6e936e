package sandbox

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// issuer is what each issuer of this package has beside its own API: a server, cards, faults, and the memory of what arrived.
// The issuers embed it. Safe for concurrent use.
type issuer struct {
	name     string // in errors and in its cookie
	api      api
	secure   bool
	server   *http.Server
	closed   chan struct{} // closed by Shutdown; ends what waits
	close    func()
	observer observer

	mu     sync.Mutex
	cards  map[string]Card
	faults map[string]Fault
}

// api is what an issuer has of its own.
type api interface {
	// route names the call that a request asks for, and returns what answers it. It is asked before the request is authenticated.
	route(*http.Request) (Call, respond)
	// failure is an error in the issuer's shape. An empty message is the usual one for the status.
	failure(status int, message string) *answer
}

// respond answers a request whose body is this one, and returns the fault that spoils the answer on its way.
type respond func(body []byte) (*answer, Fault)

// maxBodyBytes bounds the body of a request; a longer one is answered 413.
const maxBodyBytes = 64 << 10

// newIssuer returns an issuer that does not listen yet and has no API yet: the caller sets it before anything else.
func newIssuer(name string, cards []Card, t *tls.Config, keepRequests int) (*issuer, error) {
	if t != nil && len(t.Certificates) == 0 && t.GetCertificate == nil {
		return nil, fmt.Errorf("sandbox: %s: TLS without a certificate", name)
	}
	i := &issuer{
		name:   name,
		secure: t != nil,
		closed: make(chan struct{}),
		cards:  make(map[string]Card, len(cards)),
		faults: make(map[string]Fault),
	}
	i.close = sync.OnceFunc(func() { close(i.closed) })
	i.observer.keep = keepRequests
	if keepRequests == 0 {
		i.observer.keep = 1024
	}
	for _, c := range cards {
		card, err := c.check()
		if err != nil {
			return nil, fmt.Errorf("sandbox: %s: card %q: %w", name, c.ID, err)
		}
		if _, twice := i.cards[c.ID]; twice {
			return nil, fmt.Errorf("sandbox: %s: card %q is there twice", name, c.ID)
		}
		i.cards[c.ID] = card
	}
	i.server = &http.Server{
		Handler:           i.Handler(),
		TLSConfig:         t.Clone(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          silent(),
	}
	return i, nil
}

// Handler returns the API, for a server of the caller's own.
func (i *issuer) Handler() http.Handler { return http.HandlerFunc(i.serve) }

// serve answers one request: count and note it, carry it out, and deliver the answer as well as the fault lets it.
func (i *issuer) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, maxBodyBytes+1))
	call, respond := i.api.route(req)
	i.observer.request(req, body[:min(len(body), maxBodyBytes)])
	i.observer.call(call)

	var a *answer
	var fault Fault
	switch {
	case err != nil:
		a = i.api.failure(400, "")
	case len(body) > maxBodyBytes:
		a = i.api.failure(413, "")
	default:
		a, fault = respond(body)
	}
	i.deliver(w, req, a, fault)
}

// Serve answers on ln, which it closes, until Shutdown; then it returns nil. It may be called for several listeners.
func (i *issuer) Serve(ln net.Listener) error {
	serve := i.server.Serve
	if i.secure {
		serve = func(ln net.Listener) error { return i.server.ServeTLS(ln, "", "") }
	}
	if err := serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("sandbox: %s: %w", i.name, err)
	}
	return nil
}

// Shutdown stops listening, ends the answers that a fault holds back, and waits for the others until ctx ends; then it cuts them off and
// returns ctx's error. The issuer cannot be started again.
func (i *issuer) Shutdown(ctx context.Context) error {
	i.close()
	if err := i.server.Shutdown(ctx); err != nil {
		return errors.Join(err, i.server.Close())
	}
	return nil
}

// SetFault makes the calls for a card fail from now on, or for its holder or for whatever else the issuer knows by an id; the fault of the
// narrower one counts where there are two. The zero Fault ends that.
func (i *issuer) SetFault(id string, f Fault) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.faults[id] = f
}

// Requests returns the requests that arrived, oldest first: the last KeepRequests of them.
func (i *issuer) Requests() []Seen { return i.observer.requests() }

// Count returns how many requests of one kind arrived since the start, refused ones included.
func (i *issuer) Count(call Call) int { return i.observer.count(call) }

// Total returns how many requests arrived since the start, whatever they asked for.
func (i *issuer) Total() int { return i.observer.total() }

func (i *issuer) card(id string) (Card, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c, ok := i.cards[id]
	return c, ok
}

// update changes a card under the lock and returns it as it is then.
func (i *issuer) update(id string, change func(*Card)) Card {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.cards[id]
	change(&c)
	i.cards[id] = c
	return c
}

// fault returns the fault of the first id that has one for the call.
func (i *issuer) fault(call Call, ids ...string) Fault {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, id := range ids {
		if f := i.faults[id]; f.applies(call) {
			return f
		}
	}
	return Fault{}
}

// perform carries out a call for ids, the narrowest first, unless their fault stands in for it. The card is the one whose number a fault
// gives away.
func (i *issuer) perform(call Call, c Card, do func() *answer, ids ...string) (*answer, Fault) {
	f := i.fault(call, ids...)
	a := f.refusal(c, i.api.failure)
	if a == nil {
		a = do()
	}
	f.leak(a, c)
	return a, f
}
