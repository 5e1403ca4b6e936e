package audit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/audit"
	"golang.org/x/sys/unix"
)

// Some behaviour needs a process of its own: the test binary starts itself again with a role.
const (
	roleVariable = "CARDSTILE_AUDIT_TEST_ROLE"
	fileVariable = "CARDSTILE_AUDIT_TEST_FILE"
)

func runChild(t *testing.T, role, path string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, fileVariable+"="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// play is main of a child.
func play(role string) int {
	roles := map[string]func(path string) error{"lock": playLock, "full": playFull}
	if err := roles[role](os.Getenv(fileVariable)); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func playLock(path string) error {
	l, err := audit.Open(testConfig(path))
	if err != nil {
		fmt.Println(err)
		return nil
	}
	fmt.Println("opened")
	return l.Close()
}

// The kernel itself refuses to make the file longer, in the middle of a write, as a full disk does. RLIMIT_FSIZE needs no privilege.
func TestFullDisk(t *testing.T) {
	path := newPath(t)
	if out := runChild(t, "full", path); out != "recovered\n" {
		t.Fatal(out)
	}
	r := verify(t, path)
	if kinds(r) != "start resumed stop " || r.Notes[1].Lost != 2 {
		t.Errorf("notes %+v", r.Notes)
	}
	for id, n := range exchanges(t, path) {
		if n != 1 || id == "refused" {
			t.Errorf("%s was recorded %d times", id, n)
		}
	}
}

func playFull(path string) error {
	const limit = 10_000
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		return err
	}
	l, err := audit.Open(testConfig(path))
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: before.Max}); err != nil {
		return err
	}
	e := event("released")
	for n := 0; ; n++ {
		e.Exchange = fmt.Sprintf("released-%d", n)
		if err = l.Record(context.Background(), e); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("record: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() >= limit || info.Size() < limit/2 {
		return fmt.Errorf("the file has %d bytes", info.Size()) // the half record is gone
	}
	if err := l.Record(context.Background(), event("refused")); !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("second record: %w", err)
	}
	if err := l.Ready(); !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("ready: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		return err
	}
	for l.Ready() != nil { // without any traffic
		time.Sleep(10 * time.Millisecond)
	}
	if err := l.Record(context.Background(), event("after")); err != nil {
		return err
	}
	fmt.Println("recovered")
	return l.Close()
}
