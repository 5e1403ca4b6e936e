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

// HeldMemory is the memory of a field of a card that was held.
func HeldMemory(s Sealed) []byte { return s.plain.card.fields[s.plain.field].Bytes() }

// HeldDetailMemory is the memory of a detail of the card that a handle is of.
func HeldDetailMemory(s Sealed, d Detail) []byte { return s.plain.card.details[d].Bytes() }

// Brand is a row of brands.
type Brand struct {
	Name      string
	Low, High int
	Digits    []int
	NoCode    bool
}

// Brands are all of them.
func Brands() []Brand {
	var all []Brand
	for _, w := range brands {
		b := Brand{Name: w.name, Low: w.low, High: w.high, NoCode: w.noCode}
		for n := range 32 {
			if w.digits>>n&1 == 1 {
				b.Digits = append(b.Digits, n)
			}
		}
		all = append(all, b)
	}
	return all
}

// HoldPart seals a text as any part, unchecked: "card" is a whole one.
func (h *Holder) HoldPart(token, part, text string) ([]byte, error) {
	return h.seal(token, part, []byte(text))
}
