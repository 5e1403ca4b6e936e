package credential_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

func jwts(t testing.TB, f *credential.Families, at *clock, keys ...credential.JWTKey) *credential.JWTs {
	t.Helper()
	j, err := credential.NewJWTs(credential.JWTsConfig{
		Issuer: "https://pg.example", Audience: "pg", Environment: "test", Keys: keys, Families: f, Now: at.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func jwt(text string) policy.Credential { return policy.NewCredential(policy.KindJWT, text) }

func access(t testing.TB, j *credential.JWTs, s credential.Session) string {
	t.Helper()
	text, _, err := j.Mint(s)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func notProven(t testing.TB, j credential.Prover, text, reason string) {
	t.Helper()
	proof, err := j.Prove(t.Context(), jwt(text))
	refused(t, proof, err, policy.KindJWT, reason, text)
}

func TestAccessTokenProvesItsAccount(t *testing.T) {
	at := newClock()
	f := families(t, memory(t, at), at, nil)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []jwtKey{
		hs256("k"), es256(t, "k"), {"k", "RS256", rsaKeys()[0]}, {"k", "PS256", rsaKeys()[0]}, {"k", "EdDSA", edwards},
	} {
		t.Run(key.algorithm, func(t *testing.T) {
			j := jwts(t, f, at, key)
			for _, weak := range []bool{true, false} {
				_, session, err := f.Begin(t.Context(), "acc-1", weak, spki(0), 7)
				if err != nil {
					t.Fatal(err)
				}
				text, expires, err := j.Mint(session)
				if err != nil || !expires.Equal(at.now().Add(time.Hour)) {
					t.Fatalf("until %s, %v", expires, err)
				}
				if got, want := part(t, text, 0), `{"alg":"`+key.algorithm+`","typ":"JWT","kid":"k"}`; got != want {
					t.Errorf("the header is %s, want %s", got, want)
				}
				acr := ""
				if weak {
					acr = `,"acr":"low"`
				}
				want := fmt.Sprintf(`^{"iss":"https://pg\.example","aud":"pg","sub":"acc-1","exp":%d,"iat":%d,"jti":"[\w-]{22}","sid":"[\w-]{38}"%s}$`,
					expires.Unix(), at.now().Unix(), acr)
				if got := part(t, text, 1); !regexp.MustCompile(want).MatchString(got) {
					t.Errorf("the claims are %s", got)
				}
				if other := access(t, j, session); part(t, other, 1) == part(t, text, 1) {
					t.Error("two tokens have one id")
				}
				proof, err := j.Prove(t.Context(), jwt(text))
				if err != nil || proof != (policy.Proof{
					Kind: policy.KindJWT, Partner: "pg", Account: "acc-1", Environment: "test", Weak: weak, Expires: expires, ID: "jwt:acc-1",
					Minted: true, Generation: 7,
				}) {
					t.Errorf("%+v, %v", proof, err)
				}
			}
		})
	}
}

// TestAccessTokenEndsWithItsLogin: on every instance.
func TestAccessTokenEndsWithItsLogin(t *testing.T) {
	at, s := newClock(), newTampered()
	m := memory(t, at)
	here, there := families(t, m, at, nil), families(t, m, at, nil)
	key := hs256("k")
	c, session := begin(t, here)
	text := access(t, jwts(t, here, at, key), session)
	if _, err := jwts(t, there, at, key).Prove(t.Context(), jwt(text)); err != nil {
		t.Fatal(err)
	}
	// At another face, and where nothing is known of the login.
	notProven(t, jwts(t, families(t, m, at, func(c *credential.FamiliesConfig) { c.Face = "other" }), at, key), text, policy.RefusedLogin)
	unknowing := jwts(t, families(t, s, at, nil), at, key)
	notProven(t, unknowing, text, policy.RefusedLogin)
	s.err = errDown
	proof, err := unknowing.Prove(t.Context(), jwt(text))
	unavailable(t, proof, err)

	if err := here.Revoke(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	notProven(t, jwts(t, there, at, key), text, policy.RefusedLogin)
	notProven(t, jwts(t, there, at, key), access(t, jwts(t, here, at, key), session), policy.RefusedLogin)

	// A refresh token that comes twice ends it too.
	c, session = begin(t, here)
	text = access(t, jwts(t, here, at, key), session)
	next(t, here, c, 1)
	notRedeemed(t, there, c, 2, policy.RefusedSpent)
	notProven(t, jwts(t, there, at, key), text, policy.RefusedLogin)
}

func TestAccessTokenEndsWithItsAccount(t *testing.T) {
	at := newClock()
	d := newDirectory(t, account(t))
	f := families(t, memory(t, at), at, func(c *credential.FamiliesConfig) { c.Accounts = d })
	j := jwts(t, f, at, hs256("k"))
	_, session := begin(t, f)
	text := access(t, j, session)
	for reason, change := range map[string]func(*credential.Account){
		policy.RefusedUnknown:     func(a *credential.Account) { a.ID = "acc-2" },
		policy.RefusedEnvironment: func(a *credential.Account) { a.Environment = "production" },
		policy.RefusedLogin:       func(a *credential.Account) { a.Login = credential.LoginCertificate },
	} {
		changed := account(t)
		change(&changed)
		d.Store(accounts(t, changed))
		notProven(t, j, text, reason)
	}
	moved := account(t)
	moved.Partner = "other"
	d.Store(accounts(t, moved))
	if proof, err := j.Prove(t.Context(), jwt(text)); err != nil || proof.Partner != "other" {
		t.Errorf("%+v, %v; want the partner that the account has now", proof, err)
	}
}

func TestAccessTokenHasItsTime(t *testing.T) {
	at := newClock()
	at.advance(300 * time.Millisecond)
	f := families(t, memory(t, at), at, nil)
	j := jwts(t, f, at, hs256("k"))
	_, session := begin(t, f)
	text, expires, err := j.Mint(session)
	if err != nil {
		t.Fatal(err)
	}
	// The token says whole seconds.
	end := at.now().Add(time.Hour).Truncate(time.Second).UnixNano()
	at.nanos.Store(end - 1)
	if proof, err := j.Prove(t.Context(), jwt(text)); err != nil || !proof.Expires.Equal(expires) || expires.UnixNano() != end {
		t.Errorf("in its last moment: %+v, %v", proof, err)
	}
	at.nanos.Store(end)
	notProven(t, j, text, policy.RefusedExpired)
}

// counting is a key that counts what it verified.
type counting struct {
	jwtKey
	verified *atomic.Int64
}

func (k counting) Verify(message, signature []byte) bool {
	k.verified.Add(1)
	return k.jwtKey.Verify(message, signature)
}

// TestTokenIsVerifiedOnce: a token's signature is verified when it first comes;
// everything else is asked each time. What is not good is verified each time.
func TestTokenIsVerifiedOnce(t *testing.T) {
	at := newClock()
	f := families(t, memory(t, at), at, nil)
	key := counting{es256(t, "k"), new(atomic.Int64)}
	j := jwts(t, f, at, key)
	c, session := begin(t, f)
	text := access(t, j, session)
	for range 3 {
		if _, err := j.Prove(t.Context(), jwt(text)); err != nil {
			t.Fatal(err)
		}
	}
	if n := key.verified.Load(); n != 1 {
		t.Errorf("verified %d times", n)
	}
	// Another signature over the same claims is another token.
	parts := strings.Split(text, ".")
	other := strings.Split(access(t, j, session), ".")
	for range 2 {
		notProven(t, j, parts[0]+"."+parts[1]+"."+other[2], policy.RefusedSignature)
	}
	if n := key.verified.Load(); n != 3 {
		t.Errorf("verified %d times, two bad ones included", n)
	}
	// Many others' tokens, of which there is room for some, take none of its time or login away.
	for range 4097 {
		if _, err := j.Prove(t.Context(), jwt(access(t, j, session))); err != nil {
			t.Fatal(err)
		}
	}
	before := key.verified.Load()
	if _, err := j.Prove(t.Context(), jwt(text)); err != nil || key.verified.Load() != before+1 {
		t.Errorf("%v, verified %d times: what is remembered is without bound", err, key.verified.Load()-before)
	}
	if err := f.Revoke(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	notProven(t, j, text, policy.RefusedLogin)
	at.advance(time.Hour)
	notProven(t, j, text, policy.RefusedExpired)
	// The keys that are there now are asked, whatever other ones said.
	notProven(t, jwts(t, f, at, es256(t, "k")), text, policy.RefusedSignature)
}

// TestHeadersThatAreNotOurs: each is signed with the right key, so that nothing
// else is wrong with it.
func TestHeadersThatAreNotOurs(t *testing.T) {
	at, s := newClock(), newTampered()
	f := families(t, s, at, nil)
	key, curve := hs256("k"), es256(t, "e")
	j := jwts(t, f, at, key, curve)
	_, session := begin(t, f)
	payload := part(t, access(t, j, session), 1)
	if _, err := j.Prove(t.Context(), jwt(forge(t, key, `{"alg":"HS256","typ":"JWT","kid":"k"}`, payload))); err != nil {
		t.Fatal(err)
	}
	s.asked = 0
	for header, reason := range map[string]string{
		`{"alg":"HS256","typ":"JWT","kid":"k","jku":"https://x"}`:              policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","jwk":{"kty":"oct","k":"AAAA"}}`: policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","x5u":"https://x"}`:              policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","x5c":[]}`:                       policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","x5t":"A"}`:                      policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","zip":"DEF"}`:                    policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","crit":["exp"],"exp":1}`:         policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","crit":[]}`:                      policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","b64":false}`:                    policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","b64":true,"crit":["b64"]}`:      policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","enc":"A128GCM"}`:                policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","cty":"JWT"}`:                    policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","nonce":"x"}`:                    policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k","kid":"k"}`:                      policy.RefusedMalformed,
		`{"alg":"none","alg":"HS256","typ":"JWT","kid":"k"}`:                   policy.RefusedMalformed,
		`{"Alg":"HS256","typ":"JWT","kid":"k"}`:                                policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","KID":"k"}`:                                policy.RefusedMalformed,
		`{"alg":"HS256","typ":"at+jwt","kid":"k"}`:                             policy.RefusedMalformed,
		`{"alg":"HS256","typ":"jwt","kid":"k"}`:                                policy.RefusedMalformed,
		`{"alg":"HS256","kid":"k"}`:                                            policy.RefusedMalformed,
		`{"alg":["HS256"],"typ":"JWT","kid":"k"}`:                              policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":1}`:                                  policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k"} `:                               "",
		`{"alg":"HS256","typ":"JWT","kid":"k"}{}`:                              policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"k"`:                                 policy.RefusedMalformed,
		`["HS256"]`:                                                            policy.RefusedMalformed,
		`null`:                                                                 policy.RefusedMalformed,
		`{"alg":"HS256","typ":"JWT","kid":"K"}`:                                policy.RefusedUnknown,
		`{"alg":"HS256","typ":"JWT"}`:                                          policy.RefusedUnknown,
		`{"alg":"HS256","typ":"JWT","kid":"e"}`:                                policy.RefusedSignature,
		`{"alg":"ES256","typ":"JWT","kid":"k"}`:                                policy.RefusedSignature,
		`{"alg":"none","typ":"JWT","kid":"k"}`:                                 policy.RefusedSignature,
		`{"alg":"None","typ":"JWT","kid":"k"}`:                                 policy.RefusedSignature,
		`{"alg":"","typ":"JWT","kid":"k"}`:                                     policy.RefusedSignature,
		`{"typ":"JWT","kid":"k"}`:                                              policy.RefusedSignature,
		`{"alg":"hs256","typ":"JWT","kid":"k"}`:                                policy.RefusedSignature,
		`{"alg":"HS384","typ":"JWT","kid":"k"}`:                                policy.RefusedSignature,
		`{"alg":"HS256 ","typ":"JWT","kid":"k"}`:                               policy.RefusedSignature,
	} {
		text := forge(t, key, header, payload)
		proof, err := j.Prove(t.Context(), jwt(text))
		if reason == "" { // the same header, written otherwise: our key signed it
			if err != nil {
				t.Errorf("%s: %v", header, err)
			}
			continue
		}
		if err == nil {
			t.Fatalf("%s is proven", header)
		}
		if r, ok := errors.AsType[*policy.Refused](err); !ok || r.Reason != reason {
			t.Errorf("%s: %v, want %q", header, err, reason)
			continue
		}
		refused(t, proof, err, policy.KindJWT, reason, text)
	}
}

// TestPublicKeyIsNoSecret: the public half of a key, in each form that is
// written somewhere, makes no token of it.
func TestPublicKeyIsNoSecret(t *testing.T) {
	at := newClock()
	f := families(t, newTampered(), at, nil)
	_, session := begin(t, f)
	for _, key := range []jwtKey{es256(t, "k"), {"k", "RS256", rsaKeys()[0]}} {
		j := jwts(t, f, at, key)
		payload := part(t, access(t, j, session), 1)
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range [][]byte{der, []byte(base64.StdEncoding.EncodeToString(der)), credential.JWKS(key), {}} {
			confused := jwtKey{"k", "HS256", secret}
			notProven(t, j, forge(t, confused, `{"alg":"HS256","typ":"JWT","kid":"k"}`, payload), policy.RefusedSignature)
			notProven(t, j, forge(t, confused, `{"alg":"`+key.algorithm+`","typ":"JWT","kid":"k"}`, payload), policy.RefusedSignature)
		}
	}
}

// TestTokensAreWrittenInOneWay: no other text is a token, and the store is not
// asked about one.
func TestTokensAreWrittenInOneWay(t *testing.T) {
	at, s := newClock(), newTampered()
	f := families(t, s, at, nil)
	j := jwts(t, f, at, hs256("k"))
	_, session := begin(t, f)
	good := access(t, j, session)
	parts := strings.Split(good, ".")
	s.asked = 0
	for name, text := range map[string]string{
		"nothing": "", "a word": "x", "dots": "..", "two parts": parts[0] + "." + parts[1], "four parts": good + ".AAAA", "a dot more": good + ".",
		"no signature": parts[0] + "." + parts[1] + ".", "no payload": parts[0] + ".." + parts[2], "no header": "." + parts[1] + "." + parts[2],
		"padded": good + "=", "newline after": good + "\n", "newline inside": parts[0] + "." + parts[1][:8] + "\n" + parts[1][8:] + "." + parts[2],
		"space before": " " + good, "Bearer": "Bearer " + good, "stray bits": good[:len(good)-1] + stray(good[len(good)-1]),
		"standard alphabet": parts[0] + "." + parts[1] + ".+/" + parts[2][2:], "NUL": good + "\x00",
		"JSON serialization": `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`,
		"general JSON":       `{"payload":"` + parts[1] + `","signatures":[{"protected":"` + parts[0] + `","signature":"` + parts[2] + `"}]}`,
		"encrypted":          "e30.AAAA.AAAA.AAAA.AAAA",
		"long":               forge(t, hs256("k"), `{"alg":"HS256","typ":"JWT","kid":"k"}`, part(t, good, 1)+strings.Repeat(" ", 3000)),
	} {
		proof, err := j.Prove(t.Context(), jwt(text))
		if err == nil {
			t.Fatalf("%s is proven", name)
		}
		refused(t, proof, err, policy.KindJWT, policy.RefusedMalformed, text)
	}
	proof, err := j.Prove(t.Context(), policy.NewCredential(policy.KindToken, good))
	refused(t, proof, err, policy.KindJWT, policy.RefusedMalformed)
	proof, err = j.Prove(t.Context(), policy.Credential{Kind: policy.KindJWT})
	refused(t, proof, err, policy.KindJWT, policy.RefusedMalformed)

	for i := range good {
		if good[i] == '.' {
			continue
		}
		changed := good[:i] + stray(good[i]) + good[i+1:]
		if proof, err := j.Prove(t.Context(), jwt(changed)); err == nil {
			t.Fatalf("character %d was changed: %+v", i, proof)
		}
	}
	if s.asked != 0 {
		t.Error("the store was asked about a forged token")
	}
	if _, err := j.Prove(t.Context(), jwt(good)); err != nil {
		t.Error(err)
	}
}

// stray is another character of base64url, which differs in the last bit.
func stray(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, c)^1:][:1]
}

func TestClaimsThatAreNotOurs(t *testing.T) {
	at := newClock()
	f := families(t, newTampered(), at, nil)
	key := hs256("k")
	j := jwts(t, f, at, key)
	_, session := begin(t, f)
	good := part(t, access(t, j, session), 1)
	now := at.now().Unix()
	sid := regexp.MustCompile(`"sid":"[^"]*"`).FindString(good)
	for name, test := range map[string]struct{ old, new, reason string }{
		"as it is":                 {"", "", ""},
		"made a minute ahead":      {fmt.Sprint(`"iat":`, now), fmt.Sprint(`"iat":`, now+60), ""},
		"made later":               {fmt.Sprint(`"iat":`, now), fmt.Sprint(`"iat":`, now+61), policy.RefusedExpired},
		"begins in a minute":       {`"jti"`, fmt.Sprintf(`"nbf":%d,"jti"`, now+60), ""},
		"begins later":             {`"jti"`, fmt.Sprintf(`"nbf":%d,"jti"`, now+61), policy.RefusedExpired},
		"ends now":                 {fmt.Sprint(`"exp":`, now+3600), fmt.Sprint(`"exp":`, now), policy.RefusedExpired},
		"ends in a second":         {fmt.Sprint(`"exp":`, now+3600), fmt.Sprint(`"exp":`, now+1), ""},
		"no end":                   {fmt.Sprintf(`"exp":%d,`, now+3600), "", policy.RefusedExpired},
		"no end, in so many words": {fmt.Sprint(`"exp":`, now+3600), `"exp":null`, policy.RefusedExpired},
		"its end as text":          {fmt.Sprint(`"exp":`, now+3600), fmt.Sprintf(`"exp":"%d"`, now+3600), policy.RefusedMalformed},
		"a fraction":               {fmt.Sprint(`"exp":`, now+3600), fmt.Sprintf(`"exp":%d.5`, now+3600), policy.RefusedMalformed},
		"an exponent":              {fmt.Sprint(`"exp":`, now+3600), `"exp":1e18`, policy.RefusedMalformed},
		"two ends":                 {`"exp"`, fmt.Sprintf(`"exp":%d,"exp"`, now+9), policy.RefusedMalformed},
		"two subjects":             {`"sub"`, `"sub":"acc-2","sub"`, policy.RefusedMalformed},
		"a subject in capitals":    {`"sub"`, `"SUB"`, policy.RefusedMalformed},
		"unknown claim":            {`"sub"`, `"admin":true,"sub"`, policy.RefusedMalformed},
		"after the end":            {"}", "}{}", policy.RefusedMalformed},
		"another issuer":           {"https://pg.example", "https://pg.example/", policy.RefusedBound},
		"another audience":         {`"aud":"pg"`, `"aud":"other"`, policy.RefusedBound},
		"several audiences":        {`"aud":"pg"`, `"aud":["pg"]`, policy.RefusedMalformed},
		"no audience":              {`"aud":"pg",`, "", policy.RefusedBound},
		"a scope":                  {`"sub"`, `"scope":"x","sub"`, policy.RefusedBound},
		"no login":                 {sid, `"sid":""`, policy.RefusedBound},
		"short login":              {sid, `"sid":"AAAA"`, policy.RefusedMalformed},
		"stray bits":               {sid, `"sid":"` + strings.Repeat("A", 37) + `B"`, policy.RefusedMalformed},
		"line break":               {sid, `"sid":"` + strings.Repeat("A", 37) + `\n"`, policy.RefusedMalformed},
		"another login":            {sid, `"sid":"` + strings.Repeat("A", 38) + `"`, policy.RefusedLogin},
		"another account":          {`"acc-1"`, `"acc-2"`, policy.RefusedUnknown},
		"another assurance":        {`"low"`, `"high"`, policy.RefusedMalformed},
	} {
		changed := strings.Replace(good, test.old, test.new, 1)
		if changed == good && name != "as it is" {
			t.Fatalf("%s: nothing to change in %s", name, good)
		}
		text := forge(t, key, `{"alg":"HS256","typ":"JWT","kid":"k"}`, changed)
		proof, err := j.Prove(t.Context(), jwt(text))
		if test.reason == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if r, ok := errors.AsType[*policy.Refused](err); !ok || r.Reason != test.reason {
			t.Errorf("%s: %v, want %q", name, err, test.reason)
			continue
		}
		refused(t, proof, err, policy.KindJWT, test.reason, text)
	}
}

func TestJWTKeysRotate(t *testing.T) {
	at := newClock()
	f := families(t, newTampered(), at, nil)
	_, session := begin(t, f)
	old, now := hs256("2025"), es256(t, "2026")
	text := access(t, jwts(t, f, at, old, now), session)
	if _, err := jwts(t, f, at, now, old).Prove(t.Context(), jwt(text)); err != nil {
		t.Errorf("with overlap: %v", err)
	}
	notProven(t, jwts(t, f, at, now), text, policy.RefusedUnknown)
	imposter := hs256("2025")
	imposter.secret = []byte("another secret")
	notProven(t, jwts(t, f, at, imposter), text, policy.RefusedSignature)
	if text := access(t, jwts(t, f, at, now, old), session); !strings.Contains(part(t, text, 0), `"2026"`) {
		t.Errorf("the primary does not sign: %s", part(t, text, 0))
	}
}

func TestJWTsConfig(t *testing.T) {
	at := newClock()
	f := families(t, newTampered(), at, nil)
	full := credential.JWTsConfig{Issuer: "i", Audience: "a", Environment: "test", Keys: []credential.JWTKey{hs256("k")}, Families: f}
	if _, err := credential.NewJWTs(full); err != nil {
		t.Fatal(err)
	}
	curve := es256(t, "e")
	for name, change := range map[string]func(*credential.JWTsConfig){
		"no issuer": func(c *credential.JWTsConfig) { c.Issuer = "" }, "no audience": func(c *credential.JWTsConfig) { c.Audience = "" },
		"no environment":    func(c *credential.JWTsConfig) { c.Environment = "" },
		"no keys":           func(c *credential.JWTsConfig) { c.Keys = nil },
		"no families":       func(c *credential.JWTsConfig) { c.Families = nil },
		"long issuer":       func(c *credential.JWTsConfig) { c.Issuer = strings.Repeat("i", 513) },
		"audience in bytes": func(c *credential.JWTsConfig) { c.Audience = "\xff" },
		"short life":        func(c *credential.JWTsConfig) { c.TTL = time.Millisecond },
		"negative life":     func(c *credential.JWTsConfig) { c.TTL = -time.Hour },
		"long life":         func(c *credential.JWTsConfig) { c.TTL = 61 * 24 * time.Hour },
		"two keys, one id": func(c *credential.JWTsConfig) {
			c.Keys = []credential.JWTKey{hs256("k"), jwtKey{"k", "ES256", curve.secret}}
		},
		"key without id":    func(c *credential.JWTsConfig) { c.Keys = []credential.JWTKey{hs256("")} },
		"algorithm none":    func(c *credential.JWTsConfig) { c.Keys = []credential.JWTKey{jwtKey{"k", "none", curve.secret}} },
		"HS256 with public": func(c *credential.JWTsConfig) { c.Keys = []credential.JWTKey{jwtKey{"k", "HS256", curve.secret}} },
		"ES256 without":     func(c *credential.JWTsConfig) { c.Keys = []credential.JWTKey{jwtKey{"k", "ES256", []byte("x")}} },
	} {
		config := full
		change(&config)
		if j, err := credential.NewJWTs(config); err == nil || j != nil {
			t.Errorf("%s: %v, %v", name, j, err)
		}
	}
}

func TestAccessTokensThatAreNotMinted(t *testing.T) {
	at := newClock()
	f := families(t, newTampered(), at, nil)
	_, session := begin(t, f)
	if text, expires, err := jwts(t, f, at, hs256("k")).Mint(credential.Session{}); err == nil || text != "" || !expires.IsZero() {
		t.Errorf("of no session: %q, %v", text, err)
	}
	if text, _, err := jwts(t, f, at, jwtKey{"k", "HS256", nil}).Mint(session); err == nil || text != "" {
		t.Errorf("with a key that does not sign: %q, %v", text, err)
	}
	production, err := credential.NewJWTs(credential.JWTsConfig{
		Issuer: "i", Audience: "a", Environment: "production", Keys: []credential.JWTKey{hs256("k")}, Families: f,
	})
	if err != nil {
		t.Fatal(err)
	}
	if text, _, err := production.Mint(session); err == nil || text != "" {
		t.Errorf("for another environment: %q, %v", text, err)
	}
}

func scoped(t testing.TB, at *clock, change func(*credential.ScopedConfig)) *credential.ScopedJWTs {
	t.Helper()
	config := credential.ScopedConfig{
		Issuer: "exa-server", Audience: "wallet-extension", Scope: "card:provisioning", Environment: "test",
		Keys: []credential.JWTKey{hs256("k")}, Now: at.now,
	}
	if change != nil {
		change(&config)
	}
	j, err := credential.NewScopedJWTs(config)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestScopedTokenProvesItsUser(t *testing.T) {
	at := newClock()
	j := scoped(t, at, nil)
	text, expires, err := j.Mint("0xAda", 60*24*time.Hour)
	if err != nil || !expires.Equal(at.now().Add(60*24*time.Hour)) {
		t.Fatalf("until %s, %v", expires, err)
	}
	want := `^{"iss":"exa-server","aud":"wallet-extension","sub":"0xAda","exp":\d+,"iat":\d+,"jti":"[\w-]{22}","scope":"card:provisioning"}$`
	if got := part(t, text, 1); !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("the claims are %s", got)
	}
	proof, err := j.Prove(t.Context(), jwt(text))
	if err != nil || proof != (policy.Proof{Kind: policy.KindJWT, User: "0xAda", Environment: "test", Expires: expires, ID: "jwt:0xAda"}) {
		t.Errorf("%+v, %v", proof, err)
	}
	if text, expires, err := j.Mint("0xAda", 1500*time.Millisecond); err != nil || !expires.Equal(at.now().Add(time.Second)) ||
		!strings.Contains(part(t, text, 1), fmt.Sprintf(`"exp":%d,`, expires.Unix())) {
		t.Errorf("what is told is not what the token says: until %s, %v", expires, err)
	}
	notProven(t, scoped(t, at, func(c *credential.ScopedConfig) { c.Issuer = "other" }), text, policy.RefusedBound)
	notProven(t, scoped(t, at, func(c *credential.ScopedConfig) { c.Audience = "other" }), text, policy.RefusedBound)
	notProven(t, scoped(t, at, func(c *credential.ScopedConfig) { c.Scope = "card" }), text, policy.RefusedBound)
	notProven(t, scoped(t, at, func(c *credential.ScopedConfig) { c.Keys = []credential.JWTKey{hs256("l")} }), text, policy.RefusedUnknown)
	at.nanos.Store(expires.UnixNano())
	notProven(t, j, text, policy.RefusedExpired)
}

// TestScopedAndAccessTokensAreNotEachOther: with the same key, issuer and
// audience.
func TestScopedAndAccessTokensAreNotEachOther(t *testing.T) {
	at := newClock()
	f := families(t, memory(t, at), at, nil)
	a := jwts(t, f, at, hs256("k"))
	s := scoped(t, at, func(c *credential.ScopedConfig) { c.Issuer, c.Audience = "https://pg.example", "pg" })
	_, session := begin(t, f)
	notProven(t, s, access(t, a, session), policy.RefusedBound)
	text, _, err := s.Mint("acc-1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	notProven(t, a, text, policy.RefusedBound)
	// Nor is what says both.
	both := strings.Replace(part(t, access(t, a, session), 1), `"sub"`, `"scope":"card:provisioning","sub"`, 1)
	both = forge(t, hs256("k"), part(t, text, 0), both)
	notProven(t, a, both, policy.RefusedBound)
	notProven(t, s, both, policy.RefusedBound)
	// Nor one of nobody.
	notProven(t, s, forge(t, hs256("k"), part(t, text, 0), strings.Replace(part(t, text, 1), "acc-1", "", 1)), policy.RefusedMalformed)
}

func TestScopedTokensThatAreNotMinted(t *testing.T) {
	at := newClock()
	j := scoped(t, at, nil)
	for name, test := range map[string]struct {
		user string
		ttl  time.Duration
	}{"nobody": {"", time.Hour}, "a space": {"a b", time.Hour}, "long": {strings.Repeat("a", 513), time.Hour},
		"no time": {"a", 0}, "past": {"a", -time.Hour}, "longer than allowed": {"a", 60*24*time.Hour + 1}} {
		if text, _, err := j.Mint(test.user, test.ttl); err == nil || text != "" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	for name, config := range map[string]credential.ScopedConfig{
		"no scope":       {Issuer: "i", Audience: "a", Environment: "test", Keys: []credential.JWTKey{hs256("k")}},
		"no environment": {Issuer: "i", Audience: "a", Scope: "s", Keys: []credential.JWTKey{hs256("k")}},
		"no key":         {Issuer: "i", Audience: "a", Scope: "s", Environment: "test"},
	} {
		if j, err := credential.NewScopedJWTs(config); err == nil || j != nil {
			t.Errorf("%s: %v, %v", name, j, err)
		}
	}
}

// TestJWKS: it has the public halves, in one order, and verifies what we mint.
func TestJWKS(t *testing.T) {
	at := newClock()
	f := families(t, newTampered(), at, nil)
	_, session := begin(t, f)
	a, b, secret := es256(t, "a"), jwtKey{"b", "PS256", rsaKeys()[0]}, hs256("s")
	text := credential.JWKS(b, secret, a)
	if again := credential.JWKS(a, b, secret); string(again) != string(text) {
		t.Errorf("%s, and in another order %s", text, again)
	}
	var members struct{ Keys []map[string]string }
	if err := json.Unmarshal(text, &members); err != nil || len(members.Keys) != 2 {
		t.Fatalf("%s: %v", text, err)
	}
	for i, want := range []struct{ id, algorithm, members string }{{"a", "ES256", "alg crv kid kty use x y"}, {"b", "PS256", "alg e kid kty n use"}} {
		key := members.Keys[i]
		if key["kid"] != want.id || key["alg"] != want.algorithm || key["use"] != "sig" || len(key) != len(strings.Fields(want.members)) {
			t.Errorf("%v", key)
		}
		for _, name := range strings.Fields(want.members) {
			if key[name] == "" {
				t.Errorf("%v has no %s", key, name)
			}
		}
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	for _, key := range []jwtKey{a, b} {
		signed, err := jose.ParseSignedCompact(access(t, jwts(t, f, at, key), session), []jose.SignatureAlgorithm{jose.SignatureAlgorithm(key.algorithm)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signed.Verify(set.Key(key.id)[0]); err != nil {
			t.Errorf("%s: %v", key.id, err)
		}
	}
	for name, keys := range map[string][]credential.JWTKey{
		"none": nil, "secret": {secret}, "mislabelled secret": {jwtKey{"s", "ES256", []byte("x")}},
		"private": {leaky{es256(t, "p")}}, "public of HS256": {jwtKey{"s", "HS256", a.secret}},
	} {
		if got := string(credential.JWKS(keys...)); got != `{"keys":[]}` {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// leaky has a private key where the public one should be.
type leaky struct{ jwtKey }

func (k leaky) Public() crypto.PublicKey { return k.secret }

// FuzzJWT: only what was minted is proven. What is refused for another reason
// than its form has the one form there is.
func FuzzJWT(f *testing.F) {
	at := newClock()
	s := newTampered()
	c := families(f, s, at, nil)
	j := jwts(f, c, at, hs256("k"))
	_, session := begin(f, c)
	good := access(f, j, session)
	f.Add(good)
	f.Add(forge(f, hs256("l"), `{"alg":"HS256","typ":"JWT","kid":"l"}`, `{}`))
	f.Add(forge(f, hs256("k"), `{"alg":"none","typ":"JWT","kid":"k"}`, `{}`))
	f.Add(strings.Replace(good, ".", "\n.", 1))
	f.Fuzz(func(t *testing.T, text string) {
		proof, err := j.Prove(t.Context(), jwt(text))
		if (err == nil) != (text == good) {
			t.Fatalf("%q: %+v, %v", text, proof, err)
		}
		r, ok := errors.AsType[*policy.Refused](err)
		if err == nil || ok && r.Reason == policy.RefusedMalformed {
			return
		}
		parts := strings.Split(text, ".")
		if !ok || len(parts) != 3 || len(text) > 4096 {
			t.Fatalf("%q: %v", text, err)
		}
		for _, part := range parts {
			raw, err := base64.RawURLEncoding.DecodeString(part)
			if err != nil || base64.RawURLEncoding.EncodeToString(raw) != part {
				t.Fatalf("%q is read, and not canonical", text)
			}
		}
		var header map[string]string
		if err := json.Unmarshal([]byte(part(t, text, 0)), &header); err != nil || header["typ"] != "JWT" || len(header) > 3 {
			t.Fatalf("%q is read, with the header %v", text, header)
		}
	})
}

// BenchmarkJWT is the proof of every call of the paymentsgate face but the first with a token, which adds verifying (keys.BenchmarkVerify).
func BenchmarkJWT(b *testing.B) {
	m, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	at := newClock()
	f := families(b, m, at, nil)
	_, session := begin(b, f)
	for _, key := range []jwtKey{hs256("k"), es256(b, "k")} {
		b.Run(key.algorithm, func(b *testing.B) {
			j := jwts(b, f, at, key)
			presented := jwt(access(b, j, session))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := j.Prove(b.Context(), presented); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
