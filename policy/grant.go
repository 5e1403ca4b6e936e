package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Grant is what a token stands for. It is made at mint from what was decided
// then, sealed, and compared at redemption with what is asked for [6].
type Grant struct {
	Partner     string
	Certificate [32]byte // SHA-256 of the leaf's DER that minted it; zero: none
	User        string   // "" where the mint named none

	// Operation, Card, Origin and SessionHash narrow the token, each alone
	// and all together. Zero values narrow nothing.
	Operation   Operation
	Card        string
	Origin      string   // the browser origin that may redeem
	SessionHash [32]byte // SHA-256 of the sessionid header's text

	Environment string // "test" or "production" [5]
	MintedAt    int64  // Unix milliseconds, by the gateway's clock
	Generation  uint64 // of the partner, when it was minted: an older one than the partner's is dead [20]
	Face        string // the face that minted it, and that may redeem it
	Audience    string // for kinds that name one; "" otherwise

	// Nonce is what a proof that comes with the token must give (Bridge: the
	// HMAC over the client's secret and time); zero: none is asked for.
	Nonce [32]byte

	// Held is a card that waits to be paid with, as the vault sealed it under
	// the token itself [11]: 1 to 2048 bytes, which need not be UTF-8, for
	// KindCardToken; "" for all other kinds.
	Held string
}

// Bound reports whether the token was bound at mint to operation and card, so
// that it opens a card without further proof of the user [1].
func (g *Grant) Bound() bool { return g.Operation != "" && g.Card != "" }

// opens reports whether what the grant is bound to is what the request asks
// for. What the grant leaves open does not matter here.
func (g *Grant) opens(r *Request) bool {
	return (g.Operation == "" || g.Operation == r.Operation) && g.meets(r)
}

// pays reports whether the grant of a held card is good for the request: for a
// forwarded call that submits it, each operation of which is decided alone.
func (g *Grant) pays(r *Request) bool {
	return g.Operation == ForwardSubmit && r.Operation.forwards() && g.meets(r)
}

// meets reports whether the request is what the grant is bound to beside its
// operation.
func (g *Grant) meets(r *Request) bool {
	switch {
	case g.Card != "" && (r.Card == nil || g.Card != r.Card.Card):
	case g.User != "" && g.User != r.User:
	case g.Origin != "" && g.Origin != r.Origin:
	case g.SessionHash != [32]byte{} && g.SessionHash != r.SessionHash:
	case g.Face != r.Face:
	default:
		return true
	}
	return false
}

// The encoding of a grant, version 1:
//
//	byte     version, 1
//	byte     flags: 1 certificate present, 2 session hash present, 4 nonce
//	         present, 8 held card present, 16 generation present
//	8 bytes  MintedAt, big endian, positive
//	8 bytes  generation, big endian, if present; never zero
//	[32]     certificate, if present; never all zero
//	[32]     session hash, if present; never all zero
//	[32]     nonce, if present; never all zero
//	strings  partner, user, operation, card, origin, environment, face,
//	         audience: each two bytes of length, big endian, and that many
//	         bytes of UTF-8
//	held     if present: two bytes of length, big endian, 1 to 2048, and that
//	         many bytes
//
// Each grant has exactly one encoding, and nothing may follow it. One of before
// there were generations is of generation 0.
const (
	grantVersion         = 1
	grantHasCertificate  = 1 << 0
	grantHasSessionHash  = 1 << 1
	grantHasNonce        = 1 << 2
	grantHasHeld         = 1 << 3
	grantHasGeneration   = 1 << 4
	grantMaxStringBytes  = 1 << 10
	grantMaxHeldBytes    = 2 << 10
	grantFixedBytes      = 1 + 1 + 8
	grantPresentFlagMask = grantHasCertificate | grantHasSessionHash | grantHasNonce | grantHasHeld | grantHasGeneration
)

// errGrant is every way in which bytes are not a grant.
var errGrant = errors.New("not a grant")

// texts lists the strings in the order of the encoding.
func (g *Grant) texts() [8]*string {
	return [...]*string{
		&g.Partner, &g.User, (*string)(&g.Operation), &g.Card, &g.Origin, &g.Environment, &g.Face, &g.Audience,
	}
}

// AppendBinary appends the encoding. A grant without partner or time, or with a
// string that is not UTF-8 or longer than 1 KiB, or with a held card longer than
// 2 KiB, has none.
func (g *Grant) AppendBinary(dst []byte) ([]byte, error) {
	if g.Partner == "" || g.MintedAt <= 0 {
		return nil, fmt.Errorf("encode grant: partner and time are required")
	}
	if len(g.Held) > grantMaxHeldBytes {
		return nil, fmt.Errorf("encode grant: the held card is longer than %d bytes", grantMaxHeldBytes)
	}
	var flags byte
	if g.Certificate != [32]byte{} {
		flags |= grantHasCertificate
	}
	if g.SessionHash != [32]byte{} {
		flags |= grantHasSessionHash
	}
	if g.Nonce != [32]byte{} {
		flags |= grantHasNonce
	}
	if g.Held != "" {
		flags |= grantHasHeld
	}
	if g.Generation != 0 {
		flags |= grantHasGeneration
	}
	dst = append(dst, grantVersion, flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(g.MintedAt))
	if flags&grantHasGeneration != 0 {
		dst = binary.BigEndian.AppendUint64(dst, g.Generation)
	}
	if flags&grantHasCertificate != 0 {
		dst = append(dst, g.Certificate[:]...)
	}
	if flags&grantHasSessionHash != 0 {
		dst = append(dst, g.SessionHash[:]...)
	}
	if flags&grantHasNonce != 0 {
		dst = append(dst, g.Nonce[:]...)
	}
	for _, text := range g.texts() {
		if len(*text) > grantMaxStringBytes || !utf8.ValidString(*text) {
			return nil, fmt.Errorf("encode grant: a value is not UTF-8 or is longer than %d bytes", grantMaxStringBytes)
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(*text)))
		dst = append(dst, *text...)
	}
	if flags&grantHasHeld != 0 {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(g.Held)))
		dst = append(dst, g.Held...)
	}
	return dst, nil
}

// MarshalBinary returns the encoding; see AppendBinary.
func (g *Grant) MarshalBinary() ([]byte, error) {
	return g.AppendBinary(make([]byte, 0, 256))
}

// UnmarshalBinary decodes what AppendBinary wrote, and nothing else. On an
// error the grant is left zero.
func (g *Grant) UnmarshalBinary(data []byte) error {
	*g = Grant{}
	var decoded Grant
	if err := decoded.decode(data); err != nil {
		return fmt.Errorf("decode grant: %w", err)
	}
	*g = decoded
	return nil
}

func (g *Grant) decode(data []byte) error {
	if len(data) < grantFixedBytes || data[0] != grantVersion {
		return errGrant
	}
	flags := data[1]
	g.MintedAt = int64(binary.BigEndian.Uint64(data[2:]))
	if flags&^grantPresentFlagMask != 0 || g.MintedAt <= 0 {
		return errGrant
	}
	data = data[grantFixedBytes:]
	if flags&grantHasGeneration != 0 {
		if len(data) < 8 {
			return errGrant
		}
		g.Generation, data = binary.BigEndian.Uint64(data), data[8:]
		if g.Generation == 0 {
			return errGrant
		}
	}
	for _, hash := range []struct {
		flag byte
		to   *[32]byte
	}{{grantHasCertificate, &g.Certificate}, {grantHasSessionHash, &g.SessionHash}, {grantHasNonce, &g.Nonce}} {
		if flags&hash.flag == 0 {
			continue
		}
		if len(data) < 32 {
			return errGrant
		}
		copy(hash.to[:], data)
		data = data[32:]
		if *hash.to == [32]byte{} {
			return errGrant
		}
	}
	for _, text := range g.texts() {
		if len(data) < 2 {
			return errGrant
		}
		n := int(binary.BigEndian.Uint16(data))
		data = data[2:]
		if n > grantMaxStringBytes || n > len(data) || !utf8.Valid(data[:n]) {
			return errGrant
		}
		*text = string(data[:n])
		data = data[n:]
	}
	if flags&grantHasHeld != 0 {
		if len(data) < 2 {
			return errGrant
		}
		n := int(binary.BigEndian.Uint16(data))
		data = data[2:]
		if n == 0 || n > grantMaxHeldBytes || n > len(data) {
			return errGrant
		}
		g.Held, data = string(data[:n]), data[n:]
	}
	if len(data) != 0 || g.Partner == "" {
		return errGrant
	}
	return nil
}
