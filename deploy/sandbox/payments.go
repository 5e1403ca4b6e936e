package sandbox

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base32"
	"encoding/json"
	"errors"
	"slices"
)

// PaymentsConfig describes a sandbox of the API behind PaymentsGate's protected calls.
type PaymentsConfig struct {
	// APIKeys has, by each key that a request may carry as its Bearer token, the id of the account that it speaks for. At least one.
	APIKeys map[string]string
	// Cards are copied. The first, which is required, is the one that payins are paid to.
	Cards []Card
	// TLS serves HTTPS with this configuration, HTTP/2 included. Nil serves plain HTTP.
	TLS *tls.Config
	// KeepRequests bounds what Requests returns: the oldest go first. Zero means 1024, a negative number none.
	KeepRequests int
}

// Payments is a sandbox of the API behind PaymentsGate's protected calls. Faults are set for a deal or for an account. Safe for concurrent use.
//
// Each account begins with two deals, DealWithCard and DealWithBank, and sees its own and those that nobody made. A payin is paid to the card, whose number is
// answered in clear, and every other deal to a bank account. Deals move no money: the wallet stays as it is. The members of its answers other
// than a deal's credentials are our assumptions.
type Payments struct {
	*issuer
	accounts map[[sha256.Size]byte]string // by the digest of the API key
	payee    Card
	replays  replays
	deals    map[string][]deal // by account, oldest first, under issuer.mu
}

// deal is a payment as the issuer keeps it.
type deal struct {
	id, kind, status string
	amount           json.Number
	currency         string // as the caller named it; may be empty
}

// dealsAtStart is how many deals an account has before it makes any.
const dealsAtStart = 2

// NewPayments checks the configuration and returns an issuer that does not listen yet.
func NewPayments(config PaymentsConfig) (*Payments, error) {
	if len(config.APIKeys) == 0 || len(config.Cards) == 0 {
		return nil, errors.New("sandbox: payments: an API key or a card is missing")
	}
	base, err := newIssuer("payments", config.Cards, config.TLS, config.KeepRequests)
	if err != nil {
		return nil, err
	}
	p := &Payments{
		issuer:   base,
		accounts: make(map[[sha256.Size]byte]string, len(config.APIKeys)),
		payee:    config.Cards[0],
		deals:    make(map[string][]deal, len(config.APIKeys)),
	}
	base.api = p
	for key, account := range config.APIKeys {
		if key == "" || account == "" {
			return nil, errors.New("sandbox: payments: an API key or its account is empty")
		}
		p.accounts[sha256.Sum256([]byte(key))] = account
		p.deals[account] = []deal{
			{id: DealWithCard(account), kind: "payin", status: "completed", amount: "25.00", currency: "EUR"},
			{id: DealWithBank(account), kind: "payout", status: "completed", amount: "10.00", currency: "EUR"},
		}
	}
	return p, nil
}

// DealWithCard returns the id of the deal of an account whose credentials are the first card's.
func DealWithCard(accountID string) string { return derived("deal with card", accountID) }

// DealWithBank returns the id of the deal of an account whose credentials are a bank account's.
func DealWithBank(accountID string) string { return derived("deal with bank", accountID) }

// Deals returns how many deals an account made since the start, without those that it begins with.
func (p *Payments) Deals(accountID string) int {
	return max(len(p.dealsOf(accountID))-dealsAtStart, 0)
}

func (p *Payments) dealsOf(account string) []deal {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.deals[account])
}

// deal finds a deal of an account. An id that nobody has is a payin of whoever asks, so that anybody can try the API without
// looking an id up first; another account's is not there.
func (p *Payments) deal(account, id string) (deal, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for owner, deals := range p.deals {
		if n := slices.IndexFunc(deals, func(d deal) bool { return d.id == id }); n >= 0 {
			return deals[n], owner == account
		}
	}
	if id == "" {
		return deal{}, false
	}
	return deal{id: id, kind: "payin", status: "completed", amount: "25.00", currency: "EUR"}, true
}

// add keeps a new deal under an id of its own, which it returns with it.
func (p *Payments) add(account string, d deal) deal {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.id = rand.Text()
	p.deals[account] = append(p.deals[account], d)
	return d
}

// derived returns an id that is the same in every process: 26 characters in the form of rand.Text. Three quarters of its alphabet are letters,
// so that nobody who looks for card numbers finds one in it.
func derived(what, account string) string {
	sum := sha256.Sum256([]byte(what + "\x00" + account))
	return base32.StdEncoding.EncodeToString(sum[:])[:26]
}
