package main

import (
	"crypto/fips140"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the Makefile: `-ldflags "-X main.version=…"`.
var version string

// versionText is the version that was built in, or the one that the module proxy or the repository gave it.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

func cmdVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "cardstile %s (%s, %s/%s)\nFIPS 140-3 mode %s, module %s\n",
				versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH, fipsMode(), fips140.Version())
			return err
		},
	}
}
