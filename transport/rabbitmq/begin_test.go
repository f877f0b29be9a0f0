package rabbitmq

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// begunQueues are the counts that the broker keeps.
func begunQueues(t *testing.T, s *testservice.RabbitMQServer) (names []string) {
	t.Helper()
	var queues []struct{ Name string }
	if err := json.Unmarshal(s.Manage("GET", "/api/queues/"+url.PathEscape(s.Vhost)+"?columns=name", ""), &queues); err != nil {
		t.Fatal(err)
	}
	for _, q := range queues {
		if strings.HasPrefix(q.Name, begunPrefix) {
			names = append(names, q.Name)
		}
	}
	return names
}

// redelivered is a message that was handed out before.
func (r *rig) redelivered(c *consumer, queue, id string) transport.Delivery {
	r.Helper()
	r.send(queue, id)
	r.settle(c, transport.Return, r.receive(c, 1)...)
	return r.receive(c, 1)[0]
}

// TestBeginLeavesNothing: counts go when their messages are settled, and nobody takes their queues for queues of tasks.
func TestBeginLeavesNothing(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, map[string]any{"management_url": s.ManagementURL})
	c := r.consume(10, transport.Queue{Name: "q"})
	for i, v := range []transport.Verdict{transport.Ack, transport.Reject, transport.Return} {
		d := r.redelivered(c, "q", fmt.Sprint(i))
		if err := c.Begin(r.within(patience), &d); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string {
			if names := begunQueues(t, s); len(names) != 1 || !strings.HasPrefix(names[0], begunPrefix+"q.") {
				return fmt.Sprintf("counted in %q", names)
			}
			return ""
		})
		queues, err := r.tr.Queues(r.within(patience))
		if err != nil || fmt.Sprint(queues) != "[q]" {
			t.Errorf("queues of tasks: %v, %v", queues, err)
		}
		r.settle(c, v, d)
		eventually(t, func() string {
			if names := begunQueues(t, s); len(names) > 0 {
				return fmt.Sprintf("settled, and counted still in %q", names)
			}
			return ""
		})
	}
	r.take(c, 1) // what was returned
}

// TestBeginLost: begun, held and begun by the next consumer, as when the first one's worker has died.
func TestBeginLost(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, nil)
	c := r.consume(10, transport.Queue{Name: "q"})
	d := r.redelivered(c, "q", "1")
	for n := 1; n <= 3; n++ {
		if err := c.Begin(r.within(patience), &d); err != nil || d.Message.Headers.Attempts() != n {
			t.Fatalf("Begin: %v, %d attempts; expected %d", err, d.Message.Headers.Attempts(), n)
		}
		c.mu.Lock()
		delete(c.held, d.Tag) // it dies
		c.mu.Unlock()
		s.CloseConnections()
		d = r.receive(c, 1)[0]
	}
	r.settle(c, transport.Ack, d)
	awaitDepth(t, s, "q", 0, 0)
}

// TestBeginInDoubt: a broker that does not answer cannot make a task run beside a copy of its message, because there is none:
// the beginning is noted or not, and the message is held.
func TestBeginInDoubt(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	proxy := testservice.NewProxy(t, s.Addr)
	r := newRig(t, through(s, proxy.Addr), nil)
	c := r.consume(10, transport.Queue{Name: "q"})
	d := r.redelivered(c, "q", "1")
	proxy.Pause()
	if err := c.Begin(r.within(patience/10), &d); err == nil {
		t.Error("it has begun without the broker")
	}
	proxy.Resume()
	awaitDepth(t, s, "q", 0, 1)
	if err := c.Begin(r.within(patience), &d); err != nil {
		t.Fatal(err)
	}
	if n := d.Message.Headers.Attempts(); n < 1 || n > 2 {
		t.Errorf("%d attempts; expected 1, or 2 with the one in doubt", n)
	}
	r.settle(c, transport.Ack, d)
	awaitDepth(t, s, "q", 0, 0)
}

// TestBeginReplyLost: a connection that is lost with the answer does not count twice.
func TestBeginReplyLost(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, nil)
	r.declare(transport.Queue{Name: "q"})
	done := make(chan error, 1)
	for n := 1; n <= 5; n++ {
		var times int
		go func() {
			var err error
			times, err = r.tr.count(r.within(patience), begunPrefix+"x", "x")
			done <- err
		}()
		s.CloseConnections()
		if err := coming(t, done); err != nil || times != n {
			t.Fatalf("%d times, %v; expected %d", times, err, n)
		}
	}
}

// TestBeginRefused: a user who may not make the queue for it, and headers that are full, change nothing.
func TestBeginRefused(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	user := restricted(t, s, ".*", "")
	r := newRig(t, withUser(s.URL, user), nil)
	c := r.consume(10, transport.Queue{Name: "q"})
	wide := taskMessage("wide")
	wide.Headers.KwargsRepr = strings.Repeat("x", maxTable-800)
	if err := r.tr.Publish(r.within(patience), []transport.Publication{{Message: wide, RoutingKey: "q"}}); err != nil {
		t.Fatal(err)
	}
	r.settle(c, transport.Return, r.receive(c, 1)...)
	d := r.receive(c, 1)[0]
	if err := c.Begin(r.within(patience), &d); err != nil {
		t.Errorf("full headers: %v", err)
	}
	r.settle(c, transport.Ack, d)

	d = r.redelivered(c, "q", "1")
	permit(s, user, "^(?!_gelery)", ".*", ".*")
	eventually(t, func() string { // rights are remembered by channels
		if err := c.Begin(r.within(patience), &d); !errors.Is(err, transport.ErrDenied) {
			return fmt.Sprintf("Begin: %v; expected ErrDenied", err)
		}
		return ""
	})
	if lost := r.settle(c, transport.Ack, d); lost > 0 {
		t.Error("what Begin could not count is not held any more")
	}
	awaitDepth(t, s, "q", 0, 0)
}
