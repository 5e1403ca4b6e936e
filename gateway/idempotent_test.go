package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

// onEachStore runs a test on memory and on a real Redis.
func onEachStore(t *testing.T, test func(*testing.T, func(store.Store) store.Store)) {
	t.Run("memory", func(t *testing.T) { test(t, func(s store.Store) store.Store { return s }) })
	t.Run("Redis", func(t *testing.T) {
		server := testredis.Start(t)
		test(t, func(own store.Store) store.Store {
			must(own.Close())
			r, err := store.NewRedis(store.RedisConfig{Addresses: []string{server.Addr}, Timeout: 10 * time.Second})
			must(err)
			return r
		})
	})
}

// short is a store whose idempotent calls are over sooner, and whose owners can be made to die before they end one.
type short struct {
	store.Store
	lease, keep, tombstone time.Duration // zero leaves what was asked for
	dies                   atomic.Bool
}

func (s *short) Begin(ctx context.Context, k store.Kind, scope, body store.Digest, a store.Attempt, lease, keep, tombstone time.Duration) (store.Begun, error) {
	for _, t := range []struct{ is, to *time.Duration }{{&lease, &s.lease}, {&keep, &s.keep}, {&tombstone, &s.tombstone}} {
		if *t.to != 0 {
			*t.is = *t.to
		}
	}
	return s.Store.Begin(ctx, k, scope, body, a, lease, keep, tombstone)
}

func (s *short) Finish(ctx context.Context, k store.Kind, scope store.Digest, a store.Attempt, value []byte) error {
	if s.dies.Load() {
		return store.ErrUnavailable
	}
	return s.Store.Finish(ctx, k, scope, a, value)
}

func (s *short) Abandon(ctx context.Context, k store.Kind, scope store.Digest, a store.Attempt) error {
	if s.dies.Load() {
		return store.ErrUnavailable
	}
	return s.Store.Abandon(ctx, k, scope, a)
}

// Answers of Bridge's about idempotency keys, word for word.
const (
	bridgeInFlight  = `{"code":"in_progress","location":"header","name":"Idempotency-Key","message":"A request with this Idempotency-Key is being processed"}`
	bridgeOtherBody = `{"code":"invalid","location":"header","name":"Idempotency-Key","message":"Idempotency-Key was used for another request"}`
	bridgeTombstone = `{"code":"invalid","location":"header","name":"Idempotency-Key","message":"Idempotency-Key was used more than 24 hours ago"}`
)

func replayed() want {
	return want{status: 200, results: []string{"done replayed"}, rule: "key", outcome: "done"}
}

// TestIdempotentMint: one key is one mint: its repetitions give the same token, which stays spent once it is; a key belongs to
// its partner, its path and its body.
func TestIdempotentMint(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: wide, store: use})
		c, p := h.anybody(), h.proof()
		mint := h.bridgeMintCall(p, "Idempotency-Key", "one")
		first := h.ephemeralKey(h.expect("first", c, mint, minted()))
		before := h.metric("cardstile_tokens_minted_total")
		again := h.ephemeralKey(h.expect("again", c, mint, replayed()))
		with := mint
		with.path += "/"
		slash := h.ephemeralKey(h.expect("with a slash at its end", c, with, replayed()))
		second := mint.without("Api-Key").with("Api-Key", h.apiKeys["second"])
		other := h.ephemeralKey(h.expect("under the partner's other key", c, second, replayed()))
		if again != first || slash != first || other != first || h.metric("cardstile_tokens_minted_total") != before {
			t.Error("a repetition gave another token, or minted one")
		}
		h.expect("reveal", c, p.reveal(first), shown())
		if h.ephemeralKey(h.expect("after it is spent", c, mint, replayed())) != first {
			t.Error("a spent token was replaced")
		}
		h.expect("it stays spent", c, p.reveal(first), notShown("spent"))

		body := mint
		body.body = strings.Replace(mint.body, "{", "{ ", 1) // the raw body counts
		h.expect("another body", c, body, want{status: 422, body: bridgeOtherBody, results: []string{"refused idempotency_other_body"}, outcome: "other_body"})
		if key := h.ephemeralKey(h.expect("another key", c, h.bridgeMintCall(p, "Idempotency-Key", "two"), minted())); key == first {
			t.Error("another key gave the same token")
		}
		for name, x := range map[string]call{
			"another card of the partner's": h.bridgeCall("first", "POST", "cus-rain", "ca-second", "/ephemeral_keys", mint.body, "Idempotency-Key", "one"),
			"another partner":               h.bridgeCall("other", "POST", "cus-other", "ca-other", "/ephemeral_keys", mint.body, "Idempotency-Key", "one"),
			"another body and partner":      h.bridgeCall("other", "POST", "cus-other", "ca-other", "/ephemeral_keys", body.body, "Idempotency-Key", "three"),
		} {
			if key := h.ephemeralKey(h.expect(name, c, x, minted())); key == first {
				t.Errorf("%s: the same token", name)
			}
		}
		// Whoever has another partner's key, card and all finds nothing of it, not even that the key was used.
		theirs := body.without("Api-Key").with("Api-Key", h.apiKeys["other"])
		h.expect("another partner, at this card", c, theirs, want{status: 404, body: bridgeUnknown, results: []string{"refused denied_unknown_card"}, outcome: "not_found"})
		// At another gateway on the same store it is the same call.
		if h.ephemeralKey(h.sibling(options{routes: wide}).adopt(h).anybody().do(mint)) != first {
			t.Error("another gateway gave another token")
		}
	})
}

// adopt makes a house accept the partners' API keys of another one.
func (h *house) adopt(of *house) *house {
	h.keyFile, h.apiKeys = of.keyFile, of.apiKeys
	h.reload()
	return h
}

// TestIdempotentRefusalsAreNotKept: what was refused before it could have an effect runs anew under the same key [28].
func TestIdempotentRefusalsAreNotKept(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: wide, store: use, policies: strings.Replace(policies, `@id("key") permit`, `@id("key") forbid`, 1)})
		c, p := h.anybody(), h.proof()
		mint := h.bridgeMintCall(p, "Idempotency-Key", "one")
		for range 2 {
			h.expect("forbidden", c, mint, want{status: 403, body: bridgeForbidden, results: []string{"refused denied_forbidden"}, rule: "key", outcome: "forbidden"})
		}
		other := mint
		other.body = fmt.Sprintf(`{"client_nonce":%q}`, h.proof().nonce())
		h.expect("forbidden, another body", c, other, want{status: 403, body: bridgeForbidden, results: []string{"refused denied_forbidden"}, rule: "key", outcome: "forbidden"})
		h.expect("a key that is none", c, mint.without("Api-Key"), want{status: 401, body: bridgeNoKey, results: []string{"refused no_credential"}, outcome: "unauthorized"})
		h.o.policies = policies
		h.reload()
		h.expect("permitted", c, mint, minted())
		h.expect("permitted, again", c, mint, replayed())
	})
}

// gated is a store in which the first token that is minted waits until it may go on.
type gated struct {
	store.Store
	passed         atomic.Bool // by the first one
	entered, leave chan struct{}
}

func (g *gated) Mint(ctx context.Context, k store.Kind, d store.Digest, value []byte, ttl time.Duration) error {
	if g.passed.CompareAndSwap(false, true) {
		close(g.entered)
		<-g.leave
	}
	return g.Store.Mint(ctx, k, d, value, ttl)
}

// TestIdempotentInFlight: while a call is being made its repetition is told so, and mints nothing; what it was told is not kept.
func TestIdempotentInFlight(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		g := &gated{entered: make(chan struct{}), leave: make(chan struct{})}
		h := newHouse(t, options{routes: wide, store: func(own store.Store) store.Store { g.Store = use(own); return g }})
		c, p := h.anybody(), h.proof()
		mint := h.bridgeMintCall(p, "Idempotency-Key", "one")
		first := make(chan reply, 1)
		go func() {
			r, err := c.try(mint)
			if err != nil {
				t.Error(err)
			}
			first <- r
		}()
		<-g.entered
		before := len(h.records())
		if r := c.do(mint); r.status != 409 || r.body != bridgeInFlight {
			t.Errorf("the same: %d %s", r.status, r.body)
		}
		other := mint
		other.body = fmt.Sprintf(`{"client_nonce":%q}`, h.proof().nonce())
		if r := c.do(other); r.status != 422 || r.body != bridgeOtherBody {
			t.Errorf("another body: %d %s", r.status, r.body)
		}
		h.expect("another key", c, h.bridgeMintCall(p, "Idempotency-Key", "two"), minted())
		records := h.records()[before:]
		if len(records) != 3 || records[0].Reason != "idempotency_in_flight" || records[1].Reason != "idempotency_other_body" || records[0].Result != "refused" {
			t.Errorf("recorded %+v", records)
		}
		close(g.leave)
		token := h.ephemeralKey(<-first)
		if h.ephemeralKey(h.expect("afterwards", c, mint, replayed())) != token {
			t.Error("the repetition gave another token")
		}
		h.expect("reveal", c, p.reveal(token), shown())
	})
}

// TestIdempotentEffects: a change is made once under its key, refused ones too; where it is open what became of it, the next one
// is passed on, with the caller's own key.
func TestIdempotentEffects(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{store: use, routes: func(h *house) []gateway.Route {
			return []gateway.Route{h.bridgeRoute(h.issuerKind("bridge", nil))}
		}})
		c := h.anybody()
		change := func(tail, key string) call {
			return h.bridgeCall("first", "POST", "cus-bridge", "ca-bridge", tail, "", "Idempotency-Key", key)
		}
		done := want{status: 200, results: []string{"intent", "done"}, rule: "key", outcome: "done", upstream: 2}
		r := h.expect("freeze", c, change("/freeze", "one"), done)
		if again := h.expect("freeze, again", c, change("/freeze", "one"), replayed()); again.body != r.body || again.header.Get("Content-Type") != r.header.Get("Content-Type") {
			t.Errorf("replayed %s, of %s", again.body, r.body)
		}
		already := want{status: 400, results: []string{"intent", "refused issuer_already_set"}, rule: "key", outcome: "already_set", upstream: 1}
		h.expect("freeze under another key", c, change("/freeze", "two"), already)
		h.expect("unfreeze", c, change("/unfreeze", "back"), done)
		// The refusal of the second key is its answer, although the card is active by now.
		again := h.expect("the refused one again", c, change("/freeze", "two"), want{status: 400, results: []string{"done replayed"}, rule: "key", outcome: "done"})
		if !strings.Contains(again.body, "in that state already") || h.bridge.Status("ba-1") != "active" {
			t.Errorf("replayed %s", again.body)
		}

		h.bridge.SetFault("ba-1", sandbox.Fault500.On(sandbox.CallFreeze))
		h.expect("unknown", c, change("/freeze", "three"),
			want{status: 504, results: []string{"intent", "unknown outcome_unknown"}, rule: "key", outcome: "outcome_unknown", upstream: 2})
		h.bridge.SetFault("ba-1", sandbox.Fault{})
		h.expect("passed on", c, change("/freeze", "three"), done)
		h.expect("and kept", c, change("/freeze", "three"), replayed())
		var keys []string
		for _, seen := range h.bridge.Requests() {
			if seen.Method == "POST" {
				keys = append(keys, seen.Header.Get("Idempotency-Key"))
			}
		}
		if strings.Join(keys, " ") != "one back three three" {
			t.Errorf("the issuer got the keys %q", keys)
		}
	})
}

// TestIdempotentTombstone: a key whose answer is not kept any more is told so, whatever its body; once that is over it is new.
func TestIdempotentTombstone(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		var s *short
		h := newHouse(t, options{routes: wide, store: func(own store.Store) store.Store {
			s = &short{Store: use(own), lease: 100 * time.Millisecond, keep: 100 * time.Millisecond}
			return s
		}})
		c, p := h.anybody(), h.proof()
		mint := h.bridgeMintCall(p, "Idempotency-Key", "one")
		first := h.ephemeralKey(c.do(mint))
		eventually(t, "the answer is not kept any more", func() bool { return c.do(mint).status == 422 })
		gone := want{status: 422, body: bridgeTombstone, results: []string{"refused idempotency_key_expired"}, outcome: "key_expired"}
		h.expect("late", c, mint, gone)
		other := mint
		other.body = fmt.Sprintf(`{"client_nonce":%q}`, h.proof().nonce())
		h.expect("late, another body", c, other, gone)
		h.expect("the token is good all the same", c, p.reveal(first), shown())

		s.tombstone = time.Millisecond
		mint = h.bridgeMintCall(p, "Idempotency-Key", "two")
		second := h.ephemeralKey(c.do(mint))
		eventually(t, "the key is new again", func() bool {
			r := c.do(mint)
			return r.status == 200 && h.ephemeralKey(r) != second
		})
	})
}

// TestIdempotentTakeover: an owner that died before it ended its call holds the key for its lease alone. What comes after it is
// another token: nobody has seen what the first one was, and a spent one is not revived.
func TestIdempotentTakeover(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		var s *short
		h := newHouse(t, options{routes: wide, store: func(own store.Store) store.Store {
			s = &short{Store: use(own), lease: time.Second}
			return s
		}})
		c, p := h.anybody(), h.proof()
		mint := h.bridgeMintCall(p, "Idempotency-Key", "one")
		s.dies.Store(true)
		first := h.ephemeralKey(c.do(mint))
		s.dies.Store(false)
		h.expect("its token is spent", c, p.reveal(first), shown())
		var second string
		eventually(t, "somebody takes over", func() bool {
			r := c.do(mint)
			if r.status == 200 {
				second = h.ephemeralKey(r)
			} else if r.status != 409 {
				t.Errorf("answered %d", r.status)
			}
			return r.status == 200
		})
		if second == first {
			t.Error("the token of the first owner came back")
		}
		h.expect("kept", c, mint, replayed())
		h.expect("the first token stays spent", c, p.reveal(first), notShown("spent"))
		h.expect("the second shows the card", c, p.reveal(second), shown())
		if !strings.Contains(h.log.String(), "an idempotent call could not be ended") {
			t.Error("the operator was not told")
		}
	})
}

// TestIdempotentOneWinner: fifty at once under one key mint one token.
func TestIdempotentOneWinner(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: wide, store: use})
		mint := h.bridgeMintCall(h.proof(), "Idempotency-Key", "one")
		got := h.race(50, func(int) call { return mint })
		if got[200] == 0 || got[200]+got[409] != 50 || h.metric("cardstile_tokens_minted_total") != 1 {
			t.Errorf("answers %v, %v tokens", got, h.metric("cardstile_tokens_minted_total"))
		}
	})
}

// TestKeptAnswersAreSealed: whoever writes to the store can delete what is kept, and not put another in its place.
func TestKeptAnswersAreSealed(t *testing.T) {
	var s *swapping
	h := newHouse(t, options{routes: wide, store: func(own store.Store) store.Store { s = &swapping{Store: own}; return s }})
	c := h.anybody()
	one, two := h.bridgeMintCall(h.proof(), "Idempotency-Key", "one"), h.bridgeMintCall(h.proof(), "Idempotency-Key", "two")
	c.do(one)
	c.do(two)
	s.answer = s.kept[1]
	h.expect("another's answer", c, one, want{status: 422, body: bridgeTombstone, results: []string{"refused idempotency_kept"}, outcome: "key_expired"})
	s.answer = []byte("forged")
	h.expect("a forged answer", c, one, want{status: 422, body: bridgeTombstone, results: []string{"refused idempotency_kept"}, outcome: "key_expired"})
	s.answer = nil
	h.expect("its own", c, one, replayed())
}

// swapping is a store that gives out what somebody put there.
type swapping struct {
	store.Store
	kept   [][]byte
	answer []byte
}

func (s *swapping) Finish(ctx context.Context, k store.Kind, scope store.Digest, a store.Attempt, value []byte) error {
	s.kept = append(s.kept, append([]byte{}, value...))
	return s.Store.Finish(ctx, k, scope, a, value)
}

func (s *swapping) Begin(ctx context.Context, k store.Kind, scope, body store.Digest, a store.Attempt, lease, keep, tombstone time.Duration) (store.Begun, error) {
	begun, err := s.Store.Begin(ctx, k, scope, body, a, lease, keep, tombstone)
	if s.answer != nil && err == nil && !begun.Owner {
		begun.Value = s.answer
	}
	return begun, err
}
