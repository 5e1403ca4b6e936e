package credential

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// The token of a session of hosted fields is 35 bytes in base64url without
// padding, 47 characters: the tag of the digest key that its digest is made
// with, and 256 random bits. The store has, under the token's digest, the
// session, sealed with that digest as associated data [7], and under digests of
// its own each part that the page submitted, as the vault sealed it under the
// token itself [11].
const (
	fieldsSecretBytes = 32
	fieldsBytes       = tokenTagBytes + fieldsSecretBytes
	fieldsText        = 47
)

// Labels of what is digested and of associated data.
const (
	fieldsDigestLabel = "cardstile fields v1"
	fieldsClaimLabel  = "cardstile fields claim v1"
	fieldsKeyLabel    = "cardstile fields claim key v1"
	fieldsPartLabel   = "cardstile fields part v1"
	fieldsLabel       = "cardstile fields session v1"
)

// Kinds of what is stored.
const (
	storeFields       store.Kind = "fields"        // sessions: Records
	storeFieldsMint   store.Kind = "fields_mint"   // which sessions of a seed there were: Idempotent
	storeFieldsClaim  store.Kind = "fields_claim"  // whose a session is: Idempotent
	storeFieldsSubmit store.Kind = "fields_submit" // parts: Records
)

// The parts of a card that a page submits.
const (
	PartPAN    = "pan"
	PartCVC    = "cvc"
	PartExpiry = "expiry"
	PartName   = "name"
)

const (
	// MaxFieldsTTL bounds the life of a session, and with it that of the parts [11].
	MaxFieldsTTL = 30 * time.Minute

	fieldsMinted  = 24 * time.Hour // past its end: how long a session of a seed is known to have been
	fieldsLease   = 10 * time.Second
	fieldsSlack   = time.Minute // how far clocks of ours may be apart
	fieldsMaxText = 1 << 10     // bytes of each string of a session
	fieldsMaxKey  = 255         // bytes of what a page claims with
	fieldsIDBytes = 8
	fieldsVersion = 1

	fieldsGenerationVersion = 2

	fieldsPartSize = 4 << 10 // bytes of a part
)

// FieldsSession is a session of hosted fields, for one page: what it is about is
// the face's to say.
type FieldsSession struct {
	Partner     string
	Environment string // "test" or "production" [5]
	Face        string // where it was minted, and is good
	Terminal    string // where payments are processed
	Scenario    string
	Library     string // the version of the page's library
	SecureToken string // "" where there is none
	Key         string // the API key that it began with, see Bearers.KeyOf; "" where there was none
	Generation  uint64 // of the partner, when it was minted
	Began       time.Time
	Expires     time.Time
}

// texts lists the strings in the order of the encoding.
func (s *FieldsSession) texts() [8]*string {
	return [...]*string{&s.Partner, &s.Environment, &s.Face, &s.Terminal, &s.Scenario, &s.Library, &s.SecureToken, &s.Key}
}

// The encoding of a session: a version, beginning and end in Unix milliseconds in
// eight bytes each; the generation in eight where it is not 0, by another version; then each string with its length in two bytes, big endian, before it.
// Each session has exactly one, and nothing may follow it.
func (s *FieldsSession) encode() ([]byte, error) {
	if s.Partner == "" || s.Face == "" || !validEnvironment(s.Environment) {
		return nil, errors.New("partner, face and environment are required")
	}
	dst := binary.BigEndian.AppendUint64(append(make([]byte, 0, 256), fieldsVersion), uint64(s.Began.UnixMilli()))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Expires.UnixMilli()))
	if s.Generation != 0 {
		dst[0] = fieldsGenerationVersion
		dst = binary.BigEndian.AppendUint64(dst, s.Generation)
	}
	for _, text := range s.texts() {
		if len(*text) > fieldsMaxText || !utf8.ValidString(*text) {
			return nil, fmt.Errorf("a value is not UTF-8 or is longer than %d bytes", fieldsMaxText)
		}
		dst = appendText(dst, *text)
	}
	return dst, nil
}

// decode reads what encode wrote, and nothing else.
func (s *FieldsSession) decode(data []byte) bool {
	if len(data) < 1+8+8 || data[0] != fieldsVersion && data[0] != fieldsGenerationVersion {
		return false
	}
	versioned := data[0] == fieldsGenerationVersion
	s.Began = time.UnixMilli(int64(binary.BigEndian.Uint64(data[1:])))
	s.Expires, data = time.UnixMilli(int64(binary.BigEndian.Uint64(data[1+8:]))), data[1+8+8:]
	if versioned {
		if len(data) < 8 {
			return false
		}
		if s.Generation, data = binary.BigEndian.Uint64(data), data[8:]; s.Generation == 0 {
			return false
		}
	}
	for _, text := range s.texts() {
		if len(data) < 2 {
			return false
		}
		n := int(binary.BigEndian.Uint16(data))
		if data = data[2:]; n > len(data) {
			return false
		}
		*text, data = string(data[:n]), data[n:]
	}
	_, err := s.encode()
	return err == nil && len(data) == 0
}

// FieldsSessionsConfig configures FieldsSessions.
type FieldsSessionsConfig struct {
	Records store.Records    // required
	Calls   store.Idempotent // who claimed a session, and what was minted of a seed. Required
	Digests DigestRing       // keys of use digest, label "fields". Required
	Seals   SealRing         // keys of use storage, label "fields". Required

	// Seeds are the keys of Digests under the label "fields seed". Without them
	// there are no seeds [8].
	Seeds DigestRing

	Now func() time.Time // time.Now by default
}

// FieldsSessions mints sessions of hosted fields, proves pages by them, and
// keeps what a page submits until it is taken together.
//
// Its times are by our clock, which must not be far from the store's. Records
// are not fenced: a failover may forget a session or the last part, or bring
// back parts that were deleted, which open with the session's token alone.
type FieldsSessions struct{ config FieldsSessionsConfig }

// NewFieldsSessions returns them.
func NewFieldsSessions(config FieldsSessionsConfig) (*FieldsSessions, error) {
	if config.Records == nil || config.Calls == nil || config.Digests == nil || config.Seals == nil {
		return nil, errors.New("fields credentials: records, calls, digests and seals are required")
	}
	if config.Seeds != nil {
		digests, _ := config.Digests.Primary()
		if seeds, _ := config.Seeds.Primary(); seeds != digests {
			return nil, errors.New("fields credentials: seeds and digests are of different keys")
		}
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &FieldsSessions{config}, nil
}

// NewSeed draws the seed of one mint; see Seed for the context.
func (f *FieldsSessions) NewSeed(context []byte) (Seed, error) {
	return newSeed(f.config.Seeds, context)
}

// Again returns the token of the session that was minted of the seed for the
// partner. It asks no store: a session that is over stays so. It is an error
// where the seed's key is not configured any more.
func (f *FieldsSessions) Again(partner string, seed Seed) (token string, err error) {
	raw, err := f.grow(partner, seed)
	if err != nil {
		return "", fmt.Errorf("fields token of a seed: %w", err)
	}
	return textEncoding.EncodeToString(raw[:]), nil
}

func (f *FieldsSessions) grow(partner string, seed Seed) (raw [fieldsBytes]byte, err error) {
	secret, err := seed.grow(f.config.Seeds, partner)
	if err != nil {
		return raw, err
	}
	copy(raw[:], seed.tag[:])
	copy(raw[tokenTagBytes:], secret)
	return raw, nil
}

// Mint begins a session that lasts for ttl, at most MaxFieldsTTL, and returns
// its token and when it ends. The session's Began and Expires are set, whatever
// they were.
// Errors of the store pass through.
//
// A session of a seed is minted once: minting it again returns its token and
// when it ends, and changes and extends nothing, for a day after it is over too;
// then the time is past. While another caller mints it, that is an error that
// matches store.ErrInFlight.
func (f *FieldsSessions) Mint(ctx context.Context, s FieldsSession, ttl time.Duration, seed *Seed) (token string, expires time.Time, err error) {
	if ttl < time.Second || ttl > MaxFieldsTTL {
		return "", time.Time{}, fmt.Errorf("mint fields session: the time to live must be from a second to %s", MaxFieldsTTL)
	}
	s.Began = time.UnixMilli(f.config.Now().UnixMilli())
	s.Expires = s.Began.Add(ttl)
	plain, err := s.encode()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint fields session: %w", err)
	}
	page, err := f.draw(s.Partner, seed)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint fields session: %w", err)
	}
	put := func() error {
		sealed, err := f.config.Seals.Seal(nil, page.data(), plain)
		if err != nil {
			return fmt.Errorf("seal: %w", err)
		}
		return f.config.Records.Put(ctx, storeFields, page.digest, sealed, ttl)
	}
	expires = s.Expires
	if seed == nil {
		err = put()
	} else {
		expires, err = f.mintOnce(ctx, page, s.Expires, ttl, put)
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint fields session: %w", err)
	}
	return textEncoding.EncodeToString(page.raw[:]), expires, nil
}

// mintOnce puts a session that was not there before, or returns when the one
// that was ends.
func (f *FieldsSessions) mintOnce(ctx context.Context, page *fieldsPage, expires time.Time, ttl time.Duration, put func() error) (time.Time, error) {
	var attempt store.Attempt
	_, _ = rand.Read(attempt[:]) // never fails: crypto/rand
	begun, err := f.config.Calls.Begin(ctx, storeFieldsMint, page.digest, store.Digest{}, attempt, min(fieldsLease, ttl), ttl, fieldsMinted)
	switch {
	case errors.Is(err, store.ErrTombstone):
		return f.config.Now().Add(-time.Millisecond), nil
	case err != nil:
		return time.Time{}, err
	case !begun.Owner && len(begun.Value) != 8:
		return time.Time{}, errors.New("what is kept of it is not ours")
	case !begun.Owner:
		return time.UnixMilli(int64(binary.BigEndian.Uint64(begun.Value))), nil
	}
	if err := put(); err != nil {
		return time.Time{}, err // whoever comes after the lease puts it
	}
	err = f.config.Calls.Finish(ctx, storeFieldsMint, page.digest, attempt, binary.BigEndian.AppendUint64(nil, uint64(expires.UnixMilli())))
	return expires, err
}

// draw makes a token's bytes, of a seed or at random.
func (f *FieldsSessions) draw(partner string, seed *Seed) (*fieldsPage, error) {
	tag, mac := f.config.Digests.Primary()
	var raw [fieldsBytes]byte
	if seed == nil {
		copy(raw[:], tag[:])
		_, _ = rand.Read(raw[tokenTagBytes:]) // never fails: crypto/rand
		return newFieldsPage(mac, raw), nil
	}
	raw, err := f.grow(partner, *seed)
	if err != nil {
		return nil, err
	}
	mac, ok := f.config.Digests.ByTag(seed.tag)
	if !ok {
		return nil, errSeedKey
	}
	return newFieldsPage(mac, raw), nil
}

// Prove proves the partner of a session, for its page. That the session is of
// the face that asks is the caller's to compare.
//
// Refused as "malformed", "unknown" or "expired". Failures of the store pass
// through.
func (f *FieldsSessions) Prove(ctx context.Context, c policy.Credential) (policy.Proof, FieldsSession, error) {
	page, session, err := f.load(ctx, c)
	if err != nil {
		return policy.Proof{}, FieldsSession{}, err
	}
	return policy.Proof{
		Kind: policy.KindFields, Partner: session.Partner, Environment: session.Environment, Minted: true, Generation: session.Generation,
		ID: idOf(policy.KindFields, hex.EncodeToString(page.digest[:fieldsIDBytes])),
	}, session, nil
}

// Claim makes the session a page's, which it names by a key of its own: the
// first key claims it [23], the same key may come again, and another one is
// refused as "bound", on every instance. Otherwise it is as Prove.
func (f *FieldsSessions) Claim(ctx context.Context, c policy.Credential, key string) error {
	if key == "" || len(key) > fieldsMaxKey {
		return refuse(policy.KindFields, policy.RefusedMalformed, "a session is claimed with a key")
	}
	page, session, err := f.load(ctx, c)
	if err != nil {
		return err
	}
	var attempt store.Attempt
	_, _ = rand.Read(attempt[:]) // never fails: crypto/rand
	// The call is begun and never finished: what counts is the key that it is bound to, for as long as there is a session.
	ttl := session.Expires.Sub(f.config.Now()) + fieldsSlack
	_, err = f.config.Calls.Begin(ctx, storeFieldsClaim, page.mac(fieldsClaimLabel, ""), page.mac(fieldsKeyLabel, key), attempt, fieldsLease, ttl, 0)
	switch {
	case errors.Is(err, store.ErrOtherBody):
		return refuse(policy.KindFields, policy.RefusedBound, "another page has claimed it")
	case err != nil && !errors.Is(err, store.ErrInFlight): // begun a moment ago, with the same key
		return fmt.Errorf("claim fields session: %w", err)
	}
	return nil
}

// PutPart keeps one part of a card, sealed under the session's token, in place
// of what the page submitted before. It lives no longer than the session.
// Another name than a Part's, and a value that is empty or longer than 4 KiB,
// is an error. Otherwise it is as Prove.
func (f *FieldsSessions) PutPart(ctx context.Context, c policy.Credential, name string, sealed []byte) error {
	if !isPart(name) || len(sealed) == 0 || len(sealed) > fieldsPartSize {
		return fmt.Errorf("put part: %w", errPart)
	}
	page, session, err := f.load(ctx, c)
	if err != nil {
		return err
	}
	left := session.Expires.Sub(f.config.Now())
	if err := f.config.Records.Put(ctx, storeFieldsSubmit, page.mac(fieldsPartLabel, name), sealed, max(left, time.Millisecond)); err != nil {
		return fmt.Errorf("put part: %w", err)
	}
	return nil
}

// Parts returns those of the named parts that are there, by name. They are not
// taken: DeleteParts deletes them, and whoever must not use them twice says so
// elsewhere. It does not look whether the session is over, which its parts do
// not outlive. Refused as "malformed" or "unknown" where the token is none of
// ours; failures of the store pass through.
func (f *FieldsSessions) Parts(ctx context.Context, c policy.Credential, names ...string) (map[string][]byte, error) {
	page, err := f.parse(c)
	if err != nil {
		return nil, err
	}
	found := make(map[string][]byte, len(names))
	for _, name := range names {
		if !isPart(name) {
			return nil, fmt.Errorf("parts: %w", errPart)
		}
		sealed, err := f.config.Records.Get(ctx, storeFieldsSubmit, page.mac(fieldsPartLabel, name))
		switch {
		case errors.Is(err, store.ErrUnknown):
		case err != nil:
			return nil, fmt.Errorf("parts: %w", err)
		default:
			found[name] = sealed
		}
	}
	return found, nil
}

// DeleteParts deletes the named parts. There being none is no error. Otherwise
// it is as Parts; after an error some of them may be deleted.
func (f *FieldsSessions) DeleteParts(ctx context.Context, c policy.Credential, names ...string) error {
	page, err := f.parse(c)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !isPart(name) {
			return fmt.Errorf("delete parts: %w", errPart)
		}
		if err := f.config.Records.Delete(ctx, storeFieldsSubmit, page.mac(fieldsPartLabel, name)); err != nil {
			return fmt.Errorf("delete parts: %w", err)
		}
	}
	return nil
}

// errPart is a mistake of the caller's code.
var errPart = errors.New("no such part, or a value that no part has")

func isPart(name string) bool {
	return name == PartPAN || name == PartCVC || name == PartExpiry || name == PartName
}

// load returns the session of a token that is not over.
func (f *FieldsSessions) load(ctx context.Context, c policy.Credential) (*fieldsPage, FieldsSession, error) {
	page, err := f.parse(c)
	if err != nil {
		return nil, FieldsSession{}, err
	}
	sealed, err := f.config.Records.Get(ctx, storeFields, page.digest)
	switch {
	case errors.Is(err, store.ErrUnknown):
		return nil, FieldsSession{}, refuse(policy.KindFields, policy.RefusedUnknown, "")
	case err != nil:
		return nil, FieldsSession{}, fmt.Errorf("fields session: %w", err)
	}
	var session FieldsSession
	plain, err := f.config.Seals.Open(nil, page.data(), sealed)
	if err != nil || !session.decode(plain) {
		// A key that was retired too early, or somebody wrote to the store.
		return nil, FieldsSession{}, refuse(policy.KindFields, policy.RefusedUnknown, "the stored session does not open")
	}
	if !f.config.Now().Before(session.Expires) {
		return nil, FieldsSession{}, refuse(policy.KindFields, policy.RefusedExpired, "")
	}
	return page, session, nil
}

// parse takes a token apart. Each has one text: no padding, no line breaks, no
// other alphabet. Refused as "malformed" or "unknown".
func (f *FieldsSessions) parse(c policy.Credential) (*fieldsPage, error) {
	text := c.Value()
	if c.Kind != policy.KindFields || len(text) != fieldsText {
		return nil, refuse(policy.KindFields, policy.RefusedMalformed, "")
	}
	var raw [fieldsBytes]byte
	// Line breaks, which the decoder skips, leave too few characters.
	if n, err := textEncoding.Decode(raw[:], []byte(text)); err != nil || n != fieldsBytes {
		return nil, refuse(policy.KindFields, policy.RefusedMalformed, "")
	}
	mac, ok := f.config.Digests.ByTag([tokenTagBytes]byte(raw[:]))
	if !ok {
		return nil, refuse(policy.KindFields, policy.RefusedUnknown, "no digest key has its tag")
	}
	return newFieldsPage(mac, raw), nil
}

// fieldsPage is a token that was taken apart, with the digests that are made of it.
type fieldsPage struct {
	key    policy.MAC
	raw    [fieldsBytes]byte
	digest store.Digest // where the session is kept
}

func newFieldsPage(key policy.MAC, raw [fieldsBytes]byte) *fieldsPage {
	p := &fieldsPage{key: key, raw: raw}
	p.digest = p.mac(fieldsDigestLabel, "")
	return p
}

// mac is a digest of the token and one text besides, for one purpose. The token
// has always the same length.
func (p *fieldsPage) mac(label, text string) store.Digest {
	return store.Digest(p.key.MAC(nil, append(append(appendText(nil, label), p.raw[:]...), text...)))
}

// data is the associated data of the sealed session.
func (p *fieldsPage) data() []byte { return append([]byte(fieldsLabel), p.digest[:]...) }
