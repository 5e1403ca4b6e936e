package gateway

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
)

// running is one exchange on its way through the stages.
type running struct {
	g       *Gateway
	st      *state
	l       *listenerState
	host    *virtualHost
	ep      *endpoint
	counted *counted // of the operation that it begins with, as soon as that is known
	peer    *peer
	chain   []*x509.Certificate // of the peer's certificate, verified, from leaf to root; nil without
	request exchange.Request
	trace   trace

	held       held
	slot       *vault.Slot
	hosted     hostedExchange    // of hosted fields
	session    *vault.Session    // closed when the exchange is done: its answer may be in it
	verdict    func(error)       // tells the issuer's circuit breaker what became of the place it gave
	late       *exchange.Failure // of a body that could not be read, where callers are told so once they are proven
	idempotent idempotent
	rate       rateHeaders
	attempt    store.Attempt     // under which it redeems what is good once; zero until it does
	spent      bool              // whether a credential that is good once was used up
	failed     *exchange.Failure // what the exchange was answered, where it failed
	accepted   bool              // whether some credential proved something, for somebody who is not switched off
	event      audit.Event       // filled along the way
	phase      audit.Phase       // of the last record: an outcome where an intent was recorded
	mark       time.Time         // when the present stage began
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
		return x.renderKept(call, kept, out)
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

// strange is how long the caller is turned away for, because its address proved nothing too often. Whoever has a certificate that is
// good is no stranger, whoever else is behind its address.
func (x *running) strange(ctx context.Context) time.Duration {
	left := x.g.strangers.left(x.request.Address, x.request.Received, x.st.limits.Unproven)
	if left > 0 && x.certain(ctx) {
		return 0
	}
	return left
}

// certain reports whether the connection's certificate is one that is asked for and accepted, of a partner that is not switched off. That a
// handshake was good with it says nothing: since then it may have been revoked, and it need be nobody's.
func (x *running) certain(ctx context.Context) bool {
	if x.peer == nil || x.host.ClientCAs == nil {
		return false
	}
	j := x.peer.judged(ctx, x.st, x.host, x.g.services.Now())
	if j.err != nil || j.partner.Disabled {
		return false
	}
	standing, err := x.g.standings.Known(j.partner.ID)
	return err != nil || !standing.Disabled
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
	if call.Late == nil { // what is wrong with the header comes first
		call.Late = x.late
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
		result, err := x.replay(call, proven)
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

// blind reports whether a PIN passes under the client's own session, for the issuer to open: nothing of it is opened here [14].
func (x *running) blind(call *exchange.Call) bool { return !x.ep.route.software && touchesPIN(call) }

func touchesPIN(call *exchange.Call) bool {
	return call.Has(policy.PINSet) || call.Has(policy.PINReveal)
}

// open makes the session of the exchange, or none where nothing sealed or in clear crosses.
func (x *running) open(ctx context.Context, call *exchange.Call, p proven, d decided) (*vault.Session, error) {
	rt := x.ep.route
	if x.hosted.card.Present() {
		return x.g.services.Vault.Open(ctx, vault.Opening{Binding: d.binding, Held: x.hosted.card, Issuer: rt.Issuer.SessionKey})
	}
	if !call.Preamble.Present() {
		return x.openClear(ctx, call, d)
	}
	if x.blind(call) {
		return x.g.services.Vault.Blind(d.binding, call.Preamble)
	}
	if left := x.g.penalties.left(offender(p, d), x.request.Received); left > 0 {
		return nil, x.limited("failed_opens", left)
	}
	client := rt.ClientKeys
	if call.Has(policy.CardVerify) {
		client = rt.UploadKeys
	}
	session, err := x.g.services.Vault.Open(ctx, vault.Opening{
		Binding: d.binding, Client: client, Preamble: call.Preamble, Issuer: rt.Issuer.SessionKey, Slot: x.slot,
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
			Upload: call.Upload, Forward: call.Forward, Reveal: d.reveal, IdempotencyKey: x.issuerKey(call, p),
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

func (rt *route) issuerName() string {
	if rt.Issuer == nil {
		return ""
	}
	return rt.Issuer.Name
}
