package main

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cardstile/cardstile/gateway/revocation"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault/ca"
)

// This file is the way to a CA elsewhere and back, by files.

// handOut puts a checked request into the outbox.
func (i *issuing) handOut(out io.Writer, b *builder, id string, request *ca.Request, subject policy.Subject, renew bool) error {
	if renew {
		if i.over == "" {
			return errors.New("--over: required with --external: the current certificate")
		}
		current, between, err := certificateFile(i.over)
		if err != nil {
			return err
		}
		if _, err := b.endsInCA(id, current, between); err != nil {
			return fmt.Errorf("%s: %w", i.over, err)
		}
		if err := i.proveRenewal(request, current); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(i.outbox, 0o700); err != nil {
		return err
	}
	name := outboxFile(i.outbox, id, request.Pin())
	if err := i.ownRequest(name, request.Pin()); err != nil {
		return err
	}
	if err := writeNew(name, request.PEM(), 0o644); err != nil {
		return err
	}
	pin := request.Pin()
	i.report.Request = &requestReport{File: name, Subject: subject.String(), Key: request.Key(), Pin: hex.EncodeToString(pin[:])}
	i.report.Out = "" // there is no certificate yet
	_, err := fmt.Fprintf(out, "%s: for the CA: %s, %s, possession proven\n", name, subject, request.Key())
	return err
}

func outboxFile(dir, id string, pin [32]byte) string { return filepath.Join(dir, id+outboxSuffix(pin)) }

func outboxSuffix(pin [32]byte) string { return "-" + hex.EncodeToString(pin[:8]) + ".csr" }

// ownRequest refuses a key that another partner's request in the outbox has.
func (i *issuing) ownRequest(name string, pin [32]byte) error {
	list, err := os.ReadDir(i.outbox)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Name() != filepath.Base(name) && strings.HasSuffix(e.Name(), outboxSuffix(pin)) {
			return fmt.Errorf("%s: %w: its key is that of %s", i.csr, ca.ErrRequest, filepath.Join(i.outbox, e.Name()))
		}
	}
	return nil
}

// takeBack checks what an external CA issued against the request that it was for.
func (i *issuing) takeBack(out io.Writer, b *builder, id string) error {
	c, between, err := certificateFile(i.certificate)
	if err != nil {
		return err
	}
	name := outboxFile(i.outbox, id, sha256.Sum256(c.RawSubjectPublicKeyInfo))
	content, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: no request of %s in %s is of its key", i.certificate, id, i.outbox)
	}
	if err != nil {
		return err
	}
	request, err := ca.ParseRequest(content)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := request.Fits(c); err != nil {
		return fmt.Errorf("%s: %w", i.certificate, err)
	}
	subject, err := requestedSubject(b, id, c.RawSubject)
	if err != nil {
		return fmt.Errorf("%s: %w", i.certificate, err)
	}
	chain, err := b.endsInCA(id, c, between)
	if err != nil {
		return fmt.Errorf("%s: %w", i.certificate, err)
	}
	if err := ownKey(b, id, policy.PinOf(c)); err != nil {
		return fmt.Errorf("%s: %w", i.certificate, err)
	}
	file, err := i.reserve(out)
	if err != nil {
		return err
	}
	content = ca.PEM(c)
	for _, next := range between {
		content = append(content, ca.PEM(next)...)
	}
	if err := i.deliver(file, content); err != nil {
		return err
	}
	i.explain(b, id, chain, subject, "")
	for _, text := range besides(c, time.Now()) {
		i.warn("%s: %s", i.certificate, text)
	}
	return nil
}

// endsInCA verifies that a certificate is a client's, valid now, and issued by a CA that the partner's may end in. chain is one
// from it to such a CA.
func (b *builder) endsInCA(id string, c *x509.Certificate, between []*x509.Certificate) (chain []*x509.Certificate, err error) {
	anchors := b.trusted
	if p := b.partners.ByID(id); p != nil {
		anchors = p.CA
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, lists := range []map[string][]*x509.Certificate{b.clientCAs, b.hostAuthorities} {
		for _, list := range lists {
			for _, root := range list {
				if slices.Contains(anchors, policy.FingerprintOf(root)) {
					roots.AddCert(root)
				}
			}
		}
	}
	for _, next := range between {
		intermediates.AddCert(next)
	}
	if c.IsCA { // whoever has it could issue certificates of other partners
		return nil, errors.New("it is a CA's certificate, and no client's")
	}
	chains, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return nil, fmt.Errorf("it is not a client certificate of the CA of %s, or not valid now: %w", id, err)
	}
	if len(chains[0]) < 2 {
		return nil, errors.New("it is itself the CA that is trusted")
	}
	return chains[0], b.listedAsRevoked(chains)
}

// usages are what people call extended key usages (RFC 5280, section 4.2.1.12).
var usages = map[x509.ExtKeyUsage]string{
	x509.ExtKeyUsageAny: "anyExtendedKeyUsage", x509.ExtKeyUsageServerAuth: "serverAuth", x509.ExtKeyUsageClientAuth: "clientAuth", x509.ExtKeyUsageCodeSigning: "codeSigning",
	x509.ExtKeyUsageEmailProtection: "emailProtection", x509.ExtKeyUsageTimeStamping: "timeStamping", x509.ExtKeyUsageOCSPSigning: "OCSPSigning",
}

// besides lists what a client certificate is good for that one of the built-in CA is not. It is for people: what is quoted
// of the certificate is escaped.
func besides(c *x509.Certificate, now time.Time) []string {
	var found, others []string
	for _, u := range c.ExtKeyUsage {
		if u != x509.ExtKeyUsageClientAuth {
			others = append(others, cmp.Or(usages[u], "another usage"))
		}
	}
	for _, id := range c.UnknownExtKeyUsage {
		others = append(others, id.String())
	}
	switch {
	case len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0:
		found = append(found, "it has no extended key usage, and is good for servers and all else too")
	case len(others) > 0:
		found = append(found, "it is not for TLS clients alone: "+strings.Join(others, ", "))
	}
	if c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		found = append(found, "its key usage is to sign certificates or revocation lists, although it is no CA's")
	}
	if names := alternativeNames(c); len(names) > 0 {
		found = append(found, "it has alternative names, which nothing here looks at: "+strings.Join(names, ", "))
	}
	if c.NotAfter.After(now.AddDate(0, 0, maxDays)) {
		found = append(found, fmt.Sprintf("it is valid until %s, for more than %d days", c.NotAfter.UTC().Format(time.DateOnly), maxDays))
	}
	return found
}

// nameKinds are those of GeneralName that are text, by their tags (RFC 5280, section 4.2.1.6).
var nameKinds = map[int]string{1: "email", 2: "DNS", 6: "URI"}

// alternativeNames are all of a certificate's, quoted.
func alternativeNames(c *x509.Certificate) (names []string) {
	for _, e := range c.Extensions {
		if !e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		var list []asn1.RawValue
		if _, err := asn1.Unmarshal(e.Value, &list); err != nil {
			return []string{"one that does not parse"}
		}
		for _, n := range list {
			address, _ := netip.AddrFromSlice(n.Bytes)
			switch kind := nameKinds[n.Tag]; {
			case kind != "":
				names = append(names, kind+" "+strconv.QuoteToASCII(string(n.Bytes)))
			case n.Tag == 7 && address.IsValid():
				names = append(names, "IP "+address.String())
			default:
				names = append(names, "one of another kind")
			}
		}
	}
	return names
}

// listedAsRevoked refuses a certificate that a list revokes which the configuration has as a file. Lists at URLs and
// responders are for gateways to ask.
func (b *builder) listedAsRevoked(chains [][]*x509.Certificate) error {
	for _, name := range slices.Sorted(maps.Keys(b.config.Listeners)) {
		r := b.config.Listeners[name].TLS.Revocation
		if r == nil {
			continue
		}
		config := revocation.Config{Listener: name, CAs: slices.Concat(b.clientCAs[name], b.hostAuthorities[name]), Soft: true}
		for _, file := range r.CRL {
			if strings.Contains(file, "://") {
				continue
			}
			content, err := os.ReadFile(b.relative(file))
			if err != nil {
				return err
			}
			config.Lists = append(config.Lists, revocation.Source{Content: content})
		}
		lists, err := revocation.New(config)
		if err != nil {
			return fmt.Errorf("listeners.%s.tls.revocation: %w", name, err)
		}
		if err := lists.Any(chains, time.Now()); err != nil {
			return fmt.Errorf("listeners.%s.tls.revocation: %w", name, err)
		}
	}
	return nil
}
