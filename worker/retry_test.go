package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// TestRetries: the same id runs again until it succeeds, RETRY with the error is stored in between, and the message of
// each attempt is gone when the next one is there.
func TestRetries(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var runs atomic.Int64
	gate := make(chan struct{})
	s.mux.Func("flaky", func(ctx context.Context, until int) (string, error) {
		info, _ := task.FromContext(ctx)
		if runs.Add(1); info.Retries < until {
			return "", fmt.Errorf("in vain: %w", task.Retry(errors.New("not yet"), task.Countdown(0)))
		}
		select { // RETRY is there to be seen
		case <-gate:
		case <-ctx.Done():
		}
		return fmt.Sprint(info.ID, " ", info.Retries, " ", info.ParentID), nil
	})
	s.start(Config{Concurrency: 2})
	r := s.send("flaky", 2)
	for m, err := range s.client.Backend().Watch(s.context(), r.ID()) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Status == protocol.Retry {
			if m.Exception == nil || m.Exception.Args[0] != "not yet" || m.Traceback == "" || !m.DateDone.IsZero() {
				t.Errorf("state RETRY with %+v", m)
			}
			break
		}
	}
	close(gate)
	if v, err := r.Get(s.context()); v != r.ID()+" 2 "+r.ID() || err != nil {
		t.Errorf("ended with %v, %v", v, err)
	}
	if n := runs.Load(); n != 3 {
		t.Errorf("it ran %d times; want 3", n)
	}
	s.settled()
}

// TestRetriesRunOut: the state after the last is FAILURE with the error of the last.
func TestRetriesRunOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	busy := errors.New("busy")
	policy := task.RetryPolicy{On: []error{busy}, OnPython: []string{"RuntimeError"}, MaxRetries: 2}
	var runs atomic.Int64
	s.mux.Func("busy", func() error { runs.Add(1); return fmt.Errorf("queue: %w", busy) }, policy, task.RetryDelay(0))
	s.mux.Func("panics", func() error { runs.Add(1); panic("at the disco") }, policy, task.RetryDelay(0))
	s.mux.Func("wordless", func() error { runs.Add(1); return task.Retry(nil, task.Countdown(0)) }, task.MaxRetries(1))
	s.mux.Func("wrong", func() error { runs.Add(1); return task.Retry(busy, task.ID("x")) })
	s.start(Config{Concurrency: 2})
	for name, want := range map[string]struct {
		runs        int64
		class, text string
	}{
		"busy": {3, "Exception", "queue: busy"}, "panics": {3, "RuntimeError", "panic: at the disco"},
		"wordless": {2, "MaxRetriesExceededError", ""}, "wrong": {1, "", ""},
	} {
		runs.Store(0)
		e := s.failure(s.send(name))
		if n := runs.Load(); n != want.runs || want.class != "" && e.Type != want.class || want.text != "" && e.Message != want.text {
			t.Errorf("%s ran %d times and failed with %v; want %+v", name, n, e, want)
		}
		if name == "panics" && e.Traceback == "" {
			t.Error("a panic without a traceback")
		}
	}
	s.settled()
}

// TestRetryThatCannotBeSent: it has failed with its own error, its message is set aside, and others go on.
func TestRetryThatCannotBeSent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mux.Func("astray", func() error {
		return task.Retry(task.AsPython(errors.New("lost"), "builtins", "KeyError"), task.Exchange("nowhere"), task.RoutingKey("k"))
	})
	s.mux.Func("wordless", func() error { return task.Retry(nil, task.Exchange("nowhere"), task.RoutingKey("k")) })
	s.start(Config{Concurrency: 2})
	if e := s.failure(s.send("astray")); e.Type != "KeyError" || e.Message != "'lost'" && e.Message != "lost" {
		t.Errorf("failed with %v", e)
	}
	if e := s.failure(s.send("wordless")); e.Type != "OperationalError" {
		t.Errorf("failed with %v", e)
	}
	if v, err := s.send("tasks.add", 1, 2).Get(s.context()); v != int64(3) || err != nil {
		t.Errorf("another task: %v, %v", v, err)
	}
	s.settled()
	if q := s.quarantined(); len(q) != 2 {
		t.Errorf("quarantine holds %+v", q)
	}
}

// stuck is a broker with a queue that takes nothing until it is let go.
type stuck struct {
	transport.Transport
	transport.Inspector
	queue string
	open  chan struct{}
	tried chan struct{} // capacity 1
}

// stuck puts such a broker in the place of the site's own.
func (s *site) stuck(queue string) *stuck {
	s.Helper()
	whole := s.client.Transport()
	broker := &stuck{whole, whole.(transport.Inspector), queue, make(chan struct{}), make(chan struct{}, 1)}
	client, err := task.NewClient(broker, s.client.Backend(), s.client.Config())
	if err != nil {
		s.Fatal(err)
	}
	s.client = client
	return broker
}

func (b *stuck) Publish(ctx context.Context, batch []transport.Publication) error {
	if batch[0].RoutingKey == b.queue {
		select {
		case b.tried <- struct{}{}:
		default:
		}
		select {
		case <-b.open:
		case <-ctx.Done():
			return &transport.PublishError{Err: context.Cause(ctx), InDoubt: true}
		}
	}
	return b.Transport.Publish(ctx, batch)
}

// TestRetryThatWaitsHoldsUpNoOther: a queue that takes nothing keeps its retries waiting, unacknowledged, and nothing else.
func TestRetryThatWaitsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	broker := s.stuck("full")
	s.mux.Func("waits", func(ctx context.Context) (int, error) {
		if info, _ := task.FromContext(ctx); info.Retries > 0 {
			return info.Retries, nil
		}
		return 0, task.Retry(nil, task.Countdown(0), task.Queue("full"))
	})
	s.start(Config{Concurrency: 2, Queues: []string{"celery", "full"}})
	r := s.send("waits")
	select {
	case <-broker.tried:
	case <-time.After(30 * time.Second):
		t.Fatal("the retry is not sent")
	}
	for range 20 {
		if v, err := s.send("tasks.add", 1, 2).Get(s.context()); v != int64(3) || err != nil {
			t.Fatalf("another task: %v, %v", v, err)
		}
	}
	close(broker.open)
	if v, err := r.Get(s.context()); v != int64(1) || err != nil {
		t.Errorf("the retry: %v, %v", v, err)
	}
	s.settled()
}

// TestStopWhileRetryWaits: a cold stop leaves the message of a task whose retry could not be sent with the broker.
func TestStopWhileRetryWaits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	broker := s.stuck("full")
	s.mux.Func("waits", func() error { return task.Retry(nil, task.Queue("full")) })
	s.start(Config{Concurrency: 1})
	s.send("waits")
	select {
	case <-broker.tried:
	case <-time.After(30 * time.Second):
		t.Fatal("the retry is not sent")
	}
	s.worker.Terminate()
	if err := s.end(); !errors.Is(err, ErrTerminated) {
		t.Errorf("Run returned %v", err)
	}
	if d := s.depth(); d.Messages != 1 || d.Unacked != 0 {
		t.Errorf("%d wait and %d are unacked; want the message back", d.Messages, d.Unacked)
	}
}

// TestRetriesThatWaitLeaveTheWindow: as many of them as the worker may hold do not keep it from receiving.
func TestRetriesThatWaitLeaveTheWindow(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	broker := s.stuck("full")
	s.mux.Func("waits", func() error { return task.Retry(nil, task.Countdown(0), task.Queue("full")) })
	s.start(Config{Concurrency: 1, PrefetchMultiplier: 4})
	for range 8 {
		s.send("waits")
	}
	await(t, broker.tried, "a retry")
	if v, err := s.send("tasks.add", 1, 2).Get(s.context()); v != int64(3) || err != nil {
		t.Errorf("another task: %v, %v", v, err)
	}
	close(broker.open)
	s.settled()
}

// TestEarlyRetryThatCannotBeSent: its message was acknowledged before it ran, and is in quarantine all the same; hooks are
// told of its end.
func TestEarlyRetryThatCannotBeSent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var failed, quarantined atomic.Int64
	s.mux.Hook(Hooks{
		Failed:      func(context.Context, TaskFailed) { failed.Add(1) },
		Quarantined: func(context.Context, TaskQuarantined) { quarantined.Add(1) },
	})
	s.mux.Func("astray", func() error {
		return task.Retry(errors.New("lost"), task.Exchange("nowhere"), task.RoutingKey("k"))
	}, task.AckEarly())
	s.start(Config{Concurrency: 1})
	r := s.send("astray")
	if e := s.failure(r); e.Message != "lost" {
		t.Errorf("failed with %v", e)
	}
	s.settled()
	q := s.quarantined()
	if len(q) != 1 || s.worker.quarantined.Load() != 1 || !strings.Contains(string(q[0].Raw), r.ID()) {
		t.Errorf("%d are counted, and the quarantine holds %+v", s.worker.quarantined.Load(), q)
	}
	if f, n := failed.Load(), quarantined.Load(); f != 1 || n != 1 {
		t.Errorf("hooks were told of %d failures and %d messages in quarantine", f, n)
	}
}

// TestEarlyRetryAtStop: a cold stop that cuts the sending short puts the message aside, which nobody holds.
func TestEarlyRetryAtStop(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	broker := s.stuck("full")
	s.mux.Func("waits", func() error { return task.Retry(nil, task.Queue("full")) }, task.AckEarly())
	s.start(Config{Concurrency: 1})
	s.send("waits")
	await(t, broker.tried, "the retry")
	s.worker.Terminate()
	if err := s.end(); !errors.Is(err, ErrTerminated) {
		t.Errorf("Run returned %v", err)
	}
	if q := s.quarantined(); len(q) != 1 {
		t.Errorf("quarantine holds %+v", q)
	}
}

// TestDelayOfLateRetry: what waited before it could be sent is delayed for the rest of its time alone.
func TestDelayOfLateRetry(t *testing.T) {
	t.Parallel()
	m := &protocol.Message{}
	m.Headers.ETA = protocol.FormatTime(time.Now().Add(10 * time.Second))
	o := &outcome{continuation: continuation{following: []transport.Publication{{Message: m, Delay: time.Minute}, {Message: m}}}}
	o.recount()
	if d := o.following[0].Delay; d > 10*time.Second || d < 5*time.Second {
		t.Errorf("ten seconds before its eta it is delayed by %v", d)
	}
	if d := o.following[1].Delay; d != 0 {
		t.Errorf("what is not to be delayed is, by %v", d)
	}
}
