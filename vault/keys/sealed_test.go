package keys_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/pem"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault/keys"
)

func loadFIPS(t *testing.T, use keys.Use, sealed []byte, passphrase string) (*keys.Key, error) {
	t.Helper()
	return keys.Load(keys.Config{ID: "k", Use: use, Kind: keys.KindSealed, File: write(t, sealed), PassphraseFile: write(t, []byte(passphrase))})
}

func sealedFIPS(t *testing.T, content []byte) []byte {
	t.Helper()
	sealed, err := keys.SealFIPSFast(content, []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// TestFIPSSealedKeyIsTheSameKey, and its file is what its comment says, opened by hand.
func TestFIPSSealedKeyIsTheSameKey(t *testing.T) {
	content := generate(t, keys.UseDigest)
	sealed := sealedFIPS(t, content)
	k, err := loadFIPS(t, keys.UseDigest, sealed, "correct horse\r\n")
	if err != nil {
		t.Fatal(err)
	}
	isSealed(t, k, content)
	block, _ := pem.Decode(sealed)
	if block == nil || block.Type != "CARDSTILE SEALED KEY" || block.Headers["Iterations"] != "1000" || len(block.Headers) != 1 {
		t.Fatalf("%.80s", sealed)
	}
	salt, nonce, rest := block.Bytes[:16], block.Bytes[16:28], block.Bytes[28:]
	key, err := pbkdf2.Key(sha256.New, "correct horse", salt, 1000, 32)
	if err != nil {
		t.Fatal(err)
	}
	cipherOf, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(cipherOf)
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := gcm.Open(nil, nonce, rest, append([]byte("cardstile sealed key 1 1000"), salt...)); err != nil || !bytes.Equal(opened, content) {
		t.Errorf("by hand: %v", err)
	}
	if bytes.Equal(sealed, sealedFIPS(t, content)) {
		t.Error("sealed twice alike")
	}
	for _, kind := range []string{"pem", "age"} {
		c := keys.Config{ID: "k", Use: keys.UseDigest, Kind: kind, File: write(t, sealed)}
		if kind == "age" {
			c.PassphraseFile = write(t, []byte("correct horse"))
		}
		if _, err := keys.Load(c); err == nil {
			t.Errorf("kind %s takes it", kind)
		}
	}
	age, err := keys.SealFast(content, []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loadFIPS(t, keys.UseDigest, age, "correct horse"); err == nil {
		t.Error("an age file is taken")
	}
	for want, file := range map[string][]byte{keys.KindSealed: sealed, keys.KindAge: age} {
		if got := keys.SealedKind(write(t, file)); got != want {
			t.Errorf("%s is told as %s", want, got)
		}
	}
}

// TestEveryBitOfASealedKeyMatters, and what else is no such file.
func TestEveryBitOfASealedKeyMatters(t *testing.T) {
	content := generate(t, keys.UseDigest)
	sealed := sealedFIPS(t, content)
	block, _ := pem.Decode(sealed)
	for i := range len(block.Bytes) * 8 {
		changed := &pem.Block{Type: block.Type, Headers: block.Headers, Bytes: bytes.Clone(block.Bytes)}
		changed.Bytes[i/8] ^= 1 << (i % 8)
		if _, err := keys.OpenSealed(pem.EncodeToMemory(changed), []byte("correct horse")); err == nil || !strings.Contains(err.Error(), "wrong passphrase") {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
	iterations := func(n string) []byte { return bytes.Replace(sealed, []byte("1000"), []byte(n), 1) }
	for name, c := range map[string]struct {
		sealed           []byte
		passphrase, want string
	}{
		"wrong passphrase":     {sealed, "correct hors", "wrong passphrase"},
		"blank passphrase":     {sealed, "correct horse ", "wrong passphrase"},
		"no passphrase":        {sealed, "\n", "empty passphrase"},
		"other iterations":     {iterations("1001"), "correct horse", "wrong passphrase"},
		"few iterations":       {iterations("999"), "correct horse", "not a sealed key file"},
		"many iterations":      {iterations("20000001"), "correct horse", "not a sealed key file"},
		"no iterations":        {pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}), "correct horse", "not a sealed key file"},
		"another header":       {pem.EncodeToMemory(&pem.Block{Type: block.Type, Headers: map[string]string{"Iterations": "1000", "Use": "x"}, Bytes: block.Bytes}), "correct horse", "not a sealed key file"},
		"cut off":              {pem.EncodeToMemory(&pem.Block{Type: block.Type, Headers: block.Headers, Bytes: block.Bytes[:43]}), "correct horse", "not a sealed key file"},
		"a plain key":          {content, "correct horse", "not a sealed key file"},
		"text before it":       {append([]byte("x\n"), sealed...), "correct horse", "not a sealed key file"},
		"text behind it":       {append(bytes.Clone(sealed), 'x'), "correct horse", "not a sealed key file"},
		"nothing":              {nil, "correct horse", "not a sealed key file"},
		"a key of other use":   {sealedFIPS(t, generate(t, keys.UseAudit)), "correct horse", "inside: the Use header"},
		"another block's name": {bytes.ReplaceAll(sealed, []byte("SEALED KEY"), []byte("CLOSED KEY")), "correct horse", "not a sealed key file"},
	} {
		if _, err := loadFIPS(t, keys.UseDigest, c.sealed, c.passphrase); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	for name, err := range map[string]error{
		"nothing":       errorOf(keys.SealFIPS(nil, []byte("p"))),
		"no passphrase": errorOf(keys.SealFIPS([]byte("c"), nil)),
		"too long":      errorOf(keys.SealFIPS(make([]byte, 1<<16+1), []byte("p"))),
	} {
		if err == nil {
			t.Errorf("sealed: %s", name)
		}
	}
}

func errorOf(_ []byte, err error) error { return err }

// TestFIPSSealIsStrong makes one file with the published function: its iterations must not be a test's.
func TestFIPSSealIsStrong(t *testing.T) {
	sealed, err := keys.SealFIPS(generate(t, keys.UseDigest), []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(sealed, []byte("\nIterations: 1000000\n")) {
		t.Errorf("%.80s", sealed)
	}
}

func TestFIPSSealOpens(t *testing.T) {
	if _, err := loadFIPS(t, keys.UseDigest, sealedFIPS(t, generate(t, keys.UseDigest)), "correct horse"); err != nil {
		t.Error(err)
	}
}

// TestCAKeySealedEitherWay: a CA's file says itself how it is sealed.
func TestCAKeySealedEitherWay(t *testing.T) {
	content, err := keys.GenerateCA("P-256")
	if err != nil {
		t.Fatal(err)
	}
	for _, seal := range []func(content, passphrase []byte) ([]byte, error){keys.SealFast, keys.SealFIPSFast} {
		sealed, err := seal(content, []byte("correct horse"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keys.LoadCA(write(t, sealed), write(t, []byte("correct horse\n"))); err != nil {
			t.Error(err)
		}
		if _, err := keys.LoadCA(write(t, sealed), write(t, []byte("correct hors\n"))); err == nil {
			t.Error("opened with another passphrase")
		}
	}
}

// TestSealedUnderFIPSOnly seals and opens where nothing but what FIPS 140-3 approves may be used.
func TestSealedUnderFIPSOnly(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestFIPSSealOpens$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestFIPSSealOpens") {
		t.Errorf("%v\n%s", err, out)
	}
}
