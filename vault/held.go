package vault

import (
	"fmt"
	"io"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// Held is a card that waited in a store, and the token that it waited under: read, not yet opened. The zero Held is
// absent. It prints as a fixed word.
type Held struct{ h secret.Hidden[held] }

type held struct {
	holder *Holder
	token  string
	sealed []byte
}

// Held is what [Holder.Rehold] gave, as the client's leg of a session: see [Opening]. Whether it opens is told there. The
// caller does not change it until then.
func (h *Holder) Held(token string, sealed []byte) Held {
	return Held{secret.Hide(&held{holder: h, token: token, sealed: sealed})}
}

// Present reports whether there is one.
func (h Held) Present() bool { return h.h.Get() != nil }

// Format implements [fmt.Formatter]: nothing of the card or its token is printed.
func (h Held) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }

// Held returns a handle to a field of the held card that is the client's leg, for [Session.Reseal] and [Session.Mask];
// false where it was not held, or the leg is another.
func (s *Session) Held(f Field) (Sealed, bool) {
	l := s.legs.Get()
	if l == nil || l.client.card.text(f) == nil {
		return Sealed{}, false
	}
	return Sealed{plain: &plain{field: f, card: l.client.card}}, true
}

// HeldDetail returns a detail of the held card that is the client's leg; false where it was not held, or the leg is
// another.
func (s *Session) HeldDetail(d Detail) (string, bool) {
	l := s.legs.Get()
	if l == nil || l.client.card == nil || d >= details || l.client.card.details[d] == nil {
		return "", false
	}
	return string(l.client.card.details[d].Bytes()), true
}

// cardPart is what a whole card is called in its associated data. It is no field and no detail.
const cardPart = "card"

// maxCardBytes bounds a whole card.
const maxCardBytes = int(fields-1+Field(details)-1) * (2 + maxHeldBytes)

// detailTag is set in the tag of a detail.
const detailTag = 0x80

// heldCard is a card that is held, in the vault. It is owned by who opened it.
type heldCard struct {
	fields  [fields]*secret.Buffer
	details [details]*secret.Buffer
}

// text is a field of the card, nil where there is none. It is the card's.
func (c *heldCard) text(f Field) *secret.Buffer {
	if c == nil || f >= fields {
		return nil
	}
	return c.fields[f]
}

// read copies a field that a handle of this card stands for. The caller destroys it.
func (c *heldCard) read(f Field, p *plain) (*secret.Buffer, error) {
	if p == nil || p.card != c || p.field != f {
		return nil, ErrOpen
	}
	out := secret.New(c.text(f).Len())
	copy(out.Bytes(), c.text(f).Bytes())
	return out, nil
}

// slots are the places of a card in the order of their tags, which is the order in which they are written.
func (c *heldCard) slots() []heldSlot {
	all := make([]heldSlot, 0, fields+Field(details))
	for f := Field(1); f < fields; f++ {
		if holdable(f) {
			all = append(all, heldSlot{byte(f), &c.fields[f]})
		}
	}
	for d := Detail(1); d < details; d++ {
		all = append(all, heldSlot{detailTag | byte(d), &c.details[d]})
	}
	return all
}

type heldSlot struct {
	tag  byte
	text **secret.Buffer
}

// pack writes the card: of each thing that is there its tag, its length and itself. The caller destroys it.
func (c *heldCard) pack() *secret.Buffer {
	slots, size := c.slots(), 0
	for _, s := range slots {
		if n := (*s.text).Len(); n > 0 {
			size += 2 + n
		}
	}
	out := secret.New(size)
	p := out.Bytes()[:0]
	for _, s := range slots {
		if text := (*s.text).Bytes(); len(text) > 0 {
			p = append(append(p, s.tag, byte(len(text))), text...)
		}
	}
	return out
}

// unpack reads a card that pack wrote. It has been authenticated: what is wrong with it is nobody's doing but ours.
func (c *heldCard) unpack(packed *secret.Buffer) error {
	p := packed.Bytes()
	for _, s := range c.slots() {
		if len(p) == 0 || p[0] != s.tag {
			continue
		}
		if len(p) < 2 || len(p) < 2+int(p[1]) {
			return ErrOpen
		}
		*s.text = secret.New(int(p[1]))
		p = p[2+copy((*s.text).Bytes(), p[2:]):]
	}
	if len(p) != 0 {
		return ErrOpen
	}
	return nil
}

// destroy zeroes the card. It may be called twice and on nil.
func (c *heldCard) destroy() {
	if c == nil {
		return
	}
	for _, text := range c.fields {
		text.Destroy()
	}
	for _, text := range c.details {
		text.Destroy()
	}
}

// open opens the card. The caller destroys it.
func (h *held) open() (*heldCard, error) {
	packed, err := h.holder.open(h.token, cardPart, h.sealed, maxCardBytes)
	if err != nil {
		return nil, err
	}
	defer packed.Destroy()
	card := new(heldCard)
	if err := card.unpack(packed); err != nil {
		card.destroy()
		return nil, err
	}
	return card, nil
}
