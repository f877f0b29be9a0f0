//go:build !linux

package redisserver

import "syscall"

// dieWithParent has no equal here: a server whose parent is killed stays.
func dieWithParent() *syscall.SysProcAttr { return nil }
