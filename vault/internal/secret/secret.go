// Package secret answers: how is a secret held, so that it cannot be printed, compared by accident or kept?
//
// Only packages under vault/ can import it, which makes the compiler the fence around card data.
package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// Redacted is what every way of printing or encoding a [Buffer] gives.
const Redacted = "[redacted]"

// smallBytes is the longest content whose memory is reused: card numbers, PIN blocks and session keys all fit.
const smallBytes = 64

// block is the memory behind a Buffer. It is reached through an atomic pointer only, in which a printer that walks
// structs by reflection meets an address and not the content.
type block struct {
	bytes []byte
	small [smallBytes]byte
}

// blocks holds zeroed blocks only: Destroy clears before it puts. It is a cache of memory, not of state.
var blocks = sync.Pool{New: func() any { return new(block) }}

// Buffer holds secret bytes. It is used as *Buffer, owned by whoever made it, and that owner defers [Buffer.Destroy].
//
// Format, String, GoString, MarshalJSON and MarshalText give [Redacted]. Two Buffers cannot be compared with ==
// by value; use [Buffer.Equal].
//
// It does not defend against a reader of the process's memory: the runtime may have copied what went in,
// and pages may be swapped out.
type Buffer struct {
	_     [0]func() // not comparable
	block atomic.Pointer[block]
}

var (
	_ fmt.Formatter  = (*Buffer)(nil)
	_ fmt.Stringer   = (*Buffer)(nil)
	_ fmt.GoStringer = (*Buffer)(nil)
)

// New returns a Buffer of n zero bytes. It panics if n is negative.
func New(n int) *Buffer {
	if n < 0 {
		panic("secret: internal error: negative length")
	}
	b := new(Buffer)
	if n > smallBytes {
		b.block.Store(&block{bytes: make([]byte, n)})
		return b
	}
	k := blocks.Get().(*block)
	k.bytes = k.small[:n:n]
	b.block.Store(k)
	return b
}

// From takes ownership of p: the caller does not touch it again, and Destroy zeroes it, up to its capacity.
func From(p []byte) *Buffer {
	b := new(Buffer)
	b.block.Store(&block{bytes: p})
	return b
}

// Bytes returns the content itself, not a copy: valid until Destroy and never kept longer, because the memory then
// serves another exchange. It is nil after Destroy.
func (b *Buffer) Bytes() []byte {
	if b == nil {
		return nil
	}
	k := b.block.Load()
	if k == nil {
		return nil
	}
	return k.bytes
}

// Len is the number of bytes held, 0 after Destroy.
func (b *Buffer) Len() int { return len(b.Bytes()) }

// Equal reports whether both hold the same bytes, in time that depends on the lengths alone.
// A destroyed Buffer equals nothing, not even itself.
func (b *Buffer) Equal(other *Buffer) bool {
	x, y := b.Bytes(), other.Bytes()
	return x != nil && y != nil && subtle.ConstantTimeCompare(x, y) == 1
}

// Destroy zeroes the content and lets go of it. It may be called twice, at once, and on nil.
func (b *Buffer) Destroy() {
	if b == nil {
		return
	}
	k := b.block.Swap(nil)
	if k == nil {
		return
	}
	clear(k.bytes[:cap(k.bytes)])
	pooled := cap(k.bytes) > 0 && &k.bytes[:1][0] == &k.small[0]
	k.bytes = nil
	if pooled {
		blocks.Put(k)
	}
}

// Format implements [fmt.Formatter] for every verb and flag.
func (b *Buffer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// String returns [Redacted].
func (b *Buffer) String() string { return Redacted }

// GoString returns [Redacted].
func (b *Buffer) GoString() string { return Redacted }

// MarshalJSON returns [Redacted] as a JSON string.
func (b *Buffer) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText returns [Redacted].
func (b *Buffer) MarshalText() ([]byte, error) { return []byte(Redacted), nil }
