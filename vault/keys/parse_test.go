package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// refusals are all that parse may say: constant texts, so that no content is quoted.
var refusals = []error{
	errNotPEM, errBlocks, errIsAge, errEncrypted, errType, errHeaders, errUseHeader, errLength, errShortText,
	errPrivateRSA, errPublicRSA, errSigner, errPublicHere, errSessionBits, errFewBits, errManyBits, errExponent,
}

// generated holds a key file for each use. The RSA key is a published one: a fuzzing process starts at once, and
// its corpus keeps its meaning.
var generated = sync.OnceValue(func() map[Use][]byte {
	content, err := os.ReadFile("../envelope/testdata/wycheproof/rsa_oaep_2048_sha1_mgf1sha1_test.json")
	if err != nil {
		panic(err)
	}
	var file struct {
		TestGroups []struct{ PrivateKeyPkcs8 string }
	}
	if err := json.Unmarshal(content, &file); err != nil {
		panic(err)
	}
	der, err := hex.DecodeString(file.TestGroups[0].PrivateKeyPkcs8)
	if err != nil {
		panic(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: typePKCS8, Bytes: der})
	out := map[Use][]byte{UseSession: private, UseIssuer: private}
	for _, use := range uses {
		if use.rsa() {
			continue
		}
		content, err := Generate(use, 0)
		if err != nil {
			panic(err)
		}
		out[use] = content
	}
	return out
})

// generatedJWT holds a key file for each algorithm of the use jwt; the RSA key is generated's.
var generatedJWT = sync.OnceValue(func() map[string][]byte {
	out := map[string][]byte{RS256: generated()[UseSession]}
	for _, algorithm := range []string{HS256, ES256, EdDSA} {
		content, err := GenerateJWT(algorithm)
		if err != nil {
			panic(err)
		}
		out[algorithm] = content
	}
	return out
})

// written is the key file that m would have come from.
func written(t *testing.T, use Use, m *material) []byte {
	t.Helper()
	switch {
	case m.private != nil, m.signer != nil:
		var private any = m.signer
		if m.private != nil {
			private = m.private
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: typePKCS8, Bytes: der})
	case m.public != nil:
		der, err := x509.MarshalPKIXPublicKey(m.public)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: typeSPKI, Bytes: der})
	case use == UseCookie && m.symmetric.Len() != symmetricBytes:
		return append(bytes.Clone(m.symmetric.Bytes()), '\n')
	}
	return pem.EncodeToMemory(&pem.Block{Type: typeSymmetric, Headers: map[string]string{headerUse: string(use)}, Bytes: m.symmetric.Bytes()})
}

func same(a, b *material) bool {
	switch {
	case a.private != nil:
		return a.private.Equal(b.private)
	case a.signer != nil:
		return b.signer != nil && a.signer.(interface{ Equal(crypto.PrivateKey) bool }).Equal(b.signer)
	case a.public != nil:
		return b.private == nil && a.public.Equal(b.public)
	}
	return a.symmetric.Equal(b.symmetric)
}

// FuzzParse: what is accepted can be written as a key file that holds the same key and fits its use; what is refused
// gets one of the constant errors.
func FuzzParse(f *testing.F) {
	for i, use := range uses {
		f.Add(uint8(i), generated()[use])
	}
	for _, content := range generatedJWT() {
		f.Add(uint8(5), content) // UseJWT
	}
	m, err := parse(UseSession, generated()[UseSession])
	if err != nil {
		f.Fatal(err)
	}
	public, err := PublicPEM(newKey(Config{ID: "k", Use: UseSession}, m, true))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(1), public)
	f.Add(uint8(4), []byte("0x"+strings.Repeat("0", 64)))
	f.Fuzz(func(t *testing.T, which uint8, content []byte) {
		use := uses[int(which)%len(uses)]
		m, err := parse(use, content)
		if err != nil {
			if !slices.Contains(refusals, err) {
				t.Fatalf("error is %v", err)
			}
			return
		}
		again, err := parse(use, written(t, use, m))
		if err != nil || !same(m, again) {
			t.Fatalf("%s: another key after writing: %v", use, err)
		}
		if use == UseSession && (m.private == nil || m.private.N.BitLen() < minSessionBits) {
			t.Fatal("a session key that is public or short")
		}
		if use.rsa() != (m.public != nil) || use.rsa() == (m.symmetric != nil || m.signer != nil) || m.signer != nil && (use != UseJWT || m.symmetric != nil) {
			t.Fatal("a key that does not fit its use")
		}
	})
}

// FuzzParsePublic: what is accepted is written as SPKI and read as the same key; a private key never is.
func FuzzParsePublic(f *testing.F) {
	f.Add(generated()[UseSession])
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		pub, err := ParsePublicPEM(content)
		if err != nil {
			if !slices.ContainsFunc(append(refusals, ErrPrivateKey), func(e error) bool {
				return errors.Is(err, e) && err.Error() == "public key: "+e.Error()
			}) {
				t.Fatalf("error is %v", err)
			}
			return
		}
		if bytes.Contains(content, []byte("PRIVATE KEY-----")) {
			t.Fatal("a private key was taken")
		}
		k := newKey(Config{ID: "k", Use: UseIssuer}, &material{public: pub}, true)
		text, err := PublicPEM(k)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParsePublicPEM(text); err != nil || !again.Equal(pub) {
			t.Fatalf("another key after writing: %v", err)
		}
	})
}

// TestPublicTextIsZeroed: what a client sent is gone, a private key above all.
func TestPublicTextIsZeroed(t *testing.T) {
	m, err := parse(UseSession, generated()[UseSession])
	if err != nil {
		t.Fatal(err)
	}
	public, err := PublicPEM(newKey(Config{ID: "k", Use: UseSession}, m, true))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"private": bytes.Clone(generated()[UseSession]), "symmetric": bytes.Clone(generated()[UseDigest]), "public": public, "rubbish": []byte("-----BEGIN "),
	} {
		if _, err := parseAndZero(content); (err == nil) != (name == "public") {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(content, make([]byte, len(content))) {
			t.Errorf("%s: not zeroed", name)
		}
	}
}

// TestNothingPrintsAKey prints every type that holds key material in every way.
func TestNothingPrintsAKey(t *testing.T) {
	values := map[string][]any{}
	secrets := map[string][][]byte{}
	for _, use := range uses {
		c := Config{ID: "k", Use: use}
		m, err := parse(use, generated()[use])
		if err != nil {
			t.Fatal(err)
		}
		k := newKey(c, m, true)
		name := string(use)
		values[name] = append(values[name], k, *k, struct{ K *Key }{k}, struct{ k *Key }{k}, struct{ k Key }{*k}, []*Key{k})
		if m.private != nil {
			secrets[name] = append(secrets[name], m.private.D.Bytes(), m.private.Primes[0].Bytes(), m.private.Primes[1].Bytes(), m.private.Precomputed.Dp.Bytes())
			d, _ := k.Decrypter()
			values[name] = append(values[name], d, struct{ d any }{d}, struct{ d decrypter }{*d.(*decrypter)})
			continue
		}
		secrets[name] = append(secrets[name], m.symmetric.Bytes())
		if use == UseStorage {
			s, _ := k.Sealer("l")
			r, _ := NewSealRing("l", k)
			values[name] = append(values[name], s, *s, r, *r, struct{ s Sealer }{*s}, struct{ s *Sealer }{s}, struct{ r SealRing }{*r})
			sub, _ := k.derive("l")
			secrets[name] = append(secrets[name], sub.Bytes())
		}
		if use == UseDigest {
			h, _ := k.MAC("l")
			h.MAC(nil, nil)
			r, _ := NewMACRing("l", k)
			values[name] = append(values[name], h, *h, r, *r, struct{ h MAC }{*h})
			sub, _ := k.derive("l")
			secrets[name] = append(secrets[name], sub.Bytes())
		}
	}
	for algorithm, content := range generatedJWT() {
		m, err := parse(UseJWT, content)
		if err != nil {
			t.Fatal(err)
		}
		k := newKey(Config{ID: "k", Use: UseJWT}, m, true)
		j, err := k.JWT()
		if err != nil {
			t.Fatal(err)
		}
		values[algorithm] = []any{k, *k, struct{ k Key }{*k}, j, *j, struct{ J *JWTKey }{j}, struct{ j *JWTKey }{j}, struct{ j JWTKey }{*j}, []JWTKey{*j}}
		switch key := m.signer.(type) {
		case nil:
			sub, _ := k.derive(labelJWT)
			secrets[algorithm] = [][]byte{m.symmetric.Bytes(), sub.Bytes()}
		case *rsa.PrivateKey:
			secrets[algorithm] = [][]byte{key.D.Bytes(), key.Primes[0].Bytes(), key.Primes[1].Bytes()}
		case *ecdsa.PrivateKey:
			scalar, err := key.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			secrets[algorithm] = [][]byte{scalar}
		case ed25519.PrivateKey:
			secrets[algorithm] = [][]byte{key.Seed()}
		}
	}
	for name, list := range values {
		for _, v := range list {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
				unprinted(t, name+" "+verb, fmt.Sprintf(verb, v), secrets[name])
			}
			if text, err := json.Marshal(v); err == nil {
				unprinted(t, name+" JSON", string(text), secrets[name])
			}
		}
	}
}

// unprinted looks for the beginning of each secret in the ways that Go prints bytes and numbers.
func unprinted(t *testing.T, where, got string, secrets [][]byte) {
	t.Helper()
	for _, s := range secrets {
		head := s[:8]
		decimal := new(big.Int).SetBytes(s).String()
		// An expanded AES key begins with the key itself, as words.
		wordLE, wordBE := binary.LittleEndian.Uint32(head), binary.BigEndian.Uint32(head)
		for _, leak := range []string{
			string(head), fmt.Sprintf("%x", head), fmt.Sprintf("%X", head), strings.Trim(fmt.Sprint(head), "[]"),
			strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", head), "[]byte{"), "}"), decimal[:12],
			fmt.Sprintf("%d", wordLE), fmt.Sprintf("%x", wordLE), fmt.Sprintf("%d", wordBE), fmt.Sprintf("%X", wordLE),
		} {
			if strings.Contains(got, leak) {
				t.Errorf("%s shows key material: %.200s", where, got)
				return
			}
		}
	}
}
