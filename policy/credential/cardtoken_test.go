package credential_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

func cardTokens(t testing.TB, s store.Tokens, at *clock) *credential.Tokens {
	t.Helper()
	return seeded(t, credential.TokensConfig{Kind: policy.KindCardToken, Store: s, Now: at.now}, newKey("digest"))
}

func payment() policy.Grant {
	return policy.Grant{Partner: "shop", Operation: policy.ForwardSubmit, Environment: "test", Face: "payroc"}
}

// holding seals as the vault does, under the token's text.
func holding(t testing.TB, card string) func(string) ([]byte, error) {
	return func(token string) ([]byte, error) { return newSealer(t, token).Seal(nil, nil, []byte(card)) }
}

func mintCard(t testing.TB, c *credential.Tokens, m credential.Minting) policy.Credential {
	t.Helper()
	m.TTL = 30 * time.Minute
	text, _, err := c.Mint(t.Context(), payment(), m)
	if err != nil {
		t.Fatal(err)
	}
	return policy.NewCredential(policy.KindCardToken, text)
}

// TestHeldCardIsRedeemedOnce: what was held comes back with the grant, and not again, not even to the attempt that had it.
func TestHeldCardIsRedeemedOnce(t *testing.T) {
	at := newClock()
	for name, s := range map[string]store.Store{"memory": memory(t, at), "redis": redis(t)} {
		t.Run(name, func(t *testing.T) {
			c := cardTokens(t, s, at)
			presented := mintCard(t, c, credential.Minting{Held: holding(t, "4111111111111111")})
			if c.Partner(presented) != "" || len(presented.Value()) != 52 {
				t.Errorf("%q", presented.Value())
			}
			proof, err := c.Redeem(t.Context(), presented, first)
			if err != nil || proof.Kind != policy.KindCardToken || proof.Partner != "shop" || proof.Environment != "test" {
				t.Fatalf("%+v, %v", proof, err)
			}
			want := payment()
			want.MintedAt, want.Held = at.now().UnixMilli(), proof.Grant.Held
			if *proof.Grant != want {
				t.Errorf("grant %+v", *proof.Grant)
			}
			plain, err := newSealer(t, presented.Value()).Open(nil, nil, []byte(proof.Grant.Held))
			if err != nil || string(plain) != "4111111111111111" {
				t.Errorf("held %q, %v", plain, err)
			}
			for _, r := range []credential.Redemption{first, second} {
				proof, err := c.Redeem(t.Context(), presented, r)
				refused(t, proof, err, policy.KindCardToken, policy.RefusedSpent, presented.Value())
			}
		})
	}
}

// TestHeldCardsAndTokensAreNotEachOther: with the same keys and the same store.
func TestHeldCardsAndTokensAreNotEachOther(t *testing.T) {
	at, s := newClock(), newTampered()
	cards := seeded(t, credential.TokensConfig{Kind: policy.KindCardToken, Store: s, Now: at.now}, newKey("digest"))
	plain := seeded(t, credential.TokensConfig{Store: s, Now: at.now}, newKey("digest"))
	card, other := mintCard(t, cards, credential.Minting{Held: holding(t, "card")}), mint(t, plain, grant())
	// As what it is, it is none of the other's; said to be the other, its grant does not open, in whichever store it lies.
	proof, err := plain.Redeem(t.Context(), card, first)
	refused(t, proof, err, policy.KindToken, policy.RefusedMalformed)
	proof, err = plain.Redeem(t.Context(), policy.NewCredential(policy.KindToken, card.Value()), first)
	refused(t, proof, err, policy.KindToken, policy.RefusedUnknown)
	proof, err = cards.Redeem(t.Context(), other, first)
	refused(t, proof, err, policy.KindCardToken, policy.RefusedMalformed)
	proof, err = cards.Redeem(t.Context(), policy.NewCredential(policy.KindCardToken, other.Value()), first)
	refused(t, proof, err, policy.KindCardToken, policy.RefusedUnknown)
	if _, err := cards.Redeem(t.Context(), card, first); err != nil {
		t.Error(err)
	}
	// Nor does either store have the other's.
	m := memory(t, at)
	cards, plain = cardTokens(t, m, at), seeded(t, credential.TokensConfig{Store: m, Now: at.now}, newKey("digest"))
	card = mintCard(t, cards, credential.Minting{Held: holding(t, "card")})
	proof, err = plain.Redeem(t.Context(), policy.NewCredential(policy.KindToken, card.Value()), first)
	refused(t, proof, err, policy.KindToken, policy.RefusedUnknown)
	if _, err := cards.Redeem(t.Context(), card, first); err != nil {
		t.Error(err)
	}
}

// TestWhatIsNotHeldIsNotMinted: and nothing is stored.
func TestWhatIsNotHeldIsNotMinted(t *testing.T) {
	at, s := newClock(), newTampered()
	cards, plain := cardTokens(t, s, at), tokens(t, credential.TokensConfig{Store: s})
	failure := errors.New("a part does not open")
	for name, test := range map[string]struct {
		tokens *credential.Tokens
		held   func(string) ([]byte, error)
		want   error
	}{
		"nothing":              {cards, nil, nil},
		"empty":                {cards, func(string) ([]byte, error) { return nil, nil }, nil},
		"too much":             {cards, func(string) ([]byte, error) { return make([]byte, 2049), nil }, nil},
		"a failure":            {cards, func(string) ([]byte, error) { return []byte("x"), failure }, failure},
		"of an ordinary token": {plain, holding(t, "card"), nil},
	} {
		text, expires, err := test.tokens.Mint(t.Context(), payment(), credential.Minting{TTL: time.Minute, Held: test.held})
		if err == nil || text != "" || !expires.IsZero() || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %q until %s, %v", name, text, expires, err)
		}
		if s.asked != 0 {
			t.Fatalf("%s: the store was asked", name)
		}
	}
	// What the grant said before is not what is held.
	g := payment()
	g.Held = "something else"
	text, _, err := cards.Mint(t.Context(), g, credential.Minting{TTL: time.Minute, Held: func(token string) ([]byte, error) {
		if len(token) != 52 {
			t.Errorf("the token is %q", token)
		}
		return []byte("held"), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if proof, err := cards.Redeem(t.Context(), policy.NewCredential(policy.KindCardToken, text), first); err != nil || proof.Grant.Held != "held" {
		t.Errorf("%+v, %v", proof, err)
	}
	if made, err := credential.NewTokens(credential.TokensConfig{
		Kind: policy.KindRefresh, Store: s, Digests: credential.Ring(ring{newKey("k")}), Grants: newSealer(t, "k"),
	}); err == nil || made != nil {
		t.Errorf("tokens of another kind: %v", err)
	}
}

// TestSeededCardTokenStaysSpent: it is told again, with what its caller shows again and nothing keeps, and is not
// minted again: neither live, when what is held stays as it was, nor spent.
func TestSeededCardTokenStaysSpent(t *testing.T) {
	at := newClock()
	for name, s := range map[string]store.Store{"memory": memory(t, at), "redis": redis(t)} {
		t.Run(name, func(t *testing.T) {
			c := cardTokens(t, s, at)
			const secret = "the page's session, and its idempotency key"
			seed := newSeed(t, c, secret)
			presented := mintCard(t, c, credential.Minting{Seed: &seed, Held: holding(t, "one")})
			if text, err := c.Again("shop", kept(t, seed, secret)); err != nil || text != presented.Value() {
				t.Fatalf("told again as %q, %v", text, err)
			}
			if text, err := c.Again("shop", kept(t, seed, "what somebody guesses")); err != nil || text == presented.Value() {
				t.Fatalf("%q is told without the secret, %v", text, err)
			}
			mintCard(t, c, credential.Minting{Seed: &seed, Held: holding(t, "another")})
			proof, err := c.Redeem(t.Context(), presented, first)
			if err != nil {
				t.Fatal(err)
			}
			if plain, err := newSealer(t, presented.Value()).Open(nil, nil, []byte(proof.Grant.Held)); err != nil || string(plain) != "one" {
				t.Errorf("held %q, %v", plain, err)
			}
			if again := mintCard(t, c, credential.Minting{Seed: &seed, Held: holding(t, "two")}); again.Value() != presented.Value() {
				t.Error("another token of the same seed")
			}
			proof, err = c.Redeem(t.Context(), presented, second)
			refused(t, proof, err, policy.KindCardToken, policy.RefusedSpent)
		})
	}
}

// TestStoreNeverSeesAHeldCard: neither the card nor the token, and what it has is sealed twice.
func TestStoreNeverSeesAHeldCard(t *testing.T) {
	at, s := newClock(), newTampered()
	c := cardTokens(t, s, at)
	var held []byte
	presented := mintCard(t, c, credential.Minting{Held: func(token string) ([]byte, error) {
		var err error
		held, err = holding(t, "4111111111111111")(token)
		return held, err
	}})
	digest, sealed := s.only(t)
	for _, part := range [][]byte{[]byte("4111111111111111"), []byte(presented.Value()), held, held[:16], []byte("shop")} {
		if bytes.Contains(digest[:], part) || bytes.Contains(sealed, part) {
			t.Fatal("the store has it")
		}
	}
	if strings.Contains(presented.Value(), string(digest[:])) {
		t.Fatal("the token is its digest")
	}
}
