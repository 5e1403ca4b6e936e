package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault/ca"
)

func cmdPartnerRevoke() *cobra.Command {
	var at caAt
	var config, serial, reason string
	var all bool
	cmd := &cobra.Command{
		Use: "revoke PARTNER", Short: "Revoke certificates of a partner", Args: cobra.ExactArgs(1),
		Long: "Revoke marks certificates as revoked, writes the CA's revocation list anew, and ends all that was minted for\n" +
			"the partner, where the store is shared. Gateways refuse the certificate once they have read the list. To stop\n" +
			"the partner within a second: `cardstile partner disable`. Those that are revoked stay as they are, but for\n" +
			"--reason key_compromise.",
		Example: "  cardstile partner revoke acme --all --reason key_compromise --ca partners-ca --passphrase-file passphrase --config config.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			if (serial == "") != all {
				return errors.New("want either --serial or --all")
			}
			b, err := loadPartial(config)
			if err != nil {
				return err
			}
			revoked, err := revokeCertificates(cmd.OutOrStdout(), &at, args[0], serial, reason)
			if !revoked {
				return err
			}
			b.explainRevocation(cmd.ErrOrStderr(), args[0])
			return errors.Join(err, revokeMinted(cmd, b, config, args[0]))
		},
	}
	configFlag(cmd, &config)
	at.flags(cmd)
	cmd.Flags().StringVar(&serial, "serial", "", "serial number of the certificate, in hex")
	cmd.Flags().BoolVar(&all, "all", false, "all that have not ended")
	cmd.Flags().StringVar(&reason, "reason", "unspecified", strings.Join(ca.Reasons(), ", "))
	cmd.MarkFlagRequired("ca")
	return cmd
}

// revokeMinted ends what was minted for a partner whose certificates were revoked.
func revokeMinted(cmd *cobra.Command, b *builder, config, id string) error {
	if b.partners.ByID(id) == nil {
		return nil // it is gone from the configuration: nothing is minted for it
	}
	s, err := openStandings(config, id)
	if errors.Is(err, errMemory) {
		fmt.Fprintf(cmd.ErrOrStderr(), "The store is in memory: what was minted for %s under other certificates, or at a listener without `revocation`, stays good until it ends. To end it, `disabled: true` at the partner and a reload.\n", id)
		return nil
	}
	if err != nil {
		return fmt.Errorf("the certificates are revoked, and tokens are not: %w", err)
	}
	defer s.close()
	from, to, err := s.RevokeTokens(cmd.Context(), id)
	if err != nil {
		return fmt.Errorf("the certificates are revoked, and tokens are not: %w", s.explain(err))
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), standingText(id, "tokens revoked", from, to))
	return err
}

// explainRevocation names the listeners at which a certificate of the partner stays good although it is revoked.
func (b *builder) explainRevocation(said io.Writer, id string) {
	anchors := b.trusted
	if p := b.partners.ByID(id); p != nil {
		anchors = p.CA
	}
	for _, name := range slices.Sorted(maps.Keys(b.config.Listeners)) {
		trusts := slices.ContainsFunc(slices.Concat(b.clientCAs[name], b.hostAuthorities[name]), func(c *x509.Certificate) bool {
			return slices.Contains(anchors, policy.FingerprintOf(c))
		})
		if trusts && b.config.Listeners[name].TLS.Revocation == nil {
			fmt.Fprintf(said, "warning: listeners.%s.tls has no `revocation`: there a revoked certificate stays good until it ends, or the partner is disabled.\n", name)
		}
	}
}

// revokeCertificates reports whether the index has them as revoked. It may have, and the list not: the error says so.
func revokeCertificates(out io.Writer, at *caAt, id, serial, reason string) (revoked bool, err error) {
	a, err := at.open()
	if err != nil {
		return false, err
	}
	defer a.Close()
	now := time.Now()
	list := slices.DeleteFunc(a.Of(id), func(c *ca.Certificate) bool {
		if serial == "" {
			return c.Status(now) == "expired"
		}
		return c.Serial() != serialText(serial)
	})
	if len(list) == 0 {
		return false, fmt.Errorf("%s: no such certificate of %s; nothing was revoked", at.dir, id)
	}
	changed, err := a.Revoke(list, reason, now)
	for _, c := range changed {
		fmt.Fprintf(out, "%s: serial %s revoked (%s)\n", id, c.Serial(), c.Reason)
	}
	if err != nil {
		return len(changed) > 0, err
	}
	for _, c := range list {
		if !slices.ContainsFunc(changed, func(o *ca.Certificate) bool { return o.Serial() == c.Serial() }) {
			fmt.Fprintf(out, "%s: serial %s was revoked %s (%s)\n", id, c.Serial(), c.Revoked.UTC().Format(time.RFC3339), c.Reason)
		}
	}
	_, err = fmt.Fprintf(out, "%s: written; have it where the gateways' listeners look for it\n", a.CRLPath())
	return true, err
}

// serialText is a serial number as openssl and others print it, in the form of the index.
func serialText(text string) string {
	digits := strings.TrimLeft(strings.ToLower(strings.ReplaceAll(text, ":", "")), "0")
	return strings.Repeat("0", max(0, 32-len(digits))) + digits
}
