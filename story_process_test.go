package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that must come. Nothing is asserted about how long it takes.
const patience = 2 * time.Minute

// eventually waits until ok, and fails the test where that never comes.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: waited %s for it", what, patience)
		}
	}
}

// program is the real program, running in the background with its output kept.
type program struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // valid once ended is closed

	mu             sync.Mutex
	stdout, stderr bytes.Buffer
}

// start starts a program. It is killed at the end of the test if it still runs.
func start(t testing.TB, dir, path string, args ...string) *program {
	t.Helper()
	return startCommand(t, dir, exec.Command(path, args...))
}

func startCommand(t testing.TB, dir string, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{cmd: cmd, ended: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.SysProcAttr = dieWithTest()
	p.cmd.Stdout, p.cmd.Stderr = &lockedWriter{p, &p.stdout}, &lockedWriter{p, &p.stderr}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it has ended where all went well
		<-p.ended
	})
	return p
}

type lockedWriter struct {
	p  *program
	to *bytes.Buffer
}

func (w *lockedWriter) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	return w.to.Write(b)
}

func (p *program) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

func (p *program) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stdout.String()
}

func (p *program) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// said waits until the log has matches of a pattern, count of them.
func (p *program) said(t testing.TB, pattern string, count int) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	defer func() {
		if t.Failed() {
			t.Log(p.log())
		}
	}()
	eventually(t, "the log says "+pattern, func() bool {
		return len(re.FindAllStringIndex(p.log(), -1)) >= count || !p.running()
	})
	if len(re.FindAllStringIndex(p.log(), -1)) < count {
		t.Fatalf("it ended without saying %s:\n%s", pattern, p.log())
	}
}

// gatewayProcess is `cardstile serve`.
type gatewayProcess struct {
	*program
	config string
	addr   map[string]string // host:port of each listener, and of admin
}

// serveProcess starts a gateway and returns when it listens. Where its configuration says port 0, the log says which one. The
// environment is the test's, and what is named besides.
func serveProcess(t testing.TB, path, config string, environment ...string) *gatewayProcess {
	t.Helper()
	cmd := exec.Command(path, "serve", "--config", config)
	cmd.Env = append(os.Environ(), environment...)
	g := &gatewayProcess{program: startCommand(t, "", cmd), config: config, addr: map[string]string{}}
	g.said(t, `"listening","listener":"admin"`, 1)
	for line := range strings.Lines(g.log()) {
		var entry struct{ Msg, Listener, Address string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" {
			g.addr[entry.Listener] = entry.Address
		}
	}
	return g
}

// stop ends it with a signal and waits. Anything but exit code 0 fails the test.
func (p *program) stop(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end of the process", func() bool { return !p.running() })
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		t.Fatalf("it ended with %v:\n%s", exit, p.log())
	}
}
