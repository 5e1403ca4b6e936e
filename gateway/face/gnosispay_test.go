package face_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

const (
	cardID = "123e4567-e89b-12d3-a456-426655440000"
	token  = "AAAAbW9zdC1wcm9iYWJseS1hLXRva2VuLW9mLTM1LWI"
	hash   = "VlPqeT4Lt7UhB6c8nqSyeM1FThgXeDIiyJ6NYRxLLVo"
)

// mint is a mint with some headers and a body of stated length.
func mint(headers, body string) string {
	return fmt.Sprintf("POST /api/v1/ephemeral-token HTTP/1.1\nHost: localhost:8443\n%sContent-Length: %d\n\n%s", headers, len(body), body)
}

func mintJSON(body string) string { return mint("Content-Type: application/json\n", body) }

// details is a reveal with some headers.
func details(headers string) string {
	return "GET /api/v1/cards/" + cardID + "/details HTTP/1.1\nHost: localhost:8444\n" + headers + "\n"
}

func setPIN(headers, body string) string {
	return fmt.Sprintf("PUT /api/v1/cards/%s/pin HTTP/1.1\nHost: localhost:8444\n%sContent-Length: %d\n\n%s", cardID, headers, len(body), body)
}

var (
	bearer   = "Authorization: Bearer " + token + "\n"
	sealing  = "sessionid: " + session + "\n"
	typeJSON = "Content-Type: application/json\n"
)

// deep is an array nested deeper than a strict reader follows.
var deep = strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)

var gnosisPayRequests = []named{
	// The mint: an empty body, none at all, or {}.
	{"mint: content-length 0", mintJSON("")},
	{"mint: no body, no type", "POST /api/v1/ephemeral-token HTTP/1.1\nHost: localhost\n\n"},
	{"mint: the reference relay", "POST /api/v1/ephemeral-token HTTP/1.1\nHost: localhost\nAccept: application/json, text/plain, */*\n" +
		"Content-Type: application/json\nAccept-Encoding: gzip, compress, deflate, br\nUser-Agent: axios/1.7.2\nContent-Length: 0\nConnection: close\n\n"},
	{"mint: {}", mintJSON("{}")},
	{"mint: {} chunked", "POST /api/v1/ephemeral-token HTTP/1.1\nHost: localhost\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n2\n{}\n0\n\n"},
	{"mint: empty and chunked", "POST /api/v1/ephemeral-token HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n\n0\n\n"},
	{"mint: {} with a charset", mint("Content-Type: Application/JSON; charset=utf-8\n", "{}")},
	{"mint: white space around {}", mintJSON(" {}\n ")},
	{"mint: bound to operation and card", mintJSON(`{"operation":"card.reveal","cardId":"` + cardID + `"}`)},
	{"mint: bound to pin.reveal", mintJSON(`{"operation":"pin.reveal","cardId":"` + cardID + `"}`)},
	{"mint: bound to pin.set", mintJSON(`{"operation":"pin.set","cardId":"` + cardID + `"}`)},
	{"mint: bound to a card", mintJSON(`{"cardId":"` + cardID + `"}`)},
	{"mint: bound to a session", mintJSON(`{"sessionHash":"` + hash + `"}`)},
	{"mint: bound to all", mintJSON(`{"sessionHash":"` + hash + `","cardId":"` + cardID + `","operation":"pin.set"}`)},
	{"mint: a trailing question mark", "POST /api/v1/ephemeral-token? HTTP/1.1\nHost: localhost\n\n"},
	{"mint: ignores a sessionid and a bearer", mint(bearer+sealing, "")},

	{"mint: null is not an absent operation", mintJSON(`{"operation":null}`)},
	{"mint: null is not an absent card", mintJSON(`{"cardId":null}`)},
	{"mint: null is not an absent session hash", mintJSON(`{"sessionHash":null}`)},
	{"mint: body of another type", mint("Content-Type: text/plain\n", "{}")},
	{"mint: body without a type", mint("", "{}")},
	{"mint: two content types", mint("Content-Type: application/json\nContent-Type: application/json\n", "{}")},
	{"mint: a type that begins alike", mint("Content-Type: application/json5\n", "{}")},
	{"mint: null", mintJSON("null")},
	{"mint: a list", mintJSON("[]")},
	{"mint: a string", mintJSON(`"{}"`)},
	{"mint: white space alone", mintJSON("  ")},
	{"mint: cut off", mintJSON(`{"operation":"card.reveal"`)},
	{"mint: two values", mintJSON("{}{}")},
	{"mint: unknown member", mintJSON(`{"card":"x"}`)},
	{"mint: duplicate member", mintJSON(`{"cardId":"a","cardId":"b"}`)},
	{"mint: member in another case", mintJSON(`{"cardid":"a"}`)},
	{"mint: the member twice in two cases", mintJSON(`{"cardId":"a","CardId":"b"}`)},
	{"mint: member of another type", mintJSON(`{"cardId":1}`)},
	{"mint: invalid UTF-8", mintJSON("{\"cardId\":\"\xff\"}")},
	{"mint: nested deep", mintJSON(deep)},
	{"mint: nested deep inside a member", mintJSON(`{"cardId":` + deep + `}`)},
	{"mint: empty card", mintJSON(`{"cardId":""}`)},
	{"mint: operation that no token opens", mintJSON(`{"operation":"token.mint"}`)},
	{"mint: operation that is not this face's", mintJSON(`{"operation":"card.profile"}`)},
	{"mint: empty operation", mintJSON(`{"operation":""}`)},
	{"mint: operation in another case", mintJSON(`{"operation":"Card.Reveal"}`)},
	{"mint: session hash in hex", mintJSON(`{"sessionHash":"5653ea793e0bb7b52107a73c9ea4b278cd454e1817783222c89e8d611c4b2d5a"}`)},
	{"mint: session hash padded", mintJSON(`{"sessionHash":"` + hash + `="}`)},
	{"mint: session hash one short", mintJSON(`{"sessionHash":"` + hash[1:] + `"}`)},
	{"mint: session hash with stray bits", mintJSON(`{"sessionHash":"` + hash[:42] + `p"}`)},
	{"mint: session hash of zeros", mintJSON(`{"sessionHash":"` + strings.Repeat("A", 43) + `"}`)},
	{"mint: empty session hash", mintJSON(`{"sessionHash":""}`)},
	{"mint: GET", "GET /api/v1/ephemeral-token HTTP/1.1\nHost: localhost\n\n"},
	{"mint: HEAD", "HEAD /api/v1/ephemeral-token HTTP/1.1\nHost: localhost\n\n"},

	{"details", details(bearer + sealing)},
	{"details: scheme in another case", details("Authorization: bEARER " + token + "\n" + sealing)},
	{"details: header names in another case", details("AUTHORIZATION: Bearer " + token + "\nSESSIONID: " + session + "\n")},
	{"details: escaped card", strings.Replace(details(bearer+sealing), cardID, "a%2Fb%20c", 1)},
	{"details: a cookie and a query are nobody's", strings.Replace(details(bearer+sealing+"Cookie: credential_id=x\n"), " HTTP", "?a=b HTTP", 1)},
	{"details: no authorization", details(sealing)},
	{"details: no token", details("Authorization: Bearer \n" + sealing)},
	{"details: token without a scheme", details("Authorization: " + token + "\n" + sealing)},
	{"details: another scheme", details("Authorization: Basic " + token + "\n" + sealing)},
	{"details: two authorizations", details(bearer + bearer + sealing)},
	{"details: no sessionid", details(bearer)},
	{"details: empty sessionid", details(bearer + "sessionid: \n")},
	{"details: two sessionids", details(bearer + sealing + sealing)},
	{"details: sessionid that is not base64", details(bearer + "sessionid: " + session[:340] + "!!!=\n")},
	{"details: sessionid without padding", details(bearer + "sessionid: " + strings.TrimRight(session, "=") + "\n")},
	{"details: sessionid in the URL alphabet", details(bearer + "sessionid: " + strings.Repeat("_", 344) + "\n")},
	{"details: sessionid too long for any key", details(bearer + "sessionid: " + session[:340] + session + "\n")},
	{"details: short sessionid is opened in vain, later", details(bearer + "sessionid: AAAA\n")},
	{"details: a body", strings.Replace(details(bearer+sealing+"Content-Length: 2\n"), "\n\n", "\n\n{}", 1)},
	{"details: neither token nor session is told as no token", details("")},
	{"details: HEAD", strings.Replace(details(bearer+sealing), "GET", "HEAD", 1)},
	{"details: POST", strings.Replace(details(bearer+sealing), "GET", "POST", 1)},

	{"pin", strings.Replace(details(bearer+sealing), "details", "pin", 1)},
	{"pin: no token", strings.Replace(details(sealing), "details", "pin", 1)},
	{"pin: no sessionid", strings.Replace(details(bearer), "details", "pin", 1)},

	{"set pin", setPIN(bearer+sealing+typeJSON, `{"data":"AA==","iv":"BB=="}`)},
	{"set pin: no token, and nothing right besides", setPIN("", "nonsense")},
	{"set pin: no sessionid, and no JSON", setPIN(bearer, "nonsense")},
	{"set pin: another type", setPIN(bearer+sealing+"Content-Type: text/json\n", `{"data":"AA==","iv":"BB=="}`)},
	{"set pin: no body", setPIN(bearer+sealing+typeJSON, "")},
	{"set pin: {}", setPIN(bearer+sealing+typeJSON, "{}")},
	{"set pin: no iv", setPIN(bearer+sealing+typeJSON, `{"data":"AA=="}`)},
	{"set pin: no data", setPIN(bearer+sealing+typeJSON, `{"iv":"BB=="}`)},
	{"set pin: empty iv", setPIN(bearer+sealing+typeJSON, `{"data":"AA==","iv":""}`)},
	{"set pin: null data", setPIN(bearer+sealing+typeJSON, `{"data":null,"iv":"BB=="}`)},
	{"set pin: unknown member", setPIN(bearer+sealing+typeJSON, `{"data":"AA==","iv":"BB==","sessionId":"x"}`)},
	{"set pin: duplicate member", setPIN(bearer+sealing+typeJSON, `{"data":"AA==","iv":"BB==","data":"CC=="}`)},
	{"set pin: member in another case", setPIN(bearer+sealing+typeJSON, `{"data":"AA==","IV":"BB=="}`)},
	{"set pin: nested deep", setPIN(bearer+sealing+typeJSON, deep)},
}

func TestGnosisPayRequests(t *testing.T) {
	golden(t, "gnosispay.requests.golden", describeAll(t, newFace(t, "gnosispay", everything()), gnosisPayRequests))
}

// TestGnosisPayOffersWhatItCan: without session keys there are no card operations, without a PIN mode no PINs [14], and
// the mint alone stands behind a certificate.
func TestGnosisPayOffersWhatItCan(t *testing.T) {
	keys := clientKeys()
	for _, test := range []struct {
		name   string
		config face.Config
		want   string
	}{
		{"nothing", face.Config{}, "POST /api/v1/ephemeral-token!"},
		{"sessions", face.Config{SessionKeys: keys}, "POST /api/v1/ephemeral-token!, GET /api/v1/cards/{cardId}/details"},
		{"PIN keys, PIN off", face.Config{SessionKeys: keys, PINKeys: keys}, "POST /api/v1/ephemeral-token!, GET /api/v1/cards/{cardId}/details"},
		{"PIN on, no keys", face.Config{SessionKeys: keys, PIN: face.PINSoftware}, "POST /api/v1/ephemeral-token!, GET /api/v1/cards/{cardId}/details"},
		{"blind PINs alone", face.Config{PINKeys: keys, PIN: face.PINBlind}, "POST /api/v1/ephemeral-token!, GET /api/v1/cards/{cardId}/pin, PUT /api/v1/cards/{cardId}/pin"},
		{"all", everything(), "POST /api/v1/ephemeral-token!, GET /api/v1/cards/{cardId}/details, GET /api/v1/cards/{cardId}/pin, PUT /api/v1/cards/{cardId}/pin"},
	} {
		var got []string
		for _, e := range newFace(t, "gnosispay", test.config).Endpoints() {
			mark := ""
			if e.Certificate {
				mark = "!"
			}
			got = append(got, e.Method+" "+e.Pattern+mark)
		}
		if s := strings.Join(got, ", "); s != test.want {
			t.Errorf("%s: %s\nwant %s", test.name, s, test.want)
		}
	}
}

// answer renders a result with the endpoint that a method and path name.
func answer(t testing.TB, f face.Face, method, pattern string, c *exchange.Call, r *exchange.Result) string {
	t.Helper()
	for _, e := range f.Endpoints() {
		if e.Method == method && e.Pattern == pattern {
			out := exchange.Response{Body: append(make([]byte, 0, 64), "left over"...)}
			e.Render(c, r, &out)
			if out.ContentType != "application/json" || e.Status != 0 && e.Status != http.StatusOK {
				t.Errorf("%s %s answers %d %s", method, pattern, e.Status, out.ContentType)
			}
			return string(out.Body)
		}
	}
	t.Fatalf("no %s %s", method, pattern)
	return ""
}

func sealed(s string) vault.Sealed { return vault.Sealed{Data: s + "Data==", IV: s + "IV=="} }

// TestGnosisPayAnswers: word for word what the contract says.
func TestGnosisPayAnswers(t *testing.T) {
	f := newFace(t, "gnosispay", everything())
	berlin := time.FixedZone("", 3600)
	card := exchange.Card{ID: cardID, LastFour: "1111", ExpiryMonth: "12", ExpiryYear: "2030", Status: exchange.Active, Holder: "Ada"}
	reveal := &exchange.Call{Operations: []policy.Operation{policy.CardReveal}}
	for _, test := range []struct {
		name, method, pattern string
		call                  *exchange.Call
		result                exchange.Result
		want                  string
	}{
		{"mint", "POST", "/api/v1/ephemeral-token", &exchange.Call{},
			exchange.Result{Token: token, Expires: time.Date(2026, 11, 23, 13, 4, 5, 678_999_999, berlin)},
			`{"data":{"ephemeralToken":"` + token + `","expiresAt":"2026-11-23T12:04:05.678Z"}}`},
		{"mint, whole second", "POST", "/api/v1/ephemeral-token", &exchange.Call{},
			exchange.Result{Token: token, Expires: time.Date(2026, 11, 23, 12, 4, 5, 0, time.UTC)},
			`{"data":{"ephemeralToken":"` + token + `","expiresAt":"2026-11-23T12:04:05.000Z"}}`},
		{"details", "GET", "/api/v1/cards/{cardId}/details", reveal,
			exchange.Result{Card: card, PAN: sealed("pan"), CVC: sealed("cvc")},
			`{"data":{"encryptedPan":{"data":"panData==","iv":"panIV=="},"encryptedCvc":{"data":"cvcData==","iv":"cvcIV=="},"expirationMonth":"12","expirationYear":"2030","lastFour":"1111"}}`},
		{"details, number alone permitted", "GET", "/api/v1/cards/{cardId}/details", reveal, exchange.Result{Card: card, PAN: sealed("pan")},
			`{"data":{"encryptedPan":{"data":"panData==","iv":"panIV=="},"expirationMonth":"12","expirationYear":"2030","lastFour":"1111"}}`},
		{"details, code alone permitted", "GET", "/api/v1/cards/{cardId}/details", reveal, exchange.Result{Card: card, CVC: sealed("cvc")},
			`{"data":{"encryptedCvc":{"data":"cvcData==","iv":"cvcIV=="},"expirationMonth":"12","expirationYear":"2030","lastFour":"1111"}}`},
		{"pin", "GET", "/api/v1/cards/{cardId}/pin", &exchange.Call{}, exchange.Result{PIN: sealed("pin"), PINSet: true},
			`{"data":{"encryptedPin":{"data":"pinData==","iv":"pinIV=="}}}`},
		{"no pin", "GET", "/api/v1/cards/{cardId}/pin", &exchange.Call{}, exchange.Result{}, `{"data":{"encryptedPin":null}}`},
		{"set pin", "PUT", "/api/v1/cards/{cardId}/pin", &exchange.Call{}, exchange.Result{}, `{"data":{"status":"ok"}}`},
	} {
		if got := answer(t, f, test.method, test.pattern, test.call, &test.result); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, got, test.want)
		}
	}
}

// TestGnosisPayErrorsSayTheSameTwice: clients read `error` at 400, 404 and 422 and `message` at 401.
func TestGnosisPayErrorsSayTheSameTwice(t *testing.T) {
	form := regexp.MustCompile(`^\{"error":"([^"]+)","message":"([^"]+)"\}$`)
	f := newFace(t, "gnosispay", everything())
	for _, kind := range exchange.Kinds() {
		var out exchange.Response
		f.Fail(kind, exchange.Place{}, &out)
		if m := form.FindSubmatch(out.Body); m == nil || string(m[1]) != string(m[2]) {
			t.Errorf("%s: %s", kind, out.Body)
		}
	}
}
