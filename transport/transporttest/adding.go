package transporttest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gelery/gelery/transport"
)

func (b *bench) add(c transport.Consumer, queue string) {
	b.Helper()
	if err := c.Add(b.context(), b.queue(queue)); err != nil {
		b.Fatalf("add %s: %v", queue, err)
	}
}

func (b *bench) cancel(c transport.Consumer, queue string) {
	b.Helper()
	if err := c.Cancel(b.context(), queue); err != nil {
		b.Fatalf("cancel %s: %v", queue, err)
	}
}

// testAdd: a Receive that waits gets what is in a queue that is added, and each message once though it is added twice.
func testAdd(t *testing.T, b *bench) {
	b.declare(b.queue("b"))
	b.publish("b", "early")
	c := b.consume("a")
	ctx := &askedDone{Context: b.context(), asked: make(chan struct{})}
	done := make(chan received, 1)
	go func() {
		ds, err := c.Receive(ctx, 1)
		done <- received{ds, err}
	}()
	b.untilWaiting(c, ctx.asked)
	b.add(c, "b")
	select {
	case r := <-done:
		if r.err != nil {
			t.Fatal(r.err)
		}
		b.wantIDs(r.deliveries, "early")
		b.settle(c, transport.Ack, "", r.deliveries...)
	case <-time.After(patience):
		t.Fatal("Receive does not see the queue that was added")
	}
	b.add(c, "b")
	b.add(c, "a")
	b.publish("a", "1")
	b.publish("b", "2", "3")
	ds := b.receive(c, 3)
	if got := ids(ds); !slices.Contains(got, "1") || !slices.Contains(got, "2") || !slices.Contains(got, "3") {
		t.Errorf("received %v", got)
	}
	b.settle(c, transport.Ack, "", ds...)
	b.add(c, "new") // it is declared by this
	b.publish("new", "4")
	ds = b.receive(c, 1)
	b.wantIDs(ds, "4")
	b.settle(c, transport.Ack, "", ds...)
	for _, queue := range []string{"a", "b", "new"} {
		b.wantDepth(queue, 0, 0)
	}
	b.close(c)
	if err := c.Add(b.context(), b.queue("late")); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Add to a closed consumer: %v; expected ErrClosed", err)
	}
}

// testCancel: what was received is held and settled as before, what was not is for others, and other queues go on.
func testCancel(t *testing.T, b *bench) {
	c := b.consume("a", "b")
	b.publish("b", "1", "2", "3", "4", "5")
	held := b.receive(c, 2)
	b.wantIDs(held, "1", "2")
	b.cancel(c, "b")
	b.cancel(c, "b")
	b.cancel(c, "none")
	b.wantDepth("b", 3, 2)
	other := b.consume("b")
	ds := b.receive(other, 3)
	b.wantIDs(ds, "3", "4", "5")
	b.settle(other, transport.Ack, "", ds...)
	b.publish("b", "6")
	b.publish("a", "7")
	ds = b.receive(c, 1)
	b.wantIDs(ds, "7")
	b.settle(c, transport.Ack, "", ds...)
	ds = b.receive(other, 1)
	b.wantIDs(ds, "6")
	b.settle(other, transport.Ack, "", ds...)
	b.settle(c, transport.Ack, "", held[0])
	b.settle(c, transport.Requeue, "", held[1])
	ds = b.receive(other, 1)
	b.wantIDs(ds, "2")
	if !ds[0].Redelivered {
		t.Error("a message given back after its queue was cancelled does not come redelivered")
	}
	b.settle(other, transport.Ack, "", ds...)
	b.wantDepth("a", 0, 0)
	b.wantDepth("b", 0, 0)
}

// testAddAndCancel: a queue comes and goes, also while something of it is held, and Close gives back what is still held.
func testAddAndCancel(_ *testing.T, b *bench) {
	c := b.consume("a")
	b.declare(b.queue("b"))
	var held []transport.Delivery
	for _, id := range sequence(5) {
		b.publish("b", id)
		b.add(c, "b")
		ds := b.receive(c, 1)
		b.wantIDs(ds, id)
		b.cancel(c, "b")
		held = append(held, ds...)
	}
	b.wantDepth("b", 0, 5)
	b.settle(c, transport.Ack, "", held[:4]...)
	b.wantDepth("b", 0, 1)
	b.close(c)
	b.wantDepth("b", 1, 0)
	ds := b.receive(b.consume("b"), 1)
	b.wantIDs(ds, ids(held[4:])...)
}

// testBegin: each begin of what was handed out before counts one more, and changes nothing else.
func testBegin(t *testing.T, b *bench) {
	c := b.consume("q")
	m := fullMessage(b.Virtual)
	if err := b.transport.Publish(b.context(), []transport.Publication{{Message: m, RoutingKey: "q"}}); err != nil {
		t.Fatal(err)
	}
	b.settle(c, transport.Return, "", b.receive(c, 1)...)
	for n := 1; n <= 3; n++ {
		d := b.receive(c, 1)[0]
		if !d.Redelivered {
			t.Errorf("before begin %d, it is not redelivered", n)
		}
		b.begin(c, &d)
		if got := d.Message.Headers.Attempts(); got != n {
			t.Errorf("after begin %d, %d attempts are counted", n, got)
		}
		seen := *d.Message
		withoutBrokerHeaders(&seen)
		seen.Headers.SetAttempts(0)
		seen.Headers.Redelivered = false // kombu marks the header, AMQP the delivery
		wantSame(t, &seen, m)
		b.settle(c, transport.Requeue, "", d)
	}
	b.settle(c, transport.Ack, "", b.receive(c, 1)...)
	b.empty()
}

// begin begins with a delivery.
func (b *bench) begin(c transport.Consumer, d *transport.Delivery) {
	b.Helper()
	if err := c.Begin(b.context(), d); err != nil {
		b.Fatalf("begin: %v", err)
	}
}

// wantBegun begins with the next delivery and compares how often that was done with its message.
func (b *bench) wantBegun(c transport.Consumer, id string, want int) transport.Delivery {
	b.Helper()
	ds := b.receive(c, 1)
	b.wantIDs(ds, id)
	b.begin(c, &ds[0])
	if got := ds[0].Message.Headers.Attempts(); got != want {
		b.Errorf("%s has begun %d times; want %d", id, got, want)
	}
	return ds[0]
}

// testBegunIsHeld: what work has begun on is settled like anything else, with each verdict.
func testBegunIsHeld(_ *testing.T, b *bench) {
	c := b.consume("q")
	for _, v := range []transport.Verdict{transport.Ack, transport.Reject, transport.Quarantine} {
		id := fmt.Sprint("x", v)
		b.publish("q", id)
		b.settle(c, transport.Return, "", b.receive(c, 1)...)
		b.settle(c, v, "it is bad", b.wantBegun(c, id, 1))
		b.empty()
	}
}

// testBegunCounts: only what began is counted. What waited for its run when its consumer ended, or went back, is not, and
// neither is what a stop has given back; what a task has given back is.
func testBegunCounts(_ *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", "x")
	b.settle(c, transport.Return, "", b.receive(c, 1)...)
	b.settle(c, transport.Requeue, "", b.wantBegun(c, "x", 1))
	for range 3 {
		b.settle(c, transport.Return, "", b.receive(c, 1)...)
	}
	b.settle(c, transport.Return, "", b.wantBegun(c, "x", 2))
	for range 3 {
		b.receive(c, 1) // and it waits
		b.close(c)
		c = b.consume("q")
	}
	b.wantBegun(c, "x", 2)
	b.close(c) // gives it back
	c = b.consume("q")
	b.settle(c, transport.Requeue, "", b.wantBegun(c, "x", 2))
	b.settle(c, transport.Ack, "", b.wantBegun(c, "x", 3))
	b.empty()
}

func testBeginLost(t *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", "a")
	ds := b.receive(c, 1)
	b.settle(c, transport.Ack, "", ds...)
	if err := c.Begin(b.context(), &ds[0]); !errors.Is(err, transport.ErrTakenBack) {
		t.Errorf("began on what is held no more: %v; expected ErrTakenBack", err)
	}
	b.empty()
}

// testCancelAll: without a queue Receive waits for one to be added.
func testCancelAll(t *testing.T, b *bench) {
	c := b.consume("q")
	b.cancel(c, "q")
	b.publish("q", "a")
	done := make(chan received, 1)
	ctx := b.context()
	go func() {
		ds, err := c.Receive(ctx, 5)
		done <- received{ds, err}
	}()
	b.wantDepth("q", 1, 0)
	b.add(c, "q")
	r := <-done
	if r.err != nil {
		t.Fatalf("receive: %v", r.err)
	}
	b.wantIDs(r.deliveries, "a")
	b.settle(c, transport.Ack, "", r.deliveries...)
	b.empty()
}
