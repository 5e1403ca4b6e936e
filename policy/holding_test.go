package policy_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/policy"
)

// TestAddresses has the addresses of ERC-55's test cases
// (https://eips.ethereum.org/EIPS/eip-55#test-cases), and the user of Exa's
// published cookie.
func TestAddresses(t *testing.T) {
	for _, text := range []string{
		"0x52908400098527886E0F7030069857D2E4169EE7",
		"0x8617E340B3D01FA5F11F306F4090FD50E238070D",
		"0xde709f2102306220921060314715629080e2fb77",
		"0x27b1fdb04752bbc536007a920d24acb045561c26",
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
		"0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
		"0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
		"0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
		"0x1234567890AbcdEF1234567890aBcdef12345678",
	} {
		for _, spelling := range []string{text, "0x" + strings.ToLower(text[2:]), "0x" + strings.ToUpper(text[2:])} {
			if address, ok := policy.ParseAddress(spelling); !ok || address.String() != text {
				t.Errorf("ParseAddress(%q) = %s, %t", spelling, address, ok)
			}
		}
	}
	good := "5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"
	for _, text := range []string{
		"", "0x", good, "0X" + good, "0x" + good[1:], "0x" + good + "0", "0x" + good[:39] + "g", "0x" + good[:38] + "\n", " 0x" + good[1:],
		"0x" + good[:38] + "é", strings.Repeat("0", 42),
	} {
		if address, ok := policy.ParseAddress(text); ok || address != (policy.Address{}) {
			t.Errorf("ParseAddress(%q) = %s, %t", text, address, ok)
		}
	}
}

// FuzzAddress: what is an address has three spellings at most, of which String
// is one and its own.
func FuzzAddress(f *testing.F) {
	f.Add("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")
	f.Add("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed")
	f.Fuzz(func(t *testing.T, text string) {
		address, ok := policy.ParseAddress(text)
		if !ok {
			if address != (policy.Address{}) {
				t.Fatalf("%q: %s beside a failure", text, address)
			}
			return
		}
		if again, ok := policy.ParseAddress(address.String()); !ok || again != address || !strings.EqualFold(address.String(), text) {
			t.Fatalf("%q is %s, and that is %s", text, address, again)
		}
	})
}

func spki(t testing.TB, key crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestPasskeyKeys(t *testing.T) {
	on := func(curve elliptic.Curve) *ecdsa.PublicKey {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return &key.PublicKey
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []interface{ Equal(crypto.PublicKey) bool }{on(elliptic.P256()), ed, &big.PublicKey} {
		passkey := policy.Passkey{ID: "AA", PublicKey: spki(t, key)}
		if got, err := passkey.Key(); err != nil || !key.Equal(got) {
			t.Errorf("%T: %v, %v", key, got, err)
		}
	}
	small := *big.N
	small.SetBit(&small, 2047, 0)
	large := *big.N
	large.SetBit(&large, 4096, 1)
	good := spki(t, ed)
	for name, der := range map[string][]byte{
		"nothing":        nil,
		"P-384":          spki(t, on(elliptic.P384())),
		"RSA, too small": spki(t, &rsa.PublicKey{N: &small, E: 65537}),
		"RSA, too large": spki(t, &rsa.PublicKey{N: &large, E: 65537}),
		"PKCS #1":        x509.MarshalPKCS1PublicKey(&big.PublicKey),
		"cut short":      good[:len(good)-1],
		"followed":       append(bytes.Clone(good), 0),
		"X25519":         bytes.Replace(good, []byte{0x2b, 0x65, 0x70}, []byte{0x2b, 0x65, 0x6e}, 1),
	} {
		passkey := policy.Passkey{ID: "AA", PublicKey: der}
		if key, err := passkey.Key(); err == nil || key != nil {
			t.Errorf("%s: %v, %v", name, key, err)
		}
	}
}

// FuzzPasskeyKey: a key that is taken has no other encoding.
func FuzzPasskeyKey(f *testing.F) {
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(spki(f, ed))
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(spki(f, &ec.PublicKey))
	f.Fuzz(func(t *testing.T, der []byte) {
		passkey := policy.Passkey{PublicKey: der}
		key, err := passkey.Key()
		if err == nil && !bytes.Equal(spki(t, key), der) {
			t.Fatalf("%x is not how its key is written", der)
		}
	})
}

func TestSigners(t *testing.T) {
	const text = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
	own, _ := policy.ParseAddress(text)
	other := policy.Address{1}
	for name, test := range map[string]struct {
		user policy.User
		want []policy.Address
	}{
		"nothing":                {policy.User{ID: "ada"}, nil},
		"wallets":                {policy.User{ID: "ada", Wallets: []policy.Address{other}}, []policy.Address{other}},
		"an id":                  {policy.User{ID: text}, []policy.Address{own}},
		"an id, in another case": {policy.User{ID: strings.ToLower(text), Wallets: []policy.Address{other}}, []policy.Address{other, own}},
		"an id that is listed":   {policy.User{ID: text, Wallets: []policy.Address{own, other}}, []policy.Address{own, other}},
		"an account is nobody":   {policy.User{ID: "ada", Account: text}, nil},
	} {
		if got := test.user.Signers(); !slices.Equal(got, test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}
