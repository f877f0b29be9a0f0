package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// TestUnknownTaskRejected: as in Celery.
func TestUnknownTaskRejected(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{UnknownTask: "reject"})
	if e := s.failure(s.send("no.such.task", 1)); !errors.Is(e, task.ErrNotRegistered) {
		t.Errorf("failure is %v", e)
	}
	s.settled()
	if q := s.quarantined(); len(q) != 0 {
		t.Errorf("quarantine holds %+v", q)
	}
}

// TestUnknownTaskHandedBack: another worker on the queue, which knows the task, gets it as it was.
func TestUnknownTaskHandedBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{UnknownTask: "requeue"})
	r, err := s.client.Send(s.context(), "theirs", []any{1}, nil, task.Header("tenant", "a"), task.Priority(3))
	if err != nil {
		t.Fatal(err)
	}
	mux := NewMux()
	mux.Func("theirs", func(ctx context.Context, x int) (string, error) {
		info, _ := task.FromContext(ctx)
		if info.Hops() == 0 {
			return "", task.Reject(nil, true) // the other worker has not had it yet
		}
		if info.Headers.Redelivered || info.Properties.Priority != 3 || string(info.Header("tenant")) != `"a"` {
			return "", errors.New("it is not as it was")
		}
		return "done", nil
	})
	w, err := New(s.client, mux, Config{UnknownTask: "requeue", MaxDeliveries: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	if v, err := r.Get(s.context()); v != "done" || err != nil {
		t.Errorf("ended with %v, %v", v, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	s.settled()
}

// TestUnknownTaskAtLast: a task nobody knows is set aside when it has been handed back often enough.
func TestUnknownTaskAtLast(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{UnknownTask: "requeue", UnknownTaskHops: 2})
	begun := time.Now()
	if e := s.failure(s.send("nobodys")); !errors.Is(e, task.ErrNotRegistered) {
		t.Errorf("failure is %v", e)
	}
	if took := time.Since(begun); took < 3*firstHop {
		t.Errorf("it was handed back twice in %v", took)
	}
	s.settled()
	if q := s.quarantined(); len(q) != 1 || !strings.Contains(q[0].Reason, "handed back 2 times") {
		t.Errorf("quarantine holds %+v", q)
	}
}

// TestUnknownTaskAtStop: what waits to be handed back is given back when the worker stops.
func TestUnknownTaskAtStop(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{UnknownTask: "requeue", Concurrency: 1, PrefetchMultiplier: 1})
	for range 20 { // many more than the window
		s.raw(func(m *protocol.Message) { m.Headers.Task = "nobodys"; m.Headers.SetHops(50) })
	}
	if v, err := s.send("tasks.add", 1, 2).Get(s.context()); v != int64(3) || err != nil {
		t.Errorf("a task behind them: %v, %v", v, err)
	}
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	if d := s.depth(); d.Messages != 20 || d.Unacked != 0 {
		t.Errorf("%+v; want 20 messages back", d)
	}
}

func TestHopDelay(t *testing.T) {
	t.Parallel()
	for hops, want := range map[int]time.Duration{0: firstHop, 1: 2 * firstHop, 8: 256 * firstHop, 9: lastHop, 10: lastHop, 1 << 40: lastHop} {
		if got := hopDelay(hops); got != want {
			t.Errorf("hop %d waits %v; want %v", hops, got, want)
		}
	}
}

// TestOutcomeSettings: what makes no sense is refused by its name.
func TestOutcomeSettings(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for want, c := range map[string]Config{"UnknownTask": {UnknownTask: "drop"}} {
		if _, err := New(s.client, NewMux(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %s", c, err, want)
		}
	}
}
