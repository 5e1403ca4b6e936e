package main

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the profile of the sessions that are opened says SHA-1
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
)

// roleVariable names the part that this program plays in a process of its own.
const roleVariable = "CARDSTILE_BENCH_ROLE"

// roles are the processes that are made of this program. Each gets the working directory and perhaps more; it says one
// line on standard output when it is ready, answers one line to each line of its standard input, and ends with that.
var roles = map[string]func(dir string, args []string) (ready string, answer func(command string) (string, error), err error){
	"issuer":   playIssuer,
	"payments": playPayments,
	"proxy":    playProxy,
	"rsa":      playRSA,
}

func playRole(name string, args []string) error {
	play, ok := roles[name]
	if !ok || len(args) == 0 {
		return errors.New("no such role")
	}
	ready, answer, err := play(args[0], args[1:])
	if err != nil {
		return err
	}
	fmt.Println(ready)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		said, err := answer(in.Text())
		if err != nil {
			return err
		}
		fmt.Println(said)
	}
	return in.Err()
}

func nothingToSay(string) (string, error) { return "", errors.New("no commands") }

// playIssuer serves the sandbox issuer of cards over TLS, HTTP/2 included, and says where.
func playIssuer(dir string, _ []string) (string, func(string) (string, error), error) {
	f, config, err := loadIssuer(dir)
	if err != nil {
		return "", nil, err
	}
	key, err := loadRSA(filepath.Join(dir, "issuer-key.pem"))
	if err != nil {
		return "", nil, err
	}
	rain, err := sandbox.NewRain(sandbox.RainConfig{APIKey: f.APIKey, Key: key, Cards: f.Cards, Users: f.Users, KeepRequests: -1, TLS: config})
	if err != nil {
		return "", nil, err
	}
	return serveIssuer(rain.Serve)
}

// playPayments is the same for the issuer whose calls are forwarded.
func playPayments(dir string, _ []string) (string, func(string) (string, error), error) {
	f, config, err := loadIssuer(dir)
	if err != nil {
		return "", nil, err
	}
	payments, err := sandbox.NewPayments(sandbox.PaymentsConfig{
		APIKeys: map[string]string{f.PaymentsKey: account}, Cards: f.Cards, KeepRequests: -1, TLS: config,
	})
	if err != nil {
		return "", nil, err
	}
	return serveIssuer(payments.Serve)
}

func loadIssuer(dir string) (f issuerFile, config *tls.Config, err error) {
	content, err := os.ReadFile(filepath.Join(dir, "issuer.json"))
	if err != nil {
		return f, nil, err
	}
	if err := json.Unmarshal(content, &f); err != nil {
		return f, nil, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem"))
	return f, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, err
}

func serveIssuer(serve func(net.Listener) error) (string, func(string) (string, error), error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go func() { endWith(serve(ln)) }()
	return ln.Addr().String(), nothingToSay, nil
}

// endWith ends a process whose server has ended.
func endWith(err error) {
	fmt.Fprintln(os.Stderr, "bench: server ended:", err)
	os.Exit(1)
}

// playProxy serves a httputil.ReverseProxy, with nothing added to it: the same listener settings as the gateway's, the
// same transport settings to the issuer. args are the issuer's address, and "h1" to speak HTTP/1.1 to it.
func playProxy(dir string, args []string) (string, func(string) (string, error), error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem"))
	if err != nil {
		return "", nil, err
	}
	clientCAs, err := loadPool(filepath.Join(dir, "partners-ca.pem"))
	if err != nil {
		return "", nil, err
	}
	issuerCAs, err := loadPool(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return "", nil, err
	}
	if len(args) == 0 {
		return "", nil, errors.New("no issuer")
	}
	target := &url.URL{Scheme: "https", Host: args[0]}
	quiet := log.New(io.Discard, "", 0)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: issuerCAs}, ForceAttemptHTTP2: true, DisableCompression: true,
		MaxIdleConns: 256, MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute,
	}
	if len(args) > 1 && args[1] == "h1" {
		transport.ForceAttemptHTTP2 = false
	}
	server := &http.Server{
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: transport, ErrorLog: quiet,
		},
		TLSConfig: gateway.ServerTLS(pair, clientCAs), ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet,
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go func() { endWith(server.ServeTLS(ln, "", "")) }()
	return ln.Addr().String(), heapStats, nil
}

// heapStats answers "heap" with how many objects and bytes this process has allocated so far, and "memory" with what it has in use.
func heapStats(command string) (string, error) {
	var m runtime.MemStats
	switch command {
	case "heap":
	case "memory":
		for range 4 { // each halves the stacks that have grown
			debug.FreeOSMemory()
		}
		runtime.ReadMemStats(&m)
		return fmt.Sprint(m.HeapAlloc + m.StackInuse), nil
	default:
		return "", fmt.Errorf("unknown command %q", command)
	}
	runtime.ReadMemStats(&m)
	return fmt.Sprintf("%d %d", m.Mallocs, m.TotalAlloc), nil
}

// playRSA opens session ids and does nothing else: the one RSA operation of a reveal, by itself. It answers a duration
// with how many it opened in that time.
func playRSA(dir string, _ []string) (string, func(string) (string, error), error) {
	key, err := loadRSA(filepath.Join(dir, "session-key.pem"))
	if err != nil {
		return "", nil, err
	}
	secret := make([]byte, 16)
	rand.Read(secret)
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, &key.PublicKey, []byte(base64.StdEncoding.EncodeToString(secret)), nil)
	if err != nil {
		return "", nil, err
	}
	return "ready", func(command string) (string, error) {
		d, err := time.ParseDuration(strings.TrimSpace(command))
		if err != nil {
			return "", err
		}
		n := 0
		for end := time.Now().Add(d); time.Now().Before(end); n++ {
			if _, err := rsa.DecryptOAEP(sha1.New(), nil, key, wrapped, nil); err != nil {
				return "", err
			}
		}
		return fmt.Sprint(n), nil
	}, nil
}
