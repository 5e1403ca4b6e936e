package credential

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
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

var tokenEncoding = base64.RawURLEncoding.Strict()

// DigestRing is the keyed digests of several keys under the label "token": the
// primary for what is minted, all of them for what is redeemed.
type DigestRing interface {
	// Primary returns the digest for new tokens, and the tag that says so.
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

// TokensConfig configures Tokens. All but Now is required.
type TokensConfig struct {
	Store   store.Tokens
	Digests DigestRing // keys of use digest, label "token"
	Grants  SealRing   // keys of use storage, label "grant"

	// Partners are the ids that hints are understood of. Tokens of others
	// work as well.
	Partners []string

	Now func() time.Time
}

// Tokens mints ephemeral tokens and redeems each exactly once.
type Tokens struct {
	config TokensConfig
	hints  map[[tokenHintBytes]byte]string // partner by hint
}

var _ Redeemer = (*Tokens)(nil)

// NewTokens returns the prover.
func NewTokens(config TokensConfig) (*Tokens, error) {
	if config.Store == nil || config.Digests == nil || config.Grants == nil {
		return nil, errors.New("token credentials: store, digests and grants are required")
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

// Mint makes a token that stands for the grant for ttl. It sets the grant's
// MintedAt. expires is by our clock and a little early; what counts is the
// store's. Errors of the store pass through.
func (t *Tokens) Mint(ctx context.Context, grant policy.Grant, ttl time.Duration) (token string, expires time.Time, err error) {
	now := t.config.Now()
	grant.MintedAt = now.UnixMilli()
	plain, err := grant.MarshalBinary()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: %w", err)
	}
	tag, mac := t.config.Digests.Primary()
	var raw [tokenBytes]byte
	copy(raw[:], tag[:])
	hint := hintOf(grant.Partner)
	copy(raw[tokenTagBytes:], hint[:])
	_, _ = rand.Read(raw[tokenTagBytes+tokenHintBytes:]) // never fails: crypto/rand
	digest := store.Digest(mac.MAC(nil, raw[:]))
	sealed, err := t.config.Grants.Seal(nil, grantData(digest), plain)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: seal grant: %w", err)
	}
	if err := t.config.Store.Mint(ctx, store.KindToken, digest, sealed, ttl); err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: %w", err)
	}
	return tokenEncoding.EncodeToString(raw[:]), now.Add(ttl), nil
}

// Redeem uses the token up and returns what it stands for. Whatever is found
// out about it later, it stays spent.
//
// Refused as "malformed", "unknown", "spent", "expired" or "fenced".
func (t *Tokens) Redeem(ctx context.Context, c policy.Credential, attempt store.Attempt) (policy.Proof, error) {
	raw, ok := parseToken(c)
	if !ok {
		return policy.Proof{}, refuse(policy.KindToken, policy.RefusedMalformed, "")
	}
	mac, ok := t.config.Digests.ByTag([tokenTagBytes]byte(raw[:tokenTagBytes]))
	if !ok {
		return policy.Proof{}, refuse(policy.KindToken, policy.RefusedUnknown, "no digest key has its tag")
	}
	digest := store.Digest(mac.MAC(nil, raw[:]))
	sealed, err := t.config.Store.Redeem(ctx, store.KindToken, digest, attempt)
	if err != nil {
		return policy.Proof{}, redeemError(err)
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
	return policy.Proof{
		Kind: policy.KindToken, Partner: grant.Partner, User: grant.User, Environment: grant.Environment, Grant: grant,
	}, nil
}

// redeemError turns the store's answers into refusals; its failures pass.
func redeemError(err error) error {
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
			return refuse(policy.KindToken, answer.reason, "")
		}
	}
	return fmt.Errorf("redeem token: %w", err)
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
	n, err := tokenEncoding.Decode(raw[:], source[:])
	return raw, err == nil && n == tokenBytes
}

func grantData(digest store.Digest) []byte {
	return append(append(make([]byte, 0, len(grantLabel)+len(digest)), grantLabel...), digest[:]...)
}
