package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// diary keeps what was called, by task.
type diary struct {
	mu    sync.Mutex
	lines map[string][]string
}

func (d *diary) write(of, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lines == nil {
		d.lines = map[string][]string{}
	}
	d.lines[of] = append(d.lines[of], fmt.Sprintf(format, args...))
}

func (d *diary) expect(t *testing.T, of string, want ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines[of], want) {
		t.Errorf("%s: called\n%s\nwant\n%s", of, strings.Join(d.lines[of], "\n"), strings.Join(want, "\n"))
	}
}

// hooks write every event into the diary; those of runs look for the task's Info.
func (d *diary) hooks() Hooks {
	life := func(what string) func(context.Context, *Worker) {
		return func(_ context.Context, w *Worker) { d.write("worker", "%s", what) }
	}
	return Hooks{
		Init: life("init"), Ready: life("ready"), Stopping: life("stopping"), Stopped: life("stopped"),
		Received: func(_ context.Context, e TaskReceived) { d.write(e.Task, "received from %s", e.Queue) },
		Started: func(ctx context.Context, e TaskStarted) {
			info, ok := task.FromContext(ctx)
			d.write(e.Task, "started %v", ok && info.ID == e.ID)
		},
		Succeeded: func(_ context.Context, e TaskSucceeded) { d.write(e.Task, "succeeded %v %v", e.Result, e.Runtime > 0) },
		Failed: func(_ context.Context, e TaskFailed) {
			d.write(e.Task, "failed %v %v", e.Exception.String(), e.TimedOut)
		},
		Retried:  func(_ context.Context, e TaskRetried) { d.write(e.Task, "retried %s", e.Why) },
		Rejected: func(_ context.Context, e TaskRejected) { d.write(e.Task, "rejected %v %s", e.Requeue, e.Why) },
		Revoked:  func(_ context.Context, e TaskRevoked) { d.write(e.Task, "revoked %s %v", e.Why, e.Running) },
		Ended: func(_ context.Context, e TaskEnded) {
			if e.Cut {
				d.write(e.Task, "ended %s cut", e.State)
				return
			}
			d.write(e.Task, "ended %s", e.State)
		},
		Quarantined:   func(_ context.Context, e TaskQuarantined) { d.write(e.Task, "quarantined %v", e.Exception.String()) },
		InternalError: func(_ context.Context, e TaskInternalError) { d.write("worker", "internal error") },
	}
}

func TestHooks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := &diary{}
	s.mux.Func("fail", func() error { return errors.New("kaput") })
	s.mux.Func("reject", func() error { return task.Reject(errors.New("no"), false) })
	s.mux.Func("ignore", func() error { return task.Ignore })
	s.mux.Func("slow", func(ctx context.Context) error { <-ctx.Done(); return nil })
	s.mux.Func("expired", func() error { return nil })
	s.mux.Func("again", func() error { return task.Retry(errors.New("kaput"), task.Countdown(0)) }, task.MaxRetries(1))
	s.mux.Hook(d.hooks())
	s.mux.Hook(Hooks{Ended: func(context.Context, TaskEnded) { panic("a broken hook") }})
	s.start(Config{Concurrency: 1})
	if err := s.failure(s.send("again")); err == nil {
		t.Error("again: no failure")
	}
	for _, name := range []string{"fail", "reject", "ignore", "no.such"} {
		s.send(name)
	}
	for name, opt := range map[string]task.SendOption{"slow": task.TimeLimit(time.Millisecond), "expired": task.ExpiresAt(time.Unix(1, 0))} {
		if _, err := s.client.Send(s.context(), name, nil, nil, opt); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := s.send("tasks.add", 1, 2).Get(s.context()); err != nil { // behind all others in the only slot
		t.Fatal(v, err)
	}
	s.settled()
	d.expect(t, "worker", "init", "ready", "stopping", "stopped")
	d.expect(t, "tasks.add", "received from celery", "started true", "succeeded 3 true", "ended SUCCESS")
	d.expect(t, "fail", "received from celery", "started true", "failed Exception('kaput') false", "ended FAILURE")
	d.expect(t, "reject", "received from celery", "started true", "rejected false no", "ended REJECTED")
	d.expect(t, "ignore", "received from celery", "started true", "ended IGNORED")
	d.expect(t, "slow", "received from celery", "started true", "failed TimeLimitExceeded(0.001) true", "ended FAILURE")
	d.expect(t, "again", "received from celery", "started true", "retried Retry in 0s: Exception('kaput')", "ended RETRY",
		"received from celery", "started true", "failed Exception('kaput') false", "ended FAILURE")
	d.expect(t, "expired", "revoked expired false")
	d.expect(t, "no.such", "quarantined NotRegistered('no.such')")
}

// TestHandlers calls a task's own handlers as Celery does, and survives them.
func TestHandlers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := &diary{}
	kaput := errors.New("kaput")
	options := func(name string) []task.DefineOption {
		return []task.DefineOption{
			task.BeforeStart(func(ctx context.Context) error {
				info, _ := task.FromContext(ctx)
				d.write(name, "before %d", len(info.Args))
				if name == "unprepared" {
					return kaput
				}
				return nil
			}),
			task.OnSuccess(func(_ context.Context, result any) { d.write(name, "success %v", result) }),
			task.OnFailure(func(ctx context.Context, err error) {
				info, _ := task.FromContext(ctx)
				d.write(name, "failure %v %v %v", errors.Is(err, kaput), ctx.Err(), info.Task == name)
			}),
			task.OnRetry(func(_ context.Context, err error) { d.write(name, "retry %v", errors.Is(err, kaput)) }),
			task.AfterReturn(func(_ context.Context, state protocol.State, result any, err error) {
				d.write(name, "after %s %v", state, err != nil)
				panic("a broken handler")
			}),
		}
	}
	s.mux.Func("fine", func(n int) (int, error) { return n, nil }, options("fine")...)
	s.mux.Func("fail", func() error { return fmt.Errorf("worse: %w", kaput) }, options("fail")...)
	s.mux.Func("panic", func() error { panic(kaput) }, options("panic")...)
	s.mux.Func("unprepared", func() error { d.write("unprepared", "ran"); return nil }, options("unprepared")...)
	s.mux.Func("ignore", func() error { return task.Ignore }, options("ignore")...)
	s.mux.Func("chan", func() (any, error) { return make(chan int), nil }, options("chan")...)
	s.mux.Func("again", func() error { return task.Retry(kaput, task.Countdown(0)) }, append(options("again"), task.MaxRetries(1))...)
	s.mux.Func("given up", func(ctx context.Context) error { <-ctx.Done(); return kaput }, append(options("given up"), task.TimeLimit(time.Millisecond))...)
	s.start(Config{Concurrency: 1})
	if err := s.failure(s.send("again")); err == nil {
		t.Error("again: no failure")
	}
	for _, name := range []string{"fail", "panic", "unprepared", "ignore", "chan", "given up"} {
		s.send(name)
	}
	if v, err := s.send("fine", 5).Get(s.context()); err != nil || v != int64(5) {
		t.Errorf("a broken handler has changed the outcome: %v, %v", v, err)
	}
	s.settled()
	d.expect(t, "fine", "before 1", "success 5", "after SUCCESS false")
	for _, name := range []string{"fail", "panic"} {
		d.expect(t, name, "before 0", "failure true <nil> true", "after FAILURE true")
	}
	d.expect(t, "unprepared", "before 0", "failure true <nil> true", "after FAILURE true")
	d.expect(t, "ignore", "before 0")
	d.expect(t, "chan", "before 0", "failure false <nil> true", "after FAILURE true")
	d.expect(t, "given up", "before 0")
	d.expect(t, "again", "before 0", "retry true", "before 0", "failure true <nil> true", "after FAILURE true")
}

// Every run that was told to begin is told to end, also where a cold stop cuts it: obeying or not, acknowledged before or after, and where
// it has a result all the same.
func TestHooksOfCutRuns(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := &diary{}
	began, release := make(chan struct{}, 5), make(chan struct{})
	obeys := func(ctx context.Context) error { began <- struct{}{}; <-ctx.Done(); return ctx.Err() }
	s.mux.Func("obeys", obeys)
	s.mux.Func("early", obeys, task.AckEarly())
	s.mux.Func("again", func(ctx context.Context) error { return task.Retry(obeys(ctx)) })
	s.mux.Func("deaf", func(context.Context) error { began <- struct{}{}; <-release; return nil })
	s.mux.Func("ends", func(ctx context.Context) error { _ = obeys(ctx); return nil })
	s.mux.Hook(d.hooks())
	s.start(Config{Concurrency: 5})
	names := []string{"obeys", "early", "again", "deaf", "ends"}
	for _, name := range names {
		s.send(name)
	}
	for range names {
		await(t, began, "the tasks")
	}
	s.worker.Terminate()
	if err := s.end(); !errors.Is(err, ErrTerminated) {
		t.Errorf("the stop: %v", err)
	}
	close(release)
	for _, name := range names[:4] {
		d.expect(t, name, "received from celery", "started true", "ended  cut")
	}
	d.expect(t, "ends", "received from celery", "started true", "succeeded <nil> true", "ended SUCCESS")
}

// Hooks with InChild are called where the task runs, the others in the worker.
func TestHooksInChildren(t *testing.T) {
	t.Parallel()
	s := newProcessSite(t, Config{Concurrency: 1})
	path := t.TempDir() + "/hooks"
	pid := get[int64](s, s.send("hooked", path))
	if text, err := os.ReadFile(path); err != nil || string(text) != fmt.Sprintf("started %d, SUCCESS in %d", pid, pid) {
		t.Errorf("in the child %d the hooks have written %q, %v", pid, text, err)
	}
	s.settled()
}

// inChildHooks write into the file that is the argument of the task hooked who has called them.
func inChildHooks() Hooks {
	write := func(e TaskEvent, format string, args ...any) {
		path, _ := e.Args[0].(string)
		if f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			fmt.Fprintf(f, format, args...)
			_ = f.Close()
		}
	}
	return Hooks{
		InChild: true,
		Started: func(_ context.Context, e TaskStarted) {
			if e.Task == "hooked" {
				write(e.TaskEvent, "started %d, ", os.Getpid())
			}
		},
		Ended: func(_ context.Context, e TaskEnded) {
			if e.Task == "hooked" {
				write(e.TaskEvent, "%s in %d", e.State, os.Getpid())
			}
		},
	}
}

// TestNoHooks wants what nobody hears to cost nothing.
func TestNoHooks(t *testing.T) {
	w := &Worker{log: slog.New(slog.DiscardHandler)}
	e := &execution{job: &job{request: &protocol.Request{}, task: &registered{Definition: &task.Definition{}}}}
	c := completion{state: protocol.Success, result: "x"}
	allocations := testing.AllocsPerRun(100, func() {
		w.tellReceived(e.job)
		w.tellStarted(e)
		w.callHandlers(e, c, nil)
		w.tellEnded(e, c)
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}

// A hook that ends its goroutine ends no actor, and a task's own handler no run.
func TestHooksThatEndTheirGoroutine(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mux.Func("fine", func(n int) (int, error) { return n, nil }, task.OnSuccess(func(context.Context, any) { runtime.Goexit() }))
	s.mux.Hook(Hooks{
		Received:    func(context.Context, TaskReceived) { runtime.Goexit() },
		Revoked:     func(context.Context, TaskRevoked) { runtime.Goexit() },
		Quarantined: func(context.Context, TaskQuarantined) { runtime.Goexit() },
		Started:     func(context.Context, TaskStarted) { runtime.Goexit() },
		Ended:       func(context.Context, TaskEnded) { runtime.Goexit() },
	})
	s.start(Config{Concurrency: 1})
	s.send("no.such")
	s.sendWith("fine", task.ExpiresAt(time.Unix(1, 0)))
	if v, err := s.send("fine", 5).Get(s.context()); err != nil || v != int64(5) {
		t.Errorf("after hooks that ended their goroutines: %v, %v", v, err)
	}
	s.settled()
}
