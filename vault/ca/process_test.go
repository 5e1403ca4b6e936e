//go:build unix

package ca_test

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cardstile/cardstile/vault/ca"
)

// TestMain lets a test start this program again, as another process that works with a CA.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "other-process" {
		if err := otherProcess(os.Args[2], os.Args[3:]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// otherProcess holds a CA open until its standard input ends, or issues certificates to a partner and prints their serial
// numbers, without an end or with room in each file for so many bytes.
func otherProcess(what string, args []string) error {
	switch what {
	case "hold":
		a, err := ca.Open(args[0], loadPlain)
		if err != nil {
			return err
		}
		defer a.Close()
		fmt.Println("open")
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	case "room":
		limit, err := strconv.ParseUint(args[2], 10, 64)
		if err != nil {
			return err
		}
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			return err
		}
		fallthrough
	case "issue":
		t := &testing.T{} // its key and request go wrong only where randomness does
		for {
			a, err := ca.Open(args[0], loadPlain)
			if err != nil {
				return err
			}
			c, err := a.Issue(args[1], "", request(t, args[1], ecKey(t, elliptic.P256())), 90, now)
			a.Close()
			if err != nil {
				return err
			}
			fmt.Println(c.Serial())
		}
	}
	return errors.New("unknown: " + what)
}

func loadPlain(file string, _ bool) (crypto.Signer, error) {
	der, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	return key.(*ecdsa.PrivateKey), nil
}

// authorityOnDisk is a CA that other processes can open too.
func authorityOnDisk(t testing.TB) string {
	t.Helper()
	dir, key := filepath.Join(t.TempDir(), "ca"), ecKey(t, elliptic.P256())
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Init(ca.Config{Dir: dir, Subject: name(t, "Example Partners CA"), Days: 100, CRLDays: 7, KeyFile: der, Now: now, Key: key}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func openPlain(t testing.TB, dir string) *ca.Authority {
	t.Helper()
	a, err := ca.Open(dir, loadPlain)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// process is this program as another process. The test ends it.
type process struct {
	*exec.Cmd
	in  io.Closer
	out *bufio.Reader
}

func begin(t testing.TB, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0], append([]string{"other-process"}, args...)...)}
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill(); p.Wait() })
	return p
}

// line is the next one that it prints, and whether there was a whole one.
func (p *process) line() (string, bool) {
	line, err := p.out.ReadString('\n')
	return strings.TrimSpace(line), err == nil
}

// TestLockOfAnotherProcess: whoever signs has the directory alone, readers have it together, and the lock of a process
// that was killed is nobody's.
func TestLockOfAnotherProcess(t *testing.T) {
	dir := authorityOnDisk(t)
	free := func(how int) bool {
		f, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB) == nil
	}
	holder := begin(t, "hold", dir)
	if line, _ := holder.line(); line != "open" {
		t.Fatal(line)
	}
	if free(syscall.LOCK_SH) {
		t.Error("another process can read while one signs")
	}
	opened := make(chan *ca.Authority)
	go func() {
		a, err := ca.Open(dir, loadPlain)
		if err != nil {
			t.Error(err)
		}
		opened <- a
	}()
	select {
	case <-opened:
		t.Fatal("two have it at a time")
	default:
	}
	if err := holder.Process.Kill(); err != nil { // it gives nothing back
		t.Fatal(err)
	}
	if a := <-opened; a != nil {
		a.Close()
	}
	one, err := ca.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if !free(syscall.LOCK_SH) || free(syscall.LOCK_EX) {
		t.Error("one reads: others may read, and nobody may sign")
	}
}

// TestProcessesKilled: several processes issue at one time and are killed in the middle of it. Whatever one has said to be
// issued is in the index, which is whole, and nothing of a file that was being written stays.
func TestProcessesKilled(t *testing.T) {
	dir := authorityOnDisk(t)
	said := map[string]string{} // partner by serial
	const rounds, together = 4, 3
	for round := range rounds {
		var all []*process
		for i := range together {
			all = append(all, begin(t, "issue", dir, fmt.Sprint("p", i)))
		}
		for range 2 + round {
			serial, ok := all[0].line()
			if !ok {
				t.Fatal(serial)
			}
			said[serial] = "p0"
		}
		for _, p := range all {
			if err := p.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		for i, p := range all {
			for serial, ok := p.line(); ok; serial, ok = p.line() {
				said[serial] = fmt.Sprint("p", i)
			}
			if p.Wait(); p.ProcessState.Exited() {
				t.Errorf("a process ended by itself: %v", p.ProcessState)
			}
		}
		a := openPlain(t, dir)
		issued := map[string]string{}
		for _, c := range a.Of("") {
			issued[c.Serial()] = c.Partner
		}
		a.Close()
		for serial, partner := range said {
			if issued[serial] != partner {
				t.Fatalf("%s was issued to %s, and the index has %q", serial, partner, issued[serial])
			}
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".new-*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	if len(said) < rounds*2 {
		t.Errorf("%d certificates", len(said))
	}
}

// TestNoRoom: where a file cannot be written to its end, nothing was issued, the command says so, and the next one goes on
// from the last whole state.
func TestNoRoom(t *testing.T) {
	for _, room := range []int{0, 10, 1000, 3000, 6000} {
		dir := authorityOnDisk(t)
		p := begin(t, "room", dir, "p", fmt.Sprint(room))
		issued := 0
		line, ok := p.line()
		for ; ok && !strings.HasPrefix(line, "error: "); line, ok = p.line() {
			issued++
		}
		if !strings.Contains(line, "the index stays as it is") || !strings.Contains(line, "file too large") {
			t.Fatalf("room for %d bytes: %q", room, line)
		}
		a := openPlain(t, dir)
		if got := len(a.Of("")); got != issued {
			t.Fatalf("room for %d bytes: %d said, %d in the index", room, issued, got)
		}
		a.Close()
	}
}

// TestBetweenSteps: a step that fails, or a process that ends, between two files leaves what the next command can go on from.
func TestBetweenSteps(t *testing.T) {
	dir := authorityOnDisk(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	issue := func(a *ca.Authority) error {
		_, err := a.Issue("p", "", request(t, "p", ecKey(t, elliptic.P256())), 90, now)
		return err
	}
	// A place that nothing can be put in: a directory that is not empty.
	blocked := func(name string, do func()) {
		t.Helper()
		before, err := os.ReadFile(file(name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := errors.Join(os.RemoveAll(file(name)), os.MkdirAll(file(name)+"/x", 0o700)); err != nil {
			t.Fatal(err)
		}
		do()
		if err := os.RemoveAll(file(name)); err != nil {
			t.Fatal(err)
		}
		if before != nil {
			write(t, file(name), before)
		}
	}
	count := func(want int) {
		t.Helper()
		a := openPlain(t, dir)
		defer a.Close()
		if got := len(a.Of("p")); got != want {
			t.Fatalf("%d certificates, want %d", got, want)
		}
	}
	a := openPlain(t, dir)
	blocked("index.jsonl", func() {
		if err := issue(a); err == nil || !strings.Contains(err.Error(), "put the index in its place") {
			t.Fatal(err)
		}
	})
	a.Close()
	count(0)
	a = openPlain(t, dir)
	blocked("index.head", func() {
		if err := issue(a); err == nil || !strings.Contains(err.Error(), "it stands in the index") {
			t.Fatal(err)
		}
	})
	a.Close()
	count(1)
	a = openPlain(t, dir)
	if err := issue(a); err != nil { // the head is up to date again
		t.Fatal(err)
	}
	if head := read(t, file("index.head")); !bytes.HasPrefix(head, []byte("2 ")) {
		t.Errorf("head %s", head)
	}
	blocked("index.head", func() { // what the index has is said to be so
		changed, err := a.Revoke(a.Of("p")[1:], "superseded", now)
		if err == nil || !strings.Contains(err.Error(), "it stands in the index") || len(changed) != 1 {
			t.Fatal(err, len(changed))
		}
	})
	blocked("crl.pem", func() {
		changed, err := a.Revoke(a.Of("p")[:1], "superseded", now)
		if err == nil || !strings.Contains(err.Error(), "revoked in the index") || len(changed) != 1 {
			t.Fatal(err, len(changed))
		}
	})
	a.Close()
	a = openPlain(t, dir)
	list, err := a.WriteCRL(now)
	a.Close()
	if err != nil || len(list.RevokedCertificateEntries) != 2 || list.Number.Int64() != 2 { // no number twice
		t.Fatalf("%v, number %v", err, list.Number)
	}
	// What was being written when a process ended goes when the next one signs; one that reads leaves it.
	left := file(".new-1")
	write(t, left, []byte("half"))
	for _, load := range []func(string, bool) (crypto.Signer, error){nil, loadPlain} {
		a, err := ca.Open(dir, load)
		if err != nil {
			t.Fatal(err)
		}
		a.Close()
		if _, err := os.Stat(left); (err == nil) != (load == nil) {
			t.Errorf("left behind, signing %v: %v", load != nil, err)
		}
	}
	// A CA that was not finished is no CA, and none is made over it.
	half := filepath.Join(t.TempDir(), "half")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(half, "ca-key.pem"), []byte("x"))
	if _, err := ca.Open(half, nil); err == nil || !strings.Contains(err.Error(), "no CA") {
		t.Error(err)
	}
	err = ca.Init(ca.Config{Dir: half, Subject: name(t, "x"), Days: 1, CRLDays: 1, Now: now, Key: ecKey(t, elliptic.P256())})
	if err == nil || !strings.Contains(err.Error(), "that was not finished (ca-key.pem)") || string(read(t, filepath.Join(half, "ca-key.pem"))) != "x" {
		t.Error(err)
	}
	// Nor over one that is there.
	err = ca.Init(ca.Config{Dir: dir, Subject: name(t, "x"), Days: 1, CRLDays: 1, Now: now, Key: ecKey(t, elliptic.P256())})
	if err == nil || !strings.Contains(err.Error(), "there is a CA already") {
		t.Error(err)
	}
}
