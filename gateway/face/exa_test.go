package face_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
)

// signed is the contract's own vector, as its client sends it.
const signed = "0x1234567890AbcdEF1234567890aBcdef12345678.JNDaVahyvSYEAWyqsZ65od76768Cx3CgZ8QMIgAKmxQ%3D"

func getCard(target, headers string) string {
	return "GET " + target + " HTTP/1.1\nHost: localhost:8444\n" + headers + "\n"
}

var cookie = "Cookie: credential_id=" + signed + "\n"

var exaRequests = []named{
	{"profile", getCard("/api/card", cookie)},
	{"profile: the documented path", getCard("/card", cookie)},
	{"profile: a trailing question mark", getCard("/api/card?", cookie)},
	{"profile: a query that means nothing", getCard("/api/card?a=b", cookie)},
	{"profile: among other cookies", getCard("/api/card", "Cookie: session_id=abc; credential_id="+signed+"; theme=dark\n")},
	{"profile: among cookies that are malformed", getCard("/api/card", "Cookie: a={\"b\":1}; bare; é=1; credential_id="+signed+";\n")},
	{"profile: cookies on several lines (HTTP/2)", getCard("/api/card", "Cookie: session_id=abc\n"+cookie)},
	{"profile: empty sessionid is none", getCard("/api/card", cookie+"sessionid: \n")},
	{"details", getCard("/api/card", cookie+sealing)},
	{"details: header name in another case", getCard("/api/card", cookie+"SessionId: "+session+"\n")},

	{"header first: two sessionids, bad query, no user", getCard("/api/card?scope=all", sealing+sealing)},
	{"header first: bad sessionid, bad query, no user", getCard("/api/card?scope=all", "sessionid: %%\n")},
	{"query second: bad query, no user", getCard("/api/card?scope=all", sealing)},
	{"user third", getCard("/api/card", sealing)},

	{"scope: siwe with webauthn", getCard("/api/card?scope=siwe&scope=webauthn", cookie)},
	{"scope: siwe with webauthn, apart", getCard("/api/card?scope=siwe&scope=provisioning&scope=webauthn", cookie)},
	{"scope: siwe with provisioning, and a session", getCard("/api/card?scope=siwe&scope=provisioning", cookie+sealing)},
	{"scope: provisioning with webauthn", getCard("/card?scope=provisioning&scope=webauthn", cookie)},
	{"scope: one twice", getCard("/api/card?scope=siwe&scope=siwe&scope=provisioning&scope=provisioning", cookie)},
	{"scope: two in one", getCard("/api/card?scope=siwe,provisioning", cookie)},
	{"scope: in another case", getCard("/api/card?scope=SIWE", cookie)},
	{"scope: good and unknown", getCard("/api/card?scope=siwe&scope=all", cookie)},
	{"scope: good and empty", getCard("/api/card?scope=siwe&scope=", cookie)},
	{"scope: siwe", getCard("/api/card?scope=siwe", cookie)},
	{"scope: webauthn", getCard("/api/card?scope=webauthn", cookie)},
	{"scope: provisioning", getCard("/api/card?scope=provisioning", cookie)},
	{"scope: all three", getCard("/api/card?scope=provisioning&scope=siwe&scope=webauthn", cookie)},
	{"scope: unknown", getCard("/api/card?scope=all", cookie)},
	{"scope: empty", getCard("/api/card?scope=", cookie)},
	{"scope: a name alone", getCard("/api/card?scope", cookie)},
	{"scope: escaped name", getCard("/api/card?%73cope=siwe", cookie)},
	{"scope: behind another", getCard("/api/card?a=b&scope=siwe", cookie)},
	{"query: malformed escape", getCard("/api/card?a=%zz", cookie)},
	{"query: semicolon", getCard("/api/card?a=b;scope=siwe", cookie)},

	{"no cookie", getCard("/api/card", "")},
	{"another cookie", getCard("/api/card", "Cookie: session_id=abc\n")},
	{"cookie of a name in another case", getCard("/api/card", "Cookie: Credential_Id="+signed+"\n")},
	{"two cookies of the name", getCard("/api/card", "Cookie: credential_id="+signed+"; credential_id="+signed+"\n")},
	{"two cookies of the name, on two lines", getCard("/api/card", cookie+cookie)},
	{"two of the name, the first empty", getCard("/api/card", "Cookie: credential_id=; credential_id="+signed+"\n")},
	{"two of the name, the second empty", getCard("/api/card", "Cookie: credential_id="+signed+"; credential_id=\n")},
	{"empty cookie", getCard("/api/card", "Cookie: credential_id=\n")},
	{"a bearer is no cookie", getCard("/api/card", bearer)},
	{"sessionid without padding", getCard("/api/card", cookie+"sessionid: "+strings.TrimRight(session, "=")+"\n")},
	{"sessionid too long for any key", getCard("/api/card", cookie+"sessionid: "+session[:340]+session+"\n")},

	{"HEAD", strings.Replace(getCard("/api/card", cookie), "GET", "HEAD", 1)},
	{"a path below", getCard("/api/card/other", cookie)},

	{"provisioning", getCard("/api/card/provisioning", bearer)},
	{"provisioning: the documented path", getCard("/card/provisioning", bearer)},
	{"provisioning: no token", getCard("/api/card/provisioning", "")},
	{"provisioning: two tokens", getCard("/api/card/provisioning", bearer+bearer)},
	{"provisioning: another scheme", getCard("/api/card/provisioning", "Authorization: Basic "+token+"\n")},
	{"provisioning: the user's cookie alone", getCard("/api/card/provisioning", cookie)},
	{"provisioning: the user's cookie too", getCard("/api/card/provisioning", bearer+cookie)},
	{"provisioning: any other cookie too", getCard("/api/card/provisioning", bearer+"Cookie: theme=dark\n")},
	{"provisioning: an empty cookie too", getCard("/api/card/provisioning", bearer+"Cookie: \n")},
	{"provisioning: a session too", getCard("/api/card/provisioning", bearer+sealing)},
	{"provisioning: an empty session too", getCard("/api/card/provisioning", bearer+"sessionid: \n")},

	{"patch: status ACTIVE", patch(`{"status":"ACTIVE"}`)},
	{"patch: status FROZEN, with white space", patch(" { \"status\" : \"FROZEN\" } ")},
	{"patch: status DELETED, escaped", patch(`{"st\u0061tus":"DEL\u0045TED"}`)},
	{"patch: the documented paths", strings.Replace(patch(`{"status":"ACTIVE"}`), "/api/card", "/card", 1)},
	{"patch: the documented form", strings.Replace(patch(`{"status":"ACTIVE"}`), "/api/card", "/", 1)},
	{"patch: a sessionid header and a query are nobody's", strings.Replace(send("PATCH", "/api/card", cookie+typeJSON+sealing+sealing, `{"mode":1}`), "/api/card", "/api/card?scope=all", 1)},
	{"patch: mode", patch(`{"mode":3}`)},
	{"patch: mode 0", patch(`{"mode":0}`)},
	{"patch: the highest mode", patch(`{"mode":2147483647}`)},
	{"patch: PIN", patch(`{"data":"AA==","iv":"BB==","sessionId":"` + session + `"}`)},
	{"patch: siwe", patch(`{"method":"siwe","message":"` + siwe + `","signature":"0x0aF1"}`)},
	{"patch: siwe with a member that nobody knows", patch(`{"method":"siwe","message":"` + siwe + `","signature":"0x0aF1","x":{"y":[1]}}`)},
	{"patch: webauthn", patch(`{"method":"webauthn","assertion":` + passkey + `}`)},
	{"patch: webauthn with a member that nobody knows", patch(`{"x":null,"assertion":{"a": 1e0},"method":"webauthn"}`)},

	{"patch: no user, and nothing right besides", send("PATCH", "/api/card", "", "nonsense")},
	{"patch: two users", send("PATCH", "/api/card", cookie+cookie+typeJSON, `{"mode":1}`)},
	{"patch: a bearer is no cookie", send("PATCH", "/api/card", bearer+typeJSON, `{"mode":1}`)},
	{"patch: another type", send("PATCH", "/api/card", cookie+"Content-Type: text/plain\n", `{"mode":1}`)},
	{"patch: no type", send("PATCH", "/api/card", cookie, `{"mode":1}`)},
	{"patch: no body", patch("")},
	{"patch: null", patch("null")},
	{"patch: a list", patch(`[{"mode":1}]`)},
	{"patch: two values", patch(`{"mode":1}{"mode":1}`)},
	{"patch: nothing", patch("{}")},
	{"patch: nested deep", patch(deep)},
	{"patch: nested deep inside", patch(`{"assertion":{"a":` + deep + `},"method":"webauthn"}`)},
	{"patch: invalid UTF-8", patch("{\"status\":\"\xff\"}")},
	{"patch: unknown member", patch(`{"limit":1}`)},
	{"patch: unknown member beside status", patch(`{"status":"ACTIVE","x":1}`)},
	{"patch: unknown member beside mode", patch(`{"mode":1,"x":1}`)},
	{"patch: unknown member beside a PIN", patch(`{"data":"AA==","iv":"BB==","sessionId":"` + session + `","x":1}`)},
	{"patch: two forms", patch(`{"status":"ACTIVE","mode":1}`)},
	{"patch: two forms, one of them signed", patch(`{"status":"DELETED","method":"siwe","message":"` + siwe + `","signature":"0x0aF1"}`)},
	{"patch: both methods", patch(`{"method":"siwe","message":"a","signature":"0x00","assertion":{}}`)},
	{"patch: duplicate member", patch(`{"status":"ACTIVE","status":"FROZEN"}`)},
	{"patch: duplicate member, escaped", patch(`{"status":"ACTIVE","st\u0061tus":"FROZEN"}`)},
	{"patch: duplicate member of nobody's", patch(`{"method":"siwe","message":"a","signature":"0x00","x":1,"x":1}`)},
	{"patch: duplicate member inside an assertion", patch(`{"method":"webauthn","assertion":{"id":"a","id":"b"}}`)},
	{"patch: member in another case", patch(`{"Status":"ACTIVE"}`)},
	{"patch: status in another case", patch(`{"status":"active"}`)},
	{"patch: status CANCELED", patch(`{"status":"CANCELED"}`)},
	{"patch: status null", patch(`{"status":null}`)},
	{"patch: status as a list", patch(`{"status":["ACTIVE"]}`)},
	{"patch: mode below zero", patch(`{"mode":-1}`)},
	{"patch: mode minus zero", patch(`{"mode":-0}`)},
	{"patch: mode too high", patch(`{"mode":2147483648}`)},
	{"patch: mode far too high", patch(`{"mode":18446744073709551616}`)},
	{"patch: mode with a fraction", patch(`{"mode":1.0}`)},
	{"patch: mode with an exponent", patch(`{"mode":1e0}`)},
	{"patch: mode as text", patch(`{"mode":"1"}`)},
	{"patch: mode true", patch(`{"mode":true}`)},
	{"patch: mode null", patch(`{"mode":null}`)},
	{"patch: PIN without session", patch(`{"data":"AA==","iv":"BB=="}`)},
	{"patch: PIN with an empty session", patch(`{"data":"AA==","iv":"BB==","sessionId":""}`)},
	{"patch: PIN with a session of null", patch(`{"data":"AA==","iv":"BB==","sessionId":null}`)},
	{"patch: PIN with a session that is not base64", patch(`{"data":"AA==","iv":"BB==","sessionId":"!!!!"}`)},
	{"patch: PIN with a session too long for any key", patch(`{"data":"AA==","iv":"BB==","sessionId":"` + session[:340] + session + `"}`)},
	{"patch: PIN with sessionid in another case", patch(`{"data":"AA==","iv":"BB==","sessionid":"` + session + `"}`)},
	{"patch: PIN without data", patch(`{"data":"","iv":"BB==","sessionId":"` + session + `"}`)},
	{"patch: PIN with data of another type", patch(`{"data":{},"iv":"BB==","sessionId":"` + session + `"}`)},
	{"patch: method alone", patch(`{"method":"siwe"}`)},
	{"patch: method null", patch(`{"method":null,"message":"a","signature":"0x00"}`)},
	{"patch: method in another case", patch(`{"method":"SIWE","message":"a","signature":"0x00"}`)},
	{"patch: no method", patch(`{"message":"a","signature":"0x00"}`)},
	{"patch: siwe with an assertion", patch(`{"method":"siwe","assertion":{}}`)},
	{"patch: webauthn with a message", patch(`{"method":"webauthn","message":"a","signature":"0x00"}`)},
	{"patch: siwe without a message", patch(`{"method":"siwe","message":"","signature":"0x00"}`)},
	{"patch: siwe, signature without 0x", patch(`{"method":"siwe","message":"a","signature":"00"}`)},
	{"patch: siwe, signature of half a byte", patch(`{"method":"siwe","message":"a","signature":"0x0"}`)},
	{"patch: siwe, signature of no digits", patch(`{"method":"siwe","message":"a","signature":"0x"}`)},
	{"patch: siwe, signature of other digits", patch(`{"method":"siwe","message":"a","signature":"0xzz"}`)},
	{"patch: webauthn, assertion as text", patch(`{"method":"webauthn","assertion":"{}"}`)},
	{"patch: webauthn, assertion null", patch(`{"method":"webauthn","assertion":null}`)},
	{"patch: webauthn, assertion too long", patch(`{"method":"webauthn","assertion":{"id":"` + strings.Repeat("a", 16<<10) + `"}}`)},
	{"patch: PUT", send("PUT", "/api/card", cookie+typeJSON, `{"mode":1}`)},
	{"patch: the root is for PATCH alone", getCard("/", cookie)},

	{"challenge: a wallet", getCard("/api/auth/authentication?credentialId="+wallet, "")},
	{"challenge: the documented path", getCard("/auth/authentication?credentialId="+wallet, "")},
	{"challenge: a wallet in lower case is as it is", getCard("/api/auth/authentication?credentialId="+strings.ToLower(wallet), "")},
	{"challenge: a passkey", getCard("/api/auth/authentication?credentialId=AAECAwQFBgc", "")},
	{"challenge: a passkey, padded", getCard("/api/auth/authentication?credentialId=AAECAwQFBgc%3D", "")},
	{"challenge: a passkey with stray bits", getCard("/api/auth/authentication?credentialId=AAECAwQFBgd", "")},
	{"challenge: a passkey in the other alphabet", getCard("/api/auth/authentication?credentialId=AA%2B_", "")},
	{"challenge: a passkey with a line break", getCard("/api/auth/authentication?credentialId=AAEC%0a", "")},
	{"challenge: the longest passkey", getCard("/api/auth/authentication?credentialId="+strings.Repeat("AAAA", 128), "")},
	{"challenge: a passkey too long", getCard("/api/auth/authentication?credentialId="+strings.Repeat("AAAA", 128)+"AA", "")},
	{"challenge: any passkey", getCard("/api/auth/authentication", "")},
	{"challenge: an empty id", getCard("/api/auth/authentication?credentialId=", "")},
	{"challenge: two ids", getCard("/api/auth/authentication?credentialId="+wallet+"&credentialId="+wallet, "")},
	{"challenge: malformed query", getCard("/api/auth/authentication?credentialId=%zz", "")},
	{"challenge: a short address is a passkey's id, or none", getCard("/api/auth/authentication?credentialId="+wallet[:41], "")},
	{"challenge: cookies are nobody's", getCard("/api/auth/authentication?credentialId="+wallet, cookie+"Cookie: session_id=a\n")},

	{"login: siwe", login("Cookie: session_id=abc\n", `{"method":"siwe","id":"`+wallet+`","signature":"0x0aF1"}`)},
	{"login: the documented path", strings.Replace(login("Cookie: session_id=abc\n", `{"method":"siwe","id":"`+wallet+`","signature":"0x0aF1"}`), "/api", "", 1)},
	{"login: session in the header", login("X-Session-Id: abc\n", `{"method":"siwe","id":"`+wallet+`","signature":"0x0aF1"}`)},
	{"login: session in both", login("X-Session-Id: abc\nCookie: a=b; session_id=abc\n", `{"method":"siwe","id":"`+wallet+`","signature":"0x0aF1"}`)},
	{"login: webauthn", login("Cookie: session_id=abc\n", passkey)},
	{"login: webauthn, by name", login("Cookie: session_id=abc\n", `{"method":"webauthn",`+passkey[1:])},
	{"login: webauthn, by name, last", login("Cookie: session_id=abc\n", passkey[:len(passkey)-1]+`,"method":"webauthn"}`)},
	{"login: webauthn, with the kind of authenticator", login("Cookie: session_id=abc\n", `{"authenticatorAttachment":"platform",`+passkey[1:])},

	{"login: no session, and nothing right besides", send("POST", "/api/auth/authentication", "", "nonsense")},
	{"login: an empty session", login("Cookie: session_id=\nX-Session-Id: \n", passkey)},
	{"login: two sessions in the header", login("X-Session-Id: abc\nX-Session-Id: abc\n", passkey)},
	{"login: two sessions in cookies", login("Cookie: session_id=abc; session_id=abc\n", passkey)},
	{"login: two sessions in cookies, one of them empty", login("Cookie: session_id=; session_id=abc\n", passkey)},
	{"login: sessions differ", login("X-Session-Id: abc\nCookie: session_id=abd\n", passkey)},
	{"login: the user's cookie is no session", login(cookie, passkey)},
	{"login: another type", send("POST", "/api/auth/authentication", "X-Session-Id: abc\nContent-Type: text/plain\n", passkey)},
	{"login: null", login("X-Session-Id: abc\n", "null")},
	{"login: nothing", login("X-Session-Id: abc\n", "{}")},
	{"login: another method", login("X-Session-Id: abc\n", `{"method":"password","id":"`+wallet+`","signature":"0x00"}`)},
	{"login: method null", login("X-Session-Id: abc\n", `{"method":null,`+passkey[1:])},
	{"login: siwe with a passkey's id", login("X-Session-Id: abc\n", `{"method":"siwe","id":"AAECAwQFBgc","signature":"0x00"}`)},
	{"login: webauthn with a wallet's id", login("X-Session-Id: abc\n", strings.ReplaceAll(passkey, "AAECAwQFBgc", wallet))},
	{"login: siwe with a message", login("X-Session-Id: abc\n", `{"method":"siwe","id":"`+wallet+`","signature":"0x00","message":"a"}`)},
	{"login: siwe without 0x", login("X-Session-Id: abc\n", `{"method":"siwe","id":"`+wallet+`","signature":"00"}`)},
	{"login: siwe without a method", login("X-Session-Id: abc\n", `{"id":"`+wallet+`","signature":"0x00"}`)},
	{"login: webauthn without a response", login("X-Session-Id: abc\n", `{"id":"AAECAwQFBgc","rawId":"AAECAwQFBgc","clientExtensionResults":{},"type":"public-key"}`)},
	{"login: webauthn with a member that nobody knows", login("X-Session-Id: abc\n", `{"x":1,`+passkey[1:])},
	{"login: duplicate member", login("X-Session-Id: abc\n", `{"id":"AAECAwQFBgc",`+passkey[1:])},
	{"login: webauthn too long", login("X-Session-Id: abc\n", strings.Replace(passkey, `"YQ"`, `"`+strings.Repeat("a", 16<<10)+`"`, 1))},
}

// What wallets and authenticators sign, as far as a face looks: it judges none of it.
const (
	wallet  = "0x1234567890AbcdEF1234567890aBcdef12345678"
	siwe    = `example wants you to sign in\n`
	passkey = `{"id":"AAECAwQFBgc","rawId":"AAECAwQFBgc","response":{"clientDataJSON": "YQ","authenticatorData":"Yg","signature":"Yw"},"clientExtensionResults":{},"type":"public-key"}`
)

// send is a request with a body of stated length.
func send(method, target, headers, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\nHost: localhost:8444\n%sContent-Length: %d\n\n%s", method, target, headers, len(body), body)
}

func patch(body string) string { return send("PATCH", "/api/card", cookie+typeJSON, body) }

func login(headers, body string) string {
	return send("POST", "/api/auth/authentication", headers+typeJSON, body)
}

func TestExaRequests(t *testing.T) {
	golden(t, "exa.requests.golden", describeExa(t, newFace(t, "exa", everything()), exaRequests))
}

// describeExa adds what a call of a user's own has beside others'.
func describeExa(t *testing.T, f face.Face, requests []named) string {
	t.Helper()
	s := newServer(f)
	var b strings.Builder
	for _, r := range requests {
		e, c, err := s.parse(t, r.raw)
		fmt.Fprintf(&b, "== %s\n%s", r.name, describe(e, c, err))
		if c != nil && err == nil {
			b.WriteString(describeUser(c))
		}
		b.WriteByte('\n')
	}
	return strings.ReplaceAll(b.String(), fmt.Sprintf("%x", exchange.SessionHash(session)), "<hash of the sessionid>")
}

func describeUser(c *exchange.Call) string {
	var b strings.Builder
	if c.ShowMode {
		b.WriteString("mode too\n")
	}
	if c.Challenge != (exchange.Challenge{}) {
		fmt.Fprintf(&b, "challenge %s user %q\n", c.Challenge.Method, c.Challenge.User)
	}
	if s := c.Signed; s.Method != "" {
		fmt.Fprintf(&b, "signed %s user %q message %q signature %q assertion %s\n", s.Method, s.User, s.Message, s.Signature, s.Assertion)
	}
	if c.Has(policy.CardStatus) || c.Has(policy.CardMode) {
		fmt.Fprintf(&b, "status %d mode %d\n", c.Status, c.Mode)
	}
	return b.String()
}

func TestExaNeedsASessionKey(t *testing.T) {
	kind, err := face.Lookup("exa")
	if err != nil {
		t.Fatal(err)
	}
	if f, err := kind.New(face.Config{PIN: face.PINSoftware, PINWithPAN: true}); err == nil || f != nil {
		t.Errorf("%v, %v", f, err)
	}
}

// TestExaPINBesidePAN: details ask for the PIN only where the route carries PINs in software and says that one may stand
// beside a card number [14].
func TestExaPINBesidePAN(t *testing.T) {
	for _, test := range []struct {
		pin      face.PINMode
		with     bool
		expected bool
	}{
		{face.PINOff, false, false}, {face.PINOff, true, false}, {face.PINBlind, false, false}, {face.PINBlind, true, false},
		{face.PINSoftware, false, false}, {face.PINSoftware, true, true},
	} {
		f := newFace(t, "exa", face.Config{SessionKeys: clientKeys(), PINKeys: clientKeys(), PIN: test.pin, PINWithPAN: test.with})
		_, c, err := newServer(f).parse(t, getCard("/api/card", cookie+sealing))
		if err != nil {
			t.Fatal(err)
		}
		if c.Has(policy.PINReveal) != test.expected || !c.Has(policy.CardReveal) || !c.Has(policy.CardProfile) {
			t.Errorf("%+v: %v", test, c.Operations)
		}
	}
}

// TestExaAnswers: word for word what the contract says.
func TestExaAnswers(t *testing.T) {
	f := newFace(t, "exa", everything())
	card := exchange.Card{
		ID: cardID, LastFour: "1111", ExpiryMonth: "09", ExpiryYear: "2030", Status: exchange.Active, Holder: "Ada Lovelace",
		Limit: exchange.Limit{Amount: 1_000_000, Frequency: "per7DayPeriod"}, Product: "402",
	}
	with := func(change func(*exchange.Card)) exchange.Card { c := card; change(&c); return c }
	const tail = `"expirationMonth":"09","expirationYear":"2030","lastFour":"1111","mode":0,"provider":"panda","status":"ACTIVE","limit":{"amount":1000000,"frequency":"per7DayPeriod"},"productId":"402"}`
	profile := &exchange.Call{Operations: []policy.Operation{policy.CardProfile}}
	reveal := &exchange.Call{Operations: []policy.Operation{policy.CardProfile, policy.CardReveal}}
	withPIN := &exchange.Call{Operations: []policy.Operation{policy.CardProfile, policy.CardReveal, policy.PINReveal}}
	for _, test := range []struct {
		name   string
		call   *exchange.Call
		result exchange.Result
		want   string
	}{
		{"profile", profile, exchange.Result{Card: card}, `{"cardId":"` + cardID + `","displayName":"Ada Lovelace",` + tail},
		{"details", reveal, exchange.Result{Card: card, PAN: sealed("pan"), CVC: sealed("cvc")},
			`{"cardId":"` + cardID + `","displayName":"Ada Lovelace","encryptedPan":{"data":"panData==","iv":"panIV=="},"encryptedCvc":{"data":"cvcData==","iv":"cvcIV=="},` + tail},
		{"details with PIN", withPIN, exchange.Result{Card: card, PAN: sealed("pan"), CVC: sealed("cvc"), PIN: sealed("pin"), PINSet: true},
			`{"cardId":"` + cardID + `","displayName":"Ada Lovelace","encryptedPan":{"data":"panData==","iv":"panIV=="},"encryptedCvc":{"data":"cvcData==","iv":"cvcIV=="},"pin":{"data":"pinData==","iv":"pinIV=="},` + tail},
		{"details, no PIN set", withPIN, exchange.Result{Card: card, PAN: sealed("pan"), CVC: sealed("cvc")},
			`{"cardId":"` + cardID + `","displayName":"Ada Lovelace","encryptedPan":{"data":"panData==","iv":"panIV=="},"encryptedCvc":{"data":"cvcData==","iv":"cvcIV=="},"pin":null,` + tail},
		{"mode", profile, exchange.Result{Card: with(func(c *exchange.Card) { c.Mode = 3 })},
			`{"cardId":"` + cardID + `","displayName":"Ada Lovelace",` + strings.Replace(tail, `"mode":0`, `"mode":3`, 1)},
		{"challenge", &exchange.Call{Operations: []policy.Operation{policy.CardProfile, policy.ChallengeMint}},
			exchange.Result{Card: card, Challenge: exchange.ChallengeText{Message: "a\n\"b\""}},
			`{"cardId":"` + cardID + `","displayName":"Ada Lovelace",` + tail[:len(tail)-1] + `,"challenge":"a\n\"b\""}`},
		{"provisioning", &exchange.Call{Operations: []policy.Operation{policy.CardProfile, policy.CardProvision}},
			exchange.Result{Card: card, Provision: exchange.Provision{ID: "p", Secret: "otp"}},
			`{"cardId":"` + cardID + `","displayName":"Ada Lovelace",` + tail[:len(tail)-1] + `,"provisioning":{"id":"p","secret":"otp"}}`},
		{"what came and was not asked for", profile, exchange.Result{Card: card, Provision: exchange.Provision{ID: "p"}, Challenge: exchange.ChallengeText{Message: "a"}},
			`{"cardId":"` + cardID + `","displayName":"Ada Lovelace",` + tail},
		{"frozen", profile, exchange.Result{Card: with(func(c *exchange.Card) { c.Status = exchange.Frozen })},
			`{"cardId":"` + cardID + `","displayName":"Ada Lovelace",` + strings.Replace(tail, "ACTIVE", "FROZEN", 1)},
		{"cancelled cannot be used", profile, exchange.Result{Card: with(func(c *exchange.Card) { c.Status = exchange.Cancelled })},
			`{"cardId":"` + cardID + `","displayName":"Ada Lovelace",` + strings.Replace(tail, "ACTIVE", "FROZEN", 1)},
		{"of no state", profile, exchange.Result{Card: with(func(c *exchange.Card) { c.Status = 0 })},
			`{"cardId":"` + cardID + `","displayName":"Ada Lovelace",` + strings.Replace(tail, "ACTIVE", "FROZEN", 1)},
	} {
		for _, pattern := range []string{"/api/card", "/card"} {
			if got := answer(t, f, "GET", pattern, test.call, &test.result); got != test.want {
				t.Errorf("%s, %s:\ngot  %s\nwant %s", test.name, pattern, got, test.want)
			}
		}
	}
}

// TestExaAnswersToChanges: what was sent comes back.
func TestExaAnswersToChanges(t *testing.T) {
	f := newFace(t, "exa", everything())
	s := newServer(f)
	for body, want := range map[string]string{
		`{"status":"ACTIVE"}`: "", `{"status":"FROZEN"}`: "", `{"status":"DELETED"}`: "", `{"mode":0}`: "", `{"mode":2147483647}`: "",
		`{"data":"AA==","iv":"B\"=","sessionId":"` + session + `"}`:       `{"data":"AA==","iv":"B\"="}`,
		`{"method":"siwe","message":"` + siwe + `","signature":"0x0aF1"}`: `{"verification":"OK"}`,
		`{"method":"webauthn","assertion":` + passkey + `}`:               `{"verification":"OK"}`,
	} {
		if want == "" {
			want = body
		}
		_, c, err := s.parse(t, patch(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		for _, pattern := range []string{"/api/card", "/card", "/{$}"} {
			if got := answer(t, f, "PATCH", pattern, c, &exchange.Result{}); got != want {
				t.Errorf("%s is answered %s", body, got)
			}
		}
	}
}

// render is a whole answer.
func render(t *testing.T, f face.Face, method, pattern string, c *exchange.Call, res *exchange.Result) string {
	t.Helper()
	out := exchange.Response{Body: append(make([]byte, 0, 64), "left over"...)}
	endpoint(t, f, method, pattern).Render(c, res, &out)
	var b strings.Builder
	for _, h := range out.Header {
		fmt.Fprintf(&b, "%s: %s\n", h.Name, h.Value)
	}
	return b.String() + string(out.Body)
}

// TestExaLogin: word for word what the contract says, cookies and their attributes included [21].
func TestExaLogin(t *testing.T) {
	const attributes = "; Path=/; HttpOnly; Secure; SameSite=None; Partitioned\n"
	f := newFace(t, "exa", everything())
	s := newServer(f)
	soon, later := time.Now().Add(5*time.Minute-100*time.Millisecond), time.Now().Add(24*time.Hour-100*time.Millisecond)
	for _, test := range []struct {
		name, raw string
		result    exchange.Result
		want      string
	}{
		{"siwe", getCard("/api/auth/authentication?credentialId="+wallet, ""),
			exchange.Result{Challenge: exchange.ChallengeText{ID: "id-1", Account: wallet, Message: "a\nb", Expires: soon}},
			"Set-Cookie: session_id=id-1; Max-Age=300" + attributes + "X-Session-Id: id-1\n" +
				`{"method":"siwe","address":"` + wallet + `","message":"a\nb"}`},
		{"webauthn", getCard("/api/auth/authentication?credentialId=AAECAwQFBgc", ""),
			exchange.Result{Challenge: exchange.ChallengeText{ID: "id-2", Options: []byte(`{"challenge":"YQ","rpId":"app.example"}`), Expires: soon}},
			"Set-Cookie: session_id=id-2; Max-Age=300" + attributes + "X-Session-Id: id-2\n" +
				`{"method":"webauthn","challenge":"YQ","rpId":"app.example"}`},
		{"the cookie", login("X-Session-Id: id-1\n", `{"method":"siwe","id":"`+wallet+`","signature":"0x00"}`),
			exchange.Result{Token: signed, Account: wallet, Expires: later},
			"Set-Cookie: credential_id=" + signed + "; Max-Age=86400" + attributes + fmt.Sprintf(`{"credentialId":"%s","auth":%d}`, wallet, later.UnixMilli())},
		{"a cookie that is over", login("X-Session-Id: id-1\n", `{"method":"siwe","id":"`+wallet+`","signature":"0x00"}`),
			exchange.Result{Token: signed, Account: wallet, Expires: time.UnixMilli(1_500_000_000_123)},
			"Set-Cookie: credential_id=" + signed + "; Max-Age=0" + attributes + `{"credentialId":"` + wallet + `","auth":1500000000123}`},
	} {
		e, c, err := s.parse(t, test.raw)
		if err != nil {
			t.Fatal(test.name, err)
		}
		for _, base := range []string{"/api", ""} {
			if got := render(t, f, e.Method, base+"/auth/authentication", c, &test.result); got != test.want {
				t.Errorf("%s:\ngot  %s\nwant %s", test.name, got, test.want)
			}
		}
	}
}

// TestExaProvisioning: the answer to the wallet extension.
func TestExaProvisioning(t *testing.T) {
	f := newFace(t, "exa", everything())
	for _, pattern := range []string{"/api/card/provisioning", "/card/provisioning"} {
		got := render(t, f, "GET", pattern, &exchange.Call{}, &exchange.Result{Provision: exchange.Provision{ID: "p", Secret: "otp"}})
		if got != `{"id":"p","secret":"otp"}` {
			t.Error(got)
		}
	}
}

// TestExaFailuresByEndpoint: a login has words of its own, and they are the same on both of its paths.
func TestExaFailuresByEndpoint(t *testing.T) {
	own := failings(newFace(t, "exa", everything()))
	var b strings.Builder
	for _, at := range []string{"GET", "POST"} {
		fmt.Fprintf(&b, "== %s /auth/authentication\n", at)
		for _, kind := range exchange.Kinds() {
			var out, documented exchange.Response
			own[" "+at+" /api/auth/authentication"](kind, exchange.Place{}, &out)
			own[" "+at+" /auth/authentication"](kind, exchange.Place{}, &documented)
			fmt.Fprintf(&b, "%-18s %d %s %s\n", kind, out.Status, out.ContentType, out.Body)
			if string(out.Body) != string(documented.Body) || len(out.Header) > 0 {
				t.Errorf("%s, %s: %s", at, kind, documented.Body)
			}
		}
	}
	if len(own) != 5 {
		t.Errorf("%d ways to fail", len(own))
	}
	golden(t, "exa.login.failures.golden", b.String())
}

// TestExaOffersWhatItCan: what the route does not have, or its issuer cannot do, is not there; and asking for it is refused
// before anything is proven.
func TestExaOffersWhatItCan(t *testing.T) {
	without := func(missing ...policy.Operation) face.Config {
		c := everything()
		c.Serves = func(op policy.Operation) bool { return !slices.Contains(missing, op) }
		return c
	}
	noPIN, noKeys := everything(), everything()
	noPIN.PIN, noKeys.PINKeys = face.PINOff, nil
	noSessions := without(policy.CardReveal)
	noSessions.SessionKeys = nil
	const (
		operations = "operations "
		refused    = "failure bad_request"
		none       = "no endpoint"
	)
	requests := map[string]string{
		"details": getCard("/api/card", cookie+sealing), "profile": getCard("/api/card", cookie),
		"siwe": getCard("/api/card?scope=siwe", cookie), "webauthn": getCard("/api/card?scope=webauthn", cookie),
		"provision": getCard("/api/card?scope=provisioning", cookie), "provisioning": getCard("/card/provisioning", bearer),
		"status": patch(`{"status":"ACTIVE"}`), "mode": patch(`{"mode":1}`), "pin": patch(`{"data":"AA==","iv":"BB==","sessionId":"` + session + `"}`),
		"link": patch(`{"method":"webauthn","assertion":{}}`), "challenge": getCard("/auth/authentication", ""), "login": login("X-Session-Id: a\n", passkey),
	}
	for _, test := range []struct {
		name   string
		config face.Config
		want   map[string]string // of all other requests, that there are operations
	}{
		{"everything", everything(), nil},
		{"no provisioning", without(policy.CardProvision), map[string]string{"provision": refused, "provisioning": none}},
		{"no challenges", without(policy.ChallengeMint), map[string]string{"siwe": refused, "webauthn": refused, "challenge": none, "login": none}},
		{"no logins", without(policy.SessionMint), map[string]string{"challenge": none, "login": none}},
		{"no PIN reveal", without(policy.PINReveal), map[string]string{"details": "operations [card.profile card.reveal]\n"}},
		{"no PIN set", without(policy.PINSet), map[string]string{"pin": refused}},
		{"PIN off", noPIN, map[string]string{"pin": refused, "details": "operations [card.profile card.reveal]\n"}},
		{"no PIN keys", noKeys, map[string]string{"pin": refused}},
		{"no status", without(policy.CardStatus), map[string]string{"status": refused}},
		{"no mode", without(policy.CardMode), map[string]string{"mode": refused}},
		{"no link", without(policy.CardLink), map[string]string{"link": refused}},
		{"no details", noSessions, map[string]string{"details": "failure bad_session"}},
		{"no profile", without(policy.CardProfile), map[string]string{"details": none, "profile": none, "siwe": none, "webauthn": none, "provision": none}},
		{"no changes", without(policy.CardStatus, policy.CardMode, policy.CardLink, policy.PINSet), map[string]string{"status": none, "mode": none, "pin": none, "link": none}},
	} {
		f := newFace(t, "exa", test.config)
		s := newServer(f)
		for request, raw := range requests {
			want, other := test.want[request]
			if !other {
				want = operations
			}
			e, c, err := s.parse(t, raw)
			if got := describe(e, c, err); !strings.HasPrefix(got, want) {
				t.Errorf("%s, %s: %s", test.name, request, got)
			}
			if c != nil && slices.ContainsFunc(c.Operations, func(op policy.Operation) bool { return !slices.Contains(e.Operations, op) }) {
				t.Errorf("%s, %s: %v is not of %v", test.name, request, c.Operations, e.Operations)
			}
		}
		for _, e := range f.Endpoints() { // or the gateway would not offer it, or not start
			if serves := test.config.Serves; serves != nil && slices.ContainsFunc(e.Operations, func(op policy.Operation) bool { return !serves(op) }) {
				t.Errorf("%s: %s %s has %v", test.name, e.Method, e.Pattern, e.Operations)
			}
		}
	}
}

// TestExaCallsAreApart: what one call asks for is in no other call's.
func TestExaCallsAreApart(t *testing.T) {
	s := newServer(newFace(t, "exa", everything()))
	ask := func(target string) *exchange.Call {
		_, c, err := s.parse(t, getCard(target, cookie+sealing))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first, _ := ask("/card?scope=siwe"), ask("/card?scope=provisioning")
	if !first.Has(policy.ChallengeMint) || first.Has(policy.CardProvision) {
		t.Error(first.Operations)
	}
}

// TestExaBrowsers: pages of the route's own origins call with the user's cookie, and may send and read what they need.
func TestExaBrowsers(t *testing.T) {
	more := map[string]string{"GET /card/provisioning": ",Authorization", "POST /auth/authentication": ",X-Session-Id"}
	for _, e := range newFace(t, "exa", everything()).Endpoints() {
		want := "Content-Type,sessionid,Client-Fid" + more[e.Method+" "+strings.TrimPrefix(e.Pattern, "/api")]
		if c := e.CORS; c == nil || !c.Credentials || c.AnyOrigin || strings.Join(c.Headers, ",") != want || strings.Join(c.Expose, ",") != "X-Session-Id" {
			t.Errorf("%s %s: %+v", e.Method, e.Pattern, c)
		}
	}
}

// TestExaBodiesAreBounded: what an authenticator signs fits, and not much beyond it.
func TestExaBodiesAreBounded(t *testing.T) {
	for _, e := range newFace(t, "exa", everything()).Endpoints() {
		if bounded := e.MaxBody > 16<<10 && e.MaxBody <= 32<<10; bounded != (e.Method != "GET") {
			t.Errorf("%s %s: %d bytes", e.Method, e.Pattern, e.MaxBody)
		}
	}
}
