package sandbox

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
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

// Rain is a sandbox of the Rain issuing API, as far as Cardstile calls it. Faults are set for a card or for a user. Safe for concurrent use.
//
// Errors are {"error","message"} in JSON. Each answer also carries headers of the issuer's own (X-Request-Id, Set-Cookie), which are nobody
// else's business: they must not reach a caller of Cardstile.
type Rain struct {
	*issuer
	apiKey [sha256.Size]byte
	key    *rsa.PrivateKey
	users  map[string]User
}

// NewRain checks the configuration and returns an issuer that does not listen yet.
func NewRain(config RainConfig) (*Rain, error) {
	if config.APIKey == "" {
		return nil, errors.New("sandbox: rain: API key is empty")
	}
	if config.Key == nil || config.Key.N.BitLen() < 1024 {
		return nil, errors.New("sandbox: rain: key is missing or shorter than 1024 bits")
	}
	base, err := newIssuer("rain", config.Cards, config.TLS, config.KeepRequests)
	if err != nil {
		return nil, err
	}
	r := &Rain{issuer: base, apiKey: sha256.Sum256([]byte(config.APIKey)), key: config.Key, users: make(map[string]User, len(config.Users))}
	base.api = r
	for _, u := range config.Users {
		if _, twice := r.users[u.ID]; twice || u.ID == "" {
			return nil, fmt.Errorf("sandbox: rain: user %q: id is empty or there twice", u.ID)
		}
		r.users[u.ID] = u
	}
	for _, c := range config.Cards {
		if _, known := r.users[c.UserID]; !known && c.UserID != "" {
			return nil, fmt.Errorf("sandbox: rain: card %q: no user %q", c.ID, c.UserID)
		}
	}
	return r, nil
}

// PublicKey returns the key for which callers wrap session secrets.
func (r *Rain) PublicKey() *rsa.PublicKey { return &r.key.PublicKey }

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

// silent returns where the HTTP servers of all issuers log to. net/http logs what clients send (a TLS error quotes addresses, a panic its
// value): this package logs nothing.
func silent() *log.Logger { return log.New(io.Discard, "", 0) }

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return fmt.Sprintf("%x", b)
}
