package task

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/gelery/gelery/protocol"
)

// ErrIncompleteStream ends a walk over a tree of results at a task that is not done, whose children are not known yet:
// Celery's IncompleteStream.
var ErrIncompleteStream = errors.New("a task of the tree is not done")

// Dependency is a result and whose child it is; Parent is nil for the root.
type Dependency struct{ Parent, Result *Result[any] }

// branch is a Dependency as handles.
type branch struct{ parent, node *handle }

// IterDeps yields the result and all below it, the children of each, breadth first: Celery's AsyncResult.iterdeps. The
// children of a task are those of [Result.Children], the children of a group its members; the states of one level of the tree
// are read at once. Nothing is waited for: at a task that is not done it ends with [ErrIncompleteStream], or with intermediate
// goes on without its children. A task that is below several others is yielded for each, its children once.
func (h handle) IterDeps(ctx context.Context, intermediate bool) iter.Seq2[Dependency, error] {
	return func(yield func(Dependency, error) bool) {
		read := func(ids []string) (results, error) { return h.client.read(ctx, ids) }
		err := h.client.walk([]branch{{nil, &h}}, read, func(b branch, m *protocol.ResultMeta) error {
			if !yield(Dependency{resultOrNil(b.parent), resultOrNil(b.node)}, nil) {
				return errStop
			}
			if m != nil && !m.Status.Ready() && !intermediate {
				return fmt.Errorf("task %s is %s: %w", b.node.id, m.Status, ErrIncompleteStream)
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(Dependency{}, err)
		}
	}
}

func resultOrNil(h *handle) *Result[any] {
	if h == nil {
		return nil
	}
	return &Result[any]{*h}
}

// errStop ends a walk without being an error of it.
var errStop = errors.New("stop")

// walk visits branches and all below them, breadth first, with what is stored of each task; of a group with nil. It reads
// a level of the tree at once. A task it has met before is visited again for another parent, but not what is below it: a tree
// may be wrong enough to contain itself. A group that Celery has made may have the id of the one it is a member of.
func (c *Client) walk(level []branch, read func(ids []string) (results, error), visit func(branch, *protocol.ResultMeta) error) error {
	met := map[string]struct{}{}
	for len(level) > 0 {
		var ids []string
		for _, b := range level {
			if b.node.members == nil {
				ids = append(ids, b.node.id)
			}
		}
		stored, err := read(ids)
		if err != nil {
			return err
		}
		var next []branch
		for _, b := range level {
			m := stored[b.node.id]
			if b.node.members != nil {
				m = nil
			}
			if err := visit(b, m); err != nil {
				return err
			}
			if b.node.members == nil {
				if _, again := met[b.node.id]; again {
					continue
				}
				met[b.node.id] = struct{}{}
			}
			next = append(next, c.below(b.node, m)...)
		}
		level = next
	}
	return nil
}

// below are the branches from a node to its children: none of a task that is not done, as its list may grow.
func (c *Client) below(node *handle, m *protocol.ResultMeta) []branch {
	children := node.members
	if m != nil && m.Status.Ready() {
		children = c.childrenOf(m)
	}
	branches := make([]branch, len(children))
	for i := range children {
		branches[i] = branch{node, &children[i]}
	}
	return branches
}

// read reads what is stored of tasks.
func (c *Client) read(ctx context.Context, ids []string) (results, error) {
	if c.backend == nil {
		return nil, ErrNoBackend
	}
	metas, err := c.backend.GetMany(ctx, ids...)
	if err != nil {
		return nil, fmt.Errorf("results of %d tasks: %w", len(ids), err)
	}
	stored := make(results, len(metas))
	for _, m := range metas {
		stored[m.TaskID] = m
	}
	return stored, nil
}

// Collect waits for the result and all below it, in the order of [Result.IterDeps], and yields what became of each: Celery's
// AsyncResult.collect. A group's value is the list of its members' values; they follow one by one. The error is the
// outcome's; where Celery ends at the first task that failed, the range may go on. What ends the waiting is yielded last, with
// an Outcome without Result. Outcome.Index counts what is yielded.
func (h handle) Collect(ctx context.Context) iter.Seq2[Outcome[any], error] {
	return func(yield func(Outcome[any], error) bool) {
		if err := h.readable(); err != nil {
			yield(Outcome[any]{}, err)
			return
		}
		c := collection{client: h.client, ctx: ctx, done: results{}, yield: yield, met: map[string]struct{}{}}
		err := error(nil)
		for level := []handle{h}; len(level) > 0 && err == nil; level = c.take() {
			err = c.collect(level)
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(Outcome[any]{}, err)
		}
	}
}

// collection is one Collect under way.
type collection struct {
	client *Client
	ctx    context.Context
	done   results
	met    map[string]struct{} // tasks whose children are known
	next   []handle            // the level below the one that is collected
	count  int
	yield  func(Outcome[any], error) bool
}

func (c *collection) take() []handle {
	level := c.next
	c.next = nil
	return level
}

// collect waits for a level of the tree with one Watch and yields from it, in its order, as soon as it can.
func (c *collection) collect(level []handle) error {
	var ids []string
	for i := range level {
		for _, id := range level[i].tasks(nil) {
			if c.done[id] == nil {
				ids = append(ids, id)
			}
		}
	}
	err := c.tell(&level)
	if err != nil || len(level) == 0 {
		return err
	}
	waiting := c.client.await(c.ctx, ids, nil, func(m *protocol.ResultMeta) bool {
		c.done[m.TaskID] = m
		err = c.tell(&level)
		return err == nil
	})
	return errors.Join(err, waiting)
}

// tell yields those in front of a level that are done and takes them off it.
func (c *collection) tell(level *[]handle) error {
	for ; len(*level) > 0; *level = (*level)[1:] {
		node := &(*level)[0]
		for _, id := range node.tasks(nil) {
			if c.done[id] == nil {
				return nil
			}
		}
		o := Outcome[any]{Index: c.count, Result: &Result[any]{*node}}
		o.Value, o.Err = c.done.of(node)
		c.count++
		if !c.yield(o, o.Err) {
			return errStop
		}
		if node.members != nil {
			c.next = append(c.next, node.members...)
			continue
		}
		if _, again := c.met[node.id]; !again {
			c.met[node.id] = struct{}{}
			c.next = append(c.next, c.client.childrenOf(c.done[node.id])...)
		}
	}
	return nil
}

// tree finds all that belongs to a result: itself, what it knows of before it, and all below any of these.
func (h *handle) tree(ctx context.Context) (tasks []*protocol.ResultMeta, groups []string, err error) {
	var roots []branch
	for n := range h.lineage() {
		roots = append(roots, branch{nil, n})
	}
	met := map[string]struct{}{} // tasks
	read := func(ids []string) (results, error) { return h.client.read(ctx, ids) }
	err = h.client.walk(roots, read, func(b branch, m *protocol.ResultMeta) error {
		if m == nil {
			groups = append(groups, b.node.id)
			return nil
		}
		if _, again := met[m.TaskID]; !again {
			met[m.TaskID] = struct{}{}
			tasks = append(tasks, m)
		}
		return nil
	})
	slices.Sort(groups)
	return tasks, slices.Compact(groups), err
}

// ForgetTree removes what is stored of a whole workflow: of the result, of all before it that it knows, of the children of
// all these, and the groups among them that are saved. The children of a task that is not done are not known.
func (h handle) ForgetTree(ctx context.Context) error {
	tasks, groups, err := h.tree(ctx)
	if err != nil {
		return err
	}
	ids := make([]string, len(tasks))
	for i, m := range tasks {
		ids[i] = m.TaskID
	}
	if err := h.client.backend.Forget(ctx, ids...); err != nil {
		return fmt.Errorf("forget the tree of %s: %w", h.id, err)
	}
	keeper, err := h.client.groupKeeper()
	if err != nil {
		return nil //nolint:nilerr // so none is saved
	}
	for _, id := range groups {
		if err := keeper.ForgetGroup(ctx, id); err != nil {
			return fmt.Errorf("forget group %s: %w", id, err)
		}
	}
	return nil
}

// RevokeTree is [Client.Revoke] of what is not done of a whole workflow: of the result, of all before it that it knows, and
// of the children of all these. A task that runs and is not terminated may send more; the later steps of its chain are
// among the revoked ones if the result knows them.
func (h handle) RevokeTree(ctx context.Context, opts ...RevokeOption) error {
	tasks, _, err := h.tree(ctx)
	if err != nil {
		return err
	}
	var ids []string
	for _, m := range tasks {
		if !m.Status.Ready() {
			ids = append(ids, m.TaskID)
		}
	}
	return h.client.Revoke(ctx, ids, opts...)
}
