package credential_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hmacKey is HMAC-SHA-256, as the vault's keys are.
type hmacKey struct{ key []byte }

func newKey(text string) *hmacKey { return &hmacKey{[]byte(text)} }

func (k *hmacKey) MAC(dst, message []byte) []byte {
	h := hmac.New(sha256.New, k.key)
	h.Write(message)
	return h.Sum(dst)
}

// ring has the shape of the vault's MACRing: it returns its own type, and nil
// for a tag that it does not know.
type ring []*hmacKey

func (r ring) tag(k *hmacKey) [3]byte { sum := sha256.Sum256(k.key); return [3]byte(sum[:]) }

func (r ring) Primary() (tag [3]byte, mac *hmacKey) { return r.tag(r[0]), r[0] }

func (r ring) ByTag(tag [3]byte) *hmacKey {
	for _, k := range r {
		if r.tag(k) == tag {
			return k
		}
	}
	return nil
}

// sealer is AES-256-GCM with a random nonce, as the vault's storage keys are.
type sealer struct{ cipher.AEAD }

func newSealer(t testing.TB, key string) sealer {
	t.Helper()
	sum := sha256.Sum256([]byte(key))
	block, err := aes.NewCipher(sum[:])
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return sealer{aead}
}

func (s sealer) Seal(dst, ad, plaintext []byte) ([]byte, error) {
	return s.AEAD.Seal(dst, nil, plaintext, ad), nil
}

func (s sealer) Open(dst, ad, sealed []byte) ([]byte, error) {
	return s.AEAD.Open(dst, nil, sealed, ad)
}

// clock stands still until it is moved.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.nanos.Store(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

func memory(t testing.TB, at *clock) *store.Memory {
	t.Helper()
	m, err := store.NewMemory(store.MemoryConfig{Now: at.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// tampered is a store in whose values somebody can write, or which is down.
type tampered struct {
	store.Store
	mu     sync.Mutex
	values map[store.Digest][]byte
	err    error
	asked  int
}

func newTampered() *tampered { return &tampered{values: map[store.Digest][]byte{}} }

func (s *tampered) put(d store.Digest, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.err == nil {
		s.values[d] = value
	}
	return s.err
}

func (s *tampered) get(d store.Digest) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.err != nil {
		return nil, s.err
	}
	value, ok := s.values[d]
	if !ok {
		return nil, store.ErrUnknown
	}
	return value, nil
}

func (s *tampered) Mint(_ context.Context, _ store.Kind, d store.Digest, value []byte, _ time.Duration) error {
	return s.put(d, value)
}

func (s *tampered) Redeem(_ context.Context, _ store.Kind, d store.Digest, _ store.Attempt) ([]byte, error) {
	return s.get(d)
}

func (s *tampered) Put(_ context.Context, _ store.Kind, d store.Digest, value []byte, _ time.Duration) error {
	return s.put(d, value)
}

func (s *tampered) Get(_ context.Context, _ store.Kind, d store.Digest) ([]byte, error) {
	return s.get(d)
}

func (s *tampered) Delete(_ context.Context, _ store.Kind, d store.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, d)
	return s.err
}

// only returns the one value that is stored, and where.
func (s *tampered) only(t testing.TB) (store.Digest, []byte) {
	t.Helper()
	if len(s.values) != 1 {
		t.Fatalf("%d values are stored, want 1", len(s.values))
	}
	for d, value := range s.values {
		return d, value
	}
	panic("unreachable")
}

// refused checks a refusal, and that neither it nor the proof says anything.
func refused(t testing.TB, proof policy.Proof, err error, kind policy.Kind, reason string, presented ...string) {
	t.Helper()
	r, ok := errors.AsType[*policy.Refused](err)
	if !ok || r.Kind != kind || r.Reason != reason {
		t.Fatalf("%v, want a %s refused as %q", err, kind, reason)
	}
	if proof != (policy.Proof{}) {
		t.Fatalf("a proof beside a refusal: %+v", proof)
	}
	for _, text := range presented {
		if len(text) > 8 && strings.Contains(err.Error(), text) {
			t.Fatalf("the refusal quotes what was presented: %v", err)
		}
	}
}

// unavailable checks that a failure of the store is not a refusal.
func unavailable(t testing.TB, proof policy.Proof, err error) {
	t.Helper()
	if _, isRefused := errors.AsType[*policy.Refused](err); isRefused || !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("%v, want the store's failure", err)
	}
	if proof != (policy.Proof{}) {
		t.Fatalf("a proof beside a failure: %+v", proof)
	}
}

var errDown = fmt.Errorf("test: %w", store.ErrUnavailable)

func TestKinds(t *testing.T) {
	for kind, want := range map[policy.Kind]credential.Traits{
		policy.KindCertificate: {Partner: true},
		policy.KindToken:       {SingleUse: true, Partner: true},
		policy.KindCookie:      {User: true},
		policy.KindAPIKey:      {Partner: true},
		policy.KindRefresh:     {SingleUse: true, Partner: true},
		policy.KindPublicKey:   {Partner: true},
		policy.KindSignature:   {Partner: true},
		policy.KindJWT:         {Partner: true},
		policy.KindChallenge:   {SingleUse: true},
		policy.KindWallet:      {User: true},
		policy.KindPasskey:     {User: true},
		policy.KindFields:      {Partner: true},
		policy.KindCardToken:   {SingleUse: true, Partner: true},
	} {
		if got, ok := credential.Of(kind); !ok || got != want {
			t.Errorf("%s: %+v, %t", kind, got, ok)
		}
	}
	for _, kind := range []policy.Kind{"", "password", "Token"} {
		if got, ok := credential.Of(kind); ok || got != (credential.Traits{}) {
			t.Errorf("%q is a kind: %+v", kind, got)
		}
	}
}
