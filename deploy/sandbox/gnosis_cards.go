package sandbox

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
)

// GnosisCardsConfig describes a sandbox of Gnosis Pay's API of cards that their holders bring.
type GnosisCardsConfig struct {
	// APIKeys has, by each key that a request may carry as its Bearer token, the name of whom it speaks for. At least one.
	APIKeys map[string]string
	// Key opens the uploads. 2048 bits or more.
	Key *rsa.PrivateKey
	// TLS serves HTTPS with this configuration, HTTP/2 included. Nil serves plain HTTP.
	TLS *tls.Config
	// KeepRequests bounds what Requests returns: the oldest go first. Zero means 1024, a negative number none.
	KeepRequests int
}

// GnosisCards is a sandbox of Gnosis Pay's API of cards that their holders bring. Faults are set for whom an API key speaks for; a card number
// that they give away is the one that was sent. Safe for concurrent use.
//
// A card is taken once, whoever brings it: a second time it is refused, and so is a number with a wrong check digit (422 both). What cannot be
// opened is a bad request (400).
type GnosisCards struct {
	*issuer
	owners map[[sha256.Size]byte]string // by the digest of the API key
	key    *rsa.PrivateKey
	cards  []UploadedCard // oldest first, under issuer.mu
}

// UploadedCard is a card that was taken, and what proves that it arrived. A digest hides a number from nobody who tries them all.
type UploadedCard struct {
	ID    string
	Owner string // whom the API key speaks for
	// CardNumber has the first six digits and the last four; NumberSHA256 is of all digits.
	CardNumber   string
	NumberSHA256 [sha256.Size]byte
}

// NewGnosisCards checks the configuration and returns an issuer that does not listen yet.
func NewGnosisCards(config GnosisCardsConfig) (*GnosisCards, error) {
	if len(config.APIKeys) == 0 {
		return nil, errors.New("sandbox: gnosis cards: an API key is missing")
	}
	if config.Key == nil || config.Key.N.BitLen() < 2048 {
		return nil, errors.New("sandbox: gnosis cards: key is missing or shorter than 2048 bits")
	}
	base, err := newIssuer("gnosis cards", nil, config.TLS, config.KeepRequests)
	if err != nil {
		return nil, err
	}
	g := &GnosisCards{issuer: base, key: config.Key, owners: make(map[[sha256.Size]byte]string, len(config.APIKeys))}
	base.api = g
	for key, owner := range config.APIKeys {
		if key == "" || owner == "" {
			return nil, errors.New("sandbox: gnosis cards: an API key or its owner is empty")
		}
		g.owners[sha256.Sum256([]byte(key))] = owner
	}
	return g, nil
}

// PublicKey returns the key for which callers seal.
func (g *GnosisCards) PublicKey() *rsa.PublicKey { return &g.key.PublicKey }

// Cards returns the cards that were taken, oldest first.
func (g *GnosisCards) Cards() []UploadedCard {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.cards)
}

// take keeps a card under an id of its own, which it returns. It is not ok where the number was taken before.
func (g *GnosisCards) take(owner, number string) (id string, ok bool) {
	digest := sha256.Sum256([]byte(number))
	g.mu.Lock()
	defer g.mu.Unlock()
	if slices.ContainsFunc(g.cards, func(c UploadedCard) bool { return c.NumberSHA256 == digest }) {
		return "", false
	}
	id = randomUUID()
	g.cards = append(g.cards, UploadedCard{ID: id, Owner: owner, CardNumber: masked(number), NumberSHA256: digest})
	return id, true
}

// randomUUID returns a UUID of version 4.
func randomUUID() string {
	var b [32]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmtUUID(b)
}

// CallVerify is the call of GnosisCards: POST /api/v1/cards/verify.
const CallVerify Call = "verify"

var gnosisCalls = []endpoint[*GnosisCards]{{"POST", "/api/v1/cards/verify", CallVerify, (*GnosisCards).postVerify}}

// gnosisErrors are the usual messages by status.
var gnosisErrors = map[int]string{
	400: "Bad request", 401: "Unauthorized", 404: "Not found", 405: "Method not allowed", 413: "Payload too large", 415: "Unsupported media type",
	500: "Internal server error",
}

// failure has its message in the member that clients read for the status: "message" for 401, "error" for all others.
func (*GnosisCards) failure(status int, message string) *answer {
	member := "error"
	if status == http.StatusUnauthorized {
		member = "message"
	}
	return &answer{status: status, body: map[string]any{member: cmp.Or(message, gnosisErrors[status])}}
}

// route authenticates and carries out the call.
func (g *GnosisCards) route(req *http.Request) (Call, respond) {
	e, _, known := find(gnosisCalls, req)
	return e.call, func(body []byte) (*answer, Fault) {
		key, ok := bearer(req.Header)
		owner, has := g.owners[sha256.Sum256([]byte(key))]
		switch {
		case !ok || !has:
			return g.failure(401, ""), Fault{}
		case !known:
			return g.failure(404, ""), Fault{}
		case e.call == CallOther:
			return g.failure(405, ""), Fault{}
		case !isJSON(req, true):
			return g.failure(415, ""), Fault{}
		}
		r := request{Request: req, account: owner}
		var in GnosisUpload
		if decode(body, &in) == nil {
			r.card.PAN, _ = in.open(g.key)
		}
		return g.perform(e.call, r.card, func() *answer { return e.do(g, r) }, owner)
	}
}

// postVerify takes the card of a request, which has no number where none could be opened.
func (g *GnosisCards) postVerify(req request) *answer {
	number := req.card.PAN
	if !digits(number, 12, 19) {
		a := g.failure(400, "Invalid card data")
		a.body["details"] = "encryptedPan, encryptedKey and iv: cannot be opened as a card number"
		return a
	}
	if checkDigit(number[:len(number)-1]) != number[len(number)-1:] {
		return g.failure(422, "Invalid card number")
	}
	id, ok := g.take(req.account, number)
	if !ok {
		return g.failure(422, "Card already exists")
	}
	return success(map[string]any{"cardId": id})
}
