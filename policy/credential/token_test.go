package credential_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

var (
	first  = credential.Redemption{Attempt: store.Attempt{1}}
	second = credential.Redemption{Attempt: store.Attempt{2}}
)

func grant() policy.Grant {
	return policy.Grant{
		Partner: "gp-demo", Certificate: [32]byte{1}, Operation: policy.CardReveal, Card: "card-1",
		Environment: "test", Face: "gnosispay", User: "ada",
	}
}

func tokens(t testing.TB, config credential.TokensConfig) *credential.Tokens {
	t.Helper()
	if config.Digests == nil {
		config.Digests = credential.Ring(ring{newKey("digest")})
	}
	if config.Grants == nil {
		config.Grants = newSealer(t, "storage")
	}
	c, err := credential.NewTokens(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mint(t testing.TB, c *credential.Tokens, g policy.Grant) policy.Credential {
	t.Helper()
	text, _, err := c.Mint(t.Context(), g, credential.Minting{TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return policy.NewCredential(policy.KindToken, text)
}

func TestTokenIsRedeemedOnce(t *testing.T) {
	at := newClock()
	c := tokens(t, credential.TokensConfig{Store: memory(t, at), Now: at.now})
	want := grant()
	want.Generation = 7
	text, expires, err := c.Mint(t.Context(), want, credential.Minting{TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{52}$`).MatchString(text) || !expires.Equal(at.now().Add(time.Minute)) {
		t.Fatalf("%q until %s", text, expires)
	}
	presented := policy.NewCredential(policy.KindToken, text)
	proof, err := c.Redeem(t.Context(), presented, first)
	if err != nil {
		t.Fatal(err)
	}
	want.MintedAt = at.now().UnixMilli()
	if *proof.Grant != want {
		t.Errorf("grant %+v, want %+v", *proof.Grant, want)
	}
	proof.Grant = nil
	if proof != (policy.Proof{Kind: policy.KindToken, Partner: "gp-demo", User: "ada", Environment: "test", Minted: true, Generation: 7}) {
		t.Errorf("proof %+v", proof)
	}
	// A retried command of the same exchange gets its own answer back.
	if proof, err := c.Redeem(t.Context(), presented, first); err != nil || *proof.Grant != want {
		t.Errorf("the same attempt: %+v, %v", proof, err)
	}
	proof, err = c.Redeem(t.Context(), presented, second)
	refused(t, proof, err, policy.KindToken, policy.RefusedSpent, text)
}

func TestTokenExpires(t *testing.T) {
	at := newClock()
	c := tokens(t, credential.TokensConfig{Store: memory(t, at), Now: at.now})
	presented := mint(t, c, grant())
	at.advance(time.Minute)
	proof, err := c.Redeem(t.Context(), presented, first)
	refused(t, proof, err, policy.KindToken, policy.RefusedExpired)
}

func TestStoreAnswersBecomeRefusals(t *testing.T) {
	for reason, answer := range map[string]error{
		policy.RefusedUnknown: store.ErrUnknown, policy.RefusedSpent: store.ErrSpent,
		policy.RefusedExpired: store.ErrExpired, policy.RefusedFenced: store.ErrFenced,
	} {
		s := newTampered()
		c := tokens(t, credential.TokensConfig{Store: s})
		presented := mint(t, c, grant())
		s.err = answer
		proof, err := c.Redeem(t.Context(), presented, first)
		refused(t, proof, err, policy.KindToken, reason)
	}
}

func TestTokensWithoutStore(t *testing.T) {
	s := newTampered()
	c := tokens(t, credential.TokensConfig{Store: s})
	presented := mint(t, c, grant())
	s.err = errDown
	proof, err := c.Redeem(t.Context(), presented, first)
	unavailable(t, proof, err)
	text, expires, err := c.Mint(t.Context(), grant(), credential.Minting{TTL: time.Minute})
	unavailable(t, policy.Proof{}, err)
	if text != "" || !expires.IsZero() {
		t.Errorf("a token beside a failure: %q until %s", text, expires)
	}
	s.err = store.ErrExists
	if text, _, err := c.Mint(t.Context(), grant(), credential.Minting{TTL: time.Minute}); !errors.Is(err, store.ErrExists) || text != "" {
		t.Errorf("Mint = %q, %v", text, err)
	}
}

func TestMintRefusesWhatItCannotKeep(t *testing.T) {
	at := newClock()
	c := tokens(t, credential.TokensConfig{Store: memory(t, at), Now: at.now})
	for name, g := range map[string]policy.Grant{"zero": {}, "too long": {Partner: "p", Card: strings.Repeat("x", 2000)}} {
		if text, _, err := c.Mint(t.Context(), g, credential.Minting{TTL: time.Minute}); err == nil || text != "" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	for _, ttl := range []time.Duration{0, -time.Second} {
		if text, _, err := c.Mint(t.Context(), grant(), credential.Minting{TTL: ttl}); err == nil || text != "" {
			t.Errorf("ttl %s: %q, %v", ttl, text, err)
		}
	}
}

func TestTokensAreNotMadeOfLess(t *testing.T) {
	full := credential.TokensConfig{Store: newTampered(), Digests: credential.Ring(ring{newKey("k")}), Grants: newSealer(t, "k")}
	for name, drop := range map[string]func(*credential.TokensConfig){
		"store":   func(c *credential.TokensConfig) { c.Store = nil },
		"digests": func(c *credential.TokensConfig) { c.Digests = nil },
		"grants":  func(c *credential.TokensConfig) { c.Grants = nil },
	} {
		config := full
		drop(&config)
		if c, err := credential.NewTokens(config); err == nil || c != nil {
			t.Errorf("without %s: %v, %v", name, c, err)
		}
	}
}

// TestMalformedTokens: none of them reaches the store.
func TestMalformedTokens(t *testing.T) {
	s := newTampered()
	c := tokens(t, credential.TokensConfig{Store: s})
	good := mint(t, c, grant()).Value()
	s.asked = 0
	for name, text := range map[string]string{
		"nothing":           "",
		"one short":         good[:51],
		"one long":          good + "A",
		"padded":            good + "=",
		"padded, same size": good[:51] + "=",
		"space before":      " " + good[:51],
		"newline inside":    good[:20] + "\n" + good[20:51],
		"newline appended":  good + "\n",
		"crlf, right size":  good[:50] + "\r\n",
		"standard alphabet": "+/" + good[2:],
		"NUL":               good[:51] + "\x00",
		"non-ASCII":         good[:50] + "é",
		"hex":               strings.Repeat("ab", 26)[:52-1] + "!",
	} {
		proof, err := c.Redeem(t.Context(), policy.NewCredential(policy.KindToken, text), first)
		refused(t, proof, err, policy.KindToken, policy.RefusedMalformed, text)
		if s.asked != 0 {
			t.Fatalf("%s: the store was asked", name)
		}
	}
	for _, kind := range []policy.Kind{"", policy.KindCookie, policy.KindAPIKey} {
		proof, err := c.Redeem(t.Context(), policy.NewCredential(kind, good), first)
		refused(t, proof, err, policy.KindToken, policy.RefusedMalformed, good)
	}
	proof, err := c.Redeem(t.Context(), policy.Credential{}, first)
	refused(t, proof, err, policy.KindToken, policy.RefusedMalformed)
	if _, err := c.Redeem(t.Context(), policy.NewCredential(policy.KindToken, good), first); err != nil {
		t.Errorf("the good one, after all of them: %v", err)
	}
}

func TestTokenOfAnUnknownKey(t *testing.T) {
	s := newTampered()
	old, now := newKey("2025"), newKey("2026")
	presented := mint(t, tokens(t, credential.TokensConfig{Store: s, Digests: credential.Ring(ring{old})}), grant())

	// Rotation: the new key is primary, the old one is still read.
	c := tokens(t, credential.TokensConfig{Store: s, Digests: credential.Ring(ring{now, old})})
	if proof, err := c.Redeem(t.Context(), presented, first); err != nil || proof.Partner != "gp-demo" {
		t.Errorf("with overlap: %+v, %v", proof, err)
	}
	if fresh := mint(t, c, grant()); fresh.Value()[:4] == presented.Value()[:4] {
		t.Error("the new token has the old key's tag")
	}
	// Retired: its tokens are nobody's, and the store is not asked.
	s.asked = 0
	c = tokens(t, credential.TokensConfig{Store: s, Digests: credential.Ring(ring{now})})
	proof, err := c.Redeem(t.Context(), presented, first)
	refused(t, proof, err, policy.KindToken, policy.RefusedUnknown, presented.Value())
	if s.asked != 0 {
		t.Error("the store was asked for a token that nobody can have minted")
	}
}

// TestSealedGrantCannotBeChanged flips every bit of what is stored, cuts it
// short, and moves it to another token.
func TestSealedGrantCannotBeChanged(t *testing.T) {
	s := newTampered()
	c := tokens(t, credential.TokensConfig{Store: s})
	presented := mint(t, c, grant())
	digest, sealed := s.only(t)
	if bytes.Contains(sealed, []byte("gp-demo")) || bytes.Contains(sealed, []byte("card-1")) {
		t.Fatal("the grant is stored in clear")
	}
	for bit := range 8 * len(sealed) {
		changed := bytes.Clone(sealed)
		changed[bit/8] ^= 1 << (bit % 8)
		s.values[digest] = changed
		proof, err := c.Redeem(t.Context(), presented, first)
		refused(t, proof, err, policy.KindToken, policy.RefusedUnknown)
	}
	for n := range len(sealed) {
		s.values[digest] = sealed[:n]
		proof, err := c.Redeem(t.Context(), presented, first)
		refused(t, proof, err, policy.KindToken, policy.RefusedUnknown)
	}
	s.values[digest] = sealed
	if _, err := c.Redeem(t.Context(), presented, first); err != nil {
		t.Fatal(err)
	}
	clear(s.values)
	other := mint(t, c, grant())
	moved, _ := s.only(t)
	s.values[moved] = sealed
	proof, err := c.Redeem(t.Context(), other, first)
	refused(t, proof, err, policy.KindToken, policy.RefusedUnknown)
}

// TestSealedRubbishIsNoGrant: a value that opens and is not a grant.
func TestSealedRubbishIsNoGrant(t *testing.T) {
	s, seals := newTampered(), newSealer(t, "storage")
	c := tokens(t, credential.TokensConfig{Store: s, Grants: seals})
	presented := mint(t, c, grant())
	digest, _ := s.only(t)
	for _, plain := range []string{"", "{}", "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01"} {
		sealed, err := seals.Seal(nil, append([]byte("cardstile token grant v1"), digest[:]...), []byte(plain))
		if err != nil {
			t.Fatal(err)
		}
		s.values[digest] = sealed
		proof, err := c.Redeem(t.Context(), presented, first)
		refused(t, proof, err, policy.KindToken, policy.RefusedUnknown)
	}
}

// TestStoreNeverSeesTheToken: neither keys nor values have it, as text or as
// bytes.
func TestStoreNeverSeesTheToken(t *testing.T) {
	s := newTampered()
	c := tokens(t, credential.TokensConfig{Store: s})
	text := mint(t, c, grant()).Value()
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	digest, sealed := s.only(t)
	for _, part := range [][]byte{[]byte(text), raw, raw[3:], raw[3:19]} {
		if bytes.Contains(digest[:], part) || bytes.Contains(sealed, part) {
			t.Fatal("the store has the token")
		}
	}
}

func TestOneOfManyRacersWins(t *testing.T) {
	at := newClock()
	c := tokens(t, credential.TokensConfig{Store: memory(t, at), Now: at.now})
	presented := mint(t, c, grant())
	var won, spent atomic.Int64
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			_, err := c.Redeem(t.Context(), presented, credential.Redemption{Attempt: store.Attempt{1, byte(i)}})
			if r, ok := errors.AsType[*policy.Refused](err); ok && r.Reason == policy.RefusedSpent {
				spent.Add(1)
			} else if err == nil {
				won.Add(1)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || spent.Load() != 199 {
		t.Errorf("%d won, %d were told it is spent", won.Load(), spent.Load())
	}
}

// TestTokensDiffer: in every position, over many tokens, more than one
// character occurs, but for the nine that are the key's tag and the partner's
// hint (the tenth is one too in part).
func TestTokensDiffer(t *testing.T) {
	c := tokens(t, credential.TokensConfig{Store: newTampered()})
	var seen [52]map[byte]bool
	for range 64 {
		text := mint(t, c, grant()).Value()
		for i := range seen {
			if seen[i] == nil {
				seen[i] = map[byte]bool{}
			}
			seen[i][text[i]] = true
		}
	}
	for i, characters := range seen {
		if constant := len(characters) == 1; constant != (i < 9) {
			t.Errorf("position %d has %d characters", i, len(characters))
		}
	}
}

// TestAnyOtherTokenIsRefused changes one character of a good token.
func TestAnyOtherTokenIsRefused(t *testing.T) {
	at := newClock()
	c := tokens(t, credential.TokensConfig{Store: memory(t, at), Now: at.now})
	good := mint(t, c, grant()).Value()
	rapid.Check(t, func(rt *rapid.T) {
		changed := []byte(good)
		i := rapid.IntRange(0, 51).Draw(rt, "position")
		changed[i] = rapid.Byte().Draw(rt, "character")
		if string(changed) == good {
			return
		}
		_, err := c.Redeem(t.Context(), policy.NewCredential(policy.KindToken, string(changed)), first)
		r, ok := errors.AsType[*policy.Refused](err)
		if !ok || r.Reason != policy.RefusedMalformed && r.Reason != policy.RefusedUnknown {
			rt.Fatalf("%q beside %q: %v", changed, good, err)
		}
	})
	if _, err := c.Redeem(t.Context(), policy.NewCredential(policy.KindToken, good), first); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// FuzzToken: what is taken for a token is exactly the text of its bytes, and
// nothing that was not minted is redeemed.
func FuzzToken(f *testing.F) {
	s := newTampered()
	c := tokens(f, credential.TokensConfig{Store: s})
	f.Add(mint(f, c, grant()).Value())
	clear(s.values)
	f.Add(strings.Repeat("A", 52))
	f.Add(strings.Repeat("A", 45) + "\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		proof, err := c.Redeem(t.Context(), policy.NewCredential(policy.KindToken, text), first)
		r, ok := errors.AsType[*policy.Refused](err)
		if !ok || proof != (policy.Proof{}) {
			t.Fatalf("%q: %+v, %v", text, proof, err)
		}
		raw, err := base64.RawURLEncoding.DecodeString(text)
		canonical := err == nil && len(raw) == 39 && base64.RawURLEncoding.EncodeToString(raw) == text
		if canonical != (r.Reason == policy.RefusedUnknown) {
			t.Fatalf("%q is canonical: %t; refused as %q", text, canonical, r.Reason)
		}
	})
}

// bridgeNonce is a grant's, and a redemption's.
var bridgeNonce = [32]byte{1, 31: 2}

func nonced() policy.Grant {
	g := grant()
	g.Nonce = bridgeNonce
	return g
}

// giving is a redemption of its own that gives a nonce.
func giving(attempt byte, nonce [32]byte, keep bool) credential.Redemption {
	return credential.Redemption{Attempt: store.Attempt{attempt}, Nonce: nonce, Keep: keep}
}

// wrongNonces are the zero one, and each that differs in one bit.
func wrongNonces(right [32]byte) [][32]byte {
	all := make([][32]byte, 1, 257)
	for bit := range 256 {
		changed := right
		changed[bit/8] ^= 1 << (bit % 8)
		all = append(all, changed)
	}
	return all
}

// TestWrongNonceBurns: whatever the redemption gives, the token is spent.
func TestWrongNonceBurns(t *testing.T) {
	at := newClock()
	c := tokens(t, credential.TokensConfig{Store: memory(t, at), Now: at.now})
	burns := func(g policy.Grant, wrong [32]byte) {
		t.Helper()
		presented := mint(t, c, g)
		proof, err := c.Redeem(t.Context(), presented, giving(1, wrong, false))
		refused(t, proof, err, policy.KindToken, policy.RefusedBound, presented.Value())
		proof, err = c.Redeem(t.Context(), presented, giving(2, g.Nonce, false))
		refused(t, proof, err, policy.KindToken, policy.RefusedSpent)
	}
	for _, wrong := range wrongNonces(bridgeNonce) {
		burns(nonced(), wrong)
	}
	burns(grant(), bridgeNonce) // a proof that nobody asked for
	proof, err := c.Redeem(t.Context(), mint(t, c, nonced()), giving(1, bridgeNonce, false))
	if err != nil || proof.Grant.Nonce != bridgeNonce {
		t.Errorf("the right one: %+v, %v", proof, err)
	}
}

// TestKeptTokenSurvivesWrongNonces: none of them burns it, the right one
// redeems it once.
func TestKeptTokenSurvivesWrongNonces(t *testing.T) {
	at := newClock()
	c := tokens(t, credential.TokensConfig{Store: memory(t, at), Now: at.now})
	for name, g := range map[string]policy.Grant{"with a nonce": nonced(), "without": grant()} {
		text, _, err := c.Mint(t.Context(), g, credential.Minting{TTL: time.Minute, Keep: true})
		if err != nil {
			t.Fatal(err)
		}
		presented := policy.NewCredential(policy.KindToken, text)
		for _, wrong := range wrongNonces(g.Nonce) {
			if wrong == g.Nonce {
				continue
			}
			proof, err := c.Redeem(t.Context(), presented, giving(1, wrong, true))
			refused(t, proof, err, policy.KindToken, policy.RefusedUnknown, text)
		}
		proof, err := c.Redeem(t.Context(), presented, giving(1, g.Nonce, false)) // of the other order
		refused(t, proof, err, policy.KindToken, policy.RefusedUnknown, text)
		if proof, err := c.Redeem(t.Context(), presented, giving(1, g.Nonce, true)); err != nil || proof.Grant.Nonce != g.Nonce {
			t.Errorf("%s: %+v, %v", name, proof, err)
		}
		proof, err = c.Redeem(t.Context(), presented, giving(2, g.Nonce, true))
		refused(t, proof, err, policy.KindToken, policy.RefusedSpent, text)
	}
	// Nor is one of the other order found with Keep.
	presented := mint(t, c, nonced())
	proof, err := c.Redeem(t.Context(), presented, giving(1, bridgeNonce, true))
	refused(t, proof, err, policy.KindToken, policy.RefusedUnknown)
	if _, err := c.Redeem(t.Context(), presented, giving(1, bridgeNonce, false)); err != nil {
		t.Errorf("it was touched: %v", err)
	}
}

// TestKeptNonceIsCompared: a grant in the right place that asks for another
// nonce, as nobody can put there without our keys.
func TestKeptNonceIsCompared(t *testing.T) {
	s, seals := newTampered(), newSealer(t, "storage")
	c := tokens(t, credential.TokensConfig{Store: s, Grants: seals})
	text, _, err := c.Mint(t.Context(), nonced(), credential.Minting{TTL: time.Minute, Keep: true})
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := s.only(t)
	other := nonced()
	other.Nonce[0]++
	other.MintedAt = 1
	plain, err := other.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if s.values[digest], err = seals.Seal(nil, append([]byte("cardstile token grant v1"), digest[:]...), plain); err != nil {
		t.Fatal(err)
	}
	proof, err := c.Redeem(t.Context(), policy.NewCredential(policy.KindToken, text), giving(1, bridgeNonce, true))
	refused(t, proof, err, policy.KindToken, policy.RefusedBound, text)
}

// TestOneOfManyRightNoncesWins: while wrong ones are tried beside them.
func TestOneOfManyRightNoncesWins(t *testing.T) {
	at := newClock()
	c := tokens(t, credential.TokensConfig{Store: memory(t, at), Now: at.now})
	text, _, err := c.Mint(t.Context(), nonced(), credential.Minting{TTL: time.Minute, Keep: true})
	if err != nil {
		t.Fatal(err)
	}
	presented := policy.NewCredential(policy.KindToken, text)
	var won, lost atomic.Int64
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			_, err := c.Redeem(t.Context(), presented, giving(byte(1+i), bridgeNonce, true))
			if r, ok := errors.AsType[*policy.Refused](err); ok && r.Reason == policy.RefusedSpent {
				lost.Add(1)
			} else if err == nil {
				won.Add(1)
			}
		})
		all.Go(func() {
			if _, err := c.Redeem(t.Context(), presented, giving(byte(1+i), [32]byte{byte(1 + i)}, true)); err == nil {
				t.Error("redeemed with a wrong nonce")
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || lost.Load() != 99 {
		t.Errorf("%d won, %d were told it is spent", won.Load(), lost.Load())
	}
}

// labelled is a ring's keys under a label of their own, as the vault derives
// them: with the same tags.
type labelled struct {
	ring
	label string
}

func (l labelled) under(k *hmacKey) *hmacKey {
	if k == nil {
		return nil
	}
	return &hmacKey{k.MAC(nil, []byte(l.label))}
}

func (l labelled) Primary() (tag [3]byte, mac *hmacKey) {
	tag, k := l.ring.Primary()
	return tag, l.under(k)
}

func (l labelled) ByTag(tag [3]byte) *hmacKey { return l.under(l.ring.ByTag(tag)) }

// seeded are tokens with seeds, under some keys.
func seeded(t testing.TB, config credential.TokensConfig, keys ...*hmacKey) *credential.Tokens {
	t.Helper()
	config.Digests = credential.Ring(labelled{keys, "token"})
	config.Seeds = credential.Ring(labelled{keys, "token seed"})
	return tokens(t, config)
}

func newSeed(t testing.TB, c *credential.Tokens, context string) credential.Seed {
	t.Helper()
	seed, err := c.NewSeed([]byte(context))
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

// kept is the seed as it comes back from where it was kept.
func kept(t testing.TB, seed credential.Seed, context string) credential.Seed {
	t.Helper()
	data, err := seed.AppendBinary([]byte("x"))
	if err != nil || len(data) != 37 || len(context) > 5 && bytes.Contains(data, []byte(context)) {
		t.Fatalf("encoded as %x, %v", data, err)
	}
	back, err := credential.ParseSeed(data[1:], []byte(context))
	if err != nil {
		t.Fatal(err)
	}
	return back
}

// TestSeededMintIsToldAgain [8].
func TestSeededMintIsToldAgain(t *testing.T) {
	at := newClock()
	key := newKey("2026")
	c := seeded(t, credential.TokensConfig{Store: memory(t, at), Now: at.now, Partners: []string{"gp-demo"}}, key)
	seed := newSeed(t, c, "key, body")
	text, expires, err := c.Mint(t.Context(), grant(), credential.Minting{TTL: time.Minute, Seed: &seed})
	if err != nil || !expires.Equal(at.now().Add(time.Minute)) {
		t.Fatalf("%q until %s, %v", text, expires, err)
	}
	presented := policy.NewCredential(policy.KindToken, text)
	if len(text) != 52 || c.Partner(presented) != "gp-demo" {
		t.Errorf("%q is not like other tokens", text)
	}
	again := func(of *credential.Tokens) {
		t.Helper()
		if got, err := of.Again("gp-demo", kept(t, seed, "key, body")); err != nil || got != text {
			t.Errorf("told again as %q, %v", got, err)
		}
	}
	again(c)
	again(seeded(t, credential.TokensConfig{Store: newTampered()}, newKey("2027"), key)) // after rotation, and without the store
	if _, err := c.Redeem(t.Context(), presented, first); err != nil {
		t.Fatal(err)
	}
	again(c)
	proof, err := c.Redeem(t.Context(), presented, second)
	refused(t, proof, err, policy.KindToken, policy.RefusedSpent)
	if got, err := seeded(t, credential.TokensConfig{Store: newTampered()}, newKey("2027")).Again("gp-demo", seed); err == nil || got != "" {
		t.Errorf("after its key was retired: %q, %v", got, err)
	}
}

// TestSeededMintCanBeRepeated: it changes nothing, be the token live or spent.
func TestSeededMintCanBeRepeated(t *testing.T) {
	at := newClock()
	c := seeded(t, credential.TokensConfig{Store: memory(t, at), Now: at.now}, newKey("2026"))
	for name, keep := range map[string]bool{"burns": false, "keeps": true} {
		seed := newSeed(t, c, name)
		m := credential.Minting{TTL: time.Minute, Keep: keep, Seed: &seed}
		text, _, err := c.Mint(t.Context(), nonced(), m)
		if err != nil {
			t.Fatal(err)
		}
		other := nonced()
		other.Card = "card-2"
		if got, _, err := c.Mint(t.Context(), other, m); err != nil || got != text {
			t.Fatalf("%s: again %q, %v; want %q", name, got, err, text)
		}
		presented := policy.NewCredential(policy.KindToken, text)
		if proof, err := c.Redeem(t.Context(), presented, giving(1, bridgeNonce, keep)); err != nil || proof.Grant.Card != "card-1" {
			t.Errorf("%s: %+v, %v; want the first grant", name, proof, err)
		}
		if got, _, err := c.Mint(t.Context(), nonced(), m); err != nil || got != text {
			t.Errorf("%s: of a spent token %q, %v", name, got, err)
		}
		proof, err := c.Redeem(t.Context(), presented, giving(2, bridgeNonce, keep))
		refused(t, proof, err, policy.KindToken, policy.RefusedSpent)
	}
}

// TestSeedsAreOfOneTokenEach: partner, context, salt and key make another one.
func TestSeedsAreOfOneTokenEach(t *testing.T) {
	config := credential.TokensConfig{Store: newTampered()}
	c := seeded(t, config, newKey("2026"))
	seed := newSeed(t, c, "context")
	texts := map[string]string{}
	told := func(name string, c *credential.Tokens, partner string, seed credential.Seed) {
		t.Helper()
		text, err := c.Again(partner, seed)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		secret := text[10:] // neither tag nor hint
		if first, taken := texts[secret]; taken {
			t.Errorf("%s and %s have one secret", name, first)
		}
		texts[secret] = name
	}
	told("the first", c, "p", seed)
	told("another partner", c, "q", seed)
	told("another context", c, "p", kept(t, seed, "Context"))
	told("no context", c, "p", kept(t, seed, ""))
	told("the border moved", c, "pc", kept(t, seed, "ontext"))
	told("a length in the context", c, "p", kept(t, seed, "\x00\x00\x00\x01c"))
	told("a length in the partner", c, "p\x00\x00\x00\x05", kept(t, seed, "c"))
	told("another salt", c, "p", newSeed(t, c, "context"))
	told("another key", seeded(t, config, newKey("2027")), "p", newSeed(t, seeded(t, config, newKey("2027")), "context"))
	told("the digest's label", tokens(t, credential.TokensConfig{
		Store: newTampered(), Digests: credential.Ring(labelled{ring{newKey("2026")}, "token"}),
		Seeds: credential.Ring(labelled{ring{newKey("2026")}, "token"}),
	}), "p", seed)

	context := []byte("context")
	mine, err := c.NewSeed(context)
	if err != nil {
		t.Fatal(err)
	}
	before, err := c.Again("p", mine)
	if err != nil {
		t.Fatal(err)
	}
	context[0] = 'C'
	if after, err := c.Again("p", mine); err != nil || after != before {
		t.Errorf("the seed changed with the caller's bytes: %q, %v", after, err)
	}
}

func TestSeedsThatMintNothing(t *testing.T) {
	s := newTampered()
	c := seeded(t, credential.TokensConfig{Store: s}, newKey("2026"))
	seed, without := newSeed(t, c, ""), tokens(t, credential.TokensConfig{Store: s})
	for name, test := range map[string]struct {
		tokens *credential.Tokens
		seed   credential.Seed
	}{"no keys for seeds": {without, seed}, "zero seed": {c, credential.Seed{}}} {
		if text, _, err := test.tokens.Mint(t.Context(), grant(), credential.Minting{TTL: time.Minute, Seed: &test.seed}); err == nil || text != "" {
			t.Errorf("%s: minted %q, %v", name, text, err)
		}
		if text, err := test.tokens.Again("p", test.seed); err == nil || text != "" {
			t.Errorf("%s: told again %q, %v", name, text, err)
		}
	}
	if seed, err := without.NewSeed(nil); err == nil {
		t.Errorf("a seed without keys: %+v", seed)
	}
	if s.asked != 0 {
		t.Error("the store was asked")
	}
	s.err = store.ErrExists
	if text, _, err := c.Mint(t.Context(), grant(), credential.Minting{TTL: time.Minute}); !errors.Is(err, store.ErrExists) || text != "" {
		t.Errorf("without a seed, where there is one already: %q, %v", text, err)
	}
	s.err = errDown
	text, _, err := c.Mint(t.Context(), grant(), credential.Minting{TTL: time.Minute, Seed: &seed})
	unavailable(t, policy.Proof{}, err)
	if text != "" {
		t.Errorf("a token beside a failure: %q", text)
	}
	if c, err := credential.NewTokens(credential.TokensConfig{
		Store: s, Grants: newSealer(t, "k"), Digests: credential.Ring(ring{newKey("a")}), Seeds: credential.Ring(ring{newKey("b")}),
	}); err == nil || c != nil {
		t.Errorf("seeds of other keys: %v, %v", c, err)
	}
}

// FuzzSeed: what is read is written to the same bytes.
func FuzzSeed(f *testing.F) {
	c := seeded(f, credential.TokensConfig{Store: newTampered()}, newKey("2026"))
	seed := newSeed(f, c, "context")
	data, err := seed.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:35])
	f.Add(append(bytes.Clone(data), 0))
	f.Add(append([]byte{2}, data[1:]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		seed, err := credential.ParseSeed(data, nil)
		if (err == nil) != (len(data) == 36 && data[0] == 1) {
			t.Fatalf("%x: %v", data, err)
		}
		if err != nil {
			return
		}
		if again, err := seed.AppendBinary(nil); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x is written as %x, %v", data, again, err)
		}
	})
}

// BenchmarkToken is what every exchange of the gnosispay face pays: half of
// them mint, the others redeem.
func BenchmarkToken(b *testing.B) {
	for name, redeem := range map[string]bool{"mint": false, "mint and redeem": true} {
		b.Run(name, func(b *testing.B) {
			m, err := store.NewMemory(store.MemoryConfig{MaxEntries: 1 << 24})
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			c := tokens(b, credential.TokensConfig{Store: m})
			b.ReportAllocs()
			for b.Loop() {
				text, _, err := c.Mint(b.Context(), grant(), credential.Minting{TTL: time.Minute})
				if err != nil {
					b.Fatal(err)
				}
				if !redeem {
					continue
				}
				if _, err := c.Redeem(b.Context(), policy.NewCredential(policy.KindToken, text), first); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestHintNamesThePartner: of those that are known, and of them alone.
func TestHintNamesThePartner(t *testing.T) {
	config := credential.TokensConfig{Store: newTampered(), Partners: []string{"other", grant().Partner}}
	c := tokens(t, config)
	good := mint(t, c, grant())
	if got := c.Partner(good); got != grant().Partner {
		t.Errorf("the hint names %q", got)
	}
	config.Partners = []string{"other"}
	if got := tokens(t, config).Partner(good); got != "" {
		t.Errorf("the hint of an unknown partner names %q", got)
	}
	if got := c.Partner(policy.NewCredential(policy.KindToken, "x")); got != "" {
		t.Errorf("what is no token names %q", got)
	}
}
