package face_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

const (
	customerID    = "cust-1"
	bridgePath    = "/v0/customers/" + customerID + "/card_accounts/" + cardID
	bridgePattern = "/v0/customers/{customerId}/card_accounts/{cardAccountId}"
	partnerKey    = "cs_test_AAAAbW9zdC1wcm9iYWJseS1hbi1hcGkta2V5LW9mLTQ"

	// The contract's vector: made from what the published clients do.
	clientSecret    = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	clientTimestamp = "1700000000"
	clientNonce     = "sj3/w7/DRdx2JX8KuF+ZAi3UduRhbQKO0Vl29RlimvY="
)

// backend is a call of a partner's backend, with its key and a body of stated length.
func backend(method, path, headers, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\nHost: localhost\nApi-Key: %s\n%sContent-Length: %d\n\n%s", method, path, partnerKey, headers, len(body), body)
}

func mintKey(headers, body string) string {
	return backend("POST", bridgePath+"/ephemeral_keys", typeJSON+headers, body)
}

func nonceOf(text string) string { return `{"client_nonce":"` + text + `"}` }

func freeze(body string) string { return backend("POST", bridgePath+"/freeze", typeJSON, body) }

// reveal is a reveal with a query and some headers.
func reveal(query, headers string) string {
	return "GET /v0/card_details" + query + " HTTP/1.1\nHost: localhost\nOrigin: https://app.example\n" + headers + "\n"
}

const (
	secretHeader    = "cardstile-client-secret: " + clientSecret + "\n"
	timestampHeader = "cardstile-client-timestamp: " + clientTimestamp + "\n"
	querySecret     = "?secret=" + clientSecret
	queryTimestamp  = "timestamp=" + clientTimestamp
	queryProof      = querySecret + "&" + queryTimestamp
)

var bridgeRequests = []named{
	{"mint", mintKey("Idempotency-Key: 5a3c\n", nonceOf(clientNonce))},
	{"mint: chunked, without an idempotency key", "POST " + bridgePath + "/ephemeral_keys HTTP/1.1\nHost: localhost\napi-key: " + partnerKey + "\n" + typeJSON +
		"Transfer-Encoding: chunked\n\n3f\n" + nonceOf(clientNonce) + "\n0\n\n"},
	{"mint: a trailing question mark", strings.Replace(mintKey("", nonceOf(clientNonce)), " HTTP", "? HTTP", 1)},
	{"mint: escaped ids", strings.NewReplacer(customerID, "a%2Fb", cardID, "c%20d").Replace(mintKey("", nonceOf(clientNonce)))},
	{"mint: a bearer beside the key is nobody's", mintKey(bearer, nonceOf(clientNonce))},
	{"mint: idempotency key of 255", mintKey("Idempotency-Key: "+strings.Repeat("~", 255)+"\n", nonceOf(clientNonce))},

	{"mint: no key", strings.Replace(mintKey("", nonceOf(clientNonce)), "Api-Key: "+partnerKey+"\n", "", 1)},
	{"mint: empty key", strings.Replace(mintKey("", nonceOf(clientNonce)), "Api-Key: "+partnerKey, "Api-Key: ", 1)},
	{"mint: two keys", mintKey("Api-Key: "+partnerKey+"\n", nonceOf(clientNonce))},
	{"mint: no key, and nothing right besides", "POST " + bridgePath + "/ephemeral_keys HTTP/1.1\nHost: localhost\nIdempotency-Key: \nContent-Length: 1\n\n{"},
	{"mint: two idempotency keys", mintKey("Idempotency-Key: a\nIdempotency-Key: a\n", nonceOf(clientNonce))},
	{"mint: empty idempotency key", mintKey("Idempotency-Key: \n", nonceOf(clientNonce))},
	{"mint: idempotency key of 256", mintKey("Idempotency-Key: "+strings.Repeat("~", 256)+"\n", nonceOf(clientNonce))},
	{"mint: idempotency key with a space", mintKey("Idempotency-Key: a b\n", nonceOf(clientNonce))},
	{"mint: idempotency key of other letters", mintKey("Idempotency-Key: \u00e4\n", nonceOf(clientNonce))},
	{"mint: no body", mintKey("", "")},
	{"mint: {}", mintKey("", "{}")},
	{"mint: null", mintKey("", "null")},
	{"mint: null nonce", mintKey("", `{"client_nonce":null}`)},
	{"mint: nonce of another type", mintKey("", `{"client_nonce":1}`)},
	{"mint: unknown member", mintKey("", `{"client_nonce":"`+clientNonce+`","ttl":1}`)},
	{"mint: duplicate member", mintKey("", `{"client_nonce":"`+clientNonce+`","client_nonce":"`+clientNonce+`"}`)},
	{"mint: member in another case", mintKey("", `{"Client_Nonce":"`+clientNonce+`"}`)},
	{"mint: two values", mintKey("", nonceOf(clientNonce)+"{}")},
	{"mint: nested deep", mintKey("", deep)},
	{"mint: a packed body", strings.Replace(mintKey("", nonceOf(clientNonce)), typeJSON, typeJSON+"Content-Encoding: gzip\n", 1)},
	{"mint: a body that says that it is not packed", strings.Replace(mintKey("", nonceOf(clientNonce)), typeJSON, typeJSON+"Content-Encoding: identity\n", 1)},
	{"mint: another type of body", strings.Replace(mintKey("", nonceOf(clientNonce)), typeJSON, "Content-Type: text/plain\n", 1)},
	{"mint: nonce in hex", mintKey("", nonceOf(clientSecret))},
	{"mint: nonce unpadded", mintKey("", nonceOf(clientNonce[:43]))},
	{"mint: nonce in the URL alphabet", mintKey("", nonceOf(strings.Replace(clientNonce, "/", "_", 1)))},
	{"mint: nonce with stray bits", mintKey("", nonceOf(clientNonce[:42]+"Z="))},
	{"mint: nonce with a line break", mintKey("", nonceOf(clientNonce+`\n`))},
	{"mint: nonce of 31 bytes", mintKey("", nonceOf(base64.StdEncoding.EncodeToString(make([]byte, 31))))},
	{"mint: nonce of 33 bytes", mintKey("", nonceOf(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 33))))},
	{"mint: nonce of zeros", mintKey("", nonceOf(base64.StdEncoding.EncodeToString(make([]byte, 32))))},
	{"mint: GET", strings.Replace(mintKey("", ""), "POST", "GET", 1)},

	{"reveal", reveal(queryProof, bearer)},
	{"reveal: the document's words", reveal("?clientSecret="+clientSecret+"&clientTimestamp="+clientTimestamp, bearer)},
	{"reveal: in headers", reveal("", bearer+secretHeader+timestampHeader)},
	{"reveal: one half in a header", reveal("?"+queryTimestamp, bearer+secretHeader)},
	{"reveal: escaped", reveal("?secret=%30"+clientSecret[1:]+"&"+queryTimestamp, bearer)},
	{"reveal: an API key beside is nobody's", reveal(queryProof, bearer+"Api-Key: x\n")},
	{"reveal: other parameters are nobody's", reveal(queryProof+"&v=1&v=2&", bearer)},
	{"reveal: any text is a secret", reveal("?secret=+%00%C3%A4&timestamp=yesterday", bearer)},

	{"reveal: no key", reveal(queryProof, "")},
	{"reveal: an API key alone", reveal(queryProof, "Api-Key: "+partnerKey+"\n")},
	{"reveal: two keys", reveal(queryProof, bearer+bearer)},
	{"reveal: no proof", reveal("", bearer)},
	{"reveal: no secret", reveal("?"+queryTimestamp, bearer)},
	{"reveal: no timestamp", reveal(querySecret, bearer)},
	{"reveal: empty secret", reveal("?secret=&"+queryTimestamp, bearer)},
	{"reveal: empty timestamp header", reveal(querySecret, bearer+"Cardstile-Client-Timestamp:\n")},
	{"reveal: words in another case", reveal("?Secret="+clientSecret+"&"+queryTimestamp, bearer)},
	{"reveal: secret twice", reveal(queryProof+"&secret="+clientSecret, bearer)},
	{"reveal: secret under both words", reveal(queryProof+"&clientSecret="+clientSecret, bearer)},
	{"reveal: secret in query and header", reveal(queryProof, bearer+secretHeader)},
	{"reveal: secret in two headers", reveal("?"+queryTimestamp, bearer+secretHeader+secretHeader)},
	{"reveal: timestamp twice", reveal(queryProof+"&"+queryTimestamp, bearer)},
	{"reveal: timestamp in query and header", reveal(queryProof, bearer+timestampHeader)},
	{"reveal: timestamp in two headers", reveal(querySecret, bearer+timestampHeader+timestampHeader)},
	{"reveal: twice, without a key", reveal(queryProof+"&"+queryTimestamp, "")},
	{"reveal: not a query", reveal(querySecret+"%zz&"+queryTimestamp, bearer)},
	{"reveal: semicolons", reveal(querySecret+";"+queryTimestamp, bearer)},
	{"reveal: a body", strings.Replace(reveal(queryProof, bearer+"Content-Length: 2\n"), "\n\n", "\n\n{}", 1)},
	{"reveal: POST", strings.Replace(reveal(queryProof, bearer), "GET", "POST", 1)},
	{"reveal: HEAD", strings.Replace(reveal(queryProof, bearer), "GET", "HEAD", 1)},

	{"account", backend("GET", bridgePath, "", "")},
	{"account: no key", "GET " + bridgePath + " HTTP/1.1\nHost: localhost\n" + bearer + "\n"},
	{"account: a body", backend("GET", bridgePath, "", "{}")},

	{"freeze: as documented", freeze(`{"initiator":"developer","reason":"lost_or_stolen","reason_detail":"in the sea"}`)},
	{"freeze: no body", freeze("")},
	{"freeze: no body, no type", strings.Replace(freeze(""), typeJSON, "Idempotency-Key: 5a3c\n", 1)},
	{"freeze: {}", freeze("{}")},
	{"unfreeze", backend("POST", bridgePath+"/unfreeze", typeJSON+"Idempotency-Key: 5a3c\n", `{"initiator":"customer"}`)},
	{"freeze: another initiator", freeze(`{"initiator":"bridge"}`)},
	{"freeze: another reason", freeze(`{"reason":"because"}`)},
	{"freeze: a reason of its own", freeze(`{"reason":"other","reason_detail":"` + strings.Repeat("é", 256) + `"}`)},
	{"freeze: a reason too long", freeze(`{"reason":"other","reason_detail":"` + strings.Repeat("x", 513) + `"}`)},
	{"freeze: a card number for a reason", freeze(`{"reason":"other","reason_detail":"card 4111 1111 1111 1111"}`)},
	{"freeze: begins later", freeze(`{"starting_at":"2030-01-01T00:00:00Z"}`)},
	{"freeze: ends by itself", freeze(`{"ending_at":"2030-01-01T00:00:00Z"}`)},
	{"freeze: unknown member", freeze(`{"status":"active"}`)},
	{"freeze: duplicate member", freeze(`{"reason":"a","reason":"b"}`)},
	{"freeze: null", freeze(`{"initiator":null}`)},
	{"freeze: another type of body", strings.Replace(freeze("{}"), typeJSON, "Content-Type: text/plain\n", 1)},
	{"freeze: two idempotency keys", strings.Replace(freeze(""), typeJSON, "Idempotency-Key: a\nIdempotency-Key: b\n", 1)},
	{"freeze: no key", strings.Replace(freeze(""), "Api-Key: "+partnerKey+"\n", "", 1)},
	{"pin: not offered", backend("POST", bridgePath+"/pin", "", "")},
}

// TestBridgeRequests: what becomes of each request, and what is answered to those that are refused.
func TestBridgeRequests(t *testing.T) {
	f := newFace(t, "bridge", everything())
	s := newServer(f)
	var b strings.Builder
	for _, r := range bridgeRequests {
		e, c, err := s.parse(t, r.raw)
		fmt.Fprintf(&b, "== %s\n%s", r.name, describe(e, c, err))
		switch failure, _ := errors.AsType[*exchange.Failure](err); {
		case failure != nil:
			out := refusal(f, e, failure)
			fmt.Fprintf(&b, "%d %s\n", out.Status, out.Body)
			for _, secret := range []string{clientSecret, clientTimestamp, clientNonce, partnerKey, token} {
				if strings.Contains(err.Error()+string(out.Body), secret) {
					t.Errorf("%s: the refusal quotes", r.name)
				}
			}
		case c != nil:
			for _, extra := range []struct{ name, value string }{{"user", c.User}, {"bound to user", c.Bind.User}, {"idempotency key", c.IdempotencyKey}} {
				if extra.value != "" {
					fmt.Fprintf(&b, "%s %q\n", extra.name, extra.value)
				}
			}
			for _, nonce := range []struct {
				name  string
				value [32]byte
			}{{"nonce", c.Nonce}, {"bound to nonce", c.Bind.Nonce}} {
				if nonce.value != [32]byte{} {
					fmt.Fprintf(&b, "%s %s\n", nonce.name, base64.StdEncoding.EncodeToString(nonce.value[:]))
				}
			}
			if c.Status != 0 {
				fmt.Fprintf(&b, "status %d\n", c.Status)
			}
		}
		b.WriteByte('\n')
	}
	golden(t, "bridge.requests.golden", b.String())
}

// refusal is what an endpoint answers to a failure.
func refusal(f face.Face, e *face.Endpoint, failure *exchange.Failure) *exchange.Response {
	fail := f.Fail
	if e.Fail != nil {
		fail = e.Fail
	}
	out := new(exchange.Response)
	fail(failure.Kind, failure.At, out)
	return out
}

// TestBridgeOffersWhatItCan: no reveal without the route's word that it is in clear [12], nothing that the route or its
// issuer does not serve; a mint is made once under its key, and pages call the reveal alone.
func TestBridgeOffersWhatItCan(t *testing.T) {
	only := func(ops ...policy.Operation) func(policy.Operation) bool {
		return func(op policy.Operation) bool { return slices.Contains(ops, op) }
	}
	const (
		mints    = "POST " + bridgePattern + "/ephemeral_keys once"
		reveals  = "GET /v0/card_details pages"
		accounts = "GET " + bridgePattern
		freezes  = "POST " + bridgePattern + "/freeze once, POST " + bridgePattern + "/unfreeze once"
	)
	for _, test := range []struct {
		name   string
		config face.Config
		want   string
	}{
		{"all", everything(), mints + ", " + reveals + ", " + accounts + ", " + freezes},
		{"not in clear", face.Config{SessionKeys: clientKeys()}, mints + ", " + accounts + ", " + freezes},
		{"mint alone", face.Config{Serves: only(policy.TokenMint)}, mints},
		{"reveal alone", face.Config{Clear: true, Serves: only(policy.CardReveal)}, reveals},
		{"profile alone", face.Config{Clear: true, Serves: only(policy.CardProfile)}, accounts},
		{"status alone", face.Config{Clear: true, Serves: only(policy.CardStatus)}, freezes},
		{"reveal, not in clear", face.Config{Serves: only(policy.CardReveal)}, ""},
	} {
		var got []string
		for _, e := range newFace(t, "bridge", test.config).Endpoints() {
			mark := ""
			if e.Idempotency != nil {
				mark = " once"
				if e.Idempotency.Keep != 24*time.Hour || e.Idempotency.Tombstone != 7*24*time.Hour {
					t.Errorf("%s: %+v", e.Pattern, e.Idempotency)
				}
			}
			if e.CORS != nil {
				mark += " pages"
				if !e.CORS.AnyOrigin || e.CORS.Credentials ||
					!slices.Equal(e.CORS.Headers, []string{"Authorization", "Content-Type", "Cardstile-Client-Secret", "Cardstile-Client-Timestamp"}) {
					t.Errorf("%s: %+v", e.Pattern, e.CORS)
				}
			}
			if (e.MaxBody > 0) != (e.Method == http.MethodPost) || e.Certificate {
				t.Errorf("%s: a body of %d", e.Pattern, e.MaxBody)
			}
			got = append(got, e.Method+" "+e.Pattern+mark)
		}
		if s := strings.Join(got, ", "); s != test.want {
			t.Errorf("%s: %s\nwant %s", test.name, s, test.want)
		}
	}
}

// inClear is a session of two legs in clear, and handles of what leaves by it.
func inClear(t testing.TB) (s *vault.Session, pan, cvc vault.Sealed) {
	t.Helper()
	v, err := vault.New(vault.Config{})
	check(err)
	s, err = v.Open(t.Context(), vault.Opening{Binding: make([]byte, 32), Client: vault.InsecureClearClient(), Issuer: vault.InsecureClearIssuer()})
	check(err)
	t.Cleanup(s.Close)
	shape, err := vault.NewShape(vault.ShapeConfig{Clear: map[string]vault.Field{"/n": vault.FieldPAN, "/c": vault.FieldCVC}})
	check(err)
	body, err := vault.NewBody([]byte(`{"n":"4111111111111111","c":"123"}`), shape)
	check(err)
	defer body.Close()
	leaves := func(f vault.Field, pointer string) vault.Sealed {
		handle, err := body.Field(pointer)
		check(err)
		handle, err = s.Reseal(f, vault.ToClient, handle)
		check(err)
		return handle
	}
	return s, leaves(vault.FieldPAN, "/n"), leaves(vault.FieldCVC, "/c")
}

// TestBridgeAnswers: word for word what the contract says, with number and code in the places that the vault fills.
func TestBridgeAnswers(t *testing.T) {
	f := newFace(t, "bridge", everything())
	s, pan, cvc := inClear(t)
	card := exchange.Card{
		ID: cardID, LastFour: "1111", ExpiryMonth: "03", ExpiryYear: "2030", Status: exchange.Active, Holder: "Ada King Lovelace",
		BIN: "411111", PINStatus: "set",
	}
	with := func(change func(*exchange.Card)) exchange.Card { c := card; change(&c); return c }
	at := time.Date(2026, 11, 25, 12, 0, 0, 5e6, time.UTC)
	frozen := &exchange.Call{Card: cardID, User: customerID, Status: exchange.Frozen, Why: exchange.Why{Initiator: "customer", Reason: "lost_or_stolen", Detail: "on a \"train\"", At: at}}
	active := &exchange.Call{Card: cardID, User: customerID, Status: exchange.Active, Why: exchange.Why{Initiator: "developer", Reason: "other", At: at}}
	account := &exchange.Call{Card: cardID, User: customerID}
	id := `"id":"` + cardID + `","customer_id":"cust-1",`
	for _, test := range []struct {
		name, method, pattern string
		call                  *exchange.Call
		result                exchange.Result
		want                  string
	}{
		{"mint", "POST", bridgePattern + "/ephemeral_keys", account, exchange.Result{Token: token}, `{"ephemeral_key":"` + token + `"}`},
		{"reveal", "GET", "/v0/card_details", &exchange.Call{}, exchange.Result{Card: card, PAN: pan, CVC: cvc},
			`{"card_number":"4111111111111111","card_security_code":"123","expiry_date":"03/30"}`},
		{"reveal, number alone permitted", "GET", "/v0/card_details", &exchange.Call{}, exchange.Result{Card: card, PAN: pan},
			`{"card_number":"4111111111111111","expiry_date":"03/30"}`},
		{"reveal, code alone permitted", "GET", "/v0/card_details", &exchange.Call{}, exchange.Result{Card: card, CVC: cvc},
			`{"card_security_code":"123","expiry_date":"03/30"}`},
		{"account", "GET", bridgePattern, account, exchange.Result{Card: card},
			`{` + id + `"status":"active","cardholder_name":{"first_name":"Ada King","last_name":"Lovelace"},"card_details":{"last_4":"1111","expiry":"03/30","bin":"411111","pin_status":"set"}}`},
		{"account, what is known by heart", "GET", bridgePattern, account, exchange.Result{Card: exchange.Card{LastFour: "1111", ExpiryMonth: "12", ExpiryYear: "2031", Status: exchange.Frozen}},
			`{` + id + `"status":"frozen","card_details":{"last_4":"1111","expiry":"12/31"}}`},
		{"account, one name", "GET", bridgePattern, account, exchange.Result{Card: with(func(c *exchange.Card) { c.Holder, c.Status = "Ada", exchange.Cancelled })},
			`{` + id + `"status":"inactive","cardholder_name":{"first_name":"Ada","last_name":""},"card_details":{"last_4":"1111","expiry":"03/30","bin":"411111","pin_status":"set"}}`},
		{"account, another century", "GET", bridgePattern, account, exchange.Result{Card: with(func(c *exchange.Card) { c.ExpiryYear, c.Status, c.Holder = "2130", exchange.Inactive, "" })},
			`{` + id + `"status":"inactive","card_details":{"last_4":"1111","expiry":"","bin":"411111","pin_status":"set"}}`},
		{"freeze", "POST", bridgePattern + "/freeze", frozen, exchange.Result{Card: with(func(c *exchange.Card) { c.Status = exchange.Frozen })},
			`{"card_account_id":"` + cardID + `","initiator":"customer","reason":"lost_or_stolen","reason_detail":"on a \"train\"","created_at":"2026-11-25T12:00:00.005Z","status":"freeze_created"}`},
		{"unfreeze, of an issuer that says no card", "POST", bridgePattern + "/unfreeze", active, exchange.Result{},
			`{"card_account_id":"` + cardID + `","initiator":"developer","reason":"other","created_at":"2026-11-25T12:00:00.005Z","status":"freeze_removed"}`},
	} {
		out := exchange.Response{Body: append(make([]byte, 0, 64), "left over"...)}
		endpoint(t, f, test.method, test.pattern).Render(test.call, &test.result, &out)
		message, err := s.Render(out.Body, out.Splices)
		if err != nil {
			t.Errorf("%s: %v: %s", test.name, err, out.Body)
			continue
		}
		var got bytes.Buffer
		_, err = message.WriteTo(&got)
		if err != nil || got.String() != test.want || out.ContentType != "application/json" {
			t.Errorf("%s: %v\ngot  %s\nwant %s", test.name, err, &got, test.want)
		}
		if message.HoldsPAN() {
			t.Errorf("%s: the number stands where none is meant to", test.name)
		}
		message.Destroy()
	}
}

// TestBridgeErrors: word for word what the contract says.
func TestBridgeErrors(t *testing.T) {
	f := newFace(t, "bridge", everything())
	const resubmit = `{"code":"invalid_parameters","message":"Please resubmit the following parameters that are either missing or invalid."`
	for _, test := range []struct {
		kind   exchange.Kind
		at     exchange.Place
		status int
		want   string
	}{
		{exchange.Unauthorized, exchange.Place{In: "header", Name: "Api-Key"}, 401, `{"code":"required","location":"header","name":"Api-Key","message":"Missing Api-Key header"}`},
		{exchange.Unauthorized, exchange.Place{}, 401, `{"code":"invalid","location":"header","name":"Api-Key","message":"Invalid Api-Key header"}`},
		{exchange.BadRequest, exchange.Place{In: "body", Name: "client_nonce"}, 400,
			resubmit + `,"source":{"location":"body","key":{"client_nonce":"must be a nonce: 44 characters of base64, alone in an object"}}}`},
		{exchange.BadRequest, exchange.Place{}, 400, resubmit + `}`},
		{exchange.BadRequest, exchange.Place{In: "body", Name: "elsewhere"}, 400, resubmit + `}`},
		{exchange.NotFound, exchange.Place{In: "body", Name: "client_nonce"}, 404, `{"code":"Invalid","message":"Unknown customer id"}`},
		{exchange.NoAccount, exchange.Place{}, 404, `{"code":"Invalid","message":"Unknown customer id"}`},
		{exchange.Internal, exchange.Place{}, 500, `{"errors":[{"code":"unexpected","message":"An expected error occurred, you may try again later"}]}`},
	} {
		var out exchange.Response
		f.Fail(test.kind, test.at, &out)
		if string(out.Body) != test.want || out.Status != test.status {
			t.Errorf("%s at %v: %d %s\nwant %d %s", test.kind, test.at, out.Status, out.Body, test.status, test.want)
		}
	}
}

// TestBridgeRevealRefusalsAreOne: whatever is wrong with a key or a proof, pages read one answer, and never one about an
// API key, which they have none of.
func TestBridgeRevealRefusalsAreOne(t *testing.T) {
	f := newFace(t, "bridge", everything())
	fail := endpoint(t, f, "GET", "/v0/card_details").Fail
	for _, kind := range exchange.Kinds() {
		for _, at := range []exchange.Place{{}, {In: "header", Name: "Api-Key"}, {In: "query", Name: "secret"}} {
			var out, other exchange.Response
			fail(kind, at, &out)
			f.Fail(kind, at, &other)
			if out.Status == 401 && string(out.Body) != `{"code":"invalid","message":"Invalid ephemeral key, secret or timestamp"}` || out.ContentType != "application/json" {
				t.Errorf("%s at %v: %s", kind, at, out.Body)
			}
			if out.Status != other.Status || out.Status != 401 && !bytes.Equal(out.Body, other.Body) || bytes.Contains(out.Body, []byte("Api-Key")) {
				t.Errorf("%s at %v: %d %s, elsewhere %d %s", kind, at, out.Status, out.Body, other.Status, other.Body)
			}
		}
	}
}

// FuzzBridgeMint: a body that is accepted holds, to another parser, one nonce of 32 bytes in the one spelling that it has,
// and it is what the key is bound to.
func FuzzBridgeMint(f *testing.F) {
	for _, body := range []string{nonceOf(clientNonce), "{}", "", "null", `{"client_nonce":"` + clientNonce + `","CLIENT_NONCE":""}`, nonceOf(clientNonce[:43] + `\u003d`)} {
		f.Add(body, "5a3c")
	}
	parse := endpoint(f, newFace(f, "bridge", everything()), http.MethodPost, bridgePattern+"/ephemeral_keys").Parse
	param := func(name string) string { return name }
	f.Fuzz(func(t *testing.T, body, key string) {
		header := http.Header{"Content-Type": {"application/json"}, "Api-Key": {partnerKey}, "Idempotency-Key": {key}}
		c, err := parse(&exchange.Request{Header: header, Body: []byte(body), Param: param})
		if err != nil {
			failed(t, err, body, key, partnerKey)
			return
		}
		var other map[string]string
		if err := json.Unmarshal([]byte(body), &other); err != nil || len(other) != 1 {
			t.Fatalf("%q is %v to others (%v)", body, other, err)
		}
		if base64.StdEncoding.EncodeToString(c.Bind.Nonce[:]) != other["client_nonce"] || c.Bind.Nonce == [32]byte{} {
			t.Fatalf("%q binds to %x", body, c.Bind.Nonce)
		}
		if c.IdempotencyKey != key || key == "" || len(key) > 255 || strings.ContainsAny(key, " \x00\n") {
			t.Fatalf("idempotency key %q", key)
		}
		if c.Card != "cardAccountId" || c.User != "customerId" || c.Bind.Card != c.Card || c.Bind.User != c.User ||
			c.Bind.Operation != policy.CardReveal || c.Bind.TTL != 5*time.Minute {
			t.Fatalf("%+v", c.Bind)
		}
	})
}

// FuzzBridgeReveal: whatever stands in query and headers, a call that is accepted has one secret and one timestamp, neither
// empty, to another reader too, and the nonce is theirs.
func FuzzBridgeReveal(f *testing.F) {
	f.Add(queryProof[1:], "", "")
	f.Add(queryTimestamp, clientSecret, "")
	f.Add("", clientSecret, clientTimestamp)
	f.Add("secret=a;timestamp=b&secret", "", "c")
	f.Add("clientSecret=a&secret=b&timestamp=%zz", "", "")
	parse := endpoint(f, newFace(f, "bridge", everything()), http.MethodGet, "/v0/card_details").Parse
	f.Fuzz(func(t *testing.T, query, secret, timestamp string) {
		header := http.Header{"Authorization": {"Bearer " + token}}
		if secret != "" {
			header.Set("Cardstile-Client-Secret", secret)
		}
		if timestamp != "" {
			header.Set("Cardstile-Client-Timestamp", timestamp)
		}
		c, err := parse(&exchange.Request{Header: header, RawQuery: query})
		if err != nil {
			failed(t, err, query, secret, timestamp, token)
			return
		}
		said := map[string][]string{}
		for pair := range strings.SplitSeq(query, "&") {
			name, value, _ := strings.Cut(pair, "=")
			name, err1 := url.QueryUnescape(name)
			value, err2 := url.QueryUnescape(value)
			if err1 != nil || err2 != nil {
				t.Fatalf("%q is accepted", query)
			}
			said[name] = append(said[name], value)
		}
		secrets := append(append(header["Cardstile-Client-Secret"], said["secret"]...), said["clientSecret"]...)
		timestamps := append(append(header["Cardstile-Client-Timestamp"], said["timestamp"]...), said["clientTimestamp"]...)
		if len(secrets) != 1 || len(timestamps) != 1 || secrets[0] == "" || timestamps[0] == "" {
			t.Fatalf("secrets %q, timestamps %q", secrets, timestamps)
		}
		mac := hmac.New(sha256.New, []byte(secrets[0]))
		fmt.Fprintf(mac, "nonce:%s", timestamps[0])
		if c.Nonce != [32]byte(mac.Sum(nil)) || len(c.Credentials) != 1 || c.Credentials[0].Value() != token || c.Card != "" || c.User != "" {
			t.Fatalf("%+v", c)
		}
	})
}
