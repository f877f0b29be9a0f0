package interop

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// TestRetriesCross sends a task whose first attempt runs at one worker and whose second at another, and compares what the
// second sees of its call: for a retry of a Python worker that a Go worker runs, of a Go worker that a Python worker runs,
// and for both languages by themselves.
func TestRetriesCross(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, everyStack, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		s.Queue, s.Conf = pyQueue, map[string]any{"imports": []string{"outcomes"}}
		c.StartWorker(t, s, "threads", 1)
		config := task.Config{Broker: s.Broker, Backend: s.Backend, Queue: goQueue, AcceptContent: []string{"json", "msgpack"}}
		startOutcomes(t, config, worker.Config{})
		client := connect(t, config)
		// The same instant in all calls, and so far off that none is late.
		expires := time.Now().Add(time.Hour).Truncate(time.Second)
		calls := map[string][]task.SendOption{
			"plain":          nil,
			"all of it":      {task.Priority(3), task.Shadow("sh"), task.TimeLimit(50 * time.Second), task.SoftTimeLimit(40 * time.Second), task.ExpiresAt(expires), task.Header("tenant", map[string]any{"a": []any{1, "é"}})},
			"of a workflow":  {task.RootID("root"), task.ParentID("parent"), task.GroupID("group", 2)},
			"another format": {task.Serializer("msgpack"), task.Compression("gzip")},
		}
		if !c.AtLeast("5.3") {
			delete(calls, "all of it") // its retries of tasks that expire fail
		} else {
			calls["stamped"] = []task.SendOption{task.Stamp("stamp", "one"), task.Stamp("other", 2)}
		}
		for name, options := range calls {
			want := c.cross(t, client, name, pyQueue, pyQueue, options)
			for _, way := range []struct{ direction, from, to string }{
				{PythonToGo, pyQueue, goQueue}, {GoToPython, goQueue, pyQueue}, {GoToPython, goQueue, goQueue},
			} {
				c.To(way.direction).Cell(t, fmt.Sprintf("retry from %s to %s, %s", way.from, way.to, name), func(t *testing.T) {
					got := c.cross(t, client, name, way.from, way.to, options)
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("from Python to Python (-) and from %s to %s (+) differ:\n%s", way.from, way.to, diff)
					}
					if got["retries"] != int64(1) || got["eta"] != true {
						t.Errorf("this is no second attempt: %v", got)
					}
				})
			}
		}
	})
}

// cross runs outcome.crosses from one queue to another, and returns what its second attempt saw.
func (c Crossing) cross(t *testing.T, client *task.Client, call, from, to string, options []task.SendOption) map[string]any {
	t.Helper()
	r, err := client.Send(within(t), "outcome.crosses", []any{to, 1, "x", 2.5}, map[string]any{"k": nil},
		append([]task.SendOption{task.Queue(from)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.Get(within(t))
	if err != nil {
		t.Fatalf("%s, %s to %s: %v", call, from, to, err)
	}
	seen := v.(map[string]any)
	for _, name := range []string{"id", "root_id", "parent_id", "correlation_id"} {
		if seen[name] == r.ID() {
			seen[name] = "ID"
		}
	}
	if text, ok := seen["expires"].(string); ok { // each side writes the same instant in its own way
		at, err := protocol.ParseTime(text)
		if err != nil {
			t.Errorf("expires %q: %v", text, err)
		}
		seen["expires"] = at.Unix()
	}
	for _, name := range []string{"argsrepr", "kwargsrepr"} { // the queue's name is among them
		delete(seen, name)
	}
	if !c.AtLeast("5.3") {
		delete(seen, "origin") // which its retries do not keep
	}
	return seen
}

// TestPythonWaitsForRetries: a Python client that waits for a task of a Go worker takes RETRY for what it is, and gets what
// comes of the task at last.
func TestPythonWaitsForRetries(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, everyStack, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		s.Queue = goQueue
		startOutcomes(t, task.Config{Broker: s.Broker, Backend: s.Backend, Queue: goQueue}, worker.Config{})
		driver := c.StartDriver(t, s)
		c.To(PythonToGo).Cell(t, "retries, then a result", func(t *testing.T) {
			got := run(t, driver, Command{Task: "outcome.retries", Args: []any{2}, Record: true})
			if got.State != "SUCCESS" || string(got.Value) != "2" || !cmp.Equal(got.States, []string{"RETRY", "RETRY", "SUCCESS"}) {
				t.Errorf("%+v", got)
			}
		})
		c.To(PythonToGo).Cell(t, "retries, then a failure", func(t *testing.T) {
			got := run(t, driver, Command{Task: "outcome.exhausts", Args: []any{2}, Record: true})
			if got.State != "FAILURE" || got.Exception == nil || got.Exception.Type != "KeyError" || !cmp.Equal(got.States, []string{"RETRY", "FAILURE"}) {
				t.Errorf("%+v", got)
			}
		})
		c.To(PythonToGo).Cell(t, "MaxRetriesExceededError", func(t *testing.T) {
			got := run(t, driver, Command{Task: "outcome.wordless", Args: []any{2}, Kwargs: map[string]any{"y": json.RawMessage(`[1]`)}})
			if got.Exception == nil || got.Exception.Module != "celery.exceptions" || got.Exception.Type != "MaxRetriesExceededError" {
				t.Errorf("%+v", got)
			}
		})
	})
}
