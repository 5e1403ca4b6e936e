package envelope

// Base64 of a session key, without a branch or a table index that depends on the key: encoding/base64 looks its
// characters up in a table, which a neighbour on the same cache could watch.

// keyTextBytes is the length of the standard base64 of a key of n bytes, padding included.
func keyTextBytes(n int) int { return (n + 2) / 3 * 4 }

// encodeKey writes the standard base64 of key to text, which is as long as it.
func encodeKey(text, key []byte) {
	for i, j := 0, 0; i < len(key); i, j = i+3, j+4 {
		n := min(len(key)-i, 3)
		var v uint32
		for b := range n {
			v |= uint32(key[i+b]) << (16 - 8*b)
		}
		for c := range 4 {
			if text[j+c] = '='; c <= n {
				text[j+c] = encode6(v >> (18 - 6*c) & 63)
			}
		}
	}
}

// decodeKey reads text, which is as long as the base64 of key, into key. It reports false where text is not canonical
// standard base64, in the same time.
func decodeKey(key, text []byte) bool {
	var bad uint32
	for i, j := 0, 0; i < len(key); i, j = i+3, j+4 {
		n := min(len(key)-i, 3)
		var v uint32
		for c := range 4 {
			if c > n {
				bad |= uint32(text[j+c] ^ '=')
				v <<= 6
				continue
			}
			six, wrong := decode6(text[j+c])
			v, bad = v<<6|six, bad|wrong
		}
		for b := range n {
			key[i+b] = byte(v >> (16 - 8*b))
		}
		bad |= v & (1<<(24-8*n) - 1) // the unused bits
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
