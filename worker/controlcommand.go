package worker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

// ControlCommand is a command of remote control that a program adds to its workers with [Mux.Control]: Celery's
// @control_command and @inspect_command.
type ControlCommand struct {
	// Name is the method that clients ask for: app.control.broadcast(name) in Python. The celery command sends only those
	// that its own application knows.
	Name string
	// Help is one line that tells what the command does.
	Help string
	// Run carries the command out. Arguments are keyword arguments as canonical values of package protocol/value, never nil;
	// nobody has checked them. What it returns is the answer, any value that can be a task's result; Celery's own commands
	// answer {"ok": …} for what was done. An error or a panic is answered as {"error": <its repr in Python>}.
	//
	// The commands of a worker that come by Run run one after the other, beside the tasks and the worker's own commands. One
	// that does not return within 30 seconds, when its context is done, is answered with TimeoutError.
	Run func(ctx context.Context, w *Worker, arguments map[string]any) (any, error)
}

// Control adds a command of remote control. It panics if the name is empty or taken, or if there is no function.
func (m *Mux) Control(c ControlCommand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mustBeOpen()
	_, own := m.commands[c.Name]
	_, builtin := controlCommands[c.Name]
	switch {
	case c.Name == "" || c.Run == nil:
		panic("a command of remote control needs a name and a function")
	case own || builtin:
		panic(fmt.Sprintf("the command of remote control %q is there already", c.Name))
	}
	if m.commands == nil {
		m.commands = map[string]ControlCommand{}
	}
	m.commands[c.Name] = c
}

// ControlCommands lists the commands that Control has added, sorted by name.
func (m *Mux) ControlCommands() []ControlCommand {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]ControlCommand, 0, len(m.commands))
	for _, name := range slices.Sorted(maps.Keys(m.commands)) {
		out = append(out, m.commands[name])
	}
	return out
}

// maxOverdue is how many of the program's commands may go on after their time. With more no other begins.
const maxOverdue = 16

// programCommand makes a command of the program one of the worker's.
func programCommand(c ControlCommand, overdue *atomic.Int64) controlCommand {
	return controlCommand{program: true, run: func(ctx context.Context, w *Worker, a arguments) (any, error) {
		if overdue.Load() >= maxOverdue {
			return nil, pythonError("RuntimeError", fmt.Sprintf("%d commands of the program have not ended in time, and go on", maxOverdue))
		}
		done := c.call(ctx, w, a.values)
		select {
		case r := <-done:
			return r.value, r.err
		case <-ctx.Done():
		}
		overdue.Add(1)
		go func() {
			<-done
			overdue.Add(-1)
		}()
		return nil, pythonError("TimeoutError", c.Name+" was not done in time")
	}}
}

// commandResult is what a command of the program has answered, with nothing of its code left in it.
type commandResult struct {
	value any
	err   error
}

// call calls the program's function in a goroutine of its own, which it may end, or hold up.
func (c ControlCommand) call(ctx context.Context, w *Worker, arguments map[string]any) <-chan commandResult {
	done := make(chan commandResult, 1)
	go func() {
		r := commandResult{err: pythonError("RuntimeError", "the command ended its goroutine (runtime.Goexit)")}
		defer func() {
			if x := recover(); x != nil {
				r = commandResult{err: panicError(x)}
			}
			done <- r
		}()
		v, err := c.Run(ctx, w, arguments)
		if err == nil {
			v, err = value.Of(v)
		}
		if err != nil { // its methods are the program's
			v, err = nil, failure(err, nil).exception
		}
		r = commandResult{v, err}
	}()
	return done
}

// setCommands makes the table of what the worker obeys.
func (w *Worker) setCommands(own []ControlCommand) error {
	w.commands = maps.Clone(controlCommands)
	overdue := new(atomic.Int64)
	for _, c := range own {
		w.commands[c.Name] = programCommand(c, overdue)
	}
	for field, names := range map[string][]string{"DisabledCommands": w.config.DisabledCommands, "EnabledCommands": w.config.EnabledCommands} {
		for i, name := range names {
			if _, known := w.commands[name]; !known {
				return fmt.Errorf("worker config: %s[%d]: there is no command %q; there are %v", field, i, name, slices.Sorted(maps.Keys(w.commands)))
			}
		}
	}
	return nil
}

// harmless are the commands that change nothing, and what workers tell each other; the program's own are not among them.
var harmless = []string{
	"ping", "active_queues", "heartbeat", "election", "active", "reserved", "scheduled", "revoked", "registered", "query_task", "stats", "conf",
	"report", "clock", "hello", "memsample", "memdump", "objgraph",
}

// permits refuses a command that is disabled, under any of its names. Who may not terminate may not do so by revoking.
func (w *Worker) permits(r *protocol.PidboxRequest) error {
	name := nameOf(r.Method)
	disabled := func(name string) bool {
		enabled := w.config.EnabledCommands
		if enabled != nil && !slices.Contains(enabled, name) && (w.commands[name].program || !slices.Contains(harmless, name)) {
			return true
		}
		return slices.ContainsFunc(w.config.DisabledCommands, func(d string) bool { return nameOf(d) == name })
	}
	if disabled(name) {
		return pythonError("PermissionError", r.Method+" is disabled at this worker")
	}
	if (name == "revoke" || name == "revoke_by_stamped_headers") && disabled("terminate") && (arguments{r.Method, r.Arguments}).truth("terminate") {
		return pythonError("PermissionError", "terminate is disabled at this worker")
	}
	return nil
}

// formerNames are the commands' names in Celery 3, which clients may still use.
var formerNames = map[string]string{"dump_active": "active", "dump_reserved": "reserved", "dump_schedule": "scheduled",
	"dump_revoked": "revoked", "dump_tasks": "registered", "dump_conf": "conf"}

// nameOf is the name of today of a command.
func nameOf(method string) string { return orElse(formerNames[method], method) }
