package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// The names of the benchmark's world. Keys, cards and everything else in it are made for each run.
const (
	cardID  = "123e4567-e89b-12d3-a456-426655440000"
	userID  = "5f0c1a52-6f0e-4f0b-9f0f-2f1f6f1e9a10"
	exaUser = "0x1234567890abcdef1234567890abcdef12345678"
	subject = "gp_f1a9b6c741c94510bb3b27f2e8379e29"
	account = "00000000-0000-4000-0000-000000000000"
)

// issuerFile is what the issuers' processes are told.
type issuerFile struct {
	APIKey      string         `json:"api_key"`
	PaymentsKey string         `json:"payments_api_key"`
	Cards       []sandbox.Card `json:"cards"`
	Users       []sandbox.User `json:"users"`
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, content string) error {
	return os.WriteFile(w.path(name), []byte(content), 0o600)
}

// setUp makes what does not depend on any address: certificates, keys, and the issuer's card.
func (w *world) setUp(ctx context.Context) error {
	if err := w.makePKI(); err != nil {
		return err
	}
	for name, use := range map[string]string{
		"session": "session", "storage": "storage", "digest": "digest", "jwt": "jwt", "audit": "audit", "issuer": "issuer", "account": "issuer",
	} {
		args := []string{"keys", "generate", "--use", use, "--out", w.path(name + "-key.pem")}
		if use == "session" || use == "issuer" {
			args = append(args, "--public", w.path(name+"-public.pem"))
		}
		if out, err := exec.CommandContext(ctx, w.binary, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s keys generate: %w: %s", w.binary, err, out)
		}
	}
	w.cookieKey = rand.Text() + rand.Text() // text as it is, as Exa has it
	card := sandbox.RandomCard(cardID, "")
	card.UserID = userID
	w.apiKey, w.paymentsKey = rand.Text(), rand.Text()
	issuer, err := json.Marshal(issuerFile{
		APIKey: w.apiKey, PaymentsKey: w.paymentsKey, Cards: []sandbox.Card{card},
		Users: []sandbox.User{{ID: userID, FirstName: "Ada", LastName: "Example", Email: "ada@example.com"}},
	})
	if err != nil {
		return err
	}
	return w.write("issuer.json", string(issuer))
}

// makePKI makes one authority for servers and one for partners, ECDSA P-256 throughout, and the load's side of TLS.
func (w *world) makePKI() error {
	server := &x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	partner := &x509.Certificate{
		Subject:  pkix.Name{CommonName: subject, Country: []string{"US"}},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for ca, leaf := range map[string]*x509.Certificate{"ca": server, "partners-ca": partner} {
		root := &x509.Certificate{Subject: pkix.Name{CommonName: "Cardstile bench " + ca}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
		rootKey, err := w.issue(ca, root, root, nil)
		if err != nil {
			return err
		}
		if err := w.revoke(ca, rootKey); err != nil {
			return err
		}
		name := map[string]string{"ca": "server", "partners-ca": "partner"}[ca]
		if _, err := w.issue(name, leaf, root, rootKey); err != nil {
			return err
		}
	}
	roots, err := loadPool(w.path("ca.pem"))
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(w.path("partner.pem"), w.path("partner-key.pem"))
	if err != nil {
		return err
	}
	// One group for all servers, so that they do the same work. OpenSSL knows the hybrid of Go's default from 3.5 on only.
	group := tls.X25519
	if fips140.Enabled() {
		group = tls.CurveP256
	}
	w.public = &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{group}}
	w.partner = w.public.Clone()
	w.partner.Certificates = []tls.Certificate{pair}
	w.hybrid = w.partner.Clone()
	w.hybrid.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768}
	return nil
}

// issue makes name-key.pem and name.pem; a nil signer is the certificate's own key.
func (w *world) issue(name string, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if signer == nil {
		signer = key
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, err
	}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = template.NotBefore.AddDate(0, 0, 2)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, errors.Join(
		w.write(name+"-key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))),
		w.write(name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
	)
}

// revokedCertificates are on the list that a client's certificate is held against in each handshake.
const revokedCertificates = 1000

// revoke makes ca.crl, with certificates that nobody has.
func (w *world) revoke(ca string, key *ecdsa.PrivateKey) error {
	content, err := os.ReadFile(w.path(ca + ".pem"))
	if err != nil {
		return err
	}
	block, _ := pem.Decode(content)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: certificate.NotBefore, NextUpdate: certificate.NotAfter}
	for i := range revokedCertificates {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(int64(i))), RevocationTime: certificate.NotBefore,
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, certificate, key)
	if err != nil {
		return err
	}
	return w.write(ca+".crl", string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})))
}

func loadPool(file string) (*x509.CertPool, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("%s: no certificate", file)
	}
	return pool, nil
}

func loadRSA(file string) (*rsa.PrivateKey, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: not an RSA key", file)
	}
	return private, nil
}

// signCookie is the signed cookie of an Exa user: urlencode(value + "." + base64(HMAC-SHA-256(secret, value))).
func signCookie(secret, value string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(value))
	return url.QueryEscape(value + "." + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// configure writes Cardstile's configuration: the demo's, without its compatibility modes where no row needs them, and
// with limits that are counted and never reached.
func (w *world) configure(rain, payments string) error {
	var err error
	if w.ports, err = freePorts(3); err != nil {
		return err
	}
	return errors.Join(
		w.write("config.yaml", fmt.Sprintf(config, w.ports[0], w.ports[1], w.ports[2], subject, account, rain, payments)),
		w.write("holders.yaml", fmt.Sprintf(holders, cardID, exaUser, exaUser, userID)),
		w.write("policy.cedar", policies),
		w.write("logins", exaUser+"\n"),
		w.write("api-key", w.apiKey+"\n"),
		w.write("payments-api-key", w.paymentsKey+"\n"),
		w.write("cookie-key", w.cookieKey+"\n"),
	)
}

// freePorts returns ports that nobody listens on at the moment.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		ports[i] = ln.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

const config = `environment: test
listeners:
  partners: {address: "127.0.0.1:%d", tls: {certificate: server.pem, key: server-key.pem, client_ca: partners-ca.pem, revocation: {crl: [partners-ca.crl]}}}
  public: {address: "127.0.0.1:%d", tls: {certificate: server.pem, key: server-key.pem}}
admin: {address: "127.0.0.1:%d"}
store: {memory: {logins_file: logins}}
keys:
  - {id: session, use: session, file: session-key.pem}
  - {id: storage, use: storage, file: storage-key.pem}
  - {id: digest, use: digest, file: digest-key.pem}
  - {id: cookie, use: cookie, file: cookie-key}
  - {id: jwt, use: jwt, file: jwt-key.pem}
  - {id: audit, use: audit, file: audit-key.pem}
partners:
  - {id: gp, certificate: {subject: "CN=%s,C=US"}, accounts: [{id: %s, public_keys: [account-public.pem], login: public_key}]}
issuers:
  rain: {kind: rain, url: "https://%s", ca: ca.pem, api_key_file: api-key, public_key: issuer-public.pem}
  payments: {kind: forward, leg: clear, url: "https://%s", ca: ca.pem, api_key_file: payments-api-key}
routes:
  - {listener: partners, face: gnosispay, issuer: rain, operations: [token.mint]}
  - {listener: public, face: gnosispay, issuer: rain, session_key: session, operations: [card.reveal, pin.reveal],
     unbound_tokens: allow, pin: software, legacy: [oaep-sha1]}
  - {listener: partners, face: exa, issuer: rain, partner: gp, session_key: session, cookie_key: cookie,
     operations: [card.profile, card.reveal], legacy: [oaep-sha1]}
  - {listener: public, face: paymentsgate, issuer: payments, jwt_key: jwt, forward: [{method: GET, path: /wallet}]}
policies: [policy.cedar]
holders: holders.yaml
limits: {partner: 1000000/s, card: 1000000/s, pin_reveal: 1000000/s, pin_set: 1000000/s, login: 1000000/s, unproven: 1000000/s}
audit: {file: audit.jsonl}
`

const holders = `cards:
  - {id: %q, issuer: rain, partners: [gp], users: [%q], environment: test}
users:
  - {id: %q, partner: gp, issuer: rain, issuer_user: %q}
`

const policies = `@id("partners-mint")
permit (principal is Partner, action == Action::"token.mint", resource) when { context.proofs.certificate };

@id("token-opens-card")
permit (principal, action in [Action::"card.reveal", Action::"pin.reveal"], resource) when { context.proofs.token };

@id("user-sees-own-card")
permit (principal, action in [Action::"card.profile", Action::"card.reveal"], resource)
when { context.proofs.cookie && context has user };

@id("accounts-log-in")
permit (principal is Partner, action == Action::"session.mint", resource) when { context.proofs.public_key };

@id("accounts-call")
permit (principal is Partner, action == Action::"forward", resource) when { context.proofs.jwt };
`
