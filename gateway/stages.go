package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/holder"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
)

// running is one exchange on its way through the stages.
type running struct {
	g       *Gateway
	st      *state
	l       *listenerState
	ep      *endpoint
	peer    *peer
	request exchange.Request
	trace   trace

	held    held
	slot    *vault.Slot
	verdict func(error) // tells the issuer's circuit breaker what became of the place it gave
	event   audit.Event // filled along the way
	phase   audit.Phase // of the last record: an outcome where an intent was recorded
	mark    time.Time   // when the present stage began
}

// exchange is the way of a request. Each stage's result is the next one's argument, and the answer is rendered after the
// record of it is durable. The handshake, stage 1, is in tls.go.
func (x *running) exchange(ctx context.Context, out *exchange.Response) {
	ctx, cancel := context.WithTimeout(ctx, x.st.limits.Exchange)
	defer cancel()
	defer x.done()

	call, result, err := x.stages(ctx)
	x.settle()
	if err != nil {
		x.refuse(ctx, failureOf(err), out)
		return
	}
	x.event.Result, x.event.Status = audit.ResultDone, x.ep.Status
	if err := x.record(ctx, x.phase); err != nil { // 8
		x.fail(x.unrecorded(), out)
		return
	}
	out.Status = x.ep.Status
	x.ep.Render(call, result, out) // 9
	x.stage(stageRender)
	x.ep.done.Inc()
	x.ep.duration.Observe(time.Since(x.request.Received).Seconds())
}

// strange is how long the caller's address is turned away for, because it proved nothing too often. Whoever has a verified
// certificate is no stranger.
func (x *running) strange() time.Duration {
	if x.peer != nil {
		return 0
	}
	return x.g.strangers.left(x.request.Address, x.request.Received, x.st.limits.Unproven)
}

// stages are 2 to 7.
func (x *running) stages(ctx context.Context) (*exchange.Call, *exchange.Result, error) {
	x.describe()
	if err := x.admit(); err != nil { // 2
		return nil, nil, err
	}
	x.stage(stageAdmit)
	call, err := x.ep.Parse(&x.request) // 3
	if err != nil {
		return nil, nil, err
	}
	x.called(call)
	x.stage(stageParse)
	proven, err := x.prove(ctx, call) // 4
	if err != nil {
		return nil, nil, err
	}
	x.stage(stageProve)
	decided, err := x.decide(ctx, call, proven) // 5
	if err != nil {
		return nil, nil, err
	}
	x.stage(stageDecide)
	if call.Has(policy.PINSet) {
		if err := x.acceptEnvelope(ctx, call); err != nil {
			return nil, nil, err
		}
	}
	if isMint(call.Operations[0]) {
		result, err := x.mint(ctx, call, proven, decided)
		x.stage(stageMint)
		return call, result, err
	}
	session, err := x.open(ctx, call, proven, decided) // 6
	if err != nil {
		return nil, nil, err
	}
	defer session.Close()
	x.stage(stageOpen)
	result, err := x.perform(ctx, call, proven, decided, session) // 7
	x.stage(stageIssuer)
	return call, result, err
}

// settle gives back what others wait for: the places with partner, issuer and vault. The record that follows waits for a
// disk, and needs none of them; the place in the process is kept, so that a disk that hangs does not gather exchanges.
func (x *running) settle() {
	if x.verdict != nil {
		x.verdict(errNotCalled)
		x.verdict = nil
	}
	x.slot.Release()
	x.held.keep(1)
}

// done gives back all that the exchange held.
func (x *running) done() {
	x.settle()
	x.held.keep(0)
}

// admit reserves a place here: whoever is turned away because of load has spent nothing [18].
func (x *running) admit() error {
	if !x.held.take(x.g.slots.global) {
		return x.shed("global")
	}
	return nil
}

func (x *running) shed(limit string) error {
	x.g.metrics.shed.WithLabelValues(limit).Inc()
	return &exchange.Failure{Kind: exchange.Unavailable, Reason: "shed_" + limit, RetryAfter: 1}
}

// proven is what stage 4 found out.
type proven struct {
	partner *policy.Partner // nil is anonymous
	user    string
	proofs  []policy.Proof
}

// prove proves the reusable credentials first, then reserves what the exchange will need, and only then redeems what can
// be redeemed once.
func (x *running) prove(ctx context.Context, call *exchange.Call) (proven, error) {
	var p proven
	if x.l.ClientCAs != nil {
		if err := x.proveCertificate(ctx, &p); err != nil {
			return proven{}, err
		}
	}
	rt := x.ep.route
	if rt.Partner != "" {
		p.partner = x.st.config.Partners.ByID(rt.Partner)
	}
	for _, c := range call.Credentials {
		if c.Kind != policy.KindCookie {
			continue
		}
		if rt.Cookies == nil {
			return proven{}, exchange.Fail(exchange.Unauthorized, "no_cookie_key")
		}
		proof, err := rt.Cookies.Prove(ctx, c)
		if err != nil {
			return proven{}, err
		}
		p.add(proof)
		x.event.User, x.event.Partner = proof.User, rt.Partner
	}
	if err := x.reserve(call, &p); err != nil {
		return proven{}, err
	}
	for _, c := range call.Credentials {
		if c.Kind != policy.KindToken {
			continue
		}
		if err := x.redeem(ctx, c, &p); err != nil {
			return proven{}, err
		}
	}
	return p, nil
}

func (p *proven) add(proof policy.Proof) {
	p.proofs = append(p.proofs, proof)
	if p.user == "" {
		p.user = proof.User
	}
}

// proveCertificate finds the partner of the connection's certificate. A verified certificate of nobody we know is
// forbidden: its handshake was good.
func (x *running) proveCertificate(ctx context.Context, p *proven) error {
	if x.peer == nil { // the connection is older than the configuration that requires one
		return exchange.Fail(exchange.Forbidden, "no_certificate")
	}
	x.event.Certificate = x.peer.fingerprint
	j := x.peer.judged(ctx, x.st, x.l.ClientCAs, x.request.Received)
	if j.err != nil {
		return &exchange.Failure{Kind: exchange.Forbidden, Reason: "certificate", Err: j.err}
	}
	x.event.Partner = j.partner.ID
	p.partner = j.partner
	p.add(j.proof)
	return nil
}

// reserve takes what the exchange will need, after what can be proven cheaply and before anything is spent: the partner's
// slot, one at the issuer, a place with its circuit breaker, and a place in the queue for the one RSA operation.
func (x *running) reserve(call *exchange.Call, p *proven) error {
	if known := x.st.partners[x.expected(call, p)]; known != nil && !x.held.take(known.slots) {
		return x.shed("partner")
	}
	rt := x.ep.route
	if rt.issuer == nil || isMint(call.Operations[0]) {
		return nil
	}
	if !x.held.take(rt.issuer) {
		return x.shed("issuer")
	}
	var ok bool
	if x.verdict, ok = rt.Issuer.allow(x.g.metrics); !ok {
		return x.shed("circuit")
	}
	if !call.Preamble.Present() {
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

// redeem uses a token up. The attempt id is drawn here and never taken from the wire [9].
func (x *running) redeem(ctx context.Context, c policy.Credential, p *proven) error {
	var attempt store.Attempt
	rand.Read(attempt[:])
	proof, err := x.st.config.Tokens.Redeem(ctx, c, attempt)
	if err == nil {
		x.g.metrics.redeemed.Inc()
		x.event.Partner, x.event.Certificate = proof.Grant.Partner, proof.Grant.Certificate
		err = x.belongs(proof.Grant, p)
	}
	var refused *policy.Refused
	if errors.As(err, &refused) {
		x.g.metrics.refused.WithLabelValues(refused.Reason).Inc()
	}
	if err != nil {
		return err
	}
	p.add(proof)
	return nil
}

// belongs finds the partner whose token it is: switched on, and the one whose certificate is there, where one is.
func (x *running) belongs(grant *policy.Grant, p *proven) error {
	partner := x.st.config.Partners.ByID(grant.Partner)
	if partner == nil || partner.Disabled || p.partner != nil && p.partner.ID != partner.ID {
		return &policy.Refused{Kind: policy.KindToken, Reason: policy.RefusedPartner}
	}
	p.partner = partner
	return nil
}

// acceptEnvelope accepts a write envelope once in 24 hours, so that a captured PIN set cannot be replayed under another
// token [10]. It is marked under every digest key, so that a rotation forgets none.
func (x *running) acceptEnvelope(ctx context.Context, call *exchange.Call) error {
	message := append(call.SessionHash[:], call.PIN.IV...)
	for _, mac := range x.st.config.EnvelopeDigests {
		var digest store.Digest
		mac.MAC(digest[:0], message)
		err := x.g.services.Store.Once(ctx, store.KindEnvelope, digest, 24*time.Hour)
		if errors.Is(err, store.ErrSpent) {
			return exchange.Fail(exchange.BadSession, "envelope_replayed")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// decided is what stage 5 permitted.
type decided struct {
	holding *policy.Holding // nil where no card is touched
	user    *policy.User    // nil where the directory knows none
	binding []byte          // of all permits, in order
	pan     bool
	cvc     bool
}

var revealFields = []policy.Field{policy.FieldPAN, policy.FieldCVC}

// decide asks the holder directory whose the card is and the rules whether each operation may be done, and counts what
// is permitted against the limits.
func (x *running) decide(ctx context.Context, call *exchange.Call, p proven) (decided, error) {
	d, err := x.hold(ctx, call, p)
	if err != nil {
		return decided{}, err
	}
	rt := x.ep.route
	r := policy.Request{
		Partner: p.partner, User: p.user, Card: d.holding, Issuer: rt.issuerName(), Face: rt.Name, Proofs: p.proofs,
		Environment: rt.Environment, Address: x.request.Address, Time: x.request.Received, Exchange: x.request.ID,
		SessionHash: call.SessionHash, UnboundTokens: rt.UnboundTokens,
	}
	if call.Card != "" && d.holding == nil && isMint(call.Operations[0]) {
		return decided{}, &policy.Denied{Reason: policy.DeniedUnknownCard} // a token is not bound to a card that is not there
	}
	for _, op := range call.Operations {
		r.Operation, r.Fields = op, nil
		if op == policy.CardReveal {
			r.Fields = revealFields
		}
		permit, err := x.st.config.Engine.Decide(&r)
		if err != nil {
			return decided{}, x.denied(err)
		}
		x.ruled(permit.Rule())
		d.binding = append(d.binding, permit.Binding()...)
		d.pan = d.pan || permit.Allows(policy.FieldPAN)
		d.cvc = d.cvc || permit.Allows(policy.FieldCVC)
	}
	return d, x.count(ctx, call, p, d)
}

// ruled notes a rule that permitted; several are joined.
func (x *running) ruled(rule string) {
	switch x.event.Rule {
	case "", rule:
		x.event.Rule = rule
	default:
		x.event.Rule += "," + rule
	}
}

// denied counts a token that was good for something else among the refused ones.
func (x *running) denied(err error) error {
	var denied *policy.Denied
	if errors.As(err, &denied) {
		x.event.Rule = denied.Rule
		if denied.Reason == policy.DeniedBound || denied.Reason == policy.DeniedUnboundToken {
			x.g.metrics.refused.WithLabelValues(denied.Reason).Inc()
		}
	}
	return err
}

// hold finds the card that is meant: the one that the caller names, or the user's own.
func (x *running) hold(ctx context.Context, call *exchange.Call, p proven) (decided, error) {
	var d decided
	directory, reference := x.st.config.Holders, call.Card
	if p.user != "" {
		user, err := directory.User(ctx, p.user)
		switch {
		case errors.Is(err, holder.ErrNoUser) || err == nil && user.Issuer != x.ep.route.issuerName():
			return d, exchange.Fail(exchange.NoAccount, "no_account")
		case err != nil:
			return d, fmt.Errorf("%w: %w", errDirectory, err)
		}
		d.user = user
		if reference == "" && len(user.Cards) > 0 {
			reference = user.Cards[0]
		}
	}
	if reference == "" {
		return d, nil
	}
	holding, err := directory.Card(ctx, reference)
	switch {
	case errors.Is(err, holder.ErrNoCard):
		return d, nil // whether that matters is the decision's business
	case err != nil:
		return d, fmt.Errorf("%w: %w", errDirectory, err)
	}
	d.holding = holding
	x.st.config.CardDigest.MAC(x.event.Card[:0], []byte(holding.Card))
	return d, nil
}

var errDirectory = errors.New("holder directory cannot answer")

// count takes a place in the limits per partner, per card, and per card for what is done to its PIN [14].
func (x *running) count(ctx context.Context, call *exchange.Call, p proven, d decided) error {
	if p.partner != nil {
		if known := x.st.partners[p.partner.ID]; known != nil {
			if err := x.limit(ctx, "partner", known.digest, known.rate); err != nil {
				return err
			}
		}
	}
	if d.holding == nil || isMint(call.Operations[0]) {
		return nil
	}
	for _, l := range []struct {
		op   policy.Operation
		name string
		rate policy.Rate
	}{{policy.PINReveal, "pin_reveal", x.st.limits.PINReveal}, {policy.PINSet, "pin_set", x.st.limits.PINSet}} {
		if !call.Has(l.op) {
			continue
		}
		if err := x.limit(ctx, l.name, limitDigest(x.st.config.CardDigest, l.name, d.holding.Card), l.rate); err != nil {
			return err
		}
	}
	return x.limit(ctx, "card", x.event.Card, x.st.limits.Card)
}

// limit takes one from a rate; the zero rate is no limit.
func (x *running) limit(ctx context.Context, name string, digest store.Digest, rate policy.Rate) error {
	if rate == (policy.Rate{}) {
		return nil
	}
	taken, err := x.g.services.Store.Take(ctx, digest, rate)
	if err != nil {
		return err
	}
	if !taken.OK {
		return x.limited(name, taken.RetryAfter)
	}
	return nil
}

func (x *running) limited(name string, after time.Duration) *exchange.Failure {
	x.g.metrics.limited.WithLabelValues(name).Inc()
	return &exchange.Failure{Kind: exchange.LimitReached, Reason: "limit_" + name, RetryAfter: seconds(after)}
}

// limitDigest is where the limit of that name and id is counted. A card's is its digest by itself, which no name and NUL
// begin.
func limitDigest(mac policy.MAC, name, id string) (d store.Digest) {
	mac.MAC(d[:0], []byte(name+"\x00"+id))
	return d
}

// seconds rounds up: who comes back in time must not come too early.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// mint makes a token that stands for the partner, its certificate, and what the call binds it to.
func (x *running) mint(ctx context.Context, call *exchange.Call, p proven, d decided) (*exchange.Result, error) {
	grant := policy.Grant{
		Partner: p.partner.ID, Certificate: x.event.Certificate, User: p.user,
		Operation: call.Bind.Operation, Card: call.Bind.Card, SessionHash: call.Bind.SessionHash,
		Environment: x.ep.route.Environment, MintedAt: x.request.Received.UnixMilli(), Face: x.ep.route.Name,
	}
	token, expires, err := x.st.config.Tokens.Mint(ctx, grant, tokenTTL)
	if err != nil {
		return nil, err
	}
	x.g.metrics.minted.Inc()
	return &exchange.Result{Token: token, Expires: expires}, nil
}

// tokenTTL is the life of an ephemeral token. Source: Gnosis Pay, POST /api/v1/ephemeral-token.
const tokenTTL = time.Minute

// open makes the session of the exchange, or none where nothing sealed crosses.
func (x *running) open(ctx context.Context, call *exchange.Call, p proven, d decided) (*vault.Session, error) {
	if !call.Preamble.Present() {
		return nil, nil
	}
	rt := x.ep.route
	if !rt.software && (call.Has(policy.PINSet) || call.Has(policy.PINReveal)) {
		return x.g.services.Vault.Blind(d.binding, call.Preamble)
	}
	if left := x.g.penalties.left(offender(p, d), x.request.Received); left > 0 {
		return nil, x.limited("failed_opens", left)
	}
	session, err := x.g.services.Vault.Open(ctx, vault.Opening{
		Binding: d.binding, Client: rt.ClientKeys, Preamble: call.Preamble, Issuer: rt.Issuer.SessionKey, Slot: x.slot,
	})
	if errors.Is(err, vault.ErrOpen) {
		if limited := x.countFailedOpen(ctx, offender(p, d)); limited != nil {
			return nil, limited
		}
	}
	return session, err
}

// countFailedOpen limits who sends preambles that do not open: each costs an RSA operation, and each is a question to our
// key [18].
func (x *running) countFailedOpen(ctx context.Context, who string) error {
	taken, err := x.g.services.Store.Take(ctx, limitDigest(x.st.config.CardDigest, "failed_opens", who), x.st.limits.FailedOpens)
	if err != nil || taken.OK {
		return err
	}
	x.g.penalties.punish(who, time.Now(), taken.RetryAfter)
	return x.limited("failed_opens", taken.RetryAfter)
}

// offender tells callers apart for the limit of failed openings: the partner, the proven user, and the card, so that one
// cardholder's failures are not another's.
func offender(p proven, d decided) string {
	var partner, card string
	if p.partner != nil {
		partner = p.partner.ID
	}
	if d.holding != nil {
		card = d.holding.Card
	}
	return partner + "\x00" + p.user + "\x00" + card
}

// perform has the issuer do it. What changes something is recorded as intended before the issuer is called [17].
func (x *running) perform(ctx context.Context, call *exchange.Call, p proven, d decided, session *vault.Session) (*exchange.Result, error) {
	if changes(call.Operations[0]) {
		// A caller that hangs up now does not leave it open whether the change was made.
		deadline, _ := ctx.Deadline()
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
		defer cancel()
		if err := x.record(ctx, audit.PhaseIntent); err != nil {
			return nil, exchange.Fail(exchange.Unavailable, "audit")
		}
		x.phase = audit.PhaseOutcome
	}
	c := issuer.Call{
		Operations: call.Operations, PAN: d.pan, CVC: d.cvc, Reference: d.holding.Card, Card: d.holding.IssuerCard,
		Session: session, PIN: call.PIN,
	}
	if d.user != nil {
		c.User = d.user.IssuerUser
	}
	return x.ep.route.Issuer.do(ctx, x, p.partner, &c)
}

// record writes the event and returns when it is durable. A caller that has gone away is recorded all the same.
func (x *running) record(ctx context.Context, phase audit.Phase) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.st.limits.Exchange)
	defer cancel()
	x.event.Phase = phase
	x.event.Time = time.Now()
	x.event.Latency = x.event.Time.Sub(x.request.Received)
	err := x.g.services.Audit.Record(ctx, &x.event)
	x.stage(stageRecord)
	if err != nil {
		x.g.services.Log.Error("audit record failed: the answer is withheld", zap.String("exchange", x.request.ID), zap.Error(err))
	}
	return err
}

// refuse records a failure and answers it.
func (x *running) refuse(ctx context.Context, f *exchange.Failure, out *exchange.Response) {
	if x.event.Exchange == "" {
		x.describe()
	}
	x.event.Result, x.event.Reason = resultOf(f.Kind), f.Reason
	if x.phase == audit.PhaseOutcome && x.event.Result == audit.ResultFailed {
		x.event.Result = audit.ResultRefused // what may have happened all the same is unknown, and has its own kind [17]
	}
	if x.peer == nil && x.event.Result == audit.ResultRefused && x.event.Partner == "" && x.event.User == "" {
		x.g.strangers.count(x.request.Address, x.request.Received, x.st.limits.Unproven)
	}
	if f.Rule != "" {
		x.event.Rule = f.Rule
	}
	x.ep.route.Face.Fail(f.Kind, out)
	x.event.Status = out.Status
	x.log(f)
	if err := x.record(ctx, x.phase); err != nil {
		f = x.unrecorded()
	}
	x.fail(f, out)
}

// unrecorded is the answer in place of one that could not be recorded. Where a change has been sent, the caller is not
// told to try again [17].
func (x *running) unrecorded() *exchange.Failure {
	if x.phase == audit.PhaseOutcome {
		return exchange.Fail(exchange.OutcomeUnknown, "audit")
	}
	return exchange.Fail(exchange.Unavailable, "audit")
}

// fail answers a failure in the face's shape.
func (x *running) fail(f *exchange.Failure, out *exchange.Response) {
	x.ep.route.Face.Fail(f.Kind, out)
	switch f.Kind {
	case exchange.LimitReached:
		out.RetryAfter = max(f.RetryAfter, 1)
	case exchange.Unavailable:
		if out.RetryAfter = f.RetryAfter; out.RetryAfter == 0 {
			out.RetryAfter = 5
		}
	}
	x.ep.outcomes[f.Kind].Inc()
	x.ep.duration.Observe(time.Since(x.request.Received).Seconds())
}

// log tells operators about what is not the caller's doing.
func (x *running) log(f *exchange.Failure) {
	level := zap.DebugLevel
	switch f.Kind {
	case exchange.Internal:
		level = zap.ErrorLevel
	case exchange.Unavailable, exchange.IssuerFailed, exchange.IssuerTimeout, exchange.OutcomeUnknown:
		level = zap.WarnLevel
	}
	if entry := x.g.services.Log.Check(level, "exchange failed"); entry != nil {
		entry.Write(zap.String("exchange", x.request.ID), zap.String("trace", x.event.Trace), zap.String("face", x.ep.route.Name),
			zap.String("operation", x.ep.names[0]), zap.String("kind", f.Kind.String()), zap.String("reason", f.Reason), zap.Error(f.Err))
	}
}

// describe fills in what the event knows before anything is parsed.
func (x *running) describe() {
	rt := x.ep.route
	x.event.Exchange, x.event.Trace = x.request.ID, x.trace.traceID()
	x.event.Listener, x.event.Face = rt.Listener, rt.Name
	x.event.Operations = x.ep.names
	x.event.Address = x.request.Address
	x.event.Issuer = rt.issuerName()
}

// called fills in what the call adds to it.
func (x *running) called(call *exchange.Call) {
	if len(call.Operations) != len(x.ep.names) {
		x.event.Operations = x.ep.names[:len(call.Operations)]
	}
	if call.Card != "" { // who asks for cards that are not there, or not theirs, shows too
		x.st.config.CardDigest.MAC(x.event.Card[:0], []byte(call.Card))
	}
	if call.Preamble.Present() {
		x.event.Legacy = x.ep.route.Legacy
		x.event.Software = x.ep.route.software && (call.Has(policy.PINSet) || call.Has(policy.PINReveal))
	}
}

func (rt *route) issuerName() string {
	if rt.Issuer == nil {
		return ""
	}
	return rt.Issuer.Name
}
