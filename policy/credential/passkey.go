package credential

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cardstile/cardstile/policy"
)

// Values of PasskeysConfig.UserVerification (WebAuthn Level 3, section 5.8.6).
const (
	VerificationRequired    = "required"    // asked for, and refused without it
	VerificationPreferred   = "preferred"   // asked for
	VerificationDiscouraged = "discouraged" // a touch is enough
)

// PasskeysConfig configures Passkeys.
type PasskeysConfig struct {
	RPID string // the relying party's id, a domain: "example.com". Required

	// Origins are those that assertions may be made on, exactly as browsers
	// write them: "https://app.example.com", or "android:apk-key-hash:" and
	// what follows. Required.
	Origins []string

	// TopOrigins are the origins of the pages that an origin of Origins may be
	// framed in. None by default: an assertion made across origins is refused,
	// as is one whose browser does not say which page it was.
	TopOrigins []string

	// UserVerification is VerificationRequired by default. With another one a
	// passkey is something that the user has, and nothing else.
	UserVerification string
}

// Passkeys proves users by what their authenticators sign.
type Passkeys struct {
	config PasskeysConfig
	party  relyingParty
}

// NewPasskeys returns the prover.
func NewPasskeys(config PasskeysConfig) (*Passkeys, error) {
	if config.UserVerification == "" {
		config.UserVerification = VerificationRequired
	}
	switch {
	case !validRPID(config.RPID):
		return nil, errors.New("passkeys: the relying party's id must be a domain in lower case")
	case len(config.Origins) == 0:
		return nil, errors.New("passkeys: no origin")
	case config.UserVerification != VerificationRequired && config.UserVerification != VerificationPreferred && config.UserVerification != VerificationDiscouraged:
		return nil, errors.New(`passkeys: user verification must be "required", "preferred" or "discouraged"`)
	}
	for _, origin := range slices.Concat(config.Origins, config.TopOrigins) {
		if !validOrigin(origin) {
			return nil, fmt.Errorf("passkeys: %q is not an origin as browsers write it", origin)
		}
	}
	return &Passkeys{config, relyingParty{
		idHash:  sha256.Sum256([]byte(config.RPID)),
		origins: slices.Clone(config.Origins), topOrigins: slices.Clone(config.TopOrigins),
		unverifiedUsers: config.UserVerification != VerificationRequired,
	}}, nil
}

// Prove proves a user by an assertion over the message of a challenge that was
// taken just now. The user is the one whom the challenge names or, where it
// names nobody, the one whose passkey the assertion says it is: the caller
// looks them up, and passes nil where there is none. The proof's environment is
// the challenge's.
//
// Refused as "unknown" (none of the user's passkeys), "user" (nobody, or not
// the challenge's), "partner" (another partner's user), "bound" (another
// challenge, origin or relying party), "signature" (also where the user was not
// present or not verified), or "malformed".
func (p *Passkeys) Prove(a *Assertion, expected *Challenge, user *policy.User) (policy.Proof, error) {
	switch {
	case a == nil:
		return policy.Proof{}, refuse(policy.KindPasskey, policy.RefusedMalformed, "no assertion")
	case expected == nil || expected.Method != policy.MethodWebAuthn || expected.Message == "":
		return policy.Proof{}, refuse(policy.KindPasskey, policy.RefusedBound, "not a challenge for passkeys")
	case user == nil || user.ID == "" || expected.User != "" && expected.User != user.ID:
		return policy.Proof{}, refuse(policy.KindPasskey, policy.RefusedUser, "")
	case expected.Partner != "" && expected.Partner != user.Partner:
		return policy.Proof{}, refuse(policy.KindPasskey, policy.RefusedPartner, "")
	}
	i := slices.IndexFunc(user.Passkeys, func(k policy.Passkey) bool { return k.ID == a.ID })
	if i < 0 {
		return policy.Proof{}, refuse(policy.KindPasskey, policy.RefusedUnknown, "none of the user's passkeys")
	}
	key, err := user.Passkeys[i].Key()
	if err != nil { // a directory that does not check what it hands out
		return policy.Proof{}, fmt.Errorf("public key of a passkey: %w", err)
	}
	if err := p.party.verify(a, expected.Message, key); err != nil {
		return policy.Proof{}, err
	}
	return policy.Proof{Kind: policy.KindPasskey, User: user.ID, Environment: expected.Environment}, nil
}

// RequestOptions is a PublicKeyCredentialRequestOptionsJSON (WebAuthn Level 3,
// section 5.1.10).
type RequestOptions struct {
	Challenge        string                 `json:"challenge"`
	Timeout          int64                  `json:"timeout"` // milliseconds
	RPID             string                 `json:"rpId"`
	AllowCredentials []CredentialDescriptor `json:"allowCredentials"`
	UserVerification string                 `json:"userVerification"`
}

// CredentialDescriptor is a PublicKeyCredentialDescriptorJSON.
type CredentialDescriptor struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

// Options returns what a browser needs to ask for an assertion over a
// challenge. Its credentials are those of user; nil is nobody in particular, and
// the list is empty: the user picks a passkey that the authenticator finds.
func (p *Passkeys) Options(challenge *Challenge, user *policy.User, timeout time.Duration) RequestOptions {
	options := RequestOptions{
		Challenge: base64.RawURLEncoding.EncodeToString([]byte(challenge.Message)), Timeout: timeout.Milliseconds(),
		RPID: p.config.RPID, AllowCredentials: []CredentialDescriptor{}, UserVerification: p.config.UserVerification,
	}
	if user != nil {
		for _, passkey := range user.Passkeys {
			options.AllowCredentials = append(options.AllowCredentials, CredentialDescriptor{passkey.ID, "public-key"})
		}
	}
	return options
}

// validRPID keeps ids to domains in the spelling that browsers hash.
func validRPID(id string) bool {
	if id == "" || len(id) > 253 || strings.Trim(id, ".-") != id || strings.Contains(id, "..") {
		return false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// validOrigin keeps origins to the spelling that clients write: a scheme, a
// host in lower case and, unless it is the scheme's own, a port; or that of an
// Android app.
func validOrigin(origin string) bool {
	if hash, ok := strings.CutPrefix(origin, "android:apk-key-hash:"); ok {
		raw, ok := base64url(hash, 32)
		return ok && len(raw) == 32
	}
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || !validRPID(u.Hostname()) || u.Scheme+"://"+u.Host != origin {
		return false
	}
	local := u.Hostname() == "localhost" || strings.HasSuffix(u.Hostname(), ".localhost")
	switch port := u.Port(); {
	case strings.HasSuffix(u.Host, ":"), strings.HasPrefix(port, "0"):
		return false
	case u.Scheme == "http": // else no secure context, and no WebAuthn in it
		return local && port != "80"
	default:
		return port != "443"
	}
}
