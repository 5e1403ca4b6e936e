package gateway

import (
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy/store"
)

// FailureOf is the table of failures.
func FailureOf(err error) *exchange.Failure { return failureOf(err) }

// HandshakeReason names what ended a handshake.
func HandshakeReason(err error) string { return handshakeReason(err) }

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

// Kept returns how many certificates are kept for a host.
func (g *Gateway) Kept(host string) int {
	return len(g.managed.running.Load().cache.AllMatchingCertificates(host))
}

// SeenTo reports whether it has been looked what is to be stapled to a host's certificate.
func (g *Gateway) SeenTo(host string) bool {
	k := g.managed.running.Load()
	c, ok := k.own(host)
	if ok {
		_, ok = k.staples.words.Load(c.Hash())
	}
	return ok
}

// NewSealedStorage seals what another storage keeps.
func NewSealedStorage(inner certmagic.Storage, seals CertificateSeals) certmagic.Storage {
	return newSealedStorage(inner, seals)
}

// NewSharedStorage keeps certificates in a store, with locks of that lease.
func NewSharedStorage(files store.Files, lease time.Duration) certmagic.Storage {
	s := newSharedStorage(files, zap.NewNop())
	s.lease = lease
	return s
}

// MakeRoom takes entries out of a map until there is room for another.
func MakeRoom(m map[int]int, most int) { makeRoom(m, most) }

// Checks reports whether somebody keeps lists and answers fresh.
func (g *Gateway) Checks() bool {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	for _, c := range g.checked {
		if c.cancel != nil {
			return true
		}
	}
	return false
}
