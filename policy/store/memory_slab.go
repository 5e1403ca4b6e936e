package store

import (
	"encoding/binary"
	"math/bits"
)

// A record is a cell of a page: bytes without a pointer, so that a million of them cost the garbage collector nothing.
//
//	offset  bytes
//	0       32     digest
//	32      16     attempt that redeemed it, or owns the call; of a limit: its theoretical arrival time, µs (8 bytes)
//	48      6      expires, ms of the store's time; of a token whose value is gone: when it was redeemed
//	54      6      due, ms: when the wheel has to do something about it
//	60      4      the record after it in its slot of the wheel, or 0
//	64      4      the record before it; or the slot, with slotBit, of the first one
//	68      2      bytes of value
//	70      1      class: family and kind
//	71      1      state
//	72      …      value
const (
	offAttempt = 32
	offExpires = 48
	offDue     = 54
	offNext    = 60
	offPrev    = 64
	offLength  = 68
	offClass   = 70
	offState   = 71
	offValue   = 72
)

// record is one cell. It is valid until its handle is freed, under its shard's lock.
type record []byte

func (r record) digest() []byte      { return r[:offAttempt] }
func (r record) attempt() []byte     { return r[offAttempt:offExpires] }
func (r record) expires() int64      { return get48(r[offExpires:]) }
func (r record) setExpires(ms int64) { put48(r[offExpires:], ms) }
func (r record) due() int64          { return get48(r[offDue:]) }
func (r record) setDue(ms int64)     { put48(r[offDue:], ms) }
func (r record) next() handle        { return handle(binary.LittleEndian.Uint32(r[offNext:])) }
func (r record) setNext(h handle)    { binary.LittleEndian.PutUint32(r[offNext:], uint32(h)) }
func (r record) prev() handle        { return handle(binary.LittleEndian.Uint32(r[offPrev:])) }
func (r record) setPrev(h handle)    { binary.LittleEndian.PutUint32(r[offPrev:], uint32(h)) }
func (r record) class() uint8        { return r[offClass] }
func (r record) state() state        { return state(r[offState]) }
func (r record) setState(s state)    { r[offState] = byte(s) }
func (r record) arrival() int64      { return int64(binary.LittleEndian.Uint64(r[offAttempt:])) }
func (r record) setArrival(µs int64) { binary.LittleEndian.PutUint64(r[offAttempt:], uint64(µs)) }
func (r record) value() []byte {
	return r[offValue : offValue+int(binary.LittleEndian.Uint16(r[offLength:]))]
}
func (r record) setValue(v []byte) {
	r.setLength(len(v))
	copy(r[offValue:], v)
}

// setLength says how long the value is. MaxValueBytes and callAnswer fit.
func (r record) setLength(n int) { binary.LittleEndian.PutUint16(r[offLength:], uint16(n)) }

// spentAt is when a token was redeemed, ms of the store's time: counted back from the end of its window while that lasts,
// afterwards in the place of its expiry.
func (r record) spentAt() int64 {
	if r.state() == stateReplay {
		return r.due() - ReplayWindow.Milliseconds()
	}
	return r.expires()
}

// end is when the record is as good as none.
func (r record) end() int64 {
	switch r.state() {
	case stateReplay:
		return r.expires() + SpentFor.Milliseconds()
	case stateBegun, stateTaken, stateKept:
		return r.callEnd()
	default:
		return r.due()
	}
}

// get48 and put48 keep a time of the store in six bytes: milliseconds for 4,000 years.
func get48(b []byte) int64 {
	return int64(binary.LittleEndian.Uint32(b)) | int64(binary.LittleEndian.Uint16(b[4:]))<<32
}

func put48(b []byte, v int64) {
	binary.LittleEndian.PutUint32(b, uint32(v))
	binary.LittleEndian.PutUint16(b[4:], uint16(v>>32))
}

// handle names a record of one slab: 1 + page × 256 + cell. 0 is none. The highest bit is free, for slotBit.
type handle uint32

const (
	pageBytes = 8 << 10 // a page has as many cells of its size as fit, and at least one
	noPage    = ^uint32(0)

	fineBytes   = 512 // sizes up to here come in steps of 16 bytes, beyond in quarters of a power of two
	fineStep    = 16
	sizeClasses = fineBytes/fineStep + 1 + 7*4
)

// sizeOf returns the class of cells that hold n bytes, and their size.
func sizeOf(n int) (class, bytes int) {
	if n <= fineBytes {
		class = (n + fineStep - 1) / fineStep
		return class, class * fineStep
	}
	power := bits.Len(uint(n - 1)) // 2^(power-1) < n <= 2^power
	step := 1 << (power - 3)       // a quarter of the lower power of two
	steps := (n + step - 1) / step // 5 to 8
	return fineBytes/fineStep + (power-10)*4 + steps - 4, steps * step
}

// page is cells of one size. A page that has a free cell is in the list of its class.
type page struct {
	buf        []byte
	cell       uint32 // bytes of one
	next, prev uint32 // in the list of its class; noPage at its ends
	class      uint8
	live       uint8 // cells in use
	cut        uint8 // cells that were ever in use: those from here on are zero
	free       uint8 // 1 + the first free one among those; the next one stands in its first byte; 0: none
}

func (p *page) cells() int { return len(p.buf) / int(p.cell) }

// slab allocates records in pages and gives a page back to the runtime when its last record is freed. Not safe for
// concurrent use: it is its shard's.
type slab struct {
	pages []page
	spare []uint32            // numbers of pages that were given back
	lists [sizeClasses]uint32 // the first page with a free cell, by class
}

func newSlab() slab {
	var s slab
	for i := range s.lists {
		s.lists[i] = noPage
	}
	return s
}

// record returns the cell of h. It panics where there is none: an internal error.
func (s *slab) record(h handle) record {
	i := uint32(h - 1)
	p := &s.pages[i>>8]
	at := (i & 0xff) * p.cell
	return record(p.buf[at : at+p.cell : at+p.cell])
}

// alloc returns a cell of zeros with room for a value of n bytes.
func (s *slab) alloc(n int) handle {
	class, bytes := sizeOf(offValue + n)
	number := s.lists[class]
	if number == noPage {
		number = s.addPage(class, bytes)
	}
	p := &s.pages[number]
	var cell uint32
	if p.free != 0 {
		cell = uint32(p.free - 1)
		at := cell * p.cell
		p.free, p.buf[at] = p.buf[at], 0
	} else {
		cell = uint32(p.cut)
		p.cut++
	}
	p.live++
	if int(p.live) == p.cells() {
		s.unlist(number)
	}
	return handle(number<<8|cell) + 1
}

// freeCell overwrites the cell of h and takes it back.
func (s *slab) freeCell(h handle) {
	clear(s.record(h))
	number, cell := uint32(h-1)>>8, uint32(h-1)&0xff
	p := &s.pages[number]
	if int(p.live) == p.cells() {
		s.list(number)
	}
	p.buf[cell*p.cell] = p.free
	p.free = uint8(cell) + 1
	p.live--
	// The last page of its class with room stays, so that one token coming and going does not make and drop a page.
	if p.live == 0 && (p.next != noPage || p.prev != noPage) {
		s.unlist(number)
		*p = page{}
		s.spare = append(s.spare, number)
	}
}

func (s *slab) addPage(class, bytes int) uint32 {
	var number uint32
	if n := len(s.spare); n > 0 {
		number, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		number = uint32(len(s.pages))
		s.pages = append(s.pages, page{})
	}
	cells := max(1, pageBytes/bytes) // at most 8192/80, so that a cell's number fits in a byte
	s.pages[number] = page{buf: make([]byte, cells*bytes), cell: uint32(bytes), class: uint8(class), next: noPage, prev: noPage}
	s.list(number)
	return number
}

// list puts a page at the head of its class's list.
func (s *slab) list(number uint32) {
	p := &s.pages[number]
	head := &s.lists[p.class]
	p.next, p.prev = *head, noPage
	if *head != noPage {
		s.pages[*head].prev = number
	}
	*head = number
}

func (s *slab) unlist(number uint32) {
	p := &s.pages[number]
	if p.prev != noPage {
		s.pages[p.prev].next = p.next
	} else {
		s.lists[p.class] = p.next
	}
	if p.next != noPage {
		s.pages[p.next].prev = p.prev
	}
	p.next, p.prev = noPage, noPage
}
