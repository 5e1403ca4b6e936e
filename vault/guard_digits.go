package vault

// reading follows one reading of a text: words of letters and digits, groups of digits in them, and what stands between.
type reading struct {
	last  [32]byte // the last digits, a ring
	count uint32   // of all digits so far

	groups [8]group // the groups that single separators link, a ring
	linked uint8    // how many of them, the one that is being read included

	word    word
	iban    bool // in the groups of an IBAN
	point   bool // the last byte was a decimal point
	sign    bool // the last byte was a "+" that is no separator
	inGroup bool
	inWord  bool
	found   bool

	calm uint8 // the classes of bytes that change nothing now, as bits: most of most texts
}

// group is a run of digits.
type group struct {
	length uint8 // saturates
	exempt exempt
}

// exempt says what the number cannot be that begins with a group.
type exempt uint8

const (
	exemptGroups exempt = 1 << iota // a layout of groups
	exemptAll
	exemptPhone // anything of up to 15 digits
)

// word is a run of letters and digits.
type word struct {
	length  uint8 // saturates
	shape   uint8 // how far it is like "GB29": 4 is all the way
	letters bool
	human   bool // a letter that is not hexadecimal
	pending bool // a number was found in it, if it is no IBAN and not hexadecimal
}

// Of an IBAN (ISO 13616-1): two letters and two digits begin it, and it has 34 characters at most.
const (
	ibanShape = 4
	maxIBAN   = 34
)

const (
	maxPANDigits = 19
	minPANDigits = 13
	tooLong      = maxPANDigits + 1
)

// The classes of bytes. Letters from g on are what makes a word human.
const (
	classOther = iota
	classSign
	classDigit
	classHex
	classLetter
	classSeparator

	calmNowhere = 1 << classOther              // outside words, with nothing to remember
	calmWord    = 1<<classHex | 1<<classLetter // in a word that letters decide no more
)

var classes = func() (table [256]uint8) {
	for c := range table {
		switch b := byte(c); {
		case '0' <= b && b <= '9':
			table[c] = classDigit
		case 'a' <= b|0x20 && b|0x20 <= 'f':
			table[c] = classHex
		case 'g' <= b|0x20 && b|0x20 <= 'z':
			table[c] = classLetter
		case b == ' ', b == '-':
			table[c] = classSeparator
		case b == '+':
			table[c] = classSign
		}
	}
	return table
}()

// next takes one byte.
func (r *reading) next(c byte) {
	if class := classes[c]; r.calm>>class&1 == 0 {
		r.take(c, class)
	}
}

func (r *reading) take(c byte, class uint8) {
	r.calm = 0
	switch class {
	case classDigit:
		r.digit(c)
	case classHex, classLetter:
		r.letter(c, class == classLetter)
	case classSeparator:
		r.separator(c)
	default:
		r.other(c)
	}
}

func (r *reading) digit(c byte) {
	if !r.inGroup {
		r.beginGroup()
	}
	r.beginWord()
	switch w := &r.word; {
	case w.shape == 2 && w.length == 2, w.shape == 3 && w.length == 3:
		w.shape++
	}
	r.word.grow()
	r.last[r.count%uint32(len(r.last))] = c - '0'
	r.count++
	if g := &r.groups[r.linked-1]; g.length < tooLong {
		g.length++
	}
}

// beginGroup opens a group, which continues those before it if one separator stands between.
func (r *reading) beginGroup() {
	if r.linked == uint8(len(r.groups)) {
		copy(r.groups[:], r.groups[1:])
		r.linked--
	}
	var e exempt
	if r.inWord || r.iban {
		e = exemptGroups
	}
	if r.point {
		e |= exemptAll
	}
	if r.sign {
		e |= exemptPhone
	}
	r.groups[r.linked] = group{exempt: e}
	r.linked++
	r.inGroup = true
}

func (r *reading) letter(c byte, human bool) {
	if r.inGroup {
		r.whole()
		r.inGroup = false
	}
	r.beginWord()
	r.linked, r.point, r.sign = 0, false, false
	w := &r.word
	if int(w.shape) == int(w.length) && w.shape < 2 && c < 'a' {
		w.shape++
	}
	w.letters = true
	w.human = w.human || human && !(c|0x20 == 'x' && w.length == 1) // 0x…
	w.grow()
	if w.human && w.shape < ibanShape && w.length > 4 {
		r.calm = calmWord
	}
}

func (r *reading) separator(c byte) {
	ended := r.inGroup
	r.endGroup()
	inWord := r.inWord
	r.endWord(c == ' ')
	if !ended {
		r.linked = 0
	}
	if !inWord {
		r.iban = false
	}
	r.point, r.sign = false, false
}

func (r *reading) other(c byte) {
	point := c == '.' && r.inGroup
	sign := c == '+' && !r.inWord
	if r.inGroup || r.inWord || r.linked > 0 {
		r.endGroup()
		r.endWord(false)
		r.linked = 0
	}
	r.iban, r.point, r.sign = false, point, sign
	if !point && !sign {
		r.calm = calmNowhere
	}
}

// plus is a "+" where it may stand for a space.
func (r *reading) plus() {
	if r.inGroup {
		r.take(' ', classSeparator)
	} else {
		r.take('+', classSign)
	}
}

// end reports whether a number was found, if nothing comes any more.
func (r *reading) end() bool {
	r.take(0, classOther)
	return r.found
}

func (r *reading) beginWord() {
	if !r.inWord {
		r.inWord, r.word = true, word{}
	}
}

func (w *word) grow() {
	if w.length < 255 {
		w.length++
	}
}

// endWord decides on what was found in the word, and whether an IBAN goes on after it.
func (r *reading) endWord(space bool) {
	if !r.inWord {
		return
	}
	r.inWord = false
	w := &r.word
	if w.pending && (w.human || !w.letters) && (w.shape < ibanShape || w.length > maxIBAN) {
		r.found = true
	}
	switch {
	case !space || w.length > 4:
		r.iban = false
	case w.shape == ibanShape:
		r.iban = true
	}
}

// endGroup ends a group that no letter follows.
func (r *reading) endGroup() {
	if r.inGroup {
		r.whole()
		r.layouts()
		r.inGroup = false
	}
}

// whole judges the group that ends as a number without a break.
func (r *reading) whole() {
	g := r.groups[r.linked-1]
	if r.isPAN(int(g.length), g.exempt) {
		r.word.pending = true // letters after it may say what kind of word it is part of
	}
}

// layouts judges the groups that end here as one number.
func (r *reading) layouts() {
	n := int(r.linked)
	if n < 2 {
		return
	}
	at := func(back int) int { return int(r.groups[n-1-back].length) }
	last := at(0)
	if last == 13 && at(1) == 6 {
		r.judge(2, 19)
	}
	if n >= 3 && (last == 4 || last == 5) && at(1) == 6 && at(2) == 4 {
		r.judge(3, 10+last)
	}
	if last > 4 {
		return
	}
	for k, total := 1, last; k < n && at(k) == 4; k++ {
		total += 4
		r.judge(k+1, total)
	}
}

// judge judges the last k groups, which have total digits.
func (r *reading) judge(k, total int) {
	first := r.groups[int(r.linked)-k]
	if first.exempt&exemptGroups == 0 && r.isPAN(total, first.exempt) {
		r.found = true
	}
}

// isPAN judges the last n digits.
func (r *reading) isPAN(n int, e exempt) bool {
	if n < minPANDigits || n > maxPANDigits || e&exemptAll != 0 || e&exemptPhone != 0 && n <= 15 {
		return false
	}
	var beginning, sum int
	for i := range n {
		v := int(r.last[(r.count-uint32(n)+uint32(i))%uint32(len(r.last))])
		if i < 4 {
			beginning = 10*beginning + v
		}
		sum += weighed(v, n-i)
	}
	return sum%10 == 0 && issued(beginning, n)
}

// networks are the numbers that payment cards begin with: the first four digits, and the lengths. Ranges that begin with
// 3 to 6 are taken whole (ISO/IEC 7812-1, section 4.2: travel, banking, merchandising), those of others as published by
// their networks. None begins with 0 or 1, nor with 20 as dates do: counters, times and dates of our age do not look
// like cards.
var networks = []struct{ low, high, minDigits, maxDigits int }{
	{3000, 6999, 13, 19},
	{2200, 2205, 16, 16}, // Mir, Borica
	{2221, 2720, 16, 16}, // Mastercard
	{8100, 8299, 16, 19}, // UnionPay, RuPay
	{8600, 8600, 16, 16}, // Uzcard
	{9792, 9792, 16, 16}, // Troy
	{9860, 9860, 16, 16}, // Humo
}

func issued(beginning, n int) bool {
	for _, w := range networks {
		if w.low <= beginning && beginning <= w.high && w.minDigits <= n && n <= w.maxDigits {
			return true
		}
	}
	return false
}
