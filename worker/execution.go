package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// execution is one run of a job in a slot. It is decided once: by what comes back from the task, or before that from
// outside (the hard time limit, a termination). What still runs then is fenced: it can report nothing any more, and what it
// returns is dropped.
type execution struct {
	*job
	info   *task.Info
	begun  time.Time
	cancel context.CancelCauseFunc // of the task's context

	mu      sync.Mutex
	over    bool            // decided
	forced  chan completion // capacity 1: decided from outside
	givenUp chan struct{}   // closed with it: a pool that can kill kills now
}

var errGoexit = task.AsPython(errors.New("task ended its goroutine (runtime.Goexit)"), "builtins", "RuntimeError")

// errGivenUp is what a task hears that reports after its outcome was decided without it.
var errGivenUp = errors.New("the task was given up before: its outcome is decided")

// execute runs a job to its outcome. It returns when the slot is free again, which may be later than the outcome: a
// goroutine cannot be killed.
func (w *Worker) execute(j *job, ignore bool) (*execution, completion, <-chan completion) {
	e := &execution{job: j, forced: make(chan completion, 1), givenUp: make(chan struct{})}
	e.info = &task.Info{Request: j.request, Hostname: w.config.Hostname, Queue: j.delivery.Queue, Client: w.client,
		Logger: w.log}
	if !ignore {
		e.info.Report = w.reporter(e)
		if w.tracksStarted(j) {
			if err := w.storeStarted(e.info); err != nil {
				w.log.Warn("state STARTED was not stored", "task", j.request.Task, "task_id", j.request.ID, "error", err)
			}
		}
	}
	hard, soft := w.timeLimits(j)
	ctx, cancel := context.WithCancelCause(task.NewContext(w.running, e.info))
	e.cancel = cancel
	defer cancel(nil)
	if soft > 0 {
		limited, release := context.WithTimeoutCause(ctx, soft, task.ErrSoftTimeLimit)
		defer release()
		defer context.AfterFunc(limited, func() { w.logSoftLimit(limited, e, soft) })()
		ctx = limited
	}
	e.begun = time.Now()
	if hard > 0 {
		limit := time.AfterFunc(hard, func() { w.hardLimit(e, hard) })
		defer limit.Stop()
	}
	w.active.add(e)
	ended := make(chan completion, 1)
	go func() { // one made for this run only: runtime.Goexit, which no goroutine survives, ends no slot
		returned := false
		var c completion
		defer func() {
			if !returned {
				c = failure(errGoexit, nil)
			}
			w.active.remove(e)
			ended <- c
		}()
		c = w.pool.run(ctx, e)
		returned = true
	}()
	select {
	case c := <-ended:
		if e.decide() {
			return e, c, nil
		}
		return e, <-e.forced, nil
	case c := <-e.forced:
		return e, c, ended
	}
}

// decide closes the execution to other decisions; false: somebody was first.
func (e *execution) decide() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := !e.over
	e.over = true
	return first
}

// end decides the execution from outside and cancels the task's context with the cause. False: it was decided before.
func (e *execution) end(c completion, cause error) bool {
	if !e.decide() {
		return false
	}
	e.cancel(cause)
	e.forced <- c
	close(e.givenUp)
	return true
}

// reporter stores the states that the running task reports.
func (w *Worker) reporter(e *execution) task.Reporter {
	return func(ctx context.Context, state protocol.State, meta any) error {
		e.mu.Lock()
		over := e.over
		e.mu.Unlock()
		if over {
			return errGivenUp
		}
		m := w.meta(e.job, state, nil, "")
		m.Result, m.Children = meta, e.info.Children()
		return w.backend.Store(ctx, []*protocol.ResultMeta{m})
	}
}

// timeLimits are the limits of one run, 0 for none: the message decides, else the task's definition, else the worker. Each
// of the two is looked up by itself, as Celery does.
func (w *Worker) timeLimits(j *job) (hard, soft time.Duration) {
	seconds := func(s float64) time.Duration { return time.Duration(min(s, maxLimit.Seconds()) * float64(time.Second)) }
	hard, soft = seconds(j.request.TimeLimit.Hard), seconds(j.request.TimeLimit.Soft)
	if hard == 0 {
		hard = firstSet(j.task.Defaults.TimeLimit, w.config.TimeLimit)
	}
	if soft == 0 {
		soft = firstSet(j.task.Defaults.SoftTimeLimit, w.config.SoftTimeLimit)
	}
	return hard, soft
}

// maxLimit is the longest time limit that is told from none.
const maxLimit = 10 * 365 * 24 * time.Hour

func firstSet(a, b time.Duration) time.Duration {
	if a > 0 {
		return a
	}
	return b
}

// hardLimit gives a run up whose hard time limit has passed.
func (w *Worker) hardLimit(e *execution, limit time.Duration) {
	err := &task.TimeLimitError{Limit: limit}
	c := completion{state: protocol.Failure, exception: task.ExceptionOf(err), timedOut: true}
	if e.end(c, err) {
		w.logLimit(slog.LevelError, "Hard", e, limit)
	}
}

// logSoftLimit tells of a soft limit that has passed while the task ran.
func (w *Worker) logSoftLimit(ctx context.Context, e *execution, limit time.Duration) {
	if errors.Is(context.Cause(ctx), task.ErrSoftTimeLimit) {
		w.logLimit(slog.LevelWarn, "Soft", e, limit)
	}
}

// completion is what came back from a task, with nothing of the user's code left in it: a canonical value, or a
// verdict, or an exception with its traceback.
type completion struct {
	state     protocol.State // SUCCESS, FAILURE, RETRY, REVOKED, IGNORED or REJECTED
	result    any
	requeue   bool
	exception *protocol.Exception
	traceback string
	timedOut  bool // FAILURE by a time limit
	expected  bool // FAILURE by an error that the task is known to return

	following []transport.Publication // to be sent once the result is stored
	why       string                  // for the log: "Retry in 5s"
}

// active are the executions whose code runs, those given up included.
type active struct {
	mu   sync.Mutex
	runs map[*execution]struct{}
}

func newActive() *active { return &active{runs: map[*execution]struct{}{}} }

func (a *active) add(e *execution) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.runs[e] = struct{}{}
}

func (a *active) remove(e *execution) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.runs, e)
}
