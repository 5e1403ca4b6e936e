package face_test

import (
	"net/http"
	"testing"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/vault"
)

// TestUnreadBodyHasAType: of a body that could not be read, its type is told before that, and both after who is calling.
func TestUnreadBodyHasAType(t *testing.T) {
	e := endpoint(t, newFace(t, "payroc", everythingOf("payroc")), http.MethodPost, "/v1/payments")
	for contentType, want := range map[string]exchange.Kind{"text/plain": exchange.UnsupportedMedia, "application/json": exchange.Internal} {
		empty, err := vault.ReadBody(http.NoBody, 0, e.Shape)
		if err != nil {
			t.Fatal(err)
		}
		call, err := e.Parse(&exchange.Request{
			Method: http.MethodPost, Path: "/v1/payments", Clear: empty, Unread: true, Param: func(string) string { return "" },
			Header: http.Header{
				"Authorization": {"Bearer x"}, "Content-Type": {contentType}, "Idempotency-Key": {"8e03978e-40d5-43e8-bc93-6894a57f9324"},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := call.Late; (got == nil) != (want == exchange.Internal) || got != nil && got.Kind != want {
			t.Errorf("%s: %v", contentType, got)
		}
	}
}
