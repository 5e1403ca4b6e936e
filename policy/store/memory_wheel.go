package store

import "math/bits"

// wheel is a timing wheel (Varghese and Lauck, scheme 6) of records by the second in which they are due: three levels of
// 256 slots, so that adding, removing and a record's coming due cost the same however many there are. Records are linked
// through their cells.
type wheel struct {
	// tick is the second whose slot is being worked off: seconds of the store's time. Everything before it is done.
	tick  int64
	heads [wheelLevels * wheelSlots]handle
	// occupied has a bit for each slot of the lowest level that has a record, so that a long rest is passed over in leaps.
	occupied [wheelSlots / 64]uint64
}

const (
	wheelBits   = 8
	wheelSlots  = 1 << wheelBits
	wheelLevels = 3
	wheelSpan   = 1 << (wheelLevels * wheelBits) // seconds: 194 days; what is due later comes by again

	slotBit handle = 1 << 31 // in record.prev: this is a slot's number, not a record
)

// slotOf returns the slot for a second that lies after tick.
func (w *wheel) slotOf(second int64) int64 {
	switch delta := second - w.tick; {
	case delta < wheelSlots:
		return second % wheelSlots
	case delta < wheelSlots*wheelSlots:
		return wheelSlots + second>>wheelBits%wheelSlots
	default:
		second = min(second, w.tick+wheelSpan-wheelSlots*wheelSlots)
		return 2*wheelSlots + second>>(2*wheelBits)%wheelSlots
	}
}

// add puts the record into the slot of its due time, rounded up to a second, and at the earliest into the next one.
func (w *wheel) add(s *slab, h handle) {
	r := s.record(h)
	w.addAt(s, h, r, max((r.due()+999)/1000, w.tick+1))
}

func (w *wheel) addAt(s *slab, h handle, r record, second int64) {
	slot := w.slotOf(second)
	head := w.heads[slot]
	r.setNext(head)
	r.setPrev(slotBit | handle(slot))
	if head != 0 {
		s.record(head).setPrev(h)
	}
	w.heads[slot] = h
	if slot < wheelSlots {
		w.occupied[slot/64] |= 1 << (slot % 64)
	}
}

// remove takes the record out of its slot.
func (w *wheel) remove(s *slab, h handle) {
	r := s.record(h)
	next, prev := r.next(), r.prev()
	if slot := prev &^ slotBit; prev != slot {
		w.heads[slot] = next
		if next == 0 && slot < wheelSlots {
			w.occupied[slot/64] &^= 1 << (slot % 64)
		}
	} else {
		s.record(prev).setNext(next)
	}
	if next != 0 {
		s.record(next).setPrev(prev)
	}
}

// pop returns a record of the tick's slot, taken out of it, or 0.
func (w *wheel) pop(s *slab) handle {
	h := w.heads[w.tick%wheelSlots]
	if h != 0 {
		w.remove(s, h)
	}
	return h
}

// turn goes on to the next second that has something to do, at the latest to target, and spreads what its higher slots hold.
func (w *wheel) turn(s *slab, target int64) {
	round := (w.tick + 1) &^ (wheelSlots - 1)
	w.tick = min(target, round+w.nextOccupied((w.tick+1)%wheelSlots))
	if w.tick%wheelSlots != 0 {
		return
	}
	if w.tick%(wheelSlots*wheelSlots) == 0 {
		w.spread(s, 2*wheelSlots+w.tick>>(2*wheelBits)%wheelSlots)
	}
	w.spread(s, wheelSlots+w.tick>>wheelBits%wheelSlots)
}

// nextOccupied returns the first slot of the lowest level from slot on that has a record, or wheelSlots, where the next
// round begins. Slot 0 counts as occupied: a round begins with it.
func (w *wheel) nextOccupied(slot int64) int64 {
	if slot == 0 {
		return 0
	}
	word := w.occupied[slot/64] >> (slot % 64) << (slot % 64)
	for i := slot / 64; ; word = w.occupied[i] {
		if word != 0 {
			return i*64 + int64(bits.TrailingZeros64(word))
		}
		if i++; i == int64(len(w.occupied)) {
			return wheelSlots
		}
	}
}

// spread puts the records of a higher slot where they belong now. One that is due in this very second goes to its slot,
// which is still to be worked off.
func (w *wheel) spread(s *slab, slot int64) {
	h := w.heads[slot]
	w.heads[slot] = 0
	for h != 0 {
		r := s.record(h)
		next := r.next()
		w.addAt(s, h, r, max((r.due()+999)/1000, w.tick))
		h = next
	}
}
