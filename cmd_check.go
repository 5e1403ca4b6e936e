package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/policy/store"
)

func cmdCheck() *cobra.Command {
	var file string
	var askStore bool
	cmd := &cobra.Command{
		Use: "check", Short: "Check a configuration, with everything that it names, and start nothing", Args: cobra.NoArgs,
		Long: "Check loads the configuration with its keys, certificates, policies and holder directory.\n" +
			"It prints every problem with its place and exits with 1, or prints the inventory of what\n" +
			"the configuration switches on that an auditor will ask about, and exits with 0.\n" +
			"With --store it asks the store besides whether it can do its work, as /readyz does.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := load(file)
			var found problems
			if errors.As(err, &found) {
				for _, p := range found {
					fmt.Fprintln(cmd.ErrOrStderr(), p)
				}
				if len(found) > 1 {
					fmt.Fprintf(cmd.ErrOrStderr(), "%d problems\n", len(found))
				}
				return errSaid
			}
			if err != nil {
				return err
			}
			for _, n := range b.notices {
				fmt.Fprintln(cmd.OutOrStdout(), n)
			}
			if askStore {
				if err := checkStore(cmd.Context(), b); err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "store: %v\n", err)
					return errSaid
				}
				fmt.Fprintln(cmd.OutOrStdout(), "store: ready")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", file)
			return nil
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&askStore, "store", false, "connect to the store, too")
	return cmd
}

// checkStore asks the configured store whether it is ready. One in memory always is.
func checkStore(ctx context.Context, b *builder) error {
	if b.redis == nil {
		return nil
	}
	s, err := store.NewRedis(*b.redis)
	if err != nil {
		return err
	}
	return errors.Join(s.Ready(ctx), s.Close())
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "config.yaml", "configuration file")
}
