package gateway

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
)

// This file is hosted fields: a page submits a card piece by piece, each piece waits sealed under the page's session, and all of
// them become one value under a single-use token, which a payment redeems [11].
//
// Of session and token the store has digests alone, and what a repetition of a mint is recomputed from lacks what its caller has
// to show again: whoever has the store and all of our keys reads no card.

// Hosted is what a route of hosted fields needs.
type Hosted struct {
	Bearers  *credential.Bearers
	Sessions *credential.FieldsSessions
	Cards    *credential.Tokens // of policy.KindCardToken
	Holder   *vault.Holder

	// Terminals are each partner's, by its id: another's is like one that is not there.
	Terminals map[string][]string

	// CVV and Name say whether a card needs a security code, where its network has them, and a cardholder's name.
	CVV, Name bool
}

// hostedExchange is what an exchange knows of hosted fields. The zero value is none.
type hostedExchange struct {
	session  credential.FieldsSession // of the page that calls
	card     vault.Held               // that a redeemed token stands for
	token    string                   // that token
	terminal string                   // the processing terminal that the call names
	counted  bool                     // whether the partner's limit has counted the call already
}

// The parts of a card, as they wait in the store.
var (
	fieldParts  = map[vault.Field]string{vault.FieldPAN: credential.PartPAN, vault.FieldCVC: credential.PartCVC}
	detailParts = map[vault.Detail]string{vault.DetailExpiry: credential.PartExpiry, vault.DetailName: credential.PartName}
)

// errNoHosted: an endpoint of hosted fields stands on a route that has nothing to make them of.
var errNoHosted = errors.New("the route has no hosted fields")

// provePage proves a page by its session, at the face that began it, and as long as the API key is good that it began with.
func (x *running) provePage(ctx context.Context, c policy.Credential) (policy.Proof, error) {
	h := x.ep.route.Hosted
	proof, session, err := h.Sessions.Prove(ctx, c)
	if err == nil && session.Face != x.ep.route.Name {
		err = &policy.Refused{Kind: c.Kind, Reason: policy.RefusedBound}
	}
	if err == nil {
		err = h.Bearers.Live(session.Key, session.Partner)
	}
	x.hosted.session = session
	return proof, err
}

// terminal holds the processing terminal that a forward names to those of the partner: another's is like one that is not there. A
// call that names none is for the issuer to judge, by whose credential it is; where that is several callers', it tells nothing.
func (x *running) terminal(call *exchange.Call, p *proven) error {
	if call.Forward == nil || call.Forward.Call.Terminal == "" {
		return nil
	}
	body := call.Forward.Body
	named := body != nil && (body.Has(call.Forward.Call.Terminal) || body.Null(call.Forward.Call.Terminal))
	if !named && !x.ep.route.Issuer.shared {
		return nil
	}
	if named {
		x.hosted.terminal, _ = body.Text(call.Forward.Call.Terminal) // what is no text is nobody's
	}
	if h := x.ep.route.Hosted; h == nil || x.hosted.terminal == "" || !slices.Contains(h.Terminals[p.partnerID()], x.hosted.terminal) {
		return exchange.Fail(exchange.NotFound, "terminal")
	}
	return nil
}

// limitPage takes one from the limit of a page's session. Whoever sees the page has it, and each call of it keeps something.
func (x *running) limitPage(ctx context.Context, call *exchange.Call) error {
	session := fieldsOfPage(call).Value()
	if session == "" {
		return nil
	}
	return x.limit(ctx, "page", limitDigest(x.st.config.CardDigest, "page", session), x.st.limits.Page)
}

// limitPayment takes one from the partner's limit before the token of a card is used up, which cannot be had again.
func (x *running) limitPayment(ctx context.Context, call *exchange.Call, p *proven) error {
	if call.Forward == nil || !call.Forward.Paid {
		return nil
	}
	x.hosted.counted = true
	return x.limitPartner(ctx, p, false)
}

// mintFields begins a session for one page.
func (x *running) mintFields(ctx context.Context, call *exchange.Call, p proven, _ decided) (*exchange.Result, error) {
	h := x.ep.route.Hosted
	if h == nil || p.partner == nil {
		return nil, errNoHosted
	}
	if !slices.Contains(h.Terminals[p.partner.ID], call.Fields.Terminal) {
		return nil, &exchange.Failure{Kind: exchange.NotFound, At: exchange.Place{In: "path", Name: "terminal"}, Reason: "terminal"}
	}
	x.idempotent.effect = true
	token, expires, err := h.Sessions.Mint(ctx, credential.FieldsSession{
		Key: h.Bearers.KeyOf(p.proofs), Generation: x.generation(&p), Partner: p.partner.ID, Environment: x.ep.route.Environment, Face: x.ep.route.Name, Terminal: call.Fields.Terminal,
		Scenario: call.Fields.Scenario, Library: call.Fields.Library, SecureToken: call.Fields.SecureToken,
	}, call.Fields.TTL, x.idempotent.seed)
	if err != nil {
		return nil, err
	}
	x.g.metrics.credentials.WithLabelValues(mintedFields).Inc()
	return &exchange.Result{Token: token, Expires: expires}, nil
}

// readFields claims the session for the page that asks first, by its idempotency key, and says what it is for [23].
func (x *running) readFields(ctx context.Context, call *exchange.Call, _ proven, _ decided) (*exchange.Result, error) {
	h := x.ep.route.Hosted
	if h == nil {
		return nil, errNoHosted
	}
	if err := h.Sessions.Claim(ctx, fieldsOfPage(call), call.IdempotencyKey); err != nil {
		return nil, err
	}
	s := &x.hosted.session
	return &exchange.Result{Session: exchange.Fields{Terminal: s.Terminal, Scenario: s.Scenario, Library: s.Library, SecureToken: s.SecureToken}}, nil
}

// fieldsOfPage is the credential that a call of a page shows: its session.
func fieldsOfPage(call *exchange.Call) policy.Credential {
	for _, c := range call.Credentials {
		if c.Kind == policy.KindFields {
			return c
		}
	}
	return policy.Credential{}
}

// submitField seals one thing that the page submits, in place of what it submitted before.
func (x *running) submitField(ctx context.Context, call *exchange.Call, _ proven, d decided) (*exchange.Result, error) {
	h, session := x.ep.route.Hosted, fieldsOfPage(call)
	if h == nil {
		return nil, errNoHosted
	}
	result := &exchange.Result{}
	part, sealed, err := x.sealPart(ctx, call, d, session.Value())
	if err != nil {
		return nil, err
	}
	if call.Submit.Field == vault.FieldPAN {
		if result.Network, err = x.request.Clear.Network(call.Submit.Member); err != nil {
			return nil, badCard(err)
		}
	}
	return result, h.Sessions.PutPart(ctx, session, part, sealed)
}

// sealPart seals what was submitted under the page's session.
func (x *running) sealPart(ctx context.Context, call *exchange.Call, d decided, token string) (part string, sealed []byte, err error) {
	submitted, holder := call.Submit, x.ep.route.Hosted.Holder
	if part = detailParts[submitted.Detail]; part != "" {
		sealed, err = holder.HoldDetail(token, submitted.Detail, submitted.Text)
		return part, sealed, badCard(err)
	}
	part = fieldParts[submitted.Field]
	in, err := x.request.Clear.Field(submitted.Member)
	if err != nil || part == "" {
		return "", nil, badCard(err)
	}
	leg, err := x.g.services.Vault.Open(ctx, vault.Opening{Binding: d.binding, Client: vault.InsecureClearClient()})
	if err != nil {
		return "", nil, err
	}
	defer leg.Close()
	sealed, err = holder.Hold(leg, token, submitted.Field, in)
	return part, sealed, badCard(err)
}

// badCard says that something of a card is not what it must be: the caller's doing, and nothing of it is quoted.
func badCard(err error) error {
	if errors.Is(err, vault.ErrOpen) || errors.Is(err, vault.ErrMember) {
		return &exchange.Failure{Kind: exchange.BadRequest, At: exchange.Place{In: "body", Name: "card"}, Reason: "card_field", Err: err}
	}
	return err
}

// mintCardToken takes together what the page submitted, once, under a token that stands for the card.
func (x *running) mintCardToken(ctx context.Context, call *exchange.Call, p proven) (*exchange.Result, error) {
	h, session := x.ep.route.Hosted, fieldsOfPage(call)
	if h == nil || p.partner == nil {
		return nil, errNoHosted
	}
	found, err := h.Sessions.Parts(ctx, session, credential.PartPAN, credential.PartCVC, credential.PartExpiry, credential.PartName)
	if err != nil {
		return nil, err
	}
	if err := h.complete(session.Value(), found); err != nil {
		return nil, err
	}
	ttl := call.Bind.TTL - max(x.request.Received.Sub(x.hosted.session.Began), 0) // the first of it is held since the session began, at the earliest
	if err := x.takeParts(ctx, found[credential.PartPAN]); err != nil {
		return nil, err
	}
	x.idempotent.effect = true
	token, expires, err := h.Cards.Mint(ctx, policy.Grant{
		Partner: p.partner.ID, Operation: policy.ForwardSubmit, Environment: x.ep.route.Environment, Face: x.ep.route.Name,
		Audience: x.hosted.session.Terminal, Generation: x.generation(&p),
	}, credential.Minting{TTL: ttl, Seed: x.idempotent.seed, Held: func(token string) ([]byte, error) {
		return h.Holder.Rehold(session.Value(), partsOf(found), token)
	}})
	if err != nil {
		return nil, err
	}
	x.g.metrics.minted.Inc()
	// What is left of the parts opens with the page's session, until that is over. What was taken is taken all the same.
	if err := h.Sessions.DeleteParts(ctx, session, credential.PartPAN, credential.PartCVC, credential.PartExpiry, credential.PartName); err != nil {
		x.g.services.Log.Warn("what a page submitted could not be deleted, and ends with its session", zap.String("exchange", x.request.ID), zap.Error(err))
	}
	return &exchange.Result{Token: token, Expires: expires}, nil
}

// complete says which part of a card is missing. A network whose cards have no security code needs none.
func (h *Hosted) complete(token string, found map[string][]byte) error {
	needed := []string{credential.PartPAN, credential.PartExpiry}
	if h.Name {
		needed = append(needed, credential.PartName)
	}
	for _, part := range needed {
		if len(found[part]) == 0 {
			return exchange.Wrong("body", "missing_"+part, "card_incomplete")
		}
	}
	if !h.CVV || len(found[credential.PartCVC]) > 0 {
		return nil
	}
	network, err := h.Holder.Network(token, found[credential.PartPAN])
	if err == nil && network.SecurityCode {
		err = exchange.Wrong("body", "missing_"+credential.PartCVC, "card_incomplete")
	}
	return err
}

// partsOf are the parts as the vault takes them.
func partsOf(found map[string][]byte) vault.Parts {
	parts := vault.Parts{Fields: map[vault.Field][]byte{}, Details: map[vault.Detail][]byte{}}
	for f, name := range fieldParts {
		if sealed := found[name]; len(sealed) > 0 {
			parts.Fields[f] = sealed
		}
	}
	for d, name := range detailParts {
		if sealed := found[name]; len(sealed) > 0 {
			parts.Details[d] = sealed
		}
	}
	return parts
}

// kindTaken marks submissions that became a token.
const kindTaken store.Kind = "card_taken"

// takenFor is how long a mark stays: longer than a page's session.
const takenFor = time.Hour

// takeParts lets one submission of a card number become one token, however many ask at once. Each submission is sealed under an
// IV of its own, so that the same number submitted again is another one.
func (x *running) takeParts(ctx context.Context, pan []byte) error {
	err := x.g.services.Store.Once(ctx, kindTaken, limitDigest(x.st.config.CardDigest, string(kindTaken), string(pan)), takenFor)
	if errors.Is(err, store.ErrSpent) {
		return exchange.Wrong("body", "missing_"+credential.PartPAN, "card_taken")
	}
	return err
}

// redeemCard uses up a token that stands for a card, which becomes the client's leg of the exchange's session. Whatever is wrong
// with it, it is the body's member that is wrong.
func (x *running) redeemCard(ctx context.Context, c policy.Credential, attempt store.Attempt, p *proven) error {
	h := x.ep.route.Hosted
	if named := h.Cards.Partner(c); named != "" && named != p.partnerID() { // another's is not used up by whoever shows it
		return &exchange.Failure{Kind: exchange.BadRequest, At: cardTokenPlace, Reason: "card_token_partner"}
	}
	proof, err := h.Cards.Redeem(ctx, c, credential.Redemption{Attempt: attempt})
	if err == nil {
		x.spent = true
		x.g.metrics.redeemed.Inc()
		err = x.belongs(ctx, &proof, p)
	}
	if err == nil && x.hosted.terminal != "" && x.hosted.terminal != proof.Grant.Audience {
		err = &policy.Refused{Kind: policy.KindCardToken, Reason: policy.RefusedBound, Detail: "the card was submitted for another terminal"}
	}
	var refused *policy.Refused
	if errors.As(err, &refused) {
		x.g.metrics.refused.WithLabelValues(refused.Reason).Inc()
		return &exchange.Failure{Kind: exchange.BadRequest, At: cardTokenPlace, Reason: string(refused.Kind) + "_" + refused.Reason, Err: err}
	}
	if err != nil {
		return err
	}
	x.hosted.card, x.hosted.token = h.Holder.Held(c.Value(), []byte(proof.Grant.Held)), c.Value()
	p.add(proof)
	return nil
}

var cardTokenPlace = exchange.Place{In: "body", Name: "paymentMethod.token"}
