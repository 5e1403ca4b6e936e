package main

import (
	"crypto/fips140"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/vault/keys"
)

// This file names what a configuration needs beyond FIPS 140-3. See docs/fips.md.

// Primitives that FIPS 140-3 does not approve, beside those that envelopes name.
const (
	outsideRSA1024 = "rsa-1024"
	outsideWallet  = "secp256k1 and keccak-256"     // what wallets sign with
	outsideAge     = "scrypt and chacha20-poly1305" // age files
)

// outside notes that what stands at a key of the configuration needs a primitive beyond FIPS 140-3. In the mode "only" it is a problem:
// Go's module would refuse it in the middle of an exchange, or would not know of it. Fails closed.
func (b *builder) outside(key, primitive string) {
	if fips140.Enforced() {
		b.problem(key, "needs %s, which is outside FIPS 140-3: not with GODEBUG=fips140=only", primitive)
		return
	}
	if at := b.beyondFIPS[primitive]; !slices.Contains(at, key) {
		b.beyondFIPS[primitive] = append(at, key)
	}
}

// tellFIPS puts into the inventory what has been noted, and the mode where there is one.
func (b *builder) tellFIPS() {
	if fips140.Enabled() {
		b.notice("fips140: mode %s, module %s", fipsMode(), fips140.Version())
	}
	for _, primitive := range slices.Sorted(maps.Keys(b.beyondFIPS)) {
		b.notice("fips140: outside FIPS 140-3: %s: %s", primitive, listed(b.beyondFIPS[primitive]))
	}
	if !fips140.Enforced() {
		return
	}
	for i, c := range b.config.Keys {
		if k := b.keys[c.ID]; k != nil && k.Use() == keys.UseJWT {
			b.tryJWTKey(fmt.Sprintf("keys[%d].file", i), k)
		}
	}
}

// tryJWTKey has a key sign once: the module refuses RSA keys of odd sizes and small exponents, and would do so in an exchange.
func (b *builder) tryJWTKey(at string, k *keys.Key) {
	signer, err := k.JWT()
	if err == nil {
		_, err = signer.Sign([]byte("cardstile"))
	}
	if err != nil {
		b.problem(at, "%v", err)
	}
}

// checkBinding refuses an account binding whose key is too short: the module would end the process over it.
func (b *builder) checkBinding(at string, a *gateway.ACME) {
	key, err := base64.RawURLEncoding.DecodeString(a.BindingKey)
	if fips140.Enforced() && err == nil && len(key) < face.MinHMACKey {
		b.problem(at, "the key has less than 112 bits, which GODEBUG=fips140=only does not admit")
	}
}

// fipsMode is what GODEBUG=fips140 is, or what it was built with.
func fipsMode() string {
	switch {
	case fips140.Enforced():
		return "only"
	case fips140.Enabled():
		return "on"
	}
	return "off"
}
