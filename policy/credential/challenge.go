package credential

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"
	"unicode/utf8"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// A challenge is something of ours to sign. It is kept as an ephemeral token
// is: in the store, sealed with its digest as associated data [7], fenced [9],
// and taken once. There are four ways to find it again:
//
//   - By an id that the client holds (a cookie, a header): Mint, Take. An id is
//     35 bytes in base64url without padding, 47 characters: the tag of the
//     digest key and 256 random bits.
//   - By the nonce in the message that was signed: Nonce, MintMessage,
//     TakeMessage. A nonce is 32 letters and digits: the same tag in lower-case
//     hexadecimal and 130 random bits. Its digest is over the purpose too.
//   - By the nonce alone, of typed data (EIP-712), which comes back without what
//     was signed: MintTyped, TakeNonce. It is a number of 256 bits in decimal:
//     the same tag and 232 random bits. Its digest is over the purpose too.
//   - By what it is for, where the client shows nothing of it, as with a
//     statement that has no nonce [21]: MintFor, TakeFor. A second entry, at
//     the digest of what it is for, has the id of the challenge that was asked
//     for last.
const (
	challengeTagBytes    = 3
	challengeSecretBytes = 32
	challengeIDBytes     = challengeTagBytes + challengeSecretBytes
	challengeIDText      = 47
	challengeNonceText   = 2*challengeTagBytes + 26
)

// challengeKind is the store's kind of both entries.
const challengeKind store.Kind = "challenge"

// Labels of what is digested and of associated data.
const (
	challengeIDLabel    = "cardstile challenge id v1"
	challengeNonceLabel = "cardstile challenge nonce v1"
	challengeTypedLabel = "cardstile challenge typed nonce v1"
	challengeUseLabel   = "cardstile challenge use v1"
	challengeLabel      = "cardstile challenge v1"
	challengeLastLabel  = "cardstile challenge last v1"
)

// Purposes of a challenge. Those of policy.MethodEIP712 are operations instead:
// policy.CardReveal, policy.PINReveal or policy.PINSet, for one card.
const (
	PurposeLogin = "login" // a login begins with it
	PurposeLink  = "link"  // an account is linked to a card
)

// ChallengeUse is what a challenge is good for.
type ChallengeUse struct {
	Purpose     string // PurposeLogin, PurposeLink, or an operation
	Method      string // policy.MethodSIWE, policy.MethodEIP712 (Wallets) or policy.MethodWebAuthn (Passkeys)
	Face        string // the face that minted it
	Environment string // "test" or "production" [5]
	Partner     string // "" where the face names none
	User        string // the credential id; "" is whoever signs (a login with any passkey)
	Card        string // the card's reference; "" where there is none
}

// Challenge is one challenge, and what has to be known when it comes back.
type Challenge struct {
	ChallengeUse
	Account string // the address that is to be linked; "" where there is none

	Generation uint64 // of the partner, when it was minted

	// Message is what is to be signed: the text of an ERC-4361 message, the
	// JSON of a TypedData, a statement, or the random bytes of
	// NewPasskeyChallenge.
	Message string
}

// goodFor reports whether the challenge is good for what it is taken for. A
// user is compared where both name one.
func (c *Challenge) goodFor(use ChallengeUse) bool {
	have := c.ChallengeUse
	if have.User == "" || use.User == "" {
		have.User, use.User = "", ""
	}
	return have == use
}

// The encoding of a challenge: a version, by another one the generation in eight
// bytes where it is not 0, then each string with its length in
// two bytes, big endian, before it. Each challenge has exactly one, and nothing
// may follow it. The message need not be UTF-8.
const (
	challengeVersion           = 1
	challengeGenerationVersion = 2
	challengeMaxTextBytes      = 1 << 10
	challengeMaxMessageBytes   = siweMaxBytes
)

// errChallenge is every way in which bytes are not a challenge.
var errChallenge = errors.New("not a challenge")

// texts lists the strings in the order of the encoding; the message follows.
func (u *ChallengeUse) texts() [7]*string {
	return [...]*string{&u.Purpose, &u.Method, &u.Face, &u.Environment, &u.Partner, &u.User, &u.Card}
}

// encodable reports whether the texts have the form that every encoding and
// digest of them relies on.
func (u *ChallengeUse) encodable() bool {
	for _, text := range u.texts() {
		if len(*text) > challengeMaxTextBytes || !utf8.ValidString(*text) {
			return false
		}
	}
	return true
}

func appendText(dst []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(text))), text...)
}

// encode returns the encoding of a challenge that is whole.
func (c *Challenge) encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	dst := append(make([]byte, 0, 1024), challengeVersion)
	if c.Generation != 0 {
		dst[0] = challengeGenerationVersion
		dst = binary.BigEndian.AppendUint64(dst, c.Generation)
	}
	for _, text := range c.texts() {
		dst = appendText(dst, *text)
	}
	return appendText(appendText(dst, c.Account), c.Message), nil
}

func decodeChallenge(data []byte) (*Challenge, error) {
	if len(data) == 0 || data[0] != challengeVersion && data[0] != challengeGenerationVersion {
		return nil, errChallenge
	}
	versioned := data[0] == challengeGenerationVersion
	data = data[1:]
	var c Challenge
	if versioned {
		if len(data) < 8 {
			return nil, errChallenge
		}
		if c.Generation, data = binary.BigEndian.Uint64(data), data[8:]; c.Generation == 0 {
			return nil, errChallenge
		}
	}
	texts := c.texts()
	for _, text := range append(texts[:], &c.Account, &c.Message) {
		if len(data) < 2 {
			return nil, errChallenge
		}
		n := int(binary.BigEndian.Uint16(data))
		if data = data[2:]; n > len(data) {
			return nil, errChallenge
		}
		*text, data = string(data[:n]), data[n:]
	}
	if len(data) != 0 || c.check() != nil {
		return nil, errChallenge
	}
	return &c, nil
}

// check returns an error for a challenge that could never be answered, or that
// does not say what it is for.
func (c *Challenge) check() error {
	switch _, isAddress := policy.ParseAddress(c.Account); {
	case !c.encodable() || !isAddress && c.Account != "":
		return fmt.Errorf("challenge: a value is not UTF-8 or is longer than %d bytes, or the account is no address", challengeMaxTextBytes)
	case !c.answerable(), c.Face == "", c.Environment != "test" && c.Environment != "production":
		return errors.New("challenge: purpose, a method for it, face and environment are required")
	case c.Purpose == PurposeLink && (c.User == "" || c.Card == ""):
		return errors.New("challenge: an account is linked for a user and to a card")
	case c.Message == "" || len(c.Message) > challengeMaxMessageBytes:
		return fmt.Errorf("challenge: want a message of 1 to %d bytes", challengeMaxMessageBytes)
	case c.Method == policy.MethodEIP712:
		if _, err := parseTyped(c.Message); err != nil || c.User == "" || c.Card == "" {
			return errors.New("challenge: an operation is authorized by typed data, by a user and for a card")
		}
	case c.Method == policy.MethodSIWE:
		message, err := ParseSIWE(c.Message)
		if err != nil {
			return fmt.Errorf("challenge: %w", err)
		}
		if user, ok := policy.ParseAddress(c.User); !ok || user != message.Address {
			return errors.New("challenge: the message is not for the user's address")
		}
	}
	return nil
}

// answerable reports whether there is such a purpose, and such a method for it.
func (u *ChallengeUse) answerable() bool {
	switch u.Method {
	case policy.MethodSIWE, policy.MethodWebAuthn:
		return u.Purpose == PurposeLogin || u.Purpose == PurposeLink
	case policy.MethodEIP712:
		operation := policy.Operation(u.Purpose)
		return operation == policy.CardReveal || operation == policy.PINReveal || operation == policy.PINSet
	}
	return false
}

// ChallengesConfig configures Challenges. All but Now is required.
type ChallengesConfig struct {
	Tokens  store.Tokens
	Records store.Records
	Digests DigestRing // keys of use digest, label "challenge"
	Seals   SealRing   // keys of use storage, label "challenge"

	// Uses are the MACs of Digests, the primary first: a challenge that is
	// found by what it is for brings no tag, so all are tried.
	Uses []policy.MAC

	Now func() time.Time // time.Now by default
}

// Challenges mints challenges and takes each once. What is found out about a
// challenge after it was taken does not give it back.
//
// Taking is refused with policy.KindChallenge as "malformed", "unknown",
// "spent", "expired", "fenced", or "bound" where the challenge is for something
// else; other errors are the store's, as Tokens.Redeem's are.
type Challenges struct{ config ChallengesConfig }

// NewChallenges returns the minter.
func NewChallenges(config ChallengesConfig) (*Challenges, error) {
	if config.Tokens == nil || config.Records == nil || config.Digests == nil || config.Seals == nil || len(config.Uses) == 0 {
		return nil, errors.New("challenges: tokens, records, digests, seals and uses are required")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Challenges{config}, nil
}

// Mint keeps a challenge for ttl, and returns the id that it is taken by.
// expires is by our clock and a little early; what counts is the store's.
func (c *Challenges) Mint(ctx context.Context, challenge Challenge, ttl time.Duration) (id string, expires time.Time, err error) {
	raw, expires, err := c.mintID(ctx, &challenge, ttl)
	if err != nil {
		return "", time.Time{}, err
	}
	return textEncoding.EncodeToString(raw[:]), expires, nil
}

// Take takes the challenge of an id, a credential of KindChallenge.
func (c *Challenges) Take(ctx context.Context, id policy.Credential, use ChallengeUse, attempt store.Attempt) (*Challenge, error) {
	raw, ok := parseChallengeID(id)
	if !ok {
		return nil, refuse(policy.KindChallenge, policy.RefusedMalformed, "")
	}
	return c.takeID(ctx, raw, use, attempt)
}

// Nonce draws a nonce for a message.
func (c *Challenges) Nonce() string {
	tag, _ := c.config.Digests.Primary()
	return hex.EncodeToString(tag[:]) + rand.Text()
}

// MintMessage keeps a challenge for ttl whose message has a nonce of Nonce.
func (c *Challenges) MintMessage(ctx context.Context, challenge Challenge, ttl time.Duration) (expires time.Time, err error) {
	tag, nonce, ok := parseNonce(challenge.Message)
	if !ok {
		return time.Time{}, errors.New("mint challenge: the message has no nonce of ours")
	}
	mac, ok := c.config.Digests.ByTag(tag)
	if !ok {
		return time.Time{}, errors.New("mint challenge: no digest key has the nonce's tag")
	}
	return c.mint(ctx, nonceDigest(mac, challenge.Purpose, nonce), &challenge, ttl)
}

// TakeMessage takes the challenge that a message is of. A message that was
// changed spends it, and is refused as "bound".
func (c *Challenges) TakeMessage(ctx context.Context, message string, use ChallengeUse, attempt store.Attempt) (*Challenge, error) {
	tag, nonce, ok := parseNonce(message)
	if !ok {
		return nil, refuse(policy.KindChallenge, policy.RefusedMalformed, "no message with a nonce of ours")
	}
	mac, ok := c.config.Digests.ByTag(tag)
	if !ok {
		return nil, refuse(policy.KindChallenge, policy.RefusedUnknown, "no digest key has its tag")
	}
	challenge, err := c.take(ctx, nonceDigest(mac, use.Purpose, nonce), use, attempt)
	if err != nil {
		return nil, err
	}
	if challenge.Message != message {
		return nil, refuse(policy.KindChallenge, policy.RefusedBound, "the message is not the one that was issued")
	}
	return challenge, nil
}

// MintTyped keeps a challenge for ttl that a wallet answers for one operation on
// one card, by signing that it authorizes it, and returns what is to be signed.
// Its nonce, which it draws, is what the challenge is taken by.
func (c *Challenges) MintTyped(
	ctx context.Context, use ChallengeUse, generation uint64, domain TypedDomain, authorization string, ttl time.Duration,
) (data TypedData, expires time.Time, err error) {
	tag, mac := c.config.Digests.Primary()
	var raw [32]byte
	copy(raw[:], tag[:])
	_, _ = rand.Read(raw[challengeTagBytes:]) // never fails: crypto/rand
	data = TypedData{Domain: domain, Authorization: authorization, Nonce: new(big.Int).SetBytes(raw[:]).String()}
	message, err := data.MarshalJSON()
	if err != nil {
		return TypedData{}, time.Time{}, fmt.Errorf("mint challenge: %w", err)
	}
	if use.Method != policy.MethodEIP712 {
		return TypedData{}, time.Time{}, errors.New("mint challenge: typed data is for wallets that sign it")
	}
	expires, err = c.mint(ctx, typedDigest(mac, use.Purpose, raw), &Challenge{ChallengeUse: use, Generation: generation, Message: string(message)}, ttl)
	if err != nil {
		return TypedData{}, time.Time{}, err
	}
	return data, expires, nil
}

// TakeNonce takes the challenge of typed data by its nonce. The use names user
// and card: without them nothing is taken, and it is refused as "bound".
func (c *Challenges) TakeNonce(ctx context.Context, nonce string, use ChallengeUse, attempt store.Attempt) (*Challenge, error) {
	raw, ok := parseUint256(nonce)
	if !ok {
		return nil, refuse(policy.KindChallenge, policy.RefusedMalformed, "no number of 256 bits")
	}
	if use.Method != policy.MethodEIP712 || use.User == "" || use.Card == "" {
		return nil, refuse(policy.KindChallenge, policy.RefusedBound, "it is taken for a user and a card")
	}
	mac, ok := c.config.Digests.ByTag([challengeTagBytes]byte(raw[:]))
	if !ok {
		return nil, refuse(policy.KindChallenge, policy.RefusedUnknown, "no digest key has its tag")
	}
	return c.take(ctx, typedDigest(mac, use.Purpose, raw), use, attempt)
}

// MintFor keeps a challenge for ttl that is found by what it is for, its User
// among it. The one that was there for the same use is void from then on.
//
// The challenge is kept before it is pointed at, so that what is pointed at can
// be taken. Of two that are minted at once, the one that is pointed at last
// stays, and the other is void. After an error the earlier challenge may be
// void as well.
func (c *Challenges) MintFor(ctx context.Context, challenge Challenge, ttl time.Duration) (expires time.Time, err error) {
	if challenge.User == "" {
		return time.Time{}, errors.New("mint challenge: one that is found by what it is for needs a user")
	}
	raw, expires, err := c.mintID(ctx, &challenge, ttl)
	if err != nil {
		return time.Time{}, err
	}
	// Under the keys that were primary before, or will be, nothing may stay.
	for _, mac := range c.config.Uses[1:] {
		if err := c.config.Records.Delete(ctx, challengeKind, useDigest(mac, challenge.ChallengeUse)); err != nil {
			return time.Time{}, fmt.Errorf("mint challenge: %w", err)
		}
	}
	digest := useDigest(c.config.Uses[0], challenge.ChallengeUse)
	sealed, err := c.config.Seals.Seal(nil, challengeData(challengeLastLabel, digest), raw[:])
	if err != nil {
		return time.Time{}, fmt.Errorf("mint challenge: seal id: %w", err)
	}
	// As long as the store tells of a challenge that it is expired.
	if err := c.config.Records.Put(ctx, challengeKind, digest, sealed, ttl+store.ExpiredFor); err != nil {
		return time.Time{}, fmt.Errorf("mint challenge: %w", err)
	}
	return expires, nil
}

// TakeFor takes the challenge that was minted last for exactly that use.
//
// However many callers come at once, and whatever is minted beside them, each
// challenge is taken by one of them: the store's token decides, and the pointer
// only says which token to ask for. A caller who has read the pointer just
// before another challenge was minted may still take the earlier one; it is as
// if they had come first. An attempt that asks again after another challenge
// was minted takes that one as well. A failover may bring an earlier pointer back, to a
// challenge that is fenced. Where an instance has another primary key than the
// one that minted at the same moment, both pointers may stay, and both
// challenges can be taken, once each.
func (c *Challenges) TakeFor(ctx context.Context, use ChallengeUse, attempt store.Attempt) (*Challenge, error) {
	if !use.encodable() {
		return nil, refuse(policy.KindChallenge, policy.RefusedMalformed, "")
	}
	for _, mac := range c.config.Uses {
		digest := useDigest(mac, use)
		sealed, err := c.config.Records.Get(ctx, challengeKind, digest)
		switch {
		case errors.Is(err, store.ErrUnknown):
			continue
		case err != nil:
			return nil, fmt.Errorf("take challenge: %w", err)
		}
		raw, err := c.config.Seals.Open(nil, challengeData(challengeLastLabel, digest), sealed)
		if err != nil || len(raw) != challengeIDBytes {
			return nil, refuse(policy.KindChallenge, policy.RefusedUnknown, "the stored id does not open")
		}
		return c.takeID(ctx, [challengeIDBytes]byte(raw), use, attempt)
	}
	return nil, refuse(policy.KindChallenge, policy.RefusedUnknown, "")
}

func (c *Challenges) mintID(ctx context.Context, challenge *Challenge, ttl time.Duration) (raw [challengeIDBytes]byte, expires time.Time, err error) {
	tag, mac := c.config.Digests.Primary()
	copy(raw[:], tag[:])
	_, _ = rand.Read(raw[challengeTagBytes:]) // never fails: crypto/rand
	expires, err = c.mint(ctx, idDigest(mac, raw), challenge, ttl)
	return raw, expires, err
}

func (c *Challenges) mint(ctx context.Context, digest store.Digest, challenge *Challenge, ttl time.Duration) (expires time.Time, err error) {
	plain, err := challenge.encode()
	if err != nil {
		return time.Time{}, fmt.Errorf("mint %w", err)
	}
	now := c.config.Now()
	sealed, err := c.config.Seals.Seal(nil, challengeData(challengeLabel, digest), plain)
	if err != nil {
		return time.Time{}, fmt.Errorf("mint challenge: seal: %w", err)
	}
	if err := c.config.Tokens.Mint(ctx, challengeKind, digest, sealed, ttl); err != nil {
		return time.Time{}, fmt.Errorf("mint challenge: %w", err)
	}
	return now.Add(ttl), nil
}

func (c *Challenges) takeID(ctx context.Context, raw [challengeIDBytes]byte, use ChallengeUse, attempt store.Attempt) (*Challenge, error) {
	mac, ok := c.config.Digests.ByTag([challengeTagBytes]byte(raw[:]))
	if !ok {
		return nil, refuse(policy.KindChallenge, policy.RefusedUnknown, "no digest key has its tag")
	}
	return c.take(ctx, idDigest(mac, raw), use, attempt)
}

func (c *Challenges) take(ctx context.Context, digest store.Digest, use ChallengeUse, attempt store.Attempt) (*Challenge, error) {
	sealed, err := c.config.Tokens.Redeem(ctx, challengeKind, digest, attempt)
	if err != nil {
		return nil, redeemError(policy.KindChallenge, err)
	}
	var challenge *Challenge
	plain, err := c.config.Seals.Open(nil, challengeData(challengeLabel, digest), sealed)
	if err == nil {
		challenge, err = decodeChallenge(plain)
	}
	if err != nil {
		// A key that was retired too early, or somebody wrote to the store.
		return nil, refuse(policy.KindChallenge, policy.RefusedUnknown, "the stored challenge does not open")
	}
	if !challenge.goodFor(use) {
		return nil, refuse(policy.KindChallenge, policy.RefusedBound, "")
	}
	return challenge, nil
}

// parseChallengeID decodes an id's text, of which each id has one.
func parseChallengeID(c policy.Credential) (raw [challengeIDBytes]byte, ok bool) {
	text := c.Value()
	if c.Kind != policy.KindChallenge || len(text) != challengeIDText {
		return raw, false
	}
	// Line breaks, which the decoder skips, leave too few characters.
	n, err := textEncoding.Decode(raw[:], []byte(text))
	return raw, err == nil && n == challengeIDBytes
}

// parseNonce returns the nonce of a message, if it has the form of Nonce's.
func parseNonce(message string) (tag [challengeTagBytes]byte, nonce string, ok bool) {
	parsed, err := ParseSIWE(message)
	if err != nil || len(parsed.Nonce) != challengeNonceText {
		return tag, "", false
	}
	text := parsed.Nonce[:2*challengeTagBytes]
	if _, err := hex.Decode(tag[:], []byte(text)); err != nil || hex.EncodeToString(tag[:]) != text {
		return tag, "", false
	}
	return tag, parsed.Nonce, true
}

func nonceDigest(mac policy.MAC, purpose, nonce string) store.Digest {
	return store.Digest(mac.MAC(nil, appendText(appendText([]byte(challengeNonceLabel), purpose), nonce)))
}

func typedDigest(mac policy.MAC, purpose string, nonce [32]byte) store.Digest {
	return store.Digest(mac.MAC(nil, append(appendText([]byte(challengeTypedLabel), purpose), nonce[:]...)))
}

func idDigest(mac policy.MAC, raw [challengeIDBytes]byte) store.Digest {
	return store.Digest(mac.MAC(nil, append([]byte(challengeIDLabel), raw[:]...)))
}

// useDigest is where the id of the last challenge for a use is kept.
func useDigest(mac policy.MAC, use ChallengeUse) store.Digest {
	message := []byte(challengeUseLabel)
	for _, text := range use.texts() {
		message = appendText(message, *text)
	}
	return store.Digest(mac.MAC(nil, message))
}

func challengeData(label string, digest store.Digest) []byte {
	return append([]byte(label), digest[:]...)
}

// NewPasskeyChallenge draws the 32 bytes that an authenticator signs.
func NewPasskeyChallenge() string {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails: crypto/rand
	return string(raw[:])
}
