package vault

// CanRead reports whether the plaintext of a handle can be read as a field.
func CanRead(s Sealed, f Field) bool {
	text, err := s.plain.read(f)
	text.Destroy()
	return err == nil
}

// NeedsNoEscape is needsNoEscape.
func NeedsNoEscape(text []byte) bool { return needsNoEscape(text) }

// Leaving is the memory that holds a field in clear until its session is closed.
func Leaving(s Sealed) []byte { return s.plain.text.Bytes() }
