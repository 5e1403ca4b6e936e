package gateway

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
)

// This file is stage 9: what the audit log, the metrics and the log are told of an exchange, and how a refused one is answered.

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
	if x.event.Result == audit.ResultRefused && !x.accepted && !x.certain(ctx) {
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
	x.failed = f
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

// burn counts what was used up for nothing: the exchange failed, or its caller did not take the answer.
func (x *running) burn(lost error) {
	switch {
	case !x.spent:
	case x.failed != nil:
		x.g.metrics.burned.WithLabelValues(x.failed.Kind.String()).Inc()
	case lost != nil:
		x.g.metrics.burned.WithLabelValues(burnedLost).Inc()
	}
}

// burnedLost is the cause of a burn where the answer was good and nobody took it.
const burnedLost = "not_taken"

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
