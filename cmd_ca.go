package main

import (
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault/ca"
	"github.com/cardstile/cardstile/vault/keys"
)

func cmdCA() *cobra.Command {
	cmd := group(&cobra.Command{Use: "ca", Short: "A certificate authority for partners' certificates"})
	cmd.AddCommand(cmdCAInit(), cmdCACRL())
	return cmd
}

// newCA is what `ca init` is asked for.
type newCA struct {
	dir, subject, curve, passphraseFile, crlURL string
	days, crlDays                               int
	plain, asJSON                               bool
	notes
}

func cmdCAInit() *cobra.Command {
	var n newCA
	cmd := &cobra.Command{
		Use: "init", Short: "Make a certificate authority", Args: cobra.NoArgs,
		Long: "Init makes a directory with a key, a certificate of its own and an empty index. The key is sealed with a\n" +
			"passphrase, as `keys generate` seals keys. Name its ca.pem as `client_ca` of a listener, or as\n" +
			"`certificate.ca` of a partner. Nothing is overwritten.",
		Example: "  cardstile ca init --dir partners-ca --subject \"CN=Example Partners CA,O=Example,C=GB\" --passphrase-file passphrase",
		RunE: func(cmd *cobra.Command, _ []string) error {
			n.said = cmd.ErrOrStderr()
			if err := n.make(); err != nil {
				return err
			}
			if n.asJSON {
				return n.report(cmd.OutOrStdout())
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: a CA; trust %s/%s\n", n.dir, n.dir, ca.CertificateFile)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.dir, "dir", "", "directory to make it in")
	f.StringVar(&n.subject, "subject", "", "its name, as in CN=Example Partners CA,O=Example,C=GB")
	f.StringVar(&n.passphraseFile, "passphrase-file", "", "seal the key with the passphrase in this file")
	f.BoolVar(&n.plain, "insecure-plain-key", false, "leave the key unsealed; production refuses such a CA")
	f.StringVar(&n.curve, "curve", "P-256", "of its key: P-256 or P-384")
	f.IntVar(&n.days, "days", 3650, "how long its certificate is valid")
	f.StringVar(&n.crlURL, "crl-url", "", "where its revocation list will be found; stands in each certificate")
	f.IntVar(&n.crlDays, "crl-days", 7, "how long each revocation list is good for")
	jsonFlag(cmd, &n.asJSON)
	for _, name := range []string{"dir", "subject"} {
		cmd.MarkFlagRequired(name)
	}
	return cmd
}

func (n *newCA) make() error {
	subject, err := policy.ParseSubject(n.subject)
	if err != nil {
		return fmt.Errorf("--subject: %w", err)
	}
	for _, attribute := range []string{"O=", "C="} { // linters miss them in a CA
		if !strings.Contains(","+subject.String(), ","+attribute) {
			return errors.New("--subject: a CA has CN, O and C")
		}
	}
	if n.days < 1 || n.days > 36500 || n.crlDays < 1 || n.crlDays > 365 {
		return errors.New("--days: want 1 to 36500; --crl-days: want 1 to 365")
	}
	if (n.passphraseFile == "") != n.plain {
		return errors.New("want either --passphrase-file, or --insecure-plain-key")
	}
	if err := n.checkCRLURL(); err != nil {
		return err
	}
	if _, err := os.Stat(n.dir + "/" + ca.CertificateFile); err == nil {
		return fmt.Errorf("%s: there is a CA already; nothing was written", n.dir)
	}
	content, err := keys.GenerateCA(n.curve)
	if err != nil {
		return fmt.Errorf("--curve: %w", err)
	}
	defer clear(content)
	key, err := keys.ParseCA(content)
	if err != nil {
		return err
	}
	file, kind := content, ""
	if n.passphraseFile != "" {
		kind = sealKind()
		if file, err = sealWith(kind, content, n.passphraseFile); err != nil {
			return err
		}
	}
	return ca.Init(ca.Config{
		Dir: n.dir, Subject: subject.DER(), Days: n.days, CRLURL: n.crlURL, CRLDays: n.crlDays,
		KeyFile: file, KeyKind: kind, Now: time.Now(), Key: key,
	})
}

// checkCRLURL refuses what cannot stand in certificates, and warns of what many cannot follow (RFC 5280, section 8).
func (n *newCA) checkCRLURL() error {
	if n.crlURL == "" {
		return nil
	}
	u, err := url.Parse(n.crlURL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.ContainsFunc(n.crlURL, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("--crl-url: want http://… or https://…, in ASCII")
	case u.User != nil:
		return errors.New("--crl-url: has a user or a password, which would stand in each certificate")
	case u.Scheme == "https":
		n.warn("--crl-url: https: many that check certificates fetch lists over http alone, and zlint warns of each certificate; a list is signed, and no secret: http://%s does", n.crlURL[len("https://"):])
	}
	return nil
}

func (n *newCA) report(out io.Writer) error {
	a, err := ca.Open(n.dir, nil)
	if err != nil {
		return err
	}
	defer a.Close()
	digest := policy.FingerprintOf(a.CA())
	return writeJSON(out, &authorityReport{
		CA: n.dir, Certificate: n.dir + "/" + ca.CertificateFile, Subject: nameText(a.CA().RawSubject), SHA256: hex.EncodeToString(digest[:]),
		NotAfter: a.CA().NotAfter.UTC(), Sealed: a.Sealed(), CRLURL: n.crlURL, Warnings: n.warnings,
	})
}

func cmdCACRL() *cobra.Command {
	var at caAt
	var asJSON bool
	cmd := &cobra.Command{
		Use: "crl", Short: "Sign a revocation list", Args: cobra.NoArgs,
		Long: "Crl writes the CA's crl.pem anew, under the next number. Do so before its nextUpdate passes: gateways that\n" +
			"check it refuse one that is too old. It mends a list or a crl-number that is damaged or lost.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			n := notes{said: cmd.ErrOrStderr()}
			a, err := at.open(&n)
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := a.WriteCRL(time.Now())
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), &listReport{
					CRL: a.CRLPath(), Number: list.Number, Revoked: len(list.RevokedCertificateEntries),
					ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate, Warnings: n.warnings,
				})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: number %d, %d revoked, good until %s\n",
				a.CRLPath(), list.Number, len(list.RevokedCertificateEntries), list.NextUpdate.Format(time.RFC3339))
			return err
		},
	}
	at.flags(cmd)
	jsonFlag(cmd, &asJSON)
	cmd.MarkFlagRequired("ca")
	return cmd
}

// caAt is a CA that a command works with.
type caAt struct{ dir, passphraseFile string }

func (c *caAt) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.dir, "ca", "", "directory of the CA")
	cmd.Flags().StringVar(&c.passphraseFile, "passphrase-file", "", "the passphrase of the CA's key")
}

// open opens the CA for signing.
func (c *caAt) open(n *notes) (*ca.Authority, error) {
	a, err := ca.Open(c.dir, func(file string, sealed bool) (crypto.Signer, error) {
		switch {
		case sealed && c.passphraseFile == "":
			return nil, fmt.Errorf("%s is sealed: --passphrase-file", file)
		case !sealed && c.passphraseFile != "":
			return nil, fmt.Errorf("--passphrase-file: %s is not sealed", file)
		}
		return keys.LoadCA(file, c.passphraseFile)
	})
	if err != nil {
		return nil, err
	}
	n.damaged(a)
	return a, nil
}

// readCA opens a CA for reading.
func readCA(dir string, n *notes) (*ca.Authority, error) {
	a, err := ca.Open(dir, nil)
	if err != nil {
		return nil, err
	}
	n.damaged(a)
	return a, nil
}
