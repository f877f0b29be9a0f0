package flower

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	_ "github.com/gelery/gelery/backends/redis"
	"github.com/gelery/gelery/interop"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/rabbitmq"
	_ "github.com/gelery/gelery/transport/redis"
)

const (
	goWorker, pyWorker = "go1@box", "py1@box"
	goQueue, pyQueue   = "go", "py"
)

// cluster is a Go and a Python worker with a Flower that watches them.
type cluster struct {
	*browser
	worker   *interop.Process // the Go one
	client   *task.Client
	broker   string // its kind
	settings interop.Settings
}

// TestFlower walks through all pages of Flower and presses each of its buttons for the Go worker.
func TestFlower(t *testing.T) {
	t.Parallel()
	for _, stack := range []interop.Stack{interop.RedisStack, interop.RabbitMQStack} {
		t.Run(stack.String(), func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, stack)
			for _, step := range []struct {
				name string
				take func(*testing.T)
			}{
				{"workers", c.workers}, {"worker's tabs", c.workerTabs}, {"tasks", c.tasks}, {"broker", c.brokerPage}, {"pool grow and shrink", c.poolButtons},
				{"refused buttons", c.refusedButtons}, {"refresh", c.refreshButtons}, {"autoscale", c.autoscaleButton}, {"consumers", c.consumerButtons},
				{"limits", c.limitButtons}, {"revoke", c.revokeButtons}, {"shutdown", c.shutdownButton},
			} {
				t.Run(step.name, step.take)
			}
		})
	}
}

func startCluster(t *testing.T, stack interop.Stack) *cluster {
	t.Helper()
	path, monitoring := findBrowser(t), interop.FindMonitoring(t)
	s := stack.Open(t)
	s.TrackStarted = true
	s.Conf = map[string]any{"task_send_sent_event": true}
	c := &cluster{broker: stack.Broker, settings: s}
	base := startFlower(t, monitoring, s)
	s.Queue = pyQueue
	interop.FindVersion(t, "5.6").StartWorker(t, s, "threads", 2, "-E", "-n", pyWorker)
	s.Queue = goQueue
	c.worker = interop.StartGelery(t, s, "-E", "-n", goWorker, "--track-started")
	c.browser = startBrowser(t, path, base, stack.String())
	var err error
	c.client, err = task.Dial(t.Context(), task.Config{Broker: s.Broker, Backend: s.Backend, Queue: goQueue, SendSentEvent: true,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.client.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// startFlower starts a Flower and returns its address. Between the finding of a port and its use another may take it.
func startFlower(t *testing.T, v interop.Version, s interop.Settings) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	cmd := v.Command(t, s, "celery", "-A", "app", "flower", "--address="+host, "--port="+port, "--inspect_timeout=3000",
		"--tasks_columns=name,uuid,state,args,result,received,started,runtime,retries,worker")
	cmd.Env = append(cmd.Env, "FLOWER_UNAUTHENTICATED_API=true") // else the buttons ask for a password
	p := interop.Start(t, "flower", cmd)
	p.WaitFor(t, "Visit me at", patience)
	return "http://" + net.JoinHostPort(host, port)
}

// send sends a task to a queue.
func (c *cluster) send(t *testing.T, name string, args []any, options ...task.SendOption) *task.Result[any] {
	t.Helper()
	r, err := c.client.Send(t.Context(), name, args, nil, options...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ends waits until a task has a state.
func (c *cluster) ends(t *testing.T, r *task.Result[any], want protocol.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := r.Get(ctx)
	if ctx.Err() != nil {
		t.Fatalf("task %s has no result in %v", r.ID(), patience)
	}
	if state, _ := r.State(ctx); state != want {
		t.Fatalf("task %s is %s (%v); expected %s", r.ID(), state, err, want)
	}
}

// starts waits until a task runs.
func (c *cluster) starts(t *testing.T, r *task.Result[any]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for m, err := range c.client.Backend().Watch(ctx, r.ID()) {
		if err != nil || m.Status.Ready() {
			t.Fatalf("task %s does not run: %v %v", r.ID(), m, err)
		}
		if m.Status == protocol.Started {
			return
		}
	}
	t.Fatalf("task %s does not run in %v", r.ID(), patience)
}

// done tells when a task has ended.
func (c *cluster) done(t *testing.T, r *task.Result[any]) time.Time {
	t.Helper()
	m, err := c.client.Backend().Get(t.Context(), r.ID())
	if err != nil {
		t.Fatal(err)
	}
	return m.DateDone
}

func workerPath(name string) string { return "/worker/" + name }
