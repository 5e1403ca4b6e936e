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
	"strconv"
	"strings"
	"time"

	"github.com/cardstile/cardstile/internal/durable"
)

// reasons are those of RFC 5280, section 5.3.1, that fit a client certificate. "unspecified" stands as no reason at all.
var reasons = map[string]int{
	"unspecified": 0, "key_compromise": 1, "affiliation_changed": 3, "superseded": 4, "cessation_of_operation": 5, "privilege_withdrawn": 9,
}

const (
	reasonCompromise = "key_compromise"
	reasonSuperseded = "superseded"
)

// Reasons lists the names of reasons.
func Reasons() []string { return slices.Sorted(maps.Keys(reasons)) }

// Revoke marks certificates of the index, all or none, and writes a CRL. Those that are revoked already stay as they are,
// but for a key that turns out to be compromised: that becomes the reason, and the time stays. changed are those that
// became other than they were; where there is an error too, the index has
// them, and the CRL not.
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

// WriteCRL signs a list of what is revoked (version 2, RFC 5280 section 5), under the next number.
func (a *Authority) WriteCRL(now time.Time) (*x509.RevocationList, error) {
	if a.key == nil {
		return nil, errors.New("write a CRL: no key")
	}
	number, err := a.crlNumber()
	if err != nil {
		return nil, err
	}
	number++
	now = now.UTC().Truncate(time.Second)
	t := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(-backdated), NextUpdate: now.AddDate(0, 0, a.settings.CRLDays)}
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
	if err := durable.Replace(a.path(numberFile), []byte(strconv.FormatInt(number, 10)+"\n"), 0o600); err != nil {
		return nil, err
	}
	return list, durable.Replace(a.path(CRLFile), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), 0o644)
}

// CRLPath is where the CRL is written.
func (a *Authority) CRLPath() string { return a.path(CRLFile) }

func (a *Authority) crlNumber() (int64, error) {
	content, err := os.ReadFile(a.path(numberFile))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: not a number", a.path(numberFile))
	}
	return n, nil
}

// checkCRL refuses an index that has forgotten a revocation which was published, and a CRL number that went back.
func (a *Authority) checkCRL() error {
	content, err := os.ReadFile(a.path(CRLFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return fmt.Errorf("%s: not PEM", a.path(CRLFile))
	}
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil || list.CheckSignatureFrom(a.certificate) != nil {
		return fmt.Errorf("%s: not a CRL that this CA signed", a.path(CRLFile))
	}
	number, err := a.crlNumber()
	if err != nil {
		return err
	}
	if list.Number.Cmp(big.NewInt(number)) > 0 {
		return fmt.Errorf("%s: it is behind the number of %s", a.path(numberFile), a.path(CRLFile))
	}
	for _, e := range list.RevokedCertificateEntries {
		if !slices.ContainsFunc(a.issued, func(c *Certificate) bool { return c.SerialNumber.Cmp(e.SerialNumber) == 0 && !c.Revoked.IsZero() }) {
			return fmt.Errorf("%s: %w: the CRL revokes %s, which is not revoked there", a.path(indexFile), ErrIndex, SerialText(e.SerialNumber))
		}
	}
	return nil
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
