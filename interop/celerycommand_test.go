package interop

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/task"
)

// commanded is what came of a celery command.
type commanded struct {
	Code         int
	Said, Failed string // standard output and standard error
}

// startCelery starts a driver that also runs the celery command.
func (c Crossing) startCelery(t *testing.T, s Settings) *Driver {
	t.Helper()
	return c.startDriver(t, c.Command(t, s, "python", "commands.py"))
}

// command runs celery -A app with these words more.
func (f *fates) command(t *testing.T, words ...string) (got commanded) {
	t.Helper()
	a := f.driver.Do(t, Command{Op: "celery", Args: anyList(append([]string{"-A", "app"}, words...)), Timeout: patience.Seconds()})
	if err := json.Unmarshal(a.Value, &got); err != nil || !a.OK {
		t.Fatalf("celery %s: %s %s %v", strings.Join(words, " "), a.Error, a.Value, err)
	}
	return got
}

// celeryLine is a command that is given to a Python and to a Go worker, one after the other. The exit codes and what is printed
// are the same, but for names and numbers.
type celeryLine struct {
	words  string // QUEUE stands for the side's own queue
	code   int
	only   string // what the lines look like that are compared; "": all
	except string // and those that are not; "": none
	since  string // the version that has the command first; "": all have it
}

// celeryLines are all commands of celery inspect and control, and status, given while a task runs and others wait for the only slot
// and for their eta. TestControlAlike compares the answers whole; of long ones only what is printed around them is looked at here.
var celeryLines = []celeryLine{
	{words: "status"},
	{words: "inspect ping"},
	{words: "inspect active"},
	{words: "inspect reserved"},
	{words: "inspect scheduled"},
	{words: "inspect query_task QUEUE-running QUEUE-waiting"},
	{words: "inspect query_task no-such"},
	{words: "inspect active_queues"},
	{words: "inspect clock"},
	{words: "inspect conf", only: `->|online|"deprecated_settings"`},
	{words: "inspect conf yes", only: `->|online|"(task_serializer|worker_send_task_events|result_extended)"`},
	{words: "inspect memdump", only: `->|online`},
	{words: "inspect memsample", only: `->|online`},
	{words: "inspect objgraph"},
	{words: "control rate_limit outcome.fails 10/m"},
	{words: "inspect registered", only: `->|online|  \* (exec|outcome)`},
	{words: "inspect registered max_retries rate_limit", only: `->|online|  \* (exec|outcome)`},
	{words: "inspect report", only: `->  |online|settings -> `},
	{words: "inspect revoked"},
	{words: "inspect stats", only: `->|online|"(hostname|max-concurrency|processes|prefetch_count|maxrss|outcome.*)"`},
	{words: "inspect nosuchcommand", code: 2},
	{words: "control add_consumer QUEUE-more"},
	{words: "control add_consumer QUEUE-topic ex topic key.#"},
	{words: "control add_consumer"},
	{words: "control cancel_consumer QUEUE-more"},
	{words: "control cancel_consumer QUEUE-topic"},
	{words: "control cancel_consumer no-such"},
	{words: "control autoscale 3 1"},
	{words: "control election"},
	{words: "control enable_events"},
	{words: "control enable_events"},
	{words: "control disable_events"},
	{words: "control disable_events"},
	{words: "control heartbeat"},
	{words: "control pool_restart"},
	{words: "control rate_limit outcome.fails 0"},
	{words: "control rate_limit no.such 10/m"},
	{words: "control rate_limit outcome.fails"},
	{words: "control time_limit outcome.fails 300 600"},
	{words: "control time_limit no.such 300"},
	{words: "control revoke revoked-two", since: "5.3"},
	{words: "control revoke revoked-two", except: "flagged as revoked"},
	{words: "control revoke", since: "5.3"},
	{words: "control terminate SIGKILL revoked-two revoked-three"},
	{words: "control terminate"},
	{words: "control revoke_by_stamped_headers tenant=b", since: "5.3"},
	{words: "control revoke_by_stamped_headers tenant", since: "5.3"},
}

// celeryLinesAtRest are given when no task runs.
var celeryLinesAtRest = []celeryLine{
	{words: "control pool_grow 1"},
	{words: "control pool_shrink 1"},
	{words: "control pool_grow"},
	{words: "control pool_shrink"},
	{words: "control pool_shrink x", code: 1, only: "ValueError"},
	{words: "inspect active"},
	{words: "inspect reserved"},
}

// celery gives the lines of a table to both workers.
func (f *fates) celery(t *testing.T, lines []celeryLine) {
	t.Helper()
	for i, line := range lines {
		if !f.AtLeast(line.since) {
			continue
		}
		f.Cell(t, fmt.Sprintf("celery %d, %s", i, line.words), func(t *testing.T) {
			python, golang := f.alikeLines(t, f.python, line), f.alikeLines(t, f.golang, line)
			if diff := cmp.Diff(python, golang); diff != "" {
				t.Errorf("celery %s: Python's worker (-) and Go's (+) differ:\n%s", line.words, diff)
			}
		})
	}
}

// oldRedelivered is for Celery 5.2, which does not know on Redis.
var oldRedelivered = strings.NewReplacer("'redelivered': None", "'redelivered': False", `"redelivered": null`, `"redelivered": false`,
	`"redelivered":null`, `"redelivered":false`, "redelivered: null", "redelivered: false")

// What differs from run to run.
var (
	numerals = regexp.MustCompile(`\d+(\.\d+)?`)
	ids      = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
)

// alikeLines are the lines printed of a worker, without what must differ.
func (f *fates) alikeLines(t *testing.T, w *side, line celeryLine) (all []string) {
	t.Helper()
	words := append(strings.Fields(strings.ReplaceAll(line.words, "QUEUE", w.queue)), "--timeout", "30", "-d", w.node)
	got := f.command(t, words...)
	if got.Code != line.code {
		t.Errorf("queue %s: celery %s exits with %d and says %s %s; expected %d", w.queue, line.words, got.Code, got.Said, got.Failed, line.code)
	}
	return w.alikeText(got.Said+"\n"+got.Failed, line.only, line.except)
}

// alikeText are the lines of a text that are to be compared.
func (w *side) alikeText(text, onlyExpr, exceptExpr string) (all []string) {
	own := regexp.MustCompile(`\b` + w.queue + `\b`)
	only, except := regexp.MustCompile(onlyExpr), regexp.MustCompile(exceptExpr)
	for line := range strings.Lines(ids.ReplaceAllString(text, "ID")) {
		line = numerals.ReplaceAllString(own.ReplaceAllString(strings.ReplaceAll(strings.TrimRight(line, " \n"), w.node, "NODE"), "QUEUE"), "N")
		if !only.MatchString(line) || exceptExpr != "" && except.MatchString(line) {
			continue
		}
		line = oldRedelivered.Replace(line)
		if item := strings.TrimSpace(line); strings.HasPrefix(item, "* {") || strings.HasPrefix(item, "{'") { // Go's members are sorted
			members := strings.FieldsFunc(item, func(r rune) bool { return strings.ContainsRune(" *{}[],", r) })
			slices.Sort(members)
			line = strings.Join(members, " ")
		}
		all = append(all, line)
	}
	return all
}

// celeryOfBoth has celery ask both workers at once.
func (f *fates) celeryOfBoth(t *testing.T) {
	nodes := f.python.node + "," + f.golang.node
	for words, differs := range map[string][]string{
		"inspect reserved --json":                      {"5.2 redis| [0].delivery_info.redelivered: null / false"},
		"inspect ping --json":                          nil,
		"control rate_limit outcome.fails 10/m --json": nil,
	} {
		q := &inquiry{method: "celery " + words, differs: differs}
		got := f.command(t, append(strings.Fields(words), "--timeout", "30", "-d", nodes)...)
		if got.Code != 0 {
			t.Errorf("celery %s exits with %d and says %s", words, got.Code, got.Failed)
			continue
		}
		replies := jsonReplies(t, got.Said)
		if len(replies) != 2 {
			t.Errorf("celery %s says %s", words, got.Said)
			continue
		}
		q.judge(t, f, q.fields(f.python, replies), q.fields(f.golang, replies))
	}
	got := f.command(t, "status", "--timeout", "30", "-d", nodes)
	if want := "\n2 nodes online.\n"; got.Code != 0 || !strings.HasSuffix(got.Said, want) || strings.Count(got.Said, "@box: OK\n") != 2 {
		t.Errorf("celery status is %+v", got)
	}
}

// jsonReplies are replies by node: inspect prints a map, control a list of maps.
func jsonReplies(t *testing.T, text string) map[string]any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	all, single := v.(map[string]any)
	if single {
		return all
	}
	all = map[string]any{}
	for _, x := range v.([]any) {
		maps.Copy(all, x.(map[string]any))
	}
	return all
}

// celeryOfTraces has celery read what workers and clients of both languages have left in the broker and the backend. What it shows
// is alike.
//
// Left out are the commands that read nothing of the kind: beat, graph bootsteps, logtool (which cannot read Celery's own log either),
// migrate (which reads messages as amqp basic.get does), multi, report, shell, upgrade, worker; list bindings on RabbitMQ, which needs the library pyrabbit. TestEventsDump has events --dump.
func (f *fates) celeryOfTraces(t *testing.T) {
	seen := map[bool]map[string][]string{}
	for _, w := range []*side{f.python, f.golang} {
		all := map[string][]string{}
		celery := func(code int, only string, words ...string) string {
			got := f.command(t, words...)
			if got.Code != code {
				t.Errorf("queue %s: celery %s is %+v; expected exit code %d", w.queue, strings.Join(words, " "), got, code)
			}
			name := ids.ReplaceAllString(strings.ReplaceAll(strings.Join(words, " "), w.queue, "QUEUE"), "ID")
			all[name] = append(all[name], w.alikeText(got.Said+"\n"+got.Failed, only, "")...)
			return strings.TrimSpace(got.Said)
		}
		good, bad := celery(0, "", "call", "outcome.returns", "-a", `["é"]`, "--queue", w.queue), celery(0, "", "call", "outcome.fails", "--queue", w.queue)
		for _, id := range []string{good, bad} {
			w.fate(t, id)
		}
		celery(0, "", "result", good)
		celery(1, "^ValueError", "result", bad)
		celery(0, "^(Trace|ValueError)", "result", "--traceback", bad)

		aside := w.queue + "-aside"
		for range 2 { // by a client of the side's language
			if w.golang {
				send(t, w.client, "outcome.returns", []any{"e"}, task.Queue(aside))
			} else {
				f.command(t, "call", "outcome.returns", "-a", `["e"]`, "--queue", aside)
			}
		}
		celery(0, `OK|'(body|id|task|routing_key|content_type)'`, "amqp", "basic.get", aside)
		celery(0, "", "purge", "-f", "-Q", aside)
		seen[w.golang] = all
	}
	if diff := cmp.Diff(seen[false], seen[true]); diff != "" {
		t.Errorf("celery shows of what Python (-) and Go (+) have left:\n%s", diff)
	}
	eventually(t, "celery graph workers shows both", func() bool { // it waits a second for replies
		got := f.command(t, "graph", "workers")
		return got.Code == 0 && strings.Contains(got.Said, `-> "`+f.python.node+`"`) && strings.Contains(got.Said, `-> "`+f.golang.node+`"`)
	})
	if got := f.command(t, "list", "bindings"); f.Broker == "redis" && (got.Code != 0 || !strings.Contains(got.Said, "\npy   ")) {
		t.Errorf("celery list bindings is %+v", got)
	}
}
