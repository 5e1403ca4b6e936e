// Package store holds what all instances of a gateway must agree on: which single-use token is still good, which write
// was seen already, what a repeated call was answered, who is logged in, how much of a limit is left, and
// how a partner stands.
//
// It answers "has it already?" behind narrow contracts, twice: Memory for one instance, Redis for several. One test runs
// on both. Keys are digests and values are opaque: what is secret in a value the vault has sealed before it comes here,
// so whoever reads a store learns nothing, and whoever writes to it can delete, but not forge [7].
//
// Everything fails closed. A store that cannot answer says ErrUnavailable, never "unknown" or "not yet".
package store

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cardstile/cardstile/policy"
)

// Digest is the keyed digest under which something is stored. Tokens are digested before they come here, and no store
// can tell the token from it.
type Digest [32]byte

// Attempt identifies one try of one exchange to redeem, or to run an idempotent call. The gateway draws it at random for
// each exchange and never takes it from the wire [9]. The zero Attempt is refused with ErrInvalid.
type Attempt [16]byte

// String returns it in hex, as audit records have it.
func (a Attempt) String() string { return hex.EncodeToString(a[:]) }

// Kind separates what is stored for different purposes: one digest under two kinds is two entries. It is a constant of
// the code, never anything that came over the wire: 1 to 32 of a-z, 0-9, '_', '-', or ErrInvalid. Memory keeps at most
// 63 of them apart.
type Kind string

// Kinds that several packages name.
const (
	KindToken    Kind = "token"    // ephemeral tokens: Tokens
	KindCard     Kind = "card"     // tokens that stand for a held card, whose value is gone with the redemption [11]: Tokens
	KindEnvelope Kind = "envelope" // write envelopes that were seen [10]: Once
	KindLogin    Kind = "login"    // login records of cookies [21]: Records
)

const (
	// ReplayWindow is how long after a redemption the same attempt still gets the same answer, but for KindCard: there
	// it is no time at all.
	ReplayWindow = 10 * time.Second
	// SpentFor is how long past its token's expiry a spent record stays [26]: a token is told to be spent, and its
	// digest cannot be minted again, for all of its lifetime and this.
	SpentFor = 10 * time.Minute
	// ExpiredFor is how long, at least, an expired token that nobody redeemed is told to be expired rather than unknown.
	// Redis does so for SpentFor. One of KindCard is gone with its time.
	ExpiredFor = time.Minute
	// MaxValueBytes bounds every value. A longer one is refused with ErrInvalid.
	MaxValueBytes = 32 << 10
	// MaxTTL bounds every lifetime; a millisecond is the least. Beyond: ErrInvalid.
	MaxTTL = 366 * 24 * time.Hour
)

// replayWindow is how long the value of a redeemed token is kept.
func (k Kind) replayWindow() time.Duration {
	if k == KindCard {
		return 0
	}
	return ReplayWindow
}

// expiredFor is how long past its expiry a token stays that nobody redeemed, in a store where that is d.
func (k Kind) expiredFor(d time.Duration) time.Duration {
	if k == KindCard {
		return 0
	}
	return d
}

// What a caller treats differently. Match them with errors.Is.
var (
	// ErrUnknown: there is nothing under that digest, or nothing any more.
	ErrUnknown = errors.New("unknown")
	// ErrSpent: it was there, and somebody else has had it. Redeem's is a *Spent.
	ErrSpent = errors.New("already spent")
	// ErrExpired: it was there, and its time is over.
	ErrExpired = errors.New("expired")
	// ErrFenced: it was minted under another tenure of the store (before a failover or a restart), so that nobody can
	// know whether it was spent there [9].
	ErrFenced = errors.New("minted under another tenure of the store")
	// ErrExists: there is something under that digest already. It was not touched.
	ErrExists = errors.New("exists already")
	// ErrUnavailable: the store could not answer. Whether something happened is not known; nothing may be released.
	// The errors that match it are *Unavailable, which says the reason.
	ErrUnavailable = errors.New("store unavailable")
	// ErrFull: the store has no room. Matches ErrUnavailable too. Nothing was stored; what is stored can still be redeemed.
	ErrFull = errors.New("store full")
	// ErrInvalid: the call is a mistake of the caller's code (a zero attempt, a value too long, a rate that is none).
	ErrInvalid = errors.New("invalid store call")
)

// Spent is the error of a redemption that came after another one. It matches ErrSpent.
type Spent struct {
	// Attempt had the token: of the exchange whose audit records name it.
	Attempt Attempt
	// At is when it had it, to the millisecond: counted by the store's clock, set down by this instance's.
	At time.Time
}

func (e *Spent) Error() string { return ErrSpent.Error() }

// Is matches ErrSpent.
func (e *Spent) Is(target error) bool { return target == ErrSpent }

// Tokens are single-use values: minted once, redeemed once.
//
// Both methods may block on a network until the context's deadline or the store's own time-out, whichever comes first,
// and then return ErrUnavailable. They keep none of their arguments. Safe for concurrent use.
type Tokens interface {
	// Mint stores value under the digest until ttl has passed on the store's clock.
	//
	// Errors: ErrExists where the digest is taken, be it by a token that is live, spent or expired (what is there stays
	// as it was); ErrFull, ErrUnavailable, ErrInvalid. After ErrUnavailable the token may exist; it is to be forgotten.
	// It is never tried again underneath.
	Mint(ctx context.Context, kind Kind, d Digest, value []byte, ttl time.Duration) error

	// Redeem makes the token used up and returns its value: to the first attempt, and for ReplayWindow after that to
	// the same attempt again, so that a command whose reply was lost can be repeated. The caller owns the value.
	//
	// A value of KindCard is given away once: the redemption takes it out of the store in the same step, and whoever asks
	// again is told ErrSpent, the attempt that had it too. Where its reply was lost, the value is.
	//
	// Errors: ErrUnknown; ErrFenced, before anything else that the record says; ErrExpired, judged by the store's clock
	// and for ExpiredFor, later ErrUnknown; *Spent for every other attempt, and for this one when its window is over,
	// until SpentFor past the token's expiry; ErrUnavailable (it may be spent then; the same attempt may ask again);
	// ErrInvalid. Where the connection breaks or nothing comes back in time, Redis asks once more for the same attempt,
	// but for KindCard.
	Redeem(ctx context.Context, kind Kind, d Digest, a Attempt) (value []byte, err error)
}

// Once lets each digest through one time.
//
// It may block as Tokens does, and is safe for concurrent use. It is not fenced: a failover that lost the mark lets the
// digest through again [9].
type Once interface {
	// Once returns nil to the first caller and ErrSpent to every other one until ttl has passed. Errors besides:
	// ErrFull, ErrUnavailable (the mark may have been set: asking again may say ErrSpent), ErrInvalid.
	Once(ctx context.Context, kind Kind, d Digest, ttl time.Duration) error
}

// Records are values that can be read many times and taken back: logins.
//
// The methods may block as those of Tokens do, and are safe for concurrent use. Records are not fenced: a failover may
// forget the last Put or undo the last Delete. Repeating a call does no harm, and Redis does so once when a connection
// breaks.
type Records interface {
	// Put stores value under the digest until ttl has passed, in place of what is there. It keeps no argument.
	// Errors: ErrFull, ErrUnavailable, ErrInvalid.
	Put(ctx context.Context, kind Kind, d Digest, value []byte, ttl time.Duration) error
	// Get returns the value, which the caller owns. Errors: ErrUnknown where there is none or its time is over,
	// ErrUnavailable, ErrInvalid.
	Get(ctx context.Context, kind Kind, d Digest) ([]byte, error)
	// Delete removes the value. There being none is no error. Errors: ErrUnavailable, ErrInvalid.
	Delete(ctx context.Context, kind Kind, d Digest) error
}

// Taken is what Limiter.Take answers.
type Taken struct {
	// OK: one was taken. False: none, and the limit is as it was.
	OK bool
	// RetryAfter is how long until one can be taken, where OK is false.
	RetryAfter time.Duration
	// Remaining is how many more could be taken now.
	Remaining int
}

// Limiter counts against limits that all instances share.
//
// It may block as Tokens does, and is safe for concurrent use. It is not fenced: after a failover a limit may be full again.
type Limiter interface {
	// Take takes one from the limit that the digest names (partner, card, address) by policy.Rate.GCRA, on the store's
	// clock. A refusal is an answer, not an error. Errors: ErrFull, ErrUnavailable, ErrInvalid (a rate that is not
	// valid, the zero one among them). The caller decides whether an error lets pass; it should not.
	Take(ctx context.Context, d Digest, r policy.Rate) (Taken, error)
}

// Store is everything at once: what main builds one of, and hands out as the narrow contracts.
type Store interface {
	Tokens
	Once
	Idempotent
	Records
	Shared
	Limiter

	// Ready returns nil where the store can do its work now, or an error that says what is wrong and how to mend it, for
	// operators: it may name addresses and user names, never a value or a password. It may block as Tokens does.
	Ready(ctx context.Context) error
	// Close gives back what the store holds. Calls that come later return ErrUnavailable. Closing again does nothing.
	Close() error
	// Collectors returns the store's metrics, for main to register. The same ones each time.
	Collectors() []prometheus.Collector
}
