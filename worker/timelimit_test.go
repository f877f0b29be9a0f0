package worker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// TestTimeLimitSources: each of the two limits is looked up by itself, from the message down to the worker.
func TestTimeLimitSources(t *testing.T) {
	t.Parallel()
	const s = time.Second
	tests := []struct {
		name                        string
		message                     protocol.TimeLimit
		set                         *timeLimits
		definition, config, expects timeLimits
	}{
		{name: "none"},
		{name: "worker", config: timeLimits{9 * s, 8 * s}, expects: timeLimits{9 * s, 8 * s}},
		{name: "definition", definition: timeLimits{7 * s, 6 * s}, config: timeLimits{9 * s, 8 * s}, expects: timeLimits{7 * s, 6 * s}},
		{name: "each by itself", message: protocol.TimeLimit{Soft: 1.5}, definition: timeLimits{7 * s, 6 * s}, expects: timeLimits{7 * s, 1500 * time.Millisecond}},
		{name: "one from each", message: protocol.TimeLimit{Hard: 20}, definition: timeLimits{soft: 6 * s}, config: timeLimits{9 * s, 8 * s},
			expects: timeLimits{20 * s, 6 * s}},
		{name: "set at run time", set: &timeLimits{5 * s, 4 * s}, definition: timeLimits{7 * s, 6 * s}, config: timeLimits{9 * s, 8 * s},
			expects: timeLimits{5 * s, 4 * s}},
		{name: "cleared at run time", set: &timeLimits{hard: 10 * s}, definition: timeLimits{7 * s, 6 * s}, config: timeLimits{9 * s, 8 * s},
			expects: timeLimits{10 * s, 8 * s}},
		{name: "message before run time", message: protocol.TimeLimit{Hard: 3}, set: &timeLimits{5 * s, 2 * s}, expects: timeLimits{3 * s, 2 * s}},
		{name: "soft above hard", message: protocol.TimeLimit{Hard: 1, Soft: 2}, expects: timeLimits{1 * s, 0}},
		{name: "soft is hard", message: protocol.TimeLimit{Hard: 1, Soft: 1}, expects: timeLimits{1 * s, 0}},
		{name: "longer than a duration", message: protocol.TimeLimit{Hard: math.Inf(1), Soft: 1e300}, expects: timeLimits{maxLimit, 0}},
		{name: "shorter than a duration", message: protocol.TimeLimit{Soft: 1e-300}, expects: timeLimits{0, 1}},
		{name: "nonsense", message: protocol.TimeLimit{Hard: -1, Soft: math.NaN()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := &job{request: &protocol.Request{}, task: &registered{Definition: &task.Definition{}}}
			j.request.TimeLimit = tt.message
			j.task.Defaults = task.Defaults{TimeLimit: tt.definition.hard, SoftTimeLimit: tt.definition.soft}
			j.task.limits.Store(tt.set)
			w := &Worker{config: Config{TimeLimit: tt.config.hard, SoftTimeLimit: tt.config.soft}}
			if hard, soft := w.timeLimits(j); (timeLimits{hard, soft}) != tt.expects {
				t.Errorf("hard %v, soft %v; expected %v", hard, soft, tt.expects)
			}
		})
	}
}

func TestSetTimeLimit(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w, err := New(s.client, s.mux, Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"unknown": w.SetTimeLimit("nobody.knows", 1, 1), "negative": w.SetTimeLimit("tasks.add", -1, 0), "soft > hard": w.SetTimeLimit("tasks.add", 1, 2),
	} {
		if err == nil || name == "unknown" != errors.Is(err, task.ErrNotRegistered) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.SetTimeLimit("tasks.add", 2, 1); err != nil || *w.tasks["tasks.add"].limits.Load() != (timeLimits{2, 1}) {
		t.Errorf("the limits are %v, %v", w.tasks["tasks.add"].limits.Load(), err)
	}
}

// TestSoftTimeLimit: what a task does about its soft limit decides about its state.
func TestSoftTimeLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		left := make(chan time.Duration, 1)
		s.mux.Func("cleans up", func(ctx context.Context) (string, error) {
			deadline, _ := ctx.Deadline()
			left <- time.Until(deadline)
			<-ctx.Done()
			return fmt.Sprint(errors.Is(context.Cause(ctx), task.ErrSoftTimeLimit), ctx.Err()), nil
		})
		s.mux.Func("cause", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) })
		s.mux.Func("error", func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("asking: %w", ctx.Err()) })
		s.mux.Func("another", func(ctx context.Context) error { <-ctx.Done(); return errors.New("something else") })
		s.start(Config{Concurrency: 1, SoftTimeLimit: 1500 * time.Millisecond, TimeLimit: 3 * time.Second})
		if v, err := s.send("cleans up").Get(s.context()); v != "true context deadline exceeded" || err != nil {
			t.Errorf("got %v, %v", v, err)
		}
		if d := <-left; d != 1500*time.Millisecond {
			t.Errorf("the context's deadline came after %v", d)
		}
		for _, name := range []string{"cause", "error"} {
			if e := s.failure(s.send(name)); e.Type != "SoftTimeLimitExceeded" || e.Module != "billiard.exceptions" {
				t.Errorf("%s: %s.%s %v", name, e.Module, e.Type, e)
			}
		}
		if e := s.failure(s.send("another")); e.Type == "SoftTimeLimitExceeded" {
			t.Errorf("another error became %v", e)
		}
	})
}

// TestHardTimeLimit: the outcome stands at the limit; what the task does after it counts for nothing, and it keeps its slot.
func TestHardTimeLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		type late struct{ progress, send, cause error }
		told, goOn := make(chan late, 1), make(chan struct{})
		s.mux.Func("stubborn", func(ctx context.Context) (string, error) {
			<-goOn
			info, _ := task.FromContext(ctx)
			_, err := info.Client.Send(ctx, "tasks.add", []any{1, 1}, nil)
			told <- late{task.Progress(context.WithoutCancel(ctx), 1), err, context.Cause(ctx)}
			return "late", nil
		}, task.TimeLimit(time.Second))
		s.start(Config{Concurrency: 1})
		begun := time.Now()
		r, next := s.send("stubborn"), s.send("tasks.add", 1, 2)
		e := s.failure(r)
		if took := time.Since(begun); took != time.Second {
			t.Errorf("the failure came after %v", took)
		}
		if e.Type != "TimeLimitExceeded" || e.Module != "billiard.exceptions" || fmt.Sprint(e.Args) != "[1]" {
			t.Errorf("failed with %s.%s %v", e.Module, e.Type, e.Args)
		}
		synctest.Wait()
		if ok, err := next.Ready(s.context()); ok || err != nil {
			t.Errorf("another task took the slot: %v, %v", ok, err)
		}
		if d := s.depth(); d.Unacked != 1 { // the next one
			t.Errorf("after the failure: %+v", d)
		}
		close(goOn)
		if l := <-told; l.progress == nil || l.send == nil || !errors.Is(l.cause, task.ErrTimeLimit) {
			t.Errorf("late: progress %v, sending %v, cause %v", l.progress, l.send, l.cause)
		}
		if v, err := next.Get(s.context()); v != int64(3) || err != nil {
			t.Errorf("the next task: %v, %v", v, err)
		}
		if e := s.failure(r); e.Type != "TimeLimitExceeded" {
			t.Errorf("the late return replaced the outcome by %v", e)
		}
		s.settled()
	})
}

// lagging is a backend that stores a progress only when the call is given up, and a little later.
type lagging struct{ backends.Backend }

func (b *lagging) Store(ctx context.Context, m []*protocol.ResultMeta) error {
	if m[0].Status == task.StateProgress {
		<-ctx.Done()
		<-time.After(reportGrace / 2)
		ctx = context.WithoutCancel(ctx)
	}
	return b.Backend.Store(ctx, m)
}

// TestLateReport: a progress that is on its way when the limit comes does not take the place of the failure.
func TestLateReport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		client, err := task.NewClient(s.client.Transport(), &lagging{s.client.Backend()}, s.client.Config())
		if err != nil {
			t.Fatal(err)
		}
		s.mux.Func("reports", func(context.Context) error { return nil }, task.TimeLimit(time.Second))
		s.mux.Use(func(next task.Handler) task.Handler {
			return func(ctx context.Context, r *protocol.Request) (any, error) {
				_ = task.Progress(context.WithoutCancel(ctx), 1)
				return next(ctx, r)
			}
		})
		s.client = client
		s.start(Config{Concurrency: 1})
		r := s.send("reports")
		if e := s.failure(r); e.Type != "TimeLimitExceeded" {
			t.Errorf("failed with %v", e)
		}
		s.settled()
		if m, err := r.Meta(s.context()); err != nil || m.Status != protocol.Failure {
			t.Errorf("the state is %s, %v", m.Status, err)
		}
	})
}

// TestGivenUp: a run whose context is done by its soft limit learns of the hard one nevertheless.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	heard := make(chan struct{})
	s.mux.Func("stubborn", func(ctx context.Context) error {
		<-ctx.Done()
		info, _ := task.FromContext(ctx)
		<-info.GivenUp
		close(heard)
		return nil
	})
	s.start(Config{SoftTimeLimit: 20 * time.Millisecond, TimeLimit: 100 * time.Millisecond})
	if err := s.failure(s.send("stubborn")); !errors.Is(err, task.ErrTimeLimit) {
		t.Errorf("the task ended with %v; expected its hard time limit", err)
	}
	await(t, heard, "the hard limit, in the task")
}
