package keys_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault/keys"
)

// TestCheckValue: PaymentsGate's partners read it as the digest's text; OAEP's other parameters do not.
func TestCheckValue(t *testing.T) {
	k := load(t, keys.UseSession, sessionPEM())
	d, err := k.Decrypter()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("400010AZNtruecard"))
	const text = "c9570bc1d0e06776ffac8c0d8debc7cf7e666d6102f6430d75f736afcc3bfd57" // the contract's
	seen := map[string]bool{}
	for range 3 {
		value, err := keys.CheckValue(k.Public(), digest)
		if err != nil || len(value) != 344 || seen[value] {
			t.Fatalf("%s, %v", value, err)
		}
		seen[value] = true
		sealed, err := base64.StdEncoding.Strict().DecodeString(value)
		if err != nil || strings.ContainsAny(value, "\r\n") {
			t.Fatal(err)
		}
		got, err := d.Decrypt(nil, sealed, &rsa.OAEPOptions{Hash: crypto.SHA256, MGFHash: crypto.SHA256})
		if err != nil || string(got) != text || hex.EncodeToString(digest[:]) != text {
			t.Errorf("%q, %v", got, err)
		}
		for name, o := range map[string]*rsa.OAEPOptions{"SHA-1": {Hash: crypto.SHA1}, "MGF1-SHA-1": {Hash: crypto.SHA256, MGFHash: crypto.SHA1}, "a label": {Hash: crypto.SHA256, Label: []byte("x")}} {
			if got, err := d.Decrypt(nil, sealed, o); err == nil {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
	for _, pub := range []*rsa.PublicKey{&rsa1024().PublicKey, {N: new(big.Int).Lsh(big.NewInt(1), 2046), E: 3}} {
		if value, err := keys.CheckValue(pub, digest); err == nil || value != "" || !strings.Contains(err.Error(), "less than 2048") {
			t.Errorf("%d bits: %v", pub.N.BitLen(), err)
		}
	}
	if value, err := keys.CheckValue(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 2}, digest); err == nil || value != "" {
		t.Errorf("no exponent: %q", value)
	}
}

// TestCheckValueElsewhere opens one with openssl, as the far end does.
func TestCheckValueElsewhere(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is missing: apt-get install openssl")
	}
	value, err := keys.CheckValue(load(t, keys.UseSession, sessionPEM()).Public(), sha256.Sum256(nil))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := exec.Command(openssl, "pkeyutl", "-decrypt", "-inkey", write(t, sessionPEM()), "-in", file,
		"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256").Output()
	if want := sha256.Sum256(nil); err != nil || string(got) != hex.EncodeToString(want[:]) {
		t.Errorf("%q, %v", got, err)
	}
}
