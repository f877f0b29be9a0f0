//go:build unix

package worker

import (
	"os"
	"os/signal"
	"syscall"
)

// absorbSignals keeps a child from ending by signals that are meant for its parent: a terminal or a service manager sends
// them to every process. They are not ignored, because programs that a task starts would inherit that.
func absorbSignals() {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP}
	signal.Reset(signals...)
	signal.Notify(make(chan os.Signal, 1), signals...) // never read: what does not fit is dropped
}

// endGroup ends this process with all that its tasks have started.
func endGroup() { _ = syscall.Kill(0, syscall.SIGKILL) }
