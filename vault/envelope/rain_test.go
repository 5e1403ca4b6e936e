package envelope_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/internal/secret"
)

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// The contract's session key, and the text of it that clients wrap.
const (
	keyHex  = "00112233445566778899aabbccddeeff"
	keyText = "ABEiM0RVZneImaq7zN3u/w=="
	longIV  = "AAECAwQFBgcICQoLDA0ODw=="
	shortIV = "AAECAwQFBgcICQoL"
)

var contract = []struct{ plaintext, data, iv string }{
	{"4111111111111111", "jU4N3mQL8S3dzwZvTBLumI9YzpnpNOHDCHb5mV+hgok=", longIV},
	{"123", "iE0P/HJ++NeHTG6Ljo69T5u+ew==", longIV},
	{"241234FFFFFFFFFF", "i0sN3WYOhlqquHEYO2WZ7yhgkk34LZ8v4vY5iWy8KGE=", longIV},
	{"4111111111111111", "H+QG9Z+mvlGuCRiuIbxw3NIJqZO6XAB1te3ZdhmTXjA=", shortIV},
}

func rain(t testing.TB) envelope.Format {
	t.Helper()
	f, err := envelope.ByName("rain")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func contractCipher(t testing.TB) envelope.Cipher {
	t.Helper()
	raw, err := hex.DecodeString(keyHex)
	if err != nil {
		t.Fatal(err)
	}
	key := secret.From(raw)
	defer key.Destroy() // a cipher keeps no reference
	c, err := rain(t).NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, c envelope.Cipher, data, iv string) (string, error) {
	t.Helper()
	p, err := c.Open(data, iv)
	if err != nil {
		if err != envelope.ErrOpen || p != nil {
			t.Errorf("failed with %v and %v, want ErrOpen alone", err, p)
		}
		return "", err
	}
	defer p.Destroy()
	return string(p.Bytes()), nil
}

func wrapped(t testing.TB, text string, h hash.Hash, label string) []byte {
	t.Helper()
	p, err := rsa.EncryptOAEP(h, rand.Reader, &rsaKey().PublicKey, []byte(text), []byte(label))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestKinds is the contract of every format: names, a wrapped key unwraps, what one side seals the other opens.
func TestKinds(t *testing.T) {
	if got := envelope.Names(); !slices.Equal(got, []string{"gnosis", "rain"}) {
		t.Fatalf("formats are %v", got)
	}
	for _, name := range envelope.Names() {
		f, err := envelope.ByName(name)
		if err != nil || f.Name() != name {
			t.Errorf("%s is called %s: %v", name, f.Name(), err)
		}
		key, text, err := f.Wrap(&rsaKey().PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		preamble, err := f.ParsePreamble(text, 256)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Unwrap(rsaKey(), 256, preamble)
		if err != nil || !got.Equal(key) {
			t.Fatalf("another key: %v", err)
		}
		ours, err := f.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := f.NewCipher(got)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{12, 16} {
			data, iv, err := ours.Seal(secret.From([]byte("4111111111111111")), n)
			if err != nil {
				t.Fatal(err)
			}
			want := n
			if name == "gnosis" { // has one length
				want = 12
			}
			if p, err := open(t, theirs, data, iv); p != "4111111111111111" || base64.StdEncoding.EncodedLen(want) != len(iv) {
				t.Errorf("%s, IV of %d bytes: %q, %v", name, n, p, err)
			}
			if err := f.CheckSealed(data, iv); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := envelope.ByName("rein"); err == nil || !strings.Contains(err.Error(), "known are gnosis, rain") {
		t.Errorf("unknown format: %v", err)
	}
	for _, f := range []envelope.Format{rain(t), gnosis(t)} {
		if got := f.Legacy(); !slices.Equal(got, []string{envelope.OAEPSHA1}) || envelope.OAEPSHA1 != "oaep-sha1" {
			t.Errorf("legacy of %s is %v", f.Name(), got)
		}
	}
}

func TestContractVectors(t *testing.T) {
	c := contractCipher(t)
	for _, v := range contract {
		if got, err := open(t, c, v.data, v.iv); got != v.plaintext {
			t.Errorf("%s under %s: %q, %v", v.data, v.iv, got, err)
		}
	}
	// The OAEP plaintext is the text of the key.
	key, err := rain(t).Unwrap(rsaKey(), 256, wrapped(t, keyText, sha1.New(), ""))
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	if got := hex.EncodeToString(key.Bytes()); got != keyHex {
		t.Errorf("key is %s", got)
	}
}

// TestWrapIsTheTextOfTheKey reads a preamble of ours as an issuer does: base64, OAEP with SHA-1, base64 again.
func TestWrapIsTheTextOfTheKey(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		key, preamble, err := rain(t).Wrap(&rsaKey().PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(preamble)
		if err != nil {
			t.Fatal(err)
		}
		text, err := rsa.DecryptOAEP(sha1.New(), nil, rsaKey(), raw, nil)
		if err != nil || string(text) != base64.StdEncoding.EncodeToString(key.Bytes()) || len(text) != 24 {
			t.Errorf("%q, %v", text, err)
		}
		if seen[string(text)] {
			t.Error("a key was used twice")
		}
		seen[string(text)] = true
		key.Destroy()
	}
	if _, _, err := rain(t).Wrap(&rsa.PublicKey{N: rsaKey().N, E: 2}); err == nil {
		t.Error("wrapped for an impossible key")
	}
}

func TestParsePreamble(t *testing.T) {
	text := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, n)) }
	for name, in := range map[string]string{
		"empty":                "",
		"not base64":           strings.Repeat("!", 344),
		"URL alphabet":         strings.NewReplacer("/", "_").Replace(text(256)),
		"no padding":           strings.TrimRight(text(256), "="),
		"double padding":       text(256) + "==",
		"padding alone":        "====",
		"unused bits":          text(256)[:341] + "x==",
		"LF inside":            text(256)[:100] + "\n" + text(256)[101:],
		"LF at the end":        text(255) + "\n",
		"CR inside":            text(90)[:60] + "\r\n" + text(90)[60:],
		"blank before":         " " + text(90),
		"one byte more":        text(257),
		"two bytes more":       text(258),
		"far more":             text(100_000),
		"zero byte":            text(90) + "\x00\x00\x00\x00",
		"comma of two":         text(90) + "," + text(90),
		"not ASCII":            "ＡＡＡＡ",
		"padding in the midst": "AA==AAAA",
	} {
		if p, err := rain(t).ParsePreamble(in, 256); err != envelope.ErrPreamble || p != nil {
			t.Errorf("%s: %d bytes, %v", name, len(p), err)
		}
	}
	huge := strings.Repeat("A", 1<<20)
	if n := testing.AllocsPerRun(10, func() { _, _ = rain(t).ParsePreamble(huge, 256) }); n != 0 {
		t.Errorf("a text of 1 MiB cost %v allocations: it must be refused by its length", n)
	}
	for _, n := range []int{1, 128, 254, 255, 256} { // what is too short fails later, when it is opened
		if p, err := rain(t).ParsePreamble(text(n), 256); err != nil || len(p) != n {
			t.Errorf("%d bytes: %d, %v", n, len(p), err)
		}
	}
}

// counting is a Decrypter that says how often it was asked.
type counting struct {
	crypto.Decrypter
	calls int
}

func (c *counting) Decrypt(r io.Reader, msg []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	c.calls++
	return c.Decrypter.Decrypt(r, msg, opts)
}

// TestUnwrapFailuresLookAlike: every wrong preamble gives the same bare error; a wrong length costs no RSA operation.
func TestUnwrapFailuresLookAlike(t *testing.T) {
	good := wrapped(t, keyText, sha1.New(), "")
	flip := func(i int) []byte {
		p := bytes.Clone(good)
		p[i/8] ^= 1 << (i % 8)
		return p
	}
	cases := map[string]struct {
		preamble []byte
		rsa      int
	}{
		"empty":             {nil, 0},
		"a byte less":       {good[:255], 0},
		"a byte more":       {append(bytes.Clone(good), 0), 0},
		"a zero before":     {append([]byte{0}, good...), 0},
		"1024 bits":         {good[:128], 0},
		"zeros":             {make([]byte, 256), 1},
		"above the modulus": {bytes.Repeat([]byte{0xff}, 256), 1},
		"SHA-256":           {wrapped(t, keyText, sha256.New(), ""), 1},
		"a label":           {wrapped(t, keyText, sha1.New(), "label"), 1},
		"raw key":           {wrapped(t, string(make([]byte, 16)), sha1.New(), ""), 1},
		"hexadecimal key":   {wrapped(t, keyHex, sha1.New(), ""), 1},
		"nothing inside":    {wrapped(t, "", sha1.New(), ""), 1},
		"15 bytes":          {wrapped(t, base64.StdEncoding.EncodeToString(make([]byte, 15)), sha1.New(), ""), 1},
		"17 bytes":          {wrapped(t, base64.StdEncoding.EncodeToString(make([]byte, 17)), sha1.New(), ""), 1},
		"18 bytes":          {wrapped(t, base64.StdEncoding.EncodeToString(make([]byte, 18)), sha1.New(), ""), 1},
		"32 bytes":          {wrapped(t, base64.StdEncoding.EncodeToString(make([]byte, 32)), sha1.New(), ""), 1},
		"unused bits":       {wrapped(t, "ABEiM0RVZneImaq7zN3u/x==", sha1.New(), ""), 1},
		"no padding":        {wrapped(t, "ABEiM0RVZneImaq7zN3u/w", sha1.New(), ""), 1},
		"URL alphabet":      {wrapped(t, "ABEiM0RVZneImaq7zN3u_w==", sha1.New(), ""), 1},
		"LF":                {wrapped(t, "ABEiM0RVZneImaq7zN3u/w==\n", sha1.New(), ""), 1},
		"LF inside":         {wrapped(t, "ABEiM0RVZneImaq7zN3u/w=\n", sha1.New(), ""), 1},
	}
	for i := 0; i < 2048; i += 61 { // a bit of most bytes; each is an RSA operation
		cases[fmt.Sprintf("bit %d", i)] = struct {
			preamble []byte
			rsa      int
		}{flip(i), 1}
	}
	for name, c := range cases {
		d := &counting{Decrypter: rsaKey()}
		key, err := rain(t).Unwrap(d, 256, c.preamble)
		if err != envelope.ErrOpen || key != nil {
			t.Errorf("%s: %v, %v", name, key, err)
		}
		if d.calls != c.rsa {
			t.Errorf("%s: %d RSA operations, want %d", name, d.calls, c.rsa)
		}
	}
	if got := envelope.ErrOpen.Error(); got != "cannot be opened" {
		t.Errorf("ErrOpen says %q", got)
	}
}

// TestEveryBitOfAFieldMatters flips each bit of ciphertext, tag and IV, and of their texts.
func TestEveryBitOfAFieldMatters(t *testing.T) {
	c := contractCipher(t)
	for _, v := range contract {
		data, _ := base64.StdEncoding.DecodeString(v.data)
		iv, _ := base64.StdEncoding.DecodeString(v.iv)
		enc := base64.StdEncoding.EncodeToString
		for i := range 8 * len(data) {
			changed := bytes.Clone(data)
			changed[i/8] ^= 1 << (i % 8)
			if got, err := open(t, c, enc(changed), v.iv); err == nil {
				t.Errorf("data bit %d: %q", i, got)
			}
		}
		for i := range 8 * len(iv) {
			changed := bytes.Clone(iv)
			changed[i/8] ^= 1 << (i % 8)
			if got, err := open(t, c, v.data, enc(changed)); err == nil {
				t.Errorf("IV bit %d: %q", i, got)
			}
		}
		for i := range 8 * (len(v.data) + len(v.iv)) {
			text := []byte(v.data + v.iv)
			text[i/8] ^= 1 << (i % 8)
			if got, err := open(t, c, string(text[:len(v.data)]), string(text[len(v.data):])); err == nil {
				t.Errorf("text bit %d: %q", i, got)
			}
		}
		for n := range data {
			if got, err := open(t, c, enc(data[:n]), v.iv); err == nil {
				t.Errorf("cut to %d: %q", n, got)
			}
		}
	}
}

func TestIVLengths(t *testing.T) {
	c := contractCipher(t)
	for n := range 65 {
		_, iv, err := c.Seal(secret.From([]byte("123")), n)
		if ok := n == 12 || n == 16; (err == nil) != ok {
			t.Errorf("sealed with an IV of %d bytes: %q, %v", n, iv, err)
		}
		text := base64.StdEncoding.EncodeToString(make([]byte, n))
		if _, err := open(t, c, contract[1].data, text); err == nil {
			t.Errorf("opened with %d zero bytes", n)
		}
		if err := rain(t).CheckSealed(contract[1].data, text); (err == nil) != (n == 12 || n == 16) {
			t.Errorf("shape with an IV of %d bytes: %v", n, err)
		}
	}
}

// TestFieldsExchanged: data and IV of one seal do not open with those of another, nor under another key.
func TestFieldsExchanged(t *testing.T) {
	c := contractCipher(t)
	for i, v := range contract {
		for j, w := range contract {
			if got, err := open(t, c, v.data, w.iv); (err == nil) != (v.iv == w.iv) {
				t.Errorf("%d with the IV of %d: %q, %v", i, j, got, err)
			}
		}
		if got, err := open(t, c, v.iv, v.data); err == nil {
			t.Errorf("%d the wrong way round: %q", i, got)
		}
	}
	other, err := rain(t).NewCipher(secret.From(bytes.Repeat([]byte{1}, 16)))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := open(t, other, contract[0].data, contract[0].iv); err == nil {
		t.Errorf("opened under another key: %q", got)
	}
}

func TestSealedShape(t *testing.T) {
	c := contractCipher(t)
	good := contract[0]
	for name, v := range map[string]struct{ data, iv string }{
		"no data":         {"", good.iv},
		"no IV":           {good.data, ""},
		"15 bytes":        {base64.StdEncoding.EncodeToString(make([]byte, 15)), good.iv},
		"LF in data":      {good.data[:8] + "\n" + good.data[8:], good.iv},
		"CRLF after data": {good.data + "\r\n", good.iv},
		"LF in IV":        {good.data, good.iv[:8] + "\n" + good.iv[8:]},
		"LF for padding":  {good.data, good.iv[:23] + "\n"},
		"no padding":      {strings.TrimRight(good.data, "="), good.iv},
		"unused bits":     {good.data, "AAECAwQFBgcICQoLDA0ODx=="},
		"URL alphabet":    {strings.ReplaceAll(good.data, "+", "-"), good.iv},
		"too long":        {base64.StdEncoding.EncodeToString(make([]byte, 4097)), good.iv},
		"far too long":    {strings.Repeat("A", 1<<20), good.iv},
		"IV far too long": {good.data, strings.Repeat("A", 1<<20)},
	} {
		if got, err := open(t, c, v.data, v.iv); err == nil {
			t.Errorf("%s: opened: %q", name, got)
		}
		if err := rain(t).CheckSealed(v.data, v.iv); err != envelope.ErrOpen {
			t.Errorf("%s: shape: %v", name, err)
		}
	}
	if _, _, err := c.Seal(secret.New(4081), 16); err == nil {
		t.Error("sealed more than can be opened")
	}
	data, iv, err := c.Seal(secret.New(4080), 16)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := open(t, c, data, iv); len(got) != 4080 {
		t.Errorf("the longest field: %d bytes, %v", len(got), err)
	}
}

func TestKeyLengths(t *testing.T) {
	for n := range 65 {
		if _, err := rain(t).NewCipher(secret.New(n)); (err == nil) != (n == 16) || n != 16 && err != envelope.ErrOpen {
			t.Errorf("a key of %d bytes: %v", n, err)
		}
	}
}

func TestFreshIVs(t *testing.T) {
	c := contractCipher(t)
	seen := map[string]bool{}
	for range 500 {
		for _, n := range []int{12, 16} {
			_, iv, err := c.Seal(secret.From([]byte("123")), n)
			if err != nil || seen[iv] {
				t.Fatalf("IV %s came again: %v", iv, err)
			}
			seen[iv] = true
		}
	}
}

func TestCipherAtOnce(t *testing.T) {
	c := contractCipher(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			want := strings.Repeat(fmt.Sprint(i), 12+i)
			for j := range 200 {
				p := secret.From([]byte(want))
				data, iv, err := c.Seal(p, 12+4*(j%2))
				p.Destroy()
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := open(t, c, data, iv); got != want {
					t.Errorf("got %q, want %q: %v", got, want, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestNothingPrintsTheKey(t *testing.T) {
	c := contractCipher(t)
	for _, v := range []any{c, &c, struct{ c envelope.Cipher }{c}, struct{ p *envelope.Cipher }{&c}, struct{ s struct{ c envelope.Cipher } }{struct{ c envelope.Cipher }{c}}, []envelope.Cipher{c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			got := fmt.Sprintf(verb, v)
			for _, leak := range []string{keyHex[:12], "17 34 51", "0x11, 0x22", "34 33 17 0", "857870592", "1122867", "33221100"} {
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

func TestSealOpenIdentity(t *testing.T) {
	c := contractCipher(t)
	rapid.Check(t, func(rt *rapid.T) {
		p := rapid.SliceOf(rapid.Byte()).Draw(rt, "plaintext")
		n := rapid.SampledFrom([]int{12, 16}).Draw(rt, "iv")
		data, iv, err := c.Seal(secret.From(bytes.Clone(p)), n)
		if err != nil {
			rt.Fatal(err)
		}
		if got, err := open(t, c, data, iv); err != nil || got != string(p) {
			rt.Fatalf("%x became %x: %v", p, got, err)
		}
	})
}

// FuzzParsePreamble: what is accepted has one text, which is the one that was read, and is within its bound.
func FuzzParsePreamble(f *testing.F) {
	f.Add("AAEC", 256)
	f.Add(base64.StdEncoding.EncodeToString(make([]byte, 256)), 256)
	f.Add("AA=\n", 3)
	f.Fuzz(func(t *testing.T, text string, bound int) {
		bound = (bound%1024 + 1024) % 1024
		p, err := rain(t).ParsePreamble(text, bound)
		if err != nil {
			if err != envelope.ErrPreamble {
				t.Fatal(err)
			}
			if q, err := base64.StdEncoding.Strict().DecodeString(text); err == nil && len(q) > 0 && len(q) <= bound && !strings.ContainsAny(text, "\r\n") {
				t.Fatalf("%q refused", text)
			}
			return
		}
		if len(p) == 0 || len(p) > bound || base64.StdEncoding.EncodeToString(p) != text {
			t.Fatalf("%q became %x", text, p)
		}
	})
}

// FuzzOpen: nothing opens but what was sealed: not the fuzzer's own texts, and not a sealed field that it changed.
func FuzzOpen(f *testing.F) {
	for _, v := range contract {
		f.Add([]byte(v.plaintext), v.data, v.iv, uint16(3), byte(1))
	}
	f.Fuzz(func(t *testing.T, plaintext []byte, data, iv string, at uint16, mask byte) {
		if len(plaintext) > 4080 {
			return
		}
		c := contractCipher(t)
		for _, v := range contract {
			if data == v.data && iv == v.iv {
				data = ""
			}
		}
		if got, err := open(t, c, data, iv); err == nil {
			t.Fatalf("%q and %q open: %q", data, iv, got)
		}
		n := 12 + 4*int(at&1)
		data, iv, err := c.Seal(secret.From(bytes.Clone(plaintext)), n)
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

// Per reveal: one Unwrap and one Wrap, and for each field an Open and a Seal.
func BenchmarkUnwrap(b *testing.B) {
	p := wrapped(b, keyText, sha1.New(), "")
	f := rain(b)
	b.ReportAllocs()
	for b.Loop() {
		k, err := f.Unwrap(rsaKey(), 256, p)
		if err != nil {
			b.Fatal(err)
		}
		k.Destroy()
	}
}

func BenchmarkWrap(b *testing.B) {
	f := rain(b)
	b.ReportAllocs()
	for b.Loop() {
		k, _, err := f.Wrap(&rsaKey().PublicKey)
		if err != nil {
			b.Fatal(err)
		}
		k.Destroy()
	}
}

func BenchmarkNewCipher(b *testing.B) {
	f, key := rain(b), secret.New(16)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.NewCipher(key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	c, p := contractCipher(b), secret.From([]byte("4111111111111111"))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := c.Seal(p, 16); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	c := contractCipher(b)
	b.ReportAllocs()
	for b.Loop() {
		p, err := c.Open(contract[0].data, contract[0].iv)
		if err != nil {
			b.Fatal(err)
		}
		p.Destroy()
	}
}
