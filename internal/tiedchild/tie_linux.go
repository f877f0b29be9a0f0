package tiedchild

import (
	"os/exec"
	"syscall"
)

// tie makes the kernel kill the child when its parent dies.
func tie(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
