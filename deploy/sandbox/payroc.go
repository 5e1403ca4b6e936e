package sandbox

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
)

// PayrocConfig describes a sandbox of Payroc's API of payments.
type PayrocConfig struct {
	// APIKey is the Bearer token that each request must carry.
	APIKey string
	// Key opens the sessions: callers wrap their secrets for its public half. 2048 bits or more.
	Key *rsa.PrivateKey
	// Terminals are the ids of the processing terminals that take payments. At least one.
	Terminals []string
	// TLS serves HTTPS with this configuration, HTTP/2 included. Nil serves plain HTTP.
	TLS *tls.Config
	// KeepRequests bounds what Requests returns: the oldest go first. Zero means 1024, a negative number none.
	KeepRequests int
}

// Payroc is a sandbox of Payroc's API of payments, as far as Cardstile calls it: it takes payments whose card is sealed under a session, and no
// others. Faults are set for a processing terminal; a card number that they give away is the one that is paid with. Safe for concurrent use.
//
// Errors are problems (RFC 7807). A payment moves no money. How a sealed card stands in it is Cardstile's and this issuer's agreement: Payroc
// does not publish one.
type Payroc struct {
	*issuer
	apiKey    [sha256.Size]byte
	key       *rsa.PrivateKey
	terminals []string
	replays   replays
	payments  []Payment // oldest first, under issuer.mu
}

// Payment is a payment that was taken, and what proves which card arrived. Digests hide a number or a code from nobody who tries them all.
type Payment struct {
	ID       string
	Terminal string
	// CardNumber has the first six digits and the last four.
	CardNumber string
	// NumberSHA256 is of the digits of the card number, CodeSHA256 of those of the security code: zero where none came.
	NumberSHA256, CodeSHA256 [sha256.Size]byte
	// ExpiryDate is MMYY.
	ExpiryDate string
	// CardholderName is empty where none came.
	CardholderName string
}

// NewPayroc checks the configuration and returns an issuer that does not listen yet.
func NewPayroc(config PayrocConfig) (*Payroc, error) {
	switch {
	case config.APIKey == "":
		return nil, errors.New("sandbox: payroc: API key is empty")
	case config.Key == nil || config.Key.N.BitLen() < 2048:
		return nil, errors.New("sandbox: payroc: key is missing or shorter than 2048 bits")
	case len(config.Terminals) == 0 || slices.Contains(config.Terminals, ""):
		return nil, errors.New("sandbox: payroc: a processing terminal is missing")
	}
	base, err := newIssuer("payroc", nil, config.TLS, config.KeepRequests)
	if err != nil {
		return nil, err
	}
	p := &Payroc{issuer: base, apiKey: sha256.Sum256([]byte(config.APIKey)), key: config.Key, terminals: slices.Clone(config.Terminals)}
	base.api = p
	return p, nil
}

// PublicKey returns the key for which callers wrap session secrets.
func (p *Payroc) PublicKey() *rsa.PublicKey { return &p.key.PublicKey }

// Payments returns the payments that were taken, oldest first.
func (p *Payroc) Payments() []Payment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.payments)
}

// take keeps a payment under an id of its own, which it returns.
func (p *Payroc) take(payment Payment) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	payment.ID = rand.Text()[:10]
	p.payments = append(p.payments, payment)
	return payment.ID
}

// masked returns what may be shown of a card number.
func masked(number string) string {
	return number[:6] + strings.Repeat("*", len(number)-10) + number[len(number)-4:]
}
