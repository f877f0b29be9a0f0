package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/canvas"
	"github.com/gelery/gelery/task"
)

const (
	mapTask     = "celery.map"
	starmapTask = "celery.starmap"
)

// builtins are the tasks that every worker has, unless its mux has one of the name: Celery's own. Middleware is not around
// them, but around the tasks that they call.
func (w *Worker) builtins() []task.Definition {
	inline := func(unpack bool) task.Handler {
		return func(ctx context.Context, r *protocol.Request) (any, error) { return w.callInline(ctx, r, unpack) }
	}
	return []task.Definition{
		builtin(mapTask, inline(false)),
		builtin(starmapTask, inline(true)),
		builtin("celery.accumulate", accumulate),
		builtin("celery.backend_cleanup", w.cleanUp),
		builtin(unlockTask, w.unlockChord, task.IgnoreResult(true), task.MaxRetries(-1), task.RetryDelay(w.config.ChordRetryInterval)),
		builtin("celery.chunks", w.sendChunks),
		builtin("celery.group", w.sendGroup),
		builtin("celery.chord", w.sendChord),
		builtin("celery.chain", func(context.Context, *protocol.Request) (any, error) {
			return nil, task.AsPython(errors.New("chain is not a real task"), "builtins", "NotImplementedError")
		}),
	}
}

func builtin(name string, handler task.Handler, opts ...task.DefineOption) task.Definition {
	d := task.Func(name, func() {}, opts...)
	d.Handler = handler
	return d
}

// addBuiltins adds those that are not there.
func (w *Worker) addBuiltins() {
	for _, d := range w.builtins() {
		if w.tasks[d.Name] == nil {
			w.tasks[d.Name] = &registered{Definition: &d, builtin: true}
		}
	}
}

// argument is one of a built-in task's arguments, by its place or its name; nil if it is not given.
func argument(r *protocol.Request, place int, name string) any {
	if place < len(r.Args) {
		return r.Args[place]
	}
	return r.Kwargs[name]
}

func listArgument(r *protocol.Request, place int, name string) ([]any, error) {
	list, ok := argument(r, place, name).([]any)
	if !ok {
		return nil, task.AsPython(fmt.Errorf("%s(): %s is not a list", r.Task, name), "builtins", "TypeError")
	}
	return list, nil
}

// signatureArgument reads an argument that is a signature.
func signatureArgument(r *protocol.Request, place int, name string) (protocol.Signature, error) {
	sig, err := protocol.SignatureFromValue(argument(r, place, name))
	if err != nil {
		return sig, task.AsPython(fmt.Errorf("%s(): %s: %w", r.Task, name, err), "builtins", "TypeError")
	}
	return sig, nil
}

// callInline is celery.map and celery.starmap: a task's function called for each item in this run, with the item as its only
// argument or with the item's elements. As in Celery what else the signature holds counts for nothing. What stops the run
// stops it between two items at the latest.
func (w *Worker) callInline(ctx context.Context, r *protocol.Request, unpack bool) (any, error) {
	sig, err := signatureArgument(r, 0, "task")
	if err != nil {
		return nil, err
	}
	items, err := listArgument(r, 1, "it")
	if err != nil {
		return nil, err
	}
	t := w.tasks[sig.Task]
	if t == nil {
		return nil, task.AsPython(fmt.Errorf("%w: %s", task.ErrNotRegistered, sig.Task), "celery.exceptions", "NotRegistered", sig.Task)
	}
	results := make([]any, len(items))
	for i, item := range items {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		call := *r
		call.Task, call.Args, call.Kwargs = sig.Task, []any{item}, map[string]any{}
		if unpack {
			var ok bool
			if call.Args, ok = item.([]any); !ok {
				return nil, task.AsPython(fmt.Errorf("%s(): item %d is not a list of arguments", r.Task, i), "builtins", "TypeError")
			}
		}
		if results[i], err = t.Handler(ctx, &call); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// accumulate is celery.accumulate: its arguments, or that at an index; Replace ends groups with it.
func accumulate(_ context.Context, r *protocol.Request) (any, error) {
	v := r.Kwargs["index"]
	if v == nil {
		return append([]any{}, r.Args...), nil
	}
	i, ok := v.(int64)
	if !ok {
		return nil, task.AsPython(fmt.Errorf("%s(): index is not an integer", r.Task), "builtins", "TypeError")
	}
	if i < 0 {
		i += int64(len(r.Args)) // as in Python
	}
	if i < 0 || i >= int64(len(r.Args)) {
		return nil, task.AsPython(errors.New("index out of range"), "builtins", "IndexError")
	}
	return r.Args[i], nil
}

// cleanUp is celery.backend_cleanup.
func (w *Worker) cleanUp(ctx context.Context, _ *protocol.Request) (any, error) {
	if cleaner, ok := w.backend.(backends.Cleaner); ok {
		return nil, cleaner.Cleanup(ctx)
	}
	return nil, nil // results expire by themselves
}

// sendChunks is celery.chunks. Clients send the group that it stands for.
func (w *Worker) sendChunks(ctx context.Context, r *protocol.Request) (any, error) {
	sig := protocol.Signature{Kwargs: map[string]any{"task": argument(r, 0, "task"), "it": argument(r, 1, "it"), "n": argument(r, 2, "n")}}
	group, err := canvas.Chunked(&sig)
	if err != nil {
		return nil, task.AsPython(err, "builtins", "TypeError")
	}
	return w.apply(ctx, group)
}

// sendGroup is celery.group, which only clients older than Celery 4 send.
func (w *Worker) sendGroup(ctx context.Context, r *protocol.Request) (any, error) {
	members, err := partial(r, "tasks", 3)
	if err != nil {
		return nil, err
	}
	group := protocol.Signature{Task: "celery.group", SubtaskType: "group", Kwargs: map[string]any{"tasks": members}, Options: map[string]any{}}
	if id, ok := argument(r, 2, "group_id").(string); ok && id != "" {
		group.Options["task_id"] = id
	}
	return w.apply(ctx, group)
}

// sendChord is celery.chord, which only clients older than Celery 4 send.
func (w *Worker) sendChord(ctx context.Context, r *protocol.Request) (any, error) {
	header, err := partial(r, "header", 2)
	if err != nil {
		return nil, err
	}
	return w.apply(ctx, protocol.Signature{Task: "celery.chord", SubtaskType: "chord", Options: map[string]any{},
		Kwargs: map[string]any{"kwargs": map[string]any{}, "header": header, "body": argument(r, 1, "body")}})
}

// partial is a list of signatures, the first argument, each with the arguments in partial_args before its own.
func partial(r *protocol.Request, name string, place int) ([]any, error) {
	list, err := listArgument(r, 0, name)
	if err != nil {
		return nil, err
	}
	first, _ := argument(r, place, "partial_args").([]any)
	members := make([]any, len(list))
	for i, v := range list {
		sig, err := protocol.SignatureFromValue(v)
		if err != nil {
			return nil, task.AsPython(fmt.Errorf("%s(): %s: %w", r.Task, name, err), "builtins", "TypeError")
		}
		if !sig.Immutable {
			sig.Args = slices.Concat(first, sig.Args)
		}
		members[i] = sig.Value()
	}
	return members, nil
}

// apply sends a workflow. The result is its tuple, as that of a Python task that returns a result.
func (w *Worker) apply(ctx context.Context, sig protocol.Signature) (any, error) {
	result, err := w.client.Apply(ctx, task.SignatureOf(sig))
	if err != nil {
		return nil, err
	}
	tuple := result.Tuple()
	return tuple.Value(), nil
}
