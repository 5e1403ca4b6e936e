package keys

// SealFast is Seal with a work factor that suits tests.
func SealFast(content, passphrase []byte) ([]byte, error) { return seal(content, passphrase, 10) }
