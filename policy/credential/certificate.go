package credential

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"time"

	"github.com/cardstile/cardstile/policy"
)

// CertificatesConfig configures Certificates.
type CertificatesConfig struct {
	Partners *policy.Partners // required
	Now      func() time.Time // time.Now by default
}

// Certificates proves partners by the client certificate of their connection.
type Certificates struct {
	partners *policy.Partners
	now      func() time.Time
}

// NewCertificates returns the prover.
func NewCertificates(config CertificatesConfig) (*Certificates, error) {
	if config.Partners == nil {
		return nil, errors.New("certificate credentials: no partners")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Certificates{config.Partners, config.Now}, nil
}

// Prove names the partner of a chain that TLS has verified: leaf first, trust
// anchor last. It is called for every request and not only for every
// connection, since certificates expire and partners change while a connection
// lives. It does not verify signatures. A disabled partner is proven, and then
// denied.
//
// Refused as "certificate" (chain, subject, pin), "partner" (nobody's) or
// "expired" (not valid at this moment).
func (c *Certificates) Prove(_ context.Context, chain []*x509.Certificate) (policy.Proof, error) {
	partner, err := c.partners.ByChain(chain)
	if err != nil {
		return policy.Proof{}, err
	}
	now := c.now()
	for _, certificate := range chain {
		if now.Before(certificate.NotBefore) || now.After(certificate.NotAfter) {
			return policy.Proof{}, refuse(policy.KindCertificate, policy.RefusedExpired, "a certificate of the chain is not valid now")
		}
	}
	fingerprint := policy.FingerprintOf(chain[0])
	return policy.Proof{
		Kind: policy.KindCertificate, Partner: partner.ID, Environment: partner.Environment,
		Certificate: fingerprint, ID: idOf(policy.KindCertificate, hex.EncodeToString(fingerprint[:])),
	}, nil
}
