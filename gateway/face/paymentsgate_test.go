package face_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

const accountID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"

// publicPEM is the file whose base64 clients send. Nobody has its private half.
const publicPEM = `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0pW+3MNCdrTBfEGmpTKd
ljIvs1vPAmV1pgti46YIbRtDOgaBM1RM8n8WcAZ6ZSspvrZpi4ooUmVyClbnJFGU
bthhGJ+MVnEwx49+YE5RySyAUOx+PuijQrHD6Tghf/6yN87sZErLjXd676b6FRCv
Q4A6Tt0ZpMtmALionndL+A9ptlvgdB/mdd6+rNVN6K9R150Iq5QxFXczxT7L6ZBx
6uxDjV5T6r43jZhCLef7x+cz9octbnUBpvXLPgsGHSx8m47q/5kWHumbMO9XrVro
eUXmtITx1t30mHAqsbSM2LY6D7uJurfig3W0y7EZnd7BOPh2aJ8cP9P/+XW3JzCZ
+wIDAQAB
-----END PUBLIC KEY-----
`

const (
	jwks      = `{"keys":[]}`
	assertion = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJhIn0.c2lnbmF0dXJl"
	bearerOf  = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
)

var publicKey = base64.StdEncoding.EncodeToString([]byte(publicPEM))

// readPublicKey keeps the contract of Config.PublicKey.
func readPublicKey(text string) (spki [32]byte, err error) {
	file, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return spki, face.ErrPublicKey
	}
	switch block, _ := pem.Decode(file); {
	case block == nil:
		return spki, face.ErrPublicKey
	case block.Type != "PUBLIC KEY":
		return spki, face.ErrPrivateKey
	default:
		return sha256.Sum256(block.Bytes), nil
	}
}

// post is a call with some headers and a JSON body.
func post(path, headers, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\nHost: api.example\nContent-Type: application/json\n%sContent-Length: %d\n\n%s", path, headers, len(body), body)
}

func logIn(members string) string { return post("/auth/token", "", "{"+members+"}") }

func refresh(headers, body string) string { return post("/auth/token/refresh", headers, body) }

var (
	withAccount = `"account_id":"` + accountID + `"`
	withKey     = `"public_key":"` + publicKey + `"`
	withBoth    = withAccount + "," + withKey
	withType    = `"client_assertion_type":"` + bearerOf + `"`
	asserted    = withType + `,"client_assertion":"` + assertion + `"`
)

var paymentsGateRequests = []named{
	{"login", logIn(withBoth)},
	{"login: a published client", "POST /auth/token HTTP/1.1\nHost: api.example\nOrigin: https://api.example\nAccept-Encoding: deflate\n" +
		"Content-Type: application/json\nTransfer-Encoding: chunked\n\n" + fmt.Sprintf("%x\n{%s}\n0\n\n", len(withBoth)+2, withBoth)},
	{"login: account in upper case", logIn(`"account_id":"` + strings.ToUpper(accountID) + `",` + withKey)},
	{"login: the published sample's account", logIn(`"account_id":"00000000-0000-4000-0000-000000000000",` + withKey)},
	{"login: members that are none of ours", logIn(withBoth + `,"lang":"en","nested":{"public_key":[null]}`)},
	{"login: a charset", strings.Replace(logIn(withBoth), "/json", "/json; charset=utf-8", 1)},
	{"login: a bearer is ignored", post("/auth/token", bearer, "{"+withBoth+"}")},
	{"login: signed", post("/auth/token", "api-signature: c2lnbmVk\n", "{"+withBoth+"}")},
	{"login: signature empty is none", post("/auth/token", "api-signature: \n", "{"+withBoth+"}")},
	{"login: assertion in place of the key", logIn(withAccount + "," + asserted)},
	{"login: assertion and key", logIn(withBoth + "," + asserted)},

	{"login: an account that is no UUID", logIn(`"account_id":"acme",` + withKey)},
	{"login: an account in braces", logIn(`"account_id":"{` + accountID + `}",` + withKey)},
	{"login: an account without hyphens", logIn(`"account_id":"` + strings.ReplaceAll(accountID, "-", "") + `",` + withKey)},
	{"login: an account with a hyphen elsewhere", logIn(`"account_id":"a0eebc999-c0b-4ef8-bb6d-6bb9bd380a11",` + withKey)},
	{"login: an account with a digit for a hyphen", logIn(`"account_id":"a0eebc9909c0b-4ef8-bb6d-6bb9bd380a11",` + withKey)},
	{"login: an account that is longer", logIn(`"account_id":"` + accountID + `1",` + withKey)},
	{"login: an account of other letters", logIn(`"account_id":"g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",` + withKey)},
	{"login: an account of other digits", logIn(`"account_id":"٠` + accountID[2:] + `",` + withKey)},

	{"login: no account", logIn(withKey)},
	{"login: empty account", logIn(`"account_id":"",` + withKey)},
	{"login: null account", logIn(`"account_id":null,` + withKey)},
	{"login: account as a number", logIn(`"account_id":1,` + withKey)},
	{"login: a card number for an account", logIn(`"account_id":"4111111111111111",` + withKey)},
	{"login: no key", logIn(withAccount)},
	{"login: null key", logIn(withAccount + `,"public_key":null`)},
	{"login: null key beside an assertion", logIn(withAccount + `,"public_key":null,` + asserted)},
	{"login: empty key", logIn(withAccount + `,"public_key":""`)},
	{"login: empty key beside an assertion", logIn(withAccount + `,"public_key":"",` + asserted)},
	{"login: a key that is none", logIn(withAccount + `,"public_key":"bm90IGEga2V5"`)},
	{"login: a key as it stands in its file", logIn(withAccount + `,"public_key":"` + strings.ReplaceAll(publicPEM, "\n", `\n`) + `"`)},
	{"login: a private key", logIn(withAccount + `,"public_key":"` + base64.StdEncoding.EncodeToString([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")) + `"`)},
	{"login: a signature alone", post("/auth/token", "api-signature: c2lnbmVk\n", "{"+withAccount+"}")},
	{"login: two signatures", post("/auth/token", "api-signature: a\napi-signature: a\n", "{"+withBoth+"}")},
	{"login: signature and assertion", post("/auth/token", "api-signature: a\n", "{"+withAccount+","+asserted+"}")},
	{"login: assertion without a type", logIn(withBoth + `,"client_assertion":"` + assertion + `"`)},
	{"login: assertion of another type", logIn(withBoth + `,"client_assertion_type":"saml2-bearer","client_assertion":"` + assertion + `"`)},
	{"login: type without an assertion", logIn(withBoth + "," + withType)},
	{"login: empty assertion", logIn(withBoth + "," + withType + `,"client_assertion":""`)},
	{"login: null assertion", logIn(withBoth + "," + withType + `,"client_assertion":null`)},
	{"login: member twice", logIn(withBoth + "," + withAccount)},
	{"login: an unknown member twice", logIn(withBoth + `,"a":1,"a":2`)},
	{"login: member in another case is another", logIn(`"Account_ID":"` + accountID + `",` + withKey)},
	{"login: empty", post("/auth/token", "", "")},
	{"login: a list", post("/auth/token", "", "[]")},
	{"login: null", post("/auth/token", "", "null")},
	{"login: cut off", post("/auth/token", "", "{"+withBoth)},
	{"login: another type", strings.Replace(logIn(withBoth), "application/json", "text/plain", 1)},
	{"login: GET", "GET /auth/token HTTP/1.1\nHost: api.example\n\n"},

	{"refresh", refresh("", `{"refresh_token":"`+token+`"}`)},
	{"refresh: an access token, whatever it is", refresh("Authorization: Bearer expired\n", `{"refresh_token":"`+token+`"}`)},
	{"refresh: nonsense for an authorization", refresh("Authorization: \nAuthorization: x\n", `{"refresh_token":"`+token+`"}`)},
	{"refresh: a member that is none of ours", refresh("", `{"grant_type":"refresh_token","refresh_token":"`+token+`"}`)},
	{"refresh: no token", refresh(bearer, `{}`)},
	{"refresh: empty token", refresh(bearer, `{"refresh_token":""}`)},
	{"refresh: null token", refresh(bearer, `{"refresh_token":null}`)},
	{"refresh: token twice", refresh("", `{"refresh_token":"a","refresh_token":"b"}`)},
	{"refresh: empty", refresh(bearer, "")},
	{"refresh: another type", strings.Replace(refresh("", `{"refresh_token":"a"}`), "application/json", "text/plain", 1)},

	{"revoke", post("/auth/token/revoke", "", `{"refresh_token":"`+token+`"}`)},
	{"revoke: no token", post("/auth/token/revoke", bearer, `{}`)},

	{"validate", "GET /auth/token/validate HTTP/1.1\nHost: api.example\n" + bearer + "\n"},
	{"validate: trailing question mark", "GET /auth/token/validate? HTTP/1.1\nHost: api.example\n" + bearer + "\n"},
	{"validate: no token", "GET /auth/token/validate HTTP/1.1\nHost: api.example\n\n"},
	{"validate: two tokens", "GET /auth/token/validate HTTP/1.1\nHost: api.example\n" + bearer + bearer + "\n"},
	{"validate: a body", "GET /auth/token/validate HTTP/1.1\nHost: api.example\nContent-Length: 2\n" + bearer + "\n{}"},
}

// describeForwards adds what a call of a face with accounts and forward routes has beside others'.
func describeForwards(t *testing.T, f face.Face, requests []named) string {
	t.Helper()
	s := newServer(f)
	var b strings.Builder
	for _, r := range requests {
		e, c, err := s.parse(t, r.raw)
		fmt.Fprintf(&b, "== %s\n%s", r.name, describe(e, c, err))
		if failure, ok := errors.AsType[*exchange.Failure](err); ok && failure.At.In != "" {
			fmt.Fprintf(&b, "at %s %q\n", failure.At.In, failure.At.Name)
		}
		if c != nil {
			b.WriteString(forwarded(c))
		}
		b.WriteByte('\n')
	}
	return strings.NewReplacer(session, "<the sessionid>", fmt.Sprintf("%x", exchange.SessionHash(session)), "<hash of the sessionid>").Replace(b.String())
}

func forwarded(c *exchange.Call) string {
	var b strings.Builder
	if c.Account != "" {
		fmt.Fprintf(&b, "account %q\n", c.Account)
	}
	if c.Assertion {
		b.WriteString("the signature is over an assertion\n")
	}
	if f := c.Forward; f != nil {
		fmt.Fprintf(&b, "forward %s: %s ? %q sealed %t\n", f.Call.Name, f.Path, f.Query, f.Sealed)
		if f.Body != nil {
			digest, err := f.Body.Digest(vault.CanonRaw)
			fmt.Fprintf(&b, "body of SHA-256 %x, %v\n", digest[:8], err)
		}
	}
	if c.IdempotencyKey != "" {
		fmt.Fprintf(&b, "idempotency key %q\n", c.IdempotencyKey)
	}
	return b.String()
}

func TestPaymentsGateRequests(t *testing.T) {
	golden(t, "paymentsgate.requests.golden", describeForwards(t, newFace(t, "paymentsgate", everything()), paymentsGateRequests))
}

// TestPaymentsGateAnswers: word for word what the contract says.
func TestPaymentsGateAnswers(t *testing.T) {
	f := newFace(t, "paymentsgate", everything())
	tokens := exchange.Result{Token: "a.b.c", Refresh: `r"1`, Account: accountID}
	for _, test := range []struct {
		method, pattern string
		left            time.Duration
		want            string
	}{
		{"POST", "/auth/token", time.Hour, `{"access_token":"a.b.c","refresh_token":"r\"1","expires_in":3600}`},
		{"POST", "/auth/token", time.Hour - 400*time.Millisecond, `{"access_token":"a.b.c","refresh_token":"r\"1","expires_in":3600}`},
		{"POST", "/auth/token/refresh", 90 * time.Second, `{"access_token":"a.b.c","refresh_token":"r\"1","expires_in":90}`},
		{"POST", "/auth/token/refresh", -time.Hour, `{"access_token":"a.b.c","refresh_token":"r\"1","expires_in":0}`},
		{"POST", "/auth/token/revoke", 0, `{}`},
	} {
		tokens.Expires = time.Now().Add(test.left)
		if got := answer(t, f, test.method, test.pattern, &exchange.Call{}, &tokens); got != test.want {
			t.Errorf("%s %s: %s\nwant %s", test.method, test.pattern, got, test.want)
		}
	}
	tokens.Expires = time.Date(2026, 11, 23, 13, 4, 5, 999_999_999, time.FixedZone("", 3600))
	want := fmt.Sprintf(`{"account_id":"%s","exp":1795435445}`, accountID)
	if got := answer(t, f, "GET", "/auth/token/validate", &exchange.Call{}, &tokens); got != want {
		t.Errorf("validate: %s\nwant %s", got, want)
	}
}

// TestPaymentsGateRefreshHeals: published clients log in anew at a 401 that is no JSON, and at nothing else.
func TestPaymentsGateRefreshHeals(t *testing.T) {
	f := newFace(t, "paymentsgate", everything())
	e := endpoint(t, f, http.MethodPost, "/auth/token/refresh")
	for _, kind := range exchange.Kinds() {
		at := exchange.Place{In: "body", Name: "refresh_token"}
		var refresh, other exchange.Response
		refresh.Body = []byte("left over")
		e.Fail(kind, at, &refresh)
		f.Fail(kind, at, &other)
		if other.Status == http.StatusUnauthorized || kind == exchange.Forbidden {
			if refresh.Status != http.StatusUnauthorized || !strings.HasPrefix(refresh.ContentType, "text/plain") || string(refresh.Body) != "Unauthorized" {
				t.Errorf("%s: %d %s %s", kind, refresh.Status, refresh.ContentType, refresh.Body)
			}
		} else if refresh.Status != other.Status || refresh.ContentType != other.ContentType || string(refresh.Body) != string(other.Body) {
			t.Errorf("%s: %d %s %s", kind, refresh.Status, refresh.ContentType, refresh.Body)
		}
	}
	for _, e := range f.Endpoints() {
		if e.Fail != nil && e.Pattern != "/auth/token/refresh" {
			t.Errorf("%s %s fails in its own way", e.Method, e.Pattern)
		}
	}
}

// TestPaymentsGateErrors: the form that clients read, with the status in it; a bad request says where.
func TestPaymentsGateErrors(t *testing.T) {
	f := newFace(t, "paymentsgate", everything())
	for _, kind := range exchange.Kinds() {
		var out exchange.Response
		f.Fail(kind, exchange.Place{}, &out)
		var said struct {
			Error, Message string
			StatusCode     int
		}
		if err := json.Unmarshal(out.Body, &said); err != nil || said.Error == "" || said.Message == "" || said.StatusCode != out.Status {
			t.Errorf("%s: %d %s", kind, out.Status, out.Body)
		}
	}
	for at, want := range map[exchange.Place]string{
		{}:                                    "Invalid request",
		{In: "body"}:                          "Invalid request: body",
		{In: "body", Name: "public_key"}:      "Invalid request: body public_key",
		{In: "header", Name: "api-signature"}: "Invalid request: header api-signature",
		{In: "body", Name: "canonical"}:       "Invalid request: a signed body has arrays, nulls or numbers without a canonical form",
		{In: "body", Name: "canonical_empty"}: "Invalid request: a signed body has no value that the signature is over",
	} {
		var out, other exchange.Response
		f.Fail(exchange.BadRequest, at, &out)
		if whole := `{"error":"BAD_REQUEST","message":"` + want + `","statusCode":400}`; string(out.Body) != whole || out.Status != 400 {
			t.Errorf("%+v: %d %s", at, out.Status, out.Body)
		}
		f.Fail(exchange.Unauthorized, at, &other)
		if strings.Contains(string(other.Body), "Invalid request") {
			t.Errorf("%+v shows in a 401: %s", at, other.Body)
		}
	}
}

// TestPaymentsGateJWKS: it stands there as it is, where there is one.
func TestPaymentsGateJWKS(t *testing.T) {
	e := endpoint(t, newFace(t, "paymentsgate", everything()), http.MethodGet, "/.well-known/jwks.json")
	var out exchange.Response
	e.Static(&exchange.Request{}, &out)
	if string(out.Body) != jwks || out.ContentType != "application/json" || e.Parse != nil || e.Render != nil || e.MaxBody != 0 {
		t.Errorf("%+v", e)
	}
	c := everything()
	c.JWKS = nil
	for _, e := range newFace(t, "paymentsgate", c).Endpoints() {
		if e.Static != nil || strings.Contains(e.Pattern, "jwks") {
			t.Errorf("a key set without keys: %s", e.Pattern)
		}
	}
}

func TestPaymentsGateNeedsAccounts(t *testing.T) {
	kind, err := face.Lookup("paymentsgate")
	if err != nil {
		t.Fatal(err)
	}
	if f, err := kind.New(face.Config{}); err == nil || f != nil {
		t.Errorf("%v, %v", f, err)
	}
	if !kind.Forwards || !kind.Takes(policy.KindJWT) || !kind.Takes(policy.KindPublicKey) || kind.Takes(policy.KindToken) {
		t.Errorf("%+v", kind)
	}
}

// TestPaymentsGateHasRoom: a login has room for a private key, which is to be told as one, and for no more than bodies have.
func TestPaymentsGateHasRoom(t *testing.T) {
	for _, e := range newFace(t, "paymentsgate", everything()).Endpoints() {
		if e.Shape == nil != (e.MaxBody == 0) {
			t.Errorf("%s %s: at most %d bytes, with a shape %t", e.Method, e.Pattern, e.MaxBody, e.Shape != nil)
		}
		if e.Shape == nil {
			continue
		}
		longest := append([]byte("{}"), bytes.Repeat([]byte{' '}, e.MaxBody-2)...)
		if _, err := vault.NewBody(longest, e.Shape); err != nil {
			t.Errorf("%s %s: no room for %d bytes: %v", e.Method, e.Pattern, e.MaxBody, err)
		}
		if e.Pattern == "/auth/token" && e.MaxBody < 4*6500/3 { // the PEM of 8192 bits, in base64
			t.Errorf("no room for a private key: %d", e.MaxBody)
		}
	}
}

// FuzzPaymentsGateLogin: a body that is accepted names, read by another parser, the same account and the same key, and an
// error quotes nothing of it.
func FuzzPaymentsGateLogin(f *testing.F) {
	for _, members := range []string{withBoth, withAccount + "," + asserted, withBoth + "," + asserted, `"account_id":"x"`, `"account_id":"\u0061` + accountID[1:] + `",` + withKey} {
		f.Add([]byte("{"+members+"}"), "")
		f.Add([]byte("{"+members+"}"), "c2lnbmVk")
	}
	e := endpoint(f, newFace(f, "paymentsgate", everything()), http.MethodPost, "/auth/token")
	f.Fuzz(func(t *testing.T, body []byte, signature string) {
		clear, err := vault.NewBody(slices.Clone(body), e.Shape)
		if err != nil {
			return // refused before it is parsed
		}
		defer clear.Close()
		c, err := e.Parse(&exchange.Request{Header: http.Header{"Content-Type": {"application/json"}, "Api-Signature": {signature}}, Clear: clear})
		if err != nil {
			failed(t, err, string(body), signature)
			return
		}
		var other struct {
			Account   string `json:"account_id"`
			Key       string `json:"public_key"`
			Assertion string `json:"client_assertion"`
		}
		var members map[string]json.RawMessage // exactly these names, for encoding/json takes any case
		if err := json.Unmarshal(body, &members); err != nil {
			t.Fatalf("%q is accepted: %v", body, err)
		}
		for name, into := range map[string]*string{"account_id": &other.Account, "public_key": &other.Key, "client_assertion": &other.Assertion} {
			if raw, ok := members[name]; ok && json.Unmarshal(raw, into) != nil {
				t.Fatalf("%q is accepted", body)
			}
		}
		if !strings.EqualFold(c.Account, other.Account) || c.Account != strings.ToLower(c.Account) || len(c.Account) != 36 {
			t.Fatalf("%q is of account %q", body, c.Account)
		}
		var want []string
		if other.Key != "" {
			spki, err := readPublicKey(other.Key)
			if err != nil {
				t.Fatalf("%q is accepted with a key that is none", body)
			}
			want = append(want, fmt.Sprintf("%x", spki))
		}
		if second := other.Assertion + signature; second != "" {
			want = append(want, second)
		}
		var got []string
		for _, credential := range c.Credentials {
			got = append(got, credential.Value())
		}
		if !slices.Equal(got, want) || len(want) == 0 || c.Assertion != (other.Assertion != "") {
			t.Fatalf("%q presents %q, want %q", body, got, want)
		}
	})
}
