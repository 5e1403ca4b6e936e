package credential

import (
	"strings"

	"github.com/go-json-experiment/json"
)

const (
	jwsMaxText = 4 << 10 // bytes of a signed token's text
	jwtType    = "JWT"   // its typ
)

// jwsHeader is all that the header of a signed token may say. Everything else
// ("jwk", "jku", "x5c", "x5u", "crit", "b64", "zip" …) is a way to bring one's
// own key, or to have the token read differently.
type jwsHeader struct {
	Algorithm string `json:"alg"`
	Type      string `json:"typ,omitzero"`
	KeyID     string `json:"kid,omitzero"`
}

// parseJWS reads the header of a JWS in compact serialization (RFC 7515 section
// 7.1), without looking whether the signature is good. Each token has one text:
// three parts of base64url without padding, line breaks or stray bits, at most
// 4 KiB. The header names nothing twice and nothing that jwsHeader has not.
func parseJWS(text string) (header jwsHeader, ok bool) {
	if len(text) > jwsMaxText {
		return jwsHeader{}, false
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return jwsHeader{}, false
	}
	for _, part := range parts {
		raw, err := textEncoding.DecodeString(part)
		// The decoder skips line breaks.
		if err != nil || len(raw) == 0 || textEncoding.EncodedLen(len(raw)) != len(part) {
			return jwsHeader{}, false
		}
	}
	raw, _ := textEncoding.DecodeString(parts[0]) // decoded above
	if json.Unmarshal(raw, &header, json.RejectUnknownMembers(true)) != nil {
		return jwsHeader{}, false
	}
	return header, true
}
