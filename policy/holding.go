package policy

import "slices"

// Holding says whose a card is: the answer of a holder directory. It is
// immutable once returned, and shared between exchanges.
type Holding struct {
	Card        string   // the reference that callers use
	Issuer      string   // the issuer's name in the configuration
	IssuerCard  string   // the issuer's own id of the card
	Partners    []string // ids of the partners that may touch it; empty: none may
	Users       []string // its users inside those partners
	Environment string   // "test" or "production" [5]
}

// heldBy reports whether the card belongs to the partner and, where a user is
// proven, to that user too. Nobody holds a card as anonymous.
func (h *Holding) heldBy(partner *Partner, user string) bool {
	if partner == nil || !slices.Contains(h.Partners, partner.ID) {
		return false
	}
	return user == "" || slices.Contains(h.Users, user)
}

// User is a cardholder, as a holder directory knows them. It is immutable once
// returned.
type User struct {
	ID         string
	Partner    string   // the partner whose customer this is
	Issuer     string   // the issuer's name in the configuration
	IssuerUser string   // the issuer's own id of the user
	Cards      []string // references of the user's cards
}
