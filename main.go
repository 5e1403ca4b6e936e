// Command cardstile is a turnstile for card data: a reverse proxy in front of card-issuer APIs that verifies partners and
// their clients, lets every single-use token through exactly once, and re-encrypts card details for each session on their
// way through.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func main() {
	if err := command().ExecuteContext(context.Background()); err != nil {
		if !errors.Is(err, errSaid) {
			fmt.Fprintln(os.Stderr, "cardstile: "+err.Error())
		}
		code := 1
		if coded, ok := errors.AsType[*exitError](err); ok {
			code = coded.code
		}
		os.Exit(code)
	}
}

// exitError is an error with what the process exits with, where that is not 1.
type exitError struct {
	error
	code int
}

func (e *exitError) Unwrap() error { return e.error }

// exitWith gives an error its code; nil stays nil.
func exitWith(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{err, code}
}

// errSaid is the error of a command that has told its user already.
var errSaid = errors.New("see above")

// command is the tree of subcommands: one file cmd_<name>.go for each.
func command() *cobra.Command {
	root := group(&cobra.Command{
		Use:           "cardstile",
		Short:         "A turnstile for card data, in front of card-issuer APIs",
		SilenceUsage:  true,
		SilenceErrors: true,
	})
	root.AddCommand(
		cmdServe(),
		cmdCheck(),
		cmdDemo(),
		cmdElements(),
		cmdSandbox(),
		cmdSession(),
		cmdKeys(),
		cmdPartner(),
		cmdCA(),
		cmdCertificates(),
		cmdAudit(),
		cmdProve(),
		cmdVersion(),
	)
	return root
}

// group makes a command of one that has subcommands only: by itself it prints its help, and with an argument, which is a
// subcommand that does not exist, it fails, so that a script with a slip in it does not go on.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}
