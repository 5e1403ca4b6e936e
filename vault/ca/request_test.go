package ca_test

import (
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 to be refused
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault/ca"
)

var (
	oidSHA256RSA   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidSHA1RSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}
	oidMD5RSA      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}
	oidSHA1ECDSA   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}
	oidSHA256ECDSA = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidDSASHA256   = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 2}
	oidDSA         = asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}
)

// requestWith is a request of any key and algorithm, also of such as no library would sign with. Its signature is of nobody.
func requestWith(t testing.TB, spki []byte, algorithm asn1.ObjectIdentifier) []byte {
	t.Helper()
	type info struct {
		Version int
		Subject asn1.RawValue
		Key     asn1.RawValue
		Asked   []asn1.RawValue `asn1:"tag:0"`
	}
	der, err := asn1.Marshal(struct {
		Info      info
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		info{0, asn1.RawValue{FullBytes: name(t, "p")}, asn1.RawValue{FullBytes: spki}, nil},
		pkix.AlgorithmIdentifier{Algorithm: algorithm}, asn1.BitString{Bytes: make([]byte, 64), BitLength: 512},
	})
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func spkiOf(t testing.TB, key crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// modulus is odd, of so many bits, and without the small factors that are looked for.
func modulus(t testing.TB, bits int) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-1)))
	if err != nil {
		t.Fatal(err)
	}
	n.SetBit(n, bits-1, 1).SetBit(n, 0, 1)
	for p := int64(3); p < 752; p += 2 {
		if new(big.Int).Mod(n, big.NewInt(p)).Sign() == 0 {
			n.Add(n, big.NewInt(2))
			p = 1
		}
	}
	return n
}

// closePrimes is a modulus whose factors follow each other.
func closePrimes(t testing.TB, bits int) *big.Int {
	t.Helper()
	p, err := rand.Prime(rand.Reader, bits/2)
	if err != nil {
		t.Fatal(err)
	}
	q := new(big.Int).Add(p, big.NewInt(2))
	for !q.ProbablyPrime(20) {
		q.Add(q, big.NewInt(2))
	}
	return q.Mul(p, q)
}

// TestWeakKeys: keys that somebody else may have, or find, are refused for what they are, before their signature is looked at.
func TestWeakKeys(t *testing.T) {
	rsaKey := func(n *big.Int, e int) []byte { return spkiOf(t, &rsa.PublicKey{N: n, E: e}) }
	good := modulus(t, 2048)
	factor := new(big.Int)
	for factor.BitLen() != 2048 {
		factor.Mul(modulus(t, 2041), big.NewInt(251))
	}
	p256 := spkiOf(t, ecKey(t, elliptic.P256()).Public())
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what      string
		spki      []byte
		algorithm asn1.ObjectIdentifier
		want      string
	}{
		{"nothing but the signature", rsaKey(good, 65537), oidSHA256RSA, "no proof of possession"},
		{"nothing but the signature, EC", p256, oidSHA256ECDSA, "no proof of possession"},
		{"e = 1", rsaKey(good, 1), oidSHA256RSA, "the public exponent 1:"},
		{"e = 3", rsaKey(good, 3), oidSHA256RSA, "the public exponent 3:"},
		{"an even e", rsaKey(good, 65538), oidSHA256RSA, "the public exponent 65538:"},
		{"1024 bits", rsaKey(modulus(t, 1024), 65537), oidSHA256RSA, "an RSA key of 1024 bits: want 2048 to 8192"},
		{"2047 bits", rsaKey(modulus(t, 2047), 65537), oidSHA256RSA, "an RSA key of 2047 bits: want 2048 to 8192"},
		{"2052 bits", rsaKey(modulus(t, 2052), 65537), oidSHA256RSA, "a multiple of 8"},
		{"8200 bits", rsaKey(modulus(t, 8200), 65537), oidSHA256RSA, "an RSA key of 8200 bits: want 2048 to 8192"},
		{"a small factor", rsaKey(factor, 65537), oidSHA256RSA, "has the factor 251"},
		{"close primes", rsaKey(closePrimes(t, 2048), 65537), oidSHA256RSA, "too close to each other"},
		{"P-224", spkiOf(t, ecKey(t, elliptic.P224()).Public()), oidSHA256ECDSA, "an EC key on P-224"},
		{"X25519", spkiOf(t, x25519.PublicKey()), oidSHA256ECDSA, "neither RSA, EC nor Ed25519"},
		{"DSA", dsaKey(t), oidDSASHA256, "signed with DSA-SHA256"},
		{"SHA-1", rsaKey(good, 65537), oidSHA1RSA, "signed with SHA1-RSA: want SHA-256 or better"},
		{"MD5", rsaKey(good, 65537), oidMD5RSA, "signed with MD5-RSA: want SHA-256 or better"},
		{"SHA-1 with ECDSA", p256, oidSHA1ECDSA, "signed with ECDSA-SHA1: want SHA-256 or better"},
		{"an algorithm that nobody knows", p256, asn1.ObjectIdentifier{1, 2, 3}, "signed with 0: want SHA-256 or better"},
	} {
		_, err := ca.ParseRequest(requestWith(t, c.spki, c.algorithm))
		if !errors.Is(err, ca.ErrRequest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}

func dsaKey(t testing.TB) []byte {
	t.Helper()
	var p dsa.Parameters
	p.P, p.Q, p.G = big.NewInt(23), big.NewInt(11), big.NewInt(4)
	parameters, err := asn1.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	key, err := asn1.Marshal(big.NewInt(9))
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{pkix.AlgorithmIdentifier{Algorithm: oidDSA, Parameters: asn1.RawValue{FullBytes: parameters}}, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestNotGranted: what a request asks for besides its subject and key is named, and does not stand in the certificate.
func TestNotGranted(t *testing.T) {
	constraints, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		RawSubject: name(t, "p"), DNSNames: []string{"cards.example.com"}, EmailAddresses: []string{"a@example.com"},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: constraints},
			{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: []byte{5, 0}},
		},
	}, ecKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := ca.ParseRequest(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.NotGranted(); !slices.Equal(got, []string{"subjectAltName", "basicConstraints", "1.2.3.4"}) {
		t.Errorf("not granted: %v", got)
	}
	_, open := authority(t, elliptic.P256(), 100)
	a := open()
	defer a.Close()
	c, err := a.Issue("p", "", r, 90, now)
	if err != nil {
		t.Fatal(err)
	}
	if c.IsCA || len(c.DNSNames)+len(c.EmailAddresses) > 0 || slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.String() == "1.2.3.4" }) {
		t.Errorf("granted: CA %v, names %v %v", c.IsCA, c.DNSNames, c.EmailAddresses)
	}
	if got := request(t, "p", ecKey(t, elliptic.P256())).NotGranted(); len(got) > 0 {
		t.Errorf("a request that asks for nothing: %v", got)
	}
}
