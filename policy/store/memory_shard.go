package store

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// state is what became of a record.
type state uint8

const (
	stateLive   state = iota + 1 // a token nobody redeemed
	stateReplay                  // a token that was, with its value, for the attempt that did
	stateSpent                   // a token that was, or a call whose ttl is over: without its value
	stateMark                    // Once
	stateRecord                  // Records
	stateLimit                   // Limiter
	stateBegun                   // a call in flight
	stateTaken                   // one in flight whose owner took over from another one
	stateKept                    // a call with its answer
)

const minIndexSlots = 16

// budget is room that shards share. Safe for concurrent use.
type budget struct {
	used atomic.Int64
	max  int64
}

func (b *budget) take() bool {
	if b.used.Add(1) <= b.max {
		return true
	}
	b.used.Add(-1)
	return false
}

// shard is a part of the store under one lock: records in a slab, found through an open-addressed table of their
// handles (linear probing, at most three quarters full), due by a wheel.
type shard struct {
	mu    sync.Mutex
	slab  slab
	wheel wheel
	index []handle // a power of two
	count int

	seed    maphash.Seed
	entries *[maxClasses]entries
}

// entries counts the records of one class, in all shards.
type entries struct {
	count atomic.Int64
	room  *budget
}

func (s *shard) hash(class uint8, digest []byte) uint64 {
	// Digests that look alike (a caller's counter) must not meet: they are hashed once more, with a seed of this process.
	return maphash.Bytes(s.seed, digest) ^ uint64(class)*0x9e3779b97f4a7c15
}

// find returns the record's handle and its place in the index, or 0 and the place where it would go.
func (s *shard) find(class uint8, digest []byte, hash uint64) (handle, int) {
	if len(s.index) == 0 {
		return 0, 0
	}
	mask := len(s.index) - 1
	for i := int(hash) & mask; ; i = (i + 1) & mask {
		h := s.index[i]
		if h == 0 {
			return 0, i
		}
		if r := s.slab.record(h); r.class() == class && string(r.digest()) == string(digest) {
			return h, i
		}
	}
}

// insert adds a record that find did not find. The caller has taken its room from the budget.
func (s *shard) insert(class uint8, digest []byte, hash uint64, st state, value []byte, expires, due int64) record {
	if (s.count+1)*4 > len(s.index)*3 {
		s.resize(max(minIndexSlots, 2*len(s.index)))
	}
	h := s.slab.alloc(len(value))
	r := s.slab.record(h)
	copy(r.digest(), digest)
	r[offClass] = class
	r.setState(st)
	r.setValue(value)
	r.setExpires(expires)
	r.setDue(due)
	s.wheel.add(&s.slab, h)

	mask := len(s.index) - 1
	i := int(hash) & mask
	for s.index[i] != 0 {
		i = (i + 1) & mask
	}
	s.index[i] = h
	s.count++
	s.entries[class].count.Add(1)
	return r
}

// remove forgets the record h that stands at place i of the index and is in no slot of the wheel any more.
func (s *shard) remove(h handle, i int) {
	class := s.slab.record(h).class()
	s.unindex(i)
	s.slab.freeCell(h)
	s.count--
	s.entries[class].count.Add(-1)
	s.entries[class].room.used.Add(-1)
	if len(s.index) > minIndexSlots && s.count*8 < len(s.index) {
		s.resize(len(s.index) / 2)
	}
}

// unindex empties place i and moves up those that linear probing had pushed past it (Knuth, TAOCP 6.4, algorithm R).
func (s *shard) unindex(i int) {
	mask := len(s.index) - 1
	for j := i; ; {
		s.index[i] = 0
		for {
			j = (j + 1) & mask
			h := s.index[j]
			if h == 0 {
				return
			}
			r := s.slab.record(h)
			home := int(s.hash(r.class(), r.digest())) & mask
			if (j-home)&mask >= (j-i)&mask { // its home is not between i and j: it may stand at i
				s.index[i] = h
				break
			}
		}
		i = j
	}
}

func (s *shard) resize(slots int) {
	old := s.index
	s.index = make([]handle, slots)
	mask := slots - 1
	for _, h := range old {
		if h == 0 {
			continue
		}
		r := s.slab.record(h)
		i := int(s.hash(r.class(), r.digest())) & mask
		for s.index[i] != 0 {
			i = (i + 1) & mask
		}
		s.index[i] = h
	}
}

// tidy works off what has come due until now (ms), at most limit records (0: all). Every operation calls it for a few,
// so that what expires is freed without anybody looking at what does not.
func (s *shard) tidy(now int64, limit int) {
	if s.count == 0 {
		s.wheel.tick = max(s.wheel.tick, now/1000)
		return
	}
	for n := 0; ; {
		for h := s.wheel.pop(&s.slab); h != 0; h = s.wheel.pop(&s.slab) {
			s.expire(h, now)
			if n++; n == limit {
				return
			}
		}
		if s.wheel.tick >= now/1000 {
			return
		}
		s.wheel.turn(&s.slab, now/1000)
	}
}

// expire does what is due about a record that the wheel has given out: forget it, or its value, or put it back.
func (s *shard) expire(h handle, now int64) {
	r := s.slab.record(h)
	if r.due() > now { // a limit that was taken from meanwhile
		s.wheel.add(&s.slab, h)
		return
	}
	_, i := s.find(r.class(), r.digest(), s.hash(r.class(), r.digest()))
	end := r.end()
	if end <= now {
		s.remove(h, i)
		return
	}
	if r.state() == stateReplay { // its window is over
		s.spend(h, i, r.spentAt(), end)
		return
	}
	clear(r.attempt()) // of a call, whose answer is kept no longer
	s.spend(h, i, r.expires(), end)
}

// spend takes the value of the record h, which stands at place i of the index and in no slot of the wheel. The digest stays
// until end, and of a token, that it was redeemed at at (ms), and by whom.
func (s *shard) spend(h handle, i int, at, end int64) {
	h = s.move(h, i, 0, 0)
	r := s.slab.record(h)
	r.setExpires(at)
	r.setState(stateSpent)
	r.setDue(end)
	s.wheel.add(&s.slab, h)
}

// move puts the record h, which stands at place i of the index and in no slot of the wheel, into a cell for a value of n
// bytes. Its first keep bytes are as they were, the others zero.
func (s *shard) move(h handle, i, keep, n int) handle {
	to := s.slab.alloc(n)
	r := s.slab.record(to)
	copy(r, s.slab.record(h)[:offValue+keep])
	r.setLength(n)
	s.slab.freeCell(h)
	s.index[i] = to
	return to
}

// lookup is find for a record that still counts at now (ms): one whose time is over is as good as none, whether or not
// the wheel came by. stale is the handle of such a one.
func (s *shard) lookup(class uint8, digest []byte, hash uint64, now int64) (h handle, i int, stale bool) {
	h, i = s.find(class, digest, hash)
	if h == 0 {
		return 0, i, false
	}
	return h, i, s.slab.record(h).end() <= now
}

// live is lookup that forgets a stale record on the way: 0 means that there is none.
func (s *shard) live(class uint8, digest []byte, hash uint64, now int64) (handle, int) {
	h, i, stale := s.lookup(class, digest, hash, now)
	if stale {
		s.wheel.remove(&s.slab, h)
		s.remove(h, i)
		return 0, i
	}
	return h, i
}

// milliseconds of a duration, rounded up: nothing lives shorter than it was asked to.
func milliseconds(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }
