package main

import (
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	demopage "github.com/cardstile/cardstile/deploy/demo"
)

// visitor is a browser on the demo's page, with the page's backend in this process and the gateway in another.
type visitor struct {
	*tester
	t    *testing.T
	page *demopage.Page
}

// asks calls the page's backend as the page does, and takes what it wants of the answer.
func (v *visitor) asks(what, body string, status int, into any) {
	v.t.Helper()
	r := httptest.NewRequestWithContext(v.t.Context(), http.MethodPost, v.doc.PublicURL+"/demo/"+what, strings.NewReader(body))
	r.Header.Set("Origin", v.doc.PublicURL)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	v.page.ServeHTTP(w, r)
	if w.Code != status {
		v.t.Fatalf("%s: status %d, %s; want %d", what, w.Code, w.Body, status)
	}
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		v.t.Fatal(err)
	}
}

// calls is a call of a frame to the gateway.
func (v *visitor) calls(status int, r request, into any) {
	v.t.Helper()
	answer, err := v.want(v.t.Context(), v.client, status, r)
	if err != nil {
		v.t.Fatal(err)
	}
	if err := json.Unmarshal(answer.body, into); err != nil {
		v.t.Fatal(err)
	}
}

// TestDemoPage: what the page's backend hands out is what the frames on the page go on with, and the card comes of it.
func TestDemoPage(t *testing.T) {
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	v := &visitor{tester: h.caller(serveProcess(t, binary(t), h.path("config.yaml"))), t: t}
	var err error
	if v.page, err = h.page(v.doc); err != nil {
		t.Fatal(err)
	}
	t.Run("show a card", func(t *testing.T) {
		v.t = t
		v.showsCard()
	})
	t.Run("pay with a card", func(t *testing.T) {
		v.t = t
		v.paysOnce()
	})
}

// showsCard goes on as the card page does.
func (v *visitor) showsCard() {
	var given struct{ EphemeralToken, CardToken, AppID, UserToken string }
	v.asks("token", "{}", http.StatusOK, &given)
	s, err := v.session()
	if err != nil {
		v.t.Fatal(err)
	}
	header := bearing(given.EphemeralToken, s)
	header["Cardstile-App"], header["Cardstile-User-Token"] = given.AppID, given.UserToken
	var shown details
	v.calls(http.StatusOK, request{method: "GET", url: v.doc.PublicURL + "/api/v1/cards/" + given.CardToken + "/details", header: header}, &shown)
	if shown.Data.EncryptedPan == nil {
		v.t.Fatal("there is no card number")
	}
	if err := opens(s, *shown.Data.EncryptedPan, v.doc.Card.PAN, "card number"); err != nil {
		v.t.Error(err)
	}
}

// paysOnce goes on as the library of hosted fields and its frames do. The token that comes of it pays once.
func (v *visitor) paysOnce() {
	var given struct{ SessionToken, Library, Integrity string }
	v.asks("fields-session", "{}", http.StatusOK, &given)
	v.loads(given.Library, given.Integrity)
	at := v.doc.PublicURL + "/merchant/api/v2/hosted-fields-sessions/" + url.PathEscape(given.SessionToken)
	keyed := func() map[string]string {
		return map[string]string{"Idempotency-Key": randomUUID(), "Content-Type": "application/json"}
	}
	var ignored map[string]any
	v.calls(http.StatusOK, request{method: "GET", url: at + "/configuration", header: keyed()}, &ignored)
	for _, field := range []string{
		fmt.Sprintf(`{"type":"cardNumber","cardNumber":%q}`, v.doc.Card.PAN), `{"type":"expiryDate","expiryDate":"1230"}`, `{"type":"cvv","cvv":"123"}`,
	} {
		v.calls(http.StatusOK, request{method: "POST", url: at + "/fields", body: field, header: keyed()}, &ignored)
	}
	var minted struct{ Token string }
	v.calls(http.StatusOK, request{method: "POST", url: at + "/single-use-tokens", header: keyed()}, &minted)

	var paid struct {
		Status  int
		Payment struct {
			PaymentID string
			Card      struct{ CardNumber string }
		}
	}
	body := fmt.Sprintf(`{"token":%q}`, minted.Token)
	v.asks("pay", body, http.StatusOK, &paid)
	pan := v.doc.Card.PAN
	if number := paid.Payment.Card.CardNumber; paid.Status != http.StatusCreated || paid.Payment.PaymentID == "" || number != pan[:6]+"******"+pan[12:] {
		v.t.Errorf("paid %+v", paid)
	}
	v.asks("pay", body, http.StatusUnprocessableEntity, &ignored)
}

// loads gets the library as a browser does that is told its digest.
func (v *visitor) loads(path, integrity string) {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, v.doc.PublicURL+path, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	answer, err := v.client.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer answer.Body.Close()
	digest := sha512.New384()
	if _, err := io.Copy(digest, answer.Body); err != nil {
		v.t.Fatal(err)
	}
	if got := "sha384-" + base64.StdEncoding.EncodeToString(digest.Sum(nil)); answer.StatusCode != http.StatusOK || got != integrity {
		v.t.Errorf("the library: status %d, digest %s, want %s", answer.StatusCode, got, integrity)
	}
}
