package sandbox

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
)

// The calls of Payments.
const (
	CallWallet      Call = "wallet"      // GET /wallet
	CallDeposit     Call = "deposit"     // GET /wallet/deposit?currencyId=
	CallPayin       Call = "payin"       // POST /deals/payin
	CallPayout      Call = "payout"      // POST /deals/payout
	CallTLV         Call = "tlv"         // POST /deals/tlv
	CallDeals       Call = "deals"       // GET /deals/list
	CallDeal        Call = "deal"        // GET /deals/{id}
	CallCredentials Call = "credentials" // GET /deals/{id}/credentials
	CallCalculation Call = "calculation" // GET /fx/calculation?amount=
	CallBanks       Call = "banks"       // GET /banks/find
)

// paymentsCalls is the API. The first that fits counts: "list" is no deal's id.
var paymentsCalls = []endpoint[*Payments]{
	{"GET", "/wallet", CallWallet, (*Payments).getWallet},
	{"GET", "/wallet/deposit", CallDeposit, (*Payments).getDeposit},
	{"POST", "/deals/payin", CallPayin, (*Payments).postPayin},
	{"POST", "/deals/payout", CallPayout, (*Payments).postPayout},
	{"POST", "/deals/tlv", CallTLV, (*Payments).postTLV},
	{"GET", "/deals/list", CallDeals, (*Payments).getDeals},
	{"GET", "/deals/{}", CallDeal, (*Payments).getDeal},
	{"GET", "/deals/{}/credentials", CallCredentials, (*Payments).getCredentials},
	{"GET", "/fx/calculation", CallCalculation, (*Payments).getCalculation},
	{"GET", "/banks/find", CallBanks, (*Payments).getBanks},
}

// paymentsErrors are the codes of errors by status, each with its usual message.
var paymentsErrors = map[int]struct{ code, message string }{
	400: {"BAD_REQUEST", "Bad request"},
	401: {"UNAUTHORIZED", "Unauthorized"},
	404: {"NOT_FOUND", "Not found"},
	405: {"METHOD_NOT_ALLOWED", "Method not allowed"},
	409: {"IDEMPOTENCY_KEY_IN_USE", "Idempotency-Key was used for another request, or more than 24 hours ago"},
	413: {"PAYLOAD_TOO_LARGE", "Payload too large"},
	415: {"UNSUPPORTED_MEDIA_TYPE", "Unsupported media type"},
	500: {"INTERNAL_SERVER_ERROR", "Internal server error"},
}

func (p *Payments) failure(status int, message string) *answer {
	e := paymentsErrors[status]
	return &answer{status: status, body: map[string]any{"error": e.code, "message": cmp.Or(message, e.message), "statusCode": status}}
}

// route authenticates, finds the deal where there is one in the path, and carries out the call. A deal of another account is not found.
func (p *Payments) route(req *http.Request) (Call, respond) {
	e, ids, known := find(paymentsCalls, req)
	return e.call, func(body []byte) (*answer, Fault) {
		key, ok := bearer(req.Header)
		account, has := p.accounts[sha256.Sum256([]byte(key))]
		switch {
		case !ok || !has:
			return p.failure(401, ""), Fault{}
		case !known:
			return p.failure(404, ""), Fault{}
		case e.call == CallOther:
			return p.failure(405, ""), Fault{}
		case !isJSON(req, len(body) > 0):
			return p.failure(415, ""), Fault{}
		}
		r := request{Request: req, account: account, body: body}
		if len(ids) > 0 {
			r.id = ids[0]
			if _, ok := p.deal(account, r.id); !ok {
				return p.failure(404, ""), Fault{}
			}
		}
		return p.perform(e.call, p.payee, func() *answer { return p.once(e, r) }, r.id, account)
	}
}

// once carries out a call; one that makes a deal is carried out once under an Idempotency-Key, which may be absent.
func (p *Payments) once(e endpoint[*Payments], r request) *answer {
	if e.method != "POST" || len(r.Header.Values("Idempotency-Key")) == 0 {
		return e.do(p, r)
	}
	key, ok := one(r.Header, "Idempotency-Key")
	if !ok {
		return p.failure(400, "Invalid Idempotency-Key")
	}
	a, ok := p.replays.once(r.account+"\x00"+key, r, func() *answer { return e.do(p, r) })
	if !ok {
		return p.failure(409, "")
	}
	return a
}

func (p *Payments) getWallet(request) *answer {
	return success(map[string]any{"balances": []any{map[string]any{"currency": "EUR", "amount": "1000.00"}}})
}

func (p *Payments) getDeposit(req request) *answer {
	currency, ok := oneOf(req.URL.Query(), "currencyId")
	if !ok {
		return p.failure(400, "currencyId is missing")
	}
	return success(map[string]any{"currencyId": currency, "address": derived("deposit of "+currency, req.account)})
}

func (p *Payments) postPayin(req request) *answer { return p.makeDeal(req, "payin") }

func (p *Payments) postPayout(req request) *answer { return p.makeDeal(req, "payout") }

func (p *Payments) postTLV(req request) *answer { return p.makeDeal(req, "tlv") }

// makeDeal reads the amount and, where it is there, the currency. It does not look into the other members.
func (p *Payments) makeDeal(req request, kind string) *answer {
	var in struct {
		Amount   json.Number `json:"amount"`
		Currency string      `json:"currency"`
	}
	if err := json.Unmarshal(req.body, &in); err != nil {
		return p.failure(400, "")
	}
	if _, ok := positive(in.Amount.String()); !ok {
		return p.failure(400, "amount is missing or not positive")
	}
	return success(dealBody(p.add(req.account, deal{kind: kind, status: "new", amount: in.Amount, currency: in.Currency})))
}

func dealBody(d deal) map[string]any {
	body := map[string]any{"id": d.id, "type": d.kind, "status": d.status, "amount": d.amount}
	if d.currency != "" {
		body["currency"] = d.currency
	}
	return body
}

// maxDeals is how many deals a list shows: the last ones.
const maxDeals = 100

func (p *Payments) getDeals(req request) *answer {
	deals := p.dealsOf(req.account)
	items := make([]any, 0, maxDeals)
	for _, d := range slices.Backward(deals[max(len(deals)-maxDeals, 0):]) {
		items = append(items, dealBody(d))
	}
	return success(map[string]any{"items": items, "total": len(deals)})
}

func (p *Payments) getDeal(req request) *answer {
	d, _ := p.deal(req.account, req.id)
	return success(dealBody(d))
}

// getCredentials answers what a deal is paid to. The bank account is the example of the IBAN registry, which has too few digits in a row for
// a card number.
func (p *Payments) getCredentials(req request) *answer {
	body := map[string]any{"type": "bank", "account_number": "NL91ABNA0417164300", "holder": "Ada Lovelace", "bank": "Sandbox Bank"}
	if d, _ := p.deal(req.account, req.id); d.kind == "payin" {
		body["type"], body["account_number"] = "card", p.payee.PAN
	}
	return success(body)
}

// getCalculation knows one rate for all currencies.
func (p *Payments) getCalculation(req request) *answer {
	const rate = 2
	text, _ := oneOf(req.URL.Query(), "amount")
	amount, ok := positive(text)
	if !ok {
		return p.failure(400, "amount is missing or not positive")
	}
	return success(map[string]any{"amount": amount, "rate": rate, "result": rate * amount})
}

func (p *Payments) getBanks(request) *answer {
	return success(map[string]any{"items": []any{map[string]any{"id": "sandbox-bank", "name": "Sandbox Bank", "country": "NL"}}})
}

// positive reads an amount of money above zero and below 10¹².
func positive(text string) (float64, bool) {
	amount, err := strconv.ParseFloat(text, 64)
	return amount, err == nil && amount > 0 && amount < 1e12
}
