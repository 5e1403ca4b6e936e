package revocation_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/revocation"
)

// TestLists: what is not a complete, signed list of one CA is none to go by.
func TestLists(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	other := newAuthority("partners", ecKey(), nil) // the CA's name with another key
	rsaCA := newAuthority("partners", rsaKey(), nil)
	client := ca.client()[0]
	with := func(id asn1.ObjectIdentifier, critical bool) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: []byte{5, 0}})
		}
	}
	entry := func(l *x509.RevocationList) {
		l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{48, 0}}}
	}
	list := ca.list(1, nil)
	sha256WithRSA, sha1WithRSA := []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11}, []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5}
	text := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list})
	for _, test := range []struct {
		name, problem string
		list          []byte
	}{
		{"DER", "", list},
		{"PEM", "", text},
		{"an extension that says no more", "", ca.list(1, nil, with(asn1.ObjectIdentifier{1, 2, 3}, false))},
		{"two in one", "one X509 CRL", append(bytes.Clone(text), text...)},
		{"a certificate", "one X509 CRL", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: list})},
		{"no end", "no nextUpdate", ca.endless()},
		{"nothing", "does not parse", nil},
		{"cut off", "does not parse", list[:len(list)-1]},
		{"another key", "not signed by the CA", other.list(1, nil)},
		{"a flipped bit", "not signed by the CA", flipped(list)},
		{"by SHA-1", "signed with SHA1-RSA", bytes.ReplaceAll(rsaCA.list(1, nil), sha256WithRSA, sha1WithRSA)},
		{"a delta", "delta CRL indicator", ca.list(1, nil, with(asn1.ObjectIdentifier{2, 5, 29, 27}, true))},
		{"a distribution point", "", ca.list(1, nil, pointing(pointURI("http://crl.example/1.crl")))},
		{"one that is nothing", "does not parse", ca.list(1, nil, with(asn1.ObjectIdentifier{2, 5, 29, 28}, false))},
		{"an empty one", "no URI", ca.list(1, nil, pointing())},
		{"one that is not a URI", "no URI", ca.list(1, nil, pointing(field(0, field(0, leaf(2, []byte("crl.example")...)))))},
		{"one relative to the CA", "no URI", ca.list(1, nil, pointing(field(0, field(1))))},
		{"two in one", "does not parse", ca.list(1, nil, pointing(pointURI("http://crl.example/1.crl"), pointURI("http://crl.example/1.crl")))},
		{"users' alone", "onlyContainsUserCerts", ca.list(1, nil, pointing(pointURI("http://crl.example/1.crl"), leaf(1, 0xff)))},
		{"CAs' alone", "onlyContainsCACerts", ca.list(1, nil, pointing(leaf(2, 0xff)))},
		{"some reasons", "onlySomeReasons", ca.list(1, nil, pointing(leaf(3, 0xff)))},
		{"an indirect one", "indirectCRL", ca.list(1, nil, pointing(pointURI("http://crl.example/1.crl"), leaf(4, 0xff)))},
		{"attributes'", "onlyContainsAttributeCerts", ca.list(1, nil, pointing(leaf(5, 0xff)))},
		{"an unknown extension", "critical extension 1.2.3", ca.list(1, nil, with(asn1.ObjectIdentifier{1, 2, 3}, true))},
		{"an entry of another CA", "an entry has the critical extension 2.5.29.29", ca.list(1, []*x509.Certificate{client}, entry)},
	} {
		_, err := revocation.New(revocation.Config{CAs: []*x509.Certificate{ca.certificate}, Lists: []revocation.Source{{Content: test.list}}, Soft: true})
		if (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: %v, want %q", test.name, err, test.problem)
		}
	}
}

// endless is a list without nextUpdate, which package x509 does not make.
func (a *authority) endless() []byte {
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}} // ecdsa-with-SHA256
	tbs, err := asn1.Marshal(struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Issuer    asn1.RawValue
		Made      time.Time
	}{1, algorithm, asn1.RawValue{FullBytes: a.certificate.RawSubject}, time.Now().UTC().Truncate(time.Second)})
	must(err)
	digest := sha256.Sum256(tbs)
	signature, err := a.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	must(err)
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, algorithm, asn1.BitString{Bytes: signature, BitLength: len(signature) * 8}})
	must(err)
	return der
}

// TestNobodyIsRefusedByNothing: the nil Checker is that of a listener that does not ask.
func TestNobodyIsRefusedByNothing(t *testing.T) {
	var c *revocation.Checker
	if until, err := c.Judge(newAuthority("partners", ecKey(), nil).client(), time.Now()); err != nil || !until.IsZero() || c.Epoch() != 0 || c.Lists(time.Now()) != nil {
		t.Error(until, err, c.Epoch())
	}
}

// TestUntil: what is found holds as long as the list that it was found by.
func TestUntil(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	between := newAuthority("between", ecKey(), ca)
	chain := between.client()
	config := func(soft bool, lists ...[]byte) revocation.Config {
		c := revocation.Config{CAs: []*x509.Certificate{ca.certificate}, Soft: soft}
		for _, l := range lists {
			c.Lists = append(c.Lists, revocation.Source{Content: l})
		}
		return c
	}
	b := newBench(t, config(false, ca.list(1, nil), between.list(1, nil, from(-time.Hour, time.Minute)), between.list(2, nil, from(-time.Hour, 2*time.Minute))))
	until, err := b.checker.Judge(chain, b.now())
	if left := time.Until(until); err != nil || left < 110*time.Second || left > 2*time.Minute {
		t.Errorf("%v, %v, want the end of the intermediate's later list", until, err)
	}
	b.turned.Store(int64(3 * time.Minute))
	if err := b.judge(chain); !errors.Is(err, revocation.ErrUnknown) {
		t.Errorf("after its end: %v", err)
	}
	b.configure(config(true, ca.list(1, nil), between.list(1, nil, from(-time.Hour, time.Minute))))
	if err := b.judge(chain); err != nil || b.count(passed, "partners", "crl") != 1 {
		t.Errorf("soft: %v, %v passed", err, b.count(passed))
	}
}

// TestListsOfClocksThatAreAhead: a CA's clock may be five minutes ahead of ours. Further ahead, a list is to be waited for, and whoever was
// refused for it is judged anew when it begins.
func TestListsOfClocksThatAreAhead(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	chain := ca.client()
	ahead := func(by time.Duration) *bench {
		return newBench(t, byLists(false, []*authority{ca}, ca.list(1, nil, from(-2*time.Hour, -time.Hour)), ca.list(2, nil, from(by, time.Hour)), ca.list(3, nil, from(20*time.Minute, time.Hour))))
	}
	b := ahead(4 * time.Minute)
	if err := b.judge(chain); err != nil || !b.checker.Lists(b.now())[1].Current {
		t.Errorf("four minutes: %v", err)
	}
	b = ahead(7 * time.Minute)
	until, err := b.checker.Judge(chain, b.now())
	if left := time.Until(until); !errors.Is(err, revocation.ErrUnknown) || left < 118*time.Second || left > 2*time.Minute {
		t.Errorf("seven minutes: %v until %v", err, until)
	}
	b.turned.Store(int64(2 * time.Minute))
	if err := b.judge(chain); err != nil {
		t.Errorf("two minutes later: %v", err)
	}
	b = ahead(5*time.Minute + 2*time.Second)
	epoch := b.checker.Epoch()
	b.run()
	eventually(t, "a line that it is current", func() bool { return b.said("is current again") > 0 })
	eventually(t, "another epoch", func() bool { return b.checker.Epoch() != epoch })
	if err := b.judge(chain); err != nil {
		t.Error(err)
	}
}
