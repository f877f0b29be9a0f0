package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/gelery/gelery/worker"
)

// hardGrace is how long a cold stop may take in all before the process ends nevertheless.
const hardGrace = 30 * time.Second

// maxStacks bounds the dump of all stacks, in bytes.
const maxStacks = 16 << 20

// supervisor runs a worker and carries out what signals ask for: the stages of a stop, a restart, a dump.
type supervisor struct {
	*app
	w    *worker.Worker
	log  *slog.Logger
	stop context.CancelFunc // warm

	stage   stopStage
	quit    bool             // SIGQUIT has asked for the stop
	restart bool             // SIGHUP has
	overdue <-chan time.Time // when the process ends, whatever the worker does
}

type stopStage int

const (
	stageRuns stopStage = iota
	stageWarm
	stageSoft
	stageCold
)

// supervise runs the worker until it has ended by itself or by signals.
func (a *app) supervise(ctx context.Context, w *worker.Worker, log *slog.Logger, ready func()) error {
	if worker.IsChild() {
		return w.Run(ctx) // which the parent ends
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s := &supervisor{app: a, w: w, log: log, stop: stop}
	more := make(chan os.Signal, 4)
	if a.notify != nil {
		a.notify(more, workerSignals...)
		defer signal.Stop(more)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	consuming := w.Consuming()
	for {
		var sig os.Signal
		select {
		case <-consuming:
			consuming = nil
			ready()
			continue
		case err := <-ended:
			return s.end(err)
		case <-s.overdue:
			fmt.Fprintf(a.stderr, "worker: ended at once (the stop takes longer than %v); held messages return when their lease ends\n", hardGrace)
			return silent(exitFailed)
		case sig = <-a.signals:
		case sig = <-more:
		}
		if s.obey(sig) {
			// The worker goes on behind our back until the process is gone, which is now.
			fmt.Fprintf(a.stderr, "worker: ended at once (%v); held messages return when their lease ends\n", sig)
			return silent(exitFailed)
		}
	}
}

// end turns what Run returned into the command's end.
func (s *supervisor) end(err error) error {
	switch {
	case errors.Is(err, worker.ErrTerminated):
		fmt.Fprintln(s.stderr, "worker: stopped cold, unfinished tasks are back in their queues")
		if s.quit {
			return nil // as Celery
		}
		return silent(exitFailed)
	case errors.Is(err, worker.ErrAbandoned):
		fmt.Fprintln(s.stderr, "worker: stopped because too many tasks go on running after they were given up; start it again")
		return silent(exitAbandoned)
	case err == nil:
		s.again = s.restart
	}
	return err
}

// obey does what a signal asks for. True: the process is to end now.
func (s *supervisor) obey(sig os.Signal) (now bool) {
	if sig == syscall.SIGTERM && s.env("REMAP_SIGTERM") == "SIGQUIT" {
		sig = syscall.SIGQUIT
	}
	switch {
	case sig == dumpSignal:
		s.dump()
		return false
	case sig == syscall.SIGHUP && s.stage == stageRuns:
		s.restart = !isTerminal(s.stdin) // by hand: a hang-up means then that the terminal is gone
		if s.restart {
			fmt.Fprintf(s.stderr, "worker: restart (%v), waiting for running tasks; a signal to stop cancels them\n", sig)
			s.stage = stageWarm
			s.stop()
			return false
		}
	case sig == syscall.SIGHUP:
		return false
	}
	soft := s.w.Config().SoftStopTimeout
	switch {
	case s.stage == stageRuns && sig != syscall.SIGQUIT:
		s.stage = stageWarm
		fmt.Fprintf(s.stderr, "worker: warm stop (%v), waiting for running tasks; once more to cancel them\n", sig)
		s.stop()
	case s.stage < stageSoft && soft > 0:
		s.stage, s.overdue = stageSoft, time.After(soft+hardGrace)
		fmt.Fprintf(s.stderr, "worker: soft stop (%v), running tasks have %v; once more to cancel them\n", sig, soft)
		s.w.Terminate()
	case s.stage < stageCold:
		s.stage, s.overdue = stageCold, time.After(hardGrace)
		fmt.Fprintf(s.stderr, "worker: cold stop (%v), running tasks are cancelled; once more to end at once\n", sig)
		s.w.Terminate()
	default:
		return true
	}
	s.restart = false
	s.quit = sig == syscall.SIGQUIT
	return false
}

// dump writes the stacks of all goroutines into the log.
func (s *supervisor) dump() {
	b := make([]byte, 64<<10)
	for {
		n := runtime.Stack(b, true)
		if n < len(b) || len(b) >= maxStacks {
			s.log.Warn("stacks of all goroutines:\n" + string(b[:n]))
			return
		}
		b = make([]byte, 2*len(b))
	}
}
