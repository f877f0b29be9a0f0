package task

import (
	"context"

	"github.com/gelery/gelery/protocol"
)

// Handlers are what a task does beside its work: Celery's handlers of the same names. Each is set by an option of the
// task, and nil if it is not.
//
// They run where the task ran, right after it, and keep its slot until they return. Their context is not the task's,
// whose limits have passed perhaps; it has the task's [Info], and ends when the worker stops cold. What a task is given up
// for (its hard time limit, a termination, a stop) calls none. A panic is logged and changes nothing.
type Handlers struct {
	BeforeStart func(ctx context.Context) error
	OnSuccess   func(ctx context.Context, result any)
	OnFailure   func(ctx context.Context, err error)
	OnRetry     func(ctx context.Context, err error)
	AfterReturn func(ctx context.Context, state protocol.State, result any, err error)
}

// BeforeStart calls a function right before the task's own, within the middleware and the task's context. An error of it
// is the task's, which does not run then. Celery: before_start.
func BeforeStart(fn func(ctx context.Context) error) DefineOption {
	return handler("BeforeStart", func(h *Handlers) { h.BeforeStart = fn })
}

// OnSuccess calls a function when the task has returned. The result is a canonical value, see package protocol/value; it
// is not stored yet. Celery: on_success.
func OnSuccess(fn func(ctx context.Context, result any)) DefineOption {
	return handler("OnSuccess", func(h *Handlers) { h.OnSuccess = fn })
}

// OnFailure calls a function when the task has failed, with the error it returned or its panic as an error. Celery:
// on_failure.
func OnFailure(fn func(ctx context.Context, err error)) DefineOption {
	return handler("OnFailure", func(h *Handlers) { h.OnFailure = fn })
}

// OnRetry calls a function when the task is to be retried, with the error it returned. Celery: on_retry.
func OnRetry(fn func(ctx context.Context, err error)) DefineOption {
	return handler("OnRetry", func(h *Handlers) { h.OnRetry = fn })
}

// AfterReturn calls a function after OnSuccess or OnFailure, with the state SUCCESS and the result or the state FAILURE and
// the error. As in Celery a retry, Ignore and Reject do not call it. Celery: after_return.
func AfterReturn(fn func(ctx context.Context, state protocol.State, result any, err error)) DefineOption {
	return handler("AfterReturn", func(h *Handlers) { h.AfterReturn = fn })
}

func handler(name string, set func(*Handlers)) DefineOption {
	return forDefine(name, set, func(s *settings, set func(*Handlers)) error { set(&s.Handlers); return nil })
}
