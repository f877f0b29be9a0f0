// Package tiedchild starts programs that die with the process that started them, however that comes to its end, where the system can
// arrange that.
package tiedchild

import (
	"os/exec"
	"runtime"
)

// Start is cmd.Start. It waits for the process itself: exited is closed when it has ended and cmd has its state. Other attributes
// of cmd.SysProcAttr stay as they are. The error is that of cmd.Start.
func Start(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	tie(cmd)
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The kernel ties a child to the thread that made it, so this thread stays until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	return ended, <-started
}
