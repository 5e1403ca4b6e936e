package credential_test

import (
	"encoding/hex"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"
	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
)

// wallet signs as a user's wallet does.
type wallet struct{ key *secp256k1.PrivateKey }

func newWallet(t testing.TB) wallet {
	t.Helper()
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return wallet{key}
}

func keccak(parts ...string) []byte {
	hash := sha3.NewLegacyKeccak256()
	for _, part := range parts {
		hash.Write([]byte(part))
	}
	return hash.Sum(nil)
}

func (w wallet) address() policy.Address {
	return policy.Address(keccak(string(w.key.PubKey().SerializeUncompressed()[1:]))[12:])
}

// sign is personal_sign.
func (w wallet) sign(message string) string {
	compact := ecdsa.SignCompact(w.key, keccak("\x19Ethereum Signed Message:\n", strconv.Itoa(len(message)), message), false)
	return "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
}

// message is one for the wallet's address.
func (w wallet) message(t testing.TB, nonce string, at time.Time) string {
	t.Helper()
	text, err := (&credential.SIWE{
		Domain: "app.example", Address: w.address(), Statement: "Sign in", URI: "https://app.example", ChainID: 10, Nonce: nonce, IssuedAt: credential.SIWETime(at),
	}).Text()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func walletChallenge(user, message string) *credential.Challenge {
	return &credential.Challenge{ChallengeUse: credential.ChallengeUse{
		Purpose: credential.PurposeLogin, Method: policy.MethodSIWE, Face: "exa", Environment: "test", Partner: "p", User: user,
	}, Message: message}
}

// TestPublishedWalletSignatures has spruceid/siwe's test vectors
// (test/verification_positive.json), made by wallets of several vendors.
func TestPublishedWalletSignatures(t *testing.T) {
	for name, vector := range map[string]struct {
		message credential.SIWE
		address string
		at      string
		want    string // the reason of the refusal, if any
		sign    string
	}{
		"v 27": {
			credential.SIWE{Domain: "login.xyz", Statement: "Sign-In With Ethereum Example Statement", URI: "https://login.xyz", Nonce: "bTyXgcQxn2htgkjJn", IssuedAt: "2022-01-27T17:09:38.578Z", ExpirationTime: "2100-01-07T14:31:43.952Z"},
			"0x9D85ca56217D2bb651b00f15e694EB7E713637D4", "2026-11-23T12:00:00Z", "",
			"0xdc35c7f8ba2720df052e0092556456127f00f7707eaa8e3bbff7e56774e7f2e05a093cfc9e02964c33d86e8e066e221b7d153d27e5a2e97ccd5ca7d3f2ce06cb1b",
		},
		"v 28": {
			credential.SIWE{Domain: "login.xyz", Statement: "Sign-In With Ethereum Example Statement", URI: "https://login.xyz", Nonce: "lx2nx4so", IssuedAt: "2022-01-05T14:27:30.883Z", NotBefore: "2100-01-07T14:31:43.952Z"},
			"0xE6D3Aa1F561A215E5eb1f02Ba8705385F03fCaFB", "2101-01-07T14:31:43.952Z", "",
			"0xc2539ace78f13c7eb8c0852d38d269a6f97bebd9f7872097d2e3137b541f8bf50176062a46eeea83086bd2721423fb5755a932ff6ccc046ed482d14e4576042f1c",
		},
		"v 1": {
			credential.SIWE{Domain: "www.tally.xyz", Statement: "Sign in with Ethereum to Tally", URI: "https://tally.xyz", Nonce: "15050747", IssuedAt: "2022-06-30T14:08:51.382Z"},
			"0xc95EB884FE852e241D409234bfC7045CB9E31BD7", "2026-11-23T12:00:00Z", "",
			"0x8c46b6eb8505939892d8e9b075f89f8277321b17b993151f37810cdda38cce6f4a85909d2b53e6a14629c74c0ac38bf4becde78ee5b2529812bf6cceaf7b2a2501",
		},
		"not yet valid": {
			credential.SIWE{Domain: "login.xyz", Statement: "Sign-In With Ethereum Example Statement", URI: "https://login.xyz", Nonce: "lx2nx4so", IssuedAt: "2022-01-05T14:27:30.883Z", NotBefore: "2100-01-07T14:31:43.952Z"},
			"0xE6D3Aa1F561A215E5eb1f02Ba8705385F03fCaFB", "2026-11-23T12:00:00Z", policy.RefusedExpired,
			"0xc2539ace78f13c7eb8c0852d38d269a6f97bebd9f7872097d2e3137b541f8bf50176062a46eeea83086bd2721423fb5755a932ff6ccc046ed482d14e4576042f1c",
		},
		"expired": {
			credential.SIWE{Domain: "login.xyz", Statement: "Sign-In With Ethereum Example Statement", URI: "https://login.xyz", Nonce: "lx2nx4so", IssuedAt: "2022-01-05T14:27:30.883Z", ExpirationTime: "2021-01-05T00:00:00Z"},
			"0x2ecA0068307e706741445764A3D6A4402aC2A5a9", "2026-11-23T12:00:00Z", policy.RefusedExpired,
			"0x7337bc2826c7678cd6bc84f5b3b236efc969b0451f9feca2328b1d3401b030c113f19bdba359ba3f52762c66e9147311fa95fe598a1a4ec9bb383a7b4e3874241b",
		},
	} {
		vector.message.ChainID = 1
		vector.message.Address, _ = policy.ParseAddress(vector.address)
		message, err := vector.message.Text()
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, vector.at)
		if err != nil {
			t.Fatal(err)
		}
		wallets := credential.NewWallets(credential.WalletsConfig{Now: func() time.Time { return at }})
		proof, err := wallets.Prove(message, vector.sign, walletChallenge(vector.address, message))
		if vector.want != "" {
			refused(t, proof, err, policy.KindWallet, vector.want, vector.sign)
		} else if want := (policy.Proof{Kind: policy.KindWallet, User: vector.address, Environment: "test"}); err != nil || proof != want {
			t.Errorf("%s: %+v, %v", name, proof, err)
		}
	}
}

func TestWalletProvesItsUser(t *testing.T) {
	at, w := newClock(), newWallet(t)
	wallets := credential.NewWallets(credential.WalletsConfig{Now: at.now})
	message := w.message(t, "12345678", at.now())
	signature := w.sign(message)
	checked := w.address().String()
	for _, user := range []string{checked, "0x" + strings.ToLower(checked[2:]), "0x" + strings.ToUpper(checked[2:])} {
		proof, err := wallets.Prove(message, signature, walletChallenge(user, message))
		if err != nil || proof != (policy.Proof{Kind: policy.KindWallet, User: user, Environment: "test"}) {
			t.Errorf("%s: %+v, %v", user, proof, err)
		}
	}
	upper := "0x" + strings.ToUpper(signature[2:])
	if _, err := wallets.Prove(message, upper, walletChallenge(checked, message)); err != nil {
		t.Errorf("upper case: %v", err)
	}
}

func TestWalletRefusals(t *testing.T) {
	at, w, other := newClock(), newWallet(t), newWallet(t)
	wallets := credential.NewWallets(credential.WalletsConfig{Now: at.now})
	user := w.address().String()
	message := w.message(t, "12345678", at.now())
	signature := w.sign(message)
	expected := walletChallenge(user, message)
	passkey := walletChallenge(user, message)
	passkey.Method = policy.MethodWebAuthn
	theirs := other.message(t, "12345678", at.now())
	const order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
	zero := strings.Repeat("0", 64)
	for name, test := range map[string]struct {
		message, signature string
		expected           *credential.Challenge
		reason             string
	}{
		"no signature":          {message, "", expected, policy.RefusedMalformed},
		"no 0x":                 {message, signature[2:], expected, policy.RefusedMalformed},
		"0X":                    {message, "0X" + signature[2:], expected, policy.RefusedMalformed},
		"short":                 {message, signature[:131], expected, policy.RefusedMalformed},
		"64 bytes, ERC-2098":    {message, signature[:130], expected, policy.RefusedMalformed},
		"long":                  {message, signature + "00", expected, policy.RefusedMalformed},
		"no hexadecimal":        {message, signature[:131] + "g", expected, policy.RefusedMalformed},
		"a space":               {message, signature[:131] + " ", expected, policy.RefusedMalformed},
		"no challenge":          {message, signature, nil, policy.RefusedBound},
		"zero challenge":        {"", signature, &credential.Challenge{}, policy.RefusedBound},
		"a passkey's challenge": {message, signature, passkey, policy.RefusedBound},
		"another message":       {message + " ", signature, expected, policy.RefusedBound},
		"no message":            {"hello", w.sign("hello"), walletChallenge(user, "hello"), policy.RefusedMalformed},
		"signed by another":     {message, other.sign(message), expected, policy.RefusedUser},
		"another's user":        {message, signature, walletChallenge(other.address().String(), message), policy.RefusedUser},
		"another's message":     {theirs, w.sign(theirs), walletChallenge(user, theirs), policy.RefusedUser},
		"no address":            {message, signature, walletChallenge("ada", message), policy.RefusedUser},
		"nobody":                {message, signature, walletChallenge("", message), policy.RefusedUser},
		"v 2":                   {message, signature[:130] + "02", expected, policy.RefusedSignature},
		"v 29":                  {message, signature[:130] + "1d", expected, policy.RefusedSignature},
		"v 31, compressed":      {message, signature[:130] + "1f", expected, policy.RefusedSignature},
		"v 255":                 {message, signature[:130] + "ff", expected, policy.RefusedSignature},
		"high s":                {message, twin(t, signature), expected, policy.RefusedSignature},
		"r 0":                   {message, "0x" + zero + signature[66:], expected, policy.RefusedSignature},
		"s 0":                   {message, signature[:66] + zero + signature[130:], expected, policy.RefusedSignature},
		"r the order":           {message, "0x" + order + signature[66:], expected, policy.RefusedSignature},
		"s the order":           {message, signature[:66] + order + signature[130:], expected, policy.RefusedSignature},
	} {
		t.Run(name, func(t *testing.T) {
			proof, err := wallets.Prove(test.message, test.signature, test.expected)
			refused(t, proof, err, policy.KindWallet, test.reason, test.message, test.signature)
		})
	}
	at.advance(-5 * time.Minute)
	proof, err := wallets.Prove(message, signature, expected)
	refused(t, proof, err, policy.KindWallet, policy.RefusedExpired)
}

// twin is the other signature that verifies: the order less s, and the other y.
func twin(t *testing.T, signature string) string {
	raw, err := hex.DecodeString(signature[2:])
	if err != nil {
		t.Fatal(err)
	}
	var s secp256k1.ModNScalar
	s.SetByteSlice(raw[32:64])
	s.Negate()
	high := s.Bytes()
	copy(raw[32:], high[:])
	raw[64] = 27 + 28 - raw[64]
	return "0x" + hex.EncodeToString(raw)
}

// TestAnyOtherWalletSignatureIsRefused flips every bit of a good one.
func TestAnyOtherWalletSignatureIsRefused(t *testing.T) {
	at, w := newClock(), newWallet(t)
	wallets := credential.NewWallets(credential.WalletsConfig{Now: at.now})
	message := w.message(t, "12345678", at.now())
	expected := walletChallenge(w.address().String(), message)
	raw, err := hex.DecodeString(w.sign(message)[2:])
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(raw) {
		raw[bit/8] ^= 1 << (bit % 8)
		if proof, err := wallets.Prove(message, "0x"+hex.EncodeToString(raw), expected); err == nil || proof != (policy.Proof{}) {
			t.Errorf("bit %d: %+v, %v", bit, proof, err)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
}

// TestEveryWalletIsRecovered: whatever key and message, v counted from 0 or from
// 27.
func TestEveryWalletIsRecovered(t *testing.T) {
	at := newClock()
	wallets := credential.NewWallets(credential.WalletsConfig{Now: at.now})
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, "key")
		w := wallet{secp256k1.PrivKeyFromBytes(seed)}
		if w.key.Key.IsZero() {
			return
		}
		message := w.message(t, rapid.StringMatching(`[a-zA-Z0-9]{8,40}`).Draw(rt, "nonce"), at.now())
		signature := w.sign(message)
		if rapid.Bool().Draw(rt, "from 0") {
			signature = signature[:130] + map[string]string{"1b": "00", "1c": "01"}[signature[130:]]
		}
		user := w.address().String()
		if proof, err := wallets.Prove(message, signature, walletChallenge(user, message)); err != nil || proof.User != user {
			rt.Fatalf("%s: %+v, %v", signature, proof, err)
		}
	})
}

// FuzzWalletSignature: nothing but what the wallet signed is a proof. It has two
// texts, v from 0 or from 27, and the case of their digits does not matter.
func FuzzWalletSignature(f *testing.F) {
	at, w := newClock(), wallet{secp256k1.PrivKeyFromBytes([]byte("a wallet's private key, 32 bytes"))}
	wallets := credential.NewWallets(credential.WalletsConfig{Now: at.now})
	message := w.message(f, "12345678", at.now())
	good := w.sign(message)
	f.Add(good)
	f.Add(good[:130] + "00")
	f.Add(good[:130] + "01")
	f.Fuzz(func(t *testing.T, signature string) {
		proof, err := wallets.Prove(message, signature, walletChallenge(w.address().String(), message))
		same := len(signature) == len(good) && strings.EqualFold(signature[:130], good[:130]) && signature[:2] == "0x" &&
			(strings.EqualFold(signature[130:], good[130:]) || signature[130:] == map[string]string{"1b": "00", "1c": "01"}[good[130:]])
		if (err == nil) != same || (proof != policy.Proof{}) != same {
			t.Fatalf("%q: %+v, %v", signature, proof, err)
		}
	})
}

// BenchmarkWallet is what a login of a wallet pays for its signature.
func BenchmarkWallet(b *testing.B) {
	at, w := newClock(), newWallet(b)
	wallets := credential.NewWallets(credential.WalletsConfig{Now: at.now})
	message := w.message(b, "12345678", at.now())
	signature, expected := w.sign(message), walletChallenge(w.address().String(), message)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wallets.Prove(message, signature, expected); err != nil {
			b.Fatal(err)
		}
	}
}
