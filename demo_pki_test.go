package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"testing"
	"time"
)

// TestDemoCertificatesEnd: browsers take those of the demo, and a directory that is used again gets new ones before they end.
func TestDemoCertificatesEnd(t *testing.T) {
	d := &demo{dir: t.TempDir()}
	made := func() map[string][]byte {
		if err := d.makePKI(); err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{}
		for _, name := range []string{"ca", "server", "issuer-server", "partners-ca", "partner"} {
			content, err := os.ReadFile(d.path(name + ".pem"))
			if err != nil {
				t.Fatal(err)
			}
			files[name] = content
		}
		return files
	}
	first := made()
	load := func(name string) tls.Certificate {
		pair, err := tls.LoadX509KeyPair(d.path(name+".pem"), d.path(name+"-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	for _, name := range []string{"server", "issuer-server", "partner"} {
		if c := load(name).Leaf; c.NotAfter.Sub(c.NotBefore) > 398*24*time.Hour {
			t.Errorf("%s is valid for %v", name, c.NotAfter.Sub(c.NotBefore))
		}
	}
	for name, content := range made() {
		if !bytes.Equal(content, first[name]) {
			t.Errorf("%s was made anew for nothing", name)
		}
	}
	old, ca := load("server"), load("ca")
	old.Leaf.NotAfter = time.Now().Add(29 * 24 * time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, old.Leaf, ca.Leaf, old.Leaf.PublicKey, ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.write("server.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		t.Fatal(err)
	}
	for name, content := range made() {
		if renewed := !bytes.Equal(content, first[name]); renewed != (name == "server") {
			t.Errorf("%s: renewed %t", name, renewed)
		}
	}
	if left := time.Until(load("server").Leaf.NotAfter); left < 390*24*time.Hour {
		t.Errorf("the new one ends in %v", left)
	}
}
