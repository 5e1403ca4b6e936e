package credential

import (
	"encoding/hex"
	"slices"
	"strconv"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/cardstile/cardstile/policy"
)

// A wallet signs a message by personal_sign: ECDSA on secp256k1 over the
// Keccak-256 of the message with ERC-191's prefix, version 0x45; or typed data,
// over its hash (EIP-712). The signature is "0x" and 130 hexadecimal digits, of either case: r, s and a recovery id of
// 0, 1, 27 or 28. Nobody sends a public key: it is recovered, and its address
// is compared.
const (
	walletPrefix         = "\x19Ethereum Signed Message:\n" // the message's length in bytes follows, in decimal
	walletSignatureBytes = 65
	walletSignatureText  = 2 + 2*walletSignatureBytes
)

// WalletsConfig configures Wallets.
type WalletsConfig struct {
	Now func() time.Time // time.Now by default
}

// Wallets proves users by what their wallets sign.
//
// Wallets that are contracts (ERC-1271, ERC-6492) are refused: whether they
// signed is told by running their code on a node of the chain, which may answer
// differently tomorrow.
type Wallets struct{ config WalletsConfig }

// NewWallets returns the prover.
func NewWallets(config WalletsConfig) *Wallets {
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Wallets{config}
}

// Prove proves the user of a challenge that was taken just now: the message is
// the challenge's, byte for byte, and the wallet whose address is the user's id
// signed it. The proof names the user as the challenge does; its environment is
// the challenge's.
//
// Refused as "malformed", "bound" (another message, or no challenge for
// wallets), "expired" (also not yet valid), "signature", or "user" where
// somebody else signed.
func (w *Wallets) Prove(message, signature string, expected *Challenge) (policy.Proof, error) {
	raw, ok := parseWalletSignature(signature)
	if !ok {
		return policy.Proof{}, refuse(policy.KindWallet, policy.RefusedMalformed, "the signature's form")
	}
	if expected == nil || expected.Method != policy.MethodSIWE || message != expected.Message {
		return policy.Proof{}, refuse(policy.KindWallet, policy.RefusedBound, "not the message of a challenge for wallets")
	}
	parsed, err := ParseSIWE(message)
	if err != nil {
		return policy.Proof{}, refuse(policy.KindWallet, policy.RefusedMalformed, "the message's form")
	}
	if !parsed.current(w.config.Now()) {
		return policy.Proof{}, refuse(policy.KindWallet, policy.RefusedExpired, "")
	}
	signer, ok := recoverAddress(personalHash(message), raw)
	if !ok {
		return policy.Proof{}, refuse(policy.KindWallet, policy.RefusedSignature, "")
	}
	user, ok := policy.ParseAddress(expected.User)
	if !ok || signer != user || signer != parsed.Address {
		return policy.Proof{}, refuse(policy.KindWallet, policy.RefusedUser, "signed by another wallet, or the message was changed")
	}
	return policy.Proof{Kind: policy.KindWallet, User: expected.User, Environment: expected.Environment}, nil
}

// ProveTyped proves the user of a challenge that was taken just now, by a
// signature over its typed data: one of the signers, which are the user's (see
// policy.User.Signers), made it. The proof names user and card as the challenge
// does; its environment is the challenge's. For which operation the challenge
// was, whoever took it has said.
//
// Refused as "malformed", "bound" (no challenge of typed data), "signature", or
// "user" where somebody else signed.
func (w *Wallets) ProveTyped(signature string, expected *Challenge, signers []policy.Address) (policy.Proof, error) {
	raw, ok := parseWalletSignature(signature)
	if !ok {
		return policy.Proof{}, refuse(policy.KindWallet, policy.RefusedMalformed, "the signature's form")
	}
	if expected == nil || expected.Method != policy.MethodEIP712 || expected.User == "" || expected.Card == "" {
		return policy.Proof{}, refuse(policy.KindWallet, policy.RefusedBound, "not a challenge of typed data")
	}
	data, err := parseTyped(expected.Message)
	if err != nil {
		return policy.Proof{}, refuse(policy.KindWallet, policy.RefusedBound, "not a challenge of typed data")
	}
	hash, err := data.Hash()
	if err != nil {
		return policy.Proof{}, refuse(policy.KindWallet, policy.RefusedBound, "not a challenge of typed data")
	}
	signer, ok := recoverAddress(hash[:], raw)
	if !ok {
		return policy.Proof{}, refuse(policy.KindWallet, policy.RefusedSignature, "")
	}
	if !slices.Contains(signers, signer) {
		return policy.Proof{}, refuse(policy.KindWallet, policy.RefusedUser, "signed by another wallet, or something else was signed")
	}
	return policy.Proof{Kind: policy.KindWallet, User: expected.User, Card: expected.Card, Environment: expected.Environment}, nil
}

func parseWalletSignature(text string) (raw [walletSignatureBytes]byte, ok bool) {
	if len(text) != walletSignatureText || text[:2] != "0x" {
		return raw, false
	}
	_, err := hex.Decode(raw[:], []byte(text[2:]))
	return raw, err == nil
}

// personalHash is what personal_sign signs of a message.
func personalHash(message string) []byte {
	hash := keccak256(walletPrefix, strconv.Itoa(len(message)), message)
	return hash[:]
}

// recoverAddress returns the address whose key made the signature. Where r or s
// is none, or s is in the upper half of the order, so that the signature has a
// twin (EIP-2), there is none.
func recoverAddress(hash []byte, signature [walletSignatureBytes]byte) (address policy.Address, ok bool) {
	v := signature[64]
	if v == 27 || v == 28 {
		v -= 27
	}
	var s secp256k1.ModNScalar
	s.SetByteSlice(signature[32:64]) // one that is too large is found below
	if v > 1 || s.IsOverHalfOrder() {
		return policy.Address{}, false
	}
	const uncompressed = 27 // how decred's form of a signature begins, plus the recovery id
	compact := append(make([]byte, 0, walletSignatureBytes), uncompressed+v)
	key, _, err := ecdsa.RecoverCompact(append(compact, signature[:64]...), hash)
	if err != nil { // r or s is zero or too large, or r is no point's
		return policy.Address{}, false
	}
	digest := keccak256(string(key.SerializeUncompressed()[1:]))
	return policy.Address(digest[12:]), true
}
