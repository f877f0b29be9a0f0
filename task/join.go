package task

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// tasks appends the ids of the tasks that the result consists of: its own, or those of the group.
func (h *handle) tasks(ids []string) []string {
	if h.members == nil {
		return append(ids, h.id)
	}
	for i := range h.members {
		ids = h.members[i].tasks(ids)
	}
	return ids
}

// ancestors are the ids of all tasks before this one, those of the first step first. Members of a header count, what is
// before them does not: a part is marked as failed with what failed before it.
func (h *handle) ancestors() []string {
	var nodes []*handle
	for p := h.parent; p != nil; p = p.parent {
		nodes = append(nodes, p)
	}
	var ids []string
	for _, p := range slices.Backward(nodes) {
		ids = p.tasks(ids)
	}
	return ids
}

// lineage yields the result itself, its members, and all that came before them.
func (h *handle) lineage() iter.Seq[*handle] {
	return func(yield func(*handle) bool) {
		seen := map[*handle]struct{}{} // a parent may be that of many members
		var visit func(n *handle) bool
		visit = func(n *handle) bool {
			for ; n != nil; n = n.parent {
				if _, again := seen[n]; again {
					return true
				}
				seen[n] = struct{}{}
				if !yield(n) {
					return false
				}
				for i := range n.members {
					if !visit(&n.members[i]) {
						return false
					}
				}
			}
			return true
		}
		visit(h)
	}
}

// failing reports whether waiting for the task ends with an error.
func failing(m *protocol.ResultMeta) bool { return m.Status.Ready() && m.Status != protocol.Success }

// await waits for tasks, all with one Watch, and calls f with what became of each as it comes, until all are done or f
// returns false. What fails among those before them ends it at once: they will not run any more.
func (c *Client) await(ctx context.Context, ids, before []string, f func(*protocol.ResultMeta) bool) error {
	open := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		open[id] = struct{}{}
	}
	if len(open) == 0 {
		return nil
	}
	for meta, err := range c.backend.Watch(ctx, slices.Concat(before, ids)...) {
		if errors.Is(err, backends.ErrUnexpected) && len(before) > 0 {
			return c.await(ctx, ids, nil, f) // whoever holds the result of a workflow need not have sent its first steps
		}
		if err != nil {
			return err
		}
		if !meta.Status.Ready() {
			continue
		}
		if _, own := open[meta.TaskID]; !own {
			if failing(meta) {
				return c.firstFailed(ctx, before, meta)
			}
			continue
		}
		delete(open, meta.TaskID)
		if !f(meta) || len(open) == 0 {
			return nil
		}
	}
	return errors.New("the backend stopped watching")
}

// firstFailed is the error of the first of the tasks that failed, as far as is known; heard is one that did.
func (c *Client) firstFailed(ctx context.Context, ids []string, heard *protocol.ResultMeta) error {
	if i := slices.Index(ids, heard.TaskID); i > 0 {
		// Without an answer the one heard of is as good.
		earlier, _ := c.backend.GetMany(ctx, ids[:i]...)
		if i := slices.IndexFunc(earlier, failing); i >= 0 {
			return newError(earlier[i])
		}
	}
	return newError(heard)
}

// results are final metas by the ids of their tasks.
type results map[string]*protocol.ResultMeta

// of is what a result is worth whose tasks are all done: what the task returned, or the list of what the members did. The
// error is that of the first that did not succeed.
func (r results) of(h *handle) (any, error) {
	if h.members == nil {
		if m := r[h.id]; m.Status != protocol.Success {
			return nil, newError(m)
		}
		return r[h.id].Result, nil
	}
	list := make([]any, len(h.members))
	for i := range h.members {
		var err error
		if list[i], err = r.of(&h.members[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// get waits for the result and returns it as a canonical value.
func (h *handle) get(ctx context.Context) (any, error) {
	if err := h.readable(); err != nil {
		return nil, err
	}
	var failed *protocol.ResultMeta
	ids, before, done := h.tasks(nil), h.ancestors(), results{}
	err := h.await(ctx, ids, before, func(m *protocol.ResultMeta) bool {
		done[m.TaskID] = m
		if failing(m) {
			failed = m
		}
		return failed == nil
	})
	if err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, h.client.firstFailed(ctx, append(before, ids...), failed)
	}
	return done.of(h)
}

// await is [Client.await] with errors that say what was waited for.
func (h *handle) await(ctx context.Context, ids, before []string, f func(*protocol.ResultMeta) bool) error {
	err := h.client.await(ctx, ids, before, f)
	if _, failed := errors.AsType[*Error](err); err == nil || failed {
		return err
	}
	if h.members != nil {
		return fmt.Errorf("results of group %s: %w", h.id, err)
	}
	return fmt.Errorf("result of task %s: %w", h.id, err)
}

// metas reads what is stored of the result's tasks, in the order of tasks.
func (h *handle) metas(ctx context.Context) ([]*protocol.ResultMeta, error) {
	if h.client.backend == nil {
		return nil, ErrNoBackend
	}
	if h.members == nil {
		meta, err := h.Meta(ctx)
		return []*protocol.ResultMeta{meta}, err
	}
	metas, err := h.client.backend.GetMany(ctx, h.tasks(nil)...)
	if err != nil {
		return nil, fmt.Errorf("results of group %s: %w", h.id, err)
	}
	return metas, nil
}

// all reports whether something holds for the states of all tasks of the result.
func (h *handle) all(ctx context.Context, holds func(protocol.State) bool) (bool, error) {
	metas, err := h.metas(ctx)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(metas, func(m *protocol.ResultMeta) bool { return !holds(m.Status) }), nil
}

// groupMeta makes the meta of a group of those of its members.
func (h *handle) groupMeta(ctx context.Context) (*protocol.ResultMeta, error) {
	metas, err := h.metas(ctx)
	if err != nil {
		return nil, err
	}
	group := &protocol.ResultMeta{TaskID: h.id, Status: protocol.Pending, Children: h.Tuple().Children}
	done := make(results, len(metas))
	for _, m := range metas {
		if !m.Status.Ready() {
			return group, nil
		}
		done[m.TaskID] = m
	}
	group.Result, err = done.of(h)
	if failed, ok := errors.AsType[*Error](err); ok {
		first := done[failed.TaskID]
		group.Status, group.Exception, group.Traceback = first.Status, first.Exception, first.Traceback
		return group, nil
	}
	group.Status = protocol.Success
	return group, nil
}
