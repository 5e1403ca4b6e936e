//go:build !linux

package testredis

import "syscall"

// processAttributes has nothing to set here: a test that ends without its cleanups leaves its server behind.
func processAttributes() *syscall.SysProcAttr { return nil }
