package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// timeLimits are the limits of one run; 0 is none.
type timeLimits struct{ hard, soft time.Duration }

// maxLimit is the longest time limit that is told from none.
const maxLimit = 10 * 365 * 24 * time.Hour

// timeLimits are the limits of a job's run: the message decides, else what SetTimeLimit has set, else the task's
// definition, else the worker. Hard and soft are looked up each by itself, as Celery does. A soft limit that is not below
// the hard one never comes to pass, and is left out: the context's deadline would promise time that there is not.
func (w *Worker) timeLimits(j *job) (hard, soft time.Duration) {
	own := j.task.limits.Load()
	if own == nil {
		own = &timeLimits{j.task.Defaults.TimeLimit, j.task.Defaults.SoftTimeLimit}
	}
	hard = firstSet(wireLimit(j.request.TimeLimit.Hard), own.hard, w.config.TimeLimit)
	soft = firstSet(wireLimit(j.request.TimeLimit.Soft), own.soft, w.config.SoftTimeLimit)
	if hard > 0 && soft >= hard {
		soft = 0
	}
	return hard, soft
}

// wireLimit is a limit from a message, in seconds. One too short for a Duration is a limit nevertheless.
func wireLimit(seconds float64) time.Duration {
	if !(seconds > 0) {
		return 0
	}
	return max(time.Duration(min(seconds, maxLimit.Seconds())*float64(time.Second)), 1)
}

// firstSet is the first limit that is not 0.
func firstSet(limits ...time.Duration) time.Duration {
	for _, l := range limits {
		if l > 0 {
			return l
		}
	}
	return 0
}

// SetTimeLimit sets the time limits of a task for the runs that begin from now on, in place of those of its definition.
// 0 clears one, so that the worker's TimeLimit or SoftTimeLimit holds; a message's own limits go before these. An unknown
// task is an error that wraps task.ErrNotRegistered. Celery's time_limit command.
func (w *Worker) SetTimeLimit(name string, hard, soft time.Duration) error {
	t := w.tasks[name]
	switch {
	case t == nil:
		return fmt.Errorf("set time limit: task %q: %w", name, task.ErrNotRegistered)
	case hard < 0 || soft < 0:
		return fmt.Errorf("set time limit: hard %v, soft %v: a limit is not negative", hard, soft)
	case hard > 0 && soft > hard:
		return fmt.Errorf("set time limit: the soft limit %v is longer than the hard one, %v", soft, hard)
	}
	t.limits.Store(&timeLimits{hard, soft})
	return nil
}

// hardLimit gives a run up whose hard time limit has passed.
func (w *Worker) hardLimit(e *execution, limit time.Duration) {
	err := &task.TimeLimitError{Limit: limit}
	c := completion{state: protocol.Failure, exception: task.ExceptionOf(err), timedOut: true}
	if e.end(c, err) {
		w.logLimit(slog.LevelError, "Hard", e, limit)
	}
}

// softLimit is the context of a run with a soft time limit, and what is called when its outcome is decided. The limit is told
// of once: as it passes or, where that was noticed elsewhere before this process's timer came to it, with the outcome.
func (w *Worker) softLimit(ctx context.Context, e *execution, limit time.Duration) (limited context.Context, release func()) {
	limited, cancel := context.WithTimeoutCause(ctx, limit, task.ErrSoftTimeLimit)
	tell := sync.OnceFunc(func() { w.logLimit(slog.LevelWarn, "Soft", e, limit) })
	stop := context.AfterFunc(limited, func() {
		if errors.Is(context.Cause(limited), task.ErrSoftTimeLimit) {
			tell()
		}
	})
	return limited, func() {
		stop() // it may have begun, for the run's context ends before this
		if x := e.completion.exception; x != nil && x.Type == "SoftTimeLimitExceeded" {
			tell()
		}
		cancel()
	}
}
