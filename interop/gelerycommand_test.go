package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/task"
)

// operator gives the commands of gelery to a Python and a Go worker.
type operator struct {
	*fates
	program string
	options []string // of every command
}

// TestGeleryCommands has the command gelery ask, steer and watch a Python and a Go worker, which it shows alike.
func TestGeleryCommands(t *testing.T) {
	t.Parallel()
	forOldestAndNewest(t, []Stack{RedisStack, RabbitMQStack}, func(t *testing.T, c Crossing) {
		python, golang := c.both(t, nil, shape{pool: "prefork", concurrency: 1, args: []string{"-E"}})
		o := &operator{fates: &fates{Crossing: c.To(GoToPython), python: python, golang: golang}, program: Gelery(t),
			options: []string{"-b", python.Broker, "--result-backend", python.Backend}}
		o.driver = c.StartDriver(t, python.Settings)
		answers(t, o.driver, python.node)
		events, top := o.watch(t, "events", "--output", "jsonl"), o.watch(t, "top", "--interval", "0.1", "--output", "jsonl")
		dump, table := o.watch(t, "events", "--dump"), o.watch(t, "top", "--interval", "0.1")
		for _, p := range []*Process{events, top, dump, table} {
			p.WaitFor(t, python.node, patience) // it listens
			p.WaitFor(t, golang.node, patience)
		}
		gate := newGate(t)
		for _, w := range []*side{python, golang} {
			send(t, w.client, "exec.waits", []any{string(gate)}, task.ID(w.queue+"-running"), task.Queue(w.queue))
			send(t, w.client, "outcome.returns", []any{1}, task.ID(w.queue+"-waiting"), task.Queue(w.queue))
		}
		o.await(t, "active", "[0].worker_pid")
		o.await(t, "reserved", "[0].id")
		o.lines(t, geleryLines)
		o.Cell(t, "gelery of both workers at once", o.both)
		gate.open(t)
		for _, w := range []*side{python, golang} {
			w.fate(t, w.queue+"-waiting")
		}
		o.lines(t, []geleryLine{{words: "control pool_grow"}, {words: "control pool_shrink 1"}})
		o.Cell(t, "gelery events", func(t *testing.T) { o.events(t, events, dump) })
		o.Cell(t, "gelery top", func(t *testing.T) { o.top(t, top, table) })
		o.Cell(t, "gelery of what Go and Python have left", o.traces)
		o.Cell(t, "gelery control shutdown", func(t *testing.T) {
			if got := o.run(t, "control", "shutdown", "--timeout", "0.1", "-d", python.node); got != (commanded{}) { // it does not answer
				t.Errorf("of Python it is %+v", got)
			}
			if got, want := o.run(t, "control", "shutdown", "--timeout", "30", "-d", golang.node), (commanded{Said: "go@box\tshutting down\n"}); got != want {
				t.Errorf("of Go it is %+v; expected %+v", got, want)
			}
			for _, w := range []*side{python, golang} {
				if code := w.exitCode(t); code != 0 {
					t.Errorf("%s exits with %d", w.node, code)
				}
			}
		})
	})
}

// command makes the process of a command.
func (o *operator) command(words ...string) *exec.Cmd {
	cmd := exec.Command(o.program, append(slices.Clone(o.options), words...)...)
	cmd.Env = withoutCelery(os.Environ())
	return cmd
}

// run runs a command to its end.
func (o *operator) run(t *testing.T, words ...string) commanded {
	t.Helper()
	cmd := o.command(words...)
	var said, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &failed
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("gelery %s: %v", strings.Join(words, " "), err)
	}
	return commanded{cmd.ProcessState.ExitCode(), said.String(), failed.String()}
}

// watch starts a command that goes on until the test ends.
func (o *operator) watch(t *testing.T, words ...string) *Process {
	t.Helper()
	return Start(t, "gelery-"+words[0], o.command(words...))
}

// geleryLine is a command that is given to a Python and to a Go worker, one after the other, with more than one form of the output. The exit
// codes and what is printed are the same, but for names and numbers.
type geleryLine struct {
	words string // QUEUE stands for the side's own queue
	code  int
	forms bool   // all forms of the output are looked at, not only plain and json
	own   bool   // the figures and settings are each worker's own: only who has answered is compared
	since string // the version that has the command first; "": all have it
}

var geleryLines = []geleryLine{
	{words: "status"},
	{words: "inspect ping"},
	{words: "inspect active", forms: true},
	{words: "inspect reserved"},
	{words: "inspect scheduled"},
	{words: "inspect query_task QUEUE-running QUEUE-waiting"},
	{words: "inspect active_queues"},
	{words: "inspect clock"},
	{words: "inspect conf", own: true},
	{words: "inspect conf true", own: true},
	{words: "inspect memdump", own: true},
	{words: "inspect memsample", own: true},
	{words: "inspect objgraph"},
	{words: "inspect registered", own: true},
	{words: "inspect registered rate_limit", own: true},
	{words: "inspect report", own: true},
	{words: "inspect revoked"},
	{words: "inspect stats", own: true},
	{words: "inspect nosuchcommand", code: 2},
	{words: "inspect nosuchcommand --custom"},
	{words: "control add_consumer QUEUE-more"},
	{words: "control cancel_consumer QUEUE-more"},
	{words: "control autoscale 3 1"},
	{words: "control enable_events"},
	{words: "control heartbeat"},
	{words: "control pool_restart"},
	{words: "control rate_limit outcome.fails 10/m"},
	{words: "control rate_limit no.such 10/m"},
	{words: "control time_limit outcome.fails 300 600"},
	{words: "control time_limit no.such 300"},
	{words: "control revoke revoked-two", since: "5.3"},
	{words: "control terminate SIGKILL revoked-two revoked-three"},
	{words: "control terminate", code: 2},
	{words: "control revoke_by_stamped_headers tenant=b", since: "5.3"},
}

// lines gives a table to both workers.
func (o *operator) lines(t *testing.T, lines []geleryLine) {
	t.Helper()
	for i, line := range lines {
		if !o.AtLeast(line.since) {
			continue
		}
		o.Cell(t, fmt.Sprintf("gelery %d, %s", i, line.words), func(t *testing.T) {
			forms := []string{"plain", "json"}
			if line.forms {
				forms = append(forms, "table", "jsonl", "yaml")
			}
			for _, form := range forms {
				python, golang := o.alike(t, o.python, line, form), o.alike(t, o.golang, line, form)
				if diff := cmp.Diff(python, golang); diff != "" {
					t.Errorf("gelery %s -o %s: Python's worker (-) and Go's (+) differ:\n%s", line.words, form, diff)
				}
			}
		})
	}
}

// alike is what is printed of a worker, without what must differ.
func (o *operator) alike(t *testing.T, w *side, line geleryLine, form string) []string {
	t.Helper()
	words := strings.Fields(strings.ReplaceAll(line.words, "QUEUE", w.queue))
	got := o.run(t, append(words, "--timeout", "30", "-d", w.node, "-o", form)...)
	if got.Code != line.code {
		t.Errorf("queue %s: gelery %s -o %s is %+v; expected exit code %d", w.queue, line.words, form, got, line.code)
	}
	if form == "json" && got.Code == 0 {
		if replies := jsonReplies(t, got.Said); len(replies) != 1 || slices.Collect(maps.Keys(replies))[0] != w.node {
			t.Errorf("queue %s: gelery %s says %s", w.queue, line.words, got.Said)
		}
	}
	only := ""
	if line.own {
		if !strings.Contains(got.Said, w.node) {
			t.Errorf("queue %s: gelery %s -o %s is %+v", w.queue, line.words, form, got)
		}
		only = "^gelery: "
	}
	return w.alikeText(got.Said+"\n"+got.Failed, only, "")
}

// both has gelery ask both workers at once, and some that are not there.
func (o *operator) both(t *testing.T) {
	nodes := o.python.node + "," + o.golang.node
	for words, want := range map[string]commanded{
		"status -o json":  {Said: `{"go@box":{"ok":"pong"},"py@box":{"ok":"pong"}}` + "\n"},
		"status":          {Said: "go@box\tOK\npy@box\tOK\n"},
		"status -o table": {Said: "NODE    STATUS\ngo@box  OK\npy@box  OK\n"},
		"control rate_limit no.such 1/s -o plain": {Failed: "gelery: go@box: unknown task\ngelery: py@box: unknown task\n"},
	} {
		if got := o.run(t, append(strings.Fields(words), "--timeout", "30", "-d", nodes)...); got != want {
			t.Errorf("gelery %s is %+v; expected %+v", words, got, want)
		}
	}
	for _, words := range []string{"status", "inspect ping", "inspect stats -o json", "control heartbeat", "graph workers"} {
		got := o.run(t, append(strings.Fields(words), "--timeout", "0.1", "-d", "nobody@box")...)
		if got.Code != 69 || got.Said != "" || !strings.Contains(got.Failed, "no nodes replied") {
			t.Errorf("gelery %s of nobody is %+v", words, got)
		}
	}
	graph := o.run(t, "graph", "workers", "--timeout", "30", "-d", nodes)
	for _, want := range []string{`label="go@box"`, `label="py@box"`, "worker0 -> broker", "worker1 -> backend", "worker1slot0 -> worker1"} {
		if graph.Code != 0 || !strings.Contains(graph.Said, want) {
			t.Errorf("gelery graph workers is %+v; expected %s in it", graph, want)
		}
	}
}

// events: a call at each worker, as it is shown.
func (o *operator) events(t *testing.T, events, dump *Process) {
	fields := map[bool]map[string][]string{}
	for _, w := range []*side{o.python, o.golang} {
		fields[w.golang] = map[string][]string{}
		r := send(t, w.client, "outcome.returns", []any{"é"}, task.Queue(w.queue))
		w.fate(t, r.ID())
		for _, kind := range []string{"received", "started", "succeeded"} {
			line := events.WaitFor(t, `"uuid": ?"`+r.ID()+`".*"type": ?"task-`+kind+`"`, patience)
			var e map[string]any
			if err := json.Unmarshal([]byte(line), &e); err != nil || e["hostname"] != w.node {
				t.Errorf("%s: %s: %v", w.node, line, err)
			}
			fields[w.golang][kind] = slices.Sorted(maps.Keys(e))
			dump.WaitFor(t, `\ttask-`+kind+`\t`+w.node+`\t`+r.ID(), patience)
		}
		events.WaitFor(t, `"hostname": ?"`+w.node+`".*"type": ?"worker-heartbeat"`, patience)
		dump.WaitFor(t, `\tworker-heartbeat\t`+w.node+`\t.*sw_ident=`, patience)
	}
	if diff := cmp.Diff(fields[false], fields[true]); diff != "" {
		t.Errorf("the events of Python (-) and Go (+) have other fields:\n%s", diff)
	}
	if got := o.run(t, "events", "--limit", "2", "--types", "worker-heartbeat", "--dump"); got.Code != 0 || strings.Count(got.Said, "\tworker-heartbeat\t") != 2 {
		t.Errorf("gelery events --limit 2 is %+v", got)
	}
}

// top: both workers and their tasks are in one picture.
func (o *operator) top(t *testing.T, top, table *Process) {
	line := top.WaitFor(t, `"hostname":"go@box","alive":true.*"hostname":"py@box","alive":true.*"uuid":"(go|py)-waiting".*"uuid":"(go|py)-waiting"`, patience)
	var picture struct {
		Totals  struct{ Workers, Alive int }
		Workers []struct {
			Hostname string
			Sw       string `json:"sw_ident"`
		}
	}
	if err := json.Unmarshal([]byte(line), &picture); err != nil || picture.Totals.Alive != 2 || len(picture.Workers) != 2 ||
		picture.Workers[0].Sw != "gelery" || picture.Workers[1].Sw != "py-celery" {
		t.Errorf("top shows %s, %v", line, err)
	}
	for _, want := range []string{`^workers 2 of 2 alive`, `^go@box +online .* gelery `, `^py@box +online .* py-celery `, `^outcome\.returns +`,
		` go-waiting +outcome\.returns +SUCCESS .*go@box`, ` py-waiting +outcome\.returns +SUCCESS .*py@box`} {
		table.WaitFor(t, want, patience)
	}
	if got := o.run(t, "top", "-n", "1", "--interval", "0.05"); got.Code != 0 || !strings.HasPrefix(got.Said, "workers ") {
		t.Errorf("gelery top -n 1 is %+v", got)
	}
}

// traces: gelery reads what workers and clients of both languages have left in the broker and the backend.
func (o *operator) traces(t *testing.T) {
	seen := map[bool]map[string][]string{}
	for _, w := range []*side{o.python, o.golang} {
		all := map[string][]string{}
		gelery := func(code int, only string, words ...string) string {
			got := o.run(t, words...)
			if got.Code != code {
				t.Errorf("queue %s: gelery %s is %+v; expected exit code %d", w.queue, strings.Join(words, " "), got, code)
			}
			name := ids.ReplaceAllString(strings.ReplaceAll(strings.Join(words, " "), w.queue, "QUEUE"), "ID")
			all[name] = w.alikeText(got.Said+"\n"+got.Failed, only, "")
			return strings.TrimSpace(got.Said)
		}
		good := gelery(0, "", "call", "outcome.returns", "-a", `["é"]`, "-q", w.queue)
		bad := gelery(0, "", "call", "outcome.fails", "-q", w.queue)
		gelery(0, "", "call", "outcome.returns", "-a", `[8]`, "-q", w.queue, "--wait", "-o", "json")
		gelery(0, "", "result", good)
		gelery(0, "", "result", good, "-o", "json")
		gelery(1, `^\w*Error`, "result", bad)
		gelery(0, `^\w*Error`, "result", bad, "--traceback", "--wait=false")

		aside := w.queue + "-aside"
		for range 2 { // by a client of the side's language
			if w.golang {
				send(t, w.client, "outcome.returns", []any{"e"}, task.Queue(aside))
			} else if a := o.driver.Do(t, Command{Op: "send", Task: "outcome.returns", Args: []any{"e"}, Options: map[string]any{"queue": aside}}); !a.OK {
				t.Fatal(a.Error)
			}
		}
		gelery(0, "", "queues", "-Q", aside, "-o", "json")
		gelery(0, "", "purge", "-Q", aside, "--force", "-o", "json")
		gelery(0, "", "purge", "-Q", aside, "--force")
		seen[w.golang] = all
	}
	if diff := cmp.Diff(seen[false], seen[true]); diff != "" {
		t.Errorf("gelery shows of what Python (-) and Go (+) have left:\n%s", diff)
	}
	words := []string{"list", "bindings"}
	if s := o.python.server; s != nil {
		words = append(words, "--transport-option", "management_url="+s.ManagementURL)
	}
	if got := o.run(t, words...); got.Code != 0 || !strings.Contains("\n"+got.Said, "\ngo\tgo\tgo\n") || !strings.Contains(got.Said, "\npy\tpy\tpy\n") ||
		!strings.Contains(got.Said, "py@box.celery.pidbox\tcelery.pidbox\t") {
		t.Errorf("gelery list bindings is %+v", got)
	}
	if got := o.run(t, "report", "-o", "json"); got.Code != 0 || !json.Valid([]byte(got.Said)) {
		t.Errorf("gelery report is %+v", got)
	}
}
