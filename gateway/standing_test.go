package gateway_test

import (
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy/credential"
)

// generationBeyond waits until the partner's generation is another one, and returns it.
func (h *house) generationBeyond(was uint64) uint64 {
	h.t.Helper()
	for {
		g, err := h.gateway.Generation(h.t.Context(), partnerID)
		if err != nil {
			h.t.Fatal(err)
		}
		if g > was {
			return g
		}
		time.Sleep(time.Millisecond)
	}
}

var _ = testing.Short
var _ = credential.StandingFresh
