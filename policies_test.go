package main

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
)

// defaultEngine is an engine of the policies that a deployment begins with.
func defaultEngine(t *testing.T) *policy.Engine {
	t.Helper()
	source, err := os.ReadFile("deploy/policies/default.cedar")
	if err != nil {
		t.Fatal(err)
	}
	e, err := policy.NewEngine(policy.EngineConfig{Policies: []policy.PolicyFile{{Name: "default.cedar", Source: source}}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestDefaultPolicies: with what a deployment begins with each operation is done by those whom it is for, a session of low
// assurance sees no card field [23], and nobody does anything without a credential.
func TestDefaultPolicies(t *testing.T) {
	e := defaultEngine(t)
	partner := &policy.Partner{ID: "p", Environment: "test"}
	card := &policy.Holding{Card: "c", Issuer: "i", IssuerCard: "ic", Partners: []string{"p"}, Users: []string{"u"}, Environment: "test"}
	key := policy.Proof{Kind: policy.KindAPIKey, Partner: "p"}
	certificate := policy.Proof{Kind: policy.KindCertificate, Partner: "p", Certificate: [32]byte{1}}
	cookie := policy.Proof{Kind: policy.KindCookie, User: "u"}
	wallet := policy.Proof{Kind: policy.KindWallet, User: "u"}
	extension := policy.Proof{Kind: policy.KindJWT, User: "u"}
	account := func(kind policy.Kind, weak bool) policy.Proof {
		return policy.Proof{Kind: kind, Partner: "p", Account: "a", Weak: weak}
	}
	token := policy.Proof{Kind: policy.KindToken, Partner: "p", Grant: &policy.Grant{
		Partner: "p", Environment: "test", MintedAt: 1, Face: "f", Operation: policy.CardReveal, Card: "c",
	}}
	pan, cvc, number := policy.FieldPAN, policy.FieldCVC, policy.FieldAccount
	for _, row := range []struct {
		name   string
		op     policy.Operation
		proofs []policy.Proof
		user   string
		card   *policy.Holding
		fields []policy.Field
		denied string // the rule that forbids, or "default"

		anonymous bool
	}{
		{name: "mint with a certificate", op: policy.TokenMint, proofs: []policy.Proof{certificate}},
		{name: "mint with a key, for a card", op: policy.TokenMint, proofs: []policy.Proof{key}, card: card},
		{name: "mint with a key, for no card", op: policy.TokenMint, proofs: []policy.Proof{key}, denied: "default"},
		{name: "reveal with a token", op: policy.CardReveal, proofs: []policy.Proof{token}, card: card, fields: []policy.Field{pan, cvc}},
		{name: "reveal with a key alone", op: policy.CardReveal, proofs: []policy.Proof{key}, card: card, fields: []policy.Field{pan, cvc}, denied: "default"},
		{name: "freeze with a key", op: policy.CardStatus, proofs: []policy.Proof{key}, card: card},
		{name: "try to log in", op: policy.ChallengeMint, anonymous: true},
		{name: "log in as nobody", op: policy.SessionMint, anonymous: true, denied: "default"},
		{name: "log in", op: policy.SessionMint, proofs: []policy.Proof{wallet}, user: "u"},
		{name: "log in with a cookie", op: policy.SessionMint, proofs: []policy.Proof{cookie}, user: "u", denied: "default"},
		{name: "see one's own card", op: policy.CardReveal, proofs: []policy.Proof{cookie}, user: "u", card: card, fields: []policy.Field{pan}},
		{name: "set one's own PIN", op: policy.PINSet, proofs: []policy.Proof{cookie}, user: "u", card: card},
		{name: "link without a signature", op: policy.CardLink, proofs: []policy.Proof{cookie}, user: "u", card: card, denied: "default"},
		{name: "link", op: policy.CardLink, proofs: []policy.Proof{cookie, wallet}, user: "u", card: card},
		{name: "provision", op: policy.CardProvision, proofs: []policy.Proof{extension}, user: "u", card: card},
		{name: "reveal with an extension's token", op: policy.CardReveal, proofs: []policy.Proof{extension}, user: "u", card: card, fields: []policy.Field{pan}, denied: "default"},
		{name: "account logs in", op: policy.SessionMint, proofs: []policy.Proof{account(policy.KindPublicKey, true)}},
		{name: "account calls, weakly", op: policy.Forward, proofs: []policy.Proof{account(policy.KindJWT, true)}},
		{name: "account sees fields", op: policy.ForwardReveal, proofs: []policy.Proof{account(policy.KindJWT, false)}, fields: []policy.Field{number}},
		{name: "account sees fields, weakly", op: policy.ForwardReveal, proofs: []policy.Proof{account(policy.KindJWT, true)}, fields: []policy.Field{number}, denied: "public-key-sees-no-fields"},
		{name: "account submits fields, weakly", op: policy.ForwardSubmit, proofs: []policy.Proof{account(policy.KindJWT, true)}, fields: []policy.Field{pan}, denied: "public-key-sees-no-fields"},
		{name: "account sees fields, weakly, and signs", op: policy.ForwardReveal, fields: []policy.Field{number}, proofs: []policy.Proof{account(policy.KindSignature, false), account(policy.KindJWT, true)}, denied: "public-key-sees-no-fields"},
		{name: "account that signed to log in sees fields", op: policy.ForwardReveal, fields: []policy.Field{number}, proofs: []policy.Proof{account(policy.KindJWT, false), account(policy.KindSignature, false)}},
		{name: "forward with nothing", op: policy.Forward, denied: "default"},
	} {
		r := policy.Request{
			Operation: row.op, Fields: row.fields, Partner: partner, User: row.user, Card: row.card, Issuer: "i", Face: "f", Proofs: row.proofs,
			Environment: "test", Address: netip.MustParseAddr("192.0.2.1"), Time: time.Now(), Exchange: "x",
		}
		if row.anonymous {
			r.Partner = nil
		}
		_, err := e.Decide(&r)
		var denied *policy.Denied
		switch {
		case row.denied == "" && err != nil:
			t.Errorf("%s: %v", row.name, err)
		case row.denied != "" && !errors.As(err, &denied):
			t.Errorf("%s: %v, want a denial", row.name, err)
		case row.denied != "" && row.denied != "default" && denied.Rule != row.denied:
			t.Errorf("%s: denied by %q, want %q", row.name, denied.Rule, row.denied)
		}
	}
}
