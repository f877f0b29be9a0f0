package worker

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// scrape asks the worker for its metrics: the samples by their names and labels.
func (s *site) scrape() map[string]string {
	s.Helper()
	r, err := http.NewRequestWithContext(s.context(), http.MethodGet, "http://"+s.worker.health.server.Addr()+"/metrics", nil)
	if err != nil {
		s.Fatal(err)
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		s.Fatal(err)
	}
	samples := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && !strings.HasPrefix(line, "#") {
			samples[name+"}"] = value
		}
	}
	return samples
}

// scrapes waits until the worker's metrics have all the samples.
func (s *site) scrapes(want map[string]string) {
	s.Helper()
	var got map[string]string
	for deadline := time.After(30 * time.Second); ; {
		got = s.scrape()
		missing := ""
		for name, value := range want {
			if got[name] != value {
				missing = name + " " + value
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			s.Fatalf("the metrics have no %s: %v", missing, got)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mux.Func("fails", func(context.Context) error { return task.AsPython(errors.New("kaput"), "builtins", "ValueError") })
	s.mux.Func("rejects", func(context.Context) error { return task.Reject(errors.New("not mine"), false) })
	s.mux.Func("retries", func(ctx context.Context) error {
		if info, _ := task.FromContext(ctx); info.Retries == 0 {
			return task.Retry(errors.New("later"), task.Countdown(0))
		}
		return nil
	})
	s.start(Config{HealthAddr: "0", Concurrency: 2, Hostname: "w1@box"})
	sum := s.send("tasks.add", 1, 2)
	s.scrapes(map[string]string{`celery_task_succeeded_total{name="tasks.add",hostname="box",queue_name="celery"}`: "1.0"})
	for _, name := range []string{"fails", "fails", "rejects", "retries", "unknown"} {
		s.send(name)
	}
	expired, err := s.client.Send(s.context(), "tasks.add", []any{1, 2}, nil, task.ExpiresAt(time.Now().Add(-time.Second)))
	if err != nil {
		t.Fatal(err)
	}
	of := func(counter, name string) string {
		return `celery_task_` + counter + `_total{name="` + name + `",hostname="box",queue_name="celery"}`
	}
	failed := func(name, exception string) string {
		return `celery_task_failed_total{name="` + name + `",hostname="box",exception="` + exception + `",queue_name="celery"}`
	}
	sent := `celery_task_sent_total{name="tasks.add",hostname="` + hostOf(s.client.Config().Origin) + `",queue_name="celery"}`
	s.scrapes(map[string]string{
		sent:                        "2.0",
		of("received", "tasks.add"): "1.0", // what has expired is not told of as received either
		of("started", "tasks.add"):  "1.0", of("revoked", "tasks.add"): "1.0", of("retried", "tasks.add"): "0.0",
		failed("fails", "ValueError"): "2.0", failed("fails", ""): "0.0", of("succeeded", "fails"): "0.0",
		of("rejected", "rejects"): "1.0", failed("unknown", "NotRegistered"): "1.0",
		of("received", "retries"): "2.0", of("retried", "retries"): "1.0", of("succeeded", "retries"): "1.0",
		`celery_task_runtime_count{name="tasks.add",hostname="box",queue_name="celery"}`:            "1.0",
		`celery_task_runtime_bucket{name="tasks.add",hostname="box",queue_name="celery",le="+Inf"}`: "1.0",
		`celery_worker_up{hostname="box"}`:                 "1.0",
		`celery_worker_tasks_active{hostname="box"}`:       "0.0",
		`celery_active_worker_count{queue_name="celery"}`:  "1.0",
		`celery_active_process_count{queue_name="celery"}`: "1.0",
	})
	if _, err := sum.Get(s.context()); err != nil {
		t.Error(err)
	}
	if state, _ := expired.State(s.context()); state != protocol.Revoked {
		t.Errorf("the expired task is %s", state)
	}
}

// TestMetricsAreBounded sends names that nobody knows, and fails in as many ways.
func TestMetricsAreBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{HealthAddr: "0"})
	m := s.worker.metrics
	const many = 1000
	for i := range many {
		n := strconv.Itoa(i)
		m.count("unknown"+n, "celery", failureCount(&protocol.Exception{Type: "Error" + n}))
		m.count("tasks.add", "queue"+n, failureCount(&protocol.Exception{Type: "Error" + n}))
		m.count("tasks.add", "celery", failureCount(&protocol.Exception{Type: "Error" + n}))
	}
	if n := len(m.series); n > 2*(maxForeign+1)+1 { // each kind and "other", and what is known
		t.Errorf("%d series; expected at most %d", n, 2*(maxForeign+1)+1)
	}
	total := uint64(0)
	for key, one := range m.series {
		if len(one.failed) > maxExceptions+1 {
			t.Errorf("%v tells %d exceptions apart", key, len(one.failed))
		}
		for _, n := range one.failed {
			total += n
		}
	}
	if total != 3*many {
		t.Errorf("%d failures are counted; expected %d", total, 3*many)
	}
}

// TestMetricsOfQueuesAndTasksDoNotCrowd: names of tasks that nobody knows leave room for queues, and the other way round.
func TestMetricsOfQueuesAndTasksDoNotCrowd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{HealthAddr: "0"})
	m := s.worker.metrics
	for i := range 2 * maxForeign {
		m.count("unknown"+strconv.Itoa(i), "celery", countedAs{kind: countedReceived})
	}
	for i := range maxForeign - 1 {
		m.count("tasks.add", "queue"+strconv.Itoa(i), countedAs{kind: countedReceived})
	}
	for _, name := range []seriesKey{{name: "unknown0", queue: "celery"}, {name: otherName, queue: "celery"}, {name: "tasks.add", queue: "queue0"},
		{name: "tasks.add", queue: "queue" + strconv.Itoa(maxForeign-2)}} {
		if m.series[name] == nil {
			t.Errorf("%v is not told apart", name)
		}
	}
	if m.series[seriesKey{name: "tasks.add", queue: otherName}] != nil {
		t.Error("names of tasks hide queues")
	}
}

// TestMetricsOfDelayedTask counts a task as received once that the broker has kept until its time, and each attempt of it.
func TestMetricsOfDelayedTask(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{HealthAddr: "0"})
	j := &job{request: &protocol.Request{}, delivery: &transport.Delivery{Queue: "celery"}}
	j.request.Task, j.request.ID = "tasks.add", protocol.NewID()
	s.worker.metrics.received(j)
	s.worker.events.delayed(j)
	s.worker.metrics.received(j) // it comes back
	j.request.Retries++
	s.worker.metrics.received(j)
	s.scrapes(map[string]string{`celery_task_received_total{name="tasks.add",hostname="` + hostOf(s.worker.config.Hostname) + `",queue_name="celery"}`: "2.0"})
}

func TestExceptionClass(t *testing.T) {
	t.Parallel()
	for want, x := range map[string]*protocol.Exception{
		"ValueError":       {Type: "ValueError", Module: "builtins", Args: []any{"kaput"}},
		"UnknownException": {Type: "no word", Module: "x"},
	} {
		if got := exceptionClass(x); got != want {
			t.Errorf("%v is %s; expected %s", x, got, want)
		}
	}
	if got := exceptionClass(nil); got != "UnknownException" {
		t.Errorf("no exception is %s", got)
	}
}

// TestMetricsOfTwoWorkers: each worker of a client counts what that sends, until it ends.
func TestMetricsOfTwoWorkers(t *testing.T) {
	t.Parallel()
	one := newSite(t)
	other := &site{T: t, client: one.client, mux: NewMux(), done: make(chan error, 1)}
	one.start(Config{HealthAddr: "0", Hostname: "w1@box"})
	other.start(Config{HealthAddr: "0", Hostname: "w2@box", Queues: []string{"other"}})
	sent := `celery_task_sent_total{name="tasks.add",hostname="` + hostOf(one.client.Config().Origin) + `",queue_name="celery"}`
	one.send("tasks.add", 1, 2)
	one.scrapes(map[string]string{sent: "1.0"})
	other.scrapes(map[string]string{sent: "1.0"})
	if err := other.end(); err != nil {
		t.Fatal(err)
	}
	one.send("tasks.add", 1, 2)
	one.scrapes(map[string]string{sent: "2.0"})
	for key, s := range other.worker.metrics.series {
		if n := s.kinds[countedSent]; n > 1 {
			t.Errorf("a worker that has ended counts %v %d times", key, n)
		}
	}
}
