package store

import (
	"context"
	"errors"
	"time"
)

// What Idempotent answers besides. Match them with errors.Is.
var (
	// ErrInFlight: the same call is being run by another owner, whose lease has not run out.
	ErrInFlight = errors.New("the same call is in flight")
	// ErrOtherBody: the idempotency key came with another body before.
	ErrOtherBody = errors.New("begun with another body")
	// ErrTombstone: the idempotency key was used, and what it was answered is not kept any more.
	ErrTombstone = errors.New("begun too long ago")
	// ErrLost: the caller is not, or no longer, the owner of that call. What is kept was not touched.
	ErrLost = errors.New("not the owner of that call")
)

// Idempotent runs the calls that carry an idempotency key once each, and answers their repetitions with what the first
// one was answered. How long an answer is kept and what a caller is told meanwhile (409, 422, the kept answer) differs
// from API to API: the times are parameters, and the errors are told apart.
//
// The scope is the keyed digest of all that a key belongs to, so that one partner's key is nothing to another's: partner
// or session, method, path, key. The body is the keyed digest of the raw body, to which its first Begin binds the key.
// The attempt is the exchange's, as for Tokens.
//
//	nothing    Begin                            → in flight, with one owner
//	in flight  Finish                           → kept
//	in flight  Abandon                          → nothing
//	in flight  lease over, Begin, same body     → in flight, with another owner, who is told so
//	in flight, kept            ttl over         → tombstone
//	tombstone                  tombstone over   → nothing
//
// There is one owner at a time, which is not the same as one effect: an owner whose lease has run out may be dead after
// its effect took place, or may be slow and have it still. Hence a lease is to be longer than any deadline of what it is
// for, and whoever is told Begun.TakenOver knows that the effect may be there: a mint runs again, as nobody has seen
// what the first one minted; an effect is forwarded with the caller's own key, so that the issuer judges [28], or is
// answered as unknown [17].
//
// It is not fenced: a record proves nothing after a failover [9]. The last moments before it may be lost, so that a call
// that has run, or runs still, may be run once more; an abandoned one may be in flight again until its lease is over;
// and where there are two primaries for a while there may be two owners. Records that survived are answered as ever.
// Memory forgets all of them with its process.
//
// The methods may block as those of Tokens do, and are safe for concurrent use. They keep none of their arguments. An
// attempt may repeat each of its calls, and gets the same answer as long as nobody else came between; Redis does so once
// when a connection breaks.
type Idempotent interface {
	// Begin makes the caller the owner, for lease, of a call that nobody owns, or returns the answer that is kept. The
	// answer is kept until ttl has passed since the Begin that made its caller the owner, and a tombstone stays for
	// tombstone after that, all on the store's clock. What counts are the times that the owner gave; each Begin of the
	// owner starts them anew. A tombstone of 0 is none.
	//
	// Errors: ErrTombstone from ttl on, with whatever body; ErrOtherBody; ErrInFlight; ErrFull (on Redis also where there
	// is a record); ErrUnavailable (the caller may be the owner then; the same attempt may ask again); ErrInvalid, also
	// for a lease that is longer than ttl.
	Begin(ctx context.Context, kind Kind, scope, body Digest, a Attempt, lease, ttl, tombstone time.Duration) (Begun, error)

	// Finish keeps value as the answer. The caller has sealed it, with scope and body as associated data, so that whoever
	// writes to the store can neither forge it nor put it in another call's place. An owner whose lease has run out may
	// still finish as long as nobody took over. Where this attempt has finished before, what is kept stays as it was.
	//
	// Errors: ErrLost where the record is another owner's, is gone, or is past its ttl: the answer may be given to the
	// one who waits for it, but a repetition will not get it. ErrUnavailable, ErrInvalid; never ErrFull.
	Finish(ctx context.Context, kind Kind, scope Digest, a Attempt, value []byte) error

	// Abandon forgets the call, as if it had never begun: for one that was refused before it could have an effect [28].
	// An owner that took over abandons its own lease alone, since the effect of the one before may be there: the next
	// Begin with that body takes over at once, and another body is still refused. There being no record is no error.
	//
	// Errors: ErrLost where the record is another owner's, is finished, or is past its ttl; ErrUnavailable, ErrInvalid.
	Abandon(ctx context.Context, kind Kind, scope Digest, a Attempt) error
}

// Begun is what Idempotent.Begin answers.
type Begun struct {
	// Owner: the caller is to run the call, and then to Finish or Abandon it. False: it has been run, and Value is the answer.
	Owner bool
	// TakenOver, of an owner: another one has begun this call and did not finish it in its lease. What it did is not known.
	TakenOver bool
	// Value is the answer that is kept, and nil for an owner. It is the caller's.
	Value []byte
}

// result is the label of an answer.
func (b Begun) result(err error) result {
	if err == nil && !b.Owner {
		return resultReplayed
	}
	return resultOf(err)
}

// checkBegin returns ErrInvalid for what neither store takes.
func checkBegin(kind Kind, a Attempt, lease, ttl, tombstone time.Duration) error {
	if err := checkEntry(opBegin, kind, nil, ttl); err != nil {
		return err
	}
	switch {
	case a == Attempt{}:
		return invalid(opBegin, "the attempt id is zero")
	case lease < time.Millisecond || lease > ttl:
		return invalid(opBegin, "the lease is out of bounds")
	case tombstone < 0 || tombstone > MaxTTL:
		return invalid(opBegin, "the tombstone's time is out of bounds")
	}
	return nil
}

// checkOwner returns ErrInvalid for an end of a call that neither store takes.
func checkOwner(op operation, kind Kind, a Attempt, value []byte) error {
	if err := checkKind(op, kind); err != nil {
		return err
	}
	switch {
	case a == Attempt{}:
		return invalid(op, "the attempt id is zero")
	case len(value) > MaxValueBytes:
		return invalid(op, "the value is too long")
	}
	return nil
}
