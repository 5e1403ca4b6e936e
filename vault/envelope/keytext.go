package envelope

// Base64 of a session key, without a branch or a table index that depends on the key: encoding/base64 looks its
// characters up in a table, which a neighbour on the same cache could watch.

const (
	keyBytes     = 16
	keyTextBytes = 24 // base64 of keyBytes, with its two "="
)

// encodeKey writes the standard base64 of key, keyBytes long, to text, keyTextBytes long.
func encodeKey(text, key []byte) {
	_, _ = key[keyBytes-1], text[keyTextBytes-1]
	for i, j := 0, 0; i < keyBytes; i, j = i+3, j+4 {
		v := uint32(key[i]) << 16
		if i+2 < keyBytes {
			v |= uint32(key[i+1])<<8 | uint32(key[i+2])
		}
		for n := range 4 {
			text[j+n] = encode6(v >> (18 - 6*n) & 63)
		}
	}
	text[keyTextBytes-2], text[keyTextBytes-1] = '=', '='
}

// decodeKey reads text, keyTextBytes long, into key, keyBytes long. It reports false where text is not canonical
// standard base64, in the same time.
func decodeKey(key, text []byte) bool {
	_, _ = key[keyBytes-1], text[keyTextBytes-1]
	var bad uint32
	for i, j := 0, 0; i < keyBytes; i, j = i+3, j+4 {
		var v uint32
		for n := range 4 {
			c := text[j+n]
			if j+n >= keyTextBytes-2 {
				bad |= uint32(c ^ '=')
				v <<= 6
				continue
			}
			six, wrong := decode6(c)
			v, bad = v<<6|six, bad|wrong
		}
		key[i] = byte(v >> 16)
		if i+2 < keyBytes {
			key[i+1], key[i+2] = byte(v>>8), byte(v)
		} else {
			bad |= v & 0xffff // the unused bits
		}
	}
	return bad == 0
}

// encode6 is the character of a value below 64.
func encode6(v uint32) byte {
	c := v + 'A'
	c += mask(25, v) & ('a' - 'Z' - 1)
	c -= mask(51, v) & ('z' - '0' + 1)
	c -= mask(61, v) & ('9' - '+' + 1)
	c += mask(62, v) & ('/' - '+' - 1)
	return byte(c)
}

// decode6 is the value of a character; wrong is not zero where it has none.
func decode6(char byte) (v, wrong uint32) {
	c := uint32(char)
	upper := mask('A'-1, c) & mask(c, 'Z'+1)
	lower := mask('a'-1, c) & mask(c, 'z'+1)
	digit := mask('0'-1, c) & mask(c, '9'+1)
	plus := mask('+'-1, c) & mask(c, '+'+1)
	slash := mask('/'-1, c) & mask(c, '/'+1)
	v = upper&(c-'A') | lower&(c-'a'+26) | digit&(c-'0'+52) | plus&62 | slash&63
	return v, ^(upper | lower | digit | plus | slash)
}

// mask is all ones where a < b and zero otherwise, for values below 2^31.
func mask(a, b uint32) uint32 { return uint32(int32(a-b) >> 31) }
