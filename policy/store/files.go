package store

import (
	"context"
	"path"
	"time"
)

// File is a value at a path.
type File struct {
	Value []byte
	// Modified is when it was put there, by the clock of who did, to the millisecond.
	Modified time.Time
}

// Holder names who holds a lock: random.
type Holder [16]byte

const (
	// MaxFileBytes bounds a file's value. A longer one is refused with ErrInvalid.
	MaxFileBytes = 256 << 10
	// MaxFilePathBytes bounds a path, and the name of a lock.
	MaxFilePathBytes = 512
)

// Files is a tree of values that instances share, by path, and locks by name. A path has no slash at its ends, and no empty,
// "." or ".." part.
//
// All methods may block as those of Tokens do, keep none of their arguments, and are safe for concurrent use. None is fenced:
// a failover may forget the last values and locks, so that two may hold one lock for the length of a lease. Repeating a call
// does no harm, and Redis does so once when a connection breaks. In Redis Cluster all of it is in one slot.
type Files interface {
	// PutFile puts a value at a path, in the place of what was there. Errors: ErrFull, ErrUnavailable, ErrInvalid.
	PutFile(ctx context.Context, path string, value []byte) error

	// GetFile returns what is at a path; the caller owns it. Errors: ErrUnknown, ErrUnavailable, ErrInvalid.
	GetFile(ctx context.Context, path string) (File, error)

	// RemoveFiles removes what is at a path, and all below it. None being there is no error. Errors: ErrUnavailable, ErrInvalid.
	RemoveFiles(ctx context.Context, path string) error

	// ListFiles returns the paths of all files, in no order. Errors: ErrUnavailable.
	ListFiles(ctx context.Context) ([]string, error)

	// Hold takes a lock for so long, or where the holder has it already, holds it for so long from now on. Errors: ErrExists
	// where another has it, ErrUnavailable (it may have been taken: asking again, as the same holder, tells), ErrInvalid.
	Hold(ctx context.Context, name string, h Holder, lease time.Duration) error

	// Release gives a lock back. Errors: ErrUnknown where the holder does not have it any more, ErrUnavailable, ErrInvalid.
	Release(ctx context.Context, name string, h Holder) error
}

// checkFilePath returns ErrInvalid for what is no path.
func checkFilePath(p string) error {
	switch {
	case p == "" || len(p) > MaxFilePathBytes:
		return invalid(opFiles, "a path has 1 to 512 bytes")
	case path.Clean("/"+p) != "/"+p:
		return invalid(opFiles, "a path has no slash at its ends, and no empty part, . or ..")
	}
	return nil
}

func checkFile(p string, value []byte) error {
	if len(value) > MaxFileBytes {
		return invalid(opFiles, "the value is too long")
	}
	return checkFilePath(p)
}

func checkLock(name string, lease time.Duration) error {
	switch {
	case name == "" || len(name) > MaxFilePathBytes:
		return invalid(opLock, "a name has 1 to 512 bytes")
	case lease < time.Millisecond || lease > MaxTTL:
		return invalid(opLock, "the lease is out of bounds")
	}
	return nil
}
