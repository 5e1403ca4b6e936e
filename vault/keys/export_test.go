package keys

// SealFast is Seal with a work factor that suits tests.
func SealFast(content, passphrase []byte) ([]byte, error) { return seal(content, passphrase, 10) }

// SealFIPSFast is SealFIPS with as few iterations as a file may have.
func SealFIPSFast(content, passphrase []byte) ([]byte, error) {
	return sealFIPS(content, passphrase, minSealedIterations)
}

// OpenSealed is what kind "sealed" opens a file's content with.
func OpenSealed(sealed, passphrase []byte) ([]byte, error) { return openSealed(sealed, passphrase) }

// OriginOf is the salt and the mark that a key is recognised by; nil where it took no passphrase.
func OriginOf(k *Key) (salt, mark []byte) {
	o := k.origin.Get()
	if o == nil {
		return nil, nil
	}
	return o.salt[:], o.mark
}
