package issuer

import (
	"context"
	"fmt"
	"net/http"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// gnosisPay is Gnosis Pay's API of cards that their holders bring. The number crosses it under a session that the gateway
// makes for each upload with the issuer's public key (member encryptedKey). Source: the clients that Gnosis Pay publishes;
// profile `gnosis` of vault/envelope.
type gnosisPay struct{}

var _ Issuer = (*gnosisPay)(nil)

func newGnosisPay(Config) (Issuer, error) { return &gnosisPay{}, nil }

// Serves implements Issuer.
func (*gnosisPay) Serves(op policy.Operation) bool { return op == policy.CardVerify }

// Do implements Issuer.
func (g *gnosisPay) Do(ctx context.Context, up Upstream, c *Call) (*exchange.Result, error) {
	if c.Session == nil {
		return nil, vault.ErrOpen
	}
	number, err := c.Session.Reseal(vault.FieldPAN, vault.ToIssuer, c.Upload)
	if err != nil {
		return nil, err // the client's ciphertext, not the issuer's answer
	}
	body := exchange.AppendMember([]byte{'{'}, "encryptedPan", number.Data)
	body = exchange.AppendMember(append(body, ','), "encryptedKey", c.Session.IssuerPreamble())
	body = exchange.AppendMember(append(body, ','), "iv", number.IV)
	var res Response
	if err := up.RoundTrip(ctx, &Request{
		Call: "verify", Method: http.MethodPost, Path: "/api/v1/cards/verify", Header: gnosisUser(c), Body: append(body, '}'), Changes: true,
	}, &res); err != nil {
		return nil, err
	}
	if res.Status/100 != 2 {
		return nil, g.statusError(&res)
	}
	var card struct {
		ID string `json:"cardId"`
	}
	if err := exchange.DecodeLenient(res.Body, &card); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if !reference(card.ID) {
		return nil, fmt.Errorf("%w: cardId", ErrAnswer)
	}
	if vault.HoldsPANString(card.ID) {
		return nil, ErrGuard
	}
	return &exchange.Result{Card: exchange.Card{ID: card.ID}}, nil
}

// gnosisUser says whose card it is, by the issuer's own name for its user, where the directory has one. Published clients show the
// user's token there, which stays with us; the header is ours.
func gnosisUser(c *Call) []Header {
	if c.User == "" {
		return nil
	}
	return []Header{{"Cardstile-User", c.User}}
}

// statusError tells a card that the issuer does not take (422) from a request that it does not: but for the number, all of
// the request is ours, and so is what a 400 is about.
func (*gnosisPay) statusError(res *Response) error {
	if res.Status == http.StatusUnprocessableEntity {
		return fmt.Errorf("%w: status %d", ErrBadCard, res.Status)
	}
	return statusError(res)
}

// maxReferenceBytes is the longest name of a card that we hand on.
const maxReferenceBytes = 128

// reference reports whether an issuer's name for a card is one: 1 to 128 visible ASCII characters.
func reference(id string) bool {
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return id != "" && len(id) <= maxReferenceBytes
}
