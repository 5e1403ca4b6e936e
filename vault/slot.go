package vault

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// The states of a Slot.
const (
	slotReleased int32 = iota
	slotReserved
	slotUsed // Open has it, and returns it
)

// Slot is a place in the bounded queue for the RSA operation. It is good for one Open, which returns it;
// Release returns one that was not used.
type Slot struct {
	vault *Vault
	state atomic.Int32
}

// Reserve takes a place without waiting, or fails with [ErrBusy]. A request does this before anything is spent [18]:
// with a place, Open waits for no more than the places before it, an RSA operation each, over Config.MaxRSA at a time.
func (v *Vault) Reserve() (*Slot, error) {
	if v.places.Add(1) > v.maxPlaces {
		v.places.Add(-1)
		return nil, ErrBusy
	}
	s := &Slot{vault: v}
	s.state.Store(slotReserved)
	return s, nil
}

// Release returns the place. It does nothing where Open has or had the slot, the second time, or on nil.
func (s *Slot) Release() {
	if s != nil && s.state.CompareAndSwap(slotReserved, slotReleased) {
		s.vault.places.Add(-1)
	}
}

var errForeignSlot = errors.New("open session: the slot is another vault's")

// use takes over the slot, or reserves a place where there is none to take. What it returns must be done.
func (v *Vault) use(s *Slot) (*Slot, error) {
	if s != nil && s.vault != v {
		return nil, errForeignSlot
	}
	if s == nil || !s.state.CompareAndSwap(slotReserved, slotUsed) {
		var err error
		if s, err = v.Reserve(); err != nil {
			return nil, err
		}
		s.state.Store(slotUsed)
	}
	return s, nil
}

func (s *Slot) done() {
	s.state.Store(slotReleased)
	s.vault.places.Add(-1)
}

// acquire waits for one of the permits, which the caller returns by receiving from v.permits. A context that is over
// gets none: [ErrBusy] with context.DeadlineExceeded where time ran out, context.Canceled alone where the caller left.
func (v *Vault) acquire(ctx context.Context) error {
	if ctx.Err() == nil {
		select {
		case v.permits <- struct{}{}:
			return nil
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return fmt.Errorf("open session: %w", ctx.Err())
}
