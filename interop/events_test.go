package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// capture is Celery's own receiver of events.
type capture struct {
	*Process
	mu     sync.Mutex
	rest   string
	ready  bool
	events []map[string]any // in the order they came; numbers as they were written
}

// Write takes what capture.py says.
func (c *capture) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rest += string(b)
	for {
		line, rest, whole := strings.Cut(c.rest, "\n")
		if !whole {
			return len(b), nil
		}
		c.rest = rest
		if line == `"ready"` {
			c.ready = true
			continue
		}
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		var e map[string]any
		if err := d.Decode(&e); err != nil {
			return 0, fmt.Errorf("%q: %w", line, err)
		}
		c.events = append(c.events, e)
	}
}

// startCapture starts the receiver and waits until it receives.
func (c Crossing) startCapture(t *testing.T, s Settings) *capture {
	t.Helper()
	cmd := c.Command(t, s, "python", "capture.py")
	monitor := &capture{}
	cmd.Stdout = monitor
	monitor.Process = Start(t, "celery-"+c.Name+"-capture", cmd)
	eventually(t, "the monitor is ready", func() bool {
		monitor.mu.Lock()
		defer monitor.mu.Unlock()
		return monitor.ready
	})
	return monitor
}

// those are the events that the function chooses.
func (c *capture) those(choose func(map[string]any) bool) (all []map[string]any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.events {
		if choose(e) {
			all = append(all, e)
		}
	}
	return all
}

// of are the events of one type from a worker.
func (c *capture) of(node, kind string) []map[string]any {
	return c.those(func(e map[string]any) bool { return e["hostname"] == node && e["type"] == kind })
}

// about are the events about a task, in their order.
func (c *capture) about(id string) []map[string]any {
	return c.those(func(e map[string]any) bool { return e["uuid"] == id })
}

// scripted is a kind of call in the script of TestEvents, and the events that a worker sends about it.
type scripted struct {
	name    string // the task's without "outcome.", and more words for another kind of it
	args    []any
	opts    []task.SendOption
	revoked bool
	events  string // their types without "task-"
	shown   string // the name that a worker tells, if that is another
	own     bool   // the exception's text is each side's own
}

var eventScript = []scripted{
	{name: "returns", args: []any{"é"}, events: "received started succeeded"},
	{name: "returns long", args: []any{strings.Repeat("x", 3000)}, events: "received started succeeded"},
	{name: "quiet", args: []any{false}, events: "received started succeeded"},
	{name: "quiet failing", args: []any{true}, events: "received started failed"},
	{name: "fails", events: "received started failed"},
	{name: "expected", events: "received started failed"},
	{name: "arguments", args: []any{1}, events: "received started failed", own: true},
	{name: "ignores", events: "received started"},
	{name: "rejects", events: "received started rejected"},
	{name: "dead", events: "received started rejected failed"},
	{name: "retries", args: []any{1}, events: "received started retried received started succeeded"},
	{name: "never", events: "received started failed"},
	{name: "unheard_of", events: "failed"},
	{name: "returns revoked", args: []any{1}, revoked: true, events: "revoked"},
	{name: "returns later", args: []any{1}, opts: []task.SendOption{task.Countdown(3 * time.Second), task.Expires(time.Hour), task.Shadow("shade")},
		shown: "shade", events: "received started succeeded"},
}

// script is what can be told of on the stack.
func (c Crossing) script() []scripted {
	script := slices.Clone(eventScript)
	if c.Broker != "rabbitmq" { // which drops it
		script = append(script, scripted{name: "returns expired", args: []any{1}, opts: []task.SendOption{task.ExpiresAt(time.Unix(1, 0))}, events: "revoked"})
	}
	return script
}

// repeat is n calls of a script, one after the other and again.
func repeat(script []scripted, n int) []scripted {
	calls := make([]scripted, n)
	for i := range calls {
		calls[i] = script[i%len(script)]
	}
	return calls
}

// TestEvents has a Python and a Go worker run the same calls, 1,000 of the newest Celery, and compares the events that Celery's receiver hears of
// either, one by one: their types and order for each task, their fields, the types of these, and their values where the
// time does not decide them.
func TestEvents(t *testing.T) {
	t.Parallel()
	forOldestAndNewest(t, []Stack{RedisStack, RabbitMQStack}, func(t *testing.T, c Crossing) {
		s, server := c.open(t, nil)
		monitor := c.startCapture(t, s)
		python := c.start(t, false, s, server, shape{pool: "prefork", concurrency: 2, args: []string{"-E"}})
		golang := c.start(t, true, s, server, shape{pool: "threads", concurrency: 2, args: []string{"-E"}})
		sides := []*side{python, golang}
		for _, w := range sides {
			w.ready(t)
		}
		script := c.script()
		calls := repeat(script, 1000)
		if !c.AtLeast("5.6") {
			calls = calls[:300]
		}
		c.To(PythonToGo).Cell(t, "events of many tasks", func(t *testing.T) {
			for _, w := range sides {
				w.play(t, c, calls)
			}
			for _, w := range sides {
				w.awaitEvents(t, monitor, calls)
			}
			for i := range calls {
				calls[i].compareEvents(t, i, python.alikeEvents(monitor, i), golang.alikeEvents(monitor, i))
				if i >= len(script) && t.Failed() { // the others would say the same
					break
				}
			}
		})
		c.To(PythonToGo).Cell(t, "events of a terminated task", func(t *testing.T) {
			x := scripted{name: "terminated", events: "received started revoked"}
			driver := c.StartDriver(t, s)
			for _, w := range sides {
				g := newGate(t)
				send(t, w.client, "exec.waits", []any{string(g)}, task.ID(w.callID(1000)), task.Queue(w.queue))
				g.await(t, 1)
				driver.Do(t, Command{Op: "control", Task: "revoke", Kwargs: map[string]any{"task_id": w.callID(1000), "terminate": true, "signal": "SIGTERM"},
					Options: map[string]any{"destination": []string{w.node}}})
				eventually(t, "its end is told", func() bool { return len(monitor.about(w.callID(1000))) > 2 })
				// The path of the gate is each side's own.
				monitor.about(w.callID(1000))[0]["args"] = ""
			}
			x.compareEvents(t, 1000, python.alikeEvents(monitor, 1000), golang.alikeEvents(monitor, 1000))
		})
		c.To(PythonToGo).Cell(t, "events of workers", func(t *testing.T) { compareWorkerEvents(t, monitor, python, golang) })
	})
}

// callID is the id of a call at a side.
func (w *side) callID(i int) string { return fmt.Sprintf("%s-%04d", w.queue, i) }

// play sends the calls to the side's worker, which knows by then which are revoked.
func (w *side) play(t *testing.T, c Crossing, calls []scripted) {
	t.Helper()
	w.revoke(t, c.StartDriver(t, w.Settings), calls)
	w.sendCalls(t, calls)
}

// revoke tells the side's worker which of the calls are revoked.
func (w *side) revoke(t *testing.T, driver *Driver, calls []scripted) {
	t.Helper()
	var revoked []string
	for i, x := range calls {
		if x.revoked {
			revoked = append(revoked, w.callID(i))
		}
	}
	w.control(t, driver, "revoke", map[string]any{"task_id": revoked}, "revoked")
}

// control has the side's worker obey a command, whose answer contains a word.
func (w *side) control(t *testing.T, driver *Driver, command string, arguments map[string]any, word string) {
	t.Helper()
	answer := driver.Do(t, Command{Op: "control", Task: command, Kwargs: arguments, Timeout: 30, Options: map[string]any{"destination": []string{w.node}}})
	if !strings.Contains(string(answer.Value), word) {
		t.Fatalf("%s is answered with %s %s", command, answer.Value, answer.Error)
	}
}

// sendCalls sends the calls to the side's queue.
func (w *side) sendCalls(t *testing.T, calls []scripted) {
	t.Helper()
	batch := make([]task.Call, len(calls))
	for i, x := range calls {
		name, _, _ := strings.Cut(x.name, " ")
		batch[i] = task.Call{Name: "outcome." + name, Args: x.args, Options: append([]task.SendOption{task.ID(w.callID(i)), task.Queue(w.queue)}, x.opts...)}
	}
	if _, err := w.client.SendBatch(within(t), batch); err != nil {
		t.Fatal(err)
	}
}

// awaitEvents waits until of each call as many events have come as are to come.
func (w *side) awaitEvents(t *testing.T, monitor *capture, calls []scripted) {
	t.Helper()
	want := 0
	for _, x := range calls {
		want += len(strings.Fields(x.events))
	}
	got := 0
	prefix := w.queue + "-"
	defer func() { t.Logf("queue %s: %d events of %d", w.queue, got, want) }()
	for got < want { // on a busy machine a Python worker takes minutes, but it gets on
		before := got
		eventually(t, "more events have come", func() bool {
			got = len(monitor.those(func(e map[string]any) bool { id, _ := e["uuid"].(string); return strings.HasPrefix(id, prefix) }))
			return got > before
		})
	}
}

// alikeEvents are the events of a call without what differs from run to run.
func (w *side) alikeEvents(monitor *capture, i int) (all []map[string]any) {
	id := w.callID(i)
	last := int64(0)
	for _, e := range monitor.about(id) {
		alike := map[string]any{}
		for name, v := range e {
			switch name {
			case "local_received": // the receiver's
				continue
			case "hostname":
				v = v == w.node
			case "clock":
				n, _ := v.(json.Number).Int64()
				v = n > last
				last = n
			case "pid", "timestamp", "runtime", "utcoffset":
				v = numberKind(v)
			case "traceback", "eta", "expires":
				v = fmt.Sprintf("%T", v)
			case "result": // Python counts it a character longer
				if text, ok := v.(string); ok && len(text) > 1000 {
					v = text[:1000]
				}
			case "uuid", "root_id", "parent_id":
				if v == id {
					v = "ID"
				}
			}
			alike[name] = v
		}
		all = append(all, alike)
	}
	return all
}

func numberKind(v any) string {
	n, ok := v.(json.Number)
	if !ok {
		return fmt.Sprintf("%T", v)
	}
	if strings.ContainsAny(string(n), ".e") {
		return "float"
	}
	return "int"
}

func (x *scripted) compareEvents(t *testing.T, i int, python, golang []map[string]any) {
	t.Helper()
	for who, events := range map[string][]map[string]any{"Python": python, "Go": golang} {
		var types []string
		for _, e := range events {
			types = append(types, strings.TrimPrefix(e["type"].(string), "task-"))
			if text, ok := e["exception"].(string); ok && x.own {
				e["exception"], _, _ = strings.Cut(text, "(")
			}
		}
		if got := strings.Join(types, " "); got != x.events {
			t.Errorf("call %d, %s: the %s worker sends %s; expected %s", i, x.name, who, got, x.events)
		}
	}
	if diff := cmp.Diff(python, golang); diff != "" {
		t.Errorf("call %d, %s: Python (-) and Go (+) differ:\n%s", i, x.name, diff)
	}
}

// compareWorkerEvents compares what the workers tell of themselves, their ends included, and wants Celery's state of the
// cluster to take the Go worker for alive until then.
func compareWorkerEvents(t *testing.T, monitor *capture, python, golang *side) {
	t.Helper()
	sides := []*side{python, golang}
	for _, w := range sides {
		eventually(t, w.node+" has told twice that it lives", func() bool { return len(monitor.of(w.node, protocol.WorkerHeartbeat)) > 1 })
		if code := w.Stop(t, time.Minute); code != 0 {
			t.Errorf("%s exits with %d", w.node, code)
		}
	}
	for _, kind := range []string{protocol.WorkerOnline, protocol.WorkerHeartbeat, protocol.WorkerOffline} {
		seen := map[bool]map[string]any{}
		for _, w := range sides {
			eventually(t, w.node+" has sent "+kind, func() bool { return len(monitor.of(w.node, kind)) > 0 })
			all := monitor.of(w.node, kind)
			alike := map[string]any{}
			for name, v := range all[len(all)-1] {
				switch name {
				case "clock", "pid", "timestamp", "utcoffset", "active", "processed":
					v = numberKind(v)
				case "loadavg":
					list := v.([]any)
					v = fmt.Sprint(len(list), numberKind(list[0]))
				case "hostname", "local_received", "sw_ident", "sw_ver":
					v = fmt.Sprintf("%T", v)
				}
				alike[name] = v
			}
			if alike["alive"] != (kind != protocol.WorkerOffline) {
				t.Errorf("at %s of %s it is alive: %v", kind, w.node, alike["alive"])
			}
			seen[w.golang] = alike
		}
		if diff := cmp.Diff(seen[false], seen[true]); diff != "" {
			t.Errorf("%s: Python (-) and Go (+) differ:\n%s", kind, diff)
		}
	}
}

// TestEventsDump: the stock command sees a Go worker and its tasks.
func TestEventsDump(t *testing.T) {
	t.Parallel()
	ForEachVersion(t, func(t *testing.T, v Version) {
		for _, k := range []Stack{RedisStack, RabbitMQStack} {
			t.Run(k.String(), func(t *testing.T) {
				t.Parallel()
				c := Crossing{Version: v, Stack: k}.To(PythonToGo)
				s := c.Open(t)
				dump := Start(t, "celery-"+v.Name+"-events", c.Command(t, s, "celery", "-A", "app", "events", "--dump"))
				dump.WaitFor(t, `starting capture`, time.Minute)
				worker := StartGelery(t, s, "-n", "go1@box", "--heartbeat-interval", "0.2")
				c.Cell(t, "celery events --dump", func(t *testing.T) {
					dump.WaitFor(t, `^go1@box \[.*\] heartbeat: .*active=0.*freq=0\.2.*sw_ident=gelery`, patience)
					driver := c.StartDriver(t, s)
					if a := driver.Do(t, Command{Op: "control", Task: "enable_events", Timeout: 10, Options: map[string]any{"destination": []string{"go1@box"}}}); !strings.Contains(string(a.Value), `"task events enabled"`) {
						t.Fatalf("enable_events is answered with %s %s", a.Value, a.Error)
					}
					a := driver.Do(t, Command{Op: "send", Task: "dev.add", Args: []any{1, 2}})
					dump.WaitFor(t, `^go1@box \[.*\] task received: dev\.add\(`+a.ID+`\) args=\[1, 2\]|^go1@box \[.*\] task received: dev\.add\(`+a.ID+`\) args=\(1, 2\)`, patience)
					dump.WaitFor(t, `^go1@box \[.*\] task succeeded: dev\.add\(`+a.ID+`\).* result=3, runtime=`, patience)
					worker.Stop(t, time.Minute)
					dump.WaitFor(t, `^go1@box \[.*\] shutdown: `, patience)
				})
			})
		}
	})
}

// TestMingle: a Python worker that starts beside a Go worker asks it what is revoked, hears its heartbeats and goes on.
func TestMingle(t *testing.T) {
	t.Parallel()
	forOldestAndNewest(t, []Stack{RedisStack, RabbitMQStack}, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		golang := s
		golang.Queue = goQueue
		StartGelery(t, golang, "-n", "go1@box", "--heartbeat-interval", "0.2")
		driver := c.StartDriver(t, s)
		revoke := func(node, id string) {
			driver.Do(t, Command{Op: "control", Task: "revoke", Kwargs: map[string]any{"task_id": id}, Timeout: 10, Options: map[string]any{"destination": []string{node}}})
		}
		revoke("go1@box", "revoked-at-go")
		s.Queue = pyQueue
		python := Start(t, "celery-"+c.Name+"-worker", c.Command(t, s, "celery", "-A", "app", "worker", "-l", "debug", "-P", "threads", "-c", "1",
			"-Q", pyQueue, "-n", "py1@box"))
		c.To(GoToPython).Cell(t, "mingle and gossip", func(t *testing.T) {
			python.WaitFor(t, `mingle: sync with 1 nodes`, time.Minute)
			python.WaitFor(t, `mingle: sync complete`, patience)
			python.WaitFor(t, `go1@box joined the party`, patience)
			python.WaitFor(t, `\bready\.`, patience)
			a := driver.Do(t, Command{Op: "control", Task: "revoked", Timeout: 10, Options: map[string]any{"destination": []string{"py1@box"}}})
			if !strings.Contains(string(a.Value), "revoked-at-go") {
				t.Errorf("the Python worker knows as revoked %s %s", a.Value, a.Error)
			}
			wantResult(t, dial(t, s, 2), "py.add", []any{2, 3}, int64(5))
		})
		c.To(PythonToGo).Cell(t, "a Go worker mingles", func(t *testing.T) {
			revoke("py1@box", "revoked-at-python")
			later := golang
			later.Queue = "later"
			var worker *Process
			eventually(t, "a worker that starts has its answer within the second", func() bool { // of a busy machine
				worker = StartGelery(t, later, "-n", "go2@box")
				worker.WaitFor(t, `mingle: (sync complete|all alone)`, patience)
				a := driver.Do(t, Command{Op: "control", Task: "revoked", Timeout: 10, Options: map[string]any{"destination": []string{"go2@box"}}})
				if strings.Contains(string(a.Value), "revoked-at-python") && strings.Contains(string(a.Value), "revoked-at-go") {
					return true
				}
				worker.Kill()
				return false
			})
			r := send(t, dial(t, later, 2), "dev.add", []any{1, 2}, task.ID("revoked-at-python"))
			if _, err := r.Get(within(t)); !errors.Is(err, task.ErrRevoked) {
				t.Errorf("a task that was revoked at the Python worker ends with %v", err)
			}
			worker.WaitFor(t, `Discarding revoked task: dev\.add\[revoked-at-python\]`, patience)
		})
	})
}
