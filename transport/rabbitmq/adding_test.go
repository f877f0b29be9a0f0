package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

func (r *rig) add(c *consumer, q transport.Queue) {
	r.Helper()
	if err := c.Add(r.within(patience), q); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) cancel(c *consumer, queue string) {
	r.Helper()
	if err := c.Cancel(r.within(patience), queue); err != nil {
		r.Fatal(err)
	}
}

// consumers is how many consumers a queue has, as the broker says.
func consumers(s *testservice.RabbitMQServer, queue string) string {
	return s.Eval(fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"%s">>, queue, <<"%s">>)),
		[{consumers, N}] = rabbit_amqqueue:info(Q, [consumers]), N`, s.Vhost, queue))
}

// TestLostConnectionKeepsChanges: after a lost connection an added queue is received from, and a cancelled one is not;
// what is held of it comes again to somebody, and is told as lost.
func TestLostConnectionKeepsChanges(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, nil)
	added := transport.Queue{Name: "added", Arguments: map[string]any{"x-queue-type": "quorum"}}
	c := r.consume(10, transport.Queue{Name: "cancelled"}, transport.Queue{Name: "kept"})
	r.add(c, added)
	r.send("cancelled", "1", "2")
	held := r.receive(c, 2)
	r.cancel(c, "cancelled")
	if lost := r.settle(c, transport.Ack, held[0]); lost > 0 {
		t.Errorf("%d lost; the channel of a cancelled queue should live as long as something is held", lost)
	}
	s.CloseConnections()
	r.send("added", "3")
	r.send("kept", "4")
	if got := r.take(c, 2); !slices.Contains(got, "3") || !slices.Contains(got, "4") {
		t.Errorf("received %v", got)
	}
	awaitDepth(t, s, "cancelled", 1, 0)
	if n := consumers(s, "cancelled"); n != "0" {
		t.Errorf("the cancelled queue has %s consumers", n)
	}
	if lost := r.settle(c, transport.Ack, held[1]); lost != 1 {
		t.Errorf("%d lost; expected what was held of the cancelled queue", lost)
	}
	// Added again, it brings what was settled too late, which is recognized.
	r.add(c, transport.Queue{Name: "cancelled"})
	r.send("cancelled", "5")
	if got := r.take(c, 1); got[0] != "5" {
		t.Errorf("received %v; 2 has been done", got)
	}
	awaitDepth(t, s, "cancelled", 0, 0)
}

// TestCancelWithoutBroker: a queue that is cancelled while there is no connection is not received from when there is one.
func TestCancelWithoutBroker(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	p := testservice.NewProxy(t, s.Addr)
	r := newRig(t, through(s, p.Addr), nil)
	c := r.consume(10, transport.Queue{Name: "a"}, transport.Queue{Name: "b"})
	r.send("b", "held")
	r.receive(c, 1)
	p.Down()
	r.log.await(t, patience, "consuming channel lost", "queue=a")
	r.log.await(t, patience, "consuming channel lost", "queue=b")
	r.cancel(c, "b")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Add(ctx, transport.Queue{Name: "never"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Add with a context that has ended: %v", err)
	}
	if err := c.Cancel(ctx, "a"); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Cancel with a context that has ended: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Add(r.within(patience), transport.Queue{Name: "c"}) }()
	p.Up()
	if err := coming(t, done); err != nil {
		t.Fatal(err)
	}
	direct := newRig(t, s.URL, nil)
	direct.send("a", "1")
	direct.send("c", "2")
	awaitDepth(t, s, "b", 1, 0)
	if n := consumers(s, "b"); n != "0" {
		t.Errorf("the cancelled queue has %s consumers", n)
	}
	for want := []string{"1", "2"}; len(want) > 0; {
		got := r.take(c, 1)[0]
		if got == "1" && c.find("a") == nil {
			t.Error("received from a queue that was cancelled")
		}
		want = slices.DeleteFunc(want, func(id string) bool { return id == got || id == "1" && c.find("a") == nil })
	}
}

// TestAddRefused: what cannot be added is told, and the consumer goes on with what it has.
func TestAddRefused(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, nil)
	r.declare(transport.Queue{Name: "other", Arguments: map[string]any{"x-max-priority": 3}})
	c := r.consume(10, transport.Queue{Name: "q"})
	for _, q := range []transport.Queue{{}, {Name: strings.Repeat("x", 256)}, {Name: "x", ExchangeType: "odd"}} {
		if err := c.Add(r.within(patience), q); err == nil {
			t.Errorf("%.20v was added", q)
		}
	}
	if err := c.Add(r.within(patience), transport.Queue{Name: "other"}); !errors.Is(err, transport.ErrMismatch) {
		t.Errorf("a queue with other properties: %v; expected ErrMismatch", err)
	}
	r.send("q", "1")
	r.take(c, 1)
	if err := c.Close(r.within(patience)); err != nil {
		t.Fatal(err)
	}
	if err := c.Cancel(r.within(patience), "q"); err != nil && !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Cancel of a closed consumer: %v", err)
	}
}

// TestCancelKeepsBad: what could not be put in quarantine is tried again although its queue is cancelled.
func TestCancelKeepsBad(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	user := restricted(t, s, ".*", "")
	r := newRig(t, withUser(s.URL, user), nil)
	c := r.consume(10, transport.Queue{Name: "q"})
	r.send("q", "bad", "good")
	permit(s, user, "^(?!_gelery)", ".*", ".*")
	ds := r.receive(c, 2)
	channel := c.raw(ds[0]).epoch.channel
	r.settle(c, transport.Quarantine, ds[0])
	r.log.await(t, patience, "bad messages cannot be put in quarantine")
	r.cancel(c, "q")
	r.settle(c, transport.Ack, ds[1])
	permit(s, user, ".*", ".*", ".*")
	r.log.await(t, patience, "bad messages were put in quarantine")
	awaitDepth(t, s, quarantineName("q"), 1, 0)
	awaitDepth(t, s, "q", 0, 0)
	eventually(t, func() string {
		if !channel.IsClosed() {
			return "the channel of a queue that is cancelled is still there"
		}
		return ""
	})
}

// raw is a copy of what is held for a delivery.
func (c *consumer) raw(d transport.Delivery) *held {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := *c.held[d.Tag]
	h.Headers = map[string]any{rawKey: slices.Clone(h.Headers[rawKey].([]byte))}
	return &h
}
