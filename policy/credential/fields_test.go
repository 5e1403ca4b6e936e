package credential_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

var everyPart = []string{credential.PartPAN, credential.PartCVC, credential.PartExpiry, credential.PartName}

// fieldsStore is what sessions of hosted fields need of a store.
type fieldsStore interface {
	store.Records
	store.Idempotent
}

func fieldsWith(t testing.TB, s fieldsStore, at *clock, keys ...*hmacKey) *credential.FieldsSessions {
	t.Helper()
	f, err := credential.NewFieldsSessions(credential.FieldsSessionsConfig{
		Records: s, Calls: s, Digests: credential.Ring(labelled{keys, "fields"}), Seals: newSealer(t, "storage"),
		Seeds: credential.Ring(labelled{keys, "fields seed"}), Now: at.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func fieldsOf(t testing.TB, s fieldsStore, at *clock) *credential.FieldsSessions {
	t.Helper()
	return fieldsWith(t, s, at, newKey("digest"))
}

// onEachStore runs a test on both stores. The clock is that of memory, and of the sessions.
func onEachStore(t *testing.T, test func(t *testing.T, s store.Store, at *clock)) {
	t.Run("memory", func(t *testing.T) { at := newClock(); test(t, memory(t, at), at) })
	t.Run("redis", func(t *testing.T) { test(t, redis(t), newClock()) })
}

func shop() credential.FieldsSession {
	return credential.FieldsSession{
		Partner: "shop", Environment: "test", Face: "payroc", Terminal: "1234001", Scenario: "payment", Library: "1.4.0", SecureToken: "st-1",
	}
}

func pageOf(text string) policy.Credential { return policy.NewCredential(policy.KindFields, text) }

func begun(t testing.TB, f *credential.FieldsSessions) policy.Credential {
	t.Helper()
	text, _, err := f.Mint(t.Context(), shop(), 10*time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pageOf(text)
}

// noPage checks that a session proves nothing, in whichever way it is used.
func noPage(t testing.TB, f *credential.FieldsSessions, c policy.Credential, reason string) {
	t.Helper()
	proof, session, err := f.Prove(t.Context(), c)
	refused(t, proof, err, policy.KindFields, reason, c.Value())
	if session != (credential.FieldsSession{}) {
		t.Fatalf("a session beside a refusal: %+v", session)
	}
	refused(t, policy.Proof{}, f.Claim(t.Context(), c, "key"), policy.KindFields, reason, c.Value())
	refused(t, policy.Proof{}, f.PutPart(t.Context(), c, credential.PartPAN, []byte("x")), policy.KindFields, reason, c.Value())
}

func TestFieldsSessionProvesItsPartner(t *testing.T) {
	onEachStore(t, func(t *testing.T, s store.Store, at *clock) {
		f := fieldsOf(t, s, at)
		minted := shop()
		minted.Generation = 7
		text, expires, err := f.Mint(t.Context(), minted, 10*time.Minute, nil)
		if err != nil || !expires.Equal(at.now().Add(10*time.Minute)) || !regexp.MustCompile(`^[A-Za-z0-9_-]{47}$`).MatchString(text) {
			t.Fatalf("%q until %s, %v", text, expires, err)
		}
		for range 3 { // by every call of the page
			proof, session, err := f.Prove(t.Context(), pageOf(text))
			if err != nil || !strings.HasPrefix(proof.ID, "fields:") || len(proof.ID) != len("fields:")+16 {
				t.Fatalf("%+v, %v", proof, err)
			}
			proof.ID = ""
			if proof != (policy.Proof{Kind: policy.KindFields, Partner: "shop", Environment: "test", Minted: true, Generation: 7}) {
				t.Errorf("%+v", proof)
			}
			if !session.Expires.Equal(expires) {
				t.Errorf("until %s, want %s", session.Expires, expires)
			}
			session.Began, session.Expires = time.Time{}, time.Time{}
			if session != minted {
				t.Errorf("%+v", session)
			}
		}
		other := begun(t, f)
		one, _, _ := f.Prove(t.Context(), pageOf(text))
		two, _, err := f.Prove(t.Context(), other)
		if err != nil || one.ID == two.ID || other.Value() == text {
			t.Errorf("two sessions are one: %+v, %+v, %v", one, two, err)
		}
	})
}

func TestFieldsSessionEnds(t *testing.T) {
	at := newClock()
	m := memory(t, at)
	f := fieldsOf(t, m, at)
	c := begun(t, f)
	if err := f.PutPart(t.Context(), c, credential.PartPAN, []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	at.advance(10*time.Minute - time.Millisecond)
	if _, _, err := f.Prove(t.Context(), c); err != nil {
		t.Errorf("in its last moment: %v", err)
	}
	at.advance(time.Millisecond)
	noPage(t, f, c, policy.RefusedUnknown)
	if parts, err := f.Parts(t.Context(), c, everyPart...); err != nil || len(parts) != 0 {
		t.Errorf("parts outlive the session: %v, %v", parts, err)
	}
	// Where the store is late, our clock counts.
	late := newTampered()
	f = fieldsOf(t, late, at)
	c = begun(t, f)
	at.advance(10 * time.Minute)
	noPage(t, f, c, policy.RefusedExpired)
}

// TestPartsLiveNoLongerThanTheSession: a part that is put late ends with it all the same.
func TestPartsLiveNoLongerThanTheSession(t *testing.T) {
	at := newClock()
	f := fieldsOf(t, memory(t, at), at)
	c := begun(t, f)
	for _, wait := range []time.Duration{0, 5 * time.Minute, 5*time.Minute - time.Second} {
		at.advance(wait)
		if err := f.PutPart(t.Context(), c, credential.PartPAN, []byte("sealed")); err != nil {
			t.Fatal(err)
		}
	}
	at.advance(time.Second)
	if parts, err := f.Parts(t.Context(), c, everyPart...); err != nil || len(parts) != 0 {
		t.Errorf("%v, %v", parts, err)
	}
}

func TestPartsComeBackUntilTheyAreDeleted(t *testing.T) {
	onEachStore(t, func(t *testing.T, s store.Store, at *clock) {
		f := fieldsOf(t, s, at)
		c, other := begun(t, f), begun(t, f)
		want := map[string][]byte{}
		for i, name := range everyPart {
			want[name] = []byte{byte(i), 0xff, 0}
			for _, sealed := range [][]byte{[]byte("before"), want[name]} { // what the page corrects
				if err := f.PutPart(t.Context(), c, name, sealed); err != nil {
					t.Fatal(err)
				}
			}
		}
		same := func(got map[string][]byte, want map[string][]byte) bool {
			return maps.EqualFunc(got, want, bytes.Equal)
		}
		for range 2 {
			if got, err := f.Parts(t.Context(), c, everyPart...); err != nil || !same(got, want) {
				t.Fatalf("%v, %v", got, err)
			}
		}
		if got, err := f.Parts(t.Context(), c, credential.PartCVC); err != nil || !same(got, map[string][]byte{credential.PartCVC: want[credential.PartCVC]}) {
			t.Errorf("%v, %v", got, err)
		}
		if got, err := f.Parts(t.Context(), other, everyPart...); err != nil || len(got) != 0 {
			t.Errorf("another page has %v, %v", got, err)
		}
		if err := f.DeleteParts(t.Context(), other, everyPart...); err != nil {
			t.Fatal(err)
		}
		if err := f.DeleteParts(t.Context(), c, credential.PartPAN, credential.PartCVC); err != nil {
			t.Fatal(err)
		}
		delete(want, credential.PartPAN)
		delete(want, credential.PartCVC)
		if got, err := f.Parts(t.Context(), c, everyPart...); err != nil || !same(got, want) {
			t.Errorf("%v, %v", got, err)
		}
		// The session goes on, for what is submitted anew.
		if err := f.PutPart(t.Context(), c, credential.PartPAN, []byte("anew")); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Parts(t.Context(), c, credential.PartPAN); err != nil || string(got[credential.PartPAN]) != "anew" {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// TestPartsThatAreNone: a mistake of the code, which the store hears nothing of.
func TestPartsThatAreNone(t *testing.T) {
	s := newTampered()
	f := fieldsOf(t, s, newClock())
	c := begun(t, f)
	s.asked = 0
	for name, err := range map[string]error{
		"another name":     f.PutPart(t.Context(), c, "pin", []byte("x")),
		"no name":          f.PutPart(t.Context(), c, "", []byte("x")),
		"a longer name":    f.PutPart(t.Context(), c, "panx", []byte("x")),
		"nothing":          f.PutPart(t.Context(), c, credential.PartPAN, nil),
		"too much":         f.PutPart(t.Context(), c, credential.PartPAN, make([]byte, 4097)),
		"delete a PIN":     f.DeleteParts(t.Context(), c, "pin"),
		"delete something": f.DeleteParts(t.Context(), c, ""),
	} {
		if _, isRefused := errors.AsType[*policy.Refused](err); err == nil || isRefused {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := f.Parts(t.Context(), c, "pin"); err == nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	if s.asked != 0 {
		t.Error("the store was asked")
	}
}

// TestFirstKeyClaimsASession [23]: the same one may come again, and no other, on whichever instance.
func TestFirstKeyClaimsASession(t *testing.T) {
	onEachStore(t, func(t *testing.T, s store.Store, at *clock) {
		here, there := fieldsOf(t, s, at), fieldsOf(t, s, at)
		c, other := begun(t, here), begun(t, here)
		for _, f := range []*credential.FieldsSessions{here, here, there} {
			if err := f.Claim(t.Context(), c, "key 1"); err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{"key 2", "key", "key 11", "KEY 1"} {
				refused(t, policy.Proof{}, f.Claim(t.Context(), c, key), policy.KindFields, policy.RefusedBound, c.Value())
			}
		}
		if err := there.Claim(t.Context(), other, "key 2"); err != nil {
			t.Errorf("another page: %v", err)
		}
		for _, key := range []string{"", strings.Repeat("k", 256)} {
			refused(t, policy.Proof{}, here.Claim(t.Context(), c, key), policy.KindFields, policy.RefusedMalformed)
		}
		if _, _, err := here.Prove(t.Context(), c); err != nil {
			t.Errorf("a claim that was refused ends the session: %v", err)
		}
	})
}

// TestClaimLastsAsLongAsItsSession: whoever waits does not get it.
func TestClaimLastsAsLongAsItsSession(t *testing.T) {
	at := newClock()
	f := fieldsOf(t, memory(t, at), at)
	c := begun(t, f)
	if err := f.Claim(t.Context(), c, "key 1"); err != nil {
		t.Fatal(err)
	}
	for range 10*60 - 1 {
		at.advance(time.Second)
		refused(t, policy.Proof{}, f.Claim(t.Context(), c, "key 2"), policy.KindFields, policy.RefusedBound)
	}
	if err := f.Claim(t.Context(), c, "key 1"); err != nil {
		t.Error(err)
	}
}

// TestOneOfManyKeysClaims: at once, on both stores; all who have the key that came first may go on.
func TestOneOfManyKeysClaims(t *testing.T) {
	onEachStore(t, func(t *testing.T, s store.Store, at *clock) {
		f := fieldsOf(t, s, at)
		c := begun(t, f)
		won := make([]atomic.Int64, 8)
		var all sync.WaitGroup
		for i := range 80 {
			all.Go(func() {
				err := f.Claim(t.Context(), c, fmt.Sprint("key ", i%len(won)))
				if r, ok := errors.AsType[*policy.Refused](err); err == nil {
					won[i%len(won)].Add(1)
				} else if !ok || r.Reason != policy.RefusedBound {
					t.Error(err)
				}
			})
		}
		all.Wait()
		var counts []int64
		for i := range won {
			if n := won[i].Load(); n > 0 {
				counts = append(counts, n)
			}
		}
		if !slices.Equal(counts, []int64{10}) {
			t.Errorf("claimed %v times by as many keys, want once by all ten of one", counts)
		}
	})
}

// TestSeededSessionIsMintedOnce: again it is told, and changes and extends nothing, be it live or over.
func TestSeededSessionIsMintedOnce(t *testing.T) {
	at := newClock()
	f := fieldsOf(t, memory(t, at), at)
	const secret = "an idempotency key that nothing keeps"
	seed, err := f.NewSeed([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	text, expires, err := f.Mint(t.Context(), shop(), 10*time.Minute, &seed)
	if err != nil || !expires.Equal(at.now().Add(10*time.Minute)) {
		t.Fatalf("%q until %s, %v", text, expires, err)
	}
	c := pageOf(text)
	if err := f.Claim(t.Context(), c, "key 1"); err != nil {
		t.Fatal(err)
	}
	other := shop()
	other.Terminal = "another"
	at.advance(5 * time.Minute)
	again, until, err := f.Mint(t.Context(), other, 20*time.Minute, &seed)
	if err != nil || again != text || !until.Equal(expires) {
		t.Fatalf("again %q until %s, %v; want %q until %s", again, until, err, text, expires)
	}
	if _, session, err := f.Prove(t.Context(), c); err != nil || session.Terminal != "1234001" || !session.Expires.Equal(expires) {
		t.Errorf("it has changed: %+v, %v", session, err)
	}
	refused(t, policy.Proof{}, f.Claim(t.Context(), c, "key 2"), policy.KindFields, policy.RefusedBound)
	for _, told := range []*credential.FieldsSessions{f, fieldsWith(t, newTampered(), at, newKey("2027"), newKey("digest"))} { // after rotation, and without the store
		if again, err := told.Again("shop", kept(t, seed, secret)); err != nil || again != text {
			t.Errorf("told again as %q, %v", again, err)
		}
	}
	for name, test := range map[string]struct{ partner, context string }{"partner": {"other", secret}, "secret": {"shop", "a guess"}} {
		if again, err := f.Again(test.partner, kept(t, seed, test.context)); err != nil || again == text {
			t.Errorf("another %s makes the same token, %v", name, err)
		}
	}
	for _, wait := range []time.Duration{5 * time.Minute, 10 * time.Minute, 23 * time.Hour} {
		at.advance(wait)
		again, until, err := f.Mint(t.Context(), shop(), 10*time.Minute, &seed)
		if err != nil || again != text || !until.Before(at.now()) {
			t.Errorf("when it is over: %q until %s, %v", again, until, err)
		}
		noPage(t, f, c, policy.RefusedUnknown)
	}
}

func TestSeededSessionOnRedis(t *testing.T) {
	s, at := redis(t), newClock()
	f := fieldsOf(t, s, at)
	seed, err := f.NewSeed([]byte("context"))
	if err != nil {
		t.Fatal(err)
	}
	text, expires, err := f.Mint(t.Context(), shop(), time.Minute, &seed)
	if err != nil {
		t.Fatal(err)
	}
	at.advance(time.Second)
	if again, until, err := f.Mint(t.Context(), shop(), 10*time.Minute, &seed); err != nil || again != text || !until.Equal(expires) {
		t.Errorf("again %q until %s, %v", again, until, err)
	}
	if _, session, err := f.Prove(t.Context(), pageOf(text)); err != nil || !session.Expires.Equal(expires) {
		t.Errorf("%+v, %v", session, err)
	}
}

// breaking is a store that fails to keep some records.
type breaking struct {
	store.Store
	fails atomic.Int64
}

func (s *breaking) Put(ctx context.Context, kind store.Kind, d store.Digest, value []byte, ttl time.Duration) error {
	if s.fails.Add(-1) >= 0 {
		return errDown
	}
	return s.Store.Put(ctx, kind, d, value, ttl)
}

// TestSeededSessionAfterAFailure: what could not be put is put when it is asked for again, as soon as the lease is over.
func TestSeededSessionAfterAFailure(t *testing.T) {
	at := newClock()
	s := &breaking{Store: memory(t, at)}
	s.fails.Store(1)
	f := fieldsOf(t, s, at)
	seed, err := f.NewSeed([]byte("context"))
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := f.Mint(t.Context(), shop(), 10*time.Minute, &seed)
	unavailable(t, policy.Proof{}, err)
	if text != "" {
		t.Fatalf("a token beside a failure: %q", text)
	}
	if text, _, err := f.Mint(t.Context(), shop(), 10*time.Minute, &seed); !errors.Is(err, store.ErrInFlight) || text != "" {
		t.Errorf("%q, %v", text, err)
	}
	at.advance(10 * time.Second)
	text, expires, err := f.Mint(t.Context(), shop(), 10*time.Minute, &seed)
	if err != nil || !expires.Equal(at.now().Add(10*time.Minute)) {
		t.Fatalf("%q until %s, %v", text, expires, err)
	}
	if _, _, err := f.Prove(t.Context(), pageOf(text)); err != nil {
		t.Error(err)
	}
}

func TestSessionsThatAreNotMinted(t *testing.T) {
	at, s := newClock(), newTampered()
	f := fieldsOf(t, s, at)
	for name, test := range map[string]struct {
		change func(*credential.FieldsSession)
		ttl    time.Duration
		seed   *credential.Seed
	}{
		"no partner":        {change: func(f *credential.FieldsSession) { f.Partner = "" }},
		"no face":           {change: func(f *credential.FieldsSession) { f.Face = "" }},
		"no environment":    {change: func(f *credential.FieldsSession) { f.Environment = "" }},
		"other environment": {change: func(f *credential.FieldsSession) { f.Environment = "live" }},
		"long terminal":     {change: func(f *credential.FieldsSession) { f.Terminal = strings.Repeat("1", 1025) }},
		"not UTF-8":         {change: func(f *credential.FieldsSession) { f.Library = "\xff" }},
		"no time":           {ttl: -1},
		"little time":       {ttl: time.Millisecond},
		"too long [11]":     {ttl: 30*time.Minute + 1},
		"zero seed":         {seed: new(credential.Seed)},
	} {
		session, ttl := shop(), 10*time.Minute
		if test.change != nil {
			test.change(&session)
		}
		if test.ttl != 0 {
			ttl = test.ttl
		}
		if text, expires, err := f.Mint(t.Context(), session, ttl, test.seed); err == nil || text != "" || !expires.IsZero() {
			t.Errorf("%s: %q until %s, %v", name, text, expires, err)
		}
		if s.asked != 0 {
			t.Fatalf("%s: the store was asked", name)
		}
	}
}

func TestFieldsSessionsWithoutStore(t *testing.T) {
	s, at := newTampered(), newClock()
	f := fieldsOf(t, s, at)
	c := begun(t, f)
	s.err = errDown
	proof, session, err := f.Prove(t.Context(), c)
	unavailable(t, proof, err)
	if session != (credential.FieldsSession{}) {
		t.Errorf("%+v beside a failure", session)
	}
	unavailable(t, policy.Proof{}, f.Claim(t.Context(), c, "key"))
	unavailable(t, policy.Proof{}, f.PutPart(t.Context(), c, credential.PartPAN, []byte("x")))
	unavailable(t, policy.Proof{}, f.DeleteParts(t.Context(), c, credential.PartPAN))
	if parts, err := f.Parts(t.Context(), c, credential.PartPAN); !errors.Is(err, store.ErrUnavailable) || parts != nil {
		t.Errorf("%v, %v", parts, err)
	}
	if text, expires, err := f.Mint(t.Context(), shop(), time.Minute, nil); !errors.Is(err, store.ErrUnavailable) || text != "" || !expires.IsZero() {
		t.Errorf("%q until %s, %v", text, expires, err)
	}
	// A claim that could not be kept is none.
	m := memory(t, at)
	f = fieldsOf(t, m, at)
	c = begun(t, f)
	down := fieldsOf(t, struct {
		store.Records
		store.Idempotent
	}{m, callsDown{}}, at)
	unavailable(t, policy.Proof{}, down.Claim(t.Context(), c, "key"))
}

// callsDown is a store that knows of no calls.
type callsDown struct{ store.Idempotent }

func (callsDown) Begin(context.Context, store.Kind, store.Digest, store.Digest, store.Attempt, time.Duration, time.Duration, time.Duration) (store.Begun, error) {
	return store.Begun{}, errDown
}

// TestMalformedFieldsTokens: none of them reaches the store.
func TestMalformedFieldsTokens(t *testing.T) {
	s := newTampered()
	f := fieldsOf(t, s, newClock())
	good := begun(t, f).Value()
	s.asked = 0
	for name, c := range map[string]policy.Credential{
		"nothing":      {},
		"empty":        pageOf(""),
		"short":        pageOf(good[:46]),
		"long":         pageOf(good + "A"),
		"padded":       pageOf(good + "="),
		"line breaks":  pageOf(good[:45] + "\r\n"),
		"stray bits":   pageOf(strings.Repeat("A", 46) + "B"),
		"alphabet":     pageOf("+/" + good[2:]),
		"percent":      pageOf(good[:44] + "%2D"),
		"other kind":   policy.NewCredential(policy.KindToken, good),
		"space before": pageOf(" " + good[1:]),
	} {
		noPage(t, f, c, policy.RefusedMalformed)
		if _, err := f.Parts(t.Context(), c, credential.PartPAN); err == nil {
			t.Errorf("%s: there are parts", name)
		}
		if s.asked != 0 {
			t.Fatalf("%s: the store was asked", name)
		}
	}
	noPage(t, f, pageOf(strings.Repeat("A", 47)), policy.RefusedUnknown)
	refused(t, policy.Proof{}, f.DeleteParts(t.Context(), pageOf(strings.Repeat("A", 47)), credential.PartPAN), policy.KindFields, policy.RefusedUnknown)
	if s.asked != 0 {
		t.Error("the store was asked for a tag that no key has")
	}
	raw, _ := base64.RawURLEncoding.DecodeString(good)
	raw[34] ^= 1
	noPage(t, f, pageOf(base64.RawURLEncoding.EncodeToString(raw)), policy.RefusedUnknown)
}

// TestSealedFieldsSessionCannotBeChanged flips every bit, cuts it short, and moves it to another session's place.
func TestSealedFieldsSessionCannotBeChanged(t *testing.T) {
	s := newTampered()
	f := fieldsOf(t, s, newClock())
	c := begun(t, f)
	digest, sealed := s.only(t)
	for _, text := range []string{"shop", "1234001", "st-1", c.Value()} {
		if bytes.Contains(sealed, []byte(text)) || bytes.Contains(digest[:], []byte(text)) {
			t.Fatalf("%q is stored in clear", text)
		}
	}
	raw, _ := base64.RawURLEncoding.DecodeString(c.Value())
	if bytes.Contains(digest[:], raw[3:19]) || bytes.Contains(sealed, raw[3:19]) {
		t.Fatal("the store has the token")
	}
	for bit := range 8 * len(sealed) {
		changed := bytes.Clone(sealed)
		changed[bit/8] ^= 1 << (bit % 8)
		s.values[digest] = changed
		noPage(t, f, c, policy.RefusedUnknown)
	}
	for n := range len(sealed) {
		s.values[digest] = sealed[:n]
		noPage(t, f, c, policy.RefusedUnknown)
	}
	clear(s.values)
	other := begun(t, f)
	moved, _ := s.only(t)
	s.values[moved] = sealed
	noPage(t, f, other, policy.RefusedUnknown)
	// What opens and is no session.
	seals := newSealer(t, "storage")
	own, err := seals.Open(nil, append([]byte("cardstile fields session v1"), digest[:]...), sealed)
	if err != nil {
		t.Fatal(err)
	}
	for _, plain := range []string{string(own) + "\x00", string(own[:len(own)-1]), strings.Replace(string(own), "test", "live", 1), "", "{}", "\x01\x00\x00\x00\x00\x00\x00\x00\x01", strings.Repeat("\x00", 64), "\x01\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff"} {
		sealed, err := seals.Seal(nil, append([]byte("cardstile fields session v1"), moved[:]...), []byte(plain))
		if err != nil {
			t.Fatal(err)
		}
		s.values[moved] = sealed
		noPage(t, f, other, policy.RefusedUnknown)
	}
}

// TestFieldsKeysRotate: what was minted under the old key is good while it is there.
func TestFieldsKeysRotate(t *testing.T) {
	at := newClock()
	m := memory(t, at)
	old, now := newKey("2025"), newKey("2026")
	c := begun(t, fieldsWith(t, m, at, old))
	during := fieldsWith(t, m, at, now, old)
	if _, _, err := during.Prove(t.Context(), c); err != nil {
		t.Error(err)
	}
	if fresh := begun(t, during); fresh.Value()[:4] == c.Value()[:4] {
		t.Error("the new token has the old key's tag")
	}
	noPage(t, fieldsWith(t, m, at, now), c, policy.RefusedUnknown)
}

func TestFieldsSessionsAreNotMadeOfLess(t *testing.T) {
	s, key := memory(t, newClock()), ring{newKey("k")}
	full := credential.FieldsSessionsConfig{
		Records: s, Calls: s, Digests: credential.Ring(key), Seals: newSealer(t, "k"), Seeds: credential.Ring(key),
	}
	for name, change := range map[string]func(*credential.FieldsSessionsConfig){
		"records":             func(c *credential.FieldsSessionsConfig) { c.Records = nil },
		"calls":               func(c *credential.FieldsSessionsConfig) { c.Calls = nil },
		"digests":             func(c *credential.FieldsSessionsConfig) { c.Digests = nil },
		"seals":               func(c *credential.FieldsSessionsConfig) { c.Seals = nil },
		"seeds of other keys": func(c *credential.FieldsSessionsConfig) { c.Seeds = credential.Ring(ring{newKey("l")}) },
	} {
		config := full
		change(&config)
		if f, err := credential.NewFieldsSessions(config); err == nil || f != nil {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	full.Seeds = nil
	f, err := credential.NewFieldsSessions(full)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.NewSeed(nil); err == nil {
		t.Error("a seed without keys for seeds")
	}
	if _, _, err := f.Mint(t.Context(), shop(), time.Minute, nil); err != nil {
		t.Error(err)
	}
}
