package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/vault/keys"
)

// The demo's fixed names. Everything else in it is made at random for each new directory.
const (
	demoPartner = "gp-demo"
	demoSubject = "gp_f1a9b6c741c94510bb3b27f2e8379e29"
	demoCard    = "123e4567-e89b-12d3-a456-426655440000"
	demoOrigin  = "https://app.example"
	demoDomain  = "localhost"
	demoAccount = "00000000-0000-4000-0000-000000000000"

	demoTerminal = "1234001"
	demoLibrary  = "1.7.0.261457"
	demoApp      = "demo"
	demoUsers    = "https://users.example" // who signs the tokens of users
	demoAudience = "cardstile-demo"
)

// demo is a directory that holds a whole Cardstile: a PKI, keys, a configuration, and sandbox issuers with their cards.
type demo struct {
	dir      string
	lock     *os.File
	state    demoState
	rain     *sandbox.Rain
	payments *sandbox.Payments
	payroc   *sandbox.Payroc
	cards    *sandbox.GnosisCards
	ports    [3]int // partners, public, admin
}

// demoState is what the directory remembers between starts: made-up cards and people, and secrets that open nothing else.
type demoState struct {
	Addresses   map[string]string `json:"addresses"` // of the sandbox issuers, by name
	RainKey     string            `json:"rain_api_key"`
	PaymentsKey string            `json:"payments_api_key"`
	CheckoutKey string            `json:"payroc_issuer_api_key"`
	UploadKey   string            `json:"cards_api_key"`
	BridgeKey   string            `json:"bridge_api_key"` // of the partner, for face bridge
	PayrocKey   string            `json:"payroc_api_key"` // likewise
	Cards       []sandbox.Card    `json:"cards"`
	Users       []sandbox.User    `json:"users"`
	Wallet      string            `json:"wallet_key"`          // of the user of Exa, in hex
	CardAccount string            `json:"bridge_card_account"` // what callers of face bridge call the card
	Customer    string            `json:"bridge_customer"`     // and its user
}

// complete reports whether the directory remembers all that a demo of today has.
func (s *demoState) complete() bool {
	return len(s.Cards) == 2 && len(s.Users) == 1 && s.Wallet != "" && s.BridgeKey != "" && s.PayrocKey != "" && s.PaymentsKey != "" && s.CheckoutKey != "" && s.UploadKey != "" && s.CardAccount != ""
}

// demoFile is demo.json: what a newcomer, or a check from outside, needs to know.
type demoFile struct {
	PartnersURL      string       `json:"partners_url"`
	PublicURL        string       `json:"public_url"`
	AdminURL         string       `json:"admin_url"`
	CA               string       `json:"ca"`
	SessionPublicKey string       `json:"session_public_key"`
	AuditLog         string       `json:"audit_log"`
	Origin           string       `json:"origin"`
	Partner          demoCaller   `json:"partner"`
	Stranger         demoCaller   `json:"stranger"`
	Card             demoCardDoc  `json:"card"`
	GnosisPay        demoGnosis   `json:"gnosispay"`
	PaymentsGate     demoPayments `json:"paymentsgate"`
	Payroc           demoPayroc   `json:"payroc"`
	Bridge           demoBridge   `json:"bridge"`
	Exa              demoExa      `json:"exa"`
}

type demoCaller struct {
	ID          string `json:"id,omitempty"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

type demoCardDoc struct {
	ID          string `json:"id"`
	PAN         string `json:"pan"`
	CVC         string `json:"cvc"`
	ExpiryMonth string `json:"expiry_month"`
	ExpiryYear  string `json:"expiry_year"`
	PIN         string `json:"pin"`
}

type demoPayments struct {
	AccountID  string `json:"account_id"`
	PublicKey  string `json:"public_key"`  // base64 of the PEM file
	PrivateKey string `json:"private_key"` // file
	Deal       string `json:"deal"`        // whose credentials are the card's
}

type demoGnosis struct {
	AppID     string `json:"app_id"`
	UserToken string `json:"user_token"`
	WalletKey string `json:"wallet_key"` // file: hex of the secp256k1 key that the user signs with
}

type demoPayroc struct {
	APIKey     string `json:"api_key"`
	TerminalID string `json:"processing_terminal_id"`
	LibVersion string `json:"lib_version"`
}

type demoBridge struct {
	APIKey        string `json:"api_key"`
	CustomerID    string `json:"customer_id"`
	CardAccountID string `json:"card_account_id"`
}

type demoExa struct {
	Cookie            string `json:"cookie"`
	ProvisioningToken string `json:"provisioning_token"`
	CredentialID      string `json:"credential_id"`
	WalletKey         string `json:"wallet_key"` // file: hex of the secp256k1 key that the user signs with
}

// openDemo takes a directory and fills in what it lacks. Another process in it is an error, so that two demos do not
// write over one another.
func openDemo(dir, pan string) (*demo, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d := &demo{dir: dir}
	var err error
	if d.lock, err = os.OpenFile(d.path(".lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another demo runs in this directory", dir), d.lock.Close())
	}
	for _, step := range []func() error{d.forget, d.makePKI, d.makeKeys, func() error { return d.makePeople(pan) }, d.makeCredentials} {
		if err := step(); err != nil {
			return nil, errors.Join(err, d.lock.Close())
		}
	}
	return d, nil
}

// admits refuses a directory in which files of somebody else lie: a demo writes over what has the names of its own.
func admits(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	state, err := readDemoState(dir)
	if err != nil {
		return err
	}
	there := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	}
	unfinished := there(".lock") && !there("config.yaml") // of a first start that was cut short
	if len(state.Addresses) == 0 && !unfinished {
		return fmt.Errorf("--dir: %s is neither empty nor the directory of a demo; nothing was written", dir)
	}
	return nil
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

// forget removes demo.json: it is there only while everything answers.
func (d *demo) forget() error {
	if err := os.Remove(d.path("demo.json")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// missing reports whether a file is still to be made.
func (d *demo) missing(name string) bool {
	_, err := os.Stat(d.path(name))
	return errors.Is(err, fs.ErrNotExist)
}

// leafDays is how long certificates of the demo are valid: browsers take none of more than 398 days. makePKI makes them anew in time.
const leafDays = 397

// ends reports whether a certificate ends within 30 days, or cannot be read.
func (d *demo) ends(name string) bool {
	content, err := os.ReadFile(d.path(name))
	if err != nil {
		return true
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return true
	}
	c, err := x509.ParseCertificate(block.Bytes)
	return err != nil || time.Until(c.NotAfter) < 30*24*time.Hour
}

// makePKI makes the authorities and their certificates: one for our servers, one for partners, and a stranger's.
func (d *demo) makePKI() error {
	server := &x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	partner := &x509.Certificate{
		Subject: pkix.Name{CommonName: demoSubject, Country: []string{"US"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range []struct {
		ca, caName, leaf string
		template         *x509.Certificate
	}{
		{"ca", "Cardstile demo servers", "server", server},
		{"ca", "Cardstile demo servers", "issuer-server", server},
		{"partners-ca", "Cardstile demo partners", "partner", partner},
		{"stranger-ca", "Cardstile demo strangers", "stranger", partner},
	} {
		if d.missing(c.ca + ".pem") {
			ca := &x509.Certificate{Subject: pkix.Name{CommonName: c.caName}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
			if err := d.issue(c.ca, ca, ""); err != nil {
				return err
			}
		}
		if d.missing(c.leaf+".pem") || d.ends(c.leaf+".pem") {
			c.template.KeyUsage = x509.KeyUsageDigitalSignature
			if err := d.issue(c.leaf, c.template, c.ca); err != nil {
				return err
			}
		}
	}
	return nil
}

// issue makes a key and a certificate: name-key.pem and name.pem. An empty ca signs itself.
func (d *demo) issue(name string, template *x509.Certificate, ca string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	parent, signer := template, key
	if ca != "" {
		pair, err := tls.LoadX509KeyPair(d.path(ca+".pem"), d.path(ca+"-key.pem"))
		if err != nil {
			return err
		}
		parent, signer = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return err
	}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = template.NotBefore.AddDate(5, 0, 0)
	if ca != "" {
		template.NotAfter = template.NotBefore.AddDate(0, 0, leafDays)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		d.write(name+"-key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
		d.write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	)
}

// makeKeys makes our keys, and the sandbox issuer's.
func (d *demo) makeKeys() error {
	for name, use := range demoKeys {
		if !d.missing(name + "-key.pem") {
			continue
		}
		public := ""
		if use == keys.UseSession || use == keys.UseIssuer {
			public = d.path(name + "-public.pem")
		}
		if err := generateKey(string(use), 0, d.path(name+"-key.pem"), public, ""); err != nil {
			return err
		}
	}
	return nil
}

// demoKeys are the files of keys. That of the service account is its partner's, and of the issuer's kind: a plain RSA key.
var demoKeys = map[string]keys.Use{
	"session": keys.UseSession, "storage": keys.UseStorage, "digest": keys.UseDigest, "cookie": keys.UseCookie, "jwt": keys.UseJWT,
	"audit": keys.UseAudit, "rain": keys.UseIssuer, "service-account": keys.UseIssuer, "payroc": keys.UseIssuer, "cards": keys.UseIssuer,
	"users": keys.UseJWT,
}

// makePeople makes up a card and its holder; a known directory keeps its own, unless pan asks for another number.
func (d *demo) makePeople(pan string) error {
	var err error
	if d.state, err = readDemoState(d.dir); err != nil {
		return err
	}
	if !d.state.complete() {
		holder := sandbox.User{ID: randomUUID(), FirstName: "Ada", LastName: "Example", Email: "ada@example.com"}
		card := sandbox.RandomCard(demoCard, pan)
		card.UserID = holder.ID
		// A second card, which is nobody's here.
		other := sandbox.RandomCard(randomUUID(), "")
		d.state = newDemoState([]sandbox.Card{card, other}, holder)
	}
	if pan != "" {
		d.state.Cards[0].PAN = pan
	}
	return nil
}

// newDemoState makes up everything that is not a card.
func newDemoState(cards []sandbox.Card, holder sandbox.User) demoState {
	return demoState{
		Addresses: map[string]string{}, RainKey: rand.Text(), PaymentsKey: rand.Text(), CheckoutKey: rand.Text(), UploadKey: rand.Text(), Cards: cards, Users: []sandbox.User{holder},
		Wallet: newWallet(), CardAccount: randomUUID(), Customer: randomUUID(),
	}
}

// makeCredentials gives the partner API keys, whose digests are all that the gateway has of them.
func (d *demo) makeCredentials() error {
	if d.state.BridgeKey != "" && d.state.PayrocKey != "" && !d.missing("credentials.json") {
		return nil
	}
	if err := os.Remove(d.path("credentials.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, key := range []struct {
		into  *string
		note  string
		scope []string
	}{{&d.state.BridgeKey, "demo", nil}, {&d.state.PayrocKey, "demo of payroc", []string{"hosted-fields", "payments"}}} {
		var err error
		_, *key.into, err = credential.Add(d.path("credentials.json"), credential.NewAPIKey{
			Partner: demoPartner, Environment: "test", Note: key.note, Scope: key.scope, Now: time.Now(),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readDemoState returns what a directory remembers; of a new one, nothing.
func readDemoState(dir string) (s demoState, err error) {
	file := filepath.Join(dir, "sandbox.json")
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(content, &s); err != nil {
		return s, fmt.Errorf("%s: damaged: %w", file, err)
	}
	return s, nil
}

// randomUUID is a version 4 UUID (RFC 9562 section 5.4).
func randomUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (d *demo) rsaKey(name string) (*rsa.PrivateKey, error) { return rsaKeyFile(d.path(name)) }

// rsaKeyFile reads a private key that is not ours: an issuer's, or a partner's.
func rsaKeyFile(name string) (*rsa.PrivateKey, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM", name)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: not an RSA key", name)
	}
	return private, nil
}

// writeConfig writes the configuration for the ports, and what it names besides keys and certificates.
func (d *demo) writeConfig() error {
	state, err := json.MarshalIndent(d.state, "", "  ")
	if err != nil {
		return err
	}
	if err := d.write("sandbox.json", append(state, '\n')); err != nil { // first: by it a directory is known as a demo's
		return err
	}
	users, err := d.usersKey()
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		"users-jwks.json":     string(credential.JWKS(users)) + "\n",
		"payroc-issuer-key":   d.state.CheckoutKey + "\n",
		"cards-api-key":       d.state.UploadKey + "\n",
		"payroc-api-key":      d.state.PayrocKey + "\n",
		"rain-api-key":        d.state.RainKey + "\n",
		"payments-api-key":    d.state.PaymentsKey + "\n",
		"bridge-api-key":      d.state.BridgeKey + "\n",
		"wallet-key.hex":      d.state.Wallet + "\n",
		"logins":              d.exaUser() + "\n",
		"policies/demo.cedar": demoPolicies,
		"holders.yaml":        fmt.Sprintf(demoHolders, d.state.Cards[0].ID, d.state.CardAccount, d.exaUser(), d.state.Customer, d.state.Users[0].ID),
		"config.yaml":         fmt.Sprintf(demoConfig, d.ports[0], d.ports[1], d.ports[2], d.url("rain"), d.url("payments"), d.url("payroc"), d.url("cards")),
	} {
		if err := d.write(name, []byte(content)); err != nil {
			return err
		}
	}
	return nil
}

// write replaces a file as a whole.
func (d *demo) write(name string, content []byte) error {
	target := d.path(name)
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(target), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), target)
}

// describe is what demo.json says.
func (d *demo) describe() (demoFile, error) {
	cookie, err := d.cookie()
	if err != nil {
		return demoFile{}, err
	}
	provisioning, err := d.provisioningToken()
	if err != nil {
		return demoFile{}, err
	}
	user, err := d.userToken()
	if err != nil {
		return demoFile{}, err
	}
	account, err := os.ReadFile(d.path("service-account-public.pem"))
	if err != nil {
		return demoFile{}, err
	}
	card := d.state.Cards[0]
	doc := demoFile{
		PartnersURL: fmt.Sprintf("https://localhost:%d", d.ports[0]), PublicURL: fmt.Sprintf("https://localhost:%d", d.ports[1]),
		AdminURL: fmt.Sprintf("http://127.0.0.1:%d", d.ports[2]),
		CA:       "ca.pem", SessionPublicKey: "session-public.pem", AuditLog: "audit.jsonl", Origin: demoOrigin,
		Partner:   demoCaller{demoPartner, "partner.pem", "partner-key.pem"},
		Stranger:  demoCaller{"", "stranger.pem", "stranger-key.pem"},
		Card:      demoCardDoc{card.ID, card.PAN, card.CVC, card.ExpiryMonth, card.ExpiryYear, card.PIN},
		GnosisPay: demoGnosis{AppID: demoApp, UserToken: user, WalletKey: "wallet-key.hex"},
		Payroc:    demoPayroc{APIKey: d.state.PayrocKey, TerminalID: demoTerminal, LibVersion: demoLibrary},
		PaymentsGate: demoPayments{
			AccountID: demoAccount, PublicKey: base64.StdEncoding.EncodeToString(account), PrivateKey: "service-account-key.pem",
			Deal: sandbox.DealWithCard(demoAccount),
		},
		Bridge: demoBridge{APIKey: d.state.BridgeKey, CustomerID: d.state.Customer, CardAccountID: d.state.CardAccount},
		Exa: demoExa{
			Cookie: "credential_id=" + cookie, ProvisioningToken: provisioning, CredentialID: d.exaUser(), WalletKey: "wallet-key.hex",
		},
	}
	return doc, nil
}

// announce writes demo.json, when everything answers.
func (d *demo) announce(doc demoFile) error {
	content, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	return d.write("demo.json", append(content, '\n'))
}

// cookie is the signed cookie of the demo's user.
func (d *demo) cookie() (string, error) {
	key, err := keys.Load(keys.Config{ID: "cookie-demo", Use: keys.UseCookie, File: d.path("cookie-key.pem")})
	if err != nil {
		return "", err
	}
	cookies, err := newCookies(nil, "exa", []*keys.Key{key}, nil, true)
	if err != nil {
		return "", err
	}
	return cookies.Sign(d.exaUser()), nil
}

// provisioningToken is what a wallet extension of the demo's user calls with.
func (d *demo) provisioningToken() (string, error) {
	key, err := keys.Load(keys.Config{ID: "jwt-demo", Use: keys.UseJWT, File: d.path("jwt-key.pem")})
	if err != nil {
		return "", err
	}
	signers, err := jwtKeys([]*keys.Key{key})
	if err != nil {
		return "", err
	}
	scoped, err := newScoped("test", &RouteConfig{}, signers)
	if err != nil {
		return "", err
	}
	token, _, err := scoped.Mint(d.exaUser(), demoTokenTTL)
	return token, err
}

// usersKey signs the tokens of users: somebody else's, whose JWKS the gateway has.
func (d *demo) usersKey() (credential.JWTKey, error) {
	key, err := keys.Load(keys.Config{ID: "users-demo", Use: keys.UseJWT, File: d.path("users-key.pem")})
	if err != nil {
		return nil, err
	}
	return key.JWT()
}

// userToken is what the demo's user shows beside a partner's token.
func (d *demo) userToken() (string, error) {
	key, err := d.usersKey()
	if err != nil {
		return "", err
	}
	tokens, err := credential.NewScopedJWTs(credential.ScopedConfig{
		Issuer: demoUsers, Audience: demoAudience, Scope: "cards", Environment: "test", Keys: []credential.JWTKey{key},
	})
	if err != nil {
		return "", err
	}
	token, _, err := tokens.Mint(d.exaUser(), demoTokenTTL)
	return token, err
}

// demoTokenTTL is the life of the tokens in demo.json, which are made anew at each start.
const demoTokenTTL = 24 * time.Hour

// exaUser is the demo's user of Exa: the address of their wallet.
func (d *demo) exaUser() string { return walletAddress(d.state.Wallet) }

// freePorts returns three ports that nobody listens on at the moment.
func freePorts() (ports [3]int, err error) {
	for i := range ports {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return ports, err
		}
		defer ln.Close()
		ports[i] = ln.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}
