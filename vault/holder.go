package vault

import (
	"crypto/sha256"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/cardstile/cardstile/vault/internal/secret"
	"github.com/cardstile/cardstile/vault/keys"
)

// heldLabel is what the keys of held values are derived with, and begins their associated data.
const heldLabel = "cardstile held card v1"

// maxHeldBytes bounds one thing that is held: a length is one byte.
const maxHeldBytes = 255

// heldOverhead is how much longer a held value is than what is in it.
const heldOverhead = keys.TagBytes + keys.SealOverhead

// Detail is something of a card that is no card data by itself and is held with it. It comes from a caller and goes back
// to one as a string; in between it is sealed as the fields are. The zero Detail is none and is refused.
type Detail uint8

// The details, and what they must be. Their numbers are part of what is stored.
const (
	DetailExpiry Detail = iota + 1 // "MMYY", see [ExpiryMMYY]
	DetailName                     // of the cardholder: 1 to 255 bytes of printable UTF-8 in which there is no card number, nor as many digits as one has
	details
)

// String is "expiry" or "name".
func (d Detail) String() string {
	switch d {
	case DetailExpiry:
		return "expiry"
	case DetailName:
		return "name"
	}
	return "invalid"
}

// Parts are held values of one card, by what they hold.
type Parts struct {
	Fields  map[Field][]byte
	Details map[Detail][]byte
}

// Holder makes of card data, which comes piece by piece over a leg in clear, values that wait in a store until it is paid
// with [11]. They are sealed under HKDF of a storage key and a bearer token, which the store knows by its digest: whoever
// has the store with its copies and all of our keys reads nothing. When the token is spent, the value is gone from the store;
// an older copy of it still opens with the token's text and our keys together, and with neither alone.
//
//   - [Holder.Hold] and [Holder.HoldDetail] seal one thing each under the token of the page's session.
//   - [Holder.Rehold] takes them together, as one value under a single-use token.
//   - [Holder.Held] is that value as the client's leg of the session that redeems it: see [Opening].
//
// That holds for tokens that cannot be made of what is stored: random ones that stand nowhere, and those that are made
// again of a stored salt and of something that nothing stores, such as the page's token or the text of a caller's
// idempotency key. One that is made again from a stored seed alone [8], or that is kept in an answer for a retry, even
// sealed, is read by who has our keys. And the page's token opens the parts for as long as they are there: who has taken
// them over deletes them.
//
// It forgets nothing: the store's lifetimes bound how long a value waits, a security code too, which may be kept only
// until the payment is authorized (PCI DSS v4.0.1, requirements 3.3.1 and 3.3.2). A store that gives back an older value
// of the same thing and token is not found out, nor is the length of what is held hidden.
// It is safe for concurrent use.
type Holder struct {
	ring    *keys.TokenRing
	metrics *holderMetrics
}

// NewHolder takes keys of use storage and of one environment [5], primary first: it seals, all of them open.
func (v *Vault) NewHolder(ks ...*keys.Key) (*Holder, error) {
	ring, err := keys.NewTokenRing(heldLabel, ks...)
	if err != nil {
		return nil, fmt.Errorf("holder: %w", err)
	}
	return &Holder{ring: ring, metrics: v.metrics.holder()}, nil
}

// Hold seals a field that came over the client's leg under a token, after the checks of [Session.Reseal]. A card number
// and a security code can be held; a field that is already held cannot, so that no field is prolonged by redeeming it.
// It fails as Reseal does, or where the token has less than [keys.MinTokenBytes].
func (h *Holder) Hold(s *Session, token string, f Field, in Sealed) ([]byte, error) {
	if !holdable(f) {
		return nil, ErrOpen
	}
	out, err := h.hold(s, token, f, in)
	h.metrics.fields[f].count(err)
	return out, err
}

func (h *Holder) hold(s *Session, token string, f Field, in Sealed) ([]byte, error) {
	l := s.legs.Get()
	if l == nil || !l.client.takes() {
		return nil, ErrOpen
	}
	plaintext, err := l.client.checked(f, ToIssuer, in)
	if err != nil {
		return nil, err
	}
	defer plaintext.Destroy()
	return h.seal(token, f.String(), plaintext.Bytes())
}

// HoldDetail seals a detail under a token. What is not as the detail must be is a bare [ErrOpen].
func (h *Holder) HoldDetail(token string, d Detail, text string) ([]byte, error) {
	if d == 0 || d >= details {
		return nil, ErrOpen
	}
	out, err := h.holdDetail(token, d, text)
	h.metrics.details[d].count(err)
	return out, err
}

func (h *Holder) holdDetail(token string, d Detail, text string) ([]byte, error) {
	if !checkDetail(d, text) {
		return nil, ErrOpen
	}
	return h.seal(token, d.String(), []byte(text))
}

// Rehold opens what is held under one token and seals it together under another. Whatever cannot be opened, or is not
// what it stands for, is a bare [ErrOpen] for all of it, and so are no field at all and one token for both. Another error
// is a new token of less than [keys.MinTokenBytes].
func (h *Holder) Rehold(from string, parts Parts, to string) ([]byte, error) {
	out, err := h.rehold(from, parts, to)
	h.metrics.cards.count(err)
	return out, err
}

func (h *Holder) rehold(from string, parts Parts, to string) ([]byte, error) {
	if len(parts.Fields) == 0 || from == to {
		return nil, ErrOpen
	}
	card := new(heldCard)
	defer card.destroy()
	for f, sealed := range parts.Fields {
		if !holdable(f) {
			return nil, ErrOpen
		}
		text, err := h.open(from, f.String(), sealed, maxHeldBytes)
		if err != nil {
			return nil, err
		}
		card.fields[f] = text
	}
	for d, sealed := range parts.Details {
		if d == 0 || d >= details {
			return nil, ErrOpen
		}
		text, err := h.open(from, d.String(), sealed, maxHeldBytes)
		if err != nil {
			return nil, err
		}
		card.details[d] = text
	}
	packed := card.pack()
	defer packed.Destroy()
	return h.seal(to, cardPart, packed.Bytes())
}

// seal seals a part under a token.
func (h *Holder) seal(token, part string, plaintext []byte) ([]byte, error) {
	ring, err := h.ring.For(token)
	if err != nil {
		return nil, fmt.Errorf("hold: %w", err)
	}
	return ring.Seal(make([]byte, 0, len(plaintext)+heldOverhead), heldData(token, part), plaintext)
}

// open opens a part of at most that many bytes under a token. The caller destroys it.
func (h *Holder) open(token, part string, sealed []byte, most int) (*secret.Buffer, error) {
	size := len(sealed) - heldOverhead
	if size <= 0 || size > most {
		return nil, ErrOpen
	}
	ring, err := h.ring.For(token)
	if err != nil {
		return nil, ErrOpen // a token that holds nothing is like any other wrong one
	}
	text := secret.New(size)
	if _, err := ring.Open(text.Bytes()[:0], heldData(token, part), sealed); err != nil { // fits: nothing is copied
		text.Destroy()
		return nil, ErrOpen
	}
	return text, nil
}

// heldData is the associated data of a part: the label, what it is, and which token it is held under, since HMAC may take
// two tokens for one (see [keys.Key.TokenSealer]). It is not stored, and the digest in it is none that stores keep.
func heldData(token, part string) []byte {
	digest := sha256.Sum256([]byte(heldLabel + "\x00" + token))
	return append([]byte(heldLabel+"\x00"+part+"\x00"), digest[:]...)
}

// holdable reports whether a field may wait in a store: what a payment needs, and never a PIN.
func holdable(f Field) bool { return f == FieldPAN || f == FieldCVC }

func checkDetail(d Detail, text string) bool {
	if d == DetailExpiry {
		_, _, err := ExpiryMMYY.Parse(text)
		return err == nil
	}
	if len(text) == 0 || len(text) > maxHeldBytes || !utf8.ValidString(text) || HoldsPANString(text) {
		return false
	}
	digits := 0
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return false
		}
		if unicode.IsNumber(r) {
			digits++
		}
	}
	return digits < fewestDigits // of whatever script, and whatever stands between them
}

// fewestDigits is how many digits a card number has at least that anybody would take for one.
const fewestDigits = 12
