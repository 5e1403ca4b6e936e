package credential

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// An ephemeral token is 39 bytes in base64url without padding (RFC 4648 section
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

// grantLabel begins the associated data of a sealed grant; the digest follows.
const grantLabel = "cardstile token grant v1"

// A seed is kept as version(1) tag(3) salt(32).
const (
	seedVersion   = 1
	seedSaltBytes = 32
	seedBytes     = 1 + tokenTagBytes + seedSaltBytes
)

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
	Store   store.Tokens // required
	Digests DigestRing   // keys of use digest, label "token". Required
	Grants  SealRing     // keys of use storage, label "grant". Required

	// Seeds are the keys of Digests under the label "token seed". Without
	// them there are no seeds [8].
	Seeds DigestRing

	// Partners are the ids that hints are understood of. Tokens of others
	// work as well.
	Partners []string

	Now func() time.Time // time.Now by default
}

// Tokens mints ephemeral tokens and redeems each exactly once.
type Tokens struct {
	config TokensConfig
	hints  map[[tokenHintBytes]byte]string // partner by hint
}

// NewTokens returns the prover.
func NewTokens(config TokensConfig) (*Tokens, error) {
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
	t := &Tokens{config: config, hints: make(map[[tokenHintBytes]byte]string, len(config.Partners))}
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
	raw, ok := parseToken(c)
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
}

// Mint makes a token that stands for the grant. It sets the grant's MintedAt.
// expires is by our clock and a little early; what counts is the store's.
// Errors of the store pass through.
//
// A token of a seed is minted once. Minting it again, as is done after a
// failure that left open whether it had been, returns its text and changes
// nothing: the first grant stays, with its own time, and a token that is spent
// stays spent.
func (t *Tokens) Mint(ctx context.Context, grant policy.Grant, m Minting) (token string, expires time.Time, err error) {
	now := t.config.Now()
	grant.MintedAt = now.UnixMilli()
	plain, err := grant.MarshalBinary()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: %w", err)
	}
	raw, mac, err := t.draw(grant.Partner, m.Seed)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: %w", err)
	}
	digest := tokenDigest(mac, &raw, m.Keep, &grant.Nonce)
	sealed, err := t.config.Grants.Seal(nil, grantData(digest), plain)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: seal grant: %w", err)
	}
	err = t.config.Store.Mint(ctx, store.KindToken, digest, sealed, m.TTL)
	if err != nil && (m.Seed == nil || !errors.Is(err, store.ErrExists)) {
		return "", time.Time{}, fmt.Errorf("mint token: %w", err)
	}
	return textEncoding.EncodeToString(raw[:]), now.Add(m.TTL), nil
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

// Seed is what a replayed mint is recomputed from [8]: the tag of a digest key,
// a random salt, and the context of the mint. Without that key it tells nothing
// about its token.
type Seed struct {
	tag     [tokenTagBytes]byte
	salt    [seedSaltBytes]byte
	context []byte
}

var (
	errNoSeeds = errors.New("no keys for seeds are configured")
	errSeedKey = errors.New("no key has the seed's tag")
	errSeed    = errors.New("not a seed")
)

// NewSeed draws the seed of one mint. The context is all that the mint's
// repetition has in common with it and others have not: idempotency key and
// digest of the body. It is copied.
func (t *Tokens) NewSeed(context []byte) (Seed, error) {
	if t.config.Seeds == nil {
		return Seed{}, fmt.Errorf("new seed: %w", errNoSeeds)
	}
	seed := Seed{context: bytes.Clone(context)}
	seed.tag, _ = t.config.Seeds.Primary()
	_, _ = rand.Read(seed.salt[:]) // never fails: crypto/rand
	return seed, nil
}

// AppendBinary appends the encoding, which the context is not a part of. The
// error is always nil.
func (s Seed) AppendBinary(dst []byte) ([]byte, error) {
	dst = append(append(dst, seedVersion), s.tag[:]...)
	return append(dst, s.salt[:]...), nil
}

// ParseSeed reads what AppendBinary wrote, and nothing else. With another
// context it is the seed of another token.
func ParseSeed(data, context []byte) (Seed, error) {
	if len(data) != seedBytes || data[0] != seedVersion {
		return Seed{}, fmt.Errorf("decode seed: %w", errSeed)
	}
	return Seed{
		tag:     [tokenTagBytes]byte(data[1:]),
		salt:    [seedSaltBytes]byte(data[1+tokenTagBytes:]),
		context: bytes.Clone(context),
	}, nil
}

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

// grow makes the token's bytes of a seed. Each part of what its secret is the
// MAC of has its length in four bytes before it.
func (t *Tokens) grow(partner string, seed Seed) (raw [tokenBytes]byte, err error) {
	if t.config.Seeds == nil {
		return raw, errNoSeeds
	}
	mac, ok := t.config.Seeds.ByTag(seed.tag)
	if !ok {
		return raw, errSeedKey
	}
	message := make([]byte, 0, 3*4+len(seed.salt)+len(partner)+len(seed.context))
	message = append(binary.BigEndian.AppendUint32(message, uint32(len(seed.salt))), seed.salt[:]...)
	message = append(binary.BigEndian.AppendUint32(message, uint32(len(partner))), partner...)
	message = append(binary.BigEndian.AppendUint32(message, uint32(len(seed.context))), seed.context...)
	copy(raw[:], seed.tag[:])
	hint := hintOf(partner)
	copy(raw[tokenTagBytes:], hint[:])
	copy(raw[tokenTagBytes+tokenHintBytes:], mac.MAC(nil, message))
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
	raw, ok := parseToken(c)
	if !ok {
		return policy.Proof{}, refuse(policy.KindToken, policy.RefusedMalformed, "")
	}
	mac, ok := t.config.Digests.ByTag([tokenTagBytes]byte(raw[:tokenTagBytes]))
	if !ok {
		return policy.Proof{}, refuse(policy.KindToken, policy.RefusedUnknown, "no digest key has its tag")
	}
	digest := tokenDigest(mac, &raw, r.Keep, &r.Nonce)
	sealed, err := t.config.Store.Redeem(ctx, store.KindToken, digest, r.Attempt)
	if err != nil {
		return policy.Proof{}, redeemError(policy.KindToken, err)
	}
	grant := new(policy.Grant)
	plain, err := t.config.Grants.Open(nil, grantData(digest), sealed)
	if err == nil {
		err = grant.UnmarshalBinary(plain)
	}
	if err != nil {
		// A key that was retired too early, or somebody wrote to the store.
		return policy.Proof{}, refuse(policy.KindToken, policy.RefusedUnknown, "the stored grant does not open")
	}
	if subtle.ConstantTimeCompare(grant.Nonce[:], r.Nonce[:]) != 1 {
		return policy.Proof{}, refuse(policy.KindToken, policy.RefusedBound, "the nonce is not the grant's")
	}
	return policy.Proof{
		Kind: policy.KindToken, Partner: grant.Partner, User: grant.User, Environment: grant.Environment, Grant: grant,
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
			return refuse(kind, answer.reason, "")
		}
	}
	return fmt.Errorf("redeem %s: %w", kind, err)
}

// parseToken decodes a token's text. Each token has one text: no padding, no
// line breaks, no other alphabet, no stray bits.
func parseToken(c policy.Credential) (raw [tokenBytes]byte, ok bool) {
	text := c.Value()
	if c.Kind != policy.KindToken || len(text) != tokenText {
		return raw, false
	}
	var source [tokenText]byte
	copy(source[:], text)
	// Line breaks, which the decoder skips, leave too few characters.
	n, err := textEncoding.Decode(raw[:], source[:])
	return raw, err == nil && n == tokenBytes
}

func grantData(digest store.Digest) []byte {
	return append(append(make([]byte, 0, len(grantLabel)+len(digest)), grantLabel...), digest[:]...)
}
