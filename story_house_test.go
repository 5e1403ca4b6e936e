package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault/keys"
)

// house is a directory as the demo makes it, with its issuers in this process, where a test can look at them and make them
// fail. Gateways are started on it as the real program.
type house struct {
	*demo
	t      testing.TB
	canary *canary
	gates  map[string]*gate // by issuer

	checkout sandbox.Card // what callers pay with
}

// rsaKeys are the RSA keys of all houses: they take long to make, and no story is about them.
var rsaKeys struct {
	once  sync.Once
	files map[string][]byte
	err   error
}

func sharedKeys(t testing.TB) map[string][]byte {
	t.Helper()
	rsaKeys.once.Do(func() {
		dir, err := os.MkdirTemp("", "cardstile-keys")
		if err != nil {
			rsaKeys.err = err
			return
		}
		defer os.RemoveAll(dir)
		rsaKeys.files = map[string][]byte{}
		for _, name := range []string{"session", "rain", "service-account", "payroc", "cards"} {
			use := demoKeys[name]
			private, public := filepath.Join(dir, name+"-key.pem"), filepath.Join(dir, name+"-public.pem")
			rsaKeys.err = errors.Join(rsaKeys.err, generateKey(string(use), 0, private, public, ""))
			for _, file := range []string{private, public} {
				content, err := os.ReadFile(file)
				rsaKeys.err = errors.Join(rsaKeys.err, err)
				rsaKeys.files[filepath.Base(file)] = content
			}
		}
	})
	if rsaKeys.err != nil {
		t.Fatal(rsaKeys.err)
	}
	return rsaKeys.files
}

// newHouse makes a directory with cards of its own. Their security codes have four digits and their PINs twelve, so that
// finding one somewhere means something.
func newHouse(t testing.TB, dir string, c *canary) *house {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range sharedKeys(t) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	user := sandbox.User{ID: randomUUID(), FirstName: "Ada", LastName: "Example", Email: "ada@example.com"}
	card, other := sandbox.RandomCard(demoCard, ""), sandbox.RandomCard(randomUUID(), "")
	for _, one := range []*sandbox.Card{&card, &other} {
		for one.CVC = "1970"; one.CVC == "1970"; { // which stands in the help of a metric
			one.CVC = sandbox.RandomCard("", "").PIN
		}
		one.PIN = sandbox.RandomCard("", "").PIN + sandbox.RandomCard("", "").PIN + sandbox.RandomCard("", "").PIN
	}
	card.UserID = user.ID
	state := newDemoState([]sandbox.Card{card, other}, user)
	state.BridgeKey, state.PayrocKey = "made with its digest", "likewise" // so that the state is whole, and kept
	content, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sandbox.json"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := openDemo(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.lock.Close() })
	if d.state.Cards[0] != card || d.state.BridgeKey == state.BridgeKey || d.state.PayrocKey == state.PayrocKey {
		t.Fatal("the directory has other cards than it was given, or no API key")
	}
	h := &house{demo: d, t: t, canary: c, gates: map[string]*gate{}, checkout: checkoutCard()}
	h.serveIssuers()
	if err := d.writeConfig(); err != nil { // ports 0: the program says which ones it got
		t.Fatal(err)
	}
	config := strings.ReplaceAll(string(h.read("config.yaml")), `"https://localhost:0"`, "https://localhost") // no browser sends port 0
	if err := h.write("config.yaml", []byte(config)); err != nil {
		t.Fatal(err)
	}
	h.learnSecrets()
	return h
}

// checkoutCard is a card of a network whose security codes have four digits, as the house's own have.
func checkoutCard() sandbox.Card {
	card := sandbox.RandomCard("", "")
	for card.CVC = "1970"; card.CVC == "1970"; {
		card.CVC = sandbox.RandomCard("", "").PIN
	}
	beginning := "37828" + sandbox.RandomCard("", "").PAN[7:16]
	for digit := range 10 {
		if card.PAN = beginning + strconv.Itoa(digit); cardNumber(card.PAN) {
			return card
		}
	}
	panic("internal error: no check digit fits")
}

// learnSecrets tells the canary what must never be seen again.
func (h *house) learnSecrets() {
	for _, c := range h.state.Cards {
		h.canary.card(c)
	}
	h.canary.secret("card number", h.checkout.PAN)
	h.canary.secret("security code", h.checkout.CVC)
	h.canary.secret("issuer API key", h.state.RainKey)
	h.canary.secret("payments API key", h.state.PaymentsKey)
	h.canary.secret("checkout API key", h.state.CheckoutKey)
	h.canary.secret("cards API key", h.state.UploadKey)
	h.canary.secret("partner's API key", h.state.BridgeKey)
	h.canary.secret("partner's API key of payroc", h.state.PayrocKey)
	h.canary.secret("wallet's key", h.state.Wallet)
	for _, name := range []string{"cookie-key.pem", "storage-key.pem", "digest-key.pem", "audit-key.pem", "jwt-key.pem"} {
		block, _ := pem.Decode(h.read(name))
		if block == nil {
			h.t.Fatalf("%s: no PEM", name)
		}
		h.canary.secret(name, string(block.Bytes))
	}
	cookie, err := h.cookie()
	if err != nil {
		h.t.Fatal(err)
	}
	_, signature, _ := strings.Cut(cookie, ".")
	h.canary.secret("cookie signature", strings.TrimSuffix(signature, "%3D"))
}

func (h *house) read(name string) []byte {
	h.t.Helper()
	content, err := os.ReadFile(h.path(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return content
}

// serveIssuers starts the issuers behind a gate.
func (h *house) serveIssuers() {
	secure, err := h.issuerTLS()
	if err != nil {
		h.t.Fatal(err)
	}
	issuers, err := h.makeIssuers(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	for name, is := range issuers {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			h.t.Fatal(err)
		}
		h.state.Addresses[name] = ln.Addr().String()
		api := is.(interface{ Handler() http.Handler }).Handler()
		door := &gate{}
		h.gates[name] = door
		server := &http.Server{Handler: door.before(api), TLSConfig: secure.Clone(), ErrorLog: discardLog}
		ended := make(chan error, 1)
		go func() { ended <- server.ServeTLS(ln, "", "") }()
		h.t.Cleanup(func() {
			door.open()
			is.Shutdown(context.Background()) //nolint:errcheck // it serves nothing by itself; this ends what a fault holds back
			server.Close()
			<-ended
		})
	}
}

// sandboxIssuer is what scripts do with an issuer.
type sandboxIssuer interface {
	SetFault(id string, f sandbox.Fault)
	Total() int
}

// issuer is the one that a step names, or the first; id is what its faults are set for.
func (h *house) issuer(name []string) (is sandboxIssuer, id string) {
	switch {
	case len(name) == 0:
		return h.rain, demoCard
	case name[0] == "payments":
		return h.payments, demoAccount
	case name[0] == "payroc":
		return h.payroc, demoTerminal
	case name[0] == "cards":
		return h.cards, demoPartner
	}
	return h.rain, demoCard
}

func (h *house) gate(name []string) *gate {
	if len(name) > 0 {
		return h.gates[name[0]]
	}
	return h.gates["rain"]
}

// gate holds requests back at the issuer's door while it is closed.
type gate struct {
	mu      sync.Mutex
	closed  chan struct{} // nil while open
	waiting int
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		close(g.closed)
		g.closed = nil
	}
}

// held returns how many requests stand before it.
func (g *gate) held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

func (g *gate) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		closed := g.closed
		if closed != nil {
			g.waiting++
		}
		g.mu.Unlock()
		if closed != nil {
			<-closed
			g.mu.Lock()
			g.waiting--
			g.mu.Unlock()
		}
		next.ServeHTTP(w, r)
	})
}

// useRedis has the configuration name a Redis in place of the memory.
func (h *house) useRedis(address string) {
	h.edit("config.yaml", "store: {memory: {logins_file: logins}}", fmt.Sprintf("store: {redis: {addresses: [%q]}}", address))
}

// edit replaces a text that stands exactly once in a file.
func (h *house) edit(name, old, next string) {
	h.t.Helper()
	text := string(h.read(name))
	if n := strings.Count(text, old); n != 1 {
		h.t.Fatalf("%s has %q %d times, not once", name, old, n)
	}
	if err := h.write(name, []byte(strings.Replace(text, old, next, 1))); err != nil {
		h.t.Fatal(err)
	}
}

// logIn gives the house's user a login record in a Redis, as the login of a later face will.
func (h *house) logIn(address string) {
	h.t.Helper()
	s, err := store.NewRedis(store.RedisConfig{Addresses: []string{address}})
	if err != nil {
		h.t.Fatal(err)
	}
	defer s.Close()
	load := func(use keys.Use, file string) []*keys.Key {
		k, err := keys.Load(keys.Config{ID: string(use) + "-demo", Use: use, File: h.path(file)})
		if err != nil {
			h.t.Fatal(err)
		}
		return []*keys.Key{k}
	}
	cookies, err := newCookies(s, "exa", load(keys.UseCookie, "cookie-key.pem"), load(keys.UseDigest, "digest-key.pem"), false)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cookies.Login(context.Background(), h.exaUser(), time.Hour, 0); err != nil {
		h.t.Fatal(err)
	}
}

// caller returns a tester that calls a gateway, as the demo does.
func (h *house) caller(g *gatewayProcess) *tester {
	h.t.Helper()
	doc, err := h.describe()
	if err != nil {
		h.t.Fatal(err)
	}
	doc.PartnersURL, doc.PublicURL, doc.AdminURL = g.url("partners"), g.url("public"), g.url("admin")
	c, err := newTester(h.dir, doc)
	if err != nil {
		h.t.Fatal(err)
	}
	c.checkout = h.checkout
	h.t.Cleanup(func() {
		c.client.CloseIdleConnections()
		c.partner.CloseIdleConnections()
	})
	return c
}

// url is the base of a listener.
func (g *gatewayProcess) url(listener string) string {
	if listener == "admin" {
		return "http://" + g.addr[listener]
	}
	_, port, _ := net.SplitHostPort(g.addr[listener])
	return "https://localhost:" + port
}

// get asks the admin listener.
func (g *gatewayProcess) get(t testing.TB, path string) (int, string) {
	t.Helper()
	res, err := (&http.Client{Timeout: patience}).Get(g.url("admin") + path) //nolint:noctx // loopback
	if err != nil {
		_ = g.cmd.Process.Signal(syscall.SIGQUIT) // it says what it waits for, and ends
		eventually(t, "end of the process", func() bool { return !g.running() })
		t.Fatalf("%v\n%s", err, g.log())
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// certificateOrder is what a script asks a CA for, as key=value.
type certificateOrder struct {
	name, ca, subject, dns, usage, key string
	notBefore, notAfter                time.Duration // from now
	serial                             int64
}

func parseOrder(name string, args []string) (certificateOrder, error) {
	o := certificateOrder{name: name, usage: "client", key: "ec", notBefore: -time.Hour, notAfter: time.Hour, subject: "CN=" + name}
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		var err error
		switch key {
		case "ca":
			o.ca = value
		case "subject":
			o.subject = value
		case "dns":
			o.dns = value
		case "usage":
			o.usage = value
		case "key":
			o.key = value
		case "serial":
			o.serial, err = strconv.ParseInt(value, 10, 64)
		case "notbefore":
			o.notBefore, err = time.ParseDuration(value)
		case "notafter":
			o.notAfter, err = time.ParseDuration(value)
		default:
			err = fmt.Errorf("unknown word %q", key)
		}
		if err != nil {
			return o, err
		}
	}
	return o, nil
}

// issueCertificate makes NAME.pem and NAME-key.pem in dir. Without a CA it is one itself.
func issueCertificate(dir string, o certificateOrder) error {
	subject := pkix.Name{}
	for part := range strings.SplitSeq(o.subject, ",") {
		switch key, value, _ := strings.Cut(part, "="); key {
		case "CN":
			subject.CommonName = value
		case "C":
			subject.Country = append(subject.Country, value)
		case "O":
			subject.Organization = append(subject.Organization, value)
		default:
			return fmt.Errorf("subject: unknown attribute %q", key)
		}
	}
	now := time.Now()
	if o.serial == 0 {
		n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
		if err != nil {
			return err
		}
		o.serial = n.Int64() + 1
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(o.serial), Subject: subject, NotBefore: now.Add(o.notBefore), NotAfter: now.Add(o.notAfter),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	switch o.usage {
	case "client":
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	case "server":
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	default:
		return fmt.Errorf("unknown usage %q", o.usage)
	}
	if o.dns != "" {
		template.DNSNames = []string{o.dns}
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	parent, signer := template, any(key)
	if o.ca == "" {
		template.IsCA, template.BasicConstraintsValid, template.ExtKeyUsage = true, true, nil
		template.KeyUsage |= x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	} else {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, o.ca+".pem"), filepath.Join(dir, o.ca+"-key.pem"))
		if err != nil {
			return err
		}
		parent, signer = pair.Leaf, pair.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// A pair is replaced file by file; each is whole at any time.
	for _, f := range []struct {
		name, kind string
		der        []byte
	}{{o.name + "-key.pem", "PRIVATE KEY", private}, {o.name + ".pem", "CERTIFICATE", der}} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

func doPartner(s *story, _ *testscript.TestScript, args []string) error {
	s.house.edit("config.yaml", "\npartners:\n", fmt.Sprintf("\npartners:\n  - {id: %q}\n", args[0]))
	for _, file := range []string{"rain-api-key", "payments-api-key", "payroc-issuer-key", "cards-api-key"} {
		s.house.edit("config.yaml", "api_key_file: "+file, "api_key_file: "+file+"\n    shared_credential: true")
	}
	return nil
}

func doAPIKey(s *story, ts *testscript.TestScript, args []string) error {
	_, key, err := credential.Add(s.house.path("credentials.json"), credential.NewAPIKey{
		Partner: args[1], Environment: "test", Scope: args[2:], Now: time.Now(),
	})
	if err != nil {
		return err
	}
	s.canary.secret("partner's API key", key)
	ts.Setenv(args[0], key)
	return nil
}
