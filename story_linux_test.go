package main

import "syscall"

// dieWithTest has the kernel end a process with the test, should the test end without its cleanups.
func dieWithTest() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
