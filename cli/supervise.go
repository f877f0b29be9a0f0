package cli

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/gelery/gelery/worker"
)

// supervise runs the worker and carries out the stages of a stop.
func (a *app) supervise(ctx context.Context, w *worker.Worker, ready func()) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	consuming := w.Consuming()
	for stage := 1; ; {
		select {
		case <-consuming:
			consuming = nil
			ready()
		case err := <-ended:
			switch {
			case errors.Is(err, worker.ErrTerminated):
				fmt.Fprintln(a.stderr, "worker: stopped cold, unfinished tasks are back in their queues")
				return silent(exitFailed)
			case errors.Is(err, worker.ErrAbandoned):
				fmt.Fprintln(a.stderr, "worker: stopped because too many tasks go on running after they were given up; start it again")
				return silent(exitAbandoned)
			}
			return err
		case sig := <-a.signals:
			if sig == syscall.SIGQUIT {
				stage = 3
			}
			switch stage {
			case 1:
				fmt.Fprintf(a.stderr, "worker: warm stop (%v), waiting for running tasks; once more to cancel them\n", sig)
				stop()
			case 2:
				fmt.Fprintf(a.stderr, "worker: cold stop (%v), running tasks are cancelled; once more to end at once\n", sig)
				w.Terminate()
			default:
				// The worker goes on behind our back until the process is gone, which is now.
				fmt.Fprintf(a.stderr, "worker: ended at once (%v); held messages return when their lease ends\n", sig)
				return silent(exitFailed)
			}
			stage++
		}
	}
}
