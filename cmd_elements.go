package main

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/gateway/elements"
)

// cmdElements prints what partners' pages load.
func cmdElements() *cobra.Command {
	var base string
	cmd := &cobra.Command{
		Use: "elements", Short: "Print the script that partners' pages load for hosted fields", Args: cobra.NoArgs,
		Long: "Elements prints the tag with which a partner's page loads the library of hosted fields, with its\n" +
			"digest. The path has the digest in it too, and changes with the library: partners take the new tag\n" +
			"when they like, as long as an instance of the old version answers.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := url.Parse(base)
			if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" {
				return errors.New("--url: want scheme and host of the public listener, as in https://cards.example.com")
			}
			library := elements.Lookup(elements.HostedFieldsLibrary)
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "<script src=%q integrity=%q crossorigin=\"anonymous\"></script>\n", base+library.Path, library.Integrity)
			return err
		},
	}
	cmd.Flags().StringVar(&base, "url", "https://localhost:8444", "where browsers reach the listener, scheme and host")
	return cmd
}
