package keys_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"filippo.io/age/armor"
	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/vault/keys"
)

func scryptWorkFactor(t *testing.T, sealed []byte) string {
	t.Helper()
	binary, err := io.ReadAll(armor.NewReader(bytes.NewReader(sealed)))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := bytes.Cut(binary[bytes.Index(binary, []byte("-> scrypt ")):], []byte("\n"))
	return string(line[bytes.LastIndexByte(line, ' ')+1:])
}

// symmetric loads a key of known bytes.
func symmetric(t testing.TB, id string, use keys.Use, environment string, fill byte) *keys.Key {
	t.Helper()
	content := pem.EncodeToMemory(&pem.Block{
		Type: "CARDSTILE KEY", Headers: map[string]string{"Use": string(use)}, Bytes: bytes.Repeat([]byte{fill}, 32),
	})
	k, err := keys.Load(keys.Config{ID: id, Use: use, File: write(t, content), Environment: environment})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestExaCookie is the vector of the exa contract.
func TestExaCookie(t *testing.T) {
	k := load(t, keys.UseCookie, []byte("0x"+strings.Repeat("0", 64)))
	m, err := k.RawMAC()
	if err != nil {
		t.Fatal(err)
	}
	got := base64.StdEncoding.EncodeToString(m.MAC(nil, []byte("0x1234567890AbcdEF1234567890aBcdef12345678")))
	if want := "JNDaVahyvSYEAWyqsZ65od76768Cx3CgZ8QMIgAKmxQ="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestMACIsHMACUnderHKDF computes both by RFC 2104 and RFC 5869, with the zero salt written out.
func TestMACIsHMACUnderHKDF(t *testing.T) {
	sum := func(key []byte, parts ...[]byte) []byte {
		h := hmac.New(sha256.New, key)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	extracted := sum(make([]byte, 32), bytes.Repeat([]byte{7}, 32))
	sub := sum(extracted, []byte("tokens v1"), []byte{1})
	want := sum(sub, []byte("message"))
	m, err := symmetric(t, "d", keys.UseDigest, "", 7).MAC("tokens v1")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // a reused state gives the same
		if got := m.MAC([]byte("before "), []byte("message")); !bytes.Equal(got, append([]byte("before "), want...)) {
			t.Errorf("got %x, want %x", got, want)
		}
	}
}

func TestLabelsSeparate(t *testing.T) {
	k := symmetric(t, "d", keys.UseDigest, "", 7)
	seen := map[string]string{}
	for _, label := range []string{"a", "b", "ab"} {
		m, err := k.MAC(label)
		if err != nil {
			t.Fatal(err)
		}
		sum := string(m.MAC(nil, []byte("message")))
		if other, ok := seen[sum]; ok {
			t.Errorf("labels %q and %q give one MAC", label, other)
		}
		seen[sum] = label
	}
	if _, err := k.MAC(""); err == nil {
		t.Error("an empty label was taken")
	}
	if _, err := symmetric(t, "s", keys.UseStorage, "", 7).Sealer(""); err == nil {
		t.Error("an empty label was taken")
	}
}

func TestMACAtOnce(t *testing.T) {
	m, err := symmetric(t, "d", keys.UseDigest, "", 7).MAC("l")
	if err != nil {
		t.Fatal(err)
	}
	want := map[int][]byte{}
	for i := range 8 {
		want[i] = m.MAC(nil, []byte{byte(i)})
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 200 {
				if !bytes.Equal(m.MAC(nil, []byte{byte(i)}), want[i]) {
					t.Error("a concurrent MAC differs")
					return
				}
			}
		})
	}
	wg.Wait()
}

func sealRing(t testing.TB, label string, ks ...*keys.Key) *keys.SealRing {
	t.Helper()
	r, err := keys.NewSealRing(label, ks...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSealedValue: it opens with its key, label and associated data, and with nothing else; every flipped bit, every
// missing byte and every added one is refused.
func TestSealedValue(t *testing.T) {
	k := symmetric(t, "s", keys.UseStorage, "", 7)
	r := sealRing(t, "grants", k)
	ad, plaintext := []byte("token digest"), []byte("a grant")
	sealed, err := r.Seal([]byte("before"), ad, plaintext)
	if err != nil || !bytes.HasPrefix(sealed, []byte("before")) {
		t.Fatal(err)
	}
	sealed = sealed[len("before"):]
	if len(sealed) != keys.TagBytes+keys.SealOverhead+len(plaintext) {
		t.Errorf("%d bytes", len(sealed))
	}
	if got, err := r.Open([]byte("dst "), ad, sealed); err != nil || string(got) != "dst a grant" {
		t.Fatalf("%q, %v", got, err)
	}
	refused := func(name string, r *keys.SealRing, ad, sealed []byte) {
		t.Helper()
		if got, err := r.Open(nil, ad, sealed); err != keys.ErrOpen || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for i := range 8 * len(sealed) {
		changed := bytes.Clone(sealed)
		changed[i/8] ^= 1 << (i % 8)
		refused(fmt.Sprintf("bit %d", i), r, ad, changed)
	}
	for n := range sealed {
		refused(fmt.Sprintf("cut to %d", n), r, ad, sealed[:n])
	}
	refused("longer", r, ad, append(bytes.Clone(sealed), 0))
	refused("other data", r, []byte("token digesT"), sealed)
	refused("no data", r, nil, sealed)
	refused("other label", sealRing(t, "records", k), ad, sealed)
	refused("other key of that id", sealRing(t, "grants", symmetric(t, "s", keys.UseStorage, "", 8)), ad, sealed)
	refused("unknown key", sealRing(t, "grants", symmetric(t, "t", keys.UseStorage, "", 7)), ad, sealed)
	again, err := r.Seal(nil, ad, plaintext)
	if err != nil || bytes.Equal(again, sealed) {
		t.Error("two seals are equal: the nonce is not fresh")
	}
	if _, err := r.Seal(nil, nil, make([]byte, 1<<20+1)); err == nil {
		t.Error("more than 1 MiB was sealed")
	}
}

// TestRotation: an old primary's values still open, new ones carry the new primary's tag, and a key that left opens nothing.
func TestRotation(t *testing.T) {
	old, young := symmetric(t, "s-2026", keys.UseStorage, "", 1), symmetric(t, "s-2027", keys.UseStorage, "", 2)
	before, during, after := sealRing(t, "l", old), sealRing(t, "l", young, old), sealRing(t, "l", young)
	sealed, _ := before.Seal(nil, nil, []byte("v"))
	if got, err := during.Open(nil, nil, sealed); err != nil || string(got) != "v" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := after.Open(nil, nil, sealed); !errors.Is(err, keys.ErrOpen) {
		t.Errorf("%v", err)
	}
	sealed, _ = during.Seal(nil, nil, []byte("v"))
	if _, err := after.Open(nil, nil, sealed); err != nil {
		t.Errorf("%v", err)
	}

	oldMAC, youngMAC := symmetric(t, "d-2026", keys.UseDigest, "", 1), symmetric(t, "d-2027", keys.UseDigest, "", 2)
	r, err := keys.NewMACRing("l", youngMAC, oldMAC)
	if err != nil {
		t.Fatal(err)
	}
	tag, primary := r.Primary()
	if tag != youngMAC.Tag() || r.ByTag(tag) != primary || r.ByTag(oldMAC.Tag()) == primary || r.ByTag(oldMAC.Tag()) == nil {
		t.Error("the ring mixes its keys up")
	}
	if r.ByTag([3]byte{1, 2, 3}) != nil {
		t.Error("an unknown tag has a key")
	}
	sum := sha256.Sum256([]byte("d-2027"))
	if hex.EncodeToString(tag[:]) != hex.EncodeToString(sum[:3]) {
		t.Errorf("tag is %x", tag)
	}
}

func TestRingRefuses(t *testing.T) {
	d := symmetric(t, "d", keys.UseDigest, "", 1)
	for name, ks := range map[string][]*keys.Key{
		"none":              nil,
		"nil":               {d, nil},
		"twice":             {d, d},
		"same id":           {d, symmetric(t, "d", keys.UseDigest, "", 2)},
		"two uses":          {d, symmetric(t, "a", keys.UseAudit, "", 2)},
		"two environments":  {d, symmetric(t, "e", keys.UseDigest, "test", 2)},
		"use without a MAC": {symmetric(t, "s", keys.UseStorage, "", 2)},
		"colliding tags":    {symmetric(t, collideA, keys.UseDigest, "", 1), symmetric(t, collideB, keys.UseDigest, "", 2)},
	} {
		if _, err := keys.NewMACRing("l", ks...); err == nil {
			t.Errorf("%s: MAC ring built", name)
		}
	}
	if _, err := keys.NewSealRing("l"); err == nil {
		t.Error("seal ring of no keys built")
	}
	if _, err := keys.NewSealRing("l", d); err == nil {
		t.Error("a digest key seals")
	}
}

// Two ids whose SHA-256 begins with the same three bytes.
const collideA, collideB = "k5049", "k8469"

func TestCollidingIDsCollide(t *testing.T) {
	a, b := sha256.Sum256([]byte(collideA)), sha256.Sum256([]byte(collideB))
	if [3]byte(a[:]) != [3]byte(b[:]) {
		t.Errorf("%x and %x", a[:3], b[:3])
	}
}

func TestSealOpenIdentity(t *testing.T) {
	r := sealRing(t, "l", symmetric(t, "s", keys.UseStorage, "", 9))
	rapid.Check(t, func(t *rapid.T) {
		ad, plaintext := rapid.SliceOf(rapid.Byte()).Draw(t, "ad"), rapid.SliceOf(rapid.Byte()).Draw(t, "plaintext")
		sealed, err := r.Seal(nil, ad, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Open(nil, ad, sealed)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("%x became %x, %v", plaintext, got, err)
		}
	})
}

// FuzzSealRingOpen: what was sealed opens to itself, and nothing that differs from it opens.
func FuzzSealRingOpen(f *testing.F) {
	r := sealRing(f, "l", symmetric(f, "s", keys.UseStorage, "", 9), symmetric(f, "t", keys.UseStorage, "", 8))
	f.Add([]byte("plaintext"), []byte("ad"), []byte{0, 0, 1})
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, plaintext, ad, mask []byte) {
		sealed, err := r.Seal(nil, ad, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Open(nil, ad, sealed); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("%x became %x, %v", plaintext, got, err)
		}
		changed := bytes.Clone(sealed)
		for i, m := range mask {
			if i < len(changed) {
				changed[i] ^= m
			} else {
				changed = append(changed, m)
			}
		}
		if _, err := r.Open(nil, ad, changed); err == nil && !bytes.Equal(changed, sealed) {
			t.Fatalf("a changed value opens: %x", changed)
		}
		if _, err := r.Open(nil, ad, mask); err == nil {
			t.Fatalf("%x opens", mask)
		}
	})
}

func BenchmarkMAC(b *testing.B) {
	m, err := symmetric(b, "d", keys.UseDigest, "", 7).MAC("l")
	if err != nil {
		b.Fatal(err)
	}
	message, dst := make([]byte, 43), make([]byte, 0, 32)
	b.ReportAllocs()
	for b.Loop() {
		dst = m.MAC(dst[:0], message)
	}
}

func BenchmarkSeal(b *testing.B) {
	r := sealRing(b, "l", symmetric(b, "s", keys.UseStorage, "", 7))
	ad, plaintext, dst := make([]byte, 32), make([]byte, 200), make([]byte, 0, 300)
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = r.Seal(dst[:0], ad, plaintext)
	}
}

func BenchmarkSealedOpen(b *testing.B) {
	r := sealRing(b, "l", symmetric(b, "s", keys.UseStorage, "", 7))
	ad, dst := make([]byte, 32), make([]byte, 0, 300)
	sealed, _ := r.Seal(nil, ad, make([]byte, 200))
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = r.Open(dst[:0], ad, sealed)
	}
}
