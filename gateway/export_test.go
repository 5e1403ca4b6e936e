package gateway

import (
	"github.com/cardstile/cardstile/gateway/exchange"
)

// FailureOf is the table of failures.
func FailureOf(err error) *exchange.Failure { return failureOf(err) }

// HandshakeReason names what ended a handshake.
func HandshakeReason(err, deadline error) string { return handshakeReason(err, deadline) }

// ListedErrors are those that have a row in the table of failures.
func ListedErrors() []error {
	all := make([]error, 0, len(failures))
	for _, row := range failures {
		all = append(all, row.err)
	}
	return all
}

// DeniedKinds is the table of denials.
func DeniedKinds() map[string]exchange.Kind { return deniedKinds }

// CloseRaw breaks a listener as the kernel could.
func (g *Gateway) CloseRaw(name string) error {
	for _, l := range g.listeners {
		if l.name == name {
			if h, ok := l.accepted.(*handshaker); ok {
				return h.inner.Close()
			}
			return l.accepted.Close()
		}
	}
	return nil
}
