package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// execution is one run of a job in a slot. It is decided once: by what comes back from the task, or before that from
// outside (the hard time limit, a termination). What still runs then is fenced: it can report nothing any more, and what it
// returns is dropped.
type execution struct {
	*job
	info    *task.Info
	hearers hearers                 // of the run, in this process
	told    bool                    // hooks were told that it begins
	begun   time.Time               // written under mu
	pid     int                     // of the process it runs in; 0: it has not begun
	ctx     context.Context         // the task's
	cancel  context.CancelCauseFunc // of ctx

	decided chan struct{} // capacity 1: the completion is there

	mu         sync.Mutex
	over       bool // decided
	completion completion
	ended      bool          // its code does not run any more
	left       chan struct{} // closed when it does not; nil: nobody waits for it
	lost       bool          // decided from outside
	kill       chan struct{} // closed when it was; nil: nobody waits for it
	reports    int           // states on their way to the backend
	quiet      chan struct{} // closed when the last of them has arrived; nil: nobody waits for it
}

var errGoexit = task.AsPython(errors.New("task ended its goroutine (runtime.Goexit)"), "builtins", "RuntimeError")

// errGivenUp is what a task hears that reports after its outcome was decided without it.
var errGivenUp = errors.New("the task was given up before: its outcome is decided")

// info is what a task can know of its own call.
func (w *Worker) info(d *transport.Delivery, r *protocol.Request, secrets *value.Secrets) *task.Info {
	return &task.Info{Request: r, Secrets: secrets, Hostname: w.config.Hostname, Queue: d.Queue, Redelivered: d.Redelivered || r.Attempts() > 0,
		Client: w.client, Logger: w.log}
}

// execute runs a job until its outcome is decided. If its code still runs then, the channel tells when it has ended: a
// goroutine cannot be killed.
func (w *Worker) execute(j *job, ignore bool) (e *execution, c completion, running <-chan struct{}) {
	e = &execution{job: j, decided: make(chan struct{}, 1)}
	e.info = w.info(j.delivery, j.request, j.task.Defaults.Secrets)
	if j.child != nil {
		e.hearers = workerHooks
	}
	ctx, cancel := context.WithCancelCause(task.NewContext(w.running, e.info))
	e.ctx, e.cancel = ctx, cancel
	j.task.total.Add(1)
	// From here on a stop waits for it and a revocation finds it, also while it has not begun.
	if !w.active.add(e) {
		cancel(ErrTerminated)
		return e, completion{}, nil
	}
	w.reserved.remove(j)
	if _, yes := w.revoked.holds(j.request); yes { // since it was asked last
		e.end(completion{state: protocol.Revoked, exception: revokedException("revoked")}, task.ErrRevoked)
	}
	if !ignore {
		e.info.Report = w.reporter(e)
		if w.tracksStarted(j) && e.undecided() {
			if err := w.storeStarted(e); err != nil {
				w.log.Warn("state STARTED was not stored", "task", j.request.Task, "task_id", j.request.ID, "error", err)
			}
		}
	}
	hard, soft := w.timeLimits(j)
	if soft > 0 {
		limited, release := w.softLimit(ctx, e, soft)
		defer release()
		ctx, e.info.GivenUp = limited, e.givenUp()
	}
	if e.undecided() && !w.terminated() {
		w.tellStarted(e)
		w.events.tellStarted(e.request)
		w.metrics.started(e.job)
	}
	e.begin()
	if hard > 0 {
		limit := time.AfterFunc(hard, func() { w.hardLimit(e, hard) })
		defer limit.Stop()
	}
	if w.begins(e) {
		w.dispatch(ctx, e)
	} else {
		w.active.remove(e)
	}
	<-e.decided
	cancel(nil)
	e.awaitReports()
	return e, e.completion, e.running()
}

// begin notes when and where the run begins.
func (e *execution) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.begun, e.pid = time.Now(), e.job.pid()
}

// begins tells whether the code of an execution is to run. It is not if the outcome is decided without it, or if the
// worker was stopped cold meanwhile.
func (w *Worker) begins(e *execution) bool {
	if w.terminated() {
		e.end(completion{}, ErrTerminated)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = e.over
	return !e.over
}

// end decides the execution from outside and cancels the task's context with the cause. False: it was decided before.
func (e *execution) end(c completion, cause error) bool {
	e.mu.Lock()
	if e.over {
		e.mu.Unlock()
		return false
	}
	e.over, e.completion, e.lost = true, c, true
	if e.kill != nil {
		close(e.kill)
	}
	e.mu.Unlock()
	e.cancel(cause)
	e.decided <- struct{}{}
	return true
}

// returned decides the execution by what came back, unless that comes too late.
func (e *execution) returned(c completion) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	switch {
	case !e.over:
		e.over, e.completion = true, c
		e.decided <- struct{}{} // which has room
	case e.left != nil:
		close(e.left)
	}
}

// running is closed when the code of a decided execution has ended; nil: it has ended already.
func (e *execution) running() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.lost || e.ended {
		return nil
	}
	e.left = make(chan struct{})
	return e.left
}

// givenUp is closed when the execution is decided from outside: a pool that can kill kills then.
func (e *execution) givenUp() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.kill == nil {
		e.kill = make(chan struct{})
		if e.lost {
			close(e.kill)
		}
	}
	return e.kill
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
	signal    int8 // REVOKED: what it was terminated with; 0: it was not
	lost      bool // FAILURE because the process that ran it is gone

	runtime     time.Duration           // of what has run, set once for all who tell it
	following   []transport.Publication // to be sent once the result is stored
	replacement *protocol.Signature     // of IGNORED: to be sent in place of the task
	why         string                  // for the log: "Retry in 5s"
}

// active are the executions that have a slot, those given up included whose code still runs.
type active struct {
	mu     sync.Mutex
	runs   map[*execution]struct{}
	closed bool
}

func newActive() *active { return &active{runs: map[*execution]struct{}{}} }

// add adds an execution. False: the worker has ended without it, and it must not run.
func (a *active) add(e *execution) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	a.runs[e] = struct{}{}
	return true
}

// close lets no more executions begin, unless there is one whose outcome is not decided.
func (a *active) close() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for e := range a.runs {
		if e.undecided() {
			return false
		}
	}
	a.closed = true
	return true
}

func (a *active) remove(e *execution) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.runs, e)
}
