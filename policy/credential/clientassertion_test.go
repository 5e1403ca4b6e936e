package credential_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
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

const tokenEndpoint = "https://pg.example/auth/token"

func clientAssertions(t testing.TB, s store.Once, at *clock, change func(*credential.ClientAssertionsConfig)) *credential.ClientAssertions {
	t.Helper()
	two := account(t)
	two.ID, two.Keys = "acc-2", []credential.AccountKey{accountKey(t, &rsaKeys()[1].PublicKey)}
	config := credential.ClientAssertionsConfig{
		Accounts: accounts(t, account(t), two), Audiences: []string{"https://pg.example", tokenEndpoint},
		Store: s, Digests: []policy.MAC{newKey("digest")}, Now: at.now,
	}
	if change != nil {
		change(&config)
	}
	a, err := credential.NewClientAssertions(config)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// claims of a good assertion, of which some are others or, where nil, missing.
func claims(t testing.TB, at *clock, others map[string]any) string {
	t.Helper()
	all := map[string]any{
		"iss": "acc-1", "sub": "acc-1", "aud": tokenEndpoint, "jti": "id-1",
		"iat": at.now().Unix(), "exp": at.now().Unix() + 60,
	}
	for name, value := range others {
		all[name] = value
		if value == nil {
			delete(all, name)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// assertionOf signs claims with a key of the rsaKeys.
func assertionOf(t testing.TB, key int, algorithm, claims string) policy.Credential {
	t.Helper()
	return signature(forge(t, jwtKey{"", algorithm, rsaKeys()[key]}, `{"alg":"`+algorithm+`","typ":"JWT"}`, claims))
}

func TestClientAssertionIsProvenOnce(t *testing.T) {
	at := newClock()
	a := clientAssertions(t, memory(t, at), at, nil)
	for i, algorithm := range []string{"RS256", "PS256"} {
		for name, others := range map[string]map[string]any{
			"full": {}, "list of one": {"aud": []string{tokenEndpoint}}, "issuer": {"aud": "https://pg.example"},
			"no iat": {"iat": nil}, "more claims": {"x": map[string]any{"y": 1}, "nbf": at.now().Unix() - 5}, "fractions": {"exp": float64(at.now().Unix()) + 59.5},
		} {
			others["jti"] = fmt.Sprint(name, i)
			presented := assertionOf(t, 0, algorithm, claims(t, at, others))
			proof, err := a.Prove(t.Context(), presented)
			if err != nil || proof != (policy.Proof{
				Kind: policy.KindSignature, Partner: "pg", Account: "acc-1", Environment: "test", ID: "private_key_jwt:acc-1", Key: spki(0),
			}) {
				t.Errorf("%s: %+v, %v", name, proof, err)
			}
			proof, err = a.Prove(t.Context(), presented)
			refused(t, proof, err, policy.KindSignature, policy.RefusedSpent, presented.Value())
			proof, err = a.Prove(t.Context(), assertionOf(t, 0, algorithm, claims(t, at, map[string]any{"jti": others["jti"], "exp": at.now().Unix() + 61})))
			refused(t, proof, err, policy.KindSignature, policy.RefusedSpent)
		}
	}
	// Another account's id of the same name is another's.
	if proof, err := a.Prove(t.Context(), assertionOf(t, 1, "PS256", claims(t, at, map[string]any{"iss": "acc-2", "sub": "acc-2", "jti": "full0"}))); err != nil || proof.Account != "acc-2" {
		t.Errorf("%+v, %v", proof, err)
	}
}

// TestClientAssertionIsSpentForItsLife: to the last moment in which it would be
// accepted.
func TestClientAssertionIsSpentForItsLife(t *testing.T) {
	at := newClock()
	a := clientAssertions(t, memory(t, at), at, nil)
	presented := assertionOf(t, 0, "RS256", claims(t, at, map[string]any{"exp": at.now().Unix() + 60}))
	if _, err := a.Prove(t.Context(), presented); err != nil {
		t.Fatal(err)
	}
	at.advance(2*time.Minute - time.Millisecond)
	proof, err := a.Prove(t.Context(), presented)
	refused(t, proof, err, policy.KindSignature, policy.RefusedSpent)
	at.advance(time.Millisecond)
	proof, err = a.Prove(t.Context(), presented)
	refused(t, proof, err, policy.KindSignature, policy.RefusedExpired)
}

func TestClientAssertionsThatProveNothing(t *testing.T) {
	at, s := newClock(), newTampered()
	a := clientAssertions(t, memory(t, at), at, nil)
	now := at.now().Unix()
	for name, test := range map[string]struct {
		others map[string]any
		reason string
	}{
		"no issuer":          {map[string]any{"iss": nil}, policy.RefusedMalformed},
		"no subject":         {map[string]any{"sub": nil}, policy.RefusedMalformed},
		"neither":            {map[string]any{"iss": "", "sub": ""}, policy.RefusedMalformed},
		"another subject":    {map[string]any{"sub": "acc-2"}, policy.RefusedMalformed},
		"another issuer":     {map[string]any{"iss": "acc-2"}, policy.RefusedMalformed},
		"another account":    {map[string]any{"iss": "acc-2", "sub": "acc-2"}, policy.RefusedSignature},
		"nobody":             {map[string]any{"iss": "acc-3", "sub": "acc-3"}, policy.RefusedSignature},
		"no end":             {map[string]any{"exp": nil}, policy.RefusedMalformed},
		"its end as text":    {map[string]any{"exp": fmt.Sprint(now + 60)}, policy.RefusedMalformed},
		"no id":              {map[string]any{"jti": nil}, policy.RefusedMalformed},
		"empty id":           {map[string]any{"jti": ""}, policy.RefusedMalformed},
		"long id":            {map[string]any{"jti": strings.Repeat("x", 257)}, policy.RefusedMalformed},
		"id is a number":     {map[string]any{"jti": 1}, policy.RefusedMalformed},
		"no audience":        {map[string]any{"aud": nil}, policy.RefusedBound},
		"empty audience":     {map[string]any{"aud": ""}, policy.RefusedBound},
		"no audiences":       {map[string]any{"aud": []string{}}, policy.RefusedBound},
		"another audience":   {map[string]any{"aud": "https://other.example"}, policy.RefusedBound},
		"one slash more":     {map[string]any{"aud": tokenEndpoint + "/"}, policy.RefusedBound},
		"ours and another":   {map[string]any{"aud": []string{tokenEndpoint, "https://other.example"}}, policy.RefusedBound},
		"ours twice":         {map[string]any{"aud": []string{tokenEndpoint, tokenEndpoint}}, policy.RefusedBound},
		"a number":           {map[string]any{"aud": 1}, policy.RefusedBound},
		"over":               {map[string]any{"exp": now - 60}, policy.RefusedExpired},
		"too long":           {map[string]any{"exp": now + 361}, policy.RefusedExpired},
		"years":              {map[string]any{"exp": 1e300}, policy.RefusedExpired},
		"before time":        {map[string]any{"exp": -1e300}, policy.RefusedExpired},
		"made ahead":         {map[string]any{"iat": now + 61}, policy.RefusedExpired},
		"begins ahead":       {map[string]any{"nbf": now + 61}, policy.RefusedExpired},
		"made long ago":      {map[string]any{"iat": now - 300}, policy.RefusedExpired},
		"clock 5 min behind": {map[string]any{"iat": now - 300, "exp": now}, policy.RefusedExpired},
		"clock 5 min ahead":  {map[string]any{"iat": now + 300, "exp": now + 330}, policy.RefusedExpired},
	} {
		presented := assertionOf(t, 0, "RS256", claims(t, at, test.others))
		proof, err := a.Prove(t.Context(), presented)
		if r, ok := errors.AsType[*policy.Refused](err); !ok || r.Reason != test.reason {
			t.Errorf("%s: %v, want %q", name, err, test.reason)
			continue
		}
		refused(t, proof, err, policy.KindSignature, test.reason, presented.Value())
	}
	for name, others := range map[string]map[string]any{
		"over, within the skew": {"jti": "a", "exp": now - 59}, "long, within the skew": {"jti": "b", "exp": now + 360},
		"made a minute ahead": {"jti": "c", "iat": now + 60, "nbf": now + 60}, "made a while ago": {"jti": "d", "iat": now - 299}, "longest id": {"jti": strings.Repeat("x", 256)},
	} {
		if _, err := a.Prove(t.Context(), assertionOf(t, 0, "RS256", claims(t, at, others))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The id of none of those that were refused is used up, and the store was not asked.
	if _, err := a.Prove(t.Context(), assertionOf(t, 0, "RS256", claims(t, at, nil))); err != nil {
		t.Error(err)
	}
	a = clientAssertions(t, onceDown{s}, at, nil)
	proof, err := a.Prove(t.Context(), assertionOf(t, 2, "RS256", claims(t, at, nil)))
	refused(t, proof, err, policy.KindSignature, policy.RefusedSignature)
	proof, err = a.Prove(t.Context(), assertionOf(t, 0, "RS256", claims(t, at, nil)))
	unavailable(t, proof, err)
	// Where there are no accounts.
	a = clientAssertions(t, onceDown{s}, at, func(c *credential.ClientAssertionsConfig) { c.Accounts = accounts(t) })
	proof, err = a.Prove(t.Context(), assertionOf(t, 0, "RS256", claims(t, at, nil)))
	refused(t, proof, err, policy.KindSignature, policy.RefusedSignature)
}

// TestClientAssertionsOfNobody: the refusal says nothing, also where the account
// that stands in for the missing one has the key.
func TestClientAssertionsOfNobody(t *testing.T) {
	at := newClock()
	a := clientAssertions(t, memory(t, at), at, nil)
	for _, id := range []string{"acc-2", "acc-3"} {
		_, err := a.Prove(t.Context(), assertionOf(t, 0, "RS256", claims(t, at, map[string]any{"iss": id, "sub": id})))
		if err == nil || err.Error() != "refused signature: signature" {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestClientAssertionsThatAreNotRead(t *testing.T) {
	at := newClock()
	a := clientAssertions(t, memory(t, at), at, nil)
	good := claims(t, at, nil)
	rs := jwtKey{"", "RS256", rsaKeys()[0]}
	read := 0
	for header, ok := range map[string]bool{
		`{"alg":"RS256"}`:                                           true,
		`{"alg":"RS256","kid":"whatever"}`:                          true,
		`{"alg":"RS256","typ":"jwt"}`:                               true,
		`{"alg":"RS256","typ":"client-authentication+jwt"}`:         true,
		`{"alg":"RS256","typ":"at+jwt"}`:                            false,
		`{"alg":"RS256","jwk":{"kty":"RSA","n":"AAAA","e":"AQAB"}}`: false,
		`{"alg":"RS256","x5u":"https://x"}`:                         false,
		`{"alg":"RS256","crit":["b64"],"b64":true}`:                 false,
		`{"alg":"RS256","alg":"RS256"}`:                             false,
		`{"alg":"none"}`:                                            false,
		`{"alg":"HS256"}`:                                           false,
		`{"alg":"RS384"}`:                                           false,
		`{"alg":"ES256"}`:                                           false,
		`{}`:                                                        false,
	} {
		body := strings.Replace(good, "id-1", fmt.Sprint("header-", read), 1)
		read++
		_, err := a.Prove(t.Context(), signature(forge(t, rs, header, body)))
		if r, refused := errors.AsType[*policy.Refused](err); (err == nil) != ok || err != nil && (!refused || r.Reason != policy.RefusedMalformed) {
			t.Errorf("%s: %v", header, err)
		}
	}
	text := assertionOf(t, 0, "RS256", good).Value()
	for name, presented := range map[string]policy.Credential{
		"twice": assertionOf(t, 0, "RS256", strings.Replace(good, `"jti"`, `"jti":"x","jti"`, 1)), "capitals": assertionOf(t, 0, "RS256", strings.Replace(good, `"jti"`, `"JTI"`, 1)),
		"no object": assertionOf(t, 0, "RS256", `"x"`), "null": assertionOf(t, 0, "RS256", "null"), "no JSON": assertionOf(t, 0, "RS256", "{"), "more": assertionOf(t, 0, "RS256", good+"{}"),
		"infinite": assertionOf(t, 0, "RS256", strings.Replace(good, `"exp":`, `"exp":1e999,"x":`, 1)),
		"long":     assertionOf(t, 0, "RS256", good+strings.Repeat(" ", 4000)), "another kind": policy.NewCredential(policy.KindJWT, text),
		"newline": signature(text + "\n"), "padded": signature(text + "="), "two parts": signature(text[:strings.LastIndexByte(text, '.')]), "nothing": signature(""),
	} {
		proof, err := a.Prove(t.Context(), presented)
		if err == nil {
			t.Fatalf("%s is proven", name)
		}
		refused(t, proof, err, policy.KindSignature, policy.RefusedMalformed)
	}
	// An algorithm on another's signature.
	parts := strings.Split(assertionOf(t, 0, "PS256", good).Value(), ".")
	proof, err := a.Prove(t.Context(), signature(strings.Split(text, ".")[0]+"."+parts[1]+"."+parts[2]))
	refused(t, proof, err, policy.KindSignature, policy.RefusedSignature)
	// HMAC with the public key.
	h := hmac.New(sha256.New, account(t).Keys[0].Public.N.Bytes())
	confused := jwtKey{"", "HS256", h.Sum(nil)}
	proof, err = a.Prove(t.Context(), signature(forge(t, confused, `{"alg":"RS256"}`, good)))
	refused(t, proof, err, policy.KindSignature, policy.RefusedSignature)
}

// TestClientAssertionKeysRotate: those of the account, and those of what was
// seen.
func TestClientAssertionKeysRotate(t *testing.T) {
	at := newClock()
	m := memory(t, at)
	old, now := newKey("2025"), newKey("2026")
	with := func(keys ...policy.MAC) *credential.ClientAssertions {
		return clientAssertions(t, m, at, func(c *credential.ClientAssertionsConfig) {
			one := account(t)
			one.Keys = append(one.Keys, accountKey(t, &rsaKeys()[1].PublicKey))
			c.Accounts, c.Digests = accounts(t, one), keys
		})
	}
	for key := range 2 {
		presented := assertionOf(t, key, "PS256", claims(t, at, map[string]any{"jti": fmt.Sprint(key)}))
		proof, err := with(old).Prove(t.Context(), presented)
		if err != nil || proof.Key != spki(key) {
			t.Fatalf("%+v, %v", proof, err)
		}
		proof, err = with(now, old).Prove(t.Context(), presented)
		refused(t, proof, err, policy.KindSignature, policy.RefusedSpent)
	}
	presented := assertionOf(t, 0, "PS256", claims(t, at, nil))
	if _, err := with(now, old).Prove(t.Context(), presented); err != nil {
		t.Fatal(err)
	}
	for _, keys := range [][]policy.MAC{{old}, {now}} {
		proof, err := with(keys...).Prove(t.Context(), presented)
		refused(t, proof, err, policy.KindSignature, policy.RefusedSpent)
	}
}

func TestRacingClientAssertions(t *testing.T) {
	at := newClock()
	a := clientAssertions(t, memory(t, at), at, nil)
	presented := assertionOf(t, 0, "PS256", claims(t, at, nil))
	var won atomic.Int64
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := a.Prove(t.Context(), presented); err == nil {
				won.Add(1)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d won", won.Load())
	}
}

func TestClientAssertionsConfig(t *testing.T) {
	at := newClock()
	full := credential.ClientAssertionsConfig{
		Accounts: accounts(t), Audiences: []string{"a"}, Store: memory(t, at), Digests: []policy.MAC{newKey("d")},
	}
	if _, err := credential.NewClientAssertions(full); err != nil {
		t.Fatal(err)
	}
	for name, drop := range map[string]func(*credential.ClientAssertionsConfig){
		"accounts": func(c *credential.ClientAssertionsConfig) { c.Accounts = nil }, "audiences": func(c *credential.ClientAssertionsConfig) { c.Audiences = nil },
		"a named audience": func(c *credential.ClientAssertionsConfig) { c.Audiences = []string{"a", ""} },
		"store":            func(c *credential.ClientAssertionsConfig) { c.Store = nil }, "digests": func(c *credential.ClientAssertionsConfig) { c.Digests = nil },
	} {
		config := full
		drop(&config)
		if a, err := credential.NewClientAssertions(config); err == nil || a != nil {
			t.Errorf("without %s: %v, %v", name, a, err)
		}
	}
}

// FuzzClientAssertionClaims: what is proven of claims that the right key signed
// says, read by another parser, what it must.
func FuzzClientAssertionClaims(f *testing.F) {
	at := newClock()
	m := memory(f, at)
	a := clientAssertions(f, m, at, nil)
	f.Add(claims(f, at, nil))
	f.Add(claims(f, at, map[string]any{"aud": []string{tokenEndpoint}, "nbf": 1}))
	f.Add(claims(f, at, map[string]any{"exp": 1e300}))
	f.Add(`{"iss":"acc-1"}`)
	f.Fuzz(func(t *testing.T, payload string) {
		if payload == "" {
			return
		}
		_, err := a.Prove(t.Context(), assertionOf(t, 0, "RS256", payload))
		if err != nil {
			if _, ok := errors.AsType[*policy.Refused](err); !ok {
				t.Fatalf("%q: %v", payload, err)
			}
			return
		}
		var said map[string]any
		if err := json.Unmarshal([]byte(payload), &said); err != nil {
			t.Fatalf("%q is proven: %v", payload, err)
		}
		id, _ := said["jti"].(string)
		end, _ := said["exp"].(float64)
		audience := said["aud"]
		if list, ok := audience.([]any); ok && len(list) == 1 {
			audience = list[0]
		}
		name, _ := audience.(string)
		left := end - float64(at.now().Unix())
		if said["iss"] != "acc-1" || said["sub"] != "acc-1" || id == "" || left <= -60 || left > 360 ||
			!slices.Contains([]string{tokenEndpoint, "https://pg.example"}, name) {
			t.Fatalf("%q is proven", payload)
		}
	})
}

// onceDown is a store that cannot say whether it has seen something.
type onceDown struct{ *tampered }

func (onceDown) Once(context.Context, store.Kind, store.Digest, time.Duration) error { return errDown }
