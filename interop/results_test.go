package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// storingStacks are those whose results can be read by any client.
var storingStacks = []Stack{RedisStack, RabbitMQStack}

// flowTasks are the tasks of python/flows.py.
func flowTasks() *worker.Mux {
	mux := worker.NewMux()
	mux.Register(task.Func("flow.add", func(x, y int) (int, error) { return x + y, nil }, task.Params("x", "y")))
	mux.Register(task.Func("flow.total", func(numbers []int) (int, error) {
		sum := 0
		for _, n := range numbers {
			sum += n
		}
		return sum, nil
	}, task.Params("numbers")))
	mux.Register(task.Func("flow.fail", func(args ...any) error {
		return task.AsPython(errors.New("flow.fail"), "builtins", "ValueError", args[len(args)-1])
	}))
	mux.Register(task.Func("flow.sends", func(ctx context.Context, n int) (int, error) {
		info, _ := task.FromContext(ctx)
		queue := task.Queue(info.Queue)
		if _, err := info.Client.Send(ctx, "flow.add", []any{n, n}, nil, queue); err != nil || n == 0 {
			return n, err
		}
		var members []task.Signature
		for i := range n {
			members = append(members, task.S("flow.add", i, i).With(queue))
		}
		_, err := info.Client.Apply(ctx, task.Group(members...))
		return n, err
	}, task.Params("n")))
	return mux
}

// flows are those of python/flows.py, with what they result in: a value, or the message of a ValueError.
var flows = []struct {
	name   string
	want   any
	failed string
}{
	{name: "task", want: int64(2)},
	{name: "chain", want: int64(7)},
	{name: "group", want: []any{int64(0), int64(2), int64(4), int64(6)}},
	{name: "nested group", want: []any{int64(2), int64(4), int64(6), int64(8)}}, // Celery flattens it
	{name: "group in a chain in a group", want: []any{[]any{int64(4), int64(5)}, int64(8)}},
	{name: "chain in a group", want: []any{int64(4), int64(6)}},
	{name: "group after a task", want: []any{int64(4), int64(5)}},
	{name: "chord", want: int64(12)},
	{name: "chord in a chain", want: int64(19)},
	{name: "children", want: int64(3)},
	{name: "failing chain", failed: "in the middle"},
	{name: "failing group", failed: "first"}, // in Python the one that is heard of first
	{name: "failing chord", failed: "of the header"},
	{name: "failing body", failed: "of the body"},
}

// TestWorkflowResults builds workflows in Python, runs them at a Python and at a Go worker, and reads their results in Go:
// what they return or which error is to blame, and the tree below each of their tasks, must be what Python reads.
func TestWorkflowResults(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, storingStacks, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		s.Queue, s.Conf = pyQueue, map[string]any{"imports": []string{"flows"}}
		c.StartWorker(t, s, "threads", 2)
		config := task.Config{Broker: s.Broker, Backend: s.Backend, Queue: goQueue}
		runMux(t, config, flowTasks(), worker.Config{Concurrency: 2})
		client := connect(t, config)
		driver := c.StartDriver(t, s)
		for _, queue := range []string{pyQueue, goQueue} {
			for _, w := range flows {
				c.To(PythonToGo).Cell(t, fmt.Sprintf("results of a workflow at %s, %s", queue, w.name), func(t *testing.T) {
					made := driver.Do(t, Command{Op: "flow", Task: w.name, Options: map[string]any{"queue": queue}})
					if !made.OK {
						t.Fatalf("%s: %s", made.Kind, made.Error)
					}
					r, err := client.ResultFromTuple(made.Value)
					if err != nil {
						t.Fatal(err)
					}
					if w.name == "failing group" { // of two that fail at a time either may be heard of first
						waitForAll(t, r)
					}
					got, err := r.Get(within(t))
					if diff := cmp.Diff(w.want, got); diff != "" {
						t.Error(diff)
					}
					wantBlame(t, err, w.failed)
					waitForAll(t, r)
					python := driver.Do(t, Command{Op: "join", Tuple: made.Value})
					if python.OK != (w.failed == "") || !python.OK && python.Error != w.failed && w.name != "failing group" {
						t.Errorf("Python gets %s, %s: %s", python.Value, python.Kind, python.Error)
					}
					for n := r; n != nil; n = parentOf(t, n) {
						sameTree(t, driver, n)
					}
				})
			}
		}
	})
}

// wantBlame compares an error with the message of the ValueError that is to blame; "" is none.
func wantBlame(t *testing.T, err error, message string) {
	t.Helper()
	e, ok := errors.AsType[*task.Error](err)
	switch {
	case message == "" && err != nil, message != "" && !ok:
		t.Errorf("got error %v, want %q", err, message)
	case ok && (!errors.Is(e, task.PyError("ValueError")) || e.Message != message):
		t.Errorf("to blame is %v, want a ValueError with %q", e, message)
	}
}

// waitForAll waits for all tasks of a workflow however they end.
func waitForAll(t *testing.T, r *task.Result[any]) {
	t.Helper()
	for n := r; n != nil; n = parentOf(t, n) {
		for _, err := range n.Watch(within(t)) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// parentOf is the parent that a result knows.
func parentOf(t *testing.T, r *task.Result[any]) *task.Result[any] {
	t.Helper()
	if r.Tuple().Parent == nil {
		return nil
	}
	parent, err := r.Parent(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return parent
}

// sameTree compares what Go and Python see below a result, once all of it is done.
func sameTree(t *testing.T, driver *Driver, r *task.Result[any]) {
	t.Helper()
	var collected [][2]any
	failed := false
	for o, err := range r.Collect(within(t)) {
		if o.Result == nil {
			t.Fatal(err)
		}
		failed = failed || err != nil
		text, err := json.Marshal(o.Value)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		collected = append(collected, [2]any{o.Result.ID(), v})
	}
	answer := driver.Do(t, Command{Op: "tree", Tuple: r})
	if !answer.OK {
		t.Fatalf("tree: %s: %s", answer.Kind, answer.Error)
	}
	var want struct {
		Edges     [][2]any
		Collected [][2]any
	}
	if err := json.Unmarshal(answer.Value, &want); err != nil {
		t.Fatal(err)
	}
	var edges [][2]any
	for d, err := range r.IterDeps(within(t), true) {
		if err != nil {
			t.Fatal(err)
		}
		var parent any
		if d.Parent != nil {
			parent = d.Parent.ID()
		}
		edges = append(edges, [2]any{parent, d.Result.ID()})
	}
	if diff := cmp.Diff(want.Edges, edges); diff != "" {
		t.Errorf("the tree of %s in Python (-) and Go (+):\n%s", r.ID(), diff)
	}
	if failed != (want.Collected == nil) {
		t.Errorf("a task failed in Go: %v, in Python: %v", failed, want.Collected == nil)
	} else if diff := cmp.Diff(want.Collected, collected); diff != "" && !failed {
		t.Errorf("collected of %s in Python (-) and Go (+):\n%s", r.ID(), diff)
	}
}

// TestGroupResultsAreRestored saves a group in one language and restores it in the other.
func TestGroupResultsAreRestored(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RedisStack}, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		client := connect(t, task.Config{Broker: s.Broker, Backend: s.Backend})
		driver := c.StartDriver(t, s)
		first := &protocol.ResultTuple{ID: "first"}
		group := protocol.ResultTuple{ID: "group", Parent: first, Children: []protocol.ResultTuple{
			{ID: "a"}, {ID: "b", Parent: first}, {ID: "inner", Children: []protocol.ResultTuple{{ID: "c"}, {ID: "d"}}},
		}}
		r, err := client.ResultFromTuple(group)
		if err != nil {
			t.Fatal(err)
		}
		g, _ := r.Group()
		c.To(GoToPython).Cell(t, "a group saved by Go", func(t *testing.T) {
			if err := g.Save(within(t)); err != nil {
				t.Fatal(err)
			}
			answer := driver.Do(t, Command{Op: "restore", ID: "group"})
			back, err := client.ResultFromTuple(answer.Value)
			if err != nil {
				t.Fatalf("Python restores %s, %s: %v", answer.Value, answer.Error, err)
			}
			if diff := cmp.Diff(group, back.Tuple()); diff != "" {
				t.Error(diff)
			}
			if err := g.Delete(within(t)); err != nil {
				t.Fatal(err)
			}
			if answer := driver.Do(t, Command{Op: "restore", ID: "group"}); !answer.OK || string(answer.Value) != "null" {
				t.Errorf("what Go has deleted is restored as %s, %s", answer.Value, answer.Error)
			}
		})
		c.To(PythonToGo).Cell(t, "a group saved by Python", func(t *testing.T) {
			if _, err := client.RestoreGroup(within(t), "group"); !errors.Is(err, task.ErrGroupNotSaved) {
				t.Errorf("got %v", err)
			}
			if answer := driver.Do(t, Command{Op: "save", Tuple: g}); !answer.OK {
				t.Fatalf("save: %s", answer.Error)
			}
			back, err := client.RestoreGroup(within(t), "group")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(group, back.Tuple()); diff != "" {
				t.Error(diff)
			}
			if answer := driver.Do(t, Command{Op: "delete", ID: "group"}); !answer.OK {
				t.Fatalf("delete: %s", answer.Error)
			}
			if _, err := client.RestoreGroup(within(t), "group"); !errors.Is(err, task.ErrGroupNotSaved) {
				t.Errorf("got %v", err)
			}
		})
	})
}
