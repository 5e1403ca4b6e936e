package face_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
)

func endpoint(t testing.TB, f face.Face, method, pattern string) face.Endpoint {
	t.Helper()
	for _, e := range f.Endpoints() {
		if e.Method == method && e.Pattern == pattern {
			return e
		}
	}
	t.Fatalf("no %s %s", method, pattern)
	return face.Endpoint{}
}

// failed checks that a parser's error is a failure of a kind that a caller can cause, and quotes nothing.
func failed(t *testing.T, err error, secrets ...string) {
	t.Helper()
	failure, ok := errors.AsType[*exchange.Failure](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	switch failure.Kind {
	case exchange.BadRequest, exchange.BadSession, exchange.Unauthorized, exchange.UnsupportedMedia:
	default:
		t.Fatalf("refused as %s", failure.Kind)
	}
	for _, s := range secrets {
		if len(s) >= 12 && strings.Contains(err.Error(), s) {
			t.Fatalf("the error quotes what was sent: %v", err)
		}
	}
}

// FuzzGnosisPayMint: a body that is accepted says, read by another parser and written anew, exactly the same; no two
// parsers can disagree on what a token is bound to.
func FuzzGnosisPayMint(f *testing.F) {
	for _, r := range []string{
		"", "{}", `{"operation":"card.reveal","cardId":"` + cardID + `"}`, `{"sessionHash":"` + hash + `"}`,
		`{"cardId":"a","cardId":"b"}`, `{"cardId":"a","CARDID":"b"}`, `{"cardId":"\u00e9\ud83d\ude00"}`, `{"operation":null}`, "null",
	} {
		f.Add([]byte(r))
	}
	parse := endpoint(f, newFace(f, "gnosispay", everything()), http.MethodPost, "/api/v1/ephemeral-token").Parse
	header := http.Header{"Content-Type": {"application/json"}}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parse(&exchange.Request{Header: header, Body: body})
		if err != nil {
			failed(t, err, string(body))
			return
		}
		if c.Card != c.Bind.Card || len(c.Operations) != 1 || c.Operations[0] != policy.TokenMint || len(c.Credentials) != 0 {
			t.Fatalf("%+v", c)
		}
		if len(body) == 0 {
			if c.Bind != (exchange.Bind{TTL: time.Minute}) {
				t.Fatalf("nothing binds to %+v", c.Bind)
			}
			return
		}
		// The other reader: encoding/json, which takes the last of two members and any case.
		var other struct {
			Operation   *string `json:"operation"`
			CardID      *string `json:"cardId"`
			SessionHash *string `json:"sessionHash"`
		}
		if err := json.Unmarshal(body, &other); err != nil {
			t.Fatalf("accepted %q, which is not JSON: %v", body, err)
		}
		again := map[string]string{}
		if other.Operation != nil {
			again["operation"] = *other.Operation
		}
		if other.CardID != nil {
			again["cardId"] = *other.CardID
		}
		if other.SessionHash != nil {
			again["sessionHash"] = *other.SessionHash
		}
		encoded, err := json.Marshal(again)
		if err != nil {
			t.Fatal(err)
		}
		second, err := parse(&exchange.Request{Header: header, Body: encoded})
		if err != nil || second.Bind != c.Bind {
			t.Fatalf("%q binds to %+v, and %q to %+v (%v)", body, c.Bind, encoded, second, err)
		}
	})
}

// FuzzGnosisPaySetPIN: as above, for the body that sets a PIN; an error quotes none of it.
func FuzzGnosisPaySetPIN(f *testing.F) {
	for _, r := range []string{`{"data":"AA==","iv":"BB=="}`, `{"iv":"x","data":"y","data":"z"}`, `{"DATA":"x","iv":"y"}`, `{"data":"","iv":""}`, "null", "[]"} {
		f.Add([]byte(r))
	}
	parse := endpoint(f, newFace(f, "gnosispay", everything()), http.MethodPut, "/api/v1/cards/{cardId}/pin").Parse
	header := http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + token}, "Sessionid": {session}}
	param := func(string) string { return cardID }
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parse(&exchange.Request{Header: header, Body: body, Param: param})
		if err != nil {
			failed(t, err, string(body), token, session)
			return
		}
		if c.PIN.Data == "" || c.PIN.IV == "" {
			t.Fatalf("%q is accepted without a PIN", body)
		}
		var other map[string]string
		if err := json.Unmarshal(body, &other); err != nil || len(other) != 2 || other["data"] != c.PIN.Data || other["iv"] != c.PIN.IV {
			t.Fatalf("%q is %+v to us and %v to others (%v)", body, c.PIN, other, err)
		}
	})
}

// FuzzCardHeaders: whatever stands in the headers of a card operation, a call that is accepted has exactly one token and
// one session, each as it was sent, and accepting them again gives the same call.
func FuzzCardHeaders(f *testing.F) {
	f.Add("Bearer "+token, session)
	f.Add("bearer  x", "AAAA")
	f.Add("Bearer", "")
	f.Add("Basic abc", session[:40])
	parse := endpoint(f, newFace(f, "gnosispay", everything()), http.MethodGet, "/api/v1/cards/{cardId}/details").Parse
	param := func(string) string { return cardID }
	f.Fuzz(func(t *testing.T, authorization, sessionID string) {
		header := http.Header{"Authorization": {authorization}, "Sessionid": {sessionID}}
		c, err := parse(&exchange.Request{Header: header, Param: param})
		if err != nil {
			failed(t, err, authorization, sessionID)
			return
		}
		if len(c.Credentials) != 1 || c.Credentials[0].Kind != policy.KindToken || c.Credentials[0].Value() == "" ||
			authorization[len("Bearer "):] != c.Credentials[0].Value() || !strings.EqualFold(authorization[:len("Bearer ")], "Bearer ") {
			t.Fatalf("%q is taken for %v", authorization, c.Credentials)
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(sessionID)
		if err != nil || len(raw) == 0 || len(raw) > 256 || base64.StdEncoding.EncodeToString(raw) != sessionID {
			t.Fatalf("sessionid %q is accepted", sessionID)
		}
		if !c.Preamble.Present() || c.SessionHash != exchange.SessionHash(sessionID) {
			t.Fatal("no session, or another one's hash")
		}
	})
}

// FuzzExaCard: whatever stands in cookie, sessionid and query, an accepted call has exactly one cookie whose value is the
// text between "credential_id=" and the next semicolon, no scope, and details if and only if there is a session.
func FuzzExaCard(f *testing.F) {
	f.Add("credential_id="+signed, "", "")
	f.Add("credential_id="+signed, session, "a=b")
	f.Add("a=b; credential_id=x; credential_id=y", "AAAA", "scope=siwe")
	f.Add(`credential_id="quoted"`, "", "%73cope")
	f.Add(" ; credential_id = x", "", ";scope=siwe")
	parse := endpoint(f, newFace(f, "exa", everything()), http.MethodGet, "/api/card").Parse
	f.Fuzz(func(t *testing.T, cookies, sessionID, query string) {
		header := http.Header{"Cookie": {cookies}}
		if sessionID != "" {
			header.Set("Sessionid", sessionID)
		}
		c, err := parse(&exchange.Request{Header: header, RawQuery: query})
		if err != nil {
			failed(t, err, cookies, sessionID)
			return
		}
		if strings.Contains(query, "scope") && strings.Contains("&"+query, "&scope") {
			t.Fatalf("query %q passes", query)
		}
		if len(c.Credentials) != 1 || c.Credentials[0].Kind != policy.KindCookie {
			t.Fatalf("%v", c.Credentials)
		}
		found := 0
		for part := range strings.SplitSeq(cookies, ";") {
			name, value, _ := strings.Cut(strings.Trim(part, " \t"), "=")
			if strings.TrimRight(name, " \t") != "credential_id" {
				continue
			}
			found++
			if strings.Trim(value, ` "`) != strings.Trim(c.Credentials[0].Value(), ` "`) {
				t.Fatalf("%q is taken for %q", cookies, c.Credentials[0].Value())
			}
		}
		if found != 1 {
			t.Fatalf("%q names the user %d times", cookies, found)
		}
		if c.Preamble.Present() != (sessionID != "") || c.Has(policy.CardReveal) != c.Preamble.Present() || c.Card != "" {
			t.Fatalf("session %t, operations %v, card %q", c.Preamble.Present(), c.Operations, c.Card)
		}
	})
}

// FuzzRender: what is rendered is valid JSON whatever texts an issuer put into a card, invalid UTF-8 included, and reads
// back as those texts.
func FuzzRender(f *testing.F) {
	f.Add("Ada", "1111", "12", "2030", "402", int64(5))
	f.Add("a\"},{\"pan\":\"4111", "\xff\xfe", "\u2028", "</script>", "\x00", int64(-1))
	gnosis := endpoint(f, newFace(f, "gnosispay", everything()), http.MethodGet, "/api/v1/cards/{cardId}/details")
	mints := endpoint(f, newFace(f, "gnosispay", everything()), http.MethodPost, "/api/v1/ephemeral-token")
	exa := endpoint(f, newFace(f, "exa", everything()), http.MethodGet, "/api/card")
	f.Fuzz(func(t *testing.T, holder, last, month, year, product string, amount int64) {
		res := &exchange.Result{
			Card: exchange.Card{
				ID: product, LastFour: last, ExpiryMonth: month, ExpiryYear: year, Holder: holder, Product: product,
				Limit: exchange.Limit{Amount: amount, Frequency: last},
			},
			PAN: sealed("pan"), CVC: sealed("cvc"), Token: holder, Expires: time.Unix(amount%(1<<33), 0),
		}
		read := func(e face.Endpoint, into any) {
			t.Helper()
			var out exchange.Response
			e.Render(&exchange.Call{Operations: []policy.Operation{policy.CardReveal}}, res, &out)
			if !utf8.Valid(out.Body) || !json.Valid(out.Body) {
				t.Fatalf("not JSON: %q", out.Body)
			}
			if err := json.Unmarshal(out.Body, into); err != nil {
				t.Fatalf("%v: %s", err, out.Body)
			}
		}
		same := func(got, sent string) {
			t.Helper()
			if utf8.ValidString(sent) && got != sent {
				t.Fatalf("%q became %q", sent, got)
			}
		}
		var g struct {
			Data struct {
				ExpirationMonth, ExpirationYear, LastFour string
				EncryptedPAN                              struct{ Data, IV string }
			}
		}
		read(gnosis, &g)
		same(g.Data.ExpirationMonth, month)
		same(g.Data.ExpirationYear, year)
		same(g.Data.LastFour, last)
		same(g.Data.EncryptedPAN.Data, "panData==")
		var e struct {
			CardID, DisplayName, ExpirationMonth, ExpirationYear, LastFour, ProductID string
			Limit                                                                     struct {
				Amount    int64
				Frequency string
			}
		}
		read(exa, &e)
		same(e.CardID, product)
		same(e.DisplayName, holder)
		same(e.ExpirationMonth, month)
		same(e.LastFour, last)
		same(e.ProductID, product)
		same(e.Limit.Frequency, last)
		if e.Limit.Amount != amount {
			t.Fatalf("%d became %d", amount, e.Limit.Amount)
		}
		var m struct {
			Data struct{ EphemeralToken, ExpiresAt string }
		}
		read(mints, &m)
		same(m.Data.EphemeralToken, holder)
		if at, err := time.Parse(time.RFC3339, m.Data.ExpiresAt); err != nil || !at.Equal(res.Expires) || !strings.HasSuffix(m.Data.ExpiresAt, "Z") {
			t.Fatalf("expiry %v became %q (%v)", res.Expires, m.Data.ExpiresAt, err)
		}
	})
}
