package keys_test

import (
	"bytes"
	"testing"

	"github.com/cardstile/cardstile/vault/keys"
)

func TestEphemeralKeysDiffer(t *testing.T) {
	var sums [2][]byte
	for i := range sums {
		k, err := keys.Ephemeral("generated", keys.UseDigest)
		if err != nil {
			t.Fatal(err)
		}
		m, err := k.MAC("label")
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = m.MAC(nil, []byte("message"))
	}
	if bytes.Equal(sums[0], sums[1]) {
		t.Fatal("two generated keys make one MAC")
	}
}

func TestEphemeralRefusesRSAUses(t *testing.T) {
	for _, use := range []keys.Use{keys.UseSession, keys.UseIssuer, "", "other"} {
		if _, err := keys.Ephemeral("generated", use); err == nil {
			t.Errorf("use %q: a key was made", use)
		}
	}
}
