package taskfile

import "syscall"

// programAttributes give a program a process group of its own, which is killed with it, and let the kernel kill the program when
// the worker dies, or the child process of a pool that runs it: nobody else would, and its message is given to another worker.
// That goes by the thread that starts it, see handle.
func programAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
