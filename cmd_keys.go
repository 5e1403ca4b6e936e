package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/vault/keys"
)

func cmdKeys() *cobra.Command {
	cmd := group(&cobra.Command{Use: "keys", Short: "Make keys"})
	var (
		use, out, public, passphrase string
		bits                         int
	)
	generate := &cobra.Command{
		Use: "generate", Short: "Make a key file", Args: cobra.NoArgs,
		Long: "Generate writes a new private key, and for session keys the public key that clients encrypt to.\n" +
			"With --passphrase-file the key file is sealed (configure it with `kind: age`). Existing files are\n" +
			"never overwritten.",
		Example: "  cardstile keys generate --use session --out session-key.pem --public session-public.pem\n" +
			"  cardstile keys generate --use storage --out storage-key.age --passphrase-file passphrase",
		RunE: func(*cobra.Command, []string) error { return generateKey(use, bits, out, public, passphrase) },
	}
	f := generate.Flags()
	f.StringVar(&use, "use", "", "what it is for: session, storage, digest, cookie, audit, issuer, jwt")
	f.StringVar(&out, "out", "", "file to write the key to")
	f.StringVar(&public, "public", "", "file to write the public key to (session and issuer keys)")
	f.StringVar(&passphrase, "passphrase-file", "", "seal the key with the passphrase in this file")
	f.IntVar(&bits, "bits", 0, "size of an RSA key in bits (default 2048)")
	for _, name := range []string{"use", "out"} {
		generate.MarkFlagRequired(name)
	}
	cmd.AddCommand(generate)
	return cmd
}

func generateKey(use string, bits int, out, public, passphraseFile string) error {
	u, err := keys.ParseUse(use)
	if err != nil {
		return err
	}
	content, err := keys.Generate(u, bits)
	if err != nil {
		return err
	}
	kind := "pem"
	if passphraseFile != "" {
		passphrase, err := os.ReadFile(passphraseFile)
		if err != nil {
			return err
		}
		if content, err = keys.Seal(content, withoutLineEnd(passphrase)); err != nil {
			return err
		}
		kind = "age"
	}
	if public == "" {
		return writeNew(out, content, 0o600)
	}
	if !slices.Contains([]keys.Use{keys.UseSession, keys.UseIssuer}, u) {
		return fmt.Errorf("--public: a key of use %s has no public half", u)
	}
	if err := writeNew(out, content, 0o600); err != nil {
		return err
	}
	if err := writePublic(u, kind, out, public, passphraseFile); err != nil {
		return errors.Join(err, os.Remove(out)) // half of what was asked for is nothing
	}
	return nil
}

// withoutLineEnd removes one trailing LF or CRLF, as loading does: what is sealed must open with the same file.
func withoutLineEnd(text []byte) []byte {
	if line, ok := bytes.CutSuffix(text, []byte("\n")); ok {
		return bytes.TrimSuffix(line, []byte("\r"))
	}
	return text
}

func writePublic(u keys.Use, kind, private, public, passphraseFile string) error {
	key, err := keys.Load(keys.Config{ID: "generated", Use: u, Kind: kind, File: private, PassphraseFile: passphraseFile})
	if err != nil {
		return err
	}
	pem, err := keys.PublicPEM(key)
	if err != nil {
		return err
	}
	return writeNew(public, pem, 0o644)
}

// writeNew writes a file that is not there yet, durably.
func writeNew(name string, content []byte, mode os.FileMode) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s: is there already; nothing was written", name)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}
