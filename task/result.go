package task

import (
	"context"
	"fmt"
	"iter"
	"reflect"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

// Result is the result of a call, now or in the future: Celery's AsyncResult. R is what the task returns; a Result[any]
// holds canonical values of package value. It is a handle without state of its own and may be copied.
type Result[R any] struct{ handle }

// handle is what results of all types have in common.
type handle struct {
	id      string
	client  *Client
	ignored bool
	parent  *handle  // the step before it in a chain, or the header of its chord; nil: not known
	members []handle // of a group; nil: a task
}

// Result returns the result of any task by its id. An id that nobody ever sent is PENDING for ever. Over rpc:// a client
// has the results of its own calls only: to wait for another one is backends.ErrUnexpected.
func (c *Client) Result(id string) *Result[any] { return ResultOf[any](c, id) }

// ResultOf is [Client.Result] for a task whose result type is known.
func ResultOf[R any](c *Client, id string) *Result[R] { return &Result[R]{handle{id: id, client: c}} }

// ID is the task's id.
func (h handle) ID() string { return h.id }

// Get waits until the task is done and returns what it returned. The backend tells, nothing is polled.
//
// A task that failed gives an [*Error], as does a revoked one, for which errors.Is(err, ErrRevoked) holds. The other
// errors are those of the context, of the backend, [ErrNoBackend], [ErrResultIgnored], and a value that does not fit R.
// A task should not wait for another one: when all slots wait, nobody works.
func (r *Result[R]) Get(ctx context.Context) (R, error) {
	var out R
	meta, err := r.wait(ctx)
	if err != nil {
		return out, err
	}
	if meta.Status != protocol.Success {
		return out, newError(meta)
	}
	if meta.Result == nil && reflect.TypeFor[R]() == reflect.TypeFor[NoResult]() {
		return out, nil
	}
	if err := value.Assign(&out, meta.Result); err != nil {
		return out, fmt.Errorf("result of task %s: %w", r.id, err)
	}
	return out, nil
}

// wait returns the final meta.
func (h handle) wait(ctx context.Context) (*protocol.ResultMeta, error) {
	for meta, err := range h.Watch(ctx) {
		if err != nil {
			return nil, err
		}
		if meta.Status.Ready() {
			return meta, nil
		}
	}
	return nil, fmt.Errorf("result of task %s: the backend stopped watching it", h.id)
}

// Watch yields what is stored of the task now and whenever it changes, until it is done: states, progress, the result.
// States that follow each other fast may be skipped, the last one never is. An error is the last thing it yields.
func (h handle) Watch(ctx context.Context) iter.Seq2[*protocol.ResultMeta, error] {
	return func(yield func(*protocol.ResultMeta, error) bool) {
		if err := h.readable(); err != nil {
			yield(nil, err)
			return
		}
		for meta, err := range h.client.backend.Watch(ctx, h.id) {
			if err != nil {
				yield(nil, fmt.Errorf("result of task %s: %w", h.id, err))
				return
			}
			if !yield(meta, nil) {
				return
			}
		}
	}
}

// Meta returns what is stored of the task, with state PENDING if nothing is.
func (h handle) Meta(ctx context.Context) (*protocol.ResultMeta, error) {
	if h.client.backend == nil {
		return nil, ErrNoBackend
	}
	meta, err := h.client.backend.Get(ctx, h.id)
	if err != nil {
		return nil, fmt.Errorf("result of task %s: %w", h.id, err)
	}
	return meta, nil
}

// State returns the task's state; PENDING for one that nothing is known of.
func (h handle) State(ctx context.Context) (protocol.State, error) {
	meta, err := h.Meta(ctx)
	if err != nil {
		return "", err
	}
	return meta.Status, nil
}

// Ready reports whether the task is done: succeeded, failed or revoked.
func (h handle) Ready(ctx context.Context) (bool, error) {
	state, err := h.State(ctx)
	return state.Ready(), err
}

// Info returns what is stored beside the state: the result, the meta of a custom state as a canonical value, or for
// FAILURE, RETRY and REVOKED an [*Error]. Celery's AsyncResult.info.
func (h handle) Info(ctx context.Context) (any, error) {
	meta, err := h.Meta(ctx)
	if err != nil {
		return nil, err
	}
	if meta.Status.Exceptional() {
		return newError(meta), nil
	}
	return meta.Result, nil
}

// Children returns the results of the tasks that this one sent: callbacks, the next step of its chain, and what it sent
// itself. A group among them stands as its members. Nothing is known before the task is done.
func (h handle) Children(ctx context.Context) ([]*Result[any], error) {
	meta, err := h.Meta(ctx)
	if err != nil {
		return nil, err
	}
	return h.client.flatten(nil, meta.Children), nil
}

func (c *Client) flatten(into []*Result[any], tuples []protocol.ResultTuple) []*Result[any] {
	for _, t := range tuples {
		if t.Children != nil {
			into = c.flatten(into, t.Children)
		} else {
			into = append(into, c.Result(t.ID))
		}
	}
	return into
}

// Parent returns the result of the task that sent this one, as the stored result names it; nil if it names none.
func (h handle) Parent(ctx context.Context) (*Result[any], error) {
	meta, err := h.Meta(ctx)
	if err != nil || meta.ParentID == "" {
		return nil, err
	}
	return h.client.Result(meta.ParentID), nil
}

// Forget removes what is stored of the task.
func (h handle) Forget(ctx context.Context) error {
	if h.client.backend == nil {
		return ErrNoBackend
	}
	return h.client.backend.Forget(ctx, h.id)
}

// readable refuses to wait for what can never come.
func (h handle) readable() error {
	switch {
	case h.client.backend == nil:
		return ErrNoBackend
	case h.ignored:
		return fmt.Errorf("result of task %s: %w", h.id, ErrResultIgnored)
	}
	return nil
}

// newError makes the error of a task that did not succeed.
func newError(meta *protocol.ResultMeta) *Error {
	e := &Error{TaskID: meta.TaskID, State: meta.Status, Traceback: meta.Traceback}
	if x := meta.Exception; x != nil {
		e.Type, e.Module, e.Args = x.Type, x.Module, x.Args
		e.Message = pythonStr(x)
	}
	return e
}
