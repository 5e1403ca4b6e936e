package policy_test

import (
	"slices"
	"testing"

	"github.com/cardstile/cardstile/policy"
)

// Proofs of hosted fields and of payments with what they hold.
func bearer() policy.Proof { return policy.Proof{Kind: policy.KindJWT, Partner: partnerID} }

func fieldsPage() policy.Proof {
	return policy.Proof{Kind: policy.KindFields, Partner: partnerID, Environment: "test"}
}

func userToken(card string) policy.Proof {
	return policy.Proof{Kind: policy.KindJWT, User: userID, Card: card, Environment: "test"}
}

func cardToken(changes ...func(*policy.Grant)) policy.Proof {
	proof := token(append([]func(*policy.Grant){func(g *policy.Grant) { g.Operation, g.Held = policy.ForwardSubmit, "sealed" }}, changes...)...)
	proof.Kind = policy.KindCardToken
	return proof
}

// asks is a request of an operation without a card, with the proofs.
func asks(operation policy.Operation, fields []policy.Field, proofs ...policy.Proof) func(*policy.Request) {
	return func(r *policy.Request) { r.Operation, r.Fields, r.Card, r.Proofs = operation, fields, nil, proofs }
}

var (
	panOnly = []policy.Field{policy.FieldPAN}
	cvcOnly = []policy.Field{policy.FieldCVC}
)

// withUser makes the request that of the user whom a proof names.
func withUser(change func(*policy.Request)) func(*policy.Request) {
	return func(r *policy.Request) { change(r); r.User = userID }
}

func TestHostedFieldsBeforeRules(t *testing.T) {
	all := engine(t, permitAll)
	for name, test := range map[string]struct {
		change func(*policy.Request)
		reason string // "" is permitted
	}{
		"bearer mints a session":     {asks(policy.FieldsMint, nil, bearer()), ""},
		"bearer of nobody":           {asks(policy.FieldsMint, nil, policy.Proof{Kind: policy.KindJWT}), policy.DeniedProof},
		"bearer of another partner":  {asks(policy.FieldsMint, nil, policy.Proof{Kind: policy.KindJWT, Partner: "other"}), policy.DeniedProof},
		"account without partner":    {asks(policy.Forward, nil, policy.Proof{Kind: policy.KindJWT, Account: "a"}), policy.DeniedProof},
		"fields.mint has no field":   {asks(policy.FieldsMint, panOnly, bearer()), policy.DeniedError},
		"page reads":                 {asks(policy.FieldsRead, nil, fieldsPage()), ""},
		"page submits a number":      {asks(policy.FieldSubmit, panOnly, fieldsPage()), ""},
		"page submits a code":        {asks(policy.FieldSubmit, cvcOnly, fieldsPage()), ""},
		"page submits both":          {asks(policy.FieldSubmit, []policy.Field{"cvc", "pan"}, fieldsPage()), ""},
		"page submits a detail":      {asks(policy.FieldSubmit, nil, fieldsPage()), ""},
		"page submits a PIN":         {asks(policy.FieldSubmit, []policy.Field{"pin"}, fieldsPage()), policy.DeniedError},
		"page submits an account":    {asks(policy.FieldSubmit, []policy.Field{"account"}, fieldsPage()), policy.DeniedError},
		"page submits a field twice": {asks(policy.FieldSubmit, []policy.Field{"pan", "pan"}, fieldsPage()), policy.DeniedError},
		"page takes it together":     {asks(policy.TokenMint, nil, fieldsPage()), ""},
		"page of nobody":             {asks(policy.FieldsRead, nil, policy.Proof{Kind: policy.KindFields}), policy.DeniedProof},
		"page of another partner":    {asks(policy.FieldsRead, nil, policy.Proof{Kind: policy.KindFields, Partner: "other"}), policy.DeniedProof},
		"page of production": {asks(policy.FieldsRead, nil, policy.Proof{
			Kind: policy.KindFields, Partner: partnerID, Environment: "production",
		}), policy.DeniedEnvironment},
		"page with a grant": {func(r *policy.Request) {
			asks(policy.FieldsRead, nil, token())(r)
			r.Proofs[0].Kind = policy.KindFields
		}, policy.DeniedProof},

		// A page's session stands in a URL of a browser: it is the partner's for nothing else, whatever stands beside it.
		"page mints a session":      {asks(policy.FieldsMint, nil, fieldsPage()), policy.DeniedProof},
		"page forwards":             {asks(policy.Forward, nil, fieldsPage()), policy.DeniedProof},
		"page forwards, with a JWT": {asks(policy.Forward, nil, bearer(), fieldsPage()), policy.DeniedProof},
		"page logs in":              {asks(policy.SessionMint, nil, fieldsPage()), policy.DeniedProof},
		"page reveals":              {func(r *policy.Request) { r.Proofs = []policy.Proof{fieldsPage()} }, policy.DeniedProof},
		"page sees a profile": {func(r *policy.Request) {
			r.Operation, r.Fields, r.Proofs = policy.CardProfile, nil, []policy.Proof{fieldsPage()}
		}, policy.DeniedProof},

		"held card is forwarded":     {asks(policy.Forward, nil, bearer(), cardToken()), ""},
		"held card is submitted":     {asks(policy.ForwardSubmit, []policy.Field{"pan", "cvc"}, bearer(), cardToken()), ""},
		"its answer is seen":         {asks(policy.ForwardReveal, panOnly, bearer(), cardToken()), ""},
		"held card of another face":  {asks(policy.Forward, nil, cardToken(func(g *policy.Grant) { g.Face = "exa" })), policy.DeniedBound},
		"held card of a card":        {asks(policy.Forward, nil, cardToken(boundTo(policy.ForwardSubmit, cardID))), policy.DeniedBound},
		"held card for a reveal":     {asks(policy.Forward, nil, cardToken(boundTo(policy.CardReveal, ""))), policy.DeniedBound},
		"held card for a forward":    {asks(policy.Forward, nil, cardToken(boundTo(policy.Forward, ""))), policy.DeniedBound},
		"held card for anything":     {asks(policy.Forward, nil, cardToken(boundTo("", ""))), policy.DeniedBound},
		"held card of a user":        {asks(policy.Forward, nil, cardToken(func(g *policy.Grant) { g.User = userID })), policy.DeniedProof},
		"held card in production":    {asks(policy.Forward, nil, cardToken(func(g *policy.Grant) { g.Environment = "production" })), policy.DeniedEnvironment},
		"held card of another":       {asks(policy.Forward, nil, cardToken(func(g *policy.Grant) { g.Partner = "other" })), policy.DeniedProof},
		"held card without card":     {asks(policy.Forward, nil, cardToken(func(g *policy.Grant) { g.Held = "" })), policy.DeniedProof},
		"held card without grant":    {asks(policy.Forward, nil, policy.Proof{Kind: policy.KindCardToken, Partner: partnerID}), policy.DeniedProof},
		"held card mints":            {asks(policy.TokenMint, nil, cardToken()), policy.DeniedBound},
		"held card mints a session":  {asks(policy.FieldsMint, nil, bearer(), cardToken()), policy.DeniedBound},
		"held card is verified":      {asks(policy.CardVerify, nil, cardToken()), policy.DeniedBound},
		"token with a held card":     {asks(policy.Forward, nil, token(func(g *policy.Grant) { g.Held = "sealed" })), policy.DeniedProof},
		"held card reveals":          {func(r *policy.Request) { r.Proofs = []policy.Proof{cardToken()} }, policy.DeniedBound},
		"held card reveals, allowed": {func(r *policy.Request) { r.Proofs, r.UnboundTokens = []policy.Proof{cardToken()}, "allow" }, policy.DeniedBound},

		"user verifies a card":              {withUser(asks(policy.CardVerify, nil, userToken(""))), ""},
		"user verifies a number":            {withUser(asks(policy.CardVerify, panOnly, userToken(""))), ""},
		"user verifies a code":              {withUser(asks(policy.CardVerify, cvcOnly, userToken(""))), policy.DeniedError},
		"user of one card verifies another": {withUser(asks(policy.CardVerify, nil, userToken(cardID))), policy.DeniedProof},
		"user's card":                       {func(r *policy.Request) { r.User, r.Proofs = userID, []policy.Proof{token(), userToken(cardID)} }, ""},
		"user's other card":                 {func(r *policy.Request) { r.User, r.Proofs = userID, []policy.Proof{token(), userToken("another")} }, policy.DeniedNotHolder},
		"user's other card, in another case": {func(r *policy.Request) {
			r.User, r.Proofs = userID, []policy.Proof{token(), userToken("123E4567-E89B-12D3-A456-426655440000")}
		}, policy.DeniedNotHolder},
		"user's card, unknown": {func(r *policy.Request) {
			r.User, r.Proofs, r.Card = userID, []policy.Proof{token(), userToken(cardID)}, nil
		}, policy.DeniedUnknownCard},
		"wallet's other card": {func(r *policy.Request) {
			r.User = userID
			r.Proofs = []policy.Proof{token(), userToken(""), {Kind: policy.KindWallet, User: userID, Card: "another"}}
		}, policy.DeniedNotHolder},
		"wallet's card": {func(r *policy.Request) {
			r.User = userID
			r.Proofs = []policy.Proof{token(), userToken(cardID), {Kind: policy.KindWallet, User: userID, Card: cardID}}
		}, ""},
		"challenge for the user's other card": {func(r *policy.Request) {
			r.Operation, r.Fields, r.User, r.Proofs = policy.ChallengeMint, nil, userID, []policy.Proof{userToken("another")}
		}, policy.DeniedNotHolder},
	} {
		t.Run(name, func(t *testing.T) {
			r := reveal(test.change)
			if test.reason != "" {
				denied(t, all, r, test.reason)
				return
			}
			permitted(t, all, r)
		})
	}
}

// TestHostedFieldsRules: each thing that a page submits is a decision of its own, and rules can ask for the new proofs.
func TestHostedFieldsRules(t *testing.T) {
	for name, test := range map[string]struct {
		source string
		change func(*policy.Request)
		allows []policy.Field
		reason string // "" is permitted
	}{
		"number alone":        {`permit (principal, action == Action::"field.submit.pan", resource);`, asks(policy.FieldSubmit, panOnly, fieldsPage()), panOnly, ""},
		"number, code asked":  {`permit (principal, action == Action::"field.submit.pan", resource);`, asks(policy.FieldSubmit, cvcOnly, fieldsPage()), nil, policy.DeniedNoPolicy},
		"number, both asked":  {`permit (principal, action == Action::"field.submit.pan", resource);`, asks(policy.FieldSubmit, []policy.Field{"pan", "cvc"}, fieldsPage()), panOnly, ""},
		"number, detail":      {`permit (principal, action == Action::"field.submit.pan", resource);`, asks(policy.FieldSubmit, nil, fieldsPage()), nil, policy.DeniedNoPolicy},
		"detail alone":        {`permit (principal, action == Action::"field.submit.detail", resource);`, asks(policy.FieldSubmit, nil, fieldsPage()), nil, ""},
		"detail, number":      {`permit (principal, action == Action::"field.submit.detail", resource);`, asks(policy.FieldSubmit, panOnly, fieldsPage()), nil, policy.DeniedNoPolicy},
		"group":               {`permit (principal, action in Action::"field.submit", resource);`, asks(policy.FieldSubmit, []policy.Field{"pan", "cvc"}, fieldsPage()), []policy.Field{"pan", "cvc"}, ""},
		"group, detail":       {`permit (principal, action in Action::"field.submit", resource);`, asks(policy.FieldSubmit, nil, fieldsPage()), nil, ""},
		"fields proof":        {`permit (principal, action, resource) when { context.proofs.fields && !context.proofs.card_token && !context.proofs.jwt };`, asks(policy.FieldsRead, nil, fieldsPage()), nil, ""},
		"card token proof":    {`permit (principal, action, resource) when { context.proofs.card_token && !context.proofs.token && !context.proofs.fields };`, asks(policy.Forward, nil, cardToken()), nil, ""},
		"page's assurance":    {`permit (principal, action, resource) when { context.assurance == "high" };`, asks(policy.FieldsRead, nil, fieldsPage()), nil, ""},
		"verified card":       {`permit (principal, action == Action::"card.verify", resource is Issuer) when { context.field == "pan" };`, withUser(asks(policy.CardVerify, nil, userToken(""))), panOnly, ""},
		"weak, and a payment": {`permit (principal, action, resource) when { context.assurance == "low" };`, asks(policy.Forward, nil, policy.Proof{Kind: policy.KindJWT, Partner: partnerID, Account: "a", Weak: true}, cardToken()), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e, r := engine(t, test.source), reveal(test.change)
			if test.reason != "" {
				denied(t, e, r, test.reason)
				return
			}
			permit := permitted(t, e, r)
			for _, field := range []policy.Field{policy.FieldPAN, policy.FieldCVC, policy.FieldPIN, policy.FieldAccount} {
				if permit.Allows(field) != slices.Contains(test.allows, field) {
					t.Errorf("%s: %t", field, permit.Allows(field))
				}
			}
		})
	}
}
