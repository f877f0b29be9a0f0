package worker

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/gelery/gelery/task"
)

func TestProgramCommands(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	began, release := make(chan struct{}), make(chan struct{})
	for name, run := range map[string]func(context.Context, *Worker, map[string]any) (any, error){
		"own.node": func(_ context.Context, w *Worker, a map[string]any) (any, error) {
			return []any{w.Hostname(), a["x"]}, nil
		},
		"own.fails": func(context.Context, *Worker, map[string]any) (any, error) { return nil, errors.New("no") },
		"own.python": func(context.Context, *Worker, map[string]any) (any, error) {
			return nil, task.AsPython(nil, "builtins", "KeyError", "k")
		},
		"own.panics": func(context.Context, *Worker, map[string]any) (any, error) { panic("oh") },
		"own.exits":  func(context.Context, *Worker, map[string]any) (any, error) { runtime.Goexit(); return nil, nil },
		"own.odd":    func(context.Context, *Worker, map[string]any) (any, error) { return make(chan int), nil },
		"own.holds": func(context.Context, *Worker, map[string]any) (any, error) {
			close(began)
			<-release
			return "held", nil
		},
	} {
		s.mux.Control(ControlCommand{Name: name, Help: "for the test", Run: run})
	}
	if n := len(s.mux.ControlCommands()); n != 7 {
		t.Errorf("%d commands are listed", n)
	}
	s.start(Config{Hostname: "w1@box"})
	m := s.mailbox()
	m.want("own.node", map[string]any{"x": 1}, "[w1@box 1]")
	m.want("own.python", nil, "map[error:KeyError('k')]")
	m.want("own.panics", nil, "map[error:RuntimeError('panic: oh')]")
	m.want("own.exits", nil, "map[error:RuntimeError('the command ended its goroutine (runtime.Goexit)')]")
	for _, method := range []string{"own.fails", "own.odd"} {
		if got, _ := m.ask(method, nil).(map[string]any); got["error"] == nil {
			t.Errorf("%s is answered with %v", method, got)
		}
	}
	m.broadcast(m.request("own.holds", nil))
	await(t, began, "the command")
	m.want("ping", nil, "map[ok:pong]") // a slow command holds up no other
	close(release)
	if got := m.answer(); got != "held" {
		t.Errorf("the slow command is answered with %v", got)
	}
}

func TestProgramCommandNames(t *testing.T) {
	t.Parallel()
	run := func(context.Context, *Worker, map[string]any) (any, error) { return nil, nil }
	for name, c := range map[string]ControlCommand{"no name": {Run: run}, "no function": {Name: "x"}, "taken": {Name: "ping", Run: run}, "twice": {Name: "own", Run: run}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mux := NewMux()
			mux.Control(ControlCommand{Name: "own", Run: run})
			defer func() {
				if recover() == nil {
					t.Error("it was taken")
				}
			}()
			mux.Control(c)
		})
	}
}

func TestDisabledCommands(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := New(s.client, NewMux(), Config{DisabledCommands: []string{"nosuch"}}); err == nil || !strings.Contains(err.Error(), "DisabledCommands[0]") {
		t.Errorf("got %v", err)
	}
	s.start(Config{DisabledCommands: []string{"shutdown", "terminate", "dump_conf"}})
	m := s.mailbox()
	m.want("shutdown", nil, "map[error:PermissionError('shutdown is disabled at this worker')]")
	m.want("conf", nil, "map[error:PermissionError('conf is disabled at this worker')]")
	m.want("terminate", map[string]any{"task_id": "x", "signal": "KILL"}, "map[error:PermissionError('terminate is disabled at this worker')]")
	m.want("revoke", map[string]any{"task_id": "x", "terminate": true}, "map[error:PermissionError('terminate is disabled at this worker')]")
	m.want("revoke", map[string]any{"task_id": "x"}, "map[ok:tasks {'x'} flagged as revoked]")
	m.want("ping", nil, "map[ok:pong]")
}

// What changes something is carried out only if it is listed; what asks is answered.
func TestEnabledCommands(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := New(s.client, NewMux(), Config{EnabledCommands: []string{"nosuch"}}); err == nil || !strings.Contains(err.Error(), "EnabledCommands[0]") {
		t.Errorf("got %v", err)
	}
	for name := range controlCommands { // a new command is in one list or the other
		if c := nameOf(name); !slices.Contains(harmless, c) && !slices.Contains([]string{"revoke", "terminate", "revoke_by_stamped_headers", "rate_limit",
			"time_limit", "add_consumer", "cancel_consumer", "pool_grow", "pool_shrink", "autoscale", "enable_events", "disable_events", "shutdown", "pool_restart"}, c) {
			t.Errorf("does %s change something?", name)
		}
	}
	s.mux.Control(ControlCommand{Name: "own", Run: func(context.Context, *Worker, map[string]any) (any, error) { return 1, nil }})
	s.start(Config{EnabledCommands: []string{"revoke"}})
	m := s.mailbox()
	m.want("shutdown", nil, "map[error:PermissionError('shutdown is disabled at this worker')]")
	m.want("own", nil, "map[error:PermissionError('own is disabled at this worker')]")
	m.want("revoke", map[string]any{"task_id": "x", "terminate": true}, "map[error:PermissionError('terminate is disabled at this worker')]")
	m.want("revoke", map[string]any{"task_id": "x"}, "map[ok:tasks {'x'} flagged as revoked]")
	m.want("ping", nil, "map[ok:pong]")
}
