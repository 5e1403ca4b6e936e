package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cardstile/cardstile/vault/ca"
)

var now = time.Now() // what openssl and x509 verify by

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func name(t testing.TB, cn string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn, Country: []string{"US"}, Organization: []string{"Example"}}}, ecKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	csr, _ := x509.ParseCertificateRequest(der)
	return csr.RawSubject
}

// authority makes a CA and returns its directory and what opens it.
func authority(t testing.TB, curve elliptic.Curve, days int) (string, func() *ca.Authority) {
	t.Helper()
	dir, key := filepath.Join(t.TempDir(), "ca"), ecKey(t, curve)
	if err := ca.Init(ca.Config{Dir: dir, Subject: name(t, "Example Partners CA"), Days: days, CRLURL: "http://crl.example/crl.pem", CRLDays: 7, KeyFile: []byte("x"), Now: now, Key: key}); err != nil {
		t.Fatal(err)
	}
	return dir, func() *ca.Authority {
		t.Helper()
		a, err := ca.Open(dir, func(string, bool) (crypto.Signer, error) { return key, nil })
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
}

func csrPEM(t testing.TB, cn string, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: name(t, cn)}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func request(t testing.TB, cn string, key crypto.Signer) *ca.Request {
	t.Helper()
	r, err := ca.ParseRequest(csrPEM(t, cn, key))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func partnerKeys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"rsa": r, "p256": ecKey(t, elliptic.P256()), "p384": ecKey(t, elliptic.P384()), "ed25519": e}
}

// waived are the lints that tools/zlint passes over. One that is not among them fails.
var waived = []string{"w_ct_sct_policy_count_unsatisfied", "n_ca_digital_signature_not_set", "e_subj_orgunit_in_ca_cert", "w_root_ca_basic_constraints_path_len_constraint_field_present"}

// TestZlint: all that a CA of either curve signs passes every lint that applies, but for those that tools/zlint names.
func TestZlint(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "zlint")
	if out, err := exec.Command("go", "-C", "../../tools/zlint", "build", "-o", tool, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		dir, open := authority(t, curve, 3650)
		a := open()
		files := []string{filepath.Join(dir, ca.CertificateFile), a.CRLPath()}
		for kind, key := range partnerKeys(t) {
			c, err := a.Issue("p", "", request(t, kind, key), 90, now)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, filepath.Join(dir, kind+".pem"))
			if err := os.WriteFile(files[len(files)-1], ca.PEM(c.Certificate), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		long, err := a.Issue("p", "", requestOf(t, longName()), 90, now)
		if err != nil {
			t.Fatal(err)
		}
		longCA, subject := filepath.Join(t.TempDir(), "ca"), requestOf(t, longName()).Subject()
		if err := ca.Init(ca.Config{Dir: longCA, Subject: subject, Days: 3650, CRLURL: "http://crl.example/crl.pem", CRLDays: 7, KeyFile: []byte("x"), Now: now, Key: ecKey(t, curve)}); err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(longCA, ca.CertificateFile), filepath.Join(dir, "long.pem"))
		write(t, files[len(files)-1], ca.PEM(long.Certificate))
		if _, err := a.Revoke(a.Of("p"), "key_compromise", now); err != nil {
			t.Fatal(err)
		}
		a.Close()
		out, err := exec.Command(tool, files...).CombinedOutput()
		if err != nil || bytes.Count(out, []byte("lints applied")) != len(files) {
			t.Errorf("%s: %v\n%s", curve.Params().Name, err, out)
		}
		for _, lint := range waived {
			if !bytes.Contains(out, []byte(": "+lint+": waived: ")) {
				t.Errorf("%s: nothing needs the waiver of %s", curve.Params().Name, lint)
			}
		}
		if n := bytes.Count(out, []byte(": waived: ")); n != 10 { // two at each CA, three where it has a unit, and one at each client
			t.Errorf("%s: %d findings are waived\n%s", curve.Params().Name, n, out)
		}
	}
	// It finds what is wrong: a certificate that is not a CA's nor a client's, with a serial number of zero bits.
	key := ecKey(t, elliptic.P256())
	bad := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(-time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, bad, bad, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bad.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, file).CombinedOutput(); err == nil || !bytes.Contains(out, []byte("bad.pem: e_validity_time_not_positive: error")) {
		t.Errorf("a bad certificate passes:\n%s", out)
	}
}

// TestProfile: what a partner's certificate is, and what it is not.
func TestProfile(t *testing.T) {
	_, open := authority(t, elliptic.P256(), 60)
	a := open()
	defer a.Close()
	root := a.CA()
	if !root.IsCA || root.MaxPathLen != 0 || !root.MaxPathLenZero || root.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("the CA: %v %v %v", root.IsCA, root.MaxPathLen, root.KeyUsage)
	}
	c, err := a.Issue("p", "", request(t, "p", ecKey(t, elliptic.P256())), 90, now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("it is a server's")
	}
	switch {
	case c.IsCA, !c.BasicConstraintsValid, c.KeyUsage != x509.KeyUsageDigitalSignature, len(c.ExtKeyUsage) != 1:
		t.Errorf("profile: %+v", c.KeyUsage)
	case len(c.SubjectKeyId) != 20, !bytes.Equal(c.AuthorityKeyId, root.SubjectKeyId):
		t.Errorf("ids %x %x", c.SubjectKeyId, c.AuthorityKeyId)
	case !c.NotAfter.Equal(root.NotAfter):
		t.Errorf("it ends %v, after the CA's %v", c.NotAfter, root.NotAfter)
	case !slices.Equal(c.CRLDistributionPoints, []string{"http://crl.example/crl.pem"}):
		t.Errorf("CRL: %v", c.CRLDistributionPoints)
	}
	if _, err := a.Issue("p", "", request(t, "p", ecKey(t, elliptic.P256())), 90, now.AddDate(0, 0, 61)); err == nil {
		t.Error("a CA that ended issues")
	}
	shared := ecKey(t, elliptic.P256())
	if _, err := a.Issue("p", "", request(t, "p", shared), 1, now); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Issue("q", "", request(t, "q", shared), 1, now); !errors.Is(err, ca.ErrRequest) {
		t.Errorf("another partner's key: %v", err)
	}
	if _, err := a.Issue("q", "", &ca.Request{}, 1, now); err == nil {
		t.Error("the zero Request gets a certificate")
	}
}

// TestRequestEveryBit: a request in which any bit is another is refused.
func TestRequestEveryBit(t *testing.T) {
	block, _ := pem.Decode(csrPEM(t, "p", ecKey(t, elliptic.P256())))
	for i := range len(block.Bytes) * 8 {
		der := bytes.Clone(block.Bytes)
		der[i/8] ^= 1 << (i % 8)
		if _, err := ca.ParseRequest(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: der})); !errors.Is(err, ca.ErrRequest) {
			t.Fatalf("bit %d of byte %d: %v", i%8, i/8, err)
		}
	}
}

func TestRequestRefused(t *testing.T) {
	good := csrPEM(t, "p", ecKey(t, elliptic.P256()))
	for _, c := range []struct {
		what    string
		content []byte
		want    string
	}{
		{"nothing", nil, "not one PEM block"},
		{"two", append(bytes.Clone(good), good...), "not one PEM block"},
		{"text after it", append(bytes.Clone(good), "x\n"...), "text after its PEM block"},
		{"two, the first of which is none", append([]byte("-----BEGIN X-----\n"), good...), "not one PEM block"},
		{"text before it on its line", append([]byte("x "), good...), "not one PEM block"},
		{"a key before it", append([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"), good...), "holds a private key"},
		{"UTF-16", append([]byte("\xff\xfe"), utf16LE(good)...), "UTF-16"},
		{"DER", request(t, "p", ecKey(t, elliptic.P256())).DER(), "looks like DER: `openssl req -inform DER"},
		{"another type", bytes.ReplaceAll(good, []byte("CERTIFICATE REQUEST"), []byte("CERTIFICATE")), "not a CERTIFICATE REQUEST"},
		{"a key", []byte("-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----\n"), "holds a private key"},
		{"P-224", csrPEM(t, "p", ecKey(t, elliptic.P224())), "P-224"},
	} {
		if _, err := ca.ParseRequest(c.content); !errors.Is(err, ca.ErrRequest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}

func utf16LE(text []byte) []byte {
	var wide []byte
	for _, b := range text {
		wide = append(wide, b, 0)
	}
	return wide
}

// TestTextBeforeRequest: what openssl and editors write before the block is passed over. What counts is in the block.
func TestTextBeforeRequest(t *testing.T) {
	good := csrPEM(t, "p", ecKey(t, elliptic.P256()))
	want, err := ca.ParseRequest(good)
	if err != nil {
		t.Fatal(err)
	}
	printed := exec.Command("openssl", "req", "-text")
	printed.Stdin = bytes.NewReader(good)
	text, err := printed.Output()
	if err != nil || !bytes.HasPrefix(text, []byte("Certificate Request:")) {
		t.Fatal(err, string(text))
	}
	for what, content := range map[string][]byte{
		"openssl req -text": text, "a byte order mark": append([]byte("\ufeff"), good...), "both": append([]byte("\ufeff"), text...),
		"lines of Windows": bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")),
	} {
		r, err := ca.ParseRequest(content)
		if err != nil || !bytes.Equal(r.DER(), want.DER()) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestProveRenewal: the same key, or a signature of the current one over this very request.
func TestProveRenewal(t *testing.T) {
	_, open := authority(t, elliptic.P256(), 100)
	a := open()
	defer a.Close()
	for kind, key := range partnerKeys(t) {
		current, err := a.Issue(kind, "", request(t, "p", key), 90, now)
		if err != nil {
			t.Fatal(err)
		}
		r := request(t, "p", ecKey(t, elliptic.P256()))
		sign := func(der []byte) []byte {
			digest, options := der, crypto.SignerOpts(crypto.Hash(0))
			if kind != "ed25519" {
				sum := sha256.Sum256(der)
				digest, options = sum[:], crypto.SHA256
			}
			signature, err := key.Sign(rand.Reader, digest, options)
			if err != nil {
				t.Fatal(err)
			}
			return signature
		}
		if err := r.ProveRenewal(current.Certificate, sign(r.DER())); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if err := request(t, "p", key).ProveRenewal(current.Certificate, nil); err != nil {
			t.Errorf("%s, its own key: %v", kind, err)
		}
		for what, err := range map[string]error{
			"no signature":    r.ProveRenewal(current.Certificate, nil),
			"another request": r.ProveRenewal(current.Certificate, sign(request(t, "p", ecKey(t, elliptic.P256())).DER())),
			"another subject": request(t, "q", key).ProveRenewal(current.Certificate, nil),
		} {
			if !errors.Is(err, ca.ErrRequest) {
				t.Errorf("%s, %s: %v", kind, what, err)
			}
		}
	}
}

// TestTwoProcesses: those who come at one time take turns, and nobody's certificate is lost.
func TestTwoProcesses(t *testing.T) {
	_, open := authority(t, elliptic.P256(), 100)
	const n = 8
	var wg sync.WaitGroup
	for i := range n {
		r := request(t, fmt.Sprint(i), ecKey(t, elliptic.P256()))
		wg.Go(func() {
			a := open()
			defer a.Close()
			if _, err := a.Issue(fmt.Sprint(i), "", r, 90, now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	a := open()
	defer a.Close()
	serials := map[string]bool{}
	for _, c := range a.Of("") {
		serials[c.Serial()] = true
	}
	if len(serials) != n {
		t.Errorf("%d certificates, want %d", len(serials), n)
	}
}

// TestIndexTampered: what is changed, exchanged, taken out or cut off is noticed, and so is a revocation that is forgotten.
func TestIndexTampered(t *testing.T) {
	dir, open := authority(t, elliptic.P256(), 100)
	a := open()
	for i := range 3 {
		if _, err := a.Issue("p", "", request(t, "p", ecKey(t, elliptic.P256())), 90-i, now); err != nil {
			t.Fatal(err)
		}
	}
	index, head := filepath.Join(dir, "index.jsonl"), filepath.Join(dir, "index.head")
	before, headBefore := read(t, index), read(t, head)
	if _, err := a.Revoke(a.Of("p")[:1], "superseded", now); err != nil {
		t.Fatal(err)
	}
	a.Close()
	good := read(t, index)
	lines := bytes.SplitAfter(good, []byte("\n"))[:4]
	join := func(l ...[]byte) []byte { return bytes.Join(l, nil) }
	for what, content := range map[string][]byte{
		"a partner renamed":   bytes.Replace(good, []byte(`"partner":"p"`), []byte(`"partner":"q"`), 1),
		"the first taken out": join(lines[1:]...),
		"two exchanged":       join(lines[1], lines[0], lines[2], lines[3]),
		"the end cut off":     join(lines[:3]...),
		"half a line":         good[:len(good)-9],
		"one twice":           join(lines[0], lines[0], lines[1], lines[2], lines[3]),
		"empty":               nil,
	} {
		write(t, index, content)
		if _, err := ca.Open(dir, nil); !errors.Is(err, ca.ErrIndex) {
			t.Errorf("%s: %v", what, err)
		}
	}
	write(t, index, before)
	write(t, head, headBefore) // as it was: the CRL remembers
	if _, err := ca.Open(dir, nil); !errors.Is(err, ca.ErrIndex) || !strings.Contains(err.Error(), "which is not revoked there") {
		t.Errorf("a forgotten revocation: %v", err)
	}
	write(t, index, good) // a process that ended between the two files
	open().Close()
}

// TestDamagedCRL: a list or a number that is damaged, lost or behind stops nobody. The next list mends it, with a number
// above all that were published, and then nothing is damaged.
func TestDamagedCRL(t *testing.T) {
	other, openOther := authority(t, elliptic.P256(), 100)
	b := openOther()
	if _, err := b.WriteCRL(now); err != nil {
		t.Fatal(err)
	}
	b.Close()
	foreign, after := read(t, filepath.Join(other, "crl.pem")), now.Unix()
	for what, c := range map[string]struct {
		crl, number string // what stands in the files; "-" for as it was, "" for no file
		want        int64
		damaged     []string // the files
	}{
		"nothing":                   {"-", "-", 4, nil},
		"no list":                   {"", "-", 4, nil},
		"a list that is not PEM":    {"x\n", "-", 4, []string{"crl.pem: not PEM: `cardstile ca crl` writes it anew"}},
		"a list in DER":             {"DER", "-", 4, []string{"crl.pem: not PEM"}},
		"an empty list":             {"\n", "-", 4, []string{"crl.pem: not PEM"}},
		"another CA's list":         {string(foreign), "-", 4, []string{"crl.pem: not a CRL that this CA signed"}},
		"no number":                 {"-", "", after, []string{"crl-number: missing, or not a number"}},
		"a number that is none":     {"-", "three\n", after, []string{"crl-number: missing, or not a number"}},
		"a number below none":       {"-", "-1\n", after, []string{"crl-number: missing, or not a number"}},
		"a number that is too long": {"-", strings.Repeat("9", 60), after, []string{"crl-number: missing, or not a number"}},
		"a number that went back":   {"-", "2\n", after, []string{"crl-number: behind the number of "}},
		"a number that is ahead":    {"-", "7\n", 8, nil}, // a process ended before it wrote the list
		"a number after the clock":  {"-", fmt.Sprint(after + 1000), after + 1001, nil},
		"neither":                   {"x", "", after, []string{"crl.pem: not PEM", "crl-number: missing"}},
		"nothing of either":         {"", "", after, []string{"crl-number: missing"}},
	} {
		dir, open := authority(t, elliptic.P256(), 100)
		a := open()
		if _, err := a.Issue("p", "", request(t, "p", ecKey(t, elliptic.P256())), 90, now); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Revoke(a.Of("p"), "superseded", now); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := a.WriteCRL(now); err != nil {
				t.Fatal(err)
			}
		}
		a.Close()
		crl, number := filepath.Join(dir, "crl.pem"), filepath.Join(dir, "crl-number")
		block, _ := pem.Decode(read(t, crl))
		put := func(file, content string) {
			switch content {
			case "-":
			case "":
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			case "DER":
				write(t, file, block.Bytes)
			default:
				write(t, file, []byte(content))
			}
		}
		put(crl, c.crl)
		put(number, c.number)
		reader, err := ca.Open(dir, nil)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		reader.Close()
		a = open()
		damage := a.Damage()
		if len(damage) != len(c.damaged) {
			t.Errorf("%s: %q", what, damage)
		}
		for i, want := range c.damaged {
			if i < len(damage) && !strings.HasPrefix(damage[i], filepath.Join(dir, want)) {
				t.Errorf("%s: %q, want %q", what, damage[i], want)
			}
		}
		if _, err := a.Issue("q", "", request(t, "q", ecKey(t, elliptic.P256())), 90, now); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for i := range int64(2) { // it goes on from there
			list, err := a.WriteCRL(now)
			if err != nil || list.Number.Int64() != c.want+i || len(list.RevokedCertificateEntries) != 1 || len(a.Damage()) > 0 {
				t.Fatalf("%s: %v, %+v, want %d; %q", what, err, list, c.want+i, a.Damage())
			}
			a.Close()
			a = open()
		}
		if len(a.Damage()) > 0 {
			t.Errorf("%s: afterwards %q", what, a.Damage())
		}
		a.Close()
	}
}

// TestCRLNumberPastTheClock: the clock gives no number that is below that of the list.
func TestCRLNumberPastTheClock(t *testing.T) {
	dir, open := authority(t, elliptic.P256(), 100)
	number, ahead := filepath.Join(dir, "crl-number"), now.Unix()+1000
	write(t, number, fmt.Append(nil, ahead))
	for i, lose := range []func() error{func() error { return nil }, func() error { return os.Remove(number) }, func() error { return os.WriteFile(number, []byte("1\n"), 0o600) }} {
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		a := open()
		list, err := a.WriteCRL(now)
		a.Close()
		if want := ahead + 1 + int64(i); err != nil || list.Number.Int64() != want {
			t.Fatalf("%v, %+v, want %d", err, list, want)
		}
	}
}

// TestInitInAnOpenDirectory: a directory in which others have rights becomes no CA's, and stays as it was.
func TestInitInAnOpenDirectory(t *testing.T) {
	for mode, refused := range map[os.FileMode]bool{0o755: true, 0o750: true, 0o701: true, 0o700: false} {
		dir := filepath.Join(t.TempDir(), "ca")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		err := ca.Init(ca.Config{Dir: dir, Subject: name(t, "CA"), Days: 100, CRLDays: 7, KeyFile: []byte("x"), Now: now, Key: ecKey(t, elliptic.P256())})
		if refused != (err != nil) || refused && !strings.Contains(err.Error(), fmt.Sprintf("with mode %04o, and a CA's directory is nobody else's: `chmod 700 %s`", mode, dir)) {
			t.Errorf("%o: %v", mode, err)
		}
		files, _ := os.ReadDir(dir)
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != mode || refused == (len(files) > 0) {
			t.Errorf("%o: it has %v now, %v", mode, info.Mode(), files)
		}
	}
}

// TestP521: such a key is for CAs elsewhere.
func TestP521(t *testing.T) {
	_, open := authority(t, elliptic.P256(), 100)
	a := open()
	defer a.Close()
	r := request(t, "p", ecKey(t, elliptic.P521()))
	if _, err := a.Issue("p", "", r, 90, now); !errors.Is(err, ca.ErrRequest) || !strings.Contains(err.Error(), "an EC key on P-521: this CA certifies those on P-256 and P-384") || len(a.Of("")) > 0 {
		t.Error(err)
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

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCRL: numbers go up, revocations stay with their times and reasons, but for a key that is found to be compromised
// later, and an unknown reason revokes nothing.
func TestCRL(t *testing.T) {
	_, open := authority(t, elliptic.P256(), 100)
	a := open()
	c, err := a.Issue("p", "", request(t, "p", ecKey(t, elliptic.P256())), 90, now)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := a.Revoke(a.Of("p"), "hacked", now); err == nil || len(changed) > 0 || c.Status(now) != "valid" {
		t.Errorf("%v, %s", err, c.Status(now))
	}
	for i, step := range []struct {
		reason  string
		changed int
		code    int // in the list
	}{{"unspecified", 1, 0}, {"privilege_withdrawn", 0, 0}, {"key_compromise", 1, 1}, {"superseded", 0, 1}} {
		changed, err := a.Revoke(a.Of("p"), step.reason, now.Add(time.Duration(i)*time.Hour))
		if err != nil || len(changed) != step.changed {
			t.Fatalf("%s: %v, %d changed", step.reason, err, len(changed))
		}
		a.Close()
		a = open() // the index says the same
		list, err := a.WriteCRL(now)
		if err != nil || list.CheckSignatureFrom(a.CA()) != nil {
			t.Fatal(err)
		}
		if list.Number.Int64() != int64(2*i+2) || len(list.RevokedCertificateEntries) != 1 {
			t.Fatalf("%d: %+v", list.Number, list.RevokedCertificateEntries)
		}
		if at := now.UTC().Truncate(time.Second); !list.ThisUpdate.Equal(at.Add(-5*time.Minute)) || !list.NextUpdate.Equal(at.AddDate(0, 0, 7)) {
			t.Errorf("from %s to %s", list.ThisUpdate, list.NextUpdate) // a gateway's clock may be behind
		}
		e := list.RevokedCertificateEntries[0]
		if e.ReasonCode != step.code || e.SerialNumber.Cmp(c.SerialNumber) != 0 || !e.RevocationTime.Equal(now.Truncate(time.Second)) {
			t.Errorf("%s: %+v", step.reason, e)
		}
	}
	if len(a.Valid("p", now)) != 0 || a.Of("p")[0].Status(now) != "revoked" {
		t.Error("it is valid still")
	}
	a.Close()
}

// TestRevokedKey: the key of a revoked certificate gets no other one, unless it was merely superseded.
func TestRevokedKey(t *testing.T) {
	for _, reason := range ca.Reasons() {
		_, open := authority(t, elliptic.P256(), 100)
		a := open()
		key := ecKey(t, elliptic.P256())
		if _, err := a.Issue("p", "", request(t, "p", key), 90, now); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Revoke(a.Of("p"), reason, now); err != nil {
			t.Fatal(err)
		}
		_, err := a.Issue("p", "", request(t, "p", key), 90, now)
		if good := err == nil; good != (reason == "superseded") || !good && !errors.Is(err, ca.ErrRequest) {
			t.Errorf("%s: %v", reason, err)
		}
		a.Close()
	}
}

// TestSerial: positive, of at most 20 octets, with 158 random bits (RFC 5280, section 4.1.2.2; the CA/Browser Forum asks
// for 64). Bits that stand still in as many serials as here would be seen; the first two are no random ones.
func TestSerial(t *testing.T) {
	_, open := authority(t, elliptic.P256(), 100)
	a := open()
	defer a.Close()
	r := request(t, "p", ecKey(t, elliptic.P256()))
	const n = 40
	var ones, zeros big.Int
	seen := map[string]bool{}
	for range n {
		c, err := a.Issue("p", "", r, 90, now)
		if err != nil {
			t.Fatal(err)
		}
		der, err := asn1.Marshal(c.SerialNumber)
		if err != nil || c.SerialNumber.Sign() <= 0 || len(der) != 2+20 || len(c.Serial()) != 40 {
			t.Fatalf("serial %x, %v", der, err)
		}
		seen[c.Serial()] = true
		ones.Or(&ones, c.SerialNumber)
		zeros.Or(&zeros, new(big.Int).Xor(c.SerialNumber, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 160), big.NewInt(1))))
	}
	both := new(big.Int).And(&ones, &zeros)
	random := 0
	for i := range 160 {
		random += int(both.Bit(i))
	}
	if len(seen) != n || random != 158 {
		t.Errorf("%d serials of %d differ, and %d bits change", len(seen), n, random)
	}
}

// TestKeyFileIsCalledByItsKind, and a CA that an earlier build made is opened as it is.
func TestKeyFileIsCalledByItsKind(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	config := func(kind string) ca.Config {
		return ca.Config{Dir: filepath.Join(t.TempDir(), "ca"), Subject: name(t, "CA"), Days: 100, CRLDays: 7, KeyFile: []byte("x"), KeyKind: kind, Now: now, Key: key}
	}
	opened := func(dir, want string, sealed bool) {
		t.Helper()
		asked := ""
		a, err := ca.Open(dir, func(file string, s bool) (crypto.Signer, error) {
			if asked = filepath.Base(file); s != sealed {
				t.Errorf("%s: sealed: %t", asked, s)
			}
			return key, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if asked != want || a.Sealed() != sealed {
			t.Errorf("opened is %s, sealed: %t; want %s", asked, a.Sealed(), want)
		}
	}
	for kind, want := range map[string]string{"": "ca-key.pem", "pem": "ca-key.pem", "age": "ca-key.age", "sealed": "ca-key.sealed"} {
		c := config(kind)
		if err := ca.Init(c); err != nil {
			t.Fatal(err)
		}
		if found, _ := filepath.Glob(filepath.Join(c.Dir, "ca-key*")); len(found) != 1 {
			t.Errorf("kind %q: %v", kind, found)
		}
		opened(c.Dir, want, kind == "age" || kind == "sealed")
		// Of a CA that was not finished the key is told from nothing, whatever it is called.
		if err := os.Remove(filepath.Join(c.Dir, ca.CertificateFile)); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(c.Dir, "index.jsonl")); err != nil {
			t.Fatal(err)
		}
		if err := ca.Init(c); err == nil || !strings.Contains(err.Error(), "not finished ("+want+")") {
			t.Errorf("kind %q: over the rest of another: %v", kind, err)
		}
	}
	if c := config("pkcs12"); ca.Init(c) == nil {
		t.Error("a kind that there is not")
	}
	// Sealed anew, and not yet removed what it was made of.
	c := config("pem")
	if err := ca.Init(c); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"age", "sealed"} {
		if err := os.WriteFile(filepath.Join(c.Dir, "ca-key."+kind), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		opened(c.Dir, "ca-key."+kind, true)
	}
}
