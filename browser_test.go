package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/elements"
)

// browserSetup is what the scripts of testdata/browser need to know beside demo.json.
type browserSetup struct {
	Dir       string         `json:"dir"`       // of the demo
	Artefacts string         `json:"artefacts"` // where screenshots go
	Chromium  string         `json:"chromium"`
	Parent    demoCaller     `json:"parent"` // the server of partners' pages
	Other     demoCaller     `json:"other"`  // a second partner
	OtherCard demoCardDoc    `json:"other_card"`
	SPKI      []string       `json:"spki"` // of the servers that the browser may trust, SHA-256 in base64
	Library   browserLibrary `json:"library"`
}

type browserLibrary struct {
	Path      string `json:"path"`
	Integrity string `json:"integrity"`
}

// browserPartner is a partner that the demo does not have, and apps of its own and of the demo's: one whose cards are shown
// for a moment, and one whose pages look like somebody's.
const (
	browserPartner = `
  - id: gp-other
    certificate: {subject: "CN=gp_0000000000000000000000000000beef,C=US"}`
	browserApps = `
      - {id: short, partner: gp-demo, origins: [https://app.example], show: 15s}
      - id: branded
        partner: gp-demo
        origins: [https://app.example]
        page:
          locale: de
          theme: {accent: "#7a1fa2", accent-text: "#ffffff", radius: 2px, surface: "#fff7ff", background: "#fdf0ff", color-scheme: light}
          css: {.pse-card-value: {letter-spacing: 1px, font-weight: "700"}}
      - {id: other, partner: gp-other, origins: [https://other.example]}`
	browserOtherSubject = "gp_0000000000000000000000000000beef"
)

// TestBrowser has partners' pages embed ours in Chromium: see testdata/browser. What the pages look like is kept in
// .test/browser, or where CARDSTILE_ARTEFACTS says.
func TestBrowser(t *testing.T) {
	t.Parallel()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v: tools/setup installs it", err)
	}
	if out, err := exec.Command("testdata/browser/install").CombinedOutput(); err != nil {
		t.Fatalf("testdata/browser/install: %v: what the tests use of npm is neither installed nor to be had:\n%s", err, out)
	}
	dir := filepath.Join(t.TempDir(), "demo")
	program := start(t, "", binary(t), "demo", "--dir", dir, "--ports-from", fmt.Sprint(threePorts(t)))
	eventually(t, "demo.json", func() bool {
		if !program.running() {
			t.Fatalf("the demo ended:\n%s", program.log())
		}
		_, err := os.Stat(filepath.Join(dir, "demo.json"))
		return err == nil
	})
	d := &demo{dir: dir}
	if d.state, err = readDemoState(dir); err != nil {
		t.Fatal(err)
	}
	var doc demoFile
	if err := json.Unmarshal(readFile(t, d.path("demo.json")), &doc); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("the demo said:\n%s", program.log())
		}
	}()
	setup := prepareBrowser(t, d, doc, program)
	setup.Chromium = chromium
	runBrowser(t, setup)

	c := newCanary()
	for _, card := range d.state.Cards {
		c.secret("card number", card.PAN) // codes of three digits are found by chance
	}
	c.secret("card number", browserTypedPAN)
	for _, pin := range browserPINs {
		c.pin(pin)
	}
	metrics, err := http.Get(doc.AdminURL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	text, err := io.ReadAll(metrics.Body)
	if err != nil {
		t.Fatal(err)
	}
	c.saw("/metrics", string(text))
	program.stop(t, syscall.SIGTERM)
	c.saw("the log of the demo", program.log())
	c.auditFiles(t, dir)
	for _, leak := range c.search() {
		t.Error(leak)
	}
}

// What the scripts type: see harness.mjs.
const browserTypedPAN = "5555555555554444"

var browserPINs = []string{"2580", "7391"}

// prepareBrowser gives the demo a second partner and more apps, which it takes up while it runs.
func prepareBrowser(t *testing.T, d *demo, doc demoFile, program *program) browserSetup {
	t.Helper()
	usage := x509.KeyUsageDigitalSignature
	parent := &x509.Certificate{
		Subject: pkix.Name{CommonName: "partners' pages"}, DNSNames: []string{"app.example", "other.example", "evil.example", "cdn.example"},
		KeyUsage: usage, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	other := &x509.Certificate{
		Subject:  pkix.Name{CommonName: browserOtherSubject, Country: []string{"US"}},
		KeyUsage: usage, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if err := d.issue("parent", parent, "ca"); err != nil {
		t.Fatal(err)
	}
	if err := d.issue("other", other, "partners-ca"); err != nil {
		t.Fatal(err)
	}
	card := d.state.Cards[1]
	insertInto(t, d, "holders.yaml", "\ncards:", fmt.Sprintf("\n  - {id: %q, issuer: rain, partners: [gp-other], environment: test}", card.ID))
	insertInto(t, d, "config.yaml", "\npartners:", browserPartner)
	insertInto(t, d, "config.yaml", "\n    apps:", browserApps)
	for _, kind := range []string{"rain", "gnosispay"} {
		insertInto(t, d, "config.yaml", "\n    kind: "+kind, "\n    shared_credential: true")
	}
	public := trusting(t, d)
	eventually(t, "the new configuration is in force", func() bool {
		answer, err := public.Get(doc.PublicURL + "/?appId=other")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		page, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(page), "https://other.example")
	})

	artefacts := os.Getenv("CARDSTILE_ARTEFACTS")
	if artefacts == "" {
		artefacts = filepath.Join(".test", "browser")
	}
	artefacts, err := filepath.Abs(artefacts)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(artefacts, 0o755); err != nil {
		t.Fatal(err)
	}
	library := elements.Lookup(elements.HostedFieldsLibrary)
	return browserSetup{
		Dir: d.dir, Artefacts: artefacts, SPKI: []string{pinOf(t, d, "server"), pinOf(t, d, "parent")},
		Parent:    demoCaller{Certificate: "parent.pem", Key: "parent-key.pem"},
		Other:     demoCaller{ID: "gp-other", Certificate: "other.pem", Key: "other-key.pem"},
		OtherCard: demoCardDoc{ID: card.ID, PAN: card.PAN, CVC: card.CVC, ExpiryMonth: card.ExpiryMonth, ExpiryYear: card.ExpiryYear},
		Library:   browserLibrary{library.Path, library.Integrity},
	}
}

// insertInto writes a text behind the first place where another stands.
func insertInto(t *testing.T, d *demo, name, behind, text string) {
	t.Helper()
	content := string(readFile(t, d.path(name)))
	before, after, found := strings.Cut(content, behind)
	if !found {
		t.Fatalf("%s has no %q", name, behind)
	}
	if err := d.write(name, []byte(before+behind+text+after)); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// trusting is a client of the demo's public listener, and of no other.
func trusting(t *testing.T, d *demo) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(readFile(t, d.path("ca.pem")))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// pinOf is how Chromium is told of a certificate that it may take: by the SHA-256 of its public key (RFC 7469, section 2.4).
func pinOf(t *testing.T, d *demo, name string) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(d.path(name+".pem"), d.path(name+"-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(pair.Leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// runBrowser runs the scripts. What they say is the test's log.
func runBrowser(t *testing.T, setup browserSetup) {
	t.Helper()
	content, err := json.Marshal(setup)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(setup.Dir, "browser.json")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "--test", "--test-reporter=spec", "main.test.mjs")
	cmd.Dir = filepath.Join("testdata", "browser")
	cmd.Env = append(os.Environ(), "CARDSTILE_BROWSER="+file, "NO_COLOR=1")
	cmd.SysProcAttr = dieWithTest()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // so that it ends its browser
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("node: %v; screenshots are in %s", err, setup.Artefacts)
	}
}
