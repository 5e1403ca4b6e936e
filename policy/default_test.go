package policy_test

import (
	"os"
	"testing"

	"github.com/cardstile/cardstile/policy"
)

// TestDefaultPoliciesOfHostedFields: what a deployment begins with lets each of them do its part, and nobody another's.
func TestDefaultPoliciesOfHostedFields(t *testing.T) {
	source, err := os.ReadFile("../deploy/policies/default.cedar")
	if err != nil {
		t.Fatal(err)
	}
	e := engine(t, string(source))
	both := []policy.Field{policy.FieldPAN, policy.FieldCVC}
	key := policy.Proof{Kind: policy.KindAPIKey, Partner: partnerID, Environment: "test"}
	weak := policy.Proof{Kind: policy.KindJWT, Partner: partnerID, Account: "a", Weak: true}
	challenge := func(proofs ...policy.Proof) func(*policy.Request) {
		return func(r *policy.Request) { r.Operation, r.Fields, r.Proofs = policy.ChallengeMint, nil, proofs }
	}
	for name, test := range map[string]struct {
		change func(*policy.Request)
		rule   string // that permits, or that forbids; "" is denied by no rule
	}{
		"a key becomes a bearer":               {asks(policy.SessionMint, nil, key), "key-becomes-access-token"},
		"a bearer becomes no other":            {asks(policy.SessionMint, nil, bearer()), ""},
		"a page logs in nobody":                {asks(policy.SessionMint, nil, fieldsPage()), ""},
		"a bearer begins a page":               {asks(policy.FieldsMint, nil, bearer()), "partner-begins-hosted-fields"},
		"a key begins none":                    {asks(policy.FieldsMint, nil, key), ""},
		"a user begins none":                   {withUser(asks(policy.FieldsMint, nil, userToken(""))), ""},
		"a page reads":                         {asks(policy.FieldsRead, nil, fieldsPage()), "page-submits-card"},
		"a page submits a number":              {asks(policy.FieldSubmit, panOnly, fieldsPage()), "page-submits-card"},
		"a page submits a code":                {asks(policy.FieldSubmit, cvcOnly, fieldsPage()), "page-submits-card"},
		"a page submits a detail":              {asks(policy.FieldSubmit, nil, fieldsPage()), "page-submits-card"},
		"a page takes it together":             {asks(policy.TokenMint, nil, fieldsPage()), "page-submits-card"},
		"a bearer submits none":                {asks(policy.FieldSubmit, panOnly, bearer()), ""},
		"a bearer takes none together":         {asks(policy.TokenMint, nil, bearer()), ""},
		"nobody reads":                         {asks(policy.FieldsRead, nil), ""},
		"a bearer calls":                       {asks(policy.Forward, nil, bearer(), cardToken()), "account-calls"},
		"a held card pays":                     {asks(policy.ForwardSubmit, both, bearer(), cardToken()), "partner-pays-with-held-card"},
		"a held card alone does not":           {asks(policy.ForwardSubmit, both, cardToken()), ""},
		"a bearer submits what it has":         {asks(policy.ForwardSubmit, panOnly, bearer()), "account-sees-fields"},
		"a public key pays with none":          {asks(policy.ForwardSubmit, both, weak, cardToken()), "public-key-sees-no-fields"},
		"a user brings a card":                 {withUser(asks(policy.CardVerify, nil, userToken(""))), "user-brings-card"},
		"a partner brings none":                {asks(policy.CardVerify, nil, bearer()), ""},
		"a public key brings none":             {asks(policy.CardVerify, nil, weak), "public-key-sees-no-fields"},
		"a user asks for what to sign":         {withUser(challenge(userToken(cardID))), "user-asks-for-what-to-sign"},
		"a partner does not":                   {challenge(bearer()), ""},
		"a user asks, but for no card":         {withUser(asks(policy.ChallengeMint, nil, userToken(""))), ""},
		"a token opens for the user who signs": {func(r *policy.Request) { r.User, r.Proofs = userID, []policy.Proof{token(), userToken(cardID)} }, "token-opens-card"},
		"a user's token alone does not":        {func(r *policy.Request) { r.User, r.Proofs = userID, []policy.Proof{userToken(cardID)} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			permit, err := e.Decide(reveal(test.change))
			denied, _ := err.(*policy.Denied)
			switch {
			case denied == nil && permit.Rule() != test.rule:
				t.Errorf("permitted by %q, want %q", permit.Rule(), test.rule)
			case denied != nil && denied.Rule != test.rule:
				t.Errorf("denied (%v), want %q", denied, test.rule)
			}
		})
	}
}
