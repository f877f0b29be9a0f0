package databaseserver

import "syscall"

// dieWithParent makes the kernel kill a server when the process that started it dies, however that comes.
func dieWithParent(as *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: as, Pdeathsig: syscall.SIGKILL}
}
