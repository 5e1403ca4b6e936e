//go:build unix

package durable

import (
	"os"
	"syscall"
)

// Lock waits until no other process has the file; those that only read have it together. The lock ends with the process,
// whatever becomes of it.
func Lock(name string, reads bool) (unlock func(), err error) {
	how, flags := syscall.LOCK_EX, os.O_RDWR|os.O_CREATE
	if reads {
		how, flags = syscall.LOCK_SH, os.O_RDONLY // who may read the directory need not be able to write there
	}
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if err != syscall.EINTR { // Go's own signals interrupt it
			_ = f.Close()
			return nil, &os.PathError{Op: "lock", Path: name, Err: err}
		}
	}
}
