package gateway_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/revocation"
	"github.com/cardstile/cardstile/policy/store"
)

// mintWith mints by a certificate.
func (h *house) mintWith(c tls.Certificate) string {
	h.t.Helper()
	return h.mintBody(h.callerWith(&c, true, nil), "")
}

// holding is a configuration whose partners' listener holds certificates against lists.
func holding(soft bool, lists ...[]byte) func(*house, *gateway.Config) {
	return func(_ *house, c *gateway.Config) {
		c.Listeners[0].Revocations = heldAgainst([]*authority{shared().partners}, soft, lists...)
	}
}

// reconfigure puts another configuration in force.
func (h *house) reconfigure(config func(*house, *gateway.Config)) {
	h.t.Helper()
	h.o.config = config
	must(h.gateway.Reload(h.newConfig()))
}

// TestARevokedCertificatesTokens are dead, at the instance that minted them and at one that never met the certificate; they are used up,
// and nothing reaches the issuer. Those of other certificates of the partner, and of other partners, are as good as before, and the
// partner's other certificate mints.
func TestARevokedCertificatesTokens(t *testing.T) {
	k := shared()
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		lost, kept, others := k.partners.client(subject), k.partners.client(subject), k.partners.client(otherName)
		good := holding(false, k.partners.revokes(nil))
		one := newHouse(t, options{store: use, config: good})
		two := one.sibling(options{config: good})
		houses := []*house{one, two}
		s := one.session()
		var dead, alive, foreign []string
		for range 4 {
			dead, alive, foreign = append(dead, one.mintWith(lost)), append(alive, one.mintWith(kept)), append(foreign, one.mintWith(others))
		}
		two.expect("before", two.anybody(), detailsCall(card, dead[3], s.ID()), revealed())
		for i, h := range houses {
			h.reconfigure(holding(false, k.partners.revokes([]*x509.Certificate{lost.Leaf})))
			h.expect("of the revoked one", h.anybody(), detailsCall(card, dead[i], s.ID()), revokedToken(1))
			h.expect("the same again", h.anybody(), detailsCall(card, dead[i], s.ID()),
				want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_spent"}, outcome: "unauthorized", refused: "spent"})
			h.expect("of the partner's other one", h.anybody(), detailsCall(card, alive[i], s.ID()), revealed())
			h.expect("of another partner's", h.anybody(), detailsCall(otherCard, foreign[i], s.ID()), revealed())
			h.expect("minted since", h.anybody(), detailsCall(card, h.mintWith(kept), s.ID()), revealed())
		}
		one.reconfigure(func(*house, *gateway.Config) {})
		one.expect("nobody is held against lists", one.anybody(), detailsCall(card, dead[2], s.ID()), revealed())
	})
}

// TestTokensAndTheEndOfAList: a token is as good as its certificate is in a handshake.
func TestTokensAndTheEndOfAList(t *testing.T) {
	k := shared()
	h := newHouse(t, options{config: holding(false, k.partners.revokes(nil))})
	s := h.session()
	hard, soft := h.mint(), h.mint()
	h.reconfigure(holding(false)) // the list of before is gone
	h.reconfigure(holding(false, k.partners.revokes(nil, ended)))
	h.expect("hard", h.anybody(), detailsCall(card, hard, s.ID()), revokedToken(1))
	h.reconfigure(holding(true, k.partners.revokes(nil, ended)))
	h.expect("soft", h.anybody(), detailsCall(card, soft, s.ID()), revealed())
}

// TestTokensByServers: a list and an answer of a CA's server end tokens while nobody connects.
func TestTokensByServers(t *testing.T) {
	k := shared()
	for name, by := range map[string]func(*served) revocation.Config{"list": (*served).byList, "OCSP": (*served).byOCSP} {
		t.Run(name, func(t *testing.T) {
			server := newServed(t, k.partners)
			h := newHouse(t, options{config: checking(by(server))})
			eventually(t, "a list is there", func() bool { _, err := h.shake("partners", with(k.partner)); return err == nil })
			s, token := h.session(), h.mint()
			server.revokes(2, k.partner.Leaf)
			handshakes := h.metric("cardstile_handshakes_total", "listener", "partners")
			eventually(t, "the gateway knows", func() bool {
				return h.metric("cardstile_revocation_list_entries", "listener", "partners") == 1 ||
					h.metric("cardstile_revocation_ocsp_total", "listener", "partners", "result", "revoked") == 1
			})
			h.expect("a token", h.anybody(), detailsCall(card, token, s.ID()), revokedToken(1))
			if now := h.metric("cardstile_handshakes_total", "listener", "partners"); now != handshakes {
				t.Errorf("%v handshakes", now-handshakes)
			}
		})
	}
}

// TestWhoseTokenCannotBeJudged: who minted is known from the store alone, and what is missing or put there by somebody else is refused;
// a store that does not answer is no answer either.
func TestWhoseTokenCannotBeJudged(t *testing.T) {
	k := shared()
	var down failing
	clock := &turned{}
	one := newHouse(t, options{config: holding(false, k.partners.revokes(nil)), services: func(s *gateway.Services) { s.Now = clock.now }, store: func(s store.Store) store.Store { down.Store = s; return &down }})
	stranger := k.partners.client(subject)
	kind, digest := store.Kind("certificate"), store.Digest(sha256.Sum256(k.partner.Leaf.Raw))
	for name, spoil := range map[string]func(){
		"missing":    func() { must(one.services.Store.Delete(t.Context(), kind, digest)) },
		"another's":  func() { must(one.services.Store.Put(t.Context(), kind, digest, stranger.Leaf.Raw, time.Hour)) },
		"not one":    func() { must(one.services.Store.Put(t.Context(), kind, digest, []byte("x"), time.Hour)) },
		"none at it": func() { must(one.services.Store.Put(t.Context(), kind, digest, nil, time.Hour)) },
	} {
		token, s := one.mint(), one.session()
		spoil()
		two := one.sibling(options{config: holding(false, k.partners.revokes(nil))})
		two.expect(name, two.anybody(), detailsCall(card, token, s.ID()), revokedToken(1))
	}
	clock.turn(11 * time.Second) // after which the certificate is put there again
	three := one.sibling(options{config: holding(false, k.partners.revokes(nil))})
	token, s := one.mint(), one.session()
	must(one.services.Store.Put(t.Context(), kind, digest, nil, time.Hour))
	clock.turn(22 * time.Second)
	again := one.mint()
	two := one.sibling(options{config: holding(false, k.partners.revokes(nil))})
	two.expect("put there again", two.anybody(), detailsCall(card, again, s.ID()), revealed())
	down.kind = kind
	three.expect("no answer", three.anybody(), detailsCall(card, token, s.ID()), want{
		status: 503, body: gnosis("Service unavailable"), retryAfter: true, results: []string{"failed store"}, outcome: "unavailable", redeemed: 1,
	})
	four := k.partners.client(subject)
	one.expect("a mint that cannot be noted", one.callerWith(&four, true, nil), mintCall(""), want{
		status: 503, body: gnosis("Service unavailable"), retryAfter: true, results: []string{"failed store"}, rule: "mint", outcome: "unavailable",
	})
}

// failing is a store that does not answer about records of a kind.
type failing struct {
	store.Store
	kind store.Kind
}

func (f *failing) Get(ctx context.Context, kind store.Kind, d store.Digest) ([]byte, error) {
	if kind == f.kind {
		return nil, &store.Unavailable{Store: "test", Operation: "get", Reason: store.ReasonTimeout}
	}
	return f.Store.Get(ctx, kind, d)
}

func (f *failing) Put(ctx context.Context, kind store.Kind, d store.Digest, value []byte, ttl time.Duration) error {
	if kind == f.kind {
		return &store.Unavailable{Store: "test", Operation: "put", Reason: store.ReasonTimeout}
	}
	return f.Store.Put(ctx, kind, d, value, ttl)
}
