package envelope

import (
	"encoding/base64"
	"fmt"
	"sync"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

const (
	tagBytes       = 16
	shortIVBytes   = 12
	longIVBytes    = 16
	maxSealedBytes = 4096 // of ciphertext and tag; a field has 35 at most
)

// checkSeal refuses what [Cipher.Seal] does not take, in any format.
func checkSeal(plaintext *secret.Buffer, ivBytes int) error {
	if ivBytes != shortIVBytes && ivBytes != longIVBytes {
		return fmt.Errorf("seal: an IV of %d bytes, want 12 or 16", ivBytes)
	}
	if plaintext.Len() > maxSealedBytes-tagBytes {
		return fmt.Errorf("seal: more than %d bytes", maxSealedBytes-tagBytes)
	}
	return nil
}

// scratch is memory for what is public anyway: ciphertext, IVs and their texts.
type scratch struct {
	iv      [longIVBytes + 2]byte // decoding 24 characters may touch 18 bytes
	ivBytes int
	sealed  []byte
	text    []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// decode fills sealed and iv, or reports false: not strict base64, an IV of neither 12 nor 16 bytes, no room for a tag.
func (s *scratch) decode(data, iv string) bool {
	if len(data) > base64.StdEncoding.EncodedLen(maxSealedBytes) || len(iv) > base64.StdEncoding.EncodedLen(longIVBytes) {
		return false
	}
	var ok bool
	nonce, ok := appendDecoded(s.iv[:0], iv)
	if !ok || len(nonce) != shortIVBytes && len(nonce) != longIVBytes {
		return false
	}
	s.ivBytes = len(nonce)
	sealed, ok := appendDecoded(s.sealed[:0], data)
	if !ok || len(sealed) < tagBytes || len(sealed) > maxSealedBytes {
		return false
	}
	s.sealed = sealed
	return true
}

// encode gives the base64 text of p as a string of its own.
func (s *scratch) encode(p []byte) string {
	s.text = standard.AppendEncode(s.text[:0], p)
	return string(s.text)
}
