package credential_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// directory is accounts that can change.
type directory struct {
	atomic.Pointer[credential.Accounts]
}

func (d *directory) Account(id string) (*credential.Account, bool) { return d.Load().Account(id) }

func newDirectory(t testing.TB, list ...credential.Account) *directory {
	t.Helper()
	d := new(directory)
	d.Store(accounts(t, list...))
	return d
}

// families of face "pg", of the account acc-1 unless it is changed.
func families(t testing.TB, s interface {
	store.Tokens
	store.Records
}, at *clock, change func(*credential.FamiliesConfig)) *credential.Families {
	t.Helper()
	config := credential.FamiliesConfig{
		Face: "pg", Tokens: s, Digests: credential.Ring(ring{newKey("digest")}), Sessions: newSealer(t, "storage"),
		Records: s, Lives: []policy.MAC{newKey("family")}, Now: at.now,
	}
	if change != nil {
		change(&config)
	}
	if config.Accounts == nil {
		config.Accounts = newDirectory(t, account(t))
	}
	f, err := credential.NewFamilies(config)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func refresh(text string) policy.Credential { return policy.NewCredential(policy.KindRefresh, text) }

func begin(t testing.TB, f *credential.Families) (policy.Credential, credential.Session) {
	t.Helper()
	text, session, err := f.Begin(t.Context(), "acc-1", true, spki(0), 0)
	if err != nil {
		t.Fatal(err)
	}
	return refresh(text), session
}

// next redeems a token and mints the one after it.
func next(t testing.TB, f *credential.Families, c policy.Credential, attempt byte) policy.Credential {
	t.Helper()
	_, session, err := f.Redeem(t.Context(), c, store.Attempt{attempt})
	if err != nil {
		t.Fatal(err)
	}
	text, err := f.Rotate(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	return refresh(text)
}

// notRedeemed checks a refusal of a refresh token, beside which there is no
// session.
func notRedeemed(t testing.TB, f *credential.Families, c policy.Credential, attempt byte, reason string) {
	t.Helper()
	proof, session, err := f.Redeem(t.Context(), c, store.Attempt{attempt})
	refused(t, proof, err, policy.KindRefresh, reason, c.Value())
	if session != (credential.Session{}) {
		t.Fatal("a session beside a refusal")
	}
}

func TestRefreshTokensRotate(t *testing.T) {
	at := newClock()
	f := families(t, memory(t, at), at, nil)
	for _, weak := range []bool{true, false} {
		text, began, err := f.Begin(t.Context(), "acc-1", weak, spki(0), 7)
		if err != nil || !regexp.MustCompile(`^[A-Za-z0-9_-]{68}$`).MatchString(text) || began.Account() != "acc-1" {
			t.Fatalf("%q, %+v, %v", text, began, err)
		}
		proof, session, err := f.Redeem(t.Context(), refresh(text), store.Attempt{1})
		if err != nil || session != began || proof != (policy.Proof{
			Kind: policy.KindRefresh, Partner: "pg", Account: "acc-1", Environment: "test", Weak: weak, Minted: true, Generation: 7,
		}) {
			t.Fatalf("%+v, %+v, %v", proof, session, err)
		}
		// A retried command of the same exchange gets its own answer back.
		if again, session, err := f.Redeem(t.Context(), refresh(text), store.Attempt{1}); err != nil || again != proof || session != began {
			t.Errorf("the same attempt: %+v, %v", again, err)
		}
		rotated, err := f.Rotate(t.Context(), session)
		if err != nil || rotated == text {
			t.Fatalf("%q after %q, %v", rotated, text, err)
		}
		c := refresh(rotated)
		for range 10 {
			c = next(t, f, c, 1)
		}
	}
}

// TestSpentRefreshTokenEndsItsFamily, and no other.
func TestSpentRefreshTokenEndsItsFamily(t *testing.T) {
	at := newClock()
	f := families(t, memory(t, at), at, nil)
	stolen, _ := begin(t, f)
	others, _ := begin(t, f)
	latest := next(t, f, next(t, f, stolen, 1), 1)
	notRedeemed(t, f, stolen, 2, policy.RefusedSpent)
	notRedeemed(t, f, latest, 1, policy.RefusedLogin)
	next(t, f, others, 1)
}

// TestWhatEndsNoFamily: after each of them its token is redeemed.
func TestWhatEndsNoFamily(t *testing.T) {
	at, answer := newClock(), &answering{}
	answer.Memory = memory(t, at)
	f := families(t, answer, at, nil)
	good, _ := begin(t, f)
	raw, err := base64.RawURLEncoding.DecodeString(good.Value())
	if err != nil {
		t.Fatal(err)
	}
	for i := 3; i < len(raw); i++ { // family and secret: the family's own id, in a token that we did not mint
		changed := bytes.Clone(raw)
		changed[i] ^= 1
		notRedeemed(t, f, refresh(base64.RawURLEncoding.EncodeToString(changed)), 1, policy.RefusedUnknown)
		if err := f.Revoke(t.Context(), refresh(base64.RawURLEncoding.EncodeToString(changed))); err == nil {
			t.Fatal("an unknown token revokes")
		}
	}
	for reason, err := range map[string]error{
		policy.RefusedFenced: store.ErrFenced, policy.RefusedExpired: store.ErrExpired, policy.RefusedUnknown: store.ErrUnknown,
	} {
		answer.err = err
		notRedeemed(t, f, good, 1, reason)
	}
	answer.err = errDown
	proof, _, err := f.Redeem(t.Context(), good, store.Attempt{1})
	unavailable(t, proof, err)
	unavailable(t, policy.Proof{}, f.Revoke(t.Context(), good))
	answer.err = nil
	next(t, f, good, 1)
}

// answering is a store whose answer to Redeem can be set, and that of Delete.
type answering struct {
	*store.Memory
	err, deleting error
}

func (s *answering) Redeem(ctx context.Context, k store.Kind, d store.Digest, a store.Attempt) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.Memory.Redeem(ctx, k, d, a)
}

func (s *answering) Delete(ctx context.Context, k store.Kind, d store.Digest) error {
	if s.deleting != nil {
		return s.deleting
	}
	return s.Memory.Delete(ctx, k, d)
}

// TestFamilyThatCannotBeEndedIsEndedLater: it is not told that the token is
// spent before its family has ended.
func TestFamilyThatCannotBeEndedIsEndedLater(t *testing.T) {
	at, answer := newClock(), &answering{}
	answer.Memory = memory(t, at)
	f := families(t, answer, at, nil)
	stolen, _ := begin(t, f)
	latest := next(t, f, stolen, 1)
	answer.deleting = errDown
	proof, _, err := f.Redeem(t.Context(), stolen, store.Attempt{2})
	unavailable(t, proof, err)
	unavailable(t, policy.Proof{}, f.Revoke(t.Context(), stolen))
	answer.deleting = nil
	notRedeemed(t, f, stolen, 3, policy.RefusedSpent)
	notRedeemed(t, f, latest, 1, policy.RefusedLogin)
}

// TestAnyTokenOfAFamilyRevokesIt: live, spent, expired or fenced; and it is
// used up.
func TestAnyTokenOfAFamilyRevokesIt(t *testing.T) {
	for name, test := range map[string]struct {
		spend  bool
		answer error
		reason string // of the revoking token, afterwards
	}{
		"live":    {false, nil, policy.RefusedSpent},
		"spent":   {true, nil, policy.RefusedSpent},
		"expired": {false, store.ErrExpired, policy.RefusedExpired},
		"fenced":  {false, store.ErrFenced, policy.RefusedFenced},
	} {
		t.Run(name, func(t *testing.T) {
			at, answer := newClock(), &answering{}
			answer.Memory = memory(t, at)
			f := families(t, answer, at, nil)
			c, session := begin(t, f)
			text, err := f.Rotate(t.Context(), session)
			if err != nil {
				t.Fatal(err)
			}
			others, _ := begin(t, f)
			if test.spend {
				next(t, f, c, 1)
			}
			answer.err = test.answer
			if err := f.Revoke(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			notRedeemed(t, f, c, 2, test.reason)
			if err := f.Revoke(t.Context(), c); err != nil {
				t.Errorf("again: %v", err)
			}
			answer.err = nil
			notRedeemed(t, f, refresh(text), 1, policy.RefusedLogin)
			next(t, f, others, 1)
		})
	}
}

// TestFamilyEndsAtItsTime: however often it is refreshed.
func TestFamilyEndsAtItsTime(t *testing.T) {
	at := newClock()
	f := families(t, memory(t, at), at, nil)
	idle, _ := begin(t, f)
	c, _ := begin(t, f)
	for range 5 {
		at.advance(15 * 24 * time.Hour)
		c = next(t, f, c, 1)
	}
	notRedeemed(t, f, idle, 1, policy.RefusedUnknown) // 30 days, and long forgotten
	at.advance(15*24*time.Hour - time.Millisecond)
	c = next(t, f, c, 1)
	at.advance(time.Millisecond)
	notRedeemed(t, f, c, 1, policy.RefusedLogin)

	c, _ = begin(t, f)
	at.advance(30 * 24 * time.Hour)
	notRedeemed(t, f, c, 1, policy.RefusedExpired)
}

// TestRefreshTokensAreOfOneFace: at another one nothing is found, and nothing
// used up.
func TestRefreshTokensAreOfOneFace(t *testing.T) {
	at := newClock()
	m := memory(t, at)
	here := families(t, m, at, nil)
	c, session := begin(t, here)
	for _, face := range []string{"pgx", "p", "pq"} {
		there := families(t, m, at, func(c *credential.FamiliesConfig) { c.Face = face })
		notRedeemed(t, there, c, 1, policy.RefusedUnknown)
		if err := there.Revoke(t.Context(), c); err == nil {
			t.Error("revoked from another face")
		}
		// Not even a token that the other face mints for it.
		moved, err := there.Rotate(t.Context(), session)
		if err != nil {
			t.Fatal(err)
		}
		notRedeemed(t, there, refresh(moved), 1, policy.RefusedLogin)
	}
	next(t, here, c, 1)
}

// TestAccountIsLookedUpEachTime: what it is now counts, not what it was.
func TestAccountIsLookedUpEachTime(t *testing.T) {
	at := newClock()
	d := newDirectory(t, account(t))
	f := families(t, memory(t, at), at, func(c *credential.FamiliesConfig) { c.Accounts = d })
	for reason, change := range map[string]func(*credential.Account){
		policy.RefusedUnknown:     func(a *credential.Account) { a.ID = "acc-2" },
		policy.RefusedEnvironment: func(a *credential.Account) { a.Environment = "production" },
		policy.RefusedLogin:       func(a *credential.Account) { a.Login = credential.LoginSignature },
	} {
		d.Store(accounts(t, account(t)))
		c, _ := begin(t, f)
		strong, _, err := f.Begin(t.Context(), "acc-1", false, spki(0), 0)
		if err != nil {
			t.Fatal(err)
		}
		changed := account(t)
		change(&changed)
		d.Store(accounts(t, changed))
		notRedeemed(t, f, c, 1, reason)
		_, _, err = f.Redeem(t.Context(), refresh(strong), store.Attempt{1})
		if (err == nil) != (reason == policy.RefusedLogin) {
			t.Errorf("%s: a strong login: %v", reason, err)
		}
	}
	moved := account(t)
	moved.Partner = "other"
	d.Store(accounts(t, account(t)))
	c, _ := begin(t, f)
	d.Store(accounts(t, moved))
	if proof, _, err := f.Redeem(t.Context(), c, store.Attempt{1}); err != nil || proof.Partner != "other" {
		t.Errorf("%+v, %v; want the partner that the account has now", proof, err)
	}
	if text, session, err := f.Begin(t.Context(), "acc-3", false, spki(0), 0); err == nil || text != "" || session != (credential.Session{}) {
		t.Errorf("nobody logs in: %q, %+v, %v", text, session, err)
	}
}

// withKeys is the account acc-1 with some of the rsaKeys.
func withKeys(t testing.TB, keys ...int) credential.Account {
	t.Helper()
	a := account(t)
	a.Keys = nil
	for _, key := range keys {
		a.Keys = append(a.Keys, accountKey(t, &rsaKeys()[key].PublicKey))
	}
	return a
}

// login is what a client has of a login with one of the rsaKeys.
type login struct {
	refresh policy.Credential
	access  string
	session credential.Session
}

func logIn(t testing.TB, f *credential.Families, j *credential.JWTs, weak bool, key int) login {
	t.Helper()
	text, session, err := f.Begin(t.Context(), "acc-1", weak, spki(key), 0)
	if err != nil {
		t.Fatal(err)
	}
	return login{refresh(text), access(t, j, session), session}
}

// TestRemovedKeyEndsItsLogins: at once, whatever was minted of them, and nothing
// of the other key's.
func TestRemovedKeyEndsItsLogins(t *testing.T) {
	at := newClock()
	d := newDirectory(t, withKeys(t, 0, 1))
	f := families(t, memory(t, at), at, func(c *credential.FamiliesConfig) { c.Accounts = d })
	j := jwts(t, f, at, hs256("k"))
	for _, weak := range []bool{true, false} {
		d.Store(accounts(t, withKeys(t, 0, 1)))
		bad, good := logIn(t, f, j, weak, 0), logIn(t, f, j, weak, 1)
		bad.refresh, good.refresh = next(t, f, bad.refresh, 1), next(t, f, good.refresh, 1)
		for _, l := range []login{bad, good} {
			proof, err := j.Prove(t.Context(), jwt(l.access))
			if err != nil || proof.Key != [32]byte{} {
				t.Fatalf("%+v, %v", proof, err)
			}
		}

		// Another account that still has the key counts for nothing.
		other := withKeys(t, 0)
		other.ID = "acc-2"
		d.Store(accounts(t, withKeys(t, 1), other))
		notProven(t, j, bad.access, policy.RefusedLogin)
		notProven(t, j, access(t, j, bad.session), policy.RefusedLogin)
		notRedeemed(t, f, bad.refresh, 1, policy.RefusedLogin)
		rotated, err := f.Rotate(t.Context(), bad.session)
		if err != nil {
			t.Fatal(err)
		}
		notRedeemed(t, f, refresh(rotated), 1, policy.RefusedLogin)
		if _, err := j.Prove(t.Context(), jwt(good.access)); err != nil {
			t.Errorf("the other key's login: %v", err)
		}
		next(t, f, next(t, f, good.refresh, 1), 1)
	}
}

// TestLoginsLastWhileKeysRotate: each as long as its own key is there, wherever
// in the list it stands.
func TestLoginsLastWhileKeysRotate(t *testing.T) {
	at := newClock()
	d := newDirectory(t, withKeys(t, 0))
	f := families(t, memory(t, at), at, func(c *credential.FamiliesConfig) { c.Accounts = d })
	j := jwts(t, f, at, hs256("k"))
	old := logIn(t, f, j, false, 0)
	var now login
	for i, keys := range [][]int{{0, 1}, {1, 0}, {2, 1, 0}, {1}, {1, 2}} {
		d.Store(accounts(t, withKeys(t, keys...)))
		if i == 0 {
			now = logIn(t, f, j, false, 1)
		}
		_, err := j.Prove(t.Context(), jwt(old.access))
		if kept := slices.Contains(keys, 0); (err == nil) != kept {
			t.Errorf("keys %d: %v", keys, err)
		} else if kept {
			old.refresh = next(t, f, old.refresh, 1)
		}
		if _, err := j.Prove(t.Context(), jwt(now.access)); err != nil {
			t.Errorf("keys %d: the new one's login: %v", keys, err)
		}
		now.refresh = next(t, f, now.refresh, 1)
	}
	notRedeemed(t, f, old.refresh, 1, policy.RefusedLogin)
	// What a removed key has begun can still be revoked, and then the key brings nothing back.
	if err := f.Revoke(t.Context(), old.refresh); err != nil {
		t.Fatal(err)
	}
	d.Store(accounts(t, withKeys(t, 0, 1)))
	notProven(t, j, old.access, policy.RefusedLogin)
}

// TestTokenCannotBeSaidToBeOfAnotherKey: whoever has the tokens of a removed key
// and knows the public key that is left can compute what a login of that one
// would be named, and it is of no use.
func TestTokenCannotBeSaidToBeOfAnotherKey(t *testing.T) {
	at := newClock()
	d := newDirectory(t, withKeys(t, 0, 1))
	f := families(t, memory(t, at), at, func(c *credential.FamiliesConfig) { c.Accounts = d })
	key := hs256("k")
	j := jwts(t, f, at, key)
	l := logIn(t, f, j, true, 0)
	raw, err := base64.RawURLEncoding.DecodeString(l.refresh.Value())
	if err != nil {
		t.Fatal(err)
	}
	boundTo := func(key int) []byte { // the family of those 16 random bytes, had it begun with that key
		fingerprint := spki(key)
		digest := sha256.Sum256(slices.Concat([]byte("cardstile family key v1"), raw[3:19], fingerprint[:]))
		return slices.Concat(raw[3:19], digest[:12])
	}
	if !bytes.Equal(raw[3:31], boundTo(0)) {
		t.Fatalf("the family is %x, want %x", raw[3:31], boundTo(0))
	}
	for _, keys := range [][]int{{0, 1}, {1}} {
		d.Store(accounts(t, withKeys(t, keys...)))
		moved := slices.Concat(raw[:3], boundTo(1), raw[31:])
		notRedeemed(t, f, refresh(base64.RawURLEncoding.EncodeToString(moved)), 1, policy.RefusedUnknown)
		header, payload := part(t, l.access, 0), part(t, l.access, 1)
		sid, other := base64.RawURLEncoding.EncodeToString(raw[3:31]), base64.RawURLEncoding.EncodeToString(boundTo(1))
		payload = strings.Replace(payload, sid, other, 1)
		if !strings.Contains(payload, other) {
			t.Fatalf("no sid %s in %s", sid, payload)
		}
		imposter := key
		imposter.secret = []byte("a guess")
		notProven(t, j, forge(t, imposter, header, payload), policy.RefusedSignature)
		notProven(t, j, forge(t, key, header, payload), policy.RefusedLogin) // not even if we had signed it: no such login is live
	}
}

// TestLoginsOfOneKeyHaveNothingInCommon: no token says more of its key than
// whether it is the one that somebody knows already.
func TestLoginsOfOneKeyHaveNothingInCommon(t *testing.T) {
	at := newClock()
	f := families(t, newTampered(), at, nil)
	fingerprint := spki(0)
	seen := map[string]bool{}
	for range 64 {
		c, _ := begin(t, f)
		raw, err := base64.RawURLEncoding.DecodeString(c.Value())
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(raw) - 5 {
			if bytes.Contains(fingerprint[:], raw[i:i+6]) {
				t.Fatal("a token has a part of the fingerprint")
			}
		}
		if seen[string(raw[3:19])] || seen[string(raw[19:31])] {
			t.Fatal("two logins have a part of their names in common")
		}
		seen[string(raw[3:19])], seen[string(raw[19:31])] = true, true
	}
}

// TestNobodyLogsInWithoutAKey of the account, and nothing is stored then.
func TestNobodyLogsInWithoutAKey(t *testing.T) {
	at, s := newClock(), newTampered()
	other := withKeys(t, 2)
	other.ID = "acc-2"
	d := newDirectory(t, withKeys(t, 0), other)
	f := families(t, s, at, func(c *credential.FamiliesConfig) { c.Accounts = d })
	near := spki(0)
	near[31] ^= 1
	for name, key := range map[string][32]byte{"none": {}, "another's": spki(2), "an unknown one": spki(1), "nearly": near} {
		text, session, err := f.Begin(t.Context(), "acc-1", false, key, 0)
		if err == nil || text != "" || session != (credential.Session{}) {
			t.Errorf("%s: %q, %+v, %v", name, text, session, err)
		}
	}
	if len(s.values) != 0 {
		t.Errorf("%d values are stored", len(s.values))
	}
}

func TestRefreshKeysRotate(t *testing.T) {
	at := newClock()
	m := memory(t, at)
	with := func(keys ...*hmacKey) *credential.Families {
		return families(t, m, at, func(c *credential.FamiliesConfig) {
			c.Digests, c.Lives = credential.Ring(ring(keys)), nil
			for _, k := range keys {
				c.Lives = append(c.Lives, k)
			}
		})
	}
	old, now := newKey("2025"), newKey("2026")
	c, _ := begin(t, with(old))
	notRedeemed(t, with(now), c, 1, policy.RefusedUnknown)
	c = next(t, with(now, old), c, 1)
	c = next(t, with(now, old), c, 1)
	notRedeemed(t, with(now), c, 1, policy.RefusedLogin) // its family began under the old one

	c, _ = begin(t, with(old))
	if err := with(now, old).Revoke(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	notRedeemed(t, with(old), c, 2, policy.RefusedSpent)
}

func TestFamiliesWithoutStore(t *testing.T) {
	s, at := newTampered(), newClock()
	f := families(t, s, at, nil)
	c, session := begin(t, f)
	if text, err := f.Rotate(t.Context(), credential.Session{}); err == nil || text != "" {
		t.Errorf("a token of no session: %q, %v", text, err)
	}
	s.err = errDown
	text, began, err := f.Begin(t.Context(), "acc-1", false, spki(0), 0)
	unavailable(t, policy.Proof{}, err)
	if text != "" || began != (credential.Session{}) {
		t.Errorf("beside a failure: %q, %+v", text, began)
	}
	text, err = f.Rotate(t.Context(), session)
	unavailable(t, policy.Proof{}, err)
	if text != "" {
		t.Errorf("a token beside a failure: %q", text)
	}
	proof, _, err := f.Redeem(t.Context(), c, store.Attempt{1})
	unavailable(t, proof, err)
}

// TestSealedSessionCannotBeChanged flips every bit of what is stored, cuts it
// short, and moves it to another token.
func TestSealedSessionCannotBeChanged(t *testing.T) {
	s, at := newTampered(), newClock()
	var records = newTampered()
	f := families(t, s, at, func(c *credential.FamiliesConfig) { c.Records = records })
	c, _ := begin(t, f)
	digest, sealed := s.only(t)
	raw, err := base64.RawURLEncoding.DecodeString(c.Value())
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]byte{[]byte("acc-1"), raw[3:31], raw[31:]} {
		if bytes.Contains(digest[:], part) || bytes.Contains(sealed, part) {
			t.Fatal("the store has it in clear")
		}
	}
	check := func(value []byte) {
		t.Helper()
		s.values[digest] = value
		notRedeemed(t, f, c, 1, policy.RefusedUnknown)
	}
	for bit := range 8 * len(sealed) {
		changed := bytes.Clone(sealed)
		changed[bit/8] ^= 1 << (bit % 8)
		check(changed)
	}
	for n := range len(sealed) {
		check(sealed[:n])
	}
	for _, plain := range []string{
		"", "\x01", "\x01\x00", "\x02\x00\x05acc-1\x04test", "\x01\x02\x05acc-1\x04test", "\x01\x00\x05acc-1", "\x01\x00\x05acc-1\x05test",
		"\x01\x00\x05acc-1\x04test\x00", "\x01\x00\xffacc-1\x04test",
	} {
		rubbish, err := newSealer(t, "storage").Seal(nil, append([]byte("cardstile refresh session v1"), digest[:]...), []byte(plain))
		if err != nil {
			t.Fatal(err)
		}
		check(rubbish)
	}
	s.values[digest] = sealed
	next(t, f, c, 1)
	clear(s.values)
	c, _ = begin(t, f)
	digest, _ = s.only(t)
	check(sealed)
}

// TestFamilyRecordCannotBeWritten: whoever writes to the store can end a
// family, but neither begin, extend nor move one.
func TestFamilyRecordCannotBeWritten(t *testing.T) {
	records, at := newTampered(), newClock()
	f := families(t, newTampered(), at, func(c *credential.FamiliesConfig) { c.Records = records })
	c, _ := begin(t, f)
	digest, record := records.only(t)
	for bit := range 8 * len(record) {
		changed := bytes.Clone(record)
		changed[bit/8] ^= 1 << (bit % 8)
		records.values[digest] = changed
		notRedeemed(t, f, c, 1, policy.RefusedLogin)
	}
	records.values[digest] = record
	next(t, f, c, 1)
	clear(records.values)
	notRedeemed(t, f, c, 1, policy.RefusedLogin)
	begin(t, f)
	_, others := records.only(t)
	records.values[digest] = others
	notRedeemed(t, f, c, 1, policy.RefusedLogin)
}

// TestMalformedRefreshTokens: none of them reaches the store.
func TestMalformedRefreshTokens(t *testing.T) {
	s, at := newTampered(), newClock()
	f := families(t, s, at, nil)
	c, _ := begin(t, f)
	good := c.Value()
	s.asked = 0
	for name, text := range map[string]string{
		"nothing": "", "one short": good[:67], "one long": good + "A", "padded": good[:67] + "=", "space": " " + good[:67],
		"newline inside": good[:20] + "\n" + good[20:67], "crlf": good[:66] + "\r\n", "standard alphabet": "+/" + good[2:], "NUL": good[:67] + "\x00",
	} {
		notRedeemed(t, f, refresh(text), 1, policy.RefusedMalformed)
		refused(t, policy.Proof{}, f.Revoke(t.Context(), refresh(text)), policy.KindRefresh, policy.RefusedMalformed, text)
		if s.asked != 0 {
			t.Fatalf("%s: the store was asked", name)
		}
	}
	notRedeemed(t, f, policy.NewCredential(policy.KindToken, good), 1, policy.RefusedMalformed)
	notRedeemed(t, f, policy.Credential{Kind: policy.KindRefresh}, 1, policy.RefusedMalformed)
	next(t, f, c, 1)
}

func TestFamiliesConfig(t *testing.T) {
	s := newTampered()
	full := credential.FamiliesConfig{
		Face: "pg", Tokens: s, Digests: credential.Ring(ring{newKey("d")}), Sessions: newSealer(t, "k"),
		Records: s, Lives: []policy.MAC{newKey("f")}, Accounts: accounts(t),
	}
	if _, err := credential.NewFamilies(full); err != nil {
		t.Fatal(err)
	}
	for name, drop := range map[string]func(*credential.FamiliesConfig){
		"face": func(c *credential.FamiliesConfig) { c.Face = "" }, "tokens": func(c *credential.FamiliesConfig) { c.Tokens = nil },
		"digests": func(c *credential.FamiliesConfig) { c.Digests = nil }, "sessions": func(c *credential.FamiliesConfig) { c.Sessions = nil },
		"records": func(c *credential.FamiliesConfig) { c.Records = nil }, "lives": func(c *credential.FamiliesConfig) { c.Lives = nil },
		"accounts": func(c *credential.FamiliesConfig) { c.Accounts = nil },
	} {
		config := full
		drop(&config)
		if f, err := credential.NewFamilies(config); err == nil || f != nil {
			t.Errorf("without %s: %v, %v", name, f, err)
		}
	}
}

// TestRacingRefreshes: of those that redeem one token at one time one wins, and
// since the others were too late the family is over for the winner too.
func TestRacingRefreshes(t *testing.T) {
	forEachStore(t, func(t *testing.T, f *credential.Families) {
		c, _ := begin(t, f)
		var won, spent atomic.Int64
		var session credential.Session
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				_, s, err := f.Redeem(t.Context(), c, store.Attempt{1, byte(i)})
				r, _ := errors.AsType[*policy.Refused](err)
				switch {
				case err == nil:
					won.Add(1)
					session = s // one wins
				case r != nil && r.Reason == policy.RefusedSpent:
					spent.Add(1)
				case r != nil && r.Reason == policy.RefusedLogin: // the winner, who was overtaken
					won.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 || spent.Load() != 39 {
			t.Fatalf("%d won, %d were told it is spent", won.Load(), spent.Load())
		}
		if session != (credential.Session{}) {
			text, err := f.Rotate(t.Context(), session)
			if err != nil {
				t.Fatal(err)
			}
			notRedeemed(t, f, refresh(text), 1, policy.RefusedLogin)
		}
	})
}

// TestRefreshAgainstRevoke: whichever comes first, nothing of the family is
// good when both are done.
func TestRefreshAgainstRevoke(t *testing.T) {
	forEachStore(t, func(t *testing.T, f *credential.Families) {
		for range 50 {
			c, session := begin(t, f)
			text, err := f.Rotate(t.Context(), session)
			if err != nil {
				t.Fatal(err)
			}
			var latest policy.Credential
			var both sync.WaitGroup
			both.Go(func() {
				c := c
				for i := range 20 {
					_, s, err := f.Redeem(t.Context(), c, store.Attempt{1, byte(i)})
					if err != nil {
						return
					}
					text, err := f.Rotate(t.Context(), s)
					if err != nil {
						t.Error(err)
					}
					c = refresh(text)
					latest = c
				}
			})
			both.Go(func() {
				if err := f.Revoke(t.Context(), refresh(text)); err != nil {
					t.Error(err)
				}
			})
			both.Wait()
			if latest != (policy.Credential{}) {
				if _, _, err := f.Redeem(t.Context(), latest, store.Attempt{2}); err == nil {
					t.Fatal("a token was good after its family was revoked")
				}
			}
		}
	})
}

// forEachStore runs a test on Memory and on Redis.
func forEachStore(t *testing.T, test func(*testing.T, *credential.Families)) {
	t.Run("memory", func(t *testing.T) {
		at := newClock()
		test(t, families(t, memory(t, at), at, nil))
	})
	t.Run("redis", func(t *testing.T) {
		s := redis(t)
		test(t, families(t, s, newClock(), nil))
	})
}

// redis is the store that instances share.
func redis(t *testing.T) *store.Redis {
	t.Helper()
	s, err := store.NewRedis(store.RedisConfig{Addresses: []string{testredis.Start(t).Addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestRefreshTokensDiffer: in every position but the tag's more than one
// character occurs.
func TestRefreshTokensDiffer(t *testing.T) {
	at := newClock()
	f := families(t, newTampered(), at, nil)
	var seen [68]map[byte]bool
	for range 64 {
		c, _ := begin(t, f)
		for i := range seen {
			if seen[i] == nil {
				seen[i] = map[byte]bool{}
			}
			seen[i][c.Value()[i]] = true
		}
	}
	for i, characters := range seen {
		if constant := len(characters) == 1; constant != (i < 4) {
			t.Errorf("position %d has %d characters", i, len(characters))
		}
	}
}

// TestAnyOtherRefreshTokenIsRefused changes one character of a good token, and
// ends nothing by that.
func TestAnyOtherRefreshTokenIsRefused(t *testing.T) {
	at := newClock()
	f := families(t, memory(t, at), at, nil)
	c, _ := begin(t, f)
	good := c.Value()
	rapid.Check(t, func(rt *rapid.T) {
		changed := []byte(good)
		changed[rapid.IntRange(0, 67).Draw(rt, "position")] = rapid.Byte().Draw(rt, "character")
		if string(changed) == good {
			return
		}
		_, _, err := f.Redeem(t.Context(), refresh(string(changed)), store.Attempt{1})
		if r, ok := errors.AsType[*policy.Refused](err); !ok || r.Reason != policy.RefusedMalformed && r.Reason != policy.RefusedUnknown {
			rt.Fatalf("%q beside %q: %v", changed, good, err)
		}
	})
	next(t, f, c, 1)
}

// FuzzRefresh: what is taken for a refresh token is exactly the text of its
// bytes, and nothing that was not minted is redeemed or ends anything.
func FuzzRefresh(f *testing.F) {
	s, at := newTampered(), newClock()
	c := families(f, s, at, nil)
	good, _ := begin(f, c)
	f.Add(good.Value())
	clear(s.values)
	f.Add(strings.Repeat("A", 68))
	f.Add(strings.Repeat("A", 66) + "\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		proof, _, err := c.Redeem(t.Context(), refresh(text), store.Attempt{1})
		r, ok := errors.AsType[*policy.Refused](err)
		if !ok || proof != (policy.Proof{}) {
			t.Fatalf("%q: %+v, %v", text, proof, err)
		}
		raw, err := base64.RawURLEncoding.DecodeString(text)
		canonical := err == nil && len(raw) == 51 && base64.RawURLEncoding.EncodeToString(raw) == text
		if canonical != (r.Reason == policy.RefusedUnknown) {
			t.Fatalf("%q is canonical: %t; refused as %q", text, canonical, r.Reason)
		}
	})
}
