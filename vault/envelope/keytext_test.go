package envelope

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"testing"
)

// The lengths of keys: our formats', with two characters of padding and one; and others, with none and with little before it.
var keyLengths = []int{rainKeyBytes, gnosisKeyBytes, 24, 1}

func TestKeyTextIsStandardBase64(t *testing.T) {
	for _, n := range keyLengths {
		key, text, back := make([]byte, n), make([]byte, keyTextBytes(n)), make([]byte, n)
		for i := range 64 { // every value in every place
			for j := range key {
				key[j] = byte(i<<2 | i>>4)
				if j%3 == 1 {
					key[j] = byte(i<<4 | i>>2)
				} else if j%3 == 2 {
					key[j] = byte(i<<6 | i)
				}
			}
			checkKeyText(t, key, text, back)
		}
		for range 2000 {
			_, _ = rand.Read(key)
			checkKeyText(t, key, text, back)
		}
	}
}

func checkKeyText(t *testing.T, key, text, back []byte) {
	t.Helper()
	encodeKey(text, key)
	if want := base64.StdEncoding.EncodeToString(key); string(text) != want {
		t.Fatalf("%x is %s, want %s", key, text, want)
	}
	if !decodeKey(back, text) || !bytes.Equal(back, key) {
		t.Fatalf("%s is %x, want %x", text, back, key)
	}
}

// TestKeyTextIsStrict puts every byte in every place, and takes what encoding/base64 takes when it is strict.
func TestKeyTextIsStrict(t *testing.T) {
	for _, good := range []string{"ABEiM0RVZneImaq7zN3u/w==", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"} {
		key := make([]byte, base64.StdEncoding.DecodedLen(len(good))-bytes.Count([]byte(good), []byte("=")))
		for i := range good {
			for c := range 256 {
				text := []byte(good)
				text[i] = byte(c)
				want, err := base64.StdEncoding.Strict().DecodeString(string(text))
				accept := err == nil && len(want) == len(key)
				if got := decodeKey(key, text); got != accept || accept && !bytes.Equal(key, want) {
					t.Errorf("%q: accepted %t as %x, want %t as %x", text, got, key, accept, want)
				}
			}
		}
	}
}

// FuzzKeyText: decoding agrees with encoding/base64 on any text, and what is accepted is written the same.
func FuzzKeyText(f *testing.F) {
	f.Add([]byte("ABEiM0RVZneImaq7zN3u/w=="))
	f.Add([]byte("////////////////////////"))
	f.Add([]byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, n := range keyLengths {
			if len(text) != keyTextBytes(n) {
				continue
			}
			want, ok := appendDecoded(nil, string(text))
			ok = ok && len(want) == n
			key, again := make([]byte, n), make([]byte, keyTextBytes(n))
			if got := decodeKey(key, text); got != ok {
				t.Fatalf("%q: %t, encoding/base64 says %t", text, got, ok)
			}
			if !ok {
				continue
			}
			if encodeKey(again, key); !bytes.Equal(key, want) || !bytes.Equal(again, text) {
				t.Fatalf("%q became %x and %q", text, key, again)
			}
		}
	})
}
