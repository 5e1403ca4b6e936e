package credential_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
)

// Signatures that OpenSSL 3.0 made over the digest of PaymentsGate's contract,
// with salts of 32, the most (222) and no bytes.
const vectorDigest = "c9570bc1d0e06776ffac8c0d8debc7cf7e666d6102f6430d75f736afcc3bfd57"

const vectorKey = `
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAwM5aU4KhVSOOJzDMUYlIJcVFtQueVt4V
SQvxaOMk3ncf48CGdgW9z2ti42PrK4errShUwR1DnV9D1u8YXIhNznoS0DjZoiuSbNafhcWsI6T0
qUCR9X8tZUrc8kNqU/kl5atzrU2Gr3zwzoXJSoXYkozpOa2JCzikOCfvhw5Yb+hi+77SeQT/Miyn
R1BrJjW/84rP8LsgZJpbhGyof/dKpeKj1iCtQL9Tr12wyyR/5b1WqxwvBC/Z3PHHU6mpUJJB/Ek4
kCGQjWV7YinHtDKA4JuknQHk6bdQfpLG76/ZO3yBBDmmwgN/u5L7N/kq7AnAG835G+s/pc2LnAf6
hL1muwIDAQAB
`

var vectorSignatures = map[string]string{
	"salt of the digest's length": `hWJWVRZiKVyrzw1o2eT2aiW/4loeolHTNDxs9XzHlW0elQiCDpUCbeaIN2qJq2ZmsejpT9eJyhEa
yPdKy1Kv6KZiBzUb9djDJv5xOQ59k0Rh7Oc2tOoYFNkZehTmTiiAY/7m/EOWtaBw1IdUFH6B7aWd
f1GsTvdOEoEWxrrANwYMd15UZb3lMKwpr4UlWxGrYnQEn01vjDrtaaAkQOa6+UnV/7PLlL08oNVg
DGcFj1irusGzRk05yEL27uRTgD2H9N0Wm4a6mGXv6NR6G0NyyqFKRY1a7l5r7TfApyh3UDHAHOfY
+gdIOA5O2VrSrW/GMGQ5P5zeydU0qZOCJB1Ysg==
`,
	"longest salt": `Hf325NG/XuP6LIp+4gsRJX2ttNpCGJz2Z57uKV1YhsZWuA/0a7bXvUqmK1puSKUVwBzO6Y0FD40e
E3dmENevggv9GNf0Rs2olK+91eJxPWzkhIk0Ts5IGJXwCYQzhYeZhKx2rdg8raTyfWpJriT96aOO
dgh76p5qOIR4MeRf/VokrCxhu42fS8Mbaj7C1C9RLzs/GeNn9AJkaMZ6Kj9W5HT+IkZc9BHFWtGd
OiCYE2wvlneimfn8ZlQitNu03GYhqYC1N4NaTPkB8p/v9/UVPGv5gT1M1dHiq/KWeFFf+SGSH4Yx
m5wQBExkQT8THe54iJBwjEm3GoWqfJJ/HPpfjQ==
`,
	"no salt": `njM653x3W1rEv8liE0qtWL3vRSg2EnaT0xfJnGRNyZbUJ6ttC9X0tUma1spwKlK5vavlW2u3B/D+
ap9GyzWyOjI3H2YpBGaUIIjo01U9GZXFbMAmuj9Mr4CcKvndxPutPLjsYKtMC8mz76CX4BK+aHje
N27XdvThjZq5B3vXWH/n97Piz/u9KJUabaASot2ZUlxysiut4GC5HQ68iM/fdL9PUSaNTgUNmSJT
miMMbdbPYTg5q99S5PUTfsqH204fn0DFkGgE3+hgtps47Rzi+K9ER6fh8d2LudNOXsiEMqAwqnrB
a+A1ureHOKdyYfqHxDzzkS34q5PGxdvhtLr4CA==
`,
}

// vectorAccount has the vectors' key, and another one beside it.
func vectorAccount(t testing.TB) (credential.Account, [32]byte) {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(vectorKey, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := hex.DecodeString(vectorDigest)
	if err != nil {
		t.Fatal(err)
	}
	one := account(t)
	one.Keys = append(one.Keys, credential.AccountKey{SPKI: sha256.Sum256(der), Public: key.(*rsa.PublicKey)})
	return one, [32]byte(digest)
}

func signature(text string) policy.Credential {
	return policy.NewCredential(policy.KindSignature, text)
}

// TestSignatureVectors: as clients write them, and as they come out of HTTP.
func TestSignatureVectors(t *testing.T) {
	one, digest := vectorAccount(t)
	a := accounts(t, one)
	for name, text := range vectorSignatures {
		for how, text := range map[string]string{
			"as written": text, "folded": strings.ReplaceAll(text, "\n", " "), "CRLF": strings.ReplaceAll(text, "\n", "\r\n"),
			"without breaks": strings.ReplaceAll(text, "\n", ""), "tabs": "\t" + strings.ReplaceAll(text, "\n", "\r\n\t "),
		} {
			proof, err := a.ProveSignature("acc-1", digest, signature(text))
			if err != nil || proof != (policy.Proof{
				Kind: policy.KindSignature, Partner: "pg", Account: "acc-1", Environment: "test", ID: "signature:acc-1", Key: one.Keys[1].SPKI,
			}) {
				t.Errorf("%s, %s: %+v, %v", name, how, proof, err)
			}
		}
	}
}

func TestSignaturesThatProveNothing(t *testing.T) {
	one, digest := vectorAccount(t)
	other := account(t)
	other.ID = "acc-2"
	a := accounts(t, one, other)
	good := strings.ReplaceAll(vectorSignatures["no salt"], "\n", "")
	for name, text := range map[string]string{
		"nothing": "", "white space": " \r\n\t", "not base64": "!" + good[1:], "base64url": strings.ReplaceAll(strings.ReplaceAll(good, "+", "-"), "/", "_"),
		"no padding": strings.TrimRight(good, "="), "padding twice": good + "==", "stray bits": strings.Replace(good, "A==", "B==", 1),
		"a no-break space": good[:76] + "\u00a0" + good[76:], "NUL": good + "\x00", "long": strings.Repeat("AAAA", 1025), "long in white space": good + strings.Repeat(" ", 4096),
	} {
		proof, err := a.ProveSignature("acc-1", digest, signature(text))
		if _, isRefused := err.(*policy.Refused); !isRefused {
			t.Fatalf("%s: %+v, %v", name, proof, err)
		}
		refused(t, proof, err, policy.KindSignature, policy.RefusedMalformed, text)
		// Of an account that is not there the same is said.
		if _, unknown := a.ProveSignature("nobody", digest, signature(text)); unknown == nil || unknown.Error() != err.Error() {
			t.Errorf("%s: %v, and of nobody %v", name, err, unknown)
		}
	}
	proof, err := a.ProveSignature("acc-1", digest, policy.NewCredential(policy.KindAPIKey, good))
	refused(t, proof, err, policy.KindSignature, policy.RefusedMalformed)

	const want = "refused signature: signature"
	no := func(a *credential.Accounts, id string, digest [32]byte, text string) {
		t.Helper()
		proof, err := a.ProveSignature(id, digest, signature(text))
		refused(t, proof, err, policy.KindSignature, policy.RefusedSignature, text)
		if err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	no(a, "acc-2", digest, good)
	no(a, "nobody", digest, good) // the account that stands in for it has that key
	no(accounts(t), "acc-1", digest, good)
	no(a, "acc-1", digest, good[4:])
	no(a, "acc-1", digest, "AAAA")
	for bit := range 256 {
		changed := digest
		changed[bit/8] ^= 1 << (bit % 8)
		no(a, "acc-1", changed, good)
	}
}

// TestSignatureIsOverTheHexText: with PSS and SHA-256 throughout, and nothing
// else.
func TestSignatureIsOverTheHexText(t *testing.T) {
	a, key := accounts(t, account(t)), rsaKeys()[0]
	digest := sha256.Sum256([]byte("body"))
	text := hex.EncodeToString(digest[:])
	pss := func(message string, h crypto.Hash) []byte {
		state := h.New()
		state.Write([]byte(message))
		signed, err := rsa.SignPSS(rand.Reader, key, h, state.Sum(nil), &rsa.PSSOptions{SaltLength: 20, Hash: h})
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	hashed := sha256.Sum256([]byte(text))
	pkcs1, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, hashed[:])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ProveSignature("acc-1", digest, signature(base64.StdEncoding.EncodeToString(pss(text, crypto.SHA256)))); err != nil {
		t.Error(err)
	}
	for name, raw := range map[string][]byte{
		"upper-case hex": pss(strings.ToUpper(text), crypto.SHA256), "the digest's bytes": pss(string(digest[:]), crypto.SHA256),
		"the body": pss("body", crypto.SHA256), "SHA-512": pss(text, crypto.SHA512), "PKCS #1 v1.5": pkcs1,
	} {
		proof, err := a.ProveSignature("acc-1", digest, signature(base64.StdEncoding.EncodeToString(raw)))
		if err == nil {
			t.Fatalf("%s is a signature", name)
		}
		refused(t, proof, err, policy.KindSignature, policy.RefusedSignature)
	}
}

// FuzzSignature: no other text than a vector's is its signature, white space
// aside.
func FuzzSignature(f *testing.F) {
	one, digest := vectorAccount(f)
	a := accounts(f, one)
	bare := strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "", "\v", "", "\f", "")
	good := map[string]bool{}
	for _, text := range vectorSignatures {
		good[bare.Replace(text)] = true
		f.Add(text)
		f.Add(strings.ReplaceAll(text, "\n", " "))
	}
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		proof, err := a.ProveSignature("acc-1", digest, signature(text))
		if (err == nil) != good[bare.Replace(text)] && len(text) <= 4096 {
			t.Fatalf("%q: %+v, %v", text, proof, err)
		}
		if _, isRefused := err.(*policy.Refused); err != nil && !isRefused {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
