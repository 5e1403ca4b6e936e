package credential

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

// A seed is kept as version(1) tag(3) salt(32).
const (
	seedVersion   = 1
	seedSaltBytes = 32
	seedBytes     = 1 + tokenTagBytes + seedSaltBytes
)

// Seed is what a replayed mint is recomputed from [8]: the tag of a digest key,
// a random salt, and the context of the mint. Without that key it tells nothing
// about its token.
//
// The context is all that the mint's repetition has in common with it and others
// have not: idempotency key and digest of the body. It is no part of what is
// kept, and may hold secrets that whoever repeats the mint shows again and that
// are stored nowhere: then the store and all of our keys together do not tell
// the token either [11].
type Seed struct {
	tag     [tokenTagBytes]byte
	salt    [seedSaltBytes]byte
	context []byte
}

var (
	errNoSeeds = errors.New("no keys for seeds are configured")
	errSeedKey = errors.New("no key has the seed's tag")
	errSeed    = errors.New("not a seed")
)

// newSeed draws a seed under the ring's primary key. The context is copied.
func newSeed(ring DigestRing, context []byte) (Seed, error) {
	if ring == nil {
		return Seed{}, fmt.Errorf("new seed: %w", errNoSeeds)
	}
	seed := Seed{context: bytes.Clone(context)}
	seed.tag, _ = ring.Primary()
	_, _ = rand.Read(seed.salt[:]) // never fails: crypto/rand
	return seed, nil
}

// AppendBinary appends the encoding, which the context is not a part of. The
// error is always nil.
func (s Seed) AppendBinary(dst []byte) ([]byte, error) {
	dst = append(append(dst, seedVersion), s.tag[:]...)
	return append(dst, s.salt[:]...), nil
}

// ParseSeed reads what AppendBinary wrote, and nothing else. With another
// context it is the seed of another token.
func ParseSeed(data, context []byte) (Seed, error) {
	if len(data) != seedBytes || data[0] != seedVersion {
		return Seed{}, fmt.Errorf("decode seed: %w", errSeed)
	}
	return Seed{
		tag:     [tokenTagBytes]byte(data[1:]),
		salt:    [seedSaltBytes]byte(data[1+tokenTagBytes:]),
		context: bytes.Clone(context),
	}, nil
}

// grow returns the 32 secret bytes of a token: a MAC, in which each part has its
// length in four bytes before it.
func (s *Seed) grow(ring DigestRing, partner string) ([]byte, error) {
	if ring == nil {
		return nil, errNoSeeds
	}
	mac, ok := ring.ByTag(s.tag)
	if !ok {
		return nil, errSeedKey
	}
	message := make([]byte, 0, 3*4+len(s.salt)+len(partner)+len(s.context))
	message = append(binary.BigEndian.AppendUint32(message, uint32(len(s.salt))), s.salt[:]...)
	message = append(binary.BigEndian.AppendUint32(message, uint32(len(partner))), partner...)
	message = append(binary.BigEndian.AppendUint32(message, uint32(len(s.context))), s.context...)
	return mac.MAC(nil, message), nil
}
