package credential_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"
	"regexp"
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

var (
	firstTry  = store.Attempt{1}
	secondTry = store.Attempt{2}
)

// challengesWith returns a minter with the keys, the primary first.
func challengesWith(t testing.TB, s store.Store, at *clock, keys ...*hmacKey) *credential.Challenges {
	t.Helper()
	config := credential.ChallengesConfig{
		Tokens: s, Records: s, Digests: credential.Ring(ring(keys)), Seals: newSealer(t, "storage"), Now: at.now,
	}
	for _, key := range keys {
		config.Uses = append(config.Uses, key)
	}
	c, err := credential.NewChallenges(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func challenges(t testing.TB, s store.Store, at *clock) *credential.Challenges {
	t.Helper()
	return challengesWith(t, s, at, newKey("digest"))
}

// statement is a challenge that has nothing in it to be found by.
func statement() credential.Challenge {
	return credential.Challenge{
		ChallengeUse: credential.ChallengeUse{
			Purpose: credential.PurposeLink, Method: policy.MethodWebAuthn, Face: "exa", Environment: "test", Partner: "p", User: "ada", Card: "card-1",
		},
		Account: "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
		Message: "I authorize the account 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed to be linked with the card ending in 1234 for my user (ada)",
	}
}

// signed is a challenge whose message has the nonce.
func signed(t testing.TB, w wallet, nonce string, at *clock) credential.Challenge {
	t.Helper()
	c := statement()
	c.Method, c.User, c.Message = policy.MethodSIWE, w.address().String(), w.message(t, nonce, at.now())
	return c
}

// notTaken checks a refusal, and that no challenge comes with it.
func notTaken(t testing.TB, c *credential.Challenge, err error, reason string, presented ...string) {
	t.Helper()
	refused(t, policy.Proof{}, err, policy.KindChallenge, reason, presented...)
	if c != nil {
		t.Fatalf("a challenge beside a refusal: %+v", c)
	}
}

func TestChallengeKinds(t *testing.T) {
	for kind, want := range map[policy.Kind]credential.Traits{
		policy.KindChallenge: {SingleUse: true}, policy.KindWallet: {User: true}, policy.KindPasskey: {User: true},
	} {
		if got, ok := credential.Of(kind); !ok || got != want {
			t.Errorf("%s: %+v, %t", kind, got, ok)
		}
	}
}

func TestChallengeIsTakenOnceByID(t *testing.T) {
	at := newClock()
	c := challenges(t, memory(t, at), at)
	want := statement()
	text, expires, err := c.Mint(t.Context(), want, 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{47}$`).MatchString(text) || !expires.Equal(at.now().Add(5*time.Minute)) {
		t.Fatalf("%q until %s", text, expires)
	}
	id := policy.NewCredential(policy.KindChallenge, text)
	for range 2 { // the same exchange may ask again
		if got, err := c.Take(t.Context(), id, want.ChallengeUse, firstTry); err != nil || *got != want {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	got, err := c.Take(t.Context(), id, want.ChallengeUse, secondTry)
	notTaken(t, got, err, policy.RefusedSpent, text)
}

func TestChallengeIsTakenOnceByNonce(t *testing.T) {
	at, w := newClock(), newWallet(t)
	c := challenges(t, memory(t, at), at)
	nonce := c.Nonce()
	if !regexp.MustCompile(`^[A-Za-z0-9]{32}$`).MatchString(nonce) || nonce == c.Nonce() {
		t.Fatalf("nonce %q", nonce)
	}
	want := signed(t, w, nonce, at)
	expires, err := c.MintMessage(t.Context(), want, time.Minute)
	if err != nil || !expires.Equal(at.now().Add(time.Minute)) {
		t.Fatalf("%s, %v", expires, err)
	}
	if _, err := c.MintMessage(t.Context(), want, time.Minute); !errors.Is(err, store.ErrExists) {
		t.Errorf("the same nonce again: %v", err)
	}
	if got, err := c.TakeMessage(t.Context(), want.Message, want.ChallengeUse, firstTry); err != nil || *got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	got, err := c.TakeMessage(t.Context(), want.Message, want.ChallengeUse, secondTry)
	notTaken(t, got, err, policy.RefusedSpent, want.Message)
}

// TestChangedMessageSpendsItsChallenge: what was signed is what was issued.
func TestChangedMessageSpendsItsChallenge(t *testing.T) {
	at, w := newClock(), newWallet(t)
	c := challenges(t, memory(t, at), at)
	want := signed(t, w, c.Nonce(), at)
	if _, err := c.MintMessage(t.Context(), want, time.Minute); err != nil {
		t.Fatal(err)
	}
	got, err := c.TakeMessage(t.Context(), strings.Replace(want.Message, "Sign in", "Sign up", 1), want.ChallengeUse, firstTry)
	notTaken(t, got, err, policy.RefusedBound)
	got, err = c.TakeMessage(t.Context(), want.Message, want.ChallengeUse, secondTry)
	notTaken(t, got, err, policy.RefusedSpent)
}

func TestMessagesWithoutNonceOfOurs(t *testing.T) {
	at, w := newClock(), newWallet(t)
	s := newTampered()
	c := challenges(t, s, at)
	ours := c.Nonce()
	for nonce, reason := range map[string]string{
		"12345678":                           policy.RefusedMalformed,
		ours[:31]:                            policy.RefusedMalformed,
		ours + "A":                           policy.RefusedMalformed,
		"zz" + ours[2:]:                      policy.RefusedMalformed,
		"ABCDEF" + ours[6:]:                  policy.RefusedMalformed,
		"000000" + ours[6:]:                  policy.RefusedUnknown,
		strings.Repeat("a", len(ours)):       policy.RefusedUnknown,
		ours[:6] + strings.ToLower(ours[6:]): policy.RefusedUnknown,
	} {
		challenge := signed(t, w, nonce, at)
		got, err := c.TakeMessage(t.Context(), challenge.Message, challenge.ChallengeUse, firstTry)
		notTaken(t, got, err, reason, nonce)
		if nonce[:6] == ours[:6] && len(nonce) == 32 {
			continue
		}
		if _, err := c.MintMessage(t.Context(), challenge, time.Minute); err == nil || len(s.values) > 0 {
			t.Errorf("nonce %q was minted: %v", nonce, err)
		}
	}
	got, err := c.TakeMessage(t.Context(), "hello", statement().ChallengeUse, firstTry)
	notTaken(t, got, err, policy.RefusedMalformed)
}

func TestChallengeIsTakenOnceByUse(t *testing.T) {
	at := newClock()
	c := challenges(t, memory(t, at), at)
	want := statement()
	got, err := c.TakeFor(t.Context(), want.ChallengeUse, firstTry)
	notTaken(t, got, err, policy.RefusedUnknown)

	expires, err := c.MintFor(t.Context(), want, time.Minute)
	if err != nil || !expires.Equal(at.now().Add(time.Minute)) {
		t.Fatalf("%s, %v", expires, err)
	}
	if got, err := c.TakeFor(t.Context(), want.ChallengeUse, firstTry); err != nil || *got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	got, err = c.TakeFor(t.Context(), want.ChallengeUse, secondTry)
	notTaken(t, got, err, policy.RefusedSpent)

	// Asked for again, there is another one.
	if _, err := c.MintFor(t.Context(), want, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := c.TakeFor(t.Context(), want.ChallengeUse, secondTry); err != nil {
		t.Fatal(err)
	}
}

// TestLaterChallengeVoidsTheEarlier: of two that were asked for, one is taken,
// and it is the later one.
func TestLaterChallengeVoidsTheEarlier(t *testing.T) {
	at := newClock()
	c := challenges(t, memory(t, at), at)
	earlier, later := statement(), statement()
	earlier.Message += "."
	for _, challenge := range []credential.Challenge{earlier, later} {
		if _, err := c.MintFor(t.Context(), challenge, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := c.TakeFor(t.Context(), later.ChallengeUse, firstTry); err != nil || *got != later {
		t.Fatalf("%+v, %v", got, err)
	}
	got, err := c.TakeFor(t.Context(), later.ChallengeUse, secondTry)
	notTaken(t, got, err, policy.RefusedSpent)
}

// uses are the use of a statement, with one thing changed each.
func uses() map[string]credential.ChallengeUse {
	all := map[string]credential.ChallengeUse{}
	for name, change := range map[string]func(*credential.ChallengeUse){
		"purpose":     func(u *credential.ChallengeUse) { u.Purpose = credential.PurposeLogin },
		"method":      func(u *credential.ChallengeUse) { u.Method = policy.MethodSIWE },
		"face":        func(u *credential.ChallengeUse) { u.Face = "gnosispay" },
		"environment": func(u *credential.ChallengeUse) { u.Environment = "production" },
		"partner":     func(u *credential.ChallengeUse) { u.Partner = "q" },
		"no partner":  func(u *credential.ChallengeUse) { u.Partner = "" },
		"user":        func(u *credential.ChallengeUse) { u.User = "bob" },
		"card":        func(u *credential.ChallengeUse) { u.Card = "card-2" },
		"no card":     func(u *credential.ChallengeUse) { u.Card = "" },
		"moved":       func(u *credential.ChallengeUse) { u.Partner, u.User = "pa", "da" },
		"nothing":     func(u *credential.ChallengeUse) { *u = credential.ChallengeUse{} },
	} {
		use := statement().ChallengeUse
		change(&use)
		all[name] = use
	}
	return all
}

// TestChallengeIsBound: one that is for something else is not given out, and is
// spent where the caller had it.
func TestChallengeIsBound(t *testing.T) {
	at := newClock()
	c := challenges(t, memory(t, at), at)
	for name, use := range uses() {
		t.Run(name, func(t *testing.T) {
			text, _, err := c.Mint(t.Context(), statement(), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			id := policy.NewCredential(policy.KindChallenge, text)
			got, err := c.Take(t.Context(), id, use, firstTry)
			notTaken(t, got, err, policy.RefusedBound, text)
			got, err = c.Take(t.Context(), id, statement().ChallengeUse, secondTry)
			notTaken(t, got, err, policy.RefusedSpent, text)

			got, err = c.TakeFor(t.Context(), use, firstTry)
			notTaken(t, got, err, policy.RefusedUnknown)
		})
	}
	if _, err := c.MintFor(t.Context(), statement(), time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, use := range uses() {
		got, err := c.TakeFor(t.Context(), use, firstTry)
		notTaken(t, got, err, policy.RefusedUnknown)
	}
	long := statement().ChallengeUse
	long.Card += strings.Repeat("x", 1<<16)
	got, err := c.TakeFor(t.Context(), long, firstTry)
	notTaken(t, got, err, policy.RefusedMalformed)
	if _, err := c.TakeFor(t.Context(), statement().ChallengeUse, firstTry); err != nil {
		t.Errorf("the good one, after all of them: %v", err)
	}
}

// TestNonceIsOfOnePurpose: a message for one purpose is unknown for another, and
// stays good.
func TestNonceIsOfOnePurpose(t *testing.T) {
	at, w := newClock(), newWallet(t)
	c := challenges(t, memory(t, at), at)
	challenge := signed(t, w, c.Nonce(), at)
	if _, err := c.MintMessage(t.Context(), challenge, time.Minute); err != nil {
		t.Fatal(err)
	}
	login := challenge.ChallengeUse
	login.Purpose = credential.PurposeLogin
	got, err := c.TakeMessage(t.Context(), challenge.Message, login, firstTry)
	notTaken(t, got, err, policy.RefusedUnknown)
	if _, err := c.TakeMessage(t.Context(), challenge.Message, challenge.ChallengeUse, firstTry); err != nil {
		t.Error(err)
	}
}

// TestChallengeForWhoeverSigns: a login need not name its user, neither where it
// is minted nor where it is taken.
func TestChallengeForWhoeverSigns(t *testing.T) {
	at := newClock()
	c := challenges(t, memory(t, at), at)
	for _, test := range []struct{ minted, taken string }{{"", "ada"}, {"ada", ""}, {"", ""}} {
		challenge := credential.Challenge{ChallengeUse: credential.ChallengeUse{
			Purpose: credential.PurposeLogin, Method: policy.MethodWebAuthn, Face: "exa", Environment: "test", User: test.minted,
		}, Message: credential.NewPasskeyChallenge()}
		text, _, err := c.Mint(t.Context(), challenge, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		use := challenge.ChallengeUse
		use.User = test.taken
		if got, err := c.Take(t.Context(), policy.NewCredential(policy.KindChallenge, text), use, firstTry); err != nil || *got != challenge {
			t.Errorf("%+v, %v", got, err)
		}
		if test.minted == "" {
			if _, err := c.MintFor(t.Context(), challenge, time.Minute); err == nil {
				t.Error("one that is found by what it is for has no user")
			}
		}
	}
}

// TestIncompleteChallenges: none of them is kept.
func TestIncompleteChallenges(t *testing.T) {
	at, w := newClock(), newWallet(t)
	s := newTampered()
	c := challenges(t, s, at)
	for name, change := range map[string]func(*credential.Challenge){
		"nothing":           func(c *credential.Challenge) { *c = credential.Challenge{} },
		"no purpose":        func(c *credential.Challenge) { c.Purpose = "" },
		"another purpose":   func(c *credential.Challenge) { c.Purpose = "pay" },
		"no method":         func(c *credential.Challenge) { c.Method = "" },
		"another method":    func(c *credential.Challenge) { c.Method = "pgp" },
		"no face":           func(c *credential.Challenge) { c.Face = "" },
		"no environment":    func(c *credential.Challenge) { c.Environment = "" },
		"other environment": func(c *credential.Challenge) { c.Environment = "prod" },
		"link, no user":     func(c *credential.Challenge) { c.User = "" },
		"link, no card":     func(c *credential.Challenge) { c.Card = "" },
		"no message":        func(c *credential.Challenge) { c.Message = "" },
		"long message":      func(c *credential.Challenge) { c.Message = strings.Repeat("a", 8<<10+1) },
		"long user":         func(c *credential.Challenge) { c.User = strings.Repeat("a", 1<<10+1) },
		"user, not UTF-8":   func(c *credential.Challenge) { c.User = "\xff" },
		"account":           func(c *credential.Challenge) { c.Account = "DE89 3704 0044 0532 0130 00" },
		"no SIWE":           func(c *credential.Challenge) { c.Method, c.User = policy.MethodSIWE, w.address().String() },
		"SIWE of another": func(c *credential.Challenge) {
			*c = signed(t, w, "12345678", at)
			c.User = newWallet(t).address().String()
		},
		"SIWE of no wallet": func(c *credential.Challenge) { *c = signed(t, w, "12345678", at); c.User = "ada" },
	} {
		challenge := statement()
		change(&challenge)
		text, expires, err := c.Mint(t.Context(), challenge, time.Minute)
		if err == nil || text != "" || !expires.IsZero() {
			t.Errorf("%s: %q until %s, %v", name, text, expires, err)
		}
		if expires, err := c.MintFor(t.Context(), challenge, time.Minute); err == nil || !expires.IsZero() {
			t.Errorf("%s, by use: %v", name, err)
		}
		if len(s.values) > 0 {
			t.Fatalf("%s is stored", name)
		}
	}
}

func TestChallengeExpires(t *testing.T) {
	at, w := newClock(), newWallet(t)
	c := challenges(t, memory(t, at), at)
	byNonce, byUse := signed(t, w, c.Nonce(), at), statement()
	text, _, err := c.Mint(t.Context(), byUse, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.MintMessage(t.Context(), byNonce, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := c.MintFor(t.Context(), byUse, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		wait   time.Duration
		reason string
	}{{time.Minute, policy.RefusedExpired}, {store.ExpiredFor + time.Second, policy.RefusedUnknown}} {
		at.advance(step.wait)
		got, err := c.Take(t.Context(), policy.NewCredential(policy.KindChallenge, text), byUse.ChallengeUse, firstTry)
		notTaken(t, got, err, step.reason)
		got, err = c.TakeMessage(t.Context(), byNonce.Message, byNonce.ChallengeUse, firstTry)
		notTaken(t, got, err, step.reason)
		got, err = c.TakeFor(t.Context(), byUse.ChallengeUse, firstTry)
		notTaken(t, got, err, step.reason)
	}
}

func TestStoreAnswersBecomeRefusalsOfChallenges(t *testing.T) {
	at, w := newClock(), newWallet(t)
	for reason, answer := range map[string]error{
		policy.RefusedUnknown: store.ErrUnknown, policy.RefusedSpent: store.ErrSpent,
		policy.RefusedExpired: store.ErrExpired, policy.RefusedFenced: store.ErrFenced,
	} {
		s := newTampered()
		c := challenges(t, s, at)
		challenge := signed(t, w, c.Nonce(), at)
		text, _, err := c.Mint(t.Context(), challenge, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		s.err = answer
		got, err := c.Take(t.Context(), policy.NewCredential(policy.KindChallenge, text), challenge.ChallengeUse, firstTry)
		notTaken(t, got, err, reason)
		got, err = c.TakeMessage(t.Context(), challenge.Message, challenge.ChallengeUse, firstTry)
		notTaken(t, got, err, reason)
	}
}

func TestChallengesWithoutStore(t *testing.T) {
	at, w := newClock(), newWallet(t)
	s := newTampered()
	c := challenges(t, s, at)
	challenge := signed(t, w, c.Nonce(), at)
	text, _, err := c.Mint(t.Context(), challenge, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	s.err = errDown
	for name, call := range map[string]func() (*credential.Challenge, error){
		"take": func() (*credential.Challenge, error) {
			return c.Take(t.Context(), policy.NewCredential(policy.KindChallenge, text), challenge.ChallengeUse, firstTry)
		},
		"take message": func() (*credential.Challenge, error) {
			return c.TakeMessage(t.Context(), challenge.Message, challenge.ChallengeUse, firstTry)
		},
		"take for": func() (*credential.Challenge, error) { return c.TakeFor(t.Context(), challenge.ChallengeUse, firstTry) },
		"mint": func() (*credential.Challenge, error) {
			id, expires, err := c.Mint(t.Context(), challenge, time.Minute)
			if id != "" || !expires.IsZero() {
				t.Errorf("%q until %s beside a failure", id, expires)
			}
			return nil, err
		},
		"mint message": func() (*credential.Challenge, error) {
			_, err := c.MintMessage(t.Context(), challenge, time.Minute)
			return nil, err
		},
		"mint for": func() (*credential.Challenge, error) {
			_, err := c.MintFor(t.Context(), challenge, time.Minute)
			return nil, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := call()
			unavailable(t, policy.Proof{}, err)
			if got != nil {
				t.Errorf("%+v beside a failure", got)
			}
		})
	}
}

func TestChallengesAreNotMadeOfLess(t *testing.T) {
	key := newKey("k")
	full := credential.ChallengesConfig{
		Tokens: newTampered(), Records: newTampered(), Digests: credential.Ring(ring{key}), Seals: newSealer(t, "k"), Uses: []policy.MAC{key},
	}
	for name, drop := range map[string]func(*credential.ChallengesConfig){
		"tokens":  func(c *credential.ChallengesConfig) { c.Tokens = nil },
		"records": func(c *credential.ChallengesConfig) { c.Records = nil },
		"digests": func(c *credential.ChallengesConfig) { c.Digests = nil },
		"seals":   func(c *credential.ChallengesConfig) { c.Seals = nil },
		"uses":    func(c *credential.ChallengesConfig) { c.Uses = nil },
	} {
		config := full
		drop(&config)
		if c, err := credential.NewChallenges(config); err == nil || c != nil {
			t.Errorf("without %s: %v, %v", name, c, err)
		}
	}
}

// TestMalformedChallengeIDs: none of them reaches the store.
func TestMalformedChallengeIDs(t *testing.T) {
	s := newTampered()
	c := challenges(t, s, newClock())
	good, _, err := c.Mint(t.Context(), statement(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	s.asked = 0
	for name, id := range map[string]policy.Credential{
		"nothing":      {},
		"empty":        policy.NewCredential(policy.KindChallenge, ""),
		"short":        policy.NewCredential(policy.KindChallenge, good[:46]),
		"long":         policy.NewCredential(policy.KindChallenge, good+"A"),
		"padded":       policy.NewCredential(policy.KindChallenge, good+"="),
		"line breaks":  policy.NewCredential(policy.KindChallenge, good[:45]+"\r\n"),
		"stray bits":   policy.NewCredential(policy.KindChallenge, strings.Repeat("A", 46)+"B"),
		"other kind":   policy.NewCredential(policy.KindToken, good),
		"alphabet":     policy.NewCredential(policy.KindChallenge, "+/"+good[2:]),
		"space before": policy.NewCredential(policy.KindChallenge, " "+good[1:]),
	} {
		got, err := c.Take(t.Context(), id, statement().ChallengeUse, firstTry)
		notTaken(t, got, err, policy.RefusedMalformed, good)
		if s.asked != 0 {
			t.Fatalf("%s: the store was asked", name)
		}
	}
	got, err := c.Take(t.Context(), policy.NewCredential(policy.KindChallenge, strings.Repeat("A", 47)), statement().ChallengeUse, firstTry)
	notTaken(t, got, err, policy.RefusedUnknown)
	if s.asked != 0 {
		t.Error("the store was asked for a tag that no key has")
	}
}

// TestChallengesOverKeyRotation: what was minted under the old key is taken
// under the new one, and what is minted then voids it.
func TestChallengesOverKeyRotation(t *testing.T) {
	at := newClock()
	s := memory(t, at)
	old, now := newKey("2025"), newKey("2026")
	before, during, after := challengesWith(t, s, at, old, now), challengesWith(t, s, at, now, old), challengesWith(t, s, at, now)
	challenge := statement()
	text, _, err := before.Mint(t.Context(), challenge, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	id := policy.NewCredential(policy.KindChallenge, text)
	got, err := after.Take(t.Context(), id, challenge.ChallengeUse, firstTry)
	notTaken(t, got, err, policy.RefusedUnknown)
	if _, err := during.Take(t.Context(), id, challenge.ChallengeUse, firstTry); err != nil {
		t.Error(err)
	}

	for _, instances := range [][2]*credential.Challenges{{before, during}, {during, before}} {
		for _, minter := range instances {
			if _, err := minter.MintFor(t.Context(), challenge, time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		// The later one is taken, whoever takes it, and nothing is left.
		if _, err := instances[0].TakeFor(t.Context(), challenge.ChallengeUse, firstTry); err != nil {
			t.Error(err)
		}
		for _, taker := range instances {
			got, err := taker.TakeFor(t.Context(), challenge.ChallengeUse, secondTry)
			notTaken(t, got, err, policy.RefusedSpent)
		}
	}
}

// TestSealedChallengeCannotBeChanged flips every bit of what is stored, cuts it
// short, and moves it to another challenge's place.
func TestSealedChallengeCannotBeChanged(t *testing.T) {
	s := newTampered()
	c := challenges(t, s, newClock())
	text, _, err := c.Mint(t.Context(), statement(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	take := func() (*credential.Challenge, error) {
		return c.Take(t.Context(), policy.NewCredential(policy.KindChallenge, text), statement().ChallengeUse, firstTry)
	}
	digest, sealed := s.only(t)
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]byte{[]byte("card-1"), []byte("authorize"), []byte(text), raw, raw[3:]} {
		if bytes.Contains(sealed, part) || bytes.Contains(digest[:], part) {
			t.Fatal("the store has the challenge or its id in clear")
		}
	}
	for bit := range 8 * len(sealed) {
		changed := bytes.Clone(sealed)
		changed[bit/8] ^= 1 << (bit % 8)
		s.values[digest] = changed
		got, err := take()
		notTaken(t, got, err, policy.RefusedUnknown)
	}
	for n := range len(sealed) {
		s.values[digest] = sealed[:n]
		got, err := take()
		notTaken(t, got, err, policy.RefusedUnknown)
	}
	clear(s.values)
	if text, _, err = c.Mint(t.Context(), statement(), time.Minute); err != nil {
		t.Fatal(err)
	}
	other, own := s.only(t)
	s.values[other] = sealed
	got, err := take()
	notTaken(t, got, err, policy.RefusedUnknown)
	s.values[other] = own
	if _, err := take(); err != nil {
		t.Error(err)
	}
}

// TestPointerCannotBeMoved: whoever writes to the store cannot have a use find
// the challenge of another one.
func TestPointerCannotBeMoved(t *testing.T) {
	s := newTampered()
	c := challenges(t, s, newClock())
	if _, err := c.MintFor(t.Context(), statement(), time.Minute); err != nil {
		t.Fatal(err)
	}
	mine := map[store.Digest][]byte{}
	for digest, sealed := range s.values {
		mine[digest] = sealed
	}
	clear(s.values)
	theirs := statement()
	theirs.Card = "card-2"
	if _, err := c.MintFor(t.Context(), theirs, time.Minute); err != nil {
		t.Fatal(err)
	}
	if len(mine) != 2 || len(s.values) != 2 {
		t.Fatalf("%d and %d entries", len(mine), len(s.values))
	}
	own := map[store.Digest][]byte{}
	for digest, sealed := range s.values {
		own[digest] = sealed
	}
	for to := range own {
		for from, sealed := range mine {
			s.values = map[store.Digest][]byte{}
			for digest, value := range own {
				s.values[digest] = value
			}
			s.values[from], s.values[to] = sealed, sealed
			got, err := c.TakeFor(t.Context(), theirs.ChallengeUse, firstTry)
			notTaken(t, got, err, policy.RefusedUnknown)
		}
	}
	s.values = own
	if _, err := c.TakeFor(t.Context(), theirs.ChallengeUse, firstTry); err != nil {
		t.Error(err)
	}
}

// onBothStores runs a test on Memory and on a real Redis: what decides a race is
// the store.
func onBothStores(t *testing.T, test func(t *testing.T, s store.Store)) {
	t.Run("memory", func(t *testing.T) { test(t, memory(t, newClock())) })
	t.Run("redis", func(t *testing.T) {
		r, err := store.NewRedis(store.RedisConfig{Addresses: []string{testredis.Start(t).Addr}, Timeout: time.Minute, DialTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		test(t, r)
	})
}

// race runs many callers at once, and counts who took a challenge. Everyone else
// must have been told that it is spent, or void.
func race(t *testing.T, callers int, take func(attempt store.Attempt) (*credential.Challenge, error)) int64 {
	t.Helper()
	var won atomic.Int64
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			_, err := take(store.Attempt{1, byte(i), byte(i >> 8)})
			if err == nil {
				won.Add(1)
			} else if r, ok := errors.AsType[*policy.Refused](err); !ok || r.Reason != policy.RefusedSpent && r.Reason != policy.RefusedUnknown {
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
	return won.Load()
}

func TestOneOfManyTakesAChallenge(t *testing.T) { onBothStores(t, oneOfManyTakesAChallenge) }

func oneOfManyTakesAChallenge(t *testing.T, s store.Store) {
	at, w := newClock(), newWallet(t)
	c := challenges(t, s, at)
	byUse, byNonce := statement(), signed(t, w, c.Nonce(), at)
	text, _, err := c.Mint(t.Context(), byUse, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.MintMessage(t.Context(), byNonce, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := c.MintFor(t.Context(), byUse, time.Minute); err != nil {
		t.Fatal(err)
	}
	for name, take := range map[string]func(store.Attempt) (*credential.Challenge, error){
		"id": func(a store.Attempt) (*credential.Challenge, error) {
			return c.Take(t.Context(), policy.NewCredential(policy.KindChallenge, text), byUse.ChallengeUse, a)
		},
		"nonce": func(a store.Attempt) (*credential.Challenge, error) {
			return c.TakeMessage(t.Context(), byNonce.Message, byNonce.ChallengeUse, a)
		},
		"use": func(a store.Attempt) (*credential.Challenge, error) {
			return c.TakeFor(t.Context(), byUse.ChallengeUse, a)
		},
	} {
		if won := race(t, 200, take); won != 1 {
			t.Errorf("%s: %d won", name, won)
		}
	}
}

// TestNoMoreAreTakenThanMinted: challenges are minted beside those who take
// them, each with a message of its own. No message is taken twice, and when all
// is quiet one more is taken once.
func TestNoMoreAreTakenThanMinted(t *testing.T) { onBothStores(t, noMoreAreTakenThanMinted) }

func noMoreAreTakenThanMinted(t *testing.T, s store.Store) {
	at := newClock()
	// Two instances, in the middle of a rotation of the digest key.
	old, now := newKey("2025"), newKey("2026")
	instances := []*credential.Challenges{challengesWith(t, s, at, old, now), challengesWith(t, s, at, now, old)}
	const minters, each, takers = 8, 25, 64
	var mu sync.Mutex
	taken := map[string]int{}
	var all sync.WaitGroup
	for i := range minters {
		all.Go(func() {
			for n := range each {
				challenge := statement()
				challenge.Message = string(rune('a'+i)) + string(rune('a'+n))
				if _, err := instances[i%2].MintFor(t.Context(), challenge, time.Minute); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range takers {
		all.Go(func() {
			for n := range each {
				challenge, err := instances[i%2].TakeFor(t.Context(), statement().ChallengeUse, store.Attempt{2, byte(i), byte(n)})
				if err != nil {
					if _, ok := errors.AsType[*policy.Refused](err); !ok {
						t.Error(err)
					}
					continue
				}
				mu.Lock()
				taken[challenge.Message]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	for message, times := range taken {
		if times != 1 {
			t.Errorf("%q was taken %d times", message, times)
		}
	}
	if _, err := instances[0].MintFor(t.Context(), statement(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if won := race(t, 200, func(a store.Attempt) (*credential.Challenge, error) {
		return instances[1].TakeFor(t.Context(), statement().ChallengeUse, a)
	}); won != 1 {
		t.Errorf("%d took the last one", won)
	}
}

// TestEveryChallengeIsDecoded: as it was encoded.
func TestEveryChallengeIsDecoded(t *testing.T) {
	text := rapid.StringN(0, 20, 40)
	rapid.Check(t, func(rt *rapid.T) {
		challenge := credential.Challenge{
			ChallengeUse: credential.ChallengeUse{
				Purpose: rapid.SampledFrom([]string{credential.PurposeLogin, credential.PurposeLink}).Draw(rt, "purpose"),
				Method:  policy.MethodWebAuthn, Environment: rapid.SampledFrom([]string{"test", "production"}).Draw(rt, "environment"),
				Face: text.Draw(rt, "face"), Partner: text.Draw(rt, "partner"), User: text.Draw(rt, "user"), Card: text.Draw(rt, "card"),
			},
			Message: string(rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(rt, "message")),
		}
		encoded, err := credential.EncodeChallenge(&challenge)
		if err != nil {
			if challenge.Face != "" && challenge.Message != "" && challenge.User != "" && challenge.Card != "" {
				rt.Fatal(err)
			}
			return
		}
		decoded, err := credential.DecodeChallenge(encoded)
		if err != nil || !reflect.DeepEqual(*decoded, challenge) {
			rt.Fatalf("%+v\nis decoded as %+v, %v", challenge, decoded, err)
		}
		if decoded, err := credential.DecodeChallenge(append(encoded, 0)); err == nil {
			rt.Fatalf("with a byte more: %+v", decoded)
		}
		if decoded, err := credential.DecodeChallenge(encoded[:len(encoded)-1]); err == nil {
			rt.Fatalf("with a byte less: %+v", decoded)
		}
	})
}

// TestDecodedChallengesAreWhole: bytes of the right form that say nothing we
// would have minted are not a challenge.
func TestDecodedChallengesAreWhole(t *testing.T) {
	challenge := statement()
	encoded, err := credential.EncodeChallenge(&challenge)
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"\x01": "\x02", "link": "pink", "webauthn": "WebAuthn", "\x03exa": "\x00", "test": "Test", "ada": "\xffda", "0x5a": "1x5a"} {
		changed := bytes.Replace(encoded, []byte(from), []byte(to), 1)
		if decoded, err := credential.DecodeChallenge(changed); err == nil || decoded != nil {
			t.Errorf("%q: %+v, %v", to, decoded, err)
		}
	}
}

// FuzzChallenge: what is decoded is encoded as it was, so that each challenge has
// one encoding, and is whole.
func FuzzChallenge(f *testing.F) {
	challenge := statement()
	encoded, err := credential.EncodeChallenge(&challenge)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Fuzz(func(t *testing.T, data []byte) {
		decoded, err := credential.DecodeChallenge(data)
		if err != nil {
			if decoded != nil {
				t.Fatalf("%+v beside %v", decoded, err)
			}
			return
		}
		again, err := credential.EncodeChallenge(decoded)
		if err != nil || !bytes.Equal(again, data) || decoded.Face == "" || decoded.Message == "" {
			t.Fatalf("%+v: %v\n%q\n%q", decoded, err, data, again)
		}
	})
}
