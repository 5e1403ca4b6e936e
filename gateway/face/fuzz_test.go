package face_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
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
	case exchange.BadRequest, exchange.BadSession, exchange.Unauthorized, exchange.UnsupportedMedia, exchange.ChallengeMissing:
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
// text between "credential_id=" and the next semicolon, asks for what the query's scopes are and nothing else, and for details
// if and only if there is a session.
func FuzzExaCard(f *testing.F) {
	f.Add("credential_id="+signed, "", "")
	f.Add("credential_id="+signed, session, "a=b")
	f.Add("a=b; credential_id=x; credential_id=y", "AAAA", "scope=siwe")
	f.Add(`credential_id="quoted"`, "", "%73cope")
	f.Add(" ; credential_id = x", "", ";scope=siwe")
	f.Add("credential_id=x", "", "scope=siwe&scope=provisioning&scope=siwe")
	f.Add("credential_id=x", "AAAA", "scope=webauthn&sc%6fpe=siwe")
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
		want := []policy.Operation{policy.CardProfile}
		if sessionID != "" {
			want = append(want, policy.CardReveal, policy.PINReveal)
		}
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatalf("query %q is accepted: %v", query, err)
		}
		scopes := map[string]bool{}
		for _, scope := range values["scope"] {
			scopes[scope] = true
		}
		if scopes["provisioning"] {
			want = append(want, policy.CardProvision)
		}
		if c.Challenge.Method != "" {
			want = append(want, policy.ChallengeMint)
			if !scopes[c.Challenge.Method] {
				t.Fatalf("query %q is taken for %s", query, c.Challenge.Method)
			}
		}
		delete(scopes, "provisioning")
		delete(scopes, c.Challenge.Method)
		if len(scopes) > 0 || !slices.Equal(c.Operations, want) || c.Challenge.User != "" {
			t.Fatalf("query %q: %v, and of scopes %v is left", query, c.Operations, scopes)
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

// rewritten is an object of some of the members that another reader found, which takes the last of two.
func rewritten(t *testing.T, body []byte, names ...string) (map[string]json.RawMessage, []byte) {
	t.Helper()
	var other map[string]json.RawMessage
	if err := json.Unmarshal(body, &other); err != nil {
		t.Fatalf("accepted %q, which is not JSON: %v", body, err)
	}
	b := []byte{'{'}
	for _, name := range names {
		if other[name] == nil {
			t.Fatalf("%q is accepted without %s", body, name)
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), name+`":`...), other[name]...)
	}
	return other, append(b, '}')
}

// same checks that two calls ask for the same, on the same credentials.
func same(t *testing.T, one, other *exchange.Call) {
	t.Helper()
	if len(one.Credentials) != len(other.Credentials) {
		t.Fatalf("%v and %v", one.Credentials, other.Credentials)
	}
	for i, c := range one.Credentials {
		if o := other.Credentials[i]; c.Kind != o.Kind || c.Value() != o.Value() {
			t.Fatalf("%s %q and %s %q", c.Kind, c.Value(), o.Kind, o.Value())
		}
	}
	a, b := *one, *other
	a.Credentials, b.Credentials = nil, nil
	a.Preamble, b.Preamble = vault.Preamble{}, vault.Preamble{} // of which SessionHash is the text
	if one.Preamble.Present() != other.Preamble.Present() || !reflect.DeepEqual(a, b) {
		t.Fatalf("%+v and %+v", a, b)
	}
}

// FuzzExaPatch: a body that is accepted is one form, says to another reader exactly what it says to us, and written anew with
// the members of its form alone is the same call.
func FuzzExaPatch(f *testing.F) {
	for _, r := range []string{
		`{"status":"DELETED"}`, `{"mode":7}`, `{"mode":1.0}`, `{"data":"AA==","iv":"BB==","sessionId":"` + session + `"}`,
		`{"method":"siwe","message":"` + siwe + `","signature":"0x0a"}`, `{"method":"webauthn","assertion":` + passkey + `,"x":[]}`,
		`{"status":"ACTIVE","status":"FROZEN"}`, `{"method":"siwe","assertion":{},"status":"ACTIVE"}`, "null", `{"st\u0061tus":"ACTIVE","Mode":1}`,
	} {
		f.Add([]byte(r))
	}
	parse := endpoint(f, newFace(f, "exa", everything()), http.MethodPatch, "/api/card").Parse
	header := http.Header{"Content-Type": {"application/json"}, "Cookie": {"credential_id=" + signed}}
	forms := map[policy.Operation][]string{
		policy.CardStatus: {"status"}, policy.CardMode: {"mode"}, policy.PINSet: {"data", "iv", "sessionId"}, policy.CardLink: {"method"},
	}
	all := []string{"status", "mode", "data", "iv", "sessionId", "method", "message", "signature", "assertion"}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parse(&exchange.Request{Header: header, Body: body})
		if err != nil {
			failed(t, err, string(body), session)
			return
		}
		if len(c.Operations) != 1 || c.Credentials[0].Kind != policy.KindCookie || c.Credentials[0].Value() != signed {
			t.Fatalf("%+v", c)
		}
		form := forms[c.Operations[0]]
		if c.Operations[0] == policy.CardLink {
			form = map[string][]string{"siwe": {"method", "message", "signature"}, "webauthn": {"method", "assertion"}}[c.Signed.Method]
		}
		other, again := rewritten(t, body, form...)
		for name := range other {
			if known := slices.Contains(form, name); !known && (slices.Contains(all, name) || c.Operations[0] != policy.CardLink) {
				t.Fatalf("%q is %v, with %s", body, c.Operations, name)
			}
		}
		text := func(name string) (s string) {
			if err := json.Unmarshal(other[name], &s); err != nil {
				t.Fatalf("%s of %q: %v", name, body, err)
			}
			return s
		}
		number := json.Number(other["mode"])
		if mode, err := number.Int64(); c.Has(policy.CardMode) && (err != nil || int64(c.Mode) != mode || mode < 0 || mode > 1<<31-1) {
			t.Fatalf("%q sets mode %d", body, c.Mode)
		}
		if c.Has(policy.PINSet) && (c.PIN.Data != text("data") || c.PIN.IV != text("iv") || c.SessionHash != exchange.SessionHash(text("sessionId"))) {
			t.Fatalf("%q sets %+v", body, c.PIN)
		}
		if c.Signed.Method == policy.MethodSIWE && (c.Signed.Message != text("message") || c.Signed.Signature != text("signature") || text("method") != "siwe") ||
			c.Signed.Method == policy.MethodWebAuthn && (string(c.Signed.Assertion) != string(other["assertion"]) || text("method") != "webauthn") {
			t.Fatalf("%q is signed as %+v", body, c.Signed)
		}
		second, err := parse(&exchange.Request{Header: header, Body: again})
		if err != nil {
			t.Fatalf("%q is accepted, and %q is not: %v", body, again, err)
		}
		same(t, c, second)
	})
}

// FuzzExaLogin: a login that is accepted has one challenge, the same in cookie and header where both have one; its body says
// to another reader exactly what it says to us; and what is judged as an assertion is that body without its method.
func FuzzExaLogin(f *testing.F) {
	f.Add("session_id=abc", "", []byte(passkey))
	f.Add("", "abc", []byte(`{"method":"siwe","id":"`+wallet+`","signature":"0x0a"}`))
	f.Add("a=b; session_id=abc", "abc", []byte(`{"method":"webauthn",`+passkey[1:]))
	f.Add("session_id=abc", "abd", []byte(passkey))
	f.Add("session_id=", "", []byte(`{"id":"AA","id":"AQ"}`))
	parse := endpoint(f, newFace(f, "exa", everything()), http.MethodPost, "/api/auth/authentication").Parse
	f.Fuzz(func(t *testing.T, cookies, sessionID string, body []byte) {
		header := http.Header{"Content-Type": {"application/json"}, "Cookie": {cookies}}
		if sessionID != "" {
			header.Set("X-Session-Id", sessionID)
		}
		c, err := parse(&exchange.Request{Header: header, Body: body})
		if err != nil {
			failed(t, err, cookies, sessionID, string(body))
			return
		}
		id := c.Credentials[0].Value()
		if len(c.Credentials) != 1 || id == "" || sessionID != "" && id != sessionID || sessionID == "" && !strings.Contains(cookies, "session_id="+id) ||
			!slices.Equal(c.Operations, []policy.Operation{policy.SessionMint}) || c.Card != "" || c.User != "" {
			t.Fatalf("%q and %q: %+v", cookies, sessionID, c)
		}
		form := []string{"id", "method", "signature"}
		if c.Signed.Method == policy.MethodWebAuthn {
			form = []string{"id", "rawId", "response", "clientExtensionResults", "type"}
		}
		other, again := rewritten(t, body, form...)
		var user string
		if err := json.Unmarshal(other["id"], &user); err != nil || user != c.Signed.User || c.Signed.Message != "" {
			t.Fatalf("%q is of %+v", body, c.Signed)
		}
		if c.Signed.Method == policy.MethodWebAuthn {
			var asserted map[string]json.RawMessage
			if err := json.Unmarshal(c.Signed.Assertion, &asserted); err != nil {
				t.Fatalf("%q: %v", c.Signed.Assertion, err)
			}
			delete(other, "method")
			if !reflect.DeepEqual(asserted, other) {
				t.Fatalf("%q asserts %q", body, c.Signed.Assertion)
			}
			if other["authenticatorAttachment"] != nil {
				return
			}
		}
		second, err := parse(&exchange.Request{Header: header, Body: again})
		if err != nil {
			t.Fatalf("%q is accepted, and %q is not: %v", body, again, err)
		}
		same(t, c, second)
	})
}

// FuzzExaChallenge: a challenge is for the id that the query names, letter by letter, and for nothing else: a wallet's where it
// has the form of an address, or a passkey's, which has one spelling.
func FuzzExaChallenge(f *testing.F) {
	f.Add("credentialId=" + wallet)
	f.Add("credentialId=AAECAwQFBgc&credentialId=")
	f.Add("credential%49d=AA%0a")
	f.Add("a=b;c")
	f.Add("")
	address := regexp.MustCompile(`^0x[0-9a-fA-F]{40}$`)
	parse := endpoint(f, newFace(f, "exa", everything()), http.MethodGet, "/api/auth/authentication").Parse
	f.Fuzz(func(t *testing.T, query string) {
		c, err := parse(&exchange.Request{RawQuery: query, Header: http.Header{}})
		if err != nil {
			failed(t, err, query)
			return
		}
		values, err := url.ParseQuery(query)
		ids := values["credentialId"]
		if err != nil || len(ids) > 1 || len(ids) == 1 && ids[0] == "" || strings.Join(ids, "") != c.Challenge.User || len(c.Credentials) != 0 {
			t.Fatalf("query %q is accepted for %+v: %v", query, c.Challenge, err)
		}
		if (c.Challenge.Method == policy.MethodSIWE) != address.MatchString(c.Challenge.User) {
			t.Fatalf("%q signs as %s", c.Challenge.User, c.Challenge.Method)
		}
		if c.Challenge.Method == policy.MethodWebAuthn {
			raw, err := base64.RawURLEncoding.DecodeString(c.Challenge.User)
			if err != nil || base64.RawURLEncoding.EncodeToString(raw) != c.Challenge.User || len(c.Challenge.User) > 512 {
				t.Fatalf("%q is taken for a passkey's id", c.Challenge.User)
			}
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
