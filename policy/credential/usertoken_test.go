package credential_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
)

// ed25519Key is an authority's.
func ed25519Key(t testing.TB, id string) jwtKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return jwtKey{id, "EdDSA", key}
}

func jwksOf(keys ...jwtKey) []byte {
	all := make([]credential.JWTKey, len(keys))
	for i, key := range keys {
		all[i] = key
	}
	return credential.JWKS(all...)
}

func userTokens(t testing.TB, at *clock, jwks []byte) *credential.UserTokens {
	t.Helper()
	u, err := credential.NewUserTokens(credential.UserTokensConfig{
		JWKS: jwks, Issuer: "https://auth.example", Audience: "cards", Environment: "test", Now: at.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// userClaims are those of a user's token, with some set, or taken away where they are nil.
func userClaims(t testing.TB, at *clock, others map[string]any) string {
	t.Helper()
	all := map[string]any{
		"iss": "https://auth.example", "aud": "cards", "sub": "ada", "exp": at.now().Add(time.Hour).Unix(), "iat": at.now().Unix(), "roles": []string{"user"},
	}
	maps.Copy(all, others)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func headerOf(key jwtKey) string { return fmt.Sprintf(`{"alg":%q,"kid":%q}`, key.algorithm, key.id) }

func TestUserTokenProvesItsUser(t *testing.T) {
	at := newClock()
	keys := []jwtKey{es256(t, "e"), {"r", "RS256", rsaKeys()[0]}, {"p", "PS256", rsaKeys()[1]}, ed25519Key(t, "d")}
	u := userTokens(t, at, jwksOf(keys...))
	want := policy.Proof{Kind: policy.KindJWT, User: "ada", Environment: "test", Expires: at.now().Add(time.Hour), ID: "jwt:ada"}
	for _, key := range keys {
		for name, header := range map[string]string{
			"no type": headerOf(key),
			"JWT":     strings.Replace(headerOf(key), "{", `{"typ":"JWT",`, 1),
			"jwt":     strings.Replace(headerOf(key), "{", `{"typ":"jwt",`, 1),
			"at+jwt":  strings.Replace(headerOf(key), "{", `{"typ":"at+jwt",`, 1),
			"media":   strings.Replace(headerOf(key), "{", `{"typ":"application/at+jwt",`, 1),
		} {
			text := forge(t, key, header, userClaims(t, at, nil))
			for range 2 {
				if proof, err := u.Prove(t.Context(), jwt(text)); err != nil || proof != want {
					t.Errorf("%s, %s: %+v, %v", key.algorithm, name, proof, err)
				}
			}
		}
		text := forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"card": "card-1", "aud": []string{"other", "cards"}}))
		narrowed := want
		narrowed.Card = "card-1"
		if proof, err := u.Prove(t.Context(), jwt(text)); err != nil || proof != narrowed {
			t.Errorf("%s: %+v, %v", key.algorithm, proof, err)
		}
	}
}

// TestUserTokensHaveTheirTime: exp is kept to, and clocks may be a minute apart for the others.
func TestUserTokensHaveTheirTime(t *testing.T) {
	at := newClock()
	key := es256(t, "k")
	u := userTokens(t, at, jwksOf(key))
	now := at.now().Unix()
	for name, test := range map[string]struct {
		claims map[string]any
		reason string
	}{
		"no iat":         {map[string]any{"iat": nil}, ""},
		"its last":       {map[string]any{"exp": now + 1}, ""},
		"a fraction":     {map[string]any{"exp": float64(now) + 0.5}, ""},
		"over":           {map[string]any{"exp": now}, policy.RefusedExpired},
		"long over":      {map[string]any{"exp": now - 3600}, policy.RefusedExpired},
		"negative":       {map[string]any{"exp": -1}, policy.RefusedExpired},
		"a minute ahead": {map[string]any{"iat": now + 60, "nbf": now + 60}, ""},
		"from later on":  {map[string]any{"nbf": now + 61}, policy.RefusedExpired},
		"made later on":  {map[string]any{"iat": now + 61}, policy.RefusedExpired},
		"made long ago":  {map[string]any{"iat": 0, "nbf": 0}, ""},
		"no end":         {map[string]any{"exp": nil}, policy.RefusedMalformed},
		"never":          {map[string]any{"exp": 1e300}, policy.RefusedMalformed},
		"end as text":    {map[string]any{"exp": fmt.Sprint(now + 60)}, policy.RefusedMalformed},
		"iat as text":    {map[string]any{"iat": "0"}, policy.RefusedMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			text := forge(t, key, headerOf(key), userClaims(t, at, test.claims))
			if test.reason != "" {
				notProven(t, u, text, test.reason)
			} else if _, err := u.Prove(t.Context(), jwt(text)); err != nil {
				t.Error(err)
			}
		})
	}
	// What was proven once is not good for longer.
	text := forge(t, key, headerOf(key), userClaims(t, at, nil))
	if _, err := u.Prove(t.Context(), jwt(text)); err != nil {
		t.Fatal(err)
	}
	at.advance(time.Hour)
	notProven(t, u, text, policy.RefusedExpired)
}

func TestUserTokensThatProveNothing(t *testing.T) {
	at := newClock()
	key, rsaKey := es256(t, "k"), jwtKey{"r", "RS256", rsaKeys()[0]}
	u := userTokens(t, at, jwksOf(key, rsaKey))
	claims := userClaims(t, at, nil)
	good := forge(t, key, headerOf(key), claims)
	hmacOf := func(id string, secret []byte) string {
		return forge(t, jwtKey{id, "HS256", secret}, `{"alg":"HS256","kid":"`+id+`"}`, claims)
	}
	big := userClaims(t, at, map[string]any{"roles": strings.Repeat("x", 4000)})
	for name, test := range map[string]struct{ text, reason string }{
		"nothing":                {"", policy.RefusedMalformed},
		"two parts":              {good[:strings.LastIndex(good, ".")], policy.RefusedMalformed},
		"padded":                 {good + "=", policy.RefusedMalformed},
		"a line break":           {good + "\n", policy.RefusedMalformed},
		"too long":               {forge(t, key, headerOf(key), big), policy.RefusedMalformed},
		"no claims":              {forge(t, key, headerOf(key), "null"), policy.RefusedMalformed},
		"a list":                 {forge(t, key, headerOf(key), "[]"), policy.RefusedMalformed},
		"a claim twice":          {forge(t, key, headerOf(key), strings.Replace(claims, "{", `{"sub":"bob",`, 1)), policy.RefusedMalformed},
		"an ID token's kind":     {forge(t, key, `{"alg":"ES256","typ":"dpop+jwt","kid":"k"}`, claims), policy.RefusedMalformed},
		"a key of its own":       {forge(t, key, `{"alg":"ES256","kid":"k","jwk":{}}`, claims), policy.RefusedMalformed},
		"a key elsewhere":        {forge(t, key, `{"alg":"ES256","kid":"k","jku":"https://x"}`, claims), policy.RefusedMalformed},
		"critical":               {forge(t, key, `{"alg":"ES256","kid":"k","crit":["exp"],"exp":1}`, claims), policy.RefusedMalformed},
		"another key's id":       {forge(t, key, `{"alg":"ES256","kid":"z"}`, claims), policy.RefusedUnknown},
		"no id, of two keys":     {forge(t, key, `{"alg":"ES256"}`, claims), policy.RefusedUnknown},
		"none":                   {forge(t, key, `{"alg":"none","kid":"k"}`, claims), policy.RefusedSignature},
		"another algorithm":      {forge(t, jwtKey{"r", "PS256", rsaKeys()[0]}, `{"alg":"PS256","kid":"r"}`, claims), policy.RefusedSignature},
		"said to be another":     {forge(t, rsaKey, `{"alg":"PS256","kid":"r"}`, claims), policy.RefusedSignature},
		"another's id":           {forge(t, key, `{"alg":"ES256","kid":"r"}`, claims), policy.RefusedSignature},
		"another key":            {forge(t, es256(t, "k"), headerOf(key), claims), policy.RefusedSignature},
		"another's signature":    {good[:strings.LastIndex(good, ".")+1] + strings.Split(forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"sub": "bob"})), ".")[2], policy.RefusedSignature},
		"HMAC of the public key": {hmacOf("r", rsaKeys()[0].N.Bytes()), policy.RefusedSignature},
		"HMAC of the JWKS":       {hmacOf("k", jwksOf(key, rsaKey)), policy.RefusedSignature},
		"another issuer":         {forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"iss": "https://auth.example/"})), policy.RefusedBound},
		"no issuer":              {forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"iss": nil})), policy.RefusedBound},
		"another audience":       {forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"aud": "card"})), policy.RefusedBound},
		"no audience":            {forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"aud": nil})), policy.RefusedBound},
		"other audiences":        {forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"aud": []string{"a", "b"}})), policy.RefusedBound},
		"an audience of numbers": {forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"aud": []any{"cards", 1}})), policy.RefusedBound},
		"no user":                {forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"sub": nil})), policy.RefusedMalformed},
		"an empty user":          {forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"sub": ""})), policy.RefusedMalformed},
		"a user of spaces":       {forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"sub": "a b"})), policy.RefusedMalformed},
		"a user as a number":     {forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"sub": 1})), policy.RefusedMalformed},
		"an empty card":          {forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"card": ""})), policy.RefusedMalformed},
		"several cards":          {forge(t, key, headerOf(key), userClaims(t, at, map[string]any{"card": []string{"card-1"}})), policy.RefusedMalformed},
	} {
		t.Run(name, func(t *testing.T) { notProven(t, u, test.text, test.reason) })
	}
	proof, err := u.Prove(t.Context(), policy.NewCredential(policy.KindAPIKey, good))
	refused(t, proof, err, policy.KindJWT, policy.RefusedMalformed, good)
	if _, err := u.Prove(t.Context(), jwt(good)); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// TestOneKeyNeedsNoID: neither in the set nor in the token; where both have one, they agree.
func TestOneKeyNeedsNoID(t *testing.T) {
	at := newClock()
	key := es256(t, "k")
	unnamed := []byte(strings.Replace(string(jwksOf(key)), `"kid":"k",`, "", 1))
	for name, test := range map[string]struct {
		jwks   []byte
		header string
		reason string
	}{
		"token without":      {jwksOf(key), `{"alg":"ES256"}`, ""},
		"set without":        {unnamed, `{"alg":"ES256","kid":"k"}`, ""},
		"both without":       {unnamed, `{"alg":"ES256"}`, ""},
		"both with":          {jwksOf(key), `{"alg":"ES256","kid":"k"}`, ""},
		"both, but not same": {jwksOf(key), `{"alg":"ES256","kid":"l"}`, policy.RefusedUnknown},
	} {
		u := userTokens(t, at, test.jwks)
		text := forge(t, key, test.header, userClaims(t, at, nil))
		if test.reason != "" {
			notProven(t, u, text, test.reason)
		} else if _, err := u.Prove(t.Context(), jwt(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// jwk is the JSON of a key, which may be private, with members changed, or taken away where they are nil.
func jwk(t testing.TB, key any, others map[string]any) string {
	t.Helper()
	text, err := jose.JSONWebKey{Key: key}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	maps.Copy(members, others)
	maps.DeleteFunc(members, func(_ string, value any) bool { return value == nil })
	if text, err = json.Marshal(members); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestKeySetsThatAreGood(t *testing.T) {
	curve, edwards := es256(t, "").Public(), ed25519Key(t, "").Public()
	long := rsaKeys()[0].Public()
	for name, set := range map[string]string{
		"implied algorithms": jwk(t, curve, map[string]any{"kid": "a"}) + "," + jwk(t, edwards, map[string]any{"kid": "b"}),
		"for signatures":     jwk(t, curve, map[string]any{"use": "sig", "key_ops": []string{"verify"}}),
		"other members":      jwk(t, long, map[string]any{"alg": "RS256", "x5t": "AAAAAAAAAAAAAAAAAAAAAAAAAAA", "issuer": "x"}),
		"certificates":       jwk(t, long, map[string]any{"alg": "RS256", "x5t": 1, "x5t#S256": "A", "x5u": "x", "x5c": []string{"AAAA"}}),
	} {
		if u, err := credential.NewUserTokens(credential.UserTokensConfig{JWKS: []byte(`{"keys":[` + set + `]}`), Issuer: "i", Audience: "a", Environment: "test"}); err != nil || u == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeySetsThatAreRefused: what is wrong is said, by the key's place, and nothing of it is quoted.
func TestKeySetsThatAreRefused(t *testing.T) {
	private := es256(t, "").secret
	curve, edwards := es256(t, "").Public(), ed25519Key(t, "").secret
	long := rsaKeys()[0]
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	even := rsa.PublicKey{N: long.N, E: 65536}
	huge := rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 8192), big.NewInt(1)), E: 65537}
	one := func(key string) string { return `{"keys":[` + key + `]}` }
	named := func(id string) map[string]any { return map[string]any{"kid": id} }
	const secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
	for name, test := range map[string]struct{ set, want string }{
		"nothing":          {"", "not a JSON object"},
		"a list":           {"[]", "not a JSON object"},
		"no keys":          {"{}", "want 1 to 64 keys"},
		"an empty list":    {one(""), "want 1 to 64 keys"},
		"too many":         {one(strings.Repeat(`{},`, 64) + "{}"), "want 1 to 64 keys"},
		"too long":         {one(jwk(t, curve, nil)) + strings.Repeat(" ", 256<<10), "longer than"},
		"more after it":    {one(jwk(t, curve, nil)) + "{}", "not a JSON object"},
		"keys twice":       {`{"keys":[],"keys":[` + jwk(t, curve, nil) + `]}`, "a name stands in it twice"},
		"a text":           {one(`"` + secret + `"`), "key 1: it is not an object"},
		"a member twice":   {one(strings.Replace(jwk(t, curve, nil), "{", `{"kty":"EC",`, 1)), "a name stands in it twice"},
		"symmetric":        {one(`{"kty":"oct","k":"` + secret + `"}`), "key 1: it is a private or a symmetric key"},
		"symmetric, hid":   {one(`{"kty":"oct","alg":"HS256"}`), "key 1: it is a symmetric key"},
		"labelled ES256":   {one(`{"kty":"oct","alg":"ES256","k":"` + secret + `"}`), "key 1: it is a private or a symmetric key"},
		"private EC":       {one(jwk(t, private, nil)), "key 1: it is a private"},
		"private Ed25519":  {one(jwk(t, edwards, nil)), "key 1: it is a private"},
		"private RSA":      {one(jwk(t, long, map[string]any{"alg": "RS256"})), "key 1: it is a private"},
		"half private RSA": {one(jwk(t, long.Public(), map[string]any{"alg": "RS256", "p": secret})), "key 1: it is a private"},
		"the second":       {one(jwk(t, curve, named("a")) + "," + jwk(t, private, named("b"))), "key 2: it is a private"},
		"no type":          {one(`{"kid":"a"}`), "key 1: it is no key that we know"},
		"another type":     {one(`{"kty":"AKP","alg":"ML-DSA-44"}`), "key 1: it is no key that we know"},
		"off the curve":    {one(jwk(t, curve, map[string]any{"x": base64.RawURLEncoding.EncodeToString(make([]byte, 32))})), "key 1: it is no key that we know"},
		"another curve":    {one(jwk(t, p384.Public(), nil)), "key 1: want an alg"},
		"ES384":            {one(jwk(t, p384.Public(), map[string]any{"alg": "ES384"})), "key 1: want an alg"},
		"another's alg":    {one(jwk(t, curve, map[string]any{"alg": "EdDSA"})), "key 1: want an alg"},
		"HS256":            {one(jwk(t, curve, map[string]any{"alg": "HS256"})), "key 1: want an alg"},
		"none":             {one(jwk(t, curve, map[string]any{"alg": "none"})), "key 1: want an alg"},
		"RSA without alg":  {one(jwk(t, long.Public(), nil)), "key 1: want an alg"},
		"RS384":            {one(jwk(t, long.Public(), map[string]any{"alg": "RS384"})), "key 1: want an alg"},
		"short RSA":        {one(jwk(t, short.Public(), map[string]any{"alg": "RS256"})), "key 1: want an RSA key of 2048"},
		"long RSA":         {one(jwk(t, &huge, map[string]any{"alg": "RS256"})), "key 1: it is no key that we know"},
		"even exponent":    {one(jwk(t, &even, map[string]any{"alg": "RS256"})), "key 1: want an RSA key of 2048"},
		"for encryption":   {one(jwk(t, curve, map[string]any{"use": "enc"})), "key 1: it is not for verifying"},
		"for signing":      {one(jwk(t, curve, map[string]any{"key_ops": []string{"sign"}})), "key 1: it is not for verifying"},
		"for nothing":      {one(jwk(t, curve, map[string]any{"key_ops": []string{}})), "key 1: it is not for verifying"},
		"ids":              {one(jwk(t, curve, nil) + "," + jwk(t, long.Public(), map[string]any{"alg": "RS256", "kid": "b"})), "key 1: one of several keys needs a kid"},
		"one id":           {one(jwk(t, curve, named("a")) + "," + jwk(t, long.Public(), map[string]any{"alg": "RS256", "kid": "a"})), "key 2: another key has its kid"},
		"long id":          {one(jwk(t, curve, named(strings.Repeat("a", 513)))), "key 1: its kid is longer"},
		"one key, two algorithms [23]": {
			one(jwk(t, long.Public(), map[string]any{"alg": "RS256", "kid": "a"}) + "," + jwk(t, long.Public(), map[string]any{"alg": "PS256", "kid": "b"})),
			"key 2: another entry is the same key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := credential.NewUserTokens(credential.UserTokensConfig{JWKS: []byte(test.set), Issuer: "i", Audience: "a", Environment: "test"})
			if err == nil || u != nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v, want %q", err, test.want)
			}
			var members struct{ Keys []map[string]any }
			_ = json.Unmarshal([]byte(test.set), &members)
			for _, key := range members.Keys {
				for name, value := range key {
					if text, ok := value.(string); ok && len(text) > 16 && strings.Contains(err.Error(), text) {
						t.Errorf("the error quotes %q: %v", name, err)
					}
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Error("the error quotes a secret")
			}
		})
	}
}

func TestUserTokensConfig(t *testing.T) {
	full := credential.UserTokensConfig{JWKS: jwksOf(es256(t, "k")), Issuer: "i", Audience: "a", Environment: "test"}
	for name, change := range map[string]func(*credential.UserTokensConfig){
		"issuer":      func(c *credential.UserTokensConfig) { c.Issuer = "" },
		"audience":    func(c *credential.UserTokensConfig) { c.Audience = "" },
		"environment": func(c *credential.UserTokensConfig) { c.Environment = "" },
		"jwks":        func(c *credential.UserTokensConfig) { c.JWKS = nil },
	} {
		config := full
		change(&config)
		if u, err := credential.NewUserTokens(config); err == nil || u != nil {
			t.Errorf("%s: %v, %v", name, u, err)
		}
	}
}

// FuzzUserToken: nothing but what the authority signed is proven.
func FuzzUserToken(f *testing.F) {
	at := newClock()
	key := es256(f, "k")
	u := userTokens(f, at, jwksOf(key))
	good := forge(f, key, headerOf(key), userClaims(f, at, nil))
	f.Add(good)
	f.Add(forge(f, hs256("k"), `{"alg":"HS256","kid":"k"}`, userClaims(f, at, nil)))
	f.Add(forge(f, key, `{"alg":"ES256"}`, `{}`))
	f.Fuzz(func(t *testing.T, text string) {
		proof, err := u.Prove(t.Context(), jwt(text))
		if (err == nil) != (text == good) || err != nil && proof != (policy.Proof{}) {
			t.Fatalf("%q: %+v, %v", text, proof, err)
		}
	})
}
