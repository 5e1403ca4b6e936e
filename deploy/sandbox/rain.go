package sandbox

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// RainConfig describes a sandbox of the Rain issuing API.
type RainConfig struct {
	// APIKey is the key that each request must carry in the header Api-Key.
	APIKey string
	// Key opens the sessions: callers wrap their secrets for its public half. 1024 bits or more, for Rain publishes 1024.
	Key *rsa.PrivateKey
	// Cards and Users are copied. A card's UserID must be among the users, or empty.
	Cards []Card
	Users []User
	// TLS serves HTTPS with this configuration, HTTP/2 included. Nil serves plain HTTP.
	TLS *tls.Config
	// KeepRequests bounds what Requests returns: the oldest go first. Zero means 1024, a negative number none.
	KeepRequests int
}

// Rain is a sandbox of the Rain issuing API, as far as Cardstile calls it. Safe for concurrent use.
//
// Errors are {"error","message"} in JSON. Each answer also carries headers of the issuer's own (X-Request-Id, Set-Cookie), which are nobody
// else's business: they must not reach a caller of Cardstile.
type Rain struct {
	apiKey   [sha256.Size]byte
	key      *rsa.PrivateKey
	users    map[string]User
	secure   bool
	server   *http.Server
	closed   chan struct{} // closed by Shutdown; ends what waits
	close    func()
	observer observer

	mu     sync.Mutex
	cards  map[string]Card
	faults map[string]Fault
}

// maxBodyBytes bounds the body of a request; a longer one is answered 413.
const maxBodyBytes = 64 << 10

// NewRain checks the configuration and returns an issuer that does not listen yet.
func NewRain(config RainConfig) (*Rain, error) {
	if config.APIKey == "" {
		return nil, errors.New("sandbox: rain: API key is empty")
	}
	if config.Key == nil || config.Key.N.BitLen() < 1024 {
		return nil, errors.New("sandbox: rain: key is missing or shorter than 1024 bits")
	}
	if t := config.TLS; t != nil && len(t.Certificates) == 0 && t.GetCertificate == nil {
		return nil, errors.New("sandbox: rain: TLS without a certificate")
	}
	r := &Rain{
		apiKey: sha256.Sum256([]byte(config.APIKey)),
		key:    config.Key,
		secure: config.TLS != nil,
		users:  make(map[string]User, len(config.Users)),
		cards:  make(map[string]Card, len(config.Cards)),
		faults: make(map[string]Fault),
		closed: make(chan struct{}),
	}
	r.close = sync.OnceFunc(func() { close(r.closed) })
	r.observer.keep = config.KeepRequests
	if config.KeepRequests == 0 {
		r.observer.keep = 1024
	}
	if err := r.load(config); err != nil {
		return nil, err
	}
	r.server = &http.Server{
		Handler:           r.Handler(),
		TLSConfig:         config.TLS.Clone(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second,
		IdleTimeout:       2 * time.Minute,
		// net/http logs what clients send (a TLS error quotes addresses, a panic its value): this package logs nothing.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return r, nil
}

func (r *Rain) load(config RainConfig) error {
	for _, u := range config.Users {
		if _, twice := r.users[u.ID]; twice || u.ID == "" {
			return fmt.Errorf("sandbox: rain: user %q: id is empty or there twice", u.ID)
		}
		r.users[u.ID] = u
	}
	for _, c := range config.Cards {
		card, err := c.check()
		if err != nil {
			return fmt.Errorf("sandbox: rain: card %q: %w", c.ID, err)
		}
		if _, twice := r.cards[c.ID]; twice {
			return fmt.Errorf("sandbox: rain: card %q is there twice", c.ID)
		}
		if _, known := r.users[c.UserID]; !known && c.UserID != "" {
			return fmt.Errorf("sandbox: rain: card %q: no user %q", c.ID, c.UserID)
		}
		r.cards[c.ID] = card
	}
	return nil
}

// Handler returns the API, for a server of the caller's own.
func (r *Rain) Handler() http.Handler { return http.HandlerFunc(r.serve) }

// Serve answers on ln, which it closes, until Shutdown; then it returns nil. It may be called for several listeners.
func (r *Rain) Serve(ln net.Listener) error {
	serve := r.server.Serve
	if r.secure {
		serve = func(ln net.Listener) error { return r.server.ServeTLS(ln, "", "") }
	}
	if err := serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("sandbox: rain: %w", err)
	}
	return nil
}

// Shutdown stops listening, ends the answers that a fault holds back, and waits for the others until ctx ends; then it cuts them off and
// returns ctx's error. The issuer cannot be started again.
func (r *Rain) Shutdown(ctx context.Context) error {
	r.close()
	if err := r.server.Shutdown(ctx); err != nil {
		return errors.Join(err, r.server.Close())
	}
	return nil
}

// PublicKey returns the key for which callers wrap session secrets.
func (r *Rain) PublicKey() *rsa.PublicKey { return &r.key.PublicKey }

// SetFault makes the calls for a card (or for a user, by the user's id) fail from now on. The zero Fault ends that.
func (r *Rain) SetFault(id string, f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults[id] = f
}

// PIN returns a card's PIN as the issuer knows it now: "" where none is set or there is no such card.
func (r *Rain) PIN(cardID string) string {
	c, _ := r.card(cardID)
	return c.PIN
}

// Status returns a card's status as the issuer knows it now, "" where there is no such card.
func (r *Rain) Status(cardID string) string {
	c, _ := r.card(cardID)
	return c.Status
}

// Requests returns the requests that arrived, oldest first: the last KeepRequests of them.
func (r *Rain) Requests() []Seen { return r.observer.requests() }

// Count returns how many requests of one kind arrived since the start, refused ones included.
func (r *Rain) Count(call Call) int { return r.observer.count(call) }

// Total returns how many requests arrived since the start, whatever they asked for.
func (r *Rain) Total() int { return r.observer.total() }

func (r *Rain) card(id string) (Card, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.cards[id]
	return c, ok
}

// update changes a card under the lock and returns it as it is then.
func (r *Rain) update(id string, change func(*Card)) Card {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.cards[id]
	change(&c)
	r.cards[id] = c
	return c
}

func (r *Rain) fault(id string, call Call) Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.faults[id]; f.applies(call) {
		return f
	}
	return Fault{}
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return fmt.Sprintf("%x", b)
}
