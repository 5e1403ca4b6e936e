package keys_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault/keys"
)

func loadSealed(t *testing.T, use keys.Use, sealed []byte, passphrase string) (*keys.Key, error) {
	t.Helper()
	return keys.Load(keys.Config{ID: "k", Use: use, Kind: "age", File: write(t, sealed), PassphraseFile: write(t, []byte(passphrase))})
}

func TestSealedKeyIsTheSameKey(t *testing.T) {
	content := generate(t, keys.UseDigest)
	sealed, err := keys.SealFast(content, []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(sealed, []byte("-----BEGIN AGE ENCRYPTED FILE-----\n")) {
		t.Errorf("not armored: %.40s", sealed)
	}
	if bytes.Contains(sealed, content[40:60]) {
		t.Error("the file shows its content")
	}
	k, err := loadSealed(t, keys.UseDigest, sealed, "correct horse\n")
	if err != nil {
		t.Fatal(err)
	}
	isSealed(t, k, content)
}

// isSealed reports a key that is not that of a plain file, or counts as plain.
func isSealed(t *testing.T, k *keys.Key, content []byte) {
	t.Helper()
	if k.Plain() {
		t.Error("a sealed key counts as plain")
	}
	a, err := k.MAC("label")
	if err != nil {
		t.Fatal(err)
	}
	b, err := load(t, keys.UseDigest, content).MAC("label")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.MAC(nil, []byte("m")), b.MAC(nil, []byte("m"))) {
		t.Error("sealing changed the key")
	}
}

func TestSealedKeyRefused(t *testing.T) {
	sealed, err := keys.SealFast(generate(t, keys.UseDigest), []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		use        keys.Use
		sealed     []byte
		passphrase string
		want       string
	}{
		"wrong passphrase":  {keys.UseDigest, sealed, "correct hors", "wrong passphrase"},
		"blank passphrase":  {keys.UseDigest, sealed, "correct horse ", "wrong passphrase"},
		"empty passphrase":  {keys.UseDigest, sealed, "\n", "empty passphrase"},
		"another use":       {keys.UseAudit, sealed, "correct horse", "inside: the Use header"},
		"cut off":           {keys.UseDigest, sealed[:len(sealed)-60], "correct horse", "wrong passphrase"},
		"plain inside":      {keys.UseDigest, generate(t, keys.UseDigest), "correct horse", "not an age file"},
		"changed in middle": {keys.UseDigest, flipped(sealed, len(sealed)/2), "correct horse", "wrong passphrase"},
	} {
		_, err := loadSealed(t, c.use, c.sealed, c.passphrase)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: the error quotes the passphrase: %v", name, err)
		}
	}
}

// flipped changes the first letter at or after i to its other case.
func flipped(p []byte, i int) []byte {
	p = bytes.Clone(p)
	for ; ; i++ {
		if c := p[i] | 0x20; c >= 'a' && c <= 'z' {
			p[i] ^= 0x20
			return p
		}
	}
}

func TestSealRefuses(t *testing.T) {
	if _, err := keys.Seal(nil, []byte("p")); err == nil {
		t.Error("empty content sealed")
	}
	if _, err := keys.Seal([]byte("c"), nil); err == nil {
		t.Error("sealed with an empty passphrase")
	}
	if _, err := keys.Seal(make([]byte, 1<<16+1), []byte("p")); err == nil {
		t.Error("sealed what cannot be loaded")
	}
}

// TestSealIsAgesOwnStrength makes one file with the published function: its work factor must not be a test's.
func TestSealIsAgesOwnStrength(t *testing.T) {
	sealed, err := keys.Seal(generate(t, keys.UseDigest), []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if got := scryptWorkFactor(t, sealed); got != "18" {
		t.Errorf("work factor is 2^%s", got)
	}
}
