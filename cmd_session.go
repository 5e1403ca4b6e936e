package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/vault/keys"
)

// cmdSession plays a cardholder's device: it makes a session for a gateway's public key and opens what is sealed for it.
// It is for trying things out and for tests; the gateway itself never holds both ends.
func cmdSession() *cobra.Command {
	cmd := group(&cobra.Command{Use: "session", Short: "Play a cardholder's device, to try things out"})
	var key string
	create := &cobra.Command{
		Use: "new", Short: "Make a session: prints shell assignments of SESSIONID and SECRET", Args: cobra.NoArgs,
		Example: `  eval "$(cardstile session new --key session-public.pem)"`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			content, err := os.ReadFile(key)
			if err != nil {
				return err
			}
			public, err := keys.ParsePublicPEM(content)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			s, err := sandbox.NewSession(public)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "export SESSIONID='%s' SECRET='%s'\n", s.ID(), s.Secret())
			return err
		},
	}
	create.Flags().StringVar(&key, "key", "session-public.pem", "the gateway's public session key, PEM")
	open := &cobra.Command{
		Use: "open", Short: "Read an answer from standard input and print it with its sealed values opened", Args: cobra.NoArgs,
		Long: "Open reads the session's secret from the environment variable SECRET, never from the command line.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := sandbox.SessionOf(os.Getenv("SECRET"))
			if err != nil {
				return errors.New("SECRET: want the 32 hex digits that `cardstile session new` prints")
			}
			return openAnswer(cmd.InOrStdin(), cmd.OutOrStdout(), s)
		},
	}
	cmd.AddCommand(create, open)
	return cmd
}

// openAnswer prints a JSON answer, every {data,iv} in it replaced by what it says.
func openAnswer(in io.Reader, out io.Writer, s *sandbox.Session) error {
	var answer any
	if err := json.NewDecoder(in).Decode(&answer); err != nil {
		return errors.New("standard input: not a JSON answer")
	}
	opened, err := opened(answer, s)
	if err != nil {
		return err
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(opened)
}

func opened(v any, s *sandbox.Session) (any, error) {
	object, ok := v.(map[string]any)
	if !ok {
		return v, nil
	}
	data, isData := object["data"].(string)
	iv, isIV := object["iv"].(string)
	if isData && isIV && len(object) == 2 {
		return s.Open(sandbox.Sealed{Data: data, IV: iv})
	}
	for name, value := range object {
		var err error
		if object[name], err = opened(value, s); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return object, nil
}
