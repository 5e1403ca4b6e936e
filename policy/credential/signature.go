package credential

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/cardstile/cardstile/policy"
)

// A request's signature is RSA-PSS (RFC 8017 section 8.1) with SHA-256, MGF1
// with SHA-256 and a salt of any length, over 64 characters of text: the SHA-256
// of the canonical body in lower-case hex. It is written in base64 with a line
// break after every 76 characters and at the end, which a header's way through
// HTTP turns into spaces or takes away: white space counts for nothing.
const signatureMaxText = 4 << 10 // 8192 bits are 1368 characters and 18 breaks

// ProveSignature proves an account by its signature over a request: digest is
// the SHA-256 of the canonical body, which the vault computed. It does not say
// when or where the request was signed: whoever captured it can repeat it.
//
// Refused as "malformed", or as "signature", whether there is no such account
// or none of its keys made the signature.
func (a *Accounts) ProveSignature(id string, digest [sha256.Size]byte, c policy.Credential) (policy.Proof, error) {
	signature, ok := parseSignature(c)
	if !ok {
		return policy.Proof{}, refuse(policy.KindSignature, policy.RefusedMalformed, "")
	}
	text := hex.AppendEncode(make([]byte, 0, 2*len(digest)), digest[:])
	hashed := sha256.Sum256(text)
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: crypto.SHA256}
	account, known := a.orDecoy(id)
	spki, good := account.signed(func(key *rsa.PublicKey) error {
		return rsa.VerifyPSS(key, crypto.SHA256, hashed[:], signature, options)
	})
	if !known || !good {
		return policy.Proof{}, refuse(policy.KindSignature, policy.RefusedSignature, "")
	}
	proof := account.proof(policy.KindSignature, idOf(policy.KindSignature, id))
	proof.Key = spki
	return proof, nil
}

// signed returns which of the account's keys something verifies with, if one of
// them. All are tried, so that the time does not tell which. No account has
// signed nothing.
func (a *Account) signed(verify func(*rsa.PublicKey) error) (spki policy.Fingerprint, good bool) {
	if a == nil {
		return policy.Fingerprint{}, false
	}
	for _, key := range a.Keys {
		if verify(key.Public) == nil {
			spki, good = key.SPKI, true
		}
	}
	return spki, good
}

// parseSignature decodes a signature's text.
func parseSignature(c policy.Credential) (signature []byte, ok bool) {
	if c.Kind != policy.KindSignature || len(c.Value()) > signatureMaxText {
		return nil, false
	}
	text := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\r\n\v\f", r) {
			return -1
		}
		return r
	}, c.Value())
	signature, err := base64.StdEncoding.Strict().DecodeString(text)
	return signature, err == nil && len(signature) > 0
}
