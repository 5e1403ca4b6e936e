package testredis

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// diskBytes is what a SmallDisk holds.
const diskBytes = 1 << 20

// mayMount is whether this process may give another one a disk of its own.
var mayMount = sync.OnceValue(func() bool {
	return exec.Command("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt").Run() == nil
})

// smallDisk is what stands before a command so that dir is a disk of diskBytes to it. The disk is a tmpfs in a mount
// namespace of the process, so that it goes with the process. Where mounting is not permitted, no file of the process
// may be longer, which ends a write in another error (EFBIG for ENOSPC) and leaves the files to the next process.
func smallDisk(dir string) []string {
	script := fmt.Sprintf(`trap "" XFSZ; ulimit -f %d; exec "$@"`, diskBytes/512)
	command := []string{"sh", "-c", script, "sh"}
	if mayMount() {
		script = fmt.Sprintf(`mount -t tmpfs -o size=%d tmpfs '%s' && exec "$@"`, diskBytes, dir)
		command = []string{"unshare", "--mount", "sh", "-c", script, "sh"}
	}
	return command
}

// disk is where the server keeps its files.
func (s *Server) disk() string {
	if !s.o.SmallDisk {
		return s.Dir
	}
	dir := filepath.Join(s.Dir, "disk")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// FillDisk takes what is left of a SmallDisk, and FreeDisk gives it back. It reports false where the disk is a limit on
// each file: then the server's append-only file, which it must have, is made as long as may be.
func (s *Server) FillDisk() bool {
	s.t.Helper()
	if !mayMount() {
		value := strings.Repeat("v", 64<<10)
		s.Eventually("the append-only file is full", func() bool {
			_, err := s.Try("SET", "filler", value)
			return err != nil
		})
		return false
	}
	f, err := os.Create(s.filler())
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4<<10); err == nil; {
		_, err = f.Write(block)
	}
	return true
}

// FreeDisk is the opposite of FillDisk.
func (s *Server) FreeDisk() {
	s.t.Helper()
	if !mayMount() {
		_, _ = s.Try("BGREWRITEAOF") // there may be one already
		return
	}
	if err := os.Remove(s.filler()); err != nil && !errors.Is(err, os.ErrNotExist) { // a new process has a new disk
		s.t.Fatal(err)
	}
}

// filler is a file on the disk as the server's process sees it.
func (s *Server) filler() string {
	return filepath.Join("/proc", fmt.Sprint(s.PID()), "root", s.disk(), "filler")
}
