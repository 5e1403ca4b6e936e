package deploy_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestComposeServes runs what compose runs, without the containers: redis-server with its configuration, the static binary with
// compose-config.yaml, and what prepare made. A partner mints a token, Prometheus' scrape works, and what it reads is what metrics.txt says.
func TestComposeServes(t *testing.T) {
	dir := prepared(t)
	ports := freePorts(t, 3)
	text := strings.NewReplacer(
		"/run/secrets/", filepath.Join(dir, "secrets")+"/", "/var/log/cardstile/", dir+"/",
		"redis:6379", startRedis(t, filepath.Join(dir, "secrets", "redis_acl")),
		`":8443"`, "localhost:"+ports[0], `":8444"`, "localhost:"+ports[1], `":8445"`, "localhost:"+ports[2],
	).Replace(read(t, "compose-config.yaml"))
	write(t, filepath.Join(dir, "policy.cedar"), read(t, "compose-policy.cedar"))
	write(t, filepath.Join(dir, "config.yaml"), text)
	server := serve(t, filepath.Join(dir, "config.yaml"))
	defer server.stop()

	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(read(t, filepath.Join(dir, "public", "server-ca.pem")))) {
		t.Fatal("no CA")
	}
	partner, err := tls.LoadX509KeyPair(filepath.Join(dir, "partner", "partner.pem"), filepath.Join(dir, "partner", "partner-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{partner}}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	call := func(method, url, token string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := transport.RoundTrip(req)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return 0, "it does not listen yet"
		}
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}

	admin := "https://localhost:" + ports[2]
	token := strings.TrimSpace(read(t, filepath.Join(dir, "secrets", "admin_token")))
	for status := 0; status != http.StatusOK; status, _ = call("GET", admin+"/readyz", token) {
		select {
		case <-server.ended:
			t.Fatal("it ended before it was ready")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if status, body := call("GET", admin+"/metrics", ""); status != http.StatusUnauthorized {
		t.Errorf("metrics without the token: %d %s", status, body)
	}
	status, body := call("POST", "https://localhost:"+ports[0]+"/api/v1/ephemeral-token", "")
	var minted struct {
		Data struct{ EphemeralToken string }
	}
	if err := json.Unmarshal([]byte(body), &minted); status != http.StatusOK || err != nil || minted.Data.EphemeralToken == "" {
		t.Errorf("mint: %d %s", status, body)
	}
	_, exposed := call("GET", admin+"/metrics", token)
	compareMetrics(t, readMetrics(t), exposed)
	if os.Getenv("GOGC") == "" && (!regexp.MustCompile(`(?m)^go_gc_gogc_percent [1-9]\d{2,}$`).MatchString(exposed) || strings.Contains(exposed, "go_gc_gogc_percent 100\n")) {
		t.Error("the heap has Go's own target, and no headroom")
	}
}

// freePorts returns ports of the loopback that nobody listens on now.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var ports []string
	for range n {
		ln, err := net.Listen("tcp", "localhost:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		ports = append(ports, port)
	}
	return ports
}

// served is the binary that serves.
type served struct {
	t     *testing.T
	cmd   *exec.Cmd
	said  *strings.Builder
	err   error // valid once ended is closed
	ended chan struct{}
}

func serve(t *testing.T, config string) *served {
	t.Helper()
	s := &served{t: t, cmd: exec.Command(binary(t), "serve", "--config", config), said: &strings.Builder{}, ended: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.said, s.said
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.ended)
		s.err = s.cmd.Wait()
	}()
	return s
}

// stop ends it by SIGTERM, which must end it well.
func (s *served) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended, which its exit status shows
	<-s.ended
	if s.err != nil {
		s.t.Errorf("serve: %v", s.err)
	}
	if s.t.Failed() {
		s.t.Log(s.said.String())
	}
}

var (
	typeLine   = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)
	sampleLine = regexp.MustCompile(`(?m)^([a-z_]+)(?:\{(.*)\})? \S+$`)
	labelName  = regexp.MustCompile(`([a-z_]+)="(?:[^"\\]|\\.)*"`)
)

// compareMetrics compares what is exposed with metrics.txt: each of ours is there, with its type and labels. A vector that nothing has
// happened to yet is not exposed, so the other direction is the gateway's test.
func compareMetrics(t *testing.T, metrics []metric, exposed string) {
	t.Helper()
	kinds := map[string]string{}
	for _, m := range typeLine.FindAllStringSubmatch(exposed, -1) {
		kinds[m[1]] = m[2]
	}
	ours := 0
	for name, kind := range kinds {
		if !strings.HasPrefix(name, "cardstile_") {
			continue
		}
		ours++
		if !slices.ContainsFunc(metrics, func(m metric) bool { return m.name == name && m.kind == kind }) {
			t.Errorf("%s %s is exposed, and metrics.txt does not have it", kind, name)
		}
	}
	if ours < 20 {
		t.Errorf("only %d metrics of ours are exposed", ours)
	}
	for _, m := range metrics {
		if kind, ok := kinds[m.name]; !strings.HasPrefix(m.name, "cardstile_") && (!ok || kind != m.kind) {
			t.Errorf("%s %s of metrics.txt is not exposed: %q", m.kind, m.name, kind)
		}
	}
	for _, sample := range sampleLine.FindAllStringSubmatch(exposed, -1) {
		m, ok := find(metrics, sample[1])
		if !ok {
			continue
		}
		for _, l := range labelName.FindAllStringSubmatch(sample[2], -1) {
			if !slices.Contains(m.labels, l[1]) {
				t.Errorf("%s is exposed with label %s, and metrics.txt does not have it", sample[1], l[1])
			}
		}
	}
}
