package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cores are the processors that the measured servers and everything else run on: one and the same where there is only one.
type cores struct{ measured, other int }

// pinSelf moves this process to the second processor that it may use. What it starts inherits that; restore undoes it.
func pinSelf() (c cores, restore func(), err error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return c, nil, fmt.Errorf("processors: %w", err)
	}
	for i, found := 0, 0; found < min(2, allowed.Count()); i++ {
		if allowed.IsSet(i) {
			if c.other = i; found == 0 {
				c.measured = i
			}
			found++
		}
	}
	if err := moveSelf(only(c.other)); err != nil {
		return c, nil, err
	}
	return c, func() { moveSelf(&allowed) }, nil //nolint:errcheck // the process ends, or measures no more
}

func only(core int) *unix.CPUSet {
	var set unix.CPUSet
	set.Set(core)
	return &set
}

// moveSelf moves every thread; later ones inherit it.
func moveSelf(to *unix.CPUSet) error {
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, to); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move to a processor: %w", err)
		}
	}
	return nil
}

// startOn starts a command on one processor. The kernel ends it with this process, should that end without its clean-up;
// gentle is for a program that has processes of its own to end.
func startOn(core int, cmd *exec.Cmd, gentle bool) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if gentle {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	}
	// A child inherits the processors of the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var was unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		return fmt.Errorf("processors: %w", err)
	}
	if err := unix.SchedSetaffinity(0, only(core)); err != nil {
		return fmt.Errorf("move to a processor: %w", err)
	}
	return errors.Join(cmd.Start(), unix.SchedSetaffinity(0, &was))
}

// selfCPU is what this process has used so far, user and system.
func selfCPU() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("own processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// kernel is the running kernel's release.
func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// fileSystems names the magic numbers of statfs(2) that are likely here.
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs (a sync costs nothing here)",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.F2FS_SUPER_MAGIC: "f2fs",
}

// fileSystem names the file system of a directory.
func fileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "unknown"
	}
	if name, ok := fileSystems[int64(s.Type)]; ok {
		return name
	}
	return fmt.Sprintf("%#x", s.Type)
}
