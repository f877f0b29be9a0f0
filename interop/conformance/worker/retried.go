package main

import (
	"context"
	"time"

	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// text is Python's repr.
func text(v any) string { return value.Repr(v, 1<<10) }

// againArgs are the parameters of the tasks that want to be retried once.
type againArgs struct {
	Args       []any    `task:",varargs"`
	Expires    *float64 `task:"expires,default=null"`
	MaxRetries int      `task:"max_retries,default=1"`
	Countdown  float64  `task:"countdown,default=0.1"`
}

// again asks for the retry.
func (a againArgs) again() error {
	options := []task.RetryOption{task.Countdown(seconds(a.Countdown)), task.MaxRetries(a.MaxRetries)}
	if a.Expires != nil {
		options = append(options, task.Expires(seconds(*a.Expires)))
	}
	return task.Retry(nil, options...)
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// retried are the tasks that are retried.
func retried(mux *worker.Mux) {
	once := func(short string, then func(*task.Info) any) {
		t := task.Define[againArgs, any](name(short), task.MaxRetries(1))
		worker.Handle(mux, t, func(ctx context.Context, a againArgs) (any, error) {
			info, _ := task.FromContext(ctx)
			if info.Retries == 0 {
				return nil, a.again()
			}
			return then(info), nil
		})
	}
	once("retry_once", func(i *task.Info) any { return i.Retries })
	once("retry_once_priority", func(i *task.Info) any { return i.Properties.Priority })
	once("retry_once_headers", func(i *task.Info) any { return i.CustomHeaders() })

	type retryArgs struct {
		Value any `task:"return_value,default=null"`
	}
	worker.Handle(mux, task.Define[retryArgs, any](name("retry"), task.RetryDelay(time.Second)), func(ctx context.Context, a retryArgs) (any, error) {
		if info, _ := task.FromContext(ctx); a.Value != nil && info.Retries >= 3 {
			return a.Value, nil
		}
		return nil, task.Retry(expected(), task.Countdown(5*time.Second))
	})
	type unpickleableArgs struct {
		Foo, Bar any
		Retry    struct {
			Countdown  float64 `json:"countdown"`
			MaxRetries int     `json:"max_retries"`
		} `task:"retry_kwargs,kwonly"`
	}
	worker.Handle(mux, task.Define[unpickleableArgs, any](name("retry_unpickleable"), task.RetryDelay(time.Second)), func(_ context.Context, a unpickleableArgs) (any, error) {
		return nil, task.Retry(unpickleable(a.Foo), task.Countdown(seconds(a.Retry.Countdown)), task.MaxRetries(a.Retry.MaxRetries))
	})
	mux.Func("auto_retry_class_task", func(ctx context.Context) (int, error) {
		if info, _ := task.FromContext(ctx); info.Retries > 0 {
			return info.Retries, nil
		}
		return 0, task.AsPython(nil, "builtins", "ValueError")
	}, task.RetryPolicy{OnPython: []string{"ValueError"}, MaxRetries: 1, Backoff: time.Second})
}
