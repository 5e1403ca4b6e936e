// Package testredis runs a real redis-server for a test: on loopback, in a directory of its own, stopped by its
// process id when the test ends. Tests only; nothing in the binary imports it.
package testredis

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Install is what to type where redis-server is missing.
const Install = "apt-get install redis-server"

// Options say how the server differs from a bare one.
type Options struct {
	// Args are directives as on redis-server's command line: "--maxmemory", "2mb".
	Args []string
	// TLS makes the TCP port speak TLS only, with a certificate that Server.ClientTLS trusts. No client certificate is asked for.
	TLS bool
	// Password is what the default user must give. Empty: none.
	Password string
	// Users are ACL users in Redis's notation, "name on >password ~pattern +command". See redis.io, ACL SETUSER.
	Users []string
	// Sentinel runs it as a Sentinel, which Server.Monitor tells what to watch.
	Sentinel bool
	// Cluster makes it a node of Redis Cluster, with its bus at Server.Bus; see Join.
	Cluster bool
	// Clock, where not nil, is the server's clock.
	Clock *Clock
	// SmallDisk gives it a disk of a mebibyte. See Server.FillDisk.
	SmallDisk bool
}

// Server is one redis-server. Its methods fail the test that started it. Safe for concurrent use, but Kill, Restart and
// Stop are for one goroutine.
type Server struct {
	// Addr is where it listens: host:port, the same one after Restart.
	Addr string
	// Bus is where a node of Redis Cluster listens for the others. Empty: it is none.
	Bus string
	// Dir is its directory: configuration, dump.rdb, log. Removed when the test ends.
	Dir string

	t      testing.TB
	o      Options
	config string
	ca     *authority
	admin  *redis.Client // over the unix socket, as a user of its own
	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd was waited for
}

// Start starts a server with these directives and returns when it answers. Where redis-server is not on PATH the test
// fails and says what to type; it never skips.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return StartWith(t, Options{Args: args})
}

// StartWith starts a server with o and returns when it answers.
func StartWith(t testing.TB, o Options) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatalf("redis-server is not on PATH, and this test needs a real one: %s", Install)
	}
	// Not t.TempDir: its path may be longer than the 108 bytes that a unix socket's may have.
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, o: o, Dir: dir}
	t.Cleanup(s.stop)

	const attempts = 5 // another process may take the free port before the server does
	for i := range attempts {
		s.Addr = freeAddress(t)
		if o.Cluster {
			s.Bus = freeAddress(t)
		}
		password := rand.Text()
		s.configure(o, password)
		s.connect(password)
		if err = s.launch(); err == nil {
			return s
		}
		s.admin.Close()
		if !strings.Contains(s.Log(), "Address already in use") || i == attempts-1 {
			break
		}
	}
	t.Fatalf("redis-server did not start: %v\n%s", err, s.Log())
	return nil
}

// freeAddress returns a loopback address that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// configure writes redis.conf. Everything stands in that file, so that no password is on a command line.
func (s *Server) configure(o Options, adminPassword string) {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("bind 127.0.0.1")
	line("dir %s", s.disk())
	line("unixsocket %s", s.socket())
	line("logfile %s", filepath.Join(s.Dir, "redis.log"))
	line("save \"\"")
	line("appendonly no")
	line("repl-diskless-sync-delay 0") // a replica that asks gets its data at once, rather than with those of the next 5 s
	line("enable-debug-command yes")
	line("user testredis on >%s ~* &* +@all", adminPassword)
	for _, u := range o.Users {
		line("user %s", u)
	}
	if o.Password != "" {
		line("requirepass %s", o.Password)
	}
	if o.TLS {
		s.ca = newAuthority(s.t)
		certificate, key, ca := s.ca.issue(s.t, s.Dir)
		line("port 0")
		line("tls-port %s", port)
		line("tls-cert-file %s", certificate)
		line("tls-key-file %s", key)
		line("tls-ca-cert-file %s", ca)
		line("tls-auth-clients no")
	} else {
		line("port %s", port)
	}
	if o.Cluster {
		_, bus, _ := net.SplitHostPort(s.Bus)
		line("cluster-enabled yes")
		line("cluster-port %s", bus)
	}
	for i := 0; i < len(o.Args); i++ {
		if name, ok := strings.CutPrefix(o.Args[i], "--"); ok {
			b.WriteString("\n" + name)
			continue
		}
		fmt.Fprintf(&b, " %q", o.Args[i])
	}
	line("")
	s.config = filepath.Join(s.Dir, "redis.conf")
	if err := os.WriteFile(s.config, b.Bytes(), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) socket() string { return filepath.Join(s.Dir, "redis.sock") }

func (s *Server) connect(password string) {
	s.admin = redis.NewClient(&redis.Options{
		Addr: s.socket(), Username: "testredis", Password: password,
		Protocol: 2, PoolSize: 2, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true,
	})
}

// launch starts the process and waits until it answers a PING.
func (s *Server) launch() error {
	if err := os.Remove(s.socket()); err != nil && !errors.Is(err, os.ErrNotExist) { // a killed server leaves it behind
		return err
	}
	cmd := s.command()
	cmd.SysProcAttr = processAttributes()
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its log says why it ended
		close(exited)
	}()
	s.mu.Lock()
	s.cmd, s.exited = cmd, exited
	s.mu.Unlock()

	// Far longer than a start takes: only a server that never answers meets it.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		if _, err := os.Stat(s.socket()); err == nil {
			// A server that cannot write to its disk says so even to a PING, and is there.
			if err := s.admin.Ping(ctx).Err(); err == nil || redis.HasErrorPrefix(err, "MISCONF") {
				return nil
			}
		}
		select {
		case <-exited:
			return errors.New("it ended")
		case <-ctx.Done():
			return errors.New("it does not answer")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// command is what starts the process. What stands before redis-server replaces itself by it, so that the process id is the server's.
func (s *Server) command() *exec.Cmd {
	args := []string{"redis-server", s.config}
	if s.o.Sentinel {
		args = append(args, "--sentinel")
	}
	if s.o.SmallDisk {
		args = append(smallDisk(s.disk()), args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	if s.o.Clock != nil {
		cmd.Env = append(os.Environ(), s.o.Clock.environment()...)
	}
	return cmd
}

// Log returns what the server wrote to its log.
func (s *Server) Log() string {
	b, _ := os.ReadFile(filepath.Join(s.Dir, "redis.log"))
	return string(b)
}

// ClientTLS returns a client's configuration that trusts this server's CA; nil where it was started without TLS.
func (s *Server) ClientTLS() *tls.Config {
	if s.ca == nil {
		return nil
	}
	return &tls.Config{RootCAs: s.ca.pool(), MinVersion: tls.VersionTLS12}
}

// Pause stops the process where it stands (SIGSTOP): connections stay open and nothing is answered until Resume.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

// Kill ends the process as a crash would (SIGKILL) and returns when it is gone.
func (s *Server) Kill() {
	s.t.Helper()
	s.signal(syscall.SIGKILL)
	<-s.done()
}

// Stop ends the process in good order (SIGTERM), so that it saves what its configuration says, and returns when it is gone.
func (s *Server) Stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	<-s.done()
}

// Restart ends the process in good order, unless it is gone already, starts it again on the same port and directory,
// and returns when it answers.
func (s *Server) Restart() {
	s.t.Helper()
	select {
	case <-s.done():
	default:
		s.Stop()
	}
	if err := s.launch(); err != nil {
		s.t.Fatalf("redis-server did not start again: %v\n%s", err, s.Log())
	}
}

// PID is the id of the present process.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

func (s *Server) done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exited
}

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatalf("signal %v to redis-server: %v", sig, err)
	}
}

// stop is the test's cleanup. SIGKILL also ends a paused process.
func (s *Server) stop() {
	if s.admin != nil {
		s.admin.Close()
	}
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // ended already: fine
		<-s.exited
	}
	os.RemoveAll(s.Dir)
}
