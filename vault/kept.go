package vault

import (
	"errors"
	"fmt"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// keptLabel begins the associated data of an answer that is kept.
const keptLabel = "cardstile kept answer v1"

// errKept says that a message is none that may be kept: fields leave by it in clear, or there is a card number in it.
var errKept = errors.New("keep answer: it may hold card data")

// Keep seals the answer to a call that used a token up, for a repetition of the call, which shows the token again: nobody else
// opens it, not even who has the store and all of our keys. What else the repetition has in common with its call is ad. An answer
// in which a field leaves in clear, or which holds a card number, is not kept: that is an error, as is a token of less than
// [keys.MinTokenBytes].
func (h *Holder) Keep(token string, ad []byte, answer *Outgoing) ([]byte, error) {
	text := answer.text.Bytes()
	if text == nil || len(answer.clear) > 0 || answer.HoldsPAN() {
		return nil, errKept
	}
	ring, err := h.ring.For(token)
	if err != nil {
		return nil, fmt.Errorf("keep answer: %w", err)
	}
	return ring.Seal(make([]byte, 0, len(text)+heldOverhead), keptData(token, ad), text)
}

// Kept opens what [Holder.Keep] sealed under the same token and ad. Whatever is wrong is a bare [ErrOpen]. The caller destroys the
// answer.
func (h *Holder) Kept(token string, ad, sealed []byte) (*Outgoing, error) {
	size := len(sealed) - heldOverhead
	if size < 0 {
		return nil, ErrOpen
	}
	ring, err := h.ring.For(token)
	if err != nil {
		return nil, ErrOpen
	}
	text := secret.New(size)
	if _, err := ring.Open(text.Bytes()[:0], keptData(token, ad), sealed); err != nil { // fits: nothing is copied
		text.Destroy()
		return nil, ErrOpen
	}
	return &Outgoing{text: text}, nil
}

// keptData is the associated data of an answer. Held parts have another label.
func keptData(token string, ad []byte) []byte {
	return append(heldData(token, keptLabel), ad...)
}
