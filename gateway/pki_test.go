package gateway_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"sync"
	"time"
)

// authority is a CA of the tests.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	chain       [][]byte // of intermediates, up to but without the root
}

func newAuthority(name string) *authority {
	a := &authority{key: ecKey()}
	template := caTemplate(name)
	a.certificate = sign(template, template, a.key.Public(), a.key)
	return a
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

// intermediate returns a CA below this one.
func (a *authority) intermediate(name string) *authority {
	i := &authority{key: ecKey()}
	i.certificate = sign(caTemplate(name), a.certificate, i.key.Public(), a.key)
	i.chain = append([][]byte{i.certificate.Raw}, a.chain...)
	return i
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.certificate)
	return p
}

func (a *authority) issue(key crypto.Signer, template *x509.Certificate) tls.Certificate {
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	leaf := sign(template, a.certificate, key.Public(), a.key)
	return tls.Certificate{Certificate: append([][]byte{leaf.Raw}, a.chain...), PrivateKey: key, Leaf: leaf}
}

// name reads "CN=…,C=…".
func name(subject string) pkix.Name {
	var n pkix.Name
	for part := range strings.SplitSeq(subject, ",") {
		switch key, value, _ := strings.Cut(part, "="); key {
		case "CN":
			n.CommonName = value
		case "C":
			n.Country = []string{value}
		}
	}
	return n
}

// client issues a client's certificate, EC unless change says otherwise.
func (a *authority) client(subject string, change ...func(*x509.Certificate)) tls.Certificate {
	return a.clientWithKey(ecKey(), subject, change...)
}

func (a *authority) clientWithKey(key crypto.Signer, subject string, change ...func(*x509.Certificate)) tls.Certificate {
	template := &x509.Certificate{Subject: name(subject), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range change {
		c(template)
	}
	return a.issue(key, template)
}

func (a *authority) server() tls.Certificate {
	return a.issue(ecKey(), &x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	var err error
	template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	must(err)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	must(err)
	c, err := x509.ParseCertificate(der)
	must(err)
	return c
}

func ecKey() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	return k
}

// rsaKey is the one RSA key of the run, for whoever needs any.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	return k
})
