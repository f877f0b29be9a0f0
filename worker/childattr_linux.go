package worker

import "syscall"

// childAttributes give a child a process group of its own, which is killed with it, and let the kernel kill it when its
// parent dies, however that comes.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
