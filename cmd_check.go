package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func cmdCheck() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "check", Short: "Check a configuration, with everything that it names, and start nothing", Args: cobra.NoArgs,
		Long: "Check loads the configuration with its keys, certificates, policies and holder directory.\n" +
			"It prints every problem with its place and exits with 1, or prints the inventory of what\n" +
			"the configuration switches on that an auditor will ask about, and exits with 0.",
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
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", file)
			return nil
		},
	}
	configFlag(cmd, &file)
	return cmd
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "config.yaml", "configuration file")
}
