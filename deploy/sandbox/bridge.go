package sandbox

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"
)

// BridgeConfig describes a sandbox of Bridge's card API.
type BridgeConfig struct {
	// APIKey is the key that each request must carry in the header Api-Key, reveals excepted.
	APIKey string
	// Cards are the card accounts, and are copied. A card's ID is the id of the card account, its UserID that of the customer, which is required.
	Cards []Card
	// TLS serves HTTPS with this configuration, HTTP/2 included. Nil serves plain HTTP.
	TLS *tls.Config
	// KeepRequests bounds what Requests returns: the oldest go first. Zero means 1024, a negative number none.
	KeepRequests int
}

// Bridge is a sandbox of Bridge's card API as Cardstile calls it: the issuer that answers card details in clear. Faults are set for a card
// account or for a customer. Safe for concurrent use.
//
// An ephemeral key is for one card account and one nonce, lives five minutes, and is gone with the first reveal that presents it, whatever that
// reveal proves. A reveal that Fault500 or FaultPANInError stands in for presents nothing. Freezing is for payments: the details of a frozen
// card are revealed as before, which is our assumption.
type Bridge struct {
	*issuer
	apiKey  [sha256.Size]byte
	replays replays
	keys    map[[sha256.Size]byte]ephemeral // by the key's digest, under issuer.mu; removed when presented
}

// ephemeral is what an ephemeral key was minted for.
type ephemeral struct {
	card   string
	nonce  string
	minted time.Time
}

// ephemeralTTL is how long an ephemeral key may be presented.
const ephemeralTTL = 5 * time.Minute

// NewBridge checks the configuration and returns an issuer that does not listen yet.
func NewBridge(config BridgeConfig) (*Bridge, error) {
	if config.APIKey == "" {
		return nil, errors.New("sandbox: bridge: API key is empty")
	}
	base, err := newIssuer("bridge", config.Cards, config.TLS, config.KeepRequests)
	if err != nil {
		return nil, err
	}
	for _, c := range config.Cards {
		if c.UserID == "" || strings.ContainsAny(c.UserID, "/?#%") {
			return nil, fmt.Errorf("sandbox: bridge: card %q: customer id is empty or does not fit into a path", c.ID)
		}
	}
	b := &Bridge{issuer: base, apiKey: sha256.Sum256([]byte(config.APIKey)), keys: make(map[[sha256.Size]byte]ephemeral)}
	base.api = b
	return b, nil
}

// Status returns a card account's status as the issuer answers it now: "active", "frozen", "canceled" or "inactive", and "" where there is no
// such card account.
func (b *Bridge) Status(cardAccountID string) string {
	c, _ := b.card(cardAccountID)
	return bridgeStatus[c.Status]
}

// bridgeStatus has Bridge's words for those of Card.Status.
var bridgeStatus = map[string]string{"active": "active", "locked": "frozen", "canceled": "canceled", "notActivated": "inactive"}

func (b *Bridge) keep(key string, e ephemeral) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys[sha256.Sum256([]byte(key))] = e
}

// peek returns the card that a key is for, zero for a key that is not known.
func (b *Bridge) peek(key string) Card {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cards[b.keys[sha256.Sum256([]byte(key))].card]
}

// take removes a key, so that it is presented once, and returns what it was for. It is not ok where the key is not known or has expired.
func (b *Bridge) take(key string) (e ephemeral, ok bool) {
	digest := sha256.Sum256([]byte(key))
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok = b.keys[digest]
	delete(b.keys, digest)
	return e, ok && time.Since(e.minted) < ephemeralTTL
}
