//go:build testtls

package tlsprofile

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	binary = "../../bin/cardstile" // as `make build` leaves it
	kept   = "../../.test/tls"     // where the reports stay
)

// scanTime bounds one scan; it takes some 80 s.
const scanTime = 8 * time.Minute

// TestProfile scans the listeners of a demo, as a newcomer has it, and of a gateway with an RSA certificate and TLS on its admin
// listener, and judges what was found.
func TestProfile(t *testing.T) {
	for _, program := range []string{"testssl", "sslscan"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: TLS=1 ./tools/setup installs it", err)
		}
	}
	if err := errors.Join(os.RemoveAll(kept), os.MkdirAll(kept, 0o755)); err != nil {
		t.Fatal(err)
	}
	dir, ports := filepath.Join(t.TempDir(), "demo"), freePorts(t)
	run(t, "demo", "--dir", dir, "--ports-from", fmt.Sprint(ports))
	listening(t, ports, ports+1, ports+2)
	other := freePorts(t)
	config := variant(t, dir, ports, other)
	run(t, "serve", "--config", config)
	listening(t, other, other+1, other+2)

	partner := filepath.Join(dir, "partner")
	targets := []struct {
		name   string
		port   int
		client string // files of a client certificate, without their endings
	}{
		{"partners", ports, partner}, // required
		{"public", ports + 1, ""},
		{"public-rsa", other + 1, ""},
		{"admin", other + 2, ""},
	}
	var mu sync.Mutex
	all := map[string][]finding{}
	t.Run("scan", func(t *testing.T) {
		for _, target := range targets {
			t.Run(target.name, func(t *testing.T) {
				t.Parallel()
				found := scan(t, target.name, target.port, filepath.Join(dir, "ca.pem"), target.client)
				mu.Lock()
				defer mu.Unlock()
				all[target.name] = found
			})
		}
	})
	if t.Failed() || len(all) != len(targets) {
		t.Fatal("not everything was scanned")
	}
	v := judge(all, waivers)
	for _, line := range v.wrong {
		t.Error(line)
	}
	var text strings.Builder
	for _, part := range []struct {
		title string
		lines []string
	}{{"Above low", v.wrong}, {"Above low, and waived", v.waived}, {"Low", v.low}} {
		fmt.Fprintf(&text, "%s: %d\n", part.title, len(part.lines))
		for _, line := range part.lines {
			fmt.Fprintf(&text, "  %s\n", line)
		}
	}
	if err := os.WriteFile(filepath.Join(kept, "report.txt"), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%sAll of it is in .test/tls.", text.String())
}

// scan runs both programs on a port and keeps what they say.
func scan(t *testing.T, name string, port int, ca, client string) []finding {
	address, report := fmt.Sprintf("localhost:%d", port), filepath.Join(kept, name)
	testssl := []string{
		"--quiet", "--color", "0", "--warnings", "off", "--ip", "one", "--connect-timeout", "20", "--openssl-timeout", "20",
		"--jsonfile", report + ".testssl.json", "--add-ca", ca,
	}
	sslscan := []string{"--no-colour", "--show-sigs", "--xml=" + report + ".sslscan.xml"}
	if client != "" {
		testssl = append(testssl, "--openssl", withClient(t, client))
		sslscan = append(sslscan, "--certs="+client+".pem", "--pk="+client+"-key.pem")
	}
	tool(t, report+".testssl.txt", "testssl", append(testssl, address)...)
	found, err := parseTestssl(content(t, report+".testssl.json"))
	if err != nil {
		t.Fatal(err)
	}
	tool(t, report+".sslscan.txt", "sslscan", append(sslscan, address)...)
	also, err := parseSslscan(content(t, report+".sslscan.xml"))
	if err != nil {
		t.Fatal(err)
	}
	return append(found, also...)
}

// withClient is an openssl that shows a client certificate, which testssl.sh by itself cannot.
func withClient(t *testing.T, client string) string {
	path := filepath.Join(t.TempDir(), "openssl")
	script := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = s_client ]; then shift; exec openssl s_client -cert %[1]s.pem -key %[1]s-key.pem \"$@\"; fi\nexec openssl \"$@\"\n", client)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// tool runs a program to its end. How it exits says what it found, which its report says better.
func tool(t *testing.T, output, name string, args ...string) {
	ctx, cancel := context.WithTimeout(t.Context(), scanTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err := os.WriteFile(output, out, 0o644); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s: %v, %v", name, err, ctx.Err())
	}
}

// variant makes another configuration in a demo's directory: the public listener has an RSA certificate, the admin listener TLS.
func variant(t *testing.T, dir string, from, to int) string {
	issueRSA(t, dir)
	text := string(content(t, filepath.Join(dir, "config.yaml")))
	for i := range 3 {
		text = strings.ReplaceAll(text, fmt.Sprintf("127.0.0.1:%d", from+i), fmt.Sprintf("127.0.0.1:%d", to+i))
		text = strings.ReplaceAll(text, fmt.Sprintf("localhost:%d", from+i), fmt.Sprintf("localhost:%d", to+i))
	}
	for _, change := range [][2]string{
		{"tls: {certificate: server.pem, key: server-key.pem}\n", "tls: {certificate: rsa.pem, key: rsa-key.pem}\n"},
		{fmt.Sprintf(`admin: {address: "127.0.0.1:%d"}`, to+2), fmt.Sprintf(`admin: {address: "127.0.0.1:%d", tls: {certificate: server.pem, key: server-key.pem}}`, to+2)},
		{"audit.jsonl", "other-audit.jsonl"},
	} {
		if strings.Count(text, change[0]) != 1 {
			t.Fatalf("%q is not in the demo's configuration once", change[0])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	path := filepath.Join(dir, "other.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// issueRSA makes rsa.pem and rsa-key.pem under the demo's CA.
func issueRSA(t *testing.T, dir string) {
	ca, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(0, 3, 0), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "rsa.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(filepath.Join(dir, "rsa-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// run runs the binary until the test ends.
func run(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: make build makes it", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		err := cmd.Wait()
		if err != nil {
			t.Errorf("cardstile %s: %v\n%s", args[0], err, said.String())
		}
	})
}

// listening waits for listeners.
func listening(t *testing.T, ports ...int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for _, port := range ports {
		for {
			conn, err := net.Dial("tcp", fmt.Sprintf("localhost:%d", port))
			if err == nil {
				conn.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("nobody listens on port %d: %v", port, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// freePorts returns the first of three ports of the loopback that follow one another, on which nobody listens now.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		first := ln.Addr().(*net.TCPAddr).Port
		free := first < 65533
		for _, port := range []int{first + 1, first + 2} {
			next, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				free = false
				continue
			}
			next.Close()
		}
		ln.Close()
		if free {
			return first
		}
	}
	t.Fatal("no three free ports in a row")
	return 0
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
