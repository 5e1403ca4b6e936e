package face

import (
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/vault"
)

// sealedBody reads {"data","iv"}, both required.
func sealedBody(body []byte) (vault.Sealed, error) {
	var in struct {
		Data *string `json:"data"`
		IV   *string `json:"iv"`
	}
	if err := exchange.DecodeStrict(body, &in); err != nil {
		return vault.Sealed{}, &exchange.Failure{Kind: exchange.BadRequest, Reason: "body", Err: err}
	}
	if in.Data == nil || in.IV == nil || *in.Data == "" || *in.IV == "" {
		return vault.Sealed{}, exchange.Fail(exchange.BadRequest, "body")
	}
	return vault.Sealed{Data: *in.Data, IV: *in.IV}, nil
}

// appendPIN appends a sealed PIN block, or null where the card has no PIN.
func appendPIN(dst []byte, res *exchange.Result) []byte {
	if !res.PINSet {
		return append(dst, "null"...)
	}
	return appendSealed(dst, res.PIN)
}
