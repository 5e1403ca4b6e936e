package gateway_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	walletsign "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/keys"
)

// This file has who calls the faces beside partners with certificates and users with cookies, the issuers behind them, and
// the routes between.

const (
	domain    = "web.example"
	origin    = "https://web.example"
	evil      = "https://evil.example"
	account   = "00000000-0000-4000-8000-000000000001" // of gp-demo, logs in with a signature
	weak      = "00000000-0000-4000-8000-000000000002" // of gp-demo, logs in with its public key
	bridgeKey = "bridge-api-key-of-the-gateway-tests"
	payKey    = "payments-api-key-of-the-gateway-tests"
	payOwner  = "acc-1" // whose the payments API takes our key for
	payrocKey = "payroc-api-key-of-the-gateway-tests"
	gnosisKey = "gnosis-api-key-of-the-gateway-tests"
)

func newRSAKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	return key
}

// jwtKey makes a key of an algorithm, whose id is the algorithm's name.
func jwtKey(dir, algorithm string) *keys.Key {
	text, err := keys.GenerateJWT(algorithm)
	must(err)
	file := filepath.Join(dir, algorithm+".pem")
	must(os.WriteFile(file, text, 0o600))
	key, err := keys.Load(keys.Config{ID: algorithm, Use: keys.UseJWT, File: file})
	must(err)
	return key
}

// jwts are keys of the kit, by their ids; the first one signs.
func jwts(ids ...string) []credential.JWTKey {
	var all []credential.JWTKey
	for _, id := range ids {
		for _, key := range shared().jwt {
			if key.ID() == id {
				signer, err := key.JWT()
				must(err)
				all = append(all, signer)
			}
		}
	}
	return all
}

// wallet is an account of Ethereum's kind.
type wallet struct {
	key     *secp256k1.PrivateKey
	address string
}

func newWallet() *wallet {
	key, err := secp256k1.GeneratePrivateKey()
	must(err)
	hash := sha3.NewLegacyKeccak256()
	hash.Write(key.PubKey().SerializeUncompressed()[1:])
	return &wallet{key, policy.Address(hash.Sum(nil)[12:]).String()}
}

// sign is personal_sign (EIP-191).
func (w *wallet) sign(text string) string {
	hash := sha3.NewLegacyKeccak256()
	hash.Write([]byte("\x19Ethereum Signed Message:\n" + strconv.Itoa(len(text)) + text))
	compact := walletsign.SignCompact(w.key, hash.Sum(nil), false) // v, r, s
	return "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
}

// passkeySPKI is the public key of a passkey as the directory has it. Its COSE key ends in x and y.
func passkeySPKI(p *sandbox.Passkey) string {
	cose := p.COSEKey()
	point := append([]byte{4}, cose[len(cose)-67:len(cose)-35]...)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(point, cose[len(cose)-32:]...))
	must(err)
	der, err := x509.MarshalPKIXPublicKey(key)
	must(err)
	return base64.StdEncoding.EncodeToString(der)
}

// serviceAccounts are the usual two, as changed.
func serviceAccounts(change ...func(*credential.Account)) []credential.Account {
	public := &shared().service.PublicKey
	der, err := x509.MarshalPKIXPublicKey(public)
	must(err)
	of := func(id, login string) credential.Account {
		a := credential.Account{
			ID: id, Partner: partnerID, Environment: "test", Login: login, Requests: credential.RequestsOptional,
			Keys: []credential.AccountKey{{SPKI: sha256.Sum256(der), Public: public}},
		}
		for _, c := range change {
			c(&a)
		}
		return a
	}
	return []credential.Account{of(account, credential.LoginSignature), of(weak, credential.LoginPublicKey)}
}

// publicText is a public key as PaymentsGate's clients send it.
func publicText(key *rsa.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	must(err)
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// The partners' API keys, by name.
var keyNames = []struct{ name, partner, environment, scope string }{
	{"first", partnerID, "test", ""}, {"second", partnerID, "test", ""}, {"revoked", partnerID, "test", ""}, {"production", partnerID, "production", ""},
	{"other", "gp-other", "test", ""}, {"pages", partnerID, "test", "hosted-fields"}, {"payments", partnerID, "test", "payments"},
}

// newAPIKeys makes them, in a file, which takes long: every house has a copy.
func newAPIKeys(file string) (content []byte, secrets map[string]string) {
	secrets = map[string]string{}
	for _, k := range keyNames {
		entry, secret, err := credential.Add(file, credential.NewAPIKey{Partner: k.partner, Environment: k.environment, Scope: strings.Fields(k.scope), Now: time.Now()})
		must(err)
		secrets[k.name] = secret
		if k.name == "revoked" {
			must(credential.Revoke(file, entry.ID, time.Now()))
		}
	}
	content, err := os.ReadFile(file)
	must(err)
	return content, secrets
}

// loadKeys reads the house's file of API keys.
func (h *house) loadKeys() *credential.APIKeys {
	if h.keyFile == "" {
		h.keyFile, h.apiKeys = filepath.Join(h.t.TempDir(), "credentials.json"), maps.Clone(shared().apiKeys)
		must(os.WriteFile(h.keyFile, shared().keyFile, 0o600))
		for _, secret := range h.apiKeys {
			h.secret(secret)
		}
	}
	all, err := credential.LoadAPIKeys(h.keyFile)
	must(err)
	return all
}

// ring and seals are what main makes of the digest and storage keys.
func ring(label string) credential.DigestRing {
	macs, err := keys.NewMACRing(label, shared().symmetry[keys.UseDigest])
	must(err)
	return credential.Ring(macs)
}

func seals(label string) *keys.SealRing {
	r, err := keys.NewSealRing(label, shared().symmetry[keys.UseStorage])
	must(err)
	return r
}

// startOthers starts the issuers beside Rain.
func (h *house) startOthers() {
	h.t.Helper()
	h.others = map[string]*url.URL{}
	c := &tls.Config{Certificates: []tls.Certificate{shared().server}, MinVersion: tls.VersionTLS12}
	at := sandbox.RandomCard("ba-1", "")
	at.UserID = "bc-1"
	paid := sandbox.RandomCard("pay-1", "")
	h.cards["ba-1"], h.cards["pay-1"] = at, paid
	h.cards["held"], h.cards["brought"] = sandbox.RandomCard("held", ""), sandbox.RandomCard("brought", "") // which no issuer has
	for _, id := range []string{"ba-1", "pay-1", "held", "brought"} {
		h.secret(h.cards[id].PAN)
	}
	var err error
	h.bridge, err = sandbox.NewBridge(sandbox.BridgeConfig{APIKey: h.secret(bridgeKey), Cards: []sandbox.Card{at}, TLS: c, KeepRequests: 4096})
	must(err)
	h.payments, err = sandbox.NewPayments(sandbox.PaymentsConfig{
		APIKeys: map[string]string{h.secret(payKey): payOwner}, Cards: []sandbox.Card{paid}, TLS: c, KeepRequests: 4096,
	})
	must(err)
	h.payroc, err = sandbox.NewPayroc(sandbox.PayrocConfig{
		APIKey: h.secret(payrocKey), Key: shared().issuer, Terminals: []string{terminal, "1234002", otherTerminal}, TLS: c, KeepRequests: 4096,
	})
	must(err)
	h.gnosis, err = sandbox.NewGnosisCards(sandbox.GnosisCardsConfig{
		APIKeys: map[string]string{h.secret(gnosisKey): gnosisOwner}, Key: shared().issuer, TLS: c, KeepRequests: 4096,
	})
	must(err)
	for name, serve := range map[string]func(net.Listener) error{
		"bridge": h.bridge.Serve, "payments": h.payments.Serve, "payroc": h.payroc.Serve, "gnosis": h.gnosis.Serve,
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(err)
		go func() { must(serve(l)) }()
		h.others[name], err = url.Parse("https://" + l.Addr().String())
		must(err)
	}
}

// back is an issuer of the tests.
type back struct {
	name, credential string
	card, user       string // as callers know them
	at               string // the card, in house.cards
}

// backs are one of each kind.
var backs = map[string]back{
	"rain":      {"rain", issuerKey, "ca-rain", "cus-rain", "ic-1"},
	"bridge":    {"bridge", bridgeKey, "ca-bridge", "cus-bridge", "ba-1"},
	"forward":   {"payments", payKey, "", "", "pay-1"},
	"payroc":    {"payroc", payrocKey, "", "", "held"},
	"gnosispay": {"gnosis", gnosisKey, "", ada, "brought"},
}

// issuerKind makes an issuer of a kind.
func (h *house) issuerKind(name string, change func(*gateway.IssuerConfig)) *gateway.Issuer {
	kind, err := issuer.Lookup(name)
	must(err)
	back := backs[name]
	return h.issuerOf(back.name, func(c *gateway.IssuerConfig) {
		c.Kind, c.Credential, c.SessionKey = kind, back.credential, vault.InsecureClearIssuer()
		if !kind.InClear() {
			format, err := envelope.ByName(kind.SessionFormat)
			must(err)
			c.SessionKey, err = vault.NewIssuerKey(format, &shared().issuer.PublicKey)
			must(err)
		}
		if at := h.others[back.name]; at != nil {
			c.URL = at
		}
		if change != nil {
			change(c)
		}
	})
}

// sealedRoute is a route in public whose clients bring sessions.
func sealedRoute(is *gateway.Issuer) gateway.Route {
	return gateway.Route{Listener: "public", Environment: "test", Issuer: is, ClientKeys: shared().clients, Legacy: []string{"oaep-sha1"}}
}

func sealedFace() face.Config {
	return face.Config{SessionKeys: shared().clients, PINKeys: shared().clients}
}

// exaRoute is face exa with all that it can have.
func (h *house) exaRoute(is *gateway.Issuer) gateway.Route {
	r := sealedRoute(is)
	r.Partner, r.Cookies, r.Origins, r.PIN = partnerID, h.cookies, []string{origin, "https://app.example:8443"}, face.PINSoftware
	r.Challenges, r.Scoped = h.challenges(), h.exaScoped()
	f := sealedFace()
	f.PIN, f.PINWithPAN = face.PINSoftware, true
	speak(&r, "exa", f)
	return r
}

// exaScoped are the tokens of wallet extensions.
func (h *house) exaScoped() *credential.ScopedJWTs {
	scoped, err := credential.NewScopedJWTs(credential.ScopedConfig{
		Issuer: "exa-server", Audience: "wallet-extension", Scope: "card:provisioning", Environment: "test", Keys: jwts(keys.HS256),
	})
	must(err)
	return scoped
}

func (h *house) challenges() *gateway.Challenges {
	c := &gateway.Challenges{Domain: domain, ChainID: 10, Wallets: credential.NewWallets(credential.WalletsConfig{})}
	var err error
	c.Issued, err = credential.NewChallenges(credential.ChallengesConfig{
		Tokens: h.services.Store, Records: h.services.Store, Digests: ring("challenge"), Seals: seals("challenge"),
		Uses: []policy.MAC{mac(keys.UseDigest, "challenge")},
	})
	must(err)
	c.Passkeys, err = credential.NewPasskeys(credential.PasskeysConfig{RPID: domain, Origins: []string{origin}})
	must(err)
	return c
}

// bridgeRoute is face bridge, whose pages are shown cards in clear.
func (h *house) bridgeRoute(is *gateway.Issuer) gateway.Route { return h.bridgeRouteThat(is, false) }

func (h *house) bridgeRouteThat(is *gateway.Issuer, keeps bool) gateway.Route {
	r := gateway.Route{Listener: "public", Environment: "test", Issuer: is, ClientKeys: vault.InsecureClearClient(), KeepOnWrongProof: keeps}
	speak(&r, "bridge", face.Config{Clear: true})
	return r
}

// paymentsRoute is face paymentsgate with these calls, or the usual ones.
func (h *house) paymentsRoute(is *gateway.Issuer, calls ...exchange.ForwardCall) gateway.Route {
	return h.paymentsRouteOf(is, jwts(keys.ES256), calls...)
}

func (h *house) paymentsRouteOf(is *gateway.Issuer, signers []credential.JWTKey, calls ...exchange.ForwardCall) gateway.Route {
	r := sealedRoute(is)
	if h.o.accounts == nil {
		h.o.accounts = serviceAccounts()
	}
	var err error
	r.Accounts, err = credential.NewAccounts(h.o.accounts)
	must(err)
	r.Families, err = credential.NewFamilies(credential.FamiliesConfig{
		Face: "paymentsgate", Tokens: h.services.Store, Digests: ring("refresh"), Sessions: seals("refresh"), Records: h.services.Store,
		Lives: []policy.MAC{mac(keys.UseDigest, "family")}, Accounts: r.Accounts,
	})
	must(err)
	r.JWTs, err = credential.NewJWTs(credential.JWTsConfig{Issuer: "cardstile", Audience: "cardstile", Environment: "test", Keys: signers, Families: r.Families})
	must(err)
	r.Assertions, err = credential.NewClientAssertions(credential.ClientAssertionsConfig{
		Accounts: r.Accounts, Audiences: []string{"https://" + domain + "/auth/token"}, Store: h.services.Store, Digests: []policy.MAC{mac(keys.UseDigest, "assertion")},
	})
	must(err)
	if calls == nil {
		calls = usualForwards()
	}
	f := sealedFace()
	f.Forward, f.PublicKey, f.JWKS = calls, publicKeyDigest, credential.JWKS(signers...)
	speak(&r, "paymentsgate", f)
	return r
}

// publicKeyDigest reads a public key as main has it read.
func publicKeyDigest(text string) ([32]byte, error) {
	spki, _, err := keys.ParsePublicBase64(text)
	switch {
	case errors.Is(err, keys.ErrPrivateKey):
		return spki, face.ErrPrivateKey
	case err != nil:
		return spki, face.ErrPublicKey
	}
	return spki, nil
}

// forwardOf declares a call, of which fields and submit name members of answer and body.
func forwardOf(method, pattern string, without exchange.WithoutSession, fields, submit map[string]vault.Field) exchange.ForwardCall {
	c := exchange.ForwardCall{Name: method + " " + pattern, Method: method, Pattern: pattern, Changes: method != "GET", Without: without, Fields: fields, Submit: submit}
	var err error
	c.Response, err = vault.NewShape(vault.ShapeConfig{Clear: fields})
	must(err)
	if method != "GET" && method != "DELETE" {
		c.Request, err = vault.NewShape(vault.ShapeConfig{Sealed: submit})
		must(err)
	}
	return c
}

var accountNumber = map[string]vault.Field{"/account_number": vault.FieldAccount}

func usualForwards() []exchange.ForwardCall {
	mask := exchange.WithoutMask
	return []exchange.ForwardCall{
		forwardOf("GET", "/wallet", mask, nil, nil),
		forwardOf("POST", "/deals/payin", mask, nil, nil),
		forwardOf("POST", "/deals/payout", mask, nil, map[string]vault.Field{"/recipient/account_number": vault.FieldAccount}),
		forwardOf("GET", "/deals/{id}", mask, nil, nil),
		forwardOf("GET", "/deals/list", mask, nil, nil),
		forwardOf("GET", "/deals/{id}/credentials", mask, accountNumber, nil),
	}
}

// wide are the routes of all faces: those of the usual house, with exa and all that it has, over Rain, and PaymentsGate.
func wide(h *house) []gateway.Route {
	is := h.issuerOf("rain", h.o.issuer)
	routes := h.routes(is)
	routes[2] = h.exaRoute(is)
	return append(routes, h.bridgeRoute(is), h.paymentsRoute(h.issuerKind("forward", h.o.issuer)), h.payrocRoute(h.issuerKind("payroc", h.o.issuer)))
}

// reload puts the house's configuration in force, as its options make it now.
func (h *house) reload() {
	h.t.Helper()
	if err := h.gateway.Reload(h.newConfig()); err != nil {
		h.t.Fatal(err)
	}
}

// sibling is another gateway on the same store, with the same keys.
func (h *house) sibling(o options) *house {
	h.t.Helper()
	kept := unclosed{h.services.Store}
	o.store = func(own store.Store) store.Store { must(own.Close()); return kept }
	return newHouse(h.t, o)
}

// unclosed is a store that somebody else closes.
type unclosed struct{ store.Store }

// Close implements store.Store.
func (unclosed) Close() error { return nil }
