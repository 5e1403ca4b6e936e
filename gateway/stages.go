package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
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
	counted *counted // of the operation that it begins with, as soon as that is known
	peer    *peer
	request exchange.Request
	trace   trace

	held       held
	slot       *vault.Slot
	session    *vault.Session // closed when the exchange is done: its answer may be in it
	verdict    func(error)    // tells the issuer's circuit breaker what became of the place it gave
	idempotent idempotent
	rate       rateHeaders
	accepted   bool        // whether some credential proved something
	event      audit.Event // filled along the way
	phase      audit.Phase // of the last record: an outcome where an intent was recorded
	mark       time.Time   // when the present stage began
}

// exchange is the way of a request. Each stage's result is the next one's argument, and the answer is released after the
// record of it is durable. The handshake, stage 1, is in tls.go.
func (x *running) exchange(ctx context.Context, out *exchange.Response) {
	ctx, cancel := context.WithTimeout(ctx, x.st.limits.Exchange)
	defer cancel()
	defer x.done()

	call, result, err := x.stages(ctx)
	if err == nil {
		err = x.render(call, result, out) // 8
	}
	x.settle()
	if err != nil {
		x.refuse(ctx, failureOf(err), out)
		return
	}
	x.keep(ctx, result, out, nil)
	x.event.Result, x.event.Status = x.resultOf(out.Status), out.Status
	if err := x.record(ctx, x.phase); err != nil { // 9
		x.fail(x.unrecorded(), out)
		return
	}
	x.rate.write(out)
	x.counted.done.Inc()
	x.counted.duration.Observe(time.Since(x.request.Received).Seconds())
}

// render composes the answer, in memory. What belongs into it in clear is put in by the vault.
func (x *running) render(call *exchange.Call, result *exchange.Result, out *exchange.Response) error {
	if kept := x.idempotent.kept; kept != nil && result == nil {
		out.Status, out.ContentType, out.Body = kept.status, kept.contentType, append(out.Body[:0], kept.body...)
		return nil
	}
	out.Status = x.ep.Status
	x.ep.Render(call, result, out)
	if len(out.Splices) > 0 {
		var err error
		if out.Clear, err = x.session.Render(out.Body, out.Splices); err != nil {
			return err
		}
	}
	x.stage(stageRender)
	return nil
}

// resultOf is what the audit log calls an answer: of a forward that changes something, an issuer's 5xx leaves open whether
// it did (RFC 9110 section 15.6), and its 4xx refuses.
func (x *running) resultOf(status int) audit.Result {
	switch {
	case x.phase != audit.PhaseOutcome || status < 400:
		return audit.ResultDone
	case status >= 500:
		return audit.ResultUnknown
	}
	return audit.ResultRefused
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
	if err := x.origin(call); err != nil {
		return nil, nil, err
	}
	proven, err := x.prove(ctx, call) // 4
	if err != nil {
		return nil, nil, err
	}
	x.stage(stageProve)
	if err := x.anonymous(ctx, &proven); err != nil {
		return nil, nil, err
	}
	decided, err := x.decide(ctx, call, proven) // 5
	if err != nil {
		return nil, nil, err
	}
	x.stage(stageDecide)
	if x.idempotent.replays() {
		result, err := x.replay(proven)
		return call, result, err
	}
	if err := x.acceptEnvelopes(ctx, call, proven); err != nil {
		return nil, nil, err
	}
	if call.Operations[0].Mints() {
		result, err := mints[call.Operations[0]](x, ctx, call, proven, decided)
		x.stage(stageMint)
		return call, result, err
	}
	if x.session, err = x.open(ctx, call, proven, decided); err != nil { // 6
		return nil, nil, err
	}
	x.stage(stageOpen)
	result, err := x.perform(ctx, call, proven, decided) // 7
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

// done gives back all that the exchange held. What was to leave in clear is in the answer by now.
func (x *running) done() {
	x.settle()
	x.session.Close()
	x.request.Clear.Close()
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

// decided is what stage 5 permitted.
type decided struct {
	holding *policy.Holding // nil where no card is touched
	user    *policy.User    // nil where the directory knows none
	binding []byte          // of all permits, in order
	pan     bool
	cvc     bool
	reveal  []policy.Field // declared fields of a forward's answer
}

var revealFields = []policy.Field{policy.FieldPAN, policy.FieldCVC}

// fieldsOf are the fields that an operation of a call is about, each decided by itself.
func fieldsOf(call *exchange.Call, op policy.Operation) []policy.Field {
	switch op {
	case policy.CardReveal:
		return revealFields
	case policy.ForwardReveal:
		return declared(call.Forward.Call.Fields)
	case policy.ForwardSubmit:
		return declared(call.Forward.Call.Submit)
	}
	return nil
}

// declared lists the fields among members, each once.
func declared(members map[string]vault.Field) []policy.Field {
	var fields []policy.Field
	for _, f := range members {
		if field := policy.Field(f.String()); !slices.Contains(fields, field) {
			fields = append(fields, field)
		}
	}
	slices.Sort(fields)
	return fields
}

// decide asks the holder directory whose the card is and the rules whether each operation may be done, and counts what
// is permitted against the limits.
func (x *running) decide(ctx context.Context, call *exchange.Call, p proven) (decided, error) {
	d, err := x.hold(ctx, call, p)
	if err != nil {
		return decided{}, err
	}
	rt := x.ep.route
	r := policy.Request{
		Partner: p.partner, User: p.user, Named: call.User, Card: d.holding, Issuer: rt.issuerName(), Face: rt.Name, Proofs: p.proofs,
		Environment: rt.Environment, Address: x.request.Address, Time: x.request.Received, Exchange: x.request.ID,
		SessionHash: call.SessionHash, UnboundTokens: rt.UnboundTokens, Origin: x.request.Origin,
	}
	if call.Forward != nil {
		r.Call = call.Forward.Call.Name
	}
	if call.Card != "" && d.holding == nil && call.Operations[0].Mints() {
		return decided{}, &policy.Denied{Reason: policy.DeniedUnknownCard} // a token is not bound to a card that is not there
	}
	if err := x.bound(call, p); err != nil {
		return decided{}, err
	}
	for _, op := range call.Operations {
		r.Operation, r.Fields = op, fieldsOf(call, op)
		permit, err := x.st.config.Engine.Decide(&r)
		if err != nil {
			return decided{}, x.denied(err)
		}
		x.ruled(permit.Rule())
		d.binding = append(d.binding, permit.Binding()...)
		d.pan = d.pan || permit.Allows(policy.FieldPAN)
		d.cvc = d.cvc || permit.Allows(policy.FieldCVC)
		if op == policy.ForwardReveal {
			d.reveal = slices.DeleteFunc(r.Fields, func(f policy.Field) bool { return !permit.Allows(f) })
		}
		if op == policy.ForwardSubmit && slices.ContainsFunc(r.Fields, func(f policy.Field) bool { return !permit.Allows(f) }) {
			return decided{}, exchange.Fail(exchange.Forbidden, "denied_field")
		}
	}
	return d, x.count(ctx, call, p, d)
}

// anonymous makes an exchange that showed no credential at all nobody's: not even the route's partner, whose customers show one,
// answers for it [27]. It is counted by its address, on all instances, before anything is stored for it.
func (x *running) anonymous(ctx context.Context, p *proven) error {
	if x.accepted {
		return nil
	}
	if p.partner != nil && p.partner.Disabled {
		return &policy.Denied{Reason: policy.DeniedDisabled}
	}
	p.partner = nil
	network := networkOf(x.request.Address).String()
	return x.limit(ctx, "anonymous", limitDigest(x.st.config.CardDigest, "anonymous", network), x.st.limits.Anonymous)
}

// bound holds the declared parameters of a forward's path to whom the exchange is for [3]. Another's is like one that is not
// there.
func (x *running) bound(call *exchange.Call, p proven) error {
	if call.Forward == nil {
		return nil
	}
	for name, to := range call.Forward.Call.Bind {
		own := p.account
		if to == "partner" && p.partner != nil {
			own = p.partner.ID
		}
		if own == "" || x.request.Param(name) != own {
			return exchange.Fail(exchange.NotFound, "path_of_another")
		}
	}
	return nil
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

// hold finds the card that is meant: the one that the caller names, the one that a token was minted for, or the user's own.
func (x *running) hold(ctx context.Context, call *exchange.Call, p proven) (decided, error) {
	var d decided
	directory, reference := x.st.config.Holders, cmp.Or(call.Card, p.card)
	if who := cmp.Or(p.user, call.User); who != "" {
		user, err := directory.User(ctx, who)
		switch {
		case errors.Is(err, holder.ErrNoUser) || err == nil && user.Issuer != x.ep.route.issuerName():
			return d, x.noUser(call, p)
		case err != nil:
			return d, fmt.Errorf("%w: %w", errDirectory, err)
		}
		if p.partner == nil || user.Partner != p.partner.ID { // proven or named: another partner's user is nobody here
			return d, x.noUser(call, p)
		}
		d.user = user
		if reference == "" && len(user.Cards) > 0 && touchesCard(call.Operations) {
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
	err = x.holdUser(ctx, &d)
	return d, err
}

// holdUser finds the card's own user where nobody is proven or named: some issuers want both. It proves nobody.
func (x *running) holdUser(ctx context.Context, d *decided) error {
	if d.user != nil || len(d.holding.Users) == 0 {
		return nil
	}
	user, err := x.st.config.Holders.User(ctx, d.holding.Users[0])
	switch {
	case errors.Is(err, holder.ErrNoUser) || err == nil && user.Issuer != d.holding.Issuer:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", errDirectory, err)
	}
	d.user = user
	return nil
}

// noUser is what is said of a user that the directory does not know for this issuer and partner. One whom the partner named is
// like a card that is not there [23].
func (x *running) noUser(call *exchange.Call, p proven) error {
	if p.user == "" {
		return &policy.Denied{Reason: policy.DeniedUnknownCard}
	}
	if call.Operations[0] == policy.SessionMint {
		return exchange.Fail(exchange.CredentialUnknown, "no_credential")
	}
	return exchange.Fail(exchange.NoAccount, "no_account")
}

func touchesCard(operations []policy.Operation) bool {
	return slices.ContainsFunc(operations, policy.Operation.TouchesCard)
}

var errDirectory = errors.New("holder directory cannot answer")

// count takes a place in the limits per partner, per card, and per card for what is done to its PIN [14].
func (x *running) count(ctx context.Context, call *exchange.Call, p proven, d decided) error {
	// A refresh token that was used up is not lost to a limit: who came back with it would end the login.
	if p.partner != nil && p.session == (credential.Session{}) {
		if known := x.st.partners[p.partner.ID]; known != nil {
			if err := x.limit(ctx, "partner", known.digest, known.rate); err != nil {
				return err
			}
		}
	}
	if d.holding == nil || call.Operations[0].Mints() {
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
	x.rate.note(name, rate, taken, time.Now())
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

// blind reports whether a PIN passes under the client's own session, for the issuer to open: nothing of it is opened here [14].
func (x *running) blind(call *exchange.Call) bool { return !x.ep.route.software && touchesPIN(call) }

func touchesPIN(call *exchange.Call) bool { return call.Has(policy.PINSet) || call.Has(policy.PINReveal) }

// open makes the session of the exchange, or none where nothing sealed or in clear crosses.
func (x *running) open(ctx context.Context, call *exchange.Call, p proven, d decided) (*vault.Session, error) {
	rt := x.ep.route
	if !call.Preamble.Present() {
		return x.openClear(ctx, call, d)
	}
	if x.blind(call) {
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

// openClear makes the session of a call without a preamble: of a client whose leg is in clear, or of none at all, whose fields are
// masked or refused [12, 13].
func (x *running) openClear(ctx context.Context, call *exchange.Call, d decided) (*vault.Session, error) {
	rt := x.ep.route
	o := vault.Opening{Binding: d.binding}
	switch f := call.Forward; {
	case rt.clear && (call.Has(policy.CardReveal) || call.Has(policy.PINReveal)):
		o.Client = rt.ClientKeys
	case f != nil && f.Call.Without == exchange.WithoutClear && len(f.Call.Fields)+len(f.Call.Submit) > 0:
		o.Client = vault.InsecureClearClient()
	case f == nil || len(f.Call.Fields) == 0:
		return nil, nil
	}
	o.Issuer = rt.Issuer.SessionKey
	return x.g.services.Vault.Open(ctx, o)
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
	return partner + "\x00" + p.account + "\x00" + p.user + "\x00" + card
}

// perform has the issuer do it, and does what is ours to do. What changes something is recorded as intended before that [17].
func (x *running) perform(ctx context.Context, call *exchange.Call, p proven, d decided) (*exchange.Result, error) {
	if x.changes(call) {
		// A caller that hangs up now does not leave it open whether the change was made.
		deadline, _ := ctx.Deadline()
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
		defer cancel()
		if err := x.record(ctx, audit.PhaseIntent); err != nil {
			return nil, exchange.Fail(exchange.Unavailable, "audit")
		}
		x.phase = audit.PhaseOutcome
		x.idempotent.effect = true
	}
	result := &exchange.Result{}
	if asksIssuer(call.Operations) {
		c := issuer.Call{
			Operations: call.Operations, PAN: d.pan, CVC: d.cvc, Session: x.session, PIN: call.PIN, Status: call.Status,
			Forward: call.Forward, Reveal: d.reveal, IdempotencyKey: x.issuerKey(call, p),
		}
		if d.holding != nil {
			c.Reference, c.Card = d.holding.Card, d.holding.IssuerCard
		}
		if d.user != nil {
			c.User = d.user.IssuerUser
		}
		var err error
		if result, err = x.ep.route.Issuer.do(ctx, x, p, &c); err != nil {
			return nil, err
		}
	}
	return result, x.own(ctx, call, p, d, result)
}

// changes reports whether a call changes something, at the issuer or here.
func (x *running) changes(call *exchange.Call) bool {
	change := func(op policy.Operation) bool { return op.Changes() || own(op) }
	return slices.ContainsFunc(call.Operations, change) || call.Forward != nil && call.Forward.Call.Changes
}

// asksIssuer reports whether a call needs the issuer: mints, and what we keep ourselves, do not.
func asksIssuer(operations []policy.Operation) bool {
	return slices.ContainsFunc(operations, func(op policy.Operation) bool { return !op.Mints() && !own(op) })
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
	out.Reset()
	x.event.Result, x.event.Reason = resultOf(f.Kind), f.Reason
	if x.phase == audit.PhaseOutcome && x.event.Result == audit.ResultFailed {
		x.event.Result = audit.ResultRefused // what may have happened all the same is unknown, and has its own kind [17]
	}
	if x.peer == nil && x.event.Result == audit.ResultRefused && !x.accepted {
		x.g.strangers.count(x.request.Address, x.request.Received, x.st.limits.Unproven)
	}
	if f.Rule != "" {
		x.event.Rule = f.Rule
	}
	x.ep.Fail(f.Kind, f.At, out)
	x.keep(ctx, nil, out, f)
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
	out.Reset()
	x.ep.Fail(f.Kind, f.At, out)
	x.rate.write(out)
	switch f.Kind {
	case exchange.LimitReached:
		out.RetryAfter = max(f.RetryAfter, 1)
	case exchange.Unavailable:
		if out.RetryAfter = f.RetryAfter; out.RetryAfter == 0 {
			out.RetryAfter = 5
		}
	}
	x.counted.outcomes[f.Kind].Inc()
	x.counted.duration.Observe(time.Since(x.request.Received).Seconds())
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
	if !slices.Equal(call.Operations, x.ep.Operations) {
		x.event.Operations = nameAll(call.Operations)
	}
	if known := x.ep.counted[call.Operations[0]]; known != nil {
		x.counted = known
	}
	if call.Forward != nil {
		x.event.Call = call.Forward.Call.Name
	}
	if call.Card != "" { // who asks for cards that are not there, or not theirs, shows too
		x.st.config.CardDigest.MAC(x.event.Card[:0], []byte(call.Card))
	}
	if call.Preamble.Present() {
		x.event.Legacy = x.ep.route.Legacy
		x.event.Software = x.ep.route.software && touchesPIN(call)
	}
}

// nameAll are the names of operations, for the audit event.
func nameAll(operations []policy.Operation) []string {
	names := make([]string, len(operations))
	for i, op := range operations {
		names[i] = string(op)
	}
	return names
}

func (rt *route) issuerName() string {
	if rt.Issuer == nil {
		return ""
	}
	return rt.Issuer.Name
}
