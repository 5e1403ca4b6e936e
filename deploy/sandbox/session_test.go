package sandbox

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// testKey is one key for all tests: making one takes as long as all of them together.
var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// contractVectors are those of the contract's page on session encryption, under the secret vectorSecret.
var contractVectors = []struct{ iv, text, data string }{
	{"AAECAwQFBgcICQoLDA0ODw==", "4111111111111111", "jU4N3mQL8S3dzwZvTBLumI9YzpnpNOHDCHb5mV+hgok="},
	{"AAECAwQFBgcICQoLDA0ODw==", "123", "iE0P/HJ++NeHTG6Ljo69T5u+ew=="},
	{"AAECAwQFBgcICQoLDA0ODw==", "241234FFFFFFFFFF", "i0sN3WYOhlqquHEYO2WZ7yhgkk34LZ8v4vY5iWy8KGE="},
	{"AAECAwQFBgcICQoL", "4111111111111111", "H+QG9Z+mvlGuCRiuIbxw3NIJqZO6XAB1te3ZdhmTXjA="},
}

const vectorSecret = "00112233445566778899aabbccddeeff"

func vectorSession(t *testing.T) *Session {
	t.Helper()
	secret, err := hex.DecodeString(vectorSecret)
	if err != nil {
		t.Fatal(err)
	}
	s, err := wrap(&testKey().PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContractVectors(t *testing.T) {
	s := vectorSession(t)
	for _, v := range contractVectors {
		iv, err := base64.StdEncoding.DecodeString(v.iv)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.seal(v.text, iv); got != (Sealed{IV: v.iv, Data: v.data}) {
			t.Errorf("seal %q with %d-byte IV = %+v, want %q", v.text, len(iv), got, v.data)
		}
		if got, err := s.Open(Sealed{IV: v.iv, Data: v.data}); got != v.text || err != nil {
			t.Errorf("open %q = %q, %v, want %q", v.data, got, err, v.text)
		}
	}
}

func TestSessionIDWrapsTheTextOfTheSecret(t *testing.T) {
	wrapped, err := base64.StdEncoding.DecodeString(vectorSession(t).ID())
	if err != nil {
		t.Fatal(err)
	}
	text, err := rsa.DecryptOAEP(sha1.New(), nil, testKey(), wrapped, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := "ABEiM0RVZneImaq7zN3u/w=="; string(text) != want {
		t.Errorf("wrapped text = %q, want %q", text, want)
	}
}

func TestBothSidesOfASessionUnderstandEachOther(t *testing.T) {
	device, err := NewSession(&testKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := unwrap(testKey(), device.ID())
	if err != nil {
		t.Fatal(err)
	}
	sealed := issuer.Seal("4111111111111111")
	if got, err := device.Open(sealed); got != "4111111111111111" || err != nil {
		t.Errorf("device read %q, %v", got, err)
	}
	if again := issuer.Seal("4111111111111111"); again.IV == sealed.IV || again.Data == sealed.Data {
		t.Error("two seals of one text share an IV or a ciphertext")
	}
	pin, err := device.SealPIN("8524")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := issuer.OpenPIN(pin); got != "8524" || err != nil {
		t.Errorf("issuer read PIN %q, %v", got, err)
	}
	other, err := NewSession(&testKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := other.Open(sealed); err == nil {
		t.Errorf("another session read %q", got)
	}
}

func TestOpenRefusesEveryFlippedBit(t *testing.T) {
	s := vectorSession(t)
	for _, v := range contractVectors {
		flipEachBit(t, v.data, func(data string) {
			if got, err := s.Open(Sealed{IV: v.iv, Data: data}); err == nil {
				t.Errorf("opened %q as %q", data, got)
			}
		})
		flipEachBit(t, v.iv, func(iv string) {
			if got, err := s.Open(Sealed{IV: iv, Data: v.data}); err == nil {
				t.Errorf("opened with IV %q as %q", iv, got)
			}
		})
	}
}

func flipEachBit(t *testing.T, text string, try func(string)) {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		try(base64.StdEncoding.EncodeToString(b))
		b[i/8] ^= 1 << (i % 8)
	}
}

func TestOpenRefusesWhatIsNotSealed(t *testing.T) {
	s := vectorSession(t)
	good := s.Seal("123")
	for name, v := range map[string]Sealed{
		"no IV":             {Data: good.Data},
		"no data":           {IV: good.IV},
		"IV of 11 bytes":    {IV: base64.StdEncoding.EncodeToString(make([]byte, 11)), Data: good.Data},
		"IV of 13 bytes":    {IV: base64.StdEncoding.EncodeToString(make([]byte, 13)), Data: good.Data},
		"IV of 32 bytes":    {IV: base64.StdEncoding.EncodeToString(make([]byte, 32)), Data: good.Data},
		"tag alone":         {IV: good.IV, Data: base64.StdEncoding.EncodeToString(make([]byte, tagBytes))},
		"shorter than tag":  {IV: good.IV, Data: "AAAA"},
		"URL alphabet":      {IV: "-_-_-_-_-_-_-_-_-_-_-w==", Data: good.Data},
		"bits left over":    {IV: "AAECAwQFBgcICQoLDA0ODx==", Data: "iE0P/HJ++NeHTG6Ljo69T5u+ew=="},
		"without padding":   {IV: strings.TrimRight(good.IV, "="), Data: good.Data},
		"fields exchanged":  {IV: good.Data, Data: good.IV},
		"a line feed after": {IV: good.IV + "\n", Data: good.Data + "="},
	} {
		if got, err := s.Open(v); err == nil {
			t.Errorf("%s: opened as %q", name, got)
		}
	}
}

func TestUnwrapRefusesWhatIsNotASession(t *testing.T) {
	pub := &testKey().PublicKey
	seal := func(text string) string {
		wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(wrapped)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := NewSession(&other.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	good := vectorSession(t).ID()
	for name, id := range map[string]string{
		"nothing":                  "",
		"not base64":               "not a session",
		"short":                    base64.StdEncoding.EncodeToString(make([]byte, 255)),
		"long":                     base64.StdEncoding.EncodeToString(make([]byte, 257)),
		"zeros":                    base64.StdEncoding.EncodeToString(make([]byte, 256)),
		"for another key":          foreign.ID(),
		"bytes in place of text":   seal("0123456789abcdef"),
		"hex in place of base64":   seal(vectorSecret),
		"secret of 15 bytes":       seal(base64.StdEncoding.EncodeToString(make([]byte, 15))),
		"secret of 32 bytes":       seal(base64.StdEncoding.EncodeToString(make([]byte, 32))),
		"empty secret":             seal(""),
		"padding inside the text":  seal("ABEiM0RVZneImaq7zN3u/w=="[:22]),
		"good, cut by one quantum": good[:len(good)-4],
	} {
		if _, err := unwrap(testKey(), id); err != errSession {
			t.Errorf("%s: error = %v, want %v", name, err, errSession)
		}
	}
	if _, err := unwrap(testKey(), good); err != nil {
		t.Errorf("good: %v", err)
	}
}

// TestUnwrapRefusesALeadingZeroLeftOut: the wrapped secret is as long as the modulus (RFC 8017, section 7.1.2, step 1b), even where the
// number would be the same without its first byte. About one in 256 begins with a zero.
func TestUnwrapRefusesALeadingZeroLeftOut(t *testing.T) {
	for {
		s := vectorSession(t)
		wrapped, err := base64.StdEncoding.DecodeString(s.ID())
		if err != nil {
			t.Fatal(err)
		}
		if wrapped[0] != 0 {
			continue
		}
		if _, err := unwrap(testKey(), s.ID()); err != nil {
			t.Errorf("whole: %v", err)
		}
		if _, err := unwrap(testKey(), base64.StdEncoding.EncodeToString(wrapped[1:])); err == nil {
			t.Error("opened without its leading zero")
		}
		return
	}
}

func TestPINBlock(t *testing.T) {
	for pin, block := range map[string]string{
		"1234": "241234FFFFFFFFFF", "123456": "26123456FFFFFFFF", "123456789012": "2c123456789012FF",
	} {
		if got := pinBlock(pin); got != block {
			t.Errorf("block of %s = %s, want %s", pin, got, block)
		}
		if got, err := parseBlock(block); got != pin || err != nil {
			t.Errorf("PIN of %s = %s, %v, want %s", block, got, err, pin)
		}
	}
	for _, block := range []string{
		"", "241234FFFFFFFFF", "241234FFFFFFFFFFF", "231234FFFFFFFFFF", "251234FFFFFFFFFF", "141234FFFFFFFFFF", "23123FFFFFFFFFFF",
		"2d1234567890123F", "2412F4FFFFFFFFFF", "241234ffffffffff", "241234FFFFFFFFF0", "2C123456789012FF", "24123aFFFFFFFFFF",
		"2é1234FFFFFFFFF",
	} {
		if got, err := parseBlock(block); err == nil {
			t.Errorf("parsed %q as %q", block, got)
		}
	}
	for _, pin := range []string{"", "123", "1234567890123", "12a4"} {
		if _, err := vectorSession(t).SealPIN(pin); err == nil {
			t.Errorf("sealed %q as a PIN", pin)
		}
	}
}

func TestWeak(t *testing.T) {
	for pin, want := range map[string]bool{
		"0000": true, "999999": true, "1234": true, "4321": true, "7890": true, "2109": true, "123456789012": true,
		"8524": false, "1235": false, "1123": false, "0001": false, "1357": false, "1212": false,
	} {
		if got := weak(pin); got != want {
			t.Errorf("weak(%s) = %v, want %v", pin, got, want)
		}
	}
}

func TestRandomCards(t *testing.T) {
	seen := make(map[string]bool)
	for i := range 500 {
		c := RandomCard(fmt.Sprint("card-", i), "")
		if _, err := c.check(); err != nil {
			t.Fatal(err)
		}
		if len(c.PAN) != 16 || !strings.HasPrefix(c.PAN, testBIN) || len(c.CVC) != 3 || len(c.PIN) != 4 || weak(c.PIN) || weak(c.CVC) {
			t.Fatalf("card %d: PAN %s, CVC %s, PIN %s", i, c.PAN, c.CVC, c.PIN)
		}
		if seen[c.PAN] {
			t.Fatalf("card %d: its number came before", i)
		}
		seen[c.PAN] = true
	}
	if got := RandomCard("x", "5555555555554444").PAN; got != "5555555555554444" {
		t.Errorf("chosen number became %s", got)
	}
}

// TestCheckDigit uses the example of ISO/IEC 7812-1 and the numbers that card schemes publish for tests.
func TestCheckDigit(t *testing.T) {
	for _, pan := range []string{"49927398716", "4111111111111111", "5555555555554444", "378282246310005", "6011111111111117"} {
		if got := checkDigit(pan[:len(pan)-1]); got != pan[len(pan)-1:] {
			t.Errorf("check digit of %s = %s", pan[:len(pan)-1], got)
		}
	}
}

func TestCardPrintsAsItsID(t *testing.T) {
	c := RandomCard("card-1", "")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{c, &c, []Card{c}} {
			if out := fmt.Sprintf(verb, v); strings.Contains(out, c.PAN) || strings.Contains(out, fmt.Sprintf("%x", c.PAN)) || !strings.Contains(out, "card-1") {
				t.Errorf("%s of %T printed %s", verb, v, out)
			}
		}
	}
}
