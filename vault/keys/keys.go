// Package keys answers: where does a key come from, and what may be done with it?
//
// A key is loaded once, for one use, and offers operations: decrypt, MAC, seal, sign. Bytes of private and symmetric keys
// never leave the package. A provider is one file and one line in the kinds table.
package keys

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// Use is the one thing that a key is for [27]. A key of one use refuses the operations of another.
type Use string

// The uses. Session and issuer keys are RSA, those for JWTs of one of four algorithms; all others are symmetric.
const (
	UseSession Use = "session" // private: clients encrypt their session keys to it
	UseIssuer  Use = "issuer"  // commonly public: we encrypt session keys to it
	UseStorage Use = "storage" // seals what the store keeps
	UseDigest  Use = "digest"  // keyed digests of tokens and references
	UseCookie  Use = "cookie"  // signed cookies of the exa face
	UseJWT     Use = "jwt"     // signs access tokens, see [Key.JWT]
	UseAudit   Use = "audit"   // the chain of audit records
)

var uses = []Use{UseSession, UseIssuer, UseStorage, UseDigest, UseCookie, UseJWT, UseAudit}

// ParseUse returns the use of that name, or an error that lists the known ones.
func ParseUse(name string) (Use, error) {
	if u := Use(name); slices.Contains(uses, u) {
		return u, nil
	}
	return "", fmt.Errorf("unknown key use %q: known are %s", name, joined(uses))
}

func (u Use) rsa() bool { return u == UseSession || u == UseIssuer }

// Config says where a key is and what it is for.
type Config struct {
	ID             string // 1 to 64 letters, digits, '.', '_' or '-'; names the key in the inventory, in errors and by its [Key.Tag]
	Use            Use
	Kind           string // provider, one of [Kinds]; default "pem"
	File           string // path
	PassphraseFile string // path; required by kinds "age" and "sealed", refused by "pem". One trailing newline is not part of the passphrase
	Environment    string // "test", "production" or empty; keys of different environments do not mix [5]
}

// provider reads the key that c names. It is called once, at load, and may block on the file system. before is the key of this name
// that is in use, or nil: it may be returned where it is the same.
type provider func(c Config, before *Key) (*Key, error)

// kinds are the providers, by the name that configurations give.
var kinds = map[string]provider{
	"pem":      loadPEM,
	KindAge:    loadAge,
	KindSealed: loadSealed,
}

// Kinds lists the names of the providers.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Load reads a key and checks that its content fits its use. Errors name key and file and quote no content.
//
// Session keys must be private and at least 2048 bits; issuer keys may be either half, at least 1024 bits, and the
// caller applies [MinBits]. An RSA modulus of more than 8192 bits is refused. Keys of use jwt are symmetric or private,
// and their kind of key is their algorithm: see [Key.JWT].
func Load(c Config) (*Key, error) { return Reload(c, nil) }

// Reload is Load for a key that may be in use already. Where before is the key of c's id, use, environment and kind, and was opened
// from a file and with a passphrase that are the same now, byte for byte, it is returned and the file is not opened again. Keys are
// never closed, so that both configurations may go on with it. before may be nil, and another key: then c is loaded.
func Reload(c Config, before *Key) (*Key, error) {
	if !idPattern.MatchString(c.ID) {
		return nil, errors.New("load key: id must be 1 to 64 letters, digits, '.', '_' or '-', not starting with a mark")
	}
	k, err := load(c, before)
	if err != nil {
		return nil, fmt.Errorf("load key %q: %w", c.ID, err)
	}
	return k, nil
}

func load(c Config, before *Key) (*Key, error) {
	if _, err := ParseUse(string(c.Use)); err != nil {
		return nil, err
	}
	switch c.Environment {
	case "", "test", "production":
	default:
		return nil, errors.New("unknown environment: known are test, production")
	}
	if c.File == "" {
		return nil, errors.New("no file")
	}
	kind := c.Kind
	if kind == "" {
		kind = "pem"
	}
	p, ok := kinds[kind]
	if !ok {
		return nil, fmt.Errorf("unknown kind %q: known are %s", kind, joined(Kinds()))
	}
	return p(c, before)
}

// Key is one loaded key. It is immutable and safe for concurrent use. It never prints what is secret in it.
type Key struct {
	id          string
	use         Use
	environment string
	plain       bool
	material    secret.Hidden[material]
	origin      secret.Hidden[origin] // nil of a key that took no passphrase
}

// material is what must not leave the package.
type material struct {
	private   *rsa.PrivateKey
	public    *rsa.PublicKey
	symmetric *secret.Buffer
	signer    crypto.Signer // of use jwt: *rsa.PrivateKey, *ecdsa.PrivateKey on P-256, or ed25519.PrivateKey
}

func newKey(c Config, m *material, plain bool) *Key {
	return &Key{id: c.ID, use: c.Use, environment: c.Environment, plain: plain, material: secret.Hide(m)}
}

// ID is the configured name.
func (k *Key) ID() string { return k.id }

// Use is the one use of the key.
func (k *Key) Use() Use { return k.use }

// Environment is "test", "production" or empty.
func (k *Key) Environment() string { return k.environment }

// Plain reports whether the file held the key in clear, as PEM or text: refused for production by the caller [24].
// A public key is not plain.
func (k *Key) Plain() bool { return k.plain && !k.publicOnly() }

// Private reports whether the key can do more than encrypt: false for the public half of an RSA key.
func (k *Key) Private() bool { return !k.publicOnly() }

func (k *Key) publicOnly() bool {
	m := k.material.Get()
	return m.private == nil && m.symmetric == nil && m.signer == nil
}

// Tag is the first three bytes of SHA-256 of the id: it says in a sealed or stored value which key of a ring made it.
// It is not secret.
func (k *Key) Tag() [3]byte {
	sum := sha256.Sum256([]byte(k.id))
	return [3]byte(sum[:])
}

// Public is the public half of a session or issuer key, not to be changed; nil for a key of another use.
func (k *Key) Public() *rsa.PublicKey { return k.material.Get().public }

// Decrypter returns RSA decryption with the private half, for [rsa.OAEPOptions] only: PKCS #1 v1.5 is refused.
// The value gives no access to the key. It is an error for keys of other uses than session and issuer, and for public ones.
func (k *Key) Decrypter() (crypto.Decrypter, error) {
	if !k.use.rsa() {
		return nil, k.wrongUse("decrypt")
	}
	private := k.material.Get().private
	if private == nil {
		return nil, fmt.Errorf("key %q: decrypt: only the public half is here", k.id)
	}
	return &decrypter{key: secret.Hide(private)}, nil
}

// Format implements [fmt.Formatter]: id and use, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "key %q (%s)", k.id, string(k.use)) }

func (k *Key) wrongUse(operation string) error {
	return fmt.Errorf("key %q: %s: not what a key of use %q is for", k.id, operation, k.use)
}

// decrypter keeps a private key from callers that would assert it to *rsa.PrivateKey and export it.
type decrypter struct{ key secret.Hidden[rsa.PrivateKey] }

var _ crypto.Decrypter = (*decrypter)(nil)

var errOptions = errors.New("keys: decrypt: RSA-OAEP only")

func (d *decrypter) Public() crypto.PublicKey { return &d.key.Get().PublicKey }

func (d *decrypter) Decrypt(rand io.Reader, message []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	if _, ok := opts.(*rsa.OAEPOptions); !ok {
		return nil, errOptions
	}
	return d.key.Get().Decrypt(rand, message, opts)
}

func joined[S ~string](names []S) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = string(n)
	}
	return strings.Join(out, ", ")
}
