package keys

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// PEM block types. The first is ours: 32 random bytes, with a header "Use" that must be the configured one.
const (
	typeSymmetric = "CARDSTILE KEY"
	typePKCS8     = "PRIVATE KEY"
	typePKCS1     = "RSA PRIVATE KEY"
	typeSPKI      = "PUBLIC KEY"
	typePKCS1Pub  = "RSA PUBLIC KEY"
	headerUse     = "Use"
)

const (
	symmetricBytes = 32      // of a CARDSTILE KEY, exactly
	minTextBytes   = 32      // of a cookie secret that is raw text
	maxFileBytes   = 1 << 16 // of any key file; an RSA-8192 private key is about 6 KiB
	minSessionBits = 2048
	minRSABits     = 1024
	maxRSABits     = 8192
)

// What can be wrong with a key's content. The texts are constant: nothing of the content is quoted.
var (
	// ErrPrivateKey says that a private key was given where a public one belongs.
	ErrPrivateKey = errors.New("this is a private key")

	errTooLong     = errors.New("longer than 64 KiB")
	errNotPEM      = errors.New("no PEM block, or text around it")
	errBlocks      = errors.New("more than one PEM block")
	errIsAge       = errors.New(`an age file: it wants kind "age"`)
	errIsSealed    = errors.New(`a sealed key file: it wants kind "sealed"`)
	errEncrypted   = errors.New(`an encrypted PEM block: seal it with age and use kind "age"`)
	errType        = errors.New("a PEM block of a type that does not fit the key's use")
	errHeaders     = errors.New("unknown PEM headers")
	errUseHeader   = errors.New("the Use header is not the configured use")
	errLength      = errors.New("not 32 bytes")
	errShortText   = errors.New("text of less than 32 bytes")
	errPrivateRSA  = errors.New("not an RSA private key in PKCS #8 or PKCS #1")
	errPublicRSA   = errors.New("not an RSA public key in SPKI or PKCS #1")
	errSigner      = errors.New("not an EC P-256, Ed25519 or RSA private key in PKCS #8")
	errPublicHere  = errors.New("this is a public key: a private one is wanted")
	errSessionBits = errors.New("RSA key of less than 2048 bits")
	errFewBits     = errors.New("RSA key of less than 1024 bits")
	errManyBits    = errors.New("RSA key of more than 8192 bits")
	errExponent    = errors.New("RSA key with an even modulus or a public exponent that is even or below 3")
)

// loadPEM is the provider "pem": a plain file, protected by the file system alone.
func loadPEM(c Config, _ *Key) (*Key, error) {
	if c.PassphraseFile != "" {
		return nil, errors.New(`kind "pem" takes no passphrase file`)
	}
	content, err := readFile(c.File)
	if err != nil {
		return nil, err
	}
	defer clear(content)
	m, err := parse(c.Use, content)
	if err != nil {
		return nil, fmt.Errorf("file %q: %w", c.File, err)
	}
	return newKey(c, m, true), nil
}

// parse reads the content of a key file for a use. It keeps nothing of content.
func parse(use Use, content []byte) (*material, error) {
	if use == UseCookie && !bytes.HasPrefix(bytes.TrimSpace(withoutBOM(content)), []byte("-----BEGIN ")) {
		return parseText(content)
	}
	block, err := onlyBlock(content)
	if err != nil {
		return nil, err
	}
	defer clear(block.Bytes)
	switch {
	case use.rsa():
		return parseRSA(use, block)
	case use == UseJWT && block.Type != typeSymmetric:
		return parseSigner(block)
	}
	return parseSymmetric(use, block)
}

// parseText takes a cookie secret as it is, less one trailing newline: Exa's own is such a text.
func parseText(content []byte) (*material, error) {
	text := trimNewline(content)
	if bytes.HasPrefix(text, []byte("age-encryption.org/")) {
		return nil, errIsAge
	}
	if len(text) < minTextBytes {
		return nil, errShortText
	}
	return &material{symmetric: secret.From(bytes.Clone(text))}, nil
}

func parseSymmetric(use Use, block *pem.Block) (*material, error) {
	switch {
	case block.Type != typeSymmetric:
		return nil, errType
	case len(block.Headers) > 1 || len(block.Headers) == 1 && block.Headers[headerUse] == "":
		return nil, errHeaders
	case block.Headers[headerUse] != string(use):
		return nil, errUseHeader
	case len(block.Bytes) != symmetricBytes:
		return nil, errLength
	}
	return &material{symmetric: secret.From(bytes.Clone(block.Bytes))}, nil
}

func parseRSA(use Use, block *pem.Block) (*material, error) {
	if len(block.Headers) != 0 {
		return nil, errHeaders
	}
	switch block.Type {
	case typeSPKI, typePKCS1Pub:
		if use == UseSession {
			return nil, errPublicHere
		}
		pub, err := parsePublic(block)
		if err != nil {
			return nil, err
		}
		return &material{public: pub}, nil
	case typePKCS8, typePKCS1:
		return parsePrivate(use, block)
	}
	return nil, errType
}

func parsePrivate(use Use, block *pem.Block) (*material, error) {
	var private *rsa.PrivateKey
	if block.Type == typePKCS8 {
		if any, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			private, _ = any.(*rsa.PrivateKey)
		}
	} else {
		private, _ = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if err := checkPrivate(private); err != nil {
		return nil, err
	}
	if use == UseSession && private.N.BitLen() < minSessionBits {
		return nil, errSessionBits
	}
	private.Precompute()
	return &material{private: private, public: &private.PublicKey}, nil
}

func checkPrivate(private *rsa.PrivateKey) error {
	if private == nil || len(private.Primes) != 2 || private.Validate() != nil {
		return errPrivateRSA
	}
	return checkRSA(&private.PublicKey)
}

// onlyBlock returns the one PEM block of content. Nothing but white space and a byte order mark may stand around it,
// so that a file has one meaning.
func onlyBlock(content []byte) (*pem.Block, error) {
	text := bytes.TrimSpace(withoutBOM(content))
	begin := []byte("-----BEGIN ")
	switch {
	case bytes.HasPrefix(text, []byte("age-encryption.org/")), bytes.HasPrefix(text, []byte("-----BEGIN AGE ENCRYPTED FILE-----")):
		return nil, errIsAge
	case !bytes.HasPrefix(text, begin):
		return nil, errNotPEM
	case bytes.Count(text, begin) > 1:
		return nil, errBlocks
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil || len(bytes.TrimSpace(rest)) != 0:
		return nil, errNotPEM
	case block.Type == typeSealed:
		return nil, errIsSealed
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return nil, errEncrypted
	}
	return block, nil
}

// readFile reads a whole file of at most 64 KiB. Its error names the path.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) > maxFileBytes:
		clear(content)
		return nil, fmt.Errorf("file %q: %w", path, errTooLong)
	}
	return content, nil
}

func withoutBOM(content []byte) []byte { return bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")) }

// trimNewline removes one trailing line end, LF or CRLF.
func trimNewline(text []byte) []byte {
	if t, ok := bytes.CutSuffix(text, []byte("\n")); ok {
		return bytes.TrimSuffix(t, []byte("\r"))
	}
	return text
}
