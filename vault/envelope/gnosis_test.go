package envelope_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/internal/secret"
)

// The contract's card upload.
const (
	gnosisKeyText = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	gnosisIV      = "ABCDEFGHIJKLMNOP"
	gnosisPAN     = "orBMl9/MRkIDyEY+yl2H0uBCXmIKwlFlwWLskMzTdmE="
)

func gnosis(t testing.TB) envelope.Format {
	t.Helper()
	f, err := envelope.ByName("gnosis")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// gnosisCipher is a cipher under the key of that text.
func gnosisCipher(t testing.TB, keyText string) envelope.Cipher {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(keyText)
	if err != nil {
		t.Fatal(err)
	}
	key := secret.From(raw)
	defer key.Destroy() // a cipher keeps no reference
	c, err := gnosis(t).NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestGnosisContractVector reads the contract's card upload as the issuer does: the text of the key out of OAEP, then the field.
func TestGnosisContractVector(t *testing.T) {
	if raw, _ := base64.StdEncoding.DecodeString(gnosisIV); hex.EncodeToString(raw) != "00108310518720928b30d38f" {
		t.Errorf("the IV is %x", raw)
	}
	preamble := base64.StdEncoding.EncodeToString(wrapped(t, gnosisKeyText, sha1.New(), ""))
	parsed, err := gnosis(t).ParsePreamble(preamble, 256)
	if err != nil {
		t.Fatal(err)
	}
	key, err := gnosis(t).Unwrap(rsaKey(), 256, parsed)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	if got := base64.StdEncoding.EncodeToString(key.Bytes()); got != gnosisKeyText {
		t.Errorf("the key is %s", got)
	}
	c, err := gnosis(t).NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := open(t, c, gnosisPAN, gnosisIV); got != "4111111111111111" {
		t.Errorf("%q, %v", got, err)
	}
	if err := gnosis(t).CheckSealed(gnosisPAN, gnosisIV); err != nil {
		t.Error(err)
	}
	if got := envelope.GnosisSeal(c, gnosisIV, "4111111111111111"); got != gnosisPAN {
		t.Errorf("sealed to %s", got)
	}
}

// TestGnosisPublishedVectors are those of AES-256-GCM without associated data, test cases 13 to 15 of McGrew and Viega,
// "The Galois/Counter Mode of Operation", appendix B.
func TestGnosisPublishedVectors(t *testing.T) {
	const key = "feffe9928665731c6d6a8f9467308308"
	for _, v := range []struct{ key, iv, plaintext, sealed string }{
		{strings.Repeat("00", 32), strings.Repeat("00", 12), "", "530f8afbc74536b9a963b4f1c4cb738b"},
		{strings.Repeat("00", 32), strings.Repeat("00", 12), strings.Repeat("00", 16), "cea7403d4d606b6e074ec5d3baf39d18" + "d0d1c8a799996bf0265b98b5d48ab919"},
		{key + key, "cafebabefacedbaddecaf888",
			"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
			"522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad" + "b094dac5d93471bdec1a502270e3cc6c"},
	} {
		b64 := func(text string) string {
			raw, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			return base64.StdEncoding.EncodeToString(raw)
		}
		c := gnosisCipher(t, b64(v.key))
		got, err := open(t, c, b64(v.sealed), b64(v.iv))
		if err != nil || hex.EncodeToString([]byte(got)) != v.plaintext {
			t.Errorf("%s: %x, %v", v.sealed, got, err)
		}
		if sealed := envelope.GnosisSeal(c, b64(v.iv), got); sealed != b64(v.sealed) {
			t.Errorf("%s: sealed to %s", v.sealed, sealed)
		}
	}
}

// TestGnosisWrapIsTheTextOfTheKey reads a preamble of ours as the issuer does.
func TestGnosisWrapIsTheTextOfTheKey(t *testing.T) {
	key, preamble, err := gnosis(t).Wrap(&rsaKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	raw, err := base64.StdEncoding.DecodeString(preamble)
	if err != nil {
		t.Fatal(err)
	}
	text, err := rsa.DecryptOAEP(sha1.New(), nil, rsaKey(), raw, nil)
	if err != nil || string(text) != base64.StdEncoding.EncodeToString(key.Bytes()) || len(text) != 44 {
		t.Errorf("%d characters, %v", len(text), err)
	}
}

// TestGnosisUnwrapRefuses: keys of the other format, keys as they are, and texts that are not canonical.
func TestGnosisUnwrapRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"rain's":          keyText,
		"raw key":         string(make([]byte, 32)),
		"hexadecimal":     strings.Repeat("00", 32),
		"31 bytes":        base64.StdEncoding.EncodeToString(make([]byte, 31)),
		"33 bytes":        base64.StdEncoding.EncodeToString(make([]byte, 33)),
		"24 bytes":        base64.StdEncoding.EncodeToString(make([]byte, 24)),
		"unused bits":     strings.Replace(gnosisKeyText, "h8=", "h9=", 1),
		"no padding":      strings.TrimRight(gnosisKeyText, "="),
		"URL alphabet":    base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 32)),
		"LF":              gnosisKeyText + "\n",
		"LF in its place": gnosisKeyText[:43] + "\n",
		"nothing":         "",
	} {
		if key, err := gnosis(t).Unwrap(rsaKey(), 256, wrapped(t, text, sha1.New(), "")); err != envelope.ErrOpen || key != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := &counting{Decrypter: rsaKey()}
	if _, err := gnosis(t).Unwrap(d, 256, make([]byte, 255)); err != envelope.ErrOpen || d.calls != 0 {
		t.Errorf("a byte short: %v, %d RSA operations", err, d.calls)
	}
	if key, err := rain(t).Unwrap(rsaKey(), 256, wrapped(t, gnosisKeyText, sha1.New(), "")); err != envelope.ErrOpen || key != nil {
		t.Errorf("rain takes this key: %v", err)
	}
	for n := range 65 {
		if _, err := gnosis(t).NewCipher(secret.New(n)); (err == nil) != (n == 32) || n != 32 && err != envelope.ErrOpen {
			t.Errorf("a key of %d bytes: %v", n, err)
		}
	}
}

// TestEveryBitOfAGnosisFieldMatters flips each bit of ciphertext, tag and IV, and of their texts.
func TestEveryBitOfAGnosisFieldMatters(t *testing.T) {
	c := gnosisCipher(t, gnosisKeyText)
	enc := base64.StdEncoding.EncodeToString
	data, _ := base64.StdEncoding.DecodeString(gnosisPAN)
	iv, _ := base64.StdEncoding.DecodeString(gnosisIV)
	for i := range 8 * (len(data) + len(iv)) {
		changed := append(bytes.Clone(data), iv...)
		changed[i/8] ^= 1 << (i % 8)
		if got, err := open(t, c, enc(changed[:len(data)]), enc(changed[len(data):])); err == nil {
			t.Errorf("bit %d: %q", i, got)
		}
	}
	for i := range 8 * (len(gnosisPAN) + len(gnosisIV)) {
		text := []byte(gnosisPAN + gnosisIV)
		text[i/8] ^= 1 << (i % 8)
		if got, err := open(t, c, string(text[:len(gnosisPAN)]), string(text[len(gnosisPAN):])); err == nil {
			t.Errorf("text bit %d: %q", i, got)
		}
	}
}

// TestGnosisShape: an IV is the text of 12 bytes and of no other number, also where 16 bytes are what somebody meant.
func TestGnosisShape(t *testing.T) {
	c := gnosisCipher(t, gnosisKeyText)
	for name, v := range map[string]struct{ data, iv string }{
		"IV as 16 bytes": {gnosisPAN, base64.StdEncoding.EncodeToString([]byte(gnosisIV))},
		"IV of 9 bytes":  {gnosisPAN, gnosisIV[:12]},
		"IV of 15 bytes": {gnosisPAN, gnosisIV + "QRST"},
		"15 characters":  {gnosisPAN, gnosisIV[:15]},
		"padding":        {gnosisPAN, gnosisIV[:14] + "=="},
		"URL alphabet":   {gnosisPAN, gnosisIV[:15] + "_"},
		"LF in the IV":   {gnosisPAN, gnosisIV[:15] + "\n"},
		"no IV":          {gnosisPAN, ""},
		"no data":        {"", gnosisIV},
		"15 bytes":       {base64.StdEncoding.EncodeToString(make([]byte, 15)), gnosisIV},
		"too long":       {base64.StdEncoding.EncodeToString(make([]byte, 4097)), gnosisIV},
	} {
		if got, err := open(t, c, v.data, v.iv); err == nil {
			t.Errorf("%s: opened: %q", name, got)
		}
		if err := gnosis(t).CheckSealed(v.data, v.iv); err != envelope.ErrOpen {
			t.Errorf("%s: shape: %v", name, err)
		}
	}
	for n := range 33 {
		if _, _, err := c.Seal(secret.From([]byte("123")), n); (err == nil) != (n == 12 || n == 16) {
			t.Errorf("sealed with an IV of %d bytes: %v", n, err)
		}
	}
	if _, _, err := c.Seal(secret.New(4081), 12); err == nil {
		t.Error("sealed more than can be opened")
	}
}

// TestGnosisIVs: ours are 16 letters and digits, each of which comes, and none comes twice.
func TestGnosisIVs(t *testing.T) {
	c := gnosisCipher(t, gnosisKeyText)
	form, seen, characters := regexp.MustCompile(`^[A-Za-z0-9]{16}$`), map[string]bool{}, map[rune]int{}
	const draws = 2000
	for range draws {
		data, iv, err := c.Seal(secret.From([]byte("4111111111111111")), 16)
		if err != nil || !form.MatchString(iv) || seen[iv] {
			t.Fatalf("%q, %v", iv, err)
		}
		seen[iv] = true
		for _, r := range iv {
			characters[r]++
		}
		if got, err := open(t, c, data, iv); got != "4111111111111111" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	// 516 of each are expected, with a deviation of 23.
	for r, n := range characters {
		if len(characters) != 62 || n < 350 || n > 700 {
			t.Errorf("%d characters, %d of %q", len(characters), n, r)
		}
	}
}

func TestNothingPrintsAGnosisKey(t *testing.T) {
	c := gnosisCipher(t, gnosisKeyText)
	for _, v := range []any{c, &c, struct{ c envelope.Cipher }{c}, []envelope.Cipher{c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			got := fmt.Sprintf(verb, v)
			for _, leak := range []string{"00010203", "0x0, 0x1, 0x2", "0 1 2 3", "50462976", "66051"} {
				if strings.Contains(got, leak) {
					t.Errorf("%s of %T: %s", verb, v, got)
				}
			}
		}
		if got, err := json.Marshal(v); err == nil && len(got) > 4 {
			t.Errorf("JSON of %T: %s", v, got)
		}
	}
}

// FuzzGnosisOpen: nothing opens but what was sealed: not the fuzzer's own texts, and not a sealed field that it changed.
func FuzzGnosisOpen(f *testing.F) {
	c := gnosisCipher(f, gnosisKeyText)
	f.Add([]byte("4111111111111111"), gnosisPAN, gnosisIV, uint16(3), byte(1))
	f.Add([]byte{}, "", "AAAAAAAAAAAAAAA+", uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, plaintext []byte, data, iv string, at uint16, mask byte) {
		if len(plaintext) > 4080 {
			return
		}
		if got, err := open(t, c, data, iv); err == nil && (data != gnosisPAN || iv != gnosisIV) {
			t.Fatalf("%q and %q open: %q", data, iv, got)
		}
		data, iv, err := c.Seal(secret.From(bytes.Clone(plaintext)), 12+4*int(at&1))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := open(t, c, data, iv); err != nil || got != string(plaintext) {
			t.Fatalf("%x became %x: %v", plaintext, got, err)
		}
		text := []byte(data + iv)
		text[int(at)%len(text)] ^= mask
		if got, err := open(t, c, string(text[:len(data)]), string(text[len(data):])); (err == nil) != (mask == 0) {
			t.Fatalf("changed at %d by %#x: %q, %v", at, mask, got, err)
		}
	})
}

// BenchmarkGnosisSeal is once per card upload.
func BenchmarkGnosisSeal(b *testing.B) {
	c, p := gnosisCipher(b, gnosisKeyText), secret.From([]byte("4111111111111111"))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := c.Seal(p, 12); err != nil {
			b.Fatal(err)
		}
	}
}
