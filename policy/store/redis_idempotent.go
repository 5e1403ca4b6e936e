package store

import (
	"context"
	"time"
)

// Begin is Idempotent.Begin.
func (r *Redis) Begin(
	ctx context.Context, kind Kind, scope, body Digest, a Attempt, lease, ttl, tombstone time.Duration,
) (Begun, error) {
	start := time.Now()
	err := r.begin(ctx, opBegin, checkBegin(kind, a, lease, ttl, tombstone))
	var begun Begun
	if err == nil {
		begun, err = r.beginCall(ctx, kind, scope, body, a, lease, ttl, tombstone)
	}
	r.meter.observe(opBegin, begun.result(err), err, start)
	return begun, err
}

// beginErrors are the numbers from 2 on that redis_begin.lua answers.
var beginErrors = [...]error{ErrInFlight, ErrOtherBody, ErrTombstone}

func (r *Redis) beginCall(
	ctx context.Context, kind Kind, scope, body Digest, a Attempt, lease, ttl, tombstone time.Duration,
) (Begun, error) {
	key := r.key(familyIdempotent, kind, &scope)
	reply, short, err := r.run(ctx, r.again, opBegin, beginScript, []string{key, key + ":answer"},
		[]any{a[:], body[:], milliseconds(lease), milliseconds(ttl), milliseconds(tombstone)})
	if err != nil {
		return Begun{}, failed(ctx, opBegin, err)
	}
	switch v := reply.(type) {
	case string:
		return Begun{Value: []byte(v)}, nil
	case int64:
		switch {
		case (v == 0 || v == 1) && short != nil:
			return Begun{}, short
		case v == 0 || v == 1:
			return Begun{Owner: true, TakenOver: v == 1}, nil
		case v >= 2 && v-2 < int64(len(beginErrors)):
			return Begun{}, beginErrors[v-2]
		}
	}
	return Begun{}, unexpected(opBegin)
}

// Finish is Idempotent.Finish.
func (r *Redis) Finish(ctx context.Context, kind Kind, scope Digest, a Attempt, value []byte) error {
	start := time.Now()
	err := r.begin(ctx, opFinish, checkOwner(opFinish, kind, a, value))
	if err == nil {
		key := r.key(familyIdempotent, kind, &scope)
		err = r.end(ctx, opFinish, finishScript, []string{key, key + ":answer"}, []any{a[:], value})
	}
	r.meter.done(opFinish, err, start)
	return err
}

// Abandon is Idempotent.Abandon.
func (r *Redis) Abandon(ctx context.Context, kind Kind, scope Digest, a Attempt) error {
	start := time.Now()
	err := r.begin(ctx, opAbandon, checkOwner(opAbandon, kind, a, nil))
	if err == nil {
		err = r.end(ctx, opAbandon, abandonScript, []string{r.key(familyIdempotent, kind, &scope)}, []any{a[:]})
	}
	r.meter.done(opAbandon, err, start)
	return err
}

// end runs a script that ends a call.
func (r *Redis) end(ctx context.Context, op operation, s script, keys []string, args []any) error {
	reply, short, err := r.run(ctx, r.again, op, s, keys, args)
	if err != nil {
		return failed(ctx, op, err)
	}
	switch reply {
	case int64(1):
		return short
	case int64(0):
		return ErrLost
	}
	return unexpected(op)
}
