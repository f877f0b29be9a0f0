package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// childProgram is the program of the children in these tests: it comes to Worker.Run with the same tasks.
func childProgram() int {
	if os.Getenv(childDies) != "" {
		return 3
	}
	if os.Getenv(childDiesSoon) != "" {
		time.AfterFunc(100*time.Millisecond, func() { os.Exit(3) })
	}
	debug.SetTraceback("none") // the crashes are meant
	client, err := task.Dial(context.Background(), task.Config{Broker: "memory://child", Backend: "memory://child"})
	if err == nil {
		mux := NewMux()
		addProcessTasks(mux)
		Handle(mux, add, func(_ context.Context, a addArgs) (int, error) { return a.X + a.Y, nil })
		var w *Worker
		if w, err = New(client, mux, Config{HealthAddr: "0"}); err == nil { // as its parent's may be; a child serves nobody
			err = w.Run(context.Background())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// everyValue has one of each canonical type, and those that are apt to change on the way.
func everyValue() []any {
	return []any{nil, true, int64(-1), int64(math.MaxInt64), new(big.Int).Lsh(big.NewInt(1), 100), 1.0, 1e300, math.Inf(1), "text", "\x00\u2028\xed\xa0\x80",
		[]byte("bytes"), []byte{0xff, 0}, []any{}, map[string]any{"k": []any{int64(1)}}, time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
		value.LocalTime{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, value.Date{Year: 2026, Month: 1, Day: 2}, value.TimeOfDay(time.Hour),
		value.Decimal("1.50"), uuid.UUID{1, 2, 3}}
}

// addProcessTasks registers what the tests run in children.
func addProcessTasks(mux *Mux) {
	mux.Hook(inChildHooks())
	mux.Use(func(next task.Handler) task.Handler {
		return func(ctx context.Context, r *protocol.Request) (any, error) {
			info, _ := task.FromContext(ctx)
			info.PassOn("passed", strconv.Itoa(os.Getpid()))
			return next(ctx, r)
		}
	})
	mux.Func("pid", func(context.Context) (int, error) { return os.Getpid(), nil })
	mux.Func("hooked", func(context.Context, string) (int, error) { return os.Getpid(), nil })
	mux.Func("passed", func(ctx context.Context, _ int) (string, error) {
		info, _ := task.FromContext(ctx)
		return info.TraceHeader("passed"), nil
	})
	mux.Func("values", func(context.Context) ([]any, error) { return everyValue(), nil })
	mux.Func("echo", func(_ context.Context, v any) (any, error) { return v, nil })
	mux.Func("fail", func(context.Context) error {
		return task.AsPython(errors.New("bad"), "builtins", "ValueError", "bad", 42)
	})
	mux.Func("panic", func(context.Context) error { panic("at the disco") })
	mux.Func("goexit", func(context.Context) error { runtime.Goexit(); return nil })
	mux.Func("rude", func(context.Context) error { return rudeError{} })
	mux.Func("unencodable", func(context.Context) (any, error) { return make(chan int), nil })
	mux.Func("ignore", func(context.Context) error { return task.Ignore })
	mux.Func("sub", func(ctx context.Context) (string, error) {
		info, _ := task.FromContext(ctx)
		r, err := info.Client.Send(ctx, "elsewhere", nil, nil)
		if err != nil {
			return "", err
		}
		return r.ID(), nil
	})
	mux.Func("progress", func(ctx context.Context, n int) (string, error) {
		for i := range n {
			if err := task.Progress(ctx, map[string]any{"done": i}); err != nil {
				return "", err
			}
		}
		info, _ := task.FromContext(ctx)
		return info.Queue + " " + info.Hostname, nil
	})
	mux.Func("wait", func(ctx context.Context, path string) error { touch(path); <-ctx.Done(); return ctx.Err() })
	mux.Func("cause", func(ctx context.Context, path string) (string, error) {
		touch(path)
		<-ctx.Done()
		return context.Cause(ctx).Error(), nil
	})
	mux.Func("spin", func(_ context.Context, path string) error { // and leave a process behind
		cmd := exec.Command("sleep", "1000")
		_ = cmd.Start()
		_ = os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+" "+strconv.Itoa(cmd.Process.Pid)), 0o600)
		for { //nolint:staticcheck // a task that nothing but a kill ends
		}
	})
	mux.Func("exit", func(context.Context) error { os.Exit(3); return nil }, task.RejectOnWorkerLost(false))
	mux.Func("exitearly", func(context.Context) error { os.Exit(3); return nil }, task.AckEarly())
	mux.Func("exitonce", func(_ context.Context, path string) (int, error) {
		if _, err := os.Stat(path); err != nil {
			touch(path)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return os.Getpid(), nil
	})
	mux.Func("grow", func(ctx context.Context, mebibytes int) (int, error) {
		block := make([]byte, mebibytes<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
		runtime.KeepAlive(block)
		return os.Getpid(), nil
	})
	mux.Func("flaky", func(_ context.Context, n int) (int, error) { // one run of twenty ends its process, in one way or another
		switch rand.IntN(80) {
		case 0:
			os.Exit(0)
		case 1:
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		case 2:
			go func() { panic("in a goroutine that nobody recovers") }()
			select {}
		case 3:
			_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
			select {}
		}
		return n, nil
	})
	mux.Func("poison", func(context.Context) error { os.Exit(0); return nil })
	mux.Func("isolated", func(context.Context) (int, error) { return os.Getpid(), nil }, task.Isolated())
}

func touch(path string) { _ = os.WriteFile(path, nil, 0o600) }

// newProcessSite is a site whose worker runs its tasks in children.
func newProcessSite(t *testing.T, c Config) *site {
	s := newSite(t)
	addProcessTasks(s.mux)
	c.Pool = PoolProcess
	s.start(c)
	return s
}

func get[T any](s *site, r *task.Result[any]) T {
	s.Helper()
	v, err := r.Get(s.context())
	if err != nil {
		s.Fatal(err)
	}
	out, ok := v.(T)
	if !ok {
		s.Fatalf("result %v (%T)", v, v)
	}
	return out
}

// eventually waits for a condition that no event tells of: the state of another process.
func (s *site) eventually(what string, ok func() bool) {
	s.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ctx := s.context(); !ok(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.Fatalf("not in time: %s", what)
		}
	}
}

func exists(path string) func() bool {
	return func() bool { _, err := os.Stat(path); return err == nil }
}

// alive tells that a process runs. One that is dead and not waited for, as an orphan may be for a while, does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

func TestProcessPoolRunsTasksInChildren(t *testing.T) {
	t.Parallel()
	s := newProcessSite(t, Config{Concurrency: 2})
	pids := map[int64]bool{}
	for range 20 {
		pids[get[int64](s, s.send("pid"))] = true
	}
	if len(pids) > 2 || pids[int64(os.Getpid())] {
		t.Errorf("20 tasks on 2 children ran in %v; this process is %d", pids, os.Getpid())
	}
	s.eventually("two children", func() bool { return len(s.worker.pool.pids()) == 2 })
	for _, pid := range s.worker.pool.pids() {
		defer func() {
			if alive(pid) {
				t.Errorf("child %d outlives its worker", pid)
			}
		}()
	}
	s.settled()
}

func TestProcessPoolCarriesEveryResult(t *testing.T) {
	t.Parallel()
	s := newProcessSite(t, Config{Concurrency: 1})
	if got, want := get[[]any](s, s.send("values")), everyValue(); !reflect.DeepEqual(got, want) {
		for i := range want {
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Errorf("%#v became %#v", want[i], got[i])
			}
		}
	}
	large := strings.Repeat("large ", 1<<18)
	if got := get[string](s, s.send("echo", large)); got != large {
		t.Errorf("a text of %d bytes came back with %d", len(large), len(got))
	}
	for name, want := range map[string][2]string{"fail": {"ValueError", "bad"}, "panic": {"RuntimeError", "panic: at the disco"},
		"goexit": {"RuntimeError", "Goexit"}, "rude": {"RuntimeError", "rude error"}, "unencodable": {"EncodeError", "cannot be encoded"}} {
		if e := s.failure(s.send(name)); e.Type != want[0] || !strings.Contains(e.Error(), want[1]) {
			t.Errorf("%s failed with %s: %q; expected %v", name, e.Type, e.Error(), want)
		} else if name == "panic" && !strings.Contains(e.Traceback, "processes_test.go") {
			t.Errorf("traceback of a panic: %s", e.Traceback)
		}
	}
	if e := s.failure(s.send("fail")); len(e.Args) != 2 || e.Args[1] != int64(42) {
		t.Errorf("arguments of an exception: %v", e.Args)
	}
	if pid := get[int64](s, s.send("pid")); !slices.Equal(s.worker.pool.pids(), []int{int(pid)}) {
		t.Errorf("failures have cost children: %d of %v", pid, s.worker.pool.pids())
	}
	s.send("ignore")
	get[int64](s, s.send("pid"))
	s.settled()
}

// TestCompletionTravelsWhole fails when a field is added to completion that the pipe forgets.
func TestCompletionTravelsWhole(t *testing.T) {
	t.Parallel()
	message := protocol.Message{Headers: protocol.Headers{Task: "t", ID: "i", Retries: 3}, ContentType: "application/json", ContentEncoding: "utf-8",
		Body: []byte("[[], {}, {}]"), Properties: protocol.Properties{DeliveryTag: "tag", DeliveryMode: 2, Priority: 4}}
	want := completion{state: protocol.Retry, requeue: true, timedOut: true, expected: true, lost: true, why: "Retry in 5s",
		exception: &protocol.Exception{Type: "KeyError", Module: "builtins", Args: []any{"k"}}, traceback: "trace",
		following:   []transport.Publication{{Message: &message, Exchange: "x", RoutingKey: "k", Delay: time.Minute, Optional: true}},
		replacement: &protocol.Signature{Task: "r", Args: []any{int64(1)}, Kwargs: map[string]any{}, Options: map[string]any{"queue": "q"}, Immutable: true}}
	v := reflect.ValueOf(want)
	for i := range v.NumField() {
		// None that comes from a child has a signal or a runtime; the parent knows them.
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() && !slices.Contains([]string{"result", "signal", "runtime"}, name) {
			t.Errorf("completion.%s is not tried here: does appendCompletion write it?", name)
		}
	}
	children := []protocol.ResultTuple{{ID: "child"}}
	for _, c := range []completion{want, {state: protocol.Success, result: "r"}, {state: protocol.Rejected}} {
		body, err := appendCompletion(nil, "i", &c, children)
		if err != nil {
			t.Fatal(err)
		}
		got, gotChildren, err := readCompletion(&fields{body: body})
		if err != nil || !reflect.DeepEqual(got, c) || !reflect.DeepEqual(gotChildren, children) {
			t.Errorf("%+v became %+v, %v, %v", c, got, gotChildren, err)
		}
		for n := range body {
			_, _, _ = readCompletion(&fields{body: body[:n]}) // a torn one is an error or a lesser one, no panic
		}
	}
}

func TestProcessPoolReportsProgress(t *testing.T) {
	t.Parallel()
	s := newProcessSite(t, Config{Concurrency: 1})
	r := s.send("progress", 3)
	if got := get[string](s, r); got != "celery "+s.worker.Hostname() {
		t.Errorf("queue and host name in the child: %q", got)
	}
	if id := get[string](s, s.send("sub")); id == "" {
		t.Error("no child task was sent")
	}
	s.settled()
}

// What a child has sent is counted by the worker, and what its middleware passes on goes with what the worker sends.
func TestChildrenSend(t *testing.T) {
	t.Parallel()
	s := newProcessSite(t, Config{Concurrency: 1, HealthAddr: "0"})
	for range 3 {
		get[string](s, s.send("sub"))
	}
	sent := fmt.Sprintf(`celery_task_sent_total{name="elsewhere",hostname="%s",queue_name="celery"}`, hostOf(s.client.Config().Origin))
	s.scrapes(map[string]string{sent: "3.0"})
	r, err := s.client.Apply(s.context(), task.Chain(task.S("pid"), task.S("passed")))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Get(s.context()); err != nil || got != fmt.Sprint(s.worker.pool.pids()[0]) {
		t.Errorf("the next step carries %v, %v", got, err)
	}
	s.settled()
}

func TestProcessPoolTimeLimits(t *testing.T) {
	t.Parallel()
	s := newProcessSite(t, Config{Concurrency: 1})
	soft, err := s.client.Send(s.context(), "wait", []any{t.TempDir() + "/w"}, nil, task.SoftTimeLimit(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if e := s.failure(soft); e.Type != "SoftTimeLimitExceeded" || e.Module != "billiard.exceptions" {
		t.Errorf("soft limit: %v", e)
	}
	// On a busy machine everything is late now and then: one of the tries is in time.
	late := time.Hour
	for try := 0; late > 200*time.Millisecond && try < 5; try++ {
		late = min(late, s.killedAtHardLimit(t.TempDir()+"/pids"))
	}
	if late > 200*time.Millisecond {
		t.Errorf("the child lived %v beyond its hard limit at best", late)
	}
	s.settled()
}

// killedAtHardLimit lets a task that nothing but a kill ends run into its hard limit, and returns how long its process and
// the one it has started lived beyond it.
func (s *site) killedAtHardLimit(path string) time.Duration {
	s.Helper()
	const limit = 300 * time.Millisecond
	before := get[int64](s, s.send("pid"))
	r, err := s.client.Send(s.context(), "spin", []any{path}, nil, task.TimeLimit(limit))
	if err != nil {
		s.Fatal(err)
	}
	var pid, grandchild int
	s.eventually("the pids are written", func() bool {
		text, _ := os.ReadFile(path)
		n, _ := fmt.Sscan(string(text), &pid, &grandchild)
		return n == 2
	})
	begun := time.Now() // or somewhat earlier
	s.eventually("the child and what it started are dead", func() bool { return !alive(pid) && !alive(grandchild) })
	late := time.Since(begun) - limit
	if e := s.failure(r); e.Type != "TimeLimitExceeded" {
		s.Errorf("hard limit: %v", e)
	}
	if after := get[int64](s, s.send("pid")); int64(pid) != before || after == before {
		s.Errorf("before %d, in the task %d, after %d", before, pid, after)
	}
	return late
}

func TestProcessPoolLosesNoTaskOfALostChild(t *testing.T) {
	t.Parallel()
	s := newProcessSite(t, Config{Concurrency: 2})
	if pid := get[int64](s, s.send("exitonce", t.TempDir()+"/once")); pid == 0 {
		t.Error("no second run")
	}
	for name, want := range map[string]string{"exit": "exitcode 3", "exitearly": "exitcode 3"} {
		if e := s.failure(s.send(name)); !errors.Is(e, task.ErrWorkerLost) || !strings.Contains(e.Message, want) {
			t.Errorf("%s: %v", name, e)
		}
	}
	// Killed from outside, in a task and while idle.
	path := t.TempDir() + "/runs"
	r := s.send("wait", path)
	s.eventually("the task runs", exists(path))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for _, pid := range s.worker.pool.pids() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	s.eventually("the task runs again", exists(path))
	if state, err := r.State(s.context()); err != nil || state.Ready() {
		t.Errorf("the task that was lost is %s, %v", state, err)
	}
	get[int64](s, s.send("pid"))
	s.worker.Terminate()
	if err := s.end(); !errors.Is(err, ErrTerminated) {
		t.Error(err)
	}
	if d := s.depth(); d.Messages != 1 {
		t.Errorf("%d messages wait after a cold stop; expected the running one", d.Messages)
	}
}

func TestProcessPoolReplacesChildren(t *testing.T) {
	t.Parallel()
	s := newProcessSite(t, Config{Concurrency: 1, MaxTasksPerChild: 3})
	runs := map[int64]int{}
	for range 9 {
		runs[get[int64](s, s.send("pid"))]++
	}
	for pid, n := range runs {
		if n != 3 {
			t.Errorf("child %d ran %d tasks", pid, n)
		}
	}
	s.settled()
}

func TestProcessPoolBoundsMemory(t *testing.T) {
	if !limitsMemory {
		t.Skip("the memory of other processes cannot be looked at here")
	}
	t.Parallel()
	s := newProcessSite(t, Config{Concurrency: 1, MaxMemoryPerChild: 120 << 20, MemoryLimitPerChild: 450 << 20})
	small, same := get[int64](s, s.send("pid")), get[int64](s, s.send("pid"))
	large, next := get[int64](s, s.send("grow", 150)), get[int64](s, s.send("pid"))
	if small != same || same != large || large == next {
		t.Errorf("children were %d, %d, then %d with 150 MiB, then %d", small, same, large, next)
	}
	if e := s.failure(s.send("grow", 600)); !errors.Is(e, task.ErrWorkerLost) || !strings.Contains(e.Message, "memory limit") {
		t.Errorf("600 MiB: %v", e)
	}
	get[int64](s, s.send("pid"))
	s.settled()
}

func TestProcessPoolStops(t *testing.T) {
	t.Parallel()
	t.Run("warm", func(t *testing.T) {
		t.Parallel()
		s := newProcessSite(t, Config{Concurrency: 1})
		r := s.send("grow", 1)
		s.eventually("it runs", func() bool { return len(s.worker.active.undecided()) > 0 })
		if err := s.end(); err != nil {
			t.Error(err)
		}
		get[int64](s, r)
	})
	t.Run("cold", func(t *testing.T) {
		t.Parallel()
		s := newProcessSite(t, Config{Concurrency: 2})
		told, deaf := t.TempDir()+"/told", t.TempDir()+"/deaf"
		obeys, _ := s.send("cause", told), s.send("spin", deaf)
		s.eventually("both run", func() bool { return exists(told)() && exists(deaf)() })
		pids := s.worker.pool.pids()
		s.worker.Terminate()
		if err := s.end(); !errors.Is(err, ErrTerminated) {
			t.Error(err)
		}
		if got := get[string](s, obeys); got != ErrTerminated.Error() {
			t.Errorf("the task's context ended with %q", got)
		}
		for _, pid := range pids {
			if alive(pid) {
				t.Errorf("child %d outlives a cold stop", pid)
			}
		}
		if d := s.depth(); d.Messages != 1 {
			t.Errorf("%d messages wait; expected the one of the task that was killed", d.Messages)
		}
	})
}

func TestIsolatedTasksRunInChildren(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	addProcessTasks(s.mux)
	s.start(Config{Concurrency: 4})
	if n := len(s.worker.pool.pids()); n != 1 {
		t.Errorf("%d processes before an isolated task came", n)
	}
	if pid := get[int64](s, s.send("pid")); pid != int64(os.Getpid()) {
		t.Error("a task that is not isolated ran in a child")
	}
	first := get[int64](s, s.send("isolated"))
	if first == int64(os.Getpid()) || get[int64](s, s.send("isolated")) != first {
		t.Error("an isolated task ran in this process, or one after the other in two children")
	}
	for name, where := range map[string]int64{"isolated": first, "pid": int64(os.Getpid())} {
		pids := get[[]any](s, s.apply(task.Starmap(task.S(name), []any{}, []any{})))
		if len(pids) != 2 || pids[0] != where || pids[1] != where {
			t.Errorf("celery.starmap of %s ran in %v, expected %d", name, pids, where)
		}
	}
	s.settled()
}

func TestPoolConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Config{"solo": {Pool: "solo"}, "unknown": {Pool: "fork"}, "tasks": {MaxTasksPerChild: -1},
		"KiB": {MaxMemoryPerChild: 200_000}, "small": {MemoryLimitPerChild: 1 << 20}} {
		if _, err := New(newSite(t).client, NewMux(), c); err == nil || !strings.HasPrefix(err.Error(), "worker config: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, word := range []string{"", "goroutine", "process", "prefork", "threads", "gevent", "eventlet"} {
		if _, err := New(newSite(t).client, NewMux(), Config{Pool: word}); err != nil {
			t.Errorf("%q: %v", word, err)
		}
	}
}

// TestBoundsOfNoChild: bounds of child processes where there are none are told to be without effect.
func TestBoundsOfNoChild(t *testing.T) {
	t.Parallel()
	for name, isolated := range map[string]bool{"goroutines": false, "an isolated task": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log lines
			s := newSite(t)
			if isolated {
				addProcessTasks(s.mux)
			}
			s.start(Config{MaxTasksPerChild: 5, MaxMemoryPerChild: 1 << 30, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if n := log.count("PerChild does nothing"); (n == 0) != isolated || !isolated && n != 2 {
				t.Errorf("%d warnings: %s", n, log.text.String())
			}
		})
	}
}
