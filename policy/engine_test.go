package policy_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/policy"
)

// The cast of these tests: partner gp-demo, its user ada, and her card.
const (
	partnerID = "gp-demo"
	userID    = "ada"
	cardID    = "123e4567-e89b-12d3-a456-426655440000"
)

func partner() *policy.Partner { return &policy.Partner{ID: partnerID, Environment: "test"} }

func card() *policy.Holding {
	return &policy.Holding{
		Card: cardID, Issuer: "rain", IssuerCard: "rain-1", Environment: "test",
		Partners: []string{"other", partnerID}, Users: []string{"bob", userID},
	}
}

func certificate() policy.Proof {
	return policy.Proof{Kind: policy.KindCertificate, Partner: partnerID, Certificate: [32]byte{1}}
}

func cookie() policy.Proof { return policy.Proof{Kind: policy.KindCookie, User: userID} }

// token is a redeemed token. The functions change its grant.
func token(changes ...func(*policy.Grant)) policy.Proof {
	grant := &policy.Grant{Partner: partnerID, Environment: "test", MintedAt: 1, Face: "gnosispay"}
	for _, change := range changes {
		change(grant)
	}
	return policy.Proof{Kind: policy.KindToken, Partner: grant.Partner, User: grant.User, Grant: grant}
}

func boundTo(operation policy.Operation, card string) func(*policy.Grant) {
	return func(g *policy.Grant) { g.Operation, g.Card = operation, card }
}

// reveal is a request that everything speaks for. The functions change it.
func reveal(changes ...func(*policy.Request)) *policy.Request {
	r := &policy.Request{
		Operation: policy.CardReveal, Fields: []policy.Field{policy.FieldPAN, policy.FieldCVC},
		Partner: partner(), Card: card(), Issuer: "rain", Face: "gnosispay", Environment: "test",
		Proofs:  []policy.Proof{token(boundTo(policy.CardReveal, cardID))},
		Address: netip.MustParseAddr("192.0.2.7"), Time: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), Exchange: "x-1",
	}
	for _, change := range changes {
		change(r)
	}
	return r
}

func engine(t testing.TB, source string) *policy.Engine {
	t.Helper()
	e, err := policy.NewEngine(policy.EngineConfig{Policies: []policy.PolicyFile{{Name: "a.cedar", Source: []byte(source)}}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

const permitAll = `@id("all") permit (principal, action, resource);`

// denied checks that nothing is permitted, and why.
func denied(t *testing.T, e *policy.Engine, r *policy.Request, reason string) *policy.Denied {
	t.Helper()
	permit, err := e.Decide(r)
	d, ok := errors.AsType[*policy.Denied](err)
	if !ok {
		t.Fatalf("Decide = %v, want *Denied %q", err, reason)
	}
	if d.Reason != reason {
		t.Fatalf("denied %q (%s), want %q", d.Reason, d.Detail, reason)
	}
	if permit != (policy.Permit{}) {
		t.Fatalf("a permit beside a denial: %+v", permit)
	}
	return d
}

func permitted(t *testing.T, e *policy.Engine, r *policy.Request) policy.Permit {
	t.Helper()
	permit, err := e.Decide(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(permit.Binding()) != 32 || permit.Operation() != r.Operation || permit.Rule() == "" {
		t.Fatalf("an empty permit: %+v", permit)
	}
	return permit
}

func TestZeroPermitAllowsNothing(t *testing.T) {
	var p policy.Permit
	if p.Binding() != nil || p.Rule() != "" || p.Operation() != "" {
		t.Errorf("the zero permit says something: %+v", p)
	}
	for _, field := range []policy.Field{"", policy.FieldPAN, policy.FieldCVC, policy.FieldPIN, "other"} {
		if p.Allows(field) {
			t.Errorf("the zero permit allows %q", field)
		}
	}
}

func TestZeroValuesAreDenied(t *testing.T) {
	all := engine(t, permitAll)
	denied(t, all, &policy.Request{}, policy.DeniedError)
	denied(t, all, nil, policy.DeniedError)
	denied(t, nil, reveal(), policy.DeniedError)
	denied(t, new(policy.Engine), reveal(), policy.DeniedNoPolicy)
	denied(t, all, reveal(func(r *policy.Request) { r.Proofs = []policy.Proof{{}} }), policy.DeniedProof)
	denied(t, all, reveal(func(r *policy.Request) { r.Card, r.Proofs = &policy.Holding{}, []policy.Proof{certificate()} }), policy.DeniedUnknownCard)
	denied(t, all, reveal(func(r *policy.Request) { r.Partner = &policy.Partner{} }), policy.DeniedError)
}

// noCard asks for a card that the directory does not know, with a proof that is
// bound to nothing.
func noCard(operation policy.Operation, fields ...policy.Field) func(*policy.Request) {
	return func(r *policy.Request) {
		r.Operation, r.Fields, r.Card, r.Proofs = operation, fields, nil, []policy.Proof{certificate()}
	}
}

func TestDecideBeforeRules(t *testing.T) {
	all := engine(t, permitAll)
	permitted(t, all, reveal())
	grant := func(changes ...func(*policy.Grant)) func(*policy.Request) {
		return func(r *policy.Request) { r.Proofs = []policy.Proof{token(changes...)} }
	}
	bound := boundTo(policy.CardReveal, cardID)
	for name, test := range map[string]struct {
		change func(*policy.Request)
		reason string
	}{
		"no time":               {func(r *policy.Request) { r.Time = time.Time{} }, policy.DeniedError},
		"no address":            {func(r *policy.Request) { r.Address = netip.Addr{} }, policy.DeniedError},
		"no exchange":           {func(r *policy.Request) { r.Exchange = "" }, policy.DeniedError},
		"no issuer":             {func(r *policy.Request) { r.Issuer = "" }, policy.DeniedError},
		"unknown operation":     {func(r *policy.Request) { r.Operation = "card.steal" }, policy.DeniedError},
		"no fields":             {func(r *policy.Request) { r.Fields = nil }, policy.DeniedError},
		"unknown field":         {func(r *policy.Request) { r.Fields = []policy.Field{"expiry"} }, policy.DeniedError},
		"unknown beside PAN":    {func(r *policy.Request) { r.Fields = []policy.Field{"pan", "expiry"} }, policy.DeniedError},
		"field twice":           {func(r *policy.Request) { r.Fields = []policy.Field{"pan", "pan"} }, policy.DeniedError},
		"PIN beside PAN":        {func(r *policy.Request) { r.Fields = []policy.Field{"pan", "pin"} }, policy.DeniedError},
		"PAN with PIN reveal":   {func(r *policy.Request) { r.Operation, r.Fields = policy.PINReveal, []policy.Field{"pan"} }, policy.DeniedError},
		"PAN with profile":      {func(r *policy.Request) { r.Operation, r.Fields = policy.CardProfile, []policy.Field{"pan"} }, policy.DeniedError},
		"unknown unbound mode":  {func(r *policy.Request) { r.UnboundTokens = "yes" }, policy.DeniedError},
		"partner disabled":      {func(r *policy.Request) { r.Partner.Disabled = true }, policy.DeniedDisabled},
		"partner's environment": {func(r *policy.Request) { r.Partner.Environment = "production" }, policy.DeniedEnvironment},
		"partner without one":   {func(r *policy.Request) { r.Partner.Environment = "" }, policy.DeniedEnvironment},
		"card's environment":    {func(r *policy.Request) { r.Card.Environment = "production" }, policy.DeniedEnvironment},
		"listener's":            {func(r *policy.Request) { r.Environment = "production" }, policy.DeniedEnvironment},
		"token's environment":   {grant(bound, func(g *policy.Grant) { g.Environment = "production" }), policy.DeniedEnvironment},
		"key's environment": {func(r *policy.Request) {
			r.Proofs = append(r.Proofs, policy.Proof{Kind: policy.KindAPIKey, Partner: partnerID, Environment: "production"})
		}, policy.DeniedEnvironment},

		"no card":           {noCard(policy.CardReveal, policy.FieldPAN), policy.DeniedUnknownCard},
		"no card, profile":  {noCard(policy.CardProfile), policy.DeniedUnknownCard},
		"no card, PIN":      {noCard(policy.PINReveal), policy.DeniedUnknownCard},
		"no card, PIN set":  {noCard(policy.PINSet), policy.DeniedUnknownCard},
		"another issuer's":  {func(r *policy.Request) { r.Card.Issuer = "bridge" }, policy.DeniedUnknownCard},
		"another partner's": {func(r *policy.Request) { r.Card.Partners = []string{"other"} }, policy.DeniedNotHolder},
		"nobody's":          {func(r *policy.Request) { r.Card.Partners = nil }, policy.DeniedNotHolder},
		"anonymous":         {func(r *policy.Request) { r.Partner, r.Proofs = nil, nil }, policy.DeniedNotHolder},
		"anonymous, cookie": {func(r *policy.Request) { r.Partner, r.User, r.Proofs = nil, userID, []policy.Proof{cookie()} }, policy.DeniedNotHolder},
		"another user's": {func(r *policy.Request) {
			r.User, r.Proofs, r.Card.Users = userID, []policy.Proof{cookie()}, []string{"bob"}
		}, policy.DeniedNotHolder},
		"no user's":          {func(r *policy.Request) { r.User, r.Proofs, r.Card.Users = userID, []policy.Proof{cookie()}, nil }, policy.DeniedNotHolder},
		"similar partner id": {func(r *policy.Request) { r.Card.Partners = []string{"gp-demo2", "gp-dem", "GP-DEMO"} }, policy.DeniedNotHolder},

		"user without proof": {func(r *policy.Request) { r.User = userID }, policy.DeniedProof},
		"proof of another user": {func(r *policy.Request) {
			r.User, r.Proofs = "bob", []policy.Proof{cookie()}
		}, policy.DeniedProof},
		"proof of a user, request of none": {func(r *policy.Request) { r.Proofs = []policy.Proof{cookie()} }, policy.DeniedProof},
		"two users": {func(r *policy.Request) {
			r.User, r.Proofs = userID, []policy.Proof{cookie(), {Kind: policy.KindCookie, User: "bob"}}
		}, policy.DeniedProof},
		"certificate of another partner": {func(r *policy.Request) {
			r.Proofs = append(r.Proofs, policy.Proof{Kind: policy.KindCertificate, Partner: "other", Certificate: [32]byte{1}})
		}, policy.DeniedProof},
		"certificate of nobody": {func(r *policy.Request) {
			r.Proofs[0] = policy.Proof{Kind: policy.KindCertificate, Certificate: [32]byte{1}}
		}, policy.DeniedProof},
		"certificate without hash": {func(r *policy.Request) { r.Proofs[0] = policy.Proof{Kind: policy.KindCertificate, Partner: partnerID} }, policy.DeniedProof},
		"key of nobody":            {func(r *policy.Request) { r.Proofs[0] = policy.Proof{Kind: policy.KindAPIKey} }, policy.DeniedProof},
		"key of another partner":   {func(r *policy.Request) { r.Proofs[0] = policy.Proof{Kind: policy.KindAPIKey, Partner: "other"} }, policy.DeniedProof},
		"cookie of nobody":         {func(r *policy.Request) { r.Proofs[0] = policy.Proof{Kind: policy.KindCookie} }, policy.DeniedProof},
		"unknown kind":             {func(r *policy.Request) { r.Proofs[0].Kind = "password" }, policy.DeniedProof},
		"token without grant":      {func(r *policy.Request) { r.Proofs[0].Grant = nil }, policy.DeniedProof},
		"grant with a cookie": {func(r *policy.Request) {
			r.User, r.Proofs[0].Kind, r.Proofs[0].User = userID, policy.KindCookie, userID
		}, policy.DeniedProof},
		"token of another partner": {grant(bound, func(g *policy.Grant) { g.Partner = "other" }), policy.DeniedProof},
		"token's grant of another partner": {func(r *policy.Request) {
			r.Proofs[0].Grant.Partner = "other"
		}, policy.DeniedProof},

		// What a token is bound to comes first: it tells nothing about another card.
		"bound, and no such card": {func(r *policy.Request) { r.Card = nil }, policy.DeniedBound},
		"bound, and another partner's card": {func(r *policy.Request) {
			r.Card.Card, r.Card.Partners = "another", []string{"other"}
		}, policy.DeniedBound},
		"bound to another operation":   {grant(boundTo(policy.PINReveal, cardID)), policy.DeniedBound},
		"bound to another card":        {grant(boundTo(policy.CardReveal, "another")), policy.DeniedBound},
		"bound to the operation alone": {grant(boundTo(policy.PINSet, "")), policy.DeniedBound},
		"bound to the card alone":      {grant(boundTo("", "another")), policy.DeniedBound},
		"bound to another origin":      {grant(bound, func(g *policy.Grant) { g.Origin = "https://app.example" }), policy.DeniedBound},
		"bound to another session":     {grant(bound, func(g *policy.Grant) { g.SessionHash[31] = 1 }), policy.DeniedBound},
		"bound to a user": {func(r *policy.Request) {
			r.Proofs = []policy.Proof{token(bound)}
			r.Proofs[0].Grant.User = userID
		}, policy.DeniedBound},
		"minted by another face": {func(r *policy.Request) { r.Face = "exa" }, policy.DeniedBound},
		"second token is bound to another card": {func(r *policy.Request) {
			r.Proofs = append(r.Proofs, token(boundTo(policy.CardReveal, "another")))
		}, policy.DeniedBound},

		"unbound":                 {grant(), policy.DeniedUnboundToken},
		"half bound: operation":   {grant(boundTo(policy.CardReveal, "")), policy.DeniedUnboundToken},
		"half bound: card":        {grant(boundTo("", cardID)), policy.DeniedUnboundToken},
		"unbound, named the mode": {func(r *policy.Request) { grant()(r); r.UnboundTokens = "with_user_proof" }, policy.DeniedUnboundToken},
		"unbound, refused with user": {func(r *policy.Request) {
			r.User, r.Proofs, r.UnboundTokens = userID, []policy.Proof{token(), cookie()}, "refuse"
		}, policy.DeniedUnboundToken},
		"unbound, its own user is no proof": {func(r *policy.Request) {
			r.User = userID
			grant(func(g *policy.Grant) { g.User = userID })(r)
		}, policy.DeniedUnboundToken},
		"unbound beside bound": {func(r *policy.Request) {
			r.Proofs = append(r.Proofs, token())
		}, policy.DeniedUnboundToken},
		"unbound beside certificate": {func(r *policy.Request) {
			r.Proofs = []policy.Proof{token(), certificate()}
		}, policy.DeniedUnboundToken},
		"mint by token": {func(r *policy.Request) {
			r.Operation, r.Fields, r.Card, r.Proofs, r.UnboundTokens = policy.TokenMint, nil, nil, []policy.Proof{token()}, "allow"
		}, policy.DeniedProof},
		"mint for another's card": {func(r *policy.Request) {
			r.Operation, r.Fields, r.Proofs = policy.TokenMint, nil, []policy.Proof{certificate()}
			r.Card.Partners = []string{"other"}
		}, policy.DeniedNotHolder},
		"mint for another issuer's card": {func(r *policy.Request) {
			r.Operation, r.Fields, r.Proofs = policy.TokenMint, nil, []policy.Proof{certificate()}
			r.Card.Issuer = "bridge"
		}, policy.DeniedUnknownCard},
	} {
		t.Run(name, func(t *testing.T) {
			if d := denied(t, all, reveal(test.change), test.reason); d.Rule != "" {
				t.Errorf("a rule was asked: %q", d.Rule)
			}
		})
	}
}

func TestDecidePermits(t *testing.T) {
	all := engine(t, permitAll)
	bound := boundTo(policy.CardReveal, cardID)
	for name, change := range map[string]func(*policy.Request){
		"bound token":         func(*policy.Request) {},
		"unbound, allowed":    func(r *policy.Request) { r.Proofs, r.UnboundTokens = []policy.Proof{token()}, "allow" },
		"unbound, user proof": func(r *policy.Request) { r.User, r.Proofs = userID, []policy.Proof{token(), cookie()} },
		"bound token with user": func(r *policy.Request) {
			r.User, r.Proofs = userID, []policy.Proof{token(bound, func(g *policy.Grant) { g.User = userID })}
		},
		"bound, refuse unbound":  func(r *policy.Request) { r.UnboundTokens = "refuse" },
		"right session":          func(r *policy.Request) { r.SessionHash[0] = 1; r.Proofs[0].Grant.SessionHash[0] = 1 },
		"right origin":           func(r *policy.Request) { r.Origin = "https://a"; r.Proofs[0].Grant.Origin = "https://a" },
		"session, unbound to it": func(r *policy.Request) { r.SessionHash[0] = 1 },
		"cookie":                 func(r *policy.Request) { r.User, r.Proofs = userID, []policy.Proof{cookie()} },
		"one field":              func(r *policy.Request) { r.Fields = []policy.Field{"cvc"} },
		"key of the environment": func(r *policy.Request) {
			r.Proofs = []policy.Proof{{Kind: policy.KindAPIKey, Partner: partnerID, Environment: "test"}}
		},
		"mint without card": func(r *policy.Request) {
			r.Operation, r.Fields, r.Card, r.Proofs = policy.TokenMint, nil, nil, []policy.Proof{certificate()}
		},
		"mint for a card": func(r *policy.Request) {
			r.Operation, r.Fields, r.Proofs = policy.TokenMint, nil, []policy.Proof{certificate()}
		},
		"anonymous mint, if a rule says so": func(r *policy.Request) {
			r.Operation, r.Fields, r.Card, r.Proofs, r.Partner = policy.TokenMint, nil, nil, nil, nil
		},
	} {
		t.Run(name, func(t *testing.T) { permitted(t, all, reveal(change)) })
	}
}

func TestRules(t *testing.T) {
	const panOnly = `@id("pan") permit (principal, action == Action::"card.reveal.pan", resource);`
	const errs = `context.time.offset(duration("106751991167d")) > context.time`
	for name, test := range map[string]struct {
		source string
		change func(*policy.Request)
		reason string // "" for permitted
		rule   string
		allows string
	}{
		"default deny":         {`@id("x") permit (principal, action == Action::"pin.set", resource);`, nil, policy.DeniedNoPolicy, "", ""},
		"permit":               {permitAll, nil, "", "all", "pan cvc"},
		"unnamed":              {"\n\npermit (principal, action, resource);", nil, "", "a.cedar:3", "pan cvc"},
		"first of two is told": {permitAll + `@id("b") permit (principal, action, resource);`, nil, "", "all", "pan cvc"},
		"forbid overrides":     {permitAll + `@id("no") forbid (principal, action, resource);`, nil, policy.DeniedForbidden, "no", ""},
		"PAN alone":            {panOnly, nil, "", "pan", "pan"},
		"PAN alone, CVC asked": {panOnly, func(r *policy.Request) { r.Fields = []policy.Field{"cvc"} }, policy.DeniedNoPolicy, "", ""},
		"CVC forbidden": {permitAll + `@id("nocvc") forbid (principal, action == Action::"card.reveal.cvc", resource);`,
			nil, "", "all", "pan"},
		"CVC forbidden, PAN not permitted": {`@id("nocvc") forbid (principal, action == Action::"card.reveal.cvc", resource);`,
			nil, policy.DeniedForbidden, "nocvc", ""},
		"a rule for each": {panOnly + `@id("cvc") permit (principal, action == Action::"card.reveal.cvc", resource);`,
			nil, "", "pan,cvc", "pan cvc"},
		"group":      {`@id("g") permit (principal, action in Action::"card.reveal", resource);`, nil, "", "g", "pan cvc"},
		"in a set":   {`@id("g") permit (principal, action in [Action::"pin.set", Action::"card.reveal"], resource);`, nil, "", "g", "pan cvc"},
		"in a when":  {`@id("g") permit (principal, action, resource) when { action in Action::"card.reveal" };`, nil, "", "g", "pan cvc"},
		"field":      {`@id("g") permit (principal, action, resource) when { context.field == "cvc" };`, nil, "", "g", "cvc"},
		"issuer":     {`@id("g") permit (principal, action, resource in Issuer::"rain");`, nil, "", "g", "pan cvc"},
		"not issuer": {`@id("g") permit (principal, action, resource in Issuer::"bridge");`, nil, policy.DeniedNoPolicy, "", ""},
		"partner":    {`@id("g") permit (principal == Partner::"gp-demo", action, resource);`, nil, "", "g", "pan cvc"},
		"user of the partner": {`@id("g") permit (principal, action, resource) when { context has user && context.user in Partner::"gp-demo" };`,
			func(r *policy.Request) { r.User, r.Proofs = userID, []policy.Proof{cookie()} }, "", "g", "pan cvc"},
		"user absent": {`@id("g") permit (principal, action, resource) when { context has user };`, nil, policy.DeniedNoPolicy, "", ""},
		"bound proof": {`@id("g") permit (principal, action, resource) when { context.proofs.bound_token && context.proofs.token && !context.proofs.cookie };`,
			nil, "", "g", "pan cvc"},
		"bound proof, unbound token": {`@id("g") permit (principal, action, resource) when { context.proofs.bound_token };`,
			func(r *policy.Request) { r.Proofs, r.UnboundTokens = []policy.Proof{token()}, policy.UnboundAllow }, policy.DeniedNoPolicy, "", ""},
		"certificate": {`@id("g") permit (principal, action, resource) when { context.proofs.certificate };`, nil, policy.DeniedNoPolicy, "", ""},
		"time":        {`@id("g") permit (principal, action, resource) when { context.time < datetime("2026-11-23T12:00:01Z") };`, nil, "", "g", "pan cvc"},
		"too late":    {`@id("g") permit (principal, action, resource) when { context.time < datetime("2026-11-23") };`, nil, policy.DeniedNoPolicy, "", ""},
		"network":     {`@id("g") permit (principal, action, resource) when { context.address.isInRange(ip("192.0.2.0/24")) };`, nil, "", "g", "pan cvc"},
		"network, mapped address": {`@id("g") permit (principal, action, resource) when { context.address.isInRange(ip("192.0.2.0/24")) };`,
			func(r *policy.Request) { r.Address = netip.MustParseAddr("::ffff:192.0.2.7") }, "", "g", "pan cvc"},
		"network, zone": {`@id("g") permit (principal, action, resource) when { context.address == ip("fe80::1") };`,
			func(r *policy.Request) { r.Address = netip.MustParseAddr("fe80::1%eth0") }, "", "g", "pan cvc"},
		"other network": {`@id("g") permit (principal, action, resource) when { context.address.isInRange(ip("198.51.100.0/24")) };`,
			nil, policy.DeniedNoPolicy, "", ""},
		"PIN allows the PIN": {permitAll, func(r *policy.Request) {
			r.Operation, r.Fields, r.Proofs = policy.PINReveal, nil, []policy.Proof{token(boundTo(policy.PINReveal, cardID))}
		}, "", "all", "pin"},
		"profile allows no field": {permitAll, func(r *policy.Request) {
			r.Operation, r.Fields, r.Proofs = policy.CardProfile, nil, []policy.Proof{certificate()}
		}, "", "all", ""},

		"erroring forbid denies [25]":        {permitAll + `@id("bad") forbid (principal, action, resource) when { ` + errs + ` };`, nil, policy.DeniedError, "bad", ""},
		"erroring permit denies [25]":        {permitAll + `@id("bad") permit (principal, action, resource) when { ` + errs + ` };`, nil, policy.DeniedError, "bad", ""},
		"error for the CVC denies the PAN":   {permitAll + `@id("bad") forbid (principal, action == Action::"card.reveal.cvc", resource) when { ` + errs + ` };`, nil, policy.DeniedError, "bad", ""},
		"error outranks forbid":              {`@id("no") forbid (principal, action, resource); @id("bad") forbid (principal, action, resource) when { ` + errs + ` };`, nil, policy.DeniedError, "bad", ""},
		"erroring rule of another operation": {permitAll + `@id("bad") forbid (principal, action == Action::"pin.set", resource) when { ` + errs + ` };`, nil, "", "all", "pan cvc"},
		"anonymous principal": {`@id("an") permit (principal is Anonymous, action, resource);`, func(r *policy.Request) {
			r.Operation, r.Fields, r.Card, r.Proofs, r.Partner = policy.TokenMint, nil, nil, nil, nil
		}, "", "an", ""},
		"anonymous is not permitted by others": {`@id("p") permit (principal is Partner, action, resource);`, func(r *policy.Request) {
			r.Operation, r.Fields, r.Card, r.Proofs, r.Partner = policy.TokenMint, nil, nil, nil, nil
		}, policy.DeniedNoPolicy, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := reveal()
			if test.change != nil {
				test.change(r)
			}
			e := engine(t, test.source)
			if test.reason != "" {
				if d := denied(t, e, r, test.reason); d.Rule != test.rule {
					t.Errorf("denied by %q, want %q", d.Rule, test.rule)
				}
				return
			}
			permit := permitted(t, e, r)
			if permit.Rule() != test.rule {
				t.Errorf("permitted by %q, want %q", permit.Rule(), test.rule)
			}
			var allows []string
			for _, field := range []policy.Field{"", "pan", "cvc", "pin", "expiry"} {
				if permit.Allows(field) {
					allows = append(allows, string(field))
				}
			}
			if got := strings.Join(allows, " "); got != test.allows {
				t.Errorf("allows %q, want %q", got, test.allows)
			}
		})
	}
}

func TestIssuersEnvironment(t *testing.T) {
	e, err := policy.NewEngine(policy.EngineConfig{
		Policies: []policy.PolicyFile{{Name: "a", Source: []byte(permitAll)}},
		Issuers:  []policy.Issuer{{ID: "rain", Environment: "test"}, {ID: "live", Environment: "production"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	permitted(t, e, reveal())
	denied(t, e, reveal(func(r *policy.Request) { r.Issuer, r.Card.Issuer = "live", "live" }), policy.DeniedEnvironment)
	denied(t, e, reveal(func(r *policy.Request) { r.Issuer, r.Card.Issuer = "other", "other" }), policy.DeniedError)
}

func TestPoliciesThatDoNotLoad(t *testing.T) {
	partners, err := policy.NewPartners([]policy.Partner{{ID: partnerID}})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ source, want string }{
		"none":               {"", "no policies"},
		"only a comment":     {"// nothing\n", "no policies"},
		"syntax":             {"\npermit (principal, action, resource) when {\n  context.face = \"exa\"\n};", "a.cedar:3: "},
		"unterminated":       {"permit (principal", "a.cedar:1: "},
		"bad character":      {"permit (principal, action, resource);\n\x01", "a.cedar:2: "},
		"template":           {"permit (principal == ?principal, action, resource);", "a.cedar:1: "},
		"unknown action":     {"\npermit (principal, action == Action::\"card.reveel\", resource);", `a.cedar:2: unrecognized action`},
		"unknown group":      {"permit (principal, action in Action::\"card\", resource);", `a.cedar:1: unrecognized action`},
		"typo'd attribute":   {"\n\n@id(\"x\")\npermit (principal, action, resource)\nwhen { context.fase == \"exa\" };", "a.cedar:3: attribute `fase`"},
		"typo'd proof":       {"forbid (principal, action, resource) unless { context.proofs.certifcate };", "a.cedar:1: attribute `certifcate`"},
		"optional attribute": {"permit (principal, action, resource) when { context.user in Partner::\"gp-demo\" };", "a.cedar:1: "},
		"type error":         {"permit (principal, action, resource) when { context.face };", "a.cedar:1: "},
		"unknown type":       {"permit (principal is Customer, action, resource);", "a.cedar:1: unrecognized entity type `Customer`"},
		"wrong principal":    {"permit (principal is User, action, resource);", "a.cedar:1: unable to find an applicable action"},
		"wrong resource":     {"permit (principal, action == Action::\"pin.set\", resource is Issuer);", "a.cedar:1: unable to find an applicable action"},
		"unknown function":   {"permit (principal, action, resource) when { lookup(\"x\") };", "a.cedar:1: "},
		"bad address":        {"permit (principal, action, resource) when { context.address.isInRange(ip(\"300.0.0.0/8\")) };", "a.cedar:1: "},
		"duplicate id":       {"@id(\"x\") permit (principal, action, resource);\n@id(\"x\") forbid (principal, action, resource);", `a.cedar:2: the @id "x" is that of the policy at a.cedar:1`},
		"empty id":           {"@id(\"\") permit (principal, action, resource);", "a.cedar:1: the @id"},
		"id with newline":    {"@id(\"a\\nb\") permit (principal, action, resource);", "a.cedar:1: the @id"},
		"id with comma":      {"@id(\"a,b\") permit (principal, action, resource);", "a.cedar:1: the @id"},
		"id twice":           {"@id(\"a\") @id(\"b\") permit (principal, action, resource);", "a.cedar:1: "},
		"unnamed, one line":  {"permit (principal, action, resource); forbid (principal, action, resource);", "a.cedar:1: two policies begin on this line"},
		"id of a position":   {"permit (principal, action, resource);\n@id(\"a.cedar:1\") forbid (principal, action, resource);", "a.cedar:2: the @id"},
		"unknown partner":    {"\nforbid (principal == Partner::\"gp-dmeo\", action, resource);", `a.cedar:2: Partner::"gp-dmeo" is not configured`},
		"unknown in when":    {"forbid (principal, action, resource) when { principal == Partner::\"gp-dmeo\" };", `a.cedar:1: Partner::"gp-dmeo" is not configured`},
		"unknown in a set":   {"forbid (principal is Partner, action, resource) when { [Partner::\"gp-demo\", Partner::\"gp-dmeo\"].contains(principal) };", `a.cedar:1: Partner::"gp-dmeo" is not configured`},
		"unknown issuer":     {"forbid (principal, action, resource in Issuer::\"rian\");", `a.cedar:1: Issuer::"rian" is not configured`},
		"unknown anonymous":  {"forbid (principal == Anonymous::\"me\", action, resource);", `a.cedar:1: Anonymous::"me" is not configured`},
		"action in when":     {"forbid (principal, action, resource) when { action == Action::\"pin.sett\" };", "a.cedar:1: "},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := policy.NewEngine(policy.EngineConfig{
				Policies: []policy.PolicyFile{{Name: "a.cedar", Source: []byte(test.source)}},
				Partners: partners, Issuers: []policy.Issuer{{ID: "rain"}},
			})
			if err == nil || e != nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("NewEngine = %v, want %q", err, test.want)
			}
		})
	}
}

// TestUnnamedRulesNeedAFileNameThatCanBeRecorded: such a name would stand in
// every audit record.
func TestUnnamedRulesNeedAFileNameThatCanBeRecorded(t *testing.T) {
	for _, name := range []string{"a b.cedar", "a,b.cedar", "a\n.cedar", strings.Repeat("a", 200)} {
		load := func(source string) error {
			_, err := policy.NewEngine(policy.EngineConfig{Policies: []policy.PolicyFile{{Name: name, Source: []byte(source)}}})
			return err
		}
		if err := load("permit (principal, action, resource);"); err == nil || !strings.Contains(err.Error(), "@id") {
			t.Errorf("%q: %v", name, err)
		}
		if err := load(permitAll); err != nil {
			t.Errorf("%q, with an @id: %v", name, err)
		}
	}
}

// FuzzNewEngine: an engine or problems, never both; and every problem says
// where it is.
func FuzzNewEngine(f *testing.F) {
	source, err := os.ReadFile("testdata/sample.cedar")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(source))
	f.Add("permit (principal, action, resource) when { context.face == \"exa\" };")
	f.Add("@id(\"x\") forbid (principal in Partner::\"a\", action in [Action::\"pin.set\"], resource is Card in Issuer::\"b\") unless { context has user };")
	at := regexp.MustCompile(`^(a\.cedar(:[0-9]+)?: .|no policies: )`)
	f.Fuzz(func(t *testing.T, source string) {
		e, err := policy.NewEngine(policy.EngineConfig{Policies: []policy.PolicyFile{{Name: "a.cedar", Source: []byte(source)}}})
		if (e == nil) != (err != nil) {
			t.Fatalf("NewEngine = %v, %v", e, err)
		}
		if err != nil {
			if !at.MatchString(err.Error()) {
				t.Fatalf("where is %q?", err)
			}
			return
		}
		permit, err := e.Decide(reveal())
		if d, ok := errors.AsType[*policy.Denied](err); (err == nil) != (permit.Rule() != "") || err != nil && (!ok || d.Reason == "") {
			t.Fatalf("Decide = %+v, %v", permit, err)
		}
	})
}

func TestEveryProblemIsReported(t *testing.T) {
	_, err := policy.NewEngine(policy.EngineConfig{Policies: []policy.PolicyFile{
		{Name: "a.cedar", Source: []byte("permit (principal, action, resource) when { context.a };\npermit (principal, action, resource) when { context.b };")},
		{Name: "b.cedar", Source: []byte("permit (")},
		{Name: "c.cedar", Source: []byte(`@id("x") permit (principal, action, resource);`)},
		{Name: "d.cedar", Source: []byte("\n" + `@id("x") permit (principal, action, resource);`)},
	}})
	if err == nil {
		t.Fatal("it loaded")
	}
	for _, at := range []string{"a.cedar:1: ", "a.cedar:2: ", "b.cedar:1: ", "d.cedar:2: "} {
		if strings.Count(err.Error(), at) != 1 {
			t.Errorf("not exactly one problem at %s in:\n%v", at, err)
		}
	}
}

func TestSampleLoads(t *testing.T) {
	source, err := os.ReadFile("testdata/sample.cedar")
	if err != nil {
		t.Fatal(err)
	}
	e := engine(t, string(source))
	if p := permitted(t, e, reveal()); p.Rule() != "reveal-with-token" {
		t.Errorf("permitted by %q", p.Rule())
	}
	mint := func(r *policy.Request) {
		r.Operation, r.Fields, r.Card, r.Proofs = policy.TokenMint, nil, nil, []policy.Proof{certificate()}
		r.Environment, r.Partner.Environment = "production", "production"
	}
	permitted(t, e, reveal(mint))
	denied(t, e, reveal(mint, func(r *policy.Request) { r.Address = netip.MustParseAddr("198.51.100.1") }), policy.DeniedForbidden)
}

// TestBindingIsOfThisDecision changes one thing at a time: each change is
// another binding, and the same decision has the same.
func TestBindingIsOfThisDecision(t *testing.T) {
	all := engine(t, permitAll)
	plain := permitted(t, all, reveal()).Binding()
	if again := permitted(t, all, reveal()).Binding(); !bytes.Equal(plain, again) {
		t.Fatal("one decision, two bindings")
	}
	seen := map[string]string{string(plain): "plain"}
	for name, permit := range map[string]policy.Permit{
		"exchange": permitted(t, all, reveal(func(r *policy.Request) { r.Exchange = "x-2" })),
		"fields":   permitted(t, all, reveal(func(r *policy.Request) { r.Fields = r.Fields[:1] })),
		"other":    permitted(t, all, reveal(func(r *policy.Request) { r.Fields = r.Fields[1:] })),
		"rule":     permitted(t, engine(t, `@id("b") permit (principal, action, resource);`), reveal()),
		"user": permitted(t, all, reveal(func(r *policy.Request) {
			r.User = userID
			r.Proofs = append(r.Proofs, cookie())
		})),
		"card": permitted(t, all, reveal(func(r *policy.Request) {
			r.Card.Card = "another"
			r.Proofs[0].Grant.Card = "another"
		})),
		"issuer": permitted(t, all, reveal(func(r *policy.Request) { r.Issuer, r.Card.Issuer = "rain2", "rain2" })),
		"partner": permitted(t, all, reveal(func(r *policy.Request) {
			r.Partner.ID = "other"
			r.Proofs = []policy.Proof{token(boundTo(policy.CardReveal, cardID), func(g *policy.Grant) { g.Partner = "other" })}
		})),
		"operation": permitted(t, all, reveal(func(r *policy.Request) {
			r.Operation, r.Fields, r.Proofs = policy.CardProfile, nil, []policy.Proof{certificate()}
		})),
		// What one value ends with is not what the next begins with.
		"boundary": permitted(t, all, reveal(func(r *policy.Request) {
			r.Exchange, r.Partner.ID = "x-1g", "p-demo"
			r.Card.Partners = []string{"p-demo"}
			r.Proofs = []policy.Proof{token(boundTo(policy.CardReveal, cardID), func(g *policy.Grant) { g.Partner = "p-demo" })}
		})),
	} {
		key := string(permit.Binding())
		if other, ok := seen[key]; ok {
			t.Errorf("%s and %s have one binding", name, other)
		}
		seen[key] = name
	}
	permit := permitted(t, all, reveal())
	permit.Binding()[0] ^= 1
	if !bytes.Equal(permit.Binding(), plain) {
		t.Error("the binding can be changed from outside")
	}
}

// TestNobodyOpensAnotherCard draws requests at random, and checks the two
// properties that no rule may break, under rules that permit everything.
func TestNobodyOpensAnotherCard(t *testing.T) {
	all := engine(t, permitAll)
	name := rapid.SampledFrom([]string{"", partnerID, "other"})
	user := rapid.SampledFrom([]string{"", userID, "bob"})
	environment := rapid.SampledFrom([]string{"test", "production"})
	rapid.Check(t, func(t *rapid.T) {
		r := reveal()
		r.Operation = rapid.SampledFrom([]policy.Operation{policy.CardReveal, policy.CardProfile, policy.PINReveal, policy.PINSet}).Draw(t, "operation")
		if r.Operation != policy.CardReveal {
			r.Fields = nil
		}
		r.Partner = &policy.Partner{ID: name.Draw(t, "partner"), Environment: environment.Draw(t, "partner environment"), Disabled: rapid.Bool().Draw(t, "disabled")}
		r.User = user.Draw(t, "user")
		r.Card.Partners = rapid.SliceOfN(name, 0, 2).Draw(t, "card partners")
		r.Card.Users = rapid.SliceOfN(user, 0, 2).Draw(t, "card users")
		r.Card.Environment = environment.Draw(t, "card environment")
		r.UnboundTokens = rapid.SampledFrom([]string{"", policy.UnboundAllow, policy.UnboundRefuse}).Draw(t, "mode")
		r.Proofs = nil
		for range rapid.IntRange(0, 2).Draw(t, "proofs") {
			r.Proofs = append(r.Proofs, rapid.SampledFrom([]policy.Proof{
				token(), token(boundTo(r.Operation, cardID)), cookie(), certificate(), token(func(g *policy.Grant) { g.Partner = "other" }),
			}).Draw(t, "proof"))
		}
		if _, err := all.Decide(r); err != nil {
			return
		}
		has := func(list []string, one string) bool {
			return strings.Contains("\n"+strings.Join(list, "\n")+"\n", "\n"+one+"\n")
		}
		switch {
		case r.Partner.Disabled, r.Partner.ID == "", !has(r.Card.Partners, r.Partner.ID):
			t.Fatal("a partner opened a card that is not its own")
		case r.User != "" && !has(r.Card.Users, r.User):
			t.Fatal("a user opened a card that is not theirs")
		case r.Environment != r.Card.Environment, r.Environment != r.Partner.Environment:
			t.Fatal("environments met")
		}
		for _, proof := range r.Proofs {
			if proof.Kind == policy.KindToken && proof.Grant.Partner != r.Partner.ID {
				t.Fatal("another partner's token opened a card")
			}
		}
	})
}

// BenchmarkDecide is one reveal of two fields, so two evaluations: every
// exchange that touches a card pays it.
func BenchmarkDecide(b *testing.B) {
	source, err := os.ReadFile("testdata/sample.cedar")
	if err != nil {
		b.Fatal(err)
	}
	e := engine(b, string(source))
	for name, r := range map[string]*policy.Request{
		"reveal": reveal(),
		"pan":    reveal(func(r *policy.Request) { r.Fields = r.Fields[:1] }),
		"mint": reveal(func(r *policy.Request) {
			r.Operation, r.Fields, r.Card, r.Proofs = policy.TokenMint, nil, nil, []policy.Proof{certificate()}
		}),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Decide(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
