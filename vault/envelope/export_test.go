package envelope

import "github.com/cardstile/cardstile/vault/internal/secret"

// GnosisSeal seals under a given IV.
func GnosisSeal(c Cipher, iv, plaintext string) (data string) {
	nonce, _ := appendDecoded(nil, iv)
	return c.(*gnosisCipher).sealWith(new(scratch), nonce, secret.From([]byte(plaintext)))
}
