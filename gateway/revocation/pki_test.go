package revocation_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/revocation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// authority is a CA.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	above       []*x509.Certificate // from the next one to the root
}

var lastSerial atomic.Int64

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1<<40 + lastSerial.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

func ecKey() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	return key
}

func rsaKey() crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	return key
}

func newAuthority(name string, key crypto.Signer, by *authority, change ...func(*x509.Certificate)) *authority {
	t := template(name)
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	a := &authority{key: key}
	if by == nil {
		by = &authority{certificate: t, key: key}
	} else {
		a.above = append([]*x509.Certificate{by.certificate}, by.above...)
	}
	a.certificate = by.signs(t, key.Public(), change...)
	return a
}

func (a *authority) signs(t *x509.Certificate, key crypto.PublicKey, change ...func(*x509.Certificate)) *x509.Certificate {
	for _, c := range change {
		c(t)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.certificate, key, a.key)
	must(err)
	c, err := x509.ParseCertificate(der)
	must(err)
	return c
}

// client is a chain, from a client's certificate to the root.
func (a *authority) client(change ...func(*x509.Certificate)) []*x509.Certificate {
	t := template("client")
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return append([]*x509.Certificate{a.signs(t, ecKey().Public(), change...), a.certificate}, a.above...)
}

// list signs a list of certificates, an hour old and good for another, unless changed.
func (a *authority) list(number int64, certificates []*x509.Certificate, change ...func(*x509.RevocationList)) []byte {
	now := time.Now()
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}
	for _, c := range certificates {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now.Add(-time.Minute)})
	}
	for _, c := range change {
		c(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.certificate, a.key)
	must(err)
	return der
}

func from(from, to time.Duration) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.ThisUpdate, l.NextUpdate = time.Now().Add(from), time.Now().Add(to)
	}
}

// bench is a Checker with what it works with.
type bench struct {
	t       testing.TB
	checker *revocation.Checker
	metrics *revocation.Metrics
	logs    *observer.ObservedLogs
	log     *zap.Logger
	turned  atomic.Int64 // nanoseconds by which the clock is ahead
	ends    func()
}

func (b *bench) now() time.Time { return time.Now().Add(time.Duration(b.turned.Load())) }

// loopback goes to servers of tests, public to none of them.
func loopback(netip.Addr) *net.Dialer {
	return gateway.Destinations{Loopback: true}.Dialer(time.Second)
}
func public(netip.Addr) *net.Dialer { return gateway.Destinations{}.Dialer(time.Second) }

// newBench makes a Checker that does not run yet.
func newBench(t testing.TB, c revocation.Config) *bench {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	b := &bench{t: t, metrics: revocation.NewMetrics(), logs: logs, log: zap.New(core)}
	b.configure(c)
	t.Cleanup(func() {
		if b.ends != nil {
			b.ends()
		}
	})
	return b
}

// configure puts another configuration in force, as a reload does.
func (b *bench) configure(c revocation.Config) {
	b.t.Helper()
	if c.Dialer == nil {
		c.Dialer = loopback
	}
	c.Listener = "partners"
	checker, err := revocation.New(c)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.ends != nil {
		b.ends()
		b.ends = nil
	}
	checker.Adopt(b.checker, revocation.Services{Log: b.log, Now: b.now, Metrics: b.metrics})
	b.checker = checker
}

func (b *bench) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.checker.Run(ctx)
	}()
	b.ends = func() {
		cancel()
		<-ended
	}
}

func (b *bench) judge(chain []*x509.Certificate) error {
	_, err := b.checker.Judge(chain, b.now())
	return err
}

// count is the sum of a counter's series whose labels have these values.
func (b *bench) count(name string, values ...string) (sum float64) {
	b.t.Helper()
	registry := prometheus.NewPedanticRegistry()
	for _, c := range b.metrics.Collectors() {
		registry.MustRegister(c)
	}
	families, err := registry.Gather()
	must(err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			for _, v := range values {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetValue() == v
				}
				if !found {
					continue series
				}
			}
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

const (
	fetches   = "cardstile_revocation_fetches_total"
	questions = "cardstile_revocation_ocsp_total"
	passed    = "cardstile_revocation_passed_total"
)

// eventually waits for something that another goroutine does.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: it never came", what)
		}
	}
}

func parseURL(text string) *url.URL {
	u, err := url.Parse(text)
	must(err)
	return u
}

// said is the log's lines about something.
func (b *bench) said(text string) int {
	n := 0
	for _, entry := range b.logs.All() {
		if strings.Contains(entry.Message, text) {
			n++
		}
	}
	return n
}

// flipped is a list with another signature, or content.
func flipped(list []byte) []byte {
	changed := bytes.Clone(list)
	changed[len(changed)-1] ^= 1
	return changed
}

// deltaOf has a list say that it has what changed since another one.
func deltaOf(number byte) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, number}}
}
