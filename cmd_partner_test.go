package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault/ca"
	"github.com/cardstile/cardstile/vault/keys"
)

// office is a directory with a configuration whose one CA, or the first of several, is built in, and began a year ago.
type office struct {
	t   testing.TB
	dir string
	key crypto.Signer
}

func newOffice(t testing.TB, partners string) *office {
	t.Helper()
	return newOfficeOf(t, partners, 3650)
}

// newOfficeOf has a CA that is good for so many days from a year ago on.
func newOfficeOf(t testing.TB, partners string, days int) *office {
	t.Helper()
	o := &office{t: t, dir: t.TempDir()}
	content, err := keys.GenerateCA("P-256")
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.ParseCA(content)
	if err != nil {
		t.Fatal(err)
	}
	o.key = key
	subject, err := policy.ParseSubject("CN=Example Partners CA,O=Example,C=GB")
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Init(ca.Config{Dir: o.path("ca"), Subject: subject.DER(), Days: days, CRLDays: 7, KeyFile: content, Now: time.Now().AddDate(-1, 0, 0), Key: key}); err != nil {
		t.Fatal(err)
	}
	o.configure("ca/ca.pem", partners)
	return o
}

func (o *office) configure(clientCA, partners string) {
	o.t.Helper()
	o.write("config.yaml", []byte(fmt.Sprintf("environment: test\nlisteners:\n  partners: {address: \"127.0.0.1:0\", tls: {certificate: s.pem, key: s.pem, client_ca: %s}}\npartners:\n%s", clientCA, partners)))
}

func (o *office) path(name string) string { return filepath.Join(o.dir, name) }

func (o *office) write(name string, content []byte) {
	o.t.Helper()
	if err := os.WriteFile(o.path(name), content, 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// cardstile runs a command on the directory's configuration. Words that begin with "./" are files in it.
func (o *office) cardstile(words ...string) (stdout, stderr string, err error) {
	o.t.Helper()
	for i, w := range words {
		if strings.HasPrefix(w, "./") {
			words[i] = o.path(w)
		}
	}
	cmd := command()
	var out, said bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&said)
	if words[0] == "partner" {
		words = append(words, "--config", o.path("config.yaml"))
	}
	cmd.SetArgs(words)
	err = cmd.ExecuteContext(context.Background())
	return out.String(), said.String(), err
}

// must runs a command that succeeds.
func (o *office) must(words ...string) (stdout, stderr string) {
	o.t.Helper()
	stdout, stderr, err := o.cardstile(words...)
	if err != nil {
		o.t.Fatalf("%s: %v", strings.Join(words, " "), err)
	}
	return stdout, stderr
}

// refused runs a command that fails so, and delivers nothing.
func (o *office) refused(want string, words ...string) {
	o.t.Helper()
	stdout, _, err := o.cardstile(words...)
	if err == nil || !strings.Contains(err.Error(), want) || stdout != "" {
		o.t.Errorf("%s: %v, want %q\n%s", strings.Join(words, " "), err, want, stdout)
	}
}

// ask makes a request of a new key, with the signature over it of a current one, if there is one.
func (o *office) ask(file, cn string, current *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	o.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		o.t.Fatal(err)
	}
	o.askWith(file, cn, key, current)
	return key
}

func (o *office) askWith(file, cn string, key, current *ecdsa.PrivateKey) *ca.Request {
	o.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, key)
	if err != nil {
		o.t.Fatal(err)
	}
	content := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	o.write(file, content)
	if current != nil {
		digest := sha256.Sum256(der)
		signature, err := current.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			o.t.Fatal(err)
		}
		o.write(file+".sig", signature)
	}
	r, err := ca.ParseRequest(content)
	if err != nil {
		o.t.Fatal(err)
	}
	return r
}

// issued has the built-in CA issue a certificate at another time.
func (o *office) issued(file, partner string, days int, at time.Time) *ecdsa.PrivateKey {
	o.t.Helper()
	a, err := ca.Open(o.path("ca"), func(string, bool) (crypto.Signer, error) { return o.key, nil })
	if err != nil {
		o.t.Fatal(err)
	}
	defer a.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		o.t.Fatal(err)
	}
	c, err := a.Issue(partner, "", o.askWith(file+".csr", partner, key, nil), days, at)
	if err != nil {
		o.t.Fatal(err)
	}
	o.write(file, ca.PEM(c.Certificate))
	return key
}

func (o *office) show(partner string) *partnerReport {
	o.t.Helper()
	out, _ := o.must("partner", "show", partner, "--ca", "./ca", "--json")
	var r partnerReport
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		o.t.Fatal(err)
	}
	return &r
}

const acme = "  - {id: acme, certificate: {subject: CN=acme}}\n"

// TestRenewalOverExpired: a certificate that has ended renews nothing, at the built-in CA and elsewhere. The partner is
// added anew, once somebody knows who asks.
func TestRenewalOverExpired(t *testing.T) {
	o := newOffice(t, acme)
	key := o.issued("old.pem", "acme", 30, time.Now().AddDate(0, 0, -31))
	o.ask("new.csr", "acme", key)
	renew := []string{"partner", "renew", "acme", "--csr", "./new.csr", "--signature", "./new.csr.sig"}
	o.refused("no certificate that is valid now: what ended or was revoked renews nothing (cardstile partner add)", append(renew, "--ca", "./ca")...)
	o.refused("no certificate that is valid now", append(renew, "--ca", "./ca", "--over", "./old.pem")...)
	o.refused("old.pem: it is not a client certificate of the CA of acme, or not valid now: x509: certificate has expired", append(renew, "--external", "--outbox", "./outbox", "--over", "./old.pem")...)
	if _, err := os.Stat(o.path("outbox")); err == nil {
		t.Error("there is an outbox")
	}
	r := o.show("acme")
	if len(r.Certificates) != 1 || r.Certificates[0].Status != "expired" || r.Certificates[0].DaysLeft != 0 {
		t.Fatalf("%+v", r)
	}
	o.refused("no such certificate of acme; nothing was revoked", "partner", "revoke", "acme", "--all", "--ca", "./ca")
	o.must("partner", "add", "acme", "--csr", "./new.csr", "--ca", "./ca")
	// Over the new one it goes on. --over an old one beside it still does not.
	o.ask("next.csr", "acme", key)
	o.refused("old.pem: not a certificate of acme that is valid now", "partner", "renew", "acme", "--csr", "./next.csr", "--signature", "./next.csr.sig", "--over", "./old.pem", "--ca", "./ca")
}

// TestOverlappingCertificates: two certificates are valid side by side and no third; one that ends makes room.
func TestOverlappingCertificates(t *testing.T) {
	o := newOffice(t, acme)
	o.issued("ended.pem", "acme", 30, time.Now().AddDate(0, 0, -31))
	first := o.issued("first.pem", "acme", 90, time.Now().AddDate(0, 0, -80))
	o.ask("second.csr", "acme", first)
	o.must("partner", "renew", "acme", "--csr", "./second.csr", "--signature", "./second.csr.sig", "--ca", "./ca", "--out", "./second.pem")
	r := o.show("acme")
	if n, end := r.valid(); n != 2 || !end.Equal(r.Certificates[2].NotAfter) || len(r.Certificates) != 3 || r.Certificates[1].DaysLeft != 9 {
		t.Errorf("%+v", r)
	}
	o.ask("third.csr", "acme", first)
	o.refused("acme has 2 valid certificates already: the older one must end, or be revoked", "partner", "renew", "acme", "--csr", "./third.csr", "--signature", "./third.csr.sig", "--over", "./first.pem", "--ca", "./ca")
	o.refused("acme has a certificate that is valid until", "partner", "add", "acme", "--csr", "./third.csr", "--ca", "./ca")
	o.must("partner", "revoke", "acme", "--serial", "00:"+strings.ToUpper(r.Certificates[1].Serial), "--reason", "superseded", "--ca", "./ca")
	o.refused("the signature is not the current key's", "partner", "renew", "acme", "--csr", "./third.csr", "--signature", "./third.csr.sig", "--ca", "./ca") // it is the revoked one's
}

// TestWhatToConfigure: what is printed for a partner that the configuration does not know can be pasted there as it is,
// also where the listener trusts several CAs.
func TestWhatToConfigure(t *testing.T) {
	o := newOffice(t, acme)
	both, err := os.ReadFile(o.path("ca/ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := newOffice(t, acme)
	more, err := os.ReadFile(elsewhere.path("ca/ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	o.write("both.pem", append(both, more...))
	for _, c := range []struct{ trusted, partners string }{
		{"ca/ca.pem", acme},
		{"both.pem", "  - {id: acme, certificate: {subject: CN=acme, ca: ca/ca.pem}}\n"},
	} {
		o.configure(c.trusted, c.partners)
		cn := `new "one", \x`
		o.ask("new.csr", cn, nil)
		_, said := o.must("partner", "add", "new"+fmt.Sprint(len(c.trusted)), "--csr", "./new.csr", "--ca", "./ca")
		_, paste, found := strings.Cut(said, "before you hand the certificate out:\n")
		if !found {
			t.Fatal(said)
		}
		o.configure(c.trusted, c.partners+paste)
		if got := o.show("new" + fmt.Sprint(len(c.trusted))); len(got.Subjects) != 1 || len(got.CA) != 1 || got.CA[0] != got.Certificates[0].IssuerSHA256 {
			t.Errorf("%s: %+v", c.trusted, got)
		}
	}
}

// TestPinnedPartner: a certificate of a key that is not pinned comes with a warning, and what is shown says so. A key that
// is pinned for one partner is no other's.
func TestPinnedPartner(t *testing.T) {
	o := newOffice(t, acme)
	key := o.issued("one.pem", "acme", 90, time.Now())
	pin := o.show("acme").Certificates[0].Pin
	pinned := fmt.Sprintf("  - {id: acme, certificate: {subject: CN=acme, pins: [%q]}}\n  - {id: other, certificate: {subject: CN=other}}\n", pin)
	o.configure("ca/ca.pem", pinned)
	o.ask("two.csr", "acme", key)
	_, said := o.must("partner", "renew", "acme", "--csr", "./two.csr", "--signature", "./two.csr.sig", "--ca", "./ca")
	if !strings.Contains(said, "warning: acme has pins, and this one is not among them") {
		t.Error(said)
	}
	r := o.show("acme")
	if len(r.Pins) != 1 || r.Pins[0] != pin || !*r.Certificates[0].Pinned || *r.Certificates[1].Pinned || r.Certificates[1].Pin == pin {
		t.Errorf("%+v", r)
	}
	out, _ := o.must("partner", "show", "acme", "--ca", "./ca")
	if strings.Count(out, "(not among the partner's)") != 1 {
		t.Error(out)
	}
	o.configure("ca/ca.pem", strings.Replace(pinned, pin, pin+`", "`+r.Certificates[1].Pin, 1)) // as it was printed
	if r := o.show("acme"); !*r.Certificates[1].Pinned {
		t.Errorf("%+v", r)
	}
	o.askWith("other.csr", "other", key, nil)
	o.refused("its key is pinned for partner acme", "partner", "add", "other", "--csr", "./other.csr", "--ca", "./ca")
	o.refused("its key is pinned for partner acme", "partner", "add", "other", "--csr", "./other.csr", "--external", "--outbox", "./outbox")
	o.configure("ca/ca.pem", strings.Replace(pinned, fmt.Sprintf(", pins: [%q]", pin), "", 1))
	o.refused("its key is that of another partner's certificate", "partner", "add", "other", "--csr", "./other.csr", "--ca", "./ca")
}

// TestExternalCA: the way by files, with a CA below the one that is trusted. What is not a client's certificate of the
// request's key and subject and of this chain is not taken back.
func TestExternalCA(t *testing.T) {
	o := newOffice(t, acme+"  - {id: other, certificate: {subject: CN=other}}\n")
	root := o.certificate("ca/ca.pem")
	middleKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := func(cn string, change func(*x509.Certificate)) *x509.Certificate {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 30),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
		}
		if change != nil {
			change(c)
		}
		return c
	}
	sign := func(c, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
		t.Helper()
		der, err := x509.CreateCertificate(rand.Reader, c, parent, public, by)
		if err != nil {
			t.Fatal(err)
		}
		c, err = x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	authority := func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign }
	key := o.ask("one.csr", "acme", nil)
	_, said := o.must("partner", "add", "acme", "--csr", "./one.csr", "--external", "--outbox", "./outbox")
	if said != "" {
		t.Error(said)
	}
	o.askWith("other.csr", "other", key, nil)
	o.refused("its key is that of "+o.path("outbox/acme-"), "partner", "add", "other", "--csr", "./other.csr", "--external", "--outbox", "./outbox")

	take := []string{"partner", "add", "acme", "--outbox", "./outbox", "--certificate"}
	for _, c := range []struct {
		what, want string
		file       *x509.Certificate
	}{
		{"a CA", "it is a CA's certificate, and no client's", sign(template("acme", authority), root, key.Public(), o.key)},
		{"a server", "incompatible key usage", sign(template("acme", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), root, key.Public(), o.key)},
		{"ended", "certificate has expired", sign(template("acme", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), root, key.Public(), o.key)},
		{"another subject", "of another subject than the request", sign(template("other", nil), root, key.Public(), o.key)},
		{"another key", "no request of acme in " + o.path("outbox"), sign(template("acme", nil), root, middleKey.Public(), o.key)},
		{"its own CA", "certificate signed by unknown authority", sign(template("acme", nil), template("acme", nil), key.Public(), key)},
	} {
		o.write("back.pem", ca.PEM(c.file))
		o.refused(c.want, append(take, "./back.pem")...)
	}
	// The built-in CA's path length forbids CAs below it, so that the chain hangs on another one.
	topKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	top := sign(template("top", authority), template("top", authority), topKey.Public(), topKey)
	o.write("top.pem", ca.PEM(top))
	o.configure("top.pem", acme)
	middle := sign(template("middle", authority), top, middleKey.Public(), topKey)
	leaf := sign(template("acme", nil), middle, key.Public(), middleKey)
	o.write("back.pem", ca.PEM(leaf))
	o.refused("certificate signed by unknown authority", append(take, "./back.pem")...)
	chain := append(ca.PEM(leaf), ca.PEM(middle)...)
	o.write("back.pem", chain)
	if out, _ := o.must(append(take, "./back.pem")...); out != string(chain) {
		t.Errorf("what is delivered:\n%s", out)
	}

	// The renewal: the current key must have asked, and nothing goes out otherwise.
	before, err := os.ReadDir(o.path("outbox"))
	if err != nil {
		t.Fatal(err)
	}
	o.ask("two.csr", "acme", key)
	renew := []string{"partner", "renew", "acme", "--csr", "./two.csr", "--external", "--outbox", "./outbox"}
	o.refused("--over: required with --external", renew...)
	o.refused("not signed by the current one", append(renew, "--over", "./back.pem")...)
	o.write("lone.pem", ca.PEM(leaf))
	o.refused("not a client certificate of the CA of acme", append(renew, "--over", "./lone.pem", "--signature", "./two.csr.sig")...)
	if after, _ := os.ReadDir(o.path("outbox")); len(after) != len(before) {
		t.Errorf("%d requests in the outbox, and there were %d", len(after), len(before))
	}
	// Nor is it one that a list revokes which the gateway reads.
	list := func(serials ...int64) {
		t.Helper()
		r := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().AddDate(0, 0, 7)}
		for _, n := range serials {
			r.RevokedCertificateEntries = append(r.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now().Add(-time.Hour)})
		}
		der, err := x509.CreateRevocationList(rand.Reader, r, middle, middleKey)
		if err != nil {
			t.Fatal(err)
		}
		o.write("middle.crl", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	}
	o.configure("top.pem, revocation: {crl: [middle.crl, \"https://crl.example/\"]}", acme)
	list(6, 7)
	o.refused("the certificate is revoked", append(renew, "--over", "./back.pem", "--signature", "./two.csr.sig")...)
	list(6)
	out, _ := o.must(append(renew, "--over", "./back.pem", "--signature", "./two.csr.sig")...)
	if !strings.Contains(out, "for the CA: CN=acme, EC P-256, possession proven") {
		t.Error(out)
	}
}

// TestExternalBesides: a certificate of a CA elsewhere that is good for more than one of the built-in CA is taken back with
// a word, and what it says of itself is escaped.
func TestExternalBesides(t *testing.T) {
	o := newOffice(t, acme)
	root := o.certificate("ca/ca.pem")
	key := o.ask("one.csr", "acme", nil)
	o.must("partner", "add", "acme", "--csr", "./one.csr", "--external", "--outbox", "./outbox")
	names := func(t *testing.T, list ...asn1.RawValue) []pkix.Extension {
		der, err := asn1.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der}}
	}
	name := func(tag int, value string) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(value)}
	}
	for what, c := range map[string]struct {
		change func(*testing.T, *x509.Certificate)
		want   []string
	}{
		"nothing": {func(*testing.T, *x509.Certificate) {}, nil},
		"a server's": {func(_ *testing.T, c *x509.Certificate) {
			c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		},
			[]string{"it is not for TLS clients alone: serverAuth"}},
		"all usages": {func(_ *testing.T, c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny, x509.ExtKeyUsageMicrosoftServerGatedCrypto}
			c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}}
		}, []string{"it is not for TLS clients alone: anyExtendedKeyUsage, another usage, 1.2.3"}},
		"no usage": {func(_ *testing.T, c *x509.Certificate) { c.ExtKeyUsage = nil }, []string{"it has no extended key usage, and is good for servers and all else too"}},
		"a CA's key usage": {func(_ *testing.T, c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign },
			[]string{"its key usage is to sign certificates or revocation lists, although it is no CA's"}},
		"names": {func(t *testing.T, c *x509.Certificate) {
			c.ExtraExtensions = names(t, name(2, "evil.example.com"), name(2, "x\x1b[2J"), name(1, "a@example.com"), name(6, "https://x"), name(7, "\x7f\x00\x00\x01"), name(8, "\x2a"))
		}, []string{`it has alternative names, which nothing here looks at: DNS "evil.example.com", DNS "x\x1b[2J", email "a@example.com", URI "https://x", IP 127.0.0.1, one of another kind`}},
		"a long life":       {func(_ *testing.T, c *x509.Certificate) { c.NotAfter = time.Date(2090, 1, 2, 0, 0, 0, 0, time.UTC) }, []string{"it is valid until 2090-01-02, for more than 825 days"}},
		"as long as it may": {func(_ *testing.T, c *x509.Certificate) { c.NotAfter = time.Now().AddDate(0, 0, 825) }, nil},
		"all of it": {func(t *testing.T, c *x509.Certificate) {
			c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
			c.ExtraExtensions = names(t, name(2, "x"))
			c.NotAfter = time.Now().AddDate(3, 0, 0)
		}, []string{"it is not for TLS clients alone: serverAuth", `it has alternative names, which nothing here looks at: DNS "x"`, "for more than 825 days"}},
	} {
		t.Run(what, func(t *testing.T) {
			leaf := &x509.Certificate{
				SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "acme"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 30),
				KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
			}
			c.change(t, leaf)
			der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), o.key)
			if err != nil {
				t.Fatal(err)
			}
			o.write("back.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
			take := []string{"partner", "add", "acme", "--outbox", "./outbox", "--certificate", "./back.pem"}
			_, said := o.must(slices.Clone(take)...)
			if n := strings.Count(said, "warning: "); n != len(c.want) {
				t.Errorf("%d warnings:\n%s", n, said)
			}
			out, _ := o.must(append(take, "--json")...)
			var r issueReport
			o.decode(out, &r)
			if len(r.Warnings) != len(c.want) {
				t.Fatalf("%q", r.Warnings)
			}
			for i, want := range c.want {
				if !strings.HasPrefix(r.Warnings[i], o.path("back.pem")+": it") || !strings.HasSuffix(r.Warnings[i], want) || !strings.Contains(said, "warning: "+r.Warnings[i]+"\n") {
					t.Errorf("%q, want %q, in\n%s", r.Warnings[i], want, said)
				}
			}
		})
	}
}

// decode reads a document that has no members but those that are known.
func (o *office) decode(text string, into any) {
	o.t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		o.t.Fatalf("%v:\n%s", err, text)
	}
	if _, err := d.Token(); err != io.EOF {
		o.t.Fatalf("more than one document:\n%s", text)
	}
}

// TestJSON: what each command did is one document on standard output, and the warnings that people read stand in it. The
// store's commands are in partner-standing.txtar.
func TestJSON(t *testing.T) {
	o := newOffice(t, acme)
	var made authorityReport
	out, said := o.must("ca", "init", "--dir", "./other", "--subject", "CN=Other,O=Example,C=GB", "--insecure-plain-key", "--crl-url", "https://crl.example/a%20b?x", "--json")
	o.decode(out, &made)
	digest := policy.FingerprintOf(o.certificate("other/ca.pem"))
	if made.CA != o.path("other") || made.Certificate != o.path("other/ca.pem") || made.Subject != "CN=Other,C=GB,O=Example" || made.SHA256 != fmt.Sprintf("%x", digest) ||
		made.Sealed || made.CRLURL != "https://crl.example/a%20b?x" || !made.NotAfter.Equal(o.certificate("other/ca.pem").NotAfter) || len(made.Warnings) != 1 ||
		!strings.HasPrefix(made.Warnings[0], "--crl-url: https: ") || !strings.HasSuffix(made.Warnings[0], " http://crl.example/a%20b?x does") || said != "warning: "+made.Warnings[0]+"\n" {
		t.Errorf("%+v\n%s", made, said)
	}
	out, said = o.must("ca", "init", "--dir", "./third", "--subject", "CN=Other,O=Example,C=GB", "--insecure-plain-key", "--crl-url", "http://crl.example/x")
	if said != "" || out != fmt.Sprintf("%s: a CA; trust %[1]s/ca.pem\n", o.path("third")) {
		t.Error(out, said)
	}
	for _, url := range []string{"http://a:b@crl.example/", "ftp://crl.example/", "http://crl.example/ü", "http://crl.example/a b", "http:///x"} {
		o.refused("--crl-url: ", "ca", "init", "--dir", "./fourth", "--subject", "CN=Other,O=Example,C=GB", "--insecure-plain-key", "--crl-url", url)
	}

	// A first certificate, of a partner that is not configured, which asks for more than it gets.
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "new"}, DNSNames: []string{"x"}}, o.ask("x.csr", "new", nil))
	if err != nil {
		t.Fatal(err)
	}
	o.write("new.csr", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	out, said = o.must("partner", "add", "new", "--csr", "./new.csr", "--ca", "./ca", "--json")
	var added issueReport
	o.decode(out, &added)
	shown := o.show("new").Certificates[0]
	c, err := ca.ParseCertificate([]byte(added.PEM))
	if err != nil || added.Certificate == nil {
		t.Fatal(err, out, said)
	}
	added.Certificate.certificate, shown.certificate = nil, nil
	if *added.Certificate != shown || ca.SerialText(c.SerialNumber) != shown.Serial || added.Partner != "new" || added.Out != "" || added.Request != nil ||
		added.Configure != "  - id: new\n    certificate: {subject: \"CN=new\"}\n" || len(added.Warnings) != 1 || !strings.HasSuffix(added.Warnings[0], "not granted, although it asks: subjectAltName") {
		t.Errorf("%+v, %+v\n%s", added, added.Certificate, out)
	}
	if said != "warning: "+added.Warnings[0]+"\n" {
		t.Error(said)
	}

	// One that goes to a file, the renewal of it, and a request that goes elsewhere.
	key := o.ask("acme.csr", "acme", nil)
	var first, second, outside issueReport
	out, said = o.must("partner", "add", "acme", "--csr", "./acme.csr", "--ca", "./ca", "--out", "./acme.pem", "--json")
	o.decode(out, &first)
	if first.Out != o.path("acme.pem") || first.PEM != "" || first.Configure != "" || len(first.Warnings) > 0 || said != "" || first.Certificate.Serial != ca.SerialText(o.certificate("acme.pem").SerialNumber) {
		t.Errorf("%+v\n%s", first, said)
	}
	o.ask("next.csr", "acme", key)
	out, _ = o.must("partner", "renew", "acme", "--csr", "./next.csr", "--signature", "./next.csr.sig", "--ca", "./ca", "--json")
	o.decode(out, &second)
	if second.Certificate.Serial == first.Certificate.Serial || !strings.Contains(second.PEM, "BEGIN CERTIFICATE") {
		t.Errorf("%+v", second)
	}
	r := o.askWith("acme.csr", "acme", o.ask("x.csr", "acme", nil), nil)
	out, _ = o.must("partner", "add", "acme", "--csr", "./acme.csr", "--external", "--outbox", "./outbox", "--json")
	o.decode(out, &outside)
	if q := outside.Request; q == nil || outside.Certificate != nil || q.Subject != "CN=acme" || q.Key != "EC P-256" || q.Pin != fmt.Sprintf("%x", r.Pin()) || !slices.Equal(read(t, q.File), r.PEM()) {
		t.Errorf("%s", out)
	}

	// The end of one, and then of both, with a list that is damaged.
	var one, all revokeReport
	out, said = o.must("partner", "revoke", "acme", "--serial", first.Certificate.Serial, "--reason", "superseded", "--ca", "./ca", "--json")
	o.decode(out, &one)
	if len(one.Revoked) != 1 || one.Revoked[0].Serial != first.Certificate.Serial || one.Revoked[0].Reason != "superseded" || time.Since(one.Revoked[0].Revoked) > time.Hour ||
		one.Unchanged == nil || len(one.Unchanged) > 0 || one.CRL != o.path("ca/crl.pem") || one.Tokens != nil || len(one.Warnings) != 2 {
		t.Errorf("%+v", one)
	}
	for _, w := range one.Warnings { // of listeners without revocation, and of the store
		if !strings.Contains(said, "warning: "+w+"\n") {
			t.Error(said)
		}
	}
	o.write("ca/crl.pem", []byte("x\n"))
	for _, words := range [][]string{{"partner", "list", "--ca", "./ca"}, {"partner", "list", "--ca", "./ca", "--json"}, {"partner", "show", "acme", "--ca", "./ca", "--json"}} {
		if _, said := o.must(words...); !strings.Contains(said, "warning: "+o.path("ca/crl.pem")+": not PEM: `cardstile ca crl` writes it anew\n") {
			t.Errorf("%v: %s", words, said)
		}
	}
	out, _ = o.must("partner", "revoke", "acme", "--all", "--ca", "./ca", "--json")
	o.decode(out, &all)
	if len(all.Revoked) != 1 || all.Revoked[0].Serial != second.Certificate.Serial || len(all.Unchanged) != 1 || all.Unchanged[0] != one.Revoked[0] || len(all.Warnings) != 3 || !strings.Contains(all.Warnings[0], "crl.pem: not PEM") {
		t.Errorf("%+v", all)
	}
	var list listReport
	if err := os.Remove(o.path("ca/crl-number")); err != nil {
		t.Fatal(err)
	}
	out, _ = o.must("ca", "crl", "--ca", "./ca", "--json")
	o.decode(out, &list)
	if list.CRL != o.path("ca/crl.pem") || list.Number.Int64() < 1e9 || list.Revoked != 2 || !list.NextUpdate.After(list.ThisUpdate) || len(list.Warnings) != 1 || !strings.Contains(list.Warnings[0], "crl-number: missing") {
		t.Errorf("%+v", list)
	}
	if out, said = o.must("ca", "crl", "--ca", "./ca"); said != "" || !strings.Contains(out, fmt.Sprintf("number %d, 2 revoked", list.Number.Int64()+1)) {
		t.Error(out, said)
	}

	// What is refused is no document.
	o.refused("no CA: ", "partner", "add", "acme", "--csr", "./acme.csr", "--ca", "./nowhere", "--json")
}

// TestJSONDoc: docs/partners.md names each member that a command prints.
func TestJSONDoc(t *testing.T) {
	doc := string(read(t, "docs/partners.md"))
	seen := map[reflect.Type]bool{}
	var look func(reflect.Type)
	look = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ.PkgPath() != reflect.TypeFor[partnerReport]().PkgPath() || seen[typ] {
			return
		}
		seen[typ] = true
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.IsExported() && !strings.Contains(doc, "`"+name+"`") {
				t.Errorf("%s: `%s` is not in docs/partners.md", typ, name)
			}
			look(f.Type)
		}
	}
	for _, report := range []any{partnerReport{}, authorityReport{}, listReport{}, issueReport{}, revokeReport{}, standingReport{}} {
		look(reflect.TypeOf(report))
	}
	if len(seen) != 9 {
		t.Errorf("%d kinds of object", len(seen))
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestNotDelivered: a certificate that could not be written is said to be issued, and can be had. One that nothing could be
// issued for leaves no file.
func TestNotDelivered(t *testing.T) {
	o := newOffice(t, acme)
	o.ask("new.csr", "acme", nil)
	o.refused("want 1 to 825", "partner", "add", "acme", "--csr", "./new.csr", "--ca", "./ca", "--out", "./new.pem", "--days", "826")
	o.askWith("blank.csr", " acme", o.ask("x.csr", "acme", nil), nil)
	o.configure("ca/ca.pem", "  - {id: acme, certificate: {subject: 'CN=\\ acme'}}\n")
	o.refused("white space around it", "partner", "add", "acme", "--csr", "./blank.csr", "--ca", "./ca", "--out", "./new.pem")
	if _, err := os.Lstat(o.path("new.pem")); err == nil {
		t.Error("there is a file, and no certificate")
	}
	o.configure("ca/ca.pem", acme)
	cmd := command()
	cmd.SetOut(full{})
	cmd.SetArgs([]string{"partner", "add", "acme", "--csr", o.path("new.csr"), "--ca", o.path("ca"), "--config", o.path("config.yaml")})
	err := cmd.ExecuteContext(context.Background())
	r := o.show("acme")
	if len(r.Certificates) != 1 {
		t.Fatalf("%v, %+v", err, r)
	}
	want := fmt.Sprintf("serial %s is issued, and not delivered (`cardstile partner show acme --serial %[1]s --pem` prints it): no room", r.Certificates[0].Serial)
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	out, _ := o.must("partner", "show", "acme", "--serial", r.Certificates[0].Serial, "--pem", "--ca", "./ca")
	if c, err := ca.ParseCertificate([]byte(out)); err != nil || ca.SerialText(c.SerialNumber) != r.Certificates[0].Serial {
		t.Error(err)
	}
}

// full is a place without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no room") }

// TestCAEnds: a certificate that is cut short by the end of the CA's own comes with a word.
func TestCAEnds(t *testing.T) {
	o := newOffice(t, acme)
	o.ask("new.csr", "acme", nil)
	if _, said := o.must("partner", "add", "acme", "--csr", "./new.csr", "--ca", "./ca"); strings.Contains(said, "warning") {
		t.Error(said)
	}
	old := newOfficeOf(t, acme, 380)
	old.ask("new.csr", "acme", nil)
	if _, said := old.must("partner", "add", "acme", "--csr", "./new.csr", "--ca", "./ca"); !strings.Contains(said, "it ends with the CA's own certificate, sooner than in 90 days") {
		t.Error(said)
	}
}

func (o *office) certificate(file string) *x509.Certificate {
	o.t.Helper()
	c, _, err := certificateFile(o.path(file))
	if err != nil {
		o.t.Fatal(err)
	}
	return c
}

// TestListPartners: one line for each, in the order of their ids, also for a partner of the index alone, and the same in
// JSON. A thousand are no other matter: see BenchmarkListPartners.
func TestListPartners(t *testing.T) {
	o := newOffice(t, acme+"  - {id: off, disabled: true, certificate: {subject: CN=off}}\n")
	o.issued("a.pem", "acme", 90, time.Now())
	o.issued("b.pem", "gone", 20, time.Now())
	out, _ := o.must("partner", "list", "--ca", "./ca")
	var got [][]string
	for line := range strings.Lines(out) {
		got = append(got, strings.Fields(line))
	}
	column := func(row, i int) string { return got[row][len(got[row])-i] }
	if len(got) != 4 || got[1][0] != "acme" || got[2][0] != "gone" || got[3][0] != "off" ||
		column(1, 3) != "1" || column(2, 3) != "1" || column(3, 3) != "0" || column(3, 1) != "-" || !slices.Contains([]string{"19", "20"}, column(2, 1)) {
		t.Error(out)
	}
	out, _ = o.must("partner", "list", "--ca", "./ca", "--json")
	var list []partnerReport
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	states := ""
	for _, r := range list {
		states += fmt.Sprintf("%s: %s, %d\n", r.Partner, r.State, len(r.Certificates))
	}
	if states != "acme: enabled, 1\ngone: not configured, 1\noff: disabled in the configuration, 0\n" {
		t.Error(states)
	}
	if _, _, err := o.cardstile("partner", "list"); err == nil {
		t.Error("without a CA and a store it knows nothing")
	} else if coded, ok := err.(*exitError); !ok || coded.code != 2 {
		t.Errorf("%v", err)
	}
	if strings.Contains(out, "PRIVATE") {
		t.Error("a private key")
	}
}

// BenchmarkListPartners is `partner list --ca` with 1000 partners of two certificates each: an operator's look, or a
// script's each minute. All of the configuration is checked, and each line of the index is verified.
func BenchmarkListPartners(b *testing.B) {
	o := newOffice(b, acme)
	a, err := ca.Open(o.path("ca"), func(string, bool) (crypto.Signer, error) { return o.key, nil })
	if err != nil {
		b.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	partners := ""
	for i := range 1000 {
		id := fmt.Sprintf("partner-%d", i)
		partners += fmt.Sprintf("  - {id: %s, certificate: {subject: CN=%s}}\n", id, id)
		r := o.askWith("x.csr", id, key, nil)
		if i > 0 { // each partner has a key of its own
			key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			r = o.askWith("x.csr", id, key, nil)
		}
		for range 2 {
			if _, err := a.Issue(id, "", r, 90, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	}
	a.Close()
	o.configure("ca/ca.pem", partners)
	b.ReportAllocs()
	for b.Loop() {
		if list, err := listPartners(context.Background(), o.path("config.yaml"), o.path("ca"), &notes{said: io.Discard}); err != nil || len(list) != 1000 {
			b.Fatal(len(list), err)
		}
	}
}
