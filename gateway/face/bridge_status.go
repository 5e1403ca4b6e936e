package face

import (
	"cmp"
	"slices"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// A card account is frozen and unfrozen with POST …/freeze and …/unfreeze.

func (b *bridge) parseFreeze(r *exchange.Request) (*exchange.Call, error) {
	return b.parseStatus(r, exchange.Frozen)
}

func (b *bridge) parseUnfreeze(r *exchange.Request) (*exchange.Call, error) {
	return b.parseStatus(r, exchange.Active)
}

// parseStatus reads a freeze or its end. The body may be absent; what Bridge's clients say in it is checked, and decides
// nothing: a card is frozen or it is not, whoever asked for it. A freeze that begins or ends by itself is refused.
func (b *bridge) parseStatus(r *exchange.Request, status exchange.CardStatus) (*exchange.Call, error) {
	c, err := b.account(r, policy.CardStatus)
	if err != nil {
		return nil, err
	}
	if c.IdempotencyKey, err = idempotencyKey(r); err != nil {
		return nil, err
	}
	c.Status = status
	c.Why = exchange.Why{Initiator: "developer", Reason: "other", At: r.Received}
	if len(r.Body) == 0 {
		return c, nil
	}
	if err := jsonBody(r); err != nil {
		return nil, err
	}
	var body struct {
		Initiator    exchange.Text `json:"initiator"`
		Reason       exchange.Text `json:"reason"`
		ReasonDetail exchange.Text `json:"reason_detail"`
		StartingAt   exchange.Text `json:"starting_at"`
		EndingAt     exchange.Text `json:"ending_at"`
	}
	if err := exchange.DecodeStrict(r.Body, &body); err != nil {
		return nil, &exchange.Failure{Kind: exchange.BadRequest, At: exchange.Place{In: "body"}, Reason: "body", Err: err}
	}
	switch who, why := body.Initiator, body.Reason; {
	case who.Present && who.Value != "developer" && who.Value != "customer":
		return nil, exchange.Wrong("body", "initiator", "initiator")
	case why.Present && !slices.Contains(bridgeReasons, why.Value):
		return nil, exchange.Wrong("body", "reason", "reason")
	case len(body.ReasonDetail.Value) > maxReasonDetail || vault.HoldsPANString(body.ReasonDetail.Value): // it is kept for repetitions [11]
		return nil, exchange.Wrong("body", "reason_detail", "reason_detail")
	case body.StartingAt.Present:
		return nil, exchange.Wrong("body", "starting_at", "scheduled")
	case body.EndingAt.Present:
		return nil, exchange.Wrong("body", "ending_at", "scheduled")
	}
	c.Why.Initiator = cmp.Or(body.Initiator.Value, c.Why.Initiator)
	c.Why.Reason = cmp.Or(body.Reason.Value, c.Why.Reason)
	c.Why.Detail = body.ReasonDetail.Value
	return c, nil
}

// Of a freeze's body. Source: POST …/freeze; the bound of the detail is ours, in bytes.
var bridgeReasons = []string{"lost_or_stolen", "suspicious_activity", "planned_inactivity", "suspected_fraud", "other"}

const maxReasonDetail = 512

// renderStatus writes what was done and what was said of it. Source: POST …/freeze and …/unfreeze. Why a card had been frozen is
// not known when that ends: it is what the caller says.
func (b *bridge) renderStatus(c *exchange.Call, _ *exchange.Result, out *exchange.Response) {
	body := exchange.AppendMember(append(out.Body[:0], '{'), "card_account_id", c.Card)
	body = exchange.AppendMember(append(body, ','), "initiator", c.Why.Initiator)
	body = exchange.AppendMember(append(body, ','), "reason", c.Why.Reason)
	if c.Why.Detail != "" {
		body = exchange.AppendMember(append(body, ','), "reason_detail", c.Why.Detail)
	}
	body = c.Why.At.UTC().AppendFormat(append(body, `,"created_at":"`...), "2006-01-02T15:04:05.000Z")
	word := "freeze_created"
	if c.Status == exchange.Active {
		word = "freeze_removed"
	}
	out.Body = append(exchange.AppendMember(append(body, `",`...), "status", word), '}')
	out.ContentType = jsonType
}
