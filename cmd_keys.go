package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/vault/keys"
)

func cmdKeys() *cobra.Command {
	cmd := group(&cobra.Command{Use: "keys", Short: "Make keys"})
	var k newKey
	generate := &cobra.Command{
		Use: "generate", Short: "Make a key file", Args: cobra.NoArgs,
		Long: "Generate writes a new private key, and with --public its public half: of session keys what clients encrypt\n" +
			"to, of jwt keys what relying issuers verify with. A jwt key has one algorithm: ES256, EdDSA or RS256, or\n" +
			"HS256, which nobody but its owner can verify and which has no public half.\n" +
			"With --passphrase-file the key file is sealed (configure it with `kind: age`). Existing files are\n" +
			"never overwritten.",
		Example: "  cardstile keys generate --use session --out session-key.pem --public session-public.pem\n" +
			"  cardstile keys generate --use jwt --algorithm EdDSA --out jwt-key.pem --public jwt-public.pem\n" +
			"  cardstile keys generate --use storage --out storage-key.age --passphrase-file passphrase",
		RunE: func(*cobra.Command, []string) error { return k.generate() },
	}
	f := generate.Flags()
	f.StringVar(&k.use, "use", "", "what it is for: session, storage, digest, cookie, audit, issuer, jwt")
	f.StringVar(&k.out, "out", "", "file to write the key to")
	f.StringVar(&k.public, "public", "", "file to write the public key to (session, issuer and jwt keys)")
	f.StringVar(&k.passphraseFile, "passphrase-file", "", "seal the key with the passphrase in this file")
	f.StringVar(&k.algorithm, "algorithm", "", "of a jwt key: "+strings.Join(keys.Algorithms(), ", ")+" (default ES256)")
	f.IntVar(&k.bits, "bits", 0, "size of a session or issuer key in bits (default 2048)")
	for _, name := range []string{"use", "out"} {
		generate.MarkFlagRequired(name)
	}
	cmd.AddCommand(generate)
	return cmd
}

// newKey is what `keys generate` is asked for.
type newKey struct {
	use, algorithm string
	bits           int
	out, public    string
	passphraseFile string
}

// generateKey makes a key with the algorithm that its use has by default.
func generateKey(use string, bits int, out, public, passphraseFile string) error {
	k := newKey{use: use, bits: bits, out: out, public: public, passphraseFile: passphraseFile}
	return k.generate()
}

func (k *newKey) generate() error {
	use, err := keys.ParseUse(k.use)
	if err != nil {
		return err
	}
	content, err := k.content(use)
	if err != nil {
		return err
	}
	kind := "pem"
	if k.passphraseFile != "" {
		passphrase, err := os.ReadFile(k.passphraseFile)
		if err != nil {
			return fmt.Errorf("--passphrase-file: %w", err)
		}
		if content, err = keys.Seal(content, withoutLineEnd(passphrase)); err != nil {
			return fmt.Errorf("--passphrase-file: %s: %w", k.passphraseFile, err)
		}
		kind = "age"
	}
	if k.public == "" {
		return writeNew(k.out, content, 0o600)
	}
	if !slices.Contains([]keys.Use{keys.UseSession, keys.UseIssuer, keys.UseJWT}, use) {
		return fmt.Errorf("--public: a key of use %s has no public half", use)
	}
	if k.algorithm == keys.HS256 {
		return errors.New("--public: a key of HS256 has no public half")
	}
	if err := writeNew(k.out, content, 0o600); err != nil {
		return err
	}
	if err := k.writePublic(use, kind); err != nil {
		return errors.Join(err, os.Remove(k.out)) // half of what was asked for is nothing
	}
	return nil
}

// content makes the key. What a flag asks of a key that has no such choice is refused, not passed over.
func (k *newKey) content(use keys.Use) ([]byte, error) {
	switch {
	case use != keys.UseJWT && k.algorithm != "":
		return nil, fmt.Errorf("--algorithm: a key of use %s has no choice of one", use)
	case use != keys.UseJWT:
		return keys.Generate(use, k.bits)
	case k.bits != 0:
		return nil, errors.New("--bits: a jwt key has the size of its algorithm")
	}
	return keys.GenerateJWT(cmp.Or(k.algorithm, keys.ES256)) // what a relying issuer can verify
}

// withoutLineEnd removes one trailing LF or CRLF, as loading does: what is sealed must open with the same file.
func withoutLineEnd(text []byte) []byte {
	if line, ok := bytes.CutSuffix(text, []byte("\n")); ok {
		return bytes.TrimSuffix(line, []byte("\r"))
	}
	return text
}

func (k *newKey) writePublic(use keys.Use, kind string) error {
	key, err := keys.Load(keys.Config{ID: "generated", Use: use, Kind: kind, File: k.out, PassphraseFile: k.passphraseFile})
	if err != nil {
		return err
	}
	pem, err := keys.PublicPEM(key)
	if err != nil {
		return err
	}
	return writeNew(k.public, pem, 0o644)
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
