package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/holder"
	"github.com/cardstile/cardstile/vault"
)

// This file is stage 5: whose card it is, what the rules permit, and for whom.

// decided is what stage 5 permitted.
type decided struct {
	holding *policy.Holding // nil where no card is touched
	user    *policy.User    // nil where the directory knows none
	binding []byte          // of all permits, in order
	pan     bool
	cvc     bool
	reveal  []policy.Field // declared fields of a forward's answer
}

var (
	revealFields = []policy.Field{policy.FieldPAN, policy.FieldCVC}
	uploadFields = []policy.Field{policy.FieldPAN}
)

// fieldsOf are the fields that an operation of a call is about, each decided by itself.
func fieldsOf(call *exchange.Call, op policy.Operation) []policy.Field {
	switch op {
	case policy.CardReveal:
		return revealFields
	case policy.ForwardReveal:
		return declared(call.Forward.Call.Fields)
	case policy.ForwardSubmit:
		if call.Forward.Paid {
			return revealFields // of the card that is held
		}
		return declared(call.Forward.Call.Submit)
	case policy.CardVerify:
		return uploadFields
	case policy.FieldSubmit:
		if call.Submit.Field != 0 {
			return []policy.Field{policy.Field(call.Submit.Field.String())}
		}
	}
	return nil
}

// declared lists the fields among members, each once.
func declared(members map[string]vault.Field) []policy.Field {
	var fields []policy.Field
	for _, f := range members {
		if field := policy.Field(f.String()); !slices.Contains(fields, field) {
			fields = append(fields, field)
		}
	}
	slices.Sort(fields)
	return fields
}

// decide asks the holder directory whose the card is and the rules whether each operation may be done, and counts what
// is permitted against the limits.
func (x *running) decide(ctx context.Context, call *exchange.Call, p proven) (decided, error) {
	d, err := x.hold(ctx, call, p)
	if err != nil {
		return decided{}, err
	}
	rt := x.ep.route
	r := policy.Request{
		Partner: p.partner, User: p.user, Named: call.User, Card: d.holding, Issuer: rt.issuerName(), Face: rt.Name, Proofs: p.proofs,
		Environment: rt.Environment, Address: x.request.Address, Time: x.request.Received, Exchange: x.request.ID,
		SessionHash: call.SessionHash, UnboundTokens: rt.UnboundTokens, Origin: x.request.Origin,
	}
	if call.Forward != nil {
		r.Call = call.Forward.Call.Name
	}
	if call.Card != "" && d.holding == nil && call.Operations[0].Mints() {
		return decided{}, &policy.Denied{Reason: policy.DeniedUnknownCard} // a token is not bound to a card that is not there
	}
	if err := x.bound(call, p); err != nil {
		return decided{}, err
	}
	for _, op := range call.Operations {
		if op == policy.ForwardSubmit && call.Forward.Paid && x.idempotent.replays() {
			continue // it was decided when the token that proves it was used up: nothing is submitted now
		}
		r.Operation, r.Fields = op, fieldsOf(call, op)
		permit, err := x.st.config.Engine.Decide(&r)
		if err != nil {
			return decided{}, x.denied(err)
		}
		x.ruled(permit.Rule())
		d.binding = append(d.binding, permit.Binding()...)
		d.pan = d.pan || permit.Allows(policy.FieldPAN)
		d.cvc = d.cvc || permit.Allows(policy.FieldCVC)
		if op == policy.ForwardReveal {
			d.reveal = slices.DeleteFunc(r.Fields, func(f policy.Field) bool { return !permit.Allows(f) })
		}
		if op == policy.ForwardSubmit && slices.ContainsFunc(r.Fields, func(f policy.Field) bool { return !permit.Allows(f) }) {
			return decided{}, exchange.Fail(exchange.Forbidden, "denied_field")
		}
	}
	return d, x.count(ctx, call, p, d)
}

// anonymous makes an exchange that showed no credential at all nobody's: not even the route's partner, whose customers show one,
// answers for it [27]. It is counted by its address, on all instances, before anything is stored for it.
func (x *running) anonymous(ctx context.Context, p *proven) error {
	if x.accepted {
		return nil
	}
	p.partner = nil
	network := networkOf(x.request.Address).String()
	return x.limit(ctx, "anonymous", limitDigest(x.st.config.CardDigest, "anonymous", network), x.st.limits.Anonymous)
}

// bound holds the declared parameters of a forward's path to whom the exchange is for [3]. Another's is like one that is not
// there.
func (x *running) bound(call *exchange.Call, p proven) error {
	if call.Forward == nil {
		return nil
	}
	for name, to := range call.Forward.Call.Bind {
		own := p.account
		if to == "partner" && p.partner != nil {
			own = p.partner.ID
		}
		if own == "" || x.request.Param(name) != own {
			return exchange.Fail(exchange.NotFound, "path_of_another")
		}
	}
	return nil
}

// ruled notes a rule that permitted; several are joined.
func (x *running) ruled(rule string) {
	switch x.event.Rule {
	case "", rule:
		x.event.Rule = rule
	default:
		x.event.Rule += "," + rule
	}
}

// denied counts a token that was good for something else among the refused ones.
func (x *running) denied(err error) error {
	var denied *policy.Denied
	if errors.As(err, &denied) {
		x.event.Rule = denied.Rule
		if denied.Reason == policy.DeniedBound || denied.Reason == policy.DeniedUnboundToken {
			x.g.metrics.refused.WithLabelValues(denied.Reason).Inc()
		}
	}
	return err
}

// hold finds the card that is meant: the one that the caller names, the one that a token was minted for, or the user's own.
func (x *running) hold(ctx context.Context, call *exchange.Call, p proven) (decided, error) {
	var d decided
	directory, reference := x.st.config.Holders, cmp.Or(call.Card, p.card)
	if who := cmp.Or(p.user, call.User); who != "" {
		user, err := directory.User(ctx, who)
		switch {
		case errors.Is(err, holder.ErrNoUser) || err == nil && user.Issuer != x.ep.route.issuerName() && !call.Has(policy.CardVerify):
			return d, x.noUser(call, p) // a card that is brought may be another issuer's than the user's own
		case err != nil:
			return d, fmt.Errorf("%w: %w", errDirectory, err)
		}
		if p.partner == nil || user.Partner != p.partner.ID { // proven or named: another partner's user is nobody here
			return d, x.noUser(call, p)
		}
		if user.Issuer == x.ep.route.issuerName() { // else its names of users are not this one's
			d.user = user
		}
		if reference == "" && len(user.Cards) > 0 && touchesCard(call.Operations) {
			reference = user.Cards[0]
		}
	}
	if reference == "" {
		return d, nil
	}
	holding, err := directory.Card(ctx, reference)
	switch {
	case errors.Is(err, holder.ErrNoCard):
		return d, nil // whether that matters is the decision's business
	case err != nil:
		return d, fmt.Errorf("%w: %w", errDirectory, err)
	}
	d.holding = holding
	x.st.config.CardDigest.MAC(x.event.Card[:0], []byte(holding.Card))
	err = x.holdUser(ctx, &d)
	return d, err
}

// holdUser finds the card's own user where nobody is proven or named: some issuers want both. It proves nobody.
func (x *running) holdUser(ctx context.Context, d *decided) error {
	if d.user != nil || len(d.holding.Users) == 0 {
		return nil
	}
	user, err := x.st.config.Holders.User(ctx, d.holding.Users[0])
	switch {
	case errors.Is(err, holder.ErrNoUser) || err == nil && user.Issuer != d.holding.Issuer:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", errDirectory, err)
	}
	d.user = user
	return nil
}

// noUser is what is said of a user that the directory does not know for this issuer and partner. One whom the partner named is
// like a card that is not there [23].
func (x *running) noUser(call *exchange.Call, p proven) error {
	if p.user == "" {
		return &policy.Denied{Reason: policy.DeniedUnknownCard}
	}
	if call.Operations[0] == policy.SessionMint {
		return exchange.Fail(exchange.CredentialUnknown, "no_credential")
	}
	return exchange.Fail(exchange.NoAccount, "no_account")
}

func touchesCard(operations []policy.Operation) bool {
	return slices.ContainsFunc(operations, policy.Operation.TouchesCard)
}

var errDirectory = errors.New("holder directory cannot answer")
