//go:build unix

package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// TestConfirmationNeverComes: the message is at the broker, and the caller is told that it may be.
func TestConfirmationNeverComes(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	proxy := testservice.NewProxy(t, s.Addr)
	r := newRig(t, through(s, proxy.Addr), nil)
	q := transport.Queue{Name: "q"}
	r.declare(q)
	r.send("q", "before")
	proxy.Pause()
	e := r.refuses(500*time.Millisecond, func(ctx context.Context) error { return r.publish(ctx, "q", "doubtful") })
	if !e.InDoubt || !errors.Is(e, context.DeadlineExceeded) {
		t.Errorf("%v; expected doubt and the deadline", e)
	}
	proxy.Resume()
	r.send("q", "after")
	c := newRig(t, s.URL, nil).consume(10, q)
	if ids := r.take(c, 3); ids[0] != "before" || ids[1] != "doubtful" || ids[2] != "after" {
		t.Errorf("received %v; expected the doubtful one to have arrived", ids)
	}
}

// TestConfirmationsLost drops confirmations together with the connection: each call succeeds on the next connection.
func TestConfirmationsLost(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	proxy := testservice.NewProxy(t, s.Addr)
	r := newRig(t, through(s, proxy.Addr), nil)
	q := transport.Queue{Name: "q"}
	r.declare(q)
	n := form(4, 20)
	for i := range n {
		proxy.DropReplies(1)
		r.send("q", fmt.Sprint(i))
	}
	r.send("q", "last")
	c := newRig(t, s.URL, nil).consume(10, q)
	seen := map[string]int{}
	for seen["last"] == 0 {
		seen[r.take(c, 1)[0]]++
	}
	twice := 0
	for i := range n {
		switch seen[fmt.Sprint(i)] {
		case 0:
			t.Errorf("%d is lost", i)
		case 1:
		default:
			twice++
		}
	}
	t.Logf("%d of %d arrived twice", twice, n)
}

// TestBroadcastOnce: who listens hears a broadcast once, or not at all and its sender is told that this may be so, whether the
// confirmation was lost with the connection or with the channel, which the broker closes for another's message. What stands
// behind that message on the channel is in no doubt, and heard.
func TestBroadcastOnce(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	proxy := testservice.NewProxy(t, s.Addr)
	r := newRig(t, through(s, proxy.Addr), nil)
	listener := newRig(t, s.URL, nil)
	heard, err := listener.tr.Subscribe(r.within(patience), protocol.EventExchange, "#")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = heard.Close() }()
	sent, doubted := 0, 0
	send := func(err error) {
		t.Helper()
		sent++
		if e, ok := errors.AsType[*transport.PublishError](err); ok && e.InDoubt {
			doubted++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	cast := func(id string) error {
		return r.tr.Broadcast(r.within(patience), protocol.EventExchange, "", taskMessage(id))
	}
	send(cast("first"))
	n := form(3, 20)
	for i := range n {
		proxy.DropReplies(1)
		send(cast(fmt.Sprint("connection ", i)))
	}
	for i := range n {
		event, err := publishing(taskMessage(fmt.Sprint("channel ", i)))
		if err != nil {
			t.Fatal(err)
		}
		o := &outbound{exchange: protocol.EventExchange, optional: true, once: true, message: event}
		other := &outbound{exchange: "missing", optional: true, message: event}
		lane := r.tr.publisher.lane(o.destination())
		doubt, err := lane.publish(r.within(patience), []*outbound{o, other})
		if err != nil {
			err = r.tr.publishError(t.Context(), doubt, err)
		}
		send(err)
		behind, err := publishing(taskMessage(fmt.Sprint("behind ", i)))
		if err != nil {
			t.Fatal(err)
		}
		o = &outbound{exchange: protocol.EventExchange, optional: true, once: true, message: behind}
		other = &outbound{exchange: "missing", optional: true, message: event}
		if doubt, err := lane.publish(r.within(patience), []*outbound{other, o}); err != nil {
			t.Errorf("a broadcast behind another's message: %v; in doubt: %v", err, doubt)
		}
		sent++
	}
	last := ""
	for before := -1; before != doubted; { // until one is in no doubt, which will be heard
		before, last = doubted, fmt.Sprint("last ", sent)
		send(cast(last))
	}
	times := map[string]int{}
	for times[last] == 0 {
		d, err := heard.Receive(r.within(patience))
		if err != nil {
			t.Fatal(err)
		}
		times[d.Message.Headers.ID]++
	}
	for i := range n {
		if id := fmt.Sprint("behind ", i); times[id] != 1 {
			t.Errorf("%s was heard %d times", id, times[id])
		}
	}
	for id, heard := range times {
		if heard > 1 {
			t.Errorf("%s was heard %d times", id, heard)
		}
	}
	if missed := sent - len(times); missed > doubted {
		t.Errorf("%d were not heard, only of %d it was told that they may not be", missed, doubted)
	}
	t.Logf("of %d sent %d were in doubt, %d were heard", sent, doubted, len(times))
}

// TestHalfOpen lets nothing pass while the connections stay open. It is noticed by the heartbeats.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	proxy := testservice.NewProxy(t, s.Addr)
	r := newRig(t, through(s, proxy.Addr), map[string]any{"heartbeat": 1.0, "connect_timeout": 1.0})
	c := r.consume(10, transport.Queue{Name: "q"})
	r.send("q", "before")
	r.take(c, 1)
	proxy.Pause()
	start := time.Now()
	for _, connection := range []string{"publish", "consume"} {
		r.log.await(t, patience, "connection to RabbitMQ lost", "connection="+connection)
	}
	noticed := time.Since(start)
	t.Logf("noticed after %v", noticed)
	if limit := slack * 3 * time.Second; noticed > limit {
		t.Errorf("noticed after %v; expected two heartbeats and a second, and at most %v on a busy machine", noticed, limit)
	}
	proxy.Cut()
	proxy.Resume()
	r.send("q", "after")
	// The acknowledgement of the first may have been on its way, and it comes again then.
	for id := r.take(c, 1)[0]; id != "after"; id = r.take(c, 1)[0] {
		if id != "before" {
			t.Errorf("received %s", id)
		}
	}
}

// TestCutAnywhere cuts every connection after a random number of bytes, in either direction, while messages are
// published and consumed: nothing is lost, and what comes is whole.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(7, 7))
	cuts, calm := 0, false
	addr := serve(t, func(conn net.Conn) {
		server, err := net.Dial("tcp", s.Addr)
		if err != nil {
			return
		}
		mu.Lock()
		budget := int64(400 + random.IntN(6000))
		if calm {
			budget = 1 << 40
		} else {
			cuts++
		}
		mu.Unlock()
		var both sync.WaitGroup
		both.Go(func() { _, _ = io.CopyN(server, conn, budget); _ = server.Close(); _ = conn.Close() })
		both.Go(func() { _, _ = io.CopyN(conn, server, budget); _ = server.Close(); _ = conn.Close() })
		both.Wait()
	})
	setup := newRig(t, s.URL, nil)
	q := transport.Queue{Name: "q"}
	setup.declare(q)
	ctx := setup.within(2 * patience)
	tr, err := open(ctx, through(s, addr), transport.Options{Logger: setup.tr.log})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, tr: tr.(*rabbitTransport), log: setup.log}
	defer func() {
		if err := tr.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	}()
	consumer := r.consume(20, q)
	n := form(80, 3000)
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if err := r.publish(ctx, "q", fmt.Sprint(i)); err != nil {
				sent <- err
				return
			}
		}
		mu.Lock()
		calm = true // so that the end is reached
		mu.Unlock()
		sent <- nil
	}()
	seen, runs := map[string]int{}, 0
	for len(seen) < n {
		ds, err := consumer.Receive(ctx, 20)
		if err != nil {
			t.Fatalf("%d of %d came: %v", len(seen), n, err)
		}
		for i := range ds {
			if id := ds[i].Message.Headers.ID; ds[i].Err != nil || string(ds[i].Raw) != id {
				t.Errorf("received %q with the body %q: %v", id, ds[i].Raw, ds[i].Err)
			}
			seen[ds[i].Message.Headers.ID]++
			runs++
		}
		r.settle(consumer, transport.Ack, ds...)
	}
	if err := coming(t, sent); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d messages, %d connections were cut, %d came again", n, cuts, runs-n)
	if cuts < 5 {
		t.Errorf("only %d connections were cut", cuts)
	}
}
