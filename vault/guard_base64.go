package vault

// base64Word reads runs of base64 characters as if they began at each of the four places in a group of four characters:
// what stands before them may be of the alphabet too, as the slashes of a path are.
type base64Word struct {
	bits  uint32 // of the last five characters
	count uint32 // of characters so far

	before [4]uint32 // the last group of each lane, 24 bits
	lanes  [4]base64Lane
}

// base64Lane is one of the four readings. Most groups of four are no digits and cost a comparison.
type base64Lane struct {
	reading reading
	active  bool // reading has seen the last group
}

// next takes one byte.
func (w *base64Word) next(c byte) {
	v := base64Values[c]
	if v == noBase64 {
		if w.count > 0 {
			w.end()
		}
		return
	}
	w.bits = w.bits<<6 | uint32(v)
	if w.count++; w.count < 4 {
		return
	}
	// Bytes from 0x20 to 0x3f are digits, spaces, dashes and other punctuation. A number has at least three groups of them
	// alone.
	i, bits := w.count%4, w.bits&(1<<24-1)
	full := bits&0xe0e0e0 == 0x202020
	if full || w.lanes[i].active {
		w.lanes[i].group(bits, full, w.before[i], w.count < 8)
	}
	w.before[i] = bits
}

// group takes four characters, as three bytes.
func (l *base64Lane) group(bits uint32, full bool, before uint32, first bool) {
	if !l.active {
		l.reading = reading{found: l.reading.found}
		if !first {
			l.feed(before)
		}
	}
	l.feed(bits)
	if l.active = full; !full {
		l.reading.end()
	}
}

func (l *base64Lane) feed(bits uint32) {
	l.reading.next(byte(bits >> 16))
	l.reading.next(byte(bits >> 8))
	l.reading.next(byte(bits))
}

// end ends the run: what is left of a group of four holds one byte or two.
func (w *base64Word) end() {
	for i := range w.lanes {
		l := &w.lanes[i]
		if !l.active {
			continue
		}
		switch (w.count + 4 - uint32(i)) % 4 {
		case 2:
			l.reading.next(byte(w.bits >> 4))
		case 3:
			l.reading.next(byte(w.bits >> 10))
			l.reading.next(byte(w.bits >> 2))
		}
		l.reading.end()
		l.active = false
	}
	w.count = 0
}

func (w *base64Word) found() bool {
	return w.lanes[0].reading.found || w.lanes[1].reading.found || w.lanes[2].reading.found || w.lanes[3].reading.found
}

const noBase64 = 0xff

// base64Values are those of both alphabets: "+" and "/" of RFC 4648 section 4, "-" and "_" of section 5.
var base64Values = func() (table [256]uint8) {
	for c := range table {
		table[c] = noBase64
	}
	for v, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		table[c] = uint8(v)
	}
	table['-'], table['_'] = 62, 63
	return table
}()
