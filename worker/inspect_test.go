package worker

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// first is the only element of an answer that is a list of maps.
func (m *mailbox) first(method string, arguments map[string]any) map[string]any {
	m.Helper()
	list, _ := m.ask(method, arguments).([]any)
	if len(list) != 1 {
		m.Fatalf("%s is answered with %v; expected one task", method, list)
	}
	return list[0].(map[string]any)
}

func TestInspectTasks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	exhaust := s.limiting()
	began, release := make(chan struct{}, 9), make(chan struct{})
	s.mux.Func("seven", func(_ context.Context, _ int) error { began <- struct{}{}; <-release; return nil })
	s.start(Config{Concurrency: 1, Hostname: "w1@box"})
	exhaust()
	m := s.mailbox()
	runs := s.send("seven", 7)
	await(t, began, "the task")
	waits, limited := s.send("seven", 8), s.send("limited")
	s.eventually("both wait", func() bool {
		return len(s.worker.reserved.all()) == 1 && len(s.worker.Scheduled()) == 1
	})
	active := m.first("active", nil)
	if start, _ := active["time_start"].(float64); start < 1e9 {
		t.Errorf("time_start is %v", active["time_start"])
	}
	delete(active, "time_start")
	want := fmt.Sprintf("map[acknowledged:false args:[7] delivery_info:map[exchange: priority:0 redelivered:false routing_key:celery] hostname:w1@box "+
		"id:%s kwargs:map[] name:seven type:seven worker_pid:%d]", runs.ID(), os.Getpid())
	if got := fmt.Sprint(active); got != want {
		t.Errorf("active:\n%s\nexpected\n%s", got, want)
	}
	for _, method := range []string{"active", "dump_active"} {
		if got := m.first(method, map[string]any{"safe": true}); got["args"] != "(7,)" || got["kwargs"] != "{}" {
			t.Errorf("%s, safe: %v", method, got)
		}
	}
	for _, method := range []string{"reserved", "dump_reserved"} {
		got := m.first(method, nil)
		if got["id"] != waits.ID() || got["time_start"] != nil || got["worker_pid"] != nil || fmt.Sprint(got["args"]) != "[8]" {
			t.Errorf("%s: %v", method, got)
		}
	}
	for _, method := range []string{"scheduled", "dump_schedule"} {
		got := m.first(method, nil)
		request, _ := got["request"].(map[string]any)
		if request["id"] != limited.ID() || got["priority"] != int64(6) || !strings.HasSuffix(fmt.Sprint(got["eta"]), "+00:00") {
			t.Errorf("%s: %v", method, got)
		}
	}
	found, _ := m.ask("query_task", map[string]any{"ids": []any{runs.ID(), waits.ID(), limited.ID(), "unknown"}}).(map[string]any)
	for id, state := range map[string]string{runs.ID(): "active", waits.ID(): "reserved"} {
		if pair, _ := found[id].([]any); len(pair) != 2 || pair[0] != state {
			t.Errorf("query_task tells of %v; expected %s", pair, state)
		}
	}
	if len(found) != 2 {
		t.Errorf("query_task finds %v", found)
	}
	m.want("query_task", map[string]any{"ids": "unknown"}, "map[]")
	close(release)
	if _, err := waits.Get(s.context()); err != nil {
		t.Fatal(err)
	}
	s.eventually("nothing is left", func() bool { return len(s.worker.reserved.all()) == 0 && len(s.worker.active.all()) == 0 })
	m.want("active", nil, "[]")
	m.want("reserved", nil, "[]")
}

// The arguments that are shown are not those which the task's code may change at the same time.
func TestInspectWhileArgumentsChange(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	began, release := make(chan struct{}), make(chan struct{})
	Handle(s.mux, task.Define[task.Raw, task.NoResult]("changes"), func(_ context.Context, raw task.Raw) (r task.NoResult, err error) {
		close(began)
		for i := 0; ; i++ {
			select {
			case <-release:
				return r, nil
			default:
				raw.Kwargs[fmt.Sprint(i%10)] = i
				runtime.Gosched()
			}
		}
	})
	s.start(Config{Concurrency: 1})
	m := s.mailbox()
	s.sendWith("changes", task.ID(protocol.NewID()))
	await(t, began, "the task")
	for range 20 {
		if got := m.first("active", nil); fmt.Sprint(got["kwargs"]) != "map[]" {
			t.Fatalf("it shows %v", got["kwargs"])
		}
	}
	close(release)
}

func TestInspectWorker(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mux.Func("limited", func(context.Context) error { return nil }, task.RateLimit("10/m"), task.MaxRetries(7))
	s.mux.Func("celery.own", func(context.Context) error { return nil })
	s.start(Config{Concurrency: 3, Hostname: "w1@box", TrackStarted: true})
	m := s.mailbox()
	type args = map[string]any
	m.want("registered", nil, "[limited [rate_limit=10/m] tasks.add]")
	listed := fmt.Sprint(m.ask("dump_tasks", args{"builtins": true, "taskinfoitems": []any{"max_retries", "acks_late", "nosuch"}}))
	for _, want := range []string{"celery.own [max_retries=3 acks_late=True]", "limited [max_retries=7 acks_late=True]", "celery.map ["} {
		if !strings.Contains(listed, want) {
			t.Errorf("registered tasks are %s; expected %s among them", listed, want)
		}
	}
	m.ask("rate_limit", args{"task_name": "limited", "rate_limit": "5/s"})
	m.want("registered", args{"taskinfoitems": "rate_limit"}, "[limited [rate_limit=5/s] tasks.add]")
	m.want("revoked", nil, "[]")
	m.ask("revoke", args{"task_id": "b"})
	m.ask("revoke", args{"task_id": "a"})
	m.want("revoked", nil, "[b a]")
	m.want("dump_revoked", nil, "[b a]")
	m.want("hello", args{"from_node": "w1@box"}, "<nil>")
	hello, _ := m.ask("hello", args{"from_node": "w2@box", "revoked": args{"c": []any{1.5, "c"}}}).(args)
	theirs, _ := hello["revoked"].(args)
	if pair, _ := theirs["a"].([]any); len(theirs) != 3 || len(pair) != 2 || pair[1] != "a" {
		t.Errorf("hello is answered with %v", hello)
	} else if _, isFloat := pair[0].(float64); !isFloat {
		t.Errorf("the time of a revocation is %T", pair[0])
	}
	clock, _ := m.ask("clock", nil).(args)
	if n, _ := clock["clock"].(int64); n < 41 {
		t.Errorf("clock: %v", clock)
	}
	m.want("objgraph", nil, "map[error:ImportError('Requires the objgraph library')]")
	m.want("pool_restart", nil, "map[error:ValueError('Pool restarts not enabled')]")
	if text, _ := m.ask("memdump", args{"samples": 3}).(string); !strings.Contains(text, "heap: ") {
		t.Errorf("memdump: %q", text)
	}
	if got := m.ask("memsample", nil); runtime.GOOS == "linux" && !strings.HasSuffix(fmt.Sprint(got), "MB") {
		t.Errorf("memsample: %v", got)
	}
	stats, _ := m.ask("stats", nil).(args)
	pool, _ := stats["pool"].(args)
	if stats["pid"] != int64(os.Getpid()) || pool["max-concurrency"] != int64(3) || fmt.Sprint(pool["timeouts"]) != "[0 0]" || stats["prefetch_count"] != int64(12) {
		t.Errorf("stats: %v", stats)
	}
	for _, method := range []string{"conf", "dump_conf"} {
		conf, _ := m.ask(method, nil).(args)
		if conf["task_track_started"] != true || conf["task_serializer"] != nil || conf["enable_utc"] != true {
			t.Errorf("%s: %v", method, conf)
		}
	}
	all, _ := m.ask("conf", args{"with_defaults": true}).(args)
	if all["task_serializer"] != "json" || all["task_default_routing_key"] != hidden || all["task_track_started"] != true {
		t.Errorf("conf with defaults: %v", all)
	}
	report, _ := m.ask("report", nil).(args)
	if text, _ := report["ok"].(string); !strings.Contains(text, "software -> gelery:") || !strings.Contains(text, "task_track_started: True") {
		t.Errorf("report: %v", report)
	}
}

func TestConfHidesSecrets(t *testing.T) {
	t.Parallel()
	c := task.Config{Broker: "redis://u:hush@h:1/0;redis://:hush@h2", Backend: "redis://:hush@h/1",
		TransportOptions: map[string]any{"sentinel_kwargs": map[string]any{"password": "hush"}, "list": []any{"amqp://u:hush@h"}, "n": 7}}
	table := censored(settingsTable(c, Config{}))
	if text := fmt.Sprint(table); strings.Contains(text, "hush") || !strings.Contains(text, "redis://u:********@h:1/0") {
		t.Error(text)
	}
	options := table["broker_transport_options"].(map[string]any)
	if options["n"] != int64(7) || options["sentinel_kwargs"].(map[string]any)["password"] != hidden {
		t.Errorf("options are %v", options)
	}
}

// What one reply shows of arguments is bounded.
func TestInspectBounds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	began, release := make(chan struct{}, 9), make(chan struct{})
	s.mux.Func("long", func(_ context.Context, _ string) error { began <- struct{}{}; <-release; return nil })
	s.start(Config{Concurrency: 3})
	m := s.mailbox()
	long := strings.Repeat("x", maxArguments*2/3)
	for range 3 {
		s.send("long", long)
		await(t, began, "the task")
	}
	list, _ := m.ask("active", nil).([]any)
	whole, short := 0, 0
	for _, x := range list {
		switch args := x.(map[string]any)["args"].(type) {
		case []any:
			whole++
		case string:
			if short++; len(args) > longestText+3 {
				t.Errorf("a text of %d bytes", len(args))
			}
		}
	}
	if whole != 1 || short != 2 {
		t.Errorf("%d whole and %d short; expected 1 and 2", whole, short)
	}
	close(release)
}

// Whatever a request holds, it is answered, and the worker goes on.
func TestControlOddArguments(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{Concurrency: 2})
	m := s.mailbox()
	names := []string{"safe", "ids", "taskinfoitems", "builtins", "with_defaults", "from_node", "revoked", "samples", "num", "max_depth", "type",
		"task_id", "terminate", "signal", "headers", "task_name", "rate_limit", "hard", "soft", "queue", "exchange", "n", "max", "min"}
	odd := []any{nil, true, int64(7), int64(-1), 1.5, "x", "", strings.Repeat("y", 5000), []any{}, []any{int64(7), nil, []any{}},
		map[string]any{}, map[string]any{"a": []any{"b", nil}}}
	for method := range controlCommands {
		if method == "shutdown" {
			continue
		}
		for _, v := range odd {
			arguments := map[string]any{}
			for _, name := range names {
				arguments[name] = v
			}
			m.broadcast(m.request(method, arguments))
			m.answer()
		}
	}
	if _, err := s.send("tasks.add", 1, 2).Get(s.context()); err != nil {
		t.Error(err)
	}
}

func TestReserved(t *testing.T) {
	t.Parallel()
	var r reserved
	jobs := make([]*job, 5)
	want := []*job{}
	check := func() {
		t.Helper()
		if got := r.all(); !slices.Equal(got, want) {
			t.Errorf("it has %d jobs; expected %d", len(got), len(want))
		}
	}
	for i := range jobs {
		jobs[i] = &job{}
		r.add(jobs[i])
		want = append(want, jobs[i])
	}
	check()
	for _, i := range []int{2, 0, 4, 4, 3, 1} {
		r.remove(jobs[i])
		want = slices.DeleteFunc(want, func(j *job) bool { return j == jobs[i] })
		check()
	}
	r.add(jobs[3])
	want = []*job{jobs[3]}
	check()
}
