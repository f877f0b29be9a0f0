package task

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// tuple makes a result tuple: a task by its id, a group of what follows the id.
func tuple(id string, members ...protocol.ResultTuple) protocol.ResultTuple {
	return protocol.ResultTuple{ID: id, Children: members}
}

func succeeded(id string, result any) protocol.ResultMeta {
	return protocol.ResultMeta{TaskID: id, Status: protocol.Success, Result: result}
}

func failedWith(id, class string) protocol.ResultMeta {
	return protocol.ResultMeta{TaskID: id, Status: protocol.Failure,
		Exception: &protocol.Exception{Type: class, Module: "builtins", Args: []any{id}}}
}

func groupOf[R any](t *testing.T, c *Client, group protocol.ResultTuple) *GroupResult[R] {
	t.Helper()
	r, err := c.ResultFromTuple(group)
	if err != nil {
		t.Fatal(err)
	}
	g, ok := GroupResultOf[R](r)
	if !ok {
		t.Fatalf("%s is no group", group.ID)
	}
	return g
}

// whenWatched stores metas once somebody waits for a result: after the first state the backend tells.
func whenWatched(ctx context.Context, t *testing.T, c *Client, id string, metas ...protocol.ResultMeta) (wait func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range c.Result(id).Watch(ctx) {
			break
		}
		for _, m := range metas {
			if err := c.Backend().Store(ctx, []*protocol.ResultMeta{&m}); err != nil {
				t.Error(err)
			}
		}
	}()
	return func() { <-done }
}

func TestGroupJoin(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	g := groupOf[int](t, client, tuple("g", tuple("a"), tuple("b"), tuple("c")))
	store(ctx, t, client, succeeded("b", int64(2)))
	defer whenWatched(ctx, t, client, "c", succeeded("c", int64(3)), succeeded("a", int64(1)))()
	values, err := g.Join(ctx)
	if diff := cmp.Diff([]int{1, 2, 3}, values); diff != "" || err != nil {
		t.Error(diff, err)
	}
	list, err := ResultOf[[]int](client, "x").Get(canceled(ctx))
	if list != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", list, err)
	}
	r := Result[[]int](*groupOf[int](t, client, g.Tuple()))
	if list, err := r.Get(ctx); err != nil || !cmp.Equal([]int{1, 2, 3}, list) {
		t.Errorf("as a result: %v, %v", list, err)
	}
	if _, err := groupOf[[]string](t, client, g.Tuple()).Join(ctx); err == nil || !strings.Contains(err.Error(), "task a: expected") {
		t.Errorf("of the wrong type: %v", err)
	}
	if values, err := groupOf[NoResult](t, client, protocol.ResultTuple{ID: "e", Children: []protocol.ResultTuple{}}).Join(ctx); len(values) != 0 || err != nil {
		t.Errorf("an empty group: %v, %v", values, err)
	}
}

func canceled(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

func TestGroupNested(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	empty := protocol.ResultTuple{ID: "e", Children: []protocol.ResultTuple{}}
	g := groupOf[any](t, client, tuple("g", tuple("a"), tuple("h", tuple("b"), tuple("c")), empty, tuple("a")))
	for i, id := range []string{"a", "b", "c"} {
		store(ctx, t, client, succeeded(id, int64(i)))
	}
	want := []any{int64(0), []any{int64(1), int64(2)}, []any{}, int64(0)}
	values, err := g.Join(ctx)
	if diff := cmp.Diff(want, values); diff != "" || err != nil {
		t.Error(diff, err)
	}
	got := make([]any, 4)
	for o, err := range g.AsCompleted(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		got[o.Index] = o.Value
		if o.Result.ID() != g.Results()[o.Index].ID() {
			t.Errorf("place %d is %s", o.Index, o.Result.ID())
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n, err := g.CompletedCount(ctx); n != 4 || err != nil {
		t.Errorf("%d completed, %v", n, err)
	}
}

// TestGroupFails: the first in the group's order is told of, not the one that was heard of.
func TestGroupFails(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	g := groupOf[int](t, client, tuple("g", tuple("a"), tuple("b"), tuple("c"), tuple("d")))
	store(ctx, t, client, succeeded("a", int64(1)))
	defer whenWatched(ctx, t, client, "d", failedWith("b", "KeyError"), failedWith("d", "ValueError"))()
	if _, err := g.Join(ctx); !errors.Is(err, PyError("KeyError")) && !errors.Is(err, PyError("ValueError")) { // c is not done
		t.Errorf("got %v", err)
	}
	for range client.Result("d").Watch(ctx) { // until it is done
	}
	if _, err := g.Join(ctx); !errors.Is(err, PyError("KeyError")) {
		t.Errorf("got %v", err)
	}
	store(ctx, t, client, protocol.ResultMeta{TaskID: "c", Status: protocol.Revoked,
		Exception: &protocol.Exception{Type: "TaskRevokedError", Module: "celery.exceptions", Args: []any{"revoked"}}})
	outcomes, err := g.JoinAll(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, o := range outcomes {
		got = append(got, fmt.Sprint(o.Index == i, " ", o.Result.ID(), " ", o.Value, " ", o.Err))
	}
	want := []string{"true a 1 <nil>", "true b 0 KeyError: 'b'", "true c 0 celery.exceptions.TaskRevokedError: revoked", "true d 0 ValueError: d"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	failures := 0
	for o, err := range g.AsCompleted(ctx) {
		if !errors.Is(err, o.Err) || o.Result == nil {
			t.Errorf("%v beside %v", err, o)
		}
		if err != nil {
			failures++
		}
	}
	if failures != 3 {
		t.Errorf("%d failures", failures)
	}
	for range g.AsCompleted(ctx) {
		break
	}
}

func TestGroupStates(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	g := groupOf[int](t, client, tuple("g", tuple("a"), tuple("b"), tuple("h", tuple("c"), tuple("d"))))
	check := func(want string) {
		t.Helper()
		ready, err1 := g.Ready(ctx)
		waiting, err2 := g.Waiting(ctx)
		successful, err3 := g.Successful(ctx)
		failed, err4 := g.Failed(ctx)
		count, err5 := g.CompletedCount(ctx)
		state, err6 := g.State(ctx)
		info, err7 := g.Info(ctx)
		if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(ready, waiting, successful, failed, " ", count, " ", state, " ", info)
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	check("false true false false 0 PENDING <nil>")
	store(ctx, t, client, succeeded("a", int64(1)))
	store(ctx, t, client, succeeded("c", int64(3)))
	store(ctx, t, client, failedWith("d", "ValueError"))
	check("false true false true 1 PENDING <nil>")
	store(ctx, t, client, succeeded("b", int64(2)))
	check("true false false true 2 FAILURE ValueError: d")
	store(ctx, t, client, succeeded("d", int64(4)))
	check("true false true false 3 SUCCESS [1 2 [3 4]]")
	children, err := g.Children(ctx)
	if err != nil || len(children) != 3 || children[2].ID() != "h" {
		t.Errorf("children %v, %v", children, err)
	}
	if err := g.Forget(ctx); err != nil {
		t.Fatal(err)
	}
	check("false true false false 0 PENDING <nil>")
}

// TestFollowParents: who waits for the last step hears of the one to blame, and at once.
func TestFollowParents(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	header := tuple("header", tuple("part1"), tuple("part2"))
	header.Parent = &protocol.ResultTuple{ID: "first"}
	body, err := client.ResultFromTuple(protocol.ResultTuple{ID: "body", Parent: &header})
	if err != nil {
		t.Fatal(err)
	}
	after := groupOf[any](t, client, protocol.ResultTuple{ID: "after", Parent: &protocol.ResultTuple{ID: "body", Parent: &header},
		Children: []protocol.ResultTuple{{ID: "x"}, {ID: "y"}}})
	store(ctx, t, client, succeeded("first", nil))
	defer whenWatched(ctx, t, client, "body", failedWith("part2", "ValueError"))()
	if _, err := body.Get(ctx); !errors.Is(err, PyError("ValueError")) { // while part1 runs
		t.Errorf("got %v", err)
	}
	_, joined := after.Join(ctx)
	_, all := after.JoinAll(ctx)
	for o, err := range after.AsCompleted(ctx) {
		if o.Result != nil || !errors.Is(err, PyError("ValueError")) {
			t.Errorf("got %v of %v", err, o)
		}
	}
	for _, err := range []error{joined, all} {
		if e, ok := errors.AsType[*Error](err); !ok || e.TaskID != "part2" {
			t.Errorf("got %v", err)
		}
	}
	store(ctx, t, client, failedWith("body", "ChordError"))
	store(ctx, t, client, failedWith("part1", "KeyError"))
	if _, err := body.Get(ctx); !errors.Is(err, PyError("KeyError")) {
		t.Errorf("got %v", err)
	}
	if _, err := client.Result("body").Get(ctx); err == nil || !strings.HasPrefix(err.Error(), "ChordError") {
		t.Errorf("one that knows no parents: %v", err)
	}
	if parent, err := body.Parent(ctx); err != nil || parent.ID() != "header" {
		t.Errorf("parent %v, %v", parent, err)
	}
	if parent, err := groupOf[any](t, client, tuple("g", tuple("a"))).Parent(ctx); parent != nil || err != nil {
		t.Errorf("parent of a group: %v, %v", parent, err)
	}
	if err := body.Forget(ctx); err != nil {
		t.Fatal(err)
	}
	metas, err := client.Backend().GetMany(ctx, "first", "part1", "part2", "body")
	for _, m := range metas {
		if m.Status != protocol.Pending || err != nil {
			t.Errorf("%s is %s, %v", m.TaskID, m.Status, err)
		}
	}
}

func TestNewGroupResult(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	sent, err := add.SendBatch(ctx, client, []addArgs{{1, 1}, {2, 2}})
	if err != nil {
		t.Fatal(err)
	}
	g := NewGroupResult(client, sent)
	for i, r := range sent {
		store(ctx, t, client, succeeded(r.ID(), int64(2*i+2)))
	}
	if values, err := g.Join(ctx); err != nil || !cmp.Equal([]int{2, 4}, values) || g.ID() == "" {
		t.Errorf("%s: %v, %v", g.ID(), values, err)
	}
	if values, err := NewGroupResult[int](client, nil).Join(ctx); len(values) != 0 || err != nil {
		t.Errorf("of nothing: %v, %v", values, err)
	}
	ignored, err := add.Send(ctx, client, addArgs{}, IgnoreResult(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewGroupResult(client, append(sent, ignored)).Join(ctx); !errors.Is(err, ErrResultIgnored) {
		t.Errorf("got %v", err)
	}
}

// TestRPCFollowParents: over rpc only who sent the first steps hears of them; whoever did not waits for the last one.
func TestRPCFollowParents(t *testing.T) {
	t.Parallel()
	ctx, client := dialRPC(t, Config{})
	last, err := client.Send(ctx, "last", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.ResultFromTuple(protocol.ResultTuple{ID: last.ID(), Parent: &protocol.ResultTuple{ID: "of another"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Backend().Store(ctx, []*protocol.ResultMeta{answer(sent(ctx, t, client, 1)[0], "done")}); err != nil {
		t.Fatal(err)
	}
	if v, err := r.Get(ctx); v != "done" || err != nil {
		t.Errorf("got %v, %v", v, err)
	}
	if _, err := groupOf[any](t, client, tuple("g", tuple(last.ID()), tuple("nobody's"))).Join(ctx); !errors.Is(err, backends.ErrUnexpected) {
		t.Errorf("got %v", err)
	}
	if err := groupOf[any](t, client, tuple("g", tuple("a"))).Save(ctx); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
