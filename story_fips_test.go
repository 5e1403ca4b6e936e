package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// Steps of stories about FIPS 140-3.
var fipsSteps = []step{
	{"fips-house DIR: a house with fips.yaml beside its config.yaml: everything that needs nothing beyond FIPS 140-3, and an issuer of Bridge's kind", 1, doFIPSHouse},
	{"fips-serve MODE NAME CONFIG: serve, with GODEBUG=fips140=MODE", 3, doFIPSServe},
}

// fipsConfig is what docs/fips.md says of GODEBUG=fips140=only, as a configuration.
const fipsConfig = `environment: test
listeners:
  partners:
    address: "127.0.0.1:0"
    tls: {certificate: server.pem, key: server-key.pem, client_ca: partners-ca.pem}
  public:
    address: "127.0.0.1:0"
    tls: {certificate: server.pem, key: server-key.pem}
admin: {address: "127.0.0.1:0"}
store: {memory: {logins_file: logins}}
keys:
  - {id: storage-demo, use: storage, file: storage-key.pem}
  - {id: digest-demo, use: digest, file: digest-key.pem}
  - {id: cookie-demo, use: cookie, file: cookie-key.pem}
  - {id: jwt-demo, use: jwt, file: jwt-key.pem}
  - {id: audit-demo, use: audit, file: audit-key.pem}
partners:
  - id: gp-demo
    certificate: {subject: "CN=gp_f1a9b6c741c94510bb3b27f2e8379e29,C=US"}
    terminals: ["1234001"]
    accounts:
      - {id: 00000000-0000-4000-0000-000000000000, public_keys: [service-account-public.pem], login: public_key, requests: optional}
issuers:
  bridge: {kind: bridge, leg: clear, url: %[1]s, ca: ca.pem, api_key_file: bridge-issuer-key}
  payments: {kind: forward, leg: clear, url: %[2]s, ca: ca.pem, api_key_file: payments-api-key}
routes:
  - {listener: partners, face: gnosispay, issuer: bridge, operations: [token.mint]}
  - {listener: public, face: bridge, issuer: bridge, client_leg: clear}
  - {listener: public, face: exa, issuer: bridge, partner: gp-demo, cookie_key: cookie-demo, operations: [card.profile, card.status, card.mode]}
  - listener: public
    face: paymentsgate
    issuer: payments
    jwt_key: jwt-demo
    forward:
      - {method: GET, path: /wallet}
      - {method: POST, path: /deals/payin}
      - {method: GET, path: "/deals/{id}/credentials", fields: {/account_number: account}}
  - listener: public
    face: payroc
    issuer: payments
    jwt_key: jwt-demo
    client_leg: clear
    origins: [https://app.example]
    hosted_fields: {libraries: [1.7.0.261457]}
    forward:
      - {method: GET, path: /v1/payments}
policies: [policies/*.cedar]
holders: fips-holders.yaml
credentials: credentials.json
audit: {file: audit.jsonl}
`

const fipsHolders = `cards:
  - {id: %[1]q, issuer: bridge, issuer_card: %[2]q, partners: [gp-demo], users: [%[3]q], environment: test}
  - {id: %[2]q, issuer: bridge, partners: [gp-demo], users: [%[4]q], environment: test}
users:
  - {id: %[3]q, partner: gp-demo, issuer: bridge, issuer_user: %[4]q}
  - {id: %[4]q, partner: gp-demo, issuer: bridge}
`

func doFIPSHouse(s *story, ts *testscript.TestScript, args []string) error {
	if err := doHouse(s, ts, args); err != nil {
		return err
	}
	h := s.house
	secure, err := h.issuerTLS()
	if err != nil {
		return err
	}
	card := h.state.Cards[0]
	card.ID, card.UserID = h.state.CardAccount, h.state.Customer
	key := sandbox.RandomCard("", "").PAN + "-issuer"
	s.canary.secret("bridge's API key", key)
	bridge, err := sandbox.NewBridge(sandbox.BridgeConfig{APIKey: key, Cards: []sandbox.Card{card}, TLS: secure})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- bridge.Serve(ln) }()
	s.t.Cleanup(func() {
		bridge.Shutdown(context.Background()) //nolint:errcheck // the test ends
		<-ended
	})
	for name, content := range map[string]string{
		"fips.yaml":         fmt.Sprintf(fipsConfig, "https://"+ln.Addr().String(), h.url("payments")),
		"fips-holders.yaml": fmt.Sprintf(fipsHolders, h.state.Cards[0].ID, h.state.CardAccount, h.exaUser(), h.state.Customer),
		"bridge-issuer-key": key + "\n",
	} {
		if err := h.write(name, []byte(content)); err != nil {
			return err
		}
	}
	return nil
}

func doFIPSServe(s *story, ts *testscript.TestScript, args []string) error {
	path := filepath.Join(s.work, "cardstile-"+args[0])
	script := fmt.Sprintf("#!/bin/sh\nGODEBUG=fips140=%s exec %s \"$@\"\n", args[0], binary(s.t))
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		return err
	}
	return s.serve(ts, args[1], path, args[2])
}
