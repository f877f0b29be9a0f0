package redisserver

import "syscall"

// dieWithParent makes the kernel kill the server when the process that started it dies, however that comes.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
