package sandbox

import (
	"encoding/base64"
	"regexp"
	"testing"
)

// TestGnosisUploadVector: the contract's example opens, and what a device makes looks as published clients' do.
func TestGnosisUploadVector(t *testing.T) {
	secret, err := base64.StdEncoding.DecodeString("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if err != nil {
		t.Fatal(err)
	}
	u, err := newGnosisUpload(&testKey().PublicKey, secret, "ABCDEFGHIJKLMNOP", "4111111111111111")
	if err != nil || u.EncryptedPAN != "orBMl9/MRkIDyEY+yl2H0uBCXmIKwlFlwWLskMzTdmE=" || u.IV != "ABCDEFGHIJKLMNOP" {
		t.Errorf("%+v, %v", u, err)
	}
	if number, err := u.open(testKey()); number != "4111111111111111" || err != nil {
		t.Errorf("%q, %v", number, err)
	}
	alphanumeric, seen := regexp.MustCompile(`^[A-Za-z0-9]{16}$`), map[string]bool{}
	for range 100 {
		u, err := NewGnosisUpload(&testKey().PublicKey, "4111111111111111")
		if err != nil || !alphanumeric.MatchString(u.IV) || seen[u.IV] || seen[u.EncryptedKey] {
			t.Fatalf("%+v, %v", u, err)
		}
		seen[u.IV], seen[u.EncryptedKey] = true, true
	}
}
