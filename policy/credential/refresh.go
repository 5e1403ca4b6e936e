package credential

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// A refresh token is 51 bytes in base64url without padding, 68 characters: the
// tag of the digest key that its digest is made with, its family, and 160 random
// bits (RFC 6749 section 10.10 asks for no more). The store has, under the digest of face and token, the session that it
// stands for, sealed with that digest as associated data.
//
// A family is one login: all tokens that came of it, one after the other. It
// lives as long as its live record is in the store, which is written once, at
// the login. Refreshing touches the record not at all, so no refresh can bring
// back what is revoked at the same moment.
const (
	refreshSecretBytes = 20
	refreshBytes       = tokenTagBytes + familyBytes + refreshSecretBytes
	refreshText        = 68
)

const (
	// RefreshTTL is how long a refresh token is good.
	RefreshTTL = 30 * 24 * time.Hour
	// FamilyTTL is how long after the login a family is over in any case. The
	// digest keys overlap for as long when they rotate.
	FamilyTTL = 90 * 24 * time.Hour
)

// A family's id is 128 random bits, and 96 of the digest of them and of the
// account's key that it began with: the id is in every token of the family and
// names its live record, so that each of them says which key that was, and
// nobody can say of an old one that it was another. The random bits are in the
// digest so that no two ids of one key have anything in common, and so that no
// token has a part of a fingerprint, which is what LoginPublicKey asks for.
const (
	familySaltBytes = 16
	familyKeyBytes  = 12
	familyBytes     = familySaltBytes + familyKeyBytes
)

// familyID is the id of a family.
type familyID [familyBytes]byte

func newFamilyID(key policy.Fingerprint) (id familyID) {
	_, _ = rand.Read(id[:familySaltBytes]) // never fails: crypto/rand
	copy(id[familySaltBytes:], id.boundTo(key))
	return id
}

// began reports whether the family began with a key.
func (id *familyID) began(key policy.Fingerprint) bool {
	return string(id[familySaltBytes:]) == string(id.boundTo(key))
}

func (id *familyID) boundTo(key policy.Fingerprint) []byte {
	message := make([]byte, 0, len(familyKeyLabel)+familySaltBytes+len(key))
	message = append(append(message, familyKeyLabel...), id[:familySaltBytes]...)
	digest := sha256.Sum256(append(message, key[:]...))
	return digest[:familyKeyBytes]
}

// Kinds of what is stored.
const (
	storeRefresh store.Kind = "refresh"
	storeFamily  store.Kind = "family"
)

// Labels of what is digested and sealed for the store.
const (
	refreshLabel      = "cardstile refresh v1"
	sessionLabel      = "cardstile refresh session v1"
	familyLabel       = "cardstile family v1"
	familyRecordLabel = "cardstile family record v1"
	familyKeyLabel    = "cardstile family key v1"
)

// Session is a login of a service account: what a refresh token stands for and
// what access tokens are minted of. Only Families makes one that is good.
type Session struct {
	account     string
	environment string
	weak        bool // by a public key alone
	family      familyID
}

// Account is the id of the account that is logged in, or "".
func (s Session) Account() string { return s.account }

// FamiliesConfig configures Families. All but Now is required.
type FamiliesConfig struct {
	Face     string       // whose tokens these are: they are good there alone
	Tokens   store.Tokens // where refresh tokens live
	Digests  DigestRing   // keys of use digest, label "refresh"
	Sessions SealRing     // keys of use storage, label "refresh"

	Records  store.Records // where live records live
	Lives    []policy.MAC  // keyed digests, label "family", the primary first
	Accounts AccountSource // asked each time: an account or a key that is gone has no sessions

	Now func() time.Time // time.Now by default
}

// Families are logins of service accounts, each with its refresh tokens.
type Families struct {
	config FamiliesConfig
	lives  live
}

// NewFamilies returns them.
func NewFamilies(config FamiliesConfig) (*Families, error) {
	switch {
	case config.Face == "":
		return nil, errors.New("refresh credentials: no face")
	case config.Tokens == nil || config.Digests == nil || config.Sessions == nil:
		return nil, errors.New("refresh credentials: tokens need a store, digests and keys to seal with")
	case config.Records == nil || len(config.Lives) == 0:
		return nil, errors.New("refresh credentials: live records need a store and a digest key")
	case config.Accounts == nil:
		return nil, errors.New("refresh credentials: no accounts")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Families{config, live{
		kind: storeFamily, label: familyLabel, recordLabel: familyRecordLabel,
		face: config.Face, macs: config.Lives, records: config.Records, now: config.Now,
	}}, nil
}

// Begin begins a family for an account that has proven itself, weakly or not,
// with a key of its own, as LoginKey says, and mints its first refresh token.
// The family is good while the account has that key, and of the partner's
// generation, which all that comes of it has. It is an error if there is
// no such account, or it has no such key: no login is without one, not even by
// LoginCertificate. Errors of the store pass through; what is stored by then
// nobody can use.
func (f *Families) Begin(ctx context.Context, account string, weak bool, key [32]byte, generation uint64) (token string, s Session, err error) {
	a, ok := f.config.Accounts.Account(account)
	switch {
	case !ok:
		return "", Session{}, errors.New("begin family: no such account")
	case !a.has(func(spki policy.Fingerprint) bool { return spki == key }):
		return "", Session{}, errors.New("begin family: the account has no such key")
	}
	s = Session{account: a.ID, environment: a.Environment, weak: weak, family: newFamilyID(key)}
	if err := f.lives.begin(ctx, string(s.family[:]), FamilyTTL, generation); err != nil {
		return "", Session{}, fmt.Errorf("begin family: %w", err)
	}
	if token, err = f.mint(ctx, s); err != nil {
		return "", Session{}, fmt.Errorf("begin family: %w", err)
	}
	return token, s, nil
}

// Rotate mints the next refresh token of a session that Redeem returned. It
// does not look whether the family is alive: a token of a dead one is refused.
// Errors of the store pass through.
func (f *Families) Rotate(ctx context.Context, s Session) (token string, err error) {
	if s == (Session{}) {
		return "", errors.New("rotate refresh token: no session")
	}
	if token, err = f.mint(ctx, s); err != nil {
		return "", fmt.Errorf("rotate refresh token: %w", err)
	}
	return token, nil
}

func (f *Families) mint(ctx context.Context, s Session) (token string, err error) {
	plain, err := s.encode()
	if err != nil {
		return "", err
	}
	tag, mac := f.config.Digests.Primary()
	var raw [refreshBytes]byte
	copy(raw[:], tag[:])
	copy(raw[tokenTagBytes:], s.family[:])
	_, _ = rand.Read(raw[tokenTagBytes+familyBytes:]) // never fails: crypto/rand
	digest := f.digest(mac, &raw)
	sealed, err := f.config.Sessions.Seal(nil, sessionData(digest), plain)
	if err != nil {
		return "", fmt.Errorf("seal session: %w", err)
	}
	if err := f.config.Tokens.Mint(ctx, storeRefresh, digest, sealed, RefreshTTL); err != nil {
		return "", err
	}
	return textEncoding.EncodeToString(raw[:]), nil
}

// Redeem uses a refresh token up, and proves the account of its session. One
// that another attempt has used up before is in two hands, and nobody knows in
// whose: it ends its family, and with it whatever came of the first redemption.
// Nothing else ends one, a fenced token [9] and an expired one among the rest.
//
// Refused as "malformed", "unknown" (an account that is gone too), "spent",
// "expired", "fenced", "environment", or "login" where the family is over, or
// the key that it began with is not the account's any more.
// Failures of the store pass through; where the family could not be ended, the
// same token ends it when it comes again.
func (f *Families) Redeem(ctx context.Context, c policy.Credential, a store.Attempt) (policy.Proof, Session, error) {
	token, err := f.parse(c)
	if err != nil {
		return policy.Proof{}, Session{}, err
	}
	sealed, err := f.config.Tokens.Redeem(ctx, storeRefresh, token.digest, a)
	if errors.Is(err, store.ErrSpent) {
		if err := f.end(ctx, token.family); err != nil {
			return policy.Proof{}, Session{}, err
		}
	}
	if err != nil {
		return policy.Proof{}, Session{}, redeemError(policy.KindRefresh, err)
	}
	session := Session{family: token.family}
	plain, err := f.config.Sessions.Open(nil, sessionData(token.digest), sealed)
	if err != nil || !session.decode(plain) {
		// A key that was retired too early, or somebody wrote to the store.
		return policy.Proof{}, Session{}, refuse(policy.KindRefresh, policy.RefusedUnknown, "the stored session does not open")
	}
	proof, err := f.prove(ctx, policy.KindRefresh, session)
	if err != nil {
		return policy.Proof{}, Session{}, err
	}
	return proof, session, nil
}

// Revoke ends the family of a refresh token, spent, expired or fenced ones
// among the rest, and uses the token up: whoever has one that was ours may end
// its login. Afterwards no token of the family is accepted, of whatever kind.
//
// Refused as "malformed" or "unknown", and then nothing has changed. Failures
// of the store pass through; Revoke can be called again.
func (f *Families) Revoke(ctx context.Context, c policy.Credential) error {
	token, err := f.parse(c)
	if err != nil {
		return err
	}
	var attempt store.Attempt
	_, _ = rand.Read(attempt[:]) // never fails: crypto/rand
	_, err = f.config.Tokens.Redeem(ctx, storeRefresh, token.digest, attempt)
	for _, ours := range [...]error{store.ErrSpent, store.ErrExpired, store.ErrFenced} {
		if errors.Is(err, ours) {
			err = nil
		}
	}
	if err != nil {
		return redeemError(policy.KindRefresh, err)
	}
	return f.end(ctx, token.family)
}

func (f *Families) end(ctx context.Context, family familyID) error {
	if err := f.lives.end(ctx, string(family[:])); err != nil {
		return fmt.Errorf("end family: %w", err)
	}
	return nil
}

// prove proves the account of a session that has not been ended, at this
// moment. An account, or a key, that comes back brings with it what is left of
// its sessions. Refused, as the kind of what was presented, as "unknown",
// "environment" or "login".
func (f *Families) prove(ctx context.Context, kind policy.Kind, s Session) (policy.Proof, error) {
	account, ok := f.config.Accounts.Account(s.account)
	switch {
	case !ok:
		return policy.Proof{}, refuse(kind, policy.RefusedUnknown, "the account is not configured any more")
	case account.Environment != s.environment:
		return policy.Proof{}, refuse(kind, policy.RefusedEnvironment, "the account's")
	case s.weak && account.Login != LoginPublicKey:
		return policy.Proof{}, refuse(kind, policy.RefusedLogin, "the account asks for more than a public key now")
	case !account.has(s.family.began):
		return policy.Proof{}, refuse(kind, policy.RefusedLogin, "the account has not the key any more that the login began with")
	}
	generation, err := f.lives.check(ctx, kind, string(s.family[:]))
	if err != nil {
		return policy.Proof{}, err
	}
	proof := account.proof(kind, "")
	proof.Weak, proof.Minted, proof.Generation = s.weak, true, generation
	return proof, nil
}

// refreshToken is a refresh token that was taken apart.
type refreshToken struct {
	digest store.Digest
	family familyID // true if the store knows the digest, which covers it
}

// parse takes a refresh token apart. Each has one text: no padding, no line
// breaks, no other alphabet. Refused as "malformed" or "unknown".
func (f *Families) parse(c policy.Credential) (refreshToken, error) {
	text := c.Value()
	if c.Kind != policy.KindRefresh || len(text) != refreshText {
		return refreshToken{}, refuse(policy.KindRefresh, policy.RefusedMalformed, "")
	}
	var raw [refreshBytes]byte
	// Line breaks, which the decoder skips, leave too few characters.
	if n, err := textEncoding.Decode(raw[:], []byte(text)); err != nil || n != refreshBytes {
		return refreshToken{}, refuse(policy.KindRefresh, policy.RefusedMalformed, "")
	}
	mac, ok := f.config.Digests.ByTag([tokenTagBytes]byte(raw[:]))
	if !ok {
		return refreshToken{}, refuse(policy.KindRefresh, policy.RefusedUnknown, "no digest key has its tag")
	}
	return refreshToken{f.digest(mac, &raw), familyID(raw[tokenTagBytes:])}, nil
}

// digest is where a token's session is kept: another place at each face.
func (f *Families) digest(mac policy.MAC, raw *[refreshBytes]byte) store.Digest {
	message := make([]byte, 0, len(refreshLabel)+2+len(f.config.Face)+len(raw))
	message = append(message, refreshLabel...)
	message = binary.BigEndian.AppendUint16(message, uint16(len(f.config.Face)))
	message = append(message, f.config.Face...)
	message = append(message, raw[:]...)
	return store.Digest(mac.MAC(nil, message))
}

func sessionData(digest store.Digest) []byte {
	return append([]byte(sessionLabel), digest[:]...)
}

// A session is sealed as version(1) weak(1, 0 or 1), and account and environment
// with their length in one byte before each. The family is in the token.
const sessionVersion = 1

func (s *Session) encode() ([]byte, error) {
	if len(s.account) > 255 || len(s.environment) > 255 {
		return nil, errors.New("encode session: a value is longer than 255 bytes")
	}
	data := []byte{sessionVersion, 0}
	if s.weak {
		data[1] = 1
	}
	for _, text := range [...]string{s.account, s.environment} {
		data = append(append(data, byte(len(text))), text...)
	}
	return data, nil
}

// decode reads what encode wrote, and nothing else.
func (s *Session) decode(data []byte) bool {
	if len(data) < 2 || data[0] != sessionVersion || data[1] > 1 {
		return false
	}
	s.weak, data = data[1] == 1, data[2:]
	for _, text := range [...]*string{&s.account, &s.environment} {
		if len(data) == 0 || int(data[0]) > len(data)-1 {
			return false
		}
		n := 1 + int(data[0])
		*text, data = string(data[1:n]), data[n:]
	}
	return len(data) == 0
}
