package main

import (
	"encoding/hex"
	"strconv"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"

	"github.com/cardstile/cardstile/policy"
)

// This file is the wallet of the demo's user: an account of Ethereum's kind, whose key lies in the demo's directory.

// newWallet draws a private key, in hex.
func newWallet() string {
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		panic("internal error: " + err.Error()) // crypto/rand does not fail
	}
	return hex.EncodeToString(key.Serialize())
}

func walletKey(private string) *secp256k1.PrivateKey {
	raw, _ := hex.DecodeString(private)
	return secp256k1.PrivKeyFromBytes(raw)
}

// walletAddress is the address of a private key: the last 20 bytes of Keccak-256 of the public key (Ethereum's yellow paper,
// appendix F), in the spelling of EIP-55.
func walletAddress(private string) string {
	public := walletKey(private).PubKey().SerializeUncompressed()
	hash := sha3.NewLegacyKeccak256()
	hash.Write(public[1:])
	return policy.Address(hash.Sum(nil)[12:]).String()
}

// walletSign signs a text as personal_sign does (EIP-191): r, s and v in hex.
func walletSign(private, text string) string {
	hash := sha3.NewLegacyKeccak256()
	hash.Write([]byte("\x19Ethereum Signed Message:\n" + strconv.Itoa(len(text)) + text))
	compact := ecdsa.SignCompact(walletKey(private), hash.Sum(nil), false) // v, r, s
	return "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
}
