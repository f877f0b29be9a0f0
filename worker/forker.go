//go:build unix

package worker

import (
	"os/exec"
	"runtime"
)

// forker starts the children from one thread, which lives as long as they do: on Linux a child dies with the thread that
// started it, and not only with its process.
type forker struct {
	commands chan *exec.Cmd
	errs     chan error
	done     chan struct{}
}

func newForker() *forker {
	f := &forker{commands: make(chan *exec.Cmd), errs: make(chan error), done: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread() // or the thread would end, and what is left with it
		for {
			select {
			case cmd := <-f.commands:
				f.errs <- cmd.Start()
			case <-f.done:
				return
			}
		}
	}()
	return f
}

// start is cmd.Start.
func (f *forker) start(cmd *exec.Cmd) error {
	select {
	case f.commands <- cmd:
		return <-f.errs
	case <-f.done:
		return errForkerClosed
	}
}

func (f *forker) close() { close(f.done) }
