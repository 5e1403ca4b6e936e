package keys_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/vault/keys"
)

// jwtPEM is a key file of each algorithm, one for the whole run.
var jwtPEM = sync.OnceValue(func() map[string][]byte {
	out := map[string][]byte{}
	for _, algorithm := range keys.Algorithms() {
		content, err := keys.GenerateJWT(algorithm)
		if err != nil {
			panic(err)
		}
		out[algorithm] = content
	}
	return out
})

func jwtKey(t testing.TB, content []byte) *keys.JWTKey {
	t.Helper()
	k, err := load(t, keys.UseJWT, content).JWT()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func unbase64(t testing.TB, text string) []byte {
	t.Helper()
	p, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func number(t testing.TB, text string) *big.Int { return new(big.Int).SetBytes(unbase64(t, text)) }

// TestPublishedSignatures: RFC 7515, appendices A.2 and A.3, and RFC 8037, appendix A.4.
func TestPublishedSignatures(t *testing.T) {
	const joe = ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	ec, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), unbase64(t, "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"))
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{E: 65537, N: number(t, "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ")},
		D:         number(t, "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ"),
		Primes: []*big.Int{
			number(t, "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc"),
			number(t, "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc"),
		},
	}
	for algorithm, c := range map[string]struct {
		key                any
		message, signature string
		unique             bool
	}{
		keys.ES256: {ec, "eyJhbGciOiJFUzI1NiJ9" + joe, "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q", false},
		keys.RS256: {rsaKey, "eyJhbGciOiJSUzI1NiJ9" + joe, "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw", true},
		keys.EdDSA: {ed25519.NewKeyFromSeed(unbase64(t, "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")), "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc", "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg", true},
	} {
		k := jwtKey(t, pkcs8(t, c.key))
		want := unbase64(t, c.signature)
		if k.Algorithm() != algorithm || k.ID() != "k-jwt" || !k.Verify([]byte(c.message), want) {
			t.Errorf("%v: the signature of its specification is refused", k)
		}
		got, err := k.Sign([]byte(c.message))
		if err != nil || c.unique != bytes.Equal(got, want) {
			t.Errorf("%v: %x, %v", k, got, err)
		}
	}
}

// TestSignaturesVerifyElsewhere: what each algorithm signs is what a relying issuer's library verifies with the public
// half, and HS256 is HMAC under RFC 5869's key with the zero salt written out.
func TestSignaturesVerifyElsewhere(t *testing.T) {
	message := []byte("header.payload")
	digest := sha256.Sum256(message)
	for _, algorithm := range keys.Algorithms() {
		k := jwtKey(t, jwtPEM()[algorithm])
		times := 3
		if algorithm == keys.ES256 {
			times = 2000 // r and s begin with a zero byte once in 256 times
		}
		for range times {
			signature, err := k.Sign(message)
			if err != nil {
				t.Fatal(err)
			}
			ok := false
			switch pub := k.Public().(type) {
			case *ecdsa.PublicKey:
				ok = len(signature) == 64 && ecdsa.Verify(pub, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
			case ed25519.PublicKey:
				ok = ed25519.Verify(pub, message, signature)
			case *rsa.PublicKey:
				ok = rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], signature) == nil && pub.N.BitLen() == 2048
			case nil:
				ok = algorithm == keys.HS256 && len(signature) == 32
			}
			if !ok || !k.Verify(message, signature) {
				t.Fatalf("%s: nobody takes %x", algorithm, signature)
			}
		}
	}
	sum := func(key, text []byte) []byte { h := hmac.New(sha256.New, key); h.Write(text); return h.Sum(nil) }
	sub := sum(sum(make([]byte, 32), bytes.Repeat([]byte{7}, 32)), []byte("jwt\x01"))
	k, err := symmetric(t, "j", keys.UseJWT, "", 7).JWT()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Sign(message); err != nil || !bytes.Equal(got, sum(sub, message)) {
		t.Errorf("HS256: %x, %v", got, err)
	}
}

// TestSignaturesAreRefused: each flipped bit, each cut, another message, another key, another algorithm's form.
func TestSignaturesAreRefused(t *testing.T) {
	message := []byte("header.payload")
	signatures := map[string][]byte{}
	for _, algorithm := range keys.Algorithms() {
		k := jwtKey(t, jwtPEM()[algorithm])
		signature, err := k.Sign(message)
		if err != nil {
			t.Fatal(err)
		}
		signatures[algorithm] = signature
		for i := range 8 * len(signature) {
			changed := bytes.Clone(signature)
			changed[i/8] ^= 1 << (i % 8)
			if k.Verify(message, changed) {
				t.Errorf("%s: bit %d", algorithm, i)
			}
		}
		for n := range signature {
			if k.Verify(message, signature[:n]) {
				t.Errorf("%s: cut to %d", algorithm, n)
			}
		}
		if k.Verify(message, append(bytes.Clone(signature), 0)) || k.Verify(message, append([]byte{0}, signature...)) {
			t.Errorf("%s: longer", algorithm)
		}
		if k.Verify([]byte("header.payloaD"), signature) || k.Verify(nil, signature) || k.Verify(message, nil) {
			t.Errorf("%s: another message or none", algorithm)
		}
		if algorithm == keys.RS256 { // another key costs time, and is what a flipped bit is
			continue
		}
		other, err := keys.GenerateJWT(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		if jwtKey(t, other).Verify(message, signature) {
			t.Errorf("%s: another key's", algorithm)
		}
	}
	for algorithm, content := range jwtPEM() {
		for of, signature := range signatures {
			if of != algorithm && jwtKey(t, content).Verify(message, signature) {
				t.Errorf("%s takes what %s signed", algorithm, of)
			}
		}
	}
	k := jwtKey(t, jwtPEM()[keys.ES256])
	if signature := signatures[keys.ES256]; k.Verify(message, slices.Insert(bytes.Clone(signature), 32, 0)) {
		t.Error("ES256: s of 33 bytes")
	}
	r, s := new(big.Int).SetBytes(signatures[keys.ES256][:32]), new(big.Int).SetBytes(signatures[keys.ES256][32:])
	order := elliptic.P256().Params().N
	for name, pair := range map[string][2]*big.Int{
		"zeros": {new(big.Int), new(big.Int)}, "r of zero": {new(big.Int), s}, "s of zero": {r, new(big.Int)}, "order": {order, order},
	} {
		if k.Verify(message, append(pair[0].FillBytes(make([]byte, 32)), pair[1].FillBytes(make([]byte, 32))...)) {
			t.Errorf("ES256: %s", name)
		}
	}
}

// TestJWTFiles: what a key file of use jwt may hold, and that nothing of it is a key of another use.
func TestJWTFiles(t *testing.T) {
	public := map[string][]byte{}
	for algorithm, content := range jwtPEM() {
		k := load(t, keys.UseJWT, content)
		if !k.Plain() || !k.Private() || k.Public() != nil {
			t.Errorf("%s: plain %t, private %t", algorithm, k.Plain(), k.Private())
		}
		text, err := keys.PublicPEM(k)
		if (err == nil) != (algorithm != keys.HS256) {
			t.Errorf("%s: public half: %v", algorithm, err)
		}
		if err == nil {
			block, _ := pem.Decode(text)
			half, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil || !jwtKey(t, content).Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(half) {
				t.Errorf("%s: another public half: %v", algorithm, err)
			}
			public[algorithm] = text
		}
		for _, use := range allUses {
			_, err := keys.Load(keys.Config{ID: "k", Use: use, File: write(t, content)})
			isRSA := algorithm == keys.RS256 && (use == keys.UseSession || use == keys.UseIssuer) // the same bytes
			if (err == nil) != (use == keys.UseJWT || isRSA) {
				t.Errorf("%s as %s: %v", algorithm, use, err)
			}
		}
		sealed, err := keys.SealFast(content, []byte("correct horse"))
		if err != nil {
			t.Fatal(err)
		}
		fromAge, err := loadSealed(t, keys.UseJWT, sealed, "correct horse")
		if err != nil || fromAge.Plain() {
			t.Fatalf("%s: sealed: %v", algorithm, err)
		}
		signer, err := fromAge.JWT()
		if err != nil {
			t.Fatal(err)
		}
		if signature, err := signer.Sign([]byte("m")); err != nil || !jwtKey(t, content).Verify([]byte("m"), signature) {
			t.Errorf("%s: sealed, it is another key: %v", algorithm, err)
		}
	}
	for algorithm, text := range public {
		if _, err := keys.Load(keys.Config{ID: "k", Use: keys.UseJWT, File: write(t, text)}); err == nil || !strings.Contains(err.Error(), "this is a public key") {
			t.Errorf("%s: the public half signs: %v", algorithm, err)
		}
	}
	ec := func(c elliptic.Curve) *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec(elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 what is refused has to be made first
	threePrimes, err := rsa.GenerateMultiPrimeKey(rand.Reader, 3, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(jwtPEM()[keys.ES256])
	zero := bytes.Clone(block.Bytes)
	clear(zero[bytes.Index(zero, []byte{4, 32})+2:][:32]) // the scalar: an OCTET STRING of 32 bytes (RFC 5915, section 3)
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"P-384":         {pkcs8(t, ec(elliptic.P384())), "not an EC P-256, Ed25519 or RSA private key"},
		"P-224":         {pkcs8(t, ec(elliptic.P224())), "not an EC P-256"},
		"X25519":        {pkcs8(t, x25519), "not an EC P-256"},
		"1024 bits":     {pkcs8(t, rsa1024()), "less than 2048"},
		"three primes":  {pkcs8(t, threePrimes), "not an RSA private key"},
		"rubbish":       {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), "not an EC P-256"},
		"a zero scalar": {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: zero}), "not an EC P-256"},
		"SEC 1":         {pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}), "type"},
		"PKCS #1":       {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsa1024())}), "type"},
		"RSA public":    {pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsa1024().PublicKey)}), "this is a public key"},
		"certificate":   {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), "type"},
		"headers":       {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"Use": "jwt"}, Bytes: block.Bytes}), "headers"},
		"another use":   {generate(t, keys.UseDigest), "Use header"},
		"encrypted":     {pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}), "encrypted"},
		"text":          {bytes.Repeat([]byte("k"), 40), "no PEM block"},
	} {
		if _, err := keys.Load(keys.Config{ID: "k", Use: keys.UseJWT, File: write(t, c.content)}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestJWTOfOtherUses(t *testing.T) {
	for _, use := range allUses {
		if _, err := load(t, use, generate(t, use)).JWT(); (err == nil) != (use == keys.UseJWT) {
			t.Errorf("%s signs: %v", use, err)
		}
	}
	k, err := keys.Ephemeral("generated", keys.UseJWT)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := k.JWT()
	if err != nil || signer.Algorithm() != keys.HS256 || signer.Public() != nil || signer.ID() != "generated" {
		t.Errorf("generated: %v, %v", signer, err)
	}
	if got := fmt.Sprintf("%v %+v %s", signer, *signer, signer); strings.Count(got, `key "generated" (HS256)`) != 3 {
		t.Error(got)
	}
	for _, algorithm := range []string{"", "none", "hs256", "ES384", "RS512", "HS512", "PS256"} {
		if content, err := keys.GenerateJWT(algorithm); err == nil || content != nil || !strings.Contains(err.Error(), "HS256, ES256, EdDSA, RS256") {
			t.Errorf("%q: %v", algorithm, err)
		}
	}
	for algorithm, content := range jwtPEM() {
		if algorithm == keys.RS256 {
			continue
		}
		if again, err := keys.GenerateJWT(algorithm); err != nil || bytes.Equal(again, content) {
			t.Errorf("%s: the same again, %v", algorithm, err)
		}
	}
}

func TestSigningAtOnce(t *testing.T) {
	for _, algorithm := range keys.Algorithms() {
		k := jwtKey(t, jwtPEM()[algorithm])
		failed := errors.New(algorithm)
		results := make(chan error, 8)
		for i := range cap(results) {
			go func() {
				signature, err := k.Sign([]byte{byte(i)})
				if err == nil && (!k.Verify([]byte{byte(i)}, signature) || k.Verify([]byte{byte(i + 1)}, signature)) {
					err = failed
				}
				results <- err
			}()
		}
		for range cap(results) {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	}
}

// BenchmarkSign is once per access token.
func BenchmarkSign(b *testing.B) {
	message := make([]byte, 300)
	for _, algorithm := range keys.Algorithms() {
		k := jwtKey(b, jwtPEM()[algorithm])
		b.Run(algorithm, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Sign(message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkVerify is once per call with an access token.
func BenchmarkVerify(b *testing.B) {
	message := make([]byte, 300)
	for _, algorithm := range keys.Algorithms() {
		k := jwtKey(b, jwtPEM()[algorithm])
		signature, err := k.Sign(message)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(algorithm, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !k.Verify(message, signature) {
					b.Fatal("refused")
				}
			}
		})
	}
}
