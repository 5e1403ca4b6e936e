package policy_test

import (
	"slices"
	"testing"

	"github.com/cardstile/cardstile/policy"
)

// signed is what a user's wallet signed for a card.
func signed(card string) policy.Proof {
	return policy.Proof{Kind: policy.KindWallet, User: userID, Card: card, Environment: "test"}
}

// TestUserSignatures: where a route requires the signature of the user's wallet, nothing else that says who the user is opens a card
// beside an unbound token; what needs none, or what a signature is not enough for, is as it is elsewhere [1].
func TestUserSignatures(t *testing.T) {
	shows := func(proofs ...policy.Proof) func(*policy.Request) {
		return func(r *policy.Request) {
			r.Proofs = proofs
			if slices.ContainsFunc(proofs, func(p policy.Proof) bool { return p.User != "" }) {
				r.User = userID
			}
		}
	}
	does := func(operation policy.Operation, fields []policy.Field, proofs ...policy.Proof) func(*policy.Request) {
		return func(r *policy.Request) { shows(proofs...)(r); r.Operation, r.Fields = operation, fields }
	}
	pin := []policy.Field{policy.FieldPIN}
	passkey := policy.Proof{Kind: policy.KindPasskey, User: userID, Card: cardID, Environment: "test"}
	foreign := signed(cardID)
	foreign.User = "bob"
	all := engine(t, permitAll)
	for name, test := range map[string]struct {
		change    func(*policy.Request)
		signature string // why it is denied there, "" is permitted
		proof     string // where any user's proof is enough
	}{
		"token alone":                      {shows(token()), policy.DeniedUnboundToken, policy.DeniedUnboundToken},
		"user's token":                     {shows(token(), userToken("")), policy.DeniedUnboundToken, ""},
		"user's token for the card":        {shows(token(), userToken(cardID)), policy.DeniedUnboundToken, ""},
		"cookie":                           {shows(token(), cookie()), policy.DeniedUnboundToken, ""},
		"passkey":                          {shows(token(), passkey), policy.DeniedUnboundToken, ""},
		"user's token and cookie":          {shows(token(), userToken(""), cookie()), policy.DeniedUnboundToken, ""},
		"certificate":                      {shows(token(), certificate()), policy.DeniedUnboundToken, policy.DeniedUnboundToken},
		"wallet":                           {shows(token(), userToken(""), signed(cardID)), "", ""},
		"wallet, without a user's token":   {shows(token(), signed(cardID)), "", ""},
		"wallet, in another order":         {shows(signed(cardID), userToken(""), token()), "", ""},
		"wallet for another card":          {shows(token(), userToken(""), signed("another")), policy.DeniedNotHolder, policy.DeniedNotHolder},
		"another user's wallet":            {shows(token(), userToken(""), foreign), policy.DeniedProof, policy.DeniedProof},
		"wallet in production":             {shows(token(), policy.Proof{Kind: policy.KindWallet, User: userID, Card: cardID, Environment: "production"}), policy.DeniedEnvironment, policy.DeniedEnvironment},
		"wallet of nobody":                 {shows(token(), policy.Proof{Kind: policy.KindWallet, Card: cardID}), policy.DeniedProof, policy.DeniedProof},
		"half bound: operation":            {shows(token(boundTo(policy.CardReveal, "")), userToken("")), policy.DeniedUnboundToken, ""},
		"half bound: operation, wallet":    {shows(token(boundTo(policy.CardReveal, "")), signed(cardID)), "", ""},
		"half bound: card":                 {shows(token(boundTo("", cardID)), userToken("")), policy.DeniedUnboundToken, ""},
		"bound":                            {shows(token(boundTo(policy.CardReveal, cardID))), "", ""},
		"bound, beside unbound":            {shows(token(boundTo(policy.CardReveal, cardID)), token()), policy.DeniedUnboundToken, policy.DeniedUnboundToken},
		"bound for another, wallet":        {shows(token(boundTo(policy.PINReveal, cardID)), signed(cardID)), policy.DeniedBound, policy.DeniedBound},
		"no token: cookie":                 {shows(cookie()), "", ""},
		"PIN, user's token":                {does(policy.PINReveal, pin, token(), userToken("")), policy.DeniedUnboundToken, ""},
		"PIN, wallet":                      {does(policy.PINReveal, pin, token(), signed(cardID)), "", ""},
		"new PIN, user's token":            {does(policy.PINSet, pin, token(), userToken("")), policy.DeniedUnboundToken, ""},
		"new PIN, wallet":                  {does(policy.PINSet, pin, token(), signed(cardID)), "", ""},
		"what there is to sign, no wallet": {does(policy.ChallengeMint, nil, userToken("")), "", ""},
	} {
		for mode, reason := range map[string]string{policy.UnboundWithUserSignature: test.signature, policy.UnboundWithUserProof: test.proof, "": test.proof} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				r := reveal(test.change)
				r.UnboundTokens = mode
				if reason != "" {
					denied(t, all, r, reason)
					return
				}
				permitted(t, all, r)
			})
		}
	}
	// A signature opens nothing where nothing does, and is not asked for where all is open.
	for mode, reason := range map[string]string{policy.UnboundRefuse: policy.DeniedUnboundToken, policy.UnboundAllow: ""} {
		r := reveal(shows(token(), userToken(""), signed(cardID)))
		r.UnboundTokens = mode
		if reason != "" {
			denied(t, all, r, reason)
			continue
		}
		permitted(t, all, r)
	}
	for _, mode := range []string{"with_user_signatur", "With_User_Signature", "with_user_signature "} {
		r := reveal(shows(token(), signed(cardID)))
		r.UnboundTokens = mode
		denied(t, all, r, policy.DeniedError)
	}
	// Rules come after it.
	r := reveal(shows(token(), signed(cardID)))
	r.UnboundTokens = policy.UnboundWithUserSignature
	denied(t, engine(t, permitAll+` forbid (principal, action, resource) when { context.proofs.wallet };`), r, policy.DeniedForbidden)
}
