package drill

import (
	"encoding/base64"

	"github.com/cardstile/cardstile/policy/store"
)

// Slots is how many Redis Cluster has.
const Slots = 16384

// Slot is the slot of a token's key. Its hash tag is the digest: policy/store/redis.go.
func Slot(d store.Digest) int {
	var crc uint16 // CRC-16/XMODEM, as Redis Cluster's specification has it
	for _, b := range []byte(base64.RawURLEncoding.EncodeToString(d[:])) {
		crc ^= uint16(b) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= 0x1021
			}
		}
	}
	return int(crc % Slots)
}
