package policy

// MAC is what policy needs of a key: a keyed digest.
type MAC interface {
	// MAC appends the 32 bytes of the message's digest to dst. It does not
	// fail and is safe for concurrent use.
	MAC(dst, message []byte) []byte
}
