package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// Hooks are functions that a worker calls as it goes on: Celery's signals. Any may be nil. [Mux.Hook] adds them; of
// several sets each is called, in the order they were added.
//
// They are called where things happen, so a slow one holds up the receiving (Received, Revoked, Quarantined) or its slot
// (all others). The context ends when the worker stops cold; of a run it has the task's Info. What a hook gets it must not
// change. A panic, or runtime.Goexit, is logged and changes nothing. There is no hook for the sending of tasks here, but
// task.PublishMiddleware.
type Hooks struct {
	Init     func(context.Context, *Worker) // Run begins, before the broker is asked for anything. worker_init
	Ready    func(context.Context, *Worker) // the worker receives. worker_ready
	Stopping func(context.Context, *Worker) // a stop begins. worker_shutting_down
	Stopped  func(context.Context, *Worker) // all has ended and Run returns. worker_shutdown

	Received    func(context.Context, TaskReceived)    // a known task has come. task_received
	Started     func(context.Context, TaskStarted)     // right before it runs. task_prerun
	Succeeded   func(context.Context, TaskSucceeded)   // it has returned; the result is not stored yet. task_success
	Failed      func(context.Context, TaskFailed)      // task_failure
	Retried     func(context.Context, TaskRetried)     // task_retry
	Rejected    func(context.Context, TaskRejected)    // task_rejected
	Revoked     func(context.Context, TaskRevoked)     // discarded before it ran, or ended from outside. task_revoked
	Ended       func(context.Context, TaskEnded)       // once for each Started, however the run ended, last of all. task_postrun
	Quarantined func(context.Context, TaskQuarantined) // task_unknown, and all else that cannot be handled
	// InternalError tells of a task that the worker itself failed: its result cannot be stored. task_internal_error.
	InternalError func(context.Context, TaskInternalError)

	// InChild lets a task that runs in a child of a process pool call there, and not in the worker, what tells of its run: Started,
	// Ended, and between them Succeeded, Failed, Retried, Rejected. A run that is given up ends with its child and calls none in it. False by
	// default: all are called in the worker.
	InChild bool
}

// TaskEvent is what all events of tasks tell.
type TaskEvent struct {
	*protocol.Request
	Queue string // the queue the message was received from
}

type (
	// TaskReceived is the event of [Hooks].Received.
	TaskReceived struct{ TaskEvent }
	// TaskStarted is the event of [Hooks].Started.
	TaskStarted struct{ TaskEvent }
	// TaskSucceeded is the event of [Hooks].Succeeded.
	TaskSucceeded struct {
		TaskEvent
		Result  any // canonical, see package protocol/value
		Runtime time.Duration
	}
	// TaskFailed is the event of [Hooks].Failed.
	TaskFailed struct {
		TaskEvent
		Exception *protocol.Exception
		Traceback string
		Expected  bool // the task is known to return this error
		TimedOut  bool // by a time limit
		Runtime   time.Duration
	}
	// TaskRetried is the event of [Hooks].Retried.
	TaskRetried struct {
		TaskEvent
		Exception *protocol.Exception
		Traceback string
		Why       string // "Retry in 5s: ValueError('kaput')"
		Runtime   time.Duration
	}
	// TaskRejected is the event of [Hooks].Rejected.
	TaskRejected struct {
		TaskEvent
		Requeue bool
		Why     string
	}
	// TaskRevoked is the event of [Hooks].Revoked.
	TaskRevoked struct {
		TaskEvent
		Why     string // "expired", "revoked" or "terminated"
		Running bool   // it was ended while it ran
	}
	// TaskEnded is the event of [Hooks].Ended.
	TaskEnded struct {
		TaskEvent
		State   protocol.State // "" of a run that was cut
		Runtime time.Duration
		Cut     bool // a cold stop has ended it without an outcome: the task runs again, elsewhere. Its code may run on until the process ends
	}
	// TaskQuarantined is the event of [Hooks].Quarantined. Of a message that could not be read the request may have neither
	// name nor id.
	TaskQuarantined struct {
		TaskEvent
		Exception *protocol.Exception // NotRegistered for an unknown task
		Reason    string
	}
	// TaskInternalError is the event of [Hooks].InternalError.
	TaskInternalError struct {
		ID  string
		Err error
	}
)

// hearers are the sets of hooks that hear of a run in a process: all, or where it is in a child, those that have InChild there and the
// others in the worker.
type hearers uint8

const (
	allHooks hearers = iota
	workerHooks
	childHooks
)

// tell calls the hooks of an event in all sets.
func tell[E any](ctx context.Context, w *Worker, hook func(*Hooks) func(context.Context, E), event E) {
	tellThose(ctx, w, allHooks, hook, event)
}

// tellThose calls the hooks of an event in some sets.
func tellThose[E any](ctx context.Context, w *Worker, those hearers, hook func(*Hooks) func(context.Context, E), event E) {
	for i := range w.hooks {
		if those != allHooks && w.hooks[i].InChild != (those == childHooks) {
			continue
		}
		if f := hook(&w.hooks[i]); f != nil {
			w.guard("hook", func() { f(ctx, event) })
		}
	}
}

type workerHook = func(context.Context, *Worker)

func (w *Worker) tellInit() {
	tell(w.running, w, func(h *Hooks) workerHook { return h.Init }, w)
}

func (w *Worker) tellReady() {
	tell(w.running, w, func(h *Hooks) workerHook { return h.Ready }, w)
}

func (w *Worker) tellStopping() {
	tell(w.running, w, func(h *Hooks) workerHook { return h.Stopping }, w)
}

func (w *Worker) tellStopped() {
	tell(w.running, w, func(h *Hooks) workerHook { return h.Stopped }, w)
}

// guard calls a function of the user's and survives it: in a goroutine of its own, because runtime.Goexit (t.FailNow in a
// hook of a test) would end the actor that calls it.
func (w *Worker) guard(what string, fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		returned := false
		defer func() {
			switch r := recover(); {
			case r != nil:
				w.log.Error("panic in a "+what, "error", fmt.Sprint(r), "traceback", string(debug.Stack()))
			case !returned:
				w.log.Error("a " + what + " has ended its goroutine (runtime.Goexit)")
			}
		}()
		fn()
		returned = true
	}()
	<-done
}

func taskEvent(j *job) TaskEvent { return TaskEvent{j.request, j.delivery.Queue} }

// tellReceived calls the hooks for a task that has come.
func (w *Worker) tellReceived(j *job) {
	if len(w.hooks) > 0 {
		tell(w.running, w, func(h *Hooks) func(context.Context, TaskReceived) { return h.Received }, TaskReceived{taskEvent(j)})
	}
}

// tellRevoked calls the hooks for a task that ends without a run.
func (w *Worker) tellRevoked(j *job, why string) {
	if len(w.hooks) > 0 {
		tell(w.running, w, func(h *Hooks) func(context.Context, TaskRevoked) { return h.Revoked }, TaskRevoked{taskEvent(j), why, false})
	}
}

// tellQuarantined calls the hooks for a message that is set aside.
func (w *Worker) tellQuarantined(d *transport.Delivery, r *protocol.Request, x *protocol.Exception, reason string) {
	tell(w.running, w, func(h *Hooks) func(context.Context, TaskQuarantined) { return h.Quarantined },
		TaskQuarantined{TaskEvent{r, d.Queue}, x, reason})
}

// hookContext is the context of what is called for a run beside its task.
func (w *Worker) hookContext(e *execution) context.Context { return task.NewContext(w.running, e.info) }

// tellInternalError calls the hooks for a task that the worker failed.
func (w *Worker) tellInternalError(id string, err error) {
	tell(w.running, w, func(h *Hooks) func(context.Context, TaskInternalError) { return h.InternalError }, TaskInternalError{id, err})
}

// tellStarted calls the hooks for the beginning of a run. Its end is to be told then, too.
func (w *Worker) tellStarted(e *execution) {
	if len(w.hooks) > 0 {
		e.told = true
		tellThose(w.hookContext(e), w, e.hearers, func(h *Hooks) func(context.Context, TaskStarted) { return h.Started }, TaskStarted{taskEvent(e.job)})
	}
}

// tellEnded calls the hooks for the end of a run.
func (w *Worker) tellEnded(e *execution, c completion) {
	if len(w.hooks) == 0 {
		return
	}
	ctx, event, runtime := w.hookContext(e), taskEvent(e.job), time.Since(e.begun)
	switch c.state {
	case protocol.Success:
		tellThose(ctx, w, e.hearers, func(h *Hooks) func(context.Context, TaskSucceeded) { return h.Succeeded }, TaskSucceeded{event, c.result, runtime})
	case protocol.Failure:
		tellThose(ctx, w, e.hearers, func(h *Hooks) func(context.Context, TaskFailed) { return h.Failed },
			TaskFailed{event, c.exception, c.traceback, c.expected, c.timedOut, runtime})
	case protocol.Retry:
		tellThose(ctx, w, e.hearers, func(h *Hooks) func(context.Context, TaskRetried) { return h.Retried },
			TaskRetried{event, c.exception, c.traceback, c.why, runtime})
	case protocol.Rejected:
		tellThose(ctx, w, e.hearers, func(h *Hooks) func(context.Context, TaskRejected) { return h.Rejected }, TaskRejected{event, c.requeue, c.why})
	case protocol.Revoked: // only the worker knows
		tell(ctx, w, func(h *Hooks) func(context.Context, TaskRevoked) { return h.Revoked }, TaskRevoked{event, "terminated", e.told})
	}
	w.tellLast(e, TaskEnded{TaskEvent: event, State: c.state, Runtime: runtime})
}

// tellCut calls the hooks for the end of a run that a cold stop has ended.
func (w *Worker) tellCut(e *execution) {
	w.tellLast(e, TaskEnded{TaskEvent: taskEvent(e.job), Runtime: time.Since(e.begun), Cut: true})
}

// tellLast ends what tellStarted has begun.
func (w *Worker) tellLast(e *execution, event TaskEnded) {
	if e.told {
		tellThose(w.hookContext(e), w, e.hearers, func(h *Hooks) func(context.Context, TaskEnded) { return h.Ended }, event)
	}
}

// callHandlers calls the task's own handlers for what came of a run: err is what the task returned, nil for none. A run
// that a cold stop has ended runs again elsewhere, and one that is given up has its outcome: they call none.
func (w *Worker) callHandlers(e *execution, c completion, err error) {
	h := &e.task.Defaults.Handlers
	if h.OnSuccess == nil && h.OnFailure == nil && h.OnRetry == nil && h.AfterReturn == nil {
		return
	}
	if !e.undecided() || c.state != protocol.Success && w.terminated() {
		return
	}
	ctx := w.hookContext(e)
	if c.state == protocol.Failure && err == nil { // the result cannot be encoded
		err = errors.New(c.exception.String())
	}
	switch {
	case c.state == protocol.Success && h.OnSuccess != nil:
		w.guard("task's OnSuccess", func() { h.OnSuccess(ctx, c.result) })
	case c.state == protocol.Failure && h.OnFailure != nil:
		w.guard("task's OnFailure", func() { h.OnFailure(ctx, err) })
	case c.state == protocol.Retry && h.OnRetry != nil:
		w.guard("task's OnRetry", func() { h.OnRetry(ctx, err) })
	}
	if h.AfterReturn != nil && (c.state == protocol.Success || c.state == protocol.Failure) {
		w.guard("task's AfterReturn", func() { h.AfterReturn(ctx, c.state, c.result, err) })
	}
}

func (e *execution) undecided() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.over
}
