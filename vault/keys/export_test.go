package keys

// SealFast is Seal with a work factor that suits tests.
func SealFast(content, passphrase []byte) ([]byte, error) { return seal(content, passphrase, 10) }

// SealFIPSFast is SealFIPS with as few iterations as a file may have.
func SealFIPSFast(content, passphrase []byte) ([]byte, error) {
	return sealFIPS(content, passphrase, minSealedIterations)
}

// OpenSealed is what kind "sealed" opens a file's content with.
func OpenSealed(sealed, passphrase []byte) ([]byte, error) { return openSealed(sealed, passphrase) }
