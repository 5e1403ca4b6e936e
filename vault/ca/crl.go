package ca

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cardstile/cardstile/internal/durable"
)

// reasons are those of RFC 5280, section 5.3.1, that fit a client certificate. "unspecified" stands as no reason at all.
var reasons = map[string]int{
	"unspecified": 0, "key_compromise": 1, "affiliation_changed": 3, "superseded": 4, "cessation_of_operation": 5, "privilege_withdrawn": 9,
}

const (
	maxNumberBits = 8*20 - 1 // of a CRL: 20 octets (RFC 5280, section 5.2.3)

	reasonCompromise = "key_compromise"
	reasonSuperseded = "superseded"
)

// Reasons lists the names of reasons.
func Reasons() []string { return slices.Sorted(maps.Keys(reasons)) }

// Revoke marks certificates of the index, all or none, and writes a CRL. Those that are revoked already stay as they are,
// but for a key that turns out to be compromised: that becomes the reason, and the time stays. changed are those that
// became other than they were; where there is an error too, the index has them, and the CRL not.
func (a *Authority) Revoke(list []*Certificate, reason string, now time.Time) (changed []*Certificate, err error) {
	if _, ok := reasons[reason]; !ok {
		return nil, fmt.Errorf("reason %q: known are %s", reason, strings.Join(Reasons(), ", "))
	}
	var entries []entry
	serials := map[string]bool{}
	for _, c := range list {
		if c.Revoked.IsZero() || reason == reasonCompromise && c.Reason != reasonCompromise {
			entries = append(entries, entry{Event: eventRevoked, Time: now.UTC().Truncate(time.Second), Serial: c.Serial(), Reason: reason})
			serials[c.Serial()] = true
		}
	}
	if len(entries) > 0 {
		err = a.append(entries...)
	}
	for _, c := range a.issued {
		if serials[c.Serial()] && c.Reason == reason {
			changed = append(changed, c)
		}
	}
	if err != nil {
		return changed, err
	}
	if _, err := a.WriteCRL(now); err != nil {
		return changed, fmt.Errorf("revoked in the index, and %s is the old one (`cardstile ca crl` writes it anew): %w", a.CRLPath(), err)
	}
	return changed, nil
}

// WriteCRL signs a list of what is revoked (version 2, RFC 5280 section 5), under the next number. Where there is Damage, it
// mends it.
func (a *Authority) WriteCRL(now time.Time) (*x509.RevocationList, error) {
	if a.key == nil {
		return nil, errors.New("write a CRL: no key")
	}
	number, err := a.nextNumber(now)
	if err != nil {
		return nil, err
	}
	now = now.UTC().Truncate(time.Second)
	t := &x509.RevocationList{Number: number, ThisUpdate: now.Add(-backdated), NextUpdate: now.AddDate(0, 0, a.settings.CRLDays)}
	for _, c := range a.issued {
		if !c.Revoked.IsZero() { // expired ones stay: a gateway's clock may be behind
			t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{
				SerialNumber: c.SerialNumber, RevocationTime: c.Revoked, ReasonCode: reasons[c.Reason],
			})
		}
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, a.certificate, a.key)
	if err != nil {
		return nil, err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	// The number goes first: one that is left out harms nobody, one that is used twice does.
	if err := durable.Replace(a.path(numberFile), []byte(number.String()+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := durable.Replace(a.path(CRLFile), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), 0o644); err != nil {
		return list, err
	}
	a.published, a.damage = list, nil
	return list, nil
}

// CRLPath is where the CRL is written.
func (a *Authority) CRLPath() string { return a.path(CRLFile) }

// Damage lists what is wrong with the CRL or its number, for people: names of files, and what WriteCRL does about them. It
// mends them; what they are for stands in the index.
func (a *Authority) Damage() []string { return slices.Clone(a.damage) }

// nextNumber is the number of the next CRL: the one after the last. Where that is not known for sure, numbers go on from
// the clock, in seconds since 1970, as no CA writes more than a list in a second: one that goes back would have gateways
// and others take the new list for an old one (RFC 5280, section 5.2.3).
func (a *Authority) nextNumber(now time.Time) (*big.Int, error) {
	last, err := a.lastNumber()
	if err != nil {
		return nil, err
	}
	sure := last != nil
	if !sure {
		last = new(big.Int)
	}
	if a.published != nil && a.published.Number.Cmp(last) > 0 {
		last, sure = a.published.Number, false
	}
	if clock := big.NewInt(now.Unix()); !sure && clock.Cmp(last) > 0 {
		return clock, nil
	}
	return new(big.Int).Add(last, big.NewInt(1)), nil
}

// lastNumber is what stands in the file; nil where there is no number in it, or no file.
func (a *Authority) lastNumber() (*big.Int, error) {
	content, err := os.ReadFile(a.path(numberFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n, ok := new(big.Int).SetString(strings.TrimSpace(string(content)), 10)
	if !ok || n.Sign() < 0 || n.BitLen() > maxNumberBits {
		return nil, nil
	}
	return n, nil
}

// checkCRL refuses an index that has forgotten a revocation which was published. What WriteCRL mends is damage, and no error.
func (a *Authority) checkCRL() error {
	content, err := os.ReadFile(a.path(CRLFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil {
		if a.published, err = a.ownCRL(content); err != nil {
			a.damage = append(a.damage, fmt.Sprintf("%s: %v: `cardstile ca crl` writes it anew", a.path(CRLFile), err))
		}
	}
	number, err := a.lastNumber()
	switch {
	case err != nil:
		return err
	case number == nil:
		a.damage = append(a.damage, fmt.Sprintf("%s: missing, or not a number: the next list's is the time, in seconds since 1970", a.path(numberFile)))
	case a.published != nil && a.published.Number.Cmp(number) > 0:
		a.damage = append(a.damage, fmt.Sprintf("%s: behind the number of %s: the next list's is the time, in seconds since 1970", a.path(numberFile), a.path(CRLFile)))
	}
	if a.published == nil {
		return nil
	}
	for _, e := range a.published.RevokedCertificateEntries {
		if !slices.ContainsFunc(a.issued, func(c *Certificate) bool { return c.SerialNumber.Cmp(e.SerialNumber) == 0 && !c.Revoked.IsZero() }) {
			return fmt.Errorf("%s: %w: the CRL revokes %s, which is not revoked there", a.path(indexFile), ErrIndex, SerialText(e.SerialNumber))
		}
	}
	return nil
}

// ownCRL reads a CRL of this CA.
func (a *Authority) ownCRL(content []byte) (*x509.RevocationList, error) {
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, errors.New("not PEM")
	}
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil || list.CheckSignatureFrom(a.certificate) != nil || list.Number == nil {
		return nil, errors.New("not a CRL that this CA signed")
	}
	return list, nil
}

// keyBits are the bits of a SubjectPublicKeyInfo's key.
func keyBits(spki []byte) ([]byte, error) {
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		return nil, err
	}
	return info.Key.Bytes, nil
}
