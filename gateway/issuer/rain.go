package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// rain is Rain's issuing API. Card details and PINs cross it under a session that the gateway makes for each exchange
// with Rain's public key (header SessionId). Source: docs.rain.xyz, Issuing API; profile `rain` of vault/envelope.
type rain struct{}

var _ Issuer = (*rain)(nil)

func newRain(Config) (Issuer, error) { return &rain{}, nil }

// Serves implements Issuer.
func (*rain) Serves(op policy.Operation) bool {
	switch op {
	case policy.CardProfile, policy.CardReveal, policy.CardStatus, policy.CardProvision, policy.PINReveal, policy.PINSet:
		return true
	default:
		return false
	}
}

// Do implements Issuer. The answers that a call needs do not depend on one another and are fetched side by side; what
// they hold is resealed afterwards, one after the other, because a session belongs to one goroutine.
func (r *rain) Do(ctx context.Context, up Upstream, c *Call) (*exchange.Result, error) {
	switch {
	case c.Has(policy.PINSet):
		return r.setPIN(ctx, up, c)
	case c.Has(policy.CardStatus):
		return r.setStatus(ctx, up, c)
	}
	var (
		card      rainCard
		user      rainUser
		secrets   rainSecrets
		pin       rainPIN
		processor rainProcessor
	)
	profile, details := c.Has(policy.CardProfile), c.Has(policy.CardReveal)
	var fetches []func(context.Context) error
	if profile || details {
		fetches = append(fetches, func(ctx context.Context) error { return r.card(ctx, up, c, &card) })
	}
	if profile && c.User != "" {
		fetches = append(fetches, func(ctx context.Context) error { return r.user(ctx, up, c, &user) })
	}
	if details {
		fetches = append(fetches, func(ctx context.Context) error { return r.secrets(ctx, up, c, &secrets) })
	}
	if c.Has(policy.PINReveal) {
		fetches = append(fetches, func(ctx context.Context) error { return r.pin(ctx, up, c, &pin) })
	}
	if c.Has(policy.CardProvision) {
		fetches = append(fetches, func(ctx context.Context) error { return r.processor(ctx, up, c, &processor) })
	}
	if err := together(ctx, fetches); err != nil {
		return nil, err
	}

	res := &exchange.Result{Provision: exchange.Provision{ID: processor.ProcessorCardID, Secret: processor.TimeBasedSecret}}
	var err error
	if profile || details {
		res.Card = card.canonical(c.Reference)
		res.Card.Holder = strings.TrimSpace(user.FirstName + " " + user.LastName)
		if err := guard(&res.Card); err != nil {
			return nil, err
		}
	}
	if details && c.PAN {
		if res.PAN, err = c.Session.Reseal(vault.FieldPAN, vault.ToClient, secrets.EncryptedPAN.sealed()); err != nil {
			return nil, answerError("encryptedPan", err)
		}
	}
	if details && c.CVC {
		if res.CVC, err = c.Session.Reseal(vault.FieldCVC, vault.ToClient, secrets.EncryptedCVC.sealed()); err != nil {
			return nil, answerError("encryptedCvc", err)
		}
	}
	if pin.EncryptedPIN != nil {
		if res.PIN, err = c.Session.Reseal(vault.FieldPIN, vault.ToClient, pin.EncryptedPIN.sealed()); err != nil {
			return nil, answerError("encryptedPin", err)
		}
		res.PINSet = true
	}
	return res, nil
}

// setPIN opens the client's PIN block, judges it, and hands it on under the issuer's session.
func (r *rain) setPIN(ctx context.Context, up Upstream, c *Call) (*exchange.Result, error) {
	pin, err := c.Session.Reseal(vault.FieldPIN, vault.ToIssuer, c.PIN)
	if err != nil {
		return nil, err // the client's ciphertext, not the issuer's answer
	}
	var res Response
	if err := up.RoundTrip(ctx, &Request{
		Call: "pin_set", Method: http.MethodPut, Path: r.cardPath(c) + "/pin", Header: r.session(c),
		Body: append(appendSealed([]byte{'{'}, "encryptedPin", pin), '}'), Changes: true,
	}, &res); err != nil {
		return nil, err
	}
	if res.Status/100 != 2 {
		if rainMessage(&res) == "Weak PIN" {
			return nil, ErrWeakPIN
		}
		return nil, statusError(&res)
	}
	return &exchange.Result{}, nil
}

// setStatus asks first what the card is: what is so already is not changed again, and who cancelled a card has none.
func (r *rain) setStatus(ctx context.Context, up Upstream, c *Call) (*exchange.Result, error) {
	word := rainWords[c.Status]
	if word == "" {
		return nil, errStatus
	}
	var card rainCard
	if err := r.card(ctx, up, c, &card); err != nil {
		return nil, err
	}
	switch rainStates[card.Status] {
	case c.Status:
		return nil, ErrSet
	case exchange.Cancelled:
		return nil, ErrNoCard
	}
	var res Response
	if err := up.RoundTrip(ctx, &Request{
		Call: "status", Method: http.MethodPatch, Path: r.cardPath(c), Body: append(exchange.AppendMember([]byte{'{'}, "status", word), '}'), Changes: true,
	}, &res); err != nil {
		return nil, err
	}
	if res.Status/100 != 2 {
		return nil, statusError(&res)
	}
	return &exchange.Result{}, nil
}

// rainWords are the states that a card can be given.
var rainWords = map[exchange.CardStatus]string{exchange.Active: "active", exchange.Frozen: "locked", exchange.Cancelled: "canceled"}

var errStatus = errors.New("a state that no card can be given")

type rainCard struct {
	UserID          string `json:"userId"`
	Status          string `json:"status"`
	Last4           string `json:"last4"`
	ExpirationMonth string `json:"expirationMonth"`
	ExpirationYear  string `json:"expirationYear"`
	ProductID       string `json:"productId"`
	Limit           struct {
		Amount    int64  `json:"amount"`
		Frequency string `json:"frequency"`
	} `json:"limit"`
}

func (r *rain) card(ctx context.Context, up Upstream, c *Call, card *rainCard) error {
	if err := r.get(ctx, up, "card", r.cardPath(c), nil, card); err != nil {
		return err
	}
	switch {
	case !digits(card.Last4, 4):
		return fmt.Errorf("%w: last4", ErrAnswer)
	case !month(card.ExpirationMonth):
		return fmt.Errorf("%w: expirationMonth", ErrAnswer)
	case !digits(card.ExpirationYear, 4):
		return fmt.Errorf("%w: expirationYear", ErrAnswer)
	case rainStates[card.Status] == 0:
		return fmt.Errorf("%w: status", ErrAnswer)
	}
	return nil
}

var rainStates = map[string]exchange.CardStatus{
	"active": exchange.Active, "locked": exchange.Frozen, "canceled": exchange.Cancelled, "notActivated": exchange.Inactive,
}

// canonical gives the month two digits, whatever the issuer's habit.
func (card *rainCard) canonical(reference string) exchange.Card {
	month := card.ExpirationMonth
	if len(month) == 1 {
		month = "0" + month
	}
	return exchange.Card{
		ID: reference, LastFour: card.Last4, ExpiryMonth: month, ExpiryYear: card.ExpirationYear,
		Status: rainStates[card.Status], Product: card.ProductID,
		Limit: exchange.Limit{Amount: card.Limit.Amount, Frequency: card.Limit.Frequency},
	}
}

type rainUser struct {
	FirstName string `json:"firstName"`
	LastName  string `json:"lastName"`
}

func (r *rain) user(ctx context.Context, up Upstream, c *Call, user *rainUser) error {
	err := r.get(ctx, up, "user", "/issuing/users/"+url.PathEscape(c.User), nil, user)
	if errors.Is(err, ErrNoCard) {
		return fmt.Errorf("%w: it does not know the card's user", ErrAnswer)
	}
	return err
}

// rainSealed is one encrypted field.
type rainSealed struct {
	IV   string `json:"iv"`
	Data string `json:"data"`
}

func (s *rainSealed) sealed() vault.Sealed { return vault.Sealed{Data: s.Data, IV: s.IV} }

type rainSecrets struct {
	EncryptedPAN *rainSealed `json:"encryptedPan"`
	EncryptedCVC *rainSealed `json:"encryptedCvc"`
}

func (r *rain) secrets(ctx context.Context, up Upstream, c *Call, secrets *rainSecrets) error {
	if err := r.get(ctx, up, "secrets", r.cardPath(c)+"/secrets", r.session(c), secrets); err != nil {
		return err
	}
	if secrets.EncryptedPAN == nil || secrets.EncryptedCVC == nil {
		return fmt.Errorf("%w: encryptedPan or encryptedCvc missing", ErrAnswer)
	}
	return nil
}

type rainPIN struct {
	EncryptedPIN *rainSealed `json:"encryptedPin"`
}

// rainNoPIN is Rain's text for a card whose PIN was never set; its status differs between versions.
const rainNoPIN = "Failed to get PIN, card does not have PIN set"

// pin leaves pin.EncryptedPIN nil where the card has no PIN.
func (r *rain) pin(ctx context.Context, up Upstream, c *Call, pin *rainPIN) error {
	var res Response
	if err := up.RoundTrip(ctx, &Request{Call: "pin", Method: http.MethodGet, Path: r.cardPath(c) + "/pin", Header: r.session(c)}, &res); err != nil {
		return err
	}
	if res.Status/100 != 2 {
		if rainMessage(&res) == rainNoPIN {
			return nil
		}
		return statusError(&res)
	}
	// "No PIN" is said with null; a field that is not there at all is a broken answer.
	missing := new(rainSealed)
	pin.EncryptedPIN = missing
	if err := rainBody(&res, pin); err != nil {
		return err
	}
	if pin.EncryptedPIN == missing && *missing == (rainSealed{}) {
		return fmt.Errorf("%w: encryptedPin missing", ErrAnswer)
	}
	return nil
}

// rainProcessor is what puts a card into a wallet. Its secret is good once, for a short time. Neither
// is held to the guard: they are opaque, and a processor's id may well be of 16 digits.
type rainProcessor struct {
	ProcessorCardID string `json:"processorCardId"`
	TimeBasedSecret string `json:"timeBasedSecret"`
}

func (r *rain) processor(ctx context.Context, up Upstream, c *Call, processor *rainProcessor) error {
	if err := r.get(ctx, up, "processor", r.cardPath(c)+"/processorDetails", nil, processor); err != nil {
		return err
	}
	if processor.ProcessorCardID == "" || processor.TimeBasedSecret == "" {
		return fmt.Errorf("%w: processorCardId or timeBasedSecret missing", ErrAnswer)
	}
	return nil
}

// get fetches one JSON document.
func (r *rain) get(ctx context.Context, up Upstream, call, path string, header []Header, into any) error {
	var res Response
	if err := up.RoundTrip(ctx, &Request{Call: call, Method: http.MethodGet, Path: path, Header: header}, &res); err != nil {
		return err
	}
	if res.Status/100 != 2 {
		return statusError(&res)
	}
	return rainBody(&res, into)
}

func (*rain) cardPath(c *Call) string { return "/issuing/cards/" + url.PathEscape(c.Card) }

func (*rain) session(c *Call) []Header { return []Header{{"SessionId", c.Session.IssuerPreamble()}} }

func rainBody(res *Response, into any) error {
	if err := exchange.DecodeLenient(res.Body, into); err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return nil
}

// rainMessage returns the text of an error {error,message}, for comparison with the texts that mean something to us.
func rainMessage(res *Response) string {
	var body struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	if exchange.DecodeLenient(res.Body, &body) != nil {
		return ""
	}
	if body.Message == "Weak PIN" || body.Message == rainNoPIN {
		return body.Message
	}
	return body.Error
}

// month reports whether s is 1 to 12, with or without a leading zero.
func month(s string) bool {
	if len(s) == 1 {
		s = "0" + s
	}
	return digits(s, 2) && s >= "01" && s <= "12"
}
