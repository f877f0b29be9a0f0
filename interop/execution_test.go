package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// fates puts a Python and a Go worker, started alike, through the same.
type fates struct {
	Crossing
	python, golang *side
	driver         *Driver
}

// TestFates compares what becomes of tasks that do not run, or not again, what a running task sees of its call, and how much a
// worker takes.
func TestFates(t *testing.T) {
	t.Parallel()
	forOldestAndNewest(t, []Stack{RedisStack, RabbitMQStack}, func(t *testing.T, c Crossing) {
		conf := map[string]any{"worker_deduplicate_successful_tasks": true, "worker_direct": true}
		python, golang := c.both(t, conf, shape{pool: "threads", concurrency: 1, queues: "QUEUE,aside-QUEUE", args: []string{"-X", "aside-QUEUE,nobody"}})
		f := &fates{Crossing: c.To(GoToPython), python: python, golang: golang}
		f.driver = c.StartDriver(t, python.Settings)
		f.cell(t, "prefetch", "held: 4", prefetch)
		f.cell(t, "unregistered task", "FAILURE celery.exceptions.NotRegistered('no.such')", unregistered)
		f.cell(t, "a message that is no task", "gone", noTask)
		if c.Broker == "redis" { // RabbitMQ drops it
			f.cell(t, "expired before its start", "REVOKED celery.exceptions.TaskRevokedError('expired'), 0 runs", expired())
			f.cell(t, "succeeded before", "SUCCESS None, 1 runs", succeededBefore)
		}
		f.cell(t, "expired before its eta", "REVOKED celery.exceptions.TaskRevokedError('expired'), 0 runs", expired(task.Countdown(time.Second)))
		f.cell(t, "revoked before its start", "REVOKED celery.exceptions.TaskRevokedError('revoked'), 0 runs", revokedBefore)
		f.cell(t, "a queue left out", "left: 1", leftOut)
		f.cell(t, "worker_direct", "SUCCESS None", direct)
		f.cell(t, "lines of the log", "as Celery's", logLines)
		f.Cell(t, "task.request", f.request)
	})
}

// both starts a Python and a Go worker on the same servers.
func (c Crossing) both(t *testing.T, conf map[string]any, k shape) (python, golang *side) {
	t.Helper()
	s, server := c.open(t, conf)
	python, golang = c.start(t, false, s, server, k), c.start(t, true, s, server, k)
	python.ready(t)
	golang.ready(t)
	return python, golang
}

// cell runs one of the scripts on both sides and compares what comes of it.
func (f *fates) cell(t *testing.T, name, want string, script func(*testing.T, *side, *Driver) string) {
	t.Helper()
	f.Cell(t, name, func(t *testing.T) {
		for _, w := range []*side{f.python, f.golang} {
			if got := script(t, w, f.driver); got != want {
				t.Errorf("queue %s: %s; expected %s", w.queue, got, want)
			}
		}
	})
}

// fate waits for the end of a task and tells it.
func (w *side) fate(t *testing.T, id string) string {
	t.Helper()
	var last *protocol.ResultMeta
	for m, err := range w.client.Backend().Watch(within(t), id) {
		if err != nil {
			t.Fatal(err)
		}
		last = m
	}
	if last.Exception != nil {
		return fmt.Sprint(last.Status, " ", last.Exception.Module, ".", last.Exception.String())
	}
	return fmt.Sprint(last.Status, " ", map[bool]any{true: "None", false: last.Result}[last.Result == nil])
}

// says waits for a line.
func (w *side) says(t *testing.T, expr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := w.Output.waitFor(ctx, regexp.MustCompile(expr)); err != nil {
		t.Errorf("queue %s: no line like %q: %v", w.queue, expr, err)
	}
}

// only is a text of one side: what the Go worker says beside Celery's words.
func (w *side) only(golang string) string {
	if w.golang {
		return golang
	}
	return ""
}

// prefetch: with one slot and a multiplier of four a worker holds three messages beside the running one.
func prefetch(t *testing.T, w *side, _ *Driver) string {
	const sent = 7
	g := newGate(t)
	var all []*task.Result[any]
	for range sent {
		all = append(all, send(t, w.client, "exec.waits", []any{string(g)}))
	}
	g.await(t, 1)
	eventually(t, "it has taken what it takes", func() bool { _, held := w.depth(t, w.queue); return held >= 4 })
	<-time.After(100 * time.Millisecond) // one more would come now
	ready, held := w.depth(t, w.queue)
	if ready+held != sent {
		t.Errorf("%d wait and %d are held of %d", ready, held, sent)
	}
	g.open(t)
	wantAll(t, all)
	return fmt.Sprint("held: ", held)
}

// unregistered: both fail the task and say so. Gelery keeps the message.
func unregistered(t *testing.T, w *side, _ *Driver) string {
	before := w.depths(t, w.queue).Quarantined
	r := send(t, w.client, "no.such", nil)
	got := w.fate(t, r.ID())
	w.says(t, `ERROR/MainProcess\] Received unregistered task of type 'no\.such'\.`+w.only(` Its message is quarantined`))
	w.quarantined(t, before)
	return got
}

// quarantined waits until a Go worker has put one more message aside. A Python worker has nothing of the kind.
func (w *side) quarantined(t *testing.T, before int64) {
	t.Helper()
	if w.golang {
		eventually(t, "it is set aside", func() bool { return w.depths(t, w.queue).Quarantined == before+1 })
	}
}

// noTask: a message that names no task is gone from the queue, and the worker goes on.
func noTask(t *testing.T, w *side, _ *Driver) string {
	before := w.depths(t, w.queue).Quarantined
	if w.server != nil {
		w.server.Put(w.queue, []byte(`[1, 2]`))
	} else {
		raw := `{"body": "WzEsIDJd", "content-type": "application/json", "content-encoding": "utf-8", "headers": {}, "properties": {"delivery_tag": "` +
			w.queue + `-none", "body_encoding": "base64", "delivery_info": {"exchange": "", "routing_key": "` + w.queue + `"}}}`
		if err := redisClient(t, w.Broker).LPush(t.Context(), w.queue, raw).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if w.golang {
		w.says(t, `quarantined`)
	} else {
		w.says(t, `Received and deleted unknown message`)
	}
	w.quarantined(t, before)
	wantResult(t, w.client, "outcome.returns", []any{1}, int64(1))
	eventually(t, "nothing is left", func() bool { ready, held := w.depth(t, w.queue); return ready+held == 0 })
	return "gone"
}

// expired: a task whose time is over when its turn comes, at once or when its eta comes.
func expired(opts ...task.SendOption) func(*testing.T, *side, *Driver) string {
	return func(t *testing.T, w *side, _ *Driver) string {
		until := time.Unix(1, 0)
		if len(opts) > 0 {
			until = time.Now().Add(700 * time.Millisecond)
		}
		g := newGate(t)
		r := send(t, w.client, "exec.waits", []any{string(g)}, append(opts, task.ExpiresAt(until))...)
		return w.discarded(t, g, r.ID())
	}
}

// discarded waits for the end of a task that must not run.
func (w *side) discarded(t *testing.T, g gate, id string) string {
	t.Helper()
	got := w.fate(t, id)
	w.says(t, `INFO/MainProcess\] Discarding revoked task: exec\.waits\[`+id+`\]$`)
	return fmt.Sprintf("%s, %d runs", got, len(g.runs(t)))
}

// revokedBefore: the worker hears of it before the task comes.
func revokedBefore(t *testing.T, w *side, d *Driver) string {
	g, id := newGate(t), protocol.NewID()
	d.Do(t, Command{Op: "control", Task: "revoke", Kwargs: map[string]any{"task_id": id}, Timeout: 30,
		Options: map[string]any{"destination": []string{w.node}, "limit": 1}})
	w.says(t, `flagged as revoked: `+id)
	send(t, w.client, "exec.waits", []any{string(g)}, task.ID(id))
	return w.discarded(t, g, id)
}

// succeededBefore: the message of a task whose SUCCESS is stored comes again.
func succeededBefore(t *testing.T, w *side, _ *Driver) string {
	g, rdb := newGate(t), redisClient(t, w.Broker)
	g.open(t)
	r := send(t, w.client, "exec.waits", []any{string(g)}, task.Queue("once-"+w.queue))
	raw, err := rdb.RPop(t.Context(), "once-"+w.queue).Result()
	if err != nil {
		t.Fatal(err)
	}
	push := func(raw string) {
		if err := rdb.LPush(t.Context(), w.queue, raw).Err(); err != nil {
			t.Fatal(err)
		}
	}
	push(raw)
	w.fate(t, r.ID())
	eventually(t, "it is acknowledged", func() bool { _, held := w.depth(t, w.queue); return held == 0 })
	var m map[string]any
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		t.Fatal(err)
	}
	m["headers"].(map[string]any)["redelivered"] = true // as kombu and Gelery mark what they restore
	m["properties"].(map[string]any)["delivery_info"].(map[string]any)["redelivered"] = true
	again, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	push(string(again))
	wantResult(t, w.client, "outcome.returns", []any{1}, int64(1)) // which comes behind it
	if w.golang {                                                  // a Python worker says so of what another one has run
		w.says(t, `Task exec\.waits\[`+r.ID()+`\] Task already completed successfully\.`)
	}
	meta, err := w.client.Backend().Get(within(t), r.ID())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s None, %d runs", meta.Status, len(g.runs(t)))
}

// leftOut: -X takes a queue out of -Q, and does not mind one that is not there.
func leftOut(t *testing.T, w *side, _ *Driver) string {
	queue := "aside-" + w.queue
	send(t, w.client, "exec.says", []any{"nothing"}, task.Queue(queue))
	wantResult(t, w.client, "outcome.returns", []any{1}, int64(1))
	ready, held := w.depth(t, queue)
	if held != 0 {
		t.Errorf("%d are held", held)
	}
	return fmt.Sprint("left: ", ready)
}

// direct: a message that Python sends to the node itself arrives.
func direct(t *testing.T, w *side, d *Driver) string {
	sent := d.Do(t, Command{Op: "send", Task: "exec.says", Args: []any{"hello"}, Options: map[string]any{"exchange": "C.dq2", "routing_key": w.node}})
	if !sent.OK {
		t.Fatal(sent.Error)
	}
	got := w.fate(t, sent.ID)
	name := w.node + ".dq2"
	if w.server == nil {
		bound := redisClient(t, w.Broker).SMembers(t.Context(), "_kombu.binding.C.dq2").Val()
		if want := w.node + "\x06\x16\x06\x16" + name; !strings.Contains(strings.Join(bound, "\n"), want) {
			t.Errorf("bound are %q; expected %q", bound, want)
		}
		return got
	}
	var q struct {
		Durable    bool           `json:"durable"`
		AutoDelete bool           `json:"auto_delete"`
		Exclusive  bool           `json:"exclusive"`
		Arguments  map[string]any `json:"arguments"`
	}
	described := w.server.Manage("GET", "/api/queues/"+url.PathEscape(w.server.Vhost)+"/"+url.PathEscape(name), "")
	if err := json.Unmarshal(described, &q); err != nil || !q.Durable || q.AutoDelete || q.Exclusive || len(q.Arguments) != 0 && fmt.Sprint(q.Arguments) != "map[x-queue-type:classic]" {
		t.Errorf("the queue is %s, %v", described, err)
	}
	return got
}

// logLines: the lines of a task, and those that it writes itself, have Celery's form to the letter.
func logLines(t *testing.T, w *side, _ *Driver) string {
	r := send(t, w.client, "exec.says", []any{"ä b"})
	w.fate(t, r.ID())
	head := `^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: INFO/MainProcess\] `
	w.says(t, head+`Task exec\.says\[`+r.ID()+`\] received$`)
	w.says(t, head+`exec\.says\[`+r.ID()+`\]: says ä b$`)
	w.says(t, head+`Task exec\.says\[`+r.ID()+`\] succeeded in \d[\d.e-]*s: None$`)
	return "as Celery's"
}

// request: a task of either side sees the same of the same call, whoever sends it.
func (f *fates) request(t *testing.T) {
	calls := map[string]Command{
		"plain": {},
		"full": {Options: map[string]any{"priority": 3, "shadow": "sh", "time_limit": 50, "soft_time_limit": 40, "root_id": "root", "parent_id": "parent",
			"group_id": "group", "group_index": 2, "expires": 3600, "countdown": 0.1, "headers": map[string]any{"tenant": map[string]any{"a": 1}}}},
	}
	if f.AtLeast("5.3") {
		calls["stamped"] = Command{Options: map[string]any{"stamped_headers": []string{"stamp"}, "stamp": "one"}}
	}
	for name, call := range calls {
		seen := map[bool]map[string]any{}
		for _, w := range []*side{f.python, f.golang} {
			options := map[string]any{"queue": w.queue}
			for k, v := range call.Options {
				options[k] = v
			}
			sent := f.driver.Do(t, Command{Op: "send", Task: "exec.request", Args: []any{1, "é", nil}, Kwargs: map[string]any{"k": 2.5}, Options: options})
			if !sent.OK {
				t.Fatalf("%s: %s %s", name, sent.Kind, sent.Error)
			}
			got, err := w.client.Result(sent.ID).Get(within(t))
			if err != nil {
				t.Fatalf("%s, queue %s: %v", name, w.queue, err)
			}
			seen[w.golang] = w.alike(t, sent.ID, got.(map[string]any))
		}
		if diff := cmp.Diff(seen[false], seen[true]); diff != "" {
			t.Errorf("%s: Python (-) and Go (+) see different things:\n%s", name, diff)
		}
	}
}

// alike takes out of what a task has seen what must differ: names of this call and of this side, and instants.
func (w *side) alike(t *testing.T, id string, seen map[string]any) map[string]any {
	t.Helper()
	for name, v := range seen {
		switch {
		case v == id:
			seen[name] = "ID"
		case name == "routing_key" && v == w.queue:
			seen[name] = "QUEUE"
		case v == w.node:
			seen[name] = "NODE"
		}
	}
	for _, name := range []string{"eta", "expires"} {
		text, ok := seen[name].(string)
		if !ok {
			continue
		}
		at, err := protocol.ParseTime(text)
		if err != nil {
			t.Errorf("%s %q: %v", name, text, err)
		}
		seen[name] = map[string]bool{"near": time.Until(at).Abs() < time.Hour+time.Minute}
	}
	return seen
}

// TestPrefetchDisabled: --disable-prefetch, which Celery has on Redis alone, and from 5.6 on.
func TestPrefetchDisabled(t *testing.T) {
	t.Parallel()
	k := shape{pool: "threads", concurrency: 1, args: []string{"--disable-prefetch"}}
	c := Crossing{Version: FindVersion(t, versions[len(versions)-1]), Stack: RedisStack}
	python, golang := c.both(t, nil, k)
	c.Stack = RabbitMQStack
	s, server := c.open(t, nil)
	rabbit := c.start(t, true, s, server, k)
	rabbit.ready(t)
	for _, w := range []*side{python, golang, rabbit} {
		w.Cell(t, "prefetch disabled on "+w.Stack.Broker, func(t *testing.T) {
			g := newGate(t)
			var all []*task.Result[any]
			for range 4 {
				all = append(all, send(t, w.client, "exec.waits", []any{string(g)}))
			}
			g.await(t, 1)
			<-time.After(100 * time.Millisecond) // one more would come now
			if ready, held := w.depth(t, w.queue); ready != 3 || held != 1 {
				t.Errorf("queue %s: %d wait, %d are held; expected 3 and 1", w.queue, ready, held)
			}
			g.open(t)
			wantAll(t, all)
		})
	}
}

// TestAutoscale: with --autoscale as many tasks run at once as there may be processes, however few there were.
func TestAutoscale(t *testing.T) {
	t.Parallel()
	forOldestAndNewest(t, []Stack{RedisStack}, func(t *testing.T, c Crossing) {
		python, golang := c.both(t, nil, shape{pool: "prefork", concurrency: 1, args: []string{"--autoscale=3,1"}})
		for _, w := range []*side{python, golang} {
			w.Cell(t, "autoscale", func(t *testing.T) {
				g := newGate(t)
				var all []*task.Result[any]
				for range 5 {
					all = append(all, send(t, w.client, "exec.waits", []any{string(g)}))
				}
				g.await(t, 3)
				g.open(t)
				wantAll(t, all)
			})
		}
	})
}

// TestLostProcesses: the process of a running task goes away, or is killed at a time limit.
func TestLostProcesses(t *testing.T) {
	t.Parallel()
	forOldestAndNewest(t, []Stack{RedisStack}, func(t *testing.T, c Crossing) {
		python, golang := c.both(t, nil, shape{pool: "prefork", concurrency: 1})
		f := &fates{Crossing: c.To(GoToPython), python: python, golang: golang}
		f.cell(t, "process lost", "FAILURE billiard.exceptions.WorkerLostError, acknowledged", func(t *testing.T, w *side, _ *Driver) string {
			r := send(t, w.client, "exec.dies", nil)
			got := w.fate(t, r.ID())
			name, text, _ := strings.Cut(got, "(")
			if !strings.Contains(text, "Worker exited prematurely: exitcode 3 ") {
				t.Errorf("queue %s: the text is %s", w.queue, text)
			}
			eventually(t, "it is acknowledged", func() bool { ready, held := w.depth(t, w.queue); return ready+held == 0 })
			return name + ", acknowledged"
		})
		f.cell(t, "process lost, task rejected", "SUCCESS again", func(t *testing.T, w *side, _ *Driver) string {
			return w.fate(t, send(t, w.client, "exec.dies_once", nil).ID())
		})
		for _, o := range []outcome{
			{name: "soft", want: "FAILURE", own: true, log: `raised unexpected: SoftTimeLimitExceeded\(`},
			{name: "hard", want: "FAILURE"},
		} {
			f.Cell(t, "in processes, "+o.name, func(t *testing.T) {
				said := python.Process
				if !c.AtLeast("5.3") {
					said = nil // as in TestOutcomes
				}
				o.compare(t, golang.client, said, golang.Output)
			})
		}
		for _, w := range []*side{python, golang} {
			for _, limit := range []string{"Soft", "Hard"} {
				w.says(t, limit+` time limit \(1(\.0)?s\) exceeded for outcome\.`+strings.ToLower(limit)+`\[`)
			}
		}
	})
}

// TestNodeNames has Celery expand the forms of -n.
func TestNodeNames(t *testing.T) {
	t.Parallel()
	c := Crossing{Version: FindVersion(t, versions[len(versions)-1]), Stack: RedisStack}
	forms := []string{"", "w1@%h", "w1", "@foo", "%n", "%h", "w1@%n", "w1@%d.x", "w1@"}
	text, err := json.Marshal(forms)
	if err != nil {
		t.Fatal(err)
	}
	const script = "import json, sys\nfrom celery.utils.nodenames import default_nodename, host_format\n" +
		"print(json.dumps([host_format(default_nodename(n)) for n in json.loads(sys.argv[1])]))"
	out, err := c.Command(t, Settings{}, "python", "-c", script, string(text)).Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	for i, form := range forms {
		c.To(GoToPython).Cell(t, "node name "+form, func(t *testing.T) {
			got, err := worker.NodeName(form)
			if err != nil || got != want[i] {
				t.Errorf("-n %q is %q, %v; with Celery it is %q", form, got, err, want[i])
			}
		})
	}
}
