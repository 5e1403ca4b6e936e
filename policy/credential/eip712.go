package credential

import (
	"encoding/binary"
	"errors"
	"math/big"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/sha3"
)

// The types of what is signed. EIP712Domain is not among those of a message:
// signers derive it from the members of the domain, and some refuse to be told.
const (
	typedPrimary     = "Message"
	typedMessageType = "Message(string authorization,uint256 nonce)"
	typedDomainType  = "EIP712Domain(string name,string version,uint256 chainId)"
	typedPrefix      = "\x19\x01" // ERC-191, version 0x01

	typedMaxText  = 1 << 10 // bytes of each text
	typedMaxChain = 1<<53 - 1
)

// TypedDomain says who asks for a signature (EIP-712, definition of
// domainSeparator). All of it is required.
type TypedDomain struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	ChainID uint64 `json:"chainId"` // EIP-155; at most 2^53-1, as it goes through JavaScript
}

// TypedData is what a wallet shows its user and signs as eth_signTypedData_v4
// (https://eips.ethereum.org/EIPS/eip-712, as of 2024): what the user
// authorizes, and a nonce.
//
// Its JSON is what wallets take:
//
//	{"domain":{"name":"…","version":"1","chainId":100},"primaryType":"Message",
//	 "types":{"Message":[{"name":"authorization","type":"string"},{"name":"nonce","type":"uint256"}]},
//	 "message":{"authorization":"…","nonce":"123"}}
type TypedData struct {
	Domain        TypedDomain
	Authorization string // a text for the user, of at most 1 KiB
	Nonce         string // a uint256 in decimal
}

// typedForm is its JSON.
type typedForm struct {
	Domain  TypedDomain             `json:"domain"`
	Primary string                  `json:"primaryType"`
	Types   map[string][]typedField `json:"types"`
	Message typedMessage            `json:"message"`
}

type typedField struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type typedMessage struct {
	Authorization string `json:"authorization"`
	Nonce         string `json:"nonce"`
}

// errTyped is every way in which a text is not typed data of ours.
var errTyped = errors.New("not typed data of ours")

// MarshalJSON writes it, and always in the same way. Data that nobody could sign is an error.
func (d TypedData) MarshalJSON() ([]byte, error) {
	if _, err := d.Hash(); err != nil {
		return nil, err
	}
	return json.Marshal(typedForm{
		Domain: d.Domain, Primary: typedPrimary,
		Types:   map[string][]typedField{typedPrimary: {{"authorization", "string"}, {"nonce", "uint256"}}},
		Message: typedMessage{d.Authorization, d.Nonce},
	})
}

// parseTyped reads what MarshalJSON wrote, and nothing else.
func parseTyped(text string) (TypedData, error) {
	var form typedForm
	if json.Unmarshal([]byte(text), &form, json.RejectUnknownMembers(true)) != nil {
		return TypedData{}, errTyped
	}
	data := TypedData{Domain: form.Domain, Authorization: form.Message.Authorization, Nonce: form.Message.Nonce}
	if again, err := data.MarshalJSON(); err != nil || string(again) != text {
		return TypedData{}, errTyped
	}
	return data, nil
}

// Hash is what is signed: the Keccak-256 of the prefix, the domain's separator
// and the hash of the message. It is an error where a text is missing, not UTF-8
// or too long, or a number is out of bounds.
func (d *TypedData) Hash() (hash [32]byte, err error) {
	for _, text := range []string{d.Domain.Name, d.Domain.Version, d.Authorization} {
		if text == "" || len(text) > typedMaxText || !utf8.ValidString(text) {
			return hash, errTyped
		}
	}
	nonce, ok := parseUint256(d.Nonce)
	if !ok || d.Domain.ChainID == 0 || d.Domain.ChainID > typedMaxChain {
		return hash, errTyped
	}
	var chain [32]byte
	binary.BigEndian.PutUint64(chain[24:], d.Domain.ChainID)
	domain := typedStruct(typedDomainType, keccak256(d.Domain.Name), keccak256(d.Domain.Version), chain)
	message := typedStruct(typedMessageType, keccak256(d.Authorization), nonce)
	return keccak256(typedPrefix, string(domain[:]), string(message[:])), nil
}

// typedStruct is hashStruct: the hash of a type's hash and its encoded members.
func typedStruct(typeText string, members ...[32]byte) [32]byte {
	hash := keccak256(typeText)
	parts := append(make([]byte, 0, 32*(1+len(members))), hash[:]...)
	for i := range members {
		parts = append(parts, members[i][:]...)
	}
	return keccak256(string(parts))
}

// parseUint256 reads a number of which each has one text: decimal digits, the
// first of several not zero.
func parseUint256(text string) (number [32]byte, ok bool) {
	const digits = 78 // of 2^256-1
	if text == "" || len(text) > digits || strings.Trim(text, "0123456789") != "" || text[0] == '0' && len(text) > 1 {
		return number, false
	}
	n, ok := new(big.Int).SetString(text, 10)
	if !ok || n.BitLen() > 256 {
		return number, false
	}
	n.FillBytes(number[:])
	return number, true
}

func keccak256(parts ...string) (sum [32]byte) {
	hash := sha3.NewLegacyKeccak256()
	for _, part := range parts {
		hash.Write([]byte(part))
	}
	hash.Sum(sum[:0])
	return sum
}
