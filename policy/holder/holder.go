// Package holder answers one question: whose card is it? Two authorities know
// parts of the answer [2]:
//
//   - Which partners a card belongs to is said by the operator (the file) or by
//     the issuer, never by a partner.
//   - Which users it belongs to inside a partner may be said by that partner (a
//     callback to its backend, a signed claim), since that can only narrow.
//
// A directory answers; package policy compares.
package holder

import (
	"context"
	"errors"

	"github.com/cardstile/cardstile/policy"
)

// Answers that are not failures. Match them with errors.Is: any other error
// means that the directory could not answer, and nothing may be released.
var (
	ErrNoCard = errors.New("no such card")
	ErrNoUser = errors.New("no such user")
)

// Directory says whose a card is, and who a user is.
//
// Identifiers are compared exactly. Both methods may block until the context's
// deadline, are safe for concurrent use, and return values that the caller must
// not change. An error never comes with a value.
type Directory interface {
	// Card returns who holds the card with that reference, or ErrNoCard.
	Card(ctx context.Context, id string) (*policy.Holding, error)
	// User returns the user with that id, or ErrNoUser.
	User(ctx context.Context, id string) (*policy.User, error)
}
