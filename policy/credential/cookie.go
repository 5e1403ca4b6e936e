package credential

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// A signed cookie is urlencode(value + "." + base64(HMAC-SHA-256(key, value))),
// as hono writes signed cookies and Exa's clients carry them. The signature is
// compared as its 44 characters of text and never decoded. The cookie has no
// time in it, so it counts only while its login record lives in the store [21].
const (
	cookieSignatureText = 44
	cookieMaxValue      = 512
	cookieMaxText       = 3 * (cookieMaxValue + 1 + cookieSignatureText)
)

// Labels of what is digested for the store.
const (
	loginLabel  = "cardstile login v1"
	recordLabel = "cardstile login record v1"
)

// CookiesConfig configures Cookies.
type CookiesConfig struct {
	Face    string       // whose cookies these are: a login counts there alone
	Signers []policy.MAC // keys of use cookie, as they are; the primary first. Required

	// Logins are keyed digests, label "login", the primary first, and
	// Records is where login records live. Required unless Stateless.
	Logins  []policy.MAC
	Records store.Records

	// Stateless accepts every cookie that is signed, for ever: a
	// compatibility mode that a route names [21].
	Stateless bool

	Now func() time.Time // time.Now by default
}

// Cookies proves users by signed cookies.
type Cookies struct {
	config CookiesConfig
	logins live // unless stateless
}

var _ Prover = (*Cookies)(nil)

// NewCookies returns the prover.
func NewCookies(config CookiesConfig) (*Cookies, error) {
	switch {
	case len(config.Signers) == 0:
		return nil, errors.New("cookie credentials: no key")
	case config.Face == "":
		return nil, errors.New("cookie credentials: no face")
	case config.Stateless && (config.Records != nil || len(config.Logins) > 0):
		return nil, errors.New("cookie credentials: stateless, and yet with login records")
	case !config.Stateless && (config.Records == nil || len(config.Logins) == 0):
		return nil, errors.New("cookie credentials: login records need a store and a digest key")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Cookies{config, live{
		kind: store.KindLogin, label: loginLabel, recordLabel: recordLabel,
		face: config.Face, macs: config.Logins, records: config.Records, now: config.Now,
	}}, nil
}

// Prove names the user of a cookie. Refused as "malformed", "signature", or
// "login" where nobody is logged in with it (any more). Failures of the store
// pass through.
func (c *Cookies) Prove(ctx context.Context, credential policy.Credential) (policy.Proof, error) {
	value, signature, ok := parseCookie(credential)
	if !ok {
		return policy.Proof{}, refuse(policy.KindCookie, policy.RefusedMalformed, "")
	}
	if !c.signed(value, signature) {
		return policy.Proof{}, refuse(policy.KindCookie, policy.RefusedSignature, "")
	}
	proof := policy.Proof{Kind: policy.KindCookie, User: value, ID: idOf(policy.KindCookie, value)}
	if !c.config.Stateless {
		generation, err := c.logins.check(ctx, policy.KindCookie, value)
		if err != nil {
			return policy.Proof{}, err
		}
		proof.Minted, proof.Generation = true, generation
	}
	return proof, nil
}

// Sign returns the text of the cookie for a value, signed with the primary key.
func (c *Cookies) Sign(value string) string {
	var signature [cookieSignatureText]byte
	sign(c.config.Signers[0], value, &signature)
	return encodeURIComponent(value + "." + string(signature[:]))
}

// Login begins or renews the login of a value, for ttl from now, of the partner's
// generation. Until then or Logout its cookie is accepted.
func (c *Cookies) Login(ctx context.Context, value string, ttl time.Duration, generation uint64) error {
	if c.config.Stateless {
		return errors.New("login: stateless cookies have no logins")
	}
	if !validCookieValue(value) || ttl <= 0 {
		return errors.New("login: the value is no cookie's, or the time to live is not positive")
	}
	if err := c.logins.begin(ctx, value, ttl, generation); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	return nil
}

// Logout ends the login of a value, under whichever key it began. It is no
// error if there was none.
func (c *Cookies) Logout(ctx context.Context, value string) error {
	if c.config.Stateless {
		return errors.New("logout: stateless cookies have no logins")
	}
	if err := c.logins.end(ctx, value); err != nil {
		return fmt.Errorf("logout: %w", err)
	}
	return nil
}

// signed reports whether one of the keys made the signature. All are tried, so
// that the time does not tell which.
func (c *Cookies) signed(value, signature string) bool {
	var want, got [cookieSignatureText]byte
	copy(got[:], signature)
	good := 0
	for _, key := range c.config.Signers {
		sign(key, value, &want)
		good |= subtle.ConstantTimeCompare(want[:], got[:])
	}
	return good == 1
}

// sign writes the 44 characters of a value's signature.
func sign(key policy.MAC, value string, signature *[cookieSignatureText]byte) {
	base64.StdEncoding.Encode(signature[:], key.MAC(nil, []byte(value)))
}

// parseCookie takes the text of a cookie apart, without looking whether the
// signature is good.
func parseCookie(c policy.Credential) (value, signature string, ok bool) {
	text := c.Value()
	if c.Kind != policy.KindCookie || len(text) > cookieMaxText {
		return "", "", false
	}
	// "+" is itself. Text that was never encoded decodes to itself, as clients
	// also send it.
	text, err := url.PathUnescape(text)
	if err != nil {
		return "", "", false
	}
	dot := strings.LastIndexByte(text, '.')
	if dot < 0 {
		return "", "", false
	}
	value, signature = text[:dot], text[dot+1:]
	if len(signature) != cookieSignatureText || signature[cookieSignatureText-1] != '=' || !validCookieValue(value) {
		return "", "", false
	}
	return value, signature, true
}

// validCookieValue keeps values to visible ASCII: they become user ids.
func validCookieValue(value string) bool {
	if value == "" || len(value) > cookieMaxValue {
		return false
	}
	for _, c := range []byte(value) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// encodeURIComponent is ECMA-262's: all but A–Z a–z 0–9 and -_.!~*'() as %XX.
func encodeURIComponent(text string) string {
	const hex = "0123456789ABCDEF"
	var out strings.Builder
	out.Grow(len(text) + 8)
	for _, c := range []byte(text) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.!~*'()", c) >= 0:
			out.WriteByte(c)
		default:
			out.WriteByte('%')
			out.WriteByte(hex[c>>4])
			out.WriteByte(hex[c&15])
		}
	}
	return out.String()
}
