package envelope

import (
	"encoding/base64"
	"strings"
)

// standard is base64 as RFC 4648, section 4, canonically padded: unused bits are zero.
var standard = base64.StdEncoding.Strict()

// appendDecoded appends what text encodes to dst. Unlike the standard library, it takes no CR or LF inside.
// Each value has exactly one text.
func appendDecoded(dst []byte, text string) (out []byte, ok bool) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, false
	}
	out, err := standard.AppendDecode(dst, []byte(text))
	return out, err == nil
}
