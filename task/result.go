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
// holds canonical values of package value. That of a workflow is the result of its last task and knows those before it; that
// of a group stands for all its members, see [Result.Group]. It is a handle without state of its own and may be copied.
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

// ID is the task's id, or the group's.
func (h handle) ID() string { return h.id }

// Get waits until the task is done and returns what it returned; of a group, the list of what its members returned. The
// backend tells, nothing is polled.
//
// A task that failed gives an [*Error], as does a revoked one, for which errors.Is(err, ErrRevoked) holds. A result that
// knows what came before it, the steps of its chain and the header of its chord, gives the error of the first of these that
// failed, as soon as it has: Celery's follow_parents. So the body of a chord fails with the error of the part to blame, not
// with a ChordError.
//
// The other errors are those of the context, of the backend, [ErrNoBackend], [ErrResultIgnored], and a value that does not
// fit R. A task should not wait for another one: when all slots wait, nobody works.
func (r *Result[R]) Get(ctx context.Context) (R, error) {
	var out R
	v, err := r.get(ctx)
	if err != nil {
		return out, err
	}
	return out, assignResult(&out, v, r.id)
}

// assignResult puts what a task returned where the caller wants it.
func assignResult[R any](out *R, v any, id string) error {
	if v == nil && reflect.TypeFor[R]() == reflect.TypeFor[NoResult]() {
		return nil
	}
	if err := value.Assign(out, v); err != nil {
		return fmt.Errorf("result of task %s: %w", id, err)
	}
	return nil
}

// Watch yields what is stored of the task now and whenever it changes, until it is done: states, progress, the result. Of a
// group it yields what is stored of each of its tasks until all are done. States that follow each other fast may be skipped,
// the last one never is. An error is the last thing it yields.
func (h handle) Watch(ctx context.Context) iter.Seq2[*protocol.ResultMeta, error] {
	return func(yield func(*protocol.ResultMeta, error) bool) {
		if err := h.readable(); err != nil {
			yield(nil, err)
			return
		}
		for meta, err := range h.client.backend.Watch(ctx, h.tasks(nil)...) {
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

// Meta returns what is stored of the task, with state PENDING if nothing is. For a group it is made of what is stored of its
// members, who are its Children: PENDING until all are done, then SUCCESS with the list of their results, or the state and
// the exception of the first that did not succeed.
func (h handle) Meta(ctx context.Context) (*protocol.ResultMeta, error) {
	if h.client.backend == nil {
		return nil, ErrNoBackend
	}
	if h.members != nil {
		return h.groupMeta(ctx)
	}
	meta, err := h.client.backend.Get(ctx, h.id)
	if err != nil {
		return nil, fmt.Errorf("result of task %s: %w", h.id, err)
	}
	return meta, nil
}

// State returns the task's state; PENDING for one that nothing is known of. [Result.Meta] says what that of a group is.
func (h handle) State(ctx context.Context) (protocol.State, error) {
	meta, err := h.Meta(ctx)
	if err != nil {
		return "", err
	}
	return meta.Status, nil
}

// Ready reports whether the task, or every task of the group, is done: succeeded, failed or revoked.
func (h handle) Ready(ctx context.Context) (bool, error) {
	return h.all(ctx, protocol.State.Ready)
}

// Successful reports whether the task, or every task of the group, has succeeded.
func (h handle) Successful(ctx context.Context) (bool, error) {
	return h.all(ctx, func(s protocol.State) bool { return s == protocol.Success })
}

// Failed reports whether the task, or any task of the group, has failed. As in Celery a revoked one has not.
func (h handle) Failed(ctx context.Context) (bool, error) {
	none, err := h.all(ctx, func(s protocol.State) bool { return s != protocol.Failure })
	return err == nil && !none, err
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

// Children returns the results of the tasks that this one sent: callbacks, the next step of its chain, what it sent itself,
// and groups, which [Result.Group] tells from tasks. Nothing is known before the task is done. Those of a group are its members.
func (h handle) Children(ctx context.Context) ([]*Result[any], error) {
	if h.members != nil {
		return resultsOf[any](h.members), nil
	}
	meta, err := h.Meta(ctx)
	if err != nil {
		return nil, err
	}
	return resultsOf[any](h.client.childrenOf(meta)), nil
}

// childrenOf are the handles of the tasks and groups that a task sent.
func (c *Client) childrenOf(meta *protocol.ResultMeta) []handle {
	children := make([]handle, len(meta.Children))
	for i := range meta.Children {
		children[i] = c.handleOf(&meta.Children[i])
	}
	return children
}

func resultsOf[R any](handles []handle) []*Result[R] {
	results := make([]*Result[R], len(handles))
	for i, h := range handles {
		results[i] = &Result[R]{h}
	}
	return results
}

// Parent returns the result of what came before: the step before this one in its chain, the header of its chord. A result
// that does not know asks for the task that sent this one, as the stored result names it; nil if it names none.
func (h handle) Parent(ctx context.Context) (*Result[any], error) {
	if h.parent != nil {
		return &Result[any]{*h.parent}, nil
	}
	if h.members != nil {
		return nil, nil
	}
	meta, err := h.Meta(ctx)
	if err != nil || meta.ParentID == "" {
		return nil, err
	}
	return h.client.Result(meta.ParentID), nil
}

// Forget removes what is stored of the task, or of the group's tasks, and as Celery does of those before it that the result
// knows.
func (h handle) Forget(ctx context.Context) error {
	if h.client.backend == nil {
		return ErrNoBackend
	}
	ids := make([]string, 0, 1)
	for n := range h.lineage() {
		if n.members == nil {
			ids = append(ids, n.id)
		}
	}
	return h.client.backend.Forget(ctx, ids...)
}

// readable refuses to wait for what can never come.
func (h *handle) readable() error {
	switch {
	case h.client.backend == nil:
		return ErrNoBackend
	case h.ignored:
		return fmt.Errorf("result of task %s: %w", h.id, ErrResultIgnored)
	}
	for i := range h.members {
		if err := h.members[i].readable(); err != nil {
			return err
		}
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
