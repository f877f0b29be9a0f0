package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/cli"
	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
	"github.com/gelery/gelery/worker"
)

// programVariable makes of this test binary the command gelery with the tasks of the tests in it.
const programVariable = "GELERY_INTEROP_PROGRAM"

// beProgram is the program's main. It does not return.
func beProgram() {
	mux := outcomeTasks()
	executionTasks(mux)
	cli.Main(mux)
}

// executionTasks are the tasks of python/execution.py.
func executionTasks(mux *worker.Mux) {
	mux.Func("exec.waits", waits)
	mux.Func("exec.waits_early", waits, task.AckEarly())
	mux.Func("exec.dies", func() error { os.Exit(3); return nil }, task.RejectOnWorkerLost(false))
	mux.Func("exec.dies_once", func(ctx context.Context) (string, error) {
		if info, _ := task.FromContext(ctx); !info.Redelivered {
			os.Exit(3)
		}
		return "again", nil
	})
	mux.Func("exec.says", func(ctx context.Context, text string) error {
		task.Logger(ctx).Info("says " + text)
		return nil
	})
	worker.Handle(mux, task.Define[task.Raw, map[string]any]("exec.request"), tellsRequest)
	mux.Func("exec.pid", func(mebibytes int) (int, error) {
		kept = append(kept, bytes.Repeat([]byte("x"), mebibytes<<20))
		return os.Getpid(), nil
	})
}

// kept is the memory that exec.pid keeps.
var kept [][]byte

// waits notes the run in the ledger "<path>.runs", and ends when the file is there.
func waits(ctx context.Context, path string) (string, error) {
	info, _ := task.FromContext(ctx)
	ledger, err := os.OpenFile(path+".runs", os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return "", err
	}
	_, err = ledger.WriteString(info.ID + "\n")
	if err = errors.Join(err, ledger.Close()); err != nil {
		return "", err
	}
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return "done", nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

func tellsRequest(ctx context.Context, a task.Raw) (map[string]any, error) {
	info, _ := task.FromContext(ctx)
	orNone := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	limit := func(seconds float64) any {
		if seconds == 0 {
			return nil
		}
		return seconds
	}
	where := info.Properties.DeliveryInfo
	seen := map[string]any{
		"id": info.ID, "task": info.Task, "root_id": info.RootID, "parent_id": orNone(info.ParentID), "group": orNone(info.Group),
		"retries": info.Retries, "eta": orNone(info.ETA), "expires": orNone(info.Expires), "shadow": orNone(info.Shadow),
		"timelimit": []any{limit(info.TimeLimit.Hard), limit(info.TimeLimit.Soft)}, "argsrepr": info.ArgsRepr,
		"kwargsrepr": info.KwargsRepr, "origin": info.Origin, "lang": info.Lang, "reply_to": info.Properties.ReplyTo,
		"ignore_result": info.IgnoreResult != nil && *info.IgnoreResult, "correlation_id": info.Properties.CorrelationID,
		"hostname": info.Hostname, "exchange": where.Exchange, "routing_key": where.RoutingKey, "priority": info.Properties.Priority,
		"redelivered": info.Redelivered, "args": a.Args, "kwargs": a.Kwargs, "tenant": info.CustomHeaders()["tenant"],
		"group_index": nil, "replaced_task_nesting": info.ReplacedTaskNesting, "stamps": nil, "stamped_headers": nil,
	}
	if info.GroupIndex != nil {
		seen["group_index"] = *info.GroupIndex
	}
	if len(info.Stamps) > 0 {
		seen["stamps"], seen["stamped_headers"] = info.StampValues(), info.StampedHeaders
	}
	return seen, nil
}

// side is one of the two workers that are put through the same: a Python one, or a Go one.
type side struct {
	*Process
	Crossing
	Settings
	golang bool
	queue  string
	node   string
	client *task.Client
	server *testservice.RabbitMQServer // nil with Redis
}

// shape is how both workers are started.
type shape struct {
	pool        string // Celery's; for Go prefork is process, and any other goroutine
	concurrency int
	queues      string            // served; default: the side's own
	args        []string          // of either, where both have them
	env         map[string]string // of either
}

// open makes a broker and a backend for one side alone, or for both.
func (c Crossing) open(t *testing.T, conf map[string]any) (Settings, *testservice.RabbitMQServer) {
	t.Helper()
	s := Settings{Conf: map[string]any{"imports": []string{"outcomes", "execution"}}}
	for name, v := range conf {
		s.Conf[name] = v
	}
	if c.Broker != "rabbitmq" {
		opened := c.Open(t)
		s.Broker, s.Backend = opened.Broker, opened.Backend
		return s, nil
	}
	server := testservice.RabbitMQ(t)
	s.Broker, s.Backend = server.URL, testservice.Redis(t)
	return s, server
}

// start starts a worker of the side's language, and does not wait for it.
func (c Crossing) start(t *testing.T, golang bool, s Settings, server *testservice.RabbitMQServer, k shape) *side {
	t.Helper()
	w := &side{Crossing: c.To(GoToPython), Settings: s, golang: golang, queue: pyQueue, server: server}
	if golang {
		w.Crossing, w.queue = c.To(PythonToGo), goQueue
	}
	w.node = w.queue + "@box"
	w.Queue = w.queue
	queues := w.queue
	if k.queues != "" {
		queues = w.own([]string{k.queues})[0]
	}
	var cmd *exec.Cmd
	if golang {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		pool := "goroutine"
		if k.pool == "prefork" {
			pool = "process"
		}
		cmd = exec.Command(exe, append([]string{"worker", "-b", s.Broker, "--result-backend", s.Backend, "-l", "INFO", "-P", pool,
			"-c", strconv.Itoa(k.concurrency), "-Q", queues, "-n", w.node}, w.own(k.args)...)...)
		cmd.Env = append(withoutCelery(os.Environ()), programVariable+"=1")
		for name, v := range s.Conf {
			if name != "imports" {
				cmd.Env = append(cmd.Env, "CELERY_"+strings.ToUpper(name)+"="+fmt.Sprint(v))
			}
		}
	} else {
		cmd = c.Command(t, w.Settings, "celery", append([]string{"-A", "app", "worker", "-l", "info", "-P", k.pool,
			"-c", strconv.Itoa(k.concurrency), "-Q", queues, "-n", w.node, "--without-mingle", "--without-gossip"}, w.own(k.args)...)...)
	}
	for name, v := range k.env {
		cmd.Env = append(cmd.Env, name+"="+v)
	}
	w.Process = Start(t, w.queue+"-worker", cmd)
	return w
}

// own puts the side's queue into arguments that name QUEUE.
func (w *side) own(args []string) []string {
	args = slices.Clone(args)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "QUEUE", w.queue)
	}
	return args
}

// ready waits until the worker is, and opens a client of its queue.
func (w *side) ready(t *testing.T) {
	t.Helper()
	w.WaitFor(t, `\bready\.`, time.Minute)
	w.client = dial(t, w.Settings, 2)
}

// forOldestAndNewest is ForEachCrossing for the first and the last Celery only: what depends on the version is told by them.
func forOldestAndNewest(t *testing.T, stacks []Stack, f func(t *testing.T, c Crossing)) {
	t.Helper()
	for _, name := range []string{versions[0], versions[len(versions)-1]} {
		t.Run("celery-"+name, func(t *testing.T) {
			t.Parallel()
			v := FindVersion(t, name)
			for _, k := range stacks {
				t.Run(k.String(), func(t *testing.T) {
					t.Parallel()
					f(t, Crossing{Version: v, Stack: k})
				})
			}
		})
	}
}

// depth tells how many messages of a queue wait and how many are held by a worker. What rests in the broker until its eta
// is in neither.
func (w *side) depth(t *testing.T, queue string) (ready, held int) {
	t.Helper()
	if w.server != nil {
		return w.server.Depth(queue)
	}
	d := w.depths(t, queue)
	return int(d.Messages), int(d.Unacked)
}

func (w *side) depths(t *testing.T, queue string) transport.Depth {
	t.Helper()
	d, err := w.client.Transport().(transport.Inspector).Depths(within(t), []string{queue})
	if err != nil {
		t.Fatal(err)
	}
	return d[0]
}

// contents takes all that waits in the worker's queue, once there are n, and names each by its id, with "again" where it is
// marked as redelivered. The ids lack the queue's name before them.
func (w *side) contents(t *testing.T, n int) []string {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages are in the queue", n), func() bool {
		ready, held := w.depth(t, w.queue)
		return ready == n && held == 0
	})
	if n == 0 {
		return nil
	}
	q, err := w.client.Queue(w.queue)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := w.client.Transport().Consume(within(t), transport.ConsumeOptions{Queues: []transport.Queue{q}, Prefetch: n})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for len(all) < n {
		batch, err := consumer.Receive(within(t), n)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range batch {
			name := strings.TrimPrefix(d.Message.Headers.ID, w.queue+"-")
			if d.Redelivered {
				name += " again"
			}
			all = append(all, name)
		}
	}
	if err := consumer.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// exitCode waits for the end of the process.
func (w *side) exitCode(t *testing.T) int {
	t.Helper()
	select {
	case <-w.Exited():
	case <-within(t).Done():
		t.Fatalf("%s goes on", w.Process.Name)
	}
	return w.cmd.ProcessState.ExitCode()
}

// gate is the path that exec.waits waits for.
type gate string

func newGate(t *testing.T) gate { return gate(filepath.Join(t.TempDir(), "gate")) }

func (g gate) open(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(string(g), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// runs are the ids of those that have begun to wait.
func (g gate) runs(t *testing.T) []string { t.Helper(); return lines(t, string(g)+".runs") }

func (g gate) await(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d tasks run", n), func() bool { return len(g.runs(t)) >= n })
}
