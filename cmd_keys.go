package main

import (
	"bytes"
	"cmp"
	"crypto/fips140"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/vault/keys"
)

func cmdKeys() *cobra.Command {
	cmd := group(&cobra.Command{Use: "keys", Short: "Make and seal keys"})
	var k newKey
	generate := &cobra.Command{
		Use: "generate", Short: "Make a key file", Args: cobra.NoArgs,
		Long: "Generate writes a new private key, and with --public its public half: of session keys what clients encrypt\n" +
			"to, of jwt keys what relying issuers verify with. A jwt key has one algorithm: ES256, EdDSA or RS256, or\n" +
			"HS256, which nobody but its owner can verify and which has no public half.\n" +
			"With --passphrase-file the key file is sealed: as an age file (configure it with `kind: age`) or, with\n" +
			"--kind sealed, by what FIPS 140-3 approves (`kind: sealed`). Existing files are never overwritten.",
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
	f.StringVar(&k.kind, "kind", "", sealKindUsage)
	f.StringVar(&k.algorithm, "algorithm", "", "of a jwt key: "+strings.Join(keys.Algorithms(), ", ")+" (default ES256)")
	f.IntVar(&k.bits, "bits", 0, "size of a session or issuer key in bits (default 2048)")
	for _, name := range []string{"use", "out"} {
		generate.MarkFlagRequired(name)
	}
	cmd.AddCommand(generate, cmdKeysSeal())
	return cmd
}

func cmdKeysSeal() *cobra.Command {
	var out, passphraseFile, kind string
	seal := &cobra.Command{
		Use: "seal", Short: "Seal a key file that there is", Args: cobra.NoArgs,
		Long: "Seal reads a plain key file from standard input and writes it sealed. Existing files are never\n" +
			"overwritten.",
		Example: "  age -d storage-key.age | cardstile keys seal --kind sealed --out storage-key.sealed --passphrase-file passphrase",
		RunE: func(cmd *cobra.Command, _ []string) error {
			content, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
			if err != nil {
				return err
			}
			defer clear(content)
			sealed, err := sealWith(cmp.Or(kind, sealKind()), content, passphraseFile)
			if err != nil {
				return err
			}
			return writeNew(out, sealed, 0o600)
		},
	}
	f := seal.Flags()
	f.StringVar(&out, "out", "", "file to write it to")
	f.StringVar(&passphraseFile, "passphrase-file", "", "seal it with the passphrase in this file")
	f.StringVar(&kind, "kind", "", sealKindUsage)
	for _, name := range []string{"out", "passphrase-file"} {
		seal.MarkFlagRequired(name)
	}
	return seal
}

const sealKindUsage = "how it is sealed: age or sealed (default age, and with GODEBUG=fips140=only sealed)"

// newKey is what `keys generate` is asked for.
type newKey struct {
	use, algorithm string
	bits           int
	out, public    string
	passphraseFile string
	kind           string // "" is sealKind's
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
	switch {
	case k.passphraseFile != "":
		kind = cmp.Or(k.kind, sealKind())
		if content, err = sealWith(kind, content, k.passphraseFile); err != nil {
			return err
		}
	case k.kind != "":
		return errors.New("--kind: needs --passphrase-file")
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

// sealKind is how key files are sealed where nobody says.
func sealKind() string {
	if fips140.Enforced() {
		return keys.KindSealed
	}
	return keys.KindAge
}

// sealWith seals a key file with the passphrase in a file.
func sealWith(kind string, content []byte, passphraseFile string) ([]byte, error) {
	seal, ok := map[string]func(content, passphrase []byte) ([]byte, error){keys.KindAge: keys.Seal, keys.KindSealed: keys.SealFIPS}[kind]
	if !ok {
		return nil, errors.New("--kind: want age or sealed")
	}
	passphrase, err := os.ReadFile(passphraseFile)
	if err != nil {
		return nil, fmt.Errorf("--passphrase-file: %w", err)
	}
	if content, err = seal(content, withoutLineEnd(passphrase)); err != nil {
		return nil, fmt.Errorf("--passphrase-file: %s: %w", passphraseFile, err)
	}
	return content, nil
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
