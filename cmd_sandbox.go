package main

import (
	"fmt"
	"maps"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
)

func cmdSandbox() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "sandbox", Short: "Run the demo's sandbox issuers alone", Args: cobra.NoArgs,
		Long: "Sandbox starts the issuers of a demo's directory where its configuration expects them, beside a\n" +
			"`cardstile serve --config` of that configuration.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := readDemoState(dir)
			if err != nil {
				return err
			}
			if len(state.Addresses) == 0 { // nothing is made where no configuration expects it
				return fmt.Errorf("--dir: %s is not the directory of a demo: run `cardstile demo --dir` with it once", dir)
			}
			d, err := openDemo(dir, "")
			if err != nil {
				return err
			}
			defer d.lock.Close()
			was := maps.Clone(d.state.Addresses)
			stop, err := d.serveIssuers()
			if err != nil {
				return err
			}
			defer stop()
			for _, name := range slices.Sorted(maps.Keys(d.state.Addresses)) {
				if d.state.Addresses[name] != was[name] {
					return fmt.Errorf("%s: the configuration expects issuer %s at %q, which is not free; run `cardstile demo` once to make a new one", dir, name, was[name])
				}
				fmt.Fprintf(cmd.OutOrStdout(), "issuer %s at %s\n", name, d.url(name))
			}
			ctx, cancel := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer cancel()
			<-ctx.Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".cardstile", "directory of the demo")
	return cmd
}
