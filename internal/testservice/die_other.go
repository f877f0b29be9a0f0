//go:build !linux

package testservice

import "syscall"

func dieWithParent() *syscall.SysProcAttr { return nil }
