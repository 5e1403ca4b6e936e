package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// replyReasons are the codes with which Redis begins its error replies. https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
var replyReasons = []struct {
	code   string
	reason Reason
}{
	{"READONLY", ReasonReadOnly},
	{"OOM", ReasonFull},
	{"LOADING", ReasonLoading},
	{"MASTERDOWN", ReasonLoading},
	{"NOAUTH", ReasonAuth},
	{"WRONGPASS", ReasonAuth},
	{"NOPERM", ReasonPermission},
	{"The user executing the script can't", ReasonPermission}, // NOPERM within a script, in Redis 7.0
	{"MISCONF", ReasonPersist},
	{"NOREPLICAS", ReasonReplicas},
	{"BUSY", ReasonBusy},
	{"CLUSTERDOWN", ReasonCluster},
	{"MOVED", ReasonCluster},
	{"ASK", ReasonCluster},
	{"TRYAGAIN", ReasonCluster},
	{"CROSSSLOT", ReasonCluster},
	{"max number of clients reached", ReasonClients},
}

// errPassword marks a password file that cannot be used. Its text, which names the file, is for Ready.
var errPassword = errors.New("password file")

// errTLS marks what failed in a TLS handshake.
var errTLS = errors.New("tls handshake")

// reasonOf sorts a failure of go-redis. What the server said goes no further: a reply may quote arguments.
func reasonOf(ctx context.Context, err error) Reason {
	if reply, ok := errors.AsType[redis.Error](err); ok {
		text := reply.Error()
		for _, r := range replyReasons {
			// Some come without a code of their own.
			if strings.HasPrefix(text, r.code) || strings.HasPrefix(text, "ERR "+r.code) {
				return r.reason
			}
		}
		return ReasonReply
	}
	switch {
	case errors.Is(err, redis.ErrClosed):
		return ReasonClosed
	case errors.Is(err, errPassword):
		return ReasonPassword
	case errors.Is(ctx.Err(), context.Canceled) || errors.Is(err, context.Canceled):
		return ReasonCanceled
	case isTLS(err):
		return ReasonTLS
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return ReasonPool
	}
	op, _ := errors.AsType[*net.OpError](err)
	timeout, _ := errors.AsType[net.Error](err)
	switch {
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return ReasonTimeout
	case timeout != nil && timeout.Timeout():
		return ReasonTimeout
	case op != nil && op.Op == "dial":
		return ReasonDial
	default:
		return ReasonConnection
	}
}

func isTLS(err error) bool {
	if errors.Is(err, errTLS) {
		return true
	}
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	return verification || record || alert || authority
}

// failed is the error for an operation that Redis did not answer.
func failed(ctx context.Context, op operation, err error) *Unavailable {
	u := &Unavailable{Store: "redis", Operation: op.String(), Reason: reasonOf(ctx, err)}
	switch {
	case u.Reason == ReasonCanceled:
		u.cause = context.Canceled
	case u.Reason == ReasonTimeout:
		// The connection's deadline is the context's, and may be noticed a moment before the context itself notices.
		if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
			u.cause = context.DeadlineExceeded
		}
	}
	return u
}

// unexpected is the error for a reply of a shape that the scripts do not have.
func unexpected(op operation) error {
	return &Unavailable{Store: "redis", Operation: op.String(), Reason: ReasonReply}
}
