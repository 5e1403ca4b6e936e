package issuer

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/vault"
)

// This file is what adapters share.

// together runs the fetches side by side; the first error ends the others.
func together(ctx context.Context, fetches []func(context.Context) error) error {
	if len(fetches) == 1 {
		return fetches[0](ctx)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, fetch := range fetches {
		group.Go(func() error { return fetch(ctx) })
	}
	return group.Wait()
}

// statusError turns an answer other than 2xx into one of this package's errors. Its text is not passed on: it may quote.
func statusError(res *Response) error {
	switch {
	case res.Status == http.StatusNotFound:
		return ErrNoCard
	case res.Status/100 == 5:
		return fmt.Errorf("%w: status %d", ErrFailed, res.Status)
	case res.Status/100 == 4:
		return fmt.Errorf("%w: status %d", ErrRefused, res.Status)
	default:
		return fmt.Errorf("%w: status %d", ErrAnswer, res.Status)
	}
}

// answerError marks a field that could not be opened as the issuer's doing.
func answerError(field string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrAnswer, field, err)
}

// guard is ErrGuard where what the issuer writes freely of a card holds a card number [16]. Everything else of a card has
// a form of its own, and was held to it.
func guard(card *exchange.Card) error {
	if slices.ContainsFunc([]string{card.Holder, card.Product, card.Limit.Frequency}, vault.HoldsPANString) {
		return ErrGuard
	}
	return nil
}

// appendSealed appends the member {"data","iv"} of a sealed field.
func appendSealed(dst []byte, name string, s vault.Sealed) []byte {
	dst = append(append(append(dst, '"'), name...), `":{`...)
	dst = exchange.AppendMember(dst, "data", s.Data)
	dst = exchange.AppendMember(append(dst, ','), "iv", s.IV)
	return append(dst, '}')
}

// digits reports whether s is n decimal digits.
func digits(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range n {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
