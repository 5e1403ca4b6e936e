package main

import (
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/gateway"
)

// demoOptions are the flags of `demo`.
type demoOptions struct {
	dir       string
	once      bool
	portsFrom int
	pan       string
	out       io.Writer
}

func cmdDemo() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use: "demo", Short: "Run everything on this machine: a PKI, sandbox issuers, and Cardstile in front of them", Args: cobra.NoArgs,
		Long: "Demo makes keys, certificates, a configuration and a made-up card in a directory, starts sandbox\n" +
			"issuers on loopback and Cardstile in front of them, prints commands to paste, and serves until a\n" +
			"signal. A demo's directory is reused: keys, certificates and the card stay, config.yaml and the files\n" +
			"beside it are written anew each time. Any other directory must be empty. With --once it goes through\n" +
			"every flow by itself, refusals included, over real TLS, and exits with 0 only if each ended as it must.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			o.out = cmd.OutOrStdout()
			if o.once && !cmd.Flags().Changed("dir") {
				dir, err := os.MkdirTemp("", "cardstile-demo-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(dir)
				o.dir = dir
			}
			return runDemo(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", ".cardstile", "directory of the demo (with --once: a temporary one)")
	f.BoolVar(&o.once, "once", false, "go through every flow and exit")
	f.IntVar(&o.portsFrom, "ports-from", 0, "take this port and the next two instead of 8443, 8444 and 8445 (with --once: free ports)")
	f.StringVar(&o.pan, "pan", "", "card number of the demo's card (default: random)")
	return cmd
}

// check refuses flags before anything is made.
func (o *demoOptions) check() error {
	if o.portsFrom < 0 || o.portsFrom > 65533 {
		return errors.New("--ports-from: want a port from 1 to 65533")
	}
	if o.pan != "" && !cardNumber(o.pan) {
		return errors.New("--pan: want 12 to 19 digits with a valid check digit")
	}
	return nil
}

// cardNumber reports whether a text is a card number: 12 to 19 digits whose weighted sum is a multiple of ten (ISO/IEC
// 7812-1, annex B).
func cardNumber(text string) bool {
	sum := 0
	for i := range len(text) {
		d := int(text[len(text)-1-i]) - '0'
		if d < 0 || d > 9 {
			return false
		}
		if i%2 == 1 {
			d *= 2
		}
		sum += d/10 + d%10
	}
	return len(text) >= 12 && len(text) <= 19 && sum%10 == 0
}

// errDemoFIPS is the demo's answer where only what FIPS 140-3 approves may be used.
var errDemoFIPS = errors.New("the demo shows session ids that are encrypted with RSA-OAEP and SHA-1, and what wallets sign (secp256k1, Keccak-256),\n" +
	"which GODEBUG=fips140=only does not admit. It runs with GODEBUG=fips140=on; docs/fips.md has a configuration for only")

func runDemo(ctx context.Context, o demoOptions) error {
	if fips140.Enforced() {
		return errDemoFIPS
	}
	if err := admits(o.dir); err != nil {
		return err
	}
	d, err := openDemo(o.dir, o.pan)
	if err != nil {
		return err
	}
	defer d.lock.Close()
	defer d.forget() //nolint:errcheck // the next start removes it as well
	switch {
	case o.portsFrom > 0:
		d.ports = [3]int{o.portsFrom, o.portsFrom + 1, o.portsFrom + 2}
	case o.once:
		if d.ports, err = freePorts(); err != nil {
			return err
		}
	default:
		d.ports = [3]int{8443, 8444, 8445}
	}
	stop, err := d.serveIssuers()
	if err != nil {
		return err
	}
	defer stop()
	if err := d.writeConfig(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	doc, err := d.describe()
	if err != nil {
		return err
	}
	page, err := d.page(doc)
	if err != nil {
		return err
	}
	var failed error
	err = serve(ctx, d.path("config.yaml"), serving{beside: gateway.Beside{"public": page}, started: func(*process) error {
		if err := d.announce(doc); err != nil {
			return err
		}
		if !o.once {
			fmt.Fprint(o.out, d.welcome())
			return nil
		}
		go func() {
			defer cancel(nil)
			ctx, stop := context.WithTimeout(ctx, 20*time.Second)
			defer stop()
			t, err := newTester(d.dir, doc)
			if err != nil {
				failed = err
				return
			}
			failed = tryFlows(ctx, o.out, t)
		}()
		return nil
	}})
	if failed != nil {
		return failed
	}
	return err
}

// welcome is what a newcomer sees: one command to paste for each flow.
func (d *demo) welcome() string {
	return fmt.Sprintf(demoWelcome, quoted(d.dir), quoted(d.binary()), d.ports[0], d.ports[1], d.ports[2], demoCard,
		d.state.Customer, d.state.CardAccount, demoAccount)
}

// quoted is a text as one word of a POSIX shell. A leading - would be an option.
func quoted(text string) string {
	if strings.HasPrefix(text, "-") {
		text = "./" + text
	}
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// binary is how this program is called from the demo's directory.
func (d *demo) binary() string {
	binary, err := os.Executable()
	if err != nil {
		return "cardstile"
	}
	dir, err := filepath.Abs(d.dir)
	if err != nil {
		return binary
	}
	if short, err := filepath.Rel(dir, binary); err == nil && len(short) < len(binary) {
		return short
	}
	return binary
}

const demoWelcome = `
Cardstile is running.  Partners https://localhost:%[3]d   public https://localhost:%[4]d   operators http://127.0.0.1:%[5]d
All that it uses lies in %[1]s. In another terminal:

  cd %[1]s

# A browser shows it all: a card, its PIN, and fields to pay with. Its certificate is of ca.pem, which a browser does not know.
  https://localhost:%[4]d/demo/

# A partner's backend mints a token with its client certificate. It lives 60 s and opens a card once.
  TOKEN=$(curl -s --cacert ca.pem --cert partner.pem --key partner-key.pem -X POST https://localhost:%[3]d/api/v1/ephemeral-token | cut -d'"' -f6)

# A cardholder's device makes a session, and reads the card as it was encrypted for that session alone.
  eval "$(%[2]s session new)"
  curl -s --cacert ca.pem -H "Authorization: Bearer $TOKEN" -H "sessionid: $SESSIONID" https://localhost:%[4]d/api/v1/cards/%[6]s/details | %[2]s session open

# The same token a second time: 401.
  curl -s --cacert ca.pem -H "Authorization: Bearer $TOKEN" -H "sessionid: $SESSIONID" https://localhost:%[4]d/api/v1/cards/%[6]s/details

# A user of the Exa app, named by a signed cookie, sees their own card.
  curl -s --cacert ca.pem -H "Cookie: $(grep -o 'credential_id=[^"]*' demo.json)" -H "sessionid: $SESSIONID" https://localhost:%[4]d/api/card | %[2]s session open

# A cardholder's page keeps a secret; the partner's backend gets a key for its nonce (Bridge's way), which shows the card to that page, once.
  PAGE=$(openssl rand -hex 32) NOW=$(date +%%s); NONCE=$(printf 'nonce:%%s' $NOW | openssl dgst -sha256 -hmac $PAGE -binary | base64)
  KEY=$(curl -s --cacert ca.pem -H "Api-Key: $(cat bridge-api-key)" -H 'Content-Type: application/json' -d "{\"client_nonce\":\"$NONCE\"}" https://localhost:%[4]d/v0/customers/%[7]s/card_accounts/%[8]s/ephemeral_keys | cut -d'"' -f4)
  curl -s --cacert ca.pem -H "Authorization: Bearer $KEY" "https://localhost:%[4]d/v0/card_details/?secret=$PAGE&timestamp=$NOW"

# A service account logs in (PaymentsGate's way), and its calls are forwarded: an account number is masked, or encrypted for a session.
  ACCESS=$(curl -s --cacert ca.pem -H 'Content-Type: application/json' -d "{\"account_id\":\"%[9]s\",\"public_key\":\"$(base64 < service-account-public.pem | tr -d '\n')\"}" https://localhost:%[4]d/auth/token | cut -d'"' -f4)
  curl -s --cacert ca.pem -H "Authorization: Bearer $ACCESS" https://localhost:%[4]d/deals/1/credentials
  curl -s --cacert ca.pem -H "Authorization: Bearer $ACCESS" -H "sessionid: $SESSIONID" https://localhost:%[4]d/deals/1/credentials | %[2]s session open

# Somebody with the partner's name, but from another authority: no handshake.
  curl -sS --cacert ca.pem --cert stranger.pem --key stranger-key.pem -X POST https://localhost:%[3]d/api/v1/ephemeral-token

# What operators and auditors see.
  curl -s http://127.0.0.1:%[5]d/metrics | grep '^cardstile_tokens'
  tail -n 2 audit.jsonl
  %[2]s audit verify --key audit-key.pem audit.jsonl

Stop with Ctrl-C.
`
