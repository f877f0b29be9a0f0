package interop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
	"github.com/gelery/gelery/worker"
)

// soon is SOON of python/outcomes.py.
const soon = 200 * time.Millisecond

type three struct {
	X int `task:"x"`
	Y int `task:"y"`
	Z int `task:"z,kwonly,default=1"`
}

type crossing struct {
	Queue  string         `task:"queue"`
	Args   []any          `task:",varargs"`
	Kwargs map[string]any `task:",remain"`
}

// outcomeTasks are the tasks of python/outcomes.py.
func outcomeTasks() *worker.Mux {
	mux := worker.NewMux()
	python := func(class string, args ...any) error { return task.AsPython(nil, "builtins", class, args...) }
	nope := func(ctx context.Context) error {
		info, _ := task.FromContext(ctx)
		return python("KeyError", fmt.Sprint("nope ", info.Retries))
	}
	mux.Func("outcome.returns", func(v any) (any, error) { return v, nil })
	mux.Func("outcome.takes", func(ctx context.Context, seconds float64) error {
		select {
		case <-time.After(time.Duration(seconds * float64(time.Second))):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	mux.Func("outcome.quiet", func(fail bool) (int, error) {
		if fail {
			return 0, python("ValueError", "kaput")
		}
		return 1, nil
	}, task.IgnoreResult(true))
	worker.Handle(mux, task.Define[three, int]("outcome.arguments"), func(_ context.Context, a three) (int, error) {
		return a.X + a.Y + a.Z, nil
	})
	mux.Func("outcome.fails", func() error { return python("ValueError", "kaput", 42) })
	mux.Func("outcome.expected", func() error { return python("KeyError", "ok") }, task.Throws(task.PyError("LookupError")))
	mux.Func("outcome.ignores", func() error { return task.Ignore })
	mux.Func("outcome.custom", func(ctx context.Context) error {
		info, _ := task.FromContext(ctx)
		return errors.Join(info.UpdateState(ctx, "BLOCKED", map[string]any{"by": 7}), task.Ignore)
	})
	mux.Func("outcome.rejects", func() error { return task.Reject(errors.New("no thanks"), false) })
	mux.Func("outcome.requeues", func(ctx context.Context) (string, error) {
		if info, _ := task.FromContext(ctx); !info.Redelivered {
			return "", task.Reject(errors.New("later"), true)
		}
		return "again", nil
	})
	mux.Func("outcome.retries", func(ctx context.Context, until int) (int, error) {
		info, _ := task.FromContext(ctx)
		if info.Retries < until {
			return 0, task.Retry(nope(ctx), task.Countdown(soon))
		}
		return info.Retries, nil
	})
	mux.Func("outcome.exhausts", func(any) error { return task.Retry(python("KeyError", "nope"), task.Countdown(soon)) }, task.MaxRetries(1))
	mux.Func("outcome.wordless", func(_, _ any) error { return task.Retry(nil) }, task.MaxRetries(1), task.RetryDelay(soon), task.Params("x", "y"))
	mux.Func("outcome.override", func() error {
		return task.Retry(python("KeyError", "nope"), task.Countdown(soon), task.MaxRetries(1))
	}, task.MaxRetries(0))
	mux.Func("outcome.never", func() error { return task.Retry(python("KeyError", "nope"), task.Countdown(soon)) }, task.MaxRetries(0))
	mux.Func("outcome.arguments_anew", func(ctx context.Context, n, left int) ([]any, error) {
		if n > 0 {
			return nil, task.Retry(nil, task.RetryArgs(n-1), task.RetryKwargs(map[string]any{"left": left + n}), task.Countdown(soon))
		}
		info, _ := task.FromContext(ctx)
		return []any{left, info.ArgsRepr, info.KwargsRepr}, nil
	}, task.Params("n", "left"))
	mux.Func("outcome.auto", func(ctx context.Context, until int) (int, error) {
		info, _ := task.FromContext(ctx)
		if info.Retries < until {
			return 0, nope(ctx)
		}
		return info.Retries, nil
	}, task.RetryPolicy{OnPython: []string{"LookupError"}, MaxRetries: 2, Delay: soon})
	mux.Func("outcome.auto_other", func() error { return python("ValueError", "not this one") },
		task.RetryPolicy{OnPython: []string{"LookupError"}, Delay: soon})
	mux.Func("outcome.auto_backoff", func() error { return python("KeyError", "nope") },
		task.RetryPolicy{OnPython: []string{"Exception"}, Backoff: time.Second, NoJitter: true}, task.MaxRetries(1))
	sleeps := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	mux.Func("outcome.soft", sleeps, task.SoftTimeLimit(time.Second))
	mux.Func("outcome.soft_caught", func(ctx context.Context) (string, error) { <-ctx.Done(); return "cleaned up", nil },
		task.SoftTimeLimit(time.Second))
	mux.Func("outcome.hard", sleeps, task.TimeLimit(time.Second))
	mux.Func("outcome.dead", func() error { return python("ValueError", "kaput") }, task.AckOnFailure(false))
	worker.Handle(mux, task.Define[crossing, map[string]any]("outcome.crosses"), crosses)
	return mux
}

// startOutcomes runs a Go worker with these tasks, one at a time, and returns what it logs.
func startOutcomes(t *testing.T, config task.Config, c worker.Config) *Output {
	t.Helper()
	log := newOutput()
	c.Concurrency, c.Logger = 1, slog.New(plainLog{log})
	runMux(t, config, outcomeTasks(), c)
	return log
}

// plainLog writes the messages of a log and nothing else.
type plainLog struct{ *Output }

func (plainLog) Enabled(context.Context, slog.Level) bool { return true }
func (l plainLog) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l plainLog) WithGroup(string) slog.Handler          { return l }
func (l plainLog) Handle(_ context.Context, r slog.Record) error {
	_, err := l.Write([]byte(r.Message + "\n"))
	return err
}

// outcome is a task with the ways it may be called, and how it ends in the log of either worker.
type outcome struct {
	name string // of the cell, and the task's without "outcome."
	args []any
	kw   map[string]any
	opts []task.SendOption
	want string // the final state; "" is none
	log  string // the line that ends it, after "Task name[id] "
	own  bool   // the text of the exception is each side's own
}

// TestOutcomes gives the same calls to a Python and to a Go worker, and compares the states they store with all that is in
// them, and the lines they log.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, everyStack, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		s.Queue, s.Conf = pyQueue, map[string]any{"imports": []string{"outcomes"}}
		python := c.StartWorker(t, s, "threads", 1)
		config := task.Config{Broker: s.Broker, Backend: s.Backend, Queue: goQueue}
		log := startOutcomes(t, config, worker.Config{})
		client := connect(t, config)
		if !c.AtLeast("5.3") {
			python = nil // its logging of failures does not work with Python 3.11
		}
		for _, o := range []outcome{
			{name: "returns", args: []any{3}, want: "SUCCESS", log: `succeeded in [\d.e-]+s: 3$`},
			{name: "returns ignored", args: []any{3}, opts: []task.SendOption{task.IgnoreResult(true)}, log: `succeeded in [\d.e-]+s: 3$`},
			{name: "quiet", args: []any{false}, log: `succeeded in [\d.e-]+s: 1$`},
			{name: "quiet fails", args: []any{true}, log: `raised unexpected: ValueError\('kaput'\)`},
			{name: "arguments", args: []any{1, 2}, kw: map[string]any{"z": 3}, want: "SUCCESS", log: `succeeded in [\d.e-]+s: 6$`},
			{name: "arguments missing", args: []any{1}, want: "FAILURE", log: `raised unexpected: TypeError\(.arguments\(\) missing 1 required positional argument: 'y'.\)`},
			{name: "arguments unexpected", args: []any{1, 2}, kw: map[string]any{"w": 3}, want: "FAILURE", log: `raised unexpected: TypeError\(`},
			{name: "fails", want: "FAILURE", log: `raised unexpected: ValueError\('kaput', 42\)`},
			{name: "expected", want: "FAILURE", log: `raised expected: KeyError\('ok'\)`},
			{name: "ignores", log: `ignored$`},
			{name: "custom", want: "BLOCKED", log: `ignored$`},
			{name: "rejects", log: `reject requeue=False: no thanks$`},
			{name: "requeues", want: "SUCCESS", log: `succeeded in [\d.e-]+s: 'again'$`},
			{name: "retries", args: []any{2}, want: "SUCCESS", log: `retry: Retry in 0\.2s: KeyError\('nope 1'\)$`},
			{name: "retries too often", args: []any{9}, want: "FAILURE", log: `raised unexpected: KeyError\('nope 3'\)`},
			{name: "exhausts", args: []any{1}, want: "FAILURE", log: `raised unexpected: KeyError\('nope'\)`},
			{name: "wordless", args: []any{1}, kw: map[string]any{"y": "é"}, want: "FAILURE", log: `retry: Retry in 0\.2s$`},
			{name: "override", want: "FAILURE", log: `retry: Retry in 0\.2s: KeyError\('nope'\)$`},
			{name: "never", want: "FAILURE", log: `raised unexpected: KeyError\('nope'\)`},
			{name: "arguments_anew", args: []any{2}, kw: map[string]any{"left": 1}, want: "SUCCESS", log: `retry: Retry in 0\.2s$`},
			{name: "auto", args: []any{2}, want: "SUCCESS", log: `retry: Retry in 0\.2s: KeyError\('nope 1'\)$`},
			{name: "auto too often", args: []any{3}, want: "FAILURE", log: `raised unexpected: KeyError\('nope 2'\)`},
			{name: "auto_other", want: "FAILURE", log: `raised unexpected: ValueError\('not this one'\)`},
			{name: "auto_backoff", want: "FAILURE", log: `retry: Retry in 1s: KeyError\('nope'\)$`},
			{name: "returns expired", args: []any{3}, opts: []task.SendOption{task.ExpiresAt(time.Unix(1, 0))}, want: "REVOKED"},
		} {
			if strings.HasSuffix(o.name, "expired") && c.Broker == "rabbitmq" {
				continue // the broker drops it
			}
			c.To(GoToPython).Cell(t, "outcome "+o.name, func(t *testing.T) { o.compare(t, client, python, log) })
		}
	})
}

// compare runs the call on both workers.
func (o outcome) compare(t *testing.T, client *task.Client, python *Process, golang *Output) {
	t.Helper()
	var said *Output // nil: its lines are not looked at
	if python != nil {
		said = python.Output
	}
	want := o.run(t, client, pyQueue, said)
	got := o.run(t, client, goQueue, golang)
	// The newest state is told when somebody asks, and on a busy machine one may be gone by then.
	if len(want) > len(got) {
		want = seenBoth(want, got)
	} else {
		got = seenBoth(got, want)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Python (-) and Go (+) differ:\n%s", diff)
	}
	if last := want[len(want)-1]; last.State != protocol.State(o.want) && (o.want != "" || last.State != protocol.Pending) {
		t.Errorf("Python ends it as %s; expected %q", last.State, o.want)
	}
}

// seenBoth leaves out of all states those that are not among the few.
func seenBoth(all, few []seen) []seen {
	return slices.DeleteFunc(slices.Clone(all), func(s seen) bool { return !slices.Contains(few, s) && !s.State.Ready() })
}

// seen is a state as a result backend tells it, without what differs from run to run.
type seen struct {
	State     protocol.State
	Result    string
	Exception string
	Last      string // line of the traceback
	Parent    string
	Done      bool
}

// run sends the call to a queue and returns the states it goes through, RETRY and those behind it.
func (o outcome) run(t *testing.T, client *task.Client, queue string, log *Output) (states []seen) {
	t.Helper()
	name, _, _ := strings.Cut(o.name, " ")
	r, err := client.Send(within(t), "outcome."+name, o.args, o.kw, append(o.opts, task.Queue(queue))...)
	if err != nil {
		t.Fatal(err)
	}
	add := func(m *protocol.ResultMeta) {
		if m.Status == protocol.Started || m.Status == protocol.Pending && len(states) > 0 {
			return
		}
		s := seen{State: m.Status, Result: value.Repr(m.Result, 1000), Parent: strings.ReplaceAll(m.ParentID, r.ID(), "ID"), Done: !m.DateDone.IsZero()}
		if m.Exception != nil {
			s.Exception = strings.ReplaceAll(m.Exception.Module+"."+m.Exception.String(), r.ID(), "ID")
			lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(m.Traceback, r.ID(), "ID")), "\n")
			s.Last = lines[len(lines)-1]
		}
		if m.Status == protocol.Retry {
			s.Last = "" // Python shows the Retry there
		}
		if o.own && m.Exception != nil {
			s.Exception, s.Last = m.Exception.Type, ""
		}
		if n := len(states); n == 0 || states[n-1] != s {
			states = append(states, s)
		}
	}
	if protocol.State(o.want).Ready() {
		for m, err := range client.Backend().Watch(within(t), r.ID()) {
			if err != nil {
				t.Fatal(err)
			}
			add(m)
		}
		states = trimPending(states)
	} else { // what comes behind it in the only slot ends when it has ended
		wantResult(t, client, "outcome.returns", []any{1}, int64(1), task.Queue(queue))
		m, err := client.Backend().Get(within(t), r.ID())
		if err != nil {
			t.Fatal(err)
		}
		add(m)
	}
	if o.log != "" && log != nil {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := log.waitFor(ctx, regexp.MustCompile(`Task outcome\.`+name+`\[`+r.ID()+`\] `+o.log)); err != nil {
			t.Errorf("queue %s: no line like %q: %v", queue, o.log, err)
		}
	}
	return states
}

func trimPending(states []seen) []seen {
	if len(states) > 1 && states[0].State == protocol.Pending {
		return states[1:]
	}
	return states
}

// TestTimedOutcomes is the part of TestOutcomes for which Python needs processes, and a second each.
func TestTimedOutcomes(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RedisStack}, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		s.Queue, s.Conf = pyQueue, map[string]any{"imports": []string{"outcomes"}}
		python := c.StartWorker(t, s, "prefork", 1)
		if !c.AtLeast("5.3") {
			python = nil // as in TestOutcomes
		}
		config := task.Config{Broker: s.Broker, Backend: s.Backend, Queue: goQueue}
		log := startOutcomes(t, config, worker.Config{})
		client := connect(t, config)
		for _, o := range []outcome{
			{name: "soft", want: "FAILURE", own: true, log: `raised unexpected: SoftTimeLimitExceeded\(`},
			{name: "soft_caught", want: "SUCCESS", log: `succeeded in [\d.e-]+s: 'cleaned up'$`},
			{name: "hard", want: "FAILURE"},
		} {
			c.To(GoToPython).Cell(t, "outcome "+o.name, func(t *testing.T) { o.compare(t, client, python, log) })
		}
	})
}

// TestErrorsOfIgnoredResults: task_store_errors_even_if_ignored on both sides.
func TestErrorsOfIgnoredResults(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RedisStack, RabbitMQRPCStack}, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		s.Queue, s.Conf = pyQueue, map[string]any{"imports": []string{"outcomes"}, "task_store_errors_even_if_ignored": true}
		python := c.StartWorker(t, s, "threads", 1)
		if !c.AtLeast("5.3") {
			python = nil // as in TestOutcomes
		}
		config := task.Config{Broker: s.Broker, Backend: s.Backend, Queue: goQueue}
		log := startOutcomes(t, config, worker.Config{StoreErrorsEvenIfIgnored: true})
		client := connect(t, config)
		for _, o := range []outcome{
			{name: "quiet", args: []any{false}, log: `succeeded in [\d.e-]+s: 1$`},
			{name: "quiet fails", args: []any{true}, want: "FAILURE", log: `raised unexpected: ValueError\('kaput'\)`},
		} {
			c.To(GoToPython).Cell(t, "stored errors, "+o.name, func(t *testing.T) { o.compare(t, client, python, log) })
		}
	})
}

// TestDeadLetters: what is rejected, by the task or because it has failed, is dead-lettered on RabbitMQ by either worker.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RabbitMQStack}, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		letters := map[string]any{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
		queues := []transport.Queue{{Name: "dead"}, {Name: pyQueue, Arguments: letters}, {Name: goQueue, Arguments: letters}}
		s.Queue, s.Queues, s.Conf = pyQueue, queues, map[string]any{"imports": []string{"outcomes"}}
		c.StartWorker(t, s, "threads", 1)
		config := task.Config{Broker: s.Broker, Backend: s.Backend, Queue: goQueue, Queues: queues}
		startOutcomes(t, config, worker.Config{Queues: []string{goQueue}})
		client := connect(t, config)
		send(t, client, "outcome.returns", []any{1}, task.Queue("dead")) // declares it
		letter := func() transport.Delivery {
			t.Helper()
			consumer, err := client.Transport().Consume(within(t), transport.ConsumeOptions{Queues: queues[:1], Prefetch: 1})
			if err != nil {
				t.Fatal(err)
			}
			batch, err := consumer.Receive(within(t), 1)
			if err != nil {
				t.Fatal(err)
			}
			_, err = consumer.Settle(within(t), []transport.Settlement{{Delivery: &batch[0]}})
			if err = errors.Join(err, consumer.Close(within(t))); err != nil {
				t.Fatal(err)
			}
			return batch[0]
		}
		letter()
		for _, queue := range []string{pyQueue, goQueue} {
			for _, name := range []string{"outcome.dead", "outcome.rejects"} {
				c.To(GoToPython).Cell(t, "dead letter of "+queue+", "+name, func(t *testing.T) {
					r, err := client.Send(within(t), name, nil, nil, task.Queue(queue))
					if err != nil {
						t.Fatal(err)
					}
					d := letter()
					if d.Message.Headers.ID != r.ID() || !strings.Contains(fmt.Sprint(d.Message.Headers.Extra), "x-death") {
						t.Errorf("another letter: %+v", d.Message.Headers)
					}
					if _, err := r.Get(within(t)); name == "outcome.dead" && !errors.Is(err, task.PyError("ValueError")) {
						t.Errorf("failed with %v", err)
					}
				})
			}
		}
	})
}

// crosses is the task outcome.crosses of python/outcomes.py.
func crosses(ctx context.Context, a crossing) (map[string]any, error) {
	info, _ := task.FromContext(ctx)
	if info.Retries == 0 {
		return nil, task.Retry(task.AsPython(nil, "builtins", "KeyError", "crossing"), task.Queue(a.Queue), task.Countdown(soon))
	}
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
	seen := map[string]any{
		"id": info.ID, "root_id": info.RootID, "parent_id": orNone(info.ParentID), "group": orNone(info.Group), "retries": info.Retries,
		"args": a.Args, "kwargs": a.Kwargs, "argsrepr": info.ArgsRepr, "kwargsrepr": info.KwargsRepr, "origin": info.Origin,
		"shadow": orNone(info.Shadow), "timelimit": []any{limit(info.TimeLimit.Hard), limit(info.TimeLimit.Soft)}, "eta": info.ETA != "",
		"expires": orNone(info.Expires), "correlation_id": info.Properties.CorrelationID, "reply_to": info.Properties.ReplyTo,
		"priority": info.Properties.Priority, "tenant": nil, "stamps": nil, "stamped_headers": nil,
	}
	seen["tenant"] = info.CustomHeaders()["tenant"]
	if len(info.Stamps) > 0 {
		seen["stamps"], seen["stamped_headers"] = info.StampValues(), info.StampedHeaders
	}
	return seen, nil
}
