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

// moreSignals asks for those that only a worker heeds. Forget gives them back and must be called.
func (a *app) moreSignals() (more <-chan os.Signal, forget func()) {
	if a.notify == nil || worker.IsChild() {
		return nil, func() {}
	}
	c := make(chan os.Signal, 4)
	a.notify(c, workerSignals...)
	return c, func() { signal.Stop(c) }
}

// beforehand gives the context of what a worker has to wait for before it runs. A signal to stop ends it, and so does SIGHUP,
// after which the program is started again. Release tells whether it was ended; it must be called.
func (a *app) beforehand(parent context.Context, more <-chan os.Signal, log *slog.Logger) (ctx context.Context, release func() (stopped bool)) {
	ctx, cancel := context.WithCancel(parent)
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			var sig os.Signal
			select {
			case sig = <-a.signals:
			case sig = <-more:
			case <-over:
				return
			}
			switch {
			case sig == dumpSignal:
				dump(log)
				continue
			case sig == syscall.SIGHUP && ctx.Err() != nil:
				continue
			case sig == syscall.SIGHUP:
				a.again = !isTerminal(a.stdin)
			default:
				a.again = false
			}
			if sig == syscall.SIGINT || sig == syscall.SIGQUIT {
				signal.Reset(syscall.SIGINT, syscall.SIGQUIT) // one more ends the process as if nobody listened
			}
			cancel()
		}
	}()
	return ctx, func() bool {
		close(over)
		<-ended
		stopped := ctx.Err() != nil
		cancel()
		return stopped
	}
}

// supervise runs the worker, and the beat in it if it has one, until the worker has ended by itself or by signals. The beat ends when
// the worker begins to stop.
func (a *app) supervise(ctx context.Context, w *worker.Worker, beat *openedBeat, more <-chan os.Signal, log *slog.Logger, ready func()) error {
	if worker.IsChild() {
		return w.Run(ctx) // which the parent ends
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if beat != nil {
		beating := make(chan struct{})
		go func() {
			defer close(beating)
			if err := beat.run(ctx); err != nil {
				log.Error("beat: it does not run", "error", err)
			}
		}()
		defer func() { stop(); <-beating }()
	}
	s := &supervisor{app: a, w: w, log: log, stop: stop}
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
	if sig == syscall.SIGTERM {
		asked := stageWarm
		if s.env("REMAP_SIGTERM") == "SIGQUIT" {
			sig, asked = syscall.SIGQUIT, stageSoft
		}
		// Only the first counts, as in Celery: who signals a process and its group, as timeout does, sends two at once.
		if s.stage >= asked {
			s.restart = false
			s.tell(sig)
			return false
		}
	}
	switch {
	case sig == dumpSignal:
		dump(s.log)
		return false
	case sig == syscall.SIGHUP && s.stage == stageRuns:
		s.restart = !isTerminal(s.stdin) // by hand: a hang-up means then that the terminal is gone
		if s.restart {
			fmt.Fprintf(s.stderr, "worker: restart (%v), waiting for running tasks; SIGINT or SIGQUIT cancels them\n", sig)
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
		s.stop()
	case s.stage < stageSoft && soft > 0:
		s.stage, s.overdue = stageSoft, time.After(soft+hardGrace)
		s.w.Terminate()
	case s.stage < stageCold:
		s.stage, s.overdue = stageCold, time.After(hardGrace)
		s.w.Terminate()
	default:
		return true
	}
	s.tell(sig)
	s.restart = false
	s.quit = sig == syscall.SIGQUIT
	return false
}

// tell says what a stop that a signal asks for does now.
func (s *supervisor) tell(sig os.Signal) {
	switch s.stage {
	case stageWarm:
		fmt.Fprintf(s.stderr, "worker: warm stop (%v), waiting for running tasks; SIGINT (Ctrl-C) or SIGQUIT cancels them\n", sig)
	case stageSoft:
		fmt.Fprintf(s.stderr, "worker: soft stop (%v), running tasks have %v; SIGINT (Ctrl-C) or SIGQUIT cancels them\n", sig, s.w.Config().SoftStopTimeout)
	case stageCold:
		fmt.Fprintf(s.stderr, "worker: cold stop (%v), running tasks are cancelled; SIGINT (Ctrl-C) or SIGQUIT ends at once\n", sig)
	}
}

// dump writes the stacks of all goroutines into the log.
func dump(log *slog.Logger) {
	b := make([]byte, 64<<10)
	for {
		n := runtime.Stack(b, true)
		if n < len(b) || len(b) >= maxStacks {
			log.Warn("stacks of all goroutines:\n" + string(b[:n]))
			return
		}
		b = make([]byte, 2*len(b))
	}
}
