package audit

import (
	"strconv"
	"time"
	"unicode/utf8"
)

const (
	maxText  = 256 // bytes of UTF-8 before escaping
	ellipsis = "…" // marks what was cut
)

// appendText appends s, bounded as [Event] says, as a JSON string (RFC 8259 section 7): one line of printable characters, whatever s holds.
func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	if len(s) <= maxText && isPlain(s) {
		b = append(b, s...)
		return append(b, '"')
	}
	whole := bound(s)
	for _, r := range s[:whole] { // an invalid byte yields utf8.RuneError, which is what is to stand for it
		b = appendRune(b, r)
	}
	if whole < len(s) {
		b = append(b, ellipsis...)
	}
	return append(b, '"')
}

// isPlain reports whether s needs no escaping and holds nothing but ASCII.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf-1 || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// bound returns how many bytes of s are recorded: all of them, or those up to the cut. It counts an invalid byte as the three of U+FFFD.
func bound(s string) int {
	size, cut := 0, 0
	for i, r := range s {
		if size <= maxText-len(ellipsis) {
			cut = i
		}
		if size += utf8.RuneLen(r); size > maxText {
			return cut
		}
	}
	return len(s)
}

// appendRune appends r, escaped where it is syntax or not printable: control characters, separators and marks that turn the direction of text
// would let a value disguise the rest of its line.
func appendRune(b []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(b, '\\', byte(r))
	case strconv.IsPrint(r):
		return utf8.AppendRune(b, r)
	case r > 0xFFFF: // as a surrogate pair
		r -= 0x10000
		return appendUnit(appendUnit(b, 0xD800|r>>10), 0xDC00|r&0x3FF)
	}
	return appendUnit(b, r)
}

func appendUnit(b []byte, u rune) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[u>>12&15], digits[u>>8&15], digits[u>>4&15], digits[u&15])
}

// appendTime appends t in quotes: RFC 3339, UTC, always nine decimals, so that the texts sort as the times do.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	b = append(b, '"')
	b = t.AppendFormat(b, time.RFC3339)
	b[len(b)-1] = '.' // in the place of the Z
	ns := t.Nanosecond()
	for unit := 100_000_000; unit > 0; unit /= 10 {
		b = append(b, byte('0'+ns/unit%10))
	}
	return append(b, 'Z', '"')
}
