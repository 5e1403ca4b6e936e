package store

import (
	"context"
	"time"
)

// The value of a call's record, in stateBegun, stateTaken and stateKept. Its expires is the end of ttl; a tombstone has
// no value.
//
//	offset  bytes
//	0       32     digest of the body
//	32      6      end of the lease, ms of the store's time
//	38      6      end of the tombstone, ms
//	44      …      the answer, in stateKept
const (
	callLease  = 32
	callEnd    = 38
	callAnswer = 44
)

func (r record) body() []byte           { return r.value()[:callLease] }
func (r record) lease() int64           { return get48(r.value()[callLease:]) }
func (r record) setLease(ms int64)      { put48(r.value()[callLease:], ms) }
func (r record) callEnd() int64         { return get48(r.value()[callEnd:]) }
func (r record) setCallEnd(ms int64)    { put48(r.value()[callEnd:], ms) }
func (r record) answer() []byte         { return r.value()[callAnswer:] }
func (r record) ownedBy(a Attempt) bool { return string(r.attempt()) == string(a[:]) }

// tombstone says whether a call's record is one, whether or not the wheel came by to make it one.
func (r record) tombstone(ms int64) bool { return r.state() == stateSpent || r.expires() <= ms }

// Begin is Idempotent.Begin.
func (m *Memory) Begin(
	ctx context.Context, kind Kind, scope, body Digest, a Attempt, lease, ttl, tombstone time.Duration,
) (Begun, error) {
	start := time.Now()
	err := checkBegin(kind, a, lease, ttl, tombstone)
	var begun Begun
	if err == nil {
		begun, err = m.beginCall(ctx, class{familyIdempotent, kind}, scope, body, a, lease, ttl, tombstone)
	}
	m.meter.observe(opBegin, begun.result(err), err, start)
	return begun, err
}

func (m *Memory) beginCall(
	ctx context.Context, c class, scope, body Digest, a Attempt, lease, ttl, tombstone time.Duration,
) (Begun, error) {
	for swept := false; ; swept = true {
		v, err := m.visit(ctx, opBegin, c, scope)
		if err != nil {
			return Begun{}, err
		}
		h, _ := v.live()
		st := stateBegun
		if h != 0 {
			var begun Begun
			if begun, st, err = v.shard.slab.record(h).judge(body, a, v.ms); err != nil || !begun.Owner {
				v.leave()
				return begun, err
			}
		} else if !m.calls.take() {
			v.leave()
			if swept {
				return Begun{}, m.full[opBegin]
			}
			m.sweep(v.ms)
			continue
		}
		expires := v.ms + milliseconds(ttl)
		var r record
		if h == 0 {
			var value [callAnswer]byte
			copy(value[:], body[:])
			r = v.insert(st, value[:], expires, expires)
		} else {
			r = v.shard.slab.record(h)
			r.setState(st)
			r.setExpires(expires)
			v.shard.wheel.remove(&v.shard.slab, h)
			r.setDue(expires)
			v.shard.wheel.add(&v.shard.slab, h)
		}
		copy(r.attempt(), a[:])
		r.setLease(v.ms + milliseconds(lease))
		r.setCallEnd(expires + milliseconds(tombstone))
		v.leave()
		return Begun{Owner: true, TakenOver: st == stateTaken}, nil
	}
}

// judge answers a Begin for a call that has a record; st is what becomes of it where the caller is the owner.
func (r record) judge(body Digest, a Attempt, ms int64) (begun Begun, st state, err error) {
	switch {
	case r.tombstone(ms):
		return Begun{}, 0, ErrTombstone
	case string(r.body()) != string(body[:]):
		return Begun{}, 0, ErrOtherBody
	case r.state() == stateKept:
		return Begun{Value: append([]byte{}, r.answer()...)}, 0, nil
	case r.ownedBy(a):
		return Begun{Owner: true}, r.state(), nil
	case ms < r.lease():
		return Begun{}, 0, ErrInFlight
	default:
		return Begun{Owner: true}, stateTaken, nil
	}
}

// Finish is Idempotent.Finish.
func (m *Memory) Finish(ctx context.Context, kind Kind, scope Digest, a Attempt, value []byte) error {
	start := time.Now()
	err := m.finish(ctx, kind, scope, a, value)
	m.meter.done(opFinish, err, start)
	return err
}

func (m *Memory) finish(ctx context.Context, kind Kind, scope Digest, a Attempt, value []byte) error {
	if err := checkOwner(opFinish, kind, a, value); err != nil {
		return err
	}
	v, err := m.visit(ctx, opFinish, class{familyIdempotent, kind}, scope)
	if err != nil {
		return err
	}
	defer v.leave()
	h, i := v.live()
	if h == 0 {
		return ErrLost
	}
	r := v.shard.slab.record(h)
	switch {
	case r.tombstone(v.ms) || !r.ownedBy(a):
		return ErrLost
	case r.state() == stateKept:
		return nil
	}
	v.shard.wheel.remove(&v.shard.slab, h)
	h = v.shard.move(h, i, callAnswer, callAnswer+len(value))
	v.shard.wheel.add(&v.shard.slab, h) // due when ttl ends, as before
	r = v.shard.slab.record(h)
	r.setState(stateKept)
	copy(r.answer(), value)
	return nil
}

// Abandon is Idempotent.Abandon.
func (m *Memory) Abandon(ctx context.Context, kind Kind, scope Digest, a Attempt) error {
	start := time.Now()
	err := m.abandon(ctx, kind, scope, a)
	m.meter.done(opAbandon, err, start)
	return err
}

func (m *Memory) abandon(ctx context.Context, kind Kind, scope Digest, a Attempt) error {
	if err := checkOwner(opAbandon, kind, a, nil); err != nil {
		return err
	}
	v, err := m.visit(ctx, opAbandon, class{familyIdempotent, kind}, scope)
	if err != nil {
		return err
	}
	defer v.leave()
	h, i := v.live()
	if h == 0 {
		return nil
	}
	r := v.shard.slab.record(h)
	switch {
	case r.tombstone(v.ms) || !r.ownedBy(a) || r.state() == stateKept:
		return ErrLost
	case r.state() == stateTaken:
		r.setLease(0)
	default:
		v.drop(h, i)
	}
	return nil
}
