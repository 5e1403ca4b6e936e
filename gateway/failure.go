package gateway

import (
	"context"
	"errors"

	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
)

// failureOf is the one place where our errors become what a caller may know. The rows are in order: the first that
// matches decides. An error that stands in none of them is an opaque 500.
func failureOf(err error) *exchange.Failure {
	var failure *exchange.Failure
	if errors.As(err, &failure) {
		return failure
	}
	var refused *policy.Refused
	if errors.As(err, &refused) {
		return &exchange.Failure{Kind: refusedKind(refused), Reason: string(refused.Kind) + "_" + refused.Reason, Err: err}
	}
	var denied *policy.Denied
	if errors.As(err, &denied) {
		return &exchange.Failure{Kind: deniedKinds[denied.Reason], Reason: "denied_" + denied.Reason, Rule: denied.Rule, Err: err}
	}
	if errors.Is(err, issuer.ErrGuard) {
		kind := exchange.IssuerFailed
		if errors.Is(err, errOutcomeUnknown) { // the change was made; what was answered to it is not released
			kind = exchange.OutcomeUnknown
		}
		return &exchange.Failure{Kind: kind, Reason: "egress_guard", Err: err}
	}
	for _, row := range failures {
		if errors.Is(err, row.err) {
			return &exchange.Failure{Kind: row.kind, Reason: row.reason, Err: err}
		}
	}
	return &exchange.Failure{Kind: exchange.Internal, Reason: "internal", Err: err}
}

var failures = []struct {
	err    error
	kind   exchange.Kind
	reason string
}{
	{store.ErrUnavailable, exchange.Unavailable, "store"}, // ErrFull too
	{credential.ErrStanding, exchange.Unavailable, "standing"},
	{errDirectory, exchange.Unavailable, "directory"},
	{vault.ErrBusy, exchange.Unavailable, "rsa_busy"},
	{vault.ErrWeakPIN, exchange.WeakPIN, "weak_pin"},
	{issuer.ErrWeakPIN, exchange.WeakPIN, "weak_pin_issuer"},
	{errOutcomeUnknown, exchange.OutcomeUnknown, "outcome_unknown"},
	{errDestination, exchange.IssuerFailed, "issuer_destination"}, // before ErrUnreachable, which these two are as well
	{errPin, exchange.IssuerFailed, "issuer_pin"},
	{issuer.ErrUnreachable, exchange.IssuerFailed, "issuer_unreachable"},
	{issuer.ErrTimeout, exchange.IssuerTimeout, "issuer_timeout"},
	{issuer.ErrLost, exchange.IssuerFailed, "issuer_lost"},
	{issuer.ErrTooLarge, exchange.IssuerFailed, "issuer_too_large"},
	{issuer.ErrNoCard, exchange.NotFound, "issuer_no_card"},
	{issuer.ErrSet, exchange.AlreadySet, "issuer_already_set"},
	{issuer.ErrBadCard, exchange.BadCard, "issuer_bad_card"},
	{issuer.ErrRefused, exchange.IssuerFailed, "issuer_refused"},
	{issuer.ErrFailed, exchange.IssuerFailed, "issuer_failed"},
	{issuer.ErrAnswer, exchange.IssuerFailed, "issuer_answer"},
	{vault.ErrPreamble, exchange.BadSession, "preamble"},
	{vault.ErrOpen, exchange.BadSession, "open"},
	{context.DeadlineExceeded, exchange.Unavailable, "deadline"},
	{context.Canceled, exchange.Unavailable, "canceled"},
	{store.ErrInFlight, exchange.InFlight, "idempotency_in_flight"},
	{store.ErrOtherBody, exchange.OtherBody, "idempotency_other_body"},
	{store.ErrTombstone, exchange.KeyExpired, "idempotency_key_expired"},

	// What never gets as far as here: package credential makes refusals of the store's answers, and a session is opened
	// with a permit. If one does, it is a mistake of ours.
	{store.ErrUnknown, exchange.Internal, "store_unknown"},
	{store.ErrSpent, exchange.Internal, "store_spent"},
	{store.ErrExpired, exchange.Internal, "store_expired"},
	{store.ErrFenced, exchange.Internal, "store_fenced"},
	{store.ErrExists, exchange.Internal, "store_exists"},
	{store.ErrInvalid, exchange.Internal, "store_invalid"},
	{store.ErrLost, exchange.Internal, "store_lost"},
	{vault.ErrBinding, exchange.Internal, "no_permit"},
	// Whose body it is, the caller's or the issuer's, is known where it is read, and said there.
	{vault.ErrBodyTooLarge, exchange.Internal, "clear_body_too_large"},
	{vault.ErrBody, exchange.Internal, "clear_body"},
	{vault.ErrMember, exchange.Internal, "clear_member"},
	{vault.ErrSplice, exchange.Internal, "clear_splice"},
}

// refusedKind: a challenge and what was signed for it fail in words of their own, all else alike.
func refusedKind(r *policy.Refused) exchange.Kind {
	switch r.Kind {
	case policy.KindChallenge:
		return exchange.ChallengeUnknown
	case policy.KindWallet, policy.KindPasskey:
		return exchange.BadSignature
	}
	return exchange.Unauthorized
}

// deniedKinds: somebody else's card looks like one that does not exist, and a token that is good for something else like
// one that is good for nothing. What is not listed is Internal.
var deniedKinds = map[string]exchange.Kind{
	policy.DeniedNoPolicy:     exchange.Forbidden,
	policy.DeniedForbidden:    exchange.Forbidden,
	policy.DeniedNotHolder:    exchange.NotFound,
	policy.DeniedUnknownCard:  exchange.NotFound,
	policy.DeniedProof:        exchange.Unauthorized,
	policy.DeniedUnboundToken: exchange.Unauthorized,
	policy.DeniedBound:        exchange.Unauthorized,
	policy.DeniedError:        exchange.Forbidden,
	policy.DeniedEnvironment:  exchange.Forbidden,
	policy.DeniedDisabled:     exchange.Forbidden,
}

// resultOf is what the audit log calls a failure.
func resultOf(kind exchange.Kind) audit.Result {
	switch kind {
	case exchange.Internal, exchange.Unavailable, exchange.IssuerFailed, exchange.IssuerTimeout:
		return audit.ResultFailed
	case exchange.OutcomeUnknown:
		return audit.ResultUnknown
	default:
		return audit.ResultRefused
	}
}
