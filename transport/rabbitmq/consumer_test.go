//go:build unix

package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// waits is how many deliveries of a queue have come and are not handed out.
func (c *consumer) waits(queue int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.intakes[queue].waiting)
}

// granted tells the prefetch of the broker's consumer of a queue of which something waits.
func (c *consumer) granted(queue int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.intakes[queue].waiting[0].epoch.prefetch
}

// awaitDepth waits until a queue has as many messages as it should.
func awaitDepth(t *testing.T, s *testservice.RabbitMQServer, queue string, ready, unacked int) {
	t.Helper()
	eventually(t, func() string {
		if r, u := s.Depth(queue); r != ready || u != unacked {
			return fmt.Sprintf("queue %s: %d wait and %d are unacked; expected %d and %d", queue, r, u, ready, unacked)
		}
		return ""
	})
}

// denied is a consumer of the queues open and shut, of which the second cannot be consumed from any more.
func denied(t *testing.T, s *testservice.RabbitMQServer, prefetch int) (r *rig, c *consumer, permitted func()) {
	user := restricted(t, s, ".*", "")
	r = newRig(t, withUser(s.URL, user), nil)
	c = r.consume(prefetch, transport.Queue{Name: "open"}, transport.Queue{Name: "shut"})
	permit(s, user, ".*", ".*", "^(?!shut)")
	s.CloseConnections()
	r.log.await(t, patience, "ERROR", "cannot consume")
	return r, c, func() { permit(s, user, ".*", ".*", ".*") }
}

// TestDeniedQueueDoublesNothing: attempts to consume from one queue leave nothing behind of the other.
func TestDeniedQueueDoublesNothing(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	const prefetch = 10
	r, c, _ := denied(t, s, prefetch)
	admin := newRig(t, s.URL, nil)
	for i := range prefetch {
		admin.send("open", fmt.Sprint(i))
	}
	eventually(t, func() string { // more attempts meanwhile
		if n := strings.Count(r.log.String(), "cannot consume"); n < 4 {
			return fmt.Sprintf("%d attempts", n)
		}
		return ""
	})
	awaitDepth(t, s, "open", 0, prefetch)
	if n := c.waits(0); n != prefetch {
		t.Errorf("%d deliveries wait of %d messages", n, prefetch)
	}
	ids := r.take(c, prefetch)
	slices.Sort(ids)
	if n := len(slices.Compact(ids)); n != prefetch || c.waits(0) > 0 {
		t.Errorf("of %d messages %d came, and %d wait", prefetch, n, c.waits(0))
	}
}

// TestAckConcernsOneQueue acknowledges the delivery of one queue while older ones of another wait to be handed out.
func TestAckConcernsOneQueue(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r, c, permitted := denied(t, s, 10)
	admin := newRig(t, s.URL, nil)
	admin.send("open", "1", "2", "3", "4")
	admin.send("shut", "other")
	awaitDepth(t, s, "open", 0, 4)
	permitted()
	eventually(t, func() string {
		if c.waits(1) == 0 {
			return "nothing came of the permitted queue"
		}
		return ""
	})
	for _, d := range r.receive(c, 2) {
		if d.Queue == "shut" {
			r.settle(c, transport.Ack, d)
		}
	}
	awaitDepth(t, s, "shut", 0, 0)
	if ready, unacked := s.Depth("open"); ready+unacked != 4 {
		t.Errorf("%d wait and %d are unacked; none of the four was acknowledged", ready, unacked)
	}
}

// TestPrefetchGrows parks one delivery after the other: others take their place, never more than the prefetch, and all
// can be settled, on whichever consumer they came.
func TestPrefetchGrows(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := testservice.RabbitMQ(t)
			r := newRig(t, s.URL, nil)
			const prefetch, n = 4, 40
			c := r.consume(prefetch, transport.Queue{Name: "q", Arguments: map[string]any{"x-queue-type": kind}})
			for i := range n {
				r.send("q", fmt.Sprint(i))
			}
			var parked []transport.Delivery
			for len(parked) < n/2 {
				d := r.receive(c, 1)[0]
				if d.Message.Headers.ID != fmt.Sprint(len(parked)) || d.Redelivered {
					t.Fatalf("received %s, redelivered %v; expected %d", d.Message.Headers.ID, d.Redelivered, len(parked))
				}
				parked = append(parked, d)
				c.Park([]*transport.Delivery{&d})
				if n := c.waits(0); n > prefetch { // the broker's own count is seconds old
					t.Fatalf("%d wait with a prefetch of %d", n, prefetch)
				}
			}
			if lost := r.settle(c, transport.Ack, parked[1:]...); lost > 0 {
				t.Errorf("%d lost", lost)
			}
			for range n / 2 {
				r.take(c, 1)
			}
			if lost := r.settle(c, transport.Return, parked[0]); lost > 0 {
				t.Errorf("%d lost", lost)
			}
			if id := r.take(c, 1)[0]; id != "0" {
				t.Errorf("received %s", id)
			}
			// With nothing parked any more, the prefetch is about what it was.
			for i := range n {
				r.send("q", fmt.Sprint("again ", i))
			}
			eventually(t, func() string {
				if n := c.waits(0); n <= prefetch/2 || n > prefetch+prefetch/2 {
					return fmt.Sprintf("%d wait", n)
				}
				return ""
			})
			for range n {
				r.take(c, 1)
			}
			awaitDepth(t, s, "q", 0, 0)
		})
	}
}

// TestSetPrefetch makes the prefetch of running consumers larger and smaller: so much is in hand of each queue, also of
// one that is added later.
func TestSetPrefetch(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := testservice.RabbitMQ(t)
			r := newRig(t, s.URL, nil)
			arguments := map[string]any{"x-queue-type": kind}
			c := r.consume(4, transport.Queue{Name: "q", Arguments: arguments})
			const n = 40
			for i := range n {
				r.send("q", fmt.Sprint(i))
			}
			held := func(want int) {
				t.Helper()
				eventually(t, func() string {
					if n := c.waits(0); n != want {
						return fmt.Sprintf("%d wait, expected %d", n, want)
					}
					return ""
				})
			}
			held(4)
			c.SetPrefetch(5)
			held(5)
			c.SetPrefetch(20)
			held(20)
			c.SetPrefetch(3)
			eventually(t, func() string { // while 20 are in hand, it may get only the one more that RabbitMQ cannot be denied
				if n := c.granted(0); n != 1 {
					return fmt.Sprintf("the consumer has a prefetch of %d", n)
				}
				return ""
			})
			came := map[string]bool{}
			take := func(n int) {
				t.Helper()
				for range n {
					// A quorum queue hands out again, and later, what was on its way to the consumer that was replaced.
					id := r.take(c, 1)[0]
					if kind == "classic" && id != fmt.Sprint(len(came)) {
						t.Fatalf("received %s, expected %d", id, len(came))
					}
					if came[id] {
						t.Fatalf("received %s twice", id)
					}
					came[id] = true
				}
			}
			take(30)
			// About what it was told: of a prefetch that was made smaller, less than half may be missing.
			eventually(t, func() string {
				if n := c.waits(0); n < 2 || n > 4 {
					return fmt.Sprintf("%d wait, expected about 3", n)
				}
				return ""
			})
			take(n - 30)
			r.declare(transport.Queue{Name: "added", Arguments: arguments})
			for range 5 {
				r.send("added", "x")
			}
			if err := c.Add(r.within(patience), transport.Queue{Name: "added", Arguments: arguments}); err != nil {
				t.Fatal(err)
			}
			awaitDepth(t, s, "added", 2, 3)
		})
	}
}

// TestParkedComeAgain loses the connection with more parked than the prefetch: all are known again, and make room again.
func TestParkedComeAgain(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, nil)
	c := r.consume(2, transport.Queue{Name: "q"})
	const n = 10
	var parked []transport.Delivery
	for i := range n {
		r.send("q", fmt.Sprint(i))
		d := r.receive(c, 1)
		c.Park([]*transport.Delivery{&d[0]})
		parked = append(parked, d...)
	}
	s.CloseConnections()
	r.log.await(t, patience, "consuming channel lost")
	r.send("q", "due")
	if id := r.take(c, 1)[0]; id != "due" {
		t.Errorf("received %s", id)
	}
	awaitDepth(t, s, "q", 0, n)
	if lost := r.settle(c, transport.Ack, parked...); lost > 0 {
		t.Errorf("%d lost", lost)
	}
	awaitDepth(t, s, "q", 0, 0)
}

// TestQuarantineFull: while the quarantine takes nothing, the rest of the batch is acknowledged all the same, and what
// could not be put there is when there is room.
func TestQuarantineFull(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, nil)
	r.declare(transport.Queue{Name: quarantineName("q"), Unbound: true, Arguments: map[string]any{"x-max-length": 1, "x-overflow": "reject-publish"}})
	c := r.consume(10, transport.Queue{Name: "q"})
	r.send("q", "bad 1", "bad 2", "good")
	ds := r.receive(c, 3)
	r.settle(c, transport.Quarantine, ds[0])
	settled := make(chan error, 1)
	go func() {
		_, err := c.Settle(context.Background(), []transport.Settlement{{Delivery: &ds[1], Verdict: transport.Quarantine, Reason: "bad"}, {Delivery: &ds[2]}})
		settled <- err
	}()
	awaitDepth(t, s, "q", 0, 1) // the good one did not wait
	select {
	case err := <-settled:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(slack * quarantinePatience):
		t.Fatal("Settle waits for the quarantine")
	}
	if n, err := r.tr.PurgeQuarantine(r.within(patience), "q"); n != 1 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
	awaitDepth(t, s, "q", 0, 0)
	eventually(t, func() string {
		qs, err := r.tr.Quarantined(r.within(patience), "q", 10)
		if err != nil || len(qs) != 1 || qs[0].Reason != "bad" {
			return fmt.Sprintf("%v, %v", qs, err)
		}
		return ""
	})
}

// TestTransportClosed closes a transport before its consumer.
func TestTransportClosed(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newLooseRig(t, s.URL, nil)
	c, err := r.tr.Consume(r.within(patience), transport.ConsumeOptions{Queues: []transport.Queue{{Name: "q"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.tr.Close(r.within(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(r.within(patience), 1); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("receive: %v; expected ErrClosed", err)
	}
	if err := c.Close(r.within(patience)); err != nil {
		t.Error(err)
	}
}

// TestConsumeFromWhatCannotBe: a queue bound to an exchange that is not there is an error soon, not a wait without a word.
func TestConsumeFromWhatCannotBe(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, nil)
	q := transport.Queue{Name: "q", Exchange: "amq.missing"}
	_, err := r.tr.Consume(r.within(patience), transport.ConsumeOptions{Queues: []transport.Queue{q}})
	if !errors.Is(err, errNotFound) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("consume: %v; expected that the exchange was not found", err)
	}
	r.log.await(t, patience, "cannot consume", "amq.missing")
}

// TestChannelHangs suspends the broker's process of a channel: it is given up, and messages come on another one.
func TestChannelHangs(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, map[string]any{"gelery_watch_interval": 0.3})
	c := r.consume(10, transport.Queue{Name: "q"})
	r.send("q", "before")
	r.take(c, 1)
	s.Eval(fmt.Sprintf(`[sys:suspend(P) || P <- rabbit_channel:list(), rabbit_channel:info(P, [vhost]) =:= [{vhost, <<"%s">>}],
		rabbit_channel:info(P, [consumer_count]) =/= [{consumer_count, 0}]]`, s.Vhost))
	for i := range 20 { // more than the prefetch, so that some wait
		r.send("q", fmt.Sprint(i))
	}
	for range 20 {
		r.take(c, 1)
	}
}

// TestStuckQueueIsAskedOnce suspends the process of a queue: looking at it again and again must not use up all calls.
func TestStuckQueueIsAskedOnce(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, map[string]any{"gelery_watch_interval": 0.1})
	c := r.consume(10, transport.Queue{Name: "stuck"})
	session, err := c.link.await(r.within(patience))
	if err != nil {
		t.Fatal(err)
	}
	e := &epoch{session: session, prefetch: 10}
	process := fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"%s">>, queue, <<"stuck">>)), P = amqqueue:get_pid(Q)`, s.Vhost)
	s.Eval(process + ", sys:suspend(P)")
	w := watchdog{c: c, in: c.intakes[0]}
	for range 20 {
		w.look(t.Context(), e)
	}
	used := len(session.calls)
	s.Eval(process + ", sys:resume(P)")
	if used == 0 || used > 2 { // ours and the consumer's own
		t.Errorf("%d calls wait for an answer", used)
	}
	eventually(t, func() string { // answered meanwhile, it is asked again
		w.look(t.Context(), e)
		select {
		case <-w.asking:
			return ""
		default:
			return "no answer"
		}
	})
}

// TestSessionWithoutCalls: a connection on which nothing more can be asked is given up.
func TestSessionWithoutCalls(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, map[string]any{"heartbeat": 1})
	session, err := r.tr.publishes.await(r.within(patience))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range maxCalls {
		all.Go(func() { _ = session.call(t.Context(), func() error { coming(t, session.gone); return nil }) })
	}
	eventually(t, func() string {
		if n := len(session.calls); n < maxCalls {
			return fmt.Sprintf("%d calls", n)
		}
		return ""
	})
	r.declare(transport.Queue{Name: "q"})
	select {
	case <-session.gone:
	default:
		t.Error("a queue was declared on a session without a call left")
	}
	all.Wait()
}
