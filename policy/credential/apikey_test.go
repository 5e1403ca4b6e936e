package credential_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
)

var made = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func apiKey(text string) policy.Credential { return policy.NewCredential(policy.KindAPIKey, text) }

// add makes a key in the file.
func add(t testing.TB, path, partner, environment string) (credential.Entry, string) {
	t.Helper()
	entry, secret, err := credential.Add(path, credential.NewAPIKey{Partner: partner, Environment: environment, Now: made})
	if err != nil {
		t.Fatal(err)
	}
	return entry, secret
}

func load(t testing.TB, path string) *credential.APIKeys {
	t.Helper()
	keys, err := credential.LoadAPIKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestAPIKeyIsProvenUntilRevoked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.json")
	one, oneSecret := add(t, path, "gp-demo", "test")
	two, twoSecret := add(t, path, "gp-demo", "production")
	other, otherSecret := add(t, path, "other", "test")
	if !regexp.MustCompile(`^cs_test_[A-Za-z0-9_-]{43}$`).MatchString(oneSecret) || !strings.HasPrefix(twoSecret, "cs_production_") {
		t.Errorf("keys are %q and %q", oneSecret, twoSecret)
	}
	keys := load(t, path)
	for secret, want := range map[string]policy.Proof{
		oneSecret:   {Kind: policy.KindAPIKey, Partner: "gp-demo", Environment: "test", ID: "api_key:" + one.ID},
		twoSecret:   {Kind: policy.KindAPIKey, Partner: "gp-demo", Environment: "production", ID: "api_key:" + two.ID},
		otherSecret: {Kind: policy.KindAPIKey, Partner: "other", Environment: "test", ID: "api_key:" + other.ID},
	} {
		if proof, err := keys.Prove(t.Context(), apiKey(secret)); err != nil || proof != want {
			t.Errorf("%+v, %v; want %+v", proof, err, want)
		}
	}
	if err := credential.Revoke(path, one.ID, made.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Prove(t.Context(), apiKey(oneSecret)); err != nil {
		t.Errorf("what is loaded changed with the file: %v", err)
	}
	keys = load(t, path)
	proof, err := keys.Prove(t.Context(), apiKey(oneSecret))
	refused(t, proof, err, policy.KindAPIKey, policy.RefusedUnknown, oneSecret)
	if _, err := keys.Prove(t.Context(), apiKey(twoSecret)); err != nil {
		t.Errorf("revoking one touched another: %v", err)
	}
	entries, err := credential.List(path)
	if err != nil || len(entries) != 3 || entries[0].Revoked == nil || !entries[0].Revoked.Equal(made.Add(time.Hour)) || entries[1].Revoked != nil {
		t.Errorf("%+v, %v", entries, err)
	}
	// Again, later: it stays as it was.
	if err := credential.Revoke(path, one.ID, made.Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if again, err := credential.List(path); err != nil || !again[0].Revoked.Equal(made.Add(time.Hour)) {
		t.Errorf("%+v, %v", again, err)
	}
	if err := credential.Revoke(path, "none", made); !errors.Is(err, credential.ErrNoCredential) {
		t.Errorf("revoking what is not there: %v", err)
	}
}

func TestAPIKeysThatProveNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.json")
	_, good := add(t, path, "gp-demo", "test")
	keys := load(t, path)
	for name, test := range map[string]struct{ text, reason string }{
		"nothing":               {"", policy.RefusedMalformed},
		"prefix alone":          {"cs_test_", policy.RefusedMalformed},
		"another prefix":        {"sk" + good[2:], policy.RefusedMalformed},
		"upper-case prefix":     {"CS" + good[2:], policy.RefusedMalformed},
		"unknown environment":   {strings.Replace(good, "test", "live", 1), policy.RefusedMalformed},
		"no environment":        {strings.Replace(good, "test_", "", 1), policy.RefusedMalformed},
		"one short":             {good[:len(good)-1], policy.RefusedMalformed},
		"one long":              {good + "A", policy.RefusedMalformed},
		"padded":                {good + "=", policy.RefusedMalformed},
		"padded, same size":     {good[:len(good)-1] + "=", policy.RefusedMalformed},
		"newline":               {good[:len(good)-1] + "\n", policy.RefusedMalformed},
		"space":                 {" " + good, policy.RefusedMalformed},
		"standard alphabet":     {good[:20] + "+/" + good[22:], policy.RefusedMalformed},
		"stray bits":            {good[:len(good)-1] + "B", policy.RefusedMalformed},
		"the other environment": {strings.Replace(good, "test", "production", 1), policy.RefusedUnknown},
		"another secret":        {"cs_test_" + strings.Repeat("A", 43), policy.RefusedUnknown},
	} {
		proof, err := keys.Prove(t.Context(), apiKey(test.text))
		if r, ok := errors.AsType[*policy.Refused](err); !ok || r.Reason != test.reason {
			t.Fatalf("%s: %+v, %v", name, proof, err)
		}
		refused(t, proof, err, policy.KindAPIKey, test.reason, test.text)
	}
	for _, kind := range []policy.Kind{"", policy.KindToken} {
		proof, err := keys.Prove(t.Context(), policy.NewCredential(kind, good))
		refused(t, proof, err, policy.KindAPIKey, policy.RefusedMalformed)
	}
	proof, err := new(credential.APIKeys).Prove(t.Context(), apiKey(good))
	refused(t, proof, err, policy.KindAPIKey, policy.RefusedUnknown)
}

// TestEnvironmentOfFileAndKeyAgree: an entry whose environment was edited is
// good for neither.
func TestEnvironmentOfFileAndKeyAgree(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.json")
	_, secret := add(t, path, "gp-demo", "test")
	edit(t, path, `"environment": "test"`, `"environment": "production"`)
	proof, err := load(t, path).Prove(t.Context(), apiKey(secret))
	refused(t, proof, err, policy.KindAPIKey, policy.RefusedEnvironment)
}

// TestWholeDigestIsCompared: an entry whose digest differs in its last digit
// alone.
func TestWholeDigestIsCompared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.json")
	entry, secret := add(t, path, "gp-demo", "test")
	other := "0"
	if strings.HasSuffix(entry.Digest, other) {
		other = "1"
	}
	edit(t, path, entry.Digest, entry.Digest[:63]+other)
	proof, err := load(t, path).Prove(t.Context(), apiKey(secret))
	refused(t, proof, err, policy.KindAPIKey, policy.RefusedUnknown)
}

func edit(t testing.TB, path, old, new string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), old, new, 1)
	if changed == string(text) {
		t.Fatalf("no %q in the file", old)
	}
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFileHasNoSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.json")
	entry, secret := add(t, path, "gp-demo", "test")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bare := strings.TrimPrefix(secret, "cs_test_")
	if strings.Contains(string(text), bare) || strings.Contains(fmt.Sprintf("%+v", entry), bare) {
		t.Error("the secret is kept")
	}
	if entry.Partner != "gp-demo" || entry.Kind != policy.KindAPIKey || !entry.Created.Equal(made) || len(entry.ID) != 10 {
		t.Errorf("%+v", entry)
	}
}

func TestFileIsReplacedInPlace(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, "credentials.json")
	add(t, path, "gp-demo", "test")
	mode := func(name string) os.FileMode {
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode()
	}
	if got := mode(path); got != 0o600 {
		t.Errorf("a new file has mode %v", got)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(directory, "link.json")
	if err := os.Symlink("credentials.json", link); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	add(t, link, "gp-demo", "test")
	if mode(path) != 0o640 || mode(link)&os.ModeSymlink == 0 {
		t.Errorf("modes afterwards: %v, %v", mode(path), mode(link))
	}
	// Whoever has the file open still reads what it was: it was not written over.
	same := make([]byte, len(before)+1)
	if n, _ := held.Read(same); string(same[:n]) != string(before) {
		t.Error("the file was changed in place")
	}
	if entries, err := credential.List(path); err != nil || len(entries) != 2 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	names, err := os.ReadDir(directory)
	if err != nil || len(names) != 2 {
		t.Errorf("left over: %v, %v", names, err)
	}
}

// TestChangesDoNotLoseEachOther: each of many that change the file at once
// finds its entry afterwards.
func TestChangesDoNotLoseEachOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.json")
	const n = 20
	var all sync.WaitGroup
	ids := make([]string, n)
	for i := range n {
		all.Go(func() {
			entry, _, err := credential.Add(path, credential.NewAPIKey{Partner: "p", Environment: "test", Now: made})
			if err != nil {
				t.Error(err)
			}
			ids[i] = entry.ID
		})
	}
	all.Wait()
	entries, err := credential.List(path)
	if err != nil || len(entries) != n {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, entry := range entries {
		if !slices.Contains(ids, entry.ID) {
			t.Errorf("whose is %s?", entry.ID)
		}
	}
}

func TestEntriesThatAreNotAdded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.json")
	good := credential.NewAPIKey{Partner: "gp-demo", Environment: "test", Now: made}
	for name, change := range map[string]func(*credential.NewAPIKey){
		"no partner":   func(k *credential.NewAPIKey) { k.Partner = "" },
		"bad partner":  func(k *credential.NewAPIKey) { k.Partner = "a b" },
		"environment":  func(k *credential.NewAPIKey) { k.Environment = "live" },
		"no time":      func(k *credential.NewAPIKey) { k.Now = time.Time{} },
		"control note": func(k *credential.NewAPIKey) { k.Note = "a\x1b[31m" },
		"long note":    func(k *credential.NewAPIKey) { k.Note = strings.Repeat("a", 201) },
		"empty word":   func(k *credential.NewAPIKey) { k.Scope = []string{"payments", ""} },
		"word twice":   func(k *credential.NewAPIKey) { k.Scope = []string{"payments", "payments"} },
		"two words":    func(k *credential.NewAPIKey) { k.Scope = []string{"payments refunds"} },
		"comma":        func(k *credential.NewAPIKey) { k.Scope = []string{"payments,refunds"} },
		"quote":        func(k *credential.NewAPIKey) { k.Scope = []string{`a"b`} },
		"non-ASCII":    func(k *credential.NewAPIKey) { k.Scope = []string{"café"} },
		"long scope":   func(k *credential.NewAPIKey) { k.Scope = []string{strings.Repeat("a", 200), strings.Repeat("b", 56)} },
	} {
		key := good
		change(&key)
		if entry, secret, err := credential.Add(path, key); err == nil || secret != "" || !reflect.DeepEqual(entry, credential.Entry{}) {
			t.Errorf("%s: %+v, %v", name, entry, err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
	if err := credential.Revoke(path, "x", made); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("revoked in no file: %v", err)
	}
	if _, err := credential.List(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("listed no file: %v", err)
	}
	if keys, err := credential.LoadAPIKeys(path); !errors.Is(err, os.ErrNotExist) || keys != nil {
		t.Errorf("loaded no file: %v", err)
	}
}

const goodFile = `{
  "version": 1,
  "credentials": [
    {
      "id": "one",
      "partner": "gp-demo",
      "kind": "api_key",
      "digest": "0101010101010101010101010101010101010101010101010101010101010101",
      "environment": "test",
      "created": "2026-11-23T12:00:00Z",
      "note": "a"
    },
    {
      "id": "two",
      "partner": "gp-demo",
      "kind": "api_key",
      "digest": "0202020202020202020202020202020202020202020202020202020202020202",
      "environment": "test",
      "created": "2026-11-23T12:00:00Z",
      "revoked": "2026-11-23T12:00:00Z"
    }
  ]
}
`

func TestCredentialFilesThatDoNotLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.json")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(goodFile)
	load(t, path)
	for name, test := range map[string]struct{ old, new, want string }{
		"empty":           {goodFile, "", "unexpected end"},
		"not JSON":        {`"version": 1,`, `version: 1`, "line 2"},
		"a list":          {goodFile, "[]", ""},
		"null":            {goodFile, "null", "version 0"},
		"version":         {`"version": 1`, `"version": 2`, "version 2"},
		"trailing":        {goodFile, goodFile + "{}", ""},
		"unknown key":     {`"note": "a"`, `"comment": "a"`, `line 11: unknown key "comment"`},
		"unknown on top":  {`"version": 1,`, `"version": 1, "id": 1,`, `line 2: unknown key "id"`},
		"deeper":          {`"note": "a"`, `"note": {"id": "x"}`, `line 11: unknown key "id"`},
		"case of a key":   {`"revoked"`, `"Revoked"`, `unknown key "Revoked"`},
		"key twice":       {`"note": "a"`, `"revoked": null, "revoked": "2026-11-23T12:00:00Z"`, `"revoked" stands twice`},
		"type":            {`"note": "a"`, `"note": 5`, "line 11"},
		"no id":           {`"one"`, `""`, "credential 1"},
		"id twice":        {`"two"`, `"one"`, `credential 2 ("one"): another entry has this id`},
		"digest twice":    {strings.Repeat("02", 32), strings.Repeat("01", 32), "another entry has this digest"},
		"short digest":    {strings.Repeat("02", 32), strings.Repeat("02", 31), "credential 2"},
		"upper digest":    {strings.Repeat("02", 32), strings.Repeat("0A", 32), "credential 2"},
		"kind":            {`"api_key"`, `"password"`, "credential 1"},
		"partner":         {`"gp-demo"`, `"gp demo"`, "credential 1"},
		"environment":     {`"environment": "test"`, `"environment": "TEST"`, "credential 1"},
		"created":         {`"created": "2026-11-23T12:00:00Z",`, "", "credential 1"},
		"created, format": {`"2026-11-23T12:00:00Z"`, `"yesterday"`, ""},
		"scope, no list":  {`"note": "a"`, `"scope": "payments"`, "line 11"},
		"scope, no words": {`"note": "a"`, `"scope": [1]`, "line 11"},
		"scope, twice":    {`"note": "a"`, `"scope": ["a", "a"]`, "credential 1"},
		"scope, empty":    {`"note": "a"`, `"scope": [""]`, "credential 1"},
		"scope, deeper":   {`"note": "a"`, `"scope": [{"a": "b"}]`, "line 11"},
		"revoked, zero":   {`"revoked": "2026-11-23T12:00:00Z"`, `"revoked": "0001-01-01T00:00:00Z"`, "credential 2"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(goodFile, test.old, test.new, 1)
			if changed == goodFile {
				t.Fatal("nothing was changed")
			}
			write(changed)
			keys, err := credential.LoadAPIKeys(path)
			if err == nil || keys != nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("LoadAPIKeys = %v, %v; want %q", keys, err, test.want)
			}
			// What cannot be read is not written over either.
			if _, _, err := credential.Add(path, credential.NewAPIKey{Partner: "p", Environment: "test", Now: made}); err == nil {
				t.Error("a key was added to a bad file")
			}
			if text, _ := os.ReadFile(path); string(text) != changed {
				t.Error("a bad file was written over")
			}
		})
	}
}

func TestValidateAPIKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.json")
	add(t, path, "gp-demo", "test")
	gone, _ := add(t, path, "gone", "test")
	wrong, _ := add(t, path, "gp-demo", "production")
	partners, err := policy.NewPartners([]policy.Partner{{ID: "gp-demo", Environment: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	err = load(t, path).Validate(partners)
	for _, want := range []string{path, gone.ID, wrong.ID, `"gone" is not configured`, `"production"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
	for _, id := range []string{gone.ID, wrong.ID} {
		if err := credential.Revoke(path, id, made); err != nil {
			t.Fatal(err)
		}
	}
	if err := load(t, path).Validate(partners); err != nil {
		t.Errorf("revoked ones are complained about: %v", err)
	}
}

// FuzzAPIKey: what is taken for a key is exactly the text that Add would write
// for its bits, and none but those that were added is proven.
func FuzzAPIKey(f *testing.F) {
	keys := new(credential.APIKeys)
	form := regexp.MustCompile(`^cs_(test|production)_[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$`)
	f.Add("cs_test_" + strings.Repeat("A", 43))
	f.Add("cs_production_" + strings.Repeat("_", 42) + "8")
	f.Add("cs_test_" + strings.Repeat("A", 41) + "\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		proof, err := keys.Prove(t.Context(), apiKey(text))
		r, ok := errors.AsType[*policy.Refused](err)
		if !ok || proof != (policy.Proof{}) {
			t.Fatalf("%q: %+v, %v", text, proof, err)
		}
		if well := form.MatchString(text); well != (r.Reason == policy.RefusedUnknown) {
			t.Fatalf("%q is well-formed: %t; refused as %q", text, well, r.Reason)
		}
	})
}

// FuzzCredentialFile: what loads, is written by Add with everything that was in
// it.
func FuzzCredentialFile(f *testing.F) {
	f.Add(goodFile)
	f.Add(`{"version":1,"credentials":[]}`)
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := credential.ParseFile("f", []byte(text))
		if err != nil {
			return
		}
		encoded, err := json.Marshal(map[string]any{"version": 1, "credentials": entries})
		if err != nil {
			t.Fatal(err)
		}
		again, err := credential.ParseFile("f", encoded)
		if err != nil || len(again) != len(entries) {
			t.Fatalf("%s does not load again: %v", encoded, err)
		}
		for i, entry := range entries {
			same := again[i]
			if entry.ID == "" || entry.Partner == "" || entry.Kind != policy.KindAPIKey || len(entry.Digest) != 64 {
				t.Fatalf("%+v loaded", entry)
			}
			if same.ID != entry.ID || same.Digest != entry.Digest || same.Note != entry.Note || (same.Revoked == nil) != (entry.Revoked == nil) || !same.Created.Equal(entry.Created) {
				t.Fatalf("%+v became %+v", entry, same)
			}
		}
	})
}
