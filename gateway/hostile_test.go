package gateway_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"runtime"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy/store"
)

// TestWhoeverWritesToTheStore can delete what is known of the certificate that a token was minted under, and neither shorten its chain
// nor put another one there: the token is refused.
func TestWhoeverWritesToTheStore(t *testing.T) {
	k := shared()
	between := k.partners.intermediate("between")
	lost := between.client(subject)
	lists := [][]byte{k.partners.revokes(nil), between.revokes(nil)}
	one := newHouse(t, options{config: holding(false, lists...)})
	kind, digest := store.Kind("certificate"), store.Digest(sha256.Sum256(lost.Leaf.Raw))
	lists[1] = between.revokes([]*x509.Certificate{lost.Leaf})
	other := k.partners.client(subject)
	one.mintWith(other)
	for name, spoil := range map[string]func(){
		"as it is":        func() {},
		"without a chain": func() { must(one.services.Store.Put(t.Context(), kind, digest, lost.Leaf.Raw, time.Hour)) },
		"another's": func() {
			record, err := one.services.Store.Get(t.Context(), kind, sha256.Sum256(other.Leaf.Raw))
			must(err)
			must(one.services.Store.Put(t.Context(), kind, digest, record, time.Hour))
		},
	} {
		token, s := one.mintWith(lost), one.session()
		spoil()
		two := one.sibling(options{config: holding(false, lists...)})
		two.expect(name, two.anybody(), detailsCall(card, token, s.ID()), revokedToken(1))
	}
}

// TestAnEndIsNoWayOut: a revoked certificate's token is no better for the certificate's having ended since.
func TestAnEndIsNoWayOut(t *testing.T) {
	k := shared()
	clock := &turned{}
	lost := k.partners.client(subject) // for an hour
	one := newHouse(t, options{config: holding(true, k.partners.revokes(nil)), services: func(s *gateway.Services) { s.Now = clock.now }})
	token, s := one.mintWith(lost), one.session()
	one.reconfigure(holding(true, k.partners.revokes([]*x509.Certificate{lost.Leaf})))
	clock.turn(61 * time.Minute)
	one.expect("ended", one.anybody(), detailsCall(card, token, s.ID()), revokedToken(1))
}

// TestWhatIsKeptOfHandshakes: anybody can send a certificate that is no secret with as much beside it as a message may have, and all
// that stays of that are the certificate and its chain.
func TestWhatIsKeptOfHandshakes(t *testing.T) {
	k := shared()
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) {
		c.Listeners[0].Revocations = heldAgainst([]*authority{k.partners}, true, k.partners.revokes(nil))
	}})
	const handshakes, beside = 256, 60 << 10
	client := k.partners.intermediate(k.partners.certificate.Subject.CommonName).client(subject)
	client.OCSPStaple = make([]byte, beside) // which nobody reads
	send := func(i int64) {
		c := client
		junk := k.partners.issue(ecKey(), &x509.Certificate{Subject: pkix.Name{CommonName: big.NewInt(i).String()}})
		c.Certificate = append(c.Certificate[:len(c.Certificate):len(c.Certificate)], junk.Certificate[0])
		config := with(c)
		config.MinVersion = tls.VersionTLS13
		h.welcome("with something beside it", config)
	}
	held := func() int {
		runtime.GC()
		runtime.GC() // the first one has finalizers run
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	send(-1)
	before := held()
	for i := range int64(handshakes) {
		send(i)
	}
	if grown := held() - before; grown > handshakes*beside/2 {
		t.Errorf("%d KiB of each of %d handshakes stay", grown/handshakes>>10, handshakes)
	}
}
