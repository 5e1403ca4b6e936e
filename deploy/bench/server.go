package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// world is everything that runs during a benchmark.
type world struct {
	options
	dir   string
	cores cores

	apiKey, paymentsKey     string // of the issuers
	cookieKey               string
	ports                   []int       // of Cardstile: partners, public, admin
	public, partner, hybrid *tls.Config // of the load

	cardstile      *server
	proxy, proxyH1 *server
	nginxServer    *server // nil where it is left out
	rsa            *server
	running        []*server   // in the order of their start
	closers        []io.Closer // of connections that ask servers about themselves
}

// server is a process that is measured, or that the measured ones need.
type server struct {
	name    string
	cmd     *exec.Cmd
	pids    []int // whose time counts
	address string
	admin   string // URL of the metrics, of Cardstile alone
	log     string // file with what it had to say
	in      io.WriteCloser
	out     *bufio.Reader
}

// start makes the working directory and starts every process.
func (w *world) start(ctx context.Context) error {
	if _, err := os.Stat(w.binary); err != nil {
		return fmt.Errorf("%w (make build)", err)
	}
	var err error
	if w.binary, err = filepath.Abs(w.binary); err != nil {
		return err
	}
	var nginx string
	if w.nginx {
		if nginx, err = findNginx(nginxNames); err != nil {
			return err
		}
	}
	if err := w.setUp(ctx); err != nil {
		return err
	}
	rain, err := w.startRole(w.cores.other, "issuer", "issuer")
	if err != nil {
		return err
	}
	payments, err := w.startRole(w.cores.other, "payments issuer", "payments")
	if err != nil {
		return err
	}
	if err := w.configure(rain.address, payments.address); err != nil {
		return err
	}
	if w.cardstile, err = w.startCardstile(ctx, w.binary); err != nil {
		return err
	}
	if w.proxy, err = w.startRole(w.cores.measured, "ReverseProxy", "proxy", payments.address); err != nil {
		return err
	}
	if w.proxyH1, err = w.startRole(w.cores.measured, proxyH1Name, "proxy", payments.address, "h1"); err != nil {
		return err
	}
	if w.rsa, err = w.startRole(w.cores.measured, "crypto/rsa", "rsa"); err != nil {
		return err
	}
	if nginx != "" {
		w.nginxServer, err = w.startNginx(ctx, nginx, payments.address)
	}
	return err
}

// startRole starts this program in another role.
func (w *world) startRole(core int, name, role string, args ...string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append([]string{w.dir}, args...)...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, "GOMAXPROCS=1")
	s := &server{name: name, cmd: cmd}
	if s.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if err := w.run(core, s, false); err != nil {
		return nil, err
	}
	if s.address, err = s.hear(); err != nil {
		return nil, fmt.Errorf("%s did not start: %w%s", name, err, s.said())
	}
	return s, nil
}

// run starts a process and remembers to end it.
func (w *world) run(core int, s *server, gentle bool) error {
	log, err := os.CreateTemp(w.dir, "log-*")
	if err != nil {
		return err
	}
	defer log.Close()
	s.log, s.cmd.Stderr = log.Name(), log
	if err := startOn(core, s.cmd, gentle); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	s.pids = []int{s.cmd.Process.Pid}
	w.running = append(w.running, s)
	return nil
}

// ask sends a role one line and returns its answer.
func (s *server) ask(command string) (string, error) {
	if _, err := fmt.Fprintln(s.in, command); err != nil {
		return "", fmt.Errorf("%s: %w%s", s.name, err, s.said())
	}
	return s.hear()
}

func (s *server) hear() (string, error) {
	line, err := s.out.ReadString('\n')
	return strings.TrimSpace(line), err
}

// said is the end of a process' log, for an error.
func (s *server) said() string {
	content, err := os.ReadFile(s.log)
	if err != nil || len(content) == 0 {
		return ""
	}
	return "\n" + string(content[max(0, len(content)-2000):])
}

// startCardstile serves the configuration and waits until it is ready.
func (w *world) startCardstile(ctx context.Context, binary string, env ...string) (*server, error) {
	cmd := exec.Command(binary, "serve", "--config", w.path("config.yaml"))
	cmd.Env = append(append(os.Environ(), "GOMAXPROCS=1"), env...)
	s := &server{
		name: "Cardstile", cmd: cmd, address: fmt.Sprintf("127.0.0.1:%d", w.ports[0]), admin: fmt.Sprintf("http://127.0.0.1:%d", w.ports[2]),
	}
	if err := w.run(w.cores.measured, s, false); err != nil {
		return nil, err
	}
	return s, s.wait(ctx, func() error {
		res, err := http.Get(s.admin + "/readyz") //nolint:noctx // loopback
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("readiness: status %d", res.StatusCode)
		}
		return nil
	})
}

// startTimeout is how long a server may take to answer.
const startTimeout = 15 * time.Second

// wait asks until there is no error.
func (s *server) wait(ctx context.Context, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w%s", s.name, err, s.said())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// publicAddress is the listener without client certificates.
func (w *world) publicAddress() string { return fmt.Sprintf("127.0.0.1:%d", w.ports[1]) }

// nginxNames are where it is looked for: Debian puts it where few people's PATH leads.
var nginxNames = []string{"nginx", "/usr/sbin/nginx"}

// findNginx finds the first of the names that is a program.
func findNginx(names []string) (string, error) {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("nginx is not installed. Type: sudo apt-get install --no-install-recommends nginx-light (or leave it out: -without-nginx)")
}

// startNginx starts one worker in front of an issuer. Its time counts, the master's does not.
func (w *world) startNginx(ctx context.Context, binary, issuer string) (*server, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	as := ""
	if os.Geteuid() == 0 { // otherwise workers become nobody, who cannot enter the working directory
		u, err := user.Current()
		if err != nil {
			return nil, err
		}
		as = "user " + u.Username + ";"
	}
	if err := os.Mkdir(w.path("nginx"), 0o700); err != nil {
		return nil, err
	}
	if err := w.write("nginx.conf", strings.NewReplacer("DIR", w.dir, "PORT", fmt.Sprint(ports[0]), "ISSUER", issuer, "USER", as).Replace(nginxConfig)); err != nil {
		return nil, err
	}
	s := &server{name: "nginx", address: fmt.Sprintf("127.0.0.1:%d", ports[0])}
	s.cmd = exec.Command(binary, "-p", w.dir, "-e", w.path("nginx.log"), "-c", w.path("nginx.conf"))
	if err := w.run(w.cores.measured, s, true); err != nil {
		return nil, err
	}
	s.log = w.path("nginx.log")
	master := s.cmd.Process.Pid
	return s, s.wait(ctx, func() error {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			return err
		}
		conn.Close()
		if s.pids, err = childrenOf(master); err == nil && len(s.pids) != 1 {
			err = fmt.Errorf("%d workers, want 1", len(s.pids))
		}
		return err
	})
}

// nginxConfig is what nginx needs to do the ReverseProxy's work: the same certificates, a verified client certificate on
// every connection and no tickets, a verified issuer, connections kept on both sides, and no log of its own.
const nginxConfig = `USER
daemon off;
worker_processes 1;
pid DIR/nginx/pid;
error_log DIR/nginx.log error;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path DIR/nginx/body;
    proxy_temp_path DIR/nginx/proxy;
    fastcgi_temp_path DIR/nginx/fastcgi;
    uwsgi_temp_path DIR/nginx/uwsgi;
    scgi_temp_path DIR/nginx/scgi;
    upstream issuer {
        server ISSUER;
        keepalive 64;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }
    server {
        listen 127.0.0.1:PORT ssl;
        server_name localhost;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
        ssl_certificate DIR/server.pem;
        ssl_certificate_key DIR/server-key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_verify_client on;
        ssl_client_certificate DIR/partners-ca.pem;
        ssl_session_tickets off;
        ssl_session_cache off;
        location / {
            proxy_pass https://issuer;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_ssl_server_name on;
            proxy_ssl_name localhost;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate DIR/ca.pem;
            proxy_ssl_protocols TLSv1.2 TLSv1.3;
        }
    }
}
`

// stop ends every process, the last one first.
func (w *world) stop() {
	for _, c := range w.closers {
		c.Close() //nolint:errcheck // the server ends too
	}
	w.closers = nil
	for i := len(w.running) - 1; i >= 0; i-- {
		w.running[i].stop()
	}
	w.running = nil
}

// end ends one process before the others.
func (w *world) end(s *server) {
	for i, r := range w.running {
		if r == s {
			w.running = append(w.running[:i], w.running[i+1:]...)
			s.stop()
			return
		}
	}
}

// stop asks a process to end, and ends it where it does not within five seconds.
func (s *server) stop() {
	if s.in != nil {
		s.in.Close()
	}
	s.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
	kill := time.AfterFunc(5*time.Second, func() {
		for _, pid := range append(s.pids, s.cmd.Process.Pid) {
			syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may have ended
		}
	})
	defer kill.Stop()
	s.cmd.Wait() //nolint:errcheck // a signal ended it
}

// versions says what is measured.
func (w *world) versions(ctx context.Context, m *machine) error {
	out, err := exec.CommandContext(ctx, w.binary, "version").Output()
	if err != nil {
		return fmt.Errorf("%s version: %w", w.binary, err)
	}
	m.Cardstile = firstLine(out)
	if w.nginxServer != nil {
		out, err := exec.CommandContext(ctx, w.nginxServer.cmd.Path, "-V").CombinedOutput()
		if err != nil {
			return fmt.Errorf("nginx -V: %w", err)
		}
		m.Nginx = nginxVersion(string(out))
	}
	return nil
}

func firstLine(out []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// nginxVersion keeps of `nginx -V` what matters here: its version, and that of its OpenSSL.
func nginxVersion(text string) string {
	var found []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "nginx version: nginx/"); ok {
			found = append(found, "nginx "+rest)
		}
		if rest, ok := strings.CutPrefix(line, "built with "); ok {
			found = append(found, rest)
		}
	}
	return strings.Join(found, ", ")
}
