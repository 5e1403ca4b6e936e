package store

import (
	"context"
	"fmt"
	"time"
)

// Reason says why a store could not answer: a label of cardstile_store_failures_total, so the set is closed.
type Reason string

// The reasons. Those of Redis are named after the code of its error reply.
const (
	ReasonCanceled   Reason = "canceled"    // the caller's context was cancelled
	ReasonTimeout    Reason = "timeout"     // no answer before the deadline or the time-out
	ReasonFull       Reason = "full"        // no room: Memory's bound, Redis's maxmemory (OOM)
	ReasonClosed     Reason = "closed"      // the store was closed
	ReasonDial       Reason = "dial"        // no connection: refused, unreachable, name not found
	ReasonTLS        Reason = "tls"         // the TLS handshake failed
	ReasonPassword   Reason = "password"    // the password file cannot be read
	ReasonAuth       Reason = "auth"        // NOAUTH, WRONGPASS: user name or password refused
	ReasonPermission Reason = "permission"  // NOPERM: the ACL user lacks a command or key
	ReasonPool       Reason = "pool"        // every connection is in use
	ReasonConnection Reason = "connection"  // the connection broke
	ReasonReadOnly   Reason = "readonly"    // READONLY: a replica
	ReasonLoading    Reason = "loading"     // LOADING, MASTERDOWN: it has not got its data yet
	ReasonPersist    Reason = "persistence" // MISCONF: it cannot write to its disk
	ReasonReplicas   Reason = "replicas"    // NOREPLICAS: too few replicas follow
	ReasonClients    Reason = "clients"     // it has too many clients
	ReasonBusy       Reason = "busy"        // BUSY: a script runs for too long
	ReasonCluster    Reason = "cluster"     // CLUSTERDOWN, MOVED, ASK, TRYAGAIN, CROSSSLOT
	ReasonEviction   Reason = "eviction"    // its maxmemory-policy may forget what was spent
	ReasonReply      Reason = "reply"       // an answer that it should never give
)

// Unavailable is the error of a store that could not answer. It matches ErrUnavailable, with ReasonFull also ErrFull,
// and the context's error where that was the cause. Its text has neither keys, values nor what the server said.
type Unavailable struct {
	Store     string // "memory" or "redis"
	Operation string // "mint", "redeem", …
	Reason    Reason
	cause     error // context.Canceled, context.DeadlineExceeded, or nil
}

func (e *Unavailable) Error() string {
	return fmt.Sprintf("%s: %s: %v (%s)", e.Store, e.Operation, ErrUnavailable, e.Reason)
}

// Is matches ErrUnavailable, and ErrFull where that is the reason.
func (e *Unavailable) Is(target error) bool {
	return target == ErrUnavailable || target == ErrFull && e.Reason == ReasonFull
}

// Unwrap returns the context's error where it was the cause.
func (e *Unavailable) Unwrap() error { return e.cause }

// ended returns why an operation of a caller who is gone does not take place, or nil.
func ended(ctx context.Context, store string, op operation) error {
	err := ctx.Err()
	switch err {
	case nil:
		return nil
	case context.DeadlineExceeded:
		return &Unavailable{Store: store, Operation: op.String(), Reason: ReasonTimeout, cause: err}
	default:
		return &Unavailable{Store: store, Operation: op.String(), Reason: ReasonCanceled, cause: err}
	}
}

// invalid is an ErrInvalid that says which argument.
func invalid(op operation, what string) error { return fmt.Errorf("%w: %s: %s", ErrInvalid, op, what) }

// checkKind returns ErrInvalid where kind is not written as Kind says.
func checkKind(op operation, kind Kind) error {
	if len(kind) == 0 || len(kind) > 32 {
		return invalid(op, "a kind has 1 to 32 characters")
	}
	for i := range len(kind) {
		c := kind[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return invalid(op, "a kind is of a-z, 0-9, '_' and '-'")
		}
	}
	return nil
}

// checkEntry returns ErrInvalid for what neither store takes.
func checkEntry(op operation, kind Kind, value []byte, ttl time.Duration) error {
	if err := checkKind(op, kind); err != nil {
		return err
	}
	if len(value) > MaxValueBytes {
		return invalid(op, "the value is too long")
	}
	if ttl < time.Millisecond || ttl > MaxTTL {
		return invalid(op, "the time to live is out of bounds")
	}
	return nil
}

// checkRedeem returns ErrInvalid for a redemption that neither store takes.
func checkRedeem(kind Kind, a Attempt) error {
	if err := checkKind(opRedeem, kind); err != nil {
		return err
	}
	if a == (Attempt{}) {
		return invalid(opRedeem, "the attempt id is zero")
	}
	return nil
}
