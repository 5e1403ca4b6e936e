package face_test

import (
	"strings"
	"testing"

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

	{"header first: two sessionids, bad query, no user", getCard("/api/card?scope=siwe", sealing+sealing)},
	{"header first: bad sessionid, bad query, no user", getCard("/api/card?scope=siwe", "sessionid: %%\n")},
	{"query second: bad query, no user", getCard("/api/card?scope=siwe", sealing)},
	{"user third", getCard("/api/card", sealing)},

	{"scope: siwe with webauthn", getCard("/api/card?scope=siwe&scope=webauthn", cookie)},
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
	{"PATCH", strings.Replace(getCard("/api/card", cookie), "GET", "PATCH", 1)},
	{"a path below", getCard("/api/card/provisioning", cookie)},
}

func TestExaRequests(t *testing.T) {
	golden(t, "exa.requests.golden", describeAll(t, newFace(t, "exa", everything()), exaRequests))
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
