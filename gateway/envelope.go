package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// This file accepts what is written under a caller's session once in 24 hours, so that a PIN set or a submitted field that was
// captured cannot be sent again under another credential [10]. Marks are set under every digest key, so that a rotation forgets
// none.

// envelopeFor is how long an envelope is remembered.
const envelopeFor = 24 * time.Hour

// kindSubmitted marks submitted fields.
const kindSubmitted store.Kind = "submitted"

func (x *running) acceptEnvelopes(ctx context.Context, call *exchange.Call, p proven) error {
	if call.Has(policy.PINSet) {
		return x.acceptOnce(ctx, append(call.SessionHash[:], call.PIN.IV...))
	}
	if call.Has(policy.CardVerify) {
		return x.acceptOnce(ctx, append(call.SessionHash[:], call.Upload.IV...))
	}
	if !call.Has(policy.ForwardSubmit) {
		return nil
	}
	for pointer := range call.Forward.Call.Submit {
		if !call.Forward.Body.Has(pointer) {
			continue
		}
		sealed, err := call.Forward.Body.Sealed(pointer)
		if err != nil {
			return err
		}
		if err := x.acceptSubmitted(ctx, call, p, append(call.SessionHash[:], sealed.IV...)); err != nil {
			return err
		}
	}
	return nil
}

// errEnvelope is never changed: failures are read, not written to.
var errEnvelope = exchange.Fail(exchange.BadSession, "envelope_replayed")

// replayedEnvelope is the kind of a replay beside those of credentials.
const replayedEnvelope = "envelope"

func (x *running) envelopeReplayed() error {
	x.g.metrics.replays.WithLabelValues(replayedEnvelope).Inc()
	return errEnvelope
}

func (x *running) acceptOnce(ctx context.Context, envelope []byte) error {
	for _, mac := range x.st.config.EnvelopeDigests {
		var digest store.Digest
		mac.MAC(digest[:0], envelope)
		err := x.g.services.Store.Once(ctx, store.KindEnvelope, digest, envelopeFor)
		if errors.Is(err, store.ErrSpent) {
			return x.envelopeReplayed()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// acceptSubmitted is acceptOnce for a call that its caller may repeat: the same envelope passes again in the same call of the same
// caller under the idempotency key that it came with first, for the issuer to judge [28], and in no other way.
func (x *running) acceptSubmitted(ctx context.Context, call *exchange.Call, p proven, envelope []byte) error {
	var attempt store.Attempt
	rand.Read(attempt[:])
	var under store.Digest
	rand.Read(under[:])
	for _, mac := range x.st.config.EnvelopeDigests {
		if call.IdempotencyKey != "" {
			mac.MAC(under[:0], x.scopeOf("submitted under\x00", p.partnerID(), p.account, p.user, call.IdempotencyKey))
		}
		var digest store.Digest
		mac.MAC(digest[:0], envelope)
		begun, err := x.g.services.Store.Begin(ctx, kindSubmitted, digest, under, attempt, time.Second, envelopeFor, 0)
		if errors.Is(err, store.ErrOtherBody) {
			return x.envelopeReplayed()
		}
		if err == nil && begun.Owner {
			err = x.g.services.Store.Finish(ctx, kindSubmitted, digest, attempt, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
