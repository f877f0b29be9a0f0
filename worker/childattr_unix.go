//go:build unix && !linux

package worker

import "syscall"

// childAttributes give a child a process group of its own, which is killed with it. When its parent dies it finds its pipe
// closed and ends.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
