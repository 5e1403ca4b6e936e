package main

import (
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func cmdSandbox() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "sandbox", Short: "Run the demo's sandbox issuer alone", Args: cobra.NoArgs,
		Long: "Sandbox starts the issuer of a demo's directory where its configuration expects it, beside a\n" +
			"`cardstile serve --config` of that configuration.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := readDemoState(dir)
			if err != nil {
				return err
			}
			if state.RainAddress == "" { // nothing is made where no configuration expects it
				return fmt.Errorf("--dir: %s is not the directory of a demo: run `cardstile demo --dir` with it once", dir)
			}
			d, err := openDemo(dir, "")
			if err != nil {
				return err
			}
			defer d.lock.Close()
			was := d.state.RainAddress
			stop, err := d.serveIssuers()
			if err != nil {
				return err
			}
			defer stop()
			if d.state.RainAddress != was {
				return fmt.Errorf("%s: the configuration expects the issuer at %q, which is not free; run `cardstile demo` once to make a new one", dir, was)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "issuer rain at", d.url)
			ctx, cancel := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer cancel()
			<-ctx.Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".cardstile", "directory of the demo")
	return cmd
}
