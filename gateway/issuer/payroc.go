package issuer

import (
	"context"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// payroc is Payroc's API of payments. Its calls are carried as a forward's are, but card data crosses this leg sealed under a
// session that the gateway makes with Payroc's public key (header SessionId): a card that was held takes the place of the
// token that stands for it [11], and members that a route declares under submit are {"data","iv"} objects on both legs.
// Source: docs.payroc.com, payments; profile `rain` of vault/envelope.
//
// Its answers hold masked numbers alone, so no member of an answer can be declared. A card number in one is ErrGuard.
type payroc struct{ forward }

var _ Issuer = (*payroc)(nil)

func newPayroc(Config) (Issuer, error) { return &payroc{}, nil }

// Serves implements Issuer.
func (*payroc) Serves(op policy.Operation) bool {
	return op == policy.Forward || op == policy.ForwardSubmit
}

// Do implements Issuer.
func (p *payroc) Do(ctx context.Context, up Upstream, c *Call) (*exchange.Result, error) {
	with, err := p.submitted(c)
	if err != nil {
		return nil, err
	}
	if c.Forward.Paid {
		card, err := p.card(c)
		if err != nil {
			return nil, err
		}
		with = append(with, vault.Replacement{Pointer: c.Forward.Call.Token, JSON: card})
	}
	header := p.header(c)
	if c.Session != nil {
		header = append(header, Header{"SessionId", c.Session.IssuerPreamble()})
	}
	return p.carry(ctx, up, c, with, header)
}

// card is the held card as a paymentMethod of type "card". Number and expiry are always there; a security code and a name
// where the page asked for them.
func (*payroc) card(c *Call) ([]byte, error) {
	if c.Session == nil || c.Forward.Body == nil { // and so no place for it
		return nil, vault.ErrOpen
	}
	card := []byte(`{"type":"card","cardDetails":{`)
	for _, f := range []struct {
		name     string
		field    vault.Field
		optional bool
	}{{"encryptedPan", vault.FieldPAN, false}, {"encryptedCvc", vault.FieldCVC, true}} {
		in, ok := c.Session.Held(f.field)
		if !ok && f.optional {
			continue
		}
		out, err := c.Session.Reseal(f.field, vault.ToIssuer, in) // of one that was not held: it does not open
		if err != nil {
			return nil, err
		}
		card = append(appendSealed(card, f.name, out), ',')
	}
	expiry, ok := c.Session.HeldDetail(vault.DetailExpiry)
	if !ok {
		return nil, vault.ErrOpen
	}
	card = exchange.AppendMember(card, "expiryDate", expiry)
	if name, ok := c.Session.HeldDetail(vault.DetailName); ok {
		card = exchange.AppendMember(append(card, ','), "cardholderName", name)
	}
	return append(card, `}}`...), nil
}
