// Package ca is a small certificate authority for partners' client certificates. Who may have one, and under which name,
// is for its caller to say.
//
// Its state is a directory: the certificate, the key (commonly sealed, see vault/keys), an index to which each
// certificate and each revocation adds a line that the CA signs, and the last CRL. Commands of several processes take
// turns by a lock.
//
// The index shows what somebody changed, took out or cut off. A whole directory that is put back to an earlier state
// does not show, except by a CRL that was published since.
package ca

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cardstile/cardstile/internal/durable"
)

// Files of a CA's directory.
const (
	CertificateFile = "ca.pem"
	CRLFile         = "crl.pem"

	indexFile    = "index.jsonl"
	headFile     = "index.head"
	settingsFile = "ca.json"
	numberFile   = "crl-number"
	lockFile     = "lock"
)

// keyKinds are what a key file can be, as package keys names it: the CA's is called by it. Of several that are there the first is
// the CA's: one that was sealed anew, and not yet what it was made of. Earlier builds called every sealed one after age.
var keyKinds = []string{"sealed", "age", kindPlain}

const kindPlain = "pem"

// keyFile is the name of a key file of a kind.
func keyFile(kind string) string { return "ca-key." + kind }

const (
	indexHash   = crypto.SHA256   // of what stands signed in the index
	backdated   = 5 * time.Minute // for callers' clocks that are behind
	serialBytes = 20              // the most that RFC 5280 allows
)

// settings are what a CA was made with.
type settings struct {
	CRLURL  string `json:"crl_url,omitempty"`
	CRLDays int    `json:"crl_days"`
}

// Config is what a new CA is made of.
type Config struct {
	Dir     string    // made with mode 0700; one that is there must be nobody else's, and not hold a CA
	Subject []byte    // DER of a Name
	Days    int       // how long its certificate is valid
	CRLURL  string    // where gateways and others find its CRL; "" where nowhere
	CRLDays int       // until a CRL's nextUpdate
	KeyFile []byte    // what stands in the key file
	KeyKind string    // what KeyFile is: "age", "sealed", or "pem" (the default), which is plain
	Now     time.Time // required
	Key     crypto.Signer
}

// Init makes a CA. It writes nothing where there is one already.
func Init(c Config) error {
	kind := cmp.Or(c.KeyKind, kindPlain)
	if !slices.Contains(keyKinds, kind) {
		return fmt.Errorf("a CA's key file is not of kind %q", kind)
	}
	der, err := selfSigned(c)
	if err != nil {
		return err
	}
	if err := privateDir(c.Dir); err != nil {
		return err
	}
	unlock, err := durable.Lock(filepath.Join(c.Dir, lockFile), false)
	if err != nil {
		return err
	}
	defer unlock()
	files := []string{CertificateFile, indexFile}
	for _, k := range keyKinds {
		files = append(files, keyFile(k))
	}
	for _, name := range files {
		switch _, err := os.Lstat(filepath.Join(c.Dir, name)); {
		case errors.Is(err, os.ErrNotExist):
		case name == CertificateFile:
			return fmt.Errorf("%s: there is a CA already (%s); nothing was written", c.Dir, name)
		default: // the certificate is written last
			return fmt.Errorf("%s: the rest of a CA that was not finished (%s), which has issued nothing: remove the directory; nothing was written", c.Dir, name)
		}
	}
	text, err := json.Marshal(settings{c.CRLURL, c.CRLDays})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		content []byte
		mode    os.FileMode
	}{
		{keyFile(kind), c.KeyFile, 0o600}, {settingsFile, append(text, '\n'), 0o600}, {numberFile, []byte("0\n"), 0o600},
		{indexFile, nil, 0o600}, {headFile, []byte("0 -\n"), 0o600},
		{CertificateFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644}, // last: with it there is a CA
	} {
		if err := durable.Replace(filepath.Join(c.Dir, f.name), f.content, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// privateDir makes a directory that nobody else has rights in. One that is there is left as it is: others may need it so.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s: is there already, with mode %04o, and a CA's directory is nobody else's: `chmod 700 %[1]s`, or name one that is not there; nothing was written", dir, mode)
	}
	return nil
}

func selfSigned(c Config) ([]byte, error) {
	if err := checkAuthorityName(c.Subject); err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	id, err := keyID(c.Key.Public())
	if err != nil {
		return nil, err
	}
	from := c.Now.Add(-backdated).UTC().Truncate(time.Second)
	t := &x509.Certificate{
		SerialNumber: serial, RawSubject: c.Subject, NotBefore: from, NotAfter: from.AddDate(0, 0, c.Days).Add(-time.Second),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true, SubjectKeyId: id,
	}
	return x509.CreateCertificate(rand.Reader, t, t, c.Key.Public(), c.Key)
}

// newSerial draws 158 random bits: 20 octets, positive (RFC 5280, section 4.1.2.2).
func newSerial() (*big.Int, error) {
	var b [serialBytes]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40 // always of one length, and positive in two's complement
	return new(big.Int).SetBytes(b[:]), nil
}

// keyID is method 1 of RFC 7093, section 2: 160 bits of SHA-256 over the key's bits.
func keyID(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	bits, err := keyBits(der)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(bits)
	return sum[:20], nil
}

// Authority is an open CA. It is not safe for concurrent use; Close lets the next process in. One that was opened
// without its key has others read beside it.
type Authority struct {
	dir         string
	settings    settings
	certificate *x509.Certificate
	key         crypto.Signer // nil: for reading
	unlock      func()
	index       []byte
	last        string // digest of the last line
	lines       int
	issued      []*Certificate
	published   *x509.RevocationList // crl.pem; nil where there is none that can be read
	damage      []string
}

// Open waits for the directory's lock, and verifies the index and that the CRL has nothing that the index has not. load
// opens the key; without it the CA can only be read. Damage says what WriteCRL mends.
func Open(dir string, load func(file string, sealed bool) (crypto.Signer, error)) (_ *Authority, err error) {
	a := &Authority{dir: dir}
	if _, err := os.Stat(a.path(CertificateFile)); err != nil {
		return nil, fmt.Errorf("no CA: %w (cardstile ca init makes one)", err)
	}
	if a.unlock, err = durable.Lock(a.path(lockFile), load == nil); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	content, err := os.ReadFile(a.path(CertificateFile))
	if err != nil {
		return nil, err
	}
	if a.certificate, err = ParseCertificate(content); err != nil {
		return nil, fmt.Errorf("%s: %w", a.path(CertificateFile), err)
	}
	text, err := os.ReadFile(a.path(settingsFile))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &a.settings); err != nil || a.settings.CRLDays <= 0 {
		return nil, fmt.Errorf("%s: not a CA's settings", a.path(settingsFile))
	}
	if err := errors.Join(a.readIndex(), a.checkCRL()); err != nil {
		return nil, err
	}
	if load == nil {
		return a, nil
	}
	return a, errors.Join(durable.Sweep(dir), a.loadKey(load))
}

func (a *Authority) loadKey(load func(string, bool) (crypto.Signer, error)) error {
	kind := a.keyKind()
	name := a.path(keyFile(kind))
	key, err := load(name, kind != kindPlain)
	if err != nil {
		return fmt.Errorf("the CA's key: %w", err)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(a.certificate.PublicKey) {
		return fmt.Errorf("%s: not the key of %s", name, a.path(CertificateFile))
	}
	a.key = key
	return nil
}

// Sealed reports whether the CA's key is sealed under a passphrase.
func (a *Authority) Sealed() bool { return a.keyKind() != kindPlain }

// keyKind is of what kind the CA's key file is.
func (a *Authority) keyKind() string {
	for _, kind := range keyKinds {
		if _, err := os.Stat(a.path(keyFile(kind))); err == nil {
			return kind
		}
	}
	return kindPlain
}

// Close lets the next process in.
func (a *Authority) Close() { a.unlock() }

func (a *Authority) path(name string) string { return filepath.Join(a.dir, name) }

// CA is the authority's own certificate.
func (a *Authority) CA() *x509.Certificate { return a.certificate }

// Of lists a partner's certificates, the newest last; those of all partners where it is "".
func (a *Authority) Of(partner string) []*Certificate {
	var list []*Certificate
	for _, c := range a.issued {
		if partner == "" || c.Partner == partner {
			list = append(list, c)
		}
	}
	return list
}

// Valid lists a partner's certificates that can be used at a time.
func (a *Authority) Valid(partner string, at time.Time) []*Certificate {
	return slices.DeleteFunc(a.Of(partner), func(c *Certificate) bool { return !c.Valid(at) })
}

// Issue makes a client certificate for a request, and enters it in the index before it returns it. subject is the name
// for people. It ends with the CA's own certificate at the latest.
func (a *Authority) Issue(partner, subject string, r *Request, days int, now time.Time) (*Certificate, error) {
	if a.key == nil || r == nil || r.csr == nil {
		return nil, errors.New("issue: no key, or no request")
	}
	if err := checkIssuable(r.csr); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	for _, c := range a.issued {
		switch {
		case !bytes.Equal(c.RawSubjectPublicKeyInfo, r.csr.RawSubjectPublicKeyInfo):
		case c.Partner != partner:
			return nil, fmt.Errorf("%w: its key is that of another partner's certificate", ErrRequest)
		case !c.Revoked.IsZero() && c.Reason != reasonSuperseded:
			return nil, fmt.Errorf("%w: its key is that of certificate %s, which was revoked (%s): have a new key made", ErrRequest, c.Serial(), c.Reason)
		}
	}
	if bytes.Equal(a.certificate.RawSubjectPublicKeyInfo, r.csr.RawSubjectPublicKeyInfo) {
		return nil, fmt.Errorf("%w: its key is the CA's", ErrRequest)
	}
	der, err := a.sign(r, days, now)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	err = a.append(entry{
		Event: eventIssued, Time: now.UTC(), Partner: partner, Serial: SerialText(c.SerialNumber), Fingerprint: digestOf(c.Raw), Subject: subject,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Certificate: der,
	})
	if err != nil {
		return nil, err
	}
	return a.issued[len(a.issued)-1], nil
}

func (a *Authority) sign(r *Request, days int, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	id, err := keyID(r.csr.PublicKey)
	if err != nil {
		return nil, err
	}
	from := now.Add(-backdated).UTC().Truncate(time.Second)
	t := &x509.Certificate{
		SerialNumber: serial, RawSubject: r.csr.RawSubject, NotBefore: from, NotAfter: now.UTC().Truncate(time.Second).AddDate(0, 0, days),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true, SubjectKeyId: id,
	}
	if a.settings.CRLURL != "" {
		t.CRLDistributionPoints = []string{a.settings.CRLURL}
	}
	if t.NotBefore.Before(a.certificate.NotBefore) {
		t.NotBefore = a.certificate.NotBefore
	}
	if t.NotAfter.After(a.certificate.NotAfter) {
		t.NotAfter = a.certificate.NotAfter
	}
	if !t.NotAfter.After(now) {
		return nil, fmt.Errorf("the CA's own certificate ended on %s", a.certificate.NotAfter.Format(time.DateOnly))
	}
	return x509.CreateCertificate(rand.Reader, t, a.certificate, r.csr.PublicKey, a.key)
}

// ParseCertificate reads the first certificate of a PEM file; a chain may follow it.
func ParseCertificate(content []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(content)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it does not begin with a PEM CERTIFICATE")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, errors.New("the certificate does not parse")
	}
	return c, nil
}

// PEM is a certificate as partners get it.
func PEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
