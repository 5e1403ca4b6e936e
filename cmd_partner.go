package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/policy/credential"
)

func cmdPartner() *cobra.Command {
	cmd := group(&cobra.Command{Use: "partner", Short: "Look after partners"})
	cmd.AddCommand(cmdPartnerCredential())
	cmd.AddCommand(cmdPartnerStandings()...)
	cmd.AddCommand(cmdPartnerCertificates()...)
	return cmd
}

// cmdPartnerCredential keeps the credentials file of a configuration: digests of API keys, never the keys.
func cmdPartnerCredential() *cobra.Command {
	cmd := group(&cobra.Command{
		Use: "credential", Short: "Add, list and revoke partners' API keys",
		Long: "Credential changes the file that the configuration names as `credentials`. A running gateway reads\nit again by itself.",
	})
	var file, note string
	var scope []string
	add := &cobra.Command{
		Use: "add PARTNER", Short: "Make an API key, print it once, and store its digest", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, path, err := credentialsFile(file)
			if err != nil {
				return err
			}
			partner := b.partners.ByID(args[0])
			if partner == nil {
				return fmt.Errorf("%s: no partner has the id %q", file, args[0])
			}
			entry, secret, err := credential.Add(path, credential.NewAPIKey{
				Partner: partner.ID, Environment: partner.Environment, Scope: scope, Note: note, Now: time.Now(),
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Credential %s of %s, good for %s. The key is printed this once and stored nowhere:\n", entry.ID, entry.Partner, scopeText(entry.Scope))
			_, err = fmt.Fprintln(cmd.OutOrStdout(), secret)
			return err
		},
	}
	add.Flags().StringVar(&note, "note", "", "what it is for, kept with its digest")
	add.Flags().StringSliceVar(&scope, "scope", nil, "what it may be used for, in words with commas between them (default everything)")
	list := &cobra.Command{
		Use: "list", Short: "List the credentials", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, path, err := credentialsFile(file)
			if err != nil {
				return err
			}
			entries, err := credential.List(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // the first key makes the file
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tPARTNER\tKIND\tENVIRONMENT\tCREATED\tSTATE\tSCOPE\tNOTE")
			for _, e := range entries {
				state := "active"
				if e.Revoked != nil {
					state = "revoked " + e.Revoked.Format(time.RFC3339)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
					e.ID, e.Partner, e.Kind, e.Environment, e.Created.Format(time.RFC3339), state, scopeText(e.Scope), e.Note)
			}
			return w.Flush()
		},
	}
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "Revoke a credential", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, path, err := credentialsFile(file)
			if err != nil {
				return err
			}
			if err := credential.Revoke(path, args[0], time.Now()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: revoked\n", args[0])
			return err
		},
	}
	for _, c := range []*cobra.Command{add, list, revoke} {
		configFlag(c, &file)
		cmd.AddCommand(c)
	}
	return cmd
}

// scopeText is a scope as operators read it.
func scopeText(words []string) string {
	if len(words) == 0 {
		return "everything"
	}
	return strings.Join(words, ",")
}

// credentialsFile reads as much of a configuration as says where its credentials are and whose they can be. The file
// itself may still be missing: the first key makes it.
func credentialsFile(file string) (*builder, string, error) {
	b, err := loadPartial(file)
	if err != nil {
		return nil, "", err
	}
	if b.config.Credentials == "" {
		return nil, "", errors.New(file + ": credentials: required: the file to keep digests in")
	}
	return b, b.relative(b.config.Credentials), nil
}
