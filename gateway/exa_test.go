package gateway_test

import (
	"fmt"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// exaPatch is PATCH /api/card of a user's cookie.
func (h *house) exaPatch(user, body string) call {
	x := h.exaCall(user, "")
	x.method, x.body = "PATCH", body
	return x.with("Content-Type", "application/json")
}

func (h *house) exaPINCall(user string, s *sandbox.Session, pin string) call {
	sealed, err := s.SealPIN(pin)
	must(err)
	return h.exaPatch(user, fmt.Sprintf(`{"data":%q,"iv":%q,"sessionId":%q}`, sealed.Data, sealed.IV, s.ID()))
}
