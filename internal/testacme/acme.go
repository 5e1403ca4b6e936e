// Package testacme runs a certificate authority that speaks ACME, Pebble, in the process of a test: with its DNS and its way
// to the servers that it validates. Tests only; nothing in the binary imports it.
package testacme

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// Options say how the authority differs from the usual one.
type Options struct {
	// Validity is how long its certificates are good; 0: 90 days.
	Validity time.Duration
	// BindingID and BindingKey (base64url) are those of the one account that it has; empty: anybody can have one.
	BindingID, BindingKey string
	// Responder is the URL of the OCSP responder that its certificates name; empty: they name none. Who asks there, asks whoever the
	// test has listen.
	Responder string
	// Suggestions is how often it suggests, when it is asked about a certificate (RFC 9773), that this one be renewed at once.
	Suggestions int
}

// CA is an authority. It rejects good nonces at times, as Pebble does, and takes up to a second before it validates. Safe for
// concurrent use.
type CA struct {
	// URL is that of its directory, and File one with the certificate that the directory's own comes from.
	URL, File string
	// Directory has that certificate, and Roots those that it issues from.
	Directory, Roots *x509.CertPool
	// TLS and HTTP are what it connects to for the challenges tls-alpn-01 and http-01, whatever the host.
	TLS, HTTP *Door
	DNS       *DNS

	mu     sync.Mutex
	orders int
	left   int           // of the suggestions
	gate   chan struct{} // closed: open
	gated  string        // what stands before it: the beginning of a path
	held   chan struct{} // one element for each that stands before it
}

// Start starts one. It ends with the test.
func Start(t testing.TB, o Options) *CA {
	t.Helper()
	c := &CA{TLS: newDoor(t), HTTP: newDoor(t), DNS: newDNS(t), left: o.Suggestions, gate: make(chan struct{}), held: make(chan struct{}, 64)}
	close(c.gate)
	for name, value := range map[string]string{"PEBBLE_VA_SLEEPTIME": "2", "PEBBLE_VA_NOSLEEP": "", "PEBBLE_WFE_NONCEREJECT": "5"} {
		old, was := os.LookupEnv(name)
		os.Setenv(name, value)
		defer func() { // it is read once, below
			if was {
				os.Setenv(name, old)
			} else {
				os.Unsetenv(name)
			}
		}()
	}
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	if o.BindingID != "" {
		if err := store.AddExternalAccountKeyByID(o.BindingID, o.BindingKey); err != nil {
			t.Fatal(err)
		}
	}
	authority := ca.New(quiet, store, o.Responder, "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: uint64(o.Validity / time.Second)}})
	validation := va.New(quiet, c.HTTP.port(), c.TLS.port(), false, c.DNS.Addr, store)
	front := wfe.New(quiet, store, validation, authority, []string{"ca.test"}, false, o.BindingID != "", 1, 1)

	c.Roots = x509.NewCertPool()
	c.Roots.AddCert(authority.GetRootCert(0).Cert)
	pair := selfSigned(t)
	c.Directory = x509.NewCertPool()
	c.Directory.AddCert(pair.Leaf)
	c.File = filepath.Join(t.TempDir(), "directory-ca.pem")
	if err := os.WriteFile(c.File, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	handler := front.Handler()
	server := &http.Server{ErrorLog: quiet, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !c.pass(r) {
			return
		}
		if strings.Contains(r.URL.Path, "/renewalInfo/") && c.suggest() {
			now := time.Now().UTC()
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Retry-After", "21600")
			fmt.Fprintf(w, `{"suggestedWindow": {"start": %q, "end": %q}}`, now.Add(-2*time.Hour).Format(time.RFC3339), now.Add(-time.Hour).Format(time.RFC3339))
			return
		}
		seen := &statusWriter{ResponseWriter: w}
		handler.ServeHTTP(seen, r)
		if r.URL.Path == "/order-plz" && seen.status == http.StatusCreated {
			c.mu.Lock()
			c.orders++
			c.mu.Unlock()
		}
	})}
	go server.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}})) //nolint:errcheck // closed at the end
	t.Cleanup(func() { server.Close() })
	c.URL = "https://" + l.Addr().String() + wfe.DirectoryPath
	return c
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// pass has those requests wait that are held.
func (c *CA) pass(r *http.Request) bool {
	c.mu.Lock()
	gate, gated := c.gate, c.gated
	c.mu.Unlock()
	if gated == "" || !strings.HasPrefix(r.URL.Path, gated) {
		return true
	}
	// Read first: net/http notices that a client has gone only once its request has been read.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	select {
	case <-gate:
		return true
	default:
	}
	c.held <- struct{}{}
	select {
	case <-gate:
		return true
	case <-r.Context().Done():
		return false
	}
}

func (c *CA) suggest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left--
	return c.left >= 0
}

// Orders is how many have been taken.
func (c *CA) Orders() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.orders
}

// Hold stops orders before they are finished, until Release.
func (c *CA) Hold() { c.hold("/finalize-order/") }

// HoldNew stops orders before they are taken, until Release.
func (c *CA) HoldNew() { c.hold("/order-plz") }

func (c *CA) hold(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gate, c.gated = make(chan struct{}), path
}

// Held waits until one stands there.
func (c *CA) Held(t testing.TB) {
	t.Helper()
	select {
	case <-c.held:
	case <-time.After(30 * time.Second):
		t.Fatal("no order came so far")
	}
}

// Release lets them go on.
func (c *CA) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.gate)
}

// Door is an address that leads to others, in turn. Who comes before it leads anywhere waits.
type Door struct {
	Addr string

	mu  sync.Mutex
	to  []string
	n   int
	led chan struct{} // closed once it leads somewhere
}

func newDoor(t testing.TB) *Door {
	l := listen(t)
	d := &Door{Addr: l.Addr().String(), led: make(chan struct{})}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go d.carry(c)
		}
	}()
	return d
}

// Lead has it lead there.
func (d *Door) Lead(to ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.to == nil {
		close(d.led)
	}
	d.to = to
}

func (d *Door) carry(c net.Conn) {
	defer c.Close()
	select {
	case <-d.led:
	case <-time.After(time.Minute):
		return
	}
	d.mu.Lock()
	d.n++
	to := d.to[d.n%len(d.to)]
	d.mu.Unlock()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(out, c) //nolint:errcheck // either side may go
		out.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(c, out) //nolint:errcheck // either side may go
	c.(*net.TCPConn).CloseWrite()
	<-done
}

func (d *Door) port() int {
	a, err := net.ResolveTCPAddr("tcp", d.Addr)
	if err != nil {
		panic(err) // it is our own
	}
	return a.Port
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
