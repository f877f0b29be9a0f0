package worker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// counting is a broker that counts in its messages as Redis does, or beside them as RabbitMQ does.
type counting struct {
	transport.Transport
	transport.Inspector
	beside bool
	fail   error // what Begin returns once, with the message taken back

	mu     sync.Mutex
	counts map[string]int
	begun  atomic.Int64
}

func (b *counting) Consume(ctx context.Context, o transport.ConsumeOptions) (transport.Consumer, error) {
	c, err := b.Transport.Consume(ctx, o)
	return &countingConsumer{c, b}, err
}

type countingConsumer struct {
	transport.Consumer
	b *counting
}

func (c *countingConsumer) Receive(ctx context.Context, most int) ([]transport.Delivery, error) {
	batch, err := c.Consumer.Receive(ctx, most)
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	for _, d := range batch {
		d.Message.Headers.SetAttempts(0)
		if n := c.b.counts[d.Message.Headers.ID]; n > 0 && !c.b.beside {
			d.Message.Headers.SetAttempts(n)
		}
	}
	return batch, err
}

func (c *countingConsumer) Begin(ctx context.Context, d *transport.Delivery) error {
	c.b.begun.Add(1)
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if err := c.b.fail; err != nil {
		c.b.fail = nil
		if errors.Is(err, transport.ErrTakenBack) {
			_, _ = c.Settle(ctx, []transport.Settlement{{Delivery: d, Verdict: transport.Requeue}})
		}
		return err
	}
	id := d.Message.Headers.ID
	c.b.counts[id]++
	m := *d.Message
	m.Headers.SetAttempts(c.b.counts[id])
	d.Message = &m
	return nil
}

func newCountingSite(t *testing.T) (*site, *counting) {
	t.Helper()
	s := newSite(t)
	whole := s.client.Transport()
	b := &counting{Transport: whole, Inspector: whole.(transport.Inspector), counts: map[string]int{}}
	client, err := task.NewClient(b, s.client.Backend(), s.client.Config())
	if err != nil {
		t.Fatal(err)
	}
	s.client = client
	return s, b
}

// TestDeliveryCap: a message that never comes to an end is put aside, with its history, and whoever waits is told.
func TestDeliveryCap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		beside bool
		config int
		option []task.DefineOption
		runs   int64
	}{
		{"default", false, 0, nil, 6},
		{"of the worker", false, 2, nil, 3},
		{"of the task", false, 2, []task.DefineOption{task.MaxDeliveries(1)}, 2},
		{"counted beside the message", true, 2, nil, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, b := newCountingSite(t)
			b.beside = c.beside
			var runs atomic.Int64
			s.mux.Func("killer", func() error { runs.Add(1); return task.Reject(nil, true) }, c.option...)
			s.start(Config{Concurrency: 1, MaxDeliveries: c.config})
			e := s.failure(s.send("killer"))
			if !errors.Is(e, task.ErrWorkerLost) || e.Module != "billiard.exceptions" || !strings.Contains(e.Message, "has begun") {
				t.Errorf("failed with %v", e)
			}
			if n := runs.Load(); n != c.runs {
				t.Errorf("it ran %d times; want %d", n, c.runs)
			}
			s.settled()
			if q := s.quarantined(); len(q) != 1 || !strings.Contains(q[0].Reason, "has begun") {
				t.Errorf("quarantine holds %+v", q)
			}
		})
	}
}

// TestNoDeliveryCap: without a cap nothing is counted, and neither is what is acknowledged before it runs.
func TestNoDeliveryCap(t *testing.T) {
	t.Parallel()
	s, b := newCountingSite(t)
	var runs atomic.Int64
	s.mux.Func("long", func() error {
		if runs.Add(1) < 20 {
			return task.Reject(nil, true)
		}
		return nil
	})
	s.mux.Func("early", func() error { return nil }, task.AckEarly())
	s.start(Config{Concurrency: 1, MaxDeliveries: -1})
	if _, err := s.send("long").Get(s.context()); err != nil {
		t.Error(err)
	}
	id := s.redelivered("early")
	s.ready(id, protocol.Success)
	s.settled()
	if n := b.begun.Load(); n != 0 {
		t.Errorf("%d were counted", n)
	}
}

// redelivered sends a call as one that was handed out before.
func (s *site) redelivered(name string) (id string) {
	s.Helper()
	s.raw(func(m *protocol.Message) {
		id = m.Headers.ID
		m.Headers.Task, m.Headers.Redelivered, m.Body = name, true, []byte(`[[], {}, null]`)
	})
	return id
}

// ready waits for the end of a task, and compares its state.
func (s *site) ready(id string, want protocol.State) *protocol.ResultMeta {
	s.Helper()
	var last *protocol.ResultMeta
	for m, err := range s.client.Backend().Watch(s.context(), id) {
		if err != nil {
			s.Fatal(err)
		}
		last = m
	}
	if last.Status != want {
		s.Errorf("task %s ended as %s with %v; want %s", id, last.Status, last.Exception, want)
	}
	return last
}

// TestBeginThatFails: a message that cannot be counted runs nevertheless, one that was taken back does not.
func TestBeginThatFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err   error
		begun int64
	}{
		"not counted": {errors.New("no luck"), 1},
		"taken back":  {transport.ErrTakenBack, 2}, // and then another worker has it: here the same
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, b := newCountingSite(t)
			b.fail = c.err
			var runs atomic.Int64
			s.mux.Func("count", func() error { runs.Add(1); return nil })
			s.start(Config{Concurrency: 1})
			s.ready(s.redelivered("count"), protocol.Success)
			if n, begun := runs.Load(), b.begun.Load(); n != 1 || begun != c.begun {
				t.Errorf("it ran %d times after %d beginnings; want 1 after %d", n, begun, c.begun)
			}
			s.settled()
		})
	}
}

// TestDeduplication: a task that has succeeded is not run for a message that was handed out before.
func TestDeduplication(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var runs atomic.Int64
	s.mux.Func("once", func() (int64, error) { return runs.Add(1), nil })
	s.start(Config{Concurrency: 1, Deduplicate: true})
	r := s.send("once")
	if v, err := r.Get(s.context()); v != int64(1) || err != nil {
		t.Fatal(v, err)
	}
	again := func(redelivered bool) func(*protocol.Message) {
		return func(m *protocol.Message) {
			m.Headers.Task, m.Headers.ID, m.Headers.Redelivered, m.Body = "once", r.ID(), redelivered, []byte(`[[], {}, null]`)
		}
	}
	s.raw(again(true))
	s.ready(s.redelivered("once"), protocol.Success) // another id, which has not
	s.raw(again(false))                              // its own message, sent twice
	s.send("tasks.add", 1, 2)
	if v, err := s.send("tasks.add", 1, 2).Get(s.context()); v != int64(3) || err != nil {
		t.Fatal(v, err)
	}
	s.settled()
	if n := runs.Load(); n != 3 {
		t.Errorf("it ran %d times; want 3", n)
	}
	client, err := task.NewClient(s.client.Transport(), nil, task.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(client, NewMux(), Config{Deduplicate: true}); err == nil || !strings.Contains(err.Error(), "Deduplicate") {
		t.Errorf("without a backend: %v", err)
	}
}
