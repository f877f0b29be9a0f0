package interop

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// TestControl has Python's remote control talk to a Go worker, and a Go client revoke at both.
func TestControl(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RedisStack, RabbitMQRPCStack}, func(t *testing.T, c Crossing) {
		s := c.Stack.Open(t)
		controls(t, c.To(PythonToGo), s)
	})
}

func controls(t *testing.T, c Crossing, s Settings) {
	worker := StartGelery(t, s, "-c", "1", "-n", "go1@box", "--track-started")
	driver := c.StartDriver(t, s)
	ask := func(t *testing.T, method string, kwargs map[string]any) string {
		t.Helper()
		a := driver.Do(t, Command{Op: "control", Task: method, Kwargs: kwargs, Timeout: 10,
			Options: map[string]any{"destination": []string{"go1@box"}}})
		var replies []map[string]json.RawMessage
		if !a.OK || json.Unmarshal(a.Value, &replies) != nil || len(replies) != 1 {
			t.Fatalf("%s is answered with %s %s", method, a.Value, a.Error)
		}
		return string(replies[0]["go1@box"])
	}
	send := func(t *testing.T, task string, options map[string]any, args ...any) string {
		t.Helper()
		a := driver.Do(t, Command{Op: "send", Task: task, Args: args, Options: options})
		if !a.OK {
			t.Fatal(a.Error)
		}
		return a.ID
	}
	revoked := func(t *testing.T, id, why string) {
		t.Helper()
		a := driver.Do(t, Command{Op: "get", ID: id, Timeout: 30})
		if a.State != "REVOKED" || a.Exception == nil || a.Exception.Type != "TaskRevokedError" || len(a.Exception.Args) != 1 || a.Exception.Args[0] != why {
			t.Errorf("the task is %s with %+v %s; expected REVOKED with %q", a.State, a.Exception, a.Error, why)
		}
	}
	for _, tt := range []struct {
		method string
		kwargs map[string]any
		want   string
	}{
		{"ping", nil, `{"ok": "pong"}`},
		{"nosuchcommand", nil, `{"error": "KeyError('nosuchcommand')"}`},
		{"add_consumer", map[string]any{"queue": "more"}, `{"ok": "add consumer more"}`},
		{"cancel_consumer", map[string]any{"queue": "nobody"}, `{"ok": "no longer consuming from nobody"}`},
		{"rate_limit", map[string]any{"task_name": "dev.add", "rate_limit": "100/s"}, `{"ok": "new rate limit set successfully"}`},
		{"time_limit", map[string]any{"task_name": "dev.sleep", "hard": 600, "soft": 300}, `{"ok": "time limits set successfully"}`},
		{"pool_grow", map[string]any{"n": 1}, `{"ok": "pool will grow"}`},
		{"pool_shrink", map[string]any{"n": 1}, `{"ok": "pool will shrink"}`},
	} {
		c.Cell(t, "control "+tt.method, func(t *testing.T) {
			if got := ask(t, tt.method, tt.kwargs); got != tt.want {
				t.Errorf("answer %s; expected %s", got, tt.want)
			}
		})
	}
	c.Cell(t, "a queue added", func(t *testing.T) {
		id := send(t, "dev.add", map[string]any{"queue": "more"}, 1, 2)
		if a := driver.Do(t, Command{Op: "get", ID: id, Timeout: 30}); a.State != "SUCCESS" {
			t.Errorf("a task of the added queue is %s %s", a.State, a.Error)
		}
		if got := ask(t, "active_queues", nil); !strings.Contains(got, `"name": "more"`) {
			t.Errorf("active queues are %s", got)
		}
	})
	c.Cell(t, "revoke, queued and running", func(t *testing.T) {
		running := send(t, "dev.sleep", nil, 600)
		worker.WaitFor(t, `dev\.sleep\[`+running+`\] received`, patience)
		queued := send(t, "dev.add", nil, 1, 2)
		ask(t, "revoke", map[string]any{"task_id": queued})
		for { // it runs when it is heard to run
			if got := ask(t, "revoke", map[string]any{"task_id": []string{running}, "terminate": true}); got == `{"ok": "terminate: `+running+`"}` {
				break
			}
			if within(t).Err() != nil {
				t.Fatal("the task is not known as running")
			}
		}
		revoked(t, running, "terminated")
		revoked(t, queued, "revoked")
		worker.WaitFor(t, `Discarding revoked task: dev\.add\[`+queued, patience)
	})
	c.Cell(t, "revoke before the eta", func(t *testing.T) {
		id := send(t, "dev.add", map[string]any{"countdown": 15}, 1, 2) // the driver may be slow
		ask(t, "revoke", map[string]any{"task_id": id})
		revoked(t, id, "revoked")
	})
	c.Cell(t, "revoke by a Go client", func(t *testing.T) {
		client := connect(t, task.Config{Broker: s.Broker, Backend: s.Backend})
		id := protocol.NewID()
		if err := client.Revoke(within(t), []string{id}); err != nil {
			t.Fatal(err)
		}
		worker.WaitFor(t, `flagged as revoked: `+id, patience)
		if a := driver.Do(t, Command{Op: "send", ID: id, Task: "dev.add", Args: []any{1, 2}}); !a.OK {
			t.Fatal(a.Error)
		}
		revoked(t, id, "revoked")
	})
	if c.Version.AtLeast("5.3") {
		c.Cell(t, "revoke by stamped headers", func(t *testing.T) {
			ask(t, "revoke_by_stamped_headers", map[string]any{"headers": map[string]any{"tenant": []string{"a"}}})
			id := send(t, "dev.add", map[string]any{"stamped_headers": []string{"tenant"}, "tenant": "a"}, 1, 2)
			revoked(t, id, "revoked")
		})
	}
	c.Cell(t, "shutdown", func(t *testing.T) {
		if got := ask(t, "shutdown", nil); got != `{"ok": "shutting down"}` {
			t.Errorf("answer %s", got)
		}
		select {
		case <-worker.Exited():
		case <-time.After(patience):
			t.Fatal("the worker goes on")
		}
		if code := worker.Stop(t, time.Second); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}
