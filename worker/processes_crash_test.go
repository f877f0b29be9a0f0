package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/gelery/gelery/backends/redis"
	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/redis"
)

const (
	childDies     = "GELERY_TEST_CHILD_DIES"      // a child of these tests ends before it serves
	childDiesSoon = "GELERY_TEST_CHILD_DIES_SOON" // a child of these tests ends 100 ms after its start
	parentNotes   = "GELERY_TEST_PARENT_NOTES"    // this binary is a worker with a process pool, which notes its children here
)

// TestCrashesLoseNoTask runs tasks whose processes end at random. Each has its result in the end.
func TestCrashesLoseNoTask(t *testing.T) {
	t.Parallel()
	tasks := 1000
	if testing.Short() {
		tasks = 200
	}
	s := newProcessSite(t, Config{Concurrency: 3})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	calls := make([]task.Call, tasks)
	for i := range calls {
		calls[i] = task.Call{Name: "flaky", Args: []any{i}}
	}
	results, err := s.client.SendBatch(ctx, calls)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if v, err := r.Get(ctx); err != nil || v != int64(i) {
			t.Fatalf("task %d: %v, %v", i, v, err)
		}
	}
	s.settled()
}

// TestPoisonIsSetAside runs a task that ends every process it gets: it is quarantined when it has begun too often.
func TestPoisonIsSetAside(t *testing.T) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		poison(newSite(t))
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		url := testservice.Redis(t)
		s := &site{T: t, mux: NewMux(), done: make(chan error, 1)}
		Handle(s.mux, add, func(_ context.Context, a addArgs) (int, error) { return a.X + a.Y, nil })
		var err error
		if s.client, err = task.Dial(t.Context(), task.Config{Broker: url, Backend: url, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.client.Close(context.Background()) })
		poison(s)
	})
}

func poison(s *site) {
	addProcessTasks(s.mux)
	s.start(Config{Pool: PoolProcess, Concurrency: 1, MaxDeliveries: 2})
	bad := s.send("poison")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := bad.Get(ctx)
	if e, ok := errors.AsType[*task.Error](err); !ok || !errors.Is(e, task.ErrWorkerLost) {
		s.Fatalf("it ended with %v", err)
	}
	get[int64](s, s.send("pid"))
	if q := s.quarantined(); len(q) != 1 || !strings.Contains(q[0].Reason, "begun 2 times") {
		s.Errorf("quarantined: %+v", q)
	}
	s.settled()
}

// TestChildrenDieWithTheirParent kills a worker with SIGKILL while its children are idle, and while they run tasks that end
// by nothing else.
func TestChildrenDieWithTheirParent(t *testing.T) {
	t.Parallel()
	s := &site{T: t}
	notes := t.TempDir() + "/pids"
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), parentNotes+"="+notes)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var busy, grandchild, idle int
	s.eventually("the children serve", func() bool {
		text, _ := os.ReadFile(notes)
		n, _ := fmt.Sscan(string(text), &busy, &idle)
		spin, _ := os.ReadFile(notes + ".spin")
		m, _ := fmt.Sscan(string(spin), &busy, &grandchild)
		return n == 2 && m == 2
	})
	defer func() { _ = exec.Command("kill", "-9", strconv.Itoa(grandchild)).Run() }() // which nothing ends on Linux
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.eventually("no child lives", func() bool { return !alive(busy) && !alive(idle) })
}

// parentProgram is a worker with one child that spins and one that is idle.
func parentProgram(path string) int {
	client, err := task.Dial(context.Background(), task.Config{Broker: "memory://parent"})
	if err != nil {
		return 1
	}
	mux := NewMux()
	addProcessTasks(mux)
	w, err := New(client, mux, Config{Pool: PoolProcess, Concurrency: 2})
	if err != nil {
		return 1
	}
	go func() {
		<-w.Consuming()
		if _, err := client.Send(context.Background(), "spin", []any{path + ".spin"}, nil); err != nil {
			os.Exit(1)
		}
		for pids := w.pool.pids(); ; pids = w.pool.pids() {
			if len(pids) == 2 {
				_ = os.WriteFile(path, fmt.Appendf(nil, "%d %d", pids[0], pids[1]), 0o600)
				return
			}
			<-time.After(time.Millisecond)
		}
	}()
	_ = w.Run(context.Background())
	return 0
}

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

// TestChildrenThatDoNotStart: the slots wait, no time limit runs, and a stop does not wait for them.
func TestChildrenThatDoNotStart(t *testing.T) {
	t.Setenv(childDies, "1")
	var log lines
	logger := slog.New(slog.NewTextHandler(&log, nil))
	s := newSite(t)
	addProcessTasks(s.mux)
	s.start(Config{Pool: PoolProcess, Concurrency: 1, TimeLimit: 5 * time.Second, Logger: logger})
	r := s.send("pid")
	s.eventually("an error after three starts", func() bool { return log.count("level=ERROR") > 0 })
	if n := log.count("did not start"); n != 3 || log.count("exitcode 3") != 3 {
		t.Errorf("%d starts before the first error: %s", n, log.text.String())
	}
	_ = os.Unsetenv(childDies)
	get[int64](s, r)
	s.settled()

	t.Setenv(childDies, "1")
	s = newSite(t)
	addProcessTasks(s.mux)
	s.start(Config{Pool: PoolProcess, Concurrency: 1, Logger: logger})
	s.send("pid")
	s.eventually("the slot has it", func() bool { return s.worker.Stats().Running == 1 })
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if d := s.depth(); d.Messages != 1 {
		t.Errorf("%d messages wait after the stop; expected the one that has not begun", d.Messages)
	}
}

// TestChildrenThatDieSoon: each that follows is waited for longer, and after two of them none gets a task before it has
// shown that it lives; so a task that takes longer than they live is not taken for what ends them.
func TestChildrenThatDieSoon(t *testing.T) {
	t.Setenv(childDiesSoon, "1")
	var log lines
	s := newSite(t)
	addProcessTasks(s.mux)
	s.start(Config{Pool: PoolProcess, Concurrency: 1, MaxDeliveries: 3, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	r := s.send("grow", 1) // 300 ms
	s.eventually("five have ended", func() bool { return log.count("ended soon after") >= 5 })
	if log.count("pause=100ms") != 1 || log.count("pause=200ms") != 1 || log.count("pause=1.6s") != 1 || log.count("failed=6") != 0 {
		t.Errorf("the pauses do not grow: %s", log.text.String())
	}
	if log.count("level=ERROR") < 5 {
		t.Errorf("that is no error: %s", log.text.String())
	}
	_ = os.Unsetenv(childDiesSoon)
	get[int64](s, r)
	s.settled()
	s.worker.pool.(*processes).mu.Lock()
	defer s.worker.pool.(*processes).mu.Unlock()
	if n := s.worker.pool.(*processes).failures; n != 0 {
		t.Errorf("after a child that lived and finished a task %d starts count as failed", n)
	}
}

// TestHardLimitOfAChildThatDoesNotRead: a child is killed at the hard limit also while its task is being written to it.
func TestHardLimitOfAChildThatDoesNotRead(t *testing.T) {
	t.Parallel()
	s := newProcessSite(t, Config{Concurrency: 1})
	pid := int(get[int64](s, s.send("pid")))
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	r, err := s.client.Send(s.context(), "echo", []any{strings.Repeat("more than a pipe holds", 20_000)}, nil,
		task.TimeLimit(300*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	s.eventually("it is dead", func() bool { return !alive(pid) })
	if e := s.failure(r); e.Type != "TimeLimitExceeded" {
		t.Errorf("hard limit: %v", e)
	}
	get[int64](s, s.send("pid"))
	s.settled()
}

// TestRunWithoutAChild: a stop may have given the child back before the run that was given up has begun.
func TestRunWithoutAChild(t *testing.T) {
	t.Parallel()
	s := newProcessSite(t, Config{Concurrency: 1})
	p := s.worker.pool.(*processes)
	j := &job{}
	if !p.reserve(s.context(), j) {
		t.Fatal("no child")
	}
	p.release(j)
	if c := p.run(s.context(), &execution{job: j}); !c.lost {
		t.Errorf("it ended with %+v", c)
	}
	get[int64](s, s.send("pid"))
}

// TestChildWithOtherTasks: a program that registers less in a child is told so, and no task is lost to it.
func TestChildWithOtherTasks(t *testing.T) {
	t.Parallel()
	var log lines
	s := newSite(t)
	s.mux.Func("only.here", func(context.Context) error { return nil })
	s.start(Config{Pool: PoolProcess, Concurrency: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	s.eventually("the reason is told", func() bool { return log.count("does not know the task only.here") > 0 })
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

// TestPipeRefusesNonsense: a length is not believed.
func TestPipeRefusesNonsense(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"too long": "\xff\xff\xff\xffr12345678", "too short": "\x00\x00\x00\x01r12345678",
		"torn": "\x00\x00\x00\x20r12345678abc", "empty": ""} {
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := newPipe(in, out)
		if _, err := out.WriteString(text); err != nil {
			t.Fatal(err)
		}
		_ = out.Close()
		if f, err := p.read(); err == nil {
			t.Errorf("%s: read %+v", name, f)
		}
		p.close()
	}
}
