//go:build unix

package worker

import (
	"cmp"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
	_ "github.com/gelery/gelery/transport/rabbitmq"
)

// hour is the delay queue in which a message rests first that is due in an hour: 2048 of 3600 seconds.
const hour = "celery_delayed_11"

// newRabbitSite is a site on RabbitMQ, where "when" tells the time it ran.
func newRabbitSite(t *testing.T, c task.Config) (*site, <-chan time.Time) {
	return newRabbitSiteAt(t, testservice.RabbitMQ(t), c)
}

func newRabbitSiteAt(t *testing.T, server *testservice.RabbitMQServer, c task.Config) (*site, <-chan time.Time) {
	c.Broker, c.Backend = server.URL, "memory://"+protocol.NewID()
	c.Logger = cmp.Or(c.Logger, slog.New(slog.NewTextHandler(t.Output(), nil)))
	dialing, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client, err := task.Dial(dialing, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	s := &site{T: t, client: client, mux: NewMux(), done: make(chan error, 1)}
	ran := make(chan time.Time, 200)
	s.mux.Func("when", func(context.Context) error { ran <- time.Now(); return nil })
	return s, ran
}

// waiting is how many messages wait in a queue.
func (s *site) waiting(queue string) int64 {
	s.Helper()
	d, err := s.client.Transport().(transport.Inspector).Depths(s.context(), []string{queue})
	if err != nil {
		s.Fatal(err)
	}
	return d[0].Messages
}

// TestRabbitMQKeepsWhatIsNotDue has a prefetch of one, and a hundred tasks in front of a due one that some sender did not
// send by way of the delay queues.
func TestRabbitMQKeepsWhatIsNotDue(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			queue := transport.Queue{Name: "celery"}
			if kind == "quorum" {
				queue.Arguments = map[string]any{"x-queue-type": "quorum"}
			}
			s, ran := newRabbitSite(t, task.Config{Queues: []transport.Queue{queue}})
			if err := s.client.Transport().Declare(s.context(), queue); err != nil {
				t.Fatal(err)
			}
			const n = 100
			eta := protocol.FormatTime(time.Now().Add(time.Hour))
			for range n {
				s.raw(func(m *protocol.Message) {
					m.Headers.ID, m.Headers.Task, m.Headers.ETA = protocol.NewID(), "when", eta
				})
			}
			s.send("when")
			s.start(Config{Concurrency: 1, PrefetchMultiplier: 1})
			s.await(ran)
			if err := s.end(); err != nil {
				t.Error(err)
			}
			if here, there := s.waiting("celery"), s.waiting(hour); here != 0 || there != n {
				t.Errorf("%d wait in the queue and %d in the delay queue; expected 0 and %d", here, there, n)
			}
		})
	}
}

// TestRabbitMQCountdown sends with a countdown and looks where the task rests; one that is due soon comes back in time.
func TestRabbitMQCountdown(t *testing.T) {
	t.Parallel()
	for _, exchange := range []string{"direct", "topic"} {
		t.Run(exchange, func(t *testing.T) {
			t.Parallel()
			s, ran := newRabbitSite(t, task.Config{QueueType: "quorum", ExchangeType: exchange})
			if _, err := s.client.Send(s.context(), "when", nil, nil, task.Countdown(time.Hour)); err != nil {
				t.Fatal(err)
			}
			if here, there := s.waiting("celery"), s.waiting(hour); here != 0 || there != 1 {
				t.Errorf("%d wait in the queue and %d in the delay queue; expected 0 and 1", here, there)
			}
			s.start(Config{Concurrency: 1, PrefetchMultiplier: 1})
			const countdown = 1500 * time.Millisecond
			sent := time.Now()
			r, err := s.client.Send(s.context(), "when", nil, nil, task.Countdown(countdown))
			if err != nil {
				t.Fatal(err)
			}
			if after := s.await(ran).Sub(sent); after < countdown.Truncate(time.Microsecond)-time.Microsecond {
				t.Errorf("ran after %v", after)
			}
			if _, err := r.Get(s.context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRabbitMQDelaysWhatComesEarly: a task on its way back is due when it comes, or waits for less than a second here.
func TestRabbitMQDelaysWhatComesEarly(t *testing.T) {
	t.Parallel()
	s, ran := newRabbitSite(t, task.Config{}) // classic, so the sender does not delay
	s.start(Config{Concurrency: 1, PrefetchMultiplier: 1})
	eta := time.Now().Add(1800 * time.Millisecond)
	for range 5 {
		s.sendAt(eta)
	}
	for range 5 {
		if at := s.await(ran); at.Before(eta.Truncate(time.Microsecond)) {
			t.Errorf("ran %v early", eta.Sub(at))
		}
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if here := s.waiting("celery"); here != 0 {
		t.Errorf("%d still wait", here)
	}
}

// TestRabbitMQQueueDeleted: a client that has declared a queue finds it gone. The next task must not be refused for ever.
func TestRabbitMQQueueDeleted(t *testing.T) {
	t.Parallel()
	s, ran := newRabbitSite(t, task.Config{})
	s.send("when")
	admin := s.client.Transport().(transport.Administrator)
	if n, err := admin.DeleteQueue(s.context(), "celery", false, false); err != nil || n != 1 {
		t.Fatalf("deleted with %d messages, %v; expected 1", n, err)
	}
	s.send("when")
	s.start(Config{Concurrency: 1})
	s.await(ran)
	// Deleted under the worker, it is made again.
	if _, err := admin.DeleteQueue(s.context(), "celery", false, false); err != nil {
		t.Fatal(err)
	}
	s.send("when")
	s.await(ran)
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

// TestRabbitMQDelaysAfterAlarm: during an alarm tasks that are not due cannot go back, but hold up none that is; after it
// each of them goes, once.
func TestRabbitMQDelaysAfterAlarm(t *testing.T) {
	t.Parallel()
	server := testservice.StartRabbitMQ(t)
	s, ran := newRabbitSiteAt(t, server, task.Config{})
	const n = 20
	for range n {
		s.sendAt(time.Now().Add(time.Hour))
	}
	s.send("when")
	server.SetMemoryAlarm(true)
	s.start(Config{Concurrency: 2, PrefetchMultiplier: 4})
	s.await(ran)
	server.SetMemoryAlarm(false)
	for end := s.context(); s.waiting(hour) < n; {
		select {
		case <-time.After(50 * time.Millisecond): // the broker tells nobody when
		case <-end.Done():
			t.Fatalf("%d of %d are with the broker", s.waiting(hour), n)
		}
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if here, there := s.waiting("celery"), s.waiting(hour); here != 0 || there != n {
		t.Errorf("%d wait in the queue and %d in the delay queue; expected 0 and %d", here, there, n)
	}
}

// TestRabbitMQGrow: the broker hands out more when there are more slots, and less when there are fewer.
func TestRabbitMQGrow(t *testing.T) {
	t.Parallel()
	server := testservice.RabbitMQ(t)
	s, _ := newRabbitSiteAt(t, server, task.Config{})
	goOn := make(chan struct{})
	s.mux.Func("hold", func(context.Context) error { <-goOn; return nil })
	const n = 20
	s.sendMany(n, "hold")
	s.start(Config{Concurrency: 2, PrefetchMultiplier: 2})
	s.awaitDepth(server, n-4, 4)
	if err := s.worker.Grow(2); err != nil {
		t.Error(err)
	}
	s.awaitDepth(server, n-8, 8)
	if err := s.worker.Shrink(3); err != nil {
		t.Error(err)
	}
	close(goOn)
	s.awaitDepth(server, 0, 0)
}
