package main

import (
	"encoding/hex"
	"math/big"
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

// walletSignTyped signs typed data as eth_signTypedData_v4 does (EIP-712), of the one type that challenges have:
// Message(string authorization,uint256 nonce).
func walletSignTyped(private string, d *typedData) string {
	nonce, _ := new(big.Int).SetString(d.Message.Nonce, 10)
	if nonce == nil || nonce.BitLen() > 256 {
		return "" // nothing that a wallet could sign
	}
	word := func(n *big.Int) []byte { return n.FillBytes(make([]byte, 32)) }
	domain := keccak(
		keccak([]byte("EIP712Domain(string name,string version,uint256 chainId)")),
		keccak([]byte(d.Domain.Name)), keccak([]byte(d.Domain.Version)), word(new(big.Int).SetUint64(d.Domain.ChainID)),
	)
	message := keccak(keccak([]byte("Message(string authorization,uint256 nonce)")), keccak([]byte(d.Message.Authorization)), word(nonce))
	compact := ecdsa.SignCompact(walletKey(private), keccak([]byte("\x19\x01"), domain, message), false) // v, r, s
	return "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
}

func keccak(parts ...[]byte) []byte {
	hash := sha3.NewLegacyKeccak256()
	for _, part := range parts {
		hash.Write(part)
	}
	return hash.Sum(nil)
}
