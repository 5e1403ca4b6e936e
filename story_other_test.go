//go:build !linux

package main

import "syscall"

// dieWithTest has nothing to set here.
func dieWithTest() *syscall.SysProcAttr { return nil }
