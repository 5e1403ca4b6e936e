package issuer

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// bridge is Bridge's card API. Card details cross it in clear inside TLS [12], for an ephemeral key that we mint for a nonce
// of our own and that is good once. Source: apidocs.bridge.xyz, API reference of cards. It has no call that reads or sets
// a PIN: its page for that is the cardholder's.
type bridge struct {
	details *vault.Shape // of an answer that holds card details
}

var _ Issuer = (*bridge)(nil)

func newBridge(Config) (Issuer, error) {
	shape, err := vault.NewShape(vault.ShapeConfig{
		Public:   []string{"/expiry_date"},
		Clear:    map[string]vault.Field{"/card_number": vault.FieldPAN, "/card_security_code": vault.FieldCVC},
		MaxBytes: 16 << 10,
	})
	if err != nil {
		return nil, err
	}
	return &bridge{details: shape}, nil
}

// Serves implements Issuer.
func (*bridge) Serves(op policy.Operation) bool {
	switch op {
	case policy.CardProfile, policy.CardReveal, policy.CardStatus:
		return true
	default:
		return false
	}
}

// errNoCustomer: the directory names no user of the card, without whom Bridge's paths cannot be written. It is nobody's
// fault but the operator's, so it is none of the errors that callers are told about.
var errNoCustomer = errors.New("bridge: a card account is asked for with its customer, and the directory names none (issuer_user)")

// Do implements Issuer.
func (b *bridge) Do(ctx context.Context, up Upstream, c *Call) (*exchange.Result, error) {
	if c.User == "" {
		return nil, errNoCustomer
	}
	if c.Has(policy.CardStatus) {
		return b.setStatus(ctx, up, c)
	}
	var (
		account bridgeAccount
		details Response
	)
	defer func() { details.Clear.Close() }()
	fetches := []func(context.Context) error{func(ctx context.Context) error { return b.account(ctx, up, c, &account) }}
	reveals := c.Has(policy.CardReveal) && (c.PAN || c.CVC)
	if reveals {
		fetches = append(fetches, func(ctx context.Context) error { return b.reveal(ctx, up, c, &details) })
	}
	if err := together(ctx, fetches); err != nil {
		return nil, err
	}
	res := &exchange.Result{Card: account.canonical(c.Reference)}
	res.Card.Holder = strings.TrimSpace(account.Holder.FirstName + " " + account.Holder.LastName)
	if err := guard(&res.Card); err != nil {
		return nil, err
	}
	if !reveals {
		return res, nil
	}
	if err := b.sameCard(details.Clear, &res.Card); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		pointer   string
		field     vault.Field
		permitted bool
		into      *vault.Sealed
	}{
		{"/card_number", vault.FieldPAN, c.PAN, &res.PAN},
		{"/card_security_code", vault.FieldCVC, c.CVC, &res.CVC},
	} {
		handle, err := details.Clear.Field(f.pointer)
		if err == nil && f.permitted {
			*f.into, err = c.Session.Reseal(f.field, vault.ToClient, handle)
		}
		if err != nil {
			return nil, answerError(f.pointer[1:], err)
		}
	}
	return res, nil
}

// sameCard holds the details to the card account: two answers that expire apart are not of one card.
func (b *bridge) sameCard(details *vault.Body, card *exchange.Card) error {
	text, err := details.Text("/expiry_date")
	if err != nil {
		return answerError("expiry_date", err)
	}
	month, year, err := vault.ExpiryMMSlashYY.Parse(text)
	if err != nil {
		return answerError("expiry_date", err)
	}
	if month != card.ExpiryMonth || year != card.ExpiryYear {
		return fmt.Errorf("%w: expiry_date is not the card account's", ErrAnswer)
	}
	return nil
}

// setStatus freezes a card or ends that. Bridge takes a freeze of a frozen card, so what the card is now is read first; who
// changes it in between has the same answer twice. Whatever Bridge writes in the answer to a change, its status says that
// it was made.
func (b *bridge) setStatus(ctx context.Context, up Upstream, c *Call) (*exchange.Result, error) {
	change, ok := bridgeChanges[c.Status]
	if !ok {
		return nil, fmt.Errorf("%w: there is no call that makes a card so", ErrRefused) // and none was made
	}
	var account bridgeAccount
	if err := b.account(ctx, up, c, &account); err != nil {
		return nil, err
	}
	res := &exchange.Result{Card: account.canonical(c.Reference)}
	if res.Card.Status == c.Status {
		return nil, ErrSet
	}
	var answer Response
	if err := up.RoundTrip(ctx, &Request{
		Call: change.call, Method: http.MethodPost, Path: b.path(c) + "/" + change.call, Changes: true, Body: []byte(change.body),
		Header: []Header{{"Idempotency-Key", cmp.Or(c.IdempotencyKey, randomHex(16))}},
	}, &answer); err != nil {
		return nil, err
	}
	if answer.Status/100 != 2 {
		return nil, statusError(&answer)
	}
	res.Card.Status = c.Status
	return res, nil
}

// bridgeChanges are the changes that Bridge can make. We are the developer to it, whoever asked us. A card that another
// party froze as well stays frozen, which the answer to the end of our freeze does not tell.
var bridgeChanges = map[exchange.CardStatus]struct{ call, body string }{
	exchange.Frozen: {"freeze", `{"initiator":"developer","reason":"other"}`},
	exchange.Active: {"unfreeze", `{"initiator":"developer"}`},
}

type bridgeAccount struct {
	ID         string `json:"id"`
	CustomerID string `json:"customer_id"`
	Status     string `json:"status"`
	Holder     struct {
		FirstName string `json:"first_name"`
		LastName  string `json:"last_name"`
	} `json:"cardholder_name"`
	Details struct {
		Last4     string `json:"last_4"`
		Expiry    string `json:"expiry"`
		BIN       string `json:"bin"`
		PINStatus string `json:"pin_status"`
	} `json:"card_details"`

	month, year string
}

// account fetches a card account, and checks that it is the one that was asked for.
func (b *bridge) account(ctx context.Context, up Upstream, c *Call, account *bridgeAccount) error {
	var res Response
	if err := up.RoundTrip(ctx, &Request{Call: "account", Method: http.MethodGet, Path: b.path(c)}, &res); err != nil {
		return err
	}
	if res.Status/100 != 2 {
		return statusError(&res)
	}
	if err := exchange.DecodeLenient(res.Body, account); err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	var err error
	account.month, account.year, err = vault.ExpiryMMSlashYY.Parse(account.Details.Expiry)
	switch d := &account.Details; {
	case account.ID != c.Card:
		return fmt.Errorf("%w: id", ErrAnswer)
	case account.CustomerID != c.User:
		return fmt.Errorf("%w: customer_id", ErrAnswer)
	case bridgeStates[account.Status] == 0:
		return fmt.Errorf("%w: status", ErrAnswer)
	case !digits(d.Last4, 4):
		return fmt.Errorf("%w: card_details.last_4", ErrAnswer)
	case err != nil:
		return fmt.Errorf("%w: card_details.expiry", ErrAnswer)
	case d.BIN != "" && !digits(d.BIN, 6) && !digits(d.BIN, 8): // a whole number has no place there
		return fmt.Errorf("%w: card_details.bin", ErrAnswer)
	case len(d.PINStatus) > 32 || strings.Trim(d.PINStatus, "abcdefghijklmnopqrstuvwxyz_") != "":
		return fmt.Errorf("%w: card_details.pin_status", ErrAnswer)
	}
	return nil
}

// bridgeStates: a card account that is still being made cannot be used either.
var bridgeStates = map[string]exchange.CardStatus{
	"active": exchange.Active, "frozen": exchange.Frozen, "inactive": exchange.Inactive, "pending": exchange.Inactive, "canceled": exchange.Cancelled,
}

// canonical leaves the name out: it is no part of the answer to a change.
func (account *bridgeAccount) canonical(reference string) exchange.Card {
	return exchange.Card{
		ID: reference, LastFour: account.Details.Last4, ExpiryMonth: account.month, ExpiryYear: account.year,
		Status: bridgeStates[account.Status], BIN: account.Details.BIN, PINStatus: account.Details.PINStatus,
	}
}

// reveal draws a proof, mints a key for it and presents both. The secret lives as long as this call: it is in the query of
// one request, and in no error.
func (b *bridge) reveal(ctx context.Context, up Upstream, c *Call, details *Response) error {
	secret, timestamp := randomHex(32), strconv.FormatInt(time.Now().Unix(), 10)
	key, err := b.mint(ctx, up, c, bridgeNonce(secret, timestamp))
	if err != nil {
		return err
	}
	if err := up.RoundTrip(ctx, &Request{
		Call: "reveal", Method: http.MethodGet, Path: "/v0/card_details/", Query: "secret=" + secret + "&timestamp=" + timestamp,
		Header: []Header{{"Authorization", "Bearer " + key}}, Anonymous: true, Once: true, Shape: b.details,
	}, details); err != nil {
		return err
	}
	if details.Status/100 == 2 {
		if details.Clear == nil {
			return fmt.Errorf("%w: no card details", ErrAnswer)
		}
		return nil
	}
	clear(details.Body) // not read by anybody: an error may hold what it is about
	err = statusError(details)
	if errors.Is(err, ErrNoCard) { // the path names none
		err = fmt.Errorf("%w: status %d to a reveal", ErrRefused, details.Status)
	}
	return err
}

// mint has an ephemeral key made for a nonce. A key that is never presented changes nothing.
func (b *bridge) mint(ctx context.Context, up Upstream, c *Call, nonce string) (string, error) {
	var res Response
	if err := up.RoundTrip(ctx, &Request{
		Call: "mint", Method: http.MethodPost, Path: b.path(c) + "/ephemeral_keys", Header: []Header{{"Idempotency-Key", randomHex(16)}},
		Body: append(exchange.AppendMember([]byte{'{'}, "client_nonce", nonce), '}'),
	}, &res); err != nil {
		return "", err
	}
	if res.Status/100 != 2 {
		return "", statusError(&res)
	}
	var minted struct {
		Key string `json:"ephemeral_key"`
	}
	if err := exchange.DecodeLenient(res.Body, &minted); err != nil {
		return "", fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if !token68(minted.Key) {
		return "", fmt.Errorf("%w: ephemeral_key", ErrAnswer)
	}
	return minted.Key, nil
}

// token68 reports whether a key can stand behind "Bearer" (RFC 9110 section 11.2), in at most 4 KiB.
func token68(key string) bool {
	if key == "" || len(key) > 4<<10 {
		return false
	}
	return !strings.ContainsFunc(key, func(c rune) bool {
		return !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || strings.ContainsRune("-._~+/=", c))
	})
}

// bridgeNonce is what Bridge compares a proof with. The key is the secret's text, not what its hex digits encode.
func bridgeNonce(secret, timestamp string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("nonce:" + timestamp))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// randomHex returns n random bytes as lower-case hex.
func randomHex(n int) string {
	raw := make([]byte, n)
	rand.Read(raw)
	return hex.EncodeToString(raw)
}

func (*bridge) path(c *Call) string {
	return "/v0/customers/" + url.PathEscape(c.User) + "/card_accounts/" + url.PathEscape(c.Card)
}
