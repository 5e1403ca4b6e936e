package testredis

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// InstallClock is what to type where libfaketime is missing.
const InstallClock = "apt-get install libfaketime"

// Clock is a clock that a test can set, for the servers that it is given to. Their monotonic clock goes on undisturbed, as
// it does when an operator or NTP sets the time. Safe for concurrent use.
type Clock struct {
	file, library, libc string
	t                   testing.TB
}

// NewClock returns a clock that shows the right time. Where libfaketime is missing the test fails and says what to type.
func NewClock(t testing.TB) *Clock {
	t.Helper()
	c := &Clock{file: filepath.Join(t.TempDir(), "clock"), t: t}
	for _, found := range []struct {
		path     *string
		patterns []string
	}{
		{&c.library, []string{"/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1"}},
		{&c.libc, []string{"/lib/*-linux-gnu*/libc.so.6", "/lib64/libc.so.6"}},
	} {
		for _, pattern := range found.patterns {
			if paths, _ := filepath.Glob(pattern); len(paths) > 0 && *found.path == "" {
				*found.path = paths[0]
			}
		}
		if *found.path == "" {
			t.Fatalf("none of %v is there, and this test turns a server's clock: %s", found.patterns, InstallClock)
		}
	}
	c.Set(0)
	return c
}

// Set puts the clock this far ahead of the right time, or behind.
func (c *Clock) Set(ahead time.Duration) {
	c.t.Helper()
	next := c.file + ".next" // renamed, since the server may read it at any moment
	if err := os.WriteFile(next, fmt.Appendf(nil, "%+.3f\n", ahead.Seconds()), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(next, c.file); err != nil {
		c.t.Fatal(err)
	}
}

// environment makes a server read the clock. libc stands behind libfaketime so that memory is libc's: jemalloc, which
// Debian's redis-server uses, reads the time while it starts, and libfaketime wants memory for that.
func (c *Clock) environment() []string {
	return []string{
		"LD_PRELOAD=" + c.library + ":" + c.libc,
		"FAKETIME_TIMESTAMP_FILE=" + c.file,
		"FAKETIME_NO_CACHE=1",
		"FAKETIME_DONT_FAKE_MONOTONIC=1",
	}
}
