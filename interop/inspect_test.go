package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/task"
)

// inquiry is a command of remote control that a Python and a Go worker are both given.
type inquiry struct {
	method string
	kwargs map[string]any // QUEUE in a text stands for the side's own queue
	kinds  []string       // fields of which only the kind of the value is compared
	except string         // what the paths look like of the fields that are not; "": there are none
	only   string         // what the paths of the compared fields look like; "": all are compared
	lacks  []lacking      // all names that the Python worker alone has
	texts  bool           // the answer is a list of texts in an order of its own
	// differs are all differences, in the form of differences: what Python has, then what Go has. With "5.2| " or "5.2 redis| "
	// before it a difference is that of a version, or of one over that broker.
	differs []string
}

// whatRuns has the times and processes of tasks by their kind.
var whatRuns = []string{"time_start", "worker_pid"}

// inquiries are given while a task runs and another waits for the only slot.
var inquiries = []inquiry{
	{method: "ping"},
	{method: "nosuchcommand"},
	{method: "active", kinds: whatRuns, differs: []string{"5.2 redis| [0].delivery_info.redelivered: null / false"}},
	{method: "active", kwargs: map[string]any{"safe": true}, kinds: whatRuns, differs: []string{"5.2 redis| [0].delivery_info.redelivered: null / false"}},
	{method: "dump_active", kinds: whatRuns, differs: []string{"5.2 redis| [0].delivery_info.redelivered: null / false"}},
	{method: "reserved", differs: []string{"5.2 redis| [0].delivery_info.redelivered: null / false"}},
	{method: "dump_reserved", differs: []string{"5.2 redis| [0].delivery_info.redelivered: null / false"}},
	{method: "query_task", kwargs: map[string]any{"ids": []string{"QUEUE-running", "QUEUE-waiting", "no-such"}}, kinds: whatRuns, differs: []string{
		"5.2 redis| .QUEUE-running[1].delivery_info.redelivered: null / false", "5.2 redis| .QUEUE-waiting[1].delivery_info.redelivered: null / false"}},
	{method: "query_task", kwargs: map[string]any{"ids": "no-such"}},
	{method: "stats", kinds: []string{"pid", "clock", "uptime", "processes", "rusage"}, except: `transport_options|\.writes`, differs: []string{
		"5.2| .broker.credential_provider: nothing / null", `5.2| .pool.implementation: nothing / "gelery.worker:process"`,
		`5.6| .pool.implementation: "celery.concurrency.prefork:TaskPool" / "gelery.worker:process"`}},
	{method: "active_queues"},
	{method: "clock", kinds: []string{"clock"}},
	{method: "conf", kinds: confKinds, except: `transport_options`, differs: confDiffers, lacks: confLacks},
	{method: "conf", kwargs: map[string]any{"with_defaults": true}, kinds: confKinds, except: `transport_options`, differs: defaultsDiffer, lacks: defaultsLack},
	{method: "dump_conf", kinds: confKinds, except: `transport_options`, differs: confDiffers, lacks: confLacks},
	{method: "report", kinds: []string{"ok"}},
	{method: "registered", texts: true, only: `"(outcome|exec)\.`},
	{method: "registered", texts: true, only: `"(outcome|exec|celery)\.`,
		kwargs: map[string]any{"taskinfoitems": []string{"rate_limit", "max_retries", "ignore_result", "time_limit", "soft_time_limit", "name"}, "builtins": true}},
	{method: "dump_tasks", texts: true, only: `"(outcome|exec)\.`},
	{method: "memsample", kinds: []string{""}, differs: []string{": null / str"}}, // Python's needs a library
	{method: "memdump", kinds: []string{""}},
	{method: "objgraph"},
	{method: "revoked"},
	{method: "hello", kwargs: map[string]any{"from_node": "other@box", "revoked": map[string]any{}}, kinds: []string{"clock"}},
	{method: "hello", kwargs: map[string]any{"from_node": "QUEUE@box"}},
	{method: "revoke", kwargs: map[string]any{"task_id": "revoked-one"}, differs: []string{
		`5.2| .ok: "tasks revoked-one flagged as revoked" / "tasks {'revoked-one'} flagged as revoked"`}},
	{method: "revoke", kwargs: map[string]any{"task_id": []string{}}, differs: []string{
		`5.2| .ok: "tasks  flagged as revoked" / "tasks set() flagged as revoked"`}},
	{method: "revoke", kwargs: map[string]any{"task_id": "revoked-one", "terminate": true}},
	{method: "revoke", kwargs: map[string]any{"task_id": "revoked-one", "terminate": true, "signal": "SIGNOSIG"}},
	{method: "terminate", kwargs: map[string]any{"task_id": []string{"revoked-one"}, "signal": "KILL"}},
	{method: "revoked"},
	{method: "dump_revoked"},
	{method: "hello", kwargs: map[string]any{"from_node": "other@box", "revoked": map[string]any{"told": []any{1e12 + 0.5, "told"}}}, kinds: []string{"clock", "[0]"}},
	{method: "revoke_by_stamped_headers", kwargs: map[string]any{"headers": map[string]any{"tenant": []string{"a"}}}, differs: []string{
		"5.2| .error: \"KeyError('revoke_by_stamped_headers')\" / nothing",
		"5.2| .ok: nothing / \"headers {'tenant': ['a']} flagged as revoked, but not terminated\""}},
	{method: "revoke_by_stamped_headers", kwargs: map[string]any{"headers": map[string]any{"tenant": []string{"a"}}, "terminate": true}, differs: []string{
		"5.2| .error: \"KeyError('revoke_by_stamped_headers')\" / nothing", "5.2| .ok: nothing / \"headers {'tenant': ['a']} were not terminated\""}},
	{method: "rate_limit", kwargs: map[string]any{"task_name": "outcome.fails", "rate_limit": "100/s"}},
	{method: "rate_limit", kwargs: map[string]any{"task_name": "outcome.fails", "rate_limit": 0}},
	{method: "rate_limit", kwargs: map[string]any{"task_name": "outcome.fails", "rate_limit": "x"}, kinds: []string{"error"}},
	{method: "rate_limit", kwargs: map[string]any{"task_name": "no.such", "rate_limit": "1/s"}},
	{method: "time_limit", kwargs: map[string]any{"task_name": "outcome.fails", "hard": 600.0, "soft": 300.0}},
	{method: "time_limit", kwargs: map[string]any{"task_name": "no.such", "hard": 600.0, "soft": 300.0}},
	{method: "add_consumer", kwargs: map[string]any{"queue": "QUEUE-more"}},
	{method: "cancel_consumer", kwargs: map[string]any{"queue": "QUEUE-more"}},
	{method: "cancel_consumer", kwargs: map[string]any{"queue": "no-such"}},
	{method: "autoscale", kwargs: map[string]any{"max": 3, "min": 1}},
	{method: "pool_restart"},
	{method: "enable_events"},
	{method: "enable_events"},
	{method: "disable_events"},
	{method: "disable_events"},
	{method: "heartbeat"},
	// Without arguments that must be there, or with one that is unknown.
	{method: "revoke"},
	{method: "terminate"},
	{method: "terminate", kwargs: map[string]any{"task_id": "x"}},
	{method: "revoke_by_stamped_headers", differs: []string{"5.2| .error: \"KeyError('revoke_by_stamped_headers')\" / " +
		"\"TypeError(\\\"revoke_by_stamped_headers() missing 1 required positional argument: 'headers'\\\")\""}},
	{method: "rate_limit"},
	{method: "rate_limit", kwargs: map[string]any{"task_name": "outcome.fails"}},
	{method: "time_limit"},
	{method: "add_consumer"},
	{method: "cancel_consumer"},
	{method: "query_task"},
	{method: "hello"},
	{method: "ping", kwargs: map[string]any{"nothing": 1}},
	{method: "active_queues", kwargs: map[string]any{"nothing": 1}, only: "error", differs: []string{
		".error: \"TypeError(\\\"active_queues() got an unexpected keyword argument 'nothing'\\\")\" / nothing"}},
}

// later are given while a task waits for its eta as well.
var later = []inquiry{
	{method: "scheduled", differs: []string{"5.2 redis| [0].request.delivery_info.redelivered: null / false"}},
	{method: "dump_schedule", differs: []string{"5.2 redis| [0].request.delivery_info.redelivered: null / false"}},
}

// atRest are given when no task runs.
var atRest = []inquiry{
	{method: "pool_grow", kwargs: map[string]any{"n": 1}},
	{method: "pool_shrink", kwargs: map[string]any{"n": 1}},
	{method: "election"},
	{method: "election", kwargs: map[string]any{"id": "one", "topic": "no-such", "action": nil}, differs: []string{ // of a Python worker without gossip
		": nothing / null", ".error: \"AttributeError(\\\"'Gossip' object has no attribute 'dispatcher'\\\")\" / nothing"}},
}

// TestControlAlike gives a Python and a Go worker, started alike, every command of remote control, and compares the answers field
// by field. The differences are those of the tables, and of docs/differences.md.
func TestControlAlike(t *testing.T) {
	t.Parallel()
	forOldestAndNewest(t, []Stack{RedisStack, RabbitMQStack}, func(t *testing.T, c Crossing) {
		python, golang := c.both(t, nil, shape{pool: "prefork", concurrency: 1})
		f := &fates{Crossing: c.To(PythonToGo), python: python, golang: golang, driver: c.startCelery(t, python.Settings)}
		f.Cell(t, "every command is asked", f.everyCommand)
		answers(t, f.driver, python.node)
		gate := newGate(t)
		for _, w := range []*side{python, golang} {
			send(t, w.client, "exec.waits", []any{string(gate)}, task.ID(w.queue+"-running"), task.Queue(w.queue))
			send(t, w.client, "outcome.returns", []any{1}, task.ID(w.queue+"-waiting"), task.Queue(w.queue))
		}
		f.await(t, "active", "[0].worker_pid")
		f.await(t, "reserved", "[0].id")
		f.ask(t, "answer", inquiries)
		eta := time.Now().Add(time.Hour).Truncate(time.Second).Add(123456 * time.Microsecond)
		for _, w := range []*side{python, golang} {
			send(t, w.client, "outcome.returns", []any{1}, task.ID(w.queue+"-later"), task.Queue(w.queue), task.ETA(eta))
		}
		f.await(t, "scheduled", "[0].eta")
		f.ask(t, "answer with a task for later", later)
		f.celery(t, celeryLines)
		f.Cell(t, "celery of both workers at once", f.celeryOfBoth)
		gate.open(t)
		for _, w := range []*side{python, golang} {
			w.fate(t, w.queue+"-waiting")
		}
		f.await(t, "active", "")
		f.await(t, "reserved", "")
		f.ask(t, "answer at rest", atRest)
		f.celery(t, celeryLinesAtRest)
		f.Cell(t, "celery of what Go and Python have left", f.celeryOfTraces)
		f.Cell(t, "shutdown", f.shutdown)
	})
}

// ask gives all commands of a table.
func (f *fates) ask(t *testing.T, when string, all []inquiry) {
	t.Helper()
	for i := range all {
		q := &all[i]
		f.Cell(t, fmt.Sprintf("%s %d, %s", when, i, q.method), func(t *testing.T) { q.compare(t, f) })
	}
}

// everyCommand: the tables have all commands that a worker of this version knows, also by their former names.
func (f *fates) everyCommand(t *testing.T) {
	asked := map[string]bool{"shutdown": true} // of the cell of this name
	for _, table := range [][]inquiry{inquiries, later, atRest} {
		for _, q := range table {
			asked[q.method] = true
		}
	}
	const script = "import json\nfrom celery.worker.control import Panel\nprint(json.dumps(sorted(Panel.data)))"
	out, err := f.Command(t, f.python.Settings, "python", "-c", script).Output()
	var known []string
	if err == nil {
		err = json.Unmarshal(out, &known)
	}
	if err != nil || len(known) < 30 {
		t.Fatalf("the commands of a worker are %s, %v", out, err)
	}
	for _, name := range known {
		if !asked[name] {
			t.Errorf("the command %s is in no table", name)
		}
	}
}

// shutdown: both workers end, with 0. The Go worker answers, see docs/differences.md.
func (f *fates) shutdown(t *testing.T) {
	for w, want := range map[*side]commanded{
		f.python: {Code: 69, Failed: "Error: No nodes replied within time constraint\n"},
		f.golang: {Said: "->  go@box: OK\n        shutting down\n"},
	} {
		timeout := "30"
		if !w.golang {
			timeout = "0.5" // no answer comes
		}
		if got := f.command(t, "control", "shutdown", "-d", w.node, "--timeout", timeout); got != want {
			t.Errorf("queue %s: celery control shutdown is %+v; expected %+v", w.queue, got, want)
		}
		if code := w.exitCode(t); code != 0 {
			t.Errorf("queue %s: exit code %d", w.queue, code)
		}
	}
}

// await asks both sides until the answer has a field that is not null: the field "" of an empty list.
func (f *fates) await(t *testing.T, method, field string) {
	t.Helper()
	for _, w := range []*side{f.python, f.golang} {
		eventually(t, method+" has "+field, func() bool {
			v, has := (&inquiry{method: method}).ask(t, f.driver, w)[field]
			return has && v != "null"
		})
	}
}

// ask gives the command to one side and returns the fields of its answer.
func (q *inquiry) ask(t *testing.T, d *Driver, w *side) map[string]string {
	t.Helper()
	kwargs, _ := renamed(q.kwargs, strings.NewReplacer("QUEUE", w.queue)).(map[string]any)
	a := d.Do(t, Command{Op: "control", Task: q.method, Kwargs: kwargs, Timeout: 30, Options: map[string]any{"destination": []string{w.node}}})
	var replies []map[string]any
	decoder := json.NewDecoder(bytes.NewReader(a.Value))
	decoder.UseNumber()
	if err := decoder.Decode(&replies); err != nil || len(replies) != 1 {
		t.Fatalf("queue %s: %s is answered with %s %s, %v", w.queue, q.method, a.Value, a.Error, err)
	}
	if _, answered := replies[0][w.node]; !answered {
		t.Fatalf("queue %s: %s is answered with %s", w.queue, q.method, a.Value)
	}
	return q.fields(w, replies[0])
}

// fields are the fields of a node's answer, without the side's own names.
func (q *inquiry) fields(w *side, reply map[string]any) map[string]string {
	names := strings.NewReplacer(w.queue+"-", "QUEUE-", w.node, "NODE")
	fields := map[string]string{}
	flatten(fields, "", renamed(reply[w.node], names))
	only, except := regexp.MustCompile(q.only), regexp.MustCompile(q.except)
	alike := map[string]string{}
	for path, v := range fields {
		if q.texts && v != "[]" {
			path = "[" + v + "]"
		}
		if !only.MatchString(path) || q.except != "" && except.MatchString(path) {
			continue
		}
		if v == `"`+w.queue+`"` {
			v = `"QUEUE"`
		}
		if slices.ContainsFunc(q.kinds, func(name string) bool {
			return strings.Contains(path+".", name+".") || strings.Contains(path, name+"[")
		}) {
			v = kindOf(v)
		}
		alike[path] = v
	}
	return alike
}

// compare asks both sides.
func (q *inquiry) compare(t *testing.T, f *fates) {
	t.Helper()
	python, golang := q.ask(t, f.driver, f.python), q.ask(t, f.driver, f.golang)
	q.leaveOut(t, f.Version.Name, python, golang)
	q.judge(t, f, python, golang)
}

// judge compares two answers.
func (q *inquiry) judge(t *testing.T, f *fates, python, golang map[string]string) {
	t.Helper()
	got := differences(python, golang)
	for _, line := range q.differs {
		if where, rest, only := strings.Cut(line, "| "); only {
			if where != f.Version.Name && where != f.Version.Name+" "+f.Broker {
				continue
			}
			line = rest
		}
		if i := slices.Index(got, line); i >= 0 {
			got = slices.Delete(got, i, i+1)
		} else {
			t.Errorf("%s %v: the answers do not differ in %s", q.method, q.kwargs, line)
		}
	}
	for _, line := range got {
		t.Errorf("%s %v: a difference between Python's and Go's answer: %s", q.method, q.kwargs, line)
	}
}

// differences are the fields that are not alike: "path: Python's value / Go's value", sorted.
func differences(python, golang map[string]string) (all []string) {
	paths := maps.Clone(python)
	maps.Copy(paths, golang)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		p, g := python[path], golang[path]
		if p != g {
			all = append(all, path+": "+orNothing(p)+" / "+orNothing(g))
		}
	}
	return all
}

func orNothing(v string) string {
	if v == "" {
		return "nothing"
	}
	return v
}

// flatten puts the leaves of a value under their paths: ".a.b[0]", in a map without b ".a: {}".
func flatten(fields map[string]string, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for name, x := range v {
			flatten(fields, path+"."+name, x)
		}
		if len(v) == 0 {
			fields[path] = "{}"
		}
	case []any:
		for i, x := range v {
			flatten(fields, fmt.Sprintf("%s[%d]", path, i), x)
		}
		if len(v) == 0 {
			fields[path] = "[]"
		}
	default:
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		fields[path] = string(text)
	}
}

// kindOf is the type of a leaf in Python's eyes.
func kindOf(v string) string {
	switch {
	case v == "null" || v == "{}" || v == "[]":
		return v
	case v == "true" || v == "false":
		return "bool"
	case v[0] == '"':
		return "str"
	case strings.ContainsAny(v, ".e"):
		return "float"
	}
	return "int"
}

// renamed replaces names in all texts of a value.
func renamed(v any, names *strings.Replacer) any {
	switch v := v.(type) {
	case string:
		return names.Replace(v)
	case []string:
		return renamed(anyList(v), names)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = renamed(v[i], names)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, x := range v {
			out[names.Replace(name)] = renamed(x, names)
		}
		return out
	}
	return v
}

func anyList(texts []string) []any {
	out := make([]any, len(texts))
	for i, s := range texts {
		out[i] = s
	}
	return out
}
