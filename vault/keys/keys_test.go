package keys_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/vault/keys"
)

// sessionPEM is one RSA-2048 key for the whole run.
var sessionPEM = sync.OnceValue(func() []byte {
	p, err := keys.Generate(keys.UseSession, 0)
	if err != nil {
		panic(err)
	}
	return p
})

var rsa1024 = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	return k
})

func write(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, use keys.Use, content []byte) *keys.Key {
	t.Helper()
	k, err := keys.Load(keys.Config{ID: "k-" + string(use), Use: use, File: write(t, content)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func generate(t testing.TB, use keys.Use) []byte {
	t.Helper()
	if use == keys.UseSession || use == keys.UseIssuer {
		return sessionPEM()
	}
	p, err := keys.Generate(use, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var allUses = []keys.Use{keys.UseSession, keys.UseIssuer, keys.UseStorage, keys.UseDigest, keys.UseCookie, keys.UseJWT, keys.UseAudit}

func pkcs8(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func spki(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// TestEachUseOffersItsOperationsAlone is the contract of uses: a key of one use refuses what others are for.
func TestEachUseOffersItsOperationsAlone(t *testing.T) {
	for _, use := range allUses {
		k := load(t, use, generate(t, use))
		if k.Use() != use || k.ID() != "k-"+string(use) || !k.Plain() || !k.Private() {
			t.Errorf("%s: %v, plain %t, private %t", use, k, k.Plain(), k.Private())
		}
		isRSA := use == keys.UseSession || use == keys.UseIssuer
		for name, c := range map[string]struct {
			allowed bool
			err     error
		}{
			"decrypt":            {isRSA, second(k.Decrypter())},
			"MAC":                {use == keys.UseDigest || use == keys.UseAudit, second(k.MAC("l"))},
			"raw MAC":            {use == keys.UseCookie, second(k.RawMAC())},
			"seal":               {use == keys.UseStorage, second(k.Sealer("l"))},
			"seal under a token": {use == keys.UseStorage, second(k.TokenSealer("l", shortToken))},
			"public":             {isRSA, second(keys.PublicPEM(k))},
		} {
			if (c.err == nil) != c.allowed {
				t.Errorf("%s offers %s: %v", use, name, c.err)
			}
		}
		if (k.Public() != nil) != isRSA {
			t.Errorf("%s has public half %t", use, k.Public() != nil)
		}
		if _, err := keys.ParseUse(string(use)); err != nil {
			t.Error(err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestUnknownUse(t *testing.T) {
	_, err := keys.ParseUse("sesion")
	if err == nil || !strings.Contains(err.Error(), "session, issuer, storage, digest, cookie, jwt, audit") {
		t.Errorf("got %v", err)
	}
	if _, err := keys.Generate("sesion", 0); err == nil {
		t.Error("Generate takes an unknown use")
	}
}

func TestGenerate(t *testing.T) {
	for bits, ok := range map[int]bool{-1: false, 1024: false, 2047: false, 2050: false, 2304: true, 8448: false, 16384: false} {
		if _, err := keys.Generate(keys.UseIssuer, bits); (err == nil) != ok {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
	k := load(t, keys.UseSession, sessionPEM())
	if got := k.Public().N.BitLen(); got != 2048 {
		t.Errorf("the default is %d bits", got)
	}
	a, b := generate(t, keys.UseDigest), generate(t, keys.UseDigest)
	if bytes.Equal(a, b) {
		t.Error("two generated keys are equal")
	}
	if _, err := keys.Generate(keys.UseDigest, 128); err == nil {
		t.Error("a symmetric key of 128 bits was made")
	}
	if _, err := keys.Generate(keys.UseDigest, 256); err != nil {
		t.Error(err)
	}
}

func TestLoadRefuses(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := generate(t, keys.UseDigest)
	symmetric := func(n int, headers map[string]string) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CARDSTILE KEY", Headers: headers, Bytes: make([]byte, n)})
	}
	use := map[string]string{"Use": "digest"}
	public := spki(t, &rsa1024().PublicKey)
	sealed, err := keys.SealFast(digest, []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		use     keys.Use
		content []byte
		want    string
	}{
		"empty":                    {keys.UseDigest, nil, "no PEM block"},
		"text":                     {keys.UseDigest, bytes.Repeat([]byte("k"), 40), "no PEM block"},
		"text before":              {keys.UseDigest, append([]byte("x\n"), digest...), "no PEM block"},
		"text after":               {keys.UseDigest, append(bytes.Clone(digest), 'x'), "text around it"},
		"cut off":                  {keys.UseDigest, digest[:len(digest)-10], "no PEM block"},
		"two blocks":               {keys.UseDigest, append(bytes.Clone(digest), digest...), "more than one"},
		"another use":              {keys.UseAudit, digest, "Use header"},
		"no use":                   {keys.UseDigest, symmetric(32, nil), "Use header"},
		"unknown header":           {keys.UseDigest, symmetric(32, map[string]string{"Uses": "digest"}), "headers"},
		"second header":            {keys.UseDigest, symmetric(32, map[string]string{"Use": "digest", "X": "y"}), "headers"},
		"31 bytes":                 {keys.UseDigest, symmetric(31, use), "not 32 bytes"},
		"33 bytes":                 {keys.UseDigest, symmetric(33, use), "not 32 bytes"},
		"RSA as digest":            {keys.UseDigest, sessionPEM(), "type"},
		"digest as session":        {keys.UseSession, digest, "headers"},
		"age as pem":               {keys.UseDigest, sealed, `kind "age"`},
		"age as cookie":            {keys.UseCookie, sealed, `kind "age"`},
		"EC as session":            {keys.UseSession, pkcs8(t, ec), "not an RSA private key"},
		"EC as issuer":             {keys.UseIssuer, spki(t, &ec.PublicKey), "not an RSA public key"},
		"1024 bits as session":     {keys.UseSession, pkcs8(t, rsa1024()), "less than 2048"},
		"public as session":        {keys.UseSession, public, "public key"},
		"certificate as issuer":    {keys.UseIssuer, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), "type"},
		"rubbish as PKCS #8":       {keys.UseSession, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), "not an RSA private key"},
		"rubbish as PKCS #1":       {keys.UseSession, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte("x")}), "not an RSA private key"},
		"encrypted PKCS #8":        {keys.UseSession, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}), "encrypted"},
		"encrypted the old way":    {keys.UseSession, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte("x")}), "encrypted"},
		"headers on a private key": {keys.UseSession, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"Use": "session"}, Bytes: []byte("x")}), "headers"},
		"short cookie":             {keys.UseCookie, append(bytes.Repeat([]byte("k"), 31), '\n'), "less than 32 bytes"},
		"too long":                 {keys.UseCookie, bytes.Repeat([]byte("k"), 1<<16+1), "longer than 64 KiB"},
		"many bits":                {keys.UseIssuer, spki(t, &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 8192, 1), E: 3}), "more than 8192"},
		"512 bits":                 {keys.UseIssuer, spki(t, &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 511, 1), E: 3}), "less than 1024"},
		"even exponent":            {keys.UseIssuer, spki(t, &rsa.PublicKey{N: rsa1024().N, E: 4}), "exponent"},
		"exponent 1":               {keys.UseIssuer, spki(t, &rsa.PublicKey{N: rsa1024().N, E: 1}), "exponent"},
		"even modulus":             {keys.UseIssuer, spki(t, &rsa.PublicKey{N: new(big.Int).Add(rsa1024().N, big.NewInt(1)), E: 3}), "modulus"},
	}
	for name, c := range cases {
		_, err := keys.Load(keys.Config{ID: "k", Use: c.use, File: write(t, c.content)})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `key "k"`) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	path := write(t, generate(t, keys.UseDigest))
	good := keys.Config{ID: "k", Use: keys.UseDigest, File: path, Environment: "production"}
	if k, err := keys.Load(good); err != nil || k.Environment() != "production" {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*keys.Config)
		want   string
	}{
		"no id":          {func(c *keys.Config) { c.ID = "" }, "id must be"},
		"id with blank":  {func(c *keys.Config) { c.ID = "a b" }, "id must be"},
		"id too long":    {func(c *keys.Config) { c.ID = strings.Repeat("k", 65) }, "id must be"},
		"no use":         {func(c *keys.Config) { c.Use = "" }, "unknown key use"},
		"unknown kind":   {func(c *keys.Config) { c.Kind = "vault" }, "known are age, pem"},
		"environment":    {func(c *keys.Config) { c.Environment = "prod" }, "test, production"},
		"no file":        {func(c *keys.Config) { c.File = "" }, "no file"},
		"missing file":   {func(c *keys.Config) { c.File += ".not" }, "no such file"},
		"directory":      {func(c *keys.Config) { c.File = filepath.Dir(path) }, "directory"},
		"passphrase":     {func(c *keys.Config) { c.PassphraseFile = path }, "takes no passphrase"},
		"age without":    {func(c *keys.Config) { c.Kind = "age" }, "needs a passphrase file"},
		"age of a plain": {func(c *keys.Config) { c.Kind, c.PassphraseFile = "age", path }, "not an age file"},
	} {
		config := good
		c.change(&config)
		if _, err := keys.Load(config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestTolerated are spellings of one key that editors and tools make.
func TestTolerated(t *testing.T) {
	want := load(t, keys.UseSession, sessionPEM()).Public()
	block, _ := pem.Decode(sessionPEM())
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(any.(*rsa.PrivateKey))})
	for name, content := range map[string][]byte{
		"CRLF":    bytes.ReplaceAll(sessionPEM(), []byte("\n"), []byte("\r\n")),
		"BOM":     append([]byte("\xef\xbb\xbf"), sessionPEM()...),
		"blanks":  append([]byte("\n\n"), append(bytes.Clone(sessionPEM()), "\n\n"...)...),
		"PKCS #1": pkcs1,
	} {
		if got := load(t, keys.UseSession, content).Public(); !got.Equal(want) {
			t.Errorf("%s: another key", name)
		}
	}
}

func TestDecrypterIsOAEPAlone(t *testing.T) {
	k := load(t, keys.UseSession, sessionPEM())
	d, err := k.Decrypter()
	if err != nil {
		t.Fatal(err)
	}
	if pub, ok := d.Public().(*rsa.PublicKey); !ok || !pub.Equal(k.Public()) {
		t.Error("another public half")
	}
	ciphertext, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, k.Public(), []byte("text"), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Decrypt(rand.Reader, ciphertext, &rsa.OAEPOptions{Hash: crypto.SHA1})
	if err != nil || string(got) != "text" {
		t.Errorf("got %q, %v", got, err)
	}
	//lint:ignore SA1019 what is refused has to be made first
	padded, err := rsa.EncryptPKCS1v15(rand.Reader, k.Public(), []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 what is refused has to be named
	for _, opts := range []crypto.DecrypterOpts{nil, &rsa.PKCS1v15DecryptOptions{}, &rsa.PKCS1v15DecryptOptions{SessionKeyLen: 4}} {
		if got, err := d.Decrypt(rand.Reader, padded, opts); err == nil {
			t.Errorf("PKCS #1 v1.5 gave %q", got)
		}
	}
	if _, ok := d.(*rsa.PrivateKey); ok {
		t.Error("the decrypter is the private key itself")
	}
	if _, err := x509.MarshalPKCS8PrivateKey(d); err == nil {
		t.Error("the decrypter can be exported")
	}
}

func TestPublicKey(t *testing.T) {
	k := load(t, keys.UseSession, sessionPEM())
	text, err := keys.PublicPEM(k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(k.Public())})
	for name, content := range map[string][]byte{"SPKI": text, "PKCS #1": pkcs1, "BOM": append([]byte("\xef\xbb\xbf"), text...)} {
		pub, err := keys.ParsePublicPEM(content)
		if err != nil || !pub.Equal(k.Public()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	issuer := load(t, keys.UseIssuer, text)
	if issuer.Plain() || issuer.Private() {
		t.Error("a public key counts as a plain or private one")
	}
	if _, err := issuer.Decrypter(); err == nil {
		t.Error("a public key decrypts")
	}
	if _, err := keys.PublicPEM(nil); err == nil {
		t.Error("no key has a public half")
	}
}

func TestParsePublicRefuses(t *testing.T) {
	public := spki(t, &rsa1024().PublicKey)
	for name, content := range map[string][]byte{
		"PKCS #8":   sessionPEM(),
		"PKCS #1":   pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsa1024())}),
		"encrypted": pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}),
		"symmetric": generate(t, keys.UseDigest),
	} {
		if _, err := keys.ParsePublicPEM(content); !errors.Is(err, keys.ErrPrivateKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, content := range map[string][]byte{
		"empty":       nil,
		"text":        []byte("hello"),
		"two":         append(bytes.Clone(public), public...),
		"certificate": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}),
		"rubbish":     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}),
		"headers":     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Headers: map[string]string{"a": "b"}, Bytes: []byte("x")}),
	} {
		if _, err := keys.ParsePublicPEM(content); err == nil || errors.Is(err, keys.ErrPrivateKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMinBits(t *testing.T) {
	of := func(bits int) *rsa.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), bits-1, 1), E: 65537}
	}
	for _, c := range []struct {
		bits  int
		allow bool
		ok    bool
	}{
		{1023, true, false}, {1023, false, false}, {1024, true, true}, {1024, false, false},
		{2047, true, true}, {2047, false, false}, {2048, false, true}, {4096, false, true},
	} {
		if err := keys.MinBits(of(c.bits), c.allow); (err == nil) != c.ok {
			t.Errorf("%d bits, allowed %t: %v", c.bits, c.allow, err)
		}
	}
}

func TestCookieText(t *testing.T) {
	text := "0x" + strings.Repeat("0", 64)
	const message = "0x1234567890AbcdEF1234567890aBcdef12345678"
	var want []byte
	for _, ending := range []string{"", "\n", "\r\n"} {
		m, err := load(t, keys.UseCookie, []byte(text+ending)).RawMAC()
		if err != nil {
			t.Fatal(err)
		}
		got := m.MAC(nil, []byte(message))
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("ending %q changes the key", ending)
		}
	}
	m, err := load(t, keys.UseCookie, []byte(text+"\n\n")).RawMAC()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(m.MAC(nil, []byte(message)), want) {
		t.Error("more than one newline is trimmed")
	}
}
