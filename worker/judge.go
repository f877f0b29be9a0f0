package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
)

// judge tells what a task's return means. It calls methods of the user's types, so it belongs under the same recover as
// the task; and what it returns is free of them.
func (w *Worker) judge(ctx context.Context, e *execution, result any, err error, stack []byte) completion {
	if err == nil {
		if result, err = value.Of(result); err == nil {
			return completion{state: protocol.Success, result: result}
		}
		err = task.AsPython(fmt.Errorf("result cannot be encoded: %w", err), "kombu.exceptions", "EncodeError")
	}
	var rejected *task.RejectError
	switch {
	case errors.Is(err, task.Ignore):
		return completion{state: protocol.Ignored}
	case errors.As(err, &rejected):
		c := completion{state: protocol.Rejected, requeue: rejected.Requeue, why: "None"}
		if rejected.Err != nil {
			c.why = rejected.Err.Error()
		}
		return c
	case errors.Is(context.Cause(ctx), task.ErrSoftTimeLimit) &&
		(errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)):
		// The task has handed on what its context told it; the cause says more, and Python has a class for it.
		err = fmt.Errorf("%w: %w", task.ErrSoftTimeLimit, err)
	}
	if r, ok := errors.AsType[*task.ReplaceError](err); ok {
		wire, failed := r.With.Wire()
		if failed == nil {
			return completion{state: protocol.Ignored, replacement: &wire}
		}
		err = fmt.Errorf("replace: %w", failed)
	}
	next, err := e.task.Defaults.NextAttempt(e.info, err)
	if next != nil {
		return retried(next, stack)
	}
	c := failure(err, stack)
	c.timedOut, c.expected = errors.Is(err, task.ErrSoftTimeLimit), e.task.Defaults.Expects(err)
	return c
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

// panicError is a panic as a task's error: RuntimeError in Python's eyes.
func panicError(r any) error {
	if err, ok := r.(error); ok {
		return task.AsPython(fmt.Errorf("panic: %w", err), "builtins", "RuntimeError")
	}
	return task.AsPython(fmt.Errorf("panic: %v", r), "builtins", "RuntimeError") // fmt survives a String that panics
}
