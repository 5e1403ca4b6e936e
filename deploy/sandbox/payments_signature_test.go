package sandbox_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// The contract's vector.
const (
	signedBody      = `{"amount":10,"Currency":"AZN","recipient":{"type":"card","account_number":"4000"},"ok":true}`
	signedCanonical = "400010AZNtruecard"
	signedDigest    = "c9570bc1d0e06776ffac8c0d8debc7cf7e666d6102f6430d75f736afcc3bfd57"
)

func TestPaymentsGateCanonical(t *testing.T) {
	for body, want := range map[string]string{
		signedBody:                                 signedCanonical,
		`{}`:                                       "",
		`{"a":{}}`:                                 "",
		` { "b" : "2" , "a" : "1" } `:              "12",
		`{"b":"x","B":"y","a":{"b":"z"}}`:          "xyz",
		`{"a":{"k":"1"},"k":"2"}`:                  "12",
		`{"k":"2","a":{"k":"1"}}`:                  "21",
		`{"z":{"a":{"c":"3"},"b":"2"},"a":"1"}`:    "123",
		`{"b":false,"a":1.50,"c":-1e2,"d":""}`:     "1.50false-1e2",
		`{"a":"ü\n\"\u0041","Z":" "}`:              "ü\n\"A ",
		`{"a_":"1","aa":"2","a":"0","a1":"x"}`:     "0x12",
		`{"n":123456789012345678901234567890}`:     "123456789012345678901234567890",
		`{"k":"1","k1":"2","x":{"k":"3"},"K":"4"}`: "1342",
		`{"a":"1","b":"2","c":"3","d":"4","e":"5","f":"6","g":"7","h":"8","i":"9","j":{"a":"10","A":"11"}}`: "1101123456789",
	} {
		if got, err := sandbox.PaymentsGateCanonical([]byte(body)); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", body, got, err, want)
		}
	}
	digest := sha256.Sum256([]byte(signedCanonical))
	if got := hex.EncodeToString(digest[:]); got != signedDigest {
		t.Errorf("digest %s, want %s", got, signedDigest)
	}
}

func TestPaymentsGateCanonicalRefusesWhatClientsDisagreeOn(t *testing.T) {
	for _, body := range []string{
		``, `{`, `[]`, `null`, `"x"`, `7`, `{"a":[]}`, `{"a":["x"]}`, `{"a":null}`, `{"a":{"b":null}}`, `{"a":{"b":[1]}}`, `{"a":1,"a":2}`,
		`{"a":1}{}`, `{"a":1} x`, `{"a":}`, `{"a"}`, `{"a":1,}`, `{"a":{"b":1}`, `{a:1}`, `{"a":01}`,
	} {
		if got, err := sandbox.PaymentsGateCanonical([]byte(body)); err == nil {
			t.Errorf("%s: %q", body, got)
		}
		if signature, err := sandbox.SignPaymentsGate(testKey(), []byte(body)); err == nil || signature != "" {
			t.Errorf("%s: signed", body)
		}
	}
}

// signature signs the vector and returns its bytes, after a look at its lines.
func signature(t *testing.T) []byte {
	t.Helper()
	text, err := sandbox.SignPaymentsGate(testKey(), []byte(signedBody))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text, "\n")
	for n, line := range lines[:len(lines)-1] {
		if n < len(lines)-2 && len(line) != 76 || len(line) == 0 || len(line) > 76 {
			t.Errorf("line %d has %d characters", n, len(line))
		}
	}
	if last := lines[len(lines)-1]; last != "" {
		t.Errorf("no line feed after %q", last)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(lines, ""))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSignPaymentsGate(t *testing.T) {
	raw := signature(t)
	signed := sha256.Sum256([]byte(signedDigest))
	if err := rsa.VerifyPSS(&testKey().PublicKey, crypto.SHA256, signed[:], raw, nil); err != nil {
		t.Error(err)
	}
	bare := sha256.Sum256([]byte(signedCanonical))
	if err := rsa.VerifyPSS(&testKey().PublicKey, crypto.SHA256, bare[:], raw, nil); err == nil {
		t.Error("the signature is over the digest's bytes, not over their hex digits")
	}
}

// TestSignatureIsWhatOpenSSLVerifies asks the tool of PaymentsGate's own instructions.
func TestSignatureIsWhatOpenSSLVerifies(t *testing.T) {
	spki, err := x509.MarshalPKIXPublicKey(&testKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"key.pem":   pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}),
		"signature": signature(t),
		"message":   []byte(signedDigest),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "openssl", "dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_mgf1_md:sha256",
		"-verify", "key.pem", "-signature", "signature", "message")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Verified OK") {
		t.Errorf("%v: %s", err, out)
	}
}
