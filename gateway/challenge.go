package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// challengeTTL is how long there is to sign something. Source: Exa's session_id cookie, 5 minutes.
const challengeTTL = 5 * time.Minute

// Challenges are what the users of a route sign, and who judges it.
type Challenges struct {
	Issued   *credential.Challenges
	Wallets  *credential.Wallets
	Passkeys *credential.Passkeys

	Domain  string // of messages for wallets; their URI is https://<Domain>
	ChainID uint64 // EIP-155

	Typed credential.TypedDomain // of typed data for wallets
}

// use is what a challenge is for, as far as the route says it.
func (x *running) challengeUse(purpose, method, user, card string) credential.ChallengeUse {
	rt := x.ep.route
	return credential.ChallengeUse{
		Purpose: purpose, Method: method, Face: rt.Name, Environment: rt.Environment, Partner: rt.Partner, User: user, Card: card,
	}
}

// mintChallenge begins a login: nobody is proven yet, and whether the user is known is not told.
func (x *running) mintChallenge(ctx context.Context, call *exchange.Call, p proven, d decided) (*exchange.Result, error) {
	cs := x.ep.route.Challenges
	if cs == nil {
		return nil, errNoSessions
	}
	if call.Challenge.Method == policy.MethodEIP712 {
		return x.mintTyped(ctx, call, p, d)
	}
	c := credential.Challenge{ChallengeUse: x.challengeUse(credential.PurposeLogin, call.Challenge.Method, call.Challenge.User, ""), Generation: x.generation(&p)}
	text := exchange.ChallengeText{Method: c.Method, Account: c.User}
	var err error
	switch c.Method {
	case policy.MethodSIWE:
		if c.Message, err = cs.message(c.User, "", cs.Issued.Nonce(), x.request.Received); err != nil {
			return nil, &exchange.Failure{Kind: exchange.BadRequest, Reason: "credential_id", Err: err}
		}
		text.Message = c.Message
	case policy.MethodWebAuthn:
		c.Message = credential.NewPasskeyChallenge()
		var named *policy.User // where nobody is named, any passkey may sign
		if c.User != "" {      // the one that was named, known or not: nobody is told which credentials a user has
			named = &policy.User{Passkeys: []policy.Passkey{{ID: c.User}}}
		}
		if text.Options, err = json.Marshal(cs.Passkeys.Options(&c, named, challengeTTL)); err != nil {
			return nil, err
		}
	default:
		return nil, exchange.Fail(exchange.BadRequest, "method")
	}
	text.ID, text.Expires, err = cs.Issued.Mint(ctx, c, challengeTTL)
	if err != nil {
		return nil, err
	}
	x.g.metrics.credentials.WithLabelValues(mintedChallenge).Inc()
	return &exchange.Result{Challenge: text}, nil
}

// authorizations are what a wallet shows its user.
var authorizations = map[policy.Operation]string{
	policy.CardReveal: "Show the number, security code and expiry of my card",
	policy.PINReveal:  "Show the PIN of my card",
	policy.PINSet:     "Change the PIN of my card",
}

// mintTyped asks the proven user's wallet to authorize one operation on one card [1].
func (x *running) mintTyped(ctx context.Context, call *exchange.Call, p proven, d decided) (*exchange.Result, error) {
	if p.user == "" || d.holding == nil {
		return nil, &policy.Denied{Reason: policy.DeniedUnknownCard}
	}
	op, cs := call.Challenge.For, x.ep.route.Challenges
	use := x.challengeUse(string(op), policy.MethodEIP712, p.user, d.holding.Card)
	data, expires, err := cs.Issued.MintTyped(ctx, use, x.generation(&p), cs.Typed, authorizations[op], challengeTTL)
	if err != nil {
		return nil, err
	}
	text := exchange.ChallengeText{Method: policy.MethodEIP712, Expires: expires}
	if text.Options, err = json.Marshal(data); err != nil {
		return nil, err
	}
	x.g.metrics.credentials.WithLabelValues(mintedChallenge).Inc()
	return &exchange.Result{Challenge: text}, nil
}

// message is what a wallet is asked to sign.
func (cs *Challenges) message(address, statement, nonce string, now time.Time) (string, error) {
	signer, ok := policy.ParseAddress(address)
	if !ok {
		return "", errors.New("the user's credential is no wallet's address")
	}
	m := credential.SIWE{
		Domain: cs.Domain, Address: signer, Statement: statement, URI: "https://" + cs.Domain, ChainID: cs.ChainID, Nonce: nonce,
		IssuedAt: credential.SIWETime(now), ExpirationTime: credential.SIWETime(now.Add(challengeTTL)),
	}
	return m.Text()
}

// mintConsent asks the user to link the card that was just shown to their account. Source of the statement: Exa, GET /card.
func (x *running) mintConsent(ctx context.Context, call *exchange.Call, p proven, d decided, result *exchange.Result) error {
	cs := x.ep.route.Challenges
	if cs == nil || d.user == nil || d.holding == nil || d.user.Account == "" {
		return exchange.Fail(exchange.BadRequest, "nothing_to_link")
	}
	c := credential.Challenge{
		ChallengeUse: x.challengeUse(credential.PurposeLink, call.Challenge.Method, p.user, d.holding.Card), Account: d.user.Account, Generation: x.generation(&p),
	}
	statement := fmt.Sprintf("I authorize the account %s to be linked with the card ending in %s for my user (%s)",
		d.user.Account, result.Card.LastFour, d.user.IssuerUser)
	text := exchange.ChallengeText{Method: c.Method, Account: c.Account}
	var err error
	if c.Method == policy.MethodSIWE {
		if c.Message, err = cs.message(p.user, statement, cs.Issued.Nonce(), x.request.Received); err != nil {
			return &exchange.Failure{Kind: exchange.BadRequest, Reason: "credential_id", Err: err}
		}
		text.Expires, err = cs.Issued.MintMessage(ctx, c, challengeTTL)
	} else {
		c.Message = statement
		text.Expires, err = cs.Issued.MintFor(ctx, c, challengeTTL)
	}
	if err != nil {
		return err
	}
	x.g.metrics.credentials.WithLabelValues(mintedChallenge).Inc()
	text.Message = c.Message
	result.Challenge = text
	return nil
}

// take takes the challenge that was signed: of a login by its id, of a consent by the nonce in the message or, where it has
// none, by what it is for.
func (x *running) take(ctx context.Context, call *exchange.Call, c policy.Credential, user *policy.User, attempt store.Attempt) (*credential.Challenge, error) {
	cs := x.ep.route.Challenges
	if call.Signed.Method == policy.MethodEIP712 {
		return cs.Issued.TakeNonce(ctx, c.Value(), x.challengeUse(string(call.Operations[0]), policy.MethodEIP712, user.ID, call.Card), attempt)
	}
	if call.Has(policy.SessionMint) {
		return cs.Issued.Take(ctx, c, x.challengeUse(credential.PurposeLogin, call.Signed.Method, user.ID, ""), attempt)
	}
	card := call.Card
	if card == "" && len(user.Cards) > 0 {
		card = user.Cards[0]
	}
	use := x.challengeUse(credential.PurposeLink, call.Signed.Method, user.ID, card)
	if call.Signed.Method == policy.MethodSIWE {
		return cs.Issued.TakeMessage(ctx, call.Signed.Message, use, attempt)
	}
	return cs.Issued.TakeFor(ctx, use, attempt)
}

// judge judges what was signed for a challenge that was just taken. Where the caller sends no message, it is the challenge's.
func (cs *Challenges) judge(call *exchange.Call, challenge *credential.Challenge, user *policy.User) (policy.Proof, error) {
	switch challenge.Method {
	case policy.MethodEIP712:
		return cs.Wallets.ProveTyped(call.Signed.Signature, challenge, user.Signers())
	case policy.MethodSIWE:
		message := call.Signed.Message
		if message == "" {
			message = challenge.Message
		}
		return cs.Wallets.Prove(message, call.Signed.Signature, challenge)
	}
	assertion, err := credential.ParseAssertion(call.Signed.Assertion)
	if err != nil {
		return policy.Proof{}, &policy.Refused{Kind: policy.KindPasskey, Reason: policy.RefusedMalformed}
	}
	return cs.Passkeys.Prove(assertion, challenge, user)
}
