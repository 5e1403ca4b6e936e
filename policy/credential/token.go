package credential

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// An ephemeral token, and one that stands for a held card, is 39 bytes in base64url without padding (RFC 4648 section
// 5), 52 characters: the tag of the digest key that its digest is made with, a
// hint at its partner, and 256 random bits. It means nothing by itself. The
// store has, under the token's digest, the grant that it stands for, sealed
// with that digest as associated data: whoever writes to the store can delete
// grants, but not forge one or move it to another token [7].
//
// The hint proves nothing. It lets the gateway hold a partner to its share of
// what is in flight before the token is spent [18]; an invented one is found
// out at redemption, since the digest covers it.
const (
	tokenTagBytes    = 3
	tokenHintBytes   = 4
	tokenSecretBytes = 32
	tokenBytes       = tokenTagBytes + tokenHintBytes + tokenSecretBytes
	tokenText        = 52
)

// hintLabel begins what a hint is the hash of; the partner's id follows.
const hintLabel = "cardstile token hint v1"

// tokenKinds are the kinds of credential that Tokens mints: where the store
// keeps each, and the label that begins the associated data of a sealed grant,
// which the digest follows.
var tokenKinds = map[policy.Kind]tokenKind{
	policy.KindToken:     {store: store.KindToken, label: "cardstile token grant v1"},
	policy.KindCardToken: {store: store.KindCard, label: "cardstile card token grant v1", holds: true},
}

type tokenKind struct {
	store store.Kind
	label string
	holds bool // its grants hold a card
}

// DigestRing is the keyed digests of several keys under one label: the primary
// for what is minted, all of them for what is redeemed.
type DigestRing interface {
	// Primary returns the digest for new tokens, and the tag of its key.
	Primary() (tag [3]byte, mac policy.MAC)
	// ByTag returns the digest of a tag; false where the tag is unknown.
	ByTag(tag [3]byte) (mac policy.MAC, ok bool)
}

// SealRing seals and opens values with associated data. Open fails for
// everything that Seal did not make with that associated data.
type SealRing interface {
	Seal(dst, ad, plaintext []byte) ([]byte, error)
	Open(dst, ad, sealed []byte) ([]byte, error)
}

// Ring makes a DigestRing of a ring that returns a type of its own for its
// MACs, and its zero value for a tag that it does not know: *keys.MACRing is
// one, `credential.Ring(macRing)`.
func Ring[M interface {
	comparable
	policy.MAC
}](ring interface {
	Primary() (tag [3]byte, mac M)
	ByTag(tag [3]byte) M
}) DigestRing {
	return digestRing[M]{ring}
}

type digestRing[M interface {
	comparable
	policy.MAC
}] struct {
	ring interface {
		Primary() (tag [3]byte, mac M)
		ByTag(tag [3]byte) M
	}
}

func (r digestRing[M]) Primary() (tag [3]byte, mac policy.MAC) { return r.ring.Primary() }

func (r digestRing[M]) ByTag(tag [3]byte) (mac policy.MAC, ok bool) {
	found := r.ring.ByTag(tag)
	var none M
	return found, found != none
}

// TokensConfig configures Tokens.
type TokensConfig struct {
	// Kind is policy.KindToken by default, whose grants hold nothing, or
	// policy.KindCardToken, whose grants each hold a card. What is of one kind
	// is unknown to the other.
	Kind policy.Kind

	Store   store.Tokens // required
	Digests DigestRing   // keys of use digest, label "token", or "card token". Required
	Grants  SealRing     // keys of use storage, label "grant", or "card grant". Required

	// Seeds are the keys of Digests under the label "token seed", or "card
	// token seed". Without them there are no seeds [8].
	Seeds DigestRing

	// Partners are the ids that hints are understood of. Tokens of others
	// work as well.
	Partners []string

	Now func() time.Time // time.Now by default
}

// Tokens mints tokens of one kind and redeems each exactly once.
//
// Of policy.KindCardToken, what is held is sealed by the vault under the token
// itself [11]. The store gives its value away once, and not again to the attempt
// that had it: from the redemption on nobody can read the card, whichever copy
// of the store they have.
type Tokens struct {
	config TokensConfig
	kind   tokenKind
	hints  map[[tokenHintBytes]byte]string // partner by hint
}

// NewTokens returns the prover.
func NewTokens(config TokensConfig) (*Tokens, error) {
	config.Kind = cmp.Or(config.Kind, policy.KindToken)
	kind, ok := tokenKinds[config.Kind]
	if !ok {
		return nil, fmt.Errorf("token credentials: %q is not a kind of tokens", config.Kind)
	}
	if config.Store == nil || config.Digests == nil || config.Grants == nil {
		return nil, errors.New("token credentials: store, digests and grants are required")
	}
	if config.Seeds != nil {
		digests, _ := config.Digests.Primary()
		if seeds, _ := config.Seeds.Primary(); seeds != digests {
			return nil, errors.New("token credentials: seeds and digests are of different keys")
		}
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	t := &Tokens{config: config, kind: kind, hints: make(map[[tokenHintBytes]byte]string, len(config.Partners))}
	for _, id := range config.Partners {
		t.hints[hintOf(id)] = id
	}
	return t, nil
}

func hintOf(partner string) [tokenHintBytes]byte {
	sum := sha256.Sum256([]byte(hintLabel + partner))
	return [tokenHintBytes]byte(sum[:])
}

// Partner returns the id of the partner that a token says it belongs to, or "".
// It is not proven: only for what may be done before the token is redeemed.
func (t *Tokens) Partner(c policy.Credential) string {
	raw, ok := t.parse(c)
	if !ok {
		return ""
	}
	return t.hints[[tokenHintBytes]byte(raw[tokenTagBytes:])]
}

// Minting says how a token is minted.
type Minting struct {
	TTL time.Duration

	// Keep stores the token where only a Redemption with Keep and the
	// grant's nonce finds it.
	Keep bool

	// Seed, if there is one, makes the token one that Again can tell again.
	Seed *Seed

	// Held is called once, with the token's text, and returns what the grant is
	// to hold: the card, sealed under that text. Its error passes through, and
	// nothing is minted. Required of policy.KindCardToken, and of it alone.
	Held func(token string) ([]byte, error)
}

// Mint makes a token that stands for the grant. It sets the grant's MintedAt.
// expires is by our clock and a little early; what counts is the store's.
// Errors of the store and of Minting.Held pass through.
//
// A token of a seed is minted once. Minting it again, as is done after a
// failure that left open whether it had been, returns its text and changes
// nothing: the first grant stays, with its own time, and a token that is spent
// stays spent.
func (t *Tokens) Mint(ctx context.Context, grant policy.Grant, m Minting) (token string, expires time.Time, err error) {
	now := t.config.Now()
	grant.MintedAt = now.UnixMilli()
	raw, mac, err := t.draw(grant.Partner, m.Seed)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: %w", err)
	}
	text := textEncoding.EncodeToString(raw[:])
	if grant.Held, err = t.held(text, m.Held); err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: %w", err)
	}
	plain, err := grant.MarshalBinary()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: %w", err)
	}
	digest := tokenDigest(mac, &raw, m.Keep, &grant.Nonce)
	sealed, err := t.config.Grants.Seal(nil, t.grantData(digest), plain)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: seal grant: %w", err)
	}
	err = t.config.Store.Mint(ctx, t.kind.store, digest, sealed, m.TTL)
	if err != nil && (m.Seed == nil || !errors.Is(err, store.ErrExists)) {
		return "", time.Time{}, fmt.Errorf("mint token: %w", err)
	}
	return text, now.Add(m.TTL), nil
}

// errHeld is about what a grant of the kind cannot be without, or not be with.
var errHeld = errors.New("what is to be held is missing, empty, or of a kind that holds nothing")

// held is what the grant of a token holds: something where its kind holds, and
// nothing where it does not.
func (t *Tokens) held(token string, hold func(string) ([]byte, error)) (string, error) {
	if (hold != nil) != t.kind.holds {
		return "", errHeld
	}
	if hold == nil {
		return "", nil
	}
	held, err := hold(token)
	if err == nil && len(held) == 0 {
		err = errHeld
	}
	return string(held), err
}

// draw makes a token's bytes, of a seed or at random, and returns them with the
// MAC of their digest.
func (t *Tokens) draw(partner string, seed *Seed) (raw [tokenBytes]byte, mac policy.MAC, err error) {
	if seed == nil {
		tag, mac := t.config.Digests.Primary()
		copy(raw[:], tag[:])
		hint := hintOf(partner)
		copy(raw[tokenTagBytes:], hint[:])
		_, _ = rand.Read(raw[tokenTagBytes+tokenHintBytes:]) // never fails: crypto/rand
		return raw, mac, nil
	}
	if raw, err = t.grow(partner, *seed); err != nil {
		return raw, nil, err
	}
	mac, ok := t.config.Digests.ByTag(seed.tag)
	if !ok {
		return raw, nil, errSeedKey
	}
	return raw, mac, nil
}

// NewSeed draws the seed of one mint; see Seed for the context.
func (t *Tokens) NewSeed(context []byte) (Seed, error) { return newSeed(t.config.Seeds, context) }

// Again returns the text of the token that was minted of the seed for the
// partner. It asks no store: a token that is spent or expired stays so, and one
// that was never minted is unknown. It is an error where the seed's key is not
// configured any more.
func (t *Tokens) Again(partner string, seed Seed) (token string, err error) {
	raw, err := t.grow(partner, seed)
	if err != nil {
		return "", fmt.Errorf("token of a seed: %w", err)
	}
	return textEncoding.EncodeToString(raw[:]), nil
}

// grow makes the token's bytes of a seed.
func (t *Tokens) grow(partner string, seed Seed) (raw [tokenBytes]byte, err error) {
	secret, err := seed.grow(t.config.Seeds, partner)
	if err != nil {
		return raw, err
	}
	copy(raw[:], seed.tag[:])
	hint := hintOf(partner)
	copy(raw[tokenTagBytes:], hint[:])
	copy(raw[tokenTagBytes+tokenHintBytes:], secret)
	return raw, nil
}

// Redeem uses the token up and returns what it stands for. Whatever is found
// out about it later, it stays spent: also where the grant asks for another
// nonce than the redemption's, or the redemption brings one and the grant asks
// for none.
//
// With Keep a wrong nonce finds nothing, and the token stays as it was; so does
// a token that was minted without Keep. That is one step in the store, as
// without.
//
// Refused as "malformed", "unknown", "spent", "expired", "fenced" or "bound".
func (t *Tokens) Redeem(ctx context.Context, c policy.Credential, r Redemption) (policy.Proof, error) {
	raw, ok := t.parse(c)
	if !ok {
		return policy.Proof{}, refuse(t.config.Kind, policy.RefusedMalformed, "")
	}
	mac, ok := t.config.Digests.ByTag([tokenTagBytes]byte(raw[:tokenTagBytes]))
	if !ok {
		return policy.Proof{}, refuse(t.config.Kind, policy.RefusedUnknown, "no digest key has its tag")
	}
	digest := tokenDigest(mac, &raw, r.Keep, &r.Nonce)
	sealed, err := t.config.Store.Redeem(ctx, t.kind.store, digest, r.Attempt)
	if err != nil {
		return policy.Proof{}, redeemError(t.config.Kind, err)
	}
	grant := new(policy.Grant)
	plain, err := t.config.Grants.Open(nil, t.grantData(digest), sealed)
	if err == nil {
		err = grant.UnmarshalBinary(plain)
	}
	if err != nil {
		// A key that was retired too early, or somebody wrote to the store.
		return policy.Proof{}, refuse(t.config.Kind, policy.RefusedUnknown, "the stored grant does not open")
	}
	if subtle.ConstantTimeCompare(grant.Nonce[:], r.Nonce[:]) != 1 {
		return policy.Proof{}, refuse(t.config.Kind, policy.RefusedBound, "the nonce is not the grant's")
	}
	return policy.Proof{
		Kind: t.config.Kind, Partner: grant.Partner, User: grant.User, Environment: grant.Environment, Grant: grant,
		Minted: true, Generation: grant.Generation,
	}, nil
}

// tokenDigest is where a token's grant is kept: under the digest of its bytes,
// and with keep of the nonce after them, which no other token's bytes are.
func tokenDigest(mac policy.MAC, raw *[tokenBytes]byte, keep bool, nonce *[32]byte) store.Digest {
	if !keep {
		return store.Digest(mac.MAC(nil, raw[:]))
	}
	return store.Digest(mac.MAC(nil, append(raw[:len(raw):len(raw)], nonce[:]...)))
}

// redeemError turns the store's answers into refusals; its failures pass.
func redeemError(kind policy.Kind, err error) error {
	for _, answer := range [...]struct {
		err    error
		reason string
	}{
		{store.ErrUnknown, policy.RefusedUnknown},
		{store.ErrSpent, policy.RefusedSpent},
		{store.ErrExpired, policy.RefusedExpired},
		{store.ErrFenced, policy.RefusedFenced},
	} {
		if errors.Is(err, answer.err) {
			return &policy.Refused{Kind: kind, Reason: answer.reason, Cause: err}
		}
	}
	return fmt.Errorf("redeem %s: %w", kind, err)
}

// parse decodes a token's text. Each token has one text: no padding, no
// line breaks, no other alphabet, no stray bits.
func (t *Tokens) parse(c policy.Credential) (raw [tokenBytes]byte, ok bool) {
	text := c.Value()
	if c.Kind != t.config.Kind || len(text) != tokenText {
		return raw, false
	}
	var source [tokenText]byte
	copy(source[:], text)
	// Line breaks, which the decoder skips, leave too few characters.
	n, err := textEncoding.Decode(raw[:], source[:])
	return raw, err == nil && n == tokenBytes
}

func (t *Tokens) grantData(digest store.Digest) []byte {
	return append(append(make([]byte, 0, len(t.kind.label)+len(digest)), t.kind.label...), digest[:]...)
}
