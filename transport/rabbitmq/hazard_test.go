//go:build unix

package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// TestSilentQueueHoldsUpNobody suspends the process of a quorum queue, as a lost majority would: what is published to
// it is not confirmed, and what is published to other queues must be.
func TestSilentQueueHoldsUpNobody(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, nil)
	r.declare(transport.Queue{Name: "silent", Arguments: map[string]any{"x-queue-type": "quorum"}}, transport.Queue{Name: "well"})
	process := fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"%s">>, queue, <<"silent">>)), {N, _} = amqqueue:get_pid(Q)`, s.Vhost)
	s.Eval(process + ", sys:suspend(N)")
	r.refuses(time.Second, func(ctx context.Context) error { return r.publish(ctx, "silent", "stuck") })
	err := r.publish(r.within(5*time.Second), "well", "free")
	s.Eval(process + ", sys:resume(N)")
	if err != nil {
		t.Errorf("publish to another queue: %v", err)
	}
}

// TestFullQueueRefuses publishes to a queue that takes no more: the caller learns it, the message has not arrived, and
// goes through when there is room again. Others are not held up.
func TestFullQueueRefuses(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := testservice.RabbitMQ(t)
			r := newRig(t, s.URL, nil)
			full := transport.Queue{Name: "full", Arguments: map[string]any{"x-queue-type": kind, "x-max-length": 1, "x-overflow": "reject-publish"}}
			r.declare(full, transport.Queue{Name: "well"})
			var e *transport.PublishError
			room := []string{}
			for i := range 5 { // a quorum queue takes a few more than it should before it refuses
				id := fmt.Sprint(i)
				ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				err := r.publish(ctx, "full", id)
				cancel()
				if errors.As(err, &e) {
					break
				}
				room = append(room, id)
			}
			if e == nil || !errors.Is(e, transport.ErrRefused) {
				t.Fatalf("after %d messages: %v; expected ErrRefused", len(room), e)
			}
			refused := fmt.Sprint(len(room)) // in doubt only if another attempt was under way at the deadline
			waiting := make(chan error, 1)
			go func() { waiting <- r.publish(r.within(patience), "full", "patient") }()
			for i := range 20 {
				r.send("well", fmt.Sprint(i))
			}
			c := r.consume(1, full)
			got := []string{}
			for !slices.Contains(got, "patient") {
				got = append(got, r.take(c, 1)...)
			}
			if i := slices.Index(got, refused); i >= 0 && e.InDoubt {
				got = slices.Delete(got, i, i+1)
			}
			if want := append(room, "patient"); !slices.Equal(got, want) {
				t.Errorf("received %v; expected %v", got, want)
			}
			if err := coming(t, waiting); err != nil {
				t.Errorf("the call that waited for room: %v", err)
			}
		})
	}
}

// TestQueueDeleted deletes a queue under its consumer.
func TestQueueDeleted(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := testservice.RabbitMQ(t)
			r := newRig(t, s.URL, nil)
			q := transport.Queue{Name: "q", Arguments: map[string]any{"x-queue-type": kind}}
			c := r.consume(10, q, transport.Queue{Name: "other"})
			r.send("q", "before")
			r.take(c, 1)
			deleteQueue(s, "q")
			start := time.Now()
			eventually(t, func() string { return errorText(r.publish(r.within(patience), "q", "after")) })
			r.send("other", "other")
			ids := r.take(c, 2)
			took := time.Since(start)
			t.Logf("consumed again after %v: %v", took, ids)
			if took > slack*2*time.Second {
				t.Errorf("consumed again after %v", took)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestQueueMadeAnewOtherwise has somebody delete a queue and declare it with other arguments while the consumer is away.
func TestQueueMadeAnewOtherwise(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	proxy := testservice.NewProxy(t, s.Addr)
	r := newRig(t, through(s, proxy.Addr), nil)
	c := r.consume(10, transport.Queue{Name: "q"})
	r.send("q", "before")
	r.take(c, 1)
	proxy.Down()
	deleteQueue(s, "q")
	s.Manage("PUT", "/api/queues/"+url.PathEscape(s.Vhost)+"/q", `{"durable":true,"arguments":{"x-max-length":1000}}`)
	proxy.Up()
	r.send("q", "after")
	if id := r.take(c, 1)[0]; id != "after" {
		t.Errorf("received %s", id)
	}
	r.log.await(t, patience, "ERROR", "queue=q", "x-max-length")
}

// TestQueueDeniedLater withdraws the right to read one of two queues: the other is served on, and nothing of it twice.
func TestQueueDeniedLater(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	user := restricted(t, s, ".*", "")
	r := newRig(t, withUser(s.URL, user), nil)
	c := r.consume(10, transport.Queue{Name: "open"}, transport.Queue{Name: "shut"})
	admin := newRig(t, s.URL, nil)
	admin.send("open", "before")
	r.take(c, 1)
	permit(s, user, ".*", ".*", "^(?!shut)")
	s.CloseConnections()
	const n = 20
	for i := range n {
		admin.send("open", fmt.Sprint(i))
	}
	seen := map[string]int{}
	for range n {
		for _, d := range r.receive(c, 1) {
			seen[d.Message.Headers.ID]++
			r.settle(c, transport.Ack, d)
		}
	}
	if len(seen) != n {
		t.Errorf("of %d messages %d came, some of them again: %v", n, len(seen), seen)
	}
	r.log.await(t, patience, "ERROR", "shut")
	if ready, unacked := settledDepth(s, "open"); ready != 0 || unacked != 0 {
		t.Errorf("%d wait and %d are unacked; expected all to be acknowledged", ready, unacked)
	}
}

func settledDepth(s *testservice.RabbitMQServer, queue string) (ready, unacked int) {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if ready, unacked = s.Depth(queue); ready == 0 && unacked == 0 {
			break
		}
	}
	return ready, unacked
}

// TestExchangeGone deletes an exchange, and a binding, under a publisher.
func TestExchangeGone(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, nil)
	r.declare(transport.Queue{Name: "q", Exchange: "x", ExchangeType: "topic", RoutingKey: "a.#"},
		transport.Queue{Name: "p", Exchange: "y", ExchangeType: "topic", RoutingKey: "a.#"}, transport.Queue{Name: "others"})
	to := func(exchange string) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			return r.tr.Publish(ctx, []transport.Publication{{Message: taskMessage("1"), Exchange: exchange, RoutingKey: "a.b"}})
		}
	}
	for _, x := range []string{"x", "y"} {
		if err := to(x)(r.within(patience)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := r.publish(r.within(patience), "others", fmt.Sprint(i)); err != nil {
					t.Errorf("another's publish: %v", err)
				}
			}
		})
	}
	s.Manage("DELETE", "/api/exchanges/"+url.PathEscape(s.Vhost)+"/x", "")
	s.Manage("DELETE", "/api/bindings/"+url.PathEscape(s.Vhost)+"/e/y/q/p/a.%23", "")
	for range 5 {
		for _, x := range []string{"x", "y"} {
			if e := r.refuses(5*time.Second, to(x)); !errors.Is(e, transport.ErrNoRoute) || e.InDoubt {
				t.Errorf("publish to %s: %v; expected ErrNoRoute without doubt", x, e)
			}
		}
	}
	stop()
	others.Wait()
	// What is made again works again.
	r.declare(transport.Queue{Name: "q", Exchange: "x", ExchangeType: "topic", RoutingKey: "a.#"})
	if err := to("x")(r.within(patience)); err != nil {
		t.Errorf("publish to the exchange made anew: %v", err)
	}
}

// TestDoubt ends calls at random instants: what fails without doubt must not arrive.
func TestDoubt(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, nil)
	q := transport.Queue{Name: "q"}
	r.declare(q)
	var mu sync.Mutex
	fate := map[string]string{}
	var producers sync.WaitGroup
	for p := range 8 {
		producers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(p), 1))
			for i := range form(150, 3000) {
				id := fmt.Sprintf("%d-%d", p, i)
				limit := time.Duration(random.IntN(3000)) * time.Microsecond
				switch i % 10 { // some that no machine is too slow for, and some that none is fast enough for
				case 0:
					limit = patience
				case 1:
					limit = 0
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				err := r.publish(ctx, "q", id)
				cancel()
				var e *transport.PublishError
				mu.Lock()
				switch {
				case err == nil:
					fate[id] = "confirmed"
				case !errors.As(err, &e):
					t.Errorf("%v; expected a PublishError", err)
				case e.InDoubt:
					fate[id] = "in doubt"
				default:
					fate[id] = "refused"
				}
				mu.Unlock()
			}
		})
	}
	producers.Wait()
	r.send("q", "last")
	c := r.consume(1000, q)
	arrived := map[string]bool{}
	for !arrived["last"] {
		for _, id := range r.take(c, 1) {
			arrived[id] = true
		}
	}
	count := map[string]int{}
	for id, f := range fate {
		count[f]++
		if f == "confirmed" && !arrived[id] {
			t.Errorf("%s was confirmed and has not arrived", id)
		}
		if f == "refused" && arrived[id] {
			t.Errorf("%s failed without doubt and has arrived", id)
		}
	}
	t.Logf("%v", count)
	if count["confirmed"] == 0 || count["in doubt"] == 0 || count["refused"] == 0 {
		t.Errorf("%v; expected some of each", count)
	}
}

// TestForgottenConsumer removes a consumer from its queue's process without a word, as a restart of that process or a
// change of leaders has done.
func TestForgottenConsumer(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, map[string]any{"gelery_watch_interval": 0.3})
	c := r.consume(10, transport.Queue{Name: "q"})
	r.send("q", "before", "held")
	r.take(c, 1)
	held := r.receive(c, 1)
	s.Eval(fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"%s">>, queue, <<"q">>)),
		[gen_server2:call(amqqueue:get_pid(Q), {basic_cancel, element(1, C), element(2, C), undefined, <<"test">>}, 5000) ||
			C <- rabbit_amqqueue:consumers(Q)]`, s.Vhost))
	start := time.Now()
	r.send("q", "after")
	if id := r.take(c, 1)[0]; id != "after" {
		t.Errorf("received %s", id)
	}
	t.Logf("received again after %v", time.Since(start))
	r.log.await(t, patience, "consumer gets nothing")
	// The held one is in our hands still: it is not received again, and can be acknowledged once it has come again.
	if lost := r.settle(c, transport.Ack, held...); lost > 1 {
		t.Errorf("lost %d", lost)
	}
	if ready, unacked := settledDepth(s, "q"); ready != 0 || unacked != 0 {
		t.Errorf("%d wait and %d are unacked", ready, unacked)
	}
}

// TestQuarantineDenied has a user who may not make a quarantine: bad messages are held, and others go on.
func TestQuarantineDenied(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	user := restricted(t, s, "^(?!_gelery)", "")
	r := newRig(t, withUser(s.URL, user), nil)
	c := r.consume(4, transport.Queue{Name: "q"})
	r.send("q", "bad", "good")
	ds := r.receive(c, 2)
	lost, err := c.Settle(r.within(patience), []transport.Settlement{
		{Delivery: &ds[0], Verdict: transport.Quarantine, Reason: "it is bad"}, {Delivery: &ds[1]},
	})
	if lost > 0 || err != nil {
		t.Errorf("settle: %d lost, %v", lost, err)
	}
	r.log.await(t, patience, "ERROR", "quarantine", "_gelery.quarantine.q", user)
	for i := range 20 {
		r.send("q", fmt.Sprint(i))
		if id := r.take(c, 1)[0]; id != fmt.Sprint(i) {
			t.Errorf("received %s; expected %d", id, i)
		}
	}
	if ready, unacked := s.Depth("q"); ready != 0 || unacked != 1 {
		t.Errorf("%d wait and %d are unacked; expected the bad one to be held", ready, unacked)
	}
	// Permitted meanwhile, it is put aside.
	permit(s, user, ".*", ".*", ".*")
	eventually(t, func() string {
		qs, err := r.tr.Quarantined(r.within(patience), "q", 10)
		if err != nil || len(qs) != 1 || qs[0].Reason != "it is bad" || string(qs[0].Raw) != "bad" {
			return fmt.Sprintf("%v, %v", qs, err)
		}
		return ""
	})
}
