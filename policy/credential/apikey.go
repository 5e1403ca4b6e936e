package credential

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cardstile/cardstile/policy"
)

// An API key is "cs_", its environment, "_" and 256 random bits in base64url
// without padding: cs_test_… or cs_production_…. Its digest is the plain
// SHA-256 of that text: a secret of 256 random bits cannot be guessed from it,
// so it takes no key and no slow hash.
const (
	apiKeyPrefix      = "cs_"
	apiKeySecretBytes = 32
	apiKeySecretText  = 43
)

// APIKeys proves partners by API keys, of which several may be good at one
// time. It is what LoadAPIKeys read, for good: a reload makes another one.
type APIKeys struct {
	// Entries by the first eight bytes of the digest. A look-up's time tells
	// of those at most, which help nobody to find a secret.
	entries map[[8]byte][]*apiKey
	ids     map[string]*apiKey // by Proof.ID
	path    string
	all     []Entry
}

type apiKey struct {
	digest      [sha256.Size]byte
	id          string // Proof.ID
	partner     string
	environment string
	scope       string
	revoked     bool
}

var _ Prover = (*APIKeys)(nil)

// LoadAPIKeys reads a credentials file; see Entry for its form. Every problem
// is reported. Whether the file's mode is tight enough is the caller's to check.
func LoadAPIKeys(path string) (*APIKeys, error) {
	all, err := List(path)
	if err != nil {
		return nil, err
	}
	keys := &APIKeys{entries: make(map[[8]byte][]*apiKey, len(all)), ids: make(map[string]*apiKey, len(all)), path: path, all: all}
	for i := range all {
		key := &apiKey{
			id:      idOf(policy.KindAPIKey, all[i].ID),
			partner: all[i].Partner, environment: all[i].Environment, scope: strings.Join(all[i].Scope, " "), revoked: all[i].Revoked != nil,
		}
		_, _ = hex.Decode(key.digest[:], []byte(all[i].Digest)) // checked by List
		short := [8]byte(key.digest[:])
		keys.entries[short] = append(keys.entries[short], key)
		keys.ids[key.id] = key
	}
	return keys, nil
}

// Validate checks that the keys that are not revoked belong to configured
// partners, in the partner's environment.
func (k *APIKeys) Validate(partners *policy.Partners) error {
	var problems []error
	for _, entry := range k.all {
		if entry.Revoked != nil {
			continue
		}
		partner := partners.ByID(entry.Partner)
		switch {
		case partner == nil:
			problems = append(problems, fmt.Errorf("%s: credential %q: partner %q is not configured", k.path, entry.ID, entry.Partner))
		case partner.Environment != entry.Environment:
			problems = append(problems, fmt.Errorf("%s: credential %q is of environment %q, its partner %q of %q",
				k.path, entry.ID, entry.Environment, entry.Partner, partner.Environment))
		}
	}
	return errors.Join(problems...)
}

// Prove names the partner of an API key, and its scope. Refused as "malformed", "unknown"
// (revoked ones too) or "environment".
func (k *APIKeys) Prove(_ context.Context, c policy.Credential) (policy.Proof, error) {
	environment, ok := parseAPIKey(c)
	if !ok {
		return policy.Proof{}, refuse(policy.KindAPIKey, policy.RefusedMalformed, "")
	}
	digest := sha256.Sum256([]byte(c.Value()))
	for _, key := range k.entries[[8]byte(digest[:])] {
		if subtle.ConstantTimeCompare(key.digest[:], digest[:]) != 1 {
			continue
		}
		switch {
		case key.revoked:
			return policy.Proof{}, refuse(policy.KindAPIKey, policy.RefusedUnknown, "revoked")
		case key.environment != environment:
			return policy.Proof{}, refuse(policy.KindAPIKey, policy.RefusedEnvironment, "the file says another one than the key")
		}
		return policy.Proof{Kind: policy.KindAPIKey, Partner: key.partner, Environment: key.environment, Scope: key.scope, ID: key.id}, nil
	}
	return policy.Proof{}, refuse(policy.KindAPIKey, policy.RefusedUnknown, "")
}

// newAPIKey draws a key and its digest.
func newAPIKey(environment string) (text, digest string) {
	var secret [apiKeySecretBytes]byte
	_, _ = rand.Read(secret[:]) // never fails: crypto/rand
	text = apiKeyPrefix + environment + "_" + textEncoding.EncodeToString(secret[:])
	sum := sha256.Sum256([]byte(text))
	return text, hex.EncodeToString(sum[:])
}

// parseAPIKey checks a key's form and returns its environment. Each key has
// one text.
func parseAPIKey(c policy.Credential) (environment string, ok bool) {
	rest, ok := strings.CutPrefix(c.Value(), apiKeyPrefix)
	if !ok || c.Kind != policy.KindAPIKey {
		return "", false
	}
	environment, secret, _ := strings.Cut(rest, "_")
	if !validEnvironment(environment) || len(secret) != apiKeySecretText {
		return "", false
	}
	var raw [apiKeySecretBytes]byte
	// Line breaks, which the decoder skips, leave too few characters.
	n, err := textEncoding.Decode(raw[:], []byte(secret))
	return environment, err == nil && n == apiKeySecretBytes
}

func validEnvironment(environment string) bool {
	return environment == "test" || environment == "production"
}

// NewAPIKey is what Add needs to know.
type NewAPIKey struct {
	Partner     string
	Environment string    // "test" or "production"
	Scope       []string  // what it may be used for, in words; none: everything
	Note        string    // for operators; at most 200 bytes of printable text
	Now         time.Time // when it was made
}

// Add makes an API key, writes its digest to the credentials file (which it
// creates if there is none) and returns the key. It is nowhere else: whoever
// loses it needs another one.
func Add(path string, key NewAPIKey) (entry Entry, secret string, err error) {
	var id [5]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand
	secret, digest := newAPIKey(key.Environment)
	entry = Entry{
		ID: hex.EncodeToString(id[:]), Partner: key.Partner, Kind: policy.KindAPIKey, Digest: digest,
		Environment: key.Environment, Created: key.Now.UTC().Truncate(time.Second), Scope: key.Scope, Note: key.Note,
	}
	if problem := entry.problem(); problem != "" {
		return Entry{}, "", fmt.Errorf("add credential: %s", problem)
	}
	err = change(path, true, func(entries []Entry) ([]Entry, error) { return append(entries, entry), nil })
	if err != nil {
		return Entry{}, "", fmt.Errorf("add credential: %w", err)
	}
	return entry, secret, nil
}

// ErrNoCredential says that a credentials file has no entry with that id.
var ErrNoCredential = errors.New("no such credential")

// Revoke marks a credential as revoked and keeps its entry, as a record. The
// gateway knows when it reloads. Revoking again changes nothing. Errors:
// ErrNoCredential.
func Revoke(path, id string, now time.Time) error {
	err := change(path, false, func(entries []Entry) ([]Entry, error) {
		i := slices.IndexFunc(entries, func(e Entry) bool { return e.ID == id })
		if i < 0 {
			return nil, fmt.Errorf("%q: %w", id, ErrNoCredential)
		}
		if entries[i].Revoked == nil {
			at := now.UTC().Truncate(time.Second)
			entries[i].Revoked = &at
		}
		return entries, nil
	})
	if err != nil {
		return fmt.Errorf("revoke credential: %w", err)
	}
	return nil
}

// Partners returns the ids of the partners that have a key that is not revoked,
// in the order of their first one.
func (k *APIKeys) Partners() []string {
	var ids []string
	for _, entry := range k.all {
		if entry.Revoked == nil && !slices.Contains(ids, entry.Partner) {
			ids = append(ids, entry.Partner)
		}
	}
	return ids
}
