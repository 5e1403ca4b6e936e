package main

import (
	"context"
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
	var all, asJSON bool
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
			r := &revoking{notes: notes{said: cmd.ErrOrStderr()}, out: cmd.OutOrStdout(), id: args[0]}
			r.report = revokeReport{Partner: r.id, Revoked: []revokedReport{}, Unchanged: []revokedReport{}}
			if asJSON {
				r.out = io.Discard
			}
			revoked, err := r.certificates(&at, serial, reason)
			if !revoked {
				return err
			}
			r.explain(b)
			err = errors.Join(err, r.minted(cmd.Context(), b, config))
			if asJSON {
				r.report.Warnings = r.warnings
				err = errors.Join(err, writeJSON(cmd.OutOrStdout(), &r.report))
			}
			return err
		},
	}
	configFlag(cmd, &config)
	at.flags(cmd)
	cmd.Flags().StringVar(&serial, "serial", "", "serial number of the certificate, in hex")
	cmd.Flags().BoolVar(&all, "all", false, "all that have not ended")
	cmd.Flags().StringVar(&reason, "reason", "unspecified", strings.Join(ca.Reasons(), ", "))
	jsonFlag(cmd, &asJSON)
	cmd.MarkFlagRequired("ca")
	return cmd
}

// revoking is a revocation in the course of it.
type revoking struct {
	notes
	out    io.Writer // for people
	id     string
	report revokeReport
}

// minted ends what was minted for a partner whose certificates were revoked.
func (r *revoking) minted(ctx context.Context, b *builder, config string) error {
	id := r.id
	if b.partners.ByID(id) == nil {
		return nil // it is gone from the configuration: nothing is minted for it
	}
	s, err := openStandings(config, id)
	if errors.Is(err, errMemory) {
		r.warn("The store is in memory: what was minted for %s under other certificates, or at a listener without `revocation`, stays good until it ends. To end it, `disabled: true` at the partner and a reload.", id)
		return nil
	}
	if err != nil {
		return fmt.Errorf("the certificates are revoked, and tokens are not: %w", err)
	}
	defer s.close()
	from, to, err := s.RevokeTokens(ctx, id)
	if err != nil {
		return fmt.Errorf("the certificates are revoked, and tokens are not: %w", s.explain(err))
	}
	r.report.Tokens = standingOf(s.partner, from, to)
	_, err = fmt.Fprintln(r.out, standingText(id, "tokens revoked", from, to))
	return err
}

// explain names the listeners at which a certificate of the partner stays good although it is revoked.
func (r *revoking) explain(b *builder) {
	anchors := b.trusted
	if p := b.partners.ByID(r.id); p != nil {
		anchors = p.CA
	}
	for _, name := range slices.Sorted(maps.Keys(b.config.Listeners)) {
		trusts := slices.ContainsFunc(slices.Concat(b.clientCAs[name], b.hostAuthorities[name]), func(c *x509.Certificate) bool {
			return slices.Contains(anchors, policy.FingerprintOf(c))
		})
		if trusts && b.config.Listeners[name].TLS.Revocation == nil {
			r.warn("listeners.%s.tls has no `revocation`: there a revoked certificate stays good until it ends, or the partner is disabled.", name)
		}
	}
}

// certificates reports whether the index has them as revoked. It may have, and the list not: the error says so.
func (r *revoking) certificates(at *caAt, serial, reason string) (revoked bool, err error) {
	out, id := r.out, r.id
	a, err := at.open(&r.notes)
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
		r.report.Revoked = append(r.report.Revoked, revokedOf(c))
		fmt.Fprintf(out, "%s: serial %s revoked (%s)\n", id, c.Serial(), c.Reason)
	}
	if err != nil {
		return len(changed) > 0, err
	}
	for _, c := range list {
		if !slices.ContainsFunc(changed, func(o *ca.Certificate) bool { return o.Serial() == c.Serial() }) {
			r.report.Unchanged = append(r.report.Unchanged, revokedOf(c))
			fmt.Fprintf(out, "%s: serial %s was revoked %s (%s)\n", id, c.Serial(), c.Revoked.UTC().Format(time.RFC3339), c.Reason)
		}
	}
	r.report.CRL = a.CRLPath()
	_, err = fmt.Fprintf(out, "%s: written; have it where the gateways' listeners look for it\n", a.CRLPath())
	return true, err
}

// serialText is a serial number as openssl and others print it, in the form of the index.
func serialText(text string) string {
	digits := strings.TrimLeft(strings.ToLower(strings.ReplaceAll(text, ":", "")), "0")
	return strings.Repeat("0", max(0, 32-len(digits))) + digits
}
