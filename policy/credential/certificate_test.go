package credential_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
)

// chain is a leaf that is valid from start to end, under a CA that always is.
func chain(t testing.TB, cn string, start, end time.Time) []*x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	make := func(template, parent *x509.Certificate) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return certificate
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	ca := make(root, root)
	return []*x509.Certificate{make(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: cn, Country: []string{"US"}}, NotBefore: start, NotAfter: end,
	}, ca), ca}
}

func TestCertificates(t *testing.T) {
	at := newClock()
	start, end := at.now().Add(-time.Hour).Truncate(time.Second), at.now().Add(time.Hour).Truncate(time.Second)
	good := chain(t, "gp_1", start, end)
	subject, err := policy.ParseSubject("C=US,CN=gp_1")
	if err != nil {
		t.Fatal(err)
	}
	partners, err := policy.NewPartners([]policy.Partner{{ID: "gp-demo", Environment: "test", Disabled: true, Subjects: []policy.Subject{subject}}},
		policy.FingerprintOf(good[1]))
	if err != nil {
		t.Fatal(err)
	}
	c, err := credential.NewCertificates(credential.CertificatesConfig{Partners: partners, Now: at.now})
	if err != nil {
		t.Fatal(err)
	}
	// A disabled partner is proven; the decision denies it.
	proof, err := c.Prove(t.Context(), good)
	fingerprint := policy.FingerprintOf(good[0])
	want := policy.Proof{
		Kind: policy.KindCertificate, Partner: "gp-demo", Environment: "test",
		Certificate: fingerprint, ID: fmt.Sprintf("certificate:%x", fingerprint),
	}
	if err != nil || proof != want {
		t.Errorf("%+v, %v", proof, err)
	}
	proof, err = c.Prove(t.Context(), chain(t, "gp_1", start, end)) // the same subject under another CA
	refused(t, proof, err, policy.KindCertificate, policy.RefusedPartner)
	proof, err = c.Prove(t.Context(), nil)
	refused(t, proof, err, policy.KindCertificate, policy.RefusedCertificate)

	// The connection outlives the certificate: RFC 5280 section 4.1.2.5, both ends included.
	at.nanos.Store(end.UnixNano())
	if _, err := c.Prove(t.Context(), good); err != nil {
		t.Errorf("in its last second: %v", err)
	}
	at.nanos.Store(end.UnixNano() + 1)
	proof, err = c.Prove(t.Context(), good)
	refused(t, proof, err, policy.KindCertificate, policy.RefusedExpired)
	at.nanos.Store(start.UnixNano() - 1)
	proof, err = c.Prove(t.Context(), good)
	refused(t, proof, err, policy.KindCertificate, policy.RefusedExpired)

	if c, err := credential.NewCertificates(credential.CertificatesConfig{}); err == nil || c != nil {
		t.Errorf("without partners: %v, %v", c, err)
	}
}
