package store

import (
	"context"
	"errors"
)

// Versioned is a shared value, and the version that it is.
type Versioned struct {
	Value   []byte
	Version uint64
}

const (
	// MaxVersion bounds versions to what Redis's scripts count exactly.
	MaxVersion = 1<<53 - 1
	// MaxSharedBytes bounds a shared value. A longer one is refused with ErrInvalid.
	MaxSharedBytes = 8 << 10
	// MaxSharedNameBytes bounds a name, of visible ASCII. A longer one is refused with ErrInvalid.
	MaxSharedNameBytes = 64

	maxShared = 1 << 16 // values of all kinds that Memory keeps
)

// Shared is a few small values that all instances read again and again: one for each partner.
//
// A value is only ever replaced by one of a higher version, so that it does not matter in which order, or how often, values
// are raised, and whoever knows a higher one than the store can raise it again. Values have no end, and are never removed.
//
// Both methods may block as those of Tokens do, keep none of their arguments, and are safe for concurrent use. Neither is
// fenced: a failover may forget the last values that were raised. Repeating a call does no harm, and Redis does so once when
// a connection breaks. In Redis Cluster all values of a kind are in one slot.
type Shared interface {
	// Shared returns all values of the kind by their names, none being no error. The caller owns them. One of version 0 is
	// something that somebody else put there. Errors: ErrUnavailable, ErrInvalid.
	Shared(ctx context.Context, kind Kind) (map[string]Versioned, error)

	// Raise puts a value in the place of one of a lower version, or of none. Errors: ErrExists where there is one of the
	// same version or a higher one, which stays as it was; ErrFull, ErrUnavailable (it may have been raised: raising it
	// again may say ErrExists), ErrInvalid, of a version 0 or beyond MaxVersion too.
	Raise(ctx context.Context, kind Kind, name string, v Versioned) error
}

// checkRaise returns ErrInvalid for what neither store takes.
func checkRaise(kind Kind, name string, v Versioned) error {
	if err := checkKind(opRaise, kind); err != nil {
		return err
	}
	if name == "" || len(name) > MaxSharedNameBytes {
		return invalid(opRaise, "a name has 1 to 64 characters")
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' {
			return invalid(opRaise, "a name is of visible ASCII")
		}
	}
	if v.Version == 0 || v.Version > MaxVersion {
		return invalid(opRaise, "the version is out of bounds")
	}
	if len(v.Value) > MaxSharedBytes {
		return invalid(opRaise, "the value is too long")
	}
	return nil
}

// errShared is every way in which a field of a hash is not a value that was raised.
var errShared = errors.New("not a shared value")
