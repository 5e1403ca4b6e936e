package keys_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault/keys"
)

// Two tokens, of 128 and of 256 bits.
const (
	shortToken = "c2hvcnQgdG9rZW4gc2hvcg"
	longToken  = "bG9uZyB0b2tlbiBsb25nIHRva2VuIGxvbmcgdG9rZW4"
)

func tokenRing(t testing.TB, label string, ks ...*keys.Key) *keys.TokenRing {
	t.Helper()
	r, err := keys.NewTokenRing(label, ks...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ringFor(t testing.TB, r *keys.TokenRing, token string) *keys.SealRing {
	t.Helper()
	s, err := r.For(token)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestTokenSealerIsHKDF computes the key by RFC 5869, with the token as the salt, and opens with the standard library alone.
func TestTokenSealerIsHKDF(t *testing.T) {
	sum := func(key []byte, parts ...[]byte) []byte {
		h := hmac.New(sha256.New, key)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	s, err := symmetric(t, "s", keys.UseStorage, "", 7).TokenSealer("held v1", longToken)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal(nil, []byte("ad"), []byte("a card"))
	if err != nil {
		t.Fatal(err)
	}
	sub := sum(sum([]byte(longToken), bytes.Repeat([]byte{7}, 32)), []byte("held v1"), []byte{1})
	block, err := aes.NewCipher(sub)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := gcm.Open(nil, sealed[:12], sealed[12:], []byte("ad")); err != nil || string(got) != "a card" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestTokenRingNeedsBoth: the token without the key opens nothing, nor do all keys without the token.
func TestTokenRingNeedsBoth(t *testing.T) {
	k := symmetric(t, "s", keys.UseStorage, "", 7)
	r := tokenRing(t, "held", k)
	ad := []byte("ad")
	sealed, err := ringFor(t, r, shortToken).Seal(nil, ad, []byte("a card"))
	if err != nil || len(sealed) != keys.TagBytes+keys.SealOverhead+len("a card") {
		t.Fatalf("%d bytes, %v", len(sealed), err)
	}
	if got, err := ringFor(t, r, shortToken).Open([]byte("dst "), ad, sealed); err != nil || string(got) != "dst a card" {
		t.Fatalf("%q, %v", got, err)
	}
	digest := sha256.Sum256([]byte(shortToken))
	for name, other := range map[string]*keys.SealRing{
		"another token":           ringFor(t, r, longToken),
		"the token's digest":      ringFor(t, r, string(digest[:])),
		"the digest as text":      ringFor(t, r, base64.RawURLEncoding.EncodeToString(digest[:])),
		"a longer token":          ringFor(t, r, shortToken+"A"),
		"another case":            ringFor(t, r, strings.ToLower(shortToken)),
		"zeros":                   ringFor(t, r, string(make([]byte, 32))),
		"the key without a token": sealRing(t, "held", k),
		"another label":           ringFor(t, tokenRing(t, "hold", k), shortToken),
		"another key of that id":  ringFor(t, tokenRing(t, "held", symmetric(t, "s", keys.UseStorage, "", 8)), shortToken),
		"an unknown key":          ringFor(t, tokenRing(t, "held", symmetric(t, "t", keys.UseStorage, "", 7)), shortToken),
	} {
		if got, err := other.Open(nil, ad, sealed); err != keys.ErrOpen || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestTokenRingRotates(t *testing.T) {
	old, young := symmetric(t, "s-2026", keys.UseStorage, "", 1), symmetric(t, "s-2027", keys.UseStorage, "", 2)
	before, during, after := tokenRing(t, "l", old), tokenRing(t, "l", young, old), tokenRing(t, "l", young)
	sealed, _ := ringFor(t, before, shortToken).Seal(nil, nil, []byte("v"))
	if got, err := ringFor(t, during, shortToken).Open(nil, nil, sealed); err != nil || string(got) != "v" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := ringFor(t, after, shortToken).Open(nil, nil, sealed); err != keys.ErrOpen {
		t.Error(err)
	}
	sealed, _ = ringFor(t, during, shortToken).Seal(nil, nil, []byte("v"))
	if tag := young.Tag(); !bytes.HasPrefix(sealed, tag[:]) {
		t.Error("not sealed with the primary")
	}
	if _, err := ringFor(t, after, shortToken).Open(nil, nil, sealed); err != nil {
		t.Error(err)
	}
}

func TestTokenRingRefuses(t *testing.T) {
	k := symmetric(t, "s", keys.UseStorage, "", 7)
	for name, err := range map[string]error{
		"no keys":          second(keys.NewTokenRing("l")),
		"a digest key":     second(keys.NewTokenRing("l", symmetric(t, "d", keys.UseDigest, "", 1))),
		"no label":         second(keys.NewTokenRing("", k)),
		"no token":         second(tokenRing(t, "l", k).For("")),
		"21 bytes":         second(tokenRing(t, "l", k).For(shortToken[:21])),
		"21 bytes, sealer": second(k.TokenSealer("l", shortToken[:21])),
		"sealer, no label": second(k.TokenSealer("", shortToken)),
	} {
		if err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), shortToken[:8]) {
			t.Errorf("%s: the error quotes the token: %v", name, err)
		}
	}
}

func TestNothingPrintsATokenRing(t *testing.T) {
	r := tokenRing(t, "l", symmetric(t, "s", keys.UseStorage, "", 7))
	for _, v := range []any{r, *r, ringFor(t, r, shortToken), *ringFor(t, r, shortToken)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			got := fmt.Sprintf(verb, v)
			for _, leak := range []string{shortToken[:8], fmt.Sprintf("%x", shortToken[:8]), "07070707", "7 7 7 7", "0x7, 0x7"} {
				if strings.Contains(got, leak) {
					t.Errorf("%s of %T: %s", verb, v, got)
				}
			}
		}
	}
}

// FuzzTokenRing: what was sealed under a token opens under it, and under no other, to itself.
func FuzzTokenRing(f *testing.F) {
	r := tokenRing(f, "l", symmetric(f, "s", keys.UseStorage, "", 9))
	f.Add(shortToken, longToken, []byte("a card"), []byte("ad"))
	f.Add(shortToken, shortToken+"\x00", []byte{}, []byte{})
	f.Add(strings.Repeat("A", 65), shortToken, []byte("x"), []byte{})
	f.Fuzz(func(t *testing.T, token, other string, plaintext, ad []byte) {
		s, err := r.For(token)
		if (err == nil) != (len(token) >= keys.MinTokenBytes) {
			t.Fatalf("%d bytes: %v", len(token), err)
		}
		if err != nil {
			return
		}
		sealed, err := s.Seal(nil, ad, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ringFor(t, r, token).Open(nil, ad, sealed); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("%x became %x, %v", plaintext, got, err)
		}
		// HMAC pads its key with zeros, and hashes one of more than 64 bytes.
		if len(other) < keys.MinTokenBytes || strings.TrimRight(other, "\x00") == strings.TrimRight(token, "\x00") || max(len(token), len(other)) > 64 {
			return
		}
		if got, err := ringFor(t, r, other).Open(nil, ad, sealed); err == nil {
			t.Fatalf("%q opens what %q sealed: %x", other, token, got)
		}
	})
}

// BenchmarkTokenRing is once for each field that a page submits, and twice for each card that is redeemed.
func BenchmarkTokenRing(b *testing.B) {
	r := tokenRing(b, "l", symmetric(b, "s", keys.UseStorage, "", 7))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.For(longToken); err != nil {
			b.Fatal(err)
		}
	}
}
