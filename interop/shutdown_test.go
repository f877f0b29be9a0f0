package interop

import (
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// stopping is what a worker leaves that had two tasks running when it was told to stop, one acknowledged early and one to be
// acknowledged late, and two or three waiting.
type stopping struct {
	Code        int
	Early, Late protocol.State
	Queue       []string // in the queue afterwards; "again" is marked as redelivered
}

// stop is a way to end a worker, and what comes of it.
type stop struct {
	name     string
	signal   syscall.Signal
	twice    bool // the signal comes again once the worker has heard
	env      map[string]string
	conf     map[string]any
	since    string // the Celery version that has it
	finishes bool   // the running tasks are let to end once the worker has heard
	heard    string // the line that tells
	python   stopping
	golang   stopping
}

// What both leave in the queue when running tasks end, and when they do not.
var (
	waiting   = []string{"plain1 again", "plain2 again"}
	cutShort  = []string{"late again", "plain1 again", "plain2 again"}
	cutShortG = []string{"early", "late again", "plain1 again", "plain2 again"} // Gelery sends early anew
)

// stops are the signals of a worker, as Celery has them. What is different by intention: SIGINT is not a failure, what was
// acknowledged early is sent again, and a soft stop ends with the tasks.
func stops(v Version) []stop {
	const done = protocol.Success
	cancelled, interrupted := protocol.State("RETRY"), 1 // RETRY, which nobody will ever run
	if !v.AtLeast("5.5") {
		cancelled, interrupted = protocol.Pending, 0 // it returns its exit code to click, which has no use for it
	}
	warm, soft := `[Ww]arm (Shutdown|shutdown|stop)`, `(Initiating Soft Shutdown|soft stop)`
	coldPython, coldGo := stopping{0, cancelled, protocol.Pending, cutShort}, stopping{0, protocol.Pending, protocol.Pending, cutShortG}
	return []stop{
		{name: "TERM", signal: syscall.SIGTERM, finishes: true, heard: warm,
			python: stopping{0, done, done, waiting}, golang: stopping{0, done, done, waiting}},
		{name: "INT", signal: syscall.SIGINT, finishes: true, heard: warm,
			python: stopping{interrupted, done, done, waiting}, golang: stopping{0, done, done, waiting}},
		{name: "INT twice", signal: syscall.SIGINT, twice: true, heard: warm, golang: stopping{1, protocol.Pending, protocol.Pending, cutShortG}},
		{name: "QUIT", signal: syscall.SIGQUIT, python: coldPython, golang: coldGo},
		{name: "TERM as QUIT", signal: syscall.SIGTERM, env: map[string]string{"REMAP_SIGTERM": "SIGQUIT"}, python: coldPython, golang: coldGo},
		{name: "QUIT, soft", signal: syscall.SIGQUIT, since: "5.5", conf: map[string]any{"worker_soft_shutdown_timeout": 2}, finishes: true, heard: soft,
			python: stopping{0, done, done, waiting}, golang: stopping{0, done, done, waiting}},
	}
}

// TestStop ends a Python and a Go worker by each signal, and compares what becomes of what they had.
func TestStop(t *testing.T) {
	t.Parallel()
	forOldestAndNewest(t, []Stack{RedisStack, RabbitMQStack}, func(t *testing.T, c Crossing) {
		for _, p := range stops(c.Version) {
			if p.since != "" && !c.AtLeast(p.since) || c.Broker == "rabbitmq" && c.Version.Name == versions[0] {
				continue
			}
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				for _, golang := range []bool{false, true} {
					if p.twice && !golang {
						continue // its exit code is 0 or 1, by chance, and from 5.5 on, which stops in the signal's handler, it hangs at times
					}
					direction := map[bool]string{false: GoToPython, true: PythonToGo}[golang]
					t.Run(direction, func(t *testing.T) {
						t.Parallel()
						c.To(direction).Cell(t, "stop by "+p.name, func(t *testing.T) { p.carryOut(t, c, golang) })
					})
				}
			})
		}
	})
}

func (p *stop) carryOut(t *testing.T, c Crossing, golang bool) {
	s, server := c.open(t, p.conf)
	w := c.start(t, golang, s, server, shape{pool: "prefork", concurrency: 2, env: p.env})
	w.ready(t)
	g := newGate(t)
	post := func(name, what string, opts ...task.SendOption) string {
		id := w.queue + "-" + what
		send(t, w.client, name, []any{string(g)}, append(opts, task.ID(id))...)
		return id
	}
	early, late := post("exec.waits_early", "early"), post("exec.waits", "late")
	g.await(t, 2)
	post("exec.waits", "plain1")
	post("exec.waits", "plain2")
	eventually(t, "it holds all but the one acknowledged", func() bool { _, held := w.depth(t, w.queue); return held == 3 })
	want := p.python
	if golang {
		want = p.golang
	}
	want.Queue = append([]string(nil), want.Queue...)
	if w.server == nil { // and one that is not due, which is the broker's to keep with Gelery
		id := post("exec.waits", "eta", task.Countdown(10*time.Minute))
		w.WaitFor(t, `\[`+id+`\] received`, patience)
		if golang {
			eventually(t, "the broker keeps it until its eta", func() bool { return w.depths(t, w.queue).Delayed == 1 })
		} else {
			want.Queue = insert(want.Queue, "eta again")
		}
	}
	if err := w.Signal(p.signal); err != nil {
		t.Fatal(err)
	}
	if p.heard != "" {
		w.WaitFor(t, p.heard, patience)
	}
	if p.twice {
		if err := w.Signal(p.signal); err != nil {
			t.Fatal(err)
		}
	}
	if p.finishes {
		g.open(t)
	}
	got := stopping{Code: w.exitCode(t)}
	got.Queue = w.contents(t, len(want.Queue))
	got.Early, got.Late = w.state(t, early), w.state(t, late)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("expected (-) and left by the worker (+):\n%s", diff)
	}
	if n := len(g.runs(t)); n != 2 {
		t.Errorf("%d tasks have begun; expected 2", n)
	}
	if golang && w.server == nil && w.depths(t, w.queue).Delayed != 1 {
		t.Errorf("the task that is not due is gone: %+v", w.depths(t, w.queue))
	}
}

// insert adds a name behind those that are less.
func insert(names []string, name string) []string {
	for i := range names {
		if names[i] > name {
			return append(names[:i:i], append([]string{name}, names[i:]...)...)
		}
	}
	return append(names, name)
}

func (w *side) state(t *testing.T, id string) protocol.State {
	t.Helper()
	state, err := w.client.Result(id).State(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// TestBrokerRestarts takes the broker away from under a running task and brings it back. The Go worker acknowledges what has
// ended meanwhile and goes on. A Python worker goes on, but cannot acknowledge what it had from the connection before: the
// message stays, and will run again.
func TestBrokerRestarts(t *testing.T) {
	t.Parallel()
	c := Crossing{Version: FindVersion(t, versions[len(versions)-1]), Stack: RedisStack}
	for _, golang := range []bool{false, true} {
		direction := map[bool]string{false: GoToPython, true: PythonToGo}[golang]
		t.Run(direction, func(t *testing.T) {
			t.Parallel()
			c.To(direction).Cell(t, "broker restarts", func(t *testing.T) {
				broker := testservice.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
				s := Settings{Broker: broker.URL, Backend: testservice.Redis(t), Conf: map[string]any{"imports": []string{"outcomes", "execution"}}}
				w := c.start(t, golang, s, nil, shape{pool: "threads", concurrency: 1})
				w.ready(t)
				g := newGate(t)
				running := send(t, w.client, "exec.waits", []any{string(g)}, task.ID(w.queue+"-running"))
				g.await(t, 1)
				eventually(t, "it is held", func() bool { _, held := w.depth(t, w.queue); return held == 1 })
				broker.Stop()
				if !golang {
					w.WaitFor(t, `Connection to broker lost|Cannot connect to`, patience)
				}
				broker.Restart()
				g.open(t)
				if _, err := running.Get(within(t)); err != nil {
					t.Errorf("the running task: %v", err)
				}
				next := send(t, dial(t, w.Settings, 2), "exec.waits", []any{string(g)})
				if _, err := next.Get(within(t)); err != nil {
					t.Errorf("the next task: %v", err)
				}
				want := map[bool]int{false: 1, true: 0}[golang]
				rdb := redisClient(t, w.Broker)
				eventually(t, "what has ended is acknowledged, where it can be", func() bool { return int(rdb.HLen(t.Context(), "unacked").Val()) == want })
				if n := len(g.runs(t)); n != 2 {
					t.Errorf("%d runs; expected 2", n)
				}
			})
		})
	}
}

// TestMissingQueue: a worker that is to serve a queue nobody has defined, where that is not allowed, does not start.
func TestMissingQueue(t *testing.T) {
	t.Parallel()
	c := Crossing{Version: FindVersion(t, versions[len(versions)-1]), Stack: RedisStack}
	for direction, code := range map[string]int{GoToPython: 1, PythonToGo: 2} {
		c.To(direction).Cell(t, "a queue that is not defined", func(t *testing.T) {
			s, _ := c.open(t, map[string]any{"task_create_missing_queues": false})
			w := c.start(t, direction == PythonToGo, s, nil, shape{pool: "solo", concurrency: 1, queues: "nope"})
			if got := w.exitCode(t); got != code {
				t.Errorf("exit code %d; expected %d", got, code)
			}
			if !w.Output.Contains("nope") {
				t.Error("it does not name the queue")
			}
		})
	}
}
