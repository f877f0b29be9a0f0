package worker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// slow is a backend that takes its time for what comes before a run: until it is let go, or its caller gives up.
type slow struct {
	backends.Backend
	once sync.Once
	at   chan struct{} // closed when something waits
	open chan struct{}
}

// slow puts such a backend in the place of the site's own.
func (s *site) slow() *slow {
	s.Helper()
	b := &slow{Backend: s.client.Backend(), at: make(chan struct{}), open: make(chan struct{})}
	client, err := task.NewClient(s.client.Transport(), b, s.client.Config())
	if err != nil {
		s.Fatal(err)
	}
	s.client = client
	return b
}

func (b *slow) wait(ctx context.Context) error {
	b.once.Do(func() { close(b.at) })
	select {
	case <-b.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *slow) Store(ctx context.Context, batch []*protocol.ResultMeta) error {
	if batch[0].Status == protocol.Started {
		if err := b.wait(ctx); err != nil {
			return err
		}
	}
	return b.Backend.Store(ctx, batch)
}

func (b *slow) Get(ctx context.Context, id string) (*protocol.ResultMeta, error) {
	if err := b.wait(ctx); err != nil {
		return nil, err
	}
	return b.Backend.Get(ctx, id)
}

// TestColdStopBeforeRun: a task that has its slot and not begun does not begin after a cold stop, and its message is back.
func TestColdStopBeforeRun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.slow()
	var runs atomic.Int64
	s.mux.Func("t", func() { runs.Add(1) })
	s.start(Config{Concurrency: 1, TrackStarted: true})
	s.send("t")
	await(t, b.at, "STARTED")
	s.worker.Terminate()
	if err := s.end(); !errors.Is(err, ErrTerminated) {
		t.Errorf("Run returned %v", err)
	}
	if n, d := runs.Load(), s.depth(); n != 0 || d.Messages != 1 || d.Unacked != 0 {
		t.Errorf("it ran %d times, and the queue has %+v; want the message back", n, d)
	}
}

// TestRevokeBeforeRun: terminate reaches a task that has its slot and has not begun.
func TestRevokeBeforeRun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.slow()
	var runs atomic.Int64
	s.mux.Func("t", func() { runs.Add(1) })
	s.start(Config{Concurrency: 1, TrackStarted: true})
	r := s.send("t")
	await(t, b.at, "STARTED")
	if err := s.client.Revoke(s.context(), []string{r.ID()}, task.Terminate("")); err != nil {
		t.Fatal(err)
	}
	s.knows(r.ID())
	close(b.open)
	if _, err := r.Get(s.context()); !errors.Is(err, task.ErrRevoked) {
		t.Errorf("ended with %v", err)
	}
	if n := runs.Load(); n != 0 {
		t.Errorf("it ran %d times", n)
	}
	s.settled()
}

// TestStopWhileLookedUp: whether a task has succeeded before is not known when a stop cuts the question short, so it does
// not run, whatever its cap.
func TestStopWhileLookedUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.slow()
	var runs atomic.Int64
	s.mux.Func("t", func() error { runs.Add(1); return task.Reject(nil, true) })
	s.start(Config{Concurrency: 1, Deduplicate: true, MaxDeliveries: -1})
	s.send("t")
	await(t, b.at, "a look-up")
	before := runs.Load()
	s.stop()
	if err := s.end(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if n := runs.Load(); n != before {
		t.Errorf("it ran %d times, and %d times after the stop", before, n)
	}
	if d := s.depth(); d.Messages != 1 || d.Unacked != 0 {
		t.Errorf("the queue has %+v; want the message back", d)
	}
}
