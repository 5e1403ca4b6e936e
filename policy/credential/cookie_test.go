package credential_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// The published vector of Exa's contract.
var (
	exaKey    = newKey("0x" + strings.Repeat("0", 64))
	exaValue  = "0x1234567890AbcdEF1234567890aBcdef12345678"
	exaCookie = exaValue + ".JNDaVahyvSYEAWyqsZ65od76768Cx3CgZ8QMIgAKmxQ%3D"
)

func cookies(t testing.TB, change func(*credential.CookiesConfig)) *credential.Cookies {
	t.Helper()
	config := credential.CookiesConfig{Face: "exa", Signers: []policy.MAC{exaKey}, Logins: []policy.MAC{newKey("login")}}
	if change != nil {
		change(&config)
	}
	if config.Records == nil && !config.Stateless {
		config.Records = newTampered()
	}
	c, err := credential.NewCookies(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func stateless(c *credential.CookiesConfig) { c.Stateless, c.Logins, c.Records = true, nil, nil }

func cookie(text string) policy.Credential { return policy.NewCredential(policy.KindCookie, text) }

func TestCookieVector(t *testing.T) {
	c := cookies(t, stateless)
	if got := c.Sign(exaValue); got != exaCookie {
		t.Errorf("Sign = %s", got)
	}
	for name, text := range map[string]string{
		"as published":        exaCookie,
		"not encoded":         strings.Replace(exaCookie, "%3D", "=", 1),
		"lower-case encoding": strings.Replace(exaCookie, "%3D", "%3d", 1),
		"all encoded":         strings.Replace(strings.Replace(exaCookie, "0x", "%30x", 1), ".", "%2E", 1),
	} {
		proof, err := c.Prove(t.Context(), cookie(text))
		if err != nil || proof != (policy.Proof{Kind: policy.KindCookie, User: exaValue, ID: "cookie:" + exaValue}) {
			t.Errorf("%s: %+v, %v", name, proof, err)
		}
	}
}

func TestCookiesThatProveNothing(t *testing.T) {
	c := cookies(t, stateless)
	signature := exaCookie[len(exaValue)+1:]
	plain := strings.Replace(signature, "%3D", "=", 1)
	dotted := c.Sign("a.b")
	if proof, err := c.Prove(t.Context(), cookie(dotted)); err != nil || proof.User != "a.b" {
		t.Errorf("a dot in the value: %+v, %v", proof, err)
	}
	if proof, err := c.Prove(t.Context(), cookie(strings.Replace(c.Sign("a+b"), "%2B", "+", 1))); err != nil || proof.User != "a+b" {
		t.Errorf("a plus in the value: %+v, %v", proof, err)
	}
	for name, test := range map[string]struct{ text, reason string }{
		"nothing":                   {"", policy.RefusedMalformed},
		"no signature":              {exaValue, policy.RefusedMalformed},
		"empty signature":           {exaValue + ".", policy.RefusedMalformed},
		"no value":                  {"." + signature, policy.RefusedMalformed},
		"signature without padding": {exaValue + "." + plain[:43], policy.RefusedMalformed},
		"43 and a letter":           {exaValue + "." + plain[:43] + "A", policy.RefusedMalformed},
		"45 characters":             {exaValue + "." + plain[:43] + "A=", policy.RefusedMalformed},
		"encoded twice":             {exaValue + "." + strings.Replace(plain, "=", "%253D", 1), policy.RefusedMalformed},
		"truncated encoding":        {exaValue + "." + plain[:43] + "%3", policy.RefusedMalformed},
		"bad encoding":              {exaValue + "." + plain[:43] + "%3G", policy.RefusedMalformed},
		"percent at the end":        {exaCookie + "%", policy.RefusedMalformed},
		"quoted":                    {`"` + exaCookie + `"`, policy.RefusedMalformed},
		"NUL in the value":          {"0x%00." + signature, policy.RefusedMalformed},
		"space in the value":        {"a%20b." + signature, policy.RefusedMalformed},
		"not ASCII":                 {"%C3%A9." + signature, policy.RefusedMalformed},
		"long":                      {strings.Repeat("a", 513) + "." + signature, policy.RefusedMalformed},
		"very long":                 {strings.Repeat("%41", 100000), policy.RefusedMalformed},
		"another user":              {strings.Replace(exaCookie, "0x1", "0x2", 1), policy.RefusedSignature},
		"another case":              {strings.Replace(exaCookie, "AbcdEF", "abcdef", 1), policy.RefusedSignature},
		"a character of the value":  {exaValue[:41] + "." + signature, policy.RefusedSignature},
		"more value":                {exaValue + ".x." + signature, policy.RefusedSignature},
		"another signature":         {exaValue + "." + strings.Replace(plain, "J", "K", 1), policy.RefusedSignature},
		// The same 32 bytes as base64, but other text: the text is what counts.
		"stray bits":       {exaValue + "." + strings.Replace(plain, "Q=", "R=", 1), policy.RefusedSignature},
		"plus for a space": {exaValue + "." + strings.Replace(plain, "J", "+", 1), policy.RefusedSignature},
	} {
		proof, err := c.Prove(t.Context(), cookie(test.text))
		if _, ok := errors.AsType[*policy.Refused](err); !ok {
			t.Fatalf("%s: %+v, %v", name, proof, err)
		}
		refused(t, proof, err, policy.KindCookie, test.reason, test.text)
	}
	proof, err := c.Prove(t.Context(), policy.NewCredential(policy.KindToken, exaCookie))
	refused(t, proof, err, policy.KindCookie, policy.RefusedMalformed, exaCookie)
	proof, err = c.Prove(t.Context(), policy.Credential{})
	refused(t, proof, err, policy.KindCookie, policy.RefusedMalformed)
}

func TestCookieKeysRotate(t *testing.T) {
	old, now := newKey("old key"), newKey("new key")
	with := func(keys ...policy.MAC) *credential.Cookies {
		return cookies(t, func(c *credential.CookiesConfig) { stateless(c); c.Signers = keys })
	}
	for name, c := range map[string]*credential.Cookies{"primary": with(old, now), "second": with(now, old)} {
		if proof, err := c.Prove(t.Context(), cookie(with(old).Sign("ada"))); err != nil || proof.User != "ada" {
			t.Errorf("%s: %+v, %v", name, proof, err)
		}
	}
	if with(now, old).Sign("ada") != with(now).Sign("ada") {
		t.Error("the primary does not sign")
	}
	proof, err := with(now).Prove(t.Context(), cookie(with(old).Sign("ada")))
	refused(t, proof, err, policy.KindCookie, policy.RefusedSignature)
}

// TestCookieCountsOnlyWhileLoggedIn [21].
func TestCookieCountsOnlyWhileLoggedIn(t *testing.T) {
	at := newClock()
	c := cookies(t, func(c *credential.CookiesConfig) { c.Records, c.Now = memory(t, at), at.now })
	presented := cookie(c.Sign("ada"))
	notIn := func(why string) {
		t.Helper()
		proof, err := c.Prove(t.Context(), presented)
		if _, ok := errors.AsType[*policy.Refused](err); !ok {
			t.Fatalf("%s: %+v, %v", why, proof, err)
		}
		refused(t, proof, err, policy.KindCookie, policy.RefusedLogin)
	}
	in := func() {
		t.Helper()
		if proof, err := c.Prove(t.Context(), presented); err != nil || proof.User != "ada" {
			t.Fatalf("%+v, %v", proof, err)
		}
	}
	login := func() {
		t.Helper()
		if err := c.Login(t.Context(), "ada", 24*time.Hour, 0); err != nil {
			t.Fatal(err)
		}
	}
	notIn("never logged in")
	login()
	in()
	in() // reusable
	at.advance(24*time.Hour - time.Millisecond)
	in()
	at.advance(time.Millisecond)
	notIn("after its time")
	login()
	in()
	if err := c.Logout(t.Context(), "ada"); err != nil {
		t.Fatal(err)
	}
	notIn("after logout")
	if err := c.Logout(t.Context(), "ada"); err != nil {
		t.Errorf("logging out again: %v", err)
	}
	if err := c.Login(t.Context(), "bob", time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	notIn("somebody else logged in")
}

func TestLoginCountsAtItsFaceOnly(t *testing.T) {
	records := newTampered()
	at := func(face string) *credential.Cookies {
		return cookies(t, func(c *credential.CookiesConfig) { c.Face, c.Records = face, records })
	}
	if err := at("exa").Login(t.Context(), "ada", time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	for _, face := range []string{"other", "ex", "exaa", "exb"} {
		proof, err := at(face).Prove(t.Context(), cookie(at(face).Sign("ada")))
		refused(t, proof, err, policy.KindCookie, policy.RefusedLogin)
		proof, err = at(face).Prove(t.Context(), cookie(at(face).Sign("aada")))
		refused(t, proof, err, policy.KindCookie, policy.RefusedLogin)
	}
	if _, err := at("exa").Prove(t.Context(), cookie(at("exa").Sign("ada"))); err != nil {
		t.Error(err)
	}
}

func TestLoginKeysRotate(t *testing.T) {
	records := newTampered()
	with := func(keys ...policy.MAC) *credential.Cookies {
		return cookies(t, func(c *credential.CookiesConfig) { c.Logins, c.Records = keys, records })
	}
	old, now := newKey("old"), newKey("new")
	if err := with(old).Login(t.Context(), "ada", time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	c := with(now, old)
	presented := cookie(c.Sign("ada"))
	if _, err := c.Prove(t.Context(), presented); err != nil {
		t.Errorf("with overlap: %v", err)
	}
	proof, err := with(now).Prove(t.Context(), presented)
	refused(t, proof, err, policy.KindCookie, policy.RefusedLogin)
	if err := c.Logout(t.Context(), "ada"); err != nil {
		t.Fatal(err)
	}
	proof, err = with(old).Prove(t.Context(), presented)
	refused(t, proof, err, policy.KindCookie, policy.RefusedLogin)
}

// TestLoginRecordCannotBeWritten: whoever writes to the store can end a login,
// but neither begin, extend nor move one.
func TestLoginRecordCannotBeWritten(t *testing.T) {
	at, records := newClock(), newTampered()
	c := cookies(t, func(c *credential.CookiesConfig) { c.Records, c.Now = records, at.now })
	presented := cookie(c.Sign("ada"))
	if err := c.Login(t.Context(), "ada", time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	digest, record := records.only(t)
	if bytes.Contains(append(bytes.Clone(digest[:]), record...), []byte("ada")) {
		t.Error("the store has the user's name")
	}
	check := func(value []byte) {
		t.Helper()
		records.values[digest] = value
		proof, err := c.Prove(t.Context(), presented)
		refused(t, proof, err, policy.KindCookie, policy.RefusedLogin)
	}
	for bit := range 8 * len(record) {
		changed := bytes.Clone(record)
		changed[bit/8] ^= 1 << (bit % 8)
		check(changed)
	}
	for n := range len(record) {
		check(record[:n])
	}
	check(append(bytes.Clone(record), 0))
	records.values[digest] = record
	if _, err := c.Prove(t.Context(), presented); err != nil {
		t.Fatal(err)
	}
	at.advance(time.Hour) // the store kept it for longer than it should
	check(record)

	clear(records.values)
	if err := c.Login(t.Context(), "bob", time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	_, bobs := records.only(t)
	check(bobs)
}

// TestLoginRecordsStayReadable: an upgrade logs nobody out.
func TestLoginRecordsStayReadable(t *testing.T) {
	at, records, key := newClock(), newTampered(), newKey("login")
	c := cookies(t, func(c *credential.CookiesConfig) { c.Records, c.Now = records, at.now })
	digest := key.MAC(nil, []byte("cardstile login v1\x00\x03exaada"))
	record := binary.BigEndian.AppendUint64([]byte{1}, uint64(at.now().Add(time.Hour).UnixMilli()))
	record = key.MAC(record, slices.Concat([]byte("cardstile login record v1"), digest, record[1:]))
	records.values[store.Digest(digest)] = record
	if proof, err := c.Prove(t.Context(), cookie(c.Sign("ada"))); err != nil || proof.User != "ada" {
		t.Errorf("%+v, %v", proof, err)
	}
	if err := c.Login(t.Context(), "ada", time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	if _, written := records.only(t); !bytes.Equal(written, record) {
		t.Errorf("%x is written, want %x", written, record)
	}
}

func TestCookiesWithoutStore(t *testing.T) {
	records := newTampered()
	c := cookies(t, func(c *credential.CookiesConfig) { c.Records = records })
	if err := c.Login(t.Context(), "ada", time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	records.err = errDown
	proof, err := c.Prove(t.Context(), cookie(c.Sign("ada")))
	unavailable(t, proof, err)
	unavailable(t, policy.Proof{}, c.Login(t.Context(), "ada", time.Hour, 0))
	unavailable(t, policy.Proof{}, c.Logout(t.Context(), "ada"))
	// What the signature refuses does not depend on the store.
	records.asked = 0
	proof, err = c.Prove(t.Context(), cookie(exaCookie+"x"))
	refused(t, proof, err, policy.KindCookie, policy.RefusedMalformed)
	proof, err = c.Prove(t.Context(), cookie(strings.Replace(exaCookie, "0x1", "0x2", 1)))
	refused(t, proof, err, policy.KindCookie, policy.RefusedSignature)
	if records.asked != 0 {
		t.Error("the store was asked about a forged cookie")
	}
}

func TestLoginsThatAreNotBegun(t *testing.T) {
	c := cookies(t, nil)
	for _, value := range []string{"", "a b", "a\n", "é", strings.Repeat("a", 513)} {
		if err := c.Login(t.Context(), value, time.Hour, 0); err == nil {
			t.Errorf("%q is logged in", value)
		}
	}
	for _, ttl := range []time.Duration{0, -1} {
		if err := c.Login(t.Context(), "ada", ttl, 0); err == nil {
			t.Errorf("logged in for %s", ttl)
		}
	}
	s := cookies(t, stateless)
	if s.Login(t.Context(), "ada", time.Hour, 0) == nil || s.Logout(t.Context(), "ada") == nil {
		t.Error("stateless cookies were logged in or out")
	}
}

func TestCookiesConfig(t *testing.T) {
	key := []policy.MAC{newKey("k")}
	for name, config := range map[string]credential.CookiesConfig{
		"zero":                   {},
		"no key":                 {Face: "exa", Stateless: true},
		"no face":                {Signers: key, Stateless: true},
		"no logins":              {Face: "exa", Signers: key},
		"no store":               {Face: "exa", Signers: key, Logins: key},
		"no login key":           {Face: "exa", Signers: key, Records: newTampered()},
		"stateless with a store": {Face: "exa", Signers: key, Records: newTampered(), Stateless: true},
		"stateless with a key":   {Face: "exa", Signers: key, Logins: key, Stateless: true},
	} {
		if c, err := credential.NewCookies(config); err == nil || c != nil {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
}

// TestEverySignedValueIsProven: and no cookie with one character changed.
func TestEverySignedValueIsProven(t *testing.T) {
	c := cookies(t, stateless)
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.StringMatching(`[!-~]{1,64}`).Draw(rt, "value")
		text := c.Sign(value)
		if strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()%") != "" {
			rt.Fatalf("%q is not URL-encoded", text)
		}
		if decoded, err := url.PathUnescape(text); err != nil || !strings.HasPrefix(decoded, value+".") {
			rt.Fatalf("%q decodes to %q: %v", text, decoded, err)
		}
		proof, err := c.Prove(t.Context(), cookie(text))
		if err != nil || proof.User != value {
			rt.Fatalf("%q: %+v, %v", text, proof, err)
		}
		decoded, _ := url.PathUnescape(text)
		changed := []byte(decoded)
		changed[rapid.IntRange(0, len(changed)-1).Draw(rt, "position")] = rapid.Byte().Draw(rt, "character")
		if proof, err := c.Prove(t.Context(), cookie(url.PathEscape(string(changed)))); string(changed) != decoded && err == nil {
			rt.Fatalf("%q beside %q: %+v", changed, decoded, proof)
		}
	})
}

// FuzzCookie: a cookie is accepted only if it says what Sign says, differing at
// most in what is percent-encoded.
func FuzzCookie(f *testing.F) {
	c := cookies(f, stateless)
	f.Add(exaCookie)
	f.Add(strings.Replace(exaCookie, "%3D", "=", 1))
	f.Add("a%2Eb." + exaCookie[len(exaValue)+1:])
	f.Fuzz(func(t *testing.T, text string) {
		proof, err := c.Prove(t.Context(), cookie(text))
		if err != nil {
			if _, ok := errors.AsType[*policy.Refused](err); !ok || proof != (policy.Proof{}) {
				t.Fatalf("%q: %+v, %v", text, proof, err)
			}
			return
		}
		got, err := url.PathUnescape(text)
		want, _ := url.PathUnescape(c.Sign(proof.User))
		if err != nil || got != want {
			t.Fatalf("%q was accepted for user %q, whose cookie is %q", text, proof.User, want)
		}
	})
}

// BenchmarkCookie is the user's proof of every exchange of the exa face.
func BenchmarkCookie(b *testing.B) {
	m, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	c := cookies(b, func(c *credential.CookiesConfig) { c.Records = m })
	if err := c.Login(b.Context(), exaValue, time.Hour, 0); err != nil {
		b.Fatal(err)
	}
	presented := cookie(exaCookie)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Prove(b.Context(), presented); err != nil {
			b.Fatal(err)
		}
	}
}
