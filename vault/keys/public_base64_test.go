package keys_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault/keys"
)

// wrapped breaks a text into lines of a width.
func wrapped(text string, width int, end string) string {
	var b strings.Builder
	for ; len(text) > width; text = text[width:] {
		b.WriteString(text[:width] + end)
	}
	return b.String() + text + end
}

// armored is a PEM file with lines of a width.
func armored(label string, der []byte, width int, end string) []byte {
	return []byte("-----BEGIN " + label + "-----" + end + wrapped(base64.StdEncoding.EncodeToString(der), width, end) + "-----END " + label + "-----" + end)
}

// TestPublicBase64 are spellings of one key that clients send: one digest, that of the SPKI.
func TestPublicBase64(t *testing.T) {
	want := load(t, keys.UseSession, sessionPEM()).Public()
	der, err := x509.MarshalPKIXPublicKey(want)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(want)
	files := map[string][]byte{
		"SPKI":             armored("PUBLIC KEY", der, 64, "\n"),
		"SPKI, CRLF":       armored("PUBLIC KEY", der, 64, "\r\n"),
		"SPKI, width 76":   armored("PUBLIC KEY", der, 76, "\n"),
		"SPKI, one line":   armored("PUBLIC KEY", der, 1<<20, "\n"),
		"SPKI, width 1":    armored("PUBLIC KEY", der, 1, "\n"),
		"SPKI, BOM, CRLF":  append([]byte("\xef\xbb\xbf"), armored("PUBLIC KEY", der, 64, "\r\n")...),
		"SPKI, no newline": bytes.TrimSpace(armored("PUBLIC KEY", der, 64, "\n")),
		"SPKI, blanks":     append([]byte("\n \r\n"), append(armored("PUBLIC KEY", der, 64, "\n"), "\n \n"...)...),
		"PKCS #1":          armored("RSA PUBLIC KEY", pkcs1, 64, "\n"),
		"PKCS #1, CRLF":    armored("RSA PUBLIC KEY", pkcs1, 76, "\r\n"),
	}
	for name, file := range files {
		for extra := range 3 { // each padding
			file := append(bytes.Clone(file), bytes.Repeat([]byte("\n"), extra)...)
			text := base64.StdEncoding.EncodeToString(file)
			bare := strings.TrimRight(text, "=")
			for spelling, text := range map[string]string{
				"padded": text, "bare": bare, "wrapped": wrapped(text, 76, "\n"), "bare, wrapped": wrapped(bare, 64, "\r\n"), "CR": wrapped(text, 60, "\r"),
				"newline": text + "\n", "a break in the padding": strings.Replace(text, "==", "=\r\n=", 1), "a break before": "\n" + text,
			} {
				spki, pub, err := keys.ParsePublicBase64(text)
				if err != nil || !pub.Equal(want) || spki != sha256.Sum256(der) {
					t.Errorf("%s, %s: %x, %v", name, spelling, spki, err)
				}
			}
		}
	}
}

func TestPublicBase64Refuses(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := spki(t, load(t, keys.UseSession, sessionPEM()).Public())
	of := func(content []byte) string { return base64.StdEncoding.EncodeToString(content) }
	sealed, err := keys.SealFast(sessionPEM(), []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	bits := func(n int) *rsa.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), uint(n-1)), big.NewInt(1)), E: 65537}
	}
	for name, c := range map[string]struct {
		text    string
		private bool
		want    string
	}{
		"PKCS #8":                {of(sessionPEM()), true, ""},
		"PKCS #8, CRLF":          {of(bytes.ReplaceAll(sessionPEM(), []byte("\n"), []byte("\r\n"))), true, ""},
		"PKCS #8, bare":          {strings.TrimRight(of(sessionPEM()), "="), true, ""},
		"PKCS #1":                {of(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsa1024())})), true, ""},
		"EC":                     {of(pkcs8(t, ec)), true, ""},
		"SEC 1":                  {of(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("x")})), true, ""},
		"OpenSSH":                {of(pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte("x")})), true, ""},
		"encrypted":              {of(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})), true, ""},
		"symmetric":              {of(generate(t, keys.UseDigest)), true, ""},
		"private after public":   {of(append(bytes.Clone(good), sessionPEM()...)), true, ""},
		"public after private":   {of(append(bytes.Clone(sessionPEM()), good...)), true, ""},
		"private, text before":   {of(append([]byte("my key:\n"), sessionPEM()...)), true, ""},
		"private, not encoded":   {string(sessionPEM()), true, ""},
		"private, cut off":       {of(sessionPEM()[:800]), true, ""},
		"two":                    {of(append(bytes.Clone(good), good...)), false, "more than one"},
		"empty":                  {"", false, "no PEM block"},
		"padding alone":          {"==", false, "base64"},
		"no PEM":                 {of([]byte("hello")), false, "no PEM block"},
		"PEM without base64":     {string(good), false, "base64"},
		"base64url":              {strings.NewReplacer("+", "-", "/", "_").Replace(of(append([]byte("\xfb\xff\xfe"), good...))), false, "base64"},
		"a blank":                {of(good)[:40] + " " + of(good)[40:], false, "base64"},
		"padding and more":       {of(good)[:40] + "==" + of(good)[40:], false, "base64"},
		"too much padding":       {strings.TrimRight(of(good), "=") + "===", false, "base64"},
		"cut off":                {of(good[:len(good)-20]), false, "no PEM block"},
		"DER":                    {of(pemBytes(good)), false, "no PEM block"},
		"certificate":            {of(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), false, "type"},
		"EC public":              {of(spki(t, &ec.PublicKey)), false, "not an RSA public key"},
		"age":                    {of(sealed), false, "age file"},
		"1024 bits":              {of(spki(t, &rsa1024().PublicKey)), false, "less than 2048"},
		"2047 bits":              {of(spki(t, bits(2047))), false, "less than 2048"},
		"8200 bits":              {of(spki(t, bits(8200))), false, "more than 8192"},
		"longer than 16 KiB":     {of(append(bytes.Clone(good), bytes.Repeat([]byte("\n"), 16<<10)...)), false, "longer than 16 KiB"},
		"a byte more, of breaks": {wrapped(of(good), 64, "\n") + strings.Repeat("\n", 16<<10+1-len(wrapped(of(good), 64, "\n"))), false, "longer than 16 KiB"},
	} {
		spki, pub, err := keys.ParsePublicBase64(c.text)
		if err == nil || pub != nil || spki != [32]byte{} || errors.Is(err, keys.ErrPrivateKey) != c.private || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Count(err.Error(), "public key: ") != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := keys.ParsePublicBase64(of(spki(t, bits(2048)))); err != nil {
		t.Errorf("2048 bits: %v", err)
	}
	text := wrapped(of(good), 64, "\n")
	if _, _, err := keys.ParsePublicBase64(text + strings.Repeat("\n", 16<<10-len(text))); err != nil {
		t.Errorf("16 KiB: %v", err)
	}
}

func pemBytes(content []byte) []byte {
	block, _ := pem.Decode(content)
	return block.Bytes
}

// FuzzParsePublicBase64: a key that is taken has 2048 bits, and one digest however it is written; a private one never is
// taken.
func FuzzParsePublicBase64(f *testing.F) {
	good := spki(f, load(f, keys.UseSession, sessionPEM()).Public())
	f.Add(base64.StdEncoding.EncodeToString(good))
	f.Add(wrapped(base64.RawStdEncoding.EncodeToString(append([]byte("\xef\xbb\xbf"), good...)), 76, "\r\n"))
	f.Add(base64.StdEncoding.EncodeToString(generate(f, keys.UseDigest)))
	f.Fuzz(func(t *testing.T, text string) {
		digest, pub, err := keys.ParsePublicBase64(text)
		if err != nil {
			if pub != nil || digest != [32]byte{} || len(err.Error()) > 100 {
				t.Fatal(err)
			}
			return
		}
		content, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "=\r\n"))
		if err != nil || bytes.Contains(content, []byte("PRIVATE")) || pub.N.BitLen() < 2048 {
			t.Fatalf("%d bits, %v", pub.N.BitLen(), err)
		}
		again, samePub, err := keys.ParsePublicBase64(base64.StdEncoding.EncodeToString(spki(t, pub)))
		if err != nil || again != digest || !samePub.Equal(pub) {
			t.Fatalf("%x and %x, %v", digest, again, err)
		}
	})
}

// BenchmarkParsePublicBase64 is once per request for an access token.
func BenchmarkParsePublicBase64(b *testing.B) {
	text := base64.StdEncoding.EncodeToString(spki(b, load(b, keys.UseSession, sessionPEM()).Public()))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := keys.ParsePublicBase64(text); err != nil {
			b.Fatal(err)
		}
	}
}
