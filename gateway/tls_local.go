package gateway

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"time"

	"github.com/caddyserver/certmagic"
)

// localCA is a certificate authority of our own, for development: it proves nothing to anybody who was not told to trust it. Its
// key and certificate are in the storage, so that instances that share one share it.
type localCA struct {
	storage certmagic.Storage
}

var _ certmagic.Issuer = (*localCA)(nil)

const (
	localCALifetime   = 10 * 365 * 24 * time.Hour
	localLeafLifetime = 7 * 24 * time.Hour

	localKey         = "local/ca.key"
	localCertificate = "local/ca.crt"
)

// IssuerKey implements certmagic.Issuer.
func (*localCA) IssuerKey() string { return "local" }

// Issue implements certmagic.Issuer.
func (ca *localCA) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	if err := csr.CheckSignature(); err != nil {
		return nil, err
	}
	root, key, err := ca.load(ctx)
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(localLeafLifetime)
	if root.NotAfter.Before(end) {
		end = root.NotAfter
	}
	leaf, err := localSign(&x509.Certificate{
		DNSNames: csr.DNSNames, NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}, root, csr.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &certmagic.IssuedCertificate{Certificate: leaf}, nil
}

// load returns the authority, and makes it where there is none.
func (ca *localCA) load(ctx context.Context) (*x509.Certificate, crypto.Signer, error) {
	root, key, err := ca.loadOnce(ctx)
	if !errors.Is(err, fs.ErrNotExist) {
		return root, key, err
	}
	if err := ca.storage.Lock(ctx, "local_ca"); err != nil {
		return nil, nil, err
	}
	defer ca.storage.Unlock(context.WithoutCancel(ctx), "local_ca") //nolint:errcheck // it ends by itself
	if root, key, err = ca.loadOnce(ctx); !errors.Is(err, fs.ErrNotExist) {
		return root, key, err // another instance was first
	}
	if err := ca.make(ctx); err != nil {
		return nil, nil, fmt.Errorf("development CA: %w", err)
	}
	return ca.loadOnce(ctx)
}

func (ca *localCA) loadOnce(ctx context.Context) (*x509.Certificate, crypto.Signer, error) {
	keyPEM, err := ca.storage.Load(ctx, localKey)
	if err != nil {
		return nil, nil, err
	}
	certificatePEM, err := ca.storage.Load(ctx, localCertificate)
	if err != nil {
		return nil, nil, err
	}
	key, err := certmagic.PEMDecodePrivateKey(keyPEM)
	if err != nil {
		return nil, nil, errors.New("development CA: its key does not parse")
	}
	block, _ := pem.Decode(certificatePEM)
	if block == nil {
		return nil, nil, errors.New("development CA: its certificate is no PEM")
	}
	root, err := x509.ParseCertificate(block.Bytes)
	return root, key, err
}

// make makes an authority. Its certificate is stored last: without it, there is none.
func (ca *localCA) make(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	id := make([]byte, 4)
	rand.Read(id) // so that two of them are told apart; it never fails
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Cardstile development CA " + hex.EncodeToString(id)}, NotAfter: time.Now().Add(localCALifetime),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	certificate, err := localSign(template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyPEM, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return err
	}
	if err := ca.storage.Store(ctx, localKey, keyPEM); err != nil {
		return err
	}
	return ca.storage.Store(ctx, localCertificate, certificate)
}

// localSign returns a certificate in PEM. It begins an hour ago: clocks differ.
func localSign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) ([]byte, error) {
	var err error
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, err
	}
	template.NotBefore = time.Now().Add(-time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
