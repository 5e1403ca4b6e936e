package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cardstile/cardstile/gateway/revocation"
)

// somebody is a CA that no configuration names.
func somebody(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Leaf: &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "somebody"}, KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}}, PrivateKey: key}
}

// writeList writes a list of a CA, which ends at a time.
func writeList(t *testing.T, file string, ca tls.Certificate, end time.Time, extensions ...pkix.Extension) {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: end.Add(-2 * time.Hour), NextUpdate: end, ExtraExtensions: extensions,
	}, ca.Leaf, ca.PrivateKey.(crypto.Signer))
	if err == nil {
		err = os.WriteFile(file, der, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCheckTellsOfRevocation: what production lacks, and what it lets pass, is said by name; and nobody is asked while a configuration is
// only looked at.
func TestCheckTellsOfRevocation(t *testing.T) {
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	base := string(h.read("config.yaml"))
	ca, err := tls.LoadX509KeyPair(h.path("partners-ca.pem"), h.path("partners-ca-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	writeList(t, h.path("good.crl"), ca, time.Now().Add(time.Hour))
	writeList(t, h.path("ended.crl"), ca, time.Now().Add(-time.Hour))
	writeList(t, h.path("other.crl"), somebody(t), time.Now().Add(time.Hour))
	writeList(t, h.path("point.crl"), ca, time.Now().Add(time.Hour), pkix.Extension{
		Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: append([]byte{0x30, 0x0d, 0xa0, 0x0b, 0xa0, 0x09, 0x86, 0x07}, "urn:a:b"...),
	})
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	url := "http://" + server.Addr().String() + "/"
	const at = "listeners.partners.tls"
	for _, test := range []struct {
		environment, revocation string
		told                    []string
	}{
		{"test", "", nil},
		{"production", "", []string{at + ": no revocation: a certificate is good until it ends, or its partner is disabled"}},
		{"production", "{crl: [good.crl]}", nil},
		{"test", "{crl: [good.crl], stale: soft, ocsp: {mode: soft}}", nil},
		{"production", "{crl: [good.crl], stale: soft, ocsp: {mode: hard}}", []string{at + ".revocation.stale: soft: a certificate passes while its CA has no current list"}},
		{"production", "{ocsp: {mode: soft}}", []string{at + ".revocation.ocsp.mode: soft: a certificate passes of which no responder says anything"}},
		{"test", "{crl: [good.crl, ended.crl]}", []string{at + ".revocation.crl[1]: the list is not current"}},
		{"test", "{crl: [point.crl]}", []string{at + `.revocation.crl[0]: the list is for certificates alone that name its distribution point, "urn:a:b"`}},
		{"test", "{crl: [other.crl]}", []string{at + ".revocation.crl: no list is of CN=Cardstile demo partners: its certificates are refused"}},
		{"test", "{crl: [other.crl], stale: soft}", []string{at + ".revocation.crl: no list is of CN=Cardstile demo partners: its certificates pass"}},
		{"test", "{crl: [other.crl, good.crl]}", nil},
		{"test", "{crl: [other.crl, '" + url + "']}", nil}, // which may be it
		{"test", "{crl: ['" + url + "'], ocsp: {responder: '" + url + "'}}", nil},
	} {
		to := "client_ca: partners-ca.pem}\n    environment: " + test.environment
		if test.revocation != "" {
			to = "client_ca: partners-ca.pem, revocation: " + test.revocation + "}\n    environment: " + test.environment
		}
		if err := os.WriteFile(h.path("told.yaml"), []byte(strings.Replace(base, "client_ca: partners-ca.pem}", to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := load(h.path("told.yaml"))
		var found problems
		if errors.As(err, &found) {
			for _, p := range found {
				if strings.Contains(p.text, "revocation") {
					t.Errorf("%s %s: %s", test.environment, test.revocation, p.text)
				}
			}
		}
		told := slices.DeleteFunc(slices.Clone(b.notices), func(n string) bool { return !strings.Contains(n, "revocation") })
		if !slices.Equal(told, test.told) {
			t.Errorf("%s %s: %q, want %q", test.environment, test.revocation, told, test.told)
		}
	}
	own, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	first, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != own.LocalAddr().String() {
		t.Error("somebody else has asked")
	}
}

// TestRevocationCache: the directory is looked at as that of certificates is, and only the gateway makes it.
func TestRevocationCache(t *testing.T) {
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	base := string(h.read("config.yaml"))
	const at = "listeners.partners.tls.revocation.cache"
	for name, mode := range map[string]os.FileMode{"ours": 0o700, "shared": 0o750, "public": 0o755} {
		if err := errors.Join(os.Mkdir(h.path(name), mode), os.Chmod(h.path(name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(h.path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for cache, problem := range map[string]string{
		"ours": "", "missing/below": "", h.path("elsewhere"): "",
		"shared": "other users can get at it (mode 0750): chmod 700", "public": "other users can get at it (mode 0755): chmod 700",
		"file": "it is no directory", "file/below": h.path("file/below") + ": not a directory",
	} {
		to := "client_ca: partners-ca.pem, revocation: {crl: ['http://127.0.0.1:1/'], cache: " + cache + "}}"
		if err := os.WriteFile(h.path("told.yaml"), []byte(strings.Replace(base, "client_ca: partners-ca.pem}", to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := load(h.path("told.yaml"))
		var found problems
		errors.As(err, &found)
		switch {
		case problem == "" && (err != nil || b.listener("partners").Revocations == nil):
			t.Errorf("%s: %v", cache, err)
		case problem != "" && (len(found) != 1 || !strings.HasSuffix(err.Error(), ": "+at+": "+problem)):
			t.Errorf("%s: %v, want %s", cache, err, problem)
		}
	}
	for _, name := range []string{"missing", "elsewhere"} {
		if _, err := os.Stat(h.path(name)); !os.IsNotExist(err) {
			t.Errorf("%s was made: %v", name, err)
		}
	}
}

// TestRevocationServersAreDestinations: a listener of production asks servers at public addresses and in the networks that are listed, one
// of a test those on loopback besides.
func TestRevocationServersAreDestinations(t *testing.T) {
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	base := string(h.read("config.yaml"))
	asked := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	url := strings.Replace(server.URL, "127.0.0.1", "localhost", 1) // an address that the URL names is one
	for _, test := range []struct {
		environment, more string
		allowed           bool
	}{
		{"test", "", true},
		{"test", ", destinations: [192.0.2.0/24]", false},
		{"production", "", false},
		{"production", ", destinations: [127.0.0.0/8, '::1/128']", true},
	} {
		to := "client_ca: partners-ca.pem, revocation: {crl: ['" + url + "']" + test.more + "}}\n    environment: " + test.environment
		if err := os.WriteFile(h.path("told.yaml"), []byte(strings.Replace(base, "client_ca: partners-ca.pem}", to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		b, _ := load(h.path("told.yaml")) // of what else production asks for
		core, logs := observer.New(zap.WarnLevel)
		checker := b.listener("partners").Revocations
		checker.Adopt(nil, revocation.Services{Log: zap.New(core), Now: time.Now, Metrics: revocation.NewMetrics()})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			checker.Run(ctx)
		}()
		eventually(t, "an attempt has failed", func() bool { return logs.Len() > 0 })
		cancel()
		<-ended
		select {
		case <-asked:
			if !test.allowed {
				t.Errorf("%s%s: it was asked", test.environment, test.more)
			}
		default:
			if test.allowed {
				t.Errorf("%s%s: it was not asked", test.environment, test.more)
			}
		}
	}
}
