package testservice

import "syscall"

// dieWithParent makes the kernel kill the child when the test process dies, by panic or time-out as well.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
