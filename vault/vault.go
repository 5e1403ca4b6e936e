// Package vault answers: who can read it? Keys, sessions, envelopes, PIN blocks and re-encryption.
//
// A request's client wraps a session key for one of our keys, and we wrap a fresh one for the issuer: two legs.
// Every sensitive field is opened on one leg, checked, and sealed on the other, without leaving this package.
// Where a protocol has card data in clear inside TLS, that leg is in clear: it is opened by a constructor that says
// "insecure clear", and what came or goes is a [Body] or an [Outgoing], whose bytes callers name and never see [12].
// What a page submits until it is paid with waits in the caller's store, sealed by a [Holder] [11].
// Callers hold ciphertext and opaque values. This package and those below it are the only ones that see card data.
package vault

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cardstile/cardstile/vault/envelope"
)

// What callers treat differently. ErrOpen and ErrPreamble come bare: nothing says what was wrong.
var (
	// ErrOpen says that a preamble or a field cannot be opened, or does not hold what it should: whatever the reason.
	ErrOpen = envelope.ErrOpen
	// ErrPreamble says that a preamble is absent, too long or not base64: refused at parse [26].
	ErrPreamble = envelope.ErrPreamble
	// ErrBusy says that the queue for the RSA operation is full, or that the deadline passed in it [18].
	ErrBusy = errors.New("vault: busy")
	// ErrWeakPIN says that a PIN on its way to the issuer is one that anybody would guess.
	ErrWeakPIN = errors.New("weak pin")
	// ErrBinding says that no permit was given: its binding is shorter than 16 bytes.
	ErrBinding = errors.New("vault: no permit: empty or short binding")
)

// minBindingBytes is the shortest binding of a permit. The zero Permit has none.
const minBindingBytes = 16

// Config bounds the RSA operations, which cost about a millisecond of CPU each and more than all else together [18].
type Config struct {
	MaxRSA       int // operations at once; default GOMAXPROCS-1, at least 1
	QueuePerSlot int // places for each of them, running ones included; default 64. What finds no place is ErrBusy
}

const defaultQueuePerSlot = 64

// Vault bounds and counts what is done with keys. It holds none: they come with each Opening. Safe for concurrent use.
type Vault struct {
	permits   chan struct{} // a token in it is one running RSA operation
	places    atomic.Int64  // reserved, waiting and running
	maxPlaces int64
	metrics   *metrics
}

// New returns a Vault.
func New(c Config) (*Vault, error) {
	if c.MaxRSA < 0 || c.QueuePerSlot < 0 {
		return nil, fmt.Errorf("vault: max rsa %d and queue per slot %d must not be negative", c.MaxRSA, c.QueuePerSlot)
	}
	if c.MaxRSA == 0 {
		c.MaxRSA = max(1, runtime.GOMAXPROCS(0)-1)
	}
	if c.QueuePerSlot == 0 {
		c.QueuePerSlot = defaultQueuePerSlot
	}
	v := &Vault{permits: make(chan struct{}, c.MaxRSA), maxPlaces: int64(c.MaxRSA) * int64(c.QueuePerSlot)}
	v.metrics = newMetrics(func() float64 { return float64(v.places.Load()) })
	return v, nil
}

// Collectors are the vault's metrics, which main registers.
func (v *Vault) Collectors() []prometheus.Collector { return v.metrics.collectors() }

// Field is a sensitive field. The zero Field is none and is refused.
type Field uint8

// The fields, and what their plaintext must be.
const (
	FieldPAN     Field = iota + 1 // 12 to 19 digits
	FieldCVC                      // 3 or 4 digits
	FieldPIN                      // a PIN block, see package pinblock
	FieldAccount                  // 4 to 34 ASCII letters, digits, spaces, '+' and '-': a card number, an IBAN or a phone number
	fields
)

// String is "pan", "cvc", "pin" or "account".
func (f Field) String() string {
	switch f {
	case FieldPAN:
		return "pan"
	case FieldCVC:
		return "cvc"
	case FieldPIN:
		return "pin"
	case FieldAccount:
		return "account"
	}
	return "invalid"
}

// Direction is the leg that a field goes to; it comes from the other. The zero Direction is none and is refused.
type Direction uint8

// The directions.
const (
	ToIssuer Direction = iota + 1
	ToClient
	directions
)

// String is "to_issuer" or "to_client".
func (d Direction) String() string {
	switch d {
	case ToIssuer:
		return "to_issuer"
	case ToClient:
		return "to_client"
	}
	return "invalid"
}

// Sealed is a field on one leg: the base64 texts of ciphertext with tag and of the IV, as on the wire. On a leg in clear
// it is a handle instead: its texts are empty and the plaintext stays in the vault, in the [Body] that it came in, in the
// card that was [Held], or in the [Session] that it leaves by. Two handles are equal if they are one.
type Sealed struct {
	Data, IV string

	plain *plain
}

// InClear reports whether it is a handle to a field on a leg in clear, or in a card that was held.
func (s Sealed) InClear() bool { return s.plain != nil }
