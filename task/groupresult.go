package task

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// GroupResult is the results of a group, in the order of its members: Celery's GroupResult. R is what each member returns;
// that of a member which is a group itself is a list. However many members there are, their results are waited for with one
// subscription and their states read at once.
type GroupResult[R any] struct{ handle }

// NewGroupResult makes a group, with a new id, of results that the client can read: to wait for what [Client.SendBatch]
// returns.
func NewGroupResult[R any](c *Client, results []*Result[R]) *GroupResult[R] {
	members := make([]handle, len(results))
	for i, r := range results {
		members[i] = r.handle
	}
	return &GroupResult[R]{handle{id: protocol.NewID(), client: c, members: members}}
}

// Group returns the result as that of a group; false if it is a task's.
func (r *Result[R]) Group() (*GroupResult[any], bool) { return GroupResultOf[any](r) }

// GroupResultOf is [Result.Group] for a group whose members are known to return R.
func GroupResultOf[R, S any](r *Result[S]) (*GroupResult[R], bool) {
	if r.members == nil {
		return nil, false
	}
	return &GroupResult[R]{r.handle}, true
}

// Results are those of the members.
func (g *GroupResult[R]) Results() []*Result[R] { return resultsOf[R](g.members) }

// Join waits until all members have succeeded and returns what they returned, in their order. It ends at the first that
// fails, with its [*Error]; if several have, with that of the first in the group's order. What failed before the group, in
// its chain, ends it too, where Celery waits for ever. The other errors are those of [Result.Get].
func (g *GroupResult[R]) Join(ctx context.Context) ([]R, error) {
	v, err := g.get(ctx)
	if err != nil {
		return nil, err
	}
	list := v.([]any)
	values := make([]R, len(list))
	for i := range list {
		if err := assignResult(&values[i], list[i], g.members[i].id); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// Outcome is what became of one task, or of a group in the place of one.
type Outcome[R any] struct {
	Index  int // the member's place in its group
	Result *Result[R]
	Value  R
	// Err is why there is no value: an [*Error] if the task did not succeed, or that its value does not fit R.
	Err error
}

// outcome is what became of the member at a place.
func (g *GroupResult[R]) outcome(index int, done results) Outcome[R] {
	member := &g.members[index]
	o := Outcome[R]{Index: index, Result: &Result[R]{*member}}
	v, err := done.of(member)
	if err == nil {
		err = assignResult(&o.Value, v, member.id)
	}
	o.Err = err
	return o
}

// JoinAll waits until all members are done, however they end, and returns what became of them in their order: Celery's
// join(propagate=False). The error is why they cannot all be waited for.
func (g *GroupResult[R]) JoinAll(ctx context.Context) ([]Outcome[R], error) {
	if err := g.readable(); err != nil {
		return nil, err
	}
	done := results{}
	err := g.await(ctx, g.tasks(nil), g.ancestors(), func(m *protocol.ResultMeta) bool {
		done[m.TaskID] = m
		return true
	})
	if err != nil {
		return nil, err
	}
	outcomes := make([]Outcome[R], len(g.members))
	for i := range outcomes {
		outcomes[i] = g.outcome(i, done)
	}
	return outcomes, nil
}

// AsCompleted yields what becomes of the members as they are done: Celery's ResultSet.iter_native. The error is the outcome's;
// the range may go on after it. What ends the waiting is yielded last, with an Outcome without Result.
func (g *GroupResult[R]) AsCompleted(ctx context.Context) iter.Seq2[Outcome[R], error] {
	return func(yield func(Outcome[R], error) bool) {
		if err := g.readable(); err != nil {
			yield(Outcome[R]{}, err)
			return
		}
		broken := false
		tell := func(index int, done results) {
			if o := g.outcome(index, done); !broken && !yield(o, o.Err) {
				broken = true
			}
		}
		a := newArrivals(g.members)
		for index, missing := range a.missing {
			if missing == 0 {
				tell(index, nil) // an empty group
			}
		}
		if broken {
			return
		}
		err := g.await(ctx, g.tasks(nil), g.ancestors(), func(m *protocol.ResultMeta) bool {
			a.add(m, tell)
			return !broken
		})
		if err != nil {
			yield(Outcome[R]{}, err)
		}
	}
}

// arrivals finds out which members of a group are done when one of its tasks is.
type arrivals struct {
	waiting map[string][]int // the members that a task is part of
	missing []int            // how many tasks each member waits for
	done    results          // of members that are not done
}

func newArrivals(members []handle) *arrivals {
	a := &arrivals{waiting: make(map[string][]int, len(members)), missing: make([]int, len(members)), done: results{}}
	for i := range members {
		for _, id := range members[i].tasks(nil) {
			if w := a.waiting[id]; len(w) == 0 || w[len(w)-1] != i {
				a.waiting[id] = append(w, i)
				a.missing[i]++
			}
		}
	}
	return a
}

// add calls tell with each member that a task completes. What is of no use to another one is not kept.
func (a *arrivals) add(m *protocol.ResultMeta, tell func(index int, done results)) {
	a.done[m.TaskID] = m
	keep := false
	for _, index := range a.waiting[m.TaskID] {
		if a.missing[index]--; a.missing[index] == 0 {
			tell(index, a.done)
		} else {
			keep = true
		}
	}
	if !keep {
		delete(a.done, m.TaskID)
	}
}

// Waiting reports whether a member is not done yet.
func (g *GroupResult[R]) Waiting(ctx context.Context) (bool, error) {
	ready, err := g.Ready(ctx)
	return err == nil && !ready, err
}

// CompletedCount is how many members have succeeded: as in Celery those that failed do not count.
func (g *GroupResult[R]) CompletedCount(ctx context.Context) (int, error) {
	metas, err := g.metas(ctx)
	if err != nil {
		return 0, err
	}
	count := 0
	for i := range g.members {
		n := len(g.members[i].tasks(nil))
		succeeded := true
		for _, m := range metas[:n] {
			succeeded = succeeded && m.Status == protocol.Success
		}
		if succeeded {
			count++
		}
		metas = metas[n:]
	}
	return count, nil
}

// ErrGroupNotSaved is returned by RestoreGroup for a group that nobody saved, or whose results have expired.
var ErrGroupNotSaved = errors.New("no such group is saved")

// groupKeeper is the backend as one that keeps groups.
func (c *Client) groupKeeper() (backends.GroupKeeper, error) {
	if c.backend == nil {
		return nil, ErrNoBackend
	}
	keeper, ok := c.backend.(backends.GroupKeeper)
	if !ok {
		return nil, fmt.Errorf("the result backend does not keep groups: %w", errors.ErrUnsupported)
	}
	return keeper, nil
}

// Save keeps the ids of the group's tasks in the backend, for [Client.RestoreGroup] and Python's GroupResult.restore, for as
// long as results stay. Over a backend that keeps no results it is errors.ErrUnsupported.
func (g *GroupResult[R]) Save(ctx context.Context) error {
	keeper, err := g.client.groupKeeper()
	if err != nil {
		return fmt.Errorf("save group %s: %w", g.id, err)
	}
	t := g.Tuple()
	if err := keeper.SaveGroup(ctx, &t); err != nil {
		return fmt.Errorf("save group %s: %w", g.id, err)
	}
	return nil
}

// Delete removes what Save has saved. The members' results stay.
func (g *GroupResult[R]) Delete(ctx context.Context) error {
	keeper, err := g.client.groupKeeper()
	if err != nil {
		return fmt.Errorf("delete group %s: %w", g.id, err)
	}
	if err := keeper.ForgetGroup(ctx, g.id); err != nil {
		return fmt.Errorf("delete group %s: %w", g.id, err)
	}
	return nil
}

// RestoreGroup returns a group that was saved, by [GroupResult.Save] or by Python's GroupResult.save: Celery's
// GroupResult.restore. A group that is not there is [ErrGroupNotSaved].
func (c *Client) RestoreGroup(ctx context.Context, id string) (*GroupResult[any], error) {
	keeper, err := c.groupKeeper()
	if err != nil {
		return nil, fmt.Errorf("restore group %s: %w", id, err)
	}
	t, err := keeper.LoadGroup(ctx, id)
	if err == nil && t == nil {
		err = ErrGroupNotSaved
	}
	if err != nil {
		return nil, fmt.Errorf("restore group %s: %w", id, err)
	}
	if t.Children == nil {
		t.Children = []protocol.ResultTuple{}
	}
	return &GroupResult[any]{c.handleOf(t)}, nil
}
