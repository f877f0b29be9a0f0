//go:build unix

package worker

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// restricted is a server as it is for a user who may make nothing but the queue celery.
func restricted(t *testing.T, server *testservice.RabbitMQServer) *testservice.RabbitMQServer {
	user := "user-" + protocol.NewID()
	server.Manage("PUT", "/api/users/"+user, `{"password":"secret","tags":""}`)
	t.Cleanup(func() { server.Manage("DELETE", "/api/users/"+user, "") })
	server.Manage("PUT", "/api/permissions/"+url.PathEscape(server.Vhost)+"/"+user, `{"configure":"^celery$","write":".*","read":".*"}`)
	return at(strings.Replace(server.URL, "guest:guest", user+":secret", 1))
}

// at is a server by another URL.
func at(url string) *testservice.RabbitMQServer {
	return &testservice.RabbitMQServer{URL: url}
}

func (s *site) awaitDepth(server *testservice.RabbitMQServer, ready, unacked int) {
	s.Helper()
	for ctx := s.context(); ; {
		r, u := server.Depth("celery")
		if r == ready && u == unacked {
			return
		}
		select {
		case <-ctx.Done():
			s.Fatalf("%d wait and %d are held; expected %d and %d", r, u, ready, unacked)
		case <-time.After(20 * time.Millisecond): // the broker tells nobody when
		}
	}
}

// emptied waits until the worker has nothing in hand.
func (s *site) emptied() {
	s.Helper()
	for w, ctx := s.worker.window, s.context(); ; {
		w.mu.Lock()
		held := w.held
		w.mu.Unlock()
		if held == 0 {
			return
		}
		if ctx.Err() != nil {
			s.Fatalf("%d deliveries are still in hand", held)
		}
		runtime.Gosched()
	}
}

// spotter tells when a text is logged.
type spotter struct {
	slog.Handler
	text string
	seen chan struct{} // capacity 1
}

func (s *spotter) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, s.text) {
		select {
		case s.seen <- struct{}{}:
		default:
		}
	}
	return s.Handler.Handle(ctx, r)
}

// TestRabbitMQAckEarlyTooLate loses the channel of an AckEarly task between its arrival and its start: it is not begun
// then, and runs when it comes again, once. The worker must know of the loss: the broker knows earlier, and what is
// acknowledged in between begins, since AMQP has no answer to acknowledgements.
func TestRabbitMQAckEarlyTooLate(t *testing.T) {
	t.Parallel()
	server := testservice.RabbitMQ(t)
	proxy := testservice.NewProxy(t, server.Addr)
	lost := &spotter{slog.NewTextHandler(t.Output(), nil), "consuming channel lost", make(chan struct{}, 1)}
	s, _ := newRabbitSiteAt(t, at(strings.Replace(server.URL, server.Addr, proxy.Addr, 1)), task.Config{Logger: slog.New(lost)})
	begun, goOn, early := make(chan struct{}), make(chan struct{}), make(chan time.Time, 9)
	s.mux.Func("slow", func(context.Context) error { close(begun); <-goOn; return nil })
	s.mux.Func("early", func(context.Context) error { early <- time.Now(); return nil }, task.AckEarly())
	s.start(Config{Concurrency: 1, PrefetchMultiplier: 4})
	s.send("slow")
	<-begun
	s.send("early")
	s.awaitDepth(server, 0, 2)
	proxy.Down()
	s.awaitDepth(server, 2, 0)
	select {
	case <-lost.seen:
	case <-s.context().Done():
		t.Fatal("the worker does not know that its channel is lost")
	}
	close(goOn) // "early" is next, and cannot be acknowledged
	s.emptied()
	proxy.Up()
	s.await(early)
	s.awaitDepth(server, 0, 0)
	if len(early) > 0 {
		t.Error("the task ran twice")
	}
}

// TestRabbitMQHeldStopsNobody has a user without the right to make delay queues and a quarantine: neither tasks that are
// due in an hour nor bad messages, as many as the prefetch each, hold up what is due.
func TestRabbitMQHeldStopsNobody(t *testing.T) {
	t.Parallel()
	server := testservice.RabbitMQ(t)
	s, ran := newRabbitSiteAt(t, restricted(t, server), task.Config{})
	const prefetch, n = 8, 16
	for i := range n {
		if i%2 == 0 {
			s.send("nobody.knows")
		} else if _, err := s.client.Send(s.context(), "when", nil, nil, task.Countdown(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	s.start(Config{Concurrency: 2, PrefetchMultiplier: prefetch / 2})
	for range 20 {
		s.send("when")
		s.await(ran)
	}
	s.awaitDepth(server, 0, n)
	if err := s.end(); err != nil {
		t.Error(err)
	}
	s.awaitDepth(server, n, 0)
}

// TestRabbitMQQuarantineDuringAlarm: while the broker takes no messages, a bad one must not hold up acknowledgements.
func TestRabbitMQQuarantineDuringAlarm(t *testing.T) {
	t.Parallel()
	server := testservice.StartRabbitMQ(t)
	s, ran := newRabbitSiteAt(t, server, task.Config{})
	if err := s.client.Transport().Declare(s.context(), transport.Queue{Name: "celery"}); err != nil {
		t.Fatal(err)
	}
	const n = 30
	s.send("nobody.knows")
	for range n {
		s.send("when")
	}
	server.SetMemoryAlarm(true)
	s.start(Config{Concurrency: 2, PrefetchMultiplier: 4})
	for i := range n {
		select {
		case <-ran:
		case <-time.After(30 * time.Second):
			t.Fatalf("%d of %d tasks ran", i, n)
		}
	}
	s.awaitDepth(server, 0, 1)
	server.SetMemoryAlarm(false)
	s.awaitDepth(server, 0, 0)
	// Once, or twice: the first copy may have been on its way when the alarm came.
	if d, err := s.client.Transport().(transport.Inspector).Depths(s.context(), []string{"celery"}); err != nil || d[0].Quarantined == 0 {
		t.Error(fmt.Sprint(d), err)
	}
}
