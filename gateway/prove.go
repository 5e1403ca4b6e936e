package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/revocation"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/holder"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
)

// This file is stage 4: who is calling. What can be shown again is proven first; then the exchange's places are taken and a
// repeated call is recognised; only then is used up what can be used once.

// proven is what stage 4 found out.
type proven struct {
	partner *policy.Partner // nil is anonymous
	user    string
	card    string // that a redeemed token was minted for
	account string // the partner's service account
	proofs  []policy.Proof

	session credential.Session // of the refresh token that was used up
	weak    bool               // whether an account logs in by its public key alone
}

func (p *proven) add(proof policy.Proof) {
	p.proofs = append(p.proofs, proof)
	if p.user == "" {
		p.user = proof.User
	}
	if p.account == "" {
		p.account = proof.Account
	}
}

// partnerID is the partner's id, or "".
func (p *proven) partnerID() string {
	if p.partner == nil {
		return ""
	}
	return p.partner.ID
}

func (p *proven) has(kind policy.Kind) bool {
	return slices.ContainsFunc(p.proofs, func(proof policy.Proof) bool { return proof.Kind == kind })
}

// prove is stage 4.
func (x *running) prove(ctx context.Context, call *exchange.Call) (proven, error) {
	var p proven
	if x.host.ClientCAs != nil {
		if err := x.proveCertificate(ctx, &p); err != nil {
			return proven{}, err
		}
	}
	if rt := x.ep.route; rt.Partner != "" {
		p.partner = x.st.config.Partners.ByID(rt.Partner)
	}
	for _, c := range call.Credentials {
		if singleUse(c.Kind) {
			continue
		}
		if c.Kind == policy.KindSignature && x.unlooked(&p) {
			continue
		}
		proof, err := x.proveReusable(ctx, call, c, &p)
		if err != nil {
			return proven{}, err
		}
		if err := x.accept(proof, &p); err != nil {
			return proven{}, err
		}
	}
	if err := x.proveAccount(call, &p); err != nil {
		return proven{}, err
	}
	if err := x.standing(ctx, call, &p); err != nil {
		x.accepted = false // what it has is good no more, and the limit of a credential comes later
		return proven{}, err
	}
	if err := x.inScope(call, &p); err != nil {
		return proven{}, err
	}
	if call.Late != nil {
		return proven{}, call.Late
	}
	if err := x.terminal(call, &p); err != nil {
		return proven{}, err
	}
	if err := x.limitCredentials(ctx, &p); err != nil {
		return proven{}, err
	}
	if err := x.limitPage(ctx, call); err != nil {
		return proven{}, err
	}
	if err := x.reserve(call, &p); err != nil {
		return proven{}, err
	}
	if err := x.beginIdempotent(ctx, call, &p); err != nil {
		return proven{}, err
	}
	if x.idempotent.replays() {
		return p, nil
	}
	if err := x.limitPayment(ctx, call, &p); err != nil {
		return proven{}, err
	}
	for _, c := range call.Credentials {
		if !singleUse(c.Kind) {
			continue
		}
		if err := x.proveOnce(ctx, call, c, &p); err != nil {
			return proven{}, err
		}
	}
	return p, nil
}

// inScope holds a credential to what it may be used for, of which a call that names no scope is nothing; and a page of ours to its
// partner: a token that says it is another one's is not spent [22].
func (x *running) inScope(call *exchange.Call, p *proven) error {
	trade := x.ep.Operations[0] == policy.SessionMint && x.ep.route.Hosted != nil // what the key becomes has its scope
	for i := range p.proofs {
		if scope := p.proofs[i].Scope; scope != "" && !trade && !slices.Contains(strings.Fields(scope), call.Scope) {
			return exchange.Fail(exchange.Forbidden, "scope")
		}
	}
	if expected := x.expected(call, p); call.Partner != "" && expected != "" && expected != call.Partner {
		return exchange.Fail(exchange.Unauthorized, "partner_of_another_app")
	}
	return nil
}

func singleUse(kind policy.Kind) bool {
	traits, _ := credential.Of(kind)
	return traits.SingleUse
}

// proveCertificate finds the partner of the connection's certificate. A verified certificate of nobody we know is
// forbidden: its handshake was good.
func (x *running) proveCertificate(ctx context.Context, p *proven) error {
	if x.peer == nil { // the connection is older than the configuration that requires one
		return exchange.Fail(exchange.Forbidden, "no_certificate")
	}
	x.event.Certificate = x.peer.fingerprint
	j := x.peer.judged(ctx, x.st, x.host, x.g.services.Now())
	if j.err != nil {
		return &exchange.Failure{Kind: exchange.Forbidden, Reason: certificateReason(j.err), Err: j.err}
	}
	x.event.Partner, x.accepted = j.partner.ID, true
	x.g.seen.saw(j.partner.ID, x.peer.fingerprint, x.peer.presented[0], x.request.Received)
	p.partner, x.chain = j.partner, j.chain
	p.add(j.proof)
	return nil
}

// certificateReason says to an auditor why a certificate was refused.
func certificateReason(err error) string {
	switch {
	case errors.Is(err, revocation.ErrRevoked):
		return "certificate_revoked"
	case errors.Is(err, revocation.ErrUnknown):
		return "revocation_unknown"
	default: // it ended, or is of no authority or partner that we know
		return "certificate"
	}
}

// errNoProver: the route has nothing that such a credential could be proven with, so it proves nothing.
func errNoProver(kind policy.Kind) error {
	return &policy.Refused{Kind: kind, Reason: policy.RefusedUnknown, Detail: "the route has no key for it"}
}

// proveReusable proves a credential that can be shown any number of times.
func (x *running) proveReusable(ctx context.Context, call *exchange.Call, c policy.Credential, p *proven) (policy.Proof, error) {
	rt := x.ep.route
	switch {
	case c.Kind == policy.KindCookie && rt.Cookies != nil:
		return rt.Cookies.Prove(ctx, c)
	case c.Kind == policy.KindAPIKey && x.st.config.APIKeys != nil:
		return x.st.config.APIKeys.Prove(ctx, c)
	case c.Kind == policy.KindJWT && rt.JWTs != nil:
		return rt.JWTs.Prove(ctx, c)
	case c.Kind == policy.KindJWT && rt.Scoped != nil:
		return rt.Scoped.Prove(ctx, c)
	case c.Kind == policy.KindJWT && rt.Hosted != nil:
		return rt.Hosted.Bearers.Prove(ctx, c)
	case c.Kind == policy.KindJWT && rt.Users != nil:
		return x.proveUser(ctx, c, p)
	case c.Kind == policy.KindFields && rt.Hosted != nil:
		return x.provePage(ctx, c)
	case c.Kind == policy.KindPublicKey && rt.Accounts != nil:
		return provePublicKey(rt.Accounts, call.Account, c)
	case c.Kind == policy.KindSignature && rt.Accounts != nil:
		return x.proveSignature(ctx, call, c, p)
	}
	return policy.Proof{}, errNoProver(c.Kind)
}

// proveUser proves a user by a token that others signed, who do not know our partners: whose user it is, the directory says [2].
func (x *running) proveUser(ctx context.Context, c policy.Credential, p *proven) (policy.Proof, error) {
	proof, err := x.ep.route.Users.Prove(ctx, c)
	if err != nil {
		return policy.Proof{}, err
	}
	user, err := x.st.config.Holders.User(ctx, proof.User)
	switch {
	case errors.Is(err, holder.ErrNoUser):
		return policy.Proof{}, &policy.Refused{Kind: c.Kind, Reason: policy.RefusedUser, Detail: "the directory does not know the user"}
	case err != nil:
		return policy.Proof{}, fmt.Errorf("%w: %w", errDirectory, err)
	}
	partner := x.st.config.Partners.ByID(user.Partner)
	if partner == nil || p.partner != nil && p.partner.ID != partner.ID {
		return policy.Proof{}, &policy.Refused{Kind: c.Kind, Reason: policy.RefusedPartner}
	}
	p.partner = partner
	return proof, nil
}

// provePublicKey proves a service account by its public key's fingerprint, which the face hands over in hex.
func provePublicKey(accounts *credential.Accounts, account string, c policy.Credential) (policy.Proof, error) {
	spki, err := policy.ParseFingerprint(c.Value())
	if err != nil {
		return policy.Proof{}, &policy.Refused{Kind: c.Kind, Reason: policy.RefusedMalformed}
	}
	return accounts.ProvePublicKey(account, spki)
}

// proveSignature proves a service account's signature over the request's body, which the vault digests.
func (x *running) proveSignature(ctx context.Context, call *exchange.Call, c policy.Credential, p *proven) (policy.Proof, error) {
	account := p.account
	if account == "" {
		account = call.Account
	}
	if call.Assertion {
		if x.ep.route.Assertions == nil {
			return policy.Proof{}, errNoProver(c.Kind)
		}
		return x.ep.route.Assertions.Prove(ctx, c)
	}
	var digest [32]byte
	if x.request.Clear != nil {
		var err error
		if digest, err = x.request.Clear.Digest(vault.CanonSortedValues); err != nil {
			return policy.Proof{}, &exchange.Failure{
				Kind: exchange.BadRequest, At: exchange.Place{In: "body", Name: "canonical"}, Reason: "canonical", Err: err,
			}
		}
		if digest == emptyCanon && !x.request.Clear.Empty() { // one signature would do for all bodies without a value
			return policy.Proof{}, exchange.Wrong("body", "canonical_empty", "canonical_empty")
		}
	}
	return x.ep.route.Accounts.ProveSignature(account, digest, c)
}

// emptyCanon is the digest of a body in which nothing is said.
var emptyCanon = sha256.Sum256(nil)

// accept adds a proof, whose partner must be there and the one that is known already.
func (x *running) accept(proof policy.Proof, p *proven) error {
	if proof.Partner != "" {
		partner := x.st.config.Partners.ByID(proof.Partner)
		if partner == nil || p.partner != nil && p.partner.ID != partner.ID {
			return &policy.Refused{Kind: proof.Kind, Reason: policy.RefusedPartner}
		}
		p.partner = partner
	}
	p.add(proof)
	if proof.Kind != policy.KindPublicKey { // which anybody can show: whether that is enough is for the account to say
		x.known(p)
	}
	return nil
}

// known notes whose exchange it is, once something is proven.
func (x *running) known(p *proven) {
	x.event.User, x.event.Account, x.event.Partner, x.accepted = p.user, p.account, p.partnerID(), true
}

// proveAccount asks for what a service account must show beside what it showed.
func (x *running) proveAccount(call *exchange.Call, p *proven) error {
	accounts := x.ep.route.Accounts
	if accounts == nil || p.account == "" {
		return nil
	}
	if call.Account != "" && call.Account != p.account {
		return &policy.Refused{Kind: policy.KindSignature, Reason: policy.RefusedUser}
	}
	if call.Has(policy.SessionMint) {
		certified := ""
		if p.has(policy.KindCertificate) {
			certified = p.partner.ID
		}
		var ok bool
		if p.weak, ok = accounts.Suffices(p.account, p.proofs, certified); !ok {
			return &policy.Refused{Kind: policy.KindPublicKey, Reason: policy.RefusedSignature, Detail: "the account asks for more"}
		}
		x.known(p)
		return nil
	}
	account, known := accounts.Account(p.account)
	body := x.request.Clear != nil && !x.request.Clear.Empty()
	if known && account.Requests == credential.RequestsRequired && body && call.Forward != nil && !p.has(policy.KindSignature) {
		return &policy.Refused{Kind: policy.KindSignature, Reason: policy.RefusedSignature, Detail: "the account's requests are signed"}
	}
	return nil
}

// unlooked reports whether nobody looks at a signature over a request: the account's requests are not signed.
func (x *running) unlooked(p *proven) bool {
	if x.ep.route.Accounts == nil || p.account == "" || x.ep.Operations[0] != policy.Forward {
		return false
	}
	account, known := x.ep.route.Accounts.Account(p.account)
	return known && account.Requests == credential.RequestsOff
}

// limitCredentials takes one from the limit of each credential, before anything is spent.
func (x *running) limitCredentials(ctx context.Context, p *proven) error {
	rate := x.st.limits.Credential
	if rate.IsZero() {
		return nil
	}
	for i := range p.proofs {
		id := p.proofs[i].ID
		if id == "" {
			continue
		}
		if err := x.limit(ctx, "credential", limitDigest(x.st.config.CardDigest, "credential", id), rate); err != nil {
			return err
		}
	}
	return nil
}

// reserve takes what the exchange will need, after what can be proven cheaply and before anything is spent: the partner's
// slot, one at the issuer, a place with its circuit breaker, and a place in the queue for the one RSA operation.
func (x *running) reserve(call *exchange.Call, p *proven) error {
	if known := x.st.partners[x.expected(call, p)]; known != nil && !x.held.take(known.slots) {
		return x.shed("partner")
	}
	rt := x.ep.route
	if rt.issuer == nil || !asksIssuer(call.Operations) {
		return nil
	}
	if !x.held.take(rt.issuer) {
		return x.shed("issuer")
	}
	var ok bool
	if x.verdict, ok = rt.Issuer.allow(x.g.metrics); !ok {
		return x.shed("circuit")
	}
	if !call.Preamble.Present() || x.blind(call) {
		return nil
	}
	var err error
	if x.slot, err = x.g.services.Vault.Reserve(); err != nil {
		return x.shed("rsa")
	}
	return nil
}

// expected is the partner that the exchange will be about: proven already, or named by a token that is still to be
// redeemed. Nothing but a share of the load depends on it.
func (x *running) expected(call *exchange.Call, p *proven) string {
	if p.partner != nil {
		return p.partner.ID
	}
	for _, c := range call.Credentials {
		if c.Kind == policy.KindToken {
			return x.st.config.Tokens.Partner(c)
		}
	}
	return ""
}

// proveOnce proves a credential by using it up. The attempt id is drawn here, once for the exchange, and never taken from the wire [9].
func (x *running) proveOnce(ctx context.Context, call *exchange.Call, c policy.Credential, p *proven) error {
	if x.attempt == (store.Attempt{}) {
		rand.Read(x.attempt[:])
		x.event.Attempt = x.attempt
	}
	err := x.useUp(ctx, call, c, x.attempt, p)
	if spent, ok := errors.AsType[*store.Spent](err); ok {
		x.replayed(c, spent)
	}
	return err
}

// useUp redeems a credential by its kind.
func (x *running) useUp(ctx context.Context, call *exchange.Call, c policy.Credential, attempt store.Attempt, p *proven) error {
	switch rt := x.ep.route; {
	case c.Kind == policy.KindToken:
		return x.redeem(ctx, c, credential.Redemption{Attempt: attempt, Nonce: call.Nonce, Keep: rt.KeepOnWrongProof}, call.Partner, p)
	case c.Kind == policy.KindCardToken && rt.Hosted != nil:
		return x.redeemCard(ctx, c, attempt, p)
	case c.Kind == policy.KindRefresh && rt.Families != nil:
		return x.redeemRefresh(ctx, c, attempt, p)
	case c.Kind == policy.KindChallenge && rt.Challenges != nil:
		return x.takeChallenge(ctx, call, c, attempt, p)
	}
	return errNoProver(c.Kind)
}

// replayed tells of a credential that is good once and came again: the audit record of this exchange gets who was first, and when.
func (x *running) replayed(c policy.Credential, spent *store.Spent) {
	x.g.metrics.replays.WithLabelValues(string(c.Kind)).Inc()
	first := audit.First{Attempt: spent.Attempt, Time: spent.At}
	switch rt := x.ep.route; { // the digest under which it was found covers the hint
	case c.Kind == policy.KindToken:
		first.Partner = x.st.config.Tokens.Partner(c)
	case c.Kind == policy.KindCardToken && rt.Hosted != nil:
		first.Partner = rt.Hosted.Cards.Partner(c)
	}
	x.event.First = first
	x.g.services.Log.Warn("a credential that was used up came again", zap.String("exchange", x.request.ID), zap.String("kind", string(c.Kind)),
		zap.Stringer("first_attempt", spent.Attempt), zap.Time("first_time", spent.At), zap.String("first_partner", first.Partner))
}

// redeem uses a token up. Where a page of ours asks, app is the partner whose page it is.
func (x *running) redeem(ctx context.Context, c policy.Credential, r credential.Redemption, app string, p *proven) error {
	proof, err := x.st.config.Tokens.Redeem(ctx, c, r)
	if err == nil {
		x.spent = true
		x.g.metrics.redeemed.Inc()
		x.event.Partner, x.event.Certificate = proof.Grant.Partner, proof.Grant.Certificate
		err = x.belongs(ctx, &proof, p)
	}
	if err == nil && app != "" && app != p.partner.ID {
		err = &policy.Refused{Kind: policy.KindToken, Reason: policy.RefusedPartner, Detail: "the page is another partner's"}
	}
	var refused *policy.Refused
	if errors.As(err, &refused) {
		x.g.metrics.refused.WithLabelValues(refused.Reason).Inc()
	}
	if err != nil {
		return err
	}
	p.add(proof)
	p.card = proof.Grant.Card
	x.event.User, x.accepted = p.user, true
	return nil
}

// belongs finds the partner whose token it is: the one whose certificate is there, where one is, for whom it is still good.
func (x *running) belongs(ctx context.Context, proof *policy.Proof, p *proven) error {
	partner := x.st.config.Partners.ByID(proof.Grant.Partner)
	if partner == nil || p.partner != nil && p.partner.ID != partner.ID {
		return &policy.Refused{Kind: policy.KindToken, Reason: policy.RefusedPartner}
	}
	if err := x.current(proof, partner); err != nil {
		return err
	}
	if err := x.unrevoked(ctx, proof.Grant.Certificate); err != nil {
		return err
	}
	p.partner = partner
	return nil
}

// redeemRefresh uses a refresh token up. One that was used before ends its whole family, which package credential sees to.
func (x *running) redeemRefresh(ctx context.Context, c policy.Credential, attempt store.Attempt, p *proven) error {
	proof, session, err := x.ep.route.Families.Redeem(ctx, c, attempt)
	x.spent = x.spent || err == nil
	x.g.metrics.tookOnce(c.Kind, err)
	if err != nil {
		return x.revokeRefused(ctx, c, err)
	}
	p.session = session
	if err := x.accept(proof, p); err != nil {
		return err
	}
	return x.current(&proof, p.partner)
}

// revokeRefused ends the login of a token that is ours and came to be revoked, though it is good for nothing any more. The caller
// is refused as ever.
func (x *running) revokeRefused(ctx context.Context, c policy.Credential, err error) error {
	var refused *policy.Refused
	if x.ep.Operations[0] != policy.SessionRevoke || !errors.As(err, &refused) {
		return err
	}
	if slices.Contains([]string{policy.RefusedExpired, policy.RefusedFenced, policy.RefusedLogin}, refused.Reason) {
		if failed := x.ep.route.Families.Revoke(ctx, c); failed != nil {
			return failed
		}
	}
	return err
}

// takeChallenge takes a challenge and judges what was signed for it.
func (x *running) takeChallenge(ctx context.Context, call *exchange.Call, c policy.Credential, attempt store.Attempt, p *proven) error {
	signer := call.Signed.User
	if signer == "" {
		signer = p.user
	}
	user, err := x.st.config.Holders.User(ctx, signer)
	known := !errors.Is(err, holder.ErrNoUser)
	if known && err != nil {
		return fmt.Errorf("%w: %w", errDirectory, err)
	}
	if !known {
		user = &policy.User{ID: signer}
	}
	// The challenge is taken first: whoever asks whether a user is known has to bring one for each.
	challenge, err := x.take(ctx, call, c, user, attempt)
	x.spent = x.spent || err == nil
	x.g.metrics.tookOnce(c.Kind, err)
	if err != nil {
		return err
	}
	signed := policy.Proof{Kind: policy.KindChallenge, Minted: true, Generation: challenge.Generation}
	if err := x.current(&signed, x.answerable(p)); err != nil {
		return err
	}
	if !known {
		return exchange.Fail(exchange.CredentialUnknown, "no_credential")
	}
	proof, err := x.ep.route.Challenges.judge(call, challenge, user)
	if err != nil {
		return err
	}
	return x.accept(proof, p)
}
