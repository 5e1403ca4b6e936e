package face

import (
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// bridge is Bridge's card API: a partner's backend mints an ephemeral key for a nonce that its cardholder's page made, and
// the page reveals the card with the key and what the nonce was made of, once. Source: apidocs.bridge.xyz, `Safely reveal
// card details to customers` and the API reference of cards. The page that sets a PIN is not offered.
//
// The details leave in clear inside TLS, so they are offered where the route says so [12]. A route without mints keys for
// another one.
type bridge struct {
	config Config
}

var _ Face = (*bridge)(nil)

func newBridge(c Config) (Face, error) { return &bridge{config: c}, nil }

// The paths of a card account and of the details. A slash behind them is the gateway's to add.
const (
	bridgeAccount = "/v0/customers/{customerId}/card_accounts/{cardAccountId}"
	bridgeDetails = "/v0/card_details"
)

// What a page proves in headers in place of the query: an extension of ours, and the better way, because URLs end in
// other people's logs.
const (
	bridgeSecretHeader    = "Cardstile-Client-Secret"
	bridgeTimestampHeader = "Cardstile-Client-Timestamp"
)

// Endpoints implements Face.
func (b *bridge) Endpoints() []Endpoint {
	var all []Endpoint
	for _, e := range []Endpoint{
		b.post("ephemeral_keys", policy.TokenMint, b.parseMint, b.renderMint),
		{
			Method: http.MethodGet, Pattern: bridgeDetails, Operations: []policy.Operation{policy.CardReveal},
			CORS:  &CORS{AnyOrigin: true, Headers: []string{"Authorization", "Content-Type", bridgeSecretHeader, bridgeTimestampHeader}},
			Parse: b.parseReveal, Render: b.renderReveal, Fail: b.failReveal,
		},
		{
			Method: http.MethodGet, Pattern: bridgeAccount, Operations: []policy.Operation{policy.CardProfile},
			Parse: b.parseProfile, Render: b.renderProfile,
		},
		b.post("freeze", policy.CardStatus, b.parseFreeze, b.renderStatus),
		b.post("unfreeze", policy.CardStatus, b.parseUnfreeze, b.renderStatus),
	} {
		op := e.Operations[0]
		if b.config.serves(op) && (op != policy.CardReveal || b.config.Clear) {
			all = append(all, e)
		}
	}
	return all
}

// bridgeIdempotency: the first answer is given again for 24 hours, and a key that comes later is told so.
// Source: apidocs.bridge.xyz, `Idempotence`; how long it is told so is ours [28].
var bridgeIdempotency = &Idempotency{Keep: 24 * time.Hour, Tombstone: 7 * 24 * time.Hour}

// post is an endpoint of a partner's backend. Bridge requires an idempotency key there; here a call without one is made each
// time that it comes, which is ours.
func (b *bridge) post(name string, op policy.Operation, parse func(*exchange.Request) (*exchange.Call, error),
	render func(*exchange.Call, *exchange.Result, *exchange.Response)) Endpoint {
	return Endpoint{
		Method: http.MethodPost, Pattern: bridgeAccount + "/" + name, Operations: []policy.Operation{op},
		MaxBody: maxBody, Idempotency: bridgeIdempotency, Parse: parse, Render: render,
	}
}

// account reads what every call of a partner's backend has: the key, the customer and the card account.
func (b *bridge) account(r *exchange.Request, op policy.Operation) (*exchange.Call, error) {
	key, ok := r.One("Api-Key")
	if ok && key == "" { // told apart from a wrong key: the contract does, and everybody knows whether they sent one
		return nil, &exchange.Failure{Kind: exchange.Unauthorized, At: bridgeKeyMissing, Reason: "no_credential"}
	}
	if !ok {
		return nil, exchange.Fail(exchange.Unauthorized, "duplicate_header")
	}
	return &exchange.Call{
		Operations:  []policy.Operation{op},
		Credentials: []policy.Credential{policy.NewCredential(policy.KindAPIKey, key)},
		Card:        r.Param("cardAccountId"),
		User:        r.Param("customerId"),
		Scope:       bridgeScope,
	}, nil
}

// bridgeScope is what a key that has a scope needs in it, for all that a partner's backend does: ours.
const bridgeScope = "card-accounts"

var bridgeKeyMissing = exchange.Place{In: "header", Name: "Api-Key"}

// bridgeTTL is the life of an ephemeral key. Source: POST …/ephemeral_keys.
const bridgeTTL = 5 * time.Minute

// parseMint reads {"client_nonce"}. The key is for this card and a reveal, and for whoever knows what the nonce was made of.
func (b *bridge) parseMint(r *exchange.Request) (*exchange.Call, error) {
	c, err := b.account(r, policy.TokenMint)
	if err != nil {
		return nil, err
	}
	if c.IdempotencyKey, err = idempotencyKey(r); err != nil {
		return nil, err
	}
	nonce, err := b.nonce(r)
	if err != nil {
		return nil, err
	}
	c.Bind = exchange.Bind{Operation: policy.CardReveal, Card: c.Card, User: c.User, Nonce: nonce, TTL: bridgeTTL}
	return c, nil
}

// nonce reads the body of a mint. What no proof can come to is refused here: another length, another alphabet, and the
// nonce of zeros, which says that none is asked for.
func (b *bridge) nonce(r *exchange.Request) (nonce [32]byte, err error) {
	if len(r.Body) == 0 {
		return nonce, exchange.Wrong("body", "client_nonce", "client_nonce")
	}
	if err := jsonBody(r); err != nil {
		return nonce, err
	}
	var body struct {
		ClientNonce exchange.Text `json:"client_nonce"`
	}
	if err := exchange.DecodeStrict(r.Body, &body); err != nil {
		return nonce, &exchange.Failure{Kind: exchange.BadRequest, At: exchange.Place{In: "body", Name: "client_nonce"}, Reason: "body", Err: err}
	}
	text := body.ClientNonce.Value
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	// The decoder skips line breaks: a nonce has one text, so its length is judged too.
	if err != nil || len(text) != base64.StdEncoding.EncodedLen(len(nonce)) || len(raw) != len(nonce) || [32]byte(raw) == nonce {
		return nonce, exchange.Wrong("body", "client_nonce", "client_nonce")
	}
	return [32]byte(raw), nil
}

func (b *bridge) renderMint(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	out.Body = append(exchange.AppendMember(append(out.Body[:0], '{'), "ephemeral_key", res.Token), '}')
	out.ContentType = jsonType
}

// parseReveal reads the ephemeral key and the proof. A proof that is not there is refused like a wrong one; it is refused
// here, before the key is looked at, so that it spends nothing. One that is there twice is a mistake of the page's, and
// is told so: which of the two was meant?
func (b *bridge) parseReveal(r *exchange.Request) (*exchange.Call, error) {
	if len(r.Body) != 0 {
		return nil, exchange.Fail(exchange.BadRequest, "body")
	}
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return nil, exchange.Wrong("query", "secret", "query") // the error would quote
	}
	secret, err := b.proof(r, query, bridgeSecretHeader, "secret", "clientSecret")
	if err != nil {
		return nil, err
	}
	timestamp, err := b.proof(r, query, bridgeTimestampHeader, "timestamp", "clientTimestamp")
	if err != nil {
		return nil, err
	}
	key, err := bearer(r, policy.KindToken)
	if err != nil {
		return nil, err
	}
	if secret == "" || timestamp == "" {
		return nil, exchange.Fail(exchange.Unauthorized, "no_proof")
	}
	if fips140.Enforced() && len(secret) < MinHMACKey { // crypto/hmac would panic
		return nil, exchange.Fail(exchange.Unauthorized, "short_proof")
	}
	return &exchange.Call{
		Operations:  []policy.Operation{policy.CardReveal},
		Credentials: []policy.Credential{key},
		Nonce:       bridgeNonce(secret, timestamp),
	}, nil
}

// proof finds one half of the proof under one of its names, "" where it is under none.
func (b *bridge) proof(r *exchange.Request, query url.Values, header string, names ...string) (string, error) {
	found := r.Header.Values(header)
	at := exchange.Place{In: "header", Name: header}
	for _, name := range names {
		if len(query[name]) > 0 {
			found = slices.Concat(found, query[name])
			at = exchange.Place{In: "query", Name: names[0]}
		}
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	return "", exchange.Wrong(at.In, at.Name, "duplicate_proof")
}

// MinHMACKey is the shortest key of HMAC, in bytes, where FIPS 140-3 alone is admitted: 112 bits (NIST SP 800-131A revision 2, section 10).
const MinHMACKey = 14

// bridgeNonce is what a proof comes to. The key is the secret's text as it stands, not what its hex digits encode, and the
// timestamp is text as well: nothing compares it with a clock.
func bridgeNonce(secret, timestamp string) [32]byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("nonce:"))
	mac.Write([]byte(timestamp))
	return [32]byte(mac.Sum(nil))
}

// renderReveal leaves the places of number and code to the vault. What is not permitted has no place.
func (b *bridge) renderReveal(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	body := append(out.Body[:0], '{')
	for _, f := range []struct {
		name  string
		field vault.Sealed
	}{{`"card_number":`, res.PAN}, {`"card_security_code":`, res.CVC}} {
		if f.field == (vault.Sealed{}) {
			continue
		}
		body = append(body, f.name...)
		out.Splices = append(out.Splices, vault.Splice{At: len(body), Field: f.field})
		body = append(body, ',')
	}
	out.Body = append(appendMonthYear(body, "expiry_date", &res.Card), '}')
	out.ContentType = jsonType
}

// appendMonthYear appends a member "MM/YY". What that form cannot say, a year of another century, is left empty.
func appendMonthYear(dst []byte, name string, card *exchange.Card) []byte {
	text, _ := vault.ExpiryMMSlashYY.Append(nil, card.ExpiryMonth, card.ExpiryYear)
	return exchange.AppendMember(dst, name, string(text))
}

func (b *bridge) parseProfile(r *exchange.Request) (*exchange.Call, error) {
	if len(r.Body) != 0 {
		return nil, exchange.Fail(exchange.BadRequest, "body")
	}
	return b.account(r, policy.CardProfile)
}

// renderProfile writes the part of a card account that we know. What stands in it of balances, freezes and funding is
// between partner and issuer.
func (b *bridge) renderProfile(c *exchange.Call, res *exchange.Result, out *exchange.Response) {
	body := appendAccount(append(out.Body[:0], '{'), c, res.Card.Status)
	if first, last, ok := bridgeName(res.Card.Holder); ok {
		body = exchange.AppendMember(append(body, `,"cardholder_name":{`...), "first_name", first)
		body = append(exchange.AppendMember(append(body, ','), "last_name", last), '}')
	}
	body = exchange.AppendMember(append(body, `,"card_details":{`...), "last_4", res.Card.LastFour)
	body = appendMonthYear(append(body, ','), "expiry", &res.Card)
	if res.Card.BIN != "" {
		body = exchange.AppendMember(append(body, ','), "bin", res.Card.BIN)
	}
	if res.Card.PINStatus != "" {
		body = exchange.AppendMember(append(body, ','), "pin_status", res.Card.PINStatus)
	}
	out.Body = append(body, `}}`...)
	out.ContentType = jsonType
}

// bridgeName parts a display name at its last space, because Bridge's clients read two names: ours, and no more than a
// guess where a surname has two words.
func bridgeName(holder string) (first, last string, ok bool) {
	if i := strings.LastIndexByte(holder, ' '); i >= 0 {
		return holder[:i], holder[i+1:], true
	}
	return holder, "", holder != ""
}

// appendAccount appends which card account it is, and its status.
func appendAccount(dst []byte, c *exchange.Call, status exchange.CardStatus) []byte {
	dst = exchange.AppendMember(dst, "id", c.Card)
	dst = exchange.AppendMember(append(dst, ','), "customer_id", c.User)
	return exchange.AppendMember(append(dst, ','), "status", bridgeStatus(status))
}

// bridgeStatus is Bridge's word for a card's state. It has none for a card that is cancelled.
func bridgeStatus(s exchange.CardStatus) string {
	switch s {
	case exchange.Active:
		return "active"
	case exchange.Frozen:
		return "frozen"
	default:
		return "inactive"
	}
}

// Fail implements Face: what a partner's backend reads. A missing key and a wrong one are told apart, as the contract
// does; every wrong one is the same.
func (b *bridge) Fail(kind exchange.Kind, at exchange.Place, out *exchange.Response) {
	bridgeAnswers.fail(kind, out)
	switch {
	case kind == exchange.Unauthorized && at == bridgeKeyMissing:
		out.Body = append(out.Body[:0], bridgeNoKey...)
	case kind == exchange.BadRequest && bridgeSources[at] != "":
		out.Body = append(out.Body[:0], bridgeSources[at]...)
	}
}

// failReveal is what a page reads: whatever is wrong with a key or a proof, it is one answer.
func (b *bridge) failReveal(kind exchange.Kind, at exchange.Place, out *exchange.Response) {
	b.Fail(kind, at, out)
	if kind == exchange.Unauthorized || stands[kind] == exchange.Unauthorized {
		out.Body = append(out.Body[:0], bridgeBadProof...)
	}
}
