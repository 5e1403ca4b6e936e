package vault

import (
	"fmt"
	"io"
)

// The room that ReadBody begins with: what is announced, within these, since an announcement costs its sender nothing.
const (
	leastRoom = 1 << 10
	mostRoom  = 64 << 10
)

// ReadBody reads a message to its end and makes a [Body] of it, so that its bytes are the vault's from the first one on
// and no copy is left behind that is not zeroed. announced is the Content-Length, negative where there is none: a hint
// for the first allocation, of at most 64 KiB, and nothing else.
//
// A message of zero bytes is an empty Body: see [Body.Empty]. What is longer than the shape allows is [ErrBodyTooLarge],
// after one byte too many. Errors of the reader are wrapped and are no [ErrBody]; all others are NewBody's.
func ReadBody(r io.Reader, announced int64, shape *Shape) (*Body, error) {
	raw, err := readAll(r, announced, shape.maxBytes)
	if err != nil {
		clear(raw[:cap(raw)])
		return nil, err
	}
	if len(raw) == 0 {
		return unread(raw, shape), nil
	}
	return NewBody(raw, shape)
}

// readAll reads to the end, or one byte more than most. It gives what it read with an error too, for the caller to zero.
func readAll(r io.Reader, announced int64, most int) ([]byte, error) {
	room := min(max(announced, leastRoom), mostRoom, int64(most)) + 1 // one to see the end, or too much, in
	p := make([]byte, 0, room)
	for {
		n, err := r.Read(p[len(p):cap(p)])
		p = p[:len(p)+n]
		switch {
		case len(p) > most, err == io.EOF:
			return p, nil
		case err != nil:
			return p, fmt.Errorf("read body: %w", err)
		case len(p) == cap(p):
			p = grow(p, most+1)
		}
	}
}

// grow moves a full p to twice the room, or to most bytes, and zeroes where it was.
func grow(p []byte, most int) []byte {
	larger := make([]byte, len(p), min(2*cap(p), most))
	copy(larger, p)
	clear(p)
	return larger
}
