package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// slot is one goroutine of the pool: it runs one task after the other. Jobs still waiting when ctx is done are left
// held.
func (w *Worker) slot(ctx context.Context) {
	for j := range w.ready {
		if ctx.Err() != nil {
			continue
		}
		if !w.expired(j) {
			w.runJob(j)
		}
	}
}

// runJob runs one task to its outcome.
func (w *Worker) runJob(j *job) {
	o := &outcome{delivery: j.delivery, request: j.request}
	if j.task.Defaults.AckEarly {
		if !w.ackEarly(j) {
			return
		}
		o.settled = true
	}
	ignore := w.ignoresResult(j)
	info := &task.Info{Request: j.request, Hostname: w.config.Hostname, Queue: j.delivery.Queue}
	if !ignore {
		info.Report = func(ctx context.Context, state protocol.State, meta any) error {
			m := w.meta(j, state, nil, "")
			m.Result, m.Children = meta, info.Children()
			return w.backend.Store(ctx, []*protocol.ResultMeta{m})
		}
		if w.tracksStarted(j) {
			if err := w.storeStarted(info); err != nil {
				w.log.Warn("state STARTED was not stored", "task", j.request.Task, "task_id", j.request.ID, "error", err)
			}
		}
	}
	begun := time.Now()
	c := w.call(info, j)
	if c.state != protocol.Success && w.terminated() {
		if !o.settled {
			return // a stop is not a failure: the message goes back and the task runs again
		}
		// Nothing can go back that was acknowledged before it ran; whoever waits must not wait for ever.
		c = failure(task.ErrWorkerLost, nil)
	}
	w.conclude(o, j, c, ignore, info)
	w.logOutcome(j, o, c, time.Since(begun))
	w.report(o)
}

// completion is what came back from a task, with nothing of the user's code left in it: a canonical value, or a
// verdict, or an exception with its traceback.
type completion struct {
	state     protocol.State // SUCCESS, FAILURE, IGNORED or REJECTED
	result    any
	requeue   bool
	exception *protocol.Exception
	traceback string
}

// call runs the handler and survives whatever it does, but for os.Exit and a fatal runtime error: a panic is an error
// with a stack, and runtime.Goexit, which no goroutine survives, ends one made for this call only. The result is
// encoded and the error is judged and described in there too, because all of that may call methods of the user's types.
// The task's context ends with the call.
func (w *Worker) call(info *task.Info, j *job) completion {
	done := make(chan completion, 1)
	ctx, cancel := context.WithCancel(task.NewContext(w.running, info))
	defer cancel()
	go func() {
		var c completion
		ended := false
		defer func() {
			if r := recover(); r != nil {
				c = failure(panicError(r), debug.Stack())
			} else if !ended {
				c = failure(errGoexit, nil)
			}
			done <- c
		}()
		result, err := j.task.Handler(ctx, j.request)
		if err == nil {
			if result, err = value.Of(result); err != nil {
				err = task.AsPython(fmt.Errorf("result cannot be encoded: %w", err), "kombu.exceptions", "EncodeError")
			}
		}
		if err != nil {
			c = judge(err)
		} else {
			c = completion{state: protocol.Success, result: result}
		}
		ended = true
	}()
	return <-done
}

// judge tells what a task's error means. Retry will be one more meaning.
func judge(err error) completion {
	var rejected *task.RejectError
	switch {
	case errors.Is(err, task.Ignore):
		return completion{state: protocol.Ignored}
	case errors.As(err, &rejected):
		return completion{state: protocol.Rejected, requeue: rejected.Requeue}
	}
	return failure(err, nil)
}

// failure describes an error. An error that panics when it is asked is described by that.
func failure(err error, stack []byte) (c completion) {
	c.state = protocol.Failure
	defer func() {
		if r := recover(); r != nil {
			c.exception = &protocol.Exception{Type: "RuntimeError", Module: "builtins", Args: []any{fmt.Sprint("panic in the task's error: ", r)}}
			c.traceback = string(debug.Stack())
		}
	}()
	c.exception, c.traceback = task.ExceptionOf(err), task.Traceback(err, stack)
	return c
}

var errGoexit = task.AsPython(errors.New("task ended its goroutine (runtime.Goexit)"), "builtins", "RuntimeError")

// panicError is a panic as a task's error: RuntimeError in Python's eyes.
func panicError(r any) error {
	if err, ok := r.(error); ok {
		return task.AsPython(fmt.Errorf("panic: %w", err), "builtins", "RuntimeError")
	}
	return task.AsPython(fmt.Errorf("panic: %v", r), "builtins", "RuntimeError") // fmt survives a String that panics
}

// conclude turns a completion into the outcome's verdict and result document.
func (w *Worker) conclude(o *outcome, j *job, c completion, ignore bool, info *task.Info) {
	o.state = c.state
	switch c.state {
	case protocol.Success:
		w.succeeded.Add(1)
	case protocol.Failure:
		w.failed.Add(1)
	case protocol.Rejected:
		o.verdict = transport.Reject
		if c.requeue {
			o.verdict = transport.Requeue
		}
		return
	default:
		return
	}
	if !ignore {
		o.meta = w.meta(j, c.state, c.exception, c.traceback)
		o.meta.Result, o.meta.Children = c.result, info.Children()
	}
}

func (w *Worker) tracksStarted(j *job) bool {
	if t := j.task.Defaults.TrackStarted; t != nil {
		return *t
	}
	return w.config.TrackStarted
}

// ackEarly acknowledges before the run, for tasks that must not run twice. The task begins only if that was not too late:
// Redis has answered then, while AMQP has no answer. After false the message is another's, comes again as a new one, or
// is given back when the worker stops.
func (w *Worker) ackEarly(j *job) bool {
	early := transport.Settlement{Delivery: j.delivery, Verdict: transport.Ack, Undone: true}
	lost, err := w.consumer.Settle(w.applying, []transport.Settlement{early})
	if err != nil || lost > 0 {
		w.log.Warn("task not begun: its message could not be acknowledged before", "task", j.request.Task,
			"task_id", j.request.ID, "lost", lost, "error", err)
		w.window.free(1)
		return false
	}
	return true
}
