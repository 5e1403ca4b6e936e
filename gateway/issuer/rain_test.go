package issuer_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/keys"
)

var update = flag.Bool("update", false, "write the golden files anew")

// parts are what a test of an issuer needs and what takes long to make: two RSA keys, one each for the run.
type parts struct {
	issuerKey    *rsa.PrivateKey
	clientPublic *rsa.PublicKey
	clients      *vault.ClientKeys
	vault        *vault.Vault
}

var shared = sync.OnceValue(func() *parts {
	p := &parts{}
	var err error
	p.issuerKey, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	dir, err := os.MkdirTemp("", "issuer")
	must(err)
	defer os.RemoveAll(dir)
	pem, err := keys.Generate(keys.UseSession, 2048)
	must(err)
	file := filepath.Join(dir, "session.pem")
	must(os.WriteFile(file, pem, 0o600))
	key, err := keys.Load(keys.Config{ID: "session", Use: keys.UseSession, File: file})
	must(err)
	p.clientPublic = key.Public()
	p.clients, err = vault.NewClientKeys(envelope.Rain{}, key)
	must(err)
	p.vault, err = vault.New(vault.Config{})
	must(err)
	return p
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// session opens both legs, and returns the client's end besides.
func session(t testing.TB) (*vault.Session, *sandbox.Session) {
	t.Helper()
	p := shared()
	client, err := sandbox.NewSession(p.clientPublic)
	if err != nil {
		t.Fatal(err)
	}
	preamble, err := p.clients.Parse(client.ID())
	if err != nil {
		t.Fatal(err)
	}
	to, err := vault.NewIssuerKey(envelope.Rain{}, &p.issuerKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.vault.Open(t.Context(), vault.Opening{Binding: make([]byte, 32), Client: p.clients, Preamble: preamble, Issuer: to})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, client
}

// upstream carries an issuer's requests to a server, and notes what was asked of it. What becomes of a connection that
// fails is told by the tests of package gateway, whose client is the real one.
type upstream struct {
	base   *url.URL
	client *http.Client

	mu   sync.Mutex
	seen []issuer.Request
}

func (u *upstream) RoundTrip(ctx context.Context, req *issuer.Request, res *issuer.Response) error {
	u.mu.Lock()
	u.seen = append(u.seen, *req)
	u.mu.Unlock()
	r, err := http.NewRequestWithContext(ctx, req.Method, u.base.String()+req.Path, bytes.NewReader(req.Body))
	if err != nil {
		return err
	}
	r.Header.Set("Api-Key", apiKey)
	for _, h := range req.Header {
		r.Header.Set(h.Name, h.Value)
	}
	if req.Body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := u.client.Transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	res.Status, res.ContentType = answer.StatusCode, answer.Header.Get("Content-Type")
	res.Body, err = io.ReadAll(answer.Body)
	return err
}

const (
	apiKey = "issuer-tests-api-key"
	cardID = "0d6c9c1e-card"
	userID = "u-1"
)

// newSandbox starts a real issuer over HTTPS with one card of one user, on a free loopback port.
func newSandbox(t *testing.T, change func(*sandbox.Card)) (*sandbox.Rain, sandbox.Card, *upstream) {
	t.Helper()
	card := sandbox.RandomCard(cardID, "")
	card.UserID, card.PIN = userID, "7359"
	if change != nil {
		change(&card)
	}
	rain, err := sandbox.NewRain(sandbox.RainConfig{
		APIKey: apiKey, Key: shared().issuerKey, Cards: []sandbox.Card{card},
		Users: []sandbox.User{{ID: userID, FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(rain.Handler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of requests that were given up
	server.StartTLS()
	t.Cleanup(func() {
		must(rain.Shutdown(context.Background()))
		server.Close()
	})
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return rain, card, &upstream{base: base, client: server.Client()}
}

func rain(t testing.TB) issuer.Issuer {
	t.Helper()
	kind, err := issuer.Lookup("rain")
	if err != nil {
		t.Fatal(err)
	}
	i, err := kind.New(issuer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// ask is a call for a set of operations on the one card.
func ask(s *vault.Session, operations ...policy.Operation) *issuer.Call {
	return &issuer.Call{Operations: operations, PAN: true, CVC: true, Reference: "ref-1", Card: cardID, User: userID, Session: s}
}

// TestRainExchanges: what is sent for each call, nothing else, and what comes of it. In the golden file, what differs from
// run to run stands in angle brackets.
func TestRainExchanges(t *testing.T) {
	var b strings.Builder
	for _, test := range []struct {
		name string
		call func(*vault.Session, *sandbox.Session) *issuer.Call
		card func(*sandbox.Card)
	}{
		{"card.profile", func(s *vault.Session, _ *sandbox.Session) *issuer.Call { return ask(s, policy.CardProfile) }, nil},
		{"card.profile without a session", func(*vault.Session, *sandbox.Session) *issuer.Call { return ask(nil, policy.CardProfile) }, nil},
		{"card.profile without a user", func(s *vault.Session, _ *sandbox.Session) *issuer.Call {
			c := ask(s, policy.CardProfile)
			c.User = ""
			return c
		}, nil},
		{"card.reveal", func(s *vault.Session, _ *sandbox.Session) *issuer.Call { return ask(s, policy.CardReveal) }, nil},
		{"card.reveal, number alone permitted", func(s *vault.Session, _ *sandbox.Session) *issuer.Call {
			c := ask(s, policy.CardReveal)
			c.CVC = false
			return c
		}, nil},
		{"card.reveal, code alone permitted", func(s *vault.Session, _ *sandbox.Session) *issuer.Call {
			c := ask(s, policy.CardReveal)
			c.PAN = false
			return c
		}, nil},
		{"card.reveal, neither permitted", func(s *vault.Session, _ *sandbox.Session) *issuer.Call {
			c := ask(s, policy.CardReveal)
			c.PAN, c.CVC = false, false
			return c
		}, nil},
		{"pin.reveal", func(s *vault.Session, _ *sandbox.Session) *issuer.Call { return ask(s, policy.PINReveal) }, nil},
		{"pin.reveal, none set", func(s *vault.Session, _ *sandbox.Session) *issuer.Call { return ask(s, policy.PINReveal) },
			func(c *sandbox.Card) { c.PIN = "" }},
		{"pin.set", func(s *vault.Session, client *sandbox.Session) *issuer.Call {
			c := ask(s, policy.PINSet)
			c.PIN = sealPIN(t, client, "9153")
			return c
		}, nil},
		{"card.status, freeze", func(*vault.Session, *sandbox.Session) *issuer.Call { return become(exchange.Frozen) }, nil},
		{"card.status, unfreeze", func(*vault.Session, *sandbox.Session) *issuer.Call { return become(exchange.Active) },
			func(c *sandbox.Card) { c.Status = "locked" }},
		{"card.status, cancel", func(*vault.Session, *sandbox.Session) *issuer.Call { return become(exchange.Cancelled) }, nil},
		{"card.provision", func(*vault.Session, *sandbox.Session) *issuer.Call { return ask(nil, policy.CardProvision) }, nil},
		{"everything that is read", func(s *vault.Session, _ *sandbox.Session) *issuer.Call {
			return ask(s, policy.CardProfile, policy.CardReveal, policy.PINReveal, policy.CardProvision, policy.ChallengeMint)
		}, func(c *sandbox.Card) { c.ExpiryMonth, c.Status, c.ProductID = "3", "locked", "" }},
	} {
		box, card, up := newSandbox(t, test.card)
		s, client := session(t)
		res, err := rain(t).Do(t.Context(), up, test.call(s, client))
		fmt.Fprintf(&b, "== %s\n", test.name)
		for _, line := range sent(t, up, s) {
			fmt.Fprintln(&b, line)
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if res.Card.LastFour != "" {
			if res.Card.LastFour != card.PAN[len(card.PAN)-4:] {
				t.Errorf("%s: ends in %s", test.name, res.Card.LastFour)
			}
			res.Card.LastFour = "<of the card>"
		}
		fmt.Fprintf(&b, "%+v\n", res.Card)
		for _, f := range []struct {
			name string
			v    vault.Sealed
			want string
		}{{"PAN", res.PAN, card.PAN}, {"CVC", res.CVC, card.CVC}} {
			if f.v == (vault.Sealed{}) {
				continue
			}
			if text, err := client.Open(sandbox.Sealed{IV: f.v.IV, Data: f.v.Data}); err != nil || text != f.want {
				t.Errorf("%s: %s does not open as the card's: %v", test.name, f.name, err)
			}
			fmt.Fprintf(&b, "%s <sealed for the client>\n", f.name)
		}
		switch {
		case !res.PINSet && res.PIN != (vault.Sealed{}):
			t.Errorf("%s: a PIN that is not set", test.name)
		case res.PINSet:
			if pin, err := client.OpenPIN(sandbox.Sealed{IV: res.PIN.IV, Data: res.PIN.Data}); err != nil || pin != card.PIN {
				t.Errorf("%s: the PIN does not open as the card's: %v", test.name, err)
			}
			b.WriteString("PIN <sealed for the client>\n")
		}
		if res.Provision != (exchange.Provision{}) {
			if len(res.Provision.ID) != 36 || len(res.Provision.Secret) != 32 {
				t.Errorf("%s: %+v", test.name, res.Provision)
			}
			b.WriteString("provision <id and secret>\n")
		}
		if status := box.Status(cardID); status != card.Status {
			fmt.Fprintf(&b, "the card is %s now\n", status)
		}
		if strings.HasPrefix(test.name, "pin.set") && box.PIN(cardID) != "9153" {
			t.Errorf("%s: the PIN was not set", test.name)
		}
		b.WriteByte('\n')
	}
	golden(t, "rain.golden", b.String())
}

// become is a call that changes the card's state.
func become(status exchange.CardStatus) *issuer.Call {
	c := ask(nil, policy.CardStatus)
	c.Status = status
	return c
}

func sealPIN(t testing.TB, client *sandbox.Session, pin string) vault.Sealed {
	t.Helper()
	sealed, err := client.SealPIN(pin)
	if err != nil {
		t.Fatal(err)
	}
	return vault.Sealed{Data: sealed.Data, IV: sealed.IV}
}

// sent lists what the issuer was asked, in the order of its names. The preamble of the session is the one that the gateway
// made, and the body's PIN is not the client's ciphertext.
func sent(t testing.TB, up *upstream, s *vault.Session) []string {
	t.Helper()
	var lines []string
	for _, r := range up.seen {
		line := fmt.Sprintf("%s: %s %s", r.Call, r.Method, r.Path)
		for _, h := range r.Header {
			value := h.Value
			if s != nil && value == s.IssuerPreamble() && value != "" {
				value = "<the gateway's own session>"
			}
			line += fmt.Sprintf(" | %s: %s", h.Name, value)
		}
		if r.Changes {
			line += " | changes"
		}
		if r.Body != nil {
			line += " | " + shape(t, r.Body)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// shape is a body with its base64 texts replaced.
func shape(t testing.TB, body []byte) string {
	t.Helper()
	var v struct {
		EncryptedPIN struct{ Data, IV string }
	}
	if err := json.Unmarshal(body, &v); err != nil || (v.EncryptedPIN.Data == "") != (v.EncryptedPIN.IV == "") {
		t.Fatalf("body %s: %v", body, err)
	}
	if v.EncryptedPIN.Data == "" {
		return string(body)
	}
	return strings.NewReplacer(v.EncryptedPIN.Data, "<base64>", v.EncryptedPIN.IV, "<base64>").Replace(string(body))
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (write it with -update, and read it)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\ngot\n%s\nwant\n%s", file, got, want)
	}
}

// TestRainFaults: each way in which the issuer's answer can be bad, on each call, is the right error of this package, and
// nothing comes with it: no half of an answer, and no word of the issuer's.
func TestRainFaults(t *testing.T) {
	all := []policy.Operation{policy.CardProfile, policy.CardReveal, policy.PINReveal}
	provision, status := []policy.Operation{policy.CardProfile, policy.CardProvision}, []policy.Operation{policy.CardStatus}
	for _, test := range []struct {
		name  string
		id    string
		fault sandbox.Fault
		ops   []policy.Operation
		want  error
	}{
		{"malformed card", cardID, sandbox.FaultMalformedJSON.On(sandbox.CallCard), all, issuer.ErrAnswer},
		{"malformed user", userID, sandbox.FaultMalformedJSON, all, issuer.ErrAnswer},
		{"malformed secrets", cardID, sandbox.FaultMalformedJSON.On(sandbox.CallSecrets), all, issuer.ErrAnswer},
		{"malformed PIN", cardID, sandbox.FaultMalformedJSON.On(sandbox.CallPIN), all, issuer.ErrAnswer},
		{"empty card", cardID, sandbox.FaultEmptyBody.On(sandbox.CallCard), all, issuer.ErrAnswer},
		{"empty user", userID, sandbox.FaultEmptyBody, all, issuer.ErrAnswer},
		{"empty secrets", cardID, sandbox.FaultEmptyBody.On(sandbox.CallSecrets), all, issuer.ErrAnswer},
		{"empty PIN", cardID, sandbox.FaultEmptyBody.On(sandbox.CallPIN), all, issuer.ErrAnswer},
		{"wrong ciphertext of secrets", cardID, sandbox.FaultWrongCiphertext.On(sandbox.CallSecrets), all, issuer.ErrAnswer},
		{"wrong ciphertext of PIN", cardID, sandbox.FaultWrongCiphertext.On(sandbox.CallPIN), all, issuer.ErrAnswer},
		{"wrong IV of secrets", cardID, sandbox.FaultWrongIV.On(sandbox.CallSecrets), all, issuer.ErrAnswer},
		{"wrong IV of PIN", cardID, sandbox.FaultWrongIV.On(sandbox.CallPIN), all, issuer.ErrAnswer},
		{"missing expiry", cardID, sandbox.FaultMissingField.On(sandbox.CallCard), all, issuer.ErrAnswer},
		{"missing CVC", cardID, sandbox.FaultMissingField.On(sandbox.CallSecrets), all, issuer.ErrAnswer},
		{"missing PIN", cardID, sandbox.FaultMissingField.On(sandbox.CallPIN), all, issuer.ErrAnswer},
		{"500", cardID, sandbox.Fault500.On(sandbox.CallSecrets), all, issuer.ErrFailed},
		{"500 of the user", userID, sandbox.Fault500, all, issuer.ErrFailed},
		{"500 to a PIN", cardID, sandbox.Fault500.On(sandbox.CallSetPIN), []policy.Operation{policy.PINSet}, issuer.ErrFailed},
		{"card number in the error", cardID, sandbox.FaultPANInError.On(sandbox.CallSecrets), all, issuer.ErrFailed},
		{"card number in the error to a PIN", cardID, sandbox.FaultPANInError.On(sandbox.CallSetPIN), []policy.Operation{policy.PINSet}, issuer.ErrFailed},
		{"redirect", cardID, sandbox.FaultRedirect.On(sandbox.CallSecrets), all, issuer.ErrAnswer},
		{"redirect of the PIN", cardID, sandbox.FaultRedirect.On(sandbox.CallPIN), all, issuer.ErrAnswer},
		{"malformed processor", cardID, sandbox.FaultMalformedJSON.On(sandbox.CallProcessor), provision, issuer.ErrAnswer},
		{"empty processor", cardID, sandbox.FaultEmptyBody.On(sandbox.CallProcessor), provision, issuer.ErrAnswer},
		{"missing secret", cardID, sandbox.FaultMissingField.On(sandbox.CallProcessor), provision, issuer.ErrAnswer},
		{"500 of the processor", cardID, sandbox.Fault500.On(sandbox.CallProcessor), provision, issuer.ErrFailed},
		{"malformed card before a change", cardID, sandbox.FaultMalformedJSON.On(sandbox.CallCard), status, issuer.ErrAnswer},
		{"500 before a change", cardID, sandbox.Fault500.On(sandbox.CallCard), status, issuer.ErrFailed},
		{"500 to a change", cardID, sandbox.Fault500.On(sandbox.CallUpdate), status, issuer.ErrFailed},
		{"card number in the error to a change", cardID, sandbox.FaultPANInError.On(sandbox.CallUpdate), status, issuer.ErrFailed},
		{"redirect of a change", cardID, sandbox.FaultRedirect.On(sandbox.CallUpdate), status, issuer.ErrAnswer},
		{"redirect of a PIN that is set", cardID, sandbox.FaultRedirect.On(sandbox.CallSetPIN), []policy.Operation{policy.PINSet}, issuer.ErrAnswer},
	} {
		box, card, up := newSandbox(t, nil)
		box.SetFault(test.id, test.fault)
		s, client := session(t)
		call := ask(s, test.ops...)
		if call.Has(policy.PINSet) {
			call.PIN = sealPIN(t, client, "9153")
		}
		call.Status = exchange.Frozen
		res, err := rain(t).Do(t.Context(), up, call)
		if !errors.Is(err, test.want) || res != nil {
			t.Errorf("%s: %v, %v; want %v", test.name, res, err, test.want)
		}
		for _, secret := range []string{card.PAN, card.CVC, card.PIN, "processor refused", "Something went wrong"} {
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error quotes the issuer: %v", test.name, err)
			}
		}
		for _, r := range box.Requests() {
			if strings.Contains(r.Path, "redirected") {
				t.Errorf("%s: the redirect was followed", test.name)
			}
		}
	}
}

// TestRainPINThatIsSet: what the body of the answer to a PIN that was set says does not matter, only its status.
func TestRainPINThatIsSet(t *testing.T) {
	for name, fault := range map[string]sandbox.Fault{"{}": {}, "empty": sandbox.FaultEmptyBody, "malformed": sandbox.FaultMalformedJSON} {
		box, _, up := newSandbox(t, nil)
		box.SetFault(cardID, fault)
		s, client := session(t)
		call := ask(s, policy.PINSet)
		call.PIN = sealPIN(t, client, "9153")
		if _, err := rain(t).Do(t.Context(), up, call); err != nil || box.PIN(cardID) != "9153" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRainStatus: a card is asked for its state before it is changed, and is changed only where that makes a difference.
func TestRainStatus(t *testing.T) {
	words := map[exchange.CardStatus]string{
		exchange.Active: "active", exchange.Frozen: "locked", exchange.Cancelled: "canceled", exchange.Inactive: "notActivated",
	}
	for was, before := range words {
		for want, after := range words {
			box, _, up := newSandbox(t, func(c *sandbox.Card) { c.Status = before })
			res, err := rain(t).Do(t.Context(), up, become(want))
			expected, changes := error(nil), 0
			switch {
			case want == exchange.Inactive:
				if err == nil || box.Total() != 0 || errors.Is(err, issuer.ErrRefused) {
					t.Errorf("%s to %s: %v, %d requests", before, after, err, box.Total())
				}
				continue
			case was == want:
				expected = issuer.ErrSet
			case was == exchange.Cancelled:
				expected = issuer.ErrNoCard
			default:
				changes = 1
			}
			if !errors.Is(err, expected) || (err == nil) != (expected == nil) || (res == nil) != (err != nil) {
				t.Errorf("%s to %s: %v, %v", before, after, res, err)
			}
			if box.Count(sandbox.CallUpdate) != changes || box.Count(sandbox.CallCard) != 1 {
				t.Errorf("%s to %s: %d changes, %d questions", before, after, box.Count(sandbox.CallUpdate), box.Count(sandbox.CallCard))
			}
			if now := box.Status(cardID); changes == 1 && now != after || changes == 0 && now != before {
				t.Errorf("%s to %s: the card is %s", before, after, now)
			}
		}
	}
}

// TestRainStatusThatIsSet: what the body of the answer to a change says does not matter, only its status. A change that the
// issuer refuses, because somebody cancelled the card meanwhile, is a refusal.
func TestRainStatusThatIsSet(t *testing.T) {
	for name, test := range map[string]struct {
		answer issuer.Response
		want   error
	}{
		"card": {ok(cardBody("active", "locked")), nil}, "empty": {ok(""), nil}, "204": {issuer.Response{Status: 204}, nil}, "malformed": {ok("{"), nil},
		"refused": {issuer.Response{Status: 400, Body: []byte(`{"message":"Card is canceled"}`)}, issuer.ErrRefused},
		"gone":    {issuer.Response{Status: 404}, issuer.ErrNoCard},
	} {
		_, err := rain(t).Do(t.Context(), canned{cardPath: ok(cardBody()), patchPath: test.answer}, become(exchange.Frozen))
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRainProvision: both members, each a text that says something.
func TestRainProvision(t *testing.T) {
	const good = `{"processorCardId":"p-1","timeBasedSecret":"otp","new":1}`
	res, err := rain(t).Do(t.Context(), canned{processorPath: ok(good)}, ask(nil, policy.CardProvision))
	if err != nil || res.Provision != (exchange.Provision{ID: "p-1", Secret: "otp"}) || res.Card != (exchange.Card{}) {
		t.Errorf("%+v, %v", res, err)
	}
	for _, body := range []string{
		`{"processorCardId":"p-1"}`, `{"timeBasedSecret":"4111111111111111"}`, `{"processorCardId":"","timeBasedSecret":"4111111111111111"}`,
		`{"processorCardId":"p-1","timeBasedSecret":null}`, `{"processorCardId":"p-1","timeBasedSecret":4111111111111111}`, `null`, `[]`, ``,
		`{"processorCardId":"p-1","timeBasedSecret":"4111111111111111","timeBasedSecret":"otp"}`, `{"ProcessorCardId":"p-1","timeBasedSecret":"4111111111111111"}`,
	} {
		res, err := rain(t).Do(t.Context(), canned{processorPath: ok(body)}, ask(nil, policy.CardProvision))
		if !errors.Is(err, issuer.ErrAnswer) || res != nil || strings.Contains(err.Error(), "4111") {
			t.Errorf("%s: %+v, %v", body, res, err)
		}
	}
}

// TestRainBadPIN: a PIN that the vault refuses is not sent at all.
func TestRainBadPIN(t *testing.T) {
	for _, test := range []struct {
		name string
		pin  func(*sandbox.Session) vault.Sealed
		want error
	}{
		{"weak", func(c *sandbox.Session) vault.Sealed { return sealPIN(t, c, "1234") }, vault.ErrWeakPIN},
		{"no block", func(c *sandbox.Session) vault.Sealed {
			s := c.Seal("9153")
			return vault.Sealed{Data: s.Data, IV: s.IV}
		}, vault.ErrOpen},
		{"another session", func(*sandbox.Session) vault.Sealed { _, other := session(t); return sealPIN(t, other, "9153") }, vault.ErrOpen},
		{"nothing", func(*sandbox.Session) vault.Sealed { return vault.Sealed{} }, vault.ErrOpen},
	} {
		box, _, up := newSandbox(t, nil)
		s, client := session(t)
		call := ask(s, policy.PINSet)
		call.PIN = test.pin(client)
		res, err := rain(t).Do(t.Context(), up, call)
		if !errors.Is(err, test.want) || errors.Is(err, issuer.ErrAnswer) || res != nil || box.Total() != 0 {
			t.Errorf("%s: %v, %v, %d requests", test.name, res, err, box.Total())
		}
	}
}

// TestRainRefusesUs: its 401 and 400 are its refusals of our requests, its 404 a card that it does not know.
func TestRainRefusesUs(t *testing.T) {
	box, _, up := newSandbox(t, nil)
	s, _ := session(t)
	unknown := ask(s, policy.CardReveal)
	unknown.Card = "nobody's"
	if _, err := rain(t).Do(t.Context(), up, unknown); !errors.Is(err, issuer.ErrNoCard) {
		t.Errorf("unknown card: %v", err)
	}
	// A user whom it does not know is a contradiction of its own answers, not a card that is not there.
	stranger := ask(s, policy.CardProfile)
	stranger.User = "u-2"
	if _, err := rain(t).Do(t.Context(), up, stranger); !errors.Is(err, issuer.ErrAnswer) || errors.Is(err, issuer.ErrNoCard) {
		t.Errorf("unknown user: %v", err)
	}
	closed, _ := session(t)
	closed.Close()
	if _, err := rain(t).Do(t.Context(), up, ask(closed, policy.CardReveal)); !errors.Is(err, issuer.ErrRefused) {
		t.Errorf("no session: %v", err)
	}
	if box.Count(sandbox.CallSetPIN) != 0 {
		t.Error("a PIN was set")
	}
}

// canned answers each path with one response.
type canned map[string]issuer.Response

func (c canned) RoundTrip(_ context.Context, req *issuer.Request, res *issuer.Response) error {
	answer, ok := c[req.Method+" "+req.Path]
	if !ok {
		return fmt.Errorf("%w: %s %s", errUnexpected, req.Method, req.Path)
	}
	*res = answer
	return nil
}

var errUnexpected = errors.New("unexpected request")

func ok(body string) issuer.Response {
	return issuer.Response{Status: 200, ContentType: "application/json", Body: []byte(body)}
}

const (
	cardPath    = "GET /issuing/cards/" + cardID
	secretsPath = cardPath + "/secrets"
	pinPath     = cardPath + "/pin"
	putPIN      = "PUT /issuing/cards/" + cardID + "/pin"
	userPath    = "GET /issuing/users/" + userID
	patchPath   = "PATCH /issuing/cards/" + cardID

	processorPath = cardPath + "/processorDetails"
	noPIN         = "Failed to get PIN, card does not have PIN set"
)

// TestRainNoPIN: the contract's ways to say that no PIN is set, and what is none of them.
func TestRainNoPIN(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer issuer.Response
		want   error
	}{
		{"null member", ok(`{"encryptedPin":null}`), nil},
		{"null", ok(`null`), nil},
		{"text as message, 400", issuer.Response{Status: 400, Body: []byte(`{"error":"BadRequestError","message":"` + noPIN + `"}`)}, nil},
		{"text as error, 404", issuer.Response{Status: 404, Body: []byte(`{"error":"` + noPIN + `"}`)}, nil},
		{"text, 500", issuer.Response{Status: 500, Body: []byte(`{"error":"InternalServerError","message":"` + noPIN + `"}`)}, nil},

		{"{}", ok(`{}`), issuer.ErrAnswer},
		{"empty member", ok(`{"encryptedPin":{}}`), issuer.ErrAnswer},
		{"member in another case", ok(`{"EncryptedPin":null}`), issuer.ErrAnswer},
		{"false", ok(`{"encryptedPin":false}`), issuer.ErrAnswer},
		{"twice", ok(`{"encryptedPin":{"iv":"a","data":"b"},"encryptedPin":null}`), issuer.ErrAnswer},
		{"half a field", ok(`{"encryptedPin":{"iv":"AAECAwQFBgcICQoLDA0ODw=="}}`), issuer.ErrAnswer},
		{"text in a success", ok(`{"message":"` + noPIN + `"}`), issuer.ErrAnswer},
		{"another text", issuer.Response{Status: 400, Body: []byte(`{"message":"` + noPIN + `!"}`)}, issuer.ErrRefused},
		{"text as plain text", issuer.Response{Status: 400, Body: []byte(noPIN)}, issuer.ErrRefused},
		{"no text, 404", issuer.Response{Status: 404}, issuer.ErrNoCard},
		{"no text, 500", issuer.Response{Status: 500}, issuer.ErrFailed},
		{"no status", issuer.Response{}, issuer.ErrAnswer},
	} {
		s, _ := session(t)
		res, err := rain(t).Do(t.Context(), canned{pinPath: test.answer}, ask(s, policy.PINReveal))
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v", test.name, err)
		}
		if err == nil && (res.PINSet || res.PIN != (vault.Sealed{})) {
			t.Errorf("%s: a PIN", test.name)
		}
	}
}

// TestRainWeakPIN: the issuer's own judgement of a PIN, in either member, and nothing else that looks like it.
func TestRainWeakPIN(t *testing.T) {
	for _, test := range []struct {
		status int
		body   string
		want   error
	}{
		{400, `{"error":"BadRequestError","message":"Weak PIN"}`, issuer.ErrWeakPIN},
		{422, `{"error":"Weak PIN"}`, issuer.ErrWeakPIN},
		{400, `{"error":"BadRequestError","message":"weak pin"}`, issuer.ErrRefused},
		{400, `{"message":"Weak PIN","message":"x"}`, issuer.ErrRefused},
		{400, `Weak PIN`, issuer.ErrRefused},
		{200, `{"error":"Weak PIN"}`, nil},
	} {
		s, client := session(t)
		call := ask(s, policy.PINSet)
		call.PIN = sealPIN(t, client, "9153")
		_, err := rain(t).Do(t.Context(), canned{putPIN: {Status: test.status, Body: []byte(test.body)}}, call)
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%d %s: %v", test.status, test.body, err)
		}
	}
}

func cardBody(change ...string) string {
	body := `{"userId":"u-1","status":"active","last4":"1111","expirationMonth":"12","expirationYear":"2030","limit":{"amount":5,"frequency":"perYearPeriod"},"productId":"402","new":[1]}`
	return strings.NewReplacer(change...).Replace(body)
}

// TestRainCard: how the issuer's card becomes ours, and which cards are none.
func TestRainCard(t *testing.T) {
	good := exchange.Card{
		ID: "ref-1", LastFour: "1111", ExpiryMonth: "12", ExpiryYear: "2030", Status: exchange.Active, Holder: "Ada Lovelace",
		Limit: exchange.Limit{Amount: 5, Frequency: "perYearPeriod"}, Product: "402",
	}
	with := func(change func(*exchange.Card)) exchange.Card { c := good; change(&c); return c }
	users := ok(`{"firstName":"Ada","lastName":"Lovelace","email":"ada@example.com"}`)
	for name, test := range map[string]struct {
		card, user string
		want       exchange.Card
	}{
		"as it is":          {cardBody(), "", good},
		"month without 0":   {cardBody(`"12"`, `"9"`), "", with(func(c *exchange.Card) { c.ExpiryMonth = "09" })},
		"month with 0":      {cardBody(`"12"`, `"09"`), "", with(func(c *exchange.Card) { c.ExpiryMonth = "09" })},
		"locked":            {cardBody("active", "locked"), "", with(func(c *exchange.Card) { c.Status = exchange.Frozen })},
		"canceled":          {cardBody("active", "canceled"), "", with(func(c *exchange.Card) { c.Status = exchange.Cancelled })},
		"not activated":     {cardBody("active", "notActivated"), "", with(func(c *exchange.Card) { c.Status = exchange.Inactive })},
		"no product":        {cardBody(`"productId":"402",`, ""), "", with(func(c *exchange.Card) { c.Product = "" })},
		"first name alone":  {cardBody(), `{"firstName":"Ada"}`, with(func(c *exchange.Card) { c.Holder = "Ada" })},
		"last name alone":   {cardBody(), `{"lastName":"Lovelace"}`, with(func(c *exchange.Card) { c.Holder = "Lovelace" })},
		"a name with marks": {cardBody(), `{"firstName":"\"Ada\u2028","lastName":"</b>"}`, with(func(c *exchange.Card) { c.Holder = "\"Ada\u2028 </b>" })},
	} {
		user := users
		if test.user != "" {
			user = ok(test.user)
		}
		res, err := rain(t).Do(t.Context(), canned{cardPath: ok(test.card), userPath: user}, ask(nil, policy.CardProfile))
		if err != nil || res.Card != test.want {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	for name, body := range map[string]string{
		"no last4": cardBody(`"last4":"1111",`, ""), "last4 of three": cardBody(`"1111"`, `"111"`), "last4 of a whole number": cardBody(`"1111"`, `"4111111111111111"`),
		"last4 of letters": cardBody(`"1111"`, `"111a"`), "last4 of other digits": cardBody(`"1111"`, `"١١"`), "last4 as a number": cardBody(`"1111"`, `1111`),
		"no month": cardBody(`"expirationMonth":"12",`, ""), "month of three": cardBody(`"12"`, `"012"`), "month of letters": cardBody(`"12"`, `"ab"`),
		"month 13": cardBody(`"12"`, `"13"`), "month 0": cardBody(`"12"`, `"0"`), "month 00": cardBody(`"12"`, `"00"`),
		"no year": cardBody(`"expirationYear":"2030",`, ""), "short year": cardBody(`"2030"`, `"30"`),
		"unknown status": cardBody("active", "Active"), "no status": cardBody(`"status":"active",`, ""),
		"amount of a half": cardBody(`:5,`, `:5.5,`), "amount as text": cardBody(`:5,`, `:"5",`),
		"null": "null", "a list": "[]", "empty": "", "twice": cardBody(`"new":[1]`, `"last4":"2222"`), "not UTF-8": cardBody("402", "\xff"),
	} {
		res, err := rain(t).Do(t.Context(), canned{cardPath: ok(body), userPath: users}, ask(nil, policy.CardProfile))
		if !errors.Is(err, issuer.ErrAnswer) || res != nil {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
		if err != nil && (strings.Contains(err.Error(), "1111") || strings.Contains(err.Error(), "2222")) {
			t.Errorf("%s: the error quotes: %v", name, err)
		}
	}
}

// TestRainGuardsText: a card number in what the issuer writes freely of a card or of its user is not handed on [16].
func TestRainGuardsText(t *testing.T) {
	const ada = `{"firstName":"Ada","lastName":"Lovelace"}`
	for name, test := range map[string]struct{ card, user string }{
		"first name":      {cardBody(), `{"firstName":"4111 1111 1111 1111","lastName":"Lovelace"}`},
		"last name":       {cardBody(), `{"firstName":"Ada","lastName":"4111111111111111"}`},
		"both names":      {cardBody(), `{"firstName":"4111 1111","lastName":"1111 1111"}`},
		"product":         {cardBody(`"402"`, `"4111111111111111"`), ada},
		"limit frequency": {cardBody("perYearPeriod", "4111-1111-1111-1111"), ada},
	} {
		res, err := rain(t).Do(t.Context(), canned{cardPath: ok(test.card), userPath: ok(test.user)}, ask(nil, policy.CardProfile))
		if !errors.Is(err, issuer.ErrGuard) || res != nil || strings.Contains(err.Error(), "1111") {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
}

// TestRainStatuses: an answer's status alone decides what it is; its text is passed on to nobody.
func TestRainStatuses(t *testing.T) {
	for status, want := range map[int]error{
		0: issuer.ErrAnswer, 100: issuer.ErrAnswer, 199: issuer.ErrAnswer, 301: issuer.ErrAnswer, 304: issuer.ErrAnswer, 307: issuer.ErrAnswer,
		400: issuer.ErrRefused, 401: issuer.ErrRefused, 403: issuer.ErrRefused, 404: issuer.ErrNoCard, 409: issuer.ErrRefused, 429: issuer.ErrRefused,
		500: issuer.ErrFailed, 502: issuer.ErrFailed, 503: issuer.ErrFailed, 599: issuer.ErrFailed, 600: issuer.ErrAnswer,
	} {
		answer := issuer.Response{Status: status, Body: []byte(`{"error":"4111111111111111","message":"4111111111111111"}`)}
		for _, operation := range []policy.Operation{policy.CardReveal, policy.PINReveal, policy.PINSet, policy.CardStatus, policy.CardProvision} {
			s, client := session(t)
			call := ask(s, operation)
			call.PIN, call.Status = sealPIN(t, client, "9153"), exchange.Frozen
			up := canned{cardPath: ok(cardBody()), secretsPath: answer, pinPath: answer, putPIN: answer, patchPath: answer, processorPath: answer}
			if _, err := rain(t).Do(t.Context(), up, call); !errors.Is(err, want) || strings.Contains(err.Error(), "4111") {
				t.Errorf("%d to %s: %v", status, operation, err)
			}
		}
	}
}

// failing is an upstream that does not get through.
type failing struct{ err error }

func (f failing) RoundTrip(context.Context, *issuer.Request, *issuer.Response) error { return f.err }

// TestRainPassesOn: what the upstream says of the way is passed on as it is, so that the gateway knows what became of a
// change.
func TestRainPassesOn(t *testing.T) {
	for _, want := range []error{issuer.ErrUnreachable, issuer.ErrTimeout, issuer.ErrLost, issuer.ErrTooLarge, context.Canceled, context.DeadlineExceeded} {
		for _, operation := range served {
			s, client := session(t)
			call := ask(s, operation)
			call.PIN, call.Status = sealPIN(t, client, "9153"), exchange.Frozen
			if res, err := rain(t).Do(t.Context(), failing{fmt.Errorf("there: %w", want)}, call); !errors.Is(err, want) || res != nil {
				t.Errorf("%s, %v: %v, %v", operation, want, res, err)
			}
		}
	}
}

// waiting answers the profile with an error, and everything else only when the caller gives up.
type waiting struct{ gaveUp chan struct{} }

func (w waiting) RoundTrip(ctx context.Context, req *issuer.Request, _ *issuer.Response) error {
	if req.Call == "card" {
		return issuer.ErrUnreachable
	}
	<-ctx.Done()
	w.gaveUp <- struct{}{}
	return ctx.Err()
}

// TestRainFirstErrorEndsTheOthers, and it is the one that is told.
func TestRainFirstErrorEndsTheOthers(t *testing.T) {
	s, _ := session(t)
	w := waiting{make(chan struct{}, 3)}
	_, err := rain(t).Do(t.Context(), w, ask(s, policy.CardProfile, policy.CardReveal, policy.PINReveal))
	if !errors.Is(err, issuer.ErrUnreachable) || len(w.gaveUp) != 3 {
		t.Errorf("%v, %d gave up", err, len(w.gaveUp))
	}
}

// TestRainEscapesIDs: an id cannot become a path of its own.
func TestRainEscapesIDs(t *testing.T) {
	var paths []string
	up := recording(func(r *issuer.Request) { paths = append(paths, r.Path) })
	for _, id := range []string{"a/../b", "a?x=y", "a#b", "a%2fb", "ä b", ".."} {
		paths = nil
		call := ask(nil, policy.PINReveal)
		call.Session, _ = session(t)
		call.Card = id
		if _, err := rain(t).Do(t.Context(), up, call); !errors.Is(err, errUnexpected) {
			t.Fatal(err)
		}
		want := "/issuing/cards/" + url.PathEscape(id) + "/pin"
		if len(paths) != 1 || paths[0] != want || strings.Count(paths[0], "/") != 4 || strings.ContainsAny(paths[0], "?# ") {
			t.Errorf("%q is asked for as %v", id, paths)
		}
	}
}

type recording func(*issuer.Request)

func (f recording) RoundTrip(_ context.Context, r *issuer.Request, _ *issuer.Response) error {
	f(r)
	return errUnexpected
}

// served are the operations of Rain.
var served = []policy.Operation{policy.CardProfile, policy.CardReveal, policy.CardStatus, policy.CardProvision, policy.PINReveal, policy.PINSet}

func TestRainServes(t *testing.T) {
	i := rain(t)
	for _, op := range policy.Operations() {
		if want := slices.Contains(served, op); i.Serves(op) != want {
			t.Errorf("%s: %t", op, !want)
		}
	}
	if i.Serves("") {
		t.Error("no operation is served")
	}
}

func TestLookupNamesTheKnown(t *testing.T) {
	if _, err := issuer.Lookup("Rain"); err == nil || err.Error() != `unknown issuer kind "Rain" (known: bridge, forward, gnosispay, payroc, rain)` {
		t.Error(err)
	}
	if kind, err := issuer.Lookup("rain"); err != nil || kind.CredentialHeader != "Api-Key" || kind.SessionFormat != "rain" {
		t.Errorf("%+v, %v", kind, err)
	}
}

// FuzzRainAnswers: whatever the issuer answers, the result is whole and fits the canonical form, or there is an error of
// this package and no result; nothing of the answer is in the error.
func FuzzRainAnswers(f *testing.F) {
	f.Add(200, cardBody(), `{"firstName":"Ada","lastName":"Lovelace"}`, `{"encryptedPin":null}`, `{"processorCardId":"p-1","timeBasedSecret":"otp"}`)
	f.Add(200, cardBody(`"12"`, `"1"`), `{}`, `null`, `{"processorCardId":"","timeBasedSecret":"\u0000"}`)
	f.Add(200, "\xff", `{"firstName":"\ud800"}`, `{"encryptedPin":{"iv":"AAECAwQFBgcICQoLDA0ODw==","data":"iE0P/HJ++NeHTG6Ljo69T5u+ew=="}}`, `null`)
	f.Add(400, cardBody(), ``, `{"message":"`+noPIN+`"}`, `{"processorCardId":1}`)
	f.Add(307, ``, ``, ``, ``)
	f.Fuzz(func(t *testing.T, status int, card, user, pin, processor string) {
		s, _ := session(t)
		up := canned{
			cardPath: ok(card), userPath: ok(user), pinPath: {Status: status, Body: []byte(pin)}, processorPath: ok(processor),
		}
		res, err := rain(t).Do(t.Context(), up, ask(s, policy.CardProfile, policy.PINReveal, policy.CardProvision))
		if err != nil {
			known := slices.ContainsFunc([]error{issuer.ErrAnswer, issuer.ErrFailed, issuer.ErrRefused, issuer.ErrNoCard, issuer.ErrGuard}, func(e error) bool { return errors.Is(err, e) })
			if res != nil || !known {
				t.Fatalf("%v, %v", res, err)
			}
			for _, body := range []string{card, user, pin, processor} {
				if len(body) > 20 && strings.Contains(err.Error(), body) {
					t.Fatalf("the error quotes: %v", err)
				}
			}
			return
		}
		c := res.Card
		month := c.ExpiryMonth
		if len(c.LastFour) != 4 || len(c.ExpiryYear) != 4 || strings.Trim(c.LastFour+c.ExpiryYear+month, "0123456789") != "" || c.Status == 0 ||
			len(month) != 2 || month < "01" || month > "12" || c.ID != "ref-1" {
			t.Fatalf("%+v", c)
		}
		if slices.ContainsFunc([]string{c.Holder, c.Product, c.Limit.Frequency}, vault.HoldsPANString) {
			t.Fatalf("a card number: %+v", c)
		}
		if res.Provision.ID == "" || res.Provision.Secret == "" {
			t.Fatalf("%+v", res.Provision)
		}
		if res.PINSet { // nobody but the issuer's end of this very session can make one
			t.Fatal("a PIN out of nowhere")
		}
	})
}
