package worker

import (
	"context"
	"errors"
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
	ctx    context.Context         // the task's
	cancel context.CancelCauseFunc // of ctx

	mu      sync.Mutex
	over    bool            // decided
	reports int             // states on their way to the backend
	quiet   chan struct{}   // closed when the last of them has arrived; nil: nobody waits for it
	forced  chan completion // capacity 1: decided from outside
	givenUp chan struct{}   // closed with it: a pool that can kill kills now
}

var errGoexit = task.AsPython(errors.New("task ended its goroutine (runtime.Goexit)"), "builtins", "RuntimeError")

// errGivenUp is what a task hears that reports after its outcome was decided without it.
var errGivenUp = errors.New("the task was given up before: its outcome is decided")

// execute runs a job until its outcome is decided. If its code still runs then, the channel tells when it has ended: a
// goroutine cannot be killed.
func (w *Worker) execute(j *job, ignore bool) (*execution, completion, <-chan completion) {
	e := &execution{job: j, forced: make(chan completion, 1), givenUp: make(chan struct{})}
	e.info = &task.Info{Request: j.request, Hostname: w.config.Hostname, Queue: j.delivery.Queue, Client: w.client,
		Logger: w.log}
	ctx, cancel := context.WithCancelCause(task.NewContext(w.running, e.info))
	e.ctx, e.cancel = ctx, cancel
	j.task.total.Add(1)
	if !ignore {
		e.info.Report = w.reporter(e)
		if w.tracksStarted(j) {
			if err := w.storeStarted(e.info); err != nil {
				w.log.Warn("state STARTED was not stored", "task", j.request.Task, "task_id", j.request.ID, "error", err)
			}
		}
	}
	hard, soft := w.timeLimits(j)
	if soft > 0 {
		limited, release := context.WithTimeoutCause(ctx, soft, task.ErrSoftTimeLimit)
		defer release()
		defer context.AfterFunc(limited, func() { w.logSoftLimit(limited, e, soft) })()
		ctx = limited
	}
	w.tellStarted(e)
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
	var c completion
	select {
	case c = <-ended:
		if !e.decide() {
			c = <-e.forced
		}
		ended = nil
	case c = <-e.forced:
	}
	cancel(nil)
	e.awaitReports()
	return e, c, ended
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
		if !e.reporting() {
			return errGivenUp
		}
		defer e.reported()
		ctx, cancel := context.WithCancel(ctx) // which need not be the task's
		defer cancel()
		defer context.AfterFunc(e.ctx, cancel)()
		m := w.meta(e.job, state, nil, "")
		m.Result, m.Children = meta, e.info.Children()
		return w.backend.Store(ctx, []*protocol.ResultMeta{m})
	}
}

// reporting begins a report; false: the execution is decided.
func (e *execution) reporting() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.over {
		e.reports++
	}
	return !e.over
}

// reported ends a report.
func (e *execution) reported() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.reports--; e.reports == 0 && e.quiet != nil {
		close(e.quiet)
		e.quiet = nil
	}
}

// reportGrace bounds the wait for a report whose context is done.
const reportGrace = time.Second

// awaitReports waits, once the execution is decided and its context done, until no report of it is under way: a late one
// would take the place of its result.
func (e *execution) awaitReports() {
	e.mu.Lock()
	if e.reports == 0 {
		e.mu.Unlock()
		return
	}
	quiet := make(chan struct{})
	e.quiet = quiet
	e.mu.Unlock()
	select {
	case <-quiet:
	case <-time.After(reportGrace):
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
	lost      bool // FAILURE because the process that ran it is gone

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
