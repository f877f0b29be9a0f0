//go:build unix && !linux

package taskfile

import "syscall"

// programAttributes give a program a process group of its own, which is killed with it.
func programAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
