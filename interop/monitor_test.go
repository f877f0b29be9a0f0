package interop

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/monitor"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// The workers of TestMonitor, one of each language.
const (
	goNode = "go@box"
	pyNode = "py@box"
)

// monitored is a cluster of both workers, and who watches it.
type monitored struct {
	client  *task.Client
	control *monitor.Control // of both workers

	mu     sync.Mutex
	state  *monitor.State
	events map[string][]string // their types without "task-", by task
}

// TestMonitor has package monitor ask, steer and watch a Python and a Go worker of one cluster.
func TestMonitor(t *testing.T) {
	t.Parallel()
	forOldestAndNewest(t, []Stack{RedisStack, RabbitMQRPCStack}, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		m := watchCluster(t, c, s)
		c = c.To(GoToPython)
		m.asks(t, c)
		m.steers(t, c)
		m.watches(t, c)
		c.Cell(t, "monitor: shutdown", func(t *testing.T) {
			if err := m.control.Shutdown(within(t)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "both workers are offline", func() bool {
				return !slices.ContainsFunc(m.state.Workers(), func(w monitor.Worker) bool { return !w.Offline })
			})
		})
	})
}

func watchCluster(t *testing.T, c Crossing, s Settings) *monitored {
	t.Helper()
	m := &monitored{events: map[string][]string{}}
	m.client = connect(t, task.Config{Broker: s.Broker, Backend: s.Backend, SendSentEvent: true})
	all, err := monitor.NewControl(m.client.Transport(), monitor.ControlConfig{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	m.control = all.To(goNode, pyNode)
	if m.state, err = monitor.NewState(monitor.StateConfig{}); err != nil {
		t.Fatal(err)
	}
	receiver, err := monitor.NewReceiver(m.client.Transport(), monitor.ReceiverConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- receiver.Capture(ctx, m.hear) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the receiver ends with %v", err)
		}
	})
	s.Queue = goQueue
	StartGelery(t, s, "-n", goNode, "-E", "-c", "2", "--track-started")
	s.Queue = pyQueue
	c.StartWorker(t, s, "prefork", 2, "-n", pyNode, "-E")
	eventually(t, "both workers are seen", func() bool { return m.state.Totals().Alive == 2 })
	return m
}

func (m *monitored) hear(events []protocol.Event) {
	m.state.Apply(events)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range events {
		if id := events[i].Text("uuid"); id != "" {
			m.events[id] = append(m.events[id], strings.TrimPrefix(events[i].Type, "task-"))
		}
	}
}

// heard are the events of a task, in their order.
func (m *monitored) heard(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.events[id], " ")
}

func (m *monitored) send(t *testing.T, queue, name string, arg any, opts ...task.SendOption) string {
	t.Helper()
	r, err := m.client.Send(within(t), name, []any{arg}, nil, append(opts, task.Queue(queue))...)
	if err != nil {
		t.Fatal(err)
	}
	return r.ID()
}

// both wants a good answer of each worker, and lets the function look at its value.
func both[T any](t *testing.T, answers []monitor.Answer[T], err error, good func(node string, v T) bool) {
	t.Helper()
	if err != nil || len(answers) != 2 || answers[0].Node != goNode || answers[1].Node != pyNode {
		t.Fatalf("the answers are %v, %v", answers, err)
	}
	for _, a := range answers {
		if a.Err != nil || !good(a.Node, a.Value) {
			t.Errorf("%s answers %+v, %v", a.Node, a.Value, a.Err)
		}
	}
}

// asks has each inspect command answered by both, while a task runs and another waits for its eta.
func (m *monitored) asks(t *testing.T, c Crossing) {
	running, later, revoked := map[string]string{}, map[string]string{}, protocol.NewID()
	for node, queue := range map[string]string{goNode: goQueue, pyNode: pyQueue} {
		running[node] = m.send(t, queue, "dev.sleep", 600)
		later[node] = m.send(t, queue, "dev.sleep", 0, task.Countdown(10*time.Minute))
	}
	defer m.revoke(t, append(slices.Collect(maps.Values(running)), slices.Collect(maps.Values(later))...)...)
	for node, id := range running {
		eventually(t, "the task of "+node+" runs", func() bool { return m.state.Task(id).Phase == monitor.PhaseActive })
		eventually(t, "the later task of "+node+" is there", func() bool { return m.state.Task(later[node]).Phase == monitor.PhaseScheduled })
	}
	ctx, control := within(t), m.control
	c.Cell(t, "monitor: ping", func(t *testing.T) {
		a, err := control.Ping(ctx)
		both(t, a, err, func(_, pong string) bool { return pong == "pong" })
	})
	c.Cell(t, "monitor: stats", func(t *testing.T) {
		a, err := control.Stats(ctx)
		both(t, a, err, func(_ string, s monitor.Stats) bool {
			return s.PID > 0 && *s.Pool.MaxConcurrency == 2 && s.Total["dev.sleep"] >= 1 && s.Broker["transport"] != nil
		})
	})
	c.Cell(t, "monitor: active", func(t *testing.T) {
		a, err := control.Active(ctx)
		both(t, a, err, func(node string, list []monitor.TaskInfo) bool {
			return len(list) == 1 && list[0].ID == running[node] && list[0].Name == "dev.sleep" && list[0].Hostname == node && list[0].TimeStart != nil
		})
	})
	c.Cell(t, "monitor: reserved", func(t *testing.T) {
		a, err := control.Reserved(ctx)
		both(t, a, err, func(_ string, list []monitor.TaskInfo) bool { return len(list) <= 2 })
	})
	c.Cell(t, "monitor: scheduled", func(t *testing.T) {
		a, err := control.Scheduled(ctx)
		both(t, a, err, func(node string, list []monitor.ScheduledTask) bool {
			return len(list) == 1 && list[0].Request.ID == later[node] && strings.HasPrefix(list[0].ETA, "20") ||
				node == goNode && len(list) == 0 // the broker keeps it
		})
	})
	c.Cell(t, "monitor: query_task", func(t *testing.T) {
		a, err := control.QueryTask(ctx, running[goNode], running[pyNode], revoked)
		both(t, a, err, func(node string, tasks map[string]monitor.QueriedTask) bool {
			q := tasks[running[node]]
			return len(tasks) == 1 && q.State == "active" && q.Request.ID == running[node]
		})
	})
	c.Cell(t, "monitor: registered", func(t *testing.T) {
		a, err := control.Registered(ctx)
		both(t, a, err, func(_ string, names []string) bool { return slices.Contains(names, "dev.sleep") })
		a, err = control.Registered(ctx, "max_retries")
		both(t, a, err, func(_ string, names []string) bool { return slices.Contains(names, "dev.sleep [max_retries=3]") })
	})
	c.Cell(t, "monitor: active_queues", func(t *testing.T) {
		a, err := control.ActiveQueues(ctx)
		both(t, a, err, func(node string, list []monitor.ActiveQueue) bool {
			return len(list) == 1 && list[0].Name == node[:2] && *list[0].Exchange.Type == "direct" && *list[0].RoutingKey == node[:2]
		})
	})
	c.Cell(t, "monitor: conf, clock, report, memory, hello", func(t *testing.T) {
		conf, err := control.Conf(ctx, true)
		both(t, conf, err, func(_ string, all map[string]any) bool { return all["task_default_queue"] != nil })
		clocks, err := control.Clock(ctx)
		both(t, clocks, err, func(_ string, c monitor.Clock) bool { return c.Clock > 0 })
		reports, err := control.Report(ctx)
		both(t, reports, err, func(_, text string) bool { return strings.Contains(text, "software -> ") })
		memory, err := control.Memsample(ctx)
		both(t, memory, err, func(string, *string) bool { return true })
		hellos, err := control.Hello(ctx, "another@box")
		both(t, hellos, err, func(_ string, h monitor.Hello) bool { return h.Clock > 0 && h.Revoked != nil })
	})
	c.Cell(t, "monitor: revoke, revoked", func(t *testing.T) {
		a, err := control.Revoke(ctx, revoked)
		both(t, a, err, func(_, text string) bool { return strings.Contains(text, "flagged as revoked") })
		ids, err := control.Revoked(ctx)
		both(t, ids, err, func(_ string, ids []string) bool { return slices.Contains(ids, revoked) })
	})
}

// revoke ends what a test has left.
func (m *monitored) revoke(t *testing.T, ids ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := m.client.Revoke(ctx, ids, task.Terminate("SIGKILL")); err != nil {
		t.Errorf("revoke: %v", err)
	}
}

// steers has commands carried out by both.
func (m *monitored) steers(t *testing.T, c Crossing) {
	ctx, control := within(t), m.control
	for _, tt := range []struct {
		name string
		do   func() ([]monitor.Answer[string], error)
		want string
	}{
		{"rate_limit", func() ([]monitor.Answer[string], error) { return control.RateLimit(ctx, "dev.sleep", "1000/s") }, "new rate limit set successfully"},
		{"time_limit", func() ([]monitor.Answer[string], error) {
			return control.TimeLimit(ctx, "dev.sleep", 700*time.Second, 800*time.Second)
		}, "time limits set successfully"},
		{"add_consumer", func() ([]monitor.Answer[string], error) { return control.AddConsumer(ctx, "more", "", "", "") }, "add consumer more"},
		{"cancel_consumer", func() ([]monitor.Answer[string], error) { return control.CancelConsumer(ctx, "more") }, "no longer consuming from more"},
		{"pool_grow", func() ([]monitor.Answer[string], error) { return control.PoolGrow(ctx, 1) }, "pool will grow"},
		{"enable_events", func() ([]monitor.Answer[string], error) { return control.EnableEvents(ctx) }, "task events already enabled"},
	} {
		c.Cell(t, "monitor: "+tt.name, func(t *testing.T) {
			a, err := tt.do()
			both(t, a, err, func(_, text string) bool { return text == tt.want })
		})
	}
	c.Cell(t, "monitor: pool_shrink", func(t *testing.T) {
		slots := func(want int64) bool {
			a, err := control.Stats(ctx)
			return err == nil && len(a) == 2 && *a[0].Value.Pool.MaxConcurrency == want &&
				int64(len(a[1].Value.Pool.Processes)) == want // Python's max-concurrency is that of the start
		}
		eventually(t, "the pools have grown", func() bool { return slots(3) })
		a, err := control.PoolShrink(ctx, 1)
		both(t, a, err, func(_, text string) bool { return text == "pool will shrink" })
		eventually(t, "the pools have shrunk", func() bool { return slots(2) })
	})
	c.Cell(t, "monitor: what a worker does not do", func(t *testing.T) {
		answers, err := control.RateLimit(ctx, "no.such", "1/s")
		if err != nil || len(answers) != 2 {
			t.Fatalf("the answers are %v, %v", answers, err)
		}
		for _, a := range answers {
			if remote, ok := errors.AsType[*monitor.RemoteError](a.Err); !ok || remote.Text != "unknown task" {
				t.Errorf("%s answers %v", a.Node, a.Err)
			}
		}
	})
	c.Cell(t, "monitor: by pattern, one of them", func(t *testing.T) {
		only := m.control.To().Matching("py@*", "glob").Limit(1)
		if a, err := only.Ping(ctx); err != nil || len(a) != 1 || a[0].Node != pyNode {
			t.Errorf("the answers are %v, %v", a, err)
		}
	})
}

// watches sees tasks of both workers pass through all their states.
func (m *monitored) watches(t *testing.T, c Crossing) {
	for node, queue := range map[string]string{goNode: goQueue, pyNode: pyQueue} {
		c.Cell(t, "monitor: events of "+node[:2], func(t *testing.T) {
			good := m.send(t, queue, "dev.sleep", 0)
			eventually(t, "the task has succeeded", func() bool { return m.state.Task(good).State == monitor.StateSuccess })
			bad := m.send(t, queue, map[string]string{goQueue: "dev.fail", pyQueue: "py.fail"}[queue], "no")
			eventually(t, "the task has failed", func() bool { return m.state.Task(bad).State == monitor.StateFailure })
			revoked := m.send(t, queue, "dev.sleep", 600)
			eventually(t, "the task runs", func() bool { return m.state.Task(revoked).Phase == monitor.PhaseActive })
			if err := m.client.Revoke(within(t), []string{revoked}, task.Terminate("SIGKILL")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the task is revoked", func() bool { return m.state.Task(revoked).State == monitor.StateRevoked })
			for id, want := range map[string]string{good: "received sent started succeeded", bad: "failed received sent started", revoked: "received revoked sent started"} {
				eventually(t, want, func() bool {
					types := strings.Fields(m.heard(id))
					slices.Sort(types)
					return strings.Join(types, " ") == want
				})
				x := m.state.Task(id)
				if x.Worker != node || x.Queue != queue || x.RootID != id || x.Client == "" || x.Sent.IsZero() || x.Received.IsZero() || x.Started.IsZero() ||
					x.Phase != monitor.PhaseReady || x.Args == "" {
					t.Errorf("the task is %+v", x)
				}
			}
			if x := m.state.Task(good); x.Runtime <= 0 || x.Result == "" {
				t.Errorf("the task that succeeded is %+v", x)
			}
			if x := m.state.Task(bad); !strings.Contains(x.Exception, "(") || x.Traceback == "" {
				t.Errorf("the task that failed is %+v", x)
			}
		})
	}
	c.Cell(t, "monitor: workers", func(t *testing.T) {
		eventually(t, "heartbeats tell of what was processed", func() bool {
			return !slices.ContainsFunc(m.state.Workers(), func(w monitor.Worker) bool { return w.Processed < 1 })
		})
		for _, w := range m.state.Workers() {
			if !w.Alive || w.Processed < 1 || w.SwIdent == "" || w.PID == 0 || w.Counts.Succeeded < 1 || w.Freq != 2 {
				t.Errorf("a worker is %+v", w)
			}
		}
	})
}
