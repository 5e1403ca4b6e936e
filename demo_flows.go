package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/vault/keys"
)

// flows are what `demo --once` and the tests go through, against a gateway that is described by a demo.json: what each
// caller does, and what they must be refused. They reach it over real TLS and know nothing of its insides.
var flows = []flow{
	{"mint a token with the partner's certificate", (*tester).mints},
	{"reveal a card, once", (*tester).reveals},
	{"refuse every other use of a token alike", (*tester).refusesAlike},
	{"show the PIN, set another, refuse a weak one", (*tester).setsPIN},
	{"open nothing else with a bound token", (*tester).keepsBounds},
	{"refuse a session id that cannot be opened", (*tester).refusesSessions},
	{"know nothing of other cards", (*tester).knowsNoOtherCard},
	{"show a card to its user, who says so beside the partner's token", (*tester).showsUser},
	{"show a card for its user's signature, once for each challenge", (*tester).signsUser},
	{"take a card that its user brings, once", (*tester).takesCards},
	{"let the pages of an app embed its card page, and no others", (*tester).servesCardPage},
	{"show a user of Exa their own card", (*tester).showsExa},
	{"log a user of Exa in with their wallet, once for each challenge", (*tester).logsInExa},
	{"change a card as its user of Exa asks", (*tester).changesExa},
	{"link a card to the account that signed for it, once", (*tester).linksExa},
	{"give a wallet extension what it provisions with, and nothing else", (*tester).provisionsExa},
	{"mint a Bridge key for a nonce, and mint it again alike", (*tester).mintsBridge},
	{"reveal a card to whoever has the key's secret, once", (*tester).revealsBridge},
	{"tell no wrong Bridge key from another", (*tester).refusesBridgeAlike},
	{"freeze and unfreeze a card as its partner asks", (*tester).freezesBridge},
	{"log a service account of PaymentsGate in", (*tester).logsInPayments},
	{"forward its calls, and show account numbers to its session alone", (*tester).forwardsPayments},
	{"refuse a signature over another request", (*tester).signsPayments},
	{"refresh once, and end the login of whoever refreshes twice", (*tester).refreshesPayments},
	{"trade an API key of Payroc for a Bearer", (*tester).authorizesPayroc},
	{"begin a session of hosted fields, and begin it again alike", (*tester).beginsFields},
	{"say what is wrong with a session, first things first", (*tester).refusesFields},
	{"take a card field by field, and pay with its token, once", (*tester).paysPayroc},
	{"pay with no card that is wrong, unfinished or nobody's", (*tester).refusesCards},
	{"let listed pages embed hosted fields, and no others", (*tester).servesFields},
	{"let pages of listed origins call, and no others", (*tester).answersBrowsers},
	{"keep strangers out", (*tester).keepsOut},
	{"record everything and leak nothing", (*tester).recordsAndLeaksNothing},
}

type flow struct {
	name string
	run  func(*tester, context.Context) error
}

// tester plays all the callers.
type tester struct {
	dir     string
	doc     demoFile
	roots   *x509.CertPool
	public  *rsa.PublicKey
	partner *http.Client
	client  *http.Client
	said    []string // of the flow that runs, for the transcript
	bodies  [][]byte // of all answers, searched for card data at the end
	linked  bool     // whether the card of Exa's user was linked by these flows

	checkout sandbox.Card // what is paid with
}

// tryFlows goes through all flows and prints what happened, with card data masked.
func tryFlows(ctx context.Context, out io.Writer, t *tester) error {
	failed := 0
	for _, f := range flows {
		t.said = nil
		err := f.run(t, ctx)
		mark := "ok  "
		if err != nil {
			mark, failed = "FAIL", failed+1
		}
		fmt.Fprintf(out, "%s  %s\n", mark, f.name)
		for _, line := range t.said {
			fmt.Fprintf(out, "        %s\n", line)
		}
		if err != nil {
			fmt.Fprintf(out, "        %v\n", err)
		}
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", len(flows)-failed, failed)
	if failed > 0 {
		return fmt.Errorf("%d of %d flows did not end as they must", failed, len(flows))
	}
	return nil
}

func newTester(dir string, doc demoFile) (*tester, error) {
	t := &tester{dir: dir, doc: doc}
	t.checkout = sandbox.Card{PAN: doc.Card.PAN, CVC: doc.Card.CVC, ExpiryMonth: doc.Card.ExpiryMonth, ExpiryYear: doc.Card.ExpiryYear}
	if err := errors.Join(t.trust(doc.CA), t.learn(doc.SessionPublicKey)); err != nil {
		return nil, err
	}
	var err error
	if t.partner, err = t.caller(doc.Partner); err != nil {
		return nil, err
	}
	t.client, err = t.caller(demoCaller{})
	return t, err
}

// trust takes the authority of the gateway's certificates.
func (t *tester) trust(name string) error {
	ca, err := os.ReadFile(t.path(name))
	if err != nil {
		return err
	}
	t.roots = x509.NewCertPool()
	if !t.roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("%s: no certificate", name)
	}
	return nil
}

// learn takes the gateway's public session key.
func (t *tester) learn(name string) error {
	content, err := os.ReadFile(t.path(name))
	if err != nil {
		return err
	}
	t.public, err = keys.ParsePublicPEM(content)
	return err
}

func (t *tester) path(name string) string { return filepath.Join(t.dir, name) }

// tls is a client's side of TLS, with a certificate or without one.
func (t *tester) tls(c demoCaller) (*tls.Config, error) {
	config := &tls.Config{RootCAs: t.roots, MinVersion: tls.VersionTLS12}
	if c.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(t.path(c.Certificate), t.path(c.Key))
		if err != nil {
			return nil, err
		}
		// Shown even to a server that says it would not know its authority, as curl does.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return config, nil
}

// caller is an HTTP client with a certificate, or without one.
func (t *tester) caller(c demoCaller) (*http.Client, error) {
	config, err := t.tls(c)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func (t *tester) say(format string, args ...any) {
	t.said = append(t.said, fmt.Sprintf(format, args...))
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// request is a call in few words.
type request struct {
	method, url, body string
	header            map[string]string
}

func (t *tester) do(ctx context.Context, c *http.Client, r request) (*reply, error) {
	q, err := http.NewRequestWithContext(ctx, r.method, r.url, strings.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	if r.body != "" {
		q.Header.Set("Content-Type", "application/json")
	}
	for name, value := range r.header {
		q.Header.Set(name, value)
	}
	res, err := c.Do(q)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	t.bodies = append(t.bodies, body)
	switch {
	case res.Header.Get("X-Request-Id") == "":
		return nil, errors.New("the answer has no X-Request-Id")
	case res.Header.Get("Cache-Control") != storable(q.URL.Path):
		return nil, errors.New("the answer may be stored, or a file that every page loads may not")
	case strings.Contains(res.Header.Get("Set-Cookie"), "affinity"):
		return nil, errors.New("a cookie of the issuer came through")
	}
	return &reply{res.StatusCode, res.Header, body}, nil
}

// storable is what an answer says of who may store it. The files of pages have the digest of what is in them in their names.
func storable(path string) string {
	if strings.HasPrefix(path, "/elements/") {
		return "public, max-age=31536000, immutable"
	}
	return "no-store"
}

// want does a call that must end with a status.
func (t *tester) want(ctx context.Context, c *http.Client, status int, r request) (*reply, error) {
	got, err := t.do(ctx, c, r)
	if err != nil {
		return nil, err
	}
	path := hidden.ReplaceAllString(strings.TrimPrefix(strings.TrimPrefix(r.url, t.doc.PartnersURL), t.doc.PublicURL), "$1…")
	t.say("%s %s  %d %s", r.method, path, got.status, shorten(got.body))
	if got.status != status {
		return nil, fmt.Errorf("%s %s: status %d, want %d", r.method, path, got.status, status)
	}
	return got, nil
}

// hidden is what a transcript does not show of a path: secrets, and tokens of sessions.
var hidden = regexp.MustCompile(`([?&](?:secret|hostedFieldsSessionId)=|/hosted-fields-sessions/)[^&/]+`)

// shorten is an answer for the transcript: the beginning of a refusal, and nothing of what was released.
func shorten(body []byte) string {
	if released.Match(body) {
		return fmt.Sprintf("(%d bytes)", len(body))
	}
	body, _, _ = bytes.Cut(body, []byte("\n"))
	return string(body[:min(len(body), 90)])
}

// released are the names of members that hold what a transcript does not show, and the line of a message to sign that does.
var released = regexp.MustCompile(`(?i)"(iv|card_number|account_number|secret|challenge|nonce|[a-z_]*token|ephemeral_key|publicKey)":"|\\nNonce: `)

func mask(pan string) string {
	if len(pan) < 8 {
		return strings.Repeat("•", len(pan))
	}
	return strings.Repeat("•", len(pan)-4) + pan[len(pan)-4:]
}

// mint mints a token; body may bind it.
func (t *tester) mint(ctx context.Context, body string) (string, error) {
	r, err := t.want(ctx, t.partner, 200, request{method: "POST", url: t.doc.PartnersURL + "/api/v1/ephemeral-token", body: body})
	if err != nil {
		return "", err
	}
	var answer struct {
		Data struct {
			EphemeralToken string
			ExpiresAt      time.Time
		}
	}
	if err := json.Unmarshal(r.body, &answer); err != nil {
		return "", fmt.Errorf("mint: %w", err)
	}
	life := time.Until(answer.Data.ExpiresAt)
	if len(answer.Data.EphemeralToken) < 43 || life < 50*time.Second || life > 61*time.Second {
		return "", fmt.Errorf("mint: a token of %d characters that lives %s", len(answer.Data.EphemeralToken), life.Round(time.Second))
	}
	return answer.Data.EphemeralToken, nil
}

func (t *tester) card(part string) string {
	return t.doc.PublicURL + "/api/v1/cards/" + t.doc.Card.ID + "/" + part
}

func (t *tester) session() (*sandbox.Session, error) { return sandbox.NewSession(t.public) }

// begin is what a cardholder's call begins with: an unbound token, and a session.
func (t *tester) begin(ctx context.Context) (string, *sandbox.Session, error) {
	token, err := t.mint(ctx, "")
	if err != nil {
		return "", nil, err
	}
	s, err := t.session()
	return token, s, err
}

func bearing(token string, s *sandbox.Session) map[string]string {
	return map[string]string{"Authorization": "Bearer " + token, "sessionid": s.ID()}
}

func (t *tester) mints(ctx context.Context) error {
	first, err := t.mint(ctx, "")
	if err != nil {
		return err
	}
	second, err := t.mint(ctx, "{}")
	if err != nil {
		return err
	}
	if first == second {
		return errors.New("two mints gave one token")
	}
	return nil
}

// details is the answer of a reveal.
type details struct {
	Data struct {
		EncryptedPan, EncryptedCvc                *sandbox.Sealed
		ExpirationMonth, ExpirationYear, LastFour string
	}
}

func (t *tester) reveals(ctx context.Context) error {
	token, s, err := t.begin(ctx)
	if err != nil {
		return err
	}
	r, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.card("details"), header: bearing(token, s)})
	if err != nil {
		return err
	}
	var d details
	if err := json.Unmarshal(r.body, &d); err != nil || d.Data.EncryptedPan == nil || d.Data.EncryptedCvc == nil {
		return errors.New("the answer lacks the encrypted details")
	}
	if err := opens(s, *d.Data.EncryptedPan, t.doc.Card.PAN, "card number"); err != nil {
		return err
	}
	if err := opens(s, *d.Data.EncryptedCvc, t.doc.Card.CVC, "security code"); err != nil {
		return err
	}
	if d.Data.ExpirationMonth != t.doc.Card.ExpiryMonth || d.Data.ExpirationYear != t.doc.Card.ExpiryYear || !strings.HasSuffix(t.doc.Card.PAN, d.Data.LastFour) {
		return errors.New("expiry or last four are another card's")
	}
	t.say("decrypted: %s, expires %s/%s", mask(t.doc.Card.PAN), d.Data.ExpirationMonth, d.Data.ExpirationYear)
	_, err = t.want(ctx, t.client, 401, request{method: "GET", url: t.card("details"), header: bearing(token, s)})
	return err
}

// opens checks what a sealed value says.
func opens(s *sandbox.Session, v sandbox.Sealed, want, what string) error {
	got, err := s.Open(v)
	if err != nil {
		return fmt.Errorf("the %s does not open: %w", what, err)
	}
	if got != want {
		return fmt.Errorf("the %s is another one", what)
	}
	return nil
}

func (t *tester) refusesAlike(ctx context.Context) error {
	spent, s, err := t.begin(ctx)
	if err != nil {
		return err
	}
	if _, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.card("details"), header: bearing(spent, s)}); err != nil {
		return err
	}
	unknown := make([]byte, len(spent)*3/4)
	rand.Read(unknown)
	var first []byte
	for _, token := range []string{spent, base64.RawURLEncoding.EncodeToString(unknown), "x", strings.ToUpper(spent), spent + "=", " " + spent} {
		r, err := t.want(ctx, t.client, 401, request{method: "GET", url: t.card("details"), header: bearing(token, s)})
		if err != nil {
			return err
		}
		if first == nil {
			first = r.body
		}
		if !bytes.Equal(first, r.body) {
			return errors.New("two refusals can be told apart")
		}
	}
	_, err = t.want(ctx, t.client, 401, request{method: "GET", url: t.card("details"), header: map[string]string{"sessionid": s.ID()}})
	return err
}

// pin reads the card's PIN.
func (t *tester) pin(ctx context.Context) (string, error) {
	token, s, err := t.begin(ctx)
	if err != nil {
		return "", err
	}
	r, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.card("pin"), header: bearing(token, s)})
	if err != nil {
		return "", err
	}
	var answer struct {
		Data struct{ EncryptedPin *sandbox.Sealed }
	}
	if err := json.Unmarshal(r.body, &answer); err != nil || answer.Data.EncryptedPin == nil {
		return "", errors.New("the answer lacks the encrypted PIN")
	}
	return s.OpenPIN(*answer.Data.EncryptedPin)
}

// setPIN sets the card's PIN and returns what it sent.
func (t *tester) setPIN(ctx context.Context, pin string, status int) (request, error) {
	token, s, err := t.begin(ctx)
	if err != nil {
		return request{}, err
	}
	sealed, err := s.SealPIN(pin)
	if err != nil {
		return request{}, err
	}
	body := fmt.Sprintf(`{"data":%q,"iv":%q}`, sealed.Data, sealed.IV)
	r := request{method: "PUT", url: t.card("pin"), body: body, header: bearing(token, s)}
	_, err = t.want(ctx, t.client, status, r)
	return r, err
}

func (t *tester) setsPIN(ctx context.Context) error {
	was, err := t.pin(ctx)
	if err != nil {
		return err
	}
	if was != t.doc.Card.PIN {
		return errors.New("the PIN is another one")
	}
	next := sandbox.RandomCard("next", "").PIN
	captured, err := t.setPIN(ctx, next, 200)
	if err != nil {
		return err
	}
	if is, err := t.pin(ctx); err != nil || is != next {
		return errors.Join(errors.New("the new PIN did not reach the issuer"), err)
	}
	// A captured PIN set is refused under a fresh token too.
	token, err := t.mint(ctx, "")
	if err != nil {
		return err
	}
	captured.header = map[string]string{"Authorization": "Bearer " + token, "sessionid": captured.header["sessionid"]}
	if _, err := t.want(ctx, t.client, 400, captured); err != nil {
		return err
	}
	if _, err := t.setPIN(ctx, "1234", 422); err != nil {
		return err
	}
	if is, err := t.pin(ctx); err != nil || is != next {
		return errors.Join(errors.New("a refused PIN set changed the PIN"), err)
	}
	_, err = t.setPIN(ctx, was, 200)
	return err
}

func (t *tester) keepsBounds(ctx context.Context) error {
	s, err := t.session()
	if err != nil {
		return err
	}
	for _, use := range []struct {
		bind, part string
		status     int
	}{
		{fmt.Sprintf(`{"operation":"card.reveal","cardId":%q}`, t.doc.Card.ID), "details", 200},
		{fmt.Sprintf(`{"operation":"card.reveal","cardId":%q}`, t.doc.Card.ID), "pin", 401},
		{`{"operation":"pin.reveal"}`, "details", 401},
		{fmt.Sprintf(`{"sessionHash":%q}`, base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))), "details", 401},
	} {
		token, err := t.mint(ctx, use.bind)
		if err != nil {
			return err
		}
		if _, err := t.want(ctx, t.client, use.status, request{method: "GET", url: t.card(use.part), header: bearing(token, s)}); err != nil {
			return err
		}
		// Whatever came of it, the token is spent.
		if _, err := t.want(ctx, t.client, 401, request{method: "GET", url: t.card("details"), header: bearing(token, s)}); err != nil {
			return err
		}
	}
	_, err = t.want(ctx, t.partner, 404, request{
		method: "POST", url: t.doc.PartnersURL + "/api/v1/ephemeral-token", body: fmt.Sprintf(`{"operation":"card.reveal","cardId":%q}`, randomUUID()),
	})
	return err
}

func (t *tester) refusesSessions(ctx context.Context) error {
	token, s, err := t.begin(ctx)
	if err != nil {
		return err
	}
	// What cannot even be read costs no token.
	for _, id := range []string{"", "not base64", strings.Repeat("A", 4096)} {
		if _, err := t.want(ctx, t.client, 400, request{
			method: "GET", url: t.card("details"), header: map[string]string{"Authorization": "Bearer " + token, "sessionid": id},
		}); err != nil {
			return err
		}
	}
	if _, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.card("details"), header: bearing(token, s)}); err != nil {
		return err
	}
	// What can be read and does not open does.
	if token, err = t.mint(ctx, ""); err != nil {
		return err
	}
	noise := make([]byte, t.public.Size())
	rand.Read(noise[1:])
	if _, err := t.want(ctx, t.client, 400, request{
		method: "GET", url: t.card("details"),
		header: map[string]string{"Authorization": "Bearer " + token, "sessionid": base64.StdEncoding.EncodeToString(noise)},
	}); err != nil {
		return err
	}
	_, err = t.want(ctx, t.client, 401, request{method: "GET", url: t.card("details"), header: bearing(token, s)})
	return err
}

func (t *tester) knowsNoOtherCard(ctx context.Context) error {
	token, s, err := t.begin(ctx)
	if err != nil {
		return err
	}
	_, err = t.want(ctx, t.client, 404, request{
		method: "GET", url: t.doc.PublicURL + "/api/v1/cards/" + randomUUID() + "/details", header: bearing(token, s),
	})
	return err
}

func (t *tester) showsExa(ctx context.Context) error {
	cookie := map[string]string{"Cookie": t.doc.Exa.Cookie}
	for _, path := range []string{"/api/card", "/card"} {
		r, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.doc.PublicURL + path, header: cookie})
		if err != nil {
			return err
		}
		var profile map[string]any
		if err := json.Unmarshal(r.body, &profile); err != nil || profile["cardId"] != t.doc.Card.ID || profile["status"] != "ACTIVE" {
			return errors.New("the profile is another card's")
		}
		for _, secret := range []string{"encryptedPan", "encryptedCvc", "pin"} {
			if _, there := profile[secret]; there {
				return fmt.Errorf("%s without a session", secret)
			}
		}
	}
	s, err := t.session()
	if err != nil {
		return err
	}
	r, err := t.want(ctx, t.client, 200, request{
		method: "GET", url: t.doc.PublicURL + "/api/card", header: map[string]string{"Cookie": t.doc.Exa.Cookie, "sessionid": s.ID()},
	})
	if err != nil {
		return err
	}
	var d struct{ EncryptedPan, EncryptedCvc, Pin *sandbox.Sealed }
	if err := json.Unmarshal(r.body, &d); err != nil || d.EncryptedPan == nil || d.EncryptedCvc == nil || d.Pin == nil {
		return errors.New("the answer lacks encrypted details or PIN")
	}
	if err := errors.Join(opens(s, *d.EncryptedPan, t.doc.Card.PAN, "card number"), opens(s, *d.EncryptedCvc, t.doc.Card.CVC, "security code")); err != nil {
		return err
	}
	if pin, err := s.OpenPIN(*d.Pin); err != nil || pin != t.doc.Card.PIN {
		return errors.New("the PIN is another one")
	}
	for _, refused := range []struct {
		status int
		code   string
		header map[string]string
		query  string
	}{
		{401, "unauthorized", nil, ""},
		{401, "unauthorized", map[string]string{"Cookie": t.doc.Exa.Cookie + "x"}, ""},
		{400, "bad session id", map[string]string{"Cookie": t.doc.Exa.Cookie, "sessionid": "%%"}, ""},
		{400, "bad request", map[string]string{"Cookie": t.doc.Exa.Cookie}, "?scope=siwe&scope=webauthn"},
	} {
		r, err := t.want(ctx, t.client, refused.status, request{method: "GET", url: t.doc.PublicURL + "/api/card" + refused.query, header: refused.header})
		if err != nil {
			return err
		}
		var answer struct{ Code string }
		if err := json.Unmarshal(r.body, &answer); err != nil || answer.Code != refused.code {
			return fmt.Errorf("code %q, want %q", answer.Code, refused.code)
		}
	}
	return nil
}

func (t *tester) keepsOut(ctx context.Context) error {
	for _, who := range []struct {
		name, alert string
		caller      demoCaller
	}{
		{"a certificate of another authority", "unknown certificate authority", t.doc.Stranger},
		{"no certificate", "certificate required", demoCaller{}},
	} {
		config, err := t.tls(who.caller)
		if err != nil {
			return err
		}
		err = t.handshake(ctx, config)
		var remote *net.OpError
		if !errors.As(err, &remote) || remote.Op != "remote error" || !strings.Contains(remote.Err.Error(), who.alert) {
			return fmt.Errorf("%s: want the alert %q, got %v", who.name, who.alert, err)
		}
		t.say("%s: %v", who.name, remote.Err)
	}
	return nil
}

// handshake connects to the partners' listener and returns what the server thinks of it. In TLS 1.3 a client is told what
// became of its certificate only after its own side of the handshake is done.
func (t *tester) handshake(ctx context.Context, config *tls.Config) error {
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", strings.TrimPrefix(t.doc.PartnersURL, "https://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func (t *tester) recordsAndLeaksNothing(ctx context.Context) error {
	log, err := os.ReadFile(t.path(t.doc.AuditLog))
	if err != nil {
		return err
	}
	metrics, err := (&http.Client{Timeout: 10 * time.Second}).Get(t.doc.AdminURL + "/metrics") //nolint:noctx // loopback
	if err != nil {
		return err
	}
	defer metrics.Body.Close()
	scraped, err := io.ReadAll(metrics.Body)
	if err != nil {
		return err
	}
	for _, name := range []string{
		"cardstile_tokens_minted_total", "cardstile_tokens_redeemed_total", `cardstile_tokens_refused_total{reason="spent"}`,
		`cardstile_exchanges_total{face="gnosispay",operation="card.reveal",outcome="done"}`, `cardstile_handshake_failures_total{listener="partners",reason="unknown_ca"}`,
	} {
		if !bytes.Contains(scraped, []byte(name)) {
			return fmt.Errorf("no metric %s", name)
		}
	}
	places := map[string][]byte{"the audit log": log, "the metrics": scraped, "an answer": bytes.Join(t.bodies, []byte("\n"))}
	for place, text := range places {
		if bytes.Contains(text, []byte(t.doc.Card.PAN)) {
			return fmt.Errorf("the card number stands in %s", place)
		}
	}
	t.say("%d records in the audit log, none with card data", bytes.Count(log, []byte("\n")))
	return nil
}
