package main

import (
	"context"
	"errors"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

func s(short string, args ...any) task.Signature { return task.S(name(short), args...) }

type totalArgs struct {
	Numbers []any `task:"nums"`
	Value   any   `task:"val"`
}

// each is the task add for every number with the value.
func (a totalArgs) each() []task.Signature {
	all := make([]task.Signature, len(a.Numbers))
	for i, n := range a.Numbers {
		all[i] = s("add", n, a.Value)
	}
	return all
}

type echoingArgs struct {
	Args    []any `task:",varargs"`
	Message any   `task:"link_msg,default=null"`
}

// echo is the task redis_echo as a callback: with the message if there is one, else with the result.
func (a echoingArgs) echo() task.Signature {
	if a.Message == nil {
		return s("redis_echo")
	}
	return s("redis_echo", a.Message).Immutable()
}

type stateArgs struct {
	State bool `task:"state,default=false"`
}

// canvas are the tasks that send workflows, or let them take their place.
func canvas(mux *worker.Mux) {
	replaced := func(short string, with func(echoingArgs) task.Signature) {
		worker.Handle(mux, task.Define[echoingArgs, any](name(short)), func(_ context.Context, a echoingArgs) (any, error) {
			return nil, task.Replace(with(a))
		})
	}
	replaced("replace_with_chain", func(a echoingArgs) task.Signature {
		return task.Chain(s("identity", a.Args...), s("identity")).Link(a.echo())
	})
	replaced("replace_with_chain_which_raises", func(a echoingArgs) task.Signature {
		return task.Chain(s("identity", a.Args...), s("raise_error")).LinkError(a.echo())
	})
	replaced("add_replaced", func(a echoingArgs) task.Signature { return s("add", a.Args...) })
	replaced("fail_replaced", func(a echoingArgs) task.Signature { return s("fail", a.Args...).Immutable() })
	mux.Func(name("replace_with_empty_chain"), func(...any) error {
		if empty := task.Chain(); empty.Err() == nil {
			return task.Replace(empty)
		}
		return task.AsPython(errors.New("Cannot replace with an empty chain"), "celery.exceptions", "ImproperlyConfigured")
	})
	mux.Func(name("replace_with_stamped_task"), func(with any) error {
		return task.Replace(s("replaced_with_me").With(task.Stamp("StampOnReplace", "This is the replaced task")))
	}, task.Params("replace_with"))

	worker.Handle(mux, task.Define[totalArgs, any](name("add_to_all")), func(_ context.Context, a totalArgs) (any, error) {
		return nil, task.Replace(task.Group(a.each()...))
	})
	worker.Handle(mux, task.Define[totalArgs, int](name("add_to_all_to_chord")), func(ctx context.Context, a totalArgs) (int, error) {
		for _, part := range a.each() {
			if _, err := task.AddToChord(ctx, part); err != nil {
				return 0, err
			}
		}
		return 0, nil
	})
	worker.Handle(mux, task.Define[totalArgs, int](name("add_chord_to_chord")), func(ctx context.Context, a totalArgs) (int, error) {
		_, err := task.AddToChord(ctx, task.Group(a.each()...).Then(s("tsum")))
		return 0, err
	})
	// Each replaces itself with what comes between its two traces, the second of which it leaves when it is called again.
	nested := func(short, in, out string, between func() task.Signature) {
		worker.Handle(mux, task.Define[stateArgs, task.NoResult](name(short)), func(ctx context.Context, a stateArgs) (task.NoResult, error) {
			if a.State {
				return task.NoResult{}, echo(ctx, out, "redis-echo")
			}
			if err := echo(ctx, in, "redis-echo"); err != nil {
				return task.NoResult{}, err
			}
			again := s(short).Kwargs(map[string]any{"state": true}).Immutable()
			return task.NoResult{}, task.Replace(task.Chain(between(), again))
		})
	}
	nested("second_order_replace1", "In A", "Out A", func() task.Signature { return s("second_order_replace2") })
	nested("second_order_replace2", "In B", "Out B", func() task.Signature { return s("redis_echo", "In/Out C") })

	sends := func(short string, workflow func(x, y any) task.Signature) {
		mux.Func(name(short), func(ctx context.Context, x, y any) error {
			_, err := send(ctx, workflow(x, y))
			return err
		}, task.Params("x", "y"))
	}
	sends("chain_add", func(x, y any) task.Signature { return task.Chain(s("add", x, x), s("add", y)) })
	sends("chord_add", func(x, y any) task.Signature { return task.Chord(s("add", x, x), s("add", y)) })
	mux.Func(name("build_chain_inside_task"), func(ctx context.Context) (any, error) {
		result, err := send(ctx, task.Chain(s("add", 1, 1), s("add", 2), task.Group(s("add", 3), s("add", 4)), s("add", 5)))
		if err != nil {
			return nil, err
		}
		tuple := result.Tuple()
		return tuple.Value(), nil
	})
	// A Go worker calls every error callback with the id of the task that has failed.
	failed := func(ctx context.Context, id string, _ ...any) (string, error) { return id, count(ctx, id) }
	mux.Func(name("errback_old_style"), failed, task.Params("request_id"))
	mux.Func(name("errback_new_style"), failed, task.Params("request"))
}

func send(ctx context.Context, workflow task.Signature) (*task.Result[any], error) {
	info, _ := task.FromContext(ctx)
	return info.Client.Apply(ctx, workflow)
}
