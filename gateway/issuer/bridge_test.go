package issuer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

func bridge(t testing.TB) issuer.Issuer {
	t.Helper()
	kind, err := issuer.Lookup("bridge")
	must(err)
	i, err := kind.New(issuer.Config{})
	must(err)
	return i
}

// toBridge is a session whose issuer's leg is in clear, with the client's end of it.
func toBridge(t testing.TB) (*vault.Session, *sandbox.Session) {
	t.Helper()
	p := shared()
	client, err := sandbox.NewSession(p.clientPublic)
	must(err)
	preamble, err := p.clients.Parse(client.ID())
	must(err)
	s, err := p.vault.Open(t.Context(), vault.Opening{Binding: make([]byte, 32), Client: p.clients, Preamble: preamble, Issuer: vault.InsecureClearIssuer()})
	must(err)
	t.Cleanup(s.Close)
	return s, client
}

// clearly is a session of two legs in clear.
func clearly(t testing.TB) *vault.Session {
	t.Helper()
	s, err := shared().vault.Open(t.Context(), vault.Opening{Binding: make([]byte, 32), Client: vault.InsecureClearClient(), Issuer: vault.InsecureClearIssuer()})
	must(err)
	t.Cleanup(s.Close)
	return s
}

// bridgeUpstream carries requests to a server as package gateway's client does, notes what was asked, and keeps the bodies that the
// vault read, to see whether they were closed.
type bridgeUpstream struct {
	base   string
	client *http.Client

	mu     sync.Mutex
	seen   []issuer.Request
	bodies []*vault.Body
}

func (u *bridgeUpstream) RoundTrip(ctx context.Context, req *issuer.Request, res *issuer.Response) error {
	u.mu.Lock()
	u.seen = append(u.seen, *req)
	u.mu.Unlock()
	r, err := http.NewRequestWithContext(ctx, req.Method, u.base+req.Path+"?"+req.Query, bytes.NewReader(req.Body))
	if err != nil {
		return err
	}
	if !req.Anonymous {
		r.Header.Set("Api-Key", apiKey)
	}
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
	return u.receive(req, answer.StatusCode, answer.Body, res)
}

func (u *bridgeUpstream) receive(req *issuer.Request, status int, body io.Reader, res *issuer.Response) (err error) {
	res.Status = status
	if req.Shape == nil || status/100 != 2 {
		res.Body, err = io.ReadAll(body)
		return err
	}
	if res.Clear, err = vault.ReadBody(body, -1, req.Shape); err != nil {
		return fmt.Errorf("%w: %w", issuer.ErrAnswer, err)
	}
	u.mu.Lock()
	u.bodies = append(u.bodies, res.Clear)
	u.mu.Unlock()
	return nil
}

// closed asserts that nothing is left of any body with card data.
func (u *bridgeUpstream) closed(t *testing.T, name string) {
	t.Helper()
	for _, b := range u.bodies {
		if _, err := b.Digest(vault.CanonRaw); err == nil {
			t.Errorf("%s: card details are left", name)
		}
	}
}

// asked is the first request of a call, the zero Request where there was none.
func (u *bridgeUpstream) asked(call string) issuer.Request {
	for _, r := range u.seen {
		if r.Call == call {
			return r
		}
	}
	return issuer.Request{}
}

func newBridgeSandbox(t *testing.T, change func(*sandbox.Card)) (*sandbox.Bridge, sandbox.Card, *bridgeUpstream) {
	t.Helper()
	card := sandbox.RandomCard(cardID, "")
	card.UserID, card.PIN = userID, "7359"
	if change != nil {
		change(&card)
	}
	box, err := sandbox.NewBridge(sandbox.BridgeConfig{APIKey: apiKey, Cards: []sandbox.Card{card}})
	must(err)
	server := httptest.NewUnstartedServer(box.Handler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(func() {
		must(box.Shutdown(context.Background()))
		server.Close()
	})
	return box, card, &bridgeUpstream{base: server.URL, client: server.Client()}
}

// change is a call that makes the card so.
func change(status exchange.CardStatus) *issuer.Call {
	c := ask(nil, policy.CardStatus)
	c.Status = status
	return c
}

// TestBridgeExchanges: what is sent for each call, nothing else, and what comes of it. In the golden file, what differs from
// run to run stands in angle brackets.
func TestBridgeExchanges(t *testing.T) {
	reveals := func(pan, cvc bool) func(*vault.Session) *issuer.Call {
		return func(s *vault.Session) *issuer.Call {
			c := ask(s, policy.CardReveal)
			c.PAN, c.CVC = pan, cvc
			return c
		}
	}
	changes := func(status exchange.CardStatus, key string) func(*vault.Session) *issuer.Call {
		return func(*vault.Session) *issuer.Call {
			c := change(status)
			c.IdempotencyKey = key
			return c
		}
	}
	var b strings.Builder
	for _, test := range []struct {
		name string
		call func(*vault.Session) *issuer.Call
		card func(*sandbox.Card)
	}{
		{"card.profile", func(*vault.Session) *issuer.Call { return ask(nil, policy.CardProfile) }, nil},
		{"card.reveal", reveals(true, true), nil},
		{"card.reveal, number alone permitted", reveals(true, false), nil},
		{"card.reveal, code alone permitted", reveals(false, true), nil},
		{"card.reveal, neither permitted", reveals(false, false), nil},
		{"everything that is read", func(s *vault.Session) *issuer.Call { return ask(s, policy.CardProfile, policy.CardReveal) },
			func(c *sandbox.Card) { c.ExpiryMonth, c.Status, c.PIN = "3", "locked", "" }},
		{"freeze", changes(exchange.Frozen, ""), nil},
		{"freeze, under the caller's key", changes(exchange.Frozen, "5a3c"), nil},
		{"unfreeze", changes(exchange.Active, ""), func(c *sandbox.Card) { c.Status = "locked" }},
	} {
		_, card, up := newBridgeSandbox(t, test.card)
		s, client := toBridge(t)
		res, err := bridge(t).Do(t.Context(), up, test.call(s))
		fmt.Fprintf(&b, "== %s\n", test.name)
		for _, line := range up.sent(t) {
			fmt.Fprintln(&b, line)
		}
		up.closed(t, test.name)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if last := res.Card.LastFour; last != card.PAN[len(card.PAN)-4:] || res.Card.BIN != card.PAN[:6] {
			t.Errorf("%s: from %s to %s", test.name, res.Card.BIN, last)
		}
		res.Card.LastFour, res.Card.BIN = "<of the card>", "<of the card>"
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
		b.WriteByte('\n')
	}
	golden(t, "bridge.golden", b.String())
}

var bridgeProof = regexp.MustCompile(`^secret=([0-9a-f]{64})&timestamp=([0-9]+)$`)

// sent lists what was asked, in the order of its names, and checks what differs from run to run: the proof is fresh, and the
// nonce its own.
func (u *bridgeUpstream) sent(t testing.TB) []string {
	t.Helper()
	var nonce string
	if proof := bridgeProof.FindStringSubmatch(u.asked("reveal").Query); proof != nil {
		nonce = sandbox.BridgeNonce(proof[1], proof[2])
		if at, err := strconv.ParseInt(proof[2], 10, 64); err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
			t.Errorf("timestamp %s", proof[2])
		}
	}
	fresh := regexp.MustCompile(`^[0-9a-f]{32}$`)
	var lines []string
	for _, r := range u.seen {
		line := fmt.Sprintf("%s: %s %s", r.Call, r.Method, r.Path)
		if r.Query != "" {
			line += "?" + bridgeProof.ReplaceAllString(r.Query, "secret=<fresh>&timestamp=<now>")
		}
		for _, h := range r.Header {
			value := fresh.ReplaceAllString(h.Value, "<fresh>")
			if strings.HasPrefix(value, "Bearer ek_") {
				value = "Bearer <the key>"
			}
			line += fmt.Sprintf(" | %s: %s", h.Name, value)
		}
		for _, mark := range []struct {
			set  bool
			name string
		}{{r.Anonymous, "anonymous"}, {r.Once, "once"}, {r.Changes, "changes"}, {r.Shape != nil, "read by the vault"}} {
			if mark.set {
				line += " | " + mark.name
			}
		}
		if r.Body != nil {
			body := string(r.Body)
			if nonce != "" {
				body = strings.Replace(body, nonce, "<of the proof>", 1)
			}
			line += " | " + body
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// TestBridgeInClear: to a client whose leg is in clear too, the fields are handles, and what is rendered is the card's.
func TestBridgeInClear(t *testing.T) {
	_, card, up := newBridgeSandbox(t, nil)
	s := clearly(t)
	res, err := bridge(t).Do(t.Context(), up, ask(s, policy.CardReveal))
	must(err)
	up.closed(t, "in clear")
	message, err := s.Render([]byte(`[,]`), []vault.Splice{{At: 1, Field: res.PAN}, {At: 2, Field: res.CVC}})
	must(err)
	defer message.Destroy()
	var got bytes.Buffer
	_, err = message.WriteTo(&got)
	must(err)
	if got.String() != `["`+card.PAN+`","`+card.CVC+`"]` {
		t.Error("another card")
	}
	if text := fmt.Sprintf("%+v", res); strings.Contains(text, card.PAN) {
		t.Error("the result prints the number")
	}
}

// TestBridgeDrawsAnew: no two reveals have a secret, a nonce, a key or an idempotency key in common.
func TestBridgeDrawsAnew(t *testing.T) {
	_, _, up := newBridgeSandbox(t, nil)
	seen := map[string]bool{}
	for range 3 {
		up.seen = nil
		if _, err := bridge(t).Do(t.Context(), up, ask(clearly(t), policy.CardReveal)); err != nil {
			t.Fatal(err)
		}
		reveal, mint := up.asked("reveal"), up.asked("mint")
		for _, drawn := range []string{bridgeProof.FindStringSubmatch(reveal.Query)[1], reveal.Header[0].Value, mint.Header[0].Value, string(mint.Body)} {
			if seen[drawn] {
				t.Error("came twice")
			}
			seen[drawn] = true
		}
	}
}

// TestBridgeFaults: each way in which an answer can be bad is the right error of this package, and nothing comes with it: no
// half of an answer, no word of the issuer's, no secret of ours, and no card details that are still there.
func TestBridgeFaults(t *testing.T) {
	reads := ask(nil, policy.CardProfile, policy.CardReveal)
	freezes := change(exchange.Frozen)
	for _, test := range []struct {
		name  string
		fault sandbox.Fault
		call  *issuer.Call
		want  error
	}{
		{"malformed account", sandbox.FaultMalformedJSON.On(sandbox.CallAccount), reads, issuer.ErrAnswer},
		{"malformed key", sandbox.FaultMalformedJSON.On(sandbox.CallMint), reads, issuer.ErrAnswer},
		{"malformed details", sandbox.FaultMalformedJSON.On(sandbox.CallReveal), reads, issuer.ErrAnswer},
		{"empty account", sandbox.FaultEmptyBody.On(sandbox.CallAccount), reads, issuer.ErrAnswer},
		{"empty key", sandbox.FaultEmptyBody.On(sandbox.CallMint), reads, issuer.ErrAnswer},
		{"empty details", sandbox.FaultEmptyBody.On(sandbox.CallReveal), reads, issuer.ErrAnswer},
		{"no card_details", sandbox.FaultMissingField.On(sandbox.CallAccount), reads, issuer.ErrAnswer},
		{"no ephemeral_key", sandbox.FaultMissingField.On(sandbox.CallMint), reads, issuer.ErrAnswer},
		{"no code", sandbox.FaultMissingField.On(sandbox.CallReveal), reads, issuer.ErrAnswer},
		{"500 of the account", sandbox.Fault500.On(sandbox.CallAccount), reads, issuer.ErrFailed},
		{"500 of the mint", sandbox.Fault500.On(sandbox.CallMint), reads, issuer.ErrFailed},
		{"500 of the details", sandbox.Fault500.On(sandbox.CallReveal), reads, issuer.ErrFailed},
		{"500 to a freeze", sandbox.Fault500.On(sandbox.CallFreeze), freezes, issuer.ErrFailed},
		{"card number in the error of the account", sandbox.FaultPANInError.On(sandbox.CallAccount), reads, issuer.ErrFailed},
		{"card number in the error of the mint", sandbox.FaultPANInError.On(sandbox.CallMint), reads, issuer.ErrFailed},
		{"card number in the error of the details", sandbox.FaultPANInError.On(sandbox.CallReveal), reads, issuer.ErrFailed},
		{"card number in the error to a freeze", sandbox.FaultPANInError.On(sandbox.CallFreeze), freezes, issuer.ErrFailed},
		{"redirect of the account", sandbox.FaultRedirect.On(sandbox.CallAccount), reads, issuer.ErrAnswer},
		{"redirect of the mint", sandbox.FaultRedirect.On(sandbox.CallMint), reads, issuer.ErrAnswer},
		{"redirect of the details", sandbox.FaultRedirect.On(sandbox.CallReveal), reads, issuer.ErrAnswer},
		{"redirect of a freeze", sandbox.FaultRedirect.On(sandbox.CallFreeze), freezes, issuer.ErrAnswer},
	} {
		box, card, up := newBridgeSandbox(t, nil)
		box.SetFault(cardID, test.fault)
		call := *test.call
		call.Session = clearly(t)
		res, err := bridge(t).Do(t.Context(), up, &call)
		if !errors.Is(err, test.want) || res != nil {
			t.Errorf("%s: %v, %v; want %v", test.name, res, err, test.want)
		}
		up.closed(t, test.name)
		secrets := []string{card.PAN, card.CVC, "processor refused", "An expected error", apiKey}
		if proof := bridgeProof.FindStringSubmatch(up.asked("reveal").Query); proof != nil {
			secrets = append(secrets, proof[1], up.asked("reveal").Header[0].Value)
		}
		for _, secret := range secrets {
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error quotes: %v", test.name, err)
			}
		}
		for _, r := range box.Requests() {
			if strings.Contains(r.Path, "redirected") {
				t.Errorf("%s: the redirect was followed", test.name)
			}
		}
	}
}

// TestBridgeReadsNoErrors: what stands in an error about card details is gone before anybody could read it.
func TestBridgeReadsNoErrors(t *testing.T) {
	said := []byte(`{"message":"processor refused card 4111111111111111"}`)
	up := saying{accountPath: {200, accountBody()}, mintPath: {200, `{"ephemeral_key":"k"}`}}
	_, err := bridge(t).Do(t.Context(), roundTrip(func(ctx context.Context, req *issuer.Request, res *issuer.Response) error {
		if req.Call == "reveal" {
			res.Status, res.Body = 500, said
			return nil
		}
		return up.RoundTrip(ctx, req, res)
	}), ask(clearly(t), policy.CardReveal))
	if !errors.Is(err, issuer.ErrFailed) || !bytes.Equal(said, make([]byte, len(said))) {
		t.Errorf("%v: %q", err, said)
	}
}

// TestBridgeStatus: a card becomes what it is not, once.
func TestBridgeStatus(t *testing.T) {
	for _, test := range []struct {
		name, from string
		to         exchange.CardStatus
		want       error
		now        string
		asked      int
	}{
		{"freeze", "active", exchange.Frozen, nil, "frozen", 2},
		{"unfreeze", "locked", exchange.Active, nil, "active", 2},
		{"freeze a frozen one", "locked", exchange.Frozen, issuer.ErrSet, "frozen", 1},
		{"unfreeze an active one", "active", exchange.Active, issuer.ErrSet, "active", 1},
		{"freeze a canceled one", "canceled", exchange.Frozen, issuer.ErrRefused, "canceled", 2},
		{"unfreeze one that never was active", "notActivated", exchange.Active, issuer.ErrRefused, "inactive", 2},
		{"cancel", "active", exchange.Cancelled, issuer.ErrRefused, "active", 0},
		{"make inactive", "active", exchange.Inactive, issuer.ErrRefused, "active", 0},
		{"nothing", "active", 0, issuer.ErrRefused, "active", 0},
	} {
		box, _, up := newBridgeSandbox(t, func(c *sandbox.Card) { c.Status = test.from })
		res, err := bridge(t).Do(t.Context(), up, change(test.to))
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) || box.Status(cardID) != test.now || len(up.seen) != test.asked {
			t.Errorf("%s: %v, the card is %s, %d requests", test.name, err, box.Status(cardID), len(up.seen))
		}
		if (res != nil) != (err == nil) || res != nil && res.Card.Status != test.to {
			t.Errorf("%s: %+v", test.name, res)
		}
	}
}

// TestBridgeStatusThatIsChanged: what the body of the answer to a change says does not matter, only its status.
func TestBridgeStatusThatIsChanged(t *testing.T) {
	for name, fault := range map[string]sandbox.Fault{"empty": sandbox.FaultEmptyBody, "malformed": sandbox.FaultMalformedJSON} {
		box, _, up := newBridgeSandbox(t, nil)
		box.SetFault(cardID, fault.On(sandbox.CallFreeze))
		if res, err := bridge(t).Do(t.Context(), up, change(exchange.Frozen)); err != nil || res.Card.Status != exchange.Frozen || box.Status(cardID) != "frozen" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBridgeNeedsACustomer: without one nothing is asked, and it is nothing that the card or the issuer is told for.
func TestBridgeNeedsACustomer(t *testing.T) {
	for _, op := range []policy.Operation{policy.CardProfile, policy.CardReveal, policy.CardStatus} {
		call := ask(clearly(t), op)
		call.User, call.Status = "", exchange.Frozen
		_, _, up := newBridgeSandbox(t, nil)
		res, err := bridge(t).Do(t.Context(), up, call)
		if err == nil || res != nil || len(up.seen) != 0 {
			t.Errorf("%s: %v, %v, %d requests", op, res, err, len(up.seen))
		}
		for _, known := range []error{issuer.ErrNoCard, issuer.ErrRefused, issuer.ErrFailed, issuer.ErrAnswer, issuer.ErrUnreachable} {
			if errors.Is(err, known) {
				t.Errorf("%s: %v", op, err)
			}
		}
	}
}

// TestBridgeRefusesUs: a customer or a card account that it does not know is a card that is not there; our key that it does
// not take is our matter.
func TestBridgeRefusesUs(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*issuer.Call)
		want   error
	}{
		"unknown card":     {func(c *issuer.Call) { c.Card = "nobody's" }, issuer.ErrNoCard},
		"unknown customer": {func(c *issuer.Call) { c.User = "u-2" }, issuer.ErrNoCard},
	} {
		box, _, up := newBridgeSandbox(t, nil)
		for _, op := range []policy.Operation{policy.CardProfile, policy.CardReveal, policy.CardStatus} {
			call := ask(clearly(t), op)
			call.Status = exchange.Frozen
			test.change(call)
			if res, err := bridge(t).Do(t.Context(), up, call); !errors.Is(err, test.want) || res != nil {
				t.Errorf("%s, %s: %v", name, op, err)
			}
		}
		if box.Count(sandbox.CallReveal)+box.Count(sandbox.CallFreeze) != 0 {
			t.Errorf("%s: revealed or frozen", name)
		}
	}
}

// saying answers each path with a status and a text, read by the vault where the request says so.
type saying map[string]struct {
	status int
	text   string
}

func (s saying) RoundTrip(_ context.Context, req *issuer.Request, res *issuer.Response) error {
	said, ok := s[req.Method+" "+req.Path]
	if !ok {
		return fmt.Errorf("%w: %s %s", errUnexpected, req.Method, req.Path)
	}
	return new(bridgeUpstream).receive(req, said.status, strings.NewReader(said.text), res)
}

type roundTrip func(context.Context, *issuer.Request, *issuer.Response) error

func (f roundTrip) RoundTrip(ctx context.Context, req *issuer.Request, res *issuer.Response) error {
	return f(ctx, req, res)
}

const (
	accountPath = "GET /v0/customers/" + userID + "/card_accounts/" + cardID
	mintPath    = "POST /v0/customers/" + userID + "/card_accounts/" + cardID + "/ephemeral_keys"
	freezePath  = "POST /v0/customers/" + userID + "/card_accounts/" + cardID + "/freeze"
	detailsPath = "GET /v0/card_details/"
)

func accountBody(change ...string) string {
	body := `{"id":"` + cardID + `","customer_id":"` + userID + `","status":"active","cardholder_name":{"first_name":"Ada","last_name":"Lovelace"},` +
		`"balances":{"available":{"amount":"1"}},"freezes":[],"card_details":{"last_4":"1111","expiry":"10/30","bin":"44325280","pin_status":"not_set"}}`
	return strings.NewReplacer(change...).Replace(body)
}

func detailsBody(change ...string) string {
	return strings.NewReplacer(change...).Replace(`{"card_number":"4111111111111111","card_security_code":"123","expiry_date":"10/30","new":[1]}`)
}

// TestBridgeCard: how a card account becomes our card, and which are none.
func TestBridgeCard(t *testing.T) {
	good := exchange.Card{
		ID: "ref-1", LastFour: "1111", ExpiryMonth: "10", ExpiryYear: "2030", Status: exchange.Active, Holder: "Ada Lovelace", BIN: "44325280", PINStatus: "not_set",
	}
	with := func(change func(*exchange.Card)) exchange.Card { c := good; change(&c); return c }
	for name, test := range map[string]struct {
		body string
		want exchange.Card
	}{
		"as documented": {accountBody(), good},
		"frozen":        {accountBody(`"active"`, `"frozen"`), with(func(c *exchange.Card) { c.Status = exchange.Frozen })},
		"inactive":      {accountBody(`"active"`, `"inactive"`), with(func(c *exchange.Card) { c.Status = exchange.Inactive })},
		"pending":       {accountBody(`"active"`, `"pending"`), with(func(c *exchange.Card) { c.Status = exchange.Inactive })},
		"canceled":      {accountBody(`"active"`, `"canceled"`), with(func(c *exchange.Card) { c.Status = exchange.Cancelled })},
		"BIN of six":    {accountBody("44325280", "443252"), with(func(c *exchange.Card) { c.BIN = "443252" })},
		"no BIN":        {accountBody(`"bin":"44325280",`, ""), with(func(c *exchange.Card) { c.BIN = "" })},
		"no PIN status": {accountBody(`,"pin_status":"not_set"`, ""), with(func(c *exchange.Card) { c.PINStatus = "" })},
		"no name":       {accountBody(`"cardholder_name":{"first_name":"Ada","last_name":"Lovelace"},`, ""), with(func(c *exchange.Card) { c.Holder = "" })},
		"one name":      {accountBody(`"first_name":"Ada",`, ""), with(func(c *exchange.Card) { c.Holder = "Lovelace" })},
	} {
		res, err := bridge(t).Do(t.Context(), saying{accountPath: {200, test.body}}, ask(nil, policy.CardProfile))
		if err != nil || res.Card != test.want {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	for name, test := range map[string]struct{ body, member string }{
		"another card":         {accountBody(cardID, "another"), "id"},
		"no id":                {accountBody(`"id":"`+cardID+`",`, ""), "id"},
		"another customer":     {accountBody(`"customer_id":"`+userID, `"customer_id":"u-2`), "customer_id"},
		"unknown status":       {accountBody(`"active"`, `"Active"`), "status"},
		"no status":            {accountBody(`"status":"active",`, ""), "status"},
		"last_4 of three":      {accountBody("1111", "111"), "card_details.last_4"},
		"last_4 of a number":   {accountBody("1111", "4111111111111111"), "card_details.last_4"},
		"no expiry":            {accountBody(`"expiry":"10/30",`, ""), "card_details.expiry"},
		"expiry of four":       {accountBody("10/30", "10/2030"), "card_details.expiry"},
		"month 13":             {accountBody("10/30", "13/30"), "card_details.expiry"},
		"BIN of a number":      {accountBody("44325280", "4111111111111111"), "card_details.bin"},
		"BIN of letters":       {accountBody("44325280", "44325a"), "card_details.bin"},
		"PIN status of digits": {accountBody("not_set", "4111111111111111"), "card_details.pin_status"},
		"long PIN status":      {accountBody("not_set", strings.Repeat("a", 33)), "card_details.pin_status"},
		"null":                 {"null", ""}, "a list": {"[]", ""}, "empty": {"", ""}, "twice": {accountBody(`"freezes":[]`, `"status":"frozen"`), ""},
		"last_4 as a number": {accountBody(`"1111"`, "1111"), ""}, "not UTF-8": {accountBody("Ada", "\xff"), ""},
	} {
		res, err := bridge(t).Do(t.Context(), saying{accountPath: {200, test.body}}, ask(nil, policy.CardProfile))
		if !errors.Is(err, issuer.ErrAnswer) || res != nil || test.member != "" && !strings.HasSuffix(err.Error(), ": "+test.member) {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
		if err != nil && (strings.Contains(err.Error(), "1111") || strings.Contains(err.Error(), "another")) {
			t.Errorf("%s: the error quotes: %v", name, err)
		}
	}
}

// TestBridgeGuardsNames: a card number in the cardholder's name, or in its two halves together, is not handed on [16]. A
// freeze, whose answer has no name in it, is made all the same.
func TestBridgeGuardsNames(t *testing.T) {
	for name, with := range map[string][2]string{
		"first": {`"Ada"`, `"4111 1111 1111 1111"`}, "last": {`"Lovelace"`, `"4111111111111111"`}, "both": {`"Ada","last_name":"Lovelace"`, `"4111 1111","last_name":"1111 1111"`},
	} {
		up := saying{accountPath: {200, accountBody(with[:]...)}, mintPath: {200, `{"ephemeral_key":"k"}`}, detailsPath: {200, detailsBody()}, freezePath: {200, `{}`}}
		for _, op := range []policy.Operation{policy.CardProfile, policy.CardReveal} {
			res, err := bridge(t).Do(t.Context(), up, ask(clearly(t), op))
			if !errors.Is(err, issuer.ErrGuard) || res != nil || strings.Contains(err.Error(), "1111") {
				t.Errorf("%s, %s: %+v, %v", name, op, res, err)
			}
		}
		if res, err := bridge(t).Do(t.Context(), up, change(exchange.Frozen)); err != nil || res.Card.Status != exchange.Frozen || res.Card.Holder != "" {
			t.Errorf("%s, freeze: %+v, %v", name, res, err)
		}
	}
}

// TestBridgeDetails: which details and keys are none.
func TestBridgeDetails(t *testing.T) {
	for name, test := range map[string]struct{ key, details, member string }{
		"number as a number":    {"k", detailsBody(`"4111111111111111"`, "4111111111111111"), "card_number"},
		"number of letters":     {"k", detailsBody("4111111111111111", "411111111111111a"), "card_number"},
		"no number":             {"k", detailsBody(`"card_number":"4111111111111111",`, ""), "card_number"},
		"code of two":           {"k", detailsBody(`"123"`, `"12"`), "card_security_code"},
		"no code":               {"k", detailsBody(`"card_security_code":"123",`, ""), "card_security_code"},
		"number and code twice": {"k", detailsBody(`"new":[1]`, `"card_number":"4242424242424242"`), ""},
		"another card's expiry": {"k", detailsBody("10/30", "11/30"), "expiry_date"},
		"another year":          {"k", detailsBody("10/30", "10/31"), "expiry_date"},
		"expiry of four":        {"k", detailsBody("10/30", "10/2030"), "expiry_date"},
		"number as expiry":      {"k", detailsBody("10/30", "4111111111111111"), "expiry_date"},
		"no expiry":             {"k", detailsBody(`"expiry_date":"10/30",`, ""), "expiry_date"},
		"null":                  {"k", "null", "expiry_date"},
		"too long":              {"k", detailsBody("[1]", "["+strings.Repeat("1,", 16<<10)+"1]"), ""},
		"key with a break":      {`k\r\nApi-Key: x`, detailsBody(), "ephemeral_key"},
		"key with a space":      {"a b", detailsBody(), "ephemeral_key"},
		"key of other letters":  {"\u00e4", detailsBody(), "ephemeral_key"},
		"key in brackets":       {"[k]", detailsBody(), "ephemeral_key"},
		"long key":              {strings.Repeat("k", 4097), detailsBody(), "ephemeral_key"},
		"no key":                {"", detailsBody(), "ephemeral_key"},
	} {
		up := saying{accountPath: {200, accountBody()}, mintPath: {200, `{"ephemeral_key":"` + test.key + `"}`}, detailsPath: {200, test.details}}
		res, err := bridge(t).Do(t.Context(), up, ask(clearly(t), policy.CardReveal))
		if !errors.Is(err, issuer.ErrAnswer) || res != nil || !strings.Contains(err.Error(), test.member) {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
		if err != nil && (strings.Contains(err.Error(), "1111") || strings.Contains(err.Error(), "10/3")) {
			t.Errorf("%s: the error quotes: %v", name, err)
		}
	}
	// A key of each letter that one may have.
	up := saying{accountPath: {200, accountBody()}, mintPath: {200, `{"ephemeral_key":"azAZ09-._~+/="}`}, detailsPath: {200, detailsBody()}}
	if _, err := bridge(t).Do(t.Context(), up, ask(clearly(t), policy.CardReveal)); err != nil {
		t.Error(err)
	}
	// An upstream that has not had the vault read them.
	_, err := bridge(t).Do(t.Context(), roundTrip(func(ctx context.Context, req *issuer.Request, res *issuer.Response) error {
		if req.Call == "reveal" {
			res.Status = 200
			return nil
		}
		return up.RoundTrip(ctx, req, res)
	}), ask(clearly(t), policy.CardReveal))
	if !errors.Is(err, issuer.ErrAnswer) {
		t.Error(err)
	}
}

// TestBridgeStatuses: an answer's status alone decides what it is; its text is passed on to nobody.
func TestBridgeStatuses(t *testing.T) {
	for status, want := range map[int]error{
		0: issuer.ErrAnswer, 100: issuer.ErrAnswer, 199: issuer.ErrAnswer, 301: issuer.ErrAnswer, 304: issuer.ErrAnswer, 307: issuer.ErrAnswer,
		400: issuer.ErrRefused, 401: issuer.ErrRefused, 403: issuer.ErrRefused, 404: issuer.ErrNoCard, 409: issuer.ErrRefused, 422: issuer.ErrRefused,
		429: issuer.ErrRefused, 500: issuer.ErrFailed, 502: issuer.ErrFailed, 503: issuer.ErrFailed, 599: issuer.ErrFailed, 600: issuer.ErrAnswer,
	} {
		for path, call := range map[string]*issuer.Call{
			accountPath: ask(nil, policy.CardProfile), mintPath: ask(nil, policy.CardReveal), detailsPath: ask(nil, policy.CardReveal), freezePath: change(exchange.Frozen),
		} {
			call.Session = clearly(t)
			up := saying{accountPath: {200, accountBody()}, mintPath: {200, `{"ephemeral_key":"k"}`}}
			up[path] = struct {
				status int
				text   string
			}{status, `{"code":"invalid","message":"4111111111111111"}`}
			want := want
			if path == detailsPath && status == 404 { // the path names no card
				want = issuer.ErrRefused
			}
			res, err := bridge(t).Do(t.Context(), up, call)
			if !errors.Is(err, want) || res != nil || strings.Contains(err.Error(), "4111") || want != issuer.ErrNoCard && errors.Is(err, issuer.ErrNoCard) {
				t.Errorf("%d to %s: %v", status, path, err)
			}
		}
	}
}

// TestBridgePassesOn: what the upstream says of the way is passed on as it is, so that the gateway knows what became of a
// change.
func TestBridgePassesOn(t *testing.T) {
	for _, want := range []error{issuer.ErrUnreachable, issuer.ErrTimeout, issuer.ErrLost, issuer.ErrTooLarge, context.Canceled, context.DeadlineExceeded} {
		for fails, call := range map[string]*issuer.Call{
			"account": ask(nil, policy.CardProfile), "mint": ask(nil, policy.CardReveal), "reveal": ask(nil, policy.CardReveal), "freeze": change(exchange.Frozen),
		} {
			call.Session = clearly(t)
			up := saying{accountPath: {200, accountBody()}, mintPath: {200, `{"ephemeral_key":"k"}`}}
			res, err := bridge(t).Do(t.Context(), roundTrip(func(ctx context.Context, req *issuer.Request, res *issuer.Response) error {
				if req.Call == fails {
					return fmt.Errorf("there: %w", want)
				}
				return up.RoundTrip(ctx, req, res)
			}), call)
			if !errors.Is(err, want) || res != nil {
				t.Errorf("%s, %v: %v, %v", fails, want, res, err)
			}
		}
	}
}

// TestBridgeDetailsThatCameInVain: where the account fails after the details came, nothing is left of them.
func TestBridgeDetailsThatCameInVain(t *testing.T) {
	came := make(chan struct{})
	inner := saying{mintPath: {200, `{"ephemeral_key":"k"}`}}
	up := &bridgeUpstream{}
	_, err := bridge(t).Do(t.Context(), roundTrip(func(ctx context.Context, req *issuer.Request, res *issuer.Response) error {
		switch req.Call {
		case "account":
			<-came
			return issuer.ErrUnreachable
		case "reveal":
			defer close(came)
			return up.receive(req, 200, strings.NewReader(detailsBody()), res)
		}
		return inner.RoundTrip(ctx, req, res)
	}), ask(clearly(t), policy.CardReveal))
	if !errors.Is(err, issuer.ErrUnreachable) || len(up.bodies) != 1 {
		t.Fatal(err)
	}
	up.closed(t, "in vain")
}

// TestBridgeEscapesIDs: an id cannot become a path of its own.
func TestBridgeEscapesIDs(t *testing.T) {
	for _, id := range []string{"a/../b", "a?x=y", "a#b", "a%2fb", "ä b"} {
		var paths []string
		call := ask(nil, policy.CardProfile)
		call.Card, call.User = id, id
		if _, err := bridge(t).Do(t.Context(), recording(func(r *issuer.Request) { paths = append(paths, r.Path) }), call); !errors.Is(err, errUnexpected) {
			t.Fatal(err)
		}
		want := "/v0/customers/" + url.PathEscape(id) + "/card_accounts/" + url.PathEscape(id)
		if len(paths) != 1 || paths[0] != want || strings.Count(paths[0], "/") != 5 || strings.ContainsAny(paths[0], "?# ") {
			t.Errorf("%q is asked for as %v", id, paths)
		}
	}
}

func TestBridgeServes(t *testing.T) {
	kind, err := issuer.Lookup("bridge")
	if err != nil || kind.CredentialHeader != "Api-Key" || kind.CredentialPrefix != "" || !kind.InClear() {
		t.Errorf("%+v, %v", kind, err)
	}
	i := bridge(t)
	for _, op := range append(policy.Operations(), "") {
		want := op == policy.CardProfile || op == policy.CardReveal || op == policy.CardStatus
		if i.Serves(op) != want {
			t.Errorf("%s: %t", op, !want)
		}
	}
}

// FuzzBridgeAnswers: whatever the issuer answers, the result is whole and fits the canonical form, or there is an error of
// this package and no result; nothing of the answer is in the error, and no number in the result.
func FuzzBridgeAnswers(f *testing.F) {
	f.Add(200, accountBody(), `{"ephemeral_key":"k"}`, detailsBody())
	f.Add(200, accountBody("not_set", "set"), `{"ephemeral_key":"`+strings.Repeat("k", 99)+`"}`, detailsBody("4111111111111111", `\u0034111111111111111`))
	f.Add(200, "\xff", `{}`, `{"card_number":"4111111111111111","expiry_date":null}`)
	f.Add(404, accountBody(), "", "4111111111111111")
	f.Fuzz(func(t *testing.T, status int, account, key, details string) {
		s := clearly(t)
		up := saying{accountPath: {200, account}, mintPath: {200, key}, detailsPath: {status, details}}
		res, err := bridge(t).Do(t.Context(), up, ask(s, policy.CardProfile, policy.CardReveal))
		if err != nil {
			known := slices.ContainsFunc([]error{issuer.ErrAnswer, issuer.ErrFailed, issuer.ErrRefused, issuer.ErrGuard}, func(e error) bool { return errors.Is(err, e) })
			if res != nil || !known {
				t.Fatalf("%v, %v", res, err)
			}
			for _, body := range []string{account, key, details} {
				if len(body) > 20 && strings.Contains(err.Error(), body) {
					t.Fatalf("the error quotes: %v", err)
				}
			}
			return
		}
		c := res.Card
		if len(c.LastFour) != 4 || len(c.ExpiryYear) != 4 || len(c.ExpiryMonth) != 2 || strings.Trim(c.LastFour+c.ExpiryYear+c.ExpiryMonth+c.BIN, "0123456789") != "" ||
			len(c.BIN) > 8 || c.Status == 0 || c.ID != "ref-1" || strings.ContainsAny(c.PINStatus, "0123456789\"") || vault.HoldsPANString(c.Holder) {
			t.Fatalf("%+v", c)
		}
		message, err := s.Render([]byte(`{"n":,"c":}`), []vault.Splice{{At: 5, Field: res.PAN}, {At: 10, Field: res.CVC}})
		if err != nil {
			t.Fatal(err)
		}
		defer message.Destroy()
		var text bytes.Buffer
		_, _ = message.WriteTo(&text)
		var got struct{ N, C string }
		var sent map[string]any
		must(json.Unmarshal(text.Bytes(), &got))
		if err := json.Unmarshal([]byte(details), &sent); err != nil || sent["card_number"] != got.N || sent["card_security_code"] != got.C {
			t.Fatalf("%q is %+v (%v)", details, got, err)
		}
	})
}
