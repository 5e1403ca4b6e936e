package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/internal/secret"
)

// Opening is what a session is opened with. At least one leg is given: Client with Preamble or Held, Issuer, or both.
type Opening struct {
	Binding  []byte // Permit.Binding(); less than 16 bytes is ErrBinding. No format so far has room to seal it in
	Client   *ClientKeys
	Preamble Preamble
	Held     Held // a card from the store, in the place of Client
	Issuer   *IssuerKey
	Slot     *Slot // from Reserve; nil reserves a place now, or is ErrBusy. Open returns it, whatever happens
}

var errLegs = errors.New("open session: no leg, a preamble without client keys, or a held card beside a client")

// Open sets both legs of a session up: the client's with the key in its preamble, at the cost of one RSA operation for
// each client key of that length until one fits; the issuer's with a fresh key, a cheap public-key operation. A leg in
// clear costs nothing and takes no preamble. A held card costs no RSA operation; one that does not open is [ErrOpen].
//
// A preamble that has no key's length costs and waits for nothing. ctx bounds the waiting; an operation that has begun
// is finished. Errors: [ErrOpen] and [ErrPreamble] bare, [ErrBinding], [ErrBusy], or ctx's. The caller closes the session.
func (v *Vault) Open(ctx context.Context, o Opening) (*Session, error) {
	defer o.Slot.Release()
	s, err := v.open(ctx, o)
	v.metrics.opened(err)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (v *Vault) open(ctx context.Context, o Opening) (*Session, error) {
	if len(o.Binding) < minBindingBytes {
		return nil, ErrBinding
	}
	switch {
	case o.Client != nil && o.Client.clear == o.Preamble.Present(): // a leg in clear has no preamble, any other needs one
		return nil, ErrPreamble
	case o.Client == nil && (o.Preamble.Present() || o.Issuer == nil && !o.Held.Present()), o.Client != nil && o.Held.Present():
		return nil, errLegs
	}
	l := &legs{metrics: v.metrics}
	if o.Client != nil {
		if err := v.openClient(ctx, o, &l.client); err != nil {
			return nil, err
		}
	}
	if o.Issuer != nil {
		if err := l.wrap(o.Issuer); err != nil {
			return nil, err
		}
	}
	if o.Held.Present() { // last: a session that is not returned is not closed
		card, err := o.Held.h.Get().open()
		if err != nil {
			return nil, err
		}
		l.client.card = card
	}
	return &Session{legs: secret.Hide(l)}, nil
}

// openClient makes the client's leg.
func (v *Vault) openClient(ctx context.Context, o Opening, to *leg) error {
	if o.Client.clear {
		to.clear = true
		return nil
	}
	key, err := v.unwrap(ctx, o)
	if err != nil {
		return err
	}
	defer key.Destroy()
	to.cipher, err = o.Client.format.NewCipher(key)
	return err
}

// wrap makes the issuer's leg.
func (l *legs) wrap(k *IssuerKey) error {
	if k.clear {
		l.issuer.clear = true
		return nil
	}
	key, preamble, err := k.format.Wrap(k.public)
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	defer key.Destroy()
	l.preamble = preamble
	l.issuer.cipher, err = k.format.NewCipher(key)
	return err
}

// unwrap opens the client's preamble, inside the bounds of the queue. It holds place and permit no longer than that.
func (v *Vault) unwrap(ctx context.Context, o Opening) (*secret.Buffer, error) {
	raw := o.Preamble.p.Get().raw
	candidates := o.Client.bySize[len(raw)]
	if len(candidates) == 0 {
		return nil, ErrOpen
	}
	place, err := v.use(o.Slot)
	if err != nil {
		return nil, err
	}
	defer place.done()
	if err := v.acquire(ctx); err != nil {
		return nil, err
	}
	defer func() { <-v.permits }()
	for _, d := range candidates {
		start := time.Now()
		key, err := o.Client.format.Unwrap(d, len(raw), raw)
		v.metrics.rsa.Observe(time.Since(start).Seconds())
		if err == nil {
			return key, nil
		}
	}
	return nil, ErrOpen
}

// Blind is a session of a client that encrypted to the issuer's own key [14]: its preamble and its PIN pass on as they
// are, both ways, and nothing is opened. Any other field is refused. There is no check for weak PINs: nobody here can
// read them. Errors: [ErrBinding], [ErrPreamble] where there is none.
func (v *Vault) Blind(binding []byte, p Preamble) (*Session, error) {
	if len(binding) < minBindingBytes {
		return nil, ErrBinding
	}
	if !p.Present() {
		return nil, ErrPreamble
	}
	read := p.p.Get()
	return &Session{legs: secret.Hide(&legs{metrics: v.metrics, preamble: read.text, blind: read.format})}, nil
}

// legs are the two sides of a session.
type legs struct {
	client, issuer leg
	preamble       string          // of the issuer's leg
	blind          envelope.Format // of a session that opens nothing; else nil
	leaving        []*plain        // fields in clear that were not written yet, or were
	metrics        *metrics
}
