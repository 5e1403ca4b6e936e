package policy

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"

	"golang.org/x/crypto/sha3"
)

// Holding says whose a card is: the answer of a holder directory. It is
// immutable once returned, and shared between exchanges.
type Holding struct {
	Card        string   // the reference that callers use
	Issuer      string   // the issuer's name in the configuration
	IssuerCard  string   // the issuer's own id of the card
	Partners    []string // ids of the partners that may touch it; empty: none may
	Users       []string // its users inside those partners
	Environment string   // "test" or "production" [5]
}

// heldBy reports whether the card belongs to the partner and, where a user is
// proven, to that user too. Nobody holds a card as anonymous.
func (h *Holding) heldBy(partner *Partner, user string) bool {
	if partner == nil || !slices.Contains(h.Partners, partner.ID) {
		return false
	}
	return user == "" || slices.Contains(h.Users, user)
}

// User is a cardholder, as a holder directory knows them. It is immutable once
// returned.
type User struct {
	ID         string    // where users sign by themselves, a wallet's address or a passkey's credential id
	Partner    string    // the partner whose customer this is
	Issuer     string    // the issuer's name in the configuration
	IssuerUser string    // the issuer's own id of the user
	Cards      []string  // references of the user's cards
	Account    string    // the account that the user's cards are linked to, as Address.String writes it; "" where none is known
	Passkeys   []Passkey // what the user may sign in with; their ids differ
	Wallets    []Address // whose signatures are the user's, beside an id that is an address itself
}

// Signers returns the wallets whose signatures are the user's: Wallets, and the
// user's id where that is an address.
func (u *User) Signers() []Address {
	signers := slices.Clone(u.Wallets)
	if own, ok := ParseAddress(u.ID); ok && !slices.Contains(signers, own) {
		signers = append(signers, own)
	}
	return signers
}

// Passkey is a WebAuthn credential that a user registered.
type Passkey struct {
	ID        string // the credential id, in base64url without padding
	PublicKey []byte // DER of its SubjectPublicKeyInfo
}

// Bounds of a passkey's RSA key, in bits. The lower one is [23]'s; beyond the
// upper one a verification costs more than a caller should be able to ask for.
const (
	passkeyMinRSABits = 2048
	passkeyMaxRSABits = 4096
)

// errPasskeyKey is every key that no passkey of ours has.
var errPasskeyKey = errors.New("want a P-256, Ed25519 or RSA key of 2048 to 4096 bits as the DER of a SubjectPublicKeyInfo")

// Key returns the public key: an *ecdsa.PublicKey on P-256, which signs by
// ES256, an ed25519.PublicKey (EdDSA), or an *rsa.PublicKey (RS256). No key is
// good for two algorithms [23]. DER that another encoding of the same key could
// replace is an error, and no error quotes the key.
func (p *Passkey) Key() (crypto.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(p.PublicKey)
	if err != nil {
		return nil, errPasskeyKey
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, errPasskeyKey
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < passkeyMinRSABits || bits > passkeyMaxRSABits {
			return nil, errPasskeyKey
		}
	default:
		return nil, errPasskeyKey
	}
	if again, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(again, p.PublicKey) {
		return nil, errPasskeyKey
	}
	return key, nil
}

// Address is that of an Ethereum account.
type Address [20]byte

// ParseAddress reads "0x" and 40 hexadecimal digits. Their case does not
// matter: whether it is the checksum of ERC-55 is told by comparing the text
// with String.
func ParseAddress(text string) (address Address, ok bool) {
	if len(text) != 2+2*len(address) || text[:2] != "0x" {
		return Address{}, false
	}
	if _, err := hex.Decode(address[:], []byte(text[2:])); err != nil {
		return Address{}, false
	}
	return address, true
}

// String writes the address with the checksum of ERC-55: a letter is upper case
// where the digit at its place in the Keccak-256 of the lower-case digits is 8
// or more.
func (a Address) String() string {
	text := hex.AppendEncode(append(make([]byte, 0, 2+2*len(a)), "0x"...), a[:])
	digits := text[2:]
	hash := sha3.NewLegacyKeccak256()
	hash.Write(digits)
	sum := hash.Sum(nil)
	for i, c := range digits {
		if nibble := sum[i/2] >> (4 * (1 - i%2)) & 15; c >= 'a' && nibble >= 8 {
			digits[i] = c - 'a' + 'A'
		}
	}
	return string(text)
}
