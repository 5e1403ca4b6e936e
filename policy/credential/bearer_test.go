package credential_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
)

// keyFile is a credentials file with one key of a scope, and what proves it.
func keyFile(t testing.TB, scope ...string) (path, id, secret string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "credentials.json")
	entry, secret, err := credential.Add(path, credential.NewAPIKey{Partner: "shop", Environment: "test", Scope: scope, Now: made})
	if err != nil || !slices.Equal(entry.Scope, scope) {
		t.Fatal(entry, err)
	}
	return path, entry.ID, secret
}

func provenKey(t testing.TB, path, secret string) policy.Proof {
	t.Helper()
	proof, err := load(t, path).Prove(t.Context(), apiKey(secret))
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

func bearers(t testing.TB, at *clock, path string, change func(*credential.BearersConfig)) *credential.Bearers {
	t.Helper()
	config := credential.BearersConfig{
		Issuer: "https://payroc.example", Audience: "payroc", Environment: "test", Keys: []credential.JWTKey{es256(t, "k")},
		APIKeys: load(t, path), Now: at.now,
	}
	if change != nil {
		change(&config)
	}
	b, err := credential.NewBearers(config)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAPIKeyHasItsScope(t *testing.T) {
	path, _, secret := keyFile(t, "payments", "hosted_fields")
	if proof := provenKey(t, path, secret); proof.Scope != "payments hosted_fields" {
		t.Errorf("scope %q", proof.Scope)
	}
	path, _, secret = keyFile(t)
	if proof := provenKey(t, path, secret); proof.Scope != "" {
		t.Errorf("scope %q", proof.Scope)
	}
}

func TestBearerProvesItsPartner(t *testing.T) {
	at := newClock()
	for generation, scope := range map[uint64][]string{0: nil, 1764115200000: {"payments", "refunds"}} {
		path, id, secret := keyFile(t, scope...)
		b := bearers(t, at, path, nil)
		text, expires, err := b.Mint(provenKey(t, path, secret), generation)
		if err != nil || !expires.Equal(at.now().Add(time.Hour)) || b.TTL() != time.Hour {
			t.Fatalf("until %s, %v", expires, err)
		}
		words := ""
		if scope != nil {
			words = `,"scope":"payments refunds","gen":1764115200000`
		}
		want := `^{"iss":"https://payroc\.example","aud":"payroc","sub":"shop","exp":\d+,"iat":\d+,"jti":"[\w-]{22}","sid":"api_key:` + id + `"` + words + `}$`
		if got := part(t, text, 1); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("the claims are %s, want %s", got, want)
		}
		if strings.Contains(part(t, text, 1), secret) {
			t.Error("the token has the key")
		}
		for range 2 {
			proof, err := b.Prove(t.Context(), jwt(text))
			if err != nil || proof != (policy.Proof{
				Kind: policy.KindJWT, Partner: "shop", Environment: "test", Scope: strings.Join(scope, " "), Expires: expires, ID: "jwt:" + id,
				Minted: true, Generation: generation,
			}) {
				t.Errorf("%+v, %v", proof, err)
			}
		}
	}
}

// TestBearerEndsWithItsKey: on every instance that has read the file again.
func TestBearerEndsWithItsKey(t *testing.T) {
	at := newClock()
	path, id, secret := keyFile(t, "payments")
	key := es256(t, "k")
	again := func() *credential.Bearers {
		return bearers(t, at, path, func(c *credential.BearersConfig) { c.Keys = []credential.JWTKey{key} })
	}
	before := again()
	proof := provenKey(t, path, secret)
	text, _, err := before.Mint(proof, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again().Prove(t.Context(), jwt(text)); err != nil {
		t.Fatal(err)
	}
	original, err := credential.List(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ old, new, reason string }{
		"another partner's":     {`"shop"`, `"thief"`, policy.RefusedLogin},
		"another environment's": {`"test"`, `"production"`, policy.RefusedEnvironment},
		"gone":                  {id, "another", policy.RefusedLogin},
		"nothing in common":     {`"payments"`, `"refunds"`, policy.RefusedLogin},
	} {
		edit(t, path, test.old, test.new)
		b := again()
		notProven(t, b, text, test.reason)
		if _, _, err := b.Mint(proof, 0); err == nil && name != "nothing in common" {
			t.Errorf("%s: another one is minted", name)
		}
		edit(t, path, test.new, test.old)
	}
	if err := credential.Revoke(path, original[0].ID, made); err != nil {
		t.Fatal(err)
	}
	if _, err := before.Prove(t.Context(), jwt(text)); err != nil {
		t.Errorf("what is loaded changed with the file: %v", err)
	}
	revoked := again()
	notProven(t, revoked, text, policy.RefusedLogin)
	if text, _, err := revoked.Mint(proof, 0); err == nil || text != "" {
		t.Errorf("minted for a revoked key: %q", text)
	}
}

// TestScopeNarrows: what the key was good for, and is good for now. No scope has no limits, and nothing in common is
// not the same.
func TestScopeNarrows(t *testing.T) {
	for name, test := range map[string]struct {
		minted, now []string
		want        string
		reason      string
	}{
		"as it was":         {[]string{"a", "b"}, []string{"a", "b"}, "a b", ""},
		"another order":     {[]string{"a", "b"}, []string{"b", "a"}, "a b", ""},
		"fewer":             {[]string{"a", "b"}, []string{"b"}, "b", ""},
		"more":              {[]string{"a"}, []string{"a", "b"}, "a", ""},
		"others":            {[]string{"a", "b"}, []string{"b", "c"}, "b", ""},
		"limited since":     {nil, []string{"a"}, "a", ""},
		"unlimited since":   {[]string{"a"}, nil, "a", ""},
		"never limited":     {nil, nil, "", ""},
		"nothing in common": {[]string{"a"}, []string{"b"}, "", policy.RefusedLogin},
		"a part of a word":  {[]string{"ab"}, []string{"a", "b"}, "", policy.RefusedLogin},
	} {
		t.Run(name, func(t *testing.T) {
			at := newClock()
			path, _, secret := keyFile(t, test.minted...)
			key := es256(t, "k")
			keep := func(c *credential.BearersConfig) { c.Keys = []credential.JWTKey{key} }
			text, _, err := bearers(t, at, path, keep).Mint(provenKey(t, path, secret), 0)
			if err != nil {
				t.Fatal(err)
			}
			list := func(words []string) string {
				if words == nil {
					return `"created"`
				}
				lines := make([]string, len(words))
				for i, word := range words {
					lines[i] = `        "` + word + `"`
				}
				return "\"scope\": [\n" + strings.Join(lines, ",\n") + "\n      ]"
			}
			switch {
			case test.minted == nil && test.now != nil:
				edit(t, path, `"created"`, list(test.now)+`, "created"`)
			case test.minted != nil && test.now == nil:
				edit(t, path, ",\n      "+list(test.minted), "")
			case !slices.Equal(test.minted, test.now):
				edit(t, path, list(test.minted), list(test.now))
			}
			b := bearers(t, at, path, keep)
			if test.reason != "" {
				notProven(t, b, text, test.reason)
				return
			}
			if proof, err := b.Prove(t.Context(), jwt(text)); err != nil || proof.Scope != test.want {
				t.Errorf("scope %q, %v; want %q", proof.Scope, err, test.want)
			}
		})
	}
}

func TestBearersThatProveNothing(t *testing.T) {
	at := newClock()
	path, id, secret := keyFile(t, "payments")
	key := es256(t, "k")
	keep := func(c *credential.BearersConfig) { c.Keys = []credential.JWTKey{key} }
	b := bearers(t, at, path, keep)
	text, expires, err := b.Mint(provenKey(t, path, secret), 0)
	if err != nil {
		t.Fatal(err)
	}
	good := part(t, text, 1)
	for name, test := range map[string]struct{ old, new, reason string }{
		"an account's":      {"api_key:" + id, id, policy.RefusedBound},
		"a certificate's":   {"api_key:", "certificate:", policy.RefusedBound},
		"no key's":          {`"sid"`, `"scope":"payments","sid"`, policy.RefusedMalformed}, // twice
		"a user's":          {`,"sid":"api_key:` + id + `"`, "", policy.RefusedBound},
		"a weak one":        {`"sid"`, `"acr":"low","sid"`, policy.RefusedBound},
		"another key's":     {id, id + "0", policy.RefusedLogin},
		"another partner's": {`"shop"`, `"other"`, policy.RefusedLogin},
		"another audience":  {`"payroc"`, `"other"`, policy.RefusedBound},
		"another issuer":    {"payroc.example", "other.example", policy.RefusedBound},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(good, test.old, test.new, 1)
			if changed == good {
				t.Fatal("nothing was changed")
			}
			notProven(t, b, forge(t, key, part(t, text, 0), changed), test.reason)
		})
	}
	notProven(t, bearers(t, at, path, nil), text, policy.RefusedSignature)
	notProven(t, b, text+"=", policy.RefusedMalformed)
	proof, err := b.Prove(t.Context(), policy.NewCredential(policy.KindAPIKey, text))
	refused(t, proof, err, policy.KindJWT, policy.RefusedMalformed, text)

	// What our other provers mint with the same key, issuer and audience is no Bearer, and a Bearer is none of theirs.
	f := families(t, memory(t, at), at, nil)
	_, session := begin(t, f)
	accounts, err := credential.NewJWTs(credential.JWTsConfig{
		Issuer: "https://payroc.example", Audience: "payroc", Environment: "test", Keys: []credential.JWTKey{key}, Families: f, Now: at.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	users := scoped(t, at, func(c *credential.ScopedConfig) {
		c.Issuer, c.Audience, c.Scope, c.Keys = "https://payroc.example", "payroc", "payments", []credential.JWTKey{key}
	})
	notProven(t, b, access(t, accounts, session), policy.RefusedBound)
	forUser, _, err := users.Mint("shop", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	notProven(t, b, forUser, policy.RefusedBound)
	notProven(t, accounts, text, policy.RefusedBound)
	notProven(t, users, text, policy.RefusedBound)
	unlimited := forge(t, key, part(t, text, 0), strings.Replace(good, `,"scope":"payments"`, "", 1))
	notProven(t, accounts, unlimited, policy.RefusedMalformed)
	notProven(t, users, unlimited, policy.RefusedBound)

	at.nanos.Store(expires.UnixNano())
	notProven(t, b, text, policy.RefusedExpired)
}

func TestBearersThatAreNotMinted(t *testing.T) {
	at := newClock()
	path, _, secret := keyFile(t)
	b := bearers(t, at, path, nil)
	good := provenKey(t, path, secret)
	for name, change := range map[string]func(*policy.Proof){
		"nothing":           func(p *policy.Proof) { *p = policy.Proof{} },
		"a certificate":     func(p *policy.Proof) { p.Kind = policy.KindCertificate },
		"a bearer":          func(p *policy.Proof) { p.Kind = policy.KindJWT },
		"environment":       func(p *policy.Proof) { p.Environment = "production" },
		"another partner":   func(p *policy.Proof) { p.Partner = "other" },
		"no partner":        func(p *policy.Proof) { p.Partner = "" },
		"a key that is not": func(p *policy.Proof) { p.ID = "api_key:other" },
		"no key":            func(p *policy.Proof) { p.ID = "" },
	} {
		proof := good
		change(&proof)
		if text, expires, err := b.Mint(proof, 0); err == nil || text != "" || !expires.IsZero() {
			t.Errorf("%s: %q until %s, %v", name, text, expires, err)
		}
	}
}

func TestBearersConfig(t *testing.T) {
	path, _, _ := keyFile(t)
	full := credential.BearersConfig{Issuer: "i", Audience: "a", Environment: "test", Keys: []credential.JWTKey{es256(t, "k")}, APIKeys: load(t, path)}
	for name, change := range map[string]func(*credential.BearersConfig){
		"issuer":      func(c *credential.BearersConfig) { c.Issuer = "" },
		"audience":    func(c *credential.BearersConfig) { c.Audience = "" },
		"environment": func(c *credential.BearersConfig) { c.Environment = "live" },
		"keys":        func(c *credential.BearersConfig) { c.Keys = nil },
		"API keys":    func(c *credential.BearersConfig) { c.APIKeys = nil },
		"short":       func(c *credential.BearersConfig) { c.TTL = time.Millisecond },
		"long":        func(c *credential.BearersConfig) { c.TTL = credential.MaxJWTTTL + 1 },
	} {
		config := full
		change(&config)
		if b, err := credential.NewBearers(config); err == nil || b != nil {
			t.Errorf("%s: %v, %v", name, b, err)
		}
	}
	full.TTL = 10 * time.Minute
	if b, err := credential.NewBearers(full); err != nil || b.TTL() != 10*time.Minute {
		t.Errorf("%v, %v", b, err)
	}
}
