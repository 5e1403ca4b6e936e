package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
)

// This file judges what certificates rest on: those that are shown to others, and authorities.

// Primitives of certificates that FIPS 140-3 does not approve.
const (
	outsideSmallRSA = "rsa below 2048 bits"
	outsideCurve    = "ecdsa on other curves than p-256, p-384 and p-521"
	outsideSHA1     = "signatures with sha-1 or md5"
)

const (
	minTLSRSA   = 1024 // bits; crypto/rsa neither signs nor verifies with fewer
	soundTLSRSA = 2048 // NIST SP 800-131A section 3
)

// sound judges a certificate of ours, with its chain. How the root signed itself nobody looks at.
func (b *builder) sound(key string, chain [][]byte) {
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			b.problem(key, "certificate %d does not parse", i+1)
			return
		}
		b.soundKey(key, i+1, c.PublicKey, false)
		switch c.SignatureAlgorithm {
		case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1:
			if !bytes.Equal(c.RawIssuer, c.RawSubject) {
				b.notice("%s: certificate %d is signed with %s, which callers refuse", key, i+1, c.SignatureAlgorithm)
				b.outside(key, outsideSHA1)
			}
		}
	}
}

// soundKey judges a public key of the nth certificate of a file. That of an authority is what others' certificates are verified with.
func (b *builder) soundKey(key string, n int, public crypto.PublicKey, authority bool) {
	switch public := public.(type) {
	case *rsa.PublicKey:
		b.soundRSA(key, n, public, authority)
	case *ecdsa.PublicKey:
		if !slices.Contains([]elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}, public.Curve) {
			b.beyondTLS(key, n, outsideCurve, authority)
		}
	}
}

func (b *builder) soundRSA(key string, n int, public *rsa.PublicKey, authority bool) {
	switch bits := public.N.BitLen(); {
	case bits < minTLSRSA, bits < soundTLSRSA && b.anyProduction():
		b.problem(key, "certificate %d has an RSA key of %d bits: want %d or more", n, bits, soundTLSRSA)
	case bits < soundTLSRSA:
		b.notice("%s: certificate %d has an RSA key of %d bits: production takes none below %d", key, n, bits, soundTLSRSA)
		b.beyondTLS(key, n, outsideSmallRSA, authority)
	case fips140.Enforced(): // odd sizes and small exponents
		if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, make([]byte, crypto.SHA256.Size()), make([]byte, public.Size())); !errors.Is(err, rsa.ErrVerification) {
			b.problem(key, "certificate %d: %v", n, err)
		}
	}
}

// beyondTLS is outside for a certificate. In FIPS 140-3 mode, whichever, TLS takes no chain that has such a key: an authority's would have
// nobody let in, or nobody reached.
func (b *builder) beyondTLS(key string, n int, primitive string, authority bool) {
	if authority && fips140.Enabled() && !fips140.Enforced() {
		b.problem(key, "certificate %d needs %s, which TLS in FIPS 140-3 mode does not take", n, primitive)
		return
	}
	b.outside(key, primitive)
}

// anyProduction reports whether a part of the configuration is of environment production.
func (b *builder) anyProduction() bool {
	return production(b.config.Environment) ||
		slices.ContainsFunc(slices.Collect(maps.Values(b.config.Listeners)), func(l ListenerConfig) bool { return production(l.Environment) }) ||
		slices.ContainsFunc(slices.Collect(maps.Values(b.config.Issuers)), func(i IssuerConfig) bool { return production(i.Environment) })
}
