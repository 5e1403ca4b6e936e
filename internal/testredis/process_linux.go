package testredis

import "syscall"

// processAttributes has the kernel end the server with the test, should the test end without its cleanups (a panic, a
// time-out).
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
