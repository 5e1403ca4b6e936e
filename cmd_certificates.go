package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/vault/keys"
)

func cmdCertificates() *cobra.Command {
	cmd := group(&cobra.Command{Use: "certificates", Short: "The certificates of hosts"})
	var file string
	ca := &cobra.Command{
		Use: "ca", Short: "Print the certificate of the development CA", Args: cobra.NoArgs,
		Long: "CA prints, in PEM, the certificate of the development CA that `certificates.ca: local` has, for\n" +
			"clients that are to trust it. It is made where there is none yet, so that this can come before\n" +
			"the first start.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			certificate, err := localCA(cmd.Context(), file)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(certificate)
			return err
		},
	}
	configFlag(ca, &file)
	cmd.AddCommand(ca)
	return cmd
}

// localCA returns the certificate of a configuration's development CA.
func localCA(ctx context.Context, file string) ([]byte, error) {
	b, err := load(file)
	if err != nil {
		return nil, err
	}
	if b.managed == nil || b.managed.ACME != nil {
		return nil, errors.New("the configuration has no development CA: certificates.ca is not local")
	}
	seals, err := keys.NewSealRing(certificateLabel, b.keysFor(keys.UseStorage)...)
	if err != nil {
		return nil, err
	}
	s, err := newStore(b)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	certificate, err := gateway.LocalCA(ctx, b.managedIn(s), seals, zap.NewNop())
	return certificate, errors.Join(err, s.Close())
}
