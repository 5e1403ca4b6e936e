package keys

import (
	"errors"
	"fmt"
)

// TagBytes is the length of a key's tag.
const TagBytes = 3

// ring is several keys of one use, the primary first: it makes, all of them read. That overlap is how keys rotate.
type ring[T any] struct {
	tags       [][TagBytes]byte
	operations []T
}

// newRing derives each key's operation once, at load. Keys of different uses or environments [5], a key that is
// named twice, and two ids that share a tag are refused.
func newRing[T any](keys []*Key, operation func(*Key) (T, error)) (ring[T], error) {
	var r ring[T]
	if len(keys) == 0 {
		return r, errors.New("no keys")
	}
	ids := map[[TagBytes]byte]string{}
	for _, k := range keys {
		if k == nil {
			return r, errors.New("a key is missing")
		}
		tag := k.Tag()
		if first := keys[0]; k.use != first.use || k.environment != first.environment {
			return r, fmt.Errorf("keys %q and %q differ in use or environment", first.id, k.id)
		}
		if id, taken := ids[tag]; taken {
			return r, fmt.Errorf("keys %q and %q have the same tag: give one another id", id, k.id)
		}
		op, err := operation(k)
		if err != nil {
			return r, err
		}
		ids[tag] = k.id
		r.tags = append(r.tags, tag)
		r.operations = append(r.operations, op)
	}
	return r, nil
}

// byTag returns the operation of a tag; false where it is unknown. Tags are not secret.
func (r *ring[T]) byTag(tag [TagBytes]byte) (op T, ok bool) {
	for i, t := range r.tags {
		if t == tag {
			return r.operations[i], true
		}
	}
	return op, false
}

// MACRing is the MACs of several keys under one label.
type MACRing struct{ ring ring[*MAC] }

// NewMACRing builds the ring, primary first. See [Key.MAC] for the uses that it takes.
func NewMACRing(label string, keys ...*Key) (*MACRing, error) {
	r, err := newRing(keys, func(k *Key) (*MAC, error) { return k.MAC(label) })
	if err != nil {
		return nil, fmt.Errorf("MAC ring %q: %w", label, err)
	}
	return &MACRing{ring: r}, nil
}

// Primary is what new values are made with, and the tag that says so.
func (r *MACRing) Primary() (tag [3]byte, m *MAC) { return r.ring.tags[0], r.ring.operations[0] }

// ByTag is the MAC of the key with that tag, nil where it is unknown.
func (r *MACRing) ByTag(tag [3]byte) *MAC {
	m, _ := r.ring.byTag(tag)
	return m
}

// SealRing is the Sealers of several keys under one label. Its values are a [Sealer]'s with the key's tag before them.
type SealRing struct{ ring ring[*Sealer] }

// NewSealRing builds the ring, primary first. See [Key.Sealer] for the use that it takes.
func NewSealRing(label string, keys ...*Key) (*SealRing, error) {
	r, err := newRing(keys, func(k *Key) (*Sealer, error) { return k.Sealer(label) })
	if err != nil {
		return nil, fmt.Errorf("seal ring %q: %w", label, err)
	}
	return &SealRing{ring: r}, nil
}

// Seal appends the primary's tag and the sealed plaintext to dst. See [Sealer.Seal].
func (r *SealRing) Seal(dst, ad, plaintext []byte) ([]byte, error) {
	tag := r.ring.tags[0]
	return r.ring.operations[0].Seal(append(dst, tag[:]...), ad, plaintext)
}

// Current reports whether a value has the primary's tag, and so need not be sealed again. Whether it opens is not looked at.
func (r *SealRing) Current(sealed []byte) bool {
	return len(sealed) >= TagBytes && [TagBytes]byte(sealed) == r.ring.tags[0]
}

// Open appends the plaintext to dst, with the key that the value's tag names, or fails with [ErrOpen].
func (r *SealRing) Open(dst, ad, sealed []byte) ([]byte, error) {
	if len(sealed) < TagBytes {
		return nil, ErrOpen
	}
	s, ok := r.ring.byTag([TagBytes]byte(sealed))
	if !ok {
		return nil, ErrOpen
	}
	return s.Open(dst, ad, sealed[TagBytes:])
}

// TokenRing is several keys that seal under tokens, with one label. It is safe for concurrent use.
type TokenRing struct {
	label string
	ring  ring[*Key]
}

// NewTokenRing builds the ring, primary first. See [Key.TokenSealer] for the use that it takes.
func NewTokenRing(label string, keys ...*Key) (*TokenRing, error) {
	r, err := newRing(keys, func(k *Key) (*Key, error) {
		_, err := k.Sealer(label) // refuses the keys and labels that TokenSealer would, but now
		return k, err
	})
	if err != nil {
		return nil, fmt.Errorf("token ring %q: %w", label, err)
	}
	return &TokenRing{label: label, ring: r}, nil
}

// For derives the ring of one token, at a few microseconds for each key. The one error is a token of less than
// [MinTokenBytes].
func (r *TokenRing) For(token string) (*SealRing, error) {
	of := ring[*Sealer]{tags: r.ring.tags, operations: make([]*Sealer, 0, len(r.ring.operations))}
	for _, k := range r.ring.operations {
		s, err := k.TokenSealer(r.label, token)
		if err != nil {
			return nil, fmt.Errorf("token ring %q: %w", r.label, err)
		}
		of.operations = append(of.operations, s)
	}
	return &SealRing{ring: of}, nil
}
